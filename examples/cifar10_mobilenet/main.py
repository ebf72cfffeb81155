"""Train a small MobileNet, or five convolutions, with and without protection."""

import tyro

from examples.cifar10_mobilenet import input_pipeline
from examples.cifar10_mobilenet.configs.default import Config
from examples.cifar10_mobilenet.train import make_schedule, train
from examples.common.compare import compare

_STAND_IN = """\
This is not CIFAR-10: rendered shapes of ten classes stand in for it. For the photographs, put the
binary version from the CIFAR-10 page of the University of Toronto into a folder, and name the
folder with --data-dir."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    try:
        data = input_pipeline.load(config.data_dir, seed=config.seed, md5=config.md5)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if config.data_dir is None:
        print(_STAND_IN)
    print(
        f"{data.name}: {len(data.train.label)} images to learn from, {len(data.test.label)} to test"
    )
    compare(config, train, schedule=make_schedule(config))


if __name__ == "__main__":
    main()
