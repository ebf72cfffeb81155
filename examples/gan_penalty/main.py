"""Train a Wasserstein GAN, with and without protection, with and without a gradient penalty."""

import dataclasses

import tyro

from examples.common.compare import compare
from examples.gan_penalty.configs.default import Config
from examples.gan_penalty.train import make_schedule, train


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    penalties = dict.fromkeys([config.penalty, 0.0] if config.also_without else [config.penalty])
    for penalty in penalties:
        print(f"\nweight of the gradient penalty: {penalty:g}")
        folder = config.workdir / ("with_penalty" if penalty else "without_penalty")
        one = dataclasses.replace(config, penalty=penalty, workdir=folder)
        compare(one, train, schedule=make_schedule(one))


if __name__ == "__main__":
    main()
