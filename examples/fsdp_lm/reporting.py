"""What each process reports about the run."""

import hashlib
import logging
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

import gradstable as gs


def make_logger() -> logging.Logger:
    """Return a logger to standard output whose lines start with the process number."""
    logger = logging.getLogger("fsdp_lm")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        logging.Formatter(f"[{jax.process_index()}/{jax.process_count()}] %(message)s")
    )
    logger.handlers = [handler]
    return logger


class StepReport(NamedTuple):
    """The report of a step; the same on all devices, so each process reads its own copy."""

    loss: jax.Array  # shape=(), dtype=jnp.float32, of the whole batch
    health: gs.Health | None  # None: there is no guard


def log_steps(logger: logging.Logger, steps: Mapping[int, StepReport]) -> None:
    """Log which of these steps were rejected, and the last loss, fetched in one transfer."""
    fetched = jax.device_get(dict(steps))
    for step, (_, health) in fetched.items():
        if health is not None and health.scale == 0:
            logger.info("step %d: rejected, %s", step, gs.rules.Reason(health.reason).name)
    for step, (loss, _) in list(fetched.items())[-1:]:
        logger.info("step %d: loss %.4f", step, loss)


def describe(logger: logging.Logger, mesh: Mesh, *, params: Any, opt_state: Any) -> None:
    """Log how the devices are used, and how much each of them holds."""
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    logger.info("%d devices: %s", mesh.size, axes)
    for name, tree in {"parameters": params, "state": opt_state}.items():
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        part = gs.sharding.bytes_per_device(tree)
        logger.info("%s: %d bytes on each device, of %d", name, part, whole)


def fingerprint(tree: Any) -> str:
    """Return a hash of all bits of a tree that this process holds."""
    parts = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            parts.update(np.asarray(shard.data).tobytes())
    return parts.hexdigest()[:16]
