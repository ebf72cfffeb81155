"""Checkpoints of older versions are loaded bit for bit, and training goes on from them."""

import collections
import functools
import re
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from gradstable._src.core.find import find_all
from gradstable._src.rules.ring import Ring, held
from tests.persistence import golden
from tests.persistence.digest import digest

EXPECTED = golden.expected()


@functools.cache
def from_orbax() -> Any:
    return ocp.load(golden.FOLDER / "orbax")


def values(tree: Any) -> collections.Counter[tuple[str, bytes]]:
    arrays = golden.arrays_in(tree)
    return collections.Counter((f"{array.dtype}{array.shape}", array.tobytes()) for array in arrays)


def take_rings(saved: Any) -> list[np.ndarray]:
    """Take the rings of schema 1 out of a checkpoint; return what they held."""
    if not isinstance(saved, dict):
        return []
    rings = [name for name, part in saved.items() if isinstance(part, dict) and "values" in part]
    taken = [saved.pop(name) for name in sorted(rings)]
    here = [ring["values"][: ring["count"]] for ring in taken]
    return here + [held for name in saved for held in take_rings(saved[name])]


def test_every_run_has_a_checkpoint() -> None:
    assert EXPECTED.keys() == golden.RUNS.keys(), "python -m tests.persistence.golden"
    assert {path.stem for path in golden.FOLDER.glob("*.msgpack")} == golden.RUNS.keys()


@pytest.mark.parametrize("name", golden.RUNS)
def test_another_schema_is_named_with_the_remedy(name: str) -> None:
    old = EXPECTED[name]["schema"]
    told = re.escape(
        "Load it without a target, and pass the result to gradstable.checkpoints.upgrade_state"
    )
    with pytest.raises(ValueError, match=f"state schema {old['schema']}.*{told}"):
        gs.checkpoints.check_schema(golden.targets()[name], old)


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.parametrize("name", golden.RUNS)
def test_every_value_that_was_saved_is_there(name: str) -> None:
    saved = golden.load_msgpack(name)
    new = golden.upgraded(golden.RUNS[name], saved)
    rings = [ring for _, ring in find_all(new["opt_state"], Ring)]
    # Those of a later schema are empty.
    present = [np.asarray(ring.last_numbers[held(ring)]) for ring in rings if held(ring).any()]
    # Those in copies have no names.
    assert values(present) <= values(take_rings(saved))
    # The first spread of a history that had not begun, which is none now.
    unknown = ("float32()", np.float32(0.3).tobytes())
    assert {*(values(saved) - values(new))} <= {unknown}
    assert digest(new) == digest(golden.upgraded(golden.RUNS[name], from_orbax()[name]))
    gs.checkpoints.check_schema(golden.targets()[name], gs.checkpoints.state_schema(new))


@pytest.mark.parametrize("name", golden.RUNS)
def test_training_goes_on(name: str) -> None:
    run = golden.RUNS[name]
    saved = golden.upgraded(golden.RUNS[name], golden.load_msgpack(name))
    assert int(gs.health(saved["opt_state"]).rejected) == (name != "accumulate")
    updates, _ = golden.advance(run, saved, golden.LATER)
    rtol = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[run.dtype]
    # Muon's are newer than its checkpoint: its momentum is corrected for its bias since then.
    wanted = EXPECTED[name]["updates"]
    assert np.any(wanted[0])
    for actual, leaf in zip(golden.as_lists(updates), wanted, strict=True):
        np.testing.assert_allclose(actual, leaf, rtol=rtol, atol=1e-7)
