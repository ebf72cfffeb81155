"""Stable-SPAM: gradients normalized entry by entry and leaf by leaf, then Adam with resets."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import WHOLE, Split
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments

# A smaller number has no inverse in float32, or almost none.
_LEAST = 2.0**-100


class ScaleByStableSpamState(NamedTuple):
    """State of ``scale_by_stable_spam``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, average of normalized gradients
    nu: Any  # like params, float32 or nu_dtype, average of their squares
    largest: Any  # a float32 scalar a leaf, average of its largest entries
    norm: Any  # a float32 scalar a leaf, average of its norms
    norm_rms: Any  # a float32 scalar a leaf, root of the average of their squares


@shown
def scale_by_stable_spam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    gamma1: ArrayLike = 0.7,
    gamma2: ArrayLike = 0.9,
    theta: ArrayLike = 0.999,
    reset_every: ArrayLike = 1000,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Stable-SPAM's rule: two adaptive normalizations, then Adam.

    Use it for training in 4 bits, and where gradient norms jump by orders of magnitude. It reads
    the gradients three times.

    .. math::
      M &\leftarrow \theta M + (1 - \theta) \max|g|, \quad
      g \leftarrow \frac{g}{\max|g|} \hat M \ \text{ where } |g| > \hat M \\
      n &\leftarrow \gamma_1 n + (1 - \gamma_1) \|g\|, \quad
      v \leftarrow \gamma_2 v + (1 - \gamma_2) \|g\|^2, \quad
      g \leftarrow \frac{g}{\|g\|} \frac{\hat n}{\sqrt{\hat v} + \epsilon}

    for each leaf, then Adam's rule on the result. Adam's moments and their bias correction restart
    at every multiple of ``reset_every``.

    The authors' code resets the counter of *all* corrections, so it divides :math:`M`, which is not
    reset, by :math:`1 - \theta^k`: after a reset the first clip limit is 316 times too high, and
    for 488 of the 1000 steps more than twice too high. That is not copied: here the three numbers
    of a leaf are corrected by the total number of steps. Nor is its option to lower
    :math:`\gamma_1` and ``b1`` along a cosine over a whole run (off by default).

    Whatever the gradients, :math:`|u| \le 7.27` with the defaults, as in Adam; what enters Adam
    has a norm of at most 1.41 in each leaf.

    A spike of a million times the usual size moves no weight more than usual, since the second
    normalization gives it the usual norm. But after it, the first clip limit is 1000 times as high,
    and stays above 10 times for 4600 steps. The average norms also forget it at different rates, so
    steps fall to a fortieth of their usual length, and stay below half of it for 94 steps.

    Args:
      b1: decay of Adam's first moment, in [0, 1). Default 0.9 (the authors').
      b2: decay of Adam's second moment, in [0, 1). Default 0.999 (the authors').
      eps: added outside both roots, >= 0. Default 1e-8 (the authors').
      gamma1: :math:`\gamma_1`, decay of the average norm, in [0, 1). Default 0.7 (the authors').
      gamma2: :math:`\gamma_2`, decay of its average square, in [0, 1). Default 0.9 (the authors').
      theta: :math:`\theta`, decay of the largest entry, in [0, 1). Default 0.999 (the authors').
      reset_every: steps from reset to reset, >= 1. Default 1000 (the authors').
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.
      axis_name: mesh axes over which the leaves are sharded inside ``jax.shard_map``. Default
        ``None``, which is right under ``jit``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByStableSpamState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, counts as zero, and leaves its moments and the numbers of its leaf as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_stable_spam()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [1.0, -1.0, 0.0]

    Source:
      Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam", 2025,
      arXiv:2502.17055, and the authors' code.
    """
    check_decays(b1=b1, b2=b2, gamma1=gamma1, gamma2=gamma2, theta=theta)
    check_number("eps", eps, at_least=0.0)
    check_number("reset_every", reset_every, at_least=1)

    def at(count: jax.Array) -> LeafRule:
        phase = count % jnp.asarray(reset_every, jnp.int32)
        since = jnp.where(phase == count, count, phase + 1)
        first, second = Decay.of(b1, since), Decay.of(b2, since)
        top, mean, square = (Decay.of(rate, count) for rate in (theta, gamma1, gamma2))

        def learn(
            g: jax.Array,
            mu: jax.Array,
            nu: jax.Array,
            *of_leaf: jax.Array,
            split: Split = WHOLE,
        ) -> tuple[jax.Array, ...]:
            largest, norm, norm_rms = of_leaf
            peak = _over_shards(lax.pmax, jnp.max(jnp.abs(g), initial=0.0), split)
            largest = top.mix(largest, peak)
            limit = top.correct(largest)
            direction, size = _unit(_clip(g, peak, limit), jnp.minimum(peak, limit), split)
            norm, norm_rms = mean.mix(norm, size), _mix_roots(square, norm_rms, size)
            root = norm_rms / jnp.sqrt(square.corrects).astype(g.dtype)
            g = direction * divide(mean.correct(norm), root, eps)
            mu, nu = (jnp.where(phase == 0, jnp.zeros_like(old), old) for old in (mu, nu))
            return first.mix(mu, g), second.mix(nu, g * g), largest, norm, norm_rms

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            return divide(first.correct(new[0]), jnp.sqrt(second.correct(new[1])), eps)

        return LeafRule(learn, direct)

    slots = (
        Slot("mu", mu_dtype),
        Slot("nu", nu_dtype, squared=True),
        *(Slot(name, per_leaf=True) for name in ("largest", "norm", "norm_rms")),
    )
    return moments("scale_by_stable_spam", ScaleByStableSpamState, slots, at, axis_name=axis_name)


def _clip(g: jax.Array, peak: jax.Array, limit: jax.Array) -> jax.Array:
    """Scale all entries above the limit together, so that the largest one equals the limit."""
    scaled = g / jnp.where(peak > _LEAST, peak, 1.0) * limit
    return jnp.where(jnp.abs(g) > limit, scaled, g)


def _unit(g: jax.Array, peak: jax.Array, split: Split) -> tuple[jax.Array, jax.Array]:
    """Return a leaf of norm 1 and the norm it had; ``peak`` is its largest entry.

    It first scales the largest entry to 1, since a sum of squares of numbers up to 2**62 would
    overflow. A leaf below 1e-30 counts as zeros: float32 cannot hold its inverse.
    """
    alive = peak > _LEAST
    scaled = jnp.where(alive, g / jnp.where(alive, peak, 1.0), jnp.zeros_like(g))
    norm = jnp.sqrt(_over_shards(lax.psum, jnp.sum(scaled * scaled), split))
    # The norm is at least 1, the largest entry, unless the leaf is all zeros.
    return scaled / jnp.maximum(norm, 0.5), jnp.where(alive, peak * norm, jnp.zeros_like(peak))


def _mix_roots(decay: Decay, old: jax.Array, new: jax.Array) -> jax.Array:
    """Return the root of the average of two squares, without squaring large numbers."""
    keep, take = jnp.sqrt(decay.keep).astype(old.dtype), jnp.sqrt(decay.take).astype(old.dtype)
    # Not jnp.hypot, which uses an infinity internally, and so would trip jax_debug_infs.
    small, large = jnp.minimum(keep * old, take * new), jnp.maximum(keep * old, take * new)
    ratio = small / jnp.where(large > 0.0, large, jnp.ones_like(large))
    return large * jnp.sqrt(1.0 + ratio * ratio)


def _over_shards(reduce: Any, value: jax.Array, split: Split) -> jax.Array:
    return reduce(value, split.names) if split.names else value
