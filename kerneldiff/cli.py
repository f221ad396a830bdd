"""The command ``kerneldiff``: ``demo``, ``config`` and ``bench``."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process.kernels import RBF, Kernel
from sklearn.preprocessing import scale

import kerneldiff
from kerneldiff import _reference
from kerneldiff._show_config import facts

__all__ = ["main"]

# Largest deviation from the check that passes, relative to the largest entry of the array. The
# differences below are good to about 1e-12; a wrong term shows as 1e-3 or more.
LIMIT = 1e-10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the command; those of the process by default.

    Returns
    -------
    status : int
        0 if all went well, 1 if a check of the demo failed.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version``, and with status 2 for arguments that make no sense.

    Examples
    --------
    >>> from kerneldiff.cli import main
    >>> status = main(["config"])  # doctest: +ELLIPSIS
    kerneldiff ...
    """
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "bench":
        # Only here, because it needs the peers, which only the extra "bench" installs.
        from kerneldiff._bench import compare

        return int(compare.main(rest) or 0)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        config = facts()
    except ValueError as error:  # KERNELDIFF_ISA: a mistake of the user's, not one to trace
        parser.error(str(error))
    if arguments.command == "config":
        kerneldiff.show_config()
        return 0
    return _demo(config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kerneldiff",
        description="Derivatives of kernels and of tanh bases, fast and exact, on CPUs.",
        epilog="The environment variables OMP_NUM_THREADS (threads) and KERNELDIFF_ISA (baseline, "
        "avx2 or avx512: the instruction set) apply to all commands.",
    )
    parser.add_argument(
        "--version", action="version", version=f"kerneldiff {kerneldiff.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser(
        "demo",
        help="compute derivative tensors of a real data set, check them and time them",
        description="Compute the kernel matrix, the gradient and Hessian tensors and a tanh "
        "Jacobian of scikit-learn's diabetes data, check every entry against finite differences of "
        "scikit-learn's kernel and of numpy.tanh, and time them against plain NumPy. Takes some "
        "ten seconds. The exit status is 1 if a check fails.",
    )
    commands.add_parser(
        "config",
        help="print versions, compiler, instruction sets, OpenMP, threads and BLAS",
        description="Print versions, compiler, instruction sets, OpenMP, threads and BLAS: what "
        "belongs into the report of a bug.",
    )
    # Its options are its own: it has no help here so that --help reaches it too.
    commands.add_parser(
        "bench",
        add_help=False,
        help="compare the speed with other implementations (see: kerneldiff bench --help)",
    )
    return parser


class _Job(NamedTuple):
    """One array to compute, the same in NumPy, and what its entries should be, part by part."""

    name: str
    compute: Callable[[], np.ndarray]
    reference: Callable[[], np.ndarray]
    expected: Callable[[], Iterator[tuple[Any, np.ndarray]]]


def _demo(config: dict[str, Any]) -> int:
    started = time.perf_counter()
    X = scale(load_diabetes(scaled=False).data)
    N, D = X.shape
    # Standardised points are about sqrt(2 D) apart, so that half the pairs are well correlated.
    kernel = RBF(length_scale=np.sqrt(D))
    W = np.random.default_rng(0).normal(scale=1 / np.sqrt(D), size=(D + 1, 50))

    print(f"kerneldiff {config['kerneldiff']}, {config['isa']}, {config['threads']} threads\n")
    print(f"data    diabetes, from scikit-learn: {N} patients x {D} features, standardised")
    print(f"kernel  {kernel}, of all pairs of patients")
    print(f"basis   {W.shape[1]} functions tanh(x a + b) with random slopes a and biases b\n")

    header = ("", "shape", "MiB", "deviation", "kerneldiff", "NumPy", "ratio")
    print("{:<16}{:<20}{:>7}{:>11}{:>13}{:>12}{:>8}".format(*header))
    failed = []
    for job in [*_kernel_jobs(kernel, X), _tanh_job(X, W)]:
        array = job.compute()
        deviation = _deviation(array, job.expected())
        ours, numpys = _medians(job.compute, job.reference)
        shape = " x ".join(map(str, array.shape))
        print(
            f"{job.name:<16}{shape:<20}{array.nbytes / 2**20:>7.1f}{deviation:>11.1e}"
            f"{1e3 * ours:>10.2f} ms{1e3 * numpys:>9.1f} ms{numpys / ours:>7.1f}x",
            flush=True,
        )
        if not deviation <= LIMIT:  # NaN fails
            failed.append(job.name)

    print(
        "\ndeviation  the largest of any entry from scikit-learn's kernel values and from finite\n"
        "           differences of them (numpy.tanh for the basis), in units of the array's\n"
        f"           largest entry; the check is good to 1e-12 and the limit is {LIMIT:g}\n"
        "times      medians of calls in turn, each into a new array; NumPy: the same formulas,\n"
        "           vectorised (kerneldiff._reference)"
    )
    print(f"\n{time.perf_counter() - started:.1f} s in all. ", end="")
    print(f"FAILED: {', '.join(failed)}." if failed else "All checks passed.")
    return 1 if failed else 0


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
