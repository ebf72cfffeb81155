"""Growth that taps have seen, and the remedies that the advice names: each stops it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.illnesses.architecture import growing_attention, growing_residual, residual
from benchmarks.illnesses.recall import recall
from benchmarks.illnesses.tasks import Task
from benchmarks.illnesses.train import train
from gradstable._src.doctor.taps import grown_by
from gradstable.doctor import Diagnosis, Severity, diagnose
from gradstable.telemetry import Run, TapRecord, read_run
from tests.doctor.expected import RUNS
from tests.doctor.parts import cut


def tap(values: np.ndarray, *, head: int = -1, every: int = 50) -> TapRecord:
    """Return a record with these maxima, every 50 steps from step 1 on."""
    number = len(values)
    step = 1 + every * np.arange(number)
    nothing = {"max_abs": np.full(number, np.nan)}
    return TapRecord(step, {"max_abs": values}, nothing, np.full(number, head))


def found(**taps: TapRecord) -> list[Diagnosis]:
    run = dataclasses.replace(read_run(RUNS / "letters.jsonl"), taps=taps)
    return [one for one in diagnose(run) if one.name != "healthy"]


FLAT = np.full(20, 12.0)
RISE = np.concatenate([np.full(9, 12.0), 12.0 * 1.4 ** np.arange(1, 12)])


def test_names_the_block_and_the_step() -> None:
    (one,) = found(**{"block_2": tap(FLAT, head=0), "block_3": tap(RISE, head=5)})
    assert one.name == "attention_logits_grow"
    assert one.severity == Severity.SERIOUS
    # Flat up to the record of step 401; a tenth of the way is done one later.
    assert one.sentence.startswith("The attention logits of block_3 (head 5) grow since step 451,")


def test_a_step_or_a_batch_is_no_growth() -> None:
    spike = FLAT.copy()
    spike[-1] = 5000.0
    shift = np.where(np.arange(20) < 10, 12.0, 500.0)
    for values in (FLAT, spike, shift, RISE[:9], RISE[::-1]):
        assert not found(a=tap(values, head=1))


def test_growth_that_has_come_to_rest_is_none() -> None:
    rested = np.concatenate([RISE[5:], np.full(30, RISE[-1])])
    assert not found(a=tap(rested, head=1))


@pytest.mark.parametrize("seed", range(3))
def test_noise_on_a_level_is_no_growth_and_noise_on_growth_hides_nothing(seed: int) -> None:
    noise = np.exp(0.2 * np.random.default_rng(seed).standard_normal(20))
    assert not found(a=tap(200.0 * noise, head=1))
    assert [one.name for one in found(a=tap(RISE * noise, head=1))] == ["attention_logits_grow"]


def test_small_logits_may_grow() -> None:
    assert not found(a=tap(RISE / 10, head=1))


def test_activations_need_more_and_logits_of_classes_are_told_by_their_name() -> None:
    assert not found(mlp=tap(RISE))
    (one,) = found(mlp=tap(RISE**2), flat=tap(FLAT))
    assert (one.name, one.severity) == ("activations_grow", Severity.MILD)
    assert "activations at mlp grow since step 451" in one.sentence
    (one,) = found(**{"head/logits": tap(RISE)})
    assert one.sentence.startswith("The logits of head/logits grow")
    assert "gs.losses.z_loss" in one.advice


def test_records_that_are_unknown_or_not_finite_are_left_out() -> None:
    values = RISE.copy()
    values[[3, 15]] = np.nan, np.inf
    assert [one.name for one in found(a=tap(values, head=1))] == ["attention_logits_grow"]
    assert not found(a=tap(np.full(20, np.nan), head=1), b=tap(np.zeros(20)))


def test_the_first_layer_is_named_in_a_recorded_run() -> None:
    run = read_run(RUNS / "growing_residual.jsonl")
    (one,) = diagnose(run)
    assert "activations at residual/3 grow since step" in one.sentence
    assert diagnose(cut(run, slice(0, 40)))[0].name == "healthy"


def recorded(case: Any, path: Path) -> Run:
    train(case, path / "run.jsonl", name="run")
    return read_run(path / "run.jsonl")


def largest(run: Run) -> float:
    return max(float(one.forward["max_abs"][-1]) for one in run.taps.values())


@pytest.mark.slow  # of QK-norm there is a recorded run as well, normed_attention
@pytest.mark.parametrize("remedy", ["qk_norm", "soft_cap"])
def test_remedies_in_the_model_stop_the_growth(remedy: str, tmp_path: Path) -> None:
    arguments: Any = {"qk_norm": {"qk_norm": True}, "soft_cap": {"cap": 50.0}}[remedy]
    case = dataclasses.replace(growing_attention(0), task=recall(0, **arguments), steps=72)
    run = recorded(case, tmp_path)
    assert [one.name for one in diagnose(run)] == ["healthy"]
    assert (
        largest(run) <= 50.0 < largest(cut(read_run(RUNS / "growing_attention.jsonl"), slice(72)))
    )


@pytest.mark.slow
def test_normalization_stops_the_growth_of_activations(tmp_path: Path) -> None:
    case = dataclasses.replace(growing_residual(0), task=residual(0, normalized=True))
    run = recorded(case, tmp_path)
    assert [one.name for one in diagnose(run)] == ["healthy"]


def test_qk_clip_behind_the_optimizer_stops_the_growth() -> None:
    task: Task = recall(0)
    tx = optax.chain(optax.adam(0.03), gs.clipping.qk_clip(max_logit=20.0))

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        (_, grads), taps = gs.taps.value_and_grad(task.loss)(params, batch)
        maxima = gs.taps.max_logits(taps)
        updates, state = tx.update(grads, state, params, max_logits=maxima)
        return optax.apply_updates(params, updates), state, maxima

    params, state, seen = task.params, tx.init(task.params), []
    for number in range(60):
        params, state, maxima = step(params, state, task.batch(number))
        seen.append(max(float(jnp.max(one)) for one in maxima.values()))
    assert set(maxima) == {"blocks/0", "blocks/1"}
    assert max(seen[20:]) < 40.0


def test_z_loss_stops_the_growth_of_class_logits() -> None:
    x = jax.random.normal(jax.random.key(0), (64, 8))
    label = jnp.argmax(x[:, :4], axis=1)

    def final(weight: float) -> float:
        def loss_fn(w: jax.Array) -> jax.Array:
            logits = gs.tap("logits", x @ w)
            plain = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return jnp.mean(plain + gs.losses.z_loss(logits, weight=weight))

        tx = optax.adam(2.0)

        def body(carry: Any, _: None) -> Any:
            w, state = carry
            (_, grads), taps = gs.taps.value_and_grad(loss_fn)(w)
            updates, state = tx.update(grads, state, w)
            return (optax.apply_updates(w, updates), state), taps

        w = jnp.zeros((8, 4))
        taps = jax.lax.scan(body, (w, tx.init(w)), None, length=200)[1]
        last = jax.tree.map(lambda sums: sums[-1], taps)
        return gs.taps.read(last)["logits"]["forward"]["max_abs"]

    assert final(0.0) > 3 * final(1e-2)


def test_too_few_records_say_nothing() -> None:
    assert grown_by("a", tap(RISE[:7])) is None
    assert grown_by("a", tap(np.array([]))) is None
