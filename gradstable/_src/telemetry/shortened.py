"""How far a trust region shortened the steps of a recorded run: was the rate too high?"""

from typing import NamedTuple

import numpy as np

from gradstable._src.telemetry.returns import is_governed
from gradstable._src.telemetry.run import Run

# A trust region begins small, and may shorten this many steps of any run.
_WARM_UP = 20
# From here on, shorter steps say that the learning rate is too high.
_SHORT, ENOUGH = 0.5, 10


class Shortened(NamedTuple):
    """The steps of a run that ``gs.govern`` shortened to less than half.

    Attributes:
      steps: how many.
      first: the first of them, after the start.
      last: the last of them.
      times: by how much they were too long, median.
      lasts: whether the last steps of the run are among them.
    """

    steps: int
    first: int
    last: int
    times: float
    lasts: bool

    @property
    def sentence(self) -> str:
        """What happened, in one sentence."""
        return (
            f"The learning rate was too high, by a factor of {self.times:,.1f} or more, from step "
            f"{self.first:,} to {self.last:,}: gs.govern shortened {self.steps:,} steps to less "
            "than half."
        )


def shortened(run: Run) -> Shortened | None:
    """Return the steps that a trust region shortened a lot; ``None`` if there are few."""
    short = (run.step > _WARM_UP) & (run.lr_factor < _SHORT)
    number = int(short.sum())
    if number < ENOUGH or not is_governed(run):
        return None
    return Shortened(
        steps=number,
        first=int(run.step[short][0]),
        last=int(run.step[short][-1]),
        times=1.0 / float(np.median(run.lr_factor[short])),
        lasts=bool(short[-ENOUGH:].all()),
    )
