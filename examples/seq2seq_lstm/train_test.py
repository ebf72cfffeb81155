"""The example learns, survives faults, and performs as its page says."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstable as gs
from examples.common.compare import Outcome, compare
from examples.seq2seq_lstm import input_pipeline
from examples.seq2seq_lstm.configs.default import Config
from examples.seq2seq_lstm.models import Seq2Seq
from examples.seq2seq_lstm.train import loss_fn, make_model, make_schedule, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        digits=1,
        held_out=5,
        hidden=8,
        batch_size=32,
        eval_every=10,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("seq2seq_lstm"),
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Config) -> dict[str, Outcome]:
    return compare(tiny, train, schedule=make_schedule(tiny))


def test_loss_falls_through_bad_batches(tiny: Config, outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["ours"]
    assert ours.losses[-5:].mean() < ours.losses[:5].mean()
    assert ours.rejected >= 1
    run = gs.telemetry.read_run(tiny.workdir / "ours.jsonl")
    assert run.rejected.sum() == ours.rejected
    assert list(run.scalars["sums_right"].step) == [10, 20]


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:9]).all()
    assert np.isnan(outcomes["bare"].losses[-10:]).all()


def fresh_output(
    config: Config, questions: jax.Array, answers: jax.Array
) -> tuple[jax.Array, jax.Array]:
    model = make_model(config)
    solved = model.solve(questions, start=input_pipeline.START, length=answers.shape[1])
    return model(questions, answers), solved


def test_shapes(tiny: Config) -> None:
    pairs, _ = input_pipeline.split(digits=2, held_out=500, seed=0)
    batch, other = input_pipeline.batches(pairs, digits=2, batch_size=32, steps=2, seed=0)
    assert batch.questions.shape == other.questions.shape == (32, 5)
    assert batch.answers.shape == (32, 4)
    assert not np.array_equal(batch.questions, other.questions)
    for fault in ("none", "fp16"):
        config = dataclasses.replace(tiny, fault=fault)
        logits, solved = nnx.eval_shape(
            partial(fresh_output, config), batch.questions, batch.answers
        )
        assert logits.shape == (32, 4, len(input_pipeline.CHARACTERS))
        assert logits.dtype == np.float32
        assert solved.shape == (32, 4)
        assert solved.dtype == np.int32


def test_questions_and_answers_are_readable() -> None:
    batch = input_pipeline.encode(np.array([[12, 7], [99, 99]]), digits=2)
    assert [input_pipeline.decode(row) for row in batch.questions] == ["12+7", "99+99"]
    assert [input_pipeline.decode(row) for row in batch.answers] == ["19", "198"]
    assert batch.weights.tolist() == [1.0, 1.0]


def test_no_held_out_sum_is_trained_on_the_other_way_round() -> None:
    pairs, held = input_pipeline.split(digits=2, held_out=500, seed=0)
    assert len(pairs) + len(held) == 10_000
    assert {tuple(sorted(p)) for p in pairs.tolist()}.isdisjoint(
        tuple(sorted(p)) for p in held.tolist()
    )


def test_solve_feeds_back_what_it_writes(tiny: Config) -> None:
    model = make_model(tiny)
    questions = jnp.asarray(input_pipeline.encode(np.array([[3, 4]]), digits=1).questions)
    solve = nnx.jit(lambda model, x: model.solve(x, start=input_pipeline.START, length=3))
    solved = solve(model, questions)
    previous = jnp.concatenate([jnp.full((1, 1), input_pipeline.START), solved[:, :-1]], axis=1)
    logits = nnx.jit(Seq2Seq.__call__)(model, questions, previous)
    assert np.array_equal(jnp.argmax(logits, axis=-1), solved)


def test_weights_count(tiny: Config) -> None:
    model, batch = make_model(tiny), input_pipeline.encode(np.array([[3, 4], [5, 6]]), digits=1)
    heavy = batch._replace(weights=batch.weights * 1e4)
    loss = nnx.jit(loss_fn)
    assert float(loss(model, heavy)) == pytest.approx(1e4 * float(loss(model, batch)))


@pytest.mark.slow
def test_sums_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric >= 0.97
