"""What a result may depend on."""

import platform
import subprocess
from pathlib import Path

import torch


def environment(device: torch.device) -> dict[str, str]:
    """Versions, device, git commit."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parents[1], capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        commit = ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": name,
        "commit": commit or "none",
    }
