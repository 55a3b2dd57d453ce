"""The same architecture from the modules of SpeechBrain 1.1 (Ravanelli et al. 2021, arXiv:2106.04624), if installed.

Convolutions, BLSTMs on padded batches (as in its recipes), attentional decoder, output layers and beam search are its
own. Layer norm, GELU and the reshape of the pyramid are torch's, since SpeechBrain has no pyramid. `dot` becomes its
`keyvalue` attention, the scaled dot product of one head; its `location` attention sees the weights of the step before,
but not their sum.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.reference.textbook import unprojected_memory
from models.blstm import length_mask
from models.las import EncoderOutput
from models.listener import CTC_MAX_REDUCTION
from utils.vocabulary import CTC_BLANK, EOS, SOS

ATTENTION = {"dot": "keyvalue", "relative": "keyvalue", "location": "location"}
TOLERANCE = 0.01  # by which the parameter count may exceed what was asked for


def why_missing() -> str | None:
    """What to tell the user if SpeechBrain cannot be imported; None if it can."""
    try:
        import speechbrain.decoders.seq2seq  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "speechbrain":
            return "SpeechBrain is not installed: pip install speechbrain"
        return f"SpeechBrain is installed without its requirement {error.name}: pip install speechbrain"
    return None


class SpeechBrainLAS(nn.Module):
    """The whole model.

    At equal sizes its decoder has more parameters than ours (an untied output layer, a projection as wide as its LSTM).
    So the units of its LSTM are reduced, eight at a time, until the number of parameters fits.

    Args:
        parameters: at most how many there should be; None: as many as there are at equal sizes. The others: see
            `models.las.LAS`.
    """

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        listener: Mapping[str, Any],
        attention: Mapping[str, Any],
        speller: Mapping[str, Any],
        ctc: bool,
        parameters: int | None = None,
    ):
        from speechbrain.nnet.CNN import Conv1d
        from speechbrain.nnet.linear import Linear
        from speechbrain.nnet.RNN import LSTM

        super().__init__()
        self.layers, self.norms, self.strides = nn.ModuleList(), nn.ModuleList(), []
        dim, reduction, ctc_dim, self.ctc_layer = feature_dim, 1, feature_dim, -1
        kinds = [*listener["conv"], *[1] * listener["blstm_layers"], *[2] * listener["pblstm_layers"]]
        for index, kind in enumerate(kinds):
            if isinstance(kind, dict):
                layer = Conv1d(kind["channels"], kind["kernel"], in_channels=dim, stride=kind["stride"])
                layer.padding_mode = "constant"
                stride, dim = kind["stride"], kind["channels"]
            else:
                layer = LSTM(listener["hidden"], input_size=kind * dim, bidirectional=True)
                stride, dim = kind, 2 * listener["hidden"]
            self.layers.append(layer)
            self.norms.append(nn.LayerNorm(dim))
            self.strides.append(stride)
            reduction *= stride
            if reduction <= CTC_MAX_REDUCTION:
                self.ctc_layer, ctc_dim = index, dim
        self.dropout = nn.Dropout(listener["dropout"])
        self.ctc = Linear(n_neurons=vocabulary_size, input_size=ctc_dim) if ctc else None
        self.embedding = nn.Embedding(vocabulary_size, speller["embedding"])
        hidden = speller["hidden"]
        self._make_decoder(hidden, dim, vocabulary_size, attention, speller)
        while parameters is not None and hidden > 8 and count_parameters(self) > parameters * (1 + TOLERANCE):
            hidden -= 8
            self._make_decoder(hidden, dim, vocabulary_size, attention, speller)

    def _make_decoder(
        self, hidden: int, memory_dim: int, V: int, attention: Mapping[str, Any], speller: Mapping[str, Any]
    ) -> None:
        """Sets the decoder and its output layer, with `hidden` LSTM units."""
        from speechbrain.nnet.linear import Linear
        from speechbrain.nnet.RNN import AttentionalRNNDecoder

        self.decoder = AttentionalRNNDecoder(
            rnn_type="lstm",
            attn_type=ATTENTION[attention["kind"]],
            hidden_size=hidden,
            attn_dim=attention["dim"],
            num_layers=speller["layers"],
            enc_dim=memory_dim,
            input_size=speller["embedding"],
            channels=10,
            kernel_size=15,  # to either side
            dropout=speller["dropout"],
        )
        self.output = Linear(n_neurons=V, input_size=hidden)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encodes `features (B, T, D)` of `lengths (B,)`.

        Returns:
            The memory `(B, S, E)`, the input of the CTC branch `(B, S', E')`, and the lengths of both, `(B,)` each.
        """
        lengths = lengths.to(features.device)
        x, ctc_memory, ctc_lengths = features, features, lengths
        for index, (layer, norm, stride) in enumerate(zip(self.layers, self.norms, self.strides, strict=True)):
            if isinstance(getattr(layer, "rnn", None), nn.LSTM):
                x = F.pad(x, (0, 0, 0, -x.size(1) % stride))
                x = norm(layer(x.reshape(x.size(0), -1, stride * x.size(2)))[0])
            else:
                x = F.gelu(norm(layer(x)))
            x, lengths = self.dropout(x), (lengths - 1) // stride + 1
            if index == self.ctc_layer:
                ctc_memory, ctc_lengths = x, lengths
        return x, ctc_memory, lengths, ctc_lengths

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor | None,
        teacher_forcing_rate: float = 1.0,
        characters: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, EncoderOutput]:
        """As `models.las.LAS`, but with teacher forcing throughout, as in SpeechBrain's recipes.

        The memory is the encoder output as it is, without projections.
        """
        x, ctc_memory, lengths, ctc_lengths = self.encode(features, lengths)
        ctc = None if self.ctc is None else self.ctc(ctc_memory).float().log_softmax(-1)
        encoded = EncoderOutput(unprojected_memory(x, length_mask(lengths, x.size(1))), ctc, ctc_lengths)
        if tokens is None:
            return None, None, encoded
        spelled, attention = self.decoder(self.embedding(tokens), x, lengths / x.size(1))
        return self.output(spelled).float(), attention, encoded


def count_parameters(module: nn.Module) -> int:
    """Number of parameters of any model, as `LAS.parameter_count`."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def speechbrain_search(
    model: SpeechBrainLAS, features: Tensor, lengths: Tensor, beam_size: int, ctc_weight: float, steps: int | None
) -> list[list[int]]:
    """SpeechBrain's beam search over a batch, with the settings of its recipes.

    Jointly with CTC, only the best `1.5 * beam_size` characters of each hypothesis are scored. The CTC branch reads the
    same layer as ours does.

    Args:
        model: in evaluation mode.
        features: `(B, T, D)`.
        lengths: `(B,)`.
        beam_size: hypotheses per utterance.
        ctc_weight: share of the CTC branch; 0: attention alone.
        steps: of the search, the same for every utterance, before which `<eos>` is forbidden; None: at most as many as
            there are encoder steps.

    Returns:
        Tokens of the best hypothesis of each utterance.
    """
    from speechbrain.decoders.scorer import CTCScorer, ScorerBuilder
    from speechbrain.decoders.seq2seq import S2SRNNBeamSearcher

    memory, ctc_memory, lengths, ctc_lengths = model.encode(features, lengths)
    scorer = None
    if ctc_weight:
        ctc = CTCScorer(model.ctc, blank_index=CTC_BLANK, eos_index=EOS)
        reset = ctc.reset_mem
        ctc.reset_mem = lambda _, __: reset(ctc_memory, ctc_lengths)  # it would read the decoder's memory otherwise
        scorer = ScorerBuilder(weights={"ctc": ctc_weight}, partial_scorers=[ctc], scorer_beam_scale=1.5)
    searcher = S2SRNNBeamSearcher(
        embedding=model.embedding,
        decoder=model.decoder,
        linear=model.output,
        bos_index=SOS,
        eos_index=EOS,
        min_decode_ratio=0.0,
        max_decode_ratio=1.0,
        beam_size=beam_size,
        scorer=scorer,
    )
    if steps is not None:
        searcher.change_max_decoding_length = lambda *_: (steps, steps)
    hypotheses, *_ = searcher(memory, lengths / memory.size(1))
    return hypotheses
