"""The Gaussian process estimator: against scikit-learn's, dense formulas and differences."""

import copy
import io
import pickle
import tracemalloc
import warnings
from contextlib import redirect_stdout

import joblib
import numpy as np
import pytest
import scipy.linalg
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor as Theirs
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.tests._mini_sequence_kernel import MiniSeqKernel
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from kerneldiff import (
    Columns,
    Directional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    covariance,
    gaussian_process,
    kernel_matrix,
)
from kerneldiff.gaussian_process import (
    GaussianProcessRegressor,
    GradientWhiteKernel,
    Observations,
)
from kerneldiff.solvers import Cholesky

ARD = [1.0, 2.0, 1.5]
KERNELS = {
    "default": None,
    "rbf": sk.RBF(1.3),
    "ard": 1.7 * sk.RBF(ARD) + sk.WhiteKernel(0.01),
    "matern52": sk.Matern(1.2, nu=2.5),
    "matern32-ard": sk.Matern(ARD, nu=1.5) + sk.WhiteKernel(1e-3),
    "matern-any": sk.Matern(1.2, nu=1.9),
    "rational": sk.RationalQuadratic(1.1, 0.8),
    "periodic": sk.ExpSineSquared(1.2, 7.0) * sk.RBF(3.0),
    "dot": sk.DotProduct(0.7) + sk.RBF(1.0),
    "power": (sk.DotProduct(0.7) ** 2) * sk.ConstantKernel(0.3) + sk.RBF(1.0) ** 2,
    "pairwise": sk.PairwiseKernel(0.4, metric="rbf"),
    "columns": Columns(sk.RBF(1.0), [0, 2]) + Columns(sk.DotProduct(), [1]) + sk.RBF(2.0),
}
# Those with two derivatives on both sides.
SMOOTH = [name for name in KERNELS if name not in ("matern32-ard", "matern-any")]
with_kernels = pytest.mark.parametrize("name", KERNELS)


def function(X):
    return np.sin(X).sum(axis=1) + X[:, 0] * X[:, 1]


def slopes(X):
    result = np.cos(X)
    result[:, 0] += X[:, 1]
    result[:, 1] += X[:, 0]
    return result


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Matrices are too small here for threads, which only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture
def data(rng):
    X = rng.normal(size=(14, 3))
    return X, function(X), slopes(X), rng.normal(size=(5, 3))


def fitted(X, *args, **options):
    """An estimator whose hyperparameters are those given."""
    fit = {k: options.pop(k) for k in ("dy", "observations") if k in options}
    options = {"alpha": 1e-4, "alpha_gradient": 1e-3, "optimizer": None} | options
    return GaussianProcessRegressor(options.pop("kernel", None), **options).fit(X, *args, **fit)


# ------------------------------------------------------------------------------------- drop-in


def both(kernel, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the bounds of hyperparameters
        return [cls(kernel, **options).fit(*args) for cls in (GaussianProcessRegressor, Theirs)]


# With noise of 1e-4 the condition of the matrices is below 1e6, and so are differences below
# 1e6 eps, times a few.
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@with_kernels
@pytest.mark.parametrize("normalize_y", [False, True])
@pytest.mark.parametrize("targets", [1, 2])
def test_same_as_scikit_learn(name, normalize_y, targets, data):
    X, y, _, Z = data
    y = 3 + (y if targets == 1 else np.stack([y, X[:, 1]], axis=1))
    ours, theirs = both(KERNELS[name], X, y, alpha=1e-4, normalize_y=normalize_y, optimizer=None)
    for options in ({}, {"return_std": True}, {"return_cov": True}):
        got, expected = ours.predict(Z, **options), theirs.predict(Z, **options)
        for a, b in zip(got, expected, strict=True) if options else [(got, expected)]:
            np.testing.assert_allclose(a, b, **CLOSE)
    for attribute in ("X_train_", "y_train_", "alpha_", "L_", "log_marginal_likelihood_value_"):
        a, b = getattr(ours, attribute), getattr(theirs, attribute)
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)
    theta = theirs.kernel_.theta + 0.1
    got = ours.log_marginal_likelihood(theta, eval_gradient=True)
    for a, b in zip(got, theirs.log_marginal_likelihood(theta, eval_gradient=True), strict=True):
        # scikit-learn takes some gradients by differences over steps of 1e-10.
        tolerance = 1e-4 if name in ("matern-any", "pairwise") else 1e-7
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["default", "ard", "rational", "matern52"])
def test_same_optimum(name, data, rng):
    X, y, *_ = data
    y = y + 0.1 * rng.normal(size=len(y))
    ours, theirs = both(KERNELS[name], X, y, alpha=1e-2, n_restarts_optimizer=2, random_state=3)
    # L-BFGS stops at relative changes of 1e-9 of the likelihood.
    np.testing.assert_allclose(
        ours.log_marginal_likelihood_value_, theirs.log_marginal_likelihood_value_, rtol=1e-6
    )
    np.testing.assert_allclose(ours.kernel_.theta, theirs.kernel_.theta, rtol=1e-3, atol=1e-3)


def test_noise_of_each_point(data, rng):
    X, y, _, Z = data
    alpha = rng.uniform(0.01, 0.1, len(y))
    ours, theirs = both(sk.RBF(), X, y, alpha=alpha, optimizer=None)
    np.testing.assert_allclose(ours.predict(Z), theirs.predict(Z), **CLOSE)
    one = GaussianProcessRegressor(sk.RBF(), alpha=alpha[:1], optimizer=None).fit(X, y)
    assert one.alpha is not alpha[0]
    np.testing.assert_allclose(one.predict(Z), fitted(X, y, alpha=alpha[0]).predict(Z), **CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_points_of_other_types(dtype, data):
    X, y, _, Z = data
    X = (3 * X).astype(dtype)
    ours, theirs = both(sk.RBF(2.0), X, y, alpha=1e-3, optimizer=None)
    assert ours.X_train_.dtype == theirs.X_train_.dtype
    # scikit-learn divides float32 points by length scales in float32.
    tolerance = 1e-4 if dtype == "float32" else 1e-8
    np.testing.assert_allclose(ours.predict(Z), theirs.predict(Z), tolerance, tolerance)


def _classes():
    return [c for c in vars(sk).values() if isinstance(c, type) and issubclass(c, sk.Kernel)]


@with_kernels
def test_kernels_that_can_be_read_are_not_evaluated_with_gradient(name, data, monkeypatch):
    def refuse(original):
        def call(self, X, Y=None, eval_gradient=False):
            assert not eval_gradient
            return original(self, X, Y)

        return call

    for cls in _classes():
        if "__call__" in vars(cls):
            monkeypatch.setattr(cls, "__call__", refuse(cls.__call__))
    X, y, *_ = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(KERNELS[name], alpha=1e-2).fit(X, y)
    with pytest.raises(AssertionError):
        model.kernel_(X, eval_gradient=True)


class Unreadable(sk.RBF):
    """A subclass with a formula of its own, as far as anybody can see."""

    def __call__(self, X, Y=None, eval_gradient=False):
        return super().__call__(X, Y, eval_gradient)


def test_kernels_that_cannot_be_read_are_scikit_learns(data):
    X, y, dy, Z = data
    kernel = Unreadable(1.3) + sk.WhiteKernel(0.1)
    ours, theirs = both(kernel, X, y)
    np.testing.assert_array_equal(ours.predict(Z), theirs.predict(Z))
    theta = kernel.theta
    np.testing.assert_array_equal(
        ours.log_marginal_likelihood(theta, True)[1], theirs.log_marginal_likelihood(theta, True)[1]
    )
    assert ours.sample_y(Z, 3).shape == (5, 3)
    assert ours.solver_ == "cholesky"
    for call in (
        lambda: ours.predict_gradient(Z),
        lambda: ours.predict(Z, return_mean_grad=True),
        lambda: ours.predict(Z, return_std_grad=True),
        lambda: ours.sample_functional(Gradient(Z)),
        lambda: GaussianProcessRegressor(kernel).predict_hessian(Z),
        lambda: GaussianProcessRegressor(kernel).fit(X, y, dy),
        lambda: GaussianProcessRegressor(kernel, scale_X=True).fit(X, y),
    ):
        with pytest.raises(NotImplementedError, match="Unreadable"):
            call()


def test_refitting_with_another_kind_of_kernel(data):
    X, y, _, Z = data
    model = fitted(X, y, kernel=sk.RBF())
    expected = model.predict(Z)
    model.set_params(kernel=Unreadable(), scale_X=False).fit(X, y)
    np.testing.assert_allclose(model.predict(Z), expected, **CLOSE)
    model.set_params(kernel=sk.RBF()).fit(X, y)
    assert model.predict_gradient(Z).shape == (5, 3)


def test_points_that_are_not_vectors():
    X, y = ["A", "B", "C"], np.array([1.0, 2.0, 3.0])
    model = GaussianProcessRegressor(MiniSeqKernel(baseline_similarity_bounds="fixed")).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-6)
    with pytest.raises(NotImplementedError, match="MiniSeqKernel"):
        model.predict_gradient(X)


class Own(sk.StationaryKernelMixin, sk.Kernel):
    """exp(-s / 2 l²), which says how it depends on s but not on l."""

    invariant = "sqdist"

    def __init__(self, length_scale=1.0, length_scale_bounds=(1e-5, 1e5)):
        self.length_scale = length_scale
        self.length_scale_bounds = length_scale_bounds

    @property
    def hyperparameter_length_scale(self):
        return sk.Hyperparameter("length_scale", "numeric", self.length_scale_bounds)

    def jet(self, a, order):
        slope = -0.5 / self.length_scale**2
        return np.exp(slope * a) * slope ** np.arange(order + 1)[:, None]

    def __call__(self, X, Y=None, eval_gradient=False):
        return sk.RBF(self.length_scale)(X, Y, eval_gradient)

    def diag(self, X):
        return np.ones(len(X))


class OwnWithGradient(Own):
    def jet_gradient(self, a, order):
        slope = -0.5 / self.length_scale**2
        q = np.arange(order + 1)[:, None]
        jet = np.exp(slope * a) * slope**q
        return -2.0 * (slope * a + q)[None] * jet


def test_own_kernels(data):
    X, y, dy, Z = data
    expected = GaussianProcessRegressor(sk.RBF(), alpha=1e-2).fit(X, y)
    # Without derivatives by its hyperparameters it is learned by scikit-learn's evaluation.
    model = GaussianProcessRegressor(Own(), alpha=1e-2).fit(X, y)
    np.testing.assert_allclose(model.predict(Z), expected.predict(Z), rtol=1e-4)
    assert model.predict_gradient(Z).shape == (5, 3)
    with pytest.raises(NotImplementedError, match="Own has hyperparameters but no"):
        GaussianProcessRegressor(Own(), alpha=1e-2).fit(X, y, dy)
    fixed = fitted(X, y, dy=dy, kernel=Own())
    np.testing.assert_allclose(
        fixed.predict_gradient(Z),
        fitted(X, y, dy=dy, kernel=sk.RBF()).predict_gradient(Z),
        rtol=1e-8,
    )
    learned = GaussianProcessRegressor(OwnWithGradient(), alpha=1e-2).fit(X, y, dy)
    expected = GaussianProcessRegressor(sk.RBF(), alpha=1e-2).fit(X, y, dy)
    np.testing.assert_allclose(learned.kernel_.theta, expected.kernel_.theta, rtol=1e-4)


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.zeros((3, 2)), [1.0, np.nan, 0.0]),
        (np.zeros((3, 2)), None),
        (np.zeros((3, 2)), [1.0, 2.0]),
        (np.zeros((3, 2)), np.zeros((3, 1, 1))),
        (np.full((3, 2), np.nan), np.zeros(3)),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros(0)),
    ],
)
def test_same_errors(X, y):
    with pytest.raises(ValueError, match=r"\w") as theirs:
        Theirs().fit(X, y)
    with pytest.raises(ValueError, match=r"\w") as ours:
        GaussianProcessRegressor().fit(X, y)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": -1.0},
        {"alpha": "much"},
        {"optimizer": "bfgs"},
        {"kernel": "rbf"},
        {"n_restarts_optimizer": -1},
        {"kernel": sk.RBF([1.0, 1.0])},
        {"alpha": np.ones(2)},
        {"n_targets": 2},
        {"kernel": sk.WhiteKernel(1.0, (1e-3, np.inf)), "n_restarts_optimizer": 1},
    ],
)
def test_same_errors_of_parameters(options, data):
    X, y, *_ = data
    with pytest.raises(ValueError, match=r"\w") as theirs:
        Theirs(**options).fit(X, y)
    with pytest.raises(ValueError, match=r"\w") as ours:
        GaussianProcessRegressor(**options).fit(X, y)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha_gradient": -1.0},
        {"gradient_noise": "white"},
        {"solver": "cg"},
        {"max_condition": 1.0},
        {"verbose": -1},
        {"scale_X": "yes"},
    ],
)
def test_errors_of_our_parameters(options, data):
    X, y, *_ = data
    with pytest.raises(ValueError, match=f"The '{next(iter(options))}' parameter of Gaussian"):
        GaussianProcessRegressor(**options).fit(X, y)


@pytest.mark.parametrize("method", ["predict", "predict_gradient", "predict_hessian", "sample_y"])
def test_other_number_of_features(method, data):
    X, y, *_ = data
    message = "X has 2 features, but GaussianProcessRegressor is expecting 3 features as input"
    with pytest.raises(ValueError, match=message):
        getattr(fitted(X, y), method)(X[:, :2])


def test_functional_of_other_number_of_features(data):
    X, y, *_ = data
    with pytest.raises(ValueError, match="X has 2 features, but Gaussian"):
        fitted(X, y).predict_functional(Value(X[:, :2]))


@pytest.mark.parametrize("options", [{}, {"return_std": True}, {"return_cov": True}])
@pytest.mark.parametrize("n_targets", [None, 1, 2])
@pytest.mark.parametrize("name", ["default", "ard", "dot"])
def test_prior(options, n_targets, name, data):
    *_, Z = data
    ours, theirs = (
        cls(KERNELS[name], n_targets=n_targets) for cls in (GaussianProcessRegressor, Theirs)
    )
    got, expected = ours.predict(Z, **options), theirs.predict(Z, **options)
    for a, b in zip(np.atleast_1d(*got), np.atleast_1d(*expected), strict=True) if options else []:
        np.testing.assert_array_equal(a, b)


def test_prior_of_derivatives(data):
    *_, Z = data
    model = GaussianProcessRegressor(KERNELS["ard"])
    mean, std = model.predict_gradient(Z, return_std=True)
    np.testing.assert_array_equal(mean, np.zeros((5, 3)))
    np.testing.assert_allclose(std, np.sqrt(1.7) / np.tile(ARD, (5, 1)), rtol=1e-12)
    mean, cov = model.predict_gradient(Z, return_cov=True)
    np.testing.assert_allclose(cov, np.tile(np.diag(1.7 / np.square(ARD)), (5, 1, 1)), atol=1e-15)
    mean, std, slope, slope_of_std = model.predict(
        Z, return_std=True, return_mean_grad=True, return_std_grad=True
    )
    np.testing.assert_array_equal(slope, np.zeros((5, 3)))
    np.testing.assert_array_equal(slope_of_std, np.zeros((5, 3)))
    several = GaussianProcessRegressor(n_targets=2)
    assert several.predict_gradient(Z).shape == (5, 2, 3)
    assert several.predict_hessian(Z, return_std=True)[1].shape == (5, 2, 3, 3)
    assert several.sample_gradient(Z, 7).shape == (5, 2, 3, 7)


def test_callable_optimizer_and_verbose(data):
    X, y, dy, _ = data
    calls = []

    def optimizer(objective, theta, bounds):
        calls.append((objective(theta, eval_gradient=False), *objective(theta)))
        return theta, calls[-1][0]

    out = io.StringIO()
    with redirect_stdout(out):
        GaussianProcessRegressor(
            sk.RBF(), alpha=1e-3, optimizer=optimizer, n_restarts_optimizer=1, verbose=2
        ).fit(X, y, dy)
    assert len(calls) == 2
    assert calls[0][0] == pytest.approx(calls[0][1])
    assert calls[0][2].shape == (1,)
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert "run 2 of 2: log likelihood" in lines[-1]


def test_optimizer_of_a_subclass(data):
    """A usual way to set options of the optimizer."""

    class Sub(GaussianProcessRegressor):
        def _constrained_optimization(self, obj_func, initial_theta, bounds):
            return initial_theta + 0.25, 0.0

    X, y, *_ = data
    model = Sub(sk.RBF(), alpha=1e-3).fit(X, y)
    assert model.kernel_.theta == pytest.approx(0.25)


def test_copies_of_training_data(data):
    X, y, _, Z = data
    model = fitted(X, y, copy_X_train=False)
    assert model.X_train_ is X
    assert model.y_train_ is y
    model = fitted(X, y)
    expected = model.predict(Z)
    X += 1
    np.testing.assert_array_equal(model.predict(Z), expected)


@pytest.mark.parametrize("solver", ["cholesky", "rotation"])
def test_clone_pickle_joblib(solver, data, tmp_path):
    X, y, dy, Z = data
    model = fitted(X, y, dy=dy, solver=solver, kernel=sk.RBF(2.0), scale_X=True)
    expected = model.predict_gradient(Z, return_std=True)
    path = joblib.dump(model, tmp_path / "model")[0]
    for other in (pickle.loads(pickle.dumps(model)), joblib.load(path)):
        for a, b in zip(other.predict_gradient(Z, return_std=True), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert clone(model).get_params()["solver"] == solver
    assert not hasattr(clone(model), "X_train_")


def test_a_failed_fit_changes_nothing(data):
    X, y, dy, Z = data
    model = fitted(X, y, dy=dy, kernel=sk.RBF(2.0), normalize_y=True, scale_X=True)
    before = dict(vars(model))
    expected = model.predict_gradient(Z, return_std=True)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    for options, args, error in [
        ({"alpha": 0.0, "alpha_gradient": 0.0}, (X[[0, 0, 1]], y[:3], dy[:3]), "positive definite"),
        ({}, (X, y, dy[:, :2]), "dy has shape"),
        ({}, (X[:, :2], y * np.nan, dy[:, :2] * np.nan), "nothing was observed"),
        ({"kernel": sk.Matern(nu=0.5)}, (X, y, dy), "too rough"),
        ({"solver": "rotation"}, (X, y), "not exact"),
        ({"optimizer": interrupted}, (X, y), None),
    ]:
        parameters = {name: getattr(model, name) for name in options}
        with pytest.raises((ValueError, np.linalg.LinAlgError, KeyboardInterrupt), match=error):
            model.set_params(**options).fit(*args)
        model.set_params(**parameters)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is value for name, value in before.items())
        for a, b in zip(model.predict_gradient(Z, return_std=True), expected, strict=True):
            np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------- pipelines and validation


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("_routing")
def test_routing(data):
    X, y, dy, Z = data
    model = GaussianProcessRegressor(sk.RBF(2.0), alpha=1e-4, alpha_gradient=1e-3, optimizer=None)
    model.set_fit_request(dy=True, observations=True)
    extra = Observations([(Value(Z), function(Z), 1e-4)])
    pipeline = make_pipeline(FunctionTransformer(), model).fit(X, y, dy=dy, observations=extra)
    expected = fitted(X, y, dy=dy, observations=extra, kernel=sk.RBF(2.0)).predict(Z)
    np.testing.assert_array_equal(pipeline.predict(Z), expected)
    folds = KFold(3)
    scores = cross_val_score(model, X, y, cv=folds, params={"dy": dy, "observations": extra})
    expected = [
        clone(model).fit(X[a], y[a], dy[a], observations=extra).score(X[b], y[b])
        for a, b in folds.split(X)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    search = GridSearchCV(model, {"alpha_gradient": [1e-3, 1.0]}, cv=folds)
    search.fit(X, y, dy=dy, observations=extra)
    assert search.best_params_ == {"alpha_gradient": 1e-3}
    np.testing.assert_allclose(search.cv_results_["split2_test_score"][0], expected[2], rtol=1e-12)


def test_search_without_routing(data):
    X, y, dy, Z = data
    extra = Observations([(Value(Z), function(Z), 1e-4)])
    model = GaussianProcessRegressor(sk.RBF(2.0), alpha=1e-4, optimizer=None)
    search = GridSearchCV(model, {"alpha_gradient": [1e-3, 1.0]}, cv=2)
    search.fit(X, y, dy=dy, observations=extra)
    assert search.best_estimator_.observations_ is extra
    assert search.best_estimator_.dy_train_.shape == (14, 3)


def test_observations_have_no_length():
    extra = Observations([(Value([[0.0]]), [1.0])])
    for name in ("__len__", "shape", "__array__", "__iter__", "__getitem__"):
        assert not hasattr(extra, name)


# ------------------------------------------------------------------------- dense formulas


def dense(kernel, observed, targets, noise, wanted):
    """Mean and covariance by NumPy, of one functional given others."""
    C = covariance(kernel, observed) + np.diag(noise)
    K = covariance(kernel, wanted, observed)
    prior = covariance(kernel, wanted)
    return K @ np.linalg.solve(C, targets), prior - K @ np.linalg.solve(C, K.T)


def gaussian(kernel, observed, targets, noise):
    """The logarithm of the density of the targets."""
    C = covariance(kernel, observed) + np.diag(noise)
    sign, logarithm = np.linalg.slogdet(2 * np.pi * C)
    assert sign > 0
    return -0.5 * (targets @ np.linalg.solve(C, targets) + logarithm)


def missing(X, y, dy, pattern):
    """Values and gradients with holes."""
    y, dy = y.copy(), dy.copy()
    n = len(X)
    if pattern in ("gradients only", "no values"):
        y[:] = np.nan
    if pattern == "some points":
        y[::3] = np.nan
        dy[1::3] = np.nan
    if pattern == "some entries":
        dy[np.arange(n) % 2 == 0, 1] = np.nan
        y[2] = np.nan
        dy[3] = np.nan
        y[4], dy[4] = np.nan, np.nan
    return (None if pattern == "no values" else y), dy


PATTERNS = ("all", "gradients only", "no values", "some points", "some entries")
# What can be observed otherwise, with noise of its own.
OTHERS = {
    "Value": lambda Z: (Value(Z), function(Z)),
    "Gradient": lambda Z: (Gradient(Z), slopes(Z)),
    "masked": lambda Z: (
        ValueGradient(Z, mask=np.tile([True, False, True, True], (len(Z), 1))),
        np.concatenate([function(Z)[:, None], slopes(Z)], axis=1),
    ),
    "Directional": lambda Z: (Directional(Z, np.cos(Z)), (slopes(Z) * np.cos(Z)).sum(axis=1)),
    "Hessian": lambda Z: (Hessian(Z), second(Z)),
    "Laplacian": lambda Z: (Laplacian(Z), np.einsum("naa->n", second(Z))),
}


def second(X):
    H = -np.sin(X)[:, :, None] * np.eye(3)
    H[:, 0, 1] += 1
    H[:, 1, 0] += 1
    return H


WANTED = {
    "Value": Value,
    "Gradient": Gradient,
    "Directional": lambda Z: Directional(Z, [1.0, 2.0, -1.0]),
    "Hessian": Hessian,
    "Laplacian": Laplacian,
    "list": lambda Z: [Value(Z[:2]), Gradient(Z), Laplacian(Z[1:])],
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("wanted", WANTED)
def test_gradients_against_dense_formulas(pattern, wanted, data):
    X, y, dy, Z = data
    kernel = KERNELS["ard"]
    y, dy = missing(X, y, dy, pattern)
    table = np.concatenate([np.full((14, 1), np.nan) if y is None else y[:, None], dy], axis=1)
    known = ~np.isnan(table)
    noise = np.tile([1e-4, 1e-3, 1e-3, 1e-3], (14, 1))[known]
    observed = ValueGradient(X, mask=known)
    mean, cov = dense(kernel, observed, table[known], noise, WANTED[wanted](Z))
    model = fitted(X, y, dy=dy, kernel=kernel)
    got, std = model.predict_functional(WANTED[wanted](Z), return_std=True)
    np.testing.assert_allclose(got, mean, **CLOSE)
    np.testing.assert_allclose(std, np.sqrt(np.diag(cov)), rtol=1e-6, atol=1e-8)
    got, joint = model.predict_functional(WANTED[wanted](Z), return_cov=True)
    np.testing.assert_allclose(joint, cov, **CLOSE)
    np.testing.assert_allclose(
        model.log_marginal_likelihood(),
        gaussian(kernel, observed, table[known], noise),
        rtol=1e-10,
    )


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("scale_X", [False, True])
@pytest.mark.parametrize("name", ["ard", "dot"])
def test_observations_against_dense_formulas(other, scale_X, name, data):
    X, y, _, Z = data
    kernel = KERNELS[name]
    functional, values = OTHERS[other](Z)
    if other == "Laplacian" and scale_X:
        with pytest.raises(ValueError, match="Laplacian does not go with scale_X"):
            fitted(X, y, observations=[(functional, values, 0.01)], scale_X=True)
        return
    m, s = (X.mean(axis=0), X.std(axis=0)) if scale_X else (np.zeros(3), np.ones(3))
    U, W = (X - m) / s, (Z - m) / s
    scaled = {
        "Value": Value,
        "Gradient": Gradient,
        "masked": lambda W: ValueGradient(W, mask=functional.mask),
        "Directional": lambda W: Directional(W, functional.V / s),
        "Hessian": Hessian,
        "Laplacian": Laplacian,
    }[other](W)
    factor = {
        "Gradient": np.tile(s, (5, 1)),
        "masked": np.tile([1.0, *s], (5, 1)),
        "Hessian": np.tile(np.outer(s, s), (5, 1, 1)),
    }.get(other, np.ones(values.shape))
    kept = np.ones(values.shape, bool)
    if other == "masked":
        kept = functional.mask
    if other == "Hessian":
        kept &= np.triu(np.ones((3, 3), bool))
    noise = np.concatenate([np.full(14, 1e-4), (0.01 * factor**2)[kept]])
    targets = np.concatenate([y, (values * factor)[kept]])
    C = covariance(kernel, [Value(U), scaled])
    keep = np.concatenate([np.ones(14, bool), kept.ravel() if other != "masked" else kept[kept]])
    C = C[np.ix_(keep, keep)] + np.diag(noise)
    model = fitted(X, y, observations=[(functional, values, 0.01)], kernel=kernel, scale_X=scale_X)
    mean = covariance(kernel, Value((X[:4] - m) / s), [Value(U), scaled])[:, keep]
    np.testing.assert_allclose(model.predict(X[:4]), mean @ np.linalg.solve(C, targets), **CLOSE)
    expected = -0.5 * (targets @ np.linalg.solve(C, targets) + np.linalg.slogdet(2 * np.pi * C)[1])
    np.testing.assert_allclose(model.log_marginal_likelihood(), expected, rtol=1e-9)
    flat = [(functional, values[functional.mask if functional.mask is not None else ...].ravel())]
    again = fitted(X, y, observations=[(*flat[0], 0.01)], kernel=kernel, scale_X=scale_X)
    np.testing.assert_array_equal(again.predict(X[:4]), model.predict(X[:4]))


@pytest.mark.parametrize("gradient_noise", ["iid", "scaled"])
@pytest.mark.parametrize("shape", ["number", "columns", "entries"])
def test_noise_of_gradients(gradient_noise, shape, data, rng):
    X, y, dy, Z = data
    kernel = KERNELS["ard"] + GradientWhiteKernel(0.02) + GradientWhiteKernel(0.01, "fixed")
    variance = {
        "number": 0.03,
        "columns": rng.uniform(0.01, 0.1, 3),
        "entries": rng.uniform(0.01, 0.1, (14, 3)),
    }[shape]
    noise = np.full((14, 4), 1e-4)
    noise[:, 1:] = variance + 0.03
    if gradient_noise == "scaled":
        noise[:, 1:] /= np.square(ARD)
    targets = np.concatenate([y[:, None], dy], axis=1).ravel()
    mean, _ = dense(kernel, ValueGradient(X), targets, noise.ravel(), Value(Z))
    model = fitted(
        X, y, dy=dy, kernel=kernel, alpha_gradient=variance, gradient_noise=gradient_noise
    )
    np.testing.assert_allclose(model.predict(Z), mean, **CLOSE)
    expected = gaussian(kernel, ValueGradient(X), targets, noise.ravel())
    np.testing.assert_allclose(model.log_marginal_likelihood(), expected, rtol=1e-10)


@pytest.mark.parametrize("item", ["Value", "Gradient", "Directional", "Hessian"])
def test_default_noise_of_observations(item, data):
    X, y, _, Z = data
    functional, values = OTHERS[item](Z)
    variance = 1e-4 if item == "Value" else 1e-3
    a = fitted(X, y, observations=[(functional, values)])
    b = fitted(X, y, observations=[(functional, values, np.full(values.shape, variance))])
    np.testing.assert_array_equal(a.predict(Z), b.predict(Z))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_standardized_inputs_and_targets(pattern, data):
    """Options do what one would do by hand."""
    X, y, dy, Z = data
    X, Z = X * [1.0, 20.0, 0.3] + [3.0, 0.0, -5.0], Z * [1.0, 20.0, 0.3] + [3.0, 0.0, -5.0]
    y, dy = missing(X, y, dy, pattern)
    kernel = KERNELS["dot"]
    known = np.ones(14, bool) if y is None else ~np.isnan(y)
    m, s = X.mean(axis=0), X.std(axis=0)
    centre, unit = (0, 1) if y is None or not known.any() else (y[known].mean(), y[known].std())
    a = fitted(X, y, dy=dy, kernel=kernel, scale_X=True, normalize_y=True)
    b = fitted(
        (X - m) / s, None if y is None else (y - centre) / unit, dy=dy * s / unit, kernel=kernel
    )
    U = (Z - m) / s
    np.testing.assert_allclose(a.log_marginal_likelihood(), b.log_marginal_likelihood(), rtol=1e-9)
    np.testing.assert_allclose(a.dy_train_, b.dy_train_, rtol=1e-12)
    for got, expected, factor in [
        *zip(
            a.predict(Z, return_std=True, return_mean_grad=True, return_std_grad=True),
            b.predict(U, return_std=True, return_mean_grad=True, return_std_grad=True),
            (unit, unit, unit / s, unit / s),
            strict=True,
        ),
        *zip(
            a.predict_gradient(Z, return_std=True) + a.predict_gradient(Z, return_cov=True),
            b.predict_gradient(U, return_std=True) + b.predict_gradient(U, return_cov=True),
            (unit / s, unit / s, unit / s, unit**2 / np.outer(s, s)),
            strict=True,
        ),
        *zip(
            a.predict_hessian(Z, return_std=True),
            b.predict_hessian(U, return_std=True),
            2 * [unit / np.outer(s, s)],
            strict=True,
        ),
        (
            a.predict_functional(Directional(Z, X[:5]), return_cov=True)[1],
            b.predict_functional(Directional(U, X[:5] / s), return_cov=True)[1],
            unit**2,
        ),
    ]:
        offset = centre if got.ndim == 1 and got is not None and factor is unit else 0
        scale = np.abs(expected * factor).max()
        if offset and not np.allclose(got, expected * factor, rtol=1e-6, atol=1e-6 * scale):
            expected, factor = expected * factor + offset, 1.0
        np.testing.assert_allclose(got, expected * factor, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_several_targets(pattern, data):
    """Each is as if it were alone, with the likelihoods added."""
    X, y, dy, Z = data
    Y, dY = np.stack([y, 2 + 3 * X[:, 2]], 1), np.stack([dy, np.tile([0, 0, 3.0], (14, 1))], 1)
    pairs = [missing(X, Y[:, k], dY[:, k], pattern) for k in range(2)]
    Y = None if pairs[0][0] is None else np.stack([pair[0] for pair in pairs], axis=1)
    dY = np.stack([pair[1] for pair in pairs], axis=1)
    options = {"kernel": KERNELS["ard"], "normalize_y": True}
    other = Directional(Z, X[:5])
    extra = np.stack([OTHERS["Directional"](Z)[1], Z[:, 0]], axis=1)
    model = fitted(X, Y, dy=dY, observations=[(other, extra, 0.1)], **options)
    singles = [
        fitted(X, y, dy=dy, observations=[(other, extra[:, k], 0.1)], **options)
        for k, (y, dy) in enumerate(pairs)
    ]
    assert model.alpha_.shape == (len(model.L_), 2)
    theta = model.kernel_.theta + 0.1
    for a, b in zip(
        model.log_marginal_likelihood(theta, True),
        map(sum, zip(*(s.log_marginal_likelihood(theta, True) for s in singles), strict=True)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8)

    def compare(call):
        got, single = call(model), [call(s) for s in singles]
        for k, array in enumerate(got):
            expected = np.stack([s[k] for s in single], axis=-1 if array.ndim == 2 else 1)
            if array.shape[-1] == 2 and array.ndim == 3:
                expected = np.stack([s[k] for s in single], axis=-1)
            np.testing.assert_allclose(array, expected, rtol=1e-7, atol=1e-8)

    compare(lambda m: m.predict(Z, return_std=True))
    compare(lambda m: m.predict(Z, return_cov=True))
    compare(lambda m: m.predict(Z, return_mean_grad=True, return_std_grad=True)[1:])
    compare(lambda m: m.predict_gradient(Z, return_std=True))
    compare(lambda m: m.predict_gradient(Z, return_cov=True))
    compare(lambda m: m.predict_hessian(Z, return_std=True))
    compare(lambda m: m.predict_functional([Gradient(Z), Value(Z)], return_cov=True))


def test_gradients_of_one_target_with_axis(data):
    X, y, dy, Z = data
    expected = fitted(X, y, dy=dy).predict_gradient(Z)
    for a, b in [(y[:, None], dy), (y[:, None], dy[:, None]), (y, dy[:, None])]:
        np.testing.assert_array_equal(fitted(X, a, dy=b).predict_gradient(Z), expected)
    assert fitted(X, None, dy=dy[:, None]).alpha_.shape == (42, 1)


def test_nothing_of_gradients_is_values_alone(data):
    X, y, dy, Z = data
    a, b = fitted(X, y), fitted(X, y, dy=dy * np.nan)
    np.testing.assert_array_equal(a.predict(Z), b.predict(Z))
    assert a.log_marginal_likelihood_value_ == b.log_marginal_likelihood_value_


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("observed", ["values", "gradients"])
def test_predicted_derivatives_are_those_of_predictions(name, observed, data):
    X, y, dy, Z = data
    model = fitted(X, y, kernel=KERNELS[name], **({"dy": dy} if observed == "gradients" else {}))
    h = 1e-4
    *_, slope, slope_of_std = model.predict(Z, return_mean_grad=True, return_std_grad=True)
    gradient, H = model.predict_gradient(Z), model.predict_hessian(Z)
    np.testing.assert_array_equal(slope, gradient)
    for a, step in enumerate(h * np.eye(3)):
        up, down = (model.predict(Z + s, return_std=True) for s in (step, -step))
        # Third derivatives, times h² / 6, and rounding of 1e-15 κ / h.
        np.testing.assert_allclose(gradient[:, a], (up[0] - down[0]) / (2 * h), atol=3e-6)
        np.testing.assert_allclose(slope_of_std[:, a], (up[1] - down[1]) / (2 * h), atol=3e-6)
        difference = model.predict_gradient(Z + step) - model.predict_gradient(Z - step)
        np.testing.assert_allclose(H[:, a], difference / (2 * h), atol=3e-6)
    trace = model.predict_functional(Laplacian(Z))
    np.testing.assert_allclose(trace, np.einsum("naa->n", H), atol=1e-9)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_rough_kernels(nu, data):
    """Means need what the posterior has; uncertainties, what the process has."""
    X, y, dy, Z = data
    model = fitted(X, y, kernel=sk.Matern(nu=nu))
    assert np.isfinite(model.predict_gradient(Z)).all()
    h = 1e-5
    *_, slope, of_std = model.predict(Z, return_mean_grad=True, return_std_grad=True)
    for a, step in enumerate(h * np.eye(3)):
        up, down = (model.predict(Z + s, return_std=True) for s in (step, -step))
        np.testing.assert_allclose(slope[:, a], (up[0] - down[0]) / (2 * h), atol=1e-5)
        np.testing.assert_allclose(of_std[:, a], (up[1] - down[1]) / (2 * h), atol=1e-5)
    for order, call in [
        (1, lambda: model.predict_gradient(Z, return_std=True)),
        (1, lambda: model.predict_gradient(Z, return_cov=True)),
        (1, lambda: model.sample_gradient(Z)),
        (1, lambda: fitted(X, y, dy=dy, kernel=sk.Matern(nu=nu))),
        (2, lambda: model.predict_hessian(Z, return_std=True)),
    ]:
        if nu > order:
            call()
        else:
            with pytest.raises(ValueError, match="too rough for derivatives"):
                call()


def test_slope_of_std_where_that_is_zero():
    kernel = sk.DotProduct(0.0, "fixed")
    *_, slope = GaussianProcessRegressor(kernel).predict(
        np.array([[0.0], [2.0]]), return_std_grad=True
    )
    np.testing.assert_array_equal(slope, [[np.nan], [1.0]])


def test_no_points_to_predict_at(data):
    X, y, dy, Z = data
    model = fitted(X, y, dy=dy)
    mean, std = model.predict_functional(Gradient(Z[:0]), return_std=True)
    assert mean.shape == std.shape == (0,)


def test_predictions_in_pieces_are_those_at_once(data, monkeypatch):
    X, y, dy, Z = data
    model = fitted(X, y, dy=dy, kernel=KERNELS["ard"])
    wanted = [ValueGradient(X), Hessian(Z), Directional(X, Z[0])]
    expected = model.predict_functional(wanted, return_std=True)
    blocks = model.predict_gradient(X, return_cov=True)[1]
    monkeypatch.setattr("kerneldiff.solvers._BLOCK", 7 * len(model.L_))
    monkeypatch.setattr(gaussian_process, "_PIECE", 4)
    for a, b in zip(model.predict_functional(wanted, return_std=True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.predict_gradient(X, return_cov=True)[1], blocks, atol=1e-12)


# ------------------------------------------------------------------------------- likelihood


def central(call, theta, h=1e-4):
    """Derivatives by differences of fourth order."""
    steps = h * np.eye(len(theta))
    return np.array(
        [
            (8 * (call(theta + e) - call(theta - e)) - call(theta + 2 * e) + call(theta - 2 * e))
            / (12 * h)
            for e in steps
        ]
    )


@pytest.mark.parametrize("name", ["matern32-ard", *SMOOTH])
@pytest.mark.parametrize("pattern", ["all", "some entries"])
@pytest.mark.parametrize("gradient_noise", ["iid", "scaled"])
def test_likelihood_gradient(name, pattern, gradient_noise, data):
    X, y, dy, _ = data
    kernel = KERNELS[name] or sk.ConstantKernel() * sk.RBF()
    if gradient_noise == "scaled" and name in ("columns", "pairwise"):
        with pytest.raises(ValueError, match="one set of length scales"):
            fitted(X, y, dy=dy, kernel=kernel, gradient_noise="scaled")
        return
    y, dy = missing(X, y, dy, pattern)
    kernel = kernel + GradientWhiteKernel(0.02)
    model = fitted(X, y, dy=dy, kernel=kernel, gradient_noise=gradient_noise)
    theta = model.kernel_.theta + 0.05
    value, gradient = model.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == model.log_marginal_likelihood(theta)
    expected = central(model.log_marginal_likelihood, theta)
    # Rounding of the likelihood, 1e-13 of its terms of 1e3, divided by h.
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("other", OTHERS)
def test_likelihood_gradient_of_other_observations(other, data):
    X, y, _, Z = data
    extra = [(*OTHERS[other](Z), 0.01)]
    model = fitted(X, y, observations=extra, kernel=KERNELS["ard"] + GradientWhiteKernel(0.02))
    theta = model.kernel_.theta + 0.05
    gradient = model.log_marginal_likelihood(theta, eval_gradient=True)[1]
    expected = central(model.log_marginal_likelihood, theta)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["ard", "rational", "matern52", "dot"])
@pytest.mark.parametrize("observed", ["values", "gradients", "Hessian"])
def test_likelihood_gradient_with_bounded_condition(name, observed, data):
    X, y, dy, Z = data
    extra = {"gradients": {"dy": dy}, "Hessian": {"observations": [(*OTHERS["Hessian"](Z), 0.01)]}}
    model = fitted(X, y, kernel=KERNELS[name], max_condition=300.0, **extra.get(observed, {}))
    assert not np.allclose(
        model.log_marginal_likelihood(),
        fitted(X, y, kernel=KERNELS[name], **extra.get(observed, {})).log_marginal_likelihood(),
    )
    theta = model.kernel_.theta + 0.05
    gradient = model.log_marginal_likelihood(theta, eval_gradient=True)[1]
    expected = central(model.log_marginal_likelihood, theta)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


def test_learned_hyperparameters_are_at_an_optimum(data):
    X, y, dy, _ = data
    kernel = 1.0 * sk.RBF(ARD) + sk.WhiteKernel(1e-2) + GradientWhiteKernel(1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, random_state=0).fit(X, y, dy)
    theta, bounds = model.kernel_.theta, model.kernel_.bounds
    value, gradient = model.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == pytest.approx(model.log_marginal_likelihood_value_)
    inside = np.all(np.abs(theta[:, None] - bounds) > 1e-6, axis=1)
    assert inside.sum() > 3
    # Where L-BFGS stops.
    assert np.abs(gradient[inside]).max() < 2e-2
    assert value > model.log_marginal_likelihood(kernel.theta)


# ------------------------------------------------------------------------------------ samples


def test_draws_are_of_one_function(data):
    X, y, dy, Z = data
    model = fitted(X, y, dy=dy, kernel=sk.RBF(1.5))
    h = 1e-4
    ends = [Value(Z + h * np.eye(3)[0]), Value(Z - h * np.eye(3)[0]), Gradient(Z)]
    draws = model.sample_functional(ends, 20, random_state=1)
    assert draws.shape == (25, 20)
    difference = (draws[:5] - draws[5:10]) / (2 * h)
    # What is drawn is right to the root of eps, by the rounding of a singular covariance.
    np.testing.assert_allclose(difference, draws[10:].reshape(5, 3, 20)[:, 0], atol=5e-3)
    np.testing.assert_array_equal(draws, model.sample_functional(ends, 20, random_state=1))
    assert not np.array_equal(draws, model.sample_functional(ends, 20, random_state=2))


@pytest.mark.parametrize("targets", [1, 2])
def test_statistics_of_draws(targets, data):
    X, y, _, Z = data
    y = y if targets == 1 else np.stack([y, 5 * X[:, 1]], axis=1)
    model = fitted(X, y, kernel=KERNELS["ard"], normalize_y=True)
    draws = model.sample_functional([Value(Z), Gradient(Z)], 20_000, random_state=0)
    mean, cov = model.predict_functional([Value(Z), Gradient(Z)], return_cov=True)
    std = np.sqrt(np.einsum("ii...->i...", cov))
    # Five standard errors.
    np.testing.assert_allclose(draws.mean(axis=-1), mean, atol=5 * std.max() / 140)
    np.testing.assert_allclose(draws.std(axis=-1), std, rtol=5 / 200)
    slopes = model.sample_gradient(Z, 20_000)
    assert slopes.shape == ((5, 3, 20_000) if targets == 1 else (5, 2, 3, 20_000))
    expected, std = model.predict_gradient(Z, return_std=True)
    np.testing.assert_allclose(slopes.mean(axis=-1), expected, atol=5 * std.max() / 140)
    np.testing.assert_allclose(slopes.std(axis=-1), std, rtol=5 / 200)
    assert model.sample_y(Z, 4).shape == ((5, 4) if targets == 1 else (5, 2, 4))


def test_intervals_of_gradients_cover(rng):
    """95 % of 24 000 gradient entries drawn from the prior lie in their intervals of 95 %."""
    inside = []
    kernel = 1.5 * sk.RBF([0.7, 1.1])
    for seed in range(4):
        X, Z = rng.uniform(-2, 2, (15, 2)), rng.uniform(-2, 2, (100, 2))
        prior = GaussianProcessRegressor(kernel)
        draws = prior.sample_functional([ValueGradient(X), Gradient(Z)], 30, random_state=seed)
        for k, draw in enumerate(draws.T):
            table, truth = draw[:45].reshape(15, 3), draw[45:].reshape(100, 2)
            table = table + 0.1 * rng.normal(size=table.shape)
            dy = table[:, 1:] if k % 2 else None
            model = fitted(X, table[:, 0], dy=dy, kernel=kernel, alpha=0.01, alpha_gradient=0.01)
            mean, std = model.predict_gradient(Z, return_std=True)
            inside.append(np.abs(truth - mean) < 1.959964 * std)
    assert np.size(inside) == 24_000
    assert 0.94 < np.mean(inside) < 0.96


# ------------------------------------------------------------------------------------ solvers


def test_choice_of_solver(rng):
    X = rng.normal(size=(4, 30))
    y, dy = np.sin(X[:, 0]), np.zeros((4, 30))
    ard = sk.RBF(np.geomspace(3, 6, 30))
    for options, args, solver in [
        ({"kernel": sk.RBF(5.0)}, (y, dy), "rotation"),
        ({"kernel": sk.RBF(5.0)}, (y,), "cholesky"),
        ({"kernel": sk.RBF(5.0), "solver": "cholesky"}, (y, dy), "cholesky"),
        ({"kernel": ard}, (y, dy), "cholesky"),
        ({"kernel": ard, "gradient_noise": "scaled"}, (y, dy), "rotation"),
        ({"kernel": sk.RBF(5.0)}, (y, np.where(dy == 0, [np.nan] + 29 * [0.0], dy)), "rotation"),
        (
            {"kernel": sk.RBF(5.0)},
            (y, np.where(dy == 0, 26 * [np.nan] + 4 * [0.0], dy)),
            "cholesky",
        ),
    ]:
        model = GaussianProcessRegressor(**options, alpha=1e-6, alpha_gradient=1e-6, optimizer=None)
        assert model.fit(X, *args).solver_ == solver
        assert hasattr(model, "L_") == (solver == "cholesky")
    # Equal length scales will not stay so.
    kernel = sk.RBF(np.full(30, 5.0))
    model = GaussianProcessRegressor(kernel, alpha=1e-6, alpha_gradient=1e-6, solver="rotation")
    assert model.set_params(optimizer=None).fit(X, y, dy).solver_ == "rotation"
    with pytest.raises(ValueError, match=r"solver='rotation' is not exact here: .*noise"):
        model.set_params(optimizer="fmin_l_bfgs_b").fit(X, y, dy)


@pytest.mark.parametrize("gradient_noise", ["iid", "scaled"])
def test_rotation_gives_the_same(gradient_noise, rng):
    X, Z = rng.normal(size=(6, 15)), rng.normal(size=(4, 15))
    w = rng.normal(size=15) / 4
    y, dy = np.sin(X @ w), np.cos(X @ w)[:, None] * w
    scales = 4.0 if gradient_noise == "iid" else np.geomspace(3, 6, 15)
    kernel = 1.3 * sk.RBF(scales) + sk.WhiteKernel(1e-3) + GradientWhiteKernel(1e-3)
    a, b = (
        fitted(X, y, dy=dy, kernel=kernel, solver=solver, gradient_noise=gradient_noise)
        for solver in ("rotation", "cholesky")
    )
    np.testing.assert_allclose(a.alpha_, b.alpha_, rtol=1e-9, atol=1e-9)
    for call in (
        lambda m: m.predict(Z, return_std=True, return_mean_grad=True, return_std_grad=True),
        lambda m: m.predict_gradient(Z, return_std=True),
        lambda m: m.predict_gradient(Z, return_cov=True),
        lambda m: m.predict_hessian(Z, return_std=True),
        lambda m: m.predict_functional([Value(Z), Gradient(Z)], return_cov=True),
        lambda m: m.log_marginal_likelihood(kernel.theta + 0.1, eval_gradient=True),
    ):
        for got, expected in zip(call(a), call(b), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_too_large_for_memory(rng, monkeypatch):
    monkeypatch.setattr(gaussian_process, "memory_limit", lambda: 2**20)
    X = rng.normal(size=(10, 200))
    y, dy = X[:, 0], np.zeros((10, 200))
    options = {"alpha": 1e-3, "alpha_gradient": 1e-3, "optimizer": None}
    model = GaussianProcessRegressor(sk.RBF(15.0), **options, solver="cholesky")
    with pytest.raises(MemoryError, match=r"needs 0\.0301 GiB .*rotation' can do without it"):
        model.fit(X, y, dy)
    dy[0, 0] = np.nan
    assert model.set_params(solver="auto").fit(X, y, dy).solver_ == "rotation"
    model.set_params(solver="cholesky")
    with pytest.raises(MemoryError, match=r"0\.03007 GiB .*rotation' can do without it"):
        model.fit(X, y, dy)
    # Nor does it help where much is missing, or many points span all dimensions.
    dy[:, :150] = np.nan
    with pytest.raises(MemoryError, match=r"Take fewer points, or gradients"):
        model.fit(X, y, dy)
    with pytest.raises(MemoryError, match=r"Take fewer points, or gradients"):
        model.fit(X.reshape(100, 20), np.zeros(100), np.zeros((100, 20)))
    model.set_params(kernel=sk.RBF(np.geomspace(9, 15, 200)), solver="auto")
    with pytest.raises(MemoryError, match=r"0\.0009766 GiB.*rotation' .*not exact here: .*noise"):
        model.fit(X, y, np.zeros((10, 200)))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 1.3 * sk.RBF(4.0) + sk.WhiteKernel(1e-3) + GradientWhiteKernel(1e-3)},
        {
            "kernel": 1.3 * sk.RBF(np.geomspace(3, 6, 15)) + GradientWhiteKernel(1e-3),
            "gradient_noise": "scaled",
            "normalize_y": True,
        },
        {"kernel": sk.RationalQuadratic(4.0), "max_condition": 1e5, "alpha_gradient": 1e-9},
        {"kernel": sk.RBF(4.0) + 0.1 * sk.DotProduct(), "alpha": np.geomspace(1e-4, 1e-3, 7)},
        {"kernel": sk.Matern(4.0, nu=2.5), "scale_X": True, "normalize_y": True},
    ],
    ids=["noise", "scaled", "max_condition", "dot", "scale_X"],
)
@pytest.mark.parametrize("targets", [1, 2])
def test_rotation_with_missing_data_gives_the_same(options, targets, rng):
    X, Z = rng.normal(size=(7, 15)), rng.normal(size=(3, 15))
    w = rng.normal(size=(targets, 15)) / 4
    y = np.sin(X @ w.T)
    dy = np.cos(X @ w.T)[..., None] * w
    # Values, gradients, some entries, and a column; and all of a point.
    y[[1, 4]] = np.nan
    dy[[2, 4]] = dy[3, :, :9] = dy[5, :, 2] = dy[:, :, 7] = np.nan
    if targets == 1:
        y, dy = y[:, 0], dy[:, 0]
    options = {"alpha": 1e-3, "alpha_gradient": 1e-3, "optimizer": None} | options
    a, b = (
        GaussianProcessRegressor(**options, solver=solver).fit(
            X,
            y,
            dy,
            observations=[(Value(Z[:1]), np.zeros(1 if targets == 1 else (1, targets)), 1e-2)],
        )
        for solver in ("rotation", "cholesky")
    )
    assert a.alpha_.shape == b.alpha_.shape
    # Condition numbers are 1e5 at most.
    np.testing.assert_allclose(a.alpha_, b.alpha_, rtol=1e-9, atol=1e-9 * np.abs(b.alpha_).max())
    theta = a.kernel_.theta + 0.1 * (options.get("gradient_noise") == "scaled")
    for call in (
        lambda m: m.predict(Z, return_std=True, return_mean_grad=True, return_std_grad=True),
        lambda m: m.predict_gradient(Z, return_std=True),
        lambda m: m.predict_gradient(Z, return_cov=True),
        lambda m: m.predict_hessian(Z, return_std=True),
        lambda m: m.predict_functional([Value(Z), Gradient(Z)], return_cov=True),
        lambda m: m.log_marginal_likelihood(theta, eval_gradient=True),
    ):
        for got, expected in zip(call(a), call(b), strict=True):
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * scale)
    pair = [Value(Z), Gradient(Z[:1])]
    draws = [m.sample_functional(pair, n_samples=3, random_state=0).shape for m in (a, b)]
    assert draws[0] == draws[1]


def test_one_missing_entry_of_many(rng):
    # The whole matrix would take 27 GiB.
    X = rng.normal(size=(20, 3000)) / 10
    y, dy = np.sin(X).sum(axis=1), np.cos(X)
    dy[3, 1000] = np.nan
    options = {"alpha": 1e-6, "alpha_gradient": 1e-6, "optimizer": None}
    model = GaussianProcessRegressor(sk.RBF(5.0), **options).fit(X, y, dy)
    assert model.solver_ == "rotation"
    # The entry that is missing, put in as what the others predict, changes nothing.
    dy[3, 1000] = model.predict_gradient(X[3:4])[0, 1000]
    full = GaussianProcessRegressor(sk.RBF(5.0), **options).fit(X, y, dy)
    Z = rng.normal(size=(3, 3000)) / 10
    np.testing.assert_allclose(model.predict(Z), full.predict(Z), rtol=1e-8)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_one_matrix_in_memory(learned, gradients, rng):
    n = 175 if gradients else 700
    X = rng.normal(size=(n, 3))
    y, dy = X[:, 0], np.tile([1.0, 0.0, 0.0], (n, 1)) if gradients else None
    model = GaussianProcessRegressor(
        sk.RBF(2.0),
        alpha=1e-3,
        alpha_gradient=1e-3,
        optimizer=(lambda f, t, bounds: (t, f(t)[0])) if learned else None,
    )
    model.fit(X[:5], y[:5], None if dy is None else dy[:5])
    tracemalloc.start()
    try:
        model.fit(X, y, dy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.L_.shape == (700, 700)
    assert peak < 1.1 * 8 * 700**2


def test_factor_is_clean(data):
    X, y, dy, _ = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(sk.RBF(), alpha=1e-2).fit(X, y, dy)
    np.testing.assert_array_equal(model.L_, np.tril(model.L_))
    assert not hasattr(model, "_work")


def test_singular_matrices(data):
    X, y, dy, Z = data
    model = GaussianProcessRegressor(sk.RBF(2.0), alpha=0.0, alpha_gradient=0.0, optimizer=None)
    X, y, dy = X[[0, 1, 1]], y[[0, 1, 1]], dy[[0, 1, 1]]
    with pytest.raises(np.linalg.LinAlgError) as error:
        model.fit(X, y, dy)
    for part in ("'alpha'", "'alpha_gradient'", "max_condition", "ValueGradient[0] at [", "9-th"):
        assert part in str(error.value)
    assert model.set_params(max_condition=1e8).fit(X, y, dy).predict(Z).shape == (5,)
    # Values alone: scikit-learn's words.
    with pytest.raises(np.linalg.LinAlgError) as theirs:
        Theirs(sk.RBF(2.0), alpha=0.0, optimizer=None).fit(X, y)
    with pytest.raises(np.linalg.LinAlgError) as ours:
        model.set_params(max_condition=None).fit(X, y)
    assert ours.value.args[0] == theirs.value.args[0].replace("Unreadable", "RBF")


@pytest.mark.parametrize("theta", [40.0, 500.0])
def test_likelihood_where_there_is_none(theta, data):
    """The matrix is singular, or length scales have no square."""
    X, y, dy, _ = data
    model = GaussianProcessRegressor(sk.RBF(), alpha=0.0, alpha_gradient=0.0, optimizer=None)
    model.fit(X[:2], y[:2], dy[:2])
    value, gradient = model.log_marginal_likelihood([theta], eval_gradient=True)
    assert value == model.log_marginal_likelihood([theta]) == -np.inf
    np.testing.assert_array_equal(gradient, [0.0])


@pytest.mark.parametrize("kernel", [sk.RBF(3.0), 2.0 * sk.Matern(4.0, nu=2.5), sk.DotProduct()])
@pytest.mark.parametrize("max_condition", [1e3, 1e8])
@pytest.mark.parametrize("gradients", [False, True])
def test_condition_is_bounded(kernel, max_condition, gradients, data):
    X, *_ = data
    functional = ValueGradient(X) if gradients else Value(X)
    noise = np.zeros(functional.size)
    solver = Cholesky(kernel, [functional], noise, max_condition)
    C = solver.factor @ solver.factor.T
    scale = np.sqrt(np.diag(C))
    # Rounding of the product, n eps κ.
    assert np.linalg.cond(C / np.outer(scale, scale)) < max_condition * (1 + 1e-13 * max_condition)
    # No more noise than it takes.
    little = Cholesky(kernel, [functional], noise + 1e3, max_condition)
    expected = covariance(kernel, functional) + 1e3 * np.eye(functional.size)
    np.testing.assert_allclose(little.factor @ little.factor.T, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_of_gradients_do_not_matter(unit, data):
    """The factorisation is as good as that of the matrix in unit-diagonal form."""
    X, y, dy, Z = data
    options = {"alpha": 1e-12, "alpha_gradient": 1e-12}
    a = fitted(X, y, dy=dy, kernel=sk.RBF(2.0), **options)
    options["alpha_gradient"] /= unit**2
    b = fitted(X * unit, y, dy=dy / unit, kernel=sk.RBF(2.0 * unit), **options)
    # κ eps, with the condition number in unit-diagonal form of about 1e9.
    np.testing.assert_allclose(a.predict(Z), b.predict(Z * unit), rtol=1e-6)
    np.testing.assert_allclose(
        a.predict_gradient(Z), b.predict_gradient(Z * unit) * unit, rtol=1e-5
    )


def test_cholesky_after_a_gradient_of_the_likelihood(data, rng):
    """The factor's place is used for another matrix in between."""
    X, y, dy, _ = data
    functional = ValueGradient(X)
    targets = np.concatenate([y[:, None], dy], axis=1).reshape(-1, 1)
    solver = Cholesky(sk.RBF(2.0), [functional], np.full(56, 1e-3))
    weights = solver.solve(targets)
    first = solver.likelihood(targets, eval_gradient=True)
    second = solver.likelihood(targets, eval_gradient=True)
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[2], second[2])
    np.testing.assert_array_equal(solver.solve(targets), weights)
    noise = solver.noise.copy()

    def shifted(e):
        return Cholesky(sk.RBF(2.0), [functional], noise + e).likelihood(targets)

    direction = rng.uniform(0, 1e-4, 56)
    expected = (shifted(0.1 * direction) - shifted(-0.1 * direction)) / 0.2
    np.testing.assert_allclose(first[2] @ direction, expected, rtol=1e-4)


def test_warning_of_negative_variances():
    X = np.linspace(0, 1, 20)[:, None]
    model = GaussianProcessRegressor(1e5 * sk.RBF(), optimizer=None).fit(X, X[:, 0])
    with pytest.warns(UserWarning, match="Predicted variances smaller than 0"):
        _, std = model.predict(np.linspace(0, 1, 200)[:, None], return_std=True)
    assert (std >= 0).all()


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("dy", "message"),
    [
        (np.zeros((14, 2)), r"dy has shape \(14, 2\)"),
        (np.zeros((13, 3)), r"must have shape \(14, 3\)"),
        (np.zeros(14), r"dy has shape \(14,\)"),
        (np.zeros((14, 3, 1)), "dy has shape"),
        (np.zeros((14, 2, 3)), "dy has shape"),
        (np.full((14, 3), np.inf), "dy contains infinity"),
        (np.full((14, 3), "a"), "dy is of type <U1"),
        (scipy.sparse.csr_array(np.eye(14, 3)), "[Ss]parse"),
    ],
)
def test_gradients_that_do_not_fit(dy, message, data):
    X, y, *_ = data
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(X, y, dy=dy)


def test_targets_that_do_not_fit(data):
    X, y, dy, _ = data
    Y, dY = np.stack([y, y], axis=1), np.stack([dy, dy], axis=1)
    with pytest.raises(ValueError, match=r"must have shape \(14, 2, 3\)"):
        fitted(X, Y, dy=dy)
    dY[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="must be the same for all targets"):
        fitted(X, Y, dy=dY)
    with pytest.raises(ValueError, match="y contains infinity"):
        fitted(X, y * np.inf, dy=dy)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted(X, y[1:], dy=dy)
    with pytest.raises(ValueError, match="Got 1 != 2"):
        fitted(X, y, dy=dy, n_targets=2)


@pytest.mark.parametrize("y", [None, np.full(14, np.nan)])
def test_nothing_observed(y, data):
    X, _, dy, _ = data
    with pytest.raises(ValueError, match="nothing was observed"):
        fitted(X, y, dy=dy * np.nan)
    with pytest.raises(ValueError, match="nothing was observed"):
        fitted(X, y, observations=[])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": np.full(14, -1.0)}, "alpha is .* must not be negative"),
        ({"alpha": np.ones((14, 1))}, "alpha has shape"),
        ({"alpha_gradient": [-1.0, 1.0, 1.0]}, "alpha_gradient is .* must not be negative"),
        ({"alpha_gradient": np.ones(14)}, r"alpha_gradient has shape \(14,\)"),
        ({"alpha_gradient": np.full((14, 3), np.nan)}, "must not be negative"),
        ({"kernel": sk.RBF() * GradientWhiteKernel()}, "may only be added"),
        ({"kernel": sk.Matern(nu=1.0)}, "too rough"),
        ({"kernel": sk.DotProduct(), "gradient_noise": "scaled"}, "has 0"),
        ({"kernel": sk.RBF() + sk.RBF(), "gradient_noise": "scaled"}, "has 2"),
        ({"kernel": Columns(sk.RBF(), [0]), "gradient_noise": "scaled"}, "has 1 for some columns"),
        ({"solver": "rotation", "kernel": sk.RBF([1.0, 2.0, 3.0])}, "not exact here: .*noise"),
    ],
)
def test_options_that_do_not_fit(options, message, data):
    X, y, dy, _ = data
    with pytest.raises(ValueError, match=message):
        fitted(X, y, dy=dy, **options)


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([Value(np.zeros((2, 3)))], TypeError, "must be a tuple"),
        ([(np.zeros((2, 3)), [1.0, 2.0])], TypeError, "must be a tuple"),
        ([(Value(np.zeros((2, 3))), [1.0, np.nan])], ValueError, "NaN"),
        ([(Value(np.zeros((2, 3))), [1.0])], ValueError, r"must have shape \(2,\)"),
        ([(Gradient(np.zeros((2, 3))), np.zeros((3, 2)))], ValueError, "must have shape"),
        ([(Value(np.zeros((2, 3))), [1.0, 2.0], -1.0)], ValueError, "not negative"),
        ([(Value(np.zeros((2, 3))), [1.0, 2.0], [1.0])], ValueError, "noise of Value has shape"),
        ([(Value(np.zeros((2, 2))), [1.0, 2.0])], ValueError, "X has 2 features"),
        ([(Hessian(np.zeros((1, 3))), np.tri(3)[None])], ValueError, "not symmetric"),
        (5, TypeError, "observations is of type int"),
    ],
)
def test_observations_that_do_not_fit(items, error, message, data):
    X, y, *_ = data
    with pytest.raises(error, match=message):
        fitted(X, y, observations=items)


def test_observations_with_noise_of_arrays(data):
    X, y, _, Z = data
    items = [(Gradient(Z), slopes(Z))]
    with pytest.raises(ValueError, match="Gradient in observations has no noise"):
        fitted(X, y, observations=items, alpha_gradient=np.ones((14, 3)))
    with pytest.raises(ValueError, match="Value in observations has no noise"):
        fitted(X, y, observations=[(Value(Z), function(Z))], alpha=np.ones(14))
    fitted(X, y, observations=items, alpha=np.ones(14), alpha_gradient=[1.0, 2.0, 3.0])


def test_constant_targets(data):
    X, _, dy, Z = data
    model = fitted(X, np.full(14, 7.0), dy=0 * dy, normalize_y=True, alpha=1e-8)
    np.testing.assert_allclose(model.predict(Z), 7.0)
    np.testing.assert_allclose(model.predict_gradient(Z), 0.0, atol=1e-12)


def test_duplicated_points(data):
    X, y, dy, Z = data
    twice = fitted(np.r_[X, X], np.r_[y, y], dy=np.r_[dy, dy], alpha=2e-3, alpha_gradient=4e-3)
    once = fitted(X, y, dy=dy, alpha=1e-3, alpha_gradient=2e-3)
    np.testing.assert_allclose(twice.predict(Z), once.predict(Z), rtol=1e-8)


def test_one_of_std_and_cov(data):
    X, y, _, Z = data
    model = fitted(X, y)
    for method in (model.predict, model.predict_gradient):
        with pytest.raises(RuntimeError, match="At most one of return_std or return_cov"):
            method(Z, return_std=True, return_cov=True)


def test_gradient_white_kernel(data):
    X, *_ = data
    kernel = GradientWhiteKernel(2.0, (1e-3, 1e3))
    np.testing.assert_array_equal(kernel(X), np.zeros((14, 14)))
    np.testing.assert_array_equal(kernel(X, X[:2]), np.zeros((14, 2)))
    _, gradient = kernel(X, eval_gradient=True)
    assert gradient.shape == (14, 14, 1)
    assert GradientWhiteKernel(2.0, "fixed")(X, eval_gradient=True)[1].shape == (14, 14, 0)
    np.testing.assert_array_equal(kernel.diag(X), np.zeros(14))
    assert kernel.theta == pytest.approx(np.log(2))
    assert clone(kernel) == kernel
    assert repr(kernel) == "GradientWhiteKernel(noise_level=2)"
    assert kernel.is_stationary()
    np.testing.assert_array_equal(
        covariance(sk.RBF() + kernel, ValueGradient(X)), covariance(sk.RBF(), ValueGradient(X))
    )
    # Values alone: scikit-learn's estimator may have it, too.
    ours, theirs = both(sk.RBF() + kernel, X, X[:, 0], alpha=1e-3)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4)


# --------------------------------------------------------------------------------------------------
# Saving
# --------------------------------------------------------------------------------------------------


def sizes_of_arrays(o, seen):
    """Bytes of all arrays that an object refers to, each memory once, by its owner's id."""
    if id(o) in seen:
        return
    seen[id(o)] = (o, 0)
    if isinstance(o, np.ndarray):
        while isinstance(o.base, np.ndarray):
            o = o.base
        seen[id(o)] = (o, o.nbytes)
    elif isinstance(o, dict | list | tuple):
        for part in o.values() if isinstance(o, dict) else o:
            sizes_of_arrays(part, seen)
    elif hasattr(o, "__dict__") and not isinstance(o, type):
        sizes_of_arrays(vars(o), seen)


def memory_of(model):
    seen = {}
    sizes_of_arrays(model, seen)
    return sum(size for _, size in seen.values())


def out_of_band(model):
    buffers = []
    content = pickle.dumps(model, 5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=buffers)


saved_models = {
    "values": ({}, "values"),
    "scaled": ({"scale_X": True, "normalize_y": True}, "values"),
    "targets": ({"max_condition": 1e8}, "targets"),
    "gradients": ({"solver": "cholesky"}, "gradients"),
    "missing": ({}, "missing"),
    "rotation": ({"solver": "rotation"}, "gradients"),
    "rotation, scaled": ({"solver": "rotation", "scale_X": True}, "gradients"),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", saved_models)
def test_each_array_is_saved_once(name, rng, tmp_path):
    """All ways to copy a model give the same predictions from the same amount of memory."""
    options, kind = saved_models[name]
    X, Z = rng.normal(size=(30, 40)), rng.normal(size=(3, 40))
    y, dy = np.sin(X[:, 0]), np.zeros((30, 40))
    dy[:, 0] = np.cos(X[:, 0])
    if kind == "missing":
        dy[:10] = np.nan
    if kind == "targets":
        y = np.c_[y, y**2]
    model = GaussianProcessRegressor(sk.RBF(5.0), alpha=1e-3, optimizer=None, **options)
    model.fit(X, y, dy if kind in ("gradients", "missing") else None)

    def results(m):
        return [
            *m.predict(Z, return_std=True),
            *m.predict_gradient(Z, return_std=True),
            *m.log_marginal_likelihood(m.kernel_.theta, eval_gradient=True),
        ]

    # First, as solvers keep what predictions have needed.
    expected, before = results(model), memory_of(model)
    path = joblib.dump(model, tmp_path / "model")[0]
    copies = {
        "joblib": joblib.load(path),
        "mapped": joblib.load(path, mmap_mode="r"),
        "pickle": pickle.loads(pickle.dumps(model)),
        "out of band": out_of_band(model),
        "deep copy": copy.deepcopy(model),
        "copy": copy.copy(model),
    }
    for way, other in copies.items():
        # The little that the rotation solver has twice is the points in its few coordinates.
        assert memory_of(other) <= 1.01 * before, way
        for got, value in zip(results(other), expected, strict=True):
            np.testing.assert_array_equal(got, value, err_msg=way)


@pytest.mark.parametrize("options", [{}, {"normalize_y": True}, {"solver": "cholesky"}], ids=str)
@pytest.mark.parametrize("shape", [(200, 3), (60, 400)])
def test_files_are_as_small_as_theirs(options, shape, rng, tmp_path):
    X = rng.normal(size=shape)
    y = np.sin(X[:, 0])
    ours = fitted(X, y, kernel=sk.RBF(2.0), **options)
    options = {k: v for k, v in options.items() if k != "solver"}
    theirs = Theirs(sk.RBF(2.0), alpha=1e-3, optimizer=None, **options).fit(X, y)
    size, theirs_size = (
        sum(
            map(len, (pickle.dumps(m), (tmp_path / joblib.dump(m, tmp_path / "m")[0]).read_bytes()))
        )
        for m in (ours, theirs)
    )
    assert size <= 1.05 * theirs_size


# --------------------------------------------------------------------------------------------------
# Line searches that end as abnormal
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [0.0, 0.1])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("targets", [1, 2])
def test_abnormal_line_search(away, gradients, targets, data, monkeypatch):
    """It is a cause for a warning unless the optimum has been reached to rounding."""
    X, y, dy, _ = data
    minimize = gaussian_process.scipy.optimize.minimize

    def abnormal(function, start, **options):
        result = minimize(function, start, **{**options, "options": {"ftol": 0, "gtol": 1e-7}})
        result.x = result.x + away
        result.status, result.message = 2, "ABNORMAL: "
        return result

    monkeypatch.setattr(gaussian_process.scipy.optimize, "minimize", abnormal)
    if targets == 2:
        y, dy = np.c_[y, 2 * y], np.stack([dy, 2 * dy], axis=1)
    kernel = sk.ConstantKernel(1.0) * sk.RBF(2.0)
    model = GaussianProcessRegressor(kernel, alpha=1e-6, alpha_gradient=1e-6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y, dy if gradients else None)
    said = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert any("ABNORMAL" in text for text in said) == bool(away)


def test_rounding_level_of_the_likelihood(data):
    """It is above what the likelihood really varies by, and not by orders of magnitude."""
    X, y, dy, _ = data
    model = GaussianProcessRegressor(sk.RBF(2.0), alpha=1e-9, alpha_gradient=1e-9, optimizer=None)
    model.fit(X, y, dy)
    theta = model.kernel_.theta
    # Changes of a few roundings of theta change the likelihood by its errors.
    noise = [
        float(model.log_marginal_likelihood(theta + 4 * k * np.spacing(theta))) for k in range(40)
    ]
    slope = abs(model.log_marginal_likelihood(theta, eval_gradient=True)[1][0])
    moved = slope * 160 * np.spacing(theta)[0]
    level = model._likelihood_error(theta)
    assert np.ptp(noise) / 2 - moved <= level
    assert level <= 1e3 * max(np.std(noise), np.spacing(abs(noise[0])))


def test_advice_for_values_that_do_not_fit(rng, monkeypatch):
    """It speaks of nothing that values alone do not have."""
    monkeypatch.setattr(gaussian_process, "memory_limit", lambda: 2**20)
    X = rng.normal(size=(500, 2))
    with pytest.raises(MemoryError, match=r"500 observations.*Take fewer points") as caught:
        GaussianProcessRegressor(sk.RBF()).fit(X, X[:, 0])
    assert "gradient" not in str(caught.value)
    assert "rotation" not in str(caught.value)
    # More points than columns: rotation has nothing to rotate away.
    with pytest.raises(MemoryError, match="Take fewer points, or gradients") as caught:
        GaussianProcessRegressor(sk.RBF(), solver="cholesky").fit(X, X[:, 0], np.zeros((500, 2)))
    assert "rotation" not in str(caught.value)


@pytest.mark.parametrize("metric", ["laplacian", "chi2", "cosine"])
def test_advice_for_metrics(metric, rng):
    X = rng.uniform(size=(6, 2))
    kernel = sk.PairwiseKernel(gamma=0.7, metric=metric)
    with pytest.raises(NotImplementedError, match=f"metric='{metric}'") as caught:
        GaussianProcessRegressor(kernel).fit(X, X[:, 0], X)
    # None of them is a function of the invariants.
    assert "`jet`" not in str(caught.value)
    if metric == "laplacian":
        assert "Columns(Matern(1 / gamma, nu=0.5), [a])" in str(caught.value)
        parts = [Columns(sk.Matern(1 / 0.7, nu=0.5), [a]) for a in range(2)]
        np.testing.assert_allclose(kernel_matrix(parts[0] * parts[1], X), kernel(X), rtol=1e-14)
