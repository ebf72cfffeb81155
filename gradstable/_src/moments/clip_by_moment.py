"""SPAM's clip on its own: every entry limited by its own second moment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments
from gradstable._src.moments.spam import limit_by_moment


class ClipByMomentState(NamedTuple):
    """State of ``clip_by_moment``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    nu: Any  # like params, float32 or nu_dtype, average of the squares of clipped gradients


@shown
def clip_by_moment(
    *,
    max_multiple: ArrayLike = 5000.0,
    b2: ArrayLike = 0.999,
    warmup_steps: ArrayLike = 20,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip every entry of a gradient by a moving average of its own squares.

    Use it where single entries spike, as in rows of an embedding, and a norm over many entries does
    not notice them. It costs an array the size of the parameters; a guard costs none.

    .. math::
      g' = sign(g) \min(|g|, \sqrt{\Theta \nu}), \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g'^2

    The average is taken over clipped gradients and is not bias-corrected: the limit is 10 times the
    root mean square at step 20, and 71 times in the long run. An entry with no history (:math:`\nu
    = 0`) passes; SPAM would hold it at zero.

    It cannot lock up: while it clips, the limit grows by a factor of :math:`\sqrt{1 + (1 -
    b_2)(\Theta - 1)}` = 2.45 per step. A lasting rise of the gradient by 1000 times passes in full
    after 4 steps.

    Args:
      max_multiple: :math:`\Theta`, of squares, > 0. Default 5000 (SPAM's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (SPAM's).
      warmup_steps: initial steps that are only watched, not clipped, >= 0. Default 20 (SPAM's).
      nu_dtype: dtype in which ``nu`` is stored. Default float32 (wider for wider parameters).

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ClipByMomentState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, becomes zero.

    Raises:
      ValueError: if a number is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.clip_by_moment(max_multiple=4.0, b2=0.5, warmup_steps=1)
      >>> state = tx.init(jnp.ones(2))
      >>> _, state = tx.update(jnp.ones(2), state)
      >>> [round(x, 3) for x in tx.update(jnp.array([1.0, 1e9]), state)[0].tolist()]
      [1.0, 1.414]

    Source:
      Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
      arXiv:2501.06842; letting an entry without history pass is ours.
    """
    check_number("max_multiple", max_multiple, above=0.0)
    check_decays(b2=b2)
    check_number("warmup_steps", warmup_steps, at_least=0)

    def at(count: jax.Array) -> LeafRule:
        second = Decay.of(b2, count)
        watching = count <= jnp.asarray(warmup_steps, jnp.int32)

        def clip(g: jax.Array, nu: jax.Array) -> jax.Array:
            return jnp.where(watching | (nu == 0), g, limit_by_moment(g, nu, max_multiple))

        def learn(g: jax.Array, nu: jax.Array) -> tuple[jax.Array, ...]:
            c = clip(g, nu)
            return (second.mix(nu, c * c),)

        def direct(g: jax.Array, _: object, old: tuple[jax.Array, ...]) -> jax.Array:
            return clip(g, old[0])

        return LeafRule(learn, direct)

    slots = (Slot("nu", nu_dtype, squared=True),)
    return moments("clip_by_moment", ClipByMomentState, slots, at)
