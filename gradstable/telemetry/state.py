"""What the recorder keeps in the optimizer state: ring buffers that never change their shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._core.select import own_arrays
from gradstable.telemetry.alarms import AlarmState, new_alarms
from gradstable.telemetry.fields import FIELDS, NUMBERS
from gradstable.telemetry.places import arrays_of
from gradstable.telemetry.sample import sample


class SecondMoment(NamedTuple):
    """How much of the second moment of the inner optimizer is there yet."""

    weight: jax.Array  # shape=(), dtype=jnp.float32, sum of its weights; 0: not known
    b2: jax.Array  # shape=(), dtype=jnp.float32


class RecordState(NamedTuple):
    """State of ``record``."""

    count: jax.Array  # shape=(), dtype=jnp.int32
    rows: jax.Array  # shape=(capacity, len(FIELDS)), dtype=jnp.float32
    leaf_rows: jax.Array  # shape=(capacity // leaf_every, L), dtype=jnp.float32
    alarms: AlarmState
    second_moment: SecondMoment
    sampled_params: Any  # a few entries of each parameter, before the last update
    inner_state: Any


def new_record(params: Any, inner_state: Any, *, capacity: int, leaf_every: int) -> RecordState:
    """Return the state before the first step."""
    arrays = arrays_of(params)
    num_leaves = len(jax.tree.leaves(arrays))
    return RecordState(
        count=jnp.zeros((), jnp.int32),
        rows=jnp.zeros((capacity, len(FIELDS)), jnp.float32),
        leaf_rows=jnp.zeros((capacity // leaf_every, max(num_leaves, 1)), jnp.float32),
        alarms=new_alarms(num_leaves),
        second_moment=SecondMoment(
            weight=jnp.zeros((), jnp.float32), b2=jnp.zeros((), jnp.float32)
        ),
        sampled_params=own_arrays(sample(jax.tree.map(jnp.asarray, arrays))),
        inner_state=inner_state,
    )


def pack(row: Mapping[str, jax.Array | None]) -> jax.Array:
    """Return a row of the ring: float32 in the order of the fields, ``None`` for not known."""
    known = sum(1 << bit for bit, name in enumerate(NUMBERS) if row.get(name) is not None)
    values = {**row, "known": jnp.asarray(known)}
    columns = [values.get(name) for name in FIELDS]
    return jnp.stack([jnp.asarray(jnp.nan if one is None else one, jnp.float32) for one in columns])


def put(ring: jax.Array, row: jax.Array, *, at: jax.Array) -> jax.Array:
    """Return the ring with the row of the step that comes after ``at`` steps."""
    return ring.at[at % ring.shape[0]].set(row)


def put_every(ring: jax.Array, row: jax.Array, *, at: jax.Array, every: int) -> jax.Array:
    """Do the same for each ``every``-th step only, beginning with the first."""
    index = (at // every) % ring.shape[0]
    # An empty tree has a column too: states have no arrays of size zero.
    wide = jnp.zeros((ring.shape[1],), jnp.float32).at[: row.shape[0]].set(row)
    return ring.at[index].set(jnp.where(at % every == 0, wide, ring[index]))
