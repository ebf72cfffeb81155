"""The numbers of a step under the names that tracking services get."""

from collections.abc import Mapping
from typing import Any

from gradstable._src.telemetry.fields import NUMBERS, member_of
from gradstable._src.telemetry.tap_ring import tap_numbers


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row, and those of its taps that are worth a curve."""
    member = member_of(row)
    whose = f"/member_{member}" if member else ""
    numbers = {name: row[name] for name in NUMBERS if name in row}
    numbers |= {f"taps/{name}": number for name, number in tap_numbers(row).items()}
    return {f"gradstable/{name}{whose}": number for name, number in numbers.items()}
