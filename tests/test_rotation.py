"""Regression by rotation: against the dense formulas in NumPy, and finite differences.

**What may be expected.** Both ways solve a system with a matrix that is known to a few roundings ε
of its unit-diagonal form, and what comes out is known to a small multiple of κ ε of its largest
entry, κ the condition number of that form (Higham, "Accuracy and Stability of Numerical
Algorithms", theorem 7.2): 10 κ ε here, or 1e-9 where that is larger.
"""

import tracemalloc
from functools import cache, cached_property

import numpy as np
import pytest
import scipy.linalg
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
from support.oracles import theta_tensor
from support.own_kernels import Bump

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
    rotation,
)
from kerneldiff.rotation import Rotation, rotation_applies
from kerneldiff.solvers import Cholesky

EPS = np.finfo(np.float64).eps


def scales(d):
    """Length scales at which standard normal points are some length scales apart."""
    return np.linspace(0.7, 1.5, d) * d**0.5


KERNELS = {
    "rbf": lambda d: RBF(d**0.5),
    "constant*rbf": lambda d: ConstantKernel(2.0) * RBF(1.3 * d**0.5),
    "matern32": lambda d: Matern(d**0.5, nu=1.5),
    "matern52": lambda d: Matern(d**0.5, nu=2.5),
    "matern nu=2.2": lambda d: Matern(d**0.5, nu=2.2),
    "rq": lambda d: RationalQuadratic(d**0.5, alpha=0.7),
    "sum": lambda d: RBF(d**0.5) + 0.5 * Matern(2 * d**0.5, nu=2.5),
    "product": lambda d: RBF(d**0.5) * RationalQuadratic(2 * d**0.5),
    "power": lambda d: (RBF(d**0.5) + 0.5 * Matern(d**0.5, nu=2.5)) ** 1.5,
    "ard": lambda d: 1.5 * RBF(scales(d)),
    "ard matern32": lambda d: Matern(scales(d), nu=1.5),
    "ard sum": lambda d: RBF(scales(d)) + 0.3 * Matern(2 * scales(d), nu=2.5),
    "ard product": lambda d: RBF(scales(d)) * Matern(3 * scales(d), nu=2.5),
    "dot+rbf": lambda d: DotProduct(0.5) + RBF(d**0.5),
    "dot*rbf": lambda d: DotProduct(0.5) * RBF(d**0.5),
    "dot**2+rbf": lambda d: DotProduct(0.7) ** 2 + 0.1 * RBF(d**0.5),
    "pairwise": lambda d: PairwiseKernel(metric="rbf", gamma=0.3 / d) + DotProduct(),
    "white": lambda d: RBF(d**0.5) + WhiteKernel(0.3),
    "(white+rbf)*rq": lambda d: (RBF(d**0.5) + WhiteKernel(0.3)) * RationalQuadratic(d**0.5),
    "constant": lambda d: ConstantKernel(2.0),
}

# N < D, = D, > D; N - 1 of the dimensions, all of them and one of many are spanned.
SHAPES = [(4, 7), (1, 5), (2, 3), (5, 5), (6, 3), (3, 1)]

FUNCTIONALS = {
    "Value": lambda X, rng: Value(X),
    "Gradient": lambda X, rng: Gradient(X),
    "ValueGradient": lambda X, rng: ValueGradient(X),
    "Directional": lambda X, rng: Directional(X, rng.normal(size=X.shape)),
    "masked Gradient": lambda X, rng: Gradient(X, mask=rng.random(X.shape) < 0.6),
    "masked ValueGradient": lambda X, rng: ValueGradient(
        X, mask=rng.random((len(X), 1 + X.shape[1])) < 0.6
    ),
    "Laplacian": lambda X, rng: Laplacian(X),
    "Hessian": lambda X, rng: Hessian(X),
}


class Dense:
    """The textbook, on the whole matrix in its unit-diagonal form."""

    def __init__(self, kernel, observed, noise):
        self.kernel, self.observed = kernel, observed
        C = covariance(kernel, observed) + np.diag(noise)
        self.scale = np.diag(C) ** -0.5
        self.matrix = C * self.scale * self.scale[:, None]
        self.factor = np.linalg.cholesky(self.matrix)

    @cached_property
    def tolerance(self):
        return max(1e-9, 10 * np.linalg.cond(self.matrix) * EPS)

    def draw(self, z):
        return self.factor @ z / self.scale[:, None]

    def solve(self, B):
        scale = self.scale[:, None]
        return scale * scipy.linalg.cho_solve((self.factor, True), scale * B)

    def likelihood(self, targets):
        n, T = targets.shape
        log_det = 2 * np.log(np.diag(self.factor)).sum() - 2 * np.log(self.scale).sum()
        fit = np.vdot(targets, self.solve(targets))
        return -0.5 * fit - 0.5 * T * (log_det + n * np.log(2 * np.pi))

    def mean(self, wanted, weights):
        return covariance(self.kernel, wanted, self.observed) @ weights

    def covariance(self, wanted):
        C = covariance(self.kernel, wanted, self.observed)
        half = scipy.linalg.solve_triangular(self.factor, (C * self.scale).T, lower=True)
        return covariance(self.kernel, wanted, wanted) - half.T @ half


def noise_of(kernel, functional, level, seed=0):
    """Noise that differs from point to point, and in the ratios of the weights."""
    n, d = functional.X.shape
    rng = np.random.default_rng([seed, n, d])
    weights = np.ones(d)
    for leaf in kernels.leaves(kernels.read(kernel, d)):
        if leaf.invariant.weights is not None:
            weights = np.array(leaf.invariant.weights)
    values = functional.size // n - d
    levels = level * rng.uniform(0.5, 2.0, size=(n, 2))
    return np.hstack((levels[:, :values], levels[:, 1:] * weights)).ravel()


class Case:
    """A regression, done in both ways, with targets that the model may have made."""

    def __init__(self, kernel, X, level=1e-4, functional=ValueGradient, T=2):
        self.kernel, self.functional = kernel, functional(X)
        self.noise = noise_of(kernel, self.functional, level)
        self.dense = Dense(kernel, [self.functional], self.noise)
        self.ours = Rotation(kernel, [self.functional], self.noise)
        rng = np.random.default_rng(1)
        self.targets = self.dense.draw(rng.normal(size=(self.functional.size, T)))
        self.weights = self.dense.solve(self.targets)
        # New points, one that was observed, and one next to it.
        self.points = np.vstack(
            (rng.normal(size=(3, X.shape[1])), X[:1], X[-1:] + 1e-9 * rng.normal(size=X.shape[1]))
        )

    def wanted(self, name):
        functional = FUNCTIONALS[name](self.points, np.random.default_rng(2))
        smoothness = kernels.smoothness(kernels.read(self.kernel, self.points.shape[1]))
        return functional if functional._order < smoothness / 2 else None

    def assert_near(self, actual, expected, scale=None):
        assert actual.shape == expected.shape
        scale = np.abs(expected).max(initial=0) if scale is None else scale
        # Not "<= any": NaN has to fail.
        assert np.all(np.abs(actual - expected) <= self.dense.tolerance * scale)


@cache
def case(name, n, d, level=1e-4, functional=ValueGradient):
    X = np.random.default_rng([n, d]).normal(size=(n, d))
    return Case(KERNELS[name](d), X, level, functional)


def assert_learns(c):
    """Weights, likelihood and its gradients."""
    c.assert_near(c.ours.solve(c.targets), c.weights)
    likelihood, of_theta, of_noise = c.ours.likelihood(c.targets, eval_gradient=True)
    expected = c.dense.likelihood(c.targets)
    assert abs(likelihood - expected) <= c.dense.tolerance * max(1, abs(expected))
    assert c.ours.likelihood(c.targets) == likelihood
    T = c.targets.shape[1]
    W = 0.5 * (c.weights @ c.weights.T - T * c.dense.solve(np.eye(len(c.noise))))
    c.assert_near(of_noise, np.diag(W))
    tensor = theta_tensor(c.kernel, [c.functional]).astype(np.float64)
    assert of_theta.shape == (len(tensor),)
    # The sum may be small because its terms cancel, which leaves their errors.
    sizes = np.einsum("ij,pij->p", np.abs(W), np.abs(tensor))
    expected = np.einsum("ij,pij->p", W, tensor)
    errors = np.abs(of_theta - expected)
    assert np.all(errors <= c.dense.tolerance * np.maximum(np.abs(expected), 1e-3 * sizes))


def assert_predicts(c, name):
    """Mean, covariance and variances."""
    wanted = c.wanted(name)
    if wanted is None:
        with pytest.raises(ValueError, match="too rough"):
            c.ours.covariance(FUNCTIONALS[name](c.points, np.random.default_rng(2)))
        return
    c.assert_near(c.ours.mean(wanted, c.weights), c.dense.mean(wanted, c.weights))
    expected = c.dense.covariance(wanted)
    prior = np.abs(covariance(c.kernel, wanted, wanted)).max(initial=0)
    c.assert_near(c.ours.covariance(wanted), expected, prior)
    c.assert_near(c.ours.covariance(wanted, diagonal=True), np.diag(expected), prior)


# ------------------------------------------------------------------------- against the dense way


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_learning(name, shape):
    assert_learns(case(name, *shape))


@pytest.mark.quick(6)
@pytest.mark.parametrize("level", [1e-1, 1e-8, 1e-11])
@pytest.mark.parametrize("name", ["rbf", "ard sum", "dot*rbf", "matern32", "white"])
def test_learning_with_noise(name, level):
    assert_learns(case(name, 6, 15, level))


@pytest.mark.quick(12)
@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("name", KERNELS)
def test_prediction(name, functional):
    assert_predicts(case(name, 4, 7), functional)


@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("name", ["rbf", "ard sum", "dot*rbf"])
def test_prediction_shapes(name, shape, functional):
    assert_predicts(case(name, *shape), functional)


@pytest.mark.parametrize("level", [1e-1, 1e-8, 1e-11])
@pytest.mark.parametrize("functional", FUNCTIONALS)
def test_prediction_with_noise(functional, level):
    assert_predicts(case("ard sum", 6, 15, level), functional)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["rbf", "matern52", "ard", "dot*rbf"])
def test_learning_from_gradients_alone(name, shape):
    assert_learns(case(name, *shape, functional=Gradient))


@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("shape", [(1, 5), (4, 7), (6, 3)], ids=str)
def test_prediction_from_gradients_alone(shape, functional):
    assert_predicts(case("ard", *shape, functional=Gradient), functional)


@pytest.mark.parametrize("names", [list(FUNCTIONALS)[:6], list(FUNCTIONALS)], ids=["cheap", "all"])
def test_several_functionals(names):
    c = case("ard", 4, 7)
    wanted = [c.wanted(name) for name in names]
    expected = c.dense.covariance(wanted)
    prior = np.abs(covariance(c.kernel, wanted, wanted)).max()
    c.assert_near(c.ours.covariance(wanted), expected, prior)
    c.assert_near(c.ours.covariance(wanted, diagonal=True), np.diag(expected), prior)
    c.assert_near(c.ours.mean(wanted, c.weights), c.dense.mean(wanted, c.weights))


class Learned(Bump):
    """A kernel of one's own that knows the derivatives of its jet: those of F(c / l² s)."""

    def jet_gradient(self, a, order):
        jet = self.jet(a, order + 1)
        return -2 * np.array([[q * jet[q] + a * jet[q + 1] for q in range(order + 1)]])


def test_own_kernel():
    c = Case(Learned(2.0), np.random.default_rng(0).normal(size=(4, 6)))
    c.assert_near(c.ours.solve(c.targets), c.weights)
    assert_predicts(c, "ValueGradient")
    same = Rotation(RationalQuadratic(2.0, alpha=2.0), [c.functional], c.noise)
    actual, expected = (s.likelihood(c.targets, eval_gradient=True) for s in (c.ours, same))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12)
    # The second hyperparameter of the other one is its alpha.
    np.testing.assert_allclose(actual[1], expected[1][1:], rtol=1e-10)
    np.testing.assert_allclose(actual[2], expected[2], rtol=1e-10)


def test_periodic_kernel():
    # Positive definite in one dimension only: there is nothing across.
    c = Case(ExpSineSquared(1.0, 2.0), np.array([[0.1], [0.6], [1.2]]), 1e-2)
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


def test_single_precision():
    X, Y = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    kernel = RBF(2.0)
    double = Case(kernel, X.astype(np.float64))
    ours = Rotation(kernel, [ValueGradient(X)], double.noise)
    double.assert_near(ours.solve(double.targets), double.weights)
    for functional in (ValueGradient, Laplacian):
        wanted = functional(Y)
        expected = double.dense.covariance(functional(Y.astype(np.float64)))
        double.assert_near(ours.covariance(wanted), expected)


# ------------------------------------------------------------------------------------ geometry


def geometry(name):
    """Points of some kind, and the dimensions that they span."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(6, 12))
    if name == "collinear":
        return rng.normal(size=(6, 1)) * rng.normal(size=(1, 12)), 1
    if name == "collinear, displaced":
        return 1.0 + np.arange(6.0)[:, None] * 2.0 ** rng.integers(-3, 3, size=12), 1
    if name == "plane":
        return rng.normal(size=(6, 2)) @ rng.normal(size=(2, 12)), 2
    if name == "duplicates":
        return X[[0, 1, 2, 2, 3, 2]], 3
    if name == "all the same":
        return X[[0] * 4], 0
    if name == "nearly duplicates":
        X[3] = X[2] + 1e-8 * rng.normal(size=12)
        return X, 5
    if name == "far from the origin":
        return 1e6 + X, 5
    return 1e3 * X, 5  # far apart


GEOMETRIES = [
    "collinear",
    "collinear, displaced",
    "plane",
    "duplicates",
    "all the same",
    "nearly duplicates",
    "far from the origin",
    "far apart",
]


@cache
def placed(name, kernel):
    X, rank = geometry(name)
    return Case({"rbf": RBF(3.0), "matern32": Matern(3.0, nu=1.5)}[kernel], X), rank


@pytest.mark.parametrize("kernel", ["rbf", "matern32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_learning_geometry(name, kernel):
    c, rank = placed(name, kernel)
    assert c.ours._Q.shape == (12, rank)
    assert_learns(c)


@pytest.mark.parametrize("functional", list(FUNCTIONALS)[:5])
@pytest.mark.parametrize("kernel", ["rbf", "matern32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_prediction_geometry(name, kernel, functional):
    assert_predicts(placed(name, kernel)[0], functional)


def test_dot_products_span_from_the_origin():
    X = np.ones((4, 6))
    c = Case(DotProduct() + RBF(3.0), X)
    assert c.ours._Q.shape == (6, 1)
    assert_learns(c)


@pytest.mark.parametrize("functional", [Value, Gradient, ValueGradient])
def test_nothing_but_the_point_itself(functional):
    # No direction at all is spanned: neither by the point, nor by that where one asks.
    X = np.array([[0.3, -0.2, 0.5]])
    c = Case(RBF(1.0), X)
    c.assert_near(c.ours.covariance(functional(X)), c.dense.covariance(functional(X)))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("functional", FUNCTIONALS)
def test_nowhere(functional, diagonal):
    c = case("ard", 4, 7)
    nowhere = FUNCTIONALS[functional](np.empty((0, 7)), np.random.default_rng(0))
    assert c.ours.covariance(nowhere, diagonal).shape == ((0,) if diagonal else (0, 0))


@pytest.mark.parametrize("length_scale", [30.0, 100.0])
@pytest.mark.parametrize("ard", [False, True])
def test_badly_conditioned(ard, length_scale):
    X = np.random.default_rng(0).normal(size=(5, 9))
    kernel = RBF(length_scale * scales(9) if ard else length_scale)
    c = Case(kernel, X, 1e-10)
    assert c.dense.tolerance > 1e-7
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


# --------------------------------------------------------------------------- finite differences


def difference(function, x, step=1e-3):
    """Central difference, off by step^4 / 30 of the fifth derivative."""
    return (
        8 * (function(x + step) - function(x - step))
        - (function(x + 2 * step) - function(x - 2 * step))
    ) / (12 * step)


@pytest.mark.parametrize("name", ["rq", "ard sum", "dot*rbf", "(white+rbf)*rq", "power"])
def test_likelihood_gradient_by_differences(name):
    c = case(name, 4, 7)
    of_theta = c.ours.likelihood(c.targets, eval_gradient=True)[1]
    theta = c.kernel.theta

    def likelihood(t, p):
        moved = c.kernel.clone_with_theta(theta + t * (np.arange(len(theta)) == p))
        return Dense(moved, [c.functional], c.noise).likelihood(c.targets)

    expected = [difference(lambda t, p=p: likelihood(t, p), 0.0) for p in range(len(theta))]
    # 1e-12 of the fifth derivative, and roundings of 1e-16 κ ~ 1e-13 of 100 by the step.
    np.testing.assert_allclose(of_theta, expected, rtol=1e-7, atol=1e-7)


def test_noise_gradient_by_differences():
    c = case("ard", 4, 7)
    of_noise = c.ours.likelihood(c.targets, eval_gradient=True)[2]

    def likelihood(t, i):
        moved = c.noise * np.exp(t * (np.arange(len(c.noise)) == i))
        return Dense(c.kernel, [c.functional], moved).likelihood(c.targets)

    expected = [difference(lambda t, i=i: likelihood(t, i), 0.0) for i in range(len(c.noise))]
    np.testing.assert_allclose(of_noise * c.noise, expected, rtol=1e-7, atol=1e-7)


# ------------------------------------------------------------------------------- max_condition


@pytest.mark.parametrize("functional", [Gradient, ValueGradient])
@pytest.mark.parametrize(
    "kernel",
    [1.5 * RBF(9.0) + WhiteKernel(1e-3), RationalQuadratic(9.0), RBF(9 * scales(6))],
    ids=["rbf", "rq", "ard"],
)
def test_max_condition(kernel, functional):
    rng = np.random.default_rng(5)
    f = functional(rng.normal(size=(4, 6)))
    noise = noise_of(kernel, f, 1e-8).reshape(4, -1)
    # Some of the noise is large enough.
    noise[1] *= 1e7
    noise[3, -6:] *= 1e9
    arguments = kernel, [f], noise.ravel(), 1e6
    assert rotation_applies(*arguments) is None
    ours, dense = Rotation(*arguments), Cholesky(*arguments)
    targets = rng.normal(size=(f.size, 2))
    # The condition number is 1e6.
    np.testing.assert_allclose(ours.solve(targets), dense.solve(targets), rtol=1e-8, atol=1e-8)
    actual, expected = (s.likelihood(targets, eval_gradient=True) for s in (ours, dense))
    assert 0 < np.count_nonzero(expected[2] == 0) < f.size
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


# ------------------------------------------------------------------------- what is not observed


def pattern(name, n, d):
    """What is known of values and gradients at n points, (n, 1 + d)."""
    known = np.ones((n, 1 + d), bool)
    rng = np.random.default_rng([7, n, d])
    match name:
        case "one entry":
            known[0, d] = False
        case "several of a point":
            known[-1, 1 : 1 + d // 2] = False
        case "all but one of a point":
            known[0, 1:d] = False
        case "a column":
            known[:, 1] = False
        case "a column of no value":
            known[:, 1] = known[0, 0] = False
        case "at random":
            known = rng.random(known.shape) < 0.6
        case "a value":
            known[0, 0] = False
        case "no values":
            known[:, 0] = False
            known[0, 1] = False
        case "a value and some of the gradient":
            known[-1, : 1 + d // 2] = False
        case "a gradient":
            known[0, 1:] = False
        case "a point":
            known[0] = False
        case "values, and one gradient in part":
            known[1:, 1:] = False
            known[0, 1] = False
        case _:
            # Some points with values only, some with gradients only.
            known[::3, 1:] = known[1::3, 0] = False
    return known


PATTERNS = [
    "one entry",
    "several of a point",
    "all but one of a point",
    "a column",
    "a column of no value",
    "at random",
    "a value",
    "no values",
    "a value and some of the gradient",
    "a gradient",
    "a point",
    "values, and one gradient in part",
    "either",
]


def with_gaps(kernel, X, known, level=1e-4, T=2):
    """A case with what is known, and the bound that is that of the matrix without gaps."""
    c = Case(kernel, X, level, T=T)
    full = c.dense.tolerance
    c.functional = ValueGradient(X, mask=known)
    c.noise = c.noise[known.ravel()]
    c.targets = c.targets[known.ravel()]
    c.dense = Dense(kernel, [c.functional], c.noise)
    c.dense.tolerance = full
    c.ours = Rotation(kernel, [c.functional], c.noise)
    c.weights = c.dense.solve(c.targets)
    return c


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    ("kernel", "shape", "level"),
    [
        ("rbf", (4, 7), 1e-4),
        ("ard sum", (5, 9), 1e-8),
        ("dot*rbf", (4, 7), 1e-4),
        ("(white+rbf)*rq", (6, 3), 1e-4),
        ("ard matern32", (3, 6), 1e-2),
    ],
)
def test_gaps(kernel, shape, level, name):
    X = np.random.default_rng(shape).normal(size=shape)
    known = pattern(name, *shape)
    c = with_gaps(KERNELS[kernel](shape[1]), X, known, level)
    assert_learns(c)
    for functional in ("ValueGradient", "Directional", "masked Gradient", "Laplacian"):
        assert_predicts(c, functional)
    if c.wanted("Hessian") is not None:
        wanted = [c.wanted("Hessian"), c.wanted("Value")]
        prior = np.abs(covariance(c.kernel, wanted, wanted)).max()
        c.assert_near(c.ours.covariance(wanted), c.dense.covariance(wanted), prior)


@pytest.mark.parametrize("known", [[[1, 0, 1, 1]], [[0, 1, 0, 0]], [[1, 1, 0, 0]]], ids=str)
def test_gaps_of_one_point(known):
    c = with_gaps(RBF(1.5), np.array([[0.3, -0.2, 0.5]]), np.array(known, bool))
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


def test_gaps_in_one_dimension():
    known = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool)
    c = with_gaps(RBF(1.0), np.array([[0.0], [0.7], [1.5], [2.6]]), known)
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_gaps_geometry(name):
    X, _ = geometry(name)
    c = with_gaps(RBF(3.0), X, pattern("at random", *X.shape))
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


@pytest.mark.parametrize("level", [1e-8, 1e-10])
def test_gaps_badly_conditioned(level):
    X = np.random.default_rng(0).normal(size=(5, 9))
    for name in ("one entry", "a column", "at random"):
        c = with_gaps(RBF(30.0), X, pattern(name, 5, 9), level)
        assert_learns(c)
        assert_predicts(c, "ValueGradient")


def test_gaps_in_pieces(monkeypatch):
    # So small that each missing entry is a piece of its own.
    monkeypatch.setattr(rotation, "_PIECE", 16)
    X = np.random.default_rng(1).normal(size=(4, 7))
    c = with_gaps(KERNELS["ard sum"](7), X, pattern("at random", 4, 7))
    assert_learns(c)
    assert_predicts(c, "ValueGradient")


def test_blocks_in_any_order():
    rng = np.random.default_rng(4)
    X, Y, Z = rng.normal(size=(3, 3, 8))
    kernel = 1.5 * RBF(scales(8))
    weights = scales(8) ** -2.0
    observed = [Value(X), Gradient(Y), ValueGradient(Z), Value(Y)]
    of_points = np.hstack((np.full((3, 1), 1e-4), np.tile(1e-3 * weights, (3, 1))))
    noise = np.concatenate([[1e-3] * 3, *[1e-4 * weights] * 3, of_points.ravel(), [2e-4] * 3])
    dense, ours = Dense(kernel, observed, noise), Rotation(kernel, observed, noise)
    targets = dense.draw(rng.normal(size=(len(noise), 2)))
    atol = dense.tolerance
    expected = dense.solve(targets)
    actual = ours.solve(targets)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol * np.abs(expected).max())
    wanted = ValueGradient(rng.normal(size=(3, 8)))
    expected = dense.covariance(wanted)
    np.testing.assert_allclose(ours.covariance(wanted), expected, rtol=0, atol=2 * atol)
    expected = dense.mean(wanted, actual)
    np.testing.assert_allclose(ours.mean(wanted, actual), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [1.5 * RBF(9.0) + WhiteKernel(1e-3), RationalQuadratic(9.0)])
def test_gaps_max_condition(kernel):
    rng = np.random.default_rng(5)
    f = ValueGradient(rng.normal(size=(4, 6)), mask=pattern("several of a point", 4, 6))
    noise = np.full((4, 7), 1e-8)
    noise[1] *= 1e7
    arguments = kernel, [f], noise[f.mask], 1e6
    ours, dense = Rotation(*arguments), Cholesky(*arguments)
    targets = rng.normal(size=(f.size, 2))
    np.testing.assert_allclose(ours.solve(targets), dense.solve(targets), rtol=1e-8, atol=1e-8)
    actual, expected = (s.likelihood(targets, eval_gradient=True) for s in (ours, dense))
    assert 0 < np.count_nonzero(expected[2] == 0) < f.size
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


def test_gaps_likelihood_gradient_by_differences():
    X = np.random.default_rng(2).normal(size=(4, 7))
    c = with_gaps(KERNELS["ard sum"](7), X, pattern("at random", 4, 7))
    _, of_theta, of_noise = c.ours.likelihood(c.targets, eval_gradient=True)
    theta = c.kernel.theta

    def likelihood(of, i, t):
        moved = c.kernel.clone_with_theta(
            theta + t * (of == "theta") * (np.arange(len(theta)) == i)
        )
        noise = c.noise * np.exp(t * (of == "noise") * (np.arange(len(c.noise)) == i))
        return Dense(moved, [c.functional], noise).likelihood(c.targets)

    for of, found in (("theta", of_theta), ("noise", of_noise * c.noise)):
        expected = [
            difference(lambda t, of=of, i=i: likelihood(of, i, t), 0.0) for i in range(len(found))
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


# ------------------------------------------------------------------------------------ large D


def test_memory_in_many_dimensions():
    n, D = 4, 20_000
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(2, n, D))
    kernel = RBF(np.linspace(0.7, 1.5, D) * D**0.5)
    f = ValueGradient(X)
    noise = noise_of(kernel, f, 1e-6)
    targets = rng.normal(size=(f.size, 1))
    ours = Rotation(kernel, [f], noise)
    ours.likelihood(targets, eval_gradient=True)
    tracemalloc.start()
    ours = Rotation(kernel, [f], noise)
    ours.likelihood(targets, eval_gradient=True)
    variances = ours.covariance(ValueGradient(Y), diagonal=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One (D, D) array would take 3200 MB.
    assert peak < 100e6
    # The prior's, less what is known: as seen from one direction.
    v = np.zeros(D)
    v[D // 2] = 1.0
    np.testing.assert_allclose(
        variances.reshape(n, 1 + D)[:, 1 + D // 2],
        np.diag(ours.covariance(Directional(Y, v))),
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", ["ard", "ard sum", "matern52", "dot+rbf"])
def test_many_dimensions_against_cholesky(name):
    n, D = 5, 100
    rng = np.random.default_rng(0)
    f, wanted = (ValueGradient(X) for X in rng.normal(size=(2, n, D)))
    kernel = KERNELS[name](D)
    arguments = kernel, [f], noise_of(kernel, f, 1e-4)
    ours, other = Rotation(*arguments), Cholesky(*arguments)
    targets = rng.normal(size=(f.size, 1))
    actual, expected = (s.likelihood(targets, eval_gradient=True) for s in (ours, other))
    # The condition number is about 1e4 at most.
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())
    for a, b in [
        (ours.solve(targets), other.solve(targets)),
        (ours.covariance([wanted]), other.covariance([wanted])),
        (ours.covariance([wanted], diagonal=True), other.covariance([wanted], diagonal=True)),
    ]:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())


# ------------------------------------------------------------------------------------ bad input

X = np.random.default_rng(0).normal(size=(4, 3))
FULL = ValueGradient(X)


@pytest.mark.parametrize(
    ("kernel", "observed", "noise", "reason"),
    [
        (RBF(), [Value(X)], np.ones(4), "not values alone"),
        (RBF(), [Gradient(X, mask=np.zeros((4, 3), bool))], np.ones(0), "not values alone"),
        (RBF(), [FULL, Laplacian(X)], np.ones(20), "nothing but values and gradients"),
        (RBF(), [Value(X), FULL, Directional(X, X)], np.ones(24), "nothing but values"),
        (RBF([1.0, 2.0, 3.0]) + RBF(), [FULL], np.ones(16), "same ratios"),
        (RBF([1.0, 2.0, 3.0]) + DotProduct(), [FULL], np.ones(16), "same ratios"),
        (Columns(RBF(), [0, 1]), [FULL], np.ones(16), "same ratios"),
        (RBF(1e-30) + RBF(1e30), [FULL], np.ones(16), "same ratios"),
        (RBF(), [FULL], np.tile([1.0, 1.0, 2.0, 1.0], 4), "variance of the noise"),
        (RBF([1.0, 2.0, 3.0]), [FULL], np.ones(16), "variance of the noise"),
    ],
)
def test_where_it_does_not_apply(kernel, observed, noise, reason):
    assert reason in rotation_applies(kernel, observed, noise)
    with pytest.raises(ValueError, match=rf"solver='rotation' is not exact here: .*{reason}"):
        Rotation(kernel, observed, noise)


@pytest.mark.parametrize(
    ("kernel", "observed", "noise"),
    [
        (RBF(), [FULL], np.zeros(16)),
        (RBF(), [ValueGradient(X, mask=np.ones((4, 4), bool))], np.ones(16)),
        (RBF(), [Value(X), Gradient(X)], np.ones(16)),
        (RBF(), [Gradient(X, mask=X > 0)], np.ones((X > 0).sum())),
        (RBF([2.0, 2.0, 2.0]) + RBF() + DotProduct(), [FULL], np.ones(16)),
        (RBF([1.0, 2.0, 3.0]), [FULL], np.tile([7.0, 3.0, 3 / 4, 3 / 9], 4)),
    ],
)
def test_where_it_applies(kernel, observed, noise):
    assert rotation_applies(kernel, observed, noise) is None


def test_max_condition_of_other_kernels():
    arguments = Matern(nu=2.5), [FULL], np.ones(16), 1e6
    assert "max_condition" in rotation_applies(*arguments)
    with pytest.raises(ValueError, match="max_condition"):
        Rotation(*arguments)


def test_rough_kernel():
    with pytest.raises(ValueError, match="too rough"):
        Rotation(Matern(nu=0.5), [FULL], np.ones(16))


@pytest.mark.parametrize(
    ("kernel", "place"),
    [(RBF(), "along the span"), (ConstantKernel(1.0), "along the span")],
    ids=["duplicates", "constant"],
)
def test_not_positive_definite(kernel, place):
    solver = Rotation(kernel, [ValueGradient(X[[0, 1, 1]])], np.zeros(12))
    with pytest.raises(np.linalg.LinAlgError, match=rf"{place}.*alpha or alpha_gradient"):
        solver.solve(np.ones((12, 1)))


def test_not_positive_definite_across():
    # The same gradient twice, with no noise, and values that are noisy: one dimension is spanned,
    # of which the difference is far larger than that of rounding.
    noise = np.tile([1.0, 0.0, 0.0, 0.0], 3)
    solver = Rotation(RBF(), [ValueGradient(np.zeros((3, 3)))], noise)
    with pytest.raises(np.linalg.LinAlgError, match="across the span"):
        solver.solve(np.ones((12, 1)))


def test_too_large(monkeypatch):
    monkeypatch.setattr(rotation, "memory_limit", lambda: 100.0)
    solver = Rotation(RBF(), [FULL], np.ones(16))
    with pytest.raises(MemoryError, match=r"solver='rotation' needs .* GiB .* 3 dimensions"):
        solver.solve(np.ones((16, 1)))


class Weighted(Learned):
    """Depends on a hyperparameter through the weights of its dimensions too."""

    weights = np.array([1.0, 1.0, 1.0])

    def weights_gradient(self):
        return np.array([[1.0, 2.0, 3.0]])


def test_weights_of_an_own_kernel_that_are_learned():
    solver = Rotation(Weighted(1.0), [FULL], np.ones(16))
    with pytest.raises(NotImplementedError, match="solver='cholesky'"):
        solver.likelihood(np.ones((16, 1)), eval_gradient=True)
