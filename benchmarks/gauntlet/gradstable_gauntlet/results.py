"""The results of the runs, in a form that can be stored in a file."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Fate(NamedTuple):
    """How one contestant fared in one task and one storm: a number for every seed."""

    final: np.ndarray  # shape=(seeds,), held-out loss at the end; inf or nan where it blew up
    finite: np.ndarray  # shape=(seeds,), bool, parameters and optimizer state at the end
    touched: np.ndarray  # shape=(seeds,), share of steps clipped or rejected; nan: unknown
    lost: np.ndarray  # shape=(seeds,), steps of progress lost against the clean run
    recovery: np.ndarray  # shape=(seeds,), steps from the last fault to the clean loss; inf: never
    spikes: np.ndarray  # shape=(seeds,), spike score of the training loss, in percent
    curve: np.ndarray  # shape=(points,), training loss over time, median over seeds, smoothed


class Cell(NamedTuple):
    """The results of one contestant in one task."""

    task: str
    contestant: str
    sweep: np.ndarray  # shape=(rates, tuning seeds), held-out loss at the end in calm weather
    start: np.ndarray  # shape=(tuning seeds,), held-out loss before the first step
    rate: float  # the tuned learning rate: best median of the sweep
    fates: Mapping[str, Fate]  # by storm; "none" is calm weather at the tuned rate
    seconds: float  # how long it took


class Results(NamedTuple):
    """Everything that a page of results needs."""

    made: Mapping[str, Any]  # command, versions, machine, seconds
    tasks: Mapping[str, Mapping[str, Any]]  # name -> about, steps, tuning, fair (bool)
    contestants: Mapping[str, Mapping[str, Any]]  # name -> about, base, ours
    storms: Mapping[str, Mapping[str, Any]]  # name -> about, group
    rates: Sequence[float]
    cells: Sequence[Cell]

    def cell(self, task: str, contestant: str) -> Cell | None:
        """Return the results of this contestant in this task, or ``None`` if it was not run."""
        for cell in self.cells:
            if (cell.task, cell.contestant) == (task, contestant):
                return cell
        return None


def write(results: Results, path: Path) -> None:
    """Write results as JSON, with floats to five digits and non-finite numbers as strings.

    Compressed if the name ends with ``.gz``; equal results give equal bytes.
    """
    whole = results._asdict() | {"cells": [cell_to_json(cell) for cell in results.cells]}
    said = (json.dumps(_plain(whole), separators=(",", ":")) + "\n").encode()
    path.write_bytes(gzip.compress(said, mtime=0) if path.suffix == ".gz" else said)


def read(path: Path) -> Results:
    """Read results that ``write`` wrote."""
    said = path.read_bytes()
    whole = json.loads(gzip.decompress(said) if path.suffix == ".gz" else said)
    cells = [cell_from_json(cell) for cell in whole.pop("cells")]
    return Results(**(whole | {"rates": [float(r) for r in whole["rates"]]}), cells=cells)


def cell_to_json(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON data."""
    fates = {storm: fate._asdict() for storm, fate in cell.fates.items()}
    return _plain(cell._asdict() | {"fates": fates})


def cell_from_json(cell: Mapping[str, Any]) -> Cell:
    """Return the cell from the data of ``cell_to_json``."""

    def fate(said: Mapping[str, Any]) -> Fate:
        arrays = {name: np.asarray(values, np.float64) for name, values in said.items()}
        return Fate(**(arrays | {"finite": arrays["finite"].astype(bool)}))

    return Cell(
        task=cell["task"],
        contestant=cell["contestant"],
        sweep=np.asarray(cell["sweep"], np.float64),
        start=np.asarray(cell["start"], np.float64),
        rate=float(cell["rate"]),
        fates={storm: fate(said) for storm, said in cell["fates"].items()},
        seconds=float(cell["seconds"]),
    )


def _plain(value: Any) -> Any:
    """Return nested lists of short numbers, with strings for ``inf`` and ``nan``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    short = float(f"{float(value):.5g}")
    return short if np.isfinite(short) else str(short)
