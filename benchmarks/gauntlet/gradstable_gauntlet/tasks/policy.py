"""A policy gradient: a point learns from rewards alone to move to the origin."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import FLOOR, calm, cast, dense, stack

_LENGTH, _SPEED, _WALL = 20, 0.4, 2.0
_DISCOUNT, _CLIP, _VALUE, _ENTROPY = 0.9, 0.2, 0.5, 0.003


class _Episodes(NamedTuple):
    """What happened, ``[steps, episodes, ...]``."""

    seen: jax.Array
    done: jax.Array  # the action before it is squashed
    reward: jax.Array


def policy(*, dtype: DTypeLike = jnp.float32, width: int = 16, steps: int = 400) -> Task:
    """Return the task of steering a point in the plane to 0, by proximal policy optimization.

    Every step plays sixteen episodes of 20 moves, and takes the first gradient of PPO (Schulman et
    al. 2017, arXiv:1707.06347) on them: the clipped surrogate at a ratio of 1, with normalized
    advantages, half the squared error of a value head, and a bonus for entropy. Nothing is
    differentiated through the environment. The loss is noisy, can be negative, and rises as the
    policy gets better and its values larger. The reward is minus the squared distance, and what
    counts is its mean, without the sign, plus 0.05. ``inputs`` multiplies what is seen, ``targets``
    the rewards.
    """

    def init(key: jax.Array) -> Params:
        one, other = jax.random.split(key)
        actor, critic = stack(one, 2, width, 2, gain=1.0), stack(other, 2, width, 1, gain=1.0)
        return {"actor": actor, "critic": critic, "spread": jnp.zeros(2)}

    def network(layers: list[Params], x: jax.Array) -> jax.Array:
        layers, x = cast((layers, x), dtype)
        return dense(jnp.tanh(dense(x, layers[0])), layers[1]).astype(jnp.float32)

    def play(params: Params, batch: Batch, ill: Disturbance) -> _Episodes:
        def move(place: jax.Array, noise: jax.Array) -> tuple[jax.Array, _Episodes]:
            seen = place * ill.inputs
            done = network(params["actor"], seen) + jnp.exp(params["spread"]) * noise
            place = jnp.clip(place + _SPEED * jnp.tanh(done), -_WALL, _WALL)
            return place, _Episodes(seen, done, -jnp.sum(place**2, -1) * ill.targets)

        return lax.scan(move, *batch)[1]

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        seen, done, reward = lax.stop_gradient(play(params, batch, ill))
        values = network(params["critic"], seen)[..., 0]

        def add(later: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            return now + _DISCOUNT * later, now + _DISCOUNT * later

        _, returns = lax.scan(add, jnp.zeros(reward.shape[1]), reward, reverse=True)
        error = returns - values
        gain = lax.stop_gradient(error)
        gain = (gain - jnp.mean(gain)) / (jnp.std(gain) + 1e-6)
        odds = jnp.sum(_log_odds(params, network(params["actor"], seen), done), -1)
        ratio = jnp.exp(odds - lax.stop_gradient(odds))
        kept = jnp.clip(ratio, 1 - _CLIP, 1 + _CLIP)
        surrogate = jnp.mean(jnp.minimum(ratio * gain, kept * gain))
        return _VALUE * jnp.mean(error**2) - surrogate - _ENTROPY * jnp.sum(params["spread"])

    def held_out(params: Params) -> jax.Array:
        return FLOOR - jnp.mean(play(params, _fresh(jax.random.key(99), 64), calm()).reward)

    about = "policy gradient (PPO): a point in the plane is steered to 0"
    return Task(init, lambda key: _fresh(key, 16), loss, held_out, steps, about)


def _fresh(key: jax.Array, episodes: int) -> Batch:
    """Return where episodes start ``[episodes, 2]``, and the noise of their moves."""
    noise = jax.random.normal(key, (1 + _LENGTH, episodes, 2))
    return jnp.clip(noise[0], -_WALL, _WALL), noise[1:]


def _log_odds(params: Params, mean: jax.Array, done: jax.Array) -> jax.Array:
    """Return the logarithms of the densities of actions, up to a constant."""
    away = (done - mean) * jnp.exp(-params["spread"])
    return -0.5 * away**2 - params["spread"]
