"""The job on a table of the user's: what ``kerneldiff demo --data`` does.

A Gaussian process is fitted to some rows of a CSV file and compared with the others.  All checks of
the file come before the fit, and files are written when everything else is done.
"""

import argparse
import csv
import difflib
import importlib
import importlib.util
import io
import math
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from sklearn.base import clone
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, Matern, WhiteKernel
from sklearn.metrics import r2_score, root_mean_squared_error

from kerneldiff._files import InputError, Progress, png, print_table, write
from kerneldiff._validation import counted
from kerneldiff.gaussian_process import GaussianProcessRegressor, GradientWhiteKernel
from kerneldiff.plot import _MEASURES, _WIDTH, _text, sensitivities

__all__ = ["run"]

# Words that people and programs write where there is no value.
_NOTHING = {"", "-", "?", "na", "n/a", "nan", "null", "none", "#n/a"}
_FEWEST_ROWS = 10
# Of rows that are held out; more make the figures no better.
_MOST_HELD_OUT = 1000
# Numbers to learn from, gradients included: one likelihood takes some tenths of a second.
_MOST_OBSERVATIONS = 2000
# Of the rows with which the search for hyperparameters begins.
_FEW_OBSERVATIONS = 400
# Beyond this length scale, in standard deviations, a feature has hardly any influence.
_LONGEST = 1e3
# Letters of a name that are printed.
_WIDEST = 16


# ----------------------------------------------------------------------------------------- table


class Table(NamedTuple):
    """Columns of a CSV file."""

    path: Path
    names: list[str]
    texts: list[list[str]]  # of each column, stripped
    decimal: str
    lines: list[int]  # where each row ends in the file
    notes: list[str]  # what the user should know


def read(path: Path) -> Table:
    """Read a CSV file with a header.

    Parameters
    ----------
    path : Path

    Returns
    -------
    table : Table

    Raises
    ------
    InputError
        If there is no file, or if it is no table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"--data is {str(path)!r}: {error.strerror}.") from error
    notes = []
    try:
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        notes.append("the file is not in UTF-8 and was read as Latin-1")
    if "\0" in text:
        raise InputError(
            f"--data is {str(path)!r}, which is no text; save a spreadsheet as CSV first."
        )
    delimiter = _delimiter(text)
    try:
        reader = _reader(text, delimiter)
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(
            f"{str(path)!r} is no CSV file: line {reader.line_num}: {error}."
        ) from error
    if not rows:
        raise InputError(f"{str(path)!r} is empty.")
    header = [name.strip() for name in rows.pop(0)[1]]
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{str(path)!r}, line {line}: {counted(len(row), 'value')}, where the header has "
                f"{counted(len(header), 'name')}."
            )
    if len(header) == 1:
        raise InputError(
            f"{str(path)!r} has one column, {header[0]!r}; there must be more, separated by "
            "commas, semicolons or tabs."
        )
    if all(name in ("", *_NOTHING) or _number(name, ".") is not None for name in header):
        raise InputError(
            f"{str(path)!r} has no header: its first line holds numbers, and must hold the names "
            "of the columns."
        )
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise InputError(f"{str(path)!r} has {_columns(repeated)} more than once.")
    columns = [[row[c].strip() for _, row in rows] for c in range(len(header))]
    unnamed = [c for c, name in enumerate(header) if not name]
    if unnamed:
        notes.append(
            f"left out: {len(unnamed)} column{'s' * (len(unnamed) > 1)} without a name (number "
            f"{', '.join(str(c + 1) for c in unnamed)})"
        )
    named = [c for c, name in enumerate(header) if name]
    decimal = "."
    if delimiter != "," and any(_has_decimal_comma(columns[c]) for c in named):
        decimal = ","
        notes.append("commas in numbers were read as decimal points")
    return Table(
        path,
        [header[c] for c in named],
        [columns[c] for c in named],
        decimal,
        [line for line, _ in rows],
        notes,
    )


def _reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)


def _delimiter(text: str) -> str:
    """What separates columns: what gives the most rows as many values as the header has names."""

    def fit(delimiter: str) -> tuple[bool, float, int]:
        lengths = []
        try:
            for row in _reader(text, delimiter):
                if any(map(str.strip, row)):
                    lengths.append(len(row))
                if len(lengths) > 100:
                    break
        except csv.Error:
            return False, 0.0, 0
        if not lengths:
            return False, 0.0, 0
        first, *others = lengths
        share = sum(length == first for length in others) / max(len(others), 1)
        return first > 1, share, first

    return max((",", ";", "\t"), key=fit)


def _number(text: str, decimal: str) -> float | None:
    """The number that a text is, NaN for nothing; None if it is none."""
    if text.lower() in _NOTHING:
        return math.nan
    if "_" in text:  # which Python allows between digits
        return None
    try:
        return float(text.replace(",", ".") if decimal == "," else text)
    except ValueError:
        return None


def _has_decimal_comma(texts: Sequence[str]) -> bool:
    """Whether a column holds numbers if commas are decimal points, and else does not."""
    return any(_number(text, ".") is None for text in texts) and all(
        _number(text, ",") is not None for text in texts
    )


def _columns(names: Sequence[str]) -> str:
    """Some columns in a sentence."""
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    return f"column{'s' * (len(names) > 1)} {shown}"


def _checked_names(option: str, names: Sequence[str], table: Table) -> None:
    """Raise InputError, with what may have been meant, if there are no such columns."""
    for name in names:
        if name not in table.names:
            lower = {known.lower(): known for known in table.names}
            near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
            hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
            raise InputError(
                f"{option} names {name!r}, which {str(table.path)!r} does not have.{hint} It has "
                f"{_columns(table.names)}."
            )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{option} names {_columns(repeated)} more than once.")


class Data(NamedTuple):
    """What is learned from and predicted."""

    features: list[str]
    target: str
    X: np.ndarray  # (N, D)
    y: np.ndarray  # (N,)
    dy: np.ndarray | None  # (N, D)
    lines: np.ndarray  # of the file, (N,)
    notes: list[str]


def choose(
    table: Table,
    target: str,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    gradient: Sequence[str] = (),
    missing: str = "error",
) -> Data:
    """Take features, target and derivatives from a table.

    Parameters
    ----------
    table : Table
    target : str
        The column to predict.
    features : sequence of str, optional
        The columns to predict from; by default all others.
    drop : sequence of str
        Columns that are none of these.
    gradient : sequence of str
        Columns with derivatives, one for each feature, or none.
    missing : {"error", "drop"}
        What to do about rows without target or without a feature.

    Returns
    -------
    data : Data

    Raises
    ------
    InputError
        If there are no such columns, or if they do not hold what they should.
    """
    _checked_names("--target", [target], table)
    _checked_names("--gradient", gradient, table)
    _checked_names("--drop", drop, table)
    _checked_names("--features", features or (), table)
    for option, names in (
        ("--features", features or ()),
        ("--drop", drop),
        ("--gradient", gradient),
    ):
        if target in names:
            raise InputError(f"{option} names {target!r}, which is the target.")
    both = [name for name in gradient if name in (features or drop)]
    if both:
        option = "--features" if features else "--drop"
        raise InputError(f"--gradient and {option} both name {_columns(both)}.")
    if features is None:
        features = [n for n in table.names if n != target and n not in (*drop, *gradient)]
    if not features:
        raise InputError("no features are left to predict from.")
    if gradient and len(gradient) != len(features):
        raise InputError(
            f"--gradient names {counted(len(gradient), 'column')}; there must be {len(features)}, "
            f"the derivatives with respect to these features, in this order: {_columns(features)}."
        )
    used = [target, *features, *gradient]
    arrays = _numbers(table, used, target, drop, chosen=gradient)
    y, X = arrays[target], np.column_stack([arrays[name] for name in features])
    dy = np.column_stack([arrays[name] for name in gradient]) if gradient else None
    notes = list(table.notes)
    empty = [name for name in (target, *features) if np.isnan(arrays[name]).any()]
    kept = ~np.isnan(np.column_stack([y, X])).any(axis=1)
    if empty:
        count = len(kept) - int(kept.sum())
        if missing == "error":
            raise InputError(
                f"{count} of {counted(len(kept), 'row')} {'has' if count == 1 else 'have'} no "
                f"value in {_columns(empty)} (the first is line "
                f"{table.lines[int(np.argmin(kept))]}). Leave such rows out with: --missing drop"
            )
        notes.append(f"left out: {counted(count, 'row')} with missing values")
    X, y, dy = X[kept], y[kept], None if dy is None else dy[kept]
    if len(y) < _FEWEST_ROWS:
        raise InputError(
            f"{str(table.path)!r} has {counted(len(y), 'row')} to use; there must be at least "
            f"{_FEWEST_ROWS}."
        )
    constant = [name for name, column in zip(features, X.T, strict=True) if np.ptp(column) == 0]
    if constant:
        raise InputError(
            f"{_columns(constant)} {'has' if len(constant) == 1 else 'have'} the same value in all "
            f"rows, from which nothing can be learned.{_without(constant, drop)}"
        )
    if np.ptp(y) == 0:
        raise InputError(f"the target, {target!r}, has the same value in all rows.")
    if dy is not None and np.isnan(dy).all():
        raise InputError(f"there is no number in {_columns(list(gradient))} of --gradient.")
    return Data(list(features), target, X, y, dy, np.array(table.lines)[kept], notes)


def _without(names: Sequence[str], drop: Sequence[str]) -> str:
    """How to leave columns out."""
    return f" Leave out what is no feature with: --drop {shlex.join([*drop, *names])}"


def _numbers(
    table: Table, used: Sequence[str], target: str, drop: Sequence[str], chosen: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns as numbers, NaN where there is none."""
    arrays, texts = {}, {}
    for name in used:
        column = table.texts[table.names.index(name)]
        values = [_number(text, table.decimal) for text in column]
        if None in values:
            texts[name] = column[values.index(None)][:40]
            continue
        arrays[name] = np.array(values, dtype=np.float64)
        infinite = np.isinf(arrays[name])
        if infinite.any():
            line = table.lines[int(np.argmax(infinite))]
            raise InputError(f"column {name!r} is infinite in line {line}.")
    for name in (target, *chosen):
        if name in texts:
            raise InputError(f"column {name!r} holds text, such as {texts[name]!r}, not numbers.")
    if texts:
        name, example = next(iter(texts.items()))
        raise InputError(
            f"{_columns(list(texts))} {'holds' if len(texts) == 1 else 'hold'} text, such as "
            f"{example!r} in {name!r}; features are numbers.{_without(list(texts), drop)}"
        )
    return arrays


# ------------------------------------------------------------------------------------------- fit


def split(data: Data, max_points: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows to learn from and rows to hold out.

    Parameters
    ----------
    data : Data
    max_points : int or None
        The largest number of rows to learn from.
    seed : int

    Returns
    -------
    train, test : ndarray of int
    """
    n, d = data.X.shape
    order = np.random.default_rng(seed).permutation(n)
    held_out = max(2, min(n // 5, _MOST_HELD_OUT))
    if max_points is None:
        each = 1 if data.dy is None else 1 + d
        max_points = max(_FEWEST_ROWS, _MOST_OBSERVATIONS // each)
    return np.sort(order[held_out:][:max_points]), np.sort(order[:held_out])


def _kernel(name: str, d: int, gradients: bool) -> Kernel:
    """Kernel of standardised features and targets."""
    bounds = (1e-2, 10 * _LONGEST)
    # Points are about sqrt(2 d) apart.
    scales = np.full(d, np.sqrt(d))
    smooth = RBF(scales, bounds) if name == "rbf" else Matern(scales, bounds, nu=2.5)
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * smooth + WhiteKernel(1e-1, (1e-8, 1e1))
    return kernel + GradientWhiteKernel(1e-2, (1e-8, 1e2)) if gradients else kernel


def fit(
    data: Data, rows: np.ndarray, kernel: str, seed: int, progress: Progress
) -> GaussianProcessRegressor:
    """Fit a Gaussian process to some rows.

    Parameters
    ----------
    data : Data
    rows : ndarray of int
    kernel : {"rbf", "matern"}
    seed : int
    progress : Progress

    Returns
    -------
    model : GaussianProcessRegressor

    Raises
    ------
    InputError
        If the covariance matrix is singular, or larger than the memory.
    """
    X, y = data.X[rows], data.y[rows]
    dy = None if data.dy is None else data.dy[rows]
    n, d = X.shape
    count, step = 0, ""

    def optimizer(
        objective: Callable[[np.ndarray], Any], theta: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, float]:
        def reported(theta: np.ndarray) -> Any:
            nonlocal count
            count += 1
            value, gradient = objective(theta)
            progress.say(
                f"fitting to {step}: {counted(count, 'evaluation')}, log likelihood {-value:.5g}"
            )
            return value, gradient

        # The likelihood need not be known to its last digits.
        result = scipy.optimize.minimize(
            reported,
            theta,
            method="L-BFGS-B",
            jac=True,
            bounds=scipy.optimize.Bounds(*bounds.T),
            options={"ftol": 1e-6},
        )
        return result.x, result.fun

    def fitted(start: Kernel, some: np.ndarray) -> GaussianProcessRegressor:
        nonlocal step
        step = counted(len(some), "row")
        model = GaussianProcessRegressor(
            start,
            alpha=1e-10,
            optimizer=optimizer,
            normalize_y=True,
            scale_X=True,
            max_condition=None if dy is None else 1e10,
        )
        model.fit(X[some], y[some], None if dy is None else dy[some])
        # As after a fit to a frame, which would need pandas.
        model.feature_names_in_ = np.array(data.features, dtype=object)
        # The usual one is what a model that was saved shall have.
        return model.set_params(optimizer="fmin_l_bfgs_b")

    few = max(2 * _FEWEST_ROWS, _FEW_OBSERVATIONS // (1 if dy is None else 1 + d))
    some = np.random.default_rng(seed).permutation(n)[:few]
    start = _kernel(kernel, d, dy is not None)
    try:
        if len(some) < n and np.ptp(y[some]) > 0:
            # Few rows find which of some length scales to begin with, and nearly the optimum.
            starts = [_scaled(start, factor) for factor in (0.3, 1.0, 3.0)]
            models = [fitted(begin, some) for begin in starts]
            start = max(models, key=lambda m: m.log_marginal_likelihood_value_).kernel_
        return fitted(start, np.arange(n))
    except MemoryError as error:
        raise InputError(f"{n} rows to learn from are too many: {error}") from error
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"no Gaussian process could be fitted: the covariance matrix of the {n} rows is "
            "singular. Are some of the gradients wrong, or in another order than the features?"
        ) from error


def _scaled(kernel: Kernel, factor: float) -> Kernel:
    """The same kernel with other length scales."""
    scales = {
        name: value * factor
        for name, value in kernel.get_params().items()
        if name.endswith("length_scale")
    }
    return clone(kernel).set_params(**scales)


# --------------------------------------------------------------------------------------- results


class Results(NamedTuple):
    """What the model says about the rows that were held out."""

    mean: np.ndarray  # (N,)
    std: np.ndarray  # (N,)
    slopes: np.ndarray  # (N, D)
    slopes_std: np.ndarray  # (N, D)
    sensitivities: np.ndarray  # (D,)
    intervals: np.ndarray  # (2, D)


def predict(model: GaussianProcessRegressor, X: np.ndarray, progress: Progress) -> Results:
    """Predict values and gradients, some rows at a time.

    Parameters
    ----------
    model : GaussianProcessRegressor
    X : ndarray of shape (N, D)
    progress : Progress

    Returns
    -------
    results : Results
    """
    values, slopes = [], []
    for first in range(0, len(X), 100):
        some = X[first : first + 100]
        values.append(model.predict(some, return_std=True))
        slopes.append(model.predict_gradient(some, return_std=True))
        progress.say(f"predicting: {first + len(some)} of {len(X)} rows")
    mean, std = (np.concatenate(part) for part in zip(*values, strict=True))
    slope, slope_std = (np.concatenate(part) for part in zip(*slopes, strict=True))
    sensitive, intervals = sensitivities(slope, X.std(axis=0))
    assert intervals is not None
    return Results(mean, std, slope, slope_std, sensitive, intervals)


def run(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Fit a Gaussian process to a table, say what it found, and write files that were asked for.

    Parameters
    ----------
    config : dict
        What `show_config` shows.
    arguments : argparse.Namespace
        Those of the command line.

    Returns
    -------
    status : int
        0.

    Raises
    ------
    InputError
        If the arguments or the file make no sense.
    """
    started = time.perf_counter()
    if arguments.target is None:
        raise InputError("--data needs --target, the column to predict.")
    table = read(arguments.data)
    data = choose(
        table,
        arguments.target,
        features=arguments.features,
        drop=arguments.drop or (),
        gradient=arguments.gradient or (),
        missing=arguments.missing or "error",
    )
    seed = 0 if arguments.seed is None else arguments.seed
    train, test = split(data, arguments.max_points, seed)
    n, d = data.X.shape
    print(
        f"kerneldiff {config['kerneldiff']}, {config['isa']}, "
        f"{counted(config['threads'], 'thread')}\n"
    )
    with_gradients = ", with their gradients" if data.dy is not None else ""
    print(
        f"data     {arguments.data}: {counted(n, 'row')}, {counted(d, 'feature')}, "
        f"target {data.target!r}"
    )
    print(
        f"         {counted(len(train), 'row')} to learn from{with_gradients}, {len(test)} held out"
    )
    if len(train) + len(test) < n:
        unused = n - len(train) - len(test)
        verb = "is" if unused == 1 else "are"
        print(f"         {counted(unused, 'row')} {verb} not used (see --max-points)")
    for note in data.notes:
        print(f"note     {note}")
    sys.stdout.flush()

    with warnings.catch_warnings():
        # Of bounds that were reached, which the table tells, of variances rounded to 0, and of
        # columns without a known slope.
        warnings.simplefilter("ignore")
        progress = Progress()
        model = fit(data, train, arguments.kernel or "rbf", seed, progress)
        seconds = progress.done()
        print(f"model    {_described(model)}, fitted in {seconds:.1f} s\n", flush=True)

        progress = Progress()
        results = predict(model, data.X[test], progress)
        progress.done()
        _print_errors(data, train, test, results)
        _print_features(data, test, model, results)

        pictures: dict[str, bytes] = {}
        if arguments.plot is not None:
            pictures = dict(_pictures(data, test, model, results))
    files = {arguments.plot / name: picture for name, picture in pictures.items()}
    saved = None
    if arguments.output is not None:
        files[arguments.output / "held_out.csv"] = _csv(data, test, results, arguments.gradient)
        saved, content = _saved(model, arguments.output)
        files[saved] = content
    if files:
        print()
        write(files)
    if saved is not None:
        _print_loading(saved, data)
    print(f"\n{time.perf_counter() - started:.1f} s in all.")
    if not files:
        print("--output DIR saves the model and the predictions, --plot DIR draws pictures.")
    return 0


def _described(model: GaussianProcessRegressor) -> str:
    """The kernel without its length scales, which have a table of their own."""
    parts = list(model.kernel_.get_params().values())
    name = "Matérn 5/2" if any(isinstance(part, Matern) for part in parts) else "RBF"
    (level,) = (part.noise_level for part in parts if isinstance(part, WhiteKernel))
    noise = float(np.sqrt(level) * model._y_train_std)
    return f"Gaussian process, {name} kernel, noise of the target {_short(noise)}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _print_errors(data: Data, train: np.ndarray, test: np.ndarray, results: Results) -> None:
    """How well the rows that were held out are predicted, and how well a constant does it."""
    y = data.y[test]
    inside = np.mean(np.abs(y - results.mean) <= _WIDTH * results.std)
    both = (results.mean, np.full_like(y, data.y[train].mean()))
    rows = [("root mean square error", *(_short(root_mean_squared_error(y, p)) for p in both))]
    if np.ptp(y) > 0:
        rows.append(("R²", *(f"{r2_score(y, p):.3f}" for p in both)))
    rows.append(("inside of the 95 % band", f"{inside:.1%}", ""))
    print_table(("rows held out", "model", "mean only"), rows)


def _print_features(
    data: Data, test: np.ndarray, model: GaussianProcessRegressor, results: Results
) -> None:
    """How the target changes with each feature, the most sensitive first."""
    titles = ["feature", "mean slope", "spread", "uncertainty", "sensitivity", "length scale"]
    if data.dy is not None:
        titles.append("slope error")
    scales = _length_scales(model)
    errors = np.full(len(data.features), np.nan)
    if data.dy is not None:
        errors = np.sqrt(np.nanmean((data.dy[test] - results.slopes) ** 2, axis=0))
    rows = []
    for a in np.argsort(-results.sensitivities, kind="stable"):
        name = data.features[a]
        cells = [
            name if len(name) <= _WIDEST else name[: _WIDEST - 1] + "…",
            _short(results.slopes[:, a].mean()),
            _short(results.slopes[:, a].std()),
            _short(float(np.sqrt(np.mean(results.slopes_std[:, a] ** 2)))),
            _short(results.sensitivities[a]),
            _short(scales[a]) if scales[a] < _LONGEST else "none seen",
        ]
        if data.dy is not None:
            cells.append(_short(errors[a]))
        rows.append(cells)
    print()
    print_table(titles, rows)
    print(
        f"\nslope        of {data.target!r} by the feature: its mean over the rows held out, its\n"
        "             standard deviation over them, and how uncertain the model is of it\n"
        "sensitivity  root mean square slope x standard deviation of the feature: how far the\n"
        "             feature moves the target\n"
        "length scale over which the target changes its course, in standard deviations of the\n"
        "             feature; none is seen where it has hardly any influence"
        + (
            "\nslope error  root mean square difference from the gradients of rows held out"
            if data.dy is not None
            else ""
        )
    )


def _length_scales(model: GaussianProcessRegressor) -> np.ndarray:
    parts = model.kernel_.get_params().values()
    (scales,) = (part.length_scale for part in parts if isinstance(part, RBF))  # Matern is one
    return np.broadcast_to(scales, model.n_features_in_)


# ----------------------------------------------------------------------------------------- files


def _csv(data: Data, test: np.ndarray, results: Results, gradient: Sequence[str] | None) -> bytes:
    """The rows that were held out, with what the model says about them."""
    target = data.target
    header = ["line", *data.features, target, *(gradient or ())]
    header += [f"predicted {target}", f"std of {target}"]
    header += [f"d({target})/d({name})" for name in data.features]
    header += [f"std of d({target})/d({name})" for name in data.features]
    columns = [data.X[test], data.y[test, None]]
    columns += [] if data.dy is None else [data.dy[test]]
    columns += [results.mean[:, None], results.std[:, None], results.slopes, results.slopes_std]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    for line, row in zip(data.lines[test], np.hstack(columns), strict=True):
        # As short as they can be without losing a digit; nothing where there is no number.
        writer.writerow([int(line), *("" if math.isnan(v) else repr(float(v)) for v in row)])
    return text.getvalue().encode()


def _saved(model: GaussianProcessRegressor, folder: Path) -> tuple[Path, bytes]:
    """The model in a file: by skops, if that is installed, which is safe to load; or by joblib."""
    # By their names, as they have no types.
    if importlib.util.find_spec("skops") is not None:
        return folder / "model.skops", importlib.import_module("skops.io").dumps(model)
    file = io.BytesIO()
    importlib.import_module("joblib").dump(model, file)
    return folder / "model.joblib", file.getvalue()


def _print_loading(saved: Path, data: Data) -> None:
    path = str(saved)
    if saved.suffix == ".skops":
        lines = [
            "import skops.io",
            f"types = skops.io.get_untrusted_types(file={path!r})  # look at them",
            f"model = skops.io.load({path!r}, trusted=types)",
        ]
    else:
        lines = ["import joblib", f"model = joblib.load({path!r})  # only what you trust"]
    names = ", ".join(data.features[:8]) + (", ..." if len(data.features) > 8 else "")
    lines += [
        f"mean, std = model.predict(X, return_std=True)  # a frame with the columns {names}",
        "slopes = model.predict_gradient(X)",
    ]
    print("\nTo use the model:\n\n    " + "\n    ".join(lines))


def _pictures(
    data: Data, test: np.ndarray, model: GaussianProcessRegressor, results: Results
) -> Iterator[tuple[str, bytes]]:
    """Draw what was found; yields names of files and what is in them."""
    import matplotlib.pyplot as plt

    from kerneldiff.plot import GaussianProcessDisplay, SensitivityDisplay, _bare

    display = SensitivityDisplay(
        sensitivities=results.sensitivities,
        intervals=results.intervals,
        feature_names=data.features,
        label=f"{_MEASURES['rms'].label}\n({_text(data.target)})",
    )
    yield "sensitivities.png", png(display.plot(max_features=30))
    yield "predictions.png", png(_prediction_picture(data.y[test], results, data.target))

    names: dict[str, Any] = {"feature_names": data.features, "target_name": data.target}
    first = np.argsort(-results.sensitivities, kind="stable")[:6]
    columns = min(3, len(first))
    rows = -(-len(first) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(0.6 + 3.2 * columns, 0.4 + 2.6 * rows),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for ax, column in zip(axes.flat, first, strict=False):
        GaussianProcessDisplay.from_estimator(
            model, features=[column], ax=ax, gradients=None, legend=False, **names
        )
    _bare(axes)
    for ax in axes.flat[len(first) :]:
        ax.set_axis_off()
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    if len(data.features) > 1:
        figure.suptitle("through the median of the other features", fontsize="medium")
    yield "slices.png", png(figure)
    if len(data.features) > 1:
        pair: list[int | str] = first[:2].tolist()
        yield "field.png", png(GaussianProcessDisplay.from_estimator(model, features=pair, **names))


def _prediction_picture(y: np.ndarray, results: Results, target: str) -> Any:
    """Values against predictions, with bands."""
    import matplotlib.pyplot as plt

    from kerneldiff.plot import _bare, _color, _ink, _size

    figure, ax = plt.subplots(figsize=(5.2, 5.0), layout="constrained")
    both = np.concatenate([y, results.mean])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, color=_ink(ax), linewidth=1)
    style: dict[str, Any] = {"ecolor": _color(0), "alpha": 0.25, "linewidth": 1}
    ax.errorbar(y, results.mean, yerr=_WIDTH * results.std, fmt="none", **style)
    ax.scatter(y, results.mean, color=_color(0), s=_size(len(y)), zorder=3)
    name = _text(target)
    ax.set(xlabel=f"{name}, rows held out", ylabel=f"{name}, predicted, with 95 % band")
    ax.set_aspect("equal", adjustable="datalim")
    _bare(np.array([ax]))
    return figure
