"""A NaN that is kept in front of the guard is told from what breaks by itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.doctor.kept import kept_nan
from gradstable.doctor import diagnose
from gradstable.telemetry import Log, Run, read_run

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2)}
GUARD = gs.guard(optax.sgd(0.01))


def recorded(file: Path, tx: Any, gradient: Any, *, loss: Any = lambda _: 1.0) -> Run:
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    with Log(PARAMS, file, every=32) as log:
        for step in range(1, 81):
            grads = {**PARAMS, "b": PARAMS["b"] * gradient(step)}
            _, state = update(grads, state, PARAMS, value=jnp.float32(loss(step)))
            log(state)
    return read_run(file)


def once(step: int) -> float:
    return np.nan if step == 30 else 1.0


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_multi_steps_is_named_as_the_likely_cause(where: str, tmp_path: Path) -> None:
    recorder = gs.record(GUARD) if where == "inside" else GUARD
    many = optax.MultiSteps(recorder, 2)
    tx = optax.GradientTransformationExtraArgs(many.init, many.update)
    tx = tx if where == "inside" else gs.record(tx)
    run = recorded(tmp_path / "run.jsonl", tx, once)
    found = diagnose(run)
    assert [one.name for one in found] == ["locked_in"]
    assert "optax.MultiSteps" in found[0].sentence
    assert "gs.accumulate(gs.guard(optimizer), k)" in found[0].advice
    assert all(piece.holds for piece in found[0].evidence)


def test_what_else_breaks_to_the_end_is_not_taken_for_it(tmp_path: Path) -> None:
    tx = gs.record(GUARD)
    file = tmp_path / "run.jsonl"
    overflow = recorded(file, tx, lambda step: np.inf if step > 30 else 1.0)
    assert not kept_nan(overflow)
    both = recorded(
        file, tx, lambda s: np.nan if s > 30 else 1.0, loss=lambda s: np.nan if s > 30 else 1.0
    )
    assert not kept_nan(both)
    assert "MultiSteps" not in " ".join(one.advice for one in diagnose(both))
    assert not kept_nan(recorded(file, tx, once))
