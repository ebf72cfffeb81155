"""GradientStabilizer: every leaf keeps its direction and gets a norm based on its history."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import increment, smallest_norm_in
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule


class GradientStabilizerState(NamedTuple):
    """State of ``gradient_stabilizer``."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32, steps seen
    mean_norms: jax.Array  # shape=(L,), dtype=jnp.float32, running mean of the norms of a leaf
    rms_norms: jax.Array  # shape=(L,), dtype=jnp.float32, root of the running mean of their squares


@shown
def gradient_stabilizer(
    *,
    b1: ArrayLike = 0.6,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 0.0,
    bias_correction: bool = False,
) -> Rule:
    r"""Keep the direction of every leaf, and replace its norm by one based on its history.

    Use it where no threshold is known: it has none. Every step is changed, even a healthy one:
    the resulting gradients are dimensionless, with norms near 1, and a step is never more than
    :math:`\bar\rho`, however large a spike is.

    .. math:: m \leftarrow \gamma_1 m + (1 - \gamma_1) \|g\|, \quad
              v \leftarrow \gamma_2 v + (1 - \gamma_2) \|g\|^2, \quad
              g' = \frac{g}{\|g\|} \frac{m}{\sqrt{v} + \epsilon}

    for every leaf. The norm of a leaf is at most

    .. math:: \bar\rho = \frac{1 - \gamma_1}{\sqrt{1 - \gamma_2}\sqrt{1 - \gamma_1^2 / \gamma_2}}

    Known weakness: at the defaults this bound is 15.8, and a spike comes close to it. After
    steady norms, one that is 1000 times larger yields 12.7 times the usual norm, and the next
    steps 7.6, 4.6, 2.8 and 1.7 times. After that, :math:`v` remembers the spike, and the norm is
    below a tenth of the usual one for 2 300 steps. As published, there is no bias correction, so
    the first steps also have norms of 12.6, 14.3 and 14.3. The first version of the paper had
    ``b1=0.7, b2=0.9, eps=1e-8, bias_correction=True``, whose bound is 1.4: the safer choice.

    Args:
      b1: decay :math:`\gamma_1` of the mean norm, in [0, 1). Default 0.6, as published.
      b2: decay :math:`\gamma_2` of the mean square, in [0, 1). Default 0.999, as published.
      eps: :math:`\epsilon`, in units of the gradient, >= 0, outside the root. Default 0, as
        published; a leaf whose gradient is zero is left unchanged.
      bias_correction: whether to divide mean and mean square by :math:`1 - \gamma^t` first.
        Default ``False``, as published.

    Returns:
      A ``Rule`` with two scalars per leaf, ``GradientStabilizerState``. It never rejects.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> rule = gs.rules.gradient_stabilizer(b1=0.7, b2=0.9, eps=1e-8, bias_correction=True)
      >>> tx = gs.guard(optax.adamw(3e-4), rule)

    Source:
      Huang et al., "GradientStabilizer: Fix the Norm, Not the Gradient", 2025,
      arXiv:2502.17055, algorithm 1 and lemma 3.6.
    """
    check_number("b1", b1, at_least=0.0, below=1.0)
    check_number("b2", b2, at_least=0.0, below=1.0)
    check_number("eps", eps, at_least=0.0)

    def init(params: Any) -> GradientStabilizerState:
        shape = (len(jax.tree.leaves(params)),)
        return GradientStabilizerState(
            norms_seen=jnp.zeros((), jnp.int32),
            mean_norms=jnp.zeros(shape, jnp.float32),
            rms_norms=jnp.zeros(shape, jnp.float32),
        )

    def decide(
        measure: Measure, state: GradientStabilizerState, **_: Any
    ) -> tuple[Verdict, GradientStabilizerState]:
        norms, count = measure.leaf_norms, increment(jnp.maximum(state.norms_seen, 0))
        mu = jnp.multiply(b1, state.mean_norms) + jnp.multiply(1.0 - b1, norms)
        root_nu = _root_mean_square(state.rms_norms, norms, b2)
        m, root_v = mu, root_nu
        if bias_correction:
            m, root_v = mu / _weight(b1, count), root_nu / jnp.sqrt(_weight(b2, count))
        size = root_v + eps
        tiny = smallest_norm_in(norms.dtype)
        acts = (norms > tiny) & (size > tiny)
        # The select in between keeps XLA from dividing by a product, which would underflow.
        ratio = jnp.where(acts, m / jnp.where(acts, size, 1.0), 1.0)
        scale = jnp.where(acts, ratio / jnp.where(acts, norms, 1.0), 1.0)
        verdict = Verdict.of(
            scale=scale,
            reason=jnp.where(jnp.any(scale != 1.0), Reason.NORM_STABILIZED, Reason.OK),
        )
        return verdict, GradientStabilizerState(norms_seen=count, mean_norms=mu, rms_norms=root_nu)

    return Rule(init=init, decide=decide)


def _root_mean_square(root: jax.Array, norms: jax.Array, decay: ArrayLike) -> jax.Array:
    """Return the root of ``decay * root**2 + (1 - decay) * norms**2``; no square can overflow."""
    largest = jnp.maximum(root, norms)
    unit = jnp.where(largest > 0, largest, 1.0)
    old, new = root / unit, norms / unit
    return unit * jnp.sqrt(decay * old * old + (1.0 - decay) * new * new)


def _weight(decay: ArrayLike, count: jax.Array) -> jax.Array:
    """Return ``1 - decay**count``, the total weight of the values in a running mean."""
    return -jnp.expm1(count.astype(jnp.float32) * jnp.log(jnp.asarray(decay, jnp.float32)))
