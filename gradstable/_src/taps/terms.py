"""Named terms of a loss, and the norm of the gradient of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradstable._src.core.norms import global_norm
from gradstable._src.core.numerics import statistic, unknown
from gradstable._src.taps.differentiate import check_loss_fn, measures_when


def terms(
    loss_fn: Callable[..., Mapping[str, Any]],
    *,
    argnums: int | Sequence[int] = 0,
    when: ArrayLike = True,
) -> Callable[..., tuple[tuple[dict[str, jax.Array], Any], dict[str, jax.Array]]]:
    r"""Return a function that differentiates the sum of named terms, and measures each.

    Use it if a loss is a sum, such as a cross-entropy, an auxiliary loss of a router, and a
    penalty, and you want to know which of them drives the parameters. The gradient is that of their
    sum; multiply a term by its weight in ``loss_fn``.

    The norms cost one more backward pass for each term, with the forward pass shared. With
    ``when=step % 50 == 0``, only every 50th step pays for them. Pass them to
    ``gs.telemetry.Log.scalars`` to have them in the log.

    Args:
      loss_fn: a function that returns a dictionary of scalars by name.
      argnums: which arguments to differentiate, as for ``jax.value_and_grad``. Default: the first.
      when: whether to measure the norms in this call: a bool, or traced as one. Default: always.

    Returns:
      A function of the arguments of ``loss_fn``, which returns ``(terms, gradient), norms``: the
      dictionary of ``loss_fn``, the gradient of its sum, and the global norm of the gradient of
      each term, float32 by name, or NaN if it is not measured.

    Raises:
      TypeError: if ``loss_fn`` is not callable, or ``when`` is not a scalar bool.
      ValueError: when called, if ``loss_fn`` does not return a dictionary of real scalars.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(w):
      ...     return {"fit": jnp.sum((w - 3.0) ** 2), "decay": 0.5 * jnp.sum(w**2)}
      >>> (terms, gradient), norms = gs.taps.terms(loss_fn)(jnp.array([3.0, 4.0]))
      >>> {name: norm.item() for name, norm in norms.items()}, gradient.tolist()
      ({'decay': 5.0, 'fit': 2.0}, [3.0, 6.0])
    """
    check_loss_fn(loss_fn)
    measured = measures_when(when)
    several = not isinstance(argnums, int)
    positions = tuple(argnums) if several else (argnums,)

    def run(*args: Any, **kwargs: Any) -> Any:
        places = [at % max(len(args), 1) for at in positions]

        def of(*chosen: Any) -> dict[str, jax.Array]:
            filled = list(args)
            for at, one in zip(places, chosen, strict=True):
                filled[at] = one
            return _check_terms(loss_fn(*filled, **kwargs))

        values, back = jax.vjp(of, *(args[at] for at in places))
        gradient = back({name: jnp.ones_like(one) for name, one in values.items()})

        def measure() -> dict[str, jax.Array]:
            return {name: _norm(back(_only(name, values))) for name in values}

        def skip() -> dict[str, jax.Array]:
            return {name: jnp.full_like(one, unknown()) for name, one in kinds.items()}

        kinds = jax.eval_shape(measure)
        norms = measure() if measured is None else lax.cond(measured, measure, skip)
        return (values, gradient if several else gradient[0]), norms

    return run


def _norm(gradient: Any) -> jax.Array:
    return statistic(global_norm(gradient))


def _only(name: str, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return 1 for one term and 0 for all others."""
    return {one: jnp.full_like(value, one == name) for one, value in values.items()}


def _check_terms(found: Any) -> dict[str, jax.Array]:
    if not isinstance(found, Mapping) or not found:
        msg = f"loss_fn must return a dictionary of scalars by name, got {type(found).__name__}"
        raise ValueError(msg)
    arrays = {name: jnp.asarray(one) for name, one in found.items()}
    for name, one in arrays.items():
        if one.ndim or not jnp.issubdtype(one.dtype, jnp.floating):
            msg = (
                f"loss_fn must return real scalars, but its term {name!r} has shape {one.shape} "
                f"and dtype {one.dtype}: reduce it with jnp.mean"
            )
            raise ValueError(msg)
    return arrays
