"""Checks of what users pass, made before any work starts.

A C-contiguous array of floats takes a short way: its dimensions and one sum are looked at.  All
else goes through scikit-learn's own checks, and so has scikit-learn's own messages.
"""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn import get_config
from sklearn.base import _fit_context
from sklearn.utils import check_array

# Reused outputs beyond this size are written past the caches: they would not stay there anyway.
STREAM_BYTES = 2**25

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))

# For what computes with numbers that may be infinite, and says so in its results.
quietly = np.errstate(over="ignore", divide="ignore", invalid="ignore")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def fit_context(method: _Method) -> _Method:
    """scikit-learn's check of an estimator's parameters before `fit`, with the types kept."""
    return _fit_context(prefer_skip_nested_validation=True)(method)


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
        scikit-learn's ``assume_finite`` is set).
    TypeError
        If X is a sparse matrix.
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
    dtype: type = np.float64
    if not scipy.sparse.issparse(X):
        try:
            X = np.asarray(X)
        except ValueError as error:
            raise ValueError(f"{name} cannot be made an array: {error}") from None
        if X.dtype.kind not in "biufc":
            raise ValueError(f"{name} is of type {X.dtype}; it may hold real numbers.")
        if X.dtype.kind == "f" and X.dtype.itemsize == 4:
            dtype = np.float32
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
        As `check_points`, or if the numbers of columns differ.
    """
    X = check_points(X, "X")
    if Y is None:
        return X, X
    Y = check_points(Y, "Y")
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"X has {counted(X.shape[1], 'column')} and Y has {Y.shape[1]}; both must have the "
            "same number."
        )
    if X.dtype != Y.dtype:
        X, Y = X.astype(np.float64, copy=False), Y.astype(np.float64, copy=False)
    return X, Y


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
        raise MemoryError(
            f"an output of shape {shape} and type {dtype} needs {nbytes / 2**30:.4g} GiB; this "
            f"process may use {limit / 2**30:.4g} GiB. {advice}"
        )


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
