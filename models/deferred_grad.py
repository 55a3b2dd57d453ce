"""Matrix products inside a loop over time whose weight stays the same from step to step."""

from collections.abc import Callable

import torch
from torch import Tensor

Matmul = Callable[[str, Tensor, Tensor], Tensor]  # (name of the weight, input, weight) to their product


def matmul(name: str, x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight`, outside of a loop."""
    return x @ weight


class DeferredWeightGrad:
    """`x @ weight` in every step of a loop, with the gradient of each weight computed by one product after the loop.

    Autograd would add a gradient of the weight's full size at every step; for an attention's keys and values that is
    most of what the Speller's backward pass costs (docs/performance.md). One instance serves one pass over the loop.
    Every step must depend on the step before through its products, so that the gradient of the first step comes last.
    """

    def __init__(self) -> None:
        self._constants: dict[str, Tensor] = {}
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, name: str, x: Tensor, weight: Tensor) -> Tensor:
        """The product of one step.

        Args:
            name: of the weight; the same weight must be given under it at every step.
            x: `(..., Q, I)`.
            weight: `(..., I, O)`.

        Returns:
            `(..., Q, O)`.
        """
        if not torch.is_grad_enabled():
            return x @ weight
        first = name not in self._seen
        if first:
            self._seen[name], self._constants[name] = [], weight.detach()
        return _DeferredMatmul.apply(x, weight if first else self._constants[name], self._seen[name])


class _DeferredMatmul(torch.autograd.Function):
    """The first product of a name has the weight as an input, the others a constant of its value."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.seen = seen
        return x @ weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        ctx.seen.append((x, gradient))
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            xs, gradients = (torch.cat(tensors, dim=-2) for tensors in zip(*ctx.seen, strict=True))
            weight_gradient = xs.transpose(-1, -2) @ gradients
            ctx.seen.clear()
        x_gradient = gradient @ weight.transpose(-1, -2) if ctx.needs_input_grad[0] else None
        return x_gradient, weight_gradient, None
