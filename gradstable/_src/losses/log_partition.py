"""The logarithm of a sum of exponentials, over the classes that count."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable._src.core.checks import check_axes
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating

Axis = int | tuple[int, ...] | None


class Partition(NamedTuple):
    """Logits relative to their largest, and the sum of their exponentials.

    Attributes:
      shifted: the logits minus the largest of their row, finite; 0 for a class that does not count.
      classes: bool, which classes count.
      named: bool, which classes ``where`` counts, including those of ``-inf``.
      rows: bool, which rows have a class that counts; this and all that follow are without the
        axes of classes.
      log_sum: logarithm of the sum of ``exp(shifted)``, between 0 and log of the number of
        classes; 0 in a row without classes.
      log_z: logarithm of the sum of ``exp(logits)``; 0 in a row without classes.
    """

    shifted: jax.Array
    classes: jax.Array
    named: jax.Array
    rows: jax.Array
    log_sum: jax.Array
    log_z: jax.Array


def partition(logits: jax.Array, axis: Axis, where: Any | None) -> Partition:
    """Return shifted logits and their log-partition function, in float32 or wider.

    A class counts if ``where`` says so and its logit is not ``-inf``. A logit of ``inf`` is
    treated as the largest finite one. Classes that do not count neither get nor affect gradients.

    Args:
      logits: floating-point.
      axis: the axis of classes, or several, or ``None`` for all.
      where: as for ``counted``.

    Raises:
      TypeError: if logits are not floating-point, or ``axis`` is not an integer.
      ValueError: if ``axis`` is out of range, or the shape of ``where`` does not fit.
    """
    check_floating("logits", logits)
    axes = check_axes(axis, logits.ndim)
    x = logits.astype(wide(logits.dtype))
    named = counted(where, logits.shape, axes)
    classes = (x != -jnp.inf) & named
    rows = jnp.any(classes, axis=axes, keepdims=True)
    # Selected before the difference and after it: entries that do not count may be NaN.
    x = jnp.where(classes, x, jnp.zeros_like(x))
    end = float(jnp.finfo(x.dtype).max)
    finite = jnp.minimum(x, jnp.asarray(end, x.dtype))
    largest = jnp.max(finite, axis=axes, keepdims=True, where=classes, initial=-end)
    # Subtracting it changes no loss, so its gradient would be a sum of zeros.
    largest = lax.stop_gradient(jnp.where(rows, largest, jnp.zeros_like(largest)))
    shifted = jnp.where(classes, _below(x, largest), jnp.zeros_like(x))
    exponentials = jnp.where(classes, jnp.exp(shifted), jnp.zeros_like(x))
    total = jnp.sum(exponentials, axis=axes)
    rows, largest = jnp.squeeze(rows, axes), jnp.squeeze(largest, axes)
    log_sum = jnp.log(jnp.where(rows, total, jnp.ones_like(total)))
    return Partition(
        shifted=shifted,
        classes=classes,
        named=named,
        rows=rows,
        log_sum=log_sum,
        log_z=largest + log_sum,
    )


@jax.custom_jvp
def _below(x: jax.Array, largest: jax.Array) -> jax.Array:
    """Return ``x - largest``, at least the lowest finite number; its slope in ``x`` is always 1."""
    limit = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)
    return jnp.maximum(jnp.minimum(x, limit) - largest, -limit)


@_below.defjvp
def _below_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # JAX's own rule would cut the gradient of a logit that is infinite or far below the largest.
    return _below(*primals), tangents[0]


def counted(where: Any | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> jax.Array:
    """Return which entries count, as bools of the given shape.

    Args:
      where: a mask that broadcasts to the given shape, with as many dimensions, or to that
        without ``axes``, for whole rows; ``None`` if all count.
      shape: the shape of the entries.
      axes: the axes of classes.

    Raises:
      ValueError: if the shape of ``where`` is neither.
    """
    if where is None:
        return jnp.ones(shape, jnp.bool_)
    mask = jnp.asarray(where, jnp.bool_)
    rows = tuple(size for at, size in enumerate(shape) if at not in axes)
    if mask.ndim == len(rows) and broadcasts(mask.shape, rows):
        return jnp.broadcast_to(jnp.expand_dims(mask, axes), shape)
    if mask.ndim == len(shape) and broadcasts(mask.shape, shape):
        return jnp.broadcast_to(mask, shape)
    msg = f"where must have the shape {shape}, or {rows} for whole rows, got {mask.shape}"
    raise ValueError(msg)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether one shape broadcasts to another without enlarging it."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
