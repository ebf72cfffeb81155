"""No rule with a memory rejects for good: neither a new level, nor a healthy minority."""

import numpy as np
import pytest

from benchmarks.rules_table import (
    CONTESTANTS,
    EXCLUDED,
    FAULT,
    STEPS,
    Contestant,
    scenarios,
    simulate,
)
from gradstable.rules import loss_spike
from tests.rules.running import lognormal, run


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.label)
def test_what_lasts_or_keeps_coming_back_is_not_rejected(contestant: Contestant) -> None:
    scales, _ = simulate(contestant.make())
    often = scenarios()["fifth"] > 10.0
    assert (scales["x1000"][-500:] > 0).mean() >= 0.9
    assert (scales["x30"][-500:] > 0).mean() >= 0.9
    assert (scales["fifth"][often][-300:] > 0).mean() >= 0.9


def test_the_same_for_losses() -> None:
    assert "loss_spike" in EXCLUDED
    losses = lognormal(STEPS, 0.2)
    level, often = losses.copy(), losses.copy()
    level[FAULT:] *= 1_000.0
    fifth = (np.random.default_rng(0).random(STEPS) < 0.2) & (np.arange(STEPS) >= FAULT)
    often[fifth] *= 50.0
    for given, judged in ((level, np.full(STEPS, fill_value=True)), (often, fifth)):
        scales, _ = run(loss_spike(), np.ones(STEPS), given)
        assert (scales[judged][-300:] > 0).mean() >= 0.9
