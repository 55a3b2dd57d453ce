"""What torch computes in a context."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Records the name of each operation, and the size of what it returns."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.found.append((function.name(), result.numel() if isinstance(result, torch.Tensor) else 0))
        return result
