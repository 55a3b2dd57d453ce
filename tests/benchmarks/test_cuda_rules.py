"""What CUDA refuses, waits for and casts, on pretended CUDA."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks.pretend_cuda import PretendCuda


@pytest.fixture
def gpu():
    with PretendCuda() as gpu:
        yield gpu


def ctc_loss(gpu: PretendCuda, log_probs: torch.Tensor, lengths_on_gpu: bool = False) -> torch.Tensor:
    """Of `log_probs (T, 2, V)` on the GPU."""
    lengths = torch.tensor([5, 4]), torch.tensor([2, 1])
    if lengths_on_gpu:
        lengths = tuple(each.to(gpu.device, non_blocking=True) for each in lengths)
    targets = torch.ones(2, 2, dtype=torch.long, device=gpu.device)
    return F.ctc_loss(log_probs, targets, *lengths, reduction="sum")


REFUSED = {
    "integers": lambda x, d: x.long().view(2, 3) @ x.long().view(3, 2),
    "16 bits": lambda x, d: ctc_loss(PretendCuda, x.new_zeros(5, 2, 4).half()),
    "one type": lambda x, d: torch.ops.aten._thnn_fused_lstm_cell(
        x.new_zeros(2, 8).half(), x.new_zeros(2, 8), x.new_zeros(2, 2)
    ),
    "rand: was given a generator": lambda x, d: torch.rand(3, device=d, generator=torch.Generator()),
    "exponential_.*a generator": lambda x, d: x.exponential_(generator=torch.Generator()),
    "by indices on cuda": lambda x, d: torch.arange(6)[x.long()],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cuda_refuses_fails(gpu, message):
    with pytest.raises(AssertionError, match=message):
        REFUSED[message](torch.arange(6.0).to(gpu.device), gpu.device)


def test_what_the_host_waits_for_is_noted(gpu):
    x = torch.arange(6.0, device=gpu.device)
    twice = torch.full((6,), 2, device=gpu.device)
    for wait in (
        lambda: x.clone().copy_(torch.ones(6)),
        lambda: torch.ones(6).copy_(x),
        lambda: x.clone().__setitem__(slice(2), torch.ones(2)),
        lambda: torch.repeat_interleave(x, twice),
        lambda: x.unique(),
        lambda: x.long().bincount(),
        lambda: torch.allclose(x, x),
        lambda: str(x),
        lambda: torch.asarray([1.0], device=gpu.device),
    ):
        with gpu.count() as counted:
            wait()
        assert len(counted.syncs) == 1, wait
    with gpu.count() as counted:
        x.clone().copy_(torch.ones(6), non_blocking=True)
        x.clone()[:2] = 0.0
        torch.repeat_interleave(x, twice, output_size=12)
        x.repeat_interleave(2)
    assert counted.syncs == []


def test_what_is_made_on_the_gpu_is_a_kernel(gpu):
    with gpu.count() as counted:
        torch.zeros(4, device=gpu.device)
        torch.empty(4, device=gpu.device)
    assert (counted.kernels, counted.bytes) == (1, 16)


def test_the_ctc_loss_waits_inside_and_for_lengths_on_the_gpu(gpu):
    log_probs = torch.randn(5, 2, 4).to(gpu.device).requires_grad_()
    with gpu.count() as counted:
        ctc_loss(gpu, log_probs).backward()
    assert (counted.syncs, counted.waits_inside) == ([], 6)
    with gpu.count() as counted:
        ctc_loss(gpu, log_probs, lengths_on_gpu=True)
    assert len(counted.syncs) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_casts_as_on_cuda(gpu, dtype):
    x = torch.randn(3, 3).to(gpu.device)
    with torch.autocast("cuda", dtype):
        product = x @ x
        assert product.dtype == torch.mv(x, x[0]).dtype == dtype
        assert F.gelu(product).dtype == torch.cat([product, product]).dtype == dtype
        for wide in (product.softmax(1), product.exp(), product.sum(0), F.layer_norm(product, (3,))):
            assert wide.dtype == torch.float32
        with pytest.raises(AssertionError, match="16 bits"):  # the CPU's autocast would cast it
            ctc_loss(gpu, product.new_zeros(5, 2, 4))
    assert product.softmax(1).dtype == dtype


def test_the_cpus_autocast_is_as_before():
    def types():
        with torch.autocast("cpu", torch.bfloat16):
            product = torch.ones(3, 3) @ torch.ones(3, 3)
            return product.softmax(1).dtype, F.cross_entropy(product, torch.zeros(3, dtype=torch.long)).dtype

    before = types()
    for _ in range(2):
        with PretendCuda():
            pass
    assert types() == before == (torch.bfloat16, torch.float32)
