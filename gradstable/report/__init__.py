"""The report of a run: one page of HTML that needs nothing else, with charts by matplotlib."""

try:
    from gradstable.report.page import render
except ModuleNotFoundError as error:
    if (error.name or "").startswith("gradstable"):
        raise
    msg = f"the report needs {error.name}: pip install 'gradstable[report]'"
    raise ModuleNotFoundError(msg, name=error.name) from error

__all__ = ["render"]
