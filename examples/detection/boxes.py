"""Boxes ``(cx, cy, w, h)`` as shares of the canvas: how well two agree, and the losses of that."""

from typing import Literal

import jax
import jax.numpy as jnp

import gradstable as gs

BoxLoss = Literal["smooth-l1", "giou"]


def iou(box: jax.Array, other: jax.Array) -> jax.Array:
    """Return the area that two boxes share over the area that they cover, 0 to 1."""
    shared, covered, _ = _areas(box, other)
    return shared / covered


def giou(box: jax.Array, other: jax.Array) -> jax.Array:
    """Return the generalized IoU, -1 to 1: it has a slope also where two boxes do not touch.

    From the IoU it takes the share of the smallest box around both that neither covers.
    """
    shared, covered, around = _areas(box, other)
    return shared / covered - (around - covered) / around


def box_loss(kind: BoxLoss, box: jax.Array, target: jax.Array) -> jax.Array:
    """Return the loss of each box: ``[batch]``."""
    if kind == "giou":
        return 1.0 - giou(box, target)
    # Smooth L1 is Huber's loss over its delta. A tenth of the canvas is where it turns linear:
    # with the usual 1 no error of a share would ever be large.
    delta = 0.1
    return gs.losses.huber(box, target, delta=delta).sum(axis=-1) / delta


def _areas(box: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    low, high = _corners(box)
    other_low, other_high = _corners(other)
    overlap = jnp.minimum(high, other_high) - jnp.maximum(low, other_low)
    shared = jnp.prod(jnp.maximum(overlap, 0.0), axis=-1)
    # A floor of one millionth of the canvas, far below a pixel: two empty boxes divide by it.
    covered = jnp.prod(box[..., 2:], axis=-1) + jnp.prod(other[..., 2:], axis=-1) - shared
    around = jnp.prod(jnp.maximum(high, other_high) - jnp.minimum(low, other_low), axis=-1)
    return shared, jnp.maximum(covered, 1e-6), jnp.maximum(around, 1e-6)


def _corners(box: jax.Array) -> tuple[jax.Array, jax.Array]:
    center, half = box[..., :2], box[..., 2:] / 2
    return center - half, center + half
