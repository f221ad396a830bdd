"""What comes in as something else than an array of floats: frames with names, masked arrays,
objects that are numbers, and arguments in the wrong order.
"""

import copy
import decimal
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.kernels import RBF
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR

import kerneldiff as kd

NAMES = ["load", "angle"]
KERNEL = RBF([1.0, 2.0])
rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (6, 2))
Z = rng.uniform(-1, 1, (4, 2))
Y = np.sin(X[:, 0]) + X[:, 1] ** 2
DY = np.column_stack([np.cos(X[:, 0]), 2 * X[:, 1]])


def frame(array, names=NAMES):
    return pd.DataFrame(array, columns=names)


def swapped(array):
    """The same points, with their columns in another order."""
    return frame(array)[NAMES[::-1]]


def model(**options):
    return kd.GaussianProcessRegressor(KERNEL, alpha=1e-6, optimizer=None, **options)


# --------------------------------------------------------------------------------------------------
# Names of columns
# --------------------------------------------------------------------------------------------------

ORDER = "(?s)feature names.*same order"

FUNCTIONALS = {
    "value": kd.Value,
    "gradient": kd.Gradient,
    "gradient, mask": lambda P: kd.Gradient(P, mask=np.eye(len(P), 2, dtype=bool)),
    "value and gradient": kd.ValueGradient,
    "directional": lambda P: kd.Directional(P, [1.0, 2.0]),
    "hessian": kd.Hessian,
    "laplacian": kd.Laplacian,
}
functionals = pytest.mark.parametrize("functional", FUNCTIONALS.values(), ids=FUNCTIONALS)


@functionals
def test_a_model_compares_names_of_functionals(functional):
    gp = model().fit(frame(X), Y)
    expected = model().fit(X, Y).predict_functional(functional(Z))
    assert_array_equal(gp.predict_functional(functional(frame(Z))), expected)
    with pytest.raises(ValueError, match=ORDER):
        gp.predict_functional(functional(swapped(Z)))
    with pytest.raises(ValueError, match=ORDER):
        gp.predict_functional([functional(frame(Z)), functional(swapped(Z))])
    with pytest.raises(ValueError, match=ORDER):
        gp.sample_functional(functional(swapped(Z)))


def test_names_are_told_in_the_words_of_scikit_learn():
    gp = model().fit(frame(X), Y)
    for names in (NAMES[::-1], ["load", "speed"]):
        with pytest.raises(ValueError, match="feature names") as theirs:
            gp.predict(frame(Z, names))
        with pytest.raises(ValueError, match="feature names") as ours:
            gp.predict_functional(kd.Value(frame(Z, names)))
        assert str(ours.value).startswith(str(theirs.value).rstrip())


def test_names_on_one_side_only():
    """A warning, as from `predict`; but not from what is made of points inside."""
    gp, plain = model().fit(frame(X), Y), model().fit(X, Y)
    for method in ("predict_functional", "sample_functional"):
        with pytest.warns(UserWarning, match="X does not have valid feature names, but Gauss"):
            getattr(gp, method)(kd.Value(Z))
        with pytest.warns(UserWarning, match="was fitted without feature names"):
            getattr(plain, method)(kd.Value(frame(Z)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gp.predict(frame(Z), return_std=True, return_mean_grad=True, return_std_grad=True)
        gp.predict_gradient(frame(Z), return_cov=True)
        gp.predict_hessian(frame(Z), return_std=True)
        gp.sample_gradient(frame(Z))
        gp.sample_y(frame(Z))


def test_before_a_fit_lists_are_compared():
    for method in ("predict_functional", "sample_functional"):
        with pytest.raises(ValueError, match=ORDER):
            getattr(model(), method)([kd.Value(frame(Z)), kd.Gradient(swapped(Z))])


@functionals
def test_observations_have_the_names_of_x(functional):
    values = np.zeros(functional(Z).size)
    observed = functional(swapped(Z))
    if isinstance(observed, kd.Hessian):
        values = values.reshape(observed.shape)
    gp = model()
    with pytest.raises(ValueError, match=ORDER):
        gp.fit(frame(X), Y, observations=[(observed, values)])
    assert not hasattr(gp, "X_train_")
    gp.fit(frame(X), Y, observations=[(functional(frame(Z)), values)])


def test_names_of_gradients():
    """Names that X has are those of X; others, such as d_price/d_load, cannot be compared."""
    expected = model().fit(X, Y, DY).predict(Z)
    for names in (NAMES, ["d_y/d_load", "d_y/d_angle"]):
        gp = model().fit(frame(X), Y, frame(DY, names))
        assert_array_equal(gp.predict(frame(Z)), expected)
    assert_array_equal(model().fit(X, Y, swapped(DY)[NAMES]).predict(Z), expected)
    for bad, match in (
        (swapped(DY), ORDER),
        (frame(DY, ["load", "speed"]), "(?s)of dy should match those of X.*speed.*missing.*angle"),
    ):
        with pytest.raises(ValueError, match=match):
            model().fit(frame(X), Y, bad)
    with pytest.raises(ValueError, match=ORDER):
        model(alpha_gradient=swapped(np.ones((6, 2)))).fit(frame(X), Y, DY)
    with pytest.raises(ValueError, match=ORDER):
        model(alpha_gradient=pd.Series([1.0, 2.0], NAMES[::-1])).fit(frame(X), Y, DY)


def test_what_runs_along_the_columns_of_a_functional():
    with pytest.raises(ValueError, match=ORDER):
        kd.Directional(frame(X), swapped(DY))
    with pytest.raises(ValueError, match=ORDER):
        kd.Directional(frame(X), pd.Series([1.0, 2.0], NAMES[::-1]))
    with pytest.raises(ValueError, match=ORDER):
        kd.Gradient(frame(X), mask=swapped(DY) > 0)
    with pytest.raises(ValueError, match=ORDER):
        kd.ValueGradient(frame(X), mask=frame(np.ones((6, 3), bool), ["y", "angle", "load"]))
    with pytest.raises(ValueError, match=ORDER):
        kd.Observations([(kd.Gradient(frame(X)), swapped(DY))])
    with pytest.raises(ValueError, match=ORDER):
        kd.Observations([(kd.Gradient(frame(X)), DY, swapped(DY**2))])
    C = kd.CovarianceOperator(KERNEL, kd.Value(frame(X)), kd.Value(frame(Z)))
    with pytest.raises(ValueError, match=ORDER):
        C.jvp(swapped(DY), np.ones(4), wrt="rows")
    kd.ValueGradient(frame(X), mask=frame(np.ones((6, 3), bool), ["y", *NAMES]))
    kd.Directional(frame(X), frame(DY))


@functionals
def test_covariances_compare_names(functional):
    for make in (kd.covariance, kd.CovarianceOperator):
        for sides in (
            (functional(frame(X)), functional(swapped(Z))),
            ([kd.Value(X), functional(frame(X)), kd.Value(swapped(Z))],),
            (kd.Value(X), [functional(frame(X)), kd.Value(swapped(Z))]),
        ):
            with pytest.raises(ValueError, match=ORDER):
                make(KERNEL, *sides)
        with pytest.raises(ValueError, match=r"(?s)does not have.*speed"):
            make(KERNEL, functional(frame(X)), functional(frame(Z, ["load", "speed"])))
        make(KERNEL, functional(frame(X)), [functional(frame(Z)), functional(Z)])


@functionals
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_copies_keep_names(functional, copied):
    with pytest.raises(ValueError, match=ORDER):
        kd.covariance(KERNEL, copied(functional(frame(X))), kd.Value(swapped(Z)))
    gp = copied(model().fit(frame(X), Y))
    with pytest.raises(ValueError, match=ORDER):
        gp.predict_functional(copied(functional(swapped(Z))))


PAIRS = {
    "kernel_matrix": kd.kernel_matrix,
    "gradient": kd.gradient,
    "hessian_diag": kd.hessian_diag,
    "hessian": kd.hessian,
    "rbf_kernel": lambda kernel, *points: kd.rbf_kernel(*points),
    "rbf_hessian": lambda kernel, *points: kd.rbf_hessian(*points),
    "tensor_blocks": lambda kernel, *points: next(kd.tensor_blocks(kd.gradient, kernel, *points)),
    "check": kd.check_kernel_derivatives,
}


@pytest.mark.parametrize("function", PAIRS.values(), ids=PAIRS)
def test_tensors_compare_names(function):
    with pytest.raises(ValueError, match=ORDER):
        function(KERNEL, frame(X[:2]), swapped(Z[:2]))
    if function is not kd.check_kernel_derivatives:  # which takes a second
        function(KERNEL, frame(X[:2]), frame(Z[:2]))
        function(KERNEL, frame(X[:2]), Z[:2])


def test_expansions_compare_names():
    f = kd.expansion(KERNEL, frame(X), Y)
    for g in (f, pickle.loads(pickle.dumps(f))):
        for call in (g, g.gradient, g.hessian, g.laplacian):
            with pytest.raises(ValueError, match=ORDER):
                call(swapped(Z))
    assert_array_equal(f(frame(Z)), f(Z))


@pytest.mark.parametrize("neighbors", [None, 5])
def test_interpolators_compare_names(neighbors):
    f = kd.RBFInterpolator(frame(X), Y, neighbors=neighbors, kernel="cubic")
    expected = kd.RBFInterpolator(X, Y, neighbors=neighbors, kernel="cubic")(Z)
    for g in (f, pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        for call in (g, g.gradient, g.hessian, g.laplacian):
            with pytest.raises(ValueError, match=ORDER):
                call(swapped(Z))
        assert_array_equal(g(frame(Z)), expected)
        assert_array_equal(g(Z), expected)


@pytest.mark.parametrize(
    "estimator", [kd.TanhBasis(3, random_state=0), kd.TanhRegressor(1, max_iter=1)]
)
def test_tanh_compares_names(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(frame(X), Y)
    methods = {
        "predict": (),
        "predict_gradient": (),
        "predict_hessian": (),
        "transform": (),
        "jacobian": (),
        "jvp": (np.ones((3, 3)),),
        "vjp": (np.ones((4, 3)),),
        "input_jacobian": (),
        "input_hessian": (),
        "numerical_jacobian": (),
    }
    found = [name for name in methods if hasattr(estimator, name)]
    assert len(found) >= 3
    for name in found:
        with pytest.raises(ValueError, match=ORDER):
            getattr(estimator, name)(swapped(Z), *methods[name])


# --------------------------------------------------------------------------------------------------
# Masks
# --------------------------------------------------------------------------------------------------


class Variable:
    """As a variable of a netCDF file: nothing but a way to make an array, and that has a mask."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def masked(array, missing=True):
    """An array of which some entry is masked, with what readers of netCDF leave there."""
    result = np.ma.masked_array(np.array(array, dtype=float), mask=np.zeros(np.shape(array), bool))
    if missing:
        result.data[(0,) * result.ndim] = -9999
        result[(0,) * result.ndim] = np.ma.masked
    return result


MASKED = {
    "array": masked,
    "variable": lambda a: Variable(masked(a)),
    "rows": lambda a: [*masked(a)],
}
kinds = pytest.mark.parametrize("kind", MASKED.values(), ids=MASKED)


def with_nan(array):
    result = np.array(array, dtype=float)
    result[(0,) * result.ndim] = np.nan
    return result


@kinds
def test_masked_observations_are_missing(kind):
    dy, y = kind(DY), kind(Y)
    before = pickle.dumps(masked(DY))
    for given, expected in (((Y, dy), (Y, with_nan(DY))), ((y, DY), (with_nan(Y), DY))):
        gp, right = model().fit(X, *given), model().fit(X, *expected)
        assert_array_equal(gp.predict(Z), right.predict(Z))
        assert_array_equal(np.isnan(gp.dy_train_), np.isnan(right.dy_train_))
    several = np.stack([DY, DY], axis=1)
    several[0, :, 0] = -9999
    hidden = np.ma.masked_equal(several, -9999)
    gp = model().fit(X, np.stack([Y, Y], axis=1), hidden)
    assert np.isnan(gp.dy_train_).sum() == 2
    # Two right-hand sides are rounded in another order than one; the condition is 5e6.
    expected = model().fit(X, Y, with_nan(DY)).predict(Z)
    assert_allclose(gp.predict(Z)[:, 0], expected, rtol=0, atol=10 * 5e6 * np.finfo(float).eps)
    # The arrays themselves are as they were, mask and what is under it.
    assert pickle.dumps(masked(DY)) == before
    if kind is masked:
        assert dy.data[0, 0] == -9999
        assert dy.mask.sum() == y.mask.sum() == 1


def test_masked_integers_are_missing():
    whole = np.ma.masked_equal([[1, -99], [2, 3]], -99)
    gp = model().fit(X[:2], Y[:2], whole)
    assert_array_equal(gp.dy_train_, [[1, np.nan], [2, 3]])


def test_a_mask_alone_is_no_harm():
    """An array that has a mask, under which there is nothing, is an array."""
    plain = model().fit(X, Y, DY, observations=[(kd.Value(Z), Z[:, 0], Z[:, 1] ** 2)])
    gp = model().fit(
        masked(X, False),
        masked(Y, False),
        masked(DY, False),
        observations=[
            (kd.Value(masked(Z, False)), masked(Z[:, 0], False), masked(Z[:, 1] ** 2, False))
        ],
    )
    assert_array_equal(gp.predict(masked(Z, False)), plain.predict(Z))
    f = kd.RBFInterpolator(masked(X, False), masked(Y, False), smoothing=masked(Y**2, False))
    expected = kd.RBFInterpolator(X, Y, smoothing=Y**2)(Z)
    assert_array_equal(f(masked(Z, False)), expected)
    assert type(f(masked(Z, False))) is np.ndarray
    C = kd.CovarianceOperator(KERNEL, kd.Value(masked(X, False)))
    product = C @ masked(Y, False)
    assert type(product) is np.ndarray
    assert_array_equal(product, C @ Y)
    assert_array_equal(kd.gradient(KERNEL, masked(X, False)), kd.gradient(KERNEL, X))


def _fitted(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, Y)


def _operator(cols=None):
    return kd.CovarianceOperator(KERNEL, kd.Value(X), cols)


# Of a way to mask (M), what must not be taken; and the name of the argument.
REFUSED = {
    "X of a fit": (lambda M: model().fit(M(X), Y), "X"),
    "X of a fit with gradients": (lambda M: model().fit(M(X), Y, DY), "X"),
    "X of a kernel that cannot be read": (
        lambda M: kd.GaussianProcessRegressor(sk.CompoundKernel([RBF()])).fit(M(X), Y),
        "X",
    ),
    "y of values": (lambda M: model().fit(X, M(Y)), "Input y contains NaN"),
    "predict": (lambda M: model().fit(X, Y).predict(M(Z)), "X"),
    "predict of the prior": (lambda M: model().predict(M(Z)), "X"),
    "predict_gradient": (lambda M: model().fit(X, Y).predict_gradient(M(Z)), "X"),
    "sample_y": (lambda M: model().fit(X, Y).sample_y(M(Z)), "X"),
    "alpha_gradient": (lambda M: model(alpha_gradient=M(DY**2)).fit(X, Y, DY), "alpha_gradient"),
    "values": (lambda M: kd.Observations([(kd.Value(Z), M(Z[:, 0]))]), "values of Value"),
    "noise": (lambda M: kd.Observations([(kd.Value(Z), Z[:, 0], M(Z[:, 1]))]), "noise of Value"),
    "functional": (lambda M: kd.ValueGradient(M(X)), "X"),
    "directions": (lambda M: kd.Directional(X, M(DY)), "V"),
    "mask": (lambda M: kd.Gradient(X, mask=M(DY)), "mask"),
    "tensor": (lambda M: kd.gradient(KERNEL, M(X)), "X"),
    "tensor, Y": (lambda M: kd.gradient(KERNEL, X, M(Z)), "Y"),
    "rbf": (lambda M: kd.rbf_kernel(X, M(Z)), "Y"),
    "gram_jacobian": (lambda M: kd.gram_jacobian(KERNEL, M(X)), "X"),
    "tensor_blocks": (lambda M: kd.tensor_blocks(kd.gradient, KERNEL, M(X)), "X"),
    "centers": (lambda M: kd.expansion(KERNEL, M(X), Y), "centers"),
    "weights": (lambda M: kd.expansion(KERNEL, X, M(Y)), "weights"),
    "points of an expansion": (lambda M: kd.expansion(KERNEL, X, Y)(M(Z)), "X"),
    "operand": (lambda M: _operator() @ M(Y), "the vector"),
    "operand block": (lambda M: _operator() @ M(DY), "the vector"),
    "matmat": (lambda M: _operator().matmat(M(DY)), "the vector"),
    "operand on the left": (lambda M: M(Y) @ _operator(), "the vector"),
    "noise of an operator": (lambda M: _operator_with(M(Y**2)), "noise"),
    "weights of a contraction": (lambda M: _operator().vjp(M(np.eye(6))), "W"),
    "halves of weights": (lambda M: _operator().vjp((Y, M(Y))), "V"),
    "tangent": (lambda M: _operator().jvp(M([1.0, 2.0]), Y), "tangent"),
    "tangent of points": (lambda M: _operator().jvp(M(DY), Y, wrt="rows"), "tangent"),
    "vectors of a tangent": (lambda M: _operator().jvp([1.0, 2.0], M(Y)), "V"),
    "centers of RBF": (lambda M: kd.RBFInterpolator(M(X), Y), "y"),
    "values of RBF": (lambda M: kd.RBFInterpolator(X, M(Y)), "d"),
    "smoothing of RBF": (lambda M: kd.RBFInterpolator(X, Y, smoothing=M(Y**2)), "smoothing"),
    "points of RBF": (lambda M: kd.RBFInterpolator(X, Y).gradient(M(Z)), "x"),
    "tanh_basis": (lambda M: kd.tanh_basis(M(X), np.ones((3, 4))), "X"),
    "tanh weights": (lambda M: kd.tanh_jacobian(X, M(np.ones((3, 4)))), "W"),
    "TanhBasis": (lambda M: kd.TanhBasis(3).fit(M(X)), "X"),
    "TanhBasis, weights": (lambda M: kd.TanhBasis(weights=M(np.ones((3, 4)))).fit(X), "weights"),
    "transform": (lambda M: _fitted(kd.TanhBasis(3)).transform(M(X)), "X"),
    "dW": (lambda M: _fitted(kd.TanhBasis(3)).jvp(X, M(np.ones((3, 3)))), "dW"),
    "cotangent": (lambda M: _fitted(kd.TanhBasis(3)).vjp(X, M(np.ones((6, 3)))), "cotangent"),
    "TanhRegressor": (lambda M: kd.TanhRegressor(1, max_iter=1).fit(M(X), Y), "X"),
    "TanhRegressor, y": (lambda M: kd.TanhRegressor(1, max_iter=1).fit(X, M(Y)), "y"),
    "TanhRegressor, weights": (
        lambda M: kd.TanhRegressor(1, max_iter=1).fit(X, Y, M(Y**2)),
        "sample_weight",
    ),
    "slopes of a regressor": (
        lambda M: _fitted(kd.TanhRegressor(1, max_iter=1)).predict_gradient(M(X)),
        "X",
    ),
    "numerical_jacobian": (lambda M: kd.numerical_jacobian(np.sum, M(X)), "x"),
    "numerical_hessian": (lambda M: kd.numerical_hessian(np.sum, M(X)), "x"),
    "check": (lambda M: kd.check_kernel_derivatives(KERNEL, M(X)), "X"),
}


def _operator_with(noise):
    return kd.CovarianceOperator(KERNEL, kd.Value(X), noise=noise)


@pytest.mark.parametrize(("call", "name"), REFUSED.values(), ids=REFUSED)
def test_masked_entries_are_refused(call, name):
    for how, kind in MASKED.items():
        if how == "rows" and "smoothing" in name:
            continue  # SciPy takes no lists there
        pattern = name if " contains" in name else f"{name}.* has masked entries"
        with pytest.raises(ValueError, match=pattern):
            call(kind)


def test_masked_alpha():
    for kernel in (KERNEL, sk.CompoundKernel([RBF()])):
        gp = kd.GaussianProcessRegressor(kernel, alpha=masked(Y**2), optimizer=None)
        with pytest.raises(ValueError, match="alpha has masked entries"):
            gp.fit(X, Y)


# --------------------------------------------------------------------------------------------------
# Objects
# --------------------------------------------------------------------------------------------------


class Shared:
    """An array of another library, which offers its memory and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


TABLE = pd.DataFrame({"a": [0.5, 1.0, -2.0], "b": [True, False, True], "c": [1, 3, 2]})
NUMBERS = TABLE.to_numpy(float)
OBJECTS = {
    "float, bool and int columns": TABLE,
    "extension types": TABLE.convert_dtypes(),
    "objects": NUMBERS.astype(object),
    "decimals": np.array([[decimal.Decimal(value) for value in row] for row in NUMBERS]),
    "DLPack": Shared(NUMBERS),
    "__array__": Variable(NUMBERS),
    "array of a table": TABLE.convert_dtypes().to_numpy(),
}
objects = pytest.mark.parametrize("given", OBJECTS.values(), ids=OBJECTS)

TAKES = {
    "kernel_matrix": lambda P: kd.kernel_matrix(RBF(), P),
    "hessian, Y": lambda P: kd.hessian(RBF(), NUMBERS, P),
    "rbf_kernel": kd.rbf_kernel,
    "gram_jacobian": lambda P: kd.gram_jacobian(RBF(), P),
    "covariance": lambda P: kd.covariance(RBF(), kd.Gradient(P)),
    "directions": lambda P: kd.covariance(RBF(), kd.Directional(P, P)),
    "operator": lambda P: kd.CovarianceOperator(RBF(), kd.Value(NUMBERS)) @ P,
    "vjp": lambda P: kd.CovarianceOperator(RBF(), kd.Value(NUMBERS)).vjp(P),
    "expansion": lambda P: kd.expansion(RBF(), P, P).gradient(P),
    "tanh_basis": lambda P: kd.tanh_basis(P, np.ones((4, 2))),
    "tanh weights": lambda P: kd.tanh_jacobian(np.ones((5, 2)), P),
    "numerical_jacobian": lambda P: kd.numerical_jacobian(np.sum, P),
    "fit": lambda P: kd.GaussianProcessRegressor(optimizer=None).fit(P, NUMBERS[:, 0]).alpha_,
    "dy": lambda P: (
        kd.GaussianProcessRegressor(optimizer=None).fit(NUMBERS, NUMBERS[:, 0], P).alpha_
    ),
}


@objects
@pytest.mark.parametrize("function", TAKES.values(), ids=TAKES)
def test_objects_that_are_numbers(function, given):
    result, expected = function(given), function(NUMBERS)
    assert_array_equal(result, expected)
    assert np.asarray(result).dtype == np.float64


def test_checks_take_objects():
    assert kd.check_kernel_derivatives(RBF(), TABLE[["a"]].convert_dtypes()).ok


def test_as_scikit_learn_has_it():
    for name in ("float, bool and int columns", "extension types", "objects"):
        assert_allclose(kd.rbf_kernel(OBJECTS[name]), rbf_kernel(OBJECTS[name]), rtol=1e-14)


def test_float32_stays():
    singles = NUMBERS.astype(np.float32)
    for given in (pd.DataFrame(singles), Shared(singles), Variable(singles)):
        assert kd.kernel_matrix(RBF(), given).dtype == np.float32
        assert kd.Value(given).X.dtype == np.float32


MISSING = {
    "NA": pd.DataFrame({"a": [1, None], "b": [2.0, 3.0]}).convert_dtypes(),
    "None": np.array([[1.0, None], [2.0, 3.0]], object),
    "objects with NA": pd.DataFrame({"a": [1, None], "b": [2, 3]}).convert_dtypes().to_numpy(),
    "masked in a list": [[1.0, np.ma.masked], [2.0, 3.0]],
}


@pytest.mark.parametrize("given", MISSING.values(), ids=MISSING)
def test_missing_objects(given):
    """An error that says so; NaN where that is what is not observed."""
    for function in (lambda P: kd.kernel_matrix(RBF(), P), kd.Value, kd.rbf_gradient):
        with pytest.raises(ValueError, match=r"X.*(NaN|masked)"):
            function(given)
    gp = model().fit(X[:2], Y[:2], given)
    assert np.isnan(gp.dy_train_).sum() == 1


TEXT = {
    "strings": [["a", "b"]] * 6,
    "numbers as text": np.full((6, 2), "1"),
    "bytes": np.full((6, 2), b"1"),
    "text in a frame": pd.DataFrame({"a": ["1"] * 6, "b": [1.0] * 6}),
    "text": "gradient",
    "objects with text": np.array([[1.0, "x"]] * 6, object),
    "dictionary": {"a": 1},
    "complex": DY * 1j,
    "complex objects": (DY * 1j).astype(object),
}


@pytest.mark.parametrize("given", TEXT.values(), ids=TEXT)
def test_what_is_no_number(given):
    gp = model()
    for name, function in {
        "dy": lambda dy: gp.fit(X, Y, dy),
        "y": lambda y: gp.fit(X, y, DY),
        "values of Gradient": lambda V: kd.Observations([(kd.Gradient(X), V)]),
        "noise of Gradient": lambda V: kd.Observations([(kd.Gradient(X), DY, V)]),
        "X": lambda P: kd.kernel_matrix(KERNEL, P),
        "V": lambda V: kd.Directional(X, V),
        "W": lambda W: kd.tanh_basis(X, W),
        "alpha_gradient": lambda V: kd.GaussianProcessRegressor(alpha_gradient=V).fit(X, Y, DY),
    }.items():
        with pytest.raises(ValueError, match=rf"{name}\b") as raised:
            function(given)
        assert "Reshape your data" not in str(raised.value)
    assert not hasattr(gp, "X_train_")


# --------------------------------------------------------------------------------------------------
# Order of arguments, and shapes
# --------------------------------------------------------------------------------------------------

SWAPPED = {
    "kernel_matrix": lambda: kd.kernel_matrix(X, KERNEL),
    "gradient": lambda: kd.gradient(X, KERNEL),
    "gradient, three": lambda: kd.gradient(X, Z, KERNEL),
    "hessian": lambda: kd.hessian(X, KERNEL),
    "hessian_diag": lambda: kd.hessian_diag(X, KERNEL),
    "gram_jacobian": lambda: kd.gram_jacobian(X, KERNEL),
    "tensor_blocks": lambda: kd.tensor_blocks(kd.gradient, X, KERNEL),
    "tensor_blocks, function": lambda: kd.tensor_blocks(KERNEL, kd.gradient, X),
    "rbf_kernel": lambda: kd.rbf_kernel(KERNEL, X),
    "covariance": lambda: kd.covariance(kd.Value(X), KERNEL),
    "covariance, three": lambda: kd.covariance(kd.Value(X), kd.Value(Z), KERNEL),
    "CovarianceOperator": lambda: kd.CovarianceOperator(kd.Value(X), KERNEL),
    "expansion": lambda: kd.expansion(X, KERNEL, Y),
    "expansion, last": lambda: kd.expansion(X, Y, KERNEL),
    "check": lambda: kd.check_kernel_derivatives(X, KERNEL),
}


@pytest.mark.parametrize("call", SWAPPED.values(), ids=SWAPPED)
def test_swapped_arguments(call):
    with pytest.raises(TypeError, match=r"(?s)RBF.*first"):
        call()


def test_columns_by_a_slice():
    P = rng.normal(size=(5, 4))
    for dims, numbers in (
        (slice(0, 1), [0]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(-2, None), [2, 3]),
    ):
        kernel, expected = kd.Columns(RBF(0.7), dims), kd.Columns(RBF(0.7), numbers)
        assert_array_equal(kernel(P), expected(P))
        assert_array_equal(kernel.diag(P), expected.diag(P))
        assert_array_equal(kd.hessian(kernel, P), kd.hessian(expected, P))
        assert pickle.loads(pickle.dumps(kernel)) == kernel
        gp = kd.GaussianProcessRegressor(kernel, optimizer=None).fit(P, P[:, 0])
        assert gp.kernel_ == kernel
    for bad in (slice(4, 9), slice("a", "b"), {0}, {0: 1}, slice(0, 2, 0)):
        for use in (lambda k: k(P), lambda k: kd.gradient(k, P)):
            with pytest.raises(ValueError, match="different column numbers from 0 to 3"):
                use(kd.Columns(RBF(), bad))


def test_expansion_of_a_support_vector_machine():
    """Its weights are a row."""
    svr = SVR(gamma=0.5, C=10.0).fit(X, Y)
    assert svr.dual_coef_.shape == (1, len(svr.support_vectors_))
    f = kd.expansion(RBF(1.0), svr.support_vectors_, svr.dual_coef_)
    # Sums of some numbers of size C.
    assert_allclose(f(Z) + svr.intercept_, svr.predict(Z), rtol=1e-12, atol=1e-13)
    assert f.gradient(Z).shape == (4, 2)
    single = kd.expansion(RBF(), [[0.0, 0.0]], [[2.0]])
    assert single([[0.0, 0.0]]).shape == (1, 1)
    with pytest.raises(ValueError, match=r"\(6,\) or \(6, T\)"):
        kd.expansion(RBF(), X, Y[None, :4])


# --------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------


def test_pictures_compare_names_and_see_masks():
    plot = pytest.importorskip("kerneldiff.plot")
    pytest.importorskip("matplotlib")
    gp, basis = model().fit(frame(X), Y), kd.TanhBasis(3, random_state=0).fit(frame(X))
    for call in (
        lambda P: plot.GaussianProcessDisplay.from_estimator(gp, P, features=["load"]),
        lambda P: plot.JacobianDisplay.from_estimator(basis, P, feature="load"),
        lambda P: plot.SensitivityDisplay.from_estimator(gp, P),
        lambda P: plot.KernelMatrixDisplay.from_kernel(KERNEL, frame(X), P),
    ):
        with pytest.raises(ValueError, match=ORDER):
            call(swapped(Z))
        with pytest.raises(ValueError, match="has masked entries"):
            call(masked(Z))
    with pytest.raises(ValueError, match="y has masked entries"):
        plot.SensitivityDisplay.from_estimator(gp, frame(X), masked(Y))
