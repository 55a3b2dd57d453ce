"""Listen, Attend and Spell (Chan, Jaitly, Le, Vinyals 2015, arXiv:1508.01211)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import ATTENTION, Memory
from models.blstm import length_mask
from models.listener import Listener
from models.speller import InputFeedingSpeller, ParallelSpeller

IGNORED = -100  # target of padding
GUIDE_WIDTH = 0.2  # of the diagonal that guided attention leaves free, as a share of the utterance


class Listened(NamedTuple):
    """An utterance heard: the Speller's memory, and the CTC branch's log-probabilities where there is one."""

    memory: Memory
    ctc_log_probs: Tensor | None  # (B, S', V) float32
    ctc_lengths: Tensor  # (B,)


class Loss(NamedTuple):
    total: Tensor
    attention: Tensor  # cross entropy a character
    ctc: Tensor  # CTC loss a character; 0 without a CTC branch


class LAS(nn.Module):
    """The whole model. `listener`, `attention`, `speller`: keyword arguments of the modules of those names.

    Under autocast the Listener alone computes in bf16. The Speller stays in float32: it sums over all steps (past
    attention weights, gradients of the keys), and there bf16 loses digits without saving time.

    ctc: whether the Listener has a CTC branch (its blank is index 0, `<pad>`).
    """

    def __init__(
        self, feature_dim: int, vocabulary_size: int, listener: dict, attention: dict, speller: dict, ctc: bool
    ):
        super().__init__()
        self.listener = Listener(feature_dim, **listener)
        attend = dict(attention)
        kind = ATTENTION[attend.pop("kind")]
        spell = dict(speller)
        Speller = InputFeedingSpeller if spell.pop("input_feeding", True) else ParallelSpeller
        self.speller = Speller(
            vocabulary_size,
            attention=kind(speller["hidden"], self.listener.output_dim, **attend),
            **spell,
        )
        self.ctc = nn.Linear(self.listener.ctc_dim, vocabulary_size) if ctc else None

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def listen(self, features: Tensor, feature_lengths: Tensor) -> Listened:
        """`features (B, T, D)`, `feature_lengths (B,)`."""
        heard = self.listener(features, feature_lengths)
        ctc = None if self.ctc is None else self.ctc(heard.ctc_memory).float().log_softmax(-1)
        with _float32(features):
            memory = self.speller.attention.project(heard.memory.float(), heard.memory_lengths)
        return Listened(memory, ctc, heard.ctc_lengths)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, tokens: Tensor | None, teacher_forcing_rate: float = 1.0
    ) -> tuple[Tensor | None, Tensor | None, Listened]:
        """Listens, then spells along `tokens (B, U)`: logits `(B, U, V)`, attention `(B, H, U, S)`, what was heard.

        Without tokens it only listens.
        """
        listened = self.listen(features, feature_lengths)
        if tokens is None:
            return None, None, listened
        with _float32(features):
            logits, attention = self.speller(tokens, listened.memory, teacher_forcing_rate)
        return logits, attention, listened


def _float32(like: Tensor) -> torch.autocast:
    """No autocast from here on."""
    return torch.autocast(like.device.type, enabled=False)


def off_diagonal(attention: Tensor, characters: Tensor, steps: Tensor) -> Tensor:
    """How much attention lies away from the diagonal, 0 to 1, mean over characters: guided attention (Tachibana et al.
    2018, section 4.1). Speech runs along its transcript at about an even pace.

    attention: `(B, H, U, S)`.   characters, steps: `(B,)`, of each map the part that counts.
    """
    u = torch.arange(attention.size(2), device=attention.device) / characters.unsqueeze(1)
    s = torch.arange(attention.size(3), device=attention.device) / steps.unsqueeze(1)
    away = 1 - torch.exp(-((u.unsqueeze(2) - s.unsqueeze(1)) ** 2) / (2 * GUIDE_WIDTH**2))
    a_character = (attention.mean(1) * away).sum(2)
    inside = length_mask(characters, attention.size(2))
    return (a_character * inside).sum() / characters.sum()


def las_loss(
    logits: Tensor | None,
    listened: Listened,
    tokens: Tensor,
    token_lengths: Tensor,
    ctc_weight: float = 0.0,
    label_smoothing: float = 0.0,
) -> Loss:
    """Means over characters of the batch: (1 - ctc_weight) * cross entropy + ctc_weight * CTC.

    tokens: `(B, U + 1)`, `<sos>`, characters, `<eos>`, padding.   token_lengths: `(B,)`, `<sos>` and `<eos>` counted.
    logits: `(B, U, V)`, what follows each token but the last; None where nothing was spelled: CTC alone.
    """
    target_lengths = token_lengths - 1
    ctc = attention = torch.zeros((), device=tokens.device)
    if logits is not None:
        targets = tokens[:, 1:].masked_fill(~length_mask(target_lengths, tokens.size(1) - 1), IGNORED)
        attention = F.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORED, label_smoothing=label_smoothing
        )
        if listened.ctc_log_probs is None:
            return Loss(attention, attention, ctc)
    ctc = F.ctc_loss(
        listened.ctc_log_probs.transpose(0, 1),
        tokens[:, 1:],
        listened.ctc_lengths,
        target_lengths - 1,  # CTC has no <eos>
        blank=0,
        reduction="sum",
        zero_infinity=True,
    )
    ctc = ctc / target_lengths.sum()
    if logits is None:
        return Loss(ctc, attention, ctc)
    return Loss((1 - ctc_weight) * attention + ctc_weight * ctc, attention, ctc)
