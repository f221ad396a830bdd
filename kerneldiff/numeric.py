"""Numerical derivatives, and the check of a kernel's derivatives against them.

The check differentiates the kernel's own values, ``kernel(X, Y)``, with finite differences of two
step sizes.  What they disagree by says how far either can be trusted, and whether the derivative
exists: this is what makes the check useful for rough kernels and at coincident points, where finite
differences converge slowly, to the wrong limit, or not at all.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import differentiate

from kerneldiff._validation import (
    check_choice,
    check_names,
    column_names,
    counted,
    real_array,
)
from kerneldiff.tensors import gradient, hessian, hessian_diag, kernel_matrix

__all__ = [
    "DerivativeCheck",
    "DerivativeError",
    "DerivativeWarning",
    "TensorCheck",
    "check_kernel_derivatives",
    "numerical_hessian",
    "numerical_jacobian",
]

EPS = float(np.finfo(np.float64).eps)


# -------------------------------------------------------------------------------------------------
# Derivatives of any function
# -------------------------------------------------------------------------------------------------

# The first step, as a share of the scale. Then it is halved, while that makes the error smaller.
FIRST = 1 / 16
# Scales that are tried where x is 0 or so small that it may be meant to be 0, and by which the size
# of x is multiplied where it does not do. SciPy halves a step up to ten times, so factors of 2^10
# leave no gaps.
AT_ZERO = 2.0 ** np.arange(-50, 31, 10)
SMALL = 2.0**-20
SMALLER = 2.0 ** np.arange(-30, 0, 10)
LARGER = 2.0 ** np.arange(10, 31, 10)
# How far down scales are looked for of which a function shows that it has smaller ones.
SMALLEST = 2.0**-200
# A derivative has converged if its estimated error is below this share of it, or below a multiple
# of what rounding makes. The weights of SciPy's formula of order 8 are up to 20 in size. One whose
# error may be a larger share has to agree with what steps of other sizes give.
CONVERGED = 1e-6
VAGUE = 1e-4
ROUNDING = 32
# One-sided slopes at these shares of the first step differ by the same at a kink, and by 1/32 as
# much where there is a second derivative.
NEAR, NEARER = 1 / 16, 1 / 512


class DerivativeWarning(UserWarning):
    """A numerical derivative has not converged, or does not exist."""


@dataclass(frozen=True)
class _Estimate:
    """Derivatives by steps of one size: with bounds on their errors, and which have converged.

    What is differentiated moves at a rate that is seen next to the point even where the derivative
    is 0, as at a maximum. It is the measure of bounds.
    """

    value: np.ndarray
    bound: np.ndarray
    converged: np.ndarray
    rate: np.ndarray

    def precise(self, step: np.ndarray, order: int) -> np.ndarray:
        """Which are known well; second derivatives, beside what the function does in a step."""
        unit = step if order == 1 else step[:, None] * step
        largest = np.fmax(np.abs(self.value), self.rate) * unit
        if order == 2:  # which often is 0
            largest = largest.max(axis=(1, 2), keepdims=True)
        return ~self.converged | (self.bound * unit <= CONVERGED * largest)


class _Function:
    """A function of an array next to a point, as SciPy wants it: of many shifts at once."""

    def __init__(self, func: Callable[[np.ndarray], ArrayLike], x: np.ndarray) -> None:
        self.func, self.x = func, x
        value = np.asarray(func(x))
        self.value = _real(value, "func(x)")
        self.eps = EPS
        if value.dtype.kind == "f" and value.dtype.itemsize < 8:
            self.eps = float(np.finfo(value.dtype).eps)

    def at(self, shift: np.ndarray) -> np.ndarray:
        """Values at x + shift, flat; NaN where the function says that it has none."""
        try:
            value = self.func(self.x + shift.reshape(self.x.shape))
        except (ArithmeticError, ValueError):
            return np.full(self.value.size, np.nan)
        return _real(value, "func(x)").ravel()

    def shifted(self, shifts: np.ndarray) -> np.ndarray:
        """Values at shifts (x.size, ...): (value.size, ...)."""
        rows = shifts.reshape(len(shifts), -1).T
        values = [self.at(row) for row in rows]
        return np.stack(values, axis=-1).reshape(self.value.size, *shifts.shape[1:])

    def size(self, step: np.ndarray) -> np.ndarray:
        """The largest values of each output at x and a step away from it, (value.size, 1)."""
        shifts = np.concatenate([np.diag(step), np.diag(-step)], axis=1)
        values = np.abs(np.column_stack([self.value.ravel(), self.shifted(shifts)]))
        largest = np.where(np.isfinite(values), values, 0.0).max(axis=1, keepdims=True)
        return np.where(largest > 0, largest, 1.0)

    def smallest_scale(self, a: int, scale: float) -> float:
        """Next to 0 along an axis: a scale at which the function moves less than at a larger one.

        Where it moves as much, as after many periods or beyond the end of a peak, what it does
        closer to the point is not seen.
        """
        unit = np.zeros((self.x.size, 3))
        unit[a] = 1.0, -1.0, 0.7

        def moves(distance: float) -> np.ndarray:
            return np.abs(self.shifted(distance * unit) - self.value.reshape(-1, 1)).max(axis=1)

        start, far = scale, moves(scale)
        invisible = 64 * self.eps * np.abs(self.value.ravel())
        while scale > SMALLEST:
            near = moves(scale * SMALLER[-1])
            settled = np.isfinite(far) & (near <= far / 16)
            if np.all((near <= invisible) | settled):
                return scale
            scale, far = scale * SMALLER[-1], near
        return start

    def rounded(self, step: np.ndarray) -> np.ndarray:
        """Which share of a step, after it has been halved, is lost when it is added to x."""
        x = self.x.ravel()
        least = step * 2.0**-10
        return np.abs(((x + least) - x) / least - 1) * 2.0**-10

    def jacobian(self, step: np.ndarray, options: dict[str, Any]) -> _Estimate:
        """Derivatives (value.size, x.size), with a first step for each entry of x."""
        size = self.size(step)
        found = self._unit_jacobian(
            lambda u: self.shifted(_times(step, u)) / _as(size, u), self.eps, options
        )
        # The points themselves are rounded, too.
        slack = np.where(self.rounded(step) > 0, EPS * np.abs(self.x.ravel() / step), 0.0)
        bound = found.bound + ROUNDING * slack * np.abs(found.value)
        kinks, rate = self._sides(
            lambda u: self.shifted(_times(step, u)) / _as(size, u), self.eps, options
        )
        converged = found.converged & ~kinks & self._resolved(slack, options)
        value, bound, rate = (part * size / step for part in (found.value, bound, rate))
        return _Estimate(value, bound, converged, rate)

    def hessian(self, step: np.ndarray, options: dict[str, Any]) -> _Estimate:
        """Second derivatives (value.size, x.size, x.size), likewise."""
        size, m = self.size(step), len(step)
        slack = np.where(self.rounded(step) > 0, EPS * np.abs(self.x.ravel() / step), 0.0)
        eps = max(self.eps, float(slack.max()))
        # The inner error is to be small beside the outer one, as in scipy.differentiate.hessian.
        inner = {"tolerances": {"atol": ROUNDING * eps, "rtol": 1e-10}, **options}

        def slopes(u: np.ndarray) -> np.ndarray:
            def of_one(center: np.ndarray) -> np.ndarray:
                def values(v: np.ndarray) -> np.ndarray:
                    shifts = v + center.reshape(m, *[1] * (v.ndim - 1))
                    return self.shifted(_times(step, shifts)) / _as(size, v)

                return differentiate.jacobian(values, np.zeros(m), **_first(inner)).df.ravel()

            rows = u.reshape(m, -1).T
            return np.stack([of_one(row) for row in rows], axis=-1).reshape(-1, *u.shape[1:])

        found = self._unit_jacobian(slopes, ROUNDING * eps, options)
        kinks, rate = self._sides(slopes, ROUNDING * eps, options)
        converged = found.converged & ~kinks & self._resolved(slack, options)
        shape = (self.value.size, m, m)
        # One after the other, as the square of a step may be too small for a number.
        value, bound, rate = (
            part.reshape(shape) * size[:, :, None] / step[:, None] / step
            for part in (found.value, found.bound, rate)
        )
        return _Estimate(value, bound, converged.reshape(shape) & np.isfinite(bound), rate)

    def _resolved(self, slack: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        """For which entries of x, steps are not mostly rounding."""
        return (slack <= CONVERGED) | (options.get("maxiter") == 1)

    def _unit_jacobian(
        self, values: Callable[[np.ndarray], np.ndarray], eps: float, options: dict[str, Any]
    ) -> _Estimate:
        """Of a function of size 1, at 0, by steps of 1."""
        rounding = ROUNDING * eps
        result = differentiate.jacobian(
            values,
            np.zeros(self.x.size),
            **_first({"tolerances": {"atol": rounding}, **options}),
        )
        value = np.asarray(result.df)
        if options.get("maxiter") == 1:  # the user has looked at the step, SciPy at no error
            zero = np.zeros_like(value)
            return _Estimate(value, zero, np.ones(value.shape, bool), zero)
        noise = rounding * 2.0 ** np.asarray(result.nit)
        error = np.asarray(result.error)
        if "tolerances" in options:
            converged = np.asarray(result.success)
        else:
            converged = error <= CONVERGED * np.abs(value) + 64 * noise
        bound = np.where(np.isfinite(error), error, np.inf) + noise
        return _Estimate(value, bound, converged & np.isfinite(value), np.zeros_like(value))

    def _sides(
        self, values: Callable[[np.ndarray], np.ndarray], eps: float, options: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where slopes to the left and to the right differ however close they are taken.

        And how steep the steeper one is.
        """
        eye = np.eye(self.x.size)
        here = values(np.zeros((self.x.size, 1)))
        if options.get("maxiter") == 1 or np.any(options.get("step_direction", 0)):
            return np.zeros((), bool), np.zeros((len(here), self.x.size))
        jump, slope = [], []
        for share in (NEAR, NEARER):
            ahead, behind = values(share * eye) - here, here - values(-share * eye)
            jump.append(np.abs(ahead - behind) / share)
            slope.append(np.maximum(np.abs(ahead), np.abs(behind)) / share)
        visible = jump[1] > CONVERGED * slope[1] + 64 * eps / NEARER
        return (jump[1] > jump[0] / 2) & visible, slope[0]


def _times(step: np.ndarray, u: np.ndarray) -> np.ndarray:
    return step.reshape(-1, *[1] * (u.ndim - 1)) * u


def _as(size: np.ndarray, u: np.ndarray) -> np.ndarray:
    return size.reshape(-1, *[1] * (u.ndim - 1))


def _first(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "initial_step": 1.0}


@dataclass(frozen=True)
class _Steps:
    """First steps (x.size,), from small to large: to try, and if these do not do."""

    usual: list[np.ndarray]
    smaller: list[np.ndarray]
    larger: list[np.ndarray]


def _exact(step: np.ndarray) -> np.ndarray:
    """Powers of two, which make points that are not rounded."""
    return 2.0 ** np.floor(np.log2(np.clip(step, 2.0**-1000, 2.0**1000)))


def _steps(function: _Function) -> _Steps:
    """Steps as large as each entry, and as the largest of all, which is better if they are alike.

    Where an entry is next to 0 its size says little, and many are tried.
    """
    own = np.abs(function.x.ravel())
    common = own.max()
    small = own < SMALL
    ladder = AT_ZERO
    if common > ladder[-1]:
        ladder = np.append(ladder, [common / LARGER[0], common, common * LARGER[0]])
        ladder.sort()
    rungs = []
    for a, size in enumerate(own):
        if not small[a]:
            half = (len(ladder) + 2) // 2
            rungs.append(np.repeat([size, common], [half, len(ladder) + 2 - half]))
            continue
        smallest = function.smallest_scale(a, ladder[0])
        rungs.append(np.sort([*ladder, smallest, size or smallest]))
    usual = _exact(FIRST * np.array(rungs)).T
    if not small.any():
        usual = usual[[0, -1]] if (usual[0] != usual[-1]).any() else usual[:1]
    return _Steps(
        list(usual),
        [_exact(usual[0] * np.where(small, 1, share)) for share in SMALLER],
        [_exact(usual[-1] * share) for share in LARGER],
    )


def _best(estimates: list[_Estimate]) -> tuple[_Estimate, np.ndarray]:
    """Of estimates by steps from small to large: for each entry the one that is known best.

    A derivative says what is next to a point, so estimates by large steps count only as long as
    they agree with those by smaller ones; also whether none did, though there were some.
    """
    value, bound, converged, rate = (part.copy() for part in vars(estimates[0]).values())
    alone = np.zeros(value.shape, bool)
    ended = np.zeros(value.shape, bool)
    for new in estimates[1:]:
        agree = np.abs(new.value - value) <= 8 * (new.bound + bound) + CONVERGED * np.abs(value)
        vague = bound > VAGUE * np.fmax(np.abs(value), rate)
        # Where rounding has hidden all of the function, what is seen farther away says more.
        blind = ~ended & converged & vague & (np.abs(value) <= bound) & (new.bound < bound)
        blind &= ~new.converged
        value[blind], bound[blind] = new.value[blind], new.bound[blind]
        converged &= ~blind
        both = converged & new.converged
        alone |= both & ~agree & ~ended & vague
        ended |= both & ~agree
        better = (new.bound < bound) | np.isnan(value)
        first = new.converged & ~converged
        take = ~ended & (first | (better & (both | (~new.converged & ~converged))))
        value[take], bound[take], rate[take] = new.value[take], new.bound[take], new.rate[take]
        converged |= new.converged & ~ended
    return _Estimate(value, bound, converged, rate), alone


def _derivative(
    order: int,
    func: Callable[[np.ndarray], ArrayLike],
    x: ArrayLike,
    scale: ArrayLike | None,
    on_failure: str,
    options: dict[str, Any],
) -> np.ndarray:
    """Derivatives of order 1 or 2 of any function."""
    check_choice("on_failure", on_failure, ("warn", "nan", "ignore"))
    x = _real(x, "x")
    if not np.isfinite(x).all():
        index = np.unravel_index(int(np.argmin(np.isfinite(x))), x.shape)
        where = f"x[{', '.join(map(str, index))}]" if x.ndim else "x"
        raise ValueError(f"{where} is {x[index]}; it must be finite.")
    step = options.pop("initial_step", None)
    if step is not None and scale is not None:
        raise ValueError("scale and initial_step are given; only one of them may be.")
    function = _Function(func, x)
    shape = function.value.shape + order * x.shape
    if x.size == 0 or function.value.size == 0:
        return np.zeros(shape)
    by = function.jacobian if order == 1 else function.hessian
    if step is not None:
        steps = _Steps([_like(step, x, "initial_step")], [], [])
    elif scale is not None:
        steps = _Steps([_exact(FIRST * _like(scale, x, "scale"))], [], [])
    with np.errstate(all="ignore"):
        if step is None and scale is None:
            steps = _steps(function)
        estimates = [by(step, options) for step in steps.usual]
        best, alone = _best(estimates)
        while steps.smaller and not best.converged.all():
            estimates.insert(0, by(steps.smaller.pop(), options))
            best, alone = _best(estimates)
        while steps.larger and not best.precise(steps.usual[0], order).all():
            estimates.append(by(steps.larger.pop(0), options))
            best, alone = _best(estimates)
    value, failed = best.value, ~best.converged | alone
    if failed.any() and on_failure == "nan":
        value = np.where(failed, np.nan, value)
    elif failed.any() and on_failure == "warn":
        index = np.unravel_index(int(np.argmax(failed)), shape)
        what = "numerical_jacobian" if order == 1 else "numerical_hessian"
        warnings.warn(
            f"{np.count_nonzero(failed)} of {failed.size} derivatives have not converged, or do "
            f"not exist; the first is entry [{', '.join(map(str, index))}] of {what}. Steps may be "
            "unlike the distances over which the function changes its shape: give these as "
            '`scale`. With on_failure="nan" such entries are NaN.',
            DerivativeWarning,
            stacklevel=3,
        )
    return value.reshape(shape)


def _like(scale: ArrayLike, x: np.ndarray, name: str) -> np.ndarray:
    scale = _real(scale, name)
    try:
        scale = np.broadcast_to(scale, x.shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {scale.shape}; it may be a number, or an array like x, "
            f"of shape {x.shape}."
        ) from None
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"{name} is {scale}; it must be positive and finite.")
    return scale.ravel()


def numerical_jacobian(
    func: Callable[[np.ndarray], ArrayLike],
    x: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    on_failure: str = "warn",
    **options: Any,
) -> np.ndarray:
    """Jacobian of a function of an array by finite differences.

    Parameters
    ----------
    func : callable
        Function of an array of the shape of `x`, returning a number or an array. It need not be
        vectorised over points.
    x : array_like
        Where to differentiate, of any shape.
    scale : float or array_like, default=None
        Over what distance `func` changes its shape, for all entries of `x` or for each; the first
        step is 1/16 of it, rounded down to a power of two. None stands for the size of the entries
        of `x`, and for several tries where that does not do, is 0, or is small.
    on_failure : {"warn", "nan", "ignore"}, default="warn"
        What is done about derivatives that have not converged (their estimated error is more than
        1e-6 of them, and more than the rounding of ``func(x)`` explains), for which several tries
        disagree, whose steps are lost in the rounding of `x`, or that do not exist, at a kink: a
        `DerivativeWarning`, NaN in their place, or nothing.
    **options
        Passed to `scipy.differentiate.jacobian`. An ``initial_step`` takes the place of `scale`;
        with ``tolerances`` it is SciPy's ``success`` that says what has converged, and with
        ``maxiter=1`` nothing does.

    Returns
    -------
    ndarray of shape func(x).shape + x.shape
        Entry ``[i..., a...]`` is the derivative of ``func(x)[i...]`` with respect to ``x[a...]``
        (numerator layout).

    Raises
    ------
    TypeError
        If `x` or ``func(x)`` is not real and numeric.
    ValueError
        If `x` is not finite, `scale` is not positive, or there is no such `on_failure`.

    Warns
    -----
    DerivativeWarning
        If derivatives have not converged or do not exist.

    Notes
    -----
    Without `scale`, steps between 2^-30 and 2^30 times an entry are tried while the derivative is
    not known well, and where an entry is below 1e-6 also such between 2^-50 and 2^30, and smaller
    ones as long as the function moves as much within a step as within one that is 2^10 times as
    large. What happens within a distance that is much smaller is not seen if the function looks
    smooth from farther away: a narrow peak beside `x` or on a straight line needs `scale`.

    Next to `x`, where `func` raises a ValueError or an ArithmeticError, it counts as NaN.

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
    >>> numerical_jacobian(abs, 0.0, on_failure="nan")
    array(nan)
    """
    return _derivative(1, func, x, scale, on_failure, options)


def numerical_hessian(
    func: Callable[[np.ndarray], ArrayLike],
    x: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    on_failure: str = "warn",
    **options: Any,
) -> np.ndarray:
    """Second derivatives of a function of an array by finite differences.

    Parameters
    ----------
    func : callable
        Function of an array of the shape of `x`, returning a number or an array. It need not be
        vectorised over points.
    x : array_like
        Where to differentiate, of any shape.
    scale, on_failure
        As in `numerical_jacobian`.
    **options
        Passed to `scipy.differentiate.jacobian`, which is called on its own result; as in
        `numerical_jacobian`.

    Returns
    -------
    ndarray of shape func(x).shape + x.shape + x.shape
        Entry ``[i..., a..., b...]`` is the second derivative of ``func(x)[i...]`` with respect to
        ``x[a...]`` and ``x[b...]`` (numerator layout).

    Raises
    ------
    TypeError
        If `x` or ``func(x)`` is not real and numeric.
    ValueError
        If `x` is not finite, `scale` is not positive, or there is no such `on_failure`.

    Warns
    -----
    DerivativeWarning
        If derivatives have not converged or do not exist.

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
    >>> numerical_hessian(lambda x: (x**3).sum(), [1e6]).round()
    array([[6000000.]])
    """
    return _derivative(2, func, x, scale, on_failure, options)


def _real(array: ArrayLike, name: str) -> np.ndarray:
    try:
        array = real_array(array, name, error=TypeError)
    except TypeError as error:
        raise TypeError(f"{name} must be real and numeric: {error}") from None
    return array.astype(np.float64, copy=False)


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
# An entry that may differ by this share of itself is not checked by that, unless it is below the
# other share of the largest of its pair.
CHECKED, LARGEST = 0.1, 1e-2


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
    n_wrong, n_missing, n_unchecked, size : int
        How many entries are wrong, how many are NaN because they do not exist, how many cannot be
        checked, as finite differences say too little there, and of how many.
    """

    name: str
    index: tuple[int, ...]
    value: float
    numerical: float
    tolerance: float
    n_wrong: int
    n_missing: int
    n_unchecked: int
    size: int

    @property
    def ok(self) -> bool | None:
        """Whether no entry is wrong; None if not one of them can be checked here."""
        if self.n_wrong == 0 and 0 < self.n_unchecked == self.size:
            return None
        return self.n_wrong == 0

    def __str__(self) -> str:
        if self.size == 0:
            return f"ok     {self.name:<24} no entries"
        index = ", ".join(map(str, self.index))
        if self.ok is None:
            return f"?      {self.name:<24} cannot be checked here"
        return (
            f"{'ok   ' if self.ok else 'WRONG'}  {self.name:<24} "
            f"worst entry [{index}]: {self.value:.10g}, numerically {self.numerical:.10g} "
            f"(tolerance {self.tolerance:.1e})"
            + (f"; {self.n_wrong} of {self.size} wrong" if self.n_wrong else "")
            + (f"; {self.n_missing} do not exist" if self.n_missing else "")
            + (f"; {self.n_unchecked} cannot be checked here" if self.n_unchecked else "")
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
    def ok(self) -> bool | None:
        """Whether every tensor is right; None if none is wrong, and some cannot be checked here."""
        found = {tensor.ok for tensor in self.tensors.values()}
        return False if False in found else None if None in found else True

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
        For each tensor the worst entry, its index, and what it should be. Its `ok` is None, which
        is false in a condition, if there is a tensor of which no entry can be checked here.

    Raises
    ------
    DerivativeError
        If an entry is wrong; an AssertionError, with the report as its message and in its
        attribute `report`. A relative error of 1e-6 is found where the kernel is smooth. Entries
        of which finite differences say too little "cannot be checked here", and are counted.
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
        raise ValueError(f"X has {counted(X.shape[1], 'column')} and Y has {other.shape[1]}.")
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
    if report.ok is False:
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
        return TensorCheck(name, (), np.nan, np.nan, np.nan, 0, 0, 0, 0)
    axes = tuple(range(2, claim.ndim))
    largest = np.abs(np.where(missing, 0.0, claim)).max(axis=axes, keepdims=True)
    # Beside a large entry of its pair a small one need not be known as well.
    loose = tolerance > CHECKED * np.maximum(np.abs(claim), LARGEST * largest)
    unchecked = (ratio <= 1) & ~may_miss & loose & (largest > 0)
    index = np.unravel_index(int(np.argmax(np.where(unchecked, -1.0, ratio))), claim.shape)
    return TensorCheck(
        name=name,
        index=tuple(int(i) for i in index),
        value=float(claim[index]),
        numerical=float("nan") if must_miss[index] else float(numerical[index]),
        tolerance=float(tolerance[index]),
        n_wrong=int(np.count_nonzero(ratio > 1)),
        n_missing=int(np.count_nonzero(missing)),
        n_unchecked=int(np.count_nonzero(unchecked)),
        size=claim.size,
    )
