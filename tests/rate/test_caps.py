"""The caps on updates and steps, and the trust ratio: against oracles, at limits, in any units."""

from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradstable as gs
from tests.oracles import sizes as oracle

SHAPE = (4, 3, 5)
RNG = np.random.default_rng(0)
PARAMS = (RNG.normal(size=SHAPE) * np.array([0.0, 1e-4, 1.0, 30.0])[:, None, None]).astype("f4")
PARAMS_RMS = float(np.sqrt(np.mean(np.square(PARAMS))))


def apply(
    tx: optax.GradientTransformation, updates: Any, params: Any, *, jit: bool = True
) -> np.ndarray:
    def run(updates: Any, params: Any) -> Any:
        return tx.update(updates, tx.init(params), params)[0]

    out = (jax.jit(run) if jit else run)(jnp.asarray(updates), jnp.asarray(params))
    return np.asarray(out)


MAKE: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "cap_update_rms": (
        lambda units: gs.rate.cap_update_rms(0.7, units=units),
        lambda u, p: oracle.cap_update_rms(u, 0.7),
    ),
    "cap_trust": (
        lambda units: gs.rate.cap_trust(0.2, floor=1e-2, units=units),
        lambda u, p: oracle.cap_trust(u, p, 0.2, max(1e-2, 0.1 * PARAMS_RMS)),
    ),
    "trust_ratio": (
        lambda units: gs.rate.scale_by_trust_ratio(trust_coefficient=0.5, eps=1e-3, units=units),
        lambda u, p: oracle.trust_ratio(u, p, trust_coefficient=0.5, eps=1e-3),
    ),
    "trust_clip": (
        lambda units: gs.rate.scale_by_trust_ratio(min_norm=1e-2, trust_clip=True, units=units),
        lambda u, p: oracle.trust_ratio(u, p, min_norm=1e-2, trust_clip=True),
    ),
}
UNITS = ("leaf", "layer")
# Within 1e-5 in float32; half a unit in the last place of what is narrower, or a whole one where
# an entry is rounded towards zero.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7, "float16": 2.0**-10}


@jax.jit
def everything(updates: Any, params: Any) -> dict[str, Any]:
    """Apply all four, by leaf and by layer: compiled once for a dtype."""
    kinds = {(name, units): make(units) for name, (make, _) in MAKE.items() for units in UNITS}
    return {kind: tx.update(updates, tx.init(params), params)[0] for kind, tx in kinds.items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_the_float64_oracle(dtype: str) -> None:
    scales = np.array([1e-3, 1.0, 50.0, 0.0])[:, None, None]
    updates = jnp.asarray(RNG.normal(size=SHAPE) * scales, dtype)
    params = jnp.asarray(PARAMS, dtype)
    u, p = np.asarray(updates), np.asarray(params)
    for (name, units), got in everything(updates, params).items():
        _, expected = MAKE[name]
        wanted = expected(u, p) if units == "leaf" else oracle.by_layer(expected, u, p)
        assert got.dtype == updates.dtype
        np.testing.assert_allclose(
            np.asarray(got, "f8"), wanted, rtol=TOLERANCE[dtype], atol=1e-7, err_msg=name
        )


def test_exploding_layer_of_a_stack_equals_separate_leaves() -> None:
    rng = np.random.default_rng(1)
    updates, params = rng.normal(size=(2, 6, 8, 8)).astype("f4")
    updates[3] *= 1e25
    stacked = everything(updates, params)
    separate = everything(list(updates), list(params))
    for name in MAKE:
        np.testing.assert_allclose(
            stacked[name, "layer"], np.stack(separate[name, "leaf"]), rtol=1e-5, err_msg=name
        )


def test_infinite_limits_are_the_identity() -> None:
    updates = RNG.normal(size=SHAPE).astype("f4") * 1e20
    for tx in (gs.rate.cap_update_rms(jnp.inf), gs.rate.cap_trust(jnp.inf)):
        np.testing.assert_array_equal(apply(tx, updates, PARAMS), updates)


def test_what_is_within_the_limit_passes_bit_by_bit() -> None:
    updates = np.asarray(jnp.asarray(RNG.normal(size=SHAPE) * 1e-3, jnp.bfloat16))
    for tx in (
        gs.rate.cap_update_rms(),
        gs.rate.cap_trust(),
        gs.rate.scale_by_trust_ratio(trust_clip=True),
    ):
        got = apply(tx, updates, np.ones(SHAPE, "f4").astype(updates.dtype))
        np.testing.assert_array_equal(got.view("u2"), updates.view("u2"))


def test_trust_ratio_equals_optax_on_healthy_float32() -> None:
    updates = {"w": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32), "b": jnp.zeros(3)}
    params = {"w": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32), "b": jnp.ones(3)}
    for options in ({}, {"min_norm": 3.0}, {"trust_coefficient": 0.01, "eps": 0.1}):
        ours, theirs = (
            gs.rate.scale_by_trust_ratio(**options),
            optax.scale_by_trust_ratio(**options),
        )
        got, _ = jax.jit(ours.update)(updates, ours.init(params), params)
        wanted, _ = jax.jit(theirs.update)(updates, theirs.init(params), params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, wanted)


@pytest.mark.parametrize("size", [1e38, 1e20, 1e-30])
def test_pitfall_norms_neither_overflow_nor_vanish(size: float) -> None:
    """optax squares in the dtype of the leaf: 0 from 1e20, and a ratio of 1 from 1e-30."""
    updates = np.full((4,), size, "f4")
    params = np.full((4,), 2.0, "f4")
    ratio = apply(gs.rate.scale_by_trust_ratio(), updates, params)
    np.testing.assert_allclose(ratio, params, rtol=1e-5)
    capped = apply(gs.rate.cap_update_rms(size / 4), updates, params)
    np.testing.assert_allclose(capped, size / 4, rtol=1e-5)


def test_pitfall_float16_norm_of_300_is_no_infinity() -> None:
    updates = np.full((100,), 30.0, np.float16)
    got = apply(gs.rate.scale_by_trust_ratio(), updates, np.full((100,), 0.5, np.float16))
    np.testing.assert_allclose(got.astype("f4"), 0.5, rtol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_entry_zeroes_its_unit_and_no_other(bad: float) -> None:
    updates = np.ones(SHAPE, "f4")
    broken = updates.copy()
    broken[1, 0, 0] = bad
    good, got = everything(updates, PARAMS), everything(broken, PARAMS)
    for name in MAKE:
        before, after = np.asarray(good[name, "layer"]), np.asarray(got[name, "layer"])
        np.testing.assert_array_equal(after[1], 0.0)
        np.testing.assert_allclose(np.delete(after, 1, 0), np.delete(before, 1, 0), rtol=1e-6)
        np.testing.assert_array_equal(got[name, "leaf"], 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_broken_parameters_do_not_lift_the_cap(bad: float) -> None:
    params = np.full((4,), bad, "f4")
    got = apply(gs.rate.cap_trust(0.1, units="output"), np.full((4,), 1e6, "f4"), params)
    assert oracle.norm(got) <= 0.1 * max(1e-3 * 2, 2e30 if bad == 1e30 else 0.0) * (1 + 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_capped_step_is_never_longer_than_the_cap_after_rounding(dtype: str) -> None:
    """Rounding to nearest would lift half of all steps above the cap, by up to 0.4 %."""
    rng = np.random.default_rng(2)
    params = jnp.asarray(rng.normal(size=(200, 7)) * 1e-4, dtype)
    updates = jnp.asarray(rng.normal(size=(200, 7)), dtype)
    capped = apply(gs.rate.cap_trust(0.1, floor=1e-4, units=(0,)), updates, params).astype("f8")
    limit = [0.1 * max(oracle.norm(p), 1e-4 * 7**0.5) for p in np.asarray(params, "f8")]
    ratio = np.linalg.norm(capped, axis=1) / limit
    assert ratio.max() <= 1.0 + 1e-5
    assert ratio.min() >= (0.98 if dtype == "bfloat16" else 0.5)


def test_rounding_to_nearest_would_break_the_cap() -> None:
    """What the test above is there for: the chance of it is not small."""
    u = np.asarray(jnp.asarray(np.random.default_rng(2).normal(size=(200, 7)), jnp.bfloat16), "f8")
    scaled = u / np.linalg.norm(u, axis=1, keepdims=True)
    rounded = np.asarray(jnp.asarray(scaled, jnp.bfloat16), "f8")
    assert (np.linalg.norm(rounded, axis=1) > 1.0).mean() > 0.4


def test_shards_under_an_axis_name_act_as_one_leaf() -> None:
    updates = jnp.asarray(RNG.normal(size=(2, 6)) * 1e3, jnp.float32)
    params = jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32)
    for make in (gs.rate.cap_update_rms, gs.rate.cap_trust, gs.rate.scale_by_trust_ratio):
        tx, whole = make(axis_name="shards"), make()
        act = jax.vmap(lambda u, p, tx=tx: tx.update(u, tx.init(p), p)[0], axis_name="shards")
        wanted = jax.jit(lambda u, p, tx=whole: tx.update(u, tx.init(p), p)[0])(updates, params)
        np.testing.assert_allclose(jax.jit(act)(updates, params), wanted, rtol=1e-5)


def test_layers_of_a_split_stack_know_the_size_of_all_parameters() -> None:
    """Each device holds only some of them."""
    sizes = np.array([1e-3, 1.0, 1.0, 30.0])[:, None, None]
    params = jnp.asarray(RNG.normal(size=(4, 3, 5)) * sizes, jnp.float32)
    updates = jnp.asarray(RNG.normal(size=(4, 3, 5)) * 100.0, jnp.float32)
    options = {"units": "layer"}
    mesh, spec = (
        jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Auto,)),
        PartitionSpec("shards"),
    )
    for make in (gs.rate.cap_trust, partial(gs.stable_adamw, 10.0)):
        tx, whole = make(axis_name=spec, **options), make(**options)
        wanted = jax.jit(lambda u, p, tx=whole: tx.update(u, tx.init(p), p)[0])(updates, params)
        act = jax.shard_map(
            lambda u, p, tx=tx: tx.update(u, tx.init(p), p)[0],
            mesh=mesh,
            in_specs=(spec, spec),
            out_specs=spec,
        )
        np.testing.assert_allclose(jax.jit(act)(updates, params), wanted, rtol=1e-5)
        assert oracle.norm(np.asarray(wanted[0])) > 0.01 * 15**0.5


def test_known_weakness_one_entry_moves_by_the_root_of_the_size() -> None:
    updates = np.zeros(10_000, "f4")
    updates[0] = 1e6
    got = apply(gs.rate.cap_update_rms(1.0), updates, np.ones(10_000, "f4"))
    assert got[0] == pytest.approx(100.0, rel=1e-5)


def test_known_weakness_a_leaf_of_zeros_starts_slowly() -> None:
    tx = gs.rate.cap_trust()

    def body(params: jax.Array, nothing: None) -> tuple[jax.Array, jax.Array]:
        del nothing
        updates, _ = tx.update(jnp.ones(4), tx.init(params), params)
        return params + updates, params[0]

    _, trail = jax.jit(lambda p: jax.lax.scan(body, p, None, length=120))(jnp.zeros(4))
    assert int(np.argmax(np.asarray(trail) >= 1.0)) == 83


def test_a_leaf_of_zeros_moves_by_a_part_of_what_the_others_are() -> None:
    updates = {"bias": np.ones(4, "f4"), "weights": np.zeros(100_000, "f4")}
    params = {"bias": np.zeros(4, "f4"), "weights": np.ones(100_000, "f4")}
    tx, steps = gs.rate.cap_trust(), 0
    act = jax.jit(lambda p: tx.update(updates, tx.init(p), p)[0])
    while params["bias"][0] < 1.0:
        params, steps = optax.apply_updates(params, act(params)), steps + 1
    assert steps == 35


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("units", UNITS)
def test_a_broken_leaf_does_not_lift_the_cap_of_another(bad: float, units: str) -> None:
    tx = gs.rate.cap_trust(units=units)
    updates = {"a": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 3, 2))}
    params = {"a": jnp.zeros((2, 3, 2)), "b": jnp.full((2, 3, 2), bad)}
    got = jax.jit(lambda p: tx.update(updates, tx.init(p), p)[0])(params)["a"]
    np.testing.assert_allclose(got, 1e-4, rtol=1e-5)


def test_known_weakness_trust_ratio_makes_noise_as_long_as_signal() -> None:
    params, noise = np.full(4, 0.5, "f4"), np.full(4, 5e-7, "f4")
    assert oracle.norm(apply(gs.rate.scale_by_trust_ratio(), noise, params)) == pytest.approx(1.0)
    clipped = apply(gs.rate.scale_by_trust_ratio(trust_clip=True), noise, params)
    np.testing.assert_array_equal(clipped, noise)


NUMBERS = st.lists(
    st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=6, max_size=6
)


def laws(tx: optax.GradientTransformation) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    compiled = jax.jit(lambda u, p: tx.update({"a": u}, tx.init({"a": p}), {"a": p})[0]["a"])
    return lambda u, p: np.asarray(compiled(u, p))


RMS, TRUST = laws(gs.rate.cap_update_rms(1.0)), laws(gs.rate.cap_trust(0.1))


@hypothesis.given(NUMBERS, NUMBERS)
def test_caps_bound_are_idempotent_and_keep_the_direction(
    updates: list[float], params: list[float]
) -> None:
    u, p = np.asarray(updates, "f4"), np.asarray(params, "f4")
    limit = 0.1 * max(oracle.norm(p), 1e-3 * 6**0.5)
    for cap, bound in ((RMS, 6**0.5), (TRUST, limit if oracle.norm(p) < 1e18 else np.inf)):
        once = cap(u, p)
        assert oracle.norm(once) <= bound * (1 + 1e-5)
        np.testing.assert_allclose(cap(once, p), once, rtol=1e-5, atol=1e-37)
        if oracle.norm(u) > 0:
            factor = min(1.0, oracle.norm(once) / oracle.norm(u))
            wanted = u.astype("f8") * factor
            np.testing.assert_allclose(once, wanted, rtol=1e-4, atol=1e-5 * oracle.norm(once))


@hypothesis.given(NUMBERS, st.floats(1e-3, 1e3))
def test_trust_cap_is_equivariant_under_a_common_scale(updates: list[float], factor: float) -> None:
    u, p = np.asarray(updates, "f4"), np.linspace(1.0, 2.0, 6, dtype="f4")
    scaled = TRUST(u * np.float32(factor), p * np.float32(factor))
    np.testing.assert_allclose(scaled, TRUST(u, p) * np.float32(factor), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("make", [gs.rate.cap_trust, gs.rate.scale_by_trust_ratio])
def test_missing_params_are_told(make: Callable[[], Any]) -> None:
    tx = make()
    with pytest.raises(ValueError, match=rf"{make.__name__} compares with params.*state, params\)"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))


@pytest.mark.parametrize(
    "make",
    [gs.rate.cap_update_rms, gs.rate.cap_trust, gs.rate.scale_by_trust_ratio, gs.stable_adamw],
)
def test_unknown_units_are_refused(make: Callable[..., Any]) -> None:
    required = (1e-3,) if make is gs.stable_adamw else ()
    with pytest.raises(ValueError, match="units must be one of"):
        make(*required, units="rows")
    with pytest.raises(TypeError, match="units must be"):
        make(*required, units=3)
    tx = make(*required, units=(5,))
    with pytest.raises(ValueError, match=r"\['w'\].*dimensions"):
        tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}), {"w": jnp.ones(3)})
