"""Kernels of one's own, each of which is one of scikit-learn's written anew; jets that fail."""

import ctypes

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.gaussian_process.kernels import (
    RBF,
    DotProduct,
    Hyperparameter,
    Kernel,
    Matern,
    NormalizedKernelMixin,
    PairwiseKernel,
    RationalQuadratic,
    StationaryKernelMixin,
)
from support.bounds import assert_within, bounds
from support.tensors import OPERATIONS, points

from kerneldiff import Columns, _reference


class Bump(StationaryKernelMixin, NormalizedKernelMixin, Kernel):
    """(1 + s / (4 l²))^-2, which is RationalQuadratic(l, alpha=2)."""

    invariant = "sqdist"

    def __init__(self, length_scale=1.0, length_scale_bounds=(1e-3, 1e3)):
        self.length_scale = length_scale
        self.length_scale_bounds = length_scale_bounds

    @property
    def hyperparameter_length_scale(self):
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds)

    def __call__(self, X, Y=None, eval_gradient=False):
        X = np.asarray(X)
        u = 1 + cdist(X, X if Y is None else Y, "sqeuclidean") / (2 * self.length_scale) ** 2
        if not eval_gradient:
            return u**-2
        return u**-2, (4 * u**-3 * (u - 1))[:, :, None]

    def jet(self, a, order):
        rate = 1 / (2 * self.length_scale) ** 2
        u = 1 + rate * a
        factors = np.cumprod([1.0, *(-(n + 2) * rate for n in range(order))])
        return np.array([c * u ** (-2.0 - n) for n, c in enumerate(factors)])


class Cube(Kernel):
    """(x . y + 0.3)³, which is a polynomial kernel."""

    invariant = "dot"

    def __init__(self):
        pass

    def __call__(self, X, Y=None):
        return (np.asarray(X) @ np.asarray(X if Y is None else Y).T + 0.3) ** 3

    def diag(self, X):
        return np.einsum("ij,ij->i", X, X)

    def is_stationary(self):
        return False

    def jet(self, a, order):
        u = a + 0.3
        # A list of arrays is as good as an array.
        return [u**3, 3 * u**2, 6 * u, 0 * u + 6, 0 * u, 0 * u][: order + 1]


class Weighted(StationaryKernelMixin, NormalizedKernelMixin, Kernel):
    """exp(-s/2) with weights, which is an RBF kernel with a length scale for each column."""

    invariant = "sqdist"

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, X, Y=None):
        scale = np.sqrt(self.weights)
        return np.exp(-cdist(X * scale, (X if Y is None else Y) * scale, "sqeuclidean") / 2)

    def jet(self, a, order):
        return np.multiply.outer((-0.5) ** np.arange(order + 1), np.exp(-a / 2))


class Rough(StationaryKernelMixin, NormalizedKernelMixin, Kernel):
    """(1 + t) exp(-t), t = √(3 s), which is a Matern kernel; F'' is singular, and 0 in the jet."""

    invariant = "sqdist"

    def __init__(self, smoothness=3):
        self.smoothness = smoothness

    def __call__(self, X, Y=None):
        t = np.sqrt(3.0) * cdist(X, X if Y is None else Y)
        return (1 + t) * np.exp(-t)

    def jet(self, a, order):
        t = np.sqrt(3 * a)
        e = np.exp(-t)
        with np.errstate(divide="ignore", invalid="ignore"):
            jet = [(1 + t) * e, -1.5 * e, np.where(a > 0, 2.25 * e / t, 0)]
            jet.append(np.where(a > 0, -27 / 8 * e * (1 + t) / t**3, 0))
        return np.array(jet[: order + 1])


class Singular(Rough):
    """The same, as it comes out of the formulas: infinite or NaN where it is singular."""

    def jet(self, a, order):
        t = np.sqrt(3 * a)
        e = np.exp(-t)
        with np.errstate(divide="ignore", invalid="ignore"):
            jet = [(1 + t) * e, -1.5 * e, 2.25 * e / t, -27 / 8 * e * (1 + t) / t**3, t / t]
        return np.array(jet[: order + 1])


WEIGHTS = np.array([0.5, 2.0, 1.3])

# The kernel, and scikit-learn's that is the same.
OWN = {
    "bump": (Bump(1.3), RationalQuadratic(1.3, alpha=2.0)),
    "cube": (
        Cube(),
        PairwiseKernel(gamma=1.0, metric="poly", pairwise_kernels_kwargs={"coef0": 0.3}),
    ),
    "weighted": (Weighted(WEIGHTS), RBF(WEIGHTS**-0.5)),
    "rough": (Rough(), Matern(nu=1.5)),
    "singular": (Singular(), Matern(nu=1.5)),
    "singular in a power": (
        (RBF(1.7) * Singular() + 1.0) ** 2.5,
        (RBF(1.7) * Matern(nu=1.5) + 1.0) ** 2.5,
    ),
    "scaled": (2.5 * Bump(), 2.5 * RationalQuadratic(alpha=2.0)),
    "sum": (Bump() + RBF([0.7, 1.0, 1.9]), RationalQuadratic(alpha=2.0) + RBF([0.7, 1.0, 1.9])),
    "product": (
        Rough() * Weighted(WEIGHTS) * DotProduct(0.3),
        Matern(nu=1.5) * RBF(WEIGHTS**-0.5) * DotProduct(0.3),
    ),
    "two of its kind": (
        Bump(0.5) + 0.3 * Bump(2.0) * Bump(1.1),
        RationalQuadratic(0.5, 2.0)
        + 0.3 * RationalQuadratic(2.0, 2.0) * RationalQuadratic(1.1, 2.0),
    ),
    "power": ((Bump() + 1.0) ** 2.5, (RationalQuadratic(alpha=2.0) + 1.0) ** 2.5),
    "columns": (
        Columns(Bump(), [2, 0]) * Columns(Rough(), [1]),
        Columns(RationalQuadratic(alpha=2.0), [2, 0]) * Columns(Matern(nu=1.5), [1]),
    ),
}


def derivative(known, X, Y, operation):
    sides = operation.options.get("wrt", "")
    wide = X.astype(np.longdouble), Y.astype(np.longdouble)
    tensors = _reference.derivative(known, *wide, sides), bounds(known, X, Y, sides, str(X.dtype))
    if operation.function == "hessian_diag":
        return [np.einsum("ijaa->ija", tensor) for tensor in tensors]
    if "layout" in operation.options:
        return [tensor[(..., *np.triu_indices(X.shape[1]))] for tensor in tensors]
    return tensors


class Failing(Bump):
    """Returns or raises something else."""

    def __init__(self, action=None, length_scale=1.0):
        super().__init__(length_scale, "fixed")
        self.action = action

    def jet(self, a, order):
        return self.action(super().jet(a, order))


def raises(error):
    def action(jet):
        raise error

    return action


def assert_usable():
    X, Y = points(100, 90, 3)
    operation = OPERATIONS["hessian-xy"]
    for kernel, known in (OWN["bump"], OWN["product"]):
        assert_within(operation(kernel, X, Y), *derivative(known, X, Y, operation))


class Mishap(Exception):
    pass


DOUBLES = ctypes.POINTER(ctypes.c_double)
PROTOTYPE = ctypes.CFUNCTYPE(
    None, DOUBLES, ctypes.c_ssize_t, ctypes.c_int, DOUBLES, ctypes.c_void_p
)


@PROTOTYPE
def gaussian(a, n, order, f, data):
    """A compiled function, as far as the library can see: exp(-rate a), the rate in `data`."""
    rate = ctypes.cast(data, DOUBLES)[0] if data else 0.5
    a, f = np.ctypeslib.as_array(a, (n,)), np.ctypeslib.as_array(f, (order + 1, n))
    for q in range(order + 1):
        f[q] = (-rate) ** q * np.exp(-rate * a)


class Compiled(StationaryKernelMixin, NormalizedKernelMixin, Kernel):
    invariant = "sqdist"

    def __init__(self, jet):
        self.jet = jet

    def __call__(self, X, Y=None):
        return RBF()(X, Y)
