"""LaProp: normalize gradients first, then average them."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_laprop(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-15,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by LaProp's rule: normalize, then average.

    Use it to choose ``b1`` and ``b2`` freely: Adam's update has no bound once ``b1**2 > b2``, while
    LaProp's is an average of bounded numbers for any pair.

    .. math::
      \nu &\leftarrow b_2 \nu + (1 - b_2) g^2, \qquad
      n = \frac{g}{\sqrt{\nu / (1 - b_2^t)} + \epsilon} \\
      \mu &\leftarrow b_1 \mu + (1 - b_1) n, \qquad u = \mu / (1 - b_1^t)

    The paper puts the learning rate inside :math:`\mu`; here it stays outside, as a separate link
    of the chain. With a constant rate both are the same. With a schedule, the paper weights each
    gradient by the rate of its own step, and this transform by that of the current step.

    Whatever the gradients, :math:`|u| \le 1 / \sqrt{1 - b_2}`: 31.6 with the defaults, and 4.5
    with ``b2=0.95``. Only gradients that grow tenfold in every step come near that bound; one spike
    after a quiet period makes a step of 3.16, as in Adam.

    Args:
      b1: decay of the average of normalized gradients, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's).
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-15 (the paper's).
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``. An entry that is not
      finite, or above ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_laprop()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [1.0, -1.0, 0.0]

    Source:
      Ziyin, Wang, Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020,
      arXiv:2002.04839, and the authors' code.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            new_nu = second.mix(nu, g * g)
            return first.mix(mu, divide(g, jnp.sqrt(second.correct(new_nu)), eps)), new_nu

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            return first.correct(new[0])

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_laprop", optax.ScaleByAdamState, slots, at)
