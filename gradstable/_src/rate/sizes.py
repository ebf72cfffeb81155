"""Norms of updates and parameters, by leaf or by unit, for caps and trust ratios."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.equations import with_gradient
from gradstable._src.core.norms import measure
from gradstable._src.core.types import Scale
from gradstable._src.core.unit_norms import UnitRequest, local_scale, measure_for
from gradstable._src.core.units import Units


class Sizes(NamedTuple):
    """The sizes of each leaf: scalars, or arrays with one entry per unit that broadcast."""

    norms: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]  # entries in a unit, float32
    param_norms: tuple[jax.Array, ...]  # empty without parameters
    params_rms: jax.Array  # of all parameters together


def sizes_of(
    updates: Any, params: Any | None, units: Units, *, axis_name: AxisName = None
) -> Sizes:
    """Return the sizes of updates, and of parameters unless ``None``; overflow-safe for updates.

    Args:
      updates: tree of arrays.
      params: tree of arrays with the same structure, or ``None``.
      units: ``"leaf"``, which costs least, or any other kind of units.
      axis_name: as for ``gs.guard``. Units that are entirely on other devices are left out.
    """
    if units != "leaf":
        request = UnitRequest(units=units, params=params is not None)
        found = measure_for((request,), updates, params, axis_name=axis_name).units[0]
        counts = tuple(jnp.asarray(size, jnp.float32) for size in found.sizes)

        def held(norms: Scale) -> tuple[jax.Array, ...]:
            return tuple(local_scale(norms, updates, axis_name=axis_name))

        whole = found.params or ()
        squares = [jnp.sum(jnp.square(norms)) for norms in whole]
        pairs = zip(found.updates, found.sizes, strict=True)
        rms = rms_of(squares, sum(norms.size * size for norms, size in pairs))
        return Sizes(held(found.updates), counts, held(whole), rms)
    measured = measure(updates, axis_name=axis_name)
    indices = range(measured.leaf_norms.shape[0])
    norms = jnp.zeros((0,), jnp.float32)
    if params is not None:
        norms = measure(with_gradient(params, updates), axis_name=axis_name).leaf_norms
    return Sizes(
        norms=tuple(measured.leaf_norms[index] for index in indices),
        counts=tuple(measured.leaf_sizes[index] for index in indices),
        param_norms=tuple(norms[index] for index in range(norms.size)),
        params_rms=rms_of(jnp.square(norms), jnp.sum(measured.leaf_sizes)),
    )


def rms_of(squares: Sequence[jax.Array] | jax.Array, entries: ArrayLike) -> jax.Array:
    """Return the root mean square of entries, from the sums of squares of their parts.

    Sums that are not finite count as zero.
    """
    sums = jnp.asarray(squares, jnp.float32)
    total = jnp.sum(jnp.where(jnp.isfinite(sums), sums, 0.0))
    mean = total / jnp.maximum(jnp.asarray(entries, jnp.float32), 1.0)
    return jnp.sqrt(jnp.where(jnp.isfinite(mean), mean, 0.0))


def factor_to(limit: jax.Array, norm: jax.Array) -> jax.Array:
    """Return the factor that brings a norm down to its limit; 1 below it, NaN for NaN."""
    return jnp.where(norm <= limit, jnp.ones_like(norm), limit / norm)
