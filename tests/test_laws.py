"""Laws that hold for every registered transform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.registry import Case, cases

# What is dealt out in tree order depends on it.
BY_ORDER = {
    "add_noise": "the random key is split in tree order",
    "compress_moments": "as add_noise",
}

SHAPES = {"kernel": (3, 4), "bias": (4,)}
NAMES = ("a", "b", "c")


def model(order: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Return three layers under given names; the n-th layer has the same numbers in any order."""
    rng = np.random.default_rng(seed)
    layers = [
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
        for _ in order
    ]
    return dict(zip(order, layers, strict=True))


def two_steps(tx: optax.GradientTransformation, order: tuple[str, ...]) -> list[Any]:
    params = model(order, 0)
    state, seen = tx.init(params), []
    for seed in (1, 2):
        updates, state = tx.update(model(order, seed), state, params)
        seen.append([updates[name] for name in order])
    return seen


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_order_of_leaves_does_not_matter(case: Case) -> None:
    forward, backward = two_steps(case.tx, NAMES), two_steps(case.tx, NAMES[::-1])
    same = True
    for one, other in zip(jax.tree.leaves(forward), jax.tree.leaves(backward), strict=True):
        same &= bool(np.allclose(one, other, rtol=1e-5, atol=1e-7))
    assert same == (case.name.partition("(")[0] not in BY_ORDER)
