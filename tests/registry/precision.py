"""Low-precision training: a loss scale, small moments, and parameters that keep moving."""

import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.registry.entry import Case, Entry

FAMILY = "Low precision"

_INNER = {"inner": optax.sgd(0.1)}

ENTRIES = [
    Entry(
        "loss_scale",
        FAMILY,
        source="Micikevicius et al. 2017, 1710.03740; torch GradScaler; Megatron for hysteresis",
        promise="float16 overflows lower the scale and reach neither parameters nor moments",
        weakness="a NaN with another cause lowers the scale too",
        cases=[Case("loss_scale(adamw)", gs.loss_scale(gs.adamw(1e-3)))],
        numbers={
            "init_scale": (0.0, -1.0, 1e31),
            "growth_factor": (1.0, 0.5),
            "growth_interval": (0, -1, 1.5),
            "backoff_factor": (0.0, 1.0, 1.5),
            "hysteresis": (0, -1, 1.5),
            "min_scale": (0.0, -1.0),
            "max_scale": (0.5,),
        },
        required=_INNER,
    ),
    Entry(
        "precision.compress_moments",
        FAMILY,
        source="Ours; blocks of Dettmers et al. 2021, 2110.02861",
        promise="moments in a quarter or half of the memory neither stall nor become zero",
        weakness="8 bits add noise; entries whose gradients are 2**16 below others move too little",
        cases=[
            Case(
                "compress_moments",
                gs.precision.compress_moments(gs.moments.scale_by_adam(), min_size=1),
            ),
            Case(
                "compress_moments(to='bfloat16')",
                gs.precision.compress_moments(
                    gs.moments.scale_by_adam(), to="bfloat16", min_size=1
                ),
            ),
        ],
        numbers={"to": (), "min_size": (0, -1, 1.5, np.inf), "key": (-1, 0.5, np.inf)},
        required={"inner": optax.adam(0.1)},
    ),
    Entry(
        "precision.kahan",
        FAMILY,
        source="Zamirai et al. 2020, 2010.06192",
        promise="steps far below the spacing of bfloat16 add up instead of being lost",
        weakness="one more number per parameter, by default with as many bits as the parameter",
        cases=[
            Case("kahan(adamw)", gs.precision.kahan(gs.adamw(1e-3))),
            Case("kahan(8 bits)", gs.precision.kahan(gs.adamw_8bit(1e-3), dtype=jnp.int8)),
        ],
        required=_INNER,
    ),
    Entry(
        "precision.stochastic_round",
        FAMILY,
        source="Zamirai et al. 2020, 2010.06192",
        promise="steps below the spacing of bfloat16 move parameters on average, with no memory",
        weakness="it adds noise of up to one spacing at each step",
        cases=[Case("stochastic_round()", gs.precision.stochastic_round())],
        numbers={"key": (-1, 0.5, np.inf)},
    ),
]

OTHERS = (
    "precision",
    "precision.CompressMomentsState",
    "precision.KahanState",
    "precision.LossScaleState",
    "precision.StochasticRoundState",
    "scale_loss",
    "unscale",
)
