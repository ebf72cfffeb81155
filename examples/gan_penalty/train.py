"""The whole training loop: two networks, each with its own optimizer."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, make_tx, outcome
from examples.common.records import open_log
from examples.gan_penalty import input_pipeline, metrics
from examples.gan_penalty.configs.default import Config
from examples.gan_penalty.losses import critic_loss, generator_loss, slope
from examples.gan_penalty.models import Critic, Generator


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up and a cosine decay over the steps of the critic."""
    warmup = max(config.steps // 50, 1)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)


def make_generator_tx(config: Config, name: Any) -> optax.GradientTransformation:
    """Return the optimizer of the generator, which counts its own, less frequent steps.

    Its learning rate is that of the critic at the same time, including the fault.
    """
    schedule, each = make_schedule(config), config.critic_steps
    own = dataclasses.replace(config, fault_at=config.fault_at // each)
    return make_tx(own, lambda count: schedule(count * each), name)


def make_models(config: Config) -> tuple[Generator, Critic]:
    """Return new networks."""
    dtype, rngs = faults.dtype(config.fault), nnx.Rngs(config.seed)
    generator = Generator(config.noise, config.hidden, dtype=dtype, rngs=rngs)
    critic = Critic(config.hidden, dtype=dtype, rngs=rngs)
    for model in (generator, critic):
        faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return generator, critic


def make_train_steps(config: Config) -> tuple[Any, Any]:
    """Return the compiled steps of critic and generator, each of which returns its loss."""

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (config.batch_size, config.noise))

    @nnx.jit
    def critic_step(
        critic: Critic, optimizer: nnx.Optimizer, generator: Generator, real: Any, key: jax.Array
    ) -> jax.Array:
        for_noise, for_penalty = jax.random.split(key)
        fake = generator(draw(for_noise))

        def loss_fn(critic: Critic) -> jax.Array:
            return critic_loss(critic, real, fake, for_penalty, config.penalty)

        grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)
        loss, grads = grad_fn(critic)
        optimizer.update(critic, grads, value=loss)
        return loss

    @nnx.jit
    def generator_step(
        generator: Generator, optimizer: nnx.Optimizer, critic: Critic, key: jax.Array
    ) -> jax.Array:
        def loss_fn(generator: Generator) -> jax.Array:
            return generator_loss(generator, critic, draw(key))

        grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)
        loss, grads = grad_fn(generator)
        optimizer.update(generator, grads, value=loss)
        return loss

    return critic_step, generator_step


@nnx.jit
def evaluate(
    generator: Generator, critic: Critic, noise: Any, real: Any
) -> tuple[jax.Array, jax.Array]:
    """Return generated points, and the critic's slope at the real ones."""
    return generator(noise), slope(critic, real)


def train(config: Config, tx: optax.GradientTransformation, name: Any) -> Outcome:
    """Train for all steps, then compare generated points with new real ones."""
    generator, critic = make_models(config)
    of_critic = nnx.Optimizer(critic, tx, wrt=nnx.Param)
    of_generator = nnx.Optimizer(generator, make_generator_tx(config, name), wrt=nnx.Param)
    critic_step, generator_step = make_train_steps(config)
    params = nnx.state(critic, nnx.Param)
    key, rng = jax.random.key(config.seed), np.random.default_rng([config.seed, 1])
    test = input_pipeline.sample(rng, config.test_size)
    noise = rng.standard_normal((config.test_size, config.noise), np.float32)
    stream = input_pipeline.batches(
        batch_size=config.batch_size, steps=config.steps, seed=config.seed
    )
    losses = []
    with open_log(config, params, name) as log:
        for step, batch in enumerate(stream, start=1):
            batch = faults.spoil(batch, step=step, fault=config.fault, at=config.fault_at)
            keys = jax.random.split(jax.random.fold_in(key, step))
            losses.append(critic_step(critic, of_critic, generator, batch.points, keys[0]))
            if step % config.critic_steps == 0:
                generator_step(generator, of_generator, critic, keys[1])
            log(of_critic.opt_state)
            if step % config.eval_every == 0:
                points, steepness = evaluate(generator, critic, noise, test)
                log.scalars(step, slope=float(steepness), **metrics.judge(points, test))
    points, steepness = evaluate(generator, critic, noise, test)
    ended = metrics.judge(points, test)
    covered = f"{ended['places_covered']} of {input_pipeline.PLACES} centers covered"
    print(f"{name}: {covered}, slope of the critic {float(steepness):.3g}")
    return outcome(
        jax.device_get(losses),
        metric=ended["sliced_wasserstein"],
        metric_name="sliced Wasserstein distance",
        opt_state=of_critic.opt_state,
        params=params,
    )
