"""Say what a state is made of, so that a checkpoint can tell why it does not fit."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# The version of the structure of all states, raised when any of them changes; a test compares them
# with tests/data/state_schemas.json. A change of meaning gives the field a new name.
SCHEMA = 2
OLDEST = 1  # what gs.checkpoints.upgrade_state still reads


def state_schema(opt_state: optax.OptState) -> dict[str, Any]:
    """Return what a state is made of, to be saved with it.

    Put it into the metadata of a checkpoint, as in ``custom_metadata`` of Orbax, and let
    ``gs.checkpoints.check_schema`` compare before you load. It costs a line of text for each leaf.

    Args:
      opt_state: any optimizer state, of arrays or, from ``jax.eval_shape``, of their types.

    Returns:
      A dictionary that goes into JSON, with ``"schema"``, the version of the structure of our
      states, an integer, ``"gradstable"``, the version that made it, and ``"leaves"``, dtype and
      shape by path. A link or a place without a state is in it too, by the name of its type.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> schema = gs.checkpoints.state_schema(optax.adam(1e-3).init(jnp.ones((2, 3))))
      >>> schema["schema"], schema["leaves"]["[0].mu"]
      (2, 'float32[2,3]')
    """
    return {
        "schema": SCHEMA,
        "gradstable": importlib.metadata.version("gradstable"),
        "leaves": _leaves(opt_state),
    }


def check_schema(opt_state: optax.OptState, schema: Mapping[str, Any]) -> None:
    """Raise if a checkpoint does not fit into a state, and say why and what to do.

    Call it before loading: what a checkpoint library has to say of two trees that differ does not
    tell whether the program has changed, or this library.

    Args:
      opt_state: what you want to load into: ``tx.init(params)``, or ``jax.eval_shape`` of it.
      schema: what ``gs.checkpoints.state_schema`` returned when the checkpoint was saved.

    Raises:
      TypeError: if the schema is none.
      ValueError: if a leaf is missing, new, or of another shape or dtype; the message names the
        first one, and both versions where they differ.

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
    # What has no leaves keeps its place: it is in the file, or moves the numbers of the others.
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
            "saved with, and pass it to gradstable.checkpoints.migrate_state; else make the same "
            "optimizer for the same parameters"
        )
    if schema["schema"] > SCHEMA:
        return f"Update to gradstable {schema['gradstable']} or newer"
    if schema["schema"] < OLDEST:
        return (
            f"Load it with gradstable {schema['gradstable']} and go on there, or see what the "
            "changelog says of it under Changed"
        )
    return (
        "Load it without a target, and pass what comes to gradstable.checkpoints.upgrade_state, "
        "which knows the names of older versions"
    )
