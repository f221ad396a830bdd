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


if __name__ == "__main__":
    main()
