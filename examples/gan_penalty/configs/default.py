"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A generator of points in the plane; a step is a critic step."""

    steps: int = 5000
    """How many steps the critic trains."""
    learning_rate: float = 5e-3
    """The highest rate of the schedule, for generator and critic alike."""
    fault_at: int = 1500
    """The step of the fault, for bad-batch and lr-spike (the first step is 1)."""
    workdir: Path = Path("demo-out/gan_penalty")
    """Where the records of the runs go."""
    penalty: float = 1.0
    """Weight of the gradient penalty; 0 turns it off."""
    also_without: bool = True
    """Whether to also train without the penalty."""
    critic_steps: int = 3
    """Critic steps per generator step."""
    batch_size: int = 128
    """Points per step."""
    noise: int = 8
    """Random numbers from which the generator makes a point."""
    hidden: int = 64
    """Width of the two layers of each network."""
    test_size: int = 4000
    """Points that the metric compares."""
    eval_every: int = 500
    """Steps between evaluations of the generated points."""
    loss_scale: float = 2.0**14
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 4."""
