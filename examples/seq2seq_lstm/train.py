"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.seq2seq_lstm import input_pipeline
from examples.seq2seq_lstm.configs.default import Config
from examples.seq2seq_lstm.models import Seq2Seq


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config) -> Seq2Seq:
    """Return a new network."""
    model = Seq2Seq(
        len(input_pipeline.CHARACTERS),
        config.features,
        config.hidden,
        dtype=faults.dtype(config.fault),
        rngs=nnx.Rngs(config.seed),
    )
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def loss_fn(model: Seq2Seq, batch: Any) -> jax.Array:
    """Return the weighted cross-entropy, with the correct characters fed to the decoder."""
    start = jnp.full_like(batch.answers[:, :1], input_pipeline.START)
    logits = model(batch.questions, jnp.concatenate([start, batch.answers[:, :-1]], axis=1))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.answers)
    return jnp.mean(batch.weights * jnp.mean(losses, axis=1))


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""
    grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)

    @nnx.jit
    def train_step(model: Seq2Seq, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = grad_fn(model, batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def evaluate(model: Seq2Seq, batch: Any) -> jax.Array:
    """Return the fraction of sums in which every character is correct."""
    length = batch.answers.shape[1]
    solved = model.solve(batch.questions, start=input_pipeline.START, length=length)
    return jnp.mean(jnp.all(solved == batch.answers, axis=1))


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then let the model solve held-out sums."""
    pairs, held = input_pipeline.split(
        digits=config.digits, held_out=config.held_out, seed=config.seed
    )
    test = input_pipeline.encode(held, digits=config.digits)
    stream = input_pipeline.batches(
        pairs,
        digits=config.digits,
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
            # Characters cannot be too large, but the weights of the problems can.
            batch = faults.spoil(
                batch, step=step, fault=config.fault, at=config.fault_at, fields=["weights"]
            )
            losses.append(train_step(model, optimizer, batch))
            log(optimizer.opt_state)
            if step % config.eval_every == 0:
                log.scalars(step, sums_right=float(evaluate(model, test)))
    return outcome(
        jax.device_get(losses),
        metric=evaluate(model, test),
        metric_name="held-out sums right",
        opt_state=optimizer.opt_state,
        params=params,
    )
