"""The options, and their defaults."""

import dataclasses
from pathlib import Path
from typing import Literal

from examples.common.contestants import Name
from examples.fsdp_lm.launch import Launch


@dataclasses.dataclass(frozen=True)
class Config(Launch):
    """Two blocks on 64 characters of context: 451,456 parameters."""

    seed: int = 0
    """Seed for the order of the text and the initial parameters."""
    steps: int = 300
    """How many steps to train."""
    learning_rate: float = 3e-3
    """The highest rate of the schedule."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, times the learning rate."""
    optimizer: Name = "ours"
    """The optimizer: bare is optax.adamw, ours is gs.stable_adamw on a limited schedule."""
    fault: Literal["none", "bad-host"] = "none"
    """The fault: bad-host corrupts the rows that process 0 gives to its first device."""
    fault_at: int = 200
    """The step of the fault (the first step is 1)."""
    fsdp: int | None = None
    """The number of devices the parameters are split over; others hold copies. Default: all."""
    batch_size: int = 32
    """Pieces of text per step, on all devices together."""
    held_out: float = 0.1
    """Fraction of the text, at its end, that is held out for testing."""
    context: int = 64
    """Characters in a piece."""
    features: int = 128
    """Size of a character embedding."""
    heads: int = 4
    """Attention heads per block."""
    layers: int = 2
    """Blocks."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype the layers compute in; parameters and state are float32."""
    z_weight: float = 1e-4
    """Factor of the z-loss, which keeps the logits from drifting; 0 turns it off."""
    log_every: int = 50
    """Steps between reads of losses and rejections; each read fetches all steps since the last."""
    save_every: int = 100
    """Steps between checkpoints; the last two are kept."""
    resume: bool = False
    """Resume from the last checkpoint in workdir, if there is one."""
    workdir: Path = Path("demo-out/fsdp_lm")
    """Where checkpoints go: a folder that all processes share."""
