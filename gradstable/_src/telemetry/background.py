"""Calls to a server, one after another in a thread of their own."""

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gradstable._src.telemetry.telling import reason_of, steps_of, tell
from gradstable._src.telemetry.waiting import Spans, add_span


class _Call(NamedTuple):
    function: Callable[[], object]
    steps: tuple[int, int] | None


class Background:
    """A queue of calls that may fail or take long, while the training goes on.

    A call that fails is dropped, with one warning. If too many are waiting, new ones are dropped.
    The warning at the end says which steps are missing.

    Args:
      name: what warnings call it.
      most: how many calls can wait.
    """

    def __init__(self, name: str, *, most: int = 200) -> None:
        self._name, self._most = name, most
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._trouble = ""
        self._failures = self._told = 0
        self._lost: list[tuple[int, int]] = []
        # A daemon, so that a call that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def put(self, function: Callable[[], object], steps: tuple[int, int] | None = None) -> None:
        """Call a function later; ``steps`` are the first and last step that it sends."""
        with self._changed:
            if len(self._waiting) >= self._most:
                self._failed(f"{self._most:,} calls are waiting", steps)
            else:
                self._waiting.append(_Call(function, steps))
            self._changed.notify_all()
        if not self._thread.is_alive():
            self._thread.start()
        self._warn_once()

    def close(self, *, seconds: float = 30.0) -> bool:
        """Wait until everything was called, but not for long; return whether that was in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with self._changed:
            done = not self._waiting
            for call in self._waiting:
                self._failed(f"no answer within {seconds:g} s", call.steps)
            self._waiting.clear()
        self._warn_once()
        if self._failures > 1 or self._lost:
            spans: Spans = []
            for span in sorted(self._lost):
                add_span(spans, span)
            missing = f" It lacks {steps_of(spans)}." if spans else ""
            times = "once" if self._failures == 1 else f"{self._failures:,} times"
            tell(f"{self._name} failed {times}.{missing}")
        return done

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                call = self._waiting[0]
            error: Exception | None = None
            try:
                call.function()
            except Exception as raised:
                error = raised
            with self._changed:
                if not self._waiting:
                    return  # given up in the meantime, and counted
                self._waiting.popleft()
                if error is not None:
                    self._failed(reason_of(error), call.steps)

    def _failed(self, trouble: str, steps: tuple[int, int] | None) -> None:
        self._failures += 1
        self._trouble = self._trouble or trouble
        if steps is not None:
            self._lost.append(steps)

    def _warn_once(self) -> None:
        # In the thread of the training, where warning filters are those of the user.
        if self._failures and not self._told:
            self._told = 1
            tell(f"{self._name} failed, but training continues: {self._trouble}.")
