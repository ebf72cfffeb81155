"""What a person wants to know of a run: the events that alerts and sinks receive."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

EventKind: TypeAlias = Literal[
    "rejected",
    "early_warning",
    "recurring",
    "rolled_back",
    "undone",
    "paused",
    "diverged",
    "ended",
]
# After these, a run needs a person.
_SERIOUS = ("paused", "diverged", "ended")


class Event(NamedTuple):
    """Something that happened in a run, as ``on_event`` and sinks with a method ``event`` get it.

    Attributes:
      kind: what happened.

        - ``rejected``: steps were rejected.
        - ``early_warning``: a signal moved that moves before the loss does.
        - ``recurring``: a steady share of the steps is rejected or clipped to the usual size.
        - ``rolled_back``, ``undone``: ``gs.rollback`` returned to a copy, or took that back.
        - ``paused``: ``gs.rollback`` has given up, at the last good parameters.
        - ``diverged``: the last 200 steps were all rejected, as for ``gs.check``; or, without a
          guard, gradient or loss and the update have been NaN or infinite for 20 steps.
        - ``ended``: an exception ended the training loop.
      step: the step at which it happened, or its first step.
      last: its last step of those that have been read; the same for a single step.
      text: what happened, in words, without the step.
      row: what was recorded at that step, as in ``gs.telemetry.Rows``; for a rollback, its
        ``step``, ``to`` and ``times``; otherwise empty.
      member: which of several runs in one state, as in the names of their files; empty for one run.

    Example:
      >>> import gradstable as gs
      >>> event = gs.telemetry.Event("rejected", 20, 23, "the gradient had NaN entries")
      >>> event.sentence
      'steps 20 to 23: the gradient had NaN entries'
    """

    kind: EventKind
    step: int
    last: int
    text: str
    row: Mapping[str, Any] = MappingProxyType({})
    member: str = ""

    @property
    def note(self) -> str:
        """The text, and which of several runs it is about."""
        return f"member {self.member}: {self.text}" if self.member else self.text

    @property
    def sentence(self) -> str:
        """The same with the steps."""
        one = self.step == self.last
        place = f"step {self.step}" if one else f"steps {self.step} to {self.last}"
        return f"{place}: {self.note}"

    @property
    def title(self) -> str:
        """What happened in a word or two, for services that give alerts a title."""
        return f"gradstable: {self.kind.replace('_', ' ')}"

    @property
    def is_serious(self) -> bool:
        """Whether the run was paused, diverged or ended, and does not continue on its own."""
        return self.kind in _SERIOUS
