"""The logarithm of a sum of exponentials, over the classes that count."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._core.checks import check_axis, check_floating
from gradstable._core.numerics import wide


class Partition(NamedTuple):
    """Logits beside their largest, and what their exponentials sum to.

    Attributes:
      shifted: the logits minus the largest of their row, 0 for a class that does not count.
      classes: bool, which classes count.
      rows: bool, which rows have one; without the axis of classes, as all that follow.
      log_sum: logarithm of the sum of ``exp(shifted)``, between 0 and log of the number of
        classes; 0 in a row without classes.
      log_z: logarithm of the sum of ``exp(logits)``; 0 in a row without classes.
    """

    shifted: jax.Array
    classes: jax.Array
    rows: jax.Array
    log_sum: jax.Array
    log_z: jax.Array


def partition(logits: jax.Array, axis: int, where: Any | None) -> Partition:
    """Return logits shifted, with their log-partition function, in float32 or wider.

    A class counts where ``where`` says so and its logit is not ``-inf``. ``where`` has the
    shape of the logits, or that without ``axis`` for whole rows. A logit of ``inf`` is taken
    for the largest finite one. Nothing that does not count gets a gradient, nor lends one.

    Raises:
      TypeError: if logits are not floating-point, or ``axis`` is no integer.
      ValueError: if ``axis`` is out of range, or the shape of ``where`` is another.
    """
    check_floating("logits", logits)
    axis = check_axis(axis, logits.ndim)
    x = logits.astype(wide(logits.dtype))
    classes = (x != -jnp.inf) & counted(where, logits.shape, axis)
    rows = jnp.any(classes, axis=axis, keepdims=True)
    x = jnp.minimum(x, jnp.asarray(jnp.finfo(x.dtype).max, x.dtype))
    largest = jnp.max(x, axis=axis, keepdims=True, where=classes, initial=-jnp.inf)
    # Subtracting it changes no loss, so its gradient would be a sum of zeros.
    largest = lax.stop_gradient(jnp.where(rows, largest, jnp.zeros_like(largest)))
    # Selected before the exponential as well as after it: else 0 * inf reaches the gradient.
    shifted = jnp.where(classes, x - largest, jnp.zeros_like(x))
    exponentials = jnp.where(classes, jnp.exp(shifted), jnp.zeros_like(x))
    total = jnp.sum(exponentials, axis=axis)
    rows, largest = jnp.squeeze(rows, axis), jnp.squeeze(largest, axis)
    log_sum = jnp.log(jnp.where(rows, total, jnp.ones_like(total)))
    return Partition(
        shifted=shifted,
        classes=classes,
        rows=rows,
        log_sum=log_sum,
        log_z=largest + log_sum,
    )


def counted(where: Any | None, shape: tuple[int, ...], axis: int) -> jax.Array:
    """Return which entries count, as bools of the given shape.

    Raises:
      ValueError: if ``where`` has neither that shape nor that without ``axis``.
    """
    if where is None:
        return jnp.ones(shape, jnp.bool_)
    mask = jnp.asarray(where, jnp.bool_)
    rows = shape[:axis] + shape[axis + 1 :]
    if mask.shape not in (shape, rows):
        msg = f"where must have the shape {shape}, or {rows} for whole rows, got {mask.shape}"
        raise ValueError(msg)
    return mask if mask.shape == shape else jnp.broadcast_to(jnp.expand_dims(mask, axis), shape)
