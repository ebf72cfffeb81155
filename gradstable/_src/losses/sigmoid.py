"""The cross-entropy of independent yes-or-no decisions."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating
from gradstable._src.losses.masks import beside, discard


def sigmoid_binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Return the cross-entropy of a sigmoid, without NaN even for an infinite logit.

    Use it in place of ``optax.sigmoid_binary_cross_entropy``, which returns NaN for an infinite
    logit that is right and computes in the dtype of the logits. A wrong label pulls with a
    force of 1, however far off its logit is, so outliers are never ignored.

    .. math:: L = y \log(1 + e^{-x}) + (1 - y) \log(1 + e^x), \qquad
      \partial_x L = \sigma(x) - y, \quad \partial_y L = -x

    Args:
      logits: array of any shape, floating-point.
      labels: probabilities in [0, 1], or bools or integers, of the same shape or one that
        broadcasts to it; logits do not broadcast to labels, since that is usually a mistake.
      where: bool of the same shape, which entries count; the others have loss and gradient 0,
        even where they are NaN. Default: all.

    Returns:
      The loss of each entry, float32 (wider for wider logits).

    Raises:
      TypeError: if logits are not floating-point.
      ValueError: if shapes differ.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> x, y = jnp.array([0.0, jnp.inf, 3e38]), jnp.array([1, 1, 0])
      >>> gs.losses.sigmoid_binary_cross_entropy(x, y).tolist()[:2]
      [0.693147, 0.0]
      >>> jax.grad(lambda x: gs.losses.sigmoid_binary_cross_entropy(x, y).sum())(x).tolist()
      [-0.5, 0.0, 1.0]

    Source:
      Our own; the formula as in Goodfellow, Bengio, Courville, "Deep Learning", 2016, 6.2.2.2.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_floating("logits", logits)
    labels = beside("labels", labels, "logits", logits)
    x = discard(logits.astype(wide(logits.dtype)), where)
    y = discard(labels.astype(x.dtype), where)
    return discard(_cross_entropy(x, y), where)


@jax.custom_jvp
def _cross_entropy(x: jax.Array, y: jax.Array) -> jax.Array:
    return _part(y, _softplus(-x)) + _part(1 - y, _softplus(x))


def _cross_entropy_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array]:
    (x, y), (dx, dy) = primals, tangents
    moved = jnp.zeros_like(x)
    if not isinstance(dx, SymbolicZero):
        # Not sigmoid(x) - y, which is 0 for a label of 1 from x = 17 on.
        moved = ((1 - y) * jax.nn.sigmoid(x) - y * jax.nn.sigmoid(-x)) * dx
    if not isinstance(dy, SymbolicZero):
        # An infinite logit is treated as the largest finite one, to avoid 0 * inf later.
        limit = jnp.asarray(jnp.finfo(x.dtype).max, x.dtype)
        moved = moved - jnp.clip(x, -limit, limit) * dy
    return _cross_entropy(x, y), moved


# Labels usually have no tangent, and x may be infinite: 0 * inf must not be computed.
_cross_entropy.defjvp(_cross_entropy_jvp, symbolic_zeros=True)


def _softplus(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _part(share: jax.Array, loss: jax.Array) -> jax.Array:
    return jnp.where(share == 0, jnp.zeros_like(loss), share * loss)
