"""Strict checks for the values of a run file: nothing is guessed."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from gradstable._src.telemetry.fields import LINES, Field, Kind

_SPECIAL = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
# What a column holds where a line has no value.
NOTHING = {Kind.NUMBER: float("nan"), Kind.INDEX: -1}
_LEAST = {Kind.STEP: 1, Kind.INDEX: -1, Kind.COUNT: -(2**63)}
_MOST = {Kind.STEP: 2**31 - 1, Kind.INDEX: 2**31 - 1, Kind.COUNT: 2**63 - 1}
_NONE = type(None)


def as_number(value: Any) -> float:
    """Return a number, or raise a ``ValueError`` or an ``OverflowError``."""
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    if value is None:
        return NOTHING[Kind.NUMBER]
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    msg = "is not a number"
    raise ValueError(msg)


def whole(value: Any, kind: Kind) -> int:
    """Return a whole number within the bounds of its kind, or raise a ``ValueError``."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not _LEAST[kind] <= value <= _MOST[kind]:
        msg = f"is not {kind.value}"
        raise ValueError(msg)
    return value


def _list_of(check: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def every(value: Any) -> list[Any]:
        return [check(one) for one in _is(list)(value)]

    return every


def _is(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            msg = f"is not a {kind.__name__}"
            raise ValueError(msg)
        return value

    return check


_CHECKS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.STEP: lambda value: whole(value, Kind.STEP),
    Kind.COUNT: lambda value: whole(value, Kind.COUNT),
    Kind.INDEX: lambda value: whole(value, Kind.INDEX),
    Kind.NUMBER: as_number,
    Kind.NUMBERS: _list_of(as_number),
    Kind.TEXT: _is(str),
    Kind.TEXTS: _list_of(_is(str)),
    Kind.COUNTS: _list_of(lambda value: whole(value, Kind.COUNT)),
    Kind.OBJECT: _is(dict),
}


def taken(value: Any, field: Field) -> Any:
    """Return the value of a field; ``None`` if it is absent.

    Raises:
      ValueError: if it is of another kind than the field, or required and absent.
    """
    if value is None:
        if field.required:
            msg = "is missing"
            raise ValueError(msg)
        return None
    try:
        return _CHECKS[field.kind](value)
    except OverflowError as error:  # a whole number beyond all floats
        raise ValueError(str(error)) from error


def fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return all known fields of a line; raises like ``taken``."""
    known = LINES[event["event"]]
    return {name: _named(name, event.get(name), field) for name, field in known.items()}


def _named(name: str, value: Any, field: Field) -> Any:
    try:
        return taken(value, field)
    except ValueError as error:
        msg = f"{name} {error}"
        raise ValueError(msg) from error


def column(values: list[Any], field: Field) -> tuple[np.ndarray, list[int]]:
    """Return a column as one array, and the indices of its broken values.

    A column with values of a single kind, as nearly all are, is converted in one go.
    """
    kind = field.kind
    floating = kind is Kind.NUMBER
    dtype = np.float64 if floating else np.int64
    nothing = NOTHING.get(kind, 0)
    kinds = set(map(type, values))
    if kinds == {float if floating else int}:
        try:
            made = np.array(values, dtype)
        except OverflowError:
            pass
        else:
            if floating or (made.min() >= _LEAST[kind] and made.max() <= _MOST[kind]):
                return made, []
    made = np.full(len(values), nothing, dtype)
    if kinds == {_NONE} and not field.required:
        return made, []
    broken = []
    for place, value in enumerate(values):
        if floating and type(value) is float:
            made[place] = value
            continue
        try:
            one = taken(value, field)
        except ValueError:
            broken.append(place)
        else:
            made[place] = nothing if one is None else one
    return made, broken


def rows_of(lists: list[Any]) -> tuple[dict[int, tuple[list[int], np.ndarray]], list[int]]:
    """Return lists of numbers as arrays, by length, and the indices of broken ones.

    Returns:
      For each length, the indices of its lists and a float64 ``[k, length]``; and the indices of
      anything that is not a list of numbers. ``None`` counts as neither.
    """
    places: dict[int, list[int]] = {}
    broken = []
    for place, one in enumerate(lists):
        if type(one) is list:
            places.setdefault(len(one), []).append(place)
        elif one is not None:
            broken.append(place)
    found = {}
    for length, here in places.items():
        made, bad = _matrix([lists[place] for place in here], length)
        kept = np.setdiff1d(np.arange(len(here)), bad)
        broken += [here[one] for one in bad]
        if kept.size:
            found[length] = ([here[one] for one in kept], made[kept] if bad else made)
    return found, broken


def _matrix(lists: list[list[Any]], length: int) -> tuple[np.ndarray, list[int]]:
    flat = list(chain.from_iterable(lists))
    made, bad = column(flat, Field(Kind.NUMBER))
    return made.reshape(len(lists), length), sorted({one // length for one in bad})
