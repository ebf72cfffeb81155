"""Published methods as in their authors' code, defects included.

The rules of gradstable with the same names are fixed: a NaN poisons none of them. These are the
methods as users get them from the authors, since that is what a contest must compare with.
"""

from gradstable_gauntlet.contestants.as_published.adagc import adagc
from gradstable_gauntlet.contestants.as_published.autoclip import autoclip
from gradstable_gauntlet.contestants.as_published.gradient_stabilizer import gradient_stabilizer
from gradstable_gauntlet.contestants.as_published.skip_and_clip import skip_and_clip
from gradstable_gauntlet.contestants.as_published.skip_on_spikes import skip_on_spikes
from gradstable_gauntlet.contestants.as_published.spam import spam
from gradstable_gauntlet.contestants.as_published.stable_adamw import stable_adamw
from gradstable_gauntlet.contestants.as_published.stable_spam import stable_spam
from gradstable_gauntlet.contestants.as_published.zclip import zclip

__all__ = [
    "adagc",
    "autoclip",
    "gradient_stabilizer",
    "skip_and_clip",
    "skip_on_spikes",
    "spam",
    "stable_adamw",
    "stable_spam",
    "zclip",
]
