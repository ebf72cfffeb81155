"""The log of several runs in one state: which of them undid a rollback, and how often."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable._src.telemetry.returns import returns_of
from gradstable._src.telemetry.undone import undone_in
from gradstable.telemetry import Log, read_run

STEPS = 200
PARAMS = {"w": jnp.zeros(3)}
GRADS = {"w": jnp.full((3,), -1.0)}


def levels() -> np.ndarray:
    """Return the losses of three members: a jump for good, two ever higher ones, and none."""
    step, noise = np.arange(STEPS), np.random.default_rng(0).normal(size=(3, STEPS))
    once = np.where(step >= 60, 30.0, 1.0)
    twice = np.where(step >= 120, 1e5, once)
    return (1 + 0.05 * noise) * np.stack([once, twice, np.ones(STEPS)])


def test_each_member_is_told_of_its_own(tmp_path: Path) -> None:
    """Pitfall: a note is in the file of every member, and names only the last of several."""
    tx = gs.record(gs.rollback(gs.guard(optax.sgd(0.01)), every=5, patience=6), capacity=STEPS)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), PARAMS)

    def step(carry: tuple, losses: jax.Array) -> tuple:
        def one(params: Any, state: Any, loss: jax.Array) -> tuple:
            updates, state = tx.update(GRADS, state, params, value=loss)
            return optax.apply_updates(params, updates), state

        params, state = carry
        return jax.vmap(one)(params, state, losses), None

    losses = jnp.asarray(levels().T, jnp.float32)
    # The first reading finds that the members differ.
    with Log(PARAMS, tmp_path / "run.jsonl", every=1) as log:
        carry, _ = jax.lax.scan(step, (params, jax.vmap(tx.init)(params)), losses[:50])
        log(carry[1])
        carry, _ = jax.lax.scan(step, carry, losses[50:])
        log(carry[1])
    runs = [read_run(tmp_path / f"run.member{member}.jsonl") for member in range(3)]
    assert [sum(one.times for one in undone_in(run)) for run in runs] == [1, 2, 0]
    assert [run.notes for run in runs] == [runs[0].notes] * 3
    told = [returns_of(run) for run in runs]
    assert told[2] is None
    for number, back in enumerate(told[:2], start=1):
        assert back is not None
        assert (back.times, back.undone, back.judged) == (number, number, 0)
    assert not undone_in(read_run(tmp_path / "run.jsonl")), "it has no steps of its own"
