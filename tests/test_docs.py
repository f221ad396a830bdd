"""Every code block of the documentation and of the README runs, and says what is true.

Blocks of Python are run statement by statement, those of a page in order and in one namespace, with
warnings as errors. A comment that begins with a shape, as in ``G = ...  # (500, 500, 10)``, is
compared with the shape. Commands for a shell are compared with what there is: subcommands and
options, extras, files. Neither Sphinx nor a network is needed.
"""

import ast
import contextlib
import io
import re
import runpy
import shlex
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import kerneldiff
import kerneldiff.plot
from kerneldiff import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What Sphinx makes, or includes in other pages.
MADE = ("_build", "gallery", "reference/generated", "_templates", "benchmarks_table.rst")
PAGES = sorted(
    page for page in DOCS.rglob("*.rst") if not page.relative_to(DOCS).as_posix().startswith(MADE)
)
# All of these have code; the others are lists of links, formulas or numbers.
NO_CODE = {"architecture", "benchmarks", "changelog", "mathematics", "index"}


class Block(NamedTuple):
    """A piece of code of a page."""

    page: Path
    line: int  # of the page, where the code begins
    language: str
    code: str


def blocks_of(page):
    """Find the code blocks of a page in reStructuredText or Markdown."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return [
            Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
            for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        ]
    blocks, lines = [], text.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r"( *)\.\. code-block:: *(\w+)$", line)
        if not found:
            continue
        start = number + 1
        while start < len(lines) and lines[start].strip():  # options
            start += 1
        start += 1
        end = start
        while end < len(lines) and (
            not lines[end].strip() or lines[end].startswith(found[1] + "   ")
        ):
            end += 1
        indent = len(found[1]) + 3
        code = "\n".join(line[indent:] for line in lines[start:end])
        blocks.append(Block(page, start + 1, found[2], code.rstrip() + "\n"))
    return blocks


SHAPE = re.compile(r"  # (\((?:\d+,? ?)*\))")


def run_python(blocks):
    """Run the blocks of a page; returns how many shapes were compared."""
    namespace, compared = {"__name__": "a page"}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            # Empty lines before it, so that a traceback names the line of the page.
            source = "\n" * (block.line - 1) + block.code
            said = {
                number: ast.literal_eval(found[1])
                for number, line in enumerate(source.splitlines(), 1)
                if (found := SHAPE.search(line))
            }
            for node in ast.parse(source, str(block.page)).body:
                alone = isinstance(node, ast.Expr)
                code = ast.Expression(node.value) if alone else ast.Module([node], [])
                value = eval(compile(code, str(block.page), "eval" if alone else "exec"), namespace)
                if alone and (expected := said.pop(node.end_lineno, None)) is not None:
                    values = value if isinstance(value, tuple) else (value,)
                    _compare(block, node, expected, dict(enumerate(map(np.shape, values))))
                    compared += 1
                for part in ast.walk(node):
                    if isinstance(part, ast.Assign) and part.end_lineno in said:
                        names = [
                            n.id for t in part.targets for n in ast.walk(t) if hasattr(n, "id")
                        ]
                        shapes = {name: np.shape(namespace[name]) for name in names}
                        _compare(block, part, said.pop(part.end_lineno), shapes)
                        compared += 1
            assert not said, f"{block.page}: no statement ends where shapes are stated, {said}"
    return compared


def _compare(block, node, expected, shapes):
    place = f"{block.page}:{node.end_lineno}"
    assert set(shapes.values()) == {expected}, f"{place} says {expected}, but there is {shapes}"


def check_command(words):
    """Compare a command of a shell with what there is."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    program, *rest = words
    options = [word.split("=")[0] for word in rest if word.startswith("--")]
    if program == "kerneldiff":
        if rest:
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as ended:
                cli.main([rest[0], "--help"])
            assert ended.value.code == 0, f"there is no `kerneldiff {rest[0]}`"
            for option in options:
                assert option in shown.getvalue(), f"`kerneldiff {rest[0]}` has no {option}"
    elif program == "pip":
        assert rest[0] == "install"
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for word in rest[1:]:
            if found := re.fullmatch(r"(?:\.|kerneldiff)\[(.*)\]", word):
                assert set(found[1].split(",")) <= set(project["optional-dependencies"])
            else:
                assert word in (".", "kerneldiff") or word.startswith("-C"), f"what is {word}?"
    elif program in ("pytest", "python", "sphinx-build", ".ci/run", ".ci/lint", "asv"):
        paths = [word for word in rest if "/" in word and "_build" not in word]
        assert all((ROOT / path).exists() for path in paths), f"no such files: {paths}"
        if program == ".ci/run":
            steps = re.findall(r"^step_(\w+)\(\)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
            assert set(rest) <= set(steps)
    else:
        assert program in ("cd", "git", "export"), f"what is {program}?"


def commands_of(code):
    """Split a block for a shell into commands of words."""
    for line in code.replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            if words := shlex.split(command, comments=True):
                yield words


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """An empty folder to work in, figures that nobody sees, and no thread that waits for another.

    The matrices of the pages are small: more threads of the BLAS bring nothing, and where other
    programs run, they wait for each other.
    """
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    with threadpool_limits(1, user_api="blas"):
        yield tmp_path
    pyplot.close("all")


def name_of(page):
    """Name a page in the list of tests."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_code_of_a_page(page, clean):
    blocks = blocks_of(page)
    # What is shown as code is a block that is found here, and nothing else.
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^ *\.\. code(?:-block)?::|^```\w+$", text, re.MULTILINE)
    assert len(blocks) == len(shown)
    if page.suffix == ".rst":
        directives = re.compile(r"^\s*\.\. .*$", re.MULTILINE)
        assert not re.search(r"^\s*>>> |::\s*$", directives.sub("", text), re.MULTILINE)
    assert {block.language for block in blocks} <= {"python", "sh"}
    assert blocks or page.stem in NO_CODE or page.parent.name == "reference"
    run_python([block for block in blocks if block.language == "python"])
    for block in blocks:
        if block.language == "sh":
            for words in commands_of(block.code):
                check_command(words)


def test_example_of_the_start_page(clean):
    target = clean / "picture.svg"
    runpy.run_path(str(DOCS / "start.py"), {"THEME": "dark", "TARGET": target})
    assert target.stat().st_size > 10_000


def test_all_pages_are_found():
    assert len(PAGES) >= 20
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert sum(block.language == "python" for block in blocks) >= 50
    assert {"quickstart", "tensors", "jax"} <= {block.page.stem for block in blocks}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("a = 1\nb = a + c", NameError),
        ("import numpy as np\na = np.zeros((2, 3))  # (2, 4)", AssertionError),
        ("import numpy as np\nnp.zeros((2, 3)), np.ones(3)  # (2, 3) each", AssertionError),
        ("import warnings\nwarnings.warn('old', DeprecationWarning)", DeprecationWarning),
        ("a = (", SyntaxError),
    ],
)
def test_broken_blocks_are_noticed(code, error, tmp_path):
    page = tmp_path / "page.rst"
    indented = "".join(f"   {line}\n" for line in code.splitlines())
    page.write_text(f"Title\n=====\n\n.. code-block:: python\n\n{indented}\nText.\n")
    blocks = blocks_of(page)
    assert [block.code for block in blocks] == [code + "\n"]
    with pytest.raises(error):
        run_python(blocks)


def test_shapes_are_compared():
    code = "import numpy as np\na, b = np.zeros((2, 2, 3))  # (2, 3) each\nnp.ones(3)  # (3,)\n"
    assert run_python([Block(Path("page"), 1, "python", code)]) == 2


@pytest.mark.parametrize(
    "command",
    ["kerneldiff dance", "kerneldiff demo --loud", 'pip install ".[more]"', "pytest tests/none.py"],
)
def test_wrong_commands_are_noticed(command):
    with pytest.raises(AssertionError):
        check_command(shlex.split(command))


def test_reference_has_every_public_name_once():
    listed = []
    for page in sorted((DOCS / "reference").glob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for table in re.findall(r"\.\. autosummary::\n(?:   :.*\n)+\n((?:   .*\n)+)", text):
            listed += table.split()
    public = [*kerneldiff.__all__, *(f"plot.{name}" for name in kerneldiff.plot.__all__)]
    assert len(listed) == len(set(listed))
    assert {name for name in listed if not name[0].islower() or "." not in name} <= set(public)
    assert set(public) <= set(listed)
