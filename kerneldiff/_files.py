"""Files that the commands write: all of them or none."""

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
