"""NumPyro: SVI owns the step, and passes the loss to the optimizer by itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.frameworks.trouble import assert_held, assert_logged, batches, is_finite, protected

numpyro: Any = pytest.importorskip("numpyro")
infer: Any = pytest.importorskip("numpyro.infer")
autoguide: Any = pytest.importorskip("numpyro.infer.autoguide")
dist: Any = pytest.importorskip("numpyro.distributions")

pytestmark = pytest.mark.slow


def model(x: jax.Array, y: jax.Array) -> None:
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([3]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.sin(x @ weights), noise), obs=y)


def train(tx: optax.GradientTransformation, path: Path) -> tuple[Any, optax.OptState]:
    guide = autoguide.AutoNormal(model)
    svi = infer.SVI(model, guide, numpyro.optim.optax_to_numpyro(tx), infer.Trace_ELBO())
    data = [(jnp.asarray(x), jnp.asarray(y[:, 0])) for x, y in batches()]
    state = svi.init(jax.random.key(0), *data[0])
    update = jax.jit(svi.update)
    with gs.watch(tx, svi.get_params(state), path, report=False) as watch:
        for x, y in data:
            state, _ = update(state, x, y)
            params, opt_state = state.optim_state[1]
            watch(opt_state, params)
    return svi.get_params(state), opt_state


def test_svi_survives(tmp_path: Path) -> None:
    params, opt_state = train(protected(), tmp_path / "run.jsonl")
    assert is_finite(params)
    assert_held(opt_state)
    assert_logged(tmp_path / "run.jsonl")
    assert gs.telemetry.read_rows(opt_state).steps[-1]["loss"] > 0  # SVI passes it on


def test_without_the_guard_it_does_not(tmp_path: Path) -> None:
    params, _ = train(gs.record(optax.adam(1e-2)), tmp_path / "run.jsonl")
    assert not is_finite(params)
