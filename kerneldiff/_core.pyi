from collections.abc import Sequence
from typing import Any

import numpy as np

JETS: dict[str, int]
VMATH: tuple[str, ...]

class Program:
    def __init__(
        self,
        invariants: Sequence[tuple[str, np.ndarray | None]],
        steps: Sequence[tuple[str, int, int, int, int, Sequence[float]]],
        n_buf: int,
        jet: int,
    ) -> None: ...

def config() -> dict[str, Any]: ...
def tensor(
    program: Program,
    x: np.ndarray,
    y: np.ndarray,
    out: np.ndarray,
    which: int,
    mixed: bool,
    stream: bool,
) -> None: ...
def tanh(x: np.ndarray, w: np.ndarray, out: np.ndarray, jacobian: bool, stream: bool) -> None: ...
def vmath(name: str, x: np.ndarray, p: float = 0.0) -> np.ndarray: ...
def fill(out: np.ndarray, value: float, stream: bool, threads: int) -> None: ...
