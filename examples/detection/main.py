"""Train a small detector, with and without protection."""

import tyro

from examples.common.compare import compare
from examples.detection.configs.default import Config
from examples.detection.train import make_schedule, train


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
