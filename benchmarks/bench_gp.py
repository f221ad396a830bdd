"""Gaussian process regression with and without gradients."""

import math

from . import _suite, gp_cases
from .gp_peers import GPYTORCH, LAPACK, OURS, SKLEARN


class _Measured:
    """What a case of one subject took. A size is (N, D)."""

    param_names = ("size",)
    timeout = 600
    unit = "times"
    gradients = False

    def measured(self, size):
        """Measure the case."""
        case = gp_cases.Case(self.subject, *size, gradients=self.gradients)
        return gp_cases.SUBJECTS[self.subject].measure(case, rounds=_suite.ROUNDS, budget=20)

    def ratio(self, size, over, under):
        """Ratio of two times; NaN where one of them could not be measured."""
        seconds = self.measured(size)["seconds"]
        return seconds.get(over, math.nan) / seconds.get(under, math.nan)


class Likelihood(_Measured):
    subject = "likelihood"
    params = (_suite.sizes([(2000, 3), (2000, 10)], [(200, 3)]),)

    def track_speedup_over_sklearn(self, size):
        return self.ratio(size, SKLEARN.name, OURS.name)

    def track_speedup_over_gpytorch(self, size):
        return self.ratio(size, GPYTORCH.name, OURS.name)

    def track_slowdown_of_cholesky_and_inverse(self, size):
        return self.ratio(size, OURS.name, LAPACK.name)


class LikelihoodWithGradients(_Measured):
    subject = "likelihood"
    gradients = True
    params = (_suite.sizes([(200, 10)], [(30, 3)]),)

    def track_speedup_over_gpytorch(self, size):
        return self.ratio(size, GPYTORCH.name, OURS.name)

    def track_slowdown_of_cholesky_and_inverse(self, size):
        return self.ratio(size, OURS.name, LAPACK.name)


class Fit(_Measured):
    subject = "fit"
    params = (_suite.sizes([(1000, 10)], [(60, 2)]),)

    def track_speedup_over_sklearn(self, size):
        return self.ratio(size, SKLEARN.name, OURS.name)


class Predict(_Measured):
    subject = "predict"
    params = (_suite.sizes([(500, 10), (1000, 10), (2000, 10)], [(50, 3)]),)

    def track_speedup_over_sklearn(self, size):
        return self.ratio(size, SKLEARN.name, OURS.name)


class Rotation(_Measured):
    subject = "rotation"
    gradients = True
    params = (_suite.sizes([(50, 10_000)], [(5, 100)]),)
    unit = "µs"

    def track_excess_of_likelihood(self, size):
        return 1e6 * self.measured(size)["seconds"]["likelihood"]

    def track_excess_of_fit_and_predictions(self, size):
        return 1e6 * self.measured(size)["seconds"]["fit and predictions"]


class FitMemory(_Measured):
    subject = "memory"
    params = (_suite.sizes([(5000, 3)], [(1000, 3)]),)
    unit = "matrices"

    def track_peak_memory(self, size):
        found = self.measured(size)
        return math.nan if found["bytes"] is None else found["bytes"] / found["matrix"]


class FitMemoryWithGradients(FitMemory):
    gradients = True
    params = (_suite.sizes([(300, 15)], [(50, 10)]),)
