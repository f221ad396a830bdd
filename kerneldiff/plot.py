"""Pictures of kernels, models and speeds, in the manner of scikit-learn's displays.

A display holds arrays.  Its class methods (`from_estimator` and the like) compute them and draw
them; its constructor takes them as they are; and `plot` draws them any number of times, into axes
that are given or into a new figure.  matplotlib is imported where something is drawn, and pyplot
only where a figure has to be made.

Colours come from matplotlib's settings where these are not the defaults; else lines are in the
palette of Okabe and Ito, which people with any kind of colour vision can tell apart.  Words and
marks are in the colour that the axes have for labels, so that dark styles stay readable.
"""

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.gaussian_process import GaussianProcessRegressor as _Base
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from kerneldiff._validation import (
    check_choice,
    check_names,
    check_pair,
    column_names,
    counted,
    real_array,
    unmasked,
)
from kerneldiff.tanh import tanh_basis, tanh_jacobian
from kerneldiff.tensors import gradient, hessian, kernel_matrix, tensor_blocks

__all__ = [
    "GaussianProcessDisplay",
    "JacobianDisplay",
    "KernelMatrixDisplay",
    "SensitivityDisplay",
    "SpeedupDisplay",
]

# M. Okabe and K. Ito, "Color Universal Design: how to make figures and presentations that are
# friendly to colorblind people", 2002.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Neither in blue, white and red, nor in most of the maps that people choose for values.
_NAN = "#8C8C8C"
# Half the width of an interval that holds 95 % of a normal distribution, in standard deviations.
_WIDTH = 1.959963984540054


# ------------------------------------------------------------------------------------ matplotlib


def _need_matplotlib(what: str) -> None:
    """Raise ImportError, with what to do about it, if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{what} needs matplotlib, which the extra "plot" installs: '
            'pip install "kerneldiff[plot]"'
        ) from error


def _color(number: int) -> Any:
    """The user's colours if there are such, else those of the palette."""
    import matplotlib

    cycle = matplotlib.rcParams["axes.prop_cycle"]
    colors: Sequence[Any] = _PALETTE
    if cycle != matplotlib.rcParamsDefault["axes.prop_cycle"]:
        colors = cycle.by_key().get("color", _PALETTE)
    return colors[number % len(colors)]


def _ink(ax: Any) -> Any:
    """The colour in which axes have their words."""
    return ax.xaxis.label.get_color()


def _text(name: Any) -> str:
    """A name as it is, which matplotlib shall not read as a formula."""
    return str(name).replace("$", r"\$")


def _index(name: str) -> str | None:
    """A name as an index in a formula; None where it has signs that mean something there."""
    default = re.fullmatch(r"x(\d*)", name)
    if default:
        return f"_{{{default[1]}}}" if default[1] else ""
    if not all(c.isalnum() or c in " _-" for c in name):
        return None
    escaped = name.replace(" ", r"\ ").replace("_", r"\_")
    return rf"_{{\mathrm{{{escaped}}}}}"


def _styled(kind: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> Any:
    """Defaults with what was given; matplotlib refuses a setting under two names."""
    from matplotlib import cbook, collections, image, lines, patches

    artist = {
        "line": lines.Line2D,
        "collection": collections.Collection,
        "image": image.AxesImage,
        "patch": patches.Patch,
    }[kind]
    own = cbook.normalize_kwargs(dict(given or {}), artist)
    return {**{name: value for name, value in defaults.items() if name not in own}, **own}


def _new_figure(figsize: tuple[float, float] | None) -> Any:
    import matplotlib
    import matplotlib.pyplot as plt

    settings = matplotlib.rcParams
    chosen = settings["figure.autolayout"] or settings["figure.constrained_layout.use"]
    return plt.figure(figsize=figsize, layout=None if chosen else "constrained")


def _make_axes(
    ax: Any,
    rows: int = 1,
    columns: int = 1,
    *,
    figsize: tuple[float, float] | None = None,
    sharex: bool = False,
    sharey: bool = False,
) -> Any:
    """Find or make (rows, columns) axes.

    `ax` may be None (a new figure), axes (which give their place to a grid, if there is to be more
    than one) or an array of axes.
    """
    from matplotlib.axes import Axes

    size = rows * columns
    sharing: Any = {"sharex": sharex, "sharey": sharey, "squeeze": False}
    if ax is None:
        return _new_figure(figsize).subplots(rows, columns, **sharing)
    if isinstance(ax, Axes):
        if size == 1:
            return np.array([[ax]], dtype=object)
        place = ax.get_subplotspec()
        if place is None or not ax.axison:
            raise ValueError(
                f"ax has {'no place in a grid of subplots' if place is None else 'been used up'}; "
                f"it may be an array of {size} axes instead, such as `axes_` of a display."
            )
        grid = place.subgridspec(rows, columns)
        axes = grid.subplots(**sharing)
        ax.set_axis_off()
        return axes
    axes = np.array(ax, dtype=object)
    if not all(isinstance(item, Axes) for item in axes.flat):
        raise TypeError(
            f"ax is of type {type(ax).__name__}; it may be axes of matplotlib, an array of them, "
            "or None."
        )
    if axes.size != size:
        raise ValueError(f"ax holds {axes.size} axes; it must be one, or hold {size} of them.")
    return axes.reshape(rows, columns)


def _bare(axes: Any) -> None:
    """Take the lines above and to the right from axes."""
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)


# ------------------------------------------------------------------------------ points and names


def _names(feature_names: Any, d: int, *sources: Any) -> list[str]:
    """Names of d columns: those given, or those that an estimator or a table has."""
    if feature_names is None:
        for source in sources:
            for attribute in ("feature_names_in_", "columns"):
                found = getattr(source, attribute, None)
                if found is not None and len(found) == d:
                    return list(map(str, found))
        return ["x"] if d == 1 else [f"x{a}" for a in range(d)]
    if isinstance(feature_names, str) or len(feature_names) != d:
        raise ValueError(
            f"feature_names is {feature_names!r}; there must be {d} names, one for each column."
        )
    return list(map(str, feature_names))


def _column(name: str, value: Any, names: Sequence[str]) -> int:
    """The number of a column that was given by its number or name."""
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if number and -len(names) <= value < len(names):
        return int(value) % len(names)
    if isinstance(value, str) and value in names:
        return names.index(value)
    raise ValueError(
        f"{name} is {value!r}; a column may be one of {', '.join(map(repr, names))}, or its number "
        f"below {len(names)}."
    )


def _table(X: Any, name: str) -> np.ndarray:
    return check_array(unmasked(X, name), dtype=np.float64, input_name=name)


def _columns_of(X: Any, d: int, estimator: Any) -> np.ndarray:
    """Points for an estimator of d columns, which may have names for them."""
    check_names(getattr(estimator, "feature_names_in_", None), column_names(X), "the fit", "X")
    X = _table(X, "X")
    if X.shape[1] != d:
        raise ValueError(f"X has {counted(X.shape[1], 'column')}; the estimator was fitted to {d}.")
    return X


def _base_point(at: Any, X: np.ndarray) -> np.ndarray:
    """A point: the one given, or the median of all."""
    if at is None:
        return np.median(X, axis=0)
    at = np.asarray(at, dtype=np.float64)
    if at.shape != (X.shape[1],) or not np.isfinite(at).all():
        raise ValueError(f"at is {at}; it must be a point, {X.shape[1]} finite numbers.")
    return at


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}.")


def _chosen_target(target: int | None, count: int) -> int:
    if target is None and count == 1:
        return 0
    if not isinstance(target, int | np.integer) or not 0 <= target < count:
        raise ValueError(
            f"target is {target!r}; the estimator has {counted(count, 'target')}, of which it "
            f"must name one, by a number from 0 to {count - 1}."
        )
    return int(target)


@contextlib.contextmanager
def _without_names() -> Iterator[None]:
    """Points that are made here have no names, also where those of the fit had."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


# -------------------------------------------------------------------------------- kernel matrices


class _Tensor(NamedTuple):
    function: Any
    wrt: tuple[str, ...]


_TENSORS = {
    "value": _Tensor(kernel_matrix, ("",)),
    "gradient": _Tensor(gradient, ("x", "y")),
    "hessian": _Tensor(hessian, ("xx", "xy", "yx", "yy")),
}
# More images than this are no picture.
_MOST_IMAGES = 36


class KernelMatrixDisplay:
    """Kernel matrix, or its derivatives, as images.

    Use `from_kernel` to make one; the parameters here are what it computes, and are attributes,
    too.

    Parameters
    ----------
    images : array-like of shape (N, M) or (n_rows, n_columns, N, M)
        One matrix, or a table of them. NaN stands for what does not exist.
    titles : array-like of str of shape (n_rows, n_columns), default=None
        What they show.
    diverging : bool, default=False
        Whether colours are to tell positive from negative entries: the scale is then symmetric
        about 0.
    xlabel, ylabel : str, default=None
        Labels of the axes.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_rows, n_columns)
        With the images.
    ax_ : matplotlib Axes
        The first of them, which often is the only one.
    figure_ : matplotlib Figure
        With all of them.
    ims_ : ndarray of matplotlib AxesImage of shape (n_rows, n_columns)
        The images.
    im_ : matplotlib AxesImage
        The first of them.
    colorbars_ : list of matplotlib Colorbar
        One for all images, or one for each.

    See Also
    --------
    kernel_matrix, gradient, hessian : What is shown.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff.plot import KernelMatrixDisplay
    >>> X = np.linspace(-1, 1, 50).reshape(-1, 1)
    >>> display = KernelMatrixDisplay(images=RBF(0.3)(X), titles=[["RBF"]])
    >>> display.plot().im_.get_array().shape
    (50, 50)
    """

    def __init__(
        self,
        *,
        images: ArrayLike,
        titles: ArrayLike | None = None,
        diverging: bool = False,
        xlabel: str | None = None,
        ylabel: str | None = None,
    ) -> None:
        self.images = images
        self.titles = titles
        self.diverging = diverging
        self.xlabel = xlabel
        self.ylabel = ylabel

    @classmethod
    def from_kernel(
        cls,
        kernel: Kernel,
        X: Any,
        Y: Any = None,
        *,
        what: str = "value",
        wrt: str | None = None,
        components: Sequence[Any] | None = None,
        sort_by: int | str | None = None,
        feature_names: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Show a kernel, or its derivatives, for all pairs of points.

        Parameters
        ----------
        kernel : sklearn.gaussian_process.kernels.Kernel
            Any that can be read.
        X : array-like of shape (N, D)
            Points, the rows of the images.
        Y : array-like of shape (M, D), default=None
            Points, the columns of the images; None stands for X.
        what : {"value", "gradient", "hessian"}, default="value"
            What is shown.
        wrt : str, default=None
            With respect to which arguments, as `gradient` and `hessian` have it: "x" or "y" for
            gradients, "xx", "xy", "yx" or "yy" for Hessians. None is the first of them.
        components : sequence of (int or str), or of pairs of them, default=None
            Columns of X, by their numbers or names, of which derivatives are shown: those of the
            gradient, or pairs of them for the Hessian. They stand side by side. None shows all, and
            those of a Hessian as a table.
        sort_by : int or str, default=None
            A column by which the points are put in order, so that neighbours in the image are alike
            in it.
        feature_names : sequence of str, default=None
            Names of the columns of X; None takes them from X if it is a data frame.
        ax : matplotlib Axes or array of them, default=None
            Where to draw, as in `plot`.
        **kwargs : dict
            Further arguments of `plot`.

        Returns
        -------
        display : KernelMatrixDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        ValueError
            If an argument has a wrong shape or value, or if there would be more than 36 images.
        TypeError
            If the kernel cannot be read.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff.plot import KernelMatrixDisplay
        >>> X = np.random.default_rng(0).normal(size=(60, 2))
        >>> display = KernelMatrixDisplay.from_kernel(
        ...     RBF(), X, what="gradient", sort_by=0, feature_names=["width", "height"]
        ... )
        >>> display.axes_.shape, display.axes_[0, 0].get_ylabel()
        ((1, 2), 'points of X, by width')
        """
        _need_matplotlib(f"{cls.__name__}.from_kernel")
        check_choice("what", what, tuple(_TENSORS))
        tensor = _TENSORS[what]
        wrt = tensor.wrt[0] if wrt is None else wrt
        check_choice("wrt", wrt, tensor.wrt)
        points, others = check_pair(X, Y)
        names = _names(feature_names, points.shape[1], X, Y)
        table = _components(components, what, names)
        order = ""
        if sort_by is not None:
            column = _column("sort_by", sort_by, names)
            order = f", by {_text(names[column])}"
            points = points[np.argsort(points[:, column], kind="stable")]
            others = others[np.argsort(others[:, column], kind="stable")]
        images = np.empty((*table.shape[:2], len(points), len(others)))
        if what == "value":
            # With Y=None, so that noise is on the diagonal.
            images[0, 0] = kernel_matrix(kernel, points, None if Y is None else others)
        else:
            blocks = tensor_blocks(tensor.function, kernel, points, others, wrt=wrt)
            for rows, block in blocks:
                for place in np.ndindex(*table.shape[:2]):
                    images[(*place, rows)] = block[(..., *table[place])]
        titles = np.empty(table.shape[:2], dtype=object)
        for place in np.ndindex(*titles.shape):
            titles[place] = _derivative_title(wrt, [names[a] for a in table[place]])
        display = cls(
            images=images,
            titles=titles,
            diverging=what != "value",
            xlabel=f"points of {'X' if Y is None else 'Y'}{order}",
            ylabel=f"points of X{order}",
        )
        return display.plot(ax, **kwargs)

    def plot(
        self, ax: Any = None, *, scale: str = "shared", colorbar: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes or array of them, default=None
            Where to draw. Axes give their place to several images; an array must have as many as
            there are images. None makes a new figure.
        scale : {"shared", "each"}, default="shared"
            Whether all images have the same scale of colours, or each its own.
        colorbar : bool, default=True
            Whether to show the scale.
        **kwargs : dict
            Passed to ``imshow``, such as ``cmap`` and ``vmax``.

        Returns
        -------
        self : KernelMatrixDisplay

        Examples
        --------
        >>> from kerneldiff.plot import KernelMatrixDisplay
        >>> display = KernelMatrixDisplay(images=[[-1.0, 2.0]], diverging=True)
        >>> display.plot(cmap="PuOr").im_.get_clim()
        (-2.0, 2.0)
        """
        _need_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib
        from matplotlib.ticker import MaxNLocator

        check_choice("scale", scale, ("shared", "each"))
        images = np.asarray(self.images, dtype=np.float64)
        if images.ndim not in (2, 4) or images.size == 0:
            raise ValueError(
                f"images has shape {images.shape}; it may be (N, M) or (n_rows, n_columns, N, M), "
                "without zeros."
            )
        if images.ndim == 2:
            images = images[np.newaxis, np.newaxis]
        rows, columns, n, m = images.shape
        titles = np.asarray([[""]] if self.titles is None else self.titles, dtype=object)
        titles = np.broadcast_to(titles, (rows, columns))
        defaults = {
            "cmap": "RdBu_r" if self.diverging else matplotlib.rcParams["image.cmap"],
            "aspect": "equal" if 1 / 3 <= n / m <= 3 else "auto",
        }
        options = _styled("image", defaults, kwargs)
        cmap = matplotlib.colormaps.get_cmap(options["cmap"]).with_extremes(bad=_NAN)
        figsize = (1.8 + 2.4 * columns, 0.85 + 2.4 * rows) if rows * columns > 1 else (5.0, 4.2)
        axes = _make_axes(ax, rows, columns, figsize=figsize, sharex=True, sharey=True)
        self.axes_, self.ims_ = axes, np.empty((rows, columns), dtype=object)
        self.ax_, self.figure_ = axes[0, 0], axes[0, 0].figure
        for place in np.ndindex(rows, columns):
            part, limits = axes[place], {}
            if not {"norm", "vmin", "vmax"} & options.keys():
                limits = self._limits(images if scale == "shared" else images[place])
            style = {**limits, **options, "cmap": cmap}
            self.ims_[place] = part.imshow(images[place], **style)
            part.set_title(titles[place], fontsize="medium")
            for axis in (part.xaxis, part.yaxis):
                axis.set_major_locator(MaxNLocator(4, integer=True))
            part.set(xlabel=self.xlabel or "", ylabel=self.ylabel or "")
            part.label_outer()
        self.im_ = self.ims_[0, 0]
        self.colorbars_: list[Any] = []
        groups: list[Any] = [(self.im_, list(axes.flat), images)]
        if scale == "each":
            groups = list(zip(self.ims_.flat, axes.flat, images.reshape(-1, n, m), strict=True))
        for im, beside, shown in groups if colorbar else ():
            # As high as a row of square images, which leave some of their places empty.
            shrink = 0.85 if rows == 1 < columns and scale == "shared" else 1.0
            bar = self.figure_.colorbar(im, ax=beside, shrink=shrink)
            bar.outline.set_visible(False)
            if np.isnan(shown).any():
                bar.ax.set_xlabel("\N{BLACK SQUARE} NaN", color=_NAN)
            self.colorbars_.append(bar)
        return self

    def _limits(self, images: np.ndarray) -> dict[str, float]:
        known = images[np.isfinite(images)]
        if not self.diverging:
            return {"vmin": known.min(initial=np.inf), "vmax": known.max(initial=-np.inf)}
        largest = np.abs(known).max(initial=0.0) or 1.0
        return {"vmin": -largest, "vmax": largest}


def _components(components: Any, what: str, names: Sequence[str]) -> np.ndarray:
    """Which entries of a derivative are shown where, of shape (rows, columns, order)."""
    d, order = len(names), ("value", "gradient", "hessian").index(what)
    if components is None:
        table = np.array(list(np.ndindex(*[d] * order)), dtype=int)
        table = table.reshape(d if order == 2 else 1, d if order else 1, order)
    elif order == 0:
        raise ValueError(f"components is {components!r}; values have none, it must be None.")
    else:
        if isinstance(components, str) or not len(components):
            raise ValueError(
                f"components is {components!r}; it must be a sequence of "
                f"{'columns' if order == 1 else 'pairs of columns'}."
            )
        rows = []
        for item in components:
            entry = [item] if order == 1 else item
            if isinstance(entry, str) or np.ndim(entry) != 1 or len(entry) != order:
                raise ValueError(f"components has {item!r}; for a Hessian it must hold pairs.")
            rows.append([_column("components", a, names) for a in entry])
        table = np.array(rows)[np.newaxis]
    if table.shape[0] * table.shape[1] > _MOST_IMAGES:
        raise ValueError(
            f"components is {components!r}, which are {table.shape[0] * table.shape[1]} images; it "
            f"must choose at most {_MOST_IMAGES}."
        )
    return table


def _derivative_title(wrt: str, names: Sequence[str]) -> str:
    if not wrt:
        return "$k(x, y)$"
    below, lines = [], []
    for argument, name in zip(wrt, names, strict=True):
        index = _index(name)
        below.append(rf"\partial {argument}{index or ''}")
        if index is None:
            lines.append(f"{argument}: {_text(name)}")
    if len(wrt) == 1:
        return "\n".join([rf"$\partial k/{below[0]}$", *lines])
    return "\n".join([rf"$\partial^2 k/({below[0]}\,{below[1]})$", *lines])


# ----------------------------------------------------------------------------- Gaussian processes


class GaussianProcessDisplay:
    """A Gaussian process along one column of its inputs, or over two of them.

    Over one it is a line with a band, which holds 95 % of the process, and slopes are segments;
    over two it is a field of colours, and gradients are arrows. Use `from_estimator` to make one;
    the parameters here are what it computes, and are attributes, too.

    Parameters
    ----------
    grid : sequence of one or two array-likes
        Coordinates at which the process is known: (n,), or (n,) and (m,).
    mean : array-like of shape (n,) or (n, m)
        Means.
    std : array-like of shape (n,) or (n, m), default=None
        Standard deviations.
    X : array-like of shape (N, 1) or (N, 2), default=None
        Points of observations.
    y : array-like of shape (N,), default=None
        Values observed there; NaN, or None for all, are those that were not observed.
    dy : array-like of shape (N, 1) or (N, 2), default=None
        Gradients observed there, likewise.
    X_gradient : array-like of shape (K, 1) or (K, 2), default=None
        Points of predicted gradients.
    gradient : array-like of shape (K, 1) or (K, 2), default=None
        Predicted gradients.
    gradient_std : array-like of shape (K, 1) or (K, 2), default=None
        Their standard deviations.
    feature_names : sequence of str, default=None
        Names of the columns.
    target_name : str, default=None
        Name of the values.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the picture.
    figure_ : matplotlib Figure
        With the axes.
    line_ : matplotlib Line2D or None
        The mean over one column.
    band_ : matplotlib PolyCollection or None
        The band around it.
    points_ : matplotlib PathCollection or None
        Points of observations.
    slopes_ : matplotlib LineCollection or None
        Observed slopes.
    fans_ : matplotlib PolyCollection or None
        Predicted slopes: each fan holds 95 % of them.
    field_ : matplotlib QuadContourSet or None
        The process over two columns.
    quiver_ : list of matplotlib Quiver
        Observed and predicted gradients.
    colorbar_ : matplotlib Colorbar or None
        The scale of the field.

    See Also
    --------
    kerneldiff.GaussianProcessRegressor : What is shown.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff.plot import GaussianProcessDisplay
    >>> x = np.linspace(0, 3, 31)
    >>> display = GaussianProcessDisplay(grid=[x], mean=np.sin(x), std=0.1 * x)
    >>> display.plot().line_.get_ydata().max().round(2)
    np.float64(1.0)
    """

    def __init__(
        self,
        *,
        grid: Sequence[ArrayLike],
        mean: ArrayLike,
        std: ArrayLike | None = None,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        dy: ArrayLike | None = None,
        X_gradient: ArrayLike | None = None,
        gradient: ArrayLike | None = None,
        gradient_std: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        target_name: str | None = None,
    ) -> None:
        self.grid = grid
        self.mean = mean
        self.std = std
        self.X = X
        self.y = y
        self.dy = dy
        self.X_gradient = X_gradient
        self.gradient = gradient
        self.gradient_std = gradient_std
        self.feature_names = feature_names
        self.target_name = target_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        features: Sequence[int | str] | None = None,
        at: ArrayLike | None = None,
        gradients: str | None = "auto",
        n_gradients: int = 12,
        grid_resolution: int | None = None,
        margin: float = 0.05,
        target: int | None = None,
        feature_names: Sequence[str] | None = None,
        target_name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Show a Gaussian process that was fitted.

        Parameters
        ----------
        estimator : GaussianProcessRegressor
            Fitted, of this library or of scikit-learn; the latter knows no gradients.
        X : array-like of shape (n, D), default=None
            Points whose ranges the picture shows; None stands for those of the fit.
        features : sequence of one or two columns, default=None
            The columns that vary, by their numbers or names. None stands for all, which must then
            be one or two.
        at : array-like of shape (D,), default=None
            The point with the other columns; None is the median of X. Observations are only shown
            where there are no other columns, as they are elsewhere.
        gradients : {"auto", "observed", "predicted", "both"} or None, default="auto"
            Which gradients are shown. "auto" shows those observed, and over two columns those
            predicted, if there are such.
        n_gradients : int, default=12
            How many predicted gradients there are along a column.
        grid_resolution : int, default=None
            How many points there are along a column: 300 for one column and 80 for two by default.
        margin : float, default=0.05
            How far the picture goes beyond the points, as a part of their range.
        target : int, default=None
            Which target is shown, if there are several.
        feature_names : sequence of str, default=None
            Names of all columns of X; by default those that the estimator or X have.
        target_name : str, default=None
            Name of the values.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Further arguments of `plot`.

        Returns
        -------
        display : GaussianProcessDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        TypeError
            If the estimator is no Gaussian process regressor.
        ValueError
            If an argument has a wrong shape or value, or if gradients are asked for that there are
            none of.

        Notes
        -----
        As those of `predict`, standard deviations have the noise of a WhiteKernel in them: the band
        is then one of observations, not of the function.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> from kerneldiff.plot import GaussianProcessDisplay
        >>> X = np.array([[0.0], [2.0], [5.0]])
        >>> model = GaussianProcessRegressor(RBF(1.5), optimizer=None)
        >>> model = model.fit(X, np.sin(X[:, 0]), dy=np.cos(X))
        >>> display = GaussianProcessDisplay.from_estimator(model, feature_names=["time"])
        >>> display.ax_.get_xlabel(), len(display.slopes_.get_segments())
        ('time', 3)
        """
        _need_matplotlib(f"{cls.__name__}.from_estimator")
        if not isinstance(estimator, _Base):
            raise TypeError(
                f"estimator is of type {type(estimator).__name__}; it must be a "
                "GaussianProcessRegressor."
            )
        check_is_fitted(estimator, "X_train_")
        train = _table(estimator.X_train_, "X of the estimator")
        d = train.shape[1]
        points = train if X is None else _columns_of(X, d, estimator)
        names = _names(feature_names, d, estimator, X)
        if gradients is not None:
            check_choice("gradients", gradients, ("auto", "observed", "predicted", "both"))
        varied = _varied(features, names)
        base = _base_point(at, points)
        resolution = (300, 80)[len(varied) - 1] if grid_resolution is None else grid_resolution
        _check_count("grid_resolution", resolution, 2)
        _check_count("n_gradients", n_gradients, 1)
        if not (isinstance(margin, int | float) and 0 <= margin < np.inf):
            raise ValueError(f"margin is {margin!r}; it must be finite and not negative.")
        data = _training_data(estimator)
        target = _chosen_target(target, data.n_targets)
        able = hasattr(estimator, "predict_gradient") and estimator._data is not None
        whole = len(varied) == d
        observed = whole and data.dy is not None
        shown = {"observed", "predicted"} if gradients == "both" else {gradients}
        if gradients == "auto":
            shown = {"observed"} if observed else set()
            if able and len(varied) == 2:
                shown = shown | {"predicted"}
        elif "observed" in shown and not observed:
            raise ValueError(
                f"gradients is {gradients!r}, and none were observed"
                + ("." if whole else " where other columns are fixed.")
            )
        elif "predicted" in shown and not able:
            raise ValueError(
                f"gradients is {gradients!r}, and the estimator cannot predict them: it must be "
                "kerneldiff's, with a kernel that can be read."
            )

        def made(counts: Sequence[np.ndarray]) -> np.ndarray:
            mesh = np.meshgrid(*counts, indexing="ij")
            result = np.tile(base, (mesh[0].size, 1))
            for column, coordinates in zip(varied, mesh, strict=True):
                result[:, column] = coordinates.ravel()
            return result

        grid = [_span(points[:, column], margin, resolution) for column in varied]
        shape = tuple(map(len, grid))
        with _without_names():
            mean, std = estimator.predict(made(grid), return_std=True)
            display = cls(
                grid=grid,
                mean=mean.reshape(len(mean), -1)[:, target].reshape(shape),
                std=std.reshape(len(std), -1)[:, target].reshape(shape),
                X=train[:, varied] if whole else None,
                y=data.y[:, target] if whole and data.y is not None else None,
                dy=data.dy[:, target][:, varied]
                if data.dy is not None and "observed" in shown
                else None,
                feature_names=[names[column] for column in varied],
                target_name=target_name,
            )
            if "predicted" in shown:
                # In the middles of cells, so that no arrow begins at the edge.
                ends = [(axis[0], axis[-1]) for axis in grid]
                middles = (np.arange(n_gradients) + 0.5) / n_gradients
                where = made([low + (high - low) * middles for low, high in ends])
                # The deviations are for fans, and do not exist for all kernels.
                results = [estimator.predict_gradient(where)]
                if len(varied) == 1:
                    results = list(estimator.predict_gradient(where, return_std=True))
                results = [a.reshape(len(where), -1, d)[:, target][:, varied] for a in results]
                display.X_gradient, display.gradient = where[:, varied], results[0]
                display.gradient_std = results[1] if len(results) > 1 else None
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        response: str = "mean",
        line_kwargs: Mapping[str, Any] | None = None,
        band_kwargs: Mapping[str, Any] | None = None,
        scatter_kwargs: Mapping[str, Any] | None = None,
        gradient_kwargs: Mapping[str, Any] | None = None,
        contour_kwargs: Mapping[str, Any] | None = None,
        legend: bool = True,
    ) -> Self:
        """Draw the process.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure. Arrows are at right angles to contours on the
            screen: where axes are free in shape, arrows make them square.
        response : {"mean", "std"}, default="mean"
            What the colours of a field show.
        line_kwargs, band_kwargs, scatter_kwargs, gradient_kwargs : dict, default=None
            Passed to ``plot``, ``fill_between``, ``scatter``, and ``LineCollection`` or ``quiver``.
        contour_kwargs : dict, default=None
            Passed to ``contourf``.
        legend : bool, default=True
            Whether to name the parts of a line.

        Returns
        -------
        self : GaussianProcessDisplay

        Examples
        --------
        >>> import numpy as np
        >>> from kerneldiff.plot import GaussianProcessDisplay
        >>> x = np.linspace(0, 3, 31)
        >>> display = GaussianProcessDisplay(grid=[x, x], mean=np.outer(x, np.sin(x)))
        >>> display.plot(contour_kwargs={"cmap": "cividis"}).field_.get_cmap().name
        'cividis'
        """
        _need_matplotlib(f"{type(self).__name__}.plot")
        check_choice("response", response, ("mean", "std"))
        if response == "std" and self.std is None:
            raise ValueError("response is 'std', which the display has none of.")
        grid = [np.asarray(axis, dtype=np.float64) for axis in self.grid]
        shape = tuple(map(len, grid))
        if len(grid) not in (1, 2) or np.shape(self.mean) != shape:
            raise ValueError(
                f"mean has shape {np.shape(self.mean)}; with {len(grid)} coordinates in grid it "
                f"must have shape {shape}, with one or two of them."
            )
        if ax is None:
            axes = _make_axes(None)
            _bare(axes)
            ax = axes[0, 0]
        else:
            ax = _make_axes(ax)[0, 0]
        self.ax_, self.figure_ = ax, ax.figure
        self.line_: Any = None
        self.band_: Any = None
        self.points_: Any = None
        self.slopes_: Any = None
        self.fans_: Any = None
        self.field_: Any = None
        self.colorbar_: Any = None
        self.quiver_: list[Any] = []
        if len(grid) == 1:
            self._plot_line(grid[0], line_kwargs, band_kwargs, scatter_kwargs, gradient_kwargs)
            if legend:
                ax.legend(frameon=False)
        else:
            self._plot_field(grid, response, contour_kwargs, scatter_kwargs, gradient_kwargs)
        return self

    def _plot_line(self, x: np.ndarray, line: Any, band: Any, scatter: Any, gradients: Any) -> None:
        ax, mean = self.ax_, np.asarray(self.mean)
        low = high = mean
        if self.std is not None:
            low, high = mean - _WIDTH * np.asarray(self.std), mean + _WIDTH * np.asarray(self.std)
            options = {"color": _color(0), "alpha": 0.2, "linewidth": 0, "label": "95 % band"}
            self.band_ = ax.fill_between(x, low, high, **_styled("collection", options, band))
        options = {"color": _color(0), "label": "mean"}
        (self.line_,) = ax.plot(x, mean, **_styled("line", options, line))
        points = None if self.X is None else np.asarray(self.X)[:, 0]
        heights = np.concatenate([low, high])
        if points is not None and self.y is not None:
            values = np.asarray(self.y, dtype=np.float64)
            heights = np.concatenate([heights, values[np.isfinite(values)]])
            options = {"color": _ink(ax), "s": _size(len(points)), "zorder": 3, "label": "data"}
            self.points_ = ax.scatter(points, values, **_styled("collection", options, scatter))
        unit = np.array([np.ptp(x), np.ptp(heights) or 1.0])
        if points is not None and self.dy is not None:
            values = np.full(len(points), np.nan) if self.y is None else np.array(self.y)
            # Where there was no value, the slope is that of the mean.
            values = np.where(np.isfinite(values), values, np.interp(points, x, mean))
            self._plot_slopes(points, values, unit, gradients)
        if self.X_gradient is not None:
            self._plot_fans(x, mean, unit, gradients)
        name = "x" if self.feature_names is None else self.feature_names[0]
        ax.set(xlabel=_text(name), ylabel=_text(self.target_name or "y"), xlim=(x[0], x[-1]))

    def _plot_slopes(self, x: np.ndarray, y: np.ndarray, unit: np.ndarray, given: Any) -> None:
        from matplotlib.collections import LineCollection

        slopes = np.asarray(self.dy, dtype=np.float64)[:, 0]
        known = np.isfinite(slopes)
        segments = _segments(x[known], y[known], slopes[known], unit)
        options = {"color": _color(1), "linewidth": 2, "zorder": 2.5, "label": "observed slopes"}
        # Round ends, so that a short segment beneath a point is still seen as one.
        options["capstyle"] = "round"
        self.slopes_ = LineCollection(list(segments), **_styled("collection", options, given))
        self.ax_.add_collection(self.slopes_)

    def _plot_fans(self, x: np.ndarray, mean: np.ndarray, unit: np.ndarray, given: Any) -> None:
        from matplotlib.collections import PolyCollection

        at = np.asarray(self.X_gradient)[:, 0]
        slopes = np.asarray(self.gradient)[:, 0]
        width = 0.0 if self.gradient_std is None else _WIDTH * np.asarray(self.gradient_std)[:, 0]
        height = np.interp(at, x, mean)
        lower, upper = (_segments(at, height, slopes + s * width, unit) for s in (-1, 1))
        # Two triangles that meet in the point.
        shapes = np.concatenate([lower[:, :1], upper[:, :1], upper[:, 1:], lower[:, 1:]], axis=1)
        label = "slopes, 95 %" if self.gradient_std is not None else "slopes"
        options = {"facecolor": _color(2), "edgecolor": _color(2), "alpha": 0.4, "label": label}
        options |= {"linewidth": 1, "zorder": 2.2}
        self.fans_ = PolyCollection(list(shapes), **_styled("collection", options, given))
        self.ax_.add_collection(self.fans_)

    def _plot_field(
        self, grid: list[np.ndarray], response: str, contour: Any, scatter: Any, gradients: Any
    ) -> None:
        import matplotlib

        ax, target = self.ax_, _text(self.target_name or "y")
        field = np.asarray(self.mean if response == "mean" else self.std).T
        options = {"levels": 14, "cmap": matplotlib.rcParams["image.cmap"], **(contour or {})}
        if "colors" in options:
            del options["cmap"]
        self.field_ = ax.contourf(*grid, field, **options)
        label = target if response == "mean" else f"standard deviation of {target}"
        self.colorbar_ = self.figure_.colorbar(self.field_, ax=ax, label=label)
        self.colorbar_.outline.set_visible(False)
        ax.set(xlim=grid[0][[0, -1]], ylim=grid[1][[0, -1]])
        names = ["x0", "x1"] if self.feature_names is None else self.feature_names
        ax.set(xlabel=_text(names[0]), ylabel=_text(names[1]))
        if self.X is not None:
            points = np.asarray(self.X)
            options = {"color": "white", "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
            options["s"] = _size(len(points))
            style = _styled("collection", options, scatter)
            self.points_ = ax.scatter(points[:, 0], points[:, 1], **style)
        arrows = []
        if self.X_gradient is not None:
            arrows.append(
                (self.X_gradient, self.gradient, {"color": "white", "alpha": 0.8, "pivot": "mid"})
            )
        if self.X is not None and self.dy is not None:
            arrows.append((self.X, self.dy, {"color": _PALETTE[1]}))
        if not arrows:
            return
        if ax.get_aspect() == "auto" and ax.get_box_aspect() is None:
            ax.set_box_aspect(1)
        unit = np.array([np.ptp(grid[0]), np.ptp(grid[1])])
        shape = ax.get_box_aspect()
        if shape is None:
            shape = ax.get_aspect() * unit[1] / unit[0]
        # Slopes in units of the width of the picture, along its width and its height.
        fields = [np.asarray(g, dtype=np.float64) * unit / [1, shape] for _, g, _ in arrows]
        longest = max(np.nanmax(np.hypot(*f.T), initial=0.0) for f in fields) or 1.0
        # The longest just does not reach the next one.
        count = 12 if self.X_gradient is None else np.sqrt(len(np.asarray(self.X_gradient)))
        for (where, _, look), f in zip(arrows, fields, strict=True):
            places = np.asarray(where)
            known = np.isfinite(f).all(axis=1)
            options = {"scale": longest * count / 0.95, "scale_units": "width", "zorder": 2.5}
            options |= {"width": 0.004, **look}
            style = _styled("collection", options, gradients)
            self.quiver_.append(ax.quiver(*places[known].T, *f[known].T, **style))


class _TrainingData(NamedTuple):
    """What an estimator was fitted to, in the units of the user."""

    y: np.ndarray | None  # (N, T)
    dy: np.ndarray | None  # (N, T, D)
    n_targets: int


def _training_data(estimator: Any) -> _TrainingData:
    mean, std = np.atleast_1d(estimator._y_train_mean), np.atleast_1d(estimator._y_train_std)
    y, dy, t = estimator.y_train_, getattr(estimator, "dy_train_", None), len(mean)
    if y is not None:
        t = 1 if y.ndim == 1 else y.shape[1]
        y = y.reshape(len(y), t) * std + mean
    if dy is not None:
        n, d = len(dy), dy.shape[-1]
        t = dy.shape[1] if dy.ndim == 3 else 1
        dy = dy.reshape(n, t, d) * np.reshape(std, (-1, 1)) / estimator._column_scale(d)
    return _TrainingData(y, dy, t)


def _varied(features: Any, names: Sequence[str]) -> list[int]:
    """The numbers of the columns that vary."""
    d = len(names)
    if features is None:
        if d > 2:
            raise ValueError(
                f"features is None, and there are {d} columns; it must name one or two of them."
            )
        return list(range(d))
    items = [features] if isinstance(features, str | int | np.integer) else list(features)
    columns = [_column("features", item, names) for item in items]
    if len(columns) not in (1, 2) or len(set(columns)) < len(columns):
        raise ValueError(f"features is {features!r}; it must name one or two columns.")
    return columns


def _span(x: np.ndarray, margin: float, count: int) -> np.ndarray:
    """Coordinates from the smallest to the largest and a bit beyond."""
    low, high = x.min(), x.max()
    # About a single value, as matplotlib has it.
    extra = margin * (high - low) if high > low else 0.5 * max(abs(low), 1.0)
    return np.linspace(low - extra, high + extra, count)


def _size(count: int) -> float:
    """Of marks, in square points: smaller where there are many."""
    return float(np.clip(6000 / max(count, 1), 4, 24))


def _segments(x: np.ndarray, y: np.ndarray, slopes: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Segments of the same length on the screen through points, of shape (n, 2, 2)."""
    direction = np.column_stack([np.ones_like(slopes), slopes])
    # A tenth of the picture, of the same length whatever the slope.
    direction *= 0.05 / np.linalg.norm(direction / unit, axis=1, keepdims=True)
    middle = np.column_stack([x, y])
    return np.stack([middle - direction, middle + direction], axis=1)


# --------------------------------------------------------------------------------- tanh functions


class JacobianDisplay:
    """Tanh functions along one column, and their derivatives by slope and bias.

    Use `from_estimator` to make one; the parameters here are what it computes, and are attributes,
    too.

    Parameters
    ----------
    x : array-like of shape (n,)
        Coordinates.
    functions : array-like of shape (n, K)
        Values of the functions φ_k = tanh(a_k x + b_k).
    slope_jacobian : array-like of shape (n, K)
        ∂φ_k/∂a_k.
    bias_jacobian : array-like of shape (n, K)
        ∂φ_k/∂b_k.
    components : sequence of int, default=None
        Numbers k of the functions.
    feature_name : str, default=None
        Name of the column.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (3, 1)
        With functions, derivatives by slope and derivatives by bias.
    figure_ : matplotlib Figure
        With all of them.
    lines_ : ndarray of matplotlib Line2D of shape (3, K)
        One for each function in each of the axes.

    See Also
    --------
    kerneldiff.tanh_jacobian : What is shown.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff.plot import JacobianDisplay
    >>> x = np.linspace(-3, 3, 61)
    >>> phi = np.tanh(np.column_stack([x, 2 * x - 1]))
    >>> J = 1 - phi**2
    >>> display = JacobianDisplay(
    ...     x=x, functions=phi, slope_jacobian=J * x[:, None], bias_jacobian=J
    ... )
    >>> display.plot().lines_.shape
    (3, 2)
    """

    def __init__(
        self,
        *,
        x: ArrayLike,
        functions: ArrayLike,
        slope_jacobian: ArrayLike,
        bias_jacobian: ArrayLike,
        components: Sequence[int] | None = None,
        feature_name: str | None = None,
    ) -> None:
        self.x = x
        self.functions = functions
        self.slope_jacobian = slope_jacobian
        self.bias_jacobian = bias_jacobian
        self.components = components
        self.feature_name = feature_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        feature: int | str | None = None,
        at: ArrayLike | None = None,
        components: Sequence[int] | None = None,
        grid_resolution: int = 300,
        margin: float = 0.05,
        feature_names: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Show the functions of an estimator along one column.

        Parameters
        ----------
        estimator : TanhBasis or TanhRegressor
            Fitted, with a single layer.
        X : array-like of shape (n, D)
            Points whose range the picture shows.
        feature : int or str, default=None
            The column that varies, by its number or name; with several columns there must be one.
        at : array-like of shape (D,), default=None
            The point with the other columns; None is the median of X.
        components : sequence of int, default=None
            The functions that are shown; None shows all.
        grid_resolution : int, default=300
            Number of points along the column.
        margin : float, default=0.05
            How far the picture goes beyond the points, as a part of their range.
        feature_names : sequence of str, default=None
            Names of all columns of X; by default those that the estimator or X have.
        ax : matplotlib Axes or array of three of them, default=None
            Where to draw, as in `plot`.
        **kwargs : dict
            Further arguments of `plot`.

        Returns
        -------
        display : JacobianDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        TypeError
            If the estimator has no weights of tanh functions.
        ValueError
            If an argument has a wrong shape or value, or if there are several layers.

        Examples
        --------
        >>> import numpy as np
        >>> from kerneldiff import TanhBasis
        >>> from kerneldiff.plot import JacobianDisplay
        >>> X = np.linspace(-3, 3, 20).reshape(-1, 1)
        >>> basis = TanhBasis(n_components=5, random_state=0).fit(X)
        >>> display = JacobianDisplay.from_estimator(basis, X)
        >>> display.lines_.shape, [ax.get_title(loc="left") for ax in display.axes_[1:, 0]]
        ((3, 5), ['derivatives by slope', 'derivatives by bias'])
        """
        _need_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        weights = getattr(estimator, "weights_", None)
        if isinstance(weights, list | tuple):
            if len(weights) != 1:
                raise ValueError(
                    f"estimator has {len(weights)} layers; functions of a column are those of one."
                )
            weights = weights[0]
        if weights is None:
            raise TypeError(
                f"estimator is of type {type(estimator).__name__}; it must be a TanhBasis or a "
                "TanhRegressor."
            )
        W = np.asarray(weights, dtype=np.float64)
        d, k = W.shape[0] - 1, W.shape[1]
        points = _columns_of(X, d, estimator)
        names = _names(feature_names, d, estimator, X)
        if feature is None and d > 1:
            raise ValueError(f"feature is None, and there are {d} columns; it must name one.")
        column = _column("feature", 0 if feature is None else feature, names)
        base = _base_point(at, points)
        _check_count("grid_resolution", grid_resolution, 2)
        if components is None:
            components = range(k)
        chosen = np.array(list(components))
        whole = chosen.ndim == 1 and chosen.dtype.kind in "iu" and len(chosen) > 0
        if not whole or chosen.min() < 0 or chosen.max() >= k:
            raise ValueError(
                f"components is {components!r}; it must hold numbers of functions, from 0 to "
                f"{k - 1}."
            )
        x = _span(points[:, column], margin, grid_resolution)
        where = np.tile(base, (len(x), 1))
        where[:, column] = x
        W = np.ascontiguousarray(W[:, chosen])
        J = tanh_jacobian(where, W)
        display = cls(
            x=x,
            functions=tanh_basis(where, W),
            slope_jacobian=J[:, column],
            bias_jacobian=J[:, d],
            components=chosen.tolist(),
            feature_name=names[column],
        )
        return display.plot(ax, **kwargs)

    def plot(
        self, ax: Any = None, *, cmap: Any = "viridis", legend: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the functions and their derivatives, one above the other.

        Functions have their colours in the order in which they turn along the column.

        Parameters
        ----------
        ax : matplotlib Axes or array of three of them, default=None
            Where to draw. Axes give their place to three smaller ones; None makes a new figure.
        cmap : str or matplotlib Colormap, default="viridis"
            Where colours are taken from.
        legend : bool, default=True
            Whether to name the functions, if they are not more than eight.
        **kwargs : dict
            Passed to ``plot``.

        Returns
        -------
        self : JacobianDisplay

        Examples
        --------
        >>> from kerneldiff.plot import JacobianDisplay
        >>> display = JacobianDisplay(
        ...     x=[0.0, 1.0],
        ...     functions=[[0.0], [0.8]],
        ...     slope_jacobian=[[0.0], [0.4]],
        ...     bias_jacobian=[[1.0], [0.4]],
        ... )
        >>> display.plot(linestyle="--").lines_[0, 0].get_linestyle()
        '--'
        """
        _need_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib

        x = np.asarray(self.x, dtype=np.float64)
        panels = [
            np.asarray(a, dtype=np.float64)
            for a in (self.functions, self.slope_jacobian, self.bias_jacobian)
        ]
        names = ("functions", "slope_jacobian", "bias_jacobian")
        for name, panel in zip(names, panels, strict=True):
            if panel.ndim != 2 or panel.shape != (len(x), panels[0].shape[1]):
                raise ValueError(
                    f"{name} has shape {panel.shape}; it must have {len(x)} rows, as x, and a "
                    "column for each function."
                )
        axes = _make_axes(ax, 3, 1, figsize=(6.4, 6.4), sharex=True)
        if ax is None:
            _bare(axes)
        k = panels[0].shape[1]
        numbers = list(range(k)) if self.components is None else list(self.components)
        # Not from end to end: these are lost on white or on black.
        colors = matplotlib.colormaps.get_cmap(cmap)(np.linspace(0.1, 0.88, k))
        order = np.argsort(np.argmax(np.abs(panels[2]), axis=0), kind="stable")
        rank = np.empty(k, dtype=int)
        rank[order] = np.arange(k)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        self.lines_ = np.empty((3, k), dtype=object)
        # Thinner where there are many.
        width = matplotlib.rcParams["lines.linewidth"] * np.clip((8 / max(k, 1)) ** 0.5, 0.4, 1)
        labels = (
            r"$\varphi_k$",
            r"$\partial\varphi_k/\partial a_k$",
            r"$\partial\varphi_k/\partial b_k$",
        )
        titles = (
            r"functions $\varphi_k = \tanh(a_k\cdot x + b_k)$",
            "derivatives by slope",
            "derivatives by bias",
        )
        for i, (panel, part) in enumerate(zip(panels, axes.flat, strict=True)):
            for number in range(k):
                options = {"color": colors[rank[number]], "linewidth": width}
                options["label"] = f"$k = {numbers[number]}$"
                style = _styled("line", options, kwargs)
                (self.lines_[i, number],) = part.plot(x, panel[:, number], **style)
            part.set(ylabel=labels[i], xlim=(x[0], x[-1]))
            part.set_title(titles[i], loc="left", fontsize="medium")
            part.label_outer()
        axes[2, 0].set_xlabel(_text(self.feature_name or "x"))
        if legend and k <= 8:
            handles = list(self.lines_[0, order])
            axes[0, 0].legend(
                handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False
            )
        self.figure_.align_ylabels(list(axes.flat))
        return self


# ---------------------------------------------------------------------------------- sensitivities


class _Measure(NamedTuple):
    """How derivatives of a column become one number."""

    power: int
    rooted: bool
    label: str
    unit: str  # what it is a part of, where targets are given


_MEASURES = {
    "rms": _Measure(
        2,
        True,
        "root mean square slope × standard deviation of the feature",
        "standard deviations",
    ),
    "absolute": _Measure(
        1,
        False,
        "mean absolute slope × standard deviation of the feature",
        "standard deviations",
    ),
    "squared": _Measure(2, False, "mean squared slope × variance of the feature", "variances"),
}


def sensitivities(
    slopes: np.ndarray,
    scale: np.ndarray,
    measure: str = "rms",
    n_bootstraps: int = 1000,
    random_state: Any = 0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Say how far each column moves a function, from its slopes at some points.

    Parameters
    ----------
    slopes : ndarray of shape (n, D)
        Derivatives by the columns.
    scale : ndarray of shape (D,)
        What the columns vary by, such as their standard deviations.
    measure : {"rms", "absolute", "squared"}, default="rms"
        The root of the mean of the squares of slope times scale, the mean of their absolute values,
        or that of their squares.
    n_bootstraps : int, default=1000
        How often points are drawn with replacement for the intervals.
    random_state : int, RandomState instance or None, default=0
        Draws them.

    Returns
    -------
    values : ndarray of shape (D,)
    intervals : ndarray of shape (2, D) or None
        They hold 95 % of the values that points drawn with replacement give; None for no draws.

    See Also
    --------
    SensitivityDisplay.from_estimator : Where the measures come from.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff.plot import sensitivities
    >>> slopes = np.array([[3.0, 1.0], [-4.0, 1.0]])
    >>> sensitivities(slopes, np.array([1.0, 2.0]), "absolute", n_bootstraps=0)
    (array([3.5, 2. ]), None)
    """
    power, rooted, *_ = _MEASURES[measure]
    n = len(slopes)
    terms = np.abs(slopes * scale) ** power
    means = terms.mean(axis=0, keepdims=True)
    if n_bootstraps:
        # How often each point is drawn; that gives the same means as drawing points.
        counts = check_random_state(random_state).multinomial(n, [1 / n] * n, n_bootstraps)
        means = np.vstack([means, counts @ terms / n])
    if rooted:
        means = np.sqrt(means)
    return means[0], np.quantile(means[1:], [0.025, 0.975], axis=0) if n_bootstraps else None


class SensitivityDisplay:
    """Derivative-based sensitivities of a model to its columns, as bars.

    Use `from_estimator` to make one; the parameters here are what it computes, and are attributes,
    too.

    Parameters
    ----------
    sensitivities : array-like of shape (D,)
        A number that is not negative, for each column.
    intervals : array-like of shape (2, D), default=None
        Lower and upper ends of whiskers.
    feature_names : sequence of str, default=None
        Names of the columns.
    label : str, default=None
        What is shown, in words.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the bars.
    figure_ : matplotlib Figure
        With the axes.
    bars_ : matplotlib BarContainer
        From top to bottom.
    whiskers_ : matplotlib LineCollection or None
        In the order of the bars.
    order_ : ndarray of int
        The columns, from top to bottom.

    See Also
    --------
    sklearn.inspection.permutation_importance : What a score loses when a column is shuffled.

    Examples
    --------
    >>> from kerneldiff.plot import SensitivityDisplay
    >>> display = SensitivityDisplay(sensitivities=[1.0, 3.0], feature_names=["age", "weight"])
    >>> [label.get_text() for label in display.plot().ax_.get_yticklabels()]
    ['weight', 'age']
    """

    def __init__(
        self,
        *,
        sensitivities: ArrayLike,
        intervals: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        label: str | None = None,
    ) -> None:
        self.sensitivities = sensitivities
        self.intervals = intervals
        self.feature_names = feature_names
        self.label = label

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        measure: str = "rms",
        n_bootstraps: int = 1000,
        random_state: Any = 0,
        target: int | None = None,
        feature_names: Sequence[str] | None = None,
        target_name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Show the sensitivities of a model that predicts gradients.

        Parameters
        ----------
        estimator : GaussianProcessRegressor or TanhRegressor
            Or any other with a method `predict_gradient`.
        X : array-like of shape (N, D)
            Points over which means are taken.
        y : array-like of shape (N,), default=None
            Targets; if they are given, sensitivities are divided by their standard deviation (their
            variance for "squared").
        measure : {"rms", "absolute", "squared"}, default="rms"
            With σ_a for the standard deviation of a column: σ_a √E[(∂f/∂x_a)²], σ_a E|∂f/∂x_a| or
            σ_a² E[(∂f/∂x_a)²].
        n_bootstraps : int, default=1000
            How often points are drawn anew for the whiskers, which hold 95 % of the results; 0 for
            none. They tell how much the points matter, and not how well the model knows.
        random_state : int, RandomState instance or None, default=0
            Source of random numbers.
        target : int, default=None
            Which target is meant, if there are several.
        feature_names : sequence of str, default=None
            Names of the columns; by default those that the estimator or X have.
        target_name : str, default=None
            Name of the target.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Further arguments of `plot`.

        Returns
        -------
        display : SensitivityDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        TypeError
            If the estimator does not predict gradients.
        ValueError
            If an argument has a wrong shape or value.

        Notes
        -----
        For independent columns with normal distributions, "squared" with `y` is an upper bound of
        the total Sobol index of a column.

        References
        ----------
        I. M. Sobol' and S. Kucherenko, "Derivative based global sensitivity measures and their link
        with global sensitivity indices", Mathematics and Computers in Simulation 79 (2009)
        3009-3017. "absolute" is from S. Kucherenko et al., "Monte Carlo evaluation of
        derivative-based global sensitivity measures", Reliability Engineering and System Safety 94
        (2009) 1135-1148.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> from kerneldiff.plot import SensitivityDisplay
        >>> X = np.random.default_rng(0).normal(size=(40, 2))
        >>> y = np.sin(X[:, 0]) + 0.1 * X[:, 1]
        >>> model = GaussianProcessRegressor(RBF(2.0), alpha=1e-6, optimizer=None).fit(X, y)
        >>> display = SensitivityDisplay.from_estimator(model, X, feature_names=["u", "v"])
        >>> [label.get_text() for label in display.ax_.get_yticklabels()]
        ['u', 'v']
        """
        _need_matplotlib(f"{cls.__name__}.from_estimator")
        check_choice("measure", measure, tuple(_MEASURES))
        if not hasattr(estimator, "predict_gradient"):
            raise TypeError(
                f"estimator is of type {type(estimator).__name__}, which has no predict_gradient; "
                "it may be a GaussianProcessRegressor or a TanhRegressor."
            )
        points = _table(X, "X")
        n, d = points.shape
        names = _names(feature_names, d, estimator, X)
        _check_count("n_bootstraps", n_bootstraps, 0)
        unit = 1.0
        if y is not None:
            y = real_array(y, "y").astype(np.float64, copy=False)
            if y.shape != (n,) or not np.isfinite(y).all() or np.ptp(y) == 0:
                raise ValueError(
                    f"y has shape {y.shape}; it must hold {n} finite numbers that are not all the "
                    "same."
                )
            unit = float(np.std(y))
        slopes = np.asarray(estimator.predict_gradient(X))
        slopes = slopes.reshape(n, -1, d)
        slopes = slopes[:, _chosen_target(target, slopes.shape[1])]
        *_, label, target_unit = _MEASURES[measure]
        values, intervals = sensitivities(
            slopes, points.std(axis=0) / unit, measure, n_bootstraps, random_state
        )
        if y is not None:
            label += f",\nin {target_unit} of {_text(target_name or 'y')}"
        elif target_name:
            label += f"\n({_text(target_name)})"
        display = cls(
            sensitivities=values,
            intervals=intervals,
            feature_names=names,
            label=label,
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_features: int | None = None, **kwargs: Any) -> Self:
        """Draw the bars, the longest first.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        max_features : int, default=None
            How many columns to show, if not all.
        **kwargs : dict
            Passed to ``barh``.

        Returns
        -------
        self : SensitivityDisplay

        Examples
        --------
        >>> from kerneldiff.plot import SensitivityDisplay
        >>> display = SensitivityDisplay(sensitivities=[1.0, 3.0, 2.0]).plot(max_features=2)
        >>> display.order_
        array([1, 2])
        """
        _need_matplotlib(f"{type(self).__name__}.plot")
        values = np.asarray(self.sensitivities, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError(
                f"sensitivities has shape {values.shape}; it must have one number for each column."
            )
        if max_features is not None:
            _check_count("max_features", max_features, 1)
        names = _names(self.feature_names, len(values))
        self.order_ = order = np.argsort(-values, kind="stable")[:max_features]
        axes = _make_axes(ax, figsize=(6.4, max(1.6, 1.0 + 0.32 * len(order))))
        if ax is None:
            _bare(axes)
        ax = axes[0, 0]
        self.ax_, self.figure_ = ax, ax.figure
        rows = np.arange(len(order))
        options = {"color": _color(0), "height": 0.7}
        self.bars_ = ax.barh(rows, values[order], **_styled("patch", options, kwargs))
        self.whiskers_ = None
        if self.intervals is not None:
            low, high = np.asarray(self.intervals, dtype=np.float64)[:, order]
            self.whiskers_ = ax.hlines(rows, low, high, color=_ink(ax), linewidth=1.5)
        ax.set_yticks(rows, [_text(names[a]) for a in order])
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(order) - 0.5, -0.5), xlabel=self.label or "sensitivity")
        ax.set_xlim(left=0)
        return self


# ----------------------------------------------------------------------------------------- speeds


_KINDS = {
    "autodiff": "automatic differentiation",
    "peer": "hand-written code",
    "library": "other libraries",
}
_FIELDS = ("work", "kind", "over", "times")


class SpeedupDisplay:
    """How many times faster this library is than others, as bars on a logarithmic axis.

    Bars begin at 1: those to the right are work that is done faster, those to the left slower. Use
    `from_json` or `from_results` to make one.

    Parameters
    ----------
    speedups : sequence of dict
        Each with ``"work"`` and ``"over"``, what was compared with what; ``"kind"``, the kind of
        the other; and ``"times"``, the ratio of times. ``"target"``, if there is one, is the ratio
        that was to be reached.
    machine : str, default=None
        Where that was.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the bars.
    figure_ : matplotlib Figure
        With the axes.
    bars_ : dict from str to matplotlib BarContainer
        Bars of each kind.
    line_ : matplotlib Line2D
        The line at 1.
    texts_ : list of matplotlib Text
        Ratios and names of the others, in the order of `speedups`.

    Examples
    --------
    >>> from kerneldiff.plot import SpeedupDisplay
    >>> row = {"work": "gradient 2000, D = 10", "kind": "autodiff", "over": "JAX", "times": 13.2}
    >>> display = SpeedupDisplay(speedups=[row]).plot()
    >>> display.texts_[0].get_text()
    '13 × JAX'
    """

    def __init__(
        self, *, speedups: Sequence[Mapping[str, Any]], machine: str | None = None
    ) -> None:
        self.speedups = speedups
        self.machine = machine

    @classmethod
    def from_json(cls, path: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Show what ``kerneldiff bench --json`` wrote.

        Parameters
        ----------
        path : str or path
            The file.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Further arguments of `from_results`.

        Returns
        -------
        display : SpeedupDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        ValueError
            If the file does not hold that.

        Examples
        --------
        >>> import json, pathlib, tempfile
        >>> from kerneldiff.plot import SpeedupDisplay
        >>> row = {"work": "gradient", "kind": "peer", "over": "numba", "times": 2.0}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "speeds.json"
        ...     _ = file.write_text(json.dumps({"speedups": [row]}))
        ...     display = SpeedupDisplay.from_json(file)
        >>> display.ax_.get_xscale()
        'log'
        """
        _need_matplotlib(f"{cls.__name__}.from_json")
        try:
            results = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"path is {str(path)!r}, which holds no JSON: {error}") from None
        return cls.from_results(results, ax=ax, **kwargs)

    @classmethod
    def from_results(
        cls,
        results: Any,
        *,
        parts: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Show results of ``kerneldiff bench``.

        Parameters
        ----------
        results : dict or sequence of dict
            Results with ``"speedups"`` and perhaps ``"machine"``, or the speedups themselves.
        parts, kinds : sequence of str, default=None
            Only those with one of these as ``"part"`` and ``"kind"``.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            Further arguments of `plot`.

        Returns
        -------
        display : SpeedupDisplay

        Raises
        ------
        ImportError
            If there is no matplotlib.
        ValueError
            If there is nothing to show, or if it lacks something.

        Examples
        --------
        >>> from kerneldiff.plot import SpeedupDisplay
        >>> rows = [
        ...     {"work": "gradient", "kind": "peer", "over": "numba", "times": 2.0},
        ...     {"work": "gradient", "kind": "autodiff", "over": "JAX", "times": 13.0},
        ... ]
        >>> display = SpeedupDisplay.from_results(rows, kinds=["autodiff"])
        >>> list(display.bars_)
        ['autodiff']
        """
        _need_matplotlib(f"{cls.__name__}.from_results")
        facts = None
        if isinstance(results, Mapping):
            if "speedups" not in results:
                raise ValueError(
                    f"results has {', '.join(map(repr, results)) or 'nothing'}; it must have "
                    "'speedups', as the results of kerneldiff bench --json."
                )
            facts, results = results.get("machine"), results["speedups"]
        chosen = [
            row
            for row in results
            if (parts is None or row.get("part") in parts)
            and (kinds is None or row.get("kind") in kinds)
        ]
        machine = None
        if facts:
            known = [facts.get("processor"), facts.get("isa"), facts.get("date")]
            if facts.get("processors"):
                known.insert(1, f"{facts['processors']} processors")
            machine = ", ".join(str(fact) for fact in known if fact)
        return cls(speedups=chosen, machine=machine).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, names: bool = True, **kwargs: Any) -> Self:
        """Draw the bars, those of the same work together.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        names : bool, default=True
            Whether to write the names of the others beside the bars.
        **kwargs : dict
            Passed to ``barh``.

        Returns
        -------
        self : SpeedupDisplay

        Raises
        ------
        ValueError
            If there is nothing to show, or if it lacks something.

        Examples
        --------
        >>> from kerneldiff.plot import SpeedupDisplay
        >>> row = {"work": "gradient", "kind": "peer", "over": "numba", "times": 0.8}
        >>> display = SpeedupDisplay(speedups=[row]).plot(names=False)
        >>> display.texts_[0].get_text()
        '0.8 ×'
        """
        _need_matplotlib(f"{type(self).__name__}.plot")
        from matplotlib.ticker import LogLocator, NullFormatter

        speedups = _checked_speedups(self.speedups)
        # Rows from top to bottom, half of one apart between different work.
        works = list(dict.fromkeys((row.get("part"), row["work"]) for row in speedups))
        places = np.empty(len(speedups))
        ticks, height = [], 0.0
        for work in works:
            rows = [i for i, row in enumerate(speedups) if (row.get("part"), row["work"]) == work]
            places[rows] = height + np.arange(len(rows))
            ticks.append(height + (len(rows) - 1) / 2)
            height += len(rows) + 0.6
        axes = _make_axes(ax, figsize=(7.2, 1.3 + 0.24 * height))
        if ax is None:
            _bare(axes)
            axes[0, 0].spines["left"].set_visible(False)  # there is a line at 1
        ax = axes[0, 0]
        self.ax_, self.figure_, self.bars_, self.texts_ = ax, ax.figure, {}, []
        times = np.array([row["times"] for row in speedups], dtype=np.float64)
        ax.set_xscale("log")
        kinds = list(dict.fromkeys([*_KINDS, *(row["kind"] for row in speedups)]))
        for number, kind in enumerate(kinds):
            rows = [i for i, row in enumerate(speedups) if row["kind"] == kind]
            if rows:
                label = _KINDS.get(kind, _text(kind))
                options = {"color": _color(number), "height": 0.8, "label": label}
                style = _styled("patch", options, kwargs)
                self.bars_[kind] = ax.barh(places[rows], times[rows] - 1, left=1, **style)
        self.line_ = ax.axvline(1, color=_ink(ax), linewidth=1)
        ends = []
        for place, row in zip(places, speedups, strict=True):
            # To the right of all that there is in a row, where no names of work are.
            end = max(1.0, row["times"], row.get("target") or 0.0)
            if row.get("target"):
                ax.vlines(row["target"], place - 0.4, place + 0.4, color=_ink(ax), linewidth=1.5)
            words = f"{_ratio(row['times'])} ×" + (f" {_text(row['over'])}" if names else "")
            ends.append((end, len(words)))
            self.texts_.append(
                ax.annotate(
                    words,
                    (end, place),
                    (4, 0),
                    textcoords="offset points",
                    ha="left",
                    va="center",
                    color=_ink(ax),
                    fontsize="x-small",
                )
            )
        ax.set_yticks(ticks, [_text(work) for _, work in works])
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(height - 1.1, -0.6)
        # Room for the words: a letter takes some two hundredths of a width of ten centimetres.
        low = 0.8 * min(times.min(), 1.0)
        spans = [np.log(end / low) / (1 - min(0.02 * (n + 1), 0.7)) for end, n in ends]
        ax.set_xlim(low, low * np.exp(max(spans)))
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if times.max() > 30 else (1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("times as fast")
        if self.machine:
            ax.annotate(
                _text(self.machine),
                (1, 0),
                (0, -32),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="right",
                va="top",
                color=_ink(ax),
                fontsize="x-small",
            )
        if len(self.bars_) > 1:
            # To the left, above the names of the work.
            ax.legend(
                frameon=False,
                loc="lower right",
                bbox_to_anchor=(1, 1),
                ncols=len(self.bars_),
                fontsize="small",
            )
        return self


def _checked_speedups(speedups: Any) -> list[Mapping[str, Any]]:
    rows = list(speedups)
    if not rows:
        raise ValueError("speedups is empty; there is nothing to show.")
    for row in rows:
        missing = [field for field in _FIELDS if field not in row]
        if missing:
            raise ValueError(f"speedups has {dict(row)!r}, without {', '.join(missing)}.")
        if not (isinstance(row["times"], int | float) and 0 < row["times"] < np.inf):
            raise ValueError(
                f"speedups has times {row['times']!r} for {row['work']!r}; they must be positive "
                "and finite."
            )
    return rows


def _ratio(value: float) -> str:
    """Two digits, which is what speeds are good for."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
