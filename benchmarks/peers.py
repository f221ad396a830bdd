"""Implementations of the same operations, ours and others, behind one interface.

Operations on the RBF kernel exp(-gamma |x - y|²) take ``(X, Y, gamma)``, those on values and
gradients jointly ``(X, gamma)``; the tanh Jacobian takes ``(X, W)``:

==========================  ==================  ===================================================
operation                   result              entry
==========================  ==================  ===================================================
``kernel_matrix``           (N, M)              k(x_i, y_j)
``gradient``                (N, M, D)           ∂k/∂x_a
``hessian_diag``            (N, M, D)           ∂²k/∂x_a²
``hessian``                 (N, M, D, D)        ∂²k/∂x_a∂x_b
``hessian_packed``          (N, M, D(D+1)/2)    its entries a ≤ b, row by row
``joint_covariance``        (N(D+1), N(D+1))    of value and gradient, those of a point together
``joint_covariance_lower``  (N(D+1), N(D+1))    its lower triangle, in Fortran's order
``tanh_jacobian``           (N, D+1, K)         (1 − φ_nk²) x_nd, and 1 − φ_nk² in the last row
==========================  ==================  ===================================================

The peers are written to be beaten only by better code: parallel, vectorised by their compilers
where these can, without temporaries of the size of the output where the language allows. The
hand-derived ones use

    ∂k/∂x_a = −2γ δ_a k      ∂²k/∂x_a∂x_b = (4γ² δ_a δ_b − 2γ [a=b]) k,      δ = x − y,

and for the block of values and gradients of a pair of points

    (u vᵀ + 2γ diag(0, 1, …, 1)) k,      u = (1, −2γ δ),  v = (1, 2γ δ).
"""

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from . import measure

# Shapes from the first two inputs. They are functions of shapes alone so that numba compiles them.
_SHAPES = {
    "kernel_matrix": lambda X, Y: (X.shape[0], Y.shape[0]),
    "gradient": lambda X, Y: (X.shape[0], Y.shape[0], X.shape[1]),
    "hessian_diag": lambda X, Y: (X.shape[0], Y.shape[0], X.shape[1]),
    "hessian": lambda X, Y: (X.shape[0], Y.shape[0], X.shape[1], X.shape[1]),
    "hessian_packed": lambda X, Y: (
        X.shape[0],
        Y.shape[0],
        X.shape[1] * (X.shape[1] + 1) // 2,
    ),
    "joint_covariance": lambda X, gamma: (
        X.shape[0] * (X.shape[1] + 1),
        X.shape[0] * (X.shape[1] + 1),
    ),
    "joint_covariance_lower": lambda X, gamma: (
        X.shape[0] * (X.shape[1] + 1),
        X.shape[0] * (X.shape[1] + 1),
    ),
    "tanh_jacobian": lambda X, W: (X.shape[0], X.shape[1] + 1, W.shape[1]),
}
OPERATIONS = tuple(_SHAPES)

# Axes over which the entries of one pair of points, or of one unit at one point, lie.
_ENTRY_AXES = {
    "kernel_matrix": (),
    "gradient": (2,),
    "hessian_diag": (2,),
    "hessian": (2, 3),
    "hessian_packed": (2,),
    "joint_covariance": (1, 3),
    "joint_covariance_lower": (1, 3),
    "tanh_jacobian": (1,),
}


def output_shape(operation, inputs):
    """Shape of the result of an operation.

    Parameters
    ----------
    operation : str
        One of `OPERATIONS`.
    inputs : tuple
        As `make_inputs` returns them.

    Returns
    -------
    tuple of int
    """
    return _SHAPES[operation](*inputs[:2])


def make_inputs(operation, n, d, k=50, seed=0):
    """Make standard normal data for an operation.

    Parameters
    ----------
    operation : str
        One of `OPERATIONS`.
    n, d : int
        Number of points (of X and of Y) and of columns.
    k : int, default=50
        Number of tanh units.
    seed : int, default=0

    Returns
    -------
    tuple
        ``(X, Y, gamma)`` with gamma = 1/(2 D), which keeps the exponent of order one at every D;
        ``(X, gamma)`` for the joint covariances, and ``(X, W)`` for ``tanh_jacobian``.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if operation == "tanh_jacobian":
        return X, rng.standard_normal((d + 1, k))
    if operation.startswith("joint_covariance"):
        return X, 0.5 / d
    return X, rng.standard_normal((n, d)), 0.5 / d


def _as_it_is(value):
    return value


@dataclass(frozen=True)
class Peer:
    """One implementation.

    Attributes
    ----------
    name : str
        Shown in tables.
    kind : {"ours", "baseline", "peer"}
        The baseline is automatic differentiation as it is commonly written; the peers are what a
        good programmer gets out of the same or other libraries.
    module : str
        Module that must be importable.
    load : callable
        ``load(d)`` returns a mapping from operation to function for inputs with `d` columns.
    convert : callable, optional
        Brings one input to the peer's side, outside of what is timed.
    finish : callable, optional
        Waits for a result that is computed asynchronously.
    reuses : bool, default=False
        The functions take ``out=``.
    numpy_pages : bool, default=False
        The output is allocated by ``numpy.empty``, which asks the system for huge pages, although
        the peer's own allocation would not; it is counted among the peers given huge pages.
    memory : float, default=3
        Memory that a call may need, in multiples of the output.
    """

    name: str
    kind: str
    module: str
    load: Callable[[int], Mapping[str, Callable]]
    convert: Callable = _as_it_is
    finish: Callable | None = None
    reuses: bool = False
    numpy_pages: bool = False
    memory: float = 3

    @property
    def installed(self):
        """Whether the module that this implementation needs can be found."""
        return importlib.util.find_spec(self.module) is not None

    def offers(self, operation, d):
        """Whether this implementation has an operation for inputs with `d` columns."""
        return operation in self.load(d)

    def fits(self, operation, inputs):
        """Whether there is memory for a call, as far as the system tells."""
        needed = 8 * self.memory * math.prod(output_shape(operation, inputs))
        return needed <= measure.available_memory()

    def bind(self, operation, inputs, out=None):
        """Make a function without arguments that does the work once.

        Parameters
        ----------
        operation : str
            One of `OPERATIONS`.
        inputs : tuple
            As `make_inputs` returns them; they are converted here, not in the returned function.
        out : ndarray, optional
            Output to reuse. Without it every call returns fresh output.

        Returns
        -------
        callable
            Returns the result, complete, as something ``numpy.asarray`` can read.
        """
        function = self.load(inputs[0].shape[1])[operation]
        converted = tuple(self.convert(value) for value in inputs)
        if out is not None:
            if not self.reuses:
                raise ValueError(f"{self.name} cannot reuse an output")
            return functools.partial(function, *converted, out=out)
        if self.finish is None:
            return functools.partial(function, *converted)
        finish = self.finish
        return lambda: finish(function(*converted))


def _packed_indices(d):
    return np.triu_indices(d)


# --- kerneldiff ---------------------------------------------------------------------------------


def _kerneldiff(d):
    from sklearn.gaussian_process.kernels import RBF

    import kerneldiff

    def packed(X, Y, gamma, out=None):
        kernel = RBF(length_scale=math.sqrt(0.5 / gamma), length_scale_bounds="fixed")
        return kerneldiff.hessian(kernel, X, Y, layout="packed", out=out)

    def joint_covariance(X, gamma, out=None):
        kernel = RBF(length_scale=math.sqrt(0.5 / gamma), length_scale_bounds="fixed")
        return kerneldiff.covariance(kernel, kerneldiff.ValueGradient(X), out=out)

    def joint_covariance_lower(X, gamma, out=None):
        if out is None:
            out = np.empty(_SHAPES["joint_covariance"](X, gamma))
        return joint_covariance(X, gamma, out=out.T)

    return {
        "kernel_matrix": kerneldiff.rbf_kernel,
        "gradient": kerneldiff.rbf_gradient,
        "hessian_diag": kerneldiff.rbf_hessian_diag,
        "hessian": kerneldiff.rbf_hessian,
        "hessian_packed": packed,
        "joint_covariance": joint_covariance,
        "joint_covariance_lower": joint_covariance_lower,
        "tanh_jacobian": kerneldiff.tanh_jacobian,
    }


def families(d):
    """Kernels whose derivatives are compared with those of the RBF, in time.

    Parameters
    ----------
    d : int
        Number of columns.

    Returns
    -------
    dict from str to sklearn.gaussian_process.kernels.Kernel
        "RBF" is the first; sums and products have one and two invariants.
    """
    from sklearn.gaussian_process import kernels

    scale = math.sqrt(d)
    rbf = kernels.RBF(scale)
    return {
        "RBF": rbf,
        "Matern 1/2": kernels.Matern(scale, nu=0.5),
        "Matern 3/2": kernels.Matern(scale, nu=1.5),
        "Matern 5/2": kernels.Matern(scale, nu=2.5),
        "RationalQuadratic": kernels.RationalQuadratic(scale, alpha=1.5),
        "ExpSineSquared": kernels.ExpSineSquared(scale, periodicity=3 * scale),
        "DotProduct": kernels.DotProduct(1.5),
        "RBF + RBF": rbf + kernels.RBF(2 * scale),
        "RBF * RBF ARD": rbf * kernels.RBF(np.linspace(scale, 3 * scale, d)),
    }


# --- NumPy --------------------------------------------------------------------------------------


def _differences(X, Y):
    return X[:, None, :] - Y[None, :, :]


def _numpy_kernel_matrix(X, Y, gamma):
    delta = _differences(X, Y)
    return np.exp(-gamma * np.einsum("ija,ija->ij", delta, delta))


def _numpy_gradient(X, Y, gamma):
    delta = _differences(X, Y)
    k = np.exp(-gamma * np.einsum("ija,ija->ij", delta, delta))
    return (-2 * gamma * k)[:, :, None] * delta


def _numpy_hessian_diag(X, Y, gamma):
    squares = _differences(X, Y) ** 2
    k = np.exp(-gamma * squares.sum(axis=-1))
    return (4 * gamma**2 * squares - 2 * gamma) * k[:, :, None]


def _numpy_hessian(X, Y, gamma):
    delta = _differences(X, Y)
    k = np.exp(-gamma * np.einsum("ija,ija->ij", delta, delta))
    result = (4 * gamma**2 * k[:, :, None] * delta)[:, :, :, None] * delta[:, :, None, :]
    diagonal = np.einsum("ijaa->ija", result)
    diagonal -= (2 * gamma * k)[:, :, None]
    return result


def _numpy_hessian_packed(X, Y, gamma):
    delta = _differences(X, Y)
    a, b = _packed_indices(X.shape[1])
    k = np.exp(-gamma * np.einsum("ija,ija->ij", delta, delta))
    return (4 * gamma**2 * delta[:, :, a] * delta[:, :, b] - 2 * gamma * (a == b)) * k[:, :, None]


def _numpy_joint_rows(X, Y, gamma):
    """Rows of the joint covariance for some points X, as (N, D+1, M, D+1)."""
    n, m, d = len(X), len(Y), X.shape[1]
    u = np.empty((n, d + 1, m), X.dtype)
    u[:, 0] = 1
    np.subtract(X[:, :, None], Y.T, out=u[:, 1:])
    k = np.exp(-gamma * np.einsum("iaj,iaj->ij", u[:, 1:], u[:, 1:]))
    u[:, 1:] *= -2 * gamma
    kv = u.swapaxes(1, 2) * k[:, :, None]
    kv[:, :, 1:] *= -1
    result = u[:, :, :, None] * kv[:, None, :, :]
    diagonal = np.einsum("iaja->ija", result)[:, :, 1:]
    diagonal += (2 * gamma * k)[:, :, None]
    return result


def _numpy_joint_covariance(X, gamma):
    return _numpy_joint_rows(X, X, gamma).reshape(output_shape("joint_covariance", (X, gamma)))


def _numpy_tanh_jacobian(X, W):
    slope = 1 - np.tanh(X @ W[:-1] + W[-1]) ** 2
    X1 = np.concatenate([X, np.ones((len(X), 1), X.dtype)], axis=1)
    return X1[:, :, None] * slope[:, None, :]


_NUMPY = {
    "kernel_matrix": _numpy_kernel_matrix,
    "gradient": _numpy_gradient,
    "hessian_diag": _numpy_hessian_diag,
    "hessian": _numpy_hessian,
    "hessian_packed": _numpy_hessian_packed,
    "joint_covariance": _numpy_joint_covariance,
    "tanh_jacobian": _numpy_tanh_jacobian,
}


def _exact(operation, inputs, some):
    """Some rows of the result in extended precision (where long double is longer than double)."""
    inputs = tuple(np.asarray(value, np.longdouble) for value in inputs)
    if operation.startswith("joint_covariance"):
        X, gamma = inputs
        return _numpy_joint_rows(X[some], X, gamma)
    inputs = (inputs[0][some], *inputs[1:])
    if operation == "tanh_jacobian":
        # 1 − tanh² loses digits where tanh is close to one; 1/cosh² does not.
        X, W = inputs
        slope = 1 / np.cosh(X @ W[:-1] + W[-1]) ** 2
        X1 = np.concatenate([X, np.ones((len(X), 1), X.dtype)], axis=1)
        return X1[:, :, None] * slope[:, None, :]
    return _NUMPY[operation](*inputs)


def relative_error(operation, inputs, result, rows=32):
    """Error of a result, relative to the largest entry that belongs to the same pair of points.

    Parameters
    ----------
    operation : str
        One of `OPERATIONS`.
    inputs : tuple
        What the result was computed from.
    result : array_like
    rows : int, default=32
        How many rows are compared, spread over the array: the comparison is made in extended
        precision, which is slow.

    Returns
    -------
    float
        The largest of these errors. Pairs whose entries are all below 1e-14 of the largest entry
        (kernels that have all but underflowed) are measured against that.
    """
    some = slice(None, None, max(1, len(inputs[0]) // rows))
    exact = _exact(operation, inputs, some)
    axes = _ENTRY_AXES[operation]
    result = np.asarray(result)
    if operation.startswith("joint_covariance"):
        n, d = inputs[0].shape
        entries = np.arange(n * (d + 1)).reshape(n, d + 1)
        error = np.abs(result[entries[some].ravel()].reshape(exact.shape) - exact)
        if operation == "joint_covariance_lower":
            error[entries[some][:, :, None, None] < entries] = 0
    else:
        error = np.abs(result[some] - exact)
    error = error.max(axis=axes)
    size = np.abs(exact).max(axis=axes)
    return float((error / np.maximum(size, 1e-14 * size.max())).max())


# --- scikit-learn, SciPy: the kernel matrix only ------------------------------------------------


def _sklearn(d):
    from sklearn.metrics.pairwise import rbf_kernel

    return {"kernel_matrix": rbf_kernel}


def _scipy(d):
    from scipy.spatial.distance import cdist

    def kernel_matrix(X, Y, gamma):
        s = cdist(X, Y, "sqeuclidean")
        s *= -gamma
        return np.exp(s, out=s)

    return {"kernel_matrix": kernel_matrix}


# --- GPyTorch: values and gradients jointly -----------------------------------------------------


def _to_torch(value):
    import torch

    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@functools.cache
def _gpytorch(d):
    import torch
    from gpytorch.kernels import RBFKernelGrad

    kernel = RBFKernelGrad().double()

    def joint_covariance(X, gamma):
        # As a tensor: a number would be rounded to single precision.
        kernel.lengthscale = torch.tensor(math.sqrt(0.5 / gamma), dtype=torch.float64)
        with torch.no_grad():
            return kernel(X).to_dense()

    return {"joint_covariance": joint_covariance}


# --- JAX ----------------------------------------------------------------------------------------


def _to_jax(value):
    # From there, because 64-bit numbers must be on before the conversion.
    from .reference_jax import jnp

    return jnp.asarray(value)


def _block(result):
    return result.block_until_ready()


def _jax_autodiff(d):
    from . import reference_jax as reference

    return {
        "kernel_matrix": reference.kernel_matrix(),
        "gradient": reference.gradient(),
        "hessian_diag": reference.hessian_diag(),
        "hessian": reference.hessian(),
        "joint_covariance": reference.joint_covariance(),
        "tanh_jacobian": reference.tanh_jacobian(),
    }


def _rbf_dot(x, y, gamma):
    from .reference_jax import jnp

    delta = x - y
    return jnp.exp(-gamma * jnp.dot(delta, delta))


@functools.cache
def _jax_autodiff_tuned(d):
    """The spellings of the same automatic derivatives that XLA happens to compile best."""
    from . import reference_jax as reference
    from .reference_jax import _over_pairs, jax

    return {
        "kernel_matrix": reference.kernel_matrix(_rbf_dot),
        "gradient": reference.gradient(_rbf_dot),
        "hessian": _over_pairs(jax.jacfwd(jax.jacfwd(reference.rbf))),
    }


@functools.cache
def _jax_fused(d):
    """Hand-derived, left to XLA, which fuses all of it into the loop that writes the output."""
    from .reference_jax import jax, jnp

    def parts(X, Y, gamma):
        delta = X[:, None, :] - Y[None, :, :]
        return delta, jnp.exp(-gamma * jnp.sum(delta * delta, axis=-1))

    def kernel_matrix(X, Y, gamma):
        return parts(X, Y, gamma)[1]

    def gradient(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        return -2 * gamma * k[..., None] * delta

    def hessian_diag(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        return (4 * gamma**2 * delta * delta - 2 * gamma) * k[..., None]

    def hessian(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        outer = 4 * gamma**2 * delta[..., :, None] * delta[..., None, :]
        return (outer - 2 * gamma * jnp.eye(d)) * k[..., None, None]

    def hessian_packed(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        a, b = _packed_indices(d)
        outer = 4 * gamma**2 * delta[..., a] * delta[..., b]
        return (outer - 2 * gamma * (a == b)) * k[..., None]

    def tanh_jacobian(X, W):
        slope = 1 - jnp.tanh(X @ W[:-1] + W[-1]) ** 2
        X1 = jnp.concatenate([X, jnp.ones((len(X), 1))], axis=1)
        return X1[:, :, None] * slope[:, None, :]

    def joint_covariance(X, gamma):
        delta, k = parts(X, X, gamma)
        ones = jnp.ones_like(k)[..., None]
        u = jnp.concatenate([ones, -2 * gamma * delta], axis=-1).swapaxes(1, 2)
        v = jnp.concatenate([ones, 2 * gamma * delta], axis=-1)
        eye = 2 * gamma * jnp.eye(d + 1).at[0, 0].set(0)
        blocks = (u[..., None] * v[:, None] + eye[:, None, :]) * k[:, None, :, None]
        return blocks.reshape(len(X) * (d + 1), -1)

    functions = (
        kernel_matrix,
        gradient,
        hessian_diag,
        hessian,
        hessian_packed,
        joint_covariance,
        tanh_jacobian,
    )
    return {function.__name__: jax.jit(function) for function in functions}


@functools.cache
def _jax_unfused(d):
    """Hand-derived, with barriers: XLA would recompute the factors for every entry otherwise."""
    from .reference_jax import jax, jnp

    barrier = jax.lax.optimization_barrier

    def by_gemm(X, Y, gamma):
        s = jnp.sum(X * X, axis=1)[:, None] + jnp.sum(Y * Y, axis=1) - 2 * X @ Y.T
        return jnp.exp(-gamma * jnp.maximum(s, 0))

    def parts(X, Y, gamma):
        delta = X[:, None, :] - Y[None, :, :]
        return delta, jnp.exp(-gamma * jnp.sum(delta * delta, axis=-1))

    def gradient(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        c = barrier(-2 * gamma * k)
        return c[..., None] * delta

    def hessian_diag(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        k = barrier(k)
        return (4 * gamma**2 * delta * delta - 2 * gamma) * k[..., None]

    def hessian(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        left, right, c = barrier((4 * gamma**2 * k[..., None] * delta, delta, -2 * gamma * k))
        outer = left[..., :, None] * right[..., None, :]
        return outer + c[..., None, None] * jnp.eye(d)

    def hessian_packed(X, Y, gamma):
        delta, k = parts(X, Y, gamma)
        left, right, c = barrier((4 * gamma**2 * k[..., None] * delta, delta, -2 * gamma * k))
        a, b = _packed_indices(d)
        return left[..., a] * right[..., b] + c[..., None] * (a == b)

    def tanh_jacobian(X, W):
        slope = 1 - jnp.tanh(X @ W[:-1] + W[-1]) ** 2
        X1 = jnp.concatenate([X, jnp.ones((len(X), 1))], axis=1)
        slope, X1 = barrier((slope, X1))
        return X1[:, :, None] * slope[:, None, :]

    def joint_covariance(X, gamma):
        delta, k = parts(X, X, gamma)
        ones = jnp.ones_like(k)[..., None]
        u = jnp.concatenate([ones, -2 * gamma * delta], axis=-1).swapaxes(1, 2)
        kv = jnp.concatenate([ones, 2 * gamma * delta], axis=-1) * k[..., None]
        u, kv, c = barrier((u, kv, 2 * gamma * k))
        eye = jnp.eye(d + 1).at[0, 0].set(0)
        blocks = u[..., None] * kv[:, None] + c[:, None, :, None] * eye[:, None, :]
        return blocks.reshape(len(X) * (d + 1), -1)

    functions = (
        gradient,
        hessian_diag,
        hessian,
        hessian_packed,
        joint_covariance,
        tanh_jacobian,
    )
    jitted = {function.__name__: jax.jit(function) for function in functions}
    return {"kernel_matrix": jax.jit(by_gemm), **jitted}


# --- numba --------------------------------------------------------------------------------------


def _numba_pairs(d):
    """Loop bodies that finish one pair after the other; `d` is a constant to the compiler."""
    from numba import njit, prange

    @njit(fastmath=True)
    def kernel(X, Y, gamma, i, j):
        s = 0.0
        for a in range(d):
            t = X[i, a] - Y[j, a]
            s += t * t
        return math.exp(-gamma * s)

    def kernel_matrix(X, Y, gamma, out):
        for i in prange(X.shape[0]):
            for j in range(Y.shape[0]):
                out[i, j] = kernel(X, Y, gamma, i, j)

    def gradient(X, Y, gamma, out):
        for i in prange(X.shape[0]):
            for j in range(Y.shape[0]):
                c = -2 * gamma * kernel(X, Y, gamma, i, j)
                for a in range(d):
                    out[i, j, a] = c * (X[i, a] - Y[j, a])

    def hessian_diag(X, Y, gamma, out):
        for i in prange(X.shape[0]):
            for j in range(Y.shape[0]):
                k = kernel(X, Y, gamma, i, j)
                for a in range(d):
                    t = X[i, a] - Y[j, a]
                    out[i, j, a] = (4 * gamma * gamma * t * t - 2 * gamma) * k

    def hessian(X, Y, gamma, out):
        for i in prange(X.shape[0]):
            delta = np.empty(d)
            for j in range(Y.shape[0]):
                for a in range(d):
                    delta[a] = X[i, a] - Y[j, a]
                k = kernel(X, Y, gamma, i, j)
                for a in range(d):
                    t = 4 * gamma * gamma * k * delta[a]
                    for b in range(d):
                        out[i, j, a, b] = t * delta[b]
                    out[i, j, a, a] -= 2 * gamma * k

    def hessian_packed(X, Y, gamma, out):
        for i in prange(X.shape[0]):
            delta = np.empty(d)
            for j in range(Y.shape[0]):
                for a in range(d):
                    delta[a] = X[i, a] - Y[j, a]
                k = kernel(X, Y, gamma, i, j)
                start = 0
                for a in range(d):
                    t = 4 * gamma * gamma * k * delta[a]
                    for b in range(a, d):
                        out[i, j, start + b - a] = t * delta[b]
                    out[i, j, start] -= 2 * gamma * k
                    start += d - a

    def joint_covariance(X, gamma, out):
        p = d + 1
        for i in prange(X.shape[0]):
            u = np.empty(p)
            kv = np.empty(p)
            for j in range(X.shape[0]):
                k = kernel(X, X, gamma, i, j)
                u[0] = 1.0
                kv[0] = k
                for a in range(d):
                    u[1 + a] = -2 * gamma * (X[i, a] - X[j, a])
                    kv[1 + a] = -u[1 + a] * k
                for a in range(p):
                    for b in range(p):
                        out[i * p + a, j * p + b] = u[a] * kv[b]
                for a in range(1, p):
                    out[i * p + a, j * p + a] += 2 * gamma * k

    def tanh_jacobian(X, W, out):
        units = W.shape[1]
        for i in prange(X.shape[0]):
            slope = np.empty(units)
            for k in range(units):
                slope[k] = W[d, k]
            for a in range(d):
                x = X[i, a]
                for k in range(units):
                    slope[k] += x * W[a, k]
            for k in range(units):
                # 1 − tanh² by one exponential: twice as fast as by tanh, and without cancellation.
                e = math.exp(-2 * abs(slope[k]))
                slope[k] = 4 * e / ((1 + e) * (1 + e))
            for a in range(d):
                x = X[i, a]
                for k in range(units):
                    out[i, a, k] = slope[k] * x
            for k in range(units):
                out[i, d, k] = slope[k]

    return (
        kernel_matrix,
        gradient,
        hessian_diag,
        hessian,
        hessian_packed,
        joint_covariance,
        tanh_jacobian,
    )


def _numba_rows(d):
    """Loop bodies that take a row of pairs through each step, the first vectorised over pairs."""
    from numba import njit, prange

    @njit(fastmath=True)
    def kernel_row(X, YT, gamma, i, k):
        m = YT.shape[1]
        for j in range(m):
            k[j] = 0.0
        for a in range(d):
            x = X[i, a]
            for j in range(m):
                t = x - YT[a, j]
                k[j] += t * t
        for j in range(m):
            k[j] = math.exp(-gamma * k[j])

    def kernel_matrix(X, Y, gamma, out):
        YT = np.ascontiguousarray(Y.T)
        for i in prange(X.shape[0]):
            kernel_row(X, YT, gamma, i, out[i])

    def gradient(X, Y, gamma, out):
        YT = np.ascontiguousarray(Y.T)
        m = Y.shape[0]
        for i in prange(X.shape[0]):
            k = np.empty(m)
            kernel_row(X, YT, gamma, i, k)
            for j in range(m):
                c = -2 * gamma * k[j]
                for a in range(d):
                    out[i, j, a] = c * (X[i, a] - Y[j, a])

    def hessian_diag(X, Y, gamma, out):
        YT = np.ascontiguousarray(Y.T)
        m = Y.shape[0]
        for i in prange(X.shape[0]):
            k = np.empty(m)
            kernel_row(X, YT, gamma, i, k)
            for j in range(m):
                for a in range(d):
                    t = X[i, a] - Y[j, a]
                    out[i, j, a] = (4 * gamma * gamma * t * t - 2 * gamma) * k[j]

    def hessian(X, Y, gamma, out):
        YT = np.ascontiguousarray(Y.T)
        m = Y.shape[0]
        for i in prange(X.shape[0]):
            k = np.empty(m)
            delta = np.empty(d)
            kernel_row(X, YT, gamma, i, k)
            for j in range(m):
                for a in range(d):
                    delta[a] = X[i, a] - Y[j, a]
                for a in range(d):
                    t = 4 * gamma * gamma * k[j] * delta[a]
                    for b in range(d):
                        out[i, j, a, b] = t * delta[b]
                    out[i, j, a, a] -= 2 * gamma * k[j]

    def joint_covariance(X, gamma, out):
        p = d + 1
        m = X.shape[0]
        XT = np.ascontiguousarray(X.T)
        # Each column of X, every entry as often as its point has columns in the result, so that
        # the loop over a row of the result has neither a short inner loop nor a stride.
        wide = np.empty((d, m * p))
        for a in range(d):
            for j in range(m):
                wide[a, j * p : (j + 1) * p] = X[j, a]
        for i in prange(m):
            k = np.empty(m)
            kv = np.empty(m * p)
            kernel_row(X, XT, gamma, i, k)
            for j in range(m):
                kv[j * p] = k[j]
                for b in range(d):
                    kv[j * p + 1 + b] = 2 * gamma * (X[i, b] - X[j, b]) * k[j]
            row = out[i * p]
            for q in range(m * p):
                row[q] = kv[q]
            for a in range(d):
                row = out[i * p + 1 + a]
                column = wide[a]
                x = X[i, a]
                for q in range(m * p):
                    row[q] = -2 * gamma * (x - column[q]) * kv[q]
                for j in range(m):
                    row[j * p + 1 + a] += 2 * gamma * k[j]

    return kernel_matrix, gradient, hessian_diag, hessian, joint_covariance


def _allocating(operation, fill):
    """Let a compiled loop allocate its output itself, as numba code usually does."""
    from numba import njit

    shape = njit(_SHAPES[operation])

    @njit
    def tensor(X, Y, gamma):
        out = np.empty(shape(X, Y))
        fill(X, Y, gamma, out)
        return out

    @njit
    def of_two(X, other):
        out = np.empty(shape(X, other))
        fill(X, other, out)
        return out

    return of_two if operation in ("joint_covariance", "tanh_jacobian") else tensor


@functools.cache
def _numba(bodies, d, parallel, numpy_pages):
    from numba import njit

    def implementation(body):
        operation = body.__name__
        fill = njit(body, parallel=parallel, fastmath=True)
        if numpy_pages:

            def allocate(*inputs):
                out = np.empty(output_shape(operation, inputs))
                fill(*inputs, out)
                return out

        else:
            allocate = _allocating(operation, fill)

        def function(*inputs, out=None):
            if out is None:
                return allocate(*inputs)
            fill(*inputs, out)
            return out

        return function

    return {body.__name__: implementation(body) for body in bodies(d)}


def _numba_peer(name, bodies, *, parallel=True, numpy_pages=False):
    def load(d):
        return _numba(bodies, d, parallel, numpy_pages)

    return Peer(name, "peer", "numba", load, reuses=not numpy_pages, numpy_pages=numpy_pages)


# --- the list -----------------------------------------------------------------------------------

OURS = Peer("kerneldiff", "ours", "kerneldiff", _kerneldiff, reuses=True)
BASELINE = Peer("JAX autodiff", "baseline", "jax", _jax_autodiff, _to_jax, _block)

PEERS = (
    OURS,
    BASELINE,
    Peer("JAX autodiff, tuned", "peer", "jax", _jax_autodiff_tuned, _to_jax, _block),
    Peer("JAX by hand, fused", "peer", "jax", _jax_fused, _to_jax, _block),
    Peer("JAX by hand, unfused", "peer", "jax", _jax_unfused, _to_jax, _block),
    _numba_peer("numba", _numba_pairs),
    _numba_peer("numba, by rows", _numba_rows),
    _numba_peer("numba, serial", _numba_pairs, parallel=False),
    _numba_peer("numba into np.empty", _numba_pairs, numpy_pages=True),
    Peer("NumPy", "peer", "numpy", lambda d: _NUMPY),
    Peer("scikit-learn", "peer", "sklearn", _sklearn),
    Peer("SciPy", "peer", "scipy", _scipy),
    Peer("GPyTorch", "peer", "gpytorch", _gpytorch, _to_torch, memory=8),
)


def installed_peers():
    """The implementations whose libraries are installed.

    Returns
    -------
    list of Peer
    """
    return [peer for peer in PEERS if peer.installed]
