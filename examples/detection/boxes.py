"""Boxes ``(cx, cy, w, h)`` as fractions of the canvas: overlap and losses."""

from typing import Literal

import jax
import jax.numpy as jnp

import gradstable as gs

BoxLoss = Literal["smooth-l1", "giou"]


def iou(box: jax.Array, other: jax.Array) -> jax.Array:
    """Return the area two boxes share over the area they cover, 0 to 1."""
    shared, covered, _ = _areas(box, other)
    return shared / covered


def giou(box: jax.Array, other: jax.Array) -> jax.Array:
    """Return the generalized IoU, -1 to 1, which has a slope even if two boxes do not touch.

    It subtracts from the IoU the fraction of the smallest enclosing box that neither covers.
    """
    shared, covered, around = _areas(box, other)
    return shared / covered - (around - covered) / around


def box_loss(kind: BoxLoss, box: jax.Array, target: jax.Array) -> jax.Array:
    """Return the loss of each box: ``[batch]``."""
    if kind == "giou":
        return 1.0 - giou(box, target)
    # Smooth L1 is the Huber loss over its delta. It turns linear at a tenth of the canvas: with the
    # usual 1, no error of a fraction would ever be large.
    delta = 0.1
    return gs.losses.huber(box, target, delta=delta).sum(axis=-1) / delta


def _areas(box: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    low, high = _corners(box)
    other_low, other_high = _corners(other)
    overlap = jnp.minimum(high, other_high) - jnp.maximum(low, other_low)
    shared = jnp.prod(jnp.maximum(overlap, 0.0), axis=-1)
    # A floor of one millionth of the canvas, far below a pixel, for two empty boxes.
    covered = jnp.prod(box[..., 2:], axis=-1) + jnp.prod(other[..., 2:], axis=-1) - shared
    around = jnp.prod(jnp.maximum(high, other_high) - jnp.minimum(low, other_low), axis=-1)
    return shared, jnp.maximum(covered, 1e-6), jnp.maximum(around, 1e-6)


def _corners(box: jax.Array) -> tuple[jax.Array, jax.Array]:
    center, half = box[..., :2], box[..., 2:] / 2
    return center - half, center + half
