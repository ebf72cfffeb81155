"""Differentiate a loss with respect to its parameters, and to the probes of its taps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradstable._src.taps.kinds import Spec, Sums
from gradstable._src.taps.probe import Probes, checked, outside_of, visible


def value_and_grad(
    loss_fn: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    when: ArrayLike = True,
) -> Callable[..., tuple[tuple[Any, Any], dict[str, Sums]]]:
    r"""Return a function like that of ``jax.value_and_grad``, which also returns what taps left.

    Use it in place of ``jax.value_and_grad`` in a training step, with ``gs.tap`` in the model.
    Value and gradient are the same. Read the taps with ``gs.taps.read``, or pass them to the update
    of ``gs.record(..., taps=...)``. Names are found by tracing the loss once more, which takes time
    only in compilation.

    With ``when=step % 50 == 0``, taps are measured in every 50th step only, and nothing is ever
    recompiled. In the other steps all statistics are zero, and what is left of the taps is that
    XLA cannot fuse across them: their values are written to memory, as most are for the backward
    pass anyway. Call it inside of ``jax.jit``; outside, functions that are jitted inside of the
    loss are compiled again in each call.

    Args:
      loss_fn: a function to differentiate, as for ``jax.value_and_grad``.
      argnums: which arguments to differentiate, as there. Default: the first.
      has_aux: whether ``loss_fn`` returns a pair, of which the second part is passed on. Default
        ``False``.
      when: whether to measure in this call: a bool, or traced as one. Default: always.

    Returns:
      A function of the arguments of ``loss_fn``, which returns ``(value, gradient), taps``. The
      first part is that of ``jax.value_and_grad``; ``taps`` is a dictionary of sums by name, with
      the same structure in each call. Sums of devices or micro-batches can be added
      (``jax.lax.psum``), or merged: ``gs.taps.merge``.

    Raises:
      TypeError: if ``loss_fn`` is not callable, or ``when`` is not a scalar bool.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> @jax.jit
      ... def grads_of(w, x, step):
      ...     loss_fn = lambda w: jnp.mean(gs.tap("activation", jnp.tanh(w * x)) ** 2)
      ...     return gs.taps.value_and_grad(loss_fn, when=step % 10 == 0)(w)
      >>> calls = []
      >>> for step in range(20):
      ...     (loss, grad), taps = grads_of(1.5, jnp.ones(3), step)
      ...     calls.append(gs.taps.read(taps)["activation"]["forward"]["calls"])
      >>> [step for step, number in enumerate(calls) if number]
      [0, 10]
    """
    check_loss_fn(loss_fn)
    measured = measures_when(when)
    several = not isinstance(argnums, int)
    positions = tuple(argnums) if several else (argnums,)

    def run(*args: Any, **kwargs: Any) -> tuple[tuple[Any, Any], dict[str, Sums]]:
        specs = specs_of(loss_fn, args, kwargs, positions)
        probes = {name: spec.zeros() for name, spec in specs.items()}

        outside = outside_of((args, kwargs, measured))

        def probed(probes: dict[str, Sums], *args: Any) -> Any:
            with visible(Probes({}, probes, measured, outside)):
                return loss_fn(*args, **kwargs)

        shifted = (0, *(at % max(len(args), 1) + 1 for at in positions))
        value, (taps, *grads) = jax.value_and_grad(probed, argnums=shifted, has_aux=has_aux)(
            probes, *args
        )
        taps = checked(taps, outside, value[0] if has_aux else value)
        return (value, tuple(grads) if several else grads[0]), taps

    return run


def shapes(loss_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Sums]:
    """Return the shapes of what the taps in a loss leave, without computing anything.

    Use it to tell ``gs.record(..., taps=...)`` what it is going to keep.

    Args:
      loss_fn: the loss.
      *args: its arguments, arrays or their shapes (``jax.ShapeDtypeStruct``).
      **kwargs: the same, by name.

    Returns:
      A dictionary by name, as from ``gs.taps.value_and_grad``, with ``jax.ShapeDtypeStruct`` in
      place of arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.taps.shapes(lambda x: jnp.sum(gs.tap("h", x)), jnp.ones(3))["h"].forward.shape
      (100,)
    """
    specs = specs_of(loss_fn, args, kwargs, tuple(range(len(args))))
    return jax.eval_shape(lambda: {name: spec.zeros() for name, spec in specs.items()})


def specs_of(
    loss_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, positions: Sequence[int]
) -> dict[str, Spec]:
    """Return the taps of a function in sorted order, found by tracing it once.

    Only the arguments at these positions become abstract, and shapes: others may steer it.
    """
    found: dict[str, Spec] = {}
    traced = {at % max(len(args), 1) for at in positions}
    leaves, structure = jax.tree.flatten((args, kwargs))
    owners = [path[1].idx if path[0].idx == 0 else -1
              for path, _ in jax.tree_util.tree_leaves_with_path((args, kwargs))]  # fmt: skip
    abstract = [
        at
        for at, (leaf, owner) in enumerate(zip(leaves, owners, strict=True))
        if isinstance(leaf, jax.ShapeDtypeStruct)
        or (owner in traced and (hasattr(leaf, "dtype") or isinstance(leaf, float)))
    ]

    def trace(arrays: list[Any]) -> None:
        filled = list(leaves)
        for at, array in zip(abstract, arrays, strict=True):
            filled[at] = array
        given, named = jax.tree.unflatten(structure, filled)
        with visible(Probes(found, None, None, None)):
            loss_fn(*given, **named)  # what it returns need not be arrays

    jax.eval_shape(trace, [leaves[at] for at in abstract])
    return dict(sorted(found.items()))


def check_loss_fn(loss_fn: object) -> None:
    """Raise ``TypeError`` unless an argument can be called."""
    if not callable(loss_fn):
        msg = f"loss_fn must be a function of the parameters, got {loss_fn!r}"
        raise TypeError(msg)


def measures_when(when: ArrayLike) -> jax.Array | None:
    """Return whether to measure as an array, or ``None`` if that is always."""
    if when is True:
        return None
    is_bool = isinstance(when, bool) or getattr(when, "dtype", None) == np.bool_
    if not is_bool or np.ndim(when):
        msg = f"when must be a bool, such as step % 50 == 0, got {when!r}"
        raise TypeError(msg)
    return jnp.asarray(when)
