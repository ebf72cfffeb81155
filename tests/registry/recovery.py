"""What keeps a run going or brings it back."""

import optax

import gradstable as gs
from tests.registry.entry import Case, Entry

FAMILY = "Recovery"

ENTRIES = [
    Entry(
        "accumulate",
        FAMILY,
        source="Ours; optax.MultiSteps for the interface",
        promise="a bad micro-batch is left out, and the mean is that of the others",
        weakness="with few of a group left, the mean is as noisy as that of a small batch",
        cases=[Case("accumulate(adamw)", gs.accumulate(gs.adamw(1e-3), 3))],
        numbers={"every": (0, -1, 1.5)},
        required={"inner": optax.sgd(0.1), "every": 2},
    ),
]

OTHERS = ("check_schema", "migrate_state", "state_schema")
