"""First moments only: the moving average of the gradients, and momentum."""

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.shown import shown
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


@shown
def ema(
    decay: ArrayLike, *, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replace gradients with their exponential moving average.

    Use it like ``optax.ema``, with the same state (``optax.EmaState``), to smooth gradients before
    a transform that has no momentum. The average is kept in float32, and an entry that is not
    finite, or above ``2**62``, leaves it as it is.

    .. math::
      m \leftarrow d\, m + (1 - d)\, g, \qquad u = m / (1 - d^t)

    A step is bounded only by the largest gradient so far: :math:`|u| \le \max |g|`. A spike of 1000
    among gradients of 1 outweighs them for 44 steps with ``decay=0.9``.

    Args:
      decay: :math:`d`, in [0, 1). No default: about ``1 / (1 - d)`` gradients are averaged.
      debias: whether to divide by :math:`1 - d^t`, so that the first steps are not too short.
        Default ``True``, as in optax.
      accumulator_dtype: dtype in which the average is stored. Default float32 (wider for wider
        parameters); optax takes that of the parameters.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.EmaState(count, ema)``.

    Raises:
      ValueError: if ``decay`` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.ema(0.5)
      >>> g = jnp.array([2.0, -4.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> tx.update(jnp.zeros(2), state)[0].round(2).tolist()
      [0.67, -1.33]

    Source:
      As ``optax.ema``; the correction is that of Kingma, Ba, 2014, arXiv:1412.6980.
    """
    check_decays(decay=decay)

    def at(count: jax.Array) -> LeafRule:
        first = Decay.of(decay, count)

        def learn(g: jax.Array, average: jax.Array) -> tuple[jax.Array]:
            return (first.mix(average, g),)

        def direct(_: jax.Array, new: tuple[jax.Array, ...], __: object) -> jax.Array:
            return first.correct(new[0]) if debias else new[0]

        return LeafRule(learn, direct)

    slots = (Slot("ema", accumulator_dtype),)
    return moments("ema", optax.EmaState, slots, at, complex_too=True)


@shown
def trace(
    decay: ArrayLike, *, nesterov: bool = False, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Add up gradients with a decay: momentum, by the heavy ball or by Nesterov.

    Use it like ``optax.trace``; the state is the same (``optax.TraceState``). The sum is kept in
    float32 (in bfloat16 it would lose anything 256 times smaller), and values that float16 cannot
    hold become its largest number. An entry that is not finite, or above ``2**62``, leaves the sum
    as it is.

    .. math::
      m \leftarrow d\, m + g, \qquad
      u = \begin{cases} m & \text{heavy ball} \\ g + d\, m & \text{Nesterov} \end{cases}

    A step has no bound: it is proportional to the gradient, and a spike of size ``S`` moves a
    parameter by ``S / (1 - d)`` in total, 10 times its size with ``decay=0.9``. Clip before it.

    Args:
      decay: :math:`d`, in [0, 1). No default; 0.9 is usual.
      nesterov: whether the sum looks one step ahead. Default ``False``.
      accumulator_dtype: dtype in which the sum is stored. Default float32 (wider for wider
        parameters); optax takes that of the parameters.

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.TraceState(trace)``.

    Raises:
      ValueError: if ``decay`` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.trace(0.5, nesterov=True)
      >>> g = jnp.array([2.0, -4.0])
      >>> tx.update(g, tx.init(g))[0].tolist()
      [3.0, -6.0]

    Source:
      Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
      Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in
      deep learning", 2013, for the form of Nesterov's method.
    """
    check_decays(decay=decay)

    def at(count: jax.Array) -> LeafRule:
        keep = Decay.of(decay, count).keep

        def add(g: jax.Array, total: jax.Array) -> jax.Array:
            return g + keep.astype(total.dtype) * total

        def learn(g: jax.Array, total: jax.Array) -> tuple[jax.Array]:
            return (add(g, total),)

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            return add(g, new[0]) if nesterov else new[0]

        return LeafRule(learn, direct)

    slots = (Slot("trace", accumulator_dtype),)
    return moments("trace", optax.TraceState, slots, at, complex_too=True)
