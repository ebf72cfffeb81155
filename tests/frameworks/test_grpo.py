"""GRPO on a tiny policy: a group in which all answers are equally good divides by nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from tests.frameworks.trouble import is_finite

PROMPTS, GROUP, LENGTH, TOKENS, UPDATES = 4, 16, 3, 5, 120


def answer(params: Any, key: jax.Array) -> jax.Array:
    """Return a group of answers to each prompt, int32[prompts, group, length]."""
    logits = jnp.broadcast_to(params["logits"][:, None], (PROMPTS, GROUP, LENGTH, TOKENS))
    return jax.random.categorical(key, logits)


def log_prob(params: Any, answers: jax.Array) -> jax.Array:
    logits = jax.nn.log_softmax(params["logits"])[:, None]
    return jnp.take_along_axis(logits, answers[..., None], -1)[..., 0].sum(-1)


def advantage(rewards: jax.Array, eps: float) -> jax.Array:
    return (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + eps)


def train(
    tx: optax.GradientTransformationExtraArgs, *, eps: float
) -> tuple[Any, optax.OptState, jax.Array]:
    target = jnp.arange(PROMPTS) + 1  # the token that answers each prompt

    def update(carry: Any, key: jax.Array) -> Any:
        params, opt_state = carry
        answers = answer(params, key)
        # Whole numbers, whose mean and deviation are exact however they are computed.
        rewards = jnp.sum(answers == target[:, None, None], axis=-1, dtype=jnp.float32)
        old = log_prob(params, answers)

        def loss_fn(params: Any) -> jax.Array:
            ratio = jnp.exp(log_prob(params, answers) - old)
            weight = advantage(rewards, eps)
            return -jnp.minimum(ratio * weight, jnp.clip(ratio, 0.8, 1.2) * weight).mean()

        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), rewards.mean() / LENGTH

    params = {"logits": jnp.zeros((PROMPTS, LENGTH, TOKENS))}
    (params, opt_state), rewards = jax.lax.scan(
        update, (params, tx.init(params)), jax.random.split(jax.random.key(0), UPDATES)
    )
    return params, opt_state, rewards


def test_groups_without_a_difference_are_left_out() -> None:
    params, opt_state, rewards = jax.jit(lambda: train(gs.protect(optax.adam(0.1)), eps=0.0))()
    assert is_finite(params)
    assert int(gs.health(opt_state).rejected) > 0
    assert rewards[-5:].mean() > 0.9 > 0.3 > rewards[0]


def test_without_the_guard_the_policy_is_lost() -> None:
    params, _, _ = jax.jit(lambda: train(optax.adam(0.1), eps=0.0))()
    assert not is_finite(params)


def test_the_eps_of_its_papers_leaves_nothing_to_reject() -> None:
    params, opt_state, rewards = jax.jit(lambda: train(gs.protect(optax.adam(0.1)), eps=1e-4))()
    assert is_finite(params)
    assert int(gs.health(opt_state).rejected) == 0
    assert rewards[-5:].mean() > 0.9
