"""The tensors of RBF kernels against the reference, mpmath and JAX."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.metrics.pairwise import rbf_kernel
from support.cases import KINDS
from support.oracles import check_each
from support.tensors import (
    DTYPES,
    KERNELS,
    OPERATIONS,
    SECOND,
    TOLERANCES,
    anisotropic,
    assert_right,
    exact,
    isotropic,
    pair_scales,
    points,
)

import kerneldiff

jax.config.update("jax_enable_x64", True)

operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)

# One of each kind and sign; all others are compared with them bit by bit further down.
kinds = pytest.mark.parametrize("operation", [OPERATIONS[name] for name in KINDS], ids=KINDS)

# N, M, D
SIZES = [
    # nothing and one
    *[(0, 3, 2), (3, 0, 2), (3, 5, 0), (1, 1, 1), (1, 13, 2), (13, 1, 3)],
    # all numbers of dimensions that may have code of their own, and more than any vector holds
    *[(5, 7, 1), (7, 5, 2), (11, 13, 3), (13, 11, 4), (5, 19, 5), (17, 3, 6), (3, 17, 7)],
    *[(7, 11, 8), (11, 7, 9), (5, 13, 10), (13, 5, 11), (3, 7, 12), (7, 3, 16), (3, 11, 17)],
    *[(5, 3, 33), (3, 2, 70), (2, 3, 300)],
    # edges of groups of 4 rows, of panels of 8 to 32 points, of tiles of 48 rows and 128 or 256
    # columns
    *[(4, 8, 2), (6, 15, 2), (7, 33, 3), (48, 128, 2), (49, 127, 3), (97, 257, 1), (3, 255, 3)],
]


def label(size):
    return "x".join(map(str, size))


@pytest.mark.parametrize("entry", [2e-13, -2e-13, np.nan, np.inf], ids=str)
def test_the_measure_sees_one_wrong_entry(entry):
    """An error of twice the bound, in the smallest pair above the floor."""
    operation, kernel = OPERATIONS["hessian-xy"], isotropic(3)
    X, Y = points(5, 7, 3)
    H = operation(kernel, X, Y)
    assert_right(H, operation, kernel, X, Y)
    largest = np.abs(H).max(axis=(2, 3))
    i, j = np.unravel_index(largest.argmin(), largest.shape)
    H[i, j, 2, 0] += entry * largest[i, j]
    with pytest.raises(AssertionError, match="error of pair"):
        assert_right(H, operation, kernel, X, Y)


@pytest.mark.parametrize("kernel", [isotropic, anisotropic])
@dtypes
@kinds
def test_sizes(operation, dtype, kernel):
    def check(size):
        X, Y = points(*size, dtype)
        actual = operation(kernel(size[2]), X, Y)
        assert actual.shape == operation.shape(*size)
        assert_right(actual, operation, kernel(size[2]), X, Y)

    check_each(SIZES, check)


@pytest.mark.parametrize("kernel", [isotropic, anisotropic])
@dtypes
@pytest.mark.parametrize("name", ["kernel_matrix", "gradient-x", "gradient-y", "hessian_diag-xx"])
@pytest.mark.parametrize("size", [(5, 7, 2100), (1, 2, 20011)], ids=label)
def test_many_dimensions(size, name, dtype, kernel):
    operation, kernel = OPERATIONS[name], kernel(size[2])
    X, Y = points(*size, dtype)
    assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.quick(2)
@pytest.mark.parametrize("kernel", [isotropic, anisotropic])
@dtypes
@pytest.mark.parametrize("name", ["hessian-xx", "packed-xx"])
def test_block_larger_than_caches(name, dtype, kernel):
    operation, kernel = OPERATIONS[name], kernel(1031)
    X, Y = points(1, 2, 1031, dtype)
    assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@dtypes
@operations
def test_kernels(operation, dtype, kernel):
    kernel = kernel(5)
    X, Y = points(17, 23, 5, dtype)
    assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.parametrize("length_scale", [1e-5, 1e5])
@dtypes
@kinds
def test_length_scale_at_its_bounds(operation, dtype, length_scale):
    kernel = RBF(length_scale)
    X, Y = points(7, 11, 3, dtype)
    # At length scale 1e-5 only close pairs are not zero.
    Y[:7] = X + length_scale * Y[:7]
    assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.parametrize(
    ("dtype", "length_scale"),
    [("float32", 1e-12), ("float32", 1e12), ("float64", 1e-100), ("float64", 1e100)],
)
@pytest.mark.parametrize("kernel", [isotropic, anisotropic])
@kinds
def test_units_of_any_magnitude(operation, kernel, dtype, length_scale):
    """1/l⁴ would overflow or underflow, but no derivative does."""
    kernel = RBF(length_scale * np.asarray(kernel(3).length_scale))
    X, Y = (length_scale * array for array in points(7, 11, 3))
    X, Y = X.astype(dtype), Y.astype(dtype)
    assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.parametrize("size", [(61, 3), (131, 1), (3, 17)], ids=label)
@dtypes
@kinds
def test_one_argument(operation, dtype, size):
    X = points(size[0], 0, size[1], dtype)[0]
    kernel = anisotropic(size[1])
    actual = operation(kernel, X)
    assert_right(actual, operation, kernel, X)
    np.testing.assert_array_equal(actual, operation(kernel, X, X.copy()))


# --------------------------------------------------------------------------------------------------
# Where points lie
# --------------------------------------------------------------------------------------------------


def spread(X, Y):
    """Pairs from 0 to far beyond where k underflows, in all directions."""
    Y[:] *= np.linspace(0, 14, len(Y), dtype=Y.dtype)[:, None]


def shifted(X, Y):
    """An offset that costs 20 (10) of the 53 (24) bits of every coordinate before we see it."""
    X += 2.0 ** (20 if X.dtype == np.float64 else 10)
    Y += 2.0 ** (20 if X.dtype == np.float64 else 10)


def coincident(X, Y):
    Y[: len(X)] = X


def near(X, Y):
    """Pairs 1e-6 length scales apart."""
    Y[: len(X)] = X + 1e-6 * Y[: len(X)]


def near_and_shifted(X, Y):
    """The same at an offset: a handful of spacings apart in float64."""
    shifted(X, Y)
    Y[: len(X)] = np.nextafter(X, X.dtype.type(np.inf))


def one_apart(X, Y):
    """Pairs one length scale apart, where diagonal entries of the Hessian vanish."""
    Y[: len(X)] = X + X.dtype.type(isotropic(X.shape[1]).length_scale)


PLACES = [spread, shifted, coincident, near, near_and_shifted, one_apart]


@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("place", PLACES)
@dtypes
@kinds
def test_places(operation, dtype, place, d):
    X, Y = points(9, 37, d, dtype)
    place(X, Y)
    for kernel in (isotropic(d), ConstantKernel(2.0) * anisotropic(d)):
        assert_right(operation(kernel, X, Y), operation, kernel, X, Y)


@pytest.mark.parametrize("distance", [1e2, 1e10, 1e30, "square overflows", "difference overflows"])
@dtypes
@kinds
def test_far_apart_is_zero(operation, dtype, distance):
    """k underflows, however far away: zeros, never NaN."""
    largest = np.finfo(dtype).max
    distance = {"square overflows": 4 * largest**0.5, "difference overflows": largest}.get(
        distance, distance
    )
    X = np.array([[0, 0, 0], [distance, -distance, 1]], dtype)
    Y = np.array([[-distance, distance, 0], [0.5, 0, 1]], dtype)
    actual = operation(RBF(), X, Y)
    np.testing.assert_array_equal(actual[[0, 1], [0, 0]], np.zeros_like(actual[:, 0]))
    np.testing.assert_array_equal(actual[1, 1], np.zeros_like(actual[1, 1]))
    assert_right(actual[:1, 1:], operation, RBF(), X[:1], Y[1:])


@dtypes
@kinds
def test_far_apart_with_length_scales(operation, dtype):
    """The same where only one column is far, and the length scales differ."""
    largest = float(np.finfo(dtype).max)
    X, Y = points(5, 7, 5, dtype)
    X[:, 2] = 0
    Y[:, 2] = largest**0.6
    actual = operation(anisotropic(5), X, Y)
    np.testing.assert_array_equal(actual, np.zeros_like(actual))


@dtypes
def test_underflow_is_gradual(dtype):
    """Values below the normal range are there; s/2 is where exp(-s/2) is subnormal."""
    info = np.finfo(dtype)
    half = -np.log(float(info.smallest_subnormal)) - np.arange(0, 12, 0.5)
    X = np.zeros((1, 1), dtype)
    Y = np.sqrt(2 * half).astype(dtype)[:, None]
    actual = kerneldiff.kernel_matrix(RBF(), X, Y)
    expected = exact(OPERATIONS["kernel_matrix"], RBF(), X, Y)
    # Of subnormal numbers only the absolute error counts: the spacing, and (s/2) 4 u of k.
    relative = 4 * half.max() * info.eps
    bound = 2 * float(info.smallest_subnormal) + relative * expected
    assert (actual > 0).all()
    assert (np.abs(actual - expected) <= bound).all()


# --------------------------------------------------------------------------------------------------
# How arrays lie in memory
# --------------------------------------------------------------------------------------------------


def strided(array):
    wide = np.full((2 * array.shape[0], 3 * array.shape[1]), np.nan, array.dtype)
    wide[::2, ::3] = array
    return wide[::2, ::3]


def reversed_(array):
    return array[::-1, ::-1].copy()[::-1, ::-1]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def misplaced(array):
    """Contiguous, but not where vectors like to begin, and with NaN around it."""
    padded = np.full(array.size + 7, np.nan, array.dtype)
    padded[3:-4] = array.ravel()
    return padded[3:-4].reshape(array.shape)


def unaligned(array):
    """One byte off the alignment of its type."""
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[:] = array
    return view


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


LAYOUTS = [np.asfortranarray, strided, reversed_, read_only, misplaced, unaligned, swapped]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@dtypes
@kinds
def test_layouts(operation, dtype, layout):
    X, Y = points(19, 29, 5, dtype)
    kernel = anisotropic(5)
    expected = operation(kernel, X, Y)
    actual = operation(kernel, layout(X), layout(Y))
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, expected)


def fresh(shape, dtype, tmp_path):
    return np.empty(shape, dtype)


def reused(shape, dtype, tmp_path):
    return np.full(shape, np.nan, dtype)


def mapped(shape, dtype, tmp_path):
    return np.memmap(tmp_path / "out", dtype, "w+", shape=shape)


def odd(shape, dtype, tmp_path):
    """Not where vectors like to begin."""
    return np.full(np.prod(shape) + 1, np.nan, dtype)[1:].reshape(shape)


@pytest.mark.parametrize("make", [fresh, reused, mapped, odd])
@dtypes
@kinds
def test_out(operation, dtype, make, tmp_path):
    X, Y = points(51, 37, 5, dtype)
    kernel = isotropic(5)
    expected = operation(kernel, X, Y)
    out = make(expected.shape, dtype, tmp_path)
    assert operation(kernel, X, Y, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 7, 10, 17])
@dtypes
@kinds
def test_writes_nothing_beside_out(operation, dtype, d):
    """Rows of blocks are stored in whole vectors: none may reach beyond the array."""
    X, Y = points(13, 11, d, dtype)
    shape = operation.shape(13, 11, d)
    size = int(np.prod(shape))
    guard = 64
    memory = np.full(size + 2 * guard, 7, dtype)
    operation(isotropic(d), X, Y, out=memory[guard:-guard].reshape(shape))
    np.testing.assert_array_equal(memory[:guard], 7)
    np.testing.assert_array_equal(memory[-guard:], 7)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["kernel_matrix", "gradient-x", "hessian-xx", "packed-xy"])
@dtypes
def test_large_reused_output(name, dtype):
    """An output beyond the last-level cache may be stored in another way."""
    operation = OPERATIONS[name]
    n, m, d = {"kernel_matrix": (2003, 2011, 3), "gradient-x": (1009, 997, 5)}.get(
        name, (701, 691, 3)
    )
    X, Y = points(n, m, d, dtype)
    kernel = isotropic(d)
    expected = operation(kernel, X, Y)
    # Twice the points in either direction, so that the output is 100 MB and more.
    out = np.full(operation.shape(2 * n, 2 * m, d), np.nan, dtype)
    operation(kernel, np.tile(X, (2, 1)), np.tile(Y, (2, 1)), out=out)
    for rows, cols in np.ndindex(2, 2):
        np.testing.assert_array_equal(
            out[rows * n : (rows + 1) * n, cols * m : (cols + 1) * m], expected
        )


# --------------------------------------------------------------------------------------------------
# What tensors have to do with each other
# --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[isotropic, anisotropic])
def kernel5(request):
    return request.param(5)


@dtypes
def test_kernel_matrix_is_symmetric(dtype, kernel5):
    X = points(67, 0, 5, dtype)[0]
    K = kerneldiff.kernel_matrix(kernel5, X)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(np.diag(K), 1)


@pytest.mark.parametrize("d", [1, 3, 5, 8, 17])
@pytest.mark.parametrize(
    ("name", "other", "sign"),
    [
        ("gradient-y", "gradient-x", -1),
        *[
            (f"{kind}-{wrt}", f"{kind}-xx", sign)
            for kind in ("hessian_diag", "hessian", "packed")
            for wrt, sign in [("xy", -1), ("yx", -1), ("yy", 1)]
        ],
    ],
)
@dtypes
def test_arguments_differ_in_sign(dtype, name, other, sign, d):
    X, Y = points(13, 37, d, dtype)
    kernel = anisotropic(d)
    np.testing.assert_array_equal(
        OPERATIONS[name](kernel, X, Y), sign * OPERATIONS[other](kernel, X, Y)
    )


@pytest.mark.parametrize("wrt", SECOND)
@dtypes
def test_swapping_the_arguments(dtype, wrt, kernel5):
    X, Y = points(23, 31, 5, dtype)
    other = wrt.translate(str.maketrans("xy", "yx"))
    np.testing.assert_array_equal(
        kerneldiff.hessian(kernel5, X, Y, wrt=wrt),
        kerneldiff.hessian(kernel5, Y, X, wrt=other).swapaxes(0, 1),
    )


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 11, 33])
@pytest.mark.parametrize("wrt", SECOND)
@dtypes
def test_hessian_blocks_are_symmetric(dtype, wrt, d):
    X, Y = points(7, 11, d, dtype)
    H = kerneldiff.hessian(anisotropic(d), X, Y, wrt=wrt)
    # An entry off the diagonal is the product of F'' and two slopes, each with a rounding, and its
    # mirror image the same product in another order: three roundings on either side.
    np.testing.assert_allclose(H, H.swapaxes(2, 3), rtol=3 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 11, 33])
@pytest.mark.parametrize("wrt", SECOND)
@dtypes
def test_layouts_of_the_hessian_agree(dtype, wrt, d):
    X, Y = points(7, 11, d, dtype)
    kernel = anisotropic(d)
    full = kerneldiff.hessian(kernel, X, Y, wrt=wrt)
    packed = kerneldiff.hessian(kernel, X, Y, wrt=wrt, layout="packed")
    diagonal = kerneldiff.hessian_diag(kernel, X, Y, wrt=wrt)
    # The same formulas, with their few roundings perhaps in another order.
    scales = pair_scales(OPERATIONS["hessian_diag-xx"], kernel, X, Y, full)[..., None]
    bound = 3 * np.finfo(dtype).eps * scales
    assert (np.abs(packed - full[(..., *np.triu_indices(d))]) <= bound).all()
    assert (np.abs(diagonal - np.einsum("ijaa->ija", full)) <= bound).all()


@pytest.mark.parametrize("working_memory", [None, 64, 0.05, 1e-6])
@operations
def test_tensor_blocks(operation, working_memory):
    X, Y = points(53, 29, 4)
    kernel = anisotropic(4)
    function = getattr(kerneldiff, operation.function)
    blocks = list(
        kerneldiff.tensor_blocks(
            function, kernel, X, Y, working_memory=working_memory, **operation.options
        )
    )
    whole = operation(kernel, X, Y)
    seen = 0
    for rows, block in blocks:
        assert rows.start == seen
        assert block.shape == (rows.stop - rows.start, *whole.shape[1:])
        # One row at least, however little memory there is.
        assert block.nbytes <= max(block[:1].nbytes, (working_memory or 1024) * 2**20)
        np.testing.assert_array_equal(block, whole[rows])
        seen = rows.stop
    assert seen == 53


@operations
def test_tensor_blocks_of_one_argument(operation):
    X = points(53, 0, 4)[0]
    kernel = anisotropic(4)
    function = getattr(kerneldiff, operation.function)
    blocks = kerneldiff.tensor_blocks(function, kernel, X, working_memory=0.02, **operation.options)
    joined = np.concatenate([block for _, block in blocks])
    np.testing.assert_array_equal(joined, operation(kernel, X))


# --------------------------------------------------------------------------------------------------
# The functions with gamma
# --------------------------------------------------------------------------------------------------

RBF_FUNCTIONS = {
    "rbf_kernel": ("kernel_matrix", {}),
    **{f"rbf_gradient-{wrt}": ("gradient", {"wrt": wrt}) for wrt in ("x", "y")},
    **{f"rbf_hessian_diag-{wrt}": ("hessian_diag", {"wrt": wrt}) for wrt in SECOND},
    **{f"rbf_hessian-{wrt}": ("hessian", {"wrt": wrt}) for wrt in SECOND},
}


@pytest.mark.parametrize("gamma", [None, np.float32(0.3)], ids=str)
@dtypes
@pytest.mark.parametrize("name", RBF_FUNCTIONS)
def test_rbf_functions(name, dtype, gamma):
    X, Y = points(17, 11, 5, dtype)
    function, options = RBF_FUNCTIONS[name]
    value = 1 / 5 if gamma is None else float(gamma)
    key = "-".join([function, *options.values()])
    actual = getattr(kerneldiff, name.split("-")[0])(X, Y, gamma, **options)
    # gamma = 1/(2 l^2); the length scale is rounded, by less than an eps of float64.
    assert_right(actual, OPERATIONS[key], RBF((2 * value) ** -0.5), X, Y)


@pytest.mark.parametrize("gamma", [None, 0.3, 1], ids=str)
@pytest.mark.parametrize("one", [False, True], ids=["X,Y", "X"])
def test_rbf_kernel_is_that_of_scikit_learn(gamma, one):
    X, Y = points(17, 11, 5)
    Y = None if one else Y
    # scikit-learn's form |x|^2 + |y|^2 - 2xy cancels: some ten eps of |x|^2 + |y|^2 < 40.
    np.testing.assert_allclose(
        kerneldiff.rbf_kernel(X, Y, gamma=gamma), rbf_kernel(X, Y, gamma=gamma), rtol=1e-13, atol=0
    )


def test_rbf_kernel_takes_arguments_in_the_order_of_scikit_learn():
    X, Y = points(5, 3, 2)
    np.testing.assert_allclose(
        kerneldiff.rbf_kernel(X, Y, 0.7), rbf_kernel(X, Y, 0.7), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("name", RBF_FUNCTIONS)
def test_rbf_functions_of_one_argument(name):
    X = points(17, 0, 5)[0]
    function, options = RBF_FUNCTIONS[name]
    function = getattr(kerneldiff, name.split("-")[0])
    out = np.empty_like(function(X, X.copy(), gamma=0.3, **options))
    assert function(X, gamma=0.3, out=out, **options) is out
    np.testing.assert_array_equal(out, function(X, X.copy(), gamma=0.3, **options))


# --------------------------------------------------------------------------------------------------
# Other oracles
# --------------------------------------------------------------------------------------------------


def derivative(operation, variance, scales, x, y):
    """All entries of one pair, in 50 digits, by differences of the kernel itself."""

    def k(*coordinates):
        d = len(coordinates) // 2
        return variance * mpmath.exp(
            -sum(((coordinates[a] - coordinates[d + a]) / scales[a]) ** 2 for a in range(d)) / 2
        )

    d = len(x)
    point = [mpmath.mpf(float(c)) for c in (*x, *y)]
    scales = [mpmath.mpf(float(c)) for c in scales]
    place = {"x": 0, "y": d}
    wrt = operation.options.get("wrt", "")
    if operation.function == "hessian_diag":
        indices = [(a, a) for a in range(d)]
    elif operation.options.get("layout") == "packed":
        indices = [(a, b) for a in range(d) for b in range(a, d)]
    else:
        indices = list(np.ndindex(*(d,) * len(wrt)))
    entries = []
    for index in indices:
        orders = [0] * (2 * d)
        for side, a in zip(wrt, index, strict=True):
            orders[place[side] + a] += 1
        entries.append(mpmath.diff(k, point, tuple(orders)))
    return entries


@pytest.mark.parametrize("kernel", ["isotropic", "ard"])
@dtypes
@operations
def test_mpmath(operation, dtype, kernel):
    d = 3
    scales = np.full(d, 0.8) if kernel == "isotropic" else np.array([0.5, 0.9, 1.7])
    X, Y = points(2, 2, d, dtype)
    Y[1] = X[1]
    tol, _ = TOLERANCES[dtype]
    actual = operation(
        ConstantKernel(1.5) * RBF(0.8 if kernel == "isotropic" else scales), X, Y
    ).reshape(2, 2, -1)
    with mpmath.workdps(50):
        for i, j in np.ndindex(2, 2):
            entries = derivative(operation, 1.5, scales, X[i], Y[j])
            # A gradient at coincident points is zero: then the scale is 1, the kernel's.
            scale = max(*map(abs, entries), 1e-14) if len(entries) > 1 else abs(entries[0])
            errors = [
                abs(mpmath.mpf(float(a)) - e) for a, e in zip(actual[i, j], entries, strict=True)
            ]
            assert max(errors) <= tol * scale


def test_kronecker_term():
    """Coincident points: ∂²k/∂x_a∂x_b is -1/l² on the diagonal, not 0 as without this term."""
    X = np.array([[0.3, -1.2, 2.0]])
    H = kerneldiff.hessian(RBF(2.0), X)
    np.testing.assert_array_equal(H[0, 0], -0.25 * np.eye(3))
    np.testing.assert_array_equal(kerneldiff.hessian(RBF(2.0), X, wrt="xy")[0, 0], 0.25 * np.eye(3))


def test_kronecker_term_away_from_zero():
    """One pair by hand: l = 1, x - y = (1, 2), k = exp(-5/2), d d^T - 1 = [[0, 2], [2, 3]]."""
    H = kerneldiff.hessian(RBF(), np.array([[1.0, 2.0]]), np.array([[0.0, 0.0]]))
    expected = np.exp(-2.5) * np.array([[0.0, 2.0], [2.0, 3.0]])
    np.testing.assert_allclose(H[0, 0], expected, rtol=4e-16, atol=0)


@pytest.fixture(scope="module", params=["isotropic", "ard"])
def autodiff(request):
    """A kernel, points, and all of its tensors by automatic differentiation.

    Written in the squared distance, without a square root, which has no derivative at zero.
    """
    scales = np.array([0.8] * 4) if request.param == "isotropic" else np.array([0.5, 0.9, 1.7, 1.1])
    kernel = ConstantKernel(1.5) * RBF(0.8 if request.param == "isotropic" else scales)
    X, Y = points(5, 7, 4)
    Y[:2] = X[:2]

    def k(x, y):
        return 1.5 * jnp.exp(-0.5 * jnp.sum(((x - y) / scales) ** 2))

    def tensors(x, y):
        g, h = (jax.jacfwd(k, (0, 1))(x, y), jax.jacfwd(jax.jacrev(k, (0, 1)), (0, 1))(x, y))
        return {"": k(x, y), **dict(zip("xy", g, strict=True))} | {
            a + b: h[i][j] for i, a in enumerate("xy") for j, b in enumerate("xy")
        }

    pairs = jax.jit(jax.vmap(jax.vmap(tensors, (None, 0)), (0, None)))
    found = {name: np.asarray(array) for name, array in pairs(X, Y).items()}
    assert found["xx"].dtype == np.float64
    return kernel, X, Y, found


@pytest.mark.quick(1)
@operations
def test_jax(operation, autodiff):
    kernel, X, Y, tensors = autodiff
    expected = tensors[operation.options.get("wrt", "")]
    if operation.function == "hessian_diag":
        expected = np.einsum("ijaa->ija", expected)
    if operation.options.get("layout") == "packed":
        expected = expected[(..., *np.triu_indices(4))]
    actual = operation(kernel, X, Y)
    assert actual.shape == expected.shape
    # Autodiff has roundings of its own, no more than ours: ten eps of the largest entry.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-15 * np.abs(expected).max())
