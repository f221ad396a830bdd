"""Displays: what they draw is what the library computes, where and how it was asked for."""

import json
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor as SklearnRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from support.processes import run_python

import kerneldiff
from kerneldiff import GaussianProcessRegressor, TanhBasis, TanhRegressor
from kerneldiff.plot import (
    GaussianProcessDisplay,
    JacobianDisplay,
    KernelMatrixDisplay,
    SensitivityDisplay,
    SpeedupDisplay,
)

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

# The widths of intervals that hold 95 % of a normal distribution, from its quantile.
WIDTH = 1.959963984540054


@pytest.fixture(autouse=True)
def _clean():
    """No figure and no setting is left to the next test."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
    plt.close("all")


def rendered(figure):
    """The picture, as numbers from 0 to 255."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def share(figure, color):
    """The part of a picture that has a colour."""
    wanted = np.round(255 * np.array(matplotlib.colors.to_rgb(color)))
    return np.mean(np.abs(rendered(figure).astype(float) - wanted).max(axis=2) <= 1)


# ------------------------------------------------------------------------------- all of them


class Slopes:
    """A model that has the gradients it was given."""

    def __init__(self, gradients):
        self.gradients = np.asarray(gradients)

    def predict_gradient(self, X):
        return self.gradients


X1 = np.array([[0.0], [1.5], [2.0], [4.0]])
X2 = np.random.default_rng(0).uniform([-1, -10], [1, 10], size=(12, 2))


def function(X):
    """Value and gradient of a function of two columns, the second in other units."""
    u, v = X[:, 0], X[:, 1] / 10
    return np.sin(u) * v, np.column_stack([np.cos(u) * v, np.sin(u) / 10])


@pytest.fixture(scope="module")
def line():
    """Values and slopes of one column, in units that differ from the model's."""
    model = GaussianProcessRegressor(
        RBF(1.0), alpha=1e-4, alpha_gradient=1e-4, optimizer=None, normalize_y=True, scale_X=True
    )
    return model.fit(X1, 5 + 3 * np.sin(X1[:, 0]), dy=3 * np.cos(X1))


@pytest.fixture(scope="module")
def field():
    y, dy = function(X2)
    model = GaussianProcessRegressor(
        RBF([1.0, 10.0]), alpha=1e-6, alpha_gradient=1e-6, optimizer=None
    )
    return model.fit(X2, y, dy)


ROW = {"part": "tensors", "work": "gradient", "kind": "peer", "over": "numba", "times": 2.5}


def make(name, ax=None):
    """One display of each kind; "several" needs more than one of axes."""
    if name == "matrix":
        return KernelMatrixDisplay.from_kernel(RBF(), X2, ax=ax)
    if name == "several":
        return KernelMatrixDisplay.from_kernel(RBF(), X2, what="gradient", ax=ax)
    if name == "process":
        model = SklearnRegressor(RBF(), optimizer=None).fit(X1, X1[:, 0])
        return GaussianProcessDisplay.from_estimator(model, ax=ax)
    if name == "field":
        model = GaussianProcessRegressor(RBF([1.0, 10.0]), alpha=1e-6, optimizer=None)
        return GaussianProcessDisplay.from_estimator(model.fit(X2, *function(X2)), ax=ax)
    if name == "jacobian":
        return JacobianDisplay.from_estimator(TanhBasis(3, random_state=0).fit(X1), X1, ax=ax)
    if name == "sensitivity":
        return SensitivityDisplay.from_estimator(Slopes(np.ones((12, 2))), X2, ax=ax)
    return SpeedupDisplay.from_results([ROW], ax=ax)


NAMES = ("matrix", "several", "process", "field", "jacobian", "sensitivity", "speedup")


@pytest.mark.quick(4)
@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("name", NAMES)
def test_renders(name, style):
    """Without a warning, which would be an error, and with words that can be read."""
    with plt.style.context(style):
        display = make(name)
        background = np.array(matplotlib.colors.to_rgb(display.figure_.get_facecolor()))
        picture = rendered(display.figure_) / 255
        ink = matplotlib.rcParams["text.color"]
    assert (np.abs(picture - background).max(axis=2) > 0.3).any()
    assert share(display.figure_, ink) > 0


@pytest.mark.parametrize("name", NAMES)
def test_axes_that_are_given(name):
    """They are drawn into, other figures are not touched, and no new one is made."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    before = plt.get_fignums()
    display = make(name, left)
    assert display.figure_ is figure
    assert plt.get_fignums() == before
    assert not right.has_data()
    if name not in ("several", "jacobian"):
        assert display.ax_ is left


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["several", "jacobian"])
def test_several_axes_in_the_place_of_one(name):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    inside = left.get_position()
    display = make(name, left)
    figure.canvas.draw()
    assert not left.axison
    for part in display.axes_.flat:
        position = part.get_position()
        assert inside.x0 - 1e-9 <= position.x0 < position.x1 <= inside.x1 + 1e-9
        assert inside.y0 - 1e-9 <= position.y0 < position.y1 <= inside.y1 + 1e-9
    # Used up; its own parts can be used again.
    with pytest.raises(ValueError, match=r"ax has been used up; it may be an array of \d axes"):
        make(name, left)
    assert make(name, display.axes_).axes_.flat[0] is display.axes_.flat[0]
    assert not right.has_data()


@pytest.mark.parametrize("name", ["several", "jacobian"])
def test_axes_without_a_place_of_their_own(name):
    figure = plt.figure()
    with pytest.raises(ValueError, match="ax has no place in a grid of subplots"):
        make(name, figure.add_axes([0.1, 0.1, 0.8, 0.8]))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_axes(name):
    with pytest.raises(TypeError, match="ax is of type str; it may be axes of matplotlib"):
        make(name, "here")


def test_wrong_number_of_axes():
    _, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match="ax holds 3 axes; it must be one, or hold 2 of them"):
        make("several", axes)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", NAMES)
def test_plotted_again(name):
    display = make(name)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    assert np.array_equal(rendered(display.figure_), rendered(first))


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", NAMES)
def test_layout(name):
    """Nothing sticks out of a new figure, unless the user has chosen how figures are laid out."""
    figure = make(name).figure_
    figure.canvas.draw()
    box, whole = figure.get_tightbbox(), figure.bbox_inches
    # Half a point of a tick may be on the edge.
    assert min(box.x0, box.y0, whole.x1 - box.x1, whole.y1 - box.y1) > -0.01
    with matplotlib.rc_context({"figure.autolayout": True}):
        engine = make(name).figure_.get_layout_engine()
    assert type(engine).__name__ != "ConstrainedLayoutEngine"


def test_colors_of_the_user():
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["#123456"])}):
        assert make("process").line_.get_color() == "#123456"
    assert make("process").line_.get_color() != "#123456"


def test_pyplot_is_not_needed():
    code = """
    import sys
    import numpy as np
    import kerneldiff.plot
    assert "matplotlib" not in sys.modules
    from matplotlib.figure import Figure
    from sklearn.gaussian_process.kernels import RBF
    ax = Figure().subplots()
    X = np.zeros((3, 1))
    kerneldiff.plot.KernelMatrixDisplay.from_kernel(RBF(), X, ax=ax)
    rows = [{"work": "gradient", "kind": "peer", "over": "numba", "times": 2.5}]
    kerneldiff.plot.SpeedupDisplay.from_results(rows, ax=Figure().subplots())
    print("matplotlib.pyplot" in sys.modules)
    """
    assert run_python(code) == "False\n"


@pytest.mark.exhaustive
def test_import_of_the_package():
    code = "import sys, kerneldiff; print([m for m in sys.modules if m.startswith('matplotlib')])"
    assert run_python(code) == "[]\n"


CALLS = {
    "KernelMatrixDisplay.from_kernel": lambda: make("matrix"),
    "GaussianProcessDisplay.from_estimator": lambda: make("process"),
    "JacobianDisplay.from_estimator": lambda: make("jacobian"),
    "SensitivityDisplay.from_estimator": lambda: make("sensitivity"),
    "SpeedupDisplay.from_results": lambda: make("speedup"),
    "SpeedupDisplay.from_json": lambda: SpeedupDisplay.from_json("nowhere.json"),
    "KernelMatrixDisplay.plot": lambda: KernelMatrixDisplay(images=[[1.0]]).plot(),
    "GaussianProcessDisplay.plot": lambda: GaussianProcessDisplay(grid=[[0.0]], mean=[0.0]).plot(),
    "JacobianDisplay.plot": lambda: JacobianDisplay(
        x=[0.0], functions=[[0.0]], slope_jacobian=[[0.0]], bias_jacobian=[[0.0]]
    ).plot(),
    "SensitivityDisplay.plot": lambda: SensitivityDisplay(sensitivities=[1.0]).plot(),
    "SpeedupDisplay.plot": lambda: SpeedupDisplay(speedups=[ROW]).plot(),
}


@pytest.mark.parametrize("name", CALLS)
def test_without_matplotlib(name, monkeypatch):
    """None in sys.modules is how Python is told that a module cannot be imported."""
    for module in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        CALLS[name]()
    assert str(caught.value) == (
        f'{name} needs matplotlib, which the extra "plot" installs: pip install "kerneldiff[plot]"'
    )


# -------------------------------------------------------------------------- kernel matrices

TENSORS = [
    ("value", None, None, [(...,)]),
    ("gradient", None, None, [(..., 0), (..., 1)]),
    ("gradient", "y", [1], [(..., 1)]),
    ("hessian", None, None, [(..., 0, 0), (..., 0, 1), (..., 1, 0), (..., 1, 1)]),
    ("hessian", "xy", [(0, 1), ("height", "height")], [(..., 0, 1), (..., 1, 1)]),
]


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
@pytest.mark.parametrize(("what", "wrt", "components", "entries"), TENSORS)
def test_images(what, wrt, components, entries, same, rng):
    X = rng.normal(size=(9, 2))
    Y = None if same else rng.normal(size=(7, 2))
    kernel = ConstantKernel(2.0) * RBF(1.3) + WhiteKernel(0.5)
    display = KernelMatrixDisplay.from_kernel(
        kernel, X, Y, what=what, wrt=wrt, components=components, feature_names=["width", "height"]
    )
    function = {"value": "kernel_matrix"}.get(what, what)
    options = {} if what == "value" else {"wrt": wrt or ("x" if what == "gradient" else "xx")}
    tensor = getattr(kerneldiff, function)(kernel, X, Y, **options)
    assert display.ims_.size == len(entries)
    for im, entry in zip(display.ims_.flat, entries, strict=True):
        assert np.array_equal(im.get_array(), tensor[entry])
    assert display.im_ is display.ims_[0, 0]
    assert display.ax_ is display.axes_[0, 0]


def test_values_have_their_noise():
    """Only those of points with themselves, as scikit-learn has it."""
    X, kernel = X2[:4], RBF() + WhiteKernel(0.5)
    image = KernelMatrixDisplay.from_kernel(kernel, X).im_.get_array()
    assert np.allclose(image, kernel(X), rtol=1e-13)  # of a few roundings
    image = KernelMatrixDisplay.from_kernel(kernel, X, X).im_.get_array()
    assert np.allclose(image, kernel(X, X), rtol=1e-13)


@pytest.mark.parametrize("column", [1, "height", -1])
def test_sorted(column, rng):
    X, Y = rng.normal(size=(9, 2)), rng.normal(size=(5, 2))
    display = KernelMatrixDisplay.from_kernel(
        RBF(), X, Y, what="gradient", sort_by=column, feature_names=["width", "height"]
    )
    expected = kerneldiff.gradient(RBF(), X[np.argsort(X[:, 1])], Y[np.argsort(Y[:, 1])])
    for a in range(2):
        assert np.array_equal(display.ims_[0, a].get_array(), expected[..., a])
    assert display.axes_[0, 0].get_ylabel() == "points of X, by height"
    assert display.axes_[0, 0].get_xlabel() == "points of Y, by height"


def test_titles_and_labels():
    display = KernelMatrixDisplay.from_kernel(
        RBF(), X2, what="hessian", wrt="xy", feature_names=["body mass", "a_b"]
    )
    title = r"$\partial^2 k/(\partial x_{\mathrm{body\ mass}}\,\partial y_{\mathrm{a\_b}})$"
    assert display.axes_[0, 1].get_title() == title
    # Only at the outside of the table.
    assert [ax.get_xlabel() for ax in display.axes_.flat] == ["", "", *["points of X"] * 2]
    assert [ax.get_ylabel() for ax in display.axes_.flat] == ["points of X", ""] * 2


def test_default_names():
    title = make("several").axes_[0, 1].get_title()
    assert title == r"$\partial k/\partial x_{1}$"
    display = KernelMatrixDisplay.from_kernel(RBF(), X1, what="gradient")
    assert display.ax_.get_title() == r"$\partial k/\partial x$"


def test_names_that_are_no_formula():
    """Signs with a meaning in formulas stay what they are."""
    names = ["cost ($/t)", r"a\b{c}^2%"]
    display = KernelMatrixDisplay.from_kernel(RBF(), X2, what="gradient", feature_names=names)
    assert display.axes_[0, 0].get_title().endswith(r"x: cost (\$/t)")
    assert display.axes_[0, 1].get_title().endswith(rf"x: {names[1]}")
    rendered(display.figure_)


def test_names_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(X2, columns=["width", "height"])
    display = KernelMatrixDisplay.from_kernel(RBF(), X, what="gradient", components=["height"])
    assert np.array_equal(display.im_.get_array(), kerneldiff.gradient(RBF(), X2)[..., 1])


def test_scale_of_derivatives():
    """Symmetric about 0, so that white is 0; the same for all images, or of each."""
    G = np.abs(kerneldiff.gradient(RBF(), X2))
    shared = KernelMatrixDisplay.from_kernel(RBF(), X2, what="gradient")
    assert [im.get_clim() for im in shared.ims_.flat] == [(-G.max(), G.max())] * 2
    assert len(shared.colorbars_) == 1
    each = KernelMatrixDisplay.from_kernel(RBF(), X2, what="gradient", scale="each")
    limits = G.max(axis=(0, 1))
    assert [im.get_clim() for im in each.ims_.flat] == [(-m, m) for m in limits]
    assert len(each.colorbars_) == 2


def test_scale_of_values():
    display = KernelMatrixDisplay.from_kernel(3 * RBF(), X2)
    K = kerneldiff.kernel_matrix(3 * RBF(), X2)
    assert display.im_.get_clim() == (K.min(), K.max())
    assert display.im_.get_cmap().name == matplotlib.rcParams["image.cmap"]


def test_scale_of_the_user():
    display = KernelMatrixDisplay.from_kernel(RBF(), X2, what="gradient", vmax=3.0, cmap="PuOr")
    assert display.im_.get_clim()[1] == 3.0
    assert display.im_.get_cmap().name == "PuOr"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_to_scale(value):
    display = KernelMatrixDisplay(images=np.full((3, 3), value), diverging=True).plot()
    assert display.im_.get_clim() == (-1, 1)
    rendered(display.figure_)


def test_derivatives_that_do_not_exist():
    """Those of a Matérn 1/2 where points coincide: in a colour of their own, which is named."""
    rough, smooth = (
        KernelMatrixDisplay.from_kernel(Matern(nu=nu), X1, what="gradient") for nu in (0.5, 1.5)
    )
    assert np.isnan(np.diag(rough.im_.get_array().filled(np.nan))).all()
    assert rough.colorbars_[0].ax.get_xlabel() == "■ NaN"
    assert smooth.colorbars_[0].ax.get_xlabel() == ""
    grey = rough.im_.get_cmap().get_bad()[:3]
    # A quarter of an image that is a third of the picture or more; edges of letters are grey, too.
    assert share(rough.figure_, grey) > 0.08
    assert share(smooth.figure_, grey) < 0.001


def test_without_a_colorbar():
    assert KernelMatrixDisplay.from_kernel(RBF(), X2, colorbar=False).colorbars_ == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "jacobian"}, "what is 'jacobian'; it may be one of 'value', 'gradient'"),
        ({"what": "gradient", "wrt": "xx"}, "wrt is 'xx'; it may be one of 'x', 'y'"),
        ({"components": [0]}, r"components is \[0\]; values have none, it must be None"),
        ({"what": "gradient", "components": "x0"}, "must be a sequence of columns"),
        ({"what": "gradient", "components": []}, "must be a sequence of columns"),
        ({"what": "gradient", "components": [2]}, "components is 2; a column may be one of 'x0'"),
        ({"what": "gradient", "components": [True]}, "components is True; a column may be"),
        ({"what": "gradient", "components": ["y"]}, "components is 'y'; a column may be one of"),
        ({"what": "hessian", "components": [0, 1]}, "components has 0; for a Hessian it must"),
        ({"what": "hessian", "components": [(0, 1, 1)]}, r"components has \(0, 1, 1\); for a"),
        ({"sort_by": "age"}, "sort_by is 'age'; a column may be one of 'x0', 'x1'"),
        ({"feature_names": ["one"]}, "there must be 2 names, one for each column"),
        ({"feature_names": "ab"}, "feature_names is 'ab'; there must be 2 names"),
        ({"scale": "log"}, "scale is 'log'; it may be one of 'shared', 'each'"),
    ],
)
def test_kernel_matrix_errors(options, message):
    with pytest.raises(ValueError, match=message):
        KernelMatrixDisplay.from_kernel(RBF(), X2, **options)


def test_too_many_images():
    with pytest.raises(ValueError, match="which are 49 images; it must choose at most 36"):
        KernelMatrixDisplay.from_kernel(RBF(), np.zeros((3, 7)), what="hessian")


@pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (0, 3), (1, 2, 0, 3)])
def test_images_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"images has shape .*; it may be \(N, M\) or"):
        KernelMatrixDisplay(images=np.zeros(shape)).plot()


# ------------------------------------------------------------------------- Gaussian processes


def test_line_and_band(line):
    display = GaussianProcessDisplay.from_estimator(line, grid_resolution=50)
    x, mean = display.line_.get_data()
    # 5 % of the range of 4 at both ends.
    assert np.allclose(x, np.linspace(-0.2, 4.2, 50), rtol=1e-14)
    expected, std = line.predict(x[:, None], return_std=True)
    assert np.array_equal(mean, expected)
    (path,) = display.band_.get_paths()
    corners = {tuple(corner) for corner in path.vertices}
    # Rounded once or twice.
    for sign in (-1, 1):
        for point in zip(x, expected + sign * WIDTH * std, strict=True):
            assert min(np.abs(np.array(list(corners)) - point).max(axis=1)) < 1e-12
    assert display.points_.get_label() == "data"


def test_data_are_in_the_units_of_the_user(line):
    display = GaussianProcessDisplay.from_estimator(line)
    offsets = display.points_.get_offsets()
    assert np.allclose(offsets, np.c_[X1, 5 + 3 * np.sin(X1)], rtol=1e-13)
    starts, ends = np.moveaxis(np.array(display.slopes_.get_segments()), 1, 0)
    assert np.allclose((starts + ends) / 2, offsets, rtol=1e-13)
    rise = (ends - starts)[:, 1] / (ends - starts)[:, 0]
    # The differences lose two digits.
    assert np.allclose(rise, 3 * np.cos(X1[:, 0]), rtol=1e-11)


def test_segments_have_the_same_length_on_the_screen(line):
    display = GaussianProcessDisplay.from_estimator(line)
    segments = np.array(display.slopes_.get_segments())
    x, _ = display.line_.get_data()
    heights = np.concatenate([path.vertices[:, 1] for path in display.band_.get_paths()])
    lengths = np.diff(segments, axis=1)[:, 0] / [np.ptp(x), np.ptp(heights)]
    assert np.allclose(np.hypot(*lengths.T), 0.1, rtol=1e-12)


def test_slopes_where_no_value_was_observed():
    """They are at the mean; where there is no slope there is no segment."""
    model = GaussianProcessRegressor(RBF(1.0), alpha_gradient=1e-6, optimizer=None)
    y = np.array([0.0, np.nan, 1.0, 0.5])
    model.fit(X1, y, dy=np.array([[1.0], [0.5], [np.nan], [0.0]]))
    display = GaussianProcessDisplay.from_estimator(model)
    middles = np.mean(display.slopes_.get_segments(), axis=1)
    assert np.allclose(middles[:, 0], [0.0, 1.5, 4.0], rtol=1e-12)
    # The curve is interpolated between 300 points: h² |f''| / 8 is below 3e-5.
    assert abs(middles[1, 1] - model.predict([[1.5]])[0]) < 3e-5
    model.fit(X1, None, dy=np.ones((4, 1)))
    display = GaussianProcessDisplay.from_estimator(model)
    assert display.points_ is None
    assert len(display.slopes_.get_segments()) == 4


def test_predicted_slopes(line):
    """A fan for each, between the ends of the interval of the slope."""
    display = GaussianProcessDisplay.from_estimator(line, gradients="predicted", n_gradients=5)
    x = display.X_gradient
    mean, std = line.predict_gradient(x, return_std=True)
    assert np.allclose(x[:, 0], -0.2 + 4.4 * (np.arange(5) + 0.5) / 5, rtol=1e-13)
    assert np.array_equal(display.gradient, mean)
    assert np.array_equal(display.gradient_std, std)
    for path, low, high in zip(
        display.fans_.get_paths(), mean - WIDTH * std, mean + WIDTH * std, strict=True
    ):
        corners = path.vertices[:4]
        for pair, slope in (([0, 3], low), ([1, 2], high)):
            dx, dy = corners[pair[1]] - corners[pair[0]]
            assert np.isclose(dy / dx, slope[0], rtol=1e-10)
    assert display.slopes_ is None
    both = GaussianProcessDisplay.from_estimator(line, gradients="both")
    assert len(both.slopes_.get_segments()) == 4
    assert len(both.fans_.get_paths()) == 12


def test_legend(line):
    display = GaussianProcessDisplay.from_estimator(line)
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["95 % band", "mean", "data", "observed slopes"]
    assert GaussianProcessDisplay.from_estimator(line, legend=False).ax_.get_legend() is None


def test_labels(line, field):
    display = GaussianProcessDisplay.from_estimator(
        line, feature_names=["time ($)"], target_name="cost ($)"
    )
    assert display.ax_.get_xlabel() == r"time (\$)"
    assert display.ax_.get_ylabel() == r"cost (\$)"
    display = GaussianProcessDisplay.from_estimator(
        field, feature_names=["width", "load"], target_name="stress"
    )
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("width", "load")
    assert display.colorbar_.ax.get_ylabel() == "stress"


def test_styles(line):
    display = GaussianProcessDisplay.from_estimator(
        line,
        line_kwargs={"c": "red", "lw": 3},
        band_kwargs={"fc": "green"},
        scatter_kwargs={"marker": "x", "color": "blue"},
        gradient_kwargs={"lw": 5},
    )
    assert display.line_.get_color() == "red"
    assert display.line_.get_linewidth() == 3
    assert matplotlib.colors.same_color(display.band_.get_facecolor()[0, :3], "green")
    assert display.slopes_.get_linewidth()[0] == 5


@pytest.mark.parametrize("response", ["mean", "std"])
def test_field(field, response):
    display = GaussianProcessDisplay.from_estimator(field, response=response, grid_resolution=20)
    x, y = (np.linspace(low - 0.05 * r, high + 0.05 * r, 20) for low, high, r in _ranges(X2))
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    mean, std = field.predict(points, return_std=True)
    expected = (mean if response == "mean" else std).reshape(20, 20)
    # Of points that differ in their last digit, in a well-conditioned model.
    assert np.allclose(np.asarray(getattr(display, response)), expected, atol=1e-9)
    levels = display.field_.levels
    assert levels[0] <= expected.min() < expected.max() <= levels[-1]


def _ranges(X):
    return [(c.min(), c.max(), np.ptp(c)) for c in X.T]


@pytest.mark.parametrize("shape", ["free", "equal", "own"])
def test_arrows_are_at_right_angles_to_contours(shape):
    """On the screen, whatever the units of the columns; their lengths are in proportion."""
    model = GaussianProcessRegressor(RBF([1.0, 10.0]), alpha=1e-6, optimizer=None)
    X = X2 if shape != "equal" else X2 / [1, 10]
    model = model if shape != "equal" else model.set_params(kernel=RBF(1.0))
    model.fit(X, function(X2)[0])
    figure, ax = plt.subplots(figsize=(8, 4))
    if shape == "equal":
        ax.set_aspect("equal")
    if shape == "own":
        ax.set_box_aspect(0.4)
    display = GaussianProcessDisplay.from_estimator(model, ax=ax, gradients="predicted")
    figure.canvas.draw()
    (quiver,) = display.quiver_
    points = quiver.get_offsets()
    screen = ax.transData.transform(points)
    # Slopes along the screen by differences of the mean over two pixels: errors of 1e-4, of curves
    # over a hundred of them.
    slopes = []
    for step in ([1.0, 0.0], [0.0, 1.0]):
        ends = [ax.transData.inverted().transform(screen + s * np.array(step)) for s in (-1, 1)]
        low, high = map(model.predict, ends)
        slopes.append((high - low) / 2)
    expected = np.column_stack(slopes)
    arrows = np.column_stack([quiver.U, quiver.V])
    scale = np.linalg.norm(arrows) / np.linalg.norm(expected)
    assert np.abs(arrows - scale * expected).max() < 1e-3 * np.abs(arrows).max()


def test_observed_and_predicted_arrows(field):
    _, dy = function(X2)
    both = GaussianProcessDisplay.from_estimator(field, n_gradients=4)
    assert [quiver.N for quiver in both.quiver_] == [16, 12]
    # Of the same scale.
    assert both.quiver_[0].scale == both.quiver_[1].scale
    observed = GaussianProcessDisplay.from_estimator(field, gradients="observed")
    (quiver,) = observed.quiver_
    assert np.array_equal(quiver.get_offsets(), X2)
    assert np.allclose(observed.dy, dy, rtol=1e-13)
    assert np.allclose(np.asarray(observed.points_.get_offsets()), X2)
    assert GaussianProcessDisplay.from_estimator(field, gradients=None).quiver_ == []


def test_predicted_gradients_are_the_models(field):
    display = GaussianProcessDisplay.from_estimator(field, gradients="predicted", n_gradients=3)
    assert np.array_equal(display.gradient, field.predict_gradient(display.X_gradient))


@pytest.mark.parametrize("features", [[1], ["b"], ["b", 2]])
def test_slices(features, rng):
    """Through the median, or another point; data are elsewhere and not shown."""
    X = rng.normal(size=(20, 3)) * [1, 10, 100]
    model = GaussianProcessRegressor(RBF([1.0, 10.0, 100.0]), alpha=1e-4, optimizer=None)
    model.fit(X, X[:, 0] + X[:, 1] / 10)
    for at in (None, [0.5, 5.0, 50.0]):
        display = GaussianProcessDisplay.from_estimator(
            model, features=features, at=at, feature_names=["a", "b", "c"], grid_resolution=5
        )
        mesh = np.meshgrid(*display.grid, indexing="ij")
        points = np.tile(np.median(X, axis=0) if at is None else at, (mesh[0].size, 1))
        for column, values in zip([1, 2], mesh, strict=False):
            points[:, column] = values.ravel()
        assert np.array_equal(np.ravel(display.mean), model.predict(points))
        assert display.points_ is None
        assert display.ax_.get_xlabel() == "b"
        if len(features) == 2:
            assert display.ax_.get_ylabel() == "c"
            gradient = model.predict_gradient(
                np.insert(display.X_gradient, 0, points[0, 0], axis=1)
            )
            assert np.array_equal(display.gradient, gradient[:, 1:])


def test_range_of_points_that_are_given(line):
    display = GaussianProcessDisplay.from_estimator(line, X=[[-10.0], [10.0]], margin=0)
    assert display.ax_.get_xlim() == (-10, 10)
    single = GaussianProcessDisplay.from_estimator(line, X=[[4.0]])
    assert single.ax_.get_xlim()[0] < 4 < single.ax_.get_xlim()[1]


def test_regressor_of_scikit_learn():
    model = SklearnRegressor(RBF(), normalize_y=True, optimizer=None).fit(X1, X1[:, 0] ** 2)
    display = GaussianProcessDisplay.from_estimator(model)
    x, mean = display.line_.get_data()
    assert np.array_equal(mean, model.predict(x[:, None]))
    assert np.allclose(display.points_.get_offsets()[:, 1], X1[:, 0] ** 2, rtol=1e-12)
    with pytest.raises(ValueError, match="gradients is 'predicted', and the estimator cannot"):
        GaussianProcessDisplay.from_estimator(model, gradients="predicted")
    model = SklearnRegressor(RBF(), optimizer=None).fit(X2, X2[:, 0])
    assert GaussianProcessDisplay.from_estimator(model).quiver_ == []


def test_rough_process():
    """Its mean has gradients, though the process has none."""
    model = GaussianProcessRegressor(Matern(nu=0.5), optimizer=None).fit(X2, X2[:, 0])
    assert len(GaussianProcessDisplay.from_estimator(model).quiver_) == 1


@pytest.mark.parametrize("regressor", [GaussianProcessRegressor, SklearnRegressor])
def test_targets(regressor):
    y = np.column_stack([np.sin(X1[:, 0]), 10 + X1[:, 0]])
    model = regressor(RBF(), optimizer=None, normalize_y=True).fit(X1, y)
    display = GaussianProcessDisplay.from_estimator(model, target=1)
    x, mean = display.line_.get_data()
    expected, std = model.predict(x[:, None], return_std=True)
    assert np.array_equal(mean, expected[:, 1])
    assert np.array_equal(display.std, std[:, 1])
    assert np.allclose(display.points_.get_offsets()[:, 1], y[:, 1], rtol=1e-12)
    with pytest.raises(ValueError, match="target is None; the estimator has 2 targets"):
        GaussianProcessDisplay.from_estimator(model)


def test_names_of_the_fit():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(X2, columns=["width", "load"])
    model = GaussianProcessRegressor(RBF([1.0, 10.0]), optimizer=None).fit(X, X2[:, 0])
    display = GaussianProcessDisplay.from_estimator(model)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("width", "load")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": [0, 0]}, r"features is \[0, 0\]; it must name one or two columns"),
        ({"features": []}, r"features is \[\]; it must name one or two columns"),
        ({"features": ["z"]}, "features is 'z'; a column may be one of 'x0', 'x1'"),
        ({"gradients": "all"}, "gradients is 'all'; it may be one of 'auto', 'observed'"),
        ({"features": [0], "gradients": "observed"}, "none were observed where other columns are"),
        ({"at": [1.0]}, "at is .*; it must be a point, 2 finite numbers"),
        ({"n_gradients": 0}, "n_gradients is 0; it must be an integer of at least 1"),
        ({"grid_resolution": 1.5}, "grid_resolution is 1.5; it must be an integer of at least 2"),
        ({"margin": -1}, "margin is -1; it must be finite and not negative"),
        ({"X": np.zeros((3, 3))}, "X has 3 columns; the estimator was fitted to 2"),
        ({"target": 1}, "target is 1; the estimator has 1 target,"),
        ({"response": "median"}, "response is 'median'; it may be one of 'mean', 'std'"),
    ],
)
def test_process_errors(field, options, message):
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=message):
        GaussianProcessDisplay.from_estimator(field, **options)
    assert plt.get_fignums() == before


def test_too_many_columns():
    model = GaussianProcessRegressor(optimizer=None).fit(np.eye(3), np.arange(3.0))
    with pytest.raises(ValueError, match="features is None, and there are 3 columns"):
        GaussianProcessDisplay.from_estimator(model)


def test_no_process():
    with pytest.raises(TypeError, match="estimator is of type TanhBasis; it must be a Gaussian"):
        GaussianProcessDisplay.from_estimator(TanhBasis())
    with pytest.raises(NotFittedError):
        GaussianProcessDisplay.from_estimator(GaussianProcessRegressor())


@pytest.mark.parametrize("shape", [(4,), (3, 1)])
def test_mean_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"mean has shape .*; with 1 coordinates"):
        GaussianProcessDisplay(grid=[np.zeros(3)], mean=np.zeros(shape)).plot()


def test_no_deviation_to_show():
    display = GaussianProcessDisplay(grid=[[0.0, 1.0]] * 2, mean=np.eye(2))
    with pytest.raises(ValueError, match="response is 'std', which the display has none of"):
        display.plot(response="std")


# ------------------------------------------------------------------------------ tanh functions


def test_jacobian_of_one_column():
    """tanh, and its derivatives written out."""
    W = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]])
    display = JacobianDisplay.from_estimator(TanhBasis(weights=W).fit(X1), X1, grid_resolution=30)
    x = np.linspace(-0.2, 4.2, 30)
    phi = np.tanh(np.multiply.outer(x, W[0]) + W[1])
    expected = phi, (1 - phi**2) * x[:, None], 1 - phi**2
    for lines, panel in zip(display.lines_, expected, strict=True):
        for k in range(3):
            at, drawn = lines[k].get_data()
            # 1 - phi² as written here loses digits where phi is close to 1.
            assert np.allclose(at, x, rtol=1e-13)
            assert np.allclose(drawn, panel[:, k], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("feature", [1, "height"])
def test_jacobian_of_one_of_several_columns(feature, rng):
    X = rng.normal(size=(11, 3))
    basis = TanhBasis(n_components=6, random_state=0).fit(X)
    display = JacobianDisplay.from_estimator(
        basis, X, feature=feature, feature_names=["w", "height", "d"], components=[4, 0]
    )
    x = display.lines_[0, 0].get_xdata()
    points = np.tile(np.median(X, axis=0), (len(x), 1))
    points[:, 1] = x
    J = basis.jacobian(points)
    for column, k in enumerate([4, 0]):
        assert np.array_equal(display.lines_[0, column].get_ydata(), basis.transform(points)[:, k])
        assert np.array_equal(display.lines_[1, column].get_ydata(), J[:, 1, k])
        assert np.array_equal(display.lines_[2, column].get_ydata(), J[:, 3, k])
        assert display.lines_[0, column].get_label() == f"$k = {k}$"
    assert display.axes_[2, 0].get_xlabel() == "height"


def test_jacobian_of_a_regressor():
    """Its weights are for the inputs as they are given."""
    X = np.linspace(-20, 50, 40)[:, None]
    model = TanhRegressor(n_components=3, random_state=0).fit(X, np.tanh(X[:, 0] / 10 - 1))
    display = JacobianDisplay.from_estimator(model, X)
    x = display.x[:, None]
    phi = np.column_stack([line.get_ydata() for line in display.lines_[0]])
    assert np.allclose(phi @ model.coef_ + model.intercept_, model.predict(x), rtol=1e-9)
    sensitive = SensitivityDisplay.from_estimator(model, X)
    expected = X.std() * np.sqrt(np.mean(model.predict_gradient(X) ** 2))
    assert np.allclose(sensitive.sensitivities, expected, rtol=1e-13)


def test_jacobian_of_layers():
    basis = TanhBasis(weights=np.ones((2, 3))).fit(X1)
    basis.weights_ = [np.ones((2, 3)), np.ones((4, 2))]
    with pytest.raises(ValueError, match="estimator has 2 layers; functions of a column are those"):
        JacobianDisplay.from_estimator(basis, X1)


def test_colors_of_functions():
    """In the order in which they turn; the same for a function and its derivatives."""
    W = np.array([[1.0, 1.0, 1.0], [-3.0, 0.0, -1.5]])
    display = JacobianDisplay.from_estimator(TanhBasis(weights=W).fit(X1), X1)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.88, 3))
    for lines in display.lines_:
        assert np.array_equal([line.get_color() for line in lines], colors[[2, 0, 1]])


@pytest.mark.parametrize("count", [8, 9])
def test_names_of_functions(count):
    basis = TanhBasis(n_components=count, random_state=0).fit(X1)
    legend = JacobianDisplay.from_estimator(basis, X1).axes_[0, 0].get_legend()
    assert (legend is not None) == (count <= 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "feature is None, and there are 2 columns; it must name one"),
        ({"feature": 2}, "feature is 2; a column may be one of 'x0', 'x1'"),
        ({"feature": 0, "components": [3]}, r"components is \[3\]; it must hold numbers of"),
        ({"feature": 0, "components": []}, r"components is \[\]; it must hold numbers of"),
        ({"feature": 0, "components": [0.5]}, r"components is \[0.5\]; it must hold numbers of"),
        ({"feature": 0, "at": [np.nan, 0.0]}, "at is .*; it must be a point, 2 finite numbers"),
        ({"feature": 0, "X": X1}, "X has 1 column; the estimator was fitted to 2"),
    ],
)
def test_jacobian_errors(options, message):
    basis = TanhBasis(n_components=3, random_state=0).fit(X2)
    with pytest.raises(ValueError, match=message):
        JacobianDisplay.from_estimator(basis, **{"X": X2, **options})


def test_jacobian_of_what_has_none():
    with pytest.raises(NotFittedError):
        JacobianDisplay.from_estimator(TanhBasis(), X1)
    model = SklearnRegressor(optimizer=None).fit(X1, X1[:, 0])
    with pytest.raises(TypeError, match="estimator is of type GaussianProcessRegressor; it must"):
        JacobianDisplay.from_estimator(model, X1)


def test_panels_of_different_shapes():
    display = JacobianDisplay(
        x=[0.0, 1.0], functions=np.eye(2), slope_jacobian=np.eye(3), bias_jacobian=np.eye(2)
    )
    with pytest.raises(ValueError, match=r"slope_jacobian has shape \(3, 3\); it must have 2 rows"):
        display.plot()


# -------------------------------------------------------------------------------- sensitivities


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("rms", lambda g, s: s * np.sqrt(np.mean(g**2, axis=0))),
        ("absolute", lambda g, s: s * np.mean(np.abs(g), axis=0)),
        ("squared", lambda g, s: s**2 * np.mean(g**2, axis=0)),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_sensitivities(measure, expected, relative, rng):
    X, gradients = rng.normal(size=(2, 50, 3)) * [1, 10, 0.1]
    y = rng.normal(size=50) * 7 if relative else None
    display = SensitivityDisplay.from_estimator(
        Slopes(gradients), X, y, measure=measure, n_bootstraps=20
    )
    values = expected(gradients, X.std(axis=0))
    if relative:
        values = values / (np.var(y) if measure == "squared" else np.std(y))
    # Sums of fifty terms that are not negative.
    assert np.allclose(display.sensitivities, values, rtol=1e-13)
    order = np.argsort(-values)
    assert np.array_equal(display.order_, order)
    assert np.allclose([bar.get_width() for bar in display.bars_], values[order], rtol=1e-13)
    low, high = display.intervals
    assert np.all((low < values) & (values < high))
    drawn = np.array(display.whiskers_.get_segments())[:, :, 0]
    assert np.array_equal(drawn, np.transpose(display.intervals)[order])


def test_whiskers(rng):
    """Those of a mean are known: 1.96 standard errors to both sides."""
    X = rng.normal(size=(400, 2))
    gradients = np.column_stack([rng.exponential(size=400), np.full(400, 2.0)])
    display = SensitivityDisplay.from_estimator(
        Slopes(gradients), X, measure="absolute", n_bootstraps=4000
    )
    terms = np.abs(gradients * X.std(axis=0))
    error = terms.std(axis=0) / np.sqrt(400)
    low, high = display.intervals
    # Quantiles at 2.5 % of 4000 draws have a standard error of 0.042 of the distribution's, and
    # its skewness moves them by some hundredths.
    assert np.allclose((high - low)[0] / 2, WIDTH * error[0], rtol=0.1)
    assert np.allclose((high - low)[1], 0, atol=1e-12)


def test_sensitivities_are_the_same_again(rng):
    X, gradients = rng.normal(size=(2, 30, 2))
    displays = [
        SensitivityDisplay.from_estimator(Slopes(gradients), X, random_state=seed)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(displays[0].intervals, displays[1].intervals)
    assert not np.array_equal(displays[0].intervals, displays[2].intervals)


def test_sensitivities_without_whiskers(rng):
    display = SensitivityDisplay.from_estimator(
        Slopes(np.ones((5, 2))), rng.normal(size=(5, 2)), n_bootstraps=0
    )
    assert display.intervals is None
    assert display.whiskers_ is None


def test_sensitivities_of_a_process(field):
    gradients = field.predict_gradient(X2)
    display = SensitivityDisplay.from_estimator(
        field, X2, feature_names=["width", "load"], target_name="stress"
    )
    expected = X2.std(axis=0) * np.sqrt(np.mean(gradients**2, axis=0))
    assert np.allclose(display.sensitivities, expected, rtol=1e-13)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == [["width", "load"][a] for a in display.order_]
    assert "(stress)" in display.ax_.get_xlabel()


def test_sensitivities_of_one_of_several_targets(rng):
    X, gradients = rng.normal(size=(6, 2)), rng.normal(size=(6, 3, 2))
    display = SensitivityDisplay.from_estimator(Slopes(gradients), X, target=2, measure="absolute")
    expected = X.std(axis=0) * np.abs(gradients[:, 2]).mean(axis=0)
    assert np.allclose(display.sensitivities, expected, rtol=1e-13)
    with pytest.raises(ValueError, match="target is None; the estimator has 3 targets"):
        SensitivityDisplay.from_estimator(Slopes(gradients), X)


def test_longest_bars():
    display = SensitivityDisplay(sensitivities=[1.0, 5.0, 3.0]).plot(max_features=2, color="red")
    assert list(display.order_) == [1, 2]
    assert len(display.bars_) == 2
    assert matplotlib.colors.same_color(display.bars_[0].get_facecolor(), "red")
    # The longest is at the top.
    low, high = display.ax_.get_ylim()
    assert low > high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "sobol"}, "measure is 'sobol'; it may be one of 'rms', 'absolute'"),
        ({"n_bootstraps": -1}, "n_bootstraps is -1; it must be an integer of at least 0"),
        ({"y": np.ones(3)}, r"y has shape \(3,\); it must hold 12 finite numbers"),
        ({"y": np.ones(12)}, "finite numbers that are not all the same"),
        ({"feature_names": ["a"]}, "there must be 2 names, one for each column"),
        ({"max_features": 0}, "max_features is 0; it must be an integer of at least 1"),
    ],
)
def test_sensitivity_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SensitivityDisplay.from_estimator(Slopes(np.ones((12, 2))), X2, **options)


def test_sensitivities_of_what_has_no_gradients():
    model = SklearnRegressor(optimizer=None).fit(X1, X1[:, 0])
    with pytest.raises(TypeError, match="GaussianProcessRegressor, which has no predict_gradient"):
        SensitivityDisplay.from_estimator(model, X1)


def test_sensitivities_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"sensitivities has shape \(1, 2\)"):
        SensitivityDisplay(sensitivities=[[1.0, 2.0]]).plot()


# --------------------------------------------------------------------------------------- speeds

ROWS = [
    {**ROW, "work": "gradient", "kind": "autodiff", "over": "JAX autodiff", "times": 13.21},
    {**ROW, "work": "gradient", "times": 0.8, "target": 1.5},
    {**ROW, "part": "products", "work": "K v", "kind": "library", "over": "KeOps", "times": 3.14},
]
MACHINE = {"processor": "EPYC", "processors": 2, "isa": "avx512", "date": "2026-11-21"}


def test_speeds():
    display = SpeedupDisplay.from_results({"speedups": ROWS, "machine": MACHINE, "products": []})
    assert list(display.bars_) == ["autodiff", "peer", "library"]
    ends = [bars[0].get_x() + bars[0].get_width() for bars in display.bars_.values()]
    # All bars begin at 1, to which a rounded difference is added.
    assert np.allclose(ends, [13.21, 0.8, 3.14], rtol=1e-14)
    assert {bars[0].get_x() for bars in display.bars_.values()} == {1}
    texts = [text.get_text() for text in display.texts_]
    assert texts == ["13 × JAX autodiff", "0.8 × numba", "3.1 × KeOps"]
    assert display.ax_.get_xscale() == "log"
    assert set(display.line_.get_xdata()) == {1}
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["gradient", "K v"]
    assert display.machine == "EPYC, 2 processors, avx512, 2026-11-21"
    low, high = display.ax_.get_xlim()
    assert low < 0.8
    assert high > 13.21


def test_words_beside_bars_have_room():
    """Also those of work that is slower, beside which the names of the work are."""
    rows = [{**ROW, "over": "JAX by hand, unfused", "times": t} for t in (0.3, 2.5, 141.0)]
    display = SpeedupDisplay(speedups=rows).plot()
    display.figure_.canvas.draw()
    inside = display.ax_.get_window_extent()
    for text in display.texts_:
        box = text.get_window_extent()
        assert inside.x0 < box.x0 < box.x1 < display.figure_.bbox.x1
        assert box.x0 > display.ax_.transData.transform((1, 0))[0]


def test_work_stands_together_from_top_to_bottom():
    display = SpeedupDisplay(speedups=[ROWS[0], ROWS[2], ROWS[1]]).plot()
    centres = {
        kind: bars[0].get_y() + bars[0].get_height() / 2 for kind, bars in display.bars_.items()
    }
    assert centres["autodiff"] < centres["peer"] < centres["library"]
    low, high = display.ax_.get_ylim()
    assert low > high


def test_speeds_from_a_file(tmp_path):
    file = tmp_path / "speeds.json"
    file.write_text(json.dumps({"speedups": ROWS}), encoding="utf-8")
    display = SpeedupDisplay.from_json(file, names=False, color="red")
    assert [text.get_text() for text in display.texts_] == ["13 ×", "0.8 ×", "3.1 ×"]
    assert display.machine is None


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"parts": ["products"]}, ["K v"]),
        ({"kinds": ["peer", "autodiff"]}, ["gradient", "gradient"]),
        ({"parts": ["tensors"], "kinds": ["peer"]}, ["gradient"]),
    ],
)
def test_some_of_the_speeds(options, kept):
    display = SpeedupDisplay.from_results(ROWS, **options)
    assert [row["work"] for row in display.speedups] == kept


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "speedups is empty; there is nothing to show"),
        ({"as_shipped": []}, "results has 'as_shipped'; it must have 'speedups'"),
        ([{"work": "gradient", "over": "JAX"}], "without kind, times"),
        ([{**ROW, "times": 0}], "speedups has times 0 for 'gradient'; they must be positive"),
        ([{**ROW, "times": None}], "speedups has times None for 'gradient'"),
    ],
)
def test_speed_errors(results, message):
    with pytest.raises(ValueError, match=message):
        SpeedupDisplay.from_results(results)


def test_file_without_speeds(tmp_path):
    file = tmp_path / "speeds.json"
    file.write_text("no json", encoding="utf-8")
    with pytest.raises(ValueError, match="which holds no JSON"):
        SpeedupDisplay.from_json(file)
    with pytest.raises(FileNotFoundError):
        SpeedupDisplay.from_json(tmp_path / "missing.json")
