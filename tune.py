"""Trains a language model on the transcripts and finds the decoding weights on dev; test.py then uses both.

python tune.py                                   # data.train's transcripts, data.dev, runs/NAME/best.pt
python tune.py --text more.txt                   # language model from the transcripts and a file, one sentence per line
python tune.py --checkpoint a.pt b.pt run.name=both     # for an ensemble; then test.py with the same arguments

Writes runs/NAME/lm.pt and runs/NAME/decoding.yaml. Text of dev or test never reaches the language model.
"""

from pathlib import Path

from arguments import DecodingArguments, command_parser, parse_decoding_arguments
from config import TUNED, Config
from utils.cli import run_command


def parse_arguments() -> DecodingArguments:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="more text for the language model, one sentence per line"
    )
    parser.add_argument("--order", type=int, default=8, help="characters of the n-grams (default: %(default)s)")
    return parse_decoding_arguments(parser)


if __name__ == "__main__":  # before torch is imported: --help and a misspelt key answer at once
    ARGUMENTS = run_command(parse_arguments)

import argparse
import itertools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from Levenshtein import distance
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from corpora.checks import read_transcript
from corpora.layout import find_partition
from corpora.loading import Corpus, load_corpus
from decoding.beam_search import Hypothesis, beam_search
from decoding.language_model import (
    MAX_ORDER,
    LanguageModel,
    load_language_model,
    save_language_model,
    train_language_model,
)
from decoding.ranking import RANKERS
from decoding.recogniser import EncodedUtterances, Recogniser
from decoding.rescoring import SourceScores, Weights, combine, score_hypotheses
from decoding.transcribe import DecodingOptions, decode_batches, transcribe
from training.resume import check_data_root
from utils.checkpoint import LoadedModels, load_models
from utils.device import choose_device, choose_precision
from utils.errors import BadFile, UserError
from utils.files import atomic_write, is_leftover, read_lines, to_yaml
from utils.locking import sole_writer
from utils.metrics import score
from utils.vocabulary import decode, spellable

CTC_WEIGHTS = [step / 10 for step in range(11)]
LM_WEIGHTS = [step / 10 for step in range(9)]
LENGTH_REWARDS = [step / 5 for step in range(9)]
NBEST = 16  # hypotheses per utterance that the weights choose among
SEARCH = Weights(0.3, 0.2, 0.8)  # of the search that finds them: some of each source

logger = logging.getLogger(f"las.{__name__}")


def read_texts(config: Config, more: Path | None) -> list[str]:
    """The training transcripts, and `more` text without the characters that the vocabulary lacks.

    Args:
        config: names the partitions.
        more: a file with one sentence per line, a folder of transcripts as .npy, such as S25's text-for-LM, or None.

    Raises:
        UserError: `more` cannot be read, or there is no text at all.
    """
    paths: list[Path] = []
    for name in config.data.train:
        paths += find_partition(config.data.root, name).transcripts or ()
    if more is not None and more.is_dir():
        there = [path for path in sorted(more.rglob("*.npy")) if not is_leftover(path.name)]
        if not there:
            raise UserError(f"--text: {more}: found a folder without .npy files, expected transcripts or a text file")
        paths += there
    texts, bad = [], []
    for path in paths:
        try:
            texts.append(read_transcript(path))
        except BadFile as finding:
            bad.append(f"{path.name}: {finding}")
    if bad:
        logger.warning(f"language model: {len(bad)} unreadable transcripts left out, such as {bad[0]}")
    if more is not None and not more.is_dir():
        try:
            lines = read_lines(more)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--text: {more}: cannot be read as UTF-8 text ({error})") from None
        texts += filter(None, map(spellable, lines))
    if not texts:
        raise UserError(f"data.train: found no transcripts in {', '.join(config.data.train)}, expected text to learn")
    return texts


class NBest(NamedTuple):
    """N-best lists of `N` utterances, padded to `K` hypotheses with length 1 and distance 0."""

    scores: SourceScores  # (N, K)
    distances: Tensor  # (N, K) to the reference
    real: Tensor  # (N, K), False on padding
    tokens: list[list[list[int]]]  # of each hypothesis


def collect(recogniser: Recogniser, corpus: Corpus, device: torch.device) -> NBest:
    """N-best lists of a corpus from one beam search, with their scores by source."""

    def decode_batch(
        encoded: tuple[EncodedUtterances, ...], limits: Tensor
    ) -> list[tuple[list[list[int]], SourceScores]]:
        beams = beam_search(recogniser, encoded, limits, NBEST, SEARCH.length_reward)
        tokens = [[hypothesis.tokens for hypothesis in beam] for beam in beams]
        return list(zip(tokens, score_hypotheses(recogniser, encoded, tokens), strict=True))

    found = decode_batches(recogniser, corpus, NBEST, device, decode_batch)
    tokens = [hypotheses for hypotheses, _ in found]
    distances = [
        torch.tensor([distance(text, decode(hypothesis)) for hypothesis in hypotheses])
        for text, hypotheses in zip(corpus.transcripts, tokens, strict=True)
    ]
    scores = SourceScores(
        *(
            pad_sequence(list(values), batch_first=True, padding_value=padding)
            for values, padding in zip(zip(*(each for _, each in found), strict=True), (0, 0, 0, 1), strict=True)
        )
    )
    real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in distances], batch_first=True)
    return NBest(scores, pad_sequence(distances, batch_first=True), real, tokens)


def best_weights(nbest: NBest, ctc_weights: Sequence[float], lm_weights: Sequence[float]) -> Weights:
    """The weights under which the best-scored hypotheses have the least mean distance.

    The mean distance is smoothed over neighbouring points of the grid: a point that is good by luck has bad neighbours.
    """
    axes = (ctc_weights, lm_weights, LENGTH_REWARDS)
    grid = [Weights(*point) for point in itertools.product(*axes)]
    means = []
    for weights in grid:
        best = combine(nbest.scores, weights).masked_fill(~nbest.real, float("-inf")).argmax(1, keepdim=True)
        means.append(nbest.distances.gather(1, best).double().mean())
    cube = torch.stack(means).view(1, 1, *map(len, axes))
    smooth = F.avg_pool3d(F.pad(cube, (1,) * 6, mode="replicate"), kernel_size=3, stride=1)
    return grid[int(smooth.argmin())]


def best_rank(nbest: NBest, weights: Weights, texts: Sequence[str]) -> str:
    """mbr if it is better than likelihood on these lists, else likelihood."""
    scores = combine(nbest.scores, weights)
    logs = combine(nbest.scores, weights._replace(length_reward=0.0))
    total = dict.fromkeys(RANKERS, 0)
    for row, (hypotheses, text) in enumerate(zip(nbest.tokens, texts, strict=True)):
        beam = [Hypothesis(tokens, float(scores[row, k]), float(logs[row, k])) for k, tokens in enumerate(hypotheses)]
        beam.sort(key=lambda hypothesis: -hypothesis.score)
        for name, rank in RANKERS.items():
            total[name] += distance(text, rank(beam))
    return "mbr" if total["mbr"] < total["likelihood"] else "likelihood"


def main(arguments: DecodingArguments) -> None:
    flags, config, checkpoints = arguments
    folder = config.run.path
    if not 1 <= flags.order <= MAX_ORDER:
        raise UserError(f"--order: found {flags.order}, expected 1 to {MAX_ORDER}")
    if flags.changes:
        logger.info(f"--config {flags.config} changes what the run was trained with: {flags.changes}")
    device = choose_device(config.training.device)
    precision = choose_precision(config.training.precision, device)
    loaded = load_models(checkpoints)
    check_data_root(folder, config.data.root)

    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, "tune.py"):
        tune(flags, config, loaded, device, precision)


def tune(flags: argparse.Namespace, config: Config, loaded: LoadedModels, device: torch.device, precision: str) -> None:
    """Makes the language model and finds the weights, see the module's docstring."""
    folder = config.run.path
    texts = read_texts(config, flags.text)
    language_model = train_language_model(texts, flags.order)
    sizes = f"{len(texts):,} texts, {sum(map(len, texts)):,} characters, {len(language_model.log_probs):,} contexts"
    logger.info(f"language model: {sizes}")

    corpus = load_corpus(
        [find_partition(config.data.root, config.data.dev)],
        loaded.features.normalize,
        feature_format=loaded.features,
        report=folder / "findings-dev.txt",
        **config.loading_kwargs,
    )
    if corpus.texts is None:
        raise UserError(f"data.dev: {config.data.dev} has no transcripts; the weights are found by comparing with them")
    models = [model.to(device) for model in loaded.models]
    language_model = language_model.to(device)

    def distance_with(weights: Weights, rank: str, lm: LanguageModel) -> float:
        """Mean distance on dev as test.py would decode it."""
        recogniser = Recogniser(models, weights.ctc_weight, lm, weights.lm_weight, precision)
        options = DecodingOptions("beam", config.decoding.beam_size, rank, weights.length_reward)
        return score(corpus.transcripts, transcribe(recogniser, corpus, options, device)).distance

    logger.info(f"searching {config.data.dev} with a beam of {NBEST}, then twice more as test.py does: {corpus.size}")
    searcher = Recogniser(models, SEARCH.ctc_weight, language_model, SEARCH.lm_weight, precision)
    nbest = collect(searcher, corpus, device)
    has_ctc = any(model.ctc is not None for model in models)
    weights = best_weights(nbest, CTC_WEIGHTS if has_ctc else [0.0], LM_WEIGHTS)
    rank = best_rank(nbest, weights, corpus.transcripts)
    found = {"rank": rank, **{name: round(value, 3) for name, value in weights._asdict().items()}}
    now = Weights(*(getattr(config.decoding, name) for name in Weights._fields))
    there = folder / "lm.pt"  # one unit with the weights that are in use: replaced together or not at all
    in_use = load_language_model(there).to(device) if now.lm_weight and there.exists() else language_model
    before = distance_with(now, config.decoding.rank, in_use)
    after = distance_with(weights, rank, language_model)
    logger.info(f"{config.data.dev}: distance {before:.3f} with {now._asdict()}, {after:.3f} with {found}")
    if after < before or not there.exists():
        save_language_model(there, language_model.to(torch.device("cpu")))
        logger.info(f"{there}: {sizes}")
    if after < before:
        tuned = folder / TUNED
        with atomic_write(tuned) as temporary:
            comment = f"# python tune.py: {config.data.dev} distance {after:.3f}\n"
            temporary.write_text(comment + to_yaml({"decoding": found}), encoding="utf-8")
        logger.info(f"{tuned}: test.py will use these")
    else:
        logger.info("no better than what is configured: left as it is")


if __name__ == "__main__":
    run_command(lambda: main(ARGUMENTS))
