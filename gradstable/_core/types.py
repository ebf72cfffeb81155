"""The small numbers that flow between measure, decide and act.

Everything here is a ``NamedTuple`` of arrays: a valid pytree whose structure never
changes, so that it survives ``jit``, ``scan``, ``cond`` and checkpoints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Measure(NamedTuple):
    """What one pass over the gradients tells: all that a rule ever sees of them.

    Attributes:
      norm: float32 scalar, the global L2 norm. Overflow-safe: ``inf`` only where the norm
        itself exceeds float32 or an entry is infinite, ``nan`` only where an entry is NaN.
      leaf_norms: float32 ``[L]``, the L2 norm of each of the ``L`` leaves in tree order.
      nonfinite: bool ``[L]``, whether a leaf has NaN or infinite entries.
    """

    norm: jax.Array
    leaf_norms: jax.Array
    nonfinite: jax.Array

    @property
    def finite(self) -> jax.Array:
        """Whether every entry of every leaf is finite (bool scalar)."""
        return ~jnp.any(self.nonfinite)

    @property
    def worst_leaf(self) -> jax.Array:
        """Index of the first non-finite leaf, else of the largest; -1 for an empty tree."""
        if not self.leaf_norms.shape[0]:
            return jnp.asarray(-1, jnp.int32)
        worst = jnp.where(self.finite, jnp.argmax(self.leaf_norms), jnp.argmax(self.nonfinite))
        return worst.astype(jnp.int32)


class Verdict(NamedTuple):
    """What a rule decides about one step.

    Attributes:
      accept: bool scalar. ``False`` discards the whole step.
      scale: float32 scalar in ``(0, 1]`` by which an accepted gradient is multiplied.
      reason: int32 scalar, the code of what happened (0: nothing), see ``gs.rules.reasons``.
      threshold: float32 scalar, the gradient norm above which this rule acts (``inf``: none).
    """

    accept: jax.Array
    scale: jax.Array
    reason: jax.Array
    threshold: jax.Array

    @classmethod
    def of(
        cls,
        accept: ArrayLike = True,
        scale: ArrayLike = 1.0,
        reason: ArrayLike = 0,
        threshold: ArrayLike = float("inf"),
    ) -> "Verdict":
        """Return a verdict with the right dtypes; what is not given leaves the step alone."""
        return cls(
            accept=jnp.asarray(accept, jnp.bool_),
            scale=jnp.asarray(scale, jnp.float32),
            reason=jnp.asarray(reason, jnp.int32),
            threshold=jnp.asarray(threshold, jnp.float32),
        )

    @property
    def clipped(self) -> jax.Array:
        """Whether the step is accepted, but not as it came (bool scalar)."""
        return self.accept & (self.scale != 1.0)


class Health(NamedTuple):
    """Fixed-structure numbers that say how the run is doing; read with ``gs.health``.

    Attributes:
      count: int32, update calls so far.
      accepted: int32, steps that reached the inner optimizer, clipped ones included.
      rejected: int32, steps that changed nothing.
      clipped: int32, accepted steps whose gradient was scaled down.
      consecutive_rejected: int32, rejected steps in a row up to now.
      grad_norm: float32, raw norm of the last gradient (a report: may be ``inf`` or ``nan``).
      threshold: float32, the norm above which a rule acted at the last step.
      scale: float32, factor applied to the last gradient (0: rejected).
      reason: int32, code of the last verdict.
      worst_leaf: int32, index of the leaf that was first to be non-finite, else of the largest
        norm (-1: an empty tree, or no step yet).
      last_rejected: int32, the ``count`` of the last rejected step (-1: never).
    """

    count: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    clipped: jax.Array
    consecutive_rejected: jax.Array
    grad_norm: jax.Array
    threshold: jax.Array
    scale: jax.Array
    reason: jax.Array
    worst_leaf: jax.Array
    last_rejected: jax.Array
