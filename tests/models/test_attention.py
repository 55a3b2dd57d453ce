"""All kinds of attention against their equations."""

import math

import pytest
import torch

from benchmarks.pretend_cuda import PretendCuda
from models.attention import ATTENTION, DotAttention, LocationAttention, Past, RelativeAttention

LENGTHS = torch.tensor([9, 4])


def project(layer, x, head):
    """One head's share of a linear layer."""
    size = layer.out_features // 2
    rows = slice(head * size, (head + 1) * size)
    return x @ layer.weight[rows].T + layer.bias[rows]


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.randn(2, 3, 5), torch.randn(2, 9, 7), Past(*torch.rand(2, 2, 2, 3, 9))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dot", "location"])
def test_equals_equations_written_out(kind, inputs):
    """Every utterance, query, head and step one by one, over real steps alone."""
    query, memory, past = inputs
    attention = ATTENTION[kind](5, 7, dim=8, heads=2)
    context, weights = attention(query, attention.project(memory, LENGTHS), past)
    assert context.shape == (2, 3, 8)
    assert weights.shape == (2, 2, 3, 9)
    for b, length in enumerate(LENGTHS.tolist()):
        for q in range(3):
            for head in range(2):
                s = project(attention.query, query[b, q], head)
                keys, values = (project(layer, memory[b, :length], head) for layer in (attention.key, attention.value))
                if kind == "dot":
                    energies = [float(s @ key) / math.sqrt(4) for key in keys]
                else:
                    padded = torch.nn.functional.pad(torch.stack(past)[:, b, head, q], (15, 15))
                    seen = padded.unfold(1, 31, 1)  # (2, S, 31)
                    filtered = torch.einsum("psw,cpw->sc", seen, attention.location.weight)  # (S, 10)
                    location = filtered @ attention.location_key.weight.T
                    energies = [
                        float(attention.energy[head] @ torch.tanh(s + key + location[i])) for i, key in enumerate(keys)
                    ]
                expected = torch.tensor(energies).softmax(0)
                torch.testing.assert_close(weights[b, head, q, :length], expected, atol=1e-5, rtol=1e-4)
                found = context[b, q, 4 * head : 4 * head + 4]
                torch.testing.assert_close(found, expected @ values, atol=1e-5, rtol=1e-4)
    assert (weights[1, :, :, 4:] == 0).all()


def test_padding_has_no_weight_even_in_bf16(inputs):
    query, memory, past = inputs
    memory[1, 4:] = 1e4
    attention = DotAttention(5, 7, dim=8, heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        _, weights = attention(query, attention.project(memory, LENGTHS), past)
    assert weights.dtype == torch.float32
    assert (weights[1, :, :, 4:] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3))


def test_location_attention_reads_where_it_was(inputs):
    query, memory, past = inputs
    attention = LocationAttention(5, 7, dim=8, heads=2)
    projected = attention.project(memory, LENGTHS)
    weights = attention(query, projected, past)[1]
    for part in Past._fields:
        moved = past._replace(**{part: getattr(past, part).roll(1, dims=3)})
        assert not torch.allclose(attention(query, projected, moved)[1], weights)


def test_energies_start_small():
    """Their weights are drawn with the variance that keeps the sum over a head's units near 1."""
    torch.manual_seed(0)
    attention = LocationAttention(5, 7, dim=4096, heads=4)
    assert attention.energy.shape == (4, 1024)
    assert attention.energy.std().item() == pytest.approx(1 / 32, rel=0.05)


def test_heads_must_divide_dim():
    with pytest.raises(ValueError, match=r"multiple of model\.attention\.heads"):
        DotAttention(5, 7, dim=8, heads=3)


def test_location_attention_without_its_past_is_refused(inputs):
    query, memory, _ = inputs
    attention = LocationAttention(5, 7, dim=8, heads=2)
    with pytest.raises(ValueError, match="weights of the steps before"):
        attention(query, attention.project(memory, LENGTHS))


@pytest.mark.parametrize("heads", [1, 2])
def test_what_is_computed_again_in_the_backward_pass_is_the_same(inputs, heads):
    query, memory, past = inputs
    past = Past(*(tensor[:, :heads] for tensor in past))
    torch.manual_seed(1)
    attention = LocationAttention(5, 7, dim=8, heads=heads)
    gradients = []
    for recompute in (False, True):
        attention.zero_grad()
        context, _ = attention(query, attention.project(memory, LENGTHS), past, recompute=recompute)
        context.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in attention.parameters()])
    for kept, again in zip(*gradients, strict=True):
        assert torch.equal(kept, again)


def test_intermediates_are_computed_again_where_memory_is_short_and_on_a_gpu_alone(inputs):
    _, memory, _ = inputs
    attention = LocationAttention(5, 7, dim=8, heads=2)
    assert not attention.must_recompute(attention.project(memory, LENGTHS), queries=10**9)
    with PretendCuda() as gpu:  # 4 GiB to spare
        projected = gpu.move(attention).project(memory.to(gpu.device), LENGTHS.to(gpu.device))
        size = projected.keys.numel() * 4
        assert not attention.must_recompute(projected, queries=2**32 // size)
        assert attention.must_recompute(projected, queries=2**32 // size + 1)
        assert not DotAttention(5, 7, dim=8, heads=2).must_recompute(projected, queries=10**9)


@torch.no_grad()
def test_relative_attention_is_the_dot_product_with_its_prior(inputs):
    query, memory, _ = inputs
    torch.manual_seed(1)
    attention = RelativeAttention(5, 7, dim=8, heads=2)
    for parameter in (attention.centre, attention.log_behind, attention.log_ahead, attention.strength):
        parameter.add_(0.3 * torch.randn(2))
    position = torch.tensor([[0.0, 2.5, 7.0], [0.0, 1.0, 3.0]])
    projected = attention.project(memory, LENGTHS)
    _, weights = attention(query, projected, position)
    heard = attention._split(attention.query(query)) @ projected.keys.transpose(2, 3)
    for b, head, q in ((0, 0, 0), (0, 1, 1), (0, 0, 2), (1, 1, 2)):
        length, expected = int(LENGTHS[b]), []
        for step in range(length):
            offset = step - float(position[b, q]) - 10 * float(attention.centre[head])
            width = (attention.log_behind if offset < 0 else attention.log_ahead)[head].exp()
            strength = math.log1p(math.exp(attention.strength[head]))
            expected.append(float(heard[b, head, q, step]) - strength * math.log1p((offset / float(width)) ** 2))
        torch.testing.assert_close(
            weights[b, head, q, :length], torch.tensor(expected).softmax(0), atol=1e-5, rtol=1e-4
        )
    with pytest.raises(ValueError, match="position"):
        attention(query, projected)
