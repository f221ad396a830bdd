"""Real data: what gradients are worth, and that predicted derivatives are right.

On the small extracts in data/, whose README names sources and licences; the examples do the same on
the full sets. Real data allow of no error analysis: that 50 airfoils with gradients are as good as
200 without, to 5 per cent, is a requirement, and the other bounds leave a third or more to what was
found.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    ExpSineSquared,
    Matern,
    WhiteKernel,
)
from sklearn.model_selection import KFold, cross_val_score
from threadpoolctl import threadpool_limits

from kerneldiff import Columns, GaussianProcessRegressor, GradientWhiteKernel

# A column that does not matter has a length scale at its upper bound, data without noise have noise
# at its lower one, and there the line search may end at the rounding of the likelihood. What counts
# here is what the models predict.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DATA = Path(__file__).with_name("data")


@pytest.fixture(autouse=True)
def _one_thread_of_blas():
    """Where all processors are busy, many small factorisations by several threads take for ever."""
    with threadpool_limits(1, "blas"):
        yield


def load(name):
    """Arrays of an extract in float64."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key].astype(np.float64) for key in file}


def rmse(actual, expected, axis=None):
    return np.sqrt(np.mean((actual - expected) ** 2, axis=axis))


# ------------------------------------------------------------------------------------- airfoils


def airfoils():
    """Points, logarithm of the drag, and its gradients at the first 150 points."""
    data = load("airfoils")
    return data["X"], np.log(data["y"]), data["dy"] / data["y"][: len(data["dy"]), None]


def airfoil_model(**options):
    kernel = ConstantKernel(10.0, (1e-2, 1e5)) * Matern(np.full(16, 10.0), (1.0, 1e4), nu=2.5)
    return GaussianProcessRegressor(
        kernel, alpha=1e-6, alpha_gradient=1e-6, normalize_y=True, scale_X=True, **options
    )


def test_50_airfoils_with_gradients_are_worth_200_without():
    X, y, dy = airfoils()
    with_gradients, without = [], []
    for split in range(5):
        rng = np.random.default_rng(split)
        enhanced = rng.permutation(len(dy))[:50]
        others = rng.permutation(np.setdiff1d(np.arange(len(X)), enhanced))
        plain, held_out = np.concatenate([enhanced, others[:150]]), others[150:]
        for errors, rows, slopes in [
            (with_gradients, enhanced, dy[enhanced]),
            (without, plain, None),
        ]:
            model = airfoil_model().fit(X[rows], y[rows], slopes)
            errors.append(rmse(np.exp(model.predict(X[held_out])), np.exp(y[held_out])))
    assert np.mean(with_gradients) <= 1.05 * np.mean(without)


def test_units_of_columns_do_not_matter():
    X, y, dy = airfoils()
    rows = np.arange(25)
    # Degrees to radians, and others of very different sizes.
    units = np.geomspace(1e-4, 1e3, 16)
    model = airfoil_model(optimizer=None)
    expected = model.fit(X[rows], y[rows], dy[rows]).predict_gradient(X[30:40])
    model.fit(X[rows] * units, y[rows], dy[rows] / units)
    actual = model.predict_gradient(X[30:40] * units) * units
    # Rounding of the points, of a relative 1e-16, times the condition of 1e6 that the noise leaves.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


# ---------------------------------------------------------------------------------- engine deck


def engine_deck():
    """Points, thrust and logarithm of the consumption, and their gradients."""
    data = load("engine_deck")
    X, y, dy = data["X"], data["y"], data["dy"]
    targets = np.column_stack([y[:, 0], np.log(y[:, 1])])
    return X, targets, np.stack([dy[:, 0], dy[:, 1] / y[:, 1:]], axis=1)


def engine_model(gradients):
    kernel = ConstantKernel(10.0, (1e-2, 1e5)) * Matern(np.full(3, 3.0), (1e-1, 1e3), nu=2.5)
    kernel += WhiteKernel(1e-4, (1e-6, 1.0))
    if gradients:
        kernel += GradientWhiteKernel(1e-3, (1e-6, 1e2))
    return GaussianProcessRegressor(kernel, normalize_y=True, scale_X=True)


def test_gradients_of_two_outputs_help_both():
    X, y, dy = engine_deck()
    errors = {True: [], False: []}
    for split in range(3):
        order = np.random.default_rng(split).permutation(len(X))
        rows, held_out = order[:60], order[60:]
        for gradients, each in errors.items():
            model = engine_model(gradients).fit(X[rows], y[rows], dy[rows] if gradients else None)
            each.append(rmse(model.predict(X[held_out]), y[held_out], axis=0))
    assert (np.mean(errors[True], axis=0) < 0.75 * np.mean(errors[False], axis=0)).all()


def test_slopes_that_were_not_observed_are_predicted():
    """Without the derivatives by the throttle, which are NaN, they follow from all else."""
    X, y, dy = engine_deck()
    order = np.random.default_rng(0).permutation(len(X))
    rows, held_out = order[:60], order[60:]
    partly = dy[rows].copy()
    partly[..., 2] = np.nan
    model = engine_model(True).fit(X[rows], y[rows], partly)
    slopes = model.predict_gradient(X[held_out])[:, 0, 2]
    assert rmse(slopes, dy[held_out, 0, 2]) < 0.3 * dy[:, 0, 2].std()


def test_cross_validation_takes_the_gradients_of_each_fold():
    some = np.random.default_rng(0).permutation(1056)[:120]
    X, y, dy = (a[some] for a in engine_deck())
    folds = KFold(4, shuffle=True, random_state=0)
    with config_context(enable_metadata_routing=True):
        with_gradients = cross_val_score(
            engine_model(True).set_fit_request(dy=True), X, y, cv=folds, params={"dy": dy}
        )
        without = cross_val_score(engine_model(False), X, y, cv=folds)
    # Both are R^2: it is what is left of the variance that counts.
    assert np.mean(1 - with_gradients) < 0.7 * np.mean(1 - without)


# ------------------------------------------------------------------------------- copper cluster


def cluster_model(solver="auto", **options):
    kernel = ConstantKernel(10.0, (1e-2, 1e5)) * RBF(1.0, (1e-1, 1e2))
    return GaussianProcessRegressor(
        kernel, alpha=1e-8, alpha_gradient=1e-6, normalize_y=True, solver=solver, **options
    )


def test_forces_tell_the_energies_between_snapshots():
    data = load("copper_cluster")
    X, y, dy = data["X"], data["y"], data["dy"]
    known, between = np.arange(0, 40, 2), np.arange(1, 38, 2)
    with_forces = cluster_model().fit(X[known], y[known], dy[known])
    without = cluster_model().fit(X[known], y[known])
    assert with_forces.solver_ == "rotation"
    assert without.solver_ == "cholesky"
    error = rmse(with_forces.predict(X[between]), y[between])
    assert error < 0.1 * rmse(without.predict(X[between]), y[between])
    forces = with_forces.predict_gradient(X[between])
    assert rmse(forces, dy[between]) < 0.15 * dy.std()


@pytest.mark.parametrize("asked", ["predict", "predict_gradient"])
def test_rotation_of_the_cluster_is_exact(asked):
    data = load("copper_cluster")
    X, y, dy = data["X"], data["y"], data["dy"]
    known, between = np.arange(0, 40, 2), np.arange(1, 38, 2)
    results = []
    for solver in ("rotation", "cholesky"):
        model = cluster_model(solver, optimizer=None).fit(X[known], y[known], dy[known])
        mean, std = getattr(model, asked)(X[between], return_std=True)
        results.append((mean, std**2))
    # Noise of 1e-8 leaves a condition of up to 1e10, and of the variances, which are differences of
    # numbers near 1, an absolute error of 1e-6 of that.
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# ------------------------------------------------------------------------------------ Mauna Loa


def test_growth_of_co2_is_that_of_annual_means():
    """The derivative of the trend, averaged, against differences of means of the data alone."""
    data = load("mauna_loa")
    t, y = data["t"], data["y"]
    trend = ConstantKernel(2500.0, (1e2, 1e6)) * RBF(50.0, (5.0, 300.0))
    years = ConstantKernel(0.25, (1e-3, 1e2)) * Matern(0.6, (0.3, 10.0), nu=2.5)
    fading = ConstantKernel(7.5, (1e-1, 1e2)) * RBF(100.0, (10.0, 1e3))
    season = ExpSineSquared(1.5, 1.0, periodicity_bounds="fixed")
    kernel = (
        Columns(trend + years, [0])
        + Columns(fading, [0]) * Columns(season, [1])
        + WhiteKernel(0.05, (1e-4, 1.0))
    )
    X = np.column_stack([t, t])
    model = GaussianProcessRegressor(kernel, alpha=0.0).fit(X, y - y.mean())
    # The season of a year, by the derivative with respect to its own time, is none on average.
    full = [year for year in range(43) if np.sum(np.floor(t) == year) == 12]
    means = {year: y[np.floor(t) == year].mean() for year in full}
    pairs = [year for year in full if year + 1 in means]
    assert len(pairs) > 30
    # A difference of means of two years in turn is the growth, weighted with a triangle.
    offsets = (np.arange(48) + 0.5) / 24
    weights = np.minimum(offsets, 2 - offsets) / 24
    errors, stds = [], []
    for year in pairs:
        points = np.column_stack([year + offsets] * 2)
        growth, std = model.predict_gradient(points, return_std=True)
        errors.append(weights @ growth[:, 0] - (means[year + 1] - means[year]))
        stds.append(std[:, 0].mean())
    # Monthly noise of 0.2 ppm makes 0.08 of the difference of two means of twelve.
    assert rmse(np.array(errors), 0.0) < 0.1
    # Between what a year's difference is known to and what growth varies by.
    assert 0.2 < np.mean(stds) < 1.0
