"""No rule trusts a counter: whatever one is set to from outside, a healthy run goes on."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.telemetry.alarms import new_alarms, watch
from gradstable.rules import Rule, all_of
from tests.registry import cases, entries

VALUES = (0, 1, 5, 1000, 2**31 - 1, -1, -(2**31))
# What was learned before: nothing, a part of a warm-up, all of it.
BEFORE = (0, 3, 150)
STEPS = 200
SIZES = (1e-3, 1.0, 15.0)
RULES: dict[str, Rule] = {
    "log_mad": gs.rules.log_mad(),
    "zscore": gs.rules.zscore(),
    "zscore, no limit": gs.rules.zscore(max_norm=None),
    "zscore, percentile": gs.rules.zscore(mode="percentile", max_norm=None),
    "zscore, mean": gs.rules.zscore(mode="mean", max_norm=None, skip_update_on_spike=True),
    "ema_multiple": gs.rules.ema_multiple(),
    "ema_multiple, no start": gs.rules.ema_multiple(start=None),
    "window_clip": gs.rules.window_clip(),
    "window_sigma": gs.rules.window_sigma(judge_loss=True),
    "percentile": gs.rules.percentile(window=128),
    "adagc": gs.rules.adagc(),
    "group_norm": gs.rules.group_norm(total_steps=1000, min_scale=0.0, raise_small=True),
    "gradient_stabilizer": gs.rules.gradient_stabilizer(),
    "gradient_stabilizer, corrected": gs.rules.gradient_stabilizer(bias_correction=True),
    "loss_spike": gs.rules.loss_spike(),
}
PARAMS = {"layer": {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}}


def healthy(steps: int, seed: int, size: float) -> tuple[jax.Array, jax.Array]:
    """Return norms of two leaves that scatter by 20 %, and losses by 5 %."""
    rng = np.random.default_rng(seed)
    norms = size * np.exp(0.2 * rng.normal(size=(steps, 2)))
    losses = 2.0 + 0.1 * rng.normal(size=steps)
    return jnp.asarray(norms, jnp.float32), jnp.asarray(losses, jnp.float32)


def run(rule: Rule, state: Any, given: Any) -> tuple[Any, Any]:
    def body(state: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        norms, loss = step
        verdict, state = rule.decide(gs.Measure.of(norms), state, value=loss)
        return state, (verdict.accept, verdict.least_scale)

    return jax.lax.scan(body, state, given)


def is_counter(leaf: Any) -> bool:
    return leaf.dtype == jnp.int32


def perturbed(state: Any) -> list[Any]:
    """Return states in each of which one counter has another value."""
    leaves, structure = jax.tree.flatten(state)
    return [
        jax.tree.unflatten(structure, [*leaves[:i], jnp.full_like(leaf, value), *leaves[i + 1 :]])
        for i, leaf in enumerate(leaves)
        if is_counter(leaf)
        for value in VALUES
    ]


@pytest.mark.parametrize("name", RULES)
def test_healthy_run_goes_on_whatever_a_counter_says(name: str) -> None:
    rule = all_of(RULES[name])
    step = functools.partial(run, rule)
    one, many = jax.jit(step), jax.jit(jax.vmap(step, (0, None)))
    start = rule.init(PARAMS)
    for size in SIZES:
        norms, losses = healthy(STEPS, 0, size)
        states = [start]
        for before in BEFORE[1:]:
            # What is not finite teaches nothing: so much of the run was seen.
            given = norms.at[before:].set(jnp.nan), losses.at[before:].set(jnp.nan)
            states.append(one(start, given)[0])
        every = [other for state in states for other in perturbed(state)]
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *every)
        last, (accepted, scales) = many(stacked, healthy(STEPS, 1, size))
        rejected = STEPS - np.asarray(accepted).sum(1)
        assert rejected.max() < 0.05 * STEPS, rejected.reshape(len(BEFORE), -1, len(VALUES))
        assert np.isfinite(np.asarray(scales)).all()
        assert not any(np.isnan(np.asarray(leaf)).any() for leaf in jax.tree.leaves(last))


def test_every_registered_rule_with_a_counter_is_tried() -> None:
    def kinds(tree: Any) -> set[str]:
        found: set[str] = set()

        def note(node: Any) -> bool:
            if any(is_counter(leaf) for leaf in jax.tree.leaves(tuple(node))):
                found.add(type(node).__name__)
            return False

        jax.tree.map(lambda _: None, tree, is_leaf=lambda n: hasattr(n, "_fields") and note(n))
        return found

    tried = kinds([jax.eval_shape(rule.init, PARAMS) for rule in RULES.values()])
    for case in cases():
        state = jax.eval_shape(case.tx.init, PARAMS)
        of_rules = [
            node.rule_state
            for node in jax.tree.leaves(state, is_leaf=lambda n: hasattr(n, "rule_state"))
            if hasattr(node, "rule_state")
        ]
        assert kinds(of_rules) <= tried, case.name


def test_the_usual_way_to_resume_a_schedule_resets_no_rule() -> None:
    """``optax.tree.set(state, count=1000)`` made zscore reject all steps, and log_mad 83 of 200."""
    for rules in ((), (gs.rules.zscore(),)):
        tx = gs.guard(optax.adam(optax.constant_schedule(1e-3)), *rules)
        state = optax.tree.set(tx.init(PARAMS), count=jnp.asarray(1000, jnp.int32))
        assert {int(n) for _, n in optax.tree.get_all_with_path(state, "count")} == {1000}
        assert jax.tree.all(
            jax.tree.map(jnp.array_equal, state.rule_state, tx.init(PARAMS).rule_state)
        )


@pytest.mark.parametrize("value", VALUES)
def test_alarms_wait_for_a_usual_value_of_their_own(value: int) -> None:
    """Streams that are steady at a value far from 1 raise nothing, before and after."""
    fresh = new_alarms(1)

    def body(state: Any, noise: jax.Array) -> tuple[Any, jax.Array]:
        bits, state = watch(
            state,
            (50.0 * jnp.exp(0.1 * noise[:1]), 1e-4 * jnp.exp(0.1 * noise[1])),
            limits=(jnp.float32(2.3), jnp.float32(4.0)),
            sizes=(256,),
            when=jnp.asarray(True),
            count=jnp.asarray(1),
        )
        return state, bits

    noise = jax.random.normal(jax.random.key(0), (STEPS, 2))
    learned, _ = jax.lax.scan(body, fresh, noise)
    for before in (fresh, learned):
        state = before._replace(steps_seen=jnp.full_like(before.steps_seen, value))
        state, bits = jax.lax.scan(body, state, noise)
        assert not bits.any()
        np.testing.assert_allclose(np.exp(state.log_center), [50.0, 1e-4], rtol=0.2)


ESTIMATORS = {
    case.name: case.tx
    for entry in entries()
    if entry.short.startswith("scale_by_") or entry.short in ("add_noise", "clip_by_moment")
    for case in entry.cases
    if optax.tree.get_all_with_path(case.tx.init(PARAMS), "count")
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_estimator_makes_nan_of_a_counter(name: str) -> None:
    tx: Any = ESTIMATORS[name]
    state = tx.init(PARAMS)
    for value in (-1, 2**31 - 1):
        updates, new = tx.update(
            PARAMS, optax.tree.set(state, count=jnp.asarray(value, jnp.int32)), PARAMS
        )
        for leaf in jax.tree.leaves((updates, new)):
            assert not (jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.isnan(leaf).any()), value
