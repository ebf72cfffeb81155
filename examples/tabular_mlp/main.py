"""Train a small dense network on tabular data, with and without protection."""

import tyro

from examples.common.compare import compare
from examples.tabular_mlp.configs.default import Config
from examples.tabular_mlp.train import make_schedule, train


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
