"""What an autopsy finds."""

from __future__ import annotations

from typing import NamedTuple

from gradstable._src.autopsy.sentences import cause_lines, spike_lines


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
      inputs: what is in its inputs: dtype, shape, range, how many entries are 0 or not finite.
      output: the same of its output, or of the argument.
      argument: path of the argument that was not finite; empty if none was.
      leaf: path of the parameters that its inputs depend on most directly; empty if on none.
      examples: which examples of the batch it concerns; empty if that is not known, or all.
      shards: where on the mesh it happened, if inside of ``shard_map``: the coordinates of each
        device whose output is not finite. Empty if all of them are. ``inputs`` and ``output`` are
        those of the first one.
      reason: why the output is not finite, such as a division by 0, or a number that is too large
        for the dtype; empty if that is not known.
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
    shards: tuple[dict[str, int], ...] = ()
    reason: str = ""


class Spike(NamedTuple):
    """Where a finite gradient comes from.

    Attributes:
      norm: the norm of the whole gradient.
      leaf_norms: the norm of the gradient of each leaf, by its path.
      leaf_shares: the share of each in the square of the norm; they sum to 1.
      leaves: the fewest leaves that make up 90 % of it, the largest first.
      example_norms: the norm of the gradient of each example on its own, NaN where it has none.
        Empty if no examples are known.
      example_shares: the share of each in the square of the norm: its part along the gradient of
        all. They sum to 1, and that of an example that pulls the other way is negative.
      examples: the fewest examples that make up 90 % of it, the largest first.
    """

    norm: float
    leaf_norms: dict[str, float]
    leaf_shares: dict[str, float]
    leaves: tuple[str, ...]
    example_norms: tuple[float, ...]
    example_shares: tuple[float, ...]
    examples: tuple[int, ...]


class Autopsy(NamedTuple):
    """The result of ``autopsy``; ``str()`` of it is a report.

    Attributes:
      loss: the loss.
      broken: paths of the parameters whose gradient is not finite.
      cause: what broke them; ``None`` if loss and gradients are finite.
      spike: where the gradient comes from; ``None`` if loss or gradients are not finite.
      impure: where the loss was another one when it was traced or run a second time, with the same
        arguments; empty if it was the same.
    """

    loss: float
    broken: tuple[str, ...]
    cause: Cause | None
    spike: Spike | None = None
    impure: str = ""

    def __str__(self) -> str:
        if self.cause is None:
            lines = [f"The loss ({self.loss:.6g}) and all gradients are finite."]
            lines += spike_lines(self.spike) if self.spike is not None else []
        else:
            lines = cause_lines(self.loss, self.broken, self.cause)
        if self.impure:
            lines.append(
                f"The loss is not the same for the same arguments: it differs in {self.impure}. "
                "The step that broke may have been another than this one."
            )
        return "\n".join(lines)
