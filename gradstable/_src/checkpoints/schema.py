"""Describe the structure of a state, so that a checkpoint can say why it does not fit."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# The version of the structure of all states, raised when any of them changes; a test compares them
# with tests/data/state_schemas.json. A change of meaning gives the field a new name.
SCHEMA = 8
OLDEST = 1  # the oldest that gs.checkpoints.upgrade_state reads


def state_schema(opt_state: optax.OptState) -> dict[str, Any]:
    """Return a description of the structure of a state, to save with it.

    Put it into the metadata of a checkpoint, such as ``custom_metadata`` of Orbax, and let
    ``gs.checkpoints.check_schema`` compare before you load. It costs a line of text per leaf.

    Args:
      opt_state: any optimizer state, with arrays or, from ``jax.eval_shape``, with their types.

    Returns:
      A dictionary that can be stored as JSON, with ``"schema"``, an integer, the version of the
      structure of our states; ``"gradstable"``, the version that made it; and ``"leaves"``, dtype
      and shape by path. It also has links and places without a state, by the name of their type.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> schema = gs.checkpoints.state_schema(optax.adam(1e-3).init(jnp.ones((2, 3))))
      >>> schema["schema"], schema["leaves"]["[0].mu"]
      (8, 'float32[2,3]')
    """
    return {
        "schema": SCHEMA,
        "gradstable": importlib.metadata.version("gradstable"),
        "leaves": _leaves(opt_state),
    }


def check_schema(opt_state: optax.OptState, schema: Mapping[str, Any]) -> None:
    """Raise if a checkpoint does not fit into a state, and say why and what to do.

    Call it before loading: when two trees differ, the message of a checkpoint library does not say
    whether your program has changed, or this library.

    Args:
      opt_state: the state that you want to load into: ``tx.init(params)``, or ``jax.eval_shape``
        of it.
      schema: the result of ``gs.checkpoints.state_schema`` when the checkpoint was saved.

    Raises:
      TypeError: if ``schema`` is not a schema.
      ValueError: if a leaf is missing, new, or has a different shape or dtype; the message names
        the first one, and both versions if they differ.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = jnp.ones(3)
      >>> schema = gs.checkpoints.state_schema(optax.adamw(1e-3).init(params))
      >>> gs.checkpoints.check_schema(gs.guard(optax.adamw(1e-3)).init(params), schema)
      Traceback (most recent call last):
      ...
      ValueError: this checkpoint holds another state: it has int32[] at [0].count, ...
    """
    if not _is_schema(schema):
        msg = f"schema must be what gradstable.checkpoints.state_schema returned, got {schema!r}"
        raise TypeError(msg)
    saved, wanted = schema["leaves"], _leaves(opt_state)
    for path in dict.fromkeys([*saved, *wanted]):
        there, here = saved.get(path, "nothing"), wanted.get(path, "nothing")
        if there != here:
            where = path or "the root"
            difference = f"it has {there} at {where}, and {here} is expected there"
            msg = f"{_reason(schema)}: {difference}. {_remedy(schema)}"
            raise ValueError(msg)


def _leaves(tree: Any) -> dict[str, str]:
    # Nodes without leaves keep their place: they are in the file, or shift the indices of others.
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: not _has_leaves(node))
    return {jax.tree_util.keystr(path): _describe(leaf) for path, leaf in flat}


def _has_leaves(node: Any) -> bool:
    return bool(jax.tree.leaves(node))


def _describe(leaf: Any) -> str:
    if not _has_leaves(leaf):
        return type(leaf).__name__
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    return f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"


def _reason(schema: Mapping[str, Any]) -> str:
    if schema["schema"] == SCHEMA:
        return "this checkpoint holds another state"
    return (
        f"this checkpoint was written with state schema {schema['schema']} (gradstable "
        f"{schema['gradstable']}), and this is state schema {SCHEMA} (gradstable "
        f"{importlib.metadata.version('gradstable')})"
    )


def _is_schema(given: object) -> bool:
    return isinstance(given, Mapping) and {"schema", "gradstable", "leaves"} <= {*given}


def _remedy(schema: Mapping[str, Any]) -> str:
    if schema["schema"] == SCHEMA:
        return (
            "If a guard, a wrapper or rules have changed, load it with the transform that it was "
            "saved with, and pass it to gradstable.checkpoints.migrate_state. Otherwise create the "
            "same optimizer for the same parameters"
        )
    if schema["schema"] > SCHEMA:
        return f"Update to gradstable {schema['gradstable']} or newer"
    if schema["schema"] < OLDEST:
        return (
            f"Load it with gradstable {schema['gradstable']} and continue there, or see what the "
            "changelog says about it under Changed"
        )
    return (
        "Load it without a target, and pass the result to gradstable.checkpoints.upgrade_state, "
        "which knows the names of older versions"
    )
