"""Two classification data sets: one that comes with scikit-learn, and one generated."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, make_classification

from examples.tabular_mlp.configs.default import Dataset

_TEST_SHARE = 0.25
# Streams of random numbers that must not depend on each other.
_SPLIT, _ORDER = 0, 1


class Batch(NamedTuple):
    """The data of one step."""

    x: np.ndarray  # float32 [n, features], standardized
    label: np.ndarray  # int32 [n]


def load(dataset: Dataset, *, seed: int) -> tuple[Batch, Batch]:
    """Return the rows for training and those for testing."""
    x, label = _table(dataset, seed)
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(label))
    tested = int(_TEST_SHARE * len(label))
    train, test = order[tested:], order[:tested]
    # The test rows must not be known in advance, not even their mean.
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    x, label = x.astype(np.float32), label.astype(np.int32)
    return Batch(x[train], label[train]), Batch(x[test], label[test])


def batches(train: Batch, *, steps: int, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield shuffled batches, every epoch in a new order."""
    per_epoch = len(train.label) // batch_size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(train.label))
        rows = order[place * batch_size : (place + 1) * batch_size]
        yield Batch(train.x[rows], train.label[rows])


def _table(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if dataset == "breast_cancer":
        cells: Any = load_breast_cancer()
        return cells.data, cells.target
    generated: Any = make_classification(
        n_samples=3000,
        n_features=20,
        n_informative=15,
        n_redundant=0,
        n_classes=10,
        n_clusters_per_class=1,
        class_sep=2.0,
        random_state=seed,
    )
    return generated
