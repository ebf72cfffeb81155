"""Stochastic rounding: small steps move low-precision parameters on average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.act import keep_finite, unmoved
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_key
from gradstable._src.core.keys import draw, key_numbers, key_of
from gradstable._src.core.layout import Split, splits_of
from gradstable._src.core.numerics import increment, is_low_precision, power_of_two, rounded
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_params, check_state, check_updates


class StochasticRoundState(NamedTuple):
    """State of ``stochastic_round``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    rounding_key: jax.Array  # the plain numbers of a key


@shown
def stochastic_round(
    key: int | jax.Array = 0, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Round updated low-precision parameters up or down at random.

    Use it as the last link of a chain when parameters are kept in bfloat16 or float16 without a
    float32 copy, and there is not even room for ``gs.precision.kahan``: it needs no memory. What
    scales updates must come before it: ``gs.govern``, ``gs.backoff``, and others refuse it inside.
    Of the two numbers next to :math:`x = \theta + u`, at a distance of :math:`\varepsilon`,

    .. math:: \theta' = \varepsilon \lfloor x / \varepsilon + \xi \rfloor, \qquad
              \xi \sim U[0, 1), \qquad E[\theta'] = x

    so that a step of a hundredth of the spacing is taken once in a hundred times. With the updates
    returned, ``optax.apply_updates`` gives :math:`\theta'`: bit for bit where :math:`\theta'` is
    within a factor of two of :math:`\theta`, and up to rounding elsewhere. Leaves in float32 or
    wider pass unchanged. Where an update is zero or not finite, nothing moves.

    Known weakness: it adds noise of up to one spacing at each step; ``gs.precision.kahan`` adds
    none.

    Args:
      key: a seed, >= 0, or a key of ``jax.random``. Default 0. The same key gives the same run.
      axis_name: as for ``gs.guard``, given as ``PartitionSpec``s: each device draws random numbers
        for the whole leaf, and rounds its part as it would be rounded in the whole. Default
        ``None``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``StochasticRoundState``; ``update`` needs
      ``params``. Updates of low-precision parameters have their dtype.

    Raises:
      TypeError: if the key is of the wrong kind.
      ValueError: if ``params`` is missing at ``update``.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = jnp.ones(1000, jnp.bfloat16)
      >>> tx = gs.guard(optax.chain(optax.sgd(1e-3), gs.precision.stochastic_round()))
      >>> updates, _ = tx.update(jnp.ones(1000, jnp.bfloat16), tx.init(params), params)
      >>> new = optax.apply_updates(params, updates)
      >>> bool((new == 1.0).any()), float(new.astype("float32").mean().round(3))
      (True, 0.999)

    Source:
      Zamirai, Zhang, Aberger, De Sa, "Revisiting BFloat16 Training", 2020, arXiv:2010.06192.
    """
    check_key("key", key)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> StochasticRoundState:
        del params
        return StochasticRoundState(calls=jnp.zeros((), jnp.int32), rounding_key=key_numbers(key))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StochasticRoundState]:
        del extra_args
        old = check_state(state, StochasticRoundState, "stochastic_round")
        check_params(params, "stochastic_round")
        updates, params = check_updates(updates, params)
        leaves, structure = jax.tree.flatten(updates)
        new_key, own_key = jax.random.split(key_of(old.rounding_key, key))
        keys = jax.random.split(own_key, len(leaves))
        splits = splits_of(updates, axis_name, reduces=False)
        rows = zip(leaves, structure.flatten_up_to(params), keys, splits, strict=True)
        rounded_leaves = [_round(u, jnp.asarray(p), own, split) for u, p, own, split in rows]
        new_state = StochasticRoundState(increment(old.calls), jax.random.key_data(new_key))
        return jax.tree.unflatten(structure, rounded_leaves), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _round(update: jax.Array, param: jax.Array, key: jax.Array, split: Split) -> jax.Array:
    if not is_low_precision(param.dtype):
        return keep_finite(jnp.asarray(True), update, param)
    info = jnp.finfo(param.dtype)
    old = param.astype(jnp.float32)
    x = old + update.astype(jnp.float32)
    # Powers of two: division and product are exact.
    least = max(float(info.smallest_subnormal), float(jnp.finfo(jnp.float32).tiny))
    spacing = jnp.maximum(power_of_two(x) * 2.0**-info.nmant, least)
    chance = draw(jax.random.uniform, key, param, jnp.float32, split)
    new = jnp.clip(jnp.floor(x / spacing + chance) * spacing, float(info.min), float(info.max))
    given = rounded(new - old, param.dtype)
    moves = (update != 0) & jnp.isfinite(x) & jnp.isfinite(given)
    return jnp.where(moves, given.astype(param.dtype), unmoved(param))
