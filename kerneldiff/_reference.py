"""The derivative tensors in plain NumPy: oracle of the tests, baseline of the benchmarks.

Nothing here is compiled and nothing is shared with the compiled code, so that agreement between the
two means something. The idea is the same one: a kernel is a scalar function of a few invariants
of a pair of points,

    k(x, y) = F(a_1(x, y), ..., a_m(x, y)),
    a = s = sum_d w_d (x_d - y_d)^2      or      a = p = sum_d w_d x_d y_d,

and a derivative of k is the multivariate chain rule (Faa di Bruno) over the partial derivatives of
F, its *jet*, and the derivatives of s and p, of which only the first two orders are not zero.

Three kinds of names run through the file:

jet
    A dictionary from a sorted tuple of invariant numbers to the array of that partial derivative:
    ``jet[()]`` is F, ``jet[0, 0, 1]`` is the third derivative of F, twice in invariant 0 and once
    in invariant 1. A missing entry is zero.
sides
    A string of "x" and "y", one letter for each derivative: "xy" is one in x, then one in y.
letters
    A string of the same length that names the axis of each derivative: "ab" gives the matrix,
    "aa" its diagonal.

Everything is float64, whatever type comes in, except that ``numpy.longdouble`` stays as it is.
"""

import itertools
import math
from collections import Counter
from functools import cache

import numpy as np
from scipy import special
from sklearn.gaussian_process import kernels as sk

# ---------------------------------------------------------------------------------------------
# Combinatorics
# ---------------------------------------------------------------------------------------------


def _set_partitions(items):
    """All ways to split a tuple into unordered non-empty blocks."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for partition in _set_partitions(rest):
        yield ((first,), *partition)
        for i, block in enumerate(partition):
            yield (*partition[:i], (first, *block), *partition[i + 1 :])


def _multi_indices(axes, order):
    """All partial derivatives of total order 0 to `order` in the given invariants."""
    for n in range(order + 1):
        yield from itertools.combinations_with_replacement(sorted(axes), n)


@cache
def _leibniz_terms(index):
    """Splits of a partial derivative between two factors, with how often each occurs."""
    terms = Counter()
    for chosen in itertools.product((False, True), repeat=len(index)):
        left = tuple(i for i, c in zip(index, chosen, strict=True) if c)
        right = tuple(i for i, c in zip(index, chosen, strict=True) if not c)
        terms[left, right] += 1
    return tuple(terms.items())


@cache
def _faa_di_bruno_terms(index):
    """Partitions of a partial derivative into inner derivatives, with how often each occurs."""
    terms = Counter()
    for partition in _set_partitions(tuple(range(len(index)))):
        blocks = sorted(tuple(sorted(index[i] for i in block)) for block in partition)
        terms[tuple(blocks)] += 1
    return tuple(terms.items())


# ---------------------------------------------------------------------------------------------
# Arithmetic on jets
# ---------------------------------------------------------------------------------------------


def _axes(*jets):
    return {i for jet in jets for index in jet for i in index}


def _add(f, g):
    return {i: f.get(i, 0) + g.get(i, 0) for i in f | g}


def _multiply(f, g, order):
    """Leibniz: no division, so factors may be zero."""
    out = {}
    for index in _multi_indices(_axes(f, g), order):
        for (left, right), count in _leibniz_terms(index):
            if left in f and right in g:
                out[index] = out.get(index, 0) + count * (f[left] * g[right])
    return out


def _compose(outer, f, order):
    """Faa di Bruno for outer(f); ``outer(blocks)`` is the term g^(n)(f) * prod of n blocks."""
    out = {}
    for index in _multi_indices(_axes(f), order):
        for blocks, count in _faa_di_bruno_terms(index):
            if all(block in f for block in blocks):
                term = outer([f[block] for block in blocks])
                if term is not None:
                    out[index] = out.get(index, 0) + count * term
    return out


def _exp(f, order):
    value = np.exp(f[()])
    return _compose(lambda blocks: math.prod(blocks, start=value), f, order)


def _power(f, exponent, order, positive):
    """f**exponent; `positive` promises that a zero in f is an underflow, not a root."""
    value = f.get((), np.float64(0.0))
    whole = float(exponent).is_integer() and exponent >= 0

    def term(blocks):
        n = len(blocks)
        falling = math.prod(exponent - i for i in range(n))
        if falling == 0:
            return None
        if whole:
            return math.prod(blocks, start=falling * value ** (exponent - n))
        if n == 0:
            return value**exponent
        # Written with the ratios block/value, because value**(exponent - n) overflows
        # where value is tiny. At a root of f, a power below one has no derivative.
        with np.errstate(divide="ignore", invalid="ignore"):
            inner = math.prod((block / value for block in blocks), start=falling)
            at_zero = 0.0 if (positive and exponent > 0) or exponent > n else np.nan
            return np.where(value == 0, at_zero, value**exponent * inner)

    return _compose(term, f, order)


# ---------------------------------------------------------------------------------------------
# Jets of the kernels: (order + 1) derivatives with respect to the kernel's own invariant
# ---------------------------------------------------------------------------------------------


def _jet_exponential(a, order):
    """F(a) = exp(-a)."""
    value = np.exp(-a)
    return [(-1) ** n * value for n in range(order + 1)]


def _power_law(u, exponent, order):
    """F(u) = u**exponent, without the terms whose coefficient is zero."""
    jet = []
    for n in range(order + 1):
        falling = math.prod((exponent - i for i in range(n)), start=type(exponent)(1))
        if falling == 0:
            jet.append(np.zeros_like(u))
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            value = falling * u ** (exponent - n)
        jet.append(np.where((u == 0) & (exponent < n), np.nan, value))
    return jet


def _scaled_bessel(mu, t):
    """t**mu * K_mu(t) for t > 0: in closed form when mu is half an odd integer."""
    if mu < 0:
        return _scaled_bessel(-mu, t) * t ** (2 * mu)
    if float(mu + 0.5).is_integer():
        # h_mu = t^mu K_mu sqrt(2/pi) has h_{mu+1} = t^2 h_{mu-1} + 2 mu h_mu; it starts with
        # h_{-1/2} = exp(-t)/t and h_{1/2} = exp(-t).
        before, now = 1 / t, np.ones_like(t)
        for i in range(int(mu - 0.5)):
            before, now = now, t * t * before + (2 * i + 1) * now
        return now * np.exp(-t) * np.sqrt(np.arccos(t.dtype.type(0)))
    small = t.astype(np.float64)
    decay = np.exp(-small)
    with np.errstate(over="ignore", invalid="ignore"):
        value = small**mu * special.kve(mu, small) * decay
    # Where K_mu overflows, the limit at zero is exact; where exp(-t) underflows, so does all.
    value = np.where(decay == 0, 0.0, value)
    if mu > 0:
        limit = 2.0 ** (mu - 1) * special.gamma(mu)
        value = np.where(np.isfinite(value), value, limit)
    return value.astype(t.dtype)


def _jet_matern(s, order, nu):
    """F(s) = 2^(1-nu)/Gamma(nu) t^nu K_nu(t), t = sqrt(2 nu s).

    d/dt (t^nu K_nu) = -t^nu K_{nu-1} and dt/ds = nu/t, so
    F^(n) = 2^(1-nu)/Gamma(nu) (-nu)^n t^(nu-n) K_{nu-n}(t).
    As t -> 0, t^mu K_mu -> 2^(mu-1) Gamma(mu) for mu > 0; the singular ones are stored as 0.
    """
    real = s.dtype.type
    zero = s == 0
    t = np.sqrt(2 * real(nu) * np.where(zero, 1, s))
    jet = []
    for n in range(order + 1):
        mu = nu - n
        if float(nu + 0.5).is_integer():
            # Gamma(nu) of half an odd integer, up to the sqrt(pi) that _scaled_bessel carries.
            m = int(nu - 0.5)
            root_pi = np.sqrt(np.arccos(real(-1)))
            gamma_nu = root_pi * real(math.factorial(2 * m)) / (4**m * math.factorial(m))
        else:
            gamma_nu = real(special.gamma(nu))
        factor = real(2) ** (1 - real(nu)) / gamma_nu * real(-nu) ** n
        value = factor * _scaled_bessel(mu, t)
        # Gamma(nu - n)/Gamma(nu) = 1/((nu-1)...(nu-n)), so no Gamma is needed at zero.
        limit = 0.0
        if mu > 0:
            limit = real(-nu / 2) ** n / math.prod(
                (real(nu) - i for i in range(1, n + 1)), start=real(1)
            )
        jet.append(np.where(zero, limit, value))
    return jet


def _jet_rational_quadratic(s, order, alpha):
    """F(s) = u^-alpha, u = 1 + s/(2 alpha); log1p keeps the digits when alpha is large."""
    log_u = np.log1p(s / (2 * alpha))
    jet = []
    for n in range(order + 1):
        rising = math.prod(((alpha + i) / alpha for i in range(n)), start=s.dtype.type(1))
        jet.append((-0.5) ** n * rising * np.exp(-(alpha + n) * log_u))
    return jet


def _cosine_of_root(u, order):
    """cos(sqrt(u)) and its derivatives in u, entire functions of u."""
    z = np.sqrt(u)
    near = z < 4
    away = np.where(near, 1, z)
    jet = [np.cos(z), -np.sin(away) / (2 * away)]
    for n in range(order - 1):
        # From 4 u C'' + 2 C' + C = 0, differentiated n times.
        jet.append(-((4 * n + 2) * jet[n + 1] + jet[n]) / (4 * away * away))
    v = np.where(near, u, 0)
    for n in range(1, order + 1):
        term = np.full_like(u, (-1) ** n * u.dtype.type(math.factorial(n)) / math.factorial(2 * n))
        total = term.copy()
        # 30 terms: (z^2)^30/60! < 1e-45 at z = 4, below the last digit of extended precision.
        for k in range(1, 30):
            term = term * -v * (k + n) / (k * (2 * (k + n)) * (2 * (k + n) - 1))
            total += term
        jet[n] = np.where(near, total, jet[n])
    return jet[: order + 1]


def _jet_exp_sine_squared(s, order, length_scale, periodicity):
    """F(s) = exp(-2 sin^2(pi sqrt(s)/p)/l^2) and sin^2(z/2) = (1 - cos z)/2."""
    root = 2 * np.arccos(s.dtype.type(-1)) / periodicity
    cosine = _cosine_of_root(root * root * s, order)
    exponent = {(0,) * n: root ** (2 * n) / length_scale**2 * cosine[n] for n in range(order + 1)}
    exponent[()] = -2 * (np.sin(root * np.sqrt(s) / 2) / length_scale) ** 2
    jet = _exp(exponent, order)
    return [jet[(0,) * n] for n in range(order + 1)]


def _jet_tanh(u, order):
    """F(u) = tanh u; F^(n) = sech^2(u) Q_n(tanh u), Q_{n+1} = (1 - t^2) Q_n' - 2 t Q_n."""
    t = np.tanh(u)
    jet = [t]
    q = np.polynomial.Polynomial([1.0])
    for _ in range(order):
        jet.append(_sech2(u) * q(t))
        q = np.polynomial.Polynomial([1.0, 0.0, -1.0]) * q.deriv() - q * [0.0, 2.0]
    return jet


def _sech2(u):
    """1 - tanh^2 without the cancellation, and without the overflow of cosh."""
    e = np.exp(-2 * np.abs(u))
    return 4 * e / (1 + e) ** 2


def _jet_identity(a, order):
    return [a, np.ones_like(a), *(np.zeros_like(a) for _ in range(order - 1))][: order + 1]


def _scaled(jet, scale, shift=0):
    """The jet of F(scale * a + shift) in a."""

    def scaled_jet(a, order):
        return [scale**n * f for n, f in enumerate(jet(scale * a + shift, order))]

    return scaled_jet


def _radial_thin_plate(s, order):
    """F(s) = s log(s)/2."""
    zero = s == 0
    s = np.where(zero, 1, s)
    jet = [s * np.log(s) / 2, (np.log(s) + 1) / 2]
    jet += [(-1) ** n * math.factorial(n - 2) / (2 * s ** (n - 1)) for n in range(2, order + 1)]
    return [np.where(zero, 0, f) for f in jet[: order + 1]]


def _radial_power(s, order, sign, exponent):
    """F(s) = sign * s**exponent, the singular derivatives at zero stored as 0."""
    real = s.dtype.type
    return [sign * np.nan_to_num(f) for f in _power_law(s, real(exponent), order)]


def radial_jet(name, s, order):
    """The radial functions of `scipy.interpolate.RBFInterpolator` in s = (epsilon r)^2.

    Parameters
    ----------
    name : str
        SciPy's name of the function.
    s : ndarray
        Squared, scaled distances.
    order : int
        Highest derivative.

    Returns
    -------
    ndarray, shape (order + 1, *s.shape)
        The function and its derivatives in s; singular derivatives at s = 0 are stored as 0.
    """
    real = s.dtype.type
    jets = {
        "linear": lambda: _radial_power(s, order, -1, 0.5),
        "thin_plate_spline": lambda: _radial_thin_plate(s, order),
        "cubic": lambda: _radial_power(s, order, 1, 1.5),
        "quintic": lambda: _radial_power(s, order, -1, 2.5),
        "multiquadric": lambda: [-f for f in _power_law(1 + s, real(0.5), order)],
        "inverse_multiquadric": lambda: _power_law(1 + s, real(-0.5), order),
        "inverse_quadratic": lambda: _power_law(1 + s, real(-1), order),
        "gaussian": lambda: _jet_exponential(s, order),
    }
    return np.array(jets[name]())


#: The smoothness 2 nu of the radial functions: derivatives of order q < 2 nu exist at r = 0.
RADIAL_SMOOTHNESS = {
    "linear": 1,
    "thin_plate_spline": 2,
    "cubic": 3,
    "quintic": 5,
    "multiquadric": np.inf,
    "inverse_multiquadric": np.inf,
    "inverse_quadratic": np.inf,
    "gaussian": np.inf,
}


# ---------------------------------------------------------------------------------------------
# From a scikit-learn kernel to its jet at all pairs of points
# ---------------------------------------------------------------------------------------------


class _Pairs:
    """The pairs of two point sets, and the invariants a kernel asks for.

    `same` says that the two sets are one, which only WhiteKernel wants to know.
    """

    def __init__(self, X, Y=None, same=False):
        self.X = _points(X)
        self.Y = self.X if Y is None else _points(Y)
        self.real = np.result_type(self.X, self.Y).type
        self.X, self.Y = self.X.astype(self.real), self.Y.astype(self.real)
        self.same = same
        self.shape = (len(self.X), len(self.Y))
        self.invariants = []  # (kind, weights), the number of an invariant is its place
        self.smoothness = []  # the least 2 nu of the kernels on each invariant

    def number(self, kind, weights, smoothness):
        """The number of an invariant, known already or new."""
        for i, (other_kind, other_weights) in enumerate(self.invariants):
            if kind == other_kind and np.array_equal(weights, other_weights):
                self.smoothness[i] = min(self.smoothness[i], smoothness)
                return i
        self.invariants.append((kind, weights))
        self.smoothness.append(smoothness)
        return len(self.invariants) - 1

    def value(self, i):
        """The invariant itself, (N, M)."""
        kind, weights = self.invariants[i]
        if kind == "dot":
            return (self.X * weights) @ self.Y.T
        total = np.zeros(self.shape, self.real)
        for x, y, w in zip(self.X.T, self.Y.T, weights, strict=True):
            # Differences, not |x|^2 + |y|^2 - 2 x.y: right at any offset of the data.
            delta = np.subtract.outer(x, y)
            total += w * delta * delta
        return total

    def first(self, i, side):
        """d(invariant)/dx_a or /dy_a, broadcastable to (N, M, D)."""
        kind, weights = self.invariants[i]
        if kind == "dot":
            return weights * (self.Y[None, :, :] if side == "x" else self.X[:, None, :])
        sign = 2 if side == "x" else -2
        return (self.X[:, None, :] - self.Y[None, :, :]) * (sign * weights)

    def second(self, i, sides):
        """The diagonal, (D,), of the second derivative; what is off it is zero."""
        kind, weights = self.invariants[i]
        mixed = sides[0] != sides[1]
        if kind == "dot":
            return weights if mixed else None
        return -2 * weights if mixed else 2 * weights


def _points(X):
    X = np.asarray(X)
    return X if X.dtype == np.longdouble else X.astype(np.float64)


def _leaf(kernel, real, n_columns):
    """(kind of invariant, its weights or None, jet, smoothness) of a kernel that has one."""
    if hasattr(kernel, "invariant") and hasattr(kernel, "jet"):
        smoothness = getattr(kernel, "smoothness", np.inf)
        per_order = 2 if kernel.invariant == "sqdist" else 1

        def own(a, order):
            # What is singular is stored as 0.
            jet = enumerate(kernel.jet(a, order))
            return [np.where((a == 0) & (per_order * n >= smoothness), 0, f) for n, f in jet]

        return kernel.invariant, None, own, smoothness
    if isinstance(kernel, sk.Matern | sk.RBF):
        scale = 1 / np.asarray(kernel.length_scale, real) ** 2
        if scale.size == 1:
            weights, factor = None, scale.reshape(())[()]
        else:
            weights, factor = scale, real(1)
        if not isinstance(kernel, sk.Matern) or kernel.nu == np.inf:
            return "sqdist", weights, _scaled(_jet_exponential, factor / 2), np.inf

        def matern(s, order):
            return _jet_matern(s, order, kernel.nu)

        return "sqdist", weights, _scaled(matern, factor), 2 * kernel.nu
    if isinstance(kernel, sk.RationalQuadratic):
        alpha, factor = real(kernel.alpha), 1 / real(kernel.length_scale) ** 2

        def rational(s, order):
            return _jet_rational_quadratic(s, order, alpha)

        return "sqdist", None, _scaled(rational, factor), np.inf
    if isinstance(kernel, sk.ExpSineSquared):
        length_scale, periodicity = real(kernel.length_scale), real(kernel.periodicity)

        def periodic(s, order):
            return _jet_exp_sine_squared(s, order, length_scale, periodicity)

        return "sqdist", None, periodic, np.inf
    if isinstance(kernel, sk.DotProduct):
        return "dot", None, _scaled(_jet_identity, real(1), real(kernel.sigma_0) ** 2), np.inf
    if isinstance(kernel, sk.PairwiseKernel):
        options = kernel.pairwise_kernels_kwargs or {}
        gamma = real(1) / n_columns if kernel.gamma is None else real(kernel.gamma)
        coef0 = real(options.get("coef0", 1))
        if kernel.metric == "linear":
            return "dot", None, _jet_identity, np.inf
        if kernel.metric == "rbf":
            return "sqdist", None, _scaled(_jet_exponential, gamma), np.inf
        if kernel.metric in ("poly", "polynomial"):
            degree = real(options.get("degree", 3))

            def poly(u, order):
                return _power_law(u, degree, order)

            return "dot", None, _scaled(poly, gamma, coef0), np.inf
        if kernel.metric == "sigmoid":
            return "dot", None, _scaled(_jet_tanh, gamma, coef0), np.inf
    raise TypeError(f"the reference knows no derivatives of {kernel!r}")


def _is_positive(kernel):
    """Whether the exact value is positive everywhere, so that a computed zero is an underflow."""
    if isinstance(kernel, sk.Sum | sk.Product):
        return _is_positive(kernel.k1) and _is_positive(kernel.k2)
    if isinstance(kernel, sk.Exponentiation) or type(kernel).__name__ == "Columns":
        return _is_positive(kernel.kernel)
    if isinstance(kernel, sk.PairwiseKernel):
        return kernel.metric == "rbf"
    if isinstance(kernel, sk.ConstantKernel):
        return kernel.constant_value > 0
    return isinstance(
        kernel, sk.RBF | sk.Matern | sk.RationalQuadratic | sk.ExpSineSquared | sk.WhiteKernel
    )


def _jet(kernel, pairs, order, columns=None):
    """The jet of any kernel; `columns` are those of X that the kernel sees."""
    if columns is None:
        columns = np.arange(pairs.X.shape[1])
    if isinstance(kernel, sk.Sum):
        return _add(_jet(kernel.k1, pairs, order, columns), _jet(kernel.k2, pairs, order, columns))
    if isinstance(kernel, sk.Product):
        return _multiply(
            _jet(kernel.k1, pairs, order, columns), _jet(kernel.k2, pairs, order, columns), order
        )
    if isinstance(kernel, sk.Exponentiation):
        if kernel.exponent == 0:
            return {(): np.ones(pairs.shape, pairs.real)}
        base = _jet(kernel.kernel, pairs, order, columns)
        return _power(base, pairs.real(kernel.exponent), order, _is_positive(kernel.kernel))
    if type(kernel).__name__ == "Columns":
        return _jet(kernel.kernel, pairs, order, columns[np.asarray(kernel.dims)])
    if isinstance(kernel, sk.ConstantKernel):
        return {(): np.full(pairs.shape, pairs.real(kernel.constant_value))}
    if isinstance(kernel, sk.WhiteKernel):
        # Zero in all derivatives, also inside products and powers: as a function of x with y
        # fixed, the noise of a pair is zero in all of the neighbourhood.
        if order > 0 or not pairs.same:
            return {(): np.zeros(pairs.shape, pairs.real)}
        return {(): pairs.real(kernel.noise_level) * np.eye(pairs.shape[0], dtype=pairs.real)}
    kind, own_weights, jet, smoothness = _leaf(kernel, pairs.real, len(columns))
    weights = np.zeros(pairs.X.shape[1], pairs.real)
    np.add.at(weights, columns, pairs.real(1) if own_weights is None else own_weights)
    i = pairs.number(kind, weights, smoothness)
    return {(i,) * n: f for n, f in enumerate(jet(pairs.value(i), order))}


# ---------------------------------------------------------------------------------------------
# The chain rule over the geometry of s and p
# ---------------------------------------------------------------------------------------------


def derivative(kernel, X, Y=None, sides="", letters=None):
    """Any partial derivative of a kernel, for all pairs.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The kernel.
    X : array_like, shape (N, D)
        Points.
    Y : array_like, shape (M, D), optional
        Points; X by default.
    sides : str
        One "x" or "y" for each derivative.
    letters : str, optional
        One letter for each derivative, the axis of the result that it runs along; the same
        letter twice takes a diagonal. By default all are different.

    Returns
    -------
    ndarray, shape (N, M, D, ..., D)
        One axis of length D for each different letter. NaN where the derivative does not exist.
    """
    order = len(sides)
    pairs = _Pairs(X, Y, same=Y is None)
    jet = _jet(kernel, pairs, order)
    D = pairs.X.shape[1]
    letters = "abcdefgh"[:order] if letters is None else letters
    axes = "".join(dict.fromkeys(letters))
    numbers = range(len(pairs.invariants))
    factors = {(i, side): pairs.first(i, side) for i in numbers for side in set(sides)}
    factors |= {(i, a + b): pairs.second(i, a + b) for i in numbers for a in sides for b in sides}
    out = None
    for blocks in _set_partitions(tuple(range(order))):
        # A block of derivatives hits one invariant, and s and p have no third derivative.
        if any(len(block) > 2 for block in blocks):
            continue
        name = _merged(letters, blocks)
        merged = "".join(name[letter] for letter in axes)
        for chosen in itertools.product(numbers, repeat=len(blocks)):
            term, labels = jet.get(tuple(sorted(chosen))), "ij"
            hit = [
                factors[i, "".join(sides[n] for n in block)]
                for block, i in zip(blocks, chosen, strict=True)
            ]
            if term is None or any(factor is None for factor in hit):
                continue
            for block, factor in zip(blocks, hit, strict=True):
                axis = name[letters[block[0]]]
                its = "ij" + axis if len(block) == 1 else axis
                product = labels if axis in labels else labels + axis
                term = np.einsum(f"{labels},{its}->{product}", term, factor, order="C")
                labels = product
            unique = "".join(dict.fromkeys(merged))
            term = np.einsum(f"{labels}->ij{unique}", term)
            if out is None and merged == axes:
                out = term
                continue
            if out is None:
                out = np.zeros((*pairs.shape, *(D,) * len(axes)), pairs.real)
            # A view of the diagonal where axes have merged, so no Kronecker delta is stored.
            view = np.einsum(f"ij{merged}->ij{unique}", out)
            view += term
    if out is None:
        out = np.zeros((*pairs.shape, *(D,) * len(axes)), pairs.real)
    for i, smoothness in enumerate(pairs.smoothness):
        if order >= smoothness:
            _erase(out, pairs, i, letters, axes)
    return out


def _merged(letters, blocks):
    """The axis of each letter when the two axes of every second derivative become one."""
    name = {letter: letter for letter in letters}
    for block in blocks:
        if len(block) == 2:
            old, new = name[letters[block[1]]], name[letters[block[0]]]
            name = {letter: new if axis == old else axis for letter, axis in name.items()}
    return name


def _erase(out, pairs, i, letters, axes):
    """NaN for the derivatives that do not exist where the points coincide in invariant i.

    Only derivatives along columns that the invariant sees count: those of a kernel on the first
    column exist in the second one.
    """
    coincident = pairs.value(i) == 0
    sees = pairs.invariants[i][1] != 0
    count = np.zeros(out.shape[2:], int)
    for letter in letters:
        place = axes.index(letter)
        count += sees.reshape([-1 if n == place else 1 for n in range(len(axes))])
    missing = coincident.reshape(coincident.shape + (1,) * len(axes)) & (
        count >= pairs.smoothness[i]
    )
    out[missing] = np.nan


# ---------------------------------------------------------------------------------------------
# The functions of the public interface
# ---------------------------------------------------------------------------------------------


def kernel_matrix(kernel, X, Y=None):
    """The values k(x_i, y_j), shape (N, M)."""
    return derivative(kernel, X, Y)


def gradient(kernel, X, Y=None, wrt="x"):
    """The gradients with respect to x or y, shape (N, M, D)."""
    return derivative(kernel, X, Y, wrt)


def hessian_diag(kernel, X, Y=None, wrt="xx"):
    """The diagonals of the Hessian blocks, shape (N, M, D)."""
    return derivative(kernel, X, Y, wrt, "aa")


def hessian(kernel, X, Y=None, wrt="xx", layout="full"):
    """The Hessian blocks, (N, M, D, D), or packed a <= b row by row, (N, M, D(D+1)/2)."""
    full = derivative(kernel, X, Y, wrt)
    if layout == "full":
        return full
    a, b = np.triu_indices(full.shape[-1])
    return full[:, :, a, b]


def tanh_basis(X, W):
    """tanh(X a + b) with slopes a = W[:-1] and biases b = W[-1], shape (N, K)."""
    X, W = _points(X), _points(W)
    return np.tanh(X @ W[:-1] + W[-1])


def tanh_jacobian(X, W, layout="compact"):
    """The Jacobian of `tanh_basis` with respect to W.

    Compact (N, D+1, K); full (N, K, D+1, K) with the zeros of the Kronecker delta;
    matrix (N K, (D+1) K).
    """
    X, W = _points(X), _points(W)
    slope = _sech2(X @ W[:-1] + W[-1])
    augmented = np.concatenate([X, np.ones((len(X), 1), X.dtype)], axis=1)
    compact = augmented[:, :, None] * slope[:, None, :]
    if layout == "compact":
        return compact
    N, rows, K = compact.shape
    full = np.zeros((N, K, rows, K), compact.dtype)
    np.einsum("nkdk->ndk", full)[...] = compact
    return full if layout == "full" else full.reshape(N * K, rows * K)


def tanh_stack(X, weights):
    """Layers of tanh units, the functions of one being the inputs of the next, (N, K)."""
    for W in weights:
        X = tanh_basis(X, W)
    return X


def tanh_stack_jacobians(X, weights):
    """The Jacobians of `tanh_stack` with respect to the weights of each layer, (N, K, D_l+1, K_l).

    Forward through the layers above, each of which multiplies with its derivative by its inputs.
    """
    jacobians = []
    for layer, W in enumerate(weights):
        points = tanh_stack(X, weights[:layer])
        J = tanh_jacobian(points, W, layout="full")
        for above in range(layer + 1, len(weights)):
            points = tanh_stack(X, weights[:above])
            J = np.einsum("nkj,njab->nkab", tanh_input_jacobian(points, [weights[above]]), J)
        jacobians.append(J)
    return jacobians


def tanh_input_jacobian(X, weights):
    """The Jacobian of `tanh_stack` with respect to the points, (N, K, D)."""
    X = _points(X)
    J = np.broadcast_to(np.eye(X.shape[1], dtype=X.dtype), (len(X), X.shape[1], X.shape[1]))
    for W in map(_points, weights):
        slope = _sech2(X @ W[:-1] + W[-1])
        J = slope[:, :, None] * np.einsum("jk,njd->nkd", W[:-1], J)
        X = tanh_basis(X, W)
    return J


def tanh_input_hessian(X, weights):
    """The second derivatives of `tanh_stack` with respect to the points, (N, K, D, D).

    By the chain rule from the last layer down: H = f' H_below + J_below' f'' J_below.
    """
    *below, W = map(_points, weights)
    points = tanh_stack(_points(X), below)
    z = points @ W[:-1] + W[-1]
    slope, curvature = _sech2(z), -2 * np.tanh(z) * _sech2(z)
    J = np.einsum("jk,njd->nkd", W[:-1], tanh_input_jacobian(X, below))
    H = curvature[:, :, None, None] * J[:, :, :, None] * J[:, :, None, :]
    if below:
        inner = np.einsum("jk,njab->nkab", W[:-1], tanh_input_hessian(X, below))
        H = H + slope[:, :, None, None] * inner
    return H


# ---------------------------------------------------------------------------------------------
# Covariances of linear functionals
# ---------------------------------------------------------------------------------------------

#: The orders of the derivatives that a functional stacks for each point, by its class name.
_ORDERS = {
    "Value": (0,),
    "Gradient": (1,),
    "ValueGradient": (0, 1),
    "Directional": (1,),
    "Hessian": (2,),
    "Laplacian": (2,),
}


def _apply(functional, order, tensor, axis):
    """Turn the derivative axes of one side, `axis` and on, into the one axis of the functional."""
    name = type(functional).__name__
    if order == 0:
        return np.expand_dims(tensor, axis)
    if name == "Directional":
        V = _points(functional.V)
        points = 0 if axis == 2 else 1
        moved = np.moveaxis(np.moveaxis(tensor, axis, -1), points, -2)
        contracted = np.sum(moved * np.broadcast_to(V, moved.shape[-2:]), axis=-1)
        return np.expand_dims(np.moveaxis(contracted, -1, points), axis)
    if name == "Laplacian":
        return np.trace(tensor, axis1=axis, axis2=axis + 1)[
            (slice(None),) * axis + (None, Ellipsis)
        ]
    entries = math.prod(tensor.shape[axis : axis + order])
    return tensor.reshape(*tensor.shape[:axis], entries, *tensor.shape[axis + order :])


def _block(kernel, row, col, same):
    """The covariance of two functionals, point-major on both sides."""
    stacked = []
    for r in _ORDERS[type(row).__name__]:
        beside = []
        for c in _ORDERS[type(col).__name__]:
            tensor = derivative(kernel, row.X, None if same else col.X, "x" * r + "y" * c)
            beside.append(_apply(col, c, _apply(row, r, tensor, 2), 3))
        stacked.append(np.concatenate(beside, axis=3))
    block = np.concatenate(stacked, axis=2)
    N, M, rows, cols = block.shape
    block = block.transpose(0, 2, 1, 3).reshape(N * rows, M * cols)
    return block[np.ix_(_kept(row, N * rows), _kept(col, M * cols))]


def _kept(functional, length):
    mask = getattr(functional, "mask", None)
    return np.arange(length) if mask is None else np.flatnonzero(mask)


def covariance(kernel, rows, cols=None):
    """The covariance of linear functionals of a Gaussian process, dense.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The kernel of the process.
    rows, cols : functional or list of functionals
        Value, Gradient, ValueGradient, Directional, Hessian or Laplacian, recognised by the name
        of the class and the attributes X, V and mask; without `cols` they are `rows`, and
        WhiteKernel adds to the values on the diagonal.

    Returns
    -------
    ndarray, shape (n_rows, n_cols)
        The blocks in the order of the lists, each point-major.
    """
    rows = rows if isinstance(rows, list | tuple) else [rows]
    given = cols is not None
    cols = rows if not given else cols if isinstance(cols, list | tuple) else [cols]
    return np.block(
        [
            [_block(kernel, row, col, not given and i == j) for j, col in enumerate(cols)]
            for i, row in enumerate(rows)
        ]
    )
