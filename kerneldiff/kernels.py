"""From a scikit-learn kernel object to the program that the C core runs.

A kernel is a scalar function of a few invariants of a pair of points.  Reading one gives a small
tree of terms.  Compiling the tree for derivatives of some order in the invariants gives a list of
steps over buffers of the tile (`kerneldiff._core.Program`): jets of the leaves, then arithmetic on
them by the rules of Leibniz and Faà di Bruno, which are written out here once and for all, so that
the C core only ever adds and multiplies buffers.  No rule divides by a factor, which may be zero.

A kernel of scikit-learn's is one function and one line in `READERS`, and for each of its
hyperparameters one line in `HYPERPARAMETERS`.

A kernel of one's own is a subclass of scikit-learn's ``Kernel`` with these:

invariant : {"sqdist", "dot"}
    What it is a function F of, a squared distance s or a dot product p.
jet(a, order)
    F and its derivatives with respect to the invariant at the n values `a`, an array of shape
    (order + 1, n). Or a `scipy.LowLevelCallable` of the signature `_core.SIGNATURE`.
weights : array of shape (D,), optional
    Those of the columns in the invariant.
smoothness : float, optional
    2 nu: derivatives of lower order exist where the invariant is 0. What `jet` returns there of
    derivatives of F that are singular is not looked at: it may be infinite, or NaN. Where it is
    below 2, second derivatives of points that almost coincide lose the digits that cancel in
    2 F' + 4 s F''.
jet_gradient(a, order)
    Only for derivatives with respect to its hyperparameters, if it has any that are not fixed: the
    derivatives of the jet with respect to each entry of its ``theta``, that is to logarithms, an
    array of shape (n_theta, order + 1, n). The values `a` do not move with the hyperparameters.
weights_gradient()
    Likewise, and only if `weights` depends on hyperparameters: its derivatives with respect to each
    entry of ``theta``, an array of shape (n_theta, D). What they do to F is worked out from `jet`.
"""

import functools
import itertools
import math
import operator
import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import LowLevelCallable
from sklearn.gaussian_process import kernels as sk

from kerneldiff import _core
from kerneldiff._core import Program
from kerneldiff._validation import counted, quietly

# -------------------------------------------------------------------------------------- terms

# Coefficients of (x, y, u, v), with the directions u and v of directional derivatives.
_DIFFERENCE = (1.0, -1.0, 0.0, 0.0)
_X = (1.0, 0.0, 0.0, 0.0)
_Y = (0.0, 1.0, 0.0, 0.0)
_U = (0.0, 0.0, 1.0, 0.0)
_V = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Invariant:
    """A number that a pair has: Σ_d w_d L_d R_d, L and R linear combinations of its vectors.

    Parameters
    ----------
    kind : {"sqdist", "dot", "bilinear"}
    weights : tuple of float
        One for each column; None if all are 1.
    left, right : tuple of float
        The coefficients of x, y and the directions u and v in L and R.
    """

    kind: str
    weights: tuple | None = None
    left: tuple = _DIFFERENCE
    right: tuple = _DIFFERENCE

    def embedded(self, dims, d):
        """Return the same for points of `d` columns of which it sees `dims` only."""
        weights = np.zeros(d)
        weights[list(dims)] = 1.0 if self.weights is None else self.weights
        return replace(self, weights=tuple(weights.tolist()))

    def gradient(self, side):
        """Coefficients of the gradient with respect to x (side 0) or y (1), which is w times it."""
        return tuple(
            self.left[side] * r + self.right[side] * l
            for l, r in zip(self.left, self.right, strict=True)
        )

    def laplacian(self, side, d):
        """Sum of the unmixed second derivatives, a constant."""
        try:
            total = float(d) if self.weights is None else math.fsum(self.weights)
        except OverflowError:
            total = math.inf
        return 2.0 * self.left[side] * self.right[side] * total

    def times(self, other, d):
        """Products of the weights of two invariants."""
        if self.weights is None:
            return other.weights
        if other.weights is None:
            return self.weights
        return tuple(a * b for a, b in zip(self.weights, other.weights, strict=True))


_SQDIST = Invariant("sqdist")
_DOT = Invariant("dot", None, _X, _Y)


@dataclass(frozen=True, slots=True)
class Leaf:
    """amplitude * F(scale * invariant; parameters), with F a jet of src/jets.h or a callback.

    Parameters
    ----------
    jet : str
        A name of `_core.OPS`.
    invariant : Invariant
    scale : float
        1 / length_scale², say.
    parameters : tuple of float
        Those that the jet has beyond amplitude and scale.
    amplitude : float
    smoothness : float
        2 nu: derivatives of lower order exist where the invariant is 0.
    callback : tuple
        Kind and data of a jet that is not compiled in, see `_make_callback`.
    derivative : int
        Of a derivative of F of this order, in place of F. Only next to as many factors that vanish
        with the invariant, which make the product as smooth as F itself.
    """

    jet: str
    invariant: Invariant
    scale: float = 1.0
    parameters: tuple = ()
    amplitude: float = 1.0
    smoothness: float = math.inf
    callback: object = None
    derivative: int = 0

    def scaled(self, factor):
        return replace(self, amplitude=self.amplitude * factor)

    def embedded(self, dims, d):
        return replace(self, invariant=self.invariant.embedded(dims, d))


@dataclass(frozen=True, slots=True)
class Constant:
    """A term that is the same for all pairs.

    Parameters
    ----------
    value : float
    """

    value: float

    def scaled(self, factor):
        return Constant(self.value * factor)

    def embedded(self, dims, d):
        return self


@dataclass(frozen=True, slots=True)
class White:
    """Noise: `level` where a point meets itself, and 0 elsewhere and in all derivatives.

    Parameters
    ----------
    level : float
    """

    level: float

    def scaled(self, factor):
        return White(self.level * factor)

    def embedded(self, dims, d):
        return self


@dataclass(frozen=True, slots=True)
class Sum:
    """left + right.

    Parameters
    ----------
    left, right : tree of terms
    """

    left: object
    right: object

    def scaled(self, factor):
        return Sum(self.left.scaled(factor), self.right.scaled(factor))

    def embedded(self, dims, d):
        return Sum(self.left.embedded(dims, d), self.right.embedded(dims, d))


@dataclass(frozen=True, slots=True)
class Product:
    """left * right.

    Parameters
    ----------
    left, right : tree of terms
    """

    left: object
    right: object

    def scaled(self, factor):
        return Product(self.left.scaled(factor), self.right)

    def embedded(self, dims, d):
        return Product(self.left.embedded(dims, d), self.right.embedded(dims, d))


@dataclass(frozen=True, slots=True)
class Power:
    """base ** exponent.

    Parameters
    ----------
    base : tree of terms
    exponent : float
    vanishing : bool
        Only with exponent -1 and a positive base: 0 where that has underflowed. Next to factors
        that have done so, too.
    """

    base: object
    exponent: float
    vanishing: bool = False

    def scaled(self, factor):
        return Product(Constant(factor), self)

    def embedded(self, dims, d):
        return replace(self, base=self.base.embedded(dims, d))


Term = Leaf | Constant | White | Sum | Product | Power


def leaves(term):
    """Yield the leaves of a tree, from left to right.

    Parameters
    ----------
    term : tree of terms

    Yields
    ------
    Leaf
    """
    if isinstance(term, Leaf):
        yield term
    elif isinstance(term, Sum | Product):
        yield from leaves(term.left)
        yield from leaves(term.right)
    elif isinstance(term, Power):
        yield from leaves(term.base)


def with_noise(term):
    """Return the tree as it stands where a point meets itself: its noise is a constant there.

    Parameters
    ----------
    term : tree of terms

    Returns
    -------
    tree of terms or None
        None if there is no noise in it.
    """
    if isinstance(term, White):
        return Constant(term.level)
    if isinstance(term, Sum | Product):
        left, right = with_noise(term.left), with_noise(term.right)
        if left is None and right is None:
            return None
        return type(term)(left or term.left, right or term.right)
    if isinstance(term, Power):
        base = with_noise(term.base)
        return base and replace(term, base=base)
    return None


# ------------------------------------------------------------------------------------- reading


def _positive(kernel, name):
    value = getattr(kernel, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(
            f"{name} of {type(kernel).__name__} is {value!r}; it must be finite and positive."
        )
    return number


def _number(kernel, name):
    value = getattr(kernel, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{name} of {type(kernel).__name__} is {value!r}; it must be a finite number."
        )
    return number


def _power(value, exponent):
    """A number to a power, as NumPy has it: 0 to the power of 0 is 1, and nothing is an error."""
    with np.errstate(all="ignore"):
        return float(np.float64(value) ** exponent)


def _inverse_square(kernel, length_scale, name):
    """1 / length_scale², a number or a tuple, which must be in the range of numbers."""
    with np.errstate(all="ignore"):
        weights = 1.0 / np.square(length_scale)
        good = np.isfinite(weights) & (weights > 0) & (length_scale > 0)
    if not np.all(good):
        bad = np.atleast_1d(length_scale)[~np.atleast_1d(good)][0]
        raise ValueError(
            f"{name} of {type(kernel).__name__} has the value {bad:g}; it must be finite and "
            "positive, and so must the inverse of its square be."
        )
    return float(weights) if weights.ndim == 0 else tuple(weights.tolist())


def _stationary(jet, kernel, d, parameters=(), smoothness=math.inf, callback=None):
    """A leaf in s: one length scale goes into the jet, several become weights."""
    length_scale = kernel.length_scale
    if isinstance(length_scale, (float, int)):
        if not 1e-150 < length_scale < 1e150:
            _inverse_square(kernel, np.float64(length_scale), "length_scale")
        scale, invariant = float(1.0 / (length_scale * length_scale)), _SQDIST
    else:
        try:
            length_scale = np.squeeze(np.asarray(length_scale, dtype=np.float64))
        except (TypeError, ValueError):
            raise ValueError(
                f"length_scale of {type(kernel).__name__} is {kernel.length_scale!r}; it may be a "
                "number or an array of numbers."
            ) from None
        if length_scale.ndim > 1 or (length_scale.ndim == 1 and length_scale.size != d):
            raise ValueError(
                f"length_scale of {type(kernel).__name__} has shape {length_scale.shape}; it may "
                f"be a number or have one entry for each of the {d} columns of X."
            )
        weights = _inverse_square(kernel, length_scale, "length_scale")
        if length_scale.ndim == 1:
            scale, invariant = 1.0, Invariant("sqdist", weights)
        else:
            scale, invariant = weights, _SQDIST
    return Leaf(jet, invariant, scale, parameters, 1.0, smoothness, callback)


def _read_rbf(kernel, d):
    return _stationary("rbf", kernel, d)


_MATERN = {0.5: "matern12", 1.5: "matern32", 2.5: "matern52", math.inf: "rbf"}


def _read_matern(kernel, d):
    nu = kernel.nu
    if not (isinstance(nu, (int, float, np.number)) and nu > 0):
        raise ValueError(f"nu of {type(kernel).__name__} is {nu!r}; it must be positive.")
    if nu in _MATERN:
        return _stationary(_MATERN[nu], kernel, d, (), 2.0 * nu)
    parameters = (_first_singular(_SQDIST, 2.0 * nu),)
    return _stationary("callback", kernel, d, parameters, 2.0 * nu, ("matern", float(nu)))


def _read_rational_quadratic(kernel, d):
    alpha = _positive(kernel, "alpha")
    leaf = _stationary("rational_quadratic", kernel, d, (alpha,))
    if not 0 < float(leaf.scale) / (2.0 * alpha) < math.inf:
        raise ValueError(
            f"alpha of {type(kernel).__name__} has the value {alpha:g}; with length_scale="
            f"{kernel.length_scale:g}, 1 / (2 alpha length_scale²) must be finite and positive."
        )
    return leaf


def _read_exp_sine_squared(kernel, d):
    period, length_scale = (
        np.float64(_positive(kernel, name)) for name in ("periodicity", "length_scale")
    )
    scale = _inverse_square(kernel, period, "periodicity")
    _inverse_square(kernel, length_scale, "length_scale")
    return Leaf("exp_sine_squared", _SQDIST, scale, (float(length_scale),))


def _read_dot_product(kernel, d):
    square = _power(_number(kernel, "sigma_0"), 2)
    if square == math.inf:
        raise ValueError(
            f"sigma_0 of {type(kernel).__name__} has the value {kernel.sigma_0:g}; its square must "
            "be finite."
        )
    return Leaf("linear", _DOT, 1.0, (square,))


def _read_pairwise(kernel, d):
    options = dict(kernel.pairwise_kernels_kwargs or {})
    metric = kernel.metric
    if metric == "linear" and not options:
        return Leaf("linear", _DOT, 1.0, (0.0,))
    gamma = 1.0 / max(d, 1) if kernel.gamma is None else _number(kernel, "gamma")
    coef0 = options.pop("coef0", 1) if metric in ("poly", "polynomial", "sigmoid") else 0
    degree = options.pop("degree", 3) if metric in ("poly", "polynomial") else 0
    if metric in ("rbf", "poly", "polynomial", "sigmoid") and not options:
        if metric == "rbf":
            if math.isinf(2.0 * gamma):
                raise ValueError(
                    f"gamma of {type(kernel).__name__} is {gamma:g}; twice that must be finite."
                )
            return Leaf("rbf", _SQDIST, 2.0 * gamma)
        if metric == "sigmoid":
            return Leaf("sigmoid", _DOT, gamma, (float(coef0),))
        return Leaf("power", _DOT, gamma, (float(degree), float(coef0)))
    raise TypeError(
        f"kernel has a part that cannot be read: {kernel!r} with metric={metric!r}"
        + (f" and {options}" if options else "")
        + "; what can be read are the metrics 'rbf', 'linear', 'poly' and 'sigmoid'. "
        + _instead_of(metric)
    )


def _instead_of(metric):
    """What to do about a metric of PairwiseKernel that cannot be read."""
    if metric == "laplacian":
        return (
            "This one is the product, over the columns a, of Columns(Matern(1 / gamma, nu=0.5), "
            "[a]), which can be read, and is too rough for gradients to be observed or predicted."
        )
    if callable(metric):
        return (
            "One that is a function of the squared distance or the dot product of points can be "
            "written as a subclass of scikit-learn's Kernel with an attribute `invariant` and a "
            "method `jet`."
        )
    return "Another kernel is needed."


def _read_constant(kernel, d):
    return Constant(_number(kernel, "constant_value"))


def _read_white(kernel, d):
    return White(_number(kernel, "noise_level"))


def _read_sum(kernel, d):
    left, right = read(kernel.k1, d), read(kernel.k2, d)
    if isinstance(left, Constant) and isinstance(right, Constant):
        return Constant(left.value + right.value)
    return Sum(left, right)


def _read_product(kernel, d):
    left, right = read(kernel.k1, d), read(kernel.k2, d)
    if isinstance(left, Constant):
        return right.scaled(left.value)
    if isinstance(right, Constant):
        return left.scaled(right.value)
    return Product(left, right)


def _read_exponentiation(kernel, d):
    base, exponent = read(kernel.kernel, d), _number(kernel, "exponent")
    if isinstance(base, Constant):
        return Constant(_power(base.value, exponent))
    return _raised(base, exponent)


def _raised(base, p):
    """The tree of base ** p, simpler where the base is a power itself."""
    if p == 0:
        return Constant(1.0)
    if isinstance(base, Leaf) and base.amplitude > 0 and p > 0 and not base.derivative:
        weights = base.invariant.weights or (1.0,)
        raised = replace(base, amplitude=_power(base.amplitude, p), scale=base.scale * p)
        if base.jet == "rational_quadratic":
            raised = replace(raised, parameters=(base.parameters[0] * p,))
        numbers = (raised.amplitude, *raised.parameters, *(raised.scale * w for w in weights if w))
        in_range = all(sys.float_info.min <= number < math.inf for number in numbers)
        if base.jet in ("rbf", "rational_quadratic") and in_range:
            return raised
    return Power(base, p)


def _read_columns(kernel, d):
    dims = kernel.checked_dims(d)
    return read(kernel.kernel, len(dims)).embedded(dims, d)


def _read_own(kernel, d):
    """A kernel of the user's, see the top of this file."""
    if kernel.invariant not in ("sqdist", "dot"):
        raise ValueError(
            f"invariant of {type(kernel).__name__} is {kernel.invariant!r}; it may be 'sqdist' or "
            "'dot'."
        )
    invariant = _SQDIST if kernel.invariant == "sqdist" else _DOT
    weights = getattr(kernel, "weights", None)
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (d,) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
            raise ValueError(
                f"weights of {type(kernel).__name__} is {weights}; it must hold {d} finite numbers "
                "that are not negative, one for each column of X."
            )
        invariant = replace(invariant, weights=tuple(weights.tolist()))
    smoothness = getattr(kernel, "smoothness", math.inf)
    if not (isinstance(smoothness, int | float | np.number) and smoothness > 0):
        raise ValueError(
            f"smoothness of {type(kernel).__name__} is {smoothness!r}; it must be positive."
        )
    parameters = (_first_singular(invariant, smoothness),)
    callback = ("own", _Same(kernel.jet))
    return Leaf("callback", invariant, 1.0, parameters, 1.0, float(smoothness), callback)


def _first_singular(invariant, smoothness):
    """From which order on derivatives of F are singular where the invariant is 0.

    A squared distance is of second order there, a dot product of first.
    """
    per_order = 2 if invariant.kind == "sqdist" else 1
    return float(min(math.ceil(min(smoothness, 100.0) / per_order), _core.MAX_ORDER + 1))


class _Same:
    """Holds a function that equals nothing else: what depends on it is not kept for later."""

    def __init__(self, function):
        self.function = function


class Columns(sk.Kernel):
    """A kernel on some of the columns of the points.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        The kernel; its length scales are those of the columns `dims`, in that order.
    dims : sequence of int, or slice
        The columns it sees.

    See Also
    --------
    sklearn.compose.ColumnTransformer : The same idea for estimators.

    Examples
    --------
    Seasonal in the first column, smooth in the others:

    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF, ExpSineSquared
    >>> from kerneldiff import Columns, gradient
    >>> kernel = Columns(ExpSineSquared(1.0, 365.0), [0]) * Columns(RBF([2.0, 3.0]), [1, 2])
    >>> gradient(kernel, np.zeros((4, 3))).shape
    (4, 4, 3)
    """

    def __init__(self, kernel: Any, dims: Any) -> None:
        self.kernel = kernel
        self.dims = dims

    def checked_dims(self, d):
        """Return the columns as a tuple, checked against points of `d` columns.

        Parameters
        ----------
        d : int

        Returns
        -------
        tuple of int

        Raises
        ------
        ValueError
            If a column does not exist, or stands twice.
        """
        try:
            dims = range(d)[self.dims] if isinstance(self.dims, slice) else self.dims
        except (TypeError, ValueError):  # a slice of something else than numbers
            dims = ()
        dims = np.atleast_1d(np.asarray(dims, dtype=object))
        dims = tuple(a.item() if isinstance(a, np.generic) else a for a in dims.ravel()) * (
            dims.ndim == 1
        )
        if (
            not dims
            or not all(isinstance(a, int) and not isinstance(a, bool) and 0 <= a < d for a in dims)
            or len(set(dims)) < len(dims)
        ):
            raise ValueError(
                f"dims of {self!r} is {self.dims!r}; it must hold different column numbers from 0 "
                f"to {d - 1}, or be a slice of these."
            )
        return dims

    def get_params(self, deep=True):
        """Get the parameters, those of the inner kernel included.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        params = {"kernel": self.kernel, "dims": self.dims}
        if deep:
            inner = self.kernel.get_params().items()
            params.update((f"kernel__{name}", value) for name, value in inner)
        return params

    @property
    def hyperparameters(self):
        """The hyperparameters of the inner kernel."""
        return [
            sk.Hyperparameter(f"kernel__{h.name}", h.value_type, h.bounds, h.n_elements)
            for h in self.kernel.hyperparameters
        ]

    @property
    def theta(self):
        """The hyperparameters that are not fixed, as logarithms, shape (n_dims,)."""
        return self.kernel.theta

    @theta.setter
    def theta(self, theta):
        self.kernel.theta = theta

    @property
    def bounds(self):
        """Bounds of `theta`, shape (n_dims, 2)."""
        return self.kernel.bounds

    def __eq__(self, other):
        return (
            type(self) is type(other)
            and self.kernel == other.kernel
            and np.array_equal(self.dims, other.dims)
        )

    def _cut(self, X):
        X = np.asarray(X)
        return X[:, list(self.checked_dims(X.shape[1]))]

    def __call__(self, X, Y=None, eval_gradient=False):
        """Evaluate the kernel, as scikit-learn's kernels do."""
        X, Y = self._cut(X), None if Y is None else self._cut(Y)
        return self.kernel(X, Y, eval_gradient=True) if eval_gradient else self.kernel(X, Y)

    def diag(self, X):
        """Evaluate the kernel where points meet themselves.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,)
        """
        return self.kernel.diag(self._cut(X))

    def is_stationary(self):
        """Tell whether the inner kernel is stationary."""
        return self.kernel.is_stationary()

    def __repr__(self):
        return f"Columns({self.kernel!r}, {self.dims!r})"


# THE list of what can be read, subclasses that change no formula included (`_kind`).
READERS = {
    sk.ConstantKernel: _read_constant,
    sk.WhiteKernel: _read_white,
    sk.RBF: _read_rbf,
    sk.Matern: _read_matern,
    sk.RationalQuadratic: _read_rational_quadratic,
    sk.ExpSineSquared: _read_exp_sine_squared,
    sk.DotProduct: _read_dot_product,
    sk.PairwiseKernel: _read_pairwise,
    sk.Sum: _read_sum,
    sk.Product: _read_product,
    sk.Exponentiation: _read_exponentiation,
    Columns: _read_columns,
}


def read(kernel, d):
    """Read a kernel for points of `d` coordinates into a tree of terms.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    d : int

    Returns
    -------
    Leaf, Constant, White, Sum, Product or Power

    Raises
    ------
    TypeError
        If a part of the kernel is of a kind that is not known; the part is named.
    ValueError
        If a hyperparameter has a value that the kernel cannot have.
    """
    reader = READERS.get(type(kernel))
    if reader is None:
        kind = _kind(kernel)
        reader = _read_own if kind is None else READERS[kind]
    return reader(kernel, d)


def _kind(kernel):
    """The class of `READERS` whose formula a kernel has, or None for a kernel of the user's."""
    cls = type(kernel)
    if cls in READERS:
        return cls
    name = f"{cls.__module__}.{cls.__qualname__}"
    own = isinstance(kernel, sk.Kernel) and hasattr(kernel, "invariant") and hasattr(kernel, "jet")
    # The class that says what the formula is.
    source = next((c for c in cls.__mro__ if ("jet" in vars(c) if own else c in READERS)), None)
    if source is None and not own:
        known = ", ".join(c.__name__ for c in READERS if issubclass(c, sk.Kernel))
        raise TypeError(
            f"kernel has a part that cannot be read: {kernel!r} of type {name}; what can be read "
            f"are {known}, and subclasses of scikit-learn's Kernel with an attribute `invariant` "
            "and a method `jet`."
        )
    for method in ("__call__", "diag"):
        if source is not None and _differs(cls, source, method):
            raise TypeError(
                f"kernel has a part that cannot be read: {kernel!r} of type {name} has a method "
                f"`{method}` other than that of {source.__name__}, which may change the formula; "
                "an attribute `invariant` and a method `jet` of its own say what it is."
            )
    return None if own else source


def _differs(cls, source, method):
    """Whether a class has another method than a class that it inherits from, if that has one."""
    new, old = (
        next((vars(c)[method] for c in of.__mro__ if method in vars(c)), None)
        for of in (cls, source)
    )
    return old is not None and not getattr(old, "__isabstractmethod__", False) and new is not old


# ------------------------------------------------------------ derivatives by hyperparameters

# Of a kernel, with respect to its hyperparameters on a logarithmic scale, as trees of the terms
# that there are: all that can be done with a kernel can be done with them.


@dataclass(frozen=True, slots=True)
class Derivative:
    """Derivatives of a kernel with respect to one hyperparameter, or to all of its length scales.

    Parameters
    ----------
    term : tree of terms
        The derivative with respect to ``theta[first]``; or, where there are `dims`, what the
        derivatives with respect to ``theta[first + k]`` have in common: they are -2 q_a times
        `term`, with a = ``dims[k]`` and q_a = ``weights[a]`` (x_a - y_a)².
    first : int
        Where these hyperparameters begin in theta.
    dims : tuple of int
        The columns that have a length scale each.
    weights : tuple of float
        1 / length_scale² for each of the D columns, 0 for those that the kernel does not see.
    """

    term: object
    first: int = 0
    dims: tuple | None = None
    weights: tuple | None = None

    @property
    def size(self):
        """Number of the hyperparameters."""
        return 1 if self.dims is None else len(self.dims)

    def times(self, factor):
        """Return the derivatives of the kernel times another tree."""
        return replace(self, term=_times(self.term, factor))

    def embedded(self, dims, d):
        """Return the same for points of `d` columns of which the kernel sees `dims` only."""
        term = self.term.embedded(dims, d)
        if self.dims is None:
            return replace(self, term=term)
        invariant = Invariant("sqdist", self.weights).embedded(dims, d)
        seen = tuple(dims[a] for a in self.dims)
        return replace(self, term=term, dims=seen, weights=invariant.weights)

    def combined(self, t):
        """Return the tree of a linear combination of the derivatives.

        Parameters
        ----------
        t : sequence of float
            The coefficients, one for each.

        Returns
        -------
        tree of terms
        """
        largest = max(map(abs, t))
        if largest == 0:
            return Constant(0.0)
        if self.dims is None:
            return self.term.scaled(t[0])
        # One invariant for all of them. The largest coefficient stands outside, as weights have to
        # be in the range of float32, too.
        weights = [0.0] * len(self.weights)
        for a, coefficient in zip(self.dims, t, strict=True):
            weights[a] = coefficient / largest * self.weights[a]
        linear = _linear(Invariant("sqdist", tuple(weights)), 1.0, -2.0 * largest)
        return _times(linear, self.term)

    def terms(self, d):
        """Return the derivatives as trees, one for each hyperparameter.

        Parameters
        ----------
        d : int
            Columns of the points.

        Returns
        -------
        list of trees of terms
        """
        if self.dims is None:
            return [self.term]
        one = np.eye(d) * self.weights
        return [
            _times(_linear(Invariant("sqdist", tuple(one[a].tolist())), 1.0, -2.0), self.term)
            for a in self.dims
        ]


def _times(left, right):
    """The tree of a product."""
    if isinstance(right, Constant):
        left, right = right, left
    if isinstance(left, Constant):
        return right.scaled(left.value) if left.value else left
    return Product(left, right)


def _linear(invariant, scale, amplitude):
    return Leaf("linear", invariant, scale, (0.0,), amplitude)


def _slope(leaf):
    """F' in place of F."""
    if leaf.jet == "rbf":
        return leaf.scaled(-0.5)
    return replace(leaf, derivative=leaf.derivative + 1)


def _by_scale(leaf, exponent):
    """The scale goes with this power of the hyperparameter: u F'(u) times it, u the argument."""
    linear = _linear(leaf.invariant, leaf.scale, float(exponent))
    return Derivative(Product(linear, _slope(leaf)))


def _by_length_scale(leaf):
    weights = leaf.invariant.weights
    if weights is None:
        return _by_scale(leaf, -2)
    return Derivative(_slope(leaf), 0, tuple(range(len(weights))), weights)


def _by_period(leaf):
    return _by_scale(leaf, -2)


def _by_itself(term):
    return Derivative(term)


def _by_alpha(leaf):
    logarithm = replace(leaf, jet="rational_quadratic_alpha", amplitude=1.0)
    return Derivative(Product(logarithm, leaf))


def _by_sine(leaf):
    """Of exp(-2 sin² / l²): 4 sin² / l² times it."""
    (length_scale,) = leaf.parameters
    amplitude = 4.0 / length_scale**2
    sine = replace(leaf, jet="sine_squared", parameters=(), amplitude=amplitude)
    return Derivative(Product(sine, leaf))


def _by_sigma(leaf):
    return Derivative(Constant(2.0 * leaf.parameters[0]))


def _by_gamma(leaf):
    # The linear kernel has no gamma in it.
    return Derivative(Constant(0.0)) if leaf.jet == "linear" else _by_scale(leaf, 1)


# The hyperparameters of kernels that are read into one term, in scikit-learn's order. Not by their
# property `hyperparameters`, which takes longer than all else that is done here.
HYPERPARAMETERS = {
    sk.ConstantKernel: {"constant_value": _by_itself},
    sk.WhiteKernel: {"noise_level": _by_itself},
    sk.RBF: {"length_scale": _by_length_scale},
    sk.Matern: {"length_scale": _by_length_scale},
    sk.RationalQuadratic: {"alpha": _by_alpha, "length_scale": _by_length_scale},
    sk.ExpSineSquared: {"length_scale": _by_sine, "periodicity": _by_period},
    sk.DotProduct: {"sigma_0": _by_sigma},
    sk.PairwiseKernel: {"gamma": _by_gamma},
}


def _derivatives(kernel, d):
    """The derivatives in the order of theta; `first` is not filled in."""
    kind, cls = _kind(kernel), type(kernel)
    if kind is None:
        return _of_own(kernel, read(kernel, d))
    rules = HYPERPARAMETERS.get(kind)
    if kind is not cls and (
        cls.theta is not kind.theta
        or (rules and [h.name for h in kernel.hyperparameters] != list(rules))
    ):
        raise NotImplementedError(
            f"{cls.__module__}.{cls.__qualname__} has hyperparameters other than those of "
            f"{kind.__name__}, and derivatives with respect to them are not known."
        )
    if issubclass(kind, sk.Sum):
        return _derivatives(kernel.k1, d) + _derivatives(kernel.k2, d)
    if issubclass(kind, sk.Product):
        left, right = read(kernel.k1, d), read(kernel.k2, d)
        return [part.times(right) for part in _derivatives(kernel.k1, d)] + [
            part.times(left) for part in _derivatives(kernel.k2, d)
        ]
    if issubclass(kind, sk.Exponentiation):
        base, whole = read(kernel.kernel, d), read(kernel, d)
        return [
            replace(part, term=_of_power(base, float(kernel.exponent), whole, part.term))
            for part in _derivatives(kernel.kernel, d)
        ]
    if issubclass(kind, Columns):
        dims = kernel.checked_dims(d)
        return [part.embedded(dims, d) for part in _derivatives(kernel.kernel, len(dims))]
    term = read(kernel, d)
    return [
        rule(term)
        for name, rule in rules.items()
        if not getattr(kernel, f"hyperparameter_{name}").fixed
    ]


def _of_power(base, p, whole, term):
    """p base^(p - 1) times the derivative of the base, `term`; `whole` is base^p."""
    if p == 0:
        return Constant(0.0)
    if p == 1:
        return term
    if isinstance(base, Constant):
        return Constant(p * whole.value * (term.value / base.value) if base.value else 0.0)
    if isinstance(whole, Leaf):
        # Not by the base, which underflows long before its roots.
        return _times(_over(term, base).scaled(p), whole)
    if p < 1 and is_positive(base):
        return _times(_times(term.scaled(p), Power(base, -1.0, vanishing=True)), whole)
    return _times(term.scaled(p), base if p == 2 else _raised(base, p - 1.0))


def _over(term, leaf):
    """A derivative of a leaf that `_raised` knows, divided by the leaf."""
    if isinstance(term, Constant):
        return term  # 0
    if isinstance(term, Product):
        return _times(term.left, _over(term.right, leaf))
    factor = term.amplitude / leaf.amplitude
    if not term.derivative:
        return Constant(factor)
    # The first derivative of (1 + u / (2 alpha))^-alpha.
    scale = leaf.scale / (2.0 * leaf.parameters[0])
    return Leaf("inverse_quadratic", leaf.invariant, scale, (), -0.5 * factor)


def _of_own(kernel, leaf):
    """The derivatives of a kernel of the user's, which gives those of its jet, and of its weights.

    The weights may be an attribute that is computed from hyperparameters.
    """
    count, cls = len(kernel.theta), type(kernel)
    if count == 0:
        return []
    source = next((c for c in cls.__mro__ if "jet_gradient" in vars(c)), cls)
    if not hasattr(kernel, "jet_gradient") or _differs(cls, source, "jet"):
        raise NotImplementedError(
            f"{cls.__name__} has hyperparameters but no method `jet_gradient(a, order)` for its "
            "`jet`, which derivatives with respect to them need."
        )
    derivatives = []
    weights = _weights_gradient(kernel, count, leaf.invariant.weights)
    for p in range(count):
        term = replace(leaf, callback=("own", _Same(_row_of_gradient(kernel, p, count))))
        if weights is not None and np.any(weights[p]):
            moved = replace(leaf.invariant, weights=tuple(weights[p].tolist()))
            term = Sum(term, Product(_linear(moved, 1.0, 1.0), _slope(leaf)))
        derivatives.append(Derivative(term))
    return derivatives


def _row_of_gradient(kernel, p, count):
    """The jet that is the derivative of another one with respect to a hyperparameter."""

    def jet(a, order):
        rows, shape = np.asarray(kernel.jet_gradient(a, order)), (count, order + 1, len(a))
        if rows.shape != shape:
            raise ValueError(
                f"jet_gradient returned an array of shape {rows.shape} for order={order} and "
                f"{counted(len(a), 'argument')}; it must have shape {shape}, for "
                f"{counted(count, 'hyperparameter')}"
            )
        return rows[p]

    return jet


def _weights_gradient(kernel, count, weights):
    """Derivatives of the weights of a kernel of the user's, (count, D), or None for zeros."""
    if weights is None:
        return None
    name, shape = type(kernel).__name__, (count, len(weights))
    if hasattr(kernel, "weights_gradient"):
        gradient = np.asarray(kernel.weights_gradient(), dtype=np.float64)
        if gradient.shape != shape or not np.all(np.isfinite(gradient)):
            raise ValueError(
                f"weights_gradient of {name} returned {gradient}; it must return finite numbers in "
                f"an array of shape {shape}."
            )
        return gradient
    moved = kernel.clone_with_theta(kernel.theta + 0.01)
    if not np.array_equal(np.asarray(moved.weights, dtype=np.float64), weights):
        raise NotImplementedError(
            f"weights of {name} depend on hyperparameters but it has no method "
            f"`weights_gradient()`, which derivatives with respect to them need."
        )
    return None


def theta_derivatives(kernel, d):
    """Differentiate a kernel with respect to its hyperparameters.

    On a logarithmic scale, in the order of ``kernel.theta``, without those that are fixed.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    d : int
        Columns of the points.

    Returns
    -------
    list of Derivative
        Noise in them is noise (`with_noise`).

    Raises
    ------
    NotImplementedError
        If a kernel of the user's has hyperparameters and does not say what its derivatives are.
    TypeError, ValueError
        As for `read`.
    """
    read(kernel, d)
    derivatives, first = [], 0
    for part in _derivatives(kernel, d):
        derivatives.append(replace(part, first=first))
        first += part.size
    return derivatives


def tangent(kernel, d, t):
    """Differentiate a kernel along a direction in the space of its hyperparameters.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    d : int
        Columns of the points.
    t : array-like of shape (n_theta,)
        The direction, in the order of ``kernel.theta``.

    Returns
    -------
    tree of terms
        The sum of the derivatives, each times its entry of `t`.
    """
    t = np.asarray(t, dtype=np.float64).tolist()
    parts = [
        part.combined(t[part.first : part.first + part.size])
        for part in theta_derivatives(kernel, d)
    ]
    parts = [part for part in parts if part != Constant(0.0)]
    return functools.reduce(Sum, parts) if parts else Constant(0.0)


# ----------------------------------------------------------------------------------- compiling

# A jet, in what follows, is a dict from multi-indices (a sorted tuple of invariant numbers, one
# for each derivative) to a number, or to a buffer of the program; what is missing is zero.


@dataclass(frozen=True, slots=True)
class _Buffer:
    number: int  # below 0: the value of invariant -1 - number


def _ratio(weights, others, d):
    """The number that makes weights of other weights, or None if there is none."""
    if weights == others:
        return 1.0
    pairs = zip(weights or (1.0,) * d, others or (1.0,) * d, strict=True)
    ratios = {w / v if v else math.inf for w, v in pairs if w or v}
    return ratios.pop() if len(ratios) == 1 and math.inf not in ratios else None


def _plain(leaf):
    """What leaves that differ in amplitude and derivative have in common."""
    return replace(leaf, amplitude=1.0 if leaf.amplitude else 0.0, derivative=0)


def _amplitude(leaf):
    """That of the jet: its derivatives are by the invariant, those of a leaf by the argument."""
    return leaf.amplitude / leaf.scale**leaf.derivative


def _singular(leaf):
    """2 nu of a leaf that is like s^nu near 0, nu about 1/2, or so next to a constant; or None.

    There, 2 F' and 4 s F'' cancel in d²F/d(√s)²: |2 nu - 1| / (3 - 2 nu) of their sizes is left.
    """
    if leaf.jet in ("matern12", "radial_linear"):
        return 1.0
    if leaf.callback is not None and leaf.callback[0] == "matern":
        nu = leaf.callback[1]
        return 2.0 * nu if 0.25 < nu < 0.75 else None
    return None


def _contains(index, part):
    """Whether a multi-index has all derivatives of another."""
    return not Counter(part) - Counter(index)


def _splits(index):
    """All ways to give each derivative to one of two factors, with their multiplicities."""
    counts = Counter()
    for mask in itertools.product((True, False), repeat=len(index)):
        left = tuple(l for l, m in zip(index, mask, strict=True) if m)
        right = tuple(l for l, m in zip(index, mask, strict=True) if not m)
        counts[left, right] += 1
    return counts


def _partitions(items):
    """All partitions of a list into blocks."""
    if not items:
        yield []
        return
    first, *rest = items
    for partition in _partitions(rest):
        yield [(first,), *partition]
        for k, block in enumerate(partition):
            yield [*partition[:k], (first, *block), *partition[k + 1 :]]


@functools.cache
def _compositions(index):
    """Partitions of the derivatives into blocks, as sorted tuples, with their multiplicities."""
    counts = Counter()
    for partition in _partitions(list(index)):
        counts[tuple(sorted(tuple(sorted(block)) for block in partition))] += 1
    return counts


class _Compiler:
    """Turns a tree into invariants and steps."""

    def __init__(self, d):
        self.d = d
        self.invariants = []
        self.steps = []
        self.callbacks = []
        self.used = 0
        self.free = set()
        # By leaf, amplitude and derivative aside: the amplitudes and derivatives that are wanted,
        # and amplitude and first buffer of the jet once there is one.
        self.wanted = {}
        self.jets = {}
        self.pinned = set()
        # Invariants s_l of which jets have second derivatives by √s_l, too: 2 F_l + 4 s_l F_ll.
        # They stand at the index (~l,), and s_l itself is the buffer ~l.
        self.radial = []

    # ---- buffers and steps

    def invariant(self, invariant):
        if invariant not in self.invariants:
            self.invariants.append(invariant)
        return self.invariants.index(invariant)

    def multiple(self, weights, left, right):
        """Return number and factor of an invariant of which Σ_d w_d L_d R_d is a multiple.

        Few invariants are what keeps programs short: that of a Laplacian is often a multiple of the
        squared distance that the kernel depends on.
        """
        factor, sides = 1.0, []
        for side in (left, right):
            first = next(c for c in side if c != 0)
            factor *= first
            sides.append(tuple(c / first for c in side))
        left, right = sorted(sides, reverse=True)
        for number, old in enumerate(self.invariants):
            ratio = _ratio(weights, old.weights, self.d)
            if ratio is not None and (old.left, old.right) == (left, right):
                return number, factor * ratio
        kind = "sqdist" if left == right == _DIFFERENCE else "bilinear"
        return self.invariant(Invariant(kind, weights, left, right)), factor

    def know(self, terms):
        """Note all leaves of trees, whose invariants compiling one of them needs to know."""
        for term in terms:
            for leaf in leaves(term):
                self.invariant(leaf.invariant)
                self.wanted.setdefault(_plain(leaf), []).append((_amplitude(leaf), leaf.derivative))
        if not self.invariants:
            self.invariant(_SQDIST)

    def allocate(self, count=1):
        """Return the first of `count` neighbouring buffers."""
        for start in sorted(self.free):
            run = set(range(start, start + count))
            if run <= self.free:
                self.free -= run
                return start
        self.used += count
        return self.used - count

    def release(self, inputs, result):
        """Free the buffers of jets that went into another and are not part of it."""
        kept = {value.number for value in result.values() if isinstance(value, _Buffer)}
        kept |= self.pinned
        for jet in inputs:
            for value in jet.values():
                if isinstance(value, _Buffer) and value.number >= 0 and value.number not in kept:
                    self.free.add(value.number)

    def step(self, op, dst, a=0, b=0, order=0, parameters=(1.0,)):
        self.steps.append([op, dst, a, b, order, parameters])

    def combine(self, terms):
        """Add terms, each a number times at most two buffers; return a number or a buffer."""
        constant, products = 0.0, Counter()
        for factor, *values in terms:
            buffers = []
            for value in values:
                if isinstance(value, _Buffer):
                    buffers.append(value.number)
                else:
                    factor *= value
            if buffers and factor != 0:
                products[tuple(sorted(buffers))] += factor
            else:
                constant += factor
        products = [(factor, *buffers) for buffers, factor in products.items() if factor != 0]
        if not products:
            return constant
        if constant == 0 and len(products) == 1 and products[0][0] == 1 and len(products[0]) == 2:
            return _Buffer(products[0][1])
        dst = self.allocate()
        if constant != 0:
            self.step("set", dst, parameters=(constant,))
        elif [len(p) for p in products[:2]] == [2, 2] and products[0][0] == products[1][0] == 1:
            self.step("add", dst, products[0][1], products[1][1])
            products = products[2:]
        else:
            factor, *buffers = products.pop(0)
            self.step(
                ("scale", "mul")[len(buffers) - 1], dst, buffers[0], buffers[-1], 0, (factor,)
            )
        for factor, *buffers in products:
            op = ("scale_add", "mul_add")[len(buffers) - 1]
            self.step(op, dst, buffers[0], buffers[-1], 0, (factor,))
        return _Buffer(dst)

    # ---- terms

    def indices(self, order):
        """All multi-indices up to an order, and those of derivatives by roots of invariants."""
        for q in range(order + 1):
            yield from itertools.combinations_with_replacement(range(len(self.invariants)), q)
        if order >= 2:
            yield from ((~l,) for l in self.radial)

    def jet(self, term, order):
        """Compile a term for derivatives up to `order`."""
        if isinstance(term, Constant):
            return {(): term.value}
        if isinstance(term, White):
            return {}
        if isinstance(term, Leaf):
            return self.leaf(term, order)
        if isinstance(term, Power):
            base = self.jet(term.base, order)
            positive = is_positive(term.base)
            result = self.power(base, term.exponent, order, positive, term.vanishing)
            self.release([base], result)
            return result
        left, right = self.jet(term.left, order), self.jet(term.right, order)
        result, made = {}, {}
        for index in self.indices(order):
            if isinstance(term, Sum):
                terms = [(1.0, j[index]) for j in (left, right) if index in j]
            else:
                terms = [
                    (float(count), left[a], right[b])
                    for (a, b), count in _splits(index).items()
                    if a in left and b in right
                ]
                l = self.rooted(index)
                if l in left and l in right:
                    # 2 u' v', derivatives by √s
                    terms.append(self.shorten((8.0, _Buffer(*index), left[l], right[l]), made))
            if terms and (value := self.combine(terms)) != 0:
                result[index] = value
        self.release([left, right, made], result)
        return result

    def rooted(self, index):
        """The index of the derivative by s, for that of the second one by √s."""
        return (~index[0],) if index and index[0] < 0 else None

    def leaf(self, leaf, order):
        number = self.invariant(leaf.invariant)
        if leaf.jet == "linear":
            dst = self.allocate()
            parameters = (leaf.amplitude, leaf.scale, *leaf.parameters)
            self.step("linear", dst, -1 - number, 0, 0, parameters)
            jet = {(): _Buffer(dst), (number,): leaf.amplitude * leaf.scale}
        else:
            key = _plain(leaf)
            if key not in self.jets:
                self.jets[key] = self.leaf_jet(key, number, order)
            amplitude, start = self.jets[key]
            factor = _amplitude(leaf) / amplitude if amplitude else 1.0
            start += leaf.derivative
            jet = {
                (number,) * q: self.combine([(factor, _Buffer(start + q))])
                for q in range(order + 1)
            }
        if order >= 2 and number in self.radial:
            jet[~number,] = self.by_root(leaf, jet, number)
        return jet

    def by_root(self, leaf, jet, number):
        """The second derivative of a leaf by √s, 2 F' + 4 s F''.

        s F^(q+2) = k F^(q) - (q + 1 - ν) F^(q+1) where it cancels, see `kd_root_tail` in jets.h.
        """
        f0, f1, f2 = (jet.get((number,) * q, 0.0) for q in range(3))
        twice = _singular(leaf)
        if twice is None:
            return self.combine([(2.0, f1), (4.0, f2, _Buffer(~number))])
        k = 0.0 if leaf.jet == "radial_linear" else twice * leaf.scale
        return self.combine([(k, f0), (2.0 * twice - 2.0 - 4.0 * leaf.derivative, f1)])

    def leaf_jet(self, leaf, number, order):
        """Compile a jet, for all the leaves that are alike; return its amplitude and buffer."""
        uses = self.wanted[leaf]
        # The largest: none of the others may underflow on behalf of a small one.
        amplitude = max((amplitude for amplitude, _ in uses), key=abs)
        order += max(derivative for _, derivative in uses)
        if order > _core.MAX_ORDER:
            raise ValueError(
                f"derivatives of order {order} are needed; kernels have them up to "
                f"{_core.MAX_ORDER}."
            )
        callback = 0
        if leaf.callback is not None:
            callback = len(self.callbacks)
            self.callbacks.append(_make_callback(*leaf.callback))
        start = self.allocate(order + 1)
        parameters = (amplitude, leaf.scale, *leaf.parameters)
        self.step(leaf.jet, start, -1 - number, callback, order, parameters)
        if len(uses) > 1:
            self.pinned.update(range(start, start + order + 1))
        else:
            self.free.update(range(start, start + uses[0][1]))
        return amplitude, start

    def power(self, base, exponent, order, positive, vanishing=False):
        """Compile base ** exponent by Faà di Bruno's formula.

        A base that is nowhere negative only underflows to zero, and then derivatives of its powers
        are zero too; but powers of lower exponent overflow before that.  So these are made of
        ratios to the base instead, where the exponent is not a natural number.
        """
        value = base.get((), 0.0)
        if not isinstance(value, _Buffer):
            # Only noise, which has no derivatives, leaves a base without a buffer.
            return {(): _power(value, exponent)}
        natural = exponent >= 0 and exponent == int(exponent)
        ratios = positive and not natural
        top = min(order, int(exponent)) if natural else order
        count = 1 if ratios else order + 1
        outer = self.allocate(count)
        if vanishing:
            self.step("reciprocal", outer, value.number)
        else:
            self.step("power", outer, value.number, 0, count - 1, (1.0, 1.0, exponent, 0.0))
        outer_jet = {(0,) * q: _Buffer(outer + q) for q in range(count)}
        result, made = {}, {}
        inner = base
        if ratios and order:
            reciprocal = outer
            if not vanishing:
                reciprocal = self.allocate()
                self.step("reciprocal", reciprocal, value.number)
                made["reciprocal"] = _Buffer(reciprocal)
            inner = {
                index: self.combine([(1.0, part, _Buffer(reciprocal))])
                for index, part in base.items()
                if index
            }
        for index in self.indices(order):
            terms = []
            compositions = [(*item, ()) for item in _compositions(index).items()]
            if l := self.rooted(index):
                compositions.append(((l, l), 4, (_Buffer(*index),)))  # derivatives by √s
            for blocks, count, others in compositions:
                if len(blocks) <= top and all(block in inner for block in blocks):
                    factors = [*others, *(inner[block] for block in blocks)]
                    if ratios:
                        factor = math.prod(exponent - k for k in range(len(blocks)))
                        terms.append((count * factor, outer_jet[()], *factors))
                    else:
                        terms.append((float(count), outer_jet[(0,) * len(blocks)], *factors))
            # Products of more than two buffers are made beforehand.
            terms = [self.shorten(term, made) for term in terms]
            if terms and (combined := self.combine(terms)) != 0:
                result[index] = combined
        self.release([outer_jet, made, *([] if inner is base else [inner])], result)
        return result

    def shorten(self, term, made):
        """Multiply buffers of a term until two are left; `made` keeps the products."""
        factor, *values = term
        buffers = sorted((v.number for v in values if isinstance(v, _Buffer)), reverse=True)
        for value in values:
            if not isinstance(value, _Buffer):
                factor *= value
        while len(buffers) > 2:
            pair = (buffers.pop(), buffers.pop())
            if pair not in made:
                made[pair] = self.combine([(1.0, _Buffer(pair[0]), _Buffer(pair[1]))])
            buffers.append(made[pair].number)
            buffers.sort(reverse=True)
        return (factor, *map(_Buffer, buffers))

    # ---- functionals that give numbers: they turn a kernel into another one

    def directional(self, jet, side, order):
        """v · grad k = Σ_l F_l η_l with new invariants η_l = v · grad a_l."""
        direction = (_U, _V)[side]
        new = {}
        for l, inv in enumerate(list(self.invariants)):
            # The gradient with respect to y of an invariant in x alone is zero.
            if any(gradient := inv.gradient(side)) and any(l in index for index in jet):
                new[l] = self.multiple(inv.weights, gradient, direction)
        pieces = [(jet, (l,), factor, number) for l, (number, factor) in new.items()]
        return self.transform(jet, [], pieces, order)

    def laplacian(self, jet, side, order):
        """Δk = Σ_l F_l Δa_l + Σ_lk F_lk b_lk with new invariants b_lk = grad a_l · grad a_k."""
        old = list(self.invariants)
        constants, pieces = [], []
        for l, inv in enumerate(old):
            if l in self.radial:
                constants += self.radial_laplacian(l)
            else:
                constants.append(((l,), inv.laplacian(side, self.d)))
        for l, k in itertools.combinations_with_replacement(range(len(old)), 2):
            left, right = old[l].gradient(side), old[k].gradient(side)
            needed = any(_contains(index, (l, k)) for index in jet)
            if any(left) and any(right) and needed and not (l == k and l in self.radial):
                weights = old[l].times(old[k], self.d)
                if weights is not None and not any(weights):
                    continue  # no column is in both
                number, factor = self.multiple(weights, left, right)
                pieces.append((jet, (l, k), factor if l == k else 2.0 * factor, number))
        return self.transform(jet, constants, pieces, order)

    def radial_laplacian(self, l):
        """The part of s_l = Σ_b w_b e_b², e = x - y, in a Laplacian, without what cancels.

        Σ_b w_b² e_b² / s_l times the second derivative by √s_l, and 2 Σ_b (Σ_{a≠b} w_a) w_b e_b² /
        s_l times F_l.
        """
        weights = self.invariants[l].weights
        if weights is None:
            return [((~l,), 1.0), ((l,), 2.0 * (self.d - 1))]
        # With numbers of Python, which become infinite without a warning.
        before, after = (
            list(itertools.accumulate(w[:-1], initial=0.0)) for w in (weights, weights[::-1])
        )
        others = [a + b for a, b in zip(before, reversed(after), strict=True)]
        inverse = self.allocate()
        self.step("reciprocal", inverse, ~l)
        result = []
        for index, factor, sums in (((~l,), 1.0, weights), ((l,), 2.0, others)):
            products = tuple(map(operator.mul, weights, sums))
            if any(products):
                number, ratio = self.multiple(products, _DIFFERENCE, _DIFFERENCE)
                terms = [(factor * ratio, _Buffer(~number), _Buffer(inverse))]
                result.append((index, self.combine(terms)))
        return result

    def transform(self, jet, constants, pieces, order):
        """Compile Σ c F_i + Σ c F_i a_n, given as (i, c) and (jet, i, c, n), to `order`."""
        result = {}
        for index in self.indices(order):
            terms = []
            for extra, c in constants:
                if (i := tuple(sorted((*index, *extra)))) in jet:
                    terms.append((1.0, c, jet[i]))
            for _, extra, c, number in pieces:
                if (i := tuple(sorted((*index, *extra)))) in jet:
                    terms.append((c, jet[i], _Buffer(-1 - number)))
                # The product rule for a_n itself, once for each time that it stands in the index.
                for position, l in enumerate(index):
                    if l == number:
                        rest = (*index[:position], *index[position + 1 :])
                        if (i := tuple(sorted((*rest, *extra)))) in jet:
                            terms.append((c, jet[i]))
            if terms and (value := self.combine(terms)) != 0:
                result[index] = value
        self.release([jet], result)
        return result

    # ---- the end

    def finish(self, jets, order, rough):
        """Make the program of the first jet, and tables of the buffers of all of them.

        Numbers become buffers, and missing derivatives a buffer of zeros.
        """
        n_inv = len(self.invariants)
        if n_inv > _core.MAX_INVARIANTS:
            raise ValueError(
                f"kernel depends on {n_inv} different invariants (sets of length scales, dot "
                f"products); at most {_core.MAX_INVARIANTS} are possible."
            )
        values = {}

        def buffer_of(jet, index):
            value = jet.get(tuple(sorted(index)), 0.0)
            if isinstance(value, _Buffer):
                return value.number
            if value not in values:
                values[value] = self.allocate()
                self.step("set", values[value], parameters=(value,))
            return values[value]

        tables = [
            [
                buffer_of(jet, index)
                for q in range(order + 1)
                for index in itertools.product(range(n_inv), repeat=q)
            ]
            for jet in jets
        ]

        radial = []
        if self.radial and order == 2:
            radial = [buffer_of(jets[0], (~l,)) if l in self.radial else None for l in range(n_inv)]

        def place(number):
            return -1 - number if number < 0 else number + n_inv

        steps = [
            (op, place(dst), place(a), b if op == "callback" else place(b), q, parameters)
            for op, dst, a, b, q, parameters in self.steps
        ]
        invariants = [
            (i.kind, i.left, i.right, None if i.weights is None else np.array(i.weights))
            for i in self.invariants
        ]
        tables = [list(map(place, table)) for table in tables]
        program = Program(
            invariants,
            steps,
            n_inv + self.used,
            tables[0],
            order,
            rough,
            self.callbacks,
            [-1 if number is None else place(number) for number in radial],
        )
        return program, tables


def _make_callback(kind, data):
    if kind == "matern":
        return _core.matern_callback(data)
    if isinstance(data.function, LowLevelCallable):
        return _core.compiled_callback(data.function)
    return _core.python_callback(data.function)


@functools.lru_cache(maxsize=128)
def compile_term(term, d, order, row=None, col=None, dtype="d"):
    """Compile a tree for derivatives to `order` in its invariants.

    Parameters
    ----------
    term : Leaf, Constant, White, Sum, Product or Power
    d : int
        Columns of the points.
    order : int
        Highest derivative that is wanted of the result.
    row, col : {None, "directional", "laplacian"}
        What is applied before, with respect to x and to y.
    dtype : {"d", "f"}
        What it will run in.

    Returns
    -------
    Program

    Raises
    ------
    ValueError
        If derivatives beyond the fifth, or too many invariants, are needed, or if a length scale is
        out of the range of float32.
    """
    if dtype == "f":
        _check_single(term)
    term = _balanced(term, d, _LIMITS[dtype])
    taken = {None: 0, "directional": 1, "laplacian": 2}
    total = order + taken[row] + taken[col]
    if total > _core.MAX_ORDER:
        raise ValueError(
            f"derivatives of order {total} are needed; kernels have them up to {_core.MAX_ORDER}."
        )
    singular = set()
    if total == 2 and "directional" not in (row, col):
        singular = {leaf.invariant for leaf in leaves(term) if _singular(leaf)}
    plain = isinstance(term, Leaf) and not (term.callback or term.derivative or singular)
    if plain and row is None and col is None:
        # The usual case, without ceremony: it is what small calls wait for.
        inv = term.invariant
        weights = None if inv.weights is None else np.array(inv.weights)
        parameters = (term.amplitude, term.scale, *term.parameters)
        return Program(
            [(inv.kind, inv.left, inv.right, weights)],
            [(term.jet, 1, 0, 0, order, parameters)],
            order + 2,
            list(range(1, order + 2)),
            order,
            _rough([inv], term, d, order, 0, 0),
        )
    compiler = _Compiler(d)
    compiler.know([term])
    compiler.radial = sorted(map(compiler.invariants.index, singular))
    rough = _rough(compiler.invariants, term, d, total, taken[row], taken[col])
    jet = compiler.jet(term, total)
    for side, functional in ((1, col), (0, row)):
        total -= taken[functional]
        if functional is not None:
            jet = getattr(compiler, functional)(jet, side, total)
    return compiler.finish([jet], order, rough)[0]


def compile_heads(terms, d, order, dtype="d"):
    """Compile several trees into one program, which finds their invariants once.

    Parameters
    ----------
    terms : list of trees of terms
    d, order, dtype
        As for `compile_term`.

    Returns
    -------
    program : Program
    tables : list of list of int
        For each tree, the buffers of its derivatives, as a program has them of its own.
    """
    if dtype == "f":
        for term in terms:
            _check_single(term)
    terms = [_balanced(term, d, _LIMITS[dtype]) for term in terms]
    compiler = _Compiler(d)
    compiler.know(terms)
    rough = {row for term in terms for row in _rough(compiler.invariants, term, d, order, 0, 0)}
    jets = [compiler.jet(term, order) for term in terms]
    return compiler.finish(jets, order, sorted(rough))


def _rough(invariants, term, d, total, row, col):
    """Where derivatives of a total order do not exist: rows for the core."""
    rows = set()
    for leaf in leaves(term):
        if leaf.smoothness <= total:
            weights = leaf.invariant.weights or (1.0,) * d
            seen = bytes(int(w > 0) for w in weights)
            already = (row + col) if any(seen) else 0
            number = invariants.index(leaf.invariant)
            rows.add((number, math.ceil(leaf.smoothness), already, seen))
    return sorted(rows)


_LIMITS = {"f": 1e8, "d": 1e60}


def _balanced(term, d, limit):
    """The tree with scales beyond `limit` as weights: powers of them would over- or underflow.

    Only their exponents move, so that nothing is rounded in another way than below the limit.
    """
    if isinstance(term, Leaf):
        if 1 / limit <= abs(term.scale) <= limit:
            return term
        scale, exponent = math.frexp(term.scale)
        weights = np.ldexp(np.array(term.invariant.weights or (1.0,) * d), exponent - 1)
        return replace(
            term,
            scale=2.0 * scale,
            invariant=replace(term.invariant, weights=tuple(weights.tolist())),
        )
    if isinstance(term, Sum | Product):
        return type(term)(_balanced(term.left, d, limit), _balanced(term.right, d, limit))
    if isinstance(term, Power):
        return replace(term, base=_balanced(term.base, d, limit))
    return term


_POSITIVE = {"rbf", "matern12", "matern32", "matern52", "rational_quadratic", "exp_sine_squared"}


def is_positive(term):
    """Tell whether a tree is known to be positive wherever it has not underflowed.

    Parameters
    ----------
    term : tree of terms

    Returns
    -------
    bool
    """
    if isinstance(term, Leaf):
        known = term.jet in _POSITIVE or (term.callback and term.callback[0] == "matern")
        return term.amplitude > 0 and bool(known) and not term.derivative
    if isinstance(term, Constant):
        return term.value > 0
    if isinstance(term, Sum) and isinstance(term.left, White):
        return is_positive(term.right)
    if isinstance(term, Sum) and isinstance(term.right, White):
        return is_positive(term.left)
    if isinstance(term, Sum | Product):
        return is_positive(term.left) and is_positive(term.right)
    return isinstance(term, Power) and is_positive(term.base)


def _check_single(term):
    """Raise ValueError if a scale or weight is not a normal number in float32."""
    limits = np.finfo(np.float32)
    for leaf in leaves(term):
        # A factor next to a leaf of the same scale, or coefficients times weights, which may be 0.
        if leaf.jet == "linear":
            continue
        for value in (leaf.scale, *(leaf.invariant.weights or ())):
            if value != 0 and not float(limits.tiny) <= abs(value) <= float(limits.max):
                raise ValueError(
                    f"a length_scale (or gamma, or periodicity) is {abs(value) ** -0.5:.3g}, the "
                    "inverse of whose square float32 cannot hold; pass float64 points."
                )


def is_stationary(term):
    """Tell whether all invariants are squared distances, and so mixed blocks symmetric.

    Parameters
    ----------
    term : tree of terms

    Returns
    -------
    bool
    """
    return all(leaf.invariant.kind == "sqdist" for leaf in leaves(term))


@quietly
def _jets_on_diagonal(term, X, order):
    """The invariants of a tree, and its jets where points meet themselves."""
    d, dtype = X.shape[1], X.dtype.char
    program = compile_term(term, d, order, dtype=dtype)
    invariants = (leaf.invariant for leaf in leaves(_balanced(term, d, _LIMITS[dtype])))
    used = list(dict.fromkeys(invariants)) or [_SQDIST]
    a = np.zeros((len(used), len(X)), X.dtype)
    for row, invariant in zip(a, used, strict=True):
        if invariant.kind == "dot":
            weights = 1.0 if invariant.weights is None else np.array(invariant.weights, X.dtype)
            row[:] = np.einsum("na,na->n", X * weights, X)
    return used, _core.jets(program, a)


def on_diagonal(term, X):
    """Values of a tree where points meet themselves.

    Parameters
    ----------
    term : tree of terms
    X : ndarray of shape (N, D)

    Returns
    -------
    ndarray of shape (N,)
    """
    return _jets_on_diagonal(term, X, 0)[1][0]


@quietly
def noise_on_diagonal(term, X):
    """What the noise of a tree adds to its values where points meet themselves.

    Parameters
    ----------
    term : tree of terms
    X : ndarray of shape (N, D)

    Returns
    -------
    ndarray of shape (N,)
    """
    noisy = with_noise(term)
    if noisy is None or not len(X):
        return np.zeros(len(X), X.dtype)
    return on_diagonal(noisy, X) - on_diagonal(term, X)


@quietly
def gradient_on_diagonal(term, X):
    """Gradients of the values of a tree where points meet themselves: of k(x, x) by x.

    Squared distances are 0 there and stay so, and with them all that has no derivatives there.

    Parameters
    ----------
    term : tree of terms
    X : ndarray of shape (N, D)

    Returns
    -------
    ndarray of shape (N, D)
    """
    result = np.zeros_like(X)
    if is_stationary(term):
        return result
    used, jets = _jets_on_diagonal(term, X, 1)
    for invariant, slope in zip(used, jets[1:], strict=True):
        if invariant.kind == "dot":
            weights = 1.0 if invariant.weights is None else np.array(invariant.weights, X.dtype)
            result += 2 * slope[:, None] * (weights * X)
    return result


def smoothness(term):
    """Return the least 2 nu of all leaves: derivatives of lower order exist everywhere.

    Parameters
    ----------
    term : tree of terms

    Returns
    -------
    float
    """
    return min((leaf.smoothness for leaf in leaves(term)), default=math.inf)
