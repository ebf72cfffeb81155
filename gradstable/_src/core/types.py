"""The few numbers that flow between measure, decide and act.

Everything here is a ``NamedTuple`` of arrays: a valid pytree whose structure never changes, so
it works in ``jit``, ``scan``, ``cond`` and checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from gradstable._src.core.numerics import largest_norm_in, statistic, unlimited

# A tree that is returned as the same type: for the type checker a dict of arrays stays one.
Tree = TypeVar("Tree")

# Bools like the parameters or a prefix of them, or a function that returns such a tree. The
# function receives the user's parameters, whatever their type.
Mask: TypeAlias = optax.Params | Callable[[Any], optax.Params] | None

# One factor for the whole tree, float32 [L] with one per leaf, or a tuple of L arrays, each of
# which broadcasts against its leaf: one factor per unit.
Scale: TypeAlias = jax.Array | tuple[jax.Array, ...]


class UnitNorms(NamedTuple):
    """The L2 norm of every unit of every leaf, for one notion of units.

    Attributes:
      updates: tuple of ``L`` float32 arrays, the norms of the units of each gradient leaf. A
        leaf has the number of dimensions of its gradient, with size 1 along those that lie
        within a unit: it broadcasts against the gradient.
      params: the same for the parameters; ``None`` if the rule did not ask for them.
      sizes: tuple of ``L`` ints, the number of entries in one unit of each leaf.
    """

    updates: tuple[jax.Array, ...]
    params: tuple[jax.Array, ...] | None
    sizes: tuple[int, ...]


class Measure(NamedTuple):
    """The result of one pass over the gradients: all that a rule ever sees of them.

    Attributes:
      norm: float32 scalar, the global L2 norm. Overflow-safe: ``inf`` only if the norm
        itself exceeds float32 or an entry is infinite, ``nan`` only if an entry is NaN.
      leaf_norms: float32 ``[L]``, the L2 norm of each of the ``L`` leaves in tree order.
      nonfinite: bool ``[L]``, whether a leaf has NaN or infinite entries.
      leaf_sizes: float32 ``[L]``, the number of entries of each leaf.
      units: one ``UnitNorms`` for each request in ``Rule.needs``, in their order.
      leaf_keys: int32 ``[L]``, a number for the path of each leaf, by which readers can name it;
        ``None`` if there are no paths.
      limits: the largest norm of each leaf whose square its moments can hold, ``[L]``, if some
        leaves are float64. Default ``None``: ``2**60``, the limit of float32, for all.

    All norms are float64 if any leaf is.
    """

    norm: jax.Array
    leaf_norms: jax.Array
    nonfinite: jax.Array
    leaf_sizes: jax.Array
    units: tuple[UnitNorms, ...] = ()
    leaf_keys: np.ndarray | jax.Array | None = None
    limits: jax.Array | None = None

    @classmethod
    def of(
        cls, leaf_norms: ArrayLike | Sequence[ArrayLike], leaf_sizes: ArrayLike = 1.0
    ) -> "Measure":
        """Return the measure of leaves with these norms, for trying a rule on scalars."""
        norms = jnp.atleast_1d(statistic(jnp.asarray(leaf_norms)))
        sizes = jnp.broadcast_to(jnp.asarray(leaf_sizes, norms.dtype), norms.shape)
        norm = norms[0] if norms.shape == (1,) else jnp.linalg.norm(norms)
        limits = None
        if norms.dtype == jnp.float64:
            limits = jnp.full_like(norms, largest_norm_in(norms.dtype))
        return cls(norm, norms, ~jnp.isfinite(norms), sizes, limits=limits)

    @property
    def finite(self) -> jax.Array:
        """Whether every entry of every leaf is finite (bool scalar)."""
        return ~jnp.any(self.nonfinite)

    @property
    def worst_leaf(self) -> jax.Array:
        """Index of the first non-finite leaf, else that with the largest norm, or -1 if empty."""
        if not self.leaf_norms.shape[0]:
            return jnp.asarray(-1, jnp.int32)
        worst = jnp.where(self.finite, jnp.argmax(self.leaf_norms), jnp.argmax(self.nonfinite))
        return worst.astype(jnp.int32)

    @property
    def worst_key(self) -> jax.Array:
        """The number of the path of that leaf; 0 if there is none."""
        if self.leaf_keys is None or not self.leaf_norms.shape[0]:
            return jnp.zeros((), jnp.int32)
        return jnp.asarray(self.leaf_keys, jnp.int32)[self.worst_leaf]


class Verdict(NamedTuple):
    """The decision of a rule about one step.

    Attributes:
      accept: bool scalar. ``False`` discards the whole step.
      scale: the positive factor by which an accepted gradient is multiplied: a float32 scalar,
        float32 ``[L]`` (one per leaf), or a tuple of ``L`` arrays (one per unit, each broadcasting
        against its leaf). Usually in ``(0, 1]``.
      reason: int32 scalar, the code of what happened (0: nothing), see ``gs.rules.Reason``.
      threshold: float32 scalar, the gradient norm above which this rule acts (``inf``: none).
    """

    accept: jax.Array
    scale: Scale
    reason: jax.Array
    threshold: jax.Array

    @classmethod
    def of(
        cls,
        accept: ArrayLike = True,
        scale: ArrayLike | tuple[ArrayLike, ...] = 1.0,
        reason: ArrayLike = 0,
        threshold: ArrayLike = float("inf"),
    ) -> "Verdict":
        """Return a verdict with the right dtypes; the defaults leave the step alone."""
        factors = tuple(map(statistic, scale)) if isinstance(scale, tuple) else statistic(scale)
        return cls(
            accept=jnp.asarray(accept, jnp.bool_),
            scale=factors,
            reason=jnp.asarray(reason, jnp.int32),
            threshold=statistic(_limit(threshold)),
        )

    @property
    def least_scale(self) -> jax.Array:
        """The smallest factor of any part (float32 scalar); 0 if rejected."""
        least = _reduce(lambda part: jnp.min(part, initial=unlimited()), jnp.min, self.scale)
        return jnp.where(self.accept, jnp.where(least < unlimited(), least, 1.0), 0.0)

    @property
    def clipped(self) -> jax.Array:
        """Whether the step is accepted, but scaled (bool scalar)."""
        return self.accept & _reduce(lambda part: jnp.any(part != 1.0), jnp.any, self.scale)


def _limit(threshold: ArrayLike) -> ArrayLike:
    none = isinstance(threshold, float) and threshold == float("inf")
    return unlimited() if none else threshold


def _reduce(
    each: Callable[[jax.Array], jax.Array], total: Callable[[jax.Array], jax.Array], scale: Scale
) -> jax.Array:
    if not isinstance(scale, tuple):
        return each(scale)
    # Part by part: joining the parts would move them between devices.
    return total(jnp.stack([each(part) for part in scale])) if scale else each(jnp.ones(()))


class Health(NamedTuple):
    """Fixed-structure numbers that say how the run is doing; read with ``gs.health``.

    Attributes:
      count: int32, update calls so far. They include those in which a ``gs.rollback`` around it
        only returned to a copy, which are neither accepted nor rejected.
      accepted: int32, steps that reached the inner optimizer, including clipped ones.
      rejected: int32, steps that changed nothing.
      clipped: int32, accepted steps whose gradient was scaled down.
      consecutive_rejected: int32, rejected steps in a row up to now.
      grad_norm: float32, raw norm of the last gradient (for reporting: can be ``inf`` or ``nan``).
      threshold: float32, the norm above which a rule would have acted at the last step.
      scale: float32, factor applied to the last gradient: the smallest one if leaves or units have
        their own (0: rejected).
      reason: int32, code of the last verdict.
      worst_leaf: int32, index of the first non-finite leaf, else of the one with the largest
        norm, among the gradients that the guard saw (-1: an empty tree, or no step yet).
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
