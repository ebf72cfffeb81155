"""One run through all weathers, for any nesting of wrappers: what it did wrong.

Gradients do not depend on the parameters, so that runs of two nestings can be compared step by
step. A step is a group of micro-batches if the nesting accumulates.

``python -m tests.recipes.weather`` runs all orders of up to four wrappers that are made, in half an
hour, and prints those that do something wrong.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.core.order import is_wrong
from gradstable._src.recovery.snapshot import kept_params_of
from gradstable._src.recovery.turn import RollbackState

SIZE, RATE = 64, 2e-3
CALM, STEPS = 30, 130
NAN, SPIKE, OVERFLOWS, LOST, STUCK = 30, 45, range(60, 63), range(75, 92), range(104, 122)
WRAPPERS = {
    "record": lambda inner: gs.record(inner, capacity=1024),
    "kahan": gs.precision.kahan,
    "loss_scale": lambda inner: gs.loss_scale(inner, init_scale=2.0**10, growth_interval=16),
    "accumulate": lambda inner: gs.accumulate(inner, 2),
    "backoff": lambda inner: gs.backoff(inner, after=2, recovery=200.0),
    "rollback": lambda inner: gs.rollback(inner, every=5, patience=4, rejections=13),
    "govern": gs.govern,
    "guard": gs.guard,
    "compress_moments": lambda inner: gs.precision.compress_moments(inner, to="int16", min_size=1),
}
# Shortens the steps of this run, as the usual one does not.
STRICT = {**WRAPPERS, "govern": lambda inner: gs.govern(inner, start=2e-4)}


def optimizer() -> optax.GradientTransformation:
    """Return AdamW in float32, whatever the parameters are."""
    tx = optax.adamw(RATE, weight_decay=0.0)

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return tx.update(wide(updates), state, wide(params))

    return optax.GradientTransformation(lambda params: tx.init(wide(params)), update)


def nested(order: Sequence[str], wrappers: Any = WRAPPERS) -> Any:
    return functools.reduce(lambda tx, name: wrappers[name](tx), reversed(order), optimizer())


def orders(most: int) -> Iterator[tuple[str, ...]]:
    """Yield all orders of up to ``most`` wrappers, and those with one of them twice."""
    for size in range(1, most + 1):
        yield from itertools.permutations(WRAPPERS, size)
    for name in WRAPPERS:
        for others in itertools.permutations(WRAPPERS.keys() - {name}, most - 2):
            for first, second in itertools.combinations(range(most), 2):
                given = iter(others)
                yield tuple(name if i in (first, second) else next(given) for i in range(most))


def is_refused(order: Sequence[str]) -> bool:
    return any(itertools.starmap(is_wrong, itertools.combinations(order, 2)))


def lacks_a_judge(order: Sequence[str]) -> bool:
    """Whether a wrapper asks in vain for one that tells it of trouble; ``init`` says so."""
    judges = {"backoff": {"guard", "rollback"}, "loss_scale": {"guard", "accumulate"}}
    places = [(judges[name], set(order[i:])) for i, name in enumerate(order) if name in judges]
    return any(not wanted & inside for wanted, inside in places)


def runs(order: Sequence[str]) -> bool:
    return not is_refused(order) and not lacks_a_judge(order)


def _gradients() -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = 1.0 + 0.1 * rng.normal(size=(STEPS, SIZE))
    return np.float32(noise * np.exp(0.1 * rng.normal(size=(STEPS, 1))) * rng.choice([-1, 1], SIZE))


RAW = _gradients()
START = np.linspace(1.3, 1.6, SIZE, dtype=np.float32)  # it stays where one spacing is eps


@functools.cache
def given(group: int) -> dict[str, np.ndarray]:
    """Return what a run is given in each call."""
    step = np.repeat(np.arange(STEPS), group)
    gradient = RAW[step].copy()
    gradient[NAN * group, 3] = np.nan  # one micro-batch of the group
    gradient[step == SPIKE] *= 1e4
    gradient[np.isin(step, OVERFLOWS), 5] = np.inf
    return {
        "gradient": gradient,
        "noise": np.float32(1.0 + 0.05 * np.sin(np.arange(len(step)))),
        "lost": np.isin(step, LOST),
        "stuck": np.isin(step, STUCK),
    }


@dataclasses.dataclass(frozen=True)
class Run:
    """What happened, by call."""

    order: tuple[str, ...]
    out: dict[str, Any]
    state: Any
    dtype: Any

    @property
    def group(self) -> int:
        return 2 ** self.order.count("accumulate")

    @property
    def moved(self) -> np.ndarray:
        before = np.concatenate([np.asarray(self.start)[None], self.out["params"][:-1]])
        return np.abs(self.out["params"] - before).max(1)

    @property
    def start(self) -> np.ndarray:
        return np.asarray(jnp.asarray(START, self.dtype), np.float32)

    @property
    def ulp(self) -> float:
        return float(jnp.finfo(self.dtype).eps)


def run(order: Sequence[str], wrappers: Any = WRAPPERS, *, dtype: Any, scaled: bool) -> Run:
    tx = optax.with_extra_args_support(nested(order, wrappers))
    params = {"w": jnp.asarray(START, dtype)}

    def body(carry: Any, now: Any) -> Any:
        params, state = carry
        returns = sum((r.restores for _, r in find_all(state, RollbackState)), jnp.int32(0))
        value = jnp.where(now["lost"] & (returns == 0), 10.0, 1.0) * now["noise"]
        factor = gs.scale_loss(state, 1.0) if scaled else jnp.float32(1.0)
        bad = jnp.where(now["stuck"] & (returns < 2), jnp.nan, 1.0)
        gradient = {"w": now["gradient"] * factor * bad}
        updates, state = tx.update(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
        out = {"params": params["w"], "value": value, "scale": factor, "bad": jnp.isnan(bad)}
        return (params, state), {**out, **_seen(state)}

    calls = given(2 ** list(order).count("accumulate"))
    (_, state), out = jax.jit(lambda c: jax.lax.scan(body, c, calls))((params, tx.init(params)))
    # Cast outside the program, in which XLA may leave out the rounding.
    out = jax.tree.map(lambda leaf: np.asarray(leaf), out)
    out = {n: a.astype("f4") if n in ("params", "copy") else a for n, a in out.items()}
    return Run(tuple(order), out, state, dtype)


def _seen(state: Any) -> dict[str, Any]:
    ((_, adam),) = find_all(state, optax.ScaleByAdamState)
    seen = {"count": adam.count, "nu": jnp.max(jax.tree.leaves(adam.nu)[0].astype(jnp.float32))}
    seen["mu"] = jnp.sum(jax.tree.leaves(adam.mu)[0].astype(jnp.float32))
    for _, back in find_all(state, RollbackState)[:1]:
        (copy,) = jax.tree.leaves(kept_params_of(back.snapshots))
        seen |= {"attempts": back.attempts, "restores": back.restores, "copy": copy}
        seen["held"] = (back.attempts > 0) | (back.trial.tries_left > 0)
    for _, backed in find_all(state, gs.recovery.BackoffState)[:1]:
        seen["step_factor"] = backed.step_factor
    if find_all(state, gs.recovery.AccumulateState):
        seen["updated"] = gs.has_updated(state)
    return seen


def wrongs(order: Sequence[str]) -> list[str]:
    """Return what a nesting does wrong; nothing if it is right."""
    has = set(order)
    low = jnp.float16 if "loss_scale" in has else jnp.bfloat16
    dtype = low if "kahan" in has else jnp.float32
    done = run(order, dtype=dtype, scaled="loss_scale" in has)
    judged = bool(has & {"guard", "accumulate"})
    found = [_calm(done)]
    found += [_broken(done), _counted(done)] if judged else []
    found += [_spike(done)] if "guard" in has else []
    found += [_rolled_back(done)] if "rollback" in has else []
    found += [_backed_off(done)] if "backoff" in has else []
    found += [_scaled(done, judged=judged)] if "loss_scale" in has else []
    found += [_recorded(done, judged=judged)] if "record" in has else []
    found += [_updated(done)] if "accumulate" in has else []
    found += [_compensated(done)] if "kahan" in has else []
    return [*filter(None, found), *_read(done, guards=list(order).count("guard"))]


@functools.cache
def alone() -> np.ndarray:
    """Return the parameters after each calm step of the optimizer alone."""
    tx = optimizer()

    def body(carry: Any, gradient: Any) -> Any:
        updates, state = tx.update({"w": gradient}, carry[1], carry[0])
        params = optax.apply_updates(carry[0], updates)
        return (params, state), params["w"]

    params = {"w": jnp.asarray(START)}
    return np.asarray(
        jax.jit(lambda c: jax.lax.scan(body, c, RAW[:CALM])[1])((params, tx.init(params)))
    )


def _calm(done: Run) -> str:
    last = np.arange(1, CALM + 1) * done.group - 1
    off = np.abs(done.out["params"][last] - done.start - (alone() - START)).max()
    usual = 3e-4 if "compress_moments" in done.order else 2e-5
    if off > (1.02 * done.ulp if done.dtype != jnp.float32 else usual):
        return f"calm steps are off by {off:.2g}"
    gathers = np.arange(CALM * done.group) % done.group != done.group - 1
    return "it moves within a group" if done.moved[: CALM * done.group][gathers].any() else ""


def _broken(done: Run) -> str:
    at, out = NAN * done.group, done.out
    if not np.isfinite(out["params"]).all():
        return "a parameter is not finite"
    same = all(out[name][at] == out[name][at - 1] for name in ("count", "mu", "nu"))
    return "" if same and not done.moved[at] else "a NaN moves something"


def _counted(done: Run) -> str:
    nonfinite = gs.rules.Reason.NONFINITE
    totals = [ledger.rejected_by for _, ledger in find_all(done.state, Ledger)]
    totals += [dropped.by_reason for _, dropped in find_all(done.state, Dropped)]
    held = done.out.get("held", np.zeros(STEPS * done.group, bool))
    step = np.repeat(np.arange(STEPS), done.group)
    bad = (done.out["bad"] | np.isin(step, OVERFLOWS)) & ~held
    counted = sum(int(total[nonfinite]) for total in totals)
    if counted < int(bad.sum()) + 1:
        return f"{counted} of {int(bad.sum()) + 1} broken gradients are counted"
    return "" if "NaN or infinite" in gs.explain(done.state) else "explain is silent"


def _spike(done: Run) -> str:
    before, after = done.out["nu"][[SPIKE * done.group - 1, (SPIKE + 1) * done.group - 1]]
    return "a spike enters the second moment" if after > 10 * before else ""


def _rolled_back(done: Run) -> str:
    out = done.out
    going = out["attempts"] > 0
    starts = np.flatnonzero(going & ~np.append(False, going[:-1]))
    ends = np.flatnonzero(~going & np.append(False, going[:-1]))
    step = np.arange(len(going)) // done.group
    if not starts.size or step[starts[0]] not in LOST:
        return "a run that is lost is not rolled back"
    if "accumulate" not in done.order and not np.isin(step[starts], STUCK).any():
        return "a run whose gradients are all broken is not rolled back"
    if len(ends) < len(starts) or (ends - starts[: len(ends)]).max() > 6 * done.group:
        return "a rollback does not arrive"
    if not all(np.array_equal(out["params"][end - 1], out["copy"][end - 1]) for end in ends):
        return "a rollback misses the copy"
    goes_on = out["count"][-1] > out["count"][ends[0]] + 8 and out["restores"][-1] <= 2
    return "" if goes_on else "it does not go on after a rollback"


def _backed_off(done: Run) -> str:
    factor = done.out["step_factor"]
    hears = "guard" in done.order and "accumulate" not in done.order
    if hears and not factor[OVERFLOWS[-1] + 1] < 0.8:
        return "backoff does not hear of rejections"
    returns = done.out.get("restores", np.zeros(1))
    after = int(np.argmax(returns > 0)) + 3 * done.group
    if returns[-1] and not factor[after] < 0.3:
        return "backoff does not hear of a rollback"
    return ""


def _scaled(done: Run, *, judged: bool) -> str:
    scale, group = done.out["scale"], done.group
    if not scale[CALM * group - 1] > 2.0**10:
        return "the loss scale does not grow"
    falls = scale[(OVERFLOWS[-1] + 1) * group] < scale[OVERFLOWS[0] * group]
    return "" if falls or not judged else "the loss scale does not fall"


def _recorded(done: Run, *, judged: bool) -> str:
    order = done.order
    within = order[order.index("record") :]
    group = 2 ** within.count("accumulate")  # calls of the record in a step
    by_call = group == done.group
    rows = gs.telemetry.read_rows(done.state).steps
    calm = CALM * group
    norms = np.linalg.norm(given(group)["gradient"][:calm].astype("f8"), axis=1)
    got = np.array([row.get("grad_norm", np.nan) for row in rows[:calm]])
    if len(got) < calm or not np.allclose(got, norms, rtol=2e-3):
        return "the record has wrong norms"
    if not by_call:
        return ""
    held = done.out.get("held", np.zeros(len(done.out["value"]), bool))
    kept = ~held | ("rollback" not in order[: order.index("record")])
    loss = np.array([row.get("loss", np.nan) for row in rows])
    if len(loss) != len(kept) or not np.allclose(loss[kept], done.out["value"][kept], rtol=1e-5):
        return "the record misses steps, or their losses"
    told = rows[NAN * group]["reason"] == gs.rules.Reason.NONFINITE
    return "" if told or not judged else "the record does not tell of a NaN"


def _updated(done: Run) -> str:
    stepped = np.diff(done.out["count"], prepend=0) > 0
    wrong = done.out["updated"] & ~stepped
    if "guard" in done.order[done.order.index("accumulate") :]:  # which rejects the mean
        wrong[SPIKE * done.group : (SPIKE + 1) * done.group] = False
    if "held" in done.out:
        held = done.out["held"] | np.append(False, done.out["held"][:-1])
        wrong &= ~held
    return "has_updated is wrong" if wrong.any() else ""


def _compensated(done: Run) -> str:
    """Compare with float32 parameters, which need no compensation, in a run with short steps."""
    scaled = "loss_scale" in done.order
    rest = [name for name in done.order if name != "kahan"]
    low = run(done.order, STRICT, dtype=done.dtype, scaled=scaled)
    wide = run(rest, STRICT, dtype=jnp.float32, scaled=scaled)
    off = np.abs(low.out["params"] - low.start - (wide.out["params"] - START)).max() / done.ulp
    # What is outside a rollback starts anew after it.
    within = done.order[done.order.index("kahan") :]
    returns = int(done.out["restores"][-1]) if "rollback" in within else 0
    return f"parameters are off by {off:.1f} spacings" if off > 1.1 + 0.5 * returns else ""


def _read(done: Run, *, guards: int) -> list[str]:
    readers: dict[str, Any] = {"rollback": gs.recovery.last_good, "record": gs.telemetry.read_rows}
    tried = {read.__name__: read for name, read in readers.items() if name in done.order}
    if guards == 1:
        tried["health"] = gs.health
    if guards:
        tried |= {"check": gs.check, "explain": gs.explain}
    found = []
    for name, read in tried.items():
        try:
            read(done.state)
        except ValueError as error:
            found.append(f"{name} raises {error}")
    return found


def main() -> None:
    for order in dict.fromkeys([*orders(3), *itertools.permutations(WRAPPERS, 4)]):
        if runs(order) and (found := wrongs(order)):
            print(f"{'('.join(order)}: {'; '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
