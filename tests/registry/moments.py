"""Moment estimators of the Adam family and before it."""

import jax.numpy as jnp

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, Case, Entry

FAMILY = "Moments"

BETAS = {"b1": DECAY, "b2": DECAY, "eps": BELOW_ZERO}
ADAM = {**BETAS, "eps_root": BELOW_ZERO}
NADAM = {**ADAM, "momentum_decay": BELOW_ZERO}
RADAM = {**ADAM, "threshold": (3.0, -1.0)}
RMS = {"decay": DECAY, "eps": BELOW_ZERO, "initial_scale": BELOW_ZERO}
RSS = {"initial_accumulator_value": BELOW_ZERO, "eps": BELOW_ZERO}
ADADELTA = {"rho": DECAY, "eps": (0.0, -1.0)}

ENTRIES = [
    Entry(
        "moments.scale_by_adam",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="a step is bounded by (1-b1)/sqrt(1-b2)/sqrt(1-b1^2/b2) in every coordinate",
        weakness="with b2 = 0.999 a quiet period leaves nu stale: the next step can be 7.27",
        cases=[
            Case("scale_by_adam", gs.moments.scale_by_adam()),
            Case(
                "scale_by_adam(bfloat16, nesterov)",
                gs.moments.scale_by_adam(
                    mu_dtype=jnp.bfloat16, nu_dtype=jnp.bfloat16, nesterov=True
                ),
            ),
        ],
        numbers=ADAM,
    ),
    Entry(
        "moments.scale_by_adam_8bit",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980; the format is ours",
        promise="a step is bounded in every coordinate, by 8.27, in 2 bytes of state",
        weakness="rounding adds noise of a fifth to every update; stale nu as in scale_by_adam",
        cases=[Case("scale_by_adam_8bit", gs.moments.scale_by_adam_8bit())],
        numbers=BETAS,
    ),
    Entry(
        "moments.ema",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="an update is never larger than the largest gradient so far",
        weakness="a spike of 1000 outweighs gradients of 1 for 44 steps with decay = 0.9",
        cases=[Case("ema", gs.moments.ema(0.9))],
        numbers={"decay": DECAY},
        required={"decay": 0.9},
    ),
    Entry(
        "moments.trace",
        FAMILY,
        source="Polyak 1964",
        promise="a sum in float32 that no non-finite entry can poison",
        weakness="a step is proportional to the gradient: a spike moves a weight 10 times its size",
        cases=[Case("trace", gs.moments.trace(0.9, nesterov=True))],
        numbers={"decay": DECAY},
        required={"decay": 0.9},
    ),
    Entry(
        "moments.scale_by_rms",
        FAMILY,
        source="Hinton 2012",
        promise="a step is bounded by 1/sqrt(1-decay) in every coordinate: 3.16",
        weakness="the first step is as large as the bound; gradients below 1e-4 vanish in eps",
        cases=[
            Case("scale_by_rms", gs.moments.scale_by_rms()),
            Case(
                "scale_by_rms(centered)",
                gs.moments.scale_by_rms(centered=True, bias_correction=True),
            ),
        ],
        numbers=RMS,
    ),
    Entry(
        "moments.scale_by_rss",
        FAMILY,
        source="Duchi 2011",
        promise="a step is bounded by 1 in every coordinate",
        weakness="the sum never falls: one spike of 1000 divides all later steps by 1000",
        cases=[Case("scale_by_rss", gs.moments.scale_by_rss())],
        numbers=RSS,
    ),
    Entry(
        "moments.scale_by_adadelta",
        FAMILY,
        source="Zeiler 2012, arXiv:1212.5701",
        promise="a step is bounded by the root mean square of those before it, times 3.16",
        weakness="no bound over many steps; the first step is 0.0032 whatever the problem",
        cases=[Case("scale_by_adadelta", gs.moments.scale_by_adadelta())],
        numbers=ADADELTA,
    ),
    Entry(
        "moments.scale_by_adamax",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="a step is bounded by (1-b1)/(1-b1/b2) in every coordinate: 1.009",
        weakness="a spike of 1000 still divides steps by 370 a thousand steps later",
        cases=[Case("scale_by_adamax", gs.moments.scale_by_adamax())],
        numbers=BETAS,
    ),
    Entry(
        "moments.scale_by_amsgrad",
        FAMILY,
        source="Reddi 2018, arXiv:1904.09237",
        promise="Adam's bound, and no stale second moment after a quiet period",
        weakness="a spike of 1000 divides all later steps by 40; in the first step, by 1000",
        cases=[Case("scale_by_amsgrad", gs.moments.scale_by_amsgrad())],
        numbers=ADAM,
    ),
    Entry(
        "moments.scale_by_nadam",
        FAMILY,
        source="Dozat 2016",
        promise="a step is bounded in every coordinate: 14.6 with the defaults",
        weakness="twice Adam's bound while the momentum is low, worst at step 1890",
        cases=[Case("scale_by_nadam", gs.moments.scale_by_nadam())],
        numbers=NADAM,
    ),
    Entry(
        "moments.scale_by_radam",
        FAMILY,
        source="Liu 2019, arXiv:1908.03265",
        promise="Adam's bound from the sixth step on, and short steps until nu is known",
        weakness="the first five steps are gradient descent: a gradient of 1000 steps by 1000",
        cases=[Case("scale_by_radam", gs.moments.scale_by_radam())],
        numbers=RADAM,
    ),
    Entry(
        "moments.scale_by_belief",
        FAMILY,
        source="Zhuang 2020, arXiv:2010.07468",
        promise="a gradient far from its mean makes a short step",
        weakness="no bound: a constant gradient makes steps of 39 after 2000 steps; Adam's are 1",
        cases=[Case("scale_by_belief", gs.moments.scale_by_belief())],
        numbers=ADAM,
    ),
    Entry(
        "moments.scale_by_yogi",
        FAMILY,
        source="Zaheer 2018",
        promise="a bounded step, and a second moment that does not go stale in a quiet period",
        weakness="a spike of 1000 divides steps by 32 for 3000 steps and more, Adam's by 7",
        cases=[Case("scale_by_yogi", gs.moments.scale_by_yogi())],
        numbers={**ADAM, "initial_accumulator_value": BELOW_ZERO},
    ),
]

OTHERS = ("moments",)
