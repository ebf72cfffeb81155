"""Run files made by hand: what a log writes, with faults where a test wants them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradstable.rules import Reason
from gradstable.telemetry import Run, read_run

CLIPPED, REJECTED = 0.4, 0.0
Events = list[dict[str, Any]]


def header(leaves: int, **fields: Any) -> dict[str, Any]:
    paths = [f"['block_{leaf // 2}']['{('kernel', 'bias')[leaf % 2]}']" for leaf in range(leaves)]
    return {
        "event": "run", "format": 1, "gradstable": "0.1.0", "jax": "0.10.2", "name": "test",
        "leaves": fields.pop("paths", paths), "sizes": [64] * leaves,
        "dtypes": ["float32"] * leaves,
        "config": {"b2": 0.999, "batch": 64}, **fields,
    }  # fmt: skip


def steps(
    number: int, *, leaves: int = 4, seed: int = 0, faults: Mapping[int, Mapping[str, Any]] = {}
) -> Events:
    """Return the events of a calm run; ``faults`` overwrites fields of single steps."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((number, leaves + 3))
    events = []
    for row in range(number):
        done = (row + 1) / number
        norms = np.exp(0.3 * noise[row, :leaves] - np.arange(leaves) % 7)
        event = {
            "event": "step",
            "step": row + 1,
            "loss": float(np.exp(0.8 - 3 * done + 0.1 * noise[row, -1])),
            "grad_norm": float(np.linalg.norm(norms)),
            "threshold": "inf" if row < 10 else 4.0,
            "scale": 1.0,
            "reason": int(Reason.OK),
            "worst_leaf": int(np.argmax(norms)),
            "update_ratio": float(1e-3 * np.exp(0.2 * noise[row, -2])),
            "rms": float(np.exp(0.2 * noise[row, -3])),
            "rms_leaf": row % leaves,
            "alarms": 0,
            "lr_factor": 1.0,
        }
        if row % 4 == 0:
            event["leaf_norms"] = norms.tolist()
        events.append(event | dict(faults.get(row + 1, {})))
    return events


def rejected(reason: Reason = Reason.NONFINITE, **fields: Any) -> dict[str, Any]:
    return {"scale": REJECTED, "reason": int(reason), "worst_leaf": 1, **fields}


def stormy(number: int, *, leaves: int = 4) -> Events:
    """Return the events of a run in which everything happens that a report knows of."""
    nan = rejected(loss="nan", grad_norm="nan", leaf_norms=["nan"] * leaves)
    huge = rejected(Reason.SPIKE_REJECTED, grad_norm=1e30, loss=5e3)
    clip = {"scale": CLIPPED, "reason": int(Reason.SPIKE_CLIPPED), "grad_norm": 9.0}
    alarm = {"rms": 40.0, "alarms": 3, "update_ratio": 0.2}
    places = {number // 10: huge, number // 3: clip, number // 2: alarm}
    places |= {step: nan for step in range(2 * number // 3, 2 * number // 3 + 5)}
    places |= {number // 2 + ago: {"lr_factor": 0.5} for ago in range(1, number // 6)}
    events = steps(number, leaves=leaves, faults=places)
    lost = range(number // 4, number // 4 + number // 20)
    kept = [event for event in events if event["step"] not in lost]
    return [
        *kept,
        {"event": "lost", "first": lost.start, "last": lost.stop - 1},
        {"event": "rollback", "step": number // 2 + 1, "to": 240, "times": 1},
        {"event": "note", "step": 5, "text": "epoch 1 <b>begins</b> & goes on"},
        {"event": "scalars", "step": number // 2, "accuracy": 0.5},
        {"event": "scalars", "step": number, "accuracy": 0.98},
        {"event": "end", "step": number},
    ]


def write_run(
    path: Path, events: Sequence[Mapping[str, Any]], *, leaves: int = 4, **fields: Any
) -> Run:
    lines = [json.dumps(event) for event in [header(leaves, **fields), *events]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_run(path)
