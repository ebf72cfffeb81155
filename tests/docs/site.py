"""Check a built site: it loads nothing from outside, and all it refers to is there.

Run ``python -m tests.docs.site docs/_build/html``; `make docs` does so after each build.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself, by tag. Other references, such as links, are only followed.
_LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
_LOADING_LINKS = {"stylesheet", "icon", "shortcut", "preload", "modulepreload", "manifest"}
_IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


class Page(HTMLParser):
    """Collects what a page loads, what it links to, its anchors, and its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.title = ""
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        for name in _LOADED.get(tag, ()):
            if name in found:
                self.loaded += _candidates(found[name]) if name == "srcset" else [found[name]]
        if tag == "link" and _LOADING_LINKS & set(found.get("rel", "").split()):
            self.loaded.append(found.get("href", ""))
        elif tag in ("a", "link") and "href" in found:
            self.links.append(found["href"])
        if "srcdoc" in found:
            self.loaded += Page(found["srcdoc"]).loaded
        self.loaded += in_css(found.get("style", ""))
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag in ("title", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside == ["title"]:
            self.title += data.strip()
        elif self._inside == ["style"]:
            self.loaded += in_css(data)


def _candidates(srcset: str) -> list[str]:
    return [one.split()[0] for one in srcset.split(",") if one.strip()]


def in_css(text: str) -> list[str]:
    """Return what a style sheet loads; a place on the same page is not loaded."""
    found = [one or other for one, other in _IN_CSS.findall(_COMMENT.sub("", text))]
    return [one for one in found if not one.startswith("#")]


def problems(site: Path) -> list[str]:
    """Return a line for each reference that is not local or leads nowhere, and each missing title.

    Links to pages outside are allowed: a browser does not follow them by itself.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    told = [] if pages else [f"no page in {site}"]
    for path, page in pages.items():
        where = path.relative_to(site)
        if not page.title:
            told.append(f"{where} has no title")
        told += [f"{where} loads {one}" for one in page.loaded if _is_outside(one)]
        for one in page.loaded + page.links:
            told += [f"{where} refers to {one}: {why}" for why in _missing(site, path, one, pages)]
    for path in sorted(site.rglob("*.css")):
        where = path.relative_to(site)
        for one in in_css(path.read_text(encoding="utf-8")):
            if _is_outside(one):
                told.append(f"{where} loads {one}")
            told += [f"{where} refers to {one}: {why}" for why in _missing(site, path, one, pages)]
    return told


def _is_outside(reference: str) -> bool:
    parts = urlsplit(reference)
    return bool(parts.netloc) or parts.scheme not in ("", "data", "about")


def _missing(site: Path, path: Path, reference: str, pages: dict[Path, Page]) -> Iterator[str]:
    parts = urlsplit(reference)
    place = unquote(parts.fragment)
    if parts.scheme or parts.netloc:
        return
    if parts.path.startswith("/"):
        yield "not relative to the page"
        return
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        yield "there is no such file"
    elif target in pages and place and place not in pages[target].anchors:
        yield "there is no such place on the page"


def main(arguments: list[str]) -> int:
    site = Path(arguments[0]).resolve()
    told = problems(site)
    print("\n".join(told) or f"{site}: loads nothing from outside, and misses nothing")
    return bool(told)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
