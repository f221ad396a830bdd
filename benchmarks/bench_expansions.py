"""Interpolation by radial functions, derivatives of tanh layers, and a regressor on them."""

import math

from . import _suite, expansion_peers, expansions


class _Measured:
    """What a case of one subject took. A size is (N, D, K)."""

    timeout = 600
    unit = "times"

    def measured(self, work, size):
        """Measure the case."""
        case = expansions.Case(self.subject, work, *size)
        subject = expansions.SUBJECTS[self.subject]
        return case, subject.measure(case, rounds=_suite.ROUNDS, budget=20)

    def speedup(self, work, size, number, kind=None):
        """One of the speedups of a case, perhaps of one kind; NaN if there is none."""
        case, record = self.measured(work, size)
        pairs = expansions.SUBJECTS[self.subject].pairs(case, record)
        found = [pair for pair in pairs if kind is None or pair[1] == kind]
        if len(found) <= number:
            return math.nan
        _, _, _, own, other, _ = found[number]
        return record["seconds"][other] / record["seconds"][own]


class Interpolator(_Measured):
    subject = "interpolator"
    param_names = ("kernel", "size")
    params = (
        _suite.sizes(expansion_peers.KERNELS, expansion_peers.KERNELS[:1]),
        _suite.sizes([(100_000, 3, 1000)], [(2000, 3, 100)]),
    )

    def track_speedup_of_values_over_scipy(self, kernel, size):
        return self.speedup(kernel, size, 0)

    def track_speedup_of_values_and_gradients_over_scipys_values(self, kernel, size):
        return self.speedup(kernel, size, 1)

    def track_rel_error(self, kernel, size):
        errors = self.measured(kernel, size)[1]["relative_error"]
        return max(error for name, error in errors.items() if name.startswith("kerneldiff"))

    track_rel_error.unit = "relative error"


class TanhProducts(_Measured):
    subject = "tanh"
    param_names = ("work", "size")
    params = (("vjp", "jvp"), _suite.sizes([(100_000, 10, 50)], [(2000, 5, 20)]))

    def track_speedup_over_autodiff(self, work, size):
        return self.speedup(work, size, 0, "autodiff")

    def track_speedup_over_fastest_peer(self, work, size):
        return self.speedup(work, size, 0, "peer")

    def track_rel_error(self, work, size):
        return self.measured(work, size)[1]["relative_error"][expansion_peers.OURS]

    track_rel_error.unit = "relative error"


class Regressor(_Measured):
    subject = "regressor"
    param_names = ("data", "size")
    params = (("Friedman #1",), _suite.sizes([(10_000, 10, 20)], [(200, 5, 4)]))

    def track_speedup_over_best_start_of_sklearn(self, data, size):
        return self.speedup(data, size, 0)
