"""Games between two networks: a generator and a discriminator, or a critic, in the plane."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradstable.losses import r1, wgan_gp
from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import FLOOR, cast, dense, index, stack

_MODES, _LATENT, _JUDGED = 8, 2, 256
_SLOW = 0.1  # the rate of the generator, as part of that of its critic


def gan(
    *,
    dtype: DTypeLike = jnp.float32,
    width: int = 24,
    batch_size: int = 64,
    weight: float = 1.0,
    steps: int = 500,
) -> Task:
    """Return a generative adversarial network for eight Gaussians on a ring.

    Both players move simultaneously, each along the gradient of its own loss: the losses do not
    saturate (Goodfellow et al. 2014, arXiv:1406.2661), and R1 with factor ``weight`` damps the
    rotation about the equilibrium (Mescheder et al. 2018, arXiv:1801.04406). Nothing is minimized,
    so an update that is larger or later than intended can be unrecoverable. What counts is the
    energy distance between generated and real samples (Székely, Rizzo, 2013) plus 0.05. ``inputs``
    multiplies the real samples, ``targets`` the labels, and so the losses of both.
    """

    def init(key: jax.Array) -> Params:
        one, other = jax.random.split(key)
        return {
            "generator": stack(one, _LATENT, width, width, 2),
            "discriminator": stack(other, 2, width, width, 1),
        }

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        real, latent = cast((batch[0] * ill.inputs, batch[1]), dtype)
        p = cast(params, dtype)
        fake = _network(p["generator"], latent)

        def score(judge: Params, x: jax.Array) -> jax.Array:
            return _network(judge, x)[:, 0].astype(jnp.float32)

        def wrong(scores: jax.Array) -> jax.Array:
            return jnp.mean(jax.nn.softplus(scores)) * ill.targets

        total = wrong(-score(p["discriminator"], real))
        total += wrong(score(p["discriminator"], lax.stop_gradient(fake)))
        total += r1(lambda x: score(p["discriminator"], x), real, weight=weight)
        return total + wrong(-score(lax.stop_gradient(p["discriminator"]), fake))

    def held_out(params: Params) -> jax.Array:
        real, latent = _sample(jax.random.key(99), _JUDGED)
        fake = _network(cast(params["generator"], dtype), latent.astype(dtype))
        return _energy_distance(fake.astype(jnp.float32), real) + FLOOR

    about = "generator and discriminator play for eight Gaussians on a ring"
    return Task(init, lambda key: _sample(key, batch_size), loss, held_out, steps, about)


def wgan(
    *,
    dtype: DTypeLike = jnp.float32,
    width: int = 24,
    batch_size: int = 64,
    weight: float = 1.0,
    steps: int = 500,
) -> Task:
    """Return the same game with a Wasserstein critic and a gradient penalty.

    The critic says by how much real samples score higher (Gulrajani et al. 2017,
    arXiv:1704.00028), so the training loss can be negative, has no scale, and does not tell how
    good the generator is. Nothing is wrong with that. The penalty is one-sided, with which a factor
    of 1 is enough (Petzka et al. 2017, arXiv:1709.08894). Both players move at once, as in ``gan``,
    but the generator at a tenth of the rate (Heusel et al. 2017, arXiv:1706.08500), since its
    parameters count a tenth. What counts is the same. ``targets`` multiplies the scores.
    """
    game = gan(dtype=dtype, width=width, batch_size=batch_size, steps=steps)

    def init(key: jax.Array) -> Params:
        params = game.init(key)
        return {**params, "generator": jax.tree.map(lambda x: x / _SLOW, params["generator"])}

    def slowed(params: Params) -> Params:
        return {**params, "generator": jax.tree.map(lambda x: x * _SLOW, params["generator"])}

    def batch(key: jax.Array) -> Batch:
        return *_sample(key, batch_size), jax.random.fold_in(key, 2)

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        real, latent = cast((batch[0] * ill.inputs, batch[1]), dtype)
        p = cast(slowed(params), dtype)
        fake = _network(p["generator"], latent)
        still = lax.stop_gradient(fake)

        def score(judge: Params, x: jax.Array) -> jax.Array:
            return _network(judge, x)[:, 0].astype(jnp.float32) * ill.targets

        def judge(x: jax.Array) -> jax.Array:
            return score(p["discriminator"], x)

        total = jnp.mean(judge(still)) - jnp.mean(judge(real))
        total += wgan_gp(judge, real, fake=still, key=batch[2], weight=weight, one_sided=True)
        return total - jnp.mean(score(lax.stop_gradient(p["discriminator"]), fake))

    about = "generator and Wasserstein critic play for eight Gaussians on a ring"
    return Task(init, batch, loss, lambda params: game.held_out(slowed(params)), steps, about)


def _network(layers: list[Params], x: jax.Array) -> jax.Array:
    for layer in layers[:-1]:
        x = jax.nn.leaky_relu(dense(x, layer), 0.2)
    return dense(x, layers[-1])


def _sample(key: jax.Array, size: int) -> Batch:
    """Return real samples ``[size, 2]`` and latent samples to generate fake ones from."""
    noise = jax.random.normal(key, (size, 2 + _LATENT))
    uniform = jax.random.uniform(jax.random.fold_in(key, 1), (size,))
    angle = index(uniform, _MODES) * (2 * jnp.pi / _MODES)
    modes = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    return modes + 0.1 * noise[:, :2], noise[:, 2:]


def _energy_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return twice the mean distance between two samples minus those within each, at least 0."""

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        gaps = a[:, None] - b[None]
        return jnp.mean(jnp.sqrt(jnp.sum(gaps * gaps, -1)))

    return jnp.maximum(2 * between(x, y) - between(x, x) - between(y, y), 0.0)
