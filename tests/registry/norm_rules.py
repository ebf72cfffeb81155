"""Rules on the global norm, and the clips made from them."""

import gradstable as gs
from tests.registry.entry import FRACTION, NOT_POSITIVE, Case, Entry

FAMILY = "Rules on the global norm"

_LOG_MAD = {
    "clip_at": NOT_POSITIVE,
    "reject_at": NOT_POSITIVE,
    "reject_above": (0.5, 0.0, -1.0),
    "rate": FRACTION,
    "min_spread": NOT_POSITIVE,
    "max_spread": NOT_POSITIVE,
}
_GLOBAL = {
    "family": FAMILY,
    "source": "Pascanu 2013, arXiv:1211.5063",
    "promise": "the norm is at most the limit; there is no memory that could be poisoned",
    "weakness": "the limit is absolute, and a clipped spike keeps its direction",
    "numbers": {"max_norm": NOT_POSITIVE},
    "required": {"max_norm": 1.0},
}
_ROBUST = {
    "family": FAMILY,
    "source": "Ours",
    "promise": "rejects spikes of any size in under 30 % of steps; accepts lasting level shifts",
    "weakness": "norms that scatter by more than a factor of 2 are clipped in over 1 % of steps",
    "numbers": _LOG_MAD,
}

ENTRIES = [
    Entry("rules.global_norm", tested_by="clip_by_global_norm", **_GLOBAL),
    Entry(
        "clipping.clip_by_global_norm",
        cases=[Case("clip_by_global_norm", gs.clipping.clip_by_global_norm(1.0))],
        **_GLOBAL,
    ),
    Entry(
        "rules.log_mad",
        cases=[Case("clip_by(log_mad)", gs.clipping.clip_by(gs.rules.log_mad()))],
        **_ROBUST,
    ),
]

OTHERS = ("clipping", "clipping.JudgedState")
