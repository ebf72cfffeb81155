"""What a user does right after installing: ``make wheel`` runs it on the wheel.

First without extras; then, with the argument ``demo``, with those of the extra of that name.
"""

import doctest
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

# Pages that need nothing but the wheel, and those that need the extra `demo`.
PAGES = ("README.md", "docs/quickstart.md", "docs/cheatsheet.md", "docs/report.md")
PAGES_OF_DEMO = ("docs/using/protect.md", "docs/using/nnx.md", "docs/using/linen.md")


def main() -> None:
    assert "site-packages" in Path(gs.__file__).parts, gs.__file__
    tx = gs.record(gs.guard(optax.adamw(1e-2)))
    params = {"kernel": jnp.ones(3)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    file = f"{tempfile.mkdtemp()}/run.jsonl"
    with gs.telemetry.Log(params, file) as log:
        for step in range(10):
            gradient = {"kernel": jnp.full(3, jnp.nan if step == 5 else 1.0)}
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            log(state)
    assert int(gs.health(state).rejected) == 1
    assert bool(jnp.isfinite(params["kernel"]).all())
    print(gs.explain(state, params))
    check_page_of_the_index()
    tells("--version", f"gradstable {gs.__version__}")
    tells("doctor", "10 steps recorded, 1 to 10", file)
    tells("autopsy", "--fn must be module:function", file, "--fn", "loss_fn")
    tells("replay", "--fn must be module:function", file, "--fn", "step")
    tells("report", "10 steps", file, "-o", f"{file}.html")
    for page in PAGES:
        check_page(page)
    tells("demo", "pip install 'gradstable[demo]'")
    tells("gauntlet", "it comes with gradstable-gauntlet")


def check_page(name: str) -> None:
    """Every example of a page of the documentation works."""
    path = Path(__file__).parents[1] / name
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testfile(str(path), module_relative=False, optionflags=flags)
    assert tried, name
    assert not failed, name
    print(f"{name}: {tried} examples")


def check_page_of_the_index() -> None:
    """The README in the metadata has no links into a repository that is not around it."""
    page = str(importlib.metadata.metadata("gradstable").get_payload())
    assert page.startswith("# gradstable"), page[:80]
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert targets, "no links at all"
    assert all(target.startswith("https://") for target in targets), targets
    assert "<!--" not in page


def tells(word: str, expected: str, *args: str) -> None:
    """Run a command of the package; it must say something."""
    command = [sys.executable, "-m", "gradstable", word, *args]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert expected in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr


def with_demo() -> None:
    for page in PAGES_OF_DEMO:
        check_page(page)
    folder = tempfile.mkdtemp()
    tells("demo", f"wrote {folder}/demo.html", "--steps", "30", "--out", folder)


if __name__ == "__main__":
    if sys.argv[1:] == ["demo"]:
        with_demo()
    else:
        main()
