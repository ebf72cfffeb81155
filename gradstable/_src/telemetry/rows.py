"""Fetch rows from the ring buffers on the device to the host in one transfer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from gradstable._src.core.find import find_all
from gradstable._src.core.names import named_again
from gradstable._src.taps.summary import short
from gradstable._src.telemetry.fields import FIELDS, INTEGERS, NUMBERS, PARTS
from gradstable._src.telemetry.state import RecordState
from gradstable._src.telemetry.tap_ring import TapRingState

# Which of several runs, by its index along each axis; () for a single run.
Member: TypeAlias = tuple[int, ...]


class Rows(NamedTuple):
    """The steps recorded since the last reading.

    Attributes:
      steps: one dictionary per step, oldest first: ``step``, the columns that are known, and on
        some steps ``leaf_norms`` and ``taps``, lists of numbers by name. If the state holds several
        runs (``vmap``, ``pmap``) that differ, they follow one another, and ``member`` is the index
        of each.
      lost: the first and last step that were overwritten before they were read, or ``None``.
      count: the number of steps so far; pass it as ``since`` the next time.
    """

    steps: Sequence[Mapping[str, Any]]
    lost: tuple[int, int] | None
    count: int


def read_rows(opt_state: object, *, since: int = 0) -> Rows:
    """Return what ``gs.record`` has recorded; waits for the step and fetches it in one transfer.

    Usually you want ``gs.telemetry.Log``, which reads every few steps.

    Args:
      opt_state: an optimizer state that contains one recorder; a ``flax.nnx.Optimizer`` or a
        ``TrainState`` works too.
      since: the number of steps already known, >= 0.

    Returns:
      ``Rows``; at most ``capacity`` steps of each run.

    Raises:
      ValueError: if there is no recorder in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.record(optax.sgd(0.1))
      >>> params = jnp.ones(2)
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> gs.telemetry.read_rows(state).steps[0]["grad_norm"]
      5.0
    """
    found = read_members(opt_state, since={}, start=since)
    steps = [row for rows in found.values() for row in rows.steps]
    lost = next((rows.lost for rows in found.values() if rows.lost), None)
    return Rows(steps, lost, max((rows.count for rows in found.values()), default=0))


def read_members(
    opt_state: object, *, since: Mapping[Member, int], start: int = 0, apart: bool = False
) -> dict[Member, Rows]:
    """Return what was recorded for each run; a single run, or equal replicas, have the key ``()``.

    Args:
      opt_state: as for ``read_rows``.
      since: the number of steps already known for each member.
      start: the same for all members not listed.
      apart: whether to keep equal members apart, because they differed before.
    """
    state = find_record(opt_state)
    # Only these are fetched: the state of the inner optimizer stays on the device.
    wanted = (state.calls, state.rows, state.part_rows, state.leaf_rows, *_taps_of(state))
    count, *others = jax.device_get(wanted)
    rings = (np.asarray(count), *others)
    names = _names_of_taps(state)
    num_leaves = state.alarms.steps_seen.shape[-1] - 1
    members: list[Member] = list(np.ndindex(rings[0].shape))
    if not apart and all(_alike(ring, rings[0].ndim) for ring in rings):
        first = tuple(ring[members[0]] for ring in rings)
        return {(): _rows(first, num_leaves, names, since=since.get((), start))}
    found: dict[Member, Rows] = {}
    for member in members:
        known = since.get(member, since.get((), start))
        here = _rows(tuple(ring[member] for ring in rings), num_leaves, names, since=known)
        found[member] = here._replace(steps=[{**row, "member": member} for row in here.steps])
    return found


def _alike(ring: np.ndarray, axes: int) -> bool:
    each = ring.reshape(-1, *ring.shape[axes:])
    return bool(np.array_equal(each, np.broadcast_to(each[:1], each.shape), equal_nan=True))


def _taps_of(state: RecordState) -> list[jax.Array]:
    """Return the steps of the rows of taps, and the ring of each tap; nothing if none is kept."""
    kept = state.wrapped_state
    if not isinstance(kept, TapRingState):
        return []
    return [kept.row_calls, *jax.tree.leaves(kept.tap_rows)]


def _names_of_taps(state: RecordState) -> list[str]:
    kept = state.wrapped_state
    return sorted(named_again(kept.tap_rows)) if isinstance(kept, TapRingState) else []


def _rows(
    rings: tuple[np.ndarray, ...], num_leaves: int, names: Sequence[str], *, since: int
) -> Rows:
    count, rows, part_rows, leaf_rows, *tap_rings = rings
    count, capacity = int(count), rows.shape[0]
    first = max(since, count - capacity) + 1
    every = capacity // leaf_rows.shape[0]
    steps: list[dict[str, Any]] = []
    for step in range(first, count + 1):
        place = (step - 1) % capacity
        parts = zip(PARTS, (part_rows[place] - 1).tolist(), strict=True)
        row = _named(step, rows[place]) | dict(parts)
        if (step - 1) % every == 0:
            norms = leaf_rows[(step - 1) // every % leaf_rows.shape[0], :num_leaves]
            row["leaf_norms"] = list(map(short, norms))
        steps.append(row)
    if tap_rings:
        _add_taps(steps, tap_rings[0], dict(zip(names, tap_rings[1:], strict=True)))
    return Rows(steps, (since + 1, first - 1) if first > since + 1 else None, count)


def _add_taps(steps: list[dict[str, Any]], at: np.ndarray, rings: Mapping[str, np.ndarray]) -> None:
    """Give each step the rows of taps that were kept there."""
    places = {int(step): place for place, step in enumerate(at)}
    for row in steps:
        if row["step"] not in places:
            continue
        row["taps"] = {}
        for name, ring in rings.items():
            here = ring[places[row["step"]]]
            labels = [name] if here.ndim == 1 else [f"{name}/{at}" for at in range(len(here))]
            for label, numbers in zip(labels, here.reshape(-1, here.shape[-1]), strict=True):
                row["taps"][label] = list(map(short, numbers))


def find_record(opt_state: object) -> RecordState:
    """Return the state of the only recorder; raises if there is none, or more than one."""
    found = find_all(opt_state, RecordState)
    if len(found) == 1:
        return found[0][1]
    places = "".join(f" opt_state{path}" for path, _ in found)
    msg = (
        f"{len(found)} recorders found in this optimizer state{places and ':'}{places}: wrap the "
        "whole optimizer once, as in gradstable.record(gradstable.guard(optax.adamw(3e-4)))"
    )
    raise ValueError(msg)


def _named(step: int, row: np.ndarray) -> dict[str, Any]:
    values = dict(zip(FIELDS, row, strict=True))
    known = int(values["known"])
    named: dict[str, Any] = {"step": step}
    for bit, name in enumerate(NUMBERS):
        if known >> bit & 1:
            named[name] = short(values[name])
    return named | {name: int(values[name]) for name in INTEGERS}
