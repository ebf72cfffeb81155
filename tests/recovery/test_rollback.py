"""Going back: to the same bits, at the right time, and not for ever."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.counting import compile_step, count_common_path, large_tree
from gradstable._src.core.find import Copy, Snapshots
from gradstable._src.core.names import with_names
from gradstable._src.recovery import bring
from gradstable._src.recovery.snapshot import lead_back, rules_of, state_of
from tests.bits import bits
from tests.registry.entry import bind

SIZE = 64
HEALTHY, LOST = 1.0, 50.0


def params_like(dtype: Any, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "wide": jnp.asarray(rng.normal(size=SIZE), dtype),
        "small": jnp.asarray(rng.normal(size=SIZE) * 1e-3, dtype),
        "zero": jnp.zeros(SIZE, dtype),
    }


class Run:
    """A training loop whose losses are given, and whose parameters can be thrown about."""

    def __init__(self, tx: Any, params: Any, *, jit: bool = True) -> None:
        full = optax.with_extra_args_support(tx)
        self.params, self.state = params, tx.init(params)
        self.rng = np.random.default_rng(1)
        self.update = jax.jit(full.update) if jit else full.update

    def step(self, loss: float, gradient: float | None = None) -> None:
        def draw(p: jax.Array) -> jax.Array:
            g = self.rng.normal(size=p.shape) if gradient is None else np.full(p.shape, gradient)
            return jnp.asarray(g, p.dtype)

        noise = 1.0 + 0.01 * self.rng.normal()
        grads = jax.tree.map(draw, self.params)
        updates, self.state = self.update(grads, self.state, self.params, value=loss * noise)
        self.params = optax.apply_updates(self.params, updates)

    def steps(self, count: int, loss: float) -> None:
        for _ in range(count):
            self.step(loss)

    def until_back(self, loss: float = LOST, limit: int = 60) -> int:
        """Go on until a return begins; the number of steps that took."""
        before = int(self.state.restores)
        for taken in range(1, limit):
            self.step(loss)
            if int(self.state.restores) > before:
                return taken
        pytest.fail("it never went back")


def rollback(**options: Any) -> optax.GradientTransformation:
    return gs.rollback(gs.guard(optax.adam(1e-2)), **{"every": 10, "patience": 5, **options})


def scatter(params: Any, seed: int = 2) -> Any:
    """Throw parameters out of their basin: far, near, to the other sign, to zero."""
    rng = np.random.default_rng(seed)

    def throw(p: jax.Array) -> jax.Array:
        factor = rng.choice([1e4, 1e2, -3.0, 1e-3, 1.0001, 0.0], size=p.shape)
        moved = np.asarray(p, np.float32) * factor + rng.normal(size=p.shape)
        return jnp.asarray(np.clip(moved, -6e4, 6e4), p.dtype)

    return jax.tree.map(throw, params)


def kept_in(snapshots: Snapshots, copy: Copy) -> Any:
    """Return the parameters of one of the copies."""
    return jax.tree.map(lambda stack: stack[copy.slot], snapshots.kept_params)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_updates_lead_back_to_the_same_bits_in_two_steps(dtype: Any, jit: bool) -> None:
    run = Run(rollback(), params_like(dtype), jit=jit)
    run.steps(30, HEALTHY)
    run.params = scatter(run.params)
    run.until_back()
    wanted = gs.recovery.last_good(run.state)
    run.step(HEALTHY)  # the second update
    assert bits(run.params) == bits(wanted)
    run.steps(2, HEALTHY)  # two losses of a trial
    assert bits(run.params) == bits(wanted)
    run.step(HEALTHY)  # the third, and gone on
    assert int(run.state.attempts) == 0
    assert bits(run.params) != bits(wanted)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_two_updates_lead_anywhere_from_anywhere(dtype: Any) -> None:
    """Every pair of magnitudes that the dtype has, both signs; subnormals are flushed to zero."""
    info = jnp.finfo(dtype)
    exponents = np.arange(int(info.minexp), int(info.maxexp), 3, dtype=np.float64)
    sizes = np.concatenate([[0.0], 1.37 * 2.0**exponents])
    numbers = np.unique(np.concatenate([sizes, -sizes]))
    p, q = (jnp.asarray(x.ravel(), dtype) for x in np.meshgrid(numbers, numbers))
    p, wanted = jnp.where(p == 0, 0, p), jnp.where(q == 0, 0, q)
    step = jax.jit(
        lambda p: optax.apply_updates(p, lead_back(jnp.asarray(True), p, wanted, jnp.zeros_like(p)))
    )
    assert np.isfinite(np.asarray(step(p), np.float32)).all()
    assert bits(step(step(p))) == bits(wanted)


def test_low_precision_updates_lead_float32_parameters_back_in_a_few_more() -> None:
    wanted = params_like(jnp.float32)
    here = scatter(wanted)
    for _ in range(6):
        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.bfloat16), here)
        here = optax.apply_updates(here, lead_back(jnp.asarray(True), here, wanted, zeros))
    assert bits(here) == bits(wanted)


def test_state_comes_back_too_and_records_stay() -> None:
    run = Run(rollback(), params_like(jnp.float32))
    run.steps(27, HEALTHY)
    run.step(HEALTHY, gradient=np.nan)
    run.until_back()
    kept = state_of(run.state.snapshots, run.state.wrapped_state)
    assert bits(run.state.wrapped_state.wrapped_state) == bits(kept.wrapped_state)
    assert bits(run.state.rule_state) == bits(rules_of(run.state.snapshots, run.state.rule_state))
    assert int(gs.health(run.state).rejected) == 1
    told = gs.explain(run.state, run.params)
    assert "Rolled back once, at step" in told
    assert "because the loss was not finite, or far above its usual range" in told


def test_a_run_that_went_back_goes_on_as_from_the_copy() -> None:
    """The steps after a return are those of a run that begins with the copy."""
    run = Run(rollback(), params_like(jnp.float32))
    run.steps(25, HEALTHY)
    run.until_back()
    run.steps(3, HEALTHY)  # the second update, and two losses of a trial
    twin = Run(rollback(), gs.recovery.last_good(run.state))
    twin.state = twin.state._replace(wrapped_state=run.state.wrapped_state)
    twin.rng = np.random.default_rng(5)
    run.rng = np.random.default_rng(5)
    run.steps(3, HEALTHY)
    twin.steps(3, HEALTHY)
    assert bits(run.params) == bits(twin.params)


def test_it_takes_a_lasting_rise_and_no_single_spike() -> None:
    run = Run(rollback(patience=20), params_like(jnp.float32))
    run.steps(30, HEALTHY)
    for _ in range(10):
        run.steps(8, HEALTHY)
        run.steps(5, LOST)
    assert int(run.state.restores) == 0
    run.steps(40, HEALTHY)
    assert run.until_back() <= 22


def test_a_moderate_rise_is_seen_before_it_counts_as_usual() -> None:
    """The loss of a language model that has forgotten all but the frequencies rises by a third."""
    run = Run(rollback(patience=20), params_like(jnp.float32))
    run.steps(60, 2.4)
    assert run.until_back(3.2) <= 25


def test_rejections_in_a_row_lead_back_and_broken_batches_alone_do_not() -> None:
    run = Run(rollback(rejections=30), params_like(jnp.float32))
    run.steps(25, HEALTHY)
    for _ in range(29):
        run.step(np.nan, gradient=np.nan)
    run.step(HEALTHY)
    assert int(run.state.restores) == 0
    for _ in range(31):
        run.step(np.nan, gradient=np.nan)
    assert int(run.state.restores) == 1
    assert int(run.state.reason) == gs.rules.Reason.NONFINITE


def test_the_second_return_takes_the_older_copy() -> None:
    run = Run(rollback(copies=3), params_like(jnp.float32))
    run.steps(40, HEALTHY)
    before = run.state.snapshots
    newest, older, _ = before.copies
    run.until_back()
    assert bits(gs.recovery.last_good(run.state)) == bits(kept_in(before, newest))
    run.steps(5, HEALTHY)
    run.until_back()
    assert bits(gs.recovery.last_good(run.state)) == bits(kept_in(before, older))
    assert int(run.state.restored_to) == int(older.taken_at) < int(newest.taken_at)


def test_data_that_have_changed_are_no_reason_to_go_back_for_ever() -> None:
    """The loss is high with the good parameters too: it is not they who are to blame."""
    run = Run(rollback(max_restores=2), params_like(jnp.float32))
    run.steps(30, HEALTHY)
    run.steps(200, LOST)
    assert (int(run.state.restores), int(run.state.undone)) == (1, 1)
    assert not bool(run.state.exhausted)
    gs.check(run.state)
    before = run.params
    run.step(LOST)
    assert bits(run.params) != bits(before)


def test_pitfall_it_does_not_go_back_for_ever() -> None:
    """The end of the line: the last good parameters, a story, and no step more."""
    run = Run(rollback(max_restores=2), params_like(jnp.float32))
    run.steps(40, HEALTHY)
    for _ in range(3):
        run.steps(5, HEALTHY)
        gs.check(run.state)
        run.until_back()
    run.steps(20, LOST)
    assert bool(run.state.exhausted)
    assert int(run.state.restores) == 3
    assert bits(run.params) == bits(gs.recovery.last_good(run.state))
    with pytest.raises(gs.TrainingDiverged, match="Rolled back 3 times") as caught:
        gs.check(run.state, run.params)
    assert "gradstable.recovery.last_good" in str(caught.value)


def test_a_copy_waits_for_good_steps() -> None:
    run = Run(rollback(patience=5, every=10), params_like(jnp.float32))
    run.steps(33, HEALTHY)
    copied = int(run.state.snapshots.copies[0].taken_at)
    for _ in range(10):
        run.steps(3, HEALTHY)
        run.step(LOST)
    assert int(run.state.snapshots.copies[0].taken_at) == copied
    run.steps(7, HEALTHY)
    assert int(run.state.snapshots.copies[0].taken_at) > copied


def test_the_caller_restores_exactly_what_updates_cannot() -> None:
    params = {"w": jnp.asarray([-0.0, 1e-40, 1.0])}
    tx = rollback(rejections=3, every=100, restore_by="caller")
    run = Run(tx, params)
    for _ in range(4):
        run.step(np.nan, gradient=np.nan)
    run.params = {"w": jnp.full(3, np.nan)}
    stands = bits(run.params)
    run.steps(13, HEALTHY)
    assert bits(run.params) == stands
    with pytest.raises(gs.TrainingDiverged, match=r"gradstable\.recovery\.restored"):
        gs.check(run.state)
    run.params = jax.jit(gs.recovery.restored)(run.state, run.params)
    assert bits(run.params) == bits(params)
    run.step(HEALTHY)
    assert int(run.state.attempts) == 0


def test_copies_in_bfloat16_take_half_and_lead_to_their_rounded_numbers() -> None:
    run = Run(rollback(dtype=jnp.bfloat16), params_like(jnp.float32))
    kept = run.state.snapshots
    assert {leaf.dtype for leaf in jax.tree.leaves(kept.kept_params)} == {jnp.dtype(jnp.bfloat16)}
    of_guard = with_names(kept.kept_state, run.state.wrapped_state)
    assert of_guard.wrapped_state[0].mu["wide"].dtype == jnp.bfloat16
    run.steps(30, HEALTHY)
    run.until_back()
    run.step(HEALTHY)
    rounded = jax.tree.map(lambda p: p.astype(jnp.float32), gs.recovery.last_good(run.state))
    assert bits(run.params) == bits(rounded)
    assert run.state.inner_state.inner_state[0].mu["wide"].dtype == jnp.float32


def test_under_scan_and_donation() -> None:
    tx = gs.backoff(gs.rollback(gs.guard(optax.adam(1e-2)), every=10, patience=5))

    def train(params: Any, state: Any, losses: jax.Array) -> Any:
        def step(carry: Any, loss: jax.Array) -> Any:
            params, state = carry
            updates, state = tx.update(params, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), losses)[0]

    losses = jnp.asarray([HEALTHY] * 30 + [LOST] * 8 + [HEALTHY] * 5, jnp.float32)
    params = jax.tree.map(jnp.copy, params_like(jnp.float32))
    straight, _ = jax.jit(train)(params, tx.init(params), losses)
    donated, state = jax.jit(train, donate_argnums=(0, 1))(params, tx.init(params), losses)
    assert bits(straight) == bits(donated)
    assert int(state.returns) == 1


def test_parameters_are_needed() -> None:
    tx = optax.with_extra_args_support(rollback())
    with pytest.raises(ValueError, match=r"rollback .* params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0)
    with pytest.raises(ValueError, match="value is missing"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="0 rollbacks found"):
        gs.recovery.last_good(gs.guard(optax.sgd(0.1)).init(jnp.ones(2)))
    with pytest.raises(ValueError, match="restore_by must be one of"):
        rollback(restore_by="magic")


def test_the_log_writes_a_return_and_the_report_finds_it(tmp_path: Path) -> None:
    tx = gs.record(rollback(), capacity=8)
    run = Run(tx, params_like(jnp.float32))
    file = tmp_path / "run.jsonl"
    with gs.telemetry.Log(run.params, file) as log:
        for loss in [HEALTHY] * 28 + [LOST] * 7 + [HEALTHY] * 4:
            run.step(loss)
            log(run.state)
    (event,) = gs.telemetry.read_run(file).rollbacks
    assert event == gs.telemetry.Rollback(int(run.state.inner_state.last_restore), to=21)
    assert event.text == "rolled back to the state before step 21"


def test_off_the_copy_it_moves_a_word_or_none() -> None:
    """Updates come from one of two places, which takes one read; the caller's way takes none."""
    tree = large_tree(9, 900_000)
    guard = gs.guard(optax.adamw(1e-3))
    alone = count_common_path(guard, tree)
    for restore_by, words in (("updates", 1.0), ("caller", 0.0)):
        tx = bind(gs.rollback(guard, restore_by=restore_by), value=1.0)
        with mock.patch.object(bring, "run_if", lambda condition, change, tree: tree):
            common = count_common_path(tx, tree)
        assert common.words == pytest.approx(alone.words + words, abs=0.02), restore_by
        # Nothing is copied where nothing is done: the loops carry the copies in place.
        compiled, whole = compile_step(tx, tree)
        entry = compiled.as_text().split("ENTRY")[1]
        assert not re.search(r"= f32\[\d+,\d+\]\S* copy\(", entry)
        assert whole.temp <= 0.05


@pytest.mark.parametrize("copies", [1, 3])
def test_more_copies_take_no_more_room_in_a_step(copies: int) -> None:
    tx = bind(gs.rollback(gs.guard(optax.adamw(1e-3)), copies=copies), value=1.0)
    assert compile_step(tx, large_tree(9, 900_000))[1].temp <= 0.05
