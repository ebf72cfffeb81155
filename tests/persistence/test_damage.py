"""What is left of a damaged checkpoint is not loaded, but for one kind of damage: a flipped bit."""

import gc
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from tests.persistence.digest import digest

# Orbax leaves coroutines behind where it raises, and the tasks that would have awaited them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def state(step: int) -> Any:
    random = np.random.default_rng(step).normal(size=(64, 16))
    params = {"w": jnp.asarray(random, jnp.float32), "b": jnp.full(16, step, jnp.float32)}
    opt_state: Any = gs.guard(optax.adamw(1e-3)).init(params)
    # Moments that cannot be compressed, so that they are most of the file.
    adam = opt_state.inner_state[0]._replace(nu=jax.tree.map(jnp.square, params))
    return {
        "params": params,
        "opt_state": opt_state._replace(wrapped_state=(adam, *opt_state[2][1:])),
    }


def iterator(step: int) -> Any:
    data = iter(grain.MapDataset.range(100).to_iter_dataset())
    data.set_state({"next_index": step})
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ocp.training.Checkpointer(tmp_path / "run") as checkpointer:
        for step in (1, 2):
            parts = {"state": state(step), "data": iterator(step)}
            metadata = {"sha256": digest(state(step))}
            checkpointer.save_checkpointables(step, parts, custom_metadata=metadata)
    return tmp_path / "run"


def load(folder: Path, step: int) -> tuple[Any, int]:
    data = iterator(0)
    with ocp.training.Checkpointer(folder) as checkpointer:
        parts = {"state": state(0), "data": data}
        loaded = checkpointer.load_checkpointables(step, parts)["state"]
    return loaded, data.get_state()["next_index"]


def arrays(checkpoint: Path) -> Path:
    """Return the file in which the arrays are."""
    return max((checkpoint / "state" / "ocdbt.process_0" / "d").iterdir(), key=size)


def size(path: Path) -> int:
    return path.stat().st_size


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: size(path) // 2])


DAMAGE = {
    "arrays cut": lambda checkpoint: cut(arrays(checkpoint)),
    "arrays gone": lambda checkpoint: arrays(checkpoint).unlink(),
    "index cut": lambda checkpoint: cut(checkpoint / "state" / "manifest.ocdbt"),
    "index gone": lambda checkpoint: (checkpoint / "state" / "manifest.ocdbt").unlink(),
    "tree cut": lambda checkpoint: cut(checkpoint / "state" / "_METADATA"),
    "tree gone": lambda checkpoint: (checkpoint / "state" / "_METADATA").unlink(),
    "place cut": lambda checkpoint: cut(checkpoint / "data" / "process_0-of-1.json"),
    "place gone": lambda checkpoint: (checkpoint / "data" / "process_0-of-1.json").unlink(),
}


def test_whole_checkpoints_are_loaded(folder: Path) -> None:
    for step in (1, 2):
        loaded, place = load(folder, step)
        assert (digest(loaded), place) == (digest(state(step)), step)


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_an_error_and_the_one_before_is_loaded(what: str, folder: Path) -> None:
    DAMAGE[what](folder / "2")
    with pytest.raises(Exception, match=r".") as raised:  # of many kinds, some without a type
        load(folder, 2)
    assert not isinstance(raised.value, AssertionError)
    del raised
    gc.collect()
    loaded, place = load(folder, 1)
    assert (digest(loaded), place) == (digest(state(1)), 1)


def test_flipped_bits_are_not_always_noticed_but_by_a_digest(folder: Path) -> None:
    """Orbax keeps no checksum of the arrays: docs/using/orbax.md says what to do."""
    file = arrays(folder / "2")
    sound = file.read_bytes()
    with ocp.training.Checkpointer(folder) as checkpointer:
        saved = checkpointer.metadata(2).custom_metadata["sha256"]
    assert saved == digest(state(2))
    passed = 0
    for place in range(0, len(sound), len(sound) // 16):
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        try:
            loaded, _ = load(folder, 2)
        except Exception:
            continue
        passed += digest(loaded) != saved
    gc.collect()
    assert passed
