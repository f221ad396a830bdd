"""Second derivatives where 2 F' and 4 s F'' cancel, against mpmath at the very same numbers.

The derivative of kernels like exp(-r) by s = r² is infinite at 0, and their second derivative along
r is not.  Errors may be 1e-13, in units of the last place of the type, of the sum of the absolute
values of the terms that a second derivative consists of: for a leaf f of r, f''(r) along r, or the
terms of that, and f'(r) / r across; those of the rules of sums, products and powers.
"""

import functools
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from sklearn.gaussian_process import kernels as sk
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

import kerneldiff
from kerneldiff import Columns, CovarianceOperator, Hessian, Laplacian, RBFInterpolator, Value

TOLERANCES = {"float64": 1e-13, "float32": 1e-13 * 2.0**29}


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(50):
        yield


class Jet(NamedTuple):
    """A function of one variable: value, two derivatives, absolute terms of the second."""

    f: mpf
    d: mpf
    dd: mpf
    terms: mpf

    def plus(self, other):
        return Jet(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, other):
        cross = 2 * self.d * other.d
        return Jet(
            self.f * other.f,
            self.d * other.f + self.f * other.d,
            self.dd * other.f + cross + self.f * other.dd,
            self.terms * abs(other.f) + abs(cross) + abs(self.f) * other.terms,
        )

    def power(self, p):
        first, second = p * self.f ** (p - 1), p * (p - 1) * self.f ** (p - 2) * self.d**2
        return Jet(
            self.f**p,
            first * self.d,
            first * self.dd + second,
            abs(first) * self.terms + abs(second),
        )


@functools.cache
def matern(nu, r):
    """f, f', f'' and the absolute terms of that, of (2^(1-ν) / Γ(ν)) t^ν K_ν(t), t² = 2 ν r²."""
    root = mpmath.sqrt(2 * mpf(nu))
    t, c = root * r, 2 ** (1 - mpf(nu)) / mpmath.gamma(nu)
    f, f1 = c * t**nu * mpmath.besselk(nu, t), -root * c * t**nu * mpmath.besselk(nu - 1, t)
    terms = (root**2 * f, (2 * mpf(nu) - 1) * f1 / r)
    return f, f1, sum(terms), sum(map(abs, terms))


def gaussian(_, r):
    f = mpmath.exp(-(r**2) / 2)
    return f, -r * f, (r**2 - 1) * f, (r**2 + 1) * f


def along(kernel, x, y, a, columns=None):
    """A kernel as a function of x_a."""
    columns = range(len(x)) if columns is None else columns
    if isinstance(kernel, sk.Sum | sk.Product):
        left, right = (along(k, x, y, a, columns) for k in (kernel.k1, kernel.k2))
        return left.plus(right) if isinstance(kernel, sk.Sum) else left.times(right)
    if isinstance(kernel, sk.Exponentiation):
        return along(kernel.kernel, x, y, a, columns).power(mpf(kernel.exponent))
    if isinstance(kernel, Columns):
        return along(kernel.kernel, x, y, a, [columns[c] for c in kernel.dims])
    if isinstance(kernel, ConstantKernel):
        return Jet(mpf(kernel.constant_value), mpf(0), mpf(0), mpf(0))
    if isinstance(kernel, DotProduct):
        value = sum(x[c] * y[c] for c in columns) + mpf(kernel.sigma_0) ** 2
        return Jet(value, y[a] if a in columns else mpf(0), mpf(0), mpf(0))
    lengths = np.broadcast_to(kernel.length_scale, len(columns))
    z = {c: (x[c] - y[c]) / mpf(float(l)) for c, l in zip(columns, lengths, strict=True)}
    r = mpmath.sqrt(sum(e * e for e in z.values()))
    function, nu = (matern, kernel.nu) if isinstance(kernel, Matern) else (gaussian, 0)
    f, f1, f2, terms = function(nu, r)
    if a not in z:
        return Jet(f, mpf(0), mpf(0), mpf(0))
    w = mpf(float(lengths[list(columns).index(a)])) ** -2
    part, others = z[a] ** 2 / r**2, sum(e * e for c, e in z.items() if c != a) / r**2
    across = w * f1 / r * others
    slope = f1 / r * z[a] * mpmath.sqrt(w)
    return Jet(f, slope, w * f2 * part + across, w * terms * part + abs(across))


def mp(point):
    return [mpf(float(e)) for e in point]


def unmixed(kernel, X, Y):
    """The diagonals of the Hessian by x, and the absolute terms, as objects (N, M, D)."""
    jets = [[[along(kernel, mp(x), mp(y), a) for a in range(len(x))] for y in Y] for x in X]
    return (
        np.array([[[getattr(j, name) for j in jxy] for jxy in jx] for jx in jets], dtype=object)
        for name in ("dd", "terms")
    )


def assert_close(actual, exact, terms, dtype="float64", extra=1):
    error = np.abs(np.vectorize(lambda e: mpf(float(e)), otypes=[object])(actual) - exact)
    bad = [float(e / t) for e, t in zip(error.ravel(), terms.ravel(), strict=True)
           if not e <= extra * TOLERANCES[dtype] * t]  # fmt: skip
    assert not bad, f"{len(bad)} of {error.size} entries, off by up to {max(bad):.3g} of the terms"


# Distances in length scales.
DISTANCES = [1e-12, 1e-9, 1e-6, 1e-3, 0.3, 2.0]


def pairs(d, dtype="float64"):
    """Points, and one more: along axes, nearly along them, and in no special direction."""
    y = np.linspace(0.3, -0.7, d)
    directions = [*np.eye(d), np.cos(np.arange(d))]
    if d > 1:
        directions += [np.eye(d)[1] + 1e-5 * np.eye(d)[0], np.eye(d)[0] - 1e-9 * np.eye(d)[-1]]
    distances = [r for r in DISTANCES if r > 1e-6 or dtype == "float64"]
    # Around 0 in the last ones, where tiny steps aside are not rounded away.
    X = [c * y + r * e for r in distances for e in directions for c in (1, 0)]
    X = np.array(X).astype(dtype)
    Y = np.array([y, 0 * y]).astype(dtype)
    return X[::2], X[1::2], Y[:1], Y[1:]


ISOTROPIC = {
    "1/2": Matern(0.8, nu=0.5),
    "0.3": Matern(1.3, nu=0.3),
    "near-1/2": Matern(nu=0.5 + 1e-9),
    "0.7": Matern(1.1, nu=0.7),
    # With the terms as they are: here they cancel too little to matter.
    "0.2": Matern(1.1, nu=0.2),
    "0.8": Matern(1.1, nu=0.8),
    "sum": 2.0 * Matern(0.8, nu=0.5) + RBF(1.2),
    "product": Matern(0.8, nu=0.5) * RBF(0.7) * Matern(nu=1.5),
    "twice": Matern(0.8, nu=0.5) * Matern(0.8, nu=0.5) + Matern(0.8, nu=0.5),
    "square": (Matern(0.8, nu=0.5) + 0.5) ** 2,
    "root": (Matern(0.8, nu=0.5) * Matern(nu=0.3)) ** 0.4,
    "inverse": Matern(0.8, nu=0.5) ** -1.5,
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("kernel", ISOTROPIC.values(), ids=ISOTROPIC)
def test_one_distance(kernel, d, dtype):
    far, near, y, zero = pairs(d, dtype)
    for X, Y in ((far, y), (near, zero)):
        X = X[np.any(X != Y, axis=1)]
        exact, terms = unmixed(kernel, X, Y)
        for wrt, sign in (("xx", 1), ("xy", -1), ("yx", -1), ("yy", 1)):
            diagonal = kerneldiff.hessian_diag(kernel, X, Y, wrt=wrt)
            assert_close(diagonal, sign * exact, terms, dtype)
            H = kerneldiff.hessian(kernel, X, Y, wrt=wrt)
            assert_close(np.einsum("ijaa->ija", H), sign * exact, terms, dtype)
            packed = kerneldiff.hessian(kernel, X, Y, wrt=wrt, layout="packed")
            a, b = np.triu_indices(d)
            assert_close(packed[:, :, a == b], sign * exact, terms, dtype)
            np.testing.assert_array_equal(packed[:, :, a < b], H[:, :, a, b][:, :, a < b])


SEVERAL = {
    "weights": Matern([0.5, 2.0, 1.1], nu=0.5),
    "weights-0.4": Matern([0.5, 2.0, 1.1], nu=0.4),
    "columns": Columns(Matern(0.7, nu=0.5), [1]) + Columns(Matern([0.4, 2.0], nu=0.5), [0, 2]),
    "product-of-columns": Columns(Matern(0.7, nu=0.5), [1]) * Columns(Matern(nu=0.5), [0, 2]),
    "weights-and-distance": Matern([0.5, 2.0, 1.1], nu=0.5) * RBF(0.9) + Matern(nu=0.6),
    "two-weights": Matern([0.5, 2.0, 1.1], nu=0.5) * Matern([1.5, 0.3, 1.0], nu=0.5),
    "dot-product": (DotProduct(0.9) + 1.0) * Matern(0.9, nu=0.5) + DotProduct() ** 2,
    "power": (Matern([0.5, 2.0, 1.1], nu=0.5) * RBF(0.9)) ** 0.5,
}


@pytest.mark.quick(6)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kernel", SEVERAL.values(), ids=SEVERAL)
def test_several_invariants(kernel, dtype):
    far, near, y, zero = pairs(3, dtype)
    for X, Y in ((far, y), (near, zero)):
        seen = np.ones(len(X), bool)
        if "Columns" in str(kernel):  # a part of them may be 0, and then does not exist
            seen = np.all(Y != X, axis=1)
        X = X[seen & np.any(X != Y, axis=1)]
        exact, terms = unmixed(kernel, X, Y)
        for x, z, wrt, sides in ((X, Y, "xx", (0, 1, 2)), (Y, X, "yy", (1, 0, 2))):
            diagonal = kerneldiff.hessian_diag(kernel, x, z, wrt=wrt).transpose(sides)
            assert_close(diagonal, exact, terms, dtype)
            H = np.einsum("ijaa->ija", kerneldiff.hessian(kernel, x, z, wrt=wrt)).transpose(sides)
            assert_close(H, exact, terms, dtype)


@pytest.mark.quick(8)
@pytest.mark.parametrize(
    "kernel", [*ISOTROPIC.values(), *SEVERAL.values()], ids=[*ISOTROPIC, *SEVERAL]
)
def test_covariances_and_products(kernel):
    d = 3
    far, near, y, zero = pairs(d)
    for X, Y in ((far, y), (near, zero)):
        seen = np.all(Y != X, axis=1) if "Columns" in str(kernel) else np.any(X != Y, axis=1)
        X = X[seen]
        exact, terms = unmixed(kernel, X, Y)
        exact, terms = exact[:, 0], terms[:, 0]
        n = len(X)
        for rows, cols in ((Hessian(X), Value(Y)), (Value(Y), Hessian(X))):
            C = kerneldiff.covariance(kernel, rows, cols)
            P = CovarianceOperator(kernel, rows, cols)
            for H in (C, P @ np.eye(P.shape[1]), P.T.matmat(np.eye(P.shape[0])).T):
                H = H.reshape(n, d, d)
                assert_close(np.einsum("naa->na", H), exact, terms)
                np.testing.assert_allclose(
                    H, C.reshape(n, d, d), rtol=1e-13, atol=1e-13 * np.abs(C).max()
                )
        total, of_terms = exact.sum(axis=1), terms.sum(axis=1)
        for rows, cols in ((Laplacian(X), Value(Y)), (Value(Y), Laplacian(X))):
            C = kerneldiff.covariance(kernel, rows, cols)
            P = CovarianceOperator(kernel, rows, cols)
            for L in (C, P @ np.eye(P.shape[1])):
                assert_close(L.ravel(), total, of_terms)


@pytest.mark.parametrize("layout", ["diagonal", "full"])
def test_many_dimensions(layout):
    """More than a buffer of the core holds, and more than have code of their own."""
    for d in (70, 1500) if layout == "diagonal" else (70, 130):
        X, Y = np.zeros((2, d)), np.zeros((1, d))
        X[:, 3] = 1e-6
        X[1] += 1e-14
        if layout == "diagonal":
            H = kerneldiff.hessian_diag(Matern(nu=0.5), X, Y)
        else:
            H = np.einsum("ijaa->ija", kerneldiff.hessian(Matern(nu=0.5), X, Y))
            C = kerneldiff.covariance(Matern(nu=0.5), Hessian(X), Value(Y)).reshape(2, d, d)
            np.testing.assert_array_equal(np.einsum("naa->na", C), H[:, 0])
        for x, h in zip(X, H[:, 0], strict=True):
            z = mp(x)
            r = mpmath.sqrt(sum(e * e for e in z))
            f1, f2 = matern(0.5, r)[1:3]
            part = np.array([e * e / r**2 for e in z])
            across = f1 / r * (1 - part)  # with 50 digits
            assert_close(h, f2 * part + across, f2 * part + abs(across))


def test_where_points_coincide():
    """NaN as before where the derivative does not exist, and a number where it does."""
    X = np.array([[0.3, 0.2], [0.5, 0.2]])
    H = kerneldiff.hessian_diag(Columns(Matern(nu=0.5), [1]) + RBF(), X)
    assert np.isnan(H[:, :, 1]).all()
    np.testing.assert_allclose(H[0, 0, 0], -1)
    H = kerneldiff.hessian(Matern(nu=0.5), X)
    assert np.isnan(H[[0, 1], [0, 1]]).all()
    assert np.isfinite(H[[0, 1], [1, 0]]).all()


@pytest.mark.parametrize("neighbors", [None, 4])
@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_radial_function_linear(neighbors, epsilon):
    """-r has no second derivative along r: none at all with one column."""
    y = np.array([[0.0], [0.25], [0.7], [1.0], [2.0]])
    values = np.sin(3 * y[:, 0])
    x = np.concatenate([y[:, 0] + step for step in (1e-9, -1e-6, 1e-3, 0.1)])[:, None]
    f = RBFInterpolator(y, values, kernel="linear", epsilon=epsilon, neighbors=neighbors, degree=0)
    assert (f.hessian(x) == 0).all()
    assert (f.laplacian(x) == 0).all()


@pytest.mark.parametrize("neighbors", [None, 6])
def test_radial_function_linear_in_two_columns(neighbors):
    rng = np.random.default_rng(3)
    y = rng.integers(-8, 9, (6, 2)) / 8
    y = np.unique(y, axis=0)
    values = rng.standard_normal(len(y))
    x = np.concatenate([y + np.array([step, 0.0]) for step in (1e-12, 1e-7, 1e-3)])
    f = RBFInterpolator(y, values, kernel="linear", degree=0, neighbors=neighbors)
    if neighbors:
        f.neighbors = len(y)
    plain = RBFInterpolator(y, values, kernel="linear", degree=0)
    alpha = plain._coeffs[: len(y), 0]
    H, L = f.hessian(x), f.laplacian(x)
    for point, h, l in zip(x, H, L, strict=True):
        exact, terms = np.zeros((2, 2), object), np.zeros((2, 2), object)
        for center, a in zip(y, alpha, strict=True):
            e = [p - q for p, q in zip(mp(point), mp(center), strict=True)]
            r = mpmath.sqrt(e[0] ** 2 + e[1] ** 2)
            for b in range(2):
                term = -mpf(float(a)) / r * e[1 - b] ** 2 / r**2
                exact[b, b] += term
                terms[b, b] += abs(term)
        # The coefficients of the neighbors' system are computed once more, by another solver.
        extra = 1e3 if neighbors else 1
        diagonal = np.diagonal(h)
        assert_close(diagonal, np.diagonal(exact), np.diagonal(terms), extra=extra)
        assert_close(l, *(np.array([np.trace(e)]) for e in (exact, terms)), extra=extra)
