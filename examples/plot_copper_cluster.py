"""
Energies and forces of a cluster: fewer points than dimensions
==============================================================

A cluster of 13 copper atoms has 39 coordinates. Forces are minus the gradient of the energy and
come for free with it, in any code. Here the energy of a molecular dynamics run at 400 K, by ASE's
effective medium theory, is learned from 20 snapshots 30 fs apart, with and without the forces, and
predicted between them.

With 20 points in 39 dimensions the joint covariance of energies and forces has 800 rows, but all
that the points can tell apart lies in the 19 dimensions that they span: ``solver="auto"`` rotates
into them, which is exact. That counts where there are more atoms.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from _data import copper_cluster
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from kerneldiff import GaussianProcessRegressor

STEP, COUNT = 12, 20
X, energy, gradient = copper_cluster(steps=STEP * COUNT)
femtoseconds = 2.5 * np.arange(len(X))
known = np.arange(0, len(X), STEP)
held_out = np.setdiff1d(np.arange(known[-1]), known)
spread = 1e3 * energy[held_out].std()
print(f"{len(known)} snapshots, {len(held_out)} to predict, spread of energies {spread:.1f} meV")


# %%
# One kernel for all. Forces are known to many digits: the noise only keeps the matrix regular.


def fitted(rows, forces, solver="auto"):
    """Fit to some snapshots, with forces or without."""
    kernel = ConstantKernel(10.0, (1e-2, 1e5)) * RBF(1.0, (1e-1, 1e2))
    model = GaussianProcessRegressor(
        kernel, alpha=1e-8, alpha_gradient=1e-6, normalize_y=True, solver=solver
    )
    return model.fit(X[rows], energy[rows], gradient[rows] if forces else None)


models = {}
for label, rows, forces in [
    ("20 energies and forces", known, True),
    ("20 energies", known, False),
    ("40 energies", known[0] + np.arange(0, len(X), STEP // 2), False),
]:
    start = time.perf_counter()
    model = models[label] = fitted(rows, forces)
    seconds = time.perf_counter() - start
    wrong = 1e3 * (model.predict(X[held_out]) - energy[held_out])
    wrong_force = model.predict_gradient(X[held_out]) - gradient[held_out]
    print(
        f"{label:22s} by {model.solver_:8s} in {seconds:4.1f} s: energies within "
        f"{np.sqrt(np.mean(wrong**2)):5.2f} meV, forces within "
        f"{np.sqrt(np.mean(wrong_force**2)):.3f} eV/Å"
    )

# %%
# The other solver finds the same, as it must.

model = models["20 energies and forces"]
other = GaussianProcessRegressor(
    model.kernel_,
    alpha=1e-8,
    alpha_gradient=1e-6,
    normalize_y=True,
    optimizer=None,
    solver="cholesky",
).fit(X[known], energy[known], gradient[known])
difference = 1e3 * np.abs(other.predict(X) - model.predict(X)).max()
print(f"largest difference to cholesky: {difference:.1e} meV")

# %%
# Energies along the run, and one component of the force on one atom, with two standard deviations.

figure, (upper, lower) = plt.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
column = np.argmax(gradient.std(axis=0))
for label, color in [("20 energies", "C1"), ("20 energies and forces", "C0")]:
    mean, std = models[label].predict(X, return_std=True)
    upper.plot(femtoseconds, mean, color=color, label=label)
    upper.fill_between(
        femtoseconds, mean - 2 * std, mean + 2 * std, color=color, alpha=0.2, linewidth=0
    )
    mean, std = (a[:, column] for a in models[label].predict_gradient(X, return_std=True))
    lower.plot(femtoseconds, -mean, color=color, label=label)
    lower.fill_between(
        femtoseconds, -mean - 2 * std, -mean + 2 * std, color=color, alpha=0.2, linewidth=0
    )
upper.plot(femtoseconds, energy, "k:", label="all energies")
upper.plot(femtoseconds[known], energy[known], "ko", label="snapshots learned from")
lower.plot(femtoseconds, -gradient[:, column], "k:", label="all forces")
lower.plot(femtoseconds[known], -gradient[known, column], "ko")
low, high = energy.min(), energy.max()
upper.set(ylabel="potential energy (eV)", ylim=(2 * low - (low + high) / 2, 1.5 * high - low / 2))
lower.set(xlabel="time (fs)", ylabel=f"force on atom {column // 3} (eV/Å)", ylim=(-2, 2))
upper.legend(ncols=4, loc="upper center")
plt.show()
