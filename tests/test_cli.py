"""The command line, end to end: the installed command in a process of its own."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from _support import environment

import kerneldiff
from kerneldiff import cli

SCRIPT = Path(sysconfig.get_path("scripts")) / (
    "kerneldiff.exe" if os.name == "nt" else "kerneldiff"
)


def run(*arguments, isa=None, threads=None, timeout=120):
    """Run the console script from a folder where nothing shadows the installed package."""
    return subprocess.run(
        [SCRIPT, *arguments],
        env=environment(isa=isa, threads=threads),
        cwd=Path(sys.prefix),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def demo():
    # Far above the 30 s that it may take on a quiet machine.
    return run("demo", timeout=240)


def test_demo_passes(demo):
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    assert "All checks passed" in demo.stdout


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("kernel_matrix", "442 x 442"),
        ("gradient", "442 x 442 x 10"),
        ("hessian_diag", "442 x 442 x 10"),
        ("hessian", "442 x 442 x 10 x 10"),
        ("tanh_jacobian", "442 x 11 x 50"),
    ],
)
def test_demo_says_what_it_computed(demo, name, shape):
    (line,) = re.findall(rf"^{name} .*$", demo.stdout, re.MULTILINE)
    assert f" {shape} " in line
    # Not better than its check, not worse than what the issue with wrong formulas looks like.
    assert float(re.search(r"\d\.\de-\d\d", line)[0]) < 1e-10


def test_demo_fails_when_a_tensor_is_wrong(monkeypatch, capsys):
    """The published derivation without the Kronecker term: the check has to see it."""

    def without_kronecker(kernel, X):
        d = X.shape[1]
        H = kerneldiff.hessian(kernel, X)
        K = kerneldiff.kernel_matrix(kernel, X)
        return H + K[..., None, None] * np.eye(d) / kernel.length_scale**2

    real = kerneldiff.hessian
    monkeypatch.setattr(cli, "_medians", lambda *functions: [1.0] * len(functions))

    class Wrong:
        def __getattr__(self, name):
            return getattr(kerneldiff, name)

        @staticmethod
        def hessian(kernel, X):
            return without_kronecker(kernel, X)

    monkeypatch.setattr(cli, "kerneldiff", Wrong())
    assert cli.main(["demo"]) == 1
    said = capsys.readouterr().out
    assert "FAILED: hessian." in said
    assert kerneldiff.hessian is real


def test_config():
    done = run("config", threads=2)
    assert done.returncode == 0
    for word in (
        "numpy",
        "scipy",
        "scikit-learn",
        "python",
        "compiler",
        "openmp",
        kerneldiff.__version__,
    ):
        assert word in done.stdout
    for isa in kerneldiff._core.config()["isa_built"]:
        assert isa in done.stdout


def test_config_of_a_forced_instruction_set(isa):
    done = run("config", isa=isa)
    assert re.search(rf"^isa +{isa}$", done.stdout, re.MULTILINE)
    assert re.search(rf"^isa_forced +{isa}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["config", "demo"])
def test_unknown_instruction_set(command):
    """A mistake of the user's: a sentence, not a traceback."""
    done = run(command, isa="sse9")
    assert done.returncode == 2
    assert "KERNELDIFF_ISA is 'sse9'" in done.stderr
    assert "Traceback" not in done.stderr


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout == f"kerneldiff {kerneldiff.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["demo", "--help"], ["config", "--help"]], ids=" ".join
)
def test_help(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kerneldiff")


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["demo", "--nonsense"], ["config", "x"]], ids=" ".join
)
def test_arguments_that_make_no_sense(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: kerneldiff")


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kerneldiff", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"kerneldiff {kerneldiff.__version__}\n"


def test_bench_help():
    done = run("bench", "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout


def test_bench_quick():
    """It still runs; its times mean nothing. Peers that are not installed are left out."""
    done = run("bench", "--quick", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hessian" in done.stdout


@pytest.mark.parametrize("mode", ["print", "dict"])
def test_show_config(mode, capsys):
    facts = kerneldiff.show_config(mode)
    said = capsys.readouterr().out
    if mode == "print":
        assert facts is None
        assert kerneldiff.__version__ in said
    else:
        assert said == ""
        assert facts["kerneldiff"] == kerneldiff.__version__
        assert facts["isa"] == kerneldiff._core.config()["isa"]


def test_show_config_in_a_mode_it_does_not_have():
    with pytest.raises(ValueError, match="mode must be 'print' or 'dict', got 'json'"):
        kerneldiff.show_config("json")
