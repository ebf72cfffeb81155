"""How the tests of this room run a transform."""

from typing import Any

import jax
import optax


def apply(tx: optax.GradientTransformation, g: Any) -> Any:
    """Return the first update that a transform makes of a gradient, by a compiled function."""
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])(g)
