"""A loss scale is no part of what is measured, wherever it stands; or the order is refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.telemetry import read_rows

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2)}
GRADS = {"a": jnp.full(3, 1.5), "b": jnp.full(2, 2.0)}
NORM = float(np.sqrt(3 * 1.5**2 + 2 * 2.0**2))
INNER = gs.guard(optax.adam(1e-2))


def scaled(inner: Any) -> Any:
    return gs.loss_scale(inner, init_scale=2.0**14, growth_interval=1)


NESTINGS = {
    "record outside": gs.record(scaled(INNER)),
    "record inside": scaled(gs.record(INNER)),
    "record around accumulate": gs.record(scaled(gs.accumulate(INNER, 1))),
    "accumulate around record": scaled(gs.accumulate(gs.record(INNER), 1)),
    "accumulate outside": gs.accumulate(gs.record(scaled(INNER)), 1),
    "recovery between": gs.record(gs.backoff(gs.rollback(scaled(INNER)))),
    "recovery inside": gs.record(scaled(gs.backoff(gs.rollback(INNER)))),
    "hygiene between": gs.record(gs.recovery.moment_hygiene(scaled(INNER))),
    "chain": gs.record(optax.chain(scaled(INNER), optax.scale(1.0))),
    "masked": gs.record(optax.masked(scaled(INNER), {"a": True, "b": True})),
}


def run(tx: Any, steps: int) -> Any:
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(steps):
        factor = gs.scale_loss(state, 1.0)
        grads = jax.tree.map(lambda g: g * factor, GRADS)  # noqa: B023
        _, state = update(grads, state, PARAMS, value=1.0)
    return state


@pytest.mark.parametrize("nesting", NESTINGS)
def test_numbers_are_those_without_a_loss_scale(nesting: str) -> None:
    bare = bare_rows(3)
    rows = read_rows(run(NESTINGS[nesting], 3)).steps
    for row, expected in zip(rows, bare, strict=True):
        for name in ("grad_norm", "threshold", "rms"):
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose(row.get("leaf_norms", 0), expected.get("leaf_norms", 0), 1e-5)
    np.testing.assert_allclose(rows[0]["grad_norm"], NORM, rtol=1e-6)


@functools.cache
def bare_rows(steps: int) -> Any:
    tx = gs.record(INNER)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(steps):
        _, state = update(GRADS, state, PARAMS, value=1.0)
    return read_rows(state).steps


def test_float16_gradients_are_recorded_without_the_scale() -> None:
    tx = gs.record(gs.loss_scale(gs.guard(optax.sgd(0.1)), init_scale=1024.0))
    params = jnp.ones(4, jnp.float16)
    state = tx.init(params)
    _, state = tx.update(jnp.full(4, 1.75 * 1024, jnp.float16), state, params)
    assert read_rows(state).steps[0]["grad_norm"] == 3.5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner, rule: gs.rollback(inner, rule, every=5),
        lambda inner, rule: gs.accumulate(inner, 1, rules=(rule,)),
    ],
    ids=["rollback", "accumulate"],
)
def test_rules_outside_of_a_loss_scale_judge_what_is_inside(wrap: Any) -> None:
    seen = []

    def decide(measure: gs.Measure, state: Any, **_: Any) -> tuple[gs.Verdict, Any]:
        seen.append(float(measure.norm))
        return gs.Verdict.of(), state

    tx = wrap(scaled(INNER), gs.rules.Rule(lambda _: (), decide))
    state = tx.init(PARAMS)
    for _ in range(2):
        factor = gs.scale_loss(state, 1.0)
        grads = jax.tree.map(lambda g: g * factor, GRADS)  # noqa: B023
        _, state = tx.update(grads, state, PARAMS, value=1.0)
    np.testing.assert_allclose(seen, [NORM, NORM], rtol=1e-6)


def test_an_accumulation_outside_tells_the_loss_scale_of_overflows() -> None:
    """Pitfall: it leaves out what overflows, and the scale, which hears of none, never falls."""
    tx = gs.accumulate(gs.loss_scale(gs.guard(optax.sgd(1.0)), init_scale=2.0**20), 2)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    params = PARAMS
    for _ in range(20):
        factor = gs.scale_loss(state, 1.0)
        grads = jax.tree.map(lambda g: (g * factor).astype(jnp.float16).astype(g.dtype), GRADS)  # noqa: B023
        updates, state = update(grads, state, params, value=1.0)
        params = optax.apply_updates(params, updates)
    assert float(state.inner_state.loss_scale) == 2.0**14
    assert gs.health(state).accepted == 4
    np.testing.assert_allclose(np.asarray(params["b"]), 1.0 - 4 * 2.0)


def test_a_guard_outside_tells_the_loss_scale_of_overflows_and_judges_without_it() -> None:
    """Pitfall: what it rejects it holds, and the scale, which hears of nothing, never falls."""
    limit = gs.rules.global_norm(100.0)
    tx = gs.guard(gs.loss_scale(gs.guard(optax.sgd(1.0), limit), init_scale=2.0**20), limit)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    params = PARAMS
    for _ in range(10):
        factor = gs.scale_loss(state, 1.0)
        grads = jax.tree.map(lambda g: (g * factor).astype(jnp.float16).astype(g.dtype), GRADS)  # noqa: B023
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert float(state.inner_state.loss_scale) == 2.0**14
    outer = state.ledger.health
    assert (outer.accepted, outer.rejected, outer.clipped) == (4, 6, 0)
    np.testing.assert_allclose(outer.grad_norm, NORM, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(params["b"]), 1.0 - 4 * 2.0)


def test_two_loss_scales_in_one_record_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 loss scales found .*opt_state\[0\], opt_state\[1\]"):
        gs.record(optax.chain(scaled(INNER), scaled(INNER))).init(PARAMS)


def test_micro_batches_that_only_wait_have_no_rms() -> None:
    """Pitfall: before the first step the second moment is 0, and any gradient is infinite to it."""
    tx = gs.record(gs.accumulate(INNER, 3))
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for step in range(6):
        grads = jax.tree.map(lambda g: g * (jnp.nan if step == 3 else 1.0), GRADS)  # noqa: B023
        _, state = update(grads, state, PARAMS, value=1.0)
    rows = read_rows(state).steps
    assert [bool(np.isfinite(row["rms"])) for row in rows] == [False, False, True] * 2
    assert rows[2]["rms"] == pytest.approx(1.0, rel=1e-3)
    assert [row["scale"] for row in rows] == [1, 1, 1, 0, 1, 1]
    assert rows[3]["reason"] == gs.rules.Reason.NONFINITE
