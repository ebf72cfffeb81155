"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.tabular_mlp import input_pipeline
from examples.tabular_mlp.configs.default import Config
from examples.tabular_mlp.models import MLP, cross_entropy


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config, data: input_pipeline.Batch) -> MLP:
    """Return a new network for this data set."""
    model = MLP(
        data.x.shape[1],
        config.hidden,
        int(data.label.max()) + 1,
        dtype=faults.dtype(config.fault),
        rngs=nnx.Rngs(config.seed),
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""
    grad_fn = faults.value_and_grad(cross_entropy, fault=config.fault, scale=config.loss_scale)

    @nnx.jit
    def train_step(model: MLP, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = grad_fn(model, *batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def accuracy(model: MLP, batch: Any) -> jax.Array:
    """Return the accuracy on these rows."""
    return jnp.mean(jnp.argmax(model(batch.x), axis=-1) == batch.label)


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then test."""
    train_data, test_data = input_pipeline.load(config.dataset, seed=config.seed)
    model = make_model(config, train_data)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    train_step = make_train_step(config)
    stream = input_pipeline.batches(
        train_data, steps=config.steps, batch_size=config.batch_size, seed=config.seed
    )
    losses = []
    with open_log(config, params, name) as log:
        for step, batch in enumerate(stream, start=1):
            batch = faults.spoil(batch, step=step, fault=config.fault, at=config.fault_at)
            losses.append(train_step(model, optimizer, batch))
            log(optimizer.opt_state)
        test_accuracy = accuracy(model, test_data)
        log.scalars(config.steps, test_accuracy=test_accuracy)
    return outcome(
        jax.device_get(losses),
        metric=test_accuracy,
        metric_name="test accuracy",
        opt_state=optimizer.opt_state,
        params=params,
    )
