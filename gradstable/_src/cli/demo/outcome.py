"""What came out of one run, in plain numbers and names."""

from typing import NamedTuple

import numpy as np

from gradstable._src.cli.demo.contestants import Contestant
from gradstable._src.cli.demo.train import Evaluation, Run
from gradstable._src.core.reasons import Reason, sentence


class Act(NamedTuple):
    """A step that was rejected or clipped."""

    step: int
    grad_norm: float
    threshold: float
    reason: int
    leaf: str | None  # path of the first non-finite leaf, else of the largest; None: not told

    @property
    def nonfinite(self) -> bool:
        """Whether the gradient had NaN or infinite entries."""
        return self.reason == Reason.NONFINITE

    @property
    def cause(self) -> str:
        """Why, in one clause."""
        return sentence(self.reason)


class Outcome(NamedTuple):
    """What came out of one run.

    Attributes:
      contestant: who ran.
      code: the line of code that made its optimizer.
      judges: whether it can reject or clip at all.
      evaluations: results on the test images over time, the last one at the end.
      series: arrays over steps: loss, grad_norm, rejected, scale, threshold, reason,
        worst_leaf.
      rejected: the rejected steps.
      clipped: the clipped steps.
      explanation: what ``gs.explain`` says, ``None`` without a guard.
    """

    contestant: Contestant
    code: str
    judges: bool
    evaluations: list[Evaluation]
    series: dict[str, np.ndarray]
    rejected: list[Act]
    clipped: list[Act]
    explanation: str | None

    @property
    def final(self) -> Evaluation:
        """Loss and accuracy on the test images at the end."""
        return self.evaluations[-1]

    @property
    def touched(self) -> float:
        """The share of steps that were rejected or clipped."""
        return (len(self.rejected) + len(self.clipped)) / len(self.series["loss"])

    @property
    def first_bad_leaf(self) -> str | None:
        """Path of the leaf that stood out at the first rejection."""
        return self.rejected[0].leaf if self.rejected else None


def outcome_of(run: Run) -> Outcome:
    """Return the outcome of a finished run."""
    record = run.record
    decision = record.decision
    series = {
        "loss": np.asarray(record.loss),
        "grad_norm": np.asarray(record.grad_norm),
        **{name: np.asarray(values) for name, values in decision._asdict().items()},
    }
    rejected = series["rejected"].astype(bool)
    clipped = ~rejected & (series["scale"] < 1.0)
    leaves = run.leaves
    return Outcome(
        contestant=run.contestant,
        code=run.method.code,
        judges=run.method.judges,
        evaluations=run.evaluations,
        series=series,
        rejected=_acts(series, where=rejected, leaves=leaves),
        clipped=_acts(series, where=clipped, leaves=leaves),
        explanation=run.explain(),
    )


def _acts(series: dict[str, np.ndarray], *, where: np.ndarray, leaves: list[str]) -> list[Act]:
    def leaf(i: int) -> str | None:
        index = int(series["worst_leaf"][i])
        return leaves[index] if index >= 0 else None

    return [
        Act(
            step=int(i) + 1,
            grad_norm=float(series["grad_norm"][i]),
            threshold=float(series["threshold"][i]),
            reason=int(series["reason"][i]),
            leaf=leaf(int(i)),
        )
        for i in np.flatnonzero(where)
    ]
