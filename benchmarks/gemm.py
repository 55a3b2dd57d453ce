"""The rate of matrix products (GEMM) on this machine: upper bounds on the rate of a training step.

The best rate is that of large square matrices. A recurrent layer multiplies one step of a batch at a time, so few rows
by a large matrix, which is read from memory for them alone: no implementation of its loop can be faster than that.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Contestant, Measurement, now, quartiles

SIZE = {"cpu": 1024, "cuda": 8192}  # rows and columns of the matrices
DTYPES = {  # all that `choose_precision` may take there: a GPU before sm_80 only emulates bfloat16
    "cpu": ("float32", "bfloat16"),
    "cuda": ("float32", "tf32", "bfloat16", "float16"),
}
SECONDS = 0.05  # for which each kernel is repeated, at least


def gemm_kernels(device: torch.device, rows: int | None = None) -> dict[str, Callable[[], Tensor]]:
    """Functions that multiply two matrices, by name: `dtype, function`.

    Args:
        device: of the matrices.
        rows: of the first one; None is as many as the second one has.
    """
    n = SIZE[device.type]
    kernels: dict[str, Callable[[], Tensor]] = {}
    for name in DTYPES[device.type]:
        a, b = torch.randn(2, n, n, device=device).to(torch.float32 if name == "tf32" else getattr(torch, name))
        a = a[:rows]
        kernels[f"{name}, torch.mm"] = partial(torch.mm, a, b)
        kernels[f"{name}, F.linear"] = partial(F.linear, a, b)
        if device.type == "cpu":  # a convolution is computed by oneDNN
            kernels[f"{name}, 1x1 convolution"] = partial(F.conv1d, a.T.contiguous().unsqueeze(0), b.unsqueeze(2))
    return kernels


def gemm_contestant(device: torch.device, rows: int | None = None) -> Contestant:
    """A contestant whose result is the rate of each kernel in FLOP/s; `rows` as of `gemm_kernels`."""
    kernels = gemm_kernels(device, rows)

    def rates(_: None) -> dict[str, float]:
        return {name: _rate(kernel, name.startswith("tf32"), device) for name, kernel in kernels.items()}

    return Contestant("limit" if rows is None else "limit of few rows", lambda _: None, rates)


def _rate(kernel: Callable[[], Tensor], tf32: bool, device: torch.device) -> float:
    allowed, count, start = torch.backends.cuda.matmul.allow_tf32, 0, now(device)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.no_grad():
            while count == 0 or now(device) - start < SECONDS:
                product = kernel()
                count += 1
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * product.numel() * SIZE[device.type] * count / (now(device) - start)


def median_rates(measurement: Measurement) -> dict[str, float]:
    """FLOP/s of each kernel, medians over the rounds of `gemm_contestant`."""
    rounds: list[dict[str, float]] = measurement.results
    return {name: quartiles([rates[name] for rates in rounds]).median for name in rounds[0]}
