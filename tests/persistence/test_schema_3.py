"""Checkpoints of schema 3, in which a rollback did not know how high the loss had been."""

import json
from pathlib import Path

import flax.serialization
import jax
import numpy as np
import pytest

from gradstable._src.core.find import find_all
from gradstable._src.recovery.turn import RollbackState
from tests.persistence import golden

FOLDER = Path(__file__).parents[1] / "data" / "checkpoints_3"
UPDATES = json.loads((FOLDER / "updates.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", UPDATES)
def test_every_value_is_there_and_training_goes_on(name: str) -> None:
    saved = flax.serialization.msgpack_restore((FOLDER / f"{name}.msgpack").read_bytes())
    new = golden.upgraded(name, saved)
    here = {np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(new)}
    assert {np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(saved)} <= here
    updates, _ = golden.advance(golden.RUNS[name], new, golden.LATER)
    for actual, wanted in zip(golden.as_lists(updates), UPDATES[name], strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-7)


def test_levels_of_its_copies_are_learned_anew() -> None:
    saved = flax.serialization.msgpack_restore((FOLDER / "rollback.msgpack").read_bytes())
    new = golden.upgraded("rollback", saved)
    for _ in range(7):
        _, new = golden.advance(golden.RUNS["rollback"], new, golden.LATER)
    ((_, state),) = find_all(new["opt_state"], RollbackState)
    assert int(state.undone) == 0
    assert all(float(copy.loss_level) > 0 for copy in state.snapshots)
