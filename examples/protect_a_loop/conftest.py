"""Files that pytest skips here."""

import importlib.util

# Modules are imported in search of examples in docstrings, of which these have none.
collect_ignore = (
    [] if importlib.util.find_spec("equinox") else ["equinox_bare.py", "equinox_protected.py"]
)
