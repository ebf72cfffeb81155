"""The softmax cross-entropy, for integer labels and for distributions."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._core.checks import check_number
from gradstable._core.numerics import is_zero
from gradstable.losses.log_partition import Partition, partition
from gradstable.losses.logits import square_log_z


def softmax_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    axis: int = -1,
    where: jax.Array | None = None,
    label_smoothing: ArrayLike = 0.0,
    z_weight: ArrayLike = 0.0,
) -> jax.Array:
    r"""Return the cross-entropy of a softmax, in float32, whatever is masked.

    Use it in place of ``optax.softmax_cross_entropy`` and its variant for integer labels,
    which compute in the dtype of the logits and give NaN for a row of ``-inf``, and the former
    for any class of ``-inf``. The gradient of a row by its logits has a norm of at most
    ``sqrt(2)``, but no logit has a bound: they grow as long as certainty pays, and all of
    them together may drift. ``label_smoothing`` stops the first, ``z_weight`` the second.

    .. math:: L = \log Z - \sum_k y_k x_k + c \, (\log Z)^2, \qquad
      \nabla_x = (1 + 2 c \log Z) \, \mathrm{softmax}(x) - y

    Args:
      logits: array ``[..., K, ...]``, floating-point. A class of ``-inf`` has no probability.
      labels: integers in [0, K) of the shape of the logits without ``axis``, or distributions
        over classes of the shape of the logits.
      axis: the axis of classes. Default: the last.
      where: bool of the shape of the logits (classes that there are) or of integer labels
        (rows that count: the others have loss and gradient 0, whatever is in them). Default:
        all.
      label_smoothing: as ``alpha`` of ``gs.losses.smooth_labels``, over the classes that
        there are, in [0, 1). Default 0.
      z_weight: as ``weight`` of ``gs.losses.z_loss``, >= 0. Default 0.

    Returns:
      One loss a row, float32 (wider for wider logits), without the axis of classes; reduce
      with ``gs.losses.masked_mean``. It is 0 where nothing counts, ``inf`` where the label is
      a class that is masked, and NaN where an integer label is out of range.

    Raises:
      TypeError: if logits are not floating-point, or ``axis`` is no integer.
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
      Ours; the masks as in optax.
    """
    check_number("label_smoothing", label_smoothing, at_least=0.0, below=1.0)
    check_number("z_weight", z_weight, at_least=0.0)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    parts = partition(logits, axis, where)
    loss = _of_classes(parts, labels, axis) if _is_classes(labels) else _of(parts, labels, axis)
    if not is_zero(label_smoothing):
        share = jnp.asarray(label_smoothing, loss.dtype)
        count = jnp.maximum(jnp.sum(parts.classes, axis=axis, dtype=jnp.int32), 1)
        uniform = parts.log_sum - jnp.sum(parts.shifted, axis=axis) / count.astype(loss.dtype)
        loss = (1 - share) * loss + share * uniform
    if not is_zero(z_weight):
        loss = loss + square_log_z(parts.log_z, z_weight)
    return jnp.where(parts.rows, loss, jnp.zeros_like(loss))


def _of_classes(parts: Partition, labels: jax.Array, axis: int) -> jax.Array:
    """Return the cross-entropies of integer labels."""
    _check_shape(labels, parts.rows.shape, "integers")
    size = parts.shifted.shape[axis]
    known = (labels >= 0) & (labels < size)
    index = jnp.expand_dims(jnp.where(known, labels, jnp.zeros_like(labels)), axis)

    def pick(values: jax.Array) -> jax.Array:
        return jnp.squeeze(jnp.take_along_axis(values, index, axis=axis), axis)

    loss = parts.log_sum - pick(parts.shifted)
    loss = jnp.where(pick(parts.classes), loss, jnp.full_like(loss, jnp.inf))
    return jnp.where(known, loss, jnp.full_like(loss, jnp.nan))


def _of(parts: Partition, labels: jax.Array, axis: int) -> jax.Array:
    """Return the cross-entropies of distributions."""
    _check_shape(labels, parts.shifted.shape, "distributions")
    y = labels.astype(parts.shifted.dtype)
    surprise = jnp.expand_dims(parts.log_sum, axis) - parts.shifted
    surprise = jnp.where(parts.classes, surprise, jnp.full_like(surprise, jnp.inf))
    # By convention 0 * inf is 0 here; a label that is 0 must be told before the product.
    possible = y != 0
    terms = jnp.where(possible, y, jnp.zeros_like(y)) * jnp.where(possible, surprise, 0.0)
    return jnp.sum(terms, axis=axis)


def _is_classes(labels: jax.Array) -> bool:
    return jnp.issubdtype(labels.dtype, jnp.integer)


def _check_shape(labels: jax.Array, shape: tuple[int, ...], kind: str) -> None:
    if labels.shape != shape:
        msg = (
            f"labels of dtype {labels.dtype} are {kind}, which must have the shape {shape} here, "
            f"got {labels.shape}"
        )
        raise ValueError(msg)
