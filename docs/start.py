"""The example of the start page, and its picture: ``python docs/start.py FILE.svg``."""

# ruff: noqa: E402
# fmt: off
# begin
import numpy as np
from sklearn.gaussian_process.kernels import Matern

import kerneldiff as kd


def f(x):
    """A function and its slope."""
    return x * np.sin(x), np.sin(x) + x * np.cos(x)


X = np.array([[0.5], [2.6], [5.1], [7.3], [9.2]])
y, dy = f(X)

# Gradients in: dy has the shape of X.
kernel = 10.0 * Matern(2.0, nu=2.5)
gp = kd.GaussianProcessRegressor(
    kernel, alpha=1e-4, alpha_gradient=1e-4
).fit(X, y[:, 0], dy)

# Gradients out, with their uncertainty.
x = np.linspace(0, 10, 300)[:, None]
mean, std = gp.predict(x, return_std=True)
slope, slope_std = gp.predict_gradient(x, return_std=True)
# end
# fmt: on

import sys

import matplotlib
import matplotlib.pyplot as plt

theme = globals().get("THEME", "light")
target = globals().get("TARGET") or (sys.argv[1] if len(sys.argv) > 1 else None)
ink, truth, blue, orange = {
    "light": ("#3b4252", "#222832", "#1f6feb", "#d9730d"),
    "dark": ("#c9d1d9", "#e6edf3", "#6cb6ff", "#f0a868"),
}[theme]
style = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kerneldiff",
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink
    ),
}


def band(ax, mean, std, color, label):
    """Draw a mean and two standard deviations around it."""
    ax.fill_between(x[:, 0], mean - 2 * std, mean + 2 * std, color=color, alpha=0.22, linewidth=0)
    ax.plot(x[:, 0], mean, color=color, label=label, linewidth=2)


with matplotlib.rc_context(style):
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.2, 5.6), sharex=True, height_ratios=[3, 2], layout="constrained"
    )
    # The same kernel, without the slopes.
    values = kd.GaussianProcessRegressor(gp.kernel_, alpha=1e-4, optimizer=None).fit(X, y[:, 0])
    band(upper, *values.predict(x, return_std=True), orange, "learned from 5 values")
    band(upper, mean, std, blue, "learned from 5 values and slopes")
    band(lower, slope[:, 0], slope_std[:, 0], blue, "predicted slope")
    for ax, part in zip((upper, lower), f(x), strict=True):
        ax.plot(x, part, color=truth, linestyle=(0, (2, 2)), linewidth=1.2, label="the truth")
    for at, value, rise in zip(X[:, 0], y[:, 0], dy[:, 0], strict=True):
        half = 0.45 / np.hypot(1, rise / 4)
        ends = np.array([-half, half])
        upper.plot(at + ends, value + rise * ends, color=truth, linewidth=2.5, zorder=4)
    upper.plot(X, y, "o", color=truth, markersize=6, zorder=5)
    lower.plot(X, dy, "o", color=truth, markersize=6, zorder=5)
    upper.set(ylabel="f(x)", ylim=(-12, 18), xlim=(0, 10))
    lower.set(ylabel="f ′(x)", xlabel="x", ylim=(-13, 16))
    upper.legend(loc="upper right", ncols=1)
    lower.legend(loc="upper right", ncols=2)
    if target is None:
        plt.show()
    else:
        figure.savefig(target, transparent=True, metadata={"Date": None})
        plt.close(figure)
