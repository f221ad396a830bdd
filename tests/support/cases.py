"""Arrays to compute in processes of their own, the same in each of them.

A module of its own, because those processes import it: no pytest, no JAX.
"""

import numpy as np
from support.products import WORK
from support.tanh import LAYER
from support.tensors import DTYPES, KERNELS, OPERATIONS, points


def tensor_inputs(dtype, size, spread):
    """Points as in test_tensors, and some pairs so far apart that k is tiny or zero."""
    X, Y = points(*size, dtype)
    if spread:
        Y *= np.linspace(0, 14, len(Y), dtype=Y.dtype)[:, None]
    return X, Y


def tanh_inputs(dtype, size):
    """Points, slopes and biases, from flat to saturated."""
    n, d, k = size
    rng = np.random.default_rng([n, d, k])
    X = rng.normal(size=(n, d)).astype(dtype)
    W = rng.normal(size=(d + 1, k)) * np.linspace(0, 8, k) / d**0.5
    return X, W.astype(dtype)


# All tensors of one kind of points; of the others one tensor of each kind and sign.
KINDS = ("kernel_matrix", "gradient-x", "hessian_diag-xy", "hessian-xx", "packed-xy")

# Id: operation, kernel, dtype, size, whether far pairs are among them.
TENSORS = {
    f"{name}-{kernel}-{dtype}-{'x'.join(map(str, size))}": (name, kernel, dtype, size, spread)
    for kernel, size, spread, names in [
        ("constant*rbf-ard", (53, 133, 5), True, OPERATIONS),
        ("rbf", (47, 261, 2), False, KINDS),
        ("rbf-ard", (7, 11, 17), False, KINDS),
        ("rbf", (3, 5, 33), True, KINDS),
    ]
    for name in names
    for dtype in DTYPES
}


# Id: function, dtype, size (N, D, K).
TANH = {
    f"{name}-{dtype}-{'x'.join(map(str, size))}": (name, dtype, size)
    for name in LAYER
    for dtype in DTYPES
    for size in [(53, 5, 67), (7, 17, 8), (300, 2, 3)]
}


def compute(case):
    """The array of a case."""
    if case in TENSORS:
        name, kernel, dtype, size, spread = TENSORS[case]
        X, Y = tensor_inputs(dtype, size, spread)
        return OPERATIONS[name](KERNELS[kernel](size[2]), X, Y)
    if case in WORK:
        return WORK[case]()
    name, dtype, size = TANH[case]
    return LAYER[name](*tanh_inputs(dtype, size))


def save(path):
    """Compute all cases and save them."""
    np.savez(path, **{case: compute(case) for case in [*TENSORS, *TANH, *WORK]})
