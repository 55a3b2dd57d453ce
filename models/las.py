"""Listen, Attend and Spell (Chan, Jaitly, Le, Vinyals 2015, arXiv:1508.01211)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.alignment import ctc_positions
from models.attention import ATTENTION, Memory
from models.blstm import length_mask
from models.listener import Listener
from models.speller import InputFeedingSpeller, ParallelSpeller, Speller
from utils.vocabulary import EOS

IGNORED = -100  # target of padding
GUIDE_WIDTH = 0.2  # of the diagonal that guided attention leaves free, as a share of the utterance
ALIGNED_WIDTH = 2.0  # of what it leaves free around the alignment of the CTC branch, in encoder steps


class EncoderOutput(NamedTuple):
    """Encoded utterances: the Speller's memory, and the CTC branch's log-probabilities if there is one."""

    memory: Memory
    ctc_log_probs: Tensor | None  # (B, S', V) float32
    ctc_lengths: Tensor  # (B,), on the device of the feature lengths
    spoken: Tensor | None = None  # (B, U), encoder step of each token along a transcript, see `LAS.spoken`


class Loss(NamedTuple):
    """Mean losses per character, each `()`."""

    total: Tensor
    attention: Tensor  # cross entropy; 0 if nothing was spelled
    ctc: Tensor  # 0 without a CTC branch


class LAS(nn.Module):
    """The whole model.

    Under autocast only the Listener computes in 16 bits. The Speller stays in float32: it sums over all steps (past
    attention weights, gradients of the keys), and there 16 bits lose digits without saving time.

    Args:
        feature_dim: `D`.
        vocabulary_size: `V`.
        listener: keyword arguments of `Listener`.
        attention: `kind` (a key of ATTENTION) and keyword arguments of that class.
        speller: `input_feeding` and keyword arguments of `InputFeedingSpeller` or `ParallelSpeller`.
        ctc: whether the Listener has a CTC branch (its blank is index 0, `<pad>`).

    Raises:
        ValueError: attention, Speller and CTC branch do not fit together.
    """

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        listener: Mapping[str, Any],
        attention: Mapping[str, Any],
        speller: Mapping[str, Any],
        ctc: bool,
    ):
        super().__init__()
        self.listener = Listener(feature_dim, **listener)
        attention_kwargs, speller_kwargs = dict(attention), dict(speller)
        attention_class = ATTENTION[attention_kwargs.pop("kind")]
        speller_class = InputFeedingSpeller if speller_kwargs.pop("input_feeding", True) else ParallelSpeller
        self.speller: Speller = speller_class(
            vocabulary_size,
            attention=attention_class(speller["hidden"], self.listener.output_dim, **attention_kwargs),
            **speller_kwargs,
        )
        if self.speller.attention.sees_position and not ctc:
            raise ValueError("relative attention needs a CTC branch, which tells where characters are spoken")
        self.ctc = nn.Linear(self.listener.ctc_dim, vocabulary_size) if ctc else None

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def listen(self, features: Tensor, feature_lengths: Tensor) -> EncoderOutput:
        """Encodes `features (B, T, D)` of lengths `feature_lengths (B,)`.

        Lengths stay on the CPU best, where the CTC loss wants them: it would wait for a GPU to read them there.
        """
        listened = self.listener(features, feature_lengths)
        ctc = None if self.ctc is None else self.ctc(listened.ctc_memory).float().log_softmax(-1)
        with _float32(features):
            memory = self.speller.attention.project(listened.memory.float(), listened.memory_lengths)
        return EncoderOutput(memory, ctc, self.listener.steps(feature_lengths)[1])

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        tokens: Tensor | None,
        teacher_forcing_rate: float = 1.0,
        characters: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, EncoderOutput]:
        """Encodes utterances and spells along their transcripts.

        Args:
            features: `(B, T, D)`.
            feature_lengths: `(B,)`.
            tokens: `(B, U)`, beginning with `<sos>`; None encodes only.
            teacher_forcing_rate: see `Speller.forward`.
            characters: `(B,)`, number of characters of each transcript, without `<sos>` and `<eos>`; on the CPU best.
                None counts them.

        Returns:
            Logits `(B, U, V)` and attention weights `(B, H, U, S)`, both None without tokens, and the encoder output.
        """
        encoded = self.listen(features, feature_lengths)
        if tokens is None:
            return None, None, encoded
        with _float32(features):
            spoken = self.spoken(encoded.ctc_log_probs, encoded.ctc_lengths, tokens, characters)
            logits, attention = self.speller(tokens, encoded.memory, teacher_forcing_rate, spoken)
        return logits, attention, encoded._replace(spoken=spoken)

    def spoken(
        self, ctc_log_probs: Tensor | None, ctc_lengths: Tensor, tokens: Tensor, characters: Tensor | None
    ) -> Tensor | None:
        """The encoder step at which the CTC branch hears each token, `<sos>` at the first.

        Args:
            ctc_log_probs: `(B, S', V)`.
            ctc_lengths: `(B,)`.
            tokens: `(N, U)`, beginning with `<sos>`, rows as in `Speller.step`.
            characters: `(N,)`, as in `forward`.

        Returns:
            `(N, U)`, or None for an attention that does not see it.
        """
        if ctc_log_probs is None or not self.speller.attention.sees_position:
            return None
        if characters is None:
            characters = (tokens > EOS).sum(1)
        rows = tokens.size(0) // ctc_log_probs.size(0)
        if rows > 1:
            ctc_log_probs, ctc_lengths = (tensor.repeat_interleave(rows, 0) for tensor in (ctc_log_probs, ctc_lengths))
        return self.encoder_step(F.pad(ctc_positions(ctc_log_probs, ctc_lengths, tokens[:, 1:], characters), (1, 0)))

    def encoder_step(self, ctc_step: Tensor) -> Tensor:
        """The step of the memory that is at the time of a step of the CTC branch."""
        return ctc_step * (self.listener.ctc_time_reduction / self.listener.time_reduction)


def _float32(like: Tensor) -> torch.autocast:
    """Context without autocast on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)


def character_limit(listener: Mapping[str, Any], ctc: bool, **_: Any) -> Callable[[int], int]:
    """How many characters a model can align to a number of frames; takes the keyword arguments of `LAS`.

    CTC cannot emit more characters than it has steps. Attention can, but nobody speaks a character every two frames.
    """
    with torch.device("meta"):
        steps = Listener(feature_dim=1, **listener).steps
    return lambda frames: steps(frames)[1] if ctc else frames // 2


def off_diagonal(attention: Tensor, characters: Tensor, steps: Tensor) -> Tensor:
    """The loss of guided attention (Tachibana et al. 2018, section 4.1): how much attention lies off the diagonal.

    Speech runs along its transcript at about an even pace.

    Args:
        attention: weights `(B, H, U, S)`.
        characters: `(B,)`, characters of each transcript; what lies beyond them does not count.
        steps: `(B,)`, encoder steps of each utterance.

    Returns:
        `()`, between 0 and 1, the mean over characters.
    """
    u = torch.arange(attention.size(2), device=attention.device)
    u = u / characters.to(attention.device, non_blocking=True).unsqueeze(1)
    s = torch.arange(attention.size(3), device=attention.device) / steps.unsqueeze(1)
    return _off_path(attention, u.unsqueeze(2) - s.unsqueeze(1), GUIDE_WIDTH, characters)


def off_alignment(attention: Tensor, spoken: Tensor, characters: Tensor) -> Tensor:
    """The same, by how much attention lies away from where the CTC branch hears the character to be spelled.

    Args:
        attention: weights `(B, H, U, S)`.
        spoken: `(B, U)`, encoder step of each token read; `<eos>` is spoken nowhere, and not counted.
        characters: `(B,)`, characters of each transcript, neither `<sos>` nor `<eos>`.

    Returns:
        `()`, between 0 and 1, the mean over characters.
    """
    distance = torch.arange(attention.size(3), device=attention.device) - spoken[:, 1:, None]
    return _off_path(attention[:, :, :-1], distance, ALIGNED_WIDTH, characters)


def _off_path(attention: Tensor, distance: Tensor, width: float, characters: Tensor) -> Tensor:
    """How much attention `(B, H, U, S)` lies further than about `width` from a path, by its `distance (B, U, S)`."""
    total, characters = characters.sum().clamp(min=1), characters.to(attention.device, non_blocking=True)
    penalty = 1 - torch.exp(-(distance**2) / (2 * width**2))
    per_character = (attention.mean(1) * penalty).sum(2)
    return (per_character * length_mask(characters, attention.size(2))).sum() / total


def las_loss(
    logits: Tensor | None,
    encoded: EncoderOutput,
    tokens: Tensor,
    token_lengths: Tensor,
    ctc_weight: float = 0.0,
    label_smoothing: float = 0.0,
) -> Loss:
    """(1 - ctc_weight) * cross entropy + ctc_weight * CTC, as means over the batch's characters.

    Args:
        logits: `(B, U, V)`, of what follows each token but the last; None if nothing was spelled: CTC alone.
        encoded: what `LAS.forward` returned.
        tokens: `(B, U + 1)`: `<sos>`, characters, `<eos>`, padding.
        token_lengths: `(B,)`, `<sos>` and `<eos>` counted.
        ctc_weight: share of the CTC loss, if there is a CTC branch.
        label_smoothing: of the cross entropy.

    Raises:
        ValueError: neither logits nor a CTC branch.
    """
    ctc = attention = torch.zeros((), device=tokens.device)
    if logits is not None:
        inside = length_mask(token_lengths.to(tokens.device, non_blocking=True) - 1, tokens.size(1) - 1)
        targets = tokens[:, 1:].masked_fill(~inside, IGNORED)
        attention = F.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORED, label_smoothing=label_smoothing
        )
        if encoded.ctc_log_probs is None:
            return Loss(attention, attention, ctc)
    if encoded.ctc_log_probs is None:
        raise ValueError("without a CTC branch there is no loss where nothing is spelled")
    ctc = F.ctc_loss(
        encoded.ctc_log_probs.transpose(0, 1),
        tokens[:, 1:],
        encoded.ctc_lengths,
        token_lengths - 2,  # CTC has neither <sos> nor <eos>
        blank=0,
        reduction="sum",
        zero_infinity=True,
    )
    ctc = ctc / (token_lengths - 1).sum()
    if logits is None:
        return Loss(ctc, attention, ctc)
    return Loss((1 - ctc_weight) * attention + ctc_weight * ctc, attention, ctc)
