"""The device and the precision that a command uses, memory, and the environment that its results depend on."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from utils.errors import UserError


def choose_device(name: str, key: str = "training.device") -> torch.device:
    """The device of this process; on a GPU, the one of its local rank.

    Args:
        name: auto (CUDA if there is a CUDA device), cpu, cuda.
        key: of the configuration or command line, for the message.

    Raises:
        UserError: cuda is asked for, but there is no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{key}: found cuda, but this machine has no CUDA device; expected auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # set by torchrun
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32: the Speller
    return device


def memory_to_spare(device: torch.device) -> int:
    """Bytes that one decoding batch may take: half of a GPU's free memory; little on a CPU, whose caches are small."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2**26


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised `error` because the GPU or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of the Listener: float32 or bf16; `auto` is bf16 if the GPU or CPU multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))
    return "bf16" if native else "float32"


def environment(device: torch.device) -> dict[str, str]:
    """Versions of Python and torch, the device, and the git commit of the code."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parents[1], capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        commit = ""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "commit": commit or "none",
    }


def _processor() -> str:
    """The model of the CPU, if the system tells."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    models = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
