"""Complete optimizers, guard included, composed from the other modules."""

from gradstable._src.recipes.adam import adam, adamw, nadam, nadamw
from gradstable._src.recipes.adam_8bit import adamw_8bit
from gradstable._src.recipes.adam_kin import adabelief, adamax, amsgrad, radam, yogi
from gradstable._src.recipes.classic import adadelta, adagrad, rmsprop, sgd
from gradstable._src.recipes.modern import adan, ademamix, adopt
from gradstable._src.recipes.muon import muon
from gradstable._src.recipes.recipe import recipe
from gradstable._src.recipes.schedule_free import (
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
)
from gradstable._src.recipes.signs import lion, sophia
from gradstable._src.recipes.stable_adamw import stable_adamw
from gradstable._src.recipes.trust import lamb, lars

__all__ = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adamw_8bit",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "lamb",
    "lars",
    "lion",
    "muon",
    "nadam",
    "nadamw",
    "radam",
    "recipe",
    "rmsprop",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "sgd",
    "sophia",
    "stable_adamw",
    "yogi",
]
