"""What the pages of this site have that Sphinx has not.

- The default role: `name` in a docstring is a link if it names something public, of ours or of a
  library that we know the addresses of, and code otherwise.
- Bars in docstrings are absolute values.
- Links to scikit-learn, SciPy and NumPy, made from names, so that no inventory is fetched.
- ``.. changelog::``, which reads the subset of Markdown that the changelog is written in.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective, SphinxRole

import kerneldiff

ADDRESSES = {
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{}.html",
    "scipy": "https://docs.scipy.org/doc/scipy/reference/generated/{}.html",
    "numpy": "https://numpy.org/doc/stable/reference/generated/{}.html",
}


class NameRole(SphinxRole):
    """A link to what is named, or code."""

    def run(self):
        """Make the node."""
        name = self.text
        ours = name.split(".")[0] in kerneldiff.__all__
        if ours or name.split(".")[0] in (*ADDRESSES, "kerneldiff"):
            target = f"kerneldiff.{name}" if ours else name
            node = pending_xref(
                self.rawtext,
                nodes.literal(name, name, classes=["xref", "py"]),
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refexplicit=False,
                refwarn=True,
                refdoc=self.env.docname,
            )
            node["py:module"] = node["py:class"] = None
            return [node], []
        return [nodes.literal(self.rawtext, name)], []


def resolve_foreign(app, env, node, content):
    """Link to the documentation of other libraries, and not to what has no page."""
    target = node.get("reftarget", "")
    library = target.split(".")[0]
    if node.get("refdomain") != "py":
        return None
    if library in ADDRESSES and "." in target:
        address = ADDRESSES[library].format(target)
        return nodes.reference("", "", content, refuri=address, internal=False)
    if target in kerneldiff.__all__:  # seen from another module of the package
        domain, name = env.domains.python_domain, f"kerneldiff.{target}"
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
    # What See Also names without having a page.
    return content if app.config.house_plain_names.match(target) else None


def keep_bars(app, what, name, obj, options, lines):
    """Keep the bars of absolute values in docstrings: they are no substitutions."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = re.split(r"(`+[^`]+`+)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "".join(parts)


CODE = re.compile(r"(`[^`]+`)")
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
UNREAD = re.compile(r"\s*(```|>|\||<|\d+\. |#{4}|!\[)")
HEADING = re.compile(r"^(##+) (.*)\n", re.MULTILINE)


def inline(text):
    """Turn code and links of Markdown into those of reStructuredText."""
    parts = CODE.split(text)
    plain = [re.sub(r"([*_|])", r"\\\1", LINK.sub(r"`\1 <\2>`__", part)) for part in parts[::2]]
    # The links are taken back from what was escaped.
    plain = [part.replace(r">`\_\_", ">`__") for part in plain]
    # Code ends where a sign or a space follows; before a letter an escaped space has to.
    plain[1:] = [rf"\ {part}" if part[:1].isalnum() else part for part in plain[1:]]
    code = [f"`{part}`" for part in parts[1::2]]
    return "".join(x for pair in zip(plain, [*code, ""], strict=True) for x in pair)


def from_markdown(text):
    """Turn headings, lists and paragraphs of Markdown into reStructuredText."""
    for number, line in enumerate(text.splitlines(), 1):
        if UNREAD.match(line):
            raise ValueError(f"line {number} of the changelog is more than is read here: {line}")
    body = inline(re.sub(r"\A# .*\n", "", text))
    return HEADING.sub(lambda m: f"{m[2]}\n{'..=-'[len(m[1])] * len(m[2])}\n", body)


class Changelog(SphinxDirective):
    """Include the changelog, which is Markdown, without its title."""

    required_arguments = 1

    def run(self):
        """Parse it as if it stood here."""
        path = Path(self.env.srcdir, self.arguments[0]).resolve()
        self.env.note_dependency(str(path))
        text = from_markdown(path.read_text(encoding="utf-8"))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app):
    """Register all with Sphinx."""
    app.add_config_value("house_plain_names", re.compile("$^"), "env", [re.Pattern])
    app.add_role("name", NameRole())
    app.add_directive("changelog", Changelog)
    app.connect("missing-reference", resolve_foreign)
    app.connect("autodoc-process-docstring", keep_bars, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
