"""Mean stabilization: transforms that use the mean and the spread of each unit."""

from gradstable._src.centering.centralize import centralize
from gradstable._src.centering.mean_stabilize import mean_stabilize
from gradstable._src.centering.normalize import normalize
from gradstable._src.centering.standardize import standardize

__all__ = [
    "centralize",
    "mean_stabilize",
    "normalize",
    "standardize",
]
