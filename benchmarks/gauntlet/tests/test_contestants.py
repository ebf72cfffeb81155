"""Every contestant takes a traced rate, many at once, and learns on clean data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradstable_gauntlet.contestants import BARE, CONTESTANTS, OURS

RATES = jnp.array([1e-3, 1e-2, 1e-1])
STEPS = 20
PARAMS = {
    "w": jnp.array([[1.0, -2.0, 0.5], [0.3, 0.1, -1.0]]),
    "b": jnp.array([0.7, -0.2]),
}
NAMES = sorted(CONTESTANTS)


def loss_of(params: Any) -> jax.Array:
    return sum((jnp.sum((leaf - 0.1) ** 2) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def run(name: str, rate: jax.Array, fault: jax.Array) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Return parameters, state, norms and losses of 20 steps; ``fault`` is added at the tenth."""
    peak = jnp.asarray(rate)
    tx = CONTESTANTS[name].make(lambda count: peak * (1.0 - count / 100.0))
    tx = optax.with_extra_args_support(tx)

    def step(carry: Any, at: jax.Array) -> tuple[Any, Any]:
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params)
        gradient["b"] = gradient["b"].at[0].add(jnp.where(at == 10, fault, 0.0))
        updates, state = tx.update(gradient, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), (optax.tree.norm(gradient), loss)

    start = (PARAMS, tx.init(PARAMS))
    (params, state), (norms, losses) = jax.lax.scan(step, start, jnp.arange(STEPS))
    return params, state, norms, losses


@functools.cache
def runs(name: str) -> Any:
    """Return what came of all rates, without a fault and with a NaN."""
    over_rates = jax.vmap(lambda rate, fault: run(name, rate, fault), (0, None))
    whole = jax.jit(jax.vmap(over_rates, (None, 0)))
    return jax.device_get(whole(RATES, jnp.array([0.0, jnp.nan])))


@pytest.mark.parametrize("name", NAMES)
def test_takes_traced_rates_and_learns(name: str) -> None:
    # The scan would fail if a step changed structure, shapes or dtypes of the state.
    params, state, norms, losses = jax.tree.map(lambda x: x[0], runs(name))
    for leaf in jax.tree.leaves((params, state)):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            # The start of AutoClip's history and of AdaGC's norms is infinite by design.
            assert not np.isnan(leaf).any()
    assert np.isfinite(jax.tree.leaves(params)[0]).all()
    assert (losses[:, -1] < losses[:, 0]).all()
    touched = CONTESTANTS[name].touched
    if touched is not None:
        counts = jax.vmap(touched)(state, norms)
        assert ((counts >= 0) & (counts <= STEPS)).all()


@pytest.mark.parametrize("name", NAMES)
def test_works_without_a_loss(name: str) -> None:
    if "rollback" in name:
        pytest.skip("a rollback judges the loss")
    tx = CONTESTANTS[name].make(optax.constant_schedule(1e-2))
    updates, _ = jax.jit(tx.update)(jax.grad(loss_of)(PARAMS), tx.init(PARAMS), PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name: str) -> None:
    contestant = CONTESTANTS[name]
    assert contestant.about
    assert contestant.base in BARE
    assert contestant.ours == (name in OURS) == name.startswith("gs.")
    assert (contestant.base == name) == (name in BARE)


@pytest.mark.parametrize("base", sorted(BARE))
def test_each_bare_optimizer_has_its_guarded_twin(base: str) -> None:
    assert CONTESTANTS[f"gs.guard({base})"].base == base


@pytest.mark.slow
def test_a_nan_breaks_what_is_not_made_for_it() -> None:
    def survives(name: str) -> bool:
        params, *_ = runs(name)
        return all(np.isfinite(leaf[1]).all() for leaf in jax.tree.leaves(params))

    # skip_on_spikes is not armed in its first 62 steps.
    assert {name for name in NAMES if survives(name)} == {*OURS, "apply_if_finite", "skip_and_clip"}


def test_clipped_steps_are_counted_from_the_norms() -> None:
    norms = jnp.array([0.5, 1.0, 2.0, jnp.nan, jnp.inf])
    clip, skip = CONTESTANTS["clip"], CONTESTANTS["apply_if_finite"]
    assert clip.touched is not None
    assert skip.touched is not None
    assert int(clip.touched((), norms)) == 4
    state = skip.make(optax.constant_schedule(0.1)).init(PARAMS)
    assert int(skip.touched(state._replace(total_notfinite=jnp.asarray(2)), norms)) == 4
