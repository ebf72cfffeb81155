"""What the state can say: numbers, sentences, and the end of the line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

PARAMS = {"conv": {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}, "scale": jnp.ones(())}
CALM = jax.tree.map(lambda p: jnp.full_like(p, 0.1), PARAMS)
BROKEN = {**CALM, "conv": {**CALM["conv"], "kernel": jnp.full((3, 2), jnp.nan)}}
SPIKE = jax.tree.map(lambda g: g * 1e4, CALM)


def run(tx: optax.GradientTransformation, *gradients: Any) -> Any:
    state = tx.init(PARAMS)
    for gradient in gradients:
        _, state = tx.update(gradient, state, PARAMS)
    return state


def test_a_run_that_has_not_begun() -> None:
    state = gs.guard(optax.adam(1e-3)).init(PARAMS)
    health = gs.health(state)
    assert health.count == 0
    assert health.last_rejected == -1
    assert health.worst_leaf == -1
    assert gs.explain(state) == "0 steps: 0 accepted (0 of them clipped), 0 rejected."


def test_health_counts_everything() -> None:
    clip = jax.tree.map(lambda g: g * 4.0, CALM)
    state = run(gs.guard(optax.adam(1e-3)), *[CALM] * 8, clip, BROKEN, SPIKE, CALM)
    health = gs.health(state)
    assert (health.count, health.accepted, health.clipped, health.rejected) == (12, 10, 1, 2)
    assert health.consecutive_rejected == 0
    assert health.last_rejected == 11
    np.testing.assert_allclose(health.grad_norm, gs.global_norm(CALM))
    assert health.scale == 1.0
    assert health.reason == gs.rules.Reason.OK
    assert np.isfinite(health.threshold)


def test_every_sentence_of_a_stormy_run() -> None:
    clip = jax.tree.map(lambda g: g * 4.0, CALM)
    state = run(gs.guard(optax.adam(1e-3)), *[CALM] * 8, clip, SPIKE, BROKEN)
    told = gs.explain(state, PARAMS).splitlines()
    assert told == [
        "11 steps: 9 accepted (1 of them clipped), 2 rejected.",
        "1 rejected because the gradient had NaN or infinite entries.",
        "1 rejected because the gradient norm was far above its usual range.",
        "1 clipped because the gradient norm was well above its usual range.",
        "The last rejection was at step 11: the gradient had NaN or infinite entries, "
        "first in ['conv']['kernel'].",
        "The last 2 steps were all rejected.",
    ]


def test_a_spike_is_told_with_norm_and_threshold() -> None:
    told = gs.explain(run(gs.guard(optax.sgd(0.1)), *[CALM] * 5, SPIKE, CALM), PARAMS)
    assert "(norm 3e+03, threshold " in told
    assert "largest in ['conv']['kernel']" in told


def test_without_params_a_leaf_has_a_number() -> None:
    assert "first in leaf 1 (pass params" in gs.explain(run(gs.guard(optax.sgd(0.1)), BROKEN))


def test_reason_of_a_user_is_told() -> None:
    gs.rules.add_reason(45, "the batch came from the broken sensor")
    never = gs.rules.Rule(
        init=lambda _: (), decide=lambda m, s, **_: (gs.Verdict.of(accept=False, reason=45), s)
    )
    told = gs.explain(run(gs.guard(optax.sgd(0.1), never), CALM), PARAMS)
    assert "1 rejected because the batch came from the broken sensor." in told
    unnamed = gs.rules.Rule(
        init=lambda _: (), decide=lambda m, s, **_: (gs.Verdict.of(accept=False, reason=46), s)
    )
    assert "(reason 46)" in gs.explain(run(gs.guard(optax.sgd(0.1), unnamed), CALM))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.identity(), tx),
        lambda tx: optax.masked(tx, jax.tree.map(lambda p: p.ndim > 0, PARAMS)),
        lambda tx: optax.chain(optax.chain(tx), optax.scale(1.0)),
        lambda tx: optax.inject_hyperparams(lambda rate: optax.chain(tx, optax.scale(rate)))(1.0),
    ],
    ids=["chain", "masked", "nested", "inject_hyperparams"],
)
def test_the_guard_is_found_however_deep(wrap: Any) -> None:
    state = run(wrap(gs.guard(optax.adam(1e-3))), CALM, BROKEN)
    assert gs.health(state).rejected == 1
    assert "1 rejected" in gs.explain(state)


def test_multi_steps() -> None:
    tx = optax.MultiSteps(gs.guard(optax.adam(1e-3)), every_k_schedule=2)
    assert gs.health(run(tx.gradient_transformation(), *[CALM] * 4)).accepted == 2


def test_several_guards() -> None:
    label = {"conv": "a", "scale": "b"}
    tx = optax.partition({"a": gs.guard(optax.adam(1e-3)), "b": gs.guard(optax.sgd(0.1))}, label)
    state = run(tx, CALM, BROKEN)
    with pytest.raises(ValueError, match=r"2 guards found.*pass the part"):
        gs.health(state)
    told = gs.explain(state, PARAMS)
    assert told.count("opt_state") == 2
    assert told.count("2 steps: 1 accepted") == 1
    assert told.count("2 steps: 2 accepted") == 1


@pytest.mark.parametrize("read", [gs.health, gs.explain, gs.check])
def test_no_guard(read: Any) -> None:
    with pytest.raises(ValueError, match="wrap your optimizer"):
        read(optax.adam(1e-3).init(PARAMS))


def test_health_inside_jit() -> None:
    tx = gs.guard(optax.adam(1e-3))

    @jax.jit
    def step(state: Any, g: Any) -> Any:
        _, state = tx.update(g, state, PARAMS)
        return state, gs.health(state).rejected

    _, rejected = step(tx.init(PARAMS), BROKEN)
    assert rejected == 1


def test_check_waits_for_as_long_as_it_is_told() -> None:
    state = run(gs.guard(optax.sgd(0.1)), CALM, *[BROKEN] * 3)
    gs.check(state)
    gs.check(state, patience=4)
    with pytest.raises(gs.TrainingDiverged) as caught:
        gs.check(state, PARAMS, patience=3)
    message = str(caught.value)
    assert "the last 3 steps were all rejected" in message
    assert "['conv']['kernel']" in message
    assert "of the last good step" in message
    with pytest.raises(ValueError, match="patience must be a number >= 1, got 0"):
        gs.check(state, patience=0)


def train(tx: optax.GradientTransformation, every: int, steps: int = 100) -> Any:
    """Return the state after steps of which one in ``every`` has a large gradient."""
    loud = jnp.arange(1, steps + 1) % every == 0
    return train_on(tx, jnp.where(loud, 1e3, 1.0 + 0.1 * jnp.sin(jnp.arange(steps))))


def train_on(tx: optax.GradientTransformation, sizes: Any, *, losses: Any = 1.0) -> Any:
    """Return the state after gradients of these sizes and losses."""
    tx = optax.with_extra_args_support(tx)
    sizes = jnp.asarray(sizes, jnp.float32)
    losses = jnp.broadcast_to(jnp.asarray(losses, jnp.float32), sizes.shape)

    def step(state: Any, now: Any) -> tuple[Any, None]:
        size, loss = now
        gradients = jax.tree.map(lambda g: g * size, CALM)
        return tx.update(gradients, state, PARAMS, value=loss)[1], None

    return jax.jit(lambda state: jax.lax.scan(step, state, (sizes, losses))[0])(tx.init(PARAMS))


def test_a_steady_share_of_large_gradients_is_told_and_check_warns() -> None:
    """Pitfall: a task that is always rejected is never learned, and no message says so."""
    state = train(gs.guard(optax.sgd(0.1)), every=10)
    health = gs.health(state)
    assert (health.rejected, health.clipped) == (3, 7)
    assert "7 clipped because the gradient norm was far above its usual range" in gs.explain(state)
    told = r"Of the last 1,000 gradients or so, 7\.\d % were far above the usual norm, again and"
    with pytest.warns(gs.RecurringGradients, match=told):
        gs.check(state)
    rejecting = train(gs.guard(optax.sgd(0.1), gs.rules.log_mad(reject_recurring=True)), every=10)
    assert gs.health(rejecting).rejected == 10
    # The text is true of both.
    for one in (state, rejecting):
        assert (
            "a task or a kind of batch, or a broken reader. They are clipped to it, or rejected"
            in (gs.explain(one))
        )


def test_check_warns_of_the_member_whose_share_is_largest() -> None:
    tx = gs.guard(optax.sgd(0.1))
    states = [train(tx, every=every) for every in (1000, 5, 20)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    with pytest.warns(gs.RecurringGradients, match=r"1\d % were far above"):
        gs.check(stacked)


@pytest.mark.parametrize("factor", [10.0, 30.0, 1000.0])
@pytest.mark.parametrize("at", [20, 50, 100])
def test_check_is_silent_about_a_level_that_has_risen_for_good(at: int, factor: float) -> None:
    """Pitfall: what was let in until the rule had adapted was called a steady share."""
    noise = np.random.default_rng(0).standard_normal(at + 300)
    sizes = np.exp(0.3 * noise) * np.where(np.arange(at + 300) < at, 1.0, factor)
    gs.check(train_on(gs.guard(optax.sgd(0.1)), sizes))


@pytest.mark.parametrize("factor", [2.0, 10.0, 100.0])
@pytest.mark.parametrize("at", [20, 100, 400])
def test_check_is_silent_about_losses_that_have_risen_for_good(at: int, factor: float) -> None:
    noise = np.random.default_rng(0).standard_normal(at + 500)
    losses = 3.0 * np.where(np.arange(at + 500) < at, 1.0, factor) + 0.05 * noise
    tx = gs.guard(optax.sgd(0.1), gs.rules.loss_spike())
    gs.check(train_on(tx, jnp.ones(at + 500), losses=losses))


def test_check_warns_of_losses_and_of_norms_by_the_rule_that_lets_them_in() -> None:
    often = np.arange(1, 301) % 10 == 0
    noise = 0.05 * np.random.default_rng(0).standard_normal(300)
    by_loss = gs.guard(optax.sgd(0.1), gs.rules.loss_spike())
    with pytest.warns(gs.RecurringGradients, match=r"loss_spike\(reject_recurring=True\)"):
        gs.check(train_on(by_loss, jnp.ones(300), losses=np.where(often, 9.0, 3.0) + noise))
    by_norm = gs.guard(optax.sgd(0.1), gs.rules.ema_multiple())
    with pytest.warns(gs.RecurringGradients, match=r"ema_multiple\(reject_recurring=True\)"):
        gs.check(train_on(by_norm, np.where(often, 1e3, 1.0)))


def test_the_judge_of_a_loss_is_not_one_of_gradients() -> None:
    """Pitfall: the rule in a plateau sees losses, and was told of as if it saw gradients."""
    judge = gs.rate.reduce_on_plateau(patience=1000, rules=(gs.rules.log_mad(),))
    tx = optax.chain(gs.guard(optax.sgd(0.1)), judge)
    sizes = jnp.where(jnp.arange(1, 101) % 10 == 0, 1e3, 1.0)
    state = train_on(tx, jnp.ones(100), losses=sizes)
    assert "again and again" not in gs.explain(state)
    gs.check(state)


def test_check_is_silent_about_a_few_spikes() -> None:
    gs.check(train(gs.guard(optax.sgd(0.1)), every=40))


def test_counters_stop_at_the_largest_int32() -> None:
    tx = gs.guard(optax.sgd(0.1))
    state = tx.init(PARAMS)
    largest = jnp.asarray(2**31 - 1, jnp.int32)
    state = state._replace(ledger=state.ledger._replace(calls=largest, accepted=largest))
    _, state = tx.update(CALM, state, PARAMS)
    assert gs.health(state).count == largest
    assert gs.health(state).accepted == largest


def test_no_array_like_the_parameters_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"w": jnp.ones((64, 64))}
    inner = gs.recovery.moment_hygiene(gs.rollback(gs.guard(optax.adam(1e-3))))
    tx = gs.accumulate(gs.loss_scale(gs.backoff(inner)), 2)
    state = tx.init(params)
    sizes: list[int] = []
    get = jax.device_get

    def fetch(tree: Any) -> Any:
        sizes.extend(np.size(leaf) for leaf in jax.tree.leaves(tree))
        return get(tree)

    monkeypatch.setattr(jax, "device_get", fetch)
    gs.explain(state, params)
    gs.check(state, params)
    assert sizes
    assert max(sizes) <= 128
