"""The columns of leaves in a record: their names, and norms that fit them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Columns(NamedTuple):
    """What is known of the recorded leaves; ``m`` steps in detail.

    Attributes:
      leaves: their names.
      sizes: int64 ``[L]``, entries of each.
      dtypes: of each.
      steps: int64 ``[m]``.
      norms: float64 ``[m, L]``.
    """

    leaves: tuple[str, ...]
    sizes: np.ndarray
    dtypes: tuple[str, ...]
    steps: np.ndarray
    norms: np.ndarray


def leaf_columns(
    header: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> Columns:
    """Return the columns of leaves of a run.

    Names are those of the header, or of a later event ``leaves``: the recorder may have seen other
    leaves than the log was given (behind a mask, say). Where there are more or fewer norms than
    names, as in older records, nobody knows which is which, and a leaf is named by its position.

    Args:
      header: the first line of the file.
      events: the other lines.
      rows: those of them that have ``leaf_norms``, in the order of their steps.
    """
    for event in events:
        if event.get("event") == "leaves":
            header = event
    names = tuple(map(str, header.get("leaves", ())))
    widths = Counter(len(row["leaf_norms"]) for row in rows)
    width = widths.most_common(1)[0][0] if widths else len(names)
    sizes, dtypes = header.get("sizes", ()), tuple(map(str, header.get("dtypes", ())))
    if width != len(names):
        names = tuple(f"leaf {index} of those recorded" for index in range(width))
        sizes, dtypes = (), ()
    kept = [row for row in rows if len(row["leaf_norms"]) == width]
    norms = [[_number(norm) for norm in row["leaf_norms"]] for row in kept]
    return Columns(
        leaves=names,
        sizes=np.array(sizes, np.int64),
        dtypes=dtypes,
        steps=np.array([row["step"] for row in kept], np.int64),
        norms=np.array(norms, np.float64).reshape(len(kept), width),
    )


def _number(value: Any) -> float:
    # "nan", "inf" and "-inf" are spelled as Python reads them.
    return float("nan") if value is None else float(value)
