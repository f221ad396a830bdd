"""SciPy's own tests of its RBFInterpolator, run against ours."""

import ast
import os
import sys
import xml.etree.ElementTree
from importlib.util import find_spec
from pathlib import Path
from subprocess import run

import pytest
import scipy

# Not imported here, where pytest does not know SciPy's marks.
THEIRS = Path(find_spec("scipy.interpolate.tests.test_rbfinterp").origin)
TREE = ast.parse(THEIRS.read_text())

# It replaces SciPy's evaluation in pieces by itself, which ours does not consist of.
NOT_OURS = "test_chunking"
TESTS = {
    node.name
    for node in ast.walk(TREE)
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and node.name != NOT_OURS
}
CLASSES = {
    node.name
    for node in TREE.body
    if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
}

# Puts our class where the test module looks for SciPy's, before that is imported, and where SciPy
# (from 1.17 on) notes what it can do.
PLUGIN = """
import scipy.interpolate._rbfinterp as theirs
from scipy._lib import _array_api

import kerneldiff

table = getattr(_array_api, "xp_capabilities_table", {})
if theirs.RBFInterpolator in table:
    table[kerneldiff.RBFInterpolator] = table[theirs.RBFInterpolator]
theirs.RBFInterpolator = kerneldiff.RBFInterpolator


def pytest_collection_finish(session):
    assert {item.module.RBFInterpolator for item in session.items} == {kerneldiff.RBFInterpolator}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """By class and name with its parameters: None, or what became of the test."""
    folder = tmp_path_factory.mktemp("rbf")
    (folder / "ours.py").write_text(PLUGIN)
    root = Path(scipy.__file__).parent
    # Their tests have a configuration of their own, that of SciPy's conftest.py.
    options = ["-p", "ours", "-p", "no:cacheprovider", f"--rootdir={root}", f"--confcutdir={root}"]
    options += ["-c", os.devnull, f"--junitxml={folder / 'results.xml'}", "-k", f"not {NOT_OURS}"]
    done = run(
        [sys.executable, "-P", "-m", "pytest", *options, THEIRS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = xml.etree.ElementTree.parse(folder / "results.xml").iter("testcase")
    return {
        (case.get("classname").rpartition(".")[2], case.get("name")): next(
            (child.tag for child in case if child.tag != "properties"), None
        )
        for case in cases
    }


@pytest.mark.parametrize("name", sorted(TESTS))
def test_theirs(results, name):
    """Each was run, and none of its cases failed or was skipped."""
    found = [what for (_, case), what in results.items() if case.partition("[")[0] == name]
    assert found
    assert set(found) == {None}


def test_there_are_some(results):
    """Each class of theirs, with the tests that it inherits."""
    assert len(TESTS) > 20
    assert len(CLASSES) >= 3
    for name in CLASSES:
        assert sum(group == name for group, _ in results) > 50
