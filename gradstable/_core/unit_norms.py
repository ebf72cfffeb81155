"""The norms of units: a further read of the gradients, for the rules that ask for it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._core.norms import AxisName, measure
from gradstable._core.numerics import abs_square, wide
from gradstable._core.types import Measure, UnitNorms
from gradstable._core.units import Kind, Units, unit_axes

# Below and above, squares are taken of values times a power of two: see norms.py.
_TINY, _HUGE = 2.0**-32, 2.0**60
_UP, _DOWN = 2.0**90, 2.0**-90


class UnitRequest(NamedTuple):
    """What a rule wants to know besides the norms of whole leaves.

    Attributes:
      units: its own notion of units; ``None``: that of the guard, else ``default``.
      params: whether it compares with the norms of the parameters.
      default: the kind of units if nobody names another.
    """

    units: Units | None = None
    params: bool = False
    default: Kind = "flax"


def measure_for(
    needs: Sequence[UnitRequest],
    updates: object,
    params: object,
    *,
    axis_name: AxisName = None,
    units: Units | None = None,
) -> Measure:
    """Return the measure of the gradients, with the norms of units that rules ask for.

    Args:
      needs: the requests of the rules, in order.
      updates: the gradients.
      params: the parameters, or ``None``.
      axis_name: as for ``measure``.
      units: the notion of units where a request has none of its own.

    Raises:
      ValueError: if a request needs parameters that are not there, or units are asked for
        under ``axis_name``.
    """
    measured = measure(updates, axis_name=axis_name)
    if not needs:
        return measured
    if axis_name is not None:
        msg = (
            "axis_name cannot be used with rules for units, since a unit may lie on several "
            "shards: use jit with shardings, which needs no axis_name"
        )
        raise ValueError(msg)
    found: list[UnitNorms] = []
    for need in needs:
        if need.params and params is None:
            msg = (
                "a rule compares gradients with parameters, and needs them: call "
                "update(updates, state, params)"
            )
            raise ValueError(msg)
        wanted = next(each for each in (need.units, units, need.default) if each is not None)
        found.append(_unit_norms(measured, wanted, updates, params if need.params else None))
    return measured._replace(units=tuple(found))


def _unit_norms(measured: Measure, units: Units, updates: object, params: object) -> UnitNorms:
    axes = unit_axes(units, updates)
    leaves = jax.tree.leaves(updates)
    huge, tiny = measured.norm > _HUGE, measured.norm < _TINY
    shift = jnp.where(huge, _DOWN, jnp.where(tiny, _UP, 1.0))
    unshift = jnp.where(huge, _UP, jnp.where(tiny, _DOWN, 1.0))

    def norms(these: Sequence[Any], shift: Any, unshift: Any) -> tuple[jax.Array, ...]:
        return tuple(
            norm_within(leaf, within, shift) * unshift
            for leaf, within in zip(these, axes, strict=True)
        )

    one = jnp.ones((), jnp.float32)
    of_params = None if params is None else norms(jax.tree.leaves(params), one, one)
    return UnitNorms(
        updates=norms(leaves, shift, unshift),
        params=of_params,
        sizes=tuple(
            math.prod(leaf.shape[axis] for axis in within)
            for leaf, within in zip(leaves, axes, strict=True)
        ),
    )


def norm_within(
    leaf: jax.Array, axes: tuple[int, ...], shift: jax.Array | None = None
) -> jax.Array:
    """Return the float32 norm of each unit of a leaf, which keeps its number of dimensions."""
    values = leaf.astype(wide(leaf.dtype))
    if shift is not None:
        values = values * shift.astype(values.dtype)
    return jnp.sqrt(jnp.sum(abs_square(values), axis=axes, keepdims=True)).astype(jnp.float32)
