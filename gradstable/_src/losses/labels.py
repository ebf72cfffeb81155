"""Label smoothing."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_axes, check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating
from gradstable._src.losses.log_partition import Axis, counted


def smooth_labels(
    labels: jax.Array,
    alpha: ArrayLike = 0.1,
    *,
    axis: Axis = -1,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Mix labels with the uniform distribution over the classes.

    Use it if a classifier becomes more and more certain: with a smoothed label the loss is minimal
    at a finite gap between logits, ``log(1 + K (1 - alpha) / alpha)``, which is 4.51 for ten
    classes and 0.1. The price is a loss that cannot fall below the entropy of the label, here
    0.50, and probabilities that are too low by design.

    Unlike ``optax.smooth_labels`` it gives no probability to a class that ``where`` excludes.

    .. math:: y' = (1 - \alpha) \, y + \alpha / K

    Args:
      labels: distributions ``[..., K, ...]`` over classes, as from ``jax.nn.one_hot``.
      alpha: the share of the uniform distribution, in [0, 1). Default 0.1 (the paper's).
      axis: the axis of classes, a tuple of several, or ``None`` for all. Default: the last.
      where: bool of the shape of the labels (classes that exist) or without the axis of
        classes (rows that count). Default: all.

    Returns:
      Distributions of the same shape and dtype; 0 where nothing counts.

    Raises:
      TypeError: if labels are not floating-point, or ``axis`` is not an integer.
      ValueError: if ``alpha`` or ``axis`` is out of range, or ``where`` has a different shape.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.smooth_labels(jnp.array([0.0, 1.0, 0.0, 0.0]), alpha=0.2).tolist()
      [0.05, 0.85, 0.05, 0.05]

    Source:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015,
      arXiv:1512.00567, section 7.
    """
    check_number("alpha", alpha, at_least=0.0, below=1.0)
    labels = jnp.asarray(labels)
    check_floating("labels", labels)
    axes = check_axes(axis, labels.ndim)
    y = labels.astype(wide(labels.dtype))
    classes = counted(where, labels.shape, axes)
    count = jnp.sum(classes, axis=axes, keepdims=True, dtype=jnp.int32)
    share = jnp.asarray(alpha, y.dtype)
    uniform = share / jnp.maximum(count, 1).astype(y.dtype)
    smooth = (1 - share) * y + jnp.broadcast_to(uniform, y.shape)
    return jnp.where(classes, smooth, jnp.zeros_like(y)).astype(labels.dtype)
