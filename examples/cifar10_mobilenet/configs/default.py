"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.cifar10_mobilenet.cifar_binary import MD5
from examples.cifar10_mobilenet.models import Name
from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A short run on the stand-in; for CIFAR-10 itself raise ``steps`` and ``width``."""

    steps: int = 800
    """How many steps to train."""
    learning_rate: float = 1e-2
    """The highest rate of the schedule."""
    workdir: Path = Path("demo-out/cifar10_mobilenet")
    """Where the records of the runs go."""
    data_dir: Path | None = None
    """Folder with the binary version of CIFAR-10, or the archive; without it shapes stand in."""
    md5: str | None = MD5
    """The expected MD5 sum of the archive; None skips the check."""
    model: Name = "mobilenet"
    """Depthwise separable convolutions with group norm, or five convolutions without any norm."""
    width: float = 0.5
    """Multiplies the number of channels in every layer."""
    batch_size: int = 64
    """Images per step."""
    augment: bool = True
    """Whether images are mirrored and shifted at random."""
