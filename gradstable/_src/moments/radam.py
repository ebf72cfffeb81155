"""RAdam: Adam with short steps until the second moment is known well enough."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide, look_ahead
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def scale_by_radam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    threshold: ArrayLike = 5.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by rectified Adam, which warms up on its own.

    Use it like ``optax.scale_by_radam``; the state is the same (``optax.ScaleByAdamState``). It
    computes in float32, and gets :math:`\rho_t` from a series: the difference in the formula loses
    digits in float32, which makes optax's sixth step 0.6 % too short. An entry that is not finite,
    or above ``2**62``, leaves its moments as they are, and its update comes from those moments
    alone.

    .. math::
      \rho_\infty &= \frac{2}{1 - b_2} - 1, \qquad
      \rho_t = \rho_\infty - \frac{2 t b_2^t}{1 - b_2^t}, \qquad
      r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}
      {(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
      u &= \begin{cases} r_t \hat\mu / (\sqrt{\hat\nu + \epsilon_{root}} + \epsilon)
      & \rho_t \ge threshold \\ \hat\mu & \text{else} \end{cases}

    with Adam's :math:`\hat\mu` and :math:`\hat\nu`. From the sixth step on (with the defaults)
    the bound of ``gs.moments.scale_by_adam`` holds, since :math:`r_t \le 1`. The first five steps
    have no bound: they are plain gradient descent, and a first gradient of 1000 makes a step of
    1000.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's). At 0.6 and below,
        :math:`\rho_\infty \le 4`, and every step is plain gradient descent.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0. Default 0.
      threshold: the :math:`\rho_t` from which the second moment is used, >= 4. Default 5, as in the
        authors' code; the paper uses 4.
      mu_dtype: dtype in which ``mu`` is stored. Default float32 (wider for wider parameters).
      nu_dtype: the same for ``nu``.
      nesterov: whether ``mu`` looks one step ahead, as in ``gs.moments.scale_by_adam``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_radam()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].tolist()
      [2.0, -0.5, 0.0]

    Source:
      Liu, Jiang, He, Chen, Liu, Gao, Han, "On the Variance of the Adaptive Learning Rate and
      Beyond", 2019, arXiv:1908.03265.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)
    check_number("threshold", threshold, at_least=4.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)
        rho = _length(b2, second, count.astype(jnp.float32))
        is_known = rho >= jnp.asarray(threshold, jnp.float32)
        r = _rectifier(rho, 2.0 / second.take - 1.0)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            return first.mix(mu, g), second.mix(nu, abs_square(g))

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            mu, nu = new
            mu_hat = look_ahead(first, mu, g) if nesterov else first.correct(mu)
            root = jnp.sqrt(second.correct(nu) + jnp.asarray(eps_root, nu.dtype))
            return jnp.where(is_known, r.astype(g.dtype) * divide(mu_hat, root, eps), mu_hat)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_radam", optax.ScaleByAdamState, slots, at, complex_too=True)


def _length(b2: ArrayLike, second: Decay, t: jax.Array) -> jax.Array:
    r"""Return ``rho_t``, the length of the equivalent simple moving average.

    With ``a = -log(b2)`` and ``x = a t`` it is ``(2 / (1 - b2) - 1 - 2 / a) + (2 / a) f(x)``,
    where ``f(x) = 1 - x / (exp(x) - 1)``. The first bracket is small, and for small x so is f:
    its Taylor series, with Bernoulli's numbers, keeps the digits that the difference loses.
    """
    if isinstance(b2, (int, float)):
        a = -math.log(b2) if b2 else math.inf
        rest, rate = jnp.float32(2.0 / (1.0 - b2) - 1.0 - 2.0 / a), jnp.float32(a)
    else:
        rate = -jnp.log(second.keep)
        rest = 2.0 / second.take - 1.0 - 2.0 / rate
    x = t * rate
    square = x * x
    series = 1.0 - x / 6.0 * (1.0 - square / 60.0 * (1.0 - square / 42.0 * (1.0 - square / 40.0)))
    closed = 2.0 / rate * (1.0 - x / jnp.expm1(x))
    return rest + jnp.where(x < 1.0, t * series, closed)


def _rectifier(rho: jax.Array, limit: jax.Array) -> jax.Array:
    """Return ``r_t``, and 0 where it is undefined: at lengths of 4 and below."""
    numerator = (rho - 4.0) * (rho - 2.0) * limit
    is_known = rho > 4.0
    square = numerator / jnp.where(is_known, (limit - 4.0) * (limit - 2.0) * rho, 1.0)
    return jnp.sqrt(jnp.where(is_known, square, 0.0))
