"""Which examples and which leaves a large gradient comes from."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradstable._src.autopsy.examples import has_examples
from gradstable._src.autopsy.result import Spike
from gradstable._src.core.norms import global_norm

if TYPE_CHECKING:
    from gradstable._src.autopsy.program import Program

Name = TypeVar("Name", bound=Hashable)

# What the examples and leaves that are named make up together.
_EXPLAINED = 0.9
# Gradients of this many examples are computed together, if they take no more memory than that.
_TOGETHER, _BYTES = 32, 2**28


def spike(program: Program, gradients: Sequence[Any], axis: int | None, size: int) -> Spike:
    """Return which examples and leaves a finite gradient comes from."""
    whole = float(global_norm(list(gradients)))
    norms = {
        name: float(global_norm([gradient]))
        for name, gradient in zip(program.names, gradients, strict=False)
    }
    shares = {name: (norm / whole) ** 2 if whole else 0.0 for name, norm in norms.items()}
    found = Spike(whole, norms, shares, _fewest(shares), (), (), ())
    if axis is None or size < 2 or not whole or not math.isfinite(whole):
        return found
    unit = [gradient / jnp.asarray(whole, gradient.dtype) for gradient in gradients]
    of_each = _of_each(program, unit, axis, size)
    total = np.nansum(of_each[1]) if of_each else 0.0
    if of_each is None or total <= 0.0:
        return found
    # Of a mean and of a sum over the examples alike, the parts along the gradient add up to it.
    parts = np.nan_to_num(of_each[1] / total)
    return found._replace(
        example_norms=tuple(of_each[0].tolist()),
        example_shares=tuple(parts.tolist()),
        examples=_fewest(dict(enumerate(parts.tolist()))),
    )


def _fewest(shares: Mapping[Name, float]) -> tuple[Name, ...]:
    """Return the names with the largest shares that sum to most of the whole."""
    chosen: list[Name] = []
    total = 0.0
    for name in sorted(shares, key=lambda name: -shares[name]):
        if total >= _EXPLAINED or shares[name] <= 0.0:
            break
        chosen.append(name)
        total += shares[name]
    return tuple(chosen)


def _of_each(
    program: Program, unit: Sequence[Any], axis: int, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the norm of the gradient of each example, and its part along that of the batch."""
    nbytes = sum(array.nbytes for array in unit)
    together = max(1, min(_TOGETHER, _BYTES // max(nbytes, 1)))
    # A loss that is spread over devices takes a batch of as many at least: the same example again.
    for copies in dict.fromkeys((1, jax.device_count())):
        for chunk in dict.fromkeys((together, 1)):
            try:
                found = _run(program, unit, axis, size, copies=copies, chunk=chunk)
            except Exception:  # a loss may fail on a single example in any way
                continue
            norms, parts = (np.array(each, np.float64) for each in found)
            broken = ~(np.isfinite(norms) & np.isfinite(parts))
            norms[broken] = parts[broken] = np.nan
            return None if broken.all() else (norms, parts)
    return None


def _run(
    program: Program, unit: Sequence[Any], axis: int, size: int, *, copies: int, chunk: int
) -> Any:
    given = list(program.given)
    split = [
        number
        for number, array in enumerate(given)
        if number >= program.num_weights and has_examples(array, axis, size)
    ]
    batched = [jnp.moveaxis(_whole(given[number]), axis, 0) for number in split]
    for number in split:
        given[number] = jnp.zeros(())  # in the place of an example

    @jax.jit
    def run(batched: Sequence[Any], given: Sequence[Any], unit: Sequence[Any]) -> Any:
        def of_one(example: Sequence[Any]) -> Any:
            full = list(given)
            for number, own in zip(split, example, strict=True):
                full[number] = jnp.repeat(jnp.expand_dims(own, axis), copies, axis)
            _, gradients = program.both(full)
            products = [
                jnp.vdot(u.astype(jnp.float32), g.astype(jnp.float32))
                for u, g in zip(unit, gradients, strict=True)
            ]
            return global_norm(gradients), sum(products)

        return jax.lax.map(of_one, batched, batch_size=chunk if chunk > 1 else None)

    return run(batched, given, unit)


def _whole(array: jax.Array) -> jax.Array:
    """Return an array that is not split over devices, so that examples can be taken one by one."""
    if isinstance(array.sharding, NamedSharding):
        return jax.device_put(array, NamedSharding(array.sharding.mesh, PartitionSpec()))
    return array
