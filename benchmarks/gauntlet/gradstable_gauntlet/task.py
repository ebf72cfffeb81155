"""What there is to learn, and the weather that a step of it is taken in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Params = Any
Batch = Any


class Disturbance(NamedTuple):
    """What is wrong with the data of one step; all ones where nothing is.

    Attributes:
      inputs: what the inputs of the batch are multiplied by: may be 1e6, infinite or NaN.
      targets: what its targets are multiplied by.
    """

    inputs: jax.Array  # shape=(), dtype=jnp.float32
    targets: jax.Array  # shape=(), dtype=jnp.float32


class Task(NamedTuple):
    """A model, its data and its loss, as pure functions that ``jit`` and ``vmap`` take.

    Attributes:
      init: from a random key to parameters in float32.
      batch: from a random key to a batch, without any disturbance.
      loss: from parameters, a batch and a disturbance to the loss to be trained on. Where two
        players have losses of their own, their sum, with ``stop_gradient`` between them.
      held_out: from parameters to the loss on what is not trained on, which is what counts in the
        end. Not negative; and with a floor that it cannot fall below (noise in the targets), since
        ratios of losses near zero tell of nothing.
      steps: how many of them a run has.
      about: what it is, in one line.
    """

    init: Callable[[jax.Array], Params]
    batch: Callable[[jax.Array], Batch]
    loss: Callable[[Params, Batch, Disturbance], jax.Array]
    held_out: Callable[[Params], jax.Array]
    steps: int
    about: str
