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

    def speedups(self, work, size, kind=None):
        """The speedups of a case, perhaps of one kind."""
        case, record = self.measured(work, size)
        return [
            record["seconds"][other] / record["seconds"][own]
            for _, found, _, own, other, _ in expansions.SUBJECTS[self.subject].pairs(case, record)
            if kind in (None, found)
        ]

    def speedup(self, work, size, number):
        """One of the speedups of a case; NaN if there is none."""
        found = self.speedups(work, size)
        return found[number] if number < len(found) else math.nan


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
        return max(error for name, error in errors.items() if name.startswith(expansion_peers.OURS))

    track_rel_error.unit = "relative error"


class TanhProducts(_Measured):
    subject = "tanh"
    param_names = ("work", "size")
    params = (("vjp", "jvp"), _suite.sizes([(100_000, 10, 50)], [(2000, 5, 20)]))

    def track_speedup_over_autodiff(self, work, size):
        return min(self.speedups(work, size, "autodiff"), default=math.nan)

    def track_speedup_over_fastest_peer(self, work, size):
        return min(self.speedups(work, size, "peer"), default=math.nan)

    def track_rel_error(self, work, size):
        return self.measured(work, size)[1]["relative_error"][expansion_peers.OURS]

    track_rel_error.unit = "relative error"


class Regressor(_Measured):
    subject = "regressor"
    param_names = ("data", "size")
    params = (("Friedman #1",), _suite.sizes([(10_000, 10, 20)], [(200, 5, 4)]))

    def track_speedup_over_best_start_of_sklearn(self, data, size):
        return self.speedup(data, size, 0)
