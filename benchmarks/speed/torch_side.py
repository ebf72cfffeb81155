"""The same step in torch, if it is installed: AdamW in 32 or 8 bits, a clip, a finite check."""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.speed.trees import Tree

NAME = "torch AdamW(fused), clip, finite check"
_EIGHT_BITS = {"torchao": "torchao.optim", "bitsandbytes": "bitsandbytes.optim"}


class TorchStep(NamedTuple):
    """A row of the table that torch provides."""

    run: Callable[[], None]  # some steps
    state: float  # bytes per parameter
    necessary: int  # words


def torch_or_none() -> Any | None:
    return _module("torch")


def torch_steps(torch: Any, tree: Tree, chained: int, *, peers: bool) -> dict[str, TorchStep]:
    """Return the rows that can run here, by name; with their peers in 8 bits, slow on a CPU."""
    found = {
        NAME: _torch_step(torch, lambda p: torch.optim.AdamW(p, 3e-4, fused=True), tree, chained)
    }
    for package, place in _EIGHT_BITS.items() if peers else ():
        optim = _module(place)
        if optim is None:
            continue
        try:
            row = _torch_step(torch, lambda p, o=optim: o.AdamW8bit(p, lr=3e-4), tree, chained)
        except Exception as error:  # a missing compiler of theirs must not cost the other rows
            warnings.warn(f"{package}: {error}", stacklevel=1)
            continue
        found[f"{package} AdamW8bit, clip, finite check"] = row._replace(necessary=4)
    return found


def _torch_step(
    torch: Any, make: Callable[[list[Any]], Any], tree: Tree, chained: int
) -> TorchStep:
    """Return a step with the check of ``torch.amp.GradScaler`` before it.

    It unscales (here by one), and skips the step if an entry is not finite.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [
        torch.full(leaf.shape, 0.1, device=device, requires_grad=True) for leaf in tree.values()
    ]
    for param in params:
        param.grad = torch.full_like(param, 0.01)
    gradients = [param.grad for param in params]
    optimizer = make(params)
    found, one = torch.zeros(1, device=device), torch.ones(1, device=device)

    def run() -> None:
        for _ in range(chained):
            found.zero_()
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
            if not found.item():
                torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    run()
    entries = sum(math.prod(leaf.shape) for leaf in tree.values())
    values = (value for state in optimizer.state.values() for value in state.values())
    return TorchStep(run, sum(map(_bytes, values)) / entries, necessary=7)


def _bytes(value: Any) -> int:
    """Return the bytes of a tensor, or of those that a tensor of few bits consists of."""
    parts = getattr(value, "tensor_attrs", ())
    if parts:
        return sum(_bytes(getattr(value, part)) for part in parts)
    return value.numel() * value.element_size() if hasattr(value, "numel") else 0


def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
