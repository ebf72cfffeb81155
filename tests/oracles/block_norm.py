"""Limits for blocks in NumPy float64: per-leaf norm, and Adafactor's update clip (section 6)."""

import math
from collections.abc import Sequence

import numpy as np


def block_norm(blocks: Sequence[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """Return the blocks, each scaled down to a norm of its own."""
    out = []
    for block in blocks:
        norm = math.sqrt(sum(float(entry) ** 2 for entry in block.flat))
        out.append(block.astype(np.float64) * (max_norm / norm if norm > max_norm else 1.0))
    return out


def block_rms(blocks: Sequence[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Return ``u / max(1, RMS(u) / d)`` for every block."""
    out = []
    for block in blocks:
        mean = sum(float(entry) ** 2 for entry in block.flat) / max(block.size, 1)
        out.append(block.astype(np.float64) / max(1.0, math.sqrt(mean) / threshold))
    return out
