"""The recorder: what it says of a step, and that it changes nothing."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.telemetry import Alarm, read_rows

PARAMS = {"a": jnp.linspace(0.5, 1.5, 12).reshape(3, 4), "b": jnp.full((5,), 2.0)}


def gradients(step: int, scale: float = 1.0, like: Any = PARAMS) -> dict[str, jax.Array]:
    rng = np.random.default_rng(step)
    return {
        name: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)
        for name, leaf in like.items()
    }


def norm(tree: object) -> float:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return float(np.linalg.norm(np.concatenate(leaves)))


def test_updates_are_those_of_the_inner_optimizer() -> None:
    inner, tx = gs.guard(optax.adamw(1e-2)), gs.record(gs.guard(optax.adamw(1e-2)))
    for transform in (lambda f: f, jax.jit):
        state, recorded = inner.init(PARAMS), tx.init(PARAMS)
        for step in range(4):
            grads = gradients(step, np.nan if step == 2 else 1.0)
            expected, state = transform(inner.update)(grads, state, PARAMS)
            updates, recorded = transform(tx.update)(grads, recorded, PARAMS)
            chex.assert_trees_all_close(updates, expected, rtol=1e-6, atol=1e-9)
        chex.assert_trees_all_close(recorded.inner_state, state, rtol=1e-6, atol=1e-9)


def test_a_row_says_what_happened_in_its_step() -> None:
    tx = gs.record(gs.guard(optax.sgd(0.1), gs.rules.global_norm(2.0)))
    state, params = tx.init(PARAMS), PARAMS
    losses = [3.0, 2.0, float("nan"), 1.0]
    for step, loss in enumerate(losses):
        grads = gradients(step, [0.1, 100.0, np.nan, 0.1][step])
        updates, state = tx.update(grads, state, params, value=loss)
        params = optax.apply_updates(params, updates)
    rows = read_rows(state).steps
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    np.testing.assert_array_equal([row["loss"] for row in rows], losses)
    np.testing.assert_allclose(rows[1]["grad_norm"], norm(gradients(1, 100.0)), rtol=1e-5)
    assert [row["scale"] for row in rows[::2]] == [1.0, 0.0]
    np.testing.assert_allclose(rows[1]["scale"], 2.0 / norm(gradients(1, 100.0)), rtol=1e-5)
    assert [row["reason"] for row in rows] == [
        gs.rules.Reason.OK, gs.rules.Reason.NORM_CLIPPED, gs.rules.Reason.NONFINITE,
        gs.rules.Reason.OK,
    ]  # fmt: skip
    assert {row["threshold"] for row in rows} == {2.0}
    assert [row["lr_factor"] for row in rows] == [1.0] * 4
    np.testing.assert_allclose(
        rows[0]["leaf_norms"], [norm(leaf) for leaf in gradients(0, 0.1).values()], rtol=1e-5
    )
    assert "leaf_norms" not in rows[1]


def test_update_ratio_is_that_of_the_update_before() -> None:
    tx = gs.record(optax.sgd(0.1))
    state, params = tx.init(PARAMS), PARAMS
    moved = []
    for step in range(3):
        updates, state = tx.update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
        moved.append(norm(updates) / norm(params))
    ratios = [row["update_ratio"] for row in read_rows(state).steps]
    assert ratios[0] == 0.0
    np.testing.assert_allclose(ratios[1:], moved[:2], rtol=1e-5)


@pytest.mark.parametrize("b2", [0.9, 0.999])
def test_rms_is_that_of_the_largest_leaf_without_bias(b2: float) -> None:
    tx = gs.record(gs.guard(optax.adam(1e-3, b2=b2)))
    state = tx.init(PARAMS)
    nu = {name: np.zeros(leaf.shape) for name, leaf in PARAMS.items()}
    for step in range(1, 6):
        grads = gradients(step)
        _, state = tx.update(grads, state, PARAMS)
        rms = []
        for name, g in grads.items():
            g = np.asarray(g, np.float64)
            nu[name] = b2 * nu[name] + (1 - b2) * g**2
            v = nu[name] / (1 - b2**step)
            rms.append(np.sqrt(np.mean(g**2 / np.maximum(v, 1e-16))))
        row = read_rows(state, since=step - 1).steps[0]
        np.testing.assert_allclose(row["rms"], max(rms), rtol=1e-3)
        if step > 1:  # all are 1 at first
            assert row["rms_leaf"] == int(np.argmax(rms))


def test_what_is_not_known_is_left_out() -> None:
    tx = gs.record(optax.sgd(0.1))
    _, state = tx.update(gradients(0), tx.init(PARAMS))
    row = read_rows(state).steps[0]
    assert not {"loss", "update_ratio"} & row.keys()
    assert row["rms_leaf"] == -1
    assert row["threshold"] == float("inf")


def test_two_trees_nu_give_no_rms() -> None:
    tx = gs.record(optax.chain(optax.scale_by_adam(), optax.scale_by_adam()))
    _, state = tx.update(gradients(0), tx.init(PARAMS), PARAMS)
    assert read_rows(state).steps[0]["rms_leaf"] == -1


def test_the_ring_wraps_round_and_tells_what_was_lost() -> None:
    tx = gs.record(optax.sgd(0.1), capacity=8, leaf_every=2)
    update = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for step in range(1, 21):
        _, state = update(gradients(step), state, PARAMS, value=float(step))
    rows = read_rows(state, since=9)
    assert [row["loss"] for row in rows.steps] == list(range(13, 21))
    assert rows.lost == (10, 12)
    assert rows.count == 20
    assert [row["step"] for row in rows.steps if "leaf_norms" in row] == [13, 15, 17, 19]
    for row in rows.steps[::2]:
        expected = [norm(leaf) for leaf in gradients(row["step"]).values()]
        np.testing.assert_allclose(row["leaf_norms"], expected, rtol=1e-5)


def test_back_off_shows_in_the_factor() -> None:
    tx = gs.record(optax.chain(gs.guard(optax.sgd(0.1)), gs.rate.backoff_on_spike()))
    state = tx.init(PARAMS)
    for norm_ in (1.0, 1.1, 100.0):
        _, state = tx.update(gradients(0), state, PARAMS, grad_norm=norm_)
    assert read_rows(state).steps[-1]["lr_factor"] == 0.5


def test_nothing_is_compiled_anew_and_scan_equals_the_loop() -> None:
    tx = gs.record(gs.guard(optax.adam(1e-2)), capacity=8)
    steps = [gradients(step) for step in range(12)]
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    looped = tx.init(PARAMS)
    for grads in steps:
        _, looped = update(grads, looped, PARAMS, value=jnp.float32(1.0))

    @jax.jit
    def scan(state: object, stacked: object) -> object:
        def body(state: object, grads: object) -> tuple[object, None]:
            return tx.update(grads, state, PARAMS, value=jnp.float32(1.0))[1], None

        return jax.lax.scan(body, state, stacked)[0]

    scanned = scan(tx.init(PARAMS), jax.tree.map(lambda *x: jnp.stack(x), *steps))
    chex.assert_trees_all_close(scanned, looped, rtol=1e-5)


def test_stale_second_moment_raises_the_alarm_at_once() -> None:
    """Pitfall: Adam with a long memory after a quiet time; Wortsman et al., section 3.4."""
    params = {"a": jnp.ones((10, 10)), "b": jnp.ones(200)}
    tx = gs.record(optax.adam(1e-3))  # a guard would clip this, and nothing would lag
    update = jax.jit(tx.update)
    state = tx.init(params)
    quiet = 200
    for step in range(1, quiet + 20):
        grads = gradients(step, like=params)
        if step > quiet:
            grads["b"] = 5.0 * grads["b"]
        _, state = update(grads, state, params)
    rows = read_rows(state, since=quiet - 100).steps
    alarmed = [row for row in rows if row["alarms"] & Alarm.RMS]
    assert alarmed[0]["step"] == quiet + 1
    assert alarmed[0]["rms_leaf"] == 1
    told = gs.explain(state, params)
    assert "the second moment lagged behind the gradient (RMS_t)" in told
    assert "in ['b']" in told


def test_healthy_run_raises_no_alarm() -> None:
    tx = gs.record(gs.guard(optax.adam(1e-3)))
    update = jax.jit(tx.update)
    state, params = tx.init(PARAMS), PARAMS
    for step in range(600):
        updates, state = update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    assert int(state.alarms.rms.warnings) == 0
    assert int(state.alarms.ratio.warnings) == 0


def test_large_update_raises_the_alarm() -> None:
    tx = gs.record(optax.scale_by_learning_rate(lambda step: jnp.where(step == 50, 1.0, 1e-3)))
    update = jax.jit(tx.update)
    state, params = tx.init(PARAMS), PARAMS
    for step in range(60):
        updates, state = update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    alarmed = [row["step"] for row in read_rows(state).steps if row["alarms"]]
    assert alarmed == [52]
    assert "updates were large relative to the parameters" in gs.explain(state)


def test_rejected_step_is_no_alarm_and_teaches_nothing() -> None:
    tx = gs.record(gs.guard(optax.adam(1e-3)))
    state = tx.init(PARAMS)
    for step in range(40):
        _, state = tx.update(gradients(step), state, PARAMS)
    for fault in (np.nan, np.inf, 1e30):
        before = state.alarms
        _, state = tx.update(gradients(0, fault), state, PARAMS)
        chex.assert_trees_all_equal(state.alarms.log_center[:-1], before.log_center[:-1])
        assert int(state.alarms.rms.warnings) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 10}, r"capacity must be a multiple of leaf_every \(4\), got 10"),
        ({"leaf_every": 0}, "leaf_every"),
        ({"rms_limit": 1.0}, "rms_limit"),
        ({"ratio_limit": float("nan")}, "ratio_limit"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gs.record(optax.sgd(0.1), **arguments)


def test_loss_that_is_no_scalar_is_refused() -> None:
    tx = gs.record(optax.sgd(0.1))
    with pytest.raises(ValueError, match="must be a scalar"):
        tx.update(gradients(0), tx.init(PARAMS), PARAMS, value=jnp.ones(3))
