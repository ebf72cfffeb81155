"""All rules in order, and the diagnosis of a run."""

from collections.abc import Callable, Mapping

import numpy as np

from gradstable._src.doctor.architecture import architecture_not_optimizer
from gradstable._src.doctor.data import bad_batches, broken_loss, gradient_overflows
from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, counted
from gradstable._src.doctor.ending import dead, diverged, locked_in, log_incomplete
from gradstable._src.doctor.level import clip_too_tight, layer_grows_first, level_shift
from gradstable._src.doctor.rate import (
    learning_rate_jump,
    learning_rate_too_high,
    second_moment_lags,
)
from gradstable._src.doctor.recurrence import burst, recurring_gradients
from gradstable._src.doctor.returning import rolled_back, small_steps, steps_shortened
from gradstable._src.doctor.signals import ENOUGH, first_loss, last_loss, remembering
from gradstable._src.doctor.start import exploding_initialization, warmup_too_short
from gradstable._src.doctor.taps import activations_grow, attention_logits_grow
from gradstable._src.telemetry.run import Run

# Causes come before their effects, and the log comes last.
RULES: Mapping[str, Callable[[Run], Diagnosis | None]] = {
    rule.__name__: rule
    for rule in (
        broken_loss,
        gradient_overflows,
        exploding_initialization,
        warmup_too_short,
        learning_rate_jump,
        attention_logits_grow,
        activations_grow,
        second_moment_lags,
        layer_grows_first,
        learning_rate_too_high,
        level_shift,
        recurring_gradients,
        bad_batches,
        burst,
        architecture_not_optimizer,
        rolled_back,
        small_steps,
        steps_shortened,
        clip_too_tight,
        dead,
        diverged,
        locked_in,
        log_incomplete,
    )
}


@np.errstate(all="ignore")  # it is meant for wild numbers
def diagnose(run: Run) -> tuple[Diagnosis, ...]:
    """Diagnose a recorded run.

    Every rule in ``RULES`` looks at the run independently and compares numbers with thresholds, as
    its docstring says. If only ``log_incomplete`` finds anything, or no rule does, the run is also
    ``healthy``, or ``too_short`` if it has fewer than 20 steps.

    Args:
      run: a run returned by ``gs.telemetry.read_run``.

    Returns:
      The diagnoses, causes before effects; at least one.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> from gradstable.doctor import diagnose
      >>> params = {"w": jnp.ones(3)}
      >>> tx = gs.record(gs.guard(optax.adam(1e-3)))
      >>> state = tx.init(params)
      >>> file = tempfile.mkdtemp() + "/run.jsonl"
      >>> with gs.telemetry.Log(params, file) as log:
      ...     for step in range(40):
      ...         grads = {"w": jnp.full(3, jnp.nan if step == 30 else 1.0)}
      ...         updates, state = tx.update(grads, state, params, value=grads["w"][0])
      ...         params = optax.apply_updates(params, updates)
      ...         log(state)
      >>> found = diagnose(gs.telemetry.read_run(file))[0]
      >>> found.name, found.evidence[0].value
      ('broken_loss', 1)
    """
    with remembering():
        found = [one for rule in RULES.values() if (one := rule(run)) is not None]
    if all(one.severity <= Severity.NOTE for one in found):
        found.append(_too_short(run) if len(run.step) < ENOUGH else _healthy(run))
    return tuple(found)


def _too_short(run: Run) -> Diagnosis:
    number = len(run.step)
    return Diagnosis(
        "too_short",
        Severity.NOTE,
        f"Nothing was found in {counted(number, 'step')}, too few to judge.",
        (Evidence("steps recorded", number, "<", ENOUGH),),
        "Record more steps.",
    )


def _healthy(run: Run) -> Diagnosis:
    number = len(run.step)
    rejected = int(run.rejected.sum())
    evidence = (Evidence("rules that found anything, except about the log", 0, "<", 1),)
    first, last = first_loss(run), last_loss(run)
    path = f"; the loss went from {first:.3g} to {last:.3g}" if np.isfinite(first + last) else ""
    kept = f", {counted(rejected, 'step')} rejected" if rejected else ""
    factor = float(run.lr_factor[-1])
    if factor < 1:
        kept += f", steps at {100 * factor:.2g} % of the learning rate at the end"
    text = f"Healthy: nothing unusual in {counted(number, 'step')}{kept}{path}."
    advice = "No action is needed."
    if last >= first:
        text += " But it did not fall."
        advice = "Nothing is unstable. If the loss should have fallen, look at data and model."
    return Diagnosis("healthy", Severity.NONE, text, evidence, advice)
