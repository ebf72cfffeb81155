"""Models of Equinox: their functions and static fields are left alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs

eqx: Any = pytest.importorskip("equinox")

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def make(key: Any) -> Any:
    class Net(eqx.Module):
        layers: list[Any]
        activation: Any
        scale: float
        name: str = eqx.field(static=True)

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = self.activation(layer(x)) * self.scale
            return x

    return Net([eqx.nn.Linear(4, 4, key=key), eqx.nn.LayerNorm(4)], jax.nn.tanh, 0.5, "net")


def loss(model: Any, x: jax.Array) -> jax.Array:
    total = jnp.sum(jax.vmap(model)(x), axis=-1)
    return jnp.mean(jnp.log(total - jnp.where(x[:, 0] > 90.0, 1e3, -1e3)))  # here


@pytest.mark.parametrize("wrap", [lambda f: f, eqx.filter_jit], ids=["plain", "filter_jit"])
def test_a_module_is_examined(wrap: Any) -> None:
    model, batch = make(jax.random.key(0)), X.at[2, 0].set(100.0)
    value, gradients = eqx.filter_value_and_grad(loss)(model, batch)
    found = gs.autopsy(wrap(loss), model, batch)
    assert np.isnan(found.loss) == np.isnan(float(value))
    assert bool(found.broken) == any(
        not jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients)
    )
    assert found.cause is not None
    assert found.cause.operation == "log"
    assert found.cause.code.endswith("# here")
    assert found.cause.examples == (2,)
    assert found.cause.leaf.startswith(".layers[1]")


def test_the_spike_of_a_partitioned_module() -> None:
    params, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

    def of_arrays(params: Any, x: jax.Array) -> jax.Array:
        model = eqx.combine(params, static)
        return jnp.mean(x[:, 0] * jnp.sum(jax.vmap(model)(x) ** 2, axis=-1))

    found = gs.autopsy(of_arrays, params, X.at[2, 0].set(1e4))
    assert found.spike is not None
    assert found.spike.examples == (2,)
    assert set(found.spike.leaf_norms) == {
        f".layers[{n}].{name}" for n in (0, 1) for name in ("weight", "bias")
    }
