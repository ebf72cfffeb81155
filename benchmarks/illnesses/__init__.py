"""Runs with a known illness, and healthy ones: what the doctor is held to.

Run ``python -m benchmarks.illnesses``; it takes three minutes and writes ``tests/doctor/runs``.
Small models are trained for real, each with a cause planted in its data, its loss, its first
parameters or its optimizer, and recorded as any run is. No number of a record is made up; they
are only rounded to four digits, to keep the files small. The docstring of a case is its cause.

Names choose cases, ``--seed`` draws other data, parameters and places of faults, ``--out`` writes
elsewhere::

    python -m benchmarks.illnesses --seed 7 --out /tmp/runs bad_batches stale_moment
"""

# A case enters the table when its module is imported.
from benchmarks.illnesses import data, healthy, settings
from benchmarks.illnesses.case import CASES
from benchmarks.illnesses.train import write

__all__ = ["CASES", "data", "healthy", "settings", "write"]
