"""Train a case through the public API, and write its record."""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.illnesses.case import CASES, Case
from benchmarks.illnesses.tasks import Batch

DIGITS_OF_A_NUMBER = 4


def train(one: Case, path: Path, *, name: str) -> None:
    """Train it, and write the raw record."""
    every = one.taps_every
    taps = gs.taps.shapes(one.task.loss, one.task.params, one.task.batch(1)) if every else None
    tx = gs.record(one.tx, capacity=one.capacity, leaf_every=one.leaf_every, taps=taps)

    @jax.jit
    def step(
        params: Any, state: Any, batch: Batch, scale: float, number: int
    ) -> tuple[Any, Any, jax.Array]:
        def scaled(params: Any) -> jax.Array:
            return one.task.loss(params, batch) * scale

        when = number % every == 1 if every else False
        (loss, gradients), taps = gs.taps.value_and_grad(scaled, when=when)(params)
        gradients = jax.tree.map(lambda g: g / scale, gradients)
        extra: dict[str, Any] = {"value": loss / scale} if one.tells_loss else {}
        extra |= {"taps": taps} if every else {}
        updates, state = tx.update(gradients, state, params, **extra)
        norm = gs.global_norm(gradients)
        return optax.apply_updates(params, updates), state, jnp.isfinite(norm)

    params, state = one.task.params, tx.init(one.task.params)
    reads = 1 if one.calls_every > 1 else None
    log = gs.telemetry.Log(params, path, name=name, config=one.config, every=reads)
    scale, good = one.loss_scale, 0
    for number in range(1, one.steps + 1):
        params, state, finite = step(params, state, one.task.batch(number), scale, number)
        if one.scale_grows_every:
            good = good + 1 if finite else 0
            factor = 2.0 if good and good % one.scale_grows_every == 0 else 1.0
            scale *= factor if finite else 0.5
        if number >= one.first and number % one.calls_every == 0:
            log(state)
    if one.closes:
        log.close()
    else:
        log.flush()


def compact(source: Path, target: Path) -> None:
    """Copy a record with its numbers rounded and without spaces."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(one) for key, one in value.items()}
        if isinstance(value, list):
            return [rounded(one) for one in value]
        return float(f"{value:.{DIGITS_OF_A_NUMBER}g}") if isinstance(value, float) else value

    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    text = [json.dumps(rounded(line), separators=(",", ":")) for line in lines]
    target.write_text("\n".join(text) + "\n", encoding="utf-8")


def write(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Train a case and write its record; return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.jsonl"
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "run.jsonl"
        train(CASES[name](seed), raw, name=name)
        compact(raw, target)
    return target
