"""Ridge regression on a basis of tanh functions that is learned too, by variable projection.

For given weights W of the basis the best coefficients c solve a linear least-squares problem, so
the loss becomes a function of W alone, the reduced loss

    L(W) = min over c of  ½ Σ_n w_n |y_n − c φ̃(x_n)|² + ½ α |c|²,

where φ̃ is φ less its weighted mean, which eliminates the intercept, and y is centred too.  That is
½ |r|² for the residuals r = P y of the linear problem with ridge rows √α I below the basis A, and P
projects onto the complement of the columns of A.  Two facts make it cheap:

- *The gradient* of L is the partial one at the best c, as the derivative by c vanishes there: one
  backpropagation.
- *Kaufman's Jacobian* of r, −P (∂A/∂W) c, leaves out a term that is orthogonal to r.  Its product
  with r is that exact gradient.

SciPy's least_squares sees r and the Jacobian through their products alone.  So it gets them in
another basis of the space of residuals, the first vector of which is r / |r|: the residuals are
then (|r|, 0, …, 0), the first row of the Jacobian is ∇L / |r|, and the others are what a QR
decomposition of [A, r, (∂A/∂W) c] leaves behind its first columns.  It runs over blocks of rows, so
nothing of size N x P is ever made, and normal equations are not formed.  With many more rows than
weights, those other rows of the Jacobian, which only decide how steps are curved, come from a
sample of the rows, another one each iteration; loss and gradient never do.

Slopes in directions in which the data do not move change nothing, and would keep what the start
gave them.  Columns that follow from others are left out while W is searched for (`_Span`); in the
end slopes are projected on the row space of what a layer gets, and biases make up for it.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import ArrayLike
from scipy.linalg.lapack import dtpqrt
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from kerneldiff import _linalg
from kerneldiff._validation import (
    check_fits,
    counted,
    fit_context,
    unmasked,
)
from kerneldiff.tanh import _backward, _forward, _layer, tanh_jacobian

# Up to this many weights, Gauss-Newton steps; beyond, L-BFGS. A step costs about 30 P³ operations:
# here a tenth of a second, and the longest time that an interrupt waits for LAPACK.
_MAX_DENSE = 500
# Residuals in the sample for the Jacobian: so many for each weight, and at least so many.
_SAMPLE = 4
_LEAST_SAMPLE = 500
# Gauss-Newton steps between two looks at the scales of the weights, and the least scale, of the
# largest. Both were found by experiment. With few residuals for each weight, units that may go far
# soon fit single samples, and get stuck there: then all weights have nearly one scale.
_ROUND = 3
_LEAST_EFFECT = 2e-3
_LEAST_EFFECT_FEW = 1.0
_FEW = 10
# Entries of a block of rows: it and its factors stay in the second-level cache, or nearly so.
_BLOCK = 2**18
_EPS = float(np.finfo(np.float64).eps)


class _Stop(Exception):
    """Ends an optimization from within."""


class _NextRound(Exception):
    """Ends a round of Gauss-Newton steps, after which weights are scaled anew."""


def _blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices of rows, of about _BLOCK entries each."""
    rows = min(max(_BLOCK // max(columns, 1), 64), 4096)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _triangle(blocks: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """R of the QR decomposition of the blocks of rows below each other."""
    R = np.zeros((columns, columns), order="F")
    for block in blocks:
        R, _, _, _ = dtpqrt(0, min(16, columns), R, block, overwrite_a=1, overwrite_b=1)
    return R


def _unpacked(w: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Arrays of weights out of the vector of all."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(s) for part, s in zip(np.split(w, ends), shapes, strict=True)]


def _row_space(rows: np.ndarray, errors: np.ndarray, size: float) -> np.ndarray:
    """Find an orthonormal basis, as columns, of the directions in which rows move.

    Parameters
    ----------
    rows : ndarray of shape (N, D)
        Without their mean, each times the root of its weight.
    errors : ndarray of shape (D,)
        Bounds of the rounding errors of the columns, before the weights.
    size : float
        Norm of the roots of the weights.

    Returns
    -------
    ndarray of shape (D, rank)

    Notes
    -----
    Errors of the entries move the rows by up to size · Σ_d |v_d| errors_d along a direction v, and
    those of the decomposition by some ε √max(N, D) times what they move along the first one.
    """
    n, d = rows.shape
    if n > d:
        rows = _triangle((np.array(rows[part], order="F") for part in _blocks(n, d)), d)
    _, extents, Vt = scipy.linalg.svd(rows, full_matrices=False, overwrite_a=n > d)
    limits = size * (np.abs(Vt) @ errors) + 4 * _EPS * math.sqrt(max(n, d)) * extents[0]
    V = Vt[extents > limits].T
    # Columns that do not move at all have no rounding errors of others either.
    V[np.linalg.norm(rows, axis=0) <= size * errors] = 0.0
    return V


class _Span(NamedTuple):
    """Columns that all others follow from, for the slopes of the first layer.

    Slopes B of these columns do what the least slopes of all do, V Vᵀ E B: V is a basis of the row
    space, and E puts B among zeros.
    """

    columns: np.ndarray  # their numbers, in order
    all_slopes: np.ndarray | None  # V Vᵀ E, (D, rank); None if all columns are needed
    all_gradients: np.ndarray | None  # makes the gradient by the slopes of all of that by B

    @classmethod
    def of(cls, rows: np.ndarray, errors: np.ndarray, size: float) -> Self:
        """Choose columns; parameters are those of `_row_space`."""
        d = rows.shape[1]
        V = _row_space(rows, errors, size)
        rank = V.shape[1]
        if rank == d:
            return cls(np.arange(d), None, None)
        if rank == 0:
            # Nothing moves, and one column shows it as well as all of them.
            return cls(np.arange(1), np.zeros((d, 1)), np.zeros((d, 1)))
        # Those with the largest parts that the others do not have; the first of equal ones.
        order = scipy.linalg.qr((V * np.linspace(1, 0.99, d)[:, None]).T, mode="r", pivoting=True)[
            1
        ]
        columns = np.sort(order[:rank])
        chosen = V[columns]
        return cls(columns, V @ chosen.T, scipy.linalg.solve(chosen.T, V.T).T)

    def slopes(self, B: np.ndarray) -> np.ndarray:
        """Slopes of all columns, (D, K)."""
        return B if self.all_slopes is None else self.all_slopes @ B

    def largest(self, gradients: list[np.ndarray]) -> float:
        """Largest entry of the gradients by all weights, those of columns left out included."""
        if self.all_gradients is not None:
            first, *others = gradients
            gradients = [self.all_gradients @ first[:-1], first[-1], *others]
        return max(float(np.abs(part).max()) for part in gradients)


class _Point(NamedTuple):
    """The linear problem for some weights, solved."""

    w: np.ndarray
    weights: list[np.ndarray]
    activations: list[np.ndarray]
    mean: np.ndarray  # of the basis, (K,)
    V: np.ndarray  # the basis times these is of full rank, (K, rank)
    coef: np.ndarray  # (T, K)
    norm: float  # of the residuals, those of the ridge rows included


class _Reduced:
    """The reduced loss, its exact gradient and Kaufman's Jacobian.

    Parameters
    ----------
    X : ndarray of shape (N, D)
        Standardized, C-contiguous.
    Y : ndarray of shape (N, T)
        Centred if there is an intercept.
    sample_weight : ndarray of shape (N,) or None
        Positive.
    shapes : list of (int, int)
        Of the weights of each layer.
    alpha : float
    intercept : bool
    """

    def __init__(
        self,
        X: np.ndarray,
        Y: np.ndarray,
        sample_weight: np.ndarray | None,
        shapes: list[tuple[int, int]],
        alpha: float,
        intercept: bool,
    ) -> None:
        self.X, self.Y, self.shapes = X, Y, shapes
        self.alpha, self.intercept = alpha, intercept
        self.sample_weight = sample_weight
        self.root = None if sample_weight is None else np.sqrt(sample_weight)[:, None]
        self.size = sum(math.prod(shape) for shape in shapes)
        self.point: _Point | None = None
        self.gradient_of: _Point | None = None

    def solve(self, w: np.ndarray) -> _Point:
        """Solve the linear problem for weights; the last solution is kept."""
        if self.point is not None and np.array_equal(self.point.w, w):
            return self.point
        weights = _unpacked(w, self.shapes)
        activations = _forward(self.X, weights)
        phi = activations[-1]
        (n, k), t = phi.shape, self.Y.shape[1]
        mean = np.zeros(k)
        if self.intercept:
            mean = np.average(phi, axis=0, weights=self.sample_weight)

        def blocks() -> Iterator[np.ndarray]:
            for rows in _blocks(n, k + t):
                block = np.empty((rows.stop - rows.start, k + t), order="F")
                np.subtract(phi[rows], mean, out=block[:, :k])
                block[:, k:] = self.Y[rows]
                if self.root is not None:
                    block *= self.root[rows]
                yield block
            yield from self._ridge(np.eye(k), 0, k + t)

        R = _triangle(blocks(), k + t)
        if not np.isfinite(R).all():
            zeros = np.zeros((t, k))
            return _Point(w.copy(), weights, activations, mean, np.eye(k), zeros, math.inf)
        U, s, Vt = scipy.linalg.svd(R[:k, :k])
        # Singular values that are rounding errors, as numpy.linalg.lstsq has it.
        rank = int(np.count_nonzero(s > s[0] * max(n, k) * _EPS))
        projected = U.T @ R[:k, k:]
        V = Vt[:rank].T
        coef = (V @ (projected[:rank] / s[:rank, None])).T
        norm = math.hypot(np.linalg.norm(R[k:, k:]), np.linalg.norm(projected[rank:]))
        self.point = _Point(w.copy(), weights, activations, mean, V, coef, norm)
        return self.point

    def _ridge(self, V: np.ndarray, first: int, columns: int) -> Iterator[np.ndarray]:
        """Rows below the basis times V, which begins in column `first`."""
        if self.alpha:
            block = np.zeros((len(V), columns), order="F")
            block[:, first : first + V.shape[1]] = math.sqrt(self.alpha) * V
            yield block

    def gradient(self, point: _Point) -> np.ndarray:
        """Differentiate the reduced loss: exact, as the derivative by c is zero at the best c."""
        if self.gradient_of is not point:
            residuals = self.Y - (point.activations[-1] - point.mean) @ point.coef.T
            if self.sample_weight is not None:
                residuals *= self.sample_weight[:, None]
            # The mean of the basis depends on W too, but then these residuals have the sum zero.
            pulled, _ = _backward(self.X, point.weights, point.activations, -residuals @ point.coef)
            self.last_gradient = np.concatenate([part.ravel() for part in pulled])
            self.gradient_of = point
        return self.last_gradient

    def jacobian(
        self, point: _Point, gradient: np.ndarray, random: np.random.RandomState
    ) -> np.ndarray:
        """Kaufman's Jacobian of the residuals, (P + 1, P), in the basis that begins with them."""
        n, t = self.Y.shape
        rank, ones = point.V.shape[1], int(self.intercept)
        first = ones + rank
        columns = first + 1 + self.size
        size = min(n, -(-max(_SAMPLE * self.size, _LEAST_SAMPLE) // t))
        sample = np.arange(n) if size == n else random.choice(n, size, replace=False)
        scale = math.sqrt(n / size)

        def blocks(target: int) -> Iterator[np.ndarray]:
            for part in _blocks(size, columns):
                rows = sample[part]
                block = np.empty((len(rows), columns), order="F")
                phi = point.activations[-1][rows]
                block[:, :ones] = 1
                block[:, ones:first] = (phi - point.mean) @ point.V
                block[:, first] = self.Y[rows, target]
                block[:, first + 1 :] = self._derivatives(point, rows, -point.coef[target])
                block *= scale if self.root is None else scale * self.root[rows]
                yield block
            yield from self._ridge(point.V, ones, columns)

        # The same basis for all targets, whose residuals stand below each other.
        parts = [_triangle(blocks(target), columns)[first:, first:] for target in range(t)]
        R = parts[0] if t == 1 else _triangle((np.asfortranarray(p) for p in parts), self.size + 1)
        J = R[:, 1:]
        J[0] = gradient / point.norm if point.norm else 0.0
        return J

    def _derivatives(self, point: _Point, rows: np.ndarray, coef: np.ndarray) -> np.ndarray:
        """Derivatives of Σ_k coef_k φ_k in each row by all weights, (len(rows), P)."""
        inputs = [self.X, *point.activations[:-1]]
        cotangent = np.broadcast_to(coef, (len(rows), len(coef)))
        parts = []
        for layer, W in zip(reversed(inputs), reversed(point.weights), strict=True):
            J = tanh_jacobian(layer[rows], W)
            J *= cotangent[:, None, :]
            parts.append(J.reshape(len(rows), -1))
            # The derivative by the bias is that by the argument of tanh.
            cotangent = J[:, -1] @ W[:-1].T
        return np.hstack(parts[::-1])


class _Search:
    """Minimization of the reduced loss from one start.

    Parameters
    ----------
    problem : _Reduced
    span : _Span
        Of the columns that the problem has.
    start : ndarray of shape (P,)
    max_iter : int
    tol : float
        How large the entries of the gradient may be.
    random : RandomState
        Draws the samples for the Jacobians.
    report : callable
        Takes the iteration, the loss and the largest entry of the gradient.

    Attributes
    ----------
    curve : list of float
        Loss at the start and after each iteration.
    point : _Point
        The last of them.
    largest : float
        The largest entry of the gradient there.
    converged : bool
    """

    def __init__(
        self,
        problem: _Reduced,
        span: _Span,
        start: np.ndarray,
        max_iter: int,
        tol: float,
        random: np.random.RandomState,
        report: Callable[[int, float, float], None],
    ) -> None:
        self.problem, self.span, self.max_iter, self.tol = problem, span, max_iter, tol
        self.random, self.report = random, report
        self.curve: list[float] = []
        dense = problem.size <= _MAX_DENSE
        try:
            self._accept(start)
            (self._gauss_newton if dense else self._quasi_newton)()
        except _Stop:
            pass
        self.converged = self.largest <= tol or len(self.curve) <= max_iter

    def _accept(self, w: np.ndarray) -> None:
        """Keep and report a new point; stop where it is stationary, or after enough of them."""
        self.point = self.problem.solve(w)
        gradient = self.problem.gradient(self.point)
        self.largest = self.span.largest(_unpacked(gradient, self.problem.shapes))
        self.curve.append(self.point.norm**2 / 2)
        self.report(len(self.curve) - 1, self.curve[-1], self.largest)
        if self.largest <= self.tol or len(self.curve) > self.max_iter:
            raise _Stop

    # Neither optimizer has a tolerance of its own but for rounding errors: `_accept` decides.

    def _gauss_newton(self) -> None:
        few = self.problem.Y.size < _FEW * self.problem.size
        least = _LEAST_EFFECT_FEW if few else _LEAST_EFFECT
        J = self._jacobian()
        while True:
            # Steps in a weight are bounded by its effect, the norm of its column. That of a unit
            # which is saturated, or has no part in the sum, is tiny, and would let it go anywhere.
            norms = np.linalg.norm(J, axis=0)
            norms = np.hypot(norms, least * norms.max())
            end = len(self.curve) + _ROUND

            def jacobian(w: np.ndarray, J: np.ndarray = J, end: int = end) -> np.ndarray:
                if np.array_equal(w, self.point.w):
                    return J
                self._accept(w)
                if len(self.curve) >= end:
                    raise _NextRound
                return self._jacobian()

            try:
                scipy.optimize.least_squares(
                    self._residuals,
                    self.point.w,
                    jacobian,
                    x_scale=1 / norms,
                    ftol=_EPS,
                    xtol=_EPS,
                    gtol=None,
                    max_nfev=20 * self.max_iter + 100,
                )
                return
            except _NextRound:
                J = self._jacobian()

    def _jacobian(self) -> np.ndarray:
        gradient = self.problem.gradient(self.point)
        return self.problem.jacobian(self.point, gradient, self.random)

    def _residuals(self, w: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.problem.solve(w).norm], np.zeros(self.problem.size)])

    def _quasi_newton(self) -> None:
        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            point = self.problem.solve(w)
            return point.norm**2 / 2, self.problem.gradient(point)

        trials = 20 * self.max_iter + 100
        scipy.optimize.fmin_l_bfgs_b(
            loss,
            self.point.w,
            m=20,
            factr=1.0,
            pgtol=0.0,
            maxfun=trials,
            maxiter=trials,
            callback=self._accept,
        )


class _Standard(NamedTuple):
    """Means and scales of columns, with weights, and their rounding errors in these scales."""

    mean: np.ndarray
    scale: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, sample_weight: np.ndarray | None, eps: float = _EPS) -> Self:
        """Measure columns of numbers with the rounding error `eps`.

        A column of what a few operations made has errors of up to some 4 eps of its largest entry.
        One that moves no further is constant, and its scale is this entry, or 1.
        """
        first = X[0]
        # Relative to a sample, so that an offset costs no digits, and to the range, whose square
        # may overflow.
        extent = np.ptp(X, axis=0)
        extent[extent == 0] = 1.0
        shifted = (X - first) / extent
        mean = np.average(shifted, axis=0, weights=sample_weight)
        shifted -= mean
        variance = np.average(shifted**2, axis=0, weights=sample_weight)
        scale = np.sqrt(variance) * extent
        largest = np.abs(X).max(axis=0)
        errors = 4 * eps * largest
        scale = np.where(scale > errors, scale, np.where(largest > 0, largest, 1.0))
        return cls(first + mean * extent, scale, errors / scale)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((X - self.mean) / self.scale)


def _drawn(shapes: list[tuple[int, int]], random: np.random.RandomState) -> np.ndarray:
    """Draw weights to start from, as one vector.

    After D. Nguyen and B. Widrow, "Improving the learning speed of 2-layer neural networks by
    choosing initial values of the adaptive weights", IJCNN 1990: slopes of random directions and of
    the length 0.7 K^(1/D), for inputs within ±1, so that the K transitions share the space between
    them.  Their biases lay the transitions uniformly; here they go through points drawn like the
    inputs: normal, of variance 1, for the standardized columns, and uniform within ±1 behind.
    """
    parts = []
    for layer, (rows, k) in enumerate(shapes):
        d = rows - 1
        slopes = random.normal(size=(d, k))
        slopes *= 0.7 * k ** (1 / d) / np.linalg.norm(slopes, axis=0)
        if layer == 0:
            # Nearly all of a standardized column lies within ±2.5.
            slopes /= 2.5
            points = random.normal(size=(d, k))
        else:
            points = random.uniform(-1, 1, size=(d, k))
        parts += [slopes.ravel(), -np.einsum("dk,dk->k", slopes, points)]
    return np.concatenate(parts)


def _projected(
    X: np.ndarray,
    weights: list[np.ndarray],
    activations: list[np.ndarray],
    sample_weight: np.ndarray | None,
    errors: np.ndarray,
) -> list[np.ndarray]:
    """Give hidden layers the least slopes with the same effect on the data.

    Parameters
    ----------
    X, weights, activations, sample_weight : as `_Reduced` and `_Point` have them
    errors : ndarray of shape (D,)
        Bounds of the rounding errors of the columns of X.

    Returns
    -------
    list of ndarray
        The weights, with biases that make up for the change of the slopes.
    """
    result = weights[:1]
    root = np.ones((len(X), 1)) if sample_weight is None else np.sqrt(sample_weight)[:, None]
    size = float(np.linalg.norm(root))
    for layer, W, H, following in zip(
        [X, *activations], weights, activations, weights[1:], strict=False
    ):
        # Of the argument of tanh: those of what comes in, and of its products and sums. Then tanh'
        # times these, and a relative one.
        arguments = errors @ np.abs(W[:-1]) + 4 * _EPS * (np.abs(layer) @ np.abs(W[:-1]))
        arguments += 4 * _EPS * np.abs(W[-1])
        errors = ((1 - H * H) * arguments + 4 * _EPS * np.abs(H)).max(axis=0)
        mean = np.average(H, axis=0, weights=sample_weight)
        V = _row_space((H - mean) * root, errors, size)
        if V.shape[1] < len(V):
            slopes = V @ (V.T @ following[:-1])
            following = np.vstack([slopes, following[-1] + mean @ (following[:-1] - slopes)])
        result = [*result, following]
    return result


def _layer_sizes(hidden_layer_sizes: Any, n_components: int) -> list[int]:
    sizes = np.atleast_1d(np.asarray(hidden_layer_sizes, dtype=object)).tolist()
    if not all(isinstance(size, int | np.integer) and size >= 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes is {hidden_layer_sizes!r}; it must hold one integer of at least 1 "
            "for each hidden layer, or nothing."
        )
    return [*map(int, sizes), int(n_components)]


def _checked_weights(sample_weight: Any, n: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights = check_array(
        unmasked(sample_weight, "sample_weight"),
        ensure_2d=False,
        dtype=np.float64,
        ensure_min_samples=0,
        input_name="sample_weight",
    )
    if weights.shape not in ((), (n,)):
        raise ValueError(
            f"sample_weight has shape {weights.shape}; it must have shape ({n},), one weight for "
            "each row of X, or be a number."
        )
    weights = np.broadcast_to(weights, n)
    if weights.min() < 0:
        raise ValueError(
            f"sample_weight has the entry {weights.min()}; its entries must not be negative."
        )
    if weights.max() == 0:
        raise ValueError("sample_weight is zero for all samples; it must be positive for some.")
    return weights


class TanhRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression on a basis of tanh functions that is learned too.

    The prediction is f(x) = Σ_k c_k φ_k(x) + b, where φ is a `TanhBasis`: a network with tanh
    layers and a linear output. For any weights W of the basis the best coefficients c solve a
    linear problem, so that only W has to be searched for (variable projection).

    Parameters
    ----------
    n_components : int, default=10
        Number K of functions.
    hidden_layer_sizes : sequence of int, default=()
        Sizes of further tanh layers before these functions, as `TanhBasis` has it.
    alpha : float, default=1e-6
        Penalty of the coefficients: ½ alpha ‖c‖² is added to the loss. It may be 0; of several best
        coefficients the smallest are taken then.
    fit_intercept : bool, default=True
        Whether there is a constant b, which is not penalized.
    max_iter : int, default=200
        Number of iterations from each start after which to stop, with a warning.
    tol : float, default=1e-8
        An optimization has converged when no entry of the gradient is larger than tol · S. The
        gradient is that of the loss by the weights of the basis on standardized inputs, and S is
        the weighted sum of the squared deviations of the targets from their mean (without an
        intercept: from 0).
    n_restarts : int, default=0
        Number of further starts from other weights; the best result is kept. The starts for a
        smaller number are the first of those for a larger one.
    random_state : int, RandomState instance or None, default=None
        Source of the weights to start from, and of samples of rows. An int gives the same result
        each time.
    verbose : int, default=0
        Prints the loss of each tenth iteration, and from 2 on that of each.

    Attributes
    ----------
    weights_ : ndarray of shape (D + 1, K) or list of ndarray
        Weights of the basis for inputs as they are given, as `TanhBasis` takes them: slopes and, in
        the last row, biases; with hidden layers one array for each layer.
    coef_ : ndarray of shape (K,) or (T, K)
        Coefficients c.
    intercept_ : float or ndarray of shape (T,)
        Constant b.
    loss_ : float
        Loss: ½ Σ_n w_n ‖y_n − f(x_n)‖² + ½ alpha ‖c‖².
    loss_curve_ : list of float
        Loss at the start and after each iteration, for the best start. It never rises.
    n_iter_ : int
        Number of iterations from the best start.
    gradient_norm_ : float
        Largest entry of the gradient of `loss_`, as `tol` takes it, in units of `loss_`.
    converged_ : bool
        Whether the gradient became small enough, or as small as rounding errors allow.
    start_losses_ : ndarray of shape (n_restarts + 1,)
        Loss that each start led to.
    best_start_ : int
        Which start led to the least loss.
    n_features_in_ : int
        Number D of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (D,)
        Names of these columns, where they have names that are strings.

    See Also
    --------
    TanhBasis : The basis, with its derivatives.
    sklearn.neural_network.MLPRegressor : The same functions, learned in another way.

    Notes
    -----
    With up to 500 weights in W, SciPy's ``least_squares`` takes Gauss-Newton steps in a trust
    region with Kaufman's Jacobian of the reduced problem [2]_, which QR decompositions give without
    normal equations. Where there are more than 500 residuals, and more than 4 for each weight, the
    Jacobian is that of a random sample of so many, another one each iteration [3]_; loss and
    gradient are always those of all rows. With more weights SciPy's L-BFGS-B gets the gradient,
    which is exact: the derivative by c vanishes at the best c.

    Optimizations start from weights drawn in the manner of Nguyen and Widrow [4]_: the transitions
    of the functions share the space between them.

    Slopes in directions in which the data do not move are 0. In the first layer they are projected
    on the row space of the standardized inputs, without their weighted mean and with the roots of
    the weights, and in each further layer on that of the activations of the one before, without
    their mean likewise: these are the slopes with the least sum of squares that do the same to the
    data, the limit of a penalty that goes to 0. So those of a constant column, or of a unit that
    is saturated everywhere, are 0, a column and its copy share theirs equally, in units of their
    standard deviations, and those of one-hot columns, each times its variance, sum to 0;
    samples of the weight 0 do not count. In the first layer, gradients of predictions therefore
    vanish along such directions. What moves no more than rounding errors of the inputs, some 4 of
    their largest entry in their type, does not move. Columns that follow from others so have no
    part in the optimization, and so neither constant columns nor copies behind all others change
    what is found, or how fast.

    There is usually more than one local minimum: set `n_restarts`. As in any network, the functions
    may be exchanged, and the signs of c_k and W_k together.

    All computations are in float64. If `fit` fails, whatever the reason, or is interrupted (Ctrl-C,
    within a second), the estimator is as it was before.

    References
    ----------
    .. [1] G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
       squares problems whose variables separate", SIAM Journal on Numerical Analysis 10, 1973.
    .. [2] L. Kaufman, "A variable projection method for solving separable nonlinear least squares
       problems", BIT 15, 1975.
    .. [3] R. H. Byrd, G. M. Chin, W. Neveitt and J. Nocedal, "On the use of stochastic Hessian
       information in optimization methods for machine learning", SIAM Journal on Optimization 21,
       2011.
    .. [4] D. Nguyen and B. Widrow, "Improving the learning speed of 2-layer neural networks by
       choosing initial values of the adaptive weights", IJCNN 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import TanhRegressor
    >>> X = np.linspace(0, 10, 50).reshape(-1, 1)
    >>> y = np.sin(X[:, 0])
    >>> model = TanhRegressor(4, n_restarts=3, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.999
    True
    >>> slope = model.predict_gradient(X)
    >>> bool(np.abs(slope[:, 0] - np.cos(X[:, 0])).max() < 0.1)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Integral],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "fit_intercept": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_restarts": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: ArrayLike = (),
        alpha: float = 1e-6,
        fit_intercept: bool = True,
        max_iter: int = 200,
        tol: float = 1e-8,
        n_restarts: int = 0,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.n_restarts = n_restarts
        self.random_state = random_state
        self.verbose = verbose

    @fit_context
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the basis and the coefficients.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Points. Constant columns, and copies of others, have no effect on predictions.
        y : array-like of shape (N,) or (N, T)
            Targets.
        sample_weight : array-like of shape (N,), default=None
            Weights of the samples, not negative; None stands for 1. A sample of the weight 2 counts
            like two, and one of the weight 0 as if it were not there.

        Returns
        -------
        self : TanhRegressor

        Raises
        ------
        ValueError
            If a parameter or an argument has a wrong value, or shapes do not fit.
        MemoryError
            If the basis would be larger than the memory this process may use.

        Warns
        -----
        ConvergenceWarning
            If the best start had not converged after `max_iter` iterations.

        Examples
        --------
        >>> from kerneldiff import TanhRegressor
        >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 0.0, 9.0]
        >>> model = TanhRegressor(2, random_state=0).fit(X, y, sample_weight=[1, 1, 1, 0])
        >>> model.predict(X[:3]).round(3) + 0.0
        array([0., 1., 0.])
        """
        fitted = copy.copy(self)
        fitted._fit(X, y, sample_weight)
        self.__dict__ = fitted.__dict__
        if not self.converged_:
            warnings.warn(
                f"TanhRegressor has not converged after max_iter={self.max_iter} iterations: the "
                f"gradient is {self.gradient_norm_:.3g}. A larger max_iter or tol may be needed.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    @_linalg.blas_threads
    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        sizes = _layer_sizes(self.hidden_layer_sizes, self.n_components)
        X, y = unmasked(X, "X"), unmasked(y, "y")
        X, y = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            order="C",
            multi_output=True,
            y_numeric=True,
        )
        # In float32, columns follow from others with larger errors.
        eps = float(np.finfo(X.dtype).eps)
        X = X.astype(np.float64, copy=False)
        sample_weight = _checked_weights(sample_weight, len(X))
        check_fits((len(X), max(sizes)), X.dtype)
        Y = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        if sample_weight is not None and not sample_weight.all():
            present = sample_weight > 0
            X, Y, sample_weight = X[present], Y[present], sample_weight[present]

        self._inputs = inputs = _Standard.of(X, sample_weight, eps)
        X = inputs(X)
        root = np.ones(len(X)) if sample_weight is None else np.sqrt(sample_weight)
        span = _Span.of(X * root[:, None], inputs.errors, float(np.linalg.norm(root)))
        X = np.ascontiguousarray(X[:, span.columns])
        # One unit for all targets, in which their sum of squares is 1: it leaves alpha as it is.
        mean = _Standard.of(Y, sample_weight).mean if self.fit_intercept else np.zeros(Y.shape[1])
        Y = Y - mean
        largest = np.abs(Y).max() or 1.0
        squares = np.average((Y / largest) ** 2, axis=0, weights=sample_weight).sum()
        total = float(len(Y) if sample_weight is None else sample_weight.sum())
        unit = float(largest * math.sqrt(squares * total)) or 1.0

        shapes = [*zip(np.add([X.shape[1], *sizes[:-1]], 1).tolist(), sizes, strict=True)]
        problem = _Reduced(X, Y / unit, sample_weight, shapes, self.alpha, self.fit_intercept)
        random = check_random_state(self.random_state)
        seeds = random.randint(np.iinfo(np.int32).max, size=self.n_restarts + 1)
        best: _Search | None = None
        losses = np.empty(len(seeds))
        for number, seed in enumerate(seeds):
            source = np.random.RandomState(seed)
            start = _drawn(shapes, source)
            report = self._reporter(number, unit**2)
            run = _Search(problem, span, start, self.max_iter, self.tol, source, report)
            losses[number] = run.curve[-1] * unit**2
            if self.verbose:
                state = "converged" if run.converged else "not converged"
                print(
                    f"[TanhRegressor] start {number + 1} of {len(seeds)}: {state} after "
                    f"{counted(len(run.curve) - 1, 'iteration')}, loss {losses[number]:.6g}"
                )
            if best is None or run.curve[-1] < best.curve[-1]:
                best, self.best_start_ = run, number
        assert best is not None

        self.start_losses_ = losses
        self.loss_curve_ = [loss * unit**2 for loss in best.curve]
        self.loss_ = self.loss_curve_[-1]
        self.n_iter_ = len(best.curve) - 1
        point, largest = best.point, best.largest
        errors = inputs.errors[span.columns]
        weights = _projected(X, point.weights, point.activations, sample_weight, errors)
        if len(weights) > 1:
            # Slopes of a layer that moved have a part in the gradients of those before it.
            point = point._replace(weights=weights)
            gradient = problem.gradient(point)
            largest = span.largest(_unpacked(gradient, shapes))
        self.gradient_norm_ = largest * unit**2
        self.converged_ = best.converged and largest <= max(self.tol, 2 * best.largest)
        first, *others = (part.copy() for part in weights)
        self._weights = [np.vstack([span.slopes(first[:-1]), first[-1]]), *others]
        self._coef = point.coef * unit
        self._intercept = mean - self._coef @ point.mean
        slopes = self._weights[0][:-1] / self._inputs.scale[:, None]
        first = np.vstack([slopes, self._weights[0][-1] - self._inputs.mean @ slopes])
        self.weights_ = first if len(sizes) == 1 else [first, *self._weights[1:]]
        flat = np.ndim(y) == 1
        self.coef_ = self._coef[0] if flat else self._coef
        self.intercept_ = float(self._intercept[0]) if flat else self._intercept

    def _reporter(self, number: int, unit: float) -> Callable[[int, float, float], None]:
        every = {0: 0, 1: 10}.get(int(self.verbose), 1)

        def report(iteration: int, loss: float, gradient: float) -> None:
            if every and iteration % every == 0:
                print(
                    f"[TanhRegressor] start {number + 1} of {self.n_restarts + 1}, iteration "
                    f"{iteration}: loss {loss * unit:.6g}, gradient {gradient * unit:.3g}"
                )

        return report

    def _standardized(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = unmasked(X, "X")
        return self._inputs(validate_data(self, X, dtype=np.float64, reset=False))

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        """Drop the axis of targets, the second one, if `fit` got a vector."""
        return values[:, 0] if np.ndim(self.coef_) == 1 else values

    @_linalg.blas_threads
    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        y : ndarray of shape (N,) or (N, T)

        Notes
        -----
        It is ``TanhBasis(weights=weights_).fit(X).transform(X) @ coef_.T + intercept_``, computed
        with standardized inputs, so that an offset of the inputs costs no digits.

        Examples
        --------
        >>> from kerneldiff import TanhRegressor
        >>> model = TanhRegressor(1, random_state=0).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0])
        >>> model.predict([[0.5]]).shape
        (1,)
        """
        phi = _forward(self._standardized(X), self._weights)[-1]
        return self._shaped(phi @ self._coef.T + self._intercept)

    @_linalg.blas_threads
    def predict_gradient(self, X: ArrayLike) -> np.ndarray:
        """Differentiate the prediction with respect to x.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        G : ndarray of shape (N, D) or (N, T, D)
            ``G[n, a]`` is ∂f/∂x_a at ``X[n]``, in units of y over those of the columns of X.

        Examples
        --------
        >>> import numpy as np
        >>> from kerneldiff import TanhRegressor
        >>> X = np.linspace(-1, 1, 9).reshape(-1, 1)
        >>> model = TanhRegressor(1, alpha=0, random_state=0).fit(X, np.tanh(2 * X[:, 0]))
        >>> model.predict_gradient([[0.0]]).round(4)
        array([[2.]])
        """
        X = self._standardized(X)
        (n, d), (t, k) = X.shape, self._coef.shape
        check_fits((n, t, d), X.dtype)
        G = np.empty((n, t, d))
        for rows in _blocks(n, k + d):
            part = X[rows]
            activations = _forward(part, self._weights)
            for target, coef in enumerate(self._coef):
                cotangent = np.tile(coef, (len(part), 1))
                _, G[rows, target] = _backward(part, self._weights, activations, cotangent)
        G /= self._inputs.scale
        return self._shaped(G)

    @_linalg.blas_threads
    def predict_hessian(self, X: ArrayLike) -> np.ndarray:
        """Differentiate the prediction with respect to x twice.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        H : ndarray of shape (N, D, D) or (N, T, D, D)
            ``H[n, a, b]`` is ∂²f/∂x_a∂x_b at ``X[n]``; symmetric.

        Notes
        -----
        With z_l the arguments of tanh in layer l, and g_l the derivatives of f by its values,
        ∇²f = Σ_l (∂z_l/∂x)ᵀ diag(g_l tanh''(z_l)) (∂z_l/∂x), by the chain rule: the arguments are
        linear in the values of the layer before.

        Examples
        --------
        >>> import numpy as np
        >>> from kerneldiff import TanhRegressor
        >>> X = np.linspace(-1, 1, 9).reshape(-1, 1)
        >>> model = TanhRegressor(1, alpha=0, random_state=0).fit(X, np.tanh(X[:, 0]))
        >>> bool(np.isclose(model.predict_hessian([[1.0]])[0, 0, 0], -0.6397, atol=1e-4))
        True
        """
        X = self._standardized(X)
        (n, d), t = X.shape, len(self._coef)
        check_fits((n, t, d, d), X.dtype)
        H = np.empty((n, t, d, d))
        slopes = [W[:-1] for W in self._weights]
        # The squares of the slopes of the first layer, which are the same for all rows.
        outer = np.einsum("ak,bk->kab", slopes[0], slopes[0]).reshape(-1, d * d)
        widest = max(len(W) for W in self._weights[1:]) if len(slopes) > 1 else 1
        for rows in _blocks(n, d * (d + widest) + len(outer)):
            H[rows] = self._hessian(X[rows], slopes, outer)
        H += H.swapaxes(2, 3).copy()
        H /= 2 * np.outer(self._inputs.scale, self._inputs.scale)
        return self._shaped(H)

    def _hessian(self, X: np.ndarray, slopes: list[np.ndarray], outer: np.ndarray) -> np.ndarray:
        """Hessian by standardized inputs, (N, T, D, D)."""
        n, d = X.shape
        activations = _forward(X, self._weights)
        # tanh' in each layer, and ∂z/∂x in each but the first, where it is constant.
        first: list[np.ndarray] = []
        jacobians = [slopes[0].T]
        for layer, W in zip([X, *activations], self._weights, strict=False):
            first.append(_layer("slope", layer, W))
        for S, A in zip(first, slopes[1:], strict=False):
            jacobians.append(A.T @ (S[:, :, None] * jacobians[-1]))
        H = np.zeros((n, len(self._coef), d, d))
        for target, coef in enumerate(self._coef):
            g = np.broadcast_to(coef, activations[-1].shape)
            for number in reversed(range(len(slopes))):
                g = g * first[number]
                second = -2 * activations[number] * g
                if number:
                    J = jacobians[number]
                    H[:, target] += (J.swapaxes(1, 2) * second[:, None, :]) @ J
                    g = g @ slopes[number].T
                else:
                    H[:, target] += (second @ outer).reshape(n, d, d)
        return H
