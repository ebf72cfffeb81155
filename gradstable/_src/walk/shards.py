"""Values inside ``shard_map``: those of all devices, stacked along a new first axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

# How many arrays are put together at once.
_AT_ONCE = 64


class DiffersError(Exception):
    """The devices do not agree on a condition, so that they run different programs."""


class Whole:
    """Values outside of ``shard_map``: they are what they are."""

    def bind(self, eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs of an equation."""
        return _bind(eqn, inputs)

    def lift(self, value: Any, atom: Any) -> Any:
        """Return a constant of the program, which is the value of an atom."""
        del atom
        return value

    def scalar(self, value: Any) -> int:
        """Return a condition, or the number of a branch."""
        return int(value)

    def part(self, whole: Any, number: int) -> Any:
        """Return what a pass of a loop gets of an array."""
        return whole[number]

    def stack(self, parts: Sequence[Any]) -> Any:
        """Return what the passes of a loop have made, in one array."""
        return _stacked(parts, 0)


class Shards(Whole):
    """Values inside of ``shard_map``; each equation runs in one of its own, on the same mesh."""

    def __init__(self, eqn: JaxprEqn) -> None:
        mesh, axes, check_vma = (
            eqn.params[name] for name in ("mesh", "newly_manual_axes", "check_vma")
        )
        self._eqn, self._site = eqn, _Site(mesh, frozenset(axes), check_vma)

    def enter(self, inputs: Sequence[Any]) -> list[Any]:
        """Return what each device gets of the inputs of the ``shard_map``."""
        own = map(self._spec, self._eqn.params["jaxpr"].invars)
        each = zip(inputs, self._eqn.params["in_specs"], own, strict=True)
        return [self._moved(x, before, after, inward=True) for x, before, after in each]

    def leave(self, outputs: Sequence[Any]) -> list[Any]:
        """Return the outputs of the ``shard_map``, of those of each device."""
        own = map(self._spec, self._eqn.params["jaxpr"].outvars)
        each = zip(outputs, own, self._eqn.params["out_specs"], strict=True)
        return [self._moved(x, before, after, inward=False) for x, before, after in each]

    def bind(self, eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs of an equation, on each device."""
        before, after = tuple(map(self._spec, eqn.invars)), tuple(map(self._spec, eqn.outvars))
        return list(_on_each(_Same(eqn), self._site, before, after)(*inputs))

    def lift(self, value: Any, atom: Any) -> Any:
        """Return a constant of the program, as each device has it."""
        array = jnp.asarray(value, atom.aval.dtype)
        devices = math.prod(split_over(self._eqn, atom).values())
        return jnp.broadcast_to(array, (devices, *array.shape))

    def scalar(self, value: Any) -> int:
        """Return a condition, or the number of a branch, on which all devices agree."""
        found = set(np.asarray(value).tolist())
        if len(found) > 1:
            raise DiffersError
        return int(found.pop())

    def part(self, whole: Any, number: int) -> Any:
        """Return what a pass of a loop gets of an array."""
        return whole[:, number]

    def stack(self, parts: Sequence[Any]) -> Any:
        """Return what the passes of a loop have made, in one array."""
        return _stacked(parts, 1)

    def _spec(self, atom: Any) -> PartitionSpec:
        return PartitionSpec(tuple(split_over(self._eqn, atom)) or None)

    def _moved(self, x: Any, before: Any, after: Any, *, inward: bool) -> Any:
        with self._eqn.ctx.manager:
            return _move(self._site, before, after, inward)(x)


def split_over(eqn: JaxprEqn, atom: Any) -> dict[str, int]:
    """Return the axes of the mesh over which a value inside a ``shard_map`` differs, with sizes."""
    among = eqn.params["newly_manual_axes"]
    if eqn.params["check_vma"]:
        # Where JAX knows that devices have the same value, there is one of them.
        of = getattr(atom.aval, "mat", None)
        among = among & (atom.aval.vma if of is None else of.varying)
    return {name: size for name, size in eqn.params["mesh"].shape.items() if name in among}


def aligned(x: Any, like: Any) -> Any:
    """Return one number, or one for each device, with as many axes as an array it goes with."""
    return x.reshape(x.shape + (1,) * (np.ndim(like) - np.ndim(x)))


class _Same:
    """An equation that equals others that compute the same."""

    def __init__(self, eqn: JaxprEqn) -> None:
        self.eqn = eqn
        self._key: Any = (eqn.primitive, frozenset(eqn.params.items()), eqn.ctx)
        try:
            self._hash = hash(self._key)
        except TypeError:
            self._key = id(eqn)
            self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


class _Site(NamedTuple):
    """Where a ``shard_map`` runs."""

    mesh: Any
    axes: frozenset[str]
    check_vma: bool

    def map(self, function: Callable[..., Any], before: Any, after: Any) -> Callable[..., Any]:
        """Return a function of all devices, given that of one."""
        return jax.jit(
            jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=before,
                out_specs=after,
                axis_names=set(self.axes),
                check_vma=self.check_vma,
            )
        )


# An equation compiles once for all passes of a loop.
@functools.lru_cache(maxsize=4096)
def _on_each(
    same: _Same, site: _Site, before: tuple[Any, ...], after: tuple[Any, ...]
) -> Callable[..., Any]:
    def run(*stacked: Any) -> list[Any]:
        return [made[None] for made in _bind(same.eqn, [x[0] for x in stacked])]

    return site.map(run, before, list(after))


@functools.lru_cache(maxsize=512)
def _move(site: _Site, before: Any, after: Any, inward: bool) -> Callable[[Any], Any]:
    return site.map(lambda x: x[None] if inward else x[0], before, after)


def _stacked(parts: Sequence[Any], axis: int) -> Any:
    """Return arrays in one; XLA takes minutes to compile that for thousands at once."""
    join: Callable[..., Any] = jnp.stack
    while True:
        chunks = [parts[at : at + _AT_ONCE] for at in range(0, len(parts), _AT_ONCE)]
        parts = [join(chunk, axis=axis) for chunk in chunks]
        if len(parts) == 1:
            return parts[0]
        join = jnp.concatenate


def _bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(result) if eqn.primitive.multiple_results else [result]
