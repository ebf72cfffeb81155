"""What comes of a claim: figures, and a verdict by a criterion that was said beforehand."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Answer = Literal["holds", "does not hold", "cannot be told here"]
HOLDS: Answer = "holds"
FAILS: Answer = "does not hold"
OPEN: Answer = "cannot be told here"


class Scale(NamedTuple):
    """How much is spent on each claim."""

    seeds: int
    steps: float  # share of the steps of a whole run
    quick: bool

    def of(self, steps: int) -> int:
        return max(8, round(self.steps * steps))


FULL = Scale(seeds=8, steps=1.0, quick=False)
QUICK = Scale(seeds=3, steps=0.2, quick=True)


class Verdict(NamedTuple):
    """One answer, and what it was decided by."""

    claim: str
    criterion: str
    answer: Answer


class Finding(NamedTuple):
    """Everything that is said about one claim."""

    title: str
    source: str
    measured: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict]
    remark: str = ""  # what explains an answer, where more was looked at than the tables show


CLEARLY = "clearly"
WHAT_IS_CLEAR = (
    "Clearly: differences are taken seed by seed, and the whole interval of their mean and two "
    "standard errors lies above 0. It does not hold if the interval lies below a tenth of what it "
    "is compared with; else it cannot be told here."
)


def judge(gains: np.ndarray, reference: float) -> Answer:
    """Return whether gains, one a seed, are clearly above 0: see ``WHAT_IS_CLEAR``."""
    gains = gains[np.isfinite(gains)]
    if gains.size < 2:
        return OPEN
    mean, error = gains.mean(), gains.std(ddof=1) / np.sqrt(gains.size)
    if mean - 2.0 * error > 0:
        return HOLDS
    return FAILS if mean + 2.0 * error < 0.1 * abs(reference) else OPEN


def interval(values: np.ndarray, digits: int = 3) -> str:
    """Return mean and two standard errors as a text."""
    error = 2.0 * values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"
