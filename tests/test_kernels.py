"""Every kernel of the registry, compiled, against all that knows its derivatives.

Errors are compared with the bounds of `support.bounds`, entry by entry: see there for the analysis.
"""

import itertools
import json
import os
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import (
    RBF,
    CompoundKernel,
    ConstantKernel,
    DotProduct,
    Exponentiation,
    ExpSineSquared,
    Kernel,
    Matern,
    NormalizedKernelMixin,
    PairwiseKernel,
    Product,
    RationalQuadratic,
    StationaryKernelMixin,
    Sum,
    WhiteKernel,
)
from support.bounds import assert_within, bounds
from support.oracles import (
    REGISTRY,
    ard,
    exact,
    jax_hessians,
    joint_block,
    kernel_trees,
    mixed,
    mp_jet,
    pairs,
)
from support.processes import run_python
from support.tensors import DTYPES, OPERATIONS, SECOND, points

import kerneldiff
from kerneldiff import Columns, _reference
from kerneldiff import kernels as compiled

jax.config.update("jax_enable_x64", True)

names = pytest.mark.parametrize("name", REGISTRY)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def derivative(kernel, X, Y, sides):
    """The exact tensor for the inputs as stored, and the bounds of its errors."""
    wide = X.astype(np.longdouble), None if Y is None else Y.astype(np.longdouble)
    with np.errstate(all="ignore"):
        tensor = _reference.derivative(kernel, *wide, sides)
        return tensor, bounds(kernel, X, Y, sides, str(X.dtype))


def laid_out(operation, tensor):
    """A tensor of partial derivatives as an operation returns it."""
    if operation.function == "hessian_diag":
        return np.einsum("ijaa->ija", tensor)
    if operation.options.get("layout") == "packed":
        return tensor[(..., *np.triu_indices(tensor.shape[-1]))]
    return tensor


def assert_right(kernel, X, Y, name):
    """Compare an operation on any points with the reference."""
    operation = OPERATIONS[name]
    expected = derivative(kernel, X, Y, operation.options.get("wrt", ""))
    actual = operation(kernel, X, Y)
    assert actual.dtype == X.dtype
    assert_within(actual, *(laid_out(operation, tensor) for tensor in expected))


def has_dot(kernel):
    term = compiled.read(kernel, 3)
    return not compiled.is_stationary(term)


# --------------------------------------------------------------------------------------------------
# The measure itself
# --------------------------------------------------------------------------------------------------


# Kernels without second derivatives.
FLAT = ("zero*rbf", "constant", "white", "rbf*white", "rbf**0")


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in FLAT])
def test_bounds_are_small(name):
    """They would let pass what they should not, if they were not a few hundred roundings."""
    X, Y = pairs("near", 3)
    tensor, bound = derivative(REGISTRY[name](3), X, Y, "xy")
    near = [0, 1], [0, 1]
    largest = np.abs(tensor[near]).max(axis=(1, 2))
    assert (bound[near].max(axis=(1, 2)) <= 1e-12 * largest).all()


@pytest.mark.parametrize("entry", [2, -2, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("name", ["matern-5/2-ard", "rbf-ard*dot", "nested"])
def test_bounds_see_one_wrong_entry(name, entry):
    """An error of twice the bound, at the worst entry of the smallest pair."""
    kernel = REGISTRY[name](3)
    X, Y = points(4, 5, 3)
    tensor, bound = derivative(kernel, X, Y, "xy")
    actual = kerneldiff.hessian(kernel, X, Y, wrt="xy")
    assert_within(actual, tensor, bound)
    index = np.unravel_index(np.abs(tensor).argmin(), tensor.shape)
    actual[index] = tensor[index] + entry * bound[index]
    with pytest.raises(AssertionError, match="entr"):
        assert_within(actual, tensor, bound)


# --------------------------------------------------------------------------------------------------
# All tensors of all kernels
# --------------------------------------------------------------------------------------------------


@cache
def oracle(name, D, dtype, offset, sides):
    case = REGISTRY[name]
    return derivative(case(D), *mixed(D, dtype, case.far, offset), sides)


def assert_registered_right(name, operation, dtype, D, offset=0.0):
    case, operation = REGISTRY[name], OPERATIONS[operation]
    X, Y = mixed(D, dtype, case.far, offset)
    expected = oracle(name, D, dtype, offset, operation.options.get("wrt", ""))
    actual = operation(case(D), X, Y)
    assert actual.dtype == dtype
    assert_within(actual, *(laid_out(operation, tensor) for tensor in expected))


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [
        *[(name, "float64") for name in ("kernel_matrix", "gradient-x", "gradient-y")],
        *[(f"hessian-{wrt}", "float64") for wrt in SECOND],
        *[("kernel_matrix", "float32"), ("hessian-xx", "float32")],
    ],
)
@names
def test_tensors(name, operation, dtype):
    assert_registered_right(name, operation, dtype, 3)


@names
def test_diagonals(name):
    for wrt in SECOND:
        assert_registered_right(name, f"hessian_diag-{wrt}", "float64", 3)


@names
def test_packed_layout(name):
    """For xx and yy of all kernels, for xy and yx of those whose blocks are symmetric."""
    for wrt in SECOND if not has_dot(REGISTRY[name](3)) else ("xx", "yy"):
        assert_registered_right(name, f"packed-{wrt}", "float64", 3)


@pytest.mark.parametrize(("dtype", "offset"), [("float64", 2.0**20), ("float32", 2.0**10)])
@names
def test_far_from_the_origin(name, dtype, offset):
    """An offset that costs 20 (10) of the 53 (24) bits of every coordinate before we see it."""
    assert_registered_right(name, "hessian-xy", dtype, 2, offset)


# One, two and three invariants, with a scale of their own for each column and without.
FEW = ("matern-5/2", "rbf-ard*dot", "nested")


@pytest.mark.parametrize("D", [1, 2, 4, 5, 6, 8, 10, 17, 64, 65])
@pytest.mark.parametrize(
    ("name", "dtype"), [*[(name, "float64") for name in FEW], ("rbf-ard*dot", "float32")]
)
@pytest.mark.parametrize("operation", ["gradient-y", "hessian_diag-xy", "hessian-xx"])
def test_dimensions(operation, name, dtype, D):
    X, Y = points(3, 11, D, dtype)
    Y[0] = X[0]
    scale = X.dtype.type(D**-0.5)
    assert_right(REGISTRY[name](D), scale * X, scale * Y, operation)


@pytest.mark.parametrize("name", ["rbf-ard*rbf-ard", "matern-3/2-ard"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_more_dimensions_than_code_is_made_for(operation, name):
    """In strips of many pairs, of which some operations take several at once."""
    X, Y = points(5, 37, 70)
    Y[0] = X[0]
    assert_right(REGISTRY[name](70), X / 8, Y / 8, operation)


@pytest.mark.parametrize(
    "size",
    [
        *[(0, 3, 2), (3, 0, 2), (2, 3, 0), (1, 1, 1), (1, 131, 2), (131, 1, 3)],
        # edges of groups of 4 rows, of panels of 16 or 32 points, of tiles of 48 rows and of strips
        # of 128 or 256 columns, or a fraction of that for programs with many buffers
        *[(6, 15, 2), (7, 33, 3), (47, 65, 2), (48, 128, 1), (49, 127, 2), (51, 257, 2)],
        *[(9, 301, 10), (7, 141, 24)],
    ],
    ids=lambda size: "x".join(map(str, size)),
)
@pytest.mark.parametrize(("name", "dtype"), [("nested", "float64"), ("rbf-ard*dot", "float32")])
@pytest.mark.parametrize("operation", ["gradient-x", "packed-xx"])
def test_sizes(operation, name, dtype, size):
    X, Y = points(*size, dtype)
    Y[: min(*size[:2], 1)] = X[: min(*size[:2], 1)]
    # A matrix of no columns has no anisotropic kernel.
    kernel = REGISTRY[name](size[2]) if size[2] else Matern(nu=1.5) * DotProduct()
    assert OPERATIONS[operation](kernel, X, Y).shape == OPERATIONS[operation].shape(*size)
    assert_right(kernel, X, Y, operation)


@pytest.mark.parametrize("name", ["rbf-ard*dot", "matern-3/2-ard", "(rbf-ard+dot)**2"])
@pytest.mark.parametrize("operation", ["hessian_diag-xx", "gradient-y"])
def test_vector_larger_than_caches(operation, name):
    """Longer than the buffers between the processor and memory."""
    X, Y = points(1, 2, 1111)
    Y[1] = X[0]
    assert_right(REGISTRY[name](1111), X / 33, Y / 33, operation)


@pytest.mark.parametrize("operation", ["hessian-xx", "hessian-yx", "packed-yy"])
@pytest.mark.parametrize("name", ["rbf-ard*dot", "matern-1/2-ard"])
def test_block_larger_than_caches(name, operation):
    X, Y = points(1, 2, 211)
    Y[1] = X[0]
    assert_right(REGISTRY[name](211), X / 14, Y / 14, operation)


# --------------------------------------------------------------------------------------------------
# Programs with many buffers
# --------------------------------------------------------------------------------------------------


def total(kernels):
    """A sum, as deep as it is long."""
    first, *rest = kernels
    for kernel in rest:
        first = first + kernel
    return first


def product(kernels):
    first, *rest = kernels
    for kernel in rest:
        first = first * kernel
    return first


def wide(D, n):
    """Kernels with different scales for each column."""
    return [RBF(ard(D, 0.8 + 0.05 * k, 2.0 - 0.03 * k)) for k in range(n)]


LARGE = {
    "sum of 40 scales": lambda D: total(k**-0.5 * Matern(0.1 * k, nu=2.5) for k in range(1, 41)),
    "product of 12 scales": lambda D: product(RationalQuadratic(k, 1.0) for k in range(1, 13)),
    "sum of 33 invariants": lambda D: total(wide(D, 33)),
    "product of 5 invariants": lambda D: product(wide(D, 5)),
    "power of a sum of 6 invariants": lambda D: total(wide(D, 6)) ** 2.5,
    "sum of products": lambda D: total(k * (0.1 + DotProduct(0.1)) for k in wide(D, 4)),
    "powers of powers": lambda D: ((RBF(ard(D)) + DotProduct(1.0)) ** 2 + Matern(nu=1.5)) ** 3,
    "product of sums": lambda D: product(a + b for a, b in itertools.pairwise(wide(D, 4))),
}


@dtypes
@pytest.mark.parametrize("operation", ["hessian-xy", "gradient-x"])
@pytest.mark.parametrize("name", LARGE)
def test_large_programs(name, operation, dtype):
    X, Y = points(6, 37, 2, dtype)
    Y[5] = X[5]
    assert_right(LARGE[name](2), X, Y, operation)


def test_as_many_invariants_as_there_can_be():
    X, Y = points(3, 4, 2)
    assert_right(total(wide(2, 64)), X, Y, "hessian-xy")


def test_too_many_invariants():
    with pytest.raises(ValueError, match=r"65 different invariants.*at most 64"):
        kerneldiff.kernel_matrix(total(wide(2, 65)), np.zeros((1, 2)))


# --------------------------------------------------------------------------------------------------
# Other oracles than the reference
# --------------------------------------------------------------------------------------------------


def at_pairs(kernel, X, Y, sides):
    """A compiled tensor at pairs (x_i, y_i)."""
    function = ("kernel_matrix", "gradient", "hessian")[len(sides)]
    options = {"wrt": sides} if sides else {}
    tensor = getattr(kerneldiff, function)(kernel, X, Y, **options)
    return np.moveaxis(np.diagonal(tensor), -1, 0)


@pytest.mark.quick(24)
@pytest.mark.parametrize("place", ["near", "coincident"])
@names
def test_mpmath(name, place):
    """In 50 digits. Points 1e-6 apart cost no digits: the largest error is below 1e-12."""
    case = REGISTRY[name]
    X, Y = pairs(place, 2, case.far)
    for sides in ("", "x", "y", *SECOND):
        actual = at_pairs(case(2), X, Y, sides)
        if place == "coincident" and len(sides) >= case.smoothness:
            assert np.isnan(actual).all()
            continue
        desired = joint_block(mp_jet(name, place, 2, len(sides)), sides)
        error = np.abs(exact(actual) - desired).astype(float)
        bound = bounds(case(2), X, Y, sides)
        assert (error <= np.moveaxis(np.diagonal(bound), -1, 0)).all()
        if place == "near":
            largest = np.abs(desired).astype(float).reshape(len(X), -1).max(axis=1)
            assert (error.reshape(len(X), -1).max(axis=1) <= 1e-12 * largest).all()


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", [name for name, case in REGISTRY.items() if not case.bessel])
def test_jax(name):
    """Automatic differentiation of the kernel in squared distances."""
    X, Y, joint = jax_hessians(name, 2)
    actual = {sides: at_pairs(REGISTRY[name](2), X, Y, sides) for sides in SECOND}
    for sides, tensor in actual.items():
        desired = joint_block(joint, sides)
        scale = np.abs(desired).max(axis=(1, 2), keepdims=True) + 1e-200
        # Automatic differentiation rounds more often, and loses digits where s is small.
        np.testing.assert_allclose(tensor / scale, desired / scale, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------------
# Values, as scikit-learn computes them
# --------------------------------------------------------------------------------------------------

# Wherever noise may stand.
NOISY = {
    "sum": RBF() + WhiteKernel(0.3),
    "sum of noises": WhiteKernel(0.2) + RBF() + WhiteKernel(0.3),
    "product": RBF() * WhiteKernel(0.3),
    "product of sums": (RBF() + WhiteKernel(0.3)) * (DotProduct() + WhiteKernel(0.7)),
    "noises alone": 2.0 * WhiteKernel(0.3) * WhiteKernel(0.5),
    "power": (RBF() + WhiteKernel(0.3)) ** 2,
    "power of noise": WhiteKernel(0.3) ** 1.5,
    "root": (RBF() + WhiteKernel(0.3)) ** 0.5,
    "nested": ((Matern(nu=1.5) + WhiteKernel(0.3)) ** 2 * DotProduct() + WhiteKernel(0.1)) ** 2,
    "constant": ConstantKernel(2.0) + 3.0 * WhiteKernel(0.3),
    "columns": Columns(RBF() + WhiteKernel(0.3), [1]) + RBF(),
}
noisy = pytest.mark.parametrize("kernel", NOISY.values(), ids=NOISY)


@names
def test_values_are_those_of_scikit_learn(name):
    kernel = REGISTRY[name](3)
    X, Y = points(17, 5, 3)
    # scikit-learn computes (1 + s/(2 alpha))^-alpha without log1p: alpha = 1e5 costs five digits;
    # and its general Matern kernel adds the unit roundoff to zero distances. exp(-t) is off by t
    # times the few u that t is; results of t > 708 are subnormal.
    rtol = {"rational-light": 1e-10, "rbf-narrow": 1e-12}.get(name, 1e-13)
    for arguments in ((X, Y), (X,)):
        desired = kernel(*arguments)
        atol = rtol * np.abs(desired).max() + np.finfo(float).smallest_normal
        actual = kerneldiff.kernel_matrix(kernel, *arguments)
        np.testing.assert_allclose(actual, desired, rtol, atol)


@dtypes
@noisy
def test_noise_is_where_scikit_learn_adds_it(kernel, dtype):
    """On the diagonal, and not at other points that coincide."""
    X = points(23, 0, 3, dtype)[0]
    X[7] = X[3]
    for arguments in ((X,), (X, X)):
        actual = kerneldiff.kernel_matrix(kernel, *arguments)
        # scikit-learn's values have errors of their own, those of float64.
        bound = sum(bounds(kernel, *arguments, dtype=d) for d in (dtype, "float64"))
        assert_within(actual, kernel(*(a.astype(float) for a in arguments)), bound)


@noisy
def test_noise_is_in_blocks(kernel):
    X = points(23, 0, 3)[0]
    blocks = kerneldiff.tensor_blocks(kerneldiff.kernel_matrix, kernel, X, working_memory=0.001)
    parts, arrays = zip(*blocks, strict=True)
    assert len(parts) > 3
    np.testing.assert_array_equal(np.concatenate(arrays), kerneldiff.kernel_matrix(kernel, X))


@pytest.mark.parametrize("name", ["gradient-y", "hessian-xx"])
@noisy
def test_noise_is_in_no_derivative(kernel, name):
    """As a function of x with y fixed, the noise of a pair is 0 in the neighbourhood."""
    X = points(11, 0, 3)[0]
    operation = OPERATIONS[name]
    expected = derivative(kernel, X, X, operation.options["wrt"])
    actual = operation(kernel, X)
    np.testing.assert_array_equal(actual, operation(kernel, X, X.copy()))
    assert_within(actual, *(laid_out(operation, tensor) for tensor in expected))


# --------------------------------------------------------------------------------------------------
# Where derivatives exist
# --------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(
    ("nu", "name", "missing"),
    [
        (0.3, "kernel_matrix", False),
        (0.3, "gradient-x", True),
        (0.5, "kernel_matrix", False),
        (0.5, "gradient-y", True),
        (0.5, "hessian-xy", True),
        (0.51, "gradient-y", False),
        (0.51, "hessian-xy", True),
        (1.0, "gradient-x", False),
        (1.0, "hessian_diag-xx", True),
        (1.0, "packed-yy", True),
        (1.01, "hessian-xy", False),
        (1.5, "hessian-xy", False),
        (1.5, "hessian_diag-yy", False),
        (2.5, "packed-xx", False),
        (np.inf, "hessian-yx", False),
    ],
)
def test_derivatives_exist_by_smoothness(nu, name, missing, dtype):
    """Of the least smooth part, also where another factor or its exponent hides it."""
    X = np.array([[0.3, -1.0]], dtype)
    rough = Matern(1.5, nu=nu)
    for kernel in (rough, RBF() * Matern([1.0, 2.0], nu=nu) + DotProduct(), (rough + RBF()) ** 2):
        values = OPERATIONS[name](kernel, X)
        assert (np.isnan(values) if missing else np.isfinite(values)).all()


def test_derivatives_along_other_columns_exist():
    """Points that coincide in the columns of a rough kernel only."""
    kernel = Columns(Matern(1.0, nu=0.5), [0]) * RBF(1.0)
    X, Y = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.5, 2.0]])
    missing = np.isnan(kerneldiff.hessian(kernel, X, Y)[0, 0])
    assert missing.tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert np.isnan(kerneldiff.gradient(kernel, X, Y)[0, 0]).tolist() == [True, False, False]
    assert_right(kernel, X, Y, "hessian-xy")


def test_matern_mixed_derivative_at_coincident_points():
    """+5/3 for nu = 5/2, where autodiff of the usual form gives NaN, -10/3 or 0."""
    value = kerneldiff.hessian(Matern(1.0, nu=2.5), np.array([[0.3]]), wrt="xy")
    np.testing.assert_allclose(value, [[[[5 / 3]]]], rtol=4e-16)


@pytest.mark.parametrize("exponent", [2, 3, 5])
def test_whole_power_at_a_root(exponent):
    """No division by the base: p^n at p = 0."""
    X, Y = np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])
    kernel = DotProduct(0.0) ** exponent
    assert kerneldiff.kernel_matrix(kernel, X, Y) == 0
    np.testing.assert_array_equal(kerneldiff.gradient(kernel, X, Y), [[[0, 0]]])
    second = [[8.0, 0.0], [0.0, 0.0]] if exponent == 2 else np.zeros((2, 2))
    np.testing.assert_array_equal(kerneldiff.hessian(kernel, X, Y), [[second]])


@pytest.mark.parametrize("exponent", [0.5, 1.5, -1.0])
def test_power_at_a_root_that_has_no_derivative(exponent):
    """(x . y)^(1/2) and the like where x . y = 0."""
    X, Y = np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])
    assert np.isnan(kerneldiff.hessian(DotProduct(0.0) ** exponent, X, Y)[0, 0, 0, 0])


@pytest.mark.parametrize("power", [0.5, 1.7, 2.5], ids=str)
@pytest.mark.parametrize(
    "base",
    [
        RBF(1.0),
        Matern([0.3, 0.6], nu=2.5),
        2.0 * RBF(1.0) * Matern(1.0, nu=1.5),
        RBF(1.0) + 0.5 * RBF(0.7),
        RBF([0.8, 1.3]) * RBF([1.3, 0.8]) ** 2,
    ],
    ids=str,
)
@dtypes
@pytest.mark.parametrize("operation", ["gradient-x", "hessian-xy"])
def test_power_of_what_is_almost_zero(operation, dtype, base, power):
    """Neither NaN nor a loss of digits, from where the base is 1 to where it underflows.

    A power of the base alone would overflow, and a product of its derivatives underflow.
    """
    X = np.array([[0.1, 0.2]], dtype)
    Y = X + np.linspace(0, 60, 121, dtype=dtype)[:, None] * np.array([[0.6, 0.8]], dtype)
    operation = OPERATIONS[operation]
    actual = operation(base**power, X, Y)
    expected, bound = derivative(base**power, X, Y, operation.options.get("wrt", ""))
    assert_within(actual, expected, bound)
    # Where the base is no more than a rounding error: a small number.
    assert (np.abs(actual)[np.isinf(bound)] < 1e-10).all()


# --------------------------------------------------------------------------------------------------
# Hyperparameters at the bounds that scikit-learn has for them
# --------------------------------------------------------------------------------------------------

# The kernel, and the distance over which it changes.
EXTREME = {
    **{
        f"matern-{nu}-{scale}": (Matern(scale, nu=nu), scale)
        for nu in (0.5, 1.5, 2.5, 0.7, 3.3)
        for scale in (1e-5, 1e5)
    },
    **{
        f"rational-{scale}-{alpha}": (RationalQuadratic(scale, alpha), scale)
        for scale in (1e-5, 1e5)
        for alpha in (1e-5, 1e5)
    },
    **{
        f"periodic-{scale}-{period}": (ExpSineSquared(scale, period), period * min(scale, 1.0))
        for scale in (1e-5, 1.0, 1e5)
        for period in (1e-5, 1e5)
    },
    **{f"dot-{sigma}": (DotProduct(sigma), 1.0) for sigma in (1e-5, 1e5)},
    **{
        f"{metric}-{gamma}": (PairwiseKernel(gamma=gamma, metric=metric), min(1 / gamma, 1.0))
        for metric in ("rbf", "poly", "sigmoid")
        for gamma in (1e-5, 1e5)
    },
}


@dtypes
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_hyperparameters(name, dtype):
    kernel, unit = EXTREME[name]
    X, Y = points(5, 7, 3)
    Y[0] = X[0]
    Y[1] = X[1] + 1e-3 * (Y[1] - X[1])
    assert_right(kernel, (unit * X).astype(dtype), (unit * Y).astype(dtype), "hessian-xy")


# --------------------------------------------------------------------------------------------------
# Random kernels
# --------------------------------------------------------------------------------------------------


@st.composite
def problems(draw):
    D = draw(st.integers(1, 6))
    kernel = draw(kernel_trees(D, smooth=draw(st.booleans())))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.tuples(st.integers(1, 9), st.integers(1, 40)))
    dtype = draw(st.sampled_from(DTYPES))
    X, Y = (draw(st.floats(0.1, 2.0)) * rng.normal(size=(k, D)).astype(dtype) for k in (n, m))
    same = rng.random(min(n, m)) < 0.2
    Y[: len(same)][same] = X[: len(same)][same]
    return kernel, X, Y


@pytest.mark.exhaustive
@given(
    problems(),
    st.sampled_from(["kernel_matrix", "gradient-x", "gradient-y"])
    | st.sampled_from([f"{kind}-{wrt}" for kind in ("hessian", "hessian_diag") for wrt in SECOND]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_kernels(problem, name):
    assert_right(*problem, name)


@given(problems())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_kernels_with_their_arguments_exchanged(problem):
    kernel, X, Y = problem
    H = kerneldiff.hessian(kernel, X, Y, wrt="xx")
    swapped = kerneldiff.hessian(kernel, Y, X, wrt="yy").swapaxes(0, 1)
    assert_within(H, swapped, 2 * bounds(kernel, X, Y, "xx", str(X.dtype)))


# --------------------------------------------------------------------------------------------------
# Instruction sets and threads
# --------------------------------------------------------------------------------------------------

COMPOSITES = ("nested", "(rbf-ard+dot)**2", "rational*periodic", "matern-1.7")
ARRAYS = {
    f"{name} {operation} {dtype}": (name, operation, dtype)
    for name in COMPOSITES
    for operation in ("gradient-y", "hessian-xy")
    for dtype in DTYPES
}

COMPUTE = """
import json, sys
import numpy as np
from support.oracles import REGISTRY, mixed
from support.tensors import OPERATIONS
arrays = {}
for key, (name, operation, dtype) in json.loads(sys.argv[2]).items():
    case = REGISTRY[name]
    arrays[key] = OPERATIONS[operation](case(3), *mixed(3, dtype, case.far))
np.savez(sys.argv[1], **arrays)
"""


@pytest.fixture(scope="module")
def arrays(isa, tmp_path_factory):
    """All of ARRAYS as one instruction set computes them."""
    path = tmp_path_factory.mktemp(isa) / "arrays.npz"
    run_python(COMPUTE, path, json.dumps(ARRAYS), isa=isa)
    return np.load(path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", ARRAYS)
def test_instruction_sets(arrays, key):
    """All are within the same bounds, so no more than twice of them apart."""
    name, operation, dtype = ARRAYS[key]
    assert_within(
        arrays[key], *oracle(name, 3, dtype, 0.0, OPERATIONS[operation].options.get("wrt", ""))
    )


# Vectors may be longer than what is left of an array.
BESIDE = """
import sys
import numpy as np
from support.memory import assert_stays_inside
from support.tensors import OPERATIONS, points
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern
dtype = sys.argv[1]
KINDS = ("kernel_matrix", "gradient-y", "hessian_diag-xy", "hessian-xx", "packed-yy")
for d in (1, 2, 3, 4, 5, 7, 8, 10, 17, 33):
    scales = np.linspace(0.5, 1.5, d) * d**0.5
    for kernel in (
        Matern(scales, nu=0.5),
        RBF(scales) * DotProduct(),
        (RBF(scales) + DotProduct(0.5)) * Matern(nu=2.5),
    ):
        for n, m in [(1, 1), (5, 7), (4, 18)]:
            for name in KINDS:
                print(kernel, name, n, m, flush=True)
                function = lambda *a, **k: OPERATIONS[name](kernel, *a, **k)
                assert_stays_inside(function, *points(n, m, d, dtype))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "fork"), reason="protects pages of memory as POSIX systems do")
@dtypes
def test_touches_nothing_beside_the_arrays(isa, dtype):
    """Neither reads nor writes; the system ends the process that does."""
    run_python(BESIDE, dtype, isa=isa)


DIGESTS = """
import hashlib
import numpy as np
from support.oracles import REGISTRY
from support.tensors import OPERATIONS, points
for name in ("nested", "(rbf-ard+dot)**2", "matern-1.7"):
    X, Y = points(150, 307, 3)
    for operation in ("kernel_matrix", "gradient-y", "hessian-xy"):
        print(hashlib.sha256(OPERATIONS[operation](REGISTRY[name](3), X, Y)).hexdigest())
"""


@pytest.mark.exhaustive
def test_same_bits_for_any_number_of_threads():
    said = {threads: run_python(DIGESTS, threads=threads) for threads in (1, 2, 3)}
    assert said[1] == said[2] == said[3]
    assert len(said[1].split()) == 9


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


class Mine(RBF):
    """A subclass that computes something else."""

    def __call__(self, X, Y=None, eval_gradient=False):
        return 2 * super().__call__(X, Y)


class Own(NormalizedKernelMixin, StationaryKernelMixin, Kernel):
    """A class of its own that says nothing of invariants and jets."""

    def __init__(self):
        pass

    def __call__(self, X, Y=None):
        return np.zeros((len(X), len(X if Y is None else Y)))


UNREADABLE = {
    "compound": (CompoundKernel([RBF()]), "CompoundKernel"),
    "laplacian": (PairwiseKernel(metric="laplacian"), "laplacian"),
    "chi2": (PairwiseKernel(metric="chi2"), "chi2"),
    "callable metric": (PairwiseKernel(metric=np.dot), "PairwiseKernel"),
    "options": (
        PairwiseKernel(metric="rbf", pairwise_kernels_kwargs={"coef0": 1}),
        "coef0",
    ),
    "subclass": (Mine(), f"{__name__}.Mine has a method `__call__` other than that of RBF"),
    "own": (Own(), f"{__name__}.Own"),
    "class": (RBF, "RBF"),
    "function": (np.dot, "dot"),
    "name": ("rbf", "'rbf'"),
    "none": (None, "None"),
}
# Where an unreadable part may stand.
WHERE = {
    "in a sum": lambda part: Sum(RBF(), part),
    "in a product": lambda part: Product(Sum(part, RBF()), RBF()),
    "in a power": lambda part: Exponentiation(part, 2),
    "in columns": lambda part: Columns(part, [0]),
}


def assert_unreadable(kernel, named):
    advice = "invariant|Columns.Matern|Another kernel"
    with pytest.raises(TypeError, match=f"(?s)cannot be read.*(RBF|'rbf').*({advice})") as raised:
        kerneldiff.hessian(kernel, np.zeros((2, 2)))
    assert named in str(raised.value)


@pytest.mark.parametrize(("part", "named"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_kernel(part, named):
    """TypeError that names the part, and what can be used instead."""
    assert_unreadable(part, named)


@pytest.mark.parametrize("part", ["laplacian", "compound", "own", "function"])
@pytest.mark.parametrize("where", WHERE)
def test_unreadable_part(where, part):
    part, named = UNREADABLE[part]
    assert_unreadable(WHERE[where](part), named)


BAD = {
    "matern length scale": (Matern(0.0), "length_scale"),
    "matern negative": (Matern(-1.0), "length_scale"),
    "matern nan": (Matern(np.nan), "length_scale"),
    "matern infinite": (Matern(np.inf), "length_scale"),
    "matern shape": (Matern([1.0, 2.0, 3.0]), r"length_scale.*\(3,\).*2 columns"),
    "matern string": (Matern("a"), "length_scale"),
    "nu zero": (Matern(nu=0.0), "nu"),
    "nu negative": (Matern(nu=-0.5), "nu"),
    "nu nan": (Matern(nu=np.nan), "nu"),
    "nu string": (Matern(nu="a"), "nu"),
    "alpha zero": (RationalQuadratic(alpha=0.0), "alpha"),
    "alpha nan": (RationalQuadratic(alpha=np.nan), "alpha"),
    "rational length scale": (RationalQuadratic(length_scale=-2.0), "length_scale"),
    "periodicity zero": (ExpSineSquared(periodicity=0.0), "periodicity"),
    "periodicity infinite": (ExpSineSquared(periodicity=np.inf), "periodicity"),
    "periodic length scale": (ExpSineSquared(length_scale=0.0), "length_scale"),
    "sigma nan": (DotProduct(np.nan), "sigma_0"),
    "sigma string": (DotProduct("a"), "sigma_0"),
    "gamma nan": (PairwiseKernel(gamma=np.nan, metric="rbf"), "gamma"),
    "constant nan": (ConstantKernel(np.nan), "constant_value"),
    "noise infinite": (WhiteKernel(np.inf), "noise_level"),
    "exponent nan": (RBF() ** np.nan, "exponent"),
    "exponent string": (RBF() ** "a", "exponent"),
}


@pytest.mark.parametrize(("kernel", "message"), BAD.values(), ids=BAD)
def test_bad_hyperparameter(kernel, message):
    """ValueError that names it and says what it may be, and an output that is as it was."""
    out = np.full((2, 2, 2), 7.0)
    for whole in (kernel, RBF() * (kernel + RBF())):
        with pytest.raises(ValueError, match=rf"(?s)(?=.*{message})(?=.*(must|may))"):
            kerneldiff.gradient(whole, np.ones((2, 2)), out=out)
    np.testing.assert_array_equal(out, 7)


@pytest.mark.parametrize("kernel", [RBF(), RBF() * DotProduct()], ids=str)
def test_order_beyond_five(kernel):
    term = compiled.read(kernel, 2)
    with pytest.raises(ValueError, match=r"order 6.*up to 5"):
        compiled.compile_term(term, 2, 6)
    with pytest.raises(ValueError, match=r"order 6.*up to 5"):
        compiled.compile_term(term, 2, 2, "laplacian", "laplacian")


@pytest.mark.parametrize("wrt", ["xy", "yx"])
@pytest.mark.parametrize("name", ["dot", "rbf-ard*dot", "pairwise-sigmoid", "nested"])
def test_packed_layout_of_blocks_that_are_not_symmetric(name, wrt):
    out = np.full((2, 2, 3), 7.0)
    with pytest.raises(ValueError, match=r"layout='packed'.*symmetric.*'full'"):
        kerneldiff.hessian(REGISTRY[name](2), np.ones((2, 2)), wrt=wrt, layout="packed", out=out)
    np.testing.assert_array_equal(out, 7)


@pytest.mark.parametrize(
    "kernel", [Matern(1e-22, nu=1.5), RBF([1e22, 1.0]), ExpSineSquared(1.0, 1e-22)], ids=str
)
def test_scale_out_of_the_range_of_float32(kernel):
    X = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"float32 cannot hold.*float64"):
        kerneldiff.gradient(kernel, X)
    kerneldiff.gradient(kernel, X.astype(np.float64))
