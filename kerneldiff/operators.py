"""Covariances as linear operators, which never build their entries.

A product touches each pair of points once: a pair's jets meet the vector in a few numbers, and
these go to the sums of both points (`src/products.h`).  Contractions of derivatives of a covariance
with weights of its entries, which learning needs, are sums over pairs likewise
(`src/contractions.h`).  Vectors, points and sums stand in panels, as the core wants them; here they
are put there and taken out, block by block of the functionals of rows and columns.
"""

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator
from sklearn.gaussian_process.kernels import Kernel

from kerneldiff import _core, kernels
from kerneldiff._validation import (
    check_choice,
    check_fits,
    check_names,
    check_names_along,
    check_points,
    column_names,
    counted,
    quietly,
    real_array,
    unmasked,
)
from kerneldiff.functionals import (
    Functional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    _parts_order,
    _write,
    check_functionals,
    check_smooth,
    common_columns,
    covariance,
    part_of,
)

# Blocks of a covariance that are made are made in pieces of so many bytes.
_PIECE = 2**21


def _kept(kernel: Kernel) -> Kernel:
    """A copy of a kernel, whatever it consists of, that later changes of it do not reach."""
    result = copy.copy(kernel)
    for name, value in vars(result).items():
        if isinstance(value, Kernel):
            setattr(result, name, _kept(value))
        elif isinstance(value, np.ndarray | list | dict):
            setattr(result, name, copy.copy(value))
    return result


# ------------------------------------------------------------------------------------- panels


def _point_panels(X: np.ndarray) -> np.ndarray:
    """Points in panels, (panels, D, panel), padded with the last of them."""
    size = _core.panel(X.itemsize)
    n, d = X.shape
    panels = _core.aligned((-(-n // size), d, size), X.dtype)
    whole = n // size
    panels[:whole] = X[: whole * size].reshape(whole, size, d).transpose(0, 2, 1)
    if whole < len(panels):
        panels[whole] = X[-1][:, None]
        panels[whole, :, : n - whole * size] = X[whole * size :].T
    return panels


def _vector_panels(V: np.ndarray, n: int, parts: int) -> np.ndarray:
    """Vectors (n * parts, K) in panels, (K, panels, parts, panel), padded with zeros."""
    size = _core.panel(V.itemsize)
    k = V.shape[1]
    panels = _core.aligned((k, -(-n // size), parts, size), V.dtype)
    V = V.reshape(n, parts, k)
    whole = n // size
    panels[:, :whole] = V[: whole * size].reshape(whole, size, parts, k).transpose(3, 0, 2, 1)
    if n > whole * size:
        panels[:, whole, :, : n - whole * size] = V[whole * size :].transpose(2, 1, 0)
    return panels


def _from_panels(panels: np.ndarray, n: int) -> np.ndarray:
    """Vectors (n * parts, K) out of panels (K, panels, parts, panel)."""
    k, _, parts, _ = panels.shape
    points = panels.transpose(1, 3, 2, 0).reshape(panels.shape[1] * panels.shape[3], parts, k)
    return points[:n].reshape(n * parts, k)


class _Side:
    """A functional of one side, with points of its own in panels."""

    def __init__(self, f: Functional, dtype: np.dtype) -> None:
        self.functional = f
        self.n, self.d = f.X.shape
        self.size = f.size
        self.mask = None if f.mask is None else f.mask.copy()
        self.points = _point_panels(f.X.astype(dtype, copy=False))
        self.V = None if f.V is None else np.array(f.V, dtype)
        # A directional derivative is the gradient, times something: one invariant stays one.
        self.applied = "laplacian" if isinstance(f, Laplacian) else None
        self.parts = 2 if self.V is not None else f._parts
        self.order = _parts_order(f) if self.V is None else 1
        self.core = _core.Side(self.points, self.points, self.n, self.parts)

    @property
    def components(self) -> int:
        d = self.d
        return (self.parts & 1) + (d if self.parts & 2 else 0) + (d * d if self.parts & 4 else 0)

    @property
    def width(self) -> int:
        """Entries of the functional for a point, were there no mask."""
        return 1 if self.V is not None else self.components

    def own(self) -> Functional:
        """Return the functional at the points that are kept here."""
        f = copy.copy(self.functional)
        f.X = self.points.transpose(0, 2, 1).reshape(-1, self.d)[: self.n]
        f.V, f.mask = self.V, self.mask
        return f

    def with_directions(self, T: np.ndarray) -> "_Side":
        """Return the same side, for derivatives of the kernel in directions T beforehand."""
        side = copy.copy(self)
        if self.applied:  # it would be a derivative of a Laplacian: the trace of a Hessian's
            side.applied, side.parts, side.order = None, 4, 2
        side.core = _core.Side(self.points, _point_panels(T), self.n, side.parts)
        return side

    @property
    def traced(self) -> bool:
        """Whether a Laplacian is taken as the trace of a Hessian."""
        return (
            self.parts == 4 and self.width == self.d**2 and isinstance(self.functional, Laplacian)
        )

    def spread(self, v: np.ndarray) -> np.ndarray:
        """Vectors (size, K) as the core takes them, (n * components, K)."""
        if self.V is not None:
            return (self.V[:, :, None] * v[:, None, :]).reshape(self.V.size, v.shape[1])
        if self.traced:
            full = np.zeros((self.n, self.d, self.d, v.shape[1]), v.dtype)
            np.einsum("iaak->iak", full)[...] = v[:, None, :]
            return full.reshape(self.n * self.d**2, v.shape[1])
        if self.mask is not None:
            full = np.zeros((self.mask.size, v.shape[1]), v.dtype)
            full[self.mask.ravel()] = v
            return full
        return v

    def gather(self, v: np.ndarray) -> np.ndarray:
        """Sums (n * components, K) as entries of the functional, (size, K)."""
        if self.V is not None:
            return np.einsum("ia,iak->ik", self.V, v.reshape(self.n, self.d, v.shape[1]))
        if self.traced:
            return np.einsum("iaak->ik", v.reshape(self.n, self.d, self.d, v.shape[1]))
        if self.mask is not None:
            return v[self.mask.ravel()]
        return v


# ----------------------------------------------------------------------------------- products


def _compile(term: kernels.Term, row: _Side, col: _Side, tangent: str | None = None) -> Any:
    """Compile a tree for two sides; `tangent` says which has directions to go along."""
    applied = [row.applied, col.applied]
    if tangent is not None:
        applied[tangent == "cols"] = "directional"
    dtype = row.points.dtype
    return kernels.compile_term(term, row.d, row.order + col.order, *applied, dtype.char)


def _times(
    term: kernels.Term,
    row: _Side,
    col: _Side,
    v: np.ndarray,
    tangent: str | None = None,
    total: bool = False,
) -> np.ndarray:
    """The covariance of two sides times vectors (col.size, K)."""
    k = v.shape[1]
    program = _compile(term, row, col, tangent)
    vectors = _vector_panels(col.spread(v), col.n, col.components)
    sums = _core.aligned((k, len(row.points), row.components, row.points.shape[-1]), v.dtype)
    same = row is col and tangent is None
    _core.product(
        program,
        row.core,
        row.core if same else col.core,
        vectors,
        None,
        sums,
        sums if same else None,
        total,
    )
    return row.gather(_from_panels(sums, row.n))


def _times_both(
    term: kernels.Term, row: _Side, col: _Side, v: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The covariance of two sides times v, and its transpose times u, from the same jets."""
    program = _compile(term, row, col)
    of_cols = _vector_panels(col.spread(v), col.n, col.components)
    of_rows = _vector_panels(row.spread(u), row.n, row.components)
    row_sums = _core.aligned(of_rows.shape, v.dtype)
    col_sums = _core.aligned(of_cols.shape, v.dtype)
    _core.product(program, row.core, col.core, of_cols, of_rows, row_sums, col_sums)
    return (
        row.gather(_from_panels(row_sums, row.n)),
        col.gather(_from_panels(col_sums, col.n)),
    )


# -------------------------------------------------------------------------------- contractions


class _Weights:
    """Weights W of the entries of a covariance: an array, or the product of two."""

    def __init__(self, W: Any, shape: tuple[int, int], dtype: np.dtype, symmetric: bool) -> None:
        self.symmetric = symmetric
        self.array: np.ndarray | None = None
        if isinstance(W, tuple):
            if len(W) != 2:
                raise ValueError(f"W is a tuple of {len(W)}; as a tuple, it must be two: (U, V).")
            self.U, self.V = (
                _check_vectors(part, n, name, dtype)
                for part, n, name in zip(W, shape, ("U", "V"), strict=True)
            )
            if self.U.shape[1] != self.V.shape[1]:
                raise ValueError(
                    f"U has {counted(self.U.shape[1], 'column')} and V has {self.V.shape[1]}; both "
                    "must have the same number."
                )
            return
        array = real_array(W, "W", error=TypeError)
        if array.shape != shape:
            raise ValueError(f"W has shape {array.shape}; it must have shape {shape}.")
        array = array.astype(dtype, copy=False)
        if any(step % array.itemsize for step in array.strides) or not array.flags.aligned:
            array = array.copy()
        self.array = array

    def steps(self) -> tuple[int, int]:
        """Elements between the rows, and between the columns, of the array."""
        assert self.array is not None
        row, column = (step // self.array.itemsize for step in self.array.strides)
        return row, column

    def part(self, rows: slice, cols: slice) -> np.ndarray:
        """A part of W, of which the lower triangle is known if it is symmetric."""
        if self.array is None:
            return self.U[rows] @ self.V[cols].T
        if not self.symmetric:
            return self.array[rows, cols]
        i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(cols.start, cols.stop)
        if rows.start >= cols.stop:
            return self.array[rows, cols]
        return self.array[np.maximum(i, j), np.minimum(i, j)]

    def diagonal(self) -> np.ndarray:
        if self.array is None:
            return np.einsum("ik,ik->i", self.U, self.V)
        return np.einsum("ii->i", self.array)

    def balanced(self) -> "_Weights":
        """The same sum over a symmetric covariance, by weights that are symmetric."""
        if self.array is not None:
            return self
        result = copy.copy(self)
        result.U = np.hstack([self.U, self.V]) / 2
        result.V = np.hstack([self.V, self.U])
        return result


def _check_vectors(v: Any, n: int, name: str, dtype: np.dtype) -> np.ndarray:
    """Vectors (n,) or (n, K), as (n, K)."""
    array = real_array(v, name, error=TypeError)
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"{name} has shape {array.shape}; it must have shape ({n},) or ({n}, K).")
    return array.reshape(n, -1 if array.size else math.prod(array.shape[1:])).astype(
        dtype, copy=False
    )


def _entries(side: _Side, start: int) -> np.ndarray:
    """Numbers of a side's entries in the whole, for each point and component; -1 for none."""
    size = side.points.shape[-1]
    at = np.full((len(side.points) * size, side.width), -1, np.int64)
    numbers = np.arange(start, start + side.size)
    if side.mask is None:
        at[: side.n] = numbers.reshape(side.n, side.width)
    else:
        at[: side.n][side.mask] = numbers
    return at


def _is_plain(side: _Side) -> bool:
    """Whether the core contracts this functional: values and gradients."""
    return side.parts <= 3 and side.applied is None


def _contract(
    program: Any,
    heads: list,
    row: _Side,
    col: _Side,
    weights: _Weights,
    i0: int,
    j0: int,
    triangle: int,
    sums: np.ndarray | None,
) -> np.ndarray:
    """Contract a block of functionals whose entries begin at (i0, j0)."""
    sides = [
        _core.Side(
            side.points,
            side.points if side.V is None else _point_panels(side.V),
            side.n,
            side.parts,
            side.V is not None,
        )
        for side in (row, col)
    ]
    row_core, col_core = sides[0], sides[0] if row is col else sides[1]
    u = v = at = None
    steps = (0, 0)
    if weights.array is None:
        u, v = (
            _vector_panels(side.spread(part) if side.mask is not None else part, side.n, side.width)
            for side, part in (
                (row, weights.U[i0 : i0 + row.size]),
                (col, weights.V[j0 : j0 + col.size]),
            )
        )
    else:
        steps = weights.steps()
    if row.mask is not None or col.mask is not None:
        at = _entries(row, i0), _entries(col, j0)
    return _core.contract(
        program,
        heads,
        row_core,
        col_core,
        weights.array,
        (i0, j0),
        at,
        steps,
        u,
        v,
        triangle,
        sums,
    )


def _pieces(row: _Side, col: _Side) -> Iterator[tuple[Functional, slice, Functional, slice]]:
    """Pairs of parts of two functionals whose covariance is of moderate size, and which entries."""
    width = max(1, row.components * col.components) * row.points.itemsize
    columns = max(1, min(col.n, _PIECE // width))
    step = max(1, _PIECE // (width * columns))
    below = 0
    rows, cols = row.own(), col.own()
    for start in range(0, row.n, step):
        f = part_of(rows, slice(start, start + step))
        right = 0
        for begin in range(0, col.n, columns):
            g = part_of(cols, slice(begin, begin + columns))
            yield f, slice(below, below + f.size), g, slice(right, right + g.size)
            right += g.size
        below += f.size


def _contract_pieces(
    term: kernels.Term, row: _Side, col: _Side, weights: _Weights, i0: int, j0: int
) -> float:
    """Contract the covariance of any functionals under a tree, piece by piece."""
    total = 0.0
    dtype = row.points.dtype
    program = _program_of(term, row, col)
    for f, rows, g, cols in _pieces(row, col):
        block = np.empty((f.size, g.size), dtype)
        _write(program, f, g, block, 0, 0, False, False)
        w = weights.part(_moved(rows, i0), _moved(cols, j0))
        total += float(np.vdot(np.ascontiguousarray(w), block))
    return total


def _program_of(term: kernels.Term, row: _Side, col: _Side) -> Any:
    f, g = row.functional, col.functional
    order = _parts_order(f) + _parts_order(g)
    return kernels.compile_term(term, row.d, order, f._applied, g._applied, row.points.dtype.char)


def _moved(s: slice, by: int) -> slice:
    return slice(s.start + by, s.stop + by)


def _contract_pieces_points(
    term: kernels.Term, row: _Side, col: _Side, weights: _Weights, i0: int, j0: int, total: bool
) -> np.ndarray:
    """Contract derivatives by the points of the rows, for any functionals, piece by piece."""
    d, dtype = row.d, row.points.dtype
    result = np.zeros((row.n, d), dtype)
    # Along each axis, as a directional derivative of what the rows' functional is made of.
    tangent = row.with_directions(np.zeros((row.n, d), dtype))
    base = {1: Value, 2: Gradient, 3: type(row.functional), 4: Hessian}[tangent.parts]
    order = tangent.order + _parts_order(col.functional)
    applied = col.functional._applied
    program = kernels.compile_term(term, d, order, "directional", applied, dtype.char)
    start = 0
    for f, rows, g, cols in _pieces(row, col):
        w = weights.part(_moved(rows, i0), _moved(cols, j0))
        n = len(f.X)
        stop = start + n
        spread = copy.copy(tangent)
        spread.n, spread.V, spread.mask = n, f.V, f.mask
        w = spread.spread(np.ascontiguousarray(w))
        whole = base(np.ascontiguousarray(f.X))
        block = np.empty((whole.size, g.size), dtype)
        for c in range(d):
            whole.V = np.zeros_like(whole.X)
            whole.V[:, c] = 1
            _write(program, whole, g, block, 0, 0, False, False)
            if total and np.isnan(block).any():
                _forget_diagonal(block, whole, start, g, cols, col)
            result[start:stop, c] += np.einsum("ij,ij->i", block, w).reshape(n, -1).sum(axis=1)
        if cols.stop == col.size:
            start = stop
    return result


def _forget_diagonal(
    block: np.ndarray, f: Functional, start: int, g: Functional, cols: slice, col: _Side
) -> None:
    """A point with itself does not move apart: what does not exist there does not matter."""
    point = np.nonzero(np.ones((col.n, col.width), bool) if col.mask is None else col.mask)[0]
    same = (
        (np.repeat(np.arange(start, start + len(f.X)), f.size // len(f.X))[:, None]) == point[cols]
    )
    block[same] = 0


# ----------------------------------------------------------------------------------- operator


class CovarianceOperator(LinearOperator):
    """Covariance of linear functionals of a Gaussian process, as a linear operator.

    It has the entries of `covariance` and never builds them: a product goes once over all pairs
    of points.  It keeps the points in a form of its own, so that later changes of them do not
    matter.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The covariance function of the process; any kernel that can be read.
    rows : Functional or list of Functional
        `Value`, `Gradient`, `ValueGradient`, `Directional`, `Hessian`, `Laplacian`, of points with
        D columns.
    cols : Functional or list of Functional, default=None
        None stands for the rows; the operator is symmetric then, the noise of the kernel
        (WhiteKernel) is added to values on the diagonal, and each pair is gone through once.
    noise : float or array-like of shape (n_rows,), default=None
        What is added to the diagonal, not negative; only with ``cols=None``.

    Attributes
    ----------
    shape : tuple of int
        (n_rows, n_cols), the sizes of the functionals.
    dtype : dtype
        float32 if all points are, else float64.
    kernel : sklearn.gaussian_process.kernels.Kernel
        A copy of the kernel.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read, or a side holds something else than functionals.
    ValueError
        If numbers or names of columns differ, if the kernel is too rough for derivatives on both
        sides, or if `noise` is negative or does not fit.

    See Also
    --------
    covariance : The same as an array.
    expansion : Sums of kernels, and their derivatives.

    Notes
    -----
    A product costs O(N M D) for each vector, or O(N M D²) where a Hessian is on a side, and memory
    of the size of points and vectors.  Sums are in the same order for any number of threads.
    An interrupt (Ctrl-C) ends a product within a second.

    References
    ----------
    S. Ament, C. Gomes, "Scalable First-Order Bayesian Optimization via Structured Automatic
    Differentiation", ICML 2022, section 3.

    Examples
    --------
    Conjugate gradients with a covariance of values and gradients:

    >>> import numpy as np
    >>> from scipy.sparse.linalg import cg
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import CovarianceOperator, ValueGradient
    >>> X = np.linspace(0, 1, 20).reshape(10, 2)
    >>> C = CovarianceOperator(RBF(0.3), ValueGradient(X), noise=1e-2)
    >>> C.shape
    (30, 30)
    >>> weights, failed = cg(C, np.ones(30), rtol=1e-10)
    >>> failed, np.allclose(C @ weights, 1)
    (0, True)
    """

    def __init__(
        self,
        kernel: Kernel,
        rows: Functional | Sequence[Functional],
        cols: Functional | Sequence[Functional] | None = None,
        *,
        noise: ArrayLike | None = None,
    ) -> None:
        row_list = check_functionals(rows, "rows")
        col_list = row_list if cols is None else check_functionals(cols, "cols")
        self._d = common_columns([*row_list, *col_list])
        kernels.read(kernel, self._d)
        self.kernel = _kept(kernel)
        self._term = kernels.read(self.kernel, self._d)
        check_smooth(kernel, self._term, row_list, col_list)
        arrays = [a for f in (*row_list, *col_list) for a in (f.X, f.V) if a is not None]
        dtype = np.result_type(*arrays)
        self._listed = [not isinstance(side, Functional) for side in (rows, cols)]
        self._rows = [_Side(f, dtype) for f in row_list]
        self._cols = self._rows if cols is None else [_Side(f, dtype) for f in col_list]
        super().__init__(dtype, (_size(self._rows), _size(self._cols)))  # type: ignore[call-arg]
        for row in self._rows:
            for col in self._cols:
                _compile(self._term, row, col)
        if noise is not None:
            noise = self._check_noise(noise)
        self._added = noise
        self._noise = noise
        if self._symmetric and kernels.with_noise(self._term) is not None:
            self._noise = self._noise_of(self._term) + (0 if noise is None else noise)

    def _check_noise(self, noise: ArrayLike) -> np.ndarray:
        n = self.shape[0]
        if not self._symmetric:
            raise ValueError(
                "noise is on the diagonal of a symmetric covariance; cols must be None."
            )
        array = real_array(noise, "noise", error=TypeError)
        if array.shape not in ((), (n,)):
            raise ValueError(
                f"noise has shape {array.shape}; it may be a number or have shape ({n},)."
            )
        if array.size and not (np.min(array) >= 0 and np.isfinite(array).all()):
            raise ValueError(
                f"noise has the value {np.min(array)}; it must be finite, not negative."
            )
        return np.array(np.broadcast_to(array, (n,)), self.dtype)

    @property
    def _symmetric(self) -> bool:
        return self._cols is self._rows

    def __reduce__(self) -> Any:
        rows, cols = (
            [side.own() for side in sides] if listed else sides[0].own()
            for sides, listed in zip((self._rows, self._cols), self._listed, strict=True)
        )
        arguments = (self.kernel, rows, None if self._symmetric else cols)
        return functools.partial(CovarianceOperator, noise=self._added), arguments

    # ---- products

    @quietly
    def _matmat(self, V: np.ndarray) -> np.ndarray:
        v = unmasked(V, "the vector")
        if v.dtype.kind == "c":
            both = self._matmat(np.hstack([v.real, v.imag]))
            return both[:, : v.shape[1]] + 1j * both[:, v.shape[1] :]
        v = real_array(v, "the vector", error=TypeError)
        result = self._product(self._term, v.astype(self.dtype, copy=False))
        if self._noise is not None:
            result += self._noise[:, None] * v
        return result.astype(np.result_type(self.dtype, v.dtype), copy=False)

    # SciPy makes arrays of what is to be multiplied, and drops masks.

    def dot(self, x: Any) -> Any:
        """Multiply by what is on the right, as ``@`` and ``*`` do.

        Parameters
        ----------
        x : array-like of shape (n_cols,) or (n_cols, K), LinearOperator or number

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, K), or LinearOperator
        """
        return super().dot(_operand(x))

    def matmat(self, X: Any) -> np.ndarray:
        """Multiply by a block of vectors.

        Parameters
        ----------
        X : array-like of shape (n_cols, K)

        Returns
        -------
        ndarray of shape (n_rows, K)
        """
        return super().matmat(_operand(X))

    def _rdot(self, x: Any) -> Any:
        return super()._rdot(_operand(x))  # type: ignore[misc]

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(v, (-1, 1)))

    def _product(self, term: kernels.Term, v: np.ndarray) -> np.ndarray:
        result = np.zeros((self.shape[0], v.shape[1]), self.dtype)
        for a, (row, i) in enumerate(_starts(self._rows)):
            for b, (col, j) in enumerate(_starts(self._cols)):
                rows, cols = slice(i, i + row.size), slice(j, j + col.size)
                if not self._symmetric or a == b:
                    result[rows] += _times(term, row, col, v[cols])
                elif a < b:
                    forth, back = _times_both(term, row, col, v[cols], v[rows])
                    result[rows] += forth
                    result[cols] += back
        return result

    def _transpose(self) -> "CovarianceOperator":
        if self._symmetric:
            return self
        result = copy.copy(self)
        result._rows, result._cols = self._cols, self._rows
        result._listed = self._listed[::-1]
        result.shape = self.shape[::-1]  # type: ignore[misc]
        return result

    _adjoint = _transpose

    # ---- entries

    def to_dense(self) -> np.ndarray:
        """Return all entries.

        Returns
        -------
        ndarray of shape (n_rows, n_cols)

        Raises
        ------
        MemoryError
            If it would be larger than the memory this process may use.
        """
        check_fits(self.shape, self.dtype)
        rows = [side.own() for side in self._rows]
        cols = None if self._symmetric else [side.own() for side in self._cols]
        result = covariance(self.kernel, rows, cols)
        if self._added is not None:
            np.einsum("ii->i", result)[...] += self._added
        return result

    @quietly
    def diagonal(self) -> np.ndarray:
        """Return the entries on the diagonal.

        Returns
        -------
        ndarray of shape (min(n_rows, n_cols),)
        """
        n = min(self.shape)
        result = np.empty(n, self.dtype)
        if self._symmetric:
            for row, i in _starts(self._rows):
                result[i : i + row.size] = _diagonal(self._term, row)
        else:
            step = 32
            for i in range(0, n, step):
                entries = np.arange(i, min(n, i + step))
                result[i : i + step] = np.einsum("ii->i", self[entries, entries])
        if self._noise is not None:
            result += self._noise
        return result

    @quietly
    def __getitem__(self, index: Any) -> np.ndarray:
        """Return some rows and columns as an array.

        Parameters
        ----------
        index : tuple of two of: int, slice, sequence of int, boolean mask
            Rows and columns, each by itself: ``op[rows, cols]`` has all of these rows' entries in
            all of these columns. An int drops the axis.

        Returns
        -------
        ndarray
        """
        if not isinstance(index, tuple):
            index = (index, slice(None))
        if len(index) != 2:
            raise IndexError(f"{len(index)} indices; there are rows and columns.")
        rows, cols = (_check_index(i, n) for i, n in zip(index, self.shape, strict=True))
        check_fits((len(rows), len(cols)), self.dtype)
        result = np.empty((len(rows), len(cols)), self.dtype)
        for row, i in _starts(self._rows):
            these = np.nonzero((rows >= i) & (rows < i + row.size))[0]
            for col, j in _starts(self._cols):
                those = np.nonzero((cols >= j) & (cols < j + col.size))[0]
                if len(these) and len(those):
                    _entries_of(
                        self._term, row, rows[these] - i, col, cols[those] - j, result, these, those
                    )
        if self._noise is not None:
            same = rows[:, None] == cols
            result[same] += np.broadcast_to(self._noise[rows][:, None], same.shape)[same]
        drop = tuple(
            0 if np.ndim(i) == 0 and not isinstance(i, slice) else slice(None) for i in index
        )
        return result[drop]

    # ---- contractions

    def vjp(self, W: Any, wrt: str = "theta") -> Any:
        """Contract derivatives of the entries with weights: Σ_ij W_ij ∂C_ij.

        Parameters
        ----------
        W : array-like of shape (n_rows, n_cols), or tuple of two arrays
            The weights. An array in memory of any order is read where it is; with ``cols=None`` its
            lower triangle stands for a symmetric matrix. A tuple (U, V) of arrays of shapes
            (n_rows,) and (n_cols,), or (n_rows, K) and (n_cols, K), stands for U Vᵀ.
        wrt : {"theta", "rows", "cols"}, default="theta"
            The logarithms of the kernel's hyperparameters, in the order of ``kernel.theta``; or the
            points of one side. With ``cols=None``, "rows" is the total derivative.

        Returns
        -------
        ndarray of shape (n_theta,), or (N, D)
            A list of arrays, one for each functional, if the side is a list.

        Raises
        ------
        ValueError
            If W has another shape.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import CovarianceOperator, Value
        >>> C = CovarianceOperator(RBF(2.0), Value([[0.0], [1.0]]))
        >>> C.vjp(np.ones((2, 2))).round(4)  # 2 exp(-1/8) / 4
        array([0.4412])
        """
        check_choice("wrt", wrt, ("theta", "rows", "cols"))
        weights = _Weights(W, self.shape, self.dtype, self._symmetric)
        if wrt == "theta":
            return self._vjp_theta(weights)
        if self._symmetric:
            if wrt == "cols":
                raise ValueError(
                    "wrt is 'cols', but cols is None: the derivative by the rows is the total one."
                )
            weights = weights.balanced()
        elif wrt == "cols":
            if weights.array is None:
                return self._transpose().vjp((weights.V, weights.U), "rows")
            return self._transpose().vjp(weights.array.T, "rows")
        return self._vjp_rows(weights)

    @quietly
    def _vjp_theta(self, weights: _Weights) -> np.ndarray:
        derivatives = kernels.theta_derivatives(self.kernel, self._d)
        result = np.zeros(sum(part.size for part in derivatives))
        if not len(result):
            return result
        d = self._d
        for a, (row, i) in enumerate(_starts(self._rows)):
            for b, (col, j) in enumerate(_starts(self._cols)):
                factor, triangle = 1.0, 0
                if self._symmetric and weights.array is not None:
                    if a < b:
                        continue
                    factor = 1.0 if a == b else 2.0
                    triangle = 2 if a == b else 1
                if _is_plain(row) and _is_plain(col):
                    program, tables = kernels.compile_heads(
                        [part.term for part in derivatives],
                        d,
                        row.order + col.order,
                        self.dtype.char,
                    )
                    heads = [
                        (table, None if part.dims is None else np.array(part.weights))
                        for table, part in zip(tables, derivatives, strict=True)
                    ]
                    values = _contract(program, heads, row, col, weights, i, j, triangle, None)
                    start = 0
                    for part in derivatives:
                        dims = [0] if part.dims is None else list(part.dims)
                        of_part = values[start : start + (1 if part.dims is None else d)]
                        result[part.first : part.first + part.size] += factor * of_part[dims]
                        start += len(of_part)
                else:
                    for part in derivatives:
                        for p, term in enumerate(part.terms(d), part.first):
                            result[p] += factor * _contract_pieces(term, row, col, weights, i, j)
        if self._symmetric:
            diagonal = weights.diagonal()
            for part in derivatives:
                # Length scales of their own change nothing where points meet themselves.
                if part.dims is None and kernels.with_noise(part.term) is not None:
                    result[part.first] += diagonal @ self._noise_of(part.term)
        return result

    def _vjp_rows(self, weights: _Weights) -> Any:
        results = []
        factor = 2 if self._symmetric else 1
        for row, i in _starts(self._rows):
            result = np.zeros((row.n, self._d), self.dtype)
            for col, j in _starts(self._cols):
                if _is_plain(row) and _is_plain(col):
                    order = row.order + col.order + 1
                    program = kernels.compile_term(
                        self._term, self._d, order, dtype=self.dtype.char
                    )
                    sums = _core.aligned((1, *row.points.shape), self.dtype)
                    _contract(program, [], row, col, weights, i, j, int(self._symmetric), sums)
                    result += _from_panels(sums, row.n).reshape(row.n, self._d)
                else:
                    result += _contract_pieces_points(
                        self._term, row, col, weights, i, j, row is col
                    )
            results.append(factor * result)
        for number, gradients, entries, points in self._noise_gradients():
            results[number][points] += weights.diagonal()[entries, None] * gradients
        return results if self._listed[0] else results[0]

    def jvp(self, tangent: Any, V: ArrayLike, wrt: str = "theta") -> np.ndarray:
        """Multiply a derivative of the operator by vectors.

        Parameters
        ----------
        tangent : array-like of shape (n_theta,), or (N, D)
            The direction of the derivative; a list of arrays, one for each functional, if the side
            is a list.
        V : array-like of shape (n_cols,) or (n_cols, K)
            Vectors.
        wrt : {"theta", "rows", "cols"}, default="theta"
            As for `vjp`.

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, K)
            The derivative of ``C @ V`` in that direction.
        """
        check_choice("wrt", wrt, ("theta", "rows", "cols"))
        v = _check_vectors(V, self.shape[1], "V", self.dtype)
        if wrt == "theta":
            t = real_array(tangent, "tangent", error=TypeError)
            n = sum(part.size for part in kernels.theta_derivatives(self.kernel, self._d))
            if t.shape != (n,):
                raise ValueError(f"tangent has shape {t.shape}; it must have shape ({n},).")
            term = kernels.tangent(self.kernel, self._d, t)
            result = self._product(term, v)
            if self._symmetric and kernels.with_noise(term) is not None:
                result += self._noise_of(term)[:, None] * v
        else:
            if self._symmetric and wrt == "cols":
                raise ValueError(
                    "wrt is 'cols', but cols is None: the derivative by the rows is the total one."
                )
            result = self._jvp_points(tangent, v, wrt)
        return result[:, 0] if np.ndim(V) == 1 else result

    def _jvp_points(self, tangent: Any, v: np.ndarray, wrt: str) -> np.ndarray:
        sides = self._rows if wrt == "rows" else self._cols
        given = list(tangent) if self._listed[wrt == "cols"] else [tangent]
        if len(given) != len(sides):
            raise ValueError(
                f"tangent holds {len(given)} arrays; it must hold one for each of the "
                f"{len(sides)} functionals."
            )
        tangents, moved = {}, []
        for side, t in zip(sides, given, strict=True):
            check_names_along(side.functional.names, t, "tangent")
            array = check_points(t, "tangent").astype(self.dtype, copy=False)
            if array.shape != (side.n, side.d):
                raise ValueError(
                    f"tangent has shape {array.shape}; it must have shape {(side.n, side.d)}."
                )
            tangents[id(side)] = side.with_directions(array)
            moved.append(array)
        result = np.zeros((self.shape[0], v.shape[1]), self.dtype)
        for row, i in _starts(self._rows):
            for col, j in _starts(self._cols):
                part, total = v[j : j + col.size], row is col
                to = result[i : i + row.size]
                if wrt == "rows":
                    to += _times(self._term, tangents[id(row)], col, part, "rows", total)
                if wrt == "cols" or self._symmetric:
                    to += _times(self._term, row, tangents[id(col)], part, "cols", total)
        for number, gradients, entries, points in self._noise_gradients():
            change = np.einsum("na,na->n", gradients, moved[number][points])
            result[entries] += change[:, None] * v[entries]
        return result

    # ---- noise

    def _noise_of(self, term: kernels.Term) -> np.ndarray:
        """What noise in a tree adds to the diagonal."""
        result = np.zeros(self.shape[0], self.dtype)
        for _, X, entries, _ in self._noisy():
            result[entries] = kernels.noise_on_diagonal(term, X)
        return result

    def _noise_gradients(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """What noise adds to the diagonal, by points: gradients (n, D) in place of these."""
        noisy = kernels.with_noise(self._term) if self._symmetric else None
        if noisy is None or kernels.is_stationary(self._term):
            return
        for number, X, entries, points in self._noisy():
            with_it, without = (
                kernels.gradient_on_diagonal(term, X) for term in (noisy, self._term)
            )
            with np.errstate(invalid="ignore"):
                difference = with_it - without
            yield number, difference, entries, points

    def _noisy(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Where noise is added, which is to values: functional, points, entries, their numbers."""
        for number, (row, start) in enumerate(_starts(self._rows)):
            if row.applied or not row.parts & 1:
                continue
            if row.mask is None:
                points = np.arange(row.n)
                entries = row.width * points
            else:
                points = np.flatnonzero(row.mask[:, 0])
                entries = np.cumsum(row.mask.ravel())[:: row.width][points] - 1
            yield number, row.own().X[points], start + entries, points


def _operand(x: Any) -> Any:
    """What an operator is to be multiplied by, without masks."""
    if type(x) is np.ndarray or isinstance(x, LinearOperator) or np.isscalar(x):
        return x
    return unmasked(x, "the vector")


def _size(sides: list[_Side]) -> int:
    return sum(side.size for side in sides)


def _starts(sides: list[_Side]) -> Iterator[tuple[_Side, int]]:
    """The functionals of a side, and where their entries begin."""
    start = 0
    for side in sides:
        yield side, start
        start += side.size


def _check_index(index: Any, n: int) -> np.ndarray:
    """Numbers of the rows or columns that an index names."""
    if isinstance(index, slice):
        return np.arange(n)[index]
    array = np.asarray(index)
    if array.dtype == bool:
        if array.shape != (n,):
            raise IndexError(f"a mask has shape {array.shape}; it must have shape ({n},).")
        return np.nonzero(array)[0]
    if array.size == 0:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise IndexError(f"{index!r} is no index: it may be an int, a slice, a sequence or a mask.")
    array = np.atleast_1d(array)
    if array.size and not (-n <= array.min() and array.max() < n):
        raise IndexError(
            f"an index of {array.min()} to {array.max()} is out of bounds of size {n}."
        )
    return np.where(array < 0, array + n, array)


def _components_at(side: _Side, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points, and the components, that entries of a functional stand for."""
    if side.mask is not None:
        entries = np.flatnonzero(side.mask)[entries]
    return np.divmod(entries, max(1, side.width))


def _entries_of(
    term: kernels.Term,
    row: _Side,
    rows: np.ndarray,
    col: _Side,
    cols: np.ndarray,
    result: np.ndarray,
    these: np.ndarray,
    those: np.ndarray,
) -> None:
    """Write entries of a block of functionals into rows `these` and columns `those`."""
    program = _program_of(term, row, col)
    whole, sides = [], []
    for side, entries in ((row, rows), (col, cols)):
        point, component = _components_at(side, entries)
        points, inverse = np.unique(point, return_inverse=True)
        f = side.own()
        f.mask = None
        whole.append(part_of(f, points))
        sides.append(inverse * side.width + component)
    f, g = whole
    step = max(1, _PIECE // max(1, row.width * g.size * row.points.itemsize))
    for start in range(0, len(f.X), step):
        part = part_of(f, slice(start, start + step))
        block = np.empty((part.size, g.size), result.dtype)
        _write(program, part, g, block, 0, 0, False, False)
        at = sides[0] - start * row.width
        here = np.nonzero((at >= 0) & (at < part.size))[0]
        result[np.ix_(these[here], those)] = block[np.ix_(at[here], sides[1])]


def _diagonal(term: kernels.Term, side: _Side) -> np.ndarray:
    """The diagonal of the covariance of a functional with itself, without noise."""
    result = np.empty(side.size, side.points.dtype)
    if not side.size:
        return result
    program = _program_of(term, side, side)
    f = side.own()
    f.mask = None
    width = side.width
    # The block of a point with itself is the same everywhere, if only differences count.
    same = kernels.is_stationary(term) and side.V is None
    step = max(1, min(8, _PIECE // (width**2 * result.itemsize)))
    full = np.empty((side.n, width), result.dtype)
    for start in range(0, 1 if same else side.n, step):
        part = part_of(f, slice(start, start + step))
        block = np.empty((part.size, part.size), result.dtype)
        _write(program, part, part, block, 0, 0, False, False)
        full[start : start + step] = np.einsum("ii->i", block).reshape(-1, width)
    if same:
        full[:] = full[0]
    return full.ravel() if side.mask is None else full[side.mask]


# ----------------------------------------------------------------------------------- expansion


class Expansion:
    """A sum of kernels at centers, f(x) = Σ_j w_j k(x, y_j), as `expansion` returns it.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    centers : array-like of shape (M, D)
        The y_j.
    weights : array-like of shape (M,), (1, M) or (M, T)
        The w_j, of one function (the row is what support vector machines of scikit-learn have as
        ``dual_coef_``) or of T functions.
    """

    def __init__(self, kernel: Kernel, centers: ArrayLike, weights: ArrayLike) -> None:
        array = real_array(weights, "weights", error=TypeError)
        points = check_points(centers, "centers")
        kernels.read(kernel, points.shape[1])
        self.kernel = _kept(kernel)
        if array.shape == (1, len(points)) and len(points) > 1:
            array = array[0]
        if array.ndim not in (1, 2) or len(array) != len(points):
            raise ValueError(
                f"weights has shape {array.shape}; for {len(points)} centers it must have shape "
                f"({len(points)},) or ({len(points)}, T), or be a row (1, {len(points)})."
            )
        self.centers = points.copy()
        self._names = column_names(centers)
        self.weights = np.array(array, np.result_type(array.dtype, np.float32))

    def _apply(self, f: Functional) -> np.ndarray:
        check_names(self._names, f.names, "centers", "X")
        operator = CovarianceOperator(self.kernel, f, Value(self.centers))
        result = operator @ self.weights
        shape = f.shape + self.weights.shape[1:]
        # The axis of the targets follows that of the points.
        return (
            np.moveaxis(result.reshape(shape), -1, 1)
            if self.weights.ndim == 2
            else (result.reshape(shape))
        )

    def __call__(self, X: ArrayLike) -> np.ndarray:
        """Evaluate the sum.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,) or (N, T)
        """
        return self._apply(Value(X))

    def gradient(self, X: ArrayLike) -> np.ndarray:
        """Gradients of the sum.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N, D) or (N, T, D)
        """
        return self._apply(Gradient(X))

    def hessian(self, X: ArrayLike) -> np.ndarray:
        """Hessian matrices of the sum.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N, D, D) or (N, T, D, D)
        """
        return self._apply(Hessian(X))

    def laplacian(self, X: ArrayLike) -> np.ndarray:
        """Laplacians of the sum.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,) or (N, T)
        """
        return self._apply(Laplacian(X))


def expansion(kernel: Kernel, centers: ArrayLike, weights: ArrayLike) -> Expansion:
    """Sum of kernels at centers, f(x) = Σ_j w_j k(x, y_j), and its derivatives.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    centers : array-like of shape (M, D)
        The y_j.
    weights : array-like of shape (M,), (1, M) or (M, T)
        The w_j, of one function (the row is what support vector machines of scikit-learn have as
        ``dual_coef_``) or of T functions.

    Returns
    -------
    Expansion
        An object to call, with methods ``gradient``, ``hessian`` and ``laplacian``, which all take
        points of shape (N, D).  With T functions, an axis T follows that of the points.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read.
    ValueError
        If `weights` does not fit `centers`; or, when it is called, if points have other names of
        columns than the centers.

    See Also
    --------
    CovarianceOperator : What it is made of.

    Notes
    -----
    NaN where a derivative of the kernel does not exist, as in `gradient` and `hessian`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import expansion
    >>> f = expansion(RBF(), [[0.0], [1.0]], [1.0, -1.0])
    >>> f([[0.5]]), f.gradient([[0.5]]).round(4)
    (array([0.]), array([[-0.8825]]))
    """
    return Expansion(kernel, centers, weights)
