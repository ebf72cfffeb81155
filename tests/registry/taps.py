"""Statistics of values inside of a model, and what reads them."""

from tests.registry.entry import Entry

OTHERS = (
    "tap",
    "taps",
    "taps.HeadSums",
    "taps.TapSums",
    "taps.attention_logits",
    "taps.max_logits",
    "taps.merge",
    "taps.read",
    "taps.shapes",
    "taps.terms",
    "taps.value_and_grad",
)

ENTRIES: list[Entry] = []
