"""Functionals at random points, and a kernel, for covariances.

A module of its own, because processes of their own import it: no pytest, no mpmath.
"""

import copy

import numpy as np
from sklearn.gaussian_process.kernels import RBF, DotProduct, RationalQuadratic

from kerneldiff import Directional, Gradient, Hessian, Laplacian, Value, ValueGradient

# The highest derivative in each.
ORDERS = {
    "Value": 0,
    "Gradient": 1,
    "ValueGradient": 1,
    "Directional": 1,
    "Hessian": 2,
    "Laplacian": 2,
    "masked Gradient": 1,
    "masked ValueGradient": 1,
}
NAMES = list(ORDERS)


def functionals(n, D, dtype="float64", *, seed=0, scale=1.0):
    """One of each at n points."""
    rng = np.random.default_rng([seed, n, D])
    X = (scale * rng.normal(size=(n, D))).astype(dtype)
    masks = rng.random((n, D)) < 0.6, rng.random((n, 1 + D)) < 0.6
    # One point of which nothing is observed, and one of which all is.
    masks[0][:1], masks[1][-1:] = False, True
    return {
        "Value": Value(X),
        "Gradient": Gradient(X),
        "ValueGradient": ValueGradient(X),
        "Directional": Directional(X, rng.normal(size=(n, D)).astype(dtype)),
        "Hessian": Hessian(X),
        "Laplacian": Laplacian(X),
        "masked Gradient": Gradient(X, mask=masks[0]),
        "masked ValueGradient": ValueGradient(X, mask=masks[1]),
    }


def meet(rows, cols):
    """Move the first point of the columns to the last of the rows."""
    for functional in cols.values():
        functional.X[0] = next(iter(rows.values())).X[-1]
    return rows, cols


def two(D):
    """A kernel of two invariants, one of them anisotropic, that has all derivatives."""
    scales = np.geomspace(0.6, 1.9, D) if D > 1 else 0.6
    return RBF(scales * D**0.5) * DotProduct(0.4) + 0.3 * RationalQuadratic(D**0.5)


def wide(side):
    """The same functionals at the same points in long double."""
    if side is None:
        return None
    if isinstance(side, list):
        return [wide(functional) for functional in side]
    side = copy.copy(side)
    side.X = side.X.astype(np.longdouble)
    side.V = None if side.V is None else side.V.astype(np.longdouble)
    return side
