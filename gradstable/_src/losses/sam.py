"""Sharpness-aware minimization: gradients from the worst point nearby."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.layout import splits_of, together
from gradstable._src.core.norms import global_norm
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating, check_same_tree, leaves_by_path
from gradstable._src.core.types import Tree

_SMALLEST = 2.0**-126  # normal number: XLA treats anything below as zero, and divides by it
_DOWN = 2.0**-32


def sam_ascent(
    params: Tree,
    gradients: Tree,
    *,
    rho: ArrayLike = 0.05,
    adaptive: bool = False,
    eta: ArrayLike = 0.01,
    axis_name: AxisName = None,
) -> Tree:
    r"""Return the point a short way uphill, at which SAM takes its gradient.

    Use it in your own training loop; ``gs.losses.sam_gradients`` does the whole. In bfloat16 the
    ascent is usually too short to take effect: of ten thousand weights of 1.0 not one moves,
    since 0.0005 is lost in rounding, so keep the parameters in float32.

    .. math::
      w' = w + \rho \, \frac{g}{\|g\|} \qquad\text{or, adaptive,}\qquad
      w' = w + \rho \, \frac{T^2 g}{\|T g\|}, \quad T = |w| + \eta

    The norm is over the whole tree and cannot overflow. If it is zero or not finite, the point
    is ``params`` itself, for the derivative too; the slope of ``|w|`` at 0 is taken as 0.

    Args:
      params: tree of floating-point arrays.
      gradients: tree of the same structure and shapes.
      rho: the length of the ascent, in units of the weights, >= 0. Default 0.05 (the paper's);
        0.5 if adaptive (the paper's, for CIFAR-10).
      adaptive: whether to measure the ascent relative to each weight, which makes it independent
        of their scale (ASAM, entry by entry). Default ``False``.
      eta: added to the sizes of the weights if adaptive, in their units, >= 0. Default 0.01
        (the paper's).
      axis_name: as for ``gs.guard``, for the norm. Default ``None``.

    Returns:
      A tree like ``params``, with their dtypes.

    Raises:
      TypeError: if a leaf is not floating-point.
      ValueError: if a number is out of range, or the trees differ.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.sam_ascent(jnp.zeros(2), jnp.array([3e30, 4e30]), rho=0.5).tolist()
      [0.3, 0.4]
      >>> gs.losses.sam_ascent(jnp.zeros(2), jnp.array([jnp.nan, 1.0])).tolist()
      [0.0, 0.0]

    Source:
      Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
      2020, arXiv:2010.01412; adaptive: Kwon et al., "ASAM", 2021, arXiv:2102.11600.
    """
    check_number("rho", rho, at_least=0.0)
    check_number("eta", eta, at_least=0.0)
    check_axis_name(axis_name)
    check_floating("params", params)
    check_floating("gradients", gradients)
    check_same_tree("gradients", leaves_by_path(gradients), "params", leaves_by_path(params))

    def scale(w: jax.Array) -> jax.Array:
        # Not abs, whose slope at 0 is 1.
        return w * jax.lax.stop_gradient(jnp.sign(w)) + jnp.asarray(eta, w.dtype)

    def weighted(w: jax.Array, g: jax.Array) -> jax.Array:
        w, g = _wide(w), _wide(g)
        return scale(w) * g.astype(w.dtype) if adaptive else g

    steps = jax.tree.map(weighted, params, gradients)
    norm = _length(steps, axis_name)
    usable = (norm >= _SMALLEST) & jnp.isfinite(norm)

    def ascend(w: jax.Array, step: jax.Array) -> jax.Array:
        wide_w = _wide(w)
        # The quotient first: rho times a large gradient might overflow. Non-finite values are
        # removed before it, or they would reach the derivative through an unused gradient.
        way = _over(jnp.where(usable, step, jnp.zeros_like(step)).astype(wide_w.dtype), norm)
        if adaptive:
            way = scale(wide_w) * way
        point = wide_w + jnp.asarray(rho, wide_w.dtype) * way
        return jnp.where(usable, point.astype(w.dtype), w)

    return jax.tree.map(ascend, jax.tree.map(jnp.asarray, params), steps)


def sam_gradients(
    loss_fn: Callable[[Tree], Any],
    params: Tree,
    *,
    rho: ArrayLike = 0.05,
    adaptive: bool = False,
    eta: ArrayLike = 0.01,
    has_aux: bool = False,
    axis_name: AxisName = None,
) -> tuple[Any, Tree]:
    r"""Return value and gradients of a loss at the worst point nearby.

    Use it in place of ``jax.value_and_grad`` if training settles in sharp minima, from which a
    large step flies out. It costs a second forward and backward pass. Unlike
    ``optax.contrib.sam`` it has no state, works with any optimizer and any guard, and does not
    turn all parameters into NaN for one bad batch: if the first gradient is zero or not finite
    there is no ascent, and the gradient is that at ``params``, to be judged like any other.

    .. math:: \nabla L(w'), \qquad w' = w + \rho \, \nabla L(w) / \|\nabla L(w)\|

    The value is also that at ``w'``, and so above the loss of the model, by about
    :math:`\rho \|\nabla L(w)\|`. Both are functions of ``params`` and can be differentiated:
    this goes through the ascent, and takes second derivatives of ``loss_fn``.

    Args:
      loss_fn: a function from parameters to a scalar loss, or to ``(loss, aux)``. It is called
        twice; pass the batch through a closure, with the same key for both calls.
      params: tree of floating-point arrays.
      rho: as for ``gs.losses.sam_ascent``. Default 0.05.
      adaptive: as for ``gs.losses.sam_ascent``. Default ``False``.
      eta: as for ``gs.losses.sam_ascent``. Default 0.01.
      has_aux: whether ``loss_fn`` returns ``(loss, aux)``; aux is that of the second call.
      axis_name: as for ``gs.losses.sam_ascent``. Default ``None``.

    Returns:
      ``(value, gradients)``, or ``((value, aux), gradients)``, as ``jax.value_and_grad``. With
      several devices (``jax.shard_map``) each ascends along its own gradient, unless ``loss_fn``
      averages.

    Raises:
      TypeError: if a parameter is not floating-point.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> value, gradients = gs.losses.sam_gradients(lambda w: w**2, jnp.asarray(1.0), rho=0.5)
      >>> value.item(), gradients.item()
      (2.25, 3.0)

    Source:
      Foret et al., 2020, arXiv:2010.01412; adaptive: Kwon et al., 2021, arXiv:2102.11600.
    """
    check_number("rho", rho, at_least=0.0)
    check_number("eta", eta, at_least=0.0)
    check_axis_name(axis_name)
    check_floating("params", params)
    # In the first pass aux is unused, and XLA removes it.
    first = jax.grad(loss_fn, has_aux=has_aux)(params)
    gradients = first[0] if has_aux else first
    options: dict[str, Any] = {"rho": rho, "adaptive": adaptive, "eta": eta, "axis_name": axis_name}
    point = sam_ascent(params, gradients, **options)
    return jax.value_and_grad(loss_fn, has_aux=has_aux)(point)


def _over(step: jax.Array, norm: jax.Array) -> jax.Array:
    """Return a part of a vector divided by its norm; undivided if the norm is not usable."""
    norm = norm.astype(step.dtype)
    usable = (norm >= _SMALLEST) & jnp.isfinite(norm)
    # XLA multiplies by the reciprocal, which is flushed to zero for a divisor above 2**126.
    shift = jnp.where(norm > 1.0, _DOWN, 1.0).astype(step.dtype)
    divisor = jnp.where(usable, norm * shift, jnp.ones_like(norm))
    return (step * shift) / divisor


def _length(steps: Any, axis_name: AxisName) -> jax.Array:
    """Return the norm of a tree; its derivative is the unit vector, or the steps if unusable."""

    @jax.custom_jvp
    def length(steps: Any) -> jax.Array:
        return global_norm(steps, axis_name=axis_name)

    @length.defjvp
    def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[jax.Array, jax.Array]:
        # JAX would go through the branches of the norm and their square roots, infinite at zero.
        (steps,), (moves,) = primals, tangents
        norm = length(steps)
        pairs = zip(jax.tree.leaves(steps), jax.tree.leaves(moves), strict=True)
        parts = [jnp.sum(_over(step, norm) * move).astype(norm.dtype) for step, move in pairs]
        parts = together(parts, splits_of(steps, axis_name))
        return norm, sum(parts, jnp.zeros_like(norm))

    return length(steps)


def _wide(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(wide(leaf.dtype))
