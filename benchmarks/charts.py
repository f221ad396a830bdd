"""The table of the README, and the charts and tables of the documentation, from stored results.

::

    kerneldiff bench --json benchmarks/results.json   # measure and store
    python benchmarks/charts.py                       # make all of them

``results.json`` is one interleaved run on one machine, which all that is made from it names. Made
are what stands between the two marks of ``README.md``, ``docs/benchmarks_table.rst`` and the chart
in ``docs/_static``, for light and for dark pages.
"""

import argparse
import json
from pathlib import Path

from kerneldiff._bench import compare

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results.json")
README = ROOT / "README.md"
TABLES = ROOT / "docs" / "benchmarks_table.rst"
PICTURES = ROOT / "docs" / "_static"
_BEGIN, _END = "<!-- bench:begin -->", "<!-- bench:end -->"

#: What the README and the chart show of each part; the documentation has all of them.
CHOSEN = {
    "tensors": (
        "gradient 2000, D = 10",
        "Hessian 1000, D = 10",
        "joint covariance 1000, D = 10",
        "tanh Jacobian 100000, D = 10, K = 50",
    ),
    "products": (
        "K v 10000, D = 10",
        "gradient of an expansion 10000, D = 10",
    ),
    "gaussian_processes": (
        "likelihood and gradient 2000, D = 10",
        "mean and std at 10 000 points, N = 1000, D = 10",
    ),
    "expansions": (
        "RBFInterpolator thin_plate_spline 100000 × 1000: value",
        "tanh vjp 100000, D = 10, K = 50",
        "TanhRegressor, Friedman #1, 10000, D = 10, K = 20",
    ),
}

# Ink of pages, light and dark; and bars that are readable on both.
_INK = {"speedup.svg": "#212529", "speedup-dark.svg": "#e6e6e6"}
_BARS = ("#4c78a8", "#e58606", "#b79a5f", "#3aa17e")


def chosen(speedups):
    """Find the speedups that the README and the chart show.

    Parameters
    ----------
    speedups : list of dict
        What stands in the results under this name.

    Returns
    -------
    list of dict
    """
    return [speedup for speedup in speedups if speedup["work"] in CHOSEN[speedup["part"]]]


def readme(results, text):
    """Put the table of results into the text of the README.

    Parameters
    ----------
    results : dict
        What ``kerneldiff bench --json`` wrote.
    text : str

    Returns
    -------
    str
    """
    rows = list(compare.summary_rows(chosen(results["speedups"])))
    table = compare.write_table(rows, "markdown")
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{table}\n\n{compare.describe(results['machine'])}\n{_END}{after}"


def tables(results):
    """Write all tables of results for the documentation.

    Parameters
    ----------
    results : dict
        What ``kerneldiff bench --json`` wrote.

    Returns
    -------
    str
        reStructuredText.
    """
    note = ".. Made from stored results by benchmarks/charts.py.\n\n"
    return note + compare.report(results, style="rst") + "\n"


def draw(results, path, ink):
    """Draw the chart of speedups.

    Parameters
    ----------
    results : dict
        What ``kerneldiff bench --json`` wrote.
    path : path-like
        An SVG file.
    ink : str
        Colour of texts and lines; the background stays transparent.
    """
    import matplotlib as mpl
    from matplotlib import pyplot as plt
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from kerneldiff.plot import SpeedupDisplay

    style = {
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink
        ),
        "axes.prop_cycle": mpl.cycler(color=_BARS),
        "font.size": 11,
        # The same results make the same file.
        "svg.hashsalt": "kerneldiff",
        "svg.fonttype": "path",
    }
    with mpl.rc_context(style):
        # Without the targets, which are ours and not the reader's.
        speedups = [{**speedup, "target": None} for speedup in chosen(results["speedups"])]
        display = SpeedupDisplay.from_results({**results, "speedups": speedups})
        figure, ax = display.figure_, display.ax_
        # Room for the names of the work beside the bars.
        figure.set_size_inches(10.5, figure.get_figheight())
        ax.set_xlim(right=5 * max(speedup["times"] for speedup in speedups))
        ticks = [1, 3, 10, 30]
        ax.set_xticks(ticks, [f"{tick}×" for tick in ticks])
        ax.set_xlabel("")
        for text in ax.get_legend().get_texts():
            if text.get_text() == "huge pages":
                text.set_text("hand-written, given huge pages")
        FigureCanvasSVG(figure)
        figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def main(argv=None):
    """Make the README's table, and the charts and tables of the documentation.

    Parameters
    ----------
    argv : list of str, optional
        Command-line options; by default those of the process.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "results", nargs="?", default=RESULTS, help="file of results (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    results = json.loads(Path(options.results).read_text(encoding="utf-8"))
    README.write_text(readme(results, README.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    TABLES.write_text(tables(results), encoding="utf-8")
    for name, ink in _INK.items():
        draw(results, PICTURES / name, ink)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
