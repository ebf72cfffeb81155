"""Train a small MobileNet, or five convolutions, with and without protection."""

import tyro

from examples.cifar10_mobilenet import input_pipeline
from examples.cifar10_mobilenet.configs.default import Config
from examples.cifar10_mobilenet.train import make_schedule, train
from examples.common.compare import compare

_STAND_IN = """\
This is not CIFAR-10: ten classes of rendered shapes stand in for it. For the photographs, download
the binary version from the University of Toronto's CIFAR-10 page, and pass its folder with
--data-dir."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    try:
        data = input_pipeline.load(config.data_dir, seed=config.seed, md5=config.md5)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if config.data_dir is None:
        print(_STAND_IN)
    print(
        f"{data.name}: {len(data.train.label)} training images, {len(data.test.label)} test images"
    )
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
