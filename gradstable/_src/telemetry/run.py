"""A run read back from its file: one array per column, whatever happened to the file."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradstable._src.telemetry.assembly import LaterFormatError, Read, read_file
from gradstable._src.telemetry.fields import NUMBERS
from gradstable._src.telemetry.sink import Rollback
from gradstable._src.telemetry.tap_columns import TapRecord


class Note(NamedTuple):
    """A note about something that happened at a step."""

    step: int
    text: str


class Scalars(NamedTuple):
    """A number that the training loop reported from time to time."""

    step: np.ndarray  # int64 [k]
    value: np.ndarray  # float64 [k]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known about a run: ``n`` recorded steps of ``L`` leaves, ``m`` of them in detail.

    Attributes:
      path: the file.
      name: the name of the run.
      versions: the versions of gradstable and JAX that wrote it.
      config: the settings that were logged.
      leaves: the paths of the parameters that were recorded, in tree order.
      sizes: int64 ``[L]``, entries of each leaf.
      dtypes: the dtype of each leaf.
      step: int64 ``[n]``, counted from 1; ascending, perhaps with gaps.
      loss: float64 ``[n]``, what was passed as ``value=``; NaN if nothing was.
      grad_norm: float64 ``[n]``, norm of the raw gradient; can be infinite or NaN.
      threshold: float64 ``[n]``, the norm above which a rule acted.
      scale: float64 ``[n]``, the factor on the gradient; 0 means a rejected step.
      update_ratio: float64 ``[n]``, norm of the update over norm of the parameters.
      rms: float64 ``[n]``, the largest ``RMS_t`` of a leaf.
      lr_factor: float64 ``[n]``, the factor by which back-off and plateaus have lowered the step.
      reason: int64 ``[n]``, codes of ``gs.rules.Reason``.
      worst_leaf: int64 ``[n]``, the first non-finite leaf, or else the largest.
      rms_leaf: int64 ``[n]``, the leaf of ``rms``; -1 if there is none.
      alarms: int64 ``[n]``, bits of ``gs.telemetry.Alarm``.
      micro_batch: int64 ``[n]``, the micro-batch of its group that stood out; -1 if none did.
      device: int64 ``[n]``, the device that stood out (``gs.sharding.average``); -1 if none did.
      leaf_steps: int64 ``[m]``, the steps of ``leaf_norms``.
      leaf_norms: float64 ``[m, L]``, gradient norms of all leaves.
      scalars: other reported numbers, by name.
      notes: notes about what happened.
      rollbacks: where ``gs.rollback`` rolled back, and to which step.
      lost: first and last step of each stretch that was overwritten before it was read, or that
        could not be written.
      ended: whether the log was closed.
      known: the names of the columns that hold values; a NaN in one of these was recorded as NaN.
      damaged: how many lines of the file were broken; their content is left out.
      remarks: what is wrong with the file: reports on the first few broken lines.
      taps: what each tap has measured, by its name, or by ``name/layer``.
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
    micro_batch: np.ndarray
    device: np.ndarray
    leaf_steps: np.ndarray
    leaf_norms: np.ndarray
    scalars: Mapping[str, Scalars]
    notes: tuple[Note, ...]
    rollbacks: tuple[Rollback, ...]
    lost: tuple[tuple[int, int], ...]
    ended: bool
    known: frozenset[str]
    damaged: int = 0
    remarks: tuple[str, ...] = ()
    taps: Mapping[str, TapRecord] = dataclasses.field(default_factory=dict[str, TapRecord])

    @property
    def rejected(self) -> np.ndarray:
        """Whether a step changed nothing (bool ``[n]``)."""
        return self.scale == 0

    @property
    def clipped(self) -> np.ndarray:
        """Whether a step was accepted with a modified gradient (bool ``[n]``)."""
        return np.isfinite(self.scale) & (self.scale != 0) & (self.scale != 1)

    @property
    def has_loss(self) -> bool:
        """Whether the training loop passed its loss."""
        return "loss" in self.known


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read what ``gs.telemetry.Log`` wrote, whatever has happened to the file since.

    Each line is judged on its own: broken lines are skipped and counted in ``Run.damaged``, and
    every sound line is kept, in any order. If a step occurs twice, as when a run was resumed into
    the same file, the later record counts. If the first line, which names the leaves, is lost,
    leaves are numbered.

    Args:
      path: a file of JSON lines.

    Returns:
      A ``Run``.

    Raises:
      ValueError: if the file contains nothing of a run, or has a later format.
      OSError: if the file does not exist or cannot be read.

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
    place = Path(path)
    if place.is_dir():
        msg = f"{path} is not a record of a run: it is a folder"
        raise ValueError(msg)
    with place.open("rb") as file:
        try:
            read = read_file(file)
        except LaterFormatError as error:
            msg = f"{path} {error}"
            raise ValueError(msg) from error
    if not _is_run(read):
        msg = f"{path} is not a record of a run: {_instead(place, read)}"
        raise ValueError(msg)
    return _build(str(path), read)


def _is_run(read: Read) -> bool:
    """Return whether a file contains anything of a run."""
    if read.header is not None or (read.known and len(read.columns["step"])):
        return True
    # Other files can have lines with an event too: without a header, there must be a broken line
    # that could have been the header.
    found = bool(
        len(read.columns["step"]) or read.notes or read.rollbacks or read.scalars or read.lost
    )
    return found and read.damage.lines > 0


def _instead(path: Path, read: Read) -> str:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return "it is compressed: decompress it first, for example with gunzip"
    remark = f" ({read.damage.remarks[0]})" if read.damage.remarks else ""
    return f"no line of it is an object with event 'run' or a step with numbers{remark}"


def _build(path: str, read: Read) -> Run:
    header, config = read.header or {}, (read.header or {}).get("config")
    kept = _latest(read.columns["step"])
    columns: dict[str, Any] = {
        name: one if kept is None else one[kept] for name, one in read.columns.items()
    }
    rows, norms = read.leaf_rows, read.leaf_norms
    if kept is not None:
        place = np.full(len(read.columns["step"]), -1, np.int64)
        place[kept] = np.arange(len(kept))
        order = np.argsort(place[rows], kind="stable")
        order = order[place[rows][order] >= 0]
        rows, norms = place[rows][order], norms[order]
    return Run(
        path=path,
        name=header.get("name") or Path(path).stem,
        versions={key: header[key] for key in ("gradstable", "jax") if header.get(key)},
        config=config or {},
        **_leaves(read),
        **columns,
        leaf_steps=columns["step"][rows],
        leaf_norms=norms,
        scalars={name: Scalars(step, value) for name, (step, value) in read.scalars.items()},
        notes=tuple(Note(step, text) for step, text in read.notes),
        rollbacks=tuple(read.rollbacks),
        lost=tuple(read.lost),
        # A run that was closed and then resumed has steps beyond the end.
        ended=read.end is not None and read.end >= np.max(columns["step"], initial=0),
        known=read.known & frozenset(NUMBERS),
        damaged=read.damage.lines,
        remarks=tuple(read.damage.remarks),
        taps=read.taps,
    )


def _latest(step: np.ndarray) -> np.ndarray | None:
    """Return the last row of each step, in order; ``None`` if the rows already are.

    A step between 76 and 78 that is not 77 is broken: it does not replace another row.
    """
    if np.all(np.diff(step) > 0):
        return None
    odd = np.zeros(len(step), bool)
    odd[1:-1] = (step[2:] == step[:-2] + 2) & (step[1:-1] != step[:-2] + 1)
    order = np.lexsort((~odd, step))
    last = np.append(np.diff(step[order]) > 0, True)
    return order[last]


def _leaves(read: Read) -> dict[str, Any]:
    """Return names, sizes and dtypes of the leaves, if they match the norms."""
    # Behind a mask, for example, the recorder sees other leaves than the log was given.
    header = read.leaves or read.header or {}
    leaves, number = tuple(header.get("leaves") or ()), read.leaf_norms.shape[1]
    if read.header is None:
        read.damage.tell("the first line is lost, so the run and its leaves have no names")
    elif number != len(leaves):
        read.damage.tell(
            f"{len(leaves)} leaves are named, but there are norms of {number}: leaves are numbered"
        )
    if number != len(leaves):
        return {
            "leaves": tuple(f"leaf {leaf}" for leaf in range(number)),
            "sizes": np.zeros(0, np.int64),
            "dtypes": (),
        }
    return {
        "leaves": leaves,
        "sizes": np.array(header.get("sizes") or (), np.int64),
        "dtypes": tuple(header.get("dtypes") or ()),
    }
