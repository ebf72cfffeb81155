"""What can be wrong with a batch, and when."""

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from benchmarks.illnesses.tasks import STEPS, Batch, Task


def places(seed: int, number: int, *, of: int = STEPS) -> list[int]:
    """Return steps for faults: in order, not at the beginning, and not next to each other."""
    slots = np.array_split(np.arange(of // 4, of - 12), number)
    rng = np.random.default_rng([seed, 99])
    return [int(rng.choice(slot[4:])) for slot in slots]


def spoil(task: Task, change: Callable[[Batch], Mapping[str, Any]], at: Container[int]) -> Task:
    """Return the task with some entries of some batches changed."""

    def batch(step: int) -> Batch:
        good = task.batch(step)
        return {**good, **change(good)} if step in at else good

    return task._replace(batch=batch)


def nan_pixel(batch: Batch) -> Mapping[str, Any]:
    x = batch["x"].copy()
    x[3, 30] = np.nan
    return {"x": x}


def brighter(factor: float) -> Callable[[Batch], Mapping[str, Any]]:
    return lambda batch: {"x": batch["x"] * np.float32(factor)}


def heavier(factor: float) -> Callable[[Batch], Mapping[str, Any]]:
    return lambda batch: {"weight": batch["weight"] * np.float32(factor)}


def blank(batch: Batch) -> Mapping[str, Any]:
    x = batch["x"].copy()
    x[3] = 0.0
    return {"x": x}
