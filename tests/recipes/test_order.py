"""Every order of wrappers is right, or is refused with an order that is right."""

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core import order as module
from gradstable._src.core.find import find_all
from gradstable._src.core.order import ORDER, in_order, is_wrong
from gradstable._src.recovery.turn import RollbackState
from tests.recipes.weather import WRAPPERS, is_refused, nested, orders, runs, wrongs
from tests.registry import entries, resolve

PARAMS = {"w": jnp.ones(8)}
# What wraps others but is not in the matrix.
COMPANIONS: dict[str, Callable[[Any], Any]] = {
    "average": lambda inner: gs.sharding.average(inner, "data"),
    "moment_hygiene": gs.recovery.moment_hygiene,
    "cautious": lambda inner: gs.moments.cautious(inner, descends=True),
    "schedule_free": lambda inner: gs.recipes.schedule_free(inner, 1e-3),
}
# What is a link of a chain and wraps nothing.
LINKS: dict[str, Callable[[Any], Any]] = {
    "stochastic_round": lambda inner: optax.chain(inner, gs.precision.stochastic_round()),
}
MAKERS = {**WRAPPERS, **COMPANIONS, **LINKS}
WRONG = [pair for pair in itertools.product(ORDER, repeat=2) if is_wrong(*pair)]


HIDDEN: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optax.chain(tx, optax.identity()),
    "masked": lambda tx: optax.masked(tx, {"w": True}),
    "partition": lambda tx: optax.partition({"all": tx}, {"w": "all"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda rate: optax.chain(tx, optax.scale(rate))
    )(rate=0.1),
}


def test_every_order_is_made_or_refused_with_one_that_is_right() -> None:
    made = refused = 0
    advice: set[str] = set()
    for order in orders(4):
        try:
            nested(order)
        except ValueError as error:
            assert is_refused(order), order
            refused += 1
            advice.add(str(error).partition("Right is ")[2])
        else:
            assert not is_refused(order), order
            made += 1
    assert made > 2000
    assert refused > 3000
    for code in advice:
        tx = eval(code, {"gradstable": gs, "optax": optax, "optimizer": optax.adamw(1e-3)})
        jax.eval_shape(tx.init, PARAMS)


@pytest.mark.parametrize("pair", WRONG, ids="-".join)
def test_what_is_refused_is_named_with_the_reason_wherever_it_is(pair: tuple[str, str]) -> None:
    outer, inner = pair
    below = optax.adamw(1e-3)
    needs_guard = inner in ("backoff", "loss_scale", "moment_hygiene")
    tx = MAKERS[inner](gs.guard(below) if needs_guard else below)
    told = re.escape(f"{outer} must not be around {inner}: ")
    if inner not in LINKS:  # these are seen in the state only
        with pytest.raises(ValueError, match=told):
            MAKERS[outer](tx)
    named = "guard" if inner == "schedule_free" else inner
    for hidden in HIDDEN.values():
        right = "Right is (gradstable|optax.chain)"
        with pytest.raises(ValueError, match=f"must not be around {named}: .*{right}"):
            jax.eval_shape(MAKERS[outer](hidden(tx)).init, PARAMS)


def test_recipes_have_a_guard_that_is_seen() -> None:
    with pytest.raises(ValueError, match="guard must not be around rollback"):
        gs.recipe(gs.rollback(gs.moments.scale_by_adam()), 1e-3).init(PARAMS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="rollback must not be around backoff"):
        gs.rollback(optax.chain(gs.backoff(gs.adamw(1e-3)))).init(PARAMS)


def test_every_public_wrapper_has_a_place_in_the_order() -> None:
    """A new wrapper is put into ``core/order.py``, and calls ``inside`` with its name."""
    names = {}
    for entry in entries():
        function = resolve(entry.name)
        if inspect.isfunction(function) and "inner" in inspect.signature(function).parameters:
            names[entry.short] = inspect.getsource(inspect.unwrap(function))
    assert names.keys() == ORDER.keys() - LINKS.keys()
    assert ORDER.keys() == MAKERS.keys()
    for name, source in names.items():
        assert f'inside("{name}", inner)' in source, name


def test_the_order_of_the_table_is_right() -> None:
    assert not is_refused(list(ORDER))
    assert in_order(["guard", "rollback"]) == "gradstable.rollback(gradstable.guard(optimizer))"


def cover() -> list[Any]:
    """Return a few orders of four in which every pair occurs that is right; the longest are slow.

    The order of ``gs.protect`` has a compensation around a rollback in every run.
    """
    several = [order for order in itertools.permutations(WRAPPERS, 4) if runs(order)]
    pairs = {order: set(itertools.combinations(order, 2)) for order in several}
    left, chosen = set().union(*pairs.values()), []
    while left:
        order = max(several, key=lambda order: len(left & pairs[order]))
        marks = [pytest.mark.slow] if {"kahan", "rollback"} <= set(order) else []
        chosen.append(pytest.param(order, id="-".join(order), marks=marks))
        left -= pairs[order]
    return chosen


DOUBLES = [
    ("guard", "loss_scale", "guard"),
    ("record", "accumulate", "record", "guard"),
    ("accumulate", "accumulate", "guard"),
]


@pytest.mark.parametrize("order", [*cover(), *DOUBLES], ids="-".join)
def test_every_pair_that_is_made_does_nothing_wrong(order: tuple[str, ...]) -> None:
    assert wrongs(order) == []


def test_everything_at_once_does_nothing_wrong() -> None:
    assert wrongs([name for name in ORDER if name in WRAPPERS]) == []


@pytest.mark.slow
@pytest.mark.parametrize("outermost", WRAPPERS)
def test_every_order_that_is_made_does_nothing_wrong(outermost: str) -> None:
    """All of up to three, and every fifth of four; ``python -m tests.recipes.weather`` runs all."""
    four = [order for order in itertools.permutations(WRAPPERS, 4) if runs(order)]
    several = {*filter(runs, orders(3)), *four[::5]}
    found = {order: wrongs(order) for order in several if order[0] == outermost}
    assert found
    assert not {order: wrong for order, wrong in found.items() if wrong}


@pytest.fixture
def anything_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRONG", ())


@pytest.mark.slow
@pytest.mark.usefixtures("anything_goes")
@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ("guard rollback", "a run whose gradients are all broken is not rolled back"),
        ("guard record", "the record misses steps"),
        ("guard backoff guard", "backoff does not hear of rejections"),
        ("guard accumulate", "has_updated is wrong"),
        ("rollback backoff guard", "backoff does not hear of a rollback"),
        ("backoff kahan guard", "parameters are off by"),
        ("govern kahan guard", "parameters are off by"),
        ("loss_scale kahan guard", "calm steps are off by"),
        ("kahan kahan", "calm steps are off by"),
        ("loss_scale loss_scale guard", "calm steps are off by"),
    ],
)
def test_what_is_refused_would_be_wrong(order: str, wrong: str) -> None:
    assert any(found.startswith(wrong) for found in wrongs(order.split()))


@pytest.mark.usefixtures("anything_goes")
def test_what_is_refused_would_take_more_memory() -> None:
    def words(*order: str) -> float:
        state = jax.eval_shape(nested(order).init, {"w": jnp.ones(10_000)})
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / 4e4

    assert words("rollback") == pytest.approx(8, abs=0.1)
    assert words("rollback", "rollback") == pytest.approx(26, abs=0.3)
    assert words("rollback", "compress_moments") == pytest.approx(5, abs=0.1)
    assert words("compress_moments", "rollback") > 7


@pytest.mark.usefixtures("anything_goes")
def test_a_guard_outside_would_hide_rejections_from_moment_hygiene() -> None:
    inside = gs.recovery.moment_hygiene(gs.guard(optax.adam(1e-3)))
    for tx, damped in ((inside, 1), (gs.guard(inside), 0)):
        state, step = tx.init(PARAMS), jax.jit(tx.update)
        for bad in (1.0, jnp.nan, jnp.nan, 1.0):
            _, state = step({"w": jnp.full(8, bad)}, state, PARAMS)
        assert int(state.damped) == damped


@pytest.mark.usefixtures("anything_goes")
def test_what_changes_updates_would_spoil_a_compensation() -> None:
    """Entries that ``cautious`` drops would count as added."""
    sgd = optax.sgd(1e-3, momentum=0.9, accumulator_dtype=jnp.float32)
    start = jnp.linspace(1.2, 1.8, 64)

    def way(tx: Any, dtype: Any) -> np.ndarray:
        def body(carry: Any, call: jax.Array) -> Any:
            up = (call + jnp.arange(64)) % 6 < 3
            updates, state = tx.update(jnp.where(up, 1.0, -0.9), carry[1], carry[0])
            params = optax.apply_updates(carry[0], updates)
            return (params, state), params

        params = start.astype(dtype)
        _, after = jax.lax.scan(body, (params, tx.init(params)), jnp.arange(200))
        return np.float32(after[-1]) - np.float32(params)

    cautious = MAKERS["cautious"]
    exact = way(cautious(sgd), jnp.float32)
    right = way(gs.precision.kahan(cautious(sgd)), jnp.bfloat16)
    wrong = way(cautious(gs.precision.kahan(sgd)), jnp.bfloat16)
    assert np.abs(right - exact).max() < 2.0**-7
    assert np.abs(wrong - exact).max() > 10 * 2.0**-7


@pytest.mark.usefixtures("anything_goes")
@pytest.mark.parametrize("outer", [pair[0] for pair in WRONG if pair[1] == "stochastic_round"])
def test_what_scales_updates_would_undo_a_rounding(outer: str) -> None:
    """Rounded outside, a run in float16 goes as far as one in float32; inside, it does not."""
    momentum = 0.9 if outer == "cautious" else None
    sgd = optax.sgd(1e-4, momentum=momentum, accumulator_dtype=jnp.float32)
    wrappers: dict[str, Callable[[Any], Any]] = {
        "govern": lambda inner: gs.govern(gs.guard(inner), start=5e-6),
        "backoff": lambda inner: gs.backoff(gs.guard(inner)),
        "loss_scale": lambda inner: gs.loss_scale(gs.guard(inner), init_scale=1.0),
    }
    wrapper = {**MAKERS, **wrappers}[outer]

    def way(tx: Any, dtype: Any) -> float:
        def body(carry: Any, call: jax.Array) -> Any:
            up = (call + jnp.arange(4096)) % 6 < 3
            gradient = jnp.where(up, 1.0, -0.8 if momentum else 1.0).astype(dtype)
            # After some broken steps, backoff takes smaller ones.
            gradient = jnp.where(call < 12, jnp.nan, gradient) if outer == "backoff" else gradient
            updates, state = tx.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        params = jnp.linspace(1.2, 1.8, 4096).astype(dtype)
        (after, _), _ = jax.lax.scan(body, (params, tx.init(params)), jnp.arange(72))
        return float(jnp.mean(after.astype(jnp.float32) - params.astype(jnp.float32)))

    exact = way(wrapper(sgd), jnp.float32)
    round_it = gs.precision.stochastic_round
    assert way(optax.chain(wrapper(sgd), round_it()), jnp.float16) == pytest.approx(exact, rel=0.03)
    assert way(wrapper(optax.chain(sgd, round_it())), jnp.float16) != pytest.approx(exact, rel=0.06)


def goes_back(tx: Any, params: Any, gradients: Sequence[jax.Array]) -> bool:
    """Whether a run that is lost is at its copy soon after it was rolled back."""
    state, step = tx.init(params), jax.jit(tx.update)
    for call in range(100):
        ((_, back),) = find_all(state, RollbackState)
        if int(back.restores) and not int(back.attempts):
            return np.array_equal(params, gs.recovery.last_good(state))
        if int(back.attempts) > 12:
            return False
        gradient, value = (gradients[0], 1.0) if call < 40 else (gradients[1], 10.0)
        updates, state = step(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return False


def leading_back() -> Any:
    return gs.rollback(gs.guard(optax.sgd(0.1), gs.rules.global_norm(1e6)), every=5, patience=20)


@pytest.mark.slow
@pytest.mark.usefixtures("anything_goes")
@pytest.mark.parametrize("outer", [None, "govern", "cautious", "schedule_free"])
def test_what_changes_updates_would_miss_the_copy(outer: str | None) -> None:
    tx = MAKERS[outer](leading_back()) if outer else leading_back()
    gradients = [0.1 * jnp.cos(jnp.arange(8.0)), -3.0 * jnp.sin(jnp.arange(8.0))]
    assert goes_back(tx, jnp.linspace(1.0, 2.0, 8), gradients) is (outer is None)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_pitfall_a_compensation_does_not_miss_the_copy(dtype: Any) -> None:
    """One entry in 200 went back and forth around its copy, and the run stood still."""
    keys = jax.random.split(jax.random.key(0), 3)
    start, small, large = (jax.random.normal(key, (20_000,)) for key in keys)
    tx = gs.precision.kahan(leading_back())
    assert goes_back(tx, start.astype(dtype), [0.01 * small, 3.0 * large])
