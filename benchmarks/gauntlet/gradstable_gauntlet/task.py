"""Tasks to learn, and the disturbance of a single step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Params = Any
Batch = Any


class Disturbance(NamedTuple):
    """What is wrong with the data of one step; all ones if nothing is.

    Attributes:
      inputs: the factor on the inputs of the batch; it can be 1e6, infinite or NaN.
      targets: the factor on its targets.
    """

    inputs: jax.Array  # shape=(), dtype=jnp.float32
    targets: jax.Array  # shape=(), dtype=jnp.float32


class Task(NamedTuple):
    """A model, its data and its loss, as pure functions that work with ``jit`` and ``vmap``.

    Attributes:
      init: function from a random key to parameters in float32.
      batch: function from a random key to a batch, without any disturbance.
      loss: function from parameters, a batch and a disturbance to the training loss. If two players
        have separate losses, it is their sum, with ``stop_gradient`` between them.
      held_out: function from parameters to the loss on held-out data, which is what counts at the
        end. It is not negative, and has a floor (noise in the targets), since ratios of losses near
        zero say nothing.
      steps: the number of steps in a run.
      about: what it is, in one line.
    """

    init: Callable[[jax.Array], Params]
    batch: Callable[[jax.Array], Batch]
    loss: Callable[[Params, Batch, Disturbance], jax.Array]
    held_out: Callable[[Params], jax.Array]
    steps: int
    about: str
