"""Training as usual with ``nnx.Optimizer``, and the few numbers kept of each step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradstable as gs
from gradstable._src.cli.demo.contestants import Contestant, Decision, Method, Read
from gradstable._src.cli.demo.data import Batch, Split
from gradstable._src.cli.demo.model import DigitsNet, evaluate, training_loss
from gradstable._src.core.paths import leaf_paths


class StepRecord(NamedTuple):
    """What is kept of one step; stacked over steps, of a whole run."""

    loss: jax.Array | np.ndarray
    grad_norm: jax.Array | np.ndarray  # of the raw gradient
    decision: Decision


class Evaluation(NamedTuple):
    """How good the network is on the test images after a number of steps."""

    step: int
    loss: float
    accuracy: float


TrainStep = Callable[[DigitsNet, nnx.Optimizer, Batch], StepRecord]


def make_train_step(read: Read) -> TrainStep:
    """Return the compiled step of a method."""

    @nnx.jit
    def train_step(model: DigitsNet, optimizer: nnx.Optimizer, batch: Batch) -> StepRecord:
        loss, grads = nnx.value_and_grad(training_loss)(model, *batch)
        grad_norm = gs.global_norm(grads)
        optimizer.update(model, grads)
        return StepRecord(loss, grad_norm, read(optimizer.opt_state, grad_norm))

    return train_step


class Run:
    """One contestant on its way: its network, its optimizer, and its records so far.

    Args:
      contestant: who runs.
      method: its optimizer.
      train_step: from ``make_train_step``; shared by runs of the same method, so that it is
        compiled once.
      seed: for the first parameters and for dropout; the same for everyone.
    """

    def __init__(
        self, contestant: Contestant, *, method: Method, train_step: TrainStep, seed: int
    ) -> None:
        self.contestant = contestant
        self.method = method
        self.model: DigitsNet = DigitsNet(rngs=nnx.Rngs(seed))
        self.optimizer: nnx.Optimizer[DigitsNet] = nnx.Optimizer(
            self.model, method.tx, wrt=nnx.Param
        )
        self.evaluations: list[Evaluation] = []
        self._train_step = train_step
        self._records: list[StepRecord] = []

    @property
    def steps(self) -> int:
        """How many steps it has done."""
        return len(self._records)

    @property
    def last(self) -> StepRecord:
        """The record of the last step."""
        return self._records[-1]

    @property
    def record(self) -> StepRecord:
        """The records of all steps, stacked."""
        return jax.tree.map(lambda *values: np.stack(values), *self._records)

    @property
    def rejected(self) -> int:
        """How many steps its optimizer has rejected."""
        return sum(bool(record.decision.rejected) for record in self._records)

    @property
    def leaves(self) -> list[str]:
        """The paths of the parameters in tree order, named as ``gs.explain`` names them."""
        return leaf_paths(nnx.state(self.model, nnx.Param))

    def train(self, batches: Sequence[Batch]) -> None:
        """Trains on these batches; their records are fetched at once at the end."""
        self.model.train()
        records = [self._train_step(self.model, self.optimizer, batch) for batch in batches]
        self._records += jax.device_get(records)

    def test(self, test: Split) -> None:
        """Evaluates on the test images, without dropout."""
        self.model.eval()
        loss, accuracy = jax.device_get(
            evaluate(self.model, *map(jnp.asarray, (test.image, test.label)))
        )
        self.evaluations.append(Evaluation(self.steps, float(loss), float(accuracy)))

    def explain(self) -> str | None:
        """Return what the guard has to say, ``None`` where there is none."""
        if self.contestant.method != "guard":
            return None
        return gs.explain(self.optimizer.opt_state, nnx.state(self.model, nnx.Param))
