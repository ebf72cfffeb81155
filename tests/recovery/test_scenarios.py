"""Real models and faults; ``python -m benchmarks.recovery`` prints the table."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.low_precision import characters_run
from benchmarks.recovery import SCENARIOS, guarded, in_float16, recovering, train
from benchmarks.small_tasks import digits_cnn


@pytest.mark.slow
def test_a_language_model_comes_back_from_a_rate_a_hundred_times_too_high() -> None:
    """By the guard alone it does not: the steps that led it away had sound gradients."""
    scenario = SCENARIOS["decoder LM"]
    task, steps, at = scenario.task(), scenario.steps, scenario.fault_at
    calm = train(task, guarded(scenario), steps=steps, seed=0)
    alone = train(task, guarded(scenario), steps=steps, seed=0, fault_at=at)
    back = train(task, recovering(scenario), steps=steps, seed=0, fault_at=at)
    assert back.held_out <= 1.05 * calm.held_out
    assert alone.held_out >= 1.3 * calm.held_out
    assert int(back.state.returns) >= 1
    assert "Rolled back" in gs.explain(back.state, back.params)


@pytest.mark.slow
def test_without_a_fault_recovery_changes_nothing() -> None:
    scenario = SCENARIOS["digits CNN"]
    task = scenario.task()
    plain = train(task, guarded(scenario), steps=300, seed=0)
    other = train(task, gs.rollback(guarded(scenario)), steps=300, seed=0)
    assert int(other.state.restores) == 0
    np.testing.assert_allclose(other.losses, plain.losses, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_all_seeds_of_all_models_come_back(name: str) -> None:
    """A recurrent network is chaotic: a fault 15 steps later moves one run by up to 10 %."""
    scenario = SCENARIOS[name]
    task, steps, at = scenario.task(), scenario.steps, scenario.fault_at
    ratios = []
    for seed in range(3):
        calm = train(task, recovering(scenario), steps=steps, seed=seed)
        back = train(task, recovering(scenario), steps=steps, seed=seed, fault_at=at)
        ratios.append(back.held_out / calm.held_out)
    assert np.median(ratios) <= 1.05
    assert max(ratios) <= 1.15


def test_one_poisoned_micro_batch_in_eight_leaves_the_mean_of_the_other_seven() -> None:
    task = digits_cnn(batch_size=16)
    params = task.init(jax.random.key(0))
    batches = [task.batch(jax.random.key(number)) for number in range(8)]
    images, labels = batches[3]
    batches[3] = images.at[5, 2, 2, 0].set(jnp.nan), labels
    value_and_grad = jax.jit(jax.value_and_grad(task.loss))

    def step(tx: Any, of: list[Any]) -> Any:
        state = tx.init(params)
        updates = params
        for batch in of:
            loss, gradients = value_and_grad(params, batch)
            updates, state = tx.update(gradients, state, params, value=loss)
        return updates

    eight = step(gs.accumulate(optax.sgd(1.0), 8), batches)
    seven = step(gs.accumulate(optax.sgd(1.0), 7), batches[:3] + batches[4:])
    for one, other in zip(jax.tree.leaves(eight), jax.tree.leaves(seven), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert float(gs.global_norm(eight)) > 0.1


@pytest.mark.slow
def test_float16_from_a_far_too_high_loss_scale() -> None:
    out = in_float16(seed=0)
    assert out["always_finite"]
    assert out["scales"][0] < 2.0**24
    # It settles: halved until it fits, then up and down by one factor of two.
    assert 2.0**4 <= out["scales"][-1] <= 2.0**20
    assert out["overflows"] <= 24
    assert out["float16"] >= out["float32"] - 0.01


@pytest.mark.slow
def test_moments_in_8_bits_end_within_a_percent_of_float32() -> None:
    wide, narrow = (characters_run(name, 0) for name in ("float32", "int8"))
    assert narrow.trained <= 1.01 * wide.trained
    assert narrow.held_out <= 1.01 * wide.held_out
    # All bytes but the four of a parameter are state.
    assert narrow.bytes_per_parameter - 4 <= 0.3 * (wide.bytes_per_parameter - 4)
