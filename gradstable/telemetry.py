"""Record a run as it happens, write it to a log, and read it back."""

from gradstable._src.telemetry.blame import Blame, blame
from gradstable._src.telemetry.console import Console
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.fields import Alarm
from gradstable._src.telemetry.json_lines import JsonLines
from gradstable._src.telemetry.log import Log
from gradstable._src.telemetry.logger import Logging
from gradstable._src.telemetry.mlflow import MLflow
from gradstable._src.telemetry.record import record
from gradstable._src.telemetry.rows import Rows, read_rows
from gradstable._src.telemetry.run import Note, Run, Scalars, read_run
from gradstable._src.telemetry.sink import Header, Rollback, Sink
from gradstable._src.telemetry.state import RecordState
from gradstable._src.telemetry.tap_columns import TapRecord
from gradstable._src.telemetry.tensorboard import TensorBoard
from gradstable._src.telemetry.trackio import Trackio
from gradstable._src.telemetry.wandb import WandB

__all__ = [
    "Alarm",
    "Blame",
    "Console",
    "Event",
    "Header",
    "JsonLines",
    "Log",
    "Logging",
    "MLflow",
    "Note",
    "RecordState",
    "Rollback",
    "Rows",
    "Run",
    "Scalars",
    "Sink",
    "TapRecord",
    "TensorBoard",
    "Trackio",
    "WandB",
    "blame",
    "read_rows",
    "read_run",
    "record",
]
