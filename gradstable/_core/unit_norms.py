"""The norms of units: a further read of the gradients, for the rules that ask for it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._core.checks import check_params
from gradstable._core.norms import AxisName, measure
from gradstable._core.numerics import abs_square, wide
from gradstable._core.select import run_branch
from gradstable._core.types import Measure, UnitNorms
from gradstable._core.units import KindName, Units, unit_axes

# Between them the norm of the whole tree tells that no square overflows, nor all underflow.
_TINY, _HUGE = 2.0**-32, 2.0**60
# Entries up to 2**-30 and from 2**30 on are squared after a shift, each unit by its own.
_SMALL, _LARGE = 2.0**-30, 2.0**30
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
    default: KindName = "flax"


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
        if need.params:
            check_params(params, "a rule")
        asked = units if need.units is None else need.units
        wanted = need.default if asked is None else asked
        found.append(_unit_norms(measured, wanted, updates, params if need.params else None))
    return measured._replace(units=tuple(found))


def _unit_norms(measured: Measure, units: Units, updates: object, params: object) -> UnitNorms:
    axes = unit_axes(units, updates)
    leaves = jax.tree.leaves(updates)

    def of(these: Sequence[Any], norm: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(norm(leaf, within) for leaf, within in zip(these, axes, strict=True))

    # A huge unit says nothing of its neighbors: the rare way finds a shift for each of them.
    rare = (measured.norm < _TINY) | (measured.norm > _HUGE)
    ways = (lambda: of(leaves, norm_within), lambda: of(leaves, _safe_norm_within))
    return UnitNorms(
        updates=run_branch(rare.astype(jnp.int32), ways),
        params=None
        if params is None
        else of(jax.tree.leaves(params_like(params, updates)), norm_within),
        sizes=tuple(
            math.prod(leaf.shape[axis] for axis in within)
            for leaf, within in zip(leaves, axes, strict=True)
        ),
    )


def params_like(params: object, updates: object) -> Any:
    """Return the parameters, with ``None`` for those that have no gradient."""

    def keep(update: Any, param: Any) -> Any:
        return None if update is None else param

    return jax.tree.map(keep, updates, params, is_leaf=lambda leaf: leaf is None)


def norm_within(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return the float32 norm of each unit of a leaf, which keeps its number of dimensions."""
    values = leaf.astype(wide(leaf.dtype))
    return jnp.sqrt(jnp.sum(abs_square(values), axis=axes, keepdims=True)).astype(jnp.float32)


def _safe_norm_within(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return the same of units of any size, one beside the other, with a second read."""
    values = leaf.astype(wide(leaf.dtype))
    parts = jnp.abs(values) if not jnp.iscomplexobj(values) else _larger_part(values)
    largest = jnp.max(parts, axis=axes, keepdims=True, initial=0.0)
    large, small = largest > _LARGE, largest < _SMALL
    shift = jnp.where(large, _DOWN, jnp.where(small, _UP, 1.0)).astype(parts.dtype)
    unshift = jnp.where(large, _UP, jnp.where(small, _DOWN, 1.0)).astype(jnp.float32)
    return norm_within(values * shift.astype(values.dtype), axes) * unshift


def _larger_part(values: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.abs(values.real), jnp.abs(values.imag))
