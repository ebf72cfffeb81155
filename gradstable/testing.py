"""The contract suite: run it on your own transforms.

Its checks need chex and flax: ``pip install 'gradstable[testing]'``.
"""

from gradstable._src.testing.contract import CHECKS, MESH_CHECKS, assert_contract

__all__ = [
    "CHECKS",
    "MESH_CHECKS",
    "assert_contract",
]
