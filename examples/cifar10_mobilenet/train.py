"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples.cifar10_mobilenet import input_pipeline, models
from examples.cifar10_mobilenet.configs.default import Config
from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log

_TEST_BATCH = 500


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config) -> models.Classifier:
    """Return a new network."""
    model = models.build(
        config.model, width=config.width, dtype=faults.dtype(config.fault), seed=config.seed
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def loss_fn(model: models.Classifier, batch: Any) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    logits = model(batch.image)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.label))


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""

    @nnx.jit
    def train_step(model: models.Classifier, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)
        loss, grads = grad_fn(model, batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def count_hits(model: models.Classifier, batch: Any) -> jax.Array:
    return jnp.sum(jnp.argmax(model(batch.image), axis=-1) == batch.label)


def accuracy(model: models.Classifier, data: input_pipeline.Dataset) -> float:
    """Return the accuracy on the test images."""
    parts = input_pipeline.test_batches(data, size=_TEST_BATCH)
    return float(np.sum([count_hits(model, part) for part in parts]) / len(data.test.label))


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then test."""
    data = input_pipeline.load(config.data_dir, seed=config.seed, md5=config.md5)
    model = make_model(config)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    step_fn = make_train_step(config)
    stream = input_pipeline.batches(
        data, size=config.batch_size, seed=config.seed, augment=config.augment
    )
    losses = []
    with open_log(config, params, name) as log:
        for step in range(1, config.steps + 1):
            batch = faults.spoil(next(stream), step=step, fault=config.fault, at=config.fault_at)
            losses.append(step_fn(model, optimizer, batch))
            log(optimizer.opt_state)
        test_accuracy = accuracy(model, data)
        log.scalars(config.steps, test_accuracy=test_accuracy)
    return outcome(
        jax.device_get(losses),
        metric=test_accuracy,
        metric_name=f"test accuracy, {data.name}",
        opt_state=optimizer.opt_state,
        params=params,
    )
