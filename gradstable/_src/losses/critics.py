"""Gradient penalties on a critic: WGAN-GP, R1 and R2."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import wide
from gradstable._src.core.tree_checks import check_floating, check_same_tree, leaves_by_path
from gradstable._src.core.types import Tree
from gradstable._src.losses.per_sample import (
    input_gradients,
    mean,
    norms,
    num_samples,
    squared_norms,
)


def wgan_gp(
    critic: Callable[[Tree], jax.Array],
    real: Tree,
    *,
    fake: Tree,
    key: jax.Array,
    weight: ArrayLike = 10.0,
    center: ArrayLike = 1.0,
    one_sided: bool = False,
) -> jax.Array:
    r"""Penalize a critic whose slope between real and fake samples is not 1.

    Use it for a Wasserstein critic, which must be 1-Lipschitz: without it the critic's
    gradients, and with them those of the generator, grow without bound. It costs a second
    backward pass. The penalty only sees the slope at one random point of each line. Where the
    slope is exactly zero, the penalty is ``weight`` but has no gradient.

    .. math::
      \lambda \, \frac1B \sum_b (\|\nabla_x D(\hat x_b)\| - c)^2, \qquad
      \hat x_b = u_b x_b + (1 - u_b) \tilde x_b, \quad u_b \sim U[0, 1]

    Samples must not interact in the critic: with BatchNorm the gradient of a sample includes its
    effect on the others, so use LayerNorm, as the paper does. The norm is scaled so that it
    cannot overflow, and its gradient at zero is 0 (that of a plain ``jnp.linalg.norm`` is NaN).
    The critic must be twice differentiable; a ReLU is, away from its kink.

    Args:
      critic: a function from a batch to one score per sample, ``[B]`` or ``[B, 1]``. Pass its
        parameters through a closure, and differentiate the result with respect to them.
      real: a batch ``[B, ...]`` of floating-point numbers, an array or a tree of arrays.
      fake: a batch of the same structure and shapes.
      key: a key of ``jax.random``, a different one in each step.
      weight: the factor of the penalty, dimensionless, >= 0. Default 10 (the paper's).
      center: the target slope ``c``, >= 0. Default 1 (the paper's); 0 penalizes any slope.
      one_sided: whether to only penalize slopes above ``center``. Default ``False`` (the paper's).

    Returns:
      A float32 scalar (wider for wider samples), to add to the loss of the critic.

    Raises:
      TypeError: if inputs are not floating-point.
      ValueError: if a number is out of range, shapes differ, or there is not one score per sample.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def penalty(w):
      ...     batch = {"real": jnp.ones((4, 2)), "fake": jnp.zeros((4, 2))}
      ...     return gs.losses.wgan_gp(lambda x: x @ w, **batch, key=jax.random.key(0))
      >>> penalty(jnp.array([3.0, 4.0])).item()
      160.0
      >>> jax.grad(penalty)(jnp.zeros(2)).tolist()
      [0.0, 0.0]

    Source:
      Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, arXiv:1704.00028.
    """
    _check_weight(weight)
    check_number("center", center, at_least=0.0)
    check_floating("real", real)
    check_floating("fake", fake)
    check_same_tree("fake", leaves_by_path(fake), "real", leaves_by_path(real))
    # Always in float32: the same points for the same key, whatever the dtype of the samples.
    share = jax.random.uniform(key, (num_samples(real),), jnp.float32)

    def between(one: jax.Array, other: jax.Array) -> jax.Array:
        one, other = jnp.asarray(one), jnp.asarray(other)
        dtype = wide(one.dtype)
        part = share.astype(dtype).reshape(-1, *(1 for _ in one.shape[1:]))
        mixed = part * one.astype(dtype) + (1 - part) * other.astype(dtype)
        return mixed.astype(one.dtype)

    slopes = norms(input_gradients("critic", critic, jax.tree.map(between, real, fake)))
    excess = slopes - jnp.asarray(center, slopes.dtype)
    if one_sided:
        excess = jnp.maximum(excess, 0.0)
    return jnp.asarray(weight, slopes.dtype) * mean(excess * excess)


def r1(critic: Callable[[Tree], jax.Array], real: Tree, *, weight: ArrayLike = 10.0) -> jax.Array:
    r"""Penalize the slope of a critic at the real samples.

    Use it for a GAN with any loss: it makes training converge near equilibrium, where WGAN-GP
    does not. It only sees the slope at the samples: a critic that is steep between them is not
    penalized. It costs a second backward pass, so some apply it every 16th step, with 16 times
    the weight.

    .. math:: \frac\gamma2 \, \frac1B \sum_b \|\nabla_x D(x_b)\|^2

    Args:
      critic: as for ``wgan_gp``; samples must not interact.
      real: a batch ``[B, ...]`` of floating-point numbers, an array or a tree of arrays.
      weight: ``gamma``, >= 0, in squared units of the samples. Default 10 (the paper's).

    Returns:
      A float32 scalar (wider for wider samples), to add to the loss of the critic.

    Raises:
      TypeError: if inputs are not floating-point.
      ValueError: if ``weight`` is out of range, or there is not one score per sample.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.r1(lambda x: x @ jnp.array([3.0, 4.0]), jnp.ones((8, 2))).item()
      125.0

    Source:
      Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018,
      arXiv:1801.04406; every 16th step: Karras et al., 2019, arXiv:1912.04958.
    """
    return _half_squared_slope(critic, real, weight)


def r2(critic: Callable[[Tree], jax.Array], fake: Tree, *, weight: ArrayLike = 10.0) -> jax.Array:
    r"""Penalize the slope of a critic at the fake samples.

    Use it like ``r1``, alone or along with it. The samples of a generator that is still bad are
    far from the data, so on its own it says little about the slope where the data are.

    .. math:: \frac\gamma2 \, \frac1B \sum_b \|\nabla_x D(\tilde x_b)\|^2

    Args:
      critic: as for ``wgan_gp``; samples must not interact.
      fake: a batch ``[B, ...]`` of floating-point numbers, an array or a tree of arrays. For
        the loss of the critic, apply ``jax.lax.stop_gradient`` to it.
      weight: ``gamma``, >= 0, in squared units of the samples. Default 10 (the paper's).

    Returns:
      A float32 scalar (wider for wider samples), to add to the loss of the critic.

    Raises:
      TypeError: if inputs are not floating-point.
      ValueError: if ``weight`` is out of range, or there is not one score per sample.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.losses.r2(lambda x: x @ jnp.array([3.0, 4.0]), jnp.ones((8, 2))).item()
      125.0

    Source:
      Mescheder, Geiger, Nowozin, 2018, arXiv:1801.04406.
    """
    return _half_squared_slope(critic, fake, weight)


def _half_squared_slope(
    critic: Callable[[Tree], jax.Array], inputs: Tree, weight: ArrayLike
) -> jax.Array:
    _check_weight(weight)
    slopes = squared_norms(input_gradients("critic", critic, inputs))
    return jnp.asarray(weight, slopes.dtype) * 0.5 * mean(slopes)


def _check_weight(weight: ArrayLike) -> None:
    check_number("weight", weight, at_least=0.0)
