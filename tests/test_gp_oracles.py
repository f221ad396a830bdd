"""Posteriors and likelihoods of GaussianProcessRegressor against other ways of computing them.

`Dense` conditions on whole matrices, in the units of the data, with covariances that JAX
differentiates automatically from the kernel in squared distances. Besides there are finite
differences of predictions, scikit-learn's own regressor, and posteriors that GPyTorch computed.

**What may be expected.** Two ways of solving with C differ by about u cond(C), u = 1.1e-16,
relative to what is solved for. Noise keeps cond(C) below 1e6 here (which is tested), so that 1e-9
leaves a factor of ten for sums over the observations.
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from sklearn import gaussian_process
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from support.oracles import jax_function

from kerneldiff import (
    Directional,
    GaussianProcessRegressor,
    Gradient,
    GradientWhiteKernel,
    Hessian,
    Laplacian,
    Observations,
    Value,
    ValueGradient,
)

jax.config.update("jax_enable_x64", True)

D = 2
TOL = 1e-9
MAX_CONDITION = 1e6

# ------------------------------------------------------------------------------- the dense oracle


@jax.custom_jvp
def _matern(s):
    t = jnp.sqrt(5 * s)
    return (1 + t + t**2 / 3) * jnp.exp(-t)


@jax.custom_jvp
def _matern_slope(s):
    t = jnp.sqrt(5 * s)
    return -5 / 6 * (1 + t) * jnp.exp(-t)


# The derivative of the square root that automatic differentiation would take is infinite at 0.
_matern.defjvp(lambda s, ds: (_matern(*s), _matern_slope(*s) * ds[0]))
_matern_slope.defjvp(
    lambda s, ds: (_matern_slope(*s), 25 / 12 * jnp.exp(-jnp.sqrt(5 * s[0])) * ds[0])
)

SCALES = np.array([0.8, 1.4])
# Name: kernel, its JAX function, the highest derivative on each side.
KERNELS = {
    "rbf": (1.3 * RBF(SCALES), None, 2),
    "rational+dot": (RationalQuadratic(1.1, alpha=0.7) + 0.5 * DotProduct(0.4), None, 2),
    "product": (RBF(SCALES) * DotProduct(0.9) + ConstantKernel(0.3), None, 2),
    "matern": (
        0.9 * Matern(SCALES, nu=2.5),
        lambda x, y: 0.9 * _matern(jnp.sum(((x - y) / SCALES) ** 2)),
        1,
    ),
}


def _jet(function, order, argument):
    """Value, gradient and Hessian of a function by one of its arguments, along a last axis."""
    derivatives = [function]
    for _ in range(order):
        derivatives.append(jax.jacfwd(derivatives[-1], argument))

    def jet(x, y):
        shape = jnp.shape(function(x, y))
        rows = [jnp.reshape(f(x, y), (*shape, -1)) for f in derivatives]
        return jnp.concatenate(rows, axis=-1)

    return jet


@cache
def _jet_covariance(name):
    """The covariance of the jets of pairs of points, from (n, 2 D) to (n, P, P), compiled."""
    kernel, function, order = KERNELS[name]
    function = function or jax_function(kernel)
    jets = _jet(_jet(function, order, 0), order, 1)
    return jax.jit(jax.vmap(lambda z: jets(z[:D], z[D:])))


# Pairs are filled up to multiples of this number: compiled once, whatever the number of points.
_PAIRS = 256


class Dense:
    """Conditioning with whole matrices, in the units of the data.

    `observed` holds (functional, values, noise variances); the prior is that of the kernel for
    (X - shift) / scale, times the square of `height`, about `mean`.
    """

    def __init__(self, name, observed, *, mean=0.0, height=1.0, shift=0.0, scale=1.0):
        self.name, self.mean, self.height = name, mean, height
        self.shift, self.scale = shift, np.broadcast_to(scale, D)
        self.functionals = [functional for functional, _, _ in observed]
        self.targets = np.concatenate([values for _, values, _ in observed])
        self.targets = self.targets - mean * self.is_value(self.functionals)
        noise = np.concatenate([np.broadcast_to(v, f.size) for f, _, v in observed])
        self.C = self.covariance(self.functionals, self.functionals) + np.diag(noise)
        self.weights = np.linalg.solve(self.C, self.targets)

    def covariance(self, rows, cols):
        """Prior covariance of lists of functionals."""
        X, Y = (np.concatenate([f.X for f in side]) for side in (rows, cols))
        pairs = np.concatenate(
            [
                np.repeat((X - self.shift) / self.scale, len(Y), axis=0),
                np.tile((Y - self.shift) / self.scale, (len(X), 1)),
            ],
            axis=1,
        )
        count = len(pairs)
        pairs = np.pad(pairs, [(0, -count % _PAIRS), (0, 0)])
        jets = np.concatenate(
            [
                np.asarray(_jet_covariance(self.name)(z))
                for z in np.split(pairs, len(pairs) // _PAIRS)
            ]
        )
        p = jets.shape[1]
        jets = jets[:count].reshape(len(X), len(Y), p, p).swapaxes(1, 2)
        jets = jets.reshape(len(X) * p, len(Y) * p)
        units = self.units()
        units = np.concatenate([np.tile(units, len(X)), np.tile(units, len(Y))])
        jets = jets * np.multiply.outer(units[: len(jets)], units[len(jets) :])
        return self.height**2 * self.matrix(rows) @ jets @ self.matrix(cols).T

    def units(self):
        """Chain rule: what derivatives by scaled columns are to be multiplied with."""
        slopes = 1 / self.scale
        parts = [[1.0], slopes, np.outer(slopes, slopes).ravel()]
        return np.concatenate(parts[: KERNELS[self.name][2] + 1])

    def matrix(self, functionals):
        """Functionals as linear combinations of jets."""
        order = KERNELS[self.name][2]
        first = 1 + np.arange(D)
        second = 1 + D + np.arange(D * D).reshape(D, D)
        unit = np.eye(1 + D + D * D)[:, : self.units().size]
        blocks = []
        for f in functionals:
            for i in range(len(f.X)):
                rows = {
                    "Value": lambda: unit[:1],
                    "Gradient": lambda: unit[first],
                    "ValueGradient": lambda: unit[: 1 + D],
                    "Directional": lambda f=f, i=i: f.V[i : i + 1] @ unit[first],
                    "Hessian": lambda: unit[second.ravel()],
                    "Laplacian": lambda: unit[second.diagonal()].sum(axis=0, keepdims=True),
                }[type(f).__name__]()
                blocks.append(rows if f.mask is None else rows[f.mask[i].ravel()])
        assert order == 2 or not any(isinstance(f, Hessian | Laplacian) for f in functionals)
        return scipy.linalg.block_diag(*blocks)

    @staticmethod
    def is_value(functionals):
        """Which entries are values, which have a mean."""
        flags = []
        for f in functionals:
            values = np.zeros(f.shape, dtype=bool)
            if isinstance(f, Value):
                values[...] = True
            elif isinstance(f, ValueGradient):
                values[:, 0] = True
            flags.append(values.ravel() if f.mask is None else values[f.mask])
        return np.concatenate(flags)

    def posterior(self, functionals):
        """Mean and covariance."""
        side = self.covariance(functionals, self.functionals)
        mean = side @ self.weights + self.mean * self.is_value(functionals)
        prior = self.covariance(functionals, functionals)
        return mean, prior - side @ np.linalg.solve(self.C, side.T)

    def log_likelihood(self):
        """Logarithm of the density of the targets."""
        n = len(self.targets)
        sign, log_determinant = np.linalg.slogdet(self.C)
        assert sign > 0
        return -0.5 * (self.targets @ self.weights + log_determinant + n * np.log(2 * np.pi))


# ------------------------------------------------------------------------------------------- data


def truth(X):
    """A smooth function, its gradients and its Hessian matrices."""
    slopes = np.array([1.1, -0.7])
    phase = X @ slopes
    value = np.sin(phase) + 0.2 * X[:, 1] ** 2
    gradient = np.cos(phase)[:, None] * slopes
    gradient[:, 1] += 0.4 * X[:, 1]
    hessian = -np.sin(phase)[:, None, None] * np.outer(slopes, slopes)
    hessian[:, 1, 1] += 0.4
    return value, gradient, hessian


def training_points(n=9, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, size=(n, D))


def _values(X, y, dy, H, alpha, alpha_gradient):
    return {"y": y}, [(Value(X), y, alpha)]


def _joint(X, y, dy, H, alpha, alpha_gradient):
    noise = np.column_stack([np.broadcast_to(alpha, len(X)), alpha_gradient])
    return {"y": y, "dy": dy}, [(ValueGradient(X), np.column_stack([y, dy]).ravel(), noise.ravel())]


def _gradients(X, y, dy, H, alpha, alpha_gradient):
    return {"y": None, "dy": dy}, [(Gradient(X), dy.ravel(), alpha_gradient.ravel())]


def known_entries(n):
    """Some points without a value, without a gradient, with a part of either."""
    known = np.ones((n, 1 + D), dtype=bool)
    known[0, 0] = known[1, 1:] = known[2, 2] = known[3, :2] = False
    return known


def _missing(X, y, dy, H, alpha, alpha_gradient):
    known = known_entries(len(X))
    table = np.where(known, np.column_stack([y, dy]), np.nan)
    noise = np.column_stack([np.broadcast_to(alpha, len(X)), alpha_gradient])
    observed = ValueGradient(X, mask=known)
    return {"y": table[:, 0], "dy": table[:, 1:]}, [(observed, table[known], noise[known])]


def _others(X, y, dy, H, alpha, alpha_gradient):
    """Values, a Hessian, a Laplacian and directional derivatives, all with noise of their own."""
    V = np.array([[0.6, -0.8], [1.0, 2.0]])
    upper = np.broadcast_to(np.triu(np.ones((D, D), dtype=bool)), (2, D, D))
    hessian = Hessian(X[:2])
    hessian.mask = upper
    noise = np.array([1e-3, 2e-3])
    items = [
        (Directional(X[2:4], V), np.sum(V * dy[2:4], axis=1), noise),
        (Laplacian(X[4:6]), np.trace(H[4:6], axis1=1, axis2=2), 2 * noise),
    ]
    given = [*items, (Hessian(X[:2]), H[:2].ravel(), np.full(2 * D * D, 4e-3))]
    observed = [(Value(X), y, alpha), *items, (hessian, H[:2][upper], np.full(6, 4e-3))]
    return {"y": y, "observations": Observations(given)}, observed


DATA = {
    "values": _values,
    "values and gradients": _joint,
    "gradients": _gradients,
    "missing entries": _missing,
    "other functionals": _others,
}


def queries(order):
    """Functionals to predict, one of whose points is a training point."""
    X = np.concatenate([training_points()[:1], np.random.default_rng(5).uniform(-2, 2, (3, D))])
    found = {
        "Value": Value(X),
        "Gradient": Gradient(X),
        "ValueGradient": ValueGradient(X),
        "Directional": Directional(X, [0.6, 0.8]),
    }
    if order == 2:
        found |= {"Hessian": Hessian(X), "Laplacian": Laplacian(X)}
    return found


def fitted(name, data, **options):
    """The regressor and the oracle, for the same data and noise."""
    X = training_points()
    rng = np.random.default_rng(2)
    alpha = rng.uniform(1e-3, 3e-3, len(X))
    alpha_gradient = rng.uniform(1e-3, 3e-3, X.shape)
    y, dy, H = truth(X)
    # What goes to the oracle is in the units of the data, alpha in those of the model.
    scale = X.std(axis=0) if options.get("scale_X") else np.ones(D)
    mean, height = 0.0, 1.0
    # Without any values there is nothing to normalize by.
    if options.get("normalize_y") and data != "gradients":
        known = y[known_entries(len(X))[:, 0]] if data == "missing entries" else y
        mean, height = known.mean(), known.std()
    model_noise = alpha * height**2, alpha_gradient * (height / scale) ** 2
    arguments, observed = DATA[data](X, y, dy, H, *model_noise)
    model = GaussianProcessRegressor(
        KERNELS[name][0],
        alpha=alpha,
        alpha_gradient=alpha_gradient,
        optimizer=None,
        **options,
    ).fit(X, **arguments)
    shift = X.mean(axis=0) if options.get("scale_X") else 0.0
    oracle = Dense(name, observed, mean=mean, height=height, shift=shift, scale=scale)
    return model, oracle


def assert_close(actual, expected, tol=TOL):
    """Errors relative to the largest entry."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tol * np.abs(expected).max())


SCALED = {"normalize_y": True, "scale_X": True}


def _cases():
    for name, (_, _, order) in KERNELS.items():
        for data in DATA:
            if order == 2 or data != "other functionals":
                yield pytest.param(name, data, {}, id=f"{name}-{data}")
            # Columns with units of their own have no Laplacian.
            if data != "other functionals":
                yield pytest.param(name, data, SCALED, id=f"{name}-{data}-scaled")


every_case = pytest.mark.parametrize(("name", "data", "options"), list(_cases()))


def asked_for(name, options):
    """All functionals that there are, as a list."""
    found = queries(KERNELS[name][2])
    if options:
        found.pop("Laplacian", None)
    return list(found.values())


@pytest.mark.quick(2)
@every_case
def test_condition_is_what_tolerances_are_made_for(name, data, options):
    _, oracle = fitted(name, data, **options)
    assert np.linalg.cond(oracle.C) < MAX_CONDITION


@every_case
def test_joint_posterior(name, data, options):
    model, oracle = fitted(name, data, **options)
    functionals = asked_for(name, options)
    mean, cov = model.predict_functional(functionals, return_cov=True)
    expected_mean, expected_cov = oracle.posterior(functionals)
    assert_close(mean, expected_mean)
    assert_close(cov, expected_cov)


@every_case
def test_variances(name, data, options):
    model, oracle = fitted(name, data, **options)
    functionals = asked_for(name, options)
    _, std = model.predict_functional(functionals, return_std=True)
    # Not the deviations: it is variances whose errors are those of the covariance.
    assert_close(std**2, oracle.posterior(functionals)[1].diagonal())


@every_case
def test_log_likelihood(name, data, options):
    model, oracle = fitted(name, data, **options)
    # It is the density of targets in the units of the model.
    change = 0.0
    if options:
        entries = oracle.matrix(oracle.functionals)
        points = entries.shape[1] // len(oracle.units())
        change = np.log(entries @ np.tile(oracle.height * oracle.units(), points)).sum()
    assert model.log_marginal_likelihood_value_ == pytest.approx(
        oracle.log_likelihood() + change, rel=TOL
    )


@every_case
def test_values_gradients_and_hessians_by_their_methods(name, data, options):
    model, oracle = fitted(name, data, **options)
    X = queries(1)["Value"].X
    n = len(X)
    mean, cov = oracle.posterior([Value(X)])
    for actual, expected in zip(model.predict(X, return_cov=True), (mean, cov), strict=True):
        assert_close(actual, expected)
    mean, cov = oracle.posterior([Gradient(X)])
    cov = np.einsum("iaib->iab", cov.reshape(n, D, n, D))
    actual_mean, actual_cov = model.predict_gradient(X, return_cov=True)
    assert_close(actual_mean, mean.reshape(n, D))
    assert_close(actual_cov, cov)
    _, std = model.predict_gradient(X, return_std=True)
    assert_close(std**2, np.einsum("iaa->ia", cov))
    if KERNELS[name][2] == 2:
        mean, cov = oracle.posterior([Hessian(X)])
        actual_mean, std = model.predict_hessian(X, return_std=True)
        assert_close(actual_mean, mean.reshape(n, D, D))
        assert_close(std**2, cov.diagonal().reshape(n, D, D))


@pytest.mark.parametrize("data", ["values", "values and gradients"])
def test_several_targets_are_one_by_one(data):
    X = training_points()
    y, dy, _ = truth(X)
    targets = np.column_stack([y, 2.0 - 3.0 * y**2])
    slopes = np.stack([dy, -6.0 * y[:, None] * dy], axis=1)
    with_gradients = data != "values"
    options = {"alpha": 1e-3, "alpha_gradient": 1e-3, "optimizer": None, **SCALED}
    model = GaussianProcessRegressor(KERNELS["rbf"][0], **options)
    model.fit(X, targets, slopes if with_gradients else None)
    points = queries(2)["Value"].X
    both = [*model.predict_gradient(points, return_std=True), model.predict_hessian(points)]
    for k in range(2):
        one = GaussianProcessRegressor(KERNELS["rbf"][0], **options)
        one.fit(X, targets[:, k], slopes[:, k] if with_gradients else None)
        single = [*one.predict_gradient(points, return_std=True), one.predict_hessian(points)]
        for actual, expected in zip(both, single, strict=True):
            assert_close(actual[:, k], expected)


def test_learnable_noise_is_the_noise_of_alpha():
    X = training_points()
    y, dy, _ = truth(X)
    kernel = KERNELS["rbf"][0]
    points = queries(2)["Value"].X
    learnable = GaussianProcessRegressor(
        kernel + WhiteKernel(2e-3) + GradientWhiteKernel(5e-3),
        alpha=0,
        alpha_gradient=0,
        optimizer=None,
    ).fit(X, y, dy)
    fixed = GaussianProcessRegressor(kernel, alpha=2e-3, alpha_gradient=5e-3, optimizer=None).fit(
        X, y, dy
    )
    assert_close(learnable.predict(points), fixed.predict(points))
    # As in scikit-learn, predicted values have the noise of the kernel, but not that of alpha.
    noisy, std = (m.predict(points, return_std=True)[1] for m in (learnable, fixed))
    assert_close(noisy**2, std**2 + 2e-3)
    for actual, expected in zip(
        learnable.predict_gradient(points, return_std=True),
        fixed.predict_gradient(points, return_std=True),
        strict=True,
    ):
        assert_close(actual, expected)


# ---------------------------------------------------------------------------- finite differences

# Fourth-order central differences: (offset, weight) in units of the step.
STENCIL = np.array([(-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)])
STEP = 1e-3
# The error of the differences is about STEP^4 = 1e-12 by the derivatives of functions with length
# scales near one, up to 1e3; and rounding is 1e-16 by the condition of C, 1e-11, over the step.
DIFFERENCE_TOL = 1e-7


def differences(function, X):
    """Derivatives of a function of points by each column, (N, ..., D)."""
    columns = [
        sum(w * function(X + c * STEP * unit) for c, w in STENCIL) / STEP for unit in np.eye(D)
    ]
    return np.stack(columns, axis=-1)


@every_case
def test_gradients_are_differences_of_means(name, data, options):
    model, _ = fitted(name, data, **options)
    X = queries(1)["Value"].X
    expected = differences(model.predict, X)
    assert_close(model.predict_gradient(X), expected, DIFFERENCE_TOL)
    assert_close(model.predict(X, return_mean_grad=True)[1], expected, DIFFERENCE_TOL)


@every_case
def test_gradients_of_std_are_its_differences(name, data, options):
    model, _ = fitted(name, data, **options)
    X = queries(1)["Value"].X
    expected = differences(lambda points: model.predict(points, return_std=True)[1], X)
    actual = model.predict(X, return_std_grad=True)[1]
    assert_close(actual, expected, DIFFERENCE_TOL)


@every_case
def test_hessians_are_differences_of_gradients(name, data, options):
    model, _ = fitted(name, data, **options)
    # Not at a training point: there the mean of a Matern kernel has three derivatives only.
    X = queries(1)["Value"].X[1:]
    expected = differences(model.predict_gradient, X)
    assert_close(model.predict_hessian(X), expected, DIFFERENCE_TOL)


@pytest.mark.quick(8)
@every_case
def test_gradient_of_likelihood_is_its_differences(name, data, options):
    model, _ = fitted(name, data, **options)
    theta = model.kernel_.theta
    _, actual = model.log_marginal_likelihood(theta, eval_gradient=True)
    expected = [
        sum(w * model.log_marginal_likelihood(theta + c * STEP * e) for c, w in STENCIL) / STEP
        for e in np.eye(len(theta))
    ]
    assert_close(actual, expected, DIFFERENCE_TOL)


# -------------------------------------------------------------------------------- scikit-learn

SKLEARN_KERNELS = {
    "default": None,
    "rbf": 2.0 * RBF([0.7, 1.5]) + WhiteKernel(1e-2),
    "rough": Matern(0.9, nu=1.5) * RationalQuadratic(2.0),
    "dot": DotProduct(0.5) ** 2 + 0.3 * Matern(0.7, nu=0.5),
}
sklearn_kernels = pytest.mark.parametrize("name", SKLEARN_KERNELS)
targets_and_options = pytest.mark.parametrize(
    ("targets", "options"),
    [(1, {}), (1, {"normalize_y": True}), (2, {"normalize_y": True})],
    ids=["plain", "normalized", "two"],
)


def both(name, targets, options):
    """The same model by scikit-learn and by us, fitted to values without an optimizer."""
    X = training_points(25, seed=4)
    y = truth(X)[0]
    y = y if targets == 1 else np.column_stack([y, y**2])
    classes = gaussian_process.GaussianProcessRegressor, GaussianProcessRegressor
    kernel = SKLEARN_KERNELS[name]
    return [c(kernel, alpha=1e-4, optimizer=None, **options).fit(X, y) for c in classes]


@sklearn_kernels
@targets_and_options
@pytest.mark.parametrize("asked", ["return_std", "return_cov"])
def test_predictions_are_those_of_sklearn(name, targets, options, asked):
    theirs, ours = both(name, targets, options)
    X = np.random.default_rng(5).uniform(-2, 2, size=(12, D))
    mean, other = ours.predict(X, **{asked: True})
    expected_mean, expected = theirs.predict(X, **{asked: True})
    assert_close(mean, expected_mean)
    power = 2 if asked == "return_std" else 1
    assert_close(other**power, expected**power)


@sklearn_kernels
@targets_and_options
def test_likelihood_is_that_of_sklearn(name, targets, options):
    theirs, ours = both(name, targets, options)
    theta = theirs.kernel_.theta
    value, gradient = ours.log_marginal_likelihood(theta, eval_gradient=True)
    expected, expected_gradient = theirs.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == pytest.approx(expected, rel=TOL)
    assert gradient.shape == expected_gradient.shape
    # Without hyperparameters there is none.
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=TOL * np.abs(expected_gradient).max(initial=1.0)
    )


@pytest.mark.parametrize("name", ["rbf", "dot"])
def test_derivatives_from_values_are_limits_of_sklearn_differences(name):
    """Mean and covariance of gradients, by differences of joint predictions of values alone."""
    kernel = {"rbf": 2.0 * RBF([0.7, 1.5]), "dot": DotProduct(0.5) ** 2 + RBF(0.7)}[name]
    X = training_points(25, seed=4)
    y = truth(X)[0]
    theirs = gaussian_process.GaussianProcessRegressor(kernel, alpha=1e-3, optimizer=None).fit(X, y)
    ours = GaussianProcessRegressor(kernel, alpha=1e-3, optimizer=None).fit(X, y)
    # The weights of both sides are 1 / step: the step is larger, as rounding grows by its square.
    step = 1e-2
    point = np.array([0.3, -0.6])
    offsets = np.concatenate([c * step * np.eye(D)[a][None] for a in range(D) for c, _ in STENCIL])
    weights = scipy.linalg.block_diag(*[STENCIL[None, :, 1] / step] * D)
    mean, cov = theirs.predict(point + offsets, return_cov=True)
    actual_mean, actual_cov = ours.predict_gradient(point[None], return_cov=True)
    # step^4 = 1e-8 by fifth derivatives of functions with length scales of 0.7; rounding is
    # 1e-16 cond(C) / step^2 = 1e-8.
    np.testing.assert_allclose(actual_mean[0], weights @ mean, rtol=0, atol=2e-6)
    np.testing.assert_allclose(actual_cov[0], weights @ cov @ weights.T, rtol=0, atol=2e-6)


# ------------------------------------------------------------------------------------- GPyTorch

GPYTORCH = Path(__file__).with_name("data") / "gpytorch.npz"
gpytorch_cases = pytest.mark.parametrize("name", ["rbf", "rbf-ard", "matern", "matern-ard"])
# Two implementations in float64, cond(C) < 1e5.
GPYTORCH_TOL = 1e-8


def gpytorch_case(name):
    """Stored arrays of a case, and our model of the same data."""
    with np.load(GPYTORCH) as file:
        arrays = {key.split("/")[1]: file[key] for key in file if key.split("/")[0] == name}
    scale = arrays["length_scale"] if len(arrays["length_scale"]) > 1 else arrays["length_scale"][0]
    base = RBF(scale) if name.startswith("rbf") else Matern(scale, nu=2.5)
    noise = float(arrays["noise"])
    model = GaussianProcessRegressor(
        ConstantKernel(float(arrays["output_scale"])) * base,
        alpha=noise,
        alpha_gradient=noise,
        optimizer=None,
    ).fit(arrays["X"], arrays["y"], arrays["dy"])
    return model, arrays


@gpytorch_cases
def test_posterior_is_that_of_gpytorch(name):
    model, arrays = gpytorch_case(name)
    query = ValueGradient(arrays["X_test"])
    mean, cov = model.predict_functional(query, return_cov=True)
    assert_close(mean.reshape(query.shape), arrays["mean"], GPYTORCH_TOL)
    assert_close(cov, arrays["cov"], GPYTORCH_TOL)


@gpytorch_cases
def test_std_is_that_of_gpytorch(name):
    model, arrays = gpytorch_case(name)
    variances = arrays["cov"].diagonal().reshape(len(arrays["X_test"]), -1)
    assert_close(
        model.predict(arrays["X_test"], return_std=True)[1] ** 2, variances[:, 0], GPYTORCH_TOL
    )
    _, std = model.predict_gradient(arrays["X_test"], return_std=True)
    assert_close(std**2, variances[:, 1:], GPYTORCH_TOL)


@gpytorch_cases
def test_likelihood_is_that_of_gpytorch(name):
    model, arrays = gpytorch_case(name)
    value, gradient = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
    assert value == pytest.approx(float(arrays["log_likelihood"]), rel=GPYTORCH_TOL)
    assert_close(gradient, arrays["log_likelihood_gradient"], GPYTORCH_TOL)
