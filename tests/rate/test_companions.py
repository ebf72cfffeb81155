"""What changes the rate over time: back-off after spikes, plateaus, limits of a schedule."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles import plateau as oracle


def scales(tx: Any, name: str, values: Any, updates: Any = None) -> np.ndarray:
    """Return by what updates are multiplied in every step; ``name`` is the extra argument."""
    values = jnp.asarray(values, jnp.float32)
    updates = jnp.ones((len(values), 2)) if updates is None else updates

    def body(state: Any, given: Any) -> tuple[Any, Any]:
        value, update = given
        new, state = tx.update(update, state, **{name: value})
        factor = state.step_factor if hasattr(state, "step_factor") else state.scale
        return state, (new, factor)

    run = jax.jit(lambda v, u: jax.lax.scan(body, tx.init(updates[0]), (v, u))[1])
    new, scale = run(values, updates)
    finite = np.isfinite(np.asarray(updates)).all(1) & (np.abs(np.asarray(updates)).max(1) < 2**59)
    wanted = np.asarray(updates) * np.asarray(scale)[:, None]
    np.testing.assert_allclose(np.asarray(new)[finite], wanted[finite], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(new)[~finite], 0.0)
    return np.asarray(scale)


@pytest.mark.parametrize("options", [{}, {"factor": 0.7, "recovery": 20, "min_scale": 0.1}])
def test_backoff_equals_its_oracle(options: dict[str, float]) -> None:
    norms = np.exp(np.random.default_rng(0).normal(size=600) * 0.1)
    bad = [50, 51, 52, 200, *range(300, 310)]
    norms[bad] = [np.nan, np.inf, 1e30, 1e3, *[1e2] * 10]
    got = scales(gs.rate.backoff_on_spike(**options), "grad_norm", norms)
    wanted = oracle.backoff(np.isin(np.arange(600), bad), **options)
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_backoff_is_over_one_hundred_steps_after_a_spike() -> None:
    norms = np.ones(250)
    norms[20] = 1e3
    got = scales(gs.rate.backoff_on_spike(), "grad_norm", norms)
    np.testing.assert_array_equal(got[:20], 1.0)
    assert got[20] == 0.5
    assert got[119] < 1.0
    np.testing.assert_allclose(got[121:], 1.0)


def test_pitfall_backoff_is_never_stuck() -> None:
    """After a level shift, or any number of spikes, it comes back to 1, and never to 0."""
    norms = np.concatenate([np.ones(100), np.full(1500, 1e4)])
    got = scales(gs.rate.backoff_on_spike(), "grad_norm", norms)
    assert got.min() == pytest.approx(0.01)
    assert got[-1] == 1.0
    recovered = int(np.argmax(got[110:] == 1.0)) + 10
    assert 665 < recovered < 665 + 160


def test_backoff_judges_by_what_comes_in_where_it_is_told_no_norm() -> None:
    updates = jnp.ones((60, 2)).at[30].set(1e3).at[40, 0].set(jnp.nan)
    got = scales(gs.rate.backoff_on_spike(), "unused", jnp.ones(60), updates)
    assert got[29] == 1.0
    assert got[30] == 0.5
    assert got[40] < got[39] / 1.9


@pytest.mark.parametrize(("period", "average"), [(102, 0.72), (50, 0.012)])
def test_known_weakness_frequent_spikes_add_up(period: int, average: float) -> None:
    spikes = np.arange(3000) % period == period - 1
    norms = np.where(spikes, 1e3, 1.0)
    rule = gs.rules.log_mad(reject_recurring=True)
    got = scales(gs.rate.backoff_on_spike(rules=(rule,)), "grad_norm", norms)
    np.testing.assert_allclose(got, oracle.backoff(spikes), rtol=1e-3)
    assert np.mean(got[2000:]) == pytest.approx(average, rel=0.03)
    np.testing.assert_array_equal(
        scales(gs.rate.backoff_on_spike(), "grad_norm", norms)[2000:], 1.0
    )


PLATEAU = [
    {},
    {"factor": 0.5, "patience": 3, "accumulation_size": 4, "min_scale": 0.2},
    {"factor": 0.5, "patience": 2, "cooldown": 5, "rtol": 0.0, "atol": 0.01},
]


@pytest.mark.parametrize("options", PLATEAU)
def test_plateau_equals_its_oracle_and_optax(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    values = (1 + np.exp(-np.arange(200) / 20) + 0.005 * rng.normal(size=200)).astype("f4")
    got = scales(gs.rate.reduce_on_plateau(**options), "value", values)
    np.testing.assert_allclose(got, oracle.reduce_on_plateau(values, **options), rtol=1e-5)
    theirs = scales(optax.contrib.reduce_on_plateau(**options), "value", values)
    np.testing.assert_allclose(got, theirs, rtol=1e-5)
    assert got[-1] < 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 100.0])
def test_pitfall_bad_losses_are_not_counted(bad: float) -> None:
    """With optax one NaN spoils the mean, and -inf is a best value that nothing ever beats."""
    values = np.full(80, 2.0) - 0.01 * np.arange(80)
    values[30:35] = bad
    options = {"patience": 3, "accumulation_size": 2}
    np.testing.assert_array_equal(
        scales(gs.rate.reduce_on_plateau(**options), "value", values), 1.0
    )


def test_pitfall_losses_of_rejected_steps_are_not_counted() -> None:
    updates = jnp.ones((40, 2)).at[::2].set(0.0)
    got = scales(gs.rate.reduce_on_plateau(0.5, patience=10), "value", jnp.ones(40), updates)
    assert int(np.argmax(got < 1.0)) == 21  # the first counts as best, the eleventh after it acts


def test_pitfall_negative_constant_loss_is_a_plateau() -> None:
    got = scales(gs.rate.reduce_on_plateau(0.5, patience=5), "value", jnp.full(10, -3.0))
    theirs = scales(optax.contrib.reduce_on_plateau(0.5, patience=5), "value", jnp.full(10, -3.0))
    assert got[-1] == 0.5
    assert theirs[-1] == 1.0


def test_plateau_without_a_value_is_told() -> None:
    tx = gs.rate.reduce_on_plateau()
    with pytest.raises(ValueError, match=r"value is missing: call update\(.*value=loss\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=jnp.ones(3))
    with pytest.raises(ValueError, match="One of rtol and atol must be positive"):
        gs.rate.reduce_on_plateau(rtol=0.0)
    for make in (gs.rate.reduce_on_plateau, gs.rate.backoff_on_spike):
        with pytest.raises(TypeError, match=r"rule 0 .* call it first"):
            make(rules=(gs.rules.log_mad,))  # pyright: ignore[reportArgumentType]


RATES = st.lists(st.floats(0.0, 100.0) | st.just(float("nan")), min_size=30, max_size=30)
LIMITS = {"min_value": 0.01, "max_value": 10.0, "max_growth": 1.5}


@jax.jit
def limited_table(table: jax.Array) -> jax.Array:
    limited = gs.rate.limit_schedule(lambda step: table[step], **LIMITS)
    return jax.vmap(lambda step: jnp.asarray(limited(step)))(jnp.arange(30))


@hypothesis.given(RATES)
def test_limited_schedule_equals_its_oracle(rates: list[float]) -> None:
    got = np.asarray(limited_table(jnp.asarray(rates, jnp.float32)))
    np.testing.assert_allclose(got, oracle.limited(np.float32(rates), **LIMITS), rtol=1e-4)


def test_limited_schedule_of_a_restart_and_its_window() -> None:
    def restarts(step: Any) -> Any:
        return 1e-4 * 100.0 ** jnp.asarray(step % 100 < 1, jnp.float32)

    limited = gs.rate.limit_schedule(restarts, min_value=1e-4, max_value=1.0)
    trail = np.asarray([limited(step) for step in (99, 100, 101, 200)])
    np.testing.assert_allclose(trail, [1e-4, 1.1e-4, 1e-4, 1.1e-4], rtol=1e-4)
    free = gs.rate.limit_schedule(restarts, min_value=1e-5, max_value=1.0, max_growth=np.inf)
    np.testing.assert_allclose(np.asarray([free(99), free(100)]), [1e-4, 1e-2], rtol=1e-4)
    assert np.ceil(np.log(1e4) / np.log(1.1)) == 97, "the steps that the docstring speaks of"


def test_limited_schedule_works_in_an_optimizer_and_within_wide_limits() -> None:
    cosine = optax.warmup_cosine_decay_schedule(1e-4, 1e-2, 10, 50)
    limited = gs.rate.limit_schedule(cosine, min_value=1e-6, max_value=1.0, max_growth=100.0)
    steps = jnp.arange(50)
    np.testing.assert_allclose(
        jax.vmap(lambda step: jnp.asarray(limited(step)))(steps), cosine(steps), rtol=1e-5
    )
    tx = gs.adamw(limited)
    updates, _ = jax.jit(tx.update)(jnp.ones(2), tx.init(jnp.ones(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, -1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"max_growth": 1.0}, "max_growth must be a number > 1"),
        ({"max_growth": 1.00001}, "max_growth must be a number >= .*narrow the bounds"),
        ({"min_value": 2.0}, "min_value must be <= max_value"),
        ({"min_value": 0.0}, "min_value must be a number > 0"),
        ({"schedule": -1.0}, "schedule must be a number >= 0"),
    ],
)
def test_bad_limits_are_told(changed: dict[str, Any], told: str) -> None:
    good = {"schedule": 1e-3, "min_value": 1e-5, "max_value": 1.0}
    with pytest.raises(ValueError, match=told):
        gs.rate.limit_schedule(**{**good, **changed})
