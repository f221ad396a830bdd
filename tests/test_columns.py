"""Columns: a kernel on some columns, as a kernel of scikit-learn's and of ours."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
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
from support.bounds import assert_within, bounds
from support.oracles import mixed
from support.tensors import OPERATIONS, points

import kerneldiff
from kerneldiff import Columns, _reference, check_kernel_derivatives

# An inner kernel, and the columns it sees of four.
INNER = {
    "one": (RBF(0.7), [2]),
    "ard": (2.0 * RBF([0.5, 2.0]), [3, 1]),
    "sum": (Matern(nu=1.5) + DotProduct(0.4), [0, 1, 3]),
    "fixed": (ConstantKernel(2.0, "fixed") * RationalQuadratic(1.3), [1, 2]),
    "periodic": (ExpSineSquared(1.1, 2.0) ** 2, [0]),
    "pairwise": (PairwiseKernel(metric="rbf"), [0, 2]),
    "noise": (RBF() + WhiteKernel(0.3), [2, 0]),
    "columns": (Columns(RBF(0.9), [1]) * RationalQuadratic(), [3, 2]),
}
inners = pytest.mark.parametrize(("inner", "dims"), INNER.values(), ids=INNER)


# --------------------------------------------------------------------------------------------------
# As a kernel of scikit-learn's
# --------------------------------------------------------------------------------------------------


@inners
def test_values(inner, dims):
    X, Y = points(7, 5, 4)
    kernel = Columns(inner, dims)
    np.testing.assert_array_equal(kernel(X), inner(X[:, dims]))
    np.testing.assert_array_equal(kernel(X, Y), inner(X[:, dims], Y[:, dims]))
    np.testing.assert_array_equal(kernel.diag(X), inner.diag(X[:, dims]))
    np.testing.assert_array_equal(kernel(X.tolist()), kernel(X))
    assert kernel.is_stationary() == inner.is_stationary()
    assert kernel.requires_vector_input


@inners
def test_gradient_with_respect_to_hyperparameters(inner, dims):
    X = points(7, 0, 4)[0]
    K, gradient = Columns(inner, dims)(X, eval_gradient=True)
    expected, expected_gradient = inner(X[:, dims], eval_gradient=True)
    np.testing.assert_array_equal(K, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert gradient.shape == (7, 7, inner.n_dims)


@inners
def test_hyperparameters(inner, dims):
    kernel = Columns(inner, dims)
    np.testing.assert_array_equal(kernel.theta, inner.theta)
    np.testing.assert_array_equal(kernel.bounds, inner.bounds)
    assert kernel.n_dims == inner.n_dims
    names = [f"kernel__{h.name}" for h in inner.hyperparameters]
    assert [h.name for h in kernel.hyperparameters] == names
    for ours, theirs in zip(kernel.hyperparameters, inner.hyperparameters, strict=True):
        assert ours[1:2] == theirs[1:2]
        assert (ours.n_elements, ours.fixed) == (theirs.n_elements, theirs.fixed)
        np.testing.assert_array_equal(ours.bounds, theirs.bounds)
        # They are parameters as well.
        assert ours.name in kernel.get_params()


@inners
def test_clone_with_theta(inner, dims):
    kernel = Columns(clone(inner), dims)
    before = kernel.theta.copy()
    moved = kernel.clone_with_theta(before + 0.3)
    np.testing.assert_allclose(moved.theta, before + 0.3, rtol=1e-14)
    np.testing.assert_array_equal(kernel.theta, before)
    assert moved.dims == dims
    X = points(5, 0, 4)[0]
    np.testing.assert_array_equal(moved(X), inner.clone_with_theta(moved.theta)(X[:, dims]))
    kernel.theta = moved.theta
    assert kernel == moved


@inners
def test_copies(inner, dims):
    kernel = Columns(inner, dims)
    for copy in (clone(kernel), pickle.loads(pickle.dumps(kernel))):
        assert copy is not kernel
        assert copy.kernel is not inner
        assert copy == kernel


def test_parameters():
    inner = 2.0 * RBF([0.5, 2.0])
    kernel = Columns(inner, [3, 1])
    assert kernel.get_params(deep=False) == {"kernel": inner, "dims": [3, 1]}
    deep = kernel.get_params()
    assert deep["kernel__k1__constant_value"] == 2.0
    assert deep["kernel__k2"] is inner.k2
    assert {"kernel", "dims", *(f"kernel__{name}" for name in inner.get_params())} == set(deep)
    returned = kernel.set_params(kernel__k1__constant_value=3.0, dims=[0, 2])
    assert returned is kernel
    assert (inner.k1.constant_value, kernel.dims) == (3.0, [0, 2])
    kernel.set_params(kernel=RBF(0.1))
    assert kernel.theta.shape == (1,)
    with pytest.raises(ValueError, match="Invalid parameter"):
        kernel.set_params(columns=[1])


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Columns(RBF(0.7), [0, 2]), True),
        (Columns(RBF(0.7), (0, 2)), True),
        (Columns(RBF(0.7), np.array([0, 2])), True),
        (Columns(RBF(0.7), [2, 0]), False),
        (Columns(RBF(0.7), [0]), False),
        (Columns(RBF(0.8), [0, 2]), False),
        (RBF(0.7), False),
        (0.7, False),
    ],
    ids=str,
)
def test_equality(other, equal):
    kernel = Columns(RBF(0.7), [0, 2])
    assert (kernel == other) is equal
    assert (kernel != other) is not equal


def test_repr():
    kernel = Columns(2.0 * RBF([0.5, 2.0]), [3, 1]) + Columns(Matern(), (0,))
    assert repr(kernel) == (
        "Columns(1.41**2 * RBF(length_scale=[0.5, 2]), [3, 1]) + "
        "Columns(Matern(length_scale=1, nu=1.5), (0,))"
    )


def test_arithmetic():
    """Sums, products and powers of them are those of scikit-learn."""
    a, b = Columns(RBF(0.7), [0]), Columns(Matern(nu=2.5), [2, 1])
    X, Y = points(5, 6, 3)
    left, right = a(X, Y), b(X, Y)
    np.testing.assert_array_equal((a + b)(X, Y), left + right)
    np.testing.assert_array_equal((a * b)(X, Y), left * right)
    np.testing.assert_array_equal((a**2)(X, Y), left**2)
    np.testing.assert_array_equal((0.5 * a + 1)(X, Y), 0.5 * left + 1)
    K, gradient = (a * b)(X, eval_gradient=True)
    assert gradient.shape == (5, 5, 2)
    np.testing.assert_array_equal(K, a(X) * b(X))


@pytest.mark.parametrize("restarts", [0, 1])
def test_fits_as_the_inner_kernel_does_on_the_columns(restarts):
    X, noise = points(25, 25, 3)
    y = np.sin(2 * X[:, 2]) + 0.5 * X[:, 0] + 0.2 * noise[:, 0]
    inner = 1.0 * RBF([1.0, 1.0]) + WhiteKernel(0.1)
    options = {"n_restarts_optimizer": restarts, "random_state": 0}
    whole = GaussianProcessRegressor(Columns(inner, [2, 0]), **options).fit(X, y)
    cut = GaussianProcessRegressor(inner, **options).fit(X[:, [2, 0]], y)
    np.testing.assert_array_equal(whole.kernel_.theta, cut.kernel_.theta)
    assert (whole.kernel_.theta != inner.theta).all()
    assert whole.log_marginal_likelihood_value_ == cut.log_marginal_likelihood_value_
    Z = points(4, 0, 3, seed=1)[0]
    np.testing.assert_array_equal(
        whole.predict(Z, return_std=True), cut.predict(Z[:, [2, 0]], True)
    )


def test_learns_which_column_is_seasonal():
    """Two of them in a product, with hyperparameters of both."""
    X = points(30, 0, 2)[0]
    kernel = Columns(ExpSineSquared(1.0, 2.0), [0]) * Columns(RBF(1.0), [1])
    model = GaussianProcessRegressor(kernel, alpha=1e-6).fit(X, np.sin(3 * X[:, 0]) * X[:, 1])
    assert model.kernel_.theta.shape == (3,)
    assert model.log_marginal_likelihood_value_ > model.log_marginal_likelihood(kernel.theta)
    gradient = model.log_marginal_likelihood(kernel.theta, eval_gradient=True)[1]
    numerical = kerneldiff.numerical_jacobian(model.log_marginal_likelihood, kernel.theta)
    np.testing.assert_allclose(gradient, numerical, rtol=1e-5)


# --------------------------------------------------------------------------------------------------
# As a kernel of ours
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, "float64") for name in ("gradient-x", "hessian_diag-xy", "hessian-xy")],
        ("hessian-xx", "float32"),
    ],
)
@inners
def test_tensors(inner, dims, name, dtype):
    X, Y = mixed(4, dtype, 20.0)
    # Points that coincide in the columns that are seen, and in those that are not.
    Y[6, dims] = X[1, dims]
    Y[7] = X[2]
    Y[7, dims] += 1
    operation, kernel = OPERATIONS[name], Columns(inner, dims) * RBF(2.0) + Columns(RBF(), [1])
    sides = operation.options.get("wrt", "")
    tensors = (
        _reference.derivative(kernel, X.astype(np.longdouble), Y.astype(np.longdouble), sides),
        bounds(kernel, X, Y, sides, dtype),
    )
    if name.startswith("hessian_diag"):
        tensors = [np.einsum("ijaa->ija", tensor) for tensor in tensors]
    assert_within(operation(kernel, X, Y), *tensors)


@inners
def test_derivatives_along_other_columns_are_zero(inner, dims):
    X, Y = points(5, 6, 4)
    kernel = Columns(inner, dims)
    other = np.setdiff1d(np.arange(4), dims)
    G, H = kerneldiff.gradient(kernel, X, Y), kerneldiff.hessian(kernel, X, Y, wrt="xy")
    np.testing.assert_array_equal(G[..., other], 0)
    np.testing.assert_array_equal(H[..., other, :], 0)
    np.testing.assert_array_equal(H[..., other], 0)
    part = kerneldiff.hessian(inner, X[:, dims], Y[:, dims], wrt="xy")
    np.testing.assert_allclose(
        H[..., dims, :][..., dims], part, rtol=1e-13, atol=1e-14 * np.abs(part).max()
    )


@inners
def test_values_are_its_own(inner, dims):
    X, Y = points(5, 6, 4)
    kernel = Columns(inner, dims) + 0.5
    np.testing.assert_allclose(kerneldiff.kernel_matrix(kernel, X, Y), kernel(X, Y), rtol=1e-13)
    np.testing.assert_allclose(kerneldiff.kernel_matrix(kernel, X), kernel(X), rtol=1e-13)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("inner", "dims"),
    [
        # scikit-learn checks the points of each call of a pairwise kernel: 10 seconds.
        pytest.param(*case, id=name, marks=[pytest.mark.exhaustive] * (name == "pairwise"))
        for name, case in INNER.items()
    ],
)
def test_finite_differences_agree(inner, dims):
    X, Y = points(2, 2, 4)
    assert check_kernel_derivatives(Columns(inner, dims), X, Y).ok


@pytest.mark.parametrize(
    "dims", [(1, 3), np.array([1, 3]), range(1, 4, 2), [np.int32(1), 3]], ids=repr
)
def test_dims_of_any_kind(dims):
    X, Y = points(5, 6, 4)
    kernel = Columns(RBF([0.5, 2.0]), dims)
    expected = kerneldiff.gradient(Columns(RBF([0.5, 2.0]), [1, 3]), X, Y)
    np.testing.assert_array_equal(kerneldiff.gradient(kernel, X, Y), expected)
    np.testing.assert_array_equal(kernel(X, Y), RBF([0.5, 2.0])(X[:, [1, 3]], Y[:, [1, 3]]))
    assert kernel == Columns(RBF([0.5, 2.0]), [1, 3])
    assert clone(kernel) == kernel


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------

BAD = {
    "beyond": [0, 3],
    "negative": [-1],
    "twice": [1, 1],
    "fractions": [0.0, 1.0],
    "strings": ["a"],
    "booleans": [True, False],
    "mask": np.array([True, False, True]),
    "none": None,
    "nested": [[0, 1]],
}


@pytest.mark.parametrize("dims", BAD.values(), ids=BAD)
@pytest.mark.parametrize(
    "use",
    [
        lambda kernel, X: kerneldiff.gradient(kernel, X),
        lambda kernel, X: kerneldiff.kernel_matrix(RBF() + kernel**2, X),
        lambda kernel, X: kernel(X),
        lambda kernel, X: kernel.diag(X),
    ],
    ids=["gradient", "kernel_matrix", "call", "diag"],
)
def test_bad_dims(use, dims):
    with pytest.raises(ValueError, match=r"dims of Columns.*different column numbers from 0 to 2"):
        use(Columns(RBF(), dims), np.zeros((2, 3)))


def test_length_scales_are_those_of_the_columns():
    X = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"length_scale of .*2 columns"):
        kerneldiff.gradient(Columns(RBF([1.0, 2.0, 3.0]), [0, 2]), X)


def test_unreadable_inner_kernel():
    with pytest.raises(TypeError, match=r"cannot be read.*laplacian"):
        kerneldiff.gradient(Columns(PairwiseKernel(metric="laplacian"), [0]), np.zeros((2, 3)))
