"""Products with derivatives of kernels that are never built."""

from . import _suite

_FULL = [(10_000, d) for d in (3, 10, 30)]
_QUICK = [(500, 3)]


class KernelProduct(_suite.Products):
    operation = "kernel_product"
    params = _suite.Products.grid(_suite.sizes(_FULL, _QUICK))


class SymmetricKernelProduct(KernelProduct):
    symmetric = True


class JointProduct(_suite.Products):
    operation = "joint_product"
    params = _suite.Products.grid(_suite.sizes(_FULL, _QUICK))


class SymmetricJointProduct(JointProduct):
    symmetric = True


class ExpansionGradient(_suite.Products):
    operation = "expansion_gradient"
    params = _suite.Products.grid(_suite.sizes(_FULL, _QUICK))


class ExpansionHessian(_suite.Products):
    operation = "expansion_hessian"
    params = _suite.Products.grid(_suite.sizes(_FULL, _QUICK))


class KernelProductSpeedup(_suite.ProductSpeedup):
    operation = "kernel_product"
    params = (_suite.sizes(_FULL, _QUICK),)


class SymmetricKernelProductSpeedup(KernelProductSpeedup):
    symmetric = True


class JointProductSpeedup(_suite.ProductSpeedup):
    operation = "joint_product"
    params = (_suite.sizes(_FULL, _QUICK),)


class SymmetricJointProductSpeedup(JointProductSpeedup):
    symmetric = True


class ExpansionGradientSpeedup(_suite.ProductSpeedup):
    operation = "expansion_gradient"
    params = (_suite.sizes(_FULL, _QUICK),)


class ExpansionHessianSpeedup(_suite.ProductSpeedup):
    operation = "expansion_hessian"
    params = (_suite.sizes(_FULL, _QUICK),)


class _Columns(_suite.ProductRatio):
    subject = "columns"

    def track_slowdown_of_eight_columns(self, size):
        seconds = self.measured(size)["seconds"]
        return seconds["8"] / seconds["1"]


class KernelProductColumns(_Columns):
    operation = "kernel_product"
    params = (_suite.sizes([(10_000, 10), (10_000, 30)], _QUICK),)


class JointProductColumns(_Columns):
    operation = "joint_product"
    params = (_suite.sizes([(10_000, 10), (10_000, 30)], _QUICK),)


class _Float32(_suite.ProductRatio):
    subject = "float32"

    def track_speedup_of_float32(self, size):
        seconds = self.measured(size)["seconds"]
        return seconds["float64"] / seconds["float32"]


class KernelProductFloat32(_Float32):
    operation = "kernel_product"
    params = (_suite.sizes([(10_000, 3), (10_000, 10)], _QUICK),)


class JointProductFloat32(_Float32):
    operation = "joint_product"
    params = (_suite.sizes([(10_000, 10), (10_000, 30)], _QUICK),)


class JointProductArithmetic(_suite.ProductRatio):
    subject = "fma"
    operation = "joint_product"
    params = (_suite.sizes([(10_000, 30), (5000, 100)], _QUICK),)
    unit = "of 1"

    def track_share_of_fma_peak(self, size):
        found = self.measured(size)
        return found["rate"] / found["peak"]


class MaternGradients(_suite.ProductRatio):
    subject = "gemm"
    operation = "matern_gradients"
    params = (_suite.sizes([(1024, 1024)], [(100, 100)]),)

    def track_slowdown_over_matrix_products(self, size):
        seconds = self.measured(size)["seconds"]
        return seconds["kerneldiff"] / seconds["3 GEMM + SYRK"]


class HessianProduct(_suite.ProductRatio):
    subject = "time"
    operation = "rbf_hessians"
    params = (_suite.sizes([(128, 16)], [(32, 4)]),)
    unit = "µs"

    def track_excess(self, size):
        return 1e6 * self.measured(size)["seconds"]["kerneldiff"]


class ThetaContraction(_suite.ProductRatio):
    subject = "cholesky"
    operation = "theta_contraction"
    params = (_suite.sizes([(500, 10)], [(50, 5)]),)
    unit = "of 1"

    def track_slowdown_of_cholesky(self, size):
        seconds = self.measured(size)["seconds"]
        return seconds["kerneldiff"] / seconds["dpotrf"]


class JointProductMemory(_suite.ProductRatio):
    subject = "memory"
    operation = "joint_product"
    params = (_suite.sizes([(100_000, 10)], [(5000, 10)]),)
    unit = "MiB"

    def track_peak_memory(self, size):
        found = self.measured(size)["bytes"]
        return float("nan") if found is None else found / 2**20
