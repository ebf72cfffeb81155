"""Promises about composition: the transform works inside the wrappers of optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.testing.compare import require, require_finite, require_same_types
from gradstable._src.testing.material import gradients

Transform = optax.GradientTransformation


def check_chain(tx: Transform, params: Any) -> None:
    """Work as one transform of ``optax.chain``."""
    _run(_chain(tx, params), params)


def check_inject_hyperparams(tx: Transform, params: Any) -> None:
    """Work if ``optax.inject_hyperparams`` makes the transform."""
    _run(_inject(tx, params), params)


def check_multi_steps(tx: Transform, params: Any) -> None:
    """Work on the mean gradients of ``optax.MultiSteps``."""
    # Its conditions are compiled in each eager step, which costs more than the loop.
    _run(_multi_steps(tx, params), params, compiled=True)


def check_masked(tx: Transform, params: Any) -> None:
    """Work on the leaves that ``optax.masked`` lets through."""
    _run(_masked(tx, params), params)


def check_partition(tx: Transform, params: Any) -> None:
    """Work as one part of ``optax.partition``."""
    _run(_partition(tx, params), params)


def check_extra_args(tx: Transform, params: Any) -> None:
    """Ignore unknown extra arguments of ``update``, and pass them on."""
    updates = gradients(params)
    extra = {"value": jnp.asarray(2.0), "an_unknown_argument": jnp.asarray(3.0)}

    def run(wrapped: Transform) -> None:
        full = optax.with_extra_args_support(wrapped)
        jax.eval_shape(lambda: full.update(updates, full.init(params), params, **extra))

    run(tx)
    for name, wrap in _WRAPPERS.items():
        seen: list[set[str]] = []
        run(wrap(optax.chain(tx, _probe(seen)), params))
        missing = extra.keys() - seen[-1]
        require(not missing, f"in optax.{name}, the next transform did not get {sorted(missing)}")


def _chain(tx: Transform, params: Any) -> Transform:
    del params
    return optax.chain(optax.identity(), tx, optax.scale(0.5))


def _inject(tx: Transform, params: Any) -> Transform:
    del params
    return optax.inject_hyperparams(lambda factor: optax.chain(tx, optax.scale(factor)))(factor=0.5)


def _multi_steps(tx: Transform, params: Any) -> Transform:
    del params
    accumulated = optax.MultiSteps(tx, every_k_schedule=2)

    # Its gradient_transformation() would drop extra arguments.
    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return accumulated.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(accumulated.init, update)


def _masked(tx: Transform, params: Any) -> Transform:
    return optax.masked(tx, _every_other(params, True, False))


def _partition(tx: Transform, params: Any) -> Transform:
    labels = _every_other(params, "trained", "frozen")
    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


_WRAPPERS: dict[str, Callable[[Transform, Any], Transform]] = {
    "chain": _chain,
    "inject_hyperparams": _inject,
    "MultiSteps": _multi_steps,
    "masked": _masked,
    "partition": _partition,
}


def _every_other(params: Any, first: object, second: object) -> Any:
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(treedef, [(first, second)[i % 2] for i in range(len(leaves))])


def _run(tx: Transform, params: Any, *, compiled: bool = False) -> None:
    """Run two updates, and trace them as steps of a scan, which requires that no type changes."""
    first_state = tx.init(params)
    given = [gradients(params, seed) for seed in range(2)]

    def body(state: Any, updates: Any) -> tuple[Any, Any]:
        updates, state = tx.update(updates, state, params)
        return state, updates

    def run(state: Any, stacked: Any) -> Any:
        return jax.lax.scan(body, state, stacked)

    stacked = jax.tree.map(lambda *each: jnp.stack(each), *given)
    state, updates = jax.eval_shape(run, first_state, stacked)
    last = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[-1], tree), updates)
    require_same_types(last, given[0], name="updates", when="after an update inside jit")
    require_same_types(state, first_state, name="state", when="after an update inside jit")
    if compiled:
        _, seen = jax.jit(run)(first_state, stacked)
    else:
        state, first = body(first_state, given[0])
        seen = first, body(state, given[1])[1]
    require_finite(seen, name="updates", when="after two updates")


def _probe(seen: list[set[str]]) -> optax.GradientTransformationExtraArgs:
    """Return an identity that records the names of the extra arguments it gets."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del params
        seen.append(set(extra_args))
        return updates, state

    return optax.GradientTransformationExtraArgs(optax.identity().init, update)
