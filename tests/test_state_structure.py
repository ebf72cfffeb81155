"""The structure of a state follows from which arguments are given, and never from their values."""

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.registry import Entry, entries, resolve

PARAMS = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4, jnp.bfloat16)}
NUMBERS: tuple[Any, ...] = (
    *(0, 1e-3, 0.05, 0.5, 1.0, 5.0, 10, 1000),
    *(np.float32(0.0), jnp.float32(0.5)),
)
SCHEDULES = (optax.constant_schedule(0.0), lambda count: 0.5 + 0.0 * count)
# What a wrapper needs inside.
INSIDE = {"loss_scale": gs.guard(optax.sgd(0.1)), "guard": optax.sgd(0.1)}
ALSO = {"qk_clip": {"allow_missing": True}}
NO_NUMBER = {("compress_moments", "to")}


def factory_of(entry: Entry) -> Callable[..., Any]:
    return resolve(entry.name)


def is_transform(entry: Entry) -> bool:
    returned = inspect.signature(factory_of(entry)).return_annotation
    return bool(entry.cases) and "GradientTransformation" in str(returned)


def make(entry: Entry, argument: str, value: Any) -> optax.GradientTransformation | None:
    """Return the transform, or ``None`` where the value is refused."""
    required = {**entry.required, **ALSO.get(entry.short, {})}
    first = (INSIDE[entry.short],) if entry.short in INSIDE else ()
    if first:
        required.pop("inner", None)
    try:
        return factory_of(entry)(*first, **{**required, argument: value})
    except (TypeError, ValueError):
        return None


def form(init: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return structure, shapes and dtypes of a state."""
    state = jax.eval_shape(init, PARAMS)
    return jax.tree.structure(state), *(
        (leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(state)
    )


def is_size(entry: Entry, argument: str) -> bool:
    """Whether an argument is a size, which shapes depend on, and so a Python integer."""
    annotation = inspect.signature(factory_of(entry)).parameters[argument].annotation
    return {int, type(None)} >= set(typing.get_args(annotation) or (annotation,))


def forms(entry: Entry, argument: str, values: tuple[Any, ...]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for value in values:
        made = make(entry, argument, value)
        if made is not None:
            found.setdefault(form(made.init), []).append(value)
    return found


def numeric() -> Iterator[Any]:
    for entry in entries():
        for argument in entry.numbers if is_transform(entry) else ():
            if not is_size(entry, argument) and (entry.short, argument) not in NO_NUMBER:
                yield pytest.param(entry, argument, id=f"{entry.name}({argument}=)")


@pytest.mark.parametrize(("entry", "argument"), list(numeric()))
def test_structure_does_not_depend_on_a_number(entry: Entry, argument: str) -> None:
    found = forms(entry, argument, NUMBERS)
    assert len(found) == 1, f"{argument} has values of unlike states: {list(found.values())}"
    assert len(next(iter(found.values()))) > 1, "too few numbers are accepted to tell"
    assert len(forms(entry, argument, SCHEDULES)) <= 1


@pytest.mark.parametrize(("entry", "argument"), list(numeric()))
def test_structure_does_not_depend_on_whether_a_number_is_traced(
    entry: Entry, argument: str
) -> None:
    """As ``optax.inject_hyperparams`` makes it; where it works at all."""
    ((known, values), *_) = forms(entry, argument, NUMBERS).items()

    def init(value: jax.Array) -> Any:
        made = make(entry, argument, value)
        return () if made is None else made.init(PARAMS)

    traced = jax.eval_shape(init, jax.ShapeDtypeStruct((), jnp.float32))
    if traced != ():
        leaves = ((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(traced))
        same = (jax.tree.structure(traced), *leaves)
        assert same == (known[0], *(leaf[:2] for leaf in known[1:])), values


DECAYED = [
    entry
    for entry in entries()
    if is_transform(entry) and "weight_decay" in inspect.signature(factory_of(entry)).parameters
]


@pytest.mark.parametrize("entry", DECAYED, ids=lambda entry: entry.name)
def test_weight_decay_may_change_to_zero_and_back(entry: Entry) -> None:
    for value in (0.0, 0.1):
        assert form(make(entry, "weight_decay", value).init) == form(  # pyright: ignore[reportOptionalMemberAccess]
            make(entry, "weight_decay", 0.2).init  # pyright: ignore[reportOptionalMemberAccess]
        )


def with_decay(name: str, decay: Any) -> tuple[Callable[[], Any], Any]:
    """Return what makes the first updates, and the gradients."""
    (entry,) = (entry for entry in DECAYED if entry.short == name)
    extra = {"hessian": PARAMS} if "sophia" in name else {}
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 0.25), PARAMS)
    params = jax.tree.map(lambda p: jnp.full_like(p, 0.5), PARAMS)
    tx: Any = make(entry, "weight_decay", decay)
    return lambda: tx.update(gradients, tx.init(params), params, **extra)[0], gradients


@pytest.mark.parametrize("name", [entry.short for entry in DECAYED])
def test_weight_decay_takes_a_schedule_and_updates_keep_their_dtypes(name: str) -> None:
    first, gradients = with_decay(name, SCHEDULES[1])
    for update, g in zip(*map(jax.tree.leaves, (jax.eval_shape(first), gradients)), strict=True):
        assert update.dtype == g.dtype


@pytest.mark.parametrize("name", ["adamw", "lars", "scale_by_clipped_adam", "stable_adamw"])
def test_constant_schedule_decays_as_its_number(name: str) -> None:
    got, wanted = (with_decay(name, of)[0]() for of in (optax.constant_schedule(0.125), 0.125))
    for one, other in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(np.asarray(one, "f4"), np.asarray(other, "f4"), rtol=1e-6)


def test_decay_of_zero_needs_no_parameters_and_another_names_them() -> None:
    g = jnp.ones(2)
    tx = gs.adan(1e-3)
    updates, _ = tx.update(g, tx.init(g))
    assert jnp.isfinite(updates).all()
    tx = gs.adan(1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match="weight decay needs the parameters"):
        tx.update(g, tx.init(g))
