"""ADOPT: divide each gradient by the second moment of those before it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import root
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import MAX_SQUARED, LeafRule, Slot, moments


def fourth_root(step: jax.Array) -> jax.Array:
    """Return the clip limit of ADOPT's authors: the number of earlier steps to the power 1/4."""
    return jnp.sqrt(jnp.sqrt(step))


@shown
def scale_by_adopt(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.9999,
    eps: ArrayLike = 1e-6,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], ArrayLike] = fourth_root,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by ADOPT's rule, which converges with any ``b2``.

    Use it where Adam with a large ``b2`` oscillates. It uses the second moment from *before* this
    gradient, so a spike is not in its own denominator: everything depends on the clip.

    .. math::
      c &= clip(g / \max(\sqrt{\nu}, \epsilon), \pm (t - 1)^{1/4}) \\
      \mu &\leftarrow b_1 \mu + (1 - b_1) c, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2, \qquad u = \mu

    At the first step, :math:`\nu = g^2` and :math:`u = 0`.

    The step is bounded only by the clip: :math:`|u| \le (t - 1)^{1/4}`, which is not constant: 5.6
    after 1000 steps and 10 after 10000. A weight whose first gradient was zero, as in a row of an
    embedding, does take such steps: steady gradients move it by up to 4.6, and by more than 1.5 for
    5800 steps. Without the clip, its second gradient moves it by 0.1 / eps = 1e5.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.9999 (the paper's).
      eps: the least denominator, in units of the gradient, >= 0. Default 1e-6 (the paper's).
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.
      nesterov: whether ``mu`` looks one step ahead (as in ``optax.contrib.adopt``).
      use_clipping: whether to clip. Default ``True``; leave it on.
      clip_value_fn: function from the number of earlier steps to the clip limit. Default: the
        fourth root (the authors').

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``. An entry that is not
      finite, or above ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adopt()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates.tolist()
      [0.0, 0.0, 0.0]
      >>> [round(x, 3) for x in tx.update(g, state)[0].tolist()]
      [0.1, -0.1, 0.0]

    Source:
      Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
      Rate", 2024, arXiv:2411.02853, and the authors' code.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second, is_first = Decay.of(b1, count), Decay.of(b2, count), count == 1

        def normalize(g: jax.Array, nu: jax.Array) -> jax.Array:
            denominator = jnp.maximum(root(nu), jnp.asarray(eps, nu.dtype))
            ratio = jnp.where(denominator > 0, g / denominator, jnp.zeros_like(g))
            limit = clip_value_fn((count - 1).astype(jnp.float32)) if use_clipping else MAX_SQUARED
            limit = jnp.where(is_first, 0.0, jnp.asarray(limit, jnp.float32)).astype(g.dtype)
            return jnp.clip(ratio, -limit, limit)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            square = g * g
            return first.mix(mu, normalize(g, nu)), jnp.where(
                is_first, square, second.mix(nu, square)
            )

        def direct(
            g: jax.Array, new: tuple[jax.Array, ...], old: tuple[jax.Array, ...]
        ) -> jax.Array:
            return first.mix(new[0], normalize(g, old[1])) if nesterov else new[0]

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_adopt", optax.ScaleByAdamState, slots, at)
