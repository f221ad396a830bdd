"""Products with derivatives of the RBF kernel that are never built, ours and others'.

With δ = x_i − y_j and k = exp(−γ |δ|²), for all i:

======================  =======================================================================
work                    result
======================  =======================================================================
``kernel_product``      (N,)       Σ_j k v_j
``joint_product``       (N, 1+D)   value f_i = Σ_j k c_j and gradient g_i = 2γ Σ_j k (b_j − δ c_j),
                                   c_j = a_j + 2γ δ·b_j: the joint covariance of values and
                                   gradients times the vector with the rows (a_j, b_j)
``expansion_gradient``  (N, D)     −2γ Σ_j w_j k δ
``expansion_hessian``   (N, D, D)  Σ_j w_j k (4γ² δ δᵀ − 2γ I)
======================  =======================================================================

They take tiles of rows and columns, and expand what is quadratic in δ into products of matrices,
after |x − y|² = |x|² + |y|² − 2 x·y:

    Σ_j w_j k δ    = m_0 x − m_1
    Σ_j w_j k δ δᵀ = m_2 − m_1 xᵀ − x m_1ᵀ + m_0 x xᵀ
    with m_0 = Σ_j w_j k,  m_1 = Σ_j w_j k y,  m_2 = Σ_j w_j k y yᵀ.

That is the fastest form in each of these libraries, and its rounding errors grow with the square of
the distance of the data from the origin; the data here is centred. KeOps, and numba for K v with
few columns, take differences.

The exponential decides the rest. numba from the Python Package Index calls the C library's, one
number at a time; "numba, own exp" has a polynomial in its place that LLVM turns into vector code,
as numba does by itself where it comes with Intel's SVML (from conda, say).
"""

import functools
import importlib.util
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import measure

WORKS = ("kernel_product", "joint_product", "expansion_gradient", "expansion_hessian")


@dataclass(frozen=True)
class Inputs:
    """What a product is made from.

    Attributes
    ----------
    X : ndarray of shape (N, D)
    Y : ndarray of shape (M, D) or None
        None stands for X, and an implementation may use the symmetry.
    gamma : float
    V : ndarray
        (M, 1+D) for ``joint_product``, (M,) for the others. An axis of several right-hand sides
        may follow, for ours.
    """

    X: np.ndarray
    Y: np.ndarray | None
    gamma: float
    V: np.ndarray


def make_inputs(work, n, d, *, m=None, symmetric=False, columns=None, dtype=np.float64, seed=0):
    """Make standard normal data for a product.

    Parameters
    ----------
    work : str
        One of `WORKS`.
    n, d : int
        Number of points and of their columns.
    m : int, optional
        Number of points of Y, `n` by default.
    symmetric : bool, default=False
        Let Y be None.
    columns : int, optional
        Number of right-hand sides; by default one, without an axis of its own.
    dtype : dtype, default=float64
    seed : int, default=0

    Returns
    -------
    Inputs
        With gamma = 1/(2 D), which keeps the exponent of order one at every D.
    """
    rng = np.random.default_rng(seed)
    m = n if m is None else m
    shape = (m, 1 + d) if work == "joint_product" else (m,)
    if columns is not None:
        shape += (columns,)
    X = rng.standard_normal((n, d)).astype(dtype)
    Y = None if symmetric else rng.standard_normal((m, d)).astype(dtype)
    return Inputs(X, Y, 0.5 / d, rng.standard_normal(shape).astype(dtype))


def relative_error(work, inputs, result, rows=16):
    """Error of a result, relative to the largest sum of the absolute values of what is added up.

    Parameters
    ----------
    work : str
        One of `WORKS`.
    inputs : Inputs
    result : array_like
    rows : int, default=16
        How many points are compared, spread over the array: the comparison is made in extended
        precision (where long double is longer than double), which is slow.

    Returns
    -------
    float
        The largest error of these points.
    """
    X = inputs.X.astype(np.longdouble)
    Y = X if inputs.Y is None else inputs.Y.astype(np.longdouble)
    V = inputs.V.astype(np.longdouble)
    gamma = np.longdouble(inputs.gamma)
    result = np.asarray(result)
    error, size = [], []
    for i in range(0, len(X), max(1, len(X) // rows)):
        delta = X[i] - Y
        k = np.exp(-gamma * (delta * delta).sum(axis=1))
        exact, absolute = _exact_row(work, delta, k, V, gamma)
        error.append(np.abs(result[i] - exact).max())
        size.append(absolute.max())
    return float(max(error) / max(size))


def _exact_row(work, delta, k, V, gamma):
    """The result for one point, and the same sums of absolute values."""

    def row(delta, V, signs):
        minus = -signs
        if work == "kernel_product":
            return k @ V
        if work == "joint_product":
            c = k * (V[:, 0] + 2 * gamma * (delta * V[:, 1:]).sum(axis=1))
            gradient = 2 * gamma * (k @ V[:, 1:] + minus * (c @ delta))
            return np.concatenate([c.sum(keepdims=True), gradient])
        if work == "expansion_gradient":
            return minus * 2 * gamma * ((k * V) @ delta)
        outer = ((k * V)[:, None] * delta).T @ delta
        diagonal = 2 * gamma * (k @ V) * np.eye(delta.shape[1])
        return 4 * gamma**2 * outer + minus * diagonal

    return row(delta, V, 1), row(np.abs(delta), np.abs(V), -1)


@dataclass(frozen=True)
class Implementation:
    """One implementation of the products.

    Attributes
    ----------
    name : str
        Shown in tables.
    kind : {"ours", "peer", "own exp"}
        "own exp" are peers that do not leave the exponential to a library.
    module : str
        Module that must be importable.
    make : callable
        ``make(work, inputs)`` returns a function without arguments that makes the product once, or
        None where there is none. Nothing that depends on V is computed in advance.
    """

    name: str
    kind: str
    module: str
    make: Callable[[str, Inputs], Callable | None]

    @property
    def installed(self):
        """Whether the module that this implementation needs can be found."""
        return importlib.util.find_spec(self.module) is not None


# --- kerneldiff ---------------------------------------------------------------------------------


def _kerneldiff(work, inputs):
    from sklearn.gaussian_process.kernels import RBF

    import kerneldiff

    X, Y, V = inputs.X, inputs.Y, inputs.V
    kernel = RBF(math.sqrt(0.5 / inputs.gamma), length_scale_bounds="fixed")
    if work.startswith("expansion"):
        function = kerneldiff.expansion(kernel, X if Y is None else Y, V)
        evaluate = {
            "expansion_gradient": function.gradient,
            "expansion_hessian": function.hessian,
        }[work]
        return functools.partial(evaluate, X)
    functional = {
        "kernel_product": kerneldiff.Value,
        "joint_product": kerneldiff.ValueGradient,
    }[work]
    columns = None if Y is None else functional(Y)
    operator = kerneldiff.CovarianceOperator(kernel, functional(X), columns)
    if work == "kernel_product":
        return lambda: operator @ V
    n, d = X.shape
    flat = V.reshape(-1, *V.shape[2:])
    return lambda: (operator @ flat).reshape(n, 1 + d, *flat.shape[1:])


# --- what NumPy, JAX and PyTorch have in common -------------------------------------------------


def _factors(xp, X, Y, gamma):
    """Two matrices A, B with A Bᵀ = −γ |x − y|² up to rounding errors."""
    ones = xp.ones_like(X[:, :1]), xp.ones_like(Y[:, :1])
    squares = ((Z * Z).sum(1)[:, None] for Z in (X, Y))
    A = xp.concatenate([2 * gamma * X, -gamma * next(squares), ones[0]], 1)
    B = xp.concatenate([Y, ones[1], -gamma * next(squares)], 1)
    return A, B


def _moments(xp, work, Y, V):
    """The matrix M of which the result needs K M, for all works but the joint product."""
    w = V[:, None]
    if work == "kernel_product":
        return w
    parts = [w, w * Y]
    if work == "expansion_hessian":
        a, b = np.triu_indices(Y.shape[1])
        parts.append(parts[1][:, a] * Y[:, b])
    return xp.concatenate(parts, 1)


def _finish(work, x, r, gamma, eye):
    """Results for some points x from their rows r of K M."""
    if work == "kernel_product":
        return r[:, 0]
    d = x.shape[1]
    s, m = r[:, :1], r[:, 1 : d + 1]
    if work == "expansion_gradient":
        return -2 * gamma * (x * s - m)
    a, b = np.triu_indices(d)
    position = np.empty((d, d), int)
    position[a, b] = position[b, a] = d + 1 + np.arange(len(a))
    outer = r[:, position]
    outer = outer - x[:, :, None] * (m - s * x)[:, None, :] - m[:, :, None] * x[:, None, :]
    return 4 * gamma**2 * outer - (2 * gamma * s)[:, :, None] * eye


def _joint_factors(xp, Y, V, gamma):
    """(b_j, a_j − 2γ y_j·b_j), whose products with (2γ x, 1) are c_j; and (y_j, 1)."""
    b = V[:, 1:]
    constant = V[:, :1] - 2 * gamma * (Y * b).sum(1)[:, None]
    return xp.concatenate([b, constant], 1), xp.concatenate([Y, xp.ones_like(V[:, :1])], 1)


def _joint_finish(xp, x, kb, r, gamma):
    return xp.concatenate([r[:, -1:], 2 * gamma * (kb + r[:, :-1] - x * r[:, -1:])], 1)


def _tiles(size, tile):
    return [slice(start, min(size, start + tile)) for start in range(0, size, tile)]


def _even_tile(size, tile):
    """The size of tiles that are no larger than `tile` and as even as can be."""
    return -(-size // -(-size // tile))


# --- NumPy --------------------------------------------------------------------------------------

_NUMPY_TILE = (512, 1024)


@functools.cache
def _pool():
    return ThreadPoolExecutor(measure.cpu_count())


@functools.cache
def _blas():
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _in_threads(task, pieces):
    """Run a task for all pieces in threads, each with a BLAS of one thread."""
    with _blas().limit(limits=1, user_api="blas"):
        return list(_pool().map(task, pieces))


_local = threading.local()


def _buffers():
    """Two arrays of the size of a tile for each thread; new ones would have to be touched first."""
    if not hasattr(_local, "buffers"):
        _local.buffers = np.empty((2, math.prod(_NUMPY_TILE)))
    return _local.buffers


def _tile(A, B, out):
    k = np.matmul(A, B.T, out=out[: len(A) * len(B)].reshape(len(A), len(B)))
    np.minimum(k, 0, out=k)
    return np.exp(k, out=k)


def _numpy(work, inputs):
    X, gamma, V = inputs.X, inputs.gamma, inputs.V
    Y = X if inputs.Y is None else inputs.Y
    n, d = X.shape
    rows, columns = (_tiles(len(Z), t) for Z, t in zip((X, Y), _NUMPY_TILE, strict=True))
    eye = np.eye(d)

    def joint():
        A, B = _factors(np, X, Y, gamma)
        left = np.concatenate([2 * gamma * X, np.ones((n, 1))], axis=1)
        right, reducer = _joint_factors(np, Y, V, gamma)
        b = np.ascontiguousarray(V[:, 1:])
        out = np.empty((n, 1 + d))

        def task(i):
            kb, r = 0, 0
            for j in columns:
                buffers = _buffers()
                k = _tile(A[i], B[j], buffers[0])
                c = np.matmul(left[i], right[j].T, out=buffers[1][: k.size].reshape(k.shape))
                c *= k
                r = r + c @ reducer[j]
                kb = kb + k @ b[j]
            out[i] = _joint_finish(np, X[i], kb, r, gamma)

        _in_threads(task, rows)
        return out

    def product():
        A, B = _factors(np, X, Y, gamma)
        M = _moments(np, work, Y, V)
        out = np.empty((n, d, d)[: {"kernel_product": 1, "expansion_gradient": 2}.get(work, 3)])

        def task(i):
            r = sum(_tile(A[i], B[j], _buffers()[0]) @ M[j] for j in columns)
            out[i] = _finish(work, X[i], r, gamma, eye)

        _in_threads(task, rows)
        return out

    def symmetric():
        A, B = _factors(np, X, X, gamma)
        tiles = _tiles(n, math.isqrt(math.prod(_NUMPY_TILE)))
        pairs = list(itertools.combinations_with_replacement(tiles, 2))
        threads = measure.cpu_count()

        def task(thread):
            out = np.zeros(n)
            for i, j in pairs[thread::threads]:
                k = _tile(A[i], B[j], _buffers()[0])
                out[i] += k @ V[j]
                if i != j:
                    out[j] += V[i] @ k
            return out

        return sum(_in_threads(task, range(threads)))

    if work == "kernel_product" and inputs.Y is None:
        return symmetric
    return joint if work == "joint_product" else product


# --- PyTorch ------------------------------------------------------------------------------------

_TORCH_TILE = (1024, 1024)


def _torch(work, inputs):
    import torch

    X, V = torch.from_numpy(inputs.X), torch.from_numpy(inputs.V)
    Y = X if inputs.Y is None else torch.from_numpy(inputs.Y)
    gamma = inputs.gamma
    rows, columns = (_tiles(len(Z), t) for Z, t in zip((X, Y), _TORCH_TILE, strict=True))
    eye = torch.eye(X.shape[1], dtype=X.dtype)

    def tile(A, B):
        return (A @ B.T).clamp_(max=0).exp_()

    def product():
        A, B = _factors(torch, X, Y, gamma)
        M = _moments(torch, work, Y, V)
        parts = []
        for i in rows:
            r = sum(tile(A[i], B[j]) @ M[j] for j in columns)
            parts.append(_finish(work, X[i], r, gamma, eye))
        return torch.concatenate(parts)

    def joint():
        A, B = _factors(torch, X, Y, gamma)
        left = torch.concatenate([2 * gamma * X, torch.ones_like(X[:, :1])], 1)
        right, reducer = _joint_factors(torch, Y, V, gamma)
        parts = []
        for i in rows:
            kb, r = 0, 0
            for j in columns:
                k = tile(A[i], B[j])
                kb = kb + k @ V[j, 1:]
                r = r + (left[i] @ right[j].T).mul_(k) @ reducer[j]
            parts.append(_joint_finish(torch, X[i], kb, r, gamma))
        return torch.concatenate(parts)

    return joint if work == "joint_product" else product


# --- JAX ----------------------------------------------------------------------------------------

_JAX_TILE = (1000, 1000)


@functools.cache
def _jax_product(work, n, m, d):
    from .reference_jax import jax, jnp

    rows, columns = (
        -(-size // -(-size // tile)) for size, tile in zip((n, m), _JAX_TILE, strict=True)
    )
    eye = jnp.eye(d)

    def tiled(Z, tile):
        """(tiles, tile, columns) of a matrix, the last filled with zeros."""
        Z = jnp.pad(Z, ((0, -len(Z) % tile), (0, 0)))
        return Z.reshape(-1, tile, Z.shape[1])

    def over_tiles(body, left, right):
        """Add up body(rows of left, rows of right) over right, for all rows of left."""
        right = tuple(tiled(Z, columns) for Z in right)

        def of_rows(some):
            zero = jax.tree.map(
                lambda s: jnp.zeros(s.shape, s.dtype),
                jax.eval_shape(lambda: body(some, tuple(Z[0] for Z in right))),
            )
            return jax.lax.scan(
                lambda r, other: (jax.tree.map(jnp.add, r, body(some, other)), None), zero, right
            )[0]

        return jax.lax.map(of_rows, tuple(tiled(Z, rows) for Z in left))

    def kernel(A, B):
        return jnp.exp(jnp.minimum(A @ B.T, 0))

    def flat(Z):
        return Z.reshape(-1, *Z.shape[2:])[:n]

    def product(X, Y, gamma, V):
        A, B = _factors(jnp, X, Y, gamma)
        M = _moments(jnp, work, Y, V)
        r = over_tiles(lambda left, right: kernel(left[0], right[0]) @ right[1], (A,), (B, M))
        return flat(jax.lax.map(lambda some: _finish(work, *some, gamma, eye), (tiled(X, rows), r)))

    def joint(X, Y, gamma, V):
        A, B = _factors(jnp, X, Y, gamma)
        left = jnp.concatenate([2 * gamma * X, jnp.ones((n, 1))], 1)

        def body(some, other):
            k = kernel(some[0], other[0])
            c = k * (some[1] @ other[1].T)
            return k @ other[3], c @ other[2]

        kb, r = over_tiles(body, (A, left), (B, *_joint_factors(jnp, Y, V, gamma), V[:, 1:]))
        return _joint_finish(jnp, X, flat(kb), flat(r), gamma)

    return jax.jit(joint if work == "joint_product" else product)


def _jax(work, inputs):
    from .reference_jax import jnp

    X, V = jnp.asarray(inputs.X), jnp.asarray(inputs.V)
    Y = X if inputs.Y is None else jnp.asarray(inputs.Y)
    product = _jax_product(work, len(X), len(Y), X.shape[1])
    return lambda: product(X, Y, inputs.gamma, V).block_until_ready()


# --- KeOps --------------------------------------------------------------------------------------


def _keops(work, inputs):
    import pykeops
    from pykeops.numpy import Genred

    d = inputs.X.shape[1]
    kernel = "Exp(-g*SqDist(x,y))"
    c = "(a+IntCst(2)*g*((x-y)|b))"
    formulas = {
        "kernel_product": f"{kernel}*a",
        "joint_product": f"{kernel}*Concat({c},IntCst(2)*g*(b-(x-y)*{c}))",
        "expansion_gradient": f"(-IntCst(2)*g*{kernel}*a)*(x-y)",
    }
    if work not in formulas:
        return None
    pykeops.set_verbose(False)
    names = ["g=Pm(1)", f"x=Vi({d})", f"y=Vj({d})", "a=Vj(1)"]
    V = inputs.V.reshape(len(inputs.V), -1)
    vectors = [np.ascontiguousarray(V[:, :1])]
    if work == "joint_product":
        names.append(f"b=Vj({d})")
        vectors.append(np.ascontiguousarray(V[:, 1:]))
    reduction = Genred(formulas[work], names, reduction_op="Sum", axis=1)
    Y = inputs.X if inputs.Y is None else inputs.Y
    gamma = np.array([inputs.gamma])

    def product():
        out = reduction(gamma, inputs.X, Y, *vectors, backend="CPU")
        return out[:, 0] if work == "kernel_product" else out

    return product


# --- numba --------------------------------------------------------------------------------------

# A tile is four rows times this many columns. The kernel's values of one take 8 KiB.
_COLUMNS = 256
# Rows of one task, which share what is read of the columns.
_ROWS = 128

# exp(r) for |r| ≤ log(2)/2 by Chebyshev interpolation, highest power first; 0.7 ulp in all.
_EXP = (
    2.5110037605963777e-08,
    2.763263963904103e-07,
    2.755724091857897e-06,
    2.4801485482328494e-05,
    1.9841269890047113e-04,
    1.3888888952314775e-03,
    8.333333333319601e-03,
    4.16666666664881e-02,
    1.666666666666668e-01,
    5.000000000000019e-01,
    1.0,
    1.0,
)


@functools.cache
def _library_exp():
    from numba import njit

    return njit(lambda x: math.exp(x))


@functools.cache
def _own_exp():
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic

    @intrinsic
    def to_bits(context, x):
        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.IntType(64))

        return types.int64(types.float64), generate

    @intrinsic
    def from_bits(context, x):
        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.DoubleType())

        return types.float64(types.int64), generate

    # Adding it rounds to an integer, which is then in the lowest bits.
    magic = 1.5 * 2.0**52

    # Not "reassoc", which would cancel the magic number.
    @njit(fastmath={"contract", "nnan", "ninf", "nsz"})
    def exp(x):
        x = max(x, -708.0)
        shifted = x * 1.4426950408889634 + magic
        whole = shifted - magic
        r = (x - whole * 6.93147180369123816490e-01) - whole * 1.90821492927058770002e-10
        p = 0.0
        for c in _EXP:
            p = p * r + c
        return p * from_bits((to_bits(shifted) + np.int64(1023)) << np.int64(52))

    return exp


@functools.cache
def _numba_tiles(d, exponential):
    """The products, compiled for points with `d` columns."""
    from numba import get_num_threads, njit, prange
    from numba.np.unsafe.ndarray import to_fixed_tuple

    exp = exponential()
    width, rows = _COLUMNS, _ROWS
    # Four rows times this many columns of X are kept in registers; X is filled up with zeros.
    step = min(range(2, 6), key=lambda s: (-(-d // s) * s, -s))
    steps = -(-d // step)
    padded = steps * step
    fast = functools.partial(njit, fastmath=True)
    parallel = functools.partial(njit, fastmath=True, parallel=True)

    @njit
    def aligned(n, m):
        # Vectors that straddle cache lines take twice as long to load.
        a = np.empty(n * m + 8)
        start = -(a.ctypes.data // 8) % 8
        return a[start : start + n * m].reshape((n, m))

    @parallel
    def panels(A, count):
        """Columns of A as the rows of (panels, count, width), filled up with zeros."""
        m, t = A.shape
        number = (m + width - 1) // width
        P = aligned(number * count, width).reshape((number, count, width))
        for b in prange(number):
            P[b] = 0
            for j in range(b * width, min(m, (b + 1) * width)):
                for a in range(t):
                    P[b, a, j - b * width] = A[j, a]
        return P

    @fast
    def add_products(x, p, s):
        """s += x @ p for four rows of x."""
        s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
        for b in range(steps):
            c, e = b * step, (b + 1) * step
            x0, x1 = to_fixed_tuple(x[0, c:e], step), to_fixed_tuple(x[1, c:e], step)
            x2, x3 = to_fixed_tuple(x[2, c:e], step), to_fixed_tuple(x[3, c:e], step)
            for j in range(width):
                t0, t1, t2, t3 = s0[j], s1[j], s2[j], s3[j]
                for a in range(step):
                    y = p[c + a, j]
                    t0 += x0[a] * y
                    t1 += x1[a] * y
                    t2 += x2[a] * y
                    t3 += x3[a] * y
                s0[j], s1[j], s2[j], s3[j] = t0, t1, t2, t3

    @fast
    def reduce_one(k, p, out, c):
        k0, k1, k2, k3, q = k[0], k[1], k[2], k[3], p[c]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            y = q[j]
            a0 += k0[j] * y
            a1 += k1[j] * y
            a2 += k2[j] * y
            a3 += k3[j] * y
        out[0, c] += a0
        out[1, c] += a1
        out[2, c] += a2
        out[3, c] += a3

    @fast
    def reduce_four(k, p, out, c):
        k0, k1, k2, k3 = k[0], k[1], k[2], k[3]
        q0, q1, q2, q3 = p[c], p[c + 1], p[c + 2], p[c + 3]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
        c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
        d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            h0, h1, h2, h3 = k0[j], k1[j], k2[j], k3[j]
            y0, y1, y2, y3 = q0[j], q1[j], q2[j], q3[j]
            a0 += h0 * y0
            a1 += h1 * y0
            a2 += h2 * y0
            a3 += h3 * y0
            b0 += h0 * y1
            b1 += h1 * y1
            b2 += h2 * y1
            b3 += h3 * y1
            c0 += h0 * y2
            c1 += h1 * y2
            c2 += h2 * y2
            c3 += h3 * y2
            d0 += h0 * y3
            d1 += h1 * y3
            d2 += h2 * y3
            d3 += h3 * y3
        out[0, c] += a0
        out[1, c] += a1
        out[2, c] += a2
        out[3, c] += a3
        out[0, c + 1] += b0
        out[1, c + 1] += b1
        out[2, c + 1] += b2
        out[3, c + 1] += b3
        out[0, c + 2] += c0
        out[1, c + 2] += c1
        out[2, c + 2] += c2
        out[3, c + 2] += c3
        out[0, c + 3] += d0
        out[1, c + 3] += d1
        out[2, c + 3] += d2
        out[3, c + 3] += d3

    @fast
    def reduce(k, p, out):
        """out += k @ p.T for four rows of k."""
        count = out.shape[1]
        c = 0
        while c + 4 <= count:
            reduce_four(k, p, out, c)
            c += 4
        while c < count:
            reduce_one(k, p, out, c)
            c += 1

    @fast
    def spread(x, b, c, k, out):
        """out += x.T @ c + b.T @ k for four rows of each."""
        k0, k1, k2, k3 = k[0], k[1], k[2], k[3]
        c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
        for a in range(d):
            x0, x1, x2, x3 = x[0, a], x[1, a], x[2, a], x[3, a]
            b0, b1, b2, b3 = b[0, a], b[1, a], b[2, a], b[3, a]
            row = out[a]
            for j in range(width):
                t = x0 * c0[j] + x1 * c1[j] + x2 * c2[j] + x3 * c3[j]
                row[j] += t + b0 * k0[j] + b1 * k1[j] + b2 * k2[j] + b3 * k3[j]

    @fast
    def kernel(x, squares, p, q, k):
        """exp(−γ s) of four rows; x holds 2γ x, `squares` and q hold −γ |x|² and −γ |y|²."""
        for r in range(4):
            for j in range(width):
                k[r, j] = q[j] + squares[r]
        add_products(x, p, k)
        for r in range(4):
            row = k[r]
            for j in range(width):
                row[j] = exp(min(row[j], 0.0))

    @fast
    def take_rows(X, start, scale, out):
        out[:] = 0
        for i in range(min(rows, len(X) - start)):
            for a in range(d):
                out[i, a] = scale * X[start + i, a]

    @fast
    def negative_squares(X, gamma):
        out = np.zeros((len(X) + rows, 1))
        for i in range(len(X)):
            for a in range(d):
                out[i, 0] -= gamma * X[i, a] * X[i, a]
        return out

    @parallel
    def times(X, Y, gamma, M):
        """K @ M."""
        n, count = len(X), M.shape[1]
        P, W = panels(Y, padded), panels(M, count)
        squares = negative_squares(X, gamma)[:, 0]
        q = panels(negative_squares(Y, gamma)[: len(Y)], 1)
        out = np.empty((n, count))
        for task in prange((n + rows - 1) // rows):
            start = task * rows
            x, k, r = np.empty((rows, padded)), aligned(4, width), np.zeros((rows, count))
            take_rows(X, start, 2 * gamma, x)
            for b in range(len(P)):
                for i in range(0, rows, 4):
                    kernel(x[i : i + 4], squares[start + i : start + i + 4], P[b], q[b, 0], k)
                    reduce(k, W[b], r[i : i + 4])
            out[start : start + rows] = r[: min(rows, n - start)]
        return out

    @fast
    def kernel_product(X, Y, gamma, V):
        return times(X, Y, gamma, V.reshape((len(V), 1)))[:, 0]

    @parallel
    def product_in_one_loop(X, Y, gamma, V):
        Z = np.ascontiguousarray(Y.T)
        out = np.empty(len(X))
        for i in prange(len(X)):
            x = to_fixed_tuple(X[i], d)
            total = 0.0
            for j in range(len(V)):
                s = 0.0
                for a in range(d):
                    t = x[a] - Z[a, j]
                    s += t * t
                total += exp(-gamma * s) * V[j]
            out[i] = total
        return out

    @parallel
    def symmetric_kernel_product(X, gamma, V):
        n, threads = len(X), get_num_threads()
        P = panels(X, padded)
        v = panels(V.reshape((n, 1)), 1)
        squares = negative_squares(X, gamma)
        q = panels(squares[:n], 1)
        tasks = (n + rows - 1) // rows
        parts = np.zeros((threads, len(P) * width))
        for thread in prange(threads):
            x, k = np.empty((rows, padded)), aligned(4, width)
            part = parts[thread]
            for task in range(thread, tasks, threads):
                start = task * rows
                first = start // width
                take_rows(X, start, 2 * gamma, x)
                for b in range(first, len(P)):
                    mirror = part[b * width : (b + 1) * width]
                    w = v[b, 0]
                    for i in range(0, rows, 4):
                        at = start + i
                        kernel(x[i : i + 4], squares[at : at + 4, 0], P[b], q[b, 0], k)
                        own = v[first, 0, at % width :]
                        v0, v1, v2, v3 = own[0], own[1], own[2], own[3]
                        k0, k1, k2, k3 = k[0], k[1], k[2], k[3]
                        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
                        if b == first:
                            for j in range(width):
                                a0 += k0[j] * w[j]
                                a1 += k1[j] * w[j]
                                a2 += k2[j] * w[j]
                                a3 += k3[j] * w[j]
                        else:
                            for j in range(width):
                                a0 += k0[j] * w[j]
                                a1 += k1[j] * w[j]
                                a2 += k2[j] * w[j]
                                a3 += k3[j] * w[j]
                                mirror[j] += v0 * k0[j] + v1 * k1[j] + v2 * k2[j] + v3 * k3[j]
                        part[at] += a0
                        part[at + 1] += a1
                        part[at + 2] += a2
                        part[at + 3] += a3
        return parts.sum(axis=0)[:n]

    @fast
    def constants(X, gamma, V):
        """a_j − 2γ y_j·b_j: what of c_j does not depend on x."""
        out = np.zeros((len(X) + rows, 1))
        for j in range(len(X)):
            s = 0.0
            for a in range(d):
                s += X[j, a] * V[j, a + 1]
            out[j, 0] = V[j, 0] - 2 * gamma * s
        return out

    @fast
    def add_joint(x, squares, p, q, b, constant, k, c, f, r):
        """Add to the values f and the sums r of k b_j + k c_j y_j of four rows."""
        kernel(x, squares, p, q, k)
        for i in range(4):
            c[i] = constant
        add_products(x, b, c)
        for i in range(4):
            row, other = c[i], k[i]
            s = 0.0
            for j in range(width):
                row[j] *= other[j]
                s += row[j]
            f[i] += s
        reduce(c, p, r)
        reduce(k, b, r)

    @parallel
    def joint_product(X, Y, gamma, V):
        n = len(X)
        P, B = panels(Y, padded), panels(V[:, 1:], padded)
        constant = panels(constants(Y, gamma, V)[: len(Y)], 1)
        squares = negative_squares(X, gamma)[:, 0]
        q = panels(negative_squares(Y, gamma)[: len(Y)], 1)
        out = np.empty((n, d + 1))
        for task in prange((n + rows - 1) // rows):
            start = task * rows
            x, k, c = np.empty((rows, padded)), aligned(4, width), aligned(4, width)
            f, r = np.zeros(rows), np.zeros((rows, d))
            take_rows(X, start, 2 * gamma, x)
            for b in range(len(P)):
                for i in range(0, rows, 4):
                    e = i + 4
                    some = squares[start + i : start + e]
                    add_joint(
                        x[i:e], some, P[b], q[b, 0], B[b], constant[b, 0], k, c, f[i:e], r[i:e]
                    )
            for i in range(start, min(n, start + rows)):
                out[i, 0] = f[i - start]
                for a in range(d):
                    out[i, a + 1] = 2 * gamma * (r[i - start, a] - X[i, a] * f[i - start])
        return out

    @parallel
    def symmetric_joint_product(X, gamma, V):
        n, threads = len(X), get_num_threads()
        P, B = panels(X, padded), panels(V[:, 1:], padded)
        own_constants = constants(X, gamma, V)
        constant = panels(own_constants[:n], 1)
        squares = negative_squares(X, gamma)
        q = panels(squares[:n], 1)
        tasks = (n + rows - 1) // rows
        values = np.zeros((threads, len(P) * width))
        sums = np.zeros((threads, len(P) * width, d))
        for thread in prange(threads):
            x, k, c = np.empty((rows, padded)), aligned(4, width), aligned(4, width)
            raw, b_rows = np.empty((rows, padded)), np.empty((rows, padded))
            scaled = np.empty((rows, padded))
            mirrored = np.zeros((len(P), d, width))
            f, r = values[thread], sums[thread]
            for task in range(thread, tasks, threads):
                start = task * rows
                first = start // width
                take_rows(X, start, 2 * gamma, x)
                take_rows(X, start, 1.0, raw)
                take_rows(V[:, 1:], start, 1.0, b_rows)
                take_rows(V[:, 1:], start, 2 * gamma, scaled)
                for b in range(first, len(P)):
                    for i in range(0, rows, 4):
                        e, at = i + 4, start + i
                        add_joint(
                            x[i:e],
                            squares[at : at + 4, 0],
                            P[b],
                            q[b, 0],
                            B[b],
                            constant[b, 0],
                            k,
                            c,
                            f[at : at + 4],
                            r[at : at + 4],
                        )
                        if b == first:
                            continue
                        for s in range(4):
                            c[s] = own_constants[at + s, 0]
                        add_products(scaled[i:e], P[b], c)
                        for s in range(4):
                            row, other = c[s], k[s]
                            for j in range(width):
                                row[j] *= other[j]
                        for j in range(width):
                            f[b * width + j] += c[0, j] + c[1, j] + c[2, j] + c[3, j]
                        spread(raw[i:e], b_rows[i:e], c, k, mirrored[b])
            for b in range(len(P)):
                for j in range(width):
                    for a in range(d):
                        r[b * width + j, a] += mirrored[b, a, j]
        out = np.empty((n, d + 1))
        for i in prange(n):
            f = 0.0
            for thread in range(threads):
                f += values[thread, i]
            out[i, 0] = f
            for a in range(d):
                s = 0.0
                for thread in range(threads):
                    s += sums[thread, i, a]
                out[i, a + 1] = 2 * gamma * (s - X[i, a] * f)
        return out

    @parallel
    def expansion_gradient(X, Y, gamma, V):
        M = np.empty((len(Y), d + 1))
        for j in prange(len(Y)):
            M[j, 0] = V[j]
            for a in range(d):
                M[j, a + 1] = V[j] * Y[j, a]
        r = times(X, Y, gamma, M)
        out = np.empty((len(X), d))
        for i in prange(len(X)):
            for a in range(d):
                out[i, a] = 2 * gamma * (r[i, a + 1] - X[i, a] * r[i, 0])
        return out

    @parallel
    def expansion_hessian(X, Y, gamma, V):
        M = np.empty((len(Y), d + 1 + d * (d + 1) // 2))
        for j in prange(len(Y)):
            M[j, 0] = V[j]
            c = d + 1
            for a in range(d):
                w = V[j] * Y[j, a]
                M[j, a + 1] = w
                for b in range(a, d):
                    M[j, c] = w * Y[j, b]
                    c += 1
        r = times(X, Y, gamma, M)
        out = np.empty((len(X), d, d))
        for i in prange(len(X)):
            c = d + 1
            s = r[i, 0]
            for a in range(d):
                t = r[i, a + 1] - X[i, a] * s
                for b in range(a, d):
                    h = r[i, c] - X[i, a] * r[i, b + 1] - X[i, b] * t
                    out[i, a, b] = 4 * gamma * gamma * h
                    out[i, b, a] = out[i, a, b]
                    c += 1
                out[i, a, a] -= 2 * gamma * s
        return out

    functions = (
        kernel_product,
        joint_product,
        expansion_gradient,
        expansion_hessian,
        symmetric_kernel_product,
        symmetric_joint_product,
    )
    found = {function.__name__: function for function in functions}
    if d <= 4:
        # So few columns stay in registers all the time.
        found["kernel_product"] = product_in_one_loop
    return found


def _numba(exponential, work, inputs):
    functions = _numba_tiles(inputs.X.shape[1], exponential)
    X, Y, gamma, V = inputs.X, inputs.Y, inputs.gamma, inputs.V
    if Y is None and f"symmetric_{work}" in functions:
        return functools.partial(functions[f"symmetric_{work}"], X, gamma, V)
    return functools.partial(functions[work], X, X if Y is None else Y, gamma, V)


# --- the list -----------------------------------------------------------------------------------

OURS = Implementation("kerneldiff", "ours", "kerneldiff", _kerneldiff)

IMPLEMENTATIONS = (
    OURS,
    Implementation("JAX", "peer", "jax", _jax),
    Implementation("numba", "peer", "numba", functools.partial(_numba, _library_exp)),
    Implementation("numba, own exp", "own exp", "numba", functools.partial(_numba, _own_exp)),
    Implementation("NumPy", "peer", "threadpoolctl", _numpy),
    Implementation("torch", "peer", "torch", _torch),
    Implementation("KeOps", "peer", "pykeops", _keops),
)
