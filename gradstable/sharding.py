"""On a mesh: the mean over devices, whether they agree, and where arrays are placed."""

from gradstable._src.replay.agree import replicas_agree
from gradstable._src.replay.replicas import unequal_replicas
from gradstable._src.sharding.average import average
from gradstable._src.sharding.memory import bytes_per_device
from gradstable._src.sharding.spread import spread
from gradstable._src.sharding.state import state_shardings

__all__ = [
    "average",
    "bytes_per_device",
    "replicas_agree",
    "spread",
    "state_shardings",
    "unequal_replicas",
]
