"""Fast and exact derivatives of kernels, on CPUs, for people who live in the scikit-learn world.

A kernel is a scalar function of a few invariants of a pair of points, such as their weighted
squared distance; everything else is geometry.  So the library is kernels *plus* operations, never
kernels *times* operations, and a pair of tiles flows one way::

      points X, Y                                                         N x M x ... entries
           |                                                                      ^
           v                                                                      |
      invariants  ------------->  jets  ------------------------->  operation ----+
      s = sum w (x - y)^2         F, F', F'', ... of s              gradient, Hessian, ...
      knows the geometry          the only step that knows          the only step that knows
                                  the kernel                        what is wanted

Where things are:

- ``tensors.py``, ``functionals.py``, ``tanh.py``: the public functions and estimators, which check
  what comes in.
- ``operators.py``: covariances that are multiplied by without being built.
- ``gaussian_process.py``: the estimator; ``solvers.py`` and ``rotation.py``: its linear systems.
- ``rbf.py``: SciPy's interpolator on our products; ``tanh_regressor.py``: a tanh basis that is
  learned; ``plot.py``: displays of all of these.
- ``cli.py``: the command; ``_demo.py`` and ``_table.py``: what its demo does, on bundled data and
  on a table of the user's.
- ``kernels.py``: from a scikit-learn kernel object to a short program over jets.
- ``_core.pyx``: hands tiles of pairs to threads; the only place that knows memory and threads.
- ``src/jets.h``: the list of kernels in C; ``src/tile.c``: the walk over a tile, compiled once for
  each instruction set and real type; ``src/dispatch.c``: which of them can run here.
- ``_reference.py``: the same functions in plain NumPy: oracle of the tests and baseline.
"""

import os
import pathlib

# GCC's OpenMP reads its settings from the environment when it is loaded, which is now.  By default
# its threads wait for work by spinning for milliseconds.  Where other programs want the processors
# too, such a thread is put to sleep in the middle of that, and a call of 0.1 ms takes 40; so they
# spin for microseconds here, unless the user has said how to wait.
_quiet = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
if _quiet:
    os.environ["GOMP_SPINCOUNT"] = "1000"
try:
    import kerneldiff._core
except ModuleNotFoundError as error:
    _here = pathlib.Path(__file__).parent
    if error.name == "kerneldiff._core" and (_here / "_core.pyx").exists():
        raise ImportError(
            f"kerneldiff was imported from its source folder, {_here}, which has no compiled "
            "module and hides an installed kerneldiff. Start Python elsewhere (run `pytest`, not "
            "`python -m pytest`), or install for development: see CONTRIBUTING.md."
        ) from error
    raise
finally:
    if _quiet:
        del os.environ["GOMP_SPINCOUNT"]

from kerneldiff._show_config import show_config
from kerneldiff.functionals import (
    Directional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    covariance,
)
from kerneldiff.gaussian_process import (
    GaussianProcessRegressor,
    GradientWhiteKernel,
    Observations,
)
from kerneldiff.kernels import Columns
from kerneldiff.numeric import (
    DerivativeError,
    DerivativeWarning,
    check_kernel_derivatives,
    numerical_hessian,
    numerical_jacobian,
)
from kerneldiff.operators import CovarianceOperator, expansion
from kerneldiff.rbf import RBFInterpolator
from kerneldiff.tanh import TanhBasis, tanh_basis, tanh_jacobian
from kerneldiff.tanh_regressor import TanhRegressor
from kerneldiff.tensors import (
    gradient,
    gram_jacobian,
    hessian,
    hessian_diag,
    kernel_matrix,
    rbf_gradient,
    rbf_hessian,
    rbf_hessian_diag,
    rbf_kernel,
    tensor_blocks,
)

__version__ = "0.1.0"

__all__ = [
    "Columns",
    "CovarianceOperator",
    "DerivativeError",
    "DerivativeWarning",
    "Directional",
    "GaussianProcessRegressor",
    "Gradient",
    "GradientWhiteKernel",
    "Hessian",
    "Laplacian",
    "Observations",
    "RBFInterpolator",
    "TanhBasis",
    "TanhRegressor",
    "Value",
    "ValueGradient",
    "check_kernel_derivatives",
    "covariance",
    "expansion",
    "gradient",
    "gram_jacobian",
    "hessian",
    "hessian_diag",
    "kernel_matrix",
    "numerical_hessian",
    "numerical_jacobian",
    "rbf_gradient",
    "rbf_hessian",
    "rbf_hessian_diag",
    "rbf_kernel",
    "show_config",
    "tanh_basis",
    "tanh_jacobian",
    "tensor_blocks",
]
