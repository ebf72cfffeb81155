"""A training script as a user would write it: ``nnx.Optimizer``, ``gs.record`` and a ``Log``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from rich.progress import Progress

import gradstable as gs
from gradstable._src.cli.demo.data import Batch, Split, batch_at, load_splits
from gradstable._src.cli.demo.faults import Fault, bad_steps, plant
from gradstable._src.cli.demo.model import DigitsNet, evaluate, training_loss

LEARNING_RATE = 3e-3
_EVALUATE_EVERY = 50


class Contestant(NamedTuple):
    """One run of the demo.

    Attributes:
      name: its name in the table, on the page and in the file name.
      wrap: function from AdamW to the optimizer of the run.
      code: the optimizer as a line of code.
      storm: whether it gets the faults.
    """

    name: str
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    code: str
    storm: bool = True


def _clip_finite(adamw: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), adamw), 5)


CONTESTANTS = (
    Contestant("guard", gs.guard, "gs.guard(adamw)"),
    Contestant("adamw", lambda adamw: adamw, "adamw"),
    Contestant(
        "clip + apply_if_finite",
        _clip_finite,
        "optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), adamw), 5)",
    ),
    Contestant("guard, no faults", gs.guard, "gs.guard(adamw)", storm=False),
    Contestant("adamw, no faults", lambda adamw: adamw, "adamw", storm=False),
)


class Result(NamedTuple):
    """The result of a run.

    Attributes:
      file: a file of JSON lines for ``gs.telemetry.read_run``.
      accuracy: share of test images classified correctly at the end.
      explanation: the text of ``gs.explain``; ``None`` without a guard.
    """

    file: Path
    accuracy: float
    explanation: str | None


def train(
    contestant: Contestant,
    file: Path,
    *,
    seed: int,
    steps: int,
    faults: Sequence[Fault],
    progress: Progress,
) -> Result:
    """Train one contestant. The seed determines data, order, initial parameters and dropout."""
    adamw = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    faults = faults if contestant.storm else ()
    training, test = load_splits(seed)
    model = DigitsNet(rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, gs.record(contestant.wrap(adamw)), wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    config = {
        "optimizer": contestant.code,
        "learning_rate": LEARNING_RATE,
        "seed": seed,
        "bad batches": len(bad_steps(faults)),
    }
    file.unlink(missing_ok=True)
    accuracy = 0.0
    with gs.telemetry.Log(params, file, name=contestant.name, config=config) as log:
        for step in progress.track(range(1, steps + 1), description=contestant.name):
            clean = batch_at(step, training, seed=seed)
            _train_step(model, optimizer, plant(clean, step, faults=faults, seed=seed))
            log(optimizer.opt_state)
            if step % _EVALUATE_EVERY == 0 or step == steps:
                loss, accuracy = _test(model, test)
                log.scalars(step, test_loss=loss, test_accuracy=accuracy)
        for fault in faults:
            log.note(fault.first, f"planted: {fault.text}")
    guarded = contestant.wrap is gs.guard
    return Result(file, accuracy, gs.explain(optimizer.opt_state, params) if guarded else None)


@nnx.jit
def _train_step(model: DigitsNet, optimizer: nnx.Optimizer[DigitsNet], batch: Batch) -> None:
    loss, gradients = nnx.value_and_grad(training_loss)(model, *batch)
    optimizer.update(model, gradients, value=loss)


def _test(model: DigitsNet, test: Split) -> tuple[float, float]:
    model.eval()
    loss, accuracy = jax.device_get(evaluate(model, *map(jnp.asarray, (test.image, test.label))))
    model.train()
    return float(loss), float(accuracy)
