"""Assembled optimizers, guard included: composition only."""

from gradstable._src.recipes.adam import adam, adamw, nadam, nadamw
from gradstable._src.recipes.adam_kin import adamax, amsgrad, radam, yogi
from gradstable._src.recipes.ademamix import ademamix
from gradstable._src.recipes.belief import adabelief
from gradstable._src.recipes.classic import adadelta, adagrad, momentum, rmsprop, sgd
from gradstable._src.recipes.modern import adam_atan2, adan, adopt, laprop
from gradstable._src.recipes.muon import muon
from gradstable._src.recipes.schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
)
from gradstable._src.recipes.signs import lion, s3, sophia
from gradstable._src.recipes.spam import spam, stable_spam
from gradstable._src.recipes.stable_adamw import stable_adamw
from gradstable._src.recipes.trust import lamb, lars

__all__ = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adam_atan2",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "lamb",
    "laprop",
    "lars",
    "lion",
    "momentum",
    "muon",
    "nadam",
    "nadamw",
    "radam",
    "rmsprop",
    "s3",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "sgd",
    "sophia",
    "spam",
    "stable_adamw",
    "stable_spam",
    "yogi",
]
