"""A program run equation by equation gives what ``jit`` gives, and shows all of it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstable._src.walk.walk import Place, walk

X = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


class Watch:
    """A visitor that counts, and can double what one primitive computes."""

    def __init__(self, double: str = "") -> None:
        self.seen: Counter[str] = Counter()
        self.where: list[tuple[int | None, ...]] = []
        self.parts: list[int] = []
        self.moved: list[tuple[Any, Any]] = []
        self._double = double

    def equation(
        self, eqn: Any, inputs: Any, outputs: list[Any], places: tuple[Place, ...]
    ) -> list[Any]:
        assert len(inputs) == len(eqn.invars)
        self.seen[eqn.primitive.name] += 1
        self.where.append(tuple(place.iteration for place in places))
        return [2 * x for x in outputs] if eqn.primitive.name == self._double else outputs

    def slice(self, whole: Any, part: Any, index: int) -> None:
        np.testing.assert_array_equal(whole[index], part)
        self.parts.append(index)

    def stack(self, parts: Any, whole: Any) -> None:
        np.testing.assert_array_equal(jnp.stack(parts), whole)

    def move(self, before: Any, after: Any) -> None:
        self.moved.append((before.shape, after.shape))


@jax.custom_vjp
def custom(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


custom.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x) * 3.0,))


def loop(x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda y: jnp.sum(y) < 100.0, lambda y: 2.0 * y + 1.0, x)


def layers(x: jax.Array, *, reverse: bool = False, length: int = 3) -> Any:
    def body(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.tanh(carry * row)
        return carry, carry.sum()

    return jax.lax.scan(body, x[0], x[:length], reverse=reverse)


def branch(x: jax.Array) -> jax.Array:
    return jax.lax.cond(x.sum() > 0.5, jnp.sin, jnp.cos, x)


def switch(x: jax.Array) -> jax.Array:
    return jax.lax.switch(7, [jnp.sin, jnp.cos, jnp.tan], x)


PROGRAMS: dict[str, Callable[[jax.Array], Any]] = {
    "plain": lambda x: jnp.sum(jnp.exp(x) / (1.0 + x**2)),
    "jit": lambda x: jax.jit(jnp.sin)(x) + jax.nn.relu(x),
    "remat": jax.checkpoint(lambda x: jnp.sum(jnp.sin(x) ** 2)),
    "custom derivative": lambda x: jnp.sum(custom(x)),
    "loop": loop,
    "scan": layers,
    "reversed scan": lambda x: layers(x, reverse=True),
    "scan over nothing": lambda x: layers(x, length=0),
    "branch": branch,
    "switch": switch,
    "random": lambda x: x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape),
    "nothing": lambda x: (x, 3.0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_jit(name: str) -> None:
    function = PROGRAMS[name]
    got = walk(jax.make_jaxpr(function)(X), [X], Watch())
    for actual, wanted in zip(got, jax.tree.leaves(jax.jit(function)(X)), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "jit", "remat", "custom derivative", "scan", "branch"])
def test_equals_jit_in_derivatives(name: str) -> None:
    gradient = jax.grad(lambda x: sum(jnp.sum(y) for y in jax.tree.leaves(PROGRAMS[name](x))))
    (got,) = walk(jax.make_jaxpr(gradient)(X), [X], Watch())
    np.testing.assert_allclose(got, jax.jit(gradient)(X), rtol=1e-5, atol=1e-6)


def test_shows_every_pass_and_the_branch_taken() -> None:
    watch = Watch()
    walk(jax.make_jaxpr(lambda x: layers(x, reverse=True))(X), [X], watch)
    assert watch.seen["tanh"] == 3
    assert watch.parts == [2, 1, 0]
    assert {where for where in watch.where if where} == {(2,), (1,), (0,)}
    watch = Watch()
    walk(jax.make_jaxpr(branch)(X), [X], watch)
    assert watch.seen["cos"] == 1
    assert watch.seen["sin"] == 0


def test_goes_on_with_what_the_visitor_returns() -> None:
    (got,) = walk(jax.make_jaxpr(lambda x: jnp.sin(x) + 1.0)(X), [X], Watch("sin"))
    np.testing.assert_allclose(got, 2 * jnp.sin(X) + 1.0, rtol=1e-6)
