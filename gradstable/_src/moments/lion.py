"""Lion: the sign of a momentum."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_choice, check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments

LionMode: TypeAlias = Literal["hard", "smooth", "refined"]


@shown
def scale_by_lion(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    mu_dtype: DTypeLike | None = None,
    mode: LionMode = "hard",
    smooth_beta: ArrayLike = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Turn gradients into the sign of an average of them, by Lion's rule.

    Use it where memory is tight (it keeps one array per parameter) and batches are large. Clip or
    guard the gradients: the *size* of a step cannot explode, but a spike can take over its
    direction.

    .. math::
      u = sign(b_1 \mu + (1 - b_1) g), \qquad \mu \leftarrow b_2 \mu + (1 - b_2) g

    Whatever the gradients, :math:`|u| \le 1`, in the two softer modes as well. Those depend on the
    scale of the gradient: where it is far below 1, steps are proportional to it.

    After a spike of :math:`S` = 1000 times the usual size, the sign is the spike's for 237 steps
    even if all later gradients point the other way, and for 338 steps in every one of a thousand
    weights whose gradients have random signs. The spike outweighs a fresh gradient in the momentum
    for :math:`\ln S / \ln(1 / b_2)` = 688 steps.

    Args:
      b1: weight of the momentum, relative to the gradient, inside the sign, in [0, 1). Default 0.9
        (the paper's).
      b2: decay of the momentum, in [0, 1). Default 0.99 (the paper's).
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters);
        bfloat16 is enough here.
      mode: the function applied to the average ``x``: ``"hard"``, its sign; ``"smooth"``,
        ``tanh(s x)``; ``"refined"``, ``x`` within -1 and 1 and its sign outside. Default ``"hard"``
        (the paper's).
      smooth_beta: ``s`` of ``"smooth"``, > 0. Default 1, as in optax.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByLionState(count, mu)``. An entry that is not
      finite, or above ``2**62``, counts as zero and leaves its momentum as it is.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_lion()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].tolist()
      [1.0, -1.0, 0.0]

    Source:
      Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
    """
    check_decays(b1=b1, b2=b2)
    check_choice("mode", mode, get_args(LionMode))
    check_number("smooth_beta", smooth_beta, above=0.0)

    def at(count: jax.Array) -> LeafRule:
        ahead, first = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array) -> tuple[jax.Array, ...]:
            return (first.mix(mu, g),)

        def direct(g: jax.Array, _: object, old: tuple[jax.Array, ...]) -> jax.Array:
            return _sign(ahead.mix(old[0], g), mode, smooth_beta)

        return LeafRule(learn, direct)

    return moments("scale_by_lion", optax.ScaleByLionState, (Slot("mu", mu_dtype),), at)


def _sign(x: jax.Array, mode: LionMode, smooth_beta: ArrayLike) -> jax.Array:
    if mode == "hard":
        return jnp.sign(x)
    if mode == "smooth":
        return jnp.tanh(jnp.asarray(smooth_beta, x.dtype) * x)
    return jnp.clip(x, -1.0, 1.0)
