"""Which leaves a recorder sees: their keys, and their names as far as they are known."""

from typing import Any

import jax
import numpy as np

from gradstable._src.core.names import named_again
from gradstable._src.core.paths import Namer, find_leaves, leaf_paths
from gradstable._src.telemetry.sink import Header
from gradstable._src.telemetry.state import RecordState


def recorded_keys(record: RecordState) -> list[int]:
    """Return the keys of the recorded leaves' paths, which are the same for several runs."""
    keys = np.asarray(record.leaf_keys)
    number = record.alarms.steps_seen.shape[-1] - 1
    return keys.reshape(-1, keys.shape[-1])[0, :number].tolist()


def recorded_namer(record: RecordState) -> Namer:
    """Return a namer that works without the parameters: the recorder has a tree like them."""
    return Namer(named_again(record.sampled_params), keys=recorded_keys(record))


def recorded_header(record: RecordState, params: Any, known: Header) -> Header | None:
    """Return the header with the leaves that the recorder sees; ``None`` if it has them already.

    Args:
      record: the state of the recorder.
      params: the tree whose leaves the header names.
      known: the header.
    """
    places = find_leaves(recorded_keys(record), params)
    if places == list(range(len(known.leaves))):
        return None
    samples = named_again(record.sampled_params)
    seen, arrays = leaf_paths(samples), jax.tree.leaves(samples)
    sizes = [int(np.prod(array.shape)) for array in arrays]
    return known._replace(
        leaves=tuple(known.leaves[i] if i >= 0 else seen[j] for j, i in enumerate(places)),
        sizes=tuple(known.sizes[i] if i >= 0 else sizes[j] for j, i in enumerate(places)),
        dtypes=tuple(
            known.dtypes[i] if i >= 0 else str(arrays[j].dtype) for j, i in enumerate(places)
        ),
    )
