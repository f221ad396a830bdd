"""Fixtures of all tests."""

import numpy as np
import pytest
from _support import subnormals_alive

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
