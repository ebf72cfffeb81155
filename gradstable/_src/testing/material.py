"""Shared parts of the checks: parameters, gradients, traces, optional packages."""

import functools
import importlib
from collections.abc import Hashable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

PRECISIONS = (jnp.float32, jnp.bfloat16, jnp.float16)


def default_params() -> dict[str, jax.Array]:
    """Return a small tree of float32 parameters with a matrix, a vector and a scalar."""
    return {
        "bias": jnp.linspace(-0.5, 0.5, 4, dtype=jnp.float32),
        "kernel": jnp.linspace(0.1, 1.2, 12, dtype=jnp.float32).reshape(3, 4),
        "scale": jnp.asarray(1.0, jnp.float32),
    }


def gradients(params: Any, seed: int = 0) -> Any:
    """Return normal gradients with the structure, shapes and dtypes of the parameters."""
    rng = np.random.default_rng(seed)

    def normal(param: jax.Array) -> jax.Array:
        values = rng.standard_normal(np.shape(param))
        if jnp.issubdtype(param.dtype, jnp.complexfloating):
            values = values + 1j * rng.standard_normal(np.shape(param))
        return jnp.asarray(values, param.dtype)

    return jax.tree.map(normal, params)


def cast(tree: Any, dtype: Any) -> Any:
    """Return a tree with its real floating-point leaves cast to another dtype."""

    def to(leaf: jax.Array) -> jax.Array:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(to, tree)


def abstract(tree: Any) -> Any:
    """Return the shapes and dtypes of a tree of arrays, without the numbers."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


class Traced(NamedTuple):
    """Types around an update: of the state before, of the updates, and of the state after."""

    state: Any
    updates: Any
    new_state: Any
    refused: Exception | None  # what strict promotion of dtypes raised


def traced(tx: optax.GradientTransformation, params: Any, updates: Any) -> Traced:
    """Trace an update for parameters and gradients of given types; checks share the result.

    Strict promotion changes no type, it only raises. If it does, the update is traced without it.
    """
    leaves, treedef = jax.tree.flatten((params, updates))
    return _traced(tx, tuple(leaves), treedef)


@functools.lru_cache(maxsize=32)
def _traced(tx: optax.GradientTransformation, leaves: tuple[Hashable, ...], treedef: Any) -> Traced:
    params, updates = jax.tree.unflatten(treedef, leaves)

    def types(refused: Exception | None = None) -> Traced:
        state = jax.eval_shape(tx.init, params)
        new_updates, new_state = jax.eval_shape(tx.update, updates, state, params)
        return Traced(state, new_updates, new_state, refused)

    try:
        with jax.numpy_dtype_promotion("strict"):
            return types()
    except Exception as error:  # a transform may fail in any way
        return types(error)


def step(
    tx: optax.GradientTransformation, params: Any, state: Any, updates: Any
) -> tuple[Any, Any]:
    """Return parameters and state after one step with the given gradients."""
    updates, state = tx.update(updates, state, params)
    return optax.apply_updates(params, updates), state


def load(name: str) -> ModuleType:
    """Import a package that only the checks need.

    Raises:
      ImportError: if it is not installed, with what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        msg = (
            f"this check needs {package}, which is not installed: run "
            "pip install 'gradstable[testing]', or name the check in skip"
        )
        raise ImportError(msg) from error
