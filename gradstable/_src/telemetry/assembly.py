"""Turn the lines of a run file into columns, in one pass and with little extra memory."""

from array import array
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gradstable._src.telemetry.fields import FORMAT, INTEGERS, LINES, NUMBERS, PARTS
from gradstable._src.telemetry.lines import Damage, objects
from gradstable._src.telemetry.sink import Rollback
from gradstable._src.telemetry.tap_columns import TapColumns, TapRecord
from gradstable._src.telemetry.values import as_number, column, fields, rows_of, taken

# Lines converted to columns in one go, which bounds the memory of Python objects.
_BATCH = 2048
_COLUMNS = ("step", *NUMBERS, *INTEGERS, *PARTS)


class LaterFormatError(ValueError):
    """A file written by a later version."""


class Read(NamedTuple):
    """The contents of a run file; ``Run`` explains the names."""

    header: Mapping[str, Any] | None
    leaves: Mapping[str, Any] | None  # replaces the header's leaves, if present
    columns: Mapping[str, np.ndarray]
    leaf_rows: np.ndarray  # int64 [m], the rows of leaf_norms
    leaf_norms: np.ndarray  # float64 [m, L]
    known: frozenset[str]
    taps: Mapping[str, TapRecord]
    scalars: Mapping[str, tuple[np.ndarray, np.ndarray]]
    notes: list[tuple[int, str]]
    rollbacks: list[Rollback]
    lost: list[tuple[int, int]]
    end: float | None  # the step at which the log was closed
    damage: Damage


def read_file(file: BinaryIO) -> Read:
    """Read a whole run file; raises a ``LaterFormatError`` if its header has a later format."""
    assembly = _Assembly()
    for line, event in objects(file, assembly.damage):
        assembly.add(line, event)
    return assembly.finish()


class _Growing:
    """A column that grows in place: ``array`` reallocates, which moves pages without copying."""

    def __init__(self, *, floating: bool) -> None:
        self._values = array("d" if floating else "q")
        self._dtype = np.float64 if floating else np.int64
        self.append = self._values.append

    def extend(self, values: np.ndarray) -> None:
        """Add values at the end."""
        self._values.frombytes(np.asarray(values, self._dtype).tobytes())

    def finish(self) -> np.ndarray:
        """Return all values without a copy; nothing more can be added."""
        return np.frombuffer(self._values, self._dtype)

    def __len__(self) -> int:
        return len(self._values)


class _Assembly:
    """Everything read so far."""

    def __init__(self) -> None:
        self.damage = Damage()
        self._header: dict[str, Any] | None = None
        self._leaves: dict[str, Any] | None = None
        self._batch: list[tuple[int, dict[str, Any]]] = []
        self._columns = {name: _Growing(floating=name in NUMBERS) for name in _COLUMNS}
        # By number of leaves: there should be only one, and most rows show which.
        self._norms: dict[int, tuple[_Growing, _Growing]] = {}
        self._known: set[str] = set()
        self._taps = TapColumns()
        self._scalars: dict[str, tuple[_Growing, _Growing]] = {}
        self._notes: list[tuple[int, str]] = []
        self._rollbacks: list[Rollback] = []
        self._lost: list[tuple[int, int]] = []
        self._end: float | None = None
        self._takes = {
            "run": self._take_header,
            "leaves": self._take_leaves,
            "scalars": self._take_scalars,
            "note": self._take_note,
            "rollback": self._take_rollback,
            "lost": self._take_lost,
            "end": self._take_end,
        }

    def add(self, line: int, event: dict[str, Any]) -> None:
        """Add a line."""
        kind = event.get("event")
        if kind == "step":
            self._batch.append((line, event))
            if len(self._batch) == _BATCH:
                self._take_steps()
        elif isinstance(kind, str) and kind in self._takes:
            try:
                self._takes[kind](event)
            except LaterFormatError:
                raise
            except (ValueError, OverflowError) as error:
                self.damage.add(line, str(error))
        else:
            self.damage.add(line, "not a line of a run")

    def finish(self) -> Read:
        """Return everything."""
        self._take_steps()
        width, rows, norms = self._finish_norms()
        columns = {name: one.finish() for name, one in self._columns.items()}
        if width is not None and len(self._norms) > 1:
            columns, rows = self._without_others(columns, rows, width)
        return Read(
            header=self._header,
            leaves=self._leaves,
            columns=columns,
            leaf_rows=rows,
            leaf_norms=norms,
            known=frozenset(self._known),
            taps=self._taps.finish(),
            scalars={
                name: (steps.finish(), values.finish())
                for name, (steps, values) in self._scalars.items()
            },
            notes=self._notes,
            rollbacks=self._rollbacks,
            lost=self._lost,
            end=self._end,
            damage=self.damage,
        )

    def _take_steps(self) -> None:
        """Convert the batch of step lines to columns."""
        lines = [line for line, _ in self._batch]
        rows = [row for _, row in self._batch]
        self._batch = []
        if not rows:
            return
        why: dict[int, str] = {}
        made = {}
        for name in _COLUMNS:
            values = [row.get(name) for row in rows]
            made[name], broken = column(values, LINES["step"][name])
            why |= {place: f"{name} is broken" for place in broken}
            if name in NUMBERS and name not in self._known:
                seen = (place for place, one in enumerate(values) if one is not None)
                if any(place not in why for place in seen):
                    self._known.add(name)
        norms, broken = rows_of([row.get("leaf_norms") for row in rows])
        why |= {place: "leaf_norms is broken" for place in broken}
        why |= self._take_taps(rows, why)
        for place in sorted(why):
            self.damage.add(lines[place], why[place])
        kept = np.ones(len(rows), bool)
        kept[list(why)] = False
        first = len(self._columns["step"])
        for name, values in made.items():
            self._columns[name].extend(values[kept] if why else values)
        index = first + np.cumsum(kept) - 1
        for width, (places, matrix) in norms.items():
            sound = kept[places]
            at, flat = self._norms.setdefault(
                width, (_Growing(floating=False), _Growing(floating=True))
            )
            at.extend(index[places][sound])
            flat.extend(matrix[sound])

    def _take_taps(self, rows: list[dict[str, Any]], broken: Mapping[int, str]) -> dict[int, str]:
        """Keep the taps of these rows; return which are broken, and why."""
        why: dict[int, str] = {}
        for place, row in enumerate(rows):
            if row.get("taps") is None or place in broken:
                continue
            try:
                self._taps.add(int(row["step"]), row["taps"])
            except (ValueError, OverflowError) as error:
                why[place] = str(error)
        return why

    def _finish_norms(self) -> tuple[int | None, np.ndarray, np.ndarray]:
        """Return the most frequent number of leaves, the rows that have it, and their norms."""
        named = len((self._leaves or self._header or {}).get("leaves") or ())
        counts = {width: (len(at), width == named) for width, (at, _) in self._norms.items()}
        if not any(number for number, _ in counts.values()):
            return None, np.empty(0, np.int64), np.empty((0, named))
        width = max(counts, key=lambda one: counts[one])
        at, flat = self._norms[width]
        return width, at.finish(), flat.finish().reshape(len(at), width)

    def _without_others(
        self, columns: dict[str, np.ndarray], rows: np.ndarray, width: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return columns without the rows that have another number of leaf norms."""
        kept = np.ones(len(columns["step"]), bool)
        for other, (at, _) in self._norms.items():
            if other != width:
                kept[at.finish()] = False
                self.damage.add_all(len(at), f"norms of {other} leaves, but others have {width}")
        index = np.cumsum(kept) - 1
        return {name: values[kept] for name, values in columns.items()}, index[rows]

    def _take_header(self, event: dict[str, Any]) -> None:
        """Keep the first header; if it is broken, keep its sound fields."""
        if self._header is not None:
            return
        self._header, broken = {}, []
        for name, field in LINES["run"].items():
            try:
                self._header[name] = taken(event.get(name), field)
            except ValueError as error:
                broken.append(f"{name} {error}")
        found = self._header.get("format") or 0
        if found > FORMAT:
            msg = f"has format {found}, but this version reads up to {FORMAT}: update gradstable"
            raise LaterFormatError(msg)
        if broken:
            raise ValueError("; ".join(broken))

    def _take_leaves(self, event: dict[str, Any]) -> None:
        self._leaves = fields(event)

    def _take_scalars(self, event: dict[str, Any]) -> None:
        step = fields(event)["step"]
        found = {name: as_number(one) for name, one in event.items() if name not in _RESERVED}
        for name, value in found.items():
            if name not in self._scalars:
                self._scalars[name] = (_Growing(floating=False), _Growing(floating=True))
            steps, values = self._scalars[name]
            steps.append(step)
            values.append(value)

    def _take_note(self, event: dict[str, Any]) -> None:
        note = fields(event)
        self._notes.append((note["step"], note["text"]))

    def _take_rollback(self, event: dict[str, Any]) -> None:
        found = fields(event)
        self._rollbacks.append(Rollback(found["step"], found["to"], found["times"] or 1))

    def _take_lost(self, event: dict[str, Any]) -> None:
        span = fields(event)
        if span["last"] < span["first"]:
            msg = "last is before first"
            raise ValueError(msg)
        self._lost.append((span["first"], span["last"]))

    def _take_end(self, event: dict[str, Any]) -> None:
        step = fields(event)["step"]
        end = float("inf") if step is None else float(step)
        self._end = end if self._end is None else max(self._end, end)


_RESERVED = ("event", "step")
