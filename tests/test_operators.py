"""Products with covariances that are never built.

Two measures, both for each right-hand side v by itself.

The bound
    Errors of entries are at most those of `support.bounds`, b_ij, and adding up n products rounds
    no more than n times: sum_j (b_ij + n u |C_ij|) |v_j|. Exact are the entries of the reference in
    long double. It holds row by row, wherever differences of coordinates are formed.
The promise
    1e-13 max_i sum_j |C_ij| |v_j| away from the product with the dense matrix, in float64. It holds
    for points of many dimensions, too, where the products are matrix multiplications.
"""

import copy
import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse.linalg as sla
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import LowLevelCallable
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import UNIT, assert_within
from support.covariances import MANY, expected, problems
from support.functionals import NAMES, ORDERS, functionals, meet, two
from support.oracles import REGISTRY, ard, check_each, stationary_product
from support.own_kernels import OWN, Bump, Compiled, Failing, Mishap, gaussian, raises
from support.processes import assert_interruptible, run_python
from support.products import WORK
from support.tensors import DTYPES
from threadpoolctl import threadpool_limits

from kerneldiff import (
    Columns,
    CovarianceOperator,
    Directional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    _core,
    covariance,
    kernels,
)

dtypes = pytest.mark.parametrize("dtype", DTYPES)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, maps memory as on Linux")
PROMISE = 1e-13


def right_hand_sides(size, K=None, dtype="float64", seed=0):
    """Random vectors, (size,) or (size, K)."""
    rng = np.random.default_rng([seed, size])
    return rng.normal(size=size if K is None else (size, K)).astype(dtype)


def apart(side, dtype="float64"):
    """One random vector for each functional of a side, zero at the entries of all others."""
    V = np.zeros((sum(f.size for f in side), len(side)), dtype)
    start = 0
    for k, functional in enumerate(side):
        stop = start + functional.size
        V[start:stop, k] = right_hand_sides(functional.size, seed=k)
        start = stop
    return V


def keep_promise(actual, matrix, V):
    """Compare a product with that of a matrix, of any precision, within the promise."""
    matrix, V = matrix.astype(np.longdouble), V.astype(np.longdouble)
    with np.errstate(all="ignore"):
        desired, sums = matrix @ V, np.abs(matrix) @ np.abs(V)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(desired))
    exists = ~np.isnan(desired)
    largest = np.max(sums, axis=0, initial=0, where=exists)
    error = np.abs(np.where(exists, actual - desired, 0))
    assert (error <= PROMISE * largest).all(), f"{(error / largest).max():.3g} of the largest sum"


def assert_right(actual, kernel, rows, cols, V, dtype="float64"):
    """Check a product by the bound, and in float64 by the promise as well."""
    matrix, bound = expected(kernel, rows, cols, dtype)
    exact_V = V.astype(np.longdouble)
    with np.errstate(all="ignore"):
        desired, sums = matrix @ exact_V, np.abs(matrix) @ np.abs(exact_V)
        bound = bound @ np.abs(exact_V) + UNIT[dtype] * len(V) * sums
        bound += np.finfo(dtype).smallest_normal
    assert actual.dtype == dtype
    assert_within(actual, desired, np.where(np.isnan(bound), np.inf, bound))
    if dtype == "float64":
        keep_promise(actual, covariance(kernel, rows, cols), V)


def check(kernel, rows, cols=None, K=None, dtype="float64"):
    """Check one product of an operator."""
    operator = CovarianceOperator(kernel, rows, cols)
    V = right_hand_sides(operator.shape[1], K, dtype)
    assert_right(operator @ V, kernel, rows, cols, V, dtype)


# --------------------------------------------------------------------------------------------------
# All kernels, all pairs of functionals
# --------------------------------------------------------------------------------------------------

SIDE = ["Value", "masked ValueGradient", "Gradient", "Directional", "Hessian", "Laplacian"]


def known(name):
    """Functionals that a registered kernel is smooth enough for on both sides."""
    return [key for key in SIDE if 2 * ORDERS[key] < REGISTRY[name].smoothness or not ORDERS[key]]


@pytest.mark.quick(16)
@dtypes
@pytest.mark.parametrize("name", REGISTRY)
def test_kernels(name, dtype):
    """Every pair of functionals by itself: a vector for each functional of the columns."""
    rows, cols = meet(functionals(2, 2, dtype), functionals(3, 2, dtype, seed=1))
    rows, cols = ([side[key] for key in known(name)] for side in (rows, cols))
    kernel, V = REGISTRY[name](2), apart(cols, dtype)
    assert_right(CovarianceOperator(kernel, rows, cols) @ V, kernel, rows, cols, V, dtype)


@pytest.mark.quick(16)
@dtypes
@pytest.mark.parametrize("name", REGISTRY)
def test_kernels_without_columns(name, dtype):
    """Symmetric, one vector, with noise on the diagonal."""
    sides = functionals(3, 2, dtype)
    check(REGISTRY[name](2), [sides[key] for key in known(name)], dtype=dtype)


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.parametrize("name", [name for name, c in REGISTRY.items() if c.smoothness <= 4])
def test_rough_kernels_with_derivatives_on_one_side(name, side):
    """NaN in the rows of the product where it is in those of the matrix."""
    rows, cols = meet(functionals(2, 2), functionals(3, 2, seed=1))
    sides = list(rows.values()), cols["Value"]
    check(REGISTRY[name](2), *(sides if side == "rows" else sides[::-1]))


@pytest.mark.parametrize("v", [0.0, 1.0])
def test_a_missing_derivative_of_some_columns(v):
    """Also where it is multiplied by zero, and only in the rows of the columns that it misses."""
    kernel = Columns(Matern(nu=1.5), [0]) + RBF()
    X, Y = np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 2.0]])
    product = CovarianceOperator(kernel, Hessian(X), Gradient(Y)) @ np.full(4, v)
    matrix = covariance(kernel, Hessian(X), Gradient(Y))
    assert np.isnan(matrix).sum() == 1
    np.testing.assert_array_equal(np.isnan(product), np.isnan(matrix).any(axis=1))


KERNELS = {
    "rbf": lambda D: RBF(0.9 * D**0.5),
    "matern-ard": lambda D: Matern(ard(D) * D**0.5, nu=2.5),
    "dot": lambda D: DotProduct(0.4) ** 2,
    "two": two,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_pairs(first, second, kernel):
    rows, cols = meet(functionals(3, 3), functionals(5, 3, seed=1))
    check_each([None, 2, 9], lambda K: check(KERNELS[kernel](3), rows[first], cols[second], K))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for i, a in enumerate(NAMES) for b in NAMES[: i + 1]]
)
def test_pairs_without_columns(first, second, kernel):
    rows = [functionals(4, 3)[first], functionals(5, 3, seed=1)[second]]
    check_each([None, 3], lambda K: check(KERNELS[kernel](3), rows, None, K))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_one_functional_without_columns(name, kernel):
    check(KERNELS[kernel](3), functionals(6, 3)[name])


@pytest.mark.parametrize("second", ["Hessian", "Laplacian", "ValueGradient"])
@pytest.mark.parametrize("first", ["Hessian", "Laplacian", "Directional"])
@pytest.mark.parametrize("name", MANY)
def test_large_programs(name, first, second):
    rows, cols = meet(functionals(2, 3), functionals(3, 3, seed=1))
    check(MANY[name](3), rows[first], cols[second])


@pytest.mark.parametrize("name", OWN)
def test_own_kernels(name):
    kernel, written_out = OWN[name]
    rows, cols = meet(functionals(3, 3), functionals(5, 3, seed=1))
    rough = kernels.smoothness(kernels.read(kernel, 3)) < 4
    names = ["Value", "Gradient"] if rough else ["ValueGradient", "Laplacian"]
    rows, cols = ([side[key] for key in names] for side in (rows, cols))
    operator = CovarianceOperator(kernel, rows, cols)
    V = right_hand_sides(operator.shape[1])
    keep_promise(operator @ V, covariance(kernel, rows, cols), V)
    assert_right(operator @ V, written_out, rows, cols, V)


@pytest.mark.parametrize("composite", [False, True])
def test_compiled_jet(composite):
    kernel, known = Compiled(LowLevelCallable(gaussian, signature=_core.SIGNATURE)), RBF()
    if composite:
        kernel, known = 2.0 * kernel + DotProduct(), 2.0 * known + DotProduct()
    rows, cols = meet(functionals(3, 3), functionals(5, 3, seed=1))
    rows, cols = ([side["ValueGradient"], side["Laplacian"]] for side in (rows, cols))
    V = right_hand_sides(sum(f.size for f in cols))
    assert_right(CovarianceOperator(kernel, rows, cols) @ V, known, rows, cols, V)


def test_attributes_of_a_kernel_of_ones_own():
    """Whatever is there when the operator is made, arguments of the constructor or not."""
    kernel = Bump(0.8)
    kernel.weights = np.array([0.5, 2.0])
    rows = functionals(5, 2)["ValueGradient"]
    operator, matrix = CovarianceOperator(kernel, rows), covariance(kernel, rows)
    kernel.weights[:] = 7
    keep_promise(operator @ np.ones(15), matrix, np.ones(15))
    np.testing.assert_allclose(operator.to_dense(), matrix, rtol=1e-14)


def test_mishap_in_a_kernel_of_ones_own():
    operator = CovarianceOperator(Failing(raises(Mishap("here"))), Value(np.ones((9, 2))))
    with pytest.raises(Mishap, match="here"):
        operator @ np.ones(9)


@st.composite
def products(draw):
    kernel, rows, cols, order, dtype = draw(problems())
    if draw(st.booleans()):
        cols, order = None, ORDERS[type(rows).__name__]
    return kernel, rows, cols, order, dtype, draw(st.sampled_from([None, 1, 2, 8]))


@pytest.mark.exhaustive
@given(products())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_random_kernels(problem):
    kernel, rows, cols, order, dtype, K = problem
    nu = kernels.smoothness(kernels.read(kernel, rows.X.shape[1])) / 2
    if order and order >= nu:
        with pytest.raises(ValueError, match=f"nu = {nu:g}, which is too rough"):
            CovarianceOperator(kernel, rows, cols)
    else:
        check(kernel, rows, cols, K, dtype)


# --------------------------------------------------------------------------------------------------
# Sizes
# --------------------------------------------------------------------------------------------------

# Around the edges of groups, panels and tiles of any size that could be used.
SIZES = [
    *[(1, 1), (1, 300), (300, 1), (3, 4), (4, 3), (5, 16), (16, 5), (15, 17), (17, 15)],
    *[(127, 129), (128, 128), (129, 127), (255, 257), (256, 256), (257, 255), (48, 300)],
]
FUNCTIONALS = [("Value", "Value", 3), ("ValueGradient", "ValueGradient", 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("first", "second", "D"),
    [
        *FUNCTIONALS,
        *[("Gradient", "Value", 5), ("masked ValueGradient", "Gradient", 2)],
        *[("Directional", "Laplacian", 3), ("Value", "Hessian", 2)],
    ],
)
def test_sizes(first, second, D, size):
    """Dense and not, of the same entries."""
    rows, cols = meet(functionals(size[0], D), functionals(size[1], D, seed=1))
    kernel = Matern(ard(D) * D**0.5, nu=2.5)
    operator = CovarianceOperator(kernel, rows[first], cols[second])
    V = right_hand_sides(operator.shape[1])
    keep_promise(operator @ V, covariance(kernel, rows[first], cols[second]), V)


@pytest.mark.parametrize("n", sorted({n for size in SIZES for n in size}))
@pytest.mark.parametrize(
    ("name", "D"),
    [
        *[("Value", 3), ("Gradient", 1), ("ValueGradient", 3), ("masked Gradient", 2)],
        *[("Directional", 2), ("Laplacian", 3), ("Hessian", 1)],
    ],
)
@pytest.mark.parametrize("K", [None, 3])
def test_sizes_without_columns(name, D, n, K):
    rows = functionals(n, D)[name]
    kernel = RBF(0.8) + WhiteKernel(0.3)
    operator = CovarianceOperator(kernel, rows)
    V = right_hand_sides(operator.shape[1], K)
    keep_promise(operator @ V, covariance(kernel, rows), V)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("size", [(4, 17), (129, 131), (300, 260)], ids=str)
@pytest.mark.parametrize(("first", "second", "D"), FUNCTIONALS)
def test_sizes_in_single_precision(first, second, D, size, symmetric):
    rows = functionals(size[0], D, "float32")[first]
    cols = None if symmetric else functionals(size[1], D, "float32", seed=1)[second]
    check(RBF(0.9), rows, cols, dtype="float32")


@dtypes
@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65])
@pytest.mark.parametrize(
    ("first", "second"),
    [("Value", "Value"), ("ValueGradient", "ValueGradient"), ("Gradient", "Value")],
)
def test_dimensions(first, second, D, dtype):
    rows, cols = meet(functionals(6, D, dtype), functionals(19, D, dtype, seed=1))
    check(Matern(ard(D) * D**0.5, nu=2.5), rows[first], cols[second], dtype=dtype)


@pytest.mark.parametrize("kernel", ["rbf", "two"])
@pytest.mark.parametrize("second", ["Hessian", "Value", "ValueGradient", "Directional"])
@pytest.mark.parametrize("D", [1, 2, 4, 5, 8, 9])
def test_hessians_of_many_dimensions(D, second, kernel):
    rows, cols = meet(functionals(2, D), functionals(3, D, seed=1))
    check(KERNELS[kernel](D), rows["Hessian"], cols[second])
    check(KERNELS[kernel](D), cols[second], rows["Hessian"])


@pytest.mark.parametrize("K", [None, 0, 1, 2, 3, 7, 8, 9, 16, 17, 33])
@dtypes
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "masked Gradient", "Hessian"])
def test_right_hand_sides(name, symmetric, dtype, K):
    rows, cols = meet(functionals(7, 3, dtype), functionals(9, 3, dtype, seed=1))
    check(two(3), rows[name], None if symmetric else cols[name], K, dtype)


@pytest.mark.parametrize("name", ["Hessian", "ValueGradient and Hessian", "without columns"])
def test_more_right_hand_sides_than_a_task_has_time_for(name):
    X = np.random.default_rng(0).normal(size=(4, 20))
    both = [ValueGradient(X[:2]), Hessian(X[1:2])]
    rows, cols = {
        "Hessian": (both[1], Hessian(X[3:])),
        "ValueGradient and Hessian": both,
        "without columns": (both, None),
    }[name]
    check(two(20), rows, cols, K=80)


@pytest.mark.parametrize("name", NAMES)
def test_right_hand_sides_do_not_mix(name):
    """Each as good as alone: a large one, NaN or infinity beside it changes nothing."""
    rows = functionals(19, 3)[name]
    operator = CovarianceOperator(two(3), rows)
    v = right_hand_sides(rows.size)
    V = np.stack([v, 1e200 * v, np.full_like(v, np.nan), np.full_like(v, np.inf), -v], axis=1)
    with np.errstate(all="ignore"):
        product = operator @ V
    keep_promise(product[:, [0, 4]], covariance(two(3), rows), V[:, [0, 4]])
    assert np.isnan(product[:, 2]).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_points(name):
    nothing, cols = functionals(0, 3), functionals(4, 3, seed=1)
    assert (CovarianceOperator(two(3), nothing[name]) @ np.zeros(0)).shape == (0,)
    for side in cols.values():
        empty = CovarianceOperator(two(3), nothing[name], side)
        assert (empty @ np.ones(side.size)).shape == (0,)
        assert (empty @ np.ones((side.size, 2))).shape == (0, 2)
        np.testing.assert_array_equal(empty.T @ np.zeros(0), np.zeros(side.size))
        np.testing.assert_array_equal(empty.T @ np.zeros((0, 2)), np.zeros((side.size, 2)))
    # Beside others.
    rows = [cols["Value"], nothing[name], cols["Gradient"]]
    v = right_hand_sides(16)
    keep_promise(CovarianceOperator(two(3), rows) @ v, covariance(two(3), rows[::2]), v)


def test_nothing_in_a_mask():
    X = functionals(3, 2)["Value"].X
    empty = Gradient(X, mask=np.zeros((3, 2), bool))
    assert (CovarianceOperator(two(2), empty) @ np.zeros(0)).shape == (0,)
    v = right_hand_sides(3)
    product = CovarianceOperator(two(2), [empty, Value(X)], Value(X)) @ v
    keep_promise(product, covariance(two(2), Value(X)), v)


def test_points_without_columns():
    X = np.zeros((3, 0))
    product = CovarianceOperator(2.0 * RBF(), ValueGradient(X)) @ np.ones(3)
    np.testing.assert_array_equal(product, np.full(3, 6.0))
    product = CovarianceOperator(2.0 * RBF(), Laplacian(X), Value(X)) @ np.ones(3)
    np.testing.assert_array_equal(product, np.zeros(3))


# --------------------------------------------------------------------------------------------------
# Points that are far away, or close together
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(4)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("D", [1, 2, 5])
@pytest.mark.parametrize("offset", [2.0**20, -1e6])
def test_points_far_from_the_origin(offset, D, symmetric):
    rows, cols = meet(functionals(5, D), functionals(6, D, seed=1))
    for functional in (*rows.values(), *cols.values()):
        functional.X = functional.X + offset
    sides = [[side[key] for key in SIDE] for side in (rows, cols)]
    check(RBF(ard(D)) + Matern(nu=2.5), sides[0], None if symmetric else sides[1])


@pytest.mark.quick(4)
@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-13])
@pytest.mark.parametrize("kernel", [RBF(ard(2)), Matern(nu=2.5) * RationalQuadratic(), two(2)])
def test_points_that_almost_coincide(kernel, distance):
    rows = functionals(3, 2)
    cols = copy.deepcopy(rows)
    for functional in cols.values():
        functional.X += distance * np.array([[0.6, -0.8], [1.0, 0.2], [0.5, 0.7]])
    check(kernel, [rows[key] for key in SIDE], [cols[key] for key in SIDE])


@dtypes
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "Hessian", "Laplacian"])
@pytest.mark.parametrize(
    "kernel",
    [
        *[RBF(), Matern(nu=0.5), Matern(nu=1.5), Matern(nu=2.5), Matern(nu=3.5)],
        *[RationalQuadratic(), PairwiseKernel(gamma=0.5, metric="sigmoid"), two(2)],
    ],
    ids=str,
)
def test_points_far_apart(kernel, name, dtype):
    """Squares of distances up to the largest number and beyond it, and exponentials below the least
    one: as in the matrix.
    """
    limit = 150 if dtype == "float64" else 18
    X = functionals(12, 2, dtype)["Value"].X
    X *= np.logspace(0, limit, 12).astype(dtype)[:, None]
    rows, cols = {"Value": Value}.get(name, ValueGradient)(X[::2]), Value(X)
    rows = {"Hessian": Hessian, "Laplacian": Laplacian}.get(name, type(rows))(X[::2])
    with np.errstate(all="ignore"):
        matrix = covariance(kernel, rows, cols)
        product = CovarianceOperator(kernel, rows, cols) @ np.ones(12, dtype)
        desired = matrix.sum(axis=1)
        sums = np.abs(matrix).sum(axis=1)
    np.testing.assert_array_equal(np.isnan(product), np.isnan(desired))
    same = np.isnan(desired) | (product == desired)
    assert (np.abs(product - desired)[~same] <= 24 * UNIT[dtype] * sums[~same]).all()


FAR = [RBF(), Matern([0.8, 1.3], nu=2.5), Matern(nu=3.5), RationalQuadratic(), two(2)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernel", FAR, ids=str)
@pytest.mark.parametrize("distance", [1e12, 1e100, 1e200])
def test_points_beyond_all_distances(distance, kernel, name):
    """Up to an infinite square of it; no infinity times zero arises."""
    rows, cols = functionals(6, 2)[name], functionals(7, 2)[name]
    cols.X += distance
    matrix = covariance(kernel, rows, cols)
    assert np.isfinite(matrix).all()
    v = right_hand_sides(cols.size)
    keep_promise(CovarianceOperator(kernel, rows, cols) @ v, matrix, v)


def test_all_points_the_same():
    X = np.tile([[0.3, -1.2, 4.0]], (130, 1))
    check(Matern(nu=1.5), ValueGradient(X))
    check(RBF(), ValueGradient(X), ValueGradient(X[:5]))


# --------------------------------------------------------------------------------------------------
# Many dimensions
# --------------------------------------------------------------------------------------------------


def scattered(D, n):
    """Standard normal points, sqrt(2 D) apart."""
    return np.random.default_rng([1, n, D]).normal(size=(n, D))


def clusters(D, n, radius, distance):
    """Groups of ten points `radius` apart and `distance` from other groups, in sqrt(2 D)."""
    return distance * np.repeat(scattered(D, -(-n // 10)), 10, axis=0)[:n] + (
        radius * np.random.default_rng([2, n, D]).normal(size=(n, D))
    )


def first_column(D, n):
    """Zeros but for the first column, where groups of ten are 1e6 apart."""
    return np.pad(1e6 * np.arange(n)[:, None] // 10, ((0, 0), (0, D - 1)))


# Points of D columns, and a length scale in units of sqrt(D): what costs digits where squared
# distances are made of scalar products, and what does not.
CLOUDS = {
    "normal": (scattered, 0.5),
    "offset": (lambda D, n: scattered(D, n) + 1e4, 0.5),
    "large offset": (lambda D, n: scattered(D, n) + 1e6, 0.5),
    "short length scale": (scattered, 0.05),
    "long length scale": (scattered, 30.0),
    "clusters": (lambda D, n: clusters(D, n, 0.5, 30.0), 0.5),
    "distant clusters": (lambda D, n: clusters(D, n, 0.5, 1e5), 0.5),
    "tight clusters": (lambda D, n: clusters(D, n, 1e-4, 1.0), 0.5),
    "twins": (lambda D, n: clusters(D, n, 1e-7, 1.0), 0.5),
    "coincident": (lambda D, n: clusters(D, n, 0.0, 1.0), 0.5),
    # Too far apart to count as close, by little.
    "neighbours": (lambda D, n: clusters(D, n, 3e-3, 1.0), 0.5),
    "neighbours, short length scale": (lambda D, n: clusters(D, n, 3e-3, 1.0), 3e-3),
    "outlier": (lambda D, n: np.vstack([scattered(D, n - 2), np.full((2, D), 1e7)]), 0.5),
    "large column": (lambda D, n: clusters(D, n, 0.5, 1.0) + first_column(D, n), 0.5),
}

LARGE = {
    "rbf": lambda l: RBF(l),
    "matern-1/2": lambda l: Matern(l, nu=0.5),
    "matern-3/2": lambda l: Matern(l, nu=1.5),
    "rational": lambda l: RationalQuadratic(l, 0.7),
}


def keep_promise_in_many_dimensions(kernel, X, Y, joint):
    """Products with values or with values and gradients, Y being X or not."""
    v = right_hand_sides(len(Y) * (1 + X.shape[1])).reshape(len(Y), -1)
    functional = ValueGradient if joint else Value
    operator = CovarianceOperator(kernel, functional(X), None if Y is X else functional(Y))
    if not joint:
        v[:, 1:] = 0
    product = operator @ (v.ravel() if joint else v[:, 0])
    desired, sums = stationary_product(kernel, X, Y, v)
    if not joint:
        desired, sums = desired[:, 0], sums[:, 0]
    error = np.abs(product - desired.ravel()).max()
    assert error <= PROMISE * sums.max(), f"{error / sums.max():.3g} of the largest sum"


@pytest.mark.parametrize("joint", [False, True], ids=["values", "joint"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("kernel", LARGE)
def test_many_dimensions(kernel, cloud, symmetric, joint):
    """Where matrix multiplications lose digits, differences have to do."""
    if kernel == "matern-1/2" and joint:
        kernel = "matern-3/2"
    make, scale = CLOUDS[cloud]
    D, n = 300, 24
    points = make(D, 2 * n)
    # Both sides have a share of every cluster.
    X, Y = points[::2], points[1::2]
    keep_promise_in_many_dimensions(LARGE[kernel](scale * D**0.5), X, X if symmetric else Y, joint)


@pytest.mark.parametrize("joint", [False, True], ids=["values", "joint"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("cloud", ["normal", "clusters", "large offset"])
def test_many_dimensions_with_length_scales(cloud, symmetric, joint):
    make, scale = CLOUDS[cloud]
    D, n = 300, 24
    points = make(D, 2 * n)
    X, Y = points[::2], points[1::2]
    kernel = Matern(scale * D**0.5 * np.geomspace(0.3, 3.0, D), nu=2.5)
    keep_promise_in_many_dimensions(kernel, X, X if symmetric else Y, joint)


@pytest.mark.quick(2)
@pytest.mark.parametrize("joint", [False, True], ids=["values", "joint"])
@pytest.mark.parametrize(
    ("D", "size"),
    [
        *itertools.product([100, 129, 256, 1100], [(1, 5), (9, 33), (40, 7)]),
        *[(100, (128, 128)), (129, (257, 129)), (256, (130, 65))],
    ],
    ids=str,
)
def test_sizes_of_many_dimensions(D, size, joint):
    X, Y = np.split(scattered(D, sum(size)), [size[0]])
    keep_promise_in_many_dimensions(RBF(0.8 * D**0.5), X, Y, joint)


@pytest.mark.parametrize("K", [None, 2, 8])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        *itertools.product(["Value", "Gradient", "ValueGradient"], repeat=2),
        *[("Directional", "ValueGradient"), ("masked Gradient", "Value"), ("Laplacian", "Value")],
    ],
)
def test_pairs_of_many_dimensions(first, second, K):
    """More than one functional of a side, and more than one right-hand side; against the matrix."""
    D = 300
    rows, cols = meet(functionals(5, D), functionals(6, D, seed=1))
    kernel = Matern(D**0.5, nu=2.5) + 0.5 * RBF(0.7 * D**0.5)
    operator = CovarianceOperator(kernel, rows[first], cols[second])
    V = right_hand_sides(operator.shape[1], K)
    keep_promise(operator @ V, covariance(kernel, rows[first], cols[second]), V)
    U = right_hand_sides(operator.shape[0], K)
    keep_promise(operator.T @ U, covariance(kernel, rows[first], cols[second]).T, U)


@pytest.mark.parametrize("kernel", [DotProduct(0.5) ** 2, two(300)], ids=["dot", "two"])
def test_other_invariants_of_many_dimensions(kernel):
    rows, cols = meet(functionals(5, 300), functionals(6, 300, seed=1))
    rows, cols = ([side["Value"], side["ValueGradient"]] for side in (rows, cols))
    v = right_hand_sides(6 * 302)
    keep_promise(CovarianceOperator(kernel, rows, cols) @ v, covariance(kernel, rows, cols), v)


@pytest.mark.parametrize("joint", [False, True], ids=["values", "joint"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_many_dimensions_in_single_precision(symmetric, joint):
    """Sums of D squares in two parts, of n and of 1 + D products: 4 D + n roundings at the most."""
    D, n = 300, 12
    points = scattered(D, 2 * n).astype(np.float32)
    functional = ValueGradient if joint else Value
    rows, cols = functional(points[:n]), functional(points[n:])
    kernel = Matern(D**0.5, nu=2.5)
    operator = CovarianceOperator(kernel, rows, None if symmetric else cols)
    v = right_hand_sides(rows.size, dtype="float32")
    product = operator @ v
    assert product.dtype == np.float32
    other = rows if symmetric else cols
    matrix = covariance(kernel, functional(rows.X.astype(float)), functional(other.X.astype(float)))
    error, sums = np.abs(product - matrix @ v.astype(float)), np.abs(matrix) @ np.abs(v)
    assert error.max() <= (4 * D + n) * UNIT["float32"] * sums.max()


# --------------------------------------------------------------------------------------------------
# What a linear operator can do
# --------------------------------------------------------------------------------------------------


def operator_and_matrix(symmetric=False, dtype="float64", noise=None, n=12):
    """An operator, and its dense matrix."""
    rows, cols = meet(functionals(n, 2, dtype), functionals(9, 2, dtype, seed=1))
    rows = [rows["ValueGradient"], rows["masked Gradient"], rows["Laplacian"]]
    cols = None if symmetric else [cols["Value"], cols["Gradient"]]
    kernel = two(2) + WhiteKernel(0.2)
    matrix = covariance(kernel, rows, cols)
    if noise is not None:
        matrix[np.diag_indices(len(matrix))] += noise
    return CovarianceOperator(kernel, rows, cols, noise=noise), matrix


symmetries = pytest.mark.parametrize("symmetric", [False, True])


@symmetries
@dtypes
def test_attributes(symmetric, dtype):
    operator, matrix = operator_and_matrix(symmetric, dtype)
    assert isinstance(operator, sla.LinearOperator)
    assert operator.shape == matrix.shape
    assert operator.dtype == dtype
    assert sla.aslinearoperator(operator) is operator
    assert f"{matrix.shape[0]}x{matrix.shape[1]}" in repr(operator)


WAYS = {
    "@": lambda op, v: op @ v,
    "*": lambda op, v: op * v,
    "dot": lambda op, v: op.dot(v),
    "call": lambda op, v: op(v),
    "matvec": lambda op, v: op.matvec(v),
    "T.T": lambda op, v: op.T.T @ v,
    "H.H": lambda op, v: op.H.H @ v,
    "T.rmatvec": lambda op, v: op.T.rmatvec(v),
}
TRANSPOSED = {
    "T": lambda op, u: op.T @ u,
    "H": lambda op, u: op.H @ u,
    "adjoint": lambda op, u: op.adjoint() @ u,
    "transpose": lambda op, u: op.transpose().dot(u),
    "rmatvec": lambda op, u: op.rmatvec(u),
    "left": lambda op, u: u @ op,
    "T.matvec": lambda op, u: op.T.matvec(u),
}


@symmetries
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_multiply(way, symmetric):
    operator, matrix = operator_and_matrix(symmetric)
    v = right_hand_sides(matrix.shape[1])
    product = WAYS[way](operator, v)
    assert product.shape == matrix.shape[:1]
    keep_promise(product, matrix, v)


@symmetries
@pytest.mark.parametrize("way", TRANSPOSED)
def test_ways_to_multiply_with_the_transpose(way, symmetric):
    operator, matrix = operator_and_matrix(symmetric)
    u = right_hand_sides(matrix.shape[0])
    product = TRANSPOSED[way](operator, u)
    assert product.shape == matrix.shape[1:]
    keep_promise(product, matrix.T, u)


@symmetries
@pytest.mark.parametrize("K", [0, 1, 3])
def test_blocks_of_vectors(K, symmetric):
    operator, matrix = operator_and_matrix(symmetric)
    V, U = right_hand_sides(matrix.shape[1], K), right_hand_sides(matrix.shape[0], K)
    for product in (operator @ V, operator.matmat(V), operator.dot(V)):
        assert product.shape == (matrix.shape[0], K)
        keep_promise(product, matrix, V)
    for product in (operator.T @ U, operator.H @ U, operator.rmatmat(U), (U.T @ operator).T):
        assert product.shape == (matrix.shape[1], K)
        keep_promise(product, matrix.T, U)


@dtypes
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["Value", "ValueGradient", "Laplacian"])
def test_adjoint(name, key, dtype):
    """<u, C v> = <C' u, v>, within the errors of both products and of both scalar products."""
    rows, cols = meet(functionals(14, 3, dtype), functionals(11, 3, dtype, seed=1))
    rows, cols = [rows[name], rows["Value"]], cols[key]
    operator = CovarianceOperator(two(3), rows, cols)
    u, v = (right_hand_sides(n, dtype=dtype, seed=n).astype(float) for n in operator.shape)
    left = u @ (operator @ v.astype(dtype)).astype(float)
    right = (operator.T @ u.astype(dtype)).astype(float) @ v
    matrix, bound = expected(two(3), rows, cols, dtype)
    error = bound + sum(operator.shape) * UNIT[dtype] * np.abs(matrix)
    assert abs(left - right) <= 2 * np.abs(u) @ error @ np.abs(v)


@pytest.mark.quick(16)
@pytest.mark.parametrize("name", REGISTRY)
def test_adjoint_of_kernels(name):
    case = REGISTRY[name]
    rows, cols = functionals(5, 2), functionals(6, 2, seed=1)
    rows, cols = ([side[key] for key in known(name)] for side in (rows, cols))
    operator = CovarianceOperator(case(2), rows, cols)
    u, v = right_hand_sides(operator.shape[0]), right_hand_sides(operator.shape[1])
    size = np.abs(u) @ np.abs(covariance(case(2), rows, cols)) @ np.abs(v)
    assert abs(u @ (operator @ v) - (operator.T @ u) @ v) <= PROMISE * size


@pytest.mark.parametrize("name", NAMES)
def test_symmetric(name):
    """Also the product is: that of the transpose, and that with the same columns given."""
    rows = functionals(40, 3)[name]
    operator = CovarianceOperator(two(3), rows)
    assert operator.shape == (rows.size, rows.size)
    v = right_hand_sides(rows.size)
    matrix = covariance(two(3), rows)
    keep_promise(operator.T @ v, matrix, v)
    keep_promise(CovarianceOperator(two(3), rows, rows) @ v, matrix, v)


# ---- noise


@symmetries
@dtypes
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "masked ValueGradient", "Laplacian"])
def test_white_noise(name, dtype, symmetric):
    """Without columns only, on values only."""
    rows = [functionals(9, 2, dtype)[name], functionals(4, 2, dtype)["Gradient"]]
    kernel = (RBF([0.8, 1.3]) + WhiteKernel(0.5)) ** 2
    check(kernel, rows, None if symmetric else rows, dtype=dtype)


@dtypes
@pytest.mark.parametrize("noise", [0, 0.0, 0.25, np.float32(0.5), "vector", "list", "float32"])
def test_noise(noise, dtype):
    rows = [functionals(9, 2, dtype)["ValueGradient"], functionals(4, 2, dtype)["Value"]]
    kernel = RBF() + WhiteKernel(0.5)
    if isinstance(noise, str):
        kind = noise
        noise = np.random.default_rng(0).uniform(0, 2, size=31)
        noise = {"vector": noise, "list": noise.tolist(), "float32": np.float32(noise)}[kind]
    operator = CovarianceOperator(kernel, rows, noise=noise)
    V = right_hand_sides(31, 2, dtype)
    matrix, bound = expected(kernel, rows, None, dtype)
    matrix = matrix + np.diag(np.broadcast_to(noise, 31).astype(np.longdouble))
    bound = (bound + 33 * UNIT[dtype] * np.abs(matrix)) @ np.abs(V)
    assert (operator @ V).dtype == dtype
    assert_within(operator @ V, matrix @ V.astype(np.longdouble), bound)
    assert_within(operator.T @ V, matrix @ V.astype(np.longdouble), bound)


def test_noise_is_copied():
    noise = np.full(6, 0.5)
    operator = CovarianceOperator(RBF(), functionals(6, 2)["Value"], noise=noise)
    before = operator @ np.ones(6)
    noise[:] = 7
    np.testing.assert_array_equal(operator @ np.ones(6), before)


# ---- entries


@dtypes
@pytest.mark.parametrize("noise", [None, 0.5, "vector"])
@symmetries
def test_dense(symmetric, noise, dtype):
    if not symmetric and noise is not None:
        noise = None
    if noise == "vector":
        noise = np.linspace(0, 3, operator_and_matrix(True)[0].shape[0])
    operator, matrix = operator_and_matrix(symmetric, dtype, noise)
    dense = operator.to_dense()
    assert isinstance(dense, np.ndarray)
    assert dense.dtype == dtype
    np.testing.assert_allclose(dense, matrix, rtol=0, atol=8 * UNIT[dtype] * np.abs(matrix).max())


@dtypes
@pytest.mark.parametrize("noise", [None, 0.5, "vector"])
@symmetries
def test_diagonal(symmetric, noise, dtype):
    if not symmetric and noise is not None:
        noise = None
    if noise == "vector":
        noise = np.linspace(0, 3, operator_and_matrix(True)[0].shape[0])
    operator, matrix = operator_and_matrix(symmetric, dtype, noise)
    diagonal = operator.diagonal()
    assert diagonal.dtype == dtype
    desired = np.diagonal(matrix)
    np.testing.assert_allclose(
        diagonal, desired, rtol=16 * UNIT[dtype], atol=16 * UNIT[dtype] * np.abs(desired).max()
    )


@pytest.mark.quick(8)
@pytest.mark.parametrize("name", REGISTRY)
def test_diagonals_of_kernels(name):
    """Entries of the matrix, by another way or not."""
    rows = [functionals(5, 2)[key] for key in known(name)]
    diagonal = CovarianceOperator(REGISTRY[name](2), rows).diagonal()
    matrix, bound = expected(REGISTRY[name](2), rows)
    assert_within(diagonal, np.diagonal(matrix), np.diagonal(bound))


@pytest.mark.parametrize("name", NAMES)
def test_diagonals_of_functionals(name):
    rows = functionals(5, 3)[name]
    for cols in (None, functionals(5, 3, seed=1)[name]):
        if cols is not None and cols.size < rows.size:
            rows, cols = cols, rows
        diagonal = CovarianceOperator(two(3), rows, cols).diagonal()
        matrix, bound = expected(two(3), rows, cols)
        assert_within(diagonal, np.diagonal(matrix), np.diagonal(bound))


INDICES = {
    "all": slice(None),
    "slice": slice(3, 17),
    "steps": slice(1, None, 3),
    "backwards": slice(None, None, -2),
    "nothing": slice(5, 5),
    "beyond the end": slice(15, 1000),
    "list": [4, 0, 11],
    "array": np.array([2, 3, 17]),
    "negative": np.array([-1, 0, -7]),
    "twice": [5, 5, 0, 5],
    "no index": np.zeros(0, int),
    "unsigned": np.array([1, 6], np.uint8),
    "booleans": "booleans",
}


@symmetries
@pytest.mark.parametrize("second", INDICES)
@pytest.mark.parametrize("first", INDICES)
def test_blocks(first, second, symmetric):
    """Dense, of some rows and some columns, all with all."""
    operator, matrix = operator_and_matrix(symmetric, noise=0.5 if symmetric else None)
    keys = []
    for key, size in zip((first, second), operator.shape, strict=True):
        key = INDICES[key]
        keys.append(np.arange(size) % 3 == 1 if isinstance(key, str) else key)
    block = operator[keys[0], keys[1]]
    desired = matrix[keys[0]][:, keys[1]]
    assert isinstance(block, np.ndarray)
    assert block.shape == desired.shape
    np.testing.assert_allclose(block, desired, rtol=1e-14, atol=1e-14 * np.abs(matrix).max())


@symmetries
@pytest.mark.parametrize("i", [0, 5, -1, np.int64(3)])
def test_rows_columns_and_entries(i, symmetric):
    operator, matrix = operator_and_matrix(symmetric, noise=0.5 if symmetric else None)
    for key in [(i, slice(None)), (slice(None), i), (i, i), (i, 2), ([1, 2], i), (i, [1, 2])]:
        block, desired = operator[key], matrix[key]
        assert np.shape(block) == desired.shape
        np.testing.assert_allclose(block, desired, rtol=1e-14, atol=1e-14 * np.abs(matrix).max())


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_functionals(name):
    rows, cols = functionals(7, 3), functionals(5, 3, seed=1)
    rows, cols = [rows["Value"], rows[name]], [cols[name], cols["Laplacian"]]
    matrix = covariance(two(3), rows, cols)
    operator = CovarianceOperator(two(3), rows, cols)
    rng = np.random.default_rng(0)
    i, j = (rng.integers(0, size, 9) for size in matrix.shape)
    np.testing.assert_allclose(
        operator[i, j], matrix[np.ix_(i, j)], rtol=1e-14, atol=1e-14 * np.abs(matrix).max()
    )


def test_a_column_of_a_large_operator():
    """What a preconditioner needs is made by itself: the matrix would take 80 TB."""
    X = np.random.default_rng(0).normal(size=(1_000_000, 2))
    operator = CovarianceOperator(RBF(), ValueGradient(X), noise=1e-3)
    column = operator[:, [7]]
    desired = covariance(RBF(), ValueGradient(X), ValueGradient(X[2:3]))[:, 1]
    desired[7] += 1e-3
    np.testing.assert_allclose(column[:, 0], desired, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(operator[7, :30], desired[:30], rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(
    "key", [(99, 0), (0, -99), ([0, 99], [0]), (slice(None), np.array([99])), (0, [True, False])]
)
def test_indices_out_of_range(key):
    operator, _ = operator_and_matrix()
    with pytest.raises(IndexError):
        operator[key]


@pytest.mark.parametrize("key", [5, [3, 4], slice(2, 9, 3)], ids=str)
def test_some_rows(key):
    operator, matrix = operator_and_matrix()
    assert operator[key].shape == matrix[key].shape
    np.testing.assert_allclose(operator[key], matrix[key], atol=1e-14 * np.abs(matrix).max())


@pytest.mark.parametrize(
    "key", [(0, 0, 0), ("a", 0), (0.5, 0), (None, 0), (..., 0), ([[0, 1]], 0), ([0.0], 0)], ids=str
)
def test_indices_that_are_none(key):
    operator, _ = operator_and_matrix()
    with pytest.raises((IndexError, TypeError)):
        operator[key]


# ---- SciPy


def problem(n=40):
    """An operator that can be inverted, its matrix, and a right-hand side."""
    rows = functionals(n, 2)["ValueGradient"]
    operator = CovarianceOperator(RBF(0.7), rows, noise=0.05)
    matrix = covariance(RBF(0.7), rows) + 0.05 * np.eye(rows.size)
    return operator, matrix, right_hand_sides(rows.size)


@pytest.mark.parametrize(
    "solve", [sla.cg, sla.minres, sla.gmres, sla.bicgstab], ids=lambda f: f.__name__
)
def test_solvers(solve):
    """A residual of r moves the solution by the inverse of the least eigenvalue, 20 r."""
    operator, matrix, b = problem()
    steps = []
    options = {"callback": lambda x: steps.append(1)} if solve is sla.minres else {}
    x, info = solve(operator, b, rtol=1e-11, maxiter=2000, **options)
    assert info == 0
    # minres counts its residual in units of the norms of matrix and solution, and takes for the
    # first the Frobenius norm of its tridiagonal matrix, no column of which is larger than the
    # largest eigenvalue.
    norm = np.linalg.norm(matrix, 2) * max(1, len(steps)) ** 0.5
    scale = norm * np.linalg.norm(x) + np.linalg.norm(b)
    assert np.linalg.norm(matrix @ x - b) <= 2e-11 * scale
    assert np.linalg.norm(x - np.linalg.solve(matrix, b)) <= 20 * 2e-11 * scale


def test_preconditioned_solver():
    operator, matrix, b = problem()
    precondition = sla.aslinearoperator(np.diag(1 / operator.diagonal()))
    steps = []
    x, info = sla.cg(operator, b, rtol=1e-11, M=precondition, callback=lambda x: steps.append(1))
    assert info == 0
    # The residual that cg carries along drifts from that of x by a few roundings of A x in each
    # step; the error of no x on the way is larger than at the start, in the norm of A.
    spread = np.linalg.cond(matrix) ** 0.5 * np.linalg.norm(matrix, 2) * np.linalg.norm(x)
    drift = 8 * len(steps) * UNIT["float64"] * spread
    assert np.linalg.norm(matrix @ x - b) <= 1e-11 * np.linalg.norm(b) + drift


def test_eigenvalues():
    operator, matrix, _ = problem()
    found = sla.eigsh(operator, k=4, which="LA", v0=np.ones(len(matrix)))[0]
    every = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(found, every[-4:], atol=1e-12 * every[-1])


def test_lobpcg():
    operator, matrix, _ = problem()
    guess = right_hand_sides(len(matrix), 4)
    found, _ = sla.lobpcg(operator, guess, largest=True, tol=1e-6, maxiter=200)
    every = np.linalg.eigvalsh(matrix)
    # Residuals of 1e-6 at most, whose squares over the distance of the next eigenvalue are the
    # errors, four residuals together; and the roundings of sums of n terms.
    error = 4 * 1e-6**2 / (every[-4] - every[-5]) + 8 * len(matrix) * UNIT["float64"] * every[-1]
    np.testing.assert_allclose(np.sort(found), every[-4:], rtol=0, atol=error)


def test_singular_values():
    operator, matrix = operator_and_matrix()
    found = sla.svds(operator, k=3, return_singular_vectors=False, v0=np.ones(min(matrix.shape)))
    desired = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(np.sort(found), np.sort(desired[:3]), atol=1e-12 * desired[0])


ARITHMETIC = {
    "op + op": (lambda A: A + A, lambda A: A + A),
    "op - 2 op.T": (lambda A: A - 2 * A.T, lambda A: A - 2 * A.T),
    "2 * op": (lambda A: 2 * A, lambda A: 2 * A),
    "op * 0.5": (lambda A: A * 0.5, lambda A: A * 0.5),
    "-op": (lambda A: -A, lambda A: -A),
    "op.T @ op": (lambda A: A.T @ A, lambda A: A.T @ A),
    "op ** 3": (lambda A: A**3, lambda A: A @ A @ A),
    "op + matrix": (
        lambda A: A + sla.aslinearoperator(np.eye(A.shape[0])),
        lambda A: A + np.eye(A.shape[0]),
    ),
}


@pytest.mark.parametrize(("ours", "dense"), ARITHMETIC.values(), ids=ARITHMETIC)
def test_arithmetic(ours, dense):
    operator, matrix = operator_and_matrix(True)
    V = right_hand_sides(len(matrix), 2)
    scale = np.abs(dense(np.abs(matrix))) @ np.abs(V)
    error = np.abs(ours(operator) @ V - dense(matrix) @ V)
    assert error.max() <= 1e-13 * max(1, scale.max())


# ---- vectors as they come

VECTORS = {
    "list": lambda v: v.tolist(),
    "strided": lambda v: np.repeat(v, 3)[::3],
    "backwards": lambda v: v[::-1].copy()[::-1],
    "float32": lambda v: v.astype(np.float32),
    "int": lambda v: np.round(9 * v).astype(int),
    "int8": lambda v: np.round(9 * v).astype(np.int8),
    "bool": lambda v: v > 0,
    "big-endian": lambda v: v.astype(">f8"),
    "unaligned": lambda v: np.frombuffer(b"x" + v.tobytes(), np.uint8)[1:].view(float),
    "column": lambda v: v[:, None],
    "long double": lambda v: v.astype(np.longdouble),
}


@symmetries
@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_as_they_come(kind, symmetric):
    """Any array of real numbers; it is left as it was."""
    operator, matrix = operator_and_matrix(symmetric)
    v = VECTORS[kind](right_hand_sides(matrix.shape[1]))
    before = np.array(v)
    array = np.asarray(v)
    if kind == "list":
        v, array = np.array(v), np.array(v)
    product = operator @ v
    assert product.dtype == np.result_type(array, np.float64)
    assert product.shape == (matrix.shape[0], *array.shape[1:])
    keep_promise(product, matrix, array.astype(float))
    np.testing.assert_array_equal(v, before)


BLOCKS = {
    "F": np.asfortranarray,
    "strided": lambda V: np.repeat(V, 2, axis=1)[:, ::2],
    "rows": lambda V: np.repeat(V, 2, axis=0)[::2],
    "transposed": lambda V: V.T.copy().T,
    "read-only": lambda V: np.broadcast_to(V[:, :1], V.shape),
    "int": lambda V: np.round(9 * V).astype(int),
}


@symmetries
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_of_vectors_as_they_come(kind, symmetric):
    operator, matrix = operator_and_matrix(symmetric)
    V = BLOCKS[kind](right_hand_sides(matrix.shape[1], 5))
    before = V.copy()
    product = operator @ V
    keep_promise(product, matrix, V.astype(float))
    np.testing.assert_array_equal(V, before)


@pytest.mark.parametrize("given", DTYPES)
@dtypes
def test_precision_of_vectors(dtype, given):
    """Results are of the type of a product with a matrix, as good as that of the operator."""
    operator, matrix = operator_and_matrix(dtype=dtype)
    v = right_hand_sides(matrix.shape[1], dtype=given)
    product = operator @ v
    assert product.dtype == max(dtype, given, key=lambda name: np.dtype(name).itemsize)
    scale = (np.abs(matrix) @ np.abs(v)).max()
    # 18 products of numbers that are off by 100 u at the most.
    assert np.abs(product - matrix.astype(float) @ v).max() <= 200 * UNIT[dtype] * scale


@symmetries
@pytest.mark.parametrize("K", [None, 3])
def test_complex_vectors(K, symmetric):
    """An operator of real numbers, as SciPy has them: real and imaginary part by themselves."""
    operator, matrix = operator_and_matrix(symmetric)
    V = right_hand_sides(matrix.shape[1], K) + 1j * right_hand_sides(matrix.shape[1], K, seed=1)
    product = operator @ V
    assert product.dtype == np.complex128
    keep_promise(product.real, matrix, V.real)
    keep_promise(product.imag, matrix, V.imag)
    U = right_hand_sides(matrix.shape[0], K) * 1j
    keep_promise((operator.H @ U).imag, matrix.T, U.imag)


def test_results_are_their_own():
    """No buffer of the operator's that the next product writes into."""
    operator, _ = operator_and_matrix()
    v = right_hand_sides(operator.shape[1])
    first = operator @ v
    before = first.copy()
    operator @ (2 * v)
    np.testing.assert_array_equal(first, before)
    first[:] = np.nan
    np.testing.assert_array_equal(operator @ v, before)


@symmetries
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "Hessian"])
def test_nan_passes_through(name, symmetric):
    """NaN in a vector makes NaN of all that depends on it."""
    rows = functionals(7, 2)[name]
    operator = CovarianceOperator(two(2), rows, None if symmetric else rows)
    v = right_hand_sides(rows.size)
    v[3] = np.nan
    assert np.isnan(operator @ v).all()


# --------------------------------------------------------------------------------------------------
# Changes after it was made
# --------------------------------------------------------------------------------------------------


@symmetries
def test_points_that_change_later(symmetric):
    """The operator has a copy of what it needs: points, directions and masks."""
    rng = np.random.default_rng(0)
    X, V, mask = rng.normal(size=(12, 3)), rng.normal(size=(12, 3)), rng.random((12, 3)) < 0.5
    rows = [ValueGradient(X), Directional(X, V), Gradient(X, mask=mask), Laplacian(X)]
    cols = None if symmetric else [Gradient(X, mask=mask), Directional(X, V), Value(X)]
    operator = CovarianceOperator(two(3), rows, cols, noise=0.5 if symmetric else None)
    v = right_hand_sides(operator.shape[1])

    def everything():
        return [
            *[operator @ v, operator.T @ (operator @ v), operator.diagonal(), operator.to_dense()],
            *[operator[3:5, [0, 7]], operator.vjp((operator @ v, v))],
            *operator.vjp((operator @ v, v), "rows"),
        ]

    before = everything()
    for array in (X, V, mask):
        array[:] = 1
    rows.clear()
    for now, then in zip(everything(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@symmetries
def test_functionals_that_change_later(symmetric):
    X = np.random.default_rng(0).normal(size=(12, 3))
    rows = ValueGradient(X)
    operator = CovarianceOperator(two(3), rows, None if symmetric else rows)
    before = operator @ np.ones(48), operator.to_dense()
    rows.X, rows.mask = X + 1, np.eye(12, 4, dtype=bool)
    np.testing.assert_array_equal(operator @ np.ones(48), before[0])
    np.testing.assert_array_equal(operator.to_dense(), before[1])


def test_kernel_that_changes_later():
    """Optimisers set hyperparameters of one kernel again and again."""
    scales = np.array([0.8, 1.2])
    kernel = ConstantKernel(2.0) * RBF(scales) + WhiteKernel(0.3)
    operator = CovarianceOperator(kernel, functionals(9, 2)["ValueGradient"])
    v = right_hand_sides(27)

    def everything():
        return [
            *[operator @ v, operator.diagonal(), operator[:3, :3], operator.to_dense()],
            *[operator.vjp((v, v)), operator.vjp((v, v), "rows")],
        ]

    before = everything()
    scales[:] = 9
    kernel.theta = kernel.theta + 1
    kernel.k2.noise_level_bounds = "fixed"
    for now, then in zip(everything(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_kernel_of_ones_own_that_changes_later():
    kernel = Bump(0.8)
    operator = CovarianceOperator(kernel, functionals(9, 2)["ValueGradient"])
    before = operator @ np.ones(27), operator.to_dense()
    kernel.length_scale = 3.0
    np.testing.assert_array_equal(operator @ np.ones(27), before[0])
    np.testing.assert_array_equal(operator.to_dense(), before[1])


# --------------------------------------------------------------------------------------------------
# Threads, forks, signals, memory
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digests():
    """Digests of what 1, 2, 3 and 16 threads compute, BLAS included."""
    code = """
        import json
        from support.products import WORK, digest
        print(json.dumps({name: digest(name) for name in WORK}))
        """
    return {threads: json.loads(run_python(code, threads=threads)) for threads in (1, 2, 3, 16)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("name", WORK)
def test_same_bits_for_any_number_of_threads(digests, name, threads):
    assert digests[threads][name] == digests[1][name]


@pytest.mark.exhaustive
def test_all_work_is_different(digests):
    assert len(set(digests[1].values())) == len(WORK)


@pytest.mark.parametrize("api", ["openmp", "blas", None])
@pytest.mark.parametrize("name", ["joint, symmetric", "many columns, joint", "theta, C", "total"])
def test_same_bits_for_any_limit(name, api):
    work = WORK[name]
    arrays = []
    for limit in (1, 2):
        with threadpool_limits(limit, user_api=api):
            arrays.append(work())
    np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize("name", ["joint, symmetric", "mask, symmetric", "many columns, joint"])
def test_same_bits_again(name):
    work = WORK[name]
    np.testing.assert_array_equal(work(), work())


@pytest.mark.parametrize("name", ["ValueGradient", "masked Gradient", "Hessian"])
def test_one_operator_in_several_threads(name):
    operators = [
        CovarianceOperator(two(3), functionals(90, 3)[name]),
        CovarianceOperator(RBF(), functionals(70, 3)[name], functionals(60, 3, seed=1)[name]),
    ]
    jobs = [
        (
            operators[k % 2],
            right_hand_sides(operators[k % 2].shape[1], [None, 3][k % 4 // 2], seed=k),
        )
        for k in range(40)
    ]
    alone = [operator @ V for operator, V in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: job[0] @ job[1], jobs * 2))
    for k, array in enumerate(together):
        np.testing.assert_array_equal(array, alone[k % len(jobs)])


FORK = """
import multiprocessing, sys
from support.products import digest
names = ["joint, symmetric", "many columns, joint", "theta, symmetric"]
if sys.argv[1] == "used":
    digest(names[0])
with multiprocessing.get_context("fork").Pool(2) as workers:
    forked = workers.map(digest, names)
assert forked == [digest(name) for name in names]
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.parametrize("before", ["used", "unused"])
def test_forked_workers(before):
    run_python(FORK, before, threads=3, timeout=300)


# Work that would take minutes.
INTERRUPTED = """
import functools, sys
import numpy as np
from support.memory import huge
from support.processes import report_interrupt
from kerneldiff import CovarianceOperator, Hessian, Value, ValueGradient, expansion
from sklearn.gaussian_process.kernels import RBF, DotProduct

two = RBF(2.0) * DotProduct() + RBF()

def normal(n, d):
    return np.random.default_rng(0).normal(size=(n, d))

def product(kernel, rows, cols=None, K=None):
    op = CovarianceOperator(kernel, rows, cols)
    V = np.ones(op.shape[1] if K is None else (op.shape[1], K))
    return lambda: op @ V

def vjp(kernel, rows, wrt, dense=False, K=1):
    op = CovarianceOperator(kernel, rows)
    W = huge(op.shape, np.float64).T if dense else tuple(np.ones((n, K)) for n in op.shape)
    return lambda: op.vjp(W, wrt)

def jvp(kernel, rows):
    op = CovarianceOperator(kernel, rows)
    return lambda: op.jvp(np.ones(len(kernel.theta)), np.ones(op.shape[1]))

cases = {
    "values": lambda: product(RBF(), Value(np.ones((200_000, 3))), Value(np.ones((300_000, 3)))),
    "joint": lambda: product(RBF(), ValueGradient(np.ones((100_000, 10)))),
    "tall": lambda: product(RBF(), Value(np.ones((5_000_000, 1))), Value(np.ones((10_000, 1)))),
    "right-hand sides": lambda: product(two, ValueGradient(np.ones((20_000, 10))), None, 64),
    "more right-hand sides": lambda: product(RBF(), Hessian(normal(16, 30)), None, 1000),
    "Hessians": lambda: product(two, Hessian(np.ones((20_000, 10)))),
    "large Hessians": lambda: product(RBF(), Hessian(np.ones((400, 300)))),
    "many columns": lambda: product(RBF(), ValueGradient(normal(20_000, 500))),
    "columns that coincide": lambda: product(RBF(), ValueGradient(np.ones((20_000, 500)))),
    "few points of many columns": lambda: product(RBF(), ValueGradient(normal(500, 50_000))),
    "theta": lambda: vjp(two, ValueGradient(np.ones((20_000, 10))), "theta", dense=True),
    "rows": lambda: vjp(two, ValueGradient(np.ones((50_000, 10))), "rows"),
    "rows, of many": lambda: vjp(two, ValueGradient(normal(64, 300)), "rows", K=200),
    "rows of Hessians": lambda: vjp(RBF(), Hessian(np.ones((2000, 10))), "rows"),
    "jvp": lambda: jvp(two, ValueGradient(np.ones((50_000, 10)))),
    "expansion": lambda: functools.partial(
        expansion(RBF(), np.ones((100_000, 20)), np.ones(100_000)).hessian, np.ones((20_000, 20))
    ),
}
call = cases[sys.argv[1]]()
CovarianceOperator(RBF(), ValueGradient(np.ones((500, 3)))) @ np.ones(2000)
report_interrupt(call)
# The library is as usable as before.
from kerneldiff import _reference
rows = ValueGradient(np.random.default_rng(0).normal(size=(60, 3)))
product = CovarianceOperator(RBF(), rows) @ np.ones(240)
assert np.abs(product - _reference.covariance(RBF(), rows).sum(axis=1)).max() < 1e-12
"""


@pytest.mark.exhaustive
@linux
@pytest.mark.parametrize(
    "case",
    [
        *["values", "joint", "tall", "right-hand sides", "more right-hand sides"],
        *["Hessians", "large Hessians"],
        *["many columns", "columns that coincide", "few points of many columns"],
        *["theta", "rows", "rows, of many", "rows of Hessians", "jvp", "expansion"],
    ],
)
def test_ctrl_c(case):
    # The slowest instruction set: what it does between two looks at signals takes longest.
    assert_interruptible(INTERRUPTED, case, isa="baseline")


PEAK = """
import sys
import numpy as np
from support.memory import peak_growth
from kerneldiff import CovarianceOperator, Gradient, Hessian, Laplacian, Value, ValueGradient
from kerneldiff import expansion
from sklearn.gaussian_process.kernels import RBF, DotProduct

def normal(n, d):
    return np.random.default_rng(0).normal(size=(n, d))

two = RBF(2.0) * DotProduct() + RBF()
ard = RBF(np.linspace(1, 2, 10))

def product(kernel, rows, cols=None, K=None):
    op = CovarianceOperator(kernel, rows, cols)
    V = np.ones(op.shape[1] if K is None else (op.shape[1], K), op.dtype)
    return lambda: op @ V

def vjp(kernel, rows, wrt, dense=None):
    op = CovarianceOperator(kernel, rows)
    W = (np.ones(op.shape[0]), np.ones(op.shape[1]))
    if dense:
        W = np.ones(op.shape, order=dense)
    return lambda: op.vjp(W, wrt)

X = normal(20_000, 10)
cases = {
    "construction": lambda: lambda: CovarianceOperator(RBF(), ValueGradient(X)),
    "joint": lambda: product(RBF(), ValueGradient(X)),
    "rectangular": lambda: product(RBF(), ValueGradient(X), Value(normal(100_000, 10))),
    "right-hand sides": lambda: product(two, ValueGradient(X[:4000]), None, 8),
    "list": lambda: product(
        RBF(), [Value(X), Gradient(X[:8000], mask=X[:8000] > 0), Laplacian(X[:8000])]
    ),
    "Hessian": lambda: product(RBF(), Hessian(X[:1500])),
    "Hessian, many columns": lambda: product(RBF(), Hessian(normal(40, 60)), Value(normal(40, 60))),
    "many columns": lambda: product(RBF(20.0), ValueGradient(normal(3000, 500))),
    "theta": lambda: vjp(ard, ValueGradient(X[:6000]), "theta"),
    "theta, F": lambda: vjp(ard, ValueGradient(X[:600]), "theta", "F"),
    "rows": lambda: vjp(ard, ValueGradient(X[:6000]), "rows"),
    "expansion": lambda: lambda f=expansion(RBF(), X, np.ones(20_000)): f.hessian(X[:5000]),
    "diagonal": lambda: CovarianceOperator(ard, ValueGradient(X)).diagonal,
}
call = cases[sys.argv[1]]()
# Threads, code and buffers of a first call are not what is measured.
small = CovarianceOperator(RBF(), ValueGradient(X[:300]))
small @ np.ones(3300), small.vjp((np.ones(3300), np.ones(3300)))
expansion(RBF(), X[:300], np.ones(300)).hessian(X[:300])
normal(200, 300) @ normal(200, 300).T
grown, result = peak_growth(call)
print(grown - getattr(result, "nbytes", 0))
"""


@pytest.mark.exhaustive
@linux
@pytest.mark.parametrize(
    "case",
    [
        *["construction", "joint", "rectangular", "right-hand sides", "list", "Hessian"],
        *["Hessian, many columns", "many columns", "theta", "theta, F", "rows", "expansion"],
        "diagonal",
    ],
)
def test_peak_memory(case):
    """Above the operator, its vectors and the result: never the matrix."""
    assert int(run_python(PEAK, case, threads=2)) <= 32 * 2**20


# Vectors of the processor may be longer than what is left of an array: arrays before and behind
# pages that must not be touched.
BESIDE = """
import itertools, sys
import numpy as np
from support.functionals import NAMES, functionals, two
from support.memory import guarded
from kerneldiff import CovarianceOperator
from sklearn.gaussian_process.kernels import RBF, Matern

dtype = sys.argv[1]

def moved(functional, side):
    functional.X = guarded(functional.X, side)
    functional.V = None if functional.V is None else guarded(functional.V, side)
    return functional

def work(rows, cols, kernel, place):
    op = CovarianceOperator(kernel, rows, cols)
    n, m = op.shape
    arrays = [rng.normal(size=shape).astype(dtype) for shape in [m, (m, 3), n, (n, m), (m, n)]]
    v, V, u, W, F = map(place, arrays)
    return [op @ v, op @ V, op.T @ u, op.vjp(W), op.vjp(F.T), op.vjp((u, v), "rows"),
            op.vjp(W, "rows")]

for d in (1, 2, 3, 5, 7, 8, 17):
    for k, (first, second) in enumerate(itertools.product(NAMES, NAMES)):
        if (d + k) % 3 or d > 5 and "Hessian" in (first, second):
            continue
        n, m = [(1, 1), (3, 5), (4, 19)][(k // 3 + d) % 3]
        kernel = [RBF(1.5), Matern(nu=2.5), two(d)][(k + k // 8) % 3]
        print(first, second, n, m, d, flush=True)
        for symmetric in (False, True):
            rows, cols = functionals(n, d, dtype)[first], functionals(m, d, dtype, seed=1)[second]
            cols = None if symmetric else cols
            rng = np.random.default_rng(0)
            plain = work(rows, cols, kernel, np.copy)
            for side in ("begin", "end"):
                rng = np.random.default_rng(0)
                moved(rows, side), cols and moved(cols, side)
                beside = work(rows, cols, kernel, lambda a: guarded(a, side))
                for array, right in zip(beside, plain, strict=True):
                    np.testing.assert_array_equal(array, right)
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "fork"), reason="protects pages of memory as POSIX systems do")
@dtypes
def test_touches_nothing_beside_the_arrays(isa, dtype):
    """Neither reads nor writes; the system ends the process that does."""
    run_python(BESIDE, dtype, isa=isa)


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------

GOOD = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.parametrize("unknown", [GOOD, "Value", Value, [Value(GOOD), None], {}], ids=str)
def test_unknown_functional(unknown, side):
    arguments = (unknown, Value(GOOD)) if side == "rows" else (Value(GOOD), unknown)
    with pytest.raises(TypeError, match=rf"(?s){side} holds.*Value, Gradient.*Laplacian"):
        CovarianceOperator(RBF(), *arguments)


@pytest.mark.parametrize("side", ["rows", "cols"])
def test_no_functionals(side):
    arguments = ([], Value(GOOD)) if side == "rows" else (Value(GOOD), [])
    with pytest.raises(ValueError, match=f"{side} is empty"):
        CovarianceOperator(RBF(), *arguments)


@pytest.mark.parametrize(
    ("rows", "cols"),
    [
        (Value(GOOD), Gradient(np.ones((3, 3)))),
        ([Value(GOOD), Gradient(np.ones((3, 3)))], None),
    ],
    ids=["sides", "alone"],
)
def test_different_numbers_of_columns(rows, cols):
    with pytest.raises(ValueError, match=r"have \[2, 3\] columns; all must have the same number"):
        CovarianceOperator(RBF(), rows, cols)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (np.dot, TypeError, "cannot be read"),
        (RBF() + PairwiseKernel(metric="laplacian"), TypeError, "laplacian"),
        (RBF(-1.0), ValueError, "length_scale"),
        (RBF([1.0, 2.0, 3.0]), ValueError, "length_scale"),
        (Columns(RBF(), [2]), ValueError, "dims"),
        (Matern(nu=0.5), ValueError, "too rough"),
    ],
    ids=str,
)
def test_kernels_that_do_not_fit(kernel, error, message):
    """Said when the operator is made, not at the first product."""
    with pytest.raises(error, match=message):
        CovarianceOperator(kernel, Gradient(GOOD))


@pytest.mark.parametrize(
    "noise",
    [
        *[-1.0, np.nan, np.inf, np.array([1.0, -1e-300, 1.0]), np.array([1.0, np.nan, 1.0])],
        *[np.ones(2), np.ones(4), np.ones((3, 1)), np.ones((3, 3)), "a", 1j, [[1.0], 2.0]],
    ],
    ids=str,
)
def test_bad_noise(noise):
    with pytest.raises((TypeError, ValueError), match="noise"):
        CovarianceOperator(RBF(), Value(GOOD), noise=noise)


def test_noise_between_different_points():
    """There is no such diagonal."""
    with pytest.raises(ValueError, match="noise"):
        CovarianceOperator(RBF(), Value(GOOD), Value(GOOD[:2]), noise=1.0)


def test_noise_by_position():
    with pytest.raises(TypeError, match="positional"):
        CovarianceOperator(RBF(), Value(GOOD), None, 1.0)


@symmetries
@pytest.mark.parametrize("way", ["@", "matvec", "T"])
@pytest.mark.parametrize("wrong", [np.ones(2), np.ones(10), np.ones((10, 3)), np.ones(0)], ids=str)
def test_vectors_of_the_wrong_length(wrong, way, symmetric):
    rows = ValueGradient(GOOD)
    operator = CovarianceOperator(RBF(), rows, None if symmetric else ValueGradient(GOOD + 1))
    with pytest.raises(ValueError, match=r"dimension|shape|length"):
        {**WAYS, **TRANSPOSED}[way](operator, wrong)


@pytest.mark.parametrize("way", ["@", "matvec", "T"])
@pytest.mark.parametrize(
    "wrong",
    [
        *[np.full(9, "1", object), np.full(9, "a"), np.full(9, None)],
        np.array(["2024-01-01"] * 9, "M8[D]"),
    ],
    ids=lambda v: f"{v.dtype}-{v.ndim}",
)
def test_vectors_of_the_wrong_type(wrong, way):
    operator = CovarianceOperator(RBF(), ValueGradient(GOOD))
    with pytest.raises((TypeError, ValueError), match="is of type"):
        {**WAYS, **TRANSPOSED}[way](operator, wrong)


def test_larger_than_memory():
    operator = CovarianceOperator(RBF(), ValueGradient(np.ones((1_000_000, 10))))
    with pytest.raises(MemoryError, match="GiB"):
        operator.to_dense()
    with pytest.raises(MemoryError, match="GiB"):
        operator[:, :]
