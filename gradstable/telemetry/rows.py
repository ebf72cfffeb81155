"""From the ring buffers on the device to rows on the host, in one transfer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstable._core.find import find_all
from gradstable.telemetry.fields import FIELDS, INTEGERS, NUMBERS
from gradstable.telemetry.state import RecordState


class Rows(NamedTuple):
    """The steps that were recorded since the last reading.

    Attributes:
      steps: one dictionary a step, oldest first: ``step``, the names of the columns that are
        known, and on some steps ``leaf_norms``.
      lost: first and last of the steps that were overwritten before they were read, or ``None``.
      count: how many steps there have been; pass it as ``since`` the next time.
    """

    steps: Sequence[Mapping[str, Any]]
    lost: tuple[int, int] | None
    count: int


def read_rows(opt_state: object, *, since: int = 0) -> Rows:
    """Return what ``gs.record`` has recorded; waits for the step and fetches all at once.

    Mostly you will want ``gs.telemetry.Log``, which calls this every few steps.

    Args:
      opt_state: an optimizer state with one recorder in it, also of ``flax.nnx.Optimizer`` or
        ``TrainState``.
      since: the steps that are known already, >= 0.

    Returns:
      ``Rows``; at most ``capacity`` steps of them.

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
    state = find_record(opt_state)
    # Only these are fetched: the state of the inner optimizer stays where it is.
    count, rows, leaf_rows = jax.device_get((state.calls, state.rows, state.leaf_rows))
    count, capacity = int(count), rows.shape[0]
    first = max(since, count - capacity) + 1
    every, num_leaves = capacity // leaf_rows.shape[0], state.alarms.steps_seen.shape[0] - 1
    steps: list[dict[str, Any]] = []
    for step in range(first, count + 1):
        row = _named(step, rows[(step - 1) % capacity])
        if (step - 1) % every == 0:
            norms = leaf_rows[(step - 1) // every % leaf_rows.shape[0], :num_leaves]
            row["leaf_norms"] = [_short(norm) for norm in norms]
        steps.append(row)
    return Rows(steps, (since + 1, first - 1) if first > since + 1 else None, count)


def find_record(opt_state: object) -> RecordState:
    """Return the state of the one recorder; raises if there is none, or more than one."""
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
            named[name] = _short(values[name])
    return named | {name: int(values[name]) for name in INTEGERS}


def _short(number: np.floating[Any]) -> float:
    # As many digits as float32 holds, not the tail that a float64 would show.
    return float(str(number))
