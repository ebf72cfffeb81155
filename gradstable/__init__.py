"""gradstable: training that does not blow up.

Composable gradient transforms for JAX that chain like optax's. This one line::

    tx = gradstable.guard(optax.adamw(3e-4))

gives you a run that survives, at almost no cost, and that can say what happened.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from gradstable import (
    centering,
    checkpoints,
    clipping,
    losses,
    moments,
    precision,
    rate,
    recipes,
    recovery,
    rules,
    sharding,
    taps,
    telemetry,
)
from gradstable._src.autopsy.autopsy import autopsy
from gradstable._src.autopsy.result import Autopsy, Cause, Spike
from gradstable._src.capture.capture import Capture, capture
from gradstable._src.capture.read import Captured, read_capture
from gradstable._src.core.norms import global_norm
from gradstable._src.core.types import Health, Measure, Verdict
from gradstable._src.guard import GuardState, guard
from gradstable._src.health.check import RecurringGradients, TrainingDiverged, check
from gradstable._src.health.explain import explain
from gradstable._src.health.read import health
from gradstable._src.health.updated import has_updated
from gradstable._src.precision.loss_scale import loss_scale, scale_loss, unscale
from gradstable._src.rate.govern import govern
from gradstable._src.recipes.adam import adam, adamw, nadam, nadamw
from gradstable._src.recipes.adam_8bit import adamw_8bit
from gradstable._src.recipes.adam_kin import adabelief, adamax, amsgrad, radam, yogi
from gradstable._src.recipes.classic import adadelta, adagrad, rmsprop, sgd
from gradstable._src.recipes.modern import adan
from gradstable._src.recipes.muon import muon
from gradstable._src.recipes.protect import protect
from gradstable._src.recipes.recipe import recipe
from gradstable._src.recipes.signs import lion
from gradstable._src.recipes.stable_adamw import stable_adamw
from gradstable._src.recipes.trust import lamb, lars
from gradstable._src.recovery.accumulate import accumulate
from gradstable._src.recovery.backoff import backoff
from gradstable._src.recovery.rollback import rollback
from gradstable._src.replay.fingerprint import fingerprint
from gradstable._src.replay.replay import Replay, replay
from gradstable._src.start.rescale import Rescaled, rescale_start
from gradstable._src.taps.tap import tap
from gradstable._src.telemetry.record import record
from gradstable._src.watch.watch import Watch, watch

if TYPE_CHECKING:
    from gradstable import testing

try:
    __version__ = importlib.metadata.version("gradstable")
except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

__all__ = [
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
    "Watch",
    "accumulate",
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adamw_8bit",
    "adan",
    "amsgrad",
    "autopsy",
    "backoff",
    "capture",
    "centering",
    "check",
    "checkpoints",
    "clipping",
    "explain",
    "fingerprint",
    "global_norm",
    "govern",
    "guard",
    "has_updated",
    "health",
    "lamb",
    "lars",
    "lion",
    "loss_scale",
    "losses",
    "moments",
    "muon",
    "nadam",
    "nadamw",
    "precision",
    "protect",
    "radam",
    "rate",
    "read_capture",
    "recipe",
    "recipes",
    "record",
    "recovery",
    "replay",
    "rescale_start",
    "rmsprop",
    "rollback",
    "rules",
    "scale_loss",
    "sgd",
    "sharding",
    "stable_adamw",
    "tap",
    "taps",
    "telemetry",
    "testing",
    "unscale",
    "watch",
    "yogi",
]


def __getattr__(name: str) -> Any:
    # Only tests need it, so it is loaded on first use.
    if name == "testing":
        return importlib.import_module("gradstable.testing")
    msg = f"module 'gradstable' has no attribute {name!r}"
    raise AttributeError(msg)
