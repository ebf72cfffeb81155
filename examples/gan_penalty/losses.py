"""The losses of critic and generator."""

from typing import Any

import jax
import jax.numpy as jnp

import gradstable as gs
from examples.gan_penalty.models import Critic, Generator


def critic_loss(
    critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, penalty: float
) -> jax.Array:
    """Return how much better fake points score than real ones, with the penalty.

    Without the penalty nothing limits how far apart the scores can be, and the slope of the critic
    grows forever.
    """
    loss = jnp.mean(critic(fake)) - jnp.mean(critic(real))
    if penalty == 0.0:
        return loss
    return loss + gs.losses.wgan_gp(critic, real, fake=fake, key=key, weight=penalty)


def generator_loss(generator: Generator, critic: Critic, noise: jax.Array) -> jax.Array:
    """Return how badly the points generated from this noise score."""
    return -jnp.mean(critic(generator(noise)))


def slope(critic: Critic, points: Any) -> jax.Array:
    """Return the root-mean-square slope of the critic at these points."""
    return jnp.sqrt(gs.losses.r1(critic, points, weight=2.0))
