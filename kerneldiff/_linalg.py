"""The one way to BLAS and LAPACK, and the one place that decides how many threads they get.

A BLAS whose threads wait for each other by spinning is slow as soon as other work wants the cores:
all of them wait for the one that is not running.  OpenBLAS also ends the process when several of
its threads factorise a matrix of some 23 000 rows.  So BLAS works with one thread here
(`blas_threads`), and matrices that are worth several threads are cut into blocks: a block is a task
for one thread, tasks are handed out one by one, and who has to wait sleeps (`_Team`).

Matrices are Fortran-contiguous, of type float64.  Of symmetric and triangular ones only the lower
triangle is read and written.  Nothing of the size of a matrix is allocated.

References
----------
A. Buttari, J. Langou, J. Kurzak, J. Dongarra, "A class of parallel tiled linear algebra algorithms
for multicore architectures", Parallel Computing 35 (2009); J. J. Du Croz, N. J. Higham, "Stability
of methods for matrix inversion", IMA J. Numer. Anal. 12 (1992), method D, for the inverse.
"""

import _thread
import contextlib
import functools
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from kerneldiff import _blas

# Rows of a block: a tenth of the matrix, but between these. Larger blocks keep BLAS faster, smaller
# ones more threads at work.
_BLOCK = 256, 640

# Columns of a symmetric block that are computed as if it were not symmetric.
_SQUARE = 64

# From how many rows on several threads of BLAS make a solution of linear equations faster.
_PAYS = 3000

# Rows of a matrix that BLAS may have at once: OpenBLAS with two threads fails from 23 000 on.
_SAFE = 8192

# Operations that are worth one more thread: of a matrix some 10 ms, as few blocks leave threads
# without work, and of parts that do not need each other less than one.
_WORTH, _WORTH_OF_PARTS = 3e8, 2e7


# ------------------------------------------------------------------------------------- how many


class _Limit(contextlib.ContextDecorator):
    """One thread for BLAS while anybody is inside: the first in saves, the last out restores.

    The number of threads belongs to the process, not to a thread of it, so that there is one count.
    Libraries whose number belongs to the calling thread (those that use OpenMP) and those that
    threadpoolctl does not know are left alone.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._inside = 0
        self._threads = 1
        self._lowered: list[tuple[_Pool, int]] = []
        self._pools: list[_Pool] | None = None

    def __enter__(self) -> int:
        with self.lock:
            if not self._inside:
                self._lower()
            self._inside += 1
            return self._threads

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._inside -= 1
            if not self._inside:
                for pool, threads in self._lowered:
                    # What somebody else has set meanwhile stays.
                    if pool.get() == 1:
                        pool.set(threads)
                self._lowered = []

    def _lower(self) -> None:
        if self._pools is None:
            # Looking for them takes milliseconds. NumPy's and SciPy's were loaded by the imports.
            found = ThreadpoolController().select(user_api="blas").lib_controllers
            known = all(map(_is_of_process, found))
            self._pools = [_pool(library) for library in found] if known else []
        counts = [pool.get() for pool in self._pools]
        self._threads = min(counts, default=1)
        for pool, threads in zip(self._pools, counts, strict=True):
            if threads > 1:
                pool.set(1)
                self._lowered.append((pool, threads))


@dataclass(frozen=True)
class _Pool:
    """How to get and to set the number of threads of a BLAS."""

    get: Callable[[], int]
    set: Callable[[int], object]


def _is_of_process(library: Any) -> bool:
    """Whether the number of threads of a BLAS is the same for all that call it."""
    return library.internal_api == "mkl" or (
        library.internal_api in ("openblas", "blis") and library.threading_layer != "openmp"
    )


def _pool(library: Any) -> _Pool:
    # OpenBLAS's own functions, which take less than a microsecond. From version 3.8 on
    # threadpoolctl lets one thread of Python at a time set the number and ignores others; but who
    # is last out here may be another one than who was first in.
    for before, after in itertools.product(("", "scipy_"), ("", "64_", "_64")):
        get, set_ = (
            getattr(library.dynlib, f"{before}openblas_{verb}_num_threads{after}", None)
            for verb in ("get", "set")
        )
        if get is not None and set_ is not None:
            return _Pool(get, set_)
    return _Pool(library.get_num_threads, library.set_num_threads)


#: ``with blas_threads as threads:`` limits BLAS to one thread of its own, in the whole process, and
#: says how many threads the user lets it have. It decorates functions, too.
blas_threads = _Limit()


def blas_threads_of(n: int) -> contextlib.AbstractContextManager[Any]:
    """Limit BLAS while somebody else's code, not cut into blocks, works on a matrix of n rows.

    It may keep its threads for sizes where these pay, and are safe.
    """
    return contextlib.nullcontext() if _PAYS <= n <= _SAFE else blas_threads


if hasattr(os, "register_at_fork"):
    # A child must not find the lock held by a thread that it does not have.
    os.register_at_fork(
        before=blas_threads.lock.acquire,
        after_in_parent=blas_threads.lock.release,
        after_in_child=blas_threads.lock.release,
    )


# ----------------------------------------------------------------------------------------- tasks


class _Stopped(Exception):
    """Another task failed."""


class _NotPositive(Exception):
    """A leading minor, numbered from 1, is not positive."""


class _Team:
    """Threads that do tasks in order; a task may wait for what earlier ones have finished."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._finished: Counter[Hashable] = Counter()
        self._at_work: set[int] = set()
        self._error: BaseException | None = None

    def finish(self, what: Hashable) -> None:
        """Note that one more part of something is finished."""
        with self._changed:
            self._finished[what] += 1
            self._changed.notify_all()

    def wait(self, what: Hashable, parts: int) -> None:
        """Wait until so many parts of something are finished."""
        with self._changed:
            while self._finished[what] < parts:
                if self._error is not None:
                    raise _Stopped
                self._changed.wait()

    def run(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Do all tasks; raise what the first one that failed raises, when no thread is at work."""
        remaining = iter(tasks)

        def work() -> None:
            me = threading.get_ident()
            try:
                while True:
                    with self._changed:
                        task = next(remaining, None) if self._error is None else None
                        if task is None:
                            return
                        self._at_work.add(me)
                    task()
            except BaseException as error:
                self._stop(error)
            finally:
                with self._changed:
                    self._at_work.discard(me)
                    self._changed.notify_all()

        try:
            for _ in range(self._threads - 1):
                # Not threading.Thread, which waits until the thread runs. One that comes when all
                # tasks are taken has nothing to do, and nobody has to wait for it.
                _thread.start_new_thread(work, ())
            work()
        except BaseException as error:  # an interrupt between two tasks
            self._stop(error)
        while self._at_work:
            try:
                with self._changed:
                    self._changed.wait_for(lambda: not self._at_work)
            except KeyboardInterrupt as error:
                self._stop(error)
        if self._error is not None:
            raise self._error

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()


def _threads_for(work: float, threads: int, worth: float = _WORTH) -> int:
    """How many threads so many operations are worth."""
    return max(1, min(threads, int(work / worth)))


def _block(n: int, threads: int) -> int:
    """How many rows a block gets."""
    if threads == 1:
        return max(1, min(n, _SAFE))
    least, most = _BLOCK
    return max(least, min(n // 10, most))


def _parts(n: int, block: int) -> list[slice]:
    """Cut n rows into blocks."""
    return [slice(first, min(first + block, n)) for first in range(0, n, block)]


def _in_parts(n: int, work: float, threads: int, task: Callable[[slice], None]) -> None:
    """Do a task for parts of n columns, which need nothing of each other."""
    threads = _threads_for(work, threads, _WORTH_OF_PARTS)
    if threads == 1:
        return task(slice(0, n))
    # Some parts for each thread, as some threads may come late.
    width = max(32, -(-n // (4 * threads)))
    _Team(threads).run(functools.partial(task, part) for part in _parts(n, width))


# -------------------------------------------------------------------------------- factorisation


def cholesky(A: np.ndarray, block: int | None = None) -> int:
    """Factorise a symmetric matrix in place.

    Parameters
    ----------
    A : ndarray of shape (n, n)
        Its lower triangle is replaced by the Cholesky factor's.
    block : int, default=None
        Rows of a block.

    Returns
    -------
    int
        0, or the order of the first leading minor that is not positive definite; the triangle then
        holds neither of the two.
    """
    with blas_threads as threads:
        threads = _threads_for(len(A) ** 3 / 3, threads)
        block = block or _block(len(A), threads)
        if len(A) <= block:
            return int(_blas.potrf(A))
        parts = _parts(len(A), block)
        count, team = len(parts), _Team(threads)

        def tile(i: int, j: int) -> None:
            rows, columns = parts[i], parts[j]
            left = slice(0, columns.start)
            C = A[rows, columns]
            # Of row i, j blocks are finished.
            team.wait(i, j)
            if i == j:
                _blas.syrk(-1.0, A[rows, left], C)
                info = _blas.potrf(C)
                if info:
                    raise _NotPositive(columns.start + info)
            else:
                team.wait(j, j)
                _blas.gemm(-1.0, A[rows, left], A[columns, left], C, trans_b=True)
                team.wait(j, j + 1)
                _blas.trsm(A[columns, columns], C, right=True, trans=True)
            team.finish(i)

        def order() -> Iterator[Callable[[], None]]:
            yield functools.partial(tile, 0, 0)
            for j in range(count - 1):
                # What the next column waits for comes as soon as nobody has to wait for it.
                early = min(j + threads, count - 1)
                for i in range(j + 1, count):
                    yield functools.partial(tile, i, j)
                    if i == early:
                        yield functools.partial(tile, j + 1, j + 1)

        try:
            team.run(order())
        except _NotPositive as error:
            return int(error.args[0])
    return 0


def invert(L: np.ndarray, block: int | None = None) -> None:
    """Replace a Cholesky factor by the inverse of what it is the factor of, in place.

    Parameters
    ----------
    L : ndarray of shape (n, n)
        In its lower triangle, in the end that of the inverse.
    block : int, default=None
        Rows of a block.

    Notes
    -----
    From the last column of blocks to the first: with P = L₂₁ L₁₁⁻¹ the inverse S has
    S₂₁ = -S₂₂ P and S₁₁ = L₁₁⁻ᵀ L₁₁⁻¹ - Pᵀ S₂₁.
    """
    with blas_threads as threads:
        threads = _threads_for(2 * len(L) ** 3 / 3, threads)
        block = block or _block(len(L), threads)
        if len(L) <= block:
            return _blas.potri(L)
        parts = _parts(len(L), block)
        count, team = len(parts), _Team(threads)
        # P of a column, and of the next one.
        panels = np.empty((2, parts[0].stop, len(L))).transpose(0, 2, 1)

        def prepare(i: int, j: int) -> None:
            rows, columns = parts[i], parts[j]
            # The panel is free again.
            team.wait(("diagonal", j + 2), int(j + 2 < count))
            P = panels[j % 2, rows, : columns.stop - columns.start]
            P[...] = L[rows, columns]
            _blas.trsm(L[columns, columns], P, right=True)
            team.finish(("panel", j))

        def tile(i: int, j: int) -> None:
            rows, columns = parts[i], parts[j]
            P = panels[j % 2, :, : columns.stop - columns.start]
            C = L[rows, columns]
            between, below = slice(columns.stop, rows.start), slice(rows.stop, None)
            team.wait(("panel", j), count - 1 - j)
            team.wait(("column", j + 1), count - 2 - j)
            if i == j + 1:
                team.wait(("diagonal", i), 1)
            _blas.symm(-1.0, L[rows, rows], P[rows], C, beta=0.0)
            _blas.gemm(-1.0, L[rows, between], P[between], C)
            _blas.gemm(-1.0, L[below, rows], P[below], C, trans_a=True)
            team.finish(("column", j))

        def diagonal(j: int) -> None:
            columns, below = parts[j], slice(parts[j].stop, None)
            P = panels[j % 2, below, : columns.stop - columns.start]
            team.wait(("column", j), count - 1 - j)
            C, S = L[columns, columns], L[below, columns]
            _blas.potri(C)
            # Pᵀ S₂₁ is symmetric, and its lower triangle enough. BLAS has no such product: it is
            # made of rectangles, and of small squares that are symmetrised.
            for part in _parts(len(C), _SQUARE):
                rest = slice(part.stop, None)
                _blas.syr2k(-0.5, P[:, part], S[:, part], C[part, part])
                _blas.gemm(-1.0, P[:, rest], S[:, part], C[rest, part], trans_a=True)
            team.finish(("diagonal", j))

        def order() -> Iterator[Callable[[], None]]:
            yield functools.partial(diagonal, count - 1)
            for j in range(count - 2, -1, -1):
                if j == count - 2:
                    yield functools.partial(prepare, j + 1, j)
                # What waits for the diagonal block of the column before comes last.
                for i in range(count - 1, j, -1):
                    yield functools.partial(tile, i, j)
                for i in range(j, count):
                    if j:
                        yield functools.partial(prepare, i, j - 1)
                yield functools.partial(diagonal, j)

        team.run(order())


# --------------------------------------------------------------------------- solving and products


def solve_half(L: np.ndarray, B: np.ndarray, *, transposed: bool = False) -> None:
    """Multiply by the inverse of a factor, or of its transpose, in place.

    Parameters
    ----------
    L : ndarray of shape (n, n)
        Lower triangular.
    B : ndarray of shape (n, k)
        Fortran-contiguous.
    transposed : bool, default=False
    """
    with blas_threads as threads:
        _in_parts(
            B.shape[1],
            float(B.size) * len(L),
            threads,
            lambda part: _blas.trsm(L, B[:, part], trans=transposed),
        )


def solve(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Multiply by the inverse of a matrix.

    Parameters
    ----------
    L : ndarray of shape (n, n)
        Its Cholesky factor.
    B : ndarray of shape (n, k)

    Returns
    -------
    ndarray of shape (n, k)
        Fortran-contiguous.
    """
    result = np.array(B, order="F")

    def columns(part: slice) -> None:
        X = result[:, part]
        _blas.trsm(L, X)
        _blas.trsm(L, X, trans=True)

    with blas_threads as threads:
        _in_parts(result.shape[1], 2.0 * result.size * len(L), threads, columns)
    return result


def invert_triangle(L: np.ndarray) -> None:
    """Replace a lower triangle by its inverse, in place.

    Parameters
    ----------
    L : ndarray of shape (n, n)
    """
    with blas_threads:
        _blas.trtri(L)


def add_gram(alpha: float, V: np.ndarray, C: np.ndarray) -> None:
    """Add alpha V Vᵀ to a symmetric matrix, in place.

    Parameters
    ----------
    alpha : float
    V : ndarray of shape (n, k)
        Contiguous in any order.
    C : ndarray of shape (n, n)
    """
    V, by_rows = _by_columns(V)
    with blas_threads as threads:
        threads = _threads_for(float(V.size) * len(C), threads, _WORTH_OF_PARTS)

        def panel(part: slice) -> None:
            here = V[:, part] if by_rows else V[part]
            _blas.syrk(alpha, here, C[part, part], trans=by_rows)
            if part.stop == len(C):
                return
            below = slice(part.stop, None)
            there = V[:, below] if by_rows else V[below]
            _blas.gemm(alpha, there, here, C[below, part], trans_a=by_rows, trans_b=not by_rows)

        block = _block(len(C), threads)
        if len(C) <= block:
            return panel(slice(0, len(C)))
        parts = _parts(len(C), block)
        _Team(threads).run(functools.partial(panel, part) for part in parts)


def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Multiply two matrices.

    Parameters
    ----------
    A : ndarray of shape (n, k)
    B : ndarray of shape (k, m)

    Returns
    -------
    ndarray of shape (n, m)
        C-contiguous.
    """
    result = np.empty((len(A), B.shape[1]))
    A, a_by_rows = _by_columns(A)
    B, b_by_rows = _by_columns(B)
    with blas_threads as threads:
        _in_parts(
            len(result),
            float(result.size) * (len(A) if a_by_rows else A.shape[1]),
            threads,
            lambda part: _blas.gemm(
                1.0,
                B,
                A[:, part] if a_by_rows else A[part],
                result[part].T,
                trans_a=not b_by_rows,
                trans_b=not a_by_rows,
                beta=0.0,
            ),
        )
    return result


def _by_columns(A: np.ndarray) -> tuple[np.ndarray, bool]:
    """A matrix as contiguous columns, and whether that is its transpose."""
    if A.flags.f_contiguous:
        return A, False
    return np.ascontiguousarray(A).T, True


def eigh(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, and eigenvectors as columns, of a symmetric matrix.

    Parameters
    ----------
    A : ndarray of shape (n, n)

    Returns
    -------
    values : ndarray of shape (n,)
    vectors : ndarray of shape (n, n)
    """
    with blas_threads_of(len(A)):
        values, vectors = scipy.linalg.eigh(A)
    return values, vectors
