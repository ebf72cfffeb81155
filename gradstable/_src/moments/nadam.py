"""NAdam as Dozat wrote it: Nesterov's lookahead with a rising momentum."""

import math
from typing import NamedTuple

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

# The paper's schedule: from half of b1 at the first step to b1.
_BASE, _SHARE = 0.96, 0.5
# Terms of a series in which each is _SHARE times the last: 2**-30 is below float32 resolution.
_TERMS = 30


@shown
def scale_by_nadam(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    momentum_decay: ArrayLike = 4e-3,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Dozat's NAdam, momentum schedule included.

    Use it where results must agree with the paper or with ``torch.optim.NAdam``; what optax
    calls NAdam is ``gs.moments.scale_by_adam(nesterov=True)``, without the schedule. It computes in
    float32, and stores no more than Adam does (``optax.ScaleByAdamState``): the product of all
    momenta so far is a function of ``t``. An entry that is not finite, or above ``2**62``, leaves
    its moments as they are, and its update comes from those moments alone.

    .. math::
      \beta_t &= b_1 (1 - 0.5 \cdot 0.96^{t \psi}), \qquad
      \mu \leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= \frac{1}{\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon} \left(
      \frac{(1 - \beta_t)\, g}{1 - \prod_{i \le t} \beta_i}
      + \frac{\beta_{t+1}\, \mu}{1 - \prod_{i \le t+1} \beta_i} \right)

    While the momentum is low, the last gradient has more weight than in Adam: :math:`|u| \le 14.6`
    with the defaults (at step 1890, and 8.4 later; Adam has 7.27), and 2.67 with ``b2=0.95``.

    Args:
      b1: decay of the first moment, and the value its momentum rises to, in [0, 1). Default 0.9, as
        in torch; the paper uses 0.99.
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's).
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      eps_root: added inside the root, >= 0. Default 0.
      momentum_decay: :math:`\psi`, how fast the momentum rises, >= 0. Default 4e-3 (the
        paper's 1/250).
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
      >>> tx = gs.moments.scale_by_nadam()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [1.056, -1.056, 0.0]

    Source:
      Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)
    check_number("momentum_decay", momentum_decay, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)
        weight = _Weights.of(first, momentum_decay, count.astype(jnp.float32))

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            return first.mix(mu, g), second.mix(nu, abs_square(g))

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            mu, nu = new
            ahead = weight.of_gradient.astype(g.dtype) * g + weight.of_mu.astype(g.dtype) * mu
            root = jnp.sqrt(second.correct(nu) + jnp.asarray(eps_root, nu.dtype))
            return divide(ahead, root, eps)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_nadam", optax.ScaleByAdamState, slots, at, complex_too=True)


class _Weights(NamedTuple):
    """The weights of the gradient and the first moment at one step, as float32 scalars."""

    of_gradient: jax.Array
    of_mu: jax.Array

    @classmethod
    def of(cls, first: Decay, psi: ArrayLike, t: jax.Array) -> "_Weights":
        """Return the weights at step ``t``."""
        slope = jnp.asarray(psi, jnp.float32) * jnp.float32(math.log(_BASE))

        def momentum(t: jax.Array) -> jax.Array:
            return first.keep * (1.0 - _SHARE * jnp.exp(slope * t))

        def one_minus_product(t: jax.Array) -> jax.Array:
            return -jnp.expm1(t * jnp.log(first.keep) + _log_of_schedule(slope, t))

        return cls(
            of_gradient=(1.0 - momentum(t)) / one_minus_product(t),
            of_mu=momentum(t + 1.0) / one_minus_product(t + 1.0),
        )


def _log_of_schedule(slope: jax.Array, t: jax.Array) -> jax.Array:
    r"""Return the sum of ``log(1 - c q**i)`` over i = 1..t, with ``q = exp(slope)``.

    By the series of the logarithm it is ``-sum_j c**j / j * (q**j + q**2j + ... + q**tj)``, and
    the inner sum is geometric.
    """
    j = jnp.arange(1, _TERMS + 1, dtype=jnp.float32)
    x = slope * j
    flat = x == 0
    ratio = jnp.expm1(t * x) / jnp.where(flat, 1.0, jnp.expm1(x))
    geometric = jnp.where(flat, t, jnp.exp(x) * ratio)
    return -jnp.sum(_SHARE**j / j * geometric)
