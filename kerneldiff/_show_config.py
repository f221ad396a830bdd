"""What was built, what it runs on and what a call would use."""

import os
import platform
from importlib.metadata import version
from typing import Any, Literal

from threadpoolctl import threadpool_info

from kerneldiff import _core
from kerneldiff._validation import counted

__all__ = ["show_config"]


def show_config(mode: Literal["print", "dict"] = "print") -> dict[str, Any] | None:
    """Show versions, compiler, instruction sets, OpenMP, threads and BLAS.

    Put its output into every report of a bug or of a speed: results agree between instruction
    sets only to rounding, and times depend on all of them.

    Parameters
    ----------
    mode : {"print", "dict"}, default="print"
        Whether to print a readable summary or to return the facts.

    Returns
    -------
    facts : dict or None
        None for ``mode="print"``. Otherwise a dictionary of

        - ``"kerneldiff"``, ``"numpy"``, ``"scipy"``, ``"scikit-learn"``, ``"python"`` : str,
          versions
        - ``"platform"`` : str
        - ``"compiler"`` : str, what the compiled core was built with
        - ``"isa_built"``, ``"isa_supported"`` : tuple of str, instruction sets that were built, and
          those of them that this CPU has
        - ``"isa"`` : str, the one that is used
        - ``"isa_forced"`` : str or None, the environment variable ``KERNELDIFF_ISA``
        - ``"openmp"`` : bool, whether the core was built with it
        - ``"threads"`` : int, how many a call would use
        - ``"blas"`` : list of str, the libraries in this process with their threads

    Raises
    ------
    ValueError
        If `mode` is neither, or if ``KERNELDIFF_ISA`` names no instruction set that was built and
        that this CPU has.

    Examples
    --------
    >>> import kerneldiff
    >>> facts = kerneldiff.show_config(mode="dict")
    >>> facts["isa"] in facts["isa_supported"]
    True
    """
    if mode not in ("print", "dict"):
        raise ValueError(f"mode must be 'print' or 'dict', got {mode!r}")
    shown = facts()
    if mode == "dict":
        return shown
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {_readable(value)}")
    return None


def facts() -> dict[str, Any]:
    """Return what `show_config` shows."""
    core = _core.config()
    return {
        **{name: version(name) for name in ("kerneldiff", "numpy", "scipy", "scikit-learn")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "compiler": core["compiler"],
        "isa_built": core["isa_built"],
        "isa_supported": core["isa_supported"],
        "isa": core["isa"],
        "isa_forced": os.environ.get("KERNELDIFF_ISA"),
        "openmp": core["openmp"],
        "threads": core["threads"],
        "blas": [
            f"{pool['internal_api']} {pool['version'] or '(unknown version)'}, "
            f"{counted(pool['num_threads'], 'thread')}"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ],
    }


def _readable(value: Any) -> str:
    if value is None or value in ([], ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "; ".join(value) if isinstance(value, list) else ", ".join(value)
    return str(value)
