"""Numbers of whole leaves in one vector are those of each leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstable._src.recipes.per_unit import PerUnit

SHAPES = {
    "whole leaves": [(), (1, 1), (1,)],
    "some with units": [(1, 1), (1, 3), (), (2, 1, 1)],
    "only units": [(3,), (1, 2)],
    "none": [],
    "many": [(1,)] * 150,
}


def drawn(shapes: list[tuple[int, ...]], seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.uniform(0.5, 2.0, shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_each_leaf_gets_what_it_would_alone(
    shapes: list[tuple[int, ...]], *, compiled: bool
) -> None:
    def together(one: list[jax.Array], other: list[jax.Array]) -> list[jax.Array]:
        first = PerUnit.of(one)
        return first.map(lambda a, b: a * b + 1.0, PerUnit.of(other)).leaves()

    one, other = drawn(shapes, 0), drawn(shapes, 1)
    found = (jax.jit(together) if compiled else together)(one, other)
    assert len(found) == len(shapes)
    for a, b, c in zip(one, other, found, strict=True):
        assert c.shape == a.shape
        np.testing.assert_allclose(c, a * b + 1.0, rtol=1e-6)


def test_a_number_for_each_leaf() -> None:
    norms = PerUnit.of(drawn([(1, 1), (1, 3), ()], 0))
    counts = norms.like([2.0, 3.0, jnp.float32(4.0)])
    found = norms.map(lambda norm, count: 0.0 * norm + count, counts).leaves()
    assert [leaf.tolist() for leaf in found] == [[[2.0]], [[3.0, 3.0, 3.0]], 4.0]


def test_leaves_of_one_shape_have_programs_of_one_kind() -> None:
    """A slice of the vector in the program of a leaf would make it one of its own."""

    def scaled(numbers: list[jax.Array], leaves: list[jax.Array]) -> list[jax.Array]:
        factors = PerUnit.of(numbers).map(jnp.sqrt).leaves()
        return [factor * leaf for factor, leaf in zip(factors, leaves, strict=True)]

    text = str(
        jax.jit(scaled).lower([jnp.float32(2.0)] * 20, [jnp.ones((8, 8))] * 20).compile().as_text()
    )
    programs = [line for line in text.splitlines() if "f32[8,8]" in line and " fusion(" in line]
    assert len(programs) == 20
    assert not any("f32[20]" in line for line in programs)
