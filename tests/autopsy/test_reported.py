"""What public bug reports were about is found: the line, the examples, and the reason."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import gradstable as gs
from tests.autopsy.reported import CASES, Case, W, X


def check(found: gs.Autopsy, case: Case) -> None:
    assert found.cause is not None
    assert found.cause.code.endswith("# here"), found
    assert found.cause.function == case.loss.__name__
    assert found.cause.operation == case.operation, found
    assert found.cause.backward == case.backward
    assert found.cause.examples == case.examples
    assert case.reason in found.cause.reason, found
    assert case.reason in str(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_it_is_found(case: Case) -> None:
    check(gs.autopsy(case.loss, W, case.batch), case)


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case.loss.__name__)
def test_it_is_found_under_jit(case: Case) -> None:
    check(gs.autopsy(jax.jit(case.loss), W, case.batch), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_another_batch_is_finite(case: Case) -> None:
    loss, gradient = jax.value_and_grad(case.loss)(W, X)
    sound = bool(jnp.isfinite(loss)) and bool(jnp.isfinite(gradient).all())
    assert sound == (case.batch is not X)


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[8], CASES[18]], ids=lambda case: case.loss.__name__
)
def test_it_is_found_in_a_scan_over_layers(case: Case) -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        def layer(total: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
            return total + case.loss(scale * w, x), None

        return jax.lax.scan(layer, jnp.zeros(()), jnp.asarray([1e-3, 1e-2, 1.0]))[0]

    found = gs.autopsy(loss, W, case.batch)
    assert found.cause is not None
    assert found.cause.operation == case.operation
    # What overflows does so in the last layer only; a norm of 0 is one in each.
    assert found.cause.iterations == ((0,) if case.backward else (2,))
    assert found.cause.examples == case.examples


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[6], CASES[17]], ids=lambda case: case.loss.__name__
)
def test_it_is_found_on_eight_devices(case: Case) -> None:
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    batch = jnp.concatenate([X, case.batch])

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        def body(w: jax.Array, x: jax.Array) -> jax.Array:
            return jax.lax.pmean(case.loss(w, x), "data")

        return jax.shard_map(body, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())(w, x)

    found = gs.autopsy(loss, W, batch)
    check(found, case._replace(examples=(11,)))
    assert found.cause is not None
    assert found.cause.shards == ({"data": 5},)
    assert found.cause.inputs[-1].startswith("float32[2")
    assert "shard: data 5" in str(found)


def test_ctc_targets_that_are_too_long_are_a_finite_spike() -> None:
    """apple/axlearn#211: a text that does not fit its frames has a loss of 1e5, and no NaN."""
    import optax

    labels = jnp.asarray([[1, 2, 0], [2, 3, 0], [1, 1, 1], [3, 1, 0]])

    def loss(w: jax.Array, batch: Any) -> jax.Array:
        frames, labels = batch
        nothing = jnp.zeros(frames.shape[:2])
        return jnp.mean(optax.ctc_loss(frames @ w, nothing, labels, 1.0 * (labels == 0)) ** 2)

    frames = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4)), jnp.float32)
    found = gs.autopsy(loss, W, (frames, labels))
    assert found.cause is None
    assert found.spike is not None
    assert found.spike.examples == (2,)
