"""What a factory makes prints as its call, and is in all else what it was."""

import copy
import functools
import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.shown import shown
from gradstable._src.moments.engine import under_guard
from gradstable.rules import Rule


def keep(updates: Any, state: Any, params: Any = None) -> Any:
    return updates, state


# At the top of a module, so that it can be pickled.
PICKLED = optax.GradientTransformation(keep, keep)


@shown
def plain(*args: Any, **kwargs: Any) -> optax.GradientTransformation:
    """Make a transform of functions that pickle."""
    del args, kwargs
    return PICKLED


@shown
def outer(rate: float) -> optax.GradientTransformation:
    """Call another factory."""
    return plain(rate, more=True)


def own_rule(limit: float) -> Rule:
    def decide(measure: gs.Measure, state: Any, **_: Any) -> tuple[gs.Verdict, Any]:
        return gs.Verdict.of(accept=measure.norm <= limit), state

    return Rule(init=lambda params: (), decide=decide)


def is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda param: np.ndim(param) > 1, params)


ARGUMENTS: dict[str, Any] = {
    "0.0003": 3e-4,
    "None": None,
    "'flax'": "flax",
    "(0, -1)": (0, -1),
    "{'bias': False}": {"bias": False},
    "<float32[2, 3]>": jnp.ones((2, 3)),
    "<float64[]>": np.array(1.0),
    "np.float32(0.5)": np.float32(0.5),
    "jnp.bfloat16": jnp.bfloat16,
    "np.float16": np.float16,
    "is_matrix": is_matrix,
    "<lambda>": lambda params: params,
    "<partial>": functools.partial(is_matrix, None),
    "optax.polynomial_schedule(...)": optax.linear_schedule(1e-3, 1e-4, 10),
    "limit_schedule(...)": gs.rate.limit_schedule(1e-3, min_value=1e-5, max_value=1.0),
    "optax.scale_by_adam(...)": optax.scale_by_adam(),
    "optax.chain(...)": optax.adamw(3e-4),
    "optax.contrib.scale_by_muon(...)": optax.contrib.scale_by_muon(),
    "optax.MultiSteps(...)": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "<transform>": PICKLED,
    "own_rule(...)": own_rule(1.0),
    "<rule>": Rule(is_matrix, is_matrix),
    "(rules.log_mad(clip_at=4.0),)": (gs.rules.log_mad(clip_at=4.0),),
}


@pytest.mark.parametrize("text", ARGUMENTS)
def test_argument_is_short(text: str) -> None:
    assert repr(plain(ARGUMENTS[text])) == f"plain({text})"
    assert repr(plain(given=ARGUMENTS[text])) == f"plain(given={text})"


def test_long_arguments_are_cut() -> None:
    assert len(repr(plain(list(range(1000)), {str(i): i for i in range(1000)}, "x" * 1000))) < 200


def test_traced_argument_is_shown_without_its_value() -> None:
    seen = []

    @jax.jit
    def build(rate: jax.Array) -> jax.Array:
        seen.append(repr(gs.sgd(rate)))
        return rate

    build(jnp.float32(0.1))
    assert seen == ["recipes.sgd(<float32[]>)"]


def test_nothing_is_formatted_before_it_is_asked_for() -> None:
    asked = []

    class Argument:
        def __repr__(self) -> str:
            asked.append(self)
            return "argument"

    made = plain(Argument())
    assert not asked
    assert repr(made) == "plain(argument)"
    assert len(asked) == 1


def test_outer_call_is_shown() -> None:
    assert repr(outer(0.1)) == "outer(0.1)"
    assert type(outer(0.1)) is type(plain())


def test_defaults_that_were_not_given_are_not_shown() -> None:
    assert repr(gs.moments.scale_by_adam()) == "moments.scale_by_adam()"
    assert repr(gs.moments.scale_by_adam(b1=0.9)) == "moments.scale_by_adam(b1=0.9)"


def test_guard_shows_inner_and_rules() -> None:
    tx = gs.guard(optax.adamw(3e-4), gs.rules.global_norm(1.0), own_rule(2.0), axis_name="data")
    assert repr(tx) == (
        "guard(optax.chain(...), rules.global_norm(1.0), own_rule(...), axis_name='data')"
    )


def test_it_is_what_it_was() -> None:
    made = plain(1)
    assert isinstance(made, optax.GradientTransformation)
    assert made == PICKLED
    assert hash(made) == hash(PICKLED)
    init, update = made
    assert (init, update) == (made.init, made.update)
    assert made._fields == ("init", "update")
    rule = gs.rules.global_norm(1.0)
    assert isinstance(rule, Rule)
    assert Rule(*rule) == rule


def test_support_for_extra_args_is_not_added_twice() -> None:
    tx = gs.moments.scale_by_adam()
    assert optax.with_extra_args_support(tx) is tx


def test_replaced_functions_do_not_claim_to_be_the_call() -> None:
    other = gs.moments.scale_by_adam()._replace(update=keep)
    assert isinstance(other, optax.GradientTransformationExtraArgs)
    assert other.update is keep
    assert repr(other).startswith("GradientTransformationExtraArgs(init=<function")


def test_estimator_under_guard_is_freed() -> None:
    tx = gs.moments.scale_by_adam()
    freed = under_guard(tx)
    assert freed != tx
    assert freed.init is tx.init


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copy_keeps_the_call(copied: Any) -> None:
    tx = gs.guard(optax.sgd(0.1), gs.rules.global_norm(1.0))
    assert repr(copied(tx)) == repr(tx)
    assert copied(tx) == tx


def test_pickle_keeps_the_call() -> None:
    made = plain(0.1, units="leaf")
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert type(again) is type(made)
    assert repr(again) == "plain(0.1, units='leaf')"


def test_tree_of_transforms_has_the_same_leaves() -> None:
    leaves, structure = jax.tree.flatten(plain())
    assert leaves == [keep, keep]
    assert jax.tree.unflatten(structure, leaves) == PICKLED


def test_chain_and_wrappers_of_optax_take_it() -> None:
    params = {"w": jnp.ones(3)}
    tx = optax.chain(
        gs.clipping.clip_by_global_norm(1.0), optax.masked(gs.moments.scale_by_adam(), {"w": True})
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert bool(jnp.all(jnp.isfinite(updates["w"])))


def test_signature_and_docstring_are_those_of_the_factory() -> None:
    assert list(inspect.signature(gs.guard).parameters) == ["inner", "rules", "axis_name", "units"]
    assert gs.guard.__name__ == "guard"
    assert gs.guard.__module__ == "gradstable._src.guard"
    assert (gs.guard.__doc__ or "").startswith("Protect an optimizer")


def test_call_with_missing_arguments_names_the_factory() -> None:
    with pytest.raises(TypeError, match=r"guard\(\) missing 1 required positional argument"):
        gs.guard()  # pyright: ignore[reportCallIssue]
