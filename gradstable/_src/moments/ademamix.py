"""AdEMAMix: Adam with a second, much slower momentum."""

import math
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


class ScaleByAdemamixState(NamedTuple):
    """State of ``scale_by_ademamix``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like params, float32 or mu_dtype, fast average of gradients
    mu_slow: Any  # like params, float32 or mu_dtype, slow average of gradients
    nu: Any  # like params, float32 or nu_dtype, average of their squares


@shown
def scale_by_ademamix(
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 6.0,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale gradients by AdEMAMix's rule: a fast and a slow momentum over Adam's root.

    Use it for runs of tens of thousands of steps on steady data, behind a guard. Avoid it where the
    data shift: what enters the slow momentum stays for 1 / (1 - b3) = 10000 steps.

    .. math::
      \mu &\leftarrow b_1 \mu + (1 - b_1) g, \qquad
      \mu_s \leftarrow b_3 \mu_s + (1 - b_3) g, \qquad
      \nu \leftarrow b_2 \nu + (1 - b_2) g^2 \\
      u &= \frac{\mu / (1 - b_1^t) + \alpha \mu_s}
                {\sqrt{\nu / (1 - b_2^t) + \epsilon_{root}} + \epsilon}

    The slow momentum is not bias-corrected, so it fills slowly. The paper warms up two numbers:
    ``alpha`` linearly (``optax.linear_schedule(0.0, 5.0, steps)``), ``b3`` linearly in its
    half-life (``gs.moments.half_life_schedule(0.9, end_value=0.9999, transition_steps=steps)``).

    The step has no bound: the fast momentum has Adam's (7.27), but the slow one outlives ``nu``
    (``b3**2 > b2``). If the gradient of a weight goes to zero for good, its steps *grow*: after
    1000 gradients of 1, steps have a size of 4.4 (``alpha=5``) 5000 steps later, and 33 after
    10000. A spike of 1000 times the usual size among noise also comes back once ``nu`` has
    forgotten it: 10000 steps later it still moves its weight by 0.18 in every step, as much as the
    noise does.

    Args:
      b1: decay of the fast momentum, in [0, 1). Default 0.9 (the paper's).
      b2: decay of the second moment, in [0, 1). Default 0.999 (the paper's).
      b3: decay of the slow momentum, in [0, 1), or a schedule for it, called with the step number
        (the first is 1, as in the authors' code). Default 0.9999 (the paper's).
      alpha: weight of the slow momentum, >= 0, or a schedule. Default 6, as in
        ``optax.contrib.scale_by_ademamix``. The optimizers use 5: ``optax.contrib.ademamix``,
        ``gs.recipes.ademamix`` and the authors' JAX code. The paper tries 4 to 10.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8 (the paper's).
      eps_root: added inside the root, >= 0. Default 0.
      mu_dtype: dtype in which both momenta are stored. Default float32 (wider for wider
        parameters); bfloat16 stalls the slow one.
      nu_dtype: the same for ``nu``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ScaleByAdemamixState``; updates have the
      structure and the dtypes of the gradients. An entry that is not finite, or above
      ``2**62``, leaves its statistics as they are.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> b3 = gs.moments.half_life_schedule(0.9, transition_steps=1000)
      >>> tx = gs.moments.scale_by_ademamix(b3=b3)
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> [round(x, 2) for x in tx.update(g, tx.init(g))[0].tolist()]
      [1.3, -1.3, 0.0]

    Source:
      Pagliardini, Ablin, Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
      arXiv:2409.03137, and the authors' code.
    """
    check_decays(b1=b1, b2=b2)
    if not callable(b3):
        check_decays(b3=b3)
    if not callable(alpha):
        check_number("alpha", alpha, at_least=0.0)
    check_number("eps", eps, at_least=0.0)
    check_number("eps_root", eps_root, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        first, second = Decay.of(b1, count), Decay.of(b2, count)
        slow = Decay.of(b3(count) if callable(b3) else b3, count)
        weight = jnp.asarray(alpha(count) if callable(alpha) else alpha, jnp.float32)

        def learn(
            g: jax.Array, mu: jax.Array, mu_slow: jax.Array, nu: jax.Array
        ) -> tuple[jax.Array, ...]:
            return first.mix(mu, g), slow.mix(mu_slow, g), second.mix(nu, g * g)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            mu, mu_slow, nu = new
            momentum = first.correct(mu) + weight.astype(mu.dtype) * mu_slow
            root = jnp.sqrt(second.correct(nu) + jnp.asarray(eps_root, nu.dtype))
            return divide(momentum, root, eps)

        return LeafRule(learn, direct)

    slots = (Slot("mu", mu_dtype), Slot("mu_slow", mu_dtype), Slot("nu", nu_dtype, squared=True))
    return moments("scale_by_ademamix", ScaleByAdemamixState, slots, at)


def half_life_schedule(
    init_value: float, *, end_value: float = 0.9999, transition_steps: int
) -> optax.Schedule:
    r"""Raise a decay rate so that its half-life grows linearly.

    Use it for ``b3`` of ``gs.moments.scale_by_ademamix``, from ``b1`` to the final value. A
    schedule that is linear in the rate itself would spend nearly all its time on short memories.

    .. math::
      b(t) = \exp \frac{1}{(1 - s) / \ln b_0 + s / \ln b_T}, \qquad s = \min(t / T, 1)

    Args:
      init_value: the rate at step 0, in [0, 1). No default: the ``b1`` of the optimizer.
      end_value: the rate from step ``transition_steps`` on, in [0, 1). Default 0.9999 (the
        paper's).
      transition_steps: :math:`T`, in steps, >= 1. No default: the paper uses the whole run.

    Returns:
      A function from step number to a float32 rate.

    Raises:
      ValueError: if a number is out of its range.

    Example:
      >>> import gradstable as gs
      >>> b3 = gs.moments.half_life_schedule(0.9, transition_steps=1000)
      >>> [round(float(b3(step)), 4) for step in (0, 500, 1000, 2000)]
      [0.9, 0.9998, 0.9999, 0.9999]

    Source:
      Pagliardini, Ablin, Grangier, 2024, arXiv:2409.03137, appendix A.1.
    """
    check_decays(init_value=init_value, end_value=end_value)
    check_number("transition_steps", transition_steps, at_least=1)
    # Half-lives, in units of ln(1/2); a rate of zero has none.
    first, last = (1.0 / math.log(rate) if rate else 0.0 for rate in (init_value, end_value))

    def schedule(step: ArrayLike) -> jax.Array:
        share = jnp.asarray(step, jnp.float32) / jnp.float32(transition_steps)
        share = jnp.clip(share, 0.0, 1.0)
        half_life = (1.0 - share) * first + share * last
        return jnp.where(half_life < 0, jnp.exp(1.0 / half_life), 0.0)

    return schedule
