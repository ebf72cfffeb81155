"""Checkpoints of older schemas, made by the code of their time.

In schema 2, the rule of a guard did not know what keeps coming back; in schema 3, a rollback did
not know how high the loss had been; in schema 4, only the default rule knew what keeps coming back;
in schema 5, kahan did not count its additions; in schema 6, nothing knew which micro-batch or
device stood out; in schema 7, each copy of a rollback had arrays of its own.
"""

import json
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.find import find_all
from gradstable._src.recovery.level import Level
from gradstable._src.recovery.turn import RollbackState
from tests.persistence import golden

DATA = Path(__file__).parents[1] / "data"
UPDATES = {
    schema: json.loads((DATA / f"checkpoints_{schema}/updates.json").read_text(encoding="utf-8"))
    for schema in (2, 3, 4, 5, 6, 7)
}
RUNS = golden.RUNS | {
    "guard_loss": golden.Run(
        gs.guard(
            optax.adam(1e-2), gs.rules.loss_spike(warmup_steps=2), gs.rules.ema_multiple(start=None)
        )
    ),
    "rollback_on_its_way": golden.Run(
        gs.rollback(gs.guard(optax.adam(1e-2)), every=1, patience=1, rejections=1, copies=3)
    ),
}


def saved_in(schema: int, name: str) -> Any:
    file = DATA / f"checkpoints_{schema}" / f"{name}.msgpack"
    return flax.serialization.msgpack_restore(file.read_bytes())


@pytest.mark.parametrize(
    ("schema", "name"), [(schema, name) for schema, runs in UPDATES.items() for name in runs]
)
def test_every_value_is_there_and_training_goes_on(schema: int, name: str) -> None:
    saved = saved_in(schema, name)
    new = golden.upgraded(RUNS[name], saved)
    # Numbers of this period and of the one before were in one array.
    pairs = [np.stack(pair) for _, level in find_all(new, Level) for pair in level[-3:-1]]
    here = {leaf.tobytes() for leaf in [*golden.arrays_in(new), *pairs]}
    assert {np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(saved)} <= here
    updates, _ = golden.advance(RUNS[name], new, golden.LATER)
    for actual, wanted in zip(golden.as_lists(updates), UPDATES[schema][name], strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-7)


def test_levels_of_the_copies_of_schema_3_are_learned_anew() -> None:
    new = golden.upgraded(RUNS["rollback"], saved_in(3, "rollback"))
    for _ in range(7):
        _, new = golden.advance(RUNS["rollback"], new, golden.LATER)
    ((_, state),) = find_all(new["opt_state"], RollbackState)
    assert int(state.undone) == 0
    assert all(float(copy.loss_level) > 0 for copy in state.snapshots.copies)
