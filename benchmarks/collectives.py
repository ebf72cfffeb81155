"""The collectives of a compiled program, read from its XLA text.

Unlike XLA's own counts, this distinguishes the usual path from rare branches: in a ``lax.switch``,
the first branch is the usual one here, and all others are rare.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation"
    r"|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_QUOTED = re.compile(r'"[^"]*"')
_COMMENT = re.compile(r"/\*.*?\*/")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")


class Collective(NamedTuple):
    """One collective, however many arrays it takes."""

    kind: str
    bytes: int  # of its results, on one device


class Paths(NamedTuple):
    """The collectives of a program."""

    usual: tuple[Collective, ...]  # on the path of every run
    rare: tuple[Collective, ...]  # in branches that a usual run does not take


class _Computation(NamedTuple):
    own: list[Collective]
    calls: list[tuple[str, int]]  # name, and how many times it runs
    rare: list[str]


def read_collectives(text: str) -> Paths:
    """Return the collectives of a module, as of ``compiled.as_text()``.

    A loop counts as often as XLA knows it runs, and once if it does not know. For a conditional on
    a bool, nothing says which side is usual, so both count.
    """
    computations, entry = _parse(text)

    @cache
    def follow(name: str) -> Paths:
        here = computations[name]
        usual, rare = list(here.own), []
        for called, times in here.calls:
            paths = follow(called)
            usual += paths.usual * times
            rare += paths.rare * times
        for branch in here.rare:
            rare += [each for path in follow(branch) for each in path]
        return Paths(tuple(usual), tuple(rare))

    return follow(entry)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    """Return all computations by name, and the name of the entry computation."""
    computations: dict[str, _Computation] = {}
    entry, here = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            here = computations[header[2]] = _Computation([], [], [])
            entry = header[2] if header[1] else entry
            continue
        instruction = _INSTRUCTION.match(line)
        if instruction and here is not None:
            _enter(here, *instruction.groups())
    if not entry:
        raise ValueError("text is not an XLA module: no computation in it is the ENTRY")
    return computations, entry


def _enter(computation: _Computation, kind: str, op: str, rest: str) -> None:
    name = op.removesuffix("-start")
    if name in KINDS:
        results = _COMMENT.sub("", kind)
        if op in ("all-gather-start", "collective-permute-start"):
            # These also return their operands: (operands, results, ...).
            results = _elements(results)[1]
        computation.own.append(Collective(name, _bytes(results)))
    trips = _TRIPS.search(rest)
    times = int(trips[1]) if trips and op == "while" else 1
    attributes = _QUOTED.sub("", rest)
    for branches in _BRANCHES.findall(attributes):
        usual, *others = _names(branches)
        computation.calls.append((usual, 1))
        computation.rare.extend(others)
    for called in _CALLED.findall(attributes):
        computation.calls.extend((each, times) for each in _names(called))


def _names(listed: str) -> list[str]:
    return [name.strip().lstrip("%") for name in listed.strip("{}").split(",") if name.strip()]


def _elements(kind: str) -> list[str]:
    """Return the types in a tuple's type, which may be tuples themselves."""
    depth, elements = 0, [""]
    for letter in kind[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += letter
    return elements


def _bytes(kind: str) -> int:
    return sum(_array_bytes(*array) for array in _arrays(kind))


def _arrays(kind: str) -> Iterator[tuple[str, str]]:
    for found in _ARRAY.finditer(kind):
        yield found[1], found[2]


def _array_bytes(dtype: str, dims: str) -> int:
    bits = re.search(r"\d+", dtype)
    if dtype != "pred" and bits is None:  # a token, which is not data
        return 0
    size = 8 if bits is None else int(bits[0])
    for dim in re.findall(r"\d+", dims):
        size *= int(dim)
    return -(-size // 8)
