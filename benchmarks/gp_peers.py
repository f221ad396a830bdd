"""Gaussian process regression by several libraries, with the same kernel, noise and data.

The kernel is a constant times the RBF with a length scale for each column; noise is learned, that
of gradients too. All run in float64. The work is

================  ==================================================================================
work              call
================  ==================================================================================
``likelihood``    the log marginal likelihood and its gradient by all hyperparameters
``fit``           a whole fit by L-BFGS-B from the same start
``predict``       mean and standard deviation of values at new points
================  ==================================================================================

of values, or of values and gradients (``likelihood`` only).

GPyTorch's path is the one by Cholesky factors, with the gradient by automatic differentiation; it
learns one noise for values and gradients, we learn two. "Cholesky and inverse" is no likelihood: it
is what LAPACK takes for the two that none of these can do without, in place, in a matrix of the
same size.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Hyperparameters of all: squared amplitude, noise of values and of gradients.
AMPLITUDE, NOISE, GRADIENT_NOISE = 1.3, 1e-2, 1e-2


@dataclass(frozen=True)
class Inputs:
    """Data of a regression.

    Attributes
    ----------
    X : ndarray of shape (N, D)
    y : ndarray of shape (N,)
    dy : ndarray of shape (N, D) or None
    X_test : ndarray of shape (M, D)
    scales : ndarray of shape (D,)
        Length scales.
    """

    X: np.ndarray
    y: np.ndarray
    dy: np.ndarray | None
    X_test: np.ndarray
    scales: np.ndarray


def make_inputs(n, d, *, gradients=False, m=0, seed=0):
    """Make standard normal points and noisy values, and gradients, of a smooth function.

    Parameters
    ----------
    n, d : int
        Number of points and of columns.
    gradients : bool, default=False
    m : int, default=0
        Number of new points.
    seed : int, default=0

    Returns
    -------
    Inputs
    """
    rng = np.random.default_rng(seed)
    X, X_test = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    directions = rng.standard_normal((d, 2)) / np.sqrt(d)
    phases = X @ directions
    y = np.sin(2 * phases[:, 0]) + 0.5 * phases[:, 1] ** 2
    y += np.sqrt(NOISE) * rng.standard_normal(n)
    dy = None
    if gradients:
        slopes = np.column_stack([2 * np.cos(2 * phases[:, 0]), phases[:, 1]])
        dy = slopes @ directions.T + np.sqrt(GRADIENT_NOISE) * rng.standard_normal((n, d))
    scales = np.sqrt(d) * np.linspace(0.8, 1.2, d)
    return Inputs(X, y, dy, X_test, scales)


def make_kernel(inputs):
    """Make the kernel for scikit-learn and for us.

    Parameters
    ----------
    inputs : Inputs

    Returns
    -------
    sklearn.gaussian_process.kernels.Kernel
    """
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(AMPLITUDE) * RBF(inputs.scales) + WhiteKernel(NOISE)
    if inputs.dy is not None:
        from kerneldiff import GradientWhiteKernel

        kernel += GradientWhiteKernel(GRADIENT_NOISE)
    return kernel


def _estimator(inputs, *, ours, optimizer=None):
    """Make the regressor, and what it is fitted to."""
    if ours:
        from kerneldiff import GaussianProcessRegressor

        slopes = () if inputs.dy is None else (inputs.dy,)
    else:
        from sklearn.gaussian_process import GaussianProcessRegressor

        slopes = ()
    model = GaussianProcessRegressor(make_kernel(inputs), optimizer=optimizer)
    return model, (inputs.X, inputs.y, *slopes)


def _sklearn_call(work, inputs, *, ours=False):
    if work == "fit":

        def fit():
            model, data = _estimator(inputs, ours=ours, optimizer="fmin_l_bfgs_b")
            return model.fit(*data)

        return fit
    model, data = _estimator(inputs, ours=ours)
    model.fit(*data)
    if work == "predict":
        return lambda: model.predict(inputs.X_test, return_std=True)
    theta = model.kernel_.theta
    return lambda: model.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)


def _our_call(work, inputs):
    return _sklearn_call(work, inputs, ours=True)


def _gpytorch_call(work, inputs):
    import gpytorch
    import torch

    if work != "likelihood":
        return None
    n, d = inputs.X.shape
    X, y = torch.from_numpy(inputs.X), torch.from_numpy(inputs.y)
    if inputs.dy is None:
        base, likelihood = gpytorch.kernels.RBFKernel, gpytorch.likelihoods.GaussianLikelihood()
        mean, distribution = torch.zeros(n), gpytorch.distributions.MultivariateNormal
    else:
        base = gpytorch.kernels.RBFKernelGrad
        likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(
            num_tasks=1 + d, has_task_noise=False
        )
        y = torch.from_numpy(np.column_stack([inputs.y, inputs.dy]))
        mean = torch.zeros(n, 1 + d)
        distribution = gpytorch.distributions.MultitaskMultivariateNormal
    mean = mean.double()

    class Model(gpytorch.models.ExactGP):
        def __init__(self, kernel):
            super().__init__(X, y, likelihood)
            self.kernel = kernel

        def forward(self, x):
            return distribution(mean, self.kernel(x))

    model = Model(gpytorch.kernels.ScaleKernel(base(ard_num_dims=d))).double()
    model.kernel.outputscale = torch.tensor(AMPLITUDE, dtype=torch.float64)
    model.kernel.base_kernel.lengthscale = torch.from_numpy(inputs.scales)
    likelihood.double().noise = torch.tensor(NOISE, dtype=torch.float64)
    model.train()
    likelihood.train()
    size = n if inputs.dy is None else n * (1 + d)

    def call():
        model.zero_grad()
        with (
            gpytorch.settings.max_cholesky_size(size + 1),
            gpytorch.settings.fast_computations(False, False, False),
        ):
            value = likelihood(model(X)).log_prob(y)
            value.backward()
        # By softplus, gradients are those of the raw parameters: the same amount of work.
        return value.item(), None

    return call


def _lapack_call(work, inputs):
    from scipy.linalg import lapack

    if work != "likelihood":
        return None
    n, d = inputs.X.shape
    size = n if inputs.dy is None else n * (1 + d)
    # The identity is its own factor and its own inverse: it can be taken again and again.
    identity = np.asfortranarray(np.eye(size))

    def call():
        lapack.dpotrf(identity, lower=1, clean=0, overwrite_a=1)
        lapack.dpotri(identity, lower=1, overwrite_c=1)

    return call


@dataclass(frozen=True)
class Implementation:
    """A library.

    Attributes
    ----------
    name : str
    module : str
        What has to be installed.
    gradients : bool
        Whether it learns from gradients.
    make : callable
        Takes a work and `Inputs`, returns a function without arguments, or None for a work that it
        does not do here.
    """

    name: str
    module: str
    gradients: bool
    make: Callable

    @property
    def installed(self):
        """Whether it can be used."""
        return importlib.util.find_spec(self.module) is not None


OURS = Implementation("kerneldiff", "kerneldiff", True, _our_call)
SKLEARN = Implementation("scikit-learn", "sklearn", False, _sklearn_call)
GPYTORCH = Implementation("GPyTorch", "gpytorch", True, _gpytorch_call)
LAPACK = Implementation("Cholesky and inverse", "scipy", True, _lapack_call)
IMPLEMENTATIONS = (OURS, SKLEARN, GPYTORCH, LAPACK)
