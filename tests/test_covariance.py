"""Covariances of linear functionals: every pair, every kernel, every layout of the output.

Errors are compared with the bounds of `support.bounds`, entry by entry: see there for the analysis.
"""

import copy
import json
import os
import sys

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from sklearn.gaussian_process.kernels import (
    RBF,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import UNIT, assert_within, bounds, covariance_bounds
from support.covariances import MANY, expected, problems
from support.functionals import NAMES, ORDERS, functionals, meet, two
from support.oracles import REGISTRY, ard, exact, mp_covariance
from support.processes import assert_interruptible, run_python
from support.tensors import DTYPES

import kerneldiff
from kerneldiff import (
    Columns,
    Directional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    covariance,
    kernels,
)

dtypes = pytest.mark.parametrize("dtype", DTYPES)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, maps memory as on Linux")


def assert_right(kernel, rows, cols=None, dtype="float64"):
    actual = covariance(kernel, rows, cols)
    assert actual.dtype == dtype
    assert actual.flags.c_contiguous
    assert_within(actual, *expected(kernel, rows, cols, dtype))


# --------------------------------------------------------------------------------------------------
# All pairs of functionals
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(16)
@dtypes
@pytest.mark.parametrize("name", REGISTRY)
def test_kernels(name, dtype):
    """All functionals on both sides that the kernel is smooth enough for, in one matrix."""
    case = REGISTRY[name]
    rows, cols = meet(functionals(2, 2, dtype), functionals(3, 2, dtype, seed=1))
    known = [key for key, order in ORDERS.items() if order == 0 or 2 * order < case.smoothness]
    sides = ([side[key] for key in known] for side in (rows, cols))
    assert_right(case(2), *sides, dtype)


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.parametrize("name", [name for name, c in REGISTRY.items() if c.smoothness <= 4])
def test_rough_kernels_with_derivatives_on_one_side(name, side):
    """NaN where points coincide, if the derivative does not exist, and nowhere else."""
    rows, cols = meet(functionals(2, 2), functionals(3, 2, seed=1))
    sides = list(rows.values()), cols["Value"]
    assert_right(REGISTRY[name](2), *(sides if side == "rows" else sides[::-1]))


@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_pairs(first, second):
    rows, cols = meet(functionals(3, 3), functionals(4, 3, seed=1))
    assert_right(two(3), rows[first], cols[second])


@pytest.mark.parametrize("D", [1, 2, 4, 5, 6, 7, 10, 17, 67])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ValueGradient", "ValueGradient"),
        ("Gradient", "masked ValueGradient"),
        ("Value", "Gradient"),
        ("Laplacian", "ValueGradient"),
        ("Directional", "Directional"),
    ],
)
def test_dimensions(first, second, D):
    rows, cols = meet(functionals(2, D), functionals(3, D, seed=1))
    for kernel in (Matern(ard(D) * D**0.5, nu=2.5), two(D)):
        assert_right(kernel, rows[first], cols[second])


@pytest.mark.parametrize("second", ["Hessian", "Value", "ValueGradient"])
@pytest.mark.parametrize("D", [1, 4, 5, 8, 10])
def test_hessians_of_many_dimensions(D, second):
    rows, cols = meet(functionals(1, D), functionals(2, D, seed=1))
    assert_right(two(D), rows["Hessian"], cols[second])


# Edges of groups of 4 rows, of panels of 16 or 32 points, of tiles of 48 rows and of strips of 128
# or 256 columns, or a fraction of that for programs with many buffers.
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 131), (6, 15), (48, 65), (50, 128), (49, 257)], ids=str
)
@pytest.mark.parametrize(
    ("first", "second", "D", "dtype"),
    [
        ("ValueGradient", "ValueGradient", 1, "float64"),
        ("masked ValueGradient", "Gradient", 3, "float64"),
        ("Directional", "ValueGradient", 2, "float32"),
        ("Laplacian", "Hessian", 1, "float64"),
    ],
)
def test_sizes(first, second, D, dtype, size):
    n, m = size
    rows, cols = meet(functionals(n, D, dtype), functionals(m, D, dtype, seed=1))
    assert_right(two(D), rows[first], cols[second], dtype)


@pytest.mark.parametrize(
    ("D", "first", "second"),
    [
        *[(10, a, b) for a in ("Gradient", "Directional", "ValueGradient") for b in NAMES[:4]],
        *[(D, "Gradient", "Value") for D in (5, 17, 24, 64)],
        *[(D, "Value", "Gradient") for D in (5, 24, 64)],
        *[(10, "Gradient", "Laplacian"), (10, "Laplacian", "ValueGradient")],
    ],
)
def test_many_columns_of_many_dimensions(D, first, second):
    """A strip of pairs has many more entries on one side than on the other."""
    rows, cols = meet(functionals(9, D), functionals(141, D, seed=1))
    assert_right(Matern(D**0.5, nu=2.5) + 0.1 * DotProduct(), rows[first], cols[second])


@pytest.mark.quick(6)
@pytest.mark.parametrize("second", ["Hessian", "Laplacian"])
@pytest.mark.parametrize("first", ["Hessian", "Laplacian", "Directional"])
@pytest.mark.parametrize("name", MANY)
def test_large_programs(name, first, second):
    rows, cols = meet(functionals(2, 3), functionals(3, 3, seed=1))
    assert_right(MANY[name](3), rows[first], cols[second])


def test_points_far_from_the_origin():
    """An offset that costs 20 of the 53 bits of every coordinate before we see it."""
    rows, cols = meet(functionals(3, 2), functionals(4, 2, seed=1))
    for functional in (*rows.values(), *cols.values()):
        functional.X = functional.X + 2.0**20
    assert_right(RBF(ard(2)) + Matern(nu=2.5), list(rows.values()), list(cols.values()))


def test_points_that_almost_coincide():
    """Points 1e-6 apart, where automatic differentiation loses five digits."""
    rows = functionals(3, 2)
    cols = copy.deepcopy(rows)
    for functional in cols.values():
        functional.X += 1e-6 * np.array([[0.6, -0.8], [1.0, 0.2], [0.5, 0.7]])
    for kernel in (RBF(ard(2)), Matern(nu=2.5) * RationalQuadratic(), two(2)):
        matrix, bound = expected(kernel, list(rows.values()), list(cols.values()))
        actual = covariance(kernel, list(rows.values()), list(cols.values()))
        assert_within(actual, matrix, bound)
        assert np.abs(actual - matrix).max() <= 1e-12 * np.abs(matrix).max()


# --------------------------------------------------------------------------------------------------
# Other oracles than the reference
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [(a, b) for i, a in enumerate(NAMES[:6]) for b in NAMES[: i + 1]],
)
def test_mpmath(first, second):
    """The operators applied to the textbook formulas in 50 digits."""
    rows, cols = functionals(1, 2), functionals(1, 2, seed=1)
    kernel = RBF([0.7, 1.5]) * DotProduct(0.4) + RationalQuadratic()
    desired = mp_covariance(kernel, rows[first], cols[second])
    error = np.abs(exact(covariance(kernel, rows[first], cols[second])) - desired)
    assert (error <= covariance_bounds(kernel, rows[first], cols[second])).all()


@pytest.mark.parametrize("second", ["ValueGradient", "Laplacian"])
@pytest.mark.parametrize("first", NAMES[1:6])
@pytest.mark.parametrize(
    "kernel",
    [RBF([0.8, 1.4]) * DotProduct(0.5), ExpSineSquared(1.3, 4.0), RationalQuadratic(1.2, 0.7) ** 2],
    ids=str,
)
def test_operators_applied_numerically(kernel, first, second):
    """Differences of the covariances of values make those of all other functionals."""
    rows, cols = meet(functionals(1, 2), functionals(2, 2, seed=1))
    x, V = rows[first].X[0], rows["Directional"].V[0]

    def values(x):
        return covariance(kernel, Value(x[None]), cols[second])[0]

    jacobian = kerneldiff.numerical_jacobian(values, x).T
    numerical = {
        "Gradient": lambda: jacobian,
        "ValueGradient": lambda: np.vstack([values(x), jacobian]),
        "Directional": lambda: V[None] @ jacobian,
        "Hessian": lambda: kerneldiff.numerical_hessian(values, x).reshape(-1, 4).T,
        "Laplacian": lambda: np.einsum("iaa->i", kerneldiff.numerical_hessian(values, x))[None],
    }[first]()
    actual = covariance(kernel, rows[first], cols[second])
    # What SciPy's formulas of order 8 leave, and roundings of 1e-16 over the squares of steps.
    error = 1e-7 if ORDERS[first] == 2 else 1e-10
    np.testing.assert_allclose(actual, numerical, rtol=0, atol=error * np.abs(actual).max())


# --------------------------------------------------------------------------------------------------
# What a covariance is
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(12)
@pytest.mark.parametrize("name", [name for name, case in REGISTRY.items() if case.positive])
def test_symmetric_and_positive_semidefinite(name):
    case = REGISTRY[name]
    sides = functionals(4, 2)
    observed = [sides[key] for key, order in ORDERS.items() if 2 * order < case.smoothness]
    matrix = covariance(case(2), observed)
    bound = covariance_bounds(case(2), observed)
    assert (np.abs(matrix - matrix.T) <= bound + bound.T).all()
    # In units of the standard deviations; errors of at most b move eigenvalues by n b.
    scale = np.sqrt(np.where(np.diag(matrix) > 0, np.diag(matrix), 1))
    least = np.linalg.eigvalsh((matrix + matrix.T) / 2 / np.outer(scale, scale))[0]
    assert least >= -len(matrix) * (bound / np.outer(scale, scale)).max()


def test_order_of_entries():
    """Points, then entries; the value before the gradient; Hessians row by row."""
    sides = functionals(3, 2)
    X, kernel = sides["Value"].X, two(2)
    C = covariance(kernel, sides["ValueGradient"], sides["Hessian"]).reshape(3, 3, 3, 2, 2)
    hessian = kerneldiff.hessian(kernel, X, wrt="yy")
    np.testing.assert_allclose(C[:, 0], hessian, rtol=1e-13, atol=1e-14)
    C = covariance(kernel, sides["Gradient"]).reshape(3, 2, 3, 2)
    mixed = kerneldiff.hessian(kernel, X, wrt="xy")
    np.testing.assert_allclose(C.transpose(0, 2, 1, 3), mixed, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("key", ["Gradient", "ValueGradient"])
def test_mask_leaves_entries_out(key, second):
    rows, cols = functionals(4, 3), functionals(5, 3, seed=1)
    masked = rows[f"masked {key}"]
    whole = covariance(two(3), rows[key], cols[second])
    assert masked.size == masked.mask.sum()
    np.testing.assert_array_equal(
        covariance(two(3), masked, cols[second]), whole[masked.mask.ravel()]
    )
    np.testing.assert_allclose(
        covariance(two(3), cols[second], masked),
        whole[masked.mask.ravel()].T,
        rtol=0,
        atol=1e-13 * np.abs(whole).max(),
    )


def test_lists_are_blocks():
    rows = list(functionals(3, 2).values())
    cols = list(functionals(4, 2, seed=1).values())
    blocks = np.block([[covariance(two(2), row, col) for col in cols] for row in rows])
    np.testing.assert_array_equal(covariance(two(2), rows, cols), blocks)
    np.testing.assert_array_equal(covariance(two(2), tuple(rows), tuple(cols)), blocks)


@pytest.mark.parametrize("V", [[1.0, -2.0], [[1.0, -2.0]], np.float32([1.0, -2.0])], ids=repr)
def test_one_direction_for_all_points(V):
    sides = functionals(3, 2)
    X = sides["Value"].X
    each = Directional(X, np.tile(np.array([1.0, -2.0]), (3, 1)))
    actual = covariance(two(2), Directional(X, V), sides["Gradient"])
    np.testing.assert_array_equal(actual, covariance(two(2), each, sides["Gradient"]))


@pytest.mark.parametrize("key", ["Value", "ValueGradient", "masked ValueGradient"])
@dtypes
def test_noise_is_on_the_diagonal_of_values(key, dtype):
    """For one argument only; not between points that coincide, and in no derivative."""
    sides = functionals(5, 2, dtype)
    rows = [sides["Laplacian"], sides[key], sides["Gradient"], sides["Value"]]
    clean = 2.0 * RBF([0.8, 1.3])
    noise = covariance(clean + WhiteKernel(0.5), rows) - covariance(clean, rows)
    mask = sides[key].mask
    kept = np.zeros(sides[key].size)
    if key == "Value":
        kept[:] = 1
    else:
        mask = np.ones((5, 3), bool) if mask is None else mask
        kept[:] = np.broadcast_to([1, 0, 0], (5, 3))[mask]
    where = np.concatenate([np.zeros(5), kept, np.zeros(10), np.ones(5)])
    # Values of 2 are rounded.
    np.testing.assert_allclose(noise, np.diag(0.5 * where), rtol=0, atol=8 * UNIT[dtype])
    np.testing.assert_array_equal(
        covariance(clean + WhiteKernel(0.5), rows, rows), covariance(clean, rows, rows)
    )


@pytest.mark.parametrize(
    "kernel",
    [
        RBF() * WhiteKernel(0.3),
        (RBF() + WhiteKernel(0.3)) ** 2,
        (RBF() + WhiteKernel(0.3)) * (DotProduct() + WhiteKernel(0.7)),
        Columns(RBF() + WhiteKernel(0.3), [1]) + RBF(),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_noise_inside_composites(kernel, order):
    sides = functionals(5, 2)
    rows = [sides["ValueGradient"], sides["masked ValueGradient"], sides["Value"]]
    n = sum(row.size for row in rows)
    out = covariance(kernel, rows, out=np.zeros((n, n), order=order))
    actual = out if order == "C" else np.tril(out) + np.tril(out, -1).T
    assert_within(actual, *expected(kernel, rows))
    X = sides["Value"].X
    values = np.tril(out[: 5 * 3 : 3, : 5 * 3 : 3])
    assert_within(values, np.tril(kernel(X)), 2 * bounds(kernel, X))


@pytest.mark.parametrize("key", NAMES)
def test_no_points(key):
    nothing, cols = functionals(0, 3), functionals(4, 3, seed=1)
    assert covariance(two(3), nothing[key]).shape == (0, 0)
    for side in cols.values():
        assert covariance(two(3), nothing[key], side).shape == (0, side.size)
        assert covariance(two(3), side, nothing[key]).shape == (side.size, 0)
    # Beside others.
    rows = [cols["Value"], nothing[key], cols["Gradient"]]
    np.testing.assert_array_equal(covariance(two(3), rows), covariance(two(3), rows[::2]))
    out = np.zeros((16, 16), order="F")
    lower = covariance(two(3), rows[::2], out=np.zeros((16, 16), order="F"))
    np.testing.assert_array_equal(covariance(two(3), rows, out=out), lower)


def test_nothing_in_a_mask():
    X = functionals(3, 2)["Value"].X
    empty = Gradient(X, mask=np.zeros((3, 2), bool))
    assert empty.size == 0
    assert covariance(two(2), [empty, Value(X)], Value(X)).shape == (3, 3)
    assert covariance(two(2), empty).shape == (0, 0)


def test_points_without_columns():
    X = np.zeros((3, 0))
    assert Gradient(X).size == Hessian(X).size == 0
    np.testing.assert_array_equal(covariance(2.0 * RBF(), ValueGradient(X)), np.full((3, 3), 2.0))
    np.testing.assert_array_equal(covariance(2.0 * RBF(), Laplacian(X)), np.zeros((3, 3)))


def test_types_of_points():
    """float32 if all points are; anything else becomes float64."""
    X = np.arange(6).reshape(3, 2)
    single = Value(X.astype(np.float32))
    assert covariance(RBF(), single).dtype == np.float32
    assert covariance(RBF(), single, Value(X)).dtype == np.float64
    assert covariance(RBF(), [single, Gradient(X.astype(float))]).dtype == np.float64
    np.testing.assert_array_equal(
        covariance(RBF(), Value(X.tolist())), covariance(RBF(), Value(X.astype(float)))
    )
    assert covariance(RBF(), single, Directional(single.X, [1.0, 2.0])).dtype == np.float64


def test_shapes_and_sizes():
    X = np.zeros((4, 3))
    shapes = {
        Value: (4,),
        Gradient: (4, 3),
        ValueGradient: (4, 4),
        Hessian: (4, 3, 3),
        Laplacian: (4,),
    }
    for functional, shape in shapes.items():
        assert functional(X).shape == shape
        assert functional(X).size == np.prod(shape)
    assert Directional(X, np.ones(3)).shape == (4,)


@pytest.mark.exhaustive
@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_random_kernels(problem):
    *arguments, order, dtype = problem
    kernel, rows, _ = arguments
    nu = kernels.smoothness(kernels.read(kernel, rows.X.shape[1])) / 2
    if order and order >= nu:
        with pytest.raises(ValueError, match=f"nu = {nu:g}, which is too rough"):
            covariance(*arguments)
    else:
        assert_right(*arguments, dtype)


# --------------------------------------------------------------------------------------------------
# Outputs
# --------------------------------------------------------------------------------------------------

LISTS = {
    "list": ["Value", "masked Gradient", "Directional"],
    "masked list": ["masked ValueGradient", "Laplacian", "Value", "masked Gradient"],
    "Hessians": ["Value", "Hessian", "masked ValueGradient"],
}


def symmetric_problem(name, n, D, dtype):
    """Rows of a symmetric call; those of a list are at different points."""
    if name not in LISTS:
        return functionals(n, D, dtype)[name]
    n = min(n, 10) if name == "Hessians" else n
    return [functionals(n + k, D, dtype, seed=k)[key] for k, key in enumerate(LISTS[name])]


def assert_lower(kernel, rows, dtype, out):
    """The lower triangle and nothing else, equal to that of the whole matrix within rounding."""
    whole = covariance(kernel, rows)
    assert covariance(kernel, rows, out=out) is out
    bound = covariance_bounds(kernel, rows, None, dtype)
    lower = np.tri(len(whole), dtype=bool)
    np.testing.assert_array_equal(out[~lower], 7)
    assert (np.abs(out - whole)[lower] <= (bound + bound.T)[lower]).all()


@pytest.mark.parametrize(
    ("kernel", "dtype"), [(two, "float64"), (lambda D: Matern(ard(D), nu=2.5), "float32")]
)
@pytest.mark.parametrize(("n", "D"), [(1, 1), (131, 1), (7, 2), (52, 3), (9, 5), (3, 10)])
@pytest.mark.parametrize("name", ["Value", "ValueGradient", "Directional", *LISTS])
def test_lower_triangle(name, n, D, kernel, dtype):
    rows = symmetric_problem(name, n, D, dtype)
    size = covariance(kernel(D), rows).shape[0]
    assert_lower(kernel(D), rows, dtype, np.full((size, size), 7, dtype, order="F"))


@pytest.mark.parametrize("name", ["Gradient", "ValueGradient", "masked ValueGradient"])
def test_lower_triangle_of_many_dimensions(name):
    rows = functionals(4, 67, scale=0.3)[name]
    assert_lower(two(67), rows, "float64", np.full((rows.size,) * 2, 7.0, order="F"))


def test_lower_triangle_into_a_part_of_memory():
    """Not where vectors like to begin, and with memory of others around it."""
    rows = functionals(13, 3)["ValueGradient"]
    guard = 64
    memory = np.full(rows.size**2 + 2 * guard + 1, 7.0)
    out = memory[guard + 1 : -guard].reshape(rows.size, rows.size, order="F")
    assert_lower(two(3), rows, "float64", out)
    np.testing.assert_array_equal(memory[: guard + 1], 7)
    np.testing.assert_array_equal(memory[-guard:], 7)


@pytest.mark.parametrize("name", ["Value", "ValueGradient", "list"])
def test_lower_triangle_is_ready_for_lapack(name):
    rows = symmetric_problem(name, 20, 3, "float64")
    kernel = two(3) + WhiteKernel(1e-6)
    whole = covariance(kernel, rows)
    whole[np.diag_indices(len(whole))] += 1e-6
    out = np.full(whole.shape, np.nan, order="F")
    covariance(kernel, rows, out=out)
    out[np.diag_indices(len(whole))] += 1e-6
    L = scipy.linalg.cholesky(out, lower=True, overwrite_a=True, check_finite=False)
    assert np.shares_memory(L, out)
    L = np.tril(L)
    # Cholesky's backward error is n u, n the size, and often much smaller.
    np.testing.assert_allclose(L @ L.T, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


@pytest.mark.parametrize(("order", "dtype"), [("C", "float64"), ("F", "float64"), ("F", "float32")])
@pytest.mark.parametrize("second", ["Value", "masked ValueGradient", "Hessian"])
@pytest.mark.parametrize("first", ["Directional", "ValueGradient", "masked Gradient"])
def test_whole_output(first, second, order, dtype):
    """With columns given all is written, in either order of memory."""
    rows, cols = functionals(5, 3, dtype)[first], functionals(6, 3, dtype, seed=1)[second]
    whole = covariance(two(3), rows, cols)
    out = np.full(whole.shape, np.nan, dtype, order=order)
    assert covariance(two(3), rows, cols, out=out) is out
    assert_within(out, *expected(two(3), rows, cols, dtype))
    # The same functionals on both sides, but given.
    square = np.full((rows.size,) * 2, np.nan, dtype, order=order)
    covariance(two(3), rows, rows, out=square)
    assert_within(square, *expected(two(3), rows, rows, dtype))


def test_whole_output_in_c_order_without_columns():
    rows = functionals(7, 3)["ValueGradient"]
    out = np.full((28, 28), np.nan)
    covariance(two(3), rows, out=out)
    np.testing.assert_array_equal(out, covariance(two(3), rows))


@pytest.mark.quick(1)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("first", ["ValueGradient", "masked ValueGradient"])
def test_large_reused_output(first, order):
    """An output beyond the last-level cache may be stored in another way."""
    rows, cols = functionals(401, 5)[first], functionals(397, 5, seed=1)[first]
    kernel = two(5)
    part = covariance(kernel, rows, cols)
    # Twice as many on either side, so that the output is 150 MB.
    out = np.full((2 * rows.size, 2 * cols.size), np.nan, order=order)
    covariance(kernel, [rows, rows], [cols, cols], out=out)
    for a, b in np.ndindex(2, 2):
        block = out[a * rows.size : (a + 1) * rows.size, b * cols.size : (b + 1) * cols.size]
        np.testing.assert_allclose(block, part, rtol=0, atol=1e-13 * np.abs(part).max())


# --------------------------------------------------------------------------------------------------
# Processes of their own: instruction sets, threads, memory, signals
# --------------------------------------------------------------------------------------------------

COMPUTE = """
import hashlib, json, sys
import numpy as np
from kerneldiff import covariance
from support.functionals import functionals, meet, two
"""

SETS = ["ValueGradient", "masked Gradient", "Directional", "Hessian", "Laplacian"]


@pytest.fixture(scope="module")
def arrays(isa, tmp_path_factory):
    """Covariances as one instruction set computes them."""
    path = tmp_path_factory.mktemp(isa) / "arrays.npz"
    run_python(
        f"""
        {COMPUTE.replace(chr(10), chr(10) + 8 * " ")}
        arrays = {{}}
        for dtype in ("float64", "float32"):
            rows, cols = meet(functionals(5, 3, dtype), functionals(37, 3, dtype, seed=1))
            for key in json.loads(sys.argv[2]):
                arrays[key + dtype] = covariance(two(3), rows[key], list(cols.values()))
        np.savez(sys.argv[1], **arrays)
        """,
        path,
        json.dumps(SETS),
        isa=isa,
    )
    return np.load(path)


@pytest.mark.exhaustive
@dtypes
@pytest.mark.parametrize("key", SETS)
def test_instruction_sets(arrays, key, dtype):
    rows, cols = meet(functionals(5, 3, dtype), functionals(37, 3, dtype, seed=1))
    matrices = expected(two(3), rows[key], list(cols.values()), dtype)
    assert_within(arrays[key + dtype], *matrices)


@pytest.mark.exhaustive
def test_same_bits_for_any_number_of_threads():
    code = f"""
        {COMPUTE.replace(chr(10), chr(10) + 8 * " ")}
        rows, cols = functionals(120, 3), functionals(70, 3, seed=1)
        for a in ("ValueGradient", "masked Gradient", "Hessian", "Directional"):
            for b in ("ValueGradient", "Laplacian"):
                print(hashlib.sha256(covariance(two(3), rows[a], cols[b])).hexdigest())
        out = np.zeros((480, 480), order="F")
        print(hashlib.sha256(covariance(two(3), rows["ValueGradient"], out=out).T).hexdigest())
        """
    said = {threads: run_python(code, threads=threads).split() for threads in (1, 2, 3)}
    assert said[1] == said[2] == said[3]
    assert len(set(said[1])) == 9


# Vectors may be longer than what is left of an array: arrays before and behind pages that must not
# be touched.
BESIDE = """
import itertools, sys
import numpy as np
from support.functionals import NAMES, functionals, two
from support.memory import guarded
from kerneldiff import covariance
from sklearn.gaussian_process.kernels import RBF, Matern

dtype = sys.argv[1]

def moved(functional, side):
    functional.X = guarded(functional.X, side)
    functional.V = None if functional.V is None else guarded(functional.V, side)
    return functional

for d in (1, 2, 3, 5, 7, 8, 17):
    for k, (first, second) in enumerate(itertools.product(NAMES, NAMES)):
        for n, m in [[(1, 1), (3, 5), (4, 19)][(k + d) % 3]]:
            kernel = [RBF(1.5), Matern(nu=2.5), two(d)][(k + k // 8) % 3]
            if d > 5 and "Hessian" in (first, second) and (n > 1 or d > 10):
                continue
            print(first, second, n, m, d, flush=True)
            rows, cols = functionals(n, d, dtype)[first], functionals(m, d, dtype, seed=1)[second]
            whole = covariance(kernel, rows, cols)
            square = covariance(kernel, rows, out=np.zeros((rows.size,) * 2, dtype, order="F"))
            for side in ("begin", "end"):
                moved(rows, side), moved(cols, side)
                out = guarded(np.full_like(whole, np.nan), side)
                covariance(kernel, rows, cols, out=out)
                np.testing.assert_array_equal(out, whole)
                if rows.size > 1:
                    out = guarded(np.zeros((rows.size,) * 2, dtype), side).T
                    covariance(kernel, rows, out=out)
                    np.testing.assert_array_equal(out, square)
"""


@pytest.mark.exhaustive
@pytest.mark.quick(1)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="protects pages of memory as POSIX systems do")
@dtypes
def test_touches_nothing_beside_the_arrays(isa, dtype):
    """Neither reads nor writes; the system ends the process that does."""
    run_python(BESIDE, dtype, isa=isa)


PEAK = """
import sys
import numpy as np
from support.memory import peak_growth
from kerneldiff import (
    Directional, Gradient, Hessian, Laplacian, Value, ValueGradient, covariance
)
from sklearn.gaussian_process.kernels import RBF, DotProduct

def normal(n, d, dtype=np.float64):
    return np.random.default_rng(0).normal(size=(n, d)).astype(dtype)

def mask(n, d):
    return np.random.default_rng(1).random((n, d)) < 0.5

one, two = RBF(), RBF(2.0) * DotProduct() + RBF()
X = normal(700, 10)
cases = {
    "joint": lambda: (one, [ValueGradient(X)]),
    "two invariants": lambda: (two, [ValueGradient(X)]),
    "float32": lambda: (one, [ValueGradient(normal(900, 10, np.float32))]),
    "mask": lambda: (one, [ValueGradient(X, mask=mask(700, 11))]),
    "mask, many columns": lambda: (one, [Gradient(normal(20, 400), mask=mask(20, 400))]),
    "list": lambda: (two, [Value(X), Gradient(X, mask=mask(700, 10)), Laplacian(X)]),
    "Hessian": lambda: (two, [Hessian(normal(90, 10))]),
    "Hessian, many columns": lambda: (one, [Hessian(normal(3, 60))]),
    "directions": lambda: (two, [Directional(normal(6000, 5), normal(6000, 5))]),
}
kernel, rows = cases[sys.argv[1]]()
n = sum(row.size for row in rows)
out = None
if sys.argv[2] == "lower":
    out = np.zeros((n, n), rows[0].X.dtype, order="F")
    out[:] = 1
# Threads, code and buffers of a first call are not what is measured.
covariance(kernel, [type(row)(row.X[:2], **({"V": row.V[:2]} if row.V is not None else {}))
                    for row in rows[:1]])
covariance(one, ValueGradient(X[:300]))
grown, matrix = peak_growth(lambda: covariance(kernel, rows, out=out))
print(grown - (matrix.nbytes if out is None else 0))
"""


@pytest.mark.exhaustive
@linux
@pytest.mark.parametrize(
    ("case", "out"),
    [
        *[("joint", "fresh"), ("joint", "lower"), ("two invariants", "lower")],
        *[("float32", "fresh"), ("mask", "lower"), ("mask, many columns", "fresh")],
        *[("list", "lower"), ("Hessian", "fresh"), ("Hessian, many columns", "lower")],
        ("directions", "fresh"),
    ],
)
def test_peak_memory(case, out):
    """The output and 16 MiB."""
    assert int(run_python(PEAK, case, out, threads=2)) <= 16 * 2**20


# Cases that would take minutes, in outputs larger than any memory.
INTERRUPTED = """
import sys
import numpy as np
from support.memory import huge
from support.processes import report_interrupt
from kerneldiff import Gradient, Hessian, Laplacian, ValueGradient, covariance
from sklearn.gaussian_process.kernels import RBF, DotProduct

two = RBF(2.0) * DotProduct() + RBF()
mask = np.random.default_rng(0).random((20_000, 10)) < 0.5
cases = {
    "joint": (two, ValueGradient(np.ones((20_000, 10)))),
    "masks": (RBF(), Gradient(np.ones((20_000, 10)), mask=mask)),
    "Hessians": (two, Hessian(np.ones((2000, 10)))),
    "one point": (two, Hessian(np.ones((1, 500)))),
    "Laplacians": (two, [Laplacian(np.ones((100_000, 20))), Laplacian(np.ones((100_000, 20)))]),
}
kernel, rows = cases[sys.argv[1]]
size = sum(row.size for row in (rows if isinstance(rows, list) else [rows]))
out = huge((size, size), np.float64)
if sys.argv[2] == "lower":
    out = out.T
covariance(kernel, ValueGradient(np.ones((500, 3))))
report_interrupt(lambda: covariance(kernel, rows, out=out))
# The library is as usable as before.
from kerneldiff import _reference
rows = ValueGradient(np.random.default_rng(0).normal(size=(60, 3)))
assert np.abs(covariance(RBF(), rows) - _reference.covariance(RBF(), rows)).max() < 1e-14
"""


@pytest.mark.exhaustive
@pytest.mark.quick(1)
@linux
@pytest.mark.parametrize(
    ("case", "out"),
    [
        *[("joint", "whole"), ("joint", "lower"), ("masks", "lower"), ("Hessians", "lower")],
        *[("one point", "whole"), ("Laplacians", "whole")],
    ],
)
def test_ctrl_c(case, out):
    # The slowest instruction set: what it does between two looks at signals takes longest.
    assert_interruptible(INTERRUPTED, case, out, isa="baseline")


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------

GOOD = np.ones((3, 2))


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.parametrize(
    "unknown",
    [
        GOOD,
        "Value",
        Value,
        3.0,
        RBF(),
        [Value(GOOD), GOOD],
        [Value(GOOD), None],
        {},
        [[Value(GOOD)]],
    ],
    ids=str,
)
def test_unknown_functional(unknown, side):
    arguments = (unknown, Value(GOOD)) if side == "rows" else (Value(GOOD), unknown)
    with pytest.raises(TypeError, match=rf"(?s){side} holds.*Value, Gradient.*Laplacian"):
        covariance(RBF(), *arguments)


@pytest.mark.parametrize("side", ["rows", "cols"])
def test_no_functionals(side):
    arguments = ([], Value(GOOD)) if side == "rows" else (Value(GOOD), [])
    with pytest.raises(ValueError, match=f"{side} is empty"):
        covariance(RBF(), *arguments)


@pytest.mark.parametrize(
    "X", [np.ones(3), np.ones((2, 2, 2)), [["a"]], [[1.0, np.nan]], [[1j]]], ids=str
)
@pytest.mark.parametrize("functional", [Value, ValueGradient])
def test_bad_points(functional, X):
    with pytest.raises(ValueError, match=r"X|omplex"):
        functional(X)


@pytest.mark.parametrize(
    "V",
    [np.ones(3), np.ones((2, 2)), np.ones((3, 1)), np.ones((4, 2)), np.ones((2, 3))],
    ids=np.shape,
)
def test_directions_of_the_wrong_shape(V):
    with pytest.raises(
        ValueError, match=r"V has shape .*must have shape \(3, 2\), as X, or \(2,\)"
    ):
        Directional(GOOD, V)


@pytest.mark.parametrize("V", [np.ones((3, 2, 1)), 1.0, [["a", "b"]], [np.nan, 1.0]], ids=str)
def test_directions_that_are_none(V):
    with pytest.raises(ValueError, match=r"V|scalar"):
        Directional(GOOD, V)


@pytest.mark.parametrize("functional", [Gradient, ValueGradient])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 2), (3, 4), (3, 2, 1), ()], ids=str)
def test_mask_of_the_wrong_shape(shape, functional):
    right = (3, 2) if functional is Gradient else (3, 3)
    with pytest.raises(
        ValueError, match=rf"mask has shape .*must have shape \({right[0]}, {right[1]}\)"
    ):
        functional(GOOD, mask=np.ones(shape, bool))


@pytest.mark.parametrize("functional", [Gradient, ValueGradient])
@pytest.mark.parametrize("mask", [np.ones((3, 2)), np.ones((3, 2), int), [["a"]], [0, 2]], ids=str)
def test_mask_of_the_wrong_type(mask, functional):
    """Numbers could be indices as well."""
    with pytest.raises((TypeError, ValueError), match=r"mask is of type .*bool"):
        functional(GOOD, mask=mask)


@pytest.mark.parametrize("functional", [Value, Hessian, Laplacian])
def test_mask_where_there_is_none(functional):
    with pytest.raises(TypeError, match="mask"):
        functional(GOOD, mask=np.ones(3, bool))


@pytest.mark.parametrize(
    ("rows", "cols"),
    [
        (Value(GOOD), Gradient(np.ones((3, 3)))),
        ([Value(GOOD), Hessian(np.ones((2, 1)))], Value(GOOD)),
        ([Value(GOOD), Gradient(np.ones((3, 3)))], None),
    ],
    ids=["sides", "list", "alone"],
)
def test_different_numbers_of_columns(rows, cols):
    with pytest.raises(ValueError, match=r"have \[\d, \d\] columns; all must have the same number"):
        covariance(RBF(), rows, cols)


@pytest.mark.parametrize(
    ("nu", "first", "second"),
    [
        *[(0.5, a, b) for a, b in [("Gradient", "Gradient"), ("Hessian", "ValueGradient")]],
        *[(1.0, a, b) for a, b in [("Gradient", "Directional"), ("Laplacian", "Gradient")]],
        *[(1.5, a, b) for a, b in [("Hessian", "Hessian"), ("Laplacian", "Hessian")]],
        *[(2.0, a, b) for a, b in [("Laplacian", "Laplacian"), ("Hessian", "Laplacian")]],
    ],
)
def test_too_rough_kernel(nu, first, second):
    """An order r on both sides needs nu > r; of all parts, in lists as well."""
    sides = functionals(3, 2)
    out = np.full((sides[first].size, sides[second].size), 7.0)
    order = min(ORDERS[first], ORDERS[second])
    message = f"nu = {nu:g}, which is too rough for derivatives of order {order} on both sides"
    for kernel in (Matern(nu=nu), RBF() * (1.0 + Matern([1.0, 2.0], nu=nu)) ** 2):
        with pytest.raises(ValueError, match=message):
            covariance(kernel, sides[first], sides[second], out=out)
        with pytest.raises(ValueError, match=message):
            covariance(kernel, [sides["Value"], sides[first]], [sides[second], sides["Value"]])
    np.testing.assert_array_equal(out, 7)


@pytest.mark.parametrize(
    ("nu", "first", "second"),
    [
        (0.5, "Hessian", "Value"),
        (1.01, "Gradient", "ValueGradient"),
        (1.5, "Hessian", "Gradient"),
        (2.01, "Laplacian", "Hessian"),
    ],
)
def test_just_smooth_enough(nu, first, second):
    sides = functionals(3, 2), functionals(4, 2, seed=1)
    assert np.isfinite(covariance(Matern(nu=nu), sides[0][first], sides[1][second])).all()


OUTPUTS = {
    "shape": (np.zeros((3, 4)), ValueError, r"out has shape \(3, 4\).*\(9, 9\)"),
    "transposed shape": (np.zeros((4, 3), order="F"), ValueError, "out has shape .*9, 9"),
    "type": (np.zeros((9, 9), np.float32), ValueError, "out is of type float32.*float64"),
    "integers": (np.zeros((9, 9), int, order="F"), ValueError, "out is of type int64.*float64"),
    "neither order": (np.zeros((9, 18))[:, ::2], ValueError, "out is not C-contiguous"),
    "list": ([[0.0]], TypeError, "out is of type list"),
    "read-only": (np.broadcast_to(np.zeros((9, 9)), (9, 9)), ValueError, "out is read-only"),
}


@pytest.mark.parametrize(("out", "error", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_bad_output(out, error, message):
    with pytest.raises(error, match=message):
        covariance(RBF(), ValueGradient(GOOD), out=out)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("which", ["X", "V"])
def test_output_that_is_an_input(which, order):
    memory = np.arange(36.0)
    inputs = {"X": np.ones((6, 6)), "V": np.ones((6, 6))}
    inputs[which] = memory.reshape(6, 6)
    before = memory.copy()
    with pytest.raises(ValueError, match="out shares memory with"):
        covariance(RBF(), Directional(**inputs), out=memory.reshape(6, 6, order=order))
    np.testing.assert_array_equal(memory, before)


def test_larger_than_memory():
    with pytest.raises(MemoryError, match=r"needs \S+ GiB.* CovarianceOperator multiplies"):
        covariance(RBF(), ValueGradient(np.ones((1_000_000, 10))))


def test_unreadable_kernel():
    with pytest.raises(TypeError, match="cannot be read"):
        covariance(np.dot, Value(GOOD))
    out = np.full((3, 3), 7.0, order="F")
    with pytest.raises(ValueError, match="length_scale"):
        covariance(RBF(-1.0), Value(GOOD), out=out)
    np.testing.assert_array_equal(out, 7)
