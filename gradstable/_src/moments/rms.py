"""The second moment only: gradients divided by their running root mean square."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import abs_square
from gradstable._src.core.shown import shown
from gradstable._src.moments.adam import divide, over_root
from gradstable._src.moments.decay import Decay, check_decays
from gradstable._src.moments.engine import LeafRule, Slot, moments


class ScaleByRmsCountState(NamedTuple):
    """State of ``scale_by_rms`` with ``bias_correction``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    nu: Any  # like the parameters, float32 or nu_dtype


class ScaleByCenteredRmsCountState(NamedTuple):
    """State of ``scale_by_rms`` with ``bias_correction`` and ``centered``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, update calls
    mu: Any  # like the parameters, float32 or nu_dtype
    nu: Any  # like the parameters, float32 or nu_dtype


# By (centered, bias_correction).
_STATES: dict[tuple[bool, bool], type[Any]] = {
    (False, False): optax.ScaleByRmsState,
    (False, True): ScaleByRmsCountState,
    (True, False): optax.ScaleByRStdDevState,
    (True, True): ScaleByCenteredRmsCountState,
}


@shown
def scale_by_rms(
    *,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    centered: bool = False,
    nu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide gradients by the root of their running mean square (RMSprop).

    Use it like ``optax.scale_by_rms`` (``optax.scale_by_stddev`` with ``centered``); except with
    ``bias_correction``, the states are the same. It computes in float32, so ``eps`` does not vanish
    in float16. An entry that is not finite, or above ``2**62``, leaves its statistics as they are
    and does not move.

    .. math::
      \nu \leftarrow d\, \nu + (1 - d)\, g^2, \qquad u = g / \sqrt{\nu + \epsilon}

    Whatever the gradients, :math:`|u| \le 1 / \sqrt{1 - d}`: 3.16 with ``decay=0.9``, which is the
    size of the first step unless ``bias_correction`` is on. Inside the root, the default ``eps``
    acts as a floor of 1e-4 on gradients: one of 1e-5 makes steps of 0.1, where 1 is intended.

    With ``centered``, :math:`\nu - \mu^2` replaces :math:`\nu`. The only bound on a step is then
    :math:`|g| / \sqrt\epsilon`: a constant gradient has no variance, and depending on rounding, a
    gradient of 1 makes steps of one or two thousand after 200 steps. Where rounding makes the
    difference negative (NaN in optax), it is zero here. In this mode ``bias_correction`` corrects
    only :math:`\nu`. One gradient has no variance, so with both corrected, as in optax, the first
    step would be :math:`|g| / \sqrt\epsilon`, 10,000 for a gradient of 1. With :math:`\mu`
    uncorrected, it is 1.005.

    Args:
      decay: :math:`d`, in [0, 1). Default 0.9, as in the lecture; torch uses 0.99.
      eps: added to the mean square, in units of the gradient squared, or to its root, >= 0.
        Default 1e-8, as in optax.
      initial_scale: where :math:`\nu` starts, >= 0. Default 0; TensorFlow uses 1.
      eps_in_sqrt: whether ``eps`` is added inside the root. Default ``True``, as in optax; torch
        adds it outside.
      bias_correction: whether to divide the mean square by :math:`1 - d^t`, as Adam does. Default
        ``False``, as published; the first steps are then too large.
      centered: whether to divide by the standard deviation instead. Default ``False``.
      nu_dtype: dtype in which the averages are stored. Default float32 (wider for wider
        parameters).

    Returns:
      A ``GradientTransformationExtraArgs``; updates have the structure and the dtypes of the
      gradients, the state is ``optax.ScaleByRmsState(nu)``, or
      ``optax.ScaleByRStdDevState(mu, nu)`` with ``centered``; ``bias_correction`` adds a
      ``count`` to it.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.moments.scale_by_rms(bias_correction=True)
      >>> g = jnp.array([2.0, -0.5, 0.0])
      >>> tx.update(g, tx.init(g))[0].tolist()
      [1.0, -1.0, 0.0]

    Source:
      Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; centered as in Graves,
      "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850.
    """
    check_decays(decay=decay)
    check_number("eps", eps, at_least=0.0)
    check_number("initial_scale", initial_scale, at_least=0.0)

    def at(count: jax.Array) -> LeafRule:
        average = Decay.of(decay, count)

        def learn(g: jax.Array, *old: jax.Array) -> tuple[jax.Array, ...]:
            nu = average.mix(old[-1], abs_square(g))
            return (average.mix(old[0], g), nu) if centered else (nu,)

        def direct(g: jax.Array, new: tuple[jax.Array, ...], _: object) -> jax.Array:
            square = average.correct(new[-1]) if bias_correction else new[-1]
            if centered:
                # The mean stays uncorrected; otherwise one gradient would have no variance at all.
                square = jnp.maximum(square - abs_square(new[0]), jnp.zeros_like(square))
            if eps_in_sqrt:
                return over_root(g, square, eps)
            return divide(g, jnp.sqrt(square), eps)

        return LeafRule(learn, direct)

    nu = Slot("nu", nu_dtype, squared=True, start=initial_scale)
    slots = (Slot("mu", nu_dtype), nu) if centered else (nu,)
    state = _STATES[centered, bias_correction]
    return moments("scale_by_rms", state, slots, at, complex_too=True)
