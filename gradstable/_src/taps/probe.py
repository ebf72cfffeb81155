"""How statistics leave a model: as the cotangent of a probe.

Only differentiation carries them. A tap has a second argument, a probe of zeros, and says that the
cotangent of the probe is the statistics. The probe is an ordinary constant to every function in
between, so ``jit``, ``scan``, ``cond``, ``remat``, ``vmap`` and ``shard_map`` handle it.
"""

import dataclasses
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from gradstable._src.core.manual import varying
from gradstable._src.taps.kinds import HEADS, Spec, Sums
from gradstable._src.taps.sums import logits_row_of, row_of


@dataclasses.dataclass(eq=False)
class Probes:
    """What taps find inside of a tapped call; each is a key of its own in the caches of JAX.

    Attributes:
      specs: the taps that were found so far, while they are looked for.
      sums: the probe of each; ``None`` while they are looked for.
      when: whether to measure; ``None`` for always.
      outside: see ``outside_of``.
    """

    specs: dict[str, Spec]
    sums: Mapping[str, Sums] | None
    when: jax.Array | None
    outside: jax.Array | None


# Part of the key under which JAX caches traces: a function that is jitted inside of the loss is
# traced again, with the probes of this call.
active = jax.make_user_context(None)


@contextmanager
def visible(probes: Probes) -> Generator[None]:
    """Let taps find the probes; afterward the caches of JAX hold nothing but an empty key."""
    try:
        with active(probes):
            yield
    finally:
        probes.sums = probes.when = probes.outside = None


class _Call(NamedTuple):
    """Whether a tap measures, in which slot, and in which run."""

    when: jax.Array | None
    layer: jax.Array
    outside: jax.Array


def tapped(spec: Spec, x: jax.Array, probes: Probes, layer: jax.Array | int | None) -> jax.Array:
    """Return ``x``, tied to its probe."""
    assert probes.sums is not None
    assert probes.outside is not None
    place = jnp.asarray(0 if layer is None else layer, jnp.int32)
    call = _Call(probes.when, place, probes.outside)
    return _tapped(spec, jnp.asarray(x), probes.sums[spec.name], call)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tapped(spec: Spec, x: jax.Array, probe: Sums, call: _Call) -> jax.Array:
    del spec, probe, call
    return x


def _forward(spec: Spec, x: jax.Array, probe: Sums, call: _Call) -> tuple[jax.Array, Any]:
    seen = _measure(spec, x, call, logits=spec.heads is not None)
    # A tap again, for whoever differentiates this once more.
    return _tapped(spec, x, probe, call), (seen, call)


def _backward(spec: Spec, residuals: Any, gradient: jax.Array) -> tuple[Any, ...]:
    seen, call = residuals
    kind = type(spec.zeros())
    return gradient, kind(seen, _measure(spec, gradient, call, logits=False)), None


_tapped.defvjp(_forward, _backward)


def _measure(spec: Spec, x: jax.Array, call: _Call, *, logits: bool) -> jax.Array:
    """Return the statistics of one call in its slot; zeros where it does not measure."""
    x = lax.stop_gradient(x)

    def measure(x: jax.Array) -> jax.Array:
        return _collect(spec, x, call, logits=logits)

    def skip(x: jax.Array) -> jax.Array:
        del x
        return spec.zeros().forward

    return measure(x) if call.when is None else lax.cond(call.when, measure, skip, x)


def _collect(spec: Spec, x: jax.Array, call: _Call, *, logits: bool) -> jax.Array:
    """Return the same, where a ``vmap`` inside of the loss is one call."""

    def plain(x: jax.Array, layer: jax.Array, outside: jax.Array) -> jax.Array:
        del outside
        return _slots(spec, x, layer, logits=logits)

    collect = custom_vmap(plain)

    @collect.def_vmap
    def _(size: int, batched: list[bool], *args: jax.Array) -> tuple[jax.Array, bool]:
        _, of_layer, of_outside = batched
        if of_layer or of_outside:
            axes = tuple(0 if one else None for one in batched)
            return jax.vmap(plain, in_axes=axes)(*args), True
        # All examples together, in the place of the first: the others add nothing.
        whole = collect(*args)
        others = jnp.zeros((size - 1, *whole.shape), whole.dtype)
        return jnp.concatenate([whole[None], others]), True

    return collect(x, call.layer, call.outside)


def _slots(spec: Spec, x: jax.Array, layer: jax.Array, *, logits: bool) -> jax.Array:
    """Return the statistics of an array in the slot of its layer, and zeros in the others."""
    # Devices that hold different layers have different slots.
    apart = varying(layer)
    names = varying(x) - apart
    axis = None if spec.heads is None else HEADS
    if logits and axis is not None:
        row = logits_row_of(x, axis=axis, names=names)
    else:
        row = row_of(x, axis=axis, saturated_at=spec.saturated_at, names=names)
    if spec.layers is None:
        return row
    here = (layer == np.arange(spec.layers)).reshape(-1, *(1,) * row.ndim)
    placed = jnp.where(here, row, jnp.zeros_like(row))
    return lax.psum(placed, tuple(sorted(apart))) if apart else placed


@custom_vmap
def _outside_of(arrays: list[jax.Array]) -> jax.Array:
    del arrays
    return jnp.zeros((), jnp.float32)


@_outside_of.def_vmap
def _(size: int, batched: Any, arrays: list[jax.Array]) -> tuple[jax.Array, bool]:
    del batched
    return jnp.broadcast_to(_outside_of(arrays), (size,)), True


def outside_of(arguments: Any) -> jax.Array:
    """Return a zero that each ``vmap`` around a tapped call maps, and none inside of it does.

    A ``vmap`` inside of the loss maps examples, whose statistics belong together; one around it
    maps runs, which have nothing in common. The arguments tell them apart.
    """
    arrays = [leaf for leaf in jax.tree.leaves(arguments) if hasattr(leaf, "dtype")]
    return _outside_of(lax.stop_gradient(arrays))


@custom_vmap
def _check(outside: jax.Array, value: jax.Array) -> jax.Array:
    del value
    return outside


@_check.def_vmap
def _(
    size: int, batched: list[bool], outside: jax.Array, value: jax.Array
) -> tuple[jax.Array, bool]:
    of_outside, of_value = batched
    if of_value and not of_outside:
        msg = (
            "jax.vmap around gradstable.taps.value_and_grad maps something that the loss takes "
            "from its surroundings, so that the taps of its runs cannot be told apart: pass it to "
            "the loss as an argument"
        )
        raise ValueError(msg)
    zero = _check(outside, value)
    return (zero if of_outside else jnp.broadcast_to(zero, (size,))), True


def checked(taps: dict[str, Sums], outside: jax.Array, value: jax.Array) -> dict[str, Sums]:
    """Return the taps; raise in a ``vmap`` around the call that its arguments do not show."""
    nothing = _check(outside, lax.stop_gradient(value))
    return jax.tree.map(lambda sums: sums + nothing, taps)
