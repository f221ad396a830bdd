"""Work of operators, the same in every process that does it.

A module of its own, because processes of their own import it: no pytest, no mpmath. All of it is
large enough for several threads, some of it for several tiles.
"""

import hashlib

import numpy as np
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from support.functionals import functionals, two

from kerneldiff import CovarianceOperator, expansion

ISOTROPIC = RBF(1.3)
ARD = Matern([0.9, 1.2, 0.7], nu=2.5)


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape)


def operator(name, n, m, D, kernel=ISOTROPIC, dtype="float64", noise=None):
    """Of one functional at n and at m points, or at n points on both sides."""
    rows, cols = functionals(n, D, dtype)[name], functionals(m or 1, D, dtype, seed=1)[name]
    return CovarianceOperator(kernel, rows, cols if m else None, noise=noise)


def product(*arguments, K=None, **options):
    op = operator(*arguments, **options)
    return op @ normal(*(op.shape[1:] if K is None else (op.shape[1], K))).astype(op.dtype)


def vjp(wrt, *arguments, order=None, **options):
    """With a dense matrix in an order of memory, or with two times two vectors."""
    op = operator(*arguments, **options)
    if order is None:
        return op.vjp((normal(op.shape[0], 2), normal(op.shape[1], 2)), wrt)
    return op.vjp(np.asarray(normal(*op.shape), order=order), wrt)


def of_a_list():
    rows = list(functionals(90, 3).values())[:6]
    return CovarianceOperator(ARD, rows) @ normal(sum(row.size for row in rows))


WORK = {
    "values": lambda: product("Value", 700, 600, 3),
    "values, symmetric": lambda: product("Value", 900, None, 3),
    "values, noise": lambda: product("Value", 900, None, 3, RBF() + WhiteKernel(), noise=0.1),
    "values, 9": lambda: product("Value", 700, 600, 3, K=9),
    "values, 9, symmetric": lambda: product("Value", 700, None, 3, K=9),
    "values, one row": lambda: product("Value", 1, 50_000, 3),
    "values, one column": lambda: product("Value", 50_000, 1, 3),
    "joint": lambda: product("ValueGradient", 400, 500, 3, ARD),
    "joint, symmetric": lambda: product("ValueGradient", 500, None, 3, ARD),
    "joint, symmetric, float32": lambda: product("ValueGradient", 500, None, 10, dtype="float32"),
    "joint, 8, symmetric": lambda: product("ValueGradient", 400, None, 10, K=8),
    "joint, 67 columns, symmetric": lambda: product("ValueGradient", 200, None, 67, RBF(10.0)),
    "two, symmetric": lambda: product("ValueGradient", 300, None, 3, two(3)),
    "mask": lambda: product("masked ValueGradient", 300, 200, 3),
    "mask, symmetric": lambda: product("masked ValueGradient", 300, None, 3),
    "Hessian": lambda: product("Hessian", 200, 150, 3),
    "Hessian, symmetric": lambda: product("Hessian", 200, None, 3),
    "Laplacian, symmetric": lambda: product("Laplacian", 400, None, 3),
    "list, symmetric": of_a_list,
    "Bessel": lambda: product("Value", 200, None, 3, Matern(nu=1.7)),
    "many columns": lambda: product("Value", 400, 300, 300, RBF(20.0)),
    "many columns, symmetric": lambda: product("Value", 400, None, 300, RBF(20.0)),
    "many columns, joint": lambda: product("ValueGradient", 300, 200, 300, RBF(20.0)),
    "many columns, joint, symmetric": lambda: product(
        "ValueGradient", 300, None, 300, Matern(20.0, nu=2.5)
    ),
    "many columns, 4": lambda: product("ValueGradient", 150, 200, 300, RBF(20.0), K=4),
    "theta": lambda: vjp("theta", "ValueGradient", 300, 200, 3, ARD),
    "theta, symmetric": lambda: vjp("theta", "ValueGradient", 300, None, 3, ARD),
    "theta, float32": lambda: vjp("theta", "ValueGradient", 300, 200, 3, ARD, dtype="float32"),
    "theta, C": lambda: vjp("theta", "ValueGradient", 300, None, 3, ARD, order="C"),
    "theta, F": lambda: vjp("theta", "ValueGradient", 300, None, 3, two(3), order="F"),
    "theta, many columns": lambda: vjp("theta", "Value", 300, None, 300, RBF(20.0)),
    "rows": lambda: vjp("rows", "ValueGradient", 300, 200, 3, two(3)),
    "cols": lambda: vjp("cols", "ValueGradient", 300, 200, 3, ARD, order="C"),
    "rows, many columns": lambda: vjp("rows", "ValueGradient", 150, 100, 300, RBF(20.0)),
    "total": lambda: vjp("rows", "ValueGradient", 300, None, 3, ARD),
    "total, F": lambda: vjp("rows", "Value", 700, None, 3, two(3), order="F"),
    "jvp": lambda: operator("ValueGradient", 200, 300, 3, ARD).jvp(normal(3), normal(1200, 2)),
    "jvp, rows": lambda: operator("ValueGradient", 200, None, 3, ARD).jvp(
        normal(200, 3), normal(800), "rows"
    ),
    "expansion": lambda: expansion(RBF(), normal(500, 3), normal(500)).hessian(normal(400, 3)),
    "diagonal": lambda: operator("ValueGradient", 9000, None, 5).diagonal(),
}


def digest(name):
    return hashlib.sha256(np.ascontiguousarray(WORK[name]())).hexdigest()
