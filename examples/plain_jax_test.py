"""The shortest example shows what it is meant to show."""

import numpy as np
import optax
import pytest

import gradstable as gs
from examples import plain_jax as example


def test_one_bad_batch_ends_bare_training_and_not_the_guarded_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(example, "STEPS", 60)
    monkeypatch.setattr(example, "BAD_STEP", 30)
    bare, *_ = example.train(optax.adamw(3e-3))
    guarded, _, opt_state = example.train(gs.guard(optax.adamw(3e-3)))
    assert np.isfinite(bare[:29]).all()
    assert np.isnan(bare[29:]).all()
    assert np.flatnonzero(np.isnan(guarded)).tolist() == [29]
    assert np.mean(guarded[-5:]) < 0.9 * np.mean(guarded[:5])
    assert int(gs.health(opt_state).last_rejected) == 30
