"""Formulas as MathML, which browsers show by themselves: no script, no network.

LaTeX is converted by ``latex2mathml`` when the site is built. Fonts with the tables that stretch
brackets and roots are rare on people's machines, so a part of STIX Two Math (SIL Open Font License;
it comes with ``ziamath``) goes into the site.
"""

import re
from importlib.resources import files
from pathlib import Path

from docutils import nodes
from fontTools import subset
from latex2mathml.converter import convert
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Latin, Greek, marks, arrows, operators, brackets, and the alphabets of mathematics.
CHARACTERS = [
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *range(0x302, 0x308),
    *range(0x391, 0x3F6),
    *range(0x2010, 0x2071),
    *range(0x2102, 0x2130),
    *range(0x2190, 0x21D6),
    *range(0x2200, 0x22FF),
    *range(0x2308, 0x230C),
    *range(0x23B0, 0x23E2),
    *range(0x27E6, 0x27EC),
    *range(0x1D400, 0x1D468),
    *range(0x1D538, 0x1D56C),
    *range(0x1D6A4, 0x1D7CC),
]


PRIME = re.compile(r"<msup>((?:(?!<msup>).)*?)<mi>(&#x0203[234];)</mi></msup>")
SIGN = re.compile(r"(<mrow>|</mo>|<mtd>|/>)<mo>&#x02212;</mo>")


def markup(node, display):
    """Convert a formula; what the converter does not know is a warning, and so an error."""
    text = node.astext()
    result = convert(text, display=display)
    if "\\" in result or "&amp;" in result:
        logger.warning("formula has something that MathML lacks: %s", text, location=node)
    # Primes are raised already, and a sign after an operator is no minus between two terms.
    result = PRIME.sub(r'<mrow>\1<mo lspace="0" rspace="0.1em">\2</mo></mrow>', result)
    parts, start = [], 0
    for found in SIGN.finditer(result):
        closing = re.search(r"(&#x00029;|&#x0005D;|[)\]|])</mo>$", result[: found.end(1)])
        if not closing:
            parts += [result[start : found.end(1)], '<mo form="prefix">&#x02212;</mo>']
            start = found.end()
    return "".join([*parts, result[start:]])


def visit_inline(self, node):
    """Write a formula of a sentence."""
    self.body.append(markup(node, "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    """Write a formula of its own, which scrolls where the page is narrow."""
    self.body.append(f'<div class="formula" tabindex="0">{markup(node, "block")}</div>')
    raise nodes.SkipNode


def write_font(app, exception):
    """Put the font into the site."""
    if exception is None and app.builder.format == "html":
        options = subset.Options(layout_features=["*"], notdef_outline=True, drop_tables=["DSIG"])
        source = files("ziamath.fonts") / "STIXTwoMath-Regular.ttf"
        font = subset.load_font(source, options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=CHARACTERS)
        subsetter.subset(font)
        subset.save_font(font, Path(app.outdir) / "_static" / "STIXTwoMath.ttf", options)


def setup(app):
    """Register all with Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("build-finished", write_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
