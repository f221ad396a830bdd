"""Kernels at the ends of the range of numbers: right, or refused before work starts, and never NaN.

Powers of zero and of noise, hyperparameters from 1e-300 to 1e300, covariances that overflow; and
random kernels, points and functionals, for which nothing but documented errors may be raised.
"""

import warnings

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor as Plain
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

from kerneldiff import (
    Columns,
    CovarianceOperator,
    Directional,
    GaussianProcessRegressor,
    Gradient,
    Hessian,
    Laplacian,
    Value,
    ValueGradient,
    covariance,
    expansion,
    gradient,
    gram_jacobian,
    hessian,
    hessian_diag,
    kernel_matrix,
    rbf_kernel,
)
from kerneldiff.kernels import theta_derivatives

X = np.array([[0.0, 0.0], [1.0, -0.5], [0.0, 0.0], [2.0, 0.3]])
Y = np.array([[0.0, 0.0], [0.5, 0.5]])
W, ROUGH, DOT = WhiteKernel(1.3), Matern(nu=0.5), DotProduct(0.0)


def plainly(kernel, *points):
    """scikit-learn's values, without its warnings of what leaves the range of numbers."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return kernel(*points)


# --------------------------------------------------------------------------------------------------
# Powers of zero and of noise
# --------------------------------------------------------------------------------------------------

POWERS = {
    "noise": W**0,
    "no noise": WhiteKernel(0.0) ** 0,
    "inverse of one": (W**0) ** -1,
    "nested": ((W**3) ** 0) ** 2.5,
    "square of noise": W**2,
    "root of noise": W**0.5,
    "inverse noise": W**-1,
    "inverse twice": (W**-1) ** -1,
    "infinite twice": (W**-1) ** -2,
    "noise beyond range": WhiteKernel(1e200) ** 2,
    "no noise at all": (WhiteKernel(1e-200) ** 2) ** -0.5,
    "sum with noise": (RBF() + W) ** 0,
    "square of a sum": (RBF() + W) ** 2,
    "root of a sum": (RBF() + W) ** 0.5,
    "inverse of a sum": (RBF() + W) ** -1,
    "rough": ROUGH**0,
    "rough, to the first": RBF() ** 1,
    "dot product": DOT**0,
    "root of a dot product": (DOT * DOT) ** 0.5,
    "zero": ConstantKernel(0.0) ** 0,
    "square of zero": ConstantKernel(0.0) ** 2,
    "one over zero": ConstantKernel(0.0) ** -1,
    "root of a negative number": ConstantKernel(-2.0) ** 0.5,
    "beyond range": ConstantKernel(1e200) ** 2,
    "zero times": ConstantKernel(0.0) * RBF() + RBF(2.0),
    "zero times, to the zeroth": (ConstantKernel(0.0) * DOT) ** 0,
    "product": W**0 * RBF(),
    "product with noise": (W * RBF()) ** 0 * ROUGH,
    "columns": Columns(W**0, [1]) * RBF(),
    "amplitude beyond range": (ConstantKernel(1e200) * RBF()) ** 2,
    "exponent beyond range": RBF(1e-140) ** 1e60,
    "of almost zero": (ConstantKernel(1e-200) * RBF()) ** 2,
}


@pytest.mark.parametrize("kernel", POWERS.values(), ids=POWERS)
@pytest.mark.parametrize("points", [(X,), (X, Y)], ids=["X", "X, Y"])
def test_values_of_powers(kernel, points):
    expected = plainly(kernel, *points)
    np.testing.assert_allclose(kernel_matrix(kernel, *points), expected, rtol=1e-14)
    if len(points) == 1:
        finite = np.where(np.isfinite(expected), expected, 0)
        dense = covariance(kernel, Value(X))
        np.testing.assert_allclose(np.where(np.isfinite(dense), dense, 0), finite, rtol=1e-14)


def test_derivatives_of_powers():
    for kernel in (W**0, (W**0) ** -1, ROUGH**0, (ROUGH + W) ** 0, DOT**0):
        for function in (gradient, hessian_diag, hessian, gram_jacobian):
            assert not np.any(function(kernel, X)), (kernel, function)
    for kernel in (W**0 * RBF(), (DOT * ROUGH) ** 0 * RBF(), Columns(ROUGH**0, [1]) * RBF()):
        np.testing.assert_array_equal(gradient(kernel, X), gradient(RBF(), X))
        np.testing.assert_array_equal(hessian(kernel, X), hessian(RBF(), X))
    # Derivatives with respect to hyperparameters likewise.
    for kernel in (W**0 + RBF(), ROUGH**0 * RBF()):
        weights = np.arange(16.0).reshape(4, 4)
        of_kernel = CovarianceOperator(kernel, Value(X), Value(X)).vjp(weights)
        of_rbf = CovarianceOperator(RBF(), Value(X), Value(X)).vjp(weights)
        np.testing.assert_array_equal(of_kernel[np.flatnonzero(of_kernel)], of_rbf)


# --------------------------------------------------------------------------------------------------
# Hyperparameters out of range
# --------------------------------------------------------------------------------------------------

OUT_OF_RANGE = {
    "length_scale 0": (RBF(0.0), "length_scale"),
    "length_scale 1e-170": (RBF(1e-170), "length_scale"),
    "length_scale 1e200": (RBF(1e200), "length_scale"),
    "length_scales": (RBF([1.0, 1e-300]), "length_scale"),
    "matern": (Matern(1e200, nu=1.5), "length_scale"),
    "alpha": (RationalQuadratic(alpha=1e308), "alpha"),
    "periodicity": (ExpSineSquared(periodicity=1e-300), "periodicity"),
    "periodic length_scale": (ExpSineSquared(1e-200), "length_scale"),
    "sum": (RBF() + RBF(0.0), "length_scale"),
}


@pytest.mark.parametrize(("kernel", "name"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_search_begins_out_of_range(kernel, name):
    """scikit-learn's fit runs, ours has its result, and then all predictions that there are."""
    y = np.array([0.0, 1.0, 0.1, 0.5])
    options = {"alpha": 0.1, "random_state": 0}
    with np.errstate(all="ignore"):
        model = GaussianProcessRegressor(kernel, **options).fit(X, y)
        plain = Plain(kernel, **options).fit(X, y)
    assert model.kernel_ == plain.kernel_
    # An alpha of 1e5, or 1e5 periods, leave scikit-learn errors of 1e5 roundings in its entries.
    np.testing.assert_allclose(model.predict(Y), plain.predict(Y), rtol=1e-8, atol=1e-8)
    again = GaussianProcessRegressor(model.kernel_, optimizer=None, alpha=0.1).fit(X, y)
    np.testing.assert_array_equal(model.predict_gradient(Y), again.predict_gradient(Y))
    # Where hyperparameters stay out of range, derivatives say so.
    for call in (
        lambda: gradient(kernel, X),
        lambda: GaussianProcessRegressor(kernel).predict_gradient(X),
        lambda: GaussianProcessRegressor(kernel, optimizer=None).fit(X, y, dy=X),
    ):
        with pytest.raises(ValueError, match=name):
            call()


def test_values_stay_with_kernels_out_of_range():
    y = np.array([0.0, 1.0, 0.1, 0.5])
    for kernel in (RBF(1e-170), RBF(1e200)):
        model, plain = (
            cls(kernel, optimizer=None, alpha=0.1) for cls in (GaussianProcessRegressor, Plain)
        )
        with np.errstate(all="ignore"):
            model.fit(X, y), plain.fit(X, y)
            np.testing.assert_array_equal(model.predict(Y), plain.predict(Y))
        with pytest.raises(ValueError, match="length_scale"):
            model.predict_gradient(Y)


def test_other_numbers_out_of_range():
    with pytest.raises(ValueError, match="sigma_0 of DotProduct has the value 1e\\+200"):
        gradient(DotProduct(1e200), X)
    with pytest.raises(ValueError, match="beyond the range of numbers"):
        GaussianProcessRegressor(DotProduct(1e200)).predict(X, return_std=True)
    with pytest.raises(ValueError, match=r"gamma of PairwiseKernel is 1e\+308"):
        gradient(PairwiseKernel(gamma=1e308, metric="rbf"), X)
    with pytest.raises(ValueError, match="gamma is 1e"):
        rbf_kernel(X, gamma=1e308)


# --------------------------------------------------------------------------------------------------
# Covariances that are not finite
# --------------------------------------------------------------------------------------------------

# The kernel, and the part that overflows at points as far from the origin as FAR.
FAR = X + 5.0
OVERFLOWING = {
    "power": (DotProduct() ** 400, r"kernel DotProduct\(sigma_0=1\) \*\* 400 is"),
    "in a sum": (RBF() + DotProduct() ** 400, r"^DotProduct\(sigma_0=1\) \*\* 400, a part of"),
    "sum": (RBF() * 1e308 + RBF() * 1e308, r"kernel RBF.* \+ RBF"),
    "product": (1e200 * RBF() * (1e200 * RBF()), r"kernel .* \* "),
    "noise": (RBF() + WhiteKernel(1e200) ** 2, r"^WhiteKernel\(noise_level=1e\+200\) \*\* 2, a"),
}


@pytest.mark.parametrize("solver", ["cholesky", "rotation"])
@pytest.mark.parametrize(("kernel", "part"), OVERFLOWING.values(), ids=OVERFLOWING)
def test_covariance_that_is_not_finite(kernel, part, solver):
    model = GaussianProcessRegressor(kernel, optimizer=None, solver=solver)
    y = np.sin(FAR[:, 0])
    with pytest.raises(np.linalg.LinAlgError, match=part) as raised:
        model.fit(FAR, y, dy=np.cos(FAR))
    assert "beyond the range of numbers: the covariance of ValueGradient" in str(raised.value)
    assert not hasattr(model, "kernel_")
    if solver == "cholesky":
        with pytest.raises(np.linalg.LinAlgError, match=part):
            model.fit(FAR, y)


def test_derivatives_that_are_not_finite():
    model = GaussianProcessRegressor(1e300 * RBF(1e-10), optimizer=None)
    model.fit(FAR, np.sin(FAR[:, 0]))
    with pytest.raises(np.linalg.LinAlgError, match=r"covariance of ValueGradient\[1\] at \[5"):
        model.fit(FAR, np.sin(FAR[:, 0]), dy=np.cos(FAR))


def test_search_goes_on_where_a_covariance_is_not_finite():
    """Such hyperparameters have a likelihood of -inf, and a search that ends there is an error."""
    kernel = ConstantKernel(1e3, (1e-3, 1e3)) ** 120 * RBF()
    y = np.sin(X[[0, 1, 3], 0])
    model = GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=None)
    with pytest.raises(np.linalg.LinAlgError, match=r"^31\.6\*\*2 \*\* 120, a part"):
        model.fit(X[[0, 1, 3]], y)
    model.kernel = kernel.clone_with_theta([0.0, 0.0])
    model.fit(X[[0, 1, 3]], y)
    for theta in (kernel.theta, kernel.theta + 1):
        assert model.log_marginal_likelihood(theta) == -np.inf
        value, slope = model.log_marginal_likelihood(theta, eval_gradient=True)
        assert value == -np.inf
        assert not np.any(slope)
    # A search that meets such hyperparameters on its way.
    tried = []

    def optimizer(objective, theta, bounds):
        values = [objective(t)[0] for t in (theta, kernel.theta)]
        tried.extend(values)
        return theta, values[0]

    model.set_params(optimizer=optimizer).fit(X[[0, 1, 3]], y)
    assert np.isfinite(tried[0])
    assert tried[1] == np.inf
    assert np.isfinite(model.predict(X)).all()


def test_prior_that_is_not_finite():
    model = GaussianProcessRegressor(RBF() + DotProduct() ** 400)
    for function in (model.predict_gradient, model.predict_hessian):
        with pytest.raises(np.linalg.LinAlgError, match=r"^DotProduct\(sigma_0=1\) \*\* 400, a p"):
            function(FAR, return_std=True)
    with pytest.raises(np.linalg.LinAlgError, match=r"^DotProduct\(sigma_0=1\) \*\* 400, a part"):
        model.sample_gradient(FAR)


# --------------------------------------------------------------------------------------------------
# Random kernels
# --------------------------------------------------------------------------------------------------


class Chance:
    """Random kernels, points and functionals; `wide` is how far hyperparameters go, in decades."""

    exponents = (0, 1, 2, 3, -1, 0.5, -0.5, 2.5, 400, -400, 1 / 3, 64, 65, -2)

    def __init__(self, seed, wide):
        self.rng = np.random.default_rng(seed)
        self.wide = wide
        self.d = int(self.rng.integers(1, 4))

    def number(self, zero=False):
        u, rng = self.rng.random(), self.rng
        if u < 0.1 and self.wide > 100:
            return float(rng.choice([0.0] * zero + [5e-324, 1e-308, 1e308]))
        if u < 0.2:
            return float(rng.choice([0.0] * zero + [1.0]))
        return float(10.0 ** rng.uniform(*((-1, 1) if u < 0.6 else (-self.wide, self.wide))))

    def length_scale(self, d):
        return self.number() if self.rng.random() < 0.5 else [self.number() for _ in range(d)]

    def leaf(self, d):
        rng = self.rng
        match rng.integers(11):
            case 0:
                return ConstantKernel(self.number(zero=True))
            case 1 | 2:
                return WhiteKernel(self.number(zero=True))
            case 3:
                return RBF(self.length_scale(d))
            case 4 | 5:
                nu = float(rng.choice([0.5, 1.5, 2.5, np.inf, 1.0, 0.7]))
                return Matern(self.length_scale(d), nu=nu)
            case 6:
                return RationalQuadratic(self.number(), self.number())
            case 7:
                return ExpSineSquared(self.number(), self.number())
            case 8:
                return DotProduct(self.number(zero=True))
            case 9:
                return PairwiseKernel(self.number(), metric=str(rng.choice(["rbf", "sigmoid"])))
        options = {"coef0": self.number(zero=True), "degree": float(rng.choice([0, 2, 3, -1, 80]))}
        return PairwiseKernel(self.number(), metric="poly", pairwise_kernels_kwargs=options)

    def kernel(self, d, depth):
        u = self.rng.random()
        if depth == 0 or u < 0.15:
            return self.leaf(d)
        if u < 0.4:
            return self.kernel(d, depth - 1) + self.kernel(d, depth - 1)
        if u < 0.6:
            return self.kernel(d, depth - 1) * self.kernel(d, depth - 1)
        if u < 0.92:
            return self.kernel(d, depth - 1) ** float(self.rng.choice(self.exponents))
        dims = sorted(self.rng.choice(d, size=self.rng.integers(1, d + 1), replace=False).tolist())
        return Columns(self.kernel(len(dims), depth - 1), dims)

    def points(self, n):
        """Some of them zero, some coincident."""
        points = self.rng.normal(size=(n, self.d)) * self.rng.choice([1.0, 1e-3, 1e3])
        points[self.rng.random(n) < 0.2] = 0.0
        points[n - 1 :] = points[:1]
        return points

    def functional(self):
        X = self.points(self.rng.integers(5))
        kinds = [Value, Gradient, ValueGradient, Hessian, Laplacian, Directional]
        kind = kinds[self.rng.integers(6)]
        return kind(X, self.rng.normal(size=X.shape)) if kind is Directional else kind(X)


def operations(chance, kernel):
    """All that can be done with a kernel: names and functions."""
    X, Y = (chance.points(chance.rng.integers(5)) for _ in range(2))
    if chance.rng.random() < 0.2:
        X, Y = X.astype(np.float32), Y.astype(np.float32)
    Y = None if chance.rng.random() < 0.3 else Y
    rows, cols = chance.functional(), chance.functional()

    def operator(cols):
        op = CovarianceOperator(kernel, rows, cols)
        weights = np.ones(op.shape)
        op @ weights[0] if len(weights) else op @ np.ones(op.shape[1])
        op.to_dense()
        if cols is None:
            op.diagonal()
        op.vjp(weights, "theta")
        op.jvp(np.ones(kernel.n_dims), np.ones(op.shape[1]), wrt="theta")
        op.vjp(weights, "rows")

    def fit(dy, **options):
        model = GaussianProcessRegressor(kernel, optimizer=None, **options)
        model.fit(rows.X, np.sin(rows.X.sum(axis=1)), dy=np.cos(rows.X) if dy else None)
        model.predict(X, return_std=True)
        model.predict_gradient(X)
        model.log_marginal_likelihood(kernel.theta, eval_gradient=True)

    def prior():
        model = GaussianProcessRegressor(kernel)
        model.predict(X, return_std=True)
        model.predict_gradient(X, return_std=True)

    def expanded():
        f = expansion(kernel, rows.X, np.ones(len(rows.X)))
        return f(X), f.gradient(X), f.hessian(X), f.laplacian(X)

    return {
        "kernel_matrix": lambda: kernel_matrix(kernel, X, Y),
        "gradient": lambda: gradient(kernel, X, Y, wrt="y"),
        "hessian_diag": lambda: hessian_diag(kernel, X, Y),
        "hessian": lambda: hessian(kernel, X, Y, wrt="xy"),
        "packed": lambda: hessian(kernel, X, Y, layout="packed"),
        "gram_jacobian": lambda: gram_jacobian(kernel, X),
        "expansion": expanded,
        "covariance": lambda: covariance(kernel, rows, cols),
        "symmetric": lambda: covariance(kernel, rows),
        "operator": lambda: operator(cols),
        "symmetric operator": lambda: operator(None),
        "theta": lambda: theta_derivatives(kernel, chance.d),
        "fit": lambda: fit(False),
        "fit gradients": lambda: fit(True),
        "rotation": lambda: fit(True, solver="rotation"),
        "max_condition": lambda: fit(True, max_condition=1e10),
        "prior": prior,
    }


def undocumented(seeds, wide):
    """What was raised, or warned of, that is not documented."""
    found = []
    for seed in seeds:
        chance = Chance(seed, wide)
        kernel = chance.kernel(chance.d, int(chance.rng.integers(4)))
        for name, function in operations(chance, kernel).items():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", category=UserWarning)
                # What cannot be read is scikit-learn's own business.
                warnings.filterwarnings("ignore", module="sklearn")
                try:
                    function()
                except ValueError:
                    pass
                except Exception as error:
                    found.append((seed, name, repr(kernel), repr(error)))
    return found


def test_no_undocumented_errors():
    assert undocumented(range(40), 300) == []


def test_overflow_while_a_kernel_is_compiled():
    """Squares of 1e145 and their products, of which numpy would warn."""
    f = expansion(Matern(1e-145, nu=0.5), np.zeros((1, 3)), np.ones(1))
    assert f.laplacian(np.ones((1, 3))) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("wide", [3, 30, 155, 300])
def test_no_undocumented_errors_at_length(wide):
    assert undocumented(range(1000, 1400), wide) == []


UNIT = np.finfo(float).eps / 2


def with_error(kernel, X, Y):
    """scikit-learn's values, and a bound of what rounding can have changed them by, or inf.

    To first order: s has a relative error of D + 5 roundings, which F = exp(h), a function of it,
    multiplies by |h|; a dot product one of D + 2 roundings of the sum of absolute values.
    """
    if isinstance(kernel, Columns):
        return with_error(
            kernel.kernel, X[:, kernel.dims], None if Y is None else Y[:, kernel.dims]
        )
    value = plainly(kernel, X, Y)
    d, Z = X.shape[1], X if Y is None else Y
    size = np.abs(value)
    if hasattr(kernel, "k1"):
        (f, of_f), (g, of_g) = (with_error(k, X, Y) for k in (kernel.k1, kernel.k2))
        if type(kernel).__name__ == "Sum":
            error = of_f + of_g
        else:
            error = np.abs(f) * of_g + np.abs(g) * of_f + of_f * of_g
    elif hasattr(kernel, "exponent"):
        f, of_f = with_error(kernel.kernel, X, Y)
        p = kernel.exponent
        relative = of_f / np.where(f == 0, 1, np.abs(f))
        error = np.abs(p) * relative * size + 0.5 * p * p * relative**2 * size
        # Roots are no place for powers below one, nor for what is not to first order.
        error[(np.abs(p) * relative > 0.01) | ((f == 0) & (p < 1) & (p != 0))] = np.inf
        error += 4 * (1 + np.abs(p) * np.abs(np.log(np.where(f == 0, 1, np.abs(f))))) * UNIT * size
    elif isinstance(kernel, RBF | RationalQuadratic | ExpSineSquared):
        h = np.abs(np.log(np.maximum(size, 1e-300)))
        error = ((d + 9) * h + 8) * UNIT * size
        if isinstance(kernel, RBF):
            # It divides the points by the length scale, which rounds them, before it subtracts.
            x, z = X[:, None] / kernel.length_scale, Z / kernel.length_scale
            s = ((x - z) ** 2).sum(axis=2)
            of_s = (np.abs(x - z) * (np.abs(x) + np.abs(z))).sum(axis=2) * 2 * UNIT
            error += size * h * of_s / np.where(s == 0, 1, s)
        if isinstance(kernel, Matern) and kernel.nu not in (0.5, 1.5, 2.5, np.inf):
            # SciPy says nothing of the errors of its Bessel functions.
            error[...] = np.inf
        if isinstance(kernel, RationalQuadratic):
            # scikit-learn adds 1 to a small number and then takes a power.
            error += 2 * kernel.alpha * UNIT * size
        if isinstance(kernel, ExpSineSquared):
            distance = np.sqrt(((X[:, None] - Z) ** 2).sum(axis=2))
            phase = (d + 9) * UNIT * np.pi * distance / kernel.periodicity
            error += size * 4 * phase / kernel.length_scale**2
            error[4 * phase / min(kernel.length_scale, 1) ** 2 > 0.01] = np.inf
    elif isinstance(kernel, DotProduct):
        error = (d + 4) * UNIT * (np.abs(X) @ np.abs(Z).T + kernel.sigma_0**2)
    elif isinstance(kernel, PairwiseKernel):
        gamma, options = kernel.gamma, kernel.pairwise_kernels_kwargs or {"coef0": 1, "degree": 1}
        if kernel.metric == "rbf":
            # By ‖x‖² + ‖y‖² - 2 x·y.
            s = (X**2).sum(axis=1)[:, None] + (Z**2).sum(axis=1)
            of_exponent = 4 * (d + 5) * UNIT * gamma * s
            error = of_exponent * size + 8 * UNIT * size
            error[of_exponent > 0.01] = np.inf
        else:
            u = gamma * X @ Z.T + options["coef0"]
            of_u = (d + 6) * UNIT * (gamma * np.abs(X) @ np.abs(Z).T + options["coef0"])
            p = options["degree"]
            slope = np.abs(p) * size / np.where(u == 0, 1, np.abs(u))
            error = slope * of_u * (1 if kernel.metric == "poly" else np.inf) + 80 * UNIT * size
            if kernel.metric == "sigmoid":
                error = of_u + 8 * UNIT
            elif p != 0:
                error[of_u * abs(p) > 0.01 * np.abs(u)] = np.inf
    else:
        error = np.zeros_like(value)
    # Subnormal numbers have fewer digits, and infinite ones none.
    error[~np.isfinite(value) | ((size < 1e-290) & (size > 0))] = np.inf
    return value, error + 2 * UNIT * size


def wrong_values(seeds):
    """Kernels with other values than scikit-learn's, and how many entries were compared."""
    wrong, compared = [], 0
    for seed in seeds:
        chance = Chance(seed, 20)
        kernel = chance.kernel(chance.d, int(chance.rng.integers(4)))
        X, Y = chance.points(4), chance.points(3)
        Y[0] = X[0]
        for other in (None, Y):
            with np.errstate(all="ignore"):
                expected, error = with_error(kernel, X, other)
                K = kernel_matrix(kernel, X, other)
                good = np.abs(K - expected) <= 2 * error
            use = np.isfinite(error)
            compared += np.count_nonzero(use)
            if not good[use].all():
                where = use & ~good
                wrong.append((seed, repr(kernel), K[where][:3], expected[where][:3]))
    return wrong, compared


def test_values_of_random_kernels():
    wrong, compared = wrong_values(range(100))
    assert wrong == []
    assert compared > 1000


@pytest.mark.exhaustive
def test_values_of_random_kernels_at_length():
    wrong, compared = wrong_values(range(1000, 5000))
    assert wrong == []
    assert compared > 50_000
