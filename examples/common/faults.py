"""The faults of the examples. Each is a real cause; no gradient is ever modified."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

Fault = Literal["none", "bad-batch", "lr-spike", "exploding-init", "fp16"]
FAULTS: tuple[Fault, ...] = ("none", "bad-batch", "lr-spike", "exploding-init", "fp16")

BATCH_GAIN = 1e4
LOSS_SCALE = 2.0**16

Batch = TypeVar("Batch", bound=tuple)


def spoil(
    batch: Batch, *, step: int, fault: Fault, at: int, fields: Sequence[str] | None = None
) -> Batch:
    """Return the batch as it arrives at this step (the first is 1).

    bad-batch: for two steps the floating-point arrays are 10,000 times too large, as if a sensor
    had the wrong gain, and in the third step one of their entries is NaN.

    Args:
      batch: a named tuple of NumPy arrays.
      step: counted from 1.
      fault: only "bad-batch" has an effect.
      at: the first of the three bad steps.
      fields: which arrays to change. Default: all floating-point ones. If inputs are integers, such
        as text, name floating-point targets or the weights of the examples.
    """
    if fault != "bad-batch" or not at <= step < at + 3:
        return batch
    named: Any = batch
    arrays = named._asdict()
    hit = fields or [name for name, x in arrays.items() if np.issubdtype(x.dtype, np.floating)]
    if not hit:
        raise ValueError(f"no floating array in the batch: it has {', '.join(arrays)}")
    damage = _amplify if step < at + 2 else _lose_one
    return named._replace(**{name: damage(arrays[name]) for name in hit})


def spike(
    schedule: optax.Schedule, *, fault: Fault, at: int, steps: int = 20, factor: float = 100.0
) -> optax.Schedule:
    """Return the schedule with the fault: lr-spike multiplies the rate for some steps."""
    if fault != "lr-spike":
        return schedule

    def slipped(count: Any) -> Any:
        step = jnp.asarray(count) + 1  # optax counts from 0
        inside = (step >= at) & (step < at + steps)
        return schedule(count) * jnp.where(inside, factor, 1.0)

    return slipped


def explode_params(params: Any, *, fault: Fault, factor: float) -> Any:
    """Return a tree of initial parameters; exploding-init makes its matrices too large."""
    if fault != "exploding-init":
        return params
    return jax.tree.map(lambda p: p * factor if p.ndim >= 2 else p, params)


def explode(model: nnx.Module, *, fault: Fault, factor: float) -> None:
    """Apply ``explode_params`` to a new NNX model."""
    params = nnx.state(model, nnx.Param)
    nnx.update(model, explode_params(params, fault=fault, factor=factor))


def dtype(fault: Fault) -> Any:
    """Return the dtype the layers compute in; their parameters are always float32."""
    return jnp.float16 if fault == "fp16" else jnp.float32


def value_and_grad(
    loss_fn: Callable[..., Any],
    *,
    fault: Fault,
    scale: float = LOSS_SCALE,
    has_aux: bool = False,
    transform: Callable[..., Any] = nnx.value_and_grad,
) -> Callable[..., tuple[Any, Any]]:
    """Return a function from (model, ...) to the loss and its gradient.

    fp16: the loss is scaled by a fixed factor before backpropagation, which keeps small gradients
    from vanishing in float16, and the gradient is scaled back in float32. Nothing lowers the
    scale if it is too high for a batch: an entry of the scaled gradient that exceeds 65504
    overflows.

    Args:
      loss_fn: from a model (or parameters) and further arguments to a loss, or to (loss, aux).
      fault: only "fp16" scales.
      scale: the factor, a power of two so that scaling itself does not round.
      has_aux: whether ``loss_fn`` returns an aux; then the first result is (loss, aux).
      transform: ``jax.value_and_grad`` for models that are not NNX.
    """
    if fault != "fp16":
        return transform(loss_fn, has_aux=has_aux)

    def scaled(*args: Any) -> tuple[Any, Any]:
        result = loss_fn(*args)
        loss = result[0] if has_aux else result
        return loss.astype(jnp.float32) * scale, result

    grad_fn = transform(scaled, has_aux=True)

    def unscaled(*args: Any) -> tuple[Any, Any]:
        (_, result), gradients = grad_fn(*args)
        return result, jax.tree.map(lambda g: g / scale, gradients)

    return unscaled


def _amplify(x: np.ndarray) -> np.ndarray:
    return x * np.asarray(BATCH_GAIN, x.dtype)


def _lose_one(x: np.ndarray) -> np.ndarray:
    lost = x.copy()
    lost.flat[x.size // 2] = np.nan
    return lost
