"""Adam with an arc tangent in place of the division, and therefore without an epsilon."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_adam_atan2(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    a: ArrayLike = 1.27,
    b: ArrayLike = 1.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adam's rule with ``atan2`` in place of the division.

    Use it where the scale of gradients differs by many orders of magnitude between layers or over a
    run: there is no ``eps`` to tune, and 0 / 0 is 0. Multiplying the loss by any number leaves the
    updates unchanged.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= a \cdot atan2\left(\frac{\mu}{1 - b_1^t}, b \sqrt{\frac{\nu}{1 - b_2^t}}\right)

    Whatever the gradients, :math:`|u| < a \pi / 2`: 1.995 with the defaults, even where Adam's
    has no bound; steady gradients make steps of :math:`a \pi / 4 = 0.997`.

    It is scale-free as long as float32 can hold the squares: gradients below 1e-18 have a second
    moment of zero, and make full steps of 1.995 whatever their size.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (from the implementation cited below, as
        are the other defaults).
      b2: decay of the second moment, in [0, 1). Default 0.99.
      a: factor on the update, > 0. Default 1.27, which makes steady gradients step by 1.
      b: factor on the denominator, > 0. Default 1; a larger one is closer to Adam's division
        (``a = b`` large is Adam).
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
      >>> tx = gs.moments.scale_by_adam_atan2()
      >>> g = jnp.array([2e-12, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [0.997, -0.997, 0.0]

    Source:
      Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024,
      arXiv:2407.05872; defaults of ``adam-atan2-pytorch``.
    """
    check_decays(b1=b1, b2=b2)
    check_number("a", a, above=0.0)
    check_number("b", b, above=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            return first.mix(mu, g), second.mix(nu, g * g)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu_hat, root = first.correct(new[0]), jnp.sqrt(second.correct(new[1]))
            angle = jnp.arctan2(mu_hat, jnp.asarray(b, root.dtype) * root)
            return jnp.asarray(a, angle.dtype) * angle

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_adam_atan2", optax.ScaleByAdamState, slots, at)
