"""The norms of units: a further read of the gradients, for the rules that ask for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._core.checks import check_params
from gradstable._core.derivatives import constant
from gradstable._core.layout import AxisName, Split, Within, splits_of, together, withins_of
from gradstable._core.norms import measure
from gradstable._core.numerics import abs_square, wide
from gradstable._core.select import run_branch
from gradstable._core.types import Measure, Scale, UnitNorms
from gradstable._core.units import KindName, Units

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
      axis_name: as for ``gs.guard``. Norms are those of the units of whole leaves.
      units: the notion of units where a request has none of its own.

    Raises:
      ValueError: if a request needs parameters that are not there, or ``axis_name`` tells too
        little of how a leaf is split.
    """
    updates, params = constant((updates, params))
    measured = measure(updates, axis_name=axis_name)
    found: list[UnitNorms] = []
    for need in needs:
        if need.params:
            check_params(params, "a rule")
        asked = units if need.units is None else need.units
        withins = withins_of(updates, need.default if asked is None else asked, axis_name)
        found.append(_unit_norms(measured, withins, updates, params if need.params else None))
    return measured._replace(units=tuple(found))


def local_scale(scale: Scale, updates: object, *, axis_name: AxisName) -> Scale:
    """Return the factors of a verdict for the parts of leaves that this device holds."""
    if axis_name is None or not isinstance(scale, tuple):
        return scale
    pairs = zip(scale, splits_of(updates, axis_name), strict=True)
    return tuple(split.take(factor) if factor.ndim else factor for factor, split in pairs)


def _unit_norms(
    measured: Measure, withins: Sequence[Within], updates: object, params: object
) -> UnitNorms:
    leaves = jax.tree.leaves(updates)
    # A huge unit says nothing of its neighbors: the rare way finds a shift for each of them.
    rare = (measured.norm < _TINY) | (measured.norm > _HUGE)
    ways = (lambda: _norms(leaves, withins), lambda: _safe_norms(leaves, withins))
    return UnitNorms(
        updates=run_branch(rare.astype(jnp.int32), ways),
        params=None
        if params is None
        else _norms(jax.tree.leaves(params_like(params, updates)), withins),
        sizes=tuple(within.entries for within in withins),
    )


def params_like(params: object, updates: object) -> Any:
    """Return the parameters, with ``None`` for those that have no gradient."""

    def keep(update: Any, param: Any) -> Any:
        return None if update is None else param

    return jax.tree.map(keep, updates, params, is_leaf=lambda leaf: leaf is None)


def _norms(leaves: Sequence[jax.Array], withins: Sequence[Within]) -> tuple[jax.Array, ...]:
    """Return the float32 norm of each unit of each whole leaf, which keeps its dimensions."""
    squares = [_sum_squares(leaf, within) for leaf, within in zip(leaves, withins, strict=True)]
    return tuple(_root(total) for total in together(squares, _splits(withins)))


def _safe_norms(leaves: Sequence[jax.Array], withins: Sequence[Within]) -> tuple[jax.Array, ...]:
    """Return the same of units of any size, one beside the other, with a second read."""
    values = [leaf.astype(wide(leaf.dtype)) for leaf in leaves]
    peaks = [_largest(x, within) for x, within in zip(values, withins, strict=True)]
    largest = together(peaks, _splits(withins), lax.pmax)
    large, small = [peak > _LARGE for peak in largest], [peak < _SMALL for peak in largest]
    squares: list[jax.Array] = []
    for x, within, up, down in zip(values, withins, small, large, strict=True):
        shift = within.split.take(jnp.where(down, _DOWN, jnp.where(up, _UP, 1.0)))
        squares.append(_sum_squares(x * shift.astype(x.dtype), within))
    totals = together(squares, _splits(withins))
    return tuple(
        _root(total) * jnp.where(down, _UP, jnp.where(up, _DOWN, 1.0)).astype(jnp.float32)
        for total, up, down in zip(totals, small, large, strict=True)
    )


def _sum_squares(leaf: jax.Array, within: Within) -> jax.Array:
    values = leaf.astype(wide(leaf.dtype))
    return within.place(jnp.sum(abs_square(values), axis=within.dims, keepdims=True))


def _largest(values: jax.Array, within: Within) -> jax.Array:
    parts = jnp.abs(values) if not jnp.iscomplexobj(values) else _larger_part(values)
    return within.place(jnp.max(parts, axis=within.dims, keepdims=True, initial=0.0))


def _splits(withins: Sequence[Within]) -> list[Split]:
    return [within.split for within in withins]


def _root(total: jax.Array) -> jax.Array:
    return jnp.sqrt(total).astype(jnp.float32)


def _larger_part(values: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.abs(values.real), jnp.abs(values.imag))
