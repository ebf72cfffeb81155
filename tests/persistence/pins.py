"""What every registered state is made of; ``python -m tests.persistence.pins`` adds new ones.

Checkpoints hold states, so a state that changes makes those that are there unreadable. The record
is only written anew where a state has changed if the version of the schema was raised.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import gradstable as gs
from gradstable._src.checkpoints.schema import SCHEMA
from tests.registry import cases

FILE = Path(__file__).parents[1] / "data" / "state_schemas.json"
PARAMS = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4, jnp.bfloat16)}
COMMAND = "python -m tests.persistence.pins"


def read(file: Path = FILE) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def states() -> dict[str, dict[str, str]]:
    """Return the leaves of every registered state, for the same parameters."""
    found = {}
    for case in cases():
        state = jax.eval_shape(case.tx.init, PARAMS)
        found[case.name] = gs.checkpoints.state_schema(state)["leaves"]
    return found


def write(file: Path = FILE, *, unreleased: bool = False) -> None:
    """Write the record; the version must have been raised where a state changed."""
    now = states()
    old = read(file) if file.exists() else {"schema": SCHEMA, "states": {}}
    changed = [name for name in now if now[name] != old["states"].get(name, now[name])]
    if changed and old["schema"] >= SCHEMA and not unreleased:
        raise SystemExit(
            f"these states have changed: {', '.join(changed)}. Raise SCHEMA in "
            "gradstable/_src/checkpoints/schema.py and say so in CHANGELOG.md under Changed; if no "
            f"release has had them, run {COMMAND} --unreleased"
        )
    text = json.dumps({"schema": SCHEMA, "states": now}, indent=1, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unreleased", action="store_true", help="no release has had the old ones")
    write(unreleased=parser.parse_args().unreleased)
