"""Gradients of weights taken once after a loop equal those that autograd adds up step by step."""

import torch

from models import deferred_grad
from models.deferred_grad import DeferredWeightGrad, matmul

STEPS = 7


def loop(product, x, weight, other):
    """A recurrence in which every step depends on the one before, through two weights of different shapes."""
    outputs = []
    for _ in range(STEPS):
        x = torch.tanh(product("first", x, weight))
        x = x + product("second", x, other)
        outputs.append(x)
    return torch.stack(outputs)


def inputs():
    torch.manual_seed(0)
    shapes = (2, 3, 4), (2, 4, 4), (4, 4)  # a weight for each row, as keys are, and one for all
    return [torch.randn(shape, dtype=torch.double).requires_grad_() for shape in shapes]


def test_values_and_gradients_are_those_of_plain_products():
    found = []
    for product in (matmul, DeferredWeightGrad()):
        tensors = inputs()
        outputs = loop(product, *tensors)
        (outputs * torch.linspace(-1, 1, 4)).sum().backward()
        found.append([outputs, *(tensor.grad for tensor in tensors)])
    for plain, deferred in zip(*found, strict=True):
        torch.testing.assert_close(plain, deferred)


def test_the_gradient_of_a_weight_is_one_product(monkeypatch):
    """Of all steps together: the operands are as long as the loop."""
    lengths, cat = [], torch.cat

    def counted(tensors, dim):
        lengths.append(len(tensors))
        return cat(tensors, dim=dim)

    monkeypatch.setattr(deferred_grad.torch, "cat", counted)
    loop(DeferredWeightGrad(), *inputs()).sum().backward()
    assert lengths == [STEPS] * 4  # inputs and gradients, of two weights


def test_without_gradients_nothing_is_kept():
    product = DeferredWeightGrad()
    with torch.no_grad():
        loop(product, *inputs())
    assert product._seen == {}
