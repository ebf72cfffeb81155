"""A sound transform, and what happens to it when one promise after another is broken."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.extend import source_info_util

from gradstable._src.core.equations import as_arrays
from gradstable._src.core.tree_checks import check_updates
from gradstable.testing import CHECKS

Transform = optax.GradientTransformationExtraArgs


class SoundState(NamedTuple):
    """State of ``sound``, and of most of what is broken here."""

    count: Any  # shape=(), dtype=jnp.int32
    more: Any = ()


def _bounded(leaf: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(leaf), jnp.clip(leaf, -1, 1), jnp.zeros_like(leaf))


def _tree(function: Callable[[jax.Array], Any]) -> Callable[[Any], Any]:
    return lambda tree: jax.tree.map(function, tree)


def transform(
    *,
    count: Callable[[], Any] = lambda: jnp.zeros((), jnp.int32),
    more: Callable[[Any], Any] = lambda params: (),
    next_more: Callable[[Any, Any], Any] = lambda more, updates: more,
    act: Callable[[Any], Any] = lambda updates: jax.tree.map(_bounded, updates),
    check: Callable[..., None] = check_updates,
) -> Transform:
    """Clip every entry to [-1, 1] and count: sound as it is, and broken by what is given."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        check(updates, params)
        updates = as_arrays(updates)
        new_state = SoundState(
            count=optax.safe_increment(jnp.asarray(state.count, jnp.int32)),
            more=next_more(state.more, updates),
        )
        return act(updates), new_state

    def init(params: Any) -> SoundState:
        return SoundState(count=count(), more=more(params))

    return optax.GradientTransformationExtraArgs(init, update)


def without_extra_args() -> Transform:
    sound = transform()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return sound.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(sound.init, update)  # pyright: ignore[reportArgumentType]


def momentum() -> Transform:
    """Divide by a momentum that is kept in the dtype of the parameters."""

    def learn(kept: jax.Array, g: jax.Array) -> jax.Array:
        new = kept.astype(jnp.float32) + jnp.abs(g).astype(jnp.float32)
        return jnp.where(jnp.isfinite(new), new.astype(kept.dtype), kept)

    def divide(g: jax.Array, kept: jax.Array) -> jax.Array:
        return (_bounded(g).astype(jnp.float32) / (1.0 + kept.astype(jnp.float32))).astype(g.dtype)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        check_updates(updates, params)
        updates = as_arrays(updates)
        more = jax.tree.map(learn, state.more, updates)
        act = jax.tree.map(divide, updates, more)
        return act, SoundState(optax.safe_increment(state.count), more)

    def init(params: Any) -> SoundState:
        return SoundState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, as_arrays(params)))

    return optax.GradientTransformationExtraArgs(init, update)


def _rooted(leaf: jax.Array) -> jax.Array:
    return jnp.where(
        jnp.isfinite(leaf), jnp.clip(jnp.sqrt(leaf * leaf), 0, 1), jnp.zeros_like(leaf)
    )


def _without_scope(updates: Any) -> Any:
    with source_info_util.reset_name_stack():
        return _tree(_bounded)(updates)


def _only_arrays(updates: Any, params: Any = None) -> None:
    check_updates(updates, params)
    for leaf in jax.tree.leaves(params):
        assert isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


class Homonym(NamedTuple):
    """A state that counts under the name that wrappers of ours count under."""

    calls: jax.Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """A number that is part of the structure of the state."""

    number: int = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Unregistered:
    """A node that JAX knows, and Flax does not."""

    value: jax.Array


def _branch(updates: Any) -> Any:
    return _tree(_bounded)(updates) if optax.tree.norm(updates) > 0.0 else updates


def _by_name(updates: Any) -> Any:
    return {**_tree(_bounded)(updates), "kernel": _bounded(updates["kernel"])}


def _without_none(updates: Any) -> Any:
    return jax.tree.map(_bounded, updates, is_leaf=lambda leaf: leaf is None)


def _only_dicts(updates: Any) -> Any:
    if not isinstance(updates, dict):
        msg = f"a dict is needed, not {type(updates)}"
        raise TypeError(msg)
    return _tree(_bounded)(updates)


def _traced_otherwise(leaf: jax.Array) -> jax.Array:
    return _bounded(leaf) * (0.5 if isinstance(leaf, Tracer) else 1.0)


def _flat(leaf: jax.Array) -> jax.Array:
    return _bounded(leaf.ravel()).reshape(leaf.shape)


def _promoted(leaf: jax.Array) -> jax.Array:
    return (_bounded(leaf) * jnp.ones((), jnp.float32)).astype(leaf.dtype)


def _raised(leaf: jax.Array) -> jax.Array:
    return _bounded(leaf) - jnp.zeros_like(leaf, shape=leaf.shape[-1:])


def _by_largest(leaf: jax.Array) -> jax.Array:
    return _bounded(leaf) / jnp.maximum(jnp.max(jnp.abs(_bounded(leaf))), 1)


def _by_sum(updates: Any) -> Any:
    updates = _tree(_bounded)(updates)
    leaves = jax.tree.leaves(updates)
    largest = jnp.max(jnp.stack([jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in leaves]))
    return _tree(lambda leaf: leaf / jnp.sqrt(1.0 + largest).astype(leaf.dtype))(updates)


def _all_three(updates: Any, params: Any = None) -> None:
    check_updates(updates, params)
    if (number := len(jax.tree.leaves(updates))) not in (0, 1, 3):
        msg = f"{number} leaves, and not three"
        raise ValueError(msg)


def _twice(params: Any) -> tuple[Any, Any]:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return zeros, zeros


_WRAPPED = {"chain", "inject_hyperparams", "multi_steps", "masked", "partition"}
# A state of other types than those of init: noticed wherever the two are compared,
_DRIFT = {
    "stable_state",
    "state_dtypes",
    "one_trace",
    "abstract",
    "train_state",
    "other_leaves",
    *_WRAPPED,
}
# and one of another structure: also where it is carried or restored.
_RESTRUCTURED = {*_DRIFT, "scan", "cond", "derivative", "extra_args", "flax_bytes"}
_OTHER_TREES = {"extra_args", "masked", "partition", "nnx_optimizer"}
_NEVER_TRACED = {
    "no_empty_arrays",
    "own_buffers",
    "map_params",
    "integer_leaves",
    "last_cast",
    "flax_bytes",
    "optax_readers",
}
# What is broken, and exactly the checks that notice.
BROKEN: dict[str, tuple[Transform, set[str]]] = {
    "nothing": (transform(), set()),
    "counter of weak type": (transform(count=lambda: jnp.asarray(0)), _DRIFT),
    "counter in Python": (transform(count=lambda: 0), {*_DRIFT, "debug_switches"}),
    "structure that grows": (
        transform(more=lambda params: {}, next_more=lambda more, updates: {"seen": jnp.ones(())}),
        {*_RESTRUCTURED, "sharding"},
    ),
    "static number that counts": (
        transform(more=lambda params: Static(), next_more=lambda more, _: Static(more.number + 1)),
        {*_RESTRUCTURED, "none_leaves", "empty_tree", "odd_shapes"},
    ),
    "state in the dtype of the gradients": (
        transform(more=_tree(jnp.zeros_like), next_more=lambda more, updates: updates),
        {"other_leaves", "state_dtypes"},
    ),
    "parameters kept in the state": (
        transform(more=lambda params: params),
        {"other_leaves", "own_buffers", "donation", "nnx_optimizer"},
    ),
    "one array twice in the state": (
        transform(more=_twice),
        {"own_buffers", "donation", "nnx_optimizer"},
    ),
    "array without entries in the state": (
        transform(more=lambda params: jnp.zeros((0,))),
        {"no_empty_arrays"},
    ),
    "list of leaves in the state": (
        transform(more=lambda params: [jnp.zeros(leaf.shape) for leaf in jax.tree.leaves(params)]),
        {"other_leaves", "map_params"},
    ),
    "field with the name of one of ours": (
        transform(more=lambda params: Homonym(jnp.zeros((), jnp.int32))),
        {"optax_readers"},
    ),
    "branch in Python": (transform(act=_branch), set(CHECKS) - _NEVER_TRACED),
    "another way when traced": (
        transform(act=_tree(_traced_otherwise)),
        {"other_leaves", "jit_equals_eager"},
    ),
    "flattened leaves": (transform(act=_tree(_flat)), {"sharding"}),
    "updates in float32": (
        transform(act=_tree(lambda leaf: _bounded(leaf).astype(jnp.float32))),
        {"update_dtypes"},
    ),
    "dtype promoted": (transform(act=_tree(_promoted)), {"strict_promotion"}),
    "rank promoted": (transform(act=_tree(_raised)), {"strict_rank"}),
    "NaN let through": (
        transform(act=_tree(lambda leaf: jnp.clip(leaf, -1, 1))),
        {"survives_any_gradient"},
    ),
    "maximum of a leaf": (transform(act=_tree(_by_largest)), {"odd_shapes"}),
    "stack of all leaves": (transform(act=_by_sum), {"empty_tree"}),
    "leaf by its name": (
        transform(act=_by_name),
        {*_OTHER_TREES, "empty_tree"},
    ),
    "number of leaves": (
        transform(check=_all_three),
        {*_OTHER_TREES, "other_leaves"},
    ),
    "leaf that may not be missing": (transform(act=_without_none), {"other_leaves", "none_leaves"}),
    "dict expected": (transform(act=_only_dicts), {"nnx_optimizer"}),
    "integers accepted": (transform(check=lambda updates, params: None), {"integer_leaves"}),
    "momentum in float16, looked at before the cast": (
        momentum(),
        {"last_cast"},
    ),
    "NaN selected behind a root": (
        transform(act=_tree(_rooted)),
        {"derivative"},
    ),
    "limit of infinity in the state": (
        transform(more=lambda params: jnp.full((), jnp.inf)),
        {"debug_switches", "multi_steps", "flax_bytes"},  # inf - inf is compared there
    ),
    "scope closed": (transform(act=_without_scope), {"name_scopes"}),
    "arrays alone expected": (transform(check=_only_arrays), {"other_leaves"}),
    "extra arguments refused": (without_extra_args(), {"extra_args"}),
    "node that Flax does not know": (
        transform(more=lambda params: Unregistered(jnp.ones(()))),
        {"flax_bytes"},
    ),
}
