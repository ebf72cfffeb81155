"""Find the operation that made the first value that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.autopsy.births import Birth, Watch, is_finite
from gradstable._src.autopsy.examples import batch_size, broken_examples, named_in
from gradstable._src.autopsy.places import NOWHERE, line_of, scope_of
from gradstable._src.autopsy.upstream import nearest_argument
from gradstable._src.autopsy.values import described
from gradstable._src.core.eager import is_traced
from gradstable._src.core.equations import is_input
from gradstable._src.core.paths import leaf_paths
from gradstable._src.walk.walk import walk
from gradstable._src.walk.weights import Weights


class Cause(NamedTuple):
    """The first equation whose output is not finite, while its inputs are.

    Attributes:
      operation: the name of its primitive; empty if an argument was not finite to begin with.
      file: path of the source that it comes from; empty if that is not known.
      line: the number of the line in it.
      function: the function that the line is in.
      code: the line itself.
      scope: its name scopes: for Flax, the path of the module.
      iterations: in which pass of each loop around it, from the outside in.
      backward: whether only the gradient is broken, by the derivative of that line.
      inputs: what is in its inputs: dtype, shape, range, how many entries are not finite.
      output: the same of its output, or of the argument.
      argument: path of the argument that was not finite; empty if none was.
      leaf: path of the parameters that its inputs depend on most directly; empty if on none.
      examples: which examples of the batch it concerns; empty if that is not known, or all.
    """

    operation: str
    file: str
    line: int
    function: str
    code: str
    scope: str
    iterations: tuple[int, ...]
    backward: bool
    inputs: tuple[str, ...]
    output: str
    argument: str
    leaf: str
    examples: tuple[int, ...]


class Autopsy(NamedTuple):
    """The result of ``autopsy``; ``str()`` of it is a report.

    Attributes:
      loss: the loss.
      broken: paths of the parameters whose gradient is not finite.
      cause: what broke them; ``None`` if loss and gradients are finite.
    """

    loss: float
    broken: tuple[str, ...]
    cause: Cause | None

    def __str__(self) -> str:
        if self.cause is None:
            return f"Loss ({self.loss:.6g}) and gradients are finite: there is nothing to find."
        return "\n".join(_sentences(self, self.cause))


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

    It goes into ``jit``, ``scan``, ``while_loop``, ``cond``, ``remat``, and functions with their
    own derivative. ``shard_map``, kernels, and callbacks count as one operation. It takes a
    fraction of a millisecond per equation, with every pass of a loop counted, and the time to
    compile each kind of them once.

    Args:
      loss_fn: function of the parameters and further arguments to a scalar loss, or to a loss and
        anything else.
      params: tree of arrays; other leaves are passed through.
      *args: further arguments, such as the batch and a random key: those of the broken step.
      has_aux: whether ``loss_fn`` returns a pair.
      batch_axis: the axis of the examples in the arrays among ``args``. Default 0. ``None``: no
        examples are looked for.

    Returns:
      An ``Autopsy``. Print it.

    Raises:
      TypeError: if it is called inside ``jit``.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> def loss_fn(params, x):
      ...     return jnp.mean(jnp.sqrt(x @ params["w"]))
      >>> params = {"w": jnp.ones(2)}
      >>> found = gs.autopsy(loss_fn, params, jnp.array([[1.0, 2.0], [-3.0, 1.0], [0.5, 0.5]]))
      >>> found.cause.operation, found.cause.leaf, found.cause.examples
      ('sqrt', "['w']", (1,))

    Source:
      Ours. ``jax_debug_nans`` runs operation by operation as well, and stops at the first NaN, be
      it of consequence or not.
    """
    if is_traced((params, args)):
        msg = "autopsy looks at values, so call it outside of jit, on the arguments of one step"
        raise TypeError(msg)
    program = _Program(loss_fn, params, args, has_aux=has_aux)
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
    if birth is None:
        return Autopsy(float(value), broken, None)
    size = batch_size(args, batch_axis)
    examples = named_in(birth.output, size)
    if size and batch_axis is not None and not examples:
        examples = broken_examples(program.is_sound, args, batch_axis, size)
    cause = _cause(birth, program, backward=forward is None)
    return Autopsy(
        float(value), broken, cause._replace(examples=examples if len(examples) < size else ())
    )


class _Program:
    """The loss and its gradients, as equations of all arrays among the arguments."""

    def __init__(
        self, loss_fn: Callable[..., Any], params: Any, args: Any, *, has_aux: bool
    ) -> None:
        self._loss_fn, self._has_aux = loss_fn, has_aux
        self._weights = Weights(params)
        weights = list(map(jnp.asarray, self._weights.leaves))
        each, structure = jax.tree.flatten(args)
        arrays = [jnp.asarray(leaf) for leaf in each if is_input(leaf)]
        others = zip(leaf_paths(args), each, strict=True)
        self.num_weights = len(weights)
        self.names = [path or "params" for path in self._weights.paths]
        self.names += [f"args{path}" for path, leaf in others if is_input(leaf)]
        self.given = [*weights, *arrays]

        def run(weights: Sequence[Any], arrays: Sequence[Any]) -> Any:
            values = iter(arrays)
            full = [next(values) if is_input(leaf) else leaf for leaf in each]
            return self._both(weights, jax.tree.unflatten(structure, full))

        self.closed = jax.make_jaxpr(run)(weights, arrays)

    def is_sound(self, args: Any) -> bool:
        """Whether loss and gradients are finite for other arguments."""
        found = self._both(self.given[: self.num_weights], args)
        return all(map(is_finite, jax.tree.leaves(found)))

    def _both(self, weights: Sequence[Any], args: Any) -> tuple[Any, Any]:
        def loss(weights: Sequence[Any]) -> Any:
            return self._loss_fn(self._weights.replaced(weights), *args)

        value, gradients = jax.value_and_grad(loss, has_aux=self._has_aux)(list(weights))
        return (value[0] if self._has_aux else value), gradients


def _cause(birth: Birth, program: _Program, *, backward: bool) -> Cause:
    output = described(birth.output)
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
        inputs=tuple(map(described, birth.inputs)),
        output=output,
        argument="",
        leaf="" if nearest is None else program.names[nearest],
        examples=(),
    )


def _sentences(found: Autopsy, cause: Cause) -> list[str]:
    where = f"The loss is {found.loss:.6g}"
    if found.broken:
        count = len(found.broken)
        where += f", and {count} {'gradient is' if count == 1 else 'gradients are'} not finite"
        where += f" ({', '.join(found.broken[:3])}{', ...' if count > 3 else ''})"
    lines = [f"{where}."]
    if not cause.operation:
        lines.append(f"{cause.argument} was not finite to begin with: {cause.output}.")
        return [*lines, *_concerned(cause)]
    of = "the derivative of " if cause.backward else ""
    lines.append(f"It began in {of}{cause.file}:{cause.line}, in {cause.function}:")
    lines.append(f"    {cause.code or '(no source)'}")
    lines.append(f"  operation {cause.operation}" + (f" in {cause.scope}" if cause.scope else ""))
    if cause.iterations:
        lines[-1] += f", pass {', '.join(map(str, cause.iterations))} of the loop"
    lines += [f"  input   {one}" for one in cause.inputs]
    lines.append(f"  output  {cause.output}")
    if cause.leaf:
        lines.append(f"  nearest parameters: {cause.leaf}")
    return [*lines, *(f"  {one}" for one in _concerned(cause))]


def _concerned(cause: Cause) -> list[str]:
    if not cause.examples:
        return []
    shown = ", ".join(map(str, cause.examples[:8])) + (", ..." if cause.examples[8:] else "")
    return [f"example{'' if len(cause.examples) == 1 else 's'}: {shown}"]
