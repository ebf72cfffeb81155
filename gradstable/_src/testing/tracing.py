"""Promises about tracing: a single trace, the same numbers as outside jit, no arrays needed."""

from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradstable._src.testing.compare import by_path, require, require_close, require_same_types
from gradstable._src.testing.material import abstract, gradients, load, step, traced


def check_jit_equals_eager(tx: optax.GradientTransformation, params: Any) -> None:
    """Give the same updates and state inside and outside ``jit``, up to rounding."""
    compiled = jax.jit(tx.update)
    state = inside = tx.init(params)
    for seed in range(2):
        given = gradients(params, seed)
        updates, state = tx.update(given, state, params)
        updates_inside, inside = compiled(given, inside, params)
        when = f"inside jit, at step {seed + 1}"
        require_close(updates_inside, updates, name="updates", when=when)
        require_close(inside, state, name="state", when=when)


def check_one_trace(tx: optax.GradientTransformation, params: Any) -> None:
    """Trace a compiled step once: no later step compiles anything."""
    chex = load("chex")
    # chex counts by the place of the definition, across all transforms checked so far.
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params: Any, state: Any, updates: Any) -> tuple[Any, Any]:
        return step(tx, params, state, updates)

    state = tx.init(params)
    for seed in range(3):
        params, state = run(params, state, gradients(params, seed))


def check_abstract(tx: optax.GradientTransformation, params: Any) -> None:
    """Work on shapes and dtypes alone, in ``jax.eval_shape``."""
    shapes = abstract(params)
    seen = traced(tx, shapes, shapes)
    require_same_types(seen.state, tx.init(params), name="state", when="after an abstract init")
    require_same_types(seen.new_state, seen.state, name="state", when="after an abstract update")
    require_same_types(seen.updates, shapes, name="updates", when="after an abstract update")


def check_name_scopes(tx: optax.GradientTransformation, params: Any) -> None:
    """Keep ``jax.named_scope``s around an update on all its operations, as profiles show them."""
    state = tx.init(params)

    def run(updates: Any, state: Any, params: Any) -> Any:
        with jax.named_scope("the_scope_around"):
            return tx.update(updates, state, params)

    jaxpr = jax.make_jaxpr(run)(gradients(params), state, params)
    lost = [
        eqn.primitive.name
        for eqn in jaxpr.jaxpr.eqns
        if "the_scope_around" not in str(eqn.source_info.name_stack)
    ]
    require(not lost, f"operations outside the enclosing scope: {sorted(set(lost))}")


def check_sharding(tx: optax.GradientTransformation, params: Any) -> None:
    """Keep the shardings of updates and state on a mesh with explicit axes."""
    mesh = AbstractMesh((2,), ("x",), axis_types=(AxisType.Explicit,))

    def split(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        # Over the last axis that two devices can split, if there is one.
        axes = [axis for axis, size in enumerate(leaf.shape) if size and size % 2 == 0]
        spec = PartitionSpec(*[None] * axes[-1], "x") if axes else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    with jax.sharding.use_abstract_mesh(mesh):
        sharded = jax.tree.map(split, params)
        state = jax.eval_shape(tx.init, sharded)
        updates, new_state = jax.eval_shape(tx.update, sharded, state, sharded)
    for name, new, old in (("updates", updates, sharded), ("state", new_state, state)):
        specs, wanted = by_path(jax.tree.map(_spec, new)), by_path(jax.tree.map(_spec, old))
        for path, spec in specs.items():
            should = wanted.get(path)
            require(spec == should, f"{name}{path} is sharded as {spec}, but should be as {should}")


def _spec(leaf: Any) -> str:
    """Return the axes of the mesh that split a leaf; a leaf that is whole has none."""
    spec = () if leaf.sharding is None else tuple(leaf.sharding.spec)
    while spec and spec[-1] is None:
        spec = spec[:-1]
    return str(spec)
