"""
Matrix calculus: what the fits and the maps of this library rest on
===================================================================

A handful of identities carries most of what is done with derivatives of kernels and bases: the
gradient of a least-squares loss, the Jacobian of a product and of a Gram matrix, the derivatives of
determinants and inverses in a likelihood, the scaling of areas by a map. Here they are in numbers,
each next to finite differences; a picture of the Jacobian of a Gram matrix; and one of two maps.

Arrays are flattened row by row, and a Jacobian has the axes of the result first. J. R. Magnus and
H. Neudecker, "Matrix Differential Calculus with Applications in Statistics and Econometrics" (3rd
edition, Wiley 2019), has all of it, with columns stacked in place of rows.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from kerneldiff import (
    CovarianceOperator,
    GaussianProcessRegressor,
    TanhBasis,
    Value,
    gram_jacobian,
    numerical_jacobian,
    tanh_basis,
    tanh_jacobian,
)

rng = np.random.default_rng(0)


def compare(name, ours, expected):
    """Print how far two arrays are apart, as a part of the largest entry."""
    assert np.shape(ours) == np.shape(expected)
    difference = np.abs(ours - expected).max() / np.abs(expected).max()
    print(f"{name:47s} {np.shape(ours)!s:15s} largest relative difference {difference:.0e}")


# %%
# Least squares by the chain rule
# -------------------------------
#
# The loss :math:`L = \frac{1}{2} \lVert \Phi(W) c - y \rVert^2` of a tanh basis has the gradient
# :math:`\partial L / \partial W_{dk} = \sum_n r_n J_{ndk} c_k`, residuals times Jacobian times
# linear weights. Flattened it is a row vector times a matrix, :math:`(r \otimes c)^T \, \partial
# \mathrm{vec} \Phi / \partial \mathrm{vec} W`; from right to left, without any Jacobian, it is
# what training calls backpropagation.

X, W, c, y = rng.normal(size=(20, 3)), rng.normal(size=(4, 5)), rng.normal(size=5), np.ones(20)
residual = tanh_basis(X, W) @ c - y
gradient = np.einsum("n,ndk,k->dk", residual, tanh_jacobian(X, W), c)
flat = np.kron(residual, c) @ tanh_jacobian(X, W, layout="matrix")
compare("loss, flattened", flat.reshape(W.shape), gradient)
compare("loss, backwards", TanhBasis(weights=W).fit(X).vjp(X, np.outer(residual, c)), gradient)
compare(
    "loss, differences",
    gradient,
    numerical_jacobian(lambda W: 0.5 * np.sum((tanh_basis(X, W) @ c - y) ** 2), W),
)

# %%
# A product
# ---------
#
# The Jacobian of :math:`A x` by x is A. By A it is :math:`[i = j] \, x_k`, or flattened
# :math:`I \otimes x^T`.

A, x = rng.normal(size=(3, 4)), rng.normal(size=4)
compare("A x by x", A, numerical_jacobian(lambda x: A @ x, x))
by_A = numerical_jacobian(lambda A: A @ x, A)
compare("A x by A", np.kron(np.eye(3), x), by_A.reshape(3, 12))

# %%
# A Gram matrix by its points
# ---------------------------
#
# An entry :math:`K_{ij} = k(x_i, x_j)` changes with two points only. Of the N³D entries of
# the Jacobian all but N(2N − 1)D are zero, and ``layout="sparse"`` stores no others.

kernel = ConstantKernel(1.5) * RBF([0.9, 1.4])
X = rng.normal(size=(8, 2))
tensor = gram_jacobian(kernel, X)
matrix = gram_jacobian(kernel, X, layout="sparse")
compare("Gram matrix by points", tensor, numerical_jacobian(kernel, X))
compare("Gram matrix by points, flattened", matrix.toarray(), tensor.reshape(64, 16))

figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
stored = matrix.tocoo()
entries = np.full(matrix.shape, np.nan)
entries[stored.row, stored.col] = stored.data
limit = np.abs(stored.data).max()
image = ax.imshow(entries.T, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
for i in range(1, 8):
    ax.axvline(8 * i - 0.5, color="0.6", lw=0.8)
    ax.axhline(2 * i - 0.5, color="0.6", lw=0.8)
ax.set_facecolor("0.88")
ax.set_xticks(8 * np.arange(8) + 3.5, [f"$K_{{{i + 1}j}}$" for i in range(8)])
ax.set_yticks(2 * np.arange(8) + 0.5, [f"$x_{i + 1}$" for i in range(8)])
ax.tick_params(length=0)
ax.set_xlabel("entries of the Gram matrix, row by row (j = 1…8 in each group)")
ax.set_ylabel("points, two coordinates each")
ax.set_title(
    f"Jacobian of a Gram matrix, transposed: {matrix.nnz} of {tensor.size} entries are stored, "
    "grey ones are zero"
)
figure.colorbar(image, ax=ax, label=r"$\partial K_{ij} / \partial X_{pa}$", pad=0.01)
plt.show()

# %%
# What a likelihood is made of
# ----------------------------
#
# The derivatives of a function of a matrix by its entries, contracted with those of the matrix, are
# the derivatives by whatever the matrix depends on, here the hyperparameters :math:`\theta`:
#
# ====================  ====================================================
# function              differential
# ====================  ====================================================
# log-determinant       :math:`d \log|K| = \mathrm{tr}(K^{-1} dK)`
# inverse               :math:`d K^{-1} = -K^{-1} \, dK \, K^{-1}`
# trace                 :math:`d \, \mathrm{tr}(A K) = \mathrm{tr}(A \, dK)`
# quadratic form        :math:`d (y^T K^{-1} y) = -\alpha^T dK \, \alpha,
#                       \quad \alpha = K^{-1} y`
# ====================  ====================================================
#
# `CovarianceOperator.vjp` contracts weights with ∂K/∂θ, or with ∂K/∂X, and forms neither.

y = np.sin(2 * X[:, 0]) + X[:, 1]
noise = 0.01 * np.eye(8)
inverse = np.linalg.inv(kernel(X) + noise)
alpha = inverse @ y
symmetric = np.add.outer(np.arange(8), np.arange(8)) / 8
operator = CovarianceOperator(kernel, Value(X))


def by_theta(function):
    """Differences by the hyperparameters of a function of K."""
    return numerical_jacobian(
        lambda theta: function(kernel.clone_with_theta(theta)(X) + noise), kernel.theta
    )


compare("log-determinant", operator.vjp(inverse), by_theta(lambda K: np.linalg.slogdet(K)[1]))
compare("trace", operator.vjp(symmetric), by_theta(lambda K: np.trace(symmetric @ K)))
compare(
    "trace with the inverse",
    operator.vjp(-inverse @ symmetric @ inverse),
    by_theta(lambda K: np.trace(symmetric @ np.linalg.inv(K))),
)
compare(
    "quadratic form",
    -operator.vjp((alpha, alpha)),
    by_theta(lambda K: y @ np.linalg.solve(K, y)),
)

# %%
# Put together they are the gradient of the log marginal likelihood,
# :math:`\frac{1}{2} \alpha^T \frac{\partial K}{\partial\theta} \alpha - \frac{1}{2}
# \mathrm{tr}(K^{-1} \frac{\partial K}{\partial\theta})`. With the Gram Jacobian in place of ∂K/∂θ
# it says how the likelihood changes as the points move.

model = GaussianProcessRegressor(kernel, alpha=0.01, optimizer=None).fit(X, y)
compare(
    "likelihood by hyperparameters",
    0.5 * operator.vjp((alpha, alpha)) - 0.5 * operator.vjp(inverse),
    model.log_marginal_likelihood(kernel.theta, eval_gradient=True)[1],
)
by_K = 0.5 * (np.outer(alpha, alpha) - inverse)


def likelihood(X):
    """The log marginal likelihood, but for a constant."""
    K = kernel(X) + noise
    return -0.5 * y @ np.linalg.solve(K, y) - 0.5 * np.linalg.slogdet(K)[1]


compare(
    "likelihood by points",
    (matrix.T @ by_K.ravel()).reshape(X.shape),
    numerical_jacobian(likelihood, X),
)

# %%
# Areas
# -----
#
# A linear map scales all areas by the absolute value of its determinant. Any smooth map does so
# locally, by the determinant of its Jacobian, which differs from place to place: the area of the
# image of a region is the integral of it. A tanh basis with as many functions as inputs is such a
# map, and ``log_abs_det_jacobian`` its change of area (in more dimensions, of volume).
#
# The area of an image is that within its boundary (Gauss's shoelace formula), followed densely.


def shoelace(points):
    """Area within a polygon."""
    x, y = points.T
    return 0.5 * abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


slopes, biases = np.array([[1.0, -0.4], [0.5, 0.4]]), np.array([0.15, -0.1])
basis = TanhBasis(weights=np.vstack([slopes, biases])).fit(np.zeros((1, 2)))
maps = {
    "as it was": (lambda X: X, lambda X: np.ones(len(X))),
    "linear map": (
        lambda X: X @ slopes + biases,
        lambda X: np.full(len(X), abs(np.linalg.det(slopes))),
    ),
    "tanh of it": (basis.transform, lambda X: np.exp(basis.log_abs_det_jacobian(X))),
}

# Gauss and Legendre's points of the square, and the boundary.
nodes, weights = np.polynomial.legendre.leggauss(30)
side = 1.5
points = side * np.array(np.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1).T
weights = side**2 * np.outer(weights, weights).ravel()
t = np.linspace(-side, side, 20_000, endpoint=False)
ends = np.full_like(t, side)
boundary = np.concatenate([np.c_[t, -ends], np.c_[ends, t], np.c_[-t, ends], np.c_[-ends, -t]])
for name, (function, factor) in maps.items():
    print(
        f"{name:11s} area within the boundary {shoelace(function(boundary)):.9f}, "
        f"integral of the determinant {weights @ factor(points):.9f}"
    )

# %%
# Circles of the same size, and what becomes of them. The linear map shrinks all alike; under the
# tanh map those towards the edges shrink most, as the functions saturate there.

edges = np.linspace(-side, side, 121)
grid = np.array(np.meshgrid(edges, edges, indexing="ij"))
flat_grid = grid.reshape(2, -1).T
angle = np.linspace(0, 2 * np.pi, 100)
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, (function, factor)) in zip(axes, maps.items(), strict=True):
    u, v = function(flat_grid).T.reshape(2, 121, 121)
    image = ax.pcolormesh(
        u,
        v,
        np.log2(factor(flat_grid)).reshape(121, 121),
        cmap="viridis",
        vmin=-5,
        vmax=0,
        shading="gouraud",
        rasterized=True,
    )
    for k in range(0, 121, 10):
        for line in ((u[k], v[k]), (u[:, k], v[:, k])):
            ax.plot(*line, color="white", lw=0.6, alpha=0.7)
    for center in np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1])).reshape(2, -1).T:
        circle = function(center + 0.25 * np.column_stack([np.cos(angle), np.sin(angle)]))
        ax.fill(*circle.T, facecolor="white", edgecolor="black", lw=0.8)
    ax.set(title=f"{name}: area {shoelace(function(boundary)):.2f}", aspect="equal")
    letter = "x" if ax is axes[0] else "u"
    ax.set(xlabel=f"${letter}_1$", ylabel=f"${letter}_2$", xlim=(-2.4, 2.6), ylim=(-1.8, 1.8))
colorbar = figure.colorbar(image, ax=axes, label="scaling of areas, |det J|", shrink=0.9)
colorbar.set_ticks(range(-5, 1), labels=["1/32", "1/16", "1/8", "1/4", "1/2", "1"])
plt.show()
