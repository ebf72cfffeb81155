"""Every measure against answers found by hand, and what has to hold for all numbers."""

import math

import numpy as np
import pytest
from gradstable_gauntlet.harm import harm
from gradstable_gauntlet.league import Share, by_storm, league
from gradstable_gauntlet.measures import (
    bar,
    clean_loss,
    false_interventions,
    rate_sensitivity,
    ratios,
    smooth,
    spike_score,
    stable_range,
    steps_lost,
    steps_to_recover,
    survived,
)
from gradstable_gauntlet.results import Cell, Fate, Results
from gradstable_gauntlet.sweeps import best_rate, clean_cost
from hypothesis import given, settings
from hypothesis import strategies as st

INF, NAN = math.inf, math.nan
quick = settings(max_examples=40, deadline=None)
losses = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([INF, NAN]))


def fate(final: list[float], *, finite: bool = True, touched: float = 0.0) -> Fate:
    n = len(final)
    zeros = np.zeros(n)
    return Fate(
        np.array(final), np.full(n, finite), np.full(n, touched), zeros, zeros, zeros, zeros
    )


def cell(contestant: str, clean: list[float], storm: list[float] | None = None) -> Cell:
    fates = {"none": fate(clean)} | ({} if storm is None else {"storm": fate(storm)})
    return Cell("task", contestant, np.ones((3, 1)), np.ones(1), 0.1, fates, 0.0)


def three() -> Results:
    about = {"about": "", "ours": False}
    contestants = {"a": {**about, "base": "a"}, "b": {**about, "base": "a"}}
    contestants["c"] = {**about, "base": "c"}
    cells = [cell("a", [1.0]), cell("b", [1.2], [1.15]), cell("c", [0.1])]
    storms = {"none": {"about": "", "group": ""}, "storm": {"about": "", "group": "g"}}
    return Results({}, {"task": {"about": "", "steps": 9}}, contestants, storms, [0.1], cells)


def test_survival_is_finite_and_near_the_clean_loss() -> None:
    final = [1.0, 1.1, 1.11, INF, NAN, 0.5]
    assert survived(fate(final), 1.0).tolist() == [True, True, False, False, False, True]
    assert not survived(fate(final, finite=False), 1.0).any()


@pytest.mark.parametrize("clean", [INF, NAN])
def test_nothing_survives_where_the_clean_run_did_not(clean: float) -> None:
    assert not survived(fate([1.0, INF]), clean).any()


@quick
@given(st.lists(losses, min_size=1, max_size=9), st.floats(0.01, 100), st.integers(-20, 20))
def test_survival_does_not_depend_on_the_unit_of_the_loss(
    final: list[float], clean: float, power: int
) -> None:
    unit = 2.0**power
    scaled = survived(fate([unit * one for one in final]), unit * clean)
    np.testing.assert_array_equal(survived(fate(final), clean), scaled)


def test_survival_is_by_the_best_of_the_same_base() -> None:
    results = three()
    guarded = results.cells[1]
    assert bar(results, guarded).tolist() == [1.0]  # neither its own nor c's
    assert bar(results, guarded, own=True).tolist() == [1.2]
    assert not survived(guarded.fates["storm"], bar(results, guarded)).any()
    assert survived(guarded.fates["storm"], bar(results, guarded, own=True)).all()
    shares = by_storm(results, "b", ["task"]), by_storm(results, "b", ["task"], own=True)
    assert [share["storm"].survived for share in shares] == [0, 1]


def test_who_learns_less_wins_nothing() -> None:
    results = three()
    results = results._replace(cells=[results.cells[0], cell("b", [9.0], [9.0])])
    lazy = next(one for one in league(results) if one.contestant == "b")
    assert lazy.survival[""] == Share(0, 1)
    assert lazy.own == Share(1, 1)


def test_a_seed_that_is_ill_placed_from_the_start_is_held_against_itself() -> None:
    placed = cell("a", [1.0, 1.0, 5.0, INF], [1.0, 2.0, 5.0, 2.9])
    results = three()._replace(cells=[placed])
    assert bar(results, placed, own=True).tolist() == [3.0, 3.0, 5.0, 3.0]
    assert survived(placed.fates["storm"], bar(results, placed)).tolist() == [True] * 4


def test_clean_loss_is_a_median_in_which_bad_is_infinite() -> None:
    assert clean_loss(cell("a", [3.0, 1.0, NAN])) == 3.0
    assert clean_loss(cell("a", [3.0, -INF, NAN])) == INF
    assert math.isnan(clean_loss(cell("a", [3.0])._replace(fates={})))


def test_ratios_pair_the_seeds() -> None:
    found = ratios(fate([2.0, NAN, 3.0, 1.0]), fate([1.0, 1.0, INF, 0.0]))
    np.testing.assert_array_equal(found, [2.0, INF, NAN, NAN])


def swept(*losses: float) -> Cell:
    """Return a cell with these losses in its sweep, each with two seeds around it."""
    return cell("a", [1.0])._replace(sweep=np.array([[0.0, loss, INF] for loss in losses]))


def test_the_clean_cost_is_at_the_best_rate_of_the_base() -> None:
    base = swept(4.0, 2.0, 3.0)
    timid = swept(9.0, 4.0, 2.0)  # as good as the base, but only at a higher rate
    assert best_rate(base.sweep) == 1
    assert clean_cost(timid, base) == 100.0
    assert clean_cost(timid, base, below=1) == 125.0
    assert clean_cost(swept(3.0, 1.0, 9.0), base) == -50.0
    assert clean_cost(swept(1.0, INF, 1.0), base) == INF
    assert math.isnan(clean_cost(base, base, below=2))  # no such rate
    assert math.isnan(clean_cost(base, swept(INF, NAN, INF)))


def test_harm_is_by_the_better_of_base_and_clip_at_the_rate_of_the_base() -> None:
    def swept_by(name: str, *losses: float) -> Cell:
        return swept(*losses)._replace(contestant=name)

    bases = {"a": "a", "clip": "a", "b": "a", "c": "c"}
    contestants = {name: {"about": "", "ours": False, "base": of} for name, of in bases.items()}
    cells = [
        swept_by("a", 4.0, 2.0, 3.0),
        swept_by("clip", 1.0, 1.6, 1.0),  # its own best rates do not count
        swept_by("b", 9.0, 4.0, 1.0),
        swept_by("c", 9.0, 9.0, 6.0),
    ]
    tasks = {"task": {"about": "", "steps": 9, "fair": True}, "other": {"about": "", "steps": 9}}
    results = three()._replace(tasks=tasks, contestants=contestants, cells=cells)
    found = {one.contestant: one.loss for one in harm(results)}
    assert list(found) == ["clip", "c", "a", "b"]  # the best first
    assert found["b"] == (2.5, 0.0, INF)
    assert found["a"].value == 1.25
    assert found["c"].value == 1.0  # clip has another base
    alone = {one.contestant: one.loss.value for one in harm(results._replace(cells=cells[::2]))}
    assert alone == {"a": 1.0, "b": 2.0}
    (lost,) = harm(results._replace(cells=cells[2:3]))
    assert math.isnan(lost.loss.value)  # its base did not run
    assert harm(results, tasks=["other"]) == []


def test_costs_and_interventions() -> None:
    base = cell("a", [1.0])
    some = base._replace(fates={"none": fate([1.0, 1.0])._replace(touched=np.array([0.5, NAN]))})
    assert false_interventions(some) == 0.5
    assert math.isnan(false_interventions(base._replace(fates={"none": fate([1.0], touched=NAN)})))


def test_rate_sensitivity() -> None:
    values = np.array([1.0, 0.5, 1.5, NAN])
    # Excesses over 0.5 with what is above 2 or not finite as 2: 0.5, 0, 1, 1.5.
    assert rate_sensitivity(values, 2.0) == 0.75
    assert rate_sensitivity(values, 2.0, upper=True) == 1.25
    assert rate_sensitivity(values, 2.0, relative=True) == 0.5
    assert rate_sensitivity(np.array([[1.0, 9.0, 1.0], [INF, 2.0, NAN]]), 2.0) == 0.5
    assert rate_sensitivity(np.array([1.0]), 2.0) == rate_sensitivity(
        np.array([1.0]), 2.0, upper=True
    )
    assert (
        rate_sensitivity(np.array([1.0, 0.5, 1.0]), 2.0, upper=True) == 0.25
    )  # the middle one too


@pytest.mark.parametrize("values", [[INF, NAN], [3.0, INF], []])
def test_no_sensitivity_where_nothing_is_learned(values: list[float]) -> None:
    assert math.isnan(rate_sensitivity(np.array(values), 2.0))


@quick
@given(st.lists(losses, min_size=1, max_size=12), st.floats(0.01, 1000))
def test_relative_sensitivity_is_a_share(values: list[float], start: float) -> None:
    found = rate_sensitivity(np.array(values), start, relative=True)
    assert math.isnan(found) or -1e-9 <= found <= 1 + 1e-9


def test_stable_range_is_cut_on_the_line_between_two_losses() -> None:
    rates = np.array([1e-3, 1e-2, 1e-1, 1.0])
    found = stable_range(rates, np.array([1.21, 1.0, 1.05, INF]))
    assert found.low == pytest.approx(10**-2.5)  # log 1.1 is half of log 1.21
    assert found.high == pytest.approx(0.1)
    assert found.decades == pytest.approx(1.5)
    assert (found.open_low, found.open_high) == (False, False)


def test_stable_range_is_contiguous() -> None:
    rates = 10.0 ** np.arange(5)
    found = stable_range(rates, np.array([1.0, INF, 0.99, 1.0, 1.0]))
    assert (found.low, found.high) == pytest.approx((100.0, 1e4))
    assert (found.open_low, found.open_high) == (False, True)


def test_stable_range_of_one_rate_and_of_none() -> None:
    one = stable_range(np.array([0.1]), np.array([[1.0, 2.0, NAN]]))
    assert (one.low, one.high, one.decades) == pytest.approx((0.1, 0.1, 0.0))
    assert one.open_low
    assert one.open_high
    none = stable_range(np.array([0.1, 1.0]), np.array([INF, NAN]))
    assert math.isnan(none.high)
    assert none.decades == 0.0


@quick
@given(st.lists(losses, min_size=1, max_size=9), st.integers(-9, 9))
def test_stable_range_does_not_depend_on_the_unit_of_the_loss(
    values: list[float], power: int
) -> None:
    rates = 10.0 ** np.arange(len(values))
    one, other = (stable_range(rates, unit * np.array(values)) for unit in (1.0, 2.0**power))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    assert 0 <= one.decades <= len(values) - 1 + 1e-9


def by_definition(values: np.ndarray, window: int, sigmas: float) -> float:
    spikes = 0
    for t, value in enumerate(values):
        before = values[max(0, t - window) : t]
        before = before[np.isfinite(before)]
        if not np.isfinite(value):
            spikes += 1
        elif before.size >= 100:
            spikes += abs(value - before.mean()) >= sigmas * before.std()
    return 100.0 * spikes / len(values)


@pytest.mark.parametrize("window", [150, 260, 1000])
def test_spike_score_is_what_its_definition_says(window: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 1.0, (2, 3, 700))
    values[rng.random(values.shape) < 0.02] *= 30
    values[0, 1, [5, 300, 301]] = [NAN, INF, -INF]
    values[1, 2, 200] = 1e30
    found = spike_score(values, window, 7.0)
    assert found.shape == (2, 3)
    expected = [[by_definition(row, window, 7.0) for row in rows] for rows in values]
    np.testing.assert_allclose(found, expected)
    assert found.min() > 0


def test_one_spike_among_many() -> None:
    values = np.tile([1.0, 2.0], 500)
    values[400] = 9.0
    assert spike_score(values) == pytest.approx(0.1)
    values[50], values[400] = 9.0, 1.0  # too early to be one
    assert spike_score(values) == 0.0


def test_spike_score_at_the_edges() -> None:
    assert spike_score(np.full(500, 0.1)) == 0.0
    assert spike_score(np.full((2, 500), NAN)).tolist() == [100.0, 100.0]
    assert math.isnan(spike_score(np.array([])))
    # A new level is a spike until it is the rule, and a huge value leaves no trace.
    assert spike_score(np.repeat([1.0, 5.0], 500), window=200) == pytest.approx(0.4, abs=0.4)
    after = np.concatenate([np.tile([1.0, 2.0], 100), [1e90], np.tile([1.0, 2.0], 300), [9.0]])
    assert spike_score(after, window=200) == pytest.approx(100 * 2 / len(after))


def test_smooth_is_a_trailing_median() -> None:
    np.testing.assert_array_equal(smooth(np.array([3.0, 1.0, NAN, 2.0]), 3), [3.0, 2.0, 3.0, 2.0])
    np.testing.assert_array_equal(smooth(np.array([NAN, NAN]), 3), [INF, INF])
    assert smooth(np.zeros((2, 0))).shape == (2, 0)
    assert smooth(np.zeros((2, 40))).shape == (2, 40)


DOWN = np.arange(200, 100, -1.0)


def test_steps_lost() -> None:
    assert steps_lost(DOWN, DOWN) == 0
    # It stands still for the last 30 steps, and what is smoothed lags by 7 in both.
    stuck = np.where(np.arange(100) < 70, DOWN, DOWN[69])
    assert steps_lost(stuck, DOWN) == 30 - 7
    assert steps_lost(DOWN - 50, DOWN) == 0
    assert steps_lost(DOWN + 500, DOWN) == 100
    assert steps_lost(np.full(100, NAN), DOWN) == 100
    assert steps_lost(DOWN, np.full(100, INF)) == 0
    both = steps_lost(np.stack([DOWN, stuck]), np.stack([DOWN, DOWN]))
    assert both.tolist() == [0, 23]


@quick
@given(st.lists(losses, min_size=1, max_size=40), st.integers(0, 10))
def test_steps_lost_are_steps(values: list[float], seed: int) -> None:
    curve = np.array(values)
    clean = np.random.default_rng(seed).lognormal(size=len(values))
    assert 0 <= steps_lost(curve, clean) <= len(values)
    assert steps_lost(clean, clean) == 0


def test_steps_to_recover() -> None:
    clean = np.ones(100)
    hurt = np.where((np.arange(100) >= 20) & (np.arange(100) < 50), 9.0, 1.0)
    # The median of 15 is back when 8 of them are: at step 57.
    assert steps_to_recover(hurt, clean, 25) == 57 - 25
    assert steps_to_recover(clean, clean, 25) == 1
    assert steps_to_recover(np.where(np.arange(100) > 90, 1.0, 9.0), clean, 25) == INF
    assert steps_to_recover(np.full(100, NAN), clean, 25) == INF
    assert steps_to_recover(clean, np.full(100, NAN), 25) == INF
    assert steps_to_recover(clean, clean, 89) == 1
    assert steps_to_recover(clean, clean, 90) == INF  # fewer than ten steps are left
    assert steps_to_recover(np.stack([hurt, clean]), np.stack([clean] * 2), 25).tolist() == [32, 1]
