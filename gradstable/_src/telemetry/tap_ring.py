"""Keep what taps have measured in a ring in the state, beside the rows of ``gs.record``."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gradstable._src.core.names import Unnamed, answers_as_inner, named_again, without_names
from gradstable._src.core.numerics import increment
from gradstable._src.core.scale import wrapping
from gradstable._src.core.select import own_arrays
from gradstable._src.core.tree_checks import check_state
from gradstable._src.taps.kinds import HeadSums, Sums, TapSums
from gradstable._src.taps.summary import COLUMNS, summaries
from gradstable._src.taps.sums import CALLS

# A row of a slot: the numbers of the value, then those of its gradient, then the head that they
# are of: that with the largest logit, -1 if there are no heads.
SIDE: tuple[str, ...] = COLUMNS[1:]
TAP_WIDTH = 2 * len(SIDE) + 1


@answers_as_inner
class TapRingState(NamedTuple):
    """State of ``record`` around its inner transform if it keeps taps."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    rows_kept: jax.Array  # shape=(), dtype=jnp.int32
    row_calls: jax.Array  # shape=(rows,), dtype=jnp.int32, the step of each row, 0: none
    tap_rows: Unnamed  # by name: shape=(rows, [layers,] TAP_WIDTH), dtype=jnp.float32
    wrapped_state: Any


def check_taps(taps: object) -> dict[str, Sums]:
    """Return the taps that ``record`` is to keep, or raise.

    Raises:
      TypeError: if they are not taps.
      ValueError: if there are none.
    """
    if not isinstance(taps, Mapping) or not all(
        isinstance(one, (TapSums, HeadSums)) for one in taps.values()
    ):
        msg = (
            "taps must be what gradstable.taps.shapes(loss_fn, ...) returns, or the taps of a "
            f"step, got {type(taps).__name__}"
        )
        raise TypeError(msg)
    if not taps:
        msg = "taps is empty: the loss has no gradstable.tap. Add one, or leave out taps="
        raise ValueError(msg)
    return dict(sorted(taps.items()))


def keep_taps(
    inner: optax.GradientTransformationExtraArgs, taps: Mapping[str, Sums], *, rows: int, every: int
) -> optax.GradientTransformationExtraArgs:
    """Return a transform that does the same, and keeps what it gets as ``taps=`` in its state.

    Args:
      inner: the transform.
      taps: shapes of what the update will get.
      rows: how many rows to keep.
      every: how many steps are between two of them, at least.
    """
    forms = {name: _form(sums) for name, sums in taps.items()}

    def init_fn(params: optax.Params) -> TapRingState:
        rings = {name: jnp.zeros((rows, *shape), jnp.float32) for name, (_, shape) in forms.items()}
        return TapRingState(
            calls=jnp.zeros((), jnp.int32),
            rows_kept=jnp.zeros((), jnp.int32),
            row_calls=jnp.zeros((rows,), jnp.int32),
            tap_rows=without_names(rings, ()),
            wrapped_state=own_arrays(inner.init(params)),
        )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        taps: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TapRingState]:
        old = check_state(state, TapRingState, "record")
        _check_given(taps, forms)
        new_updates, inner_state = inner.update(updates, old.wrapped_state, params, **extra_args)
        count = increment(old.calls)
        last = old.row_calls[(old.rows_kept - 1) % rows]
        due = _is_measured(taps) & ((old.rows_kept == 0) | (count - last >= every))
        place = old.rows_kept % rows

        def keep(rings: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return {name: ring.at[place].set(_row(taps[name])) for name, ring in rings.items()}

        rings = lax.cond(due, keep, lambda rings: rings, named_again(old.tap_rows))
        return new_updates, TapRingState(
            calls=count,
            rows_kept=jnp.where(due, increment(old.rows_kept), old.rows_kept),
            row_calls=old.row_calls.at[place].set(jnp.where(due, count, old.row_calls[place])),
            tap_rows=without_names(rings, ()),
            wrapped_state=inner_state,
        )

    return wrapping(inner, init_fn, update_fn)


def tap_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row's taps that are worth a curve, by ``<tap>/<what>``."""
    found: dict[str, float] = {}
    for name, numbers in row.get("taps", {}).items():
        for side, start in (("forward", 0), ("gradient", len(SIDE))):
            for what in ("rms", "max_abs"):
                value = numbers[start + SIDE.index(what)]
                if not math.isnan(value):  # of attention logits, not all is known
                    found[f"{name}/{side}_{what}"] = value
    return found


def _form(sums: Sums) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of what a tap leaves, and that of its row."""
    slots = sums.forward.shape[:-1]
    layers = slots[:-1] if isinstance(sums, HeadSums) else slots
    return tuple(sums.forward.shape), (*layers, TAP_WIDTH)


def _is_measured(taps: Mapping[str, Sums]) -> jax.Array:
    return jnp.any(jnp.stack([jnp.any(sums.forward[..., CALLS] > 0) for sums in taps.values()]))


def _row(sums: Sums) -> jax.Array:
    """Return the row of each slot, of attention logits that of the head with the largest one."""
    both = jnp.concatenate([numbers[..., 1:] for numbers in summaries(sums)], axis=-1)
    if not isinstance(sums, HeadSums):
        return jnp.concatenate([both, jnp.full_like(both[..., :1], -1.0)], axis=-1)
    largest = both[..., SIDE.index("max_abs")]
    # A NaN is a head that did not run.
    head = jnp.argmax(jnp.where(largest >= 0, largest, jnp.full_like(largest, -1.0)), axis=-1)
    row = jnp.take_along_axis(both, head[..., None, None], axis=-2)[..., 0, :]
    return jnp.concatenate([row, head[..., None].astype(row.dtype)], axis=-1)


def _check_given(taps: Any, forms: Mapping[str, Any]) -> None:
    if taps is None:
        msg = (
            "this record keeps taps, so the update needs them: update(..., taps=taps), with the "
            "taps of gradstable.taps.value_and_grad"
        )
        raise ValueError(msg)
    given = {name: _form(sums) for name, sums in check_taps(taps).items()}
    for name in sorted({*given, *forms}):
        if given.get(name) != forms.get(name):
            here, there = (
                f"{shape[0]}" if shape else "nothing"
                for shape in (given.get(name), forms.get(name))
            )
            msg = (
                f"taps has {here} for {name!r}, where this record was built for {there}: build "
                "it with taps=gradstable.taps.shapes(loss_fn, ...) of this very loss"
            )
            raise ValueError(msg)
