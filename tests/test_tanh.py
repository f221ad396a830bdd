"""The tanh basis, its Jacobian and the transformer; `support.tanh` says how right they are."""

import mpmath
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.tanh import (
    ASSERTIONS,
    LAYER,
    arguments,
    assert_basis_right,
    assert_input_hessian_right,
    assert_input_jacobian_right,
    assert_jacobian_right,
    assert_jvp_right,
    assert_vjp_of_points_right,
    assert_vjp_right,
    tanh_products,
)
from support.tensors import DTYPES, points

import kerneldiff
from kerneldiff import TanhBasis, _reference, tanh, tanh_basis, tanh_jacobian

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# N, D, K
SIZES = [
    # nothing and one
    *[(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0), (1, 1, 1), (1, 7, 5), (7, 1, 1)],
    # around the widths of vectors and of whatever is unrolled
    *[(5, 2, 3), (3, 3, 4), (4, 4, 7), (7, 5, 8), (6, 6, 9), (9, 7, 15), (5, 8, 16), (3, 9, 17)],
    *[(17, 10, 31), (16, 11, 32), (15, 12, 33), (3, 17, 50), (5, 33, 63), (3, 2, 65), (2, 5, 129)],
    # many rows, many columns, many functions
    *[(1009, 3, 7), (5, 307, 11), (3, 5, 2053)],
]


def label(size):
    return "x".join(map(str, size))


def inputs(n, d, k, dtype="float64", *, seed=0):
    """Normal points and weights, of which the slopes make z of order 1."""
    rng = np.random.default_rng([seed, n, d, k])
    W = rng.normal(size=(d + 1, k))
    W[:-1] /= max(d, 1) ** 0.5
    return rng.normal(size=(n, d)).astype(dtype), W.astype(dtype)


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=label)
def test_basis(size, dtype):
    X, W = inputs(*size, dtype)
    assert_basis_right(tanh_basis(X, W), X, W)


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=label)
def test_jacobian(size, dtype):
    X, W = inputs(*size, dtype)
    assert_jacobian_right(tanh_jacobian(X, W), X, W)


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=label)
def test_products(size, dtype):
    """With any sizes of blocks and vectors, and any number of points."""
    X, W = inputs(*size, dtype)
    of_weights, of_points, tangent = tanh_products(X, W)
    assert_vjp_right(of_weights, X, W)
    assert_vjp_of_points_right(of_points, X, W)
    assert_jvp_right(tangent, X, W)


@dtypes
@pytest.mark.parametrize("size", [size for size in SIZES if size[1] < 40], ids=label)
def test_derivatives_by_points(size, dtype):
    X, W = inputs(*size, dtype)
    assert_input_jacobian_right(tanh._input_jacobian(X, [W]), X, W)
    assert_input_hessian_right(tanh._input_hessian(X, [W]), X, W)


@dtypes
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 10.0, 100.0])
@pytest.mark.parametrize("side", ["points", "weights"])
def test_scales(side, scale, dtype):
    """From nearly linear to saturated, with large slopes or with large points."""
    X, W = inputs(31, 4, 29, dtype)
    (X if side == "points" else W)[:] *= scale
    for name, check in ASSERTIONS.items():
        check(LAYER[name](X, W), X, W)


@dtypes
def test_cancelling_terms(dtype):
    """The bound is in terms of S: far from zero z itself may cancel."""
    X, W = inputs(31, 4, 29, dtype)
    X += 100
    W[-1] = -100 * W[:-1].sum(axis=0)
    for name, check in ASSERTIONS.items():
        check(LAYER[name](X, W), X, W)


# Up to here 1 - tanh²(z) = 4 exp(-2 |z|) is a normal number.
LARGEST_NORMAL = {"float64": 354.0, "float32": 43.5}


@dtypes
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("part", [0.03, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_saturation(dtype, sign, part):
    """1 - φ² keeps its digits where φ is 1 to the last one: it is not computed from φ."""
    z = sign * part * LARGEST_NORMAL[dtype]
    X = np.array([[z], [z / 2]], dtype)
    W = np.array([[1, 2, 0.5], [0, 0, 0]], dtype)[:, [0, 2]]
    J = tanh_jacobian(X, W)
    assert (J[:, 1] >= np.finfo(dtype).smallest_normal).all()
    assert_jacobian_right(J, X, W)
    assert_basis_right(tanh_basis(X, W), X, W)


@dtypes
@pytest.mark.parametrize("z", [400.0, 1e4, 1e30, "largest"])
def test_beyond_saturation(dtype, z):
    """Where 1 - φ² underflows the Jacobian is zero, also where z overflows."""
    z = np.finfo(dtype).max if z == "largest" else z
    X = np.array([[z], [-z]], dtype)
    W = np.array([[1.0, 4.0], [0, 0]], dtype)
    np.testing.assert_array_equal(tanh_basis(X, W), [[1, 1], [-1, -1]])
    np.testing.assert_array_equal(tanh_jacobian(X, W), np.zeros((2, 2, 2)))


@dtypes
def test_zero(dtype):
    X, W = np.zeros((3, 2), dtype), np.zeros((3, 5), dtype)
    np.testing.assert_array_equal(tanh_basis(X, W), 0)
    np.testing.assert_array_equal(tanh_jacobian(X, W)[:, :2], 0)
    np.testing.assert_array_equal(tanh_jacobian(X, W)[:, 2], 1)


@dtypes
def test_mpmath(dtype):
    """Derivatives with respect to each weight in 50 digits, by differences of tanh itself."""
    n, d, k = 3, 2, 4
    X, W = inputs(n, d, k, dtype)
    W[:, 3] *= 8
    J = tanh_jacobian(X, W)
    _, total, _ = arguments(X, W)
    eps = np.finfo(dtype).eps
    with mpmath.workdps(50):
        for i, a, c in np.ndindex(n, d + 1, k):
            x = [*map(mpmath.mpf, X[i].astype(float)), mpmath.mpf(1)]
            w = [*map(mpmath.mpf, W[:, c].astype(float))]

            def function(weight, a=a, x=x, w=w):
                return mpmath.tanh(mpmath.fdot(x, [*w[:a], weight, *w[a + 1 :]]))

            expected = mpmath.diff(function, w[a])
            bound = (4 * total[i, c] + 5) * eps * np.longdouble(str(abs(expected)))
            assert abs(mpmath.mpf(float(J[i, a, c])) - expected) <= mpmath.mpf(str(bound))


@dtypes
@pytest.mark.parametrize("layout", ["compact", "full", "matrix"])
@pytest.mark.parametrize(
    "size", [(7, 3, 5), (0, 3, 5), (1, 0, 2), (5, 2, 0), (300, 10, 31)], ids=label
)
def test_layouts_of_the_jacobian(size, layout, dtype):
    X, W = inputs(*size, dtype)
    n, d, k = size
    compact = tanh_jacobian(X, W)
    full = np.zeros((n, k, d + 1, k), dtype)
    full[:, range(k), :, range(k)] = np.moveaxis(compact, 2, 0)
    expected = {"compact": compact, "full": full, "matrix": full.reshape(n * k, (d + 1) * k)}
    actual = tanh_jacobian(X, W, layout=layout)
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, expected[layout])


@pytest.mark.parametrize("layout", ["compact", "full", "matrix"])
def test_reference(layout):
    X, W = inputs(7, 3, 5)
    # Roundings of the reference are of the same size: 10 eps of entries of order 1.
    np.testing.assert_allclose(
        tanh_jacobian(X, W, layout=layout),
        _reference.tanh_jacobian(X, W, layout=layout),
        rtol=0,
        atol=2e-15,
    )


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
@pytest.mark.parametrize("layout", [None, "compact", "full", "matrix"])
def test_out(layout, dtype, make, tmp_path):
    X, W = inputs(53, 4, 7, dtype)
    options = {} if layout is None else {"layout": layout}
    function = tanh_basis if layout is None else tanh_jacobian
    expected = function(X, W, **options)
    out = make(expected.shape, dtype, tmp_path)
    assert function(X, W, out=out, **options) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("k", [1, 3, 5, 8, 13, 32, 67])
@dtypes
@pytest.mark.parametrize("function", [tanh_basis, tanh_jacobian])
def test_writes_nothing_beside_out(function, dtype, k):
    X, W = inputs(13, 3, k, dtype)
    expected = function(X, W)
    guard = 64
    memory = np.full(expected.size + 2 * guard, 7, dtype)
    function(X, W, out=memory[guard:-guard].reshape(expected.shape))
    np.testing.assert_array_equal(memory[:guard], 7)
    np.testing.assert_array_equal(memory[-guard:], 7)
    np.testing.assert_array_equal(memory[guard:-guard].reshape(expected.shape), expected)


@dtypes
@pytest.mark.parametrize("function", [tanh_basis, tanh_jacobian])
def test_large_reused_output(function, dtype):
    """An output beyond the last-level cache may be stored in another way."""
    X, W = inputs(9001, 5, 150, dtype)
    times = 6 if function is tanh_basis else 1
    expected = function(X, W)
    out = np.full((times * 9001, *expected.shape[1:]), np.nan, dtype)
    function(np.tile(X, (times, 1)), W, out=out)
    np.testing.assert_array_equal(
        out.reshape(times, *expected.shape), expected[None].repeat(times, 0)
    )


@pytest.mark.parametrize(
    "layout",
    [np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[::-1].copy()[::-1]],
    ids=["Fortran", "strided", "reversed"],
)
@dtypes
@pytest.mark.parametrize("function", [tanh_basis, tanh_jacobian])
def test_layouts_of_the_inputs(function, dtype, layout):
    X, W = inputs(17, 5, 9, dtype)
    for array in (X, W):
        array.flags.writeable = False
    actual = function(layout(X), layout(W))
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, function(X, W))


def test_mixed_types_become_float64():
    X, W = inputs(5, 3, 4)
    actual = tanh_jacobian(X.astype(np.float32), W)
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, tanh_jacobian(X.astype(np.float32).astype(float), W))


# --------------------------------------------------------------------------------------------------
# The transformer
# --------------------------------------------------------------------------------------------------


@parametrize_with_checks([TanhBasis(), TanhBasis(n_components=3, random_state=0)])
def test_estimator(estimator, check):
    check(estimator)


@pytest.fixture
def X():
    return points(23, 0, 3)[0]


@pytest.fixture
def basis(X):
    return TanhBasis(n_components=7, random_state=0).fit(X)


def test_shapes(basis, X):
    assert basis.weights_.shape == (4, 7)
    assert basis.n_features_in_ == 3
    assert basis.transform(X).shape == (23, 7)
    assert basis.jacobian(X).shape == (23, 4, 7)
    assert basis.jacobian(X, layout="full").shape == (23, 7, 4, 7)
    assert basis.jacobian(X, layout="matrix").shape == (161, 28)
    assert basis.numerical_jacobian(X).shape == (23, 4, 7)


def test_transform_is_tanh_basis(basis, X):
    np.testing.assert_array_equal(basis.transform(X), tanh_basis(X, basis.weights_))


@pytest.mark.parametrize("layout", ["compact", "full", "matrix"])
def test_jacobian_is_tanh_jacobian(basis, X, layout):
    expected = tanh_jacobian(X, basis.weights_, layout=layout)
    np.testing.assert_array_equal(basis.jacobian(X, layout=layout), expected)
    out = np.full(expected.shape, np.nan)
    assert basis.jacobian(X, layout=layout, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_numerical_jacobian(basis, X):
    # Central differences: h²/6 of the third derivative, which is at most 2 |x|³ < 100 here, and
    # eps/h of rounding.
    np.testing.assert_allclose(
        basis.numerical_jacobian(X), basis.jacobian(X), rtol=0, atol=100 * 1e-12 / 6 + 1e-9
    )


def test_numerical_jacobian_of_another_step(basis, X):
    """With h = 0.1 the truncation shows, so that eps is what it says."""
    step = 0.1
    error = np.abs(basis.numerical_jacobian(X, eps=step) - basis.jacobian(X)).max()
    assert 1e-4 < error < 100 * step**2 / 6
    np.testing.assert_array_equal(
        basis.numerical_jacobian(X, eps=step)[3, 1, 2],
        basis.numerical_jacobian(X[3:4], eps=step)[0, 1, 2],
    )


@pytest.mark.parametrize("bad", [0, -1e-6, np.nan, np.inf, "small"], ids=str)
def test_bad_step(basis, X, bad):
    with pytest.raises(ValueError, match=rf"eps is {bad!r}"):
        basis.numerical_jacobian(X, eps=bad)


def test_numerical_jacobian_sees_a_wrong_jacobian(basis, X):
    """Weights changed behind its back: the check is one of the weights it has."""
    other = clone(basis).fit(X)
    other.weights_ = other.weights_ + 0.1
    assert np.abs(other.numerical_jacobian(X) - basis.jacobian(X)).max() > 1e-3


def test_weights_given(X):
    W = inputs(1, 3, 5)[1]
    basis = TanhBasis(n_components=99, weights=W).fit(X)
    np.testing.assert_array_equal(basis.weights_, W)
    np.testing.assert_array_equal(basis.transform(X), tanh_basis(X, W))


def test_weights_given_are_copied(X):
    """The estimator does not change when its parameter is changed later, nor the other way."""
    W = inputs(1, 3, 5)[1]
    basis = TanhBasis(weights=W).fit(X)
    before = basis.weights_.copy()
    W[:] = 0
    np.testing.assert_array_equal(basis.weights_, before)


def test_weights_given_as_lists(X):
    basis = TanhBasis(weights=[[1, 2], [3, 4], [5, 6], [7, 8]]).fit(X)
    np.testing.assert_array_equal(basis.weights_, [[1, 2], [3, 4], [5, 6], [7, 8]])


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 30.0])
def test_weights_drawn(scale):
    """Slopes and biases from N(0, scale²)."""
    X = np.zeros((2, 99))
    weights = TanhBasis(n_components=200, scale=scale, random_state=0).fit(X).weights_
    # 20 000 numbers: the mean is known to scale/141, the deviation to scale/200; five of each.
    assert abs(weights.mean()) <= 5 * scale / 141
    assert abs(weights.std() - scale) <= 5 * scale / 200
    assert abs(weights[-1].std() - scale) <= 5 * scale / 20


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_scale_multiplies(X, scale):
    one = TanhBasis(random_state=0).fit(X).weights_
    np.testing.assert_allclose(
        TanhBasis(scale=scale, random_state=0).fit(X).weights_, scale * one, rtol=1e-15
    )


def test_random_state(X):
    def drawn(seed):
        return TanhBasis(random_state=seed).fit(X).weights_

    np.testing.assert_array_equal(drawn(1), drawn(1))
    np.testing.assert_array_equal(drawn(1), drawn(np.random.RandomState(1)))
    assert (drawn(1) != drawn(2)).any()
    assert (drawn(None) != drawn(None)).any()


def test_float32(X):
    basis = TanhBasis(random_state=0).fit(X.astype(np.float32))
    assert basis.transform(X.astype(np.float32)).dtype == np.float32
    assert basis.jacobian(X.astype(np.float32)).dtype == np.float32


def test_feature_names(basis):
    np.testing.assert_array_equal(
        basis.get_feature_names_out(), [f"tanhbasis{k}" for k in range(7)]
    )


def test_clone(basis, X):
    other = clone(basis)
    assert other.get_params() == basis.get_params()
    assert not hasattr(other, "weights_")
    np.testing.assert_array_equal(other.fit(X).weights_, basis.weights_)


def test_parameters():
    assert TanhBasis(5, scale=2.0).get_params() == {
        "n_components": 5,
        "weights": None,
        "hidden_layer_sizes": (),
        "scale": 2.0,
        "random_state": None,
    }


def test_in_a_pipeline(X):
    pipeline = make_pipeline(StandardScaler(), TanhBasis(4, random_state=0)).fit(X)
    assert pipeline.transform(X).shape == (23, 4)
    np.testing.assert_array_equal(
        pipeline.get_feature_names_out(), [f"tanhbasis{k}" for k in range(4)]
    )


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_components": 0}, "n_components is 0"),
        ({"n_components": -3}, "n_components is -3"),
        ({"n_components": 2.5}, "n_components is 2.5"),
        ({"n_components": "many"}, "n_components is 'many'"),
        ({"scale": -1.0}, "scale is -1.0"),
        ({"scale": np.nan}, "scale is nan"),
        ({"scale": np.inf}, "scale is inf"),
        ({"scale": "wide"}, "scale is 'wide'"),
        ({"weights": np.ones((3, 5))}, "weights has 3 rows.*3 columns"),
        ({"weights": np.ones(4)}, "weights.*Expected 2D array, got 1D array"),
        ({"weights": np.full((4, 5), np.nan)}, "weights.*NaN|NaN.*weights"),
        ({"weights": [["a"]] * 4}, "weights"),
    ],
    ids=str,
)
def test_bad_parameters(X, parameters, match):
    """Told when it is fitted, as is scikit-learn's habit, and an older fit stays as it was."""
    basis = TanhBasis(random_state=0).fit(X)
    before = basis.weights_
    basis.set_params(**parameters)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        basis.fit(X)
    assert basis.weights_ is before


def test_refused_fit_keeps_the_number_of_columns(X):
    basis = TanhBasis(weights=np.ones((4, 5))).fit(X)
    with pytest.raises(ValueError, match="weights has 4 rows and X has 2 columns"):
        basis.fit(X[:, :2])
    assert basis.transform(X).shape == (23, 5)


def test_public_names():
    for name in ("tanh_basis", "tanh_jacobian", "TanhBasis"):
        assert name in kerneldiff.__all__
