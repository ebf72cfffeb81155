"""Mean stabilization: transforms that use the mean and the spread of each unit."""

import gradstable as gs
from tests.registry.entry import BELOW_ZERO, NOT_POSITIVE, Case, Entry

FAMILY = "Mean stabilization"

ENTRIES = [
    Entry(
        "centering.centralize",
        FAMILY,
        source="Yong 2020, arXiv:2004.01461",
        promise="the weights into a neuron keep their sum; a broken row or layer breaks no others",
        weakness="it limits nothing, and removes a direction that all inputs of a neuron share",
        cases=[Case("centralize", gs.centering.centralize())],
    ),
    Entry(
        "centering.standardize",
        FAMILY,
        source="Ours, after normalize_gradient of pytorch-optimizer",
        promise="mean 0 and deviation 1 in every unit, whatever the size of the gradient",
        weakness="steps do not shrink near a minimum, and the mean is lost as a signal",
        cases=[Case("standardize", gs.centering.standardize())],
        numbers={"eps": BELOW_ZERO},
    ),
    Entry(
        "centering.normalize",
        FAMILY,
        source="Yu 2017, arXiv:1707.04822",
        promise="the step has the requested norm, for gradients from 1e-30 to 1e38",
        weakness="steps do not shrink near a minimum, and one huge entry leaves no room for others",
        cases=[
            Case("normalize", gs.centering.normalize()),
            Case("normalize(leaf)", gs.centering.normalize(units="leaf", eps=0.0)),
        ],
        numbers={"scale": NOT_POSITIVE, "eps": BELOW_ZERO},
    ),
    Entry(
        "centering.mean_stabilize",
        FAMILY,
        source="Ours, after Yong 2020, arXiv:2004.01461",
        promise="a common offset of any size is removed, and the rest is bounded",
        weakness="if the offset is the signal, nothing is learned: see docs/mean_stabilization",
        cases=[
            Case("mean_stabilize", gs.centering.mean_stabilize()),
            Case("mean_stabilize(trust_region)", gs.centering.mean_stabilize("trust_region")),
        ],
        numbers={"eps": BELOW_ZERO},
    ),
]

OTHERS = ("centering",)
