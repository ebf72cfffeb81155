"""Many runs in one go: whole training runs inside one ``jit``, side by side with ``vmap``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.flips import flipped
from gradstable_gauntlet.storms import Weather, no_flips
from gradstable_gauntlet.task import Disturbance, Task

WARM_UP = 0.05


class Member(NamedTuple):
    """One run: what differs between runs side by side."""

    seed: Any  # shape=(), dtype=uint32
    rate: Any  # shape=(), dtype=float32, the peak of its schedule
    weather: Weather


class Trace(NamedTuple):
    """The record of one run."""

    start: Any  # shape=(), held-out loss before the first step
    final: Any  # shape=(), held-out loss after the last
    finite: Any  # shape=(), bool, all parameters at the end
    losses: Any  # shape=(steps,), training losses, without the multiplier of the weather
    touched: Any  # shape=(), share of steps clipped or rejected; nan: unknown from the state


def schedule_of(rate: Any, steps: int, factor: Any = 1.0) -> Schedule:
    """Return a linear warm-up and a cosine down to zero, times the fault of this step."""

    def schedule(count: Any) -> jax.Array:
        done = jnp.minimum(count / steps, 1.0)
        up = jnp.minimum((count + 1) / max(1.0, WARM_UP * steps), 1.0)
        return rate * factor * up * 0.5 * (1.0 + jnp.cos(jnp.pi * done))

    return schedule


def train(task: Task, contestant: Contestant, member: Member) -> Trace:
    """Train once. A pure function of the member."""

    def transform(factor: Any) -> optax.GradientTransformationExtraArgs:
        made = contestant.make(schedule_of(member.rate, task.steps, factor))
        return optax.with_extra_args_support(made)

    key = jax.random.key(member.seed)
    params = jax.tree.map(lambda leaf: leaf * member.weather.start, task.init(key))

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        params, state = carry
        number, (inputs, targets, multiplier, factor), flips = now
        of_step = jax.random.fold_in(key, number)
        batch = task.batch(of_step)

        def loss_of(params: Any) -> jax.Array:
            return multiplier * task.loss(params, batch, Disturbance(inputs, targets))

        loss, gradients = jax.value_and_grad(loss_of)(params)
        if flips is not None:
            gradients = flipped(gradients, flips.gradient, flips.stride, of_step)
        updates, state = transform(factor).update(gradients, state, params, value=loss)
        seen = loss / multiplier, gs.global_norm(gradients)
        params = optax.apply_updates(params, updates)
        if flips is not None:
            params = flipped(params, flips.params, flips.stride, of_step)
        return (params, state), seen

    begin = params, transform(1.0).init(params)
    series = jnp.arange(task.steps), member.weather[:4], member.weather.flips
    (last, state), (losses, norms) = jax.lax.scan(step, begin, series)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(last)]))
    return Trace(
        start=task.held_out(params),
        final=task.held_out(last),
        finite=finite,
        losses=losses,
        touched=_touched(contestant, state, norms) / task.steps,
    )


def _touched(contestant: Contestant, state: Any, norms: jax.Array) -> jax.Array:
    if contestant.touched is not None:
        return jnp.asarray(contestant.touched(state, norms), jnp.float32)
    try:
        health = gs.health(state)
    except ValueError:  # there is no guard, or more than one
        return jnp.full((), jnp.nan)
    return jnp.asarray(health.clipped + health.rejected, jnp.float32)


Runner = Callable[[list[Member]], Trace]


def runner(task: Task, contestant: Contestant, *, width: int) -> Runner:
    """Return a function from any number of members to their traces, ``width`` at a time.

    It is compiled once, for the width; the last round is padded with repetitions.
    """
    together = jax.jit(jax.vmap(lambda member: train(task, contestant, member)))

    def run(members: list[Member]) -> Trace:
        members = _alike(members, task.steps)
        rounds: list[Trace] = []
        for begin in range(0, len(members), width):
            some = members[begin : begin + width]
            full = some + [some[-1]] * (width - len(some))
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *full)
            traces = jax.device_get(together(stacked))
            rounds.append(traces)
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rounds)
        return jax.tree.map(lambda leaf: leaf[: len(members)], whole)

    return run


def _alike(members: list[Member], steps: int) -> list[Member]:
    """Return the same members, all with flips if one has some."""
    if all(one.weather.flips is None for one in members):
        return members
    return [
        one._replace(weather=one.weather._replace(flips=one.weather.flips or no_flips(steps)))
        for one in members
    ]


def member(*, seed: int, rate: float, weather: Weather) -> Member:
    """Return a run with the dtypes for which ``runner`` is compiled."""
    return Member(np.uint32(seed), np.float32(rate), weather)


def final_losses(traces: Trace) -> np.ndarray:
    """Return the final losses, float64; infinite where a parameter is not finite."""
    sound = np.asarray(traces.finite) & np.isfinite(traces.final)
    return np.where(sound, traces.final, np.inf).astype(np.float64)
