"""The bits of a tree, to be compared."""

from typing import Any

import jax
import numpy as np


def bits(tree: Any) -> list[bytes]:
    """Return the bytes of every leaf: -0.0 is not 0.0 here, and a NaN is itself."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(tree))]
