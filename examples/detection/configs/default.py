"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig
from examples.detection.boxes import BoxLoss


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A run over scenes that are new for every batch."""

    steps: int = 1000
    """How many steps to train."""
    explode_factor: float = 5.0
    """How many times too large the initial matrices are, for exploding-init: five in a row."""
    workdir: Path = Path("demo-out/detection")
    """Where the records of the runs go."""
    batch_size: int = 64
    """Scenes per step."""
    box_loss: BoxLoss = "smooth-l1"
    """The loss of the boxes."""
    box_weight: float = 2.0
    """Weight of the box loss relative to the cross-entropy of the class."""
    test_copies: int = 2
    """How many scenes each of the 397 test digits appears in."""
