"""When to stop, and which parameters to keep."""

import math
from typing import Any, NamedTuple


class Best(NamedTuple):
    """The best parameters so far; start with ``Best()``."""

    loss: float = math.inf
    step: int = 0
    params: Any = None
    waited: int = 0  # evaluations since then

    def look(self, step: int, loss: float, params: Any) -> "Best":
        """Return the best after one more evaluation; a NaN is never better."""
        if loss < self.loss:
            return Best(loss, step, params)
        return self._replace(waited=self.waited + 1)
