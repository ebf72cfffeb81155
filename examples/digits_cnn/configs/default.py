"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A run of four cycles, each with its own warm-up and decay of the learning rate."""

    steps: int = 1200
    """Maximum number of steps; early stopping may end training sooner."""
    workdir: Path = Path("demo-out/digits_cnn")
    """Where the records of the runs go."""
    batch_size: int = 64
    """Images per step."""
    width: int = 32
    """Channels of the first convolution; the second has twice as many."""
    dropout: float = 0.2
    """Fraction of activations dropped in training."""
    l1: float = 1e-5
    """Factor of the sum of absolute weights in the loss."""
    l2: float = 1e-5
    """Factor of half the sum of squared weights in the loss, in addition to decoupled decay."""
    cycles: int = 4
    """Number of learning-rate cycles (warm restarts)."""
    eval_every: int = 20
    """Steps between evaluations on the validation images."""
    patience: int = 20
    """Evaluations without a better validation loss after which training stops."""
    loss_scale: float = 2.0**18
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.25."""
