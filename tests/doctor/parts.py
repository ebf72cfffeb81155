"""A part of a recorded run."""

import dataclasses

import numpy as np

from gradstable.telemetry import Run


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
        run, leaf_steps=run.leaf_steps[kept], leaf_norms=run.leaf_norms[kept], **fields
    )
