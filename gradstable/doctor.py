"""Diagnose a recorded run by documented rules, and say what to do about it."""

from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity
from gradstable._src.doctor.table import RULES, diagnose

__all__ = [
    "RULES",
    "Diagnosis",
    "Evidence",
    "Severity",
    "diagnose",
]
