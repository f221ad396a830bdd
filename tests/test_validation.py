"""What bad input gets, before any work: the right error, which names the argument, what it was and
what it may be, and an `out` that is as it was. And what unusual input is welcome.
"""

import json
import os
import re

import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel
from support.cases import KINDS
from support.processes import run_python
from support.tensors import DTYPES, OPERATIONS, anisotropic, points

import kerneldiff
from kerneldiff import _validation

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# All that take points: name, call with X, Y and keywords, shape of the output for (N, M, D).
PAIRS = {
    **{
        name: (lambda X, Y=None, operation=operation, **k: operation(RBF(), X, Y, **k))
        for name, operation in OPERATIONS.items()
    },
    "rbf_kernel": kerneldiff.rbf_kernel,
    "rbf_gradient": kerneldiff.rbf_gradient,
    "rbf_hessian_diag": kerneldiff.rbf_hessian_diag,
    "rbf_hessian": kerneldiff.rbf_hessian,
}
pairs = pytest.mark.parametrize("function", PAIRS.values(), ids=PAIRS)
TANH = {"tanh_basis": kerneldiff.tanh_basis, "tanh_jacobian": kerneldiff.tanh_jacobian}
tanhs = pytest.mark.parametrize("function", TANH.values(), ids=TANH)
kinds = pytest.mark.parametrize("operation", [OPERATIONS[name] for name in KINDS], ids=KINDS)

GOOD = np.ones((3, 2))


def says(*parts):
    """Pattern of a message that contains all parts, in any order."""
    return "(?s)" + "".join(f"(?=.*{re.escape(str(part))})" for part in parts)


# --------------------------------------------------------------------------------------------------
# Points
# --------------------------------------------------------------------------------------------------

# What is wrong: the value, the error, what the message says besides the name of the argument.
BAD_POINTS = {
    "scalar": (np.float64(1), ValueError, ["Expected 2D array, got scalar array instead"]),
    "one-dimensional": (
        np.ones(2),
        ValueError,
        ["Expected 2D array, got 1D array instead", "reshape(-1, 1)", "reshape(1, -1)"],
    ),
    "three-dimensional": (np.ones((3, 2, 2)), ValueError, ["3", "2"]),
    "complex": (np.ones((3, 2), complex), ValueError, ["omplex"]),
    "strings": (np.array([["a", "b"]]), ValueError, []),
    "bytes": (np.array([[b"1", b"2"]]), ValueError, []),
    "list of strings": ([["a", "b"]], ValueError, []),
    "objects": (np.array([[1.0, "a"]], object), ValueError, ["object"]),
    "text in objects": (np.array([["1.0", 2.0]], object), ValueError, ["object", "text"]),
    "dates": (np.array([["2024-01-01", "2024-01-02"]], "datetime64[D]"), ValueError, ["datetime"]),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, []),
    "sparse": (scipy.sparse.csr_matrix(np.eye(2)), TypeError, ["parse"]),
    "sparse array": (scipy.sparse.csr_array(np.eye(2)), TypeError, ["parse"]),
    "dictionary": ({"a": 1}, (TypeError, ValueError), []),
    "none": (None, (TypeError, ValueError), []),
    "nan": (np.array([[1.0, np.nan]]), ValueError, ["NaN"]),
    "nan, not contiguous": (np.array([[1.0, 0, np.nan, 0]])[:, ::2], ValueError, ["NaN"]),
    "nan, float32": (np.array([[1.0, np.nan]], np.float32), ValueError, ["NaN"]),
    "infinity": (np.array([[1.0, np.inf]]), ValueError, ["infinity"]),
    "minus infinity": (np.array([[1.0, -np.inf]]), ValueError, ["infinity"]),
    "infinities of both signs": (np.array([[np.inf, -np.inf]]), ValueError, ["infinity"]),
    "nan in a list": ([[1.0, float("nan")]], ValueError, ["NaN"]),
}
bad_points = pytest.mark.parametrize(("bad", "error", "parts"), BAD_POINTS.values(), ids=BAD_POINTS)
# What is wrong with X is wrong with Y, except that no Y is X.
bad_others = pytest.mark.parametrize(
    ("bad", "error", "parts"),
    [case for name, case in BAD_POINTS.items() if name != "none"],
    ids=[name for name in BAD_POINTS if name != "none"],
)


@bad_points
@pytest.mark.parametrize("name", ["kernel_matrix", "hessian-xx", "rbf_gradient"])
def test_bad_x(name, bad, error, parts):
    with pytest.raises(error, match=says("X", *parts)):
        PAIRS[name](bad, GOOD)


@bad_others
@pytest.mark.parametrize("name", ["kernel_matrix", "hessian-xx", "rbf_gradient"])
def test_bad_y(name, bad, error, parts):
    with pytest.raises(error, match=says("Y", *parts)):
        PAIRS[name](GOOD, bad)


@bad_points
@tanhs
def test_bad_x_of_a_basis(function, bad, error, parts):
    with pytest.raises(error, match=says("X", *parts)):
        function(bad, np.ones((3, 4)))


@bad_points
@tanhs
def test_bad_w_of_a_basis(function, bad, error, parts):
    with pytest.raises(error, match=says("W", *parts)):
        function(GOOD, bad)


@pairs
def test_nan_in_every_function(function):
    X = np.ones((40, 2))
    X[39, 1] = np.nan
    with pytest.raises(ValueError, match=says("X", "NaN")):
        function(X)


@pytest.mark.parametrize("place", [(0, 0), (17, 3), (39, 6)], ids=str)
@dtypes
def test_nan_anywhere(dtype, place):
    X = np.ones((40, 7), dtype)
    X[place] = np.nan
    with pytest.raises(ValueError, match=says("Y", "NaN")):
        kerneldiff.gradient(RBF(), np.ones((2, 7), dtype), X)


@dtypes
def test_finite_numbers_whose_sum_overflows_are_welcome(dtype):
    """The fast check for NaN looks at the sum."""
    X = np.full((3, 4), np.finfo(dtype).max)
    np.testing.assert_array_equal(kerneldiff.kernel_matrix(RBF(), X), np.ones((3, 3)))


@pairs
def test_columns_of_x_and_y_differ(function):
    with pytest.raises(ValueError, match=says("X", "Y", 3, 2)):
        function(np.ones((5, 3)), np.ones((7, 2)))


@tanhs
def test_rows_of_w_do_not_fit(function):
    with pytest.raises(ValueError, match=says("W has 3 rows", "X has 3 columns")):
        function(np.ones((5, 3)), np.ones((3, 7)))


@pairs
def test_assume_finite(function):
    """As in scikit-learn, the caller may vouch for the input; then NaN goes in and comes out."""
    X = np.array([[0.0, 1.0], [np.nan, 2.0]])
    with sklearn.config_context(assume_finite=True):
        array = function(X)
    assert np.isfinite(array[0, 0]).all()
    assert np.isnan(array[0, 1]).any()


@tanhs
def test_assume_finite_of_a_basis(function):
    X = np.array([[0.0, 1.0], [np.nan, 2.0]])
    with sklearn.config_context(assume_finite=True):
        array = function(X, np.ones((3, 4)))
    assert np.isfinite(array[0]).all()
    assert np.isnan(array[1]).all()


# --------------------------------------------------------------------------------------------------
# Kernels and options
# --------------------------------------------------------------------------------------------------


class Unreadable(RBF):
    """Its own evaluation may compute anything."""

    def __call__(self, X, Y=None, eval_gradient=False):
        return super().__call__(X, Y, eval_gradient)


class Strange(Kernel):
    """A kernel of somebody's own."""

    def __init__(self):
        pass

    def __call__(self, X, Y=None, eval_gradient=False):
        return np.ones((len(X), len(X if Y is None else Y)))

    def diag(self, X):
        return np.ones(len(X))

    def is_stationary(self):
        return False


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        (None, "None"),
        ("rbf", "'rbf'"),
        (RBF, "RBF"),
        (Strange(), "Strange"),
        (Unreadable(), "Unreadable"),
        (ConstantKernel(2.0) * Strange(), "Strange"),
        (ConstantKernel(2.0) * (ConstantKernel(3.0) * Unreadable()), "Unreadable"),
    ],
    ids=str,
)
@kinds
def test_unreadable_kernel(operation, kernel, part):
    with pytest.raises(TypeError, match=says("kernel", part)):
        operation(kernel, GOOD)


@pytest.mark.parametrize("length_scale", [[1.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]], ids=len)
@kinds
def test_number_of_length_scales(operation, length_scale):
    # A single one in a list is an isotropic kernel to scikit-learn.
    X = np.ones((5, 3))
    if len(length_scale) == 1:
        np.testing.assert_array_equal(operation(RBF(length_scale), X), operation(RBF(1.0), X))
        return
    with pytest.raises(ValueError, match=says("length_scale", len(length_scale), 3)):
        operation(RBF(length_scale), X)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("ard", [False, True], ids=["isotropic", "ard"])
def test_bad_length_scale(bad, ard):
    kernel = RBF([1.0, bad] if ard else bad)
    with pytest.raises(ValueError, match=says("length_scale", f"{bad:g}", "positive")):
        kerneldiff.gradient(kernel, GOOD)


@pytest.mark.parametrize(
    "bad", ["wide", 1j, None, object()], ids=["str", "complex", "None", "object"]
)
def test_length_scale_that_is_no_number(bad):
    with pytest.raises((TypeError, ValueError), match=says("length_scale")):
        kerneldiff.gradient(RBF(bad), GOOD)


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_bad_constant(bad):
    with pytest.raises(ValueError, match=says("constant_value", bad)):
        kerneldiff.gradient(ConstantKernel(bad) * RBF(), GOOD)


@pytest.mark.parametrize("bad", [0, 0.0, -0.5, np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", ["rbf_kernel", "rbf_gradient", "rbf_hessian_diag", "rbf_hessian"])
def test_bad_gamma(name, bad):
    with pytest.raises(ValueError, match=says("gamma", bad, "positive")):
        PAIRS[name](GOOD, gamma=bad)


@pytest.mark.parametrize("bad", ["scale", 1j, [1.0, 2.0]], ids=str)
@pytest.mark.parametrize("name", ["rbf_kernel", "rbf_gradient", "rbf_hessian_diag", "rbf_hessian"])
def test_gamma_that_is_no_number(name, bad):
    with pytest.raises((TypeError, ValueError), match=says("gamma", bad)):
        PAIRS[name](GOOD, gamma=bad)


@pytest.mark.parametrize(
    ("name", "bad", "allowed"),
    [
        (name, bad, allowed)
        for name, allowed, bads in [
            ("gradient", ["x", "y"], ["z", "xx", "X", "", None, 1, ["x"]]),
            ("hessian", ["xx", "xy", "yx", "yy"], ["x", "zz", "xxx", "XY", None, 2, ["x", "y"]]),
            ("hessian_diag", ["xx", "xy", "yx", "yy"], ["x", "zz", "", None, ["xx"]]),
        ]
        for bad in bads
    ],
    ids=str,
)
@pytest.mark.parametrize("prefix", ["", "rbf_"], ids=["kernel", "gamma"])
def test_unknown_wrt(prefix, name, bad, allowed):
    function = getattr(kerneldiff, prefix + name)
    first = () if prefix else (RBF(),)
    with pytest.raises(ValueError, match=says("wrt", repr(bad), *map(repr, allowed))):
        function(*first, GOOD, wrt=bad)


@pytest.mark.parametrize("bad", ["upper", "", None, 1, ["full"]], ids=str)
def test_unknown_layout(bad):
    with pytest.raises(ValueError, match=says("layout", repr(bad), "'full'", "'packed'")):
        kerneldiff.hessian(RBF(), GOOD, layout=bad)


@pytest.mark.parametrize("bad", ["upper", "", None, 1, ["full"]], ids=str)
def test_unknown_layout_of_a_jacobian(bad):
    with pytest.raises(
        ValueError, match=says("layout", repr(bad), "'compact'", "'full'", "'matrix'")
    ):
        kerneldiff.tanh_jacobian(GOOD, np.ones((3, 2)), layout=bad)


@pytest.mark.parametrize(
    ("bad", "error"), [(0, ValueError), (-1, ValueError), (np.nan, ValueError), ("1", TypeError)]
)
def test_bad_working_memory(bad, error):
    with pytest.raises(error, match=says("working_memory", bad)):
        list(kerneldiff.tensor_blocks(kerneldiff.hessian, RBF(), GOOD, working_memory=bad))


def test_tensor_blocks_check_before_the_first_block():
    """A generator that waits with its checks raises far from the mistake."""
    with pytest.raises(ValueError, match=says("X", "Expected 2D array")):
        kerneldiff.tensor_blocks(kerneldiff.hessian, RBF(), np.ones(3))


def test_tensor_blocks_take_no_out():
    with pytest.raises(TypeError, match="out"):
        kerneldiff.tensor_blocks(kerneldiff.hessian, RBF(), GOOD, out=np.empty((3, 3, 2, 2)))


@pytest.mark.parametrize("name", ["out", "wrt"])
def test_options_are_keywords(name):
    with pytest.raises(TypeError):
        kerneldiff.gradient(RBF(), GOOD, GOOD, {"out": np.empty((3, 3, 2)), "wrt": "x"}[name])


# --------------------------------------------------------------------------------------------------
# out
# --------------------------------------------------------------------------------------------------


def too_short(shape, dtype):
    return np.full((shape[0] - 1, *shape[1:]), 7, dtype)


def too_long(shape, dtype):
    return np.full((shape[0] + 1, *shape[1:]), 7, dtype)


def flat(shape, dtype):
    return np.full(np.prod(shape), 7, dtype)


def other_float(shape, dtype):
    return np.full(shape, 7, {"float64": "float32", "float32": "float64"}[dtype])


def integers(shape, dtype):
    return np.full(shape, 7, {"float64": "int64", "float32": "int32"}[dtype])


def byte_swapped(shape, dtype):
    return np.full(shape, 7, np.dtype(dtype).newbyteorder())


def fortran(shape, dtype):
    return np.full(shape, 7, dtype, order="F")


def every_other(shape, dtype):
    return np.full((*shape[:-1], 2 * shape[-1]), 7, dtype)[..., ::2]


def frozen(shape, dtype):
    array = np.full(shape, 7, dtype)
    array.flags.writeable = False
    return array


def misaligned(shape, dtype):
    array = np.zeros(np.prod(shape) * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype)
    array = array.reshape(shape)
    array[:] = 7
    return array


def readable(shape, dtype):
    """The names that a message about an array uses."""
    return [str(shape), dtype]


# What is wrong, and what the message says besides "out".
BAD_OUT = {
    too_short: lambda shape, dtype: [shape, (shape[0] - 1, *shape[1:])],
    too_long: lambda shape, dtype: [shape, (shape[0] + 1, *shape[1:])],
    flat: lambda shape, dtype: [shape, (int(np.prod(shape)),)],
    other_float: lambda shape, dtype: ["float32", "float64"],
    integers: lambda shape, dtype: [dtype, "int"],
    byte_swapped: lambda shape, dtype: [dtype],
    fortran: lambda shape, dtype: ["contiguous"],
    every_other: lambda shape, dtype: ["contiguous"],
    frozen: lambda shape, dtype: ["read-only"],
    misaligned: lambda shape, dtype: ["aligned"],
}
bad_out = pytest.mark.parametrize(
    ("make", "parts"), BAD_OUT.items(), ids=[make.__name__ for make in BAD_OUT]
)


@bad_out
@dtypes
@kinds
def test_bad_out(operation, dtype, make, parts):
    X, Y = points(5, 4, 3, dtype)
    shape = operation.shape(5, 4, 3)
    out = make(shape, dtype)
    with pytest.raises(ValueError, match=says("out", *parts(shape, dtype))):
        operation(RBF(), X, Y, out=out)
    np.testing.assert_array_equal(out, 7)


@bad_out
@dtypes
@tanhs
def test_bad_out_of_a_basis(function, dtype, make, parts):
    X, W = points(5, 4, 3, dtype)[0], np.ones((4, 6), dtype)
    shape = function(X, W).shape
    out = make(shape, dtype)
    with pytest.raises(ValueError, match=says("out", *parts(shape, dtype))):
        function(X, W, out=out)
    np.testing.assert_array_equal(out, 7)


@bad_out
@pytest.mark.parametrize("name", ["rbf_kernel", "rbf_gradient", "rbf_hessian_diag", "rbf_hessian"])
def test_bad_out_with_gamma(name, make, parts):
    X, Y = points(5, 4, 3)
    shape = PAIRS[name](X, Y).shape
    out = make(shape, "float64")
    with pytest.raises(ValueError, match=says("out", *parts(shape, "float64"))):
        PAIRS[name](X, Y, out=out)
    np.testing.assert_array_equal(out, 7)


@pytest.mark.parametrize("bad", [[[0.0] * 3] * 3, "out", 1.0, True], ids=str)
def test_out_that_is_no_array(bad):
    with pytest.raises(TypeError, match=says("out", type(bad).__name__, "array")):
        kerneldiff.kernel_matrix(RBF(), GOOD, out=bad)


@pytest.mark.parametrize("which", ["X", "Y"])
@pytest.mark.parametrize("function", [kerneldiff.kernel_matrix, kerneldiff.gradient])
def test_out_overlaps_the_points(function, which):
    """An entry would be overwritten while others still need it."""
    n, d = 6, 3
    shape = (n, n) if function is kerneldiff.kernel_matrix else (n, n, d)
    memory = np.arange(float(np.prod(shape) + 4))
    before = memory.copy()
    inputs = {"X": np.ones((n, d)), "Y": np.zeros((n, d))}
    inputs[which] = memory[-n * d :].reshape(n, d)
    with pytest.raises(ValueError, match=says("out", "memory", which)):
        function(RBF(), inputs["X"], inputs["Y"], out=memory[: np.prod(shape)].reshape(shape))
    np.testing.assert_array_equal(memory, before)


def test_out_overlaps_points_that_are_copied():
    """Also if they would be copied first: what is right must not hang on the layout."""
    memory = np.zeros(36)
    X = memory[:18].reshape(3, 6).T
    with pytest.raises(ValueError, match=says("out", "memory", "X")):
        kerneldiff.kernel_matrix(RBF(), X, out=memory.reshape(6, 6))


@pytest.mark.parametrize("which", ["X", "W"])
def test_out_of_a_basis_overlaps(which):
    memory = np.zeros((4, 4))
    inputs = {"X": np.ones((4, 3)), "W": np.ones((4, 4))}
    inputs[which] = memory.ravel()[: inputs[which].size].reshape(inputs[which].shape)
    with pytest.raises(ValueError, match=says("out", "memory", which)):
        kerneldiff.tanh_basis(inputs["X"], inputs["W"], out=memory)


def test_out_beside_the_points_is_welcome():
    memory = np.ones(6 * 3 + 36)
    X, out = memory[:18].reshape(6, 3), memory[18:].reshape(6, 6)
    kerneldiff.kernel_matrix(RBF(), X, out=out)
    np.testing.assert_array_equal(out, 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"X": np.full((3, 2), np.nan)}, ValueError),
        ({"Y": np.ones((3, 5))}, ValueError),
        ({"kernel": Strange()}, TypeError),
        ({"kernel": RBF([1.0, 2.0, 3.0])}, ValueError),
        ({"wrt": "z"}, ValueError),
    ],
    ids=["nan", "columns", "kernel", "length scales", "wrt"],
)
def test_a_refused_call_leaves_out_untouched(change, error):
    out = np.full((3, 3, 2), 7.0)
    arguments = {"kernel": RBF(), "X": GOOD, "Y": GOOD, "wrt": "x"} | change
    with pytest.raises(error):
        kerneldiff.gradient(
            arguments["kernel"], arguments["X"], arguments["Y"], wrt=arguments["wrt"], out=out
        )
    np.testing.assert_array_equal(out, 7)


# --------------------------------------------------------------------------------------------------
# Too large
# --------------------------------------------------------------------------------------------------

# In a process of its own that may not grow beyond 4 GiB: a library that tried would not take the
# machine with it, and NumPy's own MemoryError ("Unable to allocate") is told from ours.
TOO_LARGE = """
import json, resource, sys
import numpy as np
import kerneldiff, sklearn
from sklearn.gaussian_process.kernels import RBF
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
physical = int(sys.argv[1])
n = (1.2 * physical / 8) ** 0.5  # n x n float64 is somewhat more than there is
X = lambda n, d: np.full((int(n), d), 0.5)
W = lambda k: np.full((2, int(k)), 0.5)
cases = {
    "kernel_matrix": lambda: kerneldiff.kernel_matrix(RBF(), X(n, 1)),
    "gradient": lambda: kerneldiff.gradient(RBF(), X(n / 5, 25)),
    "hessian": lambda: kerneldiff.hessian(RBF(), X(n / 10, 10)),
    "packed": lambda: kerneldiff.hessian(RBF(), X(n / 7, 10), layout="packed"),
    "rbf_kernel": lambda: kerneldiff.rbf_kernel(X(n, 1)),
    "float32": lambda: kerneldiff.hessian(RBF(), X(n / 7, 10).astype(np.float32)),
    "tanh_basis": lambda: kerneldiff.tanh_basis(X(n, 1), W(n)),
    "tanh_jacobian": lambda: kerneldiff.tanh_jacobian(X(n, 1), W(n)),
    "tanh_jacobian full": lambda: kerneldiff.tanh_jacobian(X(100, 1), W(n / 10), layout="full"),
    # 2**64 bytes, which a 64-bit number counts as none, and 2**67
    "none in 64 bits": lambda: kerneldiff.tanh_jacobian(X(2**20, 1), W(2**20), layout="full"),
    "matrix": lambda: kerneldiff.tanh_jacobian(X(2**21, 1), W(2**21), layout="matrix"),
}
said = {}
for name, case in cases.items():
    try:
        case()
    except Exception as error:
        said[name] = type(error).__module__, type(error).__name__, str(error)
print(json.dumps(said))
"""

needs_sysconf = pytest.mark.skipif(
    not hasattr(os, "sysconf"), reason="needs the size of physical memory"
)


@pytest.fixture(scope="module")
def refusals():
    """Module, name and message of the error of each case."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return json.loads(run_python(TOO_LARGE, physical))


@pytest.mark.quick(2)
@needs_sysconf
@pytest.mark.parametrize(
    "case",
    [
        *["kernel_matrix", "gradient", "hessian", "packed", "rbf_kernel", "float32"],
        *["tanh_basis", "tanh_jacobian", "tanh_jacobian full", "none in 64 bits", "matrix"],
    ],
)
def test_output_larger_than_memory(refusals, case):
    module, name, message = refusals[case]
    assert (module, name) == ("builtins", "MemoryError")
    assert "GiB" in message
    assert "Unable to allocate" not in message


@pytest.mark.exhaustive
@needs_sysconf
@pytest.mark.parametrize("name", ["kernel_matrix", "gradient-x", "hessian-xx", "packed-xy"])
def test_size_of_the_output_overflows(name, tmp_path):
    """Points in a file without any blocks on the disk, and with scikit-learn's vouching for them:
    2**31 of them in float32 make 2**64 bytes.
    """
    file = np.memmap(tmp_path / "points", np.float32, "w+", shape=(2**31, 1))
    too_large = pytest.raises(MemoryError, match=r"needs \S+ GiB.* tensor_blocks computes it")
    with sklearn.config_context(assume_finite=True), too_large:
        OPERATIONS[name](RBF(), file.view(np.ndarray))


# --------------------------------------------------------------------------------------------------
# What is welcome
# --------------------------------------------------------------------------------------------------


class Frame:
    """Something that knows how to become an array, as a pandas DataFrame does."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array.astype(self.array.dtype if dtype is None else dtype)


CONVERSIONS = {
    "list": np.ndarray.tolist,
    "tuple": lambda array: tuple(map(tuple, array)),
    "list of arrays": list,
    "frame": Frame,
    **{
        name: lambda array, name=name: array.astype(name)
        for name in ("int8", "uint8", "int32", "int64", "uint64", "float16", "longdouble")
    },
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@kinds
def test_other_types_become_float64(operation, convert):
    numbers = np.random.default_rng(0).integers(0, 9, (2, 5, 3)).astype(float)
    X, Y = map(convert, numbers)
    actual = operation(anisotropic(3), X, Y)
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, operation(anisotropic(3), *numbers))


@kinds
def test_mixed_types_become_float64(operation):
    X, Y = points(5, 7, 3)
    X = X.astype(np.float32)
    actual = operation(RBF(), X, Y)
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, operation(RBF(), X.astype(np.float64), Y))
    np.testing.assert_array_equal(operation(RBF(), Y, X), operation(RBF(), Y, X.astype(np.float64)))


def test_subclass_gives_a_plain_array():
    X = points(5, 0, 3)[0]
    masked = np.ma.masked_array(X)
    assert type(kerneldiff.kernel_matrix(RBF(), masked)) is np.ndarray


@pytest.mark.parametrize(
    "length_scale",
    [2, 2.0, np.float64(2), np.float32(2), np.int64(2), np.array(2.0), [2.0], np.array([2.0])],
    ids=repr,
)
@kinds
def test_numbers_as_length_scale(operation, length_scale):
    X, Y = points(5, 7, 1)
    np.testing.assert_array_equal(operation(RBF(length_scale), X, Y), operation(RBF(2.0), X, Y))


@pytest.mark.parametrize("length_scale", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], "f4")])
def test_sequences_as_length_scales(length_scale):
    X, Y = points(5, 7, 3)
    np.testing.assert_array_equal(
        kerneldiff.gradient(RBF(length_scale), X, Y),
        kerneldiff.gradient(RBF(np.array([1.0, 2.0, 3.0])), X, Y),
    )


@pytest.mark.parametrize("constant", [1e-5, 0.0, 1e5, 3, np.float32(0.5)], ids=repr)
@kinds
def test_numbers_as_constant(operation, constant):
    X, Y = points(5, 7, 3)
    actual = operation(ConstantKernel(constant) * RBF(), X, Y)
    expected = float(constant) * operation(RBF(), X, Y)
    # A product in another place: four roundings more or less on either side, of terms as large as
    # the largest entry of the pair or, on the diagonal, as the Kronecker term c k.
    largest = np.abs(expected).reshape(5, 7, -1).max(axis=2)
    terms = largest + float(constant) * kerneldiff.kernel_matrix(RBF(), X, Y)
    difference = np.abs(actual - expected).reshape(5, 7, -1).max(axis=2)
    assert (difference <= 4 * np.finfo(np.float64).eps * terms).all()


@pytest.mark.parametrize(
    ("dtype", "length_scale"),
    [("float64", 1e-170), ("float64", 1e170), ("float32", 1e-170), ("float32", 1e-25)],
)
@pytest.mark.parametrize("ard", [False, True], ids=["isotropic", "ard"])
@pytest.mark.parametrize("name", ["kernel_matrix", "gradient-x", "hessian-xx"])
def test_length_scale_whose_square_is_out_of_range(name, ard, dtype, length_scale):
    """A weight 1/l² that is infinite would make NaN of a difference of zero."""
    X, Y = points(3, 4, 2, dtype)
    Y[:3] = X
    kernel = RBF([1.0, length_scale] if ard else length_scale)
    with pytest.raises(ValueError, match=says("length_scale", length_scale)):
        OPERATIONS[name](kernel, X, Y)


def test_one_is_no_plural():
    assert _validation.counted(1, "row") == "1 row"
    assert _validation.counted(0, "row") == "0 rows"
    assert _validation.counted(2, "entry") == "2 entries"
    assert repr(kerneldiff.Value([[1.0]])) == "<Value at 1 point of 1 dimension>"
