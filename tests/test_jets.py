"""The jets of src/jets.h one by one, orders 0 to 5, against mpmath at 50 digits.

Most of them are seen through kernels too; the radial functions of SciPy's RBFInterpolator are only
seen here.
"""

import mpmath
import numpy as np
import pytest

from kerneldiff._core import OPS, Program, jets

ORDER = 5
EPS = {np.float64: 2.0**-52, np.float32: 2.0**-23}
# Arguments from far below to above one, and the scale of each.
ARGUMENTS = np.array([1e-7, 1e-4, 0.03, 0.11, 0.6, 1.0, 1.7, 3.1, 6.5, 11.0])


def _one_plus(s):
    return 1 + s / (2 * mpmath.mpf(0.7))


# name: parameters beyond amplitude and scale, the function for mpmath, and at s = 0 how many
# derivatives (with the value) exist.
FUNCTIONS = {
    "rbf": ((), lambda s: mpmath.exp(-s / 2), 6),
    "gaussian": ((), lambda s: mpmath.exp(-s), 6),
    "matern12": ((), lambda s: mpmath.exp(-mpmath.sqrt(s)), 1),
    "matern32": (
        (),
        lambda s: (1 + mpmath.sqrt(3 * s)) * mpmath.exp(-mpmath.sqrt(3 * s)),
        2,
    ),
    "matern52": (
        (),
        lambda s: (1 + mpmath.sqrt(5 * s) + 5 * s / 3) * mpmath.exp(-mpmath.sqrt(5 * s)),
        3,
    ),
    "rational_quadratic": ((0.7,), lambda s: (1 + s / mpmath.mpf(1.4)) ** mpmath.mpf(-0.7), 6),
    "rational_quadratic_alpha": (
        (0.7,),
        lambda s: mpmath.mpf(0.7) * (1 - 1 / _one_plus(s) - mpmath.log(_one_plus(s))),
        6,
    ),
    "sine_squared": ((), lambda s: mpmath.sin(mpmath.pi * mpmath.sqrt(s)) ** 2, 6),
    "linear": ((0.3,), lambda s: mpmath.mpf(0.3) + s, 6),
    "sigmoid": ((0.2,), lambda s: mpmath.tanh(s + mpmath.mpf(0.2)), 6),
    "radial_linear": ((), lambda s: -mpmath.sqrt(s), 1),
    "thin_plate_spline": ((), lambda s: s * mpmath.log(s) / 2, 1),
    "cubic": ((), lambda s: mpmath.sqrt(s) ** 3, 2),
    "quintic": ((), lambda s: -(mpmath.sqrt(s) ** 5), 3),
    "multiquadric": ((), lambda s: -mpmath.sqrt(1 + s), 6),
    "inverse_multiquadric": ((), lambda s: 1 / mpmath.sqrt(1 + s), 6),
    "inverse_quadratic": ((), lambda s: 1 / (1 + s), 6),
}


def run(name, parameters, a):
    """All derivatives at a, for amplitude 1 and scale 1."""
    plane = (1.0, -1.0, 0.0, 0.0)
    program = Program(
        [("sqdist", plane, plane, None)],
        [(name, 1, 0, 0, ORDER, (1.0, 1.0, *parameters))],
        ORDER + 2,
        list(range(1, ORDER + 2)),
        ORDER,
    )
    return jets(program, np.ascontiguousarray(a[None, :]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name, dtype):
    """Relative to the derivative, plus what the rounding of its terms can leave.

    A few roundings each in the function and in the recurrence of every further order: 40 eps. Where
    a derivative passes through zero its terms cancel: their size is that of the same derivative at
    half and double the argument.
    """
    parameters, function, _ = FUNCTIONS[name]
    a = ARGUMENTS.astype(dtype)
    parameters = tuple(float(p) for p in parameters)
    got = run(name, parameters, a)
    with mpmath.workdps(50):
        for q in range(ORDER + 1):
            exact = [mpmath.diff(function, mpmath.mpf(float(s)), q) for s in a]
            near = [
                max(abs(mpmath.diff(function, mpmath.mpf(float(s)) * c, q)) for c in (0.5, 1, 2))
                for s in a
            ]
            for s, g, e, size in zip(a, got[q], exact, near, strict=True):
                assert abs(mpmath.mpf(float(g)) - e) <= 40 * EPS[dtype] * size, (q, s)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_zero(name, dtype):
    """What exists has its limit, what does not is stored as 0."""
    parameters, function, existing = FUNCTIONS[name]
    got = run(name, tuple(map(float, parameters)), np.zeros(3, dtype))[:, 0]
    with mpmath.workdps(60):
        for q in range(existing):
            limit = mpmath.diff(function, mpmath.mpf(10) ** -40, q, direction=1)
            assert abs(mpmath.mpf(float(got[q])) - limit) <= 40 * EPS[dtype] * max(1, abs(limit)), q
    np.testing.assert_array_equal(got[existing:], 0)


def test_every_jet_is_tested_here_or_through_kernels():
    through_kernels = {"constant", "exp_sine_squared", "power"}
    arithmetic = {"set", "add", "scale", "scale_add", "mul", "mul_add", "reciprocal", "callback"}
    assert set(OPS) - arithmetic == set(FUNCTIONS) | through_kernels
