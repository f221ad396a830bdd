"""Gaussian process regression that learns from derivatives and predicts them.

The estimator brings what the user has into the units of the kernel, functionals with values and
noise, and what it finds back; everything between is a solver's (`solvers.py`).  With values alone
and a kernel that cannot be read, it is scikit-learn's own.
"""

import copy
import math
import time
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor as _Base
from sklearn.gaussian_process import kernels as sk
from sklearn.preprocessing import StandardScaler
from sklearn.preprocessing._data import _handle_zeros_in_scale
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import validate_data

from kerneldiff import _linalg, kernels
from kerneldiff._validation import (
    check_fitted_names,
    check_names_along,
    counted,
    fit_context,
    memory_limit,
    real_array,
    too_large,
    unmasked,
)
from kerneldiff.functionals import (
    Functional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    check_functionals,
    common_columns,
    moved,
)
from kerneldiff.operators import CovarianceOperator
from kerneldiff.rotation import Rotation, rotation_applies, rotation_cost
from kerneldiff.solvers import Cholesky, NotFinite, Prior, pieces

# What an observation is, if not the entry of a gradient, whose column it has.
_VALUE, _OTHER = -1, -2

# Entries of the pieces in which covariances of single points are made: large enough for LAPACK.
_PIECE = 256
# Points whose gradients are predicted together with weights of their own.
_GROUP = 8
# Step in the logarithms of hyperparameters for second derivatives of the likelihood, which may be
# wrong by some per cent.
_STEP = 1e-2
# SciPy's default for L-BFGS-B: steps that gain less of the value, or of 1, have converged.
_FTOL = 1e7 * np.finfo(np.float64).eps


# -------------------------------------------------------------------------------- observations


class Observations:
    """Observed functionals of a function, besides its values and gradients.

    It has no length, so that cross-validation passes it on whole to every fit, and never takes a
    fold of it.

    Parameters
    ----------
    items : iterable of tuple
        Each is ``(functional, values)`` or ``(functional, values, noise)``.

        - `functional`: a `Value`, `Gradient`, `ValueGradient`, `Directional`, `Hessian` or
          `Laplacian`, at any points;
        - `values`: of shape ``functional.shape``, or a vector of its entries; with T targets an
          axis T stands behind that of the points, or of the entries. Hessian matrices have to be
          symmetric, and the entries on both sides of their diagonals count once;
        - `noise`: variances, a number or an array of shape ``functional.shape`` or of its entries.
          They are of the values, in units of the targets after normalization (as ``alpha`` is).
          Without it, values have the noise ``alpha`` and all derivatives ``alpha_gradient``.

    Raises
    ------
    TypeError
        If an item is no such tuple.
    ValueError
        If values or noise have a shape that fits nothing or entries that are not finite, if noise
        is negative, or if a Hessian matrix is not symmetric.

    See Also
    --------
    GaussianProcessRegressor.fit : Takes them.

    Examples
    --------
    A slope in one direction, and an exact value elsewhere:

    >>> import numpy as np
    >>> from kerneldiff import Directional, Value
    >>> from kerneldiff import Observations
    >>> slope = Directional([[0.0, 0.0]], [1.0, 1.0])
    >>> Observations([(slope, [0.3], 0.01), (Value([[1.0, 2.0]]), [5.0], 0.0)])
    <Observations: Directional at 1 point, Value at 1 point>
    """

    items: tuple[tuple[Functional, np.ndarray, np.ndarray | None], ...]

    def __init__(self, items: Any) -> None:
        checked = []
        for item in list(items.items if isinstance(items, Observations) else items):
            if not (
                isinstance(item, tuple | list)
                and len(item) in (2, 3)
                and isinstance(item[0], Functional)
            ):
                raise TypeError(
                    f"observations holds {item!r}; each of them must be a tuple (functional, "
                    "values) or (functional, values, noise)."
                )
            functional, values, noise = (*item, None)[:3]
            name = type(functional).__name__
            for array, what in ((values, f"values of {name}"), (noise, f"noise of {name}")):
                if functional._applied is None and functional._parts & 2:
                    check_names_along(functional.names, array, what)
            values = check_array(
                real_array(values, f"values of {name}"),
                dtype=np.float64,
                allow_nd=True,
                ensure_2d=False,
                ensure_min_samples=0,
                input_name=f"values of {name}",
            )
            checked.append((functional, values, _checked_noise(functional, noise)))
        self.items = tuple(checked)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{type(f).__name__} at {counted(len(f.X), 'point')}" for f, _, _ in self.items
        )
        return f"<Observations: {parts}>"


def _checked_noise(functional: Functional, noise: Any) -> np.ndarray | None:
    """Variances of the entries of a functional; one number stands for all."""
    if noise is None:
        return None
    name = type(functional).__name__
    array = real_array(noise, f"noise of {name}").astype(np.float64, copy=False)
    if array.ndim and array.shape not in (functional.shape, (functional.size,)):
        raise ValueError(
            f"noise of {name} has shape {array.shape}; it may be a number, or have shape "
            f"{functional.shape} or ({functional.size},)."
        )
    if not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(f"noise of {name} is {noise}; it must be finite and not negative.")
    if array.shape == functional.shape and functional.mask is not None:
        array = array[functional.mask]
    return np.array(np.broadcast_to(array.ravel() if array.ndim else array, functional.size))


def _entries(functional: Functional, values: np.ndarray, n_targets: int) -> np.ndarray:
    """Values of the entries of a functional, of shape (size, T)."""
    n, *rest = functional.shape
    several = (n, n_targets, *rest)
    if values.shape in [several, functional.shape][: 1 + (n_targets == 1)]:
        table = np.moveaxis(values.reshape(several), 1, -1)
        return table[... if functional.mask is None else functional.mask].reshape(-1, n_targets)
    if values.shape in [(functional.size, n_targets), (functional.size,)][: 1 + (n_targets == 1)]:
        return values.reshape(-1, n_targets)
    shape = functional.shape if n_targets == 1 else several
    raise ValueError(
        f"values of {type(functional).__name__} have shape {values.shape}; they must have shape "
        f"{shape}" + (f", for {n_targets} targets." if n_targets > 1 else ".")
    )


# --------------------------------------------------------------------------------------- noise


class GradientWhiteKernel(sk.StationaryKernelMixin, sk.GenericKernelMixin, sk.Kernel):
    """Noise of observed gradients, as `WhiteKernel` is that of values.

    It may be added to other kernels, and is no part of the function: all its values and
    derivatives are 0. `GaussianProcessRegressor` adds its level to the variance of each entry of
    an observed `Gradient`, in the units that ``alpha_gradient`` has.

    Parameters
    ----------
    noise_level : float, default=1.0
        Variance of the noise.
    noise_level_bounds : pair of floats >= 0 or "fixed", default=(1e-5, 1e5)
        Lower and upper bound of `noise_level` in an optimization, or "fixed".

    See Also
    --------
    sklearn.gaussian_process.kernels.WhiteKernel : The same for values.

    Examples
    --------
    >>> from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    >>> from kerneldiff import GradientWhiteKernel
    >>> RBF(2.0) + WhiteKernel(0.1) + GradientWhiteKernel(0.5)
    RBF(length_scale=2) + WhiteKernel(noise_level=0.1) + GradientWhiteKernel(noise_level=0.5)
    """

    def __init__(
        self,
        noise_level: float = 1.0,
        noise_level_bounds: tuple[float, float] | str = (1e-5, 1e5),
    ) -> None:
        self.noise_level = noise_level
        self.noise_level_bounds = noise_level_bounds

    @property
    def hyperparameter_noise_level(self) -> sk.Hyperparameter:
        """The level, as a hyperparameter."""
        return sk.Hyperparameter("noise_level", "numeric", self.noise_level_bounds)

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """Evaluate the kernel, as scikit-learn's kernels do: zeros."""
        n = len(X)
        K = np.zeros((n, n if Y is None else len(Y)))
        return (K, np.zeros((n, n, self.n_dims))) if eval_gradient else K

    def diag(self, X: Any) -> np.ndarray:
        """Evaluate the kernel where points meet themselves: zeros.

        Parameters
        ----------
        X : sequence of length N

        Returns
        -------
        ndarray of shape (N,)
        """
        return np.zeros(len(X))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(noise_level={self.noise_level:.3g})"


kernels.READERS[GradientWhiteKernel] = lambda kernel, d: kernels.Constant(0.0)
kernels.HYPERPARAMETERS[GradientWhiteKernel] = {"noise_level": kernels.Derivative}


class _Part(NamedTuple):
    """A basic kernel in a tree of kernels."""

    kernel: Any
    first: int  # where it begins in theta
    added: bool  # whether it is a summand of the whole
    whole: bool  # whether it sees all columns


def _parts(
    kernel: sk.Kernel, first: int = 0, added: bool = True, whole: bool = True
) -> list[_Part]:
    """Return the basic kernels of a tree."""
    if isinstance(kernel, sk.KernelOperator):
        added = added and isinstance(kernel, sk.Sum)
        left = _parts(kernel.k1, first, added, whole)
        return left + _parts(kernel.k2, first + kernel.k1.n_dims, added, whole)
    if isinstance(kernel, sk.Exponentiation | kernels.Columns):
        whole = whole and not isinstance(kernel, kernels.Columns)
        return _parts(kernel.kernel, first, False, whole)
    return [_Part(kernel, first, added, whole)]


class _GradientNoise(NamedTuple):
    """Noise of gradients that the kernel has a part in."""

    level: float  # of all GradientWhiteKernels
    level_gradient: np.ndarray  # with respect to theta, (P,)
    weights: np.ndarray | float  # 1 / length_scale², if noise is scaled
    scale_index: np.ndarray  # where the length scales are in theta: (D,), -1 if fixed


def _gradient_noise(kernel: sk.Kernel, d: int, scaled: bool) -> _GradientNoise:
    """Read the noise of gradients in a kernel."""
    level, level_gradient = 0.0, np.zeros(kernel.n_dims)
    scales = []
    for part, first, added, whole in _parts(kernel):
        if isinstance(part, GradientWhiteKernel):
            if not added:
                raise ValueError(
                    f"kernel {kernel} has a GradientWhiteKernel inside of a product, a power or "
                    "columns; it may only be added."
                )
            level += part.noise_level
            if part.n_dims:
                level_gradient[first] += part.noise_level
        elif hasattr(part, "length_scale") and not isinstance(part, sk.ExpSineSquared):
            scales.append((part, first, whole))
    index = np.full(d, -1)
    if not scaled:
        return _GradientNoise(level, level_gradient, 1.0, index)
    if len(scales) != 1 or not scales[0][2]:
        raise ValueError(
            "gradient_noise='scaled' needs a kernel with one set of length scales for all columns; "
            f"{kernel} has {len(scales)}" + " for some columns" * (len(scales) == 1) + "."
        )
    part, first, _ = scales[0]
    for h in part.hyperparameters:
        if h.name == "length_scale":
            if not h.fixed:
                index[:] = first + (np.arange(d) if h.n_elements > 1 else 0)
            break
        first += 0 if h.fixed else h.n_elements
    length_scale = np.broadcast_to(np.asarray(part.length_scale, dtype=np.float64), d)
    return _GradientNoise(level, level_gradient, length_scale**-2.0, index)


class _Noise:
    """Variances of the noise of all observations, as functions of the kernel.

    Parameters
    ----------
    own : ndarray of shape (n_obs,)
        What does not depend on the kernel.
    gradient : ndarray of shape (n_obs,)
        What is scaled if noise of gradients is: ``alpha_gradient``.
    column : ndarray of int of shape (n_obs,)
        Which entry of a gradient it is of; _VALUE and _OTHER are below 0.
    scaled : bool
    d : int
    """

    def __init__(
        self, own: np.ndarray, gradient: np.ndarray, column: np.ndarray, scaled: bool, d: int
    ) -> None:
        self.own, self.gradient, self.column = own, gradient, column
        self.scaled, self.d = scaled, d
        self.entries = np.flatnonzero(column >= 0)

    def __getstate__(self) -> dict[str, Any]:
        # Most often all entries are the same, or follow from others.
        arrays = self.own, self.gradient, self.column
        short = [a[:1] if (a == a[:1]).all() else a for a in arrays]
        return {"arrays": short, "n": len(self.own), "scaled": self.scaled, "d": self.d}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = [np.array(np.broadcast_to(a, state["n"])) for a in state["arrays"]]
        self.__init__(*arrays, state["scaled"], state["d"])  # type: ignore[misc]

    def variances(self, kernel: sk.Kernel) -> np.ndarray:
        """Variances, shape (n_obs,)."""
        noise = self.own.copy()
        if len(self.entries):
            part = _gradient_noise(kernel, self.d, self.scaled)
            gradient = self.gradient[self.entries] + part.level
            weights = np.broadcast_to(part.weights, self.d)[self.column[self.entries]]
            noise[self.entries] += gradient * weights
        return noise

    def theta_gradient(self, kernel: sk.Kernel, derivative: np.ndarray) -> np.ndarray | float:
        """Derivative with respect to theta, from that with respect to the variances."""
        if not len(self.entries):
            return 0.0
        part = _gradient_noise(kernel, self.d, self.scaled)
        columns = self.column[self.entries]
        slopes = derivative[self.entries] * np.broadcast_to(part.weights, self.d)[columns]
        result = part.level_gradient * slopes.sum()
        if self.scaled:
            index = part.scale_index[columns]
            terms = -2.0 * slopes * (self.gradient[self.entries] + part.level)
            np.add.at(result, index[index >= 0], terms[index >= 0])
        return result


# ----------------------------------------------------------------------------------- estimator


class _Block(NamedTuple):
    """Some of what was observed, in the units of the model."""

    observed: list[Functional]
    targets: np.ndarray  # (n, T)
    own: np.ndarray  # (n,): variances that do not depend on the kernel
    gradient: np.ndarray  # (n,): variances that are scaled if noise of gradients is
    column: np.ndarray  # (n,): _VALUE, _OTHER or the column of an entry of a gradient


class _Data(NamedTuple):
    """All of what was observed, in the units of the model."""

    observed: list[Functional]
    targets: np.ndarray
    noise: _Noise
    several: bool  # whether targets came with an axis of their own


class _Posterior(NamedTuple):
    """What predictions are made of."""

    solver: Any  # Prior, Cholesky or Rotation
    weights: np.ndarray  # (n_obs, T)
    mean: np.ndarray  # (T,), of the targets
    std: np.ndarray  # (T,)


class GaussianProcessRegressor(_Base):
    """Gaussian process regression, with derivatives.

    scikit-learn's `sklearn.gaussian_process.GaussianProcessRegressor`, which also learns from
    gradients and other linear functionals of the function, predicts them with their uncertainties,
    and is faster: the likelihood's gradient is a contraction, never an array of derivatives of the
    kernel matrix.

    Parameters
    ----------
    kernel : kernel instance, default=None
        The covariance function; None is ``ConstantKernel() * RBF()``, learned in `fit`. Any kernel
        of scikit-learn's or one's own; of one that cannot be read there are values only.
    alpha : float or ndarray of shape (N,), default=1e-10
        Variance of the noise of values, added to the diagonal. As in scikit-learn, it is that of
        the targets after `normalize_y`.
    alpha_gradient : float or array-like of shape (D,) or (N, D), default=1e-10
        Variance of the noise of gradients, likewise: of the gradients of the normalized targets,
        with respect to the inputs after `scale_X`.
    gradient_noise : {"iid", "scaled"}, default="iid"
        Whether `alpha_gradient`, and the level of a `GradientWhiteKernel`, are variances of the
        entries of gradients themselves, or, "scaled", are still to be divided by the squares of the
        columns' length scales. The kernel must then have one set of these.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        How hyperparameters are found, as in scikit-learn; None keeps those of the kernel.
    n_restarts_optimizer : int, default=0
        How often to optimize again, from hyperparameters drawn log-uniformly within their bounds.
    normalize_y : bool, default=False
        Whether to subtract the mean of the targets and to divide by their standard deviation.
        Gradients are divided by it, too. Without any values nothing is done.
    copy_X_train : bool, default=True
        Whether to keep a copy of the training data, or a reference.
    n_targets : int, default=None
        Number of targets, for predictions before `fit`.
    random_state : int, RandomState instance or None, default=None
        Source of the starting points of restarts.
    solver : {"auto", "cholesky", "rotation"}, default="auto"
        "cholesky" factorises the whole covariance matrix, "rotation" is exact too and cheap where
        there are fewer points than columns, for values and gradients of which not many entries are
        missing. "auto" takes the cheaper of those that apply.
    scale_X : bool, default=False
        Whether to standardize the columns of the inputs inside of the model, and gradients with
        them. A `StandardScaler` before the model would leave `dy` in the old units. Hyperparameters
        are then those of standardized inputs; all that is predicted is in the units of X.
    max_condition : float, default=None
        If given, noise is increased where it is so small that the condition number of the
        covariance matrix, in unit-diagonal form, could be larger. 1e10 is a good choice where
        gradients are known exactly.
    verbose : int, default=0
        1 prints a line for each run of the optimizer, 2 one for each likelihood, too.

    Attributes
    ----------
    X_train_ : ndarray of shape (N, D) or list of object
        Points, as they came.
    y_train_ : ndarray of shape (N,) or (N, T), or None
        Targets, after normalization.
    dy_train_ : ndarray of shape (N, D) or (N, T, D), or None
        Gradients, in the units of the model.
    observations_ : Observations or None
        What was passed as such.
    kernel_ : kernel instance
        The kernel with the hyperparameters found.
    L_ : ndarray of shape (n_obs, n_obs)
        Lower Cholesky factor of the covariance of all observations; only with "cholesky".
    alpha_ : ndarray of shape (n_obs,) or (n_obs, T)
        Weights of the observations in the mean.
    solver_ : str
        The solver that was used.
    log_marginal_likelihood_value_ : float
        The log marginal likelihood of ``kernel_.theta``.
    n_features_in_ : int
        D.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns of X, if it had any.

    See Also
    --------
    sklearn.gaussian_process.GaussianProcessRegressor : The same for values.
    Observations : Functionals other than values and gradients.
    GradientWhiteKernel : Noise of gradients that is learned.

    Notes
    -----
    The order of the observations in `L_` and `alpha_` is: points with value and all of the
    gradient, point by point with the value first; those with a value only; those with a gradient
    only; the rest, of which some entries are missing; then `observations`.

    References
    ----------
    C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
    2006, chapters 2 and 5, and section 9.4 for derivatives.

    Examples
    --------
    Three values and slopes of a sine tell more than three values:

    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from kerneldiff import GaussianProcessRegressor
    >>> X = np.array([[0.0], [2.0], [4.0]])
    >>> model = GaussianProcessRegressor(RBF(1.5), optimizer=None)
    >>> model.fit(X, np.sin(X[:, 0])).predict([[3.0]]).round(3)
    array([0.166])
    >>> model.fit(X, np.sin(X[:, 0]), dy=np.cos(X)).predict([[3.0]]).round(3)
    array([0.143])
    >>> mean, std = model.predict_gradient([[3.0]], return_std=True)
    >>> mean.round(3), std.round(3)
    (array([[-0.992]]), array([[0.01]]))
    """

    _parameter_constraints: ClassVar[dict] = {
        **_Base._parameter_constraints,
        "alpha_gradient": [Interval(Real, 0, None, closed="left"), "array-like"],
        "gradient_noise": [StrOptions({"iid", "scaled"})],
        "solver": [StrOptions({"auto", "cholesky", "rotation"})],
        "scale_X": ["boolean"],
        "max_condition": [Interval(Real, 1, None, closed="neither"), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        kernel: sk.Kernel | None = None,
        *,
        alpha: float | np.ndarray = 1e-10,
        alpha_gradient: ArrayLike = 1e-10,
        gradient_noise: str = "iid",
        optimizer: Any = "fmin_l_bfgs_b",
        n_restarts_optimizer: int = 0,
        normalize_y: bool = False,
        copy_X_train: bool = True,
        n_targets: int | None = None,
        random_state: Any = None,
        solver: str = "auto",
        scale_X: bool = False,
        max_condition: float | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            kernel,
            alpha=alpha,
            optimizer=optimizer,
            n_restarts_optimizer=n_restarts_optimizer,
            normalize_y=normalize_y,
            copy_X_train=copy_X_train,
            n_targets=n_targets,
            random_state=random_state,
        )
        self.alpha_gradient = alpha_gradient
        self.gradient_noise = gradient_noise
        self.solver = solver
        self.scale_X = scale_X
        self.max_condition = max_condition
        self.verbose = verbose

    # ---- fitting

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        dy: ArrayLike | None = None,
        *,
        observations: Any = None,
    ) -> Self:
        """Fit the process to values, gradients and other functionals.

        Parameters
        ----------
        X : array-like of shape (N, D) or list of object
            Points.
        y : array-like of shape (N,) or (N, T), or None
            Values there. NaN, or a mask, stands for values that were not observed, and None for all
            of them, if there are `dy` or `observations`.
        dy : array-like of shape (N, D) or (N, T, D), default=None
            Gradients there, with respect to the columns of X, in the units of `y` over those of X.
            NaN, or a mask, stands for entries that were not observed. If it is a frame that names
            columns of X, they must be in the order of X; other names, such as "dy/dx", are not
            compared.
        observations : Observations or list of tuple, default=None
            Observed functionals, at any points.

        Returns
        -------
        self : GaussianProcessRegressor

        Raises
        ------
        ValueError
            If shapes or values do not fit, as scikit-learn's says; if nothing was observed; if some
            targets are observed where others are not; if the kernel is too rough for gradients; or
            if the solver asked for is not exact.
        NotImplementedError
            If derivatives are observed and the kernel cannot be read, or if hyperparameters are to
            be learned of a kernel of one's own that does not give its derivatives.
        numpy.linalg.LinAlgError
            If the covariance matrix is not positive definite.
        MemoryError
            If the covariance matrix is larger than the memory this process may use.

        Warns
        -----
        ConvergenceWarning
            If an optimization of hyperparameters ended before the optimum. That a line search is
            "ABNORMAL" is no cause where all that another step could gain, by the slopes and
            curvatures of the likelihood, is below its rounding errors or SciPy's `ftol`.

        Notes
        -----
        If it fails, whatever the reason, the estimator is as it was before.

        In a pipeline, a scaler before the estimator, or a
        `sklearn.compose.TransformedTargetRegressor` around it, changes the units of X or y and
        hands on `dy` and `observations` as they are. Nothing here can notice that, and the model is
        silently wrong. Use ``scale_X=True`` and ``normalize_y=True`` instead, which scale
        derivatives along.

        Examples
        --------
        The second value and the first slope were not observed, but a curvature was:

        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import Hessian
        >>> from kerneldiff import GaussianProcessRegressor
        >>> model = GaussianProcessRegressor(RBF(2.0), optimizer=None)
        >>> model = model.fit(
        ...     [[0.0], [1.0]],
        ...     [0.0, np.nan],
        ...     dy=[[np.nan], [2.0]],
        ...     observations=[(Hessian([[0.0]]), [[[2.0]]])],
        ... )
        >>> model.predict([[0.0], [1.0]]).round(2)
        array([-0.  ,  1.43])
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, y, dy, observations)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @_linalg.blas_threads
    def _fit(self, X: Any, y: Any, dy: Any, observations: Any) -> Self:
        for name in ("L_", "alpha_"):
            self.__dict__.pop(name, None)
        default = sk.ConstantKernel() * sk.RBF()
        self.kernel_ = default if self.kernel is None else clone(self.kernel)
        if isinstance(observations, list | tuple):
            observations = Observations(observations)
        if not isinstance(observations, Observations | None):
            raise TypeError(
                f"observations is of type {type(observations).__name__}; it may be an Observations "
                "object, a list of tuples, or None."
            )
        values_only = dy is None and observations is None
        X, y = unmasked(X, "X"), unmasked(y, "y", missing=True)
        given = X, y
        X, y, dy = self._validated(X, y, dy, values_only)
        unreadable = _unreadable(self.kernel_, X)
        self.dy_train_, self.observations_ = None, observations
        self._data: _Data | None = None
        self._solver: Any = None
        if unreadable is not None:
            if not values_only or self.scale_X:
                _refuse(self.kernel_, unreadable)
            self._scaler, self.solver_ = None, "cholesky"
            unmasked(self.alpha, "alpha")
            super().fit(*given)
            if _unreadable(self.kernel_, X) is not None:
                return self
            # The hyperparameters were out of range only where the search for them began.
        learned = unreadable is None and self.optimizer is not None and self.kernel_.n_dims > 0
        self._rng = check_random_state(self.random_state)
        self._data = data = self._assembled(X, y, dy, observations)
        self.solver_ = self._chosen_solver(learned)
        if self.solver_ == "cholesky":
            n = len(data.targets)
            # One piece of memory for all likelihoods, and for the factor in the end.
            self._work = np.zeros((n, n), order="F")
        if learned:
            self._learn()
        try:
            self._solver = self._made_solver(clone(self.kernel_))
            weights = self._solver.solve(data.targets)
        except np.linalg.LinAlgError as error:
            if not isinstance(error, NotFinite):
                error.args = (self._advice(), *error.args)
            raise
        if not learned:
            value = self._solver.likelihood(data.targets)
            self.log_marginal_likelihood_value_ = np.float64(value)
        self.alpha_ = weights if data.several else weights[:, 0]
        if isinstance(self._solver, Cholesky):
            self.L_ = self._solver.factor
        self.__dict__.pop("_work", None)
        return self

    def _validated(self, X: Any, y: Any, dy: Any, values_only: bool) -> tuple[Any, Any, Any]:
        """Check the data; y and dy come as arrays, with the axes that they had."""
        if values_only:
            vector = self.kernel_.requires_vector_input
            X, y = validate_data(
                self,
                X,
                y,
                multi_output=True,
                y_numeric=True,
                ensure_2d=vector,
                dtype="numeric" if vector else None,
            )
            return X, y, None
        X = validate_data(self, X)
        options: Any = {
            "dtype": np.float64,
            "ensure_2d": False,
            "ensure_all_finite": "allow-nan",
            "ensure_min_samples": 0,
            "estimator": self,
        }
        # Sums of infinite entries, by which these are found, are no cause for warnings.
        with np.errstate(all="ignore"):
            if y is not None:
                y = check_array(real_array(y, "y", missing=True), input_name="y", **options)
                check_consistent_length(X, y)
            if dy is not None:
                check_names_along(getattr(self, "feature_names_in_", None), dy, "dy")
                dy = real_array(dy, "dy", missing=True)
                dy = check_array(dy, input_name="dy", allow_nd=True, **options)
        return X, y, dy

    def _assembled(
        self, X: np.ndarray, y: np.ndarray | None, dy: np.ndarray | None, observations: Any
    ) -> _Data:
        """Bring what was observed into the units of the model."""
        n, d = X.shape
        if y is not None:
            t = y.shape[1] if y.ndim > 1 else 1
        else:
            t = dy.shape[1] if dy is not None and dy.ndim == 3 else 1
        if self.n_targets is not None and t != self.n_targets:
            raise ValueError(
                "The number of targets seen in `y` is different from the parameter "
                f"`n_targets`. Got {t} != {self.n_targets}."
            )
        if dy is not None and dy.shape not in [(n, t, d), (n, d)][: 1 + (t == 1)]:
            raise ValueError(
                f"dy has shape {dy.shape}; with X of shape {X.shape} and {t} target"
                f"{'s' * (t > 1)} it must have shape {(n, d) if t == 1 else (n, t, d)}."
            )
        self._normalize(X, y, t)
        if y is not None and self.normalize_y:
            y = (y - self._y_train_mean) / self._y_train_std
        self.X_train_ = np.copy(X) if self.copy_X_train else X
        self.y_train_ = np.copy(y) if self.copy_X_train and y is not None else y
        if dy is not None:
            std = np.reshape(self._y_train_std, (-1, 1))
            self.dy_train_ = dy / (std if dy.ndim == 3 else std[0]) * self._column_scale(d)
        blocks = [*self._own_block(t), *self._other_blocks(observations, t)]
        if not blocks:
            raise ValueError("nothing was observed: y, dy and observations hold no number but NaN.")
        noise = _Noise(
            np.concatenate([block.own for block in blocks]),
            np.concatenate([block.gradient for block in blocks]),
            np.concatenate([block.column for block in blocks]),
            self.gradient_noise == "scaled",
            d,
        )
        targets = np.concatenate([block.targets for block in blocks])
        return _Data(
            [functional for block in blocks for functional in block.observed],
            np.asfortranarray(targets, dtype=np.float64),
            noise,
            y.ndim > 1 if y is not None else dy is not None and dy.ndim == 3,
        )

    def _normalize(self, X: np.ndarray, y: np.ndarray | None, t: int) -> None:
        """Find mean and standard deviation of targets and of columns."""
        self._scaler = StandardScaler().fit(X) if self.scale_X else None
        known = None if y is None else y[~np.isnan(y if y.ndim == 1 else y[:, 0])]
        if self.normalize_y and known is not None and len(known):
            self._y_train_mean = np.mean(known, axis=0)
            self._y_train_std = _handle_zeros_in_scale(np.std(known, axis=0), copy=False)
        else:
            self._y_train_mean, self._y_train_std = np.zeros(t), np.ones(t)

    def _own_block(self, t: int) -> list[_Block]:
        """What `y` and `dy` tell, points of which the same is known together."""
        X, y, dy = self._inputs(self.X_train_), self.y_train_, self.dy_train_
        n, d = X.shape
        alpha = self._checked_alpha(n)
        alpha_gradient = self._checked_alpha_gradient(n, d)
        if y is None and dy is None:
            return []
        if dy is None and not np.isnan(y).any():
            # The most frequent case, without ceremony.
            return [_Block([Value(X)], y.reshape(n, t), alpha, np.zeros(n), np.full(n, _VALUE))]
        table = np.full((n, 1 + d, t), np.nan)
        if y is not None:
            table[:, 0] = y.reshape(n, t)
        if dy is not None:
            table[:, 1:] = np.moveaxis(dy.reshape(n, t, d), 1, 2)
        missing = np.isnan(table)
        if (missing != missing[..., :1]).any():
            raise ValueError(
                "y or dy is NaN for some targets where it is not for others; what is not observed "
                "must be the same for all targets."
            )
        known = ~missing[..., 0]
        every, some = known[:, 1:].all(axis=1), known[:, 1:].any(axis=1)
        kinds: list[tuple[Any, Any, slice]] = [
            (ValueGradient, known[:, 0] & every, slice(None)),
            (Value, known[:, 0] & ~some, slice(0, 1)),
            (Gradient, ~known[:, 0] & every, slice(1, None)),
            (ValueGradient, some & ~every, slice(None)),
        ]
        own, gradient = np.zeros((2, n, 1 + d))
        own[:, 0], gradient[:, 1:] = alpha, alpha_gradient
        column = np.tile(np.array([_VALUE, *range(d)]), (n, 1))
        blocks = []
        for kind, rows, cols in kinds:
            if rows.any():
                at = X if rows.all() else X[rows]
                kept = known[rows, cols]
                functional = kind(at) if kept.all() else kind(at, mask=kept)
                arrays = (a[rows, cols][kept] for a in (table, own, gradient, column))
                blocks.append(_Block([functional], *arrays))
        return blocks

    def _other_blocks(self, observations: Observations | None, t: int) -> list[_Block]:
        """What `observations` tell."""
        blocks = []
        for given, values, noise in [] if observations is None else observations.items:
            self._check_columns(given)
            check_fitted_names(self, given.names, f"X is that of {given!r} in observations.")
            table = _entries(given, values, t)
            functional, factor, column = self._model_functional(given)
            if isinstance(given, Hessian):
                functional.mask = _upper(table.reshape(*given.shape, t))
                kept = functional.mask.ravel()
                table, factor, column = table[kept], factor[kept], column[kept]
                noise = noise if noise is None else noise[kept]
            if not len(table):
                continue
            mean = (column == _VALUE)[:, None] * np.atleast_1d(self._y_train_mean)
            table = (table - mean) / np.atleast_1d(self._y_train_std) * factor[:, None]
            gradient = np.zeros(len(table))
            if noise is None:
                own, gradient = self._default_noise(given, column)
            else:
                own = noise * factor**2
            blocks.append(_Block([functional], table, own, gradient, column))
        return blocks

    def _default_noise(
        self, functional: Functional, column: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Noise of observations that have none of their own: `alpha` and `alpha_gradient`."""
        alpha = np.asarray(self.alpha, dtype=np.float64)
        variance = np.asarray(self.alpha_gradient, dtype=np.float64)
        kinds = [
            (column == _VALUE, alpha.size == 1),
            (column >= 0, variance.ndim < 2),
            (column == _OTHER, variance.size == 1),
        ]
        for entries, simple in kinds:
            if entries.any() and not simple:
                raise ValueError(
                    f"{type(functional).__name__} in observations has no noise of its own, and "
                    "cannot have that of alpha or alpha_gradient, which are arrays; give it one."
                )
        own, gradient = np.zeros((2, len(column)))
        own[kinds[0][0]] = alpha.ravel()[:1]
        own[kinds[2][0]] = variance.ravel()[:1]
        columns = column[kinds[1][0]]
        gradient[kinds[1][0]] = np.broadcast_to(variance, self.n_features_in_)[columns]
        return own, gradient

    def _checked_alpha(self, n: int) -> np.ndarray:
        alpha = real_array(self.alpha, "alpha").astype(np.float64, copy=False)
        if alpha.ndim == 1 and len(alpha) not in (1, n):
            raise ValueError(
                "alpha must be a scalar or an array with same number of "
                f"entries as y. ({len(alpha)} != {n})"
            )
        if alpha.ndim > 1:
            raise ValueError(
                f"alpha has shape {alpha.shape}; it may be a number or have shape ({n},)."
            )
        if not np.all(alpha >= 0):
            raise ValueError(f"alpha is {self.alpha}; variances must not be negative.")
        return np.array(np.broadcast_to(alpha, n))

    def _checked_alpha_gradient(self, n: int, d: int) -> np.ndarray:
        names = getattr(self, "feature_names_in_", None)
        check_names_along(names, self.alpha_gradient, "alpha_gradient")
        variance = real_array(self.alpha_gradient, "alpha_gradient").astype(np.float64, copy=False)
        if variance.shape not in ((), (d,), (n, d)):
            raise ValueError(
                f"alpha_gradient has shape {variance.shape}; it may be a number, or have shape "
                f"({d},) or {(n, d)}."
            )
        if not np.all(variance >= 0):
            raise ValueError(
                f"alpha_gradient is {self.alpha_gradient!r}; variances must not be negative."
            )
        return np.broadcast_to(variance, (n, d))

    # ---- saving

    def __getstate__(self) -> dict[str, Any]:
        """State in which each array stands once: joblib writes an array whenever it meets it."""
        state = {**super().__getstate__()}
        data, solver = state.get("_data"), copy.copy(state.get("_solver"))
        if data is None:
            return state
        inputs = self._inputs(self.X_train_)
        observed = []
        for functional in data.observed:
            kept = copy.copy(functional)
            if np.array_equal(kept.X, inputs):
                del kept.X
            observed.append(kept)
            # What the solver has of it is the same object then, which is written once.
            for name, value in vars(solver).items():
                same = type(value) is type(functional) and value.X is functional.X
                if same and value.mask is functional.mask:
                    setattr(solver, name, kept)
        targets = data.targets
        if self.y_train_ is not None and np.array_equal(
            targets, self.y_train_.reshape(len(self.X_train_), -1)
        ):
            targets = targets[:0]
        if isinstance(solver, Cholesky):
            solver.observed, solver.noise, solver._matrix = observed, solver.noise[:0], None
        return {
            **state,
            "_data": data._replace(observed=observed, targets=targets),
            "_solver": solver,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        data = self.__dict__.get("_data")
        if data is None:
            return
        for functional in data.observed:
            if not hasattr(functional, "X"):
                functional.X = Value(self._inputs(self.X_train_)).X
        if not len(data.targets):
            y = np.asarray(self.y_train_).reshape(len(self.X_train_), -1)
            self._data = data = data._replace(targets=np.asfortranarray(y, dtype=np.float64))
        if isinstance(self._solver, Cholesky):
            self._solver.noise = data.noise.variances(self._solver.kernel)
            self._solver._matrix = self.L_

    # ---- solving

    def _observed_data(self) -> _Data:
        assert self._data is not None
        return self._data

    def _chosen_solver(self, learned: bool) -> str:
        """The name of the solver to use, after a look at what it would cost."""
        data, limit = self._observed_data(), memory_limit()
        n = len(data.targets)
        needed, rotated, cheaper = 8 * n * n, 0, False
        if all(isinstance(f, Value | Gradient | ValueGradient) for f in data.observed):
            rotated, operations = rotation_cost(data.observed)
            # Values alone are never worth a rotation, which would tell why.
            differential = any(not isinstance(f, Value) for f in data.observed)
            cheaper = differential and operations < 0.5 * n**3 and rotated < needed
        if self.solver == "cholesky" or (self.solver == "auto" and not cheaper and needed < limit):
            reason: str | None = "it is not the solver asked for"
        else:
            reason = self._not_rotated(learned)
        if self.solver == "rotation" and reason is not None:
            raise ValueError(f"solver='rotation' is not exact here: {reason}.")
        if reason is None:
            return "rotation"
        if needed > limit:
            reason = self._not_rotated(learned)
            where = f"for the covariance matrix of the {n} observations"
            advice = self._less_memory(reason, rotated)
            raise too_large("solver='cholesky'", needed, limit, advice, where)
        return "cholesky"

    def _less_memory(self, reason: str | None, rotated: float) -> str:
        """What to do where the covariance matrix does not fit; `rotated`: bytes of a rotation."""
        if all(isinstance(f, Value) for f in self._observed_data().observed):
            return "Take fewer points."
        if reason is not None:
            return f"solver='rotation' would need less, but is not exact here: {reason}."
        if rotated > memory_limit():
            return "Take fewer points, or gradients at fewer of them."
        return "solver='rotation' can do without it."

    def _not_rotated(self, learned: bool) -> str | None:
        """Why rotation is not exact, for this kernel or others on the way to the optimum."""
        kernel, data = self.kernel_, self._observed_data()
        for k in [kernel, kernel.clone_with_theta(_elsewhere(kernel))] if learned else [kernel]:
            noise = data.noise.variances(k)
            reason = rotation_applies(k, data.observed, noise, self.max_condition)
            if reason is not None:
                return reason.rstrip(".")
        return None

    def _made_solver(self, kernel: sk.Kernel) -> Any:
        data = self._observed_data()
        arguments = kernel, data.observed, data.noise.variances(kernel), self.max_condition
        if self.solver_ == "rotation":
            return Rotation(*arguments)
        return Cholesky(*arguments, work=self.__dict__.get("_work"))

    def _advice(self) -> str:
        """What to do where the covariance matrix is not positive definite."""
        message = f"The kernel, {self.kernel_}, is not returning a positive definite matrix. Try "
        if all(isinstance(f, Value) for f in self._observed_data().observed):
            return (
                message + "gradually increasing the 'alpha' parameter of your "
                "GaussianProcessRegressor estimator."
            )
        return (
            message + "gradually increasing the 'alpha' and 'alpha_gradient' parameters of your "
            "GaussianProcessRegressor estimator, or set max_condition=1e10, which finds the noise "
            "that is needed. Points that nearly coincide, and length scales that are much larger "
            "than the distances of points, need it most."
        )

    def _learn(self) -> None:
        """Find the hyperparameters, as scikit-learn does."""
        kernel, bounds = self.kernel_, self.kernel_.bounds
        if self.n_restarts_optimizer > 0 and not np.isfinite(bounds).all():
            raise ValueError(
                "Multiple optimizer restarts (n_restarts_optimizer>0) "
                "requires that all bounds are finite."
            )
        count = 0

        def objective(theta: np.ndarray, eval_gradient: bool = True) -> Any:
            nonlocal count
            count += 1
            result = self.log_marginal_likelihood(theta, eval_gradient, clone_kernel=False)
            if self.verbose > 1:
                value = result[0] if eval_gradient else result
                print(f"[GaussianProcessRegressor] {count}: log likelihood {value:.8g}, {kernel}")
            if eval_gradient:
                return -result[0], -result[1]
            return -result

        optima = []
        for run in range(1 + self.n_restarts_optimizer):
            theta = self._rng.uniform(bounds[:, 0], bounds[:, 1]) if run else kernel.theta
            begin, count = time.perf_counter(), 0
            optima.append(self._constrained_optimization(objective, theta, bounds))
            if self.verbose:
                print(
                    f"[GaussianProcessRegressor] run {run + 1} of {1 + self.n_restarts_optimizer}: "
                    f"log likelihood {-optima[-1][1]:.8g} after {counted(count, 'evaluation')} and "
                    f"{time.perf_counter() - begin:.1f} s"
                )
        values = [value for _, value in optima]
        kernel.theta = optima[np.argmin(values)][0]
        kernel._check_bounds_params()
        self.log_marginal_likelihood_value_ = -np.min(values)

    def _constrained_optimization(self, obj_func: Any, initial_theta: Any, bounds: Any) -> Any:
        """Optimize from one start, as scikit-learn does, but for warnings at rounding level."""
        if self.optimizer != "fmin_l_bfgs_b":
            return super()._constrained_optimization(obj_func, initial_theta, bounds)
        result = scipy.optimize.minimize(
            obj_func, initial_theta, method="L-BFGS-B", jac=True, bounds=bounds
        )
        abnormal = "ABNORMAL" in str(result.message)
        if not (abnormal and self._data is not None and self._is_optimum(obj_func, result, bounds)):
            _check_optimize_result("lbfgs", result)
        return result.x, result.fun

    def _is_optimum(self, objective: Any, result: Any, bounds: np.ndarray) -> bool:
        """Whether all that steps of up to 1 can still gain, to second order, is too little to see.

        That is less than rounding errors, or than what L-BFGS-B takes for convergence.  Its line
        search ends as abnormal where it finds nothing better along a slope.
        """
        theta, slope = result.x, objective(result.x)[1]
        free = ~((theta <= bounds[:, 0]) & (slope > 0) | (theta >= bounds[:, 1]) & (slope < 0))
        steps = np.diag(np.where(theta + _STEP > bounds[:, 1], -_STEP, _STEP))[free]
        curvature = np.array(
            [(objective(theta + step)[1] - slope)[free] / step.sum() for step in steps]
        ).reshape(len(steps), len(steps))
        if not (np.isfinite(curvature).all() and np.isfinite(slope).all()):
            return False
        curvatures, directions = np.linalg.eigh(0.5 * (curvature + curvature.T))
        slopes, lengths = np.abs(slope[free] @ directions), np.ones(len(steps))
        inside = curvatures > slopes
        lengths[inside] = slopes[inside] / curvatures[inside]
        gain = float((slopes * lengths - 0.5 * curvatures * lengths**2).sum())
        return gain <= max(_FTOL * max(1.0, abs(result.fun)), self._likelihood_error(theta))

    def _likelihood_error(self, theta: np.ndarray) -> float:
        """How far rounding errors may change the likelihood.

        Relative errors ε of the entries of C, and those of its factorisation, which are like them,
        change it by up to ½ ε Σ_ij √(C_ii C_jj) |T C⁻¹ - Σ_t a_t a_tᵀ|_ij, a = C⁻¹ y.  As they are
        not all of one sign, that is by about the Frobenius norm of that matrix, which is no larger
        than the traces of its two parts together.  The half is left out.
        """
        kernel, data = self.kernel_.clone_with_theta(theta), self._observed_data()
        solver = self._made_solver(kernel)
        squares = (solver.solve(data.targets) ** 2).sum(axis=1)
        try:
            _, _, by_noise = solver.likelihood(data.targets, True)
        except NotImplementedError:  # a kernel of the user's, without derivatives of the likelihood
            return 0.0
        variances = Prior(kernel).covariance(data.observed, diagonal=True)
        variances += data.noise.variances(kernel) + _kernel_noise(kernel, data.observed)
        # The derivative by noise is half the difference of the two diagonals.
        return float(np.finfo(np.float64).eps * (variances @ (2.0 * (squares - by_noise))))

    @_linalg.blas_threads
    def log_marginal_likelihood(
        self,
        theta: ArrayLike | None = None,
        eval_gradient: bool = False,
        clone_kernel: bool = True,
    ) -> Any:
        """Logarithm of the marginal likelihood of hyperparameters, for all that was observed.

        Parameters
        ----------
        theta : array-like of shape (n_kernel_params,), default=None
            Hyperparameters, as ``kernel_.theta``; None returns the value found in `fit`.
        eval_gradient : bool, default=False
            Whether to return the gradient, too, for which `theta` must be given.
        clone_kernel : bool, default=True
            Whether to leave ``kernel_`` as it is, or to set its hyperparameters.

        Returns
        -------
        log_likelihood : float
            Of the targets after normalization, summed over them; -inf where the covariance matrix
            is not positive definite, or it or the gradient is not finite.
        log_likelihood_gradient : ndarray of shape (n_kernel_params,)
            Only with `eval_gradient`.

        References
        ----------
        C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
        2006, equations 5.8 and 5.9.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> X = np.linspace(0, 6, 5)[:, None]
        >>> model = GaussianProcessRegressor(RBF(), optimizer=None)
        >>> model = model.fit(X, np.sin(X[:, 0]), dy=np.cos(X))
        >>> value, gradient = model.log_marginal_likelihood([0.0], eval_gradient=True)
        >>> value.round(2), gradient.round(2)
        (np.float64(-7.24), array([16.35]))
        """
        if theta is None or self._data is None:
            return super().log_marginal_likelihood(theta, eval_gradient, clone_kernel)
        kernel = self.kernel_
        if clone_kernel:
            kernel = kernel.clone_with_theta(theta)
        else:
            kernel.theta = theta
        data = self._observed_data()
        try:
            result = self._made_solver(kernel).likelihood(data.targets, eval_gradient)
        except NotImplementedError:
            # Of a kernel of the user's, whose own evaluation may know its derivatives.
            if self.scale_X or any(not isinstance(f, Value) for f in data.observed):
                raise
            return super().log_marginal_likelihood(theta, eval_gradient, clone_kernel)
        except ValueError as error:
            # Hyperparameters beyond the range of numbers end no optimization either.
            singular = isinstance(error, np.linalg.LinAlgError)
            if not singular and _unreadable(kernel, data.observed[0].X) is None:
                raise
            return (-np.inf, np.zeros(kernel.n_dims)) if eval_gradient else -np.inf
        # A NumPy number, as scikit-learn's.
        if not eval_gradient:
            return np.float64(-np.inf if np.isnan(result) else result)
        likelihood, gradient, of_noise = result
        gradient = gradient + data.noise.theta_gradient(kernel, of_noise)
        if not (np.isfinite(likelihood) and np.isfinite(gradient).all()):
            return -np.inf, np.zeros(kernel.n_dims)
        return np.float64(likelihood), gradient

    # ---- units

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        """Points in the units of the kernel."""
        X = np.ascontiguousarray(X, dtype=np.float64)
        scaler = self.__dict__.get("_scaler")
        return X if scaler is None else scaler.transform(X)

    def _column_scale(self, d: int) -> np.ndarray:
        """Units of the kernel's columns, in those of X."""
        scaler = self.__dict__.get("_scaler")
        return np.ones(d) if scaler is None else scaler.scale_

    def _check_columns(self, functional: Functional) -> None:
        """Raise ValueError if a functional is at points of another space."""
        d = functional.X.shape[1]
        if d != getattr(self, "n_features_in_", d):
            raise ValueError(
                f"X has {d} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                f"features as input. (X is that of {functional!r}.)"
            )

    def _model_functional(self, given: Functional) -> tuple[Functional, np.ndarray, np.ndarray]:
        """Bring a functional into the units of the model.

        Returns the functional, and for all its entries what they are to be multiplied with, and
        what they are: the column of the gradient, _VALUE or _OTHER.
        """
        n, d = given.X.shape
        functional = moved(given, self._inputs(given.X))
        scale, columns = self._column_scale(d), np.arange(d)
        if self.__dict__.get("_scaler") is not None:
            if isinstance(given, Laplacian):
                raise ValueError(
                    "Laplacian does not go with scale_X=True, as columns have units of their own "
                    "inside of the model; scale X beforehand, or take the trace of the Hessian."
                )
            if given.V is not None:
                functional.V = given.V / scale
        factor: ArrayLike = 1.0
        kind: ArrayLike = _OTHER
        if isinstance(given, Value):
            kind = _VALUE
        elif isinstance(given, Gradient):
            factor, kind = scale, columns
        elif isinstance(given, ValueGradient):
            factor, kind = [1.0, *scale], [_VALUE, *columns]
        elif isinstance(given, Hessian):
            factor = np.outer(scale, scale).ravel()
        shape = (n, math.prod(given.shape[1:]))
        kept = np.s_[:] if given.mask is None else given.mask.ravel()
        return (
            functional,
            np.broadcast_to(factor, shape).ravel()[kept],
            np.broadcast_to(kind, shape).ravel()[kept],
        )

    # ---- predicting

    def predict(
        self,
        X: Any,
        return_std: bool = False,
        return_cov: bool = False,
        *,
        return_mean_grad: bool = False,
        return_std_grad: bool = False,
    ) -> Any:
        """Predict values; before `fit`, those of the prior.

        Parameters
        ----------
        X : array-like of shape (N, D) or list of object
            Points.
        return_std : bool, default=False
            Whether to return standard deviations. Noise that the kernel has (WhiteKernel) is in
            them, as in scikit-learn.
        return_cov : bool, default=False
            Whether to return the joint covariance; not together with `return_std`.
        return_mean_grad : bool, default=False
            Whether to return the gradients of the mean.
        return_std_grad : bool, default=False
            Whether to return the gradients of the standard deviation, which are NaN where that is
            0. They are not the standard deviations of the gradients.

        Returns
        -------
        mean : ndarray of shape (N,) or (N, T)
        std : ndarray of shape (N,) or (N, T)
            Only with `return_std`.
        cov : ndarray of shape (N, N) or (N, N, T)
            Only with `return_cov`.
        mean_grad : ndarray of shape (N, D) or (N, T, D)
            Only with `return_mean_grad`.
        std_grad : ndarray of shape (N, D) or (N, T, D)
            Only with `return_std_grad`.

        See Also
        --------
        predict_gradient : The gradient of the function, with its own uncertainty.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> X = np.linspace(0, 6, 13)[:, None]
        >>> model = GaussianProcessRegressor(RBF(1.5), optimizer=None).fit(X, np.sin(X[:, 0]))
        >>> mean, std, slope = model.predict([[6.6]], return_std=True, return_mean_grad=True)
        >>> mean.round(3), std.round(3), slope.round(3)
        (array([0.311]), array([0.009]), array([[0.946]]))
        """
        self._check_one(return_std, return_cov)
        fitted = hasattr(self, "X_train_")
        X = unmasked(X, "X")
        if fitted and self._data is not None:
            X = validate_data(self, X, reset=False)
            results = self._predicted([Value(X)], return_std, return_cov)
        else:
            try:
                result = super().predict(X, return_std, return_cov)
            except OverflowError as error:
                raise ValueError(f"kernel {self.kernel} is beyond the range of numbers.") from error
            results = list(result) if isinstance(result, tuple) else [result]
            if return_mean_grad or return_std_grad:
                X = self._checked_points(X)
        if return_mean_grad:
            results.append(_shaped(self._means([Gradient(X)]), Gradient(X)))
        if return_std_grad:
            results.append(self._std_gradient(X))
        return results[0] if len(results) == 1 else tuple(results)

    def predict_gradient(
        self, X: ArrayLike, return_std: bool = False, return_cov: bool = False
    ) -> Any:
        """Predict gradients of the function.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Points.
        return_std : bool, default=False
            Whether to return their standard deviations: of the derivatives themselves, which the
            derivatives of the standard deviation are not.
        return_cov : bool, default=False
            Whether to return the covariance of the entries at each point; not together with
            `return_std`.

        Returns
        -------
        mean : ndarray of shape (N, D) or (N, T, D)
        std : ndarray of shape (N, D) or (N, T, D)
            Only with `return_std`.
        cov : ndarray of shape (N, D, D) or (N, T, D, D)
            Only with `return_cov`.

        Raises
        ------
        NotImplementedError
            If the kernel cannot be read.
        ValueError
            If std or cov are asked for that do not exist, as the kernel is too rough (Matern needs
            nu > 1).

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> X = np.linspace(0, 6, 13)[:, None]
        >>> model = GaussianProcessRegressor(RBF(1.5), optimizer=None).fit(X, np.sin(X[:, 0]))
        >>> model.predict_gradient([[0.0], [2.2]]).round(2)
        array([[ 1.  ],
               [-0.59]])
        """
        self._check_one(return_std, return_cov)
        functional = Gradient(self._checked_points(X))
        if return_std:
            mean, std = self._moments([functional])
            return _shaped(mean, functional), _shaped(std, functional)
        mean = _shaped(self._means([functional]), functional)
        return (mean, self._blocks(functional)) if return_cov else mean

    def predict_hessian(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Predict Hessian matrices of the function.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Points.
        return_std : bool, default=False
            Whether to return the standard deviations of their entries.

        Returns
        -------
        mean : ndarray of shape (N, D, D) or (N, T, D, D)
        std : ndarray of shape (N, D, D) or (N, T, D, D)
            Only with `return_std`.

        Raises
        ------
        NotImplementedError
            If the kernel cannot be read.
        ValueError
            If std is asked for and does not exist, as the kernel is too rough (Matern needs
            nu > 2).

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import GaussianProcessRegressor
        >>> X = np.linspace(0, 6, 13)[:, None]
        >>> model = GaussianProcessRegressor(RBF(1.5), optimizer=None).fit(X, np.sin(X[:, 0]))
        >>> model.predict_hessian([[1.5]]).round(2)
        array([[[-1.]]])
        """
        functional = Hessian(self._checked_points(X))
        if not return_std:
            return _shaped(self._means([functional]), functional)
        mean, std = self._moments([functional])
        return _shaped(mean, functional), _shaped(std, functional)

    def predict_functional(
        self,
        functional: Functional | Sequence[Functional],
        return_std: bool = False,
        return_cov: bool = False,
    ) -> Any:
        """Predict any functionals of the function, jointly.

        Parameters
        ----------
        functional : Functional or list of Functional
            With n entries together.
        return_std : bool, default=False
            Whether to return standard deviations. Noise that the kernel has (WhiteKernel) is in
            those of values, as in `predict`, and in nothing else.
        return_cov : bool, default=False
            Whether to return the joint covariance; not together with `return_std`.

        Returns
        -------
        mean : ndarray of shape (n,) or (n, T)
            Entries in order, those of a point together; ``mean.reshape(functional.shape)`` has the
            shape of a tensor.
        std : ndarray of shape (n,) or (n, T)
            Only with `return_std`.
        cov : ndarray of shape (n, n) or (n, n, T)
            Only with `return_cov`.

        Examples
        --------
        The slope along a direction, and its uncertainty:

        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import Directional
        >>> from kerneldiff import GaussianProcessRegressor
        >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> model = GaussianProcessRegressor(9 * RBF(4.0), optimizer=None)
        >>> model = model.fit(X, X[:, 0] - X[:, 1])
        >>> slope = Directional([[0.5, 0.5]], [1.0, -1.0])
        >>> mean, std = model.predict_functional(slope, return_std=True)
        >>> mean.round(2), std.round(2)
        (array([2.03]), array([0.01]))
        """
        self._check_one(return_std, return_cov)
        functionals = self._checked_functionals(functional)
        results = self._predicted(functionals, return_std, return_cov)
        return results[0] if len(results) == 1 else tuple(results)

    @_linalg.blas_threads
    def sample_functional(
        self,
        functional: Functional | Sequence[Functional],
        n_samples: int = 1,
        random_state: Any = 0,
    ) -> np.ndarray:
        """Draw functionals of the function jointly.

        Parameters
        ----------
        functional : Functional or list of Functional
            With n entries together.
        n_samples : int, default=1
            Number of draws.
        random_state : int, RandomState instance or None, default=0
            Source of random numbers.

        Returns
        -------
        ndarray of shape (n, n_samples) or (n, T, n_samples)
            Each column has entries of one function, in the order of `predict_functional`.

        Examples
        --------
        Draws of values and slopes belong together:

        >>> import numpy as np
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> from kerneldiff import ValueGradient
        >>> from kerneldiff import GaussianProcessRegressor
        >>> x = np.array([[0.0], [0.001]])
        >>> f0, slope, f1, _ = GaussianProcessRegressor(RBF()).sample_functional(ValueGradient(x))
        >>> np.abs((f1 - f0) / 0.001 - slope).max() < 0.01
        np.True_
        """
        return self._drawn(self._checked_functionals(functional), n_samples, random_state)

    def _drawn(
        self, functionals: list[Functional], n_samples: int, random_state: Any
    ) -> np.ndarray:
        """Joint draws, of shape (n, n_samples) or (n, T, n_samples)."""
        rng = check_random_state(random_state)
        posterior = self._posterior(functionals)
        means = self._means(functionals)
        root = _root(self._covariance(functionals))
        n, t = means.shape
        draws = np.empty((n, t, n_samples))
        for k in range(t):
            noise = rng.standard_normal((n_samples, n)).T
            draws[:, k] = means[:, k, None] + posterior.std[k] * _linalg.product(root, noise)
        return draws[:, 0] if t == 1 else draws

    def sample_gradient(
        self, X: ArrayLike, n_samples: int = 1, random_state: Any = 0
    ) -> np.ndarray:
        """Draw gradients of the function, jointly at all points.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Points.
        n_samples : int, default=1
            Number of draws.
        random_state : int, RandomState instance or None, default=0
            Source of random numbers.

        Returns
        -------
        ndarray of shape (N, D, n_samples) or (N, T, D, n_samples)

        See Also
        --------
        sample_y : Draws of values.
        sample_functional : Draws of both, and others, of the same functions.

        Examples
        --------
        >>> import numpy as np
        >>> from kerneldiff import GaussianProcessRegressor
        >>> GaussianProcessRegressor().sample_gradient(np.zeros((4, 2)), n_samples=10).shape
        (4, 2, 10)
        """
        functional = Gradient(self._checked_points(X))
        draws = self._drawn([functional], n_samples, random_state)
        draws = draws.reshape(*functional.shape, *draws.shape[1:])
        return draws if draws.ndim == 3 else np.moveaxis(draws, 1, 2)

    @staticmethod
    def _check_one(return_std: bool, return_cov: bool) -> None:
        if return_std and return_cov:
            raise RuntimeError("At most one of return_std or return_cov can be requested.")

    def _check_readable(self) -> None:
        """Raise NotImplementedError if the fit was scikit-learn's."""
        if hasattr(self, "X_train_") and self._data is None:
            error = _unreadable(self.kernel_, self.X_train_)
            assert error is not None
            _refuse(self.kernel_, error)

    def _checked_points(self, X: Any) -> np.ndarray:
        """Points of derivatives that are to be predicted."""
        self._check_readable()
        return validate_data(self, unmasked(X, "X"), reset=False)

    def _checked_functionals(self, functional: Any) -> list[Functional]:
        """Functionals that are to be predicted, as a list; of the space of the fit."""
        functionals = check_functionals(functional, "functional")
        common_columns(functionals)
        for f in functionals:
            self._check_columns(f)
            if hasattr(self, "X_train_"):
                check_fitted_names(self, f.names, f"X is that of {f!r}.")
        return functionals

    def _posterior(self, functionals: Sequence[Functional]) -> _Posterior:
        """What predictions are made of; raises if derivatives cannot be predicted."""
        self._check_readable()
        for functional in functionals:
            self._check_columns(functional)
        if not hasattr(self, "X_train_"):
            kernel, t = self.kernel, self.n_targets or 1
            if kernel is None:
                kernel = sk.ConstantKernel(1.0, "fixed") * sk.RBF(1.0, "fixed")
            solver, weights = Prior(kernel), np.zeros((0, t))
            mean, std = np.zeros(t), np.ones(t)
        else:
            mean, std = np.atleast_1d(self._y_train_mean), np.atleast_1d(self._y_train_std)
            weights = np.reshape(self.alpha_, (len(self.alpha_), -1))
            kernel, solver = self.kernel_, self._solver
        if not hasattr(self, "X_train_"):
            error = _unreadable(kernel, functionals[0].X)
            if error is not None:
                _refuse(kernel, error)
        return _Posterior(solver, weights, mean, std)

    def _predicted(
        self, functionals: list[Functional], return_std: bool, return_cov: bool
    ) -> list[np.ndarray]:
        """Mean and, if wanted, std or cov, with the axes that scikit-learn gives them."""
        results = self._moments(functionals) if return_std else [self._means(functionals)]
        if return_cov:
            std = self._posterior(functionals).std
            results.append(np.multiply.outer(self._covariance(functionals), std**2))
        return [np.squeeze(a, axis=-1) if a.shape[-1] == 1 else a for a in results]

    def _model_functionals(
        self, functionals: Sequence[Functional]
    ) -> tuple[list[Functional], np.ndarray, np.ndarray]:
        """As `_model_functional`, of several."""
        models, factors, columns = zip(*map(self._model_functional, functionals), strict=True)
        return list(models), np.concatenate(factors), np.concatenate(columns)

    @_linalg.blas_threads
    def _means(self, functionals: Sequence[Functional]) -> np.ndarray:
        """Means in the user's units, shape (n, T)."""
        solver, weights, mean, std = self._posterior(functionals)
        models, factor, column = self._model_functionals(functionals)
        means = solver.mean(models, weights) * std / factor[:, None]
        means[column == _VALUE] += mean
        return means

    @_linalg.blas_threads
    def _moments(self, functionals: Sequence[Functional]) -> list[np.ndarray]:
        """Means and standard deviations in the user's units, of shape (n, T) both."""
        solver, weights, mean, std = self._posterior(functionals)
        models, factor, column = self._model_functionals(functionals)
        if isinstance(solver, Prior):
            means, variances = solver.moments(models, weights)
        else:
            means = solver.mean(models, weights)
            variances = solver.covariance(models, diagonal=True)
        means = means * std / factor[:, None]
        means[column == _VALUE] += mean
        variances += _kernel_noise(solver.kernel, models)
        negative = variances < 0
        if negative.any():
            warnings.warn(
                "Predicted variances smaller than 0. Setting those variances to 0.", stacklevel=4
            )
            variances[negative] = 0.0
        return [means, np.sqrt(np.multiply.outer(variances, std**2)) / factor[:, None]]

    @_linalg.blas_threads
    def _covariance(self, functionals: Sequence[Functional]) -> np.ndarray:
        """Joint covariance, of targets of standard deviation 1, shape (n, n)."""
        solver = self._posterior(functionals).solver
        models, factor, _ = self._model_functionals(functionals)
        covariance = solver.covariance(models)
        np.einsum("ii->i", covariance)[:] += _kernel_noise(solver.kernel, models)
        if (factor != 1).any():
            covariance /= np.multiply.outer(factor, factor)
        return covariance

    @_linalg.blas_threads
    def _blocks(self, functional: Functional) -> np.ndarray:
        """Covariance of the entries at each point, shape (N, D, D) or (N, T, D, D)."""
        solver, _, _, std = self._posterior([functional])
        (n, d), scale = functional.shape, self._column_scale(functional.X.shape[1])
        model, *_ = self._model_functional(functional)
        blocks = np.empty((n, d, d))
        for piece, where in pieces([model], _PIECE):
            joint = solver.covariance([piece]).reshape(len(piece.X), d, len(piece.X), d)
            points = slice(where.start // d, where.stop // d)
            blocks[points] = np.einsum("iaib->iab", joint)
        blocks /= np.multiply.outer(scale, scale)
        return blocks * std[0] ** 2 if len(std) == 1 else blocks[:, None] * std[:, None, None] ** 2

    @_linalg.blas_threads
    def _std_gradient(self, X: np.ndarray) -> np.ndarray:
        """Gradients of the standard deviation of values, shape (N, D) or (N, T, D)."""
        value, gradient = Value(X), Gradient(X)
        solver, _, _, std = self._posterior([value])
        stds = self._moments([value])[1][:, 0] / std[0]
        scale = self._column_scale(X.shape[1])
        model, *_ = self._model_functional(value)
        term = kernels.read(solver.kernel, model.X.shape[1])
        slopes = kernels.gradient_on_diagonal(kernels.with_noise(term) or term, model.X)
        if hasattr(self, "X_train_"):
            observed = self._observed_data().observed
            # The variance is k(x, x) - k(x, .) C⁻¹ k(., x); a point has weights of its own.
            for first in range(0, len(X), _GROUP):
                points = model.X[first : first + _GROUP]
                n, d = points.shape
                side = CovarianceOperator(solver.kernel, observed, Value(points))
                weights = solver.solve(side.to_dense())
                others = CovarianceOperator(solver.kernel, Gradient(points), observed)
                joint = (others @ weights).reshape(n, d, n)
                slopes[first : first + n] -= 2.0 * np.einsum("iai->ia", joint)
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.where(stds[:, None] > 0, slopes / (2.0 * stds[:, None]), np.nan) / scale
        return _shaped(np.multiply.outer(slopes.ravel(), std), gradient)


def _shaped(table: np.ndarray, functional: Functional) -> np.ndarray:
    """From (n, T) to (N, ...), or (N, T, ...) with several targets."""
    array = table.reshape(*functional.shape, table.shape[1])
    return array[..., 0] if table.shape[1] == 1 else np.moveaxis(array, -1, 1)


def _unreadable(kernel: sk.Kernel, X: Any) -> Exception | None:
    """Why a kernel cannot be read for these points, if it cannot."""
    if not (isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "biuf"):
        return TypeError("its points are not vectors of numbers")
    try:
        kernels.read(kernel, X.shape[1])
    except (TypeError, ValueError) as error:
        return error
    return None


def _refuse(kernel: sk.Kernel, error: Exception) -> NoReturn:
    """Raise what is to be raised where a kernel must be read and cannot."""
    if not isinstance(error, TypeError):
        raise error
    raise NotImplementedError(
        f"kernel {kernel} cannot be read, so that there are values only, in the units of X, and no "
        f"derivatives: {error}"
    ) from error


def _upper(H: np.ndarray) -> np.ndarray:
    """Where the entries a <= b of symmetric matrices are; H is (N, D, D, T)."""
    # As far as can be told from numbers that were computed in one order or another.
    tolerance = 1e-8 * np.abs(H).max(initial=0.0)
    if np.abs(H - H.swapaxes(1, 2)).max(initial=0.0) > tolerance:
        raise ValueError("values of Hessian in observations are not symmetric matrices.")
    return np.broadcast_to(np.triu(np.ones(H.shape[1:3], bool)), H.shape[:3]).copy()


def _elsewhere(kernel: sk.Kernel) -> np.ndarray:
    """Hyperparameters not far from those of a kernel, no two of them changed by the same."""
    return kernel.theta + 0.1 * np.sqrt(np.arange(1, kernel.n_dims + 1))


def _kernel_noise(kernel: sk.Kernel, functionals: Sequence[Functional]) -> np.ndarray:
    """Variances that noise of the kernel adds to values."""
    noise = []
    for functional in functionals:
        part = np.zeros(functional.shape)
        if isinstance(functional, Value | ValueGradient):
            X = functional.X
            values = part if part.ndim == 1 else part[:, 0]
            values += kernels.noise_on_diagonal(kernels.read(kernel, X.shape[1]), X)
        noise.append((part if functional.mask is None else part[functional.mask]).ravel())
    return np.concatenate(noise)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix R with R Rᵀ = covariance, which may be singular, from its unit-diagonal form."""
    scale = np.sqrt(np.maximum(np.einsum("ii->i", covariance), 0.0))
    scale[scale == 0] = 1.0
    values, vectors = _linalg.eigh(covariance / np.multiply.outer(scale, scale))
    return scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
