"""Matrix products inside a loop over time whose weight stays the same from step to step."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Matmul = Callable[..., Tensor]  # (name of the weight, input, weight, bias or None) to their product


def matmul(name: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight + bias`, outside of a loop."""
    return x @ weight if bias is None else F.linear(x, weight.T, bias)


class DeferredWeightGrad:
    """`x @ weight + bias` in every step of a loop, with the gradients of weight and bias computed once, after the loop.

    Autograd would add a gradient of the weight's full size at every step; for an attention's keys and values that is
    most of what the Speller's backward pass costs (docs/performance.md). One instance serves one pass over the loop.
    Every step must depend on the step before through its products, so that the gradient of the first step comes last.
    """

    def __init__(self) -> None:
        self._constants: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The product of one step.

        Args:
            name: of the weight; the same weight must be given under it at every step.
            x: `(..., Q, I)`.
            weight: `(..., I, O)`; `(I, O)` with a bias.
            bias: `(O,)`, or None.

        Returns:
            `(..., Q, O)`.
        """
        if not torch.is_grad_enabled():
            return matmul(name, x, weight, bias)
        first = name not in self._seen
        if first:
            self._seen[name] = []
            self._constants[name] = weight.detach(), None if bias is None else bias.detach()
        parameters = (weight, bias) if first else self._constants[name]
        return _DeferredMatmul.apply(x, *parameters, self._seen[name])


class _DeferredMatmul(torch.autograd.Function):
    """The first product of a name has weight and bias as inputs, the others constants of their values."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.seen = seen
        return matmul("", x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        ctx.seen.append((x, gradient))
        weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            xs, gradients = (torch.cat(tensors, dim=-2) for tensors in zip(*ctx.seen, strict=True))
            if weight.ndim == 2:
                xs, gradients = xs.flatten(0, -2), gradients.flatten(0, -2)
            weight_gradient = xs.transpose(-1, -2) @ gradients
            if ctx.needs_input_grad[2]:
                bias_gradient = gradients.sum(0)
            ctx.seen.clear()
        x_gradient = gradient @ weight.transpose(-1, -2) if ctx.needs_input_grad[0] else None
        return x_gradient, weight_gradient, bias_gradient, None
