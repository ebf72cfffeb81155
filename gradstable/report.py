"""The report of a run: one page of HTML that needs nothing else, with charts by matplotlib."""

from gradstable._src.report.page import render

__all__ = [
    "render",
]
