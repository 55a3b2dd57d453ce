"""A character n-gram language model as an automaton in two tables: a step is one look-up for the whole beam.

Interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1999, section 2.7, one discount per order):

    P(c | h) = max(n(h, c) - D, 0) / n(h) + D * T(h) / n(h) * P(c | h without its oldest character)

`n` counts occurrences in the highest order and at the start of a text, else different characters before; `T(h)` is how
many different characters follow `h`. On the few hundred thousand to few million characters of training transcripts this
needs seconds and no tuning; a state is the longest context that the training text holds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.checkpoint import read_file, save_checkpoint
from utils.checkpoint_content import LanguageModelContent, check_content
from utils.errors import UserError
from utils.vocabulary import KAGGLE, PAD, SOS, Vocabulary, describe_vocabulary, parse_vocabulary

BITS = 63  # of the number that a context is, with a digit a character, the newest last
MAX_ORDER = 12
LOG_OF_ONE = 1e-4  # and what rounding adds to it
TABLE_BYTES = 248e6  # of both tables
ALWAYS_KEPT = 3  # contexts up to this length, if the tables have room for all that there can be


class LanguageModel(NamedTuple):
    """Tables of `C` contexts; a state is a position in them."""

    log_probs: Tensor  # (C, V) float32, of the character after each context
    following: Tensor  # (C, V) int32, the context after that character

    def to(self, device: torch.device) -> "LanguageModel":
        return LanguageModel(*(table.to(device) for table in self))

    def initial_state(self, rows: int) -> Tensor:
        """The empty context before `<sos>`, `(rows,)`."""
        return torch.zeros(rows, dtype=torch.int32, device=self.following.device)

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities `(N, V)` of what follows `token (N,)`, and the state after it `(N,)`."""
        state = self.following[state, token]
        return self.log_probs[state], state


def max_order(V: int) -> int:
    """The longest n-grams that a vocabulary of `V` tokens allows: the digits of base `V` that fit `BITS` bits."""
    order = MAX_ORDER
    while V**order > 2**BITS:
        order -= 1
    return order


class _Level(NamedTuple):
    """The n-grams of one order, sorted."""

    contexts: np.ndarray  # (C,), their first n - 1 characters, each once
    grams: np.ndarray  # (G,), context * V + character
    counts: np.ndarray  # (G,)


def train_language_model(
    texts: Iterable[str], order: int, vocabulary: Vocabulary = KAGGLE, max_contexts: int | None = None
) -> LanguageModel:
    """Counts n-grams and computes their probabilities.

    Args:
        texts: to learn from.
        order: characters of the longest n-grams, at most `max_order`.
        vocabulary: that they are spelled with.
        max_contexts: the rarest contexts of more than three characters (fewer, if the vocabulary is large) are dropped
            until so many are left; None: as many as take 250 MB, a million with Kaggle's tokens.
    """
    V = len(vocabulary)
    max_contexts = int(TABLE_BYTES / (8 * V)) if max_contexts is None else max_contexts
    kept = max([1, *(length for length in range(ALWAYS_KEPT + 1) if V**length <= TABLE_BYTES / (8 * V))])
    tokens = [vocabulary.encode(text) for text in texts]
    position = np.concatenate([np.arange(len(text)) for text in tokens])
    sequence = np.concatenate([np.array(text, dtype=np.int64) for text in tokens])
    min_count, levels = 1, _count(sequence, position, order, V, kept, 1)
    while sum(len(level.contexts) for level in levels[kept + 1 :]) > max_contexts:
        min_count *= 2
        levels = _count(sequence, position, order, V, kept, min_count)

    log_probs, following = [], []
    starts = np.cumsum([0, *(len(level.contexts) for level in levels)])
    shorter = np.ones((1, V)) / (V - 2)  # before any context: uniform over all but <pad> and <sos>
    shorter[:, [PAD, SOS]] = 0
    after = np.zeros((1, V), dtype=np.int32)
    for length, level in enumerate(levels):
        suffix = np.searchsorted(levels[length - 1].contexts, level.contexts % V ** (length - 1)) if length else [0]
        shorter, after = _probabilities(level, shorter[suffix]), after[suffix]
        if length + 1 < len(levels):
            longer = levels[length + 1].contexts
            row = np.searchsorted(level.contexts, longer // V)
            after[row, longer % V] = starts[length + 1] + np.arange(len(longer))
        log_probs.append(shorter)
        following.append(after)
    with np.errstate(divide="ignore"):
        tables = np.log(np.concatenate(log_probs)).astype(np.float32), np.concatenate(following)
    return LanguageModel(*map(torch.from_numpy, tables))


def _count(sequence: np.ndarray, position: np.ndarray, order: int, V: int, kept: int, min_count: int) -> list[_Level]:
    levels, context = [], np.zeros_like(sequence)
    for length in range(order):
        if length:  # one more character on the old side
            context = context + np.roll(sequence, length) * V ** (length - 1)
        real = position >= max(1, length)  # <sos> is never predicted, and nothing lies before it
        grams, counts = np.unique(context[real] * V + sequence[real], return_counts=True)
        contexts, size = np.unique(context[real], return_counts=True)
        if length > kept and min_count > 1:
            contexts = contexts[size >= min_count]
            frequent = np.isin(grams // V, contexts)
            grams, counts = grams[frequent], counts[frequent]
        levels.append(_Level(contexts, grams, counts))
    for length in range(order - 1):  # all but the highest order count the different characters before
        level, longer = levels[length], levels[length + 1]
        kinds = np.bincount(np.searchsorted(level.grams, longer.grams % V ** (length + 1)), minlength=len(level.grams))
        first = level.grams // V**length == SOS if length else np.zeros(len(level.grams), dtype=bool)
        levels[length] = level._replace(counts=np.where(first | (kinds == 0), level.counts, kinds))
    return levels


def _probabilities(level: _Level, shorter: np.ndarray) -> np.ndarray:
    """`P(c | h)` of all contexts `h` of one length, `(C, V)`; `shorter`: the same without their oldest character."""
    V = shorter.shape[1]
    once, twice = (level.counts == 1).sum(), (level.counts == 2).sum()
    discount = once / (once + 2 * twice) if once and twice else 0.5
    row, character = np.searchsorted(level.contexts, level.grams // V), level.grams % V
    total = np.bincount(row, level.counts)[:, None]
    kinds = np.bincount(row)[:, None]
    probabilities = discount * kinds / total * shorter
    probabilities[row, character] += (level.counts - discount) / total[row, 0]
    return probabilities


def save_language_model(path: Path, model: LanguageModel, vocabulary: Vocabulary = KAGGLE) -> None:
    save_checkpoint(path, {**model._asdict(), **describe_vocabulary(vocabulary)})


def load_language_model(path: Path, vocabulary: Vocabulary = KAGGLE) -> LanguageModel:
    """A language model that tune.py has written.

    Args:
        path: of the file.
        vocabulary: of the models that it is used with.

    Raises:
        UserError: the file is missing, damaged, something else, or of another vocabulary.
    """
    found = read_file(path, "no language model; python tune.py makes it")
    check_content(path, found, LanguageModelContent, "a language model that tune.py wrote")
    assert isinstance(found, dict)
    if tuple(found["vocabulary"]) != vocabulary.tokens:
        theirs = parse_vocabulary(found["vocabulary"], found.get("text_form"), str(path))
        raise UserError(f"{path}: found a language model of {theirs}, expected one of the model's {vocabulary}")
    log_probs, following = (found[name] for name in LanguageModel._fields)
    sizes, whole = (len(following), len(vocabulary)), following.dtype == torch.int32 and following.numel()
    if (
        log_probs.shape != sizes
        or following.shape != sizes
        or not whole
        or not 0 <= following.min() <= following.max() < sizes[0]
    ):
        raise UserError(
            f"{path}: found tables that do not belong together, expected a language model that tune.py wrote"
        )
    if log_probs.isnan().any() or log_probs.max() > LOG_OF_ONE:
        raise UserError(f"{path}: found numbers that are no log-probabilities, expected what tune.py wrote")
    return LanguageModel(log_probs, following)
