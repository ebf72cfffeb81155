"""The loss side: penalties, bounded losses, ascent, and the clip of attention logits."""

import jax
import jax.numpy as jnp

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, NOT_POSITIVE, Case, Entry, bind

FAMILY = "The loss side"

_BATCH = jnp.ones((4, 2))
_WEIGHT = {"weight": (-1.0, jnp.inf)}
_AXIS = {"axis": (7, -7, 0.5, (0, 7), (0, 0), (), (0, 0.5))}
_ALL = frozenset({"axis"})  # None: all axes
_SHARE = (-0.1, 1.0, 1.5)


def _score(batch: jax.Array) -> jax.Array:
    return jnp.sum(batch, axis=-1)


_SAM = {"rho": (-0.05, jnp.inf), "eta": BELOW_ZERO}

ENTRIES = [
    Entry(
        "losses.wgan_gp",
        FAMILY,
        source="Gulrajani 2017, arXiv:1704.00028",
        promise="the slope of a critic between real and fake samples stays near 1; no NaN at zero",
        weakness="a slope of exactly zero costs the whole weight and has no gradient",
        numbers={**_WEIGHT, "center": BELOW_ZERO},
        required={"critic": _score, "real": _BATCH, "fake": _BATCH, "key": jax.random.key(0)},
    ),
    Entry(
        "losses.r1",
        FAMILY,
        source="Mescheder 2018, arXiv:1801.04406",
        promise="a critic is flat at the real samples, so that training converges near equilibrium",
        weakness="a slope of 50 between the samples costs less than 1e-30",
        numbers=_WEIGHT,
        required={"critic": _score, "real": _BATCH},
    ),
    Entry(
        "losses.r2",
        FAMILY,
        source="Mescheder 2018, arXiv:1801.04406",
        promise="a critic is flat at the fake samples",
        weakness="it says nothing about the slope at the data while the fakes are far from them",
        numbers=_WEIGHT,
        required={"critic": _score, "fake": _BATCH},
    ),
    Entry(
        "losses.input_gradient",
        FAMILY,
        source="Drucker 1992; Ross 2017, arXiv:1711.09404",
        promise="a small change of the input changes the loss only a little",
        weakness="at a margin of 20 a saturated loss hides all but 2e-9 of a slope",
        numbers=_WEIGHT,
        required={"loss_fn": _score, "inputs": _BATCH, "weight": 1.0},
    ),
    Entry(
        "losses.z_loss",
        FAMILY,
        source="Chowdhery 2022, arXiv:2204.02311",
        promise="the normalizer of a softmax stays near 1, where logits keep their digits",
        weakness="above log Z = 5000 it pulls harder than the cross-entropy can",
        numbers={**_WEIGHT, **_AXIS},
        optional=_ALL,
        required={"logits": _BATCH},
    ),
    Entry(
        "losses.soft_cap",
        FAMILY,
        source="Gemma Team 2024, arXiv:2408.00118",
        promise="no logit exceeds the cap",
        weakness="at five times the cap the gradient is 1.8e-4, at twenty times it is zero",
        numbers={"cap": (*NOT_POSITIVE, jnp.inf)},
        required={"logits": _BATCH, "cap": 50.0},
    ),
    Entry(
        "losses.smooth_labels",
        FAMILY,
        source="Szegedy 2015, arXiv:1512.00567",
        promise="the best gap between logits is finite: 4.51 for ten classes and 0.1",
        weakness="the loss then cannot fall below 0.50",
        numbers={"alpha": _SHARE, **_AXIS},
        optional=_ALL,
        required={"labels": _BATCH},
    ),
    Entry(
        "losses.softmax_cross_entropy",
        FAMILY,
        source="Ours",
        promise="gradients with a norm of at most sqrt(2), and no NaN from masked classes or rows",
        weakness="it does not constrain a shift of all logits: they drift without the z-loss",
        numbers={"label_smoothing": _SHARE, "z_weight": BELOW_ZERO, **_AXIS},
        optional=_ALL,
        required={"logits": _BATCH, "labels": _BATCH / 2},
    ),
    Entry(
        "losses.sigmoid_binary_cross_entropy",
        FAMILY,
        source="Ours",
        promise="gradients of at most 1, even for infinite logits",
        weakness="a wrong label pulls with a force of 1, however far off its logit is",
        required={"logits": _BATCH, "labels": _BATCH},
    ),
    Entry(
        "losses.huber",
        FAMILY,
        source="Huber 1964",
        promise="no sample pulls harder than delta, whatever its error",
        weakness="absurd targets in one of ten samples move a fitted mean by 0.16 deviations",
        numbers={"delta": (*NOT_POSITIVE, jnp.inf)},
        required={"predictions": _BATCH},
    ),
    Entry(
        "losses.log_cosh",
        FAMILY,
        source="Chen 2019",
        promise="no sample pulls harder than 1, and the loss is smooth",
        weakness="as losses.huber; the bound is fixed at 1, in units of the error",
        required={"predictions": _BATCH},
    ),
    Entry(
        "losses.masked_mean",
        FAMILY,
        source="Ours",
        promise="0 instead of NaN for a batch in which nothing counts",
        weakness="a mean of such means over devices weighs 1 entry like 3 on another",
        required={"values": _BATCH},
    ),
    Entry(
        "losses.l1_penalty",
        FAMILY,
        source="Tibshirani 1996",
        promise="weights become small, most of them negligible; its gradient is at most the weight",
        weakness="under gradient steps none becomes exactly zero",
        numbers=_WEIGHT,
        required={"params": _BATCH, "weight": 1.0},
    ),
    Entry(
        "losses.l2_penalty",
        FAMILY,
        source="Krogh 1991",
        promise="weights stay small; the penalty is finite wherever the weighted square is",
        weakness="with Adam a weight of 100 is pulled no harder than one of 1",
        numbers=_WEIGHT,
        required={"params": _BATCH, "weight": 1.0},
    ),
    Entry(
        "losses.kernels_only",
        FAMILY,
        source="Ours",
        promise="no penalty or decay on biases, scales and embeddings",
        weakness="it goes by names: a stack of vectors with another name counts as a kernel",
        required={"params": _BATCH},
    ),
    Entry(
        "losses.sam_ascent",
        FAMILY,
        source="Foret 2020, arXiv:2010.01412; Kwon 2021, arXiv:2102.11600",
        promise="an ascent of bounded length, and none for a gradient that is not finite",
        weakness="in bfloat16 not one of ten thousand weights of 1.0 moves",
        numbers=_SAM,
        required={"params": _BATCH, "gradients": _BATCH},
    ),
    Entry(
        "losses.sam_gradients",
        FAMILY,
        source="Foret 2020, arXiv:2010.01412; Kwon 2021, arXiv:2102.11600",
        promise="training settles in flat minima, from which a step does not fly out",
        weakness="twice the cost of a gradient; the value is above the loss by about rho * norm",
        numbers=_SAM,
        required={"loss_fn": lambda params: jnp.sum(params**2), "params": _BATCH},
    ),
    Entry(
        "clipping.qk_clip",
        FAMILY,
        source="Kimi Team 2025, arXiv:2507.20534",
        promise="attention logits are brought back to a threshold, head by head",
        weakness="one batch with a logit of 10000 shrinks the logits of its head by 100 for good",
        # The trees of the contract contain no attention; its own tests have some.
        cases=[
            Case(
                "qk_clip",
                bind(gs.clipping.qk_clip(allow_missing=True), max_logits=jnp.full(2, 400.0)),
            )
        ],
        numbers={"max_logit": NOT_POSITIVE, "alpha": (-0.1, 1.1)},
    ),
]

OTHERS = ("losses",)
