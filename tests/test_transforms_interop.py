"""Guards and clips in the company of optax: forwarding, hyper-parameters, masks, schedules."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.testing.compare import require_close, require_same_bits
from gradstable._src.testing.material import default_params, gradients

Transform = optax.GradientTransformation


class Probe(NamedTuple):
    """A transform and a rule that note what they are given."""

    inner: Transform
    rule: gs.rules.Rule
    seen: dict[str, Any]


def begin(tx: Transform, params: Any) -> Any:
    """Return the initial state, whatever its type."""
    return tx.init(params)


def update(tx: Transform, given: Any, state: Any, params: Any, **extra_args: Any) -> Any:
    """Return updates and state after one update, whatever their types."""
    return optax.with_extra_args_support(tx).update(given, state, params, **extra_args)


@pytest.fixture
def probe() -> Probe:
    seen: dict[str, Any] = {}

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        seen["inner"] = {"params": params, **extra_args}
        return updates, state

    def decide(measure: gs.Measure, state: Any, **context: Any) -> tuple[gs.Verdict, Any]:
        seen["rule"] = context
        return gs.Verdict.of(), state

    inner = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    return Probe(inner, gs.rules.Rule(init=lambda params: (), decide=decide), seen)


def named(value: object) -> str:
    return getattr(value, "__name__", "numbers")


WRAPPERS: dict[str, Callable[[Transform], Transform]] = {
    "alone": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "guard": lambda tx: gs.guard(tx),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda factor: optax.chain(tx, optax.scale(factor))
    )(factor=1.0),
    "masked": lambda tx: optax.masked(tx, {"bias": True, "kernel": True, "scale": False}),
    "partition": lambda tx: optax.partition(
        {"ours": tx, "none": optax.set_to_zero()},
        {"bias": "ours", "kernel": "ours", "scale": "none"},
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_guard_forwards_params_and_extra_arguments(name: str, probe: Probe) -> None:
    params = default_params()
    tx = WRAPPERS[name](gs.guard(probe.inner, probe.rule))
    update(tx, gradients(params), tx.init(params), params, value=jnp.asarray(2.0), other=3)
    for place in ("inner", "rule"):
        given = probe.seen[place]
        assert set(given) == {"params", "value", "other"}
        assert given["params"]["kernel"].shape == (3, 4)


def test_guard_forwards_through_multi_steps(probe: Probe) -> None:
    params = default_params()
    tx = optax.MultiSteps(gs.guard(probe.inner, probe.rule), every_k_schedule=1)
    tx.update(gradients(params), tx.init(params), params, value=jnp.asarray(2.0))
    assert set(probe.seen["inner"]) == set(probe.seen["rule"]) == {"params", "value"}


def test_clip_by_forwards_context_to_its_rules(probe: Probe) -> None:
    params = default_params()
    tx = optax.chain(gs.clipping.clip_by(probe.rule), probe.inner)
    tx.update(gradients(params), tx.init(params), params, value=jnp.asarray(2.0))
    assert set(probe.seen["rule"]) == set(probe.seen["inner"]) == {"params", "value"}


def clip_by_log_mad(
    clip_at: Any, reject_at: Any, rate: Any, max_spread: Any
) -> optax.GradientTransformation:
    rule = gs.rules.log_mad(clip_at=clip_at, reject_at=reject_at, rate=rate, max_spread=max_spread)
    return gs.clipping.clip_by(rule)


FACTORIES = [
    (gs.adamw, {"learning_rate": 1e-2, "b1": 0.8, "b2": 0.95, "eps": 1e-7, "weight_decay": 0.1}),
    (gs.moments.scale_by_adam, {"b1": 0.8, "b2": 0.95, "eps": 1e-7, "eps_root": 1e-12}),
    (gs.clipping.clip_by_global_norm, {"max_norm": 0.5}),
    (
        clip_by_log_mad,
        {"clip_at": 2.0, "reject_at": 4.0, "rate": 0.1, "max_spread": 0.2},
    ),
]


@pytest.mark.parametrize(("factory", "numbers"), FACTORIES, ids=named)
def test_injected_hyper_parameters_act_like_constants(
    factory: Callable[..., Transform], numbers: dict[str, float]
) -> None:
    params = default_params()
    plain, injected = factory(**numbers), optax.inject_hyperparams(factory)(**numbers)
    state, other = begin(plain, params), begin(injected, params)
    assert set(numbers) <= set(other.hyperparams)
    compiled = jax.jit(injected.update)
    for seed in range(3):
        given = gradients(params, seed)
        expected, state = plain.update(given, state, params)
        actual, other = compiled(given, other, params)
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6), actual, expected
        )


def test_injected_learning_rate_can_be_changed_between_steps() -> None:
    params = default_params()
    tx = optax.inject_hyperparams(gs.adamw)(learning_rate=1e-2, weight_decay=0.0)
    state = begin(tx, params)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = jax.jit(tx.update)(gradients(params), state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_masked_leaves_pass_by_and_others_are_clipped() -> None:
    params = default_params()
    mask = {"bias": True, "kernel": True, "scale": False}
    tx = optax.masked(gs.clipping.clip_by_global_norm(1e-3), mask)
    given = gradients(params)
    updates, _ = update(tx, given, tx.init(params), params)
    assert updates["scale"] == given["scale"]
    clipped = gs.global_norm({"bias": updates["bias"], "kernel": updates["kernel"]})
    np.testing.assert_allclose(clipped, 1e-3, rtol=1e-5)


def test_rejected_step_is_no_tick_of_a_schedule() -> None:
    params = default_params()
    tx = gs.guard(optax.sgd(optax.linear_schedule(1.0, 0.0, 10)))
    state = begin(tx, params)
    given = gradients(params)
    bad = {**given, "scale": jnp.asarray(jnp.nan)}
    for step in (given, bad, bad):
        _, state = update(tx, step, state, params)
    assert int(optax.tree.get(state.inner_state, "count")) == 1


def test_guards_can_be_nested_and_chained() -> None:
    params = default_params()
    tx = gs.guard(optax.chain(gs.clipping.clip_by(gs.rules.log_mad()), gs.guard(optax.sgd(0.1))))
    state = tx.init(params)
    for seed in range(2):
        updates, state = jax.jit(tx.update)(gradients(params, seed), state, params)
        params = optax.apply_updates(params, updates)
    assert gs.explain(state).count("2 steps: 2 accepted") == 3


def test_multi_steps_hands_on_the_mean_gradient() -> None:
    params = default_params()
    tx = optax.MultiSteps(gs.guard(optax.sgd(1.0)), every_k_schedule=2)
    state = tx.init(params)
    first, second = gradients(params, 0), gradients(params, 1)
    nothing, state = tx.update(first, state, params)
    updates, state = tx.update(second, state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))
    mean = jax.tree.map(lambda a, b: -(a + b) / 2, first, second)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), updates, mean)
    assert int(gs.health(state.inner_opt_state).count) == 1


# A new state with a constant in it, which is a literal where it is traced.
WITH_LITERALS = {
    "optimistic_gradient_descent": optax.optimistic_gradient_descent(0.1),
    "dog": optax.contrib.dog(0.1),
}


@pytest.mark.parametrize("name", WITH_LITERALS)
def test_literal_in_the_state_of_the_inner_optimizer_is_held(name: str) -> None:
    params = default_params()
    tx = gs.guard(WITH_LITERALS[name])
    start = begin(tx, params)
    bad = jax.tree.map(lambda leaf: leaf * jnp.nan, gradients(params))
    compiled = jax.jit(tx.update)
    _, held = compiled(bad, start, params)
    require_same_bits(held.inner_state, start.inner_state, name="state", when="after a NaN")
    _, moved = compiled(gradients(params), held, params)
    _, outside = update(tx, gradients(params), start, params)
    require_close(moved.inner_state, outside.inner_state, name="state", when="inside jit")


def test_donated_state_takes_no_array_away_from_the_inner_optimizer() -> None:
    params = default_params()
    tx = gs.guard(optax.noisy_sgd(0.1, key=jax.random.key(0)))
    jax.jit(tx.update, donate_argnums=1)(gradients(params), tx.init(params), params)
    update(tx, gradients(params), tx.init(params), params)
