"""
A surface from points and normals
=================================

A laser scanner gives points of a surface and, from their neighbours, the normals there. The surface
is looked for as the zero level of a function f: zero at the points, with the normals as its
gradient. Zeros alone would do with f = 0 everywhere; to learn without gradients from anything but
zeros, one has to make up points within and outside, at a distance that is a guess. A Gaussian
process takes the gradients as what they are.

The prior mean is positive, so that all is outside where there are no data (O. Williams and
A. Fitzgibbon, "Gaussian process implicit surfaces", 2007).
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from _data import benzene, naca_section
from sklearn.gaussian_process.kernels import Matern

from kerneldiff import GaussianProcessRegressor

# %%
# The section of a wing
# ---------------------
#
# Sixteen points of the outline of a NACA 4412 airfoil, with normals, and what has to stand in for
# them otherwise: points 1 % of the chord to either side, which does best, with these distances as
# values. They do not tell that f is constant along the outline, and near the trailing edge they lie
# on the wrong side of it.

MEAN = 0.1
kernel = Matern(0.3, nu=2.5)  # in chords
points, normals = naca_section((np.arange(16) + 0.5) / 16)
with_normals = GaussianProcessRegressor(
    kernel, alpha=1e-8, alpha_gradient=1e-4, optimizer=None
).fit(points, np.full(16, -MEAN), normals)

offset = 0.01
beside = np.concatenate([points, points + offset * normals, points - offset * normals])
values = np.repeat([0, offset, -offset], 16) - MEAN
with_offsets = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None).fit(beside, values)

outline, outward = naca_section(np.linspace(0.001, 0.999, 2000))
for name, model in (("normals", with_normals), ("points beside", with_offsets)):
    gradient = model.predict_gradient(outline)
    steepness = np.linalg.norm(gradient, axis=1)
    # To first order, how far the zero level is away; what is lost is lost.
    distance = np.clip((model.predict(outline) + MEAN) / steepness, -0.1, 0.1)
    cosine = np.sum(gradient * outward, axis=1) / steepness
    print(
        f"{name:14s} outline within {1e3 * np.sqrt(np.mean(distance**2)):5.2f} thousandths of the "
        f"chord (RMS), normals within {np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).mean():4.1f}° "
        "(mean)"
    )

# %%
# The functions, and their zero levels.

x, y = np.linspace(-0.12, 1.12, 400), np.linspace(-0.14, 0.2, 130)
grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(2, 1, figsize=(10, 6.1), sharex=True, layout="constrained")
for ax, model, title in zip(
    axes,
    (with_normals, with_offsets),
    ("16 points and normals", "16 points, and 32 made up beside them"),
    strict=True,
):
    f = (model.predict(grid) + MEAN).reshape(len(y), len(x))
    levels = np.linspace(-0.12, 0.12, 25)
    field = ax.contourf(x, y, f, levels, cmap="RdBu_r", extend="both")
    ax.plot(*outline.T, color="black", lw=2.5, alpha=0.35, label="NACA 4412")
    ax.contour(x, y, f, [0], colors="black", linewidths=1.2)
    ax.plot([], [], color="black", lw=1.2, label="zero level of f")
    ax.plot(*points.T, "o", color="#fec44f", markeredgecolor="black", label="points")
    if model is with_normals:
        ax.quiver(*points.T, *normals.T, color="black", width=0.0022, scale=22)
    else:
        ax.plot(*beside[16:].T, ".", color="#fec44f", markeredgecolor="black", markeredgewidth=0.5)
    ax.set(title=title, ylabel="y / chord", aspect="equal", xlim=x[[0, -1]], ylim=y[[0, -1]])
axes[0].legend(loc="upper right", ncols=3)
axes[1].set(xlabel="x / chord")
figure.colorbar(field, ax=axes, label="f, about the distance in chords", shrink=0.8)
plt.show()

# %%
# A molecule
# ----------
#
# In three dimensions it is no different. The van der Waals surface of benzene consists of pieces
# of spheres; 90 points on each sphere are sampled, less those within others.

points, normals = benzene(90)
start = time.perf_counter()
model = GaussianProcessRegressor(
    Matern(2.0, nu=2.5), alpha=1e-6, alpha_gradient=1e-3, optimizer=None
).fit(points, np.full(len(points), -1.0), normals)
others, outward = benzene(997)
gradient = model.predict_gradient(others)
distance = (model.predict(others) + 1) / np.linalg.norm(gradient, axis=1)
print(
    f"{len(points)} points and normals, fitted in {time.perf_counter() - start:.1f} s; "
    f"{len(others)} other points of the surface are within "
    f"{np.sqrt(np.mean(distance**2)):.3f} Å of the zero level (RMS)"
)

# %%
# A view of it, by rays that are followed until they meet the zero level: f, which rises by one in
# an ångström, says how far they can safely go. Light falls on the gradient; the colour is the mean
# curvature, from second derivatives: 1/r on a sphere, and negative in the grooves between atoms.

turned, tilted = np.deg2rad(12), np.deg2rad(52)
across = np.array([np.cos(turned), np.sin(turned), 0])
into = np.array(
    [-np.sin(turned) * np.cos(tilted), np.cos(turned) * np.cos(tilted), -np.sin(tilted)]
)
up = np.cross(across, into)
u, v = np.linspace(-4.4, 4.4, 300), np.linspace(-3.9, 3.9, 266)
screen = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2) @ np.stack([across, up])
position = screen - 6.0 * into
depth = np.zeros(len(screen))
alive = np.arange(len(screen))
for _ in range(60):
    f = model.predict(position[alive]) + 1
    depth[alive] += 0.8 * f
    position[alive] = screen[alive] + (depth[alive, None] - 6.0) * into
    alive = alive[(np.abs(f) > 1e-3) & (depth[alive] < 12)]
seen = depth < 12

gradient = model.predict_gradient(position[seen])
steepness = np.linalg.norm(gradient, axis=1)
normal = gradient / steepness[:, None]
hessian = model.predict_hessian(position[seen])
mean_curvature = (
    np.einsum("naa->n", hessian) - np.einsum("na,nab,nb->n", normal, hessian, normal)
) / (2 * steepness)
light = -0.55 * into + 0.65 * up - 0.45 * across
diffuse = np.clip(normal @ light / np.linalg.norm(light), 0, 1)
halfway = light / np.linalg.norm(light) - into
glint = np.clip(normal @ halfway / np.linalg.norm(halfway), 0, 1) ** 40

figure, axes = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
colors = plt.get_cmap("PuOr_r"), plt.Normalize(-1.2, 1.2)
for ax, base in zip(
    axes, (np.array([0.42, 0.62, 0.78]), colors[0](colors[1](mean_curvature))[:, :3]), strict=True
):
    image = np.ones((len(screen), 3))
    shade = (0.25 + 0.75 * diffuse)[:, None] * base + 0.35 * glint[:, None]
    image[seen] = np.clip(shade, 0, 1)
    ax.imshow(
        image.reshape(len(v), len(u), 3),
        origin="lower",
        extent=(u[0], u[-1], v[0], v[-1]),
        interpolation="bilinear",
    )
    ax.set_axis_off()
facing = normals @ into < -0.1
# Of those that face the view, the ones that nothing hides: they are where their ray ends.
u_of, v_of = points @ across, points @ up
column = np.clip(np.rint((u_of - u[0]) / (u[1] - u[0])), 0, len(u) - 1).astype(int)
row = np.clip(np.rint((v_of - v[0]) / (v[1] - v[0])), 0, len(v) - 1).astype(int)
visible = facing & (points @ into < depth[row * len(u) + column] - 6.0 + 0.15)
axes[0].plot(u_of[visible], v_of[visible], "o", color="#fec44f", markeredgecolor="k", markersize=4)
axes[0].quiver(
    u_of[visible],
    v_of[visible],
    normals[visible] @ across,
    normals[visible] @ up,
    color="black",
    width=0.0025,
    scale=18,
)
axes[0].set_title(f"benzene from {len(points)} points and normals")
axes[1].set_title("its mean curvature, from second derivatives")
figure.colorbar(
    plt.cm.ScalarMappable(colors[1], colors[0]),
    ax=axes[1],
    label="mean curvature (1/Å)",
    shrink=0.8,
)
plt.show()
