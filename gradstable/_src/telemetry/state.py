"""The recorder's part of the optimizer state: ring buffers that never change shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstable._src.core.equations import only_arrays
from gradstable._src.core.names import Unnamed, answers_as_inner, without_names
from gradstable._src.core.numerics import unknown, widest
from gradstable._src.core.paths import leaf_keys
from gradstable._src.core.sample import sample
from gradstable._src.core.select import own_arrays
from gradstable._src.telemetry.alarms import AlarmState, new_alarms
from gradstable._src.telemetry.fields import FIELDS, NUMBERS, PARTS


class SecondMoment(NamedTuple):
    """How far the second moment of the inner optimizer has filled up."""

    moment_weight: jax.Array  # shape=(), dtype=jnp.float32, sum of its weights; 0: unknown
    moment_decay: jax.Array  # shape=(), dtype=jnp.float32


@answers_as_inner
class RecordState(NamedTuple):
    """State of ``record``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    rows: jax.Array  # shape=(capacity, len(FIELDS)), dtype=jnp.float32
    leaf_rows: jax.Array  # shape=(capacity // leaf_every, L), dtype=jnp.float32
    part_rows: jax.Array  # shape=(capacity, len(PARTS)), dtype=jnp.int32, counted from 1; 0: none
    alarms: AlarmState
    second_moment: SecondMoment
    leaf_keys: jax.Array  # shape=(L,), dtype=jnp.int32, numeric keys of the paths of the parameters
    sampled_params: Unnamed  # a few entries of each parameter, before the last update
    wrapped_state: Any


def new_record(params: Any, inner_state: Any, *, capacity: int, leaf_every: int) -> RecordState:
    """Return the state before the first step."""
    arrays = jax.tree.map(jnp.asarray, only_arrays(params))
    # An empty tree has a column too: states have no arrays of size zero.
    keys, num_leaves, dtype = leaf_keys(arrays), len(jax.tree.leaves(arrays)), widest(arrays)
    return RecordState(
        calls=jnp.zeros((), jnp.int32),
        rows=jnp.zeros((capacity, len(FIELDS)), dtype),
        leaf_rows=jnp.zeros((capacity // leaf_every, max(num_leaves, 1)), dtype),
        part_rows=jnp.zeros((capacity, len(PARTS)), jnp.int32),
        alarms=new_alarms(num_leaves),
        second_moment=SecondMoment(
            moment_weight=jnp.zeros((), jnp.float32), moment_decay=jnp.zeros((), jnp.float32)
        ),
        leaf_keys=jnp.asarray(keys if num_leaves else [0], jnp.int32),
        sampled_params=own_arrays(without_names(sample(arrays), arrays)),
        wrapped_state=inner_state,
    )


def pack(row: Mapping[str, jax.Array | None], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Return a row of the ring from numbers in the order of the fields; ``None`` means unknown."""
    known = sum(1 << bit for bit, name in enumerate(NUMBERS) if row.get(name) is not None)
    values = {**row, "known": jnp.asarray(known)}
    columns = [values.get(name) for name in FIELDS]
    return jnp.stack([jnp.asarray(unknown() if one is None else one, dtype) for one in columns])


def put(ring: jax.Array, row: jax.Array, *, at: jax.Array) -> jax.Array:
    """Return the ring with the row of the step that follows ``at`` steps."""
    return ring.at[at % ring.shape[0]].set(row)


def put_every(ring: jax.Array, row: jax.Array, *, at: jax.Array, every: int) -> jax.Array:
    """Do the same, but only for every ``every``-th step, starting with the first."""
    index = (at // every) % ring.shape[0]
    # An empty tree has a column too: states have no arrays of size zero.
    wide = jnp.zeros((ring.shape[1],), ring.dtype).at[: row.shape[0]].set(row.astype(ring.dtype))
    return ring.at[index].set(jnp.where(at % every == 0, wide, ring[index]))
