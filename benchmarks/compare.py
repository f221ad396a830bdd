"""The comparison that ``kerneldiff bench`` prints.

Every case times all implementations that are installed in turns, in one process, and compares their
medians. The cases with large outputs are run a second time in a process whose memory allocator asks
for huge pages (``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``): NumPy asks for them by itself, most
others do not, and it changes their times by a factor of three to five.

GPyTorch takes part in the joint covariances of values and gradients where it is installed, PyTorch
and KeOps in the products; none of the project's extras installs them, because PyTorch takes
gigabytes and KeOps compiles with the compiler of the system.
"""

import argparse
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from . import busy, expansions, gp_cases, measure, peers, products

# Parts with cases, measurements and tables of their own, by their names in the results.
PARTS = {
    "products": products,
    "gaussian_processes": gp_cases,
    "expansions": expansions,
    "busy": busy,
}

# Kinds of speedups, by the headings of their columns.
_KINDS = {
    "autodiff": "JAX autodiff",
    "peer": "fastest peer",
    "huge pages": "fastest peer given huge pages",
    "library": "libraries",
}

_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_LIBRARIES = (
    *("kerneldiff", "numpy", "scipy", "scikit-learn", "jax", "numba"),
    # In none of the project's extras.
    *("gpytorch", "torch", "pykeops"),
)
# The write bandwidth of memory means nothing for arrays that stay in a cache.
_BEYOND_CACHES = 1 << 26
_TITLES = {
    "kernel_matrix": "kernel matrix",
    "gradient": "gradient",
    "hessian_diag": "Hessian diagonal",
    "hessian": "Hessian",
    "hessian_packed": "packed Hessian",
    "joint_covariance": "joint covariance",
    "joint_covariance_lower": "its lower triangle",
    "tanh_jacobian": "tanh Jacobian",
}


# Operations that leave out what symmetry gives, and the complete ones.
_HALVES = {"hessian_packed": "hessian", "joint_covariance_lower": "joint_covariance"}


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes
    ----------
    group : {"large", "small", "threads", "families"}
        Large outputs are also run with huge pages and compared with the write bandwidth; small
        work shows what a call costs; "threads" compares one thread with all of them, "families"
        other kernels with the RBF.
    operation : str
        One of ``peers.OPERATIONS``.
    n, d : int
        Points (of X and of Y) and columns.
    k : int, optional
        Number of tanh units.
    """

    group: str
    operation: str
    n: int
    d: int
    k: int | None = None

    @property
    def name(self):
        """Short name, for ``--only``."""
        return f"{self.group}-{self.operation}-{self.n}-{self.d}"

    @property
    def title(self):
        """Name in tables."""
        units = f", K = {self.k}" if self.k else ""
        return f"{_TITLES[self.operation]} {self.n}, D = {self.d}{units}"

    def inputs(self):
        """Make the data."""
        return peers.make_inputs(self.operation, self.n, self.d, self.k or 0)


CASES = (
    Case("large", "kernel_matrix", 5000, 10),
    Case("large", "gradient", 2000, 2),
    Case("large", "gradient", 2000, 10),
    Case("large", "hessian_diag", 1000, 10),
    Case("large", "hessian", 500, 10),
    Case("large", "hessian", 1000, 10),
    Case("large", "hessian", 500, 20),
    Case("large", "hessian_packed", 1000, 10),
    Case("large", "joint_covariance", 1000, 5),
    Case("large", "joint_covariance_lower", 1000, 5),
    Case("large", "joint_covariance", 1000, 10),
    Case("large", "joint_covariance_lower", 1000, 10),
    Case("large", "tanh_jacobian", 100_000, 10, 50),
    *(
        Case("small", operation, n, d)
        for operation in ("gradient", "hessian")
        for n in (100, 200, 500)
        for d in (2, 5, 10)
    ),
    Case("threads", "kernel_matrix", 5000, 10),
    Case("threads", "gradient", 2000, 2),
    Case("threads", "gradient", 2000, 3),
    Case("families", "gradient", 2000, 10),
    Case("families", "hessian", 1000, 10),
)

QUICK_CASES = (
    Case("large", "kernel_matrix", 800, 5),
    Case("large", "gradient", 1000, 10),
    Case("large", "hessian_diag", 500, 5),
    Case("large", "hessian", 300, 5),
    Case("large", "hessian_packed", 300, 5),
    Case("large", "joint_covariance", 200, 5),
    Case("large", "joint_covariance_lower", 200, 5),
    Case("large", "tanh_jacobian", 5000, 5, 20),
    Case("small", "gradient", 100, 2),
    Case("small", "hessian", 100, 5),
    Case("threads", "gradient", 500, 2),
    Case("families", "hessian", 300, 5),
)


def measure_case(case, *, rounds, budget, among=None):
    """Time all implementations of one case in turns.

    Parameters
    ----------
    case : Case
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds after which no new round is begun.
    among : collection of str, optional
        Names of the implementations; by default all that are installed.

    Returns
    -------
    dict
        Size of the output, seconds per call (medians) of each implementation with "fresh" and,
        where it takes one, "reused" output, relative errors, and for outputs beyond the caches the
        seconds that writing as much memory takes.
    """
    inputs = case.inputs()
    shape = peers.output_shape(case.operation, inputs)
    out = measure.touched_empty(shape)
    nbytes = out.nbytes
    callables, errors = {}, {}
    for peer in peers.installed_peers():
        if among is not None and peer.name not in among:
            continue
        if not (peer.offers(case.operation, case.d) and peer.fits(case.operation, inputs)):
            continue
        fresh = callables[peer.name, "fresh"] = peer.bind(case.operation, inputs)
        errors[peer.name] = peers.relative_error(case.operation, inputs, fresh())
        if peer.reuses:
            callables[peer.name, "reused"] = peer.bind(case.operation, inputs, out)
    with measure.pinned_blas(), measure.fills(nbytes) as fills:
        if nbytes >= _BEYOND_CACHES:
            callables |= {("fill", method, threads): f for (method, threads), f in fills.items()}
        timings = measure.interleave(callables, rounds=rounds, budget=budget)
    record = {"nbytes": nbytes, "seconds": {}, "relative_error": errors, "fill_seconds": {}}
    for (name, *detail), timing in timings.items():
        if name == "fill":
            record["fill_seconds"]["{} {}".format(*detail)] = timing.median
        else:
            record["seconds"].setdefault(name, {})[detail[0]] = timing.median
    return record


def measure_threads(case, *, rounds, budget):
    """Time our implementation of one case with one thread and with all of them, in turns.

    Parameters
    ----------
    case : Case
    rounds : int
        Samples of each.
    budget : float
        Seconds after which no new round is begun.

    Returns
    -------
    dict
        Seconds per call (medians), by number of threads.
    """
    import threadpoolctl

    inputs = case.inputs()
    out = measure.touched_empty(peers.output_shape(case.operation, inputs))
    call = peers.OURS.bind(case.operation, inputs, out)
    controller = threadpoolctl.ThreadpoolController()

    def one_thread():
        with controller.limit(limits=1, user_api="openmp"):
            call()

    count = measure.cpu_count()
    timings = measure.interleave({1: one_thread, count: call}, rounds=rounds, budget=budget)
    return {"nbytes": out.nbytes, "threads": {n: t.median for n, t in timings.items()}}


def measure_families(case, *, rounds, budget, among=None):
    """Time our tensor of several kernels in turns, output reused.

    Parameters
    ----------
    case : Case
        Its operation is "gradient" or "hessian".
    rounds : int
        Samples of each.
    budget : float
        Seconds after which no new round is begun.
    among : collection of str, optional
        Names of the kernels; by default all of ``peers.families``.

    Returns
    -------
    dict
        Seconds per call (medians), by name of the kernel.
    """
    import kerneldiff

    tensor = getattr(kerneldiff, case.operation)
    X, Y, _ = inputs = case.inputs()
    out = measure.touched_empty(peers.output_shape(case.operation, inputs))
    callables = {
        name: functools.partial(tensor, kernel, X, Y, out=out)
        for name, kernel in peers.families(case.d).items()
        if among is None or name in among
    }
    timings = measure.interleave(callables, rounds=rounds, budget=budget)
    return {"nbytes": out.nbytes, "families": {name: t.median for name, t in timings.items()}}


def _can_measure_threads():
    return (
        peers.OURS.installed
        and importlib.util.find_spec("threadpoolctl") is not None
        and measure.cpu_count() > 1
    )


def measure_all(cases, *, rounds, budget, among=None):
    """Measure cases one after the other, with a line of progress for each on stderr.

    Parameters
    ----------
    cases : iterable of Case
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds for one case after which no new round is begun.
    among : collection of str, optional
        Names of the implementations; by default all that are installed.

    Returns
    -------
    list of dict
        What was measured, with the attributes of the case.
    """

    def measure_one(case):
        if case.group == "families" and peers.OURS.installed:
            return measure_families(case, rounds=rounds, budget=budget)
        if case.group == "threads" and _can_measure_threads():
            return measure_threads(case, rounds=rounds, budget=budget)
        if case.group in ("large", "small"):
            return measure_case(case, rounds=rounds, budget=budget, among=among)
        return None

    return measure.each(cases, measure_one)


def _huge_pages_possible():
    """Whether the allocator can be told to ask for huge pages, and the system gives them."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return False
    return _THP.exists() and "[never]" not in _THP.read_text()


def measure_with_huge_pages(cases, *, rounds, budget, among=None):
    """Do the same as `measure_all` in a new process whose allocator asks for huge pages.

    Parameters
    ----------
    cases : iterable of Case
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds for one case after which no new round is begun.
    among : collection of str, optional
        Names of the implementations; by default all that are installed.

    Returns
    -------
    list of dict
        Empty where the allocator or the system has no huge pages to give.
    """
    if not _huge_pages_possible():
        return []
    request = {
        "cases": [asdict(case) for case in cases],
        "options": {"rounds": rounds, "budget": budget, "among": among and list(among)},
    }
    return measure.in_new_process(answer, request, _HUGE_PAGES)


def answer(request):
    """Measure what another process asks for.

    Parameters
    ----------
    request : dict
        ``cases`` and the ``options`` of `measure_all`.

    Returns
    -------
    list of dict
        What `measure_all` returns.
    """
    cases = [Case(**case) for case in request["cases"]]
    return measure_all(cases, **request["options"])


def machine():
    """Describe the machine and the software that figures belong to.

    Returns
    -------
    dict
    """
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "processors": measure.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for library in _LIBRARIES:
        try:
            facts[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            facts[library] = None
    if peers.OURS.installed:
        from kerneldiff._core import config

        facts["isa"] = config()["isa"]
        facts["compiler"] = config()["compiler"]
    if hasattr(os, "getloadavg"):
        facts["load"] = os.getloadavg()[0]
    return facts


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        if "model name" in fields:
            number = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
            return f"{fields['model name']} ({number})"
    return platform.processor() or platform.machine()


# --- from records to rows -----------------------------------------------------------------------


def fastest(record, kind, output, *, own_pages=True):
    """Find the fastest implementation in what `measure_case` returned.

    Parameters
    ----------
    record : dict
    kind : {"ours", "baseline", "peer"}
    output : {"fresh", "reused"}
    own_pages : bool, default=True
        Leave out peers whose output NumPy allocates for them.

    Returns
    -------
    tuple of (float, str) or None
        Seconds and name; None if there is none of this kind.
    """
    found = [
        (record["seconds"][peer.name][output], peer.name)
        for peer in peers.PEERS
        if peer.kind == kind
        and output in record["seconds"].get(peer.name, {})
        and not (own_pages and peer.numpy_pages)
    ]
    return min(found) if found else None


def _milliseconds(seconds):
    if seconds is None:
        return "–"
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _named(found):
    return "–" if found is None else f"{_milliseconds(found[0])} {found[1]}"


def _ratio(other, ours):
    return None if other is None or ours is None else other[0] / ours[0]


def _pair(fresh, reused):
    texts = ("–" if value is None else f"{value:.2f}" for value in (fresh, reused))
    return " / ".join(texts)


def _time_rows(plain, huge):
    yield (
        "milliseconds",
        "MB",
        "JAX autodiff",
        "fastest peer",
        "given huge pages",
        "reused output",
        "kerneldiff fresh",
        "reused",
    )
    for case, record in plain.items():
        if not record["seconds"]:
            continue
        ours = [fastest(record, "ours", output) for output in ("fresh", "reused")]
        given = fastest(huge[case], "peer", "fresh", own_pages=False) if case in huge else None
        baseline = fastest(record, "baseline", "fresh")
        yield (
            case.title,
            f"{record['nbytes'] / 1e6:.0f}",
            _milliseconds(baseline and baseline[0]),
            _named(fastest(record, "peer", "fresh")),
            _named(given),
            _named(fastest(record, "peer", "reused")),
            *(_milliseconds(found and found[0]) for found in ours),
        )


def _ratio_rows(plain, huge):
    yield (
        "times faster (fresh / reused)",
        "JAX autodiff",
        "fastest peer",
        "given huge pages",
        "both reuse",
        "relative error",
        "largest of peers",
    )
    for case, record in plain.items():
        fresh, reused = (fastest(record, "ours", output) for output in ("fresh", "reused"))
        baseline = fastest(record, "baseline", "fresh")
        peer = fastest(record, "peer", "fresh")
        given = "–"
        if case in huge:
            other = fastest(huge[case], "peer", "fresh", own_pages=False)
            ours = [fastest(huge[case], "ours", output) for output in ("fresh", "reused")]
            given = _pair(*(_ratio(other, found) for found in ours))
        both = _ratio(fastest(record, "peer", "reused"), reused)
        errors = record["relative_error"]
        others = [error for name, error in errors.items() if name != peers.OURS.name]
        own = errors.get(peers.OURS.name)
        yield (
            case.title,
            _pair(_ratio(baseline, fresh), _ratio(baseline, reused)),
            _pair(_ratio(peer, fresh), _ratio(peer, reused)),
            given,
            "–" if both is None else f"{both:.2f}",
            "–" if own is None else f"{own:.1e}",
            f"{max(others):.1e}" if others else "–",
        )


def _bandwidth_rows(plain):
    yield ("GB/s", "kerneldiff reused", "stream", "best fill", "of stream", "of best fill")
    for case, record in plain.items():
        fills = {name: record["nbytes"] / t / 1e9 for name, t in record["fill_seconds"].items()}
        reused = fastest(record, "ours", "reused")
        # Of a triangle in a square, less than the size of the array is written.
        if reused is None or not fills or case.operation == "joint_covariance_lower":
            continue
        own = record["nbytes"] / reused[0] / 1e9
        streams = [speed for name, speed in fills.items() if name.startswith("stream")]
        stream = max(streams, default=None)
        best = max(fills, key=fills.get)
        yield (
            case.title,
            f"{own:.1f}",
            "–" if stream is None else f"{stream:.1f}",
            f"{fills[best]:.1f} {best}",
            "–" if stream is None else f"{own / stream:.0%}",
            f"{own / fills[best]:.0%}",
        )


def _small_rows(small):
    yield (
        "microseconds",
        "JAX autodiff",
        "fastest peer",
        "kerneldiff fresh",
        "reused",
        "fresh − peer",
    )
    for case, record in small.items():
        fresh, reused = (fastest(record, "ours", output) for output in ("fresh", "reused"))
        peer = fastest(record, "peer", "fresh")
        baseline = fastest(record, "baseline", "fresh")
        difference = None if fresh is None else fresh[0] - peer[0]
        yield (
            case.title,
            "–" if baseline is None else f"{1e6 * baseline[0]:.0f}",
            f"{1e6 * peer[0]:.0f} {peer[1]}",
            *("–" if found is None else f"{1e6 * found[0]:.0f}" for found in (fresh, reused)),
            "–" if difference is None else f"{1e6 * difference:+.0f}",
        )


def _thread_rows(threads):
    yield ("milliseconds, reused output", "1 thread", "all threads", "times faster")
    for case, record in threads.items():
        one, *_, several = (record["threads"][key] for key in sorted(record["threads"]))
        yield case.title, _milliseconds(one), _milliseconds(several), f"{one / several:.2f}"


def _family_rows(families):
    """Times of kernels in units of the RBF's, one row for each kernel."""
    yield ("times as long as the RBF, reused output", *(case.title for case in families))
    seconds = [record["families"] for record in families.values()]
    for name in seconds[0] if seconds else ():
        if name != "RBF":
            yield name, *(f"{times[name] / times['RBF']:.2f}" for times in seconds)


def _other_rows(plain):
    """Ratios between operations of ours: what leaving out a symmetric half saves."""
    full = {(c.operation, c.n, c.d): r for c, r in plain.items()}
    rows = []
    for case, record in plain.items():
        whole = full.get((_HALVES.get(case.operation), case.n, case.d))
        if whole is not None:
            pairs = [
                (fastest(whole, "ours", out), fastest(record, "ours", out))
                for out in ("fresh", "reused")
            ]
            if all(a and b for a, b in pairs):
                rows.append((case.title, _pair(*(_ratio(a, b) for a, b in pairs))))
    return [("times faster than the full one", "fresh / reused"), *rows] if rows else []


def speedups(results):
    """List the speedups in measurements: what charts are made of.

    Parameters
    ----------
    results : dict
        ``as_shipped``, ``huge_pages`` and the names of `PARTS`, as `run` returns them.

    Returns
    -------
    list of dict
        As `measure.speedup` makes them, with the ``part`` that each belongs to. Output is fresh for
        all.
    """
    found = []
    kinds = (("autodiff", "baseline", True), ("peer", "peer", True), ("huge pages", "peer", False))
    plain = _group(results["as_shipped"], "large")
    huge = _group(results["huge_pages"], "large")
    for case, record in plain.items():
        for label, kind, own_pages in kinds:
            source = record if own_pages else huge.get(case)
            ours = source and fastest(source, "ours", "fresh")
            other = source and fastest(source, kind, "fresh", own_pages=own_pages)
            if ours and other:
                speedup = measure.speedup(case.title, label, other[1], ours[0], other[0])
                found.append({"part": "tensors", **speedup})
    for name, part in PARTS.items():
        # Results that were stored before there was a part have none of it.
        for record in results.get(name, ()):
            case = measure.case_of(record, part.Case)
            found.extend({"part": name, **speedup} for speedup in part.speedups(case, record))
    return found


def _group(records, name):
    cases = {Case(**record["case"]): record for record in records}
    return {case: record for case, record in cases.items() if case.group == name}


#: Ways to write a table, and what tabulate calls them.
STYLES = {"plain": "simple", "markdown": "pipe", "rst": "rst"}


def write_table(rows, style):
    """Write rows, of which the first is the header, as a table in one of `STYLES`."""
    header, *rest = rows
    aligned = ("left", *["right"] * (len(header) - 1))
    return tabulate(rest, header, STYLES[style], colalign=aligned, disable_numparse=True)


def describe(facts):
    """Name the machine, the software and the day.

    Parameters
    ----------
    facts : dict
        What `machine` returns.

    Returns
    -------
    str
    """
    versions = ", ".join(f"{name} {facts[name]}" for name in _LIBRARIES if facts.get(name))
    isa = f", {facts['isa']}" if "isa" in facts else ""
    text = (
        f"{facts['processor']}, {facts['processors']} processors{isa}; {facts['system']}, "
        f"Python {facts['python']}, {versions}; {facts['date']}."
    )
    if facts.get("load", 0) > 0.5 * facts["processors"]:
        text += (
            f" The machine was busy, with a load of {facts['load']:.1f}: figures of this run are "
            "not worth quoting."
        )
    return text


def summary_rows(found):
    """Turn speedups into the rows of one table.

    Parameters
    ----------
    found : list of dict
        What `speedups` returns, or some of them.

    Yields
    ------
    tuple of str
        One row for each work, after one of headings.
    """
    yield ("times faster than", *_KINDS.values())
    works = {}
    for speedup in found:
        cells = works.setdefault((speedup["part"], speedup["work"]), {kind: [] for kind in _KINDS})
        name = "" if speedup["kind"] == "autodiff" else f" {speedup['over']}"
        cells[speedup["kind"]].append(f"{speedup['times']:.2f}{name}")
    for (_, work), cells in works.items():
        yield work, *(", ".join(texts) or "–" for texts in cells.values())


def report(results, *, style="plain"):
    """Turn measurements into tables.

    Parameters
    ----------
    results : dict
        What `run` returns.
    style : {"plain", "markdown", "rst"}, default="plain"
        How tables are written.

    Returns
    -------
    str
        The tables, and the machine.
    """
    plain = _group(results["as_shipped"], "large")
    huge = _group(results["huge_pages"], "large")
    tables = [
        summary_rows(results["speedups"]),
        _time_rows(plain, huge) if plain else [],
        _ratio_rows(plain, huge) if plain else [],
        _other_rows(plain),
        _bandwidth_rows(plain),
        _small_rows(_group(results["as_shipped"], "small")),
        _thread_rows(_group(results["as_shipped"], "threads")),
        _family_rows(_group(results["as_shipped"], "families")),
        *(rows for name, part in PARTS.items() for rows in part.tables(results.get(name, []))),
    ]
    texts = [write_table(rows, style) for rows in map(list, tables) if len(rows) > 1]
    notes = [describe(results["machine"])]
    if plain and not huge:
        notes.append("Huge pages for the peers: not measured (needs glibc 2.35 and Linux).")
    return "\n\n".join([*texts, *notes])


def run(cases, *, rounds, budget):
    """Measure cases as shipped and, the ones with large outputs, with huge pages.

    Parameters
    ----------
    cases : iterable of Case, and of those of `PARTS`
    rounds : int
        Samples of each implementation.
    budget : float
        Seconds for one case after which no new round is begun.

    Returns
    -------
    dict
        ``machine``, ``as_shipped``, ``huge_pages``, the names of `PARTS`, and the ``speedups`` in
        all of them; JSON can hold it.
    """
    cases = list(cases)
    of_tensors = [case for case in cases if isinstance(case, Case)]
    facts = machine()
    found = {
        name: measure.each_subject(
            [case for case in cases if isinstance(case, part.Case)],
            part.SUBJECTS,
            rounds=rounds,
            budget=budget,
        )
        for name, part in PARTS.items()
    }
    plain = measure_all(of_tensors, rounds=rounds, budget=budget)
    large = [case for case in of_tensors if case.group == "large"]
    huge = []
    if large:
        print("again, with huge pages for all", file=sys.stderr, flush=True)
        huge = measure_with_huge_pages(large, rounds=rounds, budget=budget)
    # Through JSON, so that the same comes out of a file.
    results = {"machine": facts, "as_shipped": plain, "huge_pages": huge, **found}
    return json.loads(json.dumps({**results, "speedups": speedups(results)}))


def _parser():
    parser = argparse.ArgumentParser(
        prog="kerneldiff bench",
        description="Compare the speed of kerneldiff with JAX (automatic differentiation and "
        "derived by hand), numba, scikit-learn, SciPy, NumPy, GPyTorch, PyTorch and KeOps, as far "
        "as they are installed (the last three, for joint covariances and products, are in none "
        "of the extras). "
        "Times are medians of interleaved calls; errors are relative to results in extended "
        "precision. Takes a few minutes; a machine that does nothing else gives the best figures.",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="WORD",
        default=[""],
        help="cases with one of these words in their names, such as hessian, large, "
        "gradient-2000, small-hessian, products, products-peers, gp, gp-predict, expansions, busy",
    )
    parser.add_argument("--rounds", type=int, help="samples of each (default: 9, quick: 3)")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser


def main(argv=None):
    """Run the comparison: the command ``kerneldiff bench``.

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
    cases = QUICK_CASES if options.quick else CASES
    for part in PARTS.values():
        cases = (*cases, *(part.QUICK_CASES if options.quick else part.CASES))
    cases = [case for case in cases if any(word in case.name for word in options.only)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        parser.error(f"no case has any of these words in its name: {' '.join(options.only)}")
    if peers.OURS.installed:
        measure.refuse_editable_install()
    rounds = options.rounds or (3 if options.quick else 9)
    results = run(cases, rounds=rounds, budget=2 if options.quick else 20)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    print(report(results, style="markdown" if options.markdown else "plain"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
