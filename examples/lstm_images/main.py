"""Train an LSTM to read digits row by row, with and without protection."""

import tyro

from examples.common.compare import compare
from examples.lstm_images.configs.default import Config
from examples.lstm_images.train import make_schedule, train


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
