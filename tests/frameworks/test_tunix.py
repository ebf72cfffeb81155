"""Tunix: PeftTrainer owns the loop, and wraps an optimizer in MultiSteps if asked to accumulate."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import gradstable as gs
from tests.frameworks.trouble import (
    STEPS,
    assert_held,
    assert_logged,
    batches,
    is_finite,
    protected,
)

hooks: Any = pytest.importorskip("tunix.sft.hooks")
peft_trainer: Any = pytest.importorskip("tunix.sft.peft_trainer")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
    # Its own, of functions that JAX and optax have replaced.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(3, 16, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))


class Watching(hooks.TrainingHooks):
    """Let ``gs.watch`` see every step of a trainer."""

    def __init__(self, watch: gs.Watch) -> None:
        self.watch = watch

    def on_train_step_end(self, trainer: Any, train_step: int, train_loss: float) -> None:
        params = nnx.state(trainer.model, trainer.optimizer.wrt)
        self.watch(trainer.optimizer, params, loss=train_loss)

    def on_train_start(self, trainer: Any) -> None: ...
    def on_train_end(self, trainer: Any) -> None: ...
    def on_train_step_start(self, trainer: Any) -> None: ...
    def on_eval_step_start(self, trainer: Any) -> None: ...
    def on_eval_step_end(self, trainer: Any, eval_loss: float) -> None: ...


def train(tx: optax.GradientTransformation, path: Path | None = None, **options: Any) -> Any:
    config = peft_trainer.TrainingConfig(eval_every_n_steps=STEPS, max_steps=STEPS, **options)
    trainer = peft_trainer.PeftTrainer(Net(), tx, config)
    trainer.with_loss_fn(lambda model, x, y: jnp.mean((model(x) - y) ** 2))
    data = [{"x": x, "y": y} for x, y in batches()]
    with gs.watch(tx, nnx.state(trainer.model, nnx.Param), path, report=False) as watch:
        trainer.with_training_hooks(Watching(watch))
        trainer.train(data)
    return trainer


def test_a_trainer_survives(tmp_path: Path) -> None:
    trainer = train(protected(), tmp_path / "run.jsonl")
    assert is_finite(nnx.state(trainer.model))
    assert_held(trainer.optimizer)
    assert_logged(tmp_path / "run.jsonl", first=2)  # its hooks begin after the second step


def test_without_the_guard_it_does_not() -> None:
    assert not is_finite(nnx.state(train(gs.record(optax.adam(1e-2))).model))


def test_accumulate_replaces_its_accumulation() -> None:
    trainer = train(gs.protect(optax.adam(1e-2), accumulate=2))
    health = gs.health(trainer.optimizer)
    # A mean without the micro-batch that had the NaN; the other bad one spoils its mean.
    assert (int(health.count), int(health.rejected)) == (STEPS // 2, 1)
    assert is_finite(nnx.state(trainer.model))


def test_its_own_accumulation_never_recovers_from_a_nan() -> None:
    # Also with one micro-batch a step: MultiSteps resets its mean by a product, and 0 * nan is nan.
    with pytest.raises(gs.TrainingDiverged, match="MultiSteps"):
        train(gs.protect(optax.adam(1e-2)), gradient_accumulation_steps=1)


def test_the_state_is_in_its_checkpoints(tmp_path: Path) -> None:
    first = train(protected(), checkpoint_root_directory=str(tmp_path))
    again = train(protected(), checkpoint_root_directory=str(tmp_path))  # restores the last step
    assert again.train_steps == STEPS
    assert gs.explain(again.optimizer) == gs.explain(first.optimizer)
    assert int(gs.health(again.optimizer).rejected) == 2


def test_no_loss_reaches_the_transform() -> None:
    with pytest.raises(ValueError, match="a framework makes that call"):
        train(gs.protect(optax.adam(1e-2), rollback=True))
