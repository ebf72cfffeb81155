"""Gradient noise that decays, in float32 and from a seed."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_key, check_number
from gradstable._src.core.keys import draw, key_numbers, key_of
from gradstable._src.core.layout import Split, splits_of
from gradstable._src.core.numerics import increment, saturate, wide
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_real, check_state, check_updates


@shown
def add_noise(
    eta: ArrayLike,
    *,
    gamma: ArrayLike = 0.55,
    key: int | jax.Array = 0,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Add normal noise to the gradient, decreasing with every step.

    Use it, after clipping, if a deep network cannot escape a poor initialization. It does not
    help against explosion: it only adds to the gradient.

    .. math:: g' = g + \sigma_t \xi, \qquad \sigma_t^2 = \frac{\eta}{(1 + t)^\gamma},
      \qquad \xi \sim N(0, 1), \qquad t = 0, 1, \ldots

    It is ``optax.add_noise``, and equal to it in float32. But it draws the noise in float32
    whatever the dtype of the gradient: drawn in bfloat16, as optax does, it has 128 different
    values, none beyond 2.9. An entry that is not finite becomes zero and gets no noise. The same
    key gives the same noise in every run; it is stored as plain numbers, which fit into any
    checkpoint.

    Args:
      eta: the variance :math:`\eta` at the first step, in units of the gradient squared, >= 0.
        The paper tries 0.01, 0.3 and 1.0.
      gamma: how fast the variance decays, >= 0. Default 0.55 (the paper's).
      key: a seed, >= 0, or a key of ``jax.random``. Default 0. Give two of these transforms in
        one chain different keys.
      axis_name: as for ``gs.guard``, as ``PartitionSpec``s: each device draws the noise for the
        whole leaf (which takes memory for that long) and adds its own part. Without it, all devices
        inside ``jax.shard_map`` would add the same noise.

    Returns:
      A ``GradientTransformationExtraArgs`` with an ``optax.AddNoiseState``; updates keep
      structure and dtypes.

    Raises:
      TypeError: if a number or the key is of the wrong type.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.add_noise(0.01, key=7)
      >>> g = jnp.zeros(10_000)
      >>> updates, state = tx.update(g, tx.init(g))
      >>> float(updates.std().round(2))
      0.1

    Source:
      Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach, Martens, "Adding Gradient Noise
      Improves Learning for Very Deep Networks", 2015, arXiv:1511.06807.
    """
    check_number("eta", eta, at_least=0.0)
    check_number("gamma", gamma, at_least=0.0)
    check_key("key", key)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> optax.AddNoiseState:
        del params
        return optax.AddNoiseState(count=jnp.zeros((), jnp.int32), rng_key=key_numbers(key))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.AddNoiseState]:
        del extra_args
        old = check_state(state, optax.AddNoiseState, "add_noise")
        updates, params = check_updates(updates, params)
        check_real(updates, "add_noise")
        count = increment(jnp.maximum(jnp.asarray(old.count), 0))
        fading = count.astype(jnp.float32) ** jnp.asarray(gamma, jnp.float32)
        std = jnp.sqrt(jnp.asarray(eta, jnp.float32) / fading)
        leaves, structure = jax.tree.flatten(updates)
        new_key, noise_key = jax.random.split(key_of(old.rng_key, key))
        keys = jax.random.split(noise_key, len(leaves))
        rows = zip(leaves, keys, splits_of(updates, axis_name, reduces=False), strict=True)
        noisy = [_add(g, std, leaf_key, split) for g, leaf_key, split in rows]
        new_state = optax.AddNoiseState(count=count, rng_key=jax.random.key_data(new_key))
        return jax.tree.unflatten(structure, noisy), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _add(g: jax.Array, std: jax.Array, key: jax.Array, split: Split) -> jax.Array:
    x = g.astype(wide(g.dtype))
    noise = draw(jax.random.normal, key, g, x.dtype, split)
    return saturate(jnp.where(jnp.isfinite(x), x + std.astype(x.dtype) * noise, 0.0), g.dtype)
