"""What a page would draw: the data for its scripts, read back."""

import base64
import json
import re
from typing import Any

import numpy as np


def data_of(page: str) -> dict[str, Any]:
    """Return the data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def columns_of(page: str, table: str = "steps") -> dict[str, np.ndarray]:
    """Return the columns of a table, with its steps, deeds and reasons."""
    found = data_of(page)["tables"][table]
    columns = {name: unpacked(text, "<f4") for name, text in found["columns"].items()}
    columns["step"] = unpacked(found["step"], "<f8")
    for name in ("deed", "reason"):
        if name in found:
            columns[name] = unpacked(found[name], "u1")
    assert len({len(one) for one in columns.values()}) == 1
    return columns
