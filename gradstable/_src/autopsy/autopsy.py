"""Find the operation that made the first value that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradstable._src.autopsy.births import Birth, Watch, is_finite
from gradstable._src.autopsy.devices import on_device
from gradstable._src.autopsy.examples import batch_size, broken_examples, named_in
from gradstable._src.autopsy.places import NOWHERE, line_of, scope_of
from gradstable._src.autopsy.program import Program
from gradstable._src.autopsy.reasons import reason
from gradstable._src.autopsy.result import Autopsy, Cause
from gradstable._src.autopsy.spikes import spike
from gradstable._src.autopsy.underflow import source_of_zero
from gradstable._src.autopsy.upstream import nearest_argument
from gradstable._src.autopsy.values import described
from gradstable._src.core.eager import is_traced
from gradstable._src.walk.walk import bare, walk

# How many equations may be run to find the examples: less than a minute.
_MOST_EQUATIONS = 500_000


def autopsy(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    has_aux: bool = False,
    batch_axis: int | None = 0,
) -> Autopsy:
    """Find the operation that made the first value that is not finite, and the line it is on.

    Use it when a loss or a gradient is NaN or infinite, with the parameters and the batch of that
    step: a step that ``gs.guard`` rejects changes neither, so they are still there. It runs the
    loss and its gradient equation by equation, outside of ``jit``, and follows what is not finite
    from where it began to the result. Values that the program drops are not blamed: an infinite
    mask, or the logarithm in ``jnp.where(x > 0, jnp.log(x), 0)``. The derivative of that, which is
    NaN where ``x`` is 0, is.

    Use it as well when a gradient is finite and far too large: then it says which examples and
    which leaves make up 90 % of the square of its norm. For that it takes the gradient of each
    example on its own, and presumes that the loss is a mean or a sum over examples; where it cannot
    be run on a single one, only leaves are named.

    It goes into ``jit``, ``scan``, ``while_loop``, ``cond``, ``remat``, ``shard_map``, and into
    functions with their own derivative. Kernels, callbacks, a ``shard_map`` inside another, and a
    loop or a branch that depends on the device count as one operation. The loss is traced twice: if
    it is another one the second time, because of random numbers of the host or a counter, the
    report says so.

    It takes about half a millisecond per equation, with every pass of a loop counted, and the time
    to compile each kind of them once; ``python -m benchmarks.autopsy`` measures that, and memory.

    Args:
      loss_fn: function of the parameters and further arguments to a scalar loss, or to a loss and
        anything else.
      params: tree of arrays; other leaves are passed through.
      *args: further arguments, such as the batch and a random key: those of the broken step, not
        donated to it.
      has_aux: whether ``loss_fn`` returns a pair.
      batch_axis: the axis of the examples in the arrays among ``args``. Default 0. ``None``: no
        examples are looked for.

    Returns:
      An ``Autopsy``. Print it.

    Raises:
      TypeError: if it is called inside ``jit``, if ``params`` has no array to take a gradient for,
        or if ``loss_fn`` does not return a scalar, or a pair with ``has_aux``.
      ValueError: if an array was deleted because it was donated.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(params, x):
      ...     return jnp.mean(jnp.sqrt(x @ params["w"]))
      >>> params = {"w": jnp.ones(2)}
      >>> found = gs.autopsy(loss_fn, params, jnp.array([[1.0, 2.0], [-3.0, 1.0], [0.5, 0.5]]))
      >>> found.cause.operation, found.cause.leaf, found.cause.examples
      ('sqrt', "['w']", (1,))
      >>> found.cause.reason
      'square root of a negative number'
      >>> print(gs.autopsy(loss_fn, params, jnp.array([[1.0, 2.0], [1e6, 0.0], [0.5, 0.5]])))
      The loss (334.244) and all gradients are finite.
      The gradient norm is 166.9.
        100 % of its square is from 1 of 3 examples: 1 (norm 500, median 0.6455)

    Source:
      Ours. ``jax_debug_nans`` runs operation by operation as well, and stops at the first NaN, be
      it of consequence or not.
    """
    if is_traced((params, args)):
        msg = "autopsy looks at values, so call it outside of jit, on the arguments of one step"
        raise TypeError(msg)
    program = Program(loss_fn, params, args, has_aux=has_aux)
    impure = program.impure()
    watch = Watch()
    watch.arguments(program.given)
    value, *gradients = walk(program.closed, program.given, watch)
    broken = tuple(
        name
        for name, gradient in zip(program.names, gradients, strict=False)
        if not is_finite(gradient)
    )
    forward = watch.first(watch.of([value]))
    birth = forward or watch.first(watch.of(gradients))
    size = batch_size(args, batch_axis)
    if birth is None:
        found = spike(program, gradients, batch_axis, size)
        return Autopsy(float(value), broken, None, found, impure)
    cause = _cause(birth, program, watch.underflows, backward=forward is None)
    examples = _examples(birth, program, batch_axis, size)
    return Autopsy(float(value), broken, cause._replace(examples=examples), impure=impure)


def _examples(birth: Birth, program: Program, axis: int | None, size: int) -> tuple[int, ...]:
    """Return the examples that a birth concerns; none if that is all of them."""
    if axis is None or size < 2:
        return ()
    # Inside of a shard_map, an axis has the examples of one device only.
    inside = any(place.eqn.primitive.name == "shard_map" for place in birth.places)
    examples = () if inside else named_in(birth.output, size)
    if len(examples) in (0, size):
        examples = broken_examples(
            lambda chosen: program.is_sound(chosen, axis, size),
            size,
            most_runs=_MOST_EQUATIONS // program.size,
        )
    return examples if len(examples) < size else ()


def _cause(birth: Birth, program: Program, flagged: set[int], *, backward: bool) -> Cause:
    found = on_device(birth)
    output = described(found.output)
    if birth.eqn is None:
        name = program.names[birth.argument] if birth.argument >= 0 else "a constant"
        return Cause("", *NOWHERE, "", (), False, (), output, name, "", ())
    nearest = nearest_argument(
        program.closed.jaxpr, birth.eqn, birth.places, range(program.num_weights)
    )
    return Cause(
        operation=birth.eqn.primitive.name,
        **line_of(birth.eqn, birth.places)._asdict(),
        scope=scope_of(birth.eqn, birth.places),
        iterations=tuple(
            place.iteration
            for place in birth.places
            if place.iteration is not None and place.eqn.primitive.name != "cond"
        ),
        backward=backward,
        inputs=tuple(map(described, found.inputs)),
        output=output,
        argument="",
        leaf="" if nearest is None else program.names[nearest],
        examples=(),
        shards=found.shards,
        reason=reason(birth.eqn, found.inputs, found.output) + _underflow(birth, program, flagged),
    )


def _underflow(birth: Birth, program: Program, flagged: set[int]) -> str:
    """Return where a 0 that an equation got was a number too small for its dtype."""
    if birth.eqn is None:
        return ""
    inside: Any = birth.places[-1].program if birth.places else program.closed
    source = source_of_zero(bare(inside), birth.eqn, flagged)
    if source is None:
        return ""
    made: Any = source.outvars[0].aval
    line = line_of(source, birth.places).line
    return f"; {source.primitive.name} underflowed to 0 in {made.dtype} on line {line}"
