"""Muon: against the reference, in every shape, sharded, and where numbers end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import gradstable as gs
from gradstable._src.moments.newton_schulz import coefficients
from gradstable._src.testing.tracing import check_sharding
from tests.oracles.muon import muon as oracle
from tests.oracles.muon import newton_schulz


def updates_of(tx: optax.GradientTransformation, gradients: Any) -> Any:
    def body(state: Any, g: Any) -> tuple[Any, Any]:
        u, state = tx.update(g, state)
        return state, u

    first = jax.tree.map(lambda g: g[0], gradients)
    return jax.jit(lambda given: jax.lax.scan(body, tx.init(first), given)[1])(gradients)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "beta": 0.9, "ns_steps": 3, "scale": "jordan"},
        {"scale": "moonshot", "eps": 0.1},
    ],
    ids=str,
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    tree = {name: rng.normal(size=(12, *shape)) for name, shape in SHAPES.items()}
    given = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), tree)
    got = updates_of(gs.moments.scale_by_muon(**options), given)
    for name, g in tree.items():
        np.testing.assert_allclose(got[name], oracle(g, **options), rtol=2e-4, atol=2e-5)


SHAPES = {"tall": (9, 4), "wide": (4, 9), "square": (5, 5), "row": (1, 6), "column": (6, 1)}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"nesterov": False},
    {"ns_coeffs": "dion"},
    {"ns_coeffs": ((3.0, -4.0, 2.0), (2.0, -1.5, 0.5)), "preconditioning": "spectral"},
    {"adaptive": True, "preconditioning": "aol"},
    {"preconditioning": "schatten", "ns_steps": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_optax_with_every_option(options: dict[str, Any]) -> None:
    given = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5, 7)), jnp.float32)
    theirs = dict(options)
    if theirs.get("ns_coeffs") == "dion":  # there only optax.contrib.muon knows the name
        theirs["ns_coeffs"] = tuple(map(tuple, coefficients("dion", 5)))
    ours = updates_of(gs.moments.scale_by_muon(**options), given)
    wanted = updates_of(optax.contrib.scale_by_muon(**theirs), given)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_nesterov_corrects_both_parts_for_their_bias() -> None:
    """As optax does; without, updates in the second step were 0.08 off."""
    given = np.random.default_rng(7).normal(size=(2, 4, 4))
    got = np.asarray(updates_of(gs.moments.scale_by_muon(), jnp.asarray(given, jnp.float32)))
    uncorrected = [newton_schulz(given[0])]
    mu = 0.05 * given[0] * 0.95 + 0.05 * given[1]
    uncorrected.append(newton_schulz(0.95 * mu + 0.05 * given[1]))
    away = np.abs(got - np.stack(uncorrected)).max((1, 2))
    assert away[0] < 1e-4
    assert away[1] > 0.02


def test_dimension_numbers_say_which_axes_make_a_matrix() -> None:
    numbers = optax.contrib.MuonDimensionNumbers
    g = np.random.default_rng(8).normal(size=(1, 3, 4, 5)).astype("f4")
    given = {"a": jnp.asarray(g), "b": jnp.asarray(g)}
    said = {"a": numbers((0, 1), -1), "b": numbers(1, 0)}
    for says in (said, lambda _: said):
        got = updates_of(gs.moments.scale_by_muon(weight_dimension_numbers=says), given)
        np.testing.assert_allclose(
            np.asarray(got["a"]).reshape(12, 5), newton_schulz(g.reshape(12, 5)), atol=1e-4
        )
        for layer in range(5):
            wanted = newton_schulz(g[0, :, :, layer])
            np.testing.assert_allclose(got["b"][0, :, :, layer], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "numbers",
    [
        optax.contrib.MuonDimensionNumbers(0, 0),
        optax.contrib.MuonDimensionNumbers(0, 2),
        optax.contrib.MuonDimensionNumbers((), 1),
        {"other": optax.contrib.MuonDimensionNumbers()},
    ],
)
def test_dimension_numbers_that_do_not_fit_are_told(numbers: Any) -> None:
    params = {"w": jnp.ones((2, 3))}
    tx = gs.moments.scale_by_muon(weight_dimension_numbers=numbers)
    with pytest.raises(ValueError, match="weight_dimension_numbers"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="pass only one"):
        gs.muon(1e-3, matrices={"w": True}, muon_weight_dimension_numbers=numbers)


def test_first_step_is_the_iteration_on_the_gradient() -> None:
    g = np.random.default_rng(2).normal(size=(6, 6)).astype("f4")
    got = updates_of(gs.moments.scale_by_muon(beta=0.0), jnp.asarray(g)[None])[0]
    np.testing.assert_allclose(got, newton_schulz(g), rtol=1e-4, atol=1e-5)


def test_stacks_convolutions_and_heads_are_many_matrices() -> None:
    rng = np.random.default_rng(3)
    tree = {
        "stack": rng.normal(size=(1, 24, 4, 4)),
        "conv": {"kernel": rng.normal(size=(1, 3, 3, 2, 5)), "bias": rng.normal(size=(1, 5))},
        "attention": {
            "query": {"kernel": rng.normal(size=(1, 8, 2, 4))},
            "out": {"kernel": rng.normal(size=(1, 2, 4, 8))},
        },
    }
    tree["stack"][0, 7] *= 1e15
    got = updates_of(
        gs.moments.scale_by_muon(), jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), tree)
    )

    def matrix(leaf: Any, rows: int, columns: int) -> np.ndarray:
        return np.asarray(leaf).reshape(1, rows, columns)

    for layer in range(24):
        wanted = oracle(tree["stack"][:, layer])
        np.testing.assert_allclose(got["stack"][:, layer], wanted, rtol=1e-3, atol=2e-4)
    for part, name, rows, columns in (
        ("conv", "kernel", 18, 5),
        ("attention", "query", 8, 8),
        ("attention", "out", 8, 8),
    ):
        leaf, own = tree[part][name], got[part][name]
        leaf, own = (each if part == "conv" else each["kernel"] for each in (leaf, own))
        wanted = oracle(matrix(leaf, rows, columns))
        np.testing.assert_allclose(matrix(own, rows, columns), wanted, rtol=1e-3, atol=2e-4)
    bias = tree["conv"]["bias"]
    wanted = oracle(bias[:, None])[:, 0]
    np.testing.assert_allclose(got["conv"]["bias"], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1e18, 1e30, 1e-15, 1e-30])
def test_pitfall_norm_of_huge_or_tiny_momentum(size: float) -> None:
    """The size of a gradient must not matter; above 2**62 an entry counts as zero."""
    g = np.random.default_rng(4).normal(size=(4, 4)).astype("f4") * np.float32(size)
    got = updates_of(gs.moments.scale_by_muon(eps=0.0), jnp.asarray(g)[None])[0]
    if size > 2.0**62:
        np.testing.assert_array_equal(got, 0.0)
    else:
        np.testing.assert_allclose(got, newton_schulz(g, eps=0.0), rtol=1e-3, atol=1e-4)


def test_pitfall_zero_gradient_gives_zero() -> None:
    for g in (jnp.zeros((3, 4)), jnp.full((3, 4), 1e-42), jnp.zeros((0, 3)), jnp.zeros(())):
        for eps in (0.0, 1e-7):
            tx = gs.moments.scale_by_muon(eps=eps)
            got, _ = tx.update(g, tx.init(g))
            np.testing.assert_array_equal(got, np.zeros(g.shape))


def test_pitfall_nan_leaves_the_momentum_alone() -> None:
    tx = gs.moments.scale_by_muon()
    g = jnp.asarray(np.random.default_rng(5).normal(size=(3, 4)), jnp.float32)
    _, before = tx.update(g, tx.init(g))
    got, after = tx.update(g.at[1, 2].set(jnp.nan), before)
    assert jnp.isfinite(got).all()
    assert after.mu[1, 2] == before.mu[1, 2]


def test_low_precision_moves_singular_values_by_a_few_percent() -> None:
    g = np.random.default_rng(6).normal(size=(1, 16, 16)).astype("f4")
    exact = updates_of(gs.moments.scale_by_muon(), jnp.asarray(g))[0]
    fast = updates_of(gs.moments.scale_by_muon(compute_dtype=jnp.bfloat16), jnp.asarray(g))[0]
    narrow = updates_of(gs.moments.scale_by_muon(), jnp.asarray(g, jnp.bfloat16))[0]
    assert fast.dtype == jnp.float32
    assert narrow.dtype == jnp.bfloat16
    for got in (fast, narrow):
        assert np.linalg.norm(np.asarray(got - exact, "f4"), 2) < 0.2
        values = np.linalg.svd(np.asarray(got, "f4"), compute_uv=False)
        assert values.max() < 1.25


def test_singular_values_after_five_steps() -> None:
    values = np.geomspace(1e-2, 1.0, 20_000)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert values.min() == pytest.approx(0.68, abs=0.005)
    assert values.max() == pytest.approx(1.134, abs=0.005)


def test_known_weakness_noise_is_amplified_485_times() -> None:
    g = np.diag([1.0, 1e-6]).astype("f4")
    got = updates_of(gs.moments.scale_by_muon(), jnp.asarray(g)[None])[0]
    assert got[1, 1] / 1e-6 == pytest.approx(485, rel=0.01)


def test_known_weakness_one_spike_owns_the_direction_for_76_steps() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=(2, 8, 8)).astype("f4")
    given = np.repeat(good[None], 200, 0)
    given[50] = bad * 1000
    got = np.asarray(updates_of(gs.moments.scale_by_muon(), jnp.asarray(given)))

    def likeness(other: np.ndarray) -> np.ndarray:
        return (got * other).sum((1, 2)) / np.linalg.norm(got, axis=(1, 2)) / np.linalg.norm(other)

    free = likeness(got[49]) > likeness(got[50])
    assert int(np.argmax(free[50:])) == 76


@pytest.mark.parametrize("spec", [(None, "x"), ("x", None), ("x", "y"), ("y", "x")])
def test_leaves_may_be_sharded_by_any_axis_in_explicit_mode(spec: tuple[str | None, ...]) -> None:
    """optax.contrib.muon raises here: it reshapes, and leaves products ambiguous."""
    mesh = AbstractMesh((2, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)

    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        whole = PartitionSpec(*[None] * (len(shape) - 2), *spec)
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, whole))

    with jax.sharding.use_abstract_mesh(mesh):
        for tx in (gs.moments.scale_by_muon(), gs.muon(1e-3)):
            params = {"wide": leaf(4, 8), "tall": leaf(8, 4), "stack": leaf(3, 4, 8)}
            params["conv"] = leaf(3, 3, 4, 8)
            updates, _ = jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)
            for name, update in updates.items():
                assert update.sharding.spec == params[name].sharding.spec
        params = leaf(4, 8)
        theirs = optax.contrib.muon(1e-3)
        with pytest.raises(Exception, match=r"[Ss]hard"):
            jax.eval_shape(theirs.update, params, jax.eval_shape(theirs.init, params), params)


def test_stacked_leaves_may_be_sharded_by_layer() -> None:
    check_sharding(
        gs.moments.scale_by_muon(), {"stack": jnp.ones((4, 3, 5)), "w": jnp.ones((3, 4))}
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": "keller"}, r"scale must be one of \('jordan', 'moonshot'\)"),
        ({"ns_steps": 0}, "ns_steps must be a number >= 1"),
        ({"ns_coeffs": "muon"}, r"ns_coeffs must be one of \('standard', 'dion'\)"),
        ({"ns_coeffs": (3.0, -4.0)}, r"ns_coeffs must be three numbers.* got shape \(2,\)"),
        ({"preconditioning": "svd"}, r"preconditioning must be one of"),
        ({"consistent_rms": 0.0}, "consistent_rms must be a number > 0"),
        ({"ns_steps": 2.5}, "ns_steps must be a.* got 2.5"),
        ({"beta": 1.0}, "beta must be a number >= 0 and < 1"),
        ({"eps": -1.0}, "eps must be a number >= 0"),
    ],
)
def test_bad_arguments_are_told(options: dict[str, Any], told: str) -> None:
    for make in (gs.moments.scale_by_muon, lambda **options: gs.muon(1e-3, **options)):
        with pytest.raises((TypeError, ValueError), match=told):
            make(**options)
