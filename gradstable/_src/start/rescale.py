"""Rescale weights that make signals explode, layer by layer, before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.checks import check_number
from gradstable._src.core.eager import is_traced
from gradstable._src.core.numerics import is_inexact
from gradstable._src.walk.walk import Place, walk
from gradstable._src.walk.weights import Weights

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

# What these return of an array of weights is the same array, seen in another way.
_VIEWS = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "rev", "squeeze", "transpose"}
)
_LINEAR = frozenset({"conv_general_dilated", "dot_general", "mul"})
# Each pass mends what it meets, in order. A signal that was infinite is only known in the next one.
_PASSES = 30
_FALL = 2.0**-4
# Where the signal has grown this much since the first one, the limit is lower: a product of many
# such layers explodes.
_GROWN, _STRICT = 2.0, 0.875
# How much larger the signal of a weight may become from use to use; sound networks stay far below.
_MOST_GROWTH, _LARGEST = 1e3, 1e38

# A leaf, and where in it: nothing for all of it, a number for a layer of a stack.
Part = tuple[int, tuple[int, ...]]


class Rescaled(NamedTuple):
    """The result of ``rescale_start``.

    Attributes:
      params: the parameters, with the structure and the dtypes of those given.
      factors: what the parts that were too large were multiplied by, by their path. Empty if none
        was.
    """

    params: Any
    factors: dict[str, float]


def rescale_start(
    loss_fn: Callable[..., Any], params: Any, *args: Any, max_gain: float = 1.6
) -> Rescaled:
    r"""Scale down weights whose layer makes its signal larger, so that no run starts exploded.

    Use it once, before ``tx.init``, if the first loss or the first gradient norm is absurd: weights
    of another initialization, a deep network without normalization, a recurrent network with a
    spectral radius above 1. It runs the loss on one batch and looks at every product of a weight
    with a signal, in the order in which they are computed. If it is larger than the signal,

    .. math:: \kappa = \frac{RMS(W x)}{RMS_{\ne 0}(x)} >
              \kappa_{max} \left(1 + 4 / n\right)
              \quad\Rightarrow\quad W \leftarrow W / \kappa

    and the run goes on with the smaller product. The last factor allows for chance in a layer with
    few outputs, ``n``. The limit is an eighth lower where the product is more than twice as large
    as the very first signal, since many such layers in a row would explode. Only the entries of
    the signal that are not zero count, so that initializations by He (after a ReLU) and LeCun, and
    one-hot inputs, have a gain of about 1 and are left alone: a start that is sound passes bit for
    bit. A layer of stacked leaves (in a ``scan``) is scaled by itself. A weight that is used again
    and again, as in a recurrence, is also scaled down if its signal grows more than a thousandfold:
    by the mean growth per use.

    It looks at what ``params`` are used for, whatever the library: matrix products, convolutions,
    and products entry by entry, such as the scale of a norm. Known weakness: embeddings that are
    looked up, and biases, keep their size; and a first layer that is meant to be large, as for
    random features, is scaled down like any other. It is no substitute for the initialization that
    an architecture was designed with, and does not know a residual branch.

    Args:
      loss_fn: function of the parameters and further arguments to a loss, outside of ``jit``.
      params: tree of arrays; other leaves are passed through.
      *args: further arguments, such as a batch and a random key.
      max_gain: :math:`\kappa_{max}`, >= 1. Default 1.6, above the gain of any layer in the sound
        models that we have measured.

    Returns:
      A ``Rescaled``: the parameters, and the factors by path.

    Raises:
      TypeError: if it is called inside ``jit``.
      ValueError: if ``max_gain`` is out of range.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(params, x):
      ...     for weights in params:
      ...         x = jnp.tanh(x @ weights)
      ...     return jnp.mean(x**2)
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = [jax.random.normal(key, (64, 64)) / 8 for key in keys]  # as LeCun
      >>> x = jax.random.normal(jax.random.key(1), (128, 64))
      >>> gs.rescale_start(loss_fn, params, x).factors
      {}
      >>> params[1] *= 16.0
      >>> start = gs.rescale_start(loss_fn, params, x)
      >>> {path: round(factor, 2) for path, factor in start.factors.items()}
      {'[1]': 0.06}
      >>> params = start.params

    Source:
      Ours, after Mishkin, Matas, "All You Need is a Good Init", 2015, arXiv:1511.06422, which
      gives every layer an output of variance 1, from weights made orthogonal.
    """
    check_number("max_gain", max_gain, at_least=1.0)
    if is_traced((params, args)):
        msg = "rescale_start looks at values, so call it outside of jit, before training"
        raise TypeError(msg)
    weights = Weights(params)
    found: dict[Part, float] = {}
    for _ in range(_PASSES):
        gains = _look(loss_fn, weights, _scaled(weights.leaves, found), args, max_gain)
        gains.limit_growth()
        if not gains.factors:
            break
        for part, factor in gains.factors.items():
            found[part] = found.get(part, 1.0) * factor
    names = {part: weights.paths[part[0]] + "".join(f"[{i}]" for i in part[1]) for part in found}
    return Rescaled(
        params=weights.replaced(_scaled(weights.leaves, found)),
        factors={names[part]: factor for part, factor in sorted(found.items())},
    )


def _look(
    loss_fn: Callable[..., Any],
    weights: Weights,
    leaves: Sequence[Any],
    args: tuple[Any, ...],
    max_gain: float,
) -> _Gains:
    """Return the gains of the weights, after one run of the loss with these values of them."""
    given = list(map(jnp.asarray, leaves))
    gains = _Gains(given, max_gain)
    program = jax.make_jaxpr(lambda given: loss_fn(weights.replaced(given), *args))(given)
    walk(program, given, gains)
    return gains


def _scaled(leaves: Sequence[Any], factors: dict[Part, float]) -> list[Any]:
    scaled = list(leaves)
    for (number, index), factor in factors.items():
        leaf = jnp.asarray(scaled[number])
        scaled[number] = leaf.at[index].multiply(jnp.asarray(factor, leaf.dtype))
    return scaled


class _Gains:
    """A visitor that follows weights through views of them, and limits what they produce."""

    def __init__(self, weights: Sequence[jax.Array], max_gain: float) -> None:
        self.factors: dict[Part, float] = {}
        self._max_gain = max_gain
        self._uses: dict[Part, Any] = {}
        self._first = 0.0
        self._signals: dict[Part, list[float]] = {}
        # By identity, together with the array, so that no other can take its place.
        self._seen: dict[int, tuple[Any, Part]] = {
            id(array): (array, (number, ())) for number, array in enumerate(weights)
        }

    def slice(self, whole: Any, part: Any, index: int) -> None:
        """Take a layer of a stack for a part of its leaf."""
        if id(whole) in self._seen:
            number, outer = self._seen[id(whole)][1]
            self._seen[id(part)] = part, (number, (*outer, index))

    def stack(self, parts: Sequence[Any], whole: Any) -> None:
        """Nothing to see: no weights are made."""

    def move(self, before: Any, after: Any) -> None:
        """Nothing to see: a weight inside of ``shard_map`` is not scaled."""

    def equation(
        self, eqn: JaxprEqn, inputs: Sequence[Any], outputs: list[Any], places: tuple[Place, ...]
    ) -> list[Any]:
        """Limit the product of a weight and a signal."""
        del places
        name, known = eqn.primitive.name, [id(array) in self._seen for array in inputs]
        if name in _VIEWS and known[0]:
            self._seen[id(outputs[0])] = outputs[0], self._seen[id(inputs[0])][1]
        if name in _LINEAR and sum(known) == 1:
            which = 0 if known[0] else 1
            weight, signal = inputs[which], inputs[1 - which]
            part = self._seen[id(weight)][1]
            # A derivative in the loss also multiplies by the transpose, whose gain is another.
            use = name, weight.shape, _summed(eqn, which)
            if self._uses.setdefault(part, use) == use:
                outputs = [self._limited(part, _outputs(eqn, weight, which), signal, outputs[0])]
        return outputs

    def limit_growth(self) -> None:
        """Limit the weights whose signal grew from use to use, if nothing else was wrong."""
        if self.factors:
            return
        for part, signals in self._signals.items():
            sizes = np.nan_to_num(np.minimum(signals, _LARGEST), nan=_LARGEST)
            last = int(np.argmax(sizes))
            growth = sizes[last] / sizes[0]
            if growth > _MOST_GROWTH:
                self.factors[part] = float(growth ** (-1.0 / last))
                return

    def _limited(self, part: Part, number: int, signal: Any, product: Any) -> Any:
        if not is_inexact(product) or not np.ndim(signal):
            return product
        product = product * jnp.asarray(self.factors.get(part, 1.0), product.dtype)
        before, after = _rms(signal, only_nonzero=True), _rms(product)
        if before > 0.0:
            self._signals.setdefault(part, []).append(before)
        if before == 0.0 or not np.isfinite(before):
            return product
        gain = after / before
        self._first = self._first or before
        most = self._max_gain * (1.0 + 4.0 / max(number, 1))
        if after > _GROWN * self._first:
            most = max(_STRICT * most, 1.0)
        if gain <= most:
            return product
        factor = 1.0 / gain if np.isfinite(gain) else _FALL
        self.factors[part] = self.factors.get(part, 1.0) * factor
        largest = float(jnp.finfo(product.dtype).max)
        bounded = jnp.nan_to_num(product, nan=0.0, posinf=largest, neginf=-largest)
        return bounded * jnp.asarray(factor, product.dtype)


def _summed(eqn: JaxprEqn, side: int) -> tuple[int, ...]:
    """Return over which dimensions of the weights an equation sums, or only pairs entries."""
    numbers: Any = eqn.params.get("dimension_numbers")
    if eqn.primitive.name == "dot_general":
        contracting, batch = numbers
        return (*contracting[side], *batch[side])
    return tuple(numbers.rhs_spec[1:]) if numbers is not None else ()


def _outputs(eqn: JaxprEqn, weight: Any, side: int) -> int:
    """Return the number of outputs of a layer."""
    summed = _summed(eqn, side)
    return math.prod(size for dim, size in enumerate(weight.shape) if dim not in summed)


def _rms(array: Any, *, only_nonzero: bool = False) -> float:
    sizes = np.abs(np.asarray(array)).astype(np.float64)
    number = np.count_nonzero(sizes) if only_nonzero else sizes.size
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.sum(np.square(sizes)) / max(number, 1)))
