"""A program as a user writes it, read by the type checker in strict mode with nothing relaxed.

Each ``assert_type`` is what an editor shows at that place. It runs too, in a few seconds.
"""

from typing import Any, assert_type, cast

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

Params = dict[str, jax.Array]


def make_params() -> Params:
    return {"bias": jnp.zeros(()), "kernel": jnp.zeros(3)}


def loss_fn(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)


def is_kernel(params: Params) -> dict[str, bool]:
    return {name: value.ndim > 0 for name, value in params.items()}


def by_layer(path: str, leaf: jax.Array) -> str:
    return "layer" if "kernel" in path and leaf.ndim > 1 else "leaf"


def group(path: str) -> str:
    return path.split("'")[1]


def optimizers() -> dict[str, optax.GradientTransformationExtraArgs]:
    guarded = gs.guard(optax.adamw(3e-4))
    assert_type(guarded, optax.GradientTransformationExtraArgs)
    ruled = gs.guard(
        optax.adamw(optax.cosine_decay_schedule(1e-3, 1000)),
        gs.rules.global_norm(1.0),
        gs.rules.log_mad(clip_at=4.0),
        units="output",
    )
    recipe = gs.adamw(1e-3, mu_dtype=jnp.bfloat16, mask=is_kernel, rules=(gs.rules.zscore(),))
    assert_type(recipe, optax.GradientTransformationExtraArgs)
    schedule = gs.rate.limit_schedule(1e-3, min_value=1e-5, max_value=1e-2)
    chain = optax.chain(
        gs.centering.mean_stabilize("tanh", units={"bias": "leaf", "kernel": (0,)}),
        gs.clipping.clip_by(gs.rules.unit_norm(units=by_layer)),
        gs.clipping.clip_by(gs.rules.group_norm(groups=group)),
        gs.moments.cautious(gs.moments.scale_by_adam(b1=0.95)),
        gs.rate.cap_update_rms(max_rms=1.0),
        optax.scale_by_learning_rate(schedule),
    )
    assert_type(chain, optax.GradientTransformationExtraArgs)
    return {
        "guarded": guarded,
        "ruled": ruled,
        "recipe": recipe,
        "masks": gs.lamb(1e-3, mask={"bias": False, "kernel": True}),
        "stable": gs.stable_adamw(1e-3, units="leaf"),
        "muon": gs.muon(1e-3, scale="moonshot", weight_decay_mask=gs.losses.kernels_only),
        "averaged": gs.recipes.schedule_free_adamw(1e-3),
        "chain": chain,
        "guarded chain": gs.guard(chain, reject_above(10.0)),
        "plateau": optax.chain(gs.adam(1e-3), gs.rate.reduce_on_plateau()),
    }


def reject_above(limit: float) -> gs.rules.Rule:
    def decide(measure: gs.Measure, state: tuple[()], **_: Any) -> tuple[gs.Verdict, tuple[()]]:
        assert_type(measure.norm, jax.Array)
        calm = measure.norm <= limit
        reason = jnp.where(calm, gs.rules.Reason.OK, gs.rules.Reason.SPIKE_REJECTED)
        return gs.Verdict.of(accept=calm, reason=reason, threshold=limit), state

    def init(params: optax.Params) -> tuple[()]:
        del params
        return ()

    return gs.rules.Rule(init=init, decide=decide)


def train(
    tx: optax.GradientTransformationExtraArgs, *, steps: int = 3
) -> tuple[Params, optax.OptState]:
    params = make_params()
    opt_state = tx.init(params)
    x = jax.random.normal(jax.random.key(0), (32, 3))
    y = x @ jnp.array([1.0, -2.0, 0.5])
    for _ in range(steps):
        value, gradients = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(gradients, opt_state, params, value=value)
        params = cast("Params", optax.apply_updates(params, updates))
    return params, opt_state


def read(opt_state: optax.OptState, params: Params) -> str:
    health = gs.health(opt_state)
    assert_type(health, gs.Health)
    assert_type(health.rejected, jax.Array)
    gs.check(opt_state)
    told = gs.explain(opt_state, params)
    assert_type(told, str)
    return f"{int(health.accepted)} of {int(health.count)}: {told}"


def losses(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return a loss with penalties; trees come back as the types that went in."""

    def loss_of(params: Params) -> jax.Array:
        return loss_fn(params, x, y)

    def score(x: jax.Array) -> jax.Array:
        return x @ params["kernel"]

    value, gradients = gs.losses.sam_gradients(loss_of, params)
    assert_type(gradients, Params)
    assert_type(gs.losses.sam_ascent(params, gradients), Params)
    penalty = gs.losses.l2_penalty(params, weight=1e-2, mask=is_kernel)
    penalty += gs.losses.r1(score, x, weight=1.0)
    assert_type(penalty, jax.Array)
    assert_type(gs.global_norm(gradients), jax.Array)
    return jnp.asarray(value) + penalty


def average(opt_state: optax.OptState, params: Params) -> Params:
    averaged = gs.recipes.schedule_free_eval_params(opt_state, params)
    assert_type(averaged, Params)
    return averaged


def mistakes() -> None:
    """Mistakes that the type checker finds: a suppression that finds none is reported itself."""
    gs.guard(optax.adamw)  # pyright: ignore[reportArgumentType]
    gs.guard(3e-4)  # pyright: ignore[reportArgumentType]
    gs.guard(gs.rules.log_mad(), optax.adamw(3e-4))  # pyright: ignore[reportArgumentType]
    gs.guard(optax.adamw(3e-4), gs.rules.log_mad)  # pyright: ignore[reportArgumentType]
    gs.guard(optax.adamw(3e-4), [gs.rules.log_mad()])  # pyright: ignore[reportArgumentType]
    gs.guard(optax.adamw(3e-4), units="leav")  # pyright: ignore[reportArgumentType]
    gs.guard(optax.adamw(3e-4), patience=3)  # pyright: ignore[reportCallIssue]
    gs.adamw("1e-3")  # pyright: ignore[reportArgumentType]
    gs.adamw(1e-3, 0.9)  # pyright: ignore[reportCallIssue]
    gs.adamw(1e-3, rules=gs.rules.log_mad())  # pyright: ignore[reportArgumentType]
    gs.rules.zscore(mode="median")  # pyright: ignore[reportArgumentType]
    gs.clipping.soft_clip("tan")  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    trained, state = train(optimizers()["guarded"])
    print(read(state, trained))
