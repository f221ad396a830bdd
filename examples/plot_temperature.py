"""
The course of a year by tanh functions
======================================

How warm is it in Seattle on each day of the year? Three functions tanh(a t + b) and a constant draw
the curve, if their slopes a and biases b are found along with the coefficients: one to go up, one
to go down, and one for what is not symmetric. `TanhRegressor` finds them; of more functions it
makes a better curve, which can be differentiated.

The temperatures are means of the hours of each day in data of the NOAA that come with
``vega_datasets``; they are normals of many years, so that the curve is smooth.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from _data import seattle

from kerneldiff import TanhRegressor, tanh_basis, tanh_jacobian
from kerneldiff.plot import JacobianDisplay

day, temperature = seattle()
X = day[:, None]
models = {}
for n in (3, 10):
    models[n] = TanhRegressor(
        n_components=n, alpha=0.1, tol=1e-6, max_iter=1000, n_restarts=9, random_state=0
    ).fit(X, temperature)
    residual = models[n].predict(X) - temperature
    print(
        f"{n:2d} functions: within {np.sqrt(np.mean(residual**2)):.3f} °C (RMS), "
        f"R² = {models[n].score(X, temperature):.4f}, {models[n].n_iter_} iterations from the best "
        "of 10 starts"
    )

# %%
# The three functions, times their coefficients, and their sum.

blue, orange, green = "#0072b2", "#d55e00", "#009e73"
three = models[3]
parts = three.coef_ * tanh_basis(X, three.weights_)
centers = -three.weights_[1] / three.weights_[0]
order = np.argsort(centers)
months = np.array([1, 32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335])


def name_months(ax):
    """Write the names of the months below an axis of days."""
    ax.set_xticks(months, list("JFMAMJJASOND"))
    for label in ax.get_xticklabels():
        label.set_horizontalalignment("left")
    ax.set(xlim=(1, 365))
    ax.grid(alpha=0.3)


figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(9, 7), height_ratios=(3, 1), sharex=True, layout="constrained"
)
upper.plot(day, temperature, "o", color="0.75", markersize=4, label="mean of the day")
upper.plot(day, three.predict(X), color="black", lw=1.8, label="constant and three functions")
upper.axhline(three.intercept_, color="black", lw=0.8, ls=":", label="the constant")
for k, color in zip(order, (blue, orange, green), strict=True):
    slope = three.weights_[0, k]
    height = np.sign(slope) * three.coef_[k]  # tanh is odd
    sign = "−" if height < 0 else "+"
    upper.plot(
        day,
        three.intercept_ + parts[:, k],
        color=color,
        lw=1.4,
        label=f"constant {sign} {abs(height):.1f} tanh({abs(slope):.3f} (t − {centers[k]:.0f}))",
    )
upper.set(ylabel="temperature (°C)")
upper.legend(loc="upper left", fontsize="small")
for n, color in ((3, "black"), (10, "#cc79a7")):
    lower.plot(day, temperature - models[n].predict(X), color=color, lw=1, label=f"{n} functions")
lower.axhline(0, color="0.5", lw=0.5)
lower.set(ylabel="left over (°C)", xlabel="month")
lower.legend(ncols=2, loc="upper left", fontsize="small")
name_months(lower)
upper.grid(alpha=0.3)
plt.show()

# %%
# How fast it gets warmer is the derivative of the sum. What the data alone say is the difference of
# a week later and a week before.

fine = np.linspace(8, 358, 1401)
rates = {n: model.predict_gradient(fine[:, None])[:, 0] for n, model in models.items()}
week = np.arange(7, 358)
differences = (temperature[week + 7] - temperature[week - 7]) / 14
for n, model in models.items():
    off = model.predict_gradient(X[week])[:, 0] - differences
    print(f"{n:2d} functions: rate within {1e3 * np.sqrt(np.mean(off**2)):.1f} mK/day (RMS)")


def date(t):
    """Day of the year as a date."""
    return f"{np.datetime64('2010-01-01') + int(np.rint(t)) - 1:}"[5:]


ten = rates[10]
turn = fine[1:][(ten[1:] <= 0) & (ten[:-1] > 0)]
print(f"fastest warming {ten.max():.3f} °C/day on {date(fine[ten.argmax()])} (month-day)")
print(f"fastest cooling {ten.min():.3f} °C/day on {date(fine[ten.argmin()])}")
print(f"warmest on {date(turn[-1])}")

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.plot(
    day[week], differences, "o", color="0.75", markersize=3.5, label="differences over two weeks"
)
ax.plot(fine, rates[3], color="black", lw=1.5, label="derivative of three functions")
ax.plot(fine, rates[10], color="#cc79a7", lw=1.8, label="derivative of ten functions")
ax.axhline(0, color="0.5", lw=0.8)
ax.set(ylabel="change of the temperature (°C/day)", xlabel="month")
ax.legend(loc="lower left")
name_months(ax)
plt.show()

# %%
# What the fit goes by
# --------------------
#
# The derivatives of a function by its slope, :math:`t \, (1 - \tanh^2)`, and by its bias,
# :math:`1 - \tanh^2`. They are large where the function rises: only there do the data say something
# about its weights. At the best fit the residuals are orthogonal to all of them, times their
# coefficients.

jacobian = tanh_jacobian(X, three.weights_)
residual = three.predict(X) - temperature
slopes = np.einsum("n,ndk,k->dk", residual, jacobian, three.coef_)
largest = np.linalg.norm(jacobian * three.coef_, axis=0) * np.linalg.norm(residual)
print(f"largest cosine of residuals and derivatives: {np.abs(slopes / largest).max():.1e}")

display = JacobianDisplay.from_estimator(
    three, X, feature_names=["day of the year"], margin=0.0, components=order
)
display.figure_.set_size_inches(9, 8)
plt.show()
