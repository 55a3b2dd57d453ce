"""Gradients of weights taken once after a loop equal those that autograd adds up step by step."""

import pytest
import torch

from models.deferred_grad import DeferredWeightGrad, matmul
from tests.models.operations import Operations

STEPS = 7


def loop(product, x, weight, other, bias):
    """A recurrence in which every step depends on the one before, through two weights of different shapes."""
    outputs = []
    for _ in range(STEPS):
        x = torch.tanh(product("first", x, weight))
        x = x + product("second", x, other, bias)
        outputs.append(x)
    return torch.stack(outputs)


def inputs():
    torch.manual_seed(0)
    shapes = (2, 3, 4), (2, 4, 4), (4, 4), (4,)  # a weight for each row, as keys are, and one with a bias for all
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


@pytest.mark.parametrize(("deferred", "of_a_weight"), [(False, STEPS), (True, 1)])
def test_the_gradient_of_a_weight_is_one_product(deferred, of_a_weight):
    """Autograd takes one per step. Either way the gradient of the input takes one per step and weight."""
    outputs = loop(DeferredWeightGrad() if deferred else matmul, *inputs())
    with Operations() as operations:
        outputs.sum().backward()
    products = [name for name, _ in operations.found if name in ("aten::mm", "aten::bmm")]
    assert len(products) == 2 * STEPS + 2 * of_a_weight


def test_a_weight_that_needs_no_gradient_passes_it_on_to_the_input():
    found = []
    for product in (matmul, DeferredWeightGrad()):
        x, *others = inputs()
        loop(product, x, *(other.detach() for other in others)).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)


def test_without_gradients_nothing_is_kept():
    product = DeferredWeightGrad()
    with torch.no_grad():
        loop(product, *inputs())
    assert product._seen == {}
