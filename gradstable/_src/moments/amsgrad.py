"""AMSGrad: Adam with a second moment that never falls."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_amsgrad(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_maximum: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adam's rule with the largest second moment so far (AMSGrad).

    Use it like ``optax.scale_by_amsgrad``; the state is the same (``optax.ScaleByAmsgradState``).
    Unlike Adam's, its second moment does not go stale in a quiet period. It computes in float32. An
    entry that is not finite, or above ``2**62``, leaves its moments as they are, and its update
    comes from those moments alone.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2, \qquad
      \nu_{max} \leftarrow \max(\nu_{max}, \nu / (1 - b_2^t)) \\
      u &= \frac{\mu / (1 - b_1^t)}{\sqrt{\nu_{max} + \epsilon_{root}} + \epsilon}

    The bound of ``gs.moments.scale_by_adam`` holds, unless only the second moment is left
    uncorrected: then the first step is :math:`1 / \sqrt{1 - b_2}` = 31.6. A spike slows a parameter
    for good: after one of 1000 at step 1000, a gradient of 1 makes steps of 0.025, even 10000 steps
    later, when Adam's are back at 0.98. Clip before it.

    optax corrects before it takes the maximum, so one large *first* gradient is kept in full: a
    gradient of 10 followed by ones makes steps of 0.1 for good. torch corrects afterwards
    (``correct_maximum``), and is back at 0.97 in 1000 steps. The paper corrects nothing (both
    ``bias_correction_*`` off).

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the second moment, in [0, 1). Default 0.999.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0. Default 0.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu`` and its maximum.
      bias_correction_mu: whether to correct the first moment. Default ``True``, as in optax.
      bias_correction_nu: whether to correct the second moment. Default ``True``, as in optax.
      correct_maximum: whether to correct ``nu`` after taking the maximum, as in torch, instead of
        before. Default ``False``, as in optax.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAmsgradState(count, mu, nu, nu_max)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_amsgrad()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.0, -1.0, 0.0]

    Source:
      Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)
    before = bias_correction_nu and not correct_maximum
    after = bias_correction_nu and correct_maximum

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(
            g: jax.Array, mu: jax.Array, nu: jax.Array, nu_max: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            nu = second.mix(nu, abs_square(g))
            seen = second.correct(nu) if before else nu
            return first.mix(mu, g), nu, jnp.maximum(nu_max, seen)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, _, nu_max = new
            largest = second.correct(nu_max) if after else nu_max
            root = jnp.sqrt(largest + jnp.asarray(eps_root, largest.dtype))
            return divide(first.correct(mu) if bias_correction_mu else mu, root, eps)

        return LeafRule(learn, direct)

    second_moments = (Slot(name, nu_dtype, squared=True) for name in ("nu", "nu_max"))
    slots = (Slot("mu", mu_dtype), *second_moments)
    return moments("scale_by_amsgrad", optax.ScaleByAmsgradState, slots, at, complex_too=True)
