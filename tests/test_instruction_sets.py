"""Every instruction set that was built and that this CPU has, each in a process of its own."""

import json
import os

import numpy as np
import pytest
from support.cases import TANH, TENSORS, tanh_inputs, tensor_inputs
from support.processes import run_python
from support.products import WORK
from support.tanh import ASSERTIONS
from support.tensors import KERNELS, OPERATIONS, assert_right

import kerneldiff._core

# Largest difference of two instruction sets, relative to the largest entry of the array: the
# roundings of both, some ten eps.
AGREEMENT = {"float64": 1e-14, "float32": 1e-6}


@pytest.fixture(scope="module")
def arrays(isa, tmp_path_factory):
    """All cases as one instruction set computes them."""
    path = tmp_path_factory.mktemp(isa) / "arrays.npz"
    used = run_python(
        """
        import sys
        import kerneldiff._core, support.cases
        support.cases.save(sys.argv[1])
        print(kerneldiff._core.config()["isa"])
        """,
        path,
        isa=isa,
    )
    assert used.strip() == isa
    return np.load(path)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """All cases as the plainest instruction set computes them."""
    path = tmp_path_factory.mktemp("first") / "arrays.npz"
    run_python("import sys, support.cases; support.cases.save(sys.argv[1])", path, isa="baseline")
    return np.load(path)


@pytest.mark.quick(12)
@pytest.mark.parametrize("case", TENSORS)
def test_tensors_are_right(arrays, case):
    name, kernel, dtype, size, spread = TENSORS[case]
    X, Y = tensor_inputs(dtype, size, spread)
    assert_right(arrays[case], OPERATIONS[name], KERNELS[kernel](size[2]), X, Y)


@pytest.mark.parametrize("case", TANH)
def test_tanh_is_right(arrays, case):
    name, dtype, size = TANH[case]
    ASSERTIONS[name](arrays[case], *tanh_inputs(dtype, size))


@pytest.mark.quick(12)
@pytest.mark.parametrize("case", [*TENSORS, *TANH])
def test_instruction_sets_agree(arrays, baseline, case):
    dtype = (TENSORS.get(case) or TANH[case])[-3 if case in TENSORS else -2]
    # Arguments of tanh are sums of up to 20, of which the roundings show in its slope.
    agreement = AGREEMENT[dtype] * (10 if case in TANH else 1)
    difference = np.abs(arrays[case] - baseline[case]).max()
    assert difference <= agreement * np.abs(baseline[case]).max()


@pytest.mark.parametrize("case", WORK)
def test_products_agree(arrays, baseline, case):
    """Sums of up to 5000 terms of either sign, a hundred times as large as they are together."""
    agreement = AGREEMENT["float32" if "float32" in case else "float64"]
    difference = np.abs(arrays[case] - baseline[case]).max()
    assert difference <= 100 * agreement * np.abs(baseline[case]).max()


@pytest.mark.exhaustive
def test_subnormals_survive_use(isa):
    """In the main thread, after import and after calls in each type."""
    run_python(
        """
        import numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        from support.processes import subnormals_alive
        assert subnormals_alive()
        for dtype in ("float64", "float32"):
            X = np.random.default_rng(0).normal(size=(500, 3)).astype(dtype)
            kerneldiff.hessian(RBF(), X)
            kerneldiff.tanh_jacobian(X, X[:4])
            assert subnormals_alive()
        """,
        isa=isa,
        threads=2,
    )


@pytest.mark.exhaustive
def test_subnormals_survive_without_numpys_help():
    """NumPy repairs the mode when it is imported; nothing of it is needed to look at a float."""
    run_python("import kerneldiff; assert 2.0**-1022 / 2 > 0; assert 5e-324 * 2.0**60 > 0")


# Vectors may be longer than what is left of an array.
BESIDE = """
import sys
import numpy as np
import kerneldiff
from kerneldiff import _core
from support.cases import KINDS
from support.memory import assert_stays_inside
from support.tanh import tanh_tangents
from support.tensors import OPERATIONS, anisotropic, isotropic

dtype = sys.argv[1]

def layer(what):
    def function(X, W, *rest, out=None):
        (n, d), k = X.shape, W.shape[1]
        if out is None:
            out = np.empty({"input_jacobian": n * k * d, "input_hessian": n * k * d * d,
                            "back": W.size + X.size}.get(what, n * k), dtype)
        if what == "back":
            of_weights, of_points = np.split(out, [W.size])
            _core.tanh_back(X, W, rest[0], of_weights.reshape(W.shape), of_points.reshape(n, d))
        elif what == "tangent":
            _core.tanh(what, X, W, out.reshape(n, k), dx=rest[1], dw=rest[2])
        elif what == "chain":
            _core.tanh(what, X, W, out.reshape(n, k), factors=rest[0])
        else:
            _core.tanh(what, X, W, out)
        return out
    return function

rng = np.random.default_rng(0)
normal = lambda n, d: rng.normal(size=(n, d)).astype(dtype)
for d in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 33):
    for n, m in [(1, 1), (2, 3), (5, 7), (4, 18), (3, 33)]:
        for name in KINDS:
            kernel = (isotropic if m % 2 else anisotropic)(d)
            print(name, n, m, d, flush=True)
            function = lambda *a, **k: OPERATIONS[name](kernel, *a, **k)
            assert_stays_inside(function, normal(n, d), normal(m, d))
        for function in (kerneldiff.tanh_basis, kerneldiff.tanh_jacobian):
            print(function.__name__, n, d, m, flush=True)
            assert_stays_inside(function, normal(n, d), normal(d + 1, m))
        for what in ("back", "tangent", "chain", "slope", "input_jacobian", "input_hessian"):
            print(what, n, d, m, flush=True)
            X, W = normal(n, d), normal(d + 1, m)
            assert_stays_inside(layer(what), X, W, *tanh_tangents(X, W))
"""


@pytest.mark.quick(1)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="protects pages of memory as POSIX systems do")
@pytest.mark.parametrize("dtype", AGREEMENT)
def test_touches_nothing_beside_the_arrays(isa, dtype):
    """Neither reads nor writes; the system ends the process that does."""
    run_python(BESIDE, dtype, isa=isa)


# --------------------------------------------------------------------------------------------------
# KERNELDIFF_ISA
# --------------------------------------------------------------------------------------------------

FIRST_USE = """
import json, sys
import kerneldiff, numpy as np
from sklearn.gaussian_process.kernels import RBF
X = np.zeros((2, 1))
uses = {
    "tensor": lambda: kerneldiff.hessian(RBF(), X),
    "gamma": lambda: kerneldiff.rbf_kernel(X),
    "tanh": lambda: kerneldiff.tanh_basis(X, X),
    "config": lambda: kerneldiff._core.config(),
    "show_config": lambda: kerneldiff.show_config(),
}
try:
    uses[sys.argv[1]]()
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("use", "isa_asked"),
    [
        *[(use, "sse9") for use in ("tensor", "gamma", "tanh", "config", "show_config")],
        *[("tensor", isa_asked) for isa_asked in ("AVX2", "1", " ")],
    ],
)
def test_unknown_instruction_set(use, isa_asked):
    """Importing is fine, using is not."""
    name, message = json.loads(run_python(FIRST_USE, use, isa=isa_asked))
    assert name == "ValueError"
    for word in ("KERNELDIFF_ISA", repr(isa_asked), *kerneldiff._core.config()["isa_supported"]):
        assert word in message


@pytest.mark.exhaustive
def test_unknown_instruction_set_is_refused_again():
    run_python(
        """
        import kerneldiff._core, pytest
        for _ in range(3):
            with pytest.raises(ValueError, match="KERNELDIFF_ISA"):
                kerneldiff._core.config()
        """,
        isa="none",
    )


@pytest.mark.exhaustive
def test_the_last_instruction_set_is_chosen():
    config = json.loads(
        run_python(
            """
            import json, os
            os.environ.pop("KERNELDIFF_ISA", None)
            import kerneldiff._core
            print(json.dumps(kerneldiff._core.config()))
            """
        )
    )
    assert config["isa"] == config["isa_supported"][-1]
