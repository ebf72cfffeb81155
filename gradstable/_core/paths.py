"""Names of leaves, as people read them."""

from typing import Any

import jax


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of each leaf, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    # A Flax variable is a node with one child, .value, which says nothing.
    return [jax.tree_util.keystr(path).removesuffix(".value") for path, _ in flat]
