"""What a tap keeps: its name, its slots, and the type of what it leaves."""

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gradstable._src.taps.sums import WIDTH

# The last axis of attention logits but two is that of the heads: ``(..., heads, q, k)``.
HEADS = -3


class TapSums(NamedTuple):
    """What a tap has left: sums, to be read with ``gs.taps.read``.

    Attributes:
      forward: of the values, float32 ``[100]``, or ``[layers, 100]``.
      gradient: of the gradient with respect to them, the same.
    """

    forward: jax.Array
    gradient: jax.Array


class HeadSums(NamedTuple):
    """What a tap of attention logits has left; the axis before the last is that of the heads.

    Attributes:
      forward: of the logits, float32 ``[heads, 100]``, or ``[layers, heads, 100]``.
      gradient: of the gradient with respect to them, the same.
    """

    forward: jax.Array
    gradient: jax.Array


Sums: TypeAlias = TapSums | HeadSums


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is known about a tap before it runs.

    Attributes:
      name: its name.
      layers: how many layers have a slot each; ``None``: no axis of layers.
      heads: how many heads have a slot each; ``None``: it does not tap attention logits.
      saturated_at: from which absolute value on an entry is saturated.
    """

    name: str
    layers: int | None
    heads: int | None
    saturated_at: float

    @property
    def slots(self) -> tuple[int, ...]:
        """The shape of what it leaves, without the columns."""
        return tuple(size for size in (self.layers, self.heads) if size is not None)

    def zeros(self) -> Sums:
        """Return what a tap leaves that does not run."""
        kind = TapSums if self.heads is None else HeadSums
        return kind(*(jnp.zeros((*self.slots, WIDTH), jnp.float32) for _ in kind._fields))

    def differs_in(self, other: "Spec") -> str:
        """Return the first argument in which two taps of one name differ; empty if in none."""
        names = ("layers", "heads", "saturated_at")
        return next((one for one in names if getattr(self, one) != getattr(other, one)), "")


def labels_of(name: str, sums: Any) -> list[str]:
    """Return the name of each slot: that of the tap, the layer, and the head."""
    slots, is_heads = sums.forward.shape[:-1], isinstance(sums, HeadSums)
    layers = [f"/{layer}" for layer in range(slots[0])] if len(slots) > is_heads else [""]
    heads = [f"/head_{head}" for head in range(slots[-1])] if is_heads else [""]
    return [f"{name}{layer}{head}" for layer in layers for head in heads]
