"""Bases of tanh functions of linear forms, and their Jacobians with respect to the weights.

With W of shape (D + 1, K), slopes a = W[:D] and biases b = W[D], the basis is
φ_nk = tanh(Σ_d x_nd a_dk + b_k).
"""

import numbers
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kerneldiff import _core
from kerneldiff._validation import (
    STREAM_BYTES,
    check_choice,
    check_fits,
    check_out,
    check_points,
)

_LAYOUTS = ("compact", "full", "matrix")


def _check(X: ArrayLike, W: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check points and weights, and bring them to one type."""
    X, W = check_points(X, "X"), check_points(W, "W")
    if W.shape[0] != X.shape[1] + 1:
        raise ValueError(
            f"W has {W.shape[0]} rows and X has {X.shape[1]} columns; W must have one row for each "
            "column of X and one of biases."
        )
    if X.dtype != W.dtype:
        X, W = X.astype(np.float64, copy=False), W.astype(np.float64, copy=False)
    return X, W


def _run(X: np.ndarray, W: np.ndarray, out: np.ndarray, jacobian: bool, reused: bool) -> np.ndarray:
    _core.tanh(X, W, out, jacobian, reused and out.nbytes > STREAM_BYTES)
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
    passed = {"X": X, "W": W}
    X, W = _check(X, W)
    reused = out is not None
    out = check_out(out, (X.shape[0], W.shape[1]), X.dtype, **passed)
    return _run(X, W, out, False, reused)


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
    passed = {"X": X, "W": W}
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
        return _run(X, W, out, True, reused)
    full = out.reshape(n, k, d + 1, k)
    # In pieces, so that the compact part is small and an interrupt does not wait for the zeros.
    rows = max(1, 2**20 // max(1, (d + 1) * k * k))
    for start in range(0, n, rows):
        part = full[start : start + rows]
        part[...] = 0
        np.einsum("nkdk->ndk", part)[...] = tanh_jacobian(X[start : start + rows], W)
    return out


class TanhBasis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features φ_k(x) = tanh(a_k · x + b_k), with their derivatives.

    Parameters
    ----------
    n_components : int, default=10
        Number K of functions. Ignored when `weights` is given.
    weights : array-like of shape (D + 1, K), default=None
        Slopes and, in the last row, biases. None draws them.
    scale : float, default=1.0
        Standard deviation of drawn slopes and biases, which are normal with mean 0.
    random_state : int, RandomState instance or None, default=None
        Source of the drawn weights.

    Attributes
    ----------
    weights_ : ndarray of shape (D + 1, K)
        Slopes ``weights_[:D]`` and biases ``weights_[D]``.
    n_features_in_ : int
        Number D of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (D,)
        Names of these columns, where they have names that are strings.

    See Also
    --------
    tanh_basis, tanh_jacobian : The same as functions.
    sklearn.kernel_approximation.RBFSampler : Another basis with random slopes and biases.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", Springer 2006, section 3.1.

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
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        weights: ArrayLike | None = None,
        scale: float = 1.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.weights = weights
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
        columns = check_array(X, dtype=[np.float64, np.float32], estimator=self).shape[1]
        if self.weights is None:
            if not isinstance(self.n_components, numbers.Integral) or self.n_components < 1:
                raise ValueError(
                    f"n_components is {self.n_components!r}; it must be an integer of at least 1."
                )
            if not (isinstance(self.scale, int | float | np.number) and 0 <= self.scale < np.inf):
                raise ValueError(f"scale is {self.scale!r}; it must be finite and not negative.")
            random = check_random_state(self.random_state)
            weights = random.normal(0.0, self.scale, (columns + 1, self.n_components))
        else:
            weights = np.array(check_points(self.weights, "weights"))
            if weights.shape[0] != columns + 1:
                raise ValueError(
                    f"weights has {weights.shape[0]} rows and X has {columns} columns; it must "
                    "have one row for each column of X and one of biases."
                )
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        if self.weights is None:
            weights = weights.astype(X.dtype, copy=False)
        self.weights_ = weights
        return self

    def _validate(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)

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
        return tanh_basis(self._validate(X), self.weights_)

    def jacobian(
        self, X: ArrayLike, *, layout: str = "compact", out: np.ndarray | None = None
    ) -> np.ndarray:
        """Differentiate the functions with respect to `weights_`.

        Parameters
        ----------
        X : array-like of shape (N, D)
        layout : {"compact", "full", "matrix"}, default="compact"
        out : ndarray, default=None
            Where to write.

        Returns
        -------
        J : ndarray
            (N, D + 1, K), (N, K, D + 1, K) or (N·K, (D + 1)·K), as `tanh_jacobian` has it.

        Examples
        --------
        >>> from kerneldiff import TanhBasis
        >>> TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]]).jacobian([[0.5]]).round(3)
        array([[[0.393],
                [0.786]]])
        """
        return tanh_jacobian(self._validate(X), self.weights_, layout=layout, out=out)

    def numerical_jacobian(self, X: ArrayLike, eps: float = 1e-6) -> np.ndarray:
        """Differentiate with respect to `weights_` by central differences, as a check.

        Parameters
        ----------
        X : array-like of shape (N, D)
        eps : float, default=1e-6
            The step in each weight.

        Returns
        -------
        J : ndarray of shape (N, D + 1, K)
            In the compact layout and in float64, with errors of order eps² + 1e-16/eps.

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
        X = self._validate(X).astype(np.float64)
        W = self.weights_.astype(np.float64)
        shape = (X.shape[0], *W.shape)
        check_fits(shape, X.dtype)
        J = np.empty(shape)
        ones = np.ones((X.shape[0], 1))
        Z = np.hstack([X, ones]) @ W
        for d, column in enumerate(np.hstack([X, ones]).T):
            step = eps * column[:, None]
            J[:, d] = (np.tanh(Z + step) - np.tanh(Z - step)) / (2 * eps)
        return J

    @property
    def _n_features_out(self) -> int:
        return self.weights_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
