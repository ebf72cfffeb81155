"""States of several runs in one, as ``vmap`` and ``pmap`` make them: a report for each member."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

# Which member, by its index along each axis; () if there is only one run.
Member: TypeAlias = tuple[int, ...]

# This many different reports are shown in full; the rest are counted.
_MOST = 8


class Section(NamedTuple):
    """A part of the report: numbers from the device, and how to put them into words.

    Attributes:
      numbers: a tree of arrays, whose first leaf is a scalar for each member.
      tell: a function from the numbers of one member to sentences.
      weight: a function from the same to how bad it is; the worst are shown in full.
    """

    numbers: Any
    tell: Callable[[Any], list[str]]
    weight: Callable[[Any], int] = lambda _: 0


def shape_of(numbers: Any) -> tuple[int, ...]:
    """Return the axes of the members: the axes that a scalar has here."""
    return np.shape(jax.tree.leaves(numbers)[0])


def of_member(numbers: Any, member: Member) -> Any:
    """Return the numbers of one member."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[member], numbers) if member else numbers


def tell_all(sections: Sequence[Section], *, only: Sequence[Member] = ()) -> list[str]:
    """Return the report of each member; members with the same report are named together.

    Args:
      sections: in order, with numbers that have been fetched.
      only: the members to report. Default: all.
    """
    lines: list[str] = []
    for shape in dict.fromkeys(shape_of(one.numbers) for one in sections):
        here = [one for one in sections if shape_of(one.numbers) == shape]
        lines += _tell(here, shape, [one for one in only if len(one) == len(shape)])
    return lines


def named(members: Sequence[Member], shape: tuple[int, ...]) -> str:
    """Return members in words: ``member 3 of 8``, ``members 0-2 and 5 of 8``, ``all 8 members``."""
    total = int(np.prod(shape))
    if total == 1:
        return "the run"
    size = f"{total}" if len(shape) == 1 else f"{shape}"
    if len(members) == total > 1:
        return f"all {size} members"
    if len(members) == 1:
        return f"member {_one(members[0])} of {size}"
    parts = _ranges(members) if len(shape) == 1 else [_one(one) for one in members]
    if len(parts) > _MOST:
        parts = [*parts[:_MOST], "more"]
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"members {listed} of {size}"


def _tell(sections: Sequence[Section], shape: tuple[int, ...], only: Sequence[Member]) -> list[str]:
    if np.prod(shape) == 1:  # only one run, perhaps on one device of pmap
        only_one = (0,) * len(shape)
        return [line for one in sections for line in one.tell(of_member(one.numbers, only_one))]
    stories: dict[tuple[str, ...], list[Member]] = {}
    weights: dict[tuple[str, ...], int] = {}
    for member in only or list(np.ndindex(shape)):
        parts = [(one, of_member(one.numbers, member)) for one in sections]
        story = tuple(line for one, numbers in parts for line in one.tell(numbers))
        stories.setdefault(story, []).append(member)
        weight = max(one.weight(numbers) for one, numbers in parts)
        weights[story] = max(weight, weights.get(story, 0))
    worst = sorted(stories, key=lambda story: -weights[story])[:_MOST]
    lines: list[str] = []
    for story, members in stories.items():
        if story in worst and story:
            name = named(members, shape)
            lines += [f"{name[0].upper()}{name[1:]}:", *story]
    left = sum(len(members) for story, members in stories.items() if story not in worst)
    if left:
        lines.append(
            f"{left} more members differ from these, and none of them is worse. Pass "
            "jax.tree.map(lambda x: x[i], opt_state) to see the report of member i."
        )
    return lines


def _one(member: Member) -> str:
    return f"{member[0]}" if len(member) == 1 else f"{member}"


def _ranges(members: Sequence[Member]) -> list[str]:
    runs: list[list[int]] = []
    for (number,) in members:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return parts
