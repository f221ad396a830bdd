"""The part of ``kerneldiff bench`` on interpolation by radial functions, and on tanh bases.

Each case measures what is compared in turns, in one process and with the same threads of BLAS, and
knows the targets of its ratios. All but the time of many starts are medians.
"""

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import expansion_peers, measure
from .expansion_peers import OURS

#: A result that is further off has not been computed as it should be; it is not timed. JAX computes
#: tanh itself to a few units of 1e-16, and 1 - tanh² with what that cancels.
LARGEST_ERROR = 1e-10
ONE_START, ALL_STARTS = "MLPRegressor, best start", "MLPRegressor, all starts"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    subject : str
        What is measured, one of `SUBJECTS`.
    work : str
        The radial function of an interpolant, "vjp" or "jvp" of a tanh layer, or the data that a
        regressor learns.
    n, d : int
        Points and columns.
    k : int
        Centres, or tanh units.
    targets : tuple of float
        What the ratios are to reach.
    starts : int, default=10
        From how many starts MLPRegressor is fitted; the best counts.
    """

    subject: str
    work: str
    n: int
    d: int
    k: int
    targets: tuple = ()
    starts: int = 10

    @property
    def name(self):
        """Short name, for ``--only``."""
        return f"expansions-{self.subject}-{self.work}-{self.n}-{self.d}"

    @property
    def title(self):
        """Name in tables."""
        return SUBJECTS[self.subject].title.format(case=self)


CASES = (
    Case("interpolator", "gaussian", 100_000, 3, 1000, (10.0, 5.0)),
    Case("interpolator", "thin_plate_spline", 100_000, 3, 1000, (6.0, 4.0)),
    Case("interpolator", "linear", 100_000, 3, 1000, (4.0, 2.5)),
    Case("interpolator", "cubic", 100_000, 3, 1000, (4.0, 2.5)),
    Case("tanh", "vjp", 100_000, 10, 50, (2.5,)),
    Case("tanh", "jvp", 100_000, 10, 50, (2.5,)),
    Case("regressor", "Friedman #1", 10_000, 10, 20, (5.0,)),
)

QUICK_CASES = (
    Case("interpolator", "gaussian", 2000, 3, 100),
    Case("interpolator", "thin_plate_spline", 2000, 3, 100),
    Case("tanh", "vjp", 2000, 5, 20),
    Case("tanh", "jvp", 2000, 5, 20),
    Case("regressor", "Friedman #1", 200, 5, 4, starts=2),
)


# --- what is measured ---------------------------------------------------------------------------


def _checked(case, name, error):
    if not error <= LARGEST_ERROR:
        raise RuntimeError(f"{case.title}: the result of {name} is wrong by {error:.1e}")
    return error


def measure_interpolator(case, *, rounds, budget):
    """Time values of an interpolant, and values with gradients."""
    inputs = expansion_peers.make_interpolation(case.work, case.n, case.k, case.d)
    calls, errors = {}, {}
    for implementation in expansion_peers.INTERPOLATORS:
        for work in ("value", "value, gradient"):
            call = implementation.make(work, inputs)
            if call is None:
                continue
            name = f"{implementation.name}, {work}"
            results = call() if work == "value, gradient" else (call(),)
            error = expansion_peers.interpolation_error(inputs, *results)
            calls[name], errors[name] = call, _checked(case, name, error)
    return {
        "seconds": measure.medians(calls, rounds=rounds, budget=budget),
        "relative_error": errors,
    }


def measure_tanh(case, *, rounds, budget):
    """Time all implementations of a derivative of a tanh layer."""
    inputs = expansion_peers.make_layer(case.work, case.n, case.d, case.k)
    calls, errors = {}, {}
    for implementation in expansion_peers.LAYERS:
        if implementation.installed:
            name = implementation.name
            call = calls[name] = implementation.make(case.work, inputs)
            error = expansion_peers.layer_error(case.work, inputs, call())
            errors[name] = _checked(case, name, error)
    return {
        "seconds": measure.medians(calls, rounds=rounds, budget=budget),
        "relative_error": errors,
    }


def _friedman(n, d):
    """Friedman's first function with its noise of unit variance, standardised for both."""
    from sklearn.datasets import make_friedman1

    X, y = make_friedman1(n, d, noise=1.0, random_state=0)
    return (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()


def _perceptron(k, seed):
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(
        hidden_layer_sizes=(k,),
        activation="tanh",
        solver="lbfgs",
        alpha=0.0,
        max_iter=1000,
        random_state=seed,
    )


def _fitted(model, X, y):
    """Fit, whether it converges or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y)


def _loss(model, X, y):
    return float(np.mean((model.predict(X) - y) ** 2))


def _sooner(case, X, y, goal):
    """Find the TanhRegressor that stops as soon as its training loss has reached a goal.

    Starts are added until it does; of the first, no more iterations are made than are needed.
    """
    from kerneldiff import TanhRegressor

    def regressor(iterations, restarts):
        return TanhRegressor(case.k, max_iter=iterations, n_restarts=restarts, random_state=0)

    @functools.cache
    def reaches(iterations, restarts):
        return _loss(_fitted(regressor(iterations, restarts), X, y), X, y) <= goal

    for restarts in (0, 1, 3, 9):
        if reaches(200, restarts):
            break
    else:
        return None
    too_few, enough = 0, 200
    while restarts == 0 and enough - too_few > 1:
        # As many iterations are needed as are made; few are, mostly.
        middle = min(2 * max(too_few, 4), (too_few + enough) // 2)
        too_few, enough = (too_few, middle) if reaches(middle, 0) else (middle, enough)
    return regressor(enough, restarts)


def measure_regressor(case, *, rounds, budget):
    """Time fits of MLPRegressor, from its best start, and of TanhRegressor until it is as good.

    Which start is the best is known only after fits from all of them; their times, which are not
    measured in turns, are added up for comparison. BLAS has one thread, with which both are faster:
    the products of matrices are many and small.
    """
    X, y = _friedman(case.n, case.d)
    models = [_perceptron(case.k, seed) for seed in range(case.starts)]
    with measure.pinned_blas(1):
        start = time.perf_counter()
        for model in models:
            _fitted(model, X, y)
        of_all = time.perf_counter() - start
        best = min(models, key=lambda model: _loss(model, X, y))
        goal = _loss(best, X, y)
        ours = _sooner(case, X, y, goal)
    calls = {ONE_START: functools.partial(_fitted, best, X, y)}
    if ours is not None:
        calls[OURS] = functools.partial(_fitted, ours, X, y)
    seconds = measure.medians(calls, rounds=rounds, budget=budget, threads=1) | {ALL_STARTS: of_all}
    losses, iterations = {ALL_STARTS: goal}, {ALL_STARTS: sum(m.n_iter_ for m in models)}
    for name, model in ((ONE_START, best), (OURS, ours)):
        if model is not None:
            losses[name], iterations[name] = _loss(model, X, y), model.n_iter_
    return {"seconds": seconds, "loss": losses, "iterations": iterations}


# --- tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """How cases of a subject are called and measured, and what is compared in them."""

    title: str
    measure: Callable
    pairs: Callable
    needs_ours: bool = True


def _interpolator_pairs(case, record):
    other = "SciPy, value"
    for work, target in zip(
        ("value", "value, gradient"), case.targets or (None, None), strict=True
    ):
        yield work, "library", "SciPy", f"{OURS}, {work}", other, target


def _tanh_pairs(case, record):
    target = case.targets[0] if case.targets else None
    groups = {}
    for implementation in expansion_peers.LAYERS[1:]:
        seconds = record["seconds"].get(implementation.name)
        if seconds is not None:
            groups.setdefault((implementation.kind, implementation.module), []).append(
                (seconds, implementation.name)
            )
    for (kind, module), times in groups.items():
        _, other = min(times)
        yield "", kind, other, OURS, other, target if module == "jax" else None


def _regressor_pairs(case, record):
    if OURS in record["seconds"]:
        target = case.targets[0] if case.targets else None
        yield "", "library", ONE_START, OURS, ONE_START, target
        yield "", "library", ALL_STARTS, OURS, ALL_STARTS, None


SUBJECTS = {
    "interpolator": _Subject(
        "RBFInterpolator {case.work} {case.n} × {case.k}",
        measure_interpolator,
        _interpolator_pairs,
    ),
    "tanh": _Subject(
        "tanh {case.work} {case.n}, D = {case.d}, K = {case.k}", measure_tanh, _tanh_pairs
    ),
    "regressor": _Subject(
        "TanhRegressor, {case.work}, {case.n}, D = {case.d}, K = {case.k}",
        measure_regressor,
        _regressor_pairs,
    ),
}


def _compared(case, record):
    """What is compared in what was measured for a case, one by one."""
    for work, kind, over, own, other, target in SUBJECTS[case.subject].pairs(case, record):
        title = f"{case.title}: {work}" if work else case.title
        seconds = record["seconds"][own], record["seconds"][other]
        yield own, other, measure.speedup(title, kind, over, *seconds, target)


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
    for _, _, speedup in _compared(case, record):
        yield speedup


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
    heads = ("compared with", "kerneldiff", "other", "times faster", "target")
    rows = [("expansions", *heads, "relative error", "of the other")]
    fits = [("fits", *heads, "loss", "of the other", "iterations", "of the other")]
    every = (
        (record, *compared)
        for record in records
        for compared in _compared(measure.case_of(record, Case), record)
    )
    for record, own, other, speedup in every:
        cells = (
            speedup["work"],
            other,
            f"{1e3 * speedup['seconds']:.1f} ms",
            f"{1e3 * speedup['other_seconds']:.1f} ms",
            f"{speedup['times']:.2f}",
            "–" if speedup["target"] is None else f"≥ {speedup['target']:g}",
        )
        if "loss" in record:
            losses, steps = record["loss"], record["iterations"]
            found = f"{losses[own]:.5f}", f"{losses[other]:.5f}"
            fits.append((*cells, *found, str(steps[own]), str(steps[other])))
        else:
            errors = record["relative_error"]
            rows.append((*cells, f"{errors[own]:.1e}", f"{errors[other]:.1e}"))
    return [table for table in (rows, fits) if len(table) > 1]
