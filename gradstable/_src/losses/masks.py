"""Which entries count: masks of losses, and a mean that is defined even if none does."""

import jax
import jax.numpy as jnp

from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating, check_same_tree
from gradstable._src.losses.log_partition import broadcasts


def masked_mean(values: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""Return the mean of the entries that count, or 0 if none does.

    Use it to reduce losses of single entries: ``jnp.mean(x, where=mask)`` returns NaN for a
    batch in which everything is padding, and its gradient is NaN as well. If a batch is spread
    over devices, sum and count over all of them first: a mean of means gives too much weight to
    the few entries of a short shard.

    .. math:: \sum_{i \in where} x_i / \max(1, |where|)

    Args:
      values: array of any shape, floating-point.
      where: bool, of a shape that broadcasts to that of ``values``. Default: all count.

    Returns:
      A float32 scalar (wider for wider values).

    Raises:
      TypeError: if ``values`` are not floating-point.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> losses = jnp.array([1.0, 2.0, jnp.nan])
      >>> gs.losses.masked_mean(losses, where=jnp.array([True, True, False])).item()
      1.5
      >>> gs.losses.masked_mean(losses, where=jnp.zeros(3, bool)).item()
      0.0

    Source:
      Our own.
    """
    values = jnp.asarray(values)
    check_floating("values", values)
    values = values.astype(wide(values.dtype))
    if where is None:
        return jnp.sum(values) / max(values.size, 1)
    counted = beside("where", jnp.asarray(where, jnp.bool_), "values", values)
    count = jnp.maximum(jnp.sum(counted, dtype=jnp.int32), 1)
    return jnp.sum(discard(values, counted)) / count.astype(values.dtype)


def discard(values: jax.Array, counted: jax.Array | None) -> jax.Array:
    """Return the values with 0, and no gradient, in place of those that do not count."""
    if counted is None:
        return values
    mask = beside("where", jnp.asarray(counted, jnp.bool_), "the loss", values)
    return jnp.where(mask, values, jnp.zeros_like(values))


def beside(name: str, values: jax.Array, other: str, others: jax.Array) -> jax.Array:
    """Return an array in the shape of another; it can broadcast to it, but not the reverse.

    ``[n]`` and ``[n, 1]`` would make ``[n, n]``, which is never wanted in a loss.

    Raises:
      ValueError: if it does not broadcast.
    """
    if not broadcasts(values.shape, others.shape):
        check_same_tree(other, {"": others}, name, {"": values})
    return jnp.broadcast_to(values, others.shape)
