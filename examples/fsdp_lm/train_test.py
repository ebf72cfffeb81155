"""The example trains on split parameters, survives a bad host, and resumes where it was."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from examples.fsdp_lm import input_pipeline, placement
from examples.fsdp_lm.configs.default import Config
from examples.fsdp_lm.launch import Launch, start
from examples.fsdp_lm.train import make_model, make_tx

ROOT = Path(__file__).parents[2]
TINY = shlex.split(
    "--features 64 --heads 2 --layers 1 --context 16 --batch-size 16 --held-out 0.01 "
    "--steps 20 --log-every 10 --save-every 10 --fault bad-host --fault-at 8"
)
LAST_LOSS = r"step 20: loss (\S+)"
HELD_OUT = r"held-out bits per character: (\S+)"
TIMEOUT = 240  # seconds; an otherwise idle machine needs a tenth


def start_main(log: Path, *options: object) -> subprocess.Popen[bytes]:
    """Start the example in its own process: a process cannot change its number of devices."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # A resumed run need not compile again.
        "JAX_COMPILATION_CACHE_DIR": str(log.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "examples.fsdp_lm.main", *TINY, *map(str, options)]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=ROOT)


def finish(*processes: tuple[subprocess.Popen[bytes], Path]) -> list[str]:
    """Return the output of the processes, and leave none behind."""
    try:
        codes = [process.wait(TIMEOUT) for process, _ in processes]
    finally:
        for process, _ in processes:
            process.kill()
            process.wait()
    said = [log.read_text() for _, log in processes]
    assert not any(codes), "\n".join(said)
    return said


def run(folder: Path, name: str, *options: object) -> str:
    log = folder / f"{name}.log"
    return finish((start_main(log, "--workdir", folder / "run", *options), log))[0]


def found(pattern: str, said: str) -> str:
    """Return the only group of a pattern, which must match exactly once."""
    (group,) = re.findall(pattern, said)
    return group


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp_lm")


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    return run(folder, "first", "--devices", 8, "--fsdp", 4)


def test_all_devices_reject_what_one_has_received(said: str) -> None:
    assert re.findall(r"step (\d+): rejected, (\w+)", said) == [("8", "NONFINITE")]
    assert "20 steps: 19 accepted" in said
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", said)]
    assert np.isfinite(losses).all()
    assert losses[-1] < np.log(input_pipeline.VOCABULARY)


def test_each_device_holds_a_quarter(said: str) -> None:
    assert "8 devices: data 2 x fsdp 4" in said
    for name in ("parameters", "state"):
        part, whole = re.findall(rf"{name}: (\d+) bytes on each device, of (\d+)", said)[0]
        assert int(whole) / 4 <= int(part) < 1.05 * int(whole) / 4


def test_a_run_that_is_resumed_ends_with_the_same_bits(folder: Path, said: str) -> None:
    shutil.rmtree(folder / "run" / "checkpoints" / "20")
    resumed = run(folder, "resumed", "--devices", 8, "--fsdp", 4, "--resume")
    assert re.findall(r"step (\d+): loss", resumed) == ["20"]
    fingerprint = r"fingerprint of parameters and state: (\w+)"
    assert found(fingerprint, resumed) == found(fingerprint, said)


@pytest.mark.slow
def test_both_processes_reject_what_one_has_read(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    options = ("--devices", 2, "--num-processes", 2, "--coordinator", address)
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    workdir = ("--workdir", tmp_path / "run")
    processes = [
        (start_main(log, *options, *workdir, "--process-id", i), log) for i, log in enumerate(logs)
    ]
    both = finish(*processes)
    for said in both:
        assert "4 devices: data 1 x fsdp 4" in said
        assert re.findall(r"step (\d+): rejected, (\w+)", said) == [("8", "NONFINITE")]
        assert found(LAST_LOSS, said) == found(LAST_LOSS, both[0])
        assert found(HELD_OUT, said) == found(HELD_OUT, both[0])
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "20")
    alone = run(tmp_path, "alone", "--devices", 1, "--resume")
    assert "1 devices" in alone
    for number in (LAST_LOSS, HELD_OUT):
        assert float(found(number, alone)) == pytest.approx(float(found(number, both[0])), rel=1e-3)


def test_pieces_are_the_same_for_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(100, dtype=np.int32)

    def pieces(processes: int, step: int) -> list[int]:
        firsts = []
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        for process in range(processes):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            stream = input_pipeline.batches(tokens, context=4, batch_size=12, seed=0)
            stream.set_state({"next_index": step})
            firsts += next(stream).tokens[:, 0].tolist()
        return sorted(firsts)

    assert pieces(1, 0) == pieces(2, 0) == pieces(4, 0)
    assert pieces(1, 9) == pieces(3, 9)
    assert pieces(1, 0) != pieces(1, 9)


def test_a_piece_is_followed_by_its_targets() -> None:
    tokens = np.arange(100, dtype=np.int32)
    batch = next(input_pipeline.batches(tokens, context=4, batch_size=8, seed=0))
    assert batch.tokens.shape == batch.targets.shape == (8, 4)
    assert np.array_equal(batch.tokens + 1, batch.targets)
    side_by_side = list(input_pipeline.whole(tokens, context=4, batch_size=8))
    assert [each.tokens[0, 0] for each in side_by_side] == [0, 32, 64]


def test_only_the_first_process_is_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(100, dtype=np.int32)
    batch = next(input_pipeline.batches(tokens, context=4, batch_size=8, seed=0))
    spoilt = input_pipeline.spoil(batch, step=5, at=5, rows=2)
    assert np.isnan(spoilt.weights).tolist() == 2 * [True] + 6 * [False]
    assert np.isfinite(batch.weights).all()
    assert input_pipeline.spoil(batch, step=4, at=5, rows=2) is batch
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert input_pipeline.spoil(batch, step=5, at=5, rows=2) is batch


def test_moments_lie_where_their_parameters_do() -> None:
    config = Config()
    shapes = nnx.state(nnx.eval_shape(lambda: make_model(config)), nnx.Param)
    mesh = jax.sharding.AbstractMesh((2, 4), placement.AXES)
    placed = placement.place(make_tx(config), shapes, mesh=mesh)
    (kernel,) = jax.tree.leaves(placed.params["blocks"][0]["feed"]["widen"])
    assert kernel.shard_shape((128, 768)) == (128, 192)
    for moment in ("mu", "nu"):
        (parts,) = optax.tree.get_all_with_path(placed.opt_state, moment)
        assert jax.tree.leaves(parts[1]) == jax.tree.leaves(placed.params)


def test_no_character_sees_those_after_it() -> None:
    model, tokens = make_model(Config(features=8, heads=2, layers=1)), jnp.arange(16)[None]
    read = nnx.jit(type(model).__call__)
    changed = read(model, tokens.at[0, 8].set(50)) != read(model, tokens)
    assert not changed[0, :8].any()
    assert changed[0, 8:].any(axis=-1).all()


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="needs --num-processes"):
        start(Launch(coordinator="localhost:1"))
    with pytest.raises(ValueError, match="--fsdp must divide"):
        placement.make_mesh(jax.device_count() + 1)
