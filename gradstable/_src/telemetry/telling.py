"""Warnings that cannot end a run, whatever warning filters are set."""

import logging
import warnings


def tell(text: str) -> None:
    """Warn; where warnings are errors, write to the logger ``gradstable`` instead."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except Warning:
        logging.getLogger("gradstable").warning(text)


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def steps_of(spans: list[tuple[int, int]]) -> str:
    """Return the first few stretches of steps as text."""
    shown = [
        f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in spans[:3]
    ]
    more = len(spans) - len(shown)
    what = "step" if len(spans) == 1 and spans[0][0] == spans[0][1] else "steps"
    return f"{what} {', '.join(shown)}{f' and {more:,} more stretches' if more else ''}"
