"""Dynamic loss scaling for float16 as a transform that follows the verdict of the guard."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import is_gradient, keep_finite
from gradstable._src.core.checks import check_number, check_order, check_size
from gradstable._src.core.equations import as_arrays
from gradstable._src.core.find import find_all, find_one
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment, wide
from gradstable._src.core.order import inside
from gradstable._src.core.reasons import Reason
from gradstable._src.core.scale import UNSCALE, ScaleAwareTransformation
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state
from gradstable._src.core.types import Tree
from gradstable._src.core.wrapped import explaining


@answers_as_inner
class LossScaleState(NamedTuple):
    """State of ``loss_scale``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    loss_scale: jax.Array  # shape=(), dtype=jnp.float32, the factor for the next loss
    sound_calls: jax.Array  # shape=(), dtype=jnp.int32, finite gradients since the scale last moved
    patience_left: jax.Array  # shape=(), dtype=jnp.int32, overflows left before the scale falls
    overflows: jax.Array  # shape=(), dtype=jnp.int32, total
    last_overflow: jax.Array  # shape=(), dtype=jnp.int32, the count of the last one (-1: never)
    wrapped_state: Any


@shown
def loss_scale(
    inner: optax.GradientTransformation,
    *,
    init_scale: float = 2.0**16,
    growth_factor: float = 2.0,
    growth_interval: int = 2000,
    backoff_factor: float = 0.5,
    hysteresis: int = 1,
    min_scale: float = 1.0,
    max_scale: float = 2.0**32,
    enabled: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide scaled gradients by a loss scale that falls on overflow and grows otherwise.

    Use it around the guard when the forward pass computes in float16, whose gradients underflow
    below 6e-8 and overflow above 65504. Scale the loss, and pass the gradients as they are::

        tx = gs.loss_scale(gs.guard(optax.adamw(3e-4)))
        grads = jax.grad(lambda p: gs.scale_loss(opt_state, loss_fn(p)))(params)
        updates, opt_state = tx.update(grads, opt_state, params)

    With scale ``s``, the inner transform receives :math:`g / s`, in float32 for float16 leaves. The
    guard inside it rejects gradients that are not finite, and the scale follows its count. Directly
    around a guard, a recipe or ``gs.accumulate``, this adds no pass over the gradients: the factor
    is applied in theirs. Around anything else, the division is one extra pass.

    .. math:: s \leftarrow \begin{cases} \max(s_{min}, b s) & \text{overflow} \\
              \min(s_{max}, f s) & \text{after } n \text{ finite gradients in a row} \\
              s & \text{else} \end{cases}

    bfloat16 has the range of float32 and needs none of this.

    Args:
      inner: a transform with a guard in it (every recipe has one), or ``gs.accumulate``, which
        drops non-finite gradients. Rules judge the unscaled gradient.
      init_scale: the initial ``s``, in [1e-30, 1e30]; a power of two is best, since it is exact.
        Default ``2**16`` (torch, DeepSpeed; Megatron uses ``2**32``).
      growth_factor: ``f``, > 1. Default 2.
      growth_interval: ``n``, >= 1. Default 2000 (torch; Megatron and DeepSpeed use 1000).
      backoff_factor: ``b``, in (0, 1). Default 0.5.
      hysteresis: how many overflows it takes for the scale to fall, counted again from zero when it
        grows, >= 1. Default 1: it falls immediately (torch); Megatron and DeepSpeed use 2.
      min_scale: :math:`s_{min}`, > 0. Default 1 (Megatron).
      max_scale: :math:`s_{max}`. Default ``2**32``; torch has none.
      enabled: ``False`` turns scaling off: the scale is 1.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``LossScaleState``; updates have the dtypes that
      ``inner`` gives them, and float16 for float16 leaves. Pass ``value=`` unscaled.

    Raises:
      TypeError: if ``inner`` is not a transform.
      ValueError: if a number is out of its range, if ``inner`` contains another loss scale or
        ``kahan``, or, at ``init``, if it contains no guard.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.loss_scale(gs.guard(optax.sgd(1.0)), init_scale=1024.0)
      >>> state = tx.init(jnp.ones(2))
      >>> float(gs.scale_loss(state, 0.5))
      512.0
      >>> updates, state = tx.update(jnp.array([1024.0, jnp.inf]), state)
      >>> updates.tolist(), float(state.loss_scale)
      ([-0.0, -0.0], 512.0)

    Source:
      Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev, Venkatesh,
      Wu, "Mixed Precision Training", 2017, arXiv:1710.03740; ``torch.amp.GradScaler``; Megatron's
      ``DynamicGradScaler`` for the hysteresis.
    """
    inner = inside("loss_scale", inner)
    check_number("init_scale", init_scale, at_least=1e-30, at_most=1e30)
    check_number("growth_factor", growth_factor, above=1.0)
    check_size("growth_interval", growth_interval, at_least=1)
    check_number("backoff_factor", backoff_factor, above=0.0, below=1.0)
    check_size("hysteresis", hysteresis, at_least=1)
    check_number("min_scale", min_scale, above=0.0)
    check_number("max_scale", max_scale, at_most=1e30)
    check_order("min_scale", min_scale, "max_scale", max_scale)
    settings = _Settings(
        growth_factor, growth_interval, backoff_factor, hysteresis, min_scale, max_scale
    )

    def init_fn(params: optax.Params) -> LossScaleState:
        inner_state = own_arrays(inner.init(_in_float32(params)))
        if enabled:
            _broken(inner_state)
        return _start(init_scale if enabled else 1.0, hysteresis, inner_state)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LossScaleState]:
        old = check_state(state, LossScaleState, "loss_scale")
        updates = as_arrays(updates)
        count = increment(old.calls)
        wide_params = params if params is None else _in_float32(params)
        given = _in_float32(updates)
        if enabled and isinstance(inner, ScaleAwareTransformation):
            extra_args = {**extra_args, UNSCALE: 1.0 / old.loss_scale}
        elif enabled:
            given = _divide(updates, old.loss_scale)
        with explaining(updates, params):
            stepped, inner_state = inner.update(given, old.wrapped_state, wide_params, **extra_args)
        stepped = _narrow(stepped, updates)
        # The guard inside judged them in float32, against parameters in float32.
        stepped = keep_finite(jnp.asarray(True), stepped, params)
        new = old._replace(calls=count)
        if enabled:
            overflow = _broken(inner_state) != _broken(old.wrapped_state)
            new = _move(new, overflow, settings)
        return stepped, new._replace(wrapped_state=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _start(scale: float, hysteresis: int, inner_state: Any) -> LossScaleState:
    return LossScaleState(
        calls=jnp.zeros((), jnp.int32),
        loss_scale=jnp.full((), scale, jnp.float32),
        sound_calls=jnp.zeros((), jnp.int32),
        patience_left=jnp.full((), hysteresis, jnp.int32),
        overflows=jnp.zeros((), jnp.int32),
        last_overflow=jnp.full((), -1, jnp.int32),
        wrapped_state=inner_state,
    )


class _Settings(NamedTuple):
    growth_factor: float
    growth_interval: int
    backoff_factor: float
    hysteresis: int
    min_scale: float
    max_scale: float


def _move(state: LossScaleState, overflow: jax.Array, settings: _Settings) -> LossScaleState:
    """Return the state after the verdict on one gradient; ``calls`` already includes it."""
    patience = jnp.where(overflow, jnp.maximum(state.patience_left - 1, 0), state.patience_left)
    good = jnp.where(overflow, 0, increment(state.sound_calls))
    grows, falls = good >= settings.growth_interval, overflow & (patience == 0)
    factor = jnp.where(grows, settings.growth_factor, settings.backoff_factor)
    moved = jnp.clip(state.loss_scale * factor, settings.min_scale, settings.max_scale)
    return state._replace(
        loss_scale=jnp.where(grows | falls, moved, state.loss_scale),
        sound_calls=jnp.where(grows, 0, good),
        patience_left=jnp.where(grows, settings.hysteresis, patience),
        overflows=jnp.where(overflow, increment(state.overflows), state.overflows),
        last_overflow=jnp.where(overflow, state.calls, state.last_overflow),
    )


def scale_loss(opt_state: object, loss: ArrayLike) -> jax.Array:
    """Multiply the loss by the loss scale in an optimizer state, for ``jax.grad``.

    Args:
      opt_state: a state that contains one ``gs.loss_scale``; an ``nnx.Optimizer`` or a
        ``TrainState`` works too.
      loss: the loss, of any shape, in any floating dtype.

    Returns:
      The scaled loss, in float32 or wider, so that the product itself does not overflow.

    Raises:
      ValueError: if there is no loss scale in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> state = gs.loss_scale(gs.guard(optax.sgd(0.1))).init(jnp.ones(2))
      >>> float(gs.scale_loss(state, jnp.float16(2.0)))
      131072.0
    """
    loss = jnp.asarray(loss)
    return loss.astype(wide(loss.dtype)) * _the_scale(opt_state)


def unscale(opt_state: object, gradients: Tree) -> Tree:
    """Divide gradients by the loss scale, when you need them before ``update``.

    For a log, or for a gradient penalty, whose inner gradient is one of the scaled loss.

    Args:
      opt_state: as for ``gs.scale_loss``.
      gradients: any tree of arrays.

    Returns:
      A tree with the same structure. float16 leaves become float32.

    Raises:
      ValueError: if there is no loss scale in the state, or more than one.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> state = gs.loss_scale(gs.guard(optax.sgd(0.1))).init(jnp.ones(2))
      >>> gs.unscale(state, jnp.array([65536.0])).tolist()
      [1.0]
    """
    return _divide(gradients, _the_scale(opt_state))


def _the_scale(opt_state: object) -> jax.Array:
    wrap = "gradstable.loss_scale(gradstable.guard(optax.adamw(3e-4)))"
    return find_one(opt_state, LossScaleState, name="loss scale", wrap=wrap).loss_scale


def _divide(gradients: Tree, scale: jax.Array) -> Tree:
    def divide(leaf: jax.Array) -> jax.Array:
        if not is_gradient(leaf):
            return leaf
        dtype = wide(leaf.dtype)
        kept = dtype if leaf.dtype == jnp.float16 else leaf.dtype
        return (leaf.astype(dtype) / scale.astype(dtype)).astype(kept)

    return jax.tree.map(divide, gradients)


def _in_float32(tree: Tree) -> Tree:
    """Return a tree with its float16 leaves in float32; the others stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if _is_float16(leaf) else leaf, tree)


def _narrow(stepped: Tree, updates: Any) -> Tree:
    """Return updates in float16 where the gradients were, if both trees match."""
    if jax.tree.structure(stepped) != jax.tree.structure(updates):
        return stepped
    return jax.tree.map(
        lambda new, given: new.astype(jnp.float16) if _is_float16(given) else new, stepped, updates
    )


def _is_float16(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == jnp.float16


def _broken(inner_state: object) -> jax.Array:
    """Return how many gradients were left out because they were not finite."""
    totals = [ledger.rejected_by for _, ledger in find_all(inner_state, Ledger)]
    totals += [dropped.by_reason for _, dropped in find_all(inner_state, Dropped)]
    if not totals:
        msg = (
            "loss_scale needs a guard inside it to detect overflows: "
            "gradstable.loss_scale(gradstable.guard(inner))"
        )
        raise ValueError(msg)
    return sum((total[Reason.NONFINITE] for total in totals), jnp.zeros((), jnp.int32))
