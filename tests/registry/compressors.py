"""Transforms that work on every entry separately: soft clips, and noise."""

import numpy as np

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, NOT_POSITIVE, Case, Entry

FAMILY = "Entry by entry"

ENTRIES = [
    Entry(
        "clipping.soft_clip",
        FAMILY,
        source="heavyball 3.2.1",
        promise="entries are within 1 (tanh) or 2 (softsign, trust_region) times the scale",
        weakness="mu_law has no bound, and makes entries far below the scale 26 times larger",
        cases=[Case("soft_clip(mu_law)", gs.clipping.soft_clip("mu_law"))],
        numbers={"scale": NOT_POSITIVE},
        required={"kind": "tanh"},
    ),
    Entry(
        "clipping.add_noise",
        FAMILY,
        source="Neelakantan 2015, arXiv:1511.06807",
        promise="noise in float32, none for non-finite entries; its key goes into checkpoints",
        weakness="it stabilizes nothing: it only makes the gradient larger",
        cases=[Case("add_noise", gs.clipping.add_noise(0.01))],
        numbers={"eta": BELOW_ZERO, "gamma": BELOW_ZERO, "key": (-1, 0.5, np.inf)},
        required={"eta": 0.01},
    ),
]
