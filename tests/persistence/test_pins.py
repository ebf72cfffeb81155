"""No state changes unnoticed, since checkpoints hold them."""

import json
from pathlib import Path

import pytest

from gradstable._src.checkpoints import schema
from tests.persistence import pins


def test_every_state_is_what_it_was() -> None:
    old, now = pins.read(), pins.states()
    assert old["schema"] == schema.SCHEMA
    changed = [name for name in old["states"] if now.get(name) != old["states"][name]]
    assert not changed, f"{changed} changed or gone: see {pins.COMMAND}"
    assert not now.keys() - old["states"].keys(), f"put new states on record: {pins.COMMAND}"


def test_changed_state_needs_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pins.json"
    old = pins.read()
    old["states"]["guard(adamw)"] = {".count": "int32[]"}
    del old["states"]["kahan(adamw)"]
    file.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"have changed: guard\(adamw\)\. Raise SCHEMA"):
        pins.write(file)
    assert pins.read(file) == old
    monkeypatch.setattr(pins, "SCHEMA", schema.SCHEMA + 1)
    pins.write(file)
    assert pins.read(file) == {"schema": schema.SCHEMA + 1, "states": pins.states()}


def test_new_state_needs_none(tmp_path: Path) -> None:
    file = tmp_path / "pins.json"
    old = pins.read()
    del old["states"]["guard(adamw)"]
    file.write_text(json.dumps(old), encoding="utf-8")
    pins.write(file)
    assert pins.read(file)["states"] == pins.states()
