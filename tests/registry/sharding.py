"""Placement on a mesh: names that are not transforms."""

from tests.registry.entry import Entry

ENTRIES: list[Entry] = []

OTHERS = (
    "sharding",
    "sharding.bytes_per_device",
    "sharding.replicas_agree",
    "sharding.spread",
    "sharding.state_shardings",
    "sharding.unequal_replicas",
)
