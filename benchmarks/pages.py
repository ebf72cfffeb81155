"""Pages of the documentation that a benchmark writes."""

from collections.abc import Sequence
from pathlib import Path


def write_page(
    path: Path, heading: str, program: str | None, about: str, lines: Sequence[str]
) -> None:
    """Write a page: its heading, what the program says of itself, on what it ran, the results."""
    page = [f"# {heading}", "", (program or "").strip(), "", about, "", *lines, ""]
    path.write_text("\n".join(page), encoding="utf-8")
