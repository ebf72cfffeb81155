"""The protections of gradstable."""

import optax

import gradstable as gs
from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.contestants import bare


def guard_adamw(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded AdamW."""
    return gs.guard(bare.adamw(schedule))


def guard_sgd(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded SGD with momentum."""
    return gs.guard(bare.sgd(schedule))


def guard_adam(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded Adam."""
    return gs.guard(bare.adam(schedule))


def guard_lion(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded Lion."""
    return gs.guard(bare.lion(schedule))


def guard_muon(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded Muon."""
    return gs.guard(bare.muon(schedule))


def two_sided(schedule: Schedule) -> optax.GradientTransformation:
    """Return AdamW guarded before the moments, and capped after them."""
    return gs.stable_adamw(schedule)


def governed(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded AdamW with steps in a trust region."""
    return gs.govern(guard_adamw(schedule))


def governed_two_sided(schedule: Schedule) -> optax.GradientTransformation:
    """Return the two-sided AdamW with steps in a trust region."""
    return gs.govern(two_sided(schedule))


def with_recovery(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded AdamW that rolls back to its last good parameters."""
    return gs.rollback(guard_adamw(schedule))


def with_backoff(schedule: Schedule) -> optax.GradientTransformation:
    """Return guarded AdamW that rolls back to its last good parameters and continues slowly."""
    return gs.backoff(with_recovery(schedule))


OURS = {
    "gs.guard(adamw)": Contestant(guard_adamw, "gs.guard around AdamW", base="adamw", ours=True),
    "gs.stable_adamw": Contestant(
        two_sided, "gs.stable_adamw: guarded, and capped after the moments", "adamw", ours=True
    ),
    "gs.govern(gs.guard(adamw))": Contestant(
        governed, "gs.govern around gs.guard around AdamW", base="adamw", ours=True
    ),
    "gs.govern(gs.stable_adamw)": Contestant(
        governed_two_sided, "gs.govern around gs.stable_adamw", base="adamw", ours=True
    ),
    "gs.rollback(gs.guard(adamw))": Contestant(
        with_recovery, "gs.rollback around gs.guard around AdamW", base="adamw", ours=True
    ),
    "gs.backoff(gs.rollback(gs.guard(adamw)))": Contestant(
        with_backoff, "gs.backoff around the same", base="adamw", ours=True
    ),
    "gs.guard(sgd)": Contestant(guard_sgd, "gs.guard around SGD", base="sgd", ours=True),
    "gs.guard(adam)": Contestant(guard_adam, "gs.guard around Adam", base="adam", ours=True),
    "gs.guard(lion)": Contestant(guard_lion, "gs.guard around Lion", base="lion", ours=True),
    "gs.guard(muon)": Contestant(guard_muon, "gs.guard around Muon", base="muon", ours=True),
}
