"""Step sizes that follow the run's health: caps, trust ratios, additions to schedules."""

import numpy as np

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, FRACTION, NOT_POSITIVE, Case, Entry, bind

FAMILY = "Step size"

ENTRIES = [
    Entry(
        "rate.cap_update_rms",
        FAMILY,
        source="Shazeer 2018, arXiv:1804.04235",
        promise="no leaf's update has an RMS above the limit, whatever became of the gradient",
        weakness="a single entry can still move by max_rms * sqrt(n)",
        cases=[Case("cap_update_rms", gs.rate.cap_update_rms())],
        numbers={"max_rms": NOT_POSITIVE},
    ),
    Entry(
        "rate.cap_trust",
        FAMILY,
        source="Ours",
        promise="the largest RMS of a leaf grows by at most 1 + max_ratio per step",
        weakness="a leaf that starts at zero needs 35 steps to reach the RMS of the others",
        cases=[Case("cap_trust(layer)", gs.rate.cap_trust(units="layer"))],
        numbers={
            "max_ratio": NOT_POSITIVE,
            "floor": (*NOT_POSITIVE, np.inf),
            "relative_floor": (-1.0, 1.5),
        },
    ),
    Entry(
        "rate.scale_by_trust_ratio",
        FAMILY,
        source="You 2019, arXiv:1904.00962",
        promise="the norm of every step is the rate times that of its parameters",
        weakness="it makes noise as large as signal, which trust_clip prevents",
        cases=[Case("scale_by_trust_ratio", gs.rate.scale_by_trust_ratio())],
        numbers={
            "min_norm": BELOW_ZERO,
            "trust_coefficient": NOT_POSITIVE,
            "eps": BELOW_ZERO,
        },
    ),
    Entry(
        "rate.backoff_on_spike",
        FAMILY,
        source="Ours, after AdaLR-Lion",
        promise="smaller steps after a spike, back to full length 100 steps after the last one",
        weakness="frequent spikes of new sizes add up; it does not remove them",
        cases=[Case("backoff_on_spike", gs.rate.backoff_on_spike())],
        numbers={
            "factor": FRACTION,
            "recovery": (*NOT_POSITIVE, np.inf),
            "min_scale": (*NOT_POSITIVE, 1.5),
        },
    ),
    Entry(
        "rate.reduce_on_plateau",
        FAMILY,
        source="torch.optim.lr_scheduler.ReduceLROnPlateau",
        promise="ignores losses that are not finite, spike, or belong to a rejected step",
        weakness="the scale never rises; losses that are not positive are not checked for spikes",
        cases=[Case("reduce_on_plateau", bind(gs.rate.reduce_on_plateau(), value=1.0))],
        numbers={
            "factor": FRACTION,
            "patience": (0, -1, np.inf),
            "rtol": (-1.0, 1.5),
            "atol": (-1.0, np.inf),
            "cooldown": (-1, np.inf),
            "accumulation_size": (0, -1, 2.5, np.inf),
            "min_scale": (-1.0, 1.5),
        },
    ),
    Entry(
        "rate.limit_schedule",
        FAMILY,
        source="Ours",
        promise="a learning rate stays within bounds and rises by at most a factor per step",
        weakness="it evaluates the schedule at 97 past steps in each call, for a range of 10 000",
        numbers={
            "schedule": (-1e-3, np.inf),
            "min_value": (*NOT_POSITIVE, np.inf),
            "max_value": (*NOT_POSITIVE, np.inf),
            "max_growth": (1.0, 0.5, 1.0001),
        },
        required={"schedule": 1e-3, "min_value": 1e-5, "max_value": 1.0},
    ),
]

OTHERS = ("rate", "rate.GovernState")
