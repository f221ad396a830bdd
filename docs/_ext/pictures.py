"""The pictures of the start page, made when the site is built, and the gallery's manners."""

import json
import runpy
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

FILTERS = list(warnings.filters)

# What people look at first; others follow.
GALLERY = (
    "airfoils",
    "copper_cluster",
    "terrain",
    "surface_normals",
    "co2_growth",
    "temperature",
    "derivative_tensors",
    "bayesian_optimisation",
    "sensitivity",
    "engine_deck",
    "matrix_calculus",
)


class Order:
    """The order of the examples in the gallery."""

    def __init__(self, folder):
        pass

    def __call__(self, file):
        """Return what to sort by."""
        name = file.removeprefix("plot_").removesuffix(".py")
        return (GALLERY.index(name) if name in GALLERY else len(GALLERY), name)


def reset(gallery_conf, name):
    """Forget what filters of warnings an example has set."""
    warnings.filters[:] = FILTERS
    getattr(warnings, "_filters_mutated", getattr(warnings, "_filters_mutated_lock_held", int))()


# Rows of the chart of the start page: names in the stored results, and names for readers.
SPEEDS = {
    "gradient 2000, D = 10": "gradient tensor",
    "Hessian 1000, D = 10": "Hessian tensor",
    "joint covariance 1000, D = 10": "covariance of values and gradients",
    "tanh Jacobian 100000, D = 10, K = 50": "Jacobian of a tanh basis",
    "likelihood and gradient 2000, D = 10": "likelihood and its gradient",
    "mean and std at 10 000 points, N = 1000, D = 10": "prediction with its deviation",
    "RBFInterpolator thin_plate_spline 100000 × 1000: value": "thin plate splines",
}
# The color of words and lines, and that of bars.
THEMES = {"light": ("#3b4252", "#1f6feb"), "dark": ("#c9d1d9", "#4c8fe8")}


def draw_example(source, theme, target):
    """Draw the example of the start page."""
    runpy.run_path(str(source), {"THEME": theme, "TARGET": target}, run_name="__main__")


def draw_speeds(source, theme, target):
    """Draw the stored speeds, against automatic differentiation and libraries."""
    import matplotlib.pyplot as plt

    results = json.loads(source.read_text(encoding="utf-8"))
    known: dict[str, dict[str, Any]] = {}
    for speedup in results["speedups"]:
        if speedup["kind"] in ("autodiff", "library"):
            known.setdefault(speedup["work"], speedup)  # of several libraries the first
    chosen = [known[work] for work in SPEEDS]
    ink, color = THEMES[theme]
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = {"svg.fonttype": "none", "svg.hashsalt": "kerneldiff", "font.size": 12}
    with matplotlib.rc_context(style | dict.fromkeys(names, ink)):
        figure, ax = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
        for row, speed in enumerate(chosen):
            times = speed["times"]
            ax.barh(row, times - 1, left=1, color=color if times >= 1 else "#d9730d", height=0.66)
            text = f"{times:.0f} × " if times >= 10 else f"{times:.1f} × "
            ax.text(max(times, 1) * 1.06, row, text + speed["over"], va="center")
        ax.set(
            xscale="log", xlim=(0.7, 200), yticks=range(len(chosen)), yticklabels=SPEEDS.values()
        )
        ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        ax.set_xlabel("times as fast as")
        ax.tick_params(which="minor", length=0)
        ax.tick_params(axis="y", length=0)
        ax.axvline(1, color=ink, linewidth=1)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.invert_yaxis()
        figure.savefig(target, transparent=True, metadata={"Date": None})
        plt.close(figure)


def draw(app):
    """Draw for light and for dark pages what has changed."""
    root = Path(app.srcdir)
    pictures = [
        ("start", draw_example, root / "start.py"),
        ("start-speed", draw_speeds, root.parent / "benchmarks" / "results.json"),
    ]
    for name, function, source in pictures:
        for theme in THEMES:
            target = root / "_static" / f"{name}-{theme}.svg"
            newest = max(Path(path).stat().st_mtime for path in (source, __file__))
            if not target.exists() or target.stat().st_mtime < newest:
                function(source, theme, target)


def setup(app):
    """Register with Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
