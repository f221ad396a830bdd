"""What a user's ``mypy --strict`` makes of what is public; checked by .ci/lint, never run."""

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator
from sklearn.gaussian_process.kernels import RBF  # type: ignore[import-untyped]

import kerneldiff as kd
from kerneldiff import plot

Array = npt.NDArray[Any]

X = np.zeros((5, 3))
y = np.zeros(5)
kernel = RBF([1.0, 2.0, 3.0])

# ---- tensors

assert_type(kd.kernel_matrix(kernel, X), Array)
assert_type(kd.gradient(kernel, X, X[:2], wrt="y", out=np.empty((5, 2, 3))), Array)
assert_type(kd.hessian_diag(kernel, X.tolist()), Array)
assert_type(kd.hessian(kernel, X, wrt="xy", layout="packed"), Array)
assert_type(kd.rbf_kernel(X, gamma=0.5), Array)
assert_type(kd.rbf_gradient(X), Array)
assert_type(kd.rbf_hessian_diag(X), Array)
assert_type(kd.rbf_hessian(X), Array)
for rows, block in kd.tensor_blocks(kd.gradient, kernel, X, working_memory=1.0):
    assert_type(rows, slice)
    assert_type(block, Array)
kd.gram_jacobian(kernel, X, layout="sparse")

# ---- functionals and operators

observed: list[kd.Value | kd.Gradient | kd.ValueGradient] = [kd.Value(X), kd.Gradient(X)]
assert_type(kd.covariance(kernel, observed), Array)
assert_type(kd.Directional(X, np.ones(3)).shape, tuple[int, ...])
assert_type(kd.Laplacian(X).size, int)
operator = kd.CovarianceOperator(kernel, observed, kd.Hessian(X), noise=None)
linear: LinearOperator = operator
assert_type(operator.to_dense(), Array)
assert_type(operator.diagonal(), Array)
f = kd.expansion(kernel, X, y)
assert_type(f(X), Array)
assert_type(f.gradient(X), Array)
assert_type(f.hessian(X), Array)
assert_type(f.laplacian(X), Array)
interpolator = kd.RBFInterpolator(X, y, kernel="cubic")
interpolator.gradient(X)
kd.Columns(kernel, [0, 1])

# ---- estimators

gp = kd.GaussianProcessRegressor(kernel, alpha_gradient=1e-4, random_state=0)
assert_type(gp.fit(X, y, dy=X), kd.GaussianProcessRegressor)
mean, std = gp.predict(X, return_std=True)
gp.predict_gradient(X, return_cov=True)
gp.fit(X, y, observations=kd.Observations([(kd.Laplacian(X), y)]))
kd.GradientWhiteKernel(1e-3) + kernel
basis = kd.TanhBasis(n_components=4, random_state=0)
assert_type(basis.fit(X), kd.TanhBasis)
assert_type(basis.transform(X), Array)
assert_type(kd.tanh_basis(X, np.zeros((4, 2))), Array)
assert_type(kd.tanh_jacobian(X, np.zeros((4, 2)), layout="full"), Array)
regressor = kd.TanhRegressor(n_components=4)
assert_type(regressor.fit(X, y), kd.TanhRegressor)
assert_type(regressor.predict(X), Array)
assert_type(regressor.predict_gradient(X), Array)

# ---- checking and looking

assert_type(plot.KernelMatrixDisplay.from_kernel(kernel, X), plot.KernelMatrixDisplay)
assert_type(plot.GaussianProcessDisplay.from_estimator(gp), plot.GaussianProcessDisplay)
assert_type(plot.SensitivityDisplay.from_estimator(gp, X, y), plot.SensitivityDisplay)
assert_type(plot.JacobianDisplay.from_estimator(basis, X), plot.JacobianDisplay)
assert_type(plot.SpeedupDisplay.from_json("results.json"), plot.SpeedupDisplay)


def square(x: Array) -> Array:
    """Return squares."""
    return x**2


assert_type(kd.numerical_jacobian(square, y), Array)
assert_type(kd.numerical_hessian(square, y), Array)
try:
    kd.check_kernel_derivatives(kernel, X)
except kd.DerivativeError as error:
    assert_type(error.args, tuple[Any, ...])
kd.show_config()
