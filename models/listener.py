"""The Listener: speech features to a shorter sequence of high-level features (Chan et al. 2015, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from models.blstm import BLSTM, Dropout, PyramidBLSTM, length_mask

Frames = TypeVar("Frames", int, Tensor)
CTC_MAX_REDUCTION = 4  # English has about 6.8 frames per character: character CTC needs a step for each character


class Conv(nn.Module):
    """Conv1d over time, layer norm over channels, GELU; zero beyond each length.

    Normalisation per frame, not per batch, keeps an utterance independent of its batch.

    Args:
        input_dim: `C`.
        channels: size of the output.
        kernel: odd number of frames.
        stride: frames per output step.
    """

    def __init__(self, input_dim: int, channels: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.Conv1d(input_dim, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)
        self.stride = stride
        self.output_dim = channels

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, C)` to `(B, ceil(T / stride), channels)`, lengths `(B,)` likewise."""
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        x = nn.functional.gelu(self.norm(x).to(x.dtype))
        lengths = (lengths - 1) // self.stride + 1
        return x * length_mask(lengths, x.size(1)).unsqueeze(2), lengths


class ListenerOutput(NamedTuple):
    """High-level features of a batch: the memory to attend to, and the input of the CTC branch."""

    memory: Tensor  # (B, S, E)
    memory_lengths: Tensor  # (B,)
    ctc_memory: Tensor  # (B, S', E'), the last layer of at most 4x time reduction


class Listener(nn.Module):
    """Conv1d layers, then BLSTM layers, then pyramid BLSTM layers, dropout after each of them.

    Args:
        feature_dim: `D`.
        conv: keyword arguments of each `Conv`: `{channels, kernel, stride}`.
        blstm_layers: BLSTM layers at the frame rate of the convolutions.
        pblstm_layers: pyramid BLSTM layers, each of which halves the frame rate.
        hidden: LSTM units per direction.
        dropout: rate of the dropout after each layer.

    Attributes:
        output_dim: size of the memory, `E`.
        time_reduction: frames per encoder step.
        ctc_time_reduction: frames per step of the CTC branch.
        ctc_layer: index of the layer that the CTC branch reads, the last one of at most 4x time reduction.
        ctc_dim: size of its output.
    """

    def __init__(
        self,
        feature_dim: int,
        conv: Sequence[dict],
        blstm_layers: int,
        pblstm_layers: int,
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        layers: list[Conv | BLSTM | PyramidBLSTM] = []
        strides, dim = [], feature_dim
        for settings in conv:
            layers.append(Conv(dim, **settings))
            strides.append(settings["stride"])
            dim = layers[-1].output_dim
        for kind, stride, count in ((BLSTM, 1, blstm_layers), (PyramidBLSTM, 2, pblstm_layers)):
            for _ in range(count):
                layers.append(kind(dim, hidden))
                strides.append(stride)
                dim = layers[-1].output_dim
        self.layers = nn.ModuleList(layers)
        self.dropout = Dropout(dropout)
        self.output_dim = dim

        self.strides, self.dims = tuple(strides), tuple(int(layer.output_dim) for layer in layers)
        self.ctc_layer, self.ctc_dim, reduction = -1, feature_dim, 1  # -1: the features themselves
        self.ctc_time_reduction = 1
        for index, (layer, stride) in enumerate(zip(layers, strides, strict=True)):
            reduction *= stride
            if reduction <= CTC_MAX_REDUCTION:
                self.ctc_layer, self.ctc_dim, self.ctc_time_reduction = index, layer.output_dim, reduction
        self.time_reduction = reduction

    def steps(self, frames: Frames) -> tuple[Frames, Frames]:
        """Encoder steps `S` and CTC steps `S'` of an utterance of that many frames, or of several."""
        steps = ctc_steps = frames
        for index, stride in enumerate(self.strides):
            steps = (steps - 1) // stride + 1
            if index == self.ctc_layer:
                ctc_steps = steps
        return steps, ctc_steps

    def forward(self, features: Tensor, feature_lengths: Tensor) -> ListenerOutput:
        """Encodes `features (B, T, D)` of `feature_lengths (B,)`, at least 1; padding is never read."""
        lengths = feature_lengths.to(features.device, non_blocking=True)
        x = features * length_mask(lengths, features.size(1)).unsqueeze(2)
        ctc_memory = x
        for index, layer in enumerate(self.layers):
            x, lengths = layer(x, lengths)
            x = self.dropout(x)
            if index == self.ctc_layer:
                ctc_memory = x
        return ListenerOutput(x, lengths, ctc_memory)
