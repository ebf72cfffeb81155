"""The report of a run: a self-contained HTML page with charts by matplotlib."""

from importlib.util import find_spec

if find_spec("matplotlib") is None:
    _msg = "the report needs matplotlib: pip install 'gradstable[report]'"
    raise ModuleNotFoundError(_msg, name="matplotlib")
