"""Every instruction set that was built and that this CPU has, each in a process of its own."""

import json

import numpy as np
import pytest
from _cases import TANH, TENSORS, tanh_inputs, tensor_inputs
from _support import KERNELS, OPERATIONS, assert_right, run_python
from test_tanh import assert_basis_right, assert_jacobian_right

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
        import _cases, kerneldiff._core
        _cases.save(sys.argv[1])
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
    run_python("import sys, _cases; _cases.save(sys.argv[1])", path, isa="baseline")
    return np.load(path)


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_are_right(arrays, case):
    name, kernel, dtype, size, spread = TENSORS[case]
    X, Y = tensor_inputs(dtype, size, spread)
    assert_right(arrays[case], OPERATIONS[name], KERNELS[kernel](size[2]), X, Y)


@pytest.mark.parametrize("case", TANH)
def test_tanh_is_right(arrays, case):
    name, dtype, size = TANH[case]
    check = assert_basis_right if name == "tanh_basis" else assert_jacobian_right
    check(arrays[case], *tanh_inputs(dtype, size))


@pytest.mark.parametrize("case", [*TENSORS, *TANH])
def test_instruction_sets_agree(arrays, baseline, case):
    dtype = (TENSORS.get(case) or TANH[case])[-3 if case in TENSORS else -2]
    difference = np.abs(arrays[case] - baseline[case]).max()
    assert difference <= AGREEMENT[dtype] * np.abs(baseline[case]).max()


def test_subnormals_survive_use(isa):
    """In the main thread, after import and after calls in each type."""
    run_python(
        """
        import _support, numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        assert _support.subnormals_alive()
        for dtype in ("float64", "float32"):
            X = np.random.default_rng(0).normal(size=(500, 3)).astype(dtype)
            kerneldiff.hessian(RBF(), X)
            kerneldiff.tanh_jacobian(X, X[:4])
            assert _support.subnormals_alive()
        """,
        isa=isa,
        threads=2,
    )


def test_subnormals_survive_without_numpys_help():
    """NumPy repairs the mode when it is imported; nothing of it is needed to look at a float."""
    run_python("import kerneldiff; assert 2.0**-1022 / 2 > 0; assert 5e-324 * 2.0**60 > 0")


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


@pytest.mark.parametrize("use", ["tensor", "gamma", "tanh", "config", "show_config"])
@pytest.mark.parametrize("isa_asked", ["sse9", "AVX2", "1", " "])
def test_unknown_instruction_set(use, isa_asked):
    """Importing is fine, using is not."""
    name, message = json.loads(run_python(FIRST_USE, use, isa=isa_asked))
    assert name == "ValueError"
    for word in ("KERNELDIFF_ISA", repr(isa_asked), *kerneldiff._core.config()["isa_supported"]):
        assert word in message


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
