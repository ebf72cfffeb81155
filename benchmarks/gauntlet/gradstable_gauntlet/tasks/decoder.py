"""A decoder-only transformer for one-hot characters, small enough to run many side by side."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradstable.losses import z_loss
from gradstable_gauntlet.task import Batch, Disturbance, Params
from gradstable_gauntlet.tasks.parts import cast, weights


class Decoder(NamedTuple):
    """A pre-norm decoder and its settings.

    Attributes:
      vocabulary: the number of tokens.
      width: the size of the residual stream.
      layers: the number of blocks.
      context: the number of tokens it reads.
      heads: the number of attention heads.
      qk_norm: whether queries and keys are normalized (Dehghani et al. 2023, arXiv:2302.05442).
      z_weight: the factor of the z-loss, in training only.
      dtype: the compute dtype; the norms and the loss are in float32.
    """

    vocabulary: int
    width: int = 16
    layers: int = 1
    context: int = 16
    heads: int = 2
    qk_norm: bool = False
    z_weight: float = 0.0
    dtype: DTypeLike = jnp.float32

    def init(self, key: jax.Array) -> Params:
        """Return initial parameters."""
        w, v = self.width, self.vocabulary
        block = [(w, 3 * w), (w, w), (w, 4 * w), (4 * w, w)]
        token, place, head, *rest = weights(
            key, (v, w), (self.context, w), (w, v), *block * self.layers
        )
        return {
            "token": token * (v**0.5 / 2),
            "place": place * (self.context**0.5 / 2),
            "head": head,
            "norm": jnp.ones(w),
            "blocks": [self._block(rest[4 * i : 4 * i + 4]) for i in range(self.layers)],
        }

    def _block(self, kernels: list[jax.Array]) -> Params:
        block = dict(zip(("qkv", "out", "up", "down"), kernels, strict=True))
        norms = {name: jnp.ones(self.width) for name in ("norm1", "norm2")}
        if self.qk_norm:
            norms |= {name: jnp.ones(self.width // self.heads) for name in ("q_norm", "k_norm")}
        return block | norms

    def logits(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Return logits ``[batch, context, vocabulary]`` for the token after each."""
        p = cast(params, self.dtype)
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=self.dtype) @ p["token"] + p["place"]
        for block in p["blocks"]:
            x = x + self._attend(_norm(x, block["norm1"]), block)
            x = x + jax.nn.relu(_norm(x, block["norm2"]) @ block["up"]) @ block["down"]
        return _norm(x, p["norm"]) @ p["head"]

    def _attend(self, x: jax.Array, block: Params) -> jax.Array:
        parts = (x @ block["qkv"]).reshape(*x.shape[:-1], 3, self.heads, self.width // self.heads)
        q, k, v = parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]
        if self.qk_norm:
            q, k = _norm(q, block["q_norm"]), _norm(k, block["k_norm"])
        scores = jnp.einsum("bthd,bshd->bhts", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        past = jnp.tril(jnp.ones((self.context, self.context), bool))
        weights = jax.nn.softmax(jnp.where(past, scores, -1e9)).astype(self.dtype)
        return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape) @ block["out"]

    def loss(self, params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        """Return the loss of a batch: tokens, and others to read instead if it is disturbed."""
        tokens, others = batch
        tokens = jnp.where(ill.inputs == 1, tokens, others)
        targets = jax.nn.one_hot(tokens[:, 1:], self.vocabulary) * ill.targets
        out = self.logits(params, tokens[:, :-1]).astype(jnp.float32)
        losses = -jnp.sum(targets * jax.nn.log_softmax(out), -1)
        if self.z_weight:
            losses = losses + z_loss(out, weight=self.z_weight)
        return jnp.mean(losses) * ill.inputs


def _norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    scale = lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype) * gain
