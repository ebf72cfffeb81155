"""The page names the versions that are locked, and says of every other row that it was not run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "using" / "frameworks.md"
LOCK = ROOT / "requirements" / "frameworks.txt"
# What the page calls by a name that is not that of the distribution.
NAMES = {"Keras 3 on JAX": "keras"}


def test_versions_are_those_of_the_lock() -> None:
    pins = set(re.findall(r"^([\w.-]+)==([\w.]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    rows = re.findall(r"^\| \[(.+?)\]\(\S+?\) \| (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 15
    tried = [(name, told) for name, told in rows if told != "read, not run"]
    assert len(tried) >= 13
    for name, told in tried:
        *distribution, version = told.split()
        package = distribution[0] if distribution else NAMES.get(name, name.lower())
        assert (package, version) in pins, f"{name}: {package} {version}"


def test_the_lock_agrees_with_that_of_the_project() -> None:
    def pins(text: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
            found.setdefault(name, set()).add(version)
        return found

    project = pins((LOCK.parent / "dev.txt").read_text(encoding="utf-8"))
    ours = pins(LOCK.read_text(encoding="utf-8"))
    shared = ours.keys() & project.keys()
    assert {"jax", "jaxlib", "optax", "flax", "pytest"} <= shared
    assert {name: ours[name] for name in shared} == {name: project[name] for name in shared}
