"""Statistics of values inside of a model, and of their gradients."""

from gradstable._src.taps.differentiate import shapes, value_and_grad
from gradstable._src.taps.kinds import HeadSums, TapSums
from gradstable._src.taps.merge import merge
from gradstable._src.taps.summary import max_logits, read
from gradstable._src.taps.tap import attention_logits, tap
from gradstable._src.taps.terms import terms

__all__ = [
    "HeadSums",
    "TapSums",
    "attention_logits",
    "max_logits",
    "merge",
    "read",
    "shapes",
    "tap",
    "terms",
    "value_and_grad",
]
