"""The Jacobian of a Gram matrix by its points: reference, finite differences, JAX, operators."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.gaussian_process.kernels import (
    RBF,
    CompoundKernel,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import UNIT, assert_within, bounds
from support.oracles import REGISTRY, central_difference, has_root, jax_function
from support.processes import assert_interruptible, run_python
from support.tensors import DTYPES

from kerneldiff import Columns, CovarianceOperator, Value, _reference, gram_jacobian
from kerneldiff.tensors import _index_type

jax.config.update("jax_enable_x64", True)

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, sends signals")
dtypes = pytest.mark.parametrize("dtype", DTYPES)
LAYOUTS = ("tensor", "matrix", "sparse")
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def normal(n, d, dtype="float64"):
    return np.random.default_rng([n, d]).normal(size=(n, d)).astype(dtype)


def assembled(by_x, by_y, diagonal):
    """The tensor of gradients (N, N, D) by either argument, and of k(x, x) by x, (N, D)."""
    n, _, d = by_x.shape
    tensor = np.zeros((n, n, n, d), by_x.dtype)
    for i in range(n):
        for j in range(n):
            if i == j:
                tensor[i, i, i] = diagonal[i]
            else:
                tensor[i, j, i], tensor[i, j, j] = by_x[i, j], by_y[i, j]
    return tensor


# ------------------------------------------------------------------------------------ the numbers


@dtypes
@pytest.mark.parametrize("name", REGISTRY)
def test_all_kernels(name, dtype):
    """Against the chain rule of the reference, at points two of which coincide.

    Stationary kernels do not change at all where points meet themselves; in the others of the
    registry both partial derivatives exist there, and their sum is the total one.
    """
    kernel = REGISTRY[name](3)
    X = normal(6, 3, dtype)
    X[4] = X[1]
    wide = X.astype(np.longdouble)
    with np.errstate(all="ignore"):
        exact = [_reference.gradient(kernel, wide, wrt=wrt) for wrt in "xy"]
        limits = [bounds(kernel, X, None, wrt, dtype) for wrt in "xy"]
    if kernel.is_stationary():
        diagonals = np.zeros(X.shape), np.zeros(X.shape)
    else:
        diagonals = (sum(np.einsum("iia->ia", part) for part in parts) for parts in (exact, limits))
    exact, limits = map(assembled, *zip(exact, limits, strict=True), diagonals)
    actual = gram_jacobian(kernel, X)
    assert actual.dtype == dtype
    assert np.isnan(actual).any() == (REGISTRY[name].smoothness <= 1)
    # What cannot be anything but zero is zero: no bound is that small.
    assert_within(actual, exact, limits + np.finfo(dtype).smallest_normal / 2)


# Where partial derivatives do not exist and total ones do, noise next to what changes, columns.
SINGULAR = {
    "rough*dot": Matern(1.2, nu=0.5) * DotProduct(0.4),
    "rough+dot": Matern([0.7, 1.2], nu=0.5) + DotProduct(0.4) ** 2,
    "(rough+dot)**2": (Matern(1.2, nu=0.5) + DotProduct(1.4)) ** 2,
    "dot*white": DotProduct(0.7) * WhiteKernel(0.3),
    "(dot+white)**2": (DotProduct(0.7) + WhiteKernel(0.3)) ** 2,
    "columns": Columns(Matern(nu=0.5), [0]) + Columns(DotProduct(), [1]) * RBF(2.0),
}
FAMILIES = {
    "rbf": RBF([0.8, 1.7]),
    "matern-1/2": Matern(1.2, nu=0.5),
    "matern-3/2": Matern(1.2, nu=1.5),
    "matern-1.2": Matern(1.2, nu=1.2),
    "rational": RationalQuadratic(1.2, alpha=0.7),
    "periodic": ExpSineSquared(1.2, periodicity=4.0),
    "dot": DotProduct(0.4),
    "poly": PairwiseKernel(gamma=0.4, metric="poly"),
    "sigmoid": PairwiseKernel(gamma=0.2, metric="sigmoid"),
    "white": WhiteKernel(0.3),
    "constant": ConstantKernel(0.3),
    "composite": 0.4 * RBF() * DotProduct() + Matern(nu=2.5) ** 2,
    **SINGULAR,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_differences_of_scikit_learn(name):
    """The formula for differences of sixth order, from Gram matrices by scikit-learn.

    With a step of 2^-6 they are off by 2^-36 / 140 = 1e-13 of the seventh derivative, which is
    less than 1e4 for these kernels at points that are no closer than 0.2, and by 1e-14 for the
    rounding of values up to 1e2; Bessel functions and sin^2 of scikit-learn lose two digits more.
    """
    kernel = FAMILIES[name]
    X = np.array([[0.3, 1.2], [-0.7, 0.4], [1.1, -0.5], [0.9, 1.6]])

    def moved(index, t):
        Z = X.copy()
        Z[index] += t
        return kernel(Z)

    differences = [
        central_difference(lambda t, index=index: moved(index, t), 2.0**-6)
        for index in np.ndindex(X.shape)
    ]
    expected = np.moveaxis(differences, 0, 2).reshape(4, 4, 4, 2)
    np.testing.assert_allclose(gram_jacobian(kernel, X), expected, rtol=0, atol=2e-9)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "kernel",
    [
        RBF(np.array([0.8, 1.7, 1.1])),
        RationalQuadratic(1.2, alpha=0.7),
        DotProduct(0.4) ** 3,
        PairwiseKernel(gamma=0.2, metric="sigmoid"),
        0.4 * RBF() * DotProduct() + RationalQuadratic(alpha=2.0),
        PairwiseKernel(gamma=0.3, metric="poly") * RBF(2.0),
    ],
    ids=str,
)
def test_jacfwd_of_a_gram_matrix(kernel):
    """Forward-mode differentiation of the matrix as a whole, in squared distances."""
    assert not has_root(kernel)
    function = jax_function(kernel)

    def gram(X):
        return jax.vmap(lambda x: jax.vmap(lambda y: function(x, y))(X))(X)

    X = normal(7, 3)
    expected = np.asarray(jax.jacfwd(gram)(jnp.asarray(X)))
    assert expected.dtype == np.float64
    # Both are good to some ten roundings of the terms, which are at most a few times their sum.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gram_jacobian(kernel, X), expected, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_contraction_with_weights(name):
    """What an operator sums up without the derivatives, Σ_ij W_ij ∂K_ij."""
    kernel = FAMILIES[name]
    X, rng = normal(30, 2), np.random.default_rng(1)
    W = rng.normal(size=(30, 30))
    W += W.T
    expected = CovarianceOperator(kernel, Value(X)).vjp(W, wrt="rows")
    actual = np.einsum("ij,ijpa->pa", W, gram_jacobian(kernel, X))
    # Sums of 60 terms, each good to some ten roundings, in two orders.
    terms = np.einsum("ij,ijpa->pa", np.abs(W), np.abs(gram_jacobian(kernel, X)))
    np.testing.assert_array_less(np.abs(actual - expected), 200 * UNIT["float64"] * terms + 1e-300)


# ---------------------------------------------------------------------------------- where it kinks


@layouts
def test_a_kink_on_the_diagonal_does_not_matter(layout):
    J = gram_jacobian(Matern(nu=0.5), normal(5, 2), layout=layout)
    J = J.toarray() if layout == "sparse" else J
    J = J.reshape(5, 5, 5, 2)
    assert (np.einsum("iiia->ia", J) == 0).all()
    assert np.isfinite(J).all()


@layouts
def test_nan_where_other_points_coincide(layout):
    """There and only there: K_12 has a kink, and K_11 and K_22 have none."""
    X = normal(5, 2)
    X[2] = X[1]
    J = gram_jacobian(Matern(nu=0.5) * DotProduct(), X, layout=layout)
    J = J.toarray() if layout == "sparse" else J
    missing = np.isnan(J.reshape(5, 5, 5, 2))
    expected = np.zeros_like(missing)
    for i, j in ((1, 2), (2, 1)):
        expected[i, j, [1, 2]] = True
    np.testing.assert_array_equal(missing, expected)


def test_a_constant_has_no_derivatives():
    X = normal(4, 2)
    for kernel in (WhiteKernel(2.0), ConstantKernel(2.0), ConstantKernel(2.0) + WhiteKernel()):
        assert not gram_jacobian(kernel, X).any()


def test_a_dot_product_with_itself():
    X = normal(4, 3)
    J = gram_jacobian(DotProduct(0.5), X)
    np.testing.assert_array_equal(np.einsum("iiia->ia", J), 2 * X)


# --------------------------------------------------------------------------------- layouts, sizes


SIZES = [(0, 2), (0, 0), (1, 1), (1, 3), (2, 1), (2, 0), (3, 2), (9, 5), (17, 3), (40, 1), (5, 33)]


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_layouts_agree(size, dtype):
    n, d = size
    X, kernel = normal(n, d, dtype), RBF(1.3) * DotProduct() + Matern(nu=0.5)
    tensor, matrix, sparse = (gram_jacobian(kernel, X, layout=layout) for layout in LAYOUTS)
    assert tensor.shape == (n, n, n, d)
    assert matrix.shape == sparse.shape == (n * n, n * d)
    assert tensor.dtype == matrix.dtype == sparse.dtype == dtype
    np.testing.assert_array_equal(matrix, tensor.reshape(n * n, n * d))
    np.testing.assert_array_equal(sparse.toarray(), matrix)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_what_is_stored(size):
    """The entries with p = i or p = j, each once and in order, whatever the kernel."""
    n, d = size
    J = gram_jacobian(RBF(), normal(n, d), layout="sparse")
    assert isinstance(J, scipy.sparse.csr_array)
    assert J.indices.dtype == J.indptr.dtype == np.int32
    assert J.nnz == n * (2 * n - 1) * d if n else J.nnz == 0
    J.check_format(full_check=True)
    assert J.has_canonical_format
    i, j, p, a = np.indices((n, n, n, d)).reshape(4, -1)
    rows, columns = (index[(p == i) | (p == j)] for index in (i * n + j, p * d + a))
    np.testing.assert_array_equal(J.indices, columns)
    np.testing.assert_array_equal(np.repeat(np.arange(n * n), np.diff(J.indptr)), rows)


@pytest.mark.parametrize(
    ("n", "d", "expected"),
    [(3, 2, np.int32), (32_768, 1, np.int32), (32_769, 1, np.int64), (1000, 1075, np.int64)],
)
def test_numbers_of_entries_that_fit(n, d, expected):
    """2^31 - 1 = 65536 · 32768 - 1 is the largest number of 32 bits."""
    assert _index_type(n, d) is expected


def test_pieces_do_not_show():
    """More points than fit into one piece of gradients, 187 rows at a time."""
    X = normal(700, 2)
    J = gram_jacobian(RBF(), X, layout="sparse")
    some = np.array([0, 1, 186, 187, 350, 698, 699])
    part = gram_jacobian(RBF(), X[some])
    columns = (2 * some[:, None] + np.arange(2)).ravel()
    taken = J[(700 * some[:, None] + some).ravel()][:, columns].toarray()
    np.testing.assert_array_equal(taken, part.reshape(49, 14))


@pytest.mark.parametrize(
    "X",
    [
        [[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]],
        np.array([[1, 2], [0, 1], [3, 1]]),
        np.asfortranarray([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]),
        np.array([[1.0, 2.0], [9.0, 9.0], [0.0, 1.0], [9.0, 9.0], [3.0, 1.0]])[::2],
    ],
    ids=["list", "integers", "Fortran", "steps"],
)
def test_any_array(X):
    expected = gram_jacobian(RBF(), np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]))
    np.testing.assert_array_equal(gram_jacobian(RBF(), X), expected)


# --------------------------------------------------------------------------------------------- out


@dtypes
@pytest.mark.parametrize("layout", ["tensor", "matrix"])
def test_out(layout, dtype):
    X = normal(6, 3, dtype)
    expected = gram_jacobian(RBF(), X, layout=layout)
    out = np.full_like(expected, np.nan)
    assert gram_jacobian(RBF(), X, layout=layout, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_out_in_a_file(tmp_path):
    X = normal(6, 3)
    out = np.memmap(tmp_path / "J", np.float64, "w+", shape=(36, 18))
    gram_jacobian(RBF(), X, layout="matrix", out=out)
    np.testing.assert_array_equal(out, gram_jacobian(RBF(), X, layout="matrix"))


@pytest.mark.parametrize(
    ("layout", "out", "message"),
    [
        ("tensor", np.ones((36, 18)), r"out has shape \(36, 18\); it must have shape \(6, 6, 6"),
        ("matrix", np.ones((6, 6, 6, 3)), r"it must have shape \(36, 18\)"),
        ("tensor", np.ones((6, 6, 6, 3), np.float32), "out is of type float32"),
        ("tensor", np.ones((3, 6, 6, 6)).T, "not C-contiguous"),
        ("sparse", np.ones((36, 18)), "with layout='sparse' it must be None"),
    ],
)
def test_bad_out(layout, out, message):
    with pytest.raises(ValueError, match=message):
        gram_jacobian(RBF(), normal(6, 3), layout=layout, out=out)
    assert (out == 1).all()


def test_out_on_top_of_the_points():
    memory = np.zeros((2, 2, 2, 1))
    with pytest.raises(ValueError, match="shares memory with X"):
        gram_jacobian(RBF(), memory.reshape(-1)[:2, None], out=memory)


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kernel", "X", "layout", "error", "message"),
    [
        (RBF(), np.ones((3, 2)), "dense", ValueError, "layout is 'dense'; it may be one of"),
        (RBF(), np.ones(3), "tensor", ValueError, "X: Expected 2D array"),
        (RBF(), np.array([[1.0], [np.nan]]), "sparse", ValueError, "X contains NaN"),
        (RBF(), np.array([["a"]]), "tensor", ValueError, "X is of type"),
        (RBF([1.0, 2.0]), np.ones((3, 3)), "tensor", ValueError, "length_scale"),
        (CompoundKernel([RBF()]), np.ones((3, 2)), "sparse", TypeError, "CompoundKernel"),
        (len, np.ones((3, 2)), "tensor", TypeError, "builtin_function_or_method"),
    ],
)
def test_bad_input(kernel, X, layout, error, message):
    with pytest.raises(error, match=message):
        gram_jacobian(kernel, X, layout=layout)


def test_out_survives_bad_input():
    out = np.ones((2, 2, 2, 1))
    with pytest.raises(ValueError, match="X contains NaN"):
        gram_jacobian(RBF(), np.array([[1.0], [np.nan]]), out=out)
    assert (out == 1).all()


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs the size of physical memory")
@pytest.mark.parametrize(
    ("layout", "n", "hint"),
    [
        ("tensor", 20_000, r"layout='sparse' needs \d"),
        ("matrix", 20_000, r"layout='sparse' needs \d"),
        ("sparse", 1_000_000, "tensor_blocks"),
        # 2^64 bytes and more, which a 64-bit number counts as few.
        ("tensor", 2**21, r"layout='sparse' needs \d"),
    ],
)
def test_larger_than_memory(layout, n, hint):
    with pytest.raises(MemoryError, match=rf"needs [\d.e+]+ GiB .*{hint}"):
        gram_jacobian(RBF(), np.ones((n, 2)), layout=layout)


PEAK = """
import sys
import numpy as np
from support.memory import peak_growth
from kerneldiff import gram_jacobian
from sklearn.gaussian_process.kernels import RBF

layout = sys.argv[1]
X = np.random.default_rng(0).normal(size=(1500 if layout == "sparse" else 250, 3))
gram_jacobian(RBF(), X[:200], layout=layout)
grown, J = peak_growth(lambda: gram_jacobian(RBF(), X, layout=layout))
arrays = (J.data, J.indices, J.indptr) if layout == "sparse" else (J,)
print(grown - sum(array.nbytes for array in arrays))
"""


@pytest.mark.exhaustive
@pytest.mark.quick(1)
@linux
@layouts
def test_peak_memory(layout):
    """Above the result, which is 108 MB or more: gradients in pieces, buffers of the core."""
    assert int(run_python(PEAK, layout, threads=2)) <= 24 * 2**20


# Work without an end.
INTERRUPTED = """
import sys
import numpy as np
from support.processes import report_interrupt
from kerneldiff import gram_jacobian, kernels
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern

kernel = RBF(2.0) * DotProduct() + Matern(nu=1.7)
layout = sys.argv[1]
X = np.random.default_rng(0).normal(size=(6000 if layout == "sparse" else 300, 5))
gram_jacobian(kernel, X[:100], layout=layout)

def call():
    while True:
        gram_jacobian(kernel, X, layout=layout)

report_interrupt(call)
"""


@pytest.mark.exhaustive
@linux
@layouts
def test_ctrl_c(layout):
    assert_interruptible(INTERRUPTED, layout, isa="baseline")
