"""No estimator begins with a step far above its bound, whatever its options and the gradient."""

import inspect
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.registry import Entry, entries, resolve
from tests.registry.modern import diagonal

ESTIMATORS = [entry for entry in entries() if entry.family in ("Moments", "Modern moments")]
# Steps that are as large as their gradients, as the docstrings say; and wrappers.
PROPORTIONAL = {"ema", "trace", "clip_by_moment", "scale_by_radam", "cautious"}
LARGEST = {
    "scale_by_rms": 10**0.5 / 0.9,  # centered: 3.51; 3.16 without
    "scale_by_amsgrad": 7.28,
    "scale_by_muon": math.sqrt(5 / 3) * 1.2,
}
# With the second moment alone uncorrected, as the docstring says.
UNCORRECTED = {"bias_correction_mu": True, "bias_correction_nu": False}
SIZES = (1.0, 1e-12, 1e-30, 1e15)


def kinds() -> Iterator[Any]:
    for entry in ESTIMATORS:
        if "Transformation" not in str(inspect.signature(resolve(entry.name))):
            continue
        parameters = inspect.signature(resolve(entry.name)).parameters
        flags = [name for name, of in parameters.items() if isinstance(of.default, bool)]
        for values in itertools.product((False, True), repeat=len(flags)):
            options = dict(zip(flags, values, strict=True))
            if entry.short in PROPORTIONAL or options.get("adaptive"):
                continue
            told = ", ".join(f"{name}={value}" for name, value in options.items())
            yield pytest.param(entry, options, id=f"{entry.name}({told})")


@pytest.mark.parametrize(("entry", "options"), list(kinds()))
def test_first_steps_keep_their_bound(entry: Entry, options: dict[str, Any]) -> None:
    tx: Any = resolve(entry.name)(**entry.required, **options)
    extra = {"hessian": diagonal} if "sophia" in entry.name else {}
    limit = LARGEST.get(entry.short, 2.0)
    if options.items() >= UNCORRECTED.items():
        limit = 31.7
    # One leaf a size: what looks at a whole leaf sees one size only.
    gradients = {f"of size {size}": jnp.full((3, 5), size) for size in SIZES}
    params = jax.tree.map(jnp.ones_like, gradients)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(gradients, state, params, **extra)
        for name, update in updates.items():
            assert np.abs(update).max() <= limit, name
