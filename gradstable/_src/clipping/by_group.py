"""AGGC as a transform."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.group_norm import Groups, group_norm


@shown
def clip_by_group_norm(
    *,
    groups: Groups | None = None,
    high: ArrayLike = 0.6,
    low: ArrayLike = 0.95,
    late_high: ArrayLike = 0.7,
    late_low: ArrayLike = 0.98,
    total_steps: int | None = None,
    switch: ArrayLike = 0.4,
    transition: ArrayLike = 0.3,
    decay: ArrayLike = 0.95,
    min_norm: ArrayLike = 0.01,
    raise_small: bool = False,
    min_scale: ArrayLike = 0.9,
    max_scale: ArrayLike = 1.1,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the norm of every group of leaves near the running mean of what it was (AGGC).

    The rule, its formula and its weaknesses are those of ``gs.rules.group_norm``: at the
    defaults no guard against spikes.

    Args:
      groups: a function from the path of a leaf to the name of its group, or a tree of names.
        Default ``None``: the module that owns the leaf.
      high: multiple of the mean above which a norm is scaled down, at first, > 0. Default 0.6.
      low: multiple of the mean below which it is raised, at first, >= 0. Default 0.95.
      late_high: ``high`` in the end, > 0. Default 0.7.
      late_low: ``low`` in the end, >= 0. Default 0.98.
      total_steps: length of the run, >= 1. Default ``None``: both stay at their first values.
      switch: share of the run after which they begin to move, in [0, 1]. Default 0.4.
      transition: share of the run in which they move, in (0, 1]. Default 0.3.
      decay: of the running mean, in [0, 1). Default 0.95.
      min_norm: norm below which a group is raised in any case, >= 0. Default 0.01.
      raise_small: whether small norms are raised at all. Default: no.
      min_scale: least factor, in [0, 1]; 0: no bound. Default 0.9.
      max_scale: largest factor, >= 1; may be infinite. Default 1.1.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      TypeError: if ``groups`` is of a wrong kind, or a name is no string.
      ValueError: if a number is out of its range; in ``init``, if the tree of names is not like
        the parameters.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by_group_norm(), optax.adamw(2e-5))

    Source:
      Li, Wu, Chang, 2026, arXiv:2601.11864.
    """
    rule = group_norm(
        groups=groups,
        high=high,
        low=low,
        late_high=late_high,
        late_low=late_low,
        total_steps=total_steps,
        switch=switch,
        transition=transition,
        decay=decay,
        min_norm=min_norm,
        raise_small=raise_small,
        min_scale=min_scale,
        max_scale=max_scale,
    )
    return clip_by_rule(rule, axis_name=axis_name)
