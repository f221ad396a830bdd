"""
How fast does CO2 grow? Derivatives of a noisy series
=====================================================

The concentration of CO2 at Mauna Loa is a trend, a season and noise. What one wants to know is how
fast the trend rises at any time, and how well that is known: the derivative of a part of the
process, from values alone.

Time enters twice, as the time of the trend and as the time of the season. They are equal for all
data, but a kernel can use either, by `Columns`, and a partial derivative is taken by one of them:
that by the first is the growth at a fixed season.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from _data import mauna_loa
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    ExpSineSquared,
    Matern,
    WhiteKernel,
)

from kerneldiff import Columns, GaussianProcessRegressor, Value

t, y = mauna_loa()
X = np.column_stack([t, t])
trend = ConstantKernel(2500.0, (1e2, 1e6)) * RBF(40.0, (5.0, 300.0))
years = ConstantKernel(0.5, (1e-3, 1e2)) * Matern(1.5, (0.3, 10.0), nu=2.5)
fading = ConstantKernel(4.0, (1e-1, 1e2)) * RBF(90.0, (10.0, 1e3))
season = ExpSineSquared(1.3, 1.0, periodicity_bounds="fixed")
kernel = (
    Columns(trend + years, [0])
    + Columns(fading, [0]) * Columns(season, [1])
    + WhiteKernel(0.05, (1e-4, 1.0))
)

start = time.perf_counter()
model = GaussianProcessRegressor(kernel, alpha=0.0).fit(X, y - y.mean())
print(f"{len(t)} months, fitted in {time.perf_counter() - start:.1f} s")
print(model.kernel_)

# %%
# Growth at a fixed season, with its standard deviation. Beside it stands the growth over one year,
# f(t + 1/2) - f(t - 1/2), in which the season cancels; its uncertainty takes the joint covariance.

fine = np.linspace(0.5, t[-1] - 0.5, 1500)
mean, std = model.predict_gradient(np.column_stack([fine, fine]), return_std=True)
growth, growth_std = mean[:, 0], std[:, 0]
centres = np.arange(1, 43) + 0.5
ends = np.concatenate([centres - 0.5, centres + 0.5])
joint, cov = model.predict_functional(Value(np.column_stack([ends, ends])), return_cov=True)
# Both ends have the noise of the kernel, which is no growth.
noise = np.exp(model.kernel_.theta[-1])
difference = np.hstack([-np.eye(len(centres)), np.eye(len(centres))])
yearly = difference @ joint
yearly_std = np.sqrt(np.diag(difference @ (cov - noise * np.eye(len(ends))) @ difference.T))
for year in (1964, 1973, 1983, 1987, 1992, 1998):
    i = np.argmin(np.abs(centres + 1958 - year - 0.5))
    j = np.argmin(np.abs(fine + 1958 - year - 0.5))
    print(
        f"{year}: {yearly[i]:.2f} ± {2 * yearly_std[i]:.2f} ppm in the year, "
        f"{growth[j]:.2f} ± {2 * growth_std[j]:.2f} ppm/year in its middle"
    )

# %%
# The growth accelerates, and has peaks in the years of strong El Niño events.

figure, (upper, lower) = plt.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
upper.plot(1958 + t, y, ".", markersize=3, color="0.5", label="monthly means")
upper.plot(
    1958 + fine, model.predict(np.column_stack([fine, fine])) + y.mean(), lw=0.8, label="model"
)
upper.set(ylabel="CO$_2$ (ppm)")
upper.legend()
lower.fill_between(
    1958 + fine, growth - 2 * growth_std, growth + 2 * growth_std, alpha=0.25, linewidth=0
)
lower.plot(1958 + fine, growth, label="growth at a fixed season")
lower.errorbar(
    1958 + centres, yearly, 2 * yearly_std, fmt="k.", capsize=2, lw=1, label="growth in a year"
)
for event in (1972.9, 1983.0, 1987.6, 1998.0):
    lower.axvline(event, color="C3", lw=0.8, ls="--", label="El Niño" if event < 1973 else None)
lower.axhline(0, color="k", lw=0.5)
lower.set(xlabel="year", ylabel="growth of CO$_2$ (ppm/year)")
lower.legend(ncols=3, loc="upper left")
plt.show()
