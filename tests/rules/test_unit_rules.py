"""Rules that judge units: oracle, optax, stacks of layers, heads, tokens, huge and tiny ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from gradstable.rules import block_norm, block_rms, unit_norm
from tests.oracles.block_norm import block_norm as oracle_norm
from tests.oracles.block_norm import block_rms as oracle_rms
from tests.oracles.unit_norm import unit_norm as oracle_unit

# The axes that tell units apart by default, as Flax lays its kernels out.
KEPT = {
    "dense": (1,),
    "conv": (3,),
    "vector": (),
    "scalar": (),
    "layers": (0, 2),
    "embed": (0,),
}
PATHS = {"dense": "kernel", "conv": "kernel", "vector": "bias", "scalar": "w", "layers": "kernel"}
SHAPES = {
    "dense": (5, 4),
    "conv": (3, 2, 2, 4),
    "vector": (6,),
    "scalar": (),
    "layers": (3, 4, 2),
    "embed": (7, 3),
}


def tree(seed: int, *names: str, size: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def leaf(shape: tuple[int, ...]) -> np.ndarray:
        spread = np.exp(rng.normal(0, 2, shape))
        return np.asarray(rng.normal(size=shape) * spread * size).astype(np.float32)

    return {name: {PATHS.get(name, "embedding"): leaf(SHAPES[name])} for name in names or SHAPES}


def one(leaves: dict[str, Any]) -> np.ndarray:
    return np.asarray(next(iter(leaves.values())))


def apply(
    tx: optax.GradientTransformation, gradient: Any, params: Any = None
) -> tuple[Any, gs.Health]:
    gradient = jax.tree.map(jnp.asarray, gradient)
    # Outside jit: many small programs, which the tests share, compile faster than large ones.
    updates, state = tx.update(gradient, tx.init(gradient), params)
    return updates, gs.health(state)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed precision"])
def test_unit_norm_equals_the_float64_oracle(mixed: bool) -> None:
    gradient, params = tree(0, size=0.02), tree(1)
    params["vector"]["bias"] = np.zeros(6, np.float32)
    if mixed:
        precise = {"dense": jnp.bfloat16, "conv": jnp.float16, "layers": jnp.bfloat16}
        for name, dtype in precise.items():
            gradient[name] = {"kernel": one(gradient[name]).astype(dtype)}
    tx = gs.clipping.clip_by(gs.rules.unit_norm(0.02, eps=0.01))
    updates, state = jax.jit(tx.update)(gradient, tx.init(params), params)
    assert gs.health(state).clipped == 1
    for name, kept in KEPT.items():
        given, got = one(gradient[name]), one(updates[name])
        want = oracle_unit(given, one(params[name]), kept=kept, clipping=0.02, eps=0.01)
        assert got.dtype == given.dtype
        # Rounding to the nearest: half a unit in the last place.
        rtol = max(1e-5, float(jnp.finfo(got.dtype).eps))
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("rule", "oracle"),
    [(gs.rules.block_norm, oracle_norm), (gs.rules.block_rms, oracle_rms)],
)
def test_blocks_equal_the_float64_oracle(rule: Any, oracle: Callable[..., Any]) -> None:
    gradient = tree(2, "dense", "layers", "scalar")
    updates, _ = apply(gs.clipping.clip_by(rule(0.7)), gradient)
    for name in gradient:
        (want,) = oracle([one(gradient[name])], 0.7)
        np.testing.assert_allclose(one(updates[name]), want, rtol=1e-5)
    updates, _ = apply(gs.clipping.clip_by(rule(0.7, units="layer")), gradient)
    for got, want in zip(one(updates["layers"]), oracle(one(gradient["layers"]), 0.7), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_unit_norm_equals_optax_on_dense_conv_and_vectors() -> None:
    gradient, params = (tree(seed, "dense", "conv", "vector") for seed in (3, 4))
    ours, _ = apply(gs.clipping.clip_by(gs.rules.unit_norm()), gradient, params)
    theirs, _ = optax.adaptive_grad_clip(0.01).update(gradient, optax.EmptyState(), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, theirs)


def test_unit_norm_equals_optax_on_queries_but_not_on_what_joins_heads() -> None:
    rng = np.random.default_rng(13)
    shapes = {"query": (5, 3, 4), "out": (3, 4, 5)}

    def attention(size: float) -> Any:
        draw = {name: rng.normal(size=shape) * size for name, shape in shapes.items()}
        return {name: {"kernel": np.float32(kernel)} for name, kernel in draw.items()}

    gradient, params = attention(0.1), attention(1.0)
    ours, _ = apply(gs.clipping.clip_by(gs.rules.unit_norm()), gradient, params)
    theirs: Any
    theirs, _ = optax.adaptive_grad_clip(0.01).update(gradient, optax.EmptyState(), params)
    np.testing.assert_allclose(one(ours["query"]), one(theirs["query"]), rtol=1e-5)
    want = oracle_unit(one(gradient["out"]), one(params["out"]), kept=(2,))
    np.testing.assert_allclose(one(ours["out"]), want, rtol=1e-5)


def test_block_rms_equals_optax() -> None:
    gradient = tree(5)
    ours, _ = apply(gs.clipping.clip_by(gs.rules.block_rms(0.3)), gradient)
    theirs, _ = optax.clip_by_block_rms(0.3).update(gradient, optax.EmptyState())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, theirs)


def test_pitfall_optax_mixes_the_layers_of_a_stack() -> None:
    gradient, params = np.full((3, 4, 2), 1e-3, np.float32), np.ones((3, 4, 2), np.float32)
    gradient[1] *= 1e6
    theirs: Any
    theirs, _ = optax.adaptive_grad_clip(0.01).update(gradient, optax.EmptyState(), params)
    ours, _ = apply(gs.clipping.clip_by(gs.rules.unit_norm()), gradient, params)
    assert np.abs(theirs[0]).max() < 1e-7
    np.testing.assert_array_equal(ours[0], gradient[0])


STACKED = {
    "unit_norm": (unit_norm(), unit_norm()),
    "unit_norm(stacked)": (unit_norm(units="stacked"), unit_norm(units="output")),
    "unit_norm(layer)": (unit_norm(units="layer"), unit_norm(units="leaf")),
    "block_norm(layer)": (block_norm(1.0, units="layer"), block_norm(1.0)),
    "block_rms(layer)": (block_rms(0.01, units="layer"), block_rms(0.01)),
}


def stack_with_a_broken_layer() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    gradient = rng.normal(size=(24, 6, 5)).astype(np.float32) * 0.003
    gradient[7] *= 1e6
    return gradient, rng.normal(size=(24, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("what", STACKED)
def test_stacked_layers_get_what_separate_leaves_get(what: str) -> None:
    """Pitfall: one layer of a scanned stack explodes and silences the other 23."""
    gradient, params = stack_with_a_broken_layer()
    of_stack, of_leaf = (gs.guard(optax.sgd(1.0), rule) for rule in STACKED[what])

    def stacked(g: Any, p: Any) -> Any:
        tree = {"layers": {"kernel": p}}
        updates, _ = of_stack.update({"layers": {"kernel": g}}, of_stack.init(tree), tree)
        return updates

    def separate(g: Any, p: Any) -> Any:
        return of_leaf.update({"kernel": g}, of_leaf.init(p), {"kernel": p})[0]

    (got,) = jax.tree.leaves(jax.jit(stacked)(gradient, params))
    want = jax.jit(jax.vmap(separate))(gradient, params)["kernel"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=0)
    calm = np.delete(np.abs(gradient), 7, axis=0)
    assert np.delete(np.abs(got), 7, axis=0).max() > 0.1 * calm.max()


@pytest.mark.parametrize("what", ["head", "token", "filter"])
def test_a_broken_unit_leaves_its_neighbors_alone(what: str) -> None:
    path, shape, part, units = {
        "head": (("attn", "query", "kernel"), (5, 3, 4), np.s_[:, 1, :], "head"),
        "token": (("embed", "embedding"), (7, 3), np.s_[2], "flax"),
        "filter": (("conv", "kernel"), (3, 3, 2, 4), np.s_[..., 1], "flax"),
    }[what]

    def nest(leaf: np.ndarray) -> Any:
        for name in reversed(path):
            leaf = {name: leaf}  # pyright: ignore[reportAssignmentType]
        return leaf

    gradient, params = np.full(shape, 1e-3, np.float32), np.ones(shape, np.float32)
    gradient[part] = 1e9
    updates, _ = apply(
        gs.clipping.clip_by(gs.rules.unit_norm(units=units)), nest(gradient), nest(params)
    )
    (got,) = jax.tree.leaves(updates)
    want = np.full(shape, 1e-3)
    want[part] = 0.01
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("huge", "where"),
    [
        (1e15, "another leaf"),
        (1e25, "another leaf"),
        (1e15, "another layer"),
        (1e17, "another row"),
    ],
)
def test_pitfall_a_huge_unit_does_not_hide_the_others(huge: float, where: str) -> None:
    """A shift that keeps the largest from overflowing takes all others to zero."""
    updates, health = with_one_huge(huge, where)
    assert health.accepted == 1
    np.testing.assert_allclose(updates["kernel"], 0.01, rtol=1e-5)
    np.testing.assert_allclose(updates["other"], 0.01, rtol=1e-5)


@pytest.mark.parametrize(("huge", "where"), [(1e25, "another layer"), (3e38, "another leaf")])
def test_beyond_that_the_step_is_rejected(huge: float, where: str) -> None:
    """After scaling, a leaf is known to be small enough by its largest factor alone."""
    updates, health = with_one_huge(huge, where)
    assert health.rejected == 1
    assert health.reason == gs.rules.Reason.OVERFLOW
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, 0.0), updates)


def with_one_huge(huge: float, where: str) -> Any:
    gradient = {"kernel": np.full((4, 3, 2), 0.5, np.float32), "other": np.ones((2, 2), np.float32)}
    places: dict[str, Any] = {
        "another leaf": ("other", np.s_[:]),
        "another layer": ("kernel", 3),
        "another row": ("kernel", np.s_[:, :, 1]),
    }
    name, part = places[where]
    gradient[name][part] = huge
    return apply(
        gs.clipping.clip_by(gs.rules.unit_norm()), gradient, jax.tree.map(np.ones_like, gradient)
    )


@pytest.mark.parametrize("size", [1e-12, 1e-25, 1e-36])
def test_tiny_units_are_measured(size: float) -> None:
    gradient = {"a": np.full((3, 4), size, np.float32), "b": np.full((3, 4), size / 8, np.float32)}
    updates, _ = apply(gs.clipping.clip_by(gs.rules.block_norm(size, units="layer")), gradient)
    np.testing.assert_allclose(updates["a"], size / 2, rtol=1e-5)
    np.testing.assert_array_equal(updates["b"], gradient["b"])


def test_units_of_the_guard_are_for_rules_that_name_none() -> None:
    gradient, params = (tree(seed, "dense", "layers") for seed in (7, 8))

    def run(*rules: gs.rules.Rule, units: Any = None) -> Any:
        tx = gs.guard(optax.sgd(1.0), *rules, units=units)
        return apply(tx, gradient, params)[0]

    by_guard = run(unit_norm(), units="leaf")
    jax.tree.map(np.testing.assert_array_equal, by_guard, run(unit_norm(units="leaf")))
    by_rule = run(unit_norm(units="flax"), units="leaf")
    jax.tree.map(np.testing.assert_array_equal, by_rule, run(unit_norm()))
    assert not np.allclose(one(by_guard["dense"]), one(by_rule["dense"]))
    # Whole leaves are not units, and stay whole.
    whole = run(block_norm(0.5), units="layer")
    jax.tree.map(np.testing.assert_array_equal, whole, run(block_norm(0.5)))


def test_units_by_function_and_by_tree() -> None:
    gradient, params = (tree(seed, "dense", "embed") for seed in (9, 10))
    by_name, _ = apply(
        gs.clipping.clip_by(
            gs.rules.unit_norm(units=lambda path, leaf: "leaf" if "embed" in path else "flax")
        ),
        gradient,
        params,
    )
    kinds = {name: dict.fromkeys(leaves, "flax") for name, leaves in gradient.items()}
    kinds["embed"] = {"embedding": "leaf"}
    by_tree, _ = apply(gs.clipping.clip_by(gs.rules.unit_norm(units=kinds)), gradient, params)
    jax.tree.map(np.testing.assert_array_equal, by_name, by_tree)


def test_far_limits_are_the_identity() -> None:
    gradient, params = (tree(seed, "layers", "vector") for seed in (11, 12))
    for tx in (
        gs.clipping.clip_by(gs.rules.block_norm(1e30)),
        gs.clipping.clip_by(gs.rules.block_norm(1e30, units="flax")),
        gs.clipping.clip_by(gs.rules.block_rms(1e30)),
        gs.clipping.clip_by(gs.rules.unit_norm(1e30)),
    ):
        updates, health = apply(tx, gradient, params)
        jax.tree.map(np.testing.assert_array_equal, updates, gradient)
        assert health.clipped == 0


TWICE = (
    gs.clipping.clip_by(gs.rules.unit_norm(0.02)),
    gs.clipping.clip_by(gs.rules.block_norm(0.5)),
    gs.clipping.clip_by(gs.rules.block_rms(0.1)),
)


@jax.jit
def once_and_twice(gradient: Any, params: Any) -> list[tuple[Any, Any]]:
    pairs = []
    for tx in TWICE:
        once, state = tx.update(gradient, tx.init(params), params)
        pairs.append((once, tx.update(once, state, params)[0]))
    return pairs


@given(st.integers(0, 99), st.integers(-20, 20))
def test_clipping_again_changes_nothing(seed: int, power: int) -> None:
    gradient = tree(seed, "layers", "vector", size=2.0**power)
    for once, twice in once_and_twice(gradient, tree(seed + 1, "layers", "vector")):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), twice, once)


def test_weakness_a_bias_at_zero_needs_1000_steps_to_reach_1e_3() -> None:
    tx = optax.chain(gs.clipping.clip_by(gs.rules.unit_norm()), optax.sgd(0.1))

    def step(bias: Any, _: None) -> tuple[Any, None]:
        updates, _state = tx.update(jnp.ones(4), tx.init(bias), bias)
        return optax.apply_updates(bias, updates), None

    bias, _ = jax.jit(lambda p: jax.lax.scan(step, p, None, length=1_000))(jnp.zeros(4))
    assert float(jnp.linalg.norm(bias)) == pytest.approx(1e-3, rel=1e-3)


def test_weakness_one_entry_passes_at_the_root_of_the_size() -> None:
    gradient = np.zeros((100, 100), np.float32)
    gradient[3, 5] = 1e9
    updates, _ = apply(gs.clipping.clip_by(gs.rules.block_rms(1.0)), gradient)
    assert float(updates[3, 5]) == pytest.approx(100.0)


def test_weakness_without_units_a_broken_layer_silences_its_stack() -> None:
    gradient, _ = stack_with_a_broken_layer()
    updates, _ = apply(gs.clipping.clip_by(gs.rules.block_norm(0.1)), gradient)
    norm = np.linalg.norm(gradient[7])
    np.testing.assert_allclose(updates[0], gradient[0] * 0.1 / norm, rtol=1e-4)
    assert norm > 1e4


def test_missing_params_and_wrong_units_are_told() -> None:
    g = jnp.ones((2, 2))
    tx = gs.clipping.clip_by(gs.rules.unit_norm())
    with pytest.raises(ValueError, match=r"needs them: call update\(updates, state, params\)"):
        tx.update(g, tx.init(g))
    for make in (unit_norm, lambda **kw: block_norm(1.0, **kw), lambda **kw: block_rms(1.0, **kw)):
        with pytest.raises(ValueError, match=r"units must be one of .* got 'row'"):
            make(units="row")
        with pytest.raises(TypeError, match="units must be one of"):
            make(units=0)
    bad = gs.clipping.clip_by(gs.rules.unit_norm(units=(2,)))
    with pytest.raises(ValueError, match=r"keep the axes .* but it has 2 dimensions"):
        bad.update(g, bad.init(g), g)
