"""The main job on bundled data: what ``kerneldiff demo`` does.

It computes derivative tensors of scikit-learn's diabetes data, checks every entry and times them.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process.kernels import RBF, Kernel
from sklearn.preprocessing import scale

import kerneldiff
from kerneldiff import _reference
from kerneldiff._files import Progress, png, print_table, write
from kerneldiff._validation import counted

__all__ = ["run"]

# Largest deviation from the check that passes, relative to the largest entry of the array. The
# differences below are good to about 1e-12; a wrong term shows as 1e-3 or more.
LIMIT = 1e-10


class _Job(NamedTuple):
    """One array to compute, the same in NumPy, and what its entries should be, part by part."""

    name: str
    compute: Callable[[], np.ndarray]
    reference: Callable[[], np.ndarray]
    expected: Callable[[], Iterator[tuple[Any, np.ndarray]]]


def run(config: dict[str, Any], plot: Path | None = None) -> int:
    """Compute, check and time; draw if there is a folder for pictures.

    Parameters
    ----------
    config : dict
        What `show_config` shows.
    plot : Path, optional
        Folder for pictures, which is made if it is not there.

    Returns
    -------
    status : int
        0 if all checks passed, else 1.
    """
    started = time.perf_counter()
    diabetes = load_diabetes(scaled=False)
    X = scale(diabetes.data)
    N, D = X.shape
    # Standardised points are about sqrt(2 D) apart, so that half the pairs are well correlated.
    kernel = RBF(length_scale=np.sqrt(D))
    W = np.random.default_rng(0).normal(scale=1 / np.sqrt(D), size=(D + 1, 50))

    print(
        f"kerneldiff {config['kerneldiff']}, {config['isa']}, "
        f"{counted(config['threads'], 'thread')}\n"
    )
    print(f"data    diabetes, from scikit-learn: {N} patients x {D} features, standardised")
    print(f"kernel  {kernel}, of all pairs of patients")
    print(
        f"basis   {W.shape[1]} functions tanh(x a + b) with random slopes a and biases b\n",
        flush=True,
    )

    progress = Progress(every=math.inf)  # on a terminal only
    rows: list[list[str]] = []
    failed: list[str] = []
    speedups: list[dict[str, Any]] = []
    for job in [*_kernel_jobs(kernel, X), _tanh_job(X, W)]:
        progress.say(job.name)
        array = job.compute()
        deviation = _deviation(array, job.expected())
        ours, numpys = _medians(job.compute, job.reference)
        times = numpys / ours
        shape = " x ".join(map(str, array.shape))
        size, off = f"{array.nbytes / 2**20:.1f}", f"{deviation:.1e}"
        cells = (f"{1e3 * ours:.2f} ms", f"{1e3 * numpys:.1f} ms", f"{times:.1f}x")
        rows.append([job.name, shape, size, off, *cells])
        speedups.append({"work": job.name, "kind": "library", "over": "NumPy", "times": times})
        if not deviation <= LIMIT:  # NaN fails
            failed.append(job.name)

    header = ("", "shape", "MiB", "deviation", "kerneldiff", "NumPy", "ratio")
    progress.done()
    print_table(header, rows, left=2)
    print(
        "\ndeviation  the largest of any entry from scikit-learn's kernel values and from finite\n"
        "           differences of them (numpy.tanh for the basis), in units of the array's\n"
        f"           largest entry; the check is good to 1e-12 and the limit is {LIMIT:g}\n"
        "times      medians of calls in turn, each into a new array; NumPy: the same formulas,\n"
        "           vectorised (kerneldiff._reference)"
    )
    if plot is not None:
        print()
        pictures = _pictures(kernel, X, W, diabetes.feature_names, speedups)
        write({plot / name: picture for name, picture in pictures.items()})
    print(f"\n{time.perf_counter() - started:.1f} s in all. ", end="")
    print(f"FAILED: {', '.join(failed)}." if failed else "All checks passed.")
    return 1 if failed else 0


def _pictures(
    kernel: Kernel, X: np.ndarray, W: np.ndarray, names: list[str], speedups: list[dict[str, Any]]
) -> dict[str, bytes]:
    """Draw what was computed; returns files by their names."""
    from kerneldiff.plot import JacobianDisplay, KernelMatrixDisplay, SpeedupDisplay

    options: dict[str, Any] = {"sort_by": "bmi", "feature_names": names}
    basis = kerneldiff.TanhBasis(weights=W[:, :12]).fit(X)
    matrix = partial(KernelMatrixDisplay.from_kernel, kernel, X, **options)
    columns = ["bmi", "bp", "s5"]
    pairs = [("bmi", "bmi"), ("bmi", "bp"), ("bp", "bp")]
    return {
        "kernel_matrix.png": png(matrix()),
        "gradient.png": png(matrix(what="gradient", components=columns)),
        "hessian.png": png(matrix(what="hessian", components=pairs)),
        "tanh_jacobian.png": png(
            JacobianDisplay.from_estimator(basis, X, feature="bmi", feature_names=names)
        ),
        "speed.png": png(SpeedupDisplay.from_results(speedups)),
    }


def _kernel_jobs(kernel: Kernel, X: np.ndarray) -> list[_Job]:
    D = X.shape[1]
    axes = np.eye(D)
    # 1/50 of the length scale, rounded to a power of two: there the truncation (h^8) and the
    # rounding (eps / h^2) of the second differences are about equal, 1e-12.
    step = 2.0 ** np.round(np.log2(kernel.length_scale / 50))

    def along(direction: np.ndarray, order: int) -> np.ndarray:
        return _derivative(lambda t: kernel(X + t * direction, X), order, step)

    def values() -> Iterator[tuple[Any, np.ndarray]]:
        yield ..., kernel(X)

    def first() -> Iterator[tuple[Any, np.ndarray]]:
        for a in range(D):
            yield (..., a), along(axes[a], 1)

    def second_diagonal() -> Iterator[tuple[Any, np.ndarray]]:
        for a in range(D):
            yield (..., a), along(axes[a], 2)

    def second() -> Iterator[tuple[Any, np.ndarray]]:
        diagonal = [plane for _, plane in second_diagonal()]
        for a in range(D):
            yield (..., a, a), diagonal[a]
            for b in range(a):
                # Polarisation: mixed derivatives from derivatives along one line.
                plane = (along(axes[a] + axes[b], 2) - diagonal[a] - diagonal[b]) / 2
                yield (..., a, b), plane
                yield (..., b, a), plane

    checks = {
        "kernel_matrix": values,
        "gradient": first,
        "hessian_diag": second_diagonal,
        "hessian": second,
    }
    return [
        _Job(
            name,
            partial(getattr(kerneldiff, name), kernel, X),
            partial(getattr(_reference, name), kernel, X),
            expected,
        )
        for name, expected in checks.items()
    ]


def _tanh_job(X: np.ndarray, W: np.ndarray) -> _Job:
    D = X.shape[1]

    def along(shift: np.ndarray) -> np.ndarray:
        return _derivative(lambda t: _tanh(X, W + t * shift), 1, 2.0**-8)

    def expected() -> Iterator[tuple[Any, np.ndarray]]:
        for d, row in enumerate(np.eye(D + 1)):
            shift = row[:, np.newaxis]  # of one slope, or the bias, of every function at once
            yield (slice(None), d), along(shift)

    return _Job(
        "tanh_jacobian",
        partial(kerneldiff.tanh_jacobian, X, W),
        partial(_reference.tanh_jacobian, X, W),
        expected,
    )


def _tanh(X: np.ndarray, W: np.ndarray) -> np.ndarray:
    return np.tanh(X @ W[:-1] + W[-1])


# Central differences of order eight: weights of f(-4h), ..., f(4h) for the first and the second
# derivative. B. Fornberg, Math. Comp. 51 (1988) 699-706, table 1.
_WEIGHTS = {
    1: np.array([3, -32, 168, -672, 0, 672, -168, 32, -3]) / 840,
    2: np.array([-9, 128, -1008, 8064, -14350, 8064, -1008, 128, -9]) / 5040,
}


def _derivative(func: Callable[[float], np.ndarray], order: int, step: float) -> np.ndarray:
    """Derivative at 0 of an array that depends on one number."""
    total = np.zeros_like(func(0.0))
    for offset, weight in zip(range(-4, 5), _WEIGHTS[order], strict=True):
        if weight:
            total += weight * func(offset * step)
    return total / step**order


def _deviation(array: np.ndarray, expected: Iterator[tuple[Any, np.ndarray]]) -> float:
    """Largest difference, relative to the largest entry; NaN if there is one on either side."""
    checked = np.zeros(array.shape, dtype=bool)
    largest = []
    for index, part in expected:
        checked[index] = True
        largest.append(np.abs(array[index] - part).max())
    assert checked.all(), "every entry is to be checked"
    return float(np.max(largest) / np.abs(array).max())


def _medians(*functions: Callable[[], np.ndarray], seconds: float = 2.0) -> list[float]:
    """Median time of each of some functions, called in turn so that all see the same machine."""
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or (len(times[0]) < 25 and time.perf_counter() < end):
        for function, seen in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seen.append(time.perf_counter() - start)
    return [statistics.median(seen) for seen in times]
