"""Claims are judged by what their criteria say, and every one of them runs."""

import functools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.claims import (
    adam_spikes,
    corrupted_gradients,
    exploding_rnn,
    published_code,
    rate_sensitivity,
)
from benchmarks.claims.__main__ import CLAIMS, markdown
from benchmarks.claims.finding import FAILS, HOLDS, OPEN, Answer, Finding, Scale, judge

TOY = Scale(seeds=2, steps=0.01, quick=True)


def well_formed(finding: Finding) -> None:
    assert finding.rows
    assert finding.verdicts
    assert all(len(row) == len(finding.headings) for row in finding.rows)
    assert {verdict.answer for verdict in finding.verdicts} <= {HOLDS, FAILS, OPEN}


@pytest.mark.parametrize(
    ("gains", "answer"),
    [
        ([1.0, 1.1, 0.9], HOLDS),
        ([-1.0, -1.1, -0.9], FAILS),
        ([0.01, -0.01, 0.0], FAILS),
        ([5.0, -4.0, 1.0], OPEN),
        ([1.0], OPEN),
        ([np.inf, 1.0, 1.1], HOLDS),
    ],
)
def test_a_claim_holds_where_the_whole_interval_is_above_zero(
    gains: list[float], answer: Answer
) -> None:
    assert judge(np.array(gains), reference=1.0) == answer


def test_spikes_are_counted_once_each() -> None:
    losses = np.ones(1000)
    losses[[300, 310, 700]] = 5.0
    assert adam_spikes.spikes_of(losses).tolist() == [300, 700]


def test_lead_and_chance_of_an_alarm() -> None:
    losses, rms = 1.0 + 1e-3 * np.sin(np.arange(1000.0)), np.full(1000, 0.5)
    losses[[500, 501, 800, 801]] = 5.0
    rms[[496, 650]] = 3.0
    before, after, chance = adam_spikes.leads(losses, rms, 2.3)
    assert before.tolist() == [4.0, 150.0]
    assert after.tolist() == [150.0, np.inf]
    assert chance == pytest.approx(2 * 8 / 900)


def test_without_an_alarm_no_spike_had_one() -> None:
    losses = 1.0 + 1e-3 * np.sin(np.arange(1000.0))
    losses[[500, 501]] = 5.0
    before, after, chance = adam_spikes.leads(losses, np.zeros(1000), 2.3)
    assert before.tolist() == after.tolist() == [np.inf]
    assert chance == 0.0


def test_sensitivity_counts_no_loss_above_the_first() -> None:
    losses = np.array([[1.0], [2.0], [np.inf]])
    assert rate_sensitivity.sensitivity(losses, np.array([4.0])).tolist() == [(0 + 1 + 3) / 3]


def test_claims_about_published_code_hold() -> None:
    finding = published_code.check(TOY)
    well_formed(finding)
    assert {verdict.answer for verdict in finding.verdicts} == {HOLDS}


@pytest.mark.slow
def test_spikes_of_adam_run_at_toy_size() -> None:
    well_formed(adam_spikes.check(TOY))


@pytest.mark.slow
def test_exploding_network_runs_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: exploding_rnn.METHODS[name] for name in ("none", "gs.guard")}
    monkeypatch.setattr(exploding_rnn, "METHODS", kept)
    well_formed(exploding_rnn.check(TOY))


@pytest.mark.slow
def test_rate_sensitivity_runs_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    small = functools.partial(rate_sensitivity.decoder, layers=1, width=8)
    monkeypatch.setattr(rate_sensitivity, "decoder", small)
    well_formed(rate_sensitivity.check(TOY))


@pytest.mark.slow
def test_corrupted_gradients_run_at_toy_size() -> None:
    well_formed(corrupted_gradients.check(TOY, ("none", "GradientStabilizer")))


def test_page_has_every_claim() -> None:
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    assert all(f"--only {name}`" in page for name in CLAIMS)


def test_page_is_made_of_titles_tables_and_commands() -> None:
    page = markdown({"published_code": published_code.check(TOY)})
    assert page.startswith("# Claims on trial\n")
    assert "## What published rules do to norms" in page
    assert page.count("**holds**") == 2
    assert "--only published_code`" in page
