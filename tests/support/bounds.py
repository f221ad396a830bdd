"""How far off a computed derivative may be: a bound worked out beside it, entry by entry.

It is a running error analysis to first order (Higham, "Accuracy and Stability of Numerical
Algorithms", section 3.3) of the way that any implementation has to go, invariants -> jets ->
geometry, in units of u, half an eps of the working precision. Cancellation costs what it must, and
nothing else costs anything: a pair of points that almost coincide, an offset of all points, or a
large entry elsewhere in the array does not loosen the bound of an entry.

invariants
    A difference of coordinates is rounded once, whatever the offset of the points. A sum of D
    terms is then off by (D + 2) u times the sum of the absolute terms, weights and scales by two
    roundings more. What takes the root of it, and multiplies with the root of its scale, rounds
    three times more, which is six times in terms of the invariant: D + 11.
jets
    F^(q) is off by what the error of its argument makes of it, that error times F^(q+1), and by
    24 u for an elementary function of at most 3 ulp and for q times a rounded rate and two
    roundings. Where a formula of F^(q) is itself a sum (periodic, sigmoid), the sum of the absolute
    terms stands for F^(q) and F^(q+1). The general Matern kernel comes out of Bessel functions that
    are good to some ten u, and exp(log + log - t) of numbers up to a hundred: 200 u, for that of
    the reference, too.
arithmetic on jets
    Sums, products and powers by the usual rules, with a u for each operation. The bound of a power
    is infinite where its base is no more than an error, or subnormal.
geometry
    Each term of the chain rule is a partial derivative of F times at most four slopes, of six
    roundings each, weight and product included; adding up n terms costs n u times the sum of the
    absolute terms. What applies a functional that is a sum over D columns adds 2 D.
range
    Results below the normal range are off by u times its lower end, wherever they come up, and all
    of a jet by that end itself, times a power of the inner derivative.
"""

import itertools
import math
from unittest import mock

import numpy as np
from sklearn.gaussian_process import kernels as sk

from kerneldiff import Columns, Directional, _reference

ARGUMENT, JET, BESSEL, SLOPE = 11, 24, 200, 6

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}

# Where long double is double, the reference makes the same errors.
if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
    UNIT["float64"] *= 2


class Approximate:
    """Exact values, bounds of their errors in units of u, and the lower end of the normal range."""

    # So that arrays leave the operators to this class.
    __array_ufunc__ = None

    def __init__(self, value, error, least):
        self.value = value
        self.error = error
        self.least = least

    def __add__(self, other):
        if not isinstance(other, Approximate):
            other = Approximate(other, 0.0, self.least)
        value = self.value + other.value
        return Approximate(value, self.error + other.error + np.abs(value), self.least)

    __radd__ = __add__

    def __mul__(self, other):
        if not isinstance(other, Approximate):
            other = Approximate(other, 0.0, self.least)
        value = self.value * other.value
        error = np.abs(self.value) * other.error + np.abs(other.value) * self.error
        return Approximate(value, error + np.abs(value) + self.least, self.least)

    __rmul__ = __mul__


def _envelope(kernel, jet, a, order):
    """|F^(q)|, or where its formula is a sum, the sum of the absolute terms."""
    if isinstance(kernel, sk.ExpSineSquared):
        return _periodic_envelope(kernel, a, order)
    if isinstance(kernel, sk.PairwiseKernel) and kernel.metric == "sigmoid":
        return _sigmoid_envelope(kernel, a, order)
    return [np.nan_to_num(np.abs(f)) for f in jet(a, order)]


def _periodic_envelope(kernel, s, order):
    """F = exp(h) with h = (cos z - 1)/l^2, z = 2 pi sqrt(s)/p.

    The derivatives of cos(z) in z^2 are spherical Bessel functions, (-1/2)^q j_(q-1)(z)/z^(q-1),
    and |j_m(z)| is below z^m/(1 3 5 ... (2m+1)) and below 2/z for small m.
    """
    root = 2 * np.pi / kernel.periodicity
    with np.errstate(divide="ignore"):
        z = root * np.sqrt(s)
        exponent = {
            (0,) * q: (root**2 / 2) ** q
            / kernel.length_scale**2
            * np.minimum(1 / math.prod(range(1, 2 * q, 2)), 2 / z**q)
            for q in range(1, order + 1)
        }
    exponent[()] = -2 * (np.sin(z / 2) / kernel.length_scale) ** 2
    jet = _reference._exp(exponent, order)
    return [jet[(0,) * q] for q in range(order + 1)]


def _sigmoid_envelope(kernel, p, order):
    """F = tanh u, F^(q) = sech^2(u) Q_q(tanh u), with the polynomials' coefficients positive."""
    gamma, coef0 = kernel.gamma, (kernel.pairwise_kernels_kwargs or {}).get("coef0", 1)
    t = np.tanh(gamma * p + coef0)
    slope = 1 / np.cosh(gamma * p + coef0) ** 2
    jet, q = [np.abs(t)], np.polynomial.Polynomial([1.0])
    for n in range(1, order + 1):
        absolute = np.polynomial.Polynomial(np.abs(q.coef))
        jet.append(gamma**n * slope * absolute(np.abs(t)))
        q = np.polynomial.Polynomial([1.0, 0.0, -1.0]) * q.deriv() - 2 * q * [0.0, 1.0]
    return jet


def _argument(kernel, pairs, kind, weights):
    """Sums of the absolute terms of a leaf's argument, its constant included; its rate."""
    if kind == "dot":
        total = (np.abs(pairs.X) * weights) @ np.abs(pairs.Y).T
        if isinstance(kernel, sk.DotProduct):
            return total + kernel.sigma_0**2, 0.0
        if isinstance(kernel, sk.PairwiseKernel) and kernel.metric != "linear":
            gamma = 1 / len(weights) if kernel.gamma is None else kernel.gamma
            coef0 = (kernel.pairwise_kernels_kwargs or {}).get("coef0", 1)
            return total + abs(coef0 / gamma), 0.0
        return total, 0.0
    if isinstance(kernel, sk.ExpSineSquared):
        rate = (2 * np.pi / kernel.periodicity) ** 2 * max(1.0, kernel.length_scale**-2)
    elif isinstance(kernel, sk.PairwiseKernel):
        rate = kernel.gamma
    else:
        scale = np.asarray(getattr(kernel, "length_scale", 1.0))
        rate = getattr(kernel, "nu", 1.0) / scale.item() ** 2 if scale.size == 1 else 1.0
    return None, min(rate, 1e30)


def approximate_jet(kernel, pairs, order, dtype, columns):
    """The jet of any kernel, as `_reference._jet` has it, of approximate values."""
    least = float(np.finfo(dtype).smallest_normal)
    if isinstance(kernel, sk.KernelOperator):
        f, g = (approximate_jet(k, pairs, order, dtype, columns) for k in (kernel.k1, kernel.k2))
        if isinstance(kernel, sk.Sum):
            return _reference._add(f, g)
        return _reference._multiply(f, g, order)
    if isinstance(kernel, sk.Exponentiation):
        base = approximate_jet(kernel.kernel, pairs, order, dtype, columns)
        return approximate_power(base, kernel.exponent, order, 16 * UNIT[dtype])
    if isinstance(kernel, Columns):
        return approximate_jet(kernel.kernel, pairs, order, dtype, columns[np.asarray(kernel.dims)])
    if isinstance(kernel, sk.ConstantKernel | sk.WhiteKernel):
        value = _reference._jet(kernel, pairs, order)[()]
        return {(): Approximate(value, np.abs(value), least)}
    kind, own, jet, smoothness = _reference._leaf(kernel, np.float64, len(columns))
    weights = np.zeros(pairs.X.shape[1])
    np.add.at(weights, columns, 1.0 if own is None else own)
    number = pairs.number(kind, weights, smoothness)
    a = pairs.value(number)
    total, rate = _argument(kernel, pairs, kind, weights)
    sensitivity = (len(columns) + ARGUMENT) * (a if total is None else total)
    bessel = getattr(kernel, "nu", 0.5) not in (0.5, 1.5, 2.5, np.inf)
    own_error = BESSEL if bessel else JET
    envelope = _envelope(kernel, jet, a, order + 1)
    result = {}
    for q, value in enumerate(jet(a, order)):
        error = own_error * envelope[q] + sensitivity * envelope[q + 1]
        error += least / UNIT[dtype] * rate**q
        result[(number,) * q] = Approximate(np.nan_to_num(value), error, least)
    return result


def approximate_power(base, exponent, order, relative):
    """base ** exponent: infinite bounds where the base is wrong by a large part of itself.

    At a root, and where the base is below the normal range but its power is not.
    """
    value = base[()].value
    lost = np.abs(value) <= np.maximum(relative * base[()].error, base[()].least)

    def outer(blocks):
        n = len(blocks)
        falling = math.prod(float(exponent) - i for i in range(n))
        if falling == 0:
            return None
        rest = exponent - n
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            power = falling * value**rest
            slope = np.abs(falling * rest * value ** (rest - 1)) if rest else 0.0
            error = slope * base[()].error + (JET + abs(exponent)) * np.abs(power)
        if not (float(exponent).is_integer() and exponent >= 0):
            power, error = np.where(lost, 0.0, power), np.where(lost, np.inf, error)
        return math.prod(blocks, start=Approximate(power, error, base[()].least))

    return _reference._compose(outer, base, order)


def bounds(kernel, X, Y=None, sides="", dtype="float64", sums=0):
    """Bounds of the errors of a partial derivative, as `_reference.derivative` returns it.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    X, Y : ndarray of shape (N, D) and (M, D)
    sides : str
        One "x" or "y" for each derivative.
    dtype : str
        The working precision.
    sums : int
        Terms that are added up on top of the chain rule.

    Returns
    -------
    ndarray of shape (N, M, D, ..., D)
    """
    order, D = len(sides), X.shape[1]
    pairs = _reference._Pairs(
        X.astype(np.float64), None if Y is None else Y.astype(np.float64), same=Y is None
    )
    jet = approximate_jet(kernel, pairs, order, dtype, np.arange(D))
    numbers = range(len(pairs.invariants))
    letters = "abcdefgh"[:order]
    terms = []
    for blocks in _reference._set_partitions(tuple(range(order))):
        if any(len(block) > 2 for block in blocks):
            continue
        for chosen in itertools.product(numbers, repeat=len(blocks)):
            f = jet.get(tuple(sorted(chosen)))
            factors, labels = [], []
            for block, i in zip(blocks, chosen, strict=True):
                if len(block) == 1:
                    factor = pairs.first(i, sides[block[0]])
                    labels.append("ij" + letters[block[0]])
                else:
                    factor = pairs.second(i, "".join(sides[n] for n in block))
                    factor = None if factor is None else np.diag(factor)
                    labels.append("".join(letters[n] for n in block))
                factors.append(None if factor is None else np.abs(factor))
            if f is None or any(factor is None for factor in factors):
                continue
            formula = ",".join(["ij", *labels]) + "->ij" + letters
            terms.append((f, len(blocks), formula, factors))
    total = np.zeros((*pairs.shape, *(D,) * order))
    for f, n, formula, factors in terms:
        roundings = SLOPE * n + len(terms) + sums
        with np.errstate(invalid="ignore"):
            total += np.einsum(formula, f.error + roundings * np.abs(f.value), *factors)
    # Infinity times zero: no bound either.
    total[np.isnan(total)] = np.inf
    return UNIT[dtype] * total + float(np.finfo(dtype).smallest_normal)


def covariance_bounds(kernel, rows, cols=None, dtype="float64"):
    """Bounds of the errors of a covariance, as `_reference.covariance` returns it."""

    def absolute(side):
        if isinstance(side, list):
            return [absolute(functional) for functional in side]
        if isinstance(side, Directional):
            return Directional(side.X, np.abs(side.V))
        return side

    def derivative(kernel, X, Y, sides):
        return bounds(kernel, X, Y, sides, dtype, sums=2 * X.shape[1])

    cols = None if cols is None else absolute(cols)
    with mock.patch.object(_reference, "derivative", derivative):
        return _reference.covariance(kernel, absolute(rows), cols)


def assert_within(actual, exact, bound):
    """Check that NaN is where it has to be, and the error of every other entry."""
    assert actual.shape == exact.shape == bound.shape
    exists = ~np.isnan(exact)
    wrong = np.argwhere(np.isnan(actual) == exists)
    assert len(wrong) == 0, (
        f"{len(wrong)} of {exact.size} entries, the first of them {tuple(map(int, wrong[0]))}: "
        f"{actual[tuple(wrong[0])]} instead of {exact[tuple(wrong[0])]}"
    )
    with np.errstate(invalid="ignore"):
        ratio = np.abs(actual - exact)[exists] / bound[exists]
    # Not "ratio > 1": infinities make NaN, which has to fail.
    if not (ratio <= 1).all():
        worst = np.argmax(np.where(np.isnan(ratio), np.inf, ratio))
        index = tuple(int(axis[worst]) for axis in np.nonzero(exists))
        raise AssertionError(
            f"error of entry {index} is {ratio[worst]:.3g} times the bound {bound[index]:.3g}: "
            f"{actual[index]} instead of {exact[index]}; {np.sum(~(ratio <= 1))} of {exact.size} "
            "are wrong"
        )
