"""The shardings of an optimizer state, from those of the parameters."""

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from gradstable._src.core.checks import check_transform
from gradstable._src.core.find import Snapshots
from gradstable._src.core.names import Unnamed, without_names
from gradstable._src.core.tree_checks import leaves_by_path


def state_shardings(tx: optax.GradientTransformation, params: Any, *, shardings: Any = None) -> Any:
    """Return the shardings of a state: moments like their parameters, other leaves replicated.

    Use it to create a state that is sharded from the start, which ``jit`` alone does not do: zeros
    do not depend on any parameter, so each device would hold all of them. Nothing is computed here.

    A leaf that ``optax.tree.map_params`` maps to a parameter, and that has its shape, gets its
    sharding. All other leaves (counts, statistics of rules, rows and columns of factored moments)
    are on every device of the mesh.

    For ZeRO-1, where every device has the parameters and a part of the state, pass separate
    shardings for the state: ``gs.sharding.spread(params, "data", mesh=mesh)``.

    Args:
      tx: any optax transform.
      params: the parameters, or their shapes from ``jax.eval_shape``: a tree of arrays or of
        ``jax.ShapeDtypeStruct``.
      shardings: a tree like ``params`` of ``NamedSharding``, all on one mesh. Default: those that
        ``params`` have.

    Returns:
      A tree of shardings like the state, for ``jax.jit(tx.init, out_shardings=...)`` and for
      checkpoints.

    Raises:
      TypeError: if ``tx`` is not a transform, or a leaf has no ``NamedSharding``; the message has
        its path.
      ValueError: if leaves are on different meshes.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> mesh = jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> params = {"kernel": jnp.ones((256, 64)), "bias": jnp.zeros(64)}
      >>> params = jax.device_put(params, gs.sharding.spread(params, "fsdp", mesh=mesh))
      >>> tx = gs.guard(optax.adamw(3e-4))
      >>> shardings = gs.sharding.state_shardings(tx, params)
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
      >>> state.inner_state[0].mu["kernel"].sharding.spec
      P('fsdp', None)
    """
    check_transform("tx", tx)
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: getattr(leaf, "sharding", None), params)
    everywhere = NamedSharding(_mesh_of(shardings), PartitionSpec())
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), params)
    state = jax.eval_shape(tx.init, shapes)

    def place(leaf: Any, param: Any, sharding: NamedSharding) -> Any:
        if isinstance(leaf, optax.MaskedNode):
            return leaf
        return sharding if leaf.shape == param.shape else everywhere

    placed = optax.tree.map_params(
        tx,
        place,
        state,
        shapes,
        shardings,
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
    like = without_names(jax.tree.map(_Param, shapes, shardings), params).unnamed
    return _fill(placed, state, like, everywhere)


class _Param:
    """The shape and the sharding of a parameter, as one leaf of a tree."""

    def __init__(self, shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> None:
        self.shape, self.sharding = shape.shape, sharding


def _fill(placed: Any, state: Any, like: Any, everywhere: NamedSharding) -> Any:
    """Return the shardings, including those of the trees that wrappers keep without names.

    Such a tree is like the parameters, or, in a copy, like the state next to it.
    """

    def has_copies(node: Any) -> bool:
        return "snapshots" in getattr(node, "_fields", ())

    def visit(node: Any, given: Any) -> Any:
        if isinstance(node, Unnamed):
            return Unnamed(_like_params(node.unnamed, like, everywhere))
        if not has_copies(node):
            return given
        fields = node._asdict()
        copies = fields.pop("snapshots")
        new = {
            name: _fill(getattr(given, name), part, like, everywhere)
            for name, part in fields.items()
        }
        inner = jax.tree.leaves(new["wrapped_state"])
        return type(node)(**new, snapshots=_copies(copies, inner, like, everywhere))

    return jax.tree.map(
        visit, state, placed, is_leaf=lambda node: isinstance(node, Unnamed) or has_copies(node)
    )


def _copies(copies: Snapshots, inner: list[Any], like: Any, everywhere: Any) -> Snapshots:
    """Return the shardings of stacks of copies, each of which is sharded like the present."""
    one = jax.tree.map(
        lambda stack: jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype), copies.kept_params
    )
    of_state = jax.tree.unflatten(jax.tree.structure(copies.kept_state), inner)
    placed = jax.tree.map(lambda _: everywhere, copies)
    return placed._replace(
        kept_params=jax.tree.map(_stacked, Unnamed(_like_params(one.unnamed, like, everywhere))),
        kept_state=jax.tree.map(_stacked, of_state),
    )


def _stacked(sharding: NamedSharding) -> NamedSharding:
    """Return the sharding of a stack of leaves that are sharded like this."""
    spec = (None, *sharding.spec) if sharding.spec else ()
    return sharding.update(spec=PartitionSpec(*spec))


def _like_params(tree: Any, like: Any, everywhere: NamedSharding) -> Any:
    def place(param: _Param, part: Any) -> Any:
        # If a part is not a leaf, a mask left out the parameter.
        return jax.tree.map(
            lambda leaf: param.sharding if leaf.shape == param.shape else everywhere, part
        )

    try:
        return jax.tree.map(place, like, tree)
    except ValueError:  # it is not like the parameters after all
        return jax.tree.map(lambda _: everywhere, tree)


def _mesh_of(shardings: Any) -> Any:
    """Return the mesh that all shardings are on."""
    first: Any = None
    for name, sharding in leaves_by_path(shardings).items():
        if not isinstance(sharding, NamedSharding):
            kind = type(sharding).__name__ if isinstance(sharding, Sharding) else repr(sharding)
            msg = (
                f"params{name} must have a jax.NamedSharding, got {kind}: put the parameters on "
                "a mesh with jax.device_put first, or pass shardings"
            )
            raise TypeError(msg)
        if first is not None and sharding.mesh != first:
            msg = (
                f"params{name} must be on the same mesh as all others, {first}, got {sharding.mesh}"
            )
            raise ValueError(msg)
        first = sharding.mesh
    if first is None:
        msg = "params must have at least one leaf, got an empty tree"
        raise ValueError(msg)
    return first
