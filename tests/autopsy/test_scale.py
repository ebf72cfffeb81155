"""Long programs: no limit of recursion, and no memory for what is over."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs
from gradstable._src.autopsy.births import Watch
from gradstable._src.autopsy.program import Program

X = jnp.linspace(0.5, 1.5, 8)


def chain(length: int) -> Any:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(length // 2):
            x = jax.lax.sin(jax.lax.mul(x, w))
        return jnp.log(0.0 * jnp.sum(x))  # here

    return loss


@pytest.mark.parametrize("length", [600, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_chain(length: int) -> None:
    assert Program(chain(length), X, (X,), has_aux=False).size > 2 * length
    found = gs.autopsy(chain(length), X, X)
    assert found.cause is not None
    assert found.cause.operation == "log"
    assert found.cause.code.endswith("# here")
    assert found.cause.reason == "logarithm of 0"
    assert found.cause.leaf == "params"


@pytest.mark.parametrize("passes", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_long_loop(passes: int) -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        def body(h: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.where(number == passes - 2, jnp.log(h - h), jnp.sin(h * w))  # here
            return h, h[0]

        return jnp.mean(jax.lax.scan(body, x, jnp.arange(passes))[1])

    found = gs.autopsy(loss, X, X)
    assert found.cause is not None
    assert found.cause.operation == "log"
    assert found.cause.iterations == (passes - 2,)


def test_what_a_program_drops_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass makes a NaN that nothing goes back to."""
    alive: list[int] = []
    equation = Watch.equation

    def counted(*args: Any) -> list[Any]:
        alive.append(len(jax.live_arrays()))
        return equation(*args)

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        def body(h: jax.Array, _: Any) -> tuple[jax.Array, None]:
            h = jnp.sin(h * w)
            broken = jax.lax.stop_gradient(jnp.log(h - h - 1.0))
            return jnp.where(broken > 0.0, broken, h), None

        return jnp.mean(jax.lax.scan(body, x, None, length=100)[0])

    monkeypatch.setattr(Watch, "equation", counted)
    assert gs.autopsy(loss, X, X).cause is None
    first, last = np.mean(alive[100:200]), np.mean(alive[500:600])
    assert last - first < 5 * 100  # residuals of the derivative grow by a few arrays a pass
