"""Identities of matrix calculus that fits, likelihoods and maps rest on.

Each is written out with this library's tensors and compared with derivatives by other means: JAX,
finite differences, scikit-learn's derivatives by hyperparameters. All arrays are flattened row by
row, and a Jacobian has the axes of the result before those of the argument (numerator layout).

Finite differences (`numerical_jacobian`) are of eighth order with steps that shrink until two
estimates agree: what is left is the rounding of the values over the step, 1e-16 · 16 · 2^k of
values near 1 for k halvings, 1e-12 at worst. Where a matrix is inverted, its condition number of
less than 100 comes on top, squared where it enters twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor as Sklearn
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

from kerneldiff import (
    CovarianceOperator,
    GaussianProcessRegressor,
    TanhBasis,
    Value,
    ValueGradient,
    covariance,
    gram_jacobian,
    kernel_matrix,
    numerical_jacobian,
    tanh_basis,
    tanh_jacobian,
)

jax.config.update("jax_enable_x64", True)

NOISE = 0.1
KERNELS = {
    "rbf": ConstantKernel(1.4) * RBF([0.9, 1.6]),
    "matern": Matern(1.3, nu=2.5),
    "dot": RBF(1.5) * DotProduct(0.8),
}
kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def close(actual, expected, tol):
    """Whether arrays agree to a part of the largest entry."""
    assert np.shape(actual) == np.shape(expected)
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tol * scale)


@pytest.fixture
def data(rng):
    """Points (8, 2), targets (8,), a square matrix that is not symmetric (8, 8)."""
    return rng.normal(size=(8, 2)), rng.normal(size=8), rng.normal(size=(8, 8))


def gram(kernel, X):
    """A Gram matrix with noise, which its derivatives by the points do not see."""
    return kernel_matrix(kernel, X) + NOISE * np.eye(len(X))


# ---------------------------------------------------------------------------------- least squares


def test_least_squares_by_a_vector(rng):
    """∂/∂x ½‖A x − b‖² = Aᵀ (A x − b): the residual times the Jacobian A of A x."""
    A, x, b = rng.normal(size=(7, 4)), rng.normal(size=4), rng.normal(size=7)
    by_chain = (A @ x - b) @ A
    close(by_chain, jax.grad(lambda x: 0.5 * jnp.sum((A @ x - b) ** 2))(x), 1e-14)
    close(by_chain, numerical_jacobian(lambda x: 0.5 * np.sum((A @ x - b) ** 2), x), 1e-10)


def tanh_problem(rng):
    X, W = rng.normal(size=(20, 3)), rng.normal(size=(4, 5))
    return X, W, rng.normal(size=5), rng.normal(size=20)


def least_squares(X, W, c, y, xp=np):
    return 0.5 * xp.sum((xp.tanh(X @ W[:-1] + W[-1]) @ c - y) ** 2)


def test_least_squares_by_the_slopes_and_biases_of_a_basis(rng):
    """L = ½‖Φ(W) c − y‖²: ∂L/∂W_dk = Σ_n r_n J_ndk c_k, with the compact Jacobian J."""
    X, W, c, y = tanh_problem(rng)
    residual = tanh_basis(X, W) @ c - y
    by_chain = np.einsum("n,ndk,k->dk", residual, tanh_jacobian(X, W), c)
    expected = jax.grad(lambda W: least_squares(X, W, c, y, jnp))(W)
    # Sums of 20 terms, each good to some ten roundings.
    close(by_chain, expected, 1e-13)
    close(by_chain, numerical_jacobian(lambda W: least_squares(X, W, c, y), W), 1e-9)


def test_least_squares_by_the_flattened_jacobian(rng):
    """The same as a vector times a matrix: vec(∂L/∂W) = (r ⊗ c)ᵀ ∂vec Φ / ∂vec W."""
    X, W, c, y = tanh_problem(rng)
    residual = tanh_basis(X, W) @ c - y
    by_matrix = np.kron(residual, c) @ tanh_jacobian(X, W, layout="matrix")
    by_chain = np.einsum("n,ndk,k->dk", residual, tanh_jacobian(X, W), c)
    close(by_matrix.reshape(W.shape), by_chain, 1e-13)


def test_least_squares_backwards(rng):
    """The same without the Jacobian: the cotangent r cᵀ of Φ, pulled back."""
    X, W, c, y = tanh_problem(rng)
    residual = tanh_basis(X, W) @ c - y
    basis = TanhBasis(weights=W).fit(X)
    by_chain = np.einsum("n,ndk,k->dk", residual, tanh_jacobian(X, W), c)
    close(basis.vjp(X, np.outer(residual, c)), by_chain, 1e-13)


def test_least_squares_by_the_linear_weights(rng):
    """∂L/∂c = Φᵀ r."""
    X, W, c, y = tanh_problem(rng)
    Phi = tanh_basis(X, W)
    expected = jax.grad(lambda c: least_squares(X, W, c, y, jnp))(c)
    close(Phi.T @ (Phi @ c - y), expected, 1e-13)


# --------------------------------------------------------------------------------- products of A x


def test_product_by_the_vector(rng):
    """∂(A x) / ∂x = A."""
    A, x = rng.normal(size=(3, 4)), rng.normal(size=4)
    close(numerical_jacobian(lambda x: A @ x, x), A, 1e-11)


def test_product_by_the_matrix(rng):
    """∂(A x)_i / ∂A_jk = [i = j] x_k, flattened I ⊗ xᵀ."""
    A, x = rng.normal(size=(3, 4)), rng.normal(size=4)
    tensor = np.einsum("ij,k->ijk", np.eye(3), x)
    close(numerical_jacobian(lambda A: A @ x, A), tensor, 1e-11)
    close(np.asarray(jax.jacfwd(lambda A: A @ x)(A)), tensor, 1e-15)
    np.testing.assert_array_equal(tensor.reshape(3, 12), np.kron(np.eye(3), x))


def test_product_of_three(rng):
    """∂ vec(A X B) / ∂ vec X = A ⊗ Bᵀ, with vec row by row."""
    A, X, B = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 5))
    tensor = numerical_jacobian(lambda X: A @ X @ B, X)
    close(tensor.reshape(15, 8), np.kron(A, B.T), 1e-11)


# ------------------------------------------------------------------------------------ Gram matrix


def test_gram_matrix_of_dot_products(data):
    """∂(X Xᵀ)_ij / ∂X_pa = [p = i] X_ja + [p = j] X_ia."""
    X = data[0]
    eye = np.eye(8)
    tensor = np.einsum("pi,ja->ijpa", eye, X) + np.einsum("pj,ia->ijpa", eye, X)
    close(gram_jacobian(DotProduct(0.0), X), tensor, 1e-15)
    # vec(dX Xᵀ) = (I ⊗ X) vec(dX), and vec(X dXᵀ) is that of the transpose.
    half = np.kron(eye, X).reshape(8, 8, 16)
    flat = (half + half.transpose(1, 0, 2)).reshape(64, 16)
    close(gram_jacobian(DotProduct(0.0), X, layout="matrix"), flat, 1e-15)


@kernels
def test_gram_matrix(kernel, data):
    """The Gram matrix as scikit-learn has it, as a tensor and flattened."""
    X = data[0]
    tensor = numerical_jacobian(kernel, X)
    close(gram_jacobian(kernel, X), tensor, 1e-10)
    flat = numerical_jacobian(lambda x: kernel(x.reshape(X.shape)).ravel(), X.ravel())
    close(gram_jacobian(kernel, X, layout="matrix"), flat, 1e-10)


@kernels
def test_chain_rule_through_a_gram_matrix(kernel, data):
    """∂f(K(X)) / ∂vec X = vec(∂f/∂K)ᵀ ∂vec K / ∂vec X, here for f = Σ sin K."""
    X = data[0]
    J = gram_jacobian(kernel, X, layout="sparse")
    by_chain = (J.T @ np.cos(kernel(X)).ravel()).reshape(X.shape)
    close(by_chain, numerical_jacobian(lambda X: np.sin(kernel(X)).sum(), X), 1e-10)


# ------------------------------------- log-determinant, inverse, trace, quadratic form: by a matrix

# Name: function of K, A and y; its derivative by K, with C the inverse of K.
FUNCTIONS = {
    "log-determinant": (
        lambda K, A, y, la: la.slogdet(K)[1],
        lambda C, A, y: C.T,
    ),
    "trace": (
        lambda K, A, y, la: (A @ K).trace(),
        lambda C, A, y: A.T,
    ),
    "trace of the inverse": (
        lambda K, A, y, la: (A @ la.inv(K)).trace(),
        lambda C, A, y: -(C @ A @ C).T,
    ),
    "quadratic form": (
        lambda K, A, y, la: y @ K @ y,
        lambda C, A, y: np.outer(y, y),
    ),
    "quadratic form of the inverse": (
        lambda K, A, y, la: y @ la.solve(K, y),
        lambda C, A, y: -np.outer(C.T @ y, C @ y),
    ),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.mark.quick(2)
@functions
def test_functions_of_a_matrix(name, data):
    """∂f/∂K for all entries of K, symmetric or not."""
    function, derivative = FUNCTIONS[name]
    X, y, A = data
    K = gram(KERNELS["rbf"], X) + 0.01 * A
    by_hand = derivative(np.linalg.inv(K), A, y)
    close(by_hand, jax.grad(lambda K: function(K, A, y, jnp.linalg))(K), 1e-11)
    close(by_hand, numerical_jacobian(lambda K: function(K, A, y, np.linalg), K), 1e-7)


def test_inverse(data):
    """∂(K⁻¹)_ij / ∂K_kl = −(K⁻¹)_ik (K⁻¹)_lj, flattened −K⁻¹ ⊗ K⁻ᵀ."""
    X, _, A = data
    K = gram(KERNELS["rbf"], X) + 0.01 * A
    C = np.linalg.inv(K)
    tensor = -np.einsum("ik,lj->ijkl", C, C)
    close(tensor, np.asarray(jax.jacfwd(jnp.linalg.inv)(K)), 1e-11)
    np.testing.assert_allclose(tensor.reshape(64, 64), -np.kron(C, C.T), rtol=1e-15)


# ------------------------------- the same by hyperparameters and points, as the likelihood has them


@functions
@kernels
def test_by_hyperparameters(kernel, name, data):
    """∂f/∂θ_p = Σ_ij (∂f/∂K)_ij ∂K_ij/∂θ_p, against scikit-learn's array of ∂K/∂θ."""
    X, y, A = data
    by_K = FUNCTIONS[name][1](np.linalg.inv(gram(kernel, X)), A, y)
    # ∂K/∂θ is symmetric, and so may the weights be.
    actual = CovarianceOperator(kernel, Value(X)).vjp((by_K + by_K.T) / 2, wrt="theta")
    expected = np.einsum("ij,ijp->p", by_K, kernel(X, eval_gradient=True)[1])
    close(actual, expected, 1e-12)


@functions
@kernels
def test_by_hyperparameters_in_differences(kernel, name, data):
    X, y, A = data
    function, derivative = FUNCTIONS[name]

    def value(theta):
        return function(gram(kernel.clone_with_theta(theta), X), A, y, np.linalg)

    by_K = derivative(np.linalg.inv(gram(kernel, X)), A, y)
    actual = CovarianceOperator(kernel, Value(X)).vjp((by_K + by_K.T) / 2, wrt="theta")
    close(actual, numerical_jacobian(value, kernel.theta), 1e-8)


@pytest.mark.quick(5)
@functions
@kernels
def test_by_points(kernel, name, data):
    """∂f/∂X_pa, by the Gram Jacobian and by an operator, against differences."""
    X, y, A = data
    function, derivative = FUNCTIONS[name]
    by_K = derivative(np.linalg.inv(gram(kernel, X)), A, y)
    by_tensor = np.einsum("ij,ijpa->pa", by_K, gram_jacobian(kernel, X))
    by_operator = CovarianceOperator(kernel, Value(X)).vjp((by_K + by_K.T) / 2, wrt="rows")
    close(by_tensor, by_operator, 1e-12)
    close(
        by_tensor,
        numerical_jacobian(lambda X: function(gram(kernel, X), A, y, np.linalg), X),
        1e-7,
    )


# ------------------------------------------------------------------------------------- likelihood


def likelihood_gradient(operator, C, y):
    """∂/∂θ of −½ yᵀ K⁻¹ y − ½ log|K|: ½ αᵀ (∂K/∂θ) α − ½ tr(K⁻¹ ∂K/∂θ), with α = K⁻¹ y."""
    alpha = C @ y
    return 0.5 * operator.vjp((alpha, alpha)) - 0.5 * operator.vjp(C)


@pytest.mark.parametrize("regressor", [GaussianProcessRegressor, Sklearn])
@kernels
def test_likelihood(kernel, regressor, data):
    X, y, _ = data
    model = regressor(kernel, alpha=NOISE, optimizer=None).fit(X, y)
    expected = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)[1]
    operator = CovarianceOperator(kernel, Value(X))
    close(likelihood_gradient(operator, np.linalg.inv(gram(kernel, X)), y), expected, 1e-11)


@kernels
def test_likelihood_with_gradients(kernel, data, rng):
    """The joint covariance of values and gradients in place of K."""
    X, y, _ = data
    dy = rng.normal(size=X.shape)
    model = GaussianProcessRegressor(kernel, alpha=NOISE, alpha_gradient=NOISE, optimizer=None)
    model.fit(X, y, dy)
    expected = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)[1]
    K = covariance(kernel, ValueGradient(X)) + NOISE * np.eye(24)
    both = np.column_stack([y, dy]).ravel()
    operator = CovarianceOperator(kernel, ValueGradient(X))
    close(likelihood_gradient(operator, np.linalg.inv(K), both), expected, 1e-11)


@kernels
def test_likelihood_by_points(kernel, data):
    """How a likelihood changes as its points move, by the Gram Jacobian."""
    X, y, _ = data

    def likelihood(X):
        K = gram(kernel, X)
        return -0.5 * y @ np.linalg.solve(K, y) - 0.5 * np.linalg.slogdet(K)[1]

    C = np.linalg.inv(gram(kernel, X))
    by_K = 0.5 * (np.outer(C @ y, C @ y) - C)
    J = gram_jacobian(kernel, X, layout="sparse")
    close((J.T @ by_K.ravel()).reshape(X.shape), numerical_jacobian(likelihood, X), 1e-8)


# ---------------------------------------------------------------------------------- area scaling

# A region that is not convex: an L, counterclockwise; its rectangles for integrals over it.
CORNERS = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]) - 0.8
RECTANGLES = [((-0.8, 1.2), (-0.8, 0.2)), ((-0.8, 0.2), (0.2, 1.2))]


def shoelace(points):
    """Area within a polygon, negative if its points go clockwise."""
    x, y = points.T
    return 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)


def boundary(n):
    """n points on each side of the L."""
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    return np.concatenate(
        [a + t * (b - a) for a, b in zip(CORNERS, np.roll(CORNERS, -1, axis=0), strict=True)]
    )


def integral(function):
    """Over the L, by 40 x 40 points of Gauss and Legendre in each rectangle."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for (x0, x1), (y0, y1) in RECTANGLES:
        x, y = (x0 + x1 + (x1 - x0) * nodes) / 2, (y0 + y1 + (y1 - y0) * nodes) / 2
        points = np.array(np.meshgrid(x, y, indexing="ij")).reshape(2, -1).T
        area = (x1 - x0) * (y1 - y0) / 4
        total += area * np.outer(weights, weights).ravel() @ function(points)
    return total


@pytest.mark.parametrize("sign", [1, -1])
def test_area_under_a_linear_map(rng, sign):
    """|A P| = |det A| |P|; a negative determinant turns the polygon over."""
    A, b = rng.normal(size=(2, 2)), rng.normal(size=2)
    A[0] *= sign * np.sign(np.linalg.det(A))
    mapped = CORNERS @ A.T + b
    assert shoelace(CORNERS) == pytest.approx(3.0, rel=1e-15)
    assert shoelace(mapped) == pytest.approx(3 * np.linalg.det(A), rel=1e-13)
    assert np.sign(shoelace(mapped)) == sign


# Slopes in columns, one for each output, and biases.
W_PLANE = np.array([[0.7, -0.3], [0.4, 0.9], [0.2, -0.1]])


def test_area_under_a_tanh_map():
    """The area of the image is the integral of |det J| over the region.

    Gauss and Legendre's rule is exact here to rounding, as tanh has no poles near. A polygon with h
    between its points leaves out slivers of h² / 12 of the curvature times the length, 1e-9 with
    2e4 points on sides of up to 2.
    """
    basis = TanhBasis(weights=W_PLANE).fit(CORNERS)
    by_integral = integral(lambda X: np.exp(basis.log_abs_det_jacobian(X)))
    image = shoelace(basis.transform(boundary(20_000)))
    assert abs(image) == pytest.approx(by_integral, rel=2e-9)
    # And it is no linear map.
    center = np.exp(basis.log_abs_det_jacobian(np.zeros((1, 2))))[0]
    assert by_integral < 0.8 * 3 * center


def test_area_under_a_stack_of_tanh_maps(rng):
    """Determinants of maps one after the other multiply: here two of them, both invertible."""
    hidden = np.array([[0.8, 0.3], [-0.2, 0.9], [0.1, 0.1]])
    basis = TanhBasis(weights=[hidden, W_PLANE]).fit(CORNERS)
    by_integral = integral(lambda X: np.exp(basis.log_abs_det_jacobian(X)))
    image = shoelace(basis.transform(boundary(20_000)))
    assert abs(image) == pytest.approx(by_integral, rel=2e-9)


def test_determinant_is_the_limit_of_areas():
    """A square with a diagonal of 2e-4 is scaled by det J at its middle, but for terms of 1e-8.

    Those of first order cancel in opposite corners.
    """
    basis = TanhBasis(weights=W_PLANE).fit(CORNERS)
    square = 1e-4 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    for point in (np.array([0.3, -0.4]), np.array([-0.7, 1.0])):
        ratio = shoelace(basis.transform(point + square)) / shoelace(square)
        logarithm = basis.log_abs_det_jacobian(point[None])[0]
        # And 1e-16 of the coordinates over an area of 2e-8.
        assert np.log(abs(ratio)) == pytest.approx(logarithm, abs=1e-7)
