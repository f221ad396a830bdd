"""
Slope and curvature of terrain from scattered points
====================================================

Elevations along the Jacksboro fault in Tennessee are known on a grid of 344 × 403 points. Suppose
that a survey had measured a quarter of them, here and there. `RBFInterpolator` interpolates these
with few neighbours at a time, as SciPy's does, and also has the derivatives of what it interpolates
with: slopes and curvatures come without a grid, and without differences.

Those that the full grid has, in central differences, are what they are compared with.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from _data import jacksboro
from matplotlib.colors import LinearSegmentedColormap

from kerneldiff import RBFInterpolator

east, north, elevation = jacksboro()
points = np.stack(np.meshgrid(east, north), axis=-1).reshape(-1, 2)
rng = np.random.default_rng(0)
measured = np.zeros(elevation.size, bool)
measured[rng.permutation(elevation.size)[: elevation.size // 4]] = True

# The cubic function, r³, has second derivatives everywhere. Whole metres are no exact data: a
# little smoothing keeps their rounding out of the curvature.
interpolant = RBFInterpolator(
    points[measured],
    elevation.ravel()[measured],
    neighbors=30,
    kernel="cubic",
    smoothing=1e-3,
)
start = time.perf_counter()
values = interpolant(points).reshape(elevation.shape)
gradient = interpolant.gradient(points).reshape(*elevation.shape, 2) / 1e3  # m/km to 1
curvature = interpolant.laplacian(points).reshape(elevation.shape) / 1e3  # m/km² to 1/km
print(
    f"{measured.sum()} of {elevation.size} points measured; values, gradients and Laplacians of "
    f"all in {time.perf_counter() - start:.1f} s"
)

# %%
# The same from the full grid, by central differences of first order, twice for the curvature. It
# is the sum of the curvatures to the east and to the north: negative on ridges, positive in
# valleys.


def differences(values):
    """Derivatives to the east and to the north of values on the grid, per km."""
    return np.stack([np.gradient(values, east, axis=1), np.gradient(values, north, axis=0)], -1)


def slope_of(gradient):
    """Angle of slope in degrees."""
    return np.rad2deg(np.arctan(np.hypot(gradient[..., 0], gradient[..., 1])))


grid_gradient = differences(elevation) / 1e3
grid_curvature = (
    differences(1e3 * grid_gradient[..., 0])[..., 0]
    + differences(1e3 * grid_gradient[..., 1])[..., 1]
) / 1e3
slope, grid_slope = slope_of(gradient), slope_of(grid_gradient)
inside = (slice(3, -3), slice(3, -3))


def compare(name, ours, expected, unit, where=True):
    """Print the root of the mean square of a difference, away from the edges."""
    where = np.broadcast_to(where, expected.shape)[inside]
    ours, expected = ours[inside][where], expected[inside][where]
    rms = np.sqrt(np.mean((ours - expected) ** 2))
    print(
        f"{name:22s} off by {rms:5.2f} {unit:5s} (RMS) where the standard deviation is "
        f"{expected.std():6.2f} {unit:5s} correlation {np.corrcoef(ours, expected)[0, 1]:.3f}"
    )


unseen = ~measured.reshape(elevation.shape)
compare("elevation, not measured", values, elevation, "m", unseen)
compare("slope", slope, grid_slope, "°")
compare("curvature", curvature, grid_curvature, "1/km")

# %%
# The terrain as light from the north-west would show it, which needs nothing but the gradient. A
# part of it is four times as fine: an interpolant has derivatives everywhere.

window = (9.0, 14.0, 13.0, 18.0)
fine_east, fine_north = np.linspace(9, 14, 270), np.linspace(18, 13, 216)
fine = np.stack(np.meshgrid(fine_east, fine_north), axis=-1)
fine_gradient = interpolant.gradient(fine.reshape(-1, 2)).reshape(fine.shape) / 1e3

light = np.array([-1.0, 1.0, 1.2]) / np.sqrt(3.44)
grey = LinearSegmentedColormap.from_list("shade", ["#10202c", "#8d8f86", "#fffdf0"])
extent = (east[0], east[-1], north[-1], north[0])
figure, (whole, part) = plt.subplots(1, 2, figsize=(12, 5.9), layout="constrained")
for ax, slopes, where in ((whole, gradient, extent), (part, fine_gradient, window)):
    brightness = (light[2] - slopes @ light[:2]) / np.sqrt(1 + np.sum(slopes**2, axis=-1))
    ax.imshow(brightness, cmap=grey, vmin=0.2, vmax=1.0, extent=where, interpolation="bilinear")
    tint = ax.imshow(values, cmap="cividis", alpha=0.3, extent=extent, interpolation="bilinear")
    ax.set(xlabel="east (km)", ylabel="north (km)", xlim=where[:2], ylim=where[2:])
whole.set(title="relief along the Jacksboro fault, from a quarter of the points")
whole.add_patch(plt.Rectangle(window[::2], 5, 5, fill=False, edgecolor="#d7301f", lw=1.5))
part.plot(*points[measured].T, ".", color="#d7301f", markersize=2.5, label="measured")
part.set(title="a part of it, and the points measured there")
part.legend(loc="upper right", markerscale=3)
colorbar = figure.colorbar(tint, ax=part, label="elevation (m)", shrink=0.8)
colorbar.solids.set_alpha(1)
plt.show()

# %%
# Slope and curvature, from a quarter of the points and from the full grid.

figure, axes = plt.subplots(
    2, 2, figsize=(10.6, 10.4), sharex=True, sharey=True, layout="constrained"
)
for row, (label, ours, theirs, options) in zip(
    axes,
    [
        ("slope (°)", slope, grid_slope, {"cmap": "magma", "vmin": 0, "vmax": 40}),
        (
            "curvature (1/km)",
            curvature,
            grid_curvature,
            {"cmap": "PuOr_r", "vmin": -5, "vmax": 5},
        ),
    ],
    strict=True,
):
    for ax, values_of, source in zip(
        row,
        (ours, theirs),
        ("a quarter of the points, interpolated", "differences of the full grid"),
        strict=True,
    ):
        image = ax.imshow(values_of, extent=extent, interpolation="bilinear", **options)
        ax.set(title=source)
        ax.label_outer()
        ax.set(xlabel="east (km)" if ax in axes[1] else "")
    row[0].set(ylabel="north (km)")
    figure.colorbar(image, ax=row, label=label, shrink=0.9, pad=0.01)
plt.show()
