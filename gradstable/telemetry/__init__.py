"""Record what happens while it happens; write it down; read it back."""

from gradstable.telemetry.blame import Blame, blame
from gradstable.telemetry.console import Console
from gradstable.telemetry.fields import Alarm
from gradstable.telemetry.json_lines import JsonLines
from gradstable.telemetry.log import Log
from gradstable.telemetry.logger import Logging
from gradstable.telemetry.record import record
from gradstable.telemetry.rows import Rows, read_rows
from gradstable.telemetry.run import Note, Run, Scalars, read_run
from gradstable.telemetry.sink import Header, Sink
from gradstable.telemetry.state import RecordState
from gradstable.telemetry.tensorboard import TensorBoard
from gradstable.telemetry.wandb import WandB

__all__ = [
    "Alarm",
    "Blame",
    "Console",
    "Header",
    "JsonLines",
    "Log",
    "Logging",
    "Note",
    "RecordState",
    "Rows",
    "Run",
    "Scalars",
    "Sink",
    "TensorBoard",
    "WandB",
    "blame",
    "read_rows",
    "read_run",
    "record",
]
