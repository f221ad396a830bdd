"""Numerical derivatives, and the check of a kernel's derivatives against them.

The check differentiates the kernel's own values, ``kernel(X, Y)``, with finite differences of two
step sizes.  What they disagree by says how far either can be trusted, and whether the derivative
exists: this is what makes the check useful for rough kernels and at coincident points, where finite
differences converge slowly, to the wrong limit, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import differentiate

from kerneldiff._validation import check_names, column_names, real_array
from kerneldiff.tensors import gradient, hessian, hessian_diag, kernel_matrix

__all__ = [
    "DerivativeCheck",
    "DerivativeError",
    "TensorCheck",
    "check_kernel_derivatives",
    "numerical_hessian",
    "numerical_jacobian",
]

EPS = np.finfo(np.float64).eps


# -------------------------------------------------------------------------------------------------
# Derivatives of any function
# -------------------------------------------------------------------------------------------------


def numerical_jacobian(
    func: Callable[[np.ndarray], ArrayLike], x: ArrayLike, **options: Any
) -> np.ndarray:
    """Jacobian of a function of an array by finite differences.

    Parameters
    ----------
    func : callable
        Function of an array of the shape of `x`, returning a number or an array. It need not be
        vectorised over points.
    x : array_like
        Where to differentiate, of any shape.
    **options
        Passed to `scipy.differentiate.jacobian`. Here ``initial_step`` is 1/16 by default: it
        should be at most the distance over which `func` changes its shape. The absolute tolerance
        is by default what rounding leaves in a difference of that step.

    Returns
    -------
    ndarray of shape func(x).shape + x.shape
        Entry ``[i..., a...]`` is the derivative of ``func(x)[i...]`` with respect to ``x[a...]``
        (numerator layout).

    Raises
    ------
    TypeError
        If `x` or ``func(x)`` is not real and numeric.

    See Also
    --------
    numerical_hessian : Second derivatives.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import numerical_jacobian
    >>> x = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> numerical_jacobian(lambda x: x @ x, x).shape
    (2, 2, 2, 2)
    >>> numerical_jacobian(np.sum, x).round(12)
    array([[1., 1.],
           [1., 1.]])
    """
    x = _real(x, "x")
    value = _real(func(x), "func(x)")
    step = options.setdefault("initial_step", 1 / 16)
    if "tolerances" not in options:
        options["tolerances"] = {"atol": _rounding(value) / step}
    if x.size == 0 or value.size == 0:
        return np.zeros(value.shape + x.shape)

    def columns(points: np.ndarray) -> np.ndarray:
        # SciPy asks for many points at once, (x.size, ...) -> (value.size, ...).
        rows = points.reshape(x.size, -1).T
        values = [_real(func(row.reshape(x.shape)), "func(x)").ravel() for row in rows]
        return np.stack(values, axis=-1).reshape(value.size, *points.shape[1:])

    jacobian = differentiate.jacobian(columns, x.ravel(), **options).df
    return np.asarray(jacobian).reshape(value.shape + x.shape)


def numerical_hessian(
    func: Callable[[np.ndarray], ArrayLike], x: ArrayLike, **options: Any
) -> np.ndarray:
    """Second derivatives of a function of an array by finite differences.

    Parameters
    ----------
    func : callable
        Function of an array of the shape of `x`, returning a number or an array. It need not be
        vectorised over points.
    x : array_like
        Where to differentiate, of any shape.
    **options
        Passed to `scipy.differentiate.jacobian`, which is called on its own result. Here
        ``initial_step`` is 1/16 by default: it should be at most the distance over which `func`
        changes its shape. The absolute tolerances are by default what rounding leaves in
        differences of that step.

    Returns
    -------
    ndarray of shape func(x).shape + x.shape + x.shape
        Entry ``[i..., a..., b...]`` is the second derivative of ``func(x)[i...]`` with respect to
        ``x[a...]`` and ``x[b...]`` (numerator layout).

    Raises
    ------
    TypeError
        If `x` or ``func(x)`` is not real and numeric.

    See Also
    --------
    numerical_jacobian : First derivatives.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import numerical_hessian
    >>> numerical_hessian(lambda x: x[0] ** 2 * x[1], np.array([1.0, 2.0])).round(8)
    array([[4., 2.],
           [2., 0.]])
    """
    x = _real(x, "x")
    step = options.setdefault("initial_step", 1 / 16)
    outer = dict(options)
    if "tolerances" not in options:
        rounding = _rounding(_real(func(x), "func(x)")) / step
        outer["tolerances"] = {"atol": 32 * rounding / step}
        # The inner error is to be small beside the outer one, as in scipy.differentiate.hessian.
        options["tolerances"] = {"atol": rounding, "rtol": 1e-10}
    return numerical_jacobian(lambda z: numerical_jacobian(func, z, **options), x, **outer)


def _real(array: ArrayLike, name: str) -> np.ndarray:
    try:
        array = real_array(array, name, error=TypeError)
    except TypeError as error:
        raise TypeError(f"{name} must be real and numeric: {error}") from None
    return array.astype(np.float64, copy=False)


def _rounding(value: np.ndarray) -> float:
    """What a difference formula makes of the rounding errors of numbers like these, times its step.

    The weights of SciPy's default formula, of order 8, are up to 20 in size. Never 0, as tolerances
    must be positive.
    """
    return float(max(32 * EPS * np.abs(value).max(initial=0.0), np.finfo(np.float64).tiny))


# -------------------------------------------------------------------------------------------------
# Derivatives of a kernel
# -------------------------------------------------------------------------------------------------

# An entry passes within this share of the largest entry of its pair ...
RTOL = 1e-7
# ... plus this many times the difference between the two step sizes. Next to a derivative that is
# not Lipschitz the error falls like step^p, and with steps 8 times apart the error is
# 1/(8^p - 1) times the difference: 30 times for p = 1/64.
SAFETY = 30
# Differences of order 6: the truncation error is below 1e-9, and the closest points are 1/4 step
# apart, 1/32 of the scale below for the fine step.
ORDER = 6
COARSE, FINE = 1.0, 1 / 8
CLOSEST = FINE / 4
# The scale of a coordinate: over it the kernel's graph bends by this share of the largest value,
# or moves by the other. The first makes a step of 0.03 length scales for an RBF kernel.
BEND, MOVE = 1e-3, 0.1
# A derivative is taken to be missing when one-sided slopes keep this share of their difference
# from the coarse to the fine step (a kink keeps all, |h|^1.1 keeps 0.8), or when a second
# derivative changes by this share of itself (3 % for Matern 3/2, more than 30 % for Matern 1).
# Kinks that are this much smaller than BEND are not looked for: one-sided differences are noisy.
KINK = 0.9
DIVERGES = 0.2
SMALLEST_KINK = 1e-3 * BEND


class DerivativeError(AssertionError):
    """A derivative of a kernel is not what finite differences say.

    Parameters
    ----------
    report : DerivativeCheck
        All tensors that were compared.
    """

    def __init__(self, report: "DerivativeCheck") -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class TensorCheck:
    """One tensor of a kernel beside finite differences.

    Parameters
    ----------
    name : str
        The tensor, as it would be called.
    index : tuple of int
        The worst entry: the one that is off by most, in units of its tolerance.
    value, numerical : float
        What kerneldiff and finite differences have there.
    tolerance : float
        By how much they may differ there.
    n_wrong, n_missing, size : int
        How many entries are wrong, how many are NaN because they do not exist, and of how many.
    """

    name: str
    index: tuple[int, ...]
    value: float
    numerical: float
    tolerance: float
    n_wrong: int
    n_missing: int
    size: int

    @property
    def ok(self) -> bool:
        """Whether every entry is right."""
        return self.n_wrong == 0

    def __str__(self) -> str:
        if self.size == 0:
            return f"ok     {self.name:<24} no entries"
        index = ", ".join(map(str, self.index))
        return (
            f"{'ok   ' if self.ok else 'WRONG'}  {self.name:<24} "
            f"worst entry [{index}]: {self.value:.10g}, numerically {self.numerical:.10g} "
            f"(tolerance {self.tolerance:.1e})"
            + (f"; {self.n_wrong} of {self.size} wrong" if self.n_wrong else "")
            + (f"; {self.n_missing} do not exist" if self.n_missing else "")
        )


@dataclass(frozen=True)
class DerivativeCheck:
    """Every tensor of a kernel beside finite differences; `print` it.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The kernel.
    tensors : dict of str to TensorCheck
        The tensors by name.
    """

    kernel: Any
    tensors: dict[str, TensorCheck] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every tensor is right."""
        return all(tensor.ok for tensor in self.tensors.values())

    def __str__(self) -> str:
        return "\n".join([f"derivatives of {self.kernel}", *map(str, self.tensors.values())])


def check_kernel_derivatives(
    kernel: Any, X: ArrayLike, Y: ArrayLike | None = None, *, verbose: bool = False
) -> DerivativeCheck:
    """Compare every tensor of a kernel with finite differences of the kernel's own values.

    The values of `kernel_matrix` are compared with ``kernel(X, Y)``, and `gradient`,
    `hessian_diag` and `hessian`, for each `wrt`, with numerical derivatives of ``kernel(X, Y)``.
    An entry that is NaN passes where finite differences find no derivative.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The kernel, for example one of your own.
    X : array_like, shape (N, D)
        Points. A few are enough: the kernel is called about 400 D^2 times.
    Y : array_like, shape (M, D), optional
        Points; X by default, which has the coincident pairs in it. Points should be about a
        length scale apart, and no farther from the origin than needed: where the kernel is small
        beside its largest value, or made of parts of very different size, finite differences say
        little, and more errors pass.
    verbose : bool, default False
        Whether to print what is being done.

    Returns
    -------
    DerivativeCheck
        For each tensor the worst entry, its index, and what it should be.

    Raises
    ------
    DerivativeError
        If an entry is wrong; an AssertionError, with the report as its message and in its
        attribute `report`. A relative error of 1e-6 is found.
    TypeError
        If the kernel cannot be read.
    ValueError
        If X and Y are not two-dimensional with the same number of columns.

    See Also
    --------
    numerical_jacobian, numerical_hessian : Derivatives of any function.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import check_kernel_derivatives
    >>> X = np.array([[0.0, 0.3], [1.0, -0.5], [0.2, 0.9]])
    >>> check = check_kernel_derivatives(RBF(0.8), X)
    >>> check.ok
    True
    >>> check.tensors["hessian[xy]"].size
    36
    """
    check_names(column_names(X), column_names(Y))
    X = _points(X, "X")
    other = X if Y is None else _points(Y, "Y")
    if X.shape[1] != other.shape[1]:
        raise ValueError(f"X has {X.shape[1]} columns and Y has {other.shape[1]}.")
    claims = {"kernel_matrix": kernel_matrix(kernel, X, None if Y is None else other)}
    for function, options in (
        (gradient, ("x", "y")),
        (hessian_diag, ("xx", "xy", "yx", "yy")),
        (hessian, ("xx", "xy", "yx", "yy")),
    ):
        for wrt in options:
            tensor = function(kernel, X, None if Y is None else other, wrt=wrt)
            claims[f"{function.__name__}[{wrt}]"] = tensor

    if verbose:
        print(f"finite differences of {kernel}, {len(X)} x {len(other)} pairs")
    numerical = _Differences(kernel, X, other)
    report = DerivativeCheck(kernel)
    for name, claim in claims.items():
        if name == "kernel_matrix":
            values = np.asarray(kernel(X, None if Y is None else other), dtype=np.float64)
            undefined = np.isnan(values)
            check = _compare(name, claim, values, RTOL * np.abs(values), undefined, undefined)
        else:
            operation, wrt = name.rstrip("]").split("[")
            check = _compare(name, claim, *numerical.tensor(wrt, operation == "hessian_diag"))
        report.tensors[name] = check
        if verbose:
            print(check)
    if not report.ok:
        raise DerivativeError(report)
    return report


def _points(X: ArrayLike, name: str) -> np.ndarray:
    X = _real(X, name)
    if X.ndim != 2:
        raise ValueError(f"{name} must be two-dimensional, but its shape is {X.shape}.")
    return X


class _Differences:
    """Finite differences of k(x_i + u, y_j + v) in u and v at 0, for all pairs at once.

    A shift of all points moves x_i alone as far as the entry (i, j) is concerned, so one call of
    the kernel makes a difference for all pairs.  Derivatives are in units of the scales.
    """

    def __init__(self, kernel: Any, X: np.ndarray, Y: np.ndarray) -> None:
        self.kernel, self.X, self.Y = kernel, X, Y
        self.dims = X.shape[1]
        self.values = self._shifted(np.zeros(2 * self.dims))
        finite = np.abs(self.values[np.isfinite(self.values)])
        self.largest = finite.max(initial=0.0)
        # Powers of two, so that shifting rounds as little as it can.
        self.scales = np.tile([self._scale(a) for a in range(self.dims)], 2)

        def at(u: np.ndarray) -> np.ndarray:
            return self._shifted(u * self.scales)

        zero = np.zeros(2 * self.dims)
        coarse: dict[str, Any] = {"initial_step": COARSE, "order": ORDER, "maxiter": 1}
        fine: dict[str, Any] = {"initial_step": FINE, "order": ORDER, "maxiter": 1}
        with np.errstate(all="ignore"):
            self.first = [numerical_jacobian(at, zero, **options) for options in (coarse, fine)]
            self.second = [numerical_hessian(at, zero, **options) for options in (coarse, fine)]
            forward, backward = (
                [
                    numerical_jacobian(at, zero, step_direction=direction, **options)
                    for options in (coarse, fine)
                ]
                for direction in (1, -1)
            )
        jump = [np.abs(f - b) for f, b in zip(forward, backward, strict=True)]
        slope = np.maximum(np.abs(forward[1]), np.abs(backward[1]))
        visible = jump[1] > DIVERGES * slope + SMALLEST_KINK * self.largest
        self.kink = (jump[1] > KINK * jump[0]) & visible
        # A kink closer to a point than the step looks like one at the point.
        equal = np.concatenate([X[:, None, :] == Y[None, :, :]] * 2, axis=-1)
        self.on_kink = self.kink & np.all(equal | ~self.kink, axis=-1, keepdims=True)
        self.jump = jump[1]

    def _shifted(self, shift: np.ndarray) -> np.ndarray:
        x, y = shift[: self.dims], shift[self.dims :]
        return np.asarray(self.kernel(self.X + x, self.Y + y), dtype=np.float64)

    def _scale(self, column: int) -> float:
        """The smallest step along a coordinate at which the kernel bends or moves.

        From below, because a periodic kernel does neither after a whole period. With x and y
        moving together a dot product bends as well.
        """
        unit = np.eye(2 * self.dims)
        x, y = unit[column], unit[column + self.dims]
        extent = max(np.abs(self.X).max(initial=0.0), np.abs(self.Y).max(initial=0.0)) or 1.0
        largest = 2.0 ** np.ceil(np.log2(extent))
        steps = largest * 2.0 ** np.arange(-40, 21, 2)
        with np.errstate(all="ignore"):
            for step in steps:
                for direction in (x, y, x + y):
                    ahead = self._shifted(step * direction) - self.values
                    behind = self._shifted(-step * direction) - self.values
                    bend = np.abs(ahead + behind).max(initial=0.0)
                    move = np.abs(ahead).max(initial=0.0)
                    # Not the other way round, because of NaN.
                    if not (bend < BEND * self.largest and move < MOVE * self.largest):
                        return float(step)
        return float(steps[-1])

    def _noise(self, order: int) -> float:
        """Rounding errors of the values, in a derivative by the fine step."""
        return 16 * EPS * self.largest / CLOSEST**order

    def tensor(self, wrt: str, diagonal: bool) -> tuple[np.ndarray, ...]:
        """Derivatives, their tolerances, whether they may be missing, and whether they must be."""
        x, y = slice(self.dims), slice(self.dims, None)
        parts = [x if side == "x" else y for side in wrt]
        if len(wrt) == 1:
            coarse, fine = (first[..., parts[0]] for first in self.first)
            units = self.scales[parts[0]]
            may_miss, must_miss = self.kink[..., parts[0]], self.on_kink[..., parts[0]]
            spread = np.abs(fine - coarse) + self.jump[..., parts[0]]
        else:
            fine = self.second[1][..., parts[0], parts[1]]
            units = self.scales[parts[0], None] * self.scales[parts[1]]
            may_miss, must_miss = (
                kink[..., parts[0], None] | kink[..., None, parts[1]]
                for kink in (self._rough(), self.on_kink)
            )
            change = np.abs(self.second[1] - self.second[0])
            # Next to a rough point an entry off the diagonal may be far off and not change.
            root = np.sqrt(np.einsum("...aa->...a", change))
            change = np.maximum(change, root[..., :, None] * root[..., None, :])
            spread = change[..., parts[0], parts[1]]
        if diagonal:
            fine, may_miss, must_miss, spread, units = (
                np.einsum("...aa->...a", array)
                for array in (fine, may_miss, must_miss, spread, units)
            )
        axes = tuple(range(2, fine.ndim))
        largest = np.abs(fine / units).max(axis=axes, keepdims=True, initial=0.0)
        tolerance = RTOL * largest + (SAFETY * spread + self._noise(len(wrt))) / units
        return fine / units, tolerance, may_miss, must_miss

    def _rough(self) -> np.ndarray:
        """Where second derivatives along a coordinate do not settle."""
        coarse, fine = (np.einsum("...aa->...a", second) for second in self.second)
        change = np.abs(fine - coarse)
        largest = np.maximum(np.abs(fine), np.abs(coarse))
        return self.kink | (change > DIVERGES * largest + self._noise(2))


def _compare(
    name: str,
    claim: np.ndarray,
    numerical: np.ndarray,
    tolerance: np.ndarray,
    may_miss: np.ndarray,
    must_miss: np.ndarray,
) -> TensorCheck:
    """Find the worst entry of a tensor."""
    missing = np.isnan(claim)
    with np.errstate(all="ignore"):
        ratio = np.abs(claim - numerical) / np.maximum(tolerance, np.finfo(np.float64).tiny)
    # No derivative: NaN is right, and what finite differences say means nothing.
    ratio = np.where(may_miss, 0.0, np.where(np.isnan(ratio), np.inf, ratio))
    ratio = np.where(must_miss & ~missing, np.inf, ratio)
    if claim.size == 0:
        return TensorCheck(name, (), np.nan, np.nan, np.nan, 0, 0, 0)
    index = np.unravel_index(int(np.argmax(ratio)), claim.shape)
    return TensorCheck(
        name=name,
        index=tuple(int(i) for i in index),
        value=float(claim[index]),
        numerical=float("nan") if must_miss[index] else float(numerical[index]),
        tolerance=float(tolerance[index]),
        n_wrong=int(np.count_nonzero(ratio > 1)),
        n_missing=int(np.count_nonzero(missing)),
        size=claim.size,
    )
