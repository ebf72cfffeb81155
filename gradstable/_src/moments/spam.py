"""SPAM: Adam that clips by its own second moment and resets from time to time."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import root
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments

# Where the warm-up after a reset begins: at 1 - 0.99 of the full step (the authors' code).
_HELD_BACK = 0.99


@shown
def scale_by_spam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    max_multiple: ArrayLike = 5000.0,
    reset_every: ArrayLike = 500,
    reset_warmup_steps: ArrayLike = 150,
    warmup_steps: ArrayLike = 20,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by SPAM's rule: spike-aware Adam with resets of its moments.

    Use it to reproduce SPAM; ``gs.moments.scale_by_stable_spam`` is its authors' successor, and a
    guard rejects a spike before any moment sees it.

    .. math::
      g &\leftarrow sign(g) \sqrt{\Theta \nu} \quad \text{where } g^2 > \Theta \nu \\
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= w_t \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \frac{\mu}{\sqrt{\nu} + \epsilon}, \qquad
      w_t = 1 - 0.99 \, \tfrac12 (1 + \cos \frac{\pi k}{N + 1})

    as in the authors' code: at every step that is a multiple of ``reset_every``, both moments are
    set to zero before they learn, and :math:`w` climbs from 0.01 over the next :math:`N` =
    ``reset_warmup_steps`` steps (:math:`k` counts from 0; :math:`w = 1` before the first reset). It
    clips from step ``warmup_steps`` on, except in the first ``warmup_steps`` steps from a reset on,
    by the uncorrected :math:`\nu` of the previous step. The bias correction keeps counting through
    a reset. (The authors' sparse variant, ``density``, is not implemented.)

    Whatever the gradients, :math:`|u| \le 7.27` with the defaults, as in Adam.

    The rule as published has three weaknesses. Since the correction does not restart, steady
    gradients make steps of up to 2.7 instead of 1 at the end of a warm-up, falling to 1.6 before
    the next reset (1.9 and 1.3 after the first one). A weight with no gradient in the
    ``warmup_steps`` steps from a reset on, such as a row of an embedding, has :math:`\nu = 0`: it
    is clipped to zero and stays where it is until the next reset, for 480 steps. In these 20 steps
    no spike is clipped. ``gs.moments.clip_by_moment`` has none of the three.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the authors').
      b2: decay of the second moment, in [0, 1). Default 0.999 (the authors').
      eps: added to the uncorrected root, in units of the gradient, >= 0. Default 1e-6 (the
        authors').
      max_multiple: :math:`\Theta`, of squares, > 0. Default 5000 (the authors'): 71 times the root.
      reset_every: steps from reset to reset, >= 1. Default 500 (the authors').
      reset_warmup_steps: :math:`N`, steps of warm-up after a reset, >= 0. Default 150 (the
        authors').
      warmup_steps: steps after a reset before it clips again, >= 0. Default 20 (the authors').
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``. An entry that is not
      finite, or above ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_spam()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [1.0, -1.0, 0.0]

    Source:
      Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
      arXiv:2501.06842, and the authors' code.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("max_multiple", max_multiple, above=0.0)
    check_number("reset_every", reset_every, at_least=1)
    check_number("reset_warmup_steps", reset_warmup_steps, at_least=0)
    check_number("warmup_steps", warmup_steps, at_least=0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)
        period, wait = jnp.asarray(reset_every, jnp.int32), jnp.asarray(warmup_steps, jnp.int32)
        phase = count % period
        clips = (count >= wait) & (phase >= wait)
        full = jnp.asarray(reset_warmup_steps, jnp.int32)
        step = jnp.sqrt(second.corrects) / first.corrects
        step = step * _warm_up(jnp.where(count < period, full, phase), full)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            mu, nu = (jnp.where(phase == 0, jnp.zeros_like(old), old) for old in (mu, nu))
            limited = limit_by_moment(g, nu, max_multiple)
            c = jnp.where(clips, limited, g)
            return first.mix(mu, c), second.mix(nu, c * c)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, nu = new
            return step.astype(mu.dtype) * divide(mu, root(nu), eps)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_spam", optax.ScaleByAdamState, slots, at)


def limit_by_moment(g: jax.Array, nu: jax.Array, max_multiple: ArrayLike) -> jax.Array:
    """Return ``g``, limited to the root of ``max_multiple * nu``; squares would overflow."""
    limit = jnp.sqrt(jnp.asarray(max_multiple, nu.dtype)) * root(nu)
    return jnp.clip(g, -limit, limit)


def _warm_up(k: jax.Array, steps: jax.Array) -> jax.Array:
    """Return the fraction of a full step to take ``k`` steps after a reset."""
    angle = math.pi * k.astype(jnp.float32) / (steps + 1).astype(jnp.float32)
    return jnp.where(k < steps, 1.0 - _HELD_BACK * 0.5 * (1.0 + jnp.cos(angle)), 1.0)
