"""One cell, run whole: the rate is tuned, storms strike where they should, nothing else changes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradstable_gauntlet.cell import Plan, run_cell
from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.entries import choose, entries, storms_for, with_bases
from gradstable_gauntlet.run import member, runner, schedule_of
from gradstable_gauntlet.storms import STORMS, calm, last_fault, weather_of

import gradstable as gs
from benchmarks.gauntlet.tests.mine import line

PLAN = Plan(rates=(1e-4, 1e-2, 1e-1), tuning_seeds=(0, 1, 2), seeds=(100, 101, 102), width=9)
SOME = ("none", "batch x nan, 1%", "batch x 1e6, burst", "rate x 100", "float16")


def bare(learning_rate):
    return optax.adam(learning_rate)


def guarded(learning_rate):
    return gs.guard(optax.adam(learning_rate))


BARE = Contestant(bare, "Adam", base="bare")
GUARDED = Contestant(guarded, "Adam behind the guard", base="bare", ours=True)


@pytest.fixture(scope="module")
def cells():
    storms = choose("storm", SOME, STORMS)
    return {
        name: run_cell(("line", name), line, one, storms, PLAN)
        for name, one in (("bare", BARE), ("guarded", GUARDED))
    }


def test_the_rate_is_the_best_of_the_sweep(cells) -> None:
    for cell in cells.values():
        assert cell.sweep.shape == (3, 3)
        assert cell.rate == PLAN.rates[int(np.argmin(np.median(cell.sweep, axis=1)))]
        assert cell.rate == 1e-1


def test_a_nan_ends_the_bare_run_and_not_the_guarded(cells) -> None:
    assert not cells["bare"].fates["batch x nan, 1%"].finite.any()
    assert np.isinf(cells["bare"].fates["batch x nan, 1%"].final).all()
    assert cells["guarded"].fates["batch x nan, 1%"].finite.all()
    calm_loss = cells["guarded"].fates["none"].final
    assert (cells["guarded"].fates["batch x nan, 1%"].final <= 1.1 * calm_loss).all()


def test_in_calm_weather_nothing_is_lost_and_little_touched(cells) -> None:
    for cell in cells.values():
        calm_fate = cell.fates["none"]
        assert (calm_fate.lost == 0).all()
        assert (calm_fate.recovery == 1).all()  # the very first step
    assert (cells["guarded"].fates["none"].touched <= 0.2).all()
    assert np.isnan(cells["bare"].fates["none"].touched).all()  # its state does not tell


def test_a_cell_comes_out_the_same_twice(cells) -> None:
    again = run_cell(("line", "bare"), line, BARE, choose("storm", SOME, STORMS), PLAN)
    for name, fate in cells["bare"].fates.items():
        np.testing.assert_array_equal(again.fates[name].final, fate.final)


def test_side_by_side_is_what_one_by_one_is() -> None:
    storms = [STORMS["none"], STORMS["rate x 100"], STORMS["start x 4"]]
    members = [
        member(seed=3, rate=0.05, weather=weather_of("x", storm, steps=60, seed=3))
        for storm in storms
    ]
    together = runner(line(), GUARDED, width=3)(members)
    alone = runner(line(), GUARDED, width=1)(members)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-4)


def test_a_rate_fault_waits_for_no_step() -> None:
    """Pitfall: a count that stands still in rejected steps would lengthen the fault."""
    assert float(schedule_of(2.0, 100, 3.0)(jnp.int32(99))) < 0.01
    peak = float(schedule_of(2.0, 100, 3.0)(jnp.int32(5)))
    assert peak == pytest.approx(6.0, rel=0.02)


@pytest.mark.parametrize("name", STORMS)
def test_a_storm_is_what_it_says(name: str) -> None:
    first, again, other = (
        weather_of(name, STORMS[name], steps=400, seed=seed) for seed in (100, 100, 101)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(first))
    differs = [
        not np.array_equal(a, b, equal_nan=True)
        for a, b in zip(first[:5], calm(400)[:5], strict=True)
    ]
    assert any(differs) == (name not in ("none", "bfloat16", "float16"))
    assert (last_fault(first) >= 0) == any(differs[:4])
    if "%" in name or name == "labels x 1e4":
        assert not np.array_equal(first.inputs + first.targets, other.inputs + other.targets)


def test_shares_are_exact() -> None:
    weather = weather_of("batch x 1e3, 10%", STORMS["batch x 1e3, 10%"], steps=400, seed=7)
    assert (weather.inputs != 1).sum() == 36
    assert (weather.inputs[:40] == 1).all()


@pytest.mark.parametrize(("steps", "stretch"), [(400, 66), (2000, 250)])
def test_a_curriculum_is_loud_in_every_second_stretch(steps: int, stretch: int) -> None:
    loss = weather_of("curriculum", STORMS["curriculum"], steps=steps, seed=0).loss
    assert (loss[:stretch] == 1).all()
    assert (loss[stretch : 2 * stretch] == 30).all()
    assert (loss[2 * stretch : 3 * stretch] == 1).all()


def test_warm_restarts_begin_at_the_peak() -> None:
    rate = weather_of("warm restarts", STORMS["warm restarts"], steps=300, seed=0).rate
    assert rate[[0, 100, 200]].tolist() == [1, 1, 1]
    assert (rate[[99, 199, 299]] < 1e-3).all()
    assert (np.diff(rate)[:99] < 0).all()


def test_healthy_tasks_meet_no_faults() -> None:
    assert list(storms_for("policy", STORMS)) == ["none", "curriculum", "warm restarts"]
    assert {"curriculum", "batch x nan, 1%"} < storms_for("gan", STORMS).keys()


def test_low_precision_only_where_it_is_paid_for() -> None:
    assert "float16" in storms_for("digits_cnn", STORMS)
    assert "float16" not in storms_for("relu_rnn", STORMS)
    assert "none" in storms_for("relu_rnn", {})


def test_users_bring_their_own() -> None:
    file = Path(__file__).with_name("mine.py")
    known = entries([file])
    assert known.contestants["signed"].about == "Sign descent, clipped."
    assert {"line"} == known.tasks.keys() - entries().tasks.keys()
    with pytest.raises(ValueError, match="the name 'line' is already taken"):
        entries([file, file])


BRINGS = """
import optax
from gradstable_gauntlet import Contestant
full = Contestant(optax.sgd, "", base="mine")
CONTESTANTS = {"mine": optax.sgd, "other": optax.sgd, "full": full}
"""


def test_what_is_brought_is_compared_with_the_base_it_names(tmp_path: Path) -> None:
    file = tmp_path / "brings.py"
    file.write_text(BRINGS + 'BASES = {"mine": "sgd"}')
    with pytest.raises(ValueError, match="base 'mine' of 'full' has a base itself: name that, 'sg"):
        entries([file])
    file.write_text(BRINGS + 'BASES = {"mine": "sgd", "full": "lion"}')
    known = entries([file]).contestants

    def bases(*names: str) -> list[str]:
        return [one.base for one in with_bases(choose("contestant", names, known)).values()]

    assert bases("sgd", "mine", "full") == ["sgd", "sgd", "lion"]
    assert bases("adamw", "other") == ["adamw", "adamw"]
    assert bases("sgd", "other") == ["sgd", "other"]  # no AdamW to be compared with


@pytest.mark.parametrize(
    ("bases", "told"),
    [
        ({"mine": "adamv"}, "base 'adamv' of 'mine' is no contestant; choose from: sgd, adam"),
        ({"mine": "clip"}, "base 'clip' of 'mine' has a base itself: name that, 'adamw'"),
        ({"mind": "adamw"}, "BASES has 'mind', which is not in CONTESTANTS"),
    ],
)
def test_a_base_that_is_none_is_said_to_be_so(
    bases: dict[str, str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "brings.py").write_text(f"{BRINGS}BASES = {bases}")
    with pytest.raises(ValueError, match=told):
        entries([tmp_path / "brings.py"])


def test_a_file_with_nothing_in_it_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty.py: has neither CONTESTANTS nor TASKS"):
        entries([tmp_path / "empty.py"])


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="there is no storm 'hail': --list shows all"):
        choose("storm", ["hail"], STORMS)
