"""Promises on a mesh: the same numbers as on one device, however leaves are sharded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gradstable._src.sharding.spread import spread
from gradstable._src.sharding.state import state_shardings
from gradstable._src.testing.compare import as_data, by_path, require
from gradstable._src.testing.material import gradients

# Sums over devices have another order, and fusion rounds differently: the tolerance as a fraction
# of the largest entry of a leaf.
TOLERANCE = 2e-6
_SIZES = (1.0, 0.4, 1.0, 2.0, 1e3, 0.7)

# Parameters, state and all updates after some steps.
Steps = tuple[Any, Any, Any]
# From specs for the parameters, which say how leaves are split, to the transform for that.
ForSpecs = Callable[[Any], optax.GradientTransformation]


def mesh_params(mesh: Mesh) -> dict[str, jax.Array]:
    """Return parameters, some of which can be split over all devices."""
    size = mesh.size
    rng = np.random.default_rng(0)
    shapes = {
        "bias": (2 * size,),
        "kernel": (2 * size, 3 * size),
        "output": (3 * size, size),
        "whole": (3, 5),
        "scale": (),
    }
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


def check_auto_mesh(
    tx: optax.GradientTransformation, params: Any, mesh: Mesh, expected: Steps
) -> None:
    """Give the numbers of one device under ``jit``, on a mesh with automatic axes."""
    _require_same(_under_jit(tx, params, _mesh_of(mesh, AxisType.Auto)), expected)


def check_explicit_mesh(
    tx: optax.GradientTransformation, params: Any, mesh: Mesh, expected: Steps
) -> None:
    """Give the numbers of one device under ``jit``, on a mesh with explicit axes."""
    explicit = _mesh_of(mesh, AxisType.Explicit)
    with jax.set_mesh(explicit):
        _require_same(_under_jit(tx, params, explicit), expected)


def check_shard_map(
    tx: optax.GradientTransformation,
    params: Any,
    mesh: Mesh,
    expected: Steps,
    for_specs: ForSpecs,
) -> None:
    """Give the numbers of one device inside ``jax.shard_map``, on parts of leaves."""
    auto = _mesh_of(mesh, AxisType.Auto)
    shardings = spread(params, auto.axis_names, mesh=auto, min_size=1)
    of_state = state_shardings(tx, params, shardings=shardings)
    specs, state_specs = (jax.tree.map(lambda s: s.spec, tree) for tree in (shardings, of_state))
    inside = for_specs(specs)

    def run(params: Any, given: Any) -> Any:
        steps = jax.shard_map(
            lambda *args: _steps(inside, *args),
            mesh=auto,
            in_specs=(specs, state_specs, _stacked(specs)),
            out_specs=(specs, state_specs, _stacked(specs)),
        )
        return steps(params, tx.init(params), given)

    given = jax.device_put(_given(params), _placed(_stacked(specs), auto))
    _require_same(jax.jit(run)(jax.device_put(params, shardings), given), expected)


def on_one_device(tx: optax.GradientTransformation, params: Any) -> Steps:
    """Return the result that the checks expect."""
    run = jax.jit(lambda params, given: _steps(tx, params, tx.init(params), given))
    return run(params, _given(params))


def _under_jit(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> Steps:
    shardings = spread(params, mesh.axis_names, mesh=mesh, min_size=1)
    of_updates = _placed(_stacked(jax.tree.map(lambda s: s.spec, shardings)), mesh)
    out = (shardings, state_shardings(tx, params, shardings=shardings), of_updates)
    run = jax.jit(
        lambda params, given: _steps(tx, params, tx.init(params), given), out_shardings=out
    )
    return run(jax.device_put(params, shardings), jax.device_put(_given(params), of_updates))


def _require_same(got: Steps, expected: Steps) -> None:
    # Parameters are not compared: they are sums in which updates can cancel. But an update that is
    # a difference of parameters is only as exact as they are.
    params, state, updates = map(by_path, expected)
    for path, leaf in by_path(got[1]).items():
        _require_close(leaf, state[path], name=f"state{path}")
    for path, leaf in by_path(got[2]).items():
        rounding = 2.0**-23 * float(jnp.max(jnp.abs(params[path]), initial=0.0))
        _require_close(leaf, updates[path], name=f"updates{path}", rounding=rounding)


def _require_close(leaf: Any, should: Any, *, name: str, rounding: float = 0.0) -> None:
    a, b = np.asarray(as_data(leaf)), np.asarray(as_data(should))
    if a.dtype.kind in "biu":
        require(np.array_equal(a, b), f"{name} should be {b}, and is {a}")
        return
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    same = np.array_equal(finite, np.isfinite(a)) and np.array_equal(a[~finite], b[~finite], True)
    require(same, f"{name} should be {b}, and is {a}")
    size = np.max(np.abs(b[finite]), initial=0.0)
    apart = np.max(np.abs(a[finite] - b[finite]), initial=0.0)
    share = apart / (size or 1.0)
    close = share <= TOLERANCE or apart <= rounding
    require(close, f"{name} is {share:.1e} of its largest entry off one device's")


def _steps(tx: optax.GradientTransformation, params: Any, state: Any, given: Any) -> Steps:
    """Return parameters, state and all updates after one step for each of the gradients."""

    def step(carry: tuple[Any, Any], updates: Any) -> tuple[tuple[Any, Any], Any]:
        params, state = carry
        updates, state = tx.update(updates, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (params, state), updates = jax.lax.scan(step, (params, state), given)
    return params, state, updates


def _given(params: Any) -> Any:
    """Return gradients of six steps of different sizes; one has a NaN, on one device only."""
    # With a nonzero mean, so that averages do not cancel.
    steps = [
        jax.tree.map(lambda g: g + 2.0, gradients(params, seed)) for seed in range(len(_SIZES))
    ]
    leaves, structure = jax.tree.flatten(steps[2])
    largest = max(range(len(leaves)), key=lambda index: leaves[index].size)
    leaves[largest] = leaves[largest].at[(0,) * leaves[largest].ndim].set(jnp.nan)
    steps[2] = jax.tree.unflatten(structure, leaves)
    sizes = jnp.asarray(_SIZES)
    return jax.tree.map(lambda *each: (jnp.stack(each).T * sizes).T.astype(each[0].dtype), *steps)


def _mesh_of(mesh: Mesh, kind: AxisType) -> Mesh:
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(kind,) * len(mesh.axis_names))


def _stacked(specs: Any) -> Any:
    return jax.tree.map(lambda spec: PartitionSpec(None, *spec), specs, is_leaf=_is_spec)


def _placed(specs: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)


def _is_spec(node: object) -> bool:
    return isinstance(node, PartitionSpec)
