"""The options, and their defaults."""

import dataclasses
from pathlib import Path
from typing import Literal

from examples.common.config import CommonConfig

Dataset = Literal["breast_cancer", "article"]


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A short run on one of two data sets."""

    steps: int = 600
    """How many steps to train."""
    workdir: Path = Path("demo-out/tabular_mlp")
    """Where the records of the runs go."""
    dataset: Dataset = "breast_cancer"
    """569 rows of 30 measurements in 2 classes, or 3000 generated ones of 20 in 10 classes."""
    batch_size: int = 64
    """Rows per step."""
    hidden: int = 50
    """Width of the hidden layer."""
    explode_factor: float = 30.0
    """How many times too large the initial matrices are, for exploding-init."""
    loss_scale: float = 2.0**18
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.25."""
