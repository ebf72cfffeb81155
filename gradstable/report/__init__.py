"""The report of a run: one page of HTML that needs nothing else, with charts by matplotlib."""

try:
    from gradstable.report.page import render
except ModuleNotFoundError as _error:
    if (_error.name or "").startswith("gradstable"):
        raise
    _msg = f"the report needs {_error.name}: pip install 'gradstable[report]'"
    raise ModuleNotFoundError(_msg, name=_error.name) from _error

__all__ = ["render"]
