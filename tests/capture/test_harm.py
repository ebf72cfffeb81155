"""What a capture must not do to a run: raise, wait, move arrays, compile, or fill the disk."""

import contextlib
import errno
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.capture import folders as folders_module
from tests.capture.runs import (
    GUARDED,
    PARAMS,
    RECORDED,
    STEPS,
    UPDATE,
    batch_of,
    read_all,
    run,
    stepper,
)

ERRORS = (
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    MemoryError(),
    ValueError("odd"),
)


@contextlib.contextmanager
def told() -> Generator[list[str]]:
    """Yield a list of the warnings in a block, which is complete at its end."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += [str(one.message) for one in caught]


def test_a_run_that_is_rejected_forever_keeps_how_it_began(tmp_path: Path) -> None:
    with gs.capture(tmp_path, every=4, max_events=6) as capture:
        run(capture, steps=120, bad=tuple(range(30, 121)))
    assert list(read_all(capture)) == [30, 31, 32, 33]


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_limits_hold_and_the_oldest_makes_room(tmp_path: Path) -> None:
    bad = tuple(range(70, 900, 70))
    with gs.capture(tmp_path / "count", max_events=3) as capture:
        run(capture, steps=500, bad=bad)
    assert len(capture.folders) == 7
    kept = sorted(path.name for path in (tmp_path / "count").iterdir())
    assert kept == ["step-00000350-rejected", "step-00000420-rejected", "step-00000490-rejected"]
    limit = bytes_in(tmp_path / "count") * 2 // 3 + 20_000
    with gs.capture(tmp_path / "bytes", max_bytes=limit) as capture:
        run(capture, steps=500, bad=bad)
    assert len(capture.folders) == 7
    assert 1 <= len(list((tmp_path / "bytes").iterdir())) < 7
    assert bytes_in(tmp_path / "bytes") <= limit


def test_what_does_not_fit_is_left_out_and_named(tmp_path: Path) -> None:
    params = {"w": jnp.ones(3), "b": jnp.zeros((), jnp.bfloat16), "large": jnp.ones(100_000)}
    state = GUARDED.init(params)
    for limit, kept in ((2_000_000, True), (700_000, False)):
        with gs.capture(tmp_path / str(limit), max_bytes=limit, every=1) as capture:
            capture(state, 0)
            nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
            capture(UPDATE(nan, state, params)[1], batch_of(1), params=params)
        one = gs.read_capture(capture.folders[0])
        assert one.params["large"].shape == (100_000,)
        assert (one.opt_state is not None) == kept
        assert any("opt_state" in text for text in one.left_out) != kept
    with (
        told() as texts,
        gs.capture(tmp_path / "none", max_bytes=20_000, every=1) as capture,
    ):
        capture(state, 0)
        capture(UPDATE(nan, state, params)[1], np.ones(10_000))
    assert "more than max_bytes" in texts[0]
    assert not capture.folders


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_no_error_ends_the_run_and_there_is_one_warning(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folders_module._write_arrays
    broken = [True]

    def fails(file: Any, tree: Any) -> None:
        write(file, tree)
        if broken[0]:
            raise error

    monkeypatch.setattr(folders_module, "_write_arrays", fails)
    with told() as texts, gs.capture(tmp_path, every=1) as capture:
        _, state, _ = run(capture, steps=8, bad=(3, 5))
        assert not list(tmp_path.iterdir())
        broken[0] = False
        run(capture, steps=2, bad=(9,), state=state, first=9)
    assert [path.name for path in capture.folders] == ["step-00000009-rejected"]
    assert [("could not be written" in text) for text in texts] == [True, True]
    assert "2 captures could not be written" in texts[1]


def test_a_batch_that_was_donated_is_skipped_with_one_warning(tmp_path: Path) -> None:
    step = stepper(RECORDED, donate_argnums=(0, 1))
    params, state = jax.tree.map(jnp.copy, PARAMS), RECORDED.init(PARAMS)
    with (
        told() as texts,
        gs.capture(tmp_path, every=4) as capture,
    ):
        for number in range(1, 9):
            x = jnp.asarray(batch_of(number, bad=number in (3, 4, 7))["x"])
            params, state = step(params, state, x)
            if number in (3, 7):
                x.delete()
            capture(state, x, params=params)
    assert len(texts) == 1
    assert "donated" in texts[0]
    assert list(read_all(capture)) == [4]


def test_what_is_no_array_is_left_out_with_one_warning(tmp_path: Path) -> None:
    with (
        told() as texts,
        gs.capture(tmp_path, every=2) as capture,
    ):
        state = GUARDED.init(PARAMS)
        for _ in range(4):
            nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
            state = UPDATE(nan, state, PARAMS)[1]
            capture(state, {"x": np.ones(2), "open": print})
    assert len(texts) == 1
    assert "left out" in texts[0]
    one = gs.read_capture(capture.folders[0])
    assert one.left_out == ("batch['open'] (builtin_function_or_method)",)


def test_a_batch_that_is_no_longer_kept_is_told(tmp_path: Path) -> None:
    with gs.capture(tmp_path, every=4, keep=4) as capture:
        _, state, _ = run(capture, steps=4)
        for _ in range(6):  # steps that the capture does not see
            _, state = STEPS["recorded"](PARAMS, state, batch_of(5, bad=True)["x"])
        capture(state, batch_of(5), params=PARAMS)
    assert len(capture.folders) == 4
    assert gs.read_capture(capture.folders[0]).batch["name"] == "batch 5"


def test_healthy_steps_move_nothing_and_compile_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gs.capture(tmp_path, every=8) as capture:
        params, state, _ = run(capture, steps=8)
        x = jnp.asarray(batch_of(9)["x"])
        STEPS["recorded"](params, state, x)  # compiled for an array on the device
        fetched: list[int] = []
        get = jax.device_get
        compiled: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, duration, **_: compiled.append(event)
        )

        def fetch(tree: Any) -> Any:
            fetched.append(sum(leaf.size for leaf in jax.tree.leaves(tree)))
            return get(tree)

        monkeypatch.setattr(jax, "device_get", fetch)
        forbidden = property(lambda _: pytest.fail("an array was fetched"))
        kind = type(x)
        for step in range(9, 17):
            with jax.transfer_guard("disallow"):
                params, state = STEPS["recorded"](params, state, x)
                with monkeypatch.context() as patch:
                    if step < 16:
                        patch.setattr(kind, "_value", forbidden)
                    capture(state, {"x": x}, params=params)
            assert len(fetched) == (step == 16)
    assert not [event for event in compiled if "compile" in event]
    # The ring of the recorder and a few counters, and nothing like the parameters.
    assert fetched[0] < 32 * 12 + 300
    assert not capture.folders


def test_an_error_of_the_loop_is_not_hidden_and_the_rest_is_written(tmp_path: Path) -> None:
    def loop(capture: Any) -> None:
        with capture:
            run(capture, steps=4, bad=(3,))
            raise KeyError("of the loop")

    capture = gs.capture(tmp_path, every=10)
    with pytest.raises(KeyError, match="of the loop"):
        loop(capture)
    assert list(read_all(capture)) == [3]


def test_mistakes_are_named(tmp_path: Path) -> None:
    for options, match in (
        ({"every": 0}, "every"),
        ({"keep": 4, "every": 8}, "keep"),
        ({"clipped_below": 1.5}, "clipped_below"),
        ({"max_events": 0}, "max_events"),
        ({"max_bytes": 0}, "max_bytes"),
    ):
        with pytest.raises(ValueError, match=match):
            gs.capture(tmp_path, **options)
    with pytest.raises(ValueError, match="no guard, rollback, or recorder"):
        gs.capture(tmp_path)(optax.adam(1e-3).init(PARAMS), 1)
    with pytest.raises(ValueError, match=r"capacity of the recorder.*every=33, capacity=32"):
        gs.capture(tmp_path, every=33)(RECORDED.init(PARAMS), 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        gs.capture(tmp_path / "file")
