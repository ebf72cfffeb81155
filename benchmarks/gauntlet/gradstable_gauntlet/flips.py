"""Bit flips: faults of the machine, which no batch and no rate explains."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable_gauntlet.storms import Flips, Storm, Weather, calm

GROUP = "flipped bits"
# The share of steps that are struck.
SHARE = 0.02
# The bits of a float32: the sign, the exponent from 30 down to 23, and the mantissa.
_BITS = {
    "sign": 31,
    "exponent, highest": 30,
    "exponent, x 2^16": 27,
    "exponent, x 4": 24,
    "mantissa, highest": 22,
    "mantissa, middle": 11,
}


def flipped(tree: Any, mask: Any, stride: Any, key: jax.Array) -> Any:
    """Return a tree of float32 arrays with bits flipped.

    Args:
      tree: the arrays.
      mask: uint32, the bits to flip; 0: none.
      stride: in every how many-th entry of the tree; 0: in one, drawn at random.
      key: for that.
    """
    leaves, structure = jax.tree.flatten(tree)
    one = jax.random.randint(jax.random.fold_in(key, 1), (), 0, sum(leaf.size for leaf in leaves))
    changed, first = [], 0
    for leaf in leaves:
        place = first + jnp.arange(leaf.size, dtype=jnp.int32).reshape(leaf.shape)
        hit = jnp.where(stride > 0, place % jnp.maximum(stride, 1) == 0, place == one)
        bits = lax.bitcast_convert_type(leaf, jnp.uint32) ^ jnp.where(hit, mask, jnp.uint32(0))
        changed.append(lax.bitcast_convert_type(bits, leaf.dtype))
        first += leaf.size
    return jax.tree.unflatten(structure, changed)


def _strikes(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return which steps are struck, all after the first tenth."""
    first = steps // 10
    number = max(1, round(SHARE * (steps - first)))
    return first + rng.permutation(steps - first)[:number]


def _storm(where: str, about: str, *, bits: int | None, number: int = 1, stride: int = 0) -> Storm:
    """Return a storm that flips one bit, or several that are drawn again for each strike."""

    def make(steps: int, rng: np.random.Generator) -> Weather:
        mask, every = np.zeros(steps, np.uint32), np.zeros(steps, np.int32)
        for step in _strikes(steps, rng):
            chosen = rng.choice(32, number, replace=False) if bits is None else [bits]
            mask[step] = np.bitwise_or.reduce([np.uint32(1) << np.uint32(bit) for bit in chosen])
            every[step] = stride
        none = np.zeros_like(mask)
        flips = Flips(*((mask, none) if where == "gradient" else (none, mask)), every)
        return calm(steps)._replace(flips=flips)

    return Storm(make, GROUP, about)


FLIPS: dict[str, Storm] = {
    **{
        f"{where}: {name}": _storm(where, f"bit {bit} of one entry of the {where}", bits=bit)
        for where in ("gradient", "params")
        for name, bit in _BITS.items()
    },
    **{
        f"{where}: three bits": _storm(
            where, f"three bits of one entry of the {where}, drawn at random", bits=None, number=3
        )
        for where in ("gradient", "params")
    },
    **{
        f"gradient: every 64th, {name}": _storm(
            "gradient", f"bit {bit} of every 64th entry of the gradient", bits=bit, stride=64
        )
        for name, bit in (("exponent, x 2^16", 27), ("exponent, x 4", 24), ("sign", 31))
    },
}
