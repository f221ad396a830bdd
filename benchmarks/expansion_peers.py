"""Interpolation by radial functions, and tanh bases: ours and others'.

====================  =============================================================================
work                  what is computed
====================  =============================================================================
``value``             the interpolant Σ_j c_j φ(ε |x − y_j|) and its polynomial at Q points
``value, gradient``   the same and its gradient, for which SciPy has nothing
``vjp``               cotangents of the weights of a tanh layer, (D+1, K), from those of its N x K
                      values
``jvp``               tangents of its values, (N, K), from those of its weights
====================  =============================================================================

All evaluate the interpolant that SciPy has fitted, with its coefficients.
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: The radial functions that are compared, as SciPy calls them.
KERNELS = ("gaussian", "thin_plate_spline", "linear", "cubic")
#: In units of which gaussian falls off; the others have none.
EPSILON = 2.0


@dataclass(frozen=True)
class Implementation:
    """One implementation of some of the works.

    Attributes
    ----------
    name : str
        Shown in tables.
    kind : {"ours", "library", "autodiff", "peer"}
    module : str
        Module that must be importable.
    make : callable
        ``make(work, inputs)`` returns a function without arguments that does the work once, or
        None if there is no such thing.
    """

    name: str
    kind: str
    module: str
    make: Callable

    @property
    def installed(self):
        """Whether the module that this implementation needs can be found."""
        return importlib.util.find_spec(self.module) is not None


# --- interpolation ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interpolation:
    """A fitted interpolant, and where it is evaluated.

    Attributes
    ----------
    fitted : scipy.interpolate.RBFInterpolator
    x : ndarray of shape (Q, D)
    """

    fitted: object
    x: np.ndarray


def make_interpolation(kernel, q, centers, d, seed=0):
    """Fit a smooth function at random points of the unit cube.

    Parameters
    ----------
    kernel : str
        One of `KERNELS`.
    q, centers, d : int
        Numbers of points, of centres and of columns.
    seed : int, default=0

    Returns
    -------
    Interpolation
    """
    from scipy.interpolate import RBFInterpolator

    rng = np.random.default_rng(seed)
    y = rng.uniform(size=(centers, d))
    data = np.sin(3 * y).sum(axis=1) + y.prod(axis=1)
    # Gaussians this wide are singular to working precision: a little smoothing.
    smoothing = 1e-8 if kernel == "gaussian" else 0.0
    fitted = RBFInterpolator(y, data, kernel=kernel, epsilon=EPSILON, smoothing=smoothing)
    return Interpolation(fitted, rng.uniform(size=(q, d)))


def _interpolation_of_ours(work, inputs):
    import kerneldiff

    theirs = inputs.fitted
    ours = kerneldiff.RBFInterpolator(
        theirs.y, theirs.d, kernel=theirs.kernel, epsilon=theirs.epsilon, smoothing=theirs.smoothing
    )
    if work == "value":
        return lambda: ours(inputs.x)
    return lambda: (ours(inputs.x), ours.gradient(inputs.x))


def _interpolation_of_scipy(work, inputs):
    return functools.partial(inputs.fitted, inputs.x) if work == "value" else None


def _radial(kernel, r):
    """φ and φ'/r, where r > 0."""
    if kernel == "gaussian":
        value = np.exp(-r * r)
        return value, -2 * value
    if kernel == "thin_plate_spline":
        return r * r * np.log(r), 2 * np.log(r) + 1
    if kernel == "linear":
        return -r, -1 / r
    return r**3, 3 * r


def interpolation_error(inputs, value, gradient=None, rows=16):
    """Error of values and gradients, relative to the largest sum of what is added up.

    Parameters
    ----------
    inputs : Interpolation
    value : array_like of shape (Q, 1) or (Q,)
    gradient : array_like of shape (Q, 1, D) or (Q, D), optional
    rows : int, default=16
        How many points are compared in extended precision.

    Returns
    -------
    float
    """
    fitted, epsilon = inputs.fitted, np.longdouble(inputs.fitted.epsilon)
    q, d = inputs.x.shape
    value = np.asarray(value).reshape(q)
    coefficients = fitted._coeffs[:, 0].astype(np.longdouble)
    centers, powers = fitted.y.astype(np.longdouble), fitted.powers
    weights, of_polynomial = np.split(coefficients, [len(centers)])
    found, exact, size = [], [], []
    for i in range(0, q, max(1, q // rows)):
        delta = epsilon * (inputs.x[i].astype(np.longdouble) - centers)
        phi, slope = _radial(fitted.kernel, np.sqrt((delta * delta).sum(axis=1)))
        local = (inputs.x[i] - fitted._shift.astype(np.longdouble)) / fitted._scale
        terms = [np.concatenate([weights * phi, of_polynomial * np.prod(local**powers, axis=1)])]
        found.append(value[i])
        if gradient is not None:
            found.extend(np.asarray(gradient).reshape(q, d)[i])
            for a in range(d):
                unit = np.arange(d) == a
                derived = powers[:, a] * np.prod(local ** np.maximum(powers - unit, 0), axis=1)
                slopes = weights * slope * delta[:, a] * epsilon
                terms.append(np.concatenate([slopes, of_polynomial * derived / fitted._scale[a]]))
        exact.extend(sum(term) for term in terms)
        size.extend(abs(term).sum() for term in terms)
    found, exact, size = (
        np.reshape(part, (-1, 1 if gradient is None else 1 + d)) for part in (found, exact, size)
    )
    # Values and gradients each by their own measure.
    return float((abs(found - exact).max(axis=0) / size.max(axis=0)).max())


# --- a tanh layer -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A tanh layer, and what is pulled back or pushed forward through it.

    Attributes
    ----------
    X : ndarray of shape (N, D)
    W : ndarray of shape (D+1, K)
        The biases are the last row.
    other : ndarray
        Cotangents of shape (N, K), or tangents of shape (D+1, K).
    """

    X: np.ndarray
    W: np.ndarray
    other: np.ndarray


def make_layer(work, n, d, k, seed=0):
    """Make standard normal data; the arguments of tanh have a variance of about one.

    Parameters
    ----------
    work : {"vjp", "jvp"}
    n, d, k : int
        Numbers of points, columns and units.
    seed : int, default=0

    Returns
    -------
    Layer
    """
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((n, d)), rng.standard_normal((d + 1, k)) / math.sqrt(d + 1)
    return Layer(X, W, rng.standard_normal((n, k) if work == "vjp" else (d + 1, k)))


def layer_error(work, inputs, result):
    """Error of a result, relative to the largest sum of the absolute values of what is added up.

    Parameters
    ----------
    work : {"vjp", "jvp"}
    inputs : Layer
    result : array_like
        Some of the units are compared, in extended precision.

    Returns
    -------
    float
    """
    n, (_, k) = len(inputs.X), inputs.W.shape
    some = slice(0, k, max(1, k // 4))
    X = np.column_stack([inputs.X, np.ones(n)]).astype(np.longdouble)
    slopes = np.cosh(X @ inputs.W[:, some].astype(np.longdouble)) ** -2
    other = inputs.other[:, some].astype(np.longdouble)
    if work == "vjp":
        exact, size = X.T @ (slopes * other), abs(X).T @ (slopes * abs(other))
    else:
        exact, size = slopes * (X @ other), slopes * (abs(X) @ abs(other))
    return float(abs(np.asarray(result)[:, some] - exact).max() / size.max())


def _layer_of_ours(work, inputs):
    import kerneldiff

    basis = kerneldiff.TanhBasis(weights=inputs.W).fit(inputs.X)
    return functools.partial(getattr(basis, work), inputs.X, inputs.other)


def _layer_in_numpy(work, inputs):
    X, W, other = inputs.X, inputs.W, inputs.other

    def slopes():
        z = X @ W[:-1]
        z += W[-1]
        np.tanh(z, out=z)
        z *= z
        return np.subtract(1, z, out=z)

    def vjp():
        g = slopes()
        g *= other
        return np.vstack([X.T @ g, g.sum(axis=0)])

    def jvp():
        t = X @ other[:-1]
        t += other[-1]
        t *= slopes()
        return t

    return vjp if work == "vjp" else jvp


@functools.cache
def _jax_layers():
    """Both works by automatic differentiation and by hand, jitted."""
    from .reference_jax import jax, jnp

    def layer(X, W):
        return jnp.tanh(X @ W[:-1] + W[-1])

    def slopes(X, W):
        phi = layer(X, W)
        return 1 - phi * phi

    def vjp(X, W, other):
        return jax.vjp(functools.partial(layer, X), W)[1](other)[0]

    def jvp(X, W, other):
        return jax.jvp(functools.partial(layer, X), (W,), (other,))[1]

    def vjp_by_hand(X, W, other):
        g = other * slopes(X, W)
        return jnp.concatenate([X.T @ g, g.sum(axis=0, keepdims=True)])

    def vjp_augmented(X, W, other):
        Z = jnp.concatenate([X, jnp.ones((len(X), 1))], axis=1)
        phi = jnp.tanh(Z @ W)
        return Z.T @ (other * (1 - phi * phi))

    def jvp_by_hand(X, W, other):
        return (X @ other[:-1] + other[-1]) * slopes(X, W)

    def jvp_augmented(X, W, other):
        both = X @ jnp.concatenate([W[:-1], other[:-1]], axis=1)
        z, t = jnp.split(both, 2, axis=1)
        phi = jnp.tanh(z + W[-1])
        return (t + other[-1]) * (1 - phi * phi)

    return {
        "autodiff": {"vjp": jax.jit(vjp), "jvp": jax.jit(jvp)},
        "by hand": {"vjp": jax.jit(vjp_by_hand), "jvp": jax.jit(jvp_by_hand)},
        "by hand, one product": {"vjp": jax.jit(vjp_augmented), "jvp": jax.jit(jvp_augmented)},
    }


def _layer_in_jax(form, work, inputs):
    function = _jax_layers()[form][work]
    from .reference_jax import jnp

    arguments = [jnp.asarray(value) for value in (inputs.X, inputs.W, inputs.other)]
    return lambda: function(*arguments).block_until_ready()


# --- the lists ----------------------------------------------------------------------------------

OURS = "kerneldiff"

INTERPOLATORS = (
    Implementation(OURS, "ours", "kerneldiff", _interpolation_of_ours),
    Implementation("SciPy", "library", "scipy", _interpolation_of_scipy),
)

LAYERS = (
    Implementation(OURS, "ours", "kerneldiff", _layer_of_ours),
    *(
        Implementation(
            f"JAX {form}",
            "autodiff" if form == "autodiff" else "peer",
            "jax",
            functools.partial(_layer_in_jax, form),
        )
        for form in ("autodiff", "by hand", "by hand, one product")
    ),
    Implementation("NumPy", "peer", "numpy", _layer_in_numpy),
)
