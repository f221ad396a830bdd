"""Sums of kernels at centers, and their derivatives, against dense tensors of the reference."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    DotProduct,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import UNIT, assert_within, covariance_bounds
from support.functionals import functionals, meet, two, wide
from support.oracles import REGISTRY, ard
from support.tensors import DTYPES

import kerneldiff
from kerneldiff import (
    Gradient,
    Hessian,
    Laplacian,
    Value,
    _reference,
    expansion,
    numerical_jacobian,
)

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# Method: functional, and how many axes of length D it has.
METHODS = {"__call__": (Value, 0), "gradient": (Gradient, 1), "hessian": (Hessian, 2)}
METHODS["laplacian"] = (Laplacian, 0)
methods = pytest.mark.parametrize("method", METHODS)


def points(n, m, D, dtype="float64"):
    """Points and centers, one of which is one of the points."""
    both = meet(functionals(n, D, dtype), functionals(m, D, dtype, seed=1))
    return [side["Value"].X for side in both]


def random_weights(m, T=None, dtype="float64"):
    return np.random.default_rng([m, 5]).normal(size=m if T is None else (m, T)).astype(dtype)


def assert_right(kernel, X, centers, weights, method, dtype="float64"):
    """Errors of a product with the covariance, as in test_operators; targets follow the points."""
    kind, axes = METHODS[method]
    rows, cols = kind(X), Value(centers)
    actual = getattr(expansion(kernel, centers, weights), method)(X)
    T, D = weights.shape[1:], X.shape[1]
    assert actual.shape == (len(X), *T, *[D] * axes)
    assert actual.dtype == dtype
    with np.errstate(all="ignore"):
        matrix = _reference.covariance(kernel, wide(rows), wide(cols))
        bound = covariance_bounds(kernel, rows, cols, dtype)
        exact, sums = matrix @ weights.astype(np.longdouble), np.abs(matrix) @ np.abs(weights)
        bound = bound @ np.abs(weights) + UNIT[dtype] * len(centers) * sums
    bound = np.where(np.isnan(bound), np.inf, bound + np.finfo(dtype).smallest_normal)
    exact, bound = (a.reshape(len(X), *[D] * axes, *T) for a in (exact, bound))
    if T:
        exact, bound = np.moveaxis(exact, -1, 1), np.moveaxis(bound, -1, 1)
    assert_within(actual, exact, bound)


@dtypes
@methods
@pytest.mark.parametrize("name", REGISTRY)
def test_kernels(name, method, dtype):
    """Limits where a point is a center; NaN where there is none."""
    X, centers = points(4, 6, 2, dtype)
    assert_right(REGISTRY[name](2), X, centers, random_weights(6, None, dtype), method, dtype)


@methods
@pytest.mark.parametrize("T", [0, 1, 2, 8, 9])
def test_targets(T, method):
    X, centers = points(5, 7, 3)
    assert_right(two(3), X, centers, random_weights(7, T), method)


@methods
@pytest.mark.parametrize("D", [1, 2, 3, 5, 8, 9, 17, 33])
def test_dimensions(D, method):
    X, centers = points(3, 19, D)
    assert_right(Matern(ard(D) * D**0.5, nu=2.5), X, centers, random_weights(19), method)


@methods
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 129), (130, 65)], ids=str)
def test_sizes(size, method):
    X, centers = points(*size, 3)
    assert_right(RBF(0.9), X, centers, random_weights(size[1], 2), method)


@methods
@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("m", [0, 4])
def test_no_points(n, m, method):
    X, centers = np.ones((n, 2)), np.zeros((m, 2))
    values = getattr(expansion(RBF(), centers, np.ones(m)), method)(X)
    assert values.shape == (n, *[2] * METHODS[method][1])
    if m == 0:
        np.testing.assert_array_equal(values, 0)


@pytest.mark.parametrize("name", ["rbf", "matern-5/2-ard", "two"])
def test_tensors(name):
    """Products with those that store them."""
    kernel = {"two": two}.get(name, REGISTRY.get(name))(3)
    X, centers = points(9, 11, 3)
    weights = random_weights(11)
    f = expansion(kernel, centers, weights)
    desired = {
        "__call__": np.einsum("ij,j->i", kerneldiff.kernel_matrix(kernel, X, centers), weights),
        "gradient": np.einsum("ija,j->ia", kerneldiff.gradient(kernel, X, centers), weights),
        "hessian": np.einsum("ijab,j->iab", kerneldiff.hessian(kernel, X, centers), weights),
        "laplacian": np.einsum("ijaa,j->i", kerneldiff.hessian(kernel, X, centers), weights),
    }
    for method, array in desired.items():
        np.testing.assert_allclose(
            getattr(f, method)(X), array, rtol=0, atol=1e-13 * np.abs(array).max()
        )


def test_differences():
    """Each derivative is one of the function, by numerical differentiation."""
    X, centers = points(2, 5, 2)
    f = expansion(RationalQuadratic(0.9) * DotProduct(0.4), centers, random_weights(5))
    for x in X[:, None]:
        gradient = numerical_jacobian(lambda x: f(x[None])[0], x[0])
        np.testing.assert_allclose(f.gradient(x)[0], gradient, atol=1e-9)
        hessian = numerical_jacobian(lambda x: f.gradient(x[None])[0], x[0])
        np.testing.assert_allclose(f.hessian(x)[0], hessian, atol=1e-9)
        np.testing.assert_allclose(f.laplacian(x)[0], np.trace(hessian), atol=1e-9)


@pytest.mark.parametrize("kernel", [RBF(0.9), two(3)], ids=["one", "two"])
def test_hessians_are_symmetric(kernel):
    """And their traces are Laplacians."""
    X, centers = points(20, 50, 3)
    f = expansion(kernel, centers, random_weights(50))
    H = f.hessian(X)
    # Of sums of 50 terms of either sign.
    tolerance = 1e-13 * np.abs(H).max()
    np.testing.assert_allclose(H, H.transpose(0, 2, 1), rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.einsum("iaa->i", H), f.laplacian(X), rtol=0, atol=tolerance)


def test_predictions_of_a_gaussian_process():
    """What it is for: means of scikit-learn's, and their derivatives."""
    X, centers = points(6, 20, 2)
    y = np.sin(centers).sum(axis=1)
    gp = GaussianProcessRegressor(2.0 * RBF(1.3) + WhiteKernel(0.01), optimizer=None)
    gp.fit(centers, y)
    f = expansion(gp.kernel_, gp.X_train_, gp.alpha_)
    # The sum of terms up to 1e3 times as large, and the noise is none of new points.
    np.testing.assert_allclose(f(X), gp.predict(X), atol=1e-11)


@pytest.mark.parametrize(
    ("nu", "method", "missing"),
    [
        *[(0.5, "__call__", False), (0.5, "gradient", True), (0.8, "gradient", False)],
        *[(1.0, "hessian", True), (1.5, "hessian", False), (1.0, "laplacian", True)],
        *[(1.5, "laplacian", False), (2.5, "hessian", False)],
    ],
)
def test_limits_at_centers(nu, method, missing):
    X = np.array([[0.3, -1.0], [1.0, 2.0]])
    values = getattr(expansion(Matern([0.7, 1.2], nu=nu), X[:1], [1.0]), method)(X)
    assert np.isnan(values[0]).any() == missing
    assert np.isfinite(values[1]).all()


def test_noise_is_none_of_a_function():
    X, centers = points(3, 4, 2)
    weights = random_weights(4)
    noisy = expansion(RBF() + WhiteKernel(3.0), centers, weights)
    np.testing.assert_array_equal(noisy(X), expansion(RBF(), centers, weights)(X))
    np.testing.assert_array_equal(noisy(centers), expansion(RBF(), centers, weights)(centers))


def test_what_changes_later():
    """It keeps centers, weights and kernel of its own."""
    X, centers = points(3, 4, 2)
    centers, weights, kernel = centers.copy(), random_weights(4), 2.0 * RBF(0.7)
    f = expansion(kernel, centers, weights)
    before = f(X), f.hessian(X)
    centers[:], weights[:] = 0, 0
    kernel.theta = [1.0, 1.0]
    np.testing.assert_array_equal(f(X), before[0])
    np.testing.assert_array_equal(f.hessian(X), before[1])


@pytest.mark.parametrize("kind", [list, np.asfortranarray, np.float32, lambda a: np.round(a)])
def test_arrays_as_they_come(kind):
    X, centers = points(3, 4, 2)
    weights = random_weights(4, 2)
    X, centers, weights = (
        kind(a.tolist()) if kind is list else kind(a) for a in (X, centers, weights)
    )
    exact = expansion(RBF(), np.array(centers, float), np.array(weights, float))
    f = expansion(RBF(), centers, weights)
    tolerance = 1e-5 if kind is np.float32 else 0
    np.testing.assert_allclose(f(X), exact(np.array(X, float)), rtol=tolerance, atol=tolerance)
    assert f(X).dtype == (np.float32 if kind is np.float32 else np.float64)


@pytest.mark.parametrize(
    "weights", [np.ones(3), np.ones((3, 2)), np.ones((4, 2, 1)), 1.0, np.ones((2, 4)), []], ids=str
)
def test_weights_of_the_wrong_shape(weights):
    with pytest.raises(ValueError, match=r"weights has shape .*\(4,\) or \(4, T\)"):
        expansion(RBF(), np.ones((4, 2)), weights)


@pytest.mark.parametrize("weights", [["a"] * 4, [1j] * 4, [None] * 4])
def test_weights_of_the_wrong_type(weights):
    with pytest.raises((TypeError, ValueError), match="weights is of type"):
        expansion(RBF(), np.ones((4, 2)), weights)


@pytest.mark.parametrize("centers", [np.ones(4), np.ones((2, 2, 1)), [[np.nan]], [["a"]]], ids=str)
def test_bad_centers(centers):
    with pytest.raises(ValueError, match="centers"):
        expansion(RBF(), centers, np.ones(len(centers)))


@methods
@pytest.mark.parametrize("X", [np.ones(2), np.ones((3, 2, 1)), [[np.nan, 0.0]], np.ones((3, 3))])
def test_bad_points(X, method):
    with pytest.raises(ValueError, match=r"X|columns"):
        getattr(expansion(RBF(), np.ones((4, 2)), np.ones(4)), method)(X)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (np.dot, TypeError, "cannot be read"),
        (PairwiseKernel(metric="cosine"), TypeError, "cosine"),
        (RBF(-1.0), ValueError, "length_scale"),
        (RBF([1.0, 2.0, 3.0]), ValueError, "length_scale"),
    ],
    ids=str,
)
def test_bad_kernels(kernel, error, message):
    """Said when it is made."""
    with pytest.raises(error, match=message):
        expansion(kernel, np.ones((4, 2)), np.ones(4))
