"""Bases of tanh functions of linear forms, alone and stacked, and their derivatives.

With W of shape (D + 1, K), slopes a = W[:D] and biases b = W[D], the basis is
φ_nk = tanh(z_nk), z_nk = Σ_d x_nd a_dk + b_k. In a stack of layers the functions of one are the
inputs of the next. Derivatives of a stack are products of those of its layers,

    ∂φ/∂h = diag(1 − φ²) aᵀ,    ∂²φ_k/∂h∂hᵀ = −2 φ_k (1 − φ_k²) a_k a_kᵀ,

with h the inputs of a layer. 1 − φ² is computed from z wherever it is needed, as it would cancel
where φ is close to ±1. Sums are formed in an order that depends on the shapes alone.
"""

import math
import numbers
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kerneldiff import _core
from kerneldiff._validation import (
    FLOATS,
    STREAM_BYTES,
    check_choice,
    check_fits,
    check_out,
    check_points,
    counted,
    unmasked,
)

_LAYOUTS = ("compact", "full", "matrix")

# Elements of the largest array of a piece of points where a result is made piece by piece.
_PIECE = 2**20


def _check(X: ArrayLike, W: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check points and weights, and bring them to one type."""
    X, W = check_points(X, "X"), check_points(W, "W")
    if W.shape[0] != X.shape[1] + 1:
        raise ValueError(
            f"W has {counted(W.shape[0], 'row')} and X has {counted(X.shape[1], 'column')}; W must "
            "have one row for each column of X and one of biases."
        )
    if X.dtype != W.dtype:
        X, W = X.astype(np.float64, copy=False), W.astype(np.float64, copy=False)
    return X, W


def _run(what: str, X: np.ndarray, W: np.ndarray, out: np.ndarray, reused: bool) -> np.ndarray:
    _core.tanh(what, X, W, out, reused and out.nbytes > STREAM_BYTES)
    return out


def tanh_basis(X: ArrayLike, W: ArrayLike, *, out: np.ndarray | None = None) -> np.ndarray:
    """Basis of tanh functions of linear forms.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    W : array-like of shape (D + 1, K)
        Weights: slopes ``W[:D]``, in inverse units of the columns of X, and biases ``W[D]``.
    out : ndarray of shape (N, K), default=None
        Where to write: C-contiguous, of the type of the result, apart from X and W.

    Returns
    -------
    phi : ndarray of shape (N, K)
        ``phi[n, k]`` is tanh(Σ_d X[n, d] W[d, k] + W[D, k]). float32 if X and W are, else float64.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    tanh_jacobian : Its derivatives with respect to W.
    TanhBasis : The same as a scikit-learn transformer.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import tanh_basis
    >>> tanh_basis(np.array([[0.5]]), np.array([[1.0, 2.0], [0.0, -1.0]])).round(3)
    array([[0.462, 0.   ]])
    """
    passed: dict[str, Any] = {"X": X, "W": W}
    X, W = _check(X, W)
    reused = out is not None
    out = check_out(out, (X.shape[0], W.shape[1]), X.dtype, **passed)
    return _run("value", X, W, out, reused)


def tanh_jacobian(
    X: ArrayLike, W: ArrayLike, *, layout: str = "compact", out: np.ndarray | None = None
) -> np.ndarray:
    """Jacobian of a tanh basis with respect to its weights.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Points.
    W : array-like of shape (D + 1, K)
        Weights: slopes ``W[:D]``, in inverse units of the columns of X, and biases ``W[D]``.
    layout : {"compact", "full", "matrix"}, default="compact"
        Function k depends on column k of W alone. "compact" holds these derivatives, "full" all of
        them with the zeros, and "matrix" the same flattened.
    out : ndarray, default=None
        Where to write: of the shape and type of the result, C-contiguous, apart from X and W.

    Returns
    -------
    J : ndarray
        "compact", (N, D + 1, K): ``J[n, d, k]`` is ∂φ_nk/∂W[d, k], that is (1 − φ_nk²) X[n, d] for
        d < D and 1 − φ_nk² for d = D. "full", (N, K, D + 1, K): ``J[n, k, d, l]`` is
        ∂φ_nk/∂W[d, l]. "matrix", (N·K, (D + 1)·K). float32 if X and W are, else float64.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or value. `out` is then left as it was.
    MemoryError
        If the result would be larger than the memory this process may use.

    See Also
    --------
    TanhBasis : The same as a scikit-learn transformer.

    Notes
    -----
    1 − φ² is computed from the argument of tanh, not from φ, and keeps its digits where tanh is
    close to ±1. An interrupt (Ctrl-C) ends the call within a second and may leave `out` partly
    written.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 5.3: the
    derivative of tanh in backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import tanh_jacobian
    >>> X, W = np.array([[0.5]]), np.array([[1.0, 2.0], [0.0, -1.0]])
    >>> tanh_jacobian(X, W).round(3)
    array([[[0.393, 0.5  ],
            [0.786, 1.   ]]])
    >>> tanh_jacobian(X, W, layout="matrix").round(3)
    array([[0.393, 0.   , 0.786, 0.   ],
           [0.   , 0.5  , 0.   , 1.   ]])
    """
    check_choice("layout", layout, _LAYOUTS)
    passed: dict[str, Any] = {"X": X, "W": W}
    X, W = _check(X, W)
    (n, d), k = X.shape, W.shape[1]
    shape = {
        "compact": (n, d + 1, k),
        "full": (n, k, d + 1, k),
        "matrix": (n * k, (d + 1) * k),
    }[layout]
    reused = out is not None
    out = check_out(out, shape, X.dtype, **passed)
    if layout == "compact":
        return _run("jacobian", X, W, out, reused)
    full = out.reshape(n, k, d + 1, k)
    # In pieces, so that the compact part is small and an interrupt does not wait for the zeros.
    for piece in _pieces(n, (d + 1) * k * k):
        _full(tanh_jacobian(X[piece], W), full[piece])
    return out


# --------------------------------------------------------------------------------------------------
# Stacks, for arrays that are checked, C-contiguous and of one type
# --------------------------------------------------------------------------------------------------


def _layer(what: str, X: np.ndarray, W: np.ndarray, *shape: int, **options: Any) -> np.ndarray:
    """Return something of a layer, by default of shape (N, K): see `_core.tanh`."""
    shape = shape or (X.shape[0], W.shape[1])
    check_fits(shape, X.dtype)
    out = np.empty(shape, X.dtype)
    _core.tanh(what, X, W, out, **options)
    return out


def _forward(X: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the functions of each layer, those of the last one last."""
    activations: list[np.ndarray] = []
    for W in weights:
        X = _layer("value", X, W)
        activations.append(X)
    return activations


def _backward(
    X: np.ndarray,
    weights: Sequence[np.ndarray],
    activations: Sequence[np.ndarray] | None,
    cotangent: np.ndarray,
    *,
    inputs: bool = True,
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Pull a cotangent of the last layer back to the weights of each layer, and to X.

    Parameters
    ----------
    X : ndarray of shape (N, D)
    weights : sequence of ndarray
    activations : sequence of ndarray or None
        What `_forward` returned, if it is at hand.
    cotangent : ndarray of shape (N, K)
    inputs : bool, default=True
        Whether the cotangent of X is wanted.

    Returns
    -------
    cotangents : list of ndarray
        Of the shapes of the weights.
    cotangent : ndarray of shape (N, D) or None
    """
    if activations is None:
        activations = _forward(X, weights[:-1])
    cotangents = [np.empty_like(W) for W in weights]
    for layer in reversed(range(1, len(weights))):
        below = np.empty_like(activations[layer - 1])
        _core.tanh_back(activations[layer - 1], weights[layer], cotangent, cotangents[layer], below)
        cotangent = below
    of_inputs = np.empty_like(X) if inputs else None
    _core.tanh_back(X, weights[0], cotangent, cotangents[0], of_inputs)
    return cotangents, of_inputs


def _tangent(
    X: np.ndarray,
    weights: Sequence[np.ndarray],
    dW: Sequence[np.ndarray],
    dX: np.ndarray | None = None,
) -> np.ndarray:
    """Push tangents of the weights, and of X, forward to the last layer.

    Parameters
    ----------
    X : ndarray of shape (N, D)
    weights, dW : sequence of ndarray
    dX : ndarray of shape (N, D), default=None
        None stands for zeros.

    Returns
    -------
    ndarray of shape (N, K)
    """
    last = len(weights) - 1
    for layer, W in enumerate(weights):
        dX = _layer("tangent", X, W, dw=dW[layer], dx=dX)
        if layer < last:
            X = _layer("value", X, W)
    assert dX is not None
    return dX


def _pieces(n: int, size: int) -> Iterator[slice]:
    """Split n points into pieces of which `size` numbers for each are not too many."""
    step = max(1, _PIECE // max(1, size))
    for start in range(0, n, step):
        yield slice(start, start + step)


def _chain(Y: np.ndarray, W: np.ndarray, factors: np.ndarray | None = None) -> np.ndarray:
    """Return Y a of shape (N, G, K) for Y of shape (N, G, H), times factors of shape (N, K)."""
    n, group, size = Y.shape
    rows = Y.reshape(n * group, size)
    out = _layer("chain", rows, W, factors=factors)
    return out.reshape(n, group, W.shape[1])


def _turned(W: np.ndarray) -> np.ndarray:
    """Weights whose slopes are the transposed ones."""
    turned = np.zeros((W.shape[1] + 1, W.shape[0] - 1), W.dtype)
    turned[:-1] = W[:-1].T
    return turned


def _inputs(
    X: np.ndarray, weights: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what goes into each layer, with the layer's weights."""
    yield X, weights[0]
    for below, W in pairwise(weights):
        X = _layer("value", X, below)
        yield X, W


def _full(compact: np.ndarray, out: np.ndarray) -> None:
    """Write a compact Jacobian (N, D + 1, K) into a full one (N, K, D + 1, K), with its zeros."""
    out[...] = 0
    np.einsum("nkdk->ndk", out)[...] = compact


def _stack_jacobians(X: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the derivatives by the weights of each layer, (N, K, D_l + 1, K_l)."""
    jacobians = _empty_jacobians(X, weights)
    k = weights[-1].shape[1]
    for piece in _pieces(len(X), k * max(W.size for W in weights)):
        layers = [*_inputs(X[piece], weights)]
        _full(tanh_jacobian(*layers[-1]), jacobians[-1][piece])
        # Derivatives by a layer's arguments, from the last one's on: (n, K, K_l).
        rows = np.zeros((len(X[piece]), k, k), X.dtype)
        np.einsum("nkk->nk", rows)[...] = _layer("slope", *layers[-1])
        for layer in reversed(range(len(weights) - 1)):
            points, W = layers[layer]
            rows = _chain(rows, _turned(weights[layer + 1]), _layer("slope", points, W))
            part = jacobians[layer][piece]
            np.multiply(rows[:, :, None, :], points[:, None, :, None], out=part[:, :, :-1])
            part[:, :, -1] = rows
    return jacobians


def _empty_jacobians(X: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return arrays for the Jacobians of a stack, of the type of X, if they fit."""
    shapes = [(X.shape[0], weights[-1].shape[1], *W.shape) for W in weights]
    for shape in [*shapes, (sum(map(math.prod, shapes)),)]:
        check_fits(shape, X.dtype)
    return [np.empty(shape, X.dtype) for shape in shapes]


def _input_jacobian(X: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the derivatives by X, (N, K, D)."""
    n, d = X.shape
    shape = (n, weights[-1].shape[1], d)
    if len(weights) == 1:
        return _layer("input_jacobian", X, weights[0], *shape)
    check_fits(shape, X.dtype)
    out = np.empty(shape, X.dtype)
    for piece in _pieces(n, d * max(W.shape[1] for W in weights)):
        rows: np.ndarray | None = None
        for points, W in _inputs(X[piece], weights):
            slopes = _layer("slope", points, W)
            rows = slopes[:, None, :] * W[:-1] if rows is None else _chain(rows, W, slopes)
        assert rows is not None
        out[piece] = rows.swapaxes(1, 2)
    return out


def _input_hessian(X: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the second derivatives by X, (N, K, D, D)."""
    n, d = X.shape
    shape = (n, weights[-1].shape[1], d, d)
    if len(weights) == 1:
        return _layer("input_hessian", X, weights[0], *shape)
    check_fits(shape, X.dtype)
    out = np.empty(shape, X.dtype)
    a, b = np.triu_indices(d)
    for piece in _pieces(n, a.size * max(W.shape[1] for W in weights)):
        first: np.ndarray | None = None
        second: np.ndarray | None = None
        for points, W in _inputs(X[piece], weights):
            slopes, values = _layer("slope", points, W), _layer("value", points, W)
            # Derivatives of the arguments, and from them those of their tanh.
            rows = W[None, :-1] if first is None else _chain(first, W)
            curved = (-2 * values * slopes)[:, None, :] * (rows[:, a] * rows[:, b])
            second = curved if second is None else _chain(second, W, slopes) + curved
            first = slopes[:, None, :] * rows
        assert second is not None
        out[piece][:, :, a, b] = out[piece][:, :, b, a] = second.swapaxes(1, 2)
    return out


def _log_slopes(X: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return log(1 − φ²) of a layer, also where 1 − φ² underflows."""
    z = np.abs(_layer("argument", X, W))
    # 1 − tanh² z = 4 exp(−2 |z|) / (1 + exp(−2 |z|))²; its logarithm would cancel near zero.
    logs: np.ndarray = 2 * (np.log(z.dtype.type(2)) - z - np.log1p(np.exp(-2 * z)))
    near = z < 0.5
    logs[near] = np.log1p(-np.square(np.tanh(z[near])))
    return logs


def _log_abs_det(X: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return log |det ∂φ/∂x| for as many functions as columns of X, (N,)."""
    n, d = X.shape
    sizes = [W.shape[1] for W in weights]
    total = np.zeros(n, X.dtype)
    if min(sizes) < d:
        # What comes out of a narrower layer has no volume.
        total[:] = -np.inf
    elif max(sizes) == d:
        for points, W in _inputs(X, weights):
            total += np.linalg.slogdet(W[:-1])[1] + _log_slopes(points, W).sum(axis=1)
    else:
        # Frames and triangles in float64, which has the range that slopes need.
        weights = [W.astype(np.float64, copy=False) for W in weights]
        for piece in _pieces(n, d * max(sizes)):
            total[piece] = _log_volumes(X[piece].astype(np.float64, copy=False), weights)
    return total


def _log_volumes(X: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return log |det ∂φ/∂x| where layers are wider than X.

    The derivatives of each layer are a frame times a triangle, and the next layer goes on with the
    frame. Slopes of units that saturate may be smaller than those of others by many orders of
    magnitude: with rows in falling order the triangle is good to the smallest of them (Cox and
    Higham, "Stability of Householder QR factorization for weighted least squares problems", 1998).
    """
    d = X.shape[1]
    total = np.zeros(len(X))
    frame: np.ndarray | None = None
    with np.errstate(divide="ignore"):
        for layer, (points, W) in enumerate(_inputs(X, weights), 1):
            logs = _log_slopes(points, W)
            rows = W[:-1].T[None] if frame is None else W[:-1].T @ frame
            if layer == len(weights):
                total += logs.sum(axis=1) + np.linalg.slogdet(rows)[1]
                break
            largest = logs.max(axis=1)
            # All slopes of a point are zero where its arguments overflow.
            largest[np.isinf(largest)] = 0
            order = np.argsort(-logs, axis=1, kind="stable")[:, :, None]
            rows = rows * np.exp(logs - largest[:, None])[:, :, None]
            sorted_frame, triangle = np.linalg.qr(np.take_along_axis(rows, order, axis=1))
            frame = np.empty_like(sorted_frame)
            np.put_along_axis(frame, order, sorted_frame, axis=1)
            diagonal = np.abs(np.diagonal(triangle, axis1=1, axis2=2))
            total += d * largest + np.log(diagonal).sum(axis=1)
    return total


def _numerical_last(X: np.ndarray, W: np.ndarray, eps: float) -> np.ndarray:
    """Return the compact Jacobian of a layer by central differences.

    A function depends on its own column of W only, so that all of them take a step at once.
    """
    shape = (X.shape[0], *W.shape)
    check_fits(shape, X.dtype)
    jacobian = np.empty(shape)
    z = X @ W[:-1] + W[-1]
    for a in range(W.shape[0]):
        step = eps * (X[:, a, None] if a < X.shape[1] else 1.0)
        jacobian[:, a] = (np.tanh(z + step) - np.tanh(z - step)) / (2 * eps)
    return jacobian


def _numerical_jacobians(
    X: np.ndarray, weights: Sequence[np.ndarray], eps: float
) -> list[np.ndarray]:
    """Return the derivatives by the weights of each layer, (N, K, D_l + 1, K_l), likewise.

    A step in one weight is followed upwards as a change of the functions of each layer, so that
    rounding errors are those of tanh and not those of sums over many units.
    """
    jacobians = _empty_jacobians(X, weights)
    inputs, arguments = [X], []
    for W in weights:
        arguments.append(inputs[-1] @ W[:-1] + W[-1])
        inputs.append(np.tanh(arguments[-1]))
    _full(_numerical_last(inputs[-2], weights[-1], eps), jacobians[-1])
    for layer, W in enumerate(weights[:-1]):
        for a, unit in np.ndindex(W.shape):
            step = eps * (inputs[layer][:, a] if a < len(W) - 1 else 1.0)
            ends = []
            for z in (arguments[layer][:, unit] + step, arguments[layer][:, unit] - step):
                change = np.tanh(z) - inputs[layer + 1][:, unit]
                moved = arguments[layer + 1] + change[:, None] * weights[layer + 1][unit]
                for above in range(layer + 2, len(weights)):
                    change = np.tanh(moved) - inputs[above]
                    moved = arguments[above] + change @ weights[above][:-1]
                ends.append(np.tanh(moved))
            jacobians[layer][:, :, a, unit] = (ends[0] - ends[1]) / (2 * eps)
    return jacobians


# --------------------------------------------------------------------------------------------------
# The estimator
# --------------------------------------------------------------------------------------------------


def _depth(value: Any) -> int:
    """Number of dimensions, as the first entries of lists tell it."""
    if isinstance(value, list | tuple):
        return 1 + (_depth(value[0]) if value else 0)
    return int(getattr(value, "ndim", 0))


def _check_given(weights: Any, columns: int) -> np.ndarray | list[np.ndarray]:
    """Return copies of weights that users gave, for points with so many columns."""
    if not isinstance(weights, list | tuple) or _depth(weights) < 3:
        W = np.array(check_points(weights, "weights"))
        if W.shape[0] != columns + 1:
            raise ValueError(
                f"weights has {counted(W.shape[0], 'row')} and X has {counted(columns, 'column')}; "
                "it must have one row for each column of X and one of biases."
            )
        return W
    layers = [np.array(check_points(W, f"weights[{i}]")) for i, W in enumerate(weights)]
    below = [columns, *(W.shape[1] for W in layers)]
    for i, (W, size) in enumerate(zip(layers, below, strict=False)):
        if W.shape[0] != size + 1:
            name = f"weights[{i - 1}]" if i else "X"
            raise ValueError(
                f"weights[{i}] has {counted(W.shape[0], 'row')} and {name} has "
                f"{counted(size, 'column')}; it must have one row for each column of {name} and "
                "one of biases."
            )
    dtype = np.result_type(*layers)
    layers = [W.astype(dtype, copy=False) for W in layers]
    return layers if len(layers) > 1 else layers[0]


class TanhBasis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features φ_k(x) = tanh(a_k · x + b_k), or a stack of such layers, with their derivatives.

    Parameters
    ----------
    n_components : int, default=10
        Number K of functions: the size of the last layer. Ignored when `weights` is given.
    weights : array-like of shape (D + 1, K) or list of array-like, default=None
        Slopes and, in the last row, biases. A list holds those of a stack, from the inputs on:
        (D + 1, K_1), (K_1 + 1, K_2), and so on to (K_L + 1, K). None draws them.
    hidden_layer_sizes : sequence of int or int, default=()
        Numbers of functions of the layers before the last one, whose functions are the inputs of
        the next layer. Ignored when `weights` is given.
    scale : float, default=1.0
        Standard deviation of drawn slopes and biases, which are normal with mean 0, in all layers
        alike. Functions of many inputs saturate less when it is of order 1/√D, with D the number
        of inputs of the widest layer.
    random_state : int, RandomState instance or None, default=None
        Source of the drawn weights.

    Attributes
    ----------
    weights_ : ndarray of shape (D + 1, K) or list of ndarray
        Slopes ``weights_[:D]`` and biases ``weights_[D]``; a list of such arrays for a stack.
    n_features_in_ : int
        Number D of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (D,)
        Names of these columns, where they have names that are strings.

    See Also
    --------
    tanh_basis, tanh_jacobian : A single layer as functions.
    sklearn.kernel_approximation.RBFSampler : Another basis with random slopes and biases.

    Notes
    -----
    Results are float32 if the points and all weights (and tangents or cotangents) are, and float64
    otherwise. 1 − φ² is computed from the argument of tanh, not from φ, in all derivatives, and
    keeps its digits where tanh is close to ±1. Results do not depend on the number of threads.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, sections 3.1 (bases)
    and 5.3 (derivatives of stacked layers by backpropagation).

    Examples
    --------
    >>> import numpy as np
    >>> from kerneldiff import TanhBasis
    >>> X = np.linspace(-1, 1, 5).reshape(-1, 1)
    >>> basis = TanhBasis(n_components=3, random_state=0).fit(X)
    >>> basis.transform(X).shape
    (5, 3)
    >>> basis.jacobian(X).shape
    (5, 2, 3)

    Two layers, of which each has derivatives of its own:

    >>> stack = TanhBasis(n_components=3, hidden_layer_sizes=(8,), random_state=0).fit(X)
    >>> [W.shape for W in stack.weights_]
    [(2, 8), (9, 3)]
    >>> [J.shape for J in stack.jacobian(X)]
    [(5, 3, 2, 8), (5, 3, 9, 3)]
    >>> stack.input_hessian(X).shape
    (5, 3, 1, 1)
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        weights: ArrayLike | Sequence[ArrayLike] | None = None,
        hidden_layer_sizes: Sequence[int] | int = (),
        scale: float = 1.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.weights = weights
        self.hidden_layer_sizes = hidden_layer_sizes
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Draw the weights, or take those given.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Points; only the number of columns matters, and their type if weights are drawn.
        y : None
            Ignored.

        Returns
        -------
        self : TanhBasis

        Raises
        ------
        ValueError
            If a parameter has a wrong value, or `weights` does not fit X. An estimator that was
            fitted is then left as it was.
        """
        # All of it is checked before anything of the estimator changes.
        X = unmasked(X, "X")
        points = check_array(X, dtype=[np.float64, np.float32], estimator=self)
        if self.weights is None:
            weights = self._draw(points.shape[1], points.dtype)
        else:
            weights = _check_given(self.weights, points.shape[1])
        validate_data(self, X, dtype=[np.float64, np.float32])
        self.weights_ = weights
        return self

    def _draw(self, columns: int, dtype: np.dtype) -> np.ndarray | list[np.ndarray]:
        """Check the parameters that matter, and draw weights."""
        hidden: Any = self.hidden_layer_sizes
        if isinstance(hidden, numbers.Integral):
            hidden = [hidden]
        if isinstance(hidden, str) or not isinstance(hidden, Sequence | np.ndarray):
            raise ValueError(
                f"hidden_layer_sizes is {hidden!r}; it must be a sequence of positive integers."
            )
        named = [("n_components", self.n_components)]
        named += [(f"hidden_layer_sizes[{i}]", size) for i, size in enumerate(hidden)]
        for name, size in named:
            if not isinstance(size, numbers.Integral) or size < 1:
                raise ValueError(f"{name} is {size!r}; it must be an integer of at least 1.")
        if not (isinstance(self.scale, int | float | np.number) and 0 <= self.scale < np.inf):
            raise ValueError(f"scale is {self.scale!r}; it must be finite and not negative.")
        random = check_random_state(self.random_state)
        sizes = [columns, *hidden, self.n_components]
        weights = [
            random.normal(0.0, self.scale, (below + 1, above)).astype(dtype, copy=False)
            for below, above in pairwise(sizes)
        ]
        return weights if len(weights) > 1 else weights[0]

    def _layers(self) -> list[np.ndarray]:
        return self.weights_ if isinstance(self.weights_, list) else [self.weights_]

    def _validate(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        X = unmasked(X, "X")
        return validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)

    def _prepare(
        self, X: ArrayLike, *others: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Check points; bring them, the weights and other arrays to one type."""
        X, weights = self._validate(X), self._layers()
        dtype = np.result_type(X, *weights, *others)
        X, *rest = [np.require(array, dtype, ["C", "A"]) for array in (X, *weights, *others)]
        return X, rest[: len(weights)], rest[len(weights) :]

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Evaluate the functions.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        phi : ndarray of shape (N, K)

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> TanhBasis(weights=[[1.0], [0.0]]).fit_transform([[0.5]]).round(3)
        array([[0.462]])
        """
        phi, weights, _ = self._prepare(X)
        for W in weights:
            phi = _layer("value", phi, W)
        return phi

    def jacobian(
        self, X: ArrayLike, *, layout: str | None = None, out: np.ndarray | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Differentiate the functions with respect to `weights_`.

        Parameters
        ----------
        X : array-like of shape (N, D)
        layout : {"compact", "full", "matrix"} or None, default=None
            "compact" leaves out what is zero because a function depends on its own slopes and bias
            only, and exists for a single layer alone. None is "compact" for a single layer and
            "full" for a stack.
        out : ndarray, default=None
            Where to write; None for a stack.

        Returns
        -------
        J : ndarray or list of ndarray
            (N, D + 1, K), (N, K, D + 1, K) or (N·K, (D + 1)·K), as `tanh_jacobian` has it. For a
            stack a list with one array for each layer l, of shape (N, K, D_l + 1, K_l), where
            ``J[l][n, k, d, j]`` is ∂φ_nk/∂W_l[d, j] and (D_l + 1, K_l) the shape of W_l; or
            (N·K, (D_l + 1)·K_l).

        Raises
        ------
        ValueError
            If an argument has a wrong shape, type or value.
        MemoryError
            If the result would be larger than the memory this process may use.

        See Also
        --------
        vjp, jvp : Its products with vectors, without the array.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]]).jacobian([[0.5]]).round(3)
        array([[[0.393],
                [0.786]]])
        """
        check_is_fitted(self)
        if isinstance(self.weights_, np.ndarray):
            layout = "compact" if layout is None else layout
            return tanh_jacobian(self._validate(X), self.weights_, layout=layout, out=out)
        if layout is not None:
            check_choice("layout", layout, _LAYOUTS)
        if layout == "compact":
            raise ValueError(
                "layout is 'compact'; for a stack of layers it may be 'full' or 'matrix', as a "
                "function depends on all weights of the layers before the last."
            )
        if out is not None:
            raise ValueError("out is given; for a stack of layers it must be None.")
        X, weights, _ = self._prepare(X)
        jacobians = _stack_jacobians(X, weights)
        if layout == "matrix":
            return [J.reshape(J.shape[0] * J.shape[1], -1) for J in jacobians]
        return jacobians

    def jvp(self, X: ArrayLike, dW: ArrayLike | Sequence[ArrayLike]) -> np.ndarray:
        """Multiply the Jacobian with respect to `weights_` with a vector, without forming it.

        Parameters
        ----------
        X : array-like of shape (N, D)
        dW : array-like of shape (D + 1, K) or list of array-like
            A change of the weights, of their shapes.

        Returns
        -------
        dphi : ndarray of shape (N, K)
            The change of the functions, Σ ∂φ_nk/∂W[d, j] dW[d, j] over all weights.

        Raises
        ------
        ValueError
            If an argument has a wrong shape, type or value.

        See Also
        --------
        vjp : The product from the other side.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> basis = TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]])
        >>> basis.jvp([[0.5]], [[0.0], [1.0]]).round(3)
        array([[0.786]])
        """
        check_is_fitted(self)
        X, weights, tangents = self._prepare(X, *self._check_like(dW, "dW"))
        return _tangent(X, weights, tangents)

    def vjp(self, X: ArrayLike, cotangent: ArrayLike) -> np.ndarray | list[np.ndarray]:
        """Multiply a vector with the Jacobian with respect to `weights_`, without forming it.

        For a stack this is backpropagation.

        Parameters
        ----------
        X : array-like of shape (N, D)
        cotangent : array-like of shape (N, K)
            The derivatives of some number by the functions.

        Returns
        -------
        dW : ndarray of shape (D + 1, K) or list of ndarray
            The derivatives of that number by `weights_`, Σ_nk cotangent[n, k] ∂φ_nk/∂W[d, j].

        Raises
        ------
        ValueError
            If an argument has a wrong shape, type or value.

        See Also
        --------
        jvp : The product from the other side.

        Notes
        -----
        Sums over points are in float64 but for those of up to 64 points, so that float32 does not
        lose more digits the more points there are.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> basis = TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]])
        >>> basis.vjp([[0.5]], [[1.0]]).round(3)
        array([[0.393],
               [0.786]])
        """
        check_is_fitted(self)
        G = cotangent
        if not (type(G) is np.ndarray and G.dtype in FLOATS and G.ndim == 2):
            G = check_points(cotangent, "cotangent")
        X, weights, (G,) = self._prepare(X, G)
        shape = (X.shape[0], weights[-1].shape[1])
        if G.shape != shape:
            raise ValueError(f"cotangent has shape {G.shape}; it must have shape {shape}.")
        products, _ = _backward(X, weights, None, G, inputs=False)
        # To look at all of the cotangent first would take half as long as the product. The last row
        # is a sum of all of it times positive numbers, and so is not finite if it is not.
        if not np.isfinite(products[-1][-1]).all():
            check_points(cotangent, "cotangent")
        return products if isinstance(self.weights_, list) else products[0]

    def _check_like(self, value: Any, name: str) -> list[np.ndarray]:
        """Check arrays that are to have the shapes of the weights."""
        layers, names = self._layers(), [name]
        if isinstance(self.weights_, list):
            if not isinstance(value, list | tuple) or len(value) != len(layers):
                what = (
                    f"has {counted(len(value), 'entry')}"
                    if isinstance(value, list | tuple)
                    else (f"is of type {type(value).__name__}")
                )
                raise ValueError(
                    f"{name} {what}; it must be a list of {len(layers)} arrays, one for each layer."
                )
            names = [f"{name}[{i}]" for i in range(len(layers))]
        else:
            value = [value]
        arrays = [check_points(array, label) for array, label in zip(value, names, strict=True)]
        for array, label, W in zip(arrays, names, layers, strict=True):
            if array.shape != W.shape:
                raise ValueError(
                    f"{label} has shape {array.shape}; it must have shape {W.shape}, that of the "
                    "weights."
                )
        return arrays

    def input_jacobian(self, X: ArrayLike) -> np.ndarray:
        """Differentiate the functions with respect to the points.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        J : ndarray of shape (N, K, D)
            ``J[n, k, d]`` is ∂φ_nk/∂x_nd; for a single layer (1 − φ_nk²) a_dk.

        Raises
        ------
        MemoryError
            If the result would be larger than the memory this process may use.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> TanhBasis(weights=[[2.0], [0.0]]).fit([[0.5]]).input_jacobian([[0.5]]).round(3)
        array([[[0.84]]])
        """
        X, weights, _ = self._prepare(X)
        return _input_jacobian(X, weights)

    def input_hessian(self, X: ArrayLike) -> np.ndarray:
        """Differentiate the functions twice with respect to the points.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        H : ndarray of shape (N, K, D, D)
            ``H[n, k, a, b]`` is ∂²φ_nk/∂x_na∂x_nb, symmetric; for a single layer
            −2 φ_nk (1 − φ_nk²) a_ak a_bk.

        Raises
        ------
        MemoryError
            If the result would be larger than the memory this process may use.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> TanhBasis(weights=[[2.0], [0.0]]).fit([[0.5]]).input_hessian([[0.5]]).round(3)
        array([[[[-2.559]]]])
        """
        X, weights, _ = self._prepare(X)
        return _input_hessian(X, weights)

    def log_abs_det_jacobian(self, X: ArrayLike) -> np.ndarray:
        """Compute how much the map from points to functions scales volume.

        For as many functions as columns, K = D, a density p(x) becomes p(x) / |det ∂φ/∂x| at φ(x).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        log_abs_det : ndarray of shape (N,)
            log |det ∂φ/∂x| for each point: −∞ where the Jacobian is singular, as it is everywhere
            when a layer of a stack is narrower than D. Finite where functions saturate, as it is
            not the logarithm of a number that may underflow.

        Raises
        ------
        ValueError
            If there are more or fewer functions than columns.

        References
        ----------
        G. Papamakarios et al., "Normalizing Flows for Probabilistic Modeling and Inference",
        Journal of Machine Learning Research 22 (2021), section 2.1.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> basis = TanhBasis(weights=[[2.0], [0.0]]).fit([[0.5]])
        >>> basis.log_abs_det_jacobian([[0.5], [5.0]]).round(3)
        array([ -0.174, -17.921])
        """
        X, weights, _ = self._prepare(X)
        n_functions = weights[-1].shape[1]
        if n_functions != X.shape[1]:
            raise ValueError(
                f"n_components is {n_functions} and X has {counted(X.shape[1], 'column')}; a "
                "determinant needs as many functions as columns."
            )
        return _log_abs_det(X, weights)

    def numerical_jacobian(self, X: ArrayLike, eps: float = 1e-6) -> np.ndarray | list[np.ndarray]:
        """Differentiate with respect to `weights_` by central differences, as a check.

        Parameters
        ----------
        X : array-like of shape (N, D)
        eps : float, default=1e-6
            The step in each weight.

        Returns
        -------
        J : ndarray of shape (N, D + 1, K) or list of ndarray
            As `jacobian` has it by default: in the compact layout, or for a stack a list of arrays
            of shape (N, K, D_l + 1, K_l). In float64, with errors of order eps² + 1e-16/eps.

        Raises
        ------
        ValueError
            If `eps` is not a positive number.

        See Also
        --------
        kerneldiff.numerical_jacobian : The same for any function, more exact and slower.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> basis = TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]])
        >>> basis.numerical_jacobian([[0.5]]).round(3)
        array([[[0.393],
                [0.786]]])
        """
        if not (isinstance(eps, int | float | np.number) and 0 < eps < np.inf):
            raise ValueError(f"eps is {eps!r}; it must be finite and positive.")
        X, weights, _ = self._prepare(X)
        X, weights = X.astype(np.float64), [W.astype(np.float64) for W in weights]
        if isinstance(self.weights_, list):
            return _numerical_jacobians(X, weights, eps)
        return _numerical_last(X, weights[0], eps)

    @property
    def _n_features_out(self) -> int:
        return self._layers()[-1].shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
