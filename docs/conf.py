"""Configuration of the documentation.

``sphinx-build -W --keep-going -b html docs docs/_build/html`` builds it from the installed package,
with warnings as errors and without a network. ``-D plot_gallery=0`` does not run the examples.
"""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import kerneldiff

HERE = Path(__file__).parent
# Not the root: the source folder would hide the installed package.
sys.path.insert(0, str(HERE / "_ext"))
os.environ["MPLBACKEND"] = "agg"

project = "kerneldiff"
author = "The kerneldiff developers"
copyright = "The kerneldiff developers, BSD-3-Clause"
version = release = kerneldiff.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "house",
    "mathml",
    "pictures",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates", "benchmarks_table.rst", "gallery/**/README.rst"]
default_role = "name"
nitpicky = True
smartquotes = False  # primes of formulas in docstrings stay primes
house_plain_names = re.compile(r"(sample_y|size)$")
suppress_warnings = ["config.cache"]  # patterns and classes in this file are no reason to warn
html_math_renderer = "mathml"

# ---- reference: one page a name

autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "none"  # docstrings say more: shapes and units
autodoc_default_options = {
    "member-order": "bysource",
    # Made by scikit-learn, whose text has references of its own.
    "exclude-members": "set_fit_request, set_predict_request, set_score_request",
}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

# `Gradient` and `gradient` would be one file where the case of names does not count.
same = Counter(name.lower() for name in kerneldiff.__all__)
autosummary_filename_map = {
    f"kerneldiff.{name}": f"kerneldiff.{name}_class"
    for name in kerneldiff.__all__
    if same[name.lower()] > 1 and name[0].isupper()
}

# ---- gallery

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|[/\\])_",
    "within_subsection_order": "pictures.Order",
    "reset_modules": ("matplotlib", "pictures.reset"),
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "image_srcset": ["2x"],
    "thumbnail_size": (480, 320),
    "min_reported_time": 1,
}

# ---- look

html_theme = "pydata_sphinx_theme"
html_title = "kerneldiff"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_copy_source = False
ALONE = "index install quickstart mathematics architecture changelog benchmarks"
html_sidebars = {page: [] for page in ALONE.split()}
html_theme_options = {
    "logo": {
        "text": "kerneldiff",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
    },
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark",
}
