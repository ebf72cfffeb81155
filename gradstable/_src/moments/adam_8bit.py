"""Adam's moments in two bytes, rounded up or down in turn so that neither stalls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.chance import spread_bits
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import WHOLE, Split
from gradstable._src.core.numerics import float32
from gradstable._src.core.shown import shown
from gradstable._src.moments import codes
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


class ScaleByAdam8BitState(NamedTuple):
    """State of ``scale_by_adam_8bit``."""

    count: jax.Array  # steps, int32
    moment_codes: Any  # a tree like the parameters, uint16: both moments of each entry


@shown
def scale_by_adam_8bit(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adam's rule, with both moments in two bytes.

    Use it where the optimizer state does not fit, or where the step is a noticeable part of the
    time on a GPU: it takes 2 bytes per parameter where Adam takes 8, and moves 4 words per
    parameter where Adam moves 7. ``gs.adamw_8bit`` is the optimizer. Any other optimizer fits into
    ``gs.precision.compress_moments``, which is slower.

    .. math::
      \mu &\leftarrow b_1 r w + (1 - b_1) g, \qquad
      w \leftarrow \operatorname{r}\left(\sqrt{b_2 w^2 + (1 - b_2) g^2}\right), \qquad
      r \leftarrow \operatorname{r}(\mu / w) \\
      u &= \frac{r w / (1 - b_1^t)}{w / \sqrt{1 - b_2^t} + \epsilon}

    What is kept is the root :math:`w` of the second moment, as a float with 7 bits of exponent and
    3 of mantissa, and the first moment relative to it, :math:`r`, as a sign and 31 sizes up to
    8.27: together 16 bits. :math:`\operatorname{r}` rounds up or down in turn, so often that the
    average is right: rounding to nearest would stall, since a root changes by less than a
    thousandth per step. What decides is a sequence that fills its range more evenly than random
    numbers do (Weyl's), and depends only on the step and the place of an entry.

    Relative to its root, a first moment needs no scale, so there are no blocks: an entry is read
    and written alone, whatever its neighbors, and on a mesh no device needs to hear from another.
    A root is never zero, so nothing is divided by zero.

    Whatever the gradients, :math:`|r| \le 8.27`, so that :math:`|u| \le 8.27 \sqrt{1 - b_2^t} /
    (1 - b_1^t)`; Adam's bound is 7.27 in the limit. With ``b2=0.95`` it is 1.64 in the limit,
    Adam's 1.17 and the roundings.

    Known weakness: rounding adds noise to every update, of about a fifth of its size. On average
    over entries and steps it cancels.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's). With values above
        0.9995 a spike after calm is cut off at 8.27 roots.
      eps: added to the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      axis_name: as for ``gs.guard``. With ``PartitionSpec``, a part of a leaf is rounded as in the
        whole; otherwise by places in the part, which is as good but not the same.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByAdam8BitState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above ``2**62``,
      leaves its moments as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adam_8bit()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> [round(u) for u in updates.tolist()], state.moment_codes.dtype.name
      ([1, -1, 0], 'uint16')

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980. Dettmers,
      Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2021,
      arXiv:2110.02861, for the idea; the format is ours.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)
        of_ratio, of_root = 1.0 / first.corrects, lax.rsqrt(second.corrects)

        def learn(g: jax.Array, old: jax.Array, split: Split = WHOLE) -> tuple[jax.Array]:
            ratio, root = codes.decode(old)
            mu = first.mix(ratio * root, g)
            root = jnp.sqrt(second.mix(root * root, g * g))
            return (codes.encode(mu, root, spread_bits(count, g, split)),)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            ratio, root = codes.decode(new[0])
            return ratio * root * of_ratio / (root * of_root + float32(eps))

        return LeafRule(learn, direct)

    slots = (Slot("moment_codes", codes.DTYPE, coded=True),)
    return moments("scale_by_adam_8bit", ScaleByAdam8BitState, slots, at, axis_name=axis_name)
