"""LAMB, LARS, Muon and the schedule-free optimizers: as in optax on healthy runs, and safe."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

RNG = np.random.default_rng(0)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32),
    "b": jnp.ones(3),
    "embed": {"embedding": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)},
}


def train(
    tx: optax.GradientTransformation, gradients: Any, params: Any = PARAMS
) -> tuple[Any, Any]:
    """Return parameters and state after all gradients, step by compiled step."""
    step, state = compiled_step(tx), tx.init(params)
    gradients = jax.device_get(gradients)
    for number in range(len(jax.tree.leaves(gradients)[0])):
        params, state = step(params, state, jax.tree.map(lambda g, i=number: g[i], gradients))
    return params, state


@functools.cache
def compiled_step(tx: optax.GradientTransformation) -> Callable[..., tuple[Any, Any]]:
    """Return a step that runs of any length, in all tests of the transform, have in common."""

    def step(params: Any, state: Any, g: Any) -> tuple[Any, Any]:
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def healthy(steps: int = 30) -> Any:
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=(steps, *p.shape)), jnp.float32), PARAMS
    )


def assert_close(got: Any, wanted: Any, *, rtol: float, atol: float = 0.0) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), got, wanted)


MASK = {"w": True, "b": False, "embed": {"embedding": True}}
# optax takes embeddings for matrices unless it is told.
DIMENSIONS = {
    "w": optax.contrib.MuonDimensionNumbers(),
    "b": None,
    "embed": {"embedding": None},
}
SCHEDULE = optax.linear_schedule(1e-2, 1e-1, 30)
AS_OPTAX = {
    "lamb": (
        gs.lamb(SCHEDULE, weight_decay=0.1, mask=MASK),
        optax.lamb(SCHEDULE, weight_decay=0.1, mask=MASK),
    ),
    "lars": (
        gs.lars(1.0, weight_decay=0.1, trust_ratio_mask=MASK, nesterov=True),
        optax.lars(1.0, weight_decay=0.1, trust_ratio_mask=MASK, nesterov=True),
    ),
    "schedule_free_adamw": (
        gs.recipes.schedule_free_adamw(1e-2, warmup_steps=5, weight_decay=0.1),
        optax.contrib.schedule_free_adamw(1e-2, warmup_steps=5, weight_decay=0.1),
    ),
    "schedule_free": (
        gs.recipes.schedule_free(optax.sgd(SCHEDULE), SCHEDULE, b1=0.95, weight_lr_power=1.0),
        optax.contrib.schedule_free(optax.sgd(SCHEDULE), SCHEDULE, 0.95, weight_lr_power=1.0),
    ),
    "muon": (
        gs.muon(1e-2, nesterov=False, weight_decay=0.1, adam_weight_decay=0.1),
        optax.contrib.muon(
            1e-2,
            nesterov=False,
            weight_decay=0.1,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=DIMENSIONS,
        ),
    ),
}


@pytest.mark.parametrize("name", AS_OPTAX)
def test_equals_optax_on_a_healthy_run(name: str) -> None:
    ours, theirs = AS_OPTAX[name]
    (got, state), (wanted, other) = train(ours, healthy()), train(theirs, healthy())
    assert gs.health(state).accepted == 30
    assert gs.health(state).clipped == 0
    assert_close(got, wanted, rtol=2e-4, atol=2e-5)
    if name.startswith("schedule_free"):
        assert_close(
            gs.recipes.schedule_free_eval_params(state, got),
            optax.contrib.schedule_free_eval_params(other, wanted),
            rtol=2e-4,
            atol=2e-5,
        )


@pytest.mark.parametrize("name", AS_OPTAX)
def test_one_bad_step_moves_nothing(name: str) -> None:
    ours, _ = AS_OPTAX[name]
    good = healthy(8)
    bad = jax.tree.map(lambda g: jnp.insert(g, 4, 1e20, axis=0), good)
    bad["w"] = bad["w"].at[4].set(jnp.nan)
    (calm, before), (got, after) = train(ours, good), train(ours, bad)
    assert gs.health(after).rejected == 1
    for one, other in zip(
        jax.tree.leaves((got, after.inner_state)),
        jax.tree.leaves((calm, before.inner_state)),
        strict=True,
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e15])
def test_lamb_grows_by_one_plus_the_rate_at_most(size: float) -> None:
    params = {"w": jnp.full((4, 3), 0.1)}
    gradients = {"w": -jnp.full((40, 4, 3), size)}
    got, _ = train(gs.lamb(0.05), gradients, params)
    growth = jnp.linalg.norm(got["w"]) / jnp.linalg.norm(params["w"])
    assert growth == pytest.approx(1.05**40, rel=1e-3)


def test_trust_clip_of_lamb_never_lengthens() -> None:
    params = {"w": jnp.full((4, 3), 100.0)}
    gradients = {"w": jnp.ones((1, 4, 3))}
    plain, _ = train(gs.lamb(0.1), gradients, params)
    clipped, _ = train(gs.lamb(0.1, trust_clip=True), gradients, params)
    np.testing.assert_allclose(plain["w"], 90.0, rtol=1e-5)
    np.testing.assert_allclose(clipped["w"], 99.9, rtol=1e-5)


def test_muon_gives_embeddings_and_vectors_to_adam() -> None:
    gradients = jax.tree.map(lambda p: jnp.full((1, *p.shape), 1e-3), PARAMS)
    got, _ = train(gs.muon(0.1, nesterov=False), gradients)
    assert_close(
        {name: got[name] for name in ("b", "embed")},
        {"b": PARAMS["b"] - 0.1, "embed": {"embedding": PARAMS["embed"]["embedding"] - 0.1}},
        rtol=1e-3,
    )
    values = np.linalg.svd(np.asarray(got["w"] - PARAMS["w"]), compute_uv=False)
    np.testing.assert_allclose(values, [0.07, 0, 0], atol=0.01)


def test_adam_learning_rate_of_muon() -> None:
    gradients = jax.tree.map(lambda p: jnp.ones((1, *p.shape)), PARAMS)
    got, _ = train(gs.muon(0.1, nesterov=False, adam_learning_rate=0.5), gradients)
    np.testing.assert_allclose(got["b"], 0.5, rtol=1e-5)


def quadratic(dtype: str, steps: int) -> np.ndarray:
    """Return the error of the average that was computed on the way, beside one kept in float64."""
    tx = gs.recipes.schedule_free(optax.sgd(0.1), 0.1)
    curvature, start = jnp.linspace(0.1, 1.0, 64), jnp.linspace(1.0, 2.0, 64)

    def body(carry: Any, noise: jax.Array) -> tuple[Any, Any]:
        params, state = carry
        g = curvature * params.astype(jnp.float32) + noise
        updates, state = tx.update(g.astype(dtype), state, params)
        params = optax.apply_updates(params, updates)
        z = state.inner_state.z
        return (params, state), (z, gs.recipes.schedule_free_eval_params(state, params))

    noise = jnp.asarray(np.random.default_rng(2).normal(size=(steps, 64)) * 0.1, jnp.float32)
    first = start.astype(dtype)
    z, x = jax.jit(lambda p, n: jax.lax.scan(body, (p, tx.init(p)), n)[1])(first, noise)
    average = np.cumsum(np.asarray(z, "f8"), 0) / np.arange(1, steps + 1)[:, None]
    return np.asarray(x, "f8")[-1] - average[-1]


def test_schedule_free_average_is_that_of_all_iterates() -> None:
    assert np.abs(quadratic("float32", 1000)).max() < 1e-5


def test_pitfall_sum_of_weights_does_not_stall_in_bfloat16() -> None:
    """optax's stops at 256 equal weights, and its average forgets the first iterates."""
    error = np.sqrt(np.mean(quadratic("bfloat16", 1000) ** 2))
    assert error == pytest.approx(1e-3, rel=0.1)
    params = jnp.ones(2, jnp.bfloat16)
    given = jnp.zeros((400, 2), jnp.bfloat16)
    _, ours = train(gs.recipes.schedule_free(optax.sgd(1.0), 1.0), given, params)
    _, theirs = train(optax.contrib.schedule_free(optax.sgd(1.0), 1.0), given, params)
    assert ours.inner_state.weight_sum == 400
    assert theirs.weight_sum == 256


def test_known_weakness_schedule_free_adamw_steps_32_wide_after_a_quiet_time() -> None:
    given = jnp.zeros((3001, 2)).at[0].set(1e-9).at[-1].set(1.0)
    rules = (gs.rules.global_norm(1e9),)
    _, state = train(
        gs.recipes.schedule_free_adamw(1.0, eps=1e-6, rules=rules), given, jnp.zeros(2)
    )
    np.testing.assert_allclose(state.inner_state.z, -(0.001**-0.5), rtol=0.03)


def test_eval_params_need_one_average() -> None:
    with pytest.raises(ValueError, match=r"must hold one ScheduleFreeState.* got 0"):
        gs.recipes.schedule_free_eval_params(optax.EmptyState(), jnp.ones(2))
    tx = optax.chain(*2 * [gs.recipes.schedule_free(optax.sgd(0.1), 0.1)])
    with pytest.raises(ValueError, match="got 2"):
        gs.recipes.schedule_free_eval_params(tx.init(jnp.ones(2)), jnp.ones(2))


def test_schedule_free_multiplies_a_schedule_by_its_warmup() -> None:
    """Constant after it has risen, both are one; and so they are as numbers and in optax."""
    g = jnp.asarray([1.0, -2.0])
    made = []
    for tx in (
        gs.recipes.schedule_free_adamw(optax.constant_schedule(0.1), warmup_steps=3),
        gs.recipes.schedule_free_adamw(0.1, warmup_steps=3),
        optax.contrib.schedule_free_adamw(0.1, warmup_steps=3),
    ):
        params, state = g, tx.init(g)
        for _ in range(5):
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
        made.append(np.asarray(params))
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_allclose(made[0], made[2], rtol=1e-5)


def test_what_is_no_optimizer_is_told() -> None:
    with pytest.raises(TypeError, match=r"inner must be .*call it first, as in sgd"):
        gs.recipes.schedule_free(optax.sgd, 0.1)  # pyright: ignore[reportArgumentType]
