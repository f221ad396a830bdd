"""Exact regression on values and gradients of few points in many dimensions, by rotation.

Of N points in D dimensions, all coordinates lie in a span of r <= N - 1 dimensions (r <= N where a
kernel has dot products, which tell where the origin is).  Let k be isotropic in u = x / l, and the
noise of a point's gradient be the same in all directions of u.  In an orthonormal basis of
gradients that begins with one of the span, the joint covariance of values and gradients splits
exactly:

    values and gradients along the span      N (1 + r) entries: the joint covariance in r dimensions
    gradients along each of D - r others     N entries: C_ij = Σ_l F_l c_l + noise,

the same for all of the others, with F_l the derivatives of the kernel with respect to its
invariants (kernels.py) and c = -2 for a squared distance, 1 for a dot product.  A derivative across
the span meets only a derivative along the same direction, as all invariants are even in the
coordinates across it.  So a Cholesky factor of each of the two matrices does what one of the
N (1 + D) matrix would do.  A point without a value, or without a gradient, has fewer rows in them.
A point at which something is predicted adds at most one dimension to the span, and in it one of the
D - r equal systems speaks.

The likelihood's gradient is a contraction Σ W_ij dC_ij of the inverse, and so of both of the two
inverses.  It needs, for each pair, a few moments of W only, whatever the number of hyperparameters,
and these are then met by the jets of dk/dθ.

Where a gradient lacks some of its entries, the matrix K of what is there is the matrix C with the
lacking entries S, without their rows and columns.  With M = [C⁻¹]_SS = R Rᵀ and B = C⁻¹_S R⁻ᵀ,

    log|K| = log|C| + log|M|    and    C⁻¹ - B Bᵀ is K⁻¹, with zeros in the rows and columns of S.

So the entries of S are filled in with what the others predict, at which their weights are zero; the
columns of B join the weights of the targets in contractions; and what a covariance lacks is P Pᵀ,
P the product of B and the covariance with all entries.  All of that is as well conditioned as C.

References
----------
F. de Roos, A. Gessner, P. Hennig, "High-dimensional Gaussian process inference with derivatives",
ICML 2021: gradients alone, the same noise for all, by one indefinite system of size N².
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.gaussian_process.kernels import Kernel

from kerneldiff import _core, _linalg, functionals, kernels, operators
from kerneldiff._validation import check_fits, memory_limit, quietly, too_large
from kerneldiff.functionals import (
    Directional,
    Functional,
    Gradient,
    Value,
    ValueGradient,
    check_functionals,
    covariance,
    moved,
    part_of,
)
from kerneldiff.solvers import check_finite, published_nugget

# Second derivative with respect to x and y, both across the span, of each kind of invariant.
_ACROSS = {"sqdist": -2.0, "dot": 1.0}

# Numbers in a work array, and in one that is to stay in the cache.
_PIECE, _CACHED = 2**24, 2**17

# How far apart what should be equal may be, relatively: ratios of length scales, noise.
_TOLERANCE = 1e-12


# ----------------------------------------------------------------------------- what it applies to


@quietly
def rotation_applies(
    kernel: Kernel,
    observed: Sequence[Functional],
    noise: np.ndarray,
    max_condition: float | None = None,
) -> str | None:
    """Tell whether a regression can be done by rotation.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The answer is for its hyperparameters as they are: the length scales of two parts of a sum
        may be in the same ratios before their optimization and not after it.
    observed : list of Functional
        What is observed.
    noise : ndarray of shape (n_obs,)
        The variance of the noise of each entry.
    max_condition : float, default=None
        The bound of the condition number that is asked for, if there is one.

    Returns
    -------
    str or None
        Why not, or None if it can be done.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read.
    ValueError
        If a hyperparameter has a value that the kernel cannot have.
    """
    if not all(type(f) in (Value, Gradient, ValueGradient) for f in observed):
        return "nothing but values and gradients must be observed"
    X, known = _table(observed)
    if not known[:, 1:].any():
        return "gradients must be observed, and not values alone"
    d = X.shape[1]
    term = kernels.read(kernel, d)
    weights = _common_weights(term, d)
    if weights is None:
        return (
            "the length scales of all parts of the kernel must be in the same ratios (those of a "
            "dot product are 1)"
        )
    _, lowest, highest = _noise_by_point(noise, known, weights)
    if (highest - lowest > _TOLERANCE * np.abs(highest)).any():
        return (
            "the variance of the noise of a gradient must be in the ratios of 1 / length_scale² "
            "(alpha_gradient one number for a point, and gradient_noise='scaled' where there are "
            "several length scales)"
        )
    if max_condition is not None and (
        published_nugget(term, len(X), d, len(noise), max_condition) is None
    ):
        return (
            "max_condition needs sums over rows of the covariance matrix, unless the kernel is an "
            "RBF or a RationalQuadratic"
        )
    return None


def rotation_cost(observed: Sequence[Functional]) -> tuple[int, int]:
    """Estimate what a likelihood with its gradient takes by rotation.

    Parameters
    ----------
    observed : list of Functional
        Values and gradients.

    Returns
    -------
    size : int
        Bytes of dense matrices: so many, or fewer if the points span less than they might.
    operations : int
        Where a Cholesky solver with n observations takes n³.
    """
    X, known = _table(observed)
    sloped = known[:, 1:].any(axis=1)
    # Python's integers, which do not overflow.
    gradients, rank = int(np.count_nonzero(sloped)), min(X.shape)
    rows = int(np.count_nonzero(known[:, 0])) + gradients * rank
    missing = int(np.count_nonzero(~known[sloped, 1:]))
    # For each missing entry there is one more weight of each entry of all gradients, which is
    # solved for and contracted by products that have the speed of memory.
    weights = missing * gradients * X.shape[1]
    return _size(rows, missing), (rows + missing) ** 3 + 64 * weights * (gradients + rank)


def _size(rows: int, missing: int) -> int:
    """Bytes of the matrices of what is along the span, of missing entries, and of both."""
    return 8 * (rows * rows + rows * missing + missing * missing)


def _table(observed: Sequence[Functional]) -> tuple[np.ndarray, np.ndarray]:
    """Points, (N, D), and what of their values and gradients is observed, (N, 1 + D), in order."""
    known = []
    for f in observed:
        table = np.zeros((len(f.X), 1 + f.X.shape[1]), bool)
        columns = {Value: slice(0, 1), Gradient: slice(1, None), ValueGradient: slice(None)}
        table[:, columns[type(f)]] = True if f.mask is None else f.mask
        known.append(table)
    X, every = np.concatenate([f.X for f in observed]), np.concatenate(known)
    some = every.any(axis=1)
    return X[some], every[some]


def _noise_by_point(
    noise: np.ndarray, known: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise of the values that there are; the least and the largest of gradients in u = √w x."""
    table = np.full(known.shape, np.nan)
    table[known] = noise
    of_gradients = table[known[:, 1:].any(axis=1), 1:] / weights
    return (
        table[known[:, 0], 0],
        np.fmin.reduce(of_gradients, axis=1, initial=np.inf),
        np.fmax.reduce(of_gradients, axis=1, initial=-np.inf),
    )


def _common_weights(term: kernels.Term, d: int) -> np.ndarray | None:
    """Weights of which those of all invariants are multiples, or None if there are none such."""
    found = None
    for leaf in kernels.leaves(term):
        weights = np.array(leaf.invariant.weights or (1.0,) * d) * leaf.scale
        if found is None:
            found = np.abs(weights)
            if not np.all(found > 0):
                return None
        ratios = weights / found
        # Beyond these sizes the compiler of kernels would bring weights back.
        if not 1e-50 < np.abs(ratios).min() <= np.abs(ratios).max() < 1e50:
            return None
        if np.ptp(ratios) > _TOLERANCE * np.abs(ratios[0]):
            return None
    return np.ones(d) if found is None else found


def _isotropic(term: Any, weights: np.ndarray) -> Any:
    """The tree for points u = sqrt(weights) x."""
    if isinstance(term, kernels.Leaf):
        ratios = np.array(term.invariant.weights or (1.0,) * len(weights)) * term.scale / weights
        if np.ptp(ratios) > _TOLERANCE * np.abs(ratios[0]):
            raise NotImplementedError(
                "the derivative of the kernel with respect to a hyperparameter depends on "
                "dimensions in ratios of its own, which only solver='cholesky' can do."
            )
        invariant = replace(term.invariant, weights=None)
        return replace(term, scale=float(ratios[0]), invariant=invariant)
    if isinstance(term, kernels.Sum | kernels.Product):
        return type(term)(_isotropic(term.left, weights), _isotropic(term.right, weights))
    if isinstance(term, kernels.Power):
        return replace(term, base=_isotropic(term.base, weights))
    return term


# ------------------------------------------------------------------------------------------ pieces


def _span(A: np.ndarray, size: float | None = None) -> np.ndarray:
    """Orthonormal basis, as columns, of the span of the rows.

    A coordinate carries a relative error of about one rounding ε. Directions along which all rows
    together extend no further than 4 ε √N times what they do along the first are these errors.

    Parameters
    ----------
    A : ndarray of shape (N, D)
    size : float, default=None
        What the rows extended to along the first direction when they were rounded; None: they have
        not changed since.

    Returns
    -------
    ndarray of shape (D, r)
    """
    if min(A.shape) == 0:
        return np.empty((A.shape[1], 0))
    _, sizes, basis = scipy.linalg.svd(A, full_matrices=False, check_finite=False)
    limit = 4 * np.finfo(np.float64).eps * np.sqrt(len(A)) * (sizes[0] if size is None else size)
    return np.ascontiguousarray(basis[: np.count_nonzero(sizes > limit)].T)


def _block(term: kernels.Term, rows: Functional, cols: Functional) -> np.ndarray:
    """Covariance of two functionals under a tree."""
    d = rows.X.shape[1]
    out = np.empty((rows.size, cols.size))
    program = functionals._compile(term, d, rows, cols, out.dtype)
    functionals._write(program, rows, cols, out, 0, 0, False, False)
    return out


def _jets(
    term: kernels.Term, order: int, kinds: tuple[str, ...], values: np.ndarray
) -> list[np.ndarray]:
    """Derivatives of a tree with respect to its invariants, at `values` of them, (m, ...).

    Shapes (...), (m, ...), (m, m, ...) and so on.
    """
    m, *shape = values.shape
    used = list(dict.fromkeys(leaf.invariant.kind for leaf in kernels.leaves(term)))
    # A tree without leaves is compiled as if it had a squared distance.
    where = [kinds.index(kind) for kind in used] or [0]
    a = np.ascontiguousarray(values.reshape(m, -1)[where])
    flat = _core.jets(kernels.compile_term(term, 1, order), a)
    result, start = [], 0
    for q in range(order + 1):
        part = flat[start : start + len(where) ** q]
        start += len(part)
        full = np.zeros((m,) * q + flat.shape[1:])
        full[np.ix_(*(where,) * q)] = part.reshape((len(where),) * q + flat.shape[1:])
        result.append(full.reshape((m,) * q + tuple(shape)))
    return result


class _Pairs:
    """The invariants of all pairs of two sets of points.

    Parameters
    ----------
    X : ndarray of shape (N, r)
    Y : ndarray of shape (M, r)
    kinds : tuple of str
        The m kinds of invariants, "sqdist" or "dot".

    Attributes
    ----------
    values : ndarray of shape (m, N, M)
    """

    @quietly
    def __init__(self, X: np.ndarray, Y: np.ndarray, kinds: tuple[str, ...]) -> None:
        self.X, self.Y, self.kinds = X, Y, kinds
        self.values = np.empty((len(kinds), len(X), len(Y)))
        for value, kind in zip(self.values, kinds, strict=True):
            if kind == "dot":
                np.matmul(X, Y.T, out=value)
            else:
                for row, x in zip(value, X, strict=True):
                    difference = x - Y
                    np.einsum("ja,ja->j", difference, difference, out=row)

    def jets(self, term: kernels.Term, order: int) -> list[np.ndarray]:
        """Derivatives with respect to the invariants: shapes (N, M), (m, N, M), (m, m, N, M) ..."""
        return _jets(term, order, self.kinds, self.values)

    def across(self, term: kernels.Term) -> np.ndarray:
        """Covariances of derivatives in one direction across the span, of shape (N, M)."""
        return _across(self.kinds, self.jets(term, 1)[1])


def _invariant_slopes(
    X: np.ndarray, Y: np.ndarray, kinds: tuple[str, ...], side: str
) -> np.ndarray:
    """Gradients of the invariants of pairs with respect to x or y, of shape (m, N, M, r)."""
    result = np.empty((len(kinds), len(X), *Y.shape))
    for out, kind in zip(result, kinds, strict=True):
        if kind == "dot":
            out[...] = Y[None] if side == "x" else X[:, None]
        else:
            np.subtract(X[:, None], Y[None], out=out)
            out *= 2.0 if side == "x" else -2.0
    return result


def _across(kinds: tuple[str, ...], first: np.ndarray) -> np.ndarray:
    """Second derivative in one direction across the span, from the first ones in invariants."""
    return np.tensordot([_ACROSS[kind] for kind in kinds], first, 1)


class _Moments:
    """What a contraction Σ W_ij C_ij of covariances needs to know of W, for each pair of points.

    The covariances are those of values and of gradients in the span of N points, and those across
    the span, under any kernel H with the m invariants a_l.

    Parameters
    ----------
    W : ndarray of shape (V + G r, V + G r)
        Of values, then of gradients. C-contiguous, the upper triangle of a symmetric matrix. The
        blocks of gradients with themselves are made symmetric in place.
    pairs : _Pairs
        Of the N points with themselves.
    valued : ndarray of int of shape (V,)
        The points that have a value.
    sloped : ndarray of int of shape (G,)
        The points that have a gradient.
    across : ndarray of shape (G, G)
        The sum of the W of all directions across the span.

    Attributes
    ----------
    of_values : ndarray of shape (N, N)
        The W of two values.
    of_first : ndarray of shape (m, N, N)
        With the moments of second derivatives, `of_second`, of shape (m, m, N, N):
        Σ W C = Σ_ij (of_values H + Σ_l of_first H_l + Σ_lk of_second H_lk).
    """

    def __init__(
        self,
        W: np.ndarray,
        pairs: _Pairs,
        valued: np.ndarray,
        sloped: np.ndarray,
        across: np.ndarray,
    ) -> None:
        (m, n, _), (G, r), V = pairs.values.shape, (len(sloped), pairs.X.shape[1]), len(valued)
        self.valued = np.ix_(valued, valued)
        self.sloped = np.ix_(sloped, sloped)
        self.mixed = np.ix_(sloped, valued)
        self.Z, self.Z_valued, self.Z_sloped = pairs.X, pairs.X[valued], pairs.X[sloped]
        self.of_values = np.zeros((n, n))
        self.of_values[self.valued] = np.triu(W[:V, :V]) + np.triu(W[:V, :V], 1).T
        # W of the gradient of i with the value of j.
        self.with_value = W[:V, V:].reshape(V, G, r).transpose(1, 0, 2)
        self.W = W[V:, V:]
        # W of the gradient of i with that of j, times the gradients of a_l at j.
        self.with_gradient = np.zeros((m, G, G, r))
        gradients_y = _invariant_slopes(self.Z_sloped, self.Z_sloped, pairs.kinds, "y")
        traces = np.zeros((G, G))
        for i in range(G):
            row = self.row(i)
            corner = row[:, 0]
            corner[...] = np.triu(corner) + np.triu(corner, 1).T
            traces[i, i:] = traces[i:, i] = np.einsum("aja->j", row)
            for out, gradient in zip(self.with_gradient, gradients_y, strict=True):
                np.einsum("ajb,jb->ja", row, gradient[i, i:], out=out[i, i:])
                np.einsum("bja,jb->ja", row, gradient[i:, i], out=out[i:, i])
        gradients_x = _invariant_slopes(self.Z_sloped, self.Z_valued, pairs.kinds, "x")
        half = np.einsum("ija,lija->lij", self.with_value, gradients_x)
        self.of_first = np.zeros((m, n, n))
        rows, cols = self.mixed
        self.of_first[:, rows, cols] = half
        self.of_first += self.of_first.transpose(0, 2, 1)
        factors = np.array([_ACROSS[kind] for kind in pairs.kinds])
        rows, cols = self.sloped
        self.of_first[:, rows, cols] += factors[:, None, None] * (traces + across)
        gradients_x = _invariant_slopes(self.Z_sloped, self.Z_sloped, pairs.kinds, "x")
        self.of_second = np.zeros((m, m, n, n))
        self.of_second[:, :, rows, cols] = np.einsum(
            "lija,kija->lkij", gradients_x, self.with_gradient
        )

    def row(self, i: int) -> np.ndarray:
        """The W of the gradient of i with those from i on, of shape (r, G - i, r)."""
        G, r = self.Z_sloped.shape
        return self.W[i * r : (i + 1) * r, i * r :].reshape(r, G - i, r)

    def diagonal_blocks(self) -> np.ndarray:
        """The W of the gradients of points with themselves, of shape (G, r, r)."""
        G, r = self.Z_sloped.shape
        return np.einsum("iaib->iab", self.W.reshape(G, r, G, r)).copy()

    def contract(self, jets: list[np.ndarray]) -> np.ndarray:
        """The terms Σ W C of each pair, (N, N), for a kernel of which the jets are given."""
        result = jets[0] * self.of_values
        result += (jets[1] * self.of_first).sum(axis=0)
        result += (jets[2] * self.of_second).sum(axis=(0, 1))
        return result

    def contract_squares(self, jets: list[np.ndarray]) -> np.ndarray:
        """The (r, r) matrix of all Σ W C in the span for kernels (x_a - y_a)(x_b - y_b) H.

        With q = (x_d - y_d)², and pairs of points counted in both orders,

            Σ W C[q H] = Σ q W C[H] + 4 (x_d - y_d) (W_d0 H + Σ_b W_db ∂H/∂y_b) - 2 W_dd H,

        of which this is the form for all directions d of the span: the caller, who knows what W is
        across the span, completes it.
        """
        Z, contracted = self.Z, self.contract(jets)
        result = 2 * Z.T @ (contracted.sum(axis=1)[:, None] * Z - contracted @ Z)
        (rows, cols), values = self.sloped, jets[0][self.sloped]
        for vectors, Z in (
            (jets[0][self.mixed][..., None] * self.with_value, self.Z_valued),
            (np.einsum("lij,lija->ija", jets[1][:, rows, cols], self.with_gradient), self.Z_sloped),
        ):
            result += 4 * (vectors.sum(axis=1).T @ self.Z_sloped - vectors.sum(axis=0).T @ Z)
        for i, own in enumerate(values):
            twice = own[i:] * np.where(np.arange(len(own) - i) == 0, 1.0, 2.0)
            result -= 2 * np.einsum("j,ajb->ab", twice, self.row(i))
        return 0.5 * (result + result.T)


class _Factor:
    """Cholesky factor of a covariance matrix, in its unit-diagonal form.

    Parameters
    ----------
    C : ndarray of shape (n, n)
        Fortran-contiguous; its lower triangle is read, and replaced by the factor's.
    where : str
        What it is of, for the message if there is no such factor.
    """

    @quietly
    def __init__(self, C: np.ndarray, where: str) -> None:
        diagonal = np.einsum("ii->i", C)
        positive = diagonal > 0
        self.scale = 1 / np.sqrt(diagonal, where=positive, out=np.ones(len(C)))
        C *= self.scale
        C *= self.scale[:, None]
        info = 0 if positive.all() else int(np.argmin(positive)) + 1
        if len(C) and not info:
            info = _linalg.cholesky(C)
        if info:
            raise np.linalg.LinAlgError(
                f"the {info}-th leading minor of the covariance matrix of observations {where} is "
                "not positive definite; alpha or alpha_gradient may be too small."
            )
        self.lower = C

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def log_determinant(self) -> float:
        """Logarithm of the determinant of the matrix."""
        return 2 * float(np.log(np.einsum("ii->i", self.lower)).sum() - np.log(self.scale).sum())

    def half(self, B: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Multiply (n, k) by the inverse of the factor, or of its transpose."""
        if B.size == 0:
            return np.array(B, order="F")
        B = np.array(B, order="F") if transposed else np.asfortranarray(B * self.scale[:, None])
        _linalg.solve_half(self.lower, B, transposed=transposed)
        if transposed:
            B *= self.scale[:, None]
        return B

    def solve(self, B: np.ndarray) -> np.ndarray:
        """Multiply (n, k) by the inverse of the matrix."""
        return self.half(self.half(B), transposed=True)

    def inverse_factor(self) -> np.ndarray:
        """Return the transpose of what `half` multiplies by, C-contiguous, (n, n)."""
        inverse = np.triu(self.lower.T)
        _linalg.invert_triangle(inverse.T)
        inverse *= self.scale[:, None]
        return inverse

    def inverse(self) -> np.ndarray:
        """Return the lower triangle of the inverse of the matrix, Fortran-contiguous."""
        inverse = self.lower.copy(order="F")
        _linalg.invert(inverse)
        inverse *= self.scale
        inverse *= self.scale[:, None]
        return inverse


def _diagonals(Q: np.ndarray, M: np.ndarray) -> np.ndarray:
    """Diagonals of Q M_k Qᵀ for symmetric M, (K, r, r): a product with all pairs of columns."""
    D, r = Q.shape
    left, right = np.triu_indices(r)
    packed = M[:, left, right] * np.where(left == right, 1.0, 2.0)
    out = np.empty((len(M), D))
    # Pairs of so many rows of Q as stay in the cache.
    step = max(16, _CACHED // max(1, len(left)))
    for start in range(0, D, step):
        columns = np.ascontiguousarray(Q[start : start + step].T)
        pairs = columns[left]
        pairs *= columns[right]
        np.matmul(packed, pairs, out=out[:, start : start + step])
    return out


# -------------------------------------------------------------------------------------- the solver


class Rotation:
    """Gaussian process regression on values and gradients at points, by rotation.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        A kernel that is isotropic after scaling.
    observed : list of Functional
        `ValueGradient`, `Gradient` and `Value`, of N points in all. Each entry that a gradient
        lacks, where it does not lack all of them, costs one more row of a dense matrix.
    noise : ndarray of shape (n_obs,)
        Variances of the noise of the entries. Those of a point's gradient are in the ratios of
        1 / length_scale².
    max_condition : float, default=None
        If given, noise is increased where it is so small that the condition number of the matrix
        in unit-diagonal form could be larger than this.

    Raises
    ------
    ValueError
        If `rotation_applies` says why it cannot be done, or if the kernel is too rough.
    LinAlgError
        By the methods: if one of the two matrices is not positive definite, with the rows of
        missing entries in them.
    MemoryError
        By the methods: if the larger of them, or what missing entries take, does not fit.

    Notes
    -----
    Results are those of the covariance matrix with all entries of the gradients that are there in
    part: accurate to a multiple of κ ε, κ the condition number of that matrix in unit-diagonal
    form, ε the machine's. Missing entries have there the noise of the others of their gradient.

    References
    ----------
    F. de Roos, A. Gessner, P. Hennig, "High-dimensional Gaussian process inference with
    derivatives", ICML 2021, for gradients alone.
    """

    @quietly
    def __init__(
        self,
        kernel: Kernel,
        observed: Sequence[Functional],
        noise: np.ndarray,
        max_condition: float | None = None,
    ) -> None:
        reason = rotation_applies(kernel, observed, noise, max_condition)
        if reason is not None:
            raise ValueError(f"solver='rotation' is not exact here: {reason}.")
        self.kernel = kernel
        self._observed = list(observed)
        X, self._known = _table(observed)
        X = X.astype(np.float64, copy=False)
        n, d = X.shape
        # Points with a value, and with a gradient; of which entries are missing.
        self._valued = np.flatnonzero(self._known[:, 0])
        self._sloped = np.flatnonzero(self._known[:, 1:].any(axis=1))
        self._missing = ~self._known[self._sloped, 1:]
        self._filled = [Value(X[self._valued]), Gradient(X[self._sloped])]
        term = kernels.read(kernel, d)
        functionals.check_smooth(kernel, term, self._filled, self._filled)
        weights = _common_weights(term, d)
        assert weights is not None
        self._weights, self._root = weights, np.sqrt(weights)
        self._term = _isotropic(term, weights)
        kinds = dict.fromkeys(leaf.invariant.kind for leaf in kernels.leaves(self._term))
        self._kinds = tuple(kinds) or ("sqdist",)
        if "dot" in kinds:
            self._centre = np.zeros(d)
            U = spanning = X * self._root
        else:
            # A point, as differences of points are exact or nearly so wherever they are.
            distances = np.linalg.norm((X - X.mean(axis=0)) * self._root, axis=1)
            middle = int(np.argmin(distances))
            self._centre = X[middle].copy()
            U = (X - self._centre) * self._root
            spanning = np.delete(U, middle, axis=0)
        self._Q = _span(spanning)
        rank = self._Q.shape[1]
        # How many directions there are across the span.
        self._copies = d - rank
        self._Z = U @ self._Q

        self._pairs = _Pairs(self._Z, self._Z, self._kinds)
        # Of values, and of gradients in u.
        self._value_noise, _, self._slope_noise = _noise_by_point(noise, self._known, weights)
        # What a change of the diagonal changes them by: 0, or the nugget.
        self._value_nugget = np.zeros_like(self._value_noise)
        self._slope_nugget = np.zeros_like(self._slope_noise)
        if max_condition is not None:
            eta = published_nugget(term, n, d, len(noise), max_condition)
            assert eta is not None
            noisy = kernels.with_noise(self._term) or self._term
            slopes = np.einsum("ii->i", self._pairs.across(self._term))
            for variances, nugget, diagonal in (
                (
                    self._value_noise,
                    self._value_nugget,
                    kernels.on_diagonal(noisy, self._Z)[self._valued],
                ),
                (self._slope_noise, self._slope_nugget, slopes[self._sloped]),
            ):
                nugget[variances < eta * diagonal] = eta
                np.maximum(variances, eta * diagonal, out=variances)

    @functools.cached_property
    def _inner(self) -> "_Factor":
        """The system of values, then gradients, along the span."""
        rank, missing = self._Z.shape[1], int(np.count_nonzero(self._missing))
        inside = self._train(0)
        n = sum(f.size for f in inside)
        needed = _size(n, missing)
        if needed > (limit := memory_limit()):
            also = f", and for the {missing} missing entries of gradients" if missing else ""
            where = (
                "for the covariance matrix of values and gradients along the "
                f"{rank} dimensions that the points span{also}"
            )
            advice = "Take fewer points, or gradients at fewer of them."
            raise too_large("solver='rotation'", needed, limit, advice, where)
        # Zeros above the diagonal: what NumPy multiplies there by the way is not to be garbage.
        C = np.zeros((n, n), order="F")
        start = 0
        for i, rows in enumerate(inside):
            column = start
            for cols in inside[i:]:
                if rows.size and cols.size:
                    program = functionals._compile(self._term, rank, rows, cols, C.dtype)
                    functionals._write(program, rows, cols, C.T, start, column, cols is rows, False)
                column += cols.size
            start += rows.size
        functionals._add_noise(self._term, inside[0], C, 0, C.dtype)
        check_finite(C, self.kernel, self._observed)
        diagonal = np.einsum("ii->i", C)
        diagonal += np.concatenate((self._value_noise, np.repeat(self._slope_noise, rank)))
        return _Factor(C, f"along the span of the points{self._with_missing}")

    @functools.cached_property
    def _outer(self) -> "_Factor | None":
        """The systems of gradients across the span, all the same, or None if there are none."""
        if not self._copies:
            return None
        Z = self._Z[self._sloped]
        C = np.asfortranarray(_Pairs(Z, Z, self._kinds).across(self._term))
        check_finite(C, self.kernel, self._observed)
        np.einsum("ii->i", C)[...] += self._slope_noise
        return _Factor(C, f"across the span of the points{self._with_missing}")

    @property
    def _with_missing(self) -> str:
        """What to say of a matrix that is not that of the observations alone."""
        if not self._missing.any():
            return ""
        return " (with entries of gradients that are missing, which solver='cholesky' leaves out)"

    def _train(self, extra: int) -> list[Functional]:
        """What is observed along the span, in a basis with more directions than that."""
        Z = np.hstack((self._Z, np.zeros((len(self._Z), extra))))
        return [Value(Z[self._valued]), Gradient(Z[self._sloped])]

    # ---- weights and likelihood

    def _parts(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (V, ...), and gradients (G, r, ...), of what is along the span, values first."""
        V, G = len(self._valued), len(self._sloped)
        return along[:V], along[V:].reshape(G, self._Q.shape[1], *along.shape[1:])

    def _split(self, values: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (V, T) and gradients in u, (G, D, T): along the span, and across, (G, D, T)."""
        along = self._Q.T @ slopes
        across = slopes - self._Q @ along
        return np.concatenate((values, along.reshape(-1, values.shape[1]))), across

    def _solve(self, along: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the same shapes."""
        inner = self._inner.solve(along)
        if self._outer is None:
            return inner, np.zeros_like(across)
        flat = across.reshape(len(across), -1)
        return inner, self._outer.solve(flat).reshape(across.shape)

    def _slopes(self, inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
        """Weights of gradients in u, (G, D, T), from those along and across the span."""
        return outer + self._Q @ self._parts(inner)[1]

    def _targets(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations along and across the span, missing entries filled in."""
        table = np.zeros((*self._known.shape, targets.shape[1]))
        table[self._known] = targets
        values, slopes = table[self._valued, 0], table[self._sloped, 1:] / self._root[:, None]
        if self._removed is not None:
            # Twice: the weights that belong to zeros are much larger than those in the end, and so
            # are their errors.
            for _ in range(2):
                weights = self._slopes(*self._solve(*self._split(values, slopes)))
                slopes[self._missing] -= self._removed.solve(weights[self._missing])
        return self._split(values, slopes)

    @functools.cached_property
    def _removed(self) -> "_Factor | None":
        """The block [C⁻¹]_SS of missing entries, in units of u, or None if there are none."""
        point, column = np.nonzero(self._missing)
        if not len(point):
            return None
        # Its part along the span: the squares of the columns of L⁻¹.
        k, rank = len(point), self._Q.shape[1]
        units = np.zeros((k, len(self._inner)))
        of_slopes = units[:, len(self._valued) :].reshape(k, len(self._sloped), rank)
        of_slopes[np.arange(k), point] = self._Q[column]
        M = np.zeros((k, k), order="F")
        _linalg.add_gram(1.0, self._inner.half(units.T).T, M)
        if self._outer is not None:
            inverse = self._outer.inverse()
            inverse = np.tril(inverse) + np.tril(inverse, -1).T
            step = max(1, _PIECE // k)
            for start in range(0, k, step):
                part = slice(start, start + step)
                across = -self._Q[column] @ self._Q[column[part]].T
                across += column[:, None] == column[part]
                M[:, part] += inverse[np.ix_(point, point[part])] * across
        return _Factor(M, f"of gradients{self._with_missing}")

    def _removals(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield columns of B, the inverse being C⁻¹ - B Bᵀ: along the span, and across."""
        if self._removed is None:
            return
        k = len(self._removed)
        step = max(1, _PIECE // self._missing.size)
        for start in range(0, k, step):
            unit = np.eye(k, min(step, k - start), -start)
            slopes = np.zeros((*self._missing.shape, unit.shape[1]))
            slopes[self._missing] = self._removed.half(unit, transposed=True)
            values = np.zeros((len(self._valued), unit.shape[1]))
            yield self._solve(*self._split(values, slopes))

    def solve(self, targets: np.ndarray) -> np.ndarray:
        """Multiply by the inverse of the covariance matrix of the observations.

        Parameters
        ----------
        targets : ndarray of shape (n_obs, T)

        Returns
        -------
        weights : ndarray of shape (n_obs, T)
        """
        inner, outer = self._solve(*self._targets(targets))
        table = np.zeros((*self._known.shape, targets.shape[1]))
        table[self._valued, 0] = self._parts(inner)[0]
        table[self._sloped, 1:] = self._slopes(inner, outer) / self._root[:, None]
        return table[self._known]

    @quietly
    def likelihood(self, targets: np.ndarray, eval_gradient: bool = False) -> Any:
        """Log-marginal likelihood, summed over targets.

        Parameters
        ----------
        targets : ndarray of shape (n_obs, T)
        eval_gradient : bool, default=False

        Returns
        -------
        likelihood : float
        theta_gradient : ndarray of shape (n_theta,)
            With respect to ``kernel.theta``, `noise` being constant. Only if `eval_gradient`.
        noise_gradient : ndarray of shape (n_obs,)
            With respect to `noise`. Only if `eval_gradient`.
        """
        along, across = self._targets(targets)
        inner, outer = self._solve(along, across)
        log_determinant = self._inner.log_determinant
        if self._outer is not None:
            log_determinant += self._copies * self._outer.log_determinant
        if self._removed is not None:
            log_determinant += self._removed.log_determinant
        log_determinant += float(np.log(self._weights) @ self._known[:, 1:].sum(axis=0))
        fit = float(np.vdot(along, inner) + np.vdot(across, outer))
        constant = len(targets) * np.log(2 * np.pi)
        likelihood = -0.5 * (fit + targets.shape[1] * (log_determinant + constant))
        if not eval_gradient:
            return likelihood
        return likelihood, *self._likelihood_gradient(inner, outer)

    def _likelihood_gradient(
        self, inner: np.ndarray, outer: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of the likelihood Σ W_ij dC_ij, with 2 W = Σ_t α αᵀ - T (C⁻¹ - B Bᵀ)."""
        Q, T = self._Q, inner.shape[1]
        valued, sloped = self._valued, self._sloped
        identity = np.eye(Q.shape[1])
        derivatives = []
        for derivative in kernels.theta_derivatives(self.kernel, len(Q)):
            term = _isotropic(derivative.term, self._weights)
            derivatives.append((derivative, term, self._pairs.jets(term, 2), np.zeros(len(Q))))

        W = self._inner.inverse()
        W *= -0.5 * T
        # Across the span: C⁻¹ is the same for all directions, α αᵀ is not.
        each = np.zeros((len(sloped),) * 2)
        if self._outer is not None:
            each = np.tril(self._outer.inverse()) * (-0.5 * T)
            each += np.tril(each, -1).T
        trace = self._copies * each
        of_slopes = np.zeros((len(sloped), len(Q)))
        removals = ((T**0.5 * along, T**0.5 * across) for along, across in self._removals())
        for along, across in itertools.chain([(inner, outer)], removals):
            _linalg.add_gram(0.5, along, W)
            trace += 0.5 * np.tensordot(across, across, ((1, 2), (1, 2)))
            in_span = Q @ self._parts(along)[1]
            of_slopes += np.einsum("idt,idt->id", across, in_span + 0.5 * across)
            for derivative, _, jets, squares in derivatives:
                if derivative.dims is not None and self._copies:
                    squares += self._contract_across(jets, along, across)
        moments = _Moments(W.T, self._pairs, valued, sloped, trace)

        itself = np.einsum("ii->i", each)
        of_values = np.einsum("ii->i", moments.of_values)[valued]
        of_slopes += _diagonals(Q, moments.diagonal_blocks() - itself[:, None, None] * identity)
        of_slopes += itself[:, None]
        by_entry = np.zeros(self._known.shape)
        by_entry[valued, 0] = np.where(self._value_nugget > 0, 0.0, of_values)
        by_entry[sloped, 1:] = of_slopes / self._weights
        by_entry[sloped[self._slope_nugget > 0], 1:] = 0.0
        # What the nuggets change by.
        of_slopes *= self._slope_nugget[:, None]

        theta = np.zeros(len(self.kernel.theta))
        for derivative, term, jets, squares in derivatives:
            diagonal = np.einsum("ii->i", jets[0])
            if derivative.dims is None:
                total = moments.contract(jets).sum()
                values = diagonal[valued]
                noise = kernels.noise_on_diagonal(term, self._Z)[valued]
                total += noise @ of_values
                values = values + noise
                total += (values * self._value_nugget) @ of_values
                slopes = np.einsum("ii->i", _across(self._kinds, jets[1]))[sloped]
                total += slopes @ of_slopes.sum(axis=1)
                theta[derivative.first] = total
                continue
            # dk/dθ_d = -2 q_d H, with q_d a multiple of the squared difference in u_d.
            constant = -2 * float(np.vdot(jets[0][moments.sloped], each))
            R = moments.contract_squares(jets) - constant * identity
            contracted = squares + _diagonals(Q, R[None])[0] + constant
            contracted -= 2 * diagonal[sloped] @ of_slopes
            dims = list(derivative.dims)
            ratio = np.array(derivative.weights)[dims] / self._weights[dims]
            where = slice(derivative.first, derivative.first + len(dims))
            theta[where] = -2 * ratio * contracted[dims]
        return theta, by_entry[self._known]

    def _contract_across(
        self, jets: list[np.ndarray], inner: np.ndarray, outer: np.ndarray
    ) -> np.ndarray:
        """What the weights across the span add to `_Moments.contract_squares`, (D,)."""
        sloped: Any = np.ix_(self._sloped, self._sloped)
        values = jets[0][self._sloped]
        Z, Z_valued = self._Z[self._sloped], self._Z[self._valued]
        of_values, of_slopes = self._parts(inner)
        # Σ_j w_ij (z_i - z_j), w_ij the weighted covariance of the value at i and all of point j.
        mixed = values[:, self._valued]
        shift = (mixed @ of_values)[:, None] * Z[..., None]
        shift -= np.tensordot(mixed, Z_valued[..., None] * of_values[:, None], 1)
        gradients = _invariant_slopes(Z, Z, self._kinds, "y")
        gradients = np.einsum("lij,lijb->jib", jets[1][:, *sloped], gradients)
        weighted = gradients @ of_slopes
        shift += weighted.sum(axis=0)[:, None] * Z[..., None]
        shift -= np.einsum("jit,jr->irt", weighted, Z)
        result = 2 * np.einsum("dr,dr->d", np.tensordot(outer, shift, ((0, 2), (0, 2))), self._Q)
        both = np.tensordot(values[:, self._sloped], outer + 2 * (self._Q @ of_slopes), 1)
        return result - np.einsum("idt,idt->d", outer, both)

    # ---- predictions

    def mean(self, wanted: Functional | Sequence[Functional], weights: np.ndarray) -> np.ndarray:
        """Posterior mean.

        Parameters
        ----------
        wanted : Functional or list of Functional
        weights : ndarray of shape (n_obs, T)
            What `solve` gave.

        Returns
        -------
        ndarray of shape (n, T)
        """
        return operators.CovarianceOperator(self.kernel, wanted, self._observed) @ weights

    @quietly
    def covariance(
        self, wanted: Functional | Sequence[Functional], diagonal: bool = False
    ) -> np.ndarray:
        """Posterior covariance, without noise.

        Parameters
        ----------
        wanted : Functional or list of Functional
            With r dimensions that the N points span, the variances of a gradient cost
            O(N² r² + D r²), that of a value or a directional derivative O(N² r² + D r); of an entry
            of a Hessian matrix, or a Laplacian, O(N² (r² + D)).
        diagonal : bool, default=False
            Whether to return the diagonal only.

        Returns
        -------
        ndarray of shape (n, n), or (n,) if `diagonal`
        """
        items = [_double(f) for f in check_functionals(wanted, "functionals")]
        cheap = [type(f) in (Value, Gradient, ValueGradient, Directional) for f in items]
        if diagonal:
            result = np.concatenate(
                [
                    self._variances(f) if easy else self._variances_by_rows(f)
                    for f, easy in zip(items, cheap, strict=True)
                ]
            )
        else:
            size = sum(f.size for f in items)
            check_fits((size, size), np.dtype(np.float64))
            result = self._joint(items) if all(cheap) else self._joint_by_rows(items)
        if self._removed is not None:
            operator = operators.CovarianceOperator(self.kernel, items, self._filled)
            for inner, outer in self._removals():
                slopes = self._slopes(inner, outer) / self._root[:, None]
                values = self._parts(inner)[0]
                unknown = operator @ np.concatenate((values, slopes.reshape(-1, values.shape[1])))
                result += np.square(unknown).sum(axis=1) if diagonal else unknown @ unknown.T
        check_finite(result, self.kernel, items)
        return result

    def _locate(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates in the span, and what is left across it, of points."""
        return self._project((X - self._centre) * self._root)

    def _project(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        along = U @ self._Q
        across = U - along @ self._Q.T
        # Once more: what is left is then orthogonal in comparison with its own length.
        more = across @ self._Q
        across -= more @ self._Q.T
        return along + more, across if self._copies else np.zeros_like(across)

    def _explained(self, rows: Functional, extra: int) -> tuple[np.ndarray, np.ndarray]:
        """L⁻¹ C for the two factors, of functionals of points in r + `extra` dimensions."""
        rank, G = self._Z.shape[1], len(self._sloped)
        values, slopes = (_block(self._term, rows, part) for part in self._train(extra))
        slopes = slopes.reshape(rows.size, G, rank + extra)
        inner = np.hstack((values, slopes[..., :rank].reshape(rows.size, G * rank)))
        inner = self._inner.half(inner.T)
        if self._outer is None:
            return inner, np.empty((0, rows.size))
        outer = slopes[..., rank:].transpose(1, 2, 0)
        outer = self._outer.half(outer.reshape(G, extra * rows.size))
        return inner, outer.reshape(G * extra, rows.size)

    def _beyond(self, Z: np.ndarray) -> np.ndarray:
        """L⁻¹ C, (G, Q), of derivatives in a direction across the span of all points there are."""
        assert self._outer is not None
        train = self._train(Z.shape[1] - self._Z.shape[1])[1].X
        return self._outer.half(_Pairs(train, Z, self._kinds).across(self._term))

    def _variances(self, f: Functional) -> np.ndarray:
        """Variances of values, gradients or directional derivatives."""
        n, rank = self._Z.shape
        per_point = max(len(self._inner), n * (rank + 2))
        if f._parts & 2:
            per_point += len(self._inner) * (n + 2 * rank + 2)
        step = max(1, _PIECE // (per_point + len(self._Q)))
        out = np.empty(f.shape)
        for start in range(0, len(f.X), step):
            part = slice(start, start + step)
            out[part] = self._variances_of(_whole(part_of(f, part)))
        return out.ravel() if f.mask is None else out[f.mask]

    def _variances_of(self, f: Functional) -> np.ndarray:
        """Variances of all entries of a functional at some points, (Q, ...)."""
        Q, rank = self._Q, self._Q.shape[1]
        extra = int(self._copies > 0)
        # Each point in a basis of its own: of the span, its direction across that, and the rest.
        z, across = self._locate(f.X)
        length = np.linalg.norm(across, axis=1)
        across /= np.where(length > 0, length, 1)[:, None]
        Z = np.hstack((z, length[:, None])) if extra else z
        # Where a point meets itself: the variance of its value, and a I + b z zᵀ of its gradient.
        squared = np.einsum("qa,qa->q", Z, Z)
        itself = np.array([squared if kind == "dot" else 0 * squared for kind in self._kinds])
        jets = _jets(self._term, 2, self._kinds, itself)
        a = _across(self._kinds, jets[1])
        dot = [kind == "dot" for kind in self._kinds]
        b = jets[2][dot][:, dot].sum(axis=(0, 1))
        rest = a - (np.square(self._beyond(Z)).sum(axis=0) if extra else a)

        if isinstance(f, Directional):
            v, v_across = self._project(f.V * self._root)
            if extra:
                v_own = np.einsum("qd,qd->q", v_across, across)
                v_across -= v_own[:, None] * across
                v = np.hstack((v, v_own[:, None]))
            rows: Functional = Directional(Z, v)
            prior = a * np.einsum("qa,qa->q", v, v) + b * np.einsum("qa,qa->q", v, Z) ** 2
            prior += rest * np.einsum("qd,qd->q", v_across, v_across)
            return prior - sum(np.square(part).sum(axis=0) for part in self._explained(rows, extra))
        if isinstance(f, Value):
            explained = self._explained(Value(Z), extra)
            return jets[0] - sum(np.square(part).sum(axis=0) for part in explained)

        first = f.shape[1] - len(Q)
        out = np.empty(f.shape)
        if first:
            explained = self._explained(Value(Z), extra)
            out[:, 0] = jets[0] - sum(np.square(part).sum(axis=0) for part in explained)
        S = b[:, None, None] * Z[:, :, None] * Z[:, None]
        S += (a - rest)[:, None, None] * np.eye(Z.shape[1])
        for part in self._explained_gradients(Z, extra):
            S -= part @ part.transpose(0, 2, 1)
        out[:, first:] = _diagonals(Q, S[:, :rank, :rank])
        out[:, first:] += rest[:, None]
        if extra:
            out[:, first:] += 2 * across * (S[:, :rank, rank] @ Q.T)
            out[:, first:] += S[:, rank, rank, None] * np.square(across)
        out[:, first:] *= self._weights
        return out

    def _explained_gradients(self, Z: np.ndarray, extra: int) -> list[np.ndarray]:
        """L⁻¹ C, as `_explained`, of gradients: (Q, r + extra, V + G r) and with G.

        The covariance of ∂f/∂x_a with the observations of a point is Σ_l (∂a_l/∂x_a) e_l, and
        Σ_l F_l c_l with its own partial derivative ∂/∂y_a. So L⁻¹ meets but m vectors of each pair
        of points, and not one of each entry of a gradient.
        """
        n, rank = self._Z.shape
        valued, sloped = self._valued, self._sloped
        train = np.hstack((self._Z, np.zeros((n, extra))))
        _, first, second = _Pairs(Z, train, self._kinds).jets(self._term, 2)
        own = _across(self._kinds, first[..., sloped])
        gradients_x = _invariant_slopes(Z, train, self._kinds, "x")
        gradients_y = _invariant_slopes(Z, train[sloped], self._kinds, "y")
        chained = np.einsum("lkqj,kqjb->lqjb", second[..., sloped], gradients_y)
        of_values, of_slopes = self._parts(self._inverse_factor)
        size = len(self._inverse_factor)
        inner = np.zeros((len(Z), rank + extra, size))
        by_entry = own @ of_slopes.reshape(len(sloped), rank * size)
        inner[:, :rank] = by_entry.reshape(len(Z), rank, size)
        for gradient, slope, others in zip(gradients_x, first, chained, strict=True):
            solved = np.zeros((n, len(Z), size))
            solved[sloped] = others[..., :rank].transpose(1, 0, 2) @ of_slopes
            solved[valued] += slope.T[valued, :, None] * of_values[:, None]
            inner += gradient.transpose(0, 2, 1) @ solved.transpose(1, 0, 2)
        if self._outer is None:
            return [inner]
        C = np.einsum("lqja,lqj->jqa", gradients_x[:, :, sloped], chained[..., rank])
        C[..., rank] += own.T
        outer = self._outer.half(C.reshape(len(sloped), -1)).reshape(C.shape)
        return [inner, outer.transpose(1, 2, 0)]

    @functools.cached_property
    def _inverse_factor(self) -> np.ndarray:
        """The transpose of L⁻¹ of the span."""
        return self._inner.inverse_factor()

    def _joint(self, items: list[Functional]) -> np.ndarray:
        """Covariances of values, gradients and directional derivatives."""
        located = [self._locate(f.X) for f in items]
        directions = [None if f.V is None else self._project(f.V * self._root) for f in items]
        # One basis for all: of the span, then of all that is across it.
        across = [
            vectors[1] / np.where(size > 0, size, 1)[:, None]
            for vectors in (*located, *directions)
            if vectors is not None
            for size in [np.linalg.norm(np.hstack(vectors), axis=1)]
        ]
        E = _span(np.concatenate(across), 1.0)[:, : self._copies]
        E = np.linalg.qr(E - self._Q @ (self._Q.T @ E))[0]
        extra = E.shape[1]
        basis = np.hstack((self._Q, E)) * self._root[:, None]
        points = [np.hstack((along, rest @ E)) for along, rest in located]
        small: list[Functional] = [
            type(f)(Z)
            if vectors is None
            else Directional(Z, np.hstack((vectors[0], vectors[1] @ E)))
            for f, Z, vectors in zip(items, points, directions, strict=True)
        ]

        ends = np.cumsum([f.size for f in small])
        parts = [slice(end - f.size, end) for f, end in zip(small, ends, strict=True)]
        S = np.empty((ends[-1], ends[-1]))
        for f, rows in zip(small, parts, strict=True):
            for g, cols in zip(small, parts, strict=True):
                S[rows, cols] = _block(self._term, f, g)
        explained = [self._explained(f, extra) for f in small]
        for half in zip(*explained, strict=True):
            stacked = np.hstack(half)
            S -= stacked.T @ stacked

        # What gradients share along all directions that are beyond the basis.
        rest = np.zeros((sum(map(len, points)),) * 2)
        if extra < self._copies:
            Z = np.concatenate(points)
            rest = _Pairs(Z, Z, self._kinds).across(self._term)
            half = self._beyond(Z)
            rest -= half.T @ half
        ends = np.cumsum([len(Z) for Z in points])
        numbers = [np.arange(end - len(Z), end) for Z, end in zip(points, ends, strict=True)]
        gradients = [i for i, f in enumerate(items) if f._parts & 2]
        for i, j in itertools.product(gradients, repeat=2):
            block = S[parts[i], parts[j]].reshape(*small[i].shape, *small[j].shape)
            (_, height), (_, width) = small[i].shape, small[j].shape
            of_gradients = block[:, height - basis.shape[1] :, :, width - basis.shape[1] :]
            of_same = np.einsum("qaka->qka", of_gradients)
            of_same -= rest[np.ix_(numbers[i], numbers[j])][..., None]

        # First the rows in all directions, then the columns.
        for _ in range(2):
            wide = np.empty((sum(f.size for f in items), S.shape[1]))
            start = 0
            for f, rows in zip(items, parts, strict=True):
                _expand(f, basis, S[rows], wide[start : start + f.size])
                start += f.size
            S = wide.T
        if extra < self._copies:
            self._add_beyond(S, rest, items, numbers)
        return S

    def _add_beyond(
        self,
        C: np.ndarray,
        rest: np.ndarray,
        items: list[Functional],
        numbers: list[np.ndarray],
    ) -> None:
        """Add `rest`, of pairs of points, where two gradients have the same entry."""
        d = len(self._Q)
        where, point, entry = [], [], []
        start = 0
        for f, own in zip(items, numbers, strict=True):
            if f._parts & 2:
                first = f.shape[1] - d
                row, column = np.nonzero(_kept(f))
                wanted = column >= first
                where.append(start + np.flatnonzero(wanted))
                point.append(own[row[wanted]])
                entry.append(column[wanted] - first)
            start += f.size
        if not where:
            return
        at, of, entries = map(np.concatenate, (where, point, entry))
        order = np.argsort(entries, kind="stable")
        limits = np.searchsorted(entries[order], np.arange(d + 1))
        for a, (start, end) in enumerate(itertools.pairwise(limits)):
            chosen = order[start:end]
            C[np.ix_(at[chosen], at[chosen])] += (
                self._weights[a] * rest[np.ix_(of[chosen], of[chosen])]
            )

    def _rows(self, f: Functional) -> tuple[np.ndarray, np.ndarray]:
        """Covariances of any functional with observations: L⁻¹ C in the span, C across it.

        Shapes (V + G r, n) and (n, G, D).
        """
        C = covariance(self.kernel, f, self._filled)
        values, slopes = np.split(C, [len(self._valued)], axis=1)
        across = slopes.reshape(f.size, *self._missing.shape) / self._root
        along = across @ self._Q
        across -= along @ self._Q.T
        rows = np.hstack((values, along.reshape(f.size, len(self._inner) - len(self._valued))))
        return self._inner.half(rows.T), across

    def _variances_by_rows(self, f: Functional) -> np.ndarray:
        n, d = self._missing.shape
        step = max(1, _PIECE // (n * d * int(np.prod(f.shape[1:]))))
        out = [np.empty(0)]
        for start in range(0, len(f.X), step):
            part = part_of(f, slice(start, start + step))
            variances = operators.CovarianceOperator(self.kernel, part).diagonal()
            inner, across = self._rows(part)
            variances -= np.square(inner).sum(axis=0)
            if self._outer is not None:
                outer = self._outer.half(across.transpose(1, 0, 2).reshape(n, -1))
                variances -= np.square(outer).sum(axis=0).reshape(-1, d).sum(axis=1)
            out.append(variances)
        return np.concatenate(out)

    def _joint_by_rows(self, items: list[Functional]) -> np.ndarray:
        n, d = self._missing.shape
        out = covariance(self.kernel, items, items)
        rows = [self._rows(f) for f in items]
        inner = np.hstack([part for part, _ in rows])
        out -= inner.T @ inner
        if self._outer is not None and len(out):
            across = np.concatenate([part for _, part in rows])
            step = max(1, _PIECE // (n * len(across)))
            for start in range(0, d, step):
                part = across[..., start : start + step].transpose(1, 2, 0)
                half = self._outer.half(part.reshape(n, -1)).reshape(-1, len(across))
                out -= half.T @ half
        return out


def _double(f: Functional) -> Functional:
    """The functional at points in float64."""
    return f if f.X.dtype == np.float64 else moved(f, f.X.astype(np.float64))


def _whole(f: Functional) -> Functional:
    """The functional without its mask."""
    return f if f.mask is None else type(f)(f.X)


def _kept(f: Functional) -> np.ndarray:
    return np.ones(f.shape, dtype=bool) if f.mask is None else f.mask


def _expand(f: Functional, basis: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Turn rows of gradients in a basis of few directions into those in all, (f.size, c)."""
    if not f._parts & 2:
        out[...] = rows
        return
    first = f.shape[1] - len(basis)
    by_point = rows.reshape(len(f.X), first + basis.shape[1], rows.shape[1])
    start = 0
    for entries, kept in zip(by_point, _kept(f), strict=True):
        values = entries[:first][kept[:first]]
        middle = start + len(values)
        out[start:middle] = values
        start = middle + int(np.count_nonzero(kept[first:]))
        np.matmul(basis[kept[first:]], entries[first:], out=out[middle:start])
