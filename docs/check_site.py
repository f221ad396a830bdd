"""Check a built site: ``python docs/check_site.py docs/_build/html``.

Every local address and anchor of every page leads somewhere, every picture has a text, and no page
needs anything from the network.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page refers to, and what may be referred to in it."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.anchors, self.links, self.loads, self.silent = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note addresses and anchors."""
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif tag == "link" and attrs.get("rel") in (
            "stylesheet",
            "icon",
            "preload",
            "shortcut icon",
        ):
            self.loads.append(attrs["href"])
        elif attrs.get("src"):
            self.loads.append(attrs["src"])
        for part in attrs.get("srcset", "").split(","):
            if part.strip():
                self.loads.append(part.split()[0])
        if tag == "img" and attrs.get("alt") is None:
            self.silent.append(attrs.get("src"))


def faults(root):
    """Find what is wrong."""
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    if not pages:
        yield f"{root} has no pages"
    for path, page in pages.items():
        name = path.relative_to(root)
        yield from (f"{name}: no text for {source}" for source in page.silent)
        for address in [*page.links, *page.loads]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    yield f"{name}: needs {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name}: {address} leads nowhere"
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors | {"top"}
            ):
                yield f"{name}: {address} has no such place"


def main(folder):
    """Print what is wrong, and return how much."""
    found = list(faults(Path(folder).resolve()))
    print("\n".join(found) or "all links, anchors and pictures are there")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
