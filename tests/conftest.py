"""Fixtures of all tests, and which of them are the quick tier."""

import zlib
from collections import defaultdict

import numpy as np
import pytest

import kerneldiff._core

# Their assertions show values, too.
pytest.register_assert_rewrite("support")

from support.processes import subnormals_alive  # noqa: E402


@pytest.fixture
def rng():
    """Random numbers, the same in every test."""
    return np.random.default_rng(20240229)


@pytest.fixture(autouse=True)
def _fpu_mode():
    """No import and no call may change how the processor treats subnormal numbers.

    Libraries linked with -ffast-math do so for the whole process.
    """
    assert subnormals_alive()
    yield
    assert subnormals_alive()


def pytest_generate_tests(metafunc):
    """An argument `isa` stands for each instruction set that was built and that this CPU has."""
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", kerneldiff._core.config()["isa_supported"], scope="module")


# Grids of parameters with more cells than this are run whole in the exhaustive tier only.
GRID = 24


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a grid, the quick tier has as many cells as its mark `quick` says.

    Without this mark it has all of a small grid, and of a large one cells in which each value of
    each parameter occurs.  The others are marked as exhaustive.  The choice is by checksums of the
    names of cells: it is spread over the grid, and the same on every machine.
    """
    grids = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            grids[item.nodeid.partition("[")[0]].append(item)
    for cells in grids.values():
        cells.sort(key=order)
        mark = cells[0].get_closest_marker("quick")
        left_out = cells[mark.args[0] :] if mark else repeated(cells) if len(cells) > GRID else []
        for cell in left_out:
            cell.add_marker(pytest.mark.exhaustive)


def order(cell):
    long = cell.get_closest_marker("exhaustive") is not None
    return long, zlib.crc32(cell.nodeid.encode()), cell.nodeid


def repeated(cells):
    """Those each of whose values occurs in one of the cells before."""
    seen = set()
    for cell in cells:
        # The same value is the same object in all cells.
        values = {(name, id(value)) for name, value in cell.callspec.params.items()}
        if values <= seen:
            yield cell
        seen |= values
