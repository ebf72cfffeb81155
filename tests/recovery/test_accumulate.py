"""Accumulation: the mean of the sound micro-batches, whatever the others hold."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.recovery.snapshot import content_of, new_snapshots, state_of

SIZE = 6


def micro_batches(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)


def run(
    tx: optax.GradientTransformation, grads: np.ndarray, **per_step: np.ndarray
) -> tuple[Any, Any, np.ndarray]:
    """Return parameters, state, and the updates of every call."""
    full = optax.with_extra_args_support(tx)
    params = jnp.ones(SIZE)

    def step(carry: Any, given: Any) -> Any:
        params, state = carry
        g, extra = given
        updates, state = full.update(g, state, params, **extra)
        return (optax.apply_updates(params, updates), state), updates

    extra = jax.tree.map(jnp.asarray, per_step)
    (params, state), updates = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(
        (params, tx.init(params)), (jnp.asarray(grads), extra)
    )
    return params, state, np.asarray(updates)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("at", range(8))
def test_one_bad_micro_batch_in_eight_leaves_the_mean_of_the_other_seven(
    at: int, bad: float
) -> None:
    grads = micro_batches(8)
    others = np.delete(grads, at, axis=0).astype(np.float64).mean(axis=0)
    grads[at, 2] = bad
    _, state, updates = run(gs.accumulate(optax.sgd(1.0), 8), grads)
    assert not updates[:7].any()
    np.testing.assert_allclose(updates[7], -others, rtol=1e-6, atol=1e-7)
    assert int(state.dropped.by_reason.sum()) == 1
    assert int(state.dropped.last_dropped) == at + 1
    assert (int(state.emitted), int(state.position)) == (1, 0)


def test_pitfall_a_nan_stays_in_the_mean_of_optax_for_ever() -> None:
    """And a guard inside rejects every mean from then on."""
    grads = micro_batches(40)
    grads[1, 0] = np.nan
    theirs = optax.MultiSteps(gs.guard(optax.sgd(0.1)), 4).gradient_transformation()
    params, _, _ = run(theirs, grads)
    chex.assert_trees_all_equal(params, jnp.ones(SIZE))
    params, state, _ = run(gs.accumulate(gs.guard(optax.sgd(0.1)), 4), grads)
    assert int(gs.health(state).accepted) == 10
    assert int(gs.health(state).rejected) == 0
    assert not jnp.array_equal(params, jnp.ones(SIZE))


def test_equals_optax_on_sound_batches() -> None:
    grads = micro_batches(12)
    ours, state, _ = run(gs.accumulate(optax.adam(0.1), 4), grads)
    theirs, _, _ = run(optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(), grads)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
    assert int(state.emitted) == 3


def test_a_group_of_bad_ones_changes_no_bit() -> None:
    grads = micro_batches(6)
    grads[3:] = np.nan
    tx = gs.accumulate(optax.adam(0.1), 3)
    params, state, updates = run(tx, grads[:3])
    after, new, more = run(tx, grads)
    chex.assert_trees_all_equal(after, params)
    chex.assert_trees_all_equal(new.inner_state, state.inner_state)
    assert np.signbit(more[3:]).all(), "minus zero keeps a parameter of minus zero"
    assert (int(new.emitted), int(new.position), int(new.kept)) == (1, 0, 0)
    assert updates[2].any()


def test_inner_runs_only_at_the_end_of_a_group() -> None:
    """Its count is that of steps; ``optax.MultiSteps`` runs it each time and throws it away."""
    calls: list[int] = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        jax.debug.callback(lambda: calls.append(1))
        return updates, state

    inner = optax.GradientTransformation(lambda _: optax.EmptyState(), update)
    run(gs.accumulate(inner, 4), micro_batches(10))
    jax.effects_barrier()
    assert len(calls) == 2


def test_size_of_a_group_may_follow_the_steps() -> None:
    tx = gs.accumulate(optax.sgd(1.0), lambda step: jnp.where(step < 1, 2, 3))
    _, state, updates = run(tx, micro_batches(8))
    assert [bool(u.any()) for u in updates] == [False, True, *[False, False, True] * 2]
    assert int(state.emitted) == 3


def test_value_is_averaged_and_a_broken_one_drops_its_batch() -> None:
    grads = micro_batches(4)
    losses = np.array([1.0, 2.0, np.nan, 6.0], np.float32)
    seen = gs.record(optax.sgd(1.0))
    _, state, updates = run(gs.accumulate(seen, 4), grads, value=losses)
    assert [row["loss"] for row in gs.telemetry.read_rows(state).steps] == [3.0]
    np.testing.assert_allclose(updates[3], -np.delete(grads, 2, axis=0).mean(axis=0), rtol=1e-6)


def test_rules_judge_single_micro_batches() -> None:
    grads = micro_batches(64)
    grads[60] *= 1e4
    tx = gs.accumulate(optax.sgd(1.0), 4, rules=(gs.rules.log_mad(),))
    _, state, updates = run(tx, grads)
    assert int(state.dropped.by_reason[gs.rules.Reason.SPIKE_REJECTED]) == 1
    np.testing.assert_allclose(updates[63], -grads[61:].mean(axis=0), rtol=1e-5)


def test_bfloat16_gradients_are_gathered_in_float32() -> None:
    """256 ones and then 256 of 1e-3 in bfloat16: the sum would stand at 256."""
    tx = gs.accumulate(optax.sgd(1.0), 512)
    params = jnp.zeros(2, jnp.bfloat16)
    state = tx.init(params)
    chex.assert_type(state.gradient_sum, jnp.float32)
    step = jax.jit(tx.update)
    for g in [1.0] * 256 + [0.25] * 256:
        updates, state = step(jnp.full(2, g, jnp.bfloat16), state, params)
    chex.assert_type(updates, jnp.bfloat16)
    assert updates.tolist() == [-0.625, -0.625]


def test_explain_tells_what_was_left_out() -> None:
    grads = micro_batches(8)
    grads[2] = np.nan
    _, state, _ = run(gs.accumulate(gs.guard(optax.sgd(0.1)), 4), grads)
    told = gs.explain(state)
    assert (
        "1 of 8 micro-batches was left out because the gradient had NaN or infinite entries" in told
    )
    assert "2 steps: 2 accepted" in told


def test_no_copy_of_the_state_on_the_way_to_the_end_of_a_group() -> None:
    """Arguments that are given back in their order: XLA updates them where they are."""
    size = 100_000
    params = {"w": jnp.ones(size)}
    tx = gs.accumulate(optax.adamw(1e-3), 4)

    def step(g: Any, params: Any, state: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(1, 2)).lower(params, params, tx.init(params)).compile()
    entry = compiled.as_text().split("\nENTRY")[1]
    copies = [line for line in entry.splitlines() if f"f32[{size}]" in line and " copy(" in line]
    assert not copies


@pytest.mark.parametrize("at", [0, 3, 7])
def test_micro_batch_that_stands_out_is_named(at: int) -> None:
    """Each is accepted, but the mean is rejected: the norms before the mean tell whose fault."""
    tx = gs.record(gs.accumulate(gs.guard(optax.sgd(0.1)), 8), capacity=240, leaf_every=8)
    grads = micro_batches(240)
    grads[8 * 25 + at] *= 1e4
    _, state, _ = run(tx, grads)
    assert f"micro-batch {at} of 0 to 7 stood out: its gradient norm was" in gs.explain(state)
    rows = gs.telemetry.read_rows(state).steps
    assert {row["step"]: row["micro_batch"] for row in rows if row["micro_batch"] >= 0} == {208: at}


def test_micro_batch_that_is_left_out_is_recorded_with_its_place() -> None:
    grads = micro_batches(24)
    grads[8 + 5, 0] = np.nan
    _, state, _ = run(gs.record(gs.accumulate(gs.guard(optax.sgd(0.1)), 8)), grads)
    rows = gs.telemetry.read_rows(state).steps
    found = {row["step"]: row["micro_batch"] for row in rows if row["micro_batch"] >= 0}
    # In its own row, and in that of the mean without it.
    assert found == {8 + 6: 5, 16: 5}
    assert rows[8 + 5]["scale"] == 0


def test_if_no_micro_batch_stands_out_it_says_so() -> None:
    grads = micro_batches(240)
    grads[8 * 25 : 8 * 26] *= 1e4
    _, state, _ = run(gs.accumulate(gs.guard(optax.sgd(0.1)), 8), grads)
    assert "none of 8 micro-batches stood out" in gs.explain(state)


def test_pitfall_batches_of_padding_are_no_usual_ones() -> None:
    """Their norm is 0 or NaN, so the median is that of the others."""
    grads = micro_batches(8)
    grads[::2] = np.nan
    weight = np.array([0, 1] * 4, np.float32)
    _, state, _ = run(gs.accumulate(gs.guard(optax.sgd(0.1)), 8), grads, weight=weight)
    present = state.outliers.present
    assert (int(present.outlier), int(present.broken_parts)) == (-1, 0)
    norms = np.linalg.norm(grads[1::2], axis=1)
    np.testing.assert_allclose(present.median_norm, np.exp(np.median(np.log(norms))), rtol=1e-5)


def test_rollback_keeps_what_was_found() -> None:
    """A copy brings back what the run was, not what was known about it."""
    tx = gs.accumulate(gs.guard(optax.sgd(0.1)), 4)
    _, before, _ = run(tx, micro_batches(4))
    _, after, _ = run(tx, micro_batches(8))
    copies = new_snapshots(content_of(jnp.ones(SIZE), before, (), None), 1)
    back = state_of(copies, after)
    chex.assert_trees_all_equal(back.outliers, after.outliers)
    assert (int(back.emitted), int(back.calls)) == (1, 8)


def test_check_learns_that_nothing_is_sound_any_more() -> None:
    """Padding is neither sound nor left out, and does not hide it."""
    tx = gs.accumulate(gs.guard(optax.sgd(0.1)), 4)
    grads = micro_batches(60)
    grads[20:, 0] = np.nan
    weight = np.where(np.arange(60) % 5 == 2, 0.0, 1.0).astype(np.float32)
    _, state, _ = run(tx, grads, weight=weight)
    assert int(state.dropped.consecutive_dropped) == 32
    gs.check(state, patience=33)
    with pytest.raises(gs.TrainingDiverged, match="the last 32 micro-batches were all left out"):
        gs.check(state, patience=32)
    _, state = tx.update(jnp.ones(SIZE), state, jnp.ones(SIZE))
    gs.check(state, patience=1)
