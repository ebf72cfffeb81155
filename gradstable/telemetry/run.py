"""A run read back from its file: one array a column, whatever has happened to the file."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradstable.telemetry.columns import leaf_columns
from gradstable.telemetry.fields import FORMAT, INTEGERS, NUMBERS


class Note(NamedTuple):
    """Something that happened at a step, in words."""

    step: int
    text: str


class Scalars(NamedTuple):
    """A number that the training loop reported now and then."""

    step: np.ndarray  # int64 [k]
    value: np.ndarray  # float64 [k]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run; ``n`` recorded steps of ``L`` leaves, ``m`` of them in detail.

    Attributes:
      path: the file.
      name: what the run was called.
      versions: of this library and of JAX, as they were.
      config: what was written down of its settings.
      leaves: the paths of the parameters that were recorded, in tree order.
      sizes: int64 ``[L]``, entries of each leaf.
      dtypes: of each leaf.
      step: int64 ``[n]``, counted from 1; ascending, perhaps with gaps.
      loss: float64 ``[n]``, what was passed as ``value=``; NaN where nothing was.
      grad_norm: float64 ``[n]``, norm of the raw gradient; may be infinite or NaN.
      threshold: float64 ``[n]``, the norm above which a rule acted.
      scale: float64 ``[n]``, the factor on the gradient; 0 is a rejected step.
      update_ratio: float64 ``[n]``, norm of the update over norm of the parameters.
      rms: float64 ``[n]``, the largest ``RMS_t`` of a leaf.
      lr_factor: float64 ``[n]``, by which back-off and plateaus have lowered the step.
      reason: int64 ``[n]``, codes of ``gs.rules.Reason``.
      worst_leaf: int64 ``[n]``, the leaf that was first to be non-finite, else the largest.
      rms_leaf: int64 ``[n]``, the leaf of ``rms``; -1 where there is none.
      alarms: int64 ``[n]``, bits of ``gs.telemetry.Alarm``.
      leaf_steps: int64 ``[m]``, the steps of ``leaf_norms``.
      leaf_norms: float64 ``[m, L]``, gradient norms of all leaves.
      scalars: what else was reported, by name.
      notes: what happened, in words.
      lost: first and last step of each stretch that was overwritten before it was read.
      ended: whether the log was closed.
      known: the names of the columns that hold anything; a NaN in one of these was one.
    """

    path: str
    name: str
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    leaves: tuple[str, ...]
    sizes: np.ndarray
    dtypes: tuple[str, ...]
    step: np.ndarray
    loss: np.ndarray
    grad_norm: np.ndarray
    threshold: np.ndarray
    scale: np.ndarray
    update_ratio: np.ndarray
    rms: np.ndarray
    lr_factor: np.ndarray
    reason: np.ndarray
    worst_leaf: np.ndarray
    rms_leaf: np.ndarray
    alarms: np.ndarray
    leaf_steps: np.ndarray
    leaf_norms: np.ndarray
    scalars: Mapping[str, Scalars]
    notes: tuple[Note, ...]
    lost: tuple[tuple[int, int], ...]
    ended: bool
    known: frozenset[str]

    @property
    def rejected(self) -> np.ndarray:
        """Whether a step changed nothing (bool ``[n]``)."""
        return self.scale == 0

    @property
    def clipped(self) -> np.ndarray:
        """Whether a step was accepted, but not as it came (bool ``[n]``)."""
        return np.isfinite(self.scale) & (self.scale != 0) & (self.scale != 1)

    @property
    def has_loss(self) -> bool:
        """Whether the training loop passed its loss on."""
        return "loss" in self.known


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read what ``gs.telemetry.Log`` has written.

    A file that ends in the middle of a line, since the process died, is read up to there. Where
    a run was resumed into the same file, the later record of a step counts.

    Args:
      path: a file of JSON lines.

    Returns:
      A ``Run``.

    Raises:
      ValueError: if the file is no record of a run, or one of a later format.
      FileNotFoundError: if there is no such file.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"w": jnp.ones(3)}
      >>> tx = gs.record(gs.guard(optax.adam(1e-3)))
      >>> file = tempfile.mkdtemp() + "/run.jsonl"
      >>> with gs.telemetry.Log(params, file) as log:
      ...     state = tx.init(params)
      ...     for gradient in (jnp.ones(3), jnp.full(3, jnp.nan), jnp.ones(3)):
      ...         _, state = tx.update({"w": gradient}, state, params)
      ...         log(state)
      >>> gs.telemetry.read_run(file).rejected.tolist()
      [False, True, False]
    """
    lines = list(_parse(Path(path)))
    if not lines or lines[0].get("event") != "run":
        msg = f"{path} is no record of a run: its first line must be an object with event 'run'"
        raise ValueError(msg)
    header = lines[0]
    if header.get("format", 0) > FORMAT:
        msg = (
            f"{path} has format {header['format']}, this version reads up to {FORMAT}: "
            "update gradstable"
        )
        raise ValueError(msg)
    return _build(str(path), header, lines[1:])


def _parse(path: Path) -> Iterable[dict[str, Any]]:
    text = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(text) and number > 1:
                return  # the process died while it wrote this
            msg = f"{path}, line {number} is not JSON: {error}"
            raise ValueError(msg) from error
        if not isinstance(event, dict):
            msg = f"{path}, line {number} is not a JSON object"
            raise ValueError(msg)  # noqa: TRY004
        yield event


def _build(path: str, header: Mapping[str, Any], events: list[dict[str, Any]]) -> Run:
    steps = {one["step"]: one for one in events if one.get("event") == "step"}
    rows = [steps[number] for number in sorted(steps)]
    detailed = [row for row in rows if row.get("leaf_norms") is not None]
    leaves = leaf_columns(header, events, detailed)
    config = header.get("config")
    columns: dict[str, Any] = {
        name: np.array([_number(row.get(name)) for row in rows], np.float64) for name in NUMBERS
    }
    for name in INTEGERS:
        columns[name] = np.array([_index(row.get(name)) for row in rows], np.int64)
    return Run(
        path=path,
        name=header.get("name") or Path(path).stem,
        versions={key: str(header[key]) for key in ("gradstable", "jax") if key in header},
        config=config if isinstance(config, dict) else {},
        leaves=leaves.leaves,
        sizes=leaves.sizes,
        dtypes=leaves.dtypes,
        step=np.array([row["step"] for row in rows], np.int64),
        leaf_steps=leaves.steps,
        leaf_norms=leaves.norms,
        scalars=_scalars(events),
        notes=tuple(Note(e["step"], e["text"]) for e in events if e.get("event") == "note"),
        lost=tuple((e["first"], e["last"]) for e in events if e.get("event") == "lost"),
        ended=any(e.get("event") == "end" for e in events),
        known=frozenset(name for name in NUMBERS if any(row.get(name) is not None for row in rows)),
        **columns,
    )


def _number(value: Any) -> float:
    # "nan", "inf" and "-inf" are spelled as Python reads them.
    return float("nan") if value is None else float(value)


def _index(value: Any) -> int:
    return -1 if value is None else int(value)


def _scalars(events: list[dict[str, Any]]) -> dict[str, Scalars]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        if event.get("event") != "scalars":
            continue
        for name, value in event.items():
            if name not in ("event", "step"):
                found.setdefault(name, []).append((event["step"], _number(value)))
    return {
        name: Scalars(
            np.array([step for step, _ in pairs], np.int64),
            np.array([value for _, value in pairs], np.float64),
        )
        for name, pairs in found.items()
    }
