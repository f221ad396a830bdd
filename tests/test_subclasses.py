"""Subclasses of kernels: read as what they inherit, if they change no formula, or refused."""

import numpy as np
import pytest
from sklearn.gaussian_process import kernels as sk

from kerneldiff import (
    Columns,
    CovarianceOperator,
    GaussianProcessRegressor,
    GradientWhiteKernel,
    Value,
    ValueGradient,
    gradient,
    hessian,
    kernel_matrix,
)

X = np.random.default_rng(0).normal(size=(6, 2))


class Operators(sk.Kernel):
    """Sums and products of its own, as scikit-optimize's kernels have them."""

    def __add__(self, other):
        return MySum(self, other)

    def __mul__(self, other):
        return MyProduct(self, other)

    def __pow__(self, exponent):
        return MyPower(self, exponent)

    def gradient_x(self, x, X_train):
        raise NotImplementedError


class MySum(Operators, sk.Sum):
    pass


class MyProduct(Operators, sk.Product):
    pass


class MyPower(Operators, sk.Exponentiation):
    pass


class MyRBF(Operators, sk.RBF):
    """Other bounds."""

    def __init__(self, length_scale=1.0, length_scale_bounds=(0.1, 10.0)):
        super().__init__(length_scale, length_scale_bounds)


class Smooth(Operators, sk.Matern):
    """Fewer parameters."""

    nu = 2.5

    def __init__(self, length_scale=1.0, length_scale_bounds=(0.1, 10.0)):
        self.length_scale, self.length_scale_bounds = length_scale, length_scale_bounds


class MyRationalQuadratic(Operators, sk.RationalQuadratic):
    pass


class MyPeriodic(Operators, sk.ExpSineSquared):
    pass


class MyDotProduct(Operators, sk.DotProduct):
    pass


class MyWhite(Operators, sk.WhiteKernel):
    pass


class MyConstant(Operators, sk.ConstantKernel):
    pass


class MyPairwise(sk.PairwiseKernel):
    pass


class MyColumns(Columns):
    pass


class MyGradientNoise(GradientWhiteKernel):
    pass


# A kernel, and what it is read as.
SAME = {
    "rbf": (MyRBF(1.3), sk.RBF(1.3)),
    "rbf, several length scales": (MyRBF([1.3, 0.7]), sk.RBF([1.3, 0.7])),
    "matern": (Smooth(0.8), sk.Matern(0.8, nu=2.5)),
    "rational quadratic": (MyRationalQuadratic(0.8, 1.2), sk.RationalQuadratic(0.8, 1.2)),
    "periodic": (MyPeriodic(0.8, 1.2), sk.ExpSineSquared(0.8, 1.2)),
    "pairwise": (MyPairwise(0.8, metric="rbf"), sk.PairwiseKernel(0.8, metric="rbf")),
    "columns": (MyColumns(MyRBF(1.3), [1]), Columns(sk.RBF(1.3), [1])),
    "tree": (
        MyConstant(2.0) * MyRBF(1.3) + (MyDotProduct(0.5) * Smooth()) ** 2 + MyWhite(0.1),
        sk.ConstantKernel(2.0) * sk.RBF(1.3)
        + (sk.DotProduct(0.5) * sk.Matern(nu=2.5)) ** 2
        + sk.WhiteKernel(0.1),
    ),
    "noise of gradients": (MyRBF() + MyGradientNoise(0.1), sk.RBF() + GradientWhiteKernel(0.1)),
}


@pytest.mark.parametrize(("kernel", "same"), SAME.values(), ids=SAME)
def test_read_as_what_it_inherits(kernel, same):
    assert type(kernel) is not type(same) or type(kernel.k2) is not type(same.k2)
    np.testing.assert_array_equal(kernel_matrix(kernel, X), kernel_matrix(same, X))
    np.testing.assert_array_equal(hessian(kernel, X), hessian(same, X))
    operator, other = (CovarianceOperator(k, ValueGradient(X)) for k in (kernel, same))
    W = np.ones(operator.shape)
    np.testing.assert_array_equal(operator.vjp(W), other.vjp(W))
    fits = [
        GaussianProcessRegressor(k, alpha=100.0, alpha_gradient=100.0, optimizer=None).fit(
            X, X[:, 0], dy=X
        )
        for k in (kernel, same)
    ]
    np.testing.assert_array_equal(*(fit.predict_gradient(X) for fit in fits))


class Doubled(sk.RBF):
    def __call__(self, X, Y=None, eval_gradient=False):
        if eval_gradient:
            return tuple(2 * part for part in super().__call__(X, Y, True))
        return 2 * super().__call__(X, Y)

    def diag(self, X):
        return 2 * super().diag(X)


class Nugget(sk.RBF):
    def diag(self, X):
        return 1.1 * super().diag(X)


class Jet(sk.RBF):
    """A kernel of one's own, whatever it inherits."""

    invariant = "sqdist"

    def jet(self, a, order):
        return np.multiply.outer((-0.5) ** np.arange(order + 1), np.exp(-a / 2))

    def jet_gradient(self, a, order):
        raise AssertionError


class OtherValues(Jet):
    """Has a jet of other values than its own."""

    def __call__(self, X, Y=None, eval_gradient=False):
        return 3 * super().__call__(X, Y)


class OtherJet(Jet):
    """Has derivatives of another jet with respect to its hyperparameters."""

    def jet(self, a, order):
        return 3 * super().jet(a, order)


class Mixin:
    invariant = "sqdist"
    jet = Jet.jet


class Mixed(Mixin, sk.StationaryKernelMixin, sk.NormalizedKernelMixin, sk.Kernel):
    """The jet is of a class that is no kernel."""

    def __init__(self):
        pass

    def __call__(self, X, Y=None):
        return sk.RBF()(X, Y)


class MyJet(Jet):
    """Other bounds."""

    def __init__(self, length_scale=1.0, length_scale_bounds="fixed"):
        super().__init__(length_scale, length_scale_bounds)


@pytest.mark.parametrize(
    ("kernel", "method", "other"),
    [(Doubled(), "__call__", "RBF"), (Nugget(), "diag", "RBF"), (OtherValues(), "__call__", "Jet")],
    ids=lambda value: type(value).__name__,
)
def test_other_formula_is_refused(kernel, method, other):
    name = (
        rf"{__name__}\.{type(kernel).__name__} has a method `{method}` other than that of {other}"
    )
    for whole in (kernel, kernel + sk.RBF(), MySum(kernel, MyRBF()), Columns(kernel, [0])):
        with pytest.raises(TypeError, match=name):
            gradient(whole, X)


def test_other_formula_still_fits_values():
    model = GaussianProcessRegressor(Doubled(), alpha=0.1).fit(X, X[:, 0])
    same = GaussianProcessRegressor(sk.ConstantKernel(2.0, "fixed") * sk.RBF(), alpha=0.1).fit(
        X, X[:, 0]
    )
    assert model.kernel_.length_scale == pytest.approx(same.kernel_.k2.length_scale, rel=1e-4)
    with pytest.raises(NotImplementedError, match=rf"{__name__}\.Doubled"):
        model.predict_gradient(X)


def test_jets_of_subclasses():
    for kernel, factor in ((Jet(), 1), (MyJet(), 1), (Mixed(), 1), (OtherJet(), 3)):
        expected = factor * gradient(sk.RBF(), X)
        # The sum of 2 squares, an exponential and three products.
        np.testing.assert_allclose(gradient(kernel, X), expected, rtol=1e-13, atol=1e-300)
    with pytest.raises(NotImplementedError, match="OtherJet has hyperparameters but no method"):
        CovarianceOperator(OtherJet(), Value(X)).vjp(np.ones((6, 6)))


class Linear(sk.RBF):
    """Its theta is no logarithm."""

    @property
    def theta(self):
        return np.array([self.length_scale])

    @theta.setter
    def theta(self, theta):
        self.length_scale = float(theta[0])


class More(sk.RBF):
    """A hyperparameter that the formula does not know."""

    def __init__(self, length_scale=1.0, length_scale_bounds=(0.1, 10.0), more=1.0):
        super().__init__(length_scale, length_scale_bounds)
        self.more = more

    @property
    def hyperparameter_more(self):
        return sk.Hyperparameter("more", "numeric", (0.1, 10.0))


@pytest.mark.parametrize("kernel", [Linear(), More()], ids=lambda k: type(k).__name__)
def test_other_hyperparameters(kernel):
    np.testing.assert_array_equal(gradient(kernel, X), gradient(sk.RBF(), X))
    with pytest.raises(NotImplementedError, match=rf"{__name__}\.\w+ has hyperparameters other th"):
        CovarianceOperator(kernel, Value(X)).vjp(np.ones((6, 6)))
