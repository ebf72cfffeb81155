"""Diagnose a recorded run by documented rules, and say what to do about it."""
