"""What every test starts from: fixed seeds, and no memory of other tests."""

import gc
from collections.abc import Iterator

import chex
import hypothesis
import jax
import numpy as np
import pytest
from jax._src import pjit
from jax._src.interpreters import pxla

# Simulated devices, for what runs on a mesh; it has to be said before the first array is made.
jax.config.update("jax_num_cpu_devices", 8)

# The same examples in every run, few enough for every commit; compiling may take its time.
hypothesis.settings.register_profile(
    "gradstable", derandomize=True, deadline=None, max_examples=25, database=None
)
hypothesis.settings.load_profile("gradstable")


def pytest_collection_finish() -> None:
    set_apart()
    gc.set_threshold(10_000, 20, 100)


def set_apart() -> None:
    """Let the garbage collector look no more at what is there, most of which stays to the end.

    A tenth of the time went there, and more wherever JAX collects garbage to look for leaks.
    """
    gc.collect()
    gc.freeze()


# JAX keeps the MLIR module of every program, and with it a context; each context makes the next one
# slower: with 2000 of them a program takes twice as long to compile. Compiled programs stay.
MAX_MODULES = 200
_lowered: list[str] = []


def _note(event: str, duration: float, **_: object) -> None:
    del duration
    if event.endswith("backend_compile_duration"):
        _lowered.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


def pytest_runtest_teardown() -> None:
    """Drop MLIR modules once there are many; these caches are private, so only where they exist."""
    if len(_lowered) > MAX_MODULES:
        _lowered.clear()
        for room, name in ((pxla, "_cached_lowering_to_hlo"), (pjit, "_pjit_lower")):
            if hasattr(room, name):
                getattr(room, name).cache_clear()
        set_apart()


@pytest.fixture(autouse=True)
def fresh_trace_counter() -> Iterator[None]:
    """chex counts traces by the place of a definition, over all tests."""
    chex.clear_trace_counter()
    yield
    chex.clear_trace_counter()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
