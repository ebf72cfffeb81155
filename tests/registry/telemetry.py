"""The recorder, and what reads and writes its records."""

import jax.numpy as jnp
import optax

import gradstable as gs
from tests.registry.entry import Case, Entry, bind
from tests.registry.guards import FAMILY

_PROMOTES = {"strict_promotion": "optax's own bias correction mixes floats and integers"}
_TAPPED = (lambda x: jnp.sum(gs.tap("hidden", x)), jnp.ones(3))

ENTRIES = [
    Entry(
        "record",
        FAMILY,
        source="Ours; RMS_t: Wortsman et al. 2023, 2304.13013",
        promise="every step is recorded, with early warnings and no extra pass over memory",
        weakness="the update ratio and RMS_t are estimates from one entry in 128 of large leaves",
        cases=[
            Case("record(guard(adamw))", gs.record(gs.guard(optax.adamw(1e-3))), _PROMOTES),
            Case(
                "record(guard(adamw), taps)",
                bind(
                    gs.record(gs.guard(optax.adamw(1e-3)), taps=gs.taps.shapes(*_TAPPED)),
                    taps=gs.taps.value_and_grad(_TAPPED[0])(_TAPPED[1])[1],
                ),
                _PROMOTES,
            ),
        ],
        numbers={
            "capacity": (0, -1, 1.5),
            "leaf_every": (0, -1, 1.5),
            "rms_limit": (1.0, 0.0, -1.0),
            "ratio_limit": (1.0, 0.0, -1.0),
        },
        required={"inner": optax.sgd(0.1)},
    ),
]

OTHERS = (
    "Watch",
    "telemetry",
    "telemetry.Alarm",
    "telemetry.Blame",
    "telemetry.Console",
    "telemetry.Event",
    "telemetry.Header",
    "telemetry.JsonLines",
    "telemetry.Log",
    "telemetry.Logging",
    "telemetry.MLflow",
    "telemetry.Note",
    "telemetry.RecordState",
    "telemetry.Rollback",
    "telemetry.Rows",
    "telemetry.Run",
    "telemetry.Scalars",
    "telemetry.Sink",
    "telemetry.TapRecord",
    "telemetry.TensorBoard",
    "telemetry.Trackio",
    "telemetry.WandB",
    "telemetry.blame",
    "telemetry.read_rows",
    "telemetry.read_run",
    "watch",
)
