"""Runs with a known illness, and healthy ones, to test the doctor.

Run ``python -m benchmarks.illnesses``; it takes three minutes and writes ``tests/doctor/runs``.
Small models are actually trained, each with a cause injected into its data, its loss, its initial
parameters, or its optimizer, and recorded like any run. All numbers in the records are real; they
are only rounded to four digits, to keep the files small. The docstring of a case is its cause.

Names select cases, ``--seed`` draws different data, parameters, and fault positions, and ``--out``
writes elsewhere::

    python -m benchmarks.illnesses --seed 7 --out /tmp/runs bad_batches stale_moment
"""

# A case enters the table when its module is imported.
from benchmarks.illnesses import again, architecture, data, healthy, settings
from benchmarks.illnesses.case import CASES
from benchmarks.illnesses.train import write

__all__ = ["CASES", "again", "architecture", "data", "healthy", "settings", "write"]
