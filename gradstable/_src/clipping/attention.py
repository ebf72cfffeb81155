"""Find attention among the parameters, and the factors for its heads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradstable._src.core.tree_checks import leaves_by_path
from gradstable._src.core.units import leaf_names

Names: TypeAlias = tuple[str, ...]


class Projection(NamedTuple):
    """The paths of the weights for queries, or for keys; ``None`` if there is no bias."""

    kernel: str
    bias: str | None


class Attention(NamedTuple):
    """The two projections whose product gives the logits."""

    query: Projection
    key: Projection


def attention_modules(
    params: Any, query: str, key: str, *, allow_missing: bool
) -> dict[Names, Attention]:
    """Return the attention modules among the parameters, by the names on their path.

    A module contains a kernel of each name: ``.../query/kernel``, or ``.../query`` itself.

    Raises:
      ValueError: if there is none, unless that is allowed.
    """
    leaves = leaves_by_path(params)
    paths = {leaf_names(path): path for path, leaf in leaves.items() if leaf is not None}

    def projection(module: Names, name: str) -> Projection | None:
        kernel = paths.get((*module, name, "kernel"), paths.get((*module, name)))
        return None if kernel is None else Projection(kernel, paths.get((*module, name, "bias")))

    found: dict[Names, Attention] = {}
    for names in paths:
        module = names[:-2] if names[-1:] == ("kernel",) else names[:-1]
        queries, keys = projection(module, query), projection(module, key)
        if queries is not None and keys is not None:
            found[module] = Attention(queries, keys)
    if not found and not allow_missing:
        msg = (
            f"no attention in params: no module has a kernel named {query!r} and one named "
            f"{key!r}. Pass their names as query= and key=, or set allow_missing=True"
        )
        raise ValueError(msg)
    return found


def maxima_by_module(
    max_logits: Any, modules: Sequence[Names], *, allow_missing: bool
) -> dict[Names, jax.Array]:
    """Return the largest logits of the heads, for every module that ``max_logits`` covers.

    Raises:
      ValueError: if an entry belongs to no module, or a module has no entry, unless allowed.
    """
    known = ["/".join(names) for names in modules]
    found: dict[Names, jax.Array] = {}
    for path, leaf in leaves_by_path(max_logits).items():
        if leaf is None:
            continue
        module = _module_of(path, modules)
        if module is not None:
            found[module] = jnp.asarray(leaf)
        elif not allow_missing:
            what = (
                f"max_logits{path} belongs to no attention" if path else "max_logits is one array"
            )
            msg = f"{what}: there is attention at {known}. Pass a dictionary with these keys"
            raise ValueError(msg)
    missing = ["/".join(names) for names in modules if names not in found]
    if missing and not allow_missing:
        msg = (
            f"max_logits has no entry for the attention at {missing}: call update(updates, state, "
            "params, max_logits=...) with the largest logit of each head, or set allow_missing=True"
        )
        raise ValueError(msg)
    return found


def _module_of(path: str, modules: Sequence[Names]) -> Names | None:
    names = tuple(part for name in leaf_names(path) for part in name.split("/"))
    if not names:
        return modules[0] if len(modules) == 1 else None
    # Flax's ``sow`` appends to a tuple under a name.
    fits = [
        module
        for module in modules
        if names[: len(module)] == module and set(names[len(module) :]) <= {"max_logits", "0"}
    ]
    return max(fits, key=len, default=None)


def factors(
    attention: Attention,
    weights: Mapping[str, Any],
    largest: jax.Array,
    *,
    max_logit: ArrayLike,
    alpha: ArrayLike,
) -> dict[str, jax.Array]:
    """Return a factor for each weight of an attention module, which broadcasts against it.

    Args:
      attention: where the weights are.
      weights: all parameters by their path.
      largest: the largest logit of each query head, ``[*layers, heads]``.
      max_logit: the largest logit that is left alone.
      alpha: the exponent of the factor for queries.

    Raises:
      ValueError: if shapes do not fit, with the path of the weight.
    """
    queries = _layout(attention.query, weights, largest.shape, None)
    keys = _layout(attention.key, weights, largest.shape, queries.head_dim)
    if keys.heads > queries.heads or queries.heads % keys.heads:
        msg = (
            f"params{attention.key.kernel} has {keys.heads} heads, which the {queries.heads} heads "
            f"of params{attention.query.kernel} cannot share evenly"
        )
        raise ValueError(msg)
    shared = queries.heads // keys.heads
    known = largest.astype(jnp.float32)
    known = jnp.where(jnp.isfinite(known), known, jnp.zeros_like(known))
    of_keys = jnp.max(known.reshape(*known.shape[:-1], keys.heads, shared), axis=-1)
    limit, share = jnp.asarray(max_logit, jnp.float32), jnp.asarray(alpha, jnp.float32)
    gamma = limit / jnp.maximum(of_keys, limit)
    return {
        **_spread(attention.query, jnp.repeat(gamma**share, shared, axis=-1), queries),
        **_spread(attention.key, gamma ** (1 - share), keys),
    }


class _Layout(NamedTuple):
    """The heads of a projection, their size, and whether they have their own axis."""

    heads: int
    head_dim: int
    apart: bool


def _layout(
    projection: Projection,
    weights: Mapping[str, Any],
    maxima: tuple[int, ...],
    head_dim: int | None,
) -> _Layout:
    """Return the layout of a kernel from the shape of the maxima and, for keys, the head size."""
    shape, layers = np.shape(weights[projection.kernel]), maxima[:-1]
    core = shape[len(layers) :] if maxima and shape[: len(layers)] == layers else ()
    found = _Layout(0, 0, apart=False)
    if len(core) == 3:
        found = _Layout(core[1], core[2], apart=True)
    elif len(core) == 2:
        size = core[1] // max(maxima[-1], 1) if head_dim is None else head_dim
        found = _Layout(core[1] // max(size, 1), size, apart=False)
    features = core[-1] if len(core) == 2 else found.heads * found.head_dim
    wanted = (maxima[-1:], None) if head_dim is None else (None, head_dim)
    fits = found.heads * found.head_dim == features > 0
    if not fits or wanted not in (((found.heads,), None), (None, found.head_dim)):
        of = "layers, " if layers else ""
        msg = (
            f"params{projection.kernel} has shape {shape}, which does not fit max_logits of shape "
            f"{maxima}: expected ({of}in, heads, head_dim) or ({of}in, heads * head_dim), and "
            f"max_logits of shape ({of}heads), with the same head_dim for queries and keys"
        )
        raise ValueError(msg)
    bias = None if projection.bias is None else np.shape(weights[projection.bias])
    expected = (*layers, *core[1:])
    if bias is not None and bias != expected:
        msg = f"params{projection.bias} has shape {bias}, but its kernel has {expected} outputs"
        raise ValueError(msg)
    return found


def _spread(projection: Projection, gamma: jax.Array, layout: _Layout) -> dict[str, jax.Array]:
    """Expand the factors ``[*layers, heads]`` to the dimensions of kernel and bias."""
    if layout.apart:
        for_bias, inputs = gamma[..., None], -3
    else:
        for_bias, inputs = jnp.repeat(gamma, layout.head_dim, axis=-1), -2
    spread = {projection.kernel: jnp.expand_dims(for_bias, inputs)}
    if projection.bias is not None:
        spread[projection.bias] = for_bias
    return spread
