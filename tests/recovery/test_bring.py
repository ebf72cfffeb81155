"""Copies that never move are those of a plain list, in whatever order things happen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstable._src.core.find import Copy
from gradstable._src.recovery import bring
from gradstable._src.recovery.turn import Turn

WHAT = (
    "copies",
    "leaves",
    "leaves older",
    "leaves aside",
    "leaves older aside",
    "undoes",
    "forgets",
)


def rearranged(contents: list[int], what: str, now: int) -> list[int]:
    """Return the contents of the copies after a step, the newest first."""
    if what == "copies":
        return [now, *contents[:-1]]
    if what == "undoes":
        return [contents[-1], *contents[1:]]
    if what == "forgets":
        return [*contents[:-1], contents[-2]]
    if "older" in what:
        contents = [*contents[1:], contents[-1]]
    return [*contents[:-1], now] if "aside" in what else contents


def turn(what: str) -> Turn:
    done = {*what.split()}
    flags = dict.fromkeys(Turn._fields, False) | dict.fromkeys(done & {*Turn._fields}, True)
    return Turn(**{name: jnp.asarray(flag) for name, flag in flags.items()})._replace(
        sets_aside=jnp.asarray("aside" in done)
    )


@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_row_that_is_needed_is_never_overwritten(number: int) -> None:
    arrange = jax.jit(bring._arranged)
    rng = np.random.default_rng(number)
    rows, contents = [0] * number, [0] * number
    copies = tuple(Copy(jnp.int32(0), jnp.float32(0), jnp.int32(row)) for row in range(number))
    for now in range(1, 300):
        what = str(rng.choice(WHAT))
        copies, slot = arrange(copies, turn(what), jnp.int32(now), jnp.float32(now))
        if what == "copies" or "aside" in what:
            rows[int(slot)] = now
        contents = rearranged(contents, what, now)
        assert [rows[int(copy.slot)] for copy in copies] == contents, what
        assert [int(copy.taken_at) for copy in copies] == contents
        assert [float(copy.loss_level) for copy in copies] == contents
