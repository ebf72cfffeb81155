"""Mean stabilization: transforms that look at the mean and the spread of each unit."""

from gradstable.centering.centralize import centralize
from gradstable.centering.mean_stabilize import mean_stabilize
from gradstable.centering.normalize import normalize
from gradstable.centering.standardize import standardize

__all__ = ["centralize", "mean_stabilize", "normalize", "standardize"]
