"""One number for one step: a call of the outermost update, in every record and reader."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.find import find_all, find_one
from gradstable._src.recovery.turn import RollbackState
from gradstable._src.telemetry.state import RecordState

PARAMS = {"w": jnp.ones(4)}
CALLS, BROKEN, LEFT = 60, (20, 59), range(40, 47)


def guarded() -> optax.GradientTransformationExtraArgs:
    return gs.guard(optax.adam(1e-2))


def rolled(inner: Any) -> optax.GradientTransformationExtraArgs:
    return gs.rollback(inner, every=5, patience=5)


NESTINGS = {
    "record(backoff(moment_hygiene(rollback(guard))))": lambda: gs.record(
        gs.backoff(gs.recovery.moment_hygiene(rolled(guarded())))
    ),
    "record(loss_scale(rollback(guard)))": lambda: gs.record(
        gs.loss_scale(rolled(guarded()), init_scale=1.0, growth_interval=1000)
    ),
    "backoff(rollback(record(guard)))": lambda: gs.backoff(rolled(gs.record(guarded()))),
    "record(rollback(guard(kahan)))": lambda: gs.record(
        rolled(gs.guard(gs.precision.kahan(optax.adam(1e-2))))
    ),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_every_reader_names_a_step_alike_after_a_rollback(name: str, tmp_path: Path) -> None:
    tx = NESTINGS[name]()
    step = jax.jit(lambda g, s, p, v: tx.update(g, s, p, value=v))
    params, state = PARAMS, tx.init(PARAMS)
    with gs.telemetry.Log(PARAMS, tmp_path / "run.jsonl") as log:
        for call in range(1, CALLS + 1):
            gradient = jnp.full(4, jnp.nan) if call in BROKEN else params["w"]
            loss = 10.0 if call in LEFT else 1.0 + 0.01 * (call % 3)
            updates, state = step({"w": gradient}, state, params, loss)
            params = optax.apply_updates(params, updates)
            log(state)
    health = gs.health(state)
    back: Any = find_one(state, RollbackState, name="rollback", wrap="")
    assert int(back.restores) == 1
    assert int(health.count) == int(back.calls) == CALLS
    assert all(int(one.calls) == CALLS for _, one in find_all(state, RecordState))
    held = CALLS - int(health.accepted) - int(health.rejected)
    assert held >= 1
    assert (int(health.rejected), int(health.last_rejected)) == (2, BROKEN[-1])
    told = gs.explain(state, PARAMS)
    assert told.startswith(f"{CALLS} steps: ")
    assert f"2 rejected, {held} held by rollback." in told
    assert f"The last rejection was at step {BROKEN[-1]}:" in told
    assert f"Rolled back once, at step {int(back.last_restore)}, to" in told
    run = gs.telemetry.read_run(tmp_path / "run.jsonl")
    assert run.step.tolist() == list(range(1, CALLS + 1))
    assert run.step[run.rejected].tolist() == list(BROKEN)
    (event,) = run.rollbacks
    assert event == gs.telemetry.Rollback(int(back.last_restore), to=int(back.restored_to))
    # The copy is one of a step before, and the records know more than it.
    assert 0 < int(back.restored_to) < LEFT[0] < int(back.last_restore) <= LEFT[-1]


def test_a_run_that_stands_still_goes_on_counting() -> None:
    tx = gs.rollback(gs.guard(optax.sgd(0.1)), every=5, patience=3, rejections=3, max_restores=1)
    step = jax.jit(lambda g, s, p: tx.update(g, s, p, value=1.0))
    state = tx.init(PARAMS)
    for call in range(1, 41):
        gradient = {"w": jnp.full(4, np.nan if call > 10 else 1.0)}
        updates, state = step(gradient, state, PARAMS)
    del updates
    assert bool(state.exhausted)
    assert int(gs.health(state).count) == int(state.calls) == 40
    with pytest.raises(gs.TrainingDiverged, match="40 steps: 10 accepted"):
        gs.check(state, PARAMS)
