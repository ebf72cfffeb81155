"""The notes of a release: ``python -m tests.notes v0.2.0`` prints its section of the changelog.

It fails if the tag is not the version of this checkout, or if the section has no date yet.
"""

import datetime as dt
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str, *, version: str, changelog: str) -> str:
    """Return the text of the newest section of a changelog.

    Raises:
      ValueError: if it is not that of this version, or not dated.
    """
    if tag != f"v{version}":
        msg = f"the tag is {tag}, but pyproject.toml has version {version}"
        raise ValueError(msg)
    found = re.search(
        r"^## \[(.+?)\] - (.+?)\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE
    )
    if found is None or found[1] != version:
        msg = f"the newest section of CHANGELOG.md must be that of {version}"
        raise ValueError(msg)
    dt.date.fromisoformat(found[2])
    return found[3].strip() + "\n"


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sys.stdout.write(notes(sys.argv[1], version=project["version"], changelog=text))
