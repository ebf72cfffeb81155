"""The whole training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.detection import input_pipeline
from examples.detection.boxes import box_loss, iou
from examples.detection.configs.default import Config
from examples.detection.models import Detector

_LOG_EVERY = 200


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_model(config: Config) -> Detector:
    """Return a new detector."""
    model = Detector(dtype=faults.dtype(config.fault), rngs=nnx.Rngs(config.seed))
    faults.explode(model, fault=config.fault, factor=config.explode_factor)
    return model


def make_train_step(config: Config) -> Any:
    """Return the compiled step, which updates model and optimizer in place and returns the loss."""

    def loss_fn(model: Detector, batch: Any) -> jax.Array:
        logits, boxes = model(batch.image)
        naming = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
        placing = box_loss(config.box_loss, boxes, batch.box)
        return jnp.mean(naming + config.box_weight * placing)

    @nnx.jit
    def train_step(model: Detector, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        grad_fn = faults.value_and_grad(loss_fn, fault=config.fault, scale=config.loss_scale)
        loss, grads = grad_fn(model, batch)
        optimizer.update(model, grads, value=loss)
        return loss

    return train_step


@nnx.jit
def evaluate(model: Detector, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Return the accuracy of the classes and the mean IoU of the boxes."""
    logits, boxes = model(batch.image)
    hits = jnp.argmax(logits, axis=-1) == batch.label
    return jnp.mean(hits), jnp.mean(iou(boxes, batch.box))


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then test on digits the model has never seen."""
    digits, unseen = input_pipeline.load(seed=config.seed)
    test = input_pipeline.test_set(unseen, copies=config.test_copies, seed=config.seed)
    model = make_model(config)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    step_fn = make_train_step(config)
    stream = input_pipeline.batches(digits, size=config.batch_size, seed=config.seed)
    losses = []
    with open_log(config, params, name) as log:
        for step in range(1, config.steps + 1):
            batch = faults.spoil(
                next(stream), step=step, fault=config.fault, at=config.fault_at, fields=["image"]
            )
            losses.append(step_fn(model, optimizer, batch))
            log(optimizer.opt_state)
            if step % _LOG_EVERY == 0:
                right, overlap = map(float, evaluate(model, test))
                log.scalars(step, test_accuracy=right, test_iou=overlap)
    right, overlap = map(float, evaluate(model, test))
    print(f"{name}: test accuracy {right:.4f}, mean IoU {overlap:.4f}")
    return outcome(
        jax.device_get(losses),
        metric=overlap,
        metric_name="mean IoU",
        opt_state=optimizer.opt_state,
        params=params,
    )
