"""Derivatives of kernels with respect to their hyperparameters, as trees that are kernels in turn.

A tree is evaluated as the covariance that it would be the kernel of. The oracle is the reference in
long double, in differences of high order (`exact_derivatives`), and the bounds are those of
`support.bounds`, worked out along the product rule (`theta_jets`).
"""

import functools
import math
from unittest import mock

import numpy as np
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Hyperparameter,
    Kernel,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from support import bounds
from support.bounds import ARGUMENT, JET, UNIT, Approximate, covariance_bounds
from support.functionals import wide
from support.oracles import (
    REGISTRY,
    ard,
    difference_step,
    has_bessel,
    hyperparameters,
    with_hyperparameters,
)

from kerneldiff import Columns, _reference, covariance, kernels
from kerneldiff.kernels import theta_derivatives

# Those of the registry, and what is not in it.
CASES = {name: case.factory for name, case in REGISTRY.items()} | {
    "fixed": lambda D: (
        ConstantKernel(0.7, "fixed") * RBF(ard(D)) + Matern(1.3, "fixed", nu=2.5) * DotProduct(0.4)
    ),
    "fixed-alpha": lambda D: RationalQuadratic(1.2, 0.8, alpha_bounds="fixed"),
    "all-fixed": lambda D: RBF(1.2, "fixed") + ConstantKernel(2.0, "fixed"),
    "constants": lambda D: (ConstantKernel(0.7) + ConstantKernel(0.4)) * RBF(0.9),
    "constant-power": lambda D: ConstantKernel(0.7) ** 1.5 * RBF(0.9),
    "rational**2": lambda D: (0.8 * RationalQuadratic(1.2, 0.7)) ** 2,
    "rational**0.3": lambda D: RationalQuadratic(0.9, 1.7) ** 0.3,
    "rbf-ard**0.7**3": lambda D: ((0.6 * RBF(ard(D))) ** 0.7) ** 3,
    "matern**0.4": lambda D: (0.8 * Matern(1.4, nu=2.5)) ** 0.4,
    "(rbf+matern)**-1.5": lambda D: (RBF(1.2) + Matern(0.8, nu=2.5)) ** -1.5,
    "dot**2.5": lambda D: DotProduct(20.0) ** 2.5,
    "matern**1": lambda D: Matern(ard(D), nu=2.5) ** 1,
    "matern**0": lambda D: Matern(ard(D), nu=2.5) ** 0,
    "columns": lambda D: (
        Columns(0.8 * RBF(ard(D)) + DotProduct(0.3), range(D)[::-1]) * Columns(Matern(nu=2.5), [0])
    ),
    "columns-power": lambda D: Columns(RationalQuadratic(0.8, 1.3) ** 2, [D - 1]) + RBF(ard(D)),
    "white*rbf-ard": lambda D: WhiteKernel(0.4) * RBF(ard(D)) + WhiteKernel(0.2),
    "(rbf+white)**0.5": lambda D: (RBF(1.0) + WhiteKernel(0.3)) ** 0.5,
}
SMOOTHNESS = {name: case.smoothness for name, case in REGISTRY.items()} | {
    "fixed": 5,
    "matern**0.4": 5,
    "(rbf+matern)**-1.5": 5,
    "matern**1": 5,
    "matern**0": 5,
    "columns": 5,
}


def covariance_of(term, rows, cols=None):
    """The covariance whose kernel is a tree."""
    with mock.patch.object(kernels, "read", return_value=term):
        return covariance(None, rows, cols)


def derivatives_of(kernel, rows, cols=None):
    """The covariances of all derivatives, (n_theta, n_rows, n_cols)."""
    first = rows[0] if isinstance(rows, list) else rows
    D = first.X.shape[1]
    terms = [term for part in theta_derivatives(kernel, D) for term in part.terms(D)]
    whole = covariance(kernel, rows, cols)
    out = np.empty((len(terms), *whole.shape), whole.dtype)
    for k, term in enumerate(terms):
        out[k] = covariance_of(term, rows, cols)
    return out


# --------------------------------------------------------------------------------------------------
# How far off they may be
# --------------------------------------------------------------------------------------------------


def theta_jets(kernel, pairs, order, dtype, columns):
    """The derivatives of `approximate_jet` with respect to the hyperparameters not fixed.

    By the rules for sums, products and powers; those of one family are products of a jet and of
    the invariant, or another function of that, which are as right as jets are taken to be.
    """
    jet = functools.partial(
        bounds.approximate_jet, pairs=pairs, order=order, dtype=dtype, columns=columns
    )
    again = functools.partial(theta_jets, pairs=pairs, order=order, dtype=dtype, columns=columns)
    if isinstance(kernel, sk.Sum):
        return again(kernel.k1) + again(kernel.k2)
    if isinstance(kernel, sk.Product):
        left, right = jet(kernel.k1), jet(kernel.k2)
        return [_reference._multiply(f, right, order) for f in again(kernel.k1)] + [
            _reference._multiply(left, g, order) for g in again(kernel.k2)
        ]
    if isinstance(kernel, sk.Exponentiation):
        p = kernel.exponent
        power = bounds.approximate_power(jet(kernel.kernel), p - 1, order, 16 * UNIT[dtype])
        slope = {index: p * f for index, f in power.items()}
        return [_reference._multiply(slope, f, order) for f in again(kernel.kernel)]
    if isinstance(kernel, Columns):
        return again(kernel.kernel, columns=columns[np.asarray(kernel.dims)])
    names = [h.name for h in kernel.hyperparameters if not h.fixed]
    return [f for name in names for f in _leaf_jets(kernel, name, pairs, order, dtype, columns)]


def _leaf_jets(kernel, name, pairs, order, dtype, columns):
    D, least = len(columns), float(np.finfo(dtype).smallest_normal)
    whole = bounds.approximate_jet(kernel, pairs, order + 1, dtype, columns)
    if isinstance(kernel, ConstantKernel | WhiteKernel):
        return [whole]
    if name == "sigma_0":
        value = np.full(pairs.shape, 2 * kernel.sigma_0**2)
        return [{(): Approximate(value, 2 * value, least)}]
    kind, own, _, smoothness = _reference._leaf(kernel, np.float64, D)
    spread = np.zeros(pairs.X.shape[1])
    np.add.at(spread, columns, 1.0 if own is None else own)
    number = pairs.number(kind, spread, smoothness)
    a = pairs.value(number)
    if kind == "dot" and kernel.metric == "linear":
        return [{(): Approximate(np.zeros(pairs.shape), np.zeros(pairs.shape), least)}]

    def function(values, sizes):
        """Another function of the invariant: its derivatives, and sums of absolute terms."""
        result = {}
        for q in range(order + 1):
            error = JET * sizes[q] + (D + ARGUMENT) * a * sizes[q + 1]
            result[(number,) * q] = Approximate(values[q], error, least)
        return _reference._multiply(result, whole, order)

    if name == "alpha":
        return [function(*_alpha(a, order, kernel))]
    if name == "length_scale" and isinstance(kernel, ExpSineSquared):
        return [function(*_sine(a, order, kernel))]
    slope = {index[1:]: f for index, f in whole.items() if index}
    factor = 1.0 if name == "gamma" else -2.0
    results = []
    for column in [None] if own is None else columns:
        weights = spread * (True if column is None else np.arange(len(spread)) == column)
        one = pairs.number(kind, weights, np.inf)
        a = pairs.value(one)
        total = (np.abs(pairs.X) * weights) @ np.abs(pairs.Y).T if kind == "dot" else a
        ones = np.full(pairs.shape, factor)
        linear = {
            (): Approximate(factor * a, abs(factor) * (D + ARGUMENT) * total, least),
            (one,): Approximate(ones, np.abs(ones), least),
        }
        results.append(_reference._multiply(linear, slope, order))
    return results


def _alpha(s, order, kernel):
    """α (z / u - log u), u = 1 + z, and its derivatives α (q - 1)! (-r)^q (u - q) / u^(q + 1)."""
    alpha = kernel.alpha
    r = 1 / (2 * alpha * kernel.length_scale**2)
    z = r * s
    u = 1 + z
    values = [alpha * (z / u - np.log1p(z))]
    sizes = [alpha * np.minimum(2 * z * z, 2 * np.log1p(z))]
    for q in range(1, order + 2):
        c = alpha * math.factorial(q - 1) * (-r) ** q / u ** (q + 1)
        values.append(c * (u - q))
        sizes.append(np.abs(c) * np.maximum(z, q - 1 + z))
    return values, sizes


def _sine(s, order, kernel):
    """4 sin²(z / 2) / l² = 2 (1 - cos z) / l², for the sizes see `bounds._periodic_envelope`."""
    root = 2 * np.pi / kernel.periodicity
    cosine = _reference._cosine_of_root(root**2 * s, order + 1)
    values = [-2 * root ** (2 * q) / kernel.length_scale**2 * f for q, f in enumerate(cosine)]
    values[0] = 4 * (np.sin(root * np.sqrt(s) / 2) / kernel.length_scale) ** 2
    with np.errstate(divide="ignore"):
        z = root * np.sqrt(s)
        sizes = [
            2
            * (root**2 / 2) ** q
            / kernel.length_scale**2
            * np.minimum(1 / math.prod(range(1, 2 * q, 2)), 2 / z**q)
            for q in range(order + 2)
        ]
    sizes[0] = values[0]
    return values, sizes


def step(kernel):
    """That of the differences; a larger one where the reference has no long double."""
    return np.longdouble(2.0**-8) if has_bessel(kernel) else difference_step(kernel)


def exact_derivatives(kernel, rows, cols=None):
    """Differences of tenth order of the reference in long double, (n_theta, n_rows, n_cols).

    They are off by the tenth power of the step times the eleventh derivative, over 2772.
    """
    values, h = hyperparameters(kernel).astype(np.longdouble), step(kernel)
    weights = {1: 2100, 2: -600, 3: 150, 4: -25, 5: 2}

    def moved(p, t):
        # theta is a logarithm.
        other = values.copy()
        other[p] *= np.exp(t)
        return _reference.covariance(with_hyperparameters(kernel, other), wide(rows), wide(cols))

    with np.errstate(all="ignore"):
        return np.array(
            [
                sum(w * (moved(p, k * h) - moved(p, -k * h)) for k, w in weights.items())
                / (2520 * h)
                for p in range(len(values))
            ]
        )


def theta_bounds(kernel, rows, cols=None, dtype="float64"):
    """Bounds of the errors of `derivatives_of` and of `exact_derivatives`.

    Those are differences of a reference that is off by what `bounds` says in its own precision:
    twice that over the step. The tenth power of the step is far below that.
    """
    unit = max(float(np.finfo(np.longdouble).eps) / 2, 2.0**-53 if has_bessel(kernel) else 0)
    with np.errstate(all="ignore"):
        difference = covariance_bounds(kernel, rows, cols) * (
            2 * unit / UNIT["float64"] / float(step(kernel))
        )
        count = len(hyperparameters(kernel))
        parts = [
            covariance_bounds_of(kernel, p, rows, cols, dtype) + difference for p in range(count)
        ]
    return np.array(parts).reshape(count, *difference.shape)


def covariance_bounds_of(kernel, p, rows, cols, dtype):
    original = bounds.approximate_jet

    def jet(kernel, pairs, order, dtype, columns):
        with mock.patch.object(bounds, "approximate_jet", original):
            return theta_jets(kernel, pairs, order, dtype, columns)[p]

    with mock.patch.object(bounds, "approximate_jet", jet), np.errstate(all="ignore"):
        return covariance_bounds(kernel, rows, cols, dtype)


# --------------------------------------------------------------------------------------------------
# Kernels of one's own that say what their derivatives are
# --------------------------------------------------------------------------------------------------


class Bump(Kernel):
    """(1 + s / (4 l²))^-2, which is RationalQuadratic(l, alpha=2)."""

    invariant = "sqdist"

    def __init__(self, length_scale=1.0, length_scale_bounds=(1e-3, 1e3)):
        self.length_scale = length_scale
        self.length_scale_bounds = length_scale_bounds

    @property
    def hyperparameter_length_scale(self):
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds)

    def jet(self, a, order):
        rate = 1 / (2 * self.length_scale) ** 2
        factors = np.cumprod([1.0, *(-(n + 2) * rate for n in range(order))])
        return np.array([c * (1 + rate * a) ** (-2.0 - n) for n, c in enumerate(factors)])

    def jet_gradient(self, a, order):
        """-2 a F', and its derivatives, if the length scale is not fixed."""
        if self.hyperparameter_length_scale.fixed:
            return np.zeros((0, order + 1, len(a)))
        f = self.jet(a, order + 1)
        return -2 * np.array([[a * f[q + 1] + q * f[q] for q in range(order + 1)]])

    # Never called.
    __call__ = diag = is_stationary = None


class Scaled(Bump):
    """amplitude * RBF(length_scale), the length scales of which are in the weights."""

    def __init__(self, amplitude=1.0, length_scale=(1.0, 1.0), length_scale_bounds=(1e-3, 1e3)):
        super().__init__(length_scale, length_scale_bounds)
        self.amplitude = amplitude

    @property
    def hyperparameter_amplitude(self):
        return Hyperparameter("amplitude", "numeric", (1e-3, 1e3))

    @property
    def hyperparameter_length_scale(self):
        count = len(self.length_scale)
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds, count)

    @property
    def weights(self):
        return 1 / np.square(self.length_scale)

    def jet(self, a, order):
        return np.array([self.amplitude * (-0.5) ** q * np.exp(-a / 2) for q in range(order + 1)])

    def jet_gradient(self, a, order):
        zeros = np.zeros((len(self.theta) - 1, order + 1, len(a)))
        return np.concatenate([self.jet(a, order)[None], zeros])

    def weights_gradient(self):
        own = -2 * np.diag(self.weights)
        return np.vstack([np.zeros(len(own)), own])[: len(self.theta)]


OWN = {
    "jet": (Bump(0.7), RationalQuadratic(0.7, 2.0, alpha_bounds="fixed")),
    "fixed": (
        Bump(0.7, "fixed") + RBF(),
        RationalQuadratic(0.7, 2.0, "fixed", "fixed") + RBF(),
    ),
    "weights": (Scaled(0.6, [0.7, 1.2]), ConstantKernel(0.6) * RBF([0.7, 1.2])),
    "fixed-weights": (
        Scaled(0.6, [0.7, 1.2], "fixed"),
        ConstantKernel(0.6) * RBF([0.7, 1.2], "fixed"),
    ),
    "composite": (
        0.4 * Scaled(0.6, [0.7, 1.2]) * DotProduct(0.3) + Bump(0.7) ** 2,
        ConstantKernel(0.4) * (ConstantKernel(0.6) * RBF([0.7, 1.2])) * DotProduct(0.3)
        + RationalQuadratic(0.7, 2.0, alpha_bounds="fixed") ** 2,
    ),
    "columns": (
        Columns(Scaled(0.6, [0.7, 1.2]), [1, 0]) * Columns(Bump(0.7), [1]),
        Columns(ConstantKernel(0.6) * RBF([0.7, 1.2]), [1, 0])
        * Columns(RationalQuadratic(0.7, 2.0, alpha_bounds="fixed"), [1]),
    ),
}
