"""The norms of units: one more read of the gradients, for rules that ask for it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.derivatives import constant
from gradstable._src.core.equations import with_gradient
from gradstable._src.core.layout import Split, Within, splits_of, together, withins_of
from gradstable._src.core.norms import measure
from gradstable._src.core.numerics import abs_square, largest_norm_in
from gradstable._src.core.select import run_branch
from gradstable._src.core.squares import as_wide, range_of
from gradstable._src.core.tree_checks import check_params
from gradstable._src.core.types import Measure, Scale, UnitNorms
from gradstable._src.core.units import KindName, Units
from gradstable._src.core.xla import apart


class _Range(NamedTuple):
    """The limits of a dtype for norms of units."""

    # If the norm of the whole tree is between them, no square overflows and not all underflow.
    tiny: float
    huge: float
    # Units whose largest entry is outside of these are squared after their own shift.
    small: float
    large: float


_F32 = _Range(2.0**-32, 2.0**60, 2.0**-30, 2.0**30)
_F64 = _Range(2.0**-90, 2.0**500, 2.0**-280, 2.0**460)


class UnitRequest(NamedTuple):
    """What a rule needs in addition to the norms of whole leaves.

    Attributes:
      units: its own notion of units; ``None``: that of the guard, else ``default``.
      params: whether it compares with the norms of the parameters.
      default: the kind of units if neither the rule nor the guard sets another.
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
    """Return the measure of the gradients, including the norms of units that rules ask for.

    Args:
      needs: the requests of the rules, in order.
      updates: the gradients.
      params: the parameters, or ``None``.
      axis_name: as for ``gs.guard``. Norms are those of the units of whole leaves.
      units: the notion of units for requests that have none of their own.

    Raises:
      ValueError: if a request needs parameters that were not passed, or ``axis_name`` does not say
        enough about how a leaf is split.
    """
    if needs:
        updates, params = constant((updates, params))
    measured = measure(updates, axis_name=axis_name)
    if measured.limits is not None and params is not None:
        # Moments are kept in the dtype of the parameters, whatever that of the gradients.
        dtypes = [param.dtype for param in jax.tree.leaves(with_gradient(params, updates))]
        kept = jnp.asarray(list(map(largest_norm_in, dtypes)), measured.limits.dtype)
        measured = measured._replace(limits=jnp.minimum(measured.limits, kept))
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
    # A huge unit says nothing about its neighbors: the rare path finds a shift for each of them.
    dtype = measured.norm.dtype
    limits = _F64 if dtype == np.float64 else _F32
    rare = (measured.norm < limits.tiny) | (measured.norm > limits.huge)
    ways = (lambda: _norms(leaves, withins, dtype), lambda: _safe_norms(leaves, withins, dtype))
    return UnitNorms(
        updates=run_branch(rare.astype(jnp.int32), ways),
        params=None
        if params is None
        else _norms(jax.tree.leaves(with_gradient(params, updates)), withins, dtype),
        sizes=tuple(within.entries for within in withins),
    )


def _norms(
    leaves: Sequence[jax.Array], withins: Sequence[Within], dtype: np.dtype
) -> tuple[jax.Array, ...]:
    """Return the norm of each unit of each whole leaf, keeping its dimensions."""
    pairs = zip(leaves, withins, strict=True)
    squares = [_sum_squares(leaf, within, dtype) for leaf, within in pairs]
    return tuple(map(jnp.sqrt, together(squares, _splits(withins))))


def _safe_norms(
    leaves: Sequence[jax.Array], withins: Sequence[Within], dtype: np.dtype
) -> tuple[jax.Array, ...]:
    """Return the same for units of any size next to each other, with more reads."""
    limits = _F64 if dtype == np.float64 else _F32
    up_by, down_by = range_of(dtype).up, range_of(dtype).down
    peaks = [_largest(leaf, within, dtype) for leaf, within in zip(leaves, withins, strict=True)]
    largest = together(peaks, _splits(withins), lax.pmax)
    large = [peak > limits.large for peak in largest]
    small = [peak < limits.small for peak in largest]
    squares: list[jax.Array] = []
    for leaf, within, up, down in zip(leaves, withins, small, large, strict=True):
        # One factor for all units at a time: XLA can write a copy of a product with one for each.
        # It is known only at run time, or XLA would square the factor separately.
        raised, lowered = (
            _sum_squares(leaf, within, dtype, jnp.where(jnp.any(some), by, 1.0).astype(dtype))
            for some, by in ((up, up_by), (down, down_by))
        )
        plain = _sum_squares(leaf, within, dtype, jnp.ones((), dtype))
        squares.append(jnp.where(down, lowered, jnp.where(up, raised, plain)))
    totals = together(squares, _splits(withins))
    return tuple(
        jnp.sqrt(total) * jnp.where(down, up_by, jnp.where(up, down_by, 1.0)).astype(dtype)
        for total, up, down in zip(totals, small, large, strict=True)
    )


def _sum_squares(
    leaf: jax.Array, within: Within, dtype: np.dtype, factor: jax.Array | None = None
) -> jax.Array:
    if factor is None:
        values = as_wide(apart(leaf), dtype)
    else:
        values = as_wide(apart(leaf, factor), dtype)
        values = values * factor.astype(values.dtype)
    return within.place(jnp.sum(abs_square(values), axis=within.dims, keepdims=True))


def _largest(leaf: jax.Array, within: Within, dtype: np.dtype) -> jax.Array:
    values = as_wide(apart(leaf), dtype)
    parts = jnp.abs(values) if not jnp.iscomplexobj(values) else _larger_part(values)
    return within.place(jnp.max(parts, axis=within.dims, keepdims=True, initial=0.0))


def _splits(withins: Sequence[Within]) -> list[Split]:
    return [within.split for within in withins]


def _larger_part(values: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.abs(values.real), jnp.abs(values.imag))
