"""Covariances: large and random problems, and what is right."""

import numpy as np
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern
from support.bounds import covariance_bounds
from support.functionals import NAMES, ORDERS, functionals, meet, two, wide
from support.oracles import ard, kernel_trees
from support.tensors import DTYPES

from kerneldiff import Columns, _reference

# Three invariants need the most partial derivatives: 3^4 of the fourth order.
MANY = {
    "three": lambda D: RBF(ard(D)) * Matern(1.3, nu=2.5) * DotProduct(0.6),
    "power": lambda D: (RBF(ard(D)) + DotProduct(0.5)) ** 3,
    "sum": lambda D: two(D) + 0.5 * RBF(ard(D, 2.0, 0.5)) + Matern(ard(D, 1.0, 3.0), nu=2.5),
    "columns": lambda D: Columns(two(D - 1), range(1, D)) * RBF(1.1) + Columns(RBF(), [0]),
}


def expected(kernel, rows, cols=None, dtype="float64"):
    """The exact matrix and the bounds of its errors."""
    with np.errstate(all="ignore"):
        return (
            _reference.covariance(kernel, wide(rows), wide(cols)),
            covariance_bounds(kernel, rows, cols, dtype),
        )


@st.composite
def problems(draw):
    D = draw(st.integers(1, 4))
    kernel = draw(kernel_trees(D, smooth=draw(st.booleans())))
    dtype = draw(st.sampled_from(DTYPES))
    sides = [
        functionals(draw(st.integers(1, 4)), D, dtype, seed=draw(st.integers(0, 99)))
        for _ in range(2)
    ]
    first, second = (draw(st.sampled_from(NAMES)) for _ in range(2))
    rows, cols = meet(*sides)
    return kernel, rows[first], cols[second], min(ORDERS[first], ORDERS[second]), dtype
