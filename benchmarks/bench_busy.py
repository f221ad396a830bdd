"""What a machine does to us whose cores are wanted by others, too."""

import math

from . import _suite, busy


class Busy:
    """Means beside other work, divided by those of something else. A size is a number of points."""

    param_names = ("subject", "size")
    timeout = 600
    unit = "times"
    params = (
        _suite.sizes(["likelihood", "predict", "tanh"], ["likelihood"]),
        _suite.sizes([100, 500, 1000], [50]),
    )

    def ratio(self, subject, size, name):
        case = busy.Case(subject, size)
        record = busy.measure_case(case, rounds=_suite.ROUNDS, budget=20)
        return {other: ratio for other, _, ratio in busy.ratios(case, record)}.get(name, math.nan)

    def track_slowdown_of_idle(self, subject, size):
        return self.ratio(subject, size, "idle")

    def track_slowdown_of_one_thread(self, subject, size):
        return self.ratio(subject, size, busy.ONE_THREAD)

    def track_slowdown_of_sklearn(self, subject, size):
        return self.ratio(subject, size, busy.SKLEARN.name)
