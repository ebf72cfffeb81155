"""Which part of a gradient stands out: a micro-batch of a group, or a device of a mesh.

A gradient is a mean of parts, and one that explodes is often that of a few examples. The norms of
the parts, one number each, tell where these are; or that no part is different from the others, and
so that the data are not to blame.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.numerics import SIGMA_PER_MAD, increment

# The keyword of ``update`` that tells a recorder which device stands out.
OUTLYING = "outlying_device"
# How many norms are kept: enough for a median. The largest is found wherever it is.
SLOTS = 64
# A part stands out if its log norm is this many robust standard deviations above the median, the
# limit of the alarms, and its norm this many times the median: a few parts can agree by chance.
_DEVIATIONS, _TIMES = 6.0, 3.0
# With two parts, one cannot tell which of them is the odd one.
FEWEST = 3
# Of a healthy batch, parts differ by this much or more, unless they are the same.
_LEAST_SPREAD = 0.05
_LARGEST = float(jnp.finfo(jnp.float32).max)
_LOG_LARGEST = 88.72  # of which exp is finite


class Parts(NamedTuple):
    """The parts of one gradient that were seen so far."""

    seen_parts: jax.Array  # shape=(), dtype=jnp.int32
    part_norms: jax.Array  # shape=(n,), dtype=jnp.float32, 0 where unknown or not finite
    highest_norm: jax.Array  # shape=(), dtype=jnp.float32
    highest_part: jax.Array  # shape=(), dtype=jnp.int32
    broken_parts: jax.Array  # shape=(), dtype=jnp.int32, how many had a NaN or an infinity
    first_broken: jax.Array  # shape=(), dtype=jnp.int32, -1: none


class Outlier(NamedTuple):
    """What the parts of one gradient have shown."""

    outlier: jax.Array  # shape=(), dtype=jnp.int32, the part that stands out; -1: none
    of_parts: jax.Array  # shape=(), dtype=jnp.int32, how many there were; 0: unknown
    broken_parts: jax.Array  # shape=(), dtype=jnp.int32
    highest_norm: jax.Array  # shape=(), dtype=jnp.float32, of those that were finite
    median_norm: jax.Array  # shape=(), dtype=jnp.float32


class Outliers(NamedTuple):
    """What is kept of this in a state."""

    present: Outlier  # of the last gradient
    at_rejection: Outlier  # of the last one that a guard inside rejected


def no_parts() -> Parts:
    """Return the parts of a gradient of which none was seen. No two numbers share a buffer."""
    return Parts(
        seen_parts=jnp.zeros((), jnp.int32),
        part_norms=jnp.zeros((SLOTS,), jnp.float32),
        highest_norm=jnp.zeros((), jnp.float32),
        highest_part=jnp.zeros((), jnp.int32),
        broken_parts=jnp.zeros((), jnp.int32),
        first_broken=jnp.full((), -1, jnp.int32),
    )


def no_outliers() -> Outliers:
    """Return what is kept before the first gradient."""

    def nothing() -> Outlier:
        return Outlier(
            outlier=jnp.full((), -1, jnp.int32),
            of_parts=jnp.zeros((), jnp.int32),
            broken_parts=jnp.zeros((), jnp.int32),
            highest_norm=jnp.zeros((), jnp.float32),
            median_norm=jnp.zeros((), jnp.float32),
        )

    return Outliers(nothing(), nothing())


def with_part(parts: Parts, norm: jax.Array, finite: jax.Array) -> Parts:
    """Return the parts with one more, with this norm."""
    index, norm = parts.seen_parts, _shown(norm, finite)
    here = jnp.arange(parts.part_norms.shape[0], dtype=jnp.int32) == index
    higher = norm > parts.highest_norm
    first = ~finite & (parts.first_broken < 0)
    return Parts(
        seen_parts=increment(index),
        part_norms=jnp.where(here, norm, parts.part_norms),
        highest_norm=jnp.where(higher, norm, parts.highest_norm),
        highest_part=jnp.where(higher, index, parts.highest_part),
        broken_parts=jnp.where(finite, parts.broken_parts, increment(parts.broken_parts)),
        first_broken=jnp.where(first, index, parts.first_broken),
    )


def all_parts(norms: jax.Array, finite: jax.Array) -> Parts:
    """Return the parts with these norms, ``[n]``."""
    norms = _shown(norms, finite)
    broken = jnp.sum(~finite, dtype=jnp.int32)
    return Parts(
        seen_parts=jnp.full((), norms.shape[0], jnp.int32),
        part_norms=norms,
        highest_norm=jnp.max(norms),
        highest_part=jnp.argmax(norms).astype(jnp.int32),
        broken_parts=broken,
        first_broken=jnp.where(broken > 0, jnp.argmin(finite).astype(jnp.int32), -1),
    )


def outlier_of(parts: Parts) -> Outlier:
    """Return the part that stands out: the first that is broken, else the highest if far above."""
    # Norms of zero are those of parts without an example, or of none.
    known = parts.part_norms > 0
    number = jnp.sum(known, dtype=jnp.int32)
    logs = jnp.log(jnp.where(known, parts.part_norms, 1.0))
    center = _median(logs, known, number)
    spread = SIGMA_PER_MAD * _median(jnp.abs(logs - center), known, number)
    above = jnp.log(jnp.where(number > 0, parts.highest_norm, 1.0)) - center
    limit = jnp.maximum(_DEVIATIONS * jnp.maximum(spread, _LEAST_SPREAD), jnp.log(_TIMES))
    far = (number >= FEWEST) & (above > limit)
    highest = jnp.where(far, parts.highest_part, -1)
    return Outlier(
        # If all are broken, none stands out.
        outlier=jnp.where(
            (parts.broken_parts > 0) & (parts.broken_parts < parts.seen_parts),
            parts.first_broken,
            highest,
        ),
        of_parts=parts.seen_parts,
        broken_parts=parts.broken_parts,
        highest_norm=parts.highest_norm,
        median_norm=jnp.where(number > 0, jnp.exp(jnp.minimum(center, _LOG_LARGEST)), 0.0),
    )


def keep(old: Outliers, present: Outlier, *, ended: jax.Array, rejected: jax.Array) -> Outliers:
    """Return what is kept after a call.

    Args:
      old: what was kept before it.
      present: what the parts seen so far have shown.
      ended: whether these are all parts of a gradient.
      rejected: whether it was rejected.
    """

    def where(condition: jax.Array, new: Outlier, before: Outlier) -> Outlier:
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, before)

    return Outliers(
        present=where(ended, present, old.present),
        at_rejection=where(ended & rejected, present, old.at_rejection),
    )


def _shown(norm: jax.Array, finite: jax.Array) -> jax.Array:
    """Return norms as float32 that are finite, so that they can be compared and stored."""
    kept = jnp.where(finite, norm, 0.0)
    return jnp.minimum(kept, _LARGEST).astype(jnp.float32)


def _median(values: jax.Array, known: jax.Array, number: jax.Array) -> jax.Array:
    """Return the median of the values that are known; the largest float32 if there are none."""
    ordered = jnp.sort(jnp.where(known, values, _LARGEST))
    lower, upper = jnp.maximum(number - 1, 0) // 2, number // 2
    return 0.5 * ordered[lower] + 0.5 * ordered[jnp.minimum(upper, ordered.shape[0] - 1)]
