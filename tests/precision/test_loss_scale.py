"""The loss scale, after the tests of torch's GradScaler and with Megatron's hysteresis."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

SIZE = 5


def after(tx: optax.GradientTransformation, broken: list[bool]) -> Any:
    """Return the state after gradients that are broken, or not."""
    params = jnp.ones(SIZE)
    state = tx.init(params)
    step = jax.jit(tx.update)
    for one in broken:
        _, state = step(jnp.full(SIZE, jnp.inf if one else 1.0), state, params)
    return state


def scaler(**options: Any) -> optax.GradientTransformation:
    return gs.loss_scale(gs.guard(optax.sgd(0.1)), **options)


@pytest.mark.parametrize(
    ("broken", "scale"),
    [
        ([], 8.0),
        ([True], 4.0),
        ([True, True], 2.0),
        ([False, False], 8.0),
        ([False, False, False], 16.0),
        ([False] * 6, 32.0),
        ([False, False, True, False, False], 4.0),
        ([False, False, True, False, False, False], 8.0),
    ],
)
def test_scale_grows_after_the_interval_and_falls_at_once(broken: list[bool], scale: float) -> None:
    state = after(scaler(init_scale=8.0, growth_interval=3), broken)
    assert float(state.loss_scale) == scale
    assert int(state.overflows) == sum(broken)


def test_factors_are_those_of_the_caller() -> None:
    options = {"init_scale": 100.0, "growth_factor": 3.0, "backoff_factor": 0.1}
    assert float(after(scaler(growth_interval=2, **options), [False] * 2).loss_scale) == 300.0
    assert float(after(scaler(growth_interval=2, **options), [True]).loss_scale) == pytest.approx(
        10.0
    )


def test_hysteresis_lets_overflows_pass_until_the_scale_has_grown() -> None:
    """Megatron's: what was let pass is counted anew only when the scale grows."""
    tx = scaler(init_scale=8.0, growth_interval=3, hysteresis=2)
    assert float(after(tx, [True]).loss_scale) == 8.0
    assert float(after(tx, [True, True]).loss_scale) == 4.0
    assert float(after(tx, [True, True, True]).loss_scale) == 2.0
    assert float(after(tx, [True, False, False, False, True]).loss_scale) == 16.0


def test_scale_stays_between_its_bounds() -> None:
    low = scaler(init_scale=4.0, min_scale=2.0)
    assert float(after(low, [True] * 5).loss_scale) == 2.0
    high = scaler(init_scale=4.0, max_scale=8.0, growth_interval=1)
    assert float(after(high, [False] * 5).loss_scale) == 8.0


@pytest.mark.parametrize("at", range(SIZE))
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_perfect_storm_an_infinity_at_every_index_is_found(at: int, bad: float) -> None:
    params = {"a": jnp.ones(SIZE), "b": jnp.ones((2, 2))}
    tx = gs.loss_scale(gs.guard(optax.adam(0.1)))
    state = tx.init(params)
    g = {"a": jnp.ones(SIZE).at[at].set(bad), "b": jnp.ones((2, 2))}
    updates, new = tx.update(g, state, params)
    chex.assert_trees_all_equal(optax.apply_updates(params, updates), params)
    inner, old = new.inner_state.inner_state, state.inner_state.inner_state
    chex.assert_trees_all_equal(inner, old)
    assert float(new.loss_scale) == 2.0**15
    assert int(new.last_overflow) == 1


def test_disabled_is_as_if_it_were_not_there() -> None:
    params, g = jnp.ones(SIZE), jnp.linspace(-1.0, 1.0, SIZE)
    inner = optax.adam(0.1)
    off = gs.loss_scale(inner, enabled=False)
    state = off.init(params)
    assert float(gs.scale_loss(state, 3.0)) == 3.0
    updates, state = off.update(g, state, params)
    chex.assert_trees_all_equal((updates, state.inner_state), inner.update(g, inner.init(params)))
    _, state = off.update(jnp.full(SIZE, jnp.inf), state, params)
    assert float(state.loss_scale) == 1.0


def test_powers_of_two_change_no_bit() -> None:
    """Training with a scale equals training without, in float32."""
    x = jax.random.normal(jax.random.key(0), (20, SIZE))

    def train(tx: Any, *, scaled: bool) -> Any:
        params = jnp.ones(SIZE)
        state = tx.init(params)
        for row in x:
            loss = lambda p, row=row, state=state: (  # noqa: E731
                gs.scale_loss(state, jnp.sum((p * row) ** 2)) if scaled else jnp.sum((p * row) ** 2)
            )
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    plain = gs.guard(optax.sgd(0.01, momentum=0.9))
    chex.assert_trees_all_equal(
        train(gs.loss_scale(plain), scaled=True), train(plain, scaled=False)
    )


def test_float16_gradients_are_unscaled_in_float32() -> None:
    """Pitfall: 6e-5 / 65536 is zero in float16; the moments would never learn of it."""
    params = jnp.ones(2, jnp.float16)
    tx = gs.loss_scale(gs.guard(optax.trace(0.9)))
    state = tx.init(params)
    updates, state = tx.update(jnp.full(2, 6e-5, jnp.float16), state, params)
    chex.assert_type(updates, jnp.float16)
    (trace,) = jax.tree.leaves(state.inner_state.inner_state)
    chex.assert_type(trace, jnp.float32)
    np.testing.assert_allclose(trace, 6e-5 / 65536, rtol=1e-2)


def test_clipping_inside_sees_the_gradient_without_the_scale() -> None:
    rules = (gs.rules.global_norm(1.0),)
    tx = gs.loss_scale(gs.guard(optax.sgd(1.0), *rules), init_scale=1024.0)
    params = jnp.ones(4)
    updates, _ = tx.update(jnp.full(4, 0.1 * 1024), tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates), -0.1, rtol=1e-6)
    updates, _ = tx.update(jnp.full(4, 5.0 * 1024), tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates), -0.5, rtol=1e-6)


def test_accumulation_drops_the_overflow_and_lowers_the_scale() -> None:
    params = jnp.ones(2)
    tx = gs.loss_scale(gs.accumulate(gs.guard(optax.sgd(1.0)), 4), init_scale=8.0)
    state = tx.init(params)
    scales = []
    for g in (1.0, jnp.inf, 1.0, 1.0):
        scales.append(float(state.loss_scale))
        updates, state = tx.update(jnp.full(2, g) * scales[-1], state, params)
    assert scales == [8.0, 8.0, 4.0, 4.0]
    assert updates.tolist() == [-1.0, -1.0]


def test_a_spike_is_no_overflow() -> None:
    tx = scaler(init_scale=8.0)
    params = jnp.ones(SIZE)
    state = tx.init(params)
    for size in [1.0] * 30 + [1e6]:
        _, state = jax.jit(tx.update)(jnp.full(SIZE, size * 8.0), state, params)
    assert int(gs.health(state).rejected) == 1
    assert float(state.loss_scale) == 8.0


def test_gradient_penalty_with_double_backward() -> None:
    """The inner gradient of a scaled loss is unscaled before it is penalized."""
    params = jnp.array([1.0, -2.0])
    state = scaler(init_scale=256.0).init(params)
    loss = lambda p: jnp.sum(p**3)  # noqa: E731

    def penalized(p: jax.Array) -> jax.Array:
        inner = jax.grad(lambda q: gs.scale_loss(state, loss(q)))(p)
        total = loss(p) + jnp.sum(gs.unscale(state, inner) ** 2)
        return gs.scale_loss(state, total)

    plain = jax.grad(lambda p: loss(p) + jnp.sum(jax.grad(loss)(p) ** 2))(params)
    chex.assert_trees_all_close(gs.unscale(state, jax.grad(penalized)(params)), plain)


def test_explain_tells_of_the_scale() -> None:
    assert "The loss scale is 65536, without an overflow." in gs.explain(after(scaler(), [False]))
    told = gs.explain(after(scaler(), [False, True]))
    assert "The loss scale is 32768, after 1 overflow, the last in call 2." in told


def test_a_guard_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"needs a guard inside.*gradstable\.guard\(inner\)"):
        gs.loss_scale(optax.sgd(0.1)).init(jnp.ones(2))


@pytest.mark.parametrize("found", [0, 2])
def test_scale_loss_names_how_many_scales_it_found(found: int) -> None:
    state = tuple(scaler().init(jnp.ones(2)) for _ in range(found))
    with pytest.raises(ValueError, match=f"{found} loss scales found"):
        gs.scale_loss(state, 1.0)


def test_no_pass_over_the_gradients_beyond_those_of_the_guard() -> None:
    size = 200_000
    params = {"w": jnp.ones(size)}

    def words(tx: optax.GradientTransformation) -> float:
        def step(params: Any, state: Any, g: Any) -> Any:
            updates, state = tx.update(g, state, params)
            return optax.apply_updates(params, updates), state

        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params)
        return lowered.compile().cost_analysis()["bytes accessed"] / 4 / size

    inner = gs.guard(optax.adamw(1e-3))
    assert words(gs.loss_scale(inner)) <= words(inner) + 0.1
