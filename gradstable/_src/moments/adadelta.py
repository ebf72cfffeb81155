"""Adadelta: steps in the unit of the parameters, without a learning rate."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import over_root
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_adadelta(
    *, rho: ArrayLike = 0.9, eps: ArrayLike = 1e-6, nu_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients to the running size of the steps so far (Adadelta).

    Use it like ``optax.scale_by_adadelta``; the state is the same (``optax.ScaleByAdaDeltaState``).
    It computes in float32, so ``eps``, without which nothing would ever move, does not vanish in
    float16. An entry that is not finite, or above ``2**62``, leaves its statistics as they are and
    does not move.

    .. math::
      e_g \leftarrow \rho e_g + (1 - \rho) g^2, \qquad
      u = \frac{\sqrt{e_x + \epsilon}}{\sqrt{e_g + \epsilon}}\, g, \qquad
      e_x \leftarrow \rho e_x + (1 - \rho) u^2

    A step is bounded only by the steps before it, :math:`|u| \le \sqrt{(e_x + \epsilon) /
    (1-\rho)}`, which is 3.16 times their root mean square with the defaults, so steps can grow
    geometrically. It starts slowly: under a constant gradient the first step is 0.0032 with the
    defaults, and the hundredth is 0.0047.

    Args:
      rho: decay of both averages, in [0, 1). Default 0.9, as in optax and torch; the paper uses
        0.95.
      eps: added inside both roots, > 0; it sets the size of the first step. Default 1e-6 (the
        paper's).
      nu_dtype: dtype in which both averages are stored. Default float32 (wider for wider
        parameters).

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdaDeltaState(e_g, e_x)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adadelta()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(4).tolist()
      [0.0032, -0.0032, 0.0]

    Source:
      Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """
    check_decays(rho=rho)
    check_number("eps", eps, above=0.0)

    def rescale(g: jax.Array, e_g: jax.Array, e_x: jax.Array) -> jax.Array:
        size = jnp.sqrt(e_x + jnp.asarray(eps, e_x.dtype))
        return over_root(size.astype(g.dtype) * g, e_g, eps)

    def at(count: jax.Array) -> LeafRule:
        average = Decay.of(rho, count)

        def learn(g: jax.Array, e_g: jax.Array, e_x: jax.Array) -> tuple[jax.Array, jax.Array]:
            e_g = average.mix(e_g, abs_square(g))
            return e_g, average.mix(e_x, abs_square(rescale(g, e_g, e_x)))

        def direct(
            g: jax.Array, new: tuple[jax.Array, ...], old: tuple[jax.Array, ...]
        ) -> jax.Array:
            return rescale(g, new[0], old[1])

        return LeafRule(learn, direct)

    slots = (Slot("e_g", nu_dtype, squared=True), Slot("e_x", nu_dtype, squared=True))
    return moments("scale_by_adadelta", optax.ScaleByAdaDeltaState, slots, at, complex_too=True)
