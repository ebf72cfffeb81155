"""Rates and patterns on real small runs: what the doctor and the report say, and that it helps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from gradstable._src.cli import main
from gradstable._src.report.summary import verdict
from gradstable.doctor import Diagnosis, Severity, diagnose
from gradstable.report import render
from gradstable.telemetry import Run
from tests.doctor.trained import MINORITY, STEPS, train

# Four stretches in which the targets change for a while.
CHANGES = [step for first in (200, 300, 400, 500) for step in range(first, first + 40)]


def adamw(rate: Any = 1e-2, **options: Any) -> optax.GradientTransformation:
    return gs.guard(optax.adamw(rate), gs.rules.log_mad(**options))


def too_fast(rate: float, *, after: int = 300) -> Callable[[jax.Array], jax.Array]:
    return lambda count: jnp.where(count > after, rate, 1e-2)


def found(run: Run) -> dict[str, Diagnosis]:
    return {one.name: one for one in diagnose(run)}


def test_a_steady_share_is_told_with_its_size_level_and_leaf(tmp_path: Path) -> None:
    """Pitfall: a second task was called a lagging second moment, and 60 isolated bad batches."""
    run = train(tmp_path / "run.jsonl", adamw(), second=MINORITY)
    assert found(run).keys() == {"recurring_gradients"}
    told = found(run)["recurring_gradients"].sentence
    assert told.startswith("9.2 % of the last 600 steps had a gradient norm about 140 times the")
    assert "most often in ['head_b'], 51 of them clipped to the usual size, 4 rejected" in told
    assert "learned at clipped size, or a broken reader" in told
    mood, text = verdict(run)
    assert (mood, text.startswith(f"Troubled: {told}")) == ("warn", True)
    # The page also says it next to the reasons.
    assert render([run]).count("9.2 % of the last 600 steps") == 2


def test_a_broken_reader_looks_the_same(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", adamw(), bad=MINORITY)
    assert found(run).keys() == {"recurring_gradients"}
    assert "most often in ['head_a']" in found(run)["recurring_gradients"].sentence


def test_balancing_the_losses_helps(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", adamw(), second=MINORITY, weight=1.0)
    assert found(run).keys() == {"healthy"}
    assert verdict(run).text.startswith("Calm: ")


def test_reject_recurring_rejects_and_is_not_advised_again(tmp_path: Path) -> None:
    """Pitfall: a run that rejects 9 % of its steps was called held, and its doctor healthy."""
    letting_in = train(tmp_path / "run.jsonl", adamw(), second=MINORITY)
    assert "reject_recurring=True" in found(letting_in)["recurring_gradients"].advice
    run = train(tmp_path / "run.jsonl", adamw(reject_recurring=True), second=MINORITY)
    assert int(run.rejected.sum()) == len(MINORITY) == 55
    one = found(run)["recurring_gradients"]
    assert one.severity > found(letting_in)["recurring_gradients"].severity
    assert "and were rejected: a task or a kind of batch that is never learned" in one.sentence
    assert "reject_recurring" not in one.advice
    assert verdict(run).mood == "warn"


def test_an_isolated_spike_is_no_rate(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", adamw(), bad=[400])
    assert found(run).keys() == {"bad_batches"}
    assert "1 isolated step, 400, had a gradient norm 1" in render([run])
    assert verdict(run).text.startswith("Held: 1 of 600 steps was rejected")


def test_a_burst_is_called_so(tmp_path: Path) -> None:
    """Pitfall: ten bad batches in a row were called a lagging second moment, or healthy."""
    run = train(tmp_path / "run.jsonl", adamw(), bad=range(400, 410))
    assert found(run).keys() == {"burst"}
    told = found(run)["burst"].sentence
    assert told.startswith("A burst of 10 steps, from 400 to 409, had a gradient norm about 1")
    assert verdict(run).mood == "good"


def test_a_clean_run_is_calm(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", adamw())
    assert found(run).keys() == {"healthy"}
    assert verdict(run).text.startswith("Calm: ")


def test_rollbacks_again_and_again_are_not_healthy(tmp_path: Path) -> None:
    """Pitfall: several rollbacks, steps at 1 %, and many steps rejected: healthy."""
    tx = gs.rollback(adamw(too_fast(1e3)), every=25, patience=6)
    run = train(tmp_path / "run.jsonl", gs.backoff(tx))
    assert {"burst", "rolled_back", "small_steps"} <= found(run).keys()
    told = found(run)["rolled_back"]
    assert told.severity is Severity.SERIOUS
    assert told.sentence.endswith("diverged again and again: the cause lasts.")
    assert "% of the learning rate" in found(run)["small_steps"].sentence
    mood, text = verdict(run)
    assert mood == "warn"
    assert text.startswith("Troubled: ")
    assert told.sentence in text
    assert "Back-off left the steps at 1 % of their size." in text


def test_a_rollback_that_did_not_help_is_not_healthy(tmp_path: Path) -> None:
    """Pitfall: what had been learned was lost where only the data had changed: healthy.

    With one copy, nothing can be undone.
    """
    tx = gs.backoff(gs.rollback(adamw(), patience=6, copies=1))
    run = train(tmp_path / "run.jsonl", tx, bad=CHANGES, gain=30.0)
    told = found(run)["rolled_back"]
    assert told.severity is Severity.SERIOUS
    assert told.sentence.endswith("The loss was not lower after it: rolling back did not help.")
    assert "use gs.guard without gs.rollback" in told.advice
    assert "two copies" in told.advice
    mood, text = verdict(run)
    assert mood == "warn"
    assert told.sentence in text
    alone = train(tmp_path / "alone.jsonl", adamw(), bad=CHANGES, gain=30.0)
    assert found(alone).keys() == {"burst"}
    assert alone.loss[-20:].mean() < run.loss[-20:].mean() / 2
    # Four bursts are no accident.
    assert verdict(alone).text.startswith("Troubled: 4 bursts of 160 steps in all")


@pytest.mark.parametrize("patience", [6, 12])
def test_a_rollback_that_was_undone_keeps_speed_and_progress(tmp_path: Path, patience: int) -> None:
    """Pitfall: the data became good again just after it, so that it was said to have helped."""
    tx = gs.backoff(gs.rollback(adamw(), patience=patience))
    run = train(tmp_path / "run.jsonl", tx, bad=CHANGES, gain=30.0)
    assert found(run).keys() == {"burst", "rolled_back"}
    told = found(run)["rolled_back"]
    assert told.severity is Severity.MILD
    assert told.sentence.startswith("Rolled back once, at step 2")
    assert "; that was undone at step 2" in told.sentence
    assert told.sentence.endswith("with the older parameters, so the data have changed.")
    assert "If the data were meant to change, this run needs no action" in told.advice
    alone = train(tmp_path / "alone.jsonl", adamw(), bad=CHANGES, gain=30.0)
    assert run.loss[-20:].mean() < 1.2 * alone.loss[-20:].mean()
    # The bursts are trouble, the rollback is not.
    assert verdict(run).text.startswith("Troubled: ")
    assert "olled back" not in verdict(run).text


def test_a_rollback_that_was_undone_is_told_where_a_run_held(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", gs.rollback(adamw()), bad=range(400, 460), gain=30.0)
    assert verdict(run).mood == "good"
    assert verdict(run).text.endswith(f" {found(run)['rolled_back'].sentence}")
    assert "that was undone at step 4" in render([run])


def test_a_cause_that_lasts_is_told_and_a_lower_rate_helps(tmp_path: Path) -> None:
    def rolling(rate: float) -> optax.GradientTransformation:
        return gs.rollback(adamw(too_fast(rate)), every=25, patience=6)

    run = train(tmp_path / "run.jsonl", rolling(30.0))
    told = found(run)["rolled_back"]
    assert told.sentence.startswith("Rolled back 6 times between steps 3")
    assert told.sentence.endswith("diverged again and again: the cause lasts.")
    assert "Lower the learning rate, as gs.backoff around gs.rollback does." in told.advice
    assert "rolled back" in found(run)["learning_rate_jump"].sentence
    slower = train(tmp_path / "run.jsonl", rolling(3e-2))
    assert found(slower).keys() == {"healthy"}
    backed = train(tmp_path / "run.jsonl", gs.backoff(rolling(30.0)))
    assert sum(event.times for event in backed.rollbacks) < 6
    assert "gs.backoff" not in found(backed)["rolled_back"].advice


@pytest.mark.parametrize("last", [440, 460])
def test_a_rollback_is_not_blamed_on_the_learning_rate(tmp_path: Path, last: int) -> None:
    """Pitfall: the update of a rollback itself was called a jump of the learning rate.

    At 460 it is undone, which is an update of that kind too.
    """
    run = train(tmp_path / "run.jsonl", gs.rollback(adamw()), bad=range(400, last), gain=30.0)
    assert sum(event.times for event in run.rollbacks) == 1
    assert ("undone" in found(run)["rolled_back"].sentence) == (last == 460)
    assert found(run).keys() == {"burst", "rolled_back"}


def test_a_paused_run_is_not_blamed_on_its_settings(tmp_path: Path) -> None:
    """Pitfall: nothing moves in a paused run, which was blamed on the schedule."""
    # From the copy at 151, the rate rises before there is a new one.
    tx = gs.rollback(adamw(too_fast(30.0, after=200)), every=150, patience=6, max_restores=1)
    run = train(tmp_path / "run.jsonl", tx)
    told = found(run)
    assert told["rolled_back"].severity is Severity.FATAL
    assert told["rolled_back"].severity == max(one.severity for one in told.values())
    (paused,) = {event.step for event in run.rollbacks}
    assert paused < STEPS // 2, "more than half of the run must stand still"
    assert told["rolled_back"].sentence.endswith(f"; paused from step {paused} on.")
    assert not {"dead", "learning_rate_too_high", "locked_in"} & told.keys()
    assert verdict(run) == ("bad", f"Paused: {told['rolled_back'].sentence}")


def test_a_plateau_is_no_trouble_but_told(tmp_path: Path) -> None:
    tx = optax.chain(adamw(), gs.rate.reduce_on_plateau(0.1, patience=100))
    run = train(tmp_path / "run.jsonl", tx)
    assert run.lr_factor[-1] < 0.1
    assert found(run).keys() == {"healthy"}
    assert "% of the learning rate at the end" in found(run)["healthy"].sentence


def test_what_comes_back_did_not_explode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run.jsonl", adamw(), second=MINORITY)
    assert main(["doctor", str(tmp_path / "run.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert f"run: {STEPS} steps recorded" in shown
    assert "exploded first" not in shown


def test_a_rate_that_is_too_high_is_told_by_how_much(tmp_path: Path) -> None:
    """Pitfall: what a trust region shortens looked like the work of back-off."""
    tx = gs.govern(adamw(too_fast(1.0)))
    run = train(tmp_path / "run.jsonl", tx)
    told = found(run)
    assert "small_steps" not in told
    assert told["steps_shortened"].sentence.startswith(
        "The learning rate was too high, by a factor"
    )
    assert told["steps_shortened"].severity.name == "SERIOUS"
    assert verdict(run).text.startswith("Troubled: The learning rate was too high")
    calm = train(tmp_path / "calm.jsonl", gs.govern(adamw()))
    assert "steps_shortened" not in found(calm)
