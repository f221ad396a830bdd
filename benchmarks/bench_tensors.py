"""Tensors of kernels, mostly of the RBF: values, gradients, Hessians and their diagonals."""

from . import _suite


class KernelMatrix(_suite.Implementations):
    operation = "kernel_matrix"
    params = _suite.Implementations.grid(
        _suite.sizes([(1000, 3), (5000, 10)], [(300, 3)]), "scikit-learn"
    )


class Gradient(_suite.Implementations):
    operation = "gradient"
    params = _suite.Implementations.grid(
        _suite.sizes([(200, 5), (2000, 2), (2000, 10)], [(100, 3)])
    )


class HessianDiag(_suite.Implementations):
    operation = "hessian_diag"
    params = _suite.Implementations.grid(_suite.sizes([(200, 5), (1000, 10)], [(100, 3)]))


class Hessian(_suite.Implementations):
    operation = "hessian"
    params = _suite.Implementations.grid(
        _suite.sizes([(200, 5), (1000, 10), (500, 20)], [(100, 3)])
    )


class HessianPacked(_suite.Implementations):
    operation = "hessian_packed"
    params = _suite.Implementations.grid(_suite.sizes([(200, 5), (1000, 10)], [(100, 3)]))


class KernelMatrixSpeedup(_suite.Speedup):
    operation = "kernel_matrix"
    params = _suite.Speedup.grid(_suite.sizes([(5000, 10)], [(300, 3)]))


class GradientSpeedup(_suite.Speedup):
    operation = "gradient"
    params = _suite.Speedup.grid(_suite.sizes([(2000, 2), (2000, 10)], [(100, 3)]))


class HessianDiagSpeedup(_suite.Speedup):
    operation = "hessian_diag"
    params = _suite.Speedup.grid(_suite.sizes([(1000, 10)], [(100, 3)]))


class HessianSpeedup(_suite.Speedup):
    operation = "hessian"
    params = _suite.Speedup.grid(_suite.sizes([(500, 10), (1000, 10), (500, 20)], [(100, 3)]))


class HessianPackedSpeedup(_suite.Speedup):
    operation = "hessian_packed"
    params = _suite.Speedup.grid(_suite.sizes([(1000, 10)], [(100, 3)]))


_SMALL = _suite.sizes([(n, d) for n in (100, 200, 500) for d in (2, 5, 10)], [(100, 2)])


class GradientExcess(_suite.Excess):
    operation = "gradient"
    params = (_SMALL,)


class HessianExcess(_suite.Excess):
    operation = "hessian"
    params = (_SMALL,)


class GradientWriteBandwidth(_suite.WriteBandwidth):
    operation = "gradient"
    params = (_suite.sizes([(2000, 2), (2000, 5), (2000, 10)], [(500, 5)]),)


class HessianWriteBandwidth(_suite.WriteBandwidth):
    operation = "hessian"
    params = (_suite.sizes([(2000, 5), (1000, 10), (500, 20)], [(300, 5)]),)


class KernelMatrixThreads(_suite.Threads):
    operation = "kernel_matrix"
    params = (_suite.sizes([(5000, 10)], [(300, 3)]),)


class GradientThreads(_suite.Threads):
    operation = "gradient"
    params = (_suite.sizes([(2000, 2), (2000, 3)], [(100, 3)]),)


class HessianPacking(_suite.Half):
    operations = ("hessian", "hessian_packed")
    params = _suite.Half.grid(_suite.sizes([(1000, 10), (500, 20)], [(100, 3)]))


class GradientFamilies(_suite.Families):
    operation = "gradient"
    params = _suite.Families.grid(_suite.sizes([(2000, 10)], [(100, 3)]))


class HessianFamilies(_suite.Families):
    operation = "hessian"
    params = _suite.Families.grid(_suite.sizes([(1000, 10)], [(100, 3)]))
