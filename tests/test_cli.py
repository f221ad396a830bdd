"""The command line, end to end: the installed command in a process of its own."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from support.processes import environment

import kerneldiff
from kerneldiff import _demo, cli

SCRIPT = Path(sysconfig.get_path("scripts")) / (
    "kerneldiff.exe" if os.name == "nt" else "kerneldiff"
)


def run(*arguments, isa=None, threads=None, timeout=1200):
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
    return run("demo")


@pytest.mark.exhaustive
def test_demo_passes(demo):
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    assert "All checks passed" in demo.stdout


@pytest.mark.exhaustive
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
    # The limit of the demo itself; a wrong term shows as 1e-3 or more.
    assert float(re.search(r"\d\.\de-\d\d", line)[0]) < 1e-10


@pytest.mark.exhaustive
def test_demo_fails_when_a_tensor_is_wrong(monkeypatch, capsys):
    """The published derivation without the Kronecker term: the check has to see it."""

    def without_kronecker(kernel, X):
        d = X.shape[1]
        H = kerneldiff.hessian(kernel, X)
        K = kerneldiff.kernel_matrix(kernel, X)
        return H + K[..., None, None] * np.eye(d) / kernel.length_scale**2

    monkeypatch.setattr(_demo, "_medians", lambda *functions: [1.0] * len(functions))

    class Wrong:
        def __getattr__(self, name):
            return getattr(kerneldiff, name)

        @staticmethod
        def hessian(kernel, X):
            return without_kronecker(kernel, X)

    monkeypatch.setattr(_demo, "kerneldiff", Wrong())
    assert cli.main(["demo"]) == 1
    said = capsys.readouterr().out
    assert "FAILED: hessian." in said


@pytest.mark.exhaustive
def test_demo_with_pictures(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(_demo, "_medians", lambda *functions: [1.0] * len(functions))
    folder = tmp_path / "new" / "pictures"
    assert cli.main(["demo", "--plot", str(folder)]) == 0
    said = capsys.readouterr().out
    names = ("kernel_matrix", "gradient", "hessian", "tanh_jacobian", "speed")
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in names}
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"wrote {path}\n" in said


def test_pictures_without_matplotlib(monkeypatch, tmp_path, capsys):
    """Said before the work is done."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--plot", str(tmp_path / "pictures")])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert 'pip install "kerneldiff[plot]"' in said.err
    assert said.out == ""
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_pictures_into_a_file(place, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--plot", str(tmp_path / place)])
    assert stopped.value.code == 2
    assert re.search(r"--plot is '.*', but '.*file' is a file\.", capsys.readouterr().err)


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


@pytest.mark.exhaustive
def test_config_of_a_forced_instruction_set(isa):
    done = run("config", isa=isa)
    assert re.search(rf"^isa +{isa}$", done.stdout, re.MULTILINE)
    assert re.search(rf"^isa_forced +{isa}$", done.stdout, re.MULTILINE)


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", ["config", "demo"])
def test_unknown_instruction_set(command):
    """A mistake of the user's: a sentence, not a traceback."""
    done = run(command, isa="sse9")
    assert done.returncode == 2
    assert "KERNELDIFF_ISA is 'sse9'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout == f"kerneldiff {kerneldiff.__version__}\n"


@pytest.mark.parametrize("arguments", ["--help", "demo --help", "config --help"])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: kerneldiff")


@pytest.mark.parametrize(
    "arguments",
    [
        *["", "nonsense", "demo --nonsense", "config x", "demo --target y", "demo --output out"],
        *["demo --data x.csv --max-points 9", "demo --data x.csv --seed -1"],
        "demo --data x.csv --drop a --features b",
    ],
)
def test_arguments_that_make_no_sense(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: kerneldiff")


@pytest.mark.exhaustive
def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kerneldiff", "--version"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.stdout == f"kerneldiff {kerneldiff.__version__}\n"


@pytest.mark.exhaustive
def test_bench_help():
    done = run("bench", "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout


@pytest.mark.exhaustive
def test_bench_quick():
    """A case still runs; its times mean nothing. Peers that are not installed are left out."""
    done = run("bench", "--quick", "--only", "families", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hessian" in done.stdout.lower()


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


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("arguments", [("config",), ("demo",), ("--help",), ("bench", "--list")])
def test_nobody_reads_on(arguments):
    """A pipe whose reader has gone, as after `head`, is no cause for a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [SCRIPT, *arguments],
            env=environment(),
            cwd=Path(sys.prefix),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=1200,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    # Without a buffer of output, argparse itself ignores that help cannot be written.
    assert done.returncode == 141 or (arguments == ("--help",) and done.returncode == 0)
