"""AdaBelief: Adam with the variance of the gradient in place of its second moment."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide, look_ahead
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import MAX_SQUARED, LeafRule, Slot, moments


@shown
def scale_by_belief(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-16,
    eps_root: ArrayLike = 1e-16,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the first moment by how far gradients fall from it (AdaBelief).

    Use it like ``optax.scale_by_belief``; the state is the same (``optax.ScaleByBeliefState``). It
    computes in float32, where ``eps_root`` does not vanish. An entry that is not finite, or above
    ``2**62``, leaves its moments as they are, and its update comes from those moments alone.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) (g - \mu)^2 + \epsilon_{root} \\
      u &= \frac{\mu / (1 - b_1^t)}{\sqrt{\nu / (1 - b_2^t)} + \epsilon}

    A step has no bound: a gradient that does not change is trusted without limit. A constant
    gradient makes steps of 39 after 2000 steps, where Adam's are 1, and of 2300 after 10000. Put
    ``gs.rules`` before it, or pass a larger ``eps``.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the variance, in [0, 1). Default 0.999 (the paper's).
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-16 (the authors').
      eps_root: added to the variance at each step, as in the authors' code, >= 0. Default 1e-16.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.
      nesterov: whether ``mu`` looks one step ahead, as in ``gs.moments.scale_by_adam``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByBeliefState(count, mu, nu)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_belief(b1=0.5)
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [2.0, -2.0, 0.0]

    Source:
      Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris, Duncan, "AdaBelief Optimizer:
      Adapting Stepsizes by the Belief in Observed Gradients", 2020, arXiv:2010.07468.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            mu = first.mix(mu, g)
            nu = second.mix(nu, abs_square(g - mu))
            return mu, nu + jnp.asarray(eps_root, nu.dtype)

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            mu, nu = new
            mu_hat = look_ahead(first, mu, g) if nesterov else first.correct(mu)
            # With eps = 0, a subnormal nu (which not every device flushes) would give inf.
            root = jnp.maximum(jnp.sqrt(second.correct(nu)), 1.0 / MAX_SQUARED)
            return divide(mu_hat, root, eps)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_belief", optax.ScaleByBeliefState, slots, at, complex_too=True)
