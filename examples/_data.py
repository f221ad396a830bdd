"""Real data with derivatives for the examples, and the extracts of it for the tests.

All of it comes with packages of the extra ``examples`` or is computed here, so nothing is
downloaded. ``python examples/_data.py`` writes ``tests/data/*.npz``, whose README states sources
and licences.
"""

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """Points, values and gradients.

    Attributes
    ----------
    X : ndarray of shape (N, D)
    y : ndarray of shape (N,) or (N, T)
    dy : ndarray of shape (N, D) or (N, T, D)
    """

    X: np.ndarray
    y: np.ndarray
    dy: np.ndarray


def airfoils():
    """Drag of airfoils in subsonic flow, with gradients from adjoint solutions.

    Returns
    -------
    Data
        42 039 points of 16 columns: seven modes of camber and seven of thickness, the Mach number
        and the angle of attack in degrees. y is the drag coefficient.
    """
    folder = files("smt.examples") / "airfoil_parameters"
    points, gradients = (
        np.loadtxt(folder / name, delimiter=";") for name in ("cd_x_y.csv", "cd_dy.csv")
    )
    return Data(points[:, :-1], points[:, -1], gradients)


def naca4412():
    """Drag of an airfoil at Mach 0.3, from -1 to 7 degrees.

    Returns
    -------
    X : ndarray of shape (9, 16)
        As in `airfoils`.
    y : ndarray of shape (9,)
        The drag coefficients that the same solver found.
    """
    folder = files("smt.examples") / "airfoil_parameters"
    modes = np.loadtxt(folder / "modes_NACA4412_ct.txt")
    polar = np.loadtxt(folder / "NACA4412-ADflow-alpha-cd.csv", skiprows=1)[:9]
    X = np.column_stack([np.tile(modes, (len(polar), 1)), np.full(len(polar), 0.3), polar[:, 0]])
    return X, polar[:, 1]


def engine_deck():
    """Thrust and fuel consumption of a turbofan like that of a Boeing 777, with all derivatives.

    Returns
    -------
    Data
        1056 points of a grid: Mach number, altitude in km, throttle from 0.05 to 1. The two targets
        are thrust in N and thrust-specific fuel consumption in N/N/s.
    """
    from smt.examples.b777_engine.b777_engine import get_b777_engine

    X, y, dy, _ = get_b777_engine()
    return Data(X, y, dy)


def copper_cluster(steps=1200, temperature=400.0):
    """Molecular dynamics of a cluster of 13 copper atoms, by ASE's effective medium theory.

    The icosahedron is relaxed and given random velocities, then runs freely (Verlet, steps of
    2.5 fs); the first 1 ps is left out.

    Parameters
    ----------
    steps : int, default=1200
        Number of points, 2.5 fs apart.
    temperature : float, default=400.0
        Temperature in K after equipartition.

    Returns
    -------
    Data
        39 columns, the positions of the atoms in Å; y is the potential energy in eV, and the
        gradient minus the forces in eV/Å.
    """
    from ase import units
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron
    from ase.md.velocitydistribution import Stationary, ZeroRotation
    from ase.md.verlet import VelocityVerlet
    from ase.optimize import BFGS

    atoms = Icosahedron("Cu", 2)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    atoms.positions -= atoms.positions.mean(axis=0)
    # All energy is kinetic at first; half of it becomes potential energy.
    deviation = np.sqrt(2 * units.kB * temperature * atoms.get_masses())
    atoms.set_momenta(deviation[:, None] * np.random.default_rng(0).normal(size=(13, 3)))
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = VelocityVerlet(atoms, timestep=2.5 * units.fs)
    dynamics.run(400)
    rows = []
    for _ in range(steps):
        dynamics.run(1)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        rows.append((atoms.get_positions().ravel(), energy, -forces.ravel()))
    return Data(*(np.array(column) for column in zip(*rows, strict=True)))


def mauna_loa():
    """Monthly means of the CO2 concentrations at Mauna Loa, 1958 to 2001.

    Returns
    -------
    t : ndarray of shape (521,)
        Time in years since 1958.
    y : ndarray of shape (521,)
        Mole fraction in ppm, the mean of the weeks of a month that there are.
    """
    from statsmodels.datasets import co2

    weeks = co2.load_pandas().data["co2"].dropna()
    days = (weeks.index - np.datetime64("1958-01-01")).days.to_numpy()
    months = 12 * weeks.index.year + weeks.index.month
    starts = np.flatnonzero(np.diff(months, prepend=0))
    counts = np.diff(starts, append=len(weeks))
    t, y = (np.add.reduceat(a, starts) / counts for a in (days / 365.25, weeks.to_numpy()))
    return t, y


def seattle():
    """Mean temperatures of the days of a year in Seattle.

    Returns
    -------
    day : ndarray of shape (365,)
        Day of the year, from 1.
    temperature : ndarray of shape (365,)
        Mean of the hours of the day, in °C.
    """
    from vega_datasets import local_data

    hours = local_data.seattle_temps()
    means = hours["temp"].groupby(hours["date"].dt.day_of_year).mean()
    return means.index.to_numpy(dtype=float), (means.to_numpy() - 32) / 1.8  # from °F


def naca_section(t):
    """Outline of the NACA 4412 section, the airfoil of `naca4412`, and its outward normals.

    E. N. Jacobs, K. E. Ward and R. M. Pinkerton, "The characteristics of 78 related airfoil
    sections from tests in the variable-density wind tunnel", NACA Report 460, 1933, pages 4 and 5.

    Parameters
    ----------
    t : ndarray of shape (N,)
        From 0, at the trailing edge, along the upper side to the nose at 1/2, and back to 1.

    Returns
    -------
    points, normals : ndarray of shape (N, 2)
        Of a section of chord 1.
    """

    def outline(t):
        x = (1 + np.cos(2 * np.pi * t)) / 2
        half = 0.6 * (
            0.2969 * np.sqrt(x) - 0.126 * x - 0.3516 * x**2 + 0.2843 * x**3 - 0.1015 * x**4
        )
        # The camber of 4 % has its maximum at 40 % of the chord.
        part = np.where(x < 0.4, 0.4, 0.6)
        camber = 0.04 * (1 - ((x - 0.4) / part) ** 2)
        angle = np.arctan(0.08 * (0.4 - x) / part**2)
        side = np.where(t < 0.5, 1, -1)
        return np.stack([x - side * half * np.sin(angle), camber + side * half * np.cos(angle)], -1)

    step = 1e-6
    along = outline(t + step) - outline(t - step)
    along /= np.linalg.norm(along, axis=1)[:, None]
    return outline(t), np.stack([along[:, 1], -along[:, 0]], axis=1)


def benzene(n=90):
    """The van der Waals surface of a molecule of benzene: points and normals.

    The surface of overlapping spheres about the atoms, of radii by A. Bondi, "van der Waals volumes
    and radii", Journal of Physical Chemistry 68, 1964; geometry from ASE's collection G2.

    Parameters
    ----------
    n : int, default=90
        Points on each sphere, evenly spaced; those within other spheres are left out.

    Returns
    -------
    points, normals : ndarray of shape (N, 3)
        In Å; the normals are unit vectors that point outwards.
    """
    from ase.build import molecule
    from ase.data import vdw_radii

    atoms = molecule("C6H6")
    centers = atoms.positions - atoms.positions.mean(axis=0)
    radii = vdw_radii[atoms.numbers]
    # A spiral of the golden ratio.
    i = np.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    width = np.sqrt(1 - height**2)
    sphere = np.stack([width * np.cos(turn), width * np.sin(turn), height], axis=1)
    points = centers[:, None] + radii[:, None, None] * sphere
    distance = np.linalg.norm(points[:, :, None] - centers, axis=3) - radii
    outside = (distance > -1e-9).all(axis=2)
    return points[outside], np.broadcast_to(sphere, points.shape)[outside]


class Terrain(NamedTuple):
    """Elevations on a grid.

    Attributes
    ----------
    east, north : ndarray of shape (W,) and (H,)
        Distances in km from the south-western corner; north decreases.
    elevation : ndarray of shape (H, W)
        In m.
    """

    east: np.ndarray
    north: np.ndarray
    elevation: np.ndarray


def jacksboro():
    """Terrain along the Jacksboro fault in Tennessee, on a grid of three seconds of arc.

    Returns
    -------
    Terrain
        344 x 403 elevations in whole metres, 93 m apart to the north and 74 m to the east.
    """
    from matplotlib.cbook import get_sample_data

    with get_sample_data("jacksboro_fault_dem.npz") as file:
        elevation = file["elevation"].astype(float)
        second = np.deg2rad(float(file["dy"]))
        # The file names the northern end of the grid, where it begins, "ymin".
        middle = np.deg2rad((float(file["ymin"]) + float(file["ymax"])) / 2)
    radius = 6371.0088  # the mean one of the Earth, in km
    east = radius * np.cos(middle) * second * np.arange(elevation.shape[1])
    north = radius * second * np.arange(elevation.shape[0])[::-1]
    return Terrain(east, north, elevation)


def _write(folder, name, **arrays):
    """Write an extract in single precision."""
    arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    print(f"{name}.npz: {(folder / name).with_suffix('.npz').stat().st_size / 1024:.0f} KiB")


def main():
    """Write the extracts."""
    folder = Path(__file__).parents[1] / "tests" / "data"
    X, y, dy = airfoils()
    some = np.random.default_rng(0).permutation(len(X))[:600]
    _write(folder, "airfoils", X=X[some], y=y[some], dy=dy[some[:150]])
    X, y, dy = engine_deck()
    # Units in which the targets are of order one survive single precision.
    _write(folder, "engine_deck", X=X, y=y / [1e5, 1e-4], dy=dy / np.array([[1e5], [1e-4]]))
    X, y, dy = (a[:240:6] for a in copper_cluster(steps=240))
    _write(folder, "copper_cluster", X=X, y=y, dy=dy)
    t, y = mauna_loa()
    _write(folder, "mauna_loa", t=t, y=y)
    day, temperature = seattle()
    _write(folder, "seattle", day=day, temperature=temperature)
    east, north, elevation = jacksboro()
    rows, columns = slice(100, 164), slice(120, 184)
    _write(
        folder,
        "jacksboro",
        east=east[columns] - east[columns][0],
        north=north[rows] - north[rows][-1],
        elevation=elevation[rows, columns],
    )


if __name__ == "__main__":
    main()
