"""Not every loss that rises is that of a lost run: what must not lead back, and what is undone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.bits import bits

STEPS = 600


def around(tx: Any) -> dict[str, Any]:
    return {"rollback": gs.rollback(tx), "backoff": gs.backoff(gs.rollback(tx))}


RECOVERIES = around(gs.guard(optax.sgd(0.01)))


@functools.cache
def runner(name: str) -> Any:
    """Return a function from losses and gradients of all steps to the last state."""
    tx = optax.with_extra_args_support(RECOVERIES[name])

    def step(carry: Any, now: Any) -> Any:
        params, state = carry
        loss, gradient = now
        updates, state = tx.update(gradient * jnp.ones(2), state, params, value=loss)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(losses: Any, gradients: Any) -> Any:
        params = jnp.zeros(2)
        return jax.lax.scan(step, (params, tx.init(params)), (losses, gradients))[0]

    return run


def after(losses: np.ndarray, name: str = "rollback", gradients: Any = None) -> tuple[Any, Any]:
    """Return parameters and state after a run whose losses do not depend on its parameters."""
    given = np.ones(len(losses)) if gradients is None else gradients
    return runner(name)(jnp.asarray(losses, jnp.float32), jnp.asarray(given, jnp.float32))


def recovery_of(state: Any) -> gs.recovery.RollbackState:
    return state if isinstance(state, gs.recovery.RollbackState) else state.wrapped_state


def waves(rng: np.random.Generator) -> np.ndarray:
    """The losses of a game: smooth, around zero, the highest five times as high as usual."""
    at = np.arange(STEPS)
    return np.sin(at / 9) + 0.6 * np.sin(at / 23 + 1) + 0.05 * rng.normal(size=STEPS)


def reinforced(rng: np.random.Generator) -> np.ndarray:
    """Those of a policy: negative, noisy with heavy tails, and the noise comes in stretches."""
    noise = rng.standard_t(3, size=STEPS)
    for now in range(1, STEPS):
        noise[now] += 0.8 * noise[now - 1]
    return -2.0 + 0.3 * noise


def mostly_zero(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(STEPS) < 0.1, rng.exponential(size=STEPS), 0.0)


HEALTHY = {one.__name__: one for one in (waves, reinforced, mostly_zero)}


@pytest.mark.parametrize("name", RECOVERIES)
@pytest.mark.parametrize("kind", HEALTHY)
def test_losses_that_come_and_go_lose_no_progress(kind: str, name: str) -> None:
    for seed in range(5):
        state = recovery_of(after(HEALTHY[kind](np.random.default_rng(seed)), name)[1])
        assert int(state.restores) == int(state.undone) <= 1


@pytest.mark.parametrize("name", RECOVERIES)
def test_a_jump_of_the_data_costs_a_few_steps_once(name: str) -> None:
    """As in a curriculum: the loss is 30 times as high for 150 steps of every 300."""
    rng = np.random.default_rng(0)
    losses = 1.0 + 0.05 * rng.normal(size=STEPS)
    losses *= np.where(np.arange(STEPS) // 150 % 2 == 1, 30.0, 1.0)
    params, state = after(losses, name)
    rolled = recovery_of(state)
    assert (int(rolled.restores), int(rolled.undone)) == (1, 1)
    assert int(rolled.doublings) <= 1
    idle = STEPS - float(params[0]) / -0.01
    assert 3.9 <= idle <= 8.1, "the parameters are those of all the other steps"
    if name == "backoff":
        assert float(state.step_factor) == 1.0
    told = gs.explain(state)
    assert "Rolled back once, at step" in told
    assert "That was undone at step" in told
    assert "the data have changed" in told


def test_a_run_goes_on_from_the_very_bits_that_it_left() -> None:
    tx = optax.with_extra_args_support(gs.rollback(gs.guard(optax.adam(0.01))))
    step = jax.jit(lambda g, s, p, v: tx.update(g, s, p, value=v))
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=64) * np.logspace(-6, 3, 64), jnp.float32)
    state, kept = tx.init(params), {}
    for call in range(1, 161):
        gradient = jnp.asarray(rng.normal(size=64), jnp.float32)
        kept[call] = bits(params), bits(state.wrapped_state.wrapped_state)
        loss = (1.0 if call < 120 else 20.0) + 0.01 * rng.normal()
        updates, state = step(gradient, state, params, loss)
        params = optax.apply_updates(params, updates)
        if int(state.undone) and int(state.attempts) == 0:
            break
    left, back = int(state.last_restore), int(state.last_undone)
    assert 120 < left < back < call <= back + 2
    assert int(state.restored_to) == 101
    arrived = kept[call]
    assert arrived == kept[left]
    assert bits(gs.recovery.last_good(state)) == kept[left][0]


@pytest.mark.parametrize("name", RECOVERIES)
def test_thirty_bad_batches_that_are_all_rejected_lose_nothing(name: str) -> None:
    rng = np.random.default_rng(0)
    losses, gradients = 1.0 + 0.05 * rng.normal(size=(2, STEPS))
    losses[300:330], gradients[300:330] = 1e4, 1e6
    params, state = after(losses, name, gradients)
    assert int(recovery_of(state).restores) == 0
    assert int(gs.health(state).rejected) == 30
    calm = after(losses, name, np.where(gradients > 1e3, 0.0, gradients))[0]
    if name == "rollback":
        np.testing.assert_array_equal(np.asarray(params), np.asarray(calm))


def test_the_second_return_in_vain_needs_twice_the_evidence() -> None:
    """Each jump goes beyond all that was accepted before."""
    rng = np.random.default_rng(0)
    losses = 1.0 + 0.02 * rng.normal(size=220)
    losses[130:] += 10.0
    first = recovery_of(after(losses)[1])
    losses[165:] += 100.0
    second = recovery_of(after(losses)[1])
    assert (int(first.undone), int(second.undone)) == (1, 2)
    assert int(first.last_restore) == 130 + 12 + 1
    assert int(second.last_restore) >= 165 + 24


def lost(tx: Any, *, kept: bool = True) -> Any:
    """Return the state after training in a basin that the run is thrown out of by a large step."""
    step = jax.jit(lambda g, s, p, v: tx.update(g, s, p, value=v))
    params = jnp.full(4, 1.0)
    state = tx.init(params)
    rng = np.random.default_rng(0)
    for call in range(200):
        loss = float(jnp.sum(params**2)) + 0.1 + 0.01 * rng.normal()
        updates, state = step(2 * params, state, params, loss)
        params = optax.apply_updates(params, updates)
        if call == 140 and kept:
            params = params + 50.0
    return params, state


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_run_lost_by_its_own_step_is_still_brought_back(copies: int) -> None:
    tx = optax.with_extra_args_support(gs.rollback(gs.guard(optax.sgd(1e-3)), copies=copies))
    params, state = lost(tx)
    assert int(state.restores) == 1
    assert int(state.undone) == 0
    assert float(jnp.max(jnp.abs(params))) < 1.0
    assert "undone" not in gs.explain(state)


def test_with_one_copy_nothing_can_be_undone() -> None:
    tx = optax.with_extra_args_support(gs.rollback(gs.guard(optax.sgd(0.01)), copies=1))
    step = jax.jit(lambda s, p, v: tx.update(jnp.ones(2), s, p, value=v))
    params = jnp.zeros(2)
    state = tx.init(params)
    for call in range(200):
        loss = (1.0 if call < 150 else 9.0) + 0.001 * (call % 5)
        updates, state = step(state, params, loss)
        params = optax.apply_updates(params, updates)
    assert (int(state.restores), int(state.undone)) == (1, 0)
    assert int(state.doublings) == 1
    assert not bool(state.exhausted)


def test_without_a_loss_it_is_the_rules_that_decide() -> None:
    def decide(measure: gs.Measure, state: Any, **_: Any) -> Any:
        return gs.Verdict.of(accept=measure.norm < 10.0, reason=2), state

    rule = gs.rules.Rule(init=lambda params: (), decide=decide)
    tx = optax.with_extra_args_support(gs.rollback(optax.sgd(0.01), rule, every=10, patience=5))
    step = jax.jit(tx.update)
    params = jnp.zeros(2)
    state = tx.init(params)
    for call in range(60):
        updates, state = step(jnp.full(2, 1.0 if call < 30 else 100.0), state, params)
        params = optax.apply_updates(params, updates)
    assert int(state.restores) >= 1
    assert int(state.undone) == int(state.restores)
