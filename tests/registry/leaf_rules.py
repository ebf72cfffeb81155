"""Rules for leaves, units and groups, and clips of single entries."""

import numpy as np

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, NOT_POSITIVE, Case, Entry

FAMILY = "Rules for leaves, units and groups"

_INFINITE = (*NOT_POSITIVE, np.inf)
_BLOCK_NORM = {
    "family": FAMILY,
    "source": "Common practice",
    "promise": "a leaf or layer that explodes is clipped to its limit; the others keep their size",
    "weakness": "the direction changes; layers stacked in one leaf share a limit by default",
    "numbers": {"max_norm": _INFINITE},
    "required": {"max_norm": 1.0},
}
_BLOCK_RMS = {
    "family": FAMILY,
    "source": "Shazeer 2018, arXiv:1804.04235",
    "promise": "the root mean square of an update is at most the limit in every leaf",
    "weakness": "a single entry of a leaf with n entries passes at up to sqrt(n) times the limit",
    "numbers": {"max_rms": _INFINITE},
    "required": {"max_rms": 1.0},
}
_UNIT_NORM = {
    "family": FAMILY,
    "source": "Brock 2021, arXiv:2102.06171",
    "promise": "no output row gets a gradient above 1 % of the norm of its weights",
    "weakness": "weights that start at zero move by 1e-5 per step; with L2 decay it can collapse",
    "numbers": {"max_ratio": _INFINITE, "eps": _INFINITE},
}
_ADAGC = {
    "family": FAMILY,
    "source": "Wang 2025, arXiv:2502.11034",
    "promise": "the norm of a leaf rises by at most 0.04 % per step, whatever the gradient",
    "weakness": "clips 49 to 82 % of healthy steps; a norm that triples passes after 2650 steps",
    "numbers": {
        "max_multiple": (0.9, 0.0, -1.0, np.inf),
        "decay": DECAY,
        "max_norm": _INFINITE,
        "warmup_steps": BELOW_ZERO,
    },
}
_GROUP_NORM = {
    "family": FAMILY,
    "source": "Li 2026, arXiv:2601.11864",
    "promise": "every group of modules is scaled by its own history, by at most 10 %",
    "weakness": "no guard against spikes: one of 1000 passes at 900; scales 97 % of healthy steps",
    "numbers": {
        "high": _INFINITE,
        "low": BELOW_ZERO,
        "late_high": _INFINITE,
        "late_low": BELOW_ZERO,
        "total_steps": (0, -1),
        "switch": (-0.1, 1.1),
        "transition": (0.0, -0.1, 1.1),
        "decay": DECAY,
        "min_norm": BELOW_ZERO,
        "min_scale": (-0.1, 1.1),
        "max_scale": (0.9, -1.0),
    },
    "optional": frozenset({"total_steps"}),
}
_STABILIZER = {
    "family": FAMILY,
    "source": "Huang 2025, arXiv:2502.17055",
    "promise": "a spike of any size makes a step of at most 15.8 times the usual norm",
    "weakness": "a spike of 1000 makes a step of 12.7, followed by 2300 steps below a tenth",
    "numbers": {"b1": DECAY, "b2": DECAY, "eps": BELOW_ZERO},
}

ENTRIES = [
    Entry(
        "rules.block_norm",
        cases=[
            Case("clip_by(block_norm)", gs.clipping.clip_by(gs.rules.block_norm(0.5, units="flax")))
        ],
        **_BLOCK_NORM,
    ),
    Entry(
        "rules.block_rms",
        cases=[Case("clip_by(block_rms)", gs.clipping.clip_by(gs.rules.block_rms(0.5)))],
        **_BLOCK_RMS,
    ),
    Entry(
        "rules.unit_norm",
        cases=[Case("clip_by(unit_norm)", gs.clipping.clip_by(gs.rules.unit_norm()))],
        **_UNIT_NORM,
    ),
    Entry(
        "rules.adagc",
        cases=[Case("clip_by(adagc)", gs.clipping.clip_by(gs.rules.adagc(warmup_steps=2)))],
        **_ADAGC,
    ),
    Entry(
        "rules.group_norm",
        cases=[
            Case(
                "clip_by(group_norm)",
                gs.clipping.clip_by(gs.rules.group_norm(raise_small=True, total_steps=10)),
            )
        ],
        **_GROUP_NORM,
    ),
    Entry(
        "rules.gradient_stabilizer",
        cases=[
            Case(
                "clip_by(gradient_stabilizer)", gs.clipping.clip_by(gs.rules.gradient_stabilizer())
            )
        ],
        **_STABILIZER,
    ),
    Entry(
        "clipping.clip_by_value",
        FAMILY,
        source="Mikolov 2012",
        promise="no entry is larger than the limit, and a NaN becomes zero",
        weakness="the direction changes, and the norm can still be the limit times sqrt(n)",
        cases=[Case("clip_by_value", gs.clipping.clip_by_value(1.0))],
        numbers={"max_value": _INFINITE},
        required={"max_value": 1.0},
    ),
    Entry(
        "clipping.clip_by_clippy",
        FAMILY,
        source="Tang 2023, arXiv:2302.09178",
        promise="no weight changes by more than 10 % of itself in one step",
        weakness="the smallest weight holds back its leaf: 256 x 256 moves at 1.4e-4 of its speed",
        cases=[Case("clip_by_clippy", gs.clipping.clip_by_clippy())],
        numbers={"relative": BELOW_ZERO, "absolute": BELOW_ZERO},
    ),
]

OTHERS = ("rules.AdagcState", "rules.GradientStabilizerState", "rules.GroupNormState")
