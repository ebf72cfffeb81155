"""The whole training loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from examples.common import faults
from examples.common.compare import Outcome, outcome
from examples.common.records import open_log
from examples.linen_mlp import input_pipeline
from examples.linen_mlp.configs.default import Config
from examples.linen_mlp.models import MLP


class State(TrainState):
    """A ``TrainState`` that passes the loss to the optimizer, for rules and records."""

    def apply_gradients(self, *, grads: Any, value: Any, **kwargs: Any) -> "State":
        tx = optax.with_extra_args_support(self.tx)
        updates, opt_state = tx.update(grads, self.opt_state, self.params, value=value)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def make_schedule(config: Config) -> optax.Schedule:
    """Return a warm-up over a tenth of the steps, then a cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )


def make_state(config: Config, tx: optax.GradientTransformation) -> State:
    """Return a new network with its optimizer state."""
    model = MLP(config.hidden, config.dropout, faults.dtype(config.fault))
    variables = model.init(jax.random.key(config.seed), jnp.zeros((1, 64)), train=False)
    params = faults.explode_params(
        variables["params"], fault=config.fault, factor=config.explode_factor
    )
    return State.create(apply_fn=model.apply, params=params, tx=tx)


def make_train_step(config: Config) -> Callable[[State, Any], tuple[State, jax.Array]]:
    """Return the compiled step, from state and batch to state and loss."""

    @jax.jit
    def train_step(state: State, batch: Any) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss_fn(params: Any) -> jax.Array:
            variables, rngs = {"params": params}, {"dropout": key}
            logits = state.apply_fn(variables, batch.x, train=True, rngs=rngs)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.label))

        grad_fn = faults.value_and_grad(
            loss_fn, fault=config.fault, scale=config.loss_scale, transform=jax.value_and_grad
        )
        loss, grads = grad_fn(state.params)
        return state.apply_gradients(grads=grads, value=loss), loss

    return train_step


@jax.jit
def accuracy(state: State, batch: Any) -> jax.Array:
    """Return the accuracy on these images."""
    logits = state.apply_fn({"params": state.params}, batch.x, train=False)
    return jnp.mean(jnp.argmax(logits, axis=-1) == batch.label)


def train(config: Config, tx: optax.GradientTransformation, name: str) -> Outcome:
    """Train for all steps, then test."""
    train_data, test_data = input_pipeline.load(config.seed)
    state, train_step = make_state(config, tx), make_train_step(config)
    stream = input_pipeline.batches(
        train_data, steps=config.steps, batch_size=config.batch_size, seed=config.seed
    )
    losses = []
    with open_log(config, state.params, name) as log:
        for step, batch in enumerate(stream, start=1):
            batch = faults.spoil(batch, step=step, fault=config.fault, at=config.fault_at)
            state, loss = train_step(state, batch)
            losses.append(loss)
            log(state.opt_state)
        test_accuracy = accuracy(state, test_data)
        log.scalars(config.steps, test_accuracy=test_accuracy)
    return outcome(
        jax.device_get(losses),
        metric=test_accuracy,
        metric_name="test accuracy",
        opt_state=state,
        params=state.params,
    )
