"""The softmax cross-entropy, for integer labels and for distributions."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_axes, check_number
from gradstable._src.core.numerics import is_zero
from gradstable._src.losses.log_partition import Axis, Partition, broadcasts, partition
from gradstable._src.losses.logits import square_log_z


def softmax_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    axis: Axis = -1,
    where: jax.Array | None = None,
    *,
    label_smoothing: ArrayLike = 0.0,
    z_weight: ArrayLike = 0.0,
) -> jax.Array:
    r"""Return the cross-entropy of a softmax, in float32, whatever is masked.

    Use it in place of ``optax.softmax_cross_entropy`` and its variant for integer labels; it
    takes the same arguments. Those compute in the dtype of the logits and return NaN for a row of
    ``-inf``, and the former for any class of ``-inf``. The gradient of a row with respect to its
    logits has a norm of at most ``sqrt(2)``, but the logits have no bound: they grow as long as
    certainty pays, and all of them can drift together. ``label_smoothing`` stops the first,
    ``z_weight`` the second.

    .. math:: L = \log Z - \sum_k y_k x_k + c \, (\log Z)^2, \qquad
      \nabla_x = (1 + 2 c \log Z) \, \mathrm{softmax}(x) - y, \quad
      \partial L / \partial y_k = \log Z - x_k

    Args:
      logits: array ``[..., K, ...]``, floating-point. A class of ``-inf`` has no probability.
      labels: integers in [0, K) of the shape of the logits without ``axis``, or distributions
        over classes (or one-hot integers or bools) of the shape of the logits. Axes other than
        that of classes can broadcast.
      axis: the axis of classes, a tuple of several, or ``None`` for all. With several, an integer
        label is an index into them, flattened in their order. Default: the last.
      where: bool of the shape of the logits (classes that exist) or of integer labels (rows that
        count: the others have loss and gradient 0, whatever is in them). Probability that a
        distribution gives to an excluded class is dropped. Default: all.
      label_smoothing: as ``alpha`` of ``gs.losses.smooth_labels``, over the classes that exist,
        in [0, 1). Default 0.
      z_weight: as ``weight`` of ``gs.losses.z_loss``, >= 0. Default 0.

    Returns:
      One loss per row, float32 (wider for wider logits), without the axis of classes; reduce
      with ``gs.losses.masked_mean``. It is 0 if nothing counts, ``inf`` if an integer label is a
      masked class or a distribution gives probability to a class of ``-inf``, and NaN if an
      integer label is out of range. The derivative with respect to the label of a masked class is
      taken as 0.

    Raises:
      TypeError: if logits are not floating-point, or ``axis`` is not an integer.
      ValueError: if a number is out of range, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> logits = jnp.array([[2.0, 0.0, -jnp.inf], [0.0, 0.0, 0.0]])
      >>> padding = jnp.array([True, False])
      >>> losses = gs.losses.softmax_cross_entropy(logits, jnp.array([0, -1]), where=padding)
      >>> losses.tolist()
      [0.126928, 0.0]
      >>> gs.losses.masked_mean(losses, where=padding).item()
      0.126928

    Source:
      Our own; the masks as in optax.
    """
    check_number("label_smoothing", label_smoothing, at_least=0.0, below=1.0)
    check_number("z_weight", z_weight, at_least=0.0)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    axes = check_axes(axis, logits.ndim)
    parts = partition(logits, axis, where)
    # Integers with as many dimensions as the logits are one-hot.
    named = _is_integer(labels) and labels.ndim < logits.ndim
    loss = _of_classes(parts, labels, axes) if named else _of(parts, labels, axes)
    if not is_zero(label_smoothing):
        share = jnp.asarray(label_smoothing, loss.dtype)
        count = jnp.sum(parts.classes, axis=axes, keepdims=True, dtype=jnp.int32)
        count = jnp.maximum(count, 1).astype(loss.dtype)
        # Divided before the sum, which may exceed float32 when the mean does not.
        uniform = parts.log_sum - jnp.sum(parts.shifted / count, axis=axes)
        loss = (1 - share) * loss + share * uniform
    if not is_zero(z_weight):
        loss = loss + square_log_z(parts.log_z, z_weight)
    return jnp.where(parts.rows, loss, jnp.zeros_like(loss))


def _of_classes(parts: Partition, labels: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return the cross-entropies of integer labels."""
    rows = parts.rows.shape
    if labels.ndim != len(rows) or not broadcasts(labels.shape, rows):
        raise _misfit(labels, parts)
    labels = jnp.broadcast_to(labels, rows)
    size = math.prod(parts.shifted.shape[at] for at in axes)
    known = (labels >= 0) & (labels < size)
    index = jnp.expand_dims(jnp.where(known, labels, jnp.zeros_like(labels)), -1)
    last = tuple(range(-len(axes), 0))

    def pick(values: jax.Array) -> jax.Array:
        flat = jnp.moveaxis(values, axes, last).reshape(*rows, size)
        return jnp.squeeze(jnp.take_along_axis(flat, index, axis=-1), -1)

    loss = parts.log_sum - pick(parts.shifted)
    loss = loss + _infinite(~pick(parts.classes), loss)
    return jnp.where(known, loss, jnp.full_like(loss, jnp.nan))


def _of(parts: Partition, labels: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return the cross-entropies of distributions."""
    shape = parts.shifted.shape
    # Not along the classes: one number for all of them is not a distribution.
    whole = labels.ndim == 0 or all(
        labels.shape[at - len(shape)] == shape[at] for at in axes if at - len(shape) >= -labels.ndim
    )
    if not broadcasts(labels.shape, shape) or not whole:
        raise _misfit(labels, parts)
    y = jnp.broadcast_to(labels.astype(parts.shifted.dtype), shape)
    # A class is identified by its logit, never by its label: a label of 0 has a derivative too.
    known = jnp.where(parts.classes, y, jnp.zeros_like(y))
    surprise = jnp.expand_dims(parts.log_sum, axes) - parts.shifted
    loss = jnp.sum(known * surprise, axis=axes)
    impossible = jnp.any((y != 0) & parts.named & ~parts.classes, axis=axes)
    return loss + _infinite(impossible, loss)


@jax.jit
def _infinite(where: jax.Array, like: jax.Array) -> jax.Array:
    """Return a term that makes a loss infinite in places; adding it leaves derivatives intact.

    Compiled, so that ``jax_debug_infs`` does not see an infinity that is not selected.
    """
    return jnp.where(where, jnp.full_like(like, jnp.inf), jnp.zeros_like(like))


def _is_integer(labels: jax.Array) -> bool:
    return jnp.issubdtype(labels.dtype, jnp.integer)


def _misfit(labels: jax.Array, parts: Partition) -> ValueError:
    kind, shape = "distributions", parts.shifted.shape
    if _is_integer(labels):
        kind, shape = f"integers (or one-hot, of the shape {shape})", parts.rows.shape
    return ValueError(
        f"labels of dtype {labels.dtype} are {kind}, which must have the shape {shape} here, "
        f"got {labels.shape}"
    )
