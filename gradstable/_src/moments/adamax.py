"""AdaMax: Adam with a decaying maximum in place of the second moment."""

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
def scale_by_adamax(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the first moment by a decaying maximum of the gradients (AdaMax).

    Use it like ``optax.scale_by_adamax``, with the same state (``optax.ScaleByAdamState``), where
    Adam's steps after a quiet period are too large. It computes in float32. An entry that is not
    finite, or above ``2**62``, leaves its moments as they are, and its update comes from those
    moments alone.

    .. math::
      \mu \leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow \max(b_2 \nu, |g| + \epsilon), \qquad
      u = \frac{\mu / (1 - b_1^t)}{\nu}

    Whatever the gradients, :math:`|u| \le (1 - b_1) / (1 - b_1 / b_2)` for ``b1 < b2``: 1.009
    with the defaults. The maximum falls by no more than :math:`b_2` a step: after a spike of
    1000, a gradient of 1 makes steps of 0.0027 a thousand steps later.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the maximum, in [0, 1). Default 0.999 (the paper's).
      eps: added to each new ``|g|``, in units of the gradient, >= 0. Default 1e-8, as in optax and
        torch; the paper uses none.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adamax()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0, 0.0]

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980, sec. 7.1.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            size = jnp.abs(g) + jnp.asarray(eps, nu.dtype)
            return first.mix(mu, g), jnp.maximum(second.keep.astype(nu.dtype) * nu, size)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, nu = new
            return divide(first.correct(mu), nu, 0.0)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_adamax", optax.ScaleByAdamState, slots, at, complex_too=True)
