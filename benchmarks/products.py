"""The part of ``kerneldiff bench`` on products with matrices that are never built.

Each case measures what is compared in turns, in one process, and knows the target that its ratio
is to reach. All but the memory are medians.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import measure, product_peers
from .product_peers import OURS

#: A result that is further off has not been computed as it should be; it is not timed.
LARGEST_ERROR = 1e-10
#: What K v is to reach over KeOps.
KEOPS_TARGET = 4.5

_TITLES = {
    "kernel_product": "K v",
    "joint_product": "joint product",
    "expansion_gradient": "gradient of an expansion",
    "expansion_hessian": "Hessian of an expansion",
    "matern_gradients": "Matérn 5/2, gradients times gradients",
    "rbf_hessians": "RBF, Hessians times Hessians",
    "theta_contraction": "θ-contraction, ARD, joint,",
}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    subject : str
        What is compared, one of `SUBJECTS`.
    work : str
        One of ``product_peers.WORKS``, or what else the subject is about.
    n, d : int
        Points (of X and of Y) and columns.
    target : float, optional
        What the ratio of the case is to reach, or not to exceed.
    symmetric : bool, default=False
        Y is X.
    numba : bool, default=True
        Whether numba takes part, which compiles for many seconds.
    """

    subject: str
    work: str
    n: int
    d: int
    target: float | None = None
    symmetric: bool = False
    numba: bool = True

    @property
    def name(self):
        """Short name, for ``--only``."""
        ending = "-symmetric" if self.symmetric else ""
        return f"products-{self.subject}-{self.work}-{self.n}-{self.d}{ending}"

    @property
    def title(self):
        """Name in tables."""
        ending = ", Y = X" if self.symmetric else ""
        return f"{_TITLES[self.work]} {self.n}, D = {self.d}{ending}"


def _peer_cases(n, targets, symmetric=False):
    return [
        Case("peers", work, n, d, target, symmetric)
        for work, by_columns in targets.items()
        for d, target in by_columns.items()
    ]


CASES = (
    *_peer_cases(
        10_000,
        {
            "kernel_product": {3: 1.6, 10: 1.6, 30: 1.6},
            "joint_product": {3: 1.4, 10: 1.4, 30: 1.4},
            "expansion_gradient": {3: 1.15, 10: 1.3, 30: 1.3},
            "expansion_hessian": {3: 1.0, 10: 1.0, 30: 1.0},
        },
    ),
    *_peer_cases(
        10_000,
        {
            "kernel_product": {3: 2.7, 10: 2.7, 30: 2.7},
            "joint_product": {3: 2.0, 10: 2.0, 30: 2.0},
        },
        symmetric=True,
    ),
    Case("columns", "kernel_product", 10_000, 10, 2),
    Case("columns", "kernel_product", 10_000, 30, 2),
    Case("columns", "joint_product", 10_000, 10, 4),
    Case("columns", "joint_product", 10_000, 30, 6),
    Case("float32", "kernel_product", 10_000, 3, 1.7),
    Case("float32", "kernel_product", 10_000, 10, 1.7),
    Case("float32", "joint_product", 10_000, 10, 1.7),
    Case("float32", "joint_product", 10_000, 30, 1.7),
    Case("fma", "joint_product", 10_000, 30, 0.6),
    Case("fma", "joint_product", 5000, 100, 0.6),
    Case("gemm", "matern_gradients", 1024, 1024, 1.2),
    Case("time", "rbf_hessians", 128, 16),
    Case("cholesky", "theta_contraction", 500, 10, 0.04),
    Case("memory", "joint_product", 100_000, 10, 32),
)

QUICK_CASES = (
    *(Case("peers", work, 1000, 3, numba=work == "kernel_product") for work in product_peers.WORKS),
    Case("peers", "kernel_product", 1000, 3, symmetric=True, numba=False),
    Case("peers", "joint_product", 1000, 3, symmetric=True, numba=False),
    Case("columns", "joint_product", 1000, 10),
    Case("float32", "kernel_product", 2000, 10),
    Case("fma", "joint_product", 1000, 30),
    Case("gemm", "matern_gradients", 128, 128),
    Case("time", "rbf_hessians", 32, 4),
    Case("cholesky", "theta_contraction", 50, 10),
    Case("memory", "joint_product", 10_000, 10),
)


# --- what is measured ---------------------------------------------------------------------------


def make_calls(case, among=None):
    """Make the product of a case in all ways, and check them.

    Parameters
    ----------
    case : Case
        One of the subject "peers".
    among : collection of str, optional
        Names of the implementations; by default all that are installed.

    Returns
    -------
    calls : dict from str to callable
    errors : dict from str to float
        Relative errors of their results.

    Raises
    ------
    RuntimeError
        If a result is wrong.
    """
    inputs = product_peers.make_inputs(case.work, case.n, case.d, symmetric=case.symmetric)
    calls, errors = {}, {}
    for implementation in product_peers.IMPLEMENTATIONS:
        name = implementation.name
        if not implementation.installed or not (among is None or name in among):
            continue
        if implementation.module == "numba" and not case.numba:
            continue
        call = implementation.make(case.work, inputs)
        if call is None:
            continue
        error = product_peers.relative_error(case.work, inputs, call())
        if not error <= LARGEST_ERROR:
            raise RuntimeError(f"{case.title}: the result of {name} is wrong by {error:.1e}")
        calls[name], errors[name] = call, error
    return calls, errors


def measure_peers(case, *, rounds, budget, among=None):
    """Time all implementations of a product."""
    calls, errors = make_calls(case, among)
    return {
        "seconds": measure.medians(calls, rounds=rounds, budget=budget),
        "relative_error": errors,
    }


def measure_columns(case, *, rounds, budget):
    """Time products with one and with eight right-hand sides."""
    calls = {
        f"{count or 1}": OURS.make(
            case.work, product_peers.make_inputs(case.work, case.n, case.d, columns=count)
        )
        for count in (None, 8)
    }
    return {"seconds": measure.medians(calls, rounds=rounds, budget=budget)}


def measure_float32(case, *, rounds, budget):
    """Time products in both precisions."""
    calls = {
        dtype: OURS.make(
            case.work, product_peers.make_inputs(case.work, case.n, case.d, dtype=dtype)
        )
        for dtype in ("float64", "float32")
    }
    return {"seconds": measure.medians(calls, rounds=rounds, budget=budget)}


def measure_fma(case, *, rounds, budget):
    """Time a joint product and loops of nothing but fused multiply-adds.

    Where numba is not installed, a matrix product, which stays below, stands in for the loops.
    """
    inputs = product_peers.make_inputs(case.work, case.n, case.d)
    calls = {"kerneldiff": OURS.make(case.work, inputs)}
    flops = {"kerneldiff": (9 * case.d + 8) * case.n**2}
    loops = measure.fma_loops()
    if not loops:
        size = 1500
        A = np.ones((size, size))
        loops = {"GEMM": (lambda: A @ A, 2 * size**3)}
    for name, (call, count) in loops.items():
        calls[f"FMA {name}"], flops[f"FMA {name}"] = call, count
    seconds = measure.medians(calls, rounds=rounds, budget=budget)
    rates = {name: flops[name] / t / 1e9 for name, t in seconds.items()}
    own = rates.pop("kerneldiff")
    best = max(rates, key=rates.get)
    return {"seconds": seconds, "rate": own, "peak": rates[best], "peak_by": best}


def _matern(X):
    from sklearn.gaussian_process.kernels import Matern

    return Matern(math.sqrt(X.shape[1]), nu=2.5, length_scale_bounds="fixed")


def _matern_gradients_in_numpy(X, V):
    """Σ_j ∂²k/∂x∂y(x_i, x_j) v_j of a Matérn kernel with ν = 5/2, by products of matrices.

    With k = f(s), s = |δ|²/ℓ² and t = √(5 s): −2 f' v_j − 4 f'' δ (δ·v_j), and
    −2 f' = (5/3) (1 + t) e^{−t}, 4 f'' = (25/3) e^{−t} in units of the length scale ℓ.
    """
    scale = math.sqrt(X.shape[1])
    x = X / scale
    squares = (x * x).sum(axis=1)
    t = x @ x.T
    t *= -2
    t += squares[:, None]
    t += squares
    np.maximum(t, 0, out=t)
    t *= 5
    np.sqrt(t, out=t)
    e = np.exp(-t)
    c = x @ V.T
    c -= np.einsum("ja,ja->j", x, V)
    c *= e
    c *= 25 / 3
    t += 1
    t *= e
    t *= 5 / 3
    result = t @ V
    result += c @ x
    result -= c.sum(axis=1)[:, None] * x
    return result / scale**2


def _matern_gradients_error(X, V, result):
    x, v = (Z.astype(np.longdouble) for Z in (X, V))
    x /= np.sqrt(np.longdouble(X.shape[1]))
    worst, size = 0, 0
    for i in range(0, len(X), max(1, len(X) // 4)):
        delta = x[i] - x
        t = np.sqrt(5 * (delta * delta).sum(axis=1))
        e = np.exp(-t)
        first, second = 5 / np.longdouble(3) * (1 + t) * e, 25 / np.longdouble(3) * e
        exact = first @ v - (second * (delta * v).sum(axis=1)) @ delta
        whole = first @ abs(v) + (second * abs(delta * v).sum(axis=1)) @ abs(delta)
        worst = max(worst, np.abs(result[i] * X.shape[1] - exact).max())
        size = max(size, whole.max())
    return float(worst / size)


def measure_gemm(case, *, rounds, budget):
    """Time a product of many dimensions and the products of matrices that it cannot do without."""
    import scipy.linalg.blas as blas

    import kerneldiff

    rng = np.random.default_rng(0)
    X, V = rng.standard_normal((2, case.n, case.d))
    operator = kerneldiff.CovarianceOperator(_matern(X), kerneldiff.Gradient(X))
    flat = V.ravel()
    calls = {
        "kerneldiff": lambda: (operator @ flat).reshape(X.shape),
        "NumPy": functools.partial(_matern_gradients_in_numpy, X, V),
    }
    errors = {name: _matern_gradients_error(X, V, call()) for name, call in calls.items()}
    for name, error in errors.items():
        if not error <= LARGEST_ERROR:
            raise RuntimeError(f"{case.title}: the result of {name} is wrong by {error:.1e}")
    A, B = np.asfortranarray(X), np.asfortranarray(V)

    def matrix_products():
        for _ in range(3):
            blas.dgemm(1.0, A, B)
        blas.dsyrk(1.0, A)

    calls["3 GEMM + SYRK"] = matrix_products
    return {
        "seconds": measure.medians(calls, rounds=rounds, budget=budget),
        "relative_error": errors,
    }


def measure_time(case, *, rounds, budget):
    """Time the product with the covariance of Hessians, and its rate per pair and entry."""
    from sklearn.gaussian_process.kernels import RBF

    import kerneldiff

    rng = np.random.default_rng(0)
    X = rng.standard_normal((case.n, case.d))
    kernel = RBF(math.sqrt(case.d), length_scale_bounds="fixed")
    operator = kerneldiff.CovarianceOperator(kernel, kerneldiff.Hessian(X))
    v = rng.standard_normal(operator.shape[1])
    return {
        "seconds": measure.medians(
            {"kerneldiff": lambda: operator @ v}, rounds=rounds, budget=budget
        )
    }


def measure_cholesky(case, *, rounds, budget):
    """Time the contraction that a likelihood gradient needs and the factorisation before it."""
    from scipy.linalg.lapack import dpotrf
    from sklearn.gaussian_process.kernels import RBF

    import kerneldiff

    rng = np.random.default_rng(0)
    X = rng.standard_normal((case.n, case.d))
    kernel = RBF(np.linspace(0.8, 1.2, case.d) * math.sqrt(case.d))
    operator = kerneldiff.CovarianceOperator(kernel, kerneldiff.ValueGradient(X))
    size = operator.shape[0]
    W = np.asfortranarray(rng.standard_normal((size, size)))
    # The identity is its own factor: it can be factorised in place again and again.
    identity = np.asfortranarray(np.eye(size))
    calls = {
        "kerneldiff": lambda: operator.vjp(W, wrt="theta"),
        "dpotrf": lambda: dpotrf(identity, lower=1, clean=0, overwrite_a=1)[1],
    }
    return {"seconds": measure.medians(calls, rounds=rounds, budget=budget)}


def measure_memory(case, *, rounds, budget):
    """Measure the memory beyond inputs and output of one block of rows, in a new process."""
    return {"bytes": measure.in_new_process(peak_memory_of_rows, [case.n, case.d])}


def peak_memory_of_rows(request):
    """Memory that a thousand rows of a joint product take beyond their inputs and outputs.

    Parameters
    ----------
    request : sequence of int
        Number of points of Y, and of columns.

    Returns
    -------
    int or None
        Bytes; None where the system does not tell.
    """
    m, d = request
    make = functools.partial(product_peers.make_inputs, "joint_product")
    OURS.make("joint_product", make(1000, d, m=2000))()
    inputs = make(1000, d, m=m)
    try:
        measure.reset_peak_memory()
        before, _ = measure.resident_memory()
        result = OURS.make("joint_product", inputs)()
        _, peak = measure.resident_memory()
    except OSError:
        return None
    return peak - before - result.nbytes


# --- tables -------------------------------------------------------------------------------------


def fastest(record, kind):
    """Find the fastest implementation of a kind in what `measure_peers` returned.

    Parameters
    ----------
    record : dict
    kind : {"peer", "own exp"}

    Returns
    -------
    tuple of (float, str) or None
        Seconds and name; None if there is none.
    """
    kinds = {i.name: i.kind for i in product_peers.IMPLEMENTATIONS}
    found = [(t, name) for name, t in record["seconds"].items() if kinds[name] == kind]
    return min(found) if found else None


def _speed_rows(records):
    names = [i.name for i in product_peers.IMPLEMENTATIONS]
    names = [name for name in names if any(name in r["seconds"] for r in records.values())]
    yield ("nanoseconds per pair", *names)
    for case, record in records.items():
        speeds = (record["seconds"].get(name) for name in names)
        yield (case.title, *("–" if t is None else f"{1e9 * t / case.n**2:.3f}" for t in speeds))


def _ratio_rows(records):
    yield (
        "products, times faster",
        "than",
        "fastest peer",
        "target",
        "numba, own exp",
        "KeOps",
        "target",
        "relative error",
        "largest of peers",
    )
    for case, record in records.items():
        ours = record["seconds"].get(OURS.name)
        peer = fastest(record, "peer")
        if ours is None or peer is None:
            continue
        others = (fastest(record, "own exp"), (record["seconds"].get("KeOps"), ""))
        ratios = [f"{t[0] / ours:.2f}" if t and t[0] else "–" for t in others]
        errors = dict(record["relative_error"])
        own = errors.pop(OURS.name)
        yield (
            case.title,
            peer[1],
            f"{peer[0] / ours:.2f}",
            _target(case, "≥ {:g}"),
            *ratios,
            f"≥ {KEOPS_TARGET}" if case.target and case.work == "kernel_product" else "–",
            f"{own:.1e}",
            f"{max(errors.values()):.1e}",
        )


def _target(case, text):
    return "–" if case.target is None else text.format(case.target)


def _milliseconds(seconds):
    return f"{1e3 * seconds:.2f} ms"


@dataclass(frozen=True)
class _Subject:
    """How cases of a subject are measured, and the cells of the table of the others."""

    measure: Callable
    cells: Callable | None = None
    target: str = "≤ {:g}"
    needs_ours: bool = True


def _columns_cells(case, record):
    one, eight = record["seconds"]["1"], record["seconds"]["8"]
    text = "8 right-hand sides, times as long as one"
    return text, _milliseconds(eight), _milliseconds(one), f"{eight / one:.2f}"


def _float32_cells(case, record):
    double, single = record["seconds"]["float64"], record["seconds"]["float32"]
    text = "float32, times faster than float64"
    return text, _milliseconds(single), _milliseconds(double), f"{double / single:.2f}"


def _fma_cells(case, record):
    text = f"share of the FMA peak ({record['peak_by']})"
    rates = (f"{record[name]:.0f} GFLOP/s" for name in ("rate", "peak"))
    return text, *rates, f"{record['rate'] / record['peak']:.2f}"


def _gemm_cells(case, record):
    ours, least, numpy = (
        record["seconds"][name] for name in ("kerneldiff", "3 GEMM + SYRK", "NumPy")
    )
    text = f"times as long as 3 GEMM and a SYRK (NumPy: {numpy / least:.2f})"
    return text, _milliseconds(ours), _milliseconds(least), f"{ours / least:.2f}"


def _time_cells(case, record):
    return "time", _milliseconds(record["seconds"]["kerneldiff"]), "–", "–"


def _cholesky_cells(case, record):
    ours, other = record["seconds"]["kerneldiff"], record["seconds"]["dpotrf"]
    text = "share of the time of a Cholesky factorisation"
    return text, _milliseconds(ours), _milliseconds(other), f"{ours / other:.3f}"


def _memory_cells(case, record):
    found = record["bytes"]
    cell = "–" if found is None else f"{found / 2**20:.1f}"
    return "MiB beyond inputs and output, 1000 rows", cell, "–", cell


SUBJECTS = {
    "peers": _Subject(measure_peers, needs_ours=False),
    "columns": _Subject(measure_columns, _columns_cells),
    "float32": _Subject(measure_float32, _float32_cells, "≥ {:g}"),
    "fma": _Subject(measure_fma, _fma_cells, "≥ {:g}"),
    "gemm": _Subject(measure_gemm, _gemm_cells),
    "time": _Subject(measure_time, _time_cells),
    "cholesky": _Subject(measure_cholesky, _cholesky_cells, "< {:g}"),
    "memory": _Subject(measure_memory, _memory_cells),
}


def _other_rows(records):
    yield ("products", "what", "kerneldiff", "compared with", "ratio", "target")
    for case, record in records.items():
        subject = SUBJECTS[case.subject]
        if subject.cells is not None:
            yield case.title, *subject.cells(case, record), _target(case, subject.target)


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
    found = {Case(**record["case"]): record for record in records}
    peers = {case: record for case, record in found.items() if case.subject == "peers"}
    made = [list(_speed_rows(peers)), list(_ratio_rows(peers)), list(_other_rows(found))]
    return [rows for rows in made if len(rows) > 1]


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
    ours = record.get("seconds", {}).get(OURS.name)
    peer = fastest(record, "peer") if case.subject == "peers" else None
    if ours is None or peer is None:
        return
    yield measure.speedup(case.title, "peer", peer[1], ours, peer[0], case.target)
    keops = record["seconds"].get("KeOps")
    if keops is not None:
        target = KEOPS_TARGET if case.target and case.work == "kernel_product" else None
        yield measure.speedup(case.title, "library", "KeOps", ours, keops, target)
