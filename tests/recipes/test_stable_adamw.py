"""The two-sided default: no sequence of gradients makes parameters explode."""

from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree
from tests.oracles.adam import adam as adam_oracle
from tests.oracles.sizes import cap_update_rms, norm

STEPS, SHAPE = 120, (3, 4)
RATIO, FLOOR = 0.1, 1e-3
# A rate that is absurd, so that only the caps stand between the gradients and the parameters.
WILD = gs.stable_adamw(100.0, weight_decay=0.01)
SLACK = {"float32": 1e-5, "bfloat16": 2.0**-8}

Adversary = Callable[[jax.Array, jax.Array], jax.Array]


def follower(tx: optax.GradientTransformation, adversary: Adversary) -> Callable[..., np.ndarray]:
    """Return a function to the parameters before each step, and after the last."""

    @jax.jit
    def run(params: Any, gradients: Any) -> Any:
        def body(carry: Any, given: jax.Array) -> Any:
            params, state = carry
            updates, state = tx.update(adversary(given, params), state, params)
            return (optax.apply_updates(params, updates), state), params

        (last, _), trail = jax.lax.scan(body, (params, tx.init(params)), gradients)
        return jnp.concatenate([trail, last[None]])

    return lambda params, gradients: np.asarray(run(params, gradients), "f8")


def follow(
    tx: optax.GradientTransformation, params: Any, gradients: Any, adversary: Adversary
) -> np.ndarray:
    return follower(tx, adversary)(params, gradients)


def as_given(gradient: jax.Array, params: jax.Array) -> jax.Array:
    del params
    return gradient


def along(gradient: jax.Array, params: jax.Array) -> jax.Array:
    """Against the parameters, so that every step makes them longer."""
    return -jnp.abs(gradient) * params


FOLLOW = {adversary: follower(WILD, adversary) for adversary in (as_given, along)}


def holds_the_theorem(trail: np.ndarray, slack: float, rate: float = np.inf) -> None:
    size = np.sqrt(trail[0].size)
    sizes = np.array([max(norm(params), FLOOR * size) for params in trail])
    assert np.isfinite(trail).all()
    assert (sizes[1:] <= sizes[:-1] * (1 + RATIO) * (1 + slack)).all()
    steps = np.array([norm(step) for step in np.diff(trail, axis=0)])
    # What a step adds, and what rounding the sum adds.
    assert (steps <= RATIO * sizes[:-1] * (1 + 1e-5) + 2 * slack * sizes[1:]).all()
    if np.isfinite(rate):
        times = np.arange(len(trail))
        assert (sizes <= (sizes[0] + rate * size * times) * (1 + slack) ** times).all()


def adversaries() -> dict[str, tuple[np.ndarray, Adversary]]:
    rng = np.random.default_rng(0)
    steady = np.ones((STEPS, *SHAPE))
    quiet = np.where(np.arange(STEPS) % 40 < 30, 1e-12, 1e12)[:, None, None]
    wild = rng.normal(size=(STEPS, *SHAPE)) * 10.0 ** rng.uniform(-37, 37, (STEPS, 1, 1))
    broken = wild.copy()
    broken[::3, 0, 0] = np.nan
    broken[1::7] = np.inf
    return {
        "along the parameters": (steady, along),
        "huge, along the parameters": (steady * 1e17, along),
        "alternating": (steady * 1e15 * (-1.0) ** np.arange(STEPS)[:, None, None], as_given),
        "after quiet times": (steady * quiet, along),
        "of every size": (wild, as_given),
        "not finite": (broken, as_given),
        "growing as b2 / b1, the worst for Adam": (
            steady * (0.95 / 0.9) ** np.arange(STEPS)[:, None, None],
            as_given,
        ),
    }


@pytest.mark.parametrize("dtype", SLACK)
def test_theorem_no_gradients_grow_parameters_faster_than_one_plus_r(dtype: str) -> None:
    for start in (0.0, 0.1):
        for sequence, adversary in adversaries().values():
            given = jnp.asarray(sequence.astype("f4"), dtype)
            params = jnp.full(SHAPE, start, dtype)
            holds_the_theorem(FOLLOW[adversary](params, given), SLACK[dtype])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_theorem_holds_with_narrow_moments(dtype: str) -> None:
    """In float16 a moment of 1e-9 is zero, and the step that was made of it is not."""
    narrow = gs.stable_adamw(100.0, weight_decay=0.01, mu_dtype=dtype, nu_dtype=dtype)
    for adversary in (as_given, along):
        run = follower(narrow, adversary)
        for sequence, chosen in adversaries().values():
            for size in (1.0, 1e-9):
                if chosen is adversary:
                    given = jnp.asarray(size * sequence, jnp.float32)
                    holds_the_theorem(run(jnp.full(SHAPE, 0.1), given), SLACK["float32"])


def test_theorem_holds_for_the_largest_of_several_leaves() -> None:
    """One of zeros may move by a part of what the others are, but never grows past all of them."""
    params = {"small": jnp.full(3, 1e-6), "zeros": jnp.zeros((2, 2)), "large": jnp.full(5, 0.5)}
    rng = np.random.default_rng(1)
    state, act = WILD.init(params), jax.jit(WILD.update)

    def largest(tree: Any) -> float:
        return max(FLOOR, *(norm(np.asarray(x)) / x.size**0.5 for x in jax.tree.leaves(tree)))

    for step in range(STEPS):
        before = largest(params)
        given = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=p.shape) * 10.0 ** rng.uniform(-30, 30)), params
        )
        updates, state = act(jax.tree.map(jnp.float32, given), state, params)
        params = optax.apply_updates(params, updates)
        assert largest(params) <= (1 + RATIO) * before * (1 + 1e-5), step


def test_theorem_is_sharp() -> None:
    """Along the parameters, growth is by 1.1 a step, no less: the caps are all that holds it."""
    tx = gs.stable_adamw(100.0, weight_decay=0.0)
    trail = follow(tx, jnp.full(SHAPE, 0.1), jnp.ones((80, *SHAPE)), along)
    growth = norm(trail[-1]) / norm(trail[0])
    assert growth == pytest.approx(1.1**80, rel=1e-3)


def test_without_the_caps_the_same_gradients_explode() -> None:
    tx = gs.adamw(100.0)
    trail = follow(tx, jnp.full(SHAPE, 0.1), jnp.ones((8, *SHAPE)), along)
    assert norm(trail[1]) > 100 * norm(trail[0])


@hypothesis.given(
    st.lists(st.sampled_from([-1.0, 1.0]), min_size=STEPS, max_size=STEPS),
    st.lists(st.integers(-37, 38), min_size=STEPS, max_size=STEPS),
    st.sampled_from([0.0, 1e-6, 0.1, 1e6]),
)
def test_theorem_for_any_gradients(signs: list[float], sizes: list[int], start: float) -> None:
    with np.errstate(over="ignore"):
        each = (np.asarray(signs) * 10.0 ** np.asarray(sizes)).astype("f4")  # 1e38 is about the end
    rng = np.random.default_rng(len(set(sizes)))
    gradients = jnp.asarray(each[:, None, None] * rng.normal(size=(STEPS, *SHAPE)), jnp.float32)
    for adversary in FOLLOW:
        holds_the_theorem(FOLLOW[adversary](jnp.full(SHAPE, start), gradients), 1e-5)


def test_growth_is_linear_where_the_rate_is_sane() -> None:
    """The second line of the theorem: by d * sqrt(n) times the rate a step at most."""
    tx = gs.stable_adamw(1e-2, weight_decay=0.1)
    trail = follow(tx, jnp.full(SHAPE, 1.0), jnp.full((STEPS, *SHAPE), 1e6), along)
    holds_the_theorem(trail, 1e-5, rate=1e-2)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_adamw_without_caps(weight_decay: float) -> None:
    given = jnp.asarray(np.random.default_rng(1).normal(size=(50, *SHAPE)), jnp.float32)
    start = jnp.linspace(-1.0, 1.0, 12, dtype=jnp.float32).reshape(SHAPE)
    schedule = optax.linear_schedule(1e-2, 1e-1, 50)
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    options = {"weight_decay": weight_decay, "mask": mask}
    uncapped = gs.stable_adamw(schedule, max_rms=np.inf, max_ratio=np.inf, **options)
    plain = gs.adamw(schedule, b2=0.95, **options)
    got, wanted = (follow(tx, start, given, as_given) for tx in (uncapped, plain))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_mask_keeps_leaves_from_decay() -> None:
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    tx = gs.stable_adamw(0.5, weight_decay=0.1, mask={"w": True, "b": False})
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)


def test_equals_the_float64_oracle() -> None:
    """Adam, cap, decay, rate, cap, written out; gradients that wake every part of it."""
    rng = np.random.default_rng(2)
    sizes = np.where(np.arange(60) % 20 < 17, 1.0, 3.5)[:, None, None]
    given = (rng.normal(size=(60, *SHAPE)) * sizes).astype("f4")
    rate, decay, d, ratio = 0.05, 0.1, 0.4, 0.03
    tx = gs.stable_adamw(
        rate, weight_decay=decay, max_rms=d, max_ratio=ratio, rules=(gs.rules.global_norm(1e9),)
    )
    start = np.full(SHAPE, 0.5)
    trail = follow(tx, jnp.asarray(start, jnp.float32), jnp.asarray(given), as_given)
    theta, capped = start.copy(), 0
    for t, u in enumerate(adam_oracle(given, b2=0.95)):
        u_hat = cap_update_rms(u, d)
        limit = ratio * max(norm(theta), FLOOR * np.sqrt(theta.size))
        trust = min(1.0, limit / (rate * (norm(u_hat) + decay * norm(theta))))
        capped += trust < 1
        theta = theta - rate * trust * (u_hat + decay * theta)
        np.testing.assert_allclose(trail[t + 1], theta, rtol=1e-4, atol=1e-6)
    assert 5 < capped < 60


def test_one_step_equals_the_chain_of_transforms_that_it_fuses() -> None:
    """But for the trust cap, which takes the sum of two norms for that of the sum."""
    rng = np.random.default_rng(3)
    params = {"w": jnp.asarray(rng.normal(size=SHAPE), jnp.float32), "b": jnp.zeros(4)}
    given = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    for ratio, decay in ((np.inf, 0.1), (0.1, 0.0)):
        fused = gs.stable_adamw(0.5, weight_decay=decay, max_rms=0.5, max_ratio=ratio)
        chain = gs.guard(
            optax.chain(
                gs.moments.scale_by_adam(b2=0.95),
                gs.rate.cap_update_rms(0.5),
                optax.add_decayed_weights(decay),
                optax.scale_by_learning_rate(0.5),
                gs.rate.cap_trust(ratio),
            )
        )
        got, _ = jax.jit(fused.update)(given, fused.init(params), params)
        wanted, _ = jax.jit(chain.update)(given, chain.init(params), params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), got, wanted)


def test_exploding_layer_of_a_stack_leaves_the_others_alone() -> None:
    tx = gs.stable_adamw(1.0, units="layer", rules=(gs.rules.global_norm(np.float32(1e30)),))
    alone = gs.stable_adamw(1.0, rules=(gs.rules.global_norm(np.float32(1e30)),))
    rng = np.random.default_rng(4)
    params = jnp.asarray(rng.normal(size=(24, 3, 3)), jnp.float32)
    given = jnp.asarray(rng.normal(size=(24, 3, 3)), jnp.float32).at[7].multiply(1e12)
    stacked, _ = jax.jit(tx.update)(given, tx.init(params), params)
    separate = jax.jit(alone.update)
    for layer in (0, 7, 23):
        one, _ = separate(given[layer], alone.init(params[layer]), params[layer])
        np.testing.assert_allclose(stacked[layer], one, rtol=1e-5)


def test_shards_under_an_axis_name_act_as_one_leaf() -> None:
    rng = np.random.default_rng(5)
    params, given = (jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32) for _ in range(2))

    def one(tx: optax.GradientTransformation) -> Callable[..., Any]:
        return lambda g, p: tx.update(g, tx.init(p), p)[0]

    whole = one(gs.stable_adamw(1.0, max_rms=0.3))(given, params)
    sharded = one(gs.stable_adamw(1.0, max_rms=0.3, axis_name="shards"))
    got = jax.jit(jax.vmap(sharded, axis_name="shards"))(given, params)
    np.testing.assert_allclose(got, whole, rtol=1e-5)


def test_known_weakness_zeros_start_slowly() -> None:
    ones = jnp.ones((80, *SHAPE))
    capped = follow(gs.stable_adamw(1e-3), jnp.zeros(SHAPE), ones, as_given)
    plain = follow(gs.adamw(1e-3), jnp.zeros(SHAPE), ones, as_given)
    first = [
        int(np.argmax(np.abs(trail[:, 0, 0]) >= 0.01 * (1 - 1e-4))) for trail in (capped, plain)
    ]
    assert first == [35, 10]


def test_it_moves_fourteen_words_where_adamw_moves_eleven() -> None:
    tree = large_tree()
    count = count_common_path(gs.stable_adamw(3e-4), tree)
    assert count.words <= 14.1
    assert count.temp <= 0.001


@pytest.mark.slow
def test_its_rare_branch_takes_memory_for_less_than_a_leaf() -> None:
    _, whole = compile_step(gs.stable_adamw(3e-4), large_tree())
    assert whole.temp <= 0.02


def test_missing_params_are_told() -> None:
    tx = gs.stable_adamw(1e-3)
    with pytest.raises(ValueError, match=r"stable_adamw compares with params"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))
