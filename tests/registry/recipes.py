"""Assembled optimizers."""

import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, DECAY, Case, Entry, is_matrix
from tests.registry.moments import ADADELTA, ADAM, BETAS, NADAM, RADAM, RMS, RSS

FAMILY = "Recipes"

RATE = (-1e-3, np.inf)
_LR = {"learning_rate": RATE}
_ONE = {"learning_rate": 1e-3}

ENTRIES = [
    Entry(
        "adamw",
        FAMILY,
        source="Loshchilov 2017, arXiv:1711.05101",
        promise="AdamW behind the guard, at the cost of the guard alone",
        weakness="as scale_by_adam",
        cases=[
            Case("adamw", gs.adamw(1e-3)),
            Case(
                "adamw(all options)",
                gs.adamw(
                    optax.linear_schedule(1e-2, 1e-3, 10),
                    b2=0.95,
                    eps_root=1e-12,
                    mu_dtype=jnp.bfloat16,
                    weight_decay=optax.linear_schedule(0.0, 0.1, 10),
                    mask=is_matrix,
                    nesterov=True,
                    rules=(gs.rules.global_norm(1.0),),
                ),
            ),
        ],
        numbers={**_LR, "weight_decay": BELOW_ZERO, **ADAM},
        required=_ONE,
    ),
    Entry(
        "adamw_8bit",
        FAMILY,
        source="Loshchilov 2017, arXiv:1711.05101",
        promise="AdamW behind the guard with 2 bytes of state, for half the traffic of AdamW",
        weakness="as scale_by_adam_8bit",
        cases=[Case("adamw_8bit", gs.adamw_8bit(1e-3))],
        numbers={**_LR, "weight_decay": BELOW_ZERO, **BETAS},
        required=_ONE,
    ),
    Entry(
        "sgd",
        FAMILY,
        source="Robbins 1951",
        promise="gradient descent behind the guard, at the cost of the guard alone",
        weakness="a step is proportional to the gradient: all of its safety comes from the guard",
        cases=[
            Case("sgd", gs.sgd(1e-2)),
            Case("sgd(momentum)", gs.sgd(1e-2, momentum=0.9, nesterov=True)),
        ],
        numbers={**_LR, "momentum": DECAY},
        optional=frozenset({"momentum"}),
        required=_ONE,
    ),
    Entry(
        "adam",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="Adam behind the guard, at the cost of the guard alone",
        weakness="as scale_by_adam",
        cases=[Case("adam", gs.adam(1e-3))],
        numbers={**_LR, **ADAM},
        required=_ONE,
    ),
    Entry(
        "nadam",
        FAMILY,
        source="Dozat 2016",
        promise="NAdam behind the guard, with or without its momentum schedule",
        weakness="as scale_by_nadam; without the schedule a step is at most 8.42",
        cases=[Case("nadam", gs.nadam(1e-3, momentum_decay=4e-3))],
        numbers={**_LR, **NADAM},
        optional=frozenset({"momentum_decay"}),
        required=_ONE,
    ),
    Entry(
        "nadamw",
        FAMILY,
        source="Dozat 2016; Loshchilov 2017, arXiv:1711.05101",
        promise="NAdam with decoupled decay behind the guard",
        weakness="as nadam",
        cases=[Case("nadamw", gs.nadamw(1e-3))],
        numbers={**_LR, "weight_decay": BELOW_ZERO, **NADAM},
        optional=frozenset({"momentum_decay"}),
        required=_ONE,
    ),
    Entry(
        "amsgrad",
        FAMILY,
        source="Reddi 2018, arXiv:1904.09237",
        promise="AMSGrad behind the guard, which keeps spikes out of its maximum",
        weakness="as scale_by_amsgrad for what the guard lets through",
        cases=[Case("amsgrad", gs.amsgrad(1e-3))],
        numbers={**_LR, **ADAM},
        required=_ONE,
    ),
    Entry(
        "adamax",
        FAMILY,
        source="Kingma 2014, arXiv:1412.6980",
        promise="AdaMax behind the guard: a step is at most 1.009 learning rates",
        weakness="as scale_by_adamax",
        cases=[Case("adamax", gs.adamax(1e-3))],
        numbers={**_LR, **BETAS},
        required=_ONE,
    ),
    Entry(
        "radam",
        FAMILY,
        source="Liu 2019, arXiv:1908.03265",
        promise="RAdam behind the guard",
        weakness="as scale_by_radam, and in the first five steps the guard has no history yet",
        cases=[Case("radam", gs.radam(1e-3))],
        numbers={**_LR, **RADAM},
        required=_ONE,
    ),
    Entry(
        "adabelief",
        FAMILY,
        source="Zhuang 2020, arXiv:2010.07468",
        promise="AdaBelief behind the guard",
        weakness="as scale_by_belief: constant gradients make unbounded steps, which no guard sees",
        cases=[Case("adabelief", gs.adabelief(1e-3))],
        numbers={**_LR, "weight_decay": BELOW_ZERO, **ADAM},
        optional=frozenset({"weight_decay"}),
        required=_ONE,
    ),
    Entry(
        "yogi",
        FAMILY,
        source="Zaheer 2018",
        promise="Yogi behind the guard",
        weakness="as scale_by_yogi for what the guard lets through",
        cases=[Case("yogi", gs.yogi(1e-2))],
        numbers={**_LR, **BETAS},
        required=_ONE,
    ),
    Entry(
        "rmsprop",
        FAMILY,
        source="Hinton 2012",
        promise="RMSprop behind the guard",
        weakness="as scale_by_rms; momentum multiplies its bound by 1/(1-momentum)",
        cases=[
            Case("rmsprop", gs.rmsprop(1e-3)),
            Case("rmsprop(momentum)", gs.rmsprop(1e-3, momentum=0.9)),
        ],
        numbers={**_LR, **RMS, "momentum": DECAY},
        optional=frozenset({"momentum"}),
        required=_ONE,
    ),
    Entry(
        "adagrad",
        FAMILY,
        source="Duchi 2011",
        promise="Adagrad behind the guard, which keeps spikes out of its sum",
        weakness="as scale_by_rss for what the guard lets through",
        cases=[Case("adagrad", gs.adagrad(1e-1))],
        numbers={**_LR, **RSS},
        required=_ONE,
    ),
    Entry(
        "adadelta",
        FAMILY,
        source="Zeiler 2012, arXiv:1212.5701",
        promise="Adadelta behind the guard",
        weakness="as scale_by_adadelta",
        cases=[Case("adadelta", gs.adadelta(1.0))],
        numbers={**_LR, "weight_decay": RATE, **ADADELTA},
        optional=frozenset({"learning_rate"}),
        required=_ONE,
    ),
]

OTHERS = ("recipes",)
