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
from examples.char_transformer import input_pipeline
from examples.char_transformer.configs.default import Config
from examples.char_transformer.models import CharTransformer
from examples.char_transformer.train import evaluate, make_model, make_schedule, train
from examples.common.compare import Outcome, compare


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        steps=20,
        features=8,
        heads=2,
        layers=1,
        context=16,
        batch_size=8,
        held_out=0.02,
        eval_every=10,
        fault="bad-batch",
        fault_at=8,
        workdir=tmp_path_factory.mktemp("char_transformer"),
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
    assert list(run.scalars["held_out_bits"].step) == [10, 20]


def test_bad_batches_break_bare(outcomes: dict[str, Outcome]) -> None:
    assert np.isfinite(outcomes["bare"].losses[:9]).all()
    assert np.isnan(outcomes["bare"].losses[-10:]).all()


def fresh_logits(config: Config, tokens: jax.Array) -> jax.Array:
    return make_model(config)(tokens)


def test_shapes(tiny: Config) -> None:
    tokens = input_pipeline.encode("Simple is better than complex. " * 10)
    batch, other = input_pipeline.batches(tokens, context=16, batch_size=8, steps=2, seed=0)
    assert batch.tokens.shape == batch.targets.shape == other.tokens.shape == (8, 16)
    assert np.array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert not np.array_equal(batch.tokens, other.tokens)
    assert input_pipeline.whole(tokens, context=16).tokens.shape == (19, 16)
    for fault in ("none", "fp16"):
        config = dataclasses.replace(tiny, fault=fault)
        logits = nnx.eval_shape(partial(fresh_logits, config), batch.tokens)
        assert logits.shape == (8, 16, input_pipeline.VOCABULARY)
        assert logits.dtype == np.float32


def test_no_character_sees_those_after_it(tiny: Config) -> None:
    read = nnx.jit(CharTransformer.__call__)
    model, tokens = make_model(tiny), jnp.arange(16)[None]
    changed = read(model, tokens.at[0, 8].set(50)) != read(model, tokens)
    assert not changed[0, :8].any()
    assert changed[0, 8:].any(axis=-1).all()


def test_paragraphs_do_not_repeat() -> None:
    text = input_pipeline.text()
    assert len(text) > 100_000
    paragraphs = text.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)


def test_every_character_has_an_index() -> None:
    tokens = input_pipeline.encode("\n ~\u201c")
    assert tokens.tolist() == [0, 1, 95, input_pipeline.OTHER]
    assert input_pipeline.VOCABULARY == input_pipeline.OTHER + 1


def test_unigrams_of_two_even_characters_take_one_bit() -> None:
    tokens = input_pipeline.encode("ab" * 50_000)
    assert input_pipeline.unigram_bits(tokens, tokens[:10]) == pytest.approx(1.0, abs=2e-3)
    unseen = input_pipeline.unigram_bits(tokens, input_pipeline.encode("c"))
    assert unseen == pytest.approx(np.log2(100_000 + input_pipeline.VOCABULARY))


def test_weights_count(tiny: Config) -> None:
    model, tokens = make_model(tiny), input_pipeline.encode("In the face of ambiguity, " * 2)
    batch = input_pipeline.whole(tokens, context=16)
    heavy = batch._replace(weights=batch.weights * 1e4)
    assert float(evaluate(model, heavy)) == pytest.approx(1e4 * float(evaluate(model, batch)))


@pytest.mark.slow
def test_bits_at_full_length(tmp_path: Path) -> None:
    config = Config(optimizer="ours", workdir=tmp_path)
    assert compare(config, train, schedule=make_schedule(config))["ours"].metric <= 2.45
