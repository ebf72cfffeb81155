"""Keras 3 on JAX: ``fit`` owns the step, so the transform comes in as a Keras optimizer."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.bits import bits
from tests.frameworks.trouble import (
    STEPS,
    assert_held,
    assert_logged,
    batches,
    is_finite,
    protected,
)

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("KERAS_HOME", f"{tempfile.gettempdir()}/gradstable-keras")
keras: Any = pytest.importorskip("keras")

pytestmark = [
    pytest.mark.slow,
    # Its own, in saving.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


class OptaxOptimizer(keras.optimizers.Optimizer):
    """Let ``model.fit`` update with an optax transform.

    The transform owns the learning rate and the weight decay: leave those of Keras alone. Keras
    passes no loss to an optimizer, so nothing that needs ``value=`` may be inside.
    """

    def __init__(self, tx: optax.GradientTransformation, *, name: str = "optax", **options: Any):
        super().__init__(learning_rate=1.0, name=name, **options)
        self.tx = [tx]  # in a list: Keras would take a tuple apart

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        leaves, self.structure = jax.tree.flatten(self.tx[0].init(named(variables)))
        self.leaves = []
        for leaf in leaves:
            variable = self.add_variable(leaf.shape, dtype=leaf.dtype.name, name="optax_state")
            variable.assign(leaf)
            self.leaves.append(variable)

    @property
    def opt_state(self) -> optax.OptState:
        """The state of the transform, for ``gs.health`` and all others that read it."""
        return jax.tree.unflatten(self.structure, [leaf.value for leaf in self.leaves])

    def _backend_update_step(
        self, grads: list[Any], trainable_variables: list[Any], learning_rate: Any
    ) -> None:
        params = named(trainable_variables)
        gradients = dict(zip(params, grads, strict=True))
        updates, opt_state = self.tx[0].update(gradients, self.opt_state, params)
        params = optax.apply_updates(params, updates)
        for variable in trainable_variables:
            variable.assign(params[variable.path])
        for variable, leaf in zip(self.leaves, jax.tree.leaves(opt_state), strict=True):
            variable.assign(leaf)


def named(variables: Sequence[Any]) -> dict[str, Any]:
    """Return the values by their paths in the model, which is what messages call them."""
    return {variable.path: variable.value for variable in variables}


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)]
    )


def train(optimizer: Any, path: Path) -> Any:
    model = network()
    model.compile(optimizer=optimizer, loss="mse")
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: watch(note.model.optimizer, loss=logs["loss"])
    )
    x, y = (np.concatenate(part) for part in zip(*batches(), strict=True))
    with gs.watch(optimizer.tx[0], named(model.trainable_variables), path, report=False) as watch:
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=[note])
    return model


def test_fit_survives(tmp_path: Path) -> None:
    model = train(OptaxOptimizer(protected()), tmp_path / "run.jsonl")
    assert is_finite(named(model.trainable_variables))
    assert_held(model.optimizer)
    assert_logged(tmp_path / "run.jsonl")
    told = gs.explain(model.optimizer, named(model.trainable_variables))
    assert "['sequential" in told  # its names of variables


def test_without_the_guard_it_does_not() -> None:
    model = network()
    model.compile(optimizer=keras.optimizers.Adam(1e-2, clipnorm=1.0), loss="mse")
    for x, y in batches():
        model.train_on_batch(x, y)
    assert not is_finite(named(model.trainable_variables))


def test_keras_owns_accumulation(tmp_path: Path) -> None:
    optimizer = OptaxOptimizer(protected(), gradient_accumulation_steps=2)
    model = network()
    model.compile(optimizer=optimizer, loss="mse")
    for x, y in batches():
        model.train_on_batch(x, y)
    health = gs.health(optimizer)
    assert int(health.count) == STEPS // 2
    assert int(health.rejected) == 2  # each bad batch has spoiled its pair
    assert is_finite(named(model.trainable_variables))


def test_the_state_is_saved_with_the_weights(tmp_path: Path) -> None:
    def made() -> Any:
        model = network()
        model.compile(optimizer=OptaxOptimizer(protected()), loss="mse")
        model.optimizer.build(model.trainable_variables)
        return model

    model, other = made(), made()
    for x, y in batches()[:130]:
        model.train_on_batch(x, y)
    model.save_weights(tmp_path / "run.weights.h5")
    other.load_weights(tmp_path / "run.weights.h5")
    assert int(gs.health(other.optimizer).rejected) == 1
    assert bits(other.optimizer.opt_state) == bits(model.optimizer.opt_state)


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    x, y = (np.concatenate(part) for part in zip(*batches()[:130], strict=True))

    def train_to(epoch: int) -> Any:
        model = network()
        model.compile(optimizer=OptaxOptimizer(protected()), loss="mse")
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0, epochs=epoch, callbacks=[backup])
        return gs.health(model.optimizer)

    train_to(1)
    health = train_to(2)
    assert (int(health.count), int(health.rejected)) == (260, 2)


def test_a_loss_scale_leaves_out_the_nan_before_the_guard() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(OptaxOptimizer(protected()))
    model = network()
    model.compile(optimizer=optimizer, loss="mse")
    for x, y in batches():
        model.train_on_batch(x, y)
    assert is_finite(named(model.trainable_variables))
    health = gs.health(optimizer.inner_optimizer)
    assert (int(health.count), int(health.rejected)) == (STEPS - 1, 1)


def test_rules_that_need_a_loss_say_that_there_is_none() -> None:
    model = network()
    model.compile(OptaxOptimizer(gs.guard(optax.sgd(0.1), gs.rules.loss_spike())), loss="mse")
    with pytest.raises(ValueError, match="a framework makes that call"):
        model.train_on_batch(*batches()[0])
