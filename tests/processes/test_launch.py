"""The launcher tells what happened, and leaves nothing behind."""

import socket
from pathlib import Path

import pytest

from tests.processes.launch import QUICK, ProcessFailed, Shape, environment, launch, reserved_port


def test_each_process_returns_its_result(tmp_path: Path) -> None:
    with launch(tmp_path / "here", "add", Shape(3, 1), arguments={"number": 5}) as three:
        assert three.results() == [5, 6, 7]


def test_a_failure_is_shown_and_ends_the_others(tmp_path: Path) -> None:
    with launch(tmp_path / "here", "fail", Shape(2, 1)) as two:
        with pytest.raises(ProcessFailed, match="RuntimeError: a fault on purpose"):
            two.results()
        assert two.codes() == [-9, 1]


def test_what_does_not_end_is_ended_when_the_time_is_over(tmp_path: Path) -> None:
    with launch(tmp_path / "here", "wait", Shape(2, 1)) as two:
        with pytest.raises(ProcessFailed, match="exit codes \\[None, None\\]"):
            two.results(timeout=0.0)
        assert two.codes() == [-9, -9]
    with launch(tmp_path / "there", "wait", Shape(1, 1)) as one:
        with pytest.raises(ProcessFailed, match="still running"):
            one.codes(timeout=0.0)
        assert one.codes() == [-9]


def test_a_test_that_breaks_off_leaves_no_process_behind(tmp_path: Path) -> None:
    seen = []

    def break_off() -> None:
        with launch(tmp_path / "here", "wait", Shape(2, 1)) as two:
            seen.append(two)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert seen[0].codes(timeout=0.0) == [-9, -9]


def test_workers_have_the_flags_of_their_parent_but_not_its_devices_and_job() -> None:
    parent = {
        "PATH": "/bin",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=false",
        "JAX_NUM_CPU_DEVICES": "8",
        "JAX_COORDINATOR_ADDRESS": "elsewhere:1",
        "SLURM_PROCID": "3",
        "HTTPS_PROXY": "elsewhere:2",
    }
    given = environment(parent)
    assert given["XLA_FLAGS"].split() == ["--xla_cpu_enable_fast_math=false", *QUICK]
    assert set(given) == {"PATH", "PYTHONPATH", "JAX_PLATFORMS", "XLA_FLAGS"}


def test_a_port_is_nobody_elses_while_it_is_reserved() -> None:
    with reserved_port() as port, reserved_port() as other, socket.socket() as third:
        assert port != other
        with pytest.raises(OSError, match="in use"):
            third.bind(("localhost", port))
