"""The same loop, protected, with a log and a report."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

STEPS, ENVS, LENGTH = 60, 16, 32
tx = gs.protect(optax.adam(3e-3))


def act(params: Any, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits of pushing left and right, and the value of a state."""
    hidden = jnp.tanh(state @ params["in"])
    return hidden @ params["policy"], (hidden @ params["value"])[..., 0]


def move(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Push an unstable pole; the reward is high while it stands."""
    angle, speed = state[..., 0], state[..., 1]
    speed = speed + 0.1 * (angle + 2.0 * action - 1.0)
    angle = angle + 0.1 * speed
    fallen = jnp.abs(angle) > 1.0
    state = jnp.where(fallen[..., None], 0.0, jnp.stack([angle, speed], axis=-1))
    return state, jnp.where(fallen, -1.0, 0.1)


def rollout(params: Any, state: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
    def step(state: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, value = act(params, state)
        action = jax.random.categorical(key, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], -1)[..., 0]
        new, reward = move(state, action)
        return new, (state, action, log_prob, reward, value)

    return jax.lax.scan(step, state, jax.random.split(key, LENGTH))


def loss_fn(params: Any, batch: Any) -> jax.Array:
    states, actions, old, advantages, returns = batch
    logits, values = act(params, states)
    new = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]
    ratio = jnp.exp(new - old)
    gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, 0.8, 1.2) * advantages)
    return -jnp.mean(gain) + 0.5 * jnp.mean((values - returns) ** 2)


@jax.jit
def train_step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
    params, opt_state, state = carry
    key, number = given
    state, (states, actions, old, rewards, values) = rollout(params, state, key)
    rewards = jnp.where(number == 30, rewards.at[3, 5].set(jnp.nan), rewards)

    def back(after: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        return reward + 0.95 * after, reward + 0.95 * after

    _, returns = jax.lax.scan(back, values[-1], rewards, reverse=True)
    batch = states, actions, old, returns - values, returns
    for _ in range(4):
        loss, gradients = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
        params = optax.apply_updates(params, updates)
    return (params, opt_state, state), jnp.mean(rewards)


def main() -> float:
    shapes = {"in": (2, 32), "policy": (32, 2), "value": (32, 1)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = {
        name: 0.3 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    carry, reward = (params, tx.init(params), jnp.zeros((ENVS, 2))), jnp.zeros(())
    with gs.watch(tx, params, "run.jsonl", every=16) as watch:
        for number, key in enumerate(jax.random.split(jax.random.key(1), STEPS)):
            carry, reward = train_step(carry, (key, number))
            watch(carry[1])
    return float(reward)


if __name__ == "__main__":
    print(f"mean reward {main():.4f}")
