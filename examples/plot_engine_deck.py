"""
Engine deck: two outputs with all their derivatives
===================================================

The deck of a turbofan gives thrust and fuel consumption for Mach number, altitude and throttle, on
a grid of 1056 points, with all six derivatives. One regressor learns both outputs at once: targets
are the columns of ``y``, and ``dy`` has the shape (N, 2, 3).

Values and derivatives of a table need not agree to the last digit. Their noise is therefore
learned: `GradientWhiteKernel` is to gradients what ``WhiteKernel`` is to values.
"""

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
from _data import engine_deck
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from kerneldiff import GaussianProcessRegressor, GradientWhiteKernel

# Noise at its lower bound, and searches that end at the rounding of the likelihood, are nothing to
# be warned of.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

X, y, dy = engine_deck()
# Thrust in 100 kN, and the logarithm of the consumption, which spans a factor of eight.
consumption = y[:, 1]
y = np.column_stack([y[:, 0] / 1e5, np.log(consumption)])
dy = np.stack([dy[:, 0] / 1e5, dy[:, 1] / consumption[:, None]], axis=1)
names = ["thrust", "logarithm of the consumption"]


def fitted(rows, gradients):
    """Fit to some points, with their gradients or without."""
    kernel = ConstantKernel(10.0, (1e-2, 1e5)) * Matern(np.full(3, 3.0), (1e-1, 1e3), nu=2.5)
    kernel += WhiteKernel(1e-4, (1e-6, 1.0))
    if gradients:
        kernel += GradientWhiteKernel(1e-3, (1e-6, 1e2))
    model = GaussianProcessRegressor(kernel, normalize_y=True, scale_X=True)
    return model.fit(X[rows], y[rows], dy[rows] if gradients else None)


# %%
# Errors at points that were not learned from, over the standard deviation of each output, for
# growing numbers of points; means of five splits.

sizes = [25, 50, 100, 200]
errors = {}
for gradients in (True, False):
    for size in sizes:
        each = []
        for split in range(5):
            order = np.random.default_rng(split).permutation(len(X))
            rows, held_out = order[:size], order[400:]
            residual = fitted(rows, gradients).predict(X[held_out]) - y[held_out]
            each.append(np.sqrt(np.mean(residual**2, axis=0)) / y.std(axis=0))
        errors[gradients, size] = np.mean(each, axis=0)
        kind = "with   " if gradients else "without"
        print(
            f"{size:4d} points {kind} gradients: {names[0]} {errors[gradients, size][0]:.4f}, "
            f"{names[1]} {errors[gradients, size][1]:.4f}"
        )

# %%
# Fuel consumption against the throttle, at Mach 0.8 and an altitude of 10.7 km, from 50 points.

rows = np.random.default_rng(0).permutation(len(X))[:50]
line = np.column_stack([np.full(100, 0.8), np.full(100, 10.668), np.linspace(0.05, 1, 100)])
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for k, style in enumerate(["-", "--"]):
    for gradients, color in [(True, "C0"), (False, "C1")]:
        label = f"{names[k]}, {'with' if gradients else 'without'} gradients"
        left.loglog(
            sizes,
            [100 * errors[gradients, n][k] for n in sizes],
            "o" + style,
            color=color,
            label=label,
        )
percent = [1, 2, 5, 10, 20]
left.set(xlabel="points", ylabel="error (per cent of the standard deviation)")
left.set(xticks=sizes, xticklabels=sizes, yticks=percent, yticklabels=percent)
left.minorticks_off()
left.legend()
for gradients, color in [(False, "C1"), (True, "C0")]:
    mean, std = fitted(rows, gradients).predict(line, return_std=True)
    label = f"50 points, {'with' if gradients else 'without'} gradients"
    right.plot(line[:, 2], np.exp(mean[:, 1]) * 1e4, color=color, label=label)
    low, high = (1e4 * np.exp(mean[:, 1] + c * std[:, 1]) for c in (-2, 2))
    right.fill_between(line[:, 2], low, high, color=color, alpha=0.2, linewidth=0)
on_line = np.isclose(X[:, 0], 0.8) & np.isclose(X[:, 1], 10.668)
right.plot(X[on_line, 2], 1e4 * consumption[on_line], "ko", label="deck")
right.set(xlabel="throttle", ylabel="fuel consumption (10⁻⁴ N/N/s)", ylim=(0, 5))
right.set_title("Mach 0.8, altitude 10.7 km")
right.legend()
plt.show()
