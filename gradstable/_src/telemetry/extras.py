"""Optional dependencies."""

import importlib
from typing import Any


def need(module: str, *, extra: str) -> Any:
    """Return a module, or raise an error with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        msg = f"{module} is not installed. Install it with: pip install 'gradstable[{extra}]'"
        raise ModuleNotFoundError(msg, name=module) from error
