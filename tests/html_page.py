"""A page of HTML, read: what it consists of, and whether all is closed."""

from collections.abc import Collection
from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects tags, names and what would be loaded, and asserts that all is closed.

    Attributes:
      void: tags that need no end.
      loading: attributes that name what is loaded or referred to.
    """

    void: Collection[str] = ()
    loading: Collection[str] = ("src", "srcset", "href")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: list[str] = []
        self.sources: list[str] = []
        self.opened: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.names += [found["id"] or ""] if "id" in found else []
        self.sources += [found[name] or "" for name in self.loading if name in found]
        if tag not in self.void:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.opened.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.opened.pop() == tag
