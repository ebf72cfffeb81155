"""Checkpoints of older versions are loaded bit for bit, and training goes on from them."""

import collections
import functools
import re
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from tests.persistence import golden
from tests.persistence.digest import digest

EXPECTED = golden.expected()


@functools.cache
def from_orbax() -> Any:
    return ocp.load(golden.FOLDER / "orbax")


def values(tree: Any) -> collections.Counter[tuple[str, bytes]]:
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return collections.Counter((f"{array.dtype}{array.shape}", array.tobytes()) for array in arrays)


def test_every_run_has_a_checkpoint() -> None:
    assert EXPECTED.keys() == golden.RUNS.keys(), "python -m tests.persistence.golden"
    assert {path.stem for path in golden.FOLDER.glob("*.msgpack")} == golden.RUNS.keys()


@pytest.mark.parametrize("name", golden.RUNS)
def test_another_schema_is_named_with_the_remedy(name: str) -> None:
    old = EXPECTED[name]["schema"]
    told = re.escape("Load it without a target, and pass what comes to gradstable.upgrade_state")
    with pytest.raises(ValueError, match=f"state schema {old['schema']}.*{told}"):
        gs.check_schema(old, golden.targets()[name])


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.parametrize("name", golden.RUNS)
def test_every_value_that_was_saved_is_there(name: str) -> None:
    saved = golden.load_msgpack(name)
    new = golden.upgraded(name, saved)
    assert not values(saved) - values(new)
    assert digest(new) == digest(golden.upgraded(name, from_orbax()[name]))
    gs.check_schema(gs.state_schema(new), golden.targets()[name])


@pytest.mark.parametrize("name", golden.RUNS)
def test_training_goes_on(name: str) -> None:
    run = golden.RUNS[name]
    saved = golden.upgraded(name, golden.load_msgpack(name))
    assert int(gs.health(saved["opt_state"]).rejected) == (name != "accumulate")
    updates, _ = golden.advance(run, saved, golden.LATER)
    rtol = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[run.dtype]
    wanted = EXPECTED[name]["updates"]
    assert np.any(wanted[0])
    for actual, leaf in zip(golden.as_lists(updates), wanted, strict=True):
        np.testing.assert_allclose(actual, leaf, rtol=rtol, atol=1e-7)
