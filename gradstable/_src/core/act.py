"""Act: apply a verdict elementwise, which XLA fuses into what follows."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.eager import is_traced, when_repeated
from gradstable._src.core.equations import is_array
from gradstable._src.core.numerics import fits, is_inexact, is_low_precision, rounded, wide
from gradstable._src.core.scale import per_leaf
from gradstable._src.core.select import keep_where
from gradstable._src.core.types import Measure, Scale, Verdict
from gradstable._src.core.xla import cast, once

# Adding -0.0 leaves every number as it is; adding 0.0 would turn -0.0 into 0.0.
_NOTHING = -0.0


def settle(verdict: Verdict, measure: Measure) -> Verdict:
    """Return the same verdict, as numbers that XLA computes once and reads where they are used."""
    norms = measure.leaf_norms[:2]
    if norms.shape[0] < 2 or not isinstance(verdict.accept, jax.core.Tracer):
        return verdict
    # Where a norm is NaN the step is rejected, and nothing is scaled.
    accept = jnp.any(verdict.accept & (norms >= 0.0))
    if isinstance(verdict.scale, tuple):
        return verdict._replace(accept=accept)
    return verdict._replace(accept=accept, scale=once(verdict.scale, norms))


def scale_updates(updates: Any, scale: Scale, *, exact: bool | None = None) -> Any:
    """Return ``scale * updates``, computed in float32 and rounded to the dtype of each leaf.

    Where a factor is 1, entries come back bit-identical outside ``jit``, where a product would
    flush subnormals. Inside ``jit``, all arithmetic on the CPU flushes them anyway, and a select
    here would make XLA write the product to memory for an optimizer that reads it twice. A leaf
    that is not a floating-point array (the gradient of an integer) is returned unchanged.

    Args:
      updates: the gradients.
      scale: the factors.
      exact: whether to select. Default ``None``: only outside ``jit``.
    """

    def apply(update: jax.Array, factor: jax.Array) -> jax.Array:
        if not is_gradient(update):
            return update
        dtype = wide(update.dtype)
        scaled = cast(update.astype(dtype) * factor.astype(dtype), update.dtype)
        selects = not is_traced(factor, update) if exact is None else exact
        return jnp.where(factor == 1.0, update, scaled) if selects else scaled

    leaves, structure = jax.tree.flatten(updates)
    factors = per_leaf(scale, len(leaves))
    return jax.tree.unflatten(structure, map(apply, leaves, factors))


def keep_finite(accept: jax.Array, updates: Any, params: Any | None) -> Any:
    """Return updates that are zero where rejected, not finite, or fatal to their parameter.

    It must be the last to touch the updates: a value that is finite here may not be after a cast.
    """
    return _keep_finite(accept, updates, params)


@when_repeated
def _keep_finite(accept: jax.Array, updates: Any, params: Any | None) -> Any:

    def keep(update: Any, param: Any) -> Any:
        if update is None or not is_array(update):
            return update
        if not is_gradient(update):
            return lax.select_n(accept, unmoved(update), update)
        # A finite sum has finite parts: one test is enough.
        sound = fits(update, update.dtype) if param is None else _lands(jnp.asarray(param), update)
        return keep_where(accept, sound, update, unmoved(update))

    if params is None:
        return jax.tree.map(lambda update: keep(update, None), updates)
    return jax.tree.map(keep, updates, params, is_leaf=lambda leaf: leaf is None)


def is_gradient(leaf: Any) -> bool:
    """Whether a leaf is a floating-point (or complex) array, and so can be measured and scaled."""
    return is_array(leaf) and is_inexact(leaf)


def unmoved(like: Any) -> jax.Array:
    """Return the update that leaves a parameter of this type bit-identical."""
    return lax.full_like(like, _NOTHING)


def applied(param: jax.Array, update: jax.Array) -> jax.Array:
    """Return what ``optax.apply_updates`` will make of a parameter."""
    if param.dtype == update.dtype:
        return param + update
    dtype = wide(param.dtype)
    return (param.astype(dtype) + update.astype(dtype)).astype(param.dtype)


def _lands(param: jax.Array, update: jax.Array) -> jax.Array:
    """Whether each entry of a parameter is finite after an update, in its own dtype."""
    if not is_inexact(param):
        return fits(update, update.dtype)
    if not is_low_precision(param.dtype):
        return fits(applied(param, update), param.dtype)
    # In the same order as it will be applied: first the update is rounded, then the sum.
    step = update.astype(wide(update.dtype))
    if is_low_precision(update.dtype):
        step = rounded(step, update.dtype)
    return fits(param.astype(step.dtype) + step, param.dtype)
