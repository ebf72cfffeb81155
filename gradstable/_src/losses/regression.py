"""Regression losses whose gradient is bounded, whatever the error."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating
from gradstable._src.losses.masks import beside, discard


def huber(
    predictions: jax.Array,
    targets: jax.Array | None = None,
    *,
    delta: ArrayLike = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Return the Huber loss: squared for small errors, linear for large ones.

    Use it in place of a squared error if a few targets are wild: no sample pulls harder than
    ``delta``. Unlike that of ``optax.huber_loss``, its gradient keeps the digits of small
    errors: with ``delta=1e6`` optax's is 0 for all errors below 0.03. Outliers still pull with
    the full ``delta``: if one target in ten is absurd, the fitted mean of normal data moves by
    0.16 standard deviations (with a squared error, without bound).

    .. math:: L(e) = \begin{cases} e^2 / 2 & |e| \le \delta \\
      \delta (|e| - \delta / 2) & \text{else} \end{cases}, \qquad |L'(e)| \le \delta

    Args:
      predictions: array of any shape, floating-point.
      targets: an array of the same shape, or one that broadcasts to it; predictions do not
        broadcast to targets, since that is usually a mistake. Default: 0.
      delta: the bound of the gradient, and the error at which it is reached, > 0. Default 1,
        for errors in units of their usual size.
      where: bool of the same shape, which entries count; the others have loss and gradient 0,
        even where they are NaN. Default: all.

    Returns:
      The loss of each entry, float32 (wider for wider predictions). Infinite errors have an
      infinite loss and a gradient of ``delta``; two equal infinities have no error.

    Raises:
      TypeError: if ``predictions`` are not floating-point.
      ValueError: if ``delta`` is not a positive number or shapes differ.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> error = jnp.array([0.5, 3.0, 3e38])
      >>> gs.losses.huber(error, delta=1.0).tolist()[:2]
      [0.125, 2.5]
      >>> jax.grad(lambda e: gs.losses.huber(e, delta=1.0).sum())(error).tolist()
      [0.5, 1.0, 1.0]

    Source:
      Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    check_number("delta", delta, above=0.0)
    error = _error(predictions, targets, where)
    size, limit = jnp.abs(error), jnp.asarray(delta, error.dtype)
    inside = size <= limit
    # Selected before the square as well, whose slope at an infinite error is infinite.
    small = jnp.where(inside, error, jnp.zeros_like(error))
    loss = jnp.where(inside, 0.5 * small * small, limit * (size - 0.5 * limit))
    return discard(loss, where)


def log_cosh(
    predictions: jax.Array,
    targets: jax.Array | None = None,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Return the logarithm of the hyperbolic cosine of the error.

    Use it like ``huber`` with ``delta=1`` if the loss must be smooth, as for second-order
    methods. Unlike ``optax.log_cosh`` it keeps its digits for small errors (optax returns 0
    for an error of 1e-4). Outliers pull as in ``huber``, with a force of 1.

    .. math:: L(e) = \log \cosh e, \qquad L'(e) = \tanh e, \quad |L'(e)| \le 1

    Args:
      predictions: array of any shape, floating-point.
      targets: as for ``huber``. Default: 0.
      where: bool of the same shape, which entries count, as for ``huber``. Default: all.

    Returns:
      The loss of each entry, float32 (wider for wider predictions).

    Raises:
      TypeError: if ``predictions`` are not floating-point.
      ValueError: if shapes differ.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.log_cosh(jnp.array([1e-4, 1.0])).tolist()
      [5e-09, 0.43378]
      >>> jax.grad(lambda e: gs.losses.log_cosh(e))(jnp.inf).item()
      1.0

    Source:
      Chen et al., "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder", 2019.
    """
    return discard(_log_cosh(_error(predictions, targets, where)), where)


def _error(predictions: jax.Array, targets: jax.Array | None, where: jax.Array | None) -> jax.Array:
    """Return prediction minus target in float32, and 0 where it does not count."""
    predictions = jnp.asarray(predictions)
    check_floating("predictions", predictions)
    dtype = wide(predictions.dtype)
    error = predictions.astype(dtype)
    if targets is not None:
        target = beside("targets", jnp.asarray(targets), "predictions", predictions).astype(dtype)
        settled = (error == target) & jnp.isinf(error)
        error = jnp.where(settled, jnp.zeros_like(error), error - target)
    # Before the loss as well as after it: its slope at a NaN is NaN, and 0 * NaN is NaN.
    return discard(error, where)


@jax.custom_jvp
def _log_cosh(e: jax.Array) -> jax.Array:
    size = jnp.abs(e)
    # Both are exact; near 0 the second would subtract log 2 from log 2 and lose all digits.
    small = jnp.log1p(2 * jnp.sinh(jnp.minimum(size, 1) / 2) ** 2)
    large = size + (jnp.log1p(jnp.exp(-2 * size)) - math.log(2))
    return jnp.where(size < 1, small, large)


@_log_cosh.defjvp
def _log_cosh_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return _log_cosh(*primals), jnp.tanh(primals[0]) * tangents[0]
