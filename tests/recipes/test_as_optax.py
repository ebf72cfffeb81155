"""The names, arguments, defaults and updates of optax, except where the migration page says so."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.recipes.differences import ALL, differing_arguments, shared, table

NAMES = sorted(shared())
ROWS = table()
# Those of optax draw, or are no transforms.
NO_UPDATE = {"add_noise", "global_norm", "schedule_free_eval_params"}
STEPS = 6  # RAdam begins at the sixth
TOLERANCE = 3e-5  # optax loses digits of 1 - 0.999
CALM = (gs.rules.global_norm(1e9),)
SCHEDULE = optax.linear_schedule(0.1, 0.3, 3)
# Another value for each number; a name that is missing here fails a test.
OTHER: dict[str, Any] = {
    **{"b1": 0.8, "b2": 0.95, "b3": 0.9, "eps": 1e-3, "eps_root": 1e-3, "alpha": 2.0, "rho": 0.8},
    **{"decay": 0.7, "momentum": 0.5, "initial_scale": 0.5, "initial_accumulator_value": 0.3},
    **{"weight_decay": SCHEDULE, "learning_rate": SCHEDULE, "beta": 0.8, "threshold": 4.5},
    **{"trust_coefficient": 0.01, "min_norm": 0.1, "smooth_beta": 2.0, "consistent_rms": 0.2},
    **{"adam_b1": 0.8, "adam_b2": 0.9, "adam_eps_root": 1e-3, "adam_weight_decay": SCHEDULE},
    **{"adam_learning_rate": 0.2, "weight_lr_power": 1.0, "warmup_steps": 3, "ns_steps": 4},
    **{"max_norm": 0.5, "factor": 0.5, "patience": 2, "rtol": 0.1, "atol": 0.1, "cooldown": 1},
    **{"accumulation_size": 2, "min_scale": 0.1, "gamma": 0.1, "clip_threshold": 0.5},
    **{"update_interval": 2},
}
CHOICES: dict[str, Any] = {
    "mode": "smooth",
    "preconditioning": "aol",
    "ns_coeffs": ((3.0, -4.0, 2.0), (2.0, -1.5, 0.5)),
    "mu_dtype": jnp.float32,
    "state_dtype": jnp.float32,
    "accumulator_dtype": jnp.float32,
    "mask": {"b": False, "v": True, "w": True},
    "weight_decay_mask": {"b": False, "v": True, "w": True},
    "trust_ratio_mask": {"b": False, "v": True, "w": True},
    "clip_value_fn": lambda step: step**0.5,
    "muon_weight_dimension_numbers": lambda tree: jax.tree.map(
        lambda leaf: optax.contrib.MuonDimensionNumbers(1, 0) if leaf.ndim == 2 else None, tree
    ),
    "weight_dimension_numbers": lambda tree: jax.tree.map(
        lambda _: optax.contrib.MuonDimensionNumbers(1, 0), tree
    ),
}
# What cannot be called without.
CALL: dict[str, dict[str, Any]] = {
    "schedule_free": {"learning_rate": 0.1},
    "scale_by_muon": {
        "weight_dimension_numbers": lambda tree: jax.tree.map(
            lambda _: optax.contrib.MuonDimensionNumbers(), tree
        )
    },
}
FIRST: dict[str, Any] = {
    "learning_rate": 0.1,
    "inner": optax.sgd(0.1),
    "decay": 0.9,
    "threshold": 0.5,
    "max_norm": 0.5,
}


def square(params: Any) -> jax.Array:
    return sum((1e4 * jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


EXTRA = {
    "reduce_on_plateau": ({"value": 1.0}, {"value": 1.0}),
    "sophia": (
        {"hessian": lambda p: jax.tree.map(lambda leaf: jnp.full_like(leaf, 2e4), p)},
        {"obj_fn": square},
    ),
}


def first_argument(name: str) -> tuple[Any, ...]:
    """Return the first argument, by position, of what takes one that way."""
    parameter = next(iter(inspect.signature(shared()[name][0]).parameters.values()), None)
    if parameter is None or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return ()
    return (FIRST.get(parameter.name, parameter.default),)


def options_of(name: str) -> dict[str, Any]:
    """Return another value for every argument that both have."""
    ours, theirs = (inspect.signature(made).parameters for made in shared()[name])
    options: dict[str, Any] = {}
    for argument in list(ours)[len(first_argument(name)) :]:
        if argument in theirs and argument not in ("params", "axis_name"):
            default = ours[argument].default
            flips = isinstance(default, bool) and argument not in CHOICES
            options[argument] = not default if flips else {**OTHER, **CHOICES}[argument]
    if "warmup_steps" in options:  # optax warms up to a number
        options.pop("learning_rate", None)
    return options


def material(name: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "v": (2, 5), "b": (3,)}
    if name == "scale_by_muon":  # which takes matrices only
        del shapes["b"]
    gradients = {
        leaf: jnp.asarray(rng.normal(size=(STEPS, *shape)), jnp.float32)
        for leaf, shape in shapes.items()
    }
    return gradients, jax.tree.map(lambda leaf: 2.0 * leaf[0] + 0.5, gradients)


def updates_of(
    name: str, tx: optax.GradientTransformation, extra: dict[str, Any]
) -> list[np.ndarray]:
    gradients, params = material(name)
    full = optax.with_extra_args_support(tx)
    state, made = full.init(params), []
    for step in range(STEPS):
        g = jax.tree.map(lambda leaf, step=step: leaf[step], gradients)
        updates, state = full.update(g, state, params, **extra)
        params = optax.apply_updates(params, jax.tree.map(lambda u: 0.01 * u, updates))
        made += map(np.asarray, jax.tree.leaves(updates))
    return made


def distance(name: str, options: dict[str, Any]) -> float:
    """Return how far updates are apart, beside the largest entry of their leaf."""
    ours, theirs = shared()[name]
    first = first_argument(name)
    given = {**CALL.get(name, {}), **options}
    rules = {"rules": CALM} if "rules" in inspect.signature(ours).parameters else {}
    own, other = EXTRA.get(name, ({}, {}))
    got = updates_of(name, ours(*first, **given, **rules), own)
    wanted = updates_of(name, theirs(*first, **given), other)
    return max(
        float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
        for one, other in zip(got, wanted, strict=True)
    )


def rows_of(name: str, *, of_update: bool) -> Iterator[tuple[str, ...]]:
    for row in ROWS:
        if row.of_update == of_update and (name in row.functions or ALL in row.functions):
            yield row.arguments


def told_apart(name: str, options: dict[str, Any]) -> bool:
    """Whether the table says that updates differ where these options are given."""
    return any(
        all(options.get(argument) for argument in with_) for with_ in rows_of(name, of_update=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_those_of_optax_or_in_the_table(name: str) -> None:
    told = {argument for row in rows_of(name, of_update=False) for argument in row}
    apart = differing_arguments(*shared()[name])
    assert apart <= told, f"{name} differs from optax in {sorted(apart - told)}: docs/migration"


def test_every_row_of_the_table_still_holds() -> None:
    apart = {name: differing_arguments(*shared()[name]) for name in NAMES}
    for row in ROWS:
        if row.of_update:
            assert set(row.functions) <= set(NAMES) - NO_UPDATE, row
            for function in row.functions if row.arguments else ():
                options = dict.fromkeys(row.arguments, True)
                assert "learning_rate" in options or distance(function, options) > TOLERANCE, row
            continue
        for function in NAMES if ALL in row.functions else row.functions:
            if ALL not in row.functions:
                assert set(row.arguments) <= apart[function], row
        if ALL in row.functions:
            assert set(row.arguments) <= set().union(*apart.values()), row


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_UPDATE])
def test_updates_are_those_of_optax_or_in_the_table(name: str) -> None:
    assert (distance(name, {}) > TOLERANCE) == told_apart(name, {})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_UPDATE])
def test_updates_are_those_of_optax_with_other_arguments(name: str) -> None:
    options = options_of(name)
    assert told_apart(name, options) or distance(name, options) <= TOLERANCE


def _alone() -> Iterator[Any]:
    for name in sorted(set(NAMES) - NO_UPDATE):
        for argument, value in options_of(name).items():
            # Of 1 - 0.9999 optax loses more digits, and only clipping hides it.
            more = {"b2": 0.999} if argument == "use_clipping" else {}
            yield pytest.param(name, {argument: value, **more}, id=f"{name}({argument}=)")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), list(_alone()))
def test_updates_are_those_of_optax_with_one_other_argument(
    name: str, option: dict[str, Any]
) -> None:
    assert told_apart(name, option) or distance(name, option) <= TOLERANCE


def test_adadelta_without_a_rate_goes_downhill() -> None:
    gradients, _ = material("adadelta")
    ours, theirs = (updates_of("adadelta", room.adadelta(), {}) for room in (gs, optax))
    for down, up in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(down, -up, rtol=1e-5)
    assert (ours[0] * np.asarray(gradients["b"][0]) < 0).all()
