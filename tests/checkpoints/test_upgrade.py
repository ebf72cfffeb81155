"""States of schema 1, whose fields had other names, are read leaf by leaf."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.checkpoints.upgrade import _ADDED
from gradstable._src.testing.compare import require_same_bits
from tests.persistence import golden
from tests.persistence.pins import PARAMS
from tests.registry import cases

OLD = json.loads(
    (Path(__file__).parents[1] / "data" / "state_schemas_1.json").read_text(encoding="utf-8")
)["states"]
# As they were registered with schema 1, where that has changed.
THEN = {
    "adamw(all options)": gs.adamw(
        optax.linear_schedule(1e-2, 1e-3, 10),
        mu_dtype=jnp.bfloat16,
        weight_decay=0.1,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
        rules=(gs.rules.global_norm(1.0),),
    ),
    "rmsprop": gs.rmsprop(1e-3, momentum=0.9),
    "scale_by_laprop": gs.moments.scale_by_laprop(mu_dtype=jnp.bfloat16, nu_dtype=jnp.float16),
    "scale_by_rms": gs.moments.scale_by_rms(centered=True),
    "sgd": gs.sgd(1e-2, momentum=0.9, nesterov=True),
}
TRANSFORMS: dict[str, Any] = {case.name: case.tx for case in cases()} | THEN
_KEY = re.compile(r"\.(\w+)|\[(\d+)\]|\['([^']+)'\]")


def saved(leaves: dict[str, str]) -> tuple[Any, list[bytes]]:
    """Return a state of schema 1 as dictionaries, each leaf with a number of its own."""
    root: dict[str, Any] = {}
    numbers = []
    for number, (path, told) in enumerate(leaves.items()):
        match = re.fullmatch(r"(\w+)\[([\d,]*)\]", told)
        if not match:
            continue  # a place without leaves
        shape = tuple(int(size) for size in match[2].split(",") if size)
        dtype = jnp.dtype(match[1])
        if path.endswith("count") and f"{path.removesuffix('count')}values" in leaves:
            array = np.full(shape, 2**30, dtype)  # a full ring, whose numbers are not counted now
        else:
            array = np.full(shape, number % 2 if match[1] == "bool" else number, dtype)
            numbers.append(array.tobytes())
        node = root
        keys = ["".join(key) for key in _KEY.findall(path)]
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        if not keys:
            return array, numbers
        node[keys[-1]] = array
    return root, numbers


@pytest.mark.parametrize("name", OLD)
def test_every_leaf_of_every_state_finds_its_place(name: str) -> None:
    state, numbers = saved(OLD[name])
    new = gs.checkpoints.upgrade_state(state, TRANSFORMS[name], params=PARAMS)
    there = Counter(leaf.tobytes() for leaf in golden.arrays_in(new))
    assert not Counter(numbers) - there
    # What was not there at all; in the copies of a rollback it has no name.
    added = {
        np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(new)
        if _ADDED & {getattr(key, "name", None) for key in path}
    }
    assert {*(there - Counter(numbers))} <= added


@pytest.mark.parametrize("kept", [0, 1])
def test_a_group_of_micro_batches_goes_on(kept: int) -> None:
    """Schema 1 knew no weights: all were 1."""
    tx = gs.accumulate(optax.sgd(1.0), 2)
    fresh = tx.init(jnp.zeros(2))
    dropped = fresh.dropped._asdict()
    old = {
        "count": jnp.int32(3),
        "position": jnp.int32(1),
        "kept": jnp.int32(kept),
        "emitted": jnp.int32(1),
        "dropped": {"by_reason": dropped["by_reason"], "last": dropped["last_dropped"]},
        "total": jnp.full(2, 6.0 * kept, jnp.float32),
        "value": jnp.float32(0.0),
        "rule_state": {},
        "inner_state": {},
    }
    state: Any = gs.checkpoints.upgrade_state(old, tx, params=jnp.zeros(2))
    assert (int(state.kept), float(state.mass), float(state.unit)) == (kept, kept, kept)
    updates, state = tx.update(jnp.full(2, 2.0), state)
    assert np.asarray(updates).tolist() == ([-4.0, -4.0] if kept else [-2.0, -2.0])
    assert bool(gs.has_updated(state))


def test_names_of_leaves_are_unknown_until_the_next_rejection() -> None:
    name = "guard(adamw)"
    old, _ = saved(OLD[name])
    new = gs.checkpoints.upgrade_state(old, TRANSFORMS[name], params=PARAMS)
    assert "its name was not recorded" in gs.explain(new, PARAMS)


def test_leaves_of_a_record_are_named_by_the_parameters() -> None:
    name = "record(guard(adamw))"
    old, _ = saved(OLD[name])
    new: Any = gs.checkpoints.upgrade_state(old, TRANSFORMS[name], params=PARAMS)
    assert new.leaf_keys.tolist() == TRANSFORMS[name].init(PARAMS).leaf_keys.tolist()


def test_values_are_under_their_new_names() -> None:
    name = "rollback(adamw)"
    old, _ = saved(OLD[name])
    new: Any = gs.checkpoints.upgrade_state(old, TRANSFORMS[name], params=PARAMS)
    was, now = old["inner_state"]["ledger"], new.wrapped_state.ledger
    for field, value in gs.health(new)._asdict().items():
        assert value == was["health"][field], field
    assert now.last_rejection.norm_limit == was["last_rejection"]["threshold"]
    assert new.calls == old["count"]
    assert new.rule_state[0].loss_spread == old["rule_state"]["0"]["spread"]
    assert new.rule_state[0].first_losses.next_place == old["rule_state"]["0"]["first"]["position"]
    copy = old["snapshots"]["1"]
    assert new.snapshots.copies[1].taken_at == copy["count"]
    kept = jax.tree.map(lambda stack: stack[1], new.snapshots._replace(copies=()))
    np.testing.assert_array_equal(kept.kept_params.unnamed["~kernel"], copy["params"]["kernel"])
    mu = kept.kept_state.unnamed[2][0][1]["~kernel"]
    np.testing.assert_array_equal(mu, copy["inner_state"]["inner_state"]["0"]["mu"]["kernel"])


class Pair(NamedTuple):
    """Parameters with names of another kind."""

    b: Any
    a: Any


def test_this_schema_and_any_parameters_are_read_too() -> None:
    params = Pair(jnp.ones(2), {"x": [jnp.zeros(3), {"y": jnp.ones(())}]})
    tx = gs.precision.kahan(gs.rollback(gs.guard(optax.adam(1e-3)), dtype=jnp.bfloat16))
    state = jax.tree.map(lambda leaf: (leaf + 1).astype(leaf.dtype), tx.init(params))
    data = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
    again = gs.checkpoints.upgrade_state(data, tx, params=params)
    require_same_bits(again, state, name="state", when="read back")


def test_what_is_missing_or_of_another_type_is_named() -> None:
    tx = gs.guard(optax.adam(1e-3))
    old, _ = saved(OLD["guard(adamw)"])
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    told = (
        r"float32\[3,4\] where bfloat16\[3,4\] is expected, at \.wrapped_state\[0\]\.mu\['kernel'\]"
    )
    with pytest.raises(ValueError, match=told):
        gs.checkpoints.upgrade_state(old, tx, params=half)
    del old["ledger"]["health"]["count"]
    with pytest.raises(ValueError, match=r"nothing was saved at saved\.ledger\.calls, where"):
        gs.checkpoints.upgrade_state(old, tx, params=PARAMS)
