"""All contestants by name: bare optimizers, optax's chains, published methods, and ours."""

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.contestants.bare import BARE
from gradstable_gauntlet.contestants.chains import CHAINS
from gradstable_gauntlet.contestants.ours import OURS
from gradstable_gauntlet.contestants.published import PUBLISHED

__all__ = ["BARE", "CHAINS", "CONTESTANTS", "OURS", "PUBLISHED"]

CONTESTANTS: dict[str, Contestant] = {**BARE, **CHAINS, **PUBLISHED, **OURS}
