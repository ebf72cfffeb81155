"""The tasks of the gauntlet."""

from collections.abc import Callable
from functools import partial

from gradstable_gauntlet.task import Task
from gradstable_gauntlet.tasks.digits import deep_mlp, digits_cnn
from gradstable_gauntlet.tasks.fair import several_heads, sparse_reward, triplet, two_heads
from gradstable_gauntlet.tasks.game import gan, wgan
from gradstable_gauntlet.tasks.language import lm_markov, lm_topics
from gradstable_gauntlet.tasks.policy import policy
from gradstable_gauntlet.tasks.recurrent import lstm, rnn
from gradstable_gauntlet.tasks.regression import heavy_tails, sines

# Factories, so that data are read and generated only when needed. All take a ``dtype``.
TASKS: dict[str, Callable[..., Task]] = {
    "digits_cnn": digits_cnn,
    "deep_mlp": deep_mlp,
    "relu_rnn": partial(rnn, activation="relu", radius=1.5),
    "tanh_rnn": partial(rnn, activation="tanh", radius=1.5, gain=0.3),
    "relu_rnn_100": partial(
        rnn, radius=1.0, identity=True, gain=0.03, length=100, hidden=12, batch_size=8, steps=300
    ),
    "lstm": lstm,
    "lm_topics": lm_topics,
    "lm_topics_qk": partial(lm_topics, qk_norm=True, z_weight=1e-4),
    "lm_markov": lm_markov,
    "lm_markov_qk": partial(lm_markov, qk_norm=True, z_weight=1e-4),
    "gan": gan,
    "heavy_tails": heavy_tails,
    "sines": sines,
    "two_heads": two_heads,
    "two_heads_rare": partial(two_heads, share=0.1, factor=50.0),
    "two_heads_even": partial(two_heads, share=0.45, factor=100.0),
    "three_heads": partial(several_heads, shares=(1 / 3,) * 3, factors=(1.0, 1e2, 1e4)),
    "sparse_reward": sparse_reward,
    "triplet": triplet,
    "wgan": wgan,
    "policy": policy,
}
