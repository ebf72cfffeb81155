"""Under ``jax_enable_x64``, what has float64 is measured, judged and remembered in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.norms import measure
from gradstable._src.telemetry.fields import FIELDS
from gradstable.rules import Reason
from tests.frames import representatives
from tests.registry import Case, cases

SHAPES = {"bias": (4,), "kernel": (4, 6), "scale": ()}


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def tree(size: float, seed: int = 0, dtype: Any = np.float64) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(size * rng.normal(size=shape), dtype) for name, shape in SHAPES.items()
    }


def types(state: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)


@pytest.mark.parametrize(
    "size", [5e-324, 1e-320, 1e-308, 1e-200, 1e-60, 1e-20, 1.0, 1e50, 1e150, 1e200, 1e307]
)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_the_norm_is_right_over_all_of_float64(size: float, jit: bool) -> None:
    leaves = [np.full(9, size), np.full((2, 8), size), np.zeros(3, np.float32)]
    norm = (jax.jit(gs.global_norm) if jit else gs.global_norm)(leaves)
    assert norm.dtype == jnp.float64
    np.testing.assert_allclose(norm, 5.0 * size, rtol=1e-12, atol=5e-324)


def test_one_large_leaf_in_rows() -> None:
    for size in (1e-320, 1e-200, 1e200):
        leaf = np.full((1021, 103), size)
        norm = jax.jit(gs.global_norm)([leaf])
        expected = size * np.sqrt(leaf.size)
        np.testing.assert_allclose(norm, expected, rtol=1e-12, atol=5e-324)


@pytest.mark.parametrize("small", [1e-45, 1e-30, 1e-10])
@pytest.mark.parametrize("large", [1e-100, 0.0])
def test_a_float32_leaf_beside_a_smaller_float64_one(small: float, large: float) -> None:
    leaves = [np.full(4, small, np.float32), np.full(4, large)]
    norm = jax.jit(gs.global_norm)(leaves)
    np.testing.assert_allclose(norm, 2.0 * float(np.float32(small)), rtol=1e-6)


def test_float32_is_measured_as_ever() -> None:
    measured = measure(tree(1.0, dtype=np.float32))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(measured)} == {"float32", "bool", "int32"}
    with jax.enable_x64(False):
        narrow = jax.eval_shape(gs.guard(optax.adam(1e-3)).init, tree(1.0, dtype=np.float32))
    wide = jax.eval_shape(gs.guard(optax.adam(1e-3)).init, tree(1.0, dtype=np.float32))
    assert types(wide) == types(narrow)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_found(bad: float) -> None:
    measured = jax.jit(measure)({**tree(1e50), "bias": jnp.asarray([1.0, bad, 1.0, 1.0])})
    np.testing.assert_array_equal(measured.nonfinite, [True, False, False])


# What a case compares with is a number of its own, or an accumulated sum of all gradients.
FIXED = {"clip_by(ema_multiple)"}


def every_case() -> Iterator[Any]:
    """Yield all cases: in a quick run one of each frame, and what judges by norms."""
    chosen = {case.name for case in representatives()}
    for case in cases():
        quick = case.name in chosen or case.name.startswith("clip_by")
        yield pytest.param(case, id=case.name, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize("case", list(every_case()))
def test_a_calm_run_is_accepted_whatever_its_unit(case: Case) -> None:
    params = tree(1.0)
    states = {size: case.tx.init(params) for size in (1.0, 1e50, 1e-60)}
    verdicts: dict[float, list[Any]] = {size: [] for size in states}
    update = jax.jit(case.tx.update)
    for seed in range(12):
        for size, state in states.items():
            updates, new = update(tree(size, seed), state, params)
            assert types(new) == types(state)
            assert types(updates) == types(params)
            assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(updates))
            states[size] = new
            verdicts[size] += [ledger.health for _, ledger in find_all(new, Ledger)]
    for size in (1e50, 1e-60):
        for health in verdicts[size]:
            assert health.reason not in (Reason.NONFINITE, Reason.OVERFLOW)
            assert np.isfinite(health.grad_norm)
            if case.name not in FIXED:
                assert health.rejected <= verdicts[1.0][-1].rejected + 1


@pytest.mark.parametrize("size", [1e50, 1e-60])
def test_a_spike_is_found_there(size: float) -> None:
    tx, params = gs.guard(optax.adam(1e-3)), tree(1.0)
    state, update = tx.init(params), jax.jit(tx.update)
    for seed in range(20):
        _, state = update(tree(size, seed), state, params)
    assert gs.health(state).accepted == 20
    _, state = update(tree(1e3 * size, 20), state, params)
    assert gs.health(state).reason == Reason.SPIKE_REJECTED
    np.testing.assert_allclose(gs.health(state).grad_norm, optax.tree.norm(tree(1e3 * size, 20)))


def test_a_norm_of_1e50_is_clipped_to_the_limit() -> None:
    tx = gs.clipping.clip_by_global_norm(1.0)
    updates, _ = jax.jit(tx.update)(tree(1e50), tx.init(tree(1.0)))
    np.testing.assert_allclose(optax.tree.norm(updates), 1.0, rtol=1e-12)


@pytest.mark.parametrize("size", [1e25, 1e50])
def test_moments_in_float32_are_not_given_what_they_cannot_square(size: float) -> None:
    # The gradient is finite and so it is said, but the parameters decide what moments can hold.
    params, gradient = tree(1.0, dtype=np.float32), tree(size)
    tx = gs.guard(optax.adam(1e-3))
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(gradient, state, params)
    assert types(new) == types(state)
    assert gs.health(new).reason == Reason.OVERFLOW
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(updates))


def test_one_float64_leaf_among_float32() -> None:
    params = {**tree(1.0, dtype=np.float32), "bias": jnp.ones(4, jnp.float64)}
    tx = gs.guard(optax.adam(1e-3))
    state, update = tx.init(params), jax.jit(tx.update)
    wide = {**tree(1.0, dtype=np.float32), "bias": jnp.full(4, 1e50)}
    narrow = {**tree(1e30, dtype=np.float32), "bias": jnp.ones(4, jnp.float64)}
    _, state = update(wide, state, params)
    assert gs.health(state).reason == Reason.OK
    _, state = update(narrow, state, params)
    assert gs.health(state).reason == Reason.OVERFLOW


def test_norms_of_units_lie_beside_each_other() -> None:
    tx = gs.clipping.clip_by(gs.rules.block_norm(1.0, units="output"))
    g = {"w": jnp.asarray([[3e50, 3e-60, 0.3, 5e-324], [4e50, 4e-60, 0.4, 0.0]])}
    updates, _ = jax.jit(tx.update)(g, tx.init(g), g)
    expected = [[0.6, 3e-60, 0.3, 5e-324], [0.8, 4e-60, 0.4, 0.0]]
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-12, atol=5e-324)


def test_a_recorded_norm_is_as_wide() -> None:
    tx, params = gs.record(gs.guard(optax.adam(1e-3))), tree(1.0)
    _, state = jax.jit(tx.update)(tree(1e50), tx.init(params), params)
    [row] = np.asarray(state.rows)[:1]
    np.testing.assert_allclose(row[FIELDS.index("grad_norm")], optax.tree.norm(tree(1e50)))


TAKES_A_LOSS = {
    "accumulate": lambda: gs.accumulate(gs.guard(optax.sgd(0.1)), 2),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(0.1), gs.rate.reduce_on_plateau(patience=9)),
    "rollback": lambda: gs.rollback(gs.guard(optax.sgd(0.1))),
    "record": lambda: gs.record(gs.guard(optax.sgd(0.1))),
    "loss_spike": lambda: gs.guard(optax.sgd(0.1), gs.rules.loss_spike(warmup_steps=2)),
}


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("name", TAKES_A_LOSS)
def test_a_loss_of_1e50_is_finite(name: str, *, jit: bool) -> None:
    tx = optax.with_extra_args_support(TAKES_A_LOSS[name]())
    params = {"w": jnp.ones(3, jnp.float64)}
    state = tx.init(params)
    update = jax.jit(tx.update) if jit else tx.update
    moved = 0
    for step in range(6):
        loss = jnp.asarray(1e50 * (1.0 - 0.01 * step), jnp.float64)
        updates, state = update({"w": jnp.ones(3, jnp.float64)}, state, params, value=loss)
        moved += int(jnp.any(updates["w"] != 0))
    assert moved == (3 if name == "accumulate" else 6)
    if name == "record":
        assert float(gs.telemetry.read_rows(state).steps[-1]["loss"]) > 9e49
    if name == "reduce_on_plateau":
        assert float(state[1].best_value) == pytest.approx(0.95e50)
