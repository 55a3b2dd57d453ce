"""The same architecture from SpeechBrain's own modules, where SpeechBrain is installed. Written against 1.1.

Convolutions, padded BLSTMs (as its recipes call them), its attentional decoder, output layers and beam search. Layer
norm, GELU and the reshape of the pyramid are torch's, as SpeechBrain has no pyramid. `dot` becomes its `keyvalue`
attention, which is the scaled dot product of one head; `location` has one filter input, the weights of the step before.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.las import EncoderOutput
from models.listener import CTC_MAX_REDUCTION
from utils.vocabulary import CTC_BLANK, EOS, SOS

ATTENTION = {"dot": "keyvalue", "location": "location"}
TOLERANCE = 0.01  # of the parameter count


def why_missing() -> str | None:
    """A line for the reader where SpeechBrain cannot be used."""
    try:
        import speechbrain.decoders.seq2seq  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "speechbrain":
            return "SpeechBrain is not installed: pip install speechbrain"
        return f"SpeechBrain is installed without its requirement {error.name}: pip install speechbrain"
    return None


class SpeechBrainLAS(nn.Module):
    """Arguments as of `models.las.LAS`; parameters: how many it should have.

    Its decoder is wider than ours at the same sizes (untied output layer, a projection as wide as its LSTM), so its
    LSTM gets eight units fewer at a time until the count fits.
    """

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        listener: dict,
        attention: dict,
        speller: dict,
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

    def _make_decoder(self, hidden: int, memory_dim: int, V: int, attention: dict, speller: dict) -> None:
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
            kernel_size=15,  # each way
            dropout=speller["dropout"],
        )
        self.output = Linear(n_neurons=V, input_size=hidden)

    def listen(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Memory, CTC memory, and the lengths of both."""
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

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, EncoderOutput]:
        """As of `models.las.LAS`, with every true character read."""
        x, ctc_memory, lengths, ctc_lengths = self.listen(features, lengths)
        spelled, attention = self.decoder(self.embedding(tokens), x, lengths / x.size(1))
        ctc = None if self.ctc is None else self.ctc(ctc_memory).float().log_softmax(-1)
        return self.output(spelled).float(), attention, EncoderOutput(None, ctc, ctc_lengths)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def speechbrain_search(
    model: SpeechBrainLAS, features: Tensor, lengths: Tensor, steps: int, beam_size: int, ctc_weight: float
) -> None:
    """Its beam search over a batch for exactly that many steps: `<eos>` is forbidden until then.

    Its CTC scorer scores the best `1.5 * beam_size` characters of each hypothesis, as its recipes do, from the same
    layer as ours.
    """
    from speechbrain.decoders.scorer import CTCScorer, ScorerBuilder
    from speechbrain.decoders.seq2seq import S2SRNNBeamSearcher

    memory, ctc_memory, lengths, ctc_lengths = model.listen(features, lengths)
    scorer = None
    if ctc_weight:
        ctc = CTCScorer(model.ctc, blank_index=CTC_BLANK, eos_index=EOS)
        reset = ctc.reset_mem
        ctc.reset_mem = lambda _, __: reset(ctc_memory, ctc_lengths)  # else it would read the memory
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
    searcher.change_max_decoding_length = lambda *_: (steps, steps)
    searcher(memory, lengths / memory.size(1))
