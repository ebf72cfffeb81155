"""A part of a recorded run."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gradstable.telemetry import Run, TapRecord


def cut(run: Run, rows: slice | np.ndarray) -> Run:
    """Return the run with only some of its rows."""
    fields = {
        field.name: value[rows]
        for field in dataclasses.fields(run)
        if isinstance(value := getattr(run, field.name), np.ndarray)
        and field.name not in ("sizes", "leaf_steps", "leaf_norms")
    }
    kept = np.isin(run.leaf_steps, fields["step"])
    return dataclasses.replace(
        run,
        leaf_steps=run.leaf_steps[kept],
        leaf_norms=run.leaf_norms[kept],
        taps={name: _cut_tap(tap, fields["step"]) for name, tap in run.taps.items()},
        **fields,
    )


def _cut_tap(tap: TapRecord, steps: np.ndarray) -> TapRecord:
    kept = np.isin(tap.step, steps)

    def part(side: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: one[kept] for name, one in side.items()}

    return TapRecord(tap.step[kept], part(tap.forward), part(tap.gradient), tap.head[kept])
