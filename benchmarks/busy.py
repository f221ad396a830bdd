"""The part of ``kerneldiff bench`` on a machine whose cores are wanted by others, too.

A library whose threads wait for each other by spinning is slow there out of all proportion: all of
them wait for the one that is not running. Each case is measured alone, and beside as many processes
that only count as there are processors (two at least). All figures are means, as what one waits for
is the sum; peers are measured in turns, in one process.
"""

import contextlib
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from . import gp_peers, measure
from .gp_peers import OURS, SKLEARN

ONE_THREAD = f"{OURS.name}, one thread of BLAS"
#: Points of prediction.
NEW_POINTS = 2000
# Functions of the tanh layer.
_FUNCTIONS = 8

_COUNT = "while True: pass"


@dataclass(frozen=True)
class Case:
    """One kind of work.

    Attributes
    ----------
    subject : str
        The work, one of `SUBJECTS`.
    n, d : int
        Points and columns.
    slower : float, default=3.0
        How many times as long as on an idle machine it may take.
    """

    subject: str
    n: int
    d: int = 5
    slower: float = 3.0

    @property
    def name(self):
        """Short name, for ``--only``."""
        return f"busy-{self.subject}-{self.n}"

    @property
    def title(self):
        """Name in tables."""
        return f"{SUBJECTS[self.subject].title} {self.n}, D = {self.d}"

    @property
    def targets(self):
        """What is compared with, and the ratio that is not to be exceeded."""
        return {"idle": self.slower, ONE_THREAD: 1.4, SKLEARN.name: 0.7}


CASES = (
    *(Case("likelihood", n) for n in (100, 500, 1000)),
    Case("likelihood", 2000, slower=5.0),
    Case("fit", 200),
    Case("predict", 500),
    Case("predict", 1000),
    Case("tanh", 300),
)
QUICK_CASES = (Case("likelihood", 50), Case("predict", 50), Case("tanh", 30))


@contextlib.contextmanager
def other_work():
    """Keep the processors busy meanwhile."""
    counting = [
        subprocess.Popen([sys.executable, "-S", "-c", _COUNT])
        for _ in range(max(2, measure.cpu_count()))
    ]
    try:
        yield
    finally:
        for process in counting:
            process.kill()
        for process in counting:
            process.wait()


def make_calls(case):
    """Make the work of a case, by us with all threads of BLAS and with one, and by scikit-learn.

    Parameters
    ----------
    case : Case

    Returns
    -------
    dict from str to callable
    """
    m = NEW_POINTS if case.subject == "predict" else 0
    inputs = gp_peers.make_inputs(case.n, case.d, m=m)
    calls = {}
    if case.subject == "tanh":
        from sklearn.exceptions import ConvergenceWarning

        from kerneldiff import TanhRegressor

        def ours():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return TanhRegressor(_FUNCTIONS, random_state=0).fit(inputs.X, inputs.y)
    else:
        ours = OURS.make(case.subject, inputs)
        calls[SKLEARN.name] = SKLEARN.make(case.subject, inputs)

    def with_one_thread():
        with measure.pinned_blas(1):
            return ours()

    return {OURS.name: ours, ONE_THREAD: with_one_thread, **calls}


def measure_case(case, *, rounds, budget):
    """Time a case alone and beside other work.

    Parameters
    ----------
    case : Case
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds after which no new round is begun.

    Returns
    -------
    dict
        ``idle`` and ``busy``: means in seconds by implementation.
    """

    def means():
        with measure.pinned_blas():
            timings = measure.interleave(calls, rounds=rounds, budget=budget)
        return {name: statistics.mean(timing.samples) for name, timing in timings.items()}

    calls = make_calls(case)
    idle = means()
    with other_work():
        return {"idle": idle, "busy": means()}


@dataclass(frozen=True)
class _Subject:
    """What cases of a subject are called; all are measured in one way."""

    title: str
    measure: Callable = measure_case
    needs_ours: bool = True


SUBJECTS = {
    "likelihood": _Subject("likelihood and gradient"),
    "fit": _Subject("fit"),
    "predict": _Subject(f"mean and std at {NEW_POINTS} points, N ="),
    "tanh": _Subject("TanhRegressor"),
}


def ratios(case, record):
    """Find how our time beside other work compares, with that on an idle machine and with others'.

    Parameters
    ----------
    case : Case
    record : dict
        One of those that `measure.each_subject` returns.

    Yields
    ------
    name : str
        One of the targets of the case.
    seconds : float
        The other time.
    ratio : float
    """
    busy = record["busy"]
    others = {"idle": record["idle"][OURS.name], **busy}
    for name in case.targets:
        if name in others:
            yield name, others[name], busy[OURS.name] / others[name]


def tables(records):
    """Turn measurements into the rows of tables.

    Parameters
    ----------
    records : list of dict
        What `measure.each_subject` returned.

    Returns
    -------
    list of list of tuple of str
        Tables, each with a row of headings.
    """
    rows = [("beside other work", "compared with", "kerneldiff", "other", "ratio", "target")]
    for record in records:
        case = measure.case_of(record, Case)
        for name, seconds, ratio in ratios(case, record):
            times = (f"{1e3 * t:.1f} ms" for t in (record["busy"][OURS.name], seconds))
            rows.append((case.title, name, *times, f"{ratio:.2f}", f"≤ {case.targets[name]:g}"))
    return [rows] if len(rows) > 1 else []


def speedups(case, record):
    """Find the speedups in what was measured: none, as a busy machine measures no speed.

    Parameters
    ----------
    case : Case
    record : dict

    Returns
    -------
    tuple
    """
    return ()
