"""Linear functionals of a function, and the covariances between them under a kernel.

A linear operator applied to a Gaussian process gives a Gaussian process, so that any linear
functional can be observed or predicted, and every covariance needed is the kernel with the
functionals applied on either side.  Functionals that give one number a point (directional
derivative, Laplacian) turn the kernel into another one, at compile time (`kernels.compile_term`);
the others are written block by block by the core.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.gaussian_process.kernels import Kernel

from kerneldiff import _core, kernels
from kerneldiff._validation import (
    STREAM_BYTES,
    check_names,
    check_names_along,
    check_out,
    check_points,
    column_names,
    counted,
    real_array,
    unmasked,
)
from kerneldiff.tensors import add_noise

# Blocks of functionals with masks are made whole, in pieces of this many bytes, and cut.
_PIECE = 2**21


class Functional:
    """A linear functional at points: base class of those that there are.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    """

    # What the core writes for a point, as bits: 1 value, 2 gradient, 4 Hessian.
    _parts = 0
    # What is applied to the kernel beforehand.
    _applied: str | None = None
    # Highest derivative.
    _order = 0

    mask: np.ndarray | None = None
    V: np.ndarray | None = None
    # Names of the columns of X, if it had any: whoever puts functionals together compares them.
    names: np.ndarray | None = None

    def __init__(self, X: ArrayLike) -> None:
        self.X = check_points(X, "X")
        self.names = column_names(X)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in which the vector of all its entries may be read, if there is no mask."""
        return (len(self.X), *self._entries())

    def _entries(self) -> tuple[int, ...]:
        return ()

    @property
    def size(self) -> int:
        """Number of its entries."""
        if self.mask is not None:
            return int(np.count_nonzero(self.mask))
        return int(np.prod(self.shape))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} at {counted(len(self.X), 'point')} of "
            f"{counted(self.X.shape[1], 'dimension')}>"
        )


class _Masked(Functional):
    def __init__(self, X: ArrayLike, *, mask: ArrayLike | None = None) -> None:
        super().__init__(X)
        if mask is not None:
            check_names_along(self.names, mask, "mask")
            array = np.asarray(unmasked(mask, "mask"))
            if array.dtype != bool:
                raise ValueError(f"mask is of type {array.dtype}; it must be of type bool.")
            if array.shape != self.shape:
                raise ValueError(f"mask has shape {array.shape}; it must have shape {self.shape}.")
            self.mask = np.ascontiguousarray(array)


class Value(Functional):
    """Values of a function at points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.

    Attributes
    ----------
    size : int
        N.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import Value
    >>> Value(np.zeros((4, 3))).size
    4
    """

    _parts = 1


class Gradient(_Masked):
    """Gradients of a function at points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    mask : array-like of bool of shape (N, D), default=None
        Which entries to keep, in order; None keeps all.

    Attributes
    ----------
    size : int
        N·D, or the number of entries kept. A vector of all entries is ``G.reshape(N, D)``.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import Gradient
    >>> Gradient(np.zeros((4, 3))).size
    12
    """

    _parts = 2
    _order = 1

    def _entries(self) -> tuple[int, ...]:
        return (self.X.shape[1],)


class ValueGradient(_Masked):
    """Values and gradients of a function at points, value first.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    mask : array-like of bool of shape (N, 1 + D), default=None
        Which entries to keep, in order; None keeps all.

    Attributes
    ----------
    size : int
        N·(1 + D), or the number of entries kept. A vector of all entries is
        ``J.reshape(N, 1 + D)``.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import ValueGradient
    >>> ValueGradient(np.zeros((4, 3))).shape
    (4, 4)
    """

    _parts = 3
    _order = 1

    def _entries(self) -> tuple[int, ...]:
        return (1 + self.X.shape[1],)


class Directional(Functional):
    """Derivatives of a function at points, each in a direction of its own.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    V : array-like of shape (N, D) or (D,)
        Directions, of any length: the functional is V[n] · ∇f(X[n]). One direction stands for all
        points.

    Attributes
    ----------
    size : int
        N.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import Directional
    >>> Directional(np.zeros((4, 3)), [1.0, 0.0, 0.0]).size
    4
    """

    _parts = 1
    _applied = "directional"
    _order = 1

    def __init__(self, X: ArrayLike, V: ArrayLike) -> None:
        super().__init__(X)
        check_names_along(self.names, V, "V")
        array = real_array(V, "V")
        array = check_points(array if array.ndim != 1 else array[None, :], "V")
        if array.shape[1] != self.X.shape[1] or len(array) not in (1, len(self.X)):
            raise ValueError(
                f"V has shape {array.shape}; it must have shape {self.X.shape}, as X, or "
                f"{self.X.shape[1:]}."
            )
        self.V = np.ascontiguousarray(np.broadcast_to(array, self.X.shape))


class Hessian(Functional):
    """Hessian matrices of a function at points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.

    Attributes
    ----------
    size : int
        N·D². A vector of all entries is ``H.reshape(N, D, D)``.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import Hessian
    >>> Hessian(np.zeros((4, 3))).shape
    (4, 3, 3)
    """

    _parts = 4
    _order = 2

    def _entries(self) -> tuple[int, ...]:
        return (self.X.shape[1],) * 2


class Laplacian(Functional):
    """Laplacians of a function at points: the traces of its Hessian matrices.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.

    Attributes
    ----------
    size : int
        N.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import Laplacian
    >>> Laplacian(np.zeros((4, 3))).size
    4
    """

    _parts = 1
    _applied = "laplacian"
    _order = 2


def check_functionals(value: Any, name: str) -> list[Functional]:
    """Return a functional, or a list of some, as a list.

    Parameters
    ----------
    value : Functional or sequence of Functional
    name : str
        What the argument is called in messages.

    Returns
    -------
    list of Functional

    Raises
    ------
    TypeError
        If one of them is no functional.
    """
    items = [value] if isinstance(value, Functional) else value
    if not isinstance(items, list | tuple):
        items = [items]
    for item in items:
        if not isinstance(item, Functional):
            known = ", ".join(cls.__name__ for cls in FUNCTIONALS)
            raise TypeError(
                f"{name} holds {item!r} of type {type(item).__name__}; it may be one of the "
                f"functionals {known}, or a list of them."
                + " The kernel comes first."
                * isinstance(item, Kernel)
            )
    if not items:
        raise ValueError(f"{name} is empty; it must hold at least one functional.")
    return list(items)


def moved(functional: Functional, X: np.ndarray) -> Functional:
    """Return a functional at other points.

    Parameters
    ----------
    functional : Functional
    X : ndarray of shape (N, D)

    Returns
    -------
    Functional
    """
    other = copy.copy(functional)
    other.X = X
    return other


def part_of(functional: Functional, points: slice | np.ndarray) -> Functional:
    """Return a functional at some of its points.

    Parameters
    ----------
    functional : Functional
    points : slice or ndarray of int

    Returns
    -------
    Functional
    """
    part = moved(functional, functional.X[points])
    if functional.V is not None:
        part.V = functional.V[points]
    if functional.mask is not None:
        part.mask = functional.mask[points]
    return part


def common_columns(functionals: Sequence[Functional]) -> int:
    """Return the number of columns of all points, whose names have to be the same, too.

    Parameters
    ----------
    functionals : sequence of Functional

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If there are several, or if columns have different names or the same in another order.
    """
    columns = {f.X.shape[1] for f in functionals}
    if len(columns) > 1:
        raise ValueError(
            f"the points of the functionals have {sorted(columns)} columns; all must have the same "
            "number."
        )
    named = [f for f in functionals if f.names is not None]
    for f in named[1:]:
        check_names(named[0].names, f.names, repr(named[0]), repr(f))
    return columns.pop()


FUNCTIONALS = (Value, Gradient, ValueGradient, Directional, Hessian, Laplacian)


def check_smooth(
    kernel: Kernel, term: kernels.Term, rows: list[Functional], cols: list[Functional]
) -> None:
    """Check that the functionals of two sides have covariances.

    Parameters
    ----------
    kernel : Kernel
        Named in the message.
    term : tree of terms
        The kernel, as it was read.
    rows, cols : list of Functional

    Raises
    ------
    ValueError
        If the kernel is too rough for derivatives on both sides.
    """
    order = min(max(f._order for f in rows), max(f._order for f in cols))
    nu = kernels.smoothness(term) / 2
    if order and order >= nu:
        raise ValueError(
            f"kernel {kernel} has a part with nu = {nu:g}, which is too rough for derivatives of "
            f"order {order} on both sides; these need nu > {order}."
        )


def covariance(
    kernel: Kernel,
    rows: Functional | Sequence[Functional],
    cols: Functional | Sequence[Functional] | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Covariance matrix of linear functionals of a Gaussian process.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The covariance function of the process; any kernel that can be read.
    rows : Functional or list of Functional
        `Value`, `Gradient`, `ValueGradient`, `Directional`, `Hessian`, `Laplacian`, of points with
        D columns.
    cols : Functional or list of Functional, default=None
        None stands for the rows, and then noise (WhiteKernel) is added to values on the diagonal.
    out : ndarray of shape (n_rows, n_cols), default=None
        Where to write, of the type of the result. It may be C-contiguous, and then is written
        whole. Fortran-contiguous, with ``cols=None``, its lower triangle is written only, ready
        for LAPACK, in half the time; the rest is left as it was.

    Returns
    -------
    C : ndarray of shape (n_rows, n_cols)
        The entries of functionals in order, those of a point together. float32 if all points are,
        else float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read, or a side holds something else than functionals.
    ValueError
        If numbers or names of columns differ, if the kernel is too rough for derivatives on both
        sides (Matern: order r on both needs nu > r), or if `out` does not fit. `out` is then left
        as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian : The blocks of `Gradient` with `Gradient` as a tensor.

    Notes
    -----
    With functionals L and M, the entry is L_x M_y k(x, y). An interrupt (Ctrl-C) ends the call
    within a second and may leave `out` partly written.

    References
    ----------
    S. Särkkä, "Linear operators and stochastic partial differential equations in Gaussian process
    regression", ICANN 2011, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import Gradient, Value, covariance
    >>> X = np.array([[0.0], [1.0]])
    >>> covariance(RBF(), Value(X), Gradient(X)).round(3)
    array([[ 0.   , -0.607],
           [ 0.607,  0.   ]])
    >>> out = np.zeros((2, 2), order="F")
    >>> covariance(RBF(), Gradient(X), out=out).round(3)
    array([[1., 0.],
           [0., 1.]])
    """
    symmetric = cols is None
    rows = check_functionals(rows, "rows")
    cols = rows if symmetric else check_functionals(cols, "cols")
    d = common_columns([*rows, *cols])
    term = kernels.read(kernel, d)
    check_smooth(kernel, term, rows, cols)
    arrays = [a for f in (*rows, *cols) for a in (f.X, f.V) if a is not None]
    dtype = np.result_type(*arrays)
    shape = (sum(f.size for f in rows), sum(f.size for f in cols))
    # A Fortran-ordered matrix is the C-ordered one of the sides exchanged, and its lower triangle
    # the upper one of that.
    inputs: dict[str, Any] = {f"the points of {type(f).__name__}": f.X for f in (*rows, *cols)}
    inputs |= {f"the directions of {type(f).__name__}": f.V for f in (*rows, *cols)}
    flip = isinstance(out, np.ndarray) and out.flags.f_contiguous and not out.flags.c_contiguous
    if isinstance(out, np.ndarray) and flip:
        result = check_out(out.T, shape[::-1], dtype, **inputs).T
        rows, cols = cols, rows
    else:
        advice = "CovarianceOperator multiplies by it, and never builds it."
        result = check_out(out, shape, dtype, advice=advice, **inputs)
    target = result.T if flip else result
    stream = out is not None and result.nbytes > STREAM_BYTES
    lower = flip and symmetric
    programs = [[_compile(term, d, f, g, dtype) for g in cols] for f in rows]
    i0 = 0
    for i, f in enumerate(rows):
        j0 = 0
        for j, g in enumerate(cols):
            if not (lower and j < i):
                _write(programs[i][j], f, g, target, i0, j0, lower and i == j, stream)
            j0 += g.size
        if symmetric:
            _add_noise(term, f, target, i0, dtype)
        i0 += f.size
    return result if out is None else out


def _compile(
    term: kernels.Term, d: int, f: Functional, g: Functional, dtype: np.dtype
) -> _core.Program:
    order = _parts_order(f) + _parts_order(g)
    return kernels.compile_term(term, d, order, f._applied, g._applied, dtype.char)


def _parts_order(f: Functional) -> int:
    return f._order if f._applied is None else 0


def _add_noise(
    term: kernels.Term, f: Functional, target: np.ndarray, i0: int, dtype: np.dtype
) -> None:
    """Add noise to the values of a functional, on the diagonal of the whole matrix."""
    if f._applied is not None or not f._parts & 1:
        return
    diagonal = np.einsum("ii->i", target)[i0 : i0 + f.size]
    X = f.X.astype(dtype, copy=False)
    if f.mask is not None:
        kept = f.mask[:, 0]
        where = np.cumsum(f.mask.ravel())[:: f.mask.shape[1]][kept] - 1
        values = diagonal[where]
        add_noise(term, X[kept], values)
        diagonal[where] = values
    else:
        add_noise(term, X, diagonal[:: f.size // max(len(X), 1) or 1])


def _write(
    program: _core.Program,
    f: Functional,
    g: Functional,
    target: np.ndarray,
    i0: int,
    j0: int,
    lower: bool,
    stream: bool,
) -> None:
    """Write the block of two functionals into the matrix, from row i0 and column j0 on."""
    dtype = target.dtype
    X, Y = (np.ascontiguousarray(side.X, dtype) for side in (f, g))
    U, V = (
        points if side.V is None else np.ascontiguousarray(side.V, dtype)
        for side, points in ((f, X), (g, Y))
    )
    if g is f:
        Y, V = X, (X if U is X else V)
    # The core takes directions on both sides, or on none.
    if (U is X) != (V is Y):
        U, V = U.copy() if U is X else U, V.copy() if V is Y else V
    ld = target.shape[1]
    if f.mask is None and g.mask is None:
        offset = i0 * ld + j0
        _core.blocks(program, X, Y, U, V, target, offset, ld, f._parts, g._parts, lower, stream)
        return
    keep_rows = np.ones(f.shape, bool) if f.mask is None else f.mask
    keep_cols = np.ones(g.shape, bool) if g.mask is None else g.mask
    height, width = (int(np.prod(side.shape[1:])) for side in (f, g))
    entry = height * width * dtype.itemsize
    # Pieces of some rows of points against some columns of points.
    columns = max(1, min(len(Y), _PIECE // max(1, entry)))
    step = max(1, _PIECE // max(1, entry * columns))
    row = i0
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        x, kept_rows = X[rows], keep_rows[rows].ravel()
        u = x if U is X else U[rows]
        below = row + int(np.count_nonzero(kept_rows))
        column = j0
        for begin in range(0, len(Y), columns):
            cols = slice(begin, begin + columns)
            y, kept_cols = Y[cols], keep_cols[cols].ravel()
            v = y if V is Y else V[cols]
            right = column + int(np.count_nonzero(kept_cols))
            if not (lower and right - j0 <= row - i0):
                block = np.empty((len(x) * height, len(y) * width), dtype)
                _core.blocks(
                    program, x, y, u, v, block, 0, len(y) * width, f._parts, g._parts, False, False
                )
                block = block[kept_rows][:, kept_cols]
                wanted: Any = True
                if lower:
                    wanted = (
                        np.arange(column - j0, right - j0)
                        >= np.arange(row - i0, below - i0)[:, None]
                    )
                np.copyto(target[row:below, column:right], block, where=wanted)
            column = right
        row = below
