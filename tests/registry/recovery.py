"""Wrappers that keep a run going or bring it back."""

import optax

import gradstable as gs
from tests.registry.entry import FRACTION, NOT_POSITIVE, Case, Entry, bind

FAMILY = "Recovery"

_ADAMW = gs.adamw(1e-3)  # under a guard, like all recipes
_POSITIVE = (0, -1, 1.5)

ENTRIES = [
    Entry(
        "accumulate",
        FAMILY,
        source="Ours; optax.MultiSteps for the interface",
        promise="a bad micro-batch is left out, and the mean is that of the others",
        weakness="if few of a group are left, the mean is as noisy as that of a small batch",
        cases=[Case("accumulate(adamw)", gs.accumulate(gs.adamw(1e-3), 3))],
        numbers={"every": (0, -1, 1.5)},
        required={"inner": optax.sgd(0.1), "every": 2},
    ),
    Entry(
        "rollback",
        FAMILY,
        source="Ours",
        promise="a run that left its basin is rolled back to its last good parameters, bit for bit",
        weakness="it follows a loss that creeps up, and a copy can be taken just before it rises",
        cases=[Case("rollback(adamw)", bind(gs.rollback(_ADAMW), value=1.0))],
        numbers={
            "every": _POSITIVE,
            "patience": _POSITIVE,
            "rejections": _POSITIVE,
            "copies": _POSITIVE,
            "max_restores": _POSITIVE,
        },
        required={"inner": _ADAMW},
    ),
    Entry(
        "backoff",
        FAMILY,
        source="Ours, after the outlier timeout of AdaLR-Lion (llm-foundry)",
        promise="steps are smaller for a while after rejections and rollbacks, never for good",
        weakness="trouble more often than every 50 steps adds up to the smallest factor",
        cases=[Case("backoff(adamw)", gs.backoff(_ADAMW))],
        numbers={
            "factor": FRACTION,
            "after": (0, -1),
            "rollback_factor": (0.0, -0.1, 1.5),
            "recovery": NOT_POSITIVE,
            "min_scale": (0.0, -0.1, 1.5),
        },
        required={"inner": _ADAMW},
    ),
    Entry(
        "govern",
        FAMILY,
        source="Ours; the gradient test of O'Donoghue, Candes 2012, 1204.3982",
        promise="steps that go too far are shortened, and none outgrows those before by much",
        weakness="parameters that are all zero at the start say nothing about the size of a step",
        cases=[Case("govern(adamw)", gs.govern(_ADAMW))],
        numbers={"start": NOT_POSITIVE, "growth": NOT_POSITIVE, "large": NOT_POSITIVE},
        required={"inner": _ADAMW},
    ),
    Entry(
        "recovery.moment_hygiene",
        FAMILY,
        source="Ours; the reset after SPAM, Huang et al. 2025, 2501.06842",
        promise="moments outdated by a run of rejections do not steer the next step",
        weakness="moments are found by the names of their fields in optax and in this package",
        cases=[Case("moment_hygiene(adamw)", gs.recovery.moment_hygiene(_ADAMW))],
        numbers={"damp": (-0.1, 1.1), "damp_after": _POSITIVE, "reset_after": _POSITIVE},
        required={"inner": _ADAMW},
    ),
]

OTHERS = (
    "checkpoints",
    "recovery",
    "recovery.AccumulateState",
    "recovery.BackoffState",
    "recovery.MomentHygieneState",
    "recovery.RollbackState",
    "checkpoints.check_schema",
    "has_updated",
    "recovery.last_good",
    "checkpoints.migrate_state",
    "recovery.restored",
    "checkpoints.state_schema",
    "checkpoints.upgrade_state",
)
