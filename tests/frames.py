"""What a transform is made by: one transform a frame stands for the others in every run.

What is kept by the frame, and not by the mathematics of a transform, is tried in every run on these
and on all others in a slow run.
"""

from tests.registry import Case, entries

ONE_A_FRAME = {
    "core/masked.py": "lars",
    "core/stateless.py": "cap_trust",
    "clipping/clip_by.py": "unit_norm",
    "clipping/noise.py": "add_noise",
    "clipping/qk_clip.py": "qk_clip",
    "guard.py": "guard",
    "moments/cautious.py": "cautious",
    "moments/engine.py": "scale_by_adam",
    "moments/muon.py": "scale_by_muon",
    "moments/sophia.py": "scale_by_sophia",
    "moments/clipped_adam.py": "scale_by_clipped_adam",
    "precision/compress_moments.py": "compress_moments",
    "precision/kahan.py": "kahan",
    "precision/loss_scale.py": "loss_scale",
    "precision/stochastic_round.py": "stochastic_round",
    "rate/backoff_on_spike.py": "backoff_on_spike",
    "rate/govern.py": "govern",
    "rate/reduce_on_plateau.py": "reduce_on_plateau",
    "recipes/schedule_free.py": "schedule_free",
    "recipes/two_sided.py": "stable_adamw",
    "recovery/accumulate.py": "accumulate",
    "recovery/backoff.py": "backoff",
    "recovery/hygiene.py": "moment_hygiene",
    "recovery/rollback.py": "rollback",
    "sharding/average.py": "average",
    "telemetry/record.py": "record",
    "telemetry/tap_ring.py": "record",
}
WHOLE = {*ONE_A_FRAME.values(), "adamw", "muon"}


def representatives() -> list[Case]:
    """Return the first case of every transform that stands for a frame."""
    return [entry.cases[0] for entry in entries() if entry.short in WHOLE]
