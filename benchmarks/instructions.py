"""How many instructions the tile functions take for each hot path, and the budget for them.

Times tell a regression of a few percent from noise only on a machine that does nothing else; counts
of instructions are the same in every run. Valgrind's callgrind counts them here, with one thread
and one instruction set::

    python benchmarks/instructions.py                     # counts beside the budget
    python benchmarks/instructions.py --check             # what CI does
    python benchmarks/instructions.py --update            # write the budget anew
    python benchmarks/instructions.py --check --base main # where the compiler is another

What is counted is what runs in the compiled tile functions themselves (``src/``): not the C
library's ``memcpy`` and ``memset``, of which each machine takes other ones, nor Python and what
Cython made.

The budget stands in ``instructions.json``. A path that is more than 3 % above it fails the check,
and one that is more than 3 % below it too: what was gained would otherwise be lost again without
notice. Both are put right by ``--update`` in the commit that changes the path.

The counts depend on the compiler, whose name and version the budget holds, and hardly on anything
else. With another compiler the budget says nothing; ``--base`` then names a commit that is built
and counted here, with this compiler, in the place of the budget. A difference passes if the commits
that follow the base change the budget.
"""

import argparse
import functools
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tabulate import tabulate

BUDGET = Path(__file__).with_suffix(".json")
#: Relative change of a count that is let pass.
TOLERANCE = 0.03
#: Valgrind knows no AVX-512; the code of all instruction sets is the same C.
INSTRUCTION_SET = "avx2"

_MISSING = (
    "valgrind is not installed: it counts the instructions "
    "(apt-get install valgrind, or dnf install valgrind)"
)


# --- the hot paths ------------------------------------------------------------------------------


def _points(d, n=200):
    import numpy as np

    return np.random.default_rng(d).standard_normal((n, d))


def _rbf(d):
    from sklearn.gaussian_process.kernels import RBF

    return RBF(math.sqrt(d), length_scale_bounds="fixed")


def _ard(d):
    import numpy as np
    from sklearn.gaussian_process.kernels import RBF

    return RBF(math.sqrt(d) * np.linspace(0.8, 1.2, d))


def _tensor(name, d, n=200, **options):
    import kerneldiff

    return functools.partial(getattr(kerneldiff, name), _rbf(d), _points(d, n), **options)


def _streamed_gradient():
    import numpy as np

    # Beyond 32 MiB memory that is there already is written around the caches.
    return _tensor("gradient", 10, 660, out=np.empty((660, 660, 10)))


def _composite_hessian():
    from sklearn.gaussian_process.kernels import Matern, RationalQuadratic

    import kerneldiff

    kernel = _rbf(5) * Matern(2.0, nu=2.5) + RationalQuadratic(3.0)
    return functools.partial(kerneldiff.hessian, kernel, _points(5, 100))


def _joint_covariance():
    import kerneldiff

    return functools.partial(
        kerneldiff.covariance, _rbf(10), kerneldiff.ValueGradient(_points(10, 150))
    )


def _product(functional, d, symmetric=False):
    import numpy as np

    import kerneldiff

    functional = getattr(kerneldiff, functional)
    cols = None if symmetric else functional(_points(d, 300))
    operator = kerneldiff.CovarianceOperator(_rbf(d), functional(_points(d, 400)), cols)
    v = np.random.default_rng(0).standard_normal(operator.shape[1])
    return lambda: operator @ v


def _expansion(derivative, d):
    import numpy as np

    import kerneldiff

    weights = np.random.default_rng(0).standard_normal(300)
    expansion = kerneldiff.expansion(_rbf(d), _points(d, 300), weights)
    return functools.partial(getattr(expansion, derivative), _points(d, 400))


def _contraction(wrt):
    import numpy as np

    import kerneldiff

    X = _points(10, 100)
    operator = kerneldiff.CovarianceOperator(_ard(10), kerneldiff.ValueGradient(X))
    W = np.random.default_rng(0).standard_normal(operator.shape)
    return functools.partial(operator.vjp, W + W.T, wrt)


def _tanh(name):
    import numpy as np

    import kerneldiff

    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((500, 10)), rng.standard_normal((11, 50))
    if name == "jacobian":
        return functools.partial(kerneldiff.tanh_jacobian, X, W)
    basis = kerneldiff.TanhBasis(50, weights=W).fit(X)
    other = W if name == "jvp" else rng.standard_normal((500, 50))
    return functools.partial(getattr(basis, name), X, other)


def _interpolator(method):
    import numpy as np

    import kerneldiff

    X = _points(3, 300)
    interpolator = kerneldiff.RBFInterpolator(X, np.sin(X).sum(axis=1))
    return functools.partial(getattr(interpolator, method), _points(3, 400) / 2)


#: By name: makes the data, and returns the call that is counted.
HOT_PATHS = {
    "kernel matrix, D = 10": lambda: _tensor("kernel_matrix", 10),
    "gradient, D = 3": lambda: _tensor("gradient", 3),
    "gradient, D = 10": lambda: _tensor("gradient", 10),
    "gradient, D = 10, streamed": _streamed_gradient,
    "Hessian, D = 3": lambda: _tensor("hessian", 3),
    "Hessian, D = 10": lambda: _tensor("hessian", 10, 100),
    "packed Hessian, D = 10": lambda: _tensor("hessian", 10, 100, layout="packed"),
    "Hessian of a sum and product, D = 5": _composite_hessian,
    "joint covariance, D = 10": _joint_covariance,
    "K v, D = 3": lambda: _product("Value", 3),
    "K v, D = 10": lambda: _product("Value", 10),
    "K v, D = 10, Y = X": lambda: _product("Value", 10, symmetric=True),
    "joint product, D = 3": lambda: _product("ValueGradient", 3),
    "joint product, D = 10": lambda: _product("ValueGradient", 10),
    "joint product, D = 10, Y = X": lambda: _product("ValueGradient", 10, symmetric=True),
    "gradient of an expansion, D = 3": lambda: _expansion("gradient", 3),
    "gradient of an expansion, D = 10": lambda: _expansion("gradient", 10),
    "Hessian of an expansion, D = 3": lambda: _expansion("hessian", 3),
    "Hessian of an expansion, D = 10": lambda: _expansion("hessian", 10),
    "contraction by theta, D = 10": lambda: _contraction("theta"),
    "contraction by points, D = 10": lambda: _contraction("rows"),
    "thin plate spline, D = 3": lambda: _interpolator("__call__"),
    "gradient of a thin plate spline, D = 3": lambda: _interpolator("gradient"),
    "tanh Jacobian, D = 10, K = 50": lambda: _tanh("jacobian"),
    "tanh vjp, D = 10, K = 50": lambda: _tanh("vjp"),
    "tanh jvp, D = 10, K = 50": lambda: _tanh("jvp"),
}


# --- counting -----------------------------------------------------------------------------------


def _run(names):
    """Run hot paths once each, between the marks at which callgrind writes what it has counted."""
    import numpy as np

    from kerneldiff import _core

    def mark():
        _core.vmath("exp", np.empty(0))

    for name in names:
        try:
            call = HOT_PATHS[name]()
        except (AttributeError, TypeError):
            # An older commit, which has no such thing.
            call = None
        mark()
        if call is not None:
            call()
        mark()


def count(names=None, *, package=None):
    """Count the instructions of hot paths, in one process.

    Parameters
    ----------
    names : iterable of str, optional
        Of `HOT_PATHS`; by default all.
    package : path-like, optional
        Folder with another kerneldiff than the installed one.

    Returns
    -------
    dict from str to int or None
        None for what the package cannot do.

    Raises
    ------
    RuntimeError
        If valgrind is missing or fails, or if the compiled core has lost its symbols.
    """
    names = list(HOT_PATHS if names is None else names)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError(_MISSING)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "KERNELDIFF_ISA": INSTRUCTION_SET,
    }
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = [valgrind, "--tool=callgrind", "--quiet", f"--callgrind-out-file={out}"]
        # The function behind a mark of `_run`.
        command += ["--dump-before=vmath", sys.executable, "-P", __file__, "--run", *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"counting failed:\n{done.stdout}{done.stderr}")
        # Names are given once and are numbers from then on, across all files.
        numbered = {}
        parts = [
            _instructions_of_tiles(Path(f"{out}.{number}"), numbered)
            for number in range(1, 2 * len(names) + 1)
        ]
    return {name: part or None for name, part in zip(names, parts[1::2], strict=True)}


# In the core, but not in the tile functions: Python's and Cython's names, those without one, what
# chooses the instruction set (dispatch.c), and the mark itself.
_NOT_OF_TILES = ("_", "PyInit", "0x", "kd_get_", "kd_isa_", "kd_n_", "kd_vmath_", "vmath")
_NAMED = re.compile(r"(c?)(ob|fn)=(\(\d+\))(?: (.*))?")


def _instructions_of_tiles(path, names):
    """Sum the instructions of one file that ran in the tile functions themselves."""
    if not path.exists():
        raise RuntimeError(
            "callgrind has not seen the functions of kerneldiff: its compiled module _core was "
            "stripped of its symbols; install it from the source"
        )
    total, of_core, of_tile, is_call = 0, False, False, False
    with path.open() as lines:
        for line in lines:
            named = _NAMED.match(line)
            if named:
                callee, kind, number, name = named.groups()
                name = names.setdefault((kind, number), name)
                if kind == "ob" and not callee:
                    of_core = "/kerneldiff/_core." in name
                elif kind == "fn" and not callee:
                    of_tile = not name.startswith(_NOT_OF_TILES)
            elif line.startswith("calls="):
                is_call = True
            elif line[0] in "0123456789+-*":
                # The line after "calls" is what the call took in all.
                if of_core and of_tile and not is_call:
                    total += int(line.split()[1])
                is_call = False
    return total


# --- the budget ---------------------------------------------------------------------------------


def compiler():
    """Name and version of the compiler that the installed kerneldiff was built with.

    Returns
    -------
    str
    """
    from kerneldiff._core import config

    return config()["compiler"]


def count_commit(commit, names):
    """Build a commit of this repository with the compiler of this machine, and count.

    Parameters
    ----------
    commit : str
        Anything that git can resolve.
    names : iterable of str
        Of `HOT_PATHS`.

    Returns
    -------
    counts : dict from str to int or None
    budget : str
        The text of the commit's budget; empty if it has none.
    """
    root = BUDGET.parents[1]
    git = ["git", "-C", str(root)]
    archive = _output([*git, "archive", "--format=tar", f"{commit}^{{commit}}"])
    with tempfile.TemporaryDirectory() as folder:
        source, package = Path(folder) / "source", Path(folder) / "package"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        _output([*pip, "--target", str(package), str(source)])
        budget = source / BUDGET.relative_to(root)
        text = budget.read_text() if budget.exists() else ""
        return count(names, package=package), text


def _output(command):
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.decode()}")
    return done.stdout


def compare(counts, budget):
    """Compare counts with a budget.

    Parameters
    ----------
    counts, budget : dict from str to int or None

    Returns
    -------
    lines : list of str
        A table.
    failures : list of str
        What is wrong with it.
    """
    rows, failures = [], []
    for name in dict.fromkeys((*counts, *budget)):
        found, allowed = counts.get(name), budget.get(name)
        change = found / allowed - 1 if found and allowed else None
        cells = ("–" if n is None else format(n, ",") for n in (found, allowed))
        rows.append([name, *cells, "" if change is None else f"{change:+.2%}"])
        if found is None:
            failures.append(f"{name}: there is a budget, but no such path")
        elif allowed is None:
            failures.append(f"{name}: has no budget")
        elif change > TOLERANCE:
            failures.append(f"{name}: takes {change:.1%} more instructions than its budget")
        elif change < -TOLERANCE:
            failures.append(f"{name}: takes {-change:.1%} fewer instructions: lower its budget")
    header = ("hot path", "instructions", "budget", "change")
    aligned = ("left", "right", "right", "right")
    table = tabulate(rows, header, "plain", colalign=aligned, disable_numparse=True)
    return table.splitlines(), failures


def _check(counts, budget, base):
    """Compare with the budget or, where the compiler is another one, with a commit."""
    found = compiler()
    if found == budget["compiler"]:
        lines, failures = compare(counts, budget["instructions"])
        print("\n".join(lines))
        return failures
    print(f"The budget is for {budget['compiler']}; kerneldiff was built with {found}.")
    if base is None:
        return ["there is nothing to compare with: name a commit with --base"]
    print(f"Compared with {base}, built by the same compiler, in the place of the budget:")
    before, text = count_commit(base, counts)
    known = {name: n for name, n in before.items() if n is not None}
    lines, failures = compare({name: counts[name] for name in known}, known)
    print("\n".join(lines))
    if failures and text != BUDGET.read_text():
        print(f"The budget has changed since {base}: the differences are meant.", *failures)
        return []
    return failures


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="fail where the budget is missed by more than 3 %%"
    )
    parser.add_argument("--update", action="store_true", help="write the budget anew")
    parser.add_argument(
        "--base",
        metavar="COMMIT",
        help="what to compare with where the compiler is not the one of the budget",
    )
    parser.add_argument(
        "--only", metavar="WORD", nargs="+", help="hot paths with one of these words in the name"
    )
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    return parser


def main(argv=None):
    """Count, and compare with the budget or write it.

    Parameters
    ----------
    argv : list of str, optional
        Command-line options; by default those of the process.

    Returns
    -------
    int
        Exit status.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run:
        _run(options.run)
        return 0
    if options.update and (options.check or options.only):
        parser.error("--update writes the whole budget: it goes without --check and --only")
    names = [
        name for name in HOT_PATHS if options.only is None or any(w in name for w in options.only)
    ]
    if not names:
        parser.error(f"no hot path has any of these words in its name: {options.only}")
    budget = {"compiler": "none", "instructions": {}}
    if BUDGET.exists():
        budget = json.loads(BUDGET.read_text())
    if options.only:
        of_names = {name: n for name, n in budget["instructions"].items() if name in names}
        budget["instructions"] = of_names
    counts = count(names)
    if options.update:
        missing = [name for name, n in counts.items() if n is None]
        if missing:
            raise RuntimeError(f"kerneldiff cannot do these: {', '.join(missing)}")
        stored = {"compiler": compiler(), "instructions": counts}
        BUDGET.write_text(json.dumps(stored, indent=1) + "\n")
        return 0
    if options.check:
        failures = _check(counts, budget, options.base)
        for failure in failures:
            print(f"FAILED  {failure}", file=sys.stderr)
        if failures:
            print(
                "If this is meant: python benchmarks/instructions.py --update, in the same commit.",
                file=sys.stderr,
            )
        return 1 if failures else 0
    print("\n".join(compare(counts, budget["instructions"])[0]))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except RuntimeError as error:
        raise SystemExit(f"instructions.py: {error}") from None
