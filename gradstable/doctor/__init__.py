"""What ails a recorded run, by rules that are written down, and what to do about it."""

from gradstable.doctor.diagnosis import Diagnosis, Evidence, Severity
from gradstable.doctor.table import RULES, diagnose

__all__ = ["RULES", "Diagnosis", "Evidence", "Severity", "diagnose"]
