"""Average the gradients of the devices of a mesh, and remember whose stood out."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gradstable._src.core.act import is_gradient
from gradstable._src.core.axis_name import AxisName, Names, as_names, check_axis_name, is_inside
from gradstable._src.core.equations import as_arrays
from gradstable._src.core.ledger import rejections
from gradstable._src.core.manual import check_bound, varying
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.norms import measure
from gradstable._src.core.numerics import increment, largest_norm_in
from gradstable._src.core.order import inside
from gradstable._src.core.parts import (
    OUTLYING,
    Outliers,
    all_parts,
    keep,
    no_outliers,
    outlier_of,
)
from gradstable._src.core.scale import wrapping
from gradstable._src.core.select import compiled_where, own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.taken import takes
from gradstable._src.core.tree_checks import check_state, check_value


@answers_as_inner
class AverageState(NamedTuple):
    """State of ``average``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    left_out: jax.Array  # shape=(), dtype=jnp.int32, gradients of single devices
    left_out_last: jax.Array  # shape=(), dtype=jnp.int32, the device of the last one (-1: none)
    outliers: Outliers
    wrapped_state: Any


@shown
def average(
    inner: optax.GradientTransformation,
    over: str | Sequence[str],
    *,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Average the gradients of all devices in ``jax.shard_map``, and tell whose stands out.

    Use it around the guard in place of ``jax.lax.pmean``, where each device has the gradient of its
    own part of the batch: ``gs.sharding.average(gs.guard(optax.adamw(3e-4)), "data")``. With ``A``
    the devices whose gradient is sound, the inner optimizer gets

    .. math:: \bar g = \frac{1}{|A|} \sum_{i \in A} g_i

    and the mean of their losses, if ``value`` is passed. A gradient is not sound if it has an entry
    that is not finite or a norm above ``2**60``, or if its loss is not finite: one bad example then
    costs its device a step, and not all of them. If no gradient is sound, the mean is NaN, and the
    guard rejects it. If all are, the result is that of ``pmean``, bit for bit.

    The norms of the gradients before the mean are compared, one number for each device. If one of
    them is more than six robust standard deviations (of the logarithm) above the median of all, and
    at least three times as large, its device *stands out*: a bad example, a broken reader, or a
    fault of that machine, which ``gs.replay`` tells apart. If a step is rejected and no device
    stands out, it is not the data. ``gs.explain`` says which device it was at the last rejection,
    and a ``gs.record`` inside keeps it for every step.

    Outside of ``jax.shard_map`` there is nothing to average, and it does nothing.

    Cost: one more read of the gradients, and 8 bytes sent for each device.

    Known weakness: with a loss scale inside, a device whose gradient overflows is left out, and the
    scale falls only if all overflow.

    Args:
      inner: any optax transform, usually a guard.
      over: the mesh axis along which each device has its own part of the batch, or several.
      axis_name: other mesh axes over which the leaves are *split*, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with an ``AverageState``; updates are those of
      ``inner``. Other extra arguments pass through.

    Raises:
      TypeError: if ``inner`` is not a transform, or ``over`` not the name of an axis.
      ValueError: if ``inner`` averages already; in ``update``, if the axis is unknown, or if JAX
        knows that a gradient is already the same on all devices along it.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jax.sharding import PartitionSpec as P
      >>> import gradstable as gs
      >>> tx = gs.sharding.average(gs.guard(optax.sgd(1.0)), "data")
      >>> def step(params, state, x):
      ...     own = jax.lax.pcast(params, "data", to="varying")  # so that gradients are not summed
      ...     gradient = jax.grad(lambda w: jnp.mean(x @ w))(own)
      ...     updates, state = tx.update(gradient, state, params)
      ...     return optax.apply_updates(params, updates), state
      >>> step = jax.shard_map(
      ...     step,
      ...     mesh=jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)),
      ...     in_specs=(P(), P(), P("data")),
      ...     out_specs=P(),
      ... )
      >>> params = jnp.zeros(2)
      >>> jax.jit(step)(params, tx.init(params), jnp.ones((4, 2)))[0].tolist()
      [-1.0, -1.0]

    Source:
      Our own.
    """
    inner = inside("average", inner)
    names = as_names(over)
    if not names:
        msg = f"over must be the name of a mesh axis or a tuple of names, got {over!r}"
        raise TypeError(msg)
    check_axis_name(axis_name)

    def init_fn(params: optax.Params) -> AverageState:
        return AverageState(
            calls=jnp.zeros((), jnp.int32),
            left_out=jnp.zeros((), jnp.int32),
            left_out_last=jnp.full((), -1, jnp.int32),
            outliers=no_outliers(),
            wrapped_state=own_arrays(inner.init(params)),
        )

    tells = takes([inner.update], OUTLYING)
    return wrapping(inner, init_fn, _Update(inner, names, axis_name, tells))


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """The update function, in the order of a step."""

    inner: optax.GradientTransformationExtraArgs
    names: Names
    axis_name: AxisName
    tells: bool  # whether an inner transform records which device stands out

    def __deepcopy__(self, _: object) -> "_Update":
        return self  # like a function

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageState]:
        old = check_state(state, AverageState, "average")
        new = old._replace(calls=increment(old.calls))
        if not is_inside(self.names):
            if jax.sharding.get_abstract_mesh().manual_axes:
                check_bound(self.names)
            new_updates, inner_state = self.inner.update(
                updates, old.wrapped_state, params, **extra_args
            )
            return new_updates, new._replace(wrapped_state=inner_state)

        updates = as_arrays(updates)
        _check_own(updates, self.names)
        measured = measure(updates, axis_name=self.axis_name, apart=self.names)
        sound = measured.finite & (measured.norm <= largest_norm_in(measured.norm.dtype))
        value = extra_args.get("value")
        losses = {} if value is None else {"value": check_value(value, "average")}
        if losses:
            sound &= jnp.isfinite(losses["value"])
        parts = all_parts(self._each(measured.norm), self._each(sound.astype(jnp.int32)) > 0)
        outlier, ended = outlier_of(parts), jnp.asarray(True)
        mean, losses = self._mean((updates, losses), sound)
        told = {OUTLYING: outlier.outlier} if self.tells else {}
        new_updates, inner_state = self.inner.update(
            mean, old.wrapped_state, params, **{**extra_args, **losses, **told}
        )
        more = rejections(inner_state) != rejections(old.wrapped_state)
        return new_updates, new._replace(
            left_out=new.left_out + jnp.minimum(parts.broken_parts, _MOST - new.left_out),
            left_out_last=jnp.where(parts.broken_parts > 0, parts.first_broken, old.left_out_last),
            outliers=keep(old.outliers, outlier, ended=ended, rejected=more),
            wrapped_state=inner_state,
        )

    def _mean(self, tree: Any, sound: jax.Array) -> Any:
        """Return the mean over the devices that are sound; NaN if there are none."""
        leaves, structure = jax.tree.flatten(tree)
        reals = [is_gradient(leaf) for leaf in leaves]
        own = [
            jnp.where(sound, g, jnp.zeros_like(g))
            for g, real in zip(leaves, reals, strict=True)
            if real
        ]
        number, *totals = lax.psum([sound.astype(jnp.int32), *own], self.names)
        least = jnp.maximum(number, 1)
        means = iter(
            compiled_where(number > 0, total / least.astype(total.dtype), jnp.nan)
            for total in totals
        )
        mixed = [next(means) if real else leaf for leaf, real in zip(leaves, reals, strict=True)]
        return jax.tree.unflatten(structure, mixed)

    def _each(self, own: jax.Array) -> jax.Array:
        """Return the numbers of all devices, ``[n]``, the same everywhere."""
        index, number = lax.axis_index(self.names), lax.axis_size(self.names)
        alone = jnp.zeros((number,), own.dtype).at[index].set(own)
        return lax.psum(alone, self.names)


_MOST = jnp.iinfo(jnp.int32).max


def _check_own(updates: Any, names: Names) -> None:
    """Raise ``ValueError`` if JAX knows that a gradient is the same on all devices."""
    tracked = varying(lax.axis_index(names[0]))
    if not tracked:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        same = [name for name in names if is_gradient(leaf) and name not in varying(leaf)]
        if same:
            msg = (
                f"the gradient{jax.tree_util.keystr(path)} is already the same on all devices along"
                f" {same[0]!r}, so there is nothing to average: jax.grad has summed it, since the "
                "parameters are the same there. Take it with respect to "
                f"jax.lax.pcast(params, {same[0]!r}, to='varying'), as in "
                "help(gradstable.sharding.average)"
            )
            raise ValueError(msg)
