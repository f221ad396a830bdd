"""Checks of what users pass, made before any work starts.

A C-contiguous array of floats takes a short way: its dimensions and one sum are looked at.  All
else is made an array of numbers in one place, `real_array`, which knows what NumPy and
scikit-learn would drop or guess without a word: masks, missing values in frames of objects, text.
Then it goes through scikit-learn's own checks, and so has scikit-learn's own messages.

Names of columns are read as scikit-learn reads them, and compared by whoever gets two sets of them.
"""

import functools
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn import get_config
from sklearn.base import _fit_context
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils import check_array
from sklearn.utils._missing import is_pandas_na
from sklearn.utils.validation import _get_feature_names

# Reused outputs beyond this size are written past the caches: they would not stay there anyway.
STREAM_BYTES = 2**25

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))

# For what computes with numbers that may be infinite, and says so in its results.
quietly = np.errstate(over="ignore", divide="ignore", invalid="ignore")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def fit_context(method: _Method) -> _Method:
    """scikit-learn's check of an estimator's parameters before `fit`, with the types kept."""
    return _fit_context(prefer_skip_nested_validation=True)(method)


def _hides(value: Any) -> bool:
    """Whether some entries are masked, of an array or of arrays in lists."""
    if isinstance(value, np.ma.MaskedArray):
        return value.dtype.names is None and bool(np.ma.is_masked(value))
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        return any(issubclass(kind, np.ma.MaskedArray | list | tuple) for kind in kinds) and any(
            map(_hides, value)
        )
    return False


def _filled(value: Any) -> Any:
    """What may hold masked entries, with NaN in their place."""
    if isinstance(value, np.ma.MaskedArray):
        integers = value.dtype.kind in "biu"
        return np.ma.filled(value.astype(np.float64) if integers else value, np.nan)
    return [_filled(part) for part in value] if isinstance(value, list | tuple) else value


def unmasked(value: Any, name: str, *, missing: bool = False) -> Any:
    """Return what was passed without masks, which NumPy drops with all that they hide.

    Parameters
    ----------
    value : object
        Whatever it is, it is returned as it came if it has no masks and NumPy can read it: a frame
        keeps its names.
    name : str
        What the argument is called in messages.
    missing : bool, default=False
        Whether NaN stands for what is masked; else masked entries are an error.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If there are masked entries, unless they may be missing.
    TypeError
        If it refuses to be made an array.
    """
    if type(value) is np.ndarray:
        return value
    array = value
    if not isinstance(value, np.ndarray | list | tuple):
        if hasattr(value, "columns") or hasattr(value, "iloc"):
            return value
        try:
            if hasattr(value, "__array__"):
                # As variables of netCDF files, it may make an array with a mask.
                array = np.asanyarray(value)
            elif hasattr(value, "__dlpack__"):
                array = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot be made an array: {error}") from None
    if _hides(array):
        if not missing:
            raise ValueError(f"{name} has masked entries; all of it must be numbers.")
        return _filled(array)
    return np.asarray(array) if isinstance(array, np.ma.MaskedArray) else array


def real_array(
    value: Any, name: str, *, missing: bool = False, error: type[Exception] = ValueError
) -> np.ndarray:
    """Return an array of numbers, of any shape, of whatever can be read as one.

    Parameters
    ----------
    value : object
        An array, a sequence, a frame, or what NumPy can make an array of. Objects that are numbers
        become float64.
    name : str
        What the argument is called in messages.
    missing : bool, default=False
        Whether NaN stands for what is masked, None or NA; else these are errors. NaN itself is
        left to the caller.
    error : type of exception, default=ValueError
        What to raise if it is of a wrong type.

    Returns
    -------
    ndarray
        Of booleans, integers or floats.

    Raises
    ------
    ValueError
        If it has masked entries, unless they may be missing, or if it is ragged.
    TypeError
        If it is a kernel or sparse, or cannot be made an array.
    """
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return value
    if isinstance(value, Kernel):
        raise TypeError(
            f"{name} is a kernel, {value!r}, and no array; functions that take a kernel take it "
            "first."
        )
    if scipy.sparse.issparse(value):
        raise TypeError(f"{name} is a sparse {type(value).__name__}; it may be a dense array.")
    value = unmasked(value, name, missing=missing)
    try:
        array = np.asarray(value)
    except ValueError as ragged:
        raise ValueError(f"{name} cannot be made an array: {ragged}") from None
    if array.dtype.kind == "O" and array.ndim:
        return _numbers(array, name, missing, error)
    if array.dtype.kind not in "biuf":
        kind = array.dtype if array.ndim or array.dtype.kind != "O" else type(value).__name__
        raise error(f"{name} is of type {kind}; it may hold real numbers.")
    return array


def _numbers(array: np.ndarray, name: str, missing: bool, error: type[Exception]) -> np.ndarray:
    """An array of objects as float64."""
    of_type = f"{name} is of type object and holds"
    kinds = set(map(type, array.flat))
    if any(issubclass(kind, str | bytes) for kind in kinds):
        raise error(f"{of_type} text; it may hold real numbers.")
    absent = [v is None or v is np.ma.masked or is_pandas_na(v) for v in array.flat]
    if any(absent):
        if not missing:
            raise error(f"{of_type} missing values (NaN, None, NA); it may hold real numbers.")
        array = np.where(np.reshape(absent, array.shape), np.nan, array)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as reason:
        raise error(f"{of_type} what is no number: {reason}; it may hold real numbers.") from None


def check_points(X: Any, name: str) -> np.ndarray:
    """Return X as a C-contiguous float array that is finite, copied only if it must be.

    Parameters
    ----------
    X : array-like of shape (N, D)
    name : str
        What the argument is called in messages.

    Returns
    -------
    ndarray of float64, or of float32 if X is

    Raises
    ------
    ValueError
        If X is not numeric, has another number of dimensions, or is not finite (unless
        scikit-learn's ``assume_finite`` is set), or has masked entries.
    TypeError
        If X is a sparse matrix, or a kernel.
    """
    if (
        type(X) is np.ndarray
        and X.dtype in FLOATS
        and X.ndim == 2
        and X.flags.c_contiguous
        and X.flags.aligned
    ):
        # A finite sum means finite entries; a sum that is not may only have overflowed.
        with np.errstate(all="ignore"):
            if math.isfinite(np.add.reduce(X, axis=None)) or get_config()["assume_finite"]:
                return X
    X = real_array(X, name)
    dtype = np.float32 if X.dtype.kind == "f" and X.dtype.itemsize == 4 else np.float64
    try:
        with np.errstate(all="ignore"):
            X = check_array(
                X,
                dtype=dtype,
                order="C",
                ensure_min_samples=0,
                ensure_min_features=0,
                input_name=name,
            )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    return np.require(X, requirements="A")


def check_pair(X: Any, Y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check two sets of points, and bring them to one type.

    Parameters
    ----------
    X : array-like of shape (N, D)
    Y : array-like of shape (M, D) or None
        None stands for X.

    Returns
    -------
    X, Y : ndarray
        float32 if both are, else float64.

    Raises
    ------
    ValueError
        As `check_points`, or if the numbers of columns, or their names, differ.
    """
    if Y is None:
        X = check_points(X, "X")
        return X, X
    if type(X) is not np.ndarray and type(Y) is not np.ndarray:
        check_names(column_names(X), column_names(Y))
    X, Y = check_points(X, "X"), check_points(Y, "Y")
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"X has {counted(X.shape[1], 'column')} and Y has {Y.shape[1]}; both must have the "
            "same number."
        )
    if X.dtype != Y.dtype:
        X, Y = X.astype(np.float64, copy=False), Y.astype(np.float64, copy=False)
    return X, Y


# ---------------------------------------------------------------------------- names of columns


def column_names(X: Any) -> np.ndarray | None:
    """Return the names of the columns of a frame, as scikit-learn reads them, or None.

    Parameters
    ----------
    X : object

    Returns
    -------
    ndarray of str of shape (D,), or None

    Raises
    ------
    TypeError
        If some of the names are strings, and others are not.
    """
    if type(X) is np.ndarray or isinstance(X, np.ndarray | list | tuple):
        return None
    names: np.ndarray | None = _get_feature_names(X)
    return names


def _compare_names(
    names: np.ndarray, expected: np.ndarray, begin: str, unseen: str, missing: str, order: str
) -> None:
    """Raise ValueError if names differ, and say how in the manner of scikit-learn."""
    if np.array_equal(names, expected):
        return
    groups = [(unseen, set(names) - set(expected)), (missing, set(expected) - set(names))]
    lines = [begin]
    for title, group in groups:
        if group:
            lines += [title, *(f"- {name}" for name in sorted(map(str, group))[:5])]
            lines += ["- ..."] * (len(group) > 5)
    if not any(group for _, group in groups):
        lines.append(order)
    raise ValueError("\n".join(lines) + "\n")


def check_fitted_names(estimator: Any, names: np.ndarray | None, what: str) -> None:
    """Compare names of columns with those of a fit: scikit-learn's warnings, and its errors.

    Parameters
    ----------
    estimator : estimator
        With `feature_names_in_`, if it was fitted with names.
    names : ndarray of str of shape (D,), or None
    what : str
        What has these names, for a sentence behind scikit-learn's.

    Raises
    ------
    ValueError
        If there are names, and others in the fit.
    """
    expected = getattr(estimator, "feature_names_in_", None)
    who = type(estimator).__name__
    if names is not None and expected is not None:
        _compare_names(
            names,
            expected,
            "The feature names should match those that were passed during fit.",
            "Feature names unseen at fit time:",
            "Feature names seen at fit time, yet now missing:",
            f"Feature names must be in the same order as they were in fit.\n({what})",
        )
    elif names is not None:
        warnings.warn(
            f"X has feature names, but {who} was fitted without feature names", stacklevel=4
        )
    elif expected is not None:
        warnings.warn(
            f"X does not have valid feature names, but {who} was fitted with feature names",
            stacklevel=4,
        )


def check_names(
    expected: np.ndarray | None, names: np.ndarray | None, x: str = "X", y: str = "Y"
) -> None:
    """Raise ValueError if the columns of x and y both have names, and these are not the same."""
    if expected is not None and names is not None:
        _compare_names(
            names,
            expected,
            f"The feature names of {y} should match those of {x}.",
            f"Feature names that {x} does not have:",
            f"Feature names of {x} that are missing:",
            f"Feature names must be in the same order as they are in {x}.",
        )


def check_names_along(expected: np.ndarray | None, array: Any, name: str) -> None:
    """Raise ValueError if what runs along the columns of X names them in another order.

    Names that have none of X's among them are of another kind, such as "dy/dx", and cannot be
    compared.

    Parameters
    ----------
    expected : ndarray of str of shape (D,), or None
        Names of the columns of X.
    array : object
        A frame with one column for each of those of X, and perhaps others before them; or a series
        with one entry for each. Everything else has no names.
    name : str
        What the argument is called in messages.
    """
    if expected is None or isinstance(array, np.ndarray | list | tuple):
        return
    names = column_names(array)
    if names is None and hasattr(array, "iloc") and array.ndim == 1:
        names = np.asarray(array.index, dtype=object)
    if names is None or set(names).isdisjoint(expected):
        return
    check_names(expected, names[-len(expected) :], y=name)


# ------------------------------------------------------------------------------------- outputs

# What to do about results that do not fit, where there is no better advice.
_FEWER = "Take fewer points at a time."


def check_out(
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    advice: str = _FEWER,
    **inputs: Any,
) -> np.ndarray:
    """Return an output to write into: `out` if it will do, or a new array.

    Parameters
    ----------
    out : ndarray or None
    shape : tuple of int
    dtype : dtype
    advice : str, default="Take fewer points at a time."
        What to do about an array that does not fit.
    **inputs : array-like
        What `out` must not share memory with, by its names, as it was passed.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If `out` is not an array.
    ValueError
        If `out` has another shape or type, is not C-contiguous, cannot be written to, or shares
        memory with an input.
    MemoryError
        If a new array would be larger than the machine's memory.
    """
    if out is None:
        check_fits(shape, dtype, advice)
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is of type {type(out).__name__}; it may be a NumPy array or None.")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; it must have shape {shape}.")
    if out.dtype != dtype:
        raise ValueError(f"out is of type {out.dtype}; it must be of type {dtype}, as the input.")
    if not (out.flags.c_contiguous and out.flags.aligned):
        raise ValueError("out is not C-contiguous and aligned; it must be both.")
    if not out.flags.writeable:
        raise ValueError("out is read-only; it must be writeable.")
    for name, array in inputs.items():
        if isinstance(array, np.ndarray) and np.may_share_memory(out, array):
            raise ValueError(f"out shares memory with {name}; it must have memory of its own.")
    return out


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: "1 row", "2 rows"; nouns in -y have their plural in -ies."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} is {value!r}; it may be one of {allowed}.")


# Outputs below this many bytes are not worth a look at the machine.
_SMALL = 2**26


def check_fits(shape: tuple[int, ...], dtype: np.dtype, advice: str = _FEWER) -> None:
    """Raise MemoryError if an array would be larger than physical memory or the cgroup's limit.

    Without this the system may promise the memory, and end the process when it is touched.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > _SMALL and nbytes > (limit := memory_limit()):
        raise too_large(f"an output of shape {shape} and type {dtype}", nbytes, limit, advice)


def too_large(what: str, nbytes: float, limit: float, advice: str, where: str = "") -> MemoryError:
    """Return the error about memory that does not suffice: for what, how much, and what to do."""
    needs = f"{what} needs {nbytes / 2**30:.4g} GiB{where and ' ' + where}"
    return MemoryError(f"{needs}; this process may use {limit / 2**30:.4g} GiB. {advice}")


@functools.cache
def memory_limit() -> float:
    """Return how many bytes this process may use: physical memory, or less in a cgroup."""
    if not hasattr(os, "sysconf"):  # Windows refuses such allocations by itself
        return math.inf
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    root = Path("/sys/fs/cgroup")
    files = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group, name = root / path.lstrip("/"), "memory.max"
        elif "memory" in controllers.split(","):
            group, name = root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        else:
            continue
        files += [folder / name for folder in (group, *group.parents) if root in folder.parents]
    for file in files:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)
