"""What an optimizer step costs on hundreds of devices: bytes and collectives per device.

Run ``python -m benchmarks.at_scale`` (about ten minutes on two cores), or with ``--shapes-only``
(seconds), which compiles nothing. Devices are simulated: steps are compiled ahead of time for
shapes and shardings, so no parameter is ever created and no step is run. Collectives are those of
XLA's program for CPUs; other backends may combine them differently.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.at_scale.layouts import layouts
from benchmarks.at_scale.models import MODELS
from benchmarks.at_scale.steps import OPTIMIZERS
from benchmarks.at_scale.tables import layouts_table, markdown, models_table, show


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=256, help="a power of two (default 256)")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all"
    )
    parser.add_argument(
        "--layouts-of",
        choices=MODELS,
        default="8B",
        help="the model whose step is compiled for each layout and optimizer (default 8B)",
    )
    parser.add_argument(
        "--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), help="default: all"
    )
    parser.add_argument("--stacked", action="store_true", help="one leaf per kind, for all layers")
    parser.add_argument("--shapes-only", action="store_true", help="compile nothing")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables")
    args = parser.parse_args(arguments)

    # Before JAX looks for devices; an accelerator would not have that many.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    of = layouts(args.devices)
    models = {name: MODELS[name] for name in args.models}
    compiled = not args.shapes_only
    tables = [models_table(models, next(iter(of.items())), stacked=args.stacked, compiled=compiled)]
    show(tables[0])
    if compiled:
        name = args.layouts_of
        tables.append(layouts_table(name, MODELS[name], of, args.optimizers, stacked=args.stacked))
        show(tables[1])
    if args.markdown:
        args.markdown.write_text(markdown(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
