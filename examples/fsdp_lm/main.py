"""Train a language model split over many devices, and let one host send a bad batch."""

import tyro

from examples.fsdp_lm.configs.default import Config
from examples.fsdp_lm.launch import start
from examples.fsdp_lm.train import train


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    start(config)
    train(config)


if __name__ == "__main__":
    main()
