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


def log_softmax_by_hand(w: jax.Array, x: jax.Array) -> jax.Array:
    weights = jnp.exp((x @ w).astype(jnp.float16))
    probs = weights / weights.sum(-1, keepdims=True)
    return -jnp.mean(jnp.log(probs[:, 0].astype(jnp.float32)))


def log_of_softmax(w: jax.Array, x: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.log(jax.nn.softmax(x @ w)[:, 0]))


def product_of_likelihoods(w: jax.Array, x: jax.Array) -> jax.Array:
    each = jax.nn.sigmoid(x @ w)
    return -jnp.mean(jnp.log(each[:, 0] ** 3 * each[:, 1] ** 3))


@pytest.mark.parametrize(
    ("loss", "low", "operation"),
    [
        (log_softmax_by_hand, -20.0, "exp underflowed to 0 in float16"),
        (log_of_softmax, -120.0, "exp underflowed to 0 in float32"),
        (product_of_likelihoods, -60.0, "underflowed to 0 in float32"),
    ],
)
def test_a_number_that_was_too_small_is_told(loss: Any, low: float, operation: str) -> None:
    batch = X.at[3].set(jnp.asarray([low, low / 2.0, 0.0, 0.0]))
    found = gs.autopsy(loss, jnp.eye(4), batch)
    assert found.cause is not None
    assert found.cause.operation == "log"
    assert found.cause.examples == (3,)
    assert found.cause.reason.startswith("logarithm of 0; ")
    assert operation in found.cause.reason


def test_a_zero_that_is_one_is_no_underflow() -> None:
    def masked(w: jax.Array, x: jax.Array) -> jax.Array:
        probs = jax.nn.softmax(jnp.where(x > 0.0, x @ w, -jnp.inf))
        return jnp.mean(jnp.log(probs[:, 0]))

    found = gs.autopsy(masked, jnp.eye(4), X.at[3, 0].set(-1.0))
    assert found.cause is not None
    assert found.cause.reason == "logarithm of 0"
