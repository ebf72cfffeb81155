"""Bring a run back, or keep it going: accumulate, drop, roll back, resume."""
