"""Where parameters and state lie on a mesh: thin helpers over JAX's own shardings."""

from gradstable.sharding.memory import bytes_per_device
from gradstable.sharding.spread import spread
from gradstable.sharding.state import state_shardings

__all__ = ["bytes_per_device", "spread", "state_shardings"]
