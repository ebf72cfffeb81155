"""The taps that a model has: the identity wherever nobody looks."""

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.checks import check_name, check_number, check_size
from gradstable._src.taps.kinds import HEADS, Spec
from gradstable._src.taps.probe import Probes, active, tapped


def tap(
    name: str,
    x: jax.Array,
    *,
    layer: jax.Array | int | None = None,
    layers: int | None = None,
    saturated_at: float | None = None,
) -> jax.Array:
    r"""Return ``x``, and let it and its gradient leave statistics.

    Use it inside of a model wherever you want to see what grows: attention outputs, the residual
    stream, the input of a normalization. The statistics come out of
    ``gs.taps.value_and_grad(loss_fn)``. Anywhere else, ``tap`` returns ``x`` itself and adds
    nothing to the program. Value and gradient pass through bit for bit.

    RMS, kurtosis, largest absolute value, and the shares of entries that are zero, saturated or not
    finite are kept of ``x`` and of the gradient of the loss with respect to it. Not more than that
    is written: nothing calls back to the host, and nothing has a side effect. Taps work inside of
    ``jit``, ``scan``, ``cond``, ``vmap``, ``jax.checkpoint`` and ``shard_map``, and in models of
    Flax. A loop over layers gives each layer its slot by ``layer`` and ``layers``.

    If a tap runs several times, as in a scan over time, its statistics are those of all these calls
    together, and the largest value becomes an upper bound: see ``max_factor`` in ``gs.taps.read``.
    The same holds if the same name is used twice. A whole ``vmap`` is a single call, and so are all
    devices of a ``shard_map``. With ``check_vma=False`` there is a call on each device; if the
    whole step is inside, add the taps with ``jax.lax.psum``.

    What the loss does not depend on leaves nothing: the result of the tap has to be used. What is
    computed from constants and from frozen parameters does leave statistics, for which the backward
    pass has to reach it. Two places are closed to taps. In a function with its own derivative
    (``jax.custom_vjp``, ``jax.custom_jvp``), JAX reports an ``UnexpectedTracerError`` under
    ``jit``: tap what goes into it, or what comes out. And a loss that uses forward-mode derivatives
    (``jax.jvp``) of the tapped part is refused; gradients inside of the loss, as in a gradient
    penalty, are fine.

    Args:
      name: the name under which the statistics appear, such as ``"block_3/mlp"``.
      x: array of any shape, floating-point.
      layer: the index of the layer, from 0; an integer, or traced as in a scan. Default: the tap is
        not in a loop over layers. An index out of range leaves nothing.
      layers: how many layers there are, >= 1; needed with ``layer``.
      saturated_at: the absolute value from which on an entry counts as saturated, > 0. Default:
        half the largest number of the dtype, the last power of two before it overflows, which is
        32752 for float16. For a ``tanh`` or a gate, take 0.99.

    Returns:
      ``x``.

    Raises:
      TypeError: if ``name`` is not a name, or ``x`` is not a floating-point array: the message
        names the tap.
      ValueError: if only one of ``layer`` and ``layers`` is given, a number is out of range, or the
        same name is used with other ``layers`` or another ``saturated_at``.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(w, x):
      ...     return jnp.sum(gs.tap("hidden", w * x) ** 2)
      >>> (loss, grad), taps = gs.taps.value_and_grad(loss_fn)(2.0, jnp.array([0.0, 3.0, -4.0]))
      >>> found = gs.taps.read(taps)["hidden"]
      >>> found["forward"]["max_abs"], found["gradient"]["max_abs"], loss.item(), grad.item()
      (8.0, 16.0, 100.0, 100.0)

    Source:
      Ours. Names in the middle of a model, for a caller to see: ``sow`` and ``perturb`` of Flax,
      ``sow`` and ``reap`` of Oryx.
    """
    _check(name, x)
    if saturated_at is None:
        saturated_at = float(jnp.finfo(x.dtype).max) / 2
    check_number("saturated_at", saturated_at, above=0.0)
    return _tap(x, _spec(name, layer, layers, None, float(saturated_at)), layer)


def attention_logits(
    name: str,
    logits: jax.Array,
    *,
    layer: jax.Array | int | None = None,
    layers: int | None = None,
) -> jax.Array:
    r"""Return attention logits, and let the largest of each head leave its value.

    Use it on the scaled logits, before the softmax, in a training that ``gs.tap`` watches, or
    together with ``gs.clipping.qk_clip``: then call the tap like the attention module,
    ``"block_0/attention"``, and pass ``gs.taps.max_logits(taps)`` to the update. The largest is
    that of the whole batch and of all pairs of tokens. It is at least 0: what is masked by ``-inf``
    or by any other negative number does not count. Of the gradient of the logits, all statistics
    of ``gs.tap`` are kept.

    Args:
      name: as for ``gs.tap``; for ``qk_clip``, the path of the attention module.
      logits: array ``[..., heads, q, k]``, floating-point.
      layer: as for ``gs.tap``.
      layers: as for ``gs.tap``.

    Returns:
      ``logits``.

    Raises:
      TypeError: as for ``gs.tap``.
      ValueError: as for ``gs.tap``, and if ``logits`` has fewer than three axes.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(q, k):
      ...     logits = jnp.einsum("qhd,khd->hqk", q, k)
      ...     return jnp.sum(gs.taps.attention_logits("attention", logits))
      >>> q = k = jnp.arange(8.0).reshape(2, 2, 2)
      >>> _, taps = gs.taps.value_and_grad(loss_fn)(q, k)
      >>> gs.taps.max_logits(taps)["attention"].tolist()
      [41.0, 85.0]

    Source:
      The largest logits of each head: Kimi Team, "Kimi K2: Open Agentic Intelligence", 2025,
      arXiv:2507.20534, section 2.1.
    """
    _check(name, logits)
    if logits.ndim < -HEADS:
        msg = (
            f"attention logits have the shape (..., heads, q, k), got {logits.shape} in the tap "
            f"{name!r}"
        )
        raise ValueError(msg)
    largest = float(jnp.finfo(logits.dtype).max) / 2
    return _tap(logits, _spec(name, layer, layers, logits.shape[HEADS], largest), layer)


def _check(name: object, x: object) -> None:
    check_name("name", name)
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = f"an array of {dtype}" if dtype is not None else f"{type(x).__name__}"
        remedy = "tap each leaf of a tree under its own name"
        if dtype is not None:
            remedy = "nothing but floating-point numbers has a gradient to watch"
            if jnp.issubdtype(dtype, jnp.complexfloating):
                remedy = "tap its real and its imaginary part, or its absolute value"
        msg = f"the tap {name!r} takes a floating-point array, got {what}: {remedy}"
        raise TypeError(msg)


def _spec(
    name: str, layer: object, layers: int | None, heads: int | None, saturated_at: float
) -> Spec:
    if (layer is None) != (layers is None):
        given, missing = ("layers", "layer") if layer is None else ("layer", "layers")
        msg = f"{given} needs {missing}: pass both to the tap {name!r}, or neither"
        raise ValueError(msg)
    if layers is not None:
        check_size("layers", layers, at_least=1)
        if isinstance(layer, (int, np.integer)):
            check_number("layer", layer, at_least=0, below=layers)
        elif not jnp.issubdtype(getattr(layer, "dtype", np.bool_), jnp.integer):
            msg = f"layer must be an integer in the tap {name!r}, got {layer!r}"
            raise TypeError(msg)
    return Spec(name, layers, heads, saturated_at)


def _tap(x: jax.Array, spec: Spec, layer: jax.Array | int | None) -> jax.Array:
    probes: Probes | None = active.value
    if probes is None:
        return x
    if probes.sums is None:
        known = probes.specs.setdefault(spec.name, spec)
        if differs := known.differs_in(spec):
            msg = (
                f"two taps are named {spec.name!r} but have different {differs}: "
                f"{getattr(known, differs)} and {getattr(spec, differs)}. Give each its own name"
            )
            raise ValueError(msg)
        return x
    if spec.name not in probes.sums:  # found only where derivatives are taken
        return x
    return tapped(spec, x, probes, layer)
