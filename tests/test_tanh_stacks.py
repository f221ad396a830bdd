"""Derivatives of tanh bases and of stacks of them, and the transformer that has them.

**What may be expected.** A layer multiplies the errors of its inputs by its derivative, whose norm
is about 1 for weights as drawn here, and adds those of its own: z has an absolute error of a few
eps, as sums of terms of order 1, and so has 1 - tanh² z. Derivatives are products of such factors.
So errors of the largest entry are some eps for each layer and each factor: 40 eps are allowed for
a layer, of the largest entry. What single units do where they saturate is held to their last digits
at the end.
"""

import itertools
import json
import pickle

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.processes import assert_interruptible, run_python
from support.tensors import DTYPES

import kerneldiff._core
from kerneldiff import TanhBasis, _reference, numerical_jacobian, tanh

jax.config.update("jax_enable_x64", True)

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# Sizes of the layers after the points' three columns.
DEPTHS = {1: (2,), 2: (5, 2), 3: (4, 6, 2), 4: (3, 5, 4, 2)}
depths = pytest.mark.parametrize("depth", DEPTHS)


def weights_of(sizes, dtype="float64", *, seed=0):
    """Normal weights for layers of these sizes, the points' columns first; z is of order 1."""
    rng = np.random.default_rng([seed, *sizes])
    layers = [rng.normal(size=(below + 1, above)) for below, above in itertools.pairwise(sizes)]
    for W in layers:
        W[:-1] /= max(len(W) - 1, 1) ** 0.5
    return [W.astype(dtype) for W in layers]


def normal(*shape, dtype="float64", seed=1):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def fitted(X, weights):
    """A stack, or a single layer as an array."""
    return TanhBasis(weights=weights if len(weights) > 1 else weights[0]).fit(X)


def as_list(value):
    return value if isinstance(value, list) else [value]


def like(weights, value):
    """A list of arrays as the transformer wants it."""
    return value if len(weights) > 1 else value[0]


def assert_close(actual, expected, depth):
    """See the top of this file."""
    eps = np.finfo(actual.dtype).eps
    assert actual.shape == expected.shape
    bound = 40 * depth * eps * np.abs(expected).max(initial=0)
    assert (np.abs(actual - expected) <= bound).all()


# --------------------------------------------------------------------------------------------------
# The reference, then JAX
# --------------------------------------------------------------------------------------------------


def network(weights, x):
    for W in weights:
        x = jnp.tanh(x @ W[:-1] + W[-1])
    return x


def derivatives(weights, dW, G, X):
    """All that is compared, at points X, in one program."""

    def of_point(x):
        by_points = lambda point: network(weights, point)  # noqa: E731
        by_weights = lambda layers: network(layers, x)  # noqa: E731
        return {
            "transform": by_points(x),
            "jacrev": jax.jacrev(by_weights)(weights),
            "jacfwd": jax.jacfwd(by_weights)(weights),
            "input_jacobian": jax.jacrev(by_points)(x),
            "input_jacobian forward": jax.jacfwd(by_points)(x),
            "input_hessian": jax.hessian(by_points)(x),
            "jvp": jax.jvp(by_weights, (weights,), (dW,))[1],
        }

    results = jax.vmap(of_point)(X)
    every = lambda layers: jax.vmap(lambda x: network(layers, x))(X)  # noqa: E731
    return results | {"vjp": jax.vjp(every, weights)[1](G)[0]}


@pytest.fixture(scope="module", params=DEPTHS)
def case(request):
    """Points, weights, directions and what JAX says."""
    sizes = (3, *DEPTHS[request.param])
    X, weights = normal(7, 3), weights_of(sizes)
    dW, G = [normal(*W.shape, seed=2) for W in weights], normal(7, sizes[-1], seed=3)
    expected = jax.jit(derivatives)(weights, dW, G, X)
    return X, weights, dW, G, jax.tree.map(np.asarray, expected)


@pytest.mark.quick(1)
def test_reference(case):
    X, weights, _, _, expected = case
    depth = len(weights)
    assert_close(_reference.tanh_stack(X, weights), expected["transform"], depth)
    jacobians = _reference.tanh_stack_jacobians(X, weights)
    for actual, other in zip(jacobians, expected["jacrev"], strict=True):
        assert_close(actual, other, depth)
    assert_close(_reference.tanh_input_jacobian(X, weights), expected["input_jacobian"], depth)
    assert_close(_reference.tanh_input_hessian(X, weights), expected["input_hessian"], depth)


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", ["transform", "input_jacobian", "input_hessian"])
def test_functions_of_points(case, method):
    X, weights, _, _, expected = case
    assert_close(getattr(fitted(X, weights), method)(X), expected[method], len(weights))


def test_input_jacobian_forward(case):
    X, weights, _, _, expected = case
    actual = fitted(X, weights).input_jacobian(X)
    assert_close(actual, expected["input_jacobian forward"], len(weights))


@pytest.mark.parametrize("mode", ["jacrev", "jacfwd"])
def test_jacobian(case, mode):
    X, weights, _, _, expected = case
    jacobians = as_list(fitted(X, weights).jacobian(X, layout="full"))
    assert [J.shape for J in jacobians] == [(7, 2, *W.shape) for W in weights]
    for actual, other in zip(jacobians, expected[mode], strict=True):
        assert_close(actual, other, len(weights))


def test_jvp(case):
    X, weights, dW, _, expected = case
    actual = fitted(X, weights).jvp(X, like(weights, dW))
    assert_close(actual, expected["jvp"], len(weights))


def test_vjp(case):
    X, weights, _, G, expected = case
    products = as_list(fitted(X, weights).vjp(X, G))
    for actual, other in zip(products, expected["vjp"], strict=True):
        assert_close(actual, other, len(weights))


@pytest.mark.exhaustive
def test_log_abs_det_of_jax():
    """The Jacobian's determinant, as JAX and LAPACK have it."""
    X, weights = normal(5, 3), weights_of((3, 4, 3, 5, 3))
    expected = np.linalg.slogdet(
        jax.vmap(jax.jacrev(lambda x: network(weights, x)))(X),
    )[1]
    # Four layers that shrink volumes: conditions of about 100 are in the exponents.
    actual = fitted(X, weights).log_abs_det_jacobian(X)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


# --------------------------------------------------------------------------------------------------
# The reference in long double, for both types and sizes around blocks and vectors
# --------------------------------------------------------------------------------------------------

# Points and sizes of layers.
SIZES = [
    *[(1, 1, 1, 1), (3, 2, 1, 1), (2, 1, 7, 2), (5, 3, 8, 9, 4), (4, 2, 17, 3), (9, 4, 3, 16, 5)],
    *[(3, 2, 65, 2), (2, 5, 3, 129), (67, 1, 3, 2), (700, 2, 3, 2), (2, 1, 530, 1)],
]
sizes_of = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


def long(arrays):
    return [array.astype(np.longdouble) for array in arrays]


@dtypes
@sizes_of
def test_jacobian_of_sizes(size, dtype):
    X, weights = normal(size[0], size[1], dtype=dtype), weights_of(size[1:], dtype)
    expected = _reference.tanh_stack_jacobians(*long([X]), long(weights))
    for actual, other in zip(fitted(X, weights).jacobian(X), expected, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, other, len(weights))


@dtypes
@sizes_of
@pytest.mark.parametrize("name", ["input_jacobian", "input_hessian"])
def test_derivatives_by_points_of_sizes(size, dtype, name):
    X, weights = normal(size[0], size[1], dtype=dtype), weights_of(size[1:], dtype)
    expected = getattr(_reference, f"tanh_{name}")(*long([X]), long(weights))
    actual = getattr(fitted(X, weights), name)(X)
    assert actual.dtype == dtype
    # Second derivatives are sums over all layers, of products with two factors of each.
    assert_close(actual, expected, 3 * len(weights))


@dtypes
@sizes_of
def test_products_of_sizes(size, dtype):
    """Without the arrays as with them, and also for the points."""
    X, weights = normal(size[0], size[1], dtype=dtype), weights_of(size[1:], dtype)
    dW, dX = [normal(*W.shape, dtype=dtype) for W in weights], normal(*X.shape, dtype=dtype)
    G = normal(len(X), size[-1], dtype=dtype)
    jacobians = [
        *_reference.tanh_stack_jacobians(*long([X]), long(weights)),
        _reference.tanh_input_jacobian(*long([X]), long(weights)),
    ]
    letters = ["nkab,ab->nk"] * len(weights) + ["nka,na->nk"]
    moved = sum(map(np.einsum, letters, jacobians, [*dW, dX]))
    assert_close(tanh._tangent(X, weights, dW, dX), moved, 3 * len(weights))
    of_weights, of_points = tanh._backward(X, weights, None, G)
    for actual, J in zip([*of_weights, of_points], jacobians, strict=True):
        letters = "nk,nkab->ab" if J.ndim == 4 else "nk,nka->na"
        expected = np.einsum(letters, G, J)
        eps = np.finfo(dtype).eps
        # Sums of terms of either sign: errors are relative to the terms.
        bound = 40 * 3 * len(weights) * eps * np.einsum(letters, np.abs(G), np.abs(J)).max()
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        assert (np.abs(actual - expected) <= bound).all()


@depths
def test_activations_may_be_at_hand(depth):
    X, weights = normal(31, 3), weights_of((3, *DEPTHS[depth]))
    G = normal(31, 2)
    activations = tanh._forward(X, weights)
    assert [h.shape for h in activations] == [(31, W.shape[1]) for W in weights]
    np.testing.assert_array_equal(activations[-1], fitted(X, weights).transform(X))
    with_them, of_points = tanh._backward(X, weights, activations, G)
    without, same = tanh._backward(X, weights, None, G)
    np.testing.assert_array_equal(of_points, same)
    for actual, expected in zip(with_them, without, strict=True):
        np.testing.assert_array_equal(actual, expected)


@dtypes
@depths
@pytest.mark.parametrize("n", [1, 40, 3001])
def test_adjoint(depth, n, dtype):
    """<vjp(G), dW> = <G, jvp(dW)>."""
    X, weights = normal(n, 3, dtype=dtype), weights_of((3, *DEPTHS[depth]), dtype)
    dW, G = [normal(*W.shape, dtype=dtype) for W in weights], normal(n, 2, dtype=dtype)
    basis = fitted(X, weights)
    forward = basis.jvp(X, like(weights, dW)).astype(float) * G
    pulled = [v.astype(float) * w for v, w in zip(as_list(basis.vjp(X, G)), dW, strict=True)]
    # Roundings of each layer, relative to the terms on both sides.
    bound = 40 * depth * np.finfo(dtype).eps * np.abs(G).sum() * max(np.abs(forward).max(), 1)
    assert abs(forward.sum() - sum(map(np.sum, pulled))) <= bound


@dtypes
@pytest.mark.parametrize("n", [0, 5])
@pytest.mark.parametrize("sizes", [(3, 4, 2), (0, 4, 2), (3, 0, 2), (3, 2, 0)], ids=str)
def test_nothing(n, sizes, dtype):
    """No points, no columns, no units."""
    X, weights = normal(n, sizes[0], dtype=dtype), weights_of(sizes, dtype)
    G = normal(n, sizes[-1], dtype=dtype)
    expected = _reference.tanh_stack(X, weights)
    assert_close(tanh._forward(X, weights)[-1], expected, 2)
    of_weights, of_points = tanh._backward(X, weights, None, G)
    assert [W.shape for W in of_weights] == [W.shape for W in weights]
    assert of_points.shape == X.shape
    # Of slopes that are good to the bound of `assert_close`, and sums of n terms.
    terms = G * (1 - expected.astype(float) ** 2)
    atol = 80 * np.finfo(dtype).eps * np.abs(G).sum(axis=0).max(initial=0)
    np.testing.assert_allclose(of_weights[-1][-1], terms.sum(axis=0), rtol=0, atol=atol)
    assert tanh._tangent(X, weights, weights, X).shape == G.shape
    shape = (n, sizes[-1], sizes[0])
    np.testing.assert_array_equal(
        tanh._input_jacobian(X, weights).shape, _reference.tanh_input_jacobian(X, weights).shape
    )
    assert tanh._input_hessian(X, weights).shape == (*shape, sizes[0])
    assert [J.shape[2:] for J in tanh._stack_jacobians(X, weights)] == [W.shape for W in weights]


# --------------------------------------------------------------------------------------------------
# Layouts
# --------------------------------------------------------------------------------------------------


def test_matrix_of_a_stack():
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    basis = fitted(X, weights)
    for matrix, J in zip(basis.jacobian(X, layout="matrix"), basis.jacobian(X), strict=True):
        np.testing.assert_array_equal(matrix, J.reshape(10, -1))


def test_no_compact_layout_of_a_stack():
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    with pytest.raises(ValueError, match="layout is 'compact'; for a stack of layers it may be"):
        fitted(X, weights).jacobian(X, layout="compact")


def test_unknown_layout_of_a_stack():
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    with pytest.raises(ValueError, match="layout is 'dense'; it may be one of"):
        fitted(X, weights).jacobian(X, layout="dense")


def test_no_out_of_a_stack():
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    with pytest.raises(ValueError, match="out is given; for a stack of layers it must be None"):
        fitted(X, weights).jacobian(X, out=np.empty((5, 2, 5, 2)))


def test_pieces(monkeypatch):
    """Results that are made piece by piece do not depend on the pieces."""
    X, weights = normal(50, 3), weights_of((3, 5, 4, 3))
    basis = fitted(X, weights)
    methods = [basis.jacobian, basis.input_jacobian, basis.input_hessian]
    methods.append(basis.log_abs_det_jacobian)
    whole = [as_list(method(X)) for method in methods]
    monkeypatch.setattr(tanh, "_PIECE", 100)
    for method, arrays in zip(methods, whole, strict=True):
        for actual, expected in zip(as_list(method(X)), arrays, strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_memory_is_asked_for_first():
    X, weights = normal(10, 3), weights_of((3, 3000, 3000))
    with pytest.raises(MemoryError, match=r"needs \S+ GiB.* fewer points"):
        fitted(X, weights).jacobian(np.zeros((2_000_000, 3)))


# --------------------------------------------------------------------------------------------------
# Differences
# --------------------------------------------------------------------------------------------------


@depths
def test_numerical_jacobian(depth):
    """Of standardised points to 1e-9, as promised."""
    X = StandardScaler().fit_transform(normal(60, 3))
    basis = TanhBasis(4, hidden_layer_sizes=DEPTHS[depth][:-1], random_state=0).fit(X)
    for actual, expected in zip(
        as_list(basis.numerical_jacobian(X)), as_list(basis.jacobian(X)), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9)


def test_numerical_jacobian_is_that_of_the_transformer():
    """It sees a wrong Jacobian: here one of other weights."""
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    basis, other = fitted(X, weights), fitted(X, weights)
    other.weights_ = [W + 0.1 for W in weights]
    for actual, expected in zip(other.numerical_jacobian(X), basis.jacobian(X), strict=True):
        assert np.abs(actual - expected).max() > 1e-3


def test_numerical_jacobian_of_another_step():
    """With a large step the truncation shows, so that eps is what it says."""
    X, weights = normal(5, 3), weights_of((3, 4, 2))
    basis = fitted(X, weights)
    for step, least, most in [(0.1, 1e-4, 0.1), (0.01, 1e-6, 1e-3)]:
        numerical = basis.numerical_jacobian(X, eps=step)
        for actual, expected in zip(numerical, basis.jacobian(X), strict=True):
            assert least < np.abs(actual - expected).max() < most


@pytest.mark.parametrize("method", ["transform", "input_jacobian"])
def test_differences_by_points(method):
    """SciPy's differences, which are good to 1e-9 or better here."""
    X, weights = normal(4, 3), weights_of((3, 5, 3, 2))
    basis = fitted(X, weights)
    derivative = {"transform": "input_jacobian", "input_jacobian": "input_hessian"}[method]
    for i in range(4):
        expected = numerical_jacobian(lambda x: getattr(basis, method)(x[None])[0], X[i])
        np.testing.assert_allclose(getattr(basis, derivative)(X)[i], expected, rtol=0, atol=1e-8)


# --------------------------------------------------------------------------------------------------
# Where units saturate: functions of the computed z, against 50 digits
# --------------------------------------------------------------------------------------------------

# 1 - tanh² is a normal number up to the first and not zero up to the second.
NORMAL, LAST = {"float64": 354.0, "float32": 43.0}, {"float64": 372.8, "float32": 52.4}


def ends(dtype):
    """z from tiny to where nothing is left, of both signs, as points."""
    z = np.concatenate([
        np.geomspace(1e-12, LAST[dtype], 90),
        np.linspace(0.1, NORMAL[dtype], 40),
        np.linspace(NORMAL[dtype], LAST[dtype], 15),
    ]).astype(dtype)  # fmt: skip
    return np.concatenate([z, -z, np.zeros(1, dtype)])[:, None]


def assert_ulps(actual, exact, ulps):
    """Within so many units in the last place; of subnormal numbers, smallest ones."""
    actual = np.asarray(actual)
    info = np.finfo(actual.dtype)
    with mpmath.workdps(50):
        for value, true in zip(actual.ravel(), exact, strict=True):
            spacing = max(2.0 ** (mpmath.frexp(true)[1] - info.nmant - 1), info.smallest_subnormal)
            assert abs(mpmath.mpf(float(value)) - true) <= ulps * mpmath.mpf(float(spacing))


@pytest.fixture(params=DTYPES)
def single(request):
    """One unit with z = x, its points, and 1 - tanh² and tanh of them."""
    X = ends(request.param)
    with mpmath.workdps(50):
        z = [mpmath.mpf(float(x)) for x in X[:, 0]]
        slopes, values = [mpmath.sech(x) ** 2 for x in z], [mpmath.tanh(x) for x in z]
    return TanhBasis(weights=np.array([[1], [0]], X.dtype)).fit(X), X, slopes, values


def test_values_to_3_ulp(single):
    basis, X, _, values = single
    assert_ulps(basis.transform(X), values, 3)


def test_input_jacobian_to_5_ulp(single):
    basis, X, slopes, _ = single
    assert_ulps(basis.input_jacobian(X), slopes, 5)


def test_jacobian_to_5_ulp(single):
    basis, X, slopes, _ = single
    assert_ulps(basis.jacobian(X)[:, 1], slopes, 5)


def test_jvp_to_5_ulp(single):
    basis, X, slopes, _ = single
    assert_ulps(basis.jvp(X, np.array([[0], [1]], X.dtype)), slopes, 5)


def test_vjp_to_5_ulp(single):
    """One point at a time, as a product is a sum over points."""
    basis, X, slopes, _ = single
    one = np.ones((1, 1), X.dtype)
    assert_ulps(np.stack([basis.vjp(x[None], one)[1] for x in X]), slopes, 5)


def test_cotangent_of_points_to_5_ulp(single):
    basis, X, slopes, _ = single
    _, of_points = tanh._backward(X, [basis.weights_], None, np.ones_like(X))
    assert_ulps(of_points, slopes, 5)


def test_input_hessian_saturated(single):
    """Errors of tanh and of its slope, and four roundings of roots and products."""
    basis, X, slopes, values = single
    with mpmath.workdps(50):
        exact = [-2 * t * s for s, t in zip(slopes, values, strict=True)]
    assert_ulps(basis.input_hessian(X), exact, 3 + 5 + 4)


def test_log_slope_saturated(single):
    """Also where the slope itself is zero; two roundings, absolute for small |z|."""
    basis, X, _, _ = single
    X = np.concatenate([X, np.array([[1e3], [-1e6]], X.dtype)])
    with mpmath.workdps(50):
        exact = [2 * mpmath.log(mpmath.sech(float(x))) for x in X[:, 0]]
    assert_ulps(basis.log_abs_det_jacobian(X), exact, 4)


@dtypes
def test_second_layer_saturated(dtype):
    """A product of two slopes: functions of z of the first layer and of the computed z of the next.

    The second layer's z is 200 h, or 24 h, with an h that is close to 1; its slope is tiny."""
    X = ends(dtype)
    X = X[np.abs(X[:, 0]) < NORMAL[dtype] / 4]
    gain = {"float64": 200, "float32": 24}[dtype]
    weights = [np.array([[1], [0]], dtype), np.array([[gain], [0]], dtype)]
    basis = TanhBasis(weights=weights).fit(X)
    h = tanh._forward(X, weights[:1])[0].astype(float)
    with mpmath.workdps(50):
        exact = [
            mpmath.sech(float(x)) ** 2 * gain * mpmath.sech(gain * mpmath.mpf(float(t))) ** 2
            for x, t in zip(X[:, 0], h[:, 0], strict=True)
        ]
    # 5 ulp of each slope, and two products; gain times h is rounded, which moves the second slope
    # by 2 gain h / 2 ulp at most.
    assert_ulps(basis.input_jacobian(X), exact, 12 + gain)
    assert_ulps(basis.jacobian(X)[0][:, 0, 1, 0], exact, 12 + gain)
    one = [np.zeros((2, 1), dtype) for _ in range(2)]
    one[0][1] = 1
    assert_ulps(basis.jvp(X, one), exact, 12 + gain)
    least = {"float64": 1e-100, "float32": 1e-15}[dtype]
    assert np.abs(np.array(exact, float)).min() < least


@dtypes
def test_far_beyond(dtype):
    """No units that are not zero, no NaN and no warnings where z overflows."""
    largest = np.finfo(dtype).max
    X = np.array([[largest, largest], [-largest, largest], [1, 1]], dtype)
    weights = [np.array([[1, 4], [4, 1], [0, 0]], dtype)]
    basis = fitted(X, weights)
    for method in ("jacobian", "input_jacobian", "input_hessian"):
        assert (getattr(basis, method)(X[:2]) == 0).all()
    assert (basis.log_abs_det_jacobian(X[:2]) == -np.inf).all()
    assert np.isfinite(basis.log_abs_det_jacobian(X[2:])).all()


# --------------------------------------------------------------------------------------------------
# Determinants
# --------------------------------------------------------------------------------------------------


def exact_log_abs_det(weights, x, digits):
    with mpmath.workdps(digits):
        h, J = mpmath.matrix([float(v) for v in x]), mpmath.eye(len(x))
        for W in weights:
            A = mpmath.matrix(W[:-1].astype(float).tolist()).T
            z = A * h + mpmath.matrix(W[-1].astype(float).tolist())
            J = mpmath.diag([mpmath.sech(v) ** 2 for v in z]) * A * J
            h = z.apply(mpmath.tanh)
        return float(mpmath.log(abs(mpmath.det(J))))


@dtypes
@pytest.mark.parametrize("gain", [0.5, 3, 20, 60])
@pytest.mark.parametrize("hidden", [(), (3,), (3, 3, 3), (5,), (4, 6), (6, 3, 5)], ids=str)
def test_log_abs_det(hidden, gain, dtype):
    """From nearly linear to so saturated that the determinant is far below the smallest number."""
    X, weights = normal(3, 3, dtype=dtype), weights_of((3, *hidden, 3), dtype, seed=5)
    for W in weights:
        W[:-1] *= gain
    actual = fitted(X, weights).log_abs_det_jacobian(X)
    assert actual.dtype == dtype
    # Errors of z, up to 2 eps S, appear twice in the logarithm of each of the slopes of a layer; S
    # is about gain times the square root of its inputs. Conditions of the matrices come on top.
    units = sum(W.shape[1] for W in weights)
    bound = 100 * units * max(gain, 1) * np.finfo(dtype).eps
    for value, x in zip(actual, X, strict=True):
        assert abs(value - exact_log_abs_det(weights, x, 1000)) <= bound


@dtypes
@pytest.mark.parametrize(
    "slopes",
    [np.zeros((2, 2)), [[1, 1], [1, 1]], [[1, 0], [5, 0]], [[2, 4], [1, 2]]],
    ids=["zeros", "twice", "a unit without slopes", "multiples"],
)
@pytest.mark.parametrize("hidden", [(), (2,), (3,)], ids=str)
def test_singular(hidden, slopes, dtype):
    """-inf and nothing said: warnings are errors here."""
    X, weights = normal(4, 2, dtype=dtype), weights_of((2, *hidden, 2), dtype)
    weights[-1 if hidden != (3,) else 0][:2, :2] = slopes
    if hidden == (3,):
        weights[0][:2, 2] = 0
    result = fitted(X, weights).log_abs_det_jacobian(X)
    if hidden == (3,) and np.linalg.matrix_rank(slopes) == 1:
        # Found by orthogonalisation, which leaves roundings.
        assert (result < np.log(np.finfo(dtype).eps)).all()
    else:
        np.testing.assert_array_equal(result, -np.inf)


def test_narrow_layer():
    """A layer of fewer units than columns: what comes out has no volume."""
    X, weights = normal(4, 3), weights_of((3, 2, 3))
    np.testing.assert_array_equal(fitted(X, weights).log_abs_det_jacobian(X), -np.inf)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("hidden", [(), (3,)], ids=str)
def test_determinant_of_what_is_not_square(hidden, k):
    X, weights = normal(4, 3), weights_of((3, *hidden, k))
    with pytest.raises(ValueError, match=f"n_components is {k} and X has 3 columns; a determinant"):
        fitted(X, weights).log_abs_det_jacobian(X)


def test_volumes():
    """What it is for: the area of the image of a small square."""
    X, weights = normal(6, 2), weights_of((2, 4, 2))
    basis, side = fitted(X, weights), 1e-4
    corners = X[:, None] + side * np.array([[0, 0], [1, 0], [0, 1]])
    image = basis.transform(corners.reshape(-1, 2)).reshape(6, 3, 2)
    edges = image[:, 1:] - image[:, :1]
    # One-sided differences: errors of the side's size.
    areas = np.abs(np.linalg.det(edges)) / side**2
    np.testing.assert_allclose(np.log(areas), basis.log_abs_det_jacobian(X), atol=100 * side)


# --------------------------------------------------------------------------------------------------
# Threads and interrupts
# --------------------------------------------------------------------------------------------------

DIGESTS = """
import hashlib, json
import numpy as np
from support.tensors import DTYPES
from kerneldiff import TanhBasis, tanh
digests = {}
for dtype in DTYPES:
    rng = np.random.default_rng(0)
    X, G = rng.normal(size=(20011, 5)).astype(dtype), rng.normal(size=(20011, 5)).astype(dtype)
    for hidden in [(), (33, 7)]:
        basis = TanhBasis(5, hidden_layer_sizes=hidden, random_state=0).fit(X)
        dW = basis.vjp(X[:100], G[:100])
        layers = basis._layers()
        arrays = {
            "transform": basis.transform(X), "vjp": basis.vjp(X, G), "jvp": basis.jvp(X, dW),
            "points": tanh._backward(X, layers, None, G)[1],
            "jacobian": basis.jacobian(X[:2000]), "input_jacobian": basis.input_jacobian(X),
            "input_hessian": basis.input_hessian(X[:5000]),
            "log_abs_det": basis.log_abs_det_jacobian(X[:5000]),
        }
        for name, value in arrays.items():
            value = value if isinstance(value, list) else [value]
            whole = b"".join(array.tobytes() for array in value)
            digests[f"{name} {dtype} {hidden}"] = hashlib.sha256(whole).hexdigest()
print(json.dumps(digests))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(
    not kerneldiff._core.config()["openmp"], reason="built without OpenMP: there is one thread"
)
def test_same_bits_for_any_number_of_threads():
    one, two, three = (json.loads(run_python(DIGESTS, threads=threads)) for threads in (1, 2, 3))
    assert one == two
    assert one == three


INTERRUPTED = """
import numpy as np
from kerneldiff import TanhBasis
from support.processes import report_interrupt
# A call takes seconds, in which nothing of Python looks at signals.
n, d, k = 3000, 2000, 2000
basis = TanhBasis(weights=np.full((d + 1, k), 1e-3)).fit(np.ones((1, d)))
X, G = np.ones((n, d)), np.ones((n, k))
report_interrupt(lambda: [basis.vjp(X, G) for _ in range(10)])
# As usable as before.
small = TanhBasis(weights=[[1.0], [0.0]]).fit([[0.5]])
assert abs(small.vjp([[0.0]], [[3.0]])[1, 0] - 3) < 1e-14
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="signals are those of POSIX")
def test_ctrl_c():
    # The slowest instruction set: what it does between two looks at signals takes longest.
    assert_interruptible(INTERRUPTED, isa="baseline", threads=1)


# --------------------------------------------------------------------------------------------------
# The transformer
# --------------------------------------------------------------------------------------------------


@parametrize_with_checks([TanhBasis(3, hidden_layer_sizes=(4, 2), random_state=0)])
def test_estimator(estimator, check):
    check(estimator)


@pytest.fixture
def X():
    return normal(23, 3)


@pytest.fixture
def stack(X):
    return TanhBasis(2, hidden_layer_sizes=(5, 4), random_state=0).fit(X)


def test_weights_drawn(X):
    """N(0, scale²) in all layers alike."""
    basis = TanhBasis(70, hidden_layer_sizes=[60, 50], scale=3.0, random_state=0).fit(X)
    assert [W.shape for W in basis.weights_] == [(4, 60), (61, 50), (51, 70)]
    for W in basis.weights_:
        # The deviation of n numbers is known to scale / sqrt(2 n); five of these.
        assert abs(W.std() - 3) <= 5 * 3 / np.sqrt(2 * W.size)
    assert np.unique(np.concatenate([W.ravel() for W in basis.weights_])).size == 240 + 3050 + 3570


@pytest.mark.parametrize("hidden", [5, (5,), [5], np.array([5]), (np.int64(5),)], ids=repr)
def test_ways_to_give_sizes(X, hidden):
    basis = TanhBasis(2, hidden_layer_sizes=hidden, random_state=0).fit(X)
    assert [W.shape for W in basis.weights_] == [(4, 5), (6, 2)]


@pytest.mark.parametrize("hidden", [(), [], np.array([], int)], ids=repr)
def test_no_hidden_layers(X, hidden):
    basis = TanhBasis(2, hidden_layer_sizes=hidden, random_state=0).fit(X)
    np.testing.assert_array_equal(basis.weights_, TanhBasis(2, random_state=0).fit(X).weights_)


@pytest.mark.parametrize("convert", [list, tuple, lambda Ws: [W.tolist() for W in Ws]])
def test_weights_given(X, convert):
    weights = weights_of((3, 5, 2))
    basis = TanhBasis(99, hidden_layer_sizes=(7, 7, 7), weights=convert(weights)).fit(X)
    assert isinstance(basis.weights_, list)
    for actual, expected in zip(basis.weights_, weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
        assert actual is not expected


def test_list_of_one(X):
    """A stack of one layer is a layer."""
    (W,) = weights_of((3, 5))
    basis = TanhBasis(weights=[W]).fit(X)
    np.testing.assert_array_equal(basis.weights_, W)
    assert basis.vjp(X, np.ones((23, 5))).shape == (4, 5)


def test_random_state(X):
    def drawn(seed):
        return TanhBasis(hidden_layer_sizes=(4,), random_state=seed).fit(X).weights_[0]

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()


def test_types(X):
    """float32 where everything is, and float64 otherwise."""
    single = X.astype(np.float32)
    basis = TanhBasis(3, hidden_layer_sizes=(4,), random_state=0).fit(single)
    G, dW = np.ones((23, 3), np.float32), [W.astype(np.float32) for W in basis.weights_]
    for result in (
        basis.transform(single),
        basis.jvp(single, dW),
        basis.input_jacobian(single),
        basis.input_hessian(single),
        basis.log_abs_det_jacobian(single),
        *basis.jacobian(single),
        *basis.vjp(single, G),
    ):
        assert result.dtype == np.float32
    assert basis.transform(X).dtype == np.float64
    assert basis.vjp(single, G.astype(float))[0].dtype == np.float64
    assert basis.vjp(single, G.astype(int))[0].dtype == np.float64
    assert basis.jvp(single, [dW[0].astype(float), dW[1]]).dtype == np.float64
    assert basis.numerical_jacobian(single)[0].dtype == np.float64


def test_mixed_weights_become_float64(X):
    first, second = weights_of((3, 5, 2))
    basis = TanhBasis(weights=[first.astype(np.float32), second]).fit(X)
    assert {W.dtype for W in basis.weights_} == {np.dtype(float)}


@pytest.mark.parametrize("method", ["vjp", "jvp"])
@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1].copy()[::-1]])
def test_layouts_of_the_inputs(stack, X, method, layout):
    other = {"vjp": [normal(23, 2)], "jvp": [normal(*W.shape) for W in stack.weights_]}[method]
    wrapped = [layout(array) for array in other]
    expected = getattr(stack, method)(X, other[0] if method == "vjp" else other)
    actual = getattr(stack, method)(layout(X), wrapped[0] if method == "vjp" else wrapped)
    for a, b in zip(as_list(actual), as_list(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_feature_names(stack):
    np.testing.assert_array_equal(stack.get_feature_names_out(), ["tanhbasis0", "tanhbasis1"])


def test_in_a_pipeline(X):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    pipeline = make_pipeline(
        StandardScaler(), TanhBasis(4, hidden_layer_sizes=(3,), random_state=0)
    )
    out = pipeline.set_output(transform="pandas").fit_transform(frame)
    assert list(out.columns) == [f"tanhbasis{k}" for k in range(4)]
    assert out.shape == (23, 4)


def test_pickle(stack, X):
    other = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(other.transform(X), stack.transform(X))
    np.testing.assert_array_equal(
        other.vjp(X, np.ones((23, 2)))[0], stack.vjp(X, np.ones((23, 2)))[0]
    )


def test_clone(X):
    basis = TanhBasis(weights=weights_of((3, 5, 2))).fit(X)
    other = clone(basis)
    assert not hasattr(other, "weights_")
    np.testing.assert_array_equal(other.fit(X).transform(X), basis.transform(X))


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------

METHODS = {
    "jvp": lambda basis, X: basis.jvp(X, getattr(basis, "weights_", None)),
    "vjp": lambda basis, X: basis.vjp(X, np.ones((len(X), 3))),
    **{
        name: lambda basis, X, name=name: getattr(basis, name)(X)
        for name in (
            *("transform", "jacobian", "input_jacobian", "input_hessian", "numerical_jacobian"),
            "log_abs_det_jacobian",
        )
    },
}
methods = pytest.mark.parametrize("method", METHODS)


@methods
@pytest.mark.parametrize("hidden", [(), (4,)], ids=str)
def test_not_fitted(method, hidden, X):
    with pytest.raises(ValueError, match="not fitted"):
        METHODS[method](TanhBasis(3, hidden_layer_sizes=hidden), X)


@methods
@pytest.mark.parametrize("hidden", [(), (4,)], ids=str)
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones((2, 4)), "4 features.*3 features"),
        (np.ones(3), "Expected 2D array, got 1D array"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.full((2, 3), np.inf), "infinity"),
        (np.ones((2, 3), complex), "omplex"),
    ],
    ids=["columns", "1-D", "NaN", "infinity", "complex"],
)
def test_bad_points(method, hidden, bad, match, X):
    basis = TanhBasis(3, hidden_layer_sizes=hidden, random_state=0).fit(X)
    with pytest.raises(ValueError, match=match):
        METHODS[method](basis, bad)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes\[1\] is 0; it must be an integer"),
        ({"hidden_layer_sizes": (2.5,)}, r"hidden_layer_sizes\[0\] is 2.5; it must be an integer"),
        ({"hidden_layer_sizes": -1}, r"hidden_layer_sizes\[0\] is -1; it must be an integer"),
        ({"hidden_layer_sizes": "many"}, "hidden_layer_sizes is 'many'; it must be a sequence"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes is None; it must be a sequence"),
        ({"hidden_layer_sizes": 2.0}, "hidden_layer_sizes is 2.0; it must be a sequence"),
        ({"hidden_layer_sizes": (3,), "n_components": 0}, "n_components is 0"),
        (
            {"weights": [np.ones((3, 5)), np.ones((6, 2))]},
            r"weights\[0\] has 3 rows and X has 3 columns; it must have one row for each column",
        ),
        (
            {"weights": [np.ones((4, 5)), np.ones((6, 2)), np.ones((2, 2))]},
            r"weights\[2\] has 2 rows and weights\[1\] has 2 columns; it must have one row",
        ),
        ({"weights": [np.ones((4, 5)), np.full((6, 2), np.nan)]}, r"weights\[1\].*NaN"),
        ({"weights": [np.ones((4, 5)), np.ones(6)]}, r"weights\[1\].*Expected 2D array"),
        ({"weights": [np.ones((4, 5)), [["a"]]]}, r"weights\[1\] is of type"),
        ({"weights": np.ones((2, 4, 3))}, "weights: Found array with dim 3"),
        ({"weights": []}, "weights.*Expected 2D array"),
        ({"weights": 3.0}, "weights.*Expected 2D array"),
    ],
    ids=str,
)
def test_bad_parameters(stack, X, parameters, match):
    """Told when it is fitted, and an older fit stays as it was."""
    before, columns = stack.weights_, stack.n_features_in_
    stack.set_params(**parameters)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        stack.fit(X)
    assert stack.weights_ is before
    assert stack.n_features_in_ == columns
    assert stack.transform(X).shape == (23, 2)


def changed(weights, layer, value):
    return [value if i == layer else W for i, W in enumerate(weights)]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda Ws: Ws[0], "dW is of type ndarray; it must be a list of 3 arrays"),
        (lambda Ws: Ws[:2], "dW has 2 entries; it must be a list of 3 arrays"),
        (lambda Ws: changed(Ws, 1, Ws[1].T), r"dW\[1\] has shape \(4, 6\); it must have shape"),
        (lambda Ws: changed(Ws, 2, Ws[2][0]), r"dW\[2\].*Expected 2D array"),
        (lambda Ws: changed(Ws, 0, Ws[0] * np.inf), r"dW\[0\].*infinity"),
        (lambda Ws: changed(Ws, 0, Ws[0] + 1j), r"dW\[0\].*omplex"),
    ],
    ids=["array", "too few", "transposed", "1-D", "infinity", "complex"],
)
def test_bad_tangents(stack, X, make, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        stack.jvp(X, make(stack.weights_))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones((3, 5)), r"dW has shape \(3, 5\); it must have shape \(4, 5\)"),
        (np.ones(4), "dW.*Expected 2D array"),
        (np.full((4, 5), np.nan), "dW.*NaN"),
        ([np.ones((4, 5))], "dW.*dim 3"),
    ],
    ids=["shape", "1-D", "NaN", "list"],
)
def test_bad_tangent_of_a_layer(X, bad, match):
    basis = TanhBasis(5, random_state=0).fit(X)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        basis.jvp(X, bad)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones((23, 3)), r"cotangent has shape \(23, 3\); it must have shape \(23, 2\)"),
        (np.ones((2, 23)), r"cotangent has shape \(2, 23\); it must have shape \(23, 2\)"),
        (np.ones(23), "cotangent.*Expected 2D array"),
        (np.ones((23, 2), complex), "cotangent.*omplex"),
        (np.array([["a", "b"]] * 23), "cotangent is of type"),
    ],
    ids=["columns", "transposed", "1-D", "complex", "strings"],
)
@pytest.mark.parametrize("hidden", [(), (4,)], ids=str)
def test_bad_cotangents(X, hidden, bad, match):
    basis = TanhBasis(2, hidden_layer_sizes=hidden, random_state=0).fit(X)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        basis.vjp(X, bad)


@dtypes
@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (11, 1), (22, 1)])
@pytest.mark.parametrize("hidden", [(), (4,)], ids=str)
def test_cotangents_that_are_not_finite(X, hidden, at, value, scale, dtype):
    """Wherever they are, also where the slope they meet is zero."""
    X = X.astype(dtype)
    basis = TanhBasis(2, hidden_layer_sizes=hidden, random_state=0, scale=scale).fit(X)
    G = np.ones((23, 2), dtype)
    G[at] = value
    with pytest.raises(ValueError, match=r"cotangent.*(NaN|infinity)"):
        basis.vjp(X, G)


def test_infinities_that_cancel(X):
    basis = TanhBasis(2, random_state=0).fit(X)
    G = np.zeros((23, 2))
    G[3], G[4] = np.inf, -np.inf
    with pytest.raises(ValueError, match=r"cotangent.*infinity"):
        basis.vjp(X, G)


def test_cotangents_that_overflow(X):
    """Finite ones are no mistake, whatever comes of them."""
    basis = TanhBasis(weights=np.zeros((4, 2))).fit(X)
    product = basis.vjp(X, np.full((23, 2), 1e308))
    assert np.isinf(product[-1]).all()
