"""Solvers of the linear systems of a Gaussian process.

A solver is made for one kernel, one set of observed functionals and the variances of their noise,
all in the kernel's own units; what units the user has, is the estimator's business.  `Prior` is the
one that has observed nothing, `Cholesky` the dense one; others have the same methods.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.gaussian_process.kernels import Kernel

from kerneldiff import _linalg, kernels
from kerneldiff._validation import quietly
from kerneldiff.functionals import (
    Functional,
    Gradient,
    Value,
    ValueGradient,
    covariance,
    part_of,
)
from kerneldiff.operators import CovarianceOperator

# Entries of the blocks in which predictions are made: 16 MiB, so that LAPACK is at full speed.
_BLOCK = 2**21

# Entries of covariances that are made for a product with them.
_SMALL = 2**14

# Columns in which a triangle is walked through: those of usual matrices stay in the cache.
_COLUMNS = 32


def pieces(functionals: Sequence[Functional], entries: int) -> Iterator[tuple[Functional, slice]]:
    """Cut functionals into pieces of whole points.

    Parameters
    ----------
    functionals : sequence of Functional
    entries : int
        How many entries a piece may have; it has those of one point at least.

    Yields
    ------
    piece : Functional
    where : slice
        Its entries among those of all functionals.
    """
    start = 0
    for functional in functionals:
        step = max(1, entries // max(1, math.prod(functional.shape[1:])))
        for first in range(0, len(functional.X), step):
            piece = part_of(functional, slice(first, first + step))
            yield piece, slice(start, start + piece.size)
            start += piece.size


def _diagonal(kernel: Kernel, functional: Functional) -> np.ndarray:
    """Variances of the entries of a functional, without noise."""
    X = functional.X
    term = kernels.read(kernel, X.shape[1])
    if isinstance(functional, Value):
        return kernels.on_diagonal(term, X)
    variances = CovarianceOperator(kernel, functional).diagonal()
    if isinstance(functional, ValueGradient) and kernels.with_noise(term) is not None:
        values = np.zeros(functional.shape, bool)
        values[:, 0] = True
        if functional.mask is not None:
            X, values = X[functional.mask[:, 0]], values[functional.mask]
        variances[values.ravel()] = kernels.on_diagonal(term, X)
    return variances


class NotFinite(np.linalg.LinAlgError):
    """A covariance is beyond the range of numbers."""


def check_finite(matrix: np.ndarray, kernel: Kernel, observed: Sequence[Functional]) -> None:
    """Raise NotFinite, which names the part of the kernel, if entries are infinite or NaN.

    Parameters
    ----------
    matrix : ndarray of shape (n, n) or (n,)
        Covariances, in the lower triangle at least, or variances of what was observed.
    kernel : sklearn.gaussian_process.kernels.Kernel
    observed : sequence of Functional
        Each point may have fewer rows in the matrix, the same number for all of them.
    """
    with np.errstate(all="ignore"):
        # A finite sum means finite entries; a sum that is not may only have overflowed.
        if math.isfinite(np.add.reduce(matrix, axis=None)) or np.isfinite(matrix).all():
            return
        where = np.argwhere(~np.isfinite(matrix))[0]
        step = sum(f.size for f in observed) / len(matrix)
        row, col = int(where[0] * step), int(where[-1] * step)
        rows, cols = ([_point_of(observed, index)] for index in (row, col))
        part, looked_at = kernel, [kernel]
        while looked_at:
            block = covariance(looked_at[0], rows, None if row == col else cols)
            if np.isfinite(block).all():
                del looked_at[0]
            else:
                part = looked_at[0]
                looked_at = [v for v in vars(part).values() if isinstance(v, Kernel)]
                looked_at *= not isinstance(part, kernels.Columns)
    name = f"kernel {kernel}" if part is kernel else f"{part}, a part of the kernel {kernel},"
    raise NotFinite(
        f"{name} is beyond the range of numbers: the covariance of {describe(observed, row)} and "
        f"{describe(observed, col)} is {matrix[tuple(where)]}."
    )


def _point_of(functionals: Sequence[Functional], index: int) -> Functional:
    """What is observed at the point that an entry belongs to."""
    return next(piece for piece, where in pieces(functionals, 1) if index < where.stop)


class Prior:
    """The process before anything has been observed.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def mean(self, functionals: Sequence[Functional], weights: np.ndarray) -> np.ndarray:
        """Mean of functionals of the process.

        Parameters
        ----------
        functionals : sequence of Functional
        weights : ndarray of shape (n_obs, T)

        Returns
        -------
        ndarray of shape (n, T)
        """
        return np.zeros((sum(f.size for f in functionals), weights.shape[1]))

    def covariance(self, functionals: Sequence[Functional], diagonal: bool = False) -> np.ndarray:
        """Covariance of functionals of the process, without noise.

        Parameters
        ----------
        functionals : sequence of Functional
        diagonal : bool, default=False
            Whether to return its diagonal only.

        Returns
        -------
        ndarray of shape (n, n) or (n,)
        """
        functionals = list(functionals)
        if diagonal:
            result = np.concatenate([_diagonal(self.kernel, f) for f in functionals])
        else:
            # Columns that are given as such are without noise.
            result = covariance(self.kernel, functionals, functionals)
        check_finite(result, self.kernel, functionals)
        return result

    def moments(
        self, functionals: Sequence[Functional], weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variances of functionals of the process, without noise.

        Parameters
        ----------
        functionals : sequence of Functional
        weights : ndarray of shape (n_obs, T)

        Returns
        -------
        mean : ndarray of shape (n, T)
        variances : ndarray of shape (n,)
        """
        return self.mean(functionals, weights), self.covariance(functionals, diagonal=True)


class Cholesky(Prior):
    """The posterior by a Cholesky factor of the covariance matrix of the observations.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    observed : list of Functional
    noise : ndarray of shape (n_obs,)
        Variances that are added to the diagonal, besides the kernel's own noise.
    max_condition : float, default=None
        If given, noise is increased where it is so small that the condition number of the matrix
        in unit-diagonal form could be larger than this.
    work : ndarray of shape (n_obs, n_obs), default=None
        Fortran-contiguous memory to work in, whose upper triangle is zero; None makes its own.

    Notes
    -----
    There is one matrix in memory, and only its lower triangle is ever touched: first the
    covariance, then the factor L, and for the gradient of the likelihood the inverse and what is
    to be contracted with the derivatives of the kernel.  After that the factor is made again, when
    it is asked for.

    Values and derivatives have different units, so that the matrix is to be judged in its
    unit-diagonal form H = S⁻¹ C S⁻¹, S² the diagonal of C.  The rounding errors of Cholesky's
    method are the same for both: those of C, divided by S on both sides, are those of H, and it
    succeeds if the condition of H, not of C, allows for it.  So the matrix need not be scaled; but
    the nugget that bounds the condition number is relative to the diagonal.

    References
    ----------
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", SIAM 2002, theorems 10.5 to
    10.7; A. L. Marchildon and D. W. Zingg, "A non-intrusive solution to the ill-conditioning
    problem of the gradient-enhanced Gaussian covariance matrix for Gaussian processes", J. Sci.
    Comput. 95:65 (2023), for the nugget.
    """

    def __init__(
        self,
        kernel: Kernel,
        observed: list[Functional],
        noise: np.ndarray,
        max_condition: float | None = None,
        *,
        work: np.ndarray | None = None,
    ) -> None:
        super().__init__(kernel)
        self.observed = observed
        self.noise = noise
        self.max_condition = max_condition
        self._matrix = work
        self._factorised = False
        self._nugget: _Nugget | None = None

    @property
    def factor(self) -> np.ndarray:
        """Its lower Cholesky factor, Fortran-contiguous, shape (n_obs, n_obs)."""
        if not self._factorised:
            self._factorise()
        assert self._matrix is not None
        return self._matrix

    def _factorise(self) -> None:
        n = len(self.noise)
        if self._matrix is None:
            # Zeros are as cheap as memory that is not set: they come so from the system.
            self._matrix = np.zeros((n, n), order="F")
        matrix = covariance(self.kernel, self.observed, out=self._matrix)
        check_finite(matrix, self.kernel, self.observed)
        diagonal = np.einsum("ii->i", matrix)
        noise = self.noise
        if self.max_condition is not None:
            self._nugget = _Nugget(self.kernel, self.observed, matrix, self.max_condition)
            noise = np.maximum(noise, self._nugget.eta * self._nugget.diagonal)
        diagonal += noise
        info = _linalg.cholesky(matrix)
        if info:
            raise np.linalg.LinAlgError(
                f"the {info}-th leading minor of the covariance matrix is not positive definite: "
                f"{describe(self.observed, info - 1)} follows from those before it."
            )
        self._factorised = True

    def solve(self, targets: np.ndarray) -> np.ndarray:
        """Multiply by the inverse of the matrix.

        Parameters
        ----------
        targets : ndarray of shape (n_obs, T)

        Returns
        -------
        ndarray of shape (n_obs, T)
        """
        return _linalg.solve(self.factor, targets)

    @quietly
    def likelihood(self, targets: np.ndarray, eval_gradient: bool = False) -> Any:
        """Logarithm of the marginal likelihood, summed over targets.

        Parameters
        ----------
        targets : ndarray of shape (n_obs, T)
        eval_gradient : bool, default=False

        Returns
        -------
        likelihood : float
        theta_gradient : ndarray of shape (n_theta,)
            With respect to ``kernel.theta``; only with `eval_gradient`.
        noise_gradient : ndarray of shape (n_obs,)
            With respect to `noise`; only with `eval_gradient`.

        References
        ----------
        C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
        2006, equations 5.8 and 5.9.
        """
        n, t = targets.shape
        weights = self.solve(targets)
        matrix = self.factor
        likelihood = -0.5 * float(np.einsum("nt,nt->", targets, weights)) - t * (
            float(np.log(np.einsum("ii->i", matrix)).sum()) + 0.5 * n * math.log(2.0 * math.pi)
        )
        if not eval_gradient:
            return likelihood
        # dL = Σ_ij W_ij dC_ij with W = (Σ_t a_t a_tᵀ - T C⁻¹) / 2.  What is made, in place of the
        # factor, is W / (-T / 2).
        self._factorised = False
        _linalg.invert(matrix)
        _linalg.add_gram(-1.0 / t, weights, matrix)
        diagonal = np.einsum("ii->i", matrix).copy()
        if self._nugget is not None:
            active = self.noise < self._nugget.eta * self._nugget.diagonal
            self._nugget.contract(matrix, diagonal, active)
            diagonal[active] = 0.0
        operator = CovarianceOperator(self.kernel, self.observed)
        return likelihood, -0.5 * t * operator.vjp(matrix, "theta"), -0.5 * t * diagonal

    def mean(self, functionals: Sequence[Functional], weights: np.ndarray) -> np.ndarray:
        """Mean of functionals of the process.

        Parameters
        ----------
        functionals : sequence of Functional
        weights : ndarray of shape (n_obs, T)
            What `solve` made of the targets.

        Returns
        -------
        ndarray of shape (n, T)
        """
        functionals = list(functionals)
        # What is small is had sooner with all entries.
        if sum(f.size for f in functionals) * len(weights) < _SMALL:
            return _linalg.product(covariance(self.kernel, functionals, self.observed), weights)
        return CovarianceOperator(self.kernel, functionals, self.observed) @ weights

    def covariance(self, functionals: Sequence[Functional], diagonal: bool = False) -> np.ndarray:
        """Covariance of functionals of the process, without noise.

        Parameters
        ----------
        functionals : sequence of Functional
        diagonal : bool, default=False
            Whether to return its diagonal only.

        Returns
        -------
        ndarray of shape (n, n) or (n,)
            The diagonal may be negative by rounding.
        """
        if diagonal:
            return self.moments(functionals, np.zeros((len(self.noise), 0)))[1]
        result = super().covariance(functionals)
        block = covariance(self.kernel, list(functionals), self.observed)
        _linalg.solve_half(self.factor, block.T)
        # One triangle, in place; then the other is that.
        _linalg.add_gram(-1.0, block, result.T)
        for first in range(0, len(result), _COLUMNS):
            square = result[first : first + _COLUMNS, first : first + _COLUMNS]
            square[...] = np.triu(square) + np.triu(square, 1).T
            stop = first + len(square)
            result[stop:, first:stop] = result[first:stop, stop:].T
        return result

    def moments(
        self, functionals: Sequence[Functional], weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variances, from the same blocks of the covariance with the observations.

        Parameters
        ----------
        functionals : sequence of Functional
        weights : ndarray of shape (n_obs, T)

        Returns
        -------
        mean : ndarray of shape (n, T)
        variances : ndarray of shape (n,)
            They may be negative by rounding.
        """
        variances = super().covariance(functionals, diagonal=True)
        mean = np.empty((len(variances), weights.shape[1]))
        factor, n = self.factor, len(self.noise)
        step = max(1, min(_BLOCK // max(1, n), len(variances)))
        buffer = np.empty((max(step, *(math.prod(f.shape[1:]) for f in functionals)), n))
        for piece, where in pieces(functionals, step):
            block = buffer[: piece.size]
            covariance(self.kernel, piece, self.observed, out=block)
            mean[where] = _linalg.product(block, weights)
            # Its transpose is Fortran-contiguous and solved for in place.
            _linalg.solve_half(factor, block.T)
            variances[where] -= np.einsum("kn,kn->k", block, block)
        return mean, variances


class _Nugget:
    """The noise that keeps the condition number of a unit-diagonal matrix below a bound.

    With noise n_i ≥ η C_ii, and eigenvalues of the unit-diagonal form of C of at most 1 + u, the
    unit-diagonal form of C with noise has a condition number of at most (1 + u + η) / η.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    observed : list of Functional
    matrix : ndarray of shape (n, n)
        Their covariance, in its lower triangle.
    max_condition : float

    Attributes
    ----------
    eta : float
    diagonal : ndarray of shape (n,)
        That of the matrix.
    """

    def __init__(
        self, kernel: Kernel, observed: list[Functional], matrix: np.ndarray, max_condition: float
    ) -> None:
        self.diagonal = np.einsum("ii->i", matrix).copy()
        self.bound = max_condition - 1.0
        self.row: int | None = None
        n, d = sum(len(f.X) for f in observed), observed[0].X.shape[1]
        eta = None
        if all(isinstance(f, Value | Gradient | ValueGradient) for f in observed):
            term = kernels.read(kernel, d)
            eta = published_nugget(term, n, d, len(matrix), max_condition)
        self.eta = (1.0 + self._gershgorin(matrix)) / self.bound if eta is None else eta

    @quietly
    def _gershgorin(self, matrix: np.ndarray) -> float:
        """Largest sum of absolute values off the diagonal, of a row in unit-diagonal form."""
        n = len(matrix)
        self.inverse = np.where(self.diagonal > 0, self.diagonal, np.inf) ** -0.5
        sums = np.zeros(n)
        for first in range(0, n, _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, n))
            block = np.abs(matrix[first:, columns])
            block *= self.inverse[first:, None]
            block *= self.inverse[columns]
            block[np.triu_indices(block.shape[1])] = 0.0
            sums[first:] += block.sum(axis=1)
            sums[columns] += block.sum(axis=0)
        self.row = m = int(np.argmax(sums))
        self.entries = np.concatenate([matrix[m, :m], matrix[m:, m]])
        return float(sums[m])

    @quietly
    def contract(self, matrix: np.ndarray, weights: np.ndarray, active: np.ndarray) -> None:
        """Add to what the derivatives of the matrix are contracted with, the nugget's part in it.

        Parameters
        ----------
        matrix : ndarray of shape (n, n)
            Symmetric, in its lower triangle; changed in place.
        weights : ndarray of shape (n,)
            Derivatives with respect to noise.
        active : ndarray of bool of shape (n,)
            Whose noise is the nugget, η C_ii.
        """
        diagonal = np.einsum("ii->i", matrix)
        diagonal[active] += self.eta * weights[active]
        if self.row is None:
            return
        # dη = Σ_j d|R_mj| / (κ - 1), R_mj = C_mj / √(C_mm C_jj), each counted twice below.
        m = self.row
        factor = 0.5 * float(weights[active] @ self.diagonal[active]) / self.bound
        correlation = np.abs(self.entries) * self.inverse * self.inverse[m]
        correlation[m] = 0.0
        change = factor * np.sign(self.entries) * self.inverse * self.inverse[m]
        change[m] = 0.0
        matrix[m, :m] += change[:m]
        matrix[m:, m] += change[m:]
        diagonal -= np.where(correlation > 0, factor * correlation / self.diagonal, 0.0)
        diagonal[m] -= factor * correlation.sum() / self.diagonal[m]


def published_nugget(
    term: kernels.Term, n: int, d: int, n_obs: int, max_condition: float
) -> float | None:
    """Noise relative to the diagonal that bounds the condition number, wherever the points are.

    Parameters
    ----------
    term : tree of terms
    n : int
        Number of points of which values, gradients or entries of these are observed.
    d : int
        Columns of the points.
    n_obs : int
        Number of observations.
    max_condition : float

    Returns
    -------
    float or None
        None if nothing is known of such a kernel: it must be an RBF or a RationalQuadratic, noise
        apart.

    References
    ----------
    A. L. Marchildon and D. W. Zingg, J. Sci. Comput. 95:65 (2023).
    """
    if not _is_bounded(term):
        return None
    root = math.sqrt(1.0 + 4.0 * d)
    largest = 0.5 * (n - 1) * (1.0 + root) * math.exp(-(1.0 + 2.0 * d - root) / (4.0 * d))
    # No entry in unit-diagonal form is larger than 1.
    return (1.0 + min(largest, n_obs - 1.0)) / (max_condition - 1.0)


def _is_bounded(term: Any) -> bool:
    if isinstance(term, kernels.Sum):
        parts = [p for p in (term.left, term.right) if not _is_noise(p)]
        return len(parts) == 1 and _is_bounded(parts[0])
    return isinstance(term, kernels.Leaf) and (
        term.jet in ("rbf", "rational_quadratic") and term.amplitude > 0
    )


def _is_noise(term: Any) -> bool:
    return isinstance(term, kernels.White) or term == kernels.Constant(0.0)


def describe(functionals: Sequence[Functional], index: int) -> str:
    """Say which observation an entry is.

    Parameters
    ----------
    functionals : sequence of Functional
    index : int

    Returns
    -------
    str
    """
    for functional in functionals:
        if index < functional.size:
            if functional.mask is not None:
                index = int(np.flatnonzero(functional.mask)[index])
            point, *rest = (int(i) for i in np.unravel_index(index, functional.shape))
            entry = "".join(f"[{i}]" for i in rest)
            return f"{type(functional).__name__}{entry} at {functional.X[point]}"
        index -= functional.size
    raise IndexError(index)
