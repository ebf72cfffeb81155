"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gradstable as gs
from examples.char_transformer import input_pipeline
from examples.char_transformer.configs.default import Config
from examples.char_transformer.models import CharTransformer
from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config) -> CharTransformer:
    """Return a new network."""
    model = CharTransformer(
        vocabulary=input_pipeline.VOCABULARY,
        context=config.context,
        features=config.features,
        heads=config.heads,
        layers=config.layers,
        dtype=faults.dtype(config.fault),
        rngs=nnx.Rngs(config.seed),
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def loss_fn(model: CharTransformer, batch: Any, z_weight: float) -> jax.Array:
    """Return the weighted cross-entropy in nats per character, plus the z-loss."""
    losses = gs.losses.softmax_cross_entropy(model(batch.tokens), batch.targets, z_weight=z_weight)
    return jnp.mean(batch.weights * jnp.mean(losses, axis=1))


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""

    def train_loss(model: CharTransformer, batch: Any) -> jax.Array:
        return loss_fn(model, batch, config.z_weight)

    grad_fn = faults.value_and_grad(train_loss, fault=config.fault, scale=config.loss_scale)

    @nnx.jit
    def train_step(model: CharTransformer, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = grad_fn(model, batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def evaluate(model: CharTransformer, batch: Any) -> jax.Array:
    """Return the cross-entropy of a text in bits per character."""
    return loss_fn(model, batch, z_weight=0.0) / jnp.log(2.0)


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then evaluate on the held-out text."""
    tokens = input_pipeline.encode(input_pipeline.text())
    text, held = input_pipeline.split(tokens, held_out=config.held_out)
    validation = input_pipeline.whole(held, context=config.context)
    unigrams = input_pipeline.unigram_bits(text, held)
    stream = input_pipeline.batches(
        text,
        context=config.context,
        batch_size=config.batch_size,
        steps=config.steps,
        seed=config.seed,
    )
    model = make_model(config)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    train_step, losses = make_train_step(config), []
    with open_log(config, params, name) as log:
        for step, batch in enumerate(stream, start=1):
            # Characters cannot be too large, but the weights of the pieces can.
            batch = faults.spoil(
                batch, step=step, fault=config.fault, at=config.fault_at, fields=["weights"]
            )
            losses.append(train_step(model, optimizer, batch))
            log(optimizer.opt_state)
            if step % config.eval_every == 0:
                log.scalars(step, held_out_bits=float(evaluate(model, validation)))
    return outcome(
        jax.device_get(losses),
        metric=evaluate(model, validation),
        metric_name=f"held-out bits per character (unigrams: {unigrams:.2f})",
        opt_state=optimizer.opt_state,
        params=params,
    )
