"""The report of a run: one self-contained HTML page, which draws its charts itself."""

from gradstable._src.report.page import render

__all__ = [
    "render",
]
