"""``Log(on_event=...)``: called in order, once, and never the end of a training."""

import http.server
import json
import threading
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.telemetry import Event, JsonLines, Log, read_run

PARAMS = {"w": jnp.ones(4)}
TX = gs.record(gs.guard(optax.adam(1e-2)), capacity=64)
NAN, SPIKE = (70, 71, 72), 100


def train(
    log: Log, steps: int, state: Any = None, *, tx: Any = TX, nan: tuple[int, ...] = NAN
) -> Any:
    update, state = jax.jit(tx.update), tx.init(PARAMS) if state is None else state
    first = int(state.calls) + 1
    for step in range(first, first + steps):
        size = np.nan if step in nan else 1e9 if step == SPIKE else 1.0
        noise = 1.0 + 0.1 * jax.random.normal(jax.random.key(step), (4,))
        _, state = update({"w": size * noise}, state, PARAMS, value=jnp.float32(1.0))
        log(state)
    return state


def test_a_nan_and_a_spike_are_told_in_order_and_once() -> None:
    told: list[Event] = []
    with Log(PARAMS, every=9, on_event=told.append) as log:  # a reading ends within the NaNs
        train(log, 120)
    assert [(one.kind, one.step) for one in told] == [("rejected", 70), ("rejected", SPIKE)]
    assert told[0].sentence.endswith("rejected: the gradient had NaN or infinite entries, in ['w']")
    assert told[1].row["grad_norm"] > 1e9
    assert "far above its usual range" in told[1].text


def test_a_chat_gets_the_sentence() -> None:
    """As on the page about telemetry, with a server in place of the chat."""
    posted: list[dict[str, str]] = []

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            posted.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    with http.server.HTTPServer(("localhost", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def post(event: Event) -> None:
            request = urllib.request.Request(
                f"http://localhost:{server.server_port}",
                data=json.dumps({"text": event.sentence}).encode(),
                headers={"Content-Type": "application/json"},
            )
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            direct.open(request, timeout=30).close()

        with Log(PARAMS, on_event=post) as log:
            train(log, 80)
        server.shutdown()
    assert [one["text"].split(",")[0] for one in posted] == [
        "steps 70 to 72: rejected: the gradient had NaN or infinite entries"
    ]


@pytest.mark.parametrize("error", [OSError("no route"), KeyError("text"), TypeError("none")])
def test_what_it_raises_is_one_warning(error: Exception, tmp_path: Path) -> None:
    told: list[str] = []

    def broken(event: Event) -> None:
        told.append(event.kind)
        raise error

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with Log(PARAMS, tmp_path / "run.jsonl", every=16, on_event=broken) as log:
            train(log, 120)
    assert told == ["rejected", "rejected"]
    first, last = (str(one.message) for one in warned)
    assert first.startswith("on_event failed, but training continues: ")
    assert last == "on_event failed 2 times."
    assert read_run(tmp_path / "run.jsonl").step.tolist() == list(range(1, 121))


def test_a_resumed_run_does_not_tell_again(tmp_path: Path) -> None:
    """Pitfall: an episode that the checkpoint is in the middle of was told by both processes."""
    told: list[Event] = []
    with Log(PARAMS, tmp_path / "run.jsonl", on_event=told.append) as log:
        state = train(log, 71)
    sink = JsonLines(tmp_path / "run.jsonl", append=True)
    with Log(PARAMS, sinks=[sink], on_event=told.append) as log:
        train(log, 49, state)
    assert [one.step for one in told] == [70, SPIKE]


def test_rollbacks_before_a_resume_are_not_told_again() -> None:
    """The last of them pauses the run, which is told too."""
    tx = gs.record(
        gs.rollback(gs.guard(optax.sgd(0.1)), every=5, patience=3, rejections=3, max_restores=1)
    )
    told: list[Event] = []
    with Log(PARAMS, every=4, on_event=told.append) as log:
        state = train(log, 40, tx=tx, nan=tuple(range(11, 60)))
    kinds = [one.kind for one in told]
    assert kinds[0] == "rejected"
    assert set(kinds) == {"rejected", "rolled_back", "paused"}
    assert kinds.count("paused") == 1
    assert next(one for one in told if one.kind == "paused").is_serious
    again: list[Event] = []
    with Log(PARAMS, every=4, on_event=again.append) as log:
        train(log, 8, state, tx=tx, nan=tuple(range(11, 60)))
    assert again == []


def test_members_are_told_apart() -> None:
    update, each = jax.jit(jax.vmap(TX.update)), {"w": jnp.ones((3, 4))}
    state, told = jax.vmap(TX.init)(each), []
    with Log(PARAMS, every=4, on_event=told.append) as log:
        for step in range(1, 9):
            bad = jnp.where(jnp.arange(3)[:, None] == (1 if step == 6 else -1), jnp.nan, 1.0)
            _, state = update({"w": bad * jnp.ones(4)}, state, each)
            log(state)
    assert [one.sentence.split(", in")[0] for one in told] == [
        "step 6: member 1: rejected: the gradient had NaN or infinite entries"
    ]


def test_the_exception_that_ends_a_run_is_told_last() -> None:
    told: list[Event] = []
    with pytest.raises(gs.TrainingDiverged), Log(PARAMS, on_event=told.append) as log:  # noqa: PT012
        train(log, 71)
        raise gs.TrainingDiverged("no step was accepted")
    assert [one.kind for one in told] == ["rejected", "ended"]
    assert told[-1].sentence == "step 71: ended by TrainingDiverged: no step was accepted"


def test_a_bare_optimizer_that_diverges_is_told() -> None:
    told: list[Event] = []
    tx = gs.record(optax.adam(1e-2))

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((p["w"] - x) ** 2))(params)
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    with Log(PARAMS, on_event=told.append) as log:
        for number in range(1, 121):
            params, state = step(params, state, jnp.nan if number == 60 else jnp.float32(0.0))
            log(state)
    assert [(one.kind, one.step) for one in told] == [("diverged", 80)]


@pytest.mark.parametrize("wrong", ["print", 3])
def test_what_is_no_function_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"on_event must be a function of one gs\.telemetry\.Event"):
        Log(PARAMS, on_event=wrong)
