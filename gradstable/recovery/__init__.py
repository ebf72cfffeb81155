"""What brings a run back, or keeps it going: gathering, dropping, returning."""

from gradstable.recovery.accumulate import AccumulateState, accumulate

__all__ = ["AccumulateState", "accumulate"]
