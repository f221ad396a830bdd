"""Dense tensors of kernel values and derivatives for all pairs of points.

The functions here check what comes in, read the kernel, find or make the output, and call the
compiled core once.  Nothing but the output and one packed copy of the points is ever stored.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from sklearn import get_config
from sklearn.gaussian_process.kernels import Kernel, PairwiseKernel

from kerneldiff import _core, kernels
from kerneldiff._validation import (
    STREAM_BYTES,
    check_choice,
    check_out,
    check_pair,
    check_points,
    counted,
    memory_limit,
    too_large,
)


class _Tensor(NamedTuple):
    """What the core is asked for."""

    number: int  # its number in the core
    wrt: tuple[str, ...]  # what it may be differentiated with respect to
    shape: Callable[[int], tuple[int, ...]]  # of the entries of a pair, from D


_FIRST = ("x", "y")
_SECOND = ("xx", "xy", "yx", "yy")
_VALUE = _Tensor(0, ("",), lambda d: ())
_GRADIENT = _Tensor(1, _FIRST, lambda d: (d,))
_HESSIAN_DIAG = _Tensor(2, _SECOND, lambda d: (d,))
_HESSIAN = {
    "full": _Tensor(3, _SECOND, lambda d: (d, d)),
    "packed": _Tensor(4, _SECOND, lambda d: (d * (d + 1) // 2,)),
}


_ADVICE = "tensor_blocks computes it in pieces, and out= may be a memory-mapped file."


def _compute(
    tensor: _Tensor,
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None,
    wrt: str,
    out: np.ndarray | None,
) -> np.ndarray:
    """Check, read, find or make the output, compute."""
    check_choice("wrt", wrt, tensor.wrt)
    same, passed = Y is None, {"X": X, "Y": Y}
    X, Y = check_pair(X, Y)
    n, d = X.shape
    term = kernels.read(kernel, d)
    if tensor is _HESSIAN["packed"] and wrt in ("xy", "yx") and not kernels.is_stationary(term):
        raise ValueError(
            f"layout='packed' with wrt={wrt!r} needs symmetric blocks, which {kernel} does not "
            "have; it may be 'full'."
        )
    program = kernels.compile_term(term, d, len(wrt), dtype=X.dtype.char)
    shape = (n, Y.shape[0], *tensor.shape(d))
    reused = out is not None
    out = check_out(out, shape, X.dtype, advice=_ADVICE, **passed)
    stream = reused and out.nbytes > STREAM_BYTES
    _core.tensor(program, X, Y, out, tensor.number, wrt, stream)
    if same and tensor is _VALUE:
        add_noise(term, X, out.reshape(-1)[:: n + 1])
    return out


def kernel_matrix(
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Values of a kernel for all pairs of points.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        Any that can be read: scikit-learn's, `Columns`, sums, products and powers of them, and
        subclasses of one's own with `invariant` and `jet`.
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    out : ndarray of shape (N, M), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y. It may be a
        memory-mapped file.

    Returns
    -------
    K : ndarray of shape (N, M)
        ``K[i, j]`` is k(x_i, y_j). float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read; the part is named.
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    gradient, hessian_diag, hessian : Its derivatives.
    tensor_blocks : The same block by block, for results larger than memory.

    Notes
    -----
    An interrupt (Ctrl-C) ends the call within a second and may leave `out` partly written.

    Differences of points are formed directly, so that an offset common to all points costs no
    digits, unlike forms with ‖x‖² + ‖y‖² − 2x·y.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import kernel_matrix
    >>> kernel_matrix(RBF(1.0), np.array([[0.0], [1.0]])).round(3)
    array([[1.   , 0.607],
           [0.607, 1.   ]])
    """
    return _compute(_VALUE, kernel, X, Y, "", out)


def gradient(
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    wrt: str = "x",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of a kernel for all pairs of points.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        Any that can be read: scikit-learn's, `Columns`, sums, products and powers of them, and
        subclasses of one's own with `invariant` and `jet`.
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    wrt : {"x", "y"}, default="x"
        The argument of k(x, y) that is differentiated. It is a partial derivative also for
        ``Y=None``.
    out : ndarray of shape (N, M, D), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y. It may be a
        memory-mapped file.

    Returns
    -------
    G : ndarray of shape (N, M, D)
        ``G[i, j, a]`` is ∂k/∂x_a (or ∂k/∂y_a) at (x_i, y_j), in units of k over units of column a.
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read; the part is named.
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian : Second derivatives.

    Notes
    -----
    For k = F(s), s = Σ_d w_d (x_d − y_d)², it is ∂k/∂x_a = 2 F' w_a (x_a − y_a). An interrupt
    (Ctrl-C) ends the call within a second and may leave `out` partly written.

    References
    ----------
    S. Ament and C. Gomes, "Scalable First-Order Bayesian Optimization via Structured Automatic
    Differentiation", ICML 2022, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import gradient
    >>> G = gradient(RBF(1.0), np.array([[0.0, 0.0], [1.0, 0.0]]))
    >>> G.shape
    (2, 2, 2)
    >>> G[0].round(3)
    array([[-0.   , -0.   ],
           [ 0.607, -0.   ]])
    """
    return _compute(_GRADIENT, kernel, X, Y, wrt, out)


def hessian_diag(
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    wrt: str = "xx",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Diagonals of the Hessian blocks of a kernel for all pairs of points.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        Any that can be read: scikit-learn's, `Columns`, sums, products and powers of them, and
        subclasses of one's own with `invariant` and `jet`.
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments of k(x, y) that are differentiated, in order.
    out : ndarray of shape (N, M, D), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y. It may be a
        memory-mapped file.

    Returns
    -------
    H : ndarray of shape (N, M, D)
        ``H[i, j, a]`` is ``hessian(kernel, X, Y, wrt=wrt)[i, j, a, a]``. float32 if X and Y are,
        else float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read; the part is named.
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian : The whole blocks.

    Notes
    -----
    An interrupt (Ctrl-C) ends the call within a second and may leave `out` partly written.

    References
    ----------
    S. Ament and C. Gomes, "Scalable First-Order Bayesian Optimization via Structured Automatic
    Differentiation", ICML 2022, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import hessian_diag
    >>> hessian_diag(RBF(2.0), np.zeros((1, 3)))
    array([[[-0.25, -0.25, -0.25]]])
    """
    return _compute(_HESSIAN_DIAG, kernel, X, Y, wrt, out)


def hessian(
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    wrt: str = "xx",
    layout: str = "full",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Hessian blocks of a kernel for all pairs of points.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        Any that can be read: scikit-learn's, `Columns`, sums, products and powers of them, and
        subclasses of one's own with `invariant` and `jet`.
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments of k(x, y) that are differentiated; the last two axes of the result are in
        this order.
    layout : {"full", "packed"}, default="full"
        "packed" stores the entries a ≤ b of each block only, row by row: nearly twice as fast, as
        memory is the limit.
    out : ndarray of shape (N, M, D, D) or (N, M, D(D+1)/2), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y. It may be a
        memory-mapped file.

    Returns
    -------
    H : ndarray of shape (N, M, D, D) or (N, M, D(D+1)/2)
        ``H[i, j, a, b]`` is ∂²k/∂x_a∂x_b at (x_i, y_j) for "xx", ∂²k/∂x_a∂y_b for "xy", and so on.
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read; the part is named.
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian_diag : The diagonals alone.
    tensor_blocks : The same block by block, for results larger than memory.

    Notes
    -----
    For k = F(s), s = Σ_d w_d δ_d² and δ = x − y,

        ∂²k/∂x_a∂x_b = 4 F'' w_a δ_a w_b δ_b + 2 F' w_a [a = b],

    "yy" is the same and "xy" and "yx" its negative. The term with [a = b] is lost in some published
    derivations for the RBF kernel. An interrupt (Ctrl-C) ends the call within a second and may
    leave `out` partly written.

    References
    ----------
    S. Ament and C. Gomes, "Scalable First-Order Bayesian Optimization via Structured Automatic
    Differentiation", ICML 2022, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import hessian
    >>> X = np.array([[0.0, 0.0], [0.5, 2.0]])
    >>> H = hessian(RBF(1.0), X)
    >>> H.shape
    (2, 2, 2, 2)
    >>> H[0, 1].round(3)
    array([[-0.09 ,  0.119],
           [ 0.119,  0.358]])
    >>> hessian(RBF(1.0), X, layout="packed")[0, 1].round(3)
    array([-0.09 ,  0.119,  0.358])
    """
    check_choice("layout", layout, tuple(_HESSIAN))
    return _compute(_HESSIAN[layout], kernel, X, Y, wrt, out)


def _rbf(gamma: float | None) -> PairwiseKernel:
    """The kernel exp(-gamma s) of scikit-learn's pairwise functions, whose gamma is positive."""
    if gamma is not None:
        try:
            number = float(gamma)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < 2.0 * number < math.inf:
            raise ValueError(
                f"gamma is {gamma!r}; it must be positive and twice that finite, or None."
            )
    return PairwiseKernel(gamma, metric="rbf")


def rbf_kernel(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    gamma: float | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Values of the RBF kernel exp(−γ‖x − y‖²) for all pairs of points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    gamma : float, default=None
        γ > 0, in inverse squared units of the points; None stands for 1/D.
    out : ndarray of shape (N, M), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y.

    Returns
    -------
    K : ndarray of shape (N, M)
        ``K[i, j]`` is exp(−γ‖x_i − y_j‖²).
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    kernel_matrix : The same for kernel objects; its notes hold here too.
    sklearn.metrics.pairwise.rbf_kernel : The values, with the same arguments.

    Notes
    -----
    Differences of points are formed directly: an offset costs no digits.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import rbf_kernel
    >>> rbf_kernel(np.zeros((1, 2)), np.ones((1, 2)), gamma=0.5).round(3)
    array([[0.368]])
    """
    return _compute(_VALUE, _rbf(gamma), X, Y, "", out)


def rbf_gradient(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    gamma: float | None = None,
    *,
    wrt: str = "x",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of the RBF kernel exp(−γ‖x − y‖²) for all pairs of points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    gamma : float, default=None
        γ > 0, in inverse squared units of the points; None stands for 1/D.
    wrt : {"x", "y"}, default="x"
        The argument that is differentiated.
    out : ndarray of shape (N, M, D), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y.

    Returns
    -------
    G : ndarray of shape (N, M, D)
        ``G[i, j, a]`` is ∂k/∂x_a (or ∂k/∂y_a) at (x_i, y_j).
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    gradient : The same for kernel objects; its notes and sources hold here too.
    sklearn.metrics.pairwise.rbf_kernel : The values, with the same arguments.

    Notes
    -----
    ∂k/∂x_a = −2γ δ_a k with δ = x − y.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import rbf_gradient
    >>> rbf_gradient(np.zeros((1, 2)), np.ones((1, 2)), gamma=0.5).round(3)
    array([[[0.368, 0.368]]])
    """
    return _compute(_GRADIENT, _rbf(gamma), X, Y, wrt, out)


def rbf_hessian_diag(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    gamma: float | None = None,
    *,
    wrt: str = "xx",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Diagonals of the Hessian blocks of the RBF kernel exp(−γ‖x − y‖²) for all pairs of points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    gamma : float, default=None
        γ > 0, in inverse squared units of the points; None stands for 1/D.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments that are differentiated; the last axes of the result are in this order.
    out : ndarray of shape (N, M, D), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y.

    Returns
    -------
    H : ndarray of shape (N, M, D)
        ``H[i, j, a]`` is the entry [i, j, a, a] of `rbf_hessian`.
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian_diag : The same for kernel objects; its notes and sources hold here too.
    sklearn.metrics.pairwise.rbf_kernel : The values, with the same arguments.

    Notes
    -----
    ∂²k/∂x_a² = (4γ² δ_a² − 2γ) k with δ = x − y.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import rbf_hessian_diag
    >>> rbf_hessian_diag(np.zeros((1, 2)), np.ones((1, 2)), gamma=0.5).round(3)
    array([[[0., 0.]]])
    """
    return _compute(_HESSIAN_DIAG, _rbf(gamma), X, Y, wrt, out)


def rbf_hessian(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    gamma: float | None = None,
    *,
    wrt: str = "xx",
    layout: str = "full",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Hessian blocks of the RBF kernel exp(−γ‖x − y‖²) for all pairs of points.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    gamma : float, default=None
        γ > 0, in inverse squared units of the points; None stands for 1/D.
    wrt : {"xx", "xy", "yx", "yy"}, default="xx"
        The arguments that are differentiated; the last axes of the result are in this order.
    layout : {"full", "packed"}, default="full"
        "packed" stores the entries a ≤ b of each block only, row by row.
    out : ndarray of shape (N, M, D, D) or (N, M, D(D+1)/2), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and Y.

    Returns
    -------
    H : ndarray of shape (N, M, D, D) or (N, M, D(D+1)/2)
        ``H[i, j, a, b]`` is ∂²k/∂x_a∂x_b at (x_i, y_j) for "xx", ∂²k/∂x_a∂y_b for "xy", and so on.
        float32 if X and Y are, else float64; `out` if that was given.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    hessian : The same for kernel objects; its notes and sources hold here too.
    sklearn.metrics.pairwise.rbf_kernel : The values, with the same arguments.

    Notes
    -----
    ∂²k/∂x_a∂x_b = (4γ² δ_a δ_b − 2γ [a = b]) k with δ = x − y.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import rbf_hessian
    >>> rbf_hessian(np.zeros((1, 2)), np.ones((1, 2)), gamma=0.5).round(3)
    array([[[[0.   , 0.368],
             [0.368, 0.   ]]]])
    """
    check_choice("layout", layout, tuple(_HESSIAN))
    return _compute(_HESSIAN[layout], _rbf(gamma), X, Y, wrt, out)


# Gradients are made in pieces of so many bytes on their way to a Gram Jacobian.
_PIECE = 2**21


def gram_jacobian(
    kernel: Kernel,
    X: ArrayLike,
    *,
    layout: str = "tensor",
    out: np.ndarray | None = None,
) -> Any:
    """Derivatives of the Gram matrix K(X, X) of some points by all coordinates of the points.

    An entry K_ij changes with x_i and x_j alone, so that of the N³D derivatives only N(2N − 1)D can
    differ from zero.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
        Any that can be read: scikit-learn's, `Columns`, sums, products and powers of them, and
        subclasses of one's own with `invariant` and `jet`.
    X : array-like of shape (N, D)
        Points.
    layout : {"tensor", "matrix", "sparse"}, default="tensor"
        "tensor" keeps all axes, "matrix" flattens the entries of K and those of X row by row, and
        "sparse" is this matrix in compressed rows, of which nothing is stored but the N(2N − 1)D
        entries with p = i or p = j.
    out : ndarray of shape (N, N, N, D) or (N·N, N·D), default=None
        Where to write: C-contiguous, of the type of the result, apart from X. It may be a
        memory-mapped file. Not for "sparse".

    Returns
    -------
    J : ndarray of shape (N, N, N, D) or (N·N, N·D), or scipy.sparse.csr_array of the latter
        ``J[i, j, p, a]``, or ``J[i * N + j, p * D + a]``, is ∂K_ij/∂X_pa. float32 if X is, else
        float64; `out` if that was given.

    Raises
    ------
    TypeError
        If a part of the kernel cannot be read; the part is named.
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    gradient : The derivatives by one argument, which this one is made of.
    CovarianceOperator.vjp : Sums Σ_ij W_ij ∂K_ij/∂X_pa, without the derivatives.

    Notes
    -----
    With [p = i] for 1 where p is i and 0 elsewhere,

        ∂K_ij/∂x_p = [p = i] ∂k/∂x (x_i, x_j) + [p = j] ∂k/∂y (x_i, x_j).

    On the diagonal this is the derivative of k(x, x), in which both arguments move: 0 for a
    stationary kernel, even one that has a kink where points meet (Matérn 1/2), and 2x for a dot
    product. The noise of a WhiteKernel moves along with its point. Where two different points
    coincide and the kernel has a kink, the derivative does not exist and is NaN.

    An interrupt (Ctrl-C) ends the call within a second and may leave `out` partly written.

    References
    ----------
    J. R. Magnus and H. Neudecker, "Matrix Differential Calculus with Applications in Statistics and
    Econometrics", 3rd edition, Wiley 2019, chapter 9, for the Jacobian of a matrix function as a
    matrix (there with columns stacked, here with rows).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import gram_jacobian
    >>> X = np.array([[0.0], [1.0]])
    >>> gram_jacobian(RBF(1.0), X, layout="matrix").round(3)
    array([[ 0.   ,  0.   ],
           [ 0.607, -0.607],
           [ 0.607, -0.607],
           [ 0.   ,  0.   ]])
    >>> gram_jacobian(RBF(1.0), X).shape
    (2, 2, 2, 1)
    >>> X = np.random.default_rng(0).normal(size=(300, 3))
    >>> J = gram_jacobian(RBF(1.0), X, layout="sparse")
    >>> J.shape, J.nnz
    ((90000, 900), 539100)
    """
    check_choice("layout", layout, ("tensor", "matrix", "sparse"))
    if out is not None and layout == "sparse":
        raise ValueError("out is for dense layouts; with layout='sparse' it must be None.")
    passed, X = X, check_points(X, "X")
    n, d = X.shape
    term = kernels.read(kernel, d)
    program = kernels.compile_term(term, d, 1, dtype=X.dtype.char)
    if out is None:
        _check_gram_memory(n, d, X.dtype, layout)
    if layout == "sparse":
        data, indices, indptr = _sparse_gram(n, d, X.dtype)
    else:
        shape = (n, n, n, d) if layout == "tensor" else (n * n, n * d)
        # New memory is zero where it is not touched, and need not be touched.
        J = np.zeros(shape, X.dtype) if out is None else check_out(out, shape, X.dtype, X=passed)
        tensor = J.reshape(n, n, n, d)
    diagonal = kernels.gradient_on_diagonal(kernels.with_noise(term) or term, X)
    rows = max(1, _PIECE // max(1, n * d * X.itemsize))
    both = np.empty((2, min(rows, n), n, d), X.dtype)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        by_x, by_y = both[:, : stop - start]
        for block, wrt in ((by_x, "x"), (by_y, "y")):
            _core.tensor(program, X[start:stop], X, block, _GRADIENT.number, wrt, False)
        for i, of_x, of_y in zip(range(start, stop), by_x, by_y, strict=True):
            of_y[i] = diagonal[i]
            if layout == "sparse":
                # Of the pair (i, j), that by x_j stands at 2j, and that by x_i before or behind it.
                data[i, ::2] = of_y
                data[i, 1 : 2 * i : 2] = of_x[:i]
                data[i, 2 * i + 1 :: 2] = of_x[i + 1 :]
            else:
                if out is not None:
                    tensor[i] = 0
                tensor[i, :, i] = of_x
                np.einsum("jja->ja", tensor[i])[...] = of_y
    if layout != "sparse":
        return J
    sparse = csr_array((data.reshape(-1), indices, indptr), shape=(n * n, n * d))
    sparse.has_canonical_format = True
    return sparse


def _sparse_gram(n: int, d: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the arrays of a sparse Gram Jacobian: data of shape (N, 2N - 1, D), indices, indptr.

    The entries of the row of K_ij are sorted by p. So those by x_j, of which the diagonal has no
    others, are at the even places of data[i], and those by x_i at the odd ones.
    """
    each = max(0, 2 * n - 1)
    index = _index_type(n, d)
    data = np.empty((n, each, d), dtype)
    indices = np.empty((n, each, d), index)
    indptr = np.zeros(n * n + 1, index)
    columns = np.arange(n * d, dtype=index).reshape(n, d)
    ends = np.arange(2, 2 * n + 1, 2, dtype=index) * d
    for i in range(n):
        indices[i, ::2] = columns
        indices[i, 1::2] = columns[i]
        row = indptr[1 + i * n : 1 + (i + 1) * n]
        row[:] = ends
        row[i:] -= d
        row += i * each * d
    return data, indices.reshape(-1), indptr


def _index_type(n: int, d: int) -> type[np.signedinteger]:
    """What SciPy numbers the entries of a sparse Gram Jacobian with."""
    largest = max(n * n, n * d, n * (2 * n - 1) * d)
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


def _check_gram_memory(n: int, d: int, dtype: np.dtype, layout: str) -> None:
    """Raise MemoryError if a Gram Jacobian would be larger than what this process may use."""
    index = np.dtype(_index_type(n, d)).itemsize
    dense = n**3 * d * dtype.itemsize
    sparse = n * (2 * n - 1) * d * (dtype.itemsize + index) + (n * n + 1) * index
    limit = memory_limit()
    if (sparse if layout == "sparse" else dense) <= limit:
        return
    raise too_large(
        f"the Jacobian of the Gram matrix of {counted(n, 'point')} in {counted(d, 'dimension')}, "
        f"of type {dtype},",
        sparse if layout == "sparse" else dense,
        limit,
        "tensor_blocks computes gradients, which its entries are, in pieces."
        if layout == "sparse"
        else f"layout='sparse' needs {sparse / 2**30:.4g} GiB, and out= may be a memory-mapped "
        "file.",
        f"with layout={layout!r}",
    )


def tensor_blocks(
    function: Callable[..., np.ndarray],
    kernel: Kernel,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    working_memory: float | None = None,
    **options: Any,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Compute a tensor block by block of rows, for results larger than memory.

    Parameters
    ----------
    function : callable
        `kernel_matrix`, `gradient`, `hessian_diag` or `hessian`.
    kernel : sklearn.gaussian_process.kernels.Kernel
        As `function` takes it.
    X : array-like of shape (N, D)
        Points.
    Y : array-like of shape (M, D), default=None
        Points; None stands for X.
    working_memory : float, default=None
        The size of a block, in MiB; None stands for scikit-learn's ``working_memory`` setting,
        1024 unless set. A block has at least one row.
    **options
        What else `function` takes: `wrt`, `layout`.

    Returns
    -------
    blocks : generator of (slice, ndarray)
        The rows of X that a block is for, and the block. Each is new memory.

    Raises
    ------
    TypeError, ValueError
        As `function` does, at the call and not only at the first block; and if `working_memory` is
        not positive.

    See Also
    --------
    sklearn.metrics.pairwise_distances_chunked : The same for distances.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import hessian, tensor_blocks
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> trace = 0.0
    >>> for rows, block in tensor_blocks(hessian, RBF(), X, working_memory=16, wrt="xy"):
    ...     trace += np.einsum("ijaa->", block)
    """
    if "out" in options:
        raise TypeError("tensor_blocks takes no out; it yields new blocks.")
    if working_memory is None:
        working_memory = get_config()["working_memory"]
    if isinstance(function, Kernel):
        raise TypeError(
            f"function is a kernel, {function!r}; the function comes first, the kernel second."
        )
    if not isinstance(working_memory, int | float | np.number):
        raise TypeError(f"working_memory is {working_memory!r}; it must be a number of MiB.")
    if not working_memory > 0:
        raise ValueError(f"working_memory is {working_memory} MiB; it must be positive.")
    same = Y is None
    X, Y = check_pair(X, Y)
    # No rows: this checks everything, and tells the shape of a row.
    empty = function(kernel, X[:0], Y, **options)
    row_bytes = math.prod(empty.shape[1:]) * empty.itemsize
    rows = max(1, min(X.shape[0], int(working_memory * 2**20 // max(row_bytes, 1))))

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, X.shape[0], rows):
            part = slice(start, min(start + rows, X.shape[0]))
            block = function(kernel, X[part], Y, **options)
            if same and function is kernel_matrix:
                diagonal = np.einsum("ii->i", block[:, part])
                add_noise(kernels.read(kernel, X.shape[1]), X[part], diagonal)
            yield part, block

    return blocks()


def add_noise(term: kernels.Term, X: np.ndarray, diagonal: np.ndarray) -> None:
    """Where points meet themselves, put the values that the kernel's noise has a part in.

    Parameters
    ----------
    term : tree of terms
    X : ndarray of shape (N, D)
    diagonal : ndarray of shape (N,)
        Changed in place; untouched if there is no noise in the kernel.
    """
    noisy = kernels.with_noise(term)
    if noisy is not None and len(X):
        diagonal[...] = kernels.on_diagonal(noisy, X)
