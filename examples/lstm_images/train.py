"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.lstm_images import input_pipeline
from examples.lstm_images.configs.default import Config
from examples.lstm_images.models import RowReader


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config) -> RowReader:
    """Return a new network."""
    model = RowReader(
        input_pipeline.COLUMNS,
        config.hidden,
        input_pipeline.CLASSES,
        dtype=faults.dtype(config.fault),
        rngs=nnx.Rngs(config.seed),
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def loss_fn(model: RowReader, batch: Any) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    logits = model(batch.images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""
    grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)

    @nnx.jit
    def train_step(model: RowReader, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = grad_fn(model, batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def evaluate(model: RowReader, batch: Any) -> jax.Array:
    """Return the accuracy on these images."""
    return jnp.mean(jnp.argmax(model(batch.images), axis=-1) == batch.labels)


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then evaluate on the held-out images."""
    data, test = input_pipeline.split(held_out=config.held_out, seed=config.seed)
    stream = input_pipeline.batches(
        data, batch_size=config.batch_size, steps=config.steps, seed=config.seed
    )
    model = make_model(config)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    train_step, losses = make_train_step(config), []
    with open_log(config, params, name) as log:
        for step, batch in enumerate(stream, start=1):
            batch = faults.spoil(batch, step=step, fault=config.fault, at=config.fault_at)
            losses.append(train_step(model, optimizer, batch))
            log(optimizer.opt_state)
            if step % config.eval_every == 0:
                log.scalars(step, accuracy=float(evaluate(model, test)))
    return outcome(
        jax.device_get(losses),
        metric=evaluate(model, test),
        metric_name="test accuracy",
        opt_state=optimizer.opt_state,
        params=params,
    )
