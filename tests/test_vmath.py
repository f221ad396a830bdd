"""The functions of src/vmath.h: errors, special values, symmetries, on every instruction set.

**Error measure.** Errors count in ulp of the exact result: the distance of neighbouring numbers of
the type at its magnitude, and for subnormal results the smallest subnormal number. A result beyond
the largest number has to be inf.

**Oracles.** mpmath with 50 digits for some hundreds of points; for a hundred thousand the C library
in the next wider type, good to about 2^-10 ulp (float64 in 80-bit long double) or 2^-28 ulp
(float32 in float64). The bounds are those that stand above each function in vmath.h. Rounding
errors rarely all add up, so the points are many and include the neighbours of all places where the
computation changes.
"""

import functools
import math

import mpmath
import numpy as np
import pytest
from support.processes import run_python
from support.vmath import (
    DTYPES,
    FUNCTIONS,
    N_MPMATH,
    PARITY,
    SPECIAL,
    WIDER,
    Case,
    beyond,
    bounds,
    inputs,
    number,
    power_allowance,
    powers,
)

import kerneldiff._core


@pytest.fixture(scope="module")
def arrays(isa, tmp_path_factory):
    """All results of one instruction set."""
    path = tmp_path_factory.mktemp(isa) / "arrays.npz"
    used = run_python(
        """
        import sys
        import kerneldiff._core, support.vmath
        support.vmath.save(sys.argv[1])
        print(kerneldiff._core.config()["isa"])
        """,
        path,
        isa=isa,
    )
    assert used.strip() == isa
    return np.load(path)


@functools.cache
def wide_values(case, dtype):
    """Results in the next wider type."""
    with np.errstate(all="ignore"):
        return FUNCTIONS[case].wide(inputs(case, dtype)[0].astype(WIDER[dtype]))


@functools.cache
def mpmath_values(case, dtype):
    """Results with 50 digits, and the positions in the inputs that they belong to."""
    x, n_edges = inputs(case, dtype)
    rng = np.random.default_rng(2)
    chosen = np.concatenate(
        [rng.choice(n_edges, N_MPMATH), rng.choice(np.arange(n_edges, x.size), N_MPMATH)]
    )
    with mpmath.workdps(50):
        return chosen, [FUNCTIONS[case].exact(mpmath.mpf(float(x[i]))) for i in chosen]


def ulp(exact, info):
    """What an error is measured in."""
    exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
    return np.ldexp(np.ones_like(exact), exponent - info.nmant)


def errors_in_ulp(actual, exact):
    """Errors of an array, the exact values being of a wider type."""
    info = np.finfo(actual.dtype)
    largest = np.asarray(info.max, exact.dtype) * (1 + np.asarray(info.eps, exact.dtype) / 4)
    with np.errstate(invalid="ignore"):
        errors = np.abs(actual - exact) / ulp(exact, info)
    overflow = np.where(actual == np.copysign(np.inf, exact), 0, np.inf)
    return np.where(np.abs(exact) >= largest, overflow, errors).astype(float)


def error_in_ulp(actual, exact):
    """Error of one number, the exact value being one of mpmath."""
    info = np.finfo(actual.dtype)
    with mpmath.workdps(50):
        exponent = max(mpmath.frexp(exact)[1] - 1, info.minexp) if exact else info.minexp
        if abs(exact) >= mpmath.mpf(float(info.max)) * (1 + mpmath.mpf(float(info.eps)) / 4):
            return 0.0 if actual == math.copysign(math.inf, exact) else math.inf
        return float(
            abs(mpmath.mpf(float(actual)) - exact) / mpmath.ldexp(1, exponent - info.nmant)
        )


def assert_within(errors, bound, x):
    """Not "any(errors > bound)": NaN has to fail."""
    excess = np.where(np.isnan(errors), np.inf, errors) / bound
    worst = int(np.argmax(excess))
    assert excess[worst] <= 1, f"{errors[worst]:.3f} ulp at {float(x[worst]).hex()} ({x[worst]})"


# --------------------------------------------------------------------------------------------------
# Tests
# --------------------------------------------------------------------------------------------------


def test_every_function_is_here():
    assert {case.name for case in FUNCTIONS} == set(kerneldiff._core.VMATH)


@pytest.mark.quick(4)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", FUNCTIONS, ids=str)
def test_against_mpmath(arrays, case, dtype):
    chosen, exact = mpmath_values(case, dtype)
    actual = arrays[f"{case}-{dtype}"][chosen]
    assert actual.dtype == dtype
    errors = np.array([error_in_ulp(y, value) for y, value in zip(actual, exact, strict=True)])
    size = np.array([float(value) for value in exact])
    assert_within(errors, bounds(case, size), inputs(case, dtype)[0][chosen])


@pytest.mark.parametrize("dtype", WIDER)
@pytest.mark.parametrize("case", FUNCTIONS, ids=str)
def test_against_wider_type(arrays, case, dtype):
    exact = wide_values(case, dtype)
    errors = errors_in_ulp(arrays[f"{case}-{dtype}"], exact)
    assert_within(errors, bounds(case, exact), inputs(case, dtype)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("index", "name", "x", "value"),
    [pytest.param(i, *special, id="{}({})".format(*special)) for i, special in enumerate(SPECIAL)],
)
def test_special_values(arrays, index, name, x, value, dtype):
    actual = arrays[f"special-{index}-{dtype}"]
    expected = np.full(actual.shape, number(value, dtype))
    np.testing.assert_array_equal(actual, expected)
    if value == 0:
        np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_powers(arrays, dtype):
    """NaN, inf, zeros and signs as C has them; the rest to the bound, 1 ulp more for C's."""
    bases, exponent = powers(dtype)
    with np.errstate(all="ignore"):
        expected = np.power(bases.astype(float), exponent.astype(float)[:, None]).astype(dtype)
    actual = arrays[f"powers-{dtype}"]
    ordinary = np.isfinite(expected) & (expected != 0)
    np.testing.assert_array_equal(actual[~ordinary], expected[~ordinary])
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))
    u, p = (x[ordinary] for x in np.broadcast_arrays(bases, exponent[:, None]))
    expected = expected[ordinary].astype(float)
    errors = np.abs(actual[ordinary] - expected) / ulp(expected, np.finfo(dtype))
    assert_within(errors, 2.1 + power_allowance(p.astype(float), expected), u)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PARITY)
def test_odd_or_even(arrays, name, dtype):
    case = Case(name)
    mirrored = arrays[f"{case}-{dtype}-mirrored"]
    np.testing.assert_array_equal(mirrored, PARITY[name] * arrays[f"{case}-{dtype}"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "sech2", "sin", "cos", "sinpi", "cospi"])
def test_at_most_one(arrays, name, dtype):
    assert np.abs(arrays[f"{name}-{dtype}"]).max() == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("case", "binary_log"),
    [
        pytest.param(Case("exp"), lambda x: x / math.log(2), id="exp"),
        pytest.param(Case("exp_neg"), lambda x: x / math.log(2), id="exp_neg"),
        pytest.param(Case("sech2"), lambda x: 2 - 2 * np.abs(x) / math.log(2), id="sech2"),
        pytest.param(Case("pow", 3.0), lambda x: 3 * np.log2(x), id="pow"),
    ],
)
def test_underflow_is_gradual(arrays, case, binary_log, dtype):
    """A result is not 0 from the smallest subnormal number up, and 0 below a quarter of it."""
    info = np.finfo(dtype)
    least = info.minexp - info.nmant
    size = binary_log(inputs(case, dtype)[0].astype(float))
    actual = arrays[f"{case}-{dtype}"]
    assert np.count_nonzero((actual > 0) & (actual < info.smallest_normal)) > 100
    assert np.all(actual[size >= least] > 0)
    assert np.all(actual[size <= least - 2] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_large_angles(arrays, name, dtype):
    """Beyond the range of the bound the result is that of an angle off by at most 1 ulp."""
    x = beyond(dtype)
    exact = [getattr(mpmath, name)(mpmath.mpf(float(value))) for value in x]
    errors = np.abs(arrays[f"beyond-{name}-{dtype}"] - np.array(exact, float))
    assert np.all(errors <= np.spacing(x) + 4 * np.finfo(dtype).eps)
