"""The rules that judge by the history of the norm or the loss, as transforms."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.ema_multiple import ema_multiple
from gradstable._src.rules.loss_spike import loss_spike
from gradstable._src.rules.percentile import percentile as percentile_rule
from gradstable._src.rules.window_clip import window_clip
from gradstable._src.rules.window_sigma import window_sigma
from gradstable._src.rules.zscore import Mode, zscore


@shown
def clip_by_percentile(
    percentile: ArrayLike = 10.0, *, window: int = 1000, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    """Clip to a percentile of the norms of the last steps: AutoClip.

    The rule, its formula and its weakness are those of ``gs.rules.percentile``.

    Args:
      percentile: in percent of the history, in [0, 100]. Default 10, which clips 90 % of all
        steps; 90 makes a clip of it.
      window: how many norms are remembered, >= 1.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by_percentile(90.0), optax.sgd(0.1))

    Source:
      Seetharaman, Wichern, Pardo, Le Roux, 2020, arXiv:2007.14469.
    """
    return clip_by_rule(percentile_rule(percentile, window=window), axis_name=axis_name)


@shown
def clip_by_zscore(
    *,
    z_threshold: ArrayLike = 2.5,
    decay: ArrayLike = 0.97,
    max_norm: ArrayLike | None = 1.0,
    mode: Mode = "adaptive_scaling",
    clip_factor: ArrayLike = 1.0,
    skip_update_on_spike: bool = False,
    warmup: int = 25,
    eps: ArrayLike = 1e-6,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip norms whose z-score is high: ZClip.

    The rule, its formula and its weakness (it locks in) are those of ``gs.rules.zscore``.

    Args:
      z_threshold: the z-score above which a norm is a spike, > 0.
      decay: of mean and variance, in [0, 1).
      max_norm: a fixed limit besides, in units of the gradient, > 0; ``None``: none.
      mode: what a spike is clipped to: ``"adaptive_scaling"``, ``"mean"`` or ``"percentile"``.
      clip_factor: factor on the limit of ``"adaptive_scaling"``, > 0.
      skip_update_on_spike: whether mean and variance stay as they are at a spike.
      warmup: norms that are only watched, >= 1.
      eps: added to the standard deviation, in units of the gradient, > 0.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by_zscore(), optax.adamw(3e-4))

    Source:
      Kumar, Owen, Roy Chowdhury, Güra, 2025, arXiv:2504.02507.
    """
    rule = zscore(
        z_threshold=z_threshold,
        decay=decay,
        max_norm=max_norm,
        mode=mode,
        clip_factor=clip_factor,
        skip_update_on_spike=skip_update_on_spike,
        warmup=warmup,
        eps=eps,
    )
    return clip_by_rule(rule, axis_name=axis_name)


@shown
def clip_by_window(
    *, window: int = 128, sigmas: ArrayLike = 3.0, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    """Clip updates above the mean of the last norms plus some standard deviations.

    Put it *behind* the optimizer in a chain, where it sees updates: that is what Levanter made
    it for. The rule, its formula and its weakness are those of ``gs.rules.window_clip``.

    Args:
      window: how many norms are remembered, >= 2.
      sigmas: standard deviations above the mean at which clipping begins, > 0.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.chain(optax.adamw(3e-4), gs.clipping.clip_by_window()))

    Source:
      Levanter, ``clip_update_by_historical_norm``, Stanford CRFM, 2025.
    """
    return clip_by_rule(window_clip(window=window, sigmas=sigmas), axis_name=axis_name)


@shown
def reject_by_window_sigma(
    *,
    window: int = 128,
    sigmas: ArrayLike = 6.0,
    judge_loss: bool = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Zero a step whose norm, or loss, lies many standard deviations above the last ones.

    The rule, its formula and its weakness are those of ``gs.rules.window_sigma``. To hold the
    optimizer still as well, as OLMo and MaxText do, put the rule into ``gs.guard``.

    Args:
      window: how many norms are remembered, >= 2.
      sigmas: standard deviations above the mean at which rejection begins, > 0.
      judge_loss: whether to judge the loss as well; ``update`` then needs ``value=loss``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range, and in ``update`` if the loss is missing.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.reject_by_window_sigma(), optax.sgd(0.1))

    Source:
      OLMo-core, ``SkipStepOptimizer``, Allen Institute for AI, 2024; MaxText,
      ``skip_step_on_spikes``.
    """
    rule = window_sigma(window=window, sigmas=sigmas, judge_loss=judge_loss)
    return clip_by_rule(rule, axis_name=axis_name)


@shown
def reject_by_ema_multiple(
    *,
    multiple: ArrayLike = 20.0,
    max_norm: ArrayLike | None = None,
    decay: ArrayLike = 0.99,
    start: ArrayLike | None = 1.0,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Zero a step whose norm is a multiple of its moving average; clip the others.

    The rule, its formula and its weakness (it locks in) are those of ``gs.rules.ema_multiple``.
    To hold the optimizer still as well, as AXLearn does, put the rule into ``gs.guard``.

    Args:
      multiple: of the moving average, > 1.
      max_norm: the norm to which accepted gradients are clipped, > 0; ``None``: not at all.
      decay: of the moving average, in [0, 1).
      start: the average before any step was accepted, > 0; ``None`` judges nothing until then.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.reject_by_ema_multiple(max_norm=1.0), optax.sgd(0.1))

    Source:
      AXLearn, ``skip_and_clip_by_global_norm``, Apple, 2023.
    """
    rule = ema_multiple(multiple=multiple, max_norm=max_norm, decay=decay, start=start)
    return clip_by_rule(rule, axis_name=axis_name)


@shown
def reject_by_loss_spike(
    *,
    reject_at: ArrayLike = 6.0,
    rate: ArrayLike = 0.03,
    min_spread: ArrayLike = 0.01,
    warmup: int = 20,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Zero a step whose loss lies far above its usual range; ``update`` needs ``value=loss``.

    The rule, its formula and its weakness are those of ``gs.rules.loss_spike``.

    Args:
      reject_at: robust standard deviations above the median at which rejection begins, > 0.
      rate: how fast the statistics move, in (0, 1).
      min_spread: the least spread as a share of the median loss, >= 0.
      warmup: losses that are only watched, >= 2.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range, and in ``update`` if the loss is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.reject_by_loss_spike()
      >>> g = jnp.ones(2)
      >>> tx.update(g, tx.init(g), value=jnp.nan)[0].tolist()
      [-0.0, -0.0]

    Source:
      Ours, see ``gs.rules.loss_spike``.
    """
    rule = loss_spike(reject_at=reject_at, rate=rate, min_spread=min_spread, warmup=warmup)
    return clip_by_rule(rule, axis_name=axis_name)
