"""Promises about the state: its types, its buffers, and which leaves are like parameters."""

import dataclasses
import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.testing.compare import (
    as_data,
    by_path,
    describe,
    require,
    require_finite,
    require_same_types,
)
from gradstable._src.testing.material import PRECISIONS, abstract, cast, gradients, step, traced


def check_stable_state(tx: optax.GradientTransformation, params: Any) -> None:
    """Keep structure, shapes and dtypes of the state from ``init`` on."""
    state, updates = tx.init(params), gradients(params)
    _, eager = tx.update(updates, state, params)
    require_same_types(eager, state, name="state", when="after an update outside jit")
    _, traced = jax.eval_shape(tx.update, updates, state, params)
    require_same_types(traced, state, name="state", when="after an update inside jit")


def check_state_dtypes(tx: optax.GradientTransformation, params: Any) -> None:
    """Keep the types of the state where gradients have another dtype than parameters."""
    for of_params, of_updates in itertools.product(PRECISIONS, PRECISIONS):
        these, updates = abstract(cast(params, of_params)), abstract(cast(params, of_updates))
        seen = traced(tx, these, updates)
        when = f"for parameters in {jnp.dtype(of_params)} and gradients in {jnp.dtype(of_updates)}"
        require_same_types(seen.new_state, seen.state, name="state", when=when)


def check_scan(tx: optax.GradientTransformation, params: Any) -> None:
    """Let the state be carried through ``jax.lax.scan``."""
    updates = gradients(params)

    def run(params: Any, state: Any) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            return step(tx, params, state, updates), None

        return jax.lax.scan(body, (params, state), None, length=3)[0]

    jax.eval_shape(run, params, tx.init(params))


def check_cond(tx: optax.GradientTransformation, params: Any) -> None:
    """Let an update be a branch of ``jax.lax.cond`` whose other branch does nothing."""
    updates = gradients(params)

    def run(flag: jax.Array, params: Any, state: Any) -> Any:
        return jax.lax.cond(flag, lambda: step(tx, params, state, updates), lambda: (params, state))

    jax.eval_shape(run, jnp.asarray(True), params, tx.init(params))


def check_own_buffers(tx: optax.GradientTransformation, params: Any) -> None:
    """Share no memory between leaves of the state, or with the parameters or another state."""
    # Copies, because a caller can pass one array for two parameters.
    params = jax.tree.map(jnp.copy, params)
    state = tx.init(params)
    require_apart(params=params, state=state, state_of_another_init=tx.init(params))
    _, state = tx.update(gradients(params), state, params)
    require_apart(params=params, new_state=state)


def require_apart(**trees: Any) -> None:
    """Require that every leaf of the named trees has its own buffer."""
    owners: dict[int, str] = {}
    for name, tree in trees.items():
        for path, leaf in by_path(tree).items():
            if not isinstance(leaf, jax.Array) or not leaf.size:
                continue
            data = as_data(leaf).addressable_shards[0].data
            owner = owners.setdefault(data.unsafe_buffer_pointer(), name + path)
            require(owner == name + path, f"{name}{path} shares the memory of {owner}")


def check_donation(tx: optax.GradientTransformation, params: Any) -> None:
    """Let parameters and state be donated to a compiled step."""
    params = jax.tree.map(jnp.copy, params)

    def run(params: Any, state: Any, updates: Any) -> tuple[Any, Any]:
        return step(tx, params, state, updates)

    donating = jax.jit(run, donate_argnums=(0, 1))
    state = tx.init(params)
    with warnings.catch_warnings():
        # JAX warns about a donated buffer that no output could reuse.
        warnings.simplefilter("error")
        for seed in range(3):
            params, state = donating(params, state, gradients(params, seed))
    require_finite(params, name="params", when="after three steps")


def check_no_empty_arrays(tx: optax.GradientTransformation, params: Any) -> None:
    """Put no empty array into the state: Orbax could not save it."""
    if any(leaf.size == 0 for leaf in jax.tree.leaves(params)):
        return
    for path, leaf in by_path(tx.init(params)).items():
        require(jnp.size(leaf), f"after init: state{path} is {describe(leaf)}")


def check_map_params(tx: optax.GradientTransformation, params: Any) -> None:
    """Let ``optax.tree.map_params`` tell leaves like parameters from all others."""
    state = tx.init(params)
    marked = optax.tree.map_params(tx, lambda leaf, _: _Marked(leaf), state, params)
    same = optax.tree.map_params(tx, lambda leaf: leaf, state)
    require_same_types(same, state, name="state", when="after mapping nothing to its leaves")
    old = by_path(state)
    for path, leaf in by_path(marked).items():
        changed = f"state{path} is not like a parameter, but was changed"
        require(isinstance(leaf, _Marked) or leaf is old[path], changed)


@dataclasses.dataclass
class _Marked:
    """A leaf of the state that is like a parameter."""

    value: Any
