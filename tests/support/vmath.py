"""The list of functions of src/vmath.h: bounds, oracles, and numbers to compute them at."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np

import kerneldiff._core

DTYPES = ("float64", "float32")
# Types whose next wider one is really wider: long double is not so on every platform.
WIDER = {"float32": np.float64}
if np.finfo(np.longdouble).nmant >= 63:
    WIDER["float64"] = np.longdouble

N_RANDOM = 100_000
N_MPMATH = 150


class Case(NamedTuple):
    """A function, with its second argument if it takes one."""

    name: str
    p: float = 0.0

    def __str__(self):
        return f"{self.name}({self.p:g})" if self.name in ("pow", "pow1p") else self.name


class Function(NamedTuple):
    """What is known of a function: error bound, two oracles, points, where its domain begins."""

    bound: float
    exact: Callable
    wide: Callable
    points: Callable
    low: float = -math.inf


# --------------------------------------------------------------------------------------------------
# Points: lists of random ones, and an array of those next to which the computation changes. They
# are rounded to the type afterwards, whose np.finfo is `info`.
# --------------------------------------------------------------------------------------------------


def exponents(info):
    """Exponents of all numbers, subnormal ones included, and one more on each side."""
    return np.arange(info.minexp - info.nmant - 1, info.maxexp + 2)


def log_uniform(rng, low, high, n):
    """Random numbers of both signs and of all magnitudes between two powers of ten."""
    return rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(low, high, n)


def smallest(info):
    """Power of ten just above the smallest normal number."""
    return math.log10(info.smallest_normal) + 0.01


def exp_points(rng, info):
    """Where the multiple of ln 2 that is split off changes, and where it fits; both ends."""
    n = exponents(info)
    low, high = n[0] * math.log(2), n[-1] * math.log(2)
    random = [
        rng.uniform(low, high, N_RANDOM // 2),
        rng.uniform(-2, 2, N_RANDOM // 4),
        log_uniform(rng, -20, 2, N_RANDOM // 4),
    ]
    return random, (n[:, None] + [0.0, 0.5]) * math.log(2)


def exp_neg_points(rng, info):
    random, edges = exp_points(rng, info)
    return [-np.abs(x) for x in random], edges[edges < 0]


def tanh_points(rng, info):
    random, edges = exp_points(rng, info)
    near = rng.uniform(-1, 1, N_RANDOM // 2)
    return [*(x / 2 for x in random), near, log_uniform(rng, smallest(info), 0, 1000)], edges / 2


def log_points(rng, info):
    """All binades, where they are cut in two, both sides of 1, subnormal numbers."""
    n = exponents(info)[1:-2]
    random = [
        2.0 ** rng.uniform(n[0], n[-1], N_RANDOM // 2),
        rng.uniform(0.5, 2, N_RANDOM // 2),
        1 + log_uniform(rng, -9, -1, N_RANDOM // 10),
    ]
    return random, np.ldexp([[1.0], [math.sqrt(2)]], n)


def log1p_points(rng, info):
    random, edges = log_points(rng, info)
    small = log_uniform(rng, smallest(info), -0.001, N_RANDOM // 2)
    return [*(x - 1 for x in random), small], np.concatenate([edges - 1, edges])


def sin_points(rng, info):
    """Quarters of a turn and the eighths between them, as far as the bound is promised."""
    limit = 2.0**20 if info.nmant == 52 else 2.0**13
    quarters = np.concatenate([np.arange(200), rng.integers(0, int(limit / 1.6), 2000)])
    random = [
        rng.uniform(-limit, limit, N_RANDOM // 2),
        rng.uniform(-9, 9, N_RANDOM // 2),
        log_uniform(rng, smallest(info), 0, 1000),
    ]
    return random, (quarters[:, None] + [0.0, 0.5]) * (math.pi / 2)


def sinpi_points(rng, info):
    limit = 2.0 ** (info.nmant // 2)
    eighths = np.concatenate([np.arange(-200, 200), rng.integers(0, int(limit), 2000)])
    random = [
        rng.uniform(-limit, limit, N_RANDOM // 2),
        rng.uniform(-3, 3, N_RANDOM // 2),
        log_uniform(rng, smallest(info), 0, 1000),
    ]
    return random, eighths / 4


def pow_points(p):
    """Bases whose powers are all the numbers there are, and some beyond."""

    def points(rng, info):
        n = exponents(info)
        limit = min(abs(n[0] / p), n[-1] - 3)
        binades = np.arange(-int(limit), int(limit) + 1)
        ends = 2.0 ** np.clip(np.array([info.minexp, info.maxexp]) / p, -limit, limit)
        random = [2.0 ** rng.uniform(-limit, limit, N_RANDOM), rng.uniform(0.3, 3, N_RANDOM // 10)]
        return random, np.concatenate([np.ldexp([[1.0], [math.sqrt(2)]], binades).ravel(), ends])

    return points


def pow1p_points(p):
    def points(rng, info):
        random, edges = pow_points(p)(rng, info)
        small = log_uniform(rng, smallest(info), -0.001, N_RANDOM // 2)
        return [*(x - 1 for x in random), small], edges - 1

    return points


# --------------------------------------------------------------------------------------------------
# THE list of functions
# --------------------------------------------------------------------------------------------------


def wide_sech2(x):
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def wide_sinpi(x, more=0):
    """sin(pi (x + more / 2)), with quarter turns taken off before anything is rounded."""
    quarters = np.rint(2 * x)
    r = 4 * np.arctan(np.ones_like(x)) * (x - quarters / 2)
    turn = np.mod(quarters + more, 4)
    return np.where(turn % 2 == 0, np.sin(r), np.cos(r)) * np.where(turn < 2, 1, -1)


def wide_pow1p(x, p):
    """1 + x is exact in the wider type unless x is small, where log1p(x) is long enough."""
    return np.where(np.abs(x) < 1e-3, np.exp(p * np.log1p(x)), (1 + x) ** p)


def pow_function(p):
    return Function(1.1, lambda x: mpmath.power(x, p), lambda x: x**p, pow_points(p), 0.0)


def pow1p_function(p):
    return Function(
        1.1,
        lambda x: mpmath.exp(p * mpmath.log1p(x)),
        lambda x: wide_pow1p(x, p),
        pow1p_points(p),
        -1.0,
    )


FUNCTIONS = {
    Case("exp"): Function(1.1, mpmath.exp, np.exp, exp_points),
    Case("exp_neg"): Function(1.1, mpmath.exp, np.exp, exp_neg_points),
    Case("tanh"): Function(2.2, mpmath.tanh, np.tanh, tanh_points),
    Case("sech2"): Function(4.3, lambda x: mpmath.sech(x) ** 2, wide_sech2, tanh_points),
    Case("log"): Function(0.9, mpmath.log, np.log, log_points, 0.0),
    Case("log1p"): Function(1.0, mpmath.log1p, np.log1p, log1p_points, -1.0),
    Case("sin"): Function(2.6, mpmath.sin, np.sin, sin_points),
    Case("cos"): Function(2.6, mpmath.cos, np.cos, sin_points),
    Case("sinpi"): Function(2.3, mpmath.sinpi, wide_sinpi, sinpi_points),
    Case("cospi"): Function(2.3, mpmath.cospi, lambda x: wide_sinpi(x, 1), sinpi_points),
    **{Case("pow", p): pow_function(p) for p in (-1.0, -0.5, 2.5, 3.0, -30.0, 300.0)},
    **{Case("pow1p", p): pow1p_function(p) for p in (-1.0, -0.5, -2.5, -30.0, -300.0)},
}

# f(-x) = sign f(x), to the last bit.
PARITY = {"tanh": -1, "sech2": 1, "sin": -1, "cos": 1, "sinpi": -1, "cospi": 1}


def power_allowance(p, exact):
    """What p log(u) adds to the error of u^p: it needs more digits than the type has."""
    with np.errstate(divide="ignore"):
        return np.fmin(np.abs(p) / 35, np.abs(np.log(np.abs(exact))).astype(float) / 15)


def bounds(case, exact):
    """Bound for each exact value."""
    allowance = power_allowance(case.p, exact) if case.name in ("pow", "pow1p") else 0.0
    return np.broadcast_to(FUNCTIONS[case].bound + allowance, np.shape(exact))


@functools.cache
def inputs(case, dtype):
    """Edges and their neighbours, then random points; and how many of the first there are."""
    info = np.finfo(dtype)
    rng = np.random.default_rng([ord(letter) for letter in str(case)])
    random, edges = FUNCTIONS[case].points(rng, info)

    def valid(x):
        with np.errstate(over="ignore", under="ignore"):
            x = x.astype(dtype)
        return x[np.isfinite(x) & (x > FUNCTIONS[case].low)]

    edges = valid(edges.ravel())
    near = [edges]
    for direction in (-np.inf, np.inf):
        x = edges
        for _ in range(2):
            x = np.nextafter(x, np.asarray(direction, dtype))
            near.append(x)
    near = valid(np.concatenate(near))
    return np.concatenate([near, valid(np.concatenate(random))]), near.size


# --------------------------------------------------------------------------------------------------
# Special values. Numbers are limits of the type, by name, or plain.
# --------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
UNARY_SPECIAL = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), ("max", INF)],
    "exp_neg": [(0.0, 1.0), (-0.0, 1.0), (-INF, 0.0), (NAN, NAN), ("-max", 0.0), ("-min", 1.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN), ("max", 1.0)],
    "sech2": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 0.0), (NAN, NAN), ("max", 0.0)],
    "log": [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (NAN, NAN), (1.0, 0.0)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, NAN), (NAN, NAN), (-1.0, -INF)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), ("max", NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN), ("max", NAN)],
    "sinpi": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (2.5, 1.0)],
    "cospi": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN), ("max", 1.0)],
}
MORE_SPECIAL = {
    "exp": [("-max", 0.0), ("min", 1.0), ("-min", 1.0)],
    "tanh": [("-max", -1.0), ("min", "min"), ("-min", "-min"), (30.0, 1.0)],
    "sech2": [("min", 1.0), (53.0 * 8, 0.0)],
    "log": [(-1.0, NAN), ("-min", NAN)],
    "log1p": [("min", "min"), ("-min", "-min"), (-1.5, NAN)],
    "sin": [("min", "min"), ("-min", "-min")],
    "sinpi": [(-1.5, 1.0), (3.0, -0.0), (1e6, 0.0), (3.5, -1.0)],
    "cospi": [(1.0, -1.0), (-3.0, -1.0), (1e6, 1.0)],
}
SPECIAL = [
    (name, x, value)
    for table in (UNARY_SPECIAL, MORE_SPECIAL)
    for name, pairs in table.items()
    for x, value in pairs
]


def number(value, dtype):
    """A special value as a number of the type."""
    info = np.finfo(dtype)
    named = {"max": info.max, "-max": -info.max}
    named |= {"min": info.smallest_subnormal, "-min": -info.smallest_subnormal}
    return np.asarray(named.get(value, value)).astype(dtype)


def powers(dtype):
    """Bases and exponents at which pow has something special to do."""
    info = np.finfo(dtype)
    eps, many = float(info.eps), 2.0**info.nmant
    positive = [0.0, 1.0, 2.0, 0.5, 3.0, 1 + eps, 1e-5, INF, "max", "min"]
    bases = [number(x, dtype) for x in positive]
    whole = [0.0, 1.0, 2.0, 3.0, 30.0, 31.0, 1e10, many - 1, many, many + 1, 2 * many - 1, INF]
    exponent = [number(x, dtype) for x in [*whole, 0.5, 2.5, 0.3, "min", "max"]]
    return np.array([*bases, *(-x for x in bases), NAN], dtype), np.array(
        [*exponent, *(-x for x in exponent), NAN], dtype
    )


BEYOND = {"float64": (20, 46), "float32": (13, 17)}


def beyond(dtype):
    """Arguments too large for the bounds of sin and cos."""
    low, high = BEYOND[dtype]
    return (2.0 ** np.random.default_rng(1).uniform(low, high, 500)).astype(dtype)


# --------------------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------------------


def save(path):
    """Compute all of it with the instruction set in use; called in a process of its own."""
    vmath = kerneldiff._core.vmath
    arrays = {}
    for dtype in DTYPES:
        for case in FUNCTIONS:
            x = inputs(case, dtype)[0]
            arrays[f"{case}-{dtype}"] = vmath(case.name, x, case.p)
            if case.name in PARITY:
                arrays[f"{case}-{dtype}-mirrored"] = vmath(case.name, -x)
        for index, (name, x, _) in enumerate(SPECIAL):
            # Long enough for the vector loop and its remainder.
            arrays[f"special-{index}-{dtype}"] = vmath(name, np.full(37, number(x, dtype)))
        bases, exponent = powers(dtype)
        arrays[f"powers-{dtype}"] = np.array([vmath("pow", bases, float(p)) for p in exponent])
        for name in ("sin", "cos"):
            arrays[f"beyond-{name}-{dtype}"] = vmath(name, beyond(dtype))
    np.savez(path, **arrays)
