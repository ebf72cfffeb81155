"""The check of the built site finds what it looks for."""

from pathlib import Path

import pytest

from tests.docs.site import problems

GOOD = {
    "index.html": """<title>Home</title><link rel="stylesheet" href="_static/a.css?v=1">
        <script src="a.js"></script><img src="data:image/png;base64,AA==" srcset="b.svg 2x">
        <a href="more/page.html#there">more</a> <a href="https://example.com">outside</a>
        <iframe srcdoc="&lt;style&gt;a{fill:url(#here)}&lt;/style&gt;"></iframe>""",
    "more/page.html": '<title>Page</title><p id="there"></p><a href="../index.html">back</a>',
    "_static/a.css": "/* url(https://example.com/old.css) */ p { background: url('../b.svg') }",
    "a.js": "",
    "b.svg": "<svg/>",
}


def built(folder: Path, **changed: str) -> Path:
    for name, text in (GOOD | changed).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_site_of_its_own_is_fine(tmp_path: Path) -> None:
    assert problems(built(tmp_path)) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('<script src="https://cdn.example.com/x.js"></script>', "loads https://cdn.example.com"),
        ('<script src="//cdn.example.com/x.js"></script>', "loads //cdn.example.com"),
        ('<link rel="stylesheet" href="https://x.example/a.css">', "loads https://x.example"),
        ('<link rel="preload icon" href="http://x.example/f.woff2">', "loads http://x.example"),
        ('<img src="a.png">', "refers to a.png: there is no such file"),
        ('<img srcset="b.svg, c.svg 2x">', "refers to c.svg: there is no such file"),
        ('<img src="/b.svg">', "refers to /b.svg: not relative"),
        ('<img src="../b.svg">', "refers to ../b.svg: there is no such file"),
        ('<p style="background: url(https://x.example/b.png)">', "loads https://x.example"),
        ("<style>@import 'https://x.example/a.css';</style>", "loads https://x.example"),
        ('<iframe srcdoc="&lt;img src=https://x.example&gt;"></iframe>', "loads https://x.example"),
        ('<a href="gone.html">', "refers to gone.html: there is no such file"),
        ('<a href="more/page.html#gone">', "#gone: there is no such place"),
        ('<a href="#gone">', "#gone: there is no such place"),
    ],
)
def test_it_finds(tmp_path: Path, more: str, told: str) -> None:
    found = problems(built(tmp_path, **{"index.html": GOOD["index.html"] + more}))
    assert any(told in line for line in found), found


def test_it_finds_a_page_without_a_title(tmp_path: Path) -> None:
    assert problems(built(tmp_path, **{"more/page.html": '<title></title><p id="there">'})) == [
        "more/page.html has no title"
    ]


def test_it_finds_a_font_from_outside(tmp_path: Path) -> None:
    css = "@font-face { src: url(https://fonts.example.com/a.woff2) }"
    assert problems(built(tmp_path, **{"_static/a.css": css})) == [
        "_static/a.css loads https://fonts.example.com/a.woff2"
    ]


def test_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    assert len(problems(tmp_path)) == 1
