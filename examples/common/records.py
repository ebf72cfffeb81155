"""The record that every run writes, for ``gradstable report``."""

import dataclasses
from pathlib import Path
from typing import Any

import gradstable as gs
from examples.common.config import CommonConfig


def run_file(config: CommonConfig, name: str) -> Path:
    """Return where the record of a contestant goes."""
    return config.workdir / f"{name}.jsonl"


def open_log(config: CommonConfig, params: Any, name: str) -> gs.telemetry.Log:
    """Open the log of a run, a context manager.

    In the loop, ``log(opt_state)`` after each step writes what ``gs.record`` has recorded, and
    ``log.scalars(step, ...)`` writes anything else.
    """
    settings = dataclasses.asdict(config)
    half = settings["fault"] == "fp16"
    settings["compute_dtype"] = "float16" if half else "float32"
    if not half:
        del settings["loss_scale"]
    told = {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in settings.items()
    }
    config.workdir.mkdir(parents=True, exist_ok=True)
    return gs.telemetry.Log(params, run_file(config, name), name=name, config=told)
