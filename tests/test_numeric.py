"""Numerical derivatives, and that the check of a kernel's derivatives finds what is wrong."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.gaussian_process.kernels import (
    RBF,
    DotProduct,
    ExpSineSquared,
    Kernel,
    Matern,
    NormalizedKernelMixin,
    RationalQuadratic,
    StationaryKernelMixin,
)
from support.oracles import REGISTRY

from kerneldiff import Columns, _reference, numeric
from kerneldiff.numeric import (
    DerivativeError,
    check_kernel_derivatives,
    numerical_hessian,
    numerical_jacobian,
)

# --- derivatives of any function ---------------------------------------------------------------


def matrix_function(x):
    """(2, 3) -> (3, 3)."""
    return np.tanh(x.T @ x)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 2)], ids=str)
def test_jacobian_of_elementwise_function(shape, rng):
    x = rng.normal(size=shape)
    jacobian = numerical_jacobian(np.exp, x)
    assert jacobian.shape == shape + shape
    expected = np.diag(np.exp(x).ravel()).reshape(shape + shape)
    # Weights up to 20 of values rounded by 1e-16, over steps of 1/16, halved a few times.
    np.testing.assert_allclose(jacobian, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)], ids=str)
def test_hessian_of_elementwise_function(shape, rng):
    x = rng.normal(size=shape)
    hessian = numerical_hessian(np.sin, x)
    assert hessian.shape == shape + shape + shape
    expected = np.zeros((x.size,) * 3)
    np.einsum("aaa->a", expected)[...] = -np.sin(x).ravel()
    # The same twice: 20^2 1e-16/(1/16)^2, halved a few times.
    np.testing.assert_allclose(hessian, expected.reshape(hessian.shape), rtol=0, atol=1e-9)


def test_jacobian_has_numerator_layout(rng):
    x = rng.normal(size=(2, 3))
    jacobian = numerical_jacobian(matrix_function, x)
    assert jacobian.shape == (3, 3, 2, 3)
    slope = 1 - matrix_function(x) ** 2
    eye = np.eye(3)
    expected = np.einsum("ij,ib,aj->ijab", slope, eye, x) + np.einsum(
        "ij,jb,ai->ijab", slope, eye, x
    )
    np.testing.assert_allclose(jacobian, expected, rtol=0, atol=1e-12)


def test_hessian_is_the_jacobian_of_the_jacobian(rng):
    x = rng.normal(size=(2, 3))
    hessian = numerical_hessian(matrix_function, x)
    assert hessian.shape == (3, 3, 2, 3, 2, 3)
    np.testing.assert_allclose(hessian, hessian.transpose(0, 1, 4, 5, 2, 3), rtol=0, atol=1e-8)


def test_hessian_of_number(rng):
    A = rng.normal(size=(4, 4))
    hessian = numerical_hessian(lambda x: x @ A @ x, rng.normal(size=4))
    np.testing.assert_allclose(hessian, A + A.T, rtol=0, atol=1e-9)


def test_constant_has_zero_derivatives():
    np.testing.assert_allclose(numerical_jacobian(lambda x: 3.0, [1.0, 2.0]), [0, 0], atol=1e-12)
    np.testing.assert_allclose(numerical_hessian(lambda x: 3.0, [1.0]), [[0]], atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "out"), [((0,), ()), ((0, 2), (3,)), ((2,), (0,)), ((0,), (0,))], ids=str
)
@pytest.mark.parametrize(("function", "times"), [(numerical_jacobian, 1), (numerical_hessian, 2)])
def test_nothing_to_differentiate(function, times, shape, out):
    assert function(lambda x: np.ones(out), np.ones(shape)).shape == out + times * shape


def test_options_are_those_of_scipy():
    """A step over the kink sees it, a smaller one does not."""
    assert numerical_jacobian(np.abs, 0.1, initial_step=0.05) == pytest.approx(1, abs=1e-12)
    assert numerical_jacobian(np.abs, 0.1, initial_step=8.0, maxiter=1) < 0.9


@pytest.mark.parametrize("x", [1j, "a", [None]], ids=repr)
@pytest.mark.parametrize("function", [numerical_jacobian, numerical_hessian])
def test_x_must_be_real(function, x):
    with pytest.raises(TypeError, match=r"^x must be real"):
        function(lambda x: x, x)


@pytest.mark.parametrize("function", [numerical_jacobian, numerical_hessian])
def test_function_must_be_real(function):
    with pytest.raises(TypeError, match=r"^func\(x\) must be real"):
        function(lambda x: x * 1j, 1.0)


# --- derivatives of a kernel: what is right passes ---------------------------------------------

TENSORS = [
    "kernel_matrix",
    *(f"gradient[{wrt}]" for wrt in ("x", "y")),
    *(f"{name}[{wrt}]" for name in ("hessian_diag", "hessian") for wrt in ("xx", "xy", "yx", "yy")),
]

# Apart, coincident, and so close together that no difference resolves it.
X = np.array([[0.1, -0.4], [1.3, 0.2], [-0.8, 0.9]])
Y = np.array([[0.1, -0.4], [0.1 + 8e-7, -0.4 - 6e-7], [0.7, 1.1]])


@pytest.fixture
def on_reference(monkeypatch):
    """Let the check read kernels with the reference: it is the check that is tested here."""
    for name in ("kernel_matrix", "gradient", "hessian_diag", "hessian"):
        monkeypatch.setattr(numeric, name, getattr(_reference, name))


@pytest.fixture
def broken(monkeypatch, on_reference):
    """Let one function of the reference return something else."""

    def breaks(name, change, only=None):
        original = getattr(_reference, name)

        def changed(kernel, X, Y=None, wrt=None):
            tensor = original(kernel, X, Y, wrt)
            return change(tensor) if only in (None, wrt) else tensor

        changed.__name__ = name
        monkeypatch.setattr(numeric, name, changed)

    return breaks


@pytest.mark.quick(4)
@pytest.mark.parametrize("points", [(X, Y), (X, None)], ids=["X,Y", "X"])
@pytest.mark.parametrize("name", REGISTRY)
def test_right_derivatives_pass(name, points, on_reference):
    report = check_kernel_derivatives(REGISTRY[name](2), *points)
    # Over 1e-4 length scales the values of this kernel are 1 but for their last digits.
    unknown = name == "matern-3/2-wide"
    assert report.ok is (None if unknown else True)
    assert list(report.tensors) == TENSORS


@pytest.mark.quick(4)
@pytest.mark.parametrize("points", [(X, Y), (X, None)], ids=["X,Y", "X"])
@pytest.mark.parametrize("name", REGISTRY)
def test_compiled_derivatives_pass(name, points):
    report = check_kernel_derivatives(REGISTRY[name](2), *points)
    # Over 1e-4 length scales the values of this kernel are 1 but for their last digits.
    unknown = name == "matern-3/2-wide"
    assert report.ok is (None if unknown else True)
    assert list(report.tensors) == TENSORS


@pytest.mark.quick(4)
@pytest.mark.parametrize("nu", [0.5, 0.6, 0.8, 1.0, 1.1, 1.3, 1.5, 2.5])
def test_rough_kernels_pass_at_coincident_points(nu, on_reference):
    kernel = Matern([0.5, 2.0], nu=nu) + 0.1 * RBF(1.0)
    report = check_kernel_derivatives(kernel, X)
    # Three coincident pairs, two columns.
    assert report.tensors["gradient[x]"].n_missing == (6 if nu <= 0.5 else 0)
    assert report.tensors["hessian[xy]"].n_missing == (12 if nu <= 1 else 0)


def test_kernel_on_columns_passes_where_these_coincide(on_reference):
    kernel = Columns(Matern(1.0, nu=0.5), [0]) * RBF(1.0)
    report = check_kernel_derivatives(kernel, X[:1], X[:1] + np.array([0.0, 0.5]))
    assert report.tensors["hessian[xx]"].n_missing == 3


@pytest.mark.parametrize("offset", [2.0**10, 2.0**20])
def test_points_far_from_the_origin_pass(offset, on_reference):
    assert check_kernel_derivatives(RBF([0.5, 2.0]), X + offset, Y + offset).ok


@pytest.mark.parametrize(("n", "m", "d"), [(0, 3, 2), (3, 0, 2), (2, 2, 1), (2, 3, 4)], ids=str)
def test_any_number_of_points(n, m, d, on_reference, rng):
    assert check_kernel_derivatives(
        RBF(1.0) * DotProduct(), rng.normal(size=(n, d)), rng.normal(size=(m, d))
    ).ok


# --- derivatives of a kernel: what is wrong does not -------------------------------------------

WRONG_EVERYWHERE = {
    "flipped sign": lambda tensor: -tensor,
    "missing factor 2": lambda tensor: tensor / 2,
    "extra factor 2": lambda tensor: tensor * 2,
    "relative error 1e-6": lambda tensor: tensor * (1 + 1e-6),
    "NaN": lambda tensor: np.full_like(tensor, np.nan),
}
KERNELS = {
    "rbf": 2.0 * RBF([0.5, 1.5]),
    "matern": Matern(0.9, nu=2.5),
    "rational": RationalQuadratic(0.7, alpha=0.4),
    "periodic": ExpSineSquared(1.2, periodicity=2.0),
    "composite": RBF([0.5, 1.5]) * DotProduct(0.4) + Matern(1.2, nu=1.5) ** 2,
}


def wrong_tensors(kernel, points=(X, Y)):
    """The tensors that the check finds to be wrong."""
    with pytest.raises(DerivativeError) as raised:
        check_kernel_derivatives(kernel, *points)
    return {name: check for name, check in raised.value.report.tensors.items() if not check.ok}


@pytest.mark.quick(3)
@pytest.mark.parametrize("change", WRONG_EVERYWHERE)
@pytest.mark.parametrize("tensor", TENSORS[1:])
@pytest.mark.parametrize("kernel", KERNELS)
def test_wrong_tensor_is_found(kernel, tensor, change, broken):
    name, wrt = tensor.rstrip("]").split("[")
    broken(name, WRONG_EVERYWHERE[change], only=wrt)
    assert list(wrong_tensors(KERNELS[kernel])) == [tensor]


@pytest.mark.quick(3)
@pytest.mark.parametrize("change", ["flipped sign", "relative error 1e-6", "NaN"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_wrong_values_are_found(kernel, change, monkeypatch, on_reference):
    monkeypatch.setattr(
        numeric,
        "kernel_matrix",
        lambda *args: WRONG_EVERYWHERE[change](_reference.kernel_matrix(*args)),
    )
    assert list(wrong_tensors(KERNELS[kernel])) == ["kernel_matrix"]


@pytest.mark.quick(3)
@pytest.mark.parametrize("wrt", ["xx", "xy", "yx", "yy"])
@pytest.mark.parametrize("name", ["hessian", "hessian_diag"])
@pytest.mark.parametrize("points", [(X, Y), (X, None), (X[:1], None)], ids=["X,Y", "X", "one"])
def test_missing_kronecker_term_is_found(name, wrt, points, broken):
    """Derivations found in notebooks lose the second term of (d_a d_b/l^4 - [a=b]/l^2) k."""
    kernel = RBF(0.8)
    sign = 1 if wrt in ("xx", "yy") else -1
    term = sign * kernel(*points)[..., None] / 0.8**2
    if name == "hessian":
        term = term[..., None] * np.eye(2)
    broken(name, lambda tensor: tensor + term, only=wrt)
    assert list(wrong_tensors(kernel, points)) == [f"{name}[{wrt}]"]


@pytest.mark.parametrize("index", [(0, 2, 0, 1), (1, 2, 1, 1), (2, 0, 1, 0)], ids=str)
def test_single_wrong_entry_is_named(index, broken):
    kernel = 2.0 * RBF([0.5, 1.5])

    def change(tensor):
        tensor[index] += 1e-6 * np.abs(tensor[index[:2]]).max()
        return tensor

    broken("hessian", change, only="xy")
    check = wrong_tensors(kernel)["hessian[xy]"]
    assert check.index == index
    assert check.n_wrong == 1
    np.testing.assert_allclose(check.numerical, _reference.hessian(kernel, X, Y, "xy")[index], 1e-6)
    assert f"WRONG  hessian[xy]              worst entry [{', '.join(map(str, index))}]" in str(
        check
    )


@pytest.mark.parametrize("wrong", [0.0, np.inf])
@pytest.mark.parametrize("tensor", ["gradient[x]", "hessian[xy]", "hessian_diag[yy]"])
def test_number_where_there_is_no_derivative_is_found(tensor, wrong, broken):
    """The double-where patch of autodiff gives 0 for |x - y| at x = y."""
    name, wrt = tensor.rstrip("]").split("[")
    broken(name, lambda array: np.where(np.isnan(array), wrong, array), only=wrt)
    assert list(wrong_tensors(Matern(0.9, nu=0.5))) == [tensor]


@pytest.mark.quick(3)
@pytest.mark.parametrize("nu", [1.5, 2.5, np.inf])
@pytest.mark.parametrize("tensor", ["gradient[x]", "hessian[xy]", "hessian_diag[yy]"])
def test_nan_where_there_is_a_derivative_is_found(tensor, nu, broken):
    """What autodiff of a square root gives at x = y."""
    name, wrt = tensor.rstrip("]").split("[")

    def change(array):
        array[0, 0] = np.nan
        return array

    broken(name, change, only=wrt)
    found = wrong_tensors(Matern(0.9, nu=nu))
    assert list(found) == [tensor]
    assert found[tensor].index[:2] == (0, 0)


@pytest.mark.parametrize(("nu", "wrong"), [(1.5, -2 / 3), (2.5, -2.0), (2.5, 0.0)])
def test_wrong_finite_value_at_coincident_points_is_found(nu, wrong, broken):
    """Autodiff of Matern in r, patched, gives a finite multiple of what is right."""

    def change(array):
        array[0, 0] *= wrong
        return array

    broken("hessian", change, only="xy")
    assert wrong_tensors(Matern(0.9, nu=nu))["hessian[xy]"].index[:2] == (0, 0)


class Bump(NormalizedKernelMixin, StationaryKernelMixin, Kernel):
    """A kernel of one's own, 1/(1 + s)^2, with a jet that may have mistakes in it."""

    invariant = "sqdist"

    def __init__(self, first=-2.0, second=6.0):
        self.first = first
        self.second = second

    def __call__(self, X, Y=None):
        return (1 + cdist(X, X if Y is None else Y, "sqeuclidean")) ** -2

    def jet(self, a, order):
        u = 1 + a
        return np.array([u**-2, self.first * u**-3, self.second * u**-4])[: order + 1]


SECOND = [name for name in TENSORS if name.startswith("hessian")]


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ({}, []),
        ({"first": 2.0}, TENSORS[1:]),
        ({"first": -1.0}, TENSORS[1:]),
        ({"second": 3.0}, SECOND),
        ({"second": -6.0}, SECOND),
        ({"second": 6.00001}, SECOND),
    ],
    ids=str,
)
def test_mistakes_in_the_jet_of_a_kernel_of_ones_own(mistake, expected, on_reference):
    kernel = 1.5 * Bump(**mistake)
    found = list(wrong_tensors(kernel)) if expected else check_kernel_derivatives(kernel, X, Y)
    assert found == expected if expected else found.ok


# --- reports and errors ------------------------------------------------------------------------


def test_report_has_a_line_for_each_tensor(on_reference):
    lines = str(check_kernel_derivatives(Matern(1.0, nu=0.5), X)).splitlines()
    assert lines[0] == "derivatives of Matern(length_scale=1, nu=0.5)"
    assert [line.split()[1] for line in lines[1:]] == TENSORS
    assert all(line.startswith("ok ") for line in lines[1:])
    assert lines[2].endswith("; 6 do not exist")


def test_error_is_an_assertion_with_the_report_as_its_message(broken):
    broken("gradient", lambda tensor: -tensor, only="y")
    with pytest.raises(AssertionError, match=r"WRONG  gradient\[y\] ") as raised:
        check_kernel_derivatives(RBF(1.0), X, Y)
    assert str(raised.value) == str(raised.value.report)
    assert not raised.value.report.ok


def test_verbose_prints_the_report(on_reference, capsys):
    report = check_kernel_derivatives(RBF(1.0), X, verbose=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "finite differences of RBF(length_scale=1), 3 x 3 pairs"
    assert printed[1:] == str(report).splitlines()[1:]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((X[0],), r"^X must be two-dimensional, but its shape is \(2,\)"),
        ((X, Y[0]), r"^Y must be two-dimensional, but its shape is \(2,\)"),
        ((X, Y[:, :1]), "^X has 2 columns and Y has 1"),
    ],
    ids=["X", "Y", "columns"],
)
def test_bad_points(points, message):
    with pytest.raises(ValueError, match=message):
        check_kernel_derivatives(RBF(1.0), *points)


def test_points_must_be_real():
    with pytest.raises(TypeError, match=r"^X must be real"):
        check_kernel_derivatives(RBF(1.0), X * 1j)


# --- steps in proportion, and what has not converged ---------------------------------------------


@pytest.mark.quick(2)
@pytest.mark.parametrize("s", [1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9])
def test_functions_of_any_scale(s):
    """A share of 1e-9 of rounding at the worst step, 1e-6 for second derivatives."""
    for x in (0.0, s, -s / 3):
        slope = np.exp(x / s) / s
        assert numerical_jacobian(lambda x: np.exp(x / s), x) == pytest.approx(slope, rel=1e-9)
        found = numerical_hessian(lambda x: np.exp(x / s), x)
        assert found == pytest.approx(slope / s, rel=1e-6)


def test_steps_of_entries_and_offsets():
    assert numerical_hessian(lambda x: (x**3).sum(), [1e6]) == pytest.approx(6e6, rel=1e-9)
    found = numerical_jacobian(lambda x: np.sin(x / 1e-6), 1e-6)
    assert found == pytest.approx(np.cos(1) * 1e6, rel=1e-9)
    mixed = numerical_jacobian(lambda x: np.sin(x[0] / 1e-6) + (x[1] / 1e6) ** 3, [1e-6, 1e6])
    np.testing.assert_allclose(mixed, [np.cos(1) * 1e6, 3e-6], rtol=1e-9)
    assert numerical_jacobian(np.sin, 1e6) == pytest.approx(np.cos(1e6), rel=1e-6)
    np.testing.assert_allclose(np.diag(numerical_jacobian(np.log, [1e-9, 1.0])), [1e9, 1])


def test_scale_of_the_user():
    found = numerical_jacobian(lambda x: np.sin(x / 1e-13), 0.0, scale=1e-13)
    assert found == pytest.approx(1e13, rel=1e-9)
    found = numerical_jacobian(lambda x: np.sin(x * [1e6, 1e-6]), [0, 0], scale=[1e-6, 1e6])
    np.testing.assert_allclose(np.diag(found), [1e6, 1e-6], rtol=1e-9)


NO_DERIVATIVES = {
    "kink": (np.abs, 0.0),
    "edge": (np.sqrt, 0.0),
    "root": (np.cbrt, 0.0),
    "jump": (np.floor, 1.0),
    "NaN": (lambda x: np.nan * x, 1.0),
    "too fine": (lambda x: np.sin(1e17 * x), 1.0),
}


@pytest.mark.parametrize("case", NO_DERIVATIVES)
def test_no_derivative(case):
    func, x = NO_DERIVATIVES[case]
    with pytest.warns(numeric.DerivativeWarning, match="1 of 1 derivatives have not converged"):
        numerical_jacobian(func, x)
    assert np.isnan(numerical_jacobian(func, x, on_failure="nan"))
    numerical_jacobian(func, x, on_failure="ignore")


def test_no_second_derivative():
    with pytest.warns(numeric.DerivativeWarning, match="numerical_hessian"):
        numerical_hessian(lambda x: x * abs(x), 0.0)


@pytest.mark.parametrize("function", [numerical_jacobian, numerical_hessian])
def test_bad_options(function):
    for options, message in (
        ({"scale": -1.0}, r"^scale is \[-1. -1.\]; it must be positive"),
        ({"scale": [1.0, 2.0, 3.0]}, r"^scale has shape \(3,\); it may be"),
        ({"scale": 1.0, "initial_step": 1.0}, "only one of them"),
        ({"on_failure": "raise"}, "^on_failure is 'raise'; it may be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            function(np.sum, [1.0, 2.0], **options)


def test_what_cannot_be_checked_is_not_called_ok():
    """Second derivatives of a rough kernel are known by as much as they are large."""
    points = np.random.default_rng(0).normal(size=(4, 2))
    report = check_kernel_derivatives(Matern([1.0, 2.0], nu=1.5) * DotProduct(1.0), points)
    check = report.tensors["hessian[xy]"]
    assert 0 < check.n_unchecked < check.size
    assert check.tolerance <= 0.1 * abs(check.value) or check.value == 0
    assert f"{check.n_unchecked} cannot be checked here" in str(check)
    assert report.tensors["gradient[x]"].n_unchecked == 0


@pytest.mark.parametrize("s", [1e-6, 1e6])
def test_kernels_of_any_length_scale(s, broken):
    assert check_kernel_derivatives(RBF(0.8 * s), X * s, Y * s).ok
    broken("hessian", lambda tensor: tensor * (1 + 1e-6), only="xy")
    with pytest.raises(DerivativeError):
        check_kernel_derivatives(RBF(0.8 * s), X * s, Y * s)


def test_tensor_that_cannot_be_checked_is_not_ok():
    report = check_kernel_derivatives(Matern(1e4, nu=1.5), X)
    check = report.tensors["hessian[xx]"]
    assert check.n_wrong == 0
    assert check.n_unchecked == check.size
    assert check.ok is None
    assert report.ok is None
    assert "cannot be checked here" in str(check)
    assert report.tensors["kernel_matrix"].ok is True


def test_wrong_tensor_beside_one_that_cannot_be_checked(broken):
    broken("gradient", lambda tensor: tensor + 1.0)
    with pytest.raises(DerivativeError) as raised:
        check_kernel_derivatives(Matern(1e4, nu=1.5), X)
    assert raised.value.report.ok is False
    assert raised.value.report.tensors["hessian[xx]"].ok is None


def _bump(x):
    return np.exp(-(x**2) / 2)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "s",
    [
        1e-12,
        1e12,
        *(pytest.param(s, marks=pytest.mark.exhaustive) for s in (1e-20, 1e-15, 1e-9, 1e-5, 1e5)),
    ],
)
def test_functions_of_any_scale_at_zero(s):
    """Without `scale`, and beside other entries of the usual size."""
    np.testing.assert_allclose(numerical_jacobian(lambda x: np.exp(x / s), 0.0), 1 / s, rtol=1e-6)
    hessian = numerical_hessian(lambda x: np.exp(x / s), 0.0)
    np.testing.assert_allclose(hessian, 1 / s**2, rtol=1e-6)
    np.testing.assert_allclose(numerical_hessian(lambda x: _bump(x / s), 0.0), -1 / s**2, rtol=1e-6)


@pytest.mark.parametrize("s", [1e-15, 1e-12, 1e-9, 1e-7, 1e3, 1e5])
def test_zeros_beside_other_entries(s):
    jacobian = numerical_jacobian(lambda x: np.sin(x[0] / s) + x[1], [0.0, 1.0])
    np.testing.assert_allclose(jacobian, [1 / s, 1.0], rtol=1e-6)


def test_bump_beside_another_entry():
    hessian = numerical_hessian(lambda x: _bump(x[0] / 1e-12) + x[1] ** 2, [0.0, 1.0])
    np.testing.assert_allclose(np.diag(hessian), [-1e24, 2.0], rtol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize("x", [5e-324, 1e-300, -1e-200, 1e-30, 1e-13, 1e-7])
def test_entries_that_are_nearly_zero(x):
    np.testing.assert_allclose(numerical_jacobian(np.exp, x), np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(numerical_hessian(np.exp, x), np.exp(x), rtol=1e-6)
    if x > 1e-300:  # where they are meant
        np.testing.assert_allclose(numerical_jacobian(np.log, x), 1 / x, rtol=1e-6)


@pytest.mark.parametrize("x", [1.6e9, 1e12, 1.23456789e11])
def test_steps_are_exact_far_from_zero(x):
    np.testing.assert_allclose(numerical_jacobian(np.sin, x), np.cos(x), rtol=1e-6)
    np.testing.assert_allclose(numerical_hessian(np.sin, x), -np.sin(x), rtol=1e-6)


@pytest.mark.parametrize("derivative", [numerical_jacobian, numerical_hessian])
def test_steps_lost_in_rounding_are_warned_of(derivative):
    with pytest.warns(numeric.DerivativeWarning):
        derivative(np.sin, 1e15)
    with pytest.warns(numeric.DerivativeWarning):
        derivative(lambda x: np.sin(x / 1e-9), 1e9, scale=1e-9)


@pytest.mark.parametrize("derivative", [numerical_jacobian, numerical_hessian])
def test_x_must_be_finite(derivative):
    def never(x):
        raise AssertionError("called")

    for x, message in (
        (np.inf, "^x is inf; it must be finite"),
        ([[1.0, 2.0], [np.nan, 3.0]], r"^x\[1, 0\] is nan"),
        ([-np.inf], r"^x\[0\] is -inf"),
    ):
        with pytest.raises(ValueError, match=message):
            derivative(never, x)


@pytest.mark.quick(1)
@pytest.mark.parametrize("derivative", [numerical_jacobian, numerical_hessian])
def test_kink_at_zero_beside_another_entry(derivative):
    """Steps of 1e-17 see nothing of it beside the other entry, larger ones do."""
    with pytest.warns(numeric.DerivativeWarning):
        derivative(lambda x: abs(x[0]) + x[1], [0.0, 1.0])


C = np.array([0.07, 0.6])
EXTREMA = {
    "cos": lambda z: np.cos(z),
    "cos, many periods": lambda z: np.cos(1e4 * z),
    "cos, of period 4": lambda z: np.cos(np.pi / 2 * z),
    "cos, far from 0": lambda z: 1e3 + np.cos(z),
    "rational": lambda z: (1 + z @ z) ** -1.7,
    "bell": lambda z: np.exp(-z @ z),
    "bell's Laplacian": lambda z: np.exp(-z @ z) * (1 - 2 * z @ z),
    "quartic": lambda z: z**4,
}


@pytest.mark.parametrize("at", [0.0, C], ids=["0", "C"])
@pytest.mark.parametrize("name", EXTREMA)
def test_zero_derivatives_are_found_without_a_warning(name, at):
    """At an extremum, whatever a function does where steps are 2^10 times as large.

    An exact 0 is beyond rounding: of values of size 1000 at most, over steps of 2^-12 and more.
    """
    jacobian = numerical_jacobian(lambda x: EXTREMA[name](x - at), at + np.zeros(2))
    assert np.abs(jacobian).max() <= 32 * 1e3 * np.finfo(float).eps * 2**12 * 2**10


@pytest.mark.parametrize(
    ("function", "x"), [(np.sin, np.pi), (np.sin, 0.0), (lambda x: np.tanh(x - 0.6), 0.6)]
)
def test_points_of_inflection(function, x):
    assert abs(numerical_hessian(function, x)) <= 1e-6


@pytest.mark.parametrize("x", [0.0, 1e-300])
def test_entries_of_very_different_size(x):
    jacobian = numerical_jacobian(lambda x: np.exp(x[0]) + np.sin(x[1] / 1e12), [x, 1e20])
    np.testing.assert_allclose(jacobian[0], 1.0, rtol=1e-6)
    with pytest.warns(numeric.DerivativeWarning):
        numerical_jacobian(lambda x: np.exp(x[0]) + np.sin(x[1] / 1e12), [x, 1e300])


@pytest.mark.parametrize("s", [1e7, 1e10])
def test_small_entry_of_a_wide_function(s):
    """Little of it is seen within a step as small as the entry."""
    jacobian = numerical_jacobian(lambda x: np.sin(x[0] / s) + x[1], [1e-4, 1.0])
    np.testing.assert_allclose(jacobian, [np.cos(1e-4 / s) / s, 1.0], rtol=1e-6)
