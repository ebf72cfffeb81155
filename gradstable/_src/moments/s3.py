"""S3: a momentum divided by the p-norm of the gradients it is made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


class ScaleByS3State(NamedTuple):
    """State of ``scale_by_s3``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, average of gradients
    size: Any  # like params, float32 or size_dtype, p-th root of the average of |g|**p


@shown
def scale_by_s3(
    *,
    b1: ArrayLike = 0.95,
    p: ArrayLike = 3.0,
    mu_dtype: DTypeLike | None = None,
    size_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by the rule of S3 (SoftSignSGD), whose step is at most 1.

    Use it for a bound that holds by construction: numerator and denominator forget at the same
    rate, so a quiet period never makes the next step large. With ``p=2`` it is Adam with equal
    decay rates, Nesterov's lookahead and no bias correction; with large ``p`` it approaches a sign.

    .. math::
      \mu &\leftarrow \beta \mu + (1 - \beta) g, \qquad
      s \leftarrow \beta s + (1 - \beta) |g|^p \\
      u &= \frac{\beta \mu + (1 - \beta) g}{(\beta s + (1 - \beta) |g|^p)^{1/p}}

    Whatever the gradients, :math:`|u| \le 1` (Hölder). There is no bias correction: under steady
    gradients and with the defaults, the first step is 0.21 of the eventual one, and the 20th 0.76.

    After a spike of 1000 times the usual size, steps stay below a tenth of their usual length for
    201 steps: ``p=3`` weights it more heavily than a square would.

    The state stores the root :math:`s^{1/p}`, not :math:`s`: the cube of a float32 overflows above
    7e12 and vanishes below 1e-13.

    Args:
      b1: :math:`\beta`, decay of both averages, in [0, 1). Default 0.95 (ours: a memory of
        twenty steps).
      p: order of the norm, >= 1. Default 3 (the paper's).
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      size_dtype: the same for ``size``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByS3State``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_s3()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [0.212, -0.212, 0.0]

    Source:
      Peng et al., "SoftSignSGD(S3): An Enhanced Optimizer for Practical DNN Training and Loss
      Spikes Minimization Beyond Adam", 2025, arXiv:2507.06464.
    """
    check_decays(b1=b1)
    check_number("p", p, at_least=1.0)

    def at(count: jax.Array) -> LeafRule:
        decay = Decay.of(b1, count)

        def learn(g: jax.Array, mu: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array]:
            return decay.mix(mu, g), _mix_sizes(decay, size, jnp.abs(g), p)

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            momentum = decay.mix(new[0], g)
            size = _mix_sizes(decay, new[1], jnp.abs(g), p)
            return jnp.where(size > 0, momentum / size, jnp.zeros_like(size))

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("size", size_dtype, squared=True))
    return moments("scale_by_s3", ScaleByS3State, slots, at)


def _mix_sizes(decay: Decay, old: jax.Array, new: jax.Array, p: ArrayLike) -> jax.Array:
    """Return ``(b * old**p + (1 - b) * new**p) ** (1 / p)``, which neither over- nor underflows."""
    largest, least = jnp.maximum(old, new), jnp.minimum(old, new)
    keep, take = decay.keep.astype(old.dtype), decay.take.astype(old.dtype)
    of_largest, of_least = jnp.where(old >= new, keep, take), jnp.where(old >= new, take, keep)
    power = jnp.asarray(p, old.dtype)
    ratio = least / jnp.where(largest > 0, largest, 1.0)
    return largest * (of_largest + of_least * ratio**power) ** (1.0 / power)
