"""The device and the precision that a command uses, memory, and the environment that its results depend on."""

import logging
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from utils.errors import UserError
from utils.failures import OUT_OF_MEMORY

DRIVER = Path("/proc/driver/nvidia/version")  # there on Linux with a driver
INSTALL = "pip install torch torchaudio --index-url https://download.pytorch.org/whl/"
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(f"las.{__name__}")


def choose_device(name: str, key: str = "training.device") -> torch.device:
    """The device of this process; on a GPU, the one of its local rank.

    `auto` is CUDA if there is a CUDA device. If there is an NVIDIA device that torch cannot use, a warning says why.

    Args:
        name: auto, cpu, cuda, mps (Apple's GPUs: never chosen by itself, and not tried by the authors).
        key: of the configuration or command line, for the message.

    Raises:
        UserError: the device that is asked for is none, is not there, or this build of torch cannot compute on it.
    """
    if name not in DEVICES:
        raise UserError(f"{key}: found {name}, expected {', '.join(DEVICES)}")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"{key}: found mps, but this machine has no such device; expected auto, cpu or cuda")
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # for what has no kernel there, such as CTC
        return torch.device("mps")
    if not torch.cuda.is_available():
        reason = _why_no_cuda()
        if name == "cuda":
            raise UserError(
                f"{key}: found cuda, but {reason or 'this machine has no CUDA device'}; expected auto or cpu"
            )
        if reason:
            logger.warning(f"{key}: computing on the CPU, many times slower, for {reason}")
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()  # set by torchrun
    if index >= count:
        raise UserError(
            f"torchrun: found a process for GPU {index}, but this machine shows {count} (CUDA_VISIBLE_DEVICES counts); "
            f"expected --nproc_per_node={count} or less"
        )
    device = torch.device("cuda", index)
    _check_kernels(device)
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32: the Speller
    return device


def _why_no_cuda() -> str | None:
    """Why torch cannot use an NVIDIA device that this machine has; None if it has none."""
    try:
        driver = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    version = re.search(r"Kernel Module\D*([\d.]+)", driver)
    found = f"an NVIDIA driver {version[1] if version else '(of unknown version)'}"
    if torch.version.cuda is None:
        return f"this build of torch ({torch.__version__}) has no CUDA, though there is {found}: {INSTALL}cu128"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None  # somebody has switched it off
    return (
        f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, and {found} does not serve it: update the "
        f"driver, or take a build for an older CUDA: {INSTALL}cu126"
    )


def _check_kernels(device: torch.device) -> None:
    """Raises UserError if this build of torch has no kernels for the GPU: its first operation would fail."""
    major, minor = torch.cuda.get_device_capability(device)
    own = 10 * major + minor
    for architecture in torch.cuda.get_arch_list():  # sm_75 runs on its major version; compute_90 is compiled
        kind, _, number = architecture.partition("_")
        built = int(re.sub(r"\D", "", number) or 0)
        if built <= own and (kind == "compute" or built // 10 == major):
            return
    raise UserError(
        f"{torch.cuda.get_device_name(device)} (sm_{own}): torch {torch.__version__} has kernels for "
        f"{', '.join(torch.cuda.get_arch_list())} only, so it cannot compute there. Take another GPU (on Kaggle: T4, "
        f"not P100), an older build ({INSTALL}cu126), or training.device=cpu"
    )


def memory_to_spare(device: torch.device) -> int:
    """Bytes that one decoding batch may take: half of a GPU's free memory; little on a CPU, whose caches are small.

    What torch keeps for itself to hand out again is free.
    """
    if device.type != "cuda":
        return 2**27
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + kept) // 2


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised `error` because the GPU or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def choose_precision(name: str, device: torch.device, key: str = "training.precision") -> str:
    """The precision of the Listener's products.

    Args:
        name: auto, float32, bf16, fp16; auto is bf16 if the GPU or CPU multiplies it natively, else fp16 on a GPU with
            tensor cores for it (sm_70, sm_75, such as a T4), else float32.
        device: to compute on.
        key: of the configuration, for the message.

    Raises:
        UserError: bf16 is asked for on a GPU that only emulates it.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return "bf16" if name == "auto" else name
        if name == "bf16":
            raise UserError(
                f"{key}: found bf16, which {torch.cuda.get_device_name(device)} (sm_{capability[0]}{capability[1]}) "
                "only emulates, slower than float32; expected auto or fp16"
            )
        return name if name != "auto" else "fp16" if capability >= (7, 0) else "float32"
    if name != "auto":
        return name
    if device.type != "cpu":
        return "float32"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))
    return "bf16" if native else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which the Listener computes in `precision`: float32, bf16, fp16."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def environment(device: torch.device) -> dict[str, str]:
    """Versions of Python and torch, the device, and the git commit of the code."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
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
