"""Derivatives of covariances with respect to hyperparameters and points, contracted.

Exact are the tensors of `support.oracles`, dC/dtheta in differences of the reference in long double
and dC/dX by its chain rule. Errors of their entries are at most those of `support.bounds` and
`support.theta`, b_ij, and adding up n of them, weighted, rounds no more than n times:
sum_ij (b_ij + n u |dC_ij|) |W_ij|. All kernels and sizes are compared with dense derivatives, which
have tests of their own.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import UNIT, assert_within, bounds
from support.functionals import NAMES, ORDERS, functionals, meet, two
from support.oracles import REGISTRY, ard, jax_function, point_tensors, with_hyperparameters
from support.tensors import DTYPES
from support.theta import CASES, OWN, SMOOTHNESS, derivatives_of, exact_derivatives, theta_bounds

from kerneldiff import (
    Columns,
    CovarianceOperator,
    Directional,
    Gradient,
    Hessian,
    Value,
    ValueGradient,
    _reference,
    covariance,
    numerical_jacobian,
)

jax.config.update("jax_enable_x64", True)

dtypes = pytest.mark.parametrize("dtype", DTYPES)
symmetries = pytest.mark.parametrize("symmetric", [False, True])
factors = pytest.mark.parametrize("K", ["dense", None, 3])


def of_type(side, dtype):
    """The same functionals at the same points, which float32 holds, in another type."""
    for functional in side.values():
        functional.X = functional.X.astype(dtype)
        functional.V = None if functional.V is None else functional.V.astype(dtype)
    return side


def sides(n, m, D, dtype="float64"):
    """Functionals for rows and columns, that meet in a point."""
    both = meet(functionals(n, D, "float32"), functionals(m, D, "float32", seed=1))
    return [of_type(side, dtype) for side in both]


def weights(shape, K="dense", dtype="float64"):
    """Random weights: a matrix, or U and V of its factors U V', vectors or of K columns."""
    rng = np.random.default_rng(shape)
    if K == "dense":
        return rng.normal(size=shape).astype(dtype)
    return tuple(rng.normal(size=n if K is None else (n, K)).astype(dtype) for n in shape)


def whole(W, symmetric=False):
    """The matrix that weights stand for, in long double; symmetric if dense, by the lower half."""
    if isinstance(W, tuple):
        U, V = (np.atleast_2d(part.T).T.astype(np.longdouble) for part in W)
        return U @ V.T
    W = W.astype(np.longdouble)
    return np.tril(W) + np.tril(W, -1).T if symmetric else W


def above(W):
    """The same weights, but for NaN in the part of a dense matrix that must not be read."""
    if isinstance(W, tuple):
        return W
    return np.where(np.tri(len(W), dtype=bool), W, np.nan).astype(W.dtype)


def contracted(W, tensor, bound, dtype="float64"):
    """sum_ij W_ij dC_ij, where i and j are the last axes of the tensor, and how far off it is."""
    with np.errstate(all="ignore"):
        exact = np.einsum("ij,...ij->...", W, tensor)
        sums = np.einsum("ij,...ij->...", np.abs(W), np.abs(tensor))
        error = np.einsum("ij,...ij->...", np.abs(W), bound) + W.size * UNIT[dtype] * sums
    return exact, np.where(np.isnan(error), np.inf, error + np.finfo(dtype).smallest_normal)


# --------------------------------------------------------------------------------------------------
# Hyperparameters
# --------------------------------------------------------------------------------------------------


def theta_problem(name, symmetric, dtype):
    limit = SMOOTHNESS.get(name, np.inf)
    names = ["Value", "masked ValueGradient", "Directional", "Laplacian", "Hessian"]
    names = [key for key in names if 2 * ORDERS[key] < limit or not ORDERS[key]]
    rows, cols = ([side[key] for key in names] for side in sides(2, 2, 2, dtype))
    return CASES[name](2), rows, None if symmetric else cols


@functools.cache
def dense_derivatives(name, symmetric, dtype):
    """The derivatives, and the covariance itself."""
    arguments = theta_problem(name, symmetric, dtype)
    return derivatives_of(*arguments), covariance(*arguments)


# A thousand roundings of the absolute terms: where derivatives are made of the same jets as dense
# ones, which test_theta is about, they differ by sums of some hundred products.
ROUNDINGS = 1000


def near(actual, W, tensor, matrix, dtype="float64"):
    """Compare the contraction of dense derivatives."""
    W = W.astype(float)
    exact = np.einsum("ij,...ij->...", W, tensor)
    scale = np.einsum("ij,...ij->...", np.abs(W), np.abs(tensor) + np.abs(matrix))
    assert actual.shape == exact.shape
    assert (np.abs(actual - exact) <= ROUNDINGS * UNIT[dtype] * scale).all()


@pytest.mark.quick(12)
@pytest.mark.parametrize(("K", "dtype"), [("dense", "float64"), (3, "float64"), (None, "float32")])
@symmetries
@pytest.mark.parametrize("name", CASES)
def test_theta(name, symmetric, K, dtype):
    """All kernels, noise included; of a symmetric dense matrix the lower triangle is read."""
    operator = CovarianceOperator(*theta_problem(name, symmetric, dtype))
    W = weights(operator.shape, K, dtype)
    actual = operator.vjp(above(W) if symmetric else W)
    near(actual, whole(W, symmetric), *dense_derivatives(name, symmetric, dtype), dtype)


@pytest.mark.quick(4)
@factors
@pytest.mark.parametrize("second", NAMES[:6])
@pytest.mark.parametrize("first", NAMES[:6])
def test_theta_of_pairs(first, second, K):
    """Each pair by itself, of a kernel of two invariants with a length scale for each column."""
    rows, cols = sides(2, 3, 2)
    rows, cols = rows[first], cols[second]
    W = weights((rows.size, cols.size), K)
    tensor, bound = pair_tensor(first, second)
    actual = CovarianceOperator(two(2), rows, cols).vjp(W)
    assert_within(actual, *contracted(whole(W), tensor, bound))


@functools.cache
def pair_tensor(first, second):
    rows, cols = sides(2, 3, 2)
    arguments = two(2), rows[first], cols[second]
    return exact_derivatives(*arguments), theta_bounds(*arguments)


@factors
@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for i, a in enumerate(NAMES) for b in NAMES[: i + 1]]
)
def test_theta_of_pairs_without_columns(first, second, K):
    """The blocks beside the diagonal count twice."""
    side, other = functionals(2, 2), functionals(3, 2, seed=1)
    rows = [side[first], other[second]]
    kernel = RBF([0.8, 1.3]) + 0.5 * Matern(1.5, nu=2.5)
    operator = CovarianceOperator(kernel, rows)
    W = weights(operator.shape, K)
    tensor, matrix = derivatives_of(kernel, rows), covariance(kernel, rows)
    near(operator.vjp(above(W)), whole(W, True), tensor, matrix)


@factors
@symmetries
@pytest.mark.parametrize("size", [(1, 1), (1, 130), (4, 17), (127, 129), (257, 60)], ids=str)
@pytest.mark.parametrize(
    ("name", "D"),
    [("Value", 3), ("ValueGradient", 2), ("masked ValueGradient", 1), ("Directional", 3)],
)
def test_theta_of_sizes(name, D, size, symmetric, K):
    rows, cols = sides(*size, D)
    rows, cols = rows[name], None if symmetric else cols[name]
    kernel = 1.3 * Matern(ard(D), nu=2.5) + WhiteKernel(0.3)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    tensor, matrix = derivatives_of(kernel, rows, cols), covariance(kernel, rows, cols)
    near(operator.vjp(W), whole(W, symmetric), tensor, matrix)


@pytest.mark.parametrize("K", ["dense", 2])
@pytest.mark.parametrize("D", [1, 2, 3, 5, 8, 9, 17, 33])
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "Gradient"])
def test_theta_of_dimensions(name, D, K):
    rows, cols = sides(3, 19, D)
    rows, cols = rows[name], cols[name]
    kernel = 1.3 * RBF(ard(D) * D**0.5)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    tensor, matrix = derivatives_of(kernel, rows, cols), covariance(kernel, rows, cols)
    near(operator.vjp(W), whole(W), tensor, matrix)


@pytest.mark.parametrize("wrt", ["theta", "rows", "cols"])
@pytest.mark.parametrize("column", [0, 150, 249])
def test_more_columns_than_a_task_has_time_for(column, wrt):
    """To the last bit: all other columns are zero."""
    X = np.random.default_rng(0).normal(size=(5, 60))
    operator = CovarianceOperator(two(60), ValueGradient(X[:3]), ValueGradient(X[2:]))
    alone = weights(operator.shape, None)
    among = tuple(np.zeros((len(vector), 250)) for vector in alone)
    for vectors, vector in zip(among, alone, strict=True):
        vectors[:, column] = vector
    np.testing.assert_array_equal(operator.vjp(among, wrt), operator.vjp(alone, wrt))


@pytest.mark.quick(4)
@pytest.mark.parametrize("K", ["dense", 2])
@pytest.mark.parametrize("name", OWN)
def test_theta_of_kernels_of_ones_own(name, K):
    own, twin = OWN[name]
    rows, cols = sides(2, 3, 2)
    rows, cols = ([side["ValueGradient"], side["Laplacian"]] for side in (rows, cols))
    operator = CovarianceOperator(own, rows, cols)
    W = weights(operator.shape, K)
    tensor, bound = exact_derivatives(twin, rows, cols), theta_bounds(twin, rows, cols)
    assert_within(operator.vjp(W), *contracted(whole(W), tensor, bound))


class NoGradient(OWN["jet"][0].__class__):
    jet_gradient = property()


@pytest.mark.parametrize("method", ["vjp", "jvp"])
def test_theta_of_a_kernel_without_the_method(method):
    """Its products and derivatives by points need none."""
    rows = functionals(3, 2)["Value"]
    operator = CovarianceOperator(NoGradient(0.7) * RBF(), rows)
    arguments = {"vjp": [np.ones((3, 3))], "jvp": [np.ones(2), np.ones(3)]}[method]
    with pytest.raises(NotImplementedError, match=r"NoGradient .*`jet_gradient\("):
        getattr(operator, method)(*arguments)
    assert np.isfinite(operator @ np.ones(3)).all()
    assert np.isfinite(operator.vjp(np.ones((3, 3)), "rows")).all()


@symmetries
def test_no_free_hyperparameters(symmetric):
    kernel = RBF([0.5, 2.0], "fixed") + ConstantKernel(2.0, "fixed") * DotProduct(0.3, "fixed")
    rows, cols = sides(3, 4, 2)
    operator = CovarianceOperator(kernel, rows["Hessian"], None if symmetric else cols["Gradient"])
    W = np.ones(operator.shape)
    for gradient in (operator.vjp(W), operator.vjp((W[:, 0], W[0]))):
        assert isinstance(gradient, np.ndarray)
        assert gradient.shape == (0,)
    product = operator.jvp(np.zeros(0), np.ones(operator.shape[1]))
    np.testing.assert_array_equal(product, np.zeros(operator.shape[0]))


def test_order_of_hyperparameters():
    """That of theta, without those that are fixed; all of them different."""
    kernel = (
        ConstantKernel(0.7) * RBF([0.6, 1.1], (1e-3, 1e3))
        + Matern(0.8, "fixed", nu=2.5) * RationalQuadratic(1.3, 0.8, "fixed")
        + Columns(DotProduct(0.3), [1])
    )
    rows = functionals(5, 2)["ValueGradient"]
    operator = CovarianceOperator(kernel, rows)
    W = weights(operator.shape)
    tensor = exact_derivatives(kernel, rows)
    assert tensor.shape == (5, 15, 15)
    np.testing.assert_allclose(
        operator.vjp(W), np.einsum("ij,pij->p", whole(W, True), tensor).astype(float), rtol=1e-12
    )


# --------------------------------------------------------------------------------------------------
# Points
# --------------------------------------------------------------------------------------------------


def point_bounds(kernel, rows, cols, wrt):
    """Bounds of the errors of `point_tensors`, in float64."""

    def derivative(kernel, X, Y, sides):
        X, Y = X.astype(float), Y.astype(float)
        return bounds(kernel, X, Y, sides, sums=2 * X.shape[1])

    def absolute(side):
        return [Directional(f.X, np.abs(f.V)) if f.V is not None else f for f in side]

    with mock.patch.object(_reference, "derivative", derivative), np.errstate(all="ignore"):
        return point_tensors(kernel, absolute(rows), absolute(cols), wrt)


def assert_points_right(actual, W, tensors, limits, dtype="float64"):
    for array, tensor, bound in zip(actual, tensors, limits, strict=True):
        assert array.dtype == dtype
        tensor, bound = (np.moveaxis(t, 3, 1) for t in (tensor, bound))
        # Where the bound is that of a term that is added up over a vector's lanes.
        bound = bound * (UNIT[dtype] / UNIT["float64"]) + np.finfo(dtype).smallest_normal
        assert_within(array, *contracted(W, tensor, bound, dtype))


def point_problem(name, dtype):
    case = REGISTRY[name]
    names = ["Value", "masked ValueGradient", "Directional", "Laplacian", "Hessian"]
    # One more derivative, at points that coincide.
    names = [key for key in names if 2 * ORDERS[key] + 1 < case.smoothness]
    rows, cols = ([side[key] for key in names] for side in sides(2, 2, 2, dtype))
    return case(2), rows, cols


@functools.cache
def point_tensors_and_bounds(name, wrt):
    arguments = point_problem(name, "float64")
    return point_tensors(*arguments, wrt), point_bounds(*arguments, wrt)


SMOOTH_ENOUGH = [name for name, case in REGISTRY.items() if case.smoothness > 1]


@pytest.mark.quick(12)
@pytest.mark.parametrize("wrt", ["rows", "cols"])
@pytest.mark.parametrize(("K", "dtype"), [("dense", "float64"), (3, "float64"), (None, "float32")])
@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_points(name, K, dtype, wrt):
    """All kernels; one array for each functional of a list."""
    kernel, rows, cols = point_problem(name, dtype)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K, dtype)
    actual = operator.vjp(W, wrt)
    assert isinstance(actual, list)
    assert_points_right(actual, whole(W), *point_tensors_and_bounds(name, wrt), dtype)


@functools.cache
def pair_points(first, second, wrt):
    rows, cols = sides(2, 3, 2)
    arguments = two(2), [rows[first]], [cols[second]], wrt
    return point_tensors(*arguments), point_bounds(*arguments)


@pytest.mark.parametrize("wrt", ["rows", "cols"])
@factors
@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_points_of_pairs(first, second, K, wrt):
    rows, cols = sides(2, 3, 2)
    W = weights((rows[first].size, cols[second].size), K)
    actual = CovarianceOperator(two(2), rows[first], cols[second]).vjp(W, wrt)
    assert isinstance(actual, np.ndarray)
    assert actual.shape == ((2, 2) if wrt == "rows" else (3, 2))
    assert_points_right([actual], whole(W), *pair_points(first, second, wrt))


@functools.cache
def total_tensors(kernel, first, second):
    return point_tensors(KERNELS[kernel], total_rows(first, second), None, "rows")


def total_rows(first, second):
    return [functionals(2, 2)[first], functionals(2, 2, seed=1)[second]]


KERNELS = {
    "matern": Matern([0.8, 1.4], nu=2.5),
    "two": two(2),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("kernel", KERNELS)
@factors
@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for i, a in enumerate(NAMES[:6]) for b in NAMES[: i + 1 : 2]]
)
def test_total_derivative(first, second, K, kernel):
    """By points that are rows and columns at once: the matrix with all that depends on a point."""
    rows = total_rows(first, second)
    operator = CovarianceOperator(KERNELS[kernel], rows)
    W = weights(operator.shape, K)
    actual = operator.vjp(above(W), "rows")
    W = whole(W, True)
    W = (W + W.T) / 2
    for k, tensor in enumerate(total_tensors(kernel, first, second)):
        exact = np.einsum("ij,nija->na", W, tensor).astype(float)
        # Sums of the absolute derivatives by one side, which may cancel where points meet
        # themselves; and what the differences leave of the matrix.
        size = np.einsum("ij,nija->na", np.abs(W), np.abs(tensor)).max().astype(float)
        size += np.abs(W).astype(float).ravel() @ np.abs(covariance(KERNELS[kernel], rows)).ravel()
        np.testing.assert_allclose(actual[k], exact, rtol=0, atol=1e-13 * size)


@factors
@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_total_derivative_of_rough_kernels(nu, K):
    """What does not exist where a point meets itself does not change with it either."""
    rows = functionals(4, 2)["Value" if nu < 1 else "ValueGradient"]
    kernel = Matern([0.8, 1.4], nu=nu) + DotProduct(0.3)
    operator = CovarianceOperator(kernel, rows)
    W = weights(operator.shape, K)
    actual = operator.vjp(above(W), "rows")
    (tensor,) = point_tensors(kernel, [rows], None, "rows")
    exact = np.einsum("ij,nija->na", whole(W, True), tensor).astype(float)
    np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("name", ["rbf+white", "rbf*white", "(rbf+white)**2"])
def test_noise_does_not_move(name):
    X = functionals(4, 2)["ValueGradient"]
    kernel = REGISTRY[name](2)
    noisy = CovarianceOperator(kernel, X).vjp(np.ones((12, 12)), "rows")
    clean = with_hyperparameters(kernel, [1.0, 0.0])
    (tensor,) = point_tensors(clean, [X], None, "rows")
    exact = tensor.sum(axis=(1, 2)).astype(float)
    np.testing.assert_allclose(noisy, exact, rtol=0, atol=1e-13 * np.abs(tensor).max() * 144)


def dense_by_rows(kernel, rows, cols):
    """dC/dx of rows of values or gradients, (N, entries of a point, D, n_cols).

    The derivative of a value is the gradient, that of a gradient the Hessian.
    """
    n, D = rows.X.shape
    of_values = covariance(kernel, Gradient(rows.X), cols).reshape(n, 1, D, cols.size)
    of_gradients = covariance(kernel, Hessian(rows.X), cols).reshape(n, D, D, cols.size)
    return {
        Value: of_values,
        Gradient: of_gradients,
        ValueGradient: np.concatenate([of_values, of_gradients], axis=1),
    }[type(rows)]


@pytest.mark.parametrize("K", ["dense", 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 130), (4, 17), (127, 129), (257, 60)], ids=str)
@pytest.mark.parametrize(
    ("first", "second", "D"),
    [
        *[("Value", "Value", 3), ("ValueGradient", "ValueGradient", 2)],
        *[("Gradient", "masked ValueGradient", 1), ("Value", "Directional", 2)],
    ],
)
def test_points_of_sizes(first, second, D, size, K):
    rows, cols = sides(*size, D)
    rows, cols = rows[first], cols[second]
    kernel = Matern(ard(D), nu=3.5)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    tensor = dense_by_rows(kernel, rows, cols)
    blocks = whole(W).reshape(len(rows.X), -1, cols.size)
    exact = np.einsum("irj,iraj->ia", blocks, tensor)
    scale = np.einsum("irj,iraj->ia", np.abs(blocks), np.abs(tensor)).max()
    assert np.abs(operator.vjp(W, "rows") - exact).max() <= 1e-13 * scale
    turned = CovarianceOperator(kernel, cols, rows)
    W = W.T if K == "dense" else W[::-1]
    assert np.abs(turned.vjp(W, "cols") - exact).max() <= 1e-13 * scale


@factors
@pytest.mark.parametrize("n", [1, 17, 128, 129, 300])
@pytest.mark.parametrize(("name", "D"), [("Value", 3), ("ValueGradient", 2)])
def test_total_derivative_of_sizes(name, D, n, K):
    rows = functionals(n, D)[name]
    kernel = RBF(ard(D))
    operator = CovarianceOperator(kernel, rows)
    W = weights(operator.shape, K)
    tensor = dense_by_rows(kernel, rows, rows)
    both = whole(W, True)
    blocks = (both + both.T).reshape(n, -1, rows.size)
    exact = np.einsum("irj,iraj->ia", blocks, tensor)
    scale = np.einsum("irj,iraj->ia", np.abs(blocks), np.abs(tensor)).max()
    assert np.abs(operator.vjp(above(W), "rows") - exact).max() <= 1e-13 * scale


@pytest.mark.parametrize("K", ["dense", 2])
@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 8, 9, 17, 33])
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "Gradient"])
def test_points_of_dimensions(name, D, K):
    rows, cols = sides(3, 7, D)
    rows, cols = rows[name], cols[name]
    kernel = RBF(ard(D) * D**0.5)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    tensor = dense_by_rows(kernel, rows, cols)
    blocks = whole(W).reshape(3, -1, cols.size)
    exact = np.einsum("irj,iraj->ia", blocks, tensor)
    scale = np.einsum("irj,iraj->ia", np.abs(blocks), np.abs(tensor)).max()
    assert np.abs(operator.vjp(W, "rows") - exact).max() <= 1e-13 * scale


# --------------------------------------------------------------------------------------------------
# Derivatives that do not exist
# --------------------------------------------------------------------------------------------------


@factors
@pytest.mark.parametrize("wrt", ["rows", "cols"])
@pytest.mark.parametrize(
    ("nu", "first", "second"),
    [
        (0.5, "Value", "Value"),
        (1.5, "Gradient", "ValueGradient"),
        (1.5, "Hessian", "Value"),
        (1.5, "Value", "Laplacian"),
        (2.5, "Hessian", "Hessian"),
        (1.5, "Directional", "Gradient"),
    ],
)
def test_points_of_rough_kernels(nu, first, second, wrt, K):
    """NaN for the points that meet another one, and for no other."""
    rows, cols = sides(3, 4, 2)
    rows, cols = rows[first], cols[second]
    operator = CovarianceOperator(Matern([0.8, 1.4], nu=nu), rows, cols)
    W = weights(operator.shape, K)
    (tensor,) = point_tensors(Matern([0.8, 1.4], nu=nu), [rows], [cols], wrt)
    missing = np.isnan(tensor).any(axis=(1, 2))
    assert missing.any()
    assert not missing.all()
    np.testing.assert_array_equal(np.isnan(operator.vjp(W, wrt)), missing)


@factors
@pytest.mark.parametrize(
    ("nu", "first", "second", "exists"),
    [
        *[(0.5, "Value", "Value", True), (0.5, "Gradient", "Value", False)],
        *[(0.8, "Value", "ValueGradient", True), (1.5, "ValueGradient", "Directional", True)],
        *[(1.0, "Hessian", "Value", False), (1.5, "Laplacian", "Value", True)],
        *[(1.5, "Gradient", "Hessian", False), (2.0, "Laplacian", "Gradient", True)],
        *[(2.5, "Hessian", "Laplacian", True), (1.0, "Value", "Laplacian", False)],
    ],
)
def test_theta_of_rough_kernels(nu, first, second, exists, K):
    """It exists where the covariance does; else the sum is NaN."""
    rows, cols = sides(2, 3, 2)
    rows, cols, kernel = rows[first], cols[second], 2.0 * Matern([0.8, 1.4], nu=nu)
    assert np.isfinite(covariance(kernel, rows, cols)).all() == exists
    gradient = CovarianceOperator(kernel, rows, cols).vjp(weights((rows.size, cols.size), K))
    assert np.isfinite(gradient).all() == exists


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kernel", [RBF(), 0.5 * Matern([0.8, 1.3], nu=2.5), RationalQuadratic(), two(2)], ids=str
)
@pytest.mark.parametrize("distance", [1e100, 1e200])
def test_points_beyond_all_distances(distance, kernel, name):
    """The derivatives are those of zero, and no infinity times zero arises."""
    rows, cols = functionals(4, 2)[name], functionals(5, 2)[name]
    cols.X += distance
    operator = CovarianceOperator(kernel, rows, cols)
    W, v = np.ones(operator.shape), np.ones(operator.shape[1])
    assert np.isfinite(operator.to_dense()).all()
    assert np.isfinite(operator.vjp(W)).all()
    assert np.isfinite(operator.vjp(W, "rows")).all()
    assert np.isfinite(operator.vjp((W[:, 0], v), "cols")).all()
    assert np.isfinite(operator.jvp(np.ones(len(kernel.theta)), v)).all()
    assert np.isfinite(operator.jvp(np.ones((4, 2)), v, "rows")).all()


@pytest.mark.parametrize("K", ["dense", 2])
def test_missing_derivatives_that_a_mask_leaves_out(K):
    """Neither in products nor in contractions."""
    kernel = Columns(Matern(0.9, nu=0.5), [0]) + RBF([0.7, 1.2])
    X = np.array([[0.3, -1.0], [1.0, 2.0]])
    mask = np.array([[False, True], [True, True]])
    rows, cols = Gradient(X, mask=mask), Value(X[:1])
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    assert np.isfinite(covariance(kernel, rows, cols)).all()
    assert np.isfinite(operator @ np.ones(1)).all()
    tensor, bound = exact_derivatives(kernel, rows, cols), theta_bounds(kernel, rows, cols)
    assert_within(operator.vjp(W), *contracted(whole(W), tensor, bound))


# --------------------------------------------------------------------------------------------------
# Forward mode
# --------------------------------------------------------------------------------------------------


def product_of(tangent, tensor, bound, V, dtype="float64"):
    """sum_p t_p dC_p V, and how far off it is."""
    t, V = tangent.astype(np.longdouble), V.astype(np.longdouble)
    with np.errstate(all="ignore"):
        exact = np.tensordot(t, tensor, 1) @ V
        sums = np.tensordot(np.abs(t), np.abs(tensor), 1) @ np.abs(V)
        error = np.tensordot(np.abs(t), bound, 1) @ np.abs(V)
        error += (tensor.shape[2] + len(t)) * UNIT[dtype] * sums + np.finfo(dtype).smallest_normal
    return exact, np.where(np.isnan(error), np.inf, error)


@pytest.mark.quick(12)
@pytest.mark.parametrize(("K", "dtype"), [(None, "float64"), (2, "float32")])
@symmetries
@pytest.mark.parametrize("name", CASES)
def test_tangent_of_theta(name, symmetric, K, dtype):
    operator = CovarianceOperator(*theta_problem(name, symmetric, dtype))
    tensor, matrix = dense_derivatives(name, symmetric, dtype)
    rng = np.random.default_rng(0)
    t = rng.normal(size=len(tensor))
    V = rng.normal(size=operator.shape[1] if K is None else (operator.shape[1], K)).astype(dtype)
    actual = operator.jvp(t, V)
    assert actual.dtype == dtype
    exact = np.tensordot(t, tensor, 1) @ V
    scale = (np.tensordot(np.abs(t), np.abs(tensor), 1) + np.abs(t).sum() * np.abs(matrix)) @ (
        np.abs(V)
    )
    assert (np.abs(actual - exact) <= ROUNDINGS * UNIT[dtype] * scale).all()


@pytest.mark.parametrize("K", [None, 2])
@pytest.mark.parametrize("wrt", ["rows", "cols"])
@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_tangent_of_points(first, second, wrt, K):
    rows, cols = sides(2, 3, 2)
    operator = CovarianceOperator(two(2), rows[first], cols[second])
    (tensor,), (bound,) = pair_points(first, second, wrt)
    rng = np.random.default_rng(0)
    tangent = rng.normal(size=(rows if wrt == "rows" else cols)[first].X.shape)
    V = rng.normal(size=operator.shape[1] if K is None else (operator.shape[1], K))
    tensor, bound = (np.moveaxis(t, 3, 1).reshape(-1, *operator.shape) for t in (tensor, bound))
    assert_within(operator.jvp(tangent, V, wrt), *product_of(tangent.ravel(), tensor, bound, V))


@pytest.mark.quick(3)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for i, a in enumerate(NAMES[:6]) for b in NAMES[: i + 1 : 2]]
)
def test_total_tangent(first, second, kernel):
    rows = total_rows(first, second)
    operator = CovarianceOperator(KERNELS[kernel], rows)
    rng = np.random.default_rng(0)
    tangents = [rng.normal(size=f.X.shape) for f in rows]
    v = rng.normal(size=operator.shape[1])
    exact = size = 0
    for t, tensor in zip(tangents, total_tensors(kernel, first, second), strict=True):
        exact = exact + np.einsum("na,nija,j->i", t, tensor, v)
        size = size + np.einsum("na,nija,j->i", np.abs(t), np.abs(tensor), np.abs(v)).max()
    size = float(size) + (np.abs(covariance(KERNELS[kernel], rows)) @ np.abs(v)).max()
    actual = operator.jvp(tangents, v, "rows")
    np.testing.assert_allclose(actual, exact.astype(float), rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_total_tangent_of_rough_kernels(nu):
    rows = functionals(4, 2)["Value" if nu < 1 else "ValueGradient"]
    kernel = Matern([0.8, 1.4], nu=nu) + DotProduct(0.3)
    rng = np.random.default_rng(0)
    t, v = rng.normal(size=(4, 2)), rng.normal(size=rows.size)
    (tensor,) = point_tensors(kernel, [rows], None, "rows")
    exact = np.einsum("na,nija,j->i", t, tensor, v).astype(float)
    actual = CovarianceOperator(kernel, rows).jvp(t, v, "rows")
    np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize("wrt", ["theta", "rows", "cols"])
@symmetries
@pytest.mark.parametrize("K", [None, 3])
@pytest.mark.parametrize("name", NAMES)
def test_modes_agree(name, K, symmetric, wrt):
    """<U, dC(t) V> = <t, vjp((U, V))>, of lists and of many points."""
    rows, cols = sides(30, 25, 3)
    rows, cols = [rows[name], rows["Value"]], [cols["ValueGradient"], cols[name]]
    kernel = 0.7 * Matern([0.9, 1.2, 0.7], nu=3.5) + DotProduct(0.4)
    operator = CovarianceOperator(kernel, rows, None if symmetric else cols)
    if symmetric and wrt == "cols":
        wrt = "rows"
    U, V = weights(operator.shape, K)
    gradient = operator.vjp((U, V), wrt)
    rng = np.random.default_rng(0)
    if wrt == "theta":
        t = rng.normal(size=gradient.shape)
        right = t @ gradient
    else:
        t = [rng.normal(size=part.shape) for part in gradient]
        right = sum((a * b).sum() for a, b in zip(t, gradient, strict=True))
    product = operator.jvp(t, V, wrt)
    assert product.shape == U.shape
    # Of sums of some thousand terms of either sign.
    scale = np.abs(U).ravel() @ np.abs(product).ravel()
    assert abs((U * product).sum() - right) <= 1e-12 * scale


# --------------------------------------------------------------------------------------------------
# Automatic and numerical differentiation
# --------------------------------------------------------------------------------------------------


def jax_applied(name, function):
    """A functional of a function of (x, u), u a direction, along a new first axis."""
    gradient = jax.jacfwd(function)
    hessian = jax.jacfwd(gradient)

    def first(array):
        return jnp.moveaxis(array, -1, 0)

    def both(x, u):
        H = hessian(x, u)
        return jnp.moveaxis(H.reshape(*H.shape[:-2], -1), -1, 0)

    return {
        "Value": lambda x, u: function(x, u)[None],
        "Gradient": lambda x, u: first(gradient(x, u)),
        "ValueGradient": lambda x, u: jnp.concatenate(
            [function(x, u)[None], first(gradient(x, u))]
        ),
        "Directional": lambda x, u: (gradient(x, u) @ u)[None],
        "Hessian": both,
        "Laplacian": lambda x, u: jnp.trace(hessian(x, u), axis1=-2, axis2=-1)[None],
    }[name]


def jax_gradients(kernel, rows, cols, W):
    """The gradient of sum(W * C) in hyperparameters (logarithms), points of rows and of columns."""

    def block(theta, x, u, y, v):
        k = jax_function(with_hyperparameters(kernel, jnp.exp(theta)))

        def of_columns(x, u):
            return jax_applied(type(cols).__name__, lambda y, v: k(x, y))(y, v)

        return jax_applied(type(rows).__name__, of_columns)(x, u)

    def total(theta, X, Y):
        U, V = (points if f.V is None else f.V for f, points in ((rows, X), (cols, Y)))
        along = jax.vmap(block, (None, None, None, 0, 0))
        blocks = jax.vmap(along, (None, 0, 0, None, None))(theta, X, U, Y, V)
        return (W * blocks.transpose(0, 2, 1, 3).reshape(W.shape)).sum()

    gradients = jax.jit(jax.grad(total, (0, 1, 2)))(kernel.theta, rows.X, cols.X)
    return dict(zip(["theta", "rows", "cols"], map(np.asarray, gradients), strict=True))


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("first", "second", "kernel"),
    [
        ("ValueGradient", "ValueGradient", 0.6 * RBF([0.7, 1.5]) * DotProduct(0.4)),
        ("ValueGradient", "Directional", Matern([0.8, 1.4], nu=2.5) + 0.3 * RBF(0.6)),
        ("Value", "Hessian", ExpSineSquared(1.3, 4.0) * RationalQuadratic(1.2, 0.7) ** 1.5),
        ("Laplacian", "Gradient", RBF([0.7, 1.5]) + DotProduct(0.4) ** 2),
    ],
)
def test_jax(first, second, kernel):
    """The kernel in squared distances, differentiated by another library.

    That takes derivatives of roots, to 1e-11 of the largest.
    """
    rows, cols = functionals(3, 2)[first], functionals(4, 2, seed=1)[second]
    W = weights((rows.size, cols.size))
    operator = CovarianceOperator(kernel, rows, cols)
    for wrt, gradient in jax_gradients(kernel, rows, cols, W).items():
        np.testing.assert_allclose(
            operator.vjp(W, wrt), gradient, rtol=0, atol=1e-11 * np.abs(gradient).max()
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize("second", ["ValueGradient", "Laplacian"])
@pytest.mark.parametrize("first", NAMES[1:6])
def test_differences(first, second):
    """Of sums of our own covariances, in hyperparameters and in points."""
    kernel = 0.6 * RBF([0.7, 1.5]) * DotProduct(0.4) + RationalQuadratic()
    rows, cols = functionals(2, 2)[first], functionals(3, 2, seed=1)[second]
    W = weights((rows.size, cols.size))
    operator = CovarianceOperator(kernel, rows, cols)

    def of_theta(theta):
        return (W * covariance(kernel.clone_with_theta(theta), rows, cols)).sum()

    def of_points(X):
        moved = type(rows)(X) if rows.V is None else Directional(X, rows.V)
        return (W * covariance(kernel, moved, cols)).sum()

    for actual, numerical in [
        (operator.vjp(W), numerical_jacobian(of_theta, kernel.theta)),
        (operator.vjp(W, "rows"), numerical_jacobian(of_points, rows.X)),
    ]:
        # What SciPy's formulas of order 8 leave.
        np.testing.assert_allclose(actual, numerical, rtol=0, atol=1e-9 * np.abs(numerical).max())


@pytest.mark.parametrize("first", ["ValueGradient", "Hessian"])
def test_total_differences(first):
    kernel = 0.6 * RBF([0.7, 1.5]) * DotProduct(0.4) + RationalQuadratic() + WhiteKernel(0.1)
    rows = functionals(3, 2)[first]
    W = weights((rows.size, rows.size))
    W = W + W.T

    def of_points(X):
        return (W * covariance(kernel, type(rows)(X))).sum()

    numerical = numerical_jacobian(of_points, rows.X)
    actual = CovarianceOperator(kernel, rows).vjp(W, "rows")
    np.testing.assert_allclose(actual, numerical, rtol=0, atol=1e-9 * np.abs(numerical).max())


@pytest.mark.quick(2)
@pytest.mark.parametrize("K", ["dense", None, 3])
@pytest.mark.parametrize(
    "kernel",
    [DotProduct(0.7) * WhiteKernel(0.3) + RBF(), (DotProduct(0.7) + WhiteKernel(0.3)) ** 2],
    ids=str,
)
def test_noise_that_changes_with_its_point(kernel, K):
    """On the values that are known, among them some of a functional that a mask leaves out."""
    rows = functionals(5, 2)
    known = np.ones((5, 3), bool)
    known[[0, 0, 2], [0, 2, 1]] = False
    first, second = rows["ValueGradient"].X, rows["Value"].X[:3] + 0.4
    make = [lambda X: ValueGradient(X, mask=known), Gradient, Value]

    def functionals_at(points):
        return [f(X) for f, X in zip(make, points, strict=True)]

    points = [first, first - 0.3, second]
    operator = CovarianceOperator(kernel, functionals_at(points))
    W = weights(operator.shape, K)
    rng = np.random.default_rng(0)
    tangents = [rng.normal(size=X.shape) for X in points]

    def moved(t):
        return covariance(
            kernel, functionals_at([X + t * T for X, T in zip(points, tangents, strict=True)])
        )

    dense = whole(W, True).astype(float)
    numerical = numerical_jacobian(lambda t: (dense * moved(t[0])).sum(), np.zeros(1))[0]
    gradients = operator.vjp(W, "rows")
    actual = sum((g * T).sum() for g, T in zip(gradients, tangents, strict=True))
    scale = np.abs(dense).ravel() @ np.abs(moved(0.0)).ravel()
    # What SciPy's formulas of order 8 leave.
    assert abs(actual - numerical) <= 1e-9 * scale
    v = rng.normal(size=operator.shape[1])
    numerical = numerical_jacobian(lambda t: moved(t[0]) @ v, np.zeros(1))[:, 0]
    actual = operator.jvp(tangents, v, "rows")
    np.testing.assert_allclose(actual, numerical, rtol=0, atol=1e-9 * np.abs(numerical).max())


# --------------------------------------------------------------------------------------------------
# Many dimensions
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(3)
@pytest.mark.parametrize("K", ["dense", 2])
@symmetries
@pytest.mark.parametrize("name", ["Value", "ValueGradient"])
def test_theta_of_many_dimensions(name, symmetric, K):
    """Of one length scale for all columns and of two kernels; as dense derivatives have it."""
    D = 200
    rows, cols = sides(9, 7, D)
    rows, cols = rows[name], None if symmetric else cols[name]
    kernel = 1.3 * Matern(0.8 * D**0.5, nu=2.5) + RBF(D**0.5)
    operator = CovarianceOperator(kernel, rows, cols)
    W = weights(operator.shape, K)
    tensor, matrix = derivatives_of(kernel, rows, cols), covariance(kernel, rows, cols)
    near(operator.vjp(W), whole(W, symmetric), tensor, matrix)


@pytest.mark.parametrize("K", ["dense", 2])
def test_points_of_many_dimensions(K):
    D = 60
    rows, cols = sides(5, 7, D)
    rows, cols = rows["ValueGradient"], cols["ValueGradient"]
    kernel = RBF(D**0.5)
    W = weights((rows.size, cols.size), K)
    blocks = whole(W).reshape(5, 1 + D, cols.size).astype(float)
    tensor = dense_by_rows(kernel, rows, cols)
    exact = np.einsum("irj,iraj->ia", blocks, tensor)
    scale = np.einsum("irj,iraj->ia", np.abs(blocks), np.abs(tensor)).max()
    actual = CovarianceOperator(kernel, rows, cols).vjp(W, "rows")
    assert np.abs(actual - exact).max() <= 1e-13 * scale


# --------------------------------------------------------------------------------------------------
# Weights as they come
# --------------------------------------------------------------------------------------------------

LAYOUTS = {
    "F": np.asfortranarray,
    "list": lambda W: W.tolist(),
    "part": lambda W: np.pad(W, 3)[3:-3, 3:-3],
    "strided": lambda W: np.repeat(np.repeat(W, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda W: W[::-1, ::-1].copy()[::-1, ::-1],
    "unaligned": lambda W: (
        np.frombuffer(b"x" + W.tobytes(), np.uint8)[1:].view(float).reshape(W.shape)
    ),
    "big-endian": lambda W: W.astype(">f8"),
    "record": lambda W: np.rec.fromarrays([W, np.zeros(W.shape, "i1")])["f0"],
    "read-only": lambda W: np.broadcast_to(W, W.shape),
}


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@symmetries
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["masked ValueGradient", "Laplacian"])
def test_layouts(name, layout, symmetric, wrt):
    rows, cols = functionals(30, 2), functionals(25, 2, seed=1)
    operator = CovarianceOperator(two(2), rows[name], None if symmetric else cols[name])
    W = weights(operator.shape)
    np.testing.assert_array_equal(operator.vjp(LAYOUTS[layout](W), wrt), operator.vjp(W, wrt))


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@pytest.mark.parametrize("kind", [int, bool, np.float32, np.longdouble])
def test_types_of_weights(kind, wrt):
    rows = functionals(6, 2)["ValueGradient"]
    operator = CovarianceOperator(two(2), rows, rows)
    W = np.round(3 * weights(operator.shape)).astype(kind)
    np.testing.assert_array_equal(operator.vjp(W, wrt), operator.vjp(W.astype(float), wrt))
    U = W[:, 0], W[1]
    expected = operator.vjp((U[0].astype(float), U[1].astype(float)), wrt)
    np.testing.assert_array_equal(operator.vjp(U, wrt), expected)


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@symmetries
def test_weights_are_left_as_they_are(symmetric, wrt):
    rows = functionals(6, 2)["ValueGradient"]
    operator = CovarianceOperator(two(2), rows, None if symmetric else rows)
    W, factors = weights(operator.shape), weights(operator.shape, 2)
    before = W.copy(), factors[0].copy(), factors[1].copy()
    operator.vjp(W, wrt), operator.vjp(factors, wrt)
    for array, copy in zip((W, *factors), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@symmetries
def test_no_factors(symmetric, wrt):
    """The product of nothing with nothing is zero."""
    rows = functionals(6, 2)["ValueGradient"]
    operator = CovarianceOperator(two(2), rows, None if symmetric else rows)
    np.testing.assert_array_equal(operator.vjp((np.zeros((18, 0)),) * 2, wrt), 0)


@pytest.mark.parametrize("K", ["dense", None, 2])
@pytest.mark.parametrize("name", NAMES)
def test_no_points(name, K):
    nothing, cols = functionals(0, 3)[name], functionals(4, 3, seed=1)["ValueGradient"]
    P = len(two(3).theta)
    operator = CovarianceOperator(two(3), nothing, cols)
    W = weights(operator.shape, K)
    np.testing.assert_array_equal(operator.vjp(W), np.zeros(P))
    assert operator.vjp(W, "rows").shape == (0, 3)
    np.testing.assert_array_equal(operator.vjp(W, "cols"), np.zeros((4, 3)))
    assert operator.jvp(np.ones(P), np.ones(16)).shape == (0,)
    alone = CovarianceOperator(two(3), nothing)
    W = weights(alone.shape, K)
    np.testing.assert_array_equal(alone.vjp(W), np.zeros(P))
    assert alone.vjp(W, "rows").shape == (0, 3)


def test_points_without_columns():
    operator = CovarianceOperator(2.0 * RBF(), ValueGradient(np.zeros((3, 0))))
    np.testing.assert_allclose(operator.vjp(np.ones((3, 3))), [18.0, 0.0])
    assert operator.vjp(np.ones((3, 3)), "rows").shape == (3, 0)


def test_transposed_operators():
    """Of what is a covariance with its sides exchanged."""
    rows, cols = sides(4, 5, 2)
    operator = CovarianceOperator(two(2), rows["ValueGradient"], cols["Laplacian"])
    W = weights(operator.shape)
    np.testing.assert_allclose(operator.T.vjp(W.T), operator.vjp(W), rtol=1e-12)
    np.testing.assert_allclose(
        operator.T.vjp(W.T, "rows"), operator.vjp(W, "cols"), rtol=1e-11, atol=1e-13
    )


def test_noise_makes_no_difference():
    """It depends neither on hyperparameters nor on points."""
    rows = functionals(5, 2)["ValueGradient"]
    W = weights((15, 15))
    clean, noisy = (CovarianceOperator(two(2), rows, noise=noise) for noise in (None, 0.5))
    for wrt in ("theta", "rows"):
        np.testing.assert_array_equal(noisy.vjp(W, wrt), clean.vjp(W, wrt))
    t, v = np.ones(len(two(2).theta)), W[0]
    np.testing.assert_array_equal(noisy.jvp(t, v), clean.jvp(t, v))


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


def small(symmetric=False):
    X = np.arange(6.0).reshape(3, 2)
    return CovarianceOperator(
        RBF([1.0, 2.0]), ValueGradient(X), None if symmetric else Value(X[:2] + 1)
    )


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@pytest.mark.parametrize(
    "W",
    [
        *[np.ones((9, 3)), np.ones((2, 9)), np.ones(18), np.ones((9, 2, 1)), 1.0],
        *[(np.ones(9), np.ones(3)), (np.ones(2), np.ones(9)), (np.ones((9, 2)), np.ones((2, 3)))],
        *[(np.ones((9, 2)), np.ones(2)), (np.ones((9, 1, 1)), np.ones((2, 1, 1)))],
        *[(np.ones(9),), (np.ones(9), np.ones(2), np.ones(2)), (1.0, 1.0), ()],
    ],
    ids=lambda W: "-".join(str(np.shape(part)) for part in W) if isinstance(W, tuple) else None,
)
def test_weights_of_the_wrong_shape(W, wrt):
    with pytest.raises(ValueError, match=r"[WUV] (has|is a tuple)"):
        small().vjp(W, wrt)


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@pytest.mark.parametrize("kind", [complex, object, "U1", "M8[s]"])
def test_weights_of_the_wrong_type(kind, wrt):
    # Objects that are numbers are welcome, and text is none.
    W = np.ones((9, 2)).astype({"M8[s]": int, object: "U1"}.get(kind, kind)).astype(kind)
    with pytest.raises((TypeError, ValueError), match="W is of type"):
        small().vjp(W, wrt)
    with pytest.raises((TypeError, ValueError), match="U is of type"):
        small().vjp((W[:, 0], np.ones(2)), wrt)


@pytest.mark.parametrize("wrt", ["x", "X", None, 0, "row", ["rows"]])
def test_unknown_side(wrt):
    with pytest.raises(ValueError, match=r"wrt is .*'theta', 'rows', 'cols'"):
        small().vjp(np.ones((9, 2)), wrt)
    with pytest.raises(ValueError, match=r"wrt is .*'theta', 'rows', 'cols'"):
        small().jvp(np.ones(2), np.ones(2), wrt)


def test_points_of_columns_that_are_rows():
    with pytest.raises(ValueError, match="wrt is 'cols', but cols is None"):
        small(True).vjp(np.ones((9, 9)), "cols")
    with pytest.raises(ValueError, match="wrt is 'cols', but cols is None"):
        small(True).jvp(np.ones((3, 2)), np.ones(9), "cols")


@pytest.mark.parametrize(
    ("tangent", "wrt"),
    [
        *[(np.ones(3), "theta"), (np.ones((2, 1)), "theta"), (1.0, "theta")],
        *[(np.ones(6), "rows"), (np.ones((2, 2)), "rows"), (np.ones((3, 3)), "rows")],
        *[(np.ones((3, 2)), "cols"), ([np.ones((3, 2))] * 2, "rows")],
        *[(np.full((3, 2), "a"), "rows"), (np.full(2, "a"), "theta")],
    ],
)
def test_bad_tangents(tangent, wrt):
    with pytest.raises((TypeError, ValueError), match="tangent"):
        small().jvp(tangent, np.ones(2), wrt)


@pytest.mark.parametrize("wrt", ["theta", "rows"])
@pytest.mark.parametrize(
    "V", [np.ones(3), np.ones((3, 2)), 1.0, np.full(2, "a"), np.ones(2, complex)], ids=str
)
def test_bad_vectors(V, wrt):
    tangent = np.ones(2) if wrt == "theta" else np.ones((3, 2))
    with pytest.raises((TypeError, ValueError), match=r"V (has shape|is of type)"):
        small().jvp(tangent, V, wrt)
