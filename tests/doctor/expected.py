"""What each recorded run is: the illness that was planted in it, written down before any rule."""

from pathlib import Path

RUNS = Path(__file__).parent / "runs"
# Causes first, as the doctor orders them; the rest of the matrix is empty.
EXPECTED: dict[str, tuple[str, ...]] = {
    # healthy
    "adamw_cosine": ("healthy",),
    "warmed_up": ("healthy",),
    "sgd_momentum": ("healthy",),
    "small_batch": ("healthy",),
    "fits_exactly": ("healthy",),
    "letters": ("healthy",),
    "silent_lion": ("healthy",),
    "sensible_clip": ("healthy",),
    "hardly_learnable": ("healthy",),
    "likelihood": ("healthy",),
    "normed_attention": ("healthy",),
    # data and numbers
    "bad_batches": ("bad_batches",),
    "bad_batches_bare": ("bad_batches",),
    "half_precision": ("gradient_overflows",),
    "root_at_zero": ("gradient_overflows",),
    "root_at_zero_bare": ("gradient_overflows", "diverged"),
    "missing_values": ("broken_loss",),
    "missing_value_bare": ("broken_loss", "diverged"),
    "broken_feed": ("broken_loss", "locked_in"),
    # what comes back
    "heavy_minority": ("recurring_gradients",),
    "starved_minority": ("recurring_gradients",),
    "bad_stretch": ("burst",),
    "rolled_back_in_vain": ("burst", "rolled_back", "small_steps"),
    # what no optimizer cures
    "growing_attention": ("attention_logits_grow",),
    "growing_residual": ("activations_grow",),
    "pole_in_the_model": (
        "architecture_not_optimizer",
        "rolled_back",
        "small_steps",
        "diverged",
    ),
    # steps and settings
    "too_fast_adam": ("learning_rate_too_high",),
    "too_fast_adamw": ("learning_rate_too_high",),
    "too_fast_governed": ("steps_shortened",),
    "too_fast_sgd": ("learning_rate_too_high", "diverged"),
    "creeping_sgd": ("learning_rate_too_high", "diverged"),
    "schedule_glitch": ("learning_rate_jump",),
    "stale_moment": ("second_moment_lags",),
    "no_warmup": ("warmup_too_short",),
    "loud_init": ("exploding_initialization",),
    "shrinking_layer": ("layer_grows_first",),
    "summed_loss": ("level_shift",),
    "locked": ("locked_in",),
    "tight_clip": ("clip_too_tight",),
    "frozen": ("dead",),
    "saturated": ("dead",),
    # the log
    "overwritten": ("log_incomplete", "healthy"),
    "killed": ("log_incomplete", "healthy"),
    "begun": ("too_short",),
}
