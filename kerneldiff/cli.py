"""The command ``kerneldiff``: ``demo``, ``config`` and ``bench``."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import kerneldiff
from kerneldiff._files import InputError, check_folder, check_plots
from kerneldiff._show_config import facts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the command; those of the process by default.

    Returns
    -------
    status : int
        0 if all went well, 1 if a check of the demo failed, 130 after Ctrl-C, 141 if whoever reads
        what it prints has stopped reading, as ``head`` does.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version``, and with status 2 for arguments and files that make no
        sense.

    Examples
    --------
    >>> from kerneldiff.cli import main
    >>> status = main(["config"])  # doctest: +ELLIPSIS
    kerneldiff ...
    """
    try:
        try:
            return _run(argv)
        finally:
            # Here, also on the way out of --help, and not when Python ends, which would complain.
            print(end="", flush=True)
    except BrokenPipeError:
        # What is still to be written goes nowhere, and so cannot fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                os.dup2(nowhere, stream.fileno())
        return 141


def _run(argv: Sequence[str] | None) -> int:
    """Run a command."""
    parser, demo = _parsers()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "bench":
        # Only here, because it needs the peers, which only the extra "bench" installs.
        from kerneldiff._bench import compare

        return int(compare.main(rest) or 0)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        config = facts()
    except ValueError as error:  # KERNELDIFF_ISA: a mistake of the user's, not one to trace
        parser.error(str(error))
    if arguments.command == "config":
        kerneldiff.show_config()
        return 0
    try:
        return _demo(arguments, config)
    except InputError as error:
        demo.error(str(error))
    except KeyboardInterrupt:
        print("\nkerneldiff demo: interrupted", file=sys.stderr)
        return 130


def _demo(arguments: argparse.Namespace, config: dict[str, object]) -> int:
    """Run the demo on bundled data, or on a table of the user's."""
    # What they import takes time that other commands can do without.
    if arguments.data is None:
        given = [name for name in _OF_TABLES if getattr(arguments, name) is not None]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise InputError(f"{option} needs --data, the table that it is about.")
    for option in ("plot", "output"):
        if getattr(arguments, option) is not None:
            check_folder(f"--{option}", getattr(arguments, option))
    if arguments.plot is not None:
        check_plots()
    if arguments.data is None:
        from kerneldiff import _demo

        return _demo.run(config, arguments.plot)
    from kerneldiff import _table

    return _table.run(config, arguments)


# Options that are about a table of the user's.
_OF_TABLES = (
    *("target", "features", "drop", "gradient", "missing", "kernel", "max_points", "seed"),
    "output",
)


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Make the parser, and that of the demo."""
    parser = argparse.ArgumentParser(
        prog="kerneldiff",
        description="Derivatives of kernels and of tanh bases, fast and exact, on CPUs.",
        epilog="The environment variables OMP_NUM_THREADS (threads) and KERNELDIFF_ISA (baseline, "
        "avx2 or avx512: the instruction set) apply to all commands.",
    )
    parser.add_argument(
        "--version", action="version", version=f"kerneldiff {kerneldiff.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="compute derivative tensors of a real data set, check them and time them; or fit a "
        "Gaussian process to a table of your own",
        description="Compute the kernel matrix, the gradient and Hessian tensors and a tanh "
        "Jacobian of scikit-learn's diabetes data, check every entry against finite differences of "
        "scikit-learn's kernel and of numpy.tanh, and time them against plain NumPy. Takes some "
        "ten seconds. The exit status is 1 if a check fails. With --data: fit a Gaussian process "
        "to a table of your own, and say how well it predicts rows that were held out, how the "
        "target changes with each feature, and which features matter.",
    )
    demo.add_argument(
        "--plot", type=Path, metavar="DIR", help="draw pictures into this folder (needs matplotlib)"
    )
    table = demo.add_argument_group("a table of your own")
    table.add_argument(
        "--data",
        type=Path,
        metavar="FILE.csv",
        help="columns of numbers below a header, separated by commas, semicolons or tabs",
    )
    table.add_argument("--target", metavar="COLUMN", help="the column to predict (required)")
    choice = table.add_mutually_exclusive_group()
    choice.add_argument(
        "--features",
        nargs="+",
        metavar="COLUMN",
        help="the columns to predict from (default: all others)",
    )
    choice.add_argument("--drop", nargs="+", metavar="COLUMN", help="columns to leave out")
    table.add_argument(
        "--gradient",
        nargs="+",
        metavar="COLUMN",
        help="columns with the derivatives of the target with respect to the features, one for "
        "each, in the order of the features; the model learns from them, too",
    )
    table.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="save the model, and the predictions for the rows held out, into this folder",
    )
    table.add_argument(
        "--missing",
        choices=("error", "drop"),
        help="what to do about rows with missing values (default: error)",
    )
    table.add_argument(
        "--kernel", choices=("rbf", "matern"), help="RBF, or Matern 5/2 (default: rbf)"
    )
    table.add_argument(
        "--max-points",
        type=_integer(10),
        metavar="N",
        help="learn from no more than so many rows, drawn at random (default: so many that "
        "there are 2000 numbers to learn from, those of gradients included)",
    )
    table.add_argument(
        "--seed", type=_integer(0), metavar="N", help="which rows are held out (default: 0)"
    )
    # Its options are its own: it has no help here so that --help reaches it too.
    commands.add_parser(
        "bench",
        add_help=False,
        help="compare the speed with other implementations (see: kerneldiff bench --help)",
    )
    commands.add_parser(
        "config",
        help="print versions, compiler, instruction sets, OpenMP, threads and BLAS",
        description="Print versions, compiler, instruction sets, OpenMP, threads and BLAS: what "
        "belongs into the report of a bug.",
    )
    return parser, demo


def _integer(least: int) -> Callable[[str], int]:
    """Make the type of an option."""

    def integer(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}; it must be an integer from {least} on")
        return int(text)

    return integer
