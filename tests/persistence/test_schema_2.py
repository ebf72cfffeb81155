"""Checkpoints of schema 2, in which the rule of a guard did not know what keeps coming back."""

import json
from pathlib import Path

import flax.serialization
import jax
import numpy as np
import pytest

from tests.persistence import golden

FOLDER = Path(__file__).parents[1] / "data" / "checkpoints_2"
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
