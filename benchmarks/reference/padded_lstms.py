"""The Listener's LSTMs as plain `nn.LSTM` layers: the least that a Listener of these sizes has to compute."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class PaddedLSTMs(nn.Module):
    """Bidirectional `nn.LSTM` layers of the shapes that `models.listener.Listener` has, and nothing else.

    They read padding like speech, and there are no convolutions, layer norms or dropout.

    Args:
        feature_dim: `D`.
        conv: keyword arguments of each `Conv`, which decide the shape of the input.
        blstm_layers: LSTM layers that read one frame per step.
        pblstm_layers: LSTM layers that read two frames per step.
        hidden: LSTM units per direction.
    """

    def __init__(
        self,
        feature_dim: int,
        conv: Sequence[Mapping[str, int]],
        blstm_layers: int,
        pblstm_layers: int,
        hidden: int,
        **_: Any,
    ):
        super().__init__()
        self.conv_stride = math.prod(layer["stride"] for layer in conv)
        self.input_dim = conv[-1]["channels"] if conv else feature_dim
        self.factors = [1] * blstm_layers + [2] * pblstm_layers
        sizes = [factor * (2 * hidden if index else self.input_dim) for index, factor in enumerate(self.factors)]
        self.lstms = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True, bidirectional=True) for size in sizes)

    def make_input(self, features: Tensor) -> Tensor:
        """Ones of the shape that the first LSTM reads for `features (B, T, D)`; they require a gradient."""
        B, T, _ = features.shape
        return features.new_ones(B, -(-T // self.conv_stride), self.input_dim).requires_grad_()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, input_dim)` to the output of the last layer."""
        for factor, lstm in zip(self.factors, self.lstms, strict=True):
            x = F.pad(x, (0, 0, 0, -x.size(1) % factor))
            x, _ = lstm(x.reshape(x.size(0), -1, factor * x.size(2)))
        return x
