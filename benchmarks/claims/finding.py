"""The result of a claim: figures, and a verdict by a criterion stated beforehand."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Answer = Literal["holds", "does not hold", "undecided here"]
HOLDS: Answer = "holds"
FAILS: Answer = "does not hold"
OPEN: Answer = "undecided here"


class Scale(NamedTuple):
    """How much is spent on each claim."""

    seeds: int
    steps: float  # fraction of the steps of a full run
    quick: bool

    def of(self, steps: int) -> int:
        return max(8, round(self.steps * steps))


FULL = Scale(seeds=8, steps=1.0, quick=False)
QUICK = Scale(seeds=3, steps=0.2, quick=True)


class Verdict(NamedTuple):
    """One verdict, and its criterion."""

    claim: str
    criterion: str
    answer: Answer


class Finding(NamedTuple):
    """Everything reported about one claim."""

    title: str
    source: str
    measured: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict]
    remark: str = ""  # explains a verdict with more than the tables show


CLEARLY = "clearly"
WHAT_IS_CLEAR = (
    "*Clearly* means that differences are taken seed by seed, and the whole interval of their mean "
    "and two standard errors is above 0. The claim does not hold if the interval is below a tenth "
    "of what it is compared with; otherwise it is undecided here."
)


def judge(gains: np.ndarray, reference: float) -> Answer:
    """Return whether gains, one per seed, are clearly above 0: see ``WHAT_IS_CLEAR``."""
    gains = gains[np.isfinite(gains)]
    if gains.size < 2:
        return OPEN
    mean, error = gains.mean(), gains.std(ddof=1) / np.sqrt(gains.size)
    if mean - 2.0 * error > 0:
        return HOLDS
    return FAILS if mean + 2.0 * error < 0.1 * abs(reference) else OPEN


def interval(values: np.ndarray, digits: int = 3) -> str:
    """Return the mean and two standard errors as text."""
    error = 2.0 * values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"
