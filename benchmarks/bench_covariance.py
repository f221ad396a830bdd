"""Joint covariance of values and gradients under the RBF kernel."""

import math

from . import _suite, compare, peers


class JointCovariance(_suite.Implementations):
    operation = "joint_covariance"
    params = _suite.Implementations.grid(
        _suite.sizes([(1000, 5), (1000, 10)], [(60, 3)]), "numba, by rows", "GPyTorch"
    )


class JointCovarianceLower(_suite.Implementations):
    operation = "joint_covariance_lower"
    params = (
        _suite.sizes([(1000, 5), (1000, 10)], [(60, 3)]),
        ("kerneldiff", "kerneldiff into out"),
    )


class JointCovarianceSpeedup(_suite.Speedup):
    operation = "joint_covariance"
    params = _suite.Speedup.grid(_suite.sizes([(1000, 5), (1000, 10)], [(60, 3)]))

    def track_speedup_over_gpytorch(self, size, output):
        if not any(peer.name == "GPyTorch" for peer in peers.installed_peers()):
            return math.nan
        among = ("kerneldiff", "GPyTorch")
        return self._speedup(size, output, "peer", compare.measure_all, among)


class JointCovarianceTriangle(_suite.Half):
    operations = ("joint_covariance", "joint_covariance_lower")
    params = _suite.Half.grid(_suite.sizes([(1000, 5), (1000, 10)], [(60, 3)]))


class JointCovarianceWriteBandwidth(_suite.WriteBandwidth):
    operation = "joint_covariance"
    params = (_suite.sizes([(1000, 10)], [(300, 5)]),)
