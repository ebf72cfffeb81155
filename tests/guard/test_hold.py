"""The hold transformation, on every way in which a state can be defined."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstable._src.hold import hold

G = jnp.asarray([1.0, 2.0, 3.0])
OLD = {"a": jnp.asarray([10.0, 20.0, 30.0]), "b": jnp.asarray([-1.0, -2.0, -3.0])}


@jax.jit
def jitted(g: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    return g * 2.0, a + g


def shared(g: Any, s: Any, _: Any) -> Any:
    new = s["a"] + g
    return new, {"a": new, "b": new}


def crossed(g: Any, s: Any, _: Any) -> Any:
    return g, {"a": s["b"], "b": s["a"]}


def chained(g: Any, s: Any, _: Any) -> Any:
    a = s["a"] * 0.5 + g
    b = s["b"] + a
    return b * 2.0, {"a": a, "b": b}


def inside_cond(g: Any, s: Any, _: Any) -> Any:
    a = jax.lax.cond(s["a"][0] > 0, lambda: s["a"] + g, lambda: s["a"] - g)
    return g, {"a": a, "b": s["b"]}


def inside_scan(g: Any, s: Any, _: Any) -> Any:
    a, _ = jax.lax.scan(lambda c, _: (c + g, None), s["a"], length=3)
    return a, {"a": a, "b": s["b"] * 2.0}


def custom(g: Any, s: Any, _: Any) -> Any:
    return jax.nn.relu(g), {"a": jax.nn.relu(s["a"] - 15.0), "b": jax.nn.silu(s["b"])}


def own_jit(g: Any, s: Any, _: Any) -> Any:
    u, a = jitted(g, s["a"])
    return u, {"a": a, "b": s["b"]}


UPDATES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "one after the other": chained,
    "one variable defines two leaves and the updates": shared,
    "passed through": lambda g, s, _: (g, s),
    "crossed over": crossed,
    "a gradient is stored": lambda g, s, _: (g - s["a"], {"a": g, "b": s["b"] + 1.0}),
    "a parameter is stored": lambda g, s, p: (g, {"a": p, "b": p}),
    "a constant": lambda g, s, _: (g, {"a": jnp.ones(3), "b": jnp.zeros(3)}),
    "a scalar constant": lambda g, s, _: (g, {"a": s["a"] + 1.0, "b": s["b"]}),
    "inside jit": own_jit,
    "all of it inside jit": jax.jit(chained),
    "inside cond": inside_cond,
    "inside scan": inside_scan,
    "inside custom_jvp": custom,
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", UPDATES)
def test_accepts_exactly_and_rejects_exactly(name: str, jit: bool) -> None:
    update, params = UPDATES[name], jnp.asarray([7.0, 8.0, 9.0])

    def held(accept: jax.Array) -> Any:
        return hold(update, accept, G, OLD, params)

    run = jax.jit(held) if jit else held
    updates, state = run(jnp.asarray(True))
    expected_updates, expected = update(G, OLD, params)
    np.testing.assert_allclose(updates, expected_updates, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), state, expected)
    _, state = run(jnp.asarray(False))
    jax.tree.map(np.testing.assert_array_equal, state, OLD)


@pytest.mark.parametrize("name", UPDATES)
def test_non_finite_entries_keep_their_old_value(name: str) -> None:
    update, params = UPDATES[name], jnp.asarray([7.0, jnp.nan, 9.0])
    bad = G.at[1].set(jnp.inf)
    _, state = jax.jit(lambda g: hold(update, jnp.asarray(True), g, OLD, params))(bad)
    _, raw = update(bad, OLD, params)
    expected = jax.tree.map(lambda new, old: jnp.where(jnp.isfinite(new), new, old), raw, OLD)
    for leaf in jax.tree.leaves(state):
        assert jnp.isfinite(leaf).all()
    if name not in ("one after the other", "all of it inside jit"):  # where b reads the held a
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), state, expected)


def test_keeps_dtypes_of_the_state() -> None:
    old = {"n": jnp.asarray(3, jnp.int32), "m": jnp.ones(2, jnp.bfloat16)}

    def update(g: Any, s: Any, _: Any) -> Any:
        return g, {"n": s["n"] + 1.5, "m": s["m"].astype(jnp.float32) + 1.0}

    _, state = hold(update, jnp.asarray(True), G, old, None)
    assert state["n"].dtype == jnp.int32
    assert state["n"] == 4
    assert state["m"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(state["m"], np.float32), [2.0, 2.0])


def test_random_keys_are_held() -> None:
    old = {"key": jax.random.key(0), "raw": jax.random.PRNGKey(1)}

    def update(g: Any, s: Any, _: Any) -> Any:
        key, use = jax.random.split(s["key"])
        noise = jax.random.normal(use, g.shape)
        return g + noise, {"key": key, "raw": jax.random.split(s["raw"])[0]}

    for accept in (True, False):
        _, state = hold(update, jnp.asarray(accept), G, old, None)
        same = jax.random.key_data(state["key"]) == jax.random.key_data(old["key"])
        assert bool(same.all()) is not accept


def test_traced_values_from_outside_are_seen() -> None:
    @jax.jit
    def step(rate: jax.Array, accept: jax.Array) -> Any:
        def update(g: Any, s: Any, _: Any) -> Any:
            return g * rate, jax.tree.map(lambda x: x * rate, s)

        return hold(update, accept, G, OLD, None)

    updates, state = step(jnp.float32(0.5), jnp.asarray(True))
    np.testing.assert_array_equal(updates, G * 0.5)
    np.testing.assert_array_equal(state["a"], OLD["a"] * 0.5)


def test_a_changed_structure_is_named() -> None:
    """Pitfall: a state that grows at the first update breaks scan, cond and checkpoints."""
    with pytest.raises(ValueError, match=r"new state\['c'\] has no counterpart"):
        hold(lambda g, s, _: (g, {**s, "c": g}), jnp.asarray(True), G, OLD, None)
    with pytest.raises(ValueError, match=r"\['a'\] has shape \(2, 3\)"):
        hold(lambda g, s, _: (g, {**s, "a": jnp.ones((2, 3))}), jnp.asarray(True), G, OLD, None)


def test_empty_state_and_empty_updates() -> None:
    updates, state = hold(lambda g, s, _: (g, s), jnp.asarray(False), {}, (), None)
    assert updates == {}
    assert state == ()


def test_is_differentiable() -> None:
    def loss(scale: jax.Array) -> jax.Array:
        updates, _ = hold(chained, jnp.asarray(True), G * scale, OLD, None)
        return jnp.sum(updates)

    # updates = 2 (b + a / 2 + g)
    np.testing.assert_allclose(jax.grad(loss)(1.0), 2.0 * float(G.sum()), rtol=1e-6)
