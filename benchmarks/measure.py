"""How times, errors and bandwidths are measured.

Times of a shared machine drift by more than the differences of interest, so callables that are
compared are timed in turns, in one process, and their medians are compared. Two properties of
memory would otherwise decide the result:

* A page that a process touches for the first time has to be found and cleared by the system. A
  fresh output therefore costs several times what a reused one costs, and the two are measured
  separately.
* A virtual machine may have handed memory that was freed seconds ago back to its host; the first
  touch after that runs at 1 GB/s and less, whoever comes first. Each timed call therefore follows
  directly upon an untimed one of the same callable, which has touched and freed the same amount of
  memory: output and temporaries, in pages of the same size (touching small pages does not warm huge
  ones).
"""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# OpenMP threads spin for some milliseconds before they sleep.
_SETTLE = 5e-3


@dataclass(frozen=True)
class Timing:
    """Times of one callable.

    Attributes
    ----------
    median : float
        Seconds per call.
    samples : tuple of float
        Seconds per call, one for every round.
    """

    median: float
    samples: tuple


def touched_empty(shape, dtype=np.float64):
    """Allocate an output for reuse: every page touched, in huge pages where NumPy asks for them.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype, default=float64

    Returns
    -------
    ndarray
    """
    out = np.empty(shape, dtype)
    out.fill(0)
    return out


def interleave(
    callables: Mapping[Hashable, Callable],
    *,
    rounds: int = 7,
    minimum_time: float = 2e-3,
    budget: float | None = None,
) -> dict:
    """Time several callables in turns and return their medians.

    Parameters
    ----------
    callables : mapping from hashable to callable
        Functions without arguments. Each is called untimed first, and before each sample.
    rounds : int, default=7
        Samples of each callable.
    minimum_time : float, default=2e-3
        A sample repeats a call that takes less than this many seconds, so that the clock and the
        waking of threads do not matter.
    budget : float, optional
        Seconds after which no new round is begun; at least three rounds are made. A callable that
        takes more than a tenth of them is not repeated: its only sample follows its untimed call.

    Returns
    -------
    dict from hashable to Timing
    """
    once = {name: _sample(function, 1) for name, function in callables.items()}
    slow = {name for name, t in once.items() if budget is not None and t > 0.1 * budget}
    calls = {name: max(1, min(1000, int(minimum_time / max(t, 1e-7)))) for name, t in once.items()}
    samples = {name: [once[name]] if name in slow else [] for name in callables}
    names = [name for name in callables if name not in slow]
    begin = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            if budget is not None and turn >= 3 and time.perf_counter() - begin > budget:
                break
            # Another one begins each round, so that none always follows the same one.
            shift = turn % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                samples[name].append(_sample(callables[name], calls[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(statistics.median(s), tuple(s)) for name, s in samples.items()}


def _sample(function, calls):
    # The threads of the one before may still be spinning in wait of more work.
    time.sleep(_SETTLE)
    function()
    if calls == 1:
        # The result lives until the clock has stopped: freeing it is not the callable's work.
        start = time.perf_counter()
        result = function()
        stop = time.perf_counter()
        del result
        return stop - start
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def speedup(work, kind, over, seconds, other_seconds, target=None):
    """Describe how many times faster one is than another, in a form that JSON can hold.

    Parameters
    ----------
    work : str
        What both do.
    kind : {"autodiff", "peer", "huge pages", "library"}
        What the other one is: automatic differentiation, the fastest that was written by hand, the
        same given huge pages, or a library that people use.
    over : str
        The name of the other one.
    seconds, other_seconds : float
        Times from one interleaved run.
    target : float, optional
        What the ratio is to reach.

    Returns
    -------
    dict
    """
    return {
        "work": work,
        "kind": kind,
        "over": over,
        "seconds": seconds,
        "other_seconds": other_seconds,
        "times": other_seconds / seconds,
        "target": target,
    }


def _parts(out, threads):
    bounds = [len(out) * t // threads for t in range(threads + 1)]
    return [out[a:b] for a, b in itertools.pairwise(bounds)]


def _memset(part):
    ctypes.memset(part.ctypes.data, 1, part.nbytes)


def _assign(part):
    part[...] = 1.0


@contextlib.contextmanager
def fills(nbytes):
    """Ways to write memory that is already the process's own, to time them beside other work.

    Parameters
    ----------
    nbytes : int
        Size of the array written; it should be beyond the last cache.

    Yields
    ------
    dict from (str, int) to callable
        For each method and number of threads (one, and all) a function without arguments. The
        methods are "memset", "plain" (ordinary stores of doubles) and "stream" (non-temporal
        stores; only where kerneldiff is installed, whose compiled core does them).
    """
    out = touched_empty(nbytes // 8)
    counts = sorted({1, cpu_count()})
    with ThreadPoolExecutor(max(counts)) as pool:
        yield {
            (method, threads): function
            for threads in counts
            for method, function in _fill_functions(out, threads, pool).items()
        }


def _fill_functions(out, threads, pool):
    functions = {
        "memset": lambda: list(pool.map(_memset, _parts(out, threads))),
        "plain": lambda: list(pool.map(_assign, _parts(out, threads))),
    }
    if importlib.util.find_spec("kerneldiff") is not None:
        from kerneldiff._core import fill

        functions["plain"] = lambda: fill(out, 1.0, False, threads)
        functions["stream"] = lambda: fill(out, 1.0, True, threads)
    return functions


def fma_loops():
    """Ways to do nothing but fused multiply-adds in all threads, to time them beside other work.

    Returns
    -------
    dict from int to (callable, int)
        For several numbers of independent chains, of which each machine likes another best, a
        function without arguments and how many floating-point operations it does. Empty where
        numba, which compiles them, is not installed.
    """
    if importlib.util.find_spec("numba") is None:
        return {}
    import numba

    steps = 100_000
    return {
        chains: (functools.partial(_fma_loop(chains), steps), _fma_flops(chains, steps, numba))
        # 12 vectors of 2, 4 and 8 numbers, and 20 of the last, for which there are 32 registers.
        for chains in (24, 48, 96, 160)
    }


def _fma_flops(chains, steps, numba):
    return 2 * chains * steps * numba.get_num_threads()


@functools.cache
def _fma_loop(chains):
    from numba import get_num_threads, njit, prange

    @njit(fastmath={"contract"}, parallel=True)
    def loop(steps):
        out = np.empty(get_num_threads())
        for thread in prange(len(out)):
            a = np.ones(chains)
            x = 1 - 1e-9 * (thread + 1)
            for _ in range(steps):
                for j in range(chains):
                    a[j] = a[j] * x + 1e-9
            out[thread] = a.sum()
        return out

    return loop


def resident_memory():
    """Memory of this process now and at most since `reset_peak_memory`.

    Returns
    -------
    tuple of int
        Bytes.

    Raises
    ------
    OSError
        Where the system does not tell; Linux does.
    """
    with open("/proc/self/status", encoding="ascii") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return tuple(1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))


def reset_peak_memory():
    """Forget the peak of this process's memory; Linux only."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def in_new_process(function, request, environment=None):
    """Call a function of this package in a new process.

    Parameters
    ----------
    function : callable
        A function at the top of one of the modules here, of one argument.
    request : object
        Its argument. JSON can hold it, and what the function returns.
    environment : dict from str to str, optional
        Variables that are set for the process.

    Returns
    -------
    object
        What the function returned there.
    """
    # The import path is handed on as it is: "-m" would put the current folder before it, and in a
    # source tree that hides the installed package. asv does without this package's folder in it.
    program = (
        "import importlib, json, pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "call = json.loads(file.read_text())\n"
        "sys.path[:] = call['path']\n"
        "function = getattr(importlib.import_module(call['module']), call['function'])\n"
        "file.write_text(json.dumps(function(call['request'])))\n"
    )
    call = {
        "path": [*sys.path, str(Path(__file__).resolve().parents[__package__.count(".") + 1])],
        "module": function.__module__,
        "function": function.__name__,
        "request": request,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "call.json"
        file.write_text(json.dumps(call))
        subprocess.run(
            [sys.executable, "-P", "-c", program, str(file)],
            env={**os.environ, **(environment or {})},
            check=True,
        )
        return json.loads(file.read_text())


def cpu_count():
    """Processors that this process may use.

    Returns
    -------
    int
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory():
    """Memory that can be had without swapping.

    Returns
    -------
    float
        Bytes; infinity where the system does not tell.
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(1024 * int(l.split()[1]) for l in lines if l.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return math.inf


def pinned_blas(threads=None):
    """Context in which BLAS uses a fixed number of threads.

    Parameters
    ----------
    threads : int, optional
        By default, the processors that this process may use.

    Returns
    -------
    context manager
        Does nothing where threadpoolctl is not installed.
    """
    try:
        import threadpoolctl
    except ImportError:
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(limits=threads or cpu_count(), user_api="blas")


def refuse_editable_install():
    """Raise where kerneldiff is installed in editable mode, or not at all.

    Raises
    ------
    RuntimeError
        An editable install runs the build on import and may have been compiled with other options;
        what it does is not what users get.
    """
    try:
        origin = importlib.metadata.distribution("kerneldiff").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            "the benchmarks need kerneldiff: install it with 'pip install .'"
        ) from None
    if json.loads(origin or "{}").get("dir_info", {}).get("editable", False):
        raise RuntimeError(
            "kerneldiff is installed in editable mode, which is not what users run: "
            "install it with 'pip install .' to benchmark it"
        )


def medians(calls, *, rounds, budget, threads=None):
    """Time calls in turns, with a fixed number of threads of BLAS.

    Parameters
    ----------
    calls : dict from str to callable
    rounds, budget
        As for `interleave`.
    threads : int, optional
        As for `pinned_blas`.

    Returns
    -------
    dict from str to float
        Medians, in seconds.
    """
    with pinned_blas(threads):
        timings = interleave(calls, rounds=rounds, budget=budget)
    return {name: timing.median for name, timing in timings.items()}


def each(cases, measure):
    """Measure cases one after the other, with a line of progress for each on stderr.

    Parameters
    ----------
    cases : iterable of dataclass
        Each has a title.
    measure : callable
        Takes a case and returns what was measured, a dict; or None if it can't be measured here.

    Returns
    -------
    list of dict
        What was measured, with the attributes of the case.
    """
    records = []
    cases = list(cases)
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {case.title}", file=sys.stderr, flush=True)
        found = measure(case)
        if found is not None:
            records.append({"case": dataclasses.asdict(case), **found})
    return records


def each_subject(cases, subjects, *, rounds, budget):
    """Measure cases by their subjects; what needs kerneldiff is left out where it is missing.

    Parameters
    ----------
    cases : iterable of dataclass
        Each has a title and a subject.
    subjects : dict
        By name, with the attributes ``measure`` and ``needs_ours``.
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds for one case after which no new round is begun.

    Returns
    -------
    list of dict
        As `each` returns it.
    """
    ours = importlib.util.find_spec("kerneldiff") is not None

    def measure_one(case):
        subject = subjects[case.subject]
        if subject.needs_ours and not ours:
            return None
        return subject.measure(case, rounds=rounds, budget=budget)

    return each(cases, measure_one)


def case_of(record, kind):
    """Make a case again from its attributes, of which JSON has made lists.

    Parameters
    ----------
    record : dict
        One of those that `each` returns.
    kind : type
        The class of the case.

    Returns
    -------
    dataclass
    """

    def hashable(value):
        return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value

    return kind(**{name: hashable(value) for name, value in record["case"].items()})
