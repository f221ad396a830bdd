"""The part of ``kerneldiff bench`` on Gaussian process regression.

Each case measures what is compared in turns, in one process and with the same threads of BLAS, and
knows the targets of its ratios. All but the memory are medians.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import gp_peers, measure
from .gp_peers import GPYTORCH, LAPACK, OURS, SKLEARN

#: Relative differences of likelihoods, and of means and deviations, that two libraries may have.
LARGEST_DIFFERENCE = 1e-6
#: Points of prediction.
NEW_POINTS = 10_000
# Points at which the rotation predicts.
_FEW_POINTS = 100


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    subject : str
        What is measured, one of `SUBJECTS`.
    n, d : int
        Points and columns.
    gradients : bool, default=False
        Whether gradients are learned from, too.
    targets : tuple of (str, float)
        What is compared with, and the ratio that is to be reached, or not to be exceeded.
    """

    subject: str
    n: int
    d: int
    gradients: bool = False
    targets: tuple = ()

    @property
    def name(self):
        """Short name, for ``--only``."""
        ending = "-gradients" if self.gradients else ""
        return f"gp-{self.subject}-{self.n}-{self.d}{ending}"

    @property
    def title(self):
        """Name in tables."""
        ending = ", with gradients" if self.gradients else ""
        return f"{SUBJECTS[self.subject].title} {self.n}, D = {self.d}{ending}"


CASES = (
    *(
        Case(
            "likelihood",
            2000,
            d,
            targets=((SKLEARN.name, least), (GPYTORCH.name, 2.3), (LAPACK.name, 1.2)),
        )
        for d, least in ((3, 2.3), (10, 4.0))
    ),
    Case(
        "likelihood",
        200,
        10,
        gradients=True,
        targets=((GPYTORCH.name, 3.8), (LAPACK.name, 1.15)),
    ),
    Case("fit", 1000, 10, targets=((SKLEARN.name, 3.0),)),
    Case("predict", 500, 10, targets=((SKLEARN.name, 2.0),)),
    Case("predict", 1000, 10, targets=((SKLEARN.name, 2.0),)),
    Case("predict", 2000, 10, targets=((SKLEARN.name, 1.4),)),
    Case(
        "rotation",
        50,
        10_000,
        gradients=True,
        targets=(("likelihood", 0.6), ("fit and predictions", 1.0), ("GiB", 1.0)),
    ),
    Case("memory", 5000, 3, targets=(("matrices", 1.1),)),
    Case("memory", 300, 15, gradients=True, targets=(("matrices", 1.1),)),
)

QUICK_CASES = (
    Case("likelihood", 200, 3),
    Case("likelihood", 30, 3, gradients=True),
    Case("fit", 60, 2),
    Case("predict", 50, 3),
    Case("rotation", 5, 100, gradients=True),
    Case("memory", 1000, 3),
)


# --- what is measured ---------------------------------------------------------------------------


def make_calls(case):
    """Make the work of a case by all libraries that are installed and do it.

    Parameters
    ----------
    case : Case

    Returns
    -------
    dict from str to callable
    """
    m = NEW_POINTS if case.subject == "predict" else 0
    inputs = gp_peers.make_inputs(case.n, case.d, gradients=case.gradients, m=m)
    calls = {}
    for implementation in gp_peers.IMPLEMENTATIONS:
        if implementation.installed and (implementation.gradients or not case.gradients):
            call = implementation.make(case.subject, inputs)
            if call is not None:
                calls[implementation.name] = call
    return calls


def _agree(case, name, one, other):
    one, other = np.asarray(one), np.asarray(other)
    difference = float(np.abs(one - other).max() / np.abs(other).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise RuntimeError(f"{case.title}: we and {name} differ by {difference:.1e}")
    return difference


def measure_likelihood(case, *, rounds, budget):
    """Time likelihoods with their gradients, which have to be the same."""
    calls = make_calls(case)
    values = {name: call() for name, call in calls.items()}
    differences = {}
    if SKLEARN.name in calls:
        pairs = zip(values[OURS.name], values[SKLEARN.name], strict=True)
        differences[SKLEARN.name] = max(_agree(case, SKLEARN.name, a, b) for a, b in pairs)
    if GPYTORCH.name in calls:
        pair = values[OURS.name][0], values[GPYTORCH.name][0]
        differences[GPYTORCH.name] = _agree(case, GPYTORCH.name, *pair)
    return {
        "seconds": measure.medians(calls, rounds=rounds, budget=budget),
        "difference": differences,
    }


def measure_fit(case, *, rounds, budget):
    """Time whole fits, and compare the optima."""
    calls = make_calls(case)
    found = {}

    def keep(name):
        def call():
            found[name] = calls[name]()

        return call

    seconds = measure.medians({name: keep(name) for name in calls}, rounds=rounds, budget=budget)
    optima = {name: model.log_marginal_likelihood_value_ for name, model in found.items()}
    difference = _agree(case, SKLEARN.name, optima[OURS.name], optima[SKLEARN.name])
    return {"seconds": seconds, "difference": {SKLEARN.name: difference}}


def measure_predict(case, *, rounds, budget):
    """Time means and standard deviations at `NEW_POINTS` points."""
    calls = make_calls(case)
    pairs = zip(calls[OURS.name](), calls[SKLEARN.name](), strict=True)
    difference = max(_agree(case, SKLEARN.name, a, b) for a, b in pairs)
    seconds = measure.medians(calls, rounds=rounds, budget=budget)
    return {"seconds": seconds, "difference": {SKLEARN.name: difference}}


def _rotation(n, d):
    """Make the calls of a case whose joint covariance matrix is never built."""
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    from kerneldiff import GaussianProcessRegressor

    inputs = gp_peers.make_inputs(n, d, gradients=True, m=_FEW_POINTS)
    kernel = ConstantKernel(gp_peers.AMPLITUDE) * RBF(math.sqrt(d))

    def model():
        return GaussianProcessRegressor(
            kernel, alpha=1e-4, alpha_gradient=1e-4, optimizer=None, solver="rotation"
        ).fit(inputs.X, inputs.y, inputs.dy)

    def fit_and_predict():
        fitted = model()
        values = fitted.predict(inputs.X_test, return_std=True)
        return values, fitted.predict_gradient(inputs.X_test, return_std=True)

    fitted = model()
    theta = fitted.kernel_.theta
    return {
        "likelihood": lambda: fitted.log_marginal_likelihood(theta, True, clone_kernel=False),
        "fit and predictions": fit_and_predict,
    }


def measure_rotation(case, *, rounds, budget):
    """Time what the rotation does where there are fewer points than columns, and its memory."""
    found = measure.medians(_rotation(case.n, case.d), rounds=rounds, budget=budget)
    used = measure.in_new_process(peak_memory_of_rotation, [case.n, case.d])
    return {"seconds": found, "bytes": used}


def peak_memory_of_rotation(request):
    """Memory that the calls of `measure_rotation` take, with all that is imported.

    Parameters
    ----------
    request : sequence of int
        Number of points and of columns.

    Returns
    -------
    int or None
        Bytes; None where the system does not tell.
    """
    for call in _rotation(*request).values():
        call()
    try:
        return measure.resident_memory()[1]
    except OSError:
        return None


def measure_memory(case, *, rounds, budget):
    """Measure the memory of a fit, in a new process."""
    size = case.n * (1 + case.d) if case.gradients else case.n
    used = measure.in_new_process(peak_memory_of_fit, [case.n, case.d, case.gradients])
    return {"bytes": used, "matrix": 8 * size**2}


def peak_memory_of_fit(request):
    """Memory that a fit with one likelihood and its gradient takes beyond the data.

    Parameters
    ----------
    request : sequence
        Number of points and of columns, and whether gradients are learned from.

    Returns
    -------
    int or None
        Bytes; None where the system does not tell.
    """
    from kerneldiff import GaussianProcessRegressor

    def evaluate_once(objective, theta, bounds):
        return theta, objective(theta)[0]

    def fit(n):
        inputs = gp_peers.make_inputs(n, d, gradients=gradients)
        slopes = (inputs.dy,) if gradients else ()
        kernel = gp_peers.make_kernel(inputs)
        model = GaussianProcessRegressor(kernel, optimizer=evaluate_once, solver="cholesky")
        before, _ = measure.resident_memory()
        model.fit(inputs.X, inputs.y, *slopes)
        return before

    n, d, gradients = request
    try:
        # What threads and libraries allocate once.
        fit(20)
        measure.reset_peak_memory()
        before = fit(n)
        return measure.resident_memory()[1] - before
    except OSError:
        return None


# --- tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """How cases of a subject are called, measured and shown."""

    title: str
    measure: Callable
    rows: Callable
    needs_ours: bool = True


def _milliseconds(seconds):
    return f"{1e3 * seconds:.1f} ms"


def _ratio_rows(case, record):
    targets = dict(case.targets)
    seconds = dict(record["seconds"])
    ours = seconds.pop(OURS.name)
    for name, other in seconds.items():
        # LAPACK alone is a bound: we take longer.
        below = name == LAPACK.name
        ratio = ours / other if below else other / ours
        sign = "≤" if below else "≥"
        difference = record["difference"].get(name)
        yield (
            name,
            _milliseconds(ours),
            _milliseconds(other),
            f"{ratio:.2f}",
            f"{sign} {targets[name]:g}" if name in targets else "–",
            "–" if difference is None else f"{difference:.0e}",
        )


def _limit(case, name):
    target = dict(case.targets).get(name)
    return "–" if target is None else f"≤ {target:g}"


def _rotation_rows(case, record):
    for name, seconds in record["seconds"].items():
        limit = _limit(case, name)
        yield name, _milliseconds(seconds), "–", f"{seconds:.2f} s", limit, "–"
    if record["bytes"] is not None:
        gigabytes = f"{record['bytes'] / 2**30:.2f} GiB"
        yield "memory, with all imports", gigabytes, "–", gigabytes, _limit(case, "GiB"), "–"


def _memory_rows(case, record):
    if record["bytes"] is not None:
        cells = (f"{record[key] / 2**20:.1f} MiB" for key in ("bytes", "matrix"))
        ratio = f"{record['bytes'] / record['matrix']:.3f}"
        yield "one matrix", *cells, ratio, _limit(case, "matrices"), "–"


SUBJECTS = {
    "likelihood": _Subject("likelihood and gradient", measure_likelihood, _ratio_rows),
    "fit": _Subject("fit", measure_fit, _ratio_rows),
    "predict": _Subject("mean and std at 10 000 points, N =", measure_predict, _ratio_rows),
    "rotation": _Subject("rotation", measure_rotation, _rotation_rows),
    "memory": _Subject("memory of a fit", measure_memory, _memory_rows),
}


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
    rows = [
        ("Gaussian processes", "compared with", "kerneldiff", "other", "ratio", "target", "differ")
    ]
    for record in records:
        case = measure.case_of(record, Case)
        rows.extend((case.title, *cells) for cells in SUBJECTS[case.subject].rows(case, record))
    return [rows] if len(rows) > 1 else []


def speedups(case, record):
    """Find the speedups in what was measured for a case.

    Parameters
    ----------
    case : Case
    record : dict
        One of those that `measure.each_subject` returns.

    Yields
    ------
    dict
        As `measure.speedup` makes it.
    """
    seconds, targets = record.get("seconds", {}), dict(case.targets)
    for name in (SKLEARN.name, GPYTORCH.name):
        if name in seconds:
            yield measure.speedup(
                case.title, "library", name, seconds[OURS.name], seconds[name], targets.get(name)
            )
