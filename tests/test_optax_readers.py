"""A guarded state answers every reader of optax as the bare state does."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

import gradstable as gs
from tests.registry import cases

# Names of layers and normalizations in Flax, Haiku and others' parameters, with one of our words.
PARAMS = {
    "scale": jnp.ones((3, 4)),
    "mean": {"kernel": jnp.ones((4, 3)), "weight": jnp.ones(3)},
    "w": jnp.ones(2),
}
USUAL = frozenset(
    {"kernel", "bias", "scale", "embedding", "mean", "var", "weight", "w", "b", "offset", "gamma"}
    | {"beta", "alpha", "hidden", "query", "key", "value", "out", "attention", "mlp", "head"}
    | {"norm", "center", "spread", "layers", "embed", "logits"}
)
# In the place of one of optax's, whose fields have the same names.
COUNTERPARTS = frozenset({"ReduceOnPlateauState"})


@functools.cache
def optax_names() -> frozenset[str]:
    """Return the names of all states of optax, and of their fields, and of all arguments."""
    names: set[str] = set()
    root = Path(inspect.getfile(optax)).parent
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if "test" in file.name or "experimental" in parts:
            continue
        module = importlib.import_module(".".join(("optax", *parts)).removesuffix(".__init__"))
        for name, made in vars(module).items():
            if inspect.isclass(made) and made.__module__ == module.__name__:
                fields = getattr(made, "_fields", ())
                if dataclasses.is_dataclass(made):
                    fields = [field.name for field in dataclasses.fields(made)]
                names |= {name, *fields}
    for room in (optax, optax.contrib):
        for name in dir(room):
            made = getattr(room, name)
            if inspect.isfunction(made) and not name.startswith("_"):
                names |= {*inspect.signature(made).parameters}
    return frozenset(names)


def nodes(tree: Any) -> list[Any]:
    found: list[Any] = []
    jax.tree.map(lambda _: None, tree, is_leaf=lambda node: bool(found.append(node)))
    return [node for node in found if hasattr(node, "_fields")]


def test_fields_of_our_states_have_names_of_their_own() -> None:
    taken = optax_names() | USUAL
    assert {"count", "mu", "inner_state", "ScaleByAdamState", "learning_rate"} <= taken
    for case in cases():
        for node in nodes(jax.eval_shape(case.tx.init, PARAMS)):
            kind = type(node)
            ours = kind.__module__.startswith("gradstable.")
            estimates = ".moments." in kind.__module__ and "wrapped_state" not in kind._fields
            if not ours or estimates or kind.__name__ in COUNTERPARTS:
                continue
            shared = taken & {kind.__name__, *kind._fields}
            assert not shared, f"{kind.__name__} in {case.name} shares {sorted(shared)} with optax"


def _made(make: Callable[..., Any]) -> Any:
    for args in ((1e-3,), ()):
        try:
            made = make(*args)
            jax.eval_shape(made.init, PARAMS)
        except Exception:
            continue
        return made
    return None


def _optimizers() -> dict[str, Any]:
    found = {
        name: _made(getattr(room, name))
        for room in (optax, optax.contrib)
        for name in dir(room)
        if inspect.isfunction(getattr(room, name))
        and "learning_rate" in inspect.signature(getattr(room, name)).parameters
    }
    schedule = optax.cosine_decay_schedule(1e-3, 10)
    labels = {"scale": "one", "mean": "two", "w": "one"}
    return {name: made for name, made in found.items() if made is not None} | {
        "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(schedule, b2=0.99),
        "schedule_free": optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9),
        "masked": optax.masked(optax.adam(1e-3), {"scale": True, "mean": False, "w": True}),
        "partition": optax.partition({"one": optax.adam(1.0), "two": optax.lion(1.0)}, labels),
        "apply_if_finite": optax.apply_if_finite(optax.adam(1e-3), 3),
        "plateau": optax.chain(optax.adam(1.0), optax.contrib.reduce_on_plateau()),
        "noise": optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(1.0)),
        "recipe": gs.moments.scale_by_adam(),
    }


OPTIMIZERS = _optimizers()
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "guard": gs.guard,
    "guard, all rules": lambda inner: gs.guard(
        inner,
        *(gs.rules.log_mad(), gs.rules.zscore(), gs.rules.ema_multiple(), gs.rules.adagc()),
        *(gs.rules.window_sigma(judge_loss=True), gs.rules.percentile(), gs.rules.loss_spike()),
        *(gs.rules.gradient_stabilizer(), gs.rules.group_norm()),
    ),
    "record(guard)": lambda inner: gs.record(gs.guard(inner)),
    "backoff(rollback(guard))": lambda inner: gs.backoff(gs.rollback(gs.guard(inner))),
    "moment_hygiene(rollback(guard))": lambda inner: gs.recovery.moment_hygiene(
        gs.rollback(gs.guard(inner), copies=3, dtype=jnp.bfloat16)
    ),
    "accumulate(guard)": lambda inner: gs.accumulate(gs.guard(inner), 2),
    "loss_scale(guard)": lambda inner: gs.loss_scale(gs.guard(inner)),
    "guard(kahan)": lambda inner: gs.guard(gs.precision.kahan(inner)),
    "guard(compress_moments)": lambda inner: gs.guard(
        gs.precision.compress_moments(inner, min_size=1)
    ),
    "chain": lambda inner: optax.chain(
        gs.clipping.clip_by(gs.rules.log_mad()),
        gs.moments.cautious(inner),
        gs.rate.backoff_on_spike(),
        gs.precision.stochastic_round(),
    ),
    "all": lambda inner: gs.protect(
        inner, kahan=True, loss_scale=True, accumulate=2, backoff=True, rollback=True, govern=True
    ),
}


def wrapped(name: str, inner: Any) -> Any:
    """Return the state of a wrapper around an optimizer; ``None`` where it takes no such one."""
    tx = WRAPPERS[name](inner)
    try:
        return tx, jax.eval_shape(tx.init, PARAMS)
    except ValueError as error:
        if "no moments" in str(error) or "nothing to compress" in str(error):
            return None
        raise


def test_all_optimizers_of_optax_are_tried() -> None:
    assert len(OPTIMIZERS) > 40


def _shapes(answers: list[tuple[Any, Any]]) -> list[Any]:
    return [(str(path[-1]), jax.tree.map(jnp.shape, value)) for path, value in answers]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_values_are_found_by_name_as_in_the_bare_state(wrapper: str) -> None:
    tried = 0
    for name, inner in OPTIMIZERS.items():
        made = wrapped(wrapper, inner)
        if made is None:
            continue
        bare, state = jax.eval_shape(inner.init, PARAMS), made[1]
        tried += 1
        present = {field for node in nodes(bare) for field in (type(node).__name__, *node._fields)}
        keys = {"learning_rate", "b2", *PARAMS, *PARAMS["mean"]}
        for asked in sorted(present | keys | {"count", "value", "step", "params", "inner_state"}):
            wanted = optax.tree.get_all_with_path(bare, asked)
            found = optax.tree.get_all_with_path(state, asked)
            if asked.endswith("State"):
                assert len(found) == len(wanted), f"{asked} in {wrapper} around {name}"
            else:
                assert _shapes(found) == _shapes(wanted), f"{asked} in {wrapper} around {name}"
    assert tried > 20


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_map_params_maps_what_it_maps_in_the_bare_state(wrapper: str) -> None:
    inner = optax.inject_hyperparams(optax.adam)(1e-3)
    made = wrapped(wrapper, inner)
    assert made is not None

    def mapped(tx: Any, state: Any) -> list[tuple[Any, Any]]:
        seen: list[tuple[Any, Any]] = []
        optax.tree.map_params(
            tx,
            lambda leaf, param: seen.append((jnp.shape(leaf), param.shape)),
            state,
            PARAMS,
            transform_non_params=lambda _: None,
        )
        return seen

    assert mapped(*made) == mapped(inner, jax.eval_shape(inner.init, PARAMS))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_values_are_set_by_name_as_in_the_bare_state(wrapper: str) -> None:
    inner = optax.inject_hyperparams(optax.adam)(1e-3)
    made = wrapped(wrapper, inner)
    assert made is not None
    bare, state = jax.eval_shape(inner.init, PARAMS), made[1]
    for name in ("count", "learning_rate", "mu", "w", "scale", "inner_state"):
        wanted = optax.tree.set(bare, **{name: 7})
        found = optax.tree.set(state, **{name: 7})
        for asked in ("count", "learning_rate", "mu", "nu", "w", "scale"):
            here, there = (optax.tree.get_all_with_path(one, asked) for one in (found, wanted))
            assert _shapes(here) == _shapes(there)
        number = sum(leaf == 7 for leaf in jax.tree.leaves(found) if isinstance(leaf, int))
        assert number == sum(leaf == 7 for leaf in jax.tree.leaves(wanted) if isinstance(leaf, int))


ANSWERING = [name for name in WRAPPERS if name not in ("chain", "guard(compress_moments)")]


@pytest.mark.parametrize("wrapper", ANSWERING)
def test_schedule_free_is_evaluated_by_optax(wrapper: str) -> None:
    inner = optax.contrib.schedule_free(optax.adam(0.1, b1=0.0), 0.1, b1=0.9)
    tx = WRAPPERS[wrapper](inner)
    averaged = optax.contrib.schedule_free_eval_params(tx.init(PARAMS), PARAMS)
    wanted = optax.contrib.schedule_free_eval_params(inner.init(PARAMS), PARAMS)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, averaged, wanted))


@pytest.mark.parametrize("wrapper", ANSWERING)
def test_hyperparams_are_attributes(wrapper: str) -> None:
    tx: Any = WRAPPERS[wrapper](optax.inject_hyperparams(optax.adam)(1e-3))
    state = tx.init({"w": jnp.ones(2)})
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    assert float(optax.tree.get(state, "learning_rate")) == 0.5
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        state.no_such_thing  # noqa: B018
    assert not hasattr(state, "__array__")


def test_line_search_finds_its_value_and_gradient() -> None:
    params = {"w": jnp.asarray([3.0, 4.0])}

    def loss(params: Any) -> jax.Array:
        return jnp.sum(params["w"] ** 2)

    again = optax.value_and_grad_from_state(loss)
    for wrapper in ("record(guard)", "backoff(rollback(guard))", "accumulate(guard)", "guard"):
        tx = optax.with_extra_args_support(WRAPPERS[wrapper](optax.lbfgs()))
        state = jax.eval_shape(tx.init, params)
        value, gradient = jax.eval_shape(lambda s: again(params, state=s), state)
        assert value.shape == ()
        assert jax.tree.map(jnp.shape, gradient) == {"w": (2,)}
