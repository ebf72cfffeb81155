"""The report of a run: one self-contained HTML page, with charts by matplotlib."""

from gradstable._src.report.page import render

__all__ = [
    "render",
]
