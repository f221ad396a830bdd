from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from typing_extensions import disjoint_base

OPS: dict[str, int]
VMATH: tuple[str, ...]
SIGNATURE: str
MAX_INVARIANTS: int
MAX_ORDER: int

# Memory of others, memory of threads, pauses of a loop, and its look at the clock.
@disjoint_base
class Buffer:
    def __new__(cls, owner: Any, writable: bool = False) -> Self: ...

@disjoint_base
class Workspace:
    def __new__(cls, size: int) -> Self: ...

@disjoint_base
class Pace:
    def __new__(cls, tasks: int, cost: float, threads: int) -> Self: ...

@disjoint_base
class Watch:
    def __new__(cls) -> Self: ...

@disjoint_base
class Callback: ...

def python_callback(function: Callable[[np.ndarray, int], Any]) -> Callback: ...
def compiled_callback(function: Any) -> Callback: ...
def matern_callback(nu: float) -> Callback: ...

@disjoint_base
class Program:
    weights: list[np.ndarray | None]
    def __new__(
        cls,
        invariants: Sequence[tuple[str, Sequence[float], Sequence[float], np.ndarray | None]],
        steps: Sequence[tuple[str, int, int, int, int, Sequence[float]]],
        n_buf: int,
        jet: Sequence[int],
        order: int,
        rough: Sequence[tuple[int, int, int, bytes]] = (),
        callbacks: Sequence[Callback] = (),
        radial: Sequence[int] = (),
    ) -> Self: ...

def config() -> dict[str, Any]: ...
def tensor(
    program: Program,
    x: np.ndarray,
    y: np.ndarray,
    out: np.ndarray,
    which: int,
    wrt: str,
    stream: bool,
) -> None: ...
def blocks(
    program: Program,
    x: np.ndarray,
    y: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
    offset: int,
    ld: int,
    rows: int,
    cols: int,
    lower: bool,
    stream: bool,
) -> None: ...
def panel(item: int) -> int: ...
def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray: ...

@disjoint_base
class Side:
    points: np.ndarray
    directions: np.ndarray
    n: int
    d: int
    item: int
    parts: int
    directional: bool
    def __new__(
        cls,
        points: np.ndarray,
        directions: np.ndarray,
        n: int,
        parts: int,
        directional: bool = False,
    ) -> Self: ...

def product(
    program: Program,
    rows: Side,
    cols: Side,
    col_vectors: np.ndarray,
    row_vectors: np.ndarray | None,
    row_sums: np.ndarray,
    col_sums: np.ndarray | None,
    total: bool = False,
) -> None: ...
def contract(
    program: Program,
    heads: Sequence[tuple[Sequence[int], np.ndarray | None]],
    rows: Side,
    cols: Side,
    w: np.ndarray | None,
    starts: tuple[int, int],
    at: tuple[np.ndarray, np.ndarray] | None,
    steps: tuple[int, int],
    u: np.ndarray | None,
    v: np.ndarray | None,
    triangle: int,
    sums: np.ndarray | None,
) -> np.ndarray: ...
def jets(program: Program, a: np.ndarray) -> np.ndarray: ...
def tanh(
    what: str,
    x: np.ndarray,
    w: np.ndarray,
    out: np.ndarray,
    stream: bool = False,
    dw: np.ndarray | None = None,
    dx: np.ndarray | None = None,
    factors: np.ndarray | None = None,
) -> None: ...
def tanh_back(
    x: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    w_out: np.ndarray,
    x_out: np.ndarray | None = None,
) -> None: ...
def vmath(name: str, x: np.ndarray, p: float = 0.0) -> np.ndarray: ...
def fill(out: np.ndarray, value: float, stream: bool, threads: int) -> None: ...
