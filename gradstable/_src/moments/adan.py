"""Adan: Nesterov's lookahead, built from differences of gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


class ScaleByAdanState(NamedTuple):
    """State of ``scale_by_adan``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, average of gradients
    mu_diff: Any  # like params, float32 or mu_dtype, average of their differences
    nu: Any  # like params, float32 or nu_dtype, average of squared lookahead gradients
    last: Any  # like params, float32, the gradient of the previous step


@shown
def scale_by_adan(
    *,
    b1: ArrayLike = 0.98,
    b2: ArrayLike = 0.92,
    b3: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adan's rule, with the weights of the paper.

    Use it with large batches, at learning rates 5 to 10 times those of Adam, if you have memory for
    four arrays per parameter. Avoid it where gradients are mostly noise: the difference of two
    gradients is noisier than either.

    .. math::
      d &= g_t - g_{t-1} \quad (0 \text{ at } t = 1) \\
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad \mu_d \leftarrow b_2 \mu_d + (1 - b_2) d \\
      \nu &\leftarrow b_3 \nu + (1 - b_3) (g + b_2 d)^2 \\
      u &= \frac{\hat\mu + b_2 \hat\mu_d}{\sqrt{\hat\nu + \epsilon_{root}} + \epsilon}

    where hats denote bias correction, as in Adam. The weight of :math:`d` is ``b2`` = 0.92, as in
    the paper (which writes ``b2`` for our ``1 - b2``) and its authors' code. ``optax.adan`` (0.2.8)
    uses ``1 - b2`` = 0.08: almost no lookahead.

    Whatever the gradients, :math:`|u| \le 1.21` with the defaults. A spike has a lasting effect:
    after one of 1000 times the usual size, steps stay below half their usual length for 957 steps.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.98 (the paper's 1 - 0.02).
      b2: decay of the differences, and their weight, in [0, 1). Default 0.92 (the paper's
        1 - 0.08).
      b3: decay of the second moment, in [0, 1). Default 0.99 (the paper's 1 - 0.01).
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      eps_root: added inside the root, >= 0. Default 0 (``optax.adan`` uses 1e-8, which amounts to
        1e-4 outside the root).
      mu_dtype: dtype in which both first moments are stored. Default float32 (wider for wider
        parameters).
      nu_dtype: the same for the second moment.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByAdanState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adan()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 3) for x in tx.update(g, tx.init(g))[0].tolist()]
      [1.0, -1.0, 0.0]

    Source:
      Xie, Zhou, Li, Lin, Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster
      Optimizing Deep Models", 2022, arXiv:2208.06677, and the authors' code.
    """
    check_decays(b1=b1, b2=b2, b3=b3)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, diff, second = (Decay.of(b, count) for b in (b1, b2, b3))

        def learn(
            g: jax.Array, mu: jax.Array, mu_diff: jax.Array, nu: jax.Array, last: jax.Array
        ) -> tuple[jax.Array, ...]:
            d = g - jnp.where(count == 1, g, last)
            ahead = g + diff.keep.astype(g.dtype) * d
            return first.mix(mu, g), diff.mix(mu_diff, d), second.mix(nu, ahead * ahead), g

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, mu_diff, nu, _ = new
            mu_hat = first.correct(mu) + diff.keep.astype(mu.dtype) * diff.correct(mu_diff)
            root = jnp.sqrt(second.correct(nu) + jnp.asarray(eps_root, nu.dtype))
            return divide(mu_hat, root, eps)

        return LeafRule(learn, direct)

    slots = (
        Slot("mu", mu_dtype),
        Slot("mu_diff", mu_dtype),
        Slot("nu", nu_dtype),
        Slot("last"),
    )
    return moments("scale_by_adan", ScaleByAdanState, slots, at)
