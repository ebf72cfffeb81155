"""All contestants by name: bare optimizers, optax's chains, published methods, and ours."""

from gradstable.gauntlet.contestant import Contestant
from gradstable.gauntlet.contestants.bare import BARE
from gradstable.gauntlet.contestants.chains import CHAINS
from gradstable.gauntlet.contestants.ours import OURS
from gradstable.gauntlet.contestants.published import PUBLISHED

__all__ = ["BARE", "CHAINS", "CONTESTANTS", "OURS", "PUBLISHED"]

CONTESTANTS: dict[str, Contestant] = {**BARE, **CHAINS, **PUBLISHED, **OURS}
