"""What stands beside a captured batch: why, when, and where."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradstable._src.capture.folders import FORMAT
from gradstable._src.capture.trees import Encoded
from gradstable._src.capture.watch import Event
from gradstable._src.telemetry.json_lines import plain


def described(
    event: Event, trees: Mapping[str, Encoded], left_out: Sequence[str]
) -> dict[str, Any]:
    """Return what is known of an event and of where it happened, as JSON data."""
    device = jax.local_devices()[0]
    return {
        "format": FORMAT,
        "kind": event.kind,
        "reason": event.reason,
        "call": event.call,
        "numbers": plain(event.numbers),
        "left_out": list(left_out),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "process": jax.process_index(),
        "processes": jax.process_count(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "jax": importlib.metadata.version("jax"),
        "parts": list(trees),
    }
