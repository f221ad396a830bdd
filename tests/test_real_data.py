"""Real data: what gradients are worth, and that predicted derivatives are right.

On the small extracts in data/, whose README names sources and licences; the examples do the same on
the full sets. Real data allow of no error analysis: that 50 airfoils with gradients are as good as
200 without, to 5 per cent, is a requirement, and the other bounds leave a quarter or more to what
was found.
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

from kerneldiff import (
    Columns,
    GaussianProcessRegressor,
    GradientWhiteKernel,
    RBFInterpolator,
    TanhRegressor,
    tanh_jacobian,
)

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


@pytest.mark.exhaustive
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


# -------------------------------------------------------------------------------------- Seattle


def seattle():
    """Days (365, 1) and their mean temperatures."""
    data = load("seattle")
    return data["day"][:, None], data["temperature"]


def tanh_model(n_components):
    return TanhRegressor(
        n_components, alpha=0.1, tol=1e-6, max_iter=1000, n_restarts=9, random_state=0
    )


@pytest.mark.parametrize(("n_components", "within"), [(3, 0.25), (10, 0.12)])
def test_tanh_functions_draw_the_course_of_a_year(n_components, within):
    """To 0.25 °C with three functions, of temperatures from 4 to 19 °C."""
    X, y = seattle()
    model = tanh_model(n_components).fit(X, y)
    # The sum of functions, written out.
    slopes, biases = model.weights_
    drawn = model.intercept_ + np.tanh(X * slopes + biases) @ model.coef_
    assert rmse(drawn, y) < within
    # Sums of numbers of up to 100, each good to some roundings.
    np.testing.assert_allclose(model.predict(X), drawn, rtol=0, atol=1e-12)


def test_change_of_the_temperature():
    """The derivative of the fit, against differences of it, and of the data over two weeks."""
    X, y = seattle()
    model = tanh_model(10).fit(X, y)
    slope = model.predict_gradient(X)[:, 0]
    h = 1 / 8
    differences = sum(
        weight * (model.predict(X + i * h) - model.predict(X - i * h)) / (60 * h)
        for i, weight in ((1, 45), (2, -9), (3, 1))
    )
    # Of sixth order: h^6 / 140 times a seventh derivative, 1e5 slope^7 for slopes below 0.2 a day,
    # times coefficients of a few degrees; and roundings of 1e-14 over h.
    np.testing.assert_allclose(slope, differences, rtol=0, atol=1e-8)
    weeks = slice(7, -7)
    assert rmse(slope[weeks], (y[14:] - y[:-14]) / 14) < 0.02
    assert np.abs(slope).max() > 0.1


def test_nothing_is_left_that_other_slopes_and_biases_would_take():
    """Residuals are orthogonal to the derivatives of the fit by the weights."""
    X, y = seattle()
    model = tanh_model(3).fit(X, y)
    residual = model.predict(X) - y
    derivatives = (tanh_jacobian(X, model.weights_) * model.coef_).reshape(len(X), -1)
    cosines = residual @ derivatives
    cosines /= np.linalg.norm(residual) * np.linalg.norm(derivatives, axis=0)
    # The gradient is below 1e-6 of the sum of squared deviations, which is 600 times that of the
    # residuals; derivatives by standardized weights are of the norm of 5 to 100 deviations.
    assert np.abs(cosines).max() < 1e-3


# ------------------------------------------------------------------------------------ Jacksboro


def jacksboro():
    """Points (4096, 2) in km, elevations in m (64, 64), and its coordinates east and north."""
    data = load("jacksboro")
    points = np.stack(np.meshgrid(data["east"], data["north"]), axis=-1).reshape(-1, 2)
    return points, data["elevation"], data["east"], data["north"]


def terrain_model(neighbors=None):
    """From a quarter of the points."""
    points, elevation, _, _ = jacksboro()
    some = np.random.default_rng(0).permutation(elevation.size)[: elevation.size // 4]
    return RBFInterpolator(
        points[some], elevation.ravel()[some], neighbors, smoothing=1e-3, kernel="cubic"
    )


# Away from the edges, of which the interpolant knows one side only.
INSIDE = (slice(3, -3), slice(3, -3))


@pytest.mark.parametrize("neighbors", [None, 30])
def test_slope_of_terrain(neighbors):
    """Within 3.6° of central differences of the grid, where slopes vary by 5.8° and reach 40°."""
    points, elevation, east, north = jacksboro()
    by_east, by_north = np.gradient(elevation, east, axis=1), np.gradient(elevation, north, axis=0)
    expected = np.rad2deg(np.arctan(np.hypot(by_east, by_north) / 1e3))
    gradient = terrain_model(neighbors).gradient(points) / 1e3
    slope = np.rad2deg(np.arctan(np.linalg.norm(gradient, axis=1))).reshape(elevation.shape)
    assert rmse(slope[INSIDE], expected[INSIDE]) < 3.6
    assert np.corrcoef(slope[INSIDE].ravel(), expected[INSIDE].ravel())[0, 1] > 0.85


@pytest.mark.parametrize("neighbors", [None, 30])
def test_curvature_of_terrain(neighbors):
    """Within 1.5 / km of differences of differences, where it varies by 2.3 / km."""
    points, elevation, east, north = jacksboro()
    expected = sum(
        np.gradient(np.gradient(elevation, axis, axis=number), axis, axis=number)
        for number, axis in ((1, east), (0, north))
    )
    curvature = terrain_model(neighbors).laplacian(points).reshape(elevation.shape)
    curvature, expected = curvature[INSIDE] / 1e3, expected[INSIDE] / 1e3
    assert rmse(curvature, expected) < 1.5
    assert np.corrcoef(curvature.ravel(), expected.ravel())[0, 1] > 0.8


def test_derivatives_of_the_interpolant_are_its_own():
    """Against differences of sixth order, between the points of the grid, where it is smooth."""
    points, _, _, _ = jacksboro()
    model = terrain_model()
    between = points[200:3800:90] + np.array([0.037, 0.046])
    h = 2.0**-9
    gradient, hessian = model.gradient(between), model.hessian(between)
    weights = ((1, 45), (2, -9), (3, 1))
    for a, step in enumerate(h * np.eye(2)):
        first, second = (
            sum(w * (f(between + i * step) - f(between - i * step)) for i, w in weights) / (60 * h)
            for f in (model, model.gradient)
        )
        # The nearest center is 0.059 away: h^6 of a seventh derivative is (h / 0.059)^6 = 1e-9 of
        # the first, and less as there are others. Sums of terms of up to 1e5 m lose 1e-11 m, which
        # is 1e-8 m/km over h.
        np.testing.assert_allclose(gradient[:, a], first, rtol=0, atol=1e-7 * np.abs(first).max())
        np.testing.assert_allclose(hessian[:, a], second, rtol=0, atol=1e-7 * np.abs(second).max())
    np.testing.assert_allclose(
        model.laplacian(between),
        np.einsum("qaa->q", hessian),
        rtol=0,
        atol=1e-10 * np.abs(hessian).max(),
    )
