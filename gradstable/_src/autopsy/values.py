"""What is in an array, in a line."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Values(NamedTuple):
    """What is in an array.

    Attributes:
      dtype: its dtype.
      shape: its shape.
      low: its smallest finite entry; NaN if there is none.
      high: its largest finite entry; NaN if there is none.
      nans: how many entries are NaN.
      infs: how many are infinite.
    """

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    nans: int
    infs: int

    def __str__(self) -> str:
        kind = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        if not int(np.prod(self.shape)):
            return f"{kind}, empty"
        span = f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"
        parts = [] if np.isnan(self.low) else [f"from {span}" if " " in span else span]
        parts += [f"{number:,} {what}" for number, what in self._bad() if number]
        return f"{kind}, {', '.join(parts)}"

    def _bad(self) -> tuple[tuple[int, str], ...]:
        return (self.nans, "NaN"), (self.infs, "infinite")


def values_of(array: Any) -> Values:
    """Return what is in an array or a number."""
    dtype = jnp.result_type(array)
    name, shape = str(dtype), np.shape(array)
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        return Values(name, shape, np.nan, np.nan, 0, 0)
    entries = np.asarray(array).astype(np.float64 if not jnp.iscomplexobj(array) else complex)
    sizes = np.abs(entries) if np.iscomplexobj(entries) else entries
    finite = sizes[np.isfinite(sizes)]
    return Values(
        dtype=name,
        shape=shape,
        low=float(finite.min()) if finite.size else np.nan,
        high=float(finite.max()) if finite.size else np.nan,
        nans=int(np.isnan(sizes).sum()),
        infs=int(np.isinf(sizes).sum()),
    )
