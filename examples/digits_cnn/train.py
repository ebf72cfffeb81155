"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.digits_cnn import input_pipeline
from examples.digits_cnn.configs.default import Config
from examples.digits_cnn.models import DigitsCNN, cross_entropy, penalty
from examples.digits_cnn.stopping import Best


def make_schedule(config: Config) -> optax.Schedule:
    """Return a cosine decay with warm restarts."""
    length = max(config.steps // config.cycles, 2)
    cycle = {
        "init_value": 0.1 * config.learning_rate,
        "peak_value": config.learning_rate,
        "warmup_steps": length // 10,
        "decay_steps": length,
        "end_value": 0.01 * config.learning_rate,
    }
    return optax.sgdr_schedule([cycle] * config.cycles)


def make_model(config: Config) -> DigitsCNN:
    """Return a new network."""
    model = DigitsCNN(
        config.width,
        dropout=config.dropout,
        dtype=faults.dtype(config.fault),
        rngs=nnx.Rngs(config.seed),
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""

    def loss_fn(model: DigitsCNN, batch: input_pipeline.Batch) -> jax.Array:
        return cross_entropy(model, *batch) + penalty(model, l1=config.l1, l2=config.l2)

    @nnx.jit
    def train_step(model: DigitsCNN, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)(
            model, batch
        )
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def evaluate(model: DigitsCNN, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Return cross-entropy and accuracy; the model must be in eval mode."""
    hits = jnp.argmax(model(batch.image), axis=-1) == batch.label
    return cross_entropy(model, *batch), jnp.mean(hits)


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train until the steps or the patience run out; test the best parameters."""
    data = input_pipeline.load(config.seed)
    model = make_model(config)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    train_step = make_train_step(config)
    stream = input_pipeline.batches(
        data.train, steps=config.steps, batch_size=config.batch_size, seed=config.seed
    )
    best, losses = Best(), []
    with open_log(config, params, name) as log:
        for step, batch in enumerate(stream, start=1):
            batch = faults.spoil(batch, step=step, fault=config.fault, at=config.fault_at)
            losses.append(train_step(model, optimizer, batch))
            log(optimizer.opt_state)
            if step % config.eval_every == 0:
                model.eval()
                loss, accuracy = map(float, evaluate(model, data.validation))
                model.train()
                log.scalars(step, validation_loss=loss, validation_accuracy=accuracy)
                best = best.look(step, loss, jax.tree.map(jnp.copy, nnx.state(model, nnx.Param)))
                if best.waited >= config.patience:
                    log.note(step, f"stopped early; the best was step {best.step}")
                    break
    if best.params is not None:
        nnx.update(model, best.params)
    model.eval()
    _, accuracy = evaluate(model, data.test)
    return outcome(
        jax.device_get(losses),
        metric=accuracy,
        metric_name="test accuracy",
        opt_state=optimizer.opt_state,
        params=params,
    )
