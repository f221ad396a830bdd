"""From a scikit-learn kernel object to the program that the C core runs.

A kernel is a scalar function of a few invariants of a pair of points.  Reading one gives a small
tree of terms; compiling the tree for the derivatives that are wanted gives a list of invariants
and a list of steps over buffers of the tile (`kerneldiff._core.Program`).  A kernel of
scikit-learn's is one function and one line in `READERS`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from sklearn.gaussian_process import kernels as sk

from kerneldiff._core import Program


@dataclass(frozen=True, slots=True, eq=False)
class Invariant:
    """What a term depends on: s (kind "sqdist") or p ("dot"), with weights or all ones."""

    kind: str
    weights: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """amplitude * F(scale * invariant; parameters), with F a jet of src/jets.h."""

    jet: str
    invariant: Invariant
    scale: float
    parameters: tuple = ()
    amplitude: float = 1.0

    def scaled(self, factor):
        return replace(self, amplitude=self.amplitude * factor)


@dataclass(frozen=True, slots=True)
class Constant:
    """A term that is the same for all pairs."""

    value: float

    def scaled(self, factor):
        return Constant(self.value * factor)


def _stationary(jet, kernel, d, parameters=()):
    """A leaf in s: one length scale goes into the jet, several become weights."""
    length_scale = kernel.length_scale
    if isinstance(length_scale, (float, int)):
        size = 1
    else:
        length_scale = np.squeeze(np.asarray(length_scale, dtype=np.float64))
        size = length_scale.size
        if length_scale.ndim > 1 or (length_scale.ndim == 1 and size != d):
            raise ValueError(
                f"length_scale of {kernel} has shape {length_scale.shape}; it may be a number or "
                f"have one entry for each of the {d} columns of X."
            )
        if length_scale.ndim == 1:
            if not (np.all(np.isfinite(length_scale)) and np.all(length_scale > 0)):
                raise ValueError(
                    f"length_scale of {kernel} is {length_scale}; all entries must be finite and "
                    "positive."
                )
            return Leaf(jet, Invariant("sqdist", 1.0 / length_scale**2), 1.0, parameters)
    length_scale = float(length_scale)
    if not 0 < length_scale < math.inf:
        raise ValueError(
            f"length_scale of {kernel} is {length_scale}; it must be finite and positive."
        )
    return Leaf(jet, Invariant("sqdist"), 1.0 / length_scale**2, parameters)


def _read_rbf(kernel, d):
    return _stationary("rbf", kernel, d)


def _read_constant(kernel, d):
    value = float(kernel.constant_value)
    if not math.isfinite(value):
        raise ValueError(f"constant_value of {kernel} is {value}; it must be finite.")
    return Constant(value)


def _read_product(kernel, d):
    left, right = read(kernel.k1, d), read(kernel.k2, d)
    if isinstance(left, Constant):
        return right.scaled(left.value)
    if isinstance(right, Constant):
        return left.scaled(right.value)
    raise TypeError(f"the product {kernel} has no constant factor, and cannot be read yet.")


# THE list of what can be read.  Subclasses may compute anything and are not looked up.
READERS = {
    sk.ConstantKernel: _read_constant,
    sk.Product: _read_product,
    sk.RBF: _read_rbf,
}


def read(kernel, d):
    """Read a kernel for points of `d` coordinates into a tree of terms.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    d : int

    Returns
    -------
    Leaf or Constant

    Raises
    ------
    TypeError
        If a part of the kernel is of a kind that is not known; the part is named.
    ValueError
        If a hyperparameter has a value that the kernel cannot have.
    """
    reader = READERS.get(type(kernel))
    if reader is None:
        known = ", ".join(cls.__name__ for cls in READERS)
        raise TypeError(
            f"kernel has a part that cannot be read: {kernel!r} of type "
            f"{type(kernel).__name__}; what can be read is {known}."
        )
    return reader(kernel, d)


@dataclass(frozen=True, slots=True)
class RBFByGamma:
    """The kernel exp(-gamma s) as scikit-learn's pairwise functions have it."""

    gamma: float | None  # None: 1 / D


def _read_rbf_by_gamma(kernel, d):
    if kernel.gamma is None:
        return Leaf("rbf", Invariant("sqdist"), 2.0 / max(d, 1))
    try:
        gamma = float(kernel.gamma)
    except (TypeError, ValueError):
        gamma = math.nan
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma is {kernel.gamma!r}; it must be finite and positive, or None.")
    return Leaf("rbf", Invariant("sqdist"), 2.0 * gamma)


READERS[RBFByGamma] = _read_rbf_by_gamma


def compile_kernel(kernel, d, order):
    """Read a kernel and compile it for derivatives to `order` in its invariants.

    Parameters
    ----------
    kernel : sklearn.gaussian_process.kernels.Kernel
    d : int
        The number of columns of the points.
    order : int

    Returns
    -------
    Program

    Raises
    ------
    TypeError, ValueError
        As `read`.
    """
    term = read(kernel, d)
    if isinstance(term, Constant):
        term = Leaf("rbf", Invariant("sqdist"), 0.0, (), term.value)
    return Program(
        [(term.invariant.kind, term.invariant.weights)],
        [(term.jet, 1, 0, 0, order, (term.amplitude, term.scale, *term.parameters))],
        order + 2,
        1,
    )
