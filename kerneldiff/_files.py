"""What the commands share: files that are all written or none, tables, and progress."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate


class InputError(Exception):
    """A mistake in what the user passed; the command line says it in a sentence."""


def check_folder(option: str, folder: Path) -> None:
    """Raise InputError if no files can be written into a folder, which need not be there yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{option} is {str(folder)!r}, but {str(there)!r} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option} is {str(folder)!r}; {str(there)!r} cannot be written to.")


def check_plots() -> None:
    """Choose the way to draw that needs no screen; raise InputError if there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            '--plot needs matplotlib, which the extra "plot" installs: '
            'pip install "kerneldiff[plot]"'
        ) from None
    matplotlib.use("Agg")


def png(display: Any) -> bytes:
    """Picture of a display or a figure, which is closed."""
    import matplotlib.pyplot as plt

    figure = getattr(display, "figure_", display)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    plt.close(figure)
    return file.getvalue()


def write(files: Mapping[Path, bytes]) -> None:
    """Write files, all of them or none, and say so.

    Parameters
    ----------
    files : dict from Path to bytes
        Their folders are made if they are not there.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    parts = {path: path.with_name(path.name + ".part") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise InputError(f"{error.filename!r} cannot be written: {error.strerror}.") from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    for path in files:
        print(f"wrote {path}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table, the first columns aligned on the left and the others on the right."""
    aligned = (*["left"] * left, *["right"] * (len(header) - left))
    print(tabulate(rows, header, "plain", colalign=aligned, disable_numparse=True))


class Progress:
    """A line on the standard error that says how far long work is."""

    def __init__(self, every: float = 5.0) -> None:
        self.terminal = sys.stderr.isatty()
        self.every = 0.1 if self.terminal else every
        self.begin = self.last = time.perf_counter()

    def say(self, words: str) -> None:
        """Show the words, unless some have just been shown."""
        now = time.perf_counter()
        if now - self.last >= self.every:
            self.last = now
            line = f"{words}, {now - self.begin:.0f} s"
            sys.stderr.write(f"\r{line:<78}" if self.terminal else f"{line}\n")
            sys.stderr.flush()

    def done(self) -> float:
        """Clear the line; returns the seconds that the work took."""
        if self.terminal:
            sys.stderr.write(f"\r{'':<78}\r")
            sys.stderr.flush()
        return time.perf_counter() - self.begin
