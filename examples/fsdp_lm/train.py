"""The whole training loop."""

from functools import partial
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from examples.common.contestants import contestant
from examples.fsdp_lm import checkpoints, input_pipeline, placement
from examples.fsdp_lm.checkpoints import Run
from examples.fsdp_lm.configs.default import Config
from examples.fsdp_lm.models import DecoderLM
from examples.fsdp_lm.placement import Placement
from examples.fsdp_lm.reporting import StepReport, describe, fingerprint, log_steps, make_logger


def make_tx(config: Config) -> optax.GradientTransformationExtraArgs:
    """Return a contestant, with a warm-up over a tenth of the steps and a cosine decay."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.1 * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.steps // 10,
        decay_steps=config.steps,
        end_value=0.01 * config.learning_rate,
    )
    peak, weight_decay = config.learning_rate, config.weight_decay
    tx = contestant(config.optimizer, schedule, peak=peak, weight_decay=weight_decay)
    return optax.with_extra_args_support(tx)


def make_model(config: Config, *, everywhere: NamedSharding | None = None) -> DecoderLM:
    """Return a new network."""
    return DecoderLM(
        vocabulary=input_pipeline.VOCABULARY,
        features=config.features,
        heads=config.heads,
        layers=config.layers,
        dtype=jnp.dtype(config.dtype),
        everywhere=everywhere,
        rngs=nnx.Rngs(config.seed),
    )


def loss_fn(params: Any, batch: Any, *, graphdef: Any, z_weight: float) -> jax.Array:
    """Return the weighted cross-entropy in nats per character, plus the z-loss."""
    logits = nnx.merge(graphdef, params)(batch.tokens)
    losses = gs.losses.softmax_cross_entropy(logits, batch.targets, z_weight=z_weight)
    return jnp.mean(batch.weights * jnp.mean(losses, axis=1))


def make_train_step(config: Config, tx: Any, graphdef: Any, *, placed: Placement) -> Any:
    """Return the compiled step, which reuses the memory of the old parameters and state.

    Under ``jit`` there is one program for all devices, in which loss and gradient are those of the
    whole batch. So there is one verdict, and the guard needs no ``axis_name``.
    """
    grad_fn = jax.value_and_grad(partial(loss_fn, graphdef=graphdef, z_weight=config.z_weight))

    def train_step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, StepReport]:
        loss, gradients = grad_fn(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params)
        health = gs.health(opt_state) if config.optimizer == "ours" else None
        return optax.apply_updates(params, updates), opt_state, StepReport(loss, health)

    out = (placed.params, placed.opt_state, placed.everywhere)
    return jax.jit(train_step, donate_argnums=(0, 1), out_shardings=out)


def evaluate(config: Config, held: np.ndarray, params: Any, graphdef: Any, *, placed: Any) -> float:
    """Return the cross-entropy of the held-out text in bits per character."""
    nats = jax.jit(partial(loss_fn, graphdef=graphdef, z_weight=0.0))
    pieces = input_pipeline.whole(held, context=config.context, batch_size=config.batch_size)
    each = [nats(params, placement.globally(batch, placed=placed)) for batch in pieces]
    return float(np.mean(jax.device_get(each)) / np.log(2.0))


def begin(
    config: Config,
    tx: Any,
    make_params: Any,
    *,
    placed: Placement,
    checkpointer: ocp.training.Checkpointer,
    batches: grain.DatasetIterator,
) -> Run:
    """Return the last saved run, or a new one."""
    if checkpointer.latest is None:
        return Run(0, *placement.init(make_params, tx, placed=placed))
    if not config.resume:
        raise ValueError(f"{config.workdir} has checkpoints: pass --resume or another --workdir")
    shapes = jax.eval_shape(make_params)
    state_shapes = jax.eval_shape(tx.init, shapes)
    return checkpoints.load(checkpointer, shapes, state_shapes, placed=placed, batches=batches)


def train(config: Config) -> None:
    """Train for all steps, then evaluate on the held-out text."""
    logger, mesh, tx = make_logger(), placement.make_mesh(config.fsdp), make_tx(config)
    text, held = input_pipeline.load(held_out=config.held_out)
    batches = input_pipeline.batches(
        text, context=config.context, batch_size=config.batch_size, seed=config.seed
    )
    make = partial(make_model, config, everywhere=placement.everywhere(mesh))
    graphdef, shapes = nnx.split(nnx.eval_shape(make), nnx.Param)
    placed = placement.place(tx, shapes, mesh=mesh)
    train_step = make_train_step(config, tx, graphdef, placed=placed)
    spoil = partial(
        input_pipeline.spoil,
        at=config.fault_at if config.fault == "bad-host" else None,
        rows=config.batch_size // mesh.size,
    )
    with checkpoints.open_checkpoints(config.workdir) as checkpointer:
        first, params, opt_state = begin(
            config,
            tx,
            lambda: nnx.state(make(), nnx.Param),
            placed=placed,
            checkpointer=checkpointer,
            batches=batches,
        )
        describe(logger, mesh, params=params, opt_state=opt_state)
        reports: dict[int, StepReport] = {}
        for step in range(first + 1, config.steps + 1):
            batch = placement.globally(spoil(next(batches), step=step), placed=placed)
            params, opt_state, reports[step] = train_step(params, opt_state, batch)
            if step % config.log_every == 0 or step == config.steps:
                log_steps(logger, reports)
                reports.clear()
            if step % config.save_every == 0:
                # End a run that only rejects, before it pushes out the last good checkpoint.
                if config.optimizer == "ours":
                    gs.check(opt_state, shapes)
                checkpoints.save(checkpointer, Run(step, params, opt_state), batches)
    bits = evaluate(config, held, params, graphdef, placed=placed)
    logger.info("held-out bits per character: %.4f", bits)
    if config.optimizer == "ours":
        logger.info("%s", gs.explain(opt_state, shapes).replace("\n", " "))
    logger.info("fingerprint of parameters and state: %s", fingerprint((params, opt_state)))
