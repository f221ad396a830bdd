"""Layers of tanh, their products, and how wrong they may be.

**What may be expected.** z = sum_d x_d a_d + b is a sum of D + 1 terms of which no partial sum is
larger than S = sum_d |x_d a_d| + |b|. Each of the D + 1 roundings is at most u S = eps S / 2, and
as roundings behave like random ones their sum is below 2 eps S for the numbers of columns here.
That moves tanh z by at most (1 - tanh² z) 2 eps S, and 1 - tanh² z, whose logarithm has a slope
of -2 tanh z, by at most 4 eps S of itself. The elementary function and the product with x_d add
less than 5 eps.
"""

import numpy as np

import kerneldiff
from kerneldiff import tanh


def tanh_tangents(X, W):
    """A cotangent of the functions and tangents of the points and weights, of either sign."""
    sizes = [(X.shape[0], W.shape[1]), X.shape, W.shape]
    return [np.cos(np.arange(np.prod(size)) + 1).reshape(size).astype(X.dtype) for size in sizes]


def tanh_products(X, W):
    """Cotangents of the weights and the points, and the tangent, of a layer."""
    G, dX, dW = tanh_tangents(X, W)
    (of_weights,), of_points = tanh._backward(X, [W], None, G)
    return of_weights, of_points, tanh._tangent(X, [W], [dW], dX)


# What is computed for points and the weights of a layer.
LAYER = {
    "tanh_basis": kerneldiff.tanh_basis,
    "tanh_jacobian": kerneldiff.tanh_jacobian,
    "input_jacobian": lambda X, W: tanh._input_jacobian(X, [W]),
    "input_hessian": lambda X, W: tanh._input_hessian(X, [W]),
    "vjp": lambda X, W: tanh_products(X, W)[0],
    "vjp of points": lambda X, W: tanh_products(X, W)[1],
    "jvp": lambda X, W: tanh_products(X, W)[2],
}


def arguments(X, W):
    """z, S and the points with a column of ones behind them, for the inputs as stored."""
    X, W = X.astype(np.longdouble), W.astype(np.longdouble)
    X = np.concatenate([X, np.ones((len(X), 1), np.longdouble)], axis=1)
    return X @ W, np.abs(X) @ np.abs(W), X


def slope(z):
    """1 - tanh²(z) without the cancellation."""
    decay = np.exp(-2 * np.abs(z))
    return 4 * decay / (1 + decay) ** 2


def assert_basis_right(actual, X, W):
    z, total, _ = arguments(X, W)
    eps = np.finfo(X.dtype).eps
    assert actual.dtype == X.dtype
    assert actual.shape == z.shape
    bound = 4 * eps * total * slope(z) + 5 * eps * np.abs(np.tanh(z))
    assert (np.abs(actual - np.tanh(z)) <= bound).all()


def assert_jacobian_right(actual, X, W):
    z, total, X1 = arguments(X, W)
    info = np.finfo(X.dtype)
    expected = X1[:, :, None] * slope(z)[:, None, :]
    assert actual.dtype == X.dtype
    assert actual.shape == expected.shape
    # The last term is for 1 - tanh² z and products that are subnormal: good to the spacing.
    relative = (4 * total + 5) * info.eps
    bound = relative[:, None, :] * np.abs(expected)
    bound += (1 + np.abs(X1[:, :, None])) * info.smallest_subnormal
    assert (np.abs(actual - expected) <= bound).all()


def assert_input_jacobian_right(actual, X, W):
    z, total, _ = arguments(X, W)
    info = np.finfo(X.dtype)
    expected = slope(z)[:, :, None] * W[:-1].T.astype(z.dtype)
    assert actual.dtype == X.dtype
    assert actual.shape == expected.shape
    bound = ((4 * total + 5) * info.eps)[:, :, None] * np.abs(expected)
    bound += (1 + np.abs(W[:-1].T)) * info.smallest_subnormal
    assert (np.abs(actual - expected) <= bound).all()


def assert_input_hessian_right(actual, X, W):
    """tanh'' = -2 tanh (1 - tanh²) moves by at most 4 (1 - tanh²) times what z moves by."""
    z, total, _ = arguments(X, W)
    info = np.finfo(X.dtype)
    A = W[:-1].T.astype(z.dtype)
    square = A[:, :, None] * A[:, None, :]
    curvature = -2 * np.tanh(z) * slope(z)
    expected = curvature[:, :, None, None] * square
    assert actual.dtype == X.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, actual.swapaxes(2, 3))
    bound = (4 * 2 * total * slope(z) + 10 * np.abs(curvature)) * info.eps
    bound = bound[:, :, None, None] * np.abs(square)
    # Where tanh'' or the product is subnormal: good to the spacing.
    bound += (1 + 4 * np.abs(square)) * info.smallest_subnormal
    assert (np.abs(actual - expected) <= bound).all()


def assert_sum_right(actual, terms, relative, axis, dtype):
    """A sum of terms with relative errors, in blocks of 64, of which there are not many.

    So there are at most 64 roundings in a block and as many as blocks and lanes after it.
    """
    eps = np.finfo(dtype).eps
    roundings = 64 + terms.shape[axis] / 64 + 64
    bound = (np.abs(terms) * (relative + roundings * eps)).sum(axis=axis)
    assert actual.dtype == dtype
    assert actual.shape == bound.shape
    bound += terms.shape[axis] * np.finfo(dtype).smallest_subnormal
    assert (np.abs(actual - terms.sum(axis=axis)) <= bound).all()


def assert_vjp_right(actual, X, W):
    z, total, X1 = arguments(X, W)
    G, _, _ = tanh_tangents(X, W)
    terms = X1[:, :, None] * (G * slope(z))[:, None, :]
    relative = (4 * total + 6)[:, None, :] * np.finfo(X.dtype).eps
    assert_sum_right(actual, terms, relative, 0, X.dtype)


def assert_vjp_of_points_right(actual, X, W):
    z, total, _ = arguments(X, W)
    G, _, _ = tanh_tangents(X, W)
    terms = (G * slope(z))[:, None, :] * W[:-1].astype(z.dtype)
    relative = (4 * total + 6)[:, None, :] * np.finfo(X.dtype).eps
    assert_sum_right(actual, terms, relative, 2, X.dtype)


def assert_jvp_right(actual, X, W):
    z, total, X1 = arguments(X, W)
    _, dX, dW = tanh_tangents(X, W)
    info = np.finfo(X.dtype)
    dz = X1 @ dW + dX @ W[:-1].astype(z.dtype)
    of_dz = np.abs(X1) @ np.abs(dW) + np.abs(dX) @ np.abs(W[:-1])
    expected = dz * slope(z)
    assert actual.dtype == X.dtype
    assert actual.shape == expected.shape
    bound = ((4 * total + 6) * np.abs(dz) + 4 * of_dz) * info.eps * slope(z)
    bound += (1 + np.abs(dz)) * info.smallest_subnormal
    assert (np.abs(actual - expected) <= bound).all()


ASSERTIONS = {
    "tanh_basis": assert_basis_right,
    "tanh_jacobian": assert_jacobian_right,
    "input_jacobian": assert_input_jacobian_right,
    "input_hessian": assert_input_hessian_right,
    "vjp": assert_vjp_right,
    "vjp of points": assert_vjp_of_points_right,
    "jvp": assert_jvp_right,
}
