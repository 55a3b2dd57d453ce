"""The best rate of a matrix product on this machine: what a training step could reach at most."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.measure import Contestant, Record, now, spread

SIZE = {"cpu": 1024, "cuda": 8192}  # of square matrices
SECONDS = 0.05  # that each way is repeated for, at least


def gemm_ways(device: torch.device) -> dict[str, Callable[[], torch.Tensor]]:
    """Ways to multiply two square matrices, by `dtype, function`."""
    n, ways = SIZE[device.type], {}
    for dtype in ("float32", "tf32", "bfloat16") if device.type == "cuda" else ("float32", "bfloat16"):
        a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32)
        ways[f"{dtype}, torch.mm"] = lambda a=a, b=b: torch.mm(a, b)
        ways[f"{dtype}, F.linear"] = lambda a=a, b=b: F.linear(a, b)
        if device.type == "cpu":  # goes through oneDNN
            ways[f"{dtype}, 1x1 convolution"] = lambda a=a, b=b: F.conv1d(a.unsqueeze(0), b.unsqueeze(2))
    return ways


def gemm_contestant(device: torch.device) -> Contestant:
    """Its rounds return FLOP/s by way."""
    ways = gemm_ways(device)

    def rates(_) -> dict[str, float]:
        return {name: _rate(way, name.startswith("tf32"), device) for name, way in ways.items()}

    return Contestant("limit", lambda _: None, rates)


def _rate(way: Callable[[], torch.Tensor], tf32: bool, device: torch.device) -> float:
    allowed, count, start = torch.backends.cuda.matmul.allow_tf32, 0, now(device)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.no_grad():
            while count == 0 or now(device) - start < SECONDS:
                way()
                count += 1
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * SIZE[device.type] ** 3 * count / (now(device) - start)


def median_rates(record: Record) -> dict[str, float]:
    """FLOP/s by way, medians over the rounds."""
    return {name: spread([rates[name] for rates in record.results])[1] for name in record.results[0]}
