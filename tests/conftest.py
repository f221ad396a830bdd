"""Fixtures of all tests, and which of them are the quick tier."""

import zlib
from collections import defaultdict

import numpy as np
import pytest
from support.processes import subnormals_alive

import kerneldiff._core


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

# Tests each cell of which takes seconds, to start a Python or to compile for JAX: the quick tier
# has one cell in each module.
LONG = {
    "test_automatic_differentiation",
    "test_config_of_a_forced_instruction_set",
    "test_ctrl_c",
    "test_differences",
    "test_forked_workers",
    "test_hessians_are_those_of_jax",
    "test_instruction_sets",
    "test_interrupts",
    "test_jax",
    "test_nobody_reads_on",
    "test_peak_memory",
    "test_size_of_the_output_overflows",
    "test_total_derivative",
    "test_touches_nothing_beside_the_arrays",
    "test_unknown_instruction_set",
    "test_ways_to_save",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a large grid, the quick tier has cells in which each value of each parameter occurs.

    Of a long test it has one cell.  The others are marked as exhaustive.  The choice is by
    checksums of the names of cells: it is spread over the grid, and the same on every machine.
    """
    grids = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            grids[item.nodeid.partition("[")[0]].append(item)
    for test, cells in grids.items():
        cells.sort(key=lambda item: (zlib.crc32(item.nodeid.encode()), item.nodeid))
        if test.rpartition(":")[2] in LONG:
            for cell in cells[1:]:
                cell.add_marker(pytest.mark.exhaustive)
        if len(cells) <= GRID:
            continue
        seen = set()
        for cell in cells:
            # The same value is the same object in all cells.
            values = {(name, id(value)) for name, value in cell.callspec.params.items()}
            if values <= seen:
                cell.add_marker(pytest.mark.exhaustive)
            seen |= values
