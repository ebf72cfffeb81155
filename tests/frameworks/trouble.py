"""What every framework is put through: a small regression with two bad batches."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import gradstable as gs

STEPS = 300
# Counted from 1, as the guard does.
NAN_AT, SPIKE_AT = 121, 201


def protected() -> optax.GradientTransformationExtraArgs:
    return gs.protect(optax.adam(1e-2))


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return inputs of shape (32, 3) and targets of shape (32, 1), both float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, 32, 3)).astype(np.float32)
    y = np.sin(x @ np.array([[1.0], [-2.0], [0.5]], np.float32))
    x[NAN_AT - 1, 7, 1] = np.nan
    x[SPIKE_AT - 1] *= 1e4
    return list(zip(x, y, strict=True))


def assert_held(opt_state: object, *, rejected: Sequence[int] = (NAN_AT, SPIKE_AT)) -> None:
    """These steps were rejected, and no others."""
    health = gs.health(opt_state)
    assert int(health.count) == STEPS
    assert int(health.rejected) == len(rejected)
    assert int(health.last_rejected) == rejected[-1]


def assert_logged(
    path: Path, *, first: int = 1, rejected: Sequence[int] = (NAN_AT, SPIKE_AT)
) -> None:
    """The file of ``gs.watch`` has every step, and says which were rejected."""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(first, STEPS + 1))
    assert [step["step"] for step in steps if step["scale"] == 0] == list(rejected)


def is_finite(tree: Any) -> bool:
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
