"""Published methods around the same AdamW, as in their authors' code."""

from collections.abc import Callable

import optax

from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.contestants import as_published
from gradstable_gauntlet.contestants.as_published.common import tallied
from gradstable_gauntlet.contestants.bare import adamw

Make = Callable[[Schedule], optax.GradientTransformation]


def _before_adamw(clip: Callable[[], optax.GradientTransformation]) -> Make:
    return lambda schedule: optax.chain(clip(), adamw(schedule))


def _contestant(make: Make, about: str, base: str = "adamw") -> Contestant:
    return Contestant(make, about, base=base, touched=tallied)


PUBLISHED = {
    "autoclip": _contestant(
        _before_adamw(as_published.autoclip),
        "AutoClip at the 10th percentile before AdamW (arXiv:2007.14469)",
    ),
    "zclip": _contestant(
        _before_adamw(as_published.zclip), "ZClip before AdamW (arXiv:2504.02507)"
    ),
    "adagc": _contestant(
        _before_adamw(as_published.adagc), "AdaGC before AdamW (arXiv:2502.11034)"
    ),
    "gradient_stabilizer": _contestant(
        _before_adamw(as_published.gradient_stabilizer),
        "GradientStabilizer before AdamW (arXiv:2502.17055)",
    ),
    "stable_adamw": _contestant(
        as_published.stable_adamw, "StableAdamW, decays 0.9 and 0.99 (arXiv:2304.13013)"
    ),
    "spam": _contestant(as_published.spam, "SPAM, dense (arXiv:2501.06842)", base="adam"),
    "stable_spam": _contestant(
        as_published.stable_spam, "Stable-SPAM (arXiv:2502.17055)", base="adam"
    ),
    "skip_on_spikes": _contestant(
        lambda schedule: as_published.skip_on_spikes(adamw(schedule)),
        "AdamW; steps above mean plus 6 sigma of 128 are skipped (OLMo, as in MaxText)",
    ),
    "skip_and_clip": _contestant(
        lambda schedule: as_published.skip_and_clip(adamw(schedule)),
        "AdamW clipped to 1; steps above 20 times the average norm are skipped (AXLearn)",
    ),
}
