"""Kernels to test with, and what their derivatives are by other means than ours.

`REGISTRY` holds kernel expressions of every family. `mp_jet` and `mp_partial` differentiate the
textbook formulas in 50 digits (mpmath); `jax_function` writes the kernel in squared distances for
automatic differentiation. Neither shares a formula for a derivative with `kerneldiff`.
"""

import copy
import functools
from dataclasses import dataclass
from functools import cache

import mpmath as mp
import numpy as np
from hypothesis import strategies as st
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from support.functionals import wide

from kerneldiff import Columns, _reference

DIGITS = 50
# mpmath's Bessel functions are slow, most of all where they are small: half the digits for them,
# and no points that are far apart.
BESSEL_DIGITS = 25
BESSEL_FAR = 8.0


@dataclass(frozen=True)
class Case:
    """A kernel expression and what is known about it."""

    factory: object
    """The kernel for points of D columns."""
    smoothness: float = np.inf
    """At coincident points derivatives of order q exist for q < smoothness."""
    positive: bool = True
    """Whether it is positive semidefinite for all D."""
    bessel: bool = False
    """Whether a Matern kernel in it has no closed form, and so neither extended precision."""
    far: float = 100.0
    """How far apart points may be: a rounding error of s is one of the phase of a periodic kernel,
    and of the exponent."""

    def __call__(self, D):
        return self.factory(D)


def ard(D, low=0.6, high=1.9):
    """Length scales of their own for D columns."""
    return np.geomspace(low, high, D) if D > 1 else low


def _poly(gamma=1.0, **options):
    return PairwiseKernel(gamma=gamma, metric="poly", pairwise_kernels_kwargs=options or None)


REGISTRY = {
    # One family each, with and without scales of their own, and at the ends of what fits give.
    "rbf": Case(lambda D: RBF(1.3)),
    "rbf-ard": Case(lambda D: RBF(ard(D))),
    "rbf-narrow": Case(lambda D: RBF(1e-2)),
    "rbf-wide": Case(lambda D: RBF(1e5)),
    "rbf-ard-extreme": Case(lambda D: RBF(ard(D, 1e-3, 1e3))),
    "constant*rbf": Case(lambda D: 2.5 * RBF(0.7)),
    "tiny*rbf": Case(lambda D: 1e-10 * RBF(1.0)),
    "zero*rbf": Case(lambda D: ConstantKernel(0.0) * RBF(1.0)),
    "constant": Case(lambda D: ConstantKernel(3.0)),
    "matern-1/2": Case(lambda D: Matern(1.2, nu=0.5), smoothness=1),
    "matern-1/2-ard": Case(lambda D: Matern(ard(D), nu=0.5), smoothness=1),
    "matern-3/2": Case(lambda D: Matern(1.2, nu=1.5), smoothness=3),
    "matern-3/2-ard": Case(lambda D: Matern(ard(D), nu=1.5), smoothness=3),
    "matern-3/2-wide": Case(lambda D: Matern(1e4, nu=1.5), smoothness=3),
    "matern-5/2": Case(lambda D: Matern(0.8, nu=2.5), smoothness=5),
    "matern-5/2-ard": Case(lambda D: Matern(ard(D), nu=2.5), smoothness=5),
    "matern-7/2": Case(lambda D: Matern(1.1, nu=3.5), smoothness=7),
    "matern-inf": Case(lambda D: Matern(1.1, nu=np.inf)),
    "matern-0.8": Case(lambda D: Matern(1.2, nu=0.8), smoothness=1.6, bessel=True, far=BESSEL_FAR),
    "matern-1.7": Case(lambda D: Matern(0.9, nu=1.7), smoothness=3.4, bessel=True, far=BESSEL_FAR),
    "matern-2": Case(lambda D: Matern(1.5, nu=2.0), smoothness=4, bessel=True, far=BESSEL_FAR),
    "matern-4.3-ard": Case(
        lambda D: Matern(ard(D), nu=4.3), smoothness=8.6, bessel=True, far=BESSEL_FAR
    ),
    "rational": Case(lambda D: RationalQuadratic(1.2, alpha=0.7)),
    "rational-heavy": Case(lambda D: RationalQuadratic(0.5, alpha=0.03)),
    "rational-light": Case(lambda D: RationalQuadratic(1.5, alpha=1e5)),
    "periodic": Case(lambda D: ExpSineSquared(0.9, periodicity=2.1), positive=False),
    "periodic-slow": Case(lambda D: ExpSineSquared(1.3, periodicity=1e3), positive=False),
    "periodic-fast": Case(lambda D: ExpSineSquared(1.1, periodicity=0.05), positive=False, far=2.0),
    "periodic-sharp": Case(lambda D: ExpSineSquared(0.1, periodicity=3.0), positive=False, far=5.0),
    "dot": Case(lambda D: DotProduct(0.4)),
    "dot-homogeneous": Case(lambda D: DotProduct(0.0)),
    "pairwise-rbf": Case(lambda D: PairwiseKernel(gamma=0.3, metric="rbf")),
    "pairwise-linear": Case(lambda D: PairwiseKernel(metric="linear")),
    "pairwise-poly": Case(lambda D: _poly()),
    "pairwise-poly-2": Case(lambda D: _poly(0.3, degree=2, coef0=0.0)),
    "pairwise-poly-2.5": Case(lambda D: _poly(0.1, degree=2.5, coef0=2e4), positive=False),
    "pairwise-sigmoid": Case(lambda D: PairwiseKernel(gamma=0.2, metric="sigmoid"), positive=False),
    # Sums and products on one invariant.
    "rbf+rbf": Case(lambda D: RBF(0.5) + 0.3 * RBF(3.0)),
    "rbf*matern": Case(lambda D: RBF(2.0) * Matern(0.7, nu=2.5), smoothness=5),
    "rough*smooth": Case(lambda D: RBF(2.0) * Matern(0.7, nu=0.5), smoothness=1),
    "rough+smooth": Case(lambda D: RBF(2.0) + 1e-3 * Matern(0.7, nu=1.5), smoothness=3),
    "rational*periodic": Case(
        lambda D: RationalQuadratic(2.0, 1.5) * ExpSineSquared(1.2, 3.0), positive=False
    ),
    "dot*dot": Case(lambda D: DotProduct(0.7) * DotProduct(1.3)),
    "rbf+white": Case(lambda D: RBF(1.0) + WhiteKernel(0.3)),
    "rbf*white": Case(lambda D: RBF(1.0) * WhiteKernel(0.3)),
    "white": Case(lambda D: WhiteKernel(0.3)),
    # Several invariants.
    "rbf-ard*dot": Case(lambda D: RBF(ard(D)) * DotProduct(0.5)),
    "rbf-ard+rbf-ard": Case(lambda D: RBF(ard(D)) + RBF(ard(D, 2.0, 0.4))),
    "rbf-ard*rbf-ard": Case(lambda D: RBF(ard(D)) * RBF(ard(D, 2.0, 0.4))),
    "matern-ard*periodic": Case(
        lambda D: Matern(ard(D), nu=2.5) * ExpSineSquared(1.0, 2.5),
        smoothness=5,
        positive=False,
    ),
    "matern*dot": Case(lambda D: Matern(1.1, nu=1.5) * DotProduct(0.2), smoothness=3),
    "three": Case(lambda D: RBF(ard(D)) * Matern(1.3, nu=2.5) * DotProduct(0.6), smoothness=5),
    # Powers.
    "rbf**1/2": Case(lambda D: RBF(0.9) ** 0.5),
    "rbf**0": Case(lambda D: RBF(0.9) ** 0),
    "dot**2": Case(lambda D: DotProduct(0.3) ** 2),
    "dot**3": Case(lambda D: DotProduct(0.0) ** 3),
    "matern**2": Case(lambda D: Matern(1.4, nu=1.5) ** 2, smoothness=3),
    "matern-ard**1.7": Case(lambda D: Matern(ard(D), nu=2.5) ** 1.7, smoothness=5, positive=False),
    "(1+rbf)**-1": Case(lambda D: (1.0 + RBF(1.2)) ** -1, positive=False),
    "(rbf+white)**2": Case(lambda D: (RBF(1.0) + WhiteKernel(0.3)) ** 2),
    "(rbf-ard+dot)**2": Case(lambda D: (RBF(ard(D)) + DotProduct(0.5)) ** 2),
    # Deeper.
    "nested": Case(
        lambda D: (
            (0.5 * RBF(1.1) ** 2 + Matern(ard(D), nu=1.5) * DotProduct(0.4))
            * (RationalQuadratic(0.8, 1.2) + 0.1)
        ),
        smoothness=3,
    ),
    "co2": Case(
        lambda D: (
            50.0 * RBF(50.0)
            + 2.0 * RBF(100.0) * ExpSineSquared(1.0, 1.0)
            + 0.5 * RationalQuadratic(1.0, alpha=0.8)
            + (0.1 * RBF(0.1) + WhiteKernel(0.01))
        ),
        positive=False,
        far=30.0,
    ),
}


# ---------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------

#: Where derivatives are compared; two pairs each.
PLACES = ("generic", "near", "coincident", "offset", "near-offset", "partly", "far")


def pairs(place, D, far=100.0):
    """Two pairs of points (x_i, y_i) as two (2, D) arrays."""
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(2, 2, D))
    direction = rng.choice([-1.0, 1.0], size=(2, D)) * rng.uniform(0.5, 1.0, size=(2, D))
    if place == "coincident":
        Y = X.copy()
    elif place == "near":
        Y = X + 1e-6 * direction
    elif place == "offset":
        X, Y = X + 2.0**20, Y + 2.0**20
    elif place == "near-offset":
        X = X + 2.0**20
        Y = X + 1e-6 * direction
    elif place == "partly":
        Y[:, 0] = X[:, 0]
    elif place == "far":
        Y = X + far / np.sqrt(D) * direction
    return X, Y


def mixed(D, dtype, far=100.0, offset=0.0):
    """Points among whose pairs there are all of these kinds: (5, D) and (16, D).

    Generic, coincident, 1e-6 apart, coincident in the first column or in all others, and from 1 to
    `far` apart.
    """
    rng = np.random.default_rng([7, D])
    X, Y = rng.normal(size=(5, D)), rng.normal(size=(16, D))
    direction = rng.choice([-1.0, 1.0], size=(16, D)) * rng.uniform(0.5, 1.0, size=(16, D))
    Y[:2] = X[:2]
    Y[2:4] = X[2:4] + 1e-6 * direction[2:4]
    Y[4, 0] = X[4, 0]
    Y[5, 1:] = X[4, 1:]
    Y[8:] = X[0] + np.geomspace(1, far, 8)[:, None] / np.sqrt(D) * direction[8:]
    return (X + offset).astype(dtype), (Y + offset).astype(dtype)


# ---------------------------------------------------------------------------------------------
# mpmath: the textbook formulas in 50 digits
# ---------------------------------------------------------------------------------------------


def mp_value(kernel, x, y):
    """k(x, y) of sequences of numbers, as scikit-learn's documentation has it."""
    match kernel:
        case sk.Sum():
            return mp_value(kernel.k1, x, y) + mp_value(kernel.k2, x, y)
        case sk.Product():
            return mp_value(kernel.k1, x, y) * mp_value(kernel.k2, x, y)
        case sk.Exponentiation():
            return mp_value(kernel.kernel, x, y) ** mp.mpf(float(kernel.exponent))
        case sk.ConstantKernel():
            return mp.mpf(kernel.constant_value)
        case sk.WhiteKernel():
            return mp.mpf(0)
        case sk.Matern():
            return _mp_matern(kernel.nu, _mp_distance(x, y, kernel.length_scale))
        case sk.RBF():
            return mp.exp(-(_mp_distance(x, y, kernel.length_scale) ** 2) / 2)
        case sk.RationalQuadratic():
            alpha = mp.mpf(kernel.alpha)
            d = _mp_distance(x, y, kernel.length_scale)
            return (1 + d**2 / (2 * alpha)) ** -alpha
        case sk.ExpSineSquared():
            d = _mp_distance(x, y, 1.0)
            return mp.exp(
                -2 * (mp.sin(mp.pi * d / mp.mpf(kernel.periodicity)) / kernel.length_scale) ** 2
            )
        case sk.DotProduct():
            return mp.mpf(kernel.sigma_0) ** 2 + mp.fdot(x, y)
        case sk.PairwiseKernel():
            return _mp_pairwise(kernel, x, y)
    if isinstance(kernel, Columns):
        return mp_value(kernel.kernel, [x[d] for d in kernel.dims], [y[d] for d in kernel.dims])
    raise TypeError(kernel)


def _mp_distance(x, y, length_scale):
    scales = np.broadcast_to(length_scale, len(x))
    return mp.sqrt(
        mp.fsum(((a - b) / mp.mpf(w)) ** 2 for a, b, w in zip(x, y, scales, strict=True))
    )


def _mp_matern(nu, d):
    if nu == np.inf:
        return mp.exp(-(d**2) / 2)
    closed = {
        0.5: lambda t: 1,
        1.5: lambda t: 1 + t,
        2.5: lambda t: 1 + t + t**2 / 3,
    }
    nu = mp.mpf(nu)
    t = mp.sqrt(2 * nu) * d
    if nu in closed:
        return closed[nu](t) * mp.exp(-t)
    if d == 0:
        return mp.mpf(1)
    if mp.isint(nu):
        # besselk takes a limit at whole orders, 10 times slower than a point next to it.
        nu += mp.mpf(10) ** -30
    return 2 ** (1 - nu) / mp.gamma(nu) * t**nu * mp.besselk(nu, t)


def _mp_pairwise(kernel, x, y):
    options = kernel.pairwise_kernels_kwargs or {}
    gamma, coef0 = mp.mpf(kernel.gamma), mp.mpf(options.get("coef0", 1))
    match kernel.metric:
        case "linear":
            return mp.fdot(x, y)
        case "rbf":
            return mp.exp(-gamma * _mp_distance(x, y, 1.0) ** 2)
        case "poly":
            return (gamma * mp.fdot(x, y) + coef0) ** mp.mpf(options.get("degree", 3))
        case "sigmoid":
            return mp.tanh(gamma * mp.fdot(x, y) + coef0)
    raise TypeError(kernel)


def mp_partial(kernel, x, y, orders):
    """A mixed partial derivative; `orders` are those in x_1, ..., x_D, y_1, ..., y_D.

    mpmath takes differences with steps of 1e-50 in as many digits as that needs. At coincident
    points a Matern kernel is not analytic, and the error is about the step to the power
    2 nu - order, at least 0.6 here: below the last digit of float64, too.
    """
    D = len(x)
    with mp.workdps(BESSEL_DIGITS if has_bessel(kernel) else DIGITS):
        point = [mp.mpf(float(v)) for v in (*x, *y)]
        return mp.diff(lambda *z: mp_value(kernel, z[:D], z[D:]), point, tuple(orders))


@cache
def mp_jet(name, place, D, order):
    """Value, gradient (2D,) or Hessian (2D, 2D) in (x, y) of a registered kernel, (2, ...).

    Object arrays of mpmath numbers.
    """
    case = REGISTRY[name]
    X, Y = pairs(place, D, case.far)
    return np.array([_mp_joint(case(D), x, y, order) for x, y in zip(X, Y, strict=True)])


def _mp_joint(kernel, x, y, order):
    size = 2 * len(x)
    out = np.empty((size,) * order, dtype=object)
    for index in np.ndindex(*out.shape):
        if list(index) == sorted(index):
            value = mp_partial(kernel, x, y, np.bincount(index, minlength=size).tolist())
            out[index] = out[index[::-1]] = value
    return out


def joint_block(joint, sides):
    """The part of a gradient or Hessian in (x, y) that `sides` names."""
    D = joint.shape[-1] // 2 if sides else 0
    part = {"x": slice(None, D), "y": slice(D, None)}
    return joint[(slice(None), *(part[side] for side in sides))]


# ---------------------------------------------------------------------------------------------
# JAX: the kernel in squared distances, for automatic differentiation
# ---------------------------------------------------------------------------------------------


def jax_function(kernel):
    """The kernel as a function k(x, y) of two JAX vectors.

    Written in s = |x - y|^2, so that automatic differentiation is right where points coincide,
    too; only Matern and ExpSineSquared need a root of s there and have no such form.
    """
    import jax.numpy as jnp

    def sqdist(x, y, scale=1.0):
        return jnp.sum(((x - y) / scale) ** 2)

    match kernel:
        case sk.Sum():
            f, g = jax_function(kernel.k1), jax_function(kernel.k2)
            return lambda x, y: f(x, y) + g(x, y)
        case sk.Product():
            f, g = jax_function(kernel.k1), jax_function(kernel.k2)
            return lambda x, y: f(x, y) * g(x, y)
        case sk.Exponentiation():
            f = jax_function(kernel.kernel)
            exponent = kernel.exponent
            power = int(exponent) if float(exponent).is_integer() else exponent
            return lambda x, y: f(x, y) ** power
        case sk.ConstantKernel():
            return lambda x, y: jnp.asarray(kernel.constant_value)
        case sk.WhiteKernel():
            return lambda x, y: jnp.asarray(0.0)
        case sk.Matern() if kernel.nu != np.inf:
            polynomial = {
                0.5: lambda t: 1.0,
                1.5: lambda t: 1 + t,
                2.5: lambda t: 1 + t + t**2 / 3,
                3.5: lambda t: 1 + t + 2 * t**2 / 5 + t**3 / 15,
            }[kernel.nu]

            def matern(x, y):
                t = jnp.sqrt(2 * kernel.nu * sqdist(x, y, kernel.length_scale))
                return polynomial(t) * jnp.exp(-t)

            return matern
        case sk.RBF():
            return lambda x, y: jnp.exp(-sqdist(x, y, kernel.length_scale) / 2)
        case sk.RationalQuadratic():
            alpha = kernel.alpha
            return lambda x, y: jnp.exp(
                -alpha * jnp.log1p(sqdist(x, y, kernel.length_scale) / (2 * alpha))
            )
        case sk.ExpSineSquared():

            def periodic(x, y):
                angle = 2 * jnp.pi * jnp.sqrt(sqdist(x, y)) / kernel.periodicity
                return jnp.exp((jnp.cos(angle) - 1) / kernel.length_scale**2)

            return periodic
        case sk.DotProduct():
            return lambda x, y: kernel.sigma_0**2 + jnp.dot(x, y)
        case sk.PairwiseKernel():
            options = kernel.pairwise_kernels_kwargs or {}
            gamma, coef0 = kernel.gamma, options.get("coef0", 1)
            return {
                "linear": lambda x, y: jnp.dot(x, y),
                "rbf": lambda x, y: jnp.exp(-gamma * sqdist(x, y)),
                "poly": lambda x, y: (gamma * jnp.dot(x, y) + coef0) ** options.get("degree", 3),
                "sigmoid": lambda x, y: jnp.tanh(gamma * jnp.dot(x, y) + coef0),
            }[kernel.metric]
    raise TypeError(kernel)


@cache
def jax_hessians(name, D):
    """Points X and Y, pair by pair, and the Hessians in (x, y) of a registered kernel, (n, 2D, 2D).

    In float64, which has to be switched on.
    """
    import jax

    kernel = REGISTRY[name](D)
    places = ["generic", "offset"] + ["coincident"] * (not has_root(kernel))
    X, Y = np.concatenate([pairs(place, D) for place in places], axis=1)
    function = jax_function(kernel)
    hessian = jax.jit(jax.vmap(jax.hessian(lambda z: function(z[:D], z[D:]))))
    joint = np.asarray(hessian(np.hstack([X, Y])))
    assert joint.dtype == np.float64
    return X, Y, joint


def has_root(kernel):
    """Whether `jax_function` takes a root of the squared distance."""
    return any(
        isinstance(leaf, ExpSineSquared) or (isinstance(leaf, Matern) and leaf.nu != np.inf)
        for leaf in leaves(kernel)
    )


def has_bessel(kernel):
    return any(
        isinstance(leaf, Matern) and leaf.nu not in (0.5, 1.5, 2.5, np.inf)
        for leaf in leaves(kernel)
    )


def leaves(kernel):
    """The kernels that a composite is made of."""
    if isinstance(kernel, sk.KernelOperator):
        return leaves(kernel.k1) + leaves(kernel.k2)
    if isinstance(kernel, sk.Exponentiation | Columns):
        return leaves(kernel.kernel)
    return [kernel]


# ---------------------------------------------------------------------------------------------
# Radial functions and functionals
# ---------------------------------------------------------------------------------------------

#: The radial functions of RBFInterpolator in s = r^2, for mpmath, as SciPy documents them.
RADIALS = {
    "linear": lambda s: -mp.sqrt(s),
    "thin_plate_spline": lambda s: s * mp.log(mp.sqrt(s)) if s else mp.mpf(0),
    "cubic": lambda s: mp.sqrt(s) ** 3,
    "quintic": lambda s: -(mp.sqrt(s) ** 5),
    "multiquadric": lambda s: -mp.sqrt(1 + s),
    "inverse_multiquadric": lambda s: 1 / mp.sqrt(1 + s),
    "inverse_quadratic": lambda s: 1 / (1 + s),
    "gaussian": lambda s: mp.exp(-s),
}


def operators(functional):
    """The functional written out, for each of its entries: (x, [(factor, orders in x_1..x_D)])."""
    X = functional.X
    D = X.shape[1]
    unit = np.eye(D, dtype=int)
    value = [[(1.0, 0 * unit[0])]]
    gradient = [[(1.0, e)] for e in unit]
    local = {
        "Value": lambda i: value,
        "Gradient": lambda i: gradient,
        "ValueGradient": lambda i: value + gradient,
        "Directional": lambda i: [[(functional.V[i, a], unit[a]) for a in range(D)]],
        "Hessian": lambda i: [[(1.0, d + e)] for d in unit for e in unit],
        "Laplacian": lambda i: [[(1.0, 2 * e) for e in unit]],
    }[type(functional).__name__]
    entries = [(x, terms) for i, x in enumerate(X) for terms in local(i)]
    kept = range(len(entries)) if functional.mask is None else np.flatnonzero(functional.mask)
    return [entries[i] for i in kept]


def mp_covariance(kernel, rows, cols):
    """The covariance of two functionals, the operators applied in 50 digits."""
    return np.array(
        [
            [
                mp.fsum(
                    a * b * mp_partial(kernel, x, y, (*left, *right))
                    for a, left in row
                    for b, right in col
                )
                for y, col in operators(cols)
            ]
            for x, row in operators(rows)
        ]
    )


def exact(array):
    """An array of floats of any precision as numbers of mpmath, without rounding."""

    def number(value):
        high = float(value)
        # What is left of an infinity or of NaN is NaN.
        low = float(value - type(value)(high)) if np.isfinite(high) else 0.0
        return mp.mpf(high) + mp.mpf(low)

    out = np.empty(np.shape(array), dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = number(array[index])
    return out


# ---------------------------------------------------------------------------------------------
# Derivatives of covariances with respect to hyperparameters and points
# ---------------------------------------------------------------------------------------------

# Where long double is double, a step that leaves more digits.
STEP = 2.0 ** (-12 if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps else -8)


def hyperparameters(kernel):
    """The numbers of a kernel that are not fixed, in the order of theta but not as logarithms."""
    values = [
        functools.reduce(getattr, h.name.split("__"), kernel)
        for h in kernel.hyperparameters
        if not h.fixed
    ]
    return np.hstack([np.zeros(0), *values])


def with_hyperparameters(kernel, values):
    """A copy of a kernel with other such numbers, of any type."""
    kernel = copy.deepcopy(kernel)
    position = 0
    for h in kernel.hyperparameters:
        if not h.fixed:
            *path, name = h.name.split("__")
            value = values[position : position + h.n_elements]
            position += h.n_elements
            owner = functools.reduce(getattr, path, kernel)
            setattr(owner, name, value[0] if h.n_elements == 1 else value)
    return kernel


def central_difference(function, step):
    """The derivative of a function of one number at 0, off by step^6 / 140 of its seventh."""
    weights = {1: 45, 2: -9, 3: 1}
    return sum(w * (function(i * step) - function(-i * step)) for i, w in weights.items()) / (
        60 * step
    )


def difference_step(kernel):
    """Small enough for the phase of a periodic kernel; large where there is float64 only."""
    step = 2.0**-6 if has_bessel(kernel) else STEP
    for leaf in leaves(kernel):
        if isinstance(leaf, ExpSineSquared):
            step *= min(1.0, leaf.periodicity * leaf.length_scale / 3)
    return np.longdouble(step)


def theta_tensor(kernel, rows, cols=None):
    """dC/dtheta of a covariance matrix, (P, n_rows, n_cols), of the reference in long double."""
    values = hyperparameters(kernel).astype(np.longdouble)

    def moved(p, t):
        # theta is a logarithm.
        other = values.copy()
        other[p] *= np.exp(t)
        return _reference.covariance(with_hyperparameters(kernel, other), wide(rows), wide(cols))

    with np.errstate(all="ignore"):
        return np.array(
            [
                central_difference(functools.partial(moved, p), difference_step(kernel))
                for p in range(len(values))
            ]
        )


def _point_block(kernel, row, col, side):
    """The derivatives of one block with respect to the point of a row or column, (n, m, D)."""
    orders = _reference._ORDERS
    stacked = []
    for r in orders[type(row).__name__]:
        beside = []
        for c in orders[type(col).__name__]:
            tensor = _reference.derivative(kernel, row.X, col.X, "x" * r + "y" * c + side)
            beside.append(_reference._apply(col, c, _reference._apply(row, r, tensor, 2), 3))
        stacked.append(np.concatenate(beside, axis=3))
    block = np.concatenate(stacked, axis=2)
    n, m, height, width, D = block.shape
    block = block.transpose(0, 2, 1, 3, 4).reshape(n * height, m * width, D)
    return block[np.ix_(_reference._kept(row, n * height), _reference._kept(col, m * width))]


def owners(functional):
    """The number of the point that each entry of a functional belongs to."""
    n = len(functional.X)
    each = np.repeat(np.arange(n), np.prod(functional.shape[1:], dtype=int))
    return each if functional.mask is None else each[functional.mask.ravel()]


def point_tensors(kernel, rows, cols, wrt):
    """dC/dX of a covariance matrix, (N, n_rows, n_cols, D) for each functional of a side.

    By the chain rule of the reference; with `cols` None it is the total derivative, in differences
    of the reference, as points coincide with themselves wherever they are.
    """
    if cols is None:
        return [_total(kernel, rows, number) for number in range(len(rows))]
    side, own = ("x", rows) if wrt == "rows" else ("y", cols)
    shape = (sum(f.size for f in rows), sum(f.size for f in cols))
    out, start = [], 0
    for functional in own:
        D = functional.X.shape[1]
        tensor = np.zeros((len(functional.X), *shape, D), np.longdouble)
        mine = np.arange(functional.size)
        with np.errstate(all="ignore"):
            if wrt == "rows":
                blocks = [_point_block(kernel, *wide([functional, g]), side) for g in cols]
                tensor[owners(functional), start + mine] = np.concatenate(blocks, axis=1)
            else:
                blocks = [_point_block(kernel, *wide([f, functional]), side) for f in rows]
                # Two index arrays with a slice between them put their axis first.
                block = np.concatenate(blocks, axis=0).transpose(1, 0, 2)
                tensor[owners(functional), :, start + mine] = block
        start += functional.size
        out.append(tensor)
    return out


def _total(kernel, rows, number):
    points = rows[number].X

    def moved(i, a, t):
        other = wide(rows)
        other[number].X[i, a] += t
        return _reference.covariance(kernel, other)

    with np.errstate(all="ignore"):
        parts = [
            central_difference(functools.partial(moved, *index), difference_step(kernel))
            for index in np.ndindex(points.shape)
        ]
    size = sum(f.size for f in rows)
    return np.reshape(parts, (*points.shape, size, size)).transpose(0, 2, 3, 1)


# ---------------------------------------------------------------------------------------------
# Products with covariances of many columns, too large to be held
# ---------------------------------------------------------------------------------------------


def stationary_product(kernel, X, Y, v):
    """The joint covariance of values and gradients times v (M, 1 + D), and the sums of |C| |v|.

    Both of shape (N, 1 + D), row by row, the product in long double. For a kernel of one stationary
    invariant: with δ = x - y, f' = dF/ds, w the weights and v = (u, b), the sums over pairs of

        value      f u - 2 f' (wδ)·b
        gradient   2 f' wδ u - 2 f' w b - 4 f'' wδ (wδ)·b
    """
    X, Y, v = (a.astype(np.longdouble) for a in (X, Y, v))
    u, b = v[:, 0], v[:, 1:]
    product, sums = np.zeros((len(X), v.shape[1]), X.dtype), np.zeros((len(X), v.shape[1]))
    for i in range(len(X)):
        pairs = _reference._Pairs(X[i : i + 1], Y)
        jet = _reference._jet(kernel, pairs, 2)
        ((kind, w),) = pairs.invariants
        assert kind == "sqdist"
        f0, f1, f2 = (jet[(0,) * q][0] for q in range(3))
        slope = w * (X[i] - Y)
        along = np.einsum("ja,ja->j", slope, b)
        product[i, 0] = f0 @ u - 2 * (f1 @ along)
        product[i, 1:] = (2 * f1 * u - 4 * f2 * along) @ slope - 2 * w * (f1 @ b)
        u_, b_, slope_ = (np.abs(a).astype(float) for a in (u, b, slope))
        f0, f1, f2 = (f.astype(float) for f in (f0, f1, f2))
        along = np.einsum("ja,ja->j", slope_, b_)
        sums[i, 0] = np.abs(f0) @ u_ + 2 * np.abs(f1) @ along
        # The diagonal of a block is a difference.
        w = w.astype(float)
        diagonal = np.abs(2 * f1[:, None] * w + 4 * f2[:, None] * slope_**2) * b_
        rest = 4 * np.abs(f2)[:, None] * slope_ * (along[:, None] - slope_ * b_)
        sums[i, 1:] = (2 * np.abs(f1) * u_) @ slope_ + (diagonal + rest).sum(axis=0)
    return product, sums


# ---------------------------------------------------------------------------------------------
# Random kernels
# ---------------------------------------------------------------------------------------------


def kernel_trees(D, smooth=True):
    """A hypothesis strategy for kernels composed at random.

    Parameters
    ----------
    D : int
        Columns of the points.
    smooth : bool
        Whether all derivatives are to exist everywhere.
    """
    scale = st.floats(0.3, 3.0)
    scales = st.one_of(scale, st.lists(scale, min_size=D, max_size=D).map(np.array))
    leaves = [
        st.builds(RBF, scales),
        st.builds(RationalQuadratic, scale, st.floats(0.2, 5.0)),
        st.builds(ExpSineSquared, st.floats(0.7, 2.0), st.floats(1.5, 5.0)),
        st.builds(DotProduct, st.floats(0.0, 2.0)),
        st.builds(ConstantKernel, st.floats(0.1, 5.0)),
        st.builds(PairwiseKernel, gamma=st.floats(0.1, 1.0), metric=st.just("sigmoid")),
    ]
    if not smooth:
        leaves.append(st.builds(Matern, scales, nu=st.sampled_from([0.5, 1.5, 2.5])))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            st.builds(sk.Sum, inner, inner),
            st.builds(sk.Product, inner, inner),
            st.builds(sk.Exponentiation, inner, st.sampled_from([2, 3])),
        ),
        max_leaves=5,
    )


# ---------------------------------------------------------------------------------------------
# Cells that share an oracle
# ---------------------------------------------------------------------------------------------


def check_each(cells, check):
    """Check cells that share an oracle; all that fail are named."""
    failures = []
    for cell in cells:
        try:
            check(cell)
        except AssertionError as error:
            failures.append(f"{cell!r}: {error}")
    assert not failures, "\n".join(failures)
