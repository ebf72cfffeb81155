"""Each program prints what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
NAMES = ("masked_log", "half_softmax", "bad_shard", "custom_norm", "flipped_bit")
ALL = """
import importlib
for name in {names}:
    print("##", name)
    importlib.import_module("examples.broken_programs." + name).main()
"""


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """Run all programs in one process of their own, with eight devices."""
    done = subprocess.run(
        [sys.executable, "-c", ALL.format(names=NAMES)],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    shortened = done.stdout.replace(f"{ROOT}{os.sep}", "")
    parts = re.split(r"^## (\w+)\n", shortened, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_the_page_says(name: str, printed: dict[str, str]) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    command = rf"\$ \.venv/bin/python -m examples\.broken_programs\.{name}\n"
    (shown,) = re.findall(rf"```console\n{command}(.*?)```", page, flags=re.DOTALL)
    assert printed[name] == shown
