"""Rules on the history of the global norm or of the loss, and the transforms made from them."""

import numpy as np

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, FRACTION, NOT_POSITIVE, Case, Entry, bind

FAMILY = "Rules on the history of norm or loss"

_POSITIVE = (*NOT_POSITIVE, np.inf)
_WINDOW = (0, 1, -3, 2.5, 128.0)
_PERCENTILE = {
    "family": FAMILY,
    "source": "Seetharaman 2020, arXiv:2007.14469",
    "promise": "no norm above a percentile of recent norms passes",
    "weakness": "a level shift is clipped to the old level for 900 steps (p = 10) or 100 (p = 90)",
    "numbers": {"percentile": (-1.0, 101.0, np.inf), "window": (0, -3, 2.5, 128.0)},
}
_ZSCORE = {
    "family": FAMILY,
    "source": "Kumar 2025, arXiv:2504.02507",
    "promise": "a spike is scaled to about the mean of the norms before it",
    "weakness": "locks in: without max_norm, a norm that doubles for good is clipped forever",
    "numbers": {
        "clip_at": _POSITIVE,
        "decay": DECAY,
        "max_norm": _POSITIVE,
        "clip_factor": _POSITIVE,
        "warmup_steps": (0, -3, 2.5),
        "eps": _POSITIVE,
    },
    "optional": frozenset({"max_norm"}),
}
_WINDOW_CLIP = {
    "family": FAMILY,
    "source": "Levanter 2025",
    "promise": "an update is at most three standard deviations above the mean of the last 128",
    "weakness": "a spike stays in the window: after one of 1000, 273 passes for 128 steps",
    "numbers": {"window": _WINDOW, "clip_at": _POSITIVE},
}
_WINDOW_SIGMA = {
    "family": FAMILY,
    "source": "OLMo-core 2024; MaxText",
    "promise": "a single spike of norm or loss is rejected, and no level is rejected forever",
    "weakness": "a spike stays in the window: of ten in a row, the fifth passes untouched",
    "numbers": {"window": _WINDOW, "reject_at": _POSITIVE},
}
_EMA_MULTIPLE = {
    "family": FAMILY,
    "source": "AXLearn 2023",
    "promise": "no norm of 20 times the mean passes; one that keeps coming back is clipped to it",
    "weakness": "knows no spread: without a limit, a spike of 19 times the mean passes untouched",
    "numbers": {
        "max_multiple": (1.0, *_POSITIVE),
        "max_norm": _POSITIVE,
        "decay": DECAY,
        "start": _POSITIVE,
    },
    "optional": frozenset({"max_norm", "start"}),
}
_LOSS_SPIKE = {
    "family": FAMILY,
    "source": "Ours",
    "promise": "a step whose loss is far above its range changes nothing, unless that comes back",
    "weakness": "no repair: a loss that stays high is finally accepted, with broken parameters",
    "numbers": {
        "reject_at": _POSITIVE,
        "rate": FRACTION,
        "min_spread": (*BELOW_ZERO, np.inf),
        "warmup_steps": (0, 1, -3, 2.5),
    },
}

ENTRIES = [
    Entry(
        "rules.percentile",
        cases=[
            Case("clip_by(percentile)", gs.clipping.clip_by(gs.rules.percentile(90.0, window=50)))
        ],
        **_PERCENTILE,
    ),
    Entry(
        "rules.zscore",
        cases=[Case("clip_by(zscore)", gs.clipping.clip_by(gs.rules.zscore(warmup_steps=2)))],
        **_ZSCORE,
    ),
    Entry(
        "rules.window_clip",
        cases=[Case("clip_by(window_clip)", gs.clipping.clip_by(gs.rules.window_clip(window=4)))],
        **_WINDOW_CLIP,
    ),
    Entry(
        "rules.window_sigma",
        cases=[
            Case(
                "clip_by(window_sigma)",
                bind(
                    gs.clipping.clip_by(gs.rules.window_sigma(window=4, judge_loss=True)), value=1.0
                ),
            )
        ],
        **_WINDOW_SIGMA,
    ),
    Entry(
        "rules.ema_multiple",
        cases=[
            Case("clip_by(ema_multiple)", gs.clipping.clip_by(gs.rules.ema_multiple(max_norm=1.0)))
        ],
        **_EMA_MULTIPLE,
    ),
    Entry(
        "rules.loss_spike",
        cases=[
            Case("clip_by(loss_spike)", bind(gs.clipping.clip_by(gs.rules.loss_spike()), value=1.0))
        ],
        **_LOSS_SPIKE,
    ),
]

OTHERS = (
    "rules.EmaMultipleState",
    "rules.LossSpikeState",
    "rules.Ring",
    "rules.WindowSigmaState",
    "rules.ZScoreState",
)
