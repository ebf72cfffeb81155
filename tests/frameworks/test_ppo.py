"""PPO in one jitted program, as in purejaxrl: nothing on the host sees a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from tests.frameworks.trouble import is_finite

UPDATES, EPOCHS, STEPS, ENVS = 60, 2, 16, 32
BROKEN_UPDATE = 40


class Rollout(NamedTuple):
    position: jax.Array
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array


def policy(params: Any, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits of going left and right, and the value, of being on a line."""
    hidden = jnp.tanh(position[..., None] * params["hidden"] + params["bias"])
    return hidden @ params["actor"], hidden @ params["critic"]


def play(params: Any, key: jax.Array) -> Rollout:
    """Walk for some steps from random places; a step earns more the nearer it ends to 0."""

    def walk(position: jax.Array, key: jax.Array) -> tuple[jax.Array, Rollout]:
        logits, _ = policy(params, position)
        action = jax.random.categorical(key, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        moved = jnp.clip(position + 0.2 * (2 * action - 1), -2, 2)
        return moved, Rollout(position, action, log_prob, -jnp.abs(moved))

    start_key, walk_key = jax.random.split(key)
    start = jax.random.uniform(start_key, (ENVS,), minval=-2, maxval=2)
    return jax.lax.scan(walk, start, jax.random.split(walk_key, STEPS))[1]


def loss_fn(params: Any, rollout: Rollout) -> jax.Array:
    logits, value = policy(params, rollout.position)
    advantage = rollout.reward - value
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), rollout.action[..., None], -1)[
        ..., 0
    ]
    ratio = jnp.exp(log_prob - rollout.log_prob)
    weight = jax.lax.stop_gradient(advantage - advantage.mean())
    gain = jnp.minimum(ratio * weight, jnp.clip(ratio, 0.8, 1.2) * weight)
    return -gain.mean() + 0.5 * jnp.mean(advantage**2)


def train(
    tx: optax.GradientTransformationExtraArgs, params: Any
) -> tuple[Any, optax.OptState, jax.Array]:
    def update(carry: Any, step: jax.Array) -> Any:
        def epoch(carry: Any, _: None) -> Any:
            params, opt_state = carry
            loss, gradients = jax.value_and_grad(loss_fn)(params, rollout)
            updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
            return (optax.apply_updates(params, updates), opt_state), None

        rollout = play(carry[0], jax.random.fold_in(jax.random.key(1), step))
        # A simulator that fails once.
        broken = jnp.where(step == BROKEN_UPDATE, jnp.nan, rollout.reward[3, 5])
        rollout = rollout._replace(reward=rollout.reward.at[3, 5].set(broken))
        carry, _ = jax.lax.scan(epoch, carry, None, length=EPOCHS)
        return carry, rollout.reward.mean()

    (params, opt_state), rewards = jax.lax.scan(
        update, (params, tx.init(params)), jnp.arange(UPDATES)
    )
    return params, opt_state, rewards


def start(key: jax.Array) -> Any:
    hidden, actor, critic = jax.random.split(key, 3)
    return {
        "hidden": jax.random.normal(hidden, (16,)),
        "bias": jnp.zeros(16),
        "actor": 0.1 * jax.random.normal(actor, (16, 2)),
        "critic": 0.1 * jax.random.normal(critic, (16,)),
    }


def test_one_broken_rollout_costs_its_epochs() -> None:
    params, opt_state, rewards = jax.jit(lambda p: train(gs.protect(optax.adam(1e-2)), p))(
        start(jax.random.key(0))
    )
    assert is_finite(params)
    assert int(gs.health(opt_state).rejected) == EPOCHS
    steps = gs.telemetry.read_rows(opt_state, since=BROKEN_UPDATE * EPOCHS).steps
    assert [row["step"] for row in steps if row["scale"] == 0] == [81, 82]
    assert rewards[-5:].mean() > rewards[:5].mean() + 0.3


def test_without_the_guard_the_policy_is_lost() -> None:
    params, _, _ = jax.jit(lambda p: train(optax.adam(1e-2), p))(start(jax.random.key(0)))
    assert not is_finite(params)


def test_many_seeds_at_once_are_judged_one_by_one() -> None:
    keys = jax.random.split(jax.random.key(2), 3)
    tx = gs.guard(optax.adam(1e-2))
    params, opt_state, _ = jax.jit(jax.vmap(lambda key: train(tx, start(key))))(keys)
    assert is_finite(params)
    assert gs.health(opt_state).rejected.tolist() == [EPOCHS] * 3
