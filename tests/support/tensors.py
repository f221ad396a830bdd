"""Functions of tensors with their options, kernels and points for them, and how wrong they may be.

**The error measure.** An array is right if the error of every entry is at most

    tol x max(largest entry of its pair, floor x largest entry of the array)

with tol, floor = 1e-13, 1e-14 in float64 and 5e-6, 1e-5 in float32. "Its pair" are the entries of
one (i, j). The exact array is that for the inputs as stored: the reference runs in long double on
the very same points, and hyperparameters are float64 in both.

**What may be expected.** u is the unit roundoff, 1.1e-16 or 6.0e-8, w_d = 1/l_d^2. A difference
x_d - y_d is rounded once, whatever the offset of the points; the squares, weights and the sum of
D terms that are not negative make a relative error of s of at most (D + 5) u, and about sqrt(D +
5) u if roundings behave like random ones, which they do. exp(-s/2) turns it into s/2 times as
much and adds 2 u of its own; the few multiplications behind it add less than 10 u. Below the
floor, from s/2 = 32 (11.5 in float32) on, only the absolute error counts, and k falls faster than
s grows. So the bound holds for sure while (32 (D + 5) + 12) u < 1e-13, up to D = 22, and in
float32 while (11.5 (D + 5) + 12) u < 5e-6, for D = 1; with roundings as they are it holds in the
hundreds.

The diagonal of the second derivatives is a difference, (w_a^2 d_a^2 - w_a) k, of terms that are
each good to the above. Where it vanishes no formula in the working precision has a small relative
error: the rounding of x_a - y_a alone moves the entry by 2 u w_a k. With D > 1 another entry of
the same pair is as large as the terms. Where the array holds nothing but such differences, in
hessian_diag and for D = 1, the Kronecker term w_a k is counted among the entries of the pair.
"""

from typing import NamedTuple

import numpy as np
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

import kerneldiff
from kerneldiff import _reference

# dtype: (tol, floor)
TOLERANCES = {"float64": (1e-13, 1e-14), "float32": (5e-6, 1e-5)}
DTYPES = tuple(TOLERANCES)


class Operation(NamedTuple):
    """A tensor function with its options."""

    function: str
    options: dict
    # Axes behind (N, M) for D columns.
    trailing: object

    def __call__(self, kernel, X, Y=None, *, module=kerneldiff, **options):
        return getattr(module, self.function)(kernel, X, Y, **self.options, **options)

    def shape(self, n, m, d):
        return (n, m, *self.trailing(d))


SECOND = ("xx", "xy", "yx", "yy")
OPERATIONS = {
    "kernel_matrix": Operation("kernel_matrix", {}, lambda d: ()),
    **{
        f"gradient-{wrt}": Operation("gradient", {"wrt": wrt}, lambda d: (d,)) for wrt in ("x", "y")
    },
    **{
        f"hessian_diag-{wrt}": Operation("hessian_diag", {"wrt": wrt}, lambda d: (d,))
        for wrt in SECOND
    },
    **{f"hessian-{wrt}": Operation("hessian", {"wrt": wrt}, lambda d: (d, d)) for wrt in SECOND},
    **{
        f"packed-{wrt}": Operation(
            "hessian", {"wrt": wrt, "layout": "packed"}, lambda d: (d * (d + 1) // 2,)
        )
        for wrt in SECOND
    },
}


def isotropic(d):
    """Length scale at which standard normal points are about 2.5 length scales apart."""
    return RBF(length_scale=0.6 * max(d, 1) ** 0.5)


def anisotropic(d):
    """The same with a length scale for each column, from 0.4 to 0.9 of it."""
    return RBF(length_scale=np.linspace(0.4, 0.9, d) * max(d, 1) ** 0.5)


# Name: function of the number of columns.
KERNELS = {
    "rbf": isotropic,
    "rbf-ard": anisotropic,
    "rbf*constant": lambda d: isotropic(d) * ConstantKernel(0.3),
    "constant*rbf-ard": lambda d: ConstantKernel(0.7) * anisotropic(d),
    "constant*constant*rbf": lambda d: ConstantKernel(3.0) * ConstantKernel(0.4) * isotropic(d),
}


def points(n, m, d, dtype="float64", *, seed=0):
    """Two sets of standard normal points."""
    rng = np.random.default_rng([seed, n, m, d])
    return rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(m, d)).astype(dtype)


def exact(operation, kernel, X, Y=None):
    """The array for the inputs as stored, in long double."""
    X = X.astype(np.longdouble)
    Y = None if Y is None else Y.astype(np.longdouble)
    array = operation(kernel, X, Y, module=_reference)
    assert array.dtype == np.longdouble
    return array


def pair_scales(operation, kernel, X, Y, array):
    """Largest entry of each pair, (N, M); see the top of this file for hessian_diag and D = 1."""
    n, m, d = array.shape[0], array.shape[1], X.shape[1]
    scales = np.abs(array).reshape(n, m, -1).max(axis=2, initial=0)
    if operation.function == "hessian_diag" or (operation.function == "hessian" and d == 1):
        values = OPERATIONS["kernel_matrix"]
        diagonal = OPERATIONS["hessian_diag-xx"]
        point = X[:1]
        weight = np.abs(exact(diagonal, kernel, point) / exact(values, kernel, point)[0, 0]).max()
        scales = np.maximum(scales, weight * exact(values, kernel, X, Y))
    return scales


def assert_right(actual, operation, kernel, X, Y=None):
    """Check type, shape and the error of every entry by the measure at the top of this file."""
    expected = exact(operation, kernel, X, Y)
    assert actual.dtype == X.dtype
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    if expected.size == 0:
        return
    tol, floor = TOLERANCES[str(X.dtype)]
    scales = pair_scales(operation, kernel, X, Y, expected)
    scales = np.maximum(scales, floor * np.abs(expected).max())
    error = np.abs(actual - expected).reshape(*scales.shape, -1).max(axis=2)
    # Not "any(error > bound)": NaN has to fail.
    ratio = error / (tol * scales)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape)
    assert ratio[worst] <= 1, (
        f"error of pair {worst} is {ratio[worst]:.3g} times the bound: "
        f"{actual[worst]} instead of {expected[worst]}"
    )
