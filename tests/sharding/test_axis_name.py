"""Inside ``jax.shard_map``: one norm, one verdict, one statistic for all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import gradstable as gs
from gradstable._src.core.norms import measure

SPECS = {"split": P("fsdp"), "whole": P()}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def tree(*, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "split": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
        "whole": jnp.asarray(rng.normal(size=(5,)), jnp.float32),
    }


def inside(
    mesh: Mesh, function: Callable[..., Any], *args: Any, out: Any, check_vma: bool = True
) -> Any:
    """Run a function of trees like ``tree()`` on the parts that devices hold."""
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=(SPECS,) * len(args), out_specs=out, check_vma=check_vma
    )
    return jax.jit(mapped)(*args)


def test_clip_gives_the_limit_where_optax_gives_root_eight_of_it() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    g = jnp.full((8, 16), 3.0)

    def norm_after(tx: optax.GradientTransformation) -> float:
        update = lambda g: tx.update(g, tx.init(g))[0]  # noqa: E731
        clipped = jax.shard_map(
            update, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False
        )
        return float(jnp.linalg.norm(jax.jit(clipped)(g)))

    assert norm_after(optax.clip_by_global_norm(1.0)) == pytest.approx(8**0.5, abs=0.01)
    for name in ("x", ("x",), P("x")):
        ours = gs.clipping.clip_by_global_norm(1.0, axis_name=name)
        assert norm_after(ours) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["fsdp", ("data", "fsdp"), SPECS], ids=str)
def test_leaf_that_is_the_same_everywhere_counts_once(mesh: Mesh, name: Any) -> None:
    measured = inside(mesh, lambda g: measure(g, axis_name=name), tree(), out=P())
    wanted = measure(tree())
    for got, should in zip(jax.tree.leaves(measured), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, should, rtol=1e-6)


def test_specs_tell_what_is_whole_where_jax_does_not_track_it(mesh: Mesh) -> None:
    def norm(name: Any) -> float:
        got = inside(
            mesh, lambda g: gs.global_norm(g, axis_name=name), tree(), out=P(), check_vma=False
        )
        return float(got)

    wanted = float(gs.global_norm(tree()))
    assert norm(SPECS) == pytest.approx(wanted, rel=1e-6)
    assert norm("fsdp") > 1.01 * wanted  # as the docstring of guard says


@pytest.mark.parametrize("exponent", [-126, -60, 0, 70, 120])
def test_norm_is_safe_across_devices(mesh: Mesh, exponent: int) -> None:
    g = jax.tree.map(lambda leaf: leaf * 2.0**exponent, tree())
    got = inside(mesh, lambda g: gs.global_norm(g, axis_name=SPECS), g, out=P())
    np.testing.assert_allclose(got, gs.global_norm(g), rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("check_vma", [True, False])
def test_nan_on_one_device_is_rejected_by_all(mesh: Mesh, bad: float, check_vma: bool) -> None:
    tx = gs.guard(optax.adamw(0.1), axis_name=SPECS)
    params, g = tree(), tree(seed=1)
    broken = {**g, "split": g["split"].at[3, 1].set(bad)}

    def run(params: Any, g: Any, broken: Any) -> Any:
        state = tx.init(params)
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        updates, after = tx.update(broken, state, params)
        moved = optax.apply_updates(params, updates)
        # A verdict of its own for each device, so that they can be compared.
        verdict = gs.health(after).rejected[None], gs.health(after).worst_leaf[None]
        return params, moved, state.inner_state[0], after.inner_state[0], verdict

    moments = optax.ScaleByAdamState(P(), SPECS, SPECS)
    out = (SPECS, SPECS, moments, moments, P(("data", "fsdp")))
    result = inside(mesh, run, params, g, broken, out=out, check_vma=check_vma)
    before, after, state, held, (rejected, worst) = jax.tree.map(np.asarray, result)
    kept = zip(jax.tree.leaves((before, state)), jax.tree.leaves((after, held)), strict=True)
    assert all(old.tobytes() == new.tobytes() for old, new in kept)
    assert not np.array_equal(before["split"], params["split"])
    np.testing.assert_array_equal(rejected, np.ones(8))
    np.testing.assert_array_equal(worst, np.zeros(8))


def test_statistics_are_the_same_bits_on_all_devices(mesh: Mesh) -> None:
    tx = gs.guard(optax.sgd(0.1), axis_name="fsdp")

    def run(params: Any, g: Any) -> Any:
        state = tx.init(params)
        for scale in (1.0, 3.0, 50.0):
            _, state = tx.update(optax.tree.scale(scale, g), state, params)
        return jax.tree.map(lambda leaf: leaf[None], (state.rule_state, state.ledger))

    for leaf in jax.tree.leaves(inside(mesh, run, tree(), tree(), out=P(("data", "fsdp")))):
        each = np.asarray(leaf)
        assert all(row.tobytes() == each[0].tobytes() for row in each)


def test_devices_with_losses_of_their_own_decide_by_the_mean(mesh: Mesh) -> None:
    tx = gs.guard(optax.sgd(1.0), gs.rules.loss_spike(warmup_steps=2), axis_name=("data", "fsdp"))

    def run(params: Any, g: Any) -> Any:
        state = tx.init(params)
        here = jax.lax.axis_index("data")
        for loss in (1.0, 1.1, 0.9, 1.0):
            _, state = tx.update(g, state, params, value=loss + 0.01 * here)
        # One device in two sees a spike, and alone would reject.
        _, state = tx.update(g, state, params, value=jnp.where(here == 0, 1e6, 1.0))
        return gs.health(state).rejected[None]

    rejected = inside(mesh, run, tree(), tree(), out=P(("data", "fsdp")))
    np.testing.assert_array_equal(rejected, np.ones(8))


@pytest.mark.parametrize("axis", [0, 1])
def test_units_are_those_of_whole_leaves(mesh: Mesh, axis: int) -> None:
    """Rows or columns, split along or across: the same factor for every unit."""
    spec = P("fsdp", None) if axis == 0 else P(None, ("data", "fsdp"))
    g, w = (jnp.asarray(np.random.default_rng(i).normal(size=(8, 16)), jnp.float32) for i in (0, 1))
    g = g.at[:, 3].multiply(100.0)
    for units in ("output", "leaf", (0,), ()):
        clip = functools.partial(gs.clipping.clip_by, gs.rules.unit_norm(0.1, units=units))
        run = functools.partial(clipped, clip(axis_name=spec))
        mapped = jax.shard_map(run, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
        np.testing.assert_allclose(jax.jit(mapped)(g, w), clipped(clip(), g, w), rtol=2e-6)


def clipped(tx: optax.GradientTransformation, g: jax.Array, w: jax.Array) -> Any:
    return tx.update(g, tx.init(w), w)[0]


def test_units_by_names_alone_are_refused_with_the_remedy(mesh: Mesh) -> None:
    tx = gs.clipping.clip_by(gs.rules.unit_norm(units="output"), axis_name="fsdp")
    params = {"split": jnp.ones((8, 3)), "whole": jnp.ones(5)}
    with pytest.raises(ValueError, match=r"pass its PartitionSpecs instead of \('fsdp',\)"):
        inside(mesh, lambda g: tx.update(g, tx.init(g), g)[0], params, out=SPECS)


def test_unknown_axis_is_told_with_those_there_are(mesh: Mesh) -> None:
    tx = gs.guard(optax.sgd(0.1), axis_name="model")
    with pytest.raises(ValueError, match=r"got 'model'; the axes here are \('data', 'fsdp'\)"):
        inside(mesh, lambda g: tx.update(g, tx.init(g))[0], tree(), out=SPECS)


def test_axis_name_outside_of_shard_map_is_told_to_be_needless() -> None:
    tx = gs.guard(optax.sgd(0.1), axis_name="fsdp")
    params = tree()
    with pytest.raises(ValueError, match="under jit with shardings none is needed"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("name", [3, {"split": "fsdp"}, (P(), "x")], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda name: gs.guard(optax.sgd(0.1), axis_name=name),
        lambda name: gs.clipping.clip_by_global_norm(1.0, axis_name=name),
        lambda name: gs.centering.centralize(axis_name=name),
        lambda name: gs.adamw(1e-3, axis_name=name),
    ],
    ids=["guard", "clip", "centralize", "adamw"],
)
def test_what_names_no_axis_is_refused_at_construction(make: Any, name: Any) -> None:
    with pytest.raises(TypeError, match="axis_name must be the name of a mesh axis"):
        make(name)


def test_specs_of_another_tree_are_refused(mesh: Mesh) -> None:
    tx = gs.clipping.clip_by_global_norm(1.0, axis_name={"split": P("fsdp")})
    with pytest.raises(ValueError, match="axis_name must be a tree of PartitionSpecs like"):
        inside(mesh, lambda g: tx.update(g, tx.init(g))[0], tree(), out=SPECS)


def test_spec_with_too_many_dimensions_is_refused_with_the_leaf(mesh: Mesh) -> None:
    tx = gs.clipping.clip_by_global_norm(
        1.0, axis_name={"split": P("fsdp"), "whole": P(None, "fsdp")}
    )
    with pytest.raises(ValueError, match=r"updates\['whole'\], which has only 1 dimensions"):
        inside(mesh, lambda g: tx.update(g, tx.init(g))[0], tree(), out=SPECS)


def test_record_samples_parts_where_its_state_was_made(mesh: Mesh) -> None:
    params, g = tree(), tree(seed=1)

    def run(params: Any, g: Any, *, name: Any) -> Any:
        tx = gs.record(gs.guard(optax.adam(0.1), axis_name=name), axis_name=name, capacity=32)
        state = tx.init(params)
        for loss in (1.0, 2.0, 3.0):
            updates, state = tx.update(g, state, params, value=loss)
            params = optax.apply_updates(params, updates)
        return state.rows, state.leaf_rows

    got = inside(mesh, lambda p, g: run(p, g, name=SPECS), params, g, out=P())
    wanted = jax.jit(lambda p, g: run(p, g, name=None))(params, g)
    for new, old in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-6)


def test_sam_goes_as_far_as_on_one_device(mesh: Mesh) -> None:
    def ascent(params: Any, g: Any, *, name: Any) -> Any:
        return gs.losses.sam_ascent(params, g, rho=0.5, axis_name=name)

    got = inside(mesh, lambda p, g: ascent(p, g, name=SPECS), tree(), tree(seed=1), out=SPECS)
    wanted = ascent(tree(), tree(seed=1), name=None)
    for new, old in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-6)


def test_replicas_under_pmap_decide_alike() -> None:
    tx = gs.guard(optax.sgd(1.0), axis_name="replica")

    def step(p: jax.Array, g: jax.Array) -> Any:
        updates, state = tx.update(g, tx.init(p), p)
        return optax.apply_updates(p, updates), gs.health(state).rejected

    params = jnp.ones((8, 3))
    after, rejected = jax.pmap(step, axis_name="replica")(params, params.at[2, 1].set(jnp.nan))
    np.testing.assert_array_equal(after, params)
    np.testing.assert_array_equal(rejected, np.ones(8))
