"""What every test starts from: fixed seeds, and no memory of other tests."""

import gc
from collections.abc import Iterator

import chex
import hypothesis
import jax
import numpy as np
import pytest

# Simulated devices, for what runs on a mesh; it has to be said before the first array is made.
jax.config.update("jax_num_cpu_devices", 8)

# The same examples in every run, few enough for every commit; compiling may take its time.
hypothesis.settings.register_profile(
    "gradstable", derandomize=True, deadline=None, max_examples=25, database=None
)
hypothesis.settings.load_profile("gradstable")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays to the end; a twentieth of the time went there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


# Every program that stays makes the next one dearer: after 2000, JAX takes twice as long for one.
MAX_PROGRAMS = 300
_programs: list[str] = []


def _count(event: str, duration: float, **_: object) -> None:
    del duration
    if event.endswith("backend_compile_duration"):
        _programs.append(event)


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_runtest_teardown() -> None:
    """Let go of compiled programs once there are many."""
    if len(_programs) > MAX_PROGRAMS:
        _programs.clear()
        jax.clear_caches()


@pytest.fixture(autouse=True)
def fresh_trace_counter() -> Iterator[None]:
    """chex counts traces by the place of a definition, over all tests."""
    chex.clear_trace_counter()
    yield
    chex.clear_trace_counter()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
