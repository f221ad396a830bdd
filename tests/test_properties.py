"""Properties of any points, kernels and sizes: hypothesis looks for those that break them."""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from support.tanh import assert_basis_right, assert_jacobian_right
from support.tensors import DTYPES, OPERATIONS, TOLERANCES, assert_right

import kerneldiff

# Deterministic, so that a failure is the same everywhere; no deadline, as no test is about time.
settings.register_profile(
    "kerneldiff",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kerneldiff")

sizes = st.integers(0, 20)
columns = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
# Spread of the points in length scales.
spreads = st.floats(-6, 1).map(lambda exponent: 10.0**exponent)


@st.composite
def kernels(draw, d, *, ard=None):
    """RBF kernels with any magnitude of length scales, that scikit-learn allows for."""
    ard = draw(st.booleans()) if ard is None else ard
    scale = 10.0 ** draw(st.floats(-4, 4))
    ratios = [10.0 ** draw(st.floats(-0.5, 0.5)) for _ in range(d)] if ard else 1.0
    kernel = RBF(scale * np.array(ratios) if ard else scale)
    constant = draw(st.none() | st.floats(1e-5, 1e5))
    return kernel if constant is None else ConstantKernel(constant) * kernel


def length_scale(kernel):
    return np.asarray(getattr(kernel, "k2", kernel).length_scale)


@st.composite
def problems(draw, *, dtype=None, n=sizes, m=sizes, offsets=True):
    """Kernel, X and Y: anywhere, at any distance, some of the points coincident."""
    n, m, d = draw(n), draw(m), draw(columns)
    kernel = draw(kernels(d))
    dtype = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    rng = np.random.default_rng(draw(seeds))
    unit = length_scale(kernel) * draw(spreads) / d**0.5
    # Up to where the spacing of numbers is still below the distances of points.
    largest = 15 if dtype == "float64" else 6
    offset = unit * 2.0 ** draw(st.integers(0, largest)) if offsets and draw(st.booleans()) else 0.0
    X = (offset + unit * rng.normal(size=(n, d))).astype(dtype)
    Y = (offset + unit * rng.normal(size=(m, d))).astype(dtype)
    same = rng.random(min(n, m)) < 0.2
    Y[: len(same)][same] = X[: len(same)][same]
    return kernel, X, Y


@given(problems(), st.sampled_from(list(OPERATIONS)))
@settings(max_examples=300)
def test_right(problem, name):
    kernel, X, Y = problem
    assert_right(OPERATIONS[name](kernel, X, Y), OPERATIONS[name], kernel, X, Y)


@given(problems())
def test_exchange_of_the_arguments(problem):
    kernel, X, Y = problem
    for name, other in [("gradient", "x y"), ("hessian", "xx yy"), ("hessian", "xy yx")]:
        function = getattr(kerneldiff, name)
        first, second = other.split()
        np.testing.assert_array_equal(
            function(kernel, X, Y, wrt=first), function(kernel, Y, X, wrt=second).swapaxes(0, 1)
        )


@given(problems(), st.integers(-8, 8))
def test_translation_that_is_exact(problem, steps):
    """Points on a grid of powers of two move without rounding: no bit of a tensor may change."""
    kernel, X, Y = problem
    grid = 2.0 ** np.ceil(np.log2(np.max(length_scale(kernel)) / 64))
    X, Y = (
        np.clip(np.round(a / grid), -512, 512).astype(a.dtype) * a.dtype.type(grid) for a in (X, Y)
    )
    shift = X.dtype.type(steps * 4096 * grid)
    for operation in OPERATIONS.values():
        np.testing.assert_array_equal(
            operation(kernel, X + shift, Y + shift), operation(kernel, X, Y)
        )


# Where the inverse square of the length scale passes what is a factor of squared distances.
POINTS = np.linspace(-2, 2, 12, dtype=np.float32).reshape(6, 2)


@given(problems(), st.integers(-6, 6))
@example((RBF(1e-4), POINTS * np.float32(1e-4), POINTS[::-1] * np.float32(1.1e-4)), -6)
@example((RBF(1e4), POINTS * np.float32(1e4), POINTS[::-1] * np.float32(1.1e4)), 6)
def test_scaling_by_a_power_of_two(problem, power):
    """Points and length scales together: each derivative is divided by the factor, exactly."""
    kernel, X, Y = problem
    factor = X.dtype.type(2.0) ** power
    scaled = RBF(length_scale(kernel) * float(factor))
    plain = RBF(length_scale(kernel))
    # Of smaller values the derivatives may be products that underflow on the way.
    _, floor = TOLERANCES[str(X.dtype)]
    normal = kerneldiff.kernel_matrix(plain, X, Y) > floor
    for order, name in enumerate(["kernel_matrix", "gradient-x", "hessian-xy"]):
        operation = OPERATIONS[name]
        np.testing.assert_array_equal(
            operation(scaled, X * factor, Y * factor)[normal] * factor**order,
            operation(plain, X, Y)[normal],
        )


@given(problems(), seeds)
def test_permutations_of_points(problem, seed):
    """A pair's entries do not hang on where it stands: in which tile, in which vector."""
    kernel, X, Y = problem
    rng = np.random.default_rng(seed)
    rows, cols = rng.permutation(len(X)), rng.permutation(len(Y))
    for operation in OPERATIONS.values():
        np.testing.assert_array_equal(
            operation(kernel, X[rows], Y[cols]), operation(kernel, X, Y)[rows][:, cols]
        )


@given(problems(dtype="float64", n=st.integers(1, 20)))
def test_kernel_matrix_is_positive_semidefinite(problem):
    kernel, X, _ = problem
    K = kerneldiff.kernel_matrix(kernel, X)
    np.testing.assert_array_equal(K, K.T)
    # Errors of 1e-13 of entries of at most K[0, 0] move eigenvalues by N times that.
    assert np.linalg.eigvalsh(K)[0] >= -len(X) * 1e-13 * K[0, 0]


@given(problems(dtype="float64", n=st.integers(1, 6), offsets=False))
def test_covariance_of_values_and_gradients_is_positive_semidefinite(problem):
    """K, its gradients and the mixed Hessian make one covariance: signs and axes have to fit."""
    kernel, X, _ = problem
    n, d = X.shape
    scales = np.broadcast_to(length_scale(kernel), d)
    G = kerneldiff.gradient(kernel, X, wrt="y") * scales
    H = kerneldiff.hessian(kernel, X, wrt="xy") * np.outer(scales, scales)
    K = kerneldiff.kernel_matrix(kernel, X)
    upper = G.reshape(n, n * d)
    C = np.block([[K, upper], [upper.T, H.transpose(0, 2, 1, 3).reshape(n * d, n * d)]])
    # In units of the length scales no entry is larger than twice K[0, 0].
    np.testing.assert_allclose(C, C.T, rtol=0, atol=1e-13 * K[0, 0])
    assert np.linalg.eigvalsh(C)[0] >= -len(C) * 2e-13 * K[0, 0]


def difference(function, points, a, step):
    """Central difference of sixth order in column a of the points."""
    total = 0
    for k, weight in [(1, 3 / 4), (2, -3 / 20), (3, 1 / 60)]:
        for sign in (-1, 1):
            moved = points.copy()
            moved[:, a] += sign * k * step
            total = total + sign * weight * function(moved)
    return total / step


@given(problems(dtype="float64", offsets=False), st.data())
def test_derivatives_are_those_of_the_tensor_before(problem, data):
    """Gradient by differences of the kernel matrix, Hessian by differences of the gradient."""
    kernel, X, Y = problem
    d = X.shape[1]
    a = data.draw(st.integers(0, d - 1))
    scales = np.broadcast_to(length_scale(kernel), d)
    step = 2.0 ** np.floor(np.log2(scales[a] / 32))
    G = kerneldiff.gradient(kernel, X, Y)
    H = kerneldiff.hessian(kernel, X, Y)
    M = kerneldiff.hessian(kernel, X, Y, wrt="xy")
    top = getattr(kernel, "k1", ConstantKernel(1.0)).constant_value
    # In units of the length scale: h^6/140 of the seventh derivative, which is below 110 times the
    # largest value, for h = 1/32, and rounding, 1e-15/h of values and 32 times as much of points
    # that lie up to 60 length scales away from zero.
    unit = 1e-9 * top / scales[a]
    dK = difference(lambda X: kerneldiff.kernel_matrix(kernel, X, Y), X, a, step)
    np.testing.assert_allclose(G[..., a], dK, rtol=0, atol=unit)
    dG = difference(lambda X: kerneldiff.gradient(kernel, X, Y), X, a, step)
    np.testing.assert_array_less(np.abs(H[..., a, :] - dG) * scales, 10 * unit)
    dG = difference(lambda Y: kerneldiff.gradient(kernel, X, Y), Y, a, step)
    np.testing.assert_array_less(np.abs(M[..., :, a] - dG) * scales, 10 * unit)


@given(problems(), st.floats(1e-7, 1e-2))
def test_blocks_make_the_whole(problem, working_memory):
    kernel, X, Y = problem
    whole = kerneldiff.hessian(kernel, X, Y)
    blocks = kerneldiff.tensor_blocks(
        kerneldiff.hessian, kernel, X, Y, working_memory=working_memory
    )
    rows = 0
    for part, block in blocks:
        np.testing.assert_array_equal(block, whole[part])
        rows += len(block)
    assert rows == len(X)


@given(
    st.tuples(sizes, sizes, sizes),
    st.sampled_from(DTYPES),
    st.floats(-3, 3),
    st.floats(-2, 2),
    seeds,
)
def test_tanh(size, dtype, points_exponent, weights_exponent, seed):
    n, d, k = size
    rng = np.random.default_rng(seed)
    X = (10.0**points_exponent * rng.normal(size=(n, d))).astype(dtype)
    W = (10.0**weights_exponent * rng.normal(size=(d + 1, k))).astype(dtype)
    assert_basis_right(kerneldiff.tanh_basis(X, W), X, W)
    assert_jacobian_right(kerneldiff.tanh_jacobian(X, W), X, W)
