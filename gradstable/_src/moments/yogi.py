"""Yogi: Adam whose second moment changes by the new square, not by its own size."""

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
def scale_by_yogi(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-3,
    eps_root: ArrayLike = 0.0,
    initial_accumulator_value: ArrayLike = 1e-6,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by Yogi, whose second moment falls slowly.

    Use it like ``optax.scale_by_yogi``, with the same state (``optax.ScaleByAdamState``), where
    Adam forgets the size of rare gradients too soon. It computes in float32. The first moment
    starts at 0, as in the paper and the authors' code; optax starts it at
    ``initial_accumulator_value`` too, and so moves a parameter that has no gradient. An entry that
    is not finite, or above ``2**62``, leaves its moments as they are, and its update comes from
    those moments alone.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \nu \leftarrow \nu - (1 - b_2)\, \mathrm{sign}(\nu - g^2)\, g^2 \\
      u &= \frac{\mu / (1 - b_1^t)}{\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon}

    Whatever the gradients, :math:`|u| \le (1 - b_1) / \sqrt{1 - b_2} / (1 - b_1 / \sqrt{b_2})`
    for ``b1**2 < b2`` and ``b2 >= 0.5``, since :math:`\nu \ge b_2^k (1 - b_2) g_{t-k}^2`: 31.8
    with the defaults. A slowly falling moment stays large: 3000 steps after a spike of 1000, a
    gradient of 1 makes steps of 0.031, where Adam's are 0.14.

    Args:
      b1: decay of the first moment, in [0, 1). Default 0.9 (the paper's).
      b2: :math:`1 - b_2` is the share of :math:`g^2` by which the second moment moves, in
        [0, 1). Default 0.999 (the paper's).
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-3 (the paper's).
      eps_root: added inside the root, >= 0. Default 0.
      initial_accumulator_value: where ``nu`` starts, >= 0. Default 1e-6, as in optax.
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
      >>> tx = gs.moments.scale_by_yogi()
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [0.999, -0.996, 0.0]

    Source:
      Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive Methods for Nonconvex Optimization", 2018.
    """
    check_decays(b1=b1, b2=b2)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)
    check_number("initial_accumulator_value", initial_accumulator_value, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)

        def learn(g: jax.Array, mu: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            square = abs_square(g)
            change = second.take.astype(nu.dtype) * jnp.sign(nu - square) * square
            return first.mix(mu, g), nu - change

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, nu = new
            root = jnp.sqrt(second.correct(nu) + jnp.asarray(eps_root, nu.dtype))
            return divide(first.correct(mu), root, eps)

        return LeafRule(learn, direct)

    nu = Slot("nu", nu_dtype, squared=True, start=initial_accumulator_value)
    slots = (Slot("mu", mu_dtype), nu)
    return moments("scale_by_yogi", optax.ScaleByAdamState, slots, at, complex_too=True)
