"""
Bayesian optimisation with gradients: where does an atom sit?
=============================================================

A platinum atom on a surface of aluminium, some of whose atoms are copper and nickel, has sixteen
hollows to sit in, all of them different. The deepest is sought by as few calculations as possible.
A calculation puts the atom somewhere above the cell, lets it sink, and gives its energy and the
forces on it, here by ASE's effective medium theory; with a quantum-mechanical method it would take
hours. Forces come along for nothing, so the Gaussian process learns from both. At the height where
the vertical force is zero, the horizontal force is minus the gradient of the energy as a function
of the two other coordinates alone (the envelope theorem).

The cell repeats itself, and so does the model: a product of periodic kernels, one for each column.
"""

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from matplotlib.collections import LineCollection
from scipy.optimize import minimize
from scipy.special import erfcx
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import ConstantKernel, ExpSineSquared

from kerneldiff import Columns, GaussianProcessRegressor, numerical_jacobian

slab = fcc111("Al", (2, 4, 2), vacuum=8.0, periodic=True, orthogonal=True)
cell = slab.cell.lengths()[:2]
slab.positions[:, :2] += cell / 8  # no atom on an edge of the picture
slab.wrap()
height = slab.positions[:, 2].max()
upper = np.flatnonzero(slab.positions[:, 2] > height - 0.1)
slab.symbols[upper[[2, 4]]] = "Cu"
slab.symbols[upper[6]] = "Ni"
atoms = slab + Atoms("Pt", positions=[[0.0, 0.0, height]])
atoms.calc = EMT()


def calculate(point):
    """Energy in eV with the atom at (x, y), sunk as deep as it goes, and its gradient in eV/Å."""

    def upward(z):
        atoms.positions[-1] = [*point, z]
        return atoms.get_forces()[-1, 2]

    z, force = height + 1.8, upward(height + 1.8)
    step = np.clip(force / 8, -0.1, 0.1)
    while abs(step) > 1e-5:  # the secant method, with steps of at most 0.3 Å
        before, z = force, z + step
        force = upward(z)
        step = np.clip(-step * force / (force - before), -0.3, 0.3)
    return atoms.get_potential_energy(), -atoms.get_forces()[-1, :2]


# %%
# What is maximised to choose the next point is the expected improvement over the lowest energy so
# far, in its logarithm, which has a slope where the improvement itself has rounded to nothing
# (Ament et al., Unexpected improvements to expected improvement, 2023). With mean :math:`\mu`,
# standard deviation :math:`\sigma`, :math:`z = (f_{\min} - \mu) / \sigma`, the normal density
# :math:`\varphi` and its integral :math:`\Phi`,
#
# .. math::
#    \log \mathrm{EI} = \log \sigma + \log(\varphi(z) + z \Phi(z)), \qquad
#    \nabla \log \mathrm{EI} = \frac{\nabla\sigma}{\sigma}
#    - \frac{\Phi(z)}{\varphi(z) + z \Phi(z)} \cdot \frac{\nabla\mu + z \nabla\sigma}{\sigma}.
#
# The gradients of mean and standard deviation are those that ``predict`` returns. Beyond its
# bounds z is cut off: there is nothing to gain, or nothing to lose.


def log_improvement(model, lowest, points):
    """Logarithm of the expected improvement, (N,), and its gradients, (N, 2)."""
    mean, std, mean_grad, std_grad = model.predict(
        points, return_std=True, return_mean_grad=True, return_std_grad=True
    )
    std = np.maximum(std, 1e-9)
    z = np.clip((lowest - mean) / std, -1e5, 30.0)
    mills = np.sqrt(np.pi / 2) * erfcx(-z / np.sqrt(2))  # Phi(z) / phi(z)
    value = np.log(std / np.sqrt(2 * np.pi)) - z**2 / 2 + np.log1p(z * mills)
    slope = mills / (1 + z * mills)
    gradient = std_grad - slope[:, None] * (mean_grad + z[:, None] * std_grad)
    return value, np.nan_to_num(gradient / std[:, None])


def fitted(points, energies, gradients):
    """Fit to what was calculated; gradients may be None."""
    kernel = ConstantKernel(1.0, (0.1, 100.0))
    for column, period in enumerate(cell):
        wave = ExpSineSquared(0.4, period, (0.1, 2.0), periodicity_bounds="fixed")
        kernel = kernel * Columns(wave, [column])
    model = GaussianProcessRegressor(kernel, alpha=1e-6, alpha_gradient=1e-5, normalize_y=True)
    return model.fit(points, energies, gradients)


def best_point(model, lowest, rng):
    """Climb from the three best of 200 random points; the paths, the best of them last."""
    random = rng.uniform(size=(200, 2)) * cell
    starts = random[np.argsort(log_improvement(model, lowest, random)[0])[-3:]]
    ends = []
    for start in starts:
        path = [start]

        def downhill(point):
            value, gradient = log_improvement(model, lowest, point[None])
            return -value[0], -gradient[0]

        result = minimize(
            downhill,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=lambda point, path=path: path.append(point),
            options={"ftol": 1e-6},
        )
        ends.append((-result.fun, np.array(path)))
    ends.sort(key=lambda end: end[0])
    return [path for _, path in ends]


# %%
# Ten searches, each from three random points, half of them without the gradients. A length scale
# at its bound after so few points is nothing to be warned of. The answer, for comparison, is found
# by going down from all sixteen hollows.

warnings.filterwarnings("ignore", category=ConvergenceWarning)


def search(seed, with_gradients, count=16):
    """Points, energies and gradients of a search, and what it knew after twelve points."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(size=(3, 2)) * cell
    energies, gradients = map(np.array, zip(*map(calculate, points), strict=True))
    while len(points) < count:
        model = fitted(points, energies, gradients if with_gradients else None)
        paths = best_point(model, energies.min(), rng)
        if len(points) == 12:
            shown = model, paths, points, energies, gradients
        point = paths[-1][-1] % cell
        energy, gradient = calculate(point)
        points = np.vstack([points, point])
        energies = np.append(energies, energy)
        gradients = np.vstack([gradients, gradient])
    return energies, shown


spacing = cell[0] / 2
hollows = np.vstack(
    [slab.positions[upper, :2] + [spacing / 2, sign * spacing / 12**0.5] for sign in (1, -1)]
)
downs = [minimize(calculate, hollow, jac=True, tol=1e-4) for hollow in hollows]
depths = np.sort([down.fun for down in downs])
print("hollows above the deepest:", *(f"{1e3 * (e - depths[0]):.0f}" for e in depths), "meV")

searches = {kind: [search(seed, kind) for seed in range(5)] for kind in (True, False)}
for kind, label in [(True, "with gradients"), (False, "without")]:
    missed = [1e3 * (energies.min() - depths[0]) for energies, _ in searches[kind]]
    print(f"{label:15s} after 16 points:", *(f"{m:.0f}" for m in missed), "meV above the deepest")

# %%
# The analytic gradient of what is maximised agrees with numerical differentiation.

model, paths, points, energies, gradients = searches[True][0][1]
somewhere = np.array([1.0, 2.0])
numerical = numerical_jacobian(
    lambda x: log_improvement(model, energies.min(), x[None])[0][0], somewhere
)
exact = log_improvement(model, energies.min(), somewhere[None])[1][0]
print(f"gradient {exact}, off by {np.abs(exact - numerical).max():.1e}")

# %%
# One step of the first search: the posterior mean after twelve points and the forces that it
# learned from, over the atoms of the surface, with a cross in the deepest hollow; what is
# maximised, the paths up to its maxima, and the next point. On the right, all searches.

x, y = (np.linspace(0, length, 100) for length in cell)
grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
mean = model.predict(grid)
value = log_improvement(model, energies.min(), grid)[0]
figure, axes = plt.subplots(1, 3, figsize=(12, 5.5), layout="constrained", width_ratios=[1, 1, 1.5])
panels = [
    (mean - energies.min(), np.arange(-0.1, 0.95, 0.05), "viridis", "mean above the lowest (eV)"),
    (value, np.arange(-10, -1.2, 0.25), "magma", "log of expected improvement"),
]
for ax, (field, levels, colors, label) in zip(axes, panels, strict=False):
    image = ax.contourf(x, y, field.reshape(100, 100), levels, cmap=colors, extend="both")
    figure.colorbar(image, ax=ax, location="bottom", label=label, ticks=levels[::4])
    ax.plot(*points.T, "o", color="white", markeredgecolor="black", zorder=3)
    ax.set(aspect="equal", xlim=(0, cell[0]), ylim=(0, cell[1]), xlabel="x (Å)", ylabel="y (Å)")
corners = [[i, j] * cell for i in (-1, 0, 1) for j in (-1, 0, 1)]
for index in upper:
    for corner in slab.positions[index, :2] + corners:
        axes[0].add_patch(plt.Circle(corner, 0.75, fill=False, color="0.8", alpha=0.7))
        axes[0].text(
            *corner, slab.symbols[index], color="0.9", ha="center", va="center", clip_on=True
        )
axes[0].quiver(*points.T, *-gradients.T, color="white", angles="xy", scale=6, width=0.015, zorder=2)
axes[0].plot(
    *hollows[np.argmin([down.fun for down in downs])] % cell, "x", color="red", markersize=9
)
axes[0].set_title("twelve points and forces")
axes[1].add_collection(LineCollection(paths, color="cyan"))
axes[1].plot(*paths[-1][-1], "*", color="cyan", markersize=18)
axes[1].set_title("the next point")
for kind, color, label in [(True, "C0", "with gradients"), (False, "C1", "without")]:
    lowest = [1e3 * (np.minimum.accumulate(e) - depths[0]) for e, _ in searches[kind]]
    counts = np.arange(1, len(lowest[0]) + 1)
    axes[2].plot(counts, np.transpose(lowest), color=color, alpha=0.35, linewidth=1)
    axes[2].plot(counts, np.mean(lowest, axis=0), color=color, linewidth=3, label=label)
axes[2].set(xlabel="calculations", ylabel="lowest energy above the deepest hollow (meV)", ylim=0)
axes[2].set_title("five searches each, and their means")
axes[2].legend()
plt.show()
