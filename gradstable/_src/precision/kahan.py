"""Compensated application: what rounding takes from one step is added to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from gradstable._src.core.act import keep_finite, unmoved
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.chance import fraction, spread_bits
from gradstable._src.core.checks import check_dtype
from gradstable._src.core.equations import as_arrays, as_at_init
from gradstable._src.core.find import leads_back
from gradstable._src.core.layout import Split, splits_of
from gradstable._src.core.names import Unnamed, answers_as_inner, with_names, without_names
from gradstable._src.core.numerics import increment, is_low_precision, power_of_two, rounded
from gradstable._src.core.order import inside
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_params, check_state
from gradstable._src.core.wrapped import check_results, explaining


@answers_as_inner
class KahanState(NamedTuple):
    """State of ``kahan``."""

    additions: jax.Array  # int32, by which a compensation in int8 is rounded
    compensation: Unnamed  # a tree like the parameters: what rounding has taken from them
    wrapped_state: Any


@shown
def kahan(
    inner: optax.GradientTransformation,
    *,
    dtype: DTypeLike | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add small updates to low-precision parameters without losing them (Kahan summation).

    Use it when parameters are kept in bfloat16 or float16 without a float32 copy. Put it around the
    whole optimizer, as in ``gs.guard(gs.precision.kahan(optax.adamw(3e-4)))``, or around a recipe,
    and around all that changes updates: ``gs.govern``, ``gs.backoff``, and ``gs.loss_scale``.
    ``1 + 1e-3`` is 1 in bfloat16: without ``kahan``, a parameter stops moving once the step is
    below 1/512 of it.

    With :math:`\operatorname{r}` the rounding to the dtype of the parameter, :math:`t` is what
    should be added, and :math:`c` what rounding has lost:

    .. math:: t = u + c, \qquad \theta' = \operatorname{r}(\theta + \operatorname{r}(t)), \qquad
              c' = t - (\theta' - \theta)

    The updates are :math:`\operatorname{r}(t)`: ``optax.apply_updates`` then turns them into
    :math:`\theta'`, bit for bit, inside and outside ``jit``. Leaves in float32 or wider pass
    unchanged. Where an update is zero, as in a rejected step, or not finite, nothing moves. While
    a ``gs.rollback`` inside leads back to a copy, :math:`c` is zero, or it would miss the copy;
    that loses up to half a spacing once. A rollback around it restores :math:`c` too.

    Args:
      inner: any optax transform, including the learning rate. It sees the parameters as they are.
        Its updates are best in float32, as they are for float32 gradients.
      dtype: dtype of the compensation. Default ``None``: that of each parameter, which turns 8 bits
        of precision into 16 for 2 bytes per parameter. ``jnp.float32`` gives 24. ``jnp.int8`` gives
        16 for one byte: it counts 256ths of the spacing between parameters, rounded up or down in
        turn. Around ``gs.adamw_8bit``, bfloat16 parameters and all state take 5 bytes.
      axis_name: as for ``gs.guard``; only ``int8`` needs it, to round a part of a leaf as in the
        whole.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``KahanState``; ``update`` needs ``params``.
      Updates keep their structure; those of low-precision parameters have their dtype.

    Raises:
      TypeError: if ``inner`` is not a transform, or ``dtype`` is neither floating nor ``int8``.
      ValueError: if ``inner`` contains another ``kahan``, or ``params`` is missing at ``update``.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = jnp.ones((), jnp.bfloat16)
      >>> tx = gs.guard(gs.precision.kahan(optax.sgd(1e-3)))
      >>> state = tx.init(params)
      >>> for _ in range(500):
      ...     updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> float(params)
      0.5

    Source:
      Zamirai, Zhang, Aberger, De Sa, "Revisiting BFloat16 Training", 2020, arXiv:2010.06192.
    """
    inner = inside("kahan", inner)
    if dtype is not None and not _is_int8(dtype):
        check_dtype("dtype", dtype)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> KahanState:
        params = as_arrays(params)
        return KahanState(
            additions=jnp.zeros((), jnp.int32),
            compensation=without_names(
                jax.tree.map(lambda leaf: _nothing(leaf, dtype), params), params
            ),
            wrapped_state=own_arrays(inner.init(params)),
        )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, KahanState]:
        old = check_state(state, KahanState, "kahan")
        check_params(params, "kahan")
        with explaining(updates, params):
            stepped, inner_state = inner.update(updates, old.wrapped_state, params, **extra_args)
        check_results(stepped, updates, params)
        known = as_at_init(params, stepped)
        leaves, structure = jax.tree.flatten(stepped)
        going = leads_back(inner_state)
        kept = _unless(going, structure.flatten_up_to(with_names(old.compensation, known)))
        splits = splits_of(stepped, axis_name, reduces=False)
        pairs = [
            _compensate(u, c, p, old.additions, split)
            for u, c, p, split in zip(
                leaves, kept, structure.flatten_up_to(known), splits, strict=True
            )
        ]
        lost = jax.tree.unflatten(structure, _unless(going, [lost for _, lost in pairs]))
        return (
            jax.tree.unflatten(structure, [new for new, _ in pairs]),
            KahanState(increment(old.additions), without_names(lost, params), inner_state),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _nothing(param: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    # A leaf that needs none has a scalar, so that the state keeps the structure of the parameters.
    if not is_low_precision(param.dtype):
        return jnp.zeros((), param.dtype)
    return jnp.zeros_like(param, dtype)


def _unless(going: jax.Array | None, kept: list[jax.Array]) -> list[jax.Array]:
    """Return compensations, or zeros while parameters go back to where they are unknown."""
    if going is None:
        return kept
    return [jnp.where(going, jnp.zeros_like(lost), lost) for lost in kept]


def _compensate(
    update: jax.Array, lost: jax.Array, param: jax.Array, count: jax.Array, split: Split
) -> tuple[jax.Array, jax.Array]:
    """Return the update in the dtype of the parameter, and what its rounding will take."""
    if not is_low_precision(param.dtype):
        return keep_finite(jnp.asarray(True), update, param), lost
    old = param.astype(jnp.float32)
    total = update.astype(jnp.float32) + _read(lost, old, param.dtype)
    given = rounded(total, param.dtype)
    new = rounded(old + given, param.dtype)
    moves = (update != 0) & jnp.isfinite(new)
    exact = total - (new - old)
    if _is_int8(lost.dtype):
        stored = _in_units(exact, _unit(new, param.dtype), spread_bits(count, exact, split))
    else:
        stored = exact.astype(lost.dtype)
    kept = jnp.where(moves, stored, lost)
    return jnp.where(moves, given.astype(param.dtype), unmoved(param)), kept


def _is_int8(dtype: DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.int8)


def _read(lost: jax.Array, param: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a compensation in float32, next to the parameter with which it was stored."""
    number = lost.astype(jnp.float32)
    return number * _unit(param, dtype) if _is_int8(lost.dtype) else number


def _in_units(exact: jax.Array, unit: jax.Array, bits: jax.Array) -> jax.Array:
    """Return a compensation in int8, rounded up or down by its bits."""
    # Half a spacing is 128 units, of which the last is lost.
    return jnp.clip(jnp.floor(exact / unit + fraction(bits)), -127.0, 127.0).astype(jnp.int8)


def _unit(param: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a 256th of the spacing of a dtype at a parameter."""
    info = jnp.finfo(dtype)
    least = max(float(info.smallest_subnormal) * 2.0**-8, float(jnp.finfo(jnp.float32).tiny))
    return jnp.maximum(power_of_two(param) * 2.0 ** -(info.nmant + 8), least)
