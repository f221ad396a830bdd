"""If only one test file is run this is the one.

Every function, type and way through the compiled code once, against formulas written out here; it
needs no more than pytest, and runs in seconds also under a sanitizer.
"""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

import kerneldiff
from kerneldiff import tanh

# Rounding of an entry relative to the largest of the array: a few hundred eps at these sizes.
TOLERANCES = {"float64": 1e-13, "float32": 5e-6}

# N, M, D, number of length scales: nothing, one, ragged, more than one tile of rows and of columns,
# more than one panel of dimensions.
SIZES = [
    *[(0, 3, 2, 1), (3, 0, 2, 2), (1, 1, 1, 1), (3, 5, 2, 2), (7, 9, 5, 1), (7, 9, 5, 5)],
    *[(50, 261, 3, 1), (50, 261, 3, 3), (5, 3, 9, 9), (2, 3, 70, 1)],
]


def plain(X, Y, weights):
    """Value, gradient and Hessian with respect to x of exp(-sum_d w_d (x_d - y_d)^2 / 2)."""
    difference = X[:, None].astype(np.float64) - Y[None]
    K = np.exp(-0.5 * (weights * difference**2).sum(axis=2))
    slopes = -weights * difference
    gradient = slopes * K[..., None]
    outer = slopes[..., :, None] * slopes[..., None, :]
    return K, gradient, (outer - np.diag(weights)) * K[..., None, None]


def assert_close(actual, expected, dtype):
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    bound = TOLERANCES[dtype] * np.abs(expected).max(initial=0)
    assert np.abs(actual - expected).max(initial=0) <= bound


@pytest.fixture(params=TOLERANCES)
def dtype(request):
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def case(request, dtype, rng):
    """Kernel, points, and the tensors that they should give."""
    n, m, d, n_scales = request.param
    X, Y = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(m, d)).astype(dtype)
    scales = np.linspace(0.6, 0.9, n_scales) * d**0.5
    kernel = ConstantKernel(1.7) * RBF(scales if n_scales > 1 else scales[0])
    weights = np.broadcast_to(scales, d) ** -2.0
    return kernel, X, Y, [1.7 * tensor for tensor in plain(X, Y, weights)]


def test_kernel_matrix(case, dtype):
    kernel, X, Y, (K, _, _) = case
    assert_close(kerneldiff.kernel_matrix(kernel, X, Y), K, dtype)


@pytest.mark.parametrize(("wrt", "sign"), [("x", 1), ("y", -1)])
def test_gradient(case, dtype, wrt, sign):
    kernel, X, Y, (_, gradient, _) = case
    assert_close(kerneldiff.gradient(kernel, X, Y, wrt=wrt), sign * gradient, dtype)


@pytest.mark.parametrize(("wrt", "sign"), [("xx", 1), ("xy", -1), ("yx", -1), ("yy", 1)])
def test_hessian(case, dtype, wrt, sign):
    kernel, X, Y, (_, _, hessian) = case
    assert_close(kerneldiff.hessian(kernel, X, Y, wrt=wrt), sign * hessian, dtype)


@pytest.mark.parametrize(("wrt", "sign"), [("xx", 1), ("yx", -1)])
def test_hessian_packed(case, dtype, wrt, sign):
    kernel, X, Y, (_, _, hessian) = case
    upper = hessian[(..., *np.triu_indices(X.shape[1]))]
    packed = kerneldiff.hessian(kernel, X, Y, wrt=wrt, layout="packed")
    assert_close(packed, sign * upper, dtype)


@pytest.mark.parametrize(("wrt", "sign"), [("xx", 1), ("yx", -1)])
def test_hessian_diag(case, dtype, wrt, sign):
    kernel, X, Y, (_, _, hessian) = case
    diagonal = np.einsum("ijaa->ija", hessian)
    assert_close(kerneldiff.hessian_diag(kernel, X, Y, wrt=wrt), sign * diagonal, dtype)


def test_one_argument(dtype, rng):
    X = rng.normal(size=(60, 3)).astype(dtype)
    K, _, _ = plain(X, X, np.full(3, 1 / 4))
    assert_close(kerneldiff.kernel_matrix(RBF(2.0), X), K, dtype)


def fortran(array):
    return np.asfortranarray(array)


def strided(array):
    return np.repeat(array, 2, axis=1)[:, ::2]


def unaligned(array):
    """One byte off the alignment of its type, which C does not allow to be read as it is."""
    copy = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


@pytest.mark.parametrize("layout", [fortran, strided, unaligned])
def test_layouts(layout, dtype, rng):
    X, Y = rng.normal(size=(7, 3)).astype(dtype), rng.normal(size=(9, 3)).astype(dtype)
    np.testing.assert_array_equal(
        kerneldiff.gradient(RBF(), layout(X), layout(Y)), kerneldiff.gradient(RBF(), X, Y)
    )
    np.testing.assert_array_equal(
        kerneldiff.tanh_basis(layout(X), layout(Y[:4])), kerneldiff.tanh_basis(X, Y[:4])
    )


def test_out(dtype, rng):
    X = rng.normal(size=(60, 3)).astype(dtype)
    out = np.full((60, 60, 3, 3), np.nan, dtype)
    assert kerneldiff.hessian(RBF(2.0), X, out=out) is out
    np.testing.assert_array_equal(out, kerneldiff.hessian(RBF(2.0), X))


@pytest.mark.parametrize(
    ("name", "number"), [("rbf_kernel", 0), ("rbf_gradient", 1), ("rbf_hessian", 2)]
)
def test_gamma(name, number, dtype, rng):
    X, Y = rng.normal(size=(5, 4)).astype(dtype), rng.normal(size=(3, 4)).astype(dtype)
    # gamma = 1/D by default, and w = 2 gamma.
    expected = plain(X, Y, np.full(4, 0.5))[number]
    assert_close(getattr(kerneldiff, name)(X, Y), expected, dtype)


def test_tensor_blocks(rng):
    X = rng.normal(size=(60, 3))
    blocks = kerneldiff.tensor_blocks(kerneldiff.hessian, RBF(), X, working_memory=0.1)
    rows, tensors = zip(*blocks, strict=True)
    assert [i for part in rows for i in range(60)[part]] == list(range(60))
    np.testing.assert_array_equal(np.concatenate(tensors), kerneldiff.hessian(RBF(), X))


# N, D, K
tanh_sizes = pytest.mark.parametrize(
    "size",
    [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (5, 3, 7), (50, 2, 67), (300, 9, 5), (2, 70, 64)],
    ids=str,
)


@tanh_sizes
def test_tanh_basis(size, dtype, rng):
    n, d, k = size
    X, W = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(d + 1, k)).astype(dtype)
    expected = np.tanh(X.astype(np.float64) @ W[:-1].astype(np.float64) + W[-1])
    actual = kerneldiff.tanh_basis(X, W)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    # The slope of tanh is at most 1: its error is that of its argument, D + 1 terms of order 1.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=10 * (d + 1) * np.finfo(dtype).eps)


@tanh_sizes
def test_tanh_jacobian(size, dtype, rng):
    n, d, k = size
    X, W = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(d + 1, k)).astype(dtype)
    slope = 1 - np.tanh(X.astype(np.float64) @ W[:-1].astype(np.float64) + W[-1]) ** 2
    expected = np.concatenate([X, np.ones((n, 1))], axis=1)[:, :, None] * slope[:, None, :]
    actual = kerneldiff.tanh_jacobian(X, W)
    assert actual.dtype == dtype
    assert actual.shape == (n, d + 1, k)
    # |x| < 5, and the slope of sech^2 is at most 1.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=50 * (d + 1) * np.finfo(dtype).eps)


@tanh_sizes
def test_tanh_products(size, dtype, rng):
    """By weights and points, from both sides, and second derivatives."""
    n, d, k = size
    X, W = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(d + 1, k)).astype(dtype)
    dX, dW = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(d + 1, k)).astype(dtype)
    G = rng.normal(size=(n, k)).astype(dtype)
    X1 = np.concatenate([X, np.ones((n, 1))], axis=1)
    phi = np.tanh(X1 @ W)
    slope, A = 1 - phi**2, W[:-1].T.astype(float)
    (of_weights,), of_points = tanh._backward(X, [W], None, G)
    eps = np.finfo(dtype).eps
    # Sums of n, k or d terms of order 1 to 10, and the errors of z in each of them.
    for actual, expected, terms in [
        (of_weights, X1.T @ (G * slope), n + d),
        (of_points, (G * slope) @ A, k + d),
        (tanh._tangent(X, [W], [dW], dX), slope * (X1 @ dW + dX @ A.T), d),
        (tanh._input_jacobian(X, [W]), slope[:, :, None] * A, d),
        (
            tanh._input_hessian(X, [W]),
            (-2 * phi * slope)[:, :, None, None] * A[:, :, None] * A[:, None],
            d,
        ),
    ]:
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=0, atol=100 * (terms + 2) * eps)


@pytest.mark.parametrize("n", [0, 1, 70])
def test_tanh_stack(n, dtype, rng):
    """The product from the right is a difference, and that from the left its adjoint."""
    X = rng.normal(size=(n, 2)).astype(dtype)
    weights = [rng.normal(size=size).astype(dtype) for size in [(3, 5), (6, 17), (18, 3)]]
    dW = [rng.normal(size=W.shape).astype(dtype) for W in weights]
    G = rng.normal(size=(n, 3)).astype(dtype)
    expected = X.astype(float)
    moved = np.zeros_like(expected)
    for W, dw in zip(weights, dW, strict=True):
        dz = expected @ dw[:-1] + dw[-1] + moved @ W[:-1]
        expected = np.tanh(expected @ W[:-1] + W[-1])
        moved = (1 - expected**2) * dz
    tolerance = {"float64": 1e-11, "float32": 1e-2}[np.dtype(dtype).name]
    np.testing.assert_allclose(tanh._forward(X, weights)[-1], expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(tanh._tangent(X, weights, dW), moved, rtol=0, atol=tolerance)
    of_weights, _ = tanh._backward(X, weights, None, G)
    pulled = sum((v.astype(float) * dw).sum() for v, dw in zip(of_weights, dW, strict=True))
    assert abs(pulled - (G * moved).sum()) <= tolerance * (n + 1)
    jacobians = tanh._stack_jacobians(X, weights)
    pushed = sum(np.einsum("nkab,ab->nk", J, dw) for J, dw in zip(jacobians, dW, strict=True))
    np.testing.assert_allclose(pushed, moved, rtol=0, atol=10 * tolerance)
    assert tanh._input_jacobian(X, weights).shape == (n, 3, 2)
    assert tanh._input_hessian(X, weights).shape == (n, 3, 2, 2)


def joint(tensors):
    """Covariance of values and gradients, (N (1 + D), M (1 + D)), of a stationary kernel."""
    K, gradient, hessian = tensors
    n, m, d = gradient.shape
    C = np.empty((n, 1 + d, m, 1 + d))
    C[:, 0, :, 0] = K
    C[:, 1:, :, 0] = gradient.transpose(0, 2, 1)
    C[:, 0, :, 1:] = -gradient
    C[:, 1:, :, 1:] = -hessian.transpose(0, 2, 1, 3)
    return C.reshape(n * (1 + d), m * (1 + d))


def assert_product(actual, C, V, dtype):
    assert actual.dtype == dtype
    bound = TOLERANCES[dtype] * (np.abs(C) @ np.abs(V)).max(initial=0)
    assert np.abs(actual - C @ V).max(initial=0) <= bound


@pytest.mark.parametrize("n_vectors", [1, 5])
def test_product(case, dtype, n_vectors, rng):
    kernel, X, Y, tensors = case
    C = joint(tensors)
    rows, cols = kerneldiff.ValueGradient(X), kerneldiff.ValueGradient(Y)
    operator = kerneldiff.CovarianceOperator(kernel, rows, cols)
    V = rng.normal(size=(C.shape[1], n_vectors)).astype(dtype)
    assert_product(operator @ V, C, V, dtype)
    V = rng.normal(size=(C.shape[0], n_vectors)).astype(dtype)
    assert_product(operator.T @ V, C.T, V, dtype)


@pytest.mark.parametrize("functional", ["Value", "ValueGradient"])
def test_symmetric_product(case, dtype, functional, rng):
    kernel, _, X, _ = case
    rows = getattr(kerneldiff, functional)(X)
    C = kerneldiff.covariance(kernel, rows)
    V = rng.normal(size=(len(C), 2)).astype(dtype)
    assert_product(kerneldiff.CovarianceOperator(kernel, rows) @ V, C, V, dtype)


def test_expansion(case, dtype, rng):
    kernel, X, Y, tensors = case
    weights = rng.normal(size=(len(Y), 2)).astype(dtype)
    f = kerneldiff.expansion(kernel, Y, weights)
    for actual, tensor in zip((f(X), f.gradient(X), f.hessian(X)), tensors, strict=True):
        C = np.moveaxis(tensor, 1, -1)
        C = C.reshape(np.prod(C.shape[:-1], dtype=int), len(Y))
        actual = np.moveaxis(actual, 1, -1)
        assert_product(actual.reshape(len(C), 2), C, weights, dtype)


@pytest.mark.parametrize("columns", ["Hessian", "Laplacian", "ValueGradient"])
def test_general_product(dtype, columns, rng):
    """Several invariants, and functionals that have no way of their own."""
    X, Y = rng.normal(size=(2, 21, 3)).astype(dtype)
    kernel = RBF([0.9, 1.0, 1.1]) * RBF(2.0)
    rows, cols = kerneldiff.Hessian(X), getattr(kerneldiff, columns)(Y)
    C = kerneldiff.covariance(kernel, rows, cols)
    V = rng.normal(size=(C.shape[1], 2)).astype(dtype)
    assert_product(kerneldiff.CovarianceOperator(kernel, rows, cols) @ V, C, V, dtype)


@pytest.mark.parametrize("order", ["C", "F"])
def test_contraction(case, dtype, order, rng):
    """The derivative by the logarithm of a factor is the kernel itself."""
    kernel, X, Y, tensors = case
    C = joint(tensors)
    W = rng.normal(size=C.shape).astype(dtype, order=order)
    rows, cols = kerneldiff.ValueGradient(X), kerneldiff.ValueGradient(Y)
    slope = kerneldiff.CovarianceOperator(kernel, rows, cols).vjp(W)
    assert slope.shape == kernel.theta.shape
    assert abs(slope[0] - (W * C).sum()) <= TOLERANCES[dtype] * np.abs(W * C).sum()
    operator = kerneldiff.CovarianceOperator(kernel, kerneldiff.Value(X), kerneldiff.Value(Y))
    W = rng.normal(size=operator.shape).astype(dtype, order=order)
    expected = np.einsum("ij,ija->ia", W, tensors[1])
    bound = TOLERANCES[dtype] * np.abs(W[..., None] * tensors[1]).sum(axis=1).max(initial=0)
    assert np.abs(operator.vjp(W, "rows") - expected).max(initial=0) <= bound


@pytest.mark.parametrize("solver", ["cholesky", "rotation"])
def test_regressor(solver, rng):
    """Values and gradients that were learned almost without noise come back."""
    X = rng.normal(size=(5, 4))
    y, dy = np.sin(X).sum(axis=1), np.cos(X)
    model = kerneldiff.GaussianProcessRegressor(RBF(2.0), optimizer=None, solver=solver)
    model.fit(X, y, dy)
    np.testing.assert_allclose(model.predict(X), y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.predict_gradient(X), dy, rtol=0, atol=1e-6)
    value, slope = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
    assert np.isfinite(value)
    assert slope.shape == (1,)


def test_transformer(rng):
    X = rng.normal(size=(9, 2))
    basis = clone(kerneldiff.TanhBasis(n_components=4, random_state=0)).fit(X)
    assert basis.transform(X).shape == (9, 4)
    assert basis.jacobian(X).shape == (9, 3, 4)


def test_refuses_bad_input(rng):
    X = rng.normal(size=(5, 2))
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        kerneldiff.gradient(RBF(), X)


def test_config():
    config = kerneldiff._core.config()
    assert config["isa"] in config["isa_supported"]
    assert set(config["isa_supported"]) <= set(config["isa_built"])
    assert config["threads"] >= 1
