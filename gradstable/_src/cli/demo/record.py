"""The raw numbers as JSON, so that anyone can draw their own plot. NaN and inf become null."""

import json
import math
from typing import Any

import numpy as np

from gradstable._src.cli.demo.outcome import Outcome
from gradstable._src.cli.demo.race import Race
from gradstable._src.cli.demo.summary import command, versions

# To be raised when a field changes its meaning.
_FORMAT = 1


def to_json(race: Race) -> str:
    """Return the race as valid JSON."""
    document = {
        "format": _FORMAT,
        "command": command(race),
        "seed": race.seed,
        "steps": race.steps,
        "seconds": round(race.seconds, 2),
        "versions": versions(),
        "train_size": race.train_size,
        "test_size": race.test_size,
        "leaves": race.leaves,
        "faults": [
            {"steps": list(fault.steps), "name": fault.name, "text": fault.text}
            for fault in race.faults
        ],
        "contestants": {key: _contestant(outcome) for key, outcome in race.outcomes.items()},
    }
    return json.dumps(_plain(document), allow_nan=False, separators=(",", ":"))


def _contestant(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.contestant.name,
        "code": outcome.code,
        "faults": outcome.contestant.storm,
        "test_loss": outcome.final.loss,
        "test_accuracy": outcome.final.accuracy,
        "rejected_steps": [act.step for act in outcome.rejected],
        "clipped_steps": [act.step for act in outcome.clipped],
        "first_bad_leaf": outcome.first_bad_leaf,
        "explanation": outcome.explanation,
        "series": outcome.series,
        "evaluations": {
            "step": [one.step for one in outcome.evaluations],
            "loss": [one.loss for one in outcome.evaluations],
            "accuracy": [one.accuracy for one in outcome.evaluations],
        },
    }


def _plain(value: Any) -> Any:
    """Return the same of lists, dicts and finite numbers only."""
    if isinstance(value, np.ndarray):
        return _plain(_rounded(value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(values: np.ndarray) -> list[Any]:
    # As many digits as float32 holds, not the tail that a float64 would show.
    if values.dtype == np.float32:
        return [float(str(value)) for value in values]
    return values.tolist()
