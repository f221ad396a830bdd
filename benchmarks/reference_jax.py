"""The derivatives by automatic differentiation: JAX, float64, jitted.

The kernel is a scalar function of two vectors, written in the squared distance (with a square root
automatic differentiation gives NaN where the two vectors coincide). ``jax.jacobian`` and
``jax.hessian`` differentiate it, two ``jax.vmap`` apply it to all pairs. This is how notebooks and
papers do it, and it is the baseline that speed is quoted against.

Importing this module switches JAX to 64-bit numbers for the whole process.
"""

import functools

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

_ARGUMENT = {"x": 0, "y": 1}


def rbf(x, y, gamma):
    """exp(-gamma |x - y|²) of two vectors of shape (D,)."""
    return jnp.exp(-gamma * jnp.sum((x - y) ** 2))


def rbf_ard(x, y, constant, length_scale):
    """constant * exp(-|(x - y) / length_scale|² / 2) of two vectors of shape (D,).

    ``ConstantKernel(constant) * RBF(length_scale)`` in scikit-learn's words; ``length_scale`` is a
    scalar or of shape (D,).
    """
    return constant * jnp.exp(-0.5 * jnp.sum(((x - y) / length_scale) ** 2))


def _over_pairs(function):
    """Jit `function(x, y, *parameters)` over all pairs of the rows of X and Y."""

    def pairs(X, Y, *parameters):
        rows = jax.vmap(lambda x, y: function(x, y, *parameters), in_axes=(None, 0))
        return jax.vmap(rows, in_axes=(0, None))(X, Y)

    return jax.jit(pairs)


def _second(kernel, wrt):
    if wrt[0] == wrt[1]:
        return jax.hessian(kernel, argnums=_ARGUMENT[wrt[0]])
    first = jax.jacobian(kernel, argnums=_ARGUMENT[wrt[0]])
    return jax.jacobian(first, argnums=_ARGUMENT[wrt[1]])


@functools.cache
def kernel_matrix(kernel=rbf):
    """Make the jitted function (X, Y, *parameters) -> (N, M).

    Parameters
    ----------
    kernel : callable, default=rbf
        Scalar function of two vectors and parameters.

    Returns
    -------
    callable
    """
    return _over_pairs(kernel)


@functools.cache
def gradient(kernel=rbf, wrt="x"):
    """Make the jitted function (X, Y, *parameters) -> (N, M, D).

    Parameters
    ----------
    kernel : callable, default=rbf
        Scalar function of two vectors and parameters.
    wrt : {"x", "y"}, default="x"
        The argument that is differentiated.

    Returns
    -------
    callable
    """
    return _over_pairs(jax.jacobian(kernel, argnums=_ARGUMENT[wrt]))


@functools.cache
def hessian(kernel=rbf, wrt="xx"):
    """Make the jitted function (X, Y, *parameters) -> (N, M, D, D).

    Parameters
    ----------
    kernel : callable, default=rbf
        Scalar function of two vectors and parameters.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments that are differentiated; the axes of the result follow this order.

    Returns
    -------
    callable
    """
    return _over_pairs(_second(kernel, wrt))


@functools.cache
def hessian_diag(kernel=rbf, wrt="xx"):
    """Make the jitted function (X, Y, *parameters) -> (N, M, D), the diagonals of `hessian`.

    Parameters
    ----------
    kernel : callable, default=rbf
        Scalar function of two vectors and parameters.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments that are differentiated.

    Returns
    -------
    callable
    """
    second = _second(kernel, wrt)
    return _over_pairs(lambda *arguments: jnp.diagonal(second(*arguments)))


@functools.cache
def joint_covariance(kernel=rbf):
    """Make the jitted function (X, *parameters) -> (N(D+1), N(D+1)).

    The covariance of values and gradients at the points of X, those of a point together.

    Parameters
    ----------
    kernel : callable, default=rbf
        Scalar function of two vectors and parameters.

    Returns
    -------
    callable
    """

    def with_gradient(function, argnum):
        derivative = jax.jacobian(function, argnums=argnum)

        def both(*arguments):
            value = function(*arguments)
            return jnp.concatenate([value[None], jnp.moveaxis(derivative(*arguments), -1, 0)])

        return both

    block = _over_pairs(with_gradient(with_gradient(kernel, 1), 0))

    def matrix(X, *parameters):
        size = X.shape[0] * (X.shape[1] + 1)
        return block(X, X, *parameters).swapaxes(1, 2).reshape(size, size)

    return jax.jit(matrix)


def tanh_layer(x, W):
    """tanh(a_k · x + b_k) for all k; `x` is (D,), `W` is (D+1, K) with the biases b as last row."""
    return jnp.tanh(x @ W[:-1] + W[-1])


def tanh_unit(x, w):
    """tanh(a · x + b), one column of `tanh_layer`; `w` is (D+1,) with the bias b as last entry."""
    return jnp.tanh(jnp.sum(x * w[:-1]) + w[-1])


@functools.cache
def tanh_jacobian(layout="compact"):
    """Make the jitted function (X, W) -> Jacobian of the tanh layer with respect to W, per sample.

    Parameters
    ----------
    layout : {"compact", "full"}, default="compact"
        "full" is ``jax.jacobian`` of the layer, (N, K, D+1, K), nearly all of it zero because a
        unit depends on its own column of W alone; at N = 100 000, D = 10, K = 50 it would take
        22 GB. "compact" differentiates unit by unit and so computes the same numbers without the
        zeros, (N, D+1, K).

    Returns
    -------
    callable
    """
    if layout == "full":
        return jax.jit(jax.vmap(jax.jacobian(tanh_layer, argnums=1), in_axes=(0, None)))
    units = jax.vmap(jax.jacobian(tanh_unit, argnums=1), in_axes=(None, 1), out_axes=1)
    return jax.jit(jax.vmap(units, in_axes=(0, None)))
