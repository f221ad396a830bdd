"""Jacobian of a layer of tanh units with respect to its weights."""

from . import _suite


class TanhJacobian(_suite.Implementations):
    operation = "tanh_jacobian"
    params = _suite.Implementations.grid(
        _suite.sizes([(1000, 5, 20), (100_000, 10, 50)], [(500, 3, 10)])
    )


class TanhJacobianSpeedup(_suite.Speedup):
    operation = "tanh_jacobian"
    params = _suite.Speedup.grid(_suite.sizes([(100_000, 10, 50)], [(500, 3, 10)]))


class TanhJacobianWriteBandwidth(_suite.WriteBandwidth):
    operation = "tanh_jacobian"
    params = (_suite.sizes([(100_000, 10, 50)], [(5000, 10, 50)]),)
