"""Micro-batches of unequal size: weighted means, broken weights, and names that nobody takes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.bits import bits

SIZE = 5
GRADS = np.random.default_rng(0).normal(size=(12, SIZE)).astype(np.float32)
LOSSES = np.random.default_rng(1).uniform(1, 5, 12).astype(np.float32)
WEIGHT_REJECTED = gs.rules.Reason.WEIGHT_REJECTED


@functools.cache
def program(tx: Any) -> Any:
    @jax.jit
    def run(given: Any) -> Any:
        def step(carry: Any, given: Any) -> Any:
            params, state = carry
            updates, state = tx.update(given.pop("g"), state, params, **given)
            return (optax.apply_updates(params, updates), state), (updates, gs.has_updated(state))

        params = jnp.ones(SIZE)
        return jax.lax.scan(step, (params, tx.init(params)), given)

    return run


def run(tx: Any, grads: np.ndarray, **given: Any) -> tuple[Any, np.ndarray, list[bool]]:
    """Return the state, the updates of every call, and which of them made a step."""
    given = {name: jnp.asarray(values, jnp.float32) for name, values in given.items()}
    (_, state), (updates, stepped) = program(tx)({"g": jnp.asarray(grads), **given})
    return state, np.asarray(updates), stepped.tolist()


SGD = gs.accumulate(optax.sgd(1.0), 4)
ADAMW = gs.accumulate(gs.guard(optax.adamw(1e-2)), 4)
GUARDED = gs.accumulate(gs.guard(optax.sgd(1.0)), 4)
JUDGED = gs.accumulate(optax.sgd(1.0), 4, rules=(gs.rules.log_mad(),))
RECORDED = gs.accumulate(gs.record(optax.sgd(1.0)), 4)


def weighted(grads: np.ndarray, weights: Any) -> np.ndarray:
    return np.average(grads.astype(np.float64), axis=0, weights=weights)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_the_mean_is_that_over_all_tokens(size: float) -> None:
    weights = np.random.default_rng(2).integers(1, 2048, 12)
    state, updates, _ = run(RECORDED, GRADS, weight=weights * size, value=LOSSES)
    rows = gs.telemetry.read_rows(state).steps
    for group, row in enumerate(rows):
        at = slice(4 * group, 4 * group + 4)
        np.testing.assert_allclose(
            updates[4 * group + 3], -weighted(GRADS[at], weights[at]), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(row["loss"], weighted(LOSSES[at], weights[at]), rtol=1e-5)
    assert len(rows) == 3


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.1, 511.0])
def test_equal_weights_give_the_bits_of_none(weight: float) -> None:
    plain, without, _ = run(ADAMW, GRADS, value=LOSSES)
    state, updates, _ = run(ADAMW, GRADS, value=LOSSES, weight=np.full(12, weight))
    np.testing.assert_array_equal(updates, without)
    assert bits(state.inner_state) == bits(plain.inner_state)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, -np.inf, -0.5])
def test_a_broken_weight_leaves_its_batch_out_and_says_so(bad: float) -> None:
    weights = np.asarray([2.0, bad, 3.0, 5.0])
    state, updates, _ = run(GUARDED, GRADS[:4], weight=weights, value=LOSSES[:4])
    kept = [0, 2, 3]
    np.testing.assert_allclose(updates[3], -weighted(GRADS[kept], weights[kept]), rtol=1e-5)
    assert int(state.dropped.by_reason[WEIGHT_REJECTED]) == 1
    assert int(state.dropped.last_dropped) == 2
    assert "1 of 4 micro-batches was left out because the weight" in gs.explain(state)


@pytest.mark.parametrize("nothing", [0.0, -0.0, 1e-42])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_weight_of_0_contributes_nothing_and_is_no_fault(at: int, nothing: float) -> None:
    """The mean over no tokens is NaN, and so is its loss; a rule shall not see its norm either."""
    grads, losses, weights = GRADS[:4].copy(), LOSSES[:4].copy(), np.asarray([2.0, 4.0, 3.0, 5.0])
    grads[at], losses[at], weights[at] = np.nan, np.nan, nothing
    state, updates, _ = run(JUDGED, grads, weight=weights, value=losses)
    kept = [i for i in range(4) if i != at]
    np.testing.assert_allclose(updates[3], -weighted(grads[kept], weights[kept]), rtol=1e-5)
    assert not state.dropped.by_reason.any()
    assert int(state.rule_state[0].norms_seen) == 3


def test_a_group_without_weight_makes_no_step() -> None:
    state, updates, stepped = run(SGD, GRADS, weight=[1] * 4 + [0] * 4 + [np.nan] * 4)
    assert stepped == [False] * 3 + [True] + [False] * 8
    assert (int(state.emitted), int(state.position)) == (1, 0)
    assert not updates[4:].any()


def test_extreme_weights_break_nothing() -> None:
    weights = [1e-38, 3e38, 1e-38, 3e38, 3e38, 1e-38, 1.0, 3e38]
    _, updates, _ = run(SGD, GRADS[:8], weight=weights)
    for last, heavy in ((3, [1, 3]), (7, [4, 7])):
        np.testing.assert_allclose(updates[last], -GRADS[heavy].mean(0), rtol=1e-5, atol=1e-6)


def test_one_inside_another_weighs_all_micro_batches_alike() -> None:
    weights = np.random.default_rng(3).integers(1, 9, 12)
    nested = gs.accumulate(gs.accumulate(gs.guard(optax.sgd(1.0)), 3), 4)
    _, updates, stepped = run(nested, GRADS, weight=weights)
    np.testing.assert_allclose(updates[11], -weighted(GRADS, weights), rtol=1e-5, atol=1e-6)
    assert stepped == [False] * 11 + [True]


def test_the_state_is_the_same_with_weights_and_without() -> None:
    params = jnp.ones(SIZE, jnp.bfloat16)
    state = SGD.init(params)
    for given in ({}, {"weight": 3}, {"weight": np.float64(2.0)}, {"weight": jnp.int32(1)}):
        new = jax.eval_shape(functools.partial(SGD.update, **given), params, state, params)[1]
        assert jax.tree.map(jnp.result_type, new) == jax.tree.map(jnp.result_type, state)


@pytest.mark.parametrize("wrong", ["8", [1.0], (1.0,), jnp.ones(3), np.ones((1, 1))], ids=repr)
def test_what_is_no_weight_is_refused(wrong: Any) -> None:
    params = jnp.ones(SIZE)
    with pytest.raises(
        (TypeError, ValueError), match=r"weight must be a .*weight=number_of_tokens"
    ):
        SGD.update(params, SGD.init(params), params, weight=wrong)


def taking(**names: Any) -> optax.GradientTransformationExtraArgs:
    """Return a transform that writes down what it gets by some names."""

    def update(updates: Any, state: Any, params: Any = None, *, scale: Any, **extra: Any) -> Any:
        names["scale"], names["dose"] = scale, extra["dose"]
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def refused(inner: Any, **given: Any) -> str:
    tx, params = gs.accumulate(inner, 1), jnp.ones(SIZE)
    with pytest.raises(TypeError) as raised:
        tx.update(params, tx.init(params), params, **given)
    return str(raised.value)


DEEP = optax.chain(optax.clip(1.0), optax.chain(optax.masked(taking(), True), optax.scale(2.0)))
INNER = {
    "adam": optax.adam(0.1),
    "guard": gs.guard(optax.adam(0.1)),
    "chain": optax.chain(optax.clip(1.0), optax.with_extra_args_support(optax.sgd(1.0))),
    "injected": optax.inject_hyperparams(optax.adam)(0.1),
    "recipe": gs.muon(0.1),
}


@pytest.mark.parametrize("name", INNER)
def test_pitfall_a_misspelled_name_does_not_vanish(name: str) -> None:
    for wrong in ("weights", "Weight", "wieght"):
        assert f"accumulate got {wrong}=" in refused(INNER[name], **{wrong: 3.0})
        assert "Did you mean weight=?" in refused(INNER[name], **{wrong: 3.0})
    assert "Did you mean value=?" in refused(INNER[name], values=3.0)
    assert "neither it nor what it wraps takes" in refused(INNER[name], weigth=3.0)


def test_what_is_taken_inside_goes_through() -> None:
    params = jnp.ones(SIZE)
    for inner in (taking(), optax.chain(taking(), optax.sgd(1.0)), DEEP, gs.guard(DEEP)):
        tx = gs.accumulate(inner, 1)
        updates, _ = tx.update(params, tx.init(params), params, scale=2.0, dose=1)
        assert updates.any()


def test_what_a_line_search_takes_goes_through() -> None:
    def value_fn(params: Any, target: Any) -> Any:
        return jnp.sum((params - target) ** 2)

    params, target = jnp.ones(3), jnp.zeros(3)
    tx = gs.accumulate(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)), 1)
    value, grad = jax.value_and_grad(value_fn)(params, target)
    given = {"value": value, "grad": grad, "value_fn": value_fn, "target": target}
    updates, _ = tx.update(grad, tx.init(params), params, **given)
    assert updates.any()
    # A loop that passes them to any optimizer stays as it is.
    plain = gs.accumulate(optax.sgd(1.0), 1)
    plain.update(grad, plain.init(params), params, value=value, grad=grad, value_fn=value_fn)


def weighing() -> optax.GradientTransformationExtraArgs:
    """Return a transform that takes what is, to others, a near miss."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        del params
        return jax.tree.map(lambda u: u * extra["weights"], updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def test_a_near_miss_that_is_taken_inside_is_none() -> None:
    params = jnp.ones(SIZE)
    for inner in (weighing(), optax.chain(optax.clip(9.0), optax.chain(weighing()))):
        tx = gs.accumulate(inner, 1)
        updates, _ = tx.update(params, tx.init(params), params, weights=3.0)
        assert (updates == 3).all()


def stepping() -> list[tuple[str, Any]]:
    """Return optimizers with something that gathers in them."""
    ours = gs.accumulate(gs.guard(optax.sgd(0.1)), 2)
    return [
        ("plain", ours),
        ("in a chain", optax.chain(optax.clip(1.0), ours)),
        ("under a mask", optax.masked(ours, True)),
        ("of optax", optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()),
        ("injected", optax.inject_hyperparams(lambda r: gs.accumulate(optax.sgd(r), 2))(0.1)),
    ]


@pytest.mark.parametrize("tx", [pytest.param(tx, id=name) for name, tx in stepping()])
def test_has_updated_finds_what_gathers(tx: Any) -> None:
    params = jnp.ones(2)
    state, seen = tx.init(params), []
    assert not gs.has_updated(state)
    for _ in range(4):
        _, state = tx.update(params, state, params)
        seen.append(bool(gs.has_updated(state)))
    assert seen == [False, True, False, True]


def test_has_updated_agrees_with_optax_and_reads_flax() -> None:
    nnx = pytest.importorskip("flax.nnx")
    train_state = pytest.importorskip("flax.training.train_state")
    multi = optax.MultiSteps(optax.sgd(0.1), 3)
    ours = gs.accumulate(optax.sgd(0.1), 3)
    params = {"w": jnp.ones(2)}
    one, other = multi.init(params), ours.init(params)
    kept = train_state.TrainState.create(apply_fn=None, params=params, tx=ours)
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ours, wrt=nnx.Param)
    for _ in range(7):
        one, other = (tx.update(params, s, params)[1] for tx, s in ((multi, one), (ours, other)))
        kept = kept.apply_gradients(grads=params)
        optimizer.update(model, nnx.grad(lambda m: m(jnp.ones(2)).sum())(model))
        told = {bool(x) for x in (multi.has_updated(one), *map(gs.has_updated, (one, other, kept)))}
        assert told == {bool(gs.has_updated(optimizer))}


def test_has_updated_needs_something_that_gathers() -> None:
    with pytest.raises(ValueError, match="nothing in this optimizer state accumulates"):
        gs.has_updated(gs.guard(optax.sgd(0.1)).init(jnp.ones(2)))
