"""Optimizers without protection."""

import optax

from gradstable_gauntlet.contestant import Contestant, Schedule


def sgd(schedule: Schedule) -> optax.GradientTransformation:
    """Return SGD with momentum."""
    return optax.sgd(schedule, momentum=0.9)


def adam(schedule: Schedule) -> optax.GradientTransformation:
    """Return Adam with its published decays."""
    return optax.adam(schedule, b1=0.9, b2=0.999)


def adamw(schedule: Schedule) -> optax.GradientTransformation:
    """Return AdamW with the decays of most language models, which the others build on."""
    return optax.adamw(schedule, b1=0.9, b2=0.95)


def lion(schedule: Schedule) -> optax.GradientTransformation:
    """Return Lion."""
    return optax.lion(schedule)


def muon(schedule: Schedule) -> optax.GradientTransformation:
    """Return Muon for matrices, and Adam for everything else."""
    return optax.contrib.muon(schedule)


BARE = {
    "sgd": Contestant(sgd, "optax.sgd, momentum 0.9", base="sgd"),
    "adam": Contestant(adam, "optax.adam, decays 0.9 and 0.999", base="adam"),
    "adamw": Contestant(adamw, "optax.adamw, decays 0.9 and 0.95", base="adamw"),
    "lion": Contestant(lion, "optax.lion", base="lion"),
    "muon": Contestant(muon, "optax.contrib.muon; Adam for all but matrices", base="muon"),
}
