"""The sum of all squares: Adagrad."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import over_root
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_rss(
    *,
    initial_accumulator_value: ArrayLike = 0.1,
    eps: ArrayLike = 1e-7,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide gradients by the root of the sum of all their squares (Adagrad).

    Use it like ``optax.scale_by_rss``, with the same state (``optax.ScaleByRssState``), where
    gradients are sparse. The sum is kept in float32, since in bfloat16 it stops growing once it is
    256 times a new square. It saturates at the largest float32. An entry that is not finite, or
    above ``2**62``, leaves it as it is and does not move.

    .. math:: a \leftarrow a + g^2, \qquad u = g / \sqrt{a + \epsilon}

    Whatever the gradients, :math:`|u| \le 1`. The sum never falls: after one spike of 1000, a
    gradient of 1 makes steps of 0.001, even 1000 steps later (0.03 without the spike). Clip before
    it.

    Args:
      initial_accumulator_value: where :math:`a` starts, >= 0. Default 0.1, as in optax; the paper
        and torch use 0.
      eps: added inside the root, in units of the gradient squared, >= 0. Default 1e-7, as in
        optax.
      nu_dtype: dtype in which the sum is stored. Default float32 (wider for wider parameters).

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByRssState(sum_of_squares)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_rss(initial_accumulator_value=0.0)
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0, 0.0]

    Source:
      Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization", 2011.
    """
    check_number("initial_accumulator_value", initial_accumulator_value, at_least=0.0)
    check_number("eps", eps, at_least=0.0)

    def learn(g: jax.Array, total: jax.Array) -> tuple[jax.Array]:
        return (jnp.minimum(total + abs_square(g), jnp.finfo(total.dtype).max),)

    def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
        return over_root(g, new[0], eps)

    slots = (Slot("sum_of_squares", nu_dtype, squared=True, start=initial_accumulator_value),)
    rule = LeafRule(learn, direct)
    return moments("scale_by_rss", optax.ScaleByRssState, slots, lambda _: rule, complex_too=True)
