"""A capture by two processes: each writes what it holds, and both parts are read as one."""

from pathlib import Path

import numpy as np

import gradstable as gs
from tests.processes.capturing import rows
from tests.processes.launch import Shape, launch


def test_each_process_writes_its_part_and_they_are_put_together(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with launch(folder, "capture", Shape(2, 2)) as running:
        results = running.results()
    names = [f"step-00000005-rejected-process-{process}" for process in range(2)]
    assert [one["folders"] for one in results] == [[names[0]], [names[1]]]
    assert [(one["verdict"], one["agree"]) for one in results] == [("same", True)] * 2
    for process, name in enumerate(names):
        found = gs.read_capture(folder / "captured" / name)
        assert np.array_equal(found.batch["x"], rows(), equal_nan=True)
        assert found.batch["process"] == process
        assert np.array_equal(found.params, np.ones(4))
        assert (found.exact, found.info["processes"]) == (True, 2)
