"""Where parameters and state are placed on a mesh: thin helpers over JAX's own shardings."""

from gradstable._src.replay.agree import replicas_agree
from gradstable._src.replay.replicas import unequal_replicas
from gradstable._src.sharding.memory import bytes_per_device
from gradstable._src.sharding.spread import spread
from gradstable._src.sharding.state import state_shardings

__all__ = [
    "bytes_per_device",
    "replicas_agree",
    "spread",
    "state_shardings",
    "unequal_replicas",
]
