"""Posteriors of GPyTorch's kernels with gradients, for test_gp_oracles.py.

Makes gpytorch.npz beside this file. Run with torch 2.13.0 and gpytorch 1.15.2, which no test needs:

    python make_gpytorch.py

Noise is equal for values and gradients, as GPyTorch needs it; all numbers are float64, the length
scales too, which a plain Python list would make float32.
"""

from pathlib import Path

import gpytorch
import numpy as np
import torch

NOISE = 1e-4
OUTPUT_SCALE = 1.7
# Name: kernel, length scales, training points, points of prediction.
CASES = {
    "rbf": (gpytorch.kernels.RBFKernelGrad, [0.9], 14, 7),
    "rbf-ard": (gpytorch.kernels.RBFKernelGrad, [0.6, 1.1, 2.0], 12, 6),
    "matern": (gpytorch.kernels.Matern52KernelGrad, [1.2], 14, 7),
    "matern-ard": (gpytorch.kernels.Matern52KernelGrad, [0.8, 1.4, 2.5], 12, 6),
}


class Model(gpytorch.models.ExactGP):
    """Values and gradients with mean zero."""

    def __init__(self, X, Y, likelihood, kernel):
        super().__init__(X, Y, likelihood)
        self.kernel = kernel

    def forward(self, x):
        mean = torch.zeros(len(x), 1 + x.shape[1], dtype=x.dtype)
        return gpytorch.distributions.MultitaskMultivariateNormal(mean, self.kernel(x))


def function(X):
    """A smooth function of D columns and its gradient."""
    slopes = np.linspace(0.7, 1.6, X.shape[1])
    value = np.sin(X @ slopes) + 0.3 * X[:, 0] ** 2
    gradient = np.cos(X @ slopes)[:, None] * slopes
    gradient[:, 0] += 0.6 * X[:, 0]
    return value, gradient


def case(base, scales, n, m, seed):
    """Data, posterior, log likelihood and its gradient by the logarithms of hyperparameters."""
    d = max(len(scales), 2)
    rng = np.random.default_rng(seed)
    X, X_test = rng.uniform(-2, 2, size=(n, d)), rng.uniform(-2, 2, size=(m, d))
    y, dy = function(X)
    targets = torch.tensor(np.column_stack([y, dy]))
    kernel = base(ard_num_dims=d if len(scales) > 1 else None)
    kernel = gpytorch.kernels.ScaleKernel(kernel).double()
    likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(
        num_tasks=1 + d,
        has_task_noise=False,
        noise_constraint=gpytorch.constraints.GreaterThan(1e-8),
    ).double()
    model = Model(torch.tensor(X), targets, likelihood, kernel)
    kernel.outputscale = torch.tensor(OUTPUT_SCALE, dtype=torch.float64)
    kernel.base_kernel.lengthscale = torch.tensor(scales, dtype=torch.float64)
    likelihood.noise = torch.tensor(NOISE, dtype=torch.float64)

    model.train()
    likelihood.train()
    value = likelihood(model(torch.tensor(X))).log_prob(targets)
    value.backward()
    gradient = [
        # d/d log p = p dr/dp d/dr of the raw parameter r, with p = softplus(r).
        (raw.grad * p.detach() / torch.sigmoid(raw.detach())).numpy().ravel()
        for raw, p in [
            (kernel.raw_outputscale, kernel.outputscale),
            (kernel.base_kernel.raw_lengthscale, kernel.base_kernel.lengthscale),
        ]
    ]
    model.eval()
    with torch.no_grad():
        posterior = model(torch.tensor(X_test))
        return {
            "X": X,
            "y": y,
            "dy": dy,
            "X_test": X_test,
            "length_scale": np.array(scales),
            "output_scale": np.array(OUTPUT_SCALE),
            "noise": np.array(NOISE),
            "mean": posterior.mean.numpy(),
            "cov": posterior.covariance_matrix.numpy(),
            "log_likelihood": np.array(value.item()),
            "log_likelihood_gradient": np.concatenate(gradient),
        }


def main():
    """Write all cases into one file."""
    arrays = {}
    # Cholesky factors throughout, no Lanczos or conjugate gradients.
    with (
        gpytorch.settings.max_cholesky_size(10**6),
        gpytorch.settings.fast_computations(
            covar_root_decomposition=False, log_prob=False, solves=False
        ),
    ):
        for seed, (name, (base, scales, n, m)) in enumerate(CASES.items()):
            for key, array in case(base, scales, n, m, seed).items():
                arrays[f"{name}/{key}"] = array
    np.savez_compressed(Path(__file__).with_name("gpytorch.npz"), **arrays)


if __name__ == "__main__":
    main()
