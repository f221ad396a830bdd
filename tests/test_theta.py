"""Derivatives of kernels with respect to their hyperparameters, as trees that are kernels in turn.

`support.theta` has what is right, and how wrong they may be.
"""

import functools

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    PairwiseKernel,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import JET, UNIT, assert_within
from support.functionals import NAMES, ORDERS, functionals, meet, two
from support.oracles import (
    REGISTRY,
    ard,
    has_bessel,
    hyperparameters,
    jax_function,
    kernel_trees,
    mp_value,
    pairs,
    with_hyperparameters,
)
from support.tensors import DTYPES
from support.theta import (
    CASES,
    OWN,
    SMOOTHNESS,
    Bump,
    Scaled,
    covariance_bounds_of,
    covariance_of,
    derivatives_of,
    exact_derivatives,
    theta_bounds,
)

from kerneldiff import Columns, Gradient, Hessian, Laplacian, Value, _reference, covariance, kernels
from kerneldiff.kernels import Constant, tangent, theta_derivatives

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# --------------------------------------------------------------------------------------------------
# Covariances of all functionals
# --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("D", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_values_as_scikit_learn_has_them(name, D):
    """With points that coincide, and noise.

    Some of scikit-learn's formulas lose five digits of K, RationalQuadratic's of a large alpha; and
    where it has none, its differences over 1e-5 or 1e-10 lose five digits, or six of K.
    """
    kernel = CASES[name](D)
    X = np.random.default_rng(D).normal(size=(6, D))
    X[3] = X[2]
    K, expected = kernel(X, eval_gradient=True)
    actual = np.moveaxis(derivatives_of(kernel, Value(X)), 0, 2)
    assert actual.shape == expected.shape
    size = np.abs(expected).max(axis=(0, 1), initial=0)
    rough = has_bessel(kernel) or "pairwise" in name
    tolerance = (1e-4 if rough else 1e-9) * (0.1 * np.abs(K).max() + size)
    assert (np.abs(actual - expected) <= tolerance).all()


def known(name):
    """The functionals that a kernel is smooth enough for on both sides."""
    limit = SMOOTHNESS.get(name, np.inf)
    return [key for key in ("Value", "Gradient", "Hessian") if 2 * ORDERS[key] < limit]


def assert_right(kernel, rows, cols=None, dtype="float64"):
    actual = derivatives_of(kernel, rows, cols)
    assert len(actual) == len(hyperparameters(kernel))
    assert actual.dtype == dtype
    exact = exact_derivatives(kernel, rows, cols).reshape(actual.shape)
    bounds = theta_bounds(kernel, rows, cols, dtype)
    if cols is None:
        # The bounds know nothing of noise, which makes the diagonal anew.
        bounds += JET * UNIT[dtype] * np.abs(exact) * np.eye(exact.shape[1])
    assert_within(actual, exact, bounds)


@pytest.mark.quick(12)
@pytest.mark.parametrize(("D", "dtype"), [(1, "float64"), (2, "float64"), (2, "float32")])
@pytest.mark.parametrize("name", CASES)
def test_kernels(name, D, dtype):
    """Values, gradients and Hessians against values and gradients, where points coincide, too."""
    rows, cols = meet(functionals(2, D, dtype), functionals(2, D, dtype, seed=1))
    sides = [rows[key] for key in known(name)], [cols[key] for key in known(name)[:2]]
    assert_right(CASES[name](D), *sides, dtype)


@pytest.mark.quick(5)
@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_pairs(first, second):
    """Of a kernel of two invariants with its own length scale for each column."""
    rows, cols = meet(functionals(2, 2), functionals(3, 2, seed=1))
    assert_right(two(2), rows[first], cols[second])


@pytest.mark.parametrize("side", ["rows", "cols"])
@pytest.mark.parametrize(
    "name",
    [name for name in REGISTRY if name.startswith("matern") and SMOOTHNESS.get(name, 9) <= 4],
)
def test_rough_kernels_with_derivatives_on_one_side(name, side):
    """NaN where points coincide, if the derivative does not exist, and nowhere else."""
    rows, cols = meet(functionals(2, 2), functionals(2, 2, seed=1))
    sides = [rows[key] for key in ("Gradient", "Hessian", "Laplacian")], cols["Value"]
    assert_right(REGISTRY[name](2), *(sides if side == "rows" else sides[::-1]))


@pytest.mark.quick(1)
@pytest.mark.parametrize("D", [5, 17])
@pytest.mark.parametrize("second", ["ValueGradient", "Laplacian"])
def test_dimensions(second, D):
    rows, cols = meet(functionals(2, D), functionals(2, D, seed=1))
    assert_right(Matern(ard(D) * D**0.5, nu=2.5), rows["ValueGradient"], cols[second])


@pytest.mark.parametrize("name", ["rbf+white", "(rbf+white)**2", "(rbf+white)**0.5", "white"])
@dtypes
def test_noise_is_on_the_diagonal_of_values(name, dtype):
    """For one argument only; not between points that coincide, and in no derivative."""
    side = functionals(4, 2, dtype)
    side["Value"].X[1] = side["Value"].X[0]
    rows = [side[key] for key in ("masked ValueGradient", "Laplacian", "Value")]
    assert_right(CASES[name](2), rows, None, dtype)


@given(kernel_trees(2, smooth=False))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_random_kernels(kernel):
    """Sums, products and powers of any depth."""
    rows, cols = functionals(2, 2), functionals(3, 2, seed=1)
    assert_right(kernel, rows["ValueGradient"], cols["Value"])


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_no_points(n, m):
    X, Y = np.zeros((n, 2)), np.zeros((m, 2))
    actual = derivatives_of(two(2), [Gradient(X), Value(X)], Laplacian(Y))
    assert actual.shape == (len(two(2).theta), 3 * n, m)


def test_no_columns():
    """Points of nothing coincide: values are those at s = 0."""
    X = np.zeros((2, 0))
    (actual,) = derivatives_of(RBF(2.0), Value(X))
    np.testing.assert_array_equal(actual, np.zeros((2, 2)))


# --------------------------------------------------------------------------------------------------
# Other oracles
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["generic", "near", "coincident", "offset", "far"])
@pytest.mark.parametrize(
    "kernel",
    [
        RBF([0.7, 1.5]),
        Matern(1.2, nu=0.5),
        Matern([0.9, 1.4], nu=2.5),
        RationalQuadratic(1.2, alpha=0.7),
        RationalQuadratic(1.2, alpha=1e4),
        ExpSineSquared(0.9, 2.1),
        DotProduct(0.4),
        PairwiseKernel(gamma=0.2, metric="sigmoid"),
        PairwiseKernel(gamma=0.3, metric="poly"),
        (0.4 * RBF(0.9) + RationalQuadratic()) ** 1.5,
    ],
    ids=str,
)
def test_mpmath(kernel, place):
    """The textbook formulas in 50 digits, each entry by its own bound.

    Most of all near each other, where what alpha does is a difference of order s² of terms s.
    """
    X, Y = pairs(place, 2, far=8.0)
    actual = np.einsum("pii->pi", derivatives_of(kernel, Value(X), Value(Y)))
    values = hyperparameters(kernel)
    with mp.workdps(50):
        for p in range(len(values)):

            def value(t, i, p=p):
                moved = [mp.mpf(float(v)) for v in values]
                moved[p] *= mp.exp(t)
                other = with_hyperparameters(kernel, np.array(moved, dtype=object))
                x, y = ([mp.mpf(float(v)) for v in row] for row in (X[i], Y[i]))
                return mp_value(other, x, y)

            bound = covariance_bounds_of(kernel, p, Value(X), Value(Y), "float64")
            for i in range(2):
                exact = mp.diff(functools.partial(value, i=i), 0)
                assert abs(mp.mpf(float(actual[p, i])) - exact) <= bound[i, i]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "kernel",
    [
        RBF([0.7, 1.5]) * DotProduct(0.4),
        0.6 * RationalQuadratic(1.2, 0.7) ** 1.5 + ExpSineSquared(0.9, 2.1),
        Matern([0.9, 1.4], nu=2.5),
    ],
    ids=str,
)
def test_automatic_differentiation(kernel):
    """By hyperparameters and points, in an order of JAX's choice.

    To 1e-12 of the largest: there is a square root to differentiate twice in what JAX does.
    """
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    X, Y = np.random.default_rng(5).normal(size=(2, 3, 2))

    def function(theta, x, y):
        return jax_function(with_hyperparameters(kernel, jax.numpy.exp(theta)))(x, y)

    mixed = jax.jacfwd(jax.grad(function, 2), 0)
    both = jax.vmap(jax.vmap(mixed, (None, None, 0)), (None, 0, None))
    expected = np.asarray(both(kernel.theta, X, Y)).transpose(3, 0, 1, 2).reshape(-1, 3, 6)
    actual = derivatives_of(kernel, Value(X), Gradient(Y))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(("nu", "slope"), [(1.5, 3.0), (2.5, 5 / 3)])
@pytest.mark.parametrize("length_scale", [0.4, np.array([0.4, 3.0])], ids=["one", "ard"])
def test_points_that_coincide(nu, slope, length_scale):
    """The covariance of gradients is slope / l² there: -2 times that, and exactly so."""
    X = np.random.default_rng(2).normal(size=(1, 2))
    actual = derivatives_of(Matern(length_scale, nu=nu), Gradient(X))
    expected = np.zeros((np.size(length_scale), 2, 2))
    for a, scale in enumerate(np.broadcast_to(length_scale, 2)):
        expected[a % len(expected), a, a] = -2 * slope / scale**2
    np.testing.assert_allclose(actual, expected, rtol=1e-15)


@pytest.mark.parametrize("nu", [0.5, 0.8, 1.5, 2.5])
def test_values_where_points_coincide(nu):
    X = np.random.default_rng(2).normal(size=(1, 2))
    np.testing.assert_array_equal(derivatives_of(Matern([0.4, 3.0], nu=nu), Value(X)), 0)


# --------------------------------------------------------------------------------------------------
# Powers of what underflows
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_scale", [1.0, np.array([1.0, 2.0])], ids=["one", "ard"])
@pytest.mark.parametrize("p", [0.01, -0.3, 1.7])
def test_roots_of_what_underflows(p, length_scale):
    """exp(-p s / 2) is far from 0, or from the largest numbers, where exp(-s / 2) is 0."""
    X, Y = np.zeros((1, 2)), np.array([[40.0, 0.0]])
    kernel = (0.5 * RBF(length_scale)) ** p
    if p < 0:
        # Of a positive power all is known in advance; of a negative one, not beyond underflow.
        Y = Y / 2
    value = 0.5**p * np.exp(-p * Y[0, 0] ** 2 / 2)
    constant, first, *others = derivatives_of(kernel, Value(X), Value(Y)).ravel()
    # The exponent is off by a few u, and so by 800 times that: 1e-12 is enough.
    np.testing.assert_allclose(constant, p * value, rtol=1e-12)
    np.testing.assert_allclose(first, p * Y[0, 0] ** 2 * value, rtol=1e-12)
    np.testing.assert_array_equal(others, 0)


@pytest.mark.parametrize(
    "kernel",
    [
        Matern(0.5, nu=2.5) ** 0.4,
        (Matern(0.5, nu=2.5) + RBF(0.5)) ** 0.4,
        (RBF(0.5) + WhiteKernel(0.3)) ** 0.5,
        Matern(0.5, nu=1.5) ** 2,
    ],
    ids=str,
)
def test_what_has_underflowed_has_no_derivatives(kernel):
    X, Y = np.zeros((1, 2)), np.array([[1e4, -1e4]])
    actual = derivatives_of(kernel, Gradient(X), [Value(Y), Gradient(Y)])
    np.testing.assert_array_equal(actual, 0)


def test_terms_that_share_a_jet_do_not_underflow_with_each_other():
    """A jet that is made once, for terms of amplitudes as different as can be."""
    X, Y = np.zeros((1, 1)), np.array([[30.0]])
    kernel = 1e-250 * RBF(1.0) + RBF(1.0) + 1e-200 * RBF(1.0) * DotProduct(1.0)
    np.testing.assert_allclose(
        covariance(kernel, Value(X), Gradient(Y)),
        _reference.covariance(kernel, Value(X), Gradient(Y)),
        rtol=1e-12,
    )


# --------------------------------------------------------------------------------------------------
# What the list of derivatives says
# --------------------------------------------------------------------------------------------------


def test_length_scales_of_columns_come_together():
    scales = np.array([0.5, 1.0, 2.0])
    kernel = ConstantKernel(0.3) * Columns(RBF(scales), [3, 0, 2]) + WhiteKernel(0.1)
    constant, ours, noise = theta_derivatives(kernel, 4)
    assert [part.first for part in (constant, ours, noise)] == [0, 1, 4]
    assert [part.size for part in (constant, ours, noise)] == [1, 3, 1]
    assert constant.dims is noise.dims is None
    assert ours.dims == (3, 0, 2)
    assert ours.weights == (1.0, 0.0, 0.25, 4.0)
    X = np.random.default_rng(0).normal(size=(3, 4))
    common = covariance_of(ours.term, Value(X))
    for k, (dim, actual) in enumerate(zip(ours.dims, ours.terms(4), strict=True)):
        q = np.subtract.outer(X[:, dim], X[:, dim]) ** 2 / scales[k] ** 2
        np.testing.assert_allclose(covariance_of(actual, Value(X)), -2 * q * common, rtol=1e-14)


@pytest.mark.parametrize(
    ("kernel", "count"),
    [
        (RBF(1.0, "fixed"), 0),
        (RBF([1.0, 2.0], "fixed") + ConstantKernel(1.0), 1),
        (RationalQuadratic(1.0, 2.0, length_scale_bounds="fixed"), 1),
        (RBF(np.array([1.0])), 1),
    ],
    ids=str,
)
def test_fixed_hyperparameters_are_left_out(kernel, count):
    D = 1 if kernel == RBF(np.array([1.0])) else 2
    assert len(kernel.theta) == count
    assert sum(part.size for part in theta_derivatives(kernel, D)) == count


def test_parts_that_cannot_be_read_are_named():
    with pytest.raises(TypeError, match="CompoundKernel"):
        theta_derivatives(RBF() + sk.CompoundKernel([RBF()]), 2)


def test_more_derivatives_than_there_are():
    X = Value(np.zeros((1, 1)))
    (part,) = theta_derivatives(Matern(nu=2.5), 1)
    again = kernels.Product(part.term, kernels._slope(kernels._slope(part.term.right)))
    with pytest.raises(ValueError, match="derivatives of order 7 are needed"):
        covariance_of(again, Hessian(X.X), Hessian(X.X))


# --------------------------------------------------------------------------------------------------
# Programs
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "row", "col", "count"),
    [
        (RBF(0.7) + Matern(nu=2.5), "laplacian", "laplacian", 1),
        (RBF([0.7, 0.7]), "laplacian", "laplacian", 1),
        (Columns(RBF([0.7, 0.7]), [0, 2]), None, "laplacian", 1),
        (RBF(0.7), "directional", "laplacian", 2),
        (RBF([0.7, 0.9]), "laplacian", "laplacian", 3),
        (Columns(RBF(), [0]) + Columns(Matern(nu=2.5), [1]), "laplacian", "laplacian", 2),
    ],
    ids=str,
)
def test_laplacians_of_squared_distances_are_functions_of_them(kernel, row, col, count):
    """And of those with the squares and cubes of the weights, if these differ."""
    d = 3 if "[0, 2]" in str(kernel) else 2
    program = kernels.compile_term(kernels.read(kernel, d), d, 0, row, col)
    assert len(program.weights) == count


@dtypes
def test_noise_next_to_scales_far_apart(dtype):
    """What is far beyond 1 stands in the weights of an invariant of its own."""
    X = Value(np.zeros((3, 1), dtype))
    kernel = RBF(1e-5) + RBF(1.0) + RBF(1e-32 if dtype == "float64" else 2.0) + WhiteKernel(0.5)
    np.testing.assert_array_equal(np.diag(covariance(kernel, X)), 3.5)
    expected = [0.0, 0.0, 0.0, 0.5]
    actual = np.einsum("pii->pi", derivatives_of(kernel, X))
    np.testing.assert_array_equal(actual, np.repeat(expected, 3).reshape(4, 3))


# --------------------------------------------------------------------------------------------------
# Along a direction
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(24)
@pytest.mark.filterwarnings("ignore:divide by zero")  # logarithms of 0
@dtypes
@pytest.mark.parametrize("name", CASES)
def test_tangent_is_the_sum(name, dtype):
    kernel = CASES[name](3)
    side = functionals(3, 3, dtype)
    sides = [side[key] for key in known(name)], side["Value"]
    t = np.random.default_rng(1).normal(size=len(kernel.theta))
    parts = derivatives_of(kernel, *sides)
    actual = covariance_of(tangent(kernel, 3, t), *sides)
    # Each side is a sum of the same terms, which are good to the bound each.
    bound = sum(
        2 * abs(t[p]) * covariance_bounds_of(kernel, p, *sides, dtype) for p in range(len(t))
    )
    expected = np.einsum("p,pij->ij", t.astype(parts.dtype), parts)
    terms = 8 * UNIT[dtype] * np.einsum("p,pij->ij", np.abs(t), np.abs(parts))
    error = np.abs(actual - expected)
    assert (np.isnan(bound + terms) | (error <= bound + terms)).all()


def test_tangent_of_length_scales_is_one_invariant():
    """However many they are; and whatever the size of the coefficients, in float32, too."""
    kernel, t = RBF(np.geomspace(0.5, 2.0, 9)), np.geomspace(1e-30, 1e38, 9)
    term = tangent(kernel, 9, t)
    assert len({leaf.invariant for leaf in kernels.leaves(term)}) == 2
    X = np.random.default_rng(0).normal(size=(3, 9))
    single = covariance_of(term, Value(X.astype("f")), Value(X.astype("f") / 2))
    double = covariance_of(term, Value(X.astype("f").astype(float)), Value(X.astype("f") / 2.0))
    np.testing.assert_allclose(single, double, rtol=1e-5)


@pytest.mark.parametrize("kernel", [RBF([1.0, 2.0]) + 0.5, RBF(1.0, "fixed")], ids=str)
def test_tangent_of_nothing(kernel):
    assert tangent(kernel, 2, np.zeros(len(kernel.theta))) == Constant(0.0)


# --------------------------------------------------------------------------------------------------
# Kernels of one's own
# --------------------------------------------------------------------------------------------------


@pytest.mark.quick(4)
@dtypes
@pytest.mark.parametrize("name", OWN)
def test_kernels_of_ones_own(name, dtype):
    """Each of them is a kernel of scikit-learn's, whose derivatives and bounds are known."""
    own, twin = OWN[name]
    np.testing.assert_array_equal(own.theta, twin.theta)
    rows, cols = meet(functionals(2, 2, dtype), functionals(2, 2, dtype, seed=1))
    sides = [[side[key] for key in ("Value", "Gradient", "Hessian")] for side in (rows, cols)]
    actual = derivatives_of(own, *sides)
    exact = exact_derivatives(twin, *sides)
    assert_within(actual, exact, theta_bounds(twin, *sides, dtype))


class NoGradient(Bump):
    jet_gradient = property()


class NoWeightsGradient(Scaled):
    weights_gradient = property()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (NoGradient(0.7) * RBF(), r"NoGradient has hyperparameters but no method `jet_gradient\("),
        (NoWeightsGradient(), r"weights of NoWeightsGradient .* no method `weights_gradient\("),
    ],
)
def test_kernels_of_ones_own_that_do_not_say_what_their_derivatives_are(kernel, message):
    covariance(kernel, Gradient(np.zeros((1, 2))))
    with pytest.raises(NotImplementedError, match=message):
        theta_derivatives(kernel, 2)


def test_kernels_of_ones_own_without_hyperparameters():
    assert theta_derivatives(NoGradient(0.7, "fixed"), 2) == []


def test_weights_that_do_not_depend_on_hyperparameters():
    """They need no gradient, and none is asked for."""

    class Weighted(Bump):
        weights = np.array([0.5, 2.0])

    (part,) = theta_derivatives(Weighted(0.7), 2)
    X = np.random.default_rng(0).normal(size=(3, 2))
    (twin,) = derivatives_of(
        RationalQuadratic(0.7, 2.0, alpha_bounds="fixed"), Value(X * np.sqrt([0.5, 2.0]))
    )
    np.testing.assert_allclose(covariance_of(part.term, Value(X)), twin, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "jet_gradient",
            lambda self, a, order: self.jet(a, order),
            r"jet_gradient returned an array of shape \(1, .* must have shape \(3, 1, ",
        ),
        (
            "weights_gradient",
            lambda self: np.ones((2, 2)),
            r"(?s)weights_gradient of Wrong .* array of shape \(3, 2\)",
        ),
        ("weights_gradient", lambda self: np.full((3, 2), np.nan), "finite numbers"),
    ],
)
def test_kernels_of_ones_own_that_return_nonsense(name, value, message):
    kernel = type("Wrong", (Scaled,), {name: value})()
    with pytest.raises(ValueError, match=message):
        derivatives_of(kernel, Value(np.zeros((3, 2))))
