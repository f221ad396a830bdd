"""What the benchmarks do with measurements: nothing here is timed or counted."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from kerneldiff._bench import busy, compare, expansions, gp_cases, products

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    """A module of the folder, which must not be on the import path."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def instructions():
    return load("instructions")


@pytest.fixture(scope="module")
def charts():
    return load("charts")


@pytest.fixture(scope="module")
def results(charts):
    return json.loads(charts.RESULTS.read_text(encoding="utf-8"))


# --- instructions -------------------------------------------------------------------------------

# Two files as callgrind writes them: the second uses numbers that the first has given.
FIRST = """\
# callgrind format
positions: line
events: Ir
summary: 1000

ob=(1) /site-packages/kerneldiff/_core.cpython-311-x86_64-linux-gnu.so
fl=(1) ???
fn=(1) __pyx_f_run
0 70
cfn=(2) tensor
calls=2 0
0 900

fn=(2)
0 100
+3 20
cob=(2) /lib/libc.so.6
cfi=(2) memcpy.c
cfn=(3) memcpy
calls=1 +4
* 500
fi=(3) vmath.h
-2 3

fn=(4) 0x0000000000001020
0 7

ob=(2)
fl=(2)
fn=(3)
20 500

totals: 1000
"""
SECOND = """\
ob=(1)
fl=(1)
fn=(2)
0 11

fn=(5) vmath
0 13
"""


def test_only_tile_functions_are_counted(instructions, tmp_path):
    (tmp_path / "1").write_text(FIRST)
    (tmp_path / "2").write_text(SECOND)
    names = {}
    counted = [instructions._instructions_of_tiles(tmp_path / part, names) for part in "12"]
    assert counted == [123, 11]


def test_stripped_module_is_an_error(instructions, tmp_path):
    with pytest.raises(RuntimeError, match="stripped"):
        instructions._instructions_of_tiles(tmp_path / "3", {})


def test_missing_valgrind_names_the_package(instructions, monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install valgrind"):
        instructions.count()


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (1029, None),
        (971, None),
        (1031, "3.1% more"),
        (969, "3.1% fewer"),
        (None, "no such path"),
    ],
)
def test_budget(instructions, found, complaint):
    lines, failures = instructions.compare({"path": found}, {"path": 1000})
    assert len(lines) == 2
    if complaint is None:
        assert not failures
    else:
        (failure,) = failures
        assert complaint in failure


def test_path_without_budget(instructions):
    _, failures = instructions.compare({"new": 5, "old": 7}, {"old": 7})
    assert failures == ["new: has no budget"]


def test_every_hot_path_has_a_budget(instructions):
    budget = json.loads(instructions.BUDGET.read_text())
    assert set(budget["instructions"]) == set(instructions.HOT_PATHS)
    assert min(budget["instructions"].values()) > 100_000


def test_other_compiler_needs_a_base(instructions):
    budget = {"compiler": "none", "instructions": {"path": 1000}}
    (failure,) = instructions._check({"path": 1000}, budget, None)
    assert "--base" in failure


@pytest.mark.parametrize(
    ("count", "changed", "fails"), [(1000, False, False), (1100, False, True), (1100, True, False)]
)
def test_base_in_place_of_the_budget(instructions, monkeypatch, count, changed, fails):
    """A growth beyond the base passes if the budget has changed since."""
    text = instructions.BUDGET.read_text()
    before = {"path": 1000, "of the future": None}, "other" if changed else text
    monkeypatch.setattr(instructions, "count_commit", lambda *_: before)
    budget = {"compiler": "none", "instructions": {}}
    counts = {"path": count, "of the future": 3}
    assert bool(instructions._check(counts, budget, "HEAD~1")) == fails


# --- speedups -----------------------------------------------------------------------------------


def record(case, **measured):
    return {"case": {key: getattr(case, key) for key in case.__dataclass_fields__}, **measured}


def test_speedups_of_all_parts():
    of_tensors = record(
        compare.Case("large", "gradient", 2000, 10),
        seconds={
            "kerneldiff": {"fresh": 0.5, "reused": 0.1},
            "JAX autodiff": {"fresh": 5.0},
            "numba": {"fresh": 2.0, "reused": 1.0},
        },
    )
    given = record(
        compare.Case("large", "gradient", 2000, 10),
        seconds={"kerneldiff": {"fresh": 0.25}, "numba": {"fresh": 0.5}},
    )
    of_product = record(
        products.Case("peers", "kernel_product", 10_000, 3, 1.6),
        seconds={"kerneldiff": 1.0, "numba": 3.0, "NumPy": 4.0, "KeOps": 6.0},
    )
    of_process = record(
        gp_cases.Case("fit", 1000, 10, targets=(("scikit-learn", 3.0),)),
        seconds={"kerneldiff": 1.0, "scikit-learn": 4.0, "Cholesky and inverse": 0.9},
    )
    of_interpolator = record(
        expansions.Case("interpolator", "cubic", 100, 3, 10, (4.0, 2.5)),
        seconds={
            "kerneldiff, value": 1.0,
            "kerneldiff, value, gradient": 2.0,
            "SciPy, value": 6.0,
        },
    )
    found = compare.speedups(
        {
            "as_shipped": [of_tensors],
            "huge_pages": [given],
            "products": [of_product],
            "gaussian_processes": [of_process],
            "expansions": [of_interpolator],
        }
    )
    assert [(s["part"], s["kind"], s["over"], s["times"], s["target"]) for s in found] == [
        ("tensors", "autodiff", "JAX autodiff", 10.0, None),
        ("tensors", "peer", "numba", 4.0, None),
        ("tensors", "huge pages", "numba", 2.0, None),
        ("products", "peer", "numba", 3.0, 1.6),
        ("products", "library", "KeOps", 6.0, 4.5),
        ("gaussian_processes", "library", "scikit-learn", 4.0, 3.0),
        ("expansions", "library", "SciPy", 6.0, 4.0),
        ("expansions", "library", "SciPy", 3.0, 2.5),
    ]
    heads, row, *_ = compare.summary_rows(found)
    assert len(heads) == len(row)
    assert row == ("gradient 2000, D = 10", "10.00", "4.00 numba", "2.00 numba", "–")


def test_ratios_beside_other_work():
    found = record(
        busy.Case("likelihood", 2000, slower=5.0),
        idle={"kerneldiff": 1.0, busy.ONE_THREAD: 9.0, "scikit-learn": 9.0},
        busy={"kerneldiff": 2.0, busy.ONE_THREAD: 1.6, "scikit-learn": 8.0},
    )
    ((heads, *rows),) = busy.tables([json.loads(json.dumps(found))])
    assert {len(row) for row in rows} == {len(heads)}
    assert [row[-3:] for row in rows] == [
        ("1000.0 ms", "2.00", "≤ 5"),
        ("1600.0 ms", "1.25", "≤ 1.4"),
        ("8000.0 ms", "0.25", "≤ 0.7"),
    ]


@pytest.mark.quick(1)
@pytest.mark.parametrize("case", busy.QUICK_CASES, ids=lambda case: case.name)
def test_other_work_begins_and_ends(case, monkeypatch):
    """All kinds of work can be done, and what keeps the processors busy is there for one half."""
    at_work = []
    popen = busy.subprocess.Popen

    def started(*arguments):
        at_work.append(popen(*arguments))
        return at_work[-1]

    monkeypatch.setattr(busy, "_COUNT", "import time; time.sleep(60)")
    monkeypatch.setattr(busy.subprocess, "Popen", started)
    found = busy.measure_case(case, rounds=1, budget=0.1)
    assert found["idle"].keys() == found["busy"].keys()
    assert {"kerneldiff", busy.ONE_THREAD} <= found["idle"].keys()
    assert len(at_work) >= 2
    assert all(process.returncode for process in at_work)


ALL_CASES = (
    *compare.CASES,
    *(case for part in compare.PARTS.values() for case in part.CASES),
)


def test_names_of_cases_are_their_own():
    names = [case.name for case in ALL_CASES]
    assert len(set(names)) == len(names)


# --- what is made of stored results -------------------------------------------------------------


def test_readme_shows_the_stored_results(charts, results):
    text = charts.README.read_text(encoding="utf-8")
    assert charts.readme(results, text) == text


def test_documentation_shows_the_stored_results(charts, results):
    assert charts.TABLES.read_text(encoding="utf-8") == charts.tables(results)


def test_stored_results_name_their_machine_and_day(results):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", results["machine"]["date"])
    assert results["machine"]["processor"]
    assert results["speedups"] == compare.speedups(results)


CHOSEN = [(part, title) for part, titles in load("charts").CHOSEN.items() for title in titles]


@pytest.mark.parametrize(("part", "work"), CHOSEN)
def test_what_is_chosen_has_been_measured(results, part, work):
    assert (part, work) in {(s["part"], s["work"]) for s in results["speedups"]}


def test_chart_is_drawn(charts, results, tmp_path):
    pytest.importorskip("matplotlib")
    files = [tmp_path / name for name in ("one.svg", "other.svg")]
    for file in files:
        charts.draw(results, file, "#123456")
    text = files[0].read_text()
    assert "#123456" in text
    assert files[1].read_text() == text
