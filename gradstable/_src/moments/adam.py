"""Adam's moments, in arithmetic that low precision and large gradients cannot break."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_adam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Adam's rule, with moments that survive.

    Use it like ``optax.scale_by_adam``; the state is the same (``optax.ScaleByAdamState``). It
    computes in float32 whatever the dtype of the gradients, so ``eps`` does not vanish in float16
    (where optax gives NaN for a zero gradient) and ``nu`` does not stall in bfloat16. An entry that
    is not finite, or above ``2**62`` (its square would make ``nu`` infinite and freeze its weight
    forever), leaves its moments as they are, and its update comes from those moments alone.
    ``gs.guard`` rejects the whole step instead.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= \frac{\mu / (1 - b_1^t)}{\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon}

    Whatever the gradients, :math:`|u| \le (1-b_1) / \sqrt{1-b_2} / \sqrt{1-b_1^2/b_2}`: 7.27
    with the defaults (8.42 with ``nesterov``), 1.17 with ``b2=0.95``, 1 with ``b2=b1``.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's); 0.95 to 0.98 forgets a
        spike, or a quiet period, much sooner.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      eps_root: added inside the root, >= 0. Default 0; set it above 0 to differentiate through the
        update.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``. bfloat16 stalls with ``b2`` above 0.99, since values are
        rounded to nearest; ``gs.precision.compress_moments`` stores both moments in 8 or 16 bits
        without stalling.
      nesterov: whether ``mu`` looks one step ahead, as in NAdam (and ``optax.adam``).

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_adam(b2=0.95)
      >>> g = jnp.array([2.0, -0.5, 0.0], jnp.float16)
      >>> tx.update(g, tx.init(g))[0].tolist()
      [1.0, -1.0, 0.0]

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980; the
      Nesterov form as in Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            return first.mix(mu, g), second.mix(nu, abs_square(g))

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            mu, nu = new
            mu_hat = look_ahead(first, mu, g) if nesterov else first.correct(mu)
            return divide(mu_hat, jnp.sqrt(second.correct(nu) + _like(eps_root, nu)), eps)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_adam", optax.ScaleByAdamState, slots, at, complex_too=True)


def look_ahead(decay: Decay, mu: jax.Array, g: jax.Array) -> jax.Array:
    """Return the bias-corrected first moment as it will be if the gradient repeats itself."""
    ahead, now = decay.keep / decay.next_corrects, decay.take / decay.corrects
    return ahead.astype(mu.dtype) * mu + now.astype(mu.dtype) * g


def divide(numerator: jax.Array, root: jax.Array, eps: ArrayLike) -> jax.Array:
    """Return ``numerator / (root + eps)``, and 0 for 0 / 0: no gradient yet, no step."""
    ratio = quotient(numerator, root, eps)
    if _is_positive(eps):
        return ratio
    return jnp.where(root + _like(eps, root) > 0, ratio, jnp.zeros_like(ratio))


def quotient(numerator: jax.Array, root: jax.Array, eps: ArrayLike) -> jax.Array:
    """Return ``numerator / (root + eps)``, for an eps above 0."""
    return numerator / (root + _like(eps, root)).astype(numerator.dtype)


def over_root(numerator: jax.Array, square: jax.Array, eps: ArrayLike) -> jax.Array:
    """Return ``numerator / sqrt(square + eps)``, and 0 where there is nothing to divide by.

    A product with a reciprocal root, since XLA duplicates a quotient but not this product.
    """
    total = square + _like(eps, square)
    inverse = jax.lax.rsqrt(total)
    if not _is_positive(eps):
        inverse = jnp.where(total > 0, inverse, jnp.zeros_like(total))
    return numerator * inverse.astype(numerator.dtype)


def _like(number: ArrayLike, array: jax.Array) -> jax.Array:
    return jnp.asarray(number, array.dtype)


def _is_positive(eps: ArrayLike) -> bool:
    """Whether eps is known to be positive in float32, where XLA flushes subnormal numbers to 0."""
    return isinstance(eps, (int, float)) and bool(np.float32(eps) >= np.finfo(np.float32).tiny)
