"""Predicted gradients are as certain as they say.

Functions are drawn from the prior, jointly with their gradients at other points; a regressor with
the same kernel and noise then has to be right about them as often as it says.

**What may be expected.** Of n independent entries a share of 0.95 +- sqrt(0.95 0.05 / n) lies in a
95 % interval. The entries of one function depend on each other: were all of them worth no more
than three, 3000 functions would still give a standard error of 0.0023, a quarter of the 0.01 that
is allowed on either side.
"""

import numpy as np
import pytest
from scipy.stats import chi2, norm
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

from kerneldiff import GaussianProcessRegressor, Gradient, ValueGradient, covariance

# Points of prediction, functions for each set of points, and sets of points.
M, FUNCTIONS, DESIGNS = 10, 100, 30
NOISE, GRADIENT_NOISE = 4e-2, 9e-2
LEVEL = 0.95
KERNELS = {
    "rbf": 2.0 * RBF([0.8, 1.5, 3.0]),
    "matern": 1.5 * Matern(1.2, nu=2.5),
    "rough": Matern(1.2, nu=1.5),
    "product": RBF(1.4) * DotProduct(1.0) + ConstantKernel(0.5),
}


def drawn(kernel, functionals, rng):
    """Functions drawn from the prior, (FUNCTIONS, N, ...) for each functional."""
    C = covariance(kernel, functionals)
    # The root of a covariance matrix that rounding may have made indefinite.
    values, vectors = np.linalg.eigh(C)
    root = vectors * np.sqrt(np.maximum(values, 0))
    joint = rng.standard_normal((FUNCTIONS, len(C))) @ root.T
    parts = np.split(joint, np.cumsum([f.size for f in functionals])[:-1], axis=1)
    return [p.reshape(FUNCTIONS, *f.shape) for p, f in zip(parts, functionals, strict=True)]


def predicted(kernel, observed, n, d, rng, **options):
    """Errors of predicted gradients of functions, (M, T, D), and their covariances."""
    X, X_test = rng.uniform(-2, 2, size=(n, d)), rng.uniform(-2, 2, size=(M, d))
    known, truth = drawn(kernel, [ValueGradient(X), Gradient(X_test)], rng)
    known[..., 0] += np.sqrt(NOISE) * rng.standard_normal(known[..., 0].shape)
    known[..., 1:] += np.sqrt(GRADIENT_NOISE) * rng.standard_normal(known[..., 1:].shape)
    y = None if observed == "gradients" else known[..., 0].T
    dy = None if observed == "values" else known[..., 1:].swapaxes(0, 1)
    model = GaussianProcessRegressor(
        kernel, alpha=NOISE, alpha_gradient=GRADIENT_NOISE, optimizer=None, **options
    ).fit(X, y, dy)
    mean, std = model.predict_gradient(X_test, return_std=True)
    _, cov = model.predict_gradient(X_test, return_cov=True)
    return truth.swapaxes(0, 1) - mean, std, cov


def assert_covered(inside):
    """Whether the share that is inside is LEVEL."""
    inside = np.concatenate([np.ravel(part) for part in inside])
    assert inside.size >= 20_000
    assert LEVEL - 0.01 <= inside.mean() <= LEVEL + 0.01


@pytest.mark.quick(4)
@pytest.mark.parametrize("observed", ["values", "gradients", "both"])
@pytest.mark.parametrize("name", KERNELS)
def test_intervals_of_entries(name, observed, rng):
    limit = norm.ppf(0.5 + LEVEL / 2)
    inside = []
    for _ in range(DESIGNS):
        errors, std, _ = predicted(KERNELS[name], observed, 12, 3, rng)
        inside.append(np.abs(errors) <= limit * std)
    assert_covered(inside)


@pytest.mark.parametrize("name", KERNELS)
def test_ellipsoids_of_gradients(name, rng):
    d = 3
    inside = []
    for _ in range(DESIGNS):
        errors, _, cov = predicted(KERNELS[name], "both", 12, d, rng)
        distances = np.einsum("nta,ntab,ntb->nt", errors, np.linalg.inv(cov), errors)
        inside.append(distances <= chi2.ppf(LEVEL, d))
    assert_covered(inside)


def test_intervals_of_entries_by_rotation(rng):
    """Fewer points than dimensions, so that most directions are outside of what they span."""
    limit = norm.ppf(0.5 + LEVEL / 2)
    inside = []
    for _ in range(DESIGNS):
        kernel = 2.0 * RBF(3.0)
        errors, std, _ = predicted(kernel, "both", 5, 12, rng, solver="rotation")
        inside.append(np.abs(errors) <= limit * std)
    assert_covered(inside)
