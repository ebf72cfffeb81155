"""The sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradstable._src.autopsy.result import Cause, Spike

# How many names are listed.
_LEAVES, _EXAMPLES, _SHARDS = 3, 8, 4


def cause_lines(loss: float, broken: tuple[str, ...], cause: Cause) -> list[str]:
    """Return the lines about what is not finite."""
    where = f"The loss is {loss:.6g}"
    if broken:
        where += f", and {len(broken)} {_of(len(broken), 'gradient')} not finite"
        where += f" ({_listed(broken, _LEAVES)})"
    lines = [f"{where}."]
    if not cause.operation:
        lines.append(f"{cause.argument} was not finite to begin with: {cause.output}.")
        return [*lines, *_concerned(cause)]
    of = "the derivative of " if cause.backward else ""
    lines.append(f"It began in {of}{cause.file}:{cause.line}, in {cause.function}:")
    lines.append(f"    {cause.code or '(no source)'}")
    lines.append(f"  operation {cause.operation}" + (f" in {cause.scope}" if cause.scope else ""))
    if cause.iterations:
        lines[-1] += f", pass {', '.join(map(str, cause.iterations))} of the loop"
    lines += [f"  input   {one}" for one in cause.inputs]
    lines.append(f"  output  {cause.output}")
    if cause.reason:
        lines.append(f"  reason: {cause.reason}")
    if cause.leaf:
        lines.append(f"  nearest parameters: {cause.leaf}")
    return [*lines, *(f"  {one}" for one in _concerned(cause))]


def spike_lines(spike: Spike) -> list[str]:
    """Return the lines about where a finite gradient comes from."""
    lines = [f"The gradient norm is {spike.norm:.4g}."]
    if spike.examples:
        norms = [spike.example_norms[number] for number in spike.examples]
        usual = np.nanmedian(spike.example_norms)
        lines.append(
            f"  {_percent(spike.example_shares[number] for number in spike.examples)} of its square"
            f" is from {len(norms)} of {len(spike.example_norms)} examples:"
            f" {_listed(map(str, spike.examples), _EXAMPLES)}"
            f" (norm {norms[0]:.4g}, median {usual:.4g})"
        )
    if spike.leaves and len(spike.leaf_norms) > 1:
        lines.append(
            f"  {_percent(spike.leaf_shares[name] for name in spike.leaves)} of its square is in"
            f" {len(spike.leaves)} of {len(spike.leaf_norms)} leaves:"
            f" {_listed(spike.leaves, _LEAVES)}"
        )
    return lines


def _concerned(cause: Cause) -> list[str]:
    lines: list[str] = []
    if cause.shards:
        places = (", ".join(f"{axis} {n}" for axis, n in place.items()) for place in cause.shards)
        one = len(cause.shards) == 1
        lines.append(f"{'shard' if one else 'shards'}: {_listed(places, _SHARDS, '; ')}")
    if cause.examples:
        one = len(cause.examples) == 1
        shown = _listed(map(str, cause.examples), _EXAMPLES)
        lines.append(f"{'example' if one else 'examples'}: {shown}")
    return lines


def _of(count: int, name: str) -> str:
    return f"{name} is" if count == 1 else f"{name}s are"


def _listed(names: Iterable[str], most: int, between: str = ", ") -> str:
    every = list(names)
    return between.join([*every[:most], *(["..."] if every[most:] else [])])


def _percent(shares: Iterable[float]) -> str:
    return f"{100 * math.fsum(shares):.0f} %"
