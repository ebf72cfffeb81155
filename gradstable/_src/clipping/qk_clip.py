"""QK-Clip: shrink the heads whose attention logits have grown too large."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.attention import attention_modules, factors, maxima_by_module
from gradstable._src.core.act import applied, keep_finite
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_name, check_number
from gradstable._src.core.equations import as_at_init
from gradstable._src.core.layout import splits_of, whole_shapes
from gradstable._src.core.numerics import wide
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import (
    check_params,
    check_state,
    check_updates,
    leaves_by_path,
)


@shown
def qk_clip(
    *,
    max_logit: ArrayLike = 100.0,
    alpha: ArrayLike = 0.5,
    query: str = "query",
    key: str = "key",
    allow_missing: bool = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale query and key weights of a head whose attention logits exceed a threshold.

    Use it as the last link of a chain, after the learning rate, if attention logits grow until
    the softmax saturates and the loss diverges: above all with Muon, but it works with any
    optimizer. If queries and keys are normalized (QK-norm) it has no effect, and none is needed.
    Take the largest logit of every head from the forward pass, over the batch and all pairs of
    tokens, and pass it to the ``update`` that follows::

        tx.update(gradients, state, params, max_logits={"block_0/attention": largest})

    It acts on the weights immediately and proportionally: one batch with a logit of 10000 shrinks
    the logits of its head by a factor of 100 for good, whatever caused it.

    .. math::
      \gamma_h = \min(1, \tau / S_h), \qquad
      W^q_h \leftarrow \gamma_h^{\alpha} \, (W^q_h + u^q_h), \quad
      W^k_h \leftarrow \gamma_h^{1 - \alpha} \, (W^k_h + u^k_h)

    When the returned updates are added to the parameters, the result is this, to within the
    rounding of the difference: exactly where a weight is at most halved. Biases are scaled
    like their kernels, so that the logits of a head shrink by exactly ``gamma``. Heads whose
    largest logit is not finite are left alone, and so is everything that is not attention. If
    several query heads share a key head, the largest of their logits counts for all of them.

    Attention is found by the names of its projections. Kernels are ``(in, heads, head_dim)``,
    as in ``MultiHeadAttention`` of Flax, or ``(in, heads * head_dim)``; stacked layers have a
    leading axis, in the weights and in ``max_logits``.

    Args:
      max_logit: ``tau``, > 0, in units of the logits as they enter the softmax. Default 100
        (the paper's).
      alpha: the share of the queries, in [0, 1]. Default 0.5: both shrink alike (the paper's).
      query: the name of the query projection. Default as in Flax.
      key: the name of the key projection. Default as in Flax.
      allow_missing: whether to leave alone, instead of rejecting, a step without ``max_logits``,
        attention that they do not cover, and parameters without attention. Default ``False``.
      axis_name: as for ``gs.guard``, as ``PartitionSpec``s. ``max_logits`` covers all heads, with
        the maximum over all devices (``jax.lax.pmax``).

    Returns:
      A ``GradientTransformationExtraArgs`` without state. ``update`` takes ``max_logits``: the
      array ``[heads]`` of the only attention module, a dictionary of such arrays by the path of
      each (its names joined by ``/``), or a tree that holds them at that path, as ``sow`` of Flax
      does under the name ``max_logits``. An update that would make a parameter non-finite is
      zero.

    Raises:
      TypeError: if ``query`` or ``key`` is not a name.
      ValueError: if a number is out of range, there is no attention, ``max_logits`` lacks an
        entry, or shapes do not fit; the message names the leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> params = {name: {"kernel": jnp.ones((3, 2, 4))} for name in ("query", "key")}
      >>> tx = optax.chain(optax.adamw(1e-3), gs.clipping.qk_clip())
      >>> updates = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = tx.update(
      ...     updates, tx.init(params), params, max_logits=jnp.array([400.0, 99.0])
      ... )
      >>> optax.apply_updates(params, updates)["query"]["kernel"][0, :, 0].round(3).tolist()
      [0.5, 1.0]

    Source:
      Kimi Team, "Kimi K2: Open Agentic Intelligence", 2025, arXiv:2507.20534, section 2.1;
      shared key heads as in Megatron-LM.
    """
    check_number("max_logit", max_logit, above=0.0)
    check_number("alpha", alpha, at_least=0.0, at_most=1.0)
    check_name("query", query)
    check_name("key", key)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> optax.EmptyState:
        attention_modules(params, query, key, allow_missing=allow_missing)
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        max_logits: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        check_state(state, optax.EmptyState, "qk_clip")
        check_params(params, "qk_clip")
        updates, params = check_updates(updates, params)[0], as_at_init(params, updates)
        modules = attention_modules(params, query, key, allow_missing=allow_missing)
        maxima = maxima_by_module(max_logits, list(modules), allow_missing=allow_missing)
        held = {name: leaf for name, leaf in leaves_by_path(params).items() if leaf is not None}
        splits = dict(zip(held, splits_of(params, axis_name), strict=True))
        weights = leaves_by_path(whole_shapes(params, axis_name))
        scales: dict[str, jax.Array] = {}
        for names, largest in maxima.items():
            scales |= factors(modules[names], weights, largest, max_logit=max_logit, alpha=alpha)

        def rescale(path: Any, update: jax.Array | None) -> jax.Array | None:
            name = jax.tree_util.keystr(path)
            if update is None or name not in scales:
                return update
            return _rescale(jnp.asarray(held[name]), update, splits[name].take(scales[name]))

        is_none: Callable[[object], bool] = lambda leaf: leaf is None  # noqa: E731
        new = jax.tree_util.tree_map_with_path(rescale, updates, is_leaf=is_none)
        return keep_finite(jnp.asarray(True), new, params), optax.EmptyState()

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _rescale(param: jax.Array, update: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the update that leads to ``factor * (param + update)``."""
    dtype = wide(param.dtype)
    target = applied(param, update).astype(dtype) * factor.astype(dtype)
    # Rounded to what the parameter can hold: the difference is then usually exact.
    target = target.astype(param.dtype).astype(dtype)
    difference = (target - param.astype(dtype)).astype(update.dtype)
    return jnp.where(factor == 1.0, update, difference)
