"""Penalties on the size of the weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating
from gradstable._src.core.types import Mask
from gradstable._src.core.units import is_vector, leaf_names


def l1_penalty(params: optax.Params, *, weight: ArrayLike, mask: Mask = None) -> jax.Array:
    r"""Return the sum of the absolute values of all weights, which makes them sparse.

    Use it if only a few weights should remain. Under plain gradient steps none becomes exactly
    zero: it oscillates around zero by the learning rate times ``weight``. It is part of the
    loss, so an adaptive optimizer rescales its gradient like any other.

    .. math:: \lambda \sum_i |w_i|

    Args:
      params: tree of floating-point arrays.
      weight: ``lambda``, >= 0, in units of the loss per unit of a weight. No default: it
        depends on both.
      mask: what to penalize: a tree of bools like ``params`` or a prefix of it, or a function
        from ``params`` to one, such as ``gs.losses.kernels_only``. Default: all.

    Returns:
      A float32 scalar (wider for wider weights), to add to the loss.

    Raises:
      TypeError: if a penalized weight is not floating-point.
      ValueError: if ``weight`` is out of range, or the mask does not match the tree.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.l1_penalty({"w": jnp.array([3.0, -4.0])}, weight=0.5).item()
      3.5

    Source:
      Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    """
    check_number("weight", weight, at_least=0.0)

    def size(w: jax.Array) -> jax.Array:
        # Weighted before the sum, which may exceed float32 when the result does not. Not abs,
        # whose gradient at 0 is 1: a pruned weight must stay where it is.
        return jnp.asarray(weight, w.dtype) * w * jax.lax.stop_gradient(jnp.sign(w))

    return _total(params, mask, size)


def l2_penalty(params: optax.Params, *, weight: ArrayLike, mask: Mask = None) -> jax.Array:
    r"""Return half the sum of squares of all weights, which keeps them small.

    Use it with SGD, where it equals weight decay: the gradient is ``weight * w``. With Adam use
    decoupled decay instead (``gs.adamw``): Adam rescales this gradient like any other, so a
    weight of 100 is pulled no harder than one of 1.

    .. math:: \frac\lambda2 \sum_i w_i^2

    Args:
      params: tree of floating-point arrays.
      weight: ``lambda``, >= 0, in units of the loss per squared unit of a weight. No default:
        it depends on both.
      mask: what to penalize, as for ``gs.losses.l1_penalty``. Default: all.

    Returns:
      A float32 scalar (wider for wider weights), to add to the loss. If a square exceeds float32
      but ``weight`` times it does not, the penalty is finite; its gradient always is.

    Raises:
      TypeError: if a penalized weight is not floating-point.
      ValueError: if ``weight`` is out of range, or the mask does not match the tree.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> params = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([100.0])}
      >>> gs.losses.l2_penalty(params, weight=0.1, mask=gs.losses.kernels_only).item()
      1.25

    Source:
      Krogh, Hertz, "A Simple Weight Decay Can Improve Generalization", 1991; on Adam:
      Loshchilov, Hutter, 2017, arXiv:1711.05101.
    """
    check_number("weight", weight, at_least=0.0)

    def half_square(w: jax.Array) -> jax.Array:
        # Each factor is scaled before they are multiplied: the square alone may exceed float32.
        return (jnp.asarray(weight, w.dtype) * w) * (0.5 * w)

    return _total(params, mask, half_square)


def kernels_only(params: optax.Params) -> Any:
    """Return which parameters are kernels, not biases, scales, embeddings or other vectors.

    Use it as a ``mask``, here or in ``optax.adamw``: pulling biases, normalization scales or
    embeddings toward zero makes training less stable. It goes by names, as Flax gives them, and
    by shape; a leaf with two dimensions and any other name counts as a kernel.

    Args:
      params: tree of arrays.

    Returns:
      A tree of bools of the same structure.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.kernels_only({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
      {'bias': False, 'kernel': True}

    Source:
      Our own; on embeddings: OLMo Team, "2 OLMo 2 Furious", 2024, arXiv:2501.00656.
    """

    def is_kernel(path: Any, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path)
        embedding = leaf_names(name)[-1:] == ("embedding",)
        return not embedding and not is_vector(name, jnp.ndim(leaf))

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _total(params: Any, mask: Mask, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    chosen = mask(params) if callable(mask) else mask
    if chosen is not None:
        # A mask can be a prefix: one bool for everything below it.
        params = jax.tree.map(
            lambda keep, below: below if keep else jax.tree.map(lambda _: None, below),
            chosen,
            params,
        )
    check_floating("params", params)
    total = jnp.zeros((), jnp.float32)
    for leaf in map(jnp.asarray, jax.tree.leaves(params)):
        part = jnp.sum(term(leaf.astype(wide(leaf.dtype))))
        dtype = max(total.dtype, part.dtype, key=lambda dtype: dtype.itemsize)
        total = total.astype(dtype) + part.astype(dtype)
    return total
