"""The guard, the bare link for rules, and all names outside the families."""

import optax

import gradstable as gs
from tests.registry.entry import Case, Entry, bind

FAMILY = "Guards"

# Promises that the inner optimizer itself breaks, and a wrapper cannot repair.
_INNER_PROMOTES = {"strict_promotion": "optax's own bias correction mixes floats and integers"}

ENTRIES = [
    Entry(
        "guard",
        FAMILY,
        source="Ours",
        promise="no gradient makes parameters or state non-finite; a rejected step changes no bit",
        weakness="it judges gradients, not losses: a run that has left its basin needs rollback",
        cases=[
            Case("guard(adamw)", gs.guard(optax.adamw(1e-3)), _INNER_PROMOTES),
            Case("guard(sgd, momentum)", gs.guard(optax.sgd(0.1, momentum=0.9))),
            Case(
                "guard(sgd, two rules)",
                gs.guard(optax.sgd(0.1), gs.rules.global_norm(1.0), gs.rules.log_mad()),
            ),
        ],
    ),
    Entry(
        "protect",
        FAMILY,
        source="Ours",
        promise="all wrappers for a run in the one order that is right, measured for all orders",
        weakness="as each of them; without options, those of the guard",
        cases=[
            Case("protect(adamw)", gs.protect(gs.moments.scale_by_adam())),
            Case(
                "protect(adamw, everything)",
                bind(
                    gs.protect(
                        optax.chain(gs.moments.scale_by_adam(), optax.scale(-1e-3)),
                        govern=True,
                        rollback=True,
                        backoff=True,
                        accumulate=2,
                        loss_scale=True,
                        kahan=True,
                    ),
                    value=1.0,
                ),
            ),
        ],
    ),
    Entry(
        "clipping.clip_by",
        FAMILY,
        source="Ours",
        promise="any rules as a link of a chain, with the finite check",
        weakness="later links get zeros for a rejected step: moments decay, counts advance",
        cases=[Case("clip_by()", gs.clipping.clip_by())],
    ),
    Entry(
        "rules.all_of",
        FAMILY,
        source="Ours",
        promise="several rules as one: the strictest decides, and no bad number enters a statistic",
        weakness="the scale of a step is the smallest of all, whichever rule is right",
        tested_by="guard(sgd, two rules)",
    ),
]

OTHERS = (
    "Autopsy",
    "Capture",
    "Captured",
    "Cause",
    "GuardState",
    "Health",
    "Measure",
    "RecurringGradients",
    "Replay",
    "Rescaled",
    "Spike",
    "TrainingDiverged",
    "Verdict",
    "autopsy",
    "capture",
    "check",
    "explain",
    "fingerprint",
    "global_norm",
    "health",
    "read_capture",
    "replay",
    "rescale_start",
    "rules",
    "rules.LogMadState",
    "rules.Reason",
    "rules.Rule",
    "rules.UnitNorms",
    "rules.UnitRequest",
    "rules.add_reason",
    "testing",
    "testing.CHECKS",
    "testing.MESH_CHECKS",
    "testing.assert_contract",
)
