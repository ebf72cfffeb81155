"""Smaller steps after trouble: how far down, how fast up, and never for good."""

import re
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree
from gradstable._src.recovery import hygiene
from gradstable._src.recovery.snapshot import state_of


def scales(tx: optax.GradientTransformation, grads: Any, values: Any = None) -> tuple[Any, Any]:
    """Return the factor after every step, and the last state."""
    full = optax.with_extra_args_support(tx)
    grads = jnp.asarray(grads, jnp.float32)
    values = jnp.ones(len(grads)) if values is None else jnp.asarray(values, jnp.float32)

    def step(carry: Any, given: Any) -> Any:
        params, state = carry
        g, value = given
        updates, state = full.update(g, state, params, value=value)
        return (optax.apply_updates(params, updates), state), (state.step_factor, updates)

    start = (jnp.ones(()), tx.init(jnp.ones(())))
    (_, state), (trail, updates) = jax.jit(lambda c, x: jax.lax.scan(step, c, x))(
        start, (grads, values)
    )
    return np.asarray(trail, np.float64), (state, np.asarray(updates))


def test_it_follows_its_formula() -> None:
    grads = np.ones(200)
    grads[[10, 11, 12, 40]] = np.nan
    tx = gs.backoff(gs.guard(optax.sgd(1.0)), factor=0.5, recovery=20.0, after=1)
    trail, (_, updates) = scales(tx, grads)
    wanted, scale = [], 1.0
    for step, g in enumerate(grads):
        if np.isnan(g):
            # Only the first of a run.
            scale = scale * 0.5 if step in (10, 40) else scale
        else:
            scale = min(1.0, scale * 0.5 ** (-1 / 20))
        wanted.append(scale)
    np.testing.assert_allclose(trail, wanted, rtol=1e-5)
    np.testing.assert_allclose(
        updates, np.where(np.isnan(grads), 0.0, -np.array(wanted)), rtol=1e-5
    )


def test_a_short_run_of_bad_batches_does_not_lower_it() -> None:
    grads = np.ones(60)
    grads[[10, 11, 12, 13, 20, 25]] = np.nan
    grads[30:37] = np.nan
    trail, (state, _) = scales(gs.backoff(gs.guard(optax.sgd(1.0)), factor=0.5), grads)
    assert (trail[:34] == 1.0).all()
    np.testing.assert_allclose(trail[34:37], 0.5)  # the fifth, and no further
    assert int(state.spikes) == 1


def test_it_has_a_floor_and_is_never_stuck() -> None:
    bad = np.where(np.arange(400) % 2 == 0, np.nan, 1.0)
    trail, _ = scales(
        gs.backoff(gs.guard(optax.sgd(1.0)), after=1), np.concatenate([bad, np.ones(700)])
    )
    assert trail[:400].min() == pytest.approx(0.01)
    assert trail[400 : 400 + 600].max() < 1.0
    assert trail[-1] == 1.0


def test_a_return_lowers_it_and_is_not_scaled_itself() -> None:
    tx = gs.backoff(gs.rollback(gs.guard(optax.sgd(1e-3)), every=10, patience=5))
    values = np.where((np.arange(80) >= 40) & (np.arange(80) < 46), 50.0, 1.0)
    trail, (state, _) = scales(tx, np.ones(80), values)
    back = int(np.flatnonzero(trail < 1.0)[0])
    assert trail[back] == pytest.approx(0.1)
    assert trail[back + 2] == trail[back], "parameters stand still in a trial"
    assert trail[back + 3] > trail[back]
    assert (int(state.returns), int(state.spikes)) == (1, 0)
    # It arrived, which updates times 0.1 would not have done.
    assert int(state.inner_state.attempts) == 0
    assert "Step size is at 12.5 %, after 1 rollback." in gs.explain(state)


def test_pitfall_a_backoff_inside_of_a_guard_would_be_held() -> None:
    """It has to stand outside of what judges, and says so where nothing inside does."""
    with pytest.raises(ValueError, match="backoff needs a guard or a rollback inside"):
        gs.backoff(optax.sgd(1.0)).init(jnp.ones(()))


@pytest.mark.slow
def test_it_costs_no_pass() -> None:
    tree = large_tree()
    guard = gs.guard(optax.adamw(1e-3))
    alone = count_common_path(guard, tree)
    with_backoff = count_common_path(gs.backoff(guard), tree)
    assert with_backoff.words <= alone.words + 0.01
    assert with_backoff.temp <= alone.temp + 0.001


class TestMomentHygiene:
    """Moments out of date are damped, then begun anew, each once in a run of rejections."""

    @staticmethod
    def run(tx: Any, grads: list[float]) -> Any:
        params = jnp.ones(3)
        state = tx.init(params)
        for g in grads:
            _, state = tx.update(jnp.full(3, g), state, params)
        return state

    @staticmethod
    def adam(state: Any) -> Any:
        return state.inner_state.inner_state[0]

    def test_the_first_moment_is_damped_once_a_run(self) -> None:
        tx = gs.recovery.moment_hygiene(gs.guard(optax.adam(1e-3)), damp=0.25)
        before = self.adam(self.run(tx, [1.0] * 5))
        state = self.run(tx, [1.0] * 5 + [np.nan] * 6)
        after = self.adam(state)
        np.testing.assert_allclose(after.mu, 0.25 * before.mu)
        np.testing.assert_array_equal(after.nu, before.nu)
        assert int(after.count) == int(before.count) == 5
        assert (int(state.damped), int(state.resets)) == (1, 0)
        assert gs.explain(state).endswith("Moments were damped once.")

    def test_damping_is_as_if_all_gradients_had_been_smaller(self) -> None:
        """So that the bias correction of a young average stays right."""
        damped = self.adam(
            self.run(
                gs.recovery.moment_hygiene(gs.guard(optax.adam(1e-3)), damp=0.5),
                [2.0, 2.0, np.nan, np.nan, np.nan],
            )
        )
        smaller = self.adam(
            self.run(gs.recovery.moment_hygiene(gs.guard(optax.adam(1e-3))), [1.0, 1.0])
        )
        np.testing.assert_allclose(damped.mu, smaller.mu)

    def test_a_reset_begins_the_estimator_anew_but_no_schedule(self) -> None:
        schedule = optax.linear_schedule(1.0, 0.0, 100)
        tx = gs.recovery.moment_hygiene(gs.guard(optax.adam(schedule)), reset_after=4)
        state = self.run(tx, [1.0] * 7 + [np.nan] * 10)
        adam, scheduled = state.inner_state.inner_state
        assert int(adam.count) == 0
        assert not np.any(adam.mu)
        assert not np.any(adam.nu)
        assert int(scheduled.count) == 7
        # Bias correction is that of a first step: its length is the rate.
        updates, _ = tx.update(jnp.full(3, 0.01), state, jnp.ones(3))
        np.testing.assert_allclose(np.asarray(updates), -float(schedule(7)), rtol=1e-4)

    def test_a_return_can_reset_and_copies_are_left_alone(self) -> None:
        inner = gs.rollback(gs.guard(optax.adam(1e-3)), rejections=3, every=5, patience=3)
        tx = gs.recovery.moment_hygiene(
            inner, damp_after=100, reset_after=100, reset_on_rollback=True
        )
        params = jnp.ones(3)
        state = tx.init(params)
        for g in [1.0] * 12 + [np.nan] * 5:
            updates, state = tx.update(jnp.full(3, g), state, params, value=1.0)
            params = optax.apply_updates(params, updates)
        assert int(state.resets) == 1
        assert not np.any(state.inner_state.inner_state.inner_state[0].mu)
        rolled = state.wrapped_state
        kept = state_of(rolled.snapshots, rolled.wrapped_state)
        assert np.all(kept.wrapped_state[0].mu > 0)

    def test_it_costs_no_pass_and_copies_nothing_but_when_it_acts(self) -> None:
        tree = large_tree(9, 900_000)
        guard = gs.guard(optax.adamw(1e-3))
        tx = gs.recovery.moment_hygiene(guard)
        alone = count_common_path(guard, tree)
        with mock.patch.object(hygiene, "run_if", lambda condition, change, tree: tree):
            common = count_common_path(tx, tree)
        assert common.words <= alone.words + 0.02
        entry = compile_step(tx, tree)[0].as_text().split("ENTRY")[1]
        assert not re.search(r"= f32\[\d+,\d+\]\S* copy\(", entry)

    def test_it_says_what_it_lacks(self) -> None:
        with pytest.raises(ValueError, match="needs a guard inside"):
            gs.recovery.moment_hygiene(optax.adam(1e-3)).init(jnp.ones(3))
        with pytest.raises(ValueError, match="found no moments"):
            gs.recovery.moment_hygiene(gs.guard(optax.sgd(1e-3))).init(jnp.ones(3))
