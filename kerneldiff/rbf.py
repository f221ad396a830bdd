"""SciPy's radial basis function interpolation, evaluated here, with derivatives.

SciPy checks what comes in and makes the linear system of all points; it is solved here, by the same
routine of LAPACK's, so that its condition can be looked at.  What comes out is a sum of radial
functions at centers, which is an expansion in one of the kernels of ``src/jets.h``, and a
polynomial.  Derivatives of the polynomial are polynomials again.  A kernel that SciPy has and this
module has not is SciPy's to fit and evaluate.

With `neighbors`, each point has a small system of its own.  These are made and solved many at a
time, as a call of LAPACK's by way of Python takes longer than such a system does.

Systems that are singular to working precision are solved by LAPACK without a word, and what comes
out may be wrong in every digit.  So each is solved for two random right-hand sides as well: these
say how large its inverse is, and in which direction.
"""

import inspect
import math
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import scipy.interpolate
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgWarning
from scipy.linalg.lapack import dgesv, dgetrs

from kerneldiff import _core, kernels
from kerneldiff._linalg import blas_threads, blas_threads_of
from kerneldiff._validation import (
    check_names,
    column_names,
    counted,
    memory_limit,
    too_large,
    unmasked,
)
from kerneldiff.functionals import (
    Functional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
)
from kerneldiff.operators import _point_panels, _vector_panels

try:
    from scipy.interpolate._rbfinterp_pythran import _build_system  # type: ignore[attr-defined]
except ImportError:  # SciPy's own business, it may be gone one day
    _build_system = None

# Names of SciPy's: the jet, and the power of r that makes the function rough where r is 0:
# derivatives of lower order exist there.
_RADIAL = {
    "linear": ("radial_linear", 1),
    "thin_plate_spline": ("thin_plate_spline", 2),
    "cubic": ("cubic", 3),
    "quintic": ("quintic", 5),
    "multiquadric": ("multiquadric", math.inf),
    "inverse_multiquadric": ("inverse_multiquadric", math.inf),
    "inverse_quadratic": ("inverse_quadratic", math.inf),
    "gaussian": ("gaussian", math.inf),
}

# Numbers of results, and of what is needed for them, that are made at a time.
_PIECE = 2**22
# The same where arrays of small problems go through NumPy: they stay in the cache.
_BATCH = 2**16
# A group of points with the same neighbors is a sum of its own if it has so many pairs.
_LARGE = 2**13
# Coordinates that a piece of points may be compared with in the tree of centers: some 50 ms if the
# tree saves nothing.
_VISITS = 2**25

EPS = float(np.finfo(np.float64).eps)

Kind = type[Functional]


def _size(kind: Kind, d: int) -> int:
    """Components of a functional at a point."""
    parts = kind._parts
    return (parts & 1) + (d if parts & 2 else 0) + (d * d if parts & 4 else 0)


def _check_system(points: int, monomials: int) -> None:
    n_bytes = 8.0 * (points + monomials) ** 2
    if n_bytes > (limit := memory_limit()):
        what = (
            f"the linear system of {counted(points, 'point')} and {counted(monomials, 'monomial')}"
        )
        raise too_large(
            what, n_bytes, limit, "Give `neighbors` to use only so many points at a time."
        )


class _Radial:
    """A radial function, with derivatives.

    SciPy multiplies points by epsilon before it subtracts them, and rounds.  So it is done here,
    too: where points are far from the origin the same function has to be evaluated that the data
    were fitted with.  Only not where derivatives can depend on the direction of a difference that
    is tiny: there, points are multiplied by a power of two, and the rest goes into the function.
    """

    def __init__(self, name: str, epsilon: float) -> None:
        jet, self.smoothness = _RADIAL[name]
        self.unit, scale = epsilon, 1.0
        if self.smoothness <= 2 and epsilon != 0:
            mantissa, exponent = math.frexp(epsilon)
            self.unit, scale = math.ldexp(0.5, exponent), (2 * mantissa) ** 2
        # The core, which does not know of weights that are zero, is not to mark anything.
        self.leaf = kernels.Leaf(jet, kernels.Invariant("sqdist"), scale)

    def program(self, kind: Kind, d: int) -> Any:
        order = kind._order if kind._applied is None else 0
        return kernels.compile_term(self.leaf, d, order, kind._applied)

    def jets(self, s: np.ndarray, order: int) -> np.ndarray:
        """Derivatives by squared distances, (order + 1, *shape)."""
        program = kernels.compile_term(self.leaf, 1, order)
        flat = _core.jets(program, np.ascontiguousarray(s).reshape(1, -1))
        return flat.reshape(order + 1, *s.shape)

    def missing(self, kind: Kind) -> bool:
        """Whether there is no derivative at centers."""
        return kind._order >= self.smoothness


class _Monomials:
    """Monomials of x, and derivatives of their sums as sums of monomials again."""

    def __init__(self, powers: np.ndarray) -> None:
        self.powers = powers
        numbers = {tuple(row): j for j, row in enumerate(powers.tolist())}
        # For each, its number with one power less of a variable.
        self.lower = np.full(powers.T.shape, -1)
        for row, j in numbers.items():
            for a, power in enumerate(row):
                if power:
                    self.lower[a, j] = numbers[(*row[:a], power - 1, *row[a + 1 :])]
        # The variable that makes each of one that stands before it.
        self.last = [next((a for a, p in enumerate(row) if p), 0) for row in numbers]

    def values(self, x: np.ndarray, count: int) -> np.ndarray:
        """The first of them at points (..., D), (count, ...)."""
        result = np.empty((count, *x.shape[:-1]))
        for j, a in enumerate(self.last[:count]):
            if j == 0:
                result[j] = 1.0
            else:
                np.multiply(result[self.lower[a, j]], x[..., a], out=result[j])
        return result

    def derivative(self, b: np.ndarray, a: int) -> np.ndarray:
        """Coefficients (..., R, S) of the derivative of a sum by a variable."""
        found = np.nonzero(self.powers[:, a])[0]
        result = np.zeros_like(b)
        result[..., self.lower[a, found], :] = b[..., found, :] * self.powers[found, a, None]
        return result

    def coefficients(self, kind: Kind, b: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Coefficients of a functional, (..., R', S, components), of a sum in x / scale (..., D).

        R' is the number of monomials that are left.
        """
        degrees = self.powers.sum(axis=1)
        left = int(np.searchsorted(degrees, degrees.max(initial=-1) - kind._order, "right"))
        d = self.powers.shape[1]
        if kind is Value or left == 0:
            return b[..., :left, :, None]
        scale = scale[..., None, None, :]
        first = [self.derivative(b, a)[..., :left, :] for a in range(d)]
        if kind is Gradient:
            return np.stack(first, axis=-1) / scale
        if kind is Laplacian:
            second = [self.derivative(self.derivative(b, a), a) for a in range(d)]
            return np.sum(np.stack(second, axis=-1)[..., :left, :, :] / scale**2, -1, keepdims=True)
        result = np.empty((*first[0].shape, d, d))
        for a in range(d):
            for c in range(a, d):
                second_ac = self.derivative(self.derivative(b, a), c)[..., :left, :]
                result[..., a, c] = second_ac / (scale[..., a] * scale[..., c])
                result[..., c, a] = result[..., a, c]
        return result.reshape(*first[0].shape, d * d)


def _keys(points: np.ndarray) -> np.ndarray:
    """Numbers that are the same for the same points, and rarely for others."""
    bits = (points + 0.0).view(np.uint64)  # without signs of zeros
    bits ^= bits >> np.uint64(29)
    odd = np.arange(1, 2 * points.shape[1], 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (bits * odd).sum(axis=1, dtype=np.uint64)


class _Sum:
    """A sum of radial functions at centers, and of a polynomial.

    Parameters
    ----------
    radial : _Radial
    monomials : _Monomials
    y : ndarray of shape (P, D)
        The centers.
    coeffs : ndarray of shape (P + R, S)
        Of the radial functions, then of the monomials.
    shift, scale : ndarray of shape (D,)
        The monomials are of (x - shift) / scale.
    """

    def __init__(
        self,
        radial: _Radial,
        monomials: _Monomials,
        y: np.ndarray,
        coeffs: np.ndarray,
        shift: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        self.radial, self.monomials = radial, monomials
        self.y, self.shift, self.scale = y, shift, scale
        self.a, self.b = coeffs[: len(y)], coeffs[len(y) :]
        panels = _point_panels(y * radial.unit)
        self.side = _core.Side(panels, panels, len(y), Value._parts)
        self.vectors = _vector_panels(self.a, len(y), 1)
        self.of_monomials: dict[Kind, np.ndarray] = {}

    def __call__(self, kind: Kind, x: np.ndarray) -> np.ndarray:
        """Evaluate at points (Q, D): (Q, S, components)."""
        size = self.a.shape[1] * _size(kind, x.shape[1])
        out = np.empty((len(x), self.a.shape[1], _size(kind, x.shape[1])))
        if not size:
            return out  # the core takes at least one vector
        step = max(256, _PIECE // (x.shape[1] + len(self.b) + size))
        for start in range(0, len(x), step):
            piece = slice(start, start + step)
            self._radial_part(kind, x[piece], out[piece])
            if kind is ValueGradient:
                self._finish(Value, x[piece], out[piece, :, :1])
                self._finish(Gradient, x[piece], out[piece, :, 1:])
            else:
                self._finish(kind, x[piece], out[piece])
        return out

    def _radial_part(self, kind: Kind, x: np.ndarray, out: np.ndarray) -> None:
        panels = _point_panels(x * self.radial.unit)
        side = _core.Side(panels, panels, len(x), kind._parts)
        program = self.radial.program(kind, x.shape[1])
        sums = _core.aligned((*out.shape[1:2], len(panels), out.shape[2], panels.shape[2]), float)
        _core.product(program, side, self.side, self.vectors, None, sums, None)
        shape = (len(panels) * panels.shape[2], *out.shape[1:])
        out[:] = sums.transpose(1, 3, 0, 2).reshape(shape)[: len(x)]

    def _finish(self, kind: Kind, x: np.ndarray, out: np.ndarray) -> None:
        """What the radial functions lack: units, the polynomial, and NaN."""
        if kind._order:
            out *= self.radial.unit**kind._order
        coefficients = self.of_monomials.get(kind)
        if coefficients is None:
            coefficients = self.monomials.coefficients(kind, self.b, self.scale)
            self.of_monomials[kind] = coefficients
        if len(coefficients):
            values = self.monomials.values((x - self.shift) / self.scale, len(coefficients))
            # Not by BLAS, of which the last bits depend on the number of threads.
            out += np.einsum("jq,jsc->qsc", values, coefficients)
        if self.radial.missing(kind):
            points, total = self._at_centers(x)
            out[points] = np.where(total[:, :, None] != 0, np.nan, out[points])

    @cached_property
    def _centers(self) -> tuple[np.ndarray, dict[bytes, int], np.ndarray]:
        """Keys of the centers, numbers of different ones by bytes, sums of their coefficients."""
        points, inverse = np.unique(self.y + 0.0, axis=0, return_inverse=True)
        total = np.zeros((len(points), self.a.shape[1]))
        # A constant, and a function times zero or minus itself, have all derivatives.
        np.add.at(total, inverse.ravel(), self.a * (self.radial.unit != 0))
        numbers = {point.tobytes(): j for j, point in enumerate(points)}
        return np.sort(_keys(points)), numbers, total

    def _at_centers(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which points are centers, and the coefficients there."""
        keys, numbers, total = self._centers
        sought = _keys(x)
        at = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
        points = np.nonzero(keys[at] == sought)[0]
        found = [numbers.get(point.tobytes(), -1) for point in x[points] + 0.0]
        which = np.array(found, dtype=np.intp)
        return points[which >= 0], total[which[which >= 0]]


# ------------------------------------------------------------------------ conditions of systems


@lru_cache(maxsize=8)
def _probes(n: int) -> np.ndarray:
    """Right-hand sides: two, as one may happen to be nearly orthogonal to the direction sought."""
    probes = np.random.default_rng(0).standard_normal((n, 2))
    probes.flags.writeable = False
    return probes


def _balance(largest: np.ndarray, r: int) -> np.ndarray:
    """Factors of the rows and columns with which no entry of a system is beyond 1, inverted.

    With them the condition depends neither on the units of sites and data nor on single sites
    whose smoothing is huge.  `largest` (..., P) is the largest entry of each row of a site.
    """
    p = largest.shape[-1]
    result = np.empty((*largest.shape[:-1], p + r))
    result[..., :p] = np.where(largest > 0, largest, 1.0)
    result[..., p:] = 1 / result[..., :p].min(axis=-1, keepdims=True)
    return np.sqrt(result, out=result)


def _response(solution: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """The longer of the solutions (..., P + R, 2) for the two probes, in balanced units."""
    first, second = solution[..., 0] * balance, solution[..., 1] * balance
    second_is_longer = _squares(second) > _squares(first)
    return np.where(second_is_longer[..., None], second, first)


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Squared lengths of vectors (..., N)."""
    squares: np.ndarray = np.einsum("...i,...i->...", vectors, vectors)
    return squares


def _loss(coeffs: np.ndarray, d: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """What rounding makes of the sums (..., P + R, S) at the sites, relative to the data there.

    Terms of a sum are as large as coefficients in balanced units, and each is rounded.
    """
    p = d.shape[-2]
    terms = np.einsum("...is,...i->...s", np.abs(coeffs), balance)
    data = np.abs(d / balance[..., :p, None]).max(axis=-2)
    with np.errstate(all="ignore"):
        return np.where(data > 0, EPS * terms / data, 0.0).max(axis=-1, initial=0.0)


def _condition(response: np.ndarray) -> np.ndarray:
    """Estimates of conditions by responses (..., P + R).

    The mean square of a response is the squared Frobenius norm of the inverse, and that norm of a
    system whose entries are at most 1 is at most P + R.
    """
    return response.shape[-1] * np.sqrt(_squares(response))


# What is warned of: that fewer than five digits are left of the values; and systems that are
# singular to working precision (a matrix that is rounded to the same is singular) because sites are
# closer than half of the digits tell, or because they do not determine the polynomial.  All other
# singular systems are those of smooth functions that are wide beside the distances of sites, whose
# values are good all the same: the directions that are lost are not seen in values.
_LOSS = 1e-5
_CLOSE = math.sqrt(EPS)
_UNDETERMINED = 1e6
# A system with two rows that are the same has a condition of 1 / EPS, if not infinity; estimates of
# conditions are too small by more than this share once in a million times.
_SAME = 1e-3


def _closest(response: np.ndarray, p: int) -> np.ndarray:
    """The two sites that take part most in what is nearly singular, (..., 2)."""
    return np.argsort(np.abs(response[..., :p]), axis=-1)[..., -2:]


def _undetermined(response: np.ndarray, p: int) -> np.ndarray:
    """Whether polynomials are nearly zero at all sites."""
    of_sites = np.abs(response[..., :p]).max(axis=-1)
    return np.abs(response[..., p:]).max(axis=-1, initial=0.0) > _UNDETERMINED * of_sites


def _suspicious(y: np.ndarray, response: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Which of the systems of sites (G, P, D) are warned of."""
    p = y.shape[1]
    singular = _condition(response) * EPS > 1
    if not singular.any():
        return loss > _LOSS
    pairs = np.take_along_axis(y, _closest(response, p)[..., None], axis=1)
    distance = np.linalg.norm(pairs[:, 0] - pairs[:, -1], axis=-1)
    extent = np.linalg.norm(y.max(axis=1) - y.min(axis=1), axis=-1)
    close = (distance <= _CLOSE * extent) & (p > 1)
    return (loss > _LOSS) | (singular & (close | _undetermined(response, p)))


def _enumerate(sites: Sequence[int]) -> str:
    head = [str(site) for site in sites]
    return f"{', '.join(head[:-1])} and {head[-1]}"


def _at_most(found: Sequence[str], n: int, what: str) -> str:
    more = [f"{len(found) - n} more {what}"] if len(found) > n else []
    return "; ".join([*found[:n], *more])


def _repeated(y: np.ndarray, smoothing: np.ndarray) -> np.ndarray:
    """For sites that are the same and have no smoothing: numbers of their groups; else -1."""
    result = np.full(len(y), -1)
    candidates = np.nonzero(smoothing == 0)[0]
    if len(np.unique(_keys(y[candidates]))) < len(candidates):
        _, inverse, counts = np.unique(
            y[candidates] + 0.0, axis=0, return_inverse=True, return_counts=True
        )
        inverse = inverse.ravel()
        result[candidates] = np.where(counts[inverse] > 1, inverse, -1)
    return result


def _why(y: np.ndarray, sites: np.ndarray, response: np.ndarray) -> str:
    """Say by its response why a system of some sites is nearly singular."""
    p = len(sites)
    if _undetermined(response, p):
        return (
            "the sites hardly determine a polynomial of this degree, as they lie on a line, a "
            "plane or the like. Give a lower `degree`"
        )
    of_sites = np.abs(response[:p])
    pair = np.sort(sites[_closest(response, p)]).tolist()
    distance = np.linalg.norm(y[pair[0]] - y[pair[-1]])
    large = sites[of_sites >= of_sites.max() / 4].tolist()
    which = f"sites {_enumerate(large)}" if 2 <= len(large) <= 10 else f"{p} sites"
    return (
        f"the radial functions of {which} hardly differ; sites {_enumerate(pair)} are "
        f"{distance:.2g} apart. Keep one of sites that nearly coincide, or give `smoothing` or a "
        "larger `epsilon`"
    )


def _warn_singular(
    what: str,
    y: np.ndarray,
    repeated: np.ndarray,
    sites: np.ndarray,
    response: np.ndarray | None,
    stacklevel: int,
) -> None:
    """Warn of systems that are singular, or nearly so.

    Parameters
    ----------
    what : str
        Which systems they are.
    y : ndarray of shape (P, D)
    repeated : ndarray of shape (P,)
        As of `_repeated`.
    sites : ndarray of shape (G, K)
        The sites of each system.
    response : ndarray of shape (G, K + R) or None
    stacklevel : int
        As in `warnings.warn`, seen from the caller.
    """
    message = f"{what} singular to working precision, or nearly so"
    worst = 0
    if response is not None:
        condition = _condition(response)
        worst = int(np.argmax(condition))
        message += f" (reciprocal condition {1 / condition[worst]:.1e})"
    message += "; values and derivatives may be wrong in every digit: "
    groups: dict[int, list[int]] = {}
    for site in np.unique(sites):
        if repeated[site] >= 0:
            groups.setdefault(int(repeated[site]), []).append(int(site))
    same = [f"sites {_enumerate(group)} are the same" for group in groups.values() if group[1:]]
    if same:
        message += f"{_at_most(same, 5, 'groups')}. Keep one of each, or give `smoothing`"
    else:
        assert response is not None
        message += _why(y, sites[worst], response[worst])
    warnings.warn(f"{message}.", LinAlgWarning, stacklevel=stacklevel + 1)


# ------------------------------------------------------------------------ with few neighbors

_Result = TypeVar("_Result")


def _each(task: Callable[[slice], _Result], n: int, step: int, threads: int) -> list[_Result]:
    """Results of a task for pieces of a range, from threads of which none outlives the call."""
    pieces = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    if min(threads, len(pieces)) <= 1:
        return [task(piece) for piece in pieces]
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(task, pieces))
    finally:
        pool.shutdown(cancel_futures=True)


class _Local:
    """Many sums of a few centers each, which are fitted here.

    Parameters
    ----------
    radial : _Radial
    monomials : _Monomials
    y, d, smoothing : ndarray of shape (G, P, D), (G, P, S), (G, P)
        The points and data of each.

    Attributes
    ----------
    suspicious : ndarray of shape (G,)
        Which of the systems are nearly singular.
    response : ndarray of shape (G, P + R)
        What these say.

    Raises
    ------
    LinAlgError
        If one of the systems is singular.
    """

    def __init__(
        self,
        radial: _Radial,
        monomials: _Monomials,
        y: np.ndarray,
        d: np.ndarray,
        smoothing: np.ndarray,
    ) -> None:
        self.radial, self.monomials = radial, monomials
        p, r = y.shape[1], len(monomials.powers)
        low, high = y.min(axis=1), y.max(axis=1)
        self.y = y
        self.shift, self.scale = (high + low) / 2, (high - low) / 2
        self.scale[self.scale == 0] = 1.0
        lhs = np.zeros((len(y), p + r, p + r))
        lhs[:, :p, :p] = radial.jets(self._squared_distances(), 0)[0]
        np.einsum("gii->gi", lhs)[:, :p] += smoothing
        hats = (y - self.shift[:, None]) / self.scale[:, None]
        lhs[:, :p, p:] = np.moveaxis(monomials.values(hats, r), 0, -1)
        lhs[:, p:, :p] = lhs[:, :p, p:].transpose(0, 2, 1)
        functions = lhs[:, :p, :p]
        balance = _balance(np.maximum(functions.max(axis=1), -functions.min(axis=1)), r)
        rhs = np.zeros((len(y), p + r, d.shape[2] + 2))
        rhs[:, :p, :-2] = d
        rhs[:, :, -2:] = balance[:, :, None] * _probes(p + r)
        solution = np.linalg.solve(lhs, rhs)
        self.coeffs = np.ascontiguousarray(solution[:, :, :-2])
        self.response = _response(solution[:, :, -2:], balance)
        self.suspicious = _suspicious(y, self.response, _loss(self.coeffs, d, balance))

    def _squared_distances(self) -> np.ndarray:
        points = (self.y * self.radial.unit).transpose(2, 0, 1)
        s, e = np.zeros((2, *points.shape[1:], points.shape[2]))
        for column in points:
            np.subtract(column[:, :, None], column[:, None, :], out=e)
            s += np.square(e, out=e)
        return s

    def sum(self, g: int) -> _Sum:
        """One of them."""
        return _Sum(
            self.radial, self.monomials, self.y[g], self.coeffs[g], self.shift[g], self.scale[g]
        )

    def __call__(self, kind: Kind, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Evaluate at points (Q, D), each in the sum that g (Q,) says: (Q, S, components)."""
        if kind is ValueGradient:
            return np.concatenate([self(Value, x, g), self(Gradient, x, g)], axis=2)
        unit, p, (n, d) = self.radial.unit, self.y.shape[1], x.shape
        out = np.empty((n, self.coeffs.shape[2], _size(kind, d)))
        coefficients = self.monomials.coefficients(kind, self.coeffs[:, p:], self.scale)
        step = max(1, _BATCH // (p * d * max(1, out.shape[1])))
        for start in range(0, n, step):
            some = g[start : start + step]
            points, part = x[start : start + step], out[start : start + step]
            e = points[:, None] * unit - self.y[some] * unit
            a = self.coeffs[some, :p]
            part[:] = self._radial_part(kind, e, a)
            part *= unit**kind._order
            hats = (points - self.shift[some]) / self.scale[some]
            values = self.monomials.values(hats, coefficients.shape[1])
            part += np.einsum("jq,qjsc->qsc", values, coefficients[some])
            if self.radial.missing(kind):
                at_center = np.all(e == 0, axis=2) & (unit != 0)
                part[np.einsum("qp,qps->qs", at_center, a) != 0] = np.nan
        return out

    def _radial_part(self, kind: Kind, e: np.ndarray, a: np.ndarray) -> np.ndarray:
        """For differences (Q, P, D) from the centers, and coefficients (Q, P, S)."""
        s = np.einsum("qpd,qpd->qp", e, e)
        f = self.radial.jets(s, kind._order)
        linear = self.radial.leaf.jet == "radial_linear"  # d²/dr² is 0, but the terms of it cancel
        if kind is Value:
            return np.einsum("qp,qps->qs", f[0], a)[..., None]
        if kind is Gradient:
            return np.einsum("qps,qpd->qsd", 2 * f[1][..., None] * a, e)
        if kind is Laplacian:
            by_distance = 0.0 if linear else 2 * f[1] + 4 * s * f[2]
            total = by_distance + 2 * (e.shape[2] - 1) * f[1]
            return np.einsum("qp,qps->qs", total, a)[..., None]
        left = (4 * f[2][..., None] * a)[..., None] * e[:, :, None, :]
        result = np.einsum("qpsa,qpb->qsab", left, e)
        result = (result + result.transpose(0, 1, 3, 2)) / 2
        diagonal = np.einsum("qsaa->qsa", result)
        if linear:
            q = e**2 / np.where(s == 0, 1, s)[..., None]
            for b in range(q.shape[2]):
                others = np.delete(q, b, axis=2).sum(axis=2)
                diagonal[..., b] = np.einsum("qp,qps->qs", 2 * f[1] * others, a)
        else:
            diagonal += np.einsum("qp,qps->qs", 2 * f[1], a)[..., None]
        return result.reshape(*result.shape[:2], e.shape[2] ** 2)


# ------------------------------------------------------------------------------ interpolator

_SciPy = scipy.interpolate.RBFInterpolator
_SIGNATURE = inspect.signature(_SciPy)
# Who catches warnings changes what all threads do about them.
_CATCHING = threading.Lock()


class RBFInterpolator(_SciPy):
    """Radial basis function interpolation in N dimensions, with derivatives.

    `scipy.interpolate.RBFInterpolator`, which fits, evaluated faster, and with gradients, Hessian
    matrices and Laplacians of the interpolant.

    Parameters
    ----------
    y : array-like of shape (P, D)
        Data point coordinates.
    d : array-like of shape (P, ...)
        Data values at `y`, real or complex.
    neighbors : int, default=None
        How many of the nearest data points make the value at a point; None stands for all.
    smoothing : float or array-like of shape (P,), default=0.0
        What is added to the diagonal; 0 interpolates.
    kernel : str, default="thin_plate_spline"
        The radial function, of r = epsilon · distance:

        - "linear": -r
        - "thin_plate_spline": r² log(r)
        - "cubic": r³
        - "quintic": -r⁵
        - "multiquadric": -√(1 + r²)
        - "inverse_multiquadric": 1/√(1 + r²)
        - "inverse_quadratic": 1/(1 + r²)
        - "gaussian": exp(-r²)
    epsilon : float, default=None
        The shape parameter. None stands for 1 with the first four kernels; the others need one.
    degree : int, default=None
        Degree of the polynomial that is added, -1 for none. None stands for the least one with
        which the kernel can be fitted: 1 for "thin_plate_spline" and "cubic", 2 for "quintic", and
        0 for the others.

    Raises
    ------
    ValueError, numpy.linalg.LinAlgError
        SciPy's, word for word: for a kernel or degree that there is not, fewer points than the
        polynomial needs, points that it cannot tell apart, ... And for masked entries, of which
        SciPy would take what is under the mask.
    NotImplementedError
        If derivatives are asked for of a kernel that SciPy has and this class has not; values
        are SciPy's.
    MemoryError
        If the linear system of all points is larger than the memory this process may use.

    Warns
    -----
    scipy.linalg.LinAlgWarning
        If a system that was solved is singular, or so nearly that values may be wrong: sites that
        are repeated or nearly so and have no `smoothing`, or that do not determine the polynomial.
        The sites are named. With `neighbors`, at evaluation.

    See Also
    --------
    scipy.interpolate.RBFInterpolator : All that is said there holds here.
    expansion : Sums of other kernels at centers.

    Notes
    -----
    The interpolant is f(x) = Σ_j a_j φ(ε ‖x - y_j‖) + p(x). Values and derivatives are products
    with a kernel matrix that is never built. They are the same for any number of threads.

    At a center, derivatives have their limits where they exist, which depends on the kernel: the
    gradient does not exist for "linear", the Hessian matrix for "linear" and "thin_plate_spline";
    it is NaN there, unless the coefficient of the center is zero.

    With `neighbors`, the function is a different one wherever the set of neighbors is, and jumps
    in between; its derivatives are those of the function in force at a point.

    References
    ----------
    G. E. Fasshauer, *Meshfree Approximation Methods with MATLAB*, World Scientific, 2007,
    chapters 6 to 8. The documentation of `scipy.interpolate.RBFInterpolator`.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import RBFInterpolator
    >>> y = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    >>> f = RBFInterpolator(y, y[:, 0] ** 2 * y[:, 1], kernel="cubic")
    >>> x = np.array([[0.6, 0.5], [0.8, -0.5]])
    >>> np.round(f(x), 2)  # x₀² x₁
    array([ 0.18, -0.32])
    >>> np.round(f.gradient(x), 1)  # (2 x₀ x₁, x₀²)
    array([[ 0.6,  0.4],
           [-0.8,  0.6]])
    """

    __signature__ = _SIGNATURE

    # SciPy's.
    neighbors: Any
    powers: Any
    _coeffs: np.ndarray
    _shift: np.ndarray
    _scale: np.ndarray
    _tree: Any

    # Names of the columns of y, if it had any.
    _names: np.ndarray | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            arguments = _SIGNATURE.bind(*args, **kwargs).arguments
        except TypeError:
            arguments = {}  # SciPy says what is wrong
        for name in arguments.keys() & {"y", "d", "smoothing"}:
            unmasked(arguments[name], name)
        names = column_names(arguments.get("y"))
        if names is not None:
            self._names = names
        said: list[warnings.WarningMessage] = []
        try:
            found = self._make(said, arguments, args, kwargs)
        finally:
            for warning in said:
                warnings.warn(warning.message, stacklevel=2)
        if self.neighbors is None:
            self._look(found)

    def _make(
        self,
        said: list[warnings.WarningMessage],
        arguments: dict[str, Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Check arguments and fit; return what is suspicious, if the system was solved here."""
        checked = bool(arguments) and arguments.get("neighbors") is None
        try:
            if checked:
                # With neighbors SciPy looks at its arguments, and fits later.
                self._construct(said, (), {**arguments, "neighbors": sys.maxsize})
        except Exception:
            checked = False  # what is wrong without neighbors is SciPy's to say
        if checked:
            _check_system(len(self.y), len(self.powers))
            if self.kernel in _RADIAL and _build_system is not None:
                found = self._fit()
                if found is not None:
                    del self._tree
                    self.neighbors = None
                    return found
        said.clear()
        # It is not known yet of how many points, and few of BLAS's threads are right for all.
        with blas_threads:
            self._construct(said, args, kwargs)
        return None

    def _construct(self, said: list[warnings.WarningMessage], args: Any, kwargs: Any) -> None:
        """SciPy's constructor, whose warnings would name a line of this file as their origin."""
        if "degree" not in kwargs and len(args) < len(_SIGNATURE.parameters):
            super().__init__(*args, **kwargs)  # its warnings are about the degree
            return
        with _CATCHING, warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            try:
                super().__init__(*args, **kwargs)
            finally:
                said += found

    def _fit(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Make the system and solve it, to the bit as SciPy does; None if it is singular."""
        # LAPACK by way of SciPy writes where it should not if there are no columns.
        d = self.d if self.d.size else np.zeros((len(self.y), 1))
        lhs, rhs, shift, scale = _build_system(
            self.y, d, self.smoothing, self.kernel, self.epsilon, self.powers
        )
        p, r = len(self.y), len(self.powers)
        functions = lhs[:p, :p]
        balance = _balance(np.maximum(functions.max(axis=0), -functions.min(axis=0)), r)
        with blas_threads_of(p + r):
            lu, pivots, coeffs, info = dgesv(lhs, rhs, overwrite_a=True, overwrite_b=True)
            if info:
                return None
            solution, _ = dgetrs(lu, pivots, balance[:, None] * _probes(p + r))
        self._shift, self._scale = shift, scale
        self._coeffs = coeffs[:, : self.d.shape[1]]
        response = _response(solution, balance)[None]
        loss = _loss(coeffs, d, balance)
        return _suspicious(self.y[None], response, loss[None]), response

    def _look(self, found: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Warn if the system of all sites is nearly singular."""
        sites = np.arange(len(self.y))[None]
        if found is None and self.kernel in _RADIAL:
            # SciPy has solved it by itself, so it is solved once more.
            local = self._fit_local(sites)
            found = local.suspicious, local.response
        suspicious, response = found or (np.zeros(1, bool), None)
        # The sites need not be compared where no two rows can be the same.
        regular = response is not None and _condition(response)[0] * EPS < _SAME
        if suspicious[0] or (not regular and self._repeated.max(initial=-1) >= 0):
            what = f"The system of all {sites.size} sites is"
            _warn_singular(what, np.asarray(self.y), self._repeated, sites, response, 3)

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        if isinstance(state, dict):  # of SciPy before 1.17, with the names in it
            return {key: value for key, value in state.items() if key not in _MADE}
        return state if self._names is None else {"scipy": state, "names": self._names}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and state.keys() == {"scipy", "names"}:
            self._names, state = state["names"], state["scipy"]
        if hasattr(_SciPy, "__setstate__"):
            super().__setstate__(state)  # type: ignore[misc]
        else:
            self.__dict__.update(state)

    @cached_property
    def _repeated(self) -> np.ndarray:
        return _repeated(np.asarray(self.y), np.asarray(self.smoothing))

    @cached_property
    def _radial(self) -> _Radial:
        return _Radial(self.kernel, self.epsilon)

    @cached_property
    def _monomials(self) -> _Monomials:
        return _Monomials(np.asarray(self.powers))

    @cached_property
    def _sum(self) -> _Sum:
        arrays = (self.y, self._coeffs, self._shift, self._scale)
        return _Sum(self._radial, self._monomials, *map(np.asarray, arrays))

    def _evaluate(self, kind: Kind, x: ArrayLike) -> np.ndarray:
        """Components of a functional at points, (Q, S, components)."""
        if type(x) is not np.ndarray:
            check_names(self._names, column_names(x), "y", "x")
            x = unmasked(x, "x")
        if self.kernel not in _RADIAL:
            raise NotImplementedError(
                f"Derivatives of the kernel {self.kernel!r} are not known here; they are of "
                f"{', '.join(map(repr, _RADIAL))}. Values are SciPy's."
            )
        points = np.asarray(x, dtype=np.float64, order="C")
        if points.ndim != 2:
            raise ValueError("`x` must be a 2-dimensional array.")
        n, d = points.shape
        if d != self.y.shape[1]:
            raise ValueError(f"Expected the second axis of `x` to have length {self.y.shape[1]}.")
        n_bytes = 8.0 * n * self.d.shape[1] * _size(kind, d)
        if n_bytes > (limit := memory_limit()):
            shape = (n, self.d.shape[1], _size(kind, d))
            raise too_large(
                f"a result of shape {shape}", n_bytes, limit, "Give fewer points at a time."
            )
        # As SciPy, which leaves infinite points to arithmetic.
        with np.errstate(all="ignore"):
            if self.neighbors is None:
                return self._sum(kind, points)
            return self._evaluate_neighbors(kind, points)

    def _evaluate_neighbors(self, kind: Kind, x: np.ndarray) -> np.ndarray:
        k, r = self.neighbors, len(self.powers)
        _check_system(k, r)
        out = np.empty((len(x), self.d.shape[1], _size(kind, x.shape[1])))
        if not len(x):
            return out
        threads = _core.config()["threads"] if len(x) * k > _LARGE else 1
        sets, inverse = self._neighborhoods(x, threads)
        order = np.argsort(inverse, kind="stable")
        counts = np.bincount(inverse, minlength=len(sets))
        stops = np.cumsum(counts)

        def evaluate(some: slice) -> tuple[np.ndarray, np.ndarray]:
            with np.errstate(all="ignore"):
                local = self._fit_local(sets[some])
                first = stops[some.start] - counts[some.start]
                points = order[first : stops[some.stop - 1]]
                many = counts[some] * k > _LARGE
                for g in np.nonzero(many)[0]:
                    these = points[inverse[points] == some.start + g]
                    out[these] = local.sum(int(g))(kind, x[these])
                rest = points[~many[inverse[points] - some.start]]
                out[rest] = local(kind, x[rest], inverse[rest] - some.start)
                suspicious = local.suspicious
            if self._repeated.max(initial=-1) >= 0:
                groups = np.sort(self._repeated[sets[some]], axis=1)
                twice = (groups[:, 1:] == groups[:, :-1]) & (groups[:, 1:] >= 0)
                suspicious |= twice.any(axis=1)
            found = np.nonzero(suspicious)[0]
            return some.start + found, local.response[found]

        singular, response = (
            np.concatenate(parts)
            for parts in zip(
                *_each(evaluate, len(sets), max(1, _BATCH // (k + r) ** 2), threads), strict=True
            )
        )
        if len(singular):
            what = f"{len(singular)} of {len(sets)} systems of {k} neighbors are"
            _warn_singular(what, self.y, self._repeated, sets[singular], response, 4)
        return out

    def _neighborhoods(self, x: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Different sets of neighbors (G, K), in the order of points, and which is each point's.

        Points with the same neighbors share a system. Sets are told apart by sums of random
        numbers that their members have, which is much faster than by their members.
        """
        k = self.neighbors
        numbers = np.random.default_rng(0).integers(2**64, size=len(self.y), dtype=np.uint64)
        found = np.empty((len(x), k), dtype=np.intp)
        sums = np.empty(len(x), dtype=np.uint64)

        def query(some: slice) -> None:
            # Not with several workers: these threads would read what is freed after an exception.
            _, nearest = self._tree.query(x[some], k)
            found[some] = np.sort(nearest.reshape(-1, k), axis=1)
            sums[some] = numbers[found[some]].sum(axis=1, dtype=np.uint64)

        step = 1 + min(_BATCH // k, _VISITS // max(1, self.y.size))
        _each(query, len(x), step, threads)
        _, first, inverse = np.unique(sums, return_index=True, return_inverse=True)

        def same(some: slice) -> bool:
            return np.array_equal(found[some], found[first[inverse[some]]])

        if not all(_each(same, len(x), step, 1)):
            _, first, inverse = np.unique(found, axis=0, return_index=True, return_inverse=True)
            inverse = inverse.ravel()
        order = np.argsort(first)
        return found[first[order]], np.argsort(order)[inverse]

    def _fit_local(self, sets: np.ndarray) -> _Local:
        arrays = (self.y[sets], self.d[sets], self.smoothing[sets])
        try:
            with blas_threads_of(sets.shape[1] + len(self.powers)):
                return _Local(self._radial, self._monomials, *arrays)
        except np.linalg.LinAlgError:
            # Which it was, and why, is SciPy's to say.
            degree = int(self.powers.sum(axis=1).max(initial=-1))
            options = (self.kernel, self.epsilon, degree)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for y, d, smoothing in zip(*arrays, strict=True):
                    _SciPy(y, d, None, smoothing, *options)
            raise

    def _shaped(self, out: np.ndarray, axes: int) -> Any:
        if self.d_dtype is complex or self.d_dtype == np.complex128:
            pairs = np.empty((len(out), out.shape[1] // 2, out.shape[2]), np.complex128)
            pairs.real, pairs.imag = out[:, ::2], out[:, 1::2]
            out = pairs
        shape = (len(out), *self.d_shape, *[self.y.shape[1]] * axes)
        return getattr(self, "_xp", np).asarray(out.reshape(shape))

    def __call__(self, x: Any) -> Any:
        """Evaluate the interpolant.

        Parameters
        ----------
        x : array-like of shape (Q, D)
            Points.

        Returns
        -------
        ndarray of shape (Q, ...)
            The axes of the data values follow that of the points.

        Raises
        ------
        ValueError
            If `x` has another number of dimensions or columns, other names of columns than `y` had,
            or masked entries.
        """
        if self.kernel not in _RADIAL:
            return super().__call__(x)
        return self._shaped(self._evaluate(Value, x), 0)

    def gradient(self, x: ArrayLike, *, return_value: bool = False) -> Any:
        """Gradients of the interpolant.

        Parameters
        ----------
        x : array-like of shape (Q, D)
            Points.
        return_value : bool, default=False
            Whether to return values, too, which cost little extra.

        Returns
        -------
        value : ndarray of shape (Q, ...)
            Only with `return_value`.
        gradient : ndarray of shape (Q, ..., D)
            NaN where it does not exist: at centers of the kernel "linear".

        Raises
        ------
        ValueError
            If `x` has another number of dimensions or columns, other names of columns than `y` had,
            or masked entries.

        Examples
        --------
        A cone has no slope at its tip:

        >>> from kerneldiff import RBFInterpolator
        >>> f = RBFInterpolator([[0.0], [2.0]], [1, 1], smoothing=1.0, kernel="linear", degree=-1)
        >>> f.gradient([[0.0], [1.0], [5.0]])
        array([[nan],
               [ 0.],
               [ 2.]])
        """
        if not return_value:
            return self._shaped(self._evaluate(Gradient, x), 1)
        both = self._evaluate(ValueGradient, x)
        return self._shaped(both[:, :, :1], 0), self._shaped(both[:, :, 1:], 1)

    def hessian(self, x: ArrayLike) -> Any:
        """Hessian matrices of the interpolant.

        Parameters
        ----------
        x : array-like of shape (Q, D)
            Points.

        Returns
        -------
        ndarray of shape (Q, ..., D, D)
            NaN where they do not exist: at centers of the kernels "linear" and "thin_plate_spline".

        Raises
        ------
        ValueError
            If `x` has another number of dimensions or columns, other names of columns than `y` had,
            or masked entries.

        Examples
        --------
        >>> from kerneldiff import RBFInterpolator
        >>> f = RBFInterpolator([[0.0, 0.0]], [1.0], kernel="gaussian", epsilon=1.0, degree=-1)
        >>> f.hessian([[0.0, 0.0]])
        array([[[-2.,  0.],
                [ 0., -2.]]])
        """
        return self._shaped(self._evaluate(Hessian, x), 2)

    def laplacian(self, x: ArrayLike) -> Any:
        """Laplacians of the interpolant, the traces of its Hessian matrices.

        Parameters
        ----------
        x : array-like of shape (Q, D)
            Points.

        Returns
        -------
        ndarray of shape (Q, ...)
            NaN where they do not exist, as in `hessian`.

        Raises
        ------
        ValueError
            If `x` has another number of dimensions or columns, other names of columns than `y` had,
            or masked entries.

        Examples
        --------
        >>> from kerneldiff import RBFInterpolator
        >>> f = RBFInterpolator([[0.0, 0.0]], [1.0], kernel="gaussian", epsilon=1.0, degree=-1)
        >>> f.laplacian([[0.0, 0.0]])
        array([-4.])
        """
        return self._shaped(self._evaluate(Laplacian, x), 0)


# What an interpolator makes of what it is made of, when it is asked for.
_MADE = {name for name, kept in vars(RBFInterpolator).items() if isinstance(kept, cached_property)}
