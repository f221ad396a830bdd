from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

OPS: dict[str, int]
VMATH: tuple[str, ...]
SIGNATURE: str
MAX_INVARIANTS: int
MAX_ORDER: int

class Callback: ...

def python_callback(function: Callable[[np.ndarray, int], Any]) -> Callback: ...
def compiled_callback(function: Any) -> Callback: ...
def matern_callback(nu: float) -> Callback: ...

class Program:
    weights: list[np.ndarray | None]
    def __init__(
        self,
        invariants: Sequence[tuple[str, Sequence[float], Sequence[float], np.ndarray | None]],
        steps: Sequence[tuple[str, int, int, int, int, Sequence[float]]],
        n_buf: int,
        jet: Sequence[int],
        order: int,
        rough: Sequence[tuple[int, int, int, bytes]] = (),
        callbacks: Sequence[Callback] = (),
    ) -> None: ...

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

class Side:
    points: np.ndarray
    directions: np.ndarray
    n: int
    d: int
    item: int
    parts: int
    directional: bool
    def __init__(
        self,
        points: np.ndarray,
        directions: np.ndarray,
        n: int,
        parts: int,
        directional: bool = False,
    ) -> None: ...

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
def tanh(x: np.ndarray, w: np.ndarray, out: np.ndarray, jacobian: bool, stream: bool) -> None: ...
def vmath(name: str, x: np.ndarray, p: float = 0.0) -> np.ndarray: ...
def fill(out: np.ndarray, value: float, stream: bool, threads: int) -> None: ...
