"""Double backpropagation: a penalty on the gradient of the loss with respect to its inputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.types import Tree
from gradstable._src.losses.per_sample import input_gradients, mean, squared_norms


def input_gradient(
    loss_fn: Callable[[Tree], jax.Array], inputs: Tree, *, weight: ArrayLike
) -> jax.Array:
    r"""Penalize how fast the loss of a sample changes with its input.

    Use it where a small change of the input blows up the loss: noisy sensors, adversarial
    inputs, or a network that is chaotic in its input. It costs a second backward pass. It cannot
    see what a saturated loss hides: at a margin of 20 the gradient of a cross-entropy is 2e-9 of
    the slope of its logits.

    .. math:: \lambda \, \frac1B \sum_b \|\nabla_x L_b(x_b)\|^2

    Args:
      loss_fn: a function from a batch to the loss of each sample, ``[B]`` or ``[B, 1]``, not
        their mean. Pass parameters and labels through a closure. Samples must not interact, as
        for ``wgan_gp``.
      inputs: a batch ``[B, ...]`` of floating-point numbers, an array or a tree of arrays.
      weight: ``lambda``, >= 0, in squared units of the inputs. No default: it depends on them;
        Ross and Doshi-Velez try 0.001 to 1000.

    Returns:
      A float32 scalar (wider for wider inputs), to add to the mean loss.

    Raises:
      TypeError: if inputs are not floating-point.
      ValueError: if ``weight`` is out of range, or ``loss_fn`` does not return one loss per sample.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> x = jnp.array([[1.0], [2.0]])
      >>> gs.losses.input_gradient(lambda x: x[:, 0] ** 2, x, weight=0.1).item()
      1.0

    Source:
      Drucker, LeCun, "Improving Generalization Performance using Double Backpropagation",
      1992; the weight as in Ross, Doshi-Velez, 2017, arXiv:1711.09404.
    """
    check_number("weight", weight, at_least=0.0)
    slopes = squared_norms(input_gradients("loss_fn", loss_fn, inputs))
    return jnp.asarray(weight, slopes.dtype) * mean(slopes)
