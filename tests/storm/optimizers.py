"""The optimizers that the storm is let loose on, unmodified, straight from optax."""

from collections.abc import Callable

import jax
import optax
from optax import contrib


def _decay_kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _partitioned() -> optax.GradientTransformation:
    def label(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)

    return optax.partition({"matrix": optax.adam(1e-2), "vector": optax.sgd(1e-2, 0.9)}, label)


INNER: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(1e-2),
    "momentum": lambda: optax.sgd(1e-2, momentum=0.9),
    "nesterov": lambda: optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(1e-2),
    "adamw_schedule": lambda: optax.adamw(optax.cosine_decay_schedule(1e-2, 100)),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "radam": lambda: optax.radam(1e-2),
    "nadam": lambda: optax.nadam(1e-2),
    "lion": lambda: optax.lion(1e-3),
    "rmsprop": lambda: optax.rmsprop(1e-2, momentum=0.9),
    "adagrad": lambda: optax.adagrad(1e-2),
    "adadelta": lambda: optax.adadelta(1e-1),
    "lamb": lambda: optax.lamb(1e-2),
    "lars": lambda: optax.lars(1e-2),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "adabelief": lambda: optax.adabelief(1e-2),
    "yogi": lambda: optax.yogi(1e-2),
    "novograd": lambda: optax.novograd(1e-2),
    "adamax": lambda: optax.adamax(1e-2),
    "adan": lambda: optax.adan(1e-2),
    "muon": lambda: contrib.muon(1e-2),
    "schedule_free": lambda: contrib.schedule_free_adamw(1e-2, warmup_steps=10),
    "prodigy": lambda: contrib.prodigy(),
    "noisy_sgd": lambda: optax.noisy_sgd(1e-2, key=0),
    "masked_chain": lambda: optax.chain(
        optax.clip(1e3),
        optax.masked(optax.add_decayed_weights(1e-2), _decay_kernels),
        optax.adam(1e-2),
    ),
    "partition": _partitioned,
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw, hyperparam_dtype="float32")(
        1e-2
    ),
    "ema_chain": lambda: optax.chain(optax.ema(0.9), optax.scale_by_rms(), optax.scale(-1e-2)),
}
