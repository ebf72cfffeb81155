"""Train a small transformer on characters, with and without protection."""

import tyro

from examples.char_transformer.configs.default import Config
from examples.char_transformer.train import make_schedule, train
from examples.common.compare import compare


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
