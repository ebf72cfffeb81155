"""The same step in torch, if it is installed: fused AdamW, a clip, a finite check."""

import importlib
import math
from collections.abc import Callable
from typing import Any

from benchmarks.speed.trees import Tree

NAME = "torch AdamW(fused), clip, finite check"


def torch_or_none() -> Any | None:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def torch_step(torch: Any, tree: Tree, chained: int) -> tuple[Callable[[], None], float]:
    """Return a function that runs some protected steps, and the bytes of state per parameter.

    The check is that of ``torch.amp.GradScaler`` before each step: unscale (here by one), and skip
    the step if an entry is not finite.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [
        torch.full(leaf.shape, 0.1, device=device, requires_grad=True) for leaf in tree.values()
    ]
    for param in params:
        param.grad = torch.full_like(param, 0.01)
    gradients = [param.grad for param in params]
    optimizer = torch.optim.AdamW(params, lr=3e-4, fused=True)
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
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
    )
    return run, kept / sum(math.prod(leaf.shape) for leaf in tree.values())
