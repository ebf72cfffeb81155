"""The loss side: penalties, bounded losses, and gradients from the worst point nearby."""

from gradstable._src.losses.critics import r1, r2, wgan_gp
from gradstable._src.losses.double_backprop import input_gradient
from gradstable._src.losses.labels import smooth_labels
from gradstable._src.losses.logits import soft_cap, z_loss
from gradstable._src.losses.masks import masked_mean
from gradstable._src.losses.regression import huber, log_cosh
from gradstable._src.losses.sam import sam_ascent, sam_gradients
from gradstable._src.losses.sigmoid import sigmoid_binary_cross_entropy
from gradstable._src.losses.softmax import softmax_cross_entropy
from gradstable._src.losses.weights import kernels_only, l1_penalty, l2_penalty

__all__ = [
    "huber",
    "input_gradient",
    "kernels_only",
    "l1_penalty",
    "l2_penalty",
    "log_cosh",
    "masked_mean",
    "r1",
    "r2",
    "sam_ascent",
    "sam_gradients",
    "sigmoid_binary_cross_entropy",
    "smooth_labels",
    "soft_cap",
    "softmax_cross_entropy",
    "wgan_gp",
    "z_loss",
]
