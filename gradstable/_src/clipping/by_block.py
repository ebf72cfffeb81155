"""Limits for every leaf, or every unit, by itself."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.units import Units
from gradstable._src.rules.block_norm import block_norm
from gradstable._src.rules.block_rms import block_rms


@shown
def clip_by_block_norm(
    max_norm: ArrayLike, *, units: Units | None = None, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Clip every leaf to a fixed norm of its own.

    The rule is ``gs.rules.block_norm``. A gradient with a NaN or infinite entry anywhere gives
    zeros.

    .. math:: g_i' = g_i \cdot \min(1, c / \|g_i\|)

    Args:
      max_norm: the limit ``c`` for one leaf or unit, in units of the gradient, > 0.
      units: the parts of a leaf that are limited alone, as for ``gs.guard``: ``"layer"`` where
        layers are stacked in one leaf. Default ``None``: whole leaves.
      axis_name: as for ``gs.guard``; not with ``units``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      TypeError: if units are of a wrong kind.
      ValueError: if ``max_norm`` is not a positive number or a kind of units is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.clip_by_block_norm(5.0)
      >>> g = {"broken": jnp.array([3e6, 4e6]), "calm": jnp.array([1.0, 2.0])}
      >>> {name: leaf.tolist() for name, leaf in tx.update(g, tx.init(g))[0].items()}
      {'broken': [3.0, 4.0], 'calm': [1.0, 2.0]}

    Source:
      Common practice, see ``gs.rules.block_norm``.
    """
    return clip_by_rule(block_norm(max_norm, units=units), axis_name=axis_name)


@shown
def clip_by_block_rms(
    threshold: ArrayLike, *, units: Units | None = None, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Clip every leaf to a fixed root mean square: in place of ``optax.clip_by_block_rms``.

    The rule is ``gs.rules.block_rms``. Unlike optax's, it clips a float32 update of 1e20 or a
    float16 one of 300 instead of silently zeroing it, gives zeros where an entry is NaN, and
    knows layers that are stacked in one leaf.

    .. math:: u_i' = u_i / \max(1, \mathrm{RMS}(u_i) / d)

    Args:
      threshold: the limit ``d``, in units of the update, > 0. 1.0 in Adafactor, behind the
        division by the root of the second moment.
      units: the parts of a leaf that are limited alone, as for ``gs.guard``: ``"layer"`` where
        layers are stacked in one leaf. Default ``None``: whole leaves.
      axis_name: as for ``gs.guard``; not with ``units``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      TypeError: if units are of a wrong kind.
      ValueError: if ``threshold`` is not a positive number or a kind of units is unknown.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(
      ...     gs.moments.scale_by_adam(), gs.clipping.clip_by_block_rms(1.0), optax.scale(-1e-3)
      ... )

    Source:
      Shazeer and Stern, 2018, arXiv:1804.04235, section 6.
    """
    return clip_by_rule(block_rms(threshold, units=units), axis_name=axis_name)
