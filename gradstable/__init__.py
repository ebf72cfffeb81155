"""gradstable: training that does not blow up.

Composable gradient transforms for JAX that chain like optax's. The one line::

    tx = gradstable.guard(optax.adamw(3e-4))

gives a run that survives, at almost no cost, and that can say what happened.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from gradstable import rules
from gradstable._core.norms import global_norm
from gradstable._core.types import Health, Measure, Verdict
from gradstable.clipping import clip_by_global_norm, clip_by_log_mad, clip_by_rule
from gradstable.guard import GuardState, guard
from gradstable.health import TrainingDiverged, check, explain, health
from gradstable.moments import scale_by_adam
from gradstable.recipes import adamw

if TYPE_CHECKING:
    from gradstable import testing

__version__ = importlib.metadata.version("gradstable")

__all__ = [
    "GuardState",
    "Health",
    "Measure",
    "TrainingDiverged",
    "Verdict",
    "adamw",
    "check",
    "clip_by_global_norm",
    "clip_by_log_mad",
    "clip_by_rule",
    "explain",
    "global_norm",
    "guard",
    "health",
    "rules",
    "scale_by_adam",
    "testing",
]


def __getattr__(name: str) -> Any:
    # What only tests need is loaded when it is asked for.
    if name == "testing":
        return importlib.import_module("gradstable.testing")
    msg = f"module 'gradstable' has no attribute {name!r}"
    raise AttributeError(msg)
