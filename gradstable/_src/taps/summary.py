"""Turn sums into numbers: on the device for a record, on the host for a person."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.numerics import unknown
from gradstable._src.taps.kinds import HeadSums, Sums, labels_of
from gradstable._src.taps.sums import (
    CALLS,
    ENTRIES,
    FOURTHS,
    LARGEST,
    MAX_SCALES,
    NOT_FINITE,
    POWER,
    POWERS,
    RUNS,
    SATURATED,
    SQUARES,
    SUM_SCALES,
    ZEROS,
)

# What is known about a value, or about its gradient, in this order.
COLUMNS = ("calls", "rms", "max_abs", "max_factor", "kurtosis", "zeros", "saturated", "not_finite")
# A bound stays one after rounding.
_ROUNDING = 1 + 2.0**-18


def short(number: np.floating) -> float:
    """Return a number with as many digits as float32 holds, without the tail of float64."""
    return float(str(number))


def read(taps: Mapping[str, Sums]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the statistics of all taps as plain numbers; waits for the step and fetches them.

    Args:
      taps: the taps of ``gs.taps.value_and_grad``, or several of them merged.

    Returns:
      A dictionary by the name of the tap, ``name/layer`` for each layer, and ``name/head_3`` for
      each head of attention logits. Each has ``"forward"`` and ``"gradient"``, with:

      - ``calls``: how often the tap ran; 0 if it was not reached, or on a step that does not
        measure. Then all other numbers are NaN;
      - ``rms``: root mean square of the finite entries;
      - ``max_abs``: the largest absolute value of a finite entry; of attention logits, the largest
        logit, at least 0. It is exact if ``max_factor`` is 1, and else an upper bound;
      - ``max_factor``: by which factor ``max_abs`` is too large at most: 1 for a single call, else
        its number to the power of 1/24, which is 1.1 for 10 calls and 1.33 for 1,000;
      - ``kurtosis``: the mean fourth power over the squared mean square, about 0 and not about the
        mean: 1 if all sizes are equal, 3 for a normal distribution around 0, large with outliers;
      - ``zeros``, ``saturated``: shares of the finite entries;
      - ``not_finite``: share of all entries that are NaN, infinite, or beyond float32; of attention
        logits, ``-inf`` does not count.

      Of attention logits going forward, only the largest and ``not_finite`` are known; the others
      are NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> loss_fn = lambda w: jnp.sum(gs.tap("h", w * jnp.array([3.0, 0.0, -3.0, 0.0])))
      >>> _, taps = gs.taps.value_and_grad(loss_fn)(2.0)
      >>> found = gs.taps.read(taps)["h"]["forward"]
      >>> found["max_abs"], found["kurtosis"], found["zeros"]
      (6.0, 2.0, 0.5)
    """
    numbers = jax.device_get({name: summaries(sums) for name, sums in taps.items()})
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, sums in taps.items():
        forward, gradient = (rows.reshape(-1, len(COLUMNS)) for rows in numbers[name])
        for label, one, other in zip(labels_of(name, sums), forward, gradient, strict=True):
            found[label] = {"forward": _named(one), "gradient": _named(other)}
    return found


def _named(row: np.ndarray) -> dict[str, float]:
    named = dict(zip(COLUMNS, map(short, row), strict=True))
    return {**named, "calls": int(row[0])}


def summaries(sums: Sums) -> tuple[jax.Array, jax.Array]:
    """Return the numbers of value and gradient, float32 ``[*slots, len(COLUMNS)]``."""
    forward, gradient = _summary(sums.forward), _summary(sums.gradient)
    if isinstance(sums, HeadSums):
        known = np.isin(COLUMNS, ("calls", "max_abs", "max_factor", "not_finite"))
        forward = jnp.where(known, forward, jnp.full_like(forward, unknown()))
    return forward, gradient


def max_logits(taps: Mapping[str, Sums]) -> dict[str, jax.Array]:
    """Return the largest attention logit of each head, as ``gs.clipping.qk_clip`` takes them.

    It works inside of ``jit``. If ``taps`` are those of several micro-batches, merged, these are
    the largest of all.

    Args:
      taps: the taps of ``gs.taps.value_and_grad``; those that are not of
        ``gs.taps.attention_logits`` are left out.

    Returns:
      float32 ``[heads]`` by name, or ``[layers, heads]``. 0 on a step that does not measure, which
      ``qk_clip`` leaves alone. If a tap ran several times, as when the same layer is used twice, up
      to ``max_factor`` too large: see ``gs.taps.read``.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> params = {name: {"kernel": jnp.ones((3, 2, 4))} for name in ("query", "key")}
      >>> def loss_fn(params, x):
      ...     q, k = (jnp.einsum("td,dhe->the", x, params[n]["kernel"]) for n in ("query", "key"))
      ...     logits = gs.taps.attention_logits("attention", jnp.einsum("qhe,khe->hqk", q, k))
      ...     return jnp.mean(jax.nn.softmax(logits) ** 2)
      >>> x = 3.0 * jnp.ones((5, 3))
      >>> _, taps = gs.taps.value_and_grad(loss_fn)(params, x)
      >>> gs.taps.max_logits(taps)["attention"].tolist()
      [324.0, 324.0]
    """
    return {
        name: largest_of(sums.forward)[0]
        for name, sums in taps.items()
        if isinstance(sums, HeadSums)
    }


@jax.jit
def _summary(rows: jax.Array) -> jax.Array:
    """Return the columns of ``COLUMNS`` from rows of sums."""
    calls, entries = rows[..., CALLS], rows[..., ENTRIES]
    every = entries + rows[..., NOT_FINITE]
    largest, factor = largest_of(rows)
    rms, kurtosis = _moments(rows, entries)
    known = calls > 0
    shares = [_over(rows[..., column], entries) for column in (ZEROS, SATURATED)]
    numbers = [rms, largest, factor, kurtosis, *shares, _over(rows[..., NOT_FINITE], every)]
    nothing = jnp.full_like(rms, unknown())
    return jnp.stack([calls, *(jnp.where(known, one, nothing) for one in numbers)], axis=-1)


def largest_of(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the largest of all calls, or a bound, and by which factor that is too large at most.

    The sum of the maxima is the maximum if there was one call. The 24th root of the sum of the 24th
    powers is at least the maximum, and at most that of equal ones.
    """
    runs, powers = rows[..., RUNS], rows[..., POWERS]
    scale, power = _highest(powers, MAX_SCALES)
    bound = scale * power ** (1 / POWER) * np.float32(_ROUNDING)
    several = runs > 1
    largest = jnp.where(several, jnp.minimum(bound, rows[..., LARGEST]), rows[..., LARGEST])
    factor = jnp.maximum(runs, 1) ** (1 / POWER) * np.float32(_ROUNDING**2)
    return largest, jnp.where(several, factor, jnp.ones_like(factor))


def _moments(rows: jax.Array, entries: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the root mean square, and the mean fourth power over the mean square squared."""
    squares, fourths = rows[..., SQUARES], rows[..., FOURTHS]
    top = len(SUM_SCALES) - 1 - jnp.argmax(squares[..., ::-1] > 0, axis=-1)
    scale = jnp.asarray(SUM_SCALES)[top]
    # Relative to the highest range, so that nothing overflows; what is far below does not count.
    below = top[..., None] - np.arange(len(SUM_SCALES))
    ratio = jnp.where(below >= 0, jnp.exp2(-16.0 * below), jnp.zeros_like(squares))
    second = _over(jnp.sum(squares * ratio**2, axis=-1), entries)
    fourth = _over(jnp.sum(fourths * ratio**4, axis=-1), entries)
    return jnp.sqrt(second) * scale, _over(fourth, second * second)


def _highest(columns: jax.Array, scales: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Return scale and value of the last column that is not zero."""
    top = columns.shape[-1] - 1 - jnp.argmax(columns[..., ::-1] > 0, axis=-1)
    value = jnp.take_along_axis(columns, top[..., None], axis=-1)[..., 0]
    return jnp.asarray(scales)[top], value


def _over(number: jax.Array, other: jax.Array) -> jax.Array:
    """Return a quotient, and 0 where the other is 0."""
    safe = jnp.where(other > 0, other, jnp.ones_like(other))
    return jnp.where(other > 0, number / safe, jnp.zeros_like(number))
