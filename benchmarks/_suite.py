"""What the asv benchmarks of all operations have in common.

asv takes any rise of a figure for a regression. It is one in ``time_``, ``peakmem_``,
``track_rel_error``, ``track_excess``, ``track_slowdown_*`` and ``track_peak_memory``, but
``track_speedup_*`` and ``track_share_*`` are the better the higher.
"""

import abc
import math
import os

from . import compare, measure, peers, product_peers, products

measure.refuse_editable_install()

#: Small sizes and few implementations, to see that everything runs.
QUICK = os.environ.get("KERNELDIFF_BENCH_QUICK", "0") not in ("", "0")

ROUNDS = 3 if QUICK else 9
_BY_NAME = {peer.name: peer for peer in peers.PEERS}
_REUSING = " into out"
_IMPLEMENTATIONS = (
    ("kerneldiff", "kerneldiff into out", "NumPy")
    if QUICK
    else (
        "kerneldiff",
        "kerneldiff into out",
        "JAX autodiff",
        "JAX by hand, unfused",
        "numba",
        "numba into out",
        "NumPy",
    )
)


def _names(*kinds):
    """Names of the implementations to compare; in a quick pass, of those that compile quickly."""
    found = [peer for peer in peers.PEERS if peer.kind in kinds]
    if QUICK:
        found = [peer for peer in found if peer.kind != "peer" or peer.name == "numba, serial"]
    return [peer.name for peer in found]


def sizes(full, quick):
    """Choose the sizes of a benchmark: those asked for, or small ones for a quick pass."""
    return quick if QUICK else full


class _Operation(abc.ABC):
    """A benchmark of one operation; asv passes over the classes here because they are abstract."""

    @property
    @abc.abstractmethod
    def operation(self):
        """One of ``peers.OPERATIONS``."""


class Implementations(_Operation):
    """Time, memory and error of each implementation.

    Subclasses set `operation`, and `params` by `grid`. A size is (N, D), with N = M, or (N, D, K).
    "into out" means that an output is reused.
    """

    param_names = ("size", "implementation")
    timeout = 300
    relative_error = staticmethod(peers.relative_error)

    @staticmethod
    def grid(all_sizes, *more):
        """Make the parameters from sizes, and further implementations if this one has them."""
        return all_sizes, (*_IMPLEMENTATIONS, *more)

    def setup(self, size, implementation):
        """Make the data and the callable; call it once, which compiles and warms the memory."""
        name = implementation.removesuffix(_REUSING)
        peer = _BY_NAME[name]
        if not peer.installed or not peer.offers(self.operation, size[1]):
            raise NotImplementedError
        self.inputs = peers.make_inputs(self.operation, *size)
        if not peer.fits(self.operation, self.inputs):
            raise NotImplementedError
        out = None
        if name != implementation:
            out = measure.touched_empty(peers.output_shape(self.operation, self.inputs))
        self.call = peer.bind(self.operation, self.inputs, out)
        self.call()

    def time_call(self, size, implementation):
        self.call()

    def peakmem_call(self, size, implementation):
        self.call()

    def track_rel_error(self, size, implementation):
        return self.relative_error(self.operation, self.inputs, self.call())

    track_rel_error.unit = "relative error"


class Speedup(_Operation):
    """How many times faster than others, all timed in turns in one process."""

    param_names = ("size", "output")
    timeout = 600
    unit = "times"

    @staticmethod
    def grid(all_sizes):
        """Make the parameters from sizes."""
        return all_sizes, ("reused",) if QUICK else ("fresh", "reused")

    def track_speedup_over_autodiff(self, size, output):
        return self._speedup(size, output, "baseline", compare.measure_all)

    def track_speedup_over_fastest_peer(self, size, output):
        return self._speedup(size, output, "peer", compare.measure_all)

    def track_speedup_over_fastest_peer_given_huge_pages(self, size, output):
        return self._speedup(size, output, "peer", compare.measure_with_huge_pages)

    def _speedup(self, size, output, kind, measure_cases, among=None):
        case = compare.Case("large", self.operation, *size)
        among = among or _names("ours", kind)
        records = measure_cases([case], rounds=ROUNDS, budget=20, among=among)
        other = records and compare.fastest(records[0], kind, "fresh")
        if not other:
            return math.nan
        return other[0] / compare.fastest(records[0], "ours", output)[0]


class Half(abc.ABC):
    """How many times faster a result is of which symmetry leaves one half."""

    param_names = ("size", "output")
    timeout = 300
    unit = "times"
    grid = staticmethod(Speedup.grid)

    @property
    @abc.abstractmethod
    def operations(self):
        """The whole and the half, of ``peers.OPERATIONS``."""

    def track_speedup_of_half(self, size, output):
        calls = {}
        for operation in self.operations:
            inputs = peers.make_inputs(operation, *size)
            out = None
            if output == "reused":
                out = measure.touched_empty(peers.output_shape(operation, inputs))
            calls[operation] = peers.OURS.bind(operation, inputs, out)
        timings = measure.interleave(calls, rounds=ROUNDS, budget=20)
        whole, half = (timings[operation].median for operation in self.operations)
        return whole / half


class Families(_Operation):
    """How many times as long as the RBF another kernel takes, output reused."""

    param_names = ("size", "kernel")
    timeout = 300
    unit = "times"

    @staticmethod
    def grid(all_sizes):
        """Make the parameters from sizes."""
        return all_sizes, [name for name in peers.families(2) if name != "RBF"]

    def track_slowdown(self, size, kernel):
        case = compare.Case("families", self.operation, *size)
        record = compare.measure_families(case, rounds=ROUNDS, budget=10, among=("RBF", kernel))
        return record["families"][kernel] / record["families"]["RBF"]


class Excess(_Operation):
    """Small work: microseconds per call beyond the fastest peer's."""

    param_names = ("size",)
    timeout = 300
    unit = "µs"

    def track_excess(self, size):
        case = compare.Case("small", self.operation, *size)
        among = _names("ours", "peer")
        record = compare.measure_case(case, rounds=ROUNDS, budget=10, among=among)
        peer = compare.fastest(record, "peer", "fresh")
        return 1e6 * (record["seconds"]["kerneldiff"]["fresh"] - peer[0])


class WriteBandwidth(_Operation):
    """Share of the write bandwidth, measured in the same run, that reused output is written at."""

    param_names = ("size",)
    timeout = 300
    unit = "of 1"

    def setup(self, size):
        """Time our call and the fills in turns."""
        inputs = peers.make_inputs(self.operation, *size)
        out = measure.touched_empty(peers.output_shape(self.operation, inputs))
        ours = {"ours": peers.OURS.bind(self.operation, inputs, out)}
        with measure.fills(out.nbytes) as fills:
            timings = measure.interleave({**ours, **fills}, rounds=ROUNDS, budget=20)
        self.ours = timings.pop("ours").median
        self.fills = {key: timing.median for key, timing in timings.items()}

    def track_share_of_stream(self, size):
        return min(t for (method, _), t in self.fills.items() if method == "stream") / self.ours

    def track_share_of_best_fill(self, size):
        return min(self.fills.values()) / self.ours


class Threads(_Operation):
    """How many times faster all threads are than one."""

    param_names = ("size",)
    timeout = 300
    unit = "times"

    def track_speedup_of_threads(self, size):
        case = compare.Case("threads", self.operation, *size)
        seconds = compare.measure_threads(case, rounds=ROUNDS, budget=10)["threads"]
        return seconds[1] / seconds[max(seconds)]


_PRODUCTS = {
    implementation.name: implementation for implementation in product_peers.IMPLEMENTATIONS
}


class Products(Implementations):
    """Time, memory and error of each implementation of a product. A size is (N, D), with N = M."""

    symmetric = False
    relative_error = staticmethod(product_peers.relative_error)

    @staticmethod
    def grid(all_sizes):
        """Make the parameters from sizes."""
        return all_sizes, ("kerneldiff", "NumPy") if QUICK else tuple(_PRODUCTS)

    def setup(self, size, implementation):
        """Make the data and the callable; call it once, which compiles and warms the memory."""
        chosen = _PRODUCTS[implementation]
        if not chosen.installed:
            raise NotImplementedError
        self.inputs = product_peers.make_inputs(self.operation, *size, symmetric=self.symmetric)
        self.call = chosen.make(self.operation, self.inputs)
        if self.call is None:
            raise NotImplementedError
        self.call()


class ProductSpeedup(_Operation):
    """How many times faster than others a product is, all timed in turns in one process."""

    param_names = ("size",)
    timeout = 600
    unit = "times"
    symmetric = False

    def track_speedup_over_fastest_peer(self, size):
        return self._speedup(size, [n for n, c in _PRODUCTS.items() if c.kind == "peer"])

    def track_speedup_over_own_exp(self, size):
        return self._speedup(size, [n for n, c in _PRODUCTS.items() if c.kind == "own exp"])

    def track_speedup_over_keops(self, size):
        return self._speedup(size, ["KeOps"])

    def _speedup(self, size, others):
        case = products.Case(
            "peers", self.operation, *size, symmetric=self.symmetric, numba=not QUICK
        )
        if not any(_PRODUCTS[name].installed for name in others):
            return math.nan
        among = ("kerneldiff", *others)
        record = products.measure_peers(case, rounds=ROUNDS, budget=20, among=among)
        seconds = dict(record["seconds"])
        ours = seconds.pop("kerneldiff")
        return min(seconds.values(), default=math.nan) / ours


class ProductRatio(_Operation):
    """One of the other comparisons of products, by its subject. A size is (N, D)."""

    param_names = ("size",)
    timeout = 600
    unit = "times"

    @property
    @abc.abstractmethod
    def subject(self):
        """One of ``products.SUBJECTS``."""

    def measured(self, size):
        """Measure the case."""
        case = products.Case(self.subject, self.operation, *size)
        return products.SUBJECTS[self.subject].measure(case, rounds=ROUNDS, budget=20)
