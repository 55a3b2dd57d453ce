"""Matrix products inside a loop whose second factor stays the same from step to step."""

import torch
from torch import Tensor


def product(name: str, x: Tensor, matrix: Tensor) -> Tensor:
    """`x @ matrix`, once."""
    return x @ matrix


class LoopProducts:
    """`x @ matrix` step after step, with the gradient of each matrix taken in one product after the loop.

    Autograd would add a gradient of the matrix's full size at every step; for an attention's keys and values that
    is most of what the Speller's backward pass costs (RESULTS.md). Products are told apart by name. Each step must
    depend on the one before through its products, so that the first step's gradient comes last.
    """

    def __init__(self):
        self._constants: dict[str, Tensor] = {}
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, name: str, x: Tensor, matrix: Tensor) -> Tensor:
        """`x (..., Q, I)`, `matrix (..., I, O)` to `(..., Q, O)`; the same matrix every time."""
        if not torch.is_grad_enabled():
            return x @ matrix
        first = name not in self._seen
        if first:
            self._seen[name], self._constants[name] = [], matrix.detach()
        return _Product.apply(x, matrix if first else self._constants[name], self._seen[name])


class _Product(torch.autograd.Function):
    """The first product of a name has the matrix as an input, the others a constant of its value."""

    @staticmethod
    def forward(ctx, x: Tensor, matrix: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(x, matrix)
        ctx.seen = seen
        return x @ matrix

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, matrix = ctx.saved_tensors
        ctx.seen.append((x, gradient))
        of_matrix = None
        if ctx.needs_input_grad[1]:
            xs, gradients = (torch.cat(tensors, dim=-2) for tensors in zip(*ctx.seen, strict=True))
            of_matrix = xs.transpose(-1, -2) @ gradients
            ctx.seen.clear()
        of_x = gradient @ matrix.transpose(-1, -2) if ctx.needs_input_grad[0] else None
        return of_x, of_matrix, None
