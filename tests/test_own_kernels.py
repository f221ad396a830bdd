"""Kernels of one's own: a class that says what it depends on and gives its jet.

Each of them is a kernel of scikit-learn's written anew, so that the reference knows what is right;
the bounds of `support.bounds` hold for NumPy's functions as well.
"""

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import LowLevelCallable
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    DotProduct,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from support.bounds import assert_within, covariance_bounds
from support.functionals import functionals, meet
from support.oracles import mixed
from support.own_kernels import (
    DOUBLES,
    OWN,
    Bump,
    Compiled,
    Cube,
    Failing,
    Mishap,
    Rough,
    Singular,
    assert_usable,
    derivative,
    gaussian,
    raises,
)
from support.processes import assert_interruptible, run_python
from support.tensors import DTYPES, OPERATIONS, SECOND, points

import kerneldiff
from kerneldiff import Columns, _core, _reference, check_kernel_derivatives, covariance

dtypes = pytest.mark.parametrize("dtype", DTYPES)


# --------------------------------------------------------------------------------------------------
# Tensors and covariances of them
# --------------------------------------------------------------------------------------------------


own = pytest.mark.parametrize(("kernel", "known"), OWN.values(), ids=OWN)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, "float64") for name in ("gradient-y", "hessian_diag-xy", "hessian-xy")],
        ("packed-xx", "float32"),
    ],
)
@own
def test_tensors(kernel, known, name, dtype):
    X, Y = mixed(3, dtype, 20.0)
    operation = OPERATIONS[name]
    assert_within(operation(kernel, X, Y), *derivative(known, X, Y, operation))


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (1, 1), (51, 257), (300, 7)], ids=str)
@pytest.mark.parametrize("key", ["bump", "product"])
def test_sizes(key, size):
    kernel, known = OWN[key]
    X, Y = points(*size, 3)
    operation = OPERATIONS["gradient-x"]
    assert_within(operation(kernel, X, Y), *derivative(known, X, Y, operation))


@pytest.mark.parametrize("second", ["ValueGradient", "Laplacian"])
@pytest.mark.parametrize("first", ["Gradient", "Directional", "Hessian", "Laplacian"])
@pytest.mark.parametrize("key", ["bump", "cube", "two of its kind"])
def test_covariances(key, first, second):
    """The fourth derivative of a jet is asked for where second ones are on both sides."""
    kernel, known = OWN[key]
    rows, cols = meet(functionals(2, 3), functionals(3, 3, seed=1))
    arguments = rows[first], cols[second]
    actual = covariance(kernel, *arguments)
    assert_within(
        actual, _reference.covariance(known, *arguments), 2 * covariance_bounds(known, *arguments)
    )


def test_rough_kernel_of_ones_own():
    """Where its smoothness says that there is no derivative, there is none."""
    X = np.array([[0.3, -1.0]])
    assert np.isfinite(kerneldiff.hessian(Rough(), X, wrt="xy")).all()
    rougher = Rough(smoothness=2.0)
    assert np.isnan(kerneldiff.hessian(rougher, X, wrt="xy")).all()
    assert np.isfinite(kerneldiff.gradient(rougher, X)).all()
    sides = functionals(3, 2)
    with pytest.raises(ValueError, match=r"nu = 1.5, which is too rough"):
        covariance(Rough() + RBF(), sides["Laplacian"])


def test_noise_beside_a_kernel_of_ones_own():
    X = points(7, 0, 3)[0]
    kernel = (Bump() + WhiteKernel(0.3)) ** 2
    np.testing.assert_allclose(kerneldiff.kernel_matrix(kernel, X), kernel(X), rtol=1e-14)


@pytest.mark.quick(2)
@own
def test_finite_differences_agree(kernel, known):
    X, Y = points(3, 3, 3)
    Y[0] = X[0]
    assert check_kernel_derivatives(kernel, X, Y).ok


# --------------------------------------------------------------------------------------------------
# Mistakes that the check finds
# --------------------------------------------------------------------------------------------------


class Wrong(Bump):
    """A factor on one of the derivatives."""

    def __init__(self, order=0, factor=1.0, length_scale=1.0):
        super().__init__(length_scale, "fixed")
        self.order = order
        self.factor = factor

    def jet(self, a, order):
        jet = super().jet(a, order)
        if self.order <= order:
            jet[self.order] *= self.factor
        return jet


FIRST = ["gradient[x]", "gradient[y]"]
HESSIANS = [f"{name}[{wrt}]" for name in ("hessian_diag", "hessian") for wrt in SECOND]


@pytest.mark.quick(3)
@pytest.mark.parametrize("factor", [-1.0, 2.0, 0.5, 1 + 1e-6, 0.0, np.nan])
@pytest.mark.parametrize(
    ("order", "found"),
    [(0, ["kernel_matrix"]), (1, [*FIRST, *HESSIANS]), (2, HESSIANS)],
    ids=["value", "first", "second"],
)
def test_check_finds_mistakes(order, found, factor):
    X, Y = points(3, 4, 2, seed=2)
    with pytest.raises(kerneldiff.numeric.DerivativeError) as raised:
        check_kernel_derivatives(1.5 * Wrong(order, factor), X, Y)
    wrong = [name for name, tensor in raised.value.report.tensors.items() if not tensor.ok]
    assert wrong == found


def test_check_passes_without_mistakes():
    X, Y = points(3, 4, 2, seed=2)
    assert check_kernel_derivatives(1.5 * Wrong(), X, Y).ok


def test_check_finds_a_wrong_smoothness():
    """A kernel that says it is smoother than it is has a number where there is none, or the other
    way round."""
    X = points(3, 0, 2)[0]
    with pytest.raises(kerneldiff.numeric.DerivativeError, match=r"WRONG  hessian\[xy\]"):
        check_kernel_derivatives(Rough(smoothness=2.0), X)


# --------------------------------------------------------------------------------------------------
# What a jet is given, and may do
# --------------------------------------------------------------------------------------------------


class Recording(Bump):
    """Keeps what it was called with."""

    def __init__(self, calls=None, length_scale=1.0):
        super().__init__(length_scale, "fixed")
        self.calls = calls

    def jet(self, a, order):
        self.calls.append((a.copy(), order))
        return super().jet(a, order)


@dtypes
@pytest.mark.parametrize(
    ("name", "order"), [("kernel_matrix", 0), ("gradient-x", 1), ("hessian-xy", 2)]
)
def test_argument_of_a_jet(name, order, dtype):
    """One-dimensional, float64, not negative, of the pairs that there are; no higher order than
    needed."""
    calls = []
    X, Y = points(9, 21, 3, dtype)
    OPERATIONS[name](Recording(calls), X, Y)
    s = cdist(X.astype(float), Y.astype(float), "sqeuclidean")
    for a, asked in calls:
        assert asked == order
        assert a.dtype == np.float64
        assert a.ndim == 1
        assert ((s.min() * 0.999 <= a) & (a <= 1.001 * s.max())).all()
    assert len(calls) > 0


def test_orders_up_to_the_fourth():
    calls = []
    covariance(
        Recording(calls), functionals(2, 2)["Hessian"], functionals(2, 2, seed=1)["Laplacian"]
    )
    assert {order for _, order in calls} == {4}


def test_no_call_without_pairs():
    calls = []
    kerneldiff.hessian(Recording(calls), np.zeros((0, 2)), np.zeros((3, 2)))
    assert calls == []


class InPlace(Bump):
    """Ruins its argument."""

    def jet(self, a, order):
        jet = super().jet(a, order)
        a[:] = np.nan
        return jet


def test_jet_may_change_its_argument():
    X, Y = points(9, 21, 3)
    actual = kerneldiff.hessian(InPlace(0.7) + InPlace(0.9) * RBF(), X, Y)
    np.testing.assert_array_equal(actual, kerneldiff.hessian(Bump(0.7) + Bump(0.9) * RBF(), X, Y))


class Nested(Bump):
    """Calls the library from within."""

    def jet(self, a, order):
        same = RationalQuadratic(self.length_scale, 2.0)
        jet = super().jet(a, order)
        jet[0] = kerneldiff.kernel_matrix(same, np.sqrt(a)[:, None], np.zeros((1, 1)))[:, 0]
        return jet


def test_jet_may_use_the_library():
    X, Y = points(200, 210, 3)
    actual = kerneldiff.gradient(Nested(), X, Y)
    np.testing.assert_array_equal(actual, kerneldiff.gradient(Bump(), X, Y))
    np.testing.assert_allclose(kerneldiff.kernel_matrix(Nested(), X, Y), Bump()(X, Y), rtol=1e-13)


@pytest.mark.parametrize("kind", [np.float32, int, list], ids=str)
def test_jet_may_return_other_types(kind):
    class Line(Cube):
        def jet(self, a, order):
            jet = np.array([np.round(a), np.ones_like(a), 0 * a])[: order + 1]
            return jet.tolist() if kind is list else jet.astype(kind)

    X = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(kerneldiff.kernel_matrix(Line(), X), X @ X.T)
    np.testing.assert_array_equal(kerneldiff.gradient(Line(), X), np.broadcast_to(X, (3, 3, 2)))


def test_hyperparameters_are_read_at_each_call():
    X, Y = points(5, 6, 2)
    kernel = Bump(1.0)
    before = kerneldiff.gradient(kernel, X, Y)
    kernel.length_scale = 0.5
    np.testing.assert_array_equal(
        kerneldiff.gradient(kernel, X, Y), kerneldiff.gradient(Bump(0.5), X, Y)
    )
    np.testing.assert_array_equal(
        kerneldiff.gradient(clone(kernel).clone_with_theta([0.0]), X, Y), before
    )


def test_subclass_of_a_kernel_that_is_known():
    """The jet is what counts, not what it inherits."""

    class Mine(RBF):
        invariant = "sqdist"
        jet = Bump.jet

        def __call__(self, X, Y=None):
            return Bump(self.length_scale)(X, Y)

    X, Y = points(5, 6, 2)
    np.testing.assert_array_equal(
        kerneldiff.hessian(Mine(0.8), X, Y), kerneldiff.hessian(Bump(0.8), X, Y)
    )


def test_in_scikit_learns_regressor():
    """It is a kernel like any other: fitted there, differentiated here."""
    X = points(20, 0, 2)[0]
    kernel = GaussianProcessRegressor(1.0 * Bump(), alpha=1e-6).fit(X, np.sin(X[:, 0])).kernel_
    assert kernel.k2.length_scale != 1.0
    assert check_kernel_derivatives(kernel, X[:4]).ok


# --------------------------------------------------------------------------------------------------
# Jets that fail
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Mishap("here"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("size", [(1, 1), (300, 400)], ids=str)
@pytest.mark.parametrize("composite", [False, True], ids=["alone", "in a composite"])
def test_exception_in_a_jet(composite, size, error):
    """It is the one that the caller sees, and the library is as usable as before."""
    kernel = Failing(raises(error))
    X, Y = points(*size, 2)
    with pytest.raises(type(error)) as raised:
        kerneldiff.gradient(RBF() * (kernel + DotProduct()) if composite else kernel, X, Y)
    assert raised.value is error
    with pytest.raises(type(error)):
        covariance(kernel, kerneldiff.ValueGradient(X), kerneldiff.Value(Y))
    assert_usable()


def test_exception_after_a_while():
    """In one of many tasks, in one of many threads."""
    calls = []

    def action(jet):
        calls.append(1)
        if len(calls) == 40:
            raise Mishap
        return jet

    X, Y = points(500, 600, 2)
    with pytest.raises(Mishap):
        kerneldiff.kernel_matrix(Failing(action), X, Y)
    assert_usable()


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda jet: jet[:-1], ValueError, r"jet returned an array of shape .*must have shape"),
        (lambda jet: jet.T, ValueError, r"jet returned an array of shape .*must have shape"),
        (lambda jet: jet[None], ValueError, r"jet returned an array of shape .*must have shape"),
        (lambda jet: jet[:, :-1], ValueError, r"jet returned an array of shape .*must have shape"),
        (lambda jet: 1.0, ValueError, r"jet returned an array of shape .*must have shape"),
        (lambda jet: None, (TypeError, ValueError), "jet|float"),
        (lambda jet: [jet[0], 1.0, 0.0], ValueError, "jet|shape|sequence"),
        (lambda jet: jet * 1j, (TypeError, ValueError), "jet|complex"),
        (lambda jet: "abc", (TypeError, ValueError), "jet|float"),
    ],
)
def test_jet_of_the_wrong_shape_or_type(action, error, message):
    X, Y = points(20, 23, 2)
    with pytest.raises(error, match=message):
        kerneldiff.hessian(Failing(action), X, Y)
    assert_usable()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_comes_through(value):
    def action(jet):
        jet[:, 0] = value
        return jet

    assert not np.isfinite(kerneldiff.kernel_matrix(Failing(action), np.zeros((1, 2)))).any()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"invariant": "euclidean"},
            r"invariant of .* is 'euclidean'; it may be 'sqdist' or 'dot'",
        ),
        ({"invariant": None}, r"invariant of .* is None; it may be 'sqdist' or 'dot'"),
        ({"weights": [1.0]}, r"weights of .*it must hold 2"),
        ({"weights": [1.0, -1.0]}, r"weights of .*not negative"),
        ({"weights": [1.0, np.nan]}, r"weights of .*finite"),
        ({"weights": ["a", "b"]}, "weights|convert"),
        ({"smoothness": "high"}, "smoothness|convert"),
    ],
    ids=str,
)
def test_bad_attributes(attributes, message):
    kernel = Bump()
    vars(kernel).update(attributes)
    with pytest.raises(ValueError, match=message):
        kerneldiff.kernel_matrix(RBF() + kernel, np.zeros((2, 2)))


class NotAKernel:
    invariant = "sqdist"
    jet = Bump.jet
    length_scale = 1.0


@pytest.mark.parametrize(
    "kernel", [NotAKernel(), Bump, Bump().jet], ids=["object", "class", "method"]
)
def test_what_is_no_kernel(kernel):
    with pytest.raises(TypeError, match="cannot be read"):
        kerneldiff.kernel_matrix(kernel, np.zeros((2, 2)))


def test_jet_that_is_no_function():
    kernel = Bump()
    kernel.jet = 3
    with pytest.raises(TypeError, match=r"jet|callable"):
        kerneldiff.kernel_matrix(kernel, np.zeros((2, 2)))


# --------------------------------------------------------------------------------------------------
# Threads
# --------------------------------------------------------------------------------------------------


def test_concurrent_calls():
    """Each sees its own kernel and its own errors."""
    X, Y = points(120, 130, 2)
    scales = 0.5 + 0.1 * np.arange(8)
    alone = [kerneldiff.gradient(Bump(scale), X, Y) for scale in scales]

    def work(k):
        if k % 5 == 4:
            with pytest.raises(Mishap, match=str(k)):
                kerneldiff.gradient(Failing(raises(Mishap(k))), X, Y)
            return None
        return kerneldiff.gradient(Bump(scales[k % 8]), X, Y)

    with ThreadPoolExecutor(4) as pool:
        for k, array in enumerate(pool.map(work, range(40))):
            if array is not None:
                np.testing.assert_array_equal(array, alone[k % 8])


def test_one_kernel_in_several_threads():
    kernel = Bump(0.8)
    X, Y = points(120, 130, 2)
    alone = kerneldiff.hessian(kernel, X, Y)
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        return kerneldiff.hessian(kernel, X, Y)

    with ThreadPoolExecutor(4) as pool:
        for array in pool.map(work, range(4)):
            np.testing.assert_array_equal(array, alone)


INTERRUPTED = """
import time
import numpy as np, kerneldiff
from support.processes import report_interrupt
from support.own_kernels import Bump, assert_usable

class Slow(Bump):
    def jet(self, a, order):
        time.sleep(0.01)
        return super().jet(a, order)

X = np.random.default_rng(0).normal(size=(3000, 3))
kerneldiff.kernel_matrix(Slow(), X[:9])
report_interrupt(lambda: kerneldiff.kernel_matrix(Slow(), X))
assert_usable()
"""


@pytest.mark.exhaustive
def test_ctrl_c():
    """Whichever thread is in a jet then."""
    assert_interruptible(INTERRUPTED, threads=2)


@pytest.mark.exhaustive
def test_same_bits_for_any_number_of_threads():
    code = """
        import hashlib
        import numpy as np, kerneldiff
        from support.tensors import points
        from support.own_kernels import OWN
        X, Y = points(150, 307, 3)
        for key in ("bump", "product"):
            H = kerneldiff.hessian(OWN[key][0], X, Y, wrt="xy")
            print(hashlib.sha256(H).hexdigest())
        """
    said = {threads: run_python(code, threads=threads).split() for threads in (1, 3)}
    assert said[1] == said[3]


# --------------------------------------------------------------------------------------------------
# Compiled jets
# --------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("signature", [None, _core.SIGNATURE], ids=["of ctypes", "spelled out"])
@pytest.mark.parametrize("name", ["kernel_matrix", "gradient-y", "hessian-xy"])
def test_compiled_jet(name, signature, dtype):
    kernel = Compiled(LowLevelCallable(gaussian, signature=signature))
    X, Y = mixed(3, dtype, 20.0)
    operation = OPERATIONS[name]
    for left, right in (
        (kernel, RBF()),
        (kernel * RBF([0.7, 1.0, 1.9]) + DotProduct(), RBF() * RBF([0.7, 1.0, 1.9]) + DotProduct()),
    ):
        assert_within(operation(left, X, Y), *derivative(right, X, Y, operation))


def test_data_of_a_compiled_jet():
    """Each callable brings its own."""
    rates = [ctypes.c_double(rate) for rate in (0.5, 0.125)]
    parts = [
        Compiled(
            LowLevelCallable(
                gaussian,
                ctypes.cast(ctypes.pointer(rate), ctypes.c_void_p),
                signature=_core.SIGNATURE,
            )
        )
        for rate in rates
    ]
    X, Y = points(60, 70, 3)
    operation = OPERATIONS["hessian-xx"]
    expected = derivative(RBF(1.0) + 0.3 * RBF(2.0), X, Y, operation)
    assert_within(operation(parts[0] + 0.3 * parts[1], X, Y), *expected)


def test_compiled_jet_in_a_covariance():
    kernel = Compiled(LowLevelCallable(gaussian, signature=_core.SIGNATURE))
    rows, cols = meet(functionals(2, 3), functionals(3, 3, seed=1))
    sides = list(rows.values()), list(cols.values())
    assert_within(
        covariance(kernel, *sides),
        _reference.covariance(RBF(), *sides),
        2 * covariance_bounds(RBF(), *sides),
    )


@pytest.mark.parametrize(
    "prototype",
    [
        ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double),
        ctypes.CFUNCTYPE(None, DOUBLES, ctypes.c_int, ctypes.c_int, DOUBLES, ctypes.c_void_p),
    ],
    ids=["number", "size"],
)
def test_signature_that_does_not_fit(prototype):
    kernel = Compiled(LowLevelCallable(prototype(lambda *arguments: None)))
    with pytest.raises(ValueError, match=r"jet has the signature .*it must be .*ptrdiff_t"):
        kerneldiff.kernel_matrix(kernel, np.zeros((2, 2)))


# --------------------------------------------------------------------------------------------------
# Derivatives of a jet that are singular where points coincide
# --------------------------------------------------------------------------------------------------


def test_singular_jet_where_points_coincide():
    """Whatever `jet` returns there, derivatives are those of the compiled kernel."""
    X, _ = points(7, 1, 3)
    X[4] = X[1]
    functions = {
        "hessian": lambda k: kerneldiff.hessian(k, X),
        "mixed hessian": lambda k: kerneldiff.hessian(k, X, wrt="xy"),
        "covariance": lambda k: covariance(k, kerneldiff.ValueGradient(X)),
        "third derivatives": lambda k: covariance(
            k, kerneldiff.Gradient(X), kerneldiff.Laplacian(X)
        ),
        "product": lambda k: (
            kerneldiff.CovarianceOperator(k, kerneldiff.ValueGradient(X)) @ np.ones(28)
        ),
        "gram_jacobian": lambda k: kerneldiff.gram_jacobian(k, X),
    }
    for kernel, known in (
        (Singular(), Matern(nu=1.5)),
        (Columns(Singular(), [1]) * DotProduct(), Columns(Matern(nu=1.5), [1]) * DotProduct()),
    ):
        for name, function in functions.items():
            actual, expected = function(kernel), function(known)
            missing = np.isnan(expected)
            np.testing.assert_array_equal(np.isnan(actual), missing, err_msg=name)
            assert missing.any() == (name == "third derivatives")
            # Sums of 28 terms, each of some 20 roundings of numbers below 100.
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("solver", ["cholesky", "rotation"])
def test_singular_jet_learns_from_gradients(solver):
    X, _ = points(6, 1, 2)
    X[3] = X[0]
    fits = [
        kerneldiff.GaussianProcessRegressor(
            kernel, alpha=1e-2, alpha_gradient=1e-2, optimizer=None, solver=solver
        ).fit(X, X[:, 0], dy=np.tile([1.0, 0.0], (6, 1)))
        for kernel in (Singular(), Matern(nu=1.5))
    ]
    own, known = (model.predict_gradient(X, return_std=True) for model in fits)
    # The condition number is below 2000.
    np.testing.assert_allclose(own, known, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("smoothness", [0, -1.0, np.nan, "3", None])
def test_smoothness_is_checked(smoothness):
    with pytest.raises(ValueError, match=r"smoothness of Rough is .*; it must be positive"):
        kerneldiff.gradient(Rough(smoothness), np.zeros((2, 2)))
