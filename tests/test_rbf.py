"""RBFInterpolator: SciPy for values, mpmath and finite differences for derivatives."""

import copy
import inspect
import pickle
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
import scipy.interpolate
from scipy.spatial import KDTree
from scipy.stats.qmc import Halton
from support.processes import assert_interruptible, run_python
from threadpoolctl import threadpool_limits

from kerneldiff import RBFInterpolator, _linalg, numerical_jacobian, rbf

SciPy = scipy.interpolate.RBFInterpolator
EPS = np.finfo(float).eps

# phi(r), phi'(r) / r and phi''(r), of mpmath or NumPy; and 2 nu: derivatives of lower order exist
# at a center.
RADIAL = {
    "linear": (lambda m, r: (-r, -1 / r, 0 * r), 1),
    "thin_plate_spline": (
        lambda m, r: (r**2 * m.log(r), 2 * m.log(r) + 1, 2 * m.log(r) + 3),
        2,
    ),
    "cubic": (lambda m, r: (r**3, 3 * r, 6 * r), 3),
    "quintic": (lambda m, r: (-(r**5), -5 * r**3, -20 * r**3), 5),
    "multiquadric": (
        lambda m, r: (-m.sqrt(1 + r**2), -1 / m.sqrt(1 + r**2), -1 / m.sqrt(1 + r**2) ** 3),
        np.inf,
    ),
    "inverse_multiquadric": (
        lambda m, r: (
            1 / m.sqrt(1 + r**2),
            -1 / m.sqrt(1 + r**2) ** 3,
            (2 * r**2 - 1) / m.sqrt(1 + r**2) ** 5,
        ),
        np.inf,
    ),
    "inverse_quadratic": (
        lambda m, r: (1 / (1 + r**2), -2 / (1 + r**2) ** 2, (6 * r**2 - 2) / (1 + r**2) ** 3),
        np.inf,
    ),
    "gaussian": (
        lambda m, r: (m.exp(-(r**2)), -2 * m.exp(-(r**2)), (4 * r**2 - 2) * m.exp(-(r**2))),
        np.inf,
    ),
}
kernels = pytest.mark.parametrize("kernel", RADIAL)

# Method: how many axes of length D, and the order of the derivative.
METHODS = {"__call__": (0, 0), "gradient": (1, 1), "hessian": (2, 2), "laplacian": (0, 2)}
methods = pytest.mark.parametrize("method", METHODS)
derivatives = pytest.mark.parametrize("method", ["gradient", "hessian", "laplacian"])


@pytest.mark.parametrize("r", ["0.01", "0.7", "3.5"])
@kernels
def test_oracle(kernel, r):
    """The derivatives in the table above, by numerical differentiation."""
    with mpmath.workdps(50):
        function, r = RADIAL[kernel][0], mpmath.mpf(r)
        value, first, second = function(mpmath, r)
        theirs = SciPy(
            np.zeros((1, 1)), [1.0], kernel=kernel, epsilon=1.0, smoothing=2.0, degree=-1
        )
        assert float(value) * theirs._coeffs[0, 0] == pytest.approx(theirs([[float(r)]])[0])
        slope = mpmath.diff(lambda r: function(mpmath, r)[0], r)
        assert abs(slope / r - first) < 1e-20 * abs(first)
        curvature = mpmath.diff(lambda r: function(mpmath, r)[0], r, 2)
        assert abs(curvature - second) < 1e-20 * max(abs(second), abs(first))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Systems are too small here for LAPACK's threads, which only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


# ---------------------------------------------------------------------------------------- oracle


def to_mpmath(array):
    return np.vectorize(mpmath.mpf, otypes=[object])(array)


def radial_terms(kernel, epsilon, x, y, method, m):
    """A derivative of every function at every point, (Q, P, D ...), and of what size its parts are.

    Where x is y: the limits.
    """
    e = epsilon * (x[:, None] - y)
    D = x.shape[1]
    r = (e**2).sum(axis=-1) ** 0.5
    at_center = r == 0
    r = np.where(at_center, 1 + 0 * r, r)
    if m is mpmath:
        found = [RADIAL[kernel][0](m, v) for v in r.ravel()]
        f = np.array(found, dtype=object).T.reshape(3, *r.shape)
    else:
        f = np.array(RADIAL[kernel][0](m, r))
    limits = {"linear": (0, 0, 0), "thin_plate_spline": (0, 0, 0)}.get(kernel)
    if limits is None:
        limits = [float(v) for v in RADIAL[kernel][0](mpmath, mpmath.mpf(0))]
    for part, limit in zip(f, limits, strict=True):
        part[at_center] = limit
    value, first, second = f
    if method == "__call__":
        return value, abs(value)
    if method == "gradient":
        parts = epsilon * first[..., None] * e
        return parts, abs(parts)
    if method == "laplacian":
        return (
            epsilon**2 * (second + (D - 1) * first),
            epsilon**2 * (abs(second) + D * abs(first)),
        )
    outer = e[..., :, None] * e[..., None, :] / (r * r)[..., None, None]
    first, second = first[..., None, None], second[..., None, None]
    return (
        epsilon**2 * (first * np.eye(D) + (second - first) * outer),
        epsilon**2 * (abs(first) * np.eye(D) + (abs(second) + abs(first)) * abs(outer)),
    )


def monomial_terms(powers, shift, scale, x, method):
    """Likewise, of the polynomial: (Q, R, D ...)."""
    hat = (x - shift) / scale

    def derived(dims):
        result = np.zeros((len(x), len(powers)), dtype=x.dtype)
        for j, row in enumerate(powers.tolist()):
            factor, left = 1, list(row)
            for a in dims:
                factor, left[a] = factor * left[a] / scale[a], left[a] - 1
            if factor:
                result[:, j] = factor * np.prod(
                    [hat[:, a] ** p for a, p in enumerate(left)], axis=0
                )
        return result

    D = x.shape[1]
    if method == "__call__":
        return derived(())
    if method == "gradient":
        return np.stack([derived((a,)) for a in range(D)], axis=-1)
    if method == "laplacian":
        return sum(derived((a, a)) for a in range(D))
    rows = [np.stack([derived((a, b)) for b in range(D)], axis=-1) for a in range(D)]
    return np.stack(rows, axis=-2)


def exact(f, x, method, m=mpmath):
    """A derivative of an interpolant that was fitted, (Q, D ..., S), and the size of its terms.

    Of the function that its coefficients say, in 40 digits, or in double precision for numpy.
    """
    number = to_mpmath if m is mpmath else np.asarray
    x, y, a, b = map(number, (x, f.y, f._coeffs[: len(f.y)], f._coeffs[len(f.y) :]))
    shift, scale = map(number, (f._shift, f._scale))
    with mpmath.workdps(40):
        epsilon = f.epsilon if m is np else mpmath.mpf(f.epsilon)
        terms, sizes = radial_terms(f.kernel, epsilon, x, y, method, m)
        result = np.moveaxis(terms, 1, -1) @ a
        size = np.moveaxis(sizes, 1, -1) @ abs(a)
        if len(b):
            terms = monomial_terms(f.powers, shift, scale, x, method)
            result = result + np.moveaxis(terms, 1, -1) @ b
            size = size + np.moveaxis(abs(terms), 1, -1) @ abs(b)
        return result.astype(float), size.astype(float)


def bound(f, x, method):
    """Of the errors of a derivative.

    A sum of P terms, each good to 60 eps: 40 of the jets (see test_jets), some of the differences
    of points, which are rounded once, and of products. For functions that have all derivatives at
    centers, points times epsilon are rounded: that moves differences by eps max |epsilon x|, and a
    derivative by as much times the next one, which in units of epsilon is at most 60 (1 + r²) for
    any of them.
    """
    _, size = exact(f, x, method, np)
    unit = f.epsilon ** METHODS[method][1]
    largest = abs(f.epsilon) * max(np.abs(x).max(initial=0), np.abs(f.y).max(initial=0))
    r = f.epsilon * np.linalg.norm(x[:, None] - f.y, axis=2)
    moved = (60 * (1 + r**2)) @ np.abs(f._coeffs[: len(f.y)]) * largest * unit
    if RADIAL[f.kernel][1] <= 2:
        moved = 0 * moved
    axes = (1,) * METHODS[method][0]
    moved = moved.reshape(len(x), *axes, moved.shape[1])
    return EPS * ((60 + len(f.y)) * size + moved)


def assert_exact(f, x, method):
    """Against mpmath. NaN in the result fails."""
    D, (axes, _) = x.shape[1], METHODS[method]
    actual = getattr(f, method)(x)
    assert actual.shape == (len(x), *f.d_shape, *[D] * axes)
    actual = actual.reshape(len(x), -1, *[D] * axes)
    desired, _ = exact(f, x, method)
    error = np.abs(np.moveaxis(actual, 1, -1) - desired)
    limit = bound(f, x, method)
    assert (error <= limit).all(), (error / limit).max()


def scattered(n, D, seed=0):
    """Points that are not too close to each other."""
    return 2 * Halton(D, rng=np.random.default_rng(seed)).random(n) - 1


def franke(x):
    """Something to interpolate, (N, 2)."""
    return np.stack([np.sin(2 * x.sum(axis=1)), np.exp(-(x**2).sum(axis=1))], axis=1)


def fitted(kernel, n=15, D=2, cls=RBFInterpolator, data=franke, **options):
    y = scattered(n, D)
    return cls(y, data(y), kernel=kernel, **{"epsilon": 1.3, **options})


# --------------------------------------------------------------------------------- values


def assert_like_scipy(ours, theirs, x):
    """Sums of the same terms in another order, and jets of 40 eps."""
    desired = theirs(x)
    a = np.abs(theirs._coeffs)
    terms, _ = radial_terms(theirs.kernel, theirs.epsilon, x, theirs.y, "__call__", np)
    size = np.abs(terms) @ a[: len(theirs.y)]
    monomials = monomial_terms(theirs.powers, theirs._shift, theirs._scale, x, "__call__")
    size += np.abs(monomials) @ a[len(theirs.y) :]
    actual = ours(x)
    assert actual.shape == desired.shape
    assert actual.dtype == desired.dtype
    actual, desired = (v.reshape(len(x), -1).view(float) for v in (actual, desired))
    assert (np.abs(actual - desired) <= 2 * (60 + len(a)) * EPS * size).all()


@pytest.mark.parametrize("degree", [-1, None, 3])
@pytest.mark.parametrize("D", [1, 2, 3, 5])
@kernels
def test_values(kernel, D, degree):
    options = {"degree": degree, "n": 60, "D": D}
    x = np.concatenate([scattered(20, D, 1), scattered(60, D)[:4]])
    assert_like_scipy(fitted(kernel, **options), fitted(kernel, cls=SciPy, **options), x)


@pytest.mark.parametrize("epsilon", [0.3, -2.0, 7.0])
@kernels
def test_epsilon(kernel, epsilon):
    x = scattered(20, 2, 1)
    assert_like_scipy(
        *(fitted(kernel, epsilon=epsilon, cls=cls) for cls in (RBFInterpolator, SciPy)), x
    )


@pytest.mark.parametrize("smoothing", [0.1, np.linspace(0, 2, 15)], ids=["scalar", "array"])
@kernels
def test_smoothing(kernel, smoothing):
    x = scattered(20, 2, 1)
    assert_like_scipy(
        *(fitted(kernel, smoothing=smoothing, cls=cls) for cls in (RBFInterpolator, SciPy)), x
    )


DATA = {
    "one": lambda y: y[:, 0],
    "column": lambda y: y[:, :1],
    "none": lambda y: np.empty((len(y), 0)),
    "matrix": lambda y: np.stack([franke(y), -franke(y), y[:, :2]], axis=1),
    "complex": lambda y: y[:, 0] + 1j * y[:, 1] ** 2,
    "complex-matrix": lambda y: np.stack([franke(y) * (1 + 2j), franke(y) * 1j], axis=2),
    "float32": lambda y: y[:, 0].astype(np.float32),
    "integers": lambda y: np.arange(len(y)),
    "list": lambda y: y.tolist(),
}


@pytest.mark.parametrize("neighbors", [None, 9])
@pytest.mark.parametrize("data", DATA)
def test_data(data, neighbors):
    """Real and imaginary parts, and all components, by themselves."""
    f = fitted("gaussian", data=DATA[data], neighbors=neighbors)
    theirs = fitted("gaussian", data=DATA[data], neighbors=neighbors, cls=SciPy)
    x = scattered(7, 2, 1)
    if neighbors is None:
        assert_like_scipy(f, theirs, x)
    columns = np.asarray(DATA[data](f.y))
    shape = columns.shape[1:]
    columns = columns.reshape(15, np.prod(shape, dtype=int))
    one = [
        fitted("gaussian", data=lambda y, c=c: c, neighbors=neighbors)
        for c in (*columns.real.T, *columns.imag.T)
    ]
    for method, (axes, _) in METHODS.items():
        actual = getattr(f, method)(x)
        assert actual.shape == (7, *shape, *[2] * axes)
        assert actual.dtype == theirs(x).dtype
        parts = np.array([getattr(g, method)(x) for g in one]).reshape(2, -1, 7, *[2] * axes)
        desired = np.moveaxis(parts[0] + 1j * parts[1], 0, 1).reshape(actual.shape)
        # The systems are the same but their right-hand sides, of condition 1e4 and less.
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "kind", [list, np.asfortranarray, np.float32, lambda a: a[::-1].copy()[::-1]]
)
def test_points_as_they_come(kind):
    f, x = fitted("cubic"), np.round(scattered(6, 2, 1), 2).astype(np.float32).astype(float)
    other = kind(x.tolist()) if kind is list else kind(x)
    for method in METHODS:
        np.testing.assert_array_equal(getattr(f, method)(other), getattr(f, method)(x))


@kernels
def test_far_from_the_origin(kernel):
    """Coordinates of which few digits differ, and an epsilon that is not a power of two.

    Coefficients belong to the distances that SciPy has, with points times epsilon rounded. Those of
    functions that are rough, which do not grow, go with true distances here, which differ from
    SciPy's by eps max |epsilon x|.
    """
    offset = 2.0**20
    y, x = scattered(40, 2) + offset, scattered(20, 2, 1) + offset
    ours, theirs = (
        cls(y, franke(y - offset), kernel=kernel, epsilon=1.7) for cls in (RBFInterpolator, SciPy)
    )
    if RADIAL[kernel][1] > 2:
        # One: SciPy's polynomial has the same rounded arguments.
        assert_like_scipy(ours, theirs, x)
        return
    moved = 2 * EPS * 1.7 * 2 * offset
    slopes = 1.7 * 3 * (1 + abs(np.log(1e-3)))  # phi' at most, r < 5, or r > 1e-3
    limit = slopes * moved * np.abs(theirs._coeffs).sum(axis=0) + 1e-12
    assert (np.abs(ours(x) - theirs(x)) <= limit).all()


@pytest.mark.parametrize(
    ("c", "neighbors"),
    # Squares of distances in SciPy's search for neighbors overflow in others.
    [(2.0**-600, None), (2.0**600, None), (2.0**-170, 12), (2.0**170, 12)],
)
@kernels
def test_other_units(kernel, neighbors, c):
    """Invariance: the interpolant of scaled points is the same, if epsilon goes with them."""
    y, x = scattered(40, 2), scattered(20, 2, 1)
    f = RBFInterpolator(y, franke(y), neighbors, 0.1, kernel=kernel, epsilon=1.5)
    g = RBFInterpolator(c * y, franke(y), neighbors, 0.1, kernel=kernel, epsilon=1.5 / c)
    # Systems of a condition of 1e5 or less.
    np.testing.assert_allclose(g(c * x), f(x), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(c * g.gradient(c * x), f.gradient(x), rtol=1e-9, atol=1e-9)
    if abs(np.log2(c)) < 500:  # else it is beyond all numbers
        laplacian = c * (c * g.laplacian(c * x))
        np.testing.assert_allclose(laplacian, f.laplacian(x), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("degree", [-1, 2])
@kernels
def test_infinite_points(kernel, degree, x):
    """As SciPy: what arithmetic makes of them, without a word, and nothing to their neighbors."""
    ours, theirs = (fitted(kernel, degree=degree, cls=cls) for cls in (RBFInterpolator, SciPy))
    points = np.array([[0.1, 0.2], [x, 0.3], [0.5, -0.2]])
    with np.errstate(invalid="ignore"):
        desired = theirs(points)
    np.testing.assert_allclose(ours(points), desired, rtol=1e-9)
    for method in METHODS:
        values = getattr(ours, method)(points)
        np.testing.assert_array_equal(values[::2], getattr(ours, method)(points[::2]))


# ------------------------------------------------------------------------------ derivatives


@methods
@pytest.mark.parametrize("degree", [-1, 0, 3])
@pytest.mark.parametrize("D", [1, 2, 3])
@kernels
@pytest.mark.filterwarnings("ignore:`degree` should not be below")
def test_exact(kernel, D, degree, method):
    """Away from centers, and around them."""
    f = fitted(kernel, n=25, D=D, degree=degree)
    x = np.concatenate([scattered(3, D, 1), f.y[:1] + 1e-3, f.y[1:2] + 1e-9, f.y[2:3] * (1 + EPS)])
    assert_exact(f, x, method)


@methods
@kernels
def test_at_centers(kernel, method):
    """Limits where they exist, NaN where they do not."""
    f = fitted(kernel)
    x = f.y[::3].copy()
    if METHODS[method][1] < RADIAL[kernel][1]:
        assert_exact(f, x, method)
    else:
        assert np.isnan(getattr(f, method)(x)).all()
        # Others are none of its business, nor are points that have a coordinate of a center's.
        near = np.concatenate([x[:1], scattered(2, 2, 1), [[x[0, 0], x[1, 1]]]])
        values = getattr(f, method)(near)
        assert np.isnan(values[0]).all()
        assert np.isfinite(values[1:]).all()


@derivatives
@kernels
def test_centers_in_one_dimension(kernel, method):
    f = fitted(kernel, D=1, n=7)
    values = getattr(f, method)(f.y)
    missing = METHODS[method][1] >= RADIAL[kernel][1]
    assert np.isnan(values).all() if missing else np.isfinite(values).all()


@pytest.mark.quick(8)
@derivatives
@kernels
def test_finite_differences(kernel, method):
    """Of SciPy's values, and of gradients."""
    f, theirs = fitted(kernel), fitted(kernel, cls=SciPy)
    for x in scattered(2, 2, 1):
        jacobian = numerical_jacobian(lambda x: theirs(x[None])[0], x)
        # The differentiation is good to 1e-9 of values of 1e2 or less.
        if method == "gradient":
            np.testing.assert_allclose(f.gradient(x[None])[0], jacobian, atol=1e-7)
            continue
        hessian = numerical_jacobian(lambda x: f.gradient(x[None])[0], x)
        if method == "laplacian":
            hessian = np.einsum("saa->s", hessian)
        np.testing.assert_allclose(getattr(f, method)(x[None])[0], hessian, atol=1e-6)


@pytest.mark.parametrize("neighbors", [None, 11])
@kernels
def test_value_and_gradient(kernel, neighbors):
    f, x = fitted(kernel, neighbors=neighbors), scattered(300, 2, 1)
    value, gradient = f.gradient(x, return_value=True)
    np.testing.assert_allclose(value, f(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, f.gradient(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neighbors", [None, 11])
@kernels
def test_hessians_are_symmetric(kernel, neighbors):
    """To the last bit; and their traces are the Laplacians."""
    f, x = fitted(kernel, D=3, n=40, neighbors=neighbors, degree=2), scattered(50, 3, 1)
    H = f.hessian(x)
    np.testing.assert_array_equal(H, np.swapaxes(H, -1, -2))
    tolerance = 1e-12 * np.abs(f._coeffs).max() if neighbors is None else 1e-9
    np.testing.assert_allclose(
        np.einsum("...aa->...", H), f.laplacian(x), rtol=1e-10, atol=tolerance
    )


# ------------------------------------------------------------------ where derivatives exist


@derivatives
@pytest.mark.parametrize("neighbors", [None, 4])
@pytest.mark.parametrize("kernel", ["linear", "thin_plate_spline"])
def test_zero_coefficients(kernel, neighbors, method):
    """A center without a part in the function does no harm, whatever the other components do."""
    f = fitted(
        kernel, data=lambda y: np.stack([y[:, 0] * 0, franke(y)[:, 0]], 1), neighbors=neighbors
    )
    values = getattr(f, method)(f.y)
    missing = METHODS[method][1] >= RADIAL[kernel][1]
    assert (values[:, 0] == 0).all()
    assert (np.isnan(values[:, 1]) == missing).all()


@derivatives
@pytest.mark.parametrize("neighbors", [None, 4])
def test_real_and_imaginary_parts(neighbors, method):
    f = fitted("linear", data=lambda y: 1j * y[:, 0], neighbors=neighbors)
    values = getattr(f, method)(f.y)
    assert (values.real == 0).all()
    assert np.isnan(values.imag).all()


@derivatives
@pytest.mark.parametrize("neighbors", [None, 5])
def test_centers_that_cancel(neighbors, method):
    """Two at the same place, which smoothing allows."""
    y = np.array([[0.0, -0.0], [0.0, 0.0], [4.0, 0.0], [0.0, 8.0], [1.0, 1.0]])
    # One is above, and one below, by as much; the others, all at zero, have no part in it.
    d = np.array([2.0, -2.0, 0.0, 0.0, 0.0])
    f = RBFInterpolator(y, d, neighbors, smoothing=0.5, kernel="linear", degree=-1)
    np.testing.assert_array_equal(getattr(f, method)(y[:1]), 0)
    # And where they do not cancel:
    g = RBFInterpolator(y, np.sqrt(abs(d)), neighbors, smoothing=0.5, kernel="linear")
    assert np.isnan(getattr(g, method)(-y[:2])).all()


@derivatives
@pytest.mark.parametrize("neighbors", [None, 5])
@pytest.mark.parametrize("kernel", ["linear", "thin_plate_spline"])
def test_constant_functions(kernel, neighbors, method):
    """An epsilon of zero."""
    degree = 0 if kernel == "linear" else 1
    f = fitted(kernel, epsilon=0.0, smoothing=1.0, degree=degree, neighbors=neighbors)
    values = getattr(f, method)(np.concatenate([f.y[:2], f.y[:2] + 1e-9]))
    # A polynomial; with neighbors, that of the same ones.
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[:2], values[2:])


@derivatives
@pytest.mark.parametrize("method_of", ["points", "grid"])
def test_many_points_and_centers(method_of, method):
    """A grid that all centers are on: their coordinates are those of others, too."""
    grid = np.stack(np.meshgrid(*[np.arange(12.0)] * 2), axis=-1).reshape(-1, 2)
    chosen = np.random.default_rng(1).permutation(144)[:50]
    y, x = (grid / 8, grid / 8) if method_of == "grid" else (scattered(144, 2), scattered(144, 2))
    f = RBFInterpolator(y[chosen], franke(y[chosen]), kernel="linear")
    is_center = np.isin(np.arange(144), chosen)
    missing = np.isnan(getattr(f, method)(x)).reshape(144, -1)
    np.testing.assert_array_equal(missing.all(axis=1), is_center)
    np.testing.assert_array_equal(missing.any(axis=1), is_center)


# ----------------------------------------------------------------------------- neighbors


def neighborhoods(f, x, **options):
    """For each point the interpolant of its neighbors alone."""
    _, found = KDTree(f.y).query(x, f.neighbors)
    for point, near in zip(x, np.sort(found.reshape(len(x), -1), axis=1), strict=True):
        yield point[None], RBFInterpolator(f.y[near], f.d[near], kernel=f.kernel, **options)


def condition(f):
    """Of the linear system of an interpolant."""
    terms, _ = radial_terms(f.kernel, f.epsilon, f.y, f.y, "__call__", np)
    monomials = monomial_terms(f.powers, f._shift, f._scale, f.y, "__call__")
    zeros = np.zeros((len(f.powers),) * 2)
    return np.linalg.cond(np.block([[terms, monomials], [monomials.T, zeros]]))


@methods
@pytest.mark.parametrize("D", [1, 2, 3])
@kernels
def test_neighbors(kernel, D, method):
    """The function of the neighbors of a point, fitted once more.

    Coefficients of a system differ by its condition; derivatives are as large as their terms.
    """
    k, epsilon = 12, {1: 60.0, 2: 12.0, 3: 8.0}[D]
    f = fitted(kernel, n=60, D=D, epsilon=epsilon, neighbors=k)
    x = np.concatenate([scattered(12, D, 1), f.y[:2]])
    actual = getattr(f, method)(x)
    for i, (point, g) in enumerate(neighborhoods(f, x, epsilon=epsilon)):
        desired = getattr(g, method)(point)[0]
        _, size = exact(g, point, method, np)
        tolerance = 20 * k * EPS * condition(g) * size.max()
        np.testing.assert_allclose(actual[i], desired, rtol=0, atol=tolerance)


@pytest.mark.parametrize("neighbors", [1, 5, 300, np.inf])
@kernels
def test_values_of_neighbors(kernel, neighbors):
    options = {"degree": 0 if neighbors == 1 else None, "epsilon": 5.0, "neighbors": neighbors}
    x = scattered(40, 2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the degree is low for a single neighbor
        if neighbors == 5 and kernel == "quintic":
            options["degree"] = 1
        ours, theirs = (fitted(kernel, n=60, cls=c, **options) for c in (RBFInterpolator, SciPy))
    # Conditions of up to 1e9 for all points and smooth functions.
    np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=1e-6 if neighbors > 5 else 1e-10)


@methods
def test_many_points_of_few_neighborhoods(method):
    """Those with enough points are sums of their own: in the order of the points all the same."""
    f = fitted("cubic", n=6, neighbors=5)
    x = np.random.default_rng(3).permutation(scattered(4000, 2, 1))
    actual = getattr(f, method)(x)
    one = np.concatenate([getattr(f, method)(x[i : i + 1]) for i in range(200)])
    np.testing.assert_allclose(actual[:200], one, rtol=1e-10, atol=1e-10)
    theirs = fitted("cubic", n=6, neighbors=5, cls=SciPy)
    np.testing.assert_allclose(f(x), theirs(x), rtol=1e-10, atol=1e-10)


def test_only_neighbors_count_as_centers():
    """A kink is in the function only where its center is among the neighbors: it always is."""
    f = fitted("linear", n=50, neighbors=3)
    values = f.gradient(np.concatenate([f.y, scattered(50, 2, 1)]))
    assert np.isnan(values[:50]).all()
    assert np.isfinite(values[50:]).all()


# --------------------------------------------------------------------------- small and empty


@methods
@pytest.mark.parametrize("neighbors", [None, 3])
def test_no_points(neighbors, method):
    f = fitted("cubic", neighbors=neighbors)
    axes, _ = METHODS[method]
    assert getattr(f, method)(np.empty((0, 2))).shape == (0, 2, *[2] * axes)


@methods
@pytest.mark.parametrize("neighbors", [None, 1])
@pytest.mark.parametrize("D", [1, 2, 3])
def test_one_center(D, neighbors, method):
    """A constant, or one function."""
    constant = RBFInterpolator(np.ones((1, D)), [3.0], neighbors, kernel="gaussian", epsilon=1.0)
    values = getattr(constant, method)(1 + np.array([[0.0] * D, [0.1] * D]))
    np.testing.assert_allclose(values, 0.0 if METHODS[method][1] else 3.0, atol=1e-15)
    f = RBFInterpolator(
        np.ones((1, D)), [3.0], neighbors, kernel="gaussian", epsilon=1.0, degree=-1
    )
    values = getattr(f, method)(np.ones((1, D)))[0]
    limits = {"__call__": 3.0, "gradient": np.zeros(D)}
    limits |= {"hessian": -6.0 * np.eye(D), "laplacian": -6.0 * D}
    np.testing.assert_allclose(values, limits[method], rtol=1e-14)


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("neighbors", [None, 60])
def test_polynomials(degree, neighbors):
    """Polynomials are reproduced, and so are their derivatives."""
    y, x = scattered(60, 2), scattered(10, 2, 1)
    c = np.random.default_rng(degree).normal(size=(degree + 1, degree + 1))
    c[np.add.outer(range(degree + 1), range(degree + 1)) > degree] = 0
    polynomial = np.polynomial.polynomial

    def value(x, a=0, b=0):
        return polynomial.polyval2d(*x.T, polynomial.polyder(polynomial.polyder(c, a), b, axis=1))

    f = RBFInterpolator(
        y, value(y), neighbors, degree=degree, kernel="inverse_quadratic", epsilon=2
    )
    options = {"atol": 1e-7, "rtol": 1e-7}  # of a system whose condition is 1e6
    np.testing.assert_allclose(f(x), value(x), **options)
    np.testing.assert_allclose(f.gradient(x), np.stack([value(x, 1), value(x, 0, 1)], 1), **options)
    rows = [[value(x, 2), value(x, 1, 1)], [value(x, 1, 1), value(x, 0, 2)]]
    np.testing.assert_allclose(f.hessian(x), np.moveaxis(rows, -1, 0), **options)
    np.testing.assert_allclose(f.laplacian(x), value(x, 2) + value(x, 0, 2), **options)


# ----------------------------------------------------------------------- what it consists of


@methods
@pytest.mark.parametrize("neighbors", [None, 9])
def test_evaluation_is_ours(neighbors, method, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError

    f, x = fitted("gaussian", neighbors=neighbors), scattered(30, 2, 1)
    before = getattr(f, method)(x)
    monkeypatch.setattr(SciPy, "_chunk_evaluator", fail)
    with pytest.raises(AssertionError):
        fitted("gaussian", neighbors=neighbors, cls=SciPy)(x)
    np.testing.assert_array_equal(getattr(f, method)(x), before)


@methods
@pytest.mark.parametrize("neighbors", [None, 20])
def test_memory(neighbors, method):
    """Never a matrix of all pairs of points, let alone of their derivatives."""
    n, p = (6000, 500) if neighbors is None else (2000, 5000)
    y, x = np.random.default_rng(0).random((p, 3)), np.random.default_rng(1).random((n, 3))
    f = RBFInterpolator(y, y[:, 0], neighbors, kernel="cubic", degree=1)
    # Panels, and batches of a few thousand numbers for each thread.
    allowed = 8 * n * p / 4 if neighbors is None else 8 * n * (20 + 4) ** 2
    tracemalloc.start()
    try:
        getattr(f, method)(x)
        assert tracemalloc.get_traced_memory()[1] < allowed
    finally:
        tracemalloc.stop()


def test_signature():
    assert inspect.signature(RBFInterpolator) == inspect.signature(SciPy)
    assert issubclass(RBFInterpolator, SciPy)


def test_subclasses():
    """They may be made of other things."""

    class Own(RBFInterpolator):
        def __init__(self, data):
            super().__init__(data, data[:, 0], kernel="cubic")

    y = scattered(10, 2)
    np.testing.assert_allclose(Own(y).gradient(y), [[1.0, 0.0]] * 10, atol=1e-12)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, *range(2, 6)], ids=lambda c: getattr(c, "__name__", str(c))
)
@pytest.mark.parametrize("neighbors", [None, 9])
@pytest.mark.parametrize("used", [False, True])
def test_pickling(copied, neighbors, used):
    f, x = fitted("linear", neighbors=neighbors), scattered(20, 2, 1)
    if used:
        f.gradient(f.y)
    g = pickle.loads(pickle.dumps(f, copied)) if isinstance(copied, int) else copied(f)
    assert type(g) is RBFInterpolator
    for method in METHODS:
        np.testing.assert_array_equal(getattr(g, method)(x), getattr(f, method)(x))


@pytest.mark.parametrize("neighbors", [None, 9])
def test_pickles_are_small(neighbors):
    """What is made for evaluations is not in them."""
    f = fitted("linear", neighbors=neighbors)
    before = len(pickle.dumps(f))
    f.hessian(f.y)
    assert len(pickle.dumps(f)) == before


# ------------------------------------------------------------------------------------ threads


@methods
@pytest.mark.parametrize("neighbors", [None, 9])
def test_concurrent_calls(neighbors, method):
    """The same bits, from the first call on."""
    x = scattered(1000, 2, 1)
    desired = getattr(fitted("thin_plate_spline", neighbors=neighbors), method)(x)
    f = fitted("thin_plate_spline", neighbors=neighbors)
    with ThreadPoolExecutor(4) as pool:
        for actual in pool.map(lambda _: getattr(f, method)(x), range(8)):
            np.testing.assert_array_equal(actual, desired)


BITS = """
import hashlib
import numpy as np
from kerneldiff import RBFInterpolator
y, x = np.random.default_rng(0).random((400, 3)), np.random.default_rng(1).random((3000, 3))
d = np.random.default_rng(2).random((400, 2))
for kernel in ("linear", "gaussian"):
    for neighbors in (None, 12):
        f = RBFInterpolator(y, d, neighbors, kernel=kernel, epsilon=5.0)
        if neighbors is None:
            f._coeffs[:400] = d  # not LAPACK's
        for method in ("__call__", "gradient", "hessian", "laplacian"):
            print(hashlib.sha256(getattr(f, method)(x)).hexdigest())
"""


@pytest.mark.exhaustive
def test_same_bits_for_any_number_of_threads():
    one, two, three = (run_python(BITS, threads=threads) for threads in (1, 2, 3))
    assert one == two == three
    assert len(set(one.split())) == 16


INTERRUPTED = """
import sys
import numpy as np
from support.processes import report_interrupt
from kerneldiff import RBFInterpolator
neighbors = int(sys.argv[1]) or None
y = np.random.default_rng(0).random((20000, 2))
if neighbors is None:
    y = y[:200]
f = RBFInterpolator(y, y[:, 0], neighbors, kernel="gaussian", epsilon=1.0, smoothing=1.0)
x = np.random.default_rng(1).random((5000000 if neighbors is None else 20000, 2))
report_interrupt(lambda: [f.gradient(x) for _ in range(20)])
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("neighbors", [0, 150])
def test_interrupts(neighbors):
    assert_interruptible(INTERRUPTED, neighbors, threads=1)


# ---------------------------------------------------------------------------------- bad input

Y, FLAT = scattered(10, 2), np.stack([np.arange(5.0), np.zeros(5)], axis=1)
TWICE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [2.0, 1.0], [1.0, 3.0]])
CONSTRUCTED = {
    "no points": ((),),
    "one axis": (Y[:, 0], Y[:, 0]),
    "lengths": (Y, Y[:4]),
    "scalar data": (Y, 1.0),
    "text": (Y, ["a"] * 10),
    "ragged": ([[1.0], [1.0, 2.0]], [1.0, 2.0]),
    "kernel": (Y, Y, None, 0.0, "tri"),
    "kernel type": (Y, Y, None, 0.0, 3),
    "no epsilon": (Y, Y, None, 0.0, "gaussian"),
    "epsilon": (Y, Y, None, 0.0, "gaussian", "wide"),
    "degree": (Y, Y, None, 0.0, "cubic", 1.0, -2),
    "smoothing": (Y, Y, None, np.ones(3)),
    "neighbors": (Y, Y, "many"),
    "too few centers": (Y[:2], Y[:2]),
    "too few neighbors": (Y, Y, 2),
    "too few for the degree": (Y, Y, None, 0.0, "cubic", 1.0, 4),
    "duplicates": (TWICE, TWICE),
    "on a line": (FLAT, FLAT),
}


def outcome(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("case", CONSTRUCTED)
def test_bad_data(case):
    """SciPy's errors, word for word."""
    theirs = outcome(lambda: SciPy(*CONSTRUCTED[case]))
    assert theirs is not None
    assert outcome(lambda: RBFInterpolator(*CONSTRUCTED[case])) == theirs


@methods
@pytest.mark.parametrize("case", ["duplicates", "on a line"])
def test_bad_neighborhoods(case, method):
    """Said when there is a point that needs them."""
    y, d = CONSTRUCTED[case]
    theirs = outcome(lambda: SciPy(y, d, 4)(y))
    assert theirs[0] is np.linalg.LinAlgError
    assert outcome(lambda: getattr(RBFInterpolator(y, d, 4), method)(y)) == theirs


@methods
@pytest.mark.parametrize("neighbors", [None, 4])
@pytest.mark.parametrize(
    "x", [Y[0], Y[None], Y[:, :1], np.ones((2, 3)), [["a", "b"]], [[1.0], [1.0, 2.0]], None]
)
def test_bad_points(x, neighbors, method):
    theirs = outcome(lambda: SciPy(Y, Y, neighbors)(x))
    assert theirs is not None
    assert outcome(lambda: getattr(RBFInterpolator(Y, Y, neighbors), method)(x)) == theirs


@methods
def test_neighbors_of_nan(method):
    theirs = outcome(lambda: SciPy(Y, Y, 4)([[np.nan, 1.0]]))
    assert theirs is not None
    assert outcome(lambda: getattr(RBFInterpolator(Y, Y, 4), method)([[np.nan, 1.0]])) == theirs


@pytest.mark.parametrize(("kernel", "degree"), [("cubic", 0), ("quintic", 1)])
def test_warnings(kernel, degree):
    """SciPy's, about the line that has made it."""
    with pytest.warns(UserWarning, match="`degree` should not be below") as found:
        RBFInterpolator(Y, Y, kernel=kernel, degree=degree)
    assert [warning.filename for warning in found] == [__file__]


@pytest.mark.parametrize("by_name", [False, True])
def test_memory_of_fits(monkeypatch, by_name):
    """Said before it is asked for; with `neighbors` it is not."""
    monkeypatch.setattr(rbf, "memory_limit", lambda: 8.0 * 13 * 13 - 1)
    message = r"10 points and 3 monomials needs .* GiB; this process may use .* GiB.*`neighbors`"
    with pytest.raises(MemoryError, match=message):
        RBFInterpolator(y=Y, d=Y) if by_name else RBFInterpolator(Y, Y)
    np.testing.assert_allclose(RBFInterpolator(Y, Y, 3)(Y), Y, atol=1e-12)
    np.testing.assert_allclose(RBFInterpolator(Y, Y, degree=1, kernel="linear", neighbors=9)(Y), Y)
    monkeypatch.setattr(rbf, "memory_limit", lambda: 8.0 * 13 * 13)
    np.testing.assert_allclose(RBFInterpolator(Y, Y)(Y), Y, atol=1e-12)


@pytest.mark.parametrize("case", ["lengths", "kernel", "no epsilon", "too few for the degree"])
def test_mistakes_come_before_memory(case, monkeypatch):
    monkeypatch.setattr(rbf, "memory_limit", lambda: 100.0)
    assert outcome(lambda: RBFInterpolator(*CONSTRUCTED[case])) == outcome(
        lambda: SciPy(*CONSTRUCTED[case])
    )


@methods
def test_memory_of_results(method, monkeypatch):
    f = RBFInterpolator(Y, Y)
    monkeypatch.setattr(rbf, "memory_limit", lambda: 100.0)
    with pytest.raises(MemoryError, match=r"result of shape \(10, 2, \d\) needs .* GiB"):
        getattr(f, method)(Y)


def test_memory_of_neighborhoods(monkeypatch):
    f = RBFInterpolator(Y, Y, 8)
    monkeypatch.setattr(rbf, "memory_limit", lambda: 500.0)
    with pytest.raises(MemoryError, match="8 points and 3 monomials"):
        f(Y[:1])


# ----------------------------------------------------------------- systems that are singular

OFF = np.array([[0.2, 0.3], [0.7, 0.1]])
SITES = scattered(20, 2)


def repeated(delta=0.0, d=None):
    """Sites of which 3 and 21 are the same, or nearly so; and data of them that differ."""
    y = np.concatenate([SITES, SITES[5:6] + 2, SITES[3:4] + delta])
    return y, np.sin(3 * y[:, 0]) + np.arange(22) // 21 if d is None else d


def warned(call):
    """What an evaluation or a fit says: text of the warning or error."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            call()
        except np.linalg.LinAlgError as error:
            return f"LinAlgError {error}"
    assert {w.category for w in found} <= {scipy.linalg.LinAlgWarning}
    assert {w.filename for w in found} <= {__file__}
    return " ".join(str(w.message) for w in found)


@pytest.mark.parametrize("data", [None, np.ones(22)], ids=["other data", "same data"])
@kernels
def test_repeated_sites(kernel, data):
    y, d = repeated(d=data)
    said = warned(lambda: RBFInterpolator(y, d, kernel=kernel, epsilon=2.0))
    assert "LinAlgError" in said or "sites 3 and 21 are the same" in said


@methods
@pytest.mark.parametrize("delta", [0.0, 1e-15])
def test_repeated_neighbors(delta, method):
    y, d = repeated(delta)
    f = RBFInterpolator(y, d, 8, kernel="cubic")
    said = warned(lambda: getattr(f, method)(SITES[3:4] + 0.01))
    assert "LinAlgError" in said or ("1 of 1 systems" in said and "sites 3 and 21" in said)
    # Nobody is told of sites that are not neighbors.
    assert warned(lambda: getattr(f, method)(SITES[5:6] + 2)) == ""


@pytest.mark.parametrize("delta", [1e-13, 1e-10, 1e-7])
@pytest.mark.parametrize("kernel", ["cubic", "quintic", "gaussian"])
def test_nearly_repeated_sites(kernel, delta):
    said = warned(lambda: RBFInterpolator(*repeated(delta), kernel=kernel, epsilon=2.0))
    assert "LinAlgError" in said or "sites 3 and 21 are" in said


@pytest.mark.parametrize("neighbors", [None, 6])
def test_sites_on_a_line(neighbors):
    """In decimals, so that rounding hides it from LAPACK."""
    t = np.arange(8) / 10 + 0.1
    f = warned(lambda: RBFInterpolator(np.stack([t, 0.3 * t + 0.7], 1), t**2, neighbors)(OFF))
    assert "LinAlgError" in f or "lie on a line" in f


@pytest.mark.parametrize("neighbors", [None, 9])
@pytest.mark.parametrize("c", [1e-9, 1.0, 1e9])
@kernels
def test_nothing_is_said_of_good_systems(kernel, c, neighbors):
    """In any units."""
    epsilon = 3 / c if RADIAL[kernel][1] == np.inf else 1.0
    options = {"kernel": kernel, "epsilon": epsilon, "neighbors": neighbors}
    d = repeated()[1]
    assert warned(lambda: RBFInterpolator(SITES * c, d[:20], **options)(OFF * c)) == ""


@pytest.mark.parametrize("neighbors", [None, 9])
@kernels
def test_nothing_is_said_of_sites_that_smoothing_tells_apart(kernel, neighbors):
    """Be it as large as it may."""
    smoothing = np.array([1.0] * 3 + [1e16] + [1.0] * 18)
    options = {"kernel": kernel, "epsilon": 3.0, "neighbors": neighbors, "smoothing": smoothing}
    assert warned(lambda: RBFInterpolator(*repeated(), **options)(OFF)) == ""


def test_flat_functions_are_singular_and_good():
    """Nothing is said where the lost directions are not seen in values."""
    y = np.linspace(0, 1, 30)[:, None]
    f = RBFInterpolator(y, np.sin(3 * y[:, 0]), kernel="gaussian", epsilon=1.0)
    # Coefficients of 1e8 at most, as the loss of 1e-5 that is not warned of says.
    np.testing.assert_allclose(f(y), np.sin(3 * y[:, 0]), rtol=0, atol=1e-5)


def test_condition_without_the_means_of_scipy(monkeypatch):
    """Where SciPy does not hand out its system, it is made once more."""
    monkeypatch.setattr(rbf, "_build_system", None)
    y, d = repeated(1e-13)
    assert "sites 3 and 21" in warned(lambda: RBFInterpolator(y, d, kernel="cubic"))
    assert warned(lambda: RBFInterpolator(SITES, d[:20], kernel="cubic")) == ""


def test_fit_is_the_same_to_the_bit():
    ours, theirs = (fitted("gaussian", epsilon=2.0, cls=c) for c in (RBFInterpolator, SciPy))
    np.testing.assert_array_equal(ours._coeffs, theirs._coeffs)


@methods
def test_sums_of_neighbors_that_collide(method, monkeypatch):
    """Sets of neighbors are told apart even if all random numbers are the same."""
    f, x = fitted("cubic", n=40, neighbors=9), scattered(60, 2, 1)
    desired = getattr(f, method)(x)

    class Same:
        def integers(self, *args, size, dtype):
            return np.ones(size, dtype)

    monkeypatch.setattr(rbf.np.random, "default_rng", lambda seed: Same())
    np.testing.assert_array_equal(getattr(f, method)(x), desired)


# --------------------------------------------------------------- kernels that are not known here


@pytest.mark.parametrize("neighbors", [None, 9])
def test_unknown_kernels(neighbors, monkeypatch):
    """As SciPy does; derivatives are not known."""
    monkeypatch.delitem(rbf._RADIAL, "cubic")
    ours, theirs = (fitted("cubic", neighbors=neighbors, cls=c) for c in (RBFInterpolator, SciPy))
    x = scattered(30, 2, 1)
    np.testing.assert_array_equal(ours(x), theirs(x))
    for method in ("gradient", "hessian", "laplacian"):
        with pytest.raises(NotImplementedError, match=r"kernel 'cubic' are not known here"):
            getattr(ours, method)(x)
    with pytest.raises(ValueError, match="`kernel` must be one of"):
        RBFInterpolator(Y, Y, kernel="cubik")


def test_kernels_of_another_scipy(monkeypatch):
    """A name that is only in SciPy's list, fitted and evaluated by SciPy's functions."""
    from scipy.interpolate import _rbfinterp

    backend = getattr(_rbfinterp, "_rbfinterp_np", _rbfinterp)

    def renamed(function):
        def call(*args):
            return function(*("cubic" if isinstance(a, str) else a for a in args))

        return call

    for name in ("_build_system", "_build_evaluation_coefficients"):
        monkeypatch.setattr(backend, name, renamed(getattr(backend, name)))
    monkeypatch.setattr(_rbfinterp, "_AVAILABLE", {*_rbfinterp._AVAILABLE, "wendland"})
    y, x = scattered(20, 2), scattered(9, 2, 1)
    f = RBFInterpolator(y, y[:, 0], kernel="wendland", epsilon=1.0, degree=1)
    np.testing.assert_allclose(f(x), x[:, 0], atol=1e-12)
    with pytest.raises(NotImplementedError, match="'wendland'"):
        f.gradient(x)


# --------------------------------------------------------------- what outlives an exception

OUTLIVED = """
import os, signal, threading, time
import numpy as np
from kerneldiff import RBFInterpolator
signal.signal(signal.SIGINT, signal.default_int_handler)
y = np.random.default_rng(0).random((5000, 3))
f = RBFInterpolator(y, y[:, 0], neighbors=50, kernel="cubic")
for _ in range(2):
    timer = threading.Timer(0.25, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        f(np.random.default_rng(1).random((300_000, 3)))
        print("finished")
    except KeyboardInterrupt:
        left = [t for t in threading.enumerate() if t not in (threading.main_thread(), timer)]
        print("interrupted", len(left), flush=True)
    kept = [np.random.default_rng(j).random(100_000) for j in range(40)]
    time.sleep(0.2)
"""


def test_no_thread_outlives_an_interrupt():
    """Threads of SciPy's tree went on, and read what had been freed."""
    assert run_python(OUTLIVED, threads=2) == "interrupted 0\n" * 2


NO_COLUMNS = """
import numpy as np
from kerneldiff import RBFInterpolator
y = np.random.default_rng(0).random((15, 2))
for _ in range(100):
    f = RBFInterpolator(y, np.zeros((15, 0)), kernel="gaussian", epsilon=2.0)
    assert f(y).shape == (15, 0)
    assert f.hessian(y).shape == (15, 0, 2, 2)
print("alive")
"""


def test_data_without_columns():
    """Nothing is written where there is no memory for it: glibc ends such a process."""
    assert run_python(NO_COLUMNS) == "alive\n"


def test_tree_has_no_threads_of_its_own():
    """They would go on after an exception."""
    f = fitted("cubic", n=40, neighbors=9)
    tree, asked = f._tree, []

    class Tree:
        def query(self, x, k, **options):
            asked.append(options)
            return tree.query(x, k, **options)

    f._tree = Tree()
    f(scattered(5000, 2, 1))
    assert asked
    assert all(options.get("workers", 1) == 1 for options in asked)


@pytest.mark.parametrize("neighbors", [None, 20])
def test_systems_are_solved_by_one_thread_of_blas(neighbors, monkeypatch, rng):
    """OpenBLAS's threads wait for each other by spinning, and fail for very large systems."""
    inside = []

    def watched(original):
        def solve(*args, **kwargs):
            inside.append(_linalg.blas_threads._inside)
            return original(*args, **kwargs)

        return solve

    monkeypatch.setattr(rbf, "dgesv", watched(rbf.dgesv))
    monkeypatch.setattr(np.linalg, "solve", watched(np.linalg.solve))
    y = rng.standard_normal((40, 2))
    rbf.RBFInterpolator(y, y[:, 0], neighbors=neighbors)(y)
    assert inside
    assert min(inside) > 0
    assert _linalg.blas_threads._inside == 0
