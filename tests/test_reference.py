"""The oracle is checked first: the plain NumPy reference against everything it could be."""

from functools import cache

import jax
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial.distance import cdist
from sklearn.gaussian_process.kernels import (
    RBF,
    CompoundKernel,
    ConstantKernel,
    DotProduct,
    Kernel,
    Matern,
    NormalizedKernelMixin,
    PairwiseKernel,
    RationalQuadratic,
    StationaryKernelMixin,
    WhiteKernel,
)
from support.oracles import (
    PLACES,
    RADIALS,
    REGISTRY,
    check_each,
    exact,
    jax_hessians,
    joint_block,
    kernel_trees,
    mp_covariance,
    mp_jet,
    mp_partial,
    pairs,
)

from kerneldiff import (
    Columns,
    Directional,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
)
from kerneldiff import _reference as reference

jax.config.update("jax_enable_x64", True)

D = 2
SIDES = ("", "x", "y", "xx", "xy", "yx", "yy")
"""The tensors: values, gradients, Hessians."""

kernels = pytest.mark.parametrize("name", REGISTRY)
tensors = pytest.mark.parametrize("sides", SIDES, ids=lambda sides: sides or "value")


def at_pairs(tensor):
    """The entries of the pairs (x_i, y_i)."""
    return np.moveaxis(np.diagonal(tensor), -1, 0)


def assert_close(actual, desired, rtol, atol=0.0):
    """The error is at most rtol times the largest entry of the pair, first axis; exact numbers."""
    error = np.abs(exact(actual) - desired).astype(float)
    largest = np.abs(desired).astype(float)
    largest = largest.reshape(len(largest), -1).max(axis=1)
    bound = (rtol * largest + atol).reshape(-1, *(1,) * (error.ndim - 1))
    worst = np.unravel_index(np.argmax(error / bound), error.shape)
    assert np.all(error <= bound), f"{worst}: {actual[worst]} is not {desired[worst]}"


# --- values, as scikit-learn computes them -----------------------------------------------------


@pytest.mark.parametrize("same", [False, True], ids=["X,Y", "X"])
@kernels
def test_values_are_those_of_scikit_learn(name, same, rng):
    kernel = REGISTRY[name](3)
    X, Y = rng.normal(size=(7, 3)), None if same else rng.normal(size=(5, 3))
    # scikit-learn computes (1 + s/(2 alpha))^-alpha without log1p: alpha = 1e5 costs five digits;
    # and its general Matern kernel adds the unit roundoff to zero distances.
    rtol = 1e-10 if name == "rational-light" else 1e-13
    desired = kernel(X, Y)
    atol = rtol * np.abs(desired).max()
    np.testing.assert_allclose(reference.kernel_matrix(kernel, X, Y), desired, rtol, atol)


# --- derivatives in 50 digits ------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@kernels
def test_tensors_are_those_of_50_digits(name, place):
    case = REGISTRY[name]
    X, Y = pairs(place, D, case.far)

    def check(sides):
        actual = at_pairs(reference.derivative(case(D), X, Y, sides))
        if place == "coincident" and len(sides) >= case.smoothness:
            assert np.isnan(actual).all()
            return
        desired = joint_block(mp_jet(name, place, D, len(sides)), sides)
        # exp(-t) has t times the relative error of t, and results below 1e-300 are subnormal or
        # zero: t up to 700 and a few roundings in t give 700 x 4 x 1e-16.
        assert_close(actual, desired, rtol=5e-13, atol=1e-290)

    check_each(SIDES, check)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is double here")
@pytest.mark.parametrize("place", ["generic", "near-offset"])
@pytest.mark.parametrize("name", [name for name, case in REGISTRY.items() if not case.bessel])
def test_extended_precision(name, place):
    case = REGISTRY[name]
    X, Y = (points.astype(np.longdouble) for points in pairs(place, D))

    def check(sides):
        actual = reference.derivative(case(D), X, Y, sides)
        assert actual.dtype == np.longdouble
        # 2000 times better than the test above.
        desired = joint_block(mp_jet(name, place, D, len(sides)), sides)
        assert_close(at_pairs(actual), desired, rtol=5e-13 / 2**11, atol=1e-290)

    check_each(SIDES, check)


@pytest.mark.parametrize("sides", ["xxy", "xyy", "xxyy", "yxyx", "xxyyx"])
@pytest.mark.parametrize("place", ["generic", "near", "coincident"])
@pytest.mark.parametrize(
    ("name", "D"),
    [
        *((name, 2) for name in ("rbf-ard", "rational", "periodic", "rbf-ard*dot", "nested")),
        *((name, 2) for name in ("matern-3/2", "matern-5/2-ard", "dot**3", "pairwise-sigmoid")),
        # mpmath's Bessel functions are too slow for the many entries of two columns.
        *((name, 1) for name in ("matern-1.7", "matern-2", "matern-7/2", "matern-4.3-ard")),
    ],
)
def test_higher_derivatives_are_those_of_50_digits(name, D, place, sides):
    case = REGISTRY[name]
    X, Y = (points[:1] for points in pairs(place, D))
    actual = reference.derivative(case(D), X, Y, sides)[0, 0]
    if place == "coincident" and len(sides) >= case.smoothness:
        assert np.isnan(actual).all()
        return
    desired = np.empty(actual.shape, dtype=object)
    partial = cache(lambda *orders: mp_partial(case(D), X[0], Y[0], orders))
    for index in np.ndindex(*desired.shape):
        orders = np.zeros(2 * D, int)
        for side, axis in zip(sides, index, strict=True):
            orders[axis + D * (side == "y")] += 1
        desired[index] = partial(*orders.tolist())
    # Close to the singularity of a Matern kernel the terms of the chain rule cancel in part. Odd
    # derivatives vanish at coincident points.
    assert_close(actual[None], desired[None], rtol=1e-12, atol=1e-13)


# --- derivatives of automatic differentiation --------------------------------------------------


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", [name for name, case in REGISTRY.items() if not case.bessel])
def test_hessians_are_those_of_jax(name):
    X, Y, joint = jax_hessians(name, D)
    for sides in ("xx", "xy", "yx", "yy"):
        actual = at_pairs(reference.derivative(REGISTRY[name](D), X, Y, sides))
        desired = joint_block(joint, sides)
        scale = np.abs(desired).max(axis=(1, 2), keepdims=True) + 1e-200
        # Automatic differentiation rounds more often, and loses digits where s is small.
        np.testing.assert_allclose(actual / scale, desired / scale, rtol=0, atol=1e-10)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(kernel=kernel_trees(D))
def test_random_kernels_are_those_of_50_digits(kernel):
    X, Y = (points[:1] for points in pairs("partly", D))
    for sides, orders in (("", (0, 0, 0, 0)), ("y", (0, 0, 0, 1)), ("xy", (0, 1, 0, 1))):
        actual = reference.derivative(kernel, X, Y, sides)
        entry = actual[(0, 0) + (1,) * len(sides)]
        error = abs(exact(np.array(entry))[()] - mp_partial(kernel, X[0], Y[0], orders))
        assert error <= 1e-12 * np.abs(actual).max() + 1e-290


# --- coincident points -------------------------------------------------------------------------


@pytest.mark.parametrize("length_scale", [0.4, [0.5, 1.0, 3.0]], ids=["isotropic", "ard"])
def test_second_derivative_has_its_kronecker_term(length_scale, rng):
    """At x = y the diagonal is -k/l^2; derivations found in notebooks lose it and have 0."""
    X = rng.normal(size=(1, 3))
    kernel = 2.0 * RBF(length_scale)
    expected = -2.0 * np.eye(3) / np.broadcast_to(length_scale, 3) ** 2
    np.testing.assert_allclose(reference.hessian(kernel, X, X)[0, 0], expected, rtol=1e-15)
    np.testing.assert_allclose(
        reference.hessian(kernel, X, X, wrt="xy")[0, 0], -expected, rtol=1e-15
    )


def test_matern_mixed_derivative_at_coincident_points():
    """+5/3 for nu = 5/2, where autodiff of the usual form gives NaN, -10/3 or 0."""
    X = np.array([[0.3]])
    value = reference.hessian(Matern(1.0, nu=2.5), X, X, wrt="xy")
    np.testing.assert_allclose(value, [[[[5 / 3]]]], rtol=1e-15)


@pytest.mark.parametrize(
    ("nu", "sides", "missing"),
    [
        (0.5, "", False),
        (0.5, "x", True),
        (0.8, "x", False),
        (0.8, "xy", True),
        (1.0, "x", False),
        (1.0, "xx", True),
        (1.5, "xy", False),
        (1.5, "xxy", True),
        (2.5, "xxyy", False),
        (2.5, "xxyyx", True),
        (np.inf, "xxyyx", False),
    ],
)
def test_derivatives_exist_by_smoothness(nu, sides, missing):
    X = np.array([[0.3, -1.0]])
    for kernel in (Matern(1.0, nu=nu), RBF(1.0) * Matern([1.0, 2.0], nu=nu) + DotProduct()):
        values = reference.derivative(kernel, X, X, sides)
        assert (np.isnan(values) if missing else np.isfinite(values)).all()


def test_derivatives_along_other_columns_exist():
    kernel = Columns(Matern(1.0, nu=0.5), [0]) * RBF(1.0)
    X, Y = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.5, 2.0]])
    missing = np.isnan(reference.hessian(kernel, X, Y)[0, 0])
    assert missing.tolist() == [[True, True, True], [True, False, False], [True, False, False]]


# --- parts of kernels --------------------------------------------------------------------------


def test_columns_are_a_kernel_on_a_part_of_the_points(rng):
    kernel = Columns(Columns(RBF([0.5, 2.0]), [1, 0]) * DotProduct(), [3, 1])
    inner = Columns(RBF([0.5, 2.0]), [1, 0]) * DotProduct()
    X, Y = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    expected = np.zeros((3, 2, 4, 4))
    expected[:, :, [[3], [1]], [3, 1]] = reference.hessian(inner, X[:, [3, 1]], Y[:, [3, 1]], "xy")
    np.testing.assert_array_equal(reference.hessian(kernel, X, Y, "xy"), expected)


@pytest.mark.parametrize("name", ["rbf+white", "rbf*white", "(rbf+white)**2"])
@pytest.mark.parametrize("sides", ["x", "xy"])
def test_white_noise_is_zero_in_derivatives(name, sides, rng):
    X = rng.normal(size=(4, 2))
    kernel = REGISTRY[name](2)
    np.testing.assert_array_equal(
        reference.derivative(kernel, X, None, sides), reference.derivative(kernel, X, X, sides)
    )


class Cubic(NormalizedKernelMixin, StationaryKernelMixin, Kernel):
    """A kernel of one's own: F(s) = (1 + s)^3."""

    invariant = "sqdist"

    def __call__(self, X, Y=None):
        return (1 + cdist(X, X if Y is None else Y, "sqeuclidean")) ** 3

    def jet(self, a, order):
        u = 1 + a
        return np.array([u**3, 3 * u**2, 6 * u, 6 + 0 * u, 0 * u, 0 * u])[: order + 1]


def test_kernel_of_ones_own(rng):
    X, Y = rng.normal(size=(2, 1, 2))
    product = 0.5 * Cubic() * DotProduct(0.3)
    actual = reference.hessian(product, X, Y, "xy")

    def function(*z):
        s = (z[0] - z[2]) ** 2 + (z[1] - z[3]) ** 2
        return 0.5 * (1 + s) ** 3 * (mp.mpf(0.3) ** 2 + z[0] * z[2] + z[1] * z[3])

    with mp.workdps(50):
        for a, b in np.ndindex(2, 2):
            orders = [a == 0, a == 1, b == 0, b == 1]
            desired = mp.diff(function, [*X[0], *Y[0]], [int(o) for o in orders])
            assert abs(exact(actual)[0, 0, a, b] - desired) < 1e-13 * abs(actual).max()


@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("name", RADIALS)
def test_radial_functions(name, n):
    s = np.array([1e-6, 0.3, 7.0])
    actual = reference.radial_jet(name, s, 5)[n]
    with mp.workdps(50):
        desired = np.array([mp.diff(RADIALS[name], mp.mpf(v), n) for v in s])
    assert_close(actual, desired, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("name", RADIALS)
def test_radial_functions_at_zero(name):
    jet = reference.radial_jet(name, np.zeros(1), 5)
    exists = 2 * np.arange(6) < reference.RADIAL_SMOOTHNESS[name]
    with mp.workdps(50):
        values = [mp.diff(RADIALS[name], 0, n, direction=1) for n in np.flatnonzero(exists)]
    np.testing.assert_allclose(jet[exists, 0], [float(v) for v in values], rtol=1e-15, atol=1e-20)
    np.testing.assert_array_equal(jet[~exists], 0)


@pytest.mark.parametrize("exponent", [2, 3, 5])
def test_whole_power_at_a_root(exponent):
    """No division by the base: p^n at p = 0."""
    X, Y = np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])
    sides = "x" * exponent
    actual = reference.derivative(DotProduct(0.0) ** exponent, X, Y, sides)[0, 0]
    expected = np.zeros(actual.shape)
    expected[(0,) * exponent] = 2.0**exponent * [1, 1, 2, 6, 24, 120][exponent]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("sides", ["", "x", "xy"])
def test_power_of_an_underflow_is_zero(sides):
    values = reference.derivative(RBF(1.0) ** 0.5, np.zeros((1, 2)), np.full((1, 2), 60.0), sides)
    np.testing.assert_array_equal(values, 0)


@pytest.mark.parametrize(
    "kernel", [CompoundKernel([RBF()]), PairwiseKernel(metric="laplacian")], ids=repr
)
def test_unknown_kernel_is_named(kernel):
    with pytest.raises(TypeError, match=type(kernel).__name__):
        reference.gradient(RBF() + kernel, np.zeros((1, 2)))


# --- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["xx", "xy", "yx", "yy"])
@pytest.mark.parametrize("name", ["rbf-ard", "rbf-ard*dot", "nested"])
def test_diagonal_and_packed_layouts(name, wrt, rng):
    kernel = REGISTRY[name](3)
    X, Y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    full = reference.hessian(kernel, X, Y, wrt)
    scale = 1e-15 * np.abs(full).max()
    diagonal = reference.hessian_diag(kernel, X, Y, wrt)
    np.testing.assert_allclose(diagonal, np.einsum("ijaa->ija", full), rtol=1e-14, atol=scale)
    packed = reference.hessian(kernel, X, Y, wrt, layout="packed")
    order = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    np.testing.assert_array_equal(packed, np.stack([full[..., a, b] for a, b in order], axis=-1))


@pytest.mark.parametrize(("n", "m", "d"), [(0, 3, 2), (3, 0, 2), (0, 0, 1), (2, 3, 0)], ids=str)
@tensors
def test_empty_sets(n, m, d, sides):
    kernel = RBF(1.0) * DotProduct() + 1.0
    tensor = reference.derivative(kernel, np.zeros((n, d)), np.zeros((m, d)), sides)
    assert tensor.shape == (n, m) + (d,) * len(sides)


def test_other_types_become_float64():
    X = np.array([[1, 2], [3, 5]])
    actual = reference.gradient(RBF(2.0), X.astype(np.float32))
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, reference.gradient(RBF(2.0), X.astype(float)))


# --- tanh basis --------------------------------------------------------------------------------


def test_tanh_basis_and_jacobian_are_those_of_50_digits():
    X = np.array([[0.3, -1.0], [20.0, 3.0]])
    W = np.array([[0.5, -1.0, 9.0], [0.1, 2.0, 30.0], [-0.2, 0.0, 7.0]])
    basis, jacobian = reference.tanh_basis(X, W), reference.tanh_jacobian(X, W)
    assert jacobian.shape == (2, 3, 3)
    with mp.workdps(200):
        for n, k in np.ndindex(2, 3):
            x = [*map(mp.mpf, X[n]), mp.mpf(1)]
            u = mp.fdot(x, W[:, k])
            assert abs(exact(basis)[n, k] - mp.tanh(u)) <= 1e-15 * abs(mp.tanh(u))
            slope = 1 / mp.cosh(u) ** 2
            # 1 - tanh^2 has 2|u| times the rounding errors of the sum in u.
            bound = 4 * np.finfo(float).eps * mp.fdot(map(abs, x), np.abs(W[:, k])) * slope
            for d in range(3):
                assert abs(exact(jacobian)[n, d, k] - slope * x[d]) <= bound * abs(x[d])


def test_tanh_jacobian_layouts(rng):
    X, W = rng.normal(size=(4, 2)), rng.normal(size=(3, 5))
    compact = reference.tanh_jacobian(X, W)
    full = reference.tanh_jacobian(X, W, layout="full")
    np.testing.assert_array_equal(full, np.einsum("ndl,kl->nkdl", compact, np.eye(5)))
    matrix = reference.tanh_jacobian(X, W, layout="matrix")
    np.testing.assert_array_equal(matrix, full.reshape(4 * 5, 3 * 5))


# --- covariances of functionals ----------------------------------------------------------------


def functionals(X):
    V = np.cos(np.arange(X.size)).reshape(X.shape)
    masked = np.arange(X.size).reshape(X.shape) % 3 != 0
    return {
        "Value": Value(X),
        "Gradient": Gradient(X),
        "masked Gradient": Gradient(X, mask=masked),
        "ValueGradient": ValueGradient(X),
        "Directional": Directional(X, V),
        "Hessian": Hessian(X),
        "Laplacian": Laplacian(X),
    }


NAMES = list(functionals(np.zeros((1, 1))))


@pytest.mark.parametrize("cols", NAMES)
@pytest.mark.parametrize("rows", NAMES)
def test_covariance_is_the_operators_applied(rows, cols, rng):
    kernel = RBF([0.7, 1.5]) * DotProduct(0.4) + RationalQuadratic()
    row = functionals(rng.normal(size=(2, 2)))[rows]
    col = functionals(rng.normal(size=(3, 2)))[cols]
    actual = reference.covariance(kernel, row, col)
    desired = mp_covariance(kernel, row, col)
    assert actual.shape == desired.shape
    # A Laplacian is a sum of D terms that may cancel.
    assert_close(actual[None], desired[None], rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_covariance_of_no_points(name, rng):
    some, none = functionals(rng.normal(size=(2, 2)))[name], functionals(np.zeros((0, 2)))[name]
    length = reference.covariance(RBF(), some).shape[0]
    assert reference.covariance(RBF(), none, some).shape == (0, length)
    assert reference.covariance(RBF(), some, none).shape == (length, 0)
    assert reference.covariance(RBF(), none).shape == (0, 0)


@pytest.mark.parametrize("name", [name for name, case in REGISTRY.items() if case.positive])
def test_covariance_is_symmetric_and_positive(name, rng):
    case = REGISTRY[name]
    X = rng.normal(size=(3, 2))
    orders = {"Value": 0, "Gradient": 1, "ValueGradient": 1, "Directional": 1, "Hessian": 2}
    observed = [
        functional
        for key, functional in functionals(X).items()
        if 2 * orders.get(key, 2) < case.smoothness
    ]
    matrix = reference.covariance(case(2), observed)
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-14 * np.abs(matrix).max())
    # In units of the variances, of which there are few and none is negative.
    scale = np.sqrt(np.where(np.diag(matrix) > 0, np.diag(matrix), 1))
    assert np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] > -1e-12


def test_covariance_of_lists_has_noise_on_the_values(rng):
    X = rng.normal(size=(3, 2))
    rows = [Value(X), Gradient(X), Value(X)]
    noisy, clean = ConstantKernel(2.0) * RBF() + WhiteKernel(0.1), ConstantKernel(2.0) * RBF()
    noise = reference.covariance(noisy, rows) - reference.covariance(clean, rows)
    expected = np.diag([0.1] * 3 + [0.0] * 6 + [0.1] * 3)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(
        reference.covariance(noisy, rows, rows), reference.covariance(clean, rows)
    )
