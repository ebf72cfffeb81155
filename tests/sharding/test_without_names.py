"""What a mesh asks for is said, and what arrays tell by themselves is not asked for."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs
from tests.frames import representatives
from tests.registry import Case, cases

SPECS = {"bias": P("y"), "kernel": P("x", "y"), "scale": P(), "stack": P(None, "x", None)}
SHAPES = {"bias": (4,), "kernel": (8, 4), "scale": (), "stack": (2, 8, 4)}
# What names a sharding in the code, or decides outside of jit what to do.
NAMING = {
    "accumulate(adamw)",
    "add_noise",
    "compress_moments",
    "scale_by_muon",
    "stochastic_round()",
}
# Inside shard_map these look at one entry at a time.
ELEMENTWISE = re.compile(
    r"add_noise|clip_by_(value|moment)|compress_moments|ema|soft_clip|stochastic_round|trace"
    r"|scale_by_(?!block|clipped|gradient|muon|stable|trust)"
)
# This one asks for an axis over which leaves are not split.
AVERAGES = re.compile("average")


def in_modes() -> Iterator[Any]:
    quick = NAMING | {case.name for case in representatives()}
    for case in cases():
        for mode in ("eager", "jit"):
            fast = case.name in (NAMING if mode == "eager" else quick)
            marks = [] if fast else [pytest.mark.slow]
            yield pytest.param(case, mode == "jit", id=f"{case.name}-{mode}", marks=marks)


def laid_out(seed: int, mesh: Mesh) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jax.device_put(np.float32(rng.normal(size=shape)), NamedSharding(mesh, SPECS[name]))
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize(("case", "jit"), list(in_modes()))
def test_arrays_with_explicit_axes_bring_their_mesh(case: Case, jit: bool) -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    params, gradient = laid_out(0, mesh), laid_out(1, mesh)
    if jit:  # where things lie is part of the types there
        updates, _ = jax.eval_shape(case.tx.update, gradient, case.tx.init(params), params)
    else:
        updates, _ = case.tx.update(gradient, case.tx.init(params), params)
    for name, leaf in updates.items():
        assert leaf.shape == SHAPES[name]
        should = jax.typeof(gradient[name]).sharding if jit else gradient[name].sharding
        assert leaf.sharding.is_equivalent_to(should, leaf.ndim), name


def test_muon_is_the_same_with_explicit_axes_and_without() -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    params, gradient = laid_out(0, mesh), laid_out(1, mesh)
    whole = jax.tree.map(np.asarray, (gradient, params))
    tx = gs.muon(0.1)
    split, _ = jax.jit(tx.update)(gradient, tx.init(params), params)
    alone, _ = jax.jit(tx.update)(whole[0], tx.init(whole[1]), whole[1])
    for name, leaf in split.items():
        np.testing.assert_allclose(leaf, alone[name], rtol=1e-4, atol=1e-6)


def inside(tx: optax.GradientTransformation, specs: Any, **options: Any) -> Any:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)

    def step(gradient: Any, params: Any) -> Any:
        return tx.update(gradient, tx.init(params), params)[0]

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(specs, specs), out_specs=specs, **options)
    tree = {name: jnp.ones(SHAPES[name]) for name in specs}
    return jax.eval_shape(mapped, tree, tree)


@pytest.mark.parametrize(
    "case", [case for case in cases() if not AVERAGES.match(case.name)], ids=lambda case: case.name
)
def test_split_leaves_without_axis_name_are_refused_by_what_reduces(case: Case) -> None:
    specs = {name: SPECS[name] for name in ("bias", "kernel")}
    if ELEMENTWISE.match(case.name):
        inside(case.tx, specs)
        return
    # Whichever is looked at first: Muon, traced before it is guarded, looks at matrices.
    of_bias = r"leaf\['bias'\] varies over 'y': pass axis_name='y'"
    of_kernel = r"leaf\['kernel'\] varies over \('x', 'y'\): pass axis_name=\('x', 'y'\)"
    with pytest.raises(ValueError, match=f"{of_bias}|{of_kernel}"):
        inside(case.tx, specs)


def test_axes_that_are_not_named_are_missed() -> None:
    for names in ("x", P("x")):
        tx = gs.guard(optax.sgd(0.1), axis_name=names)
        with pytest.raises(ValueError, match=r"leaf\['kernel'\] varies over 'y'"):
            inside(tx, {"kernel": P("x", "y")})
    inside(gs.guard(optax.sgd(0.1), axis_name=("x", "y")), {"kernel": P("x", "y")})
    inside(gs.guard(optax.sgd(0.1)), {"kernel": P()})
    inside(gs.guard(optax.sgd(0.1)), {"kernel": P("x", "y")}, check_vma=False)
