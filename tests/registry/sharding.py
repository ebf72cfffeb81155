"""On a mesh: the mean over devices, and placement."""

import optax

import gradstable as gs
from tests.registry.entry import Case, Entry

FAMILY = "Recovery"

ENTRIES = [
    Entry(
        "sharding.average",
        FAMILY,
        source="Ours",
        promise="a broken gradient of one device is left out of the mean, and an outlier is named",
        weakness="if few devices are left, the mean is as noisy as that of a small batch",
        cases=[Case("average(adamw)", gs.sharding.average(gs.adamw(1e-3), "data"))],
        required={"inner": optax.sgd(0.1), "over": "data"},
    ),
]

OTHERS = (
    "sharding",
    "sharding.bytes_per_device",
    "sharding.replicas_agree",
    "sharding.spread",
    "sharding.state_shardings",
    "sharding.unequal_replicas",
)
