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
from gradstable.doctor import Diagnosis, diagnose
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
    # The page says it beside the reasons too.
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


def test_rollbacks_that_did_not_help_are_not_healthy(tmp_path: Path) -> None:
    """Pitfall: several rollbacks, steps at 1 %, and a third of the steps rejected: healthy."""
    tx = gs.backoff(gs.rollback(adamw()))
    run = train(tmp_path / "run.jsonl", tx, bad=CHANGES, gain=30.0)
    assert found(run).keys() == {"burst", "rolled_back", "small_steps"}
    told = found(run)["rolled_back"].sentence
    assert told.startswith("Rolled back 3 times between steps 212 and 520, the last time to the")
    assert told.endswith("was not lower after most returns: rolling back did not help.")
    assert "1.5 % of the learning rate" in found(run)["small_steps"].sentence
    mood, text = verdict(run)
    assert mood == "warn"
    assert text.startswith("Troubled: ")
    assert told in text
    assert "Back-off left the steps at 1.5 % of their size." in text


def test_the_guard_alone_keeps_its_speed_and_learns_more(tmp_path: Path) -> None:
    tx = gs.backoff(gs.rollback(adamw()))
    back = train(tmp_path / "run.jsonl", tx, bad=CHANGES, gain=30.0)
    run = train(tmp_path / "run.jsonl", adamw(), bad=CHANGES, gain=30.0)
    assert "use gs.guard without gs.rollback" in found(back)["rolled_back"].advice
    assert found(run).keys() == {"burst"}
    assert run.loss[-20:].mean() < back.loss[-20:].mean() / 2
    # Four bursts are no accident.
    assert verdict(run).text.startswith("Troubled: 4 bursts of 160 steps in all")


def test_a_cause_that_lasts_is_told_and_a_lower_rate_helps(tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", gs.rollback(adamw(too_fast(30.0))))
    told = found(run)["rolled_back"]
    assert told.sentence.startswith("Rolled back 6 times between steps 315 and 595")
    assert told.sentence.endswith("diverged again and again: the cause lasts.")
    assert "Lower the learning rate, as gs.backoff around gs.rollback does." in told.advice
    assert "rolled back" in found(run)["learning_rate_jump"].sentence
    slower = train(tmp_path / "run.jsonl", gs.rollback(adamw(too_fast(3e-2))))
    assert found(slower).keys() == {"healthy"}
    backed = train(tmp_path / "run.jsonl", gs.backoff(gs.rollback(adamw(too_fast(30.0)))))
    assert sum(event.times for event in backed.rollbacks) < 6
    assert "gs.backoff" not in found(backed)["rolled_back"].advice


def test_a_rollback_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    """Pitfall: the update of a rollback itself was called a jump of the learning rate."""
    run = train(tmp_path / "run.jsonl", gs.rollback(adamw()), bad=range(400, 412), gain=30.0)
    assert sum(event.times for event in run.rollbacks) == 1
    assert found(run).keys() == {"burst", "rolled_back"}


def test_a_paused_run_is_not_blamed_on_its_settings(tmp_path: Path) -> None:
    """Pitfall: nothing moves in a paused run, which was blamed on the schedule."""
    run = train(
        tmp_path / "run.jsonl", gs.rollback(adamw(too_fast(30.0, after=200)), max_restores=1)
    )
    told = found(run)
    assert told["rolled_back"].severity == max(one.severity for one in told.values())
    assert told["rolled_back"].sentence.endswith("; paused from step 231 on.")
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
    calm = train(tmp_path / "calm.jsonl", gs.govern(adamw()))
    assert "steps_shortened" not in found(calm)
