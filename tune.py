"""Trains a language model on the transcripts and finds the decoding weights on dev; test.py then uses both.

python tune.py                                   # data.train's transcripts, data.dev, runs/NAME/best.pt
python tune.py --text more.txt                   # language model from the transcripts and a file, one sentence per line
python tune.py --checkpoint a.pt b.pt run.name=both     # for an ensemble; then test.py with the same arguments

Writes runs/NAME/lm.pt and runs/NAME/decoding.yaml. Text of dev or test never reaches the language model.
"""

from pathlib import Path

from arguments import READING, DecodingArguments, command_parser, parse_decoding_arguments
from config import TUNED, Config
from utils.cli import run_command


def parse_arguments() -> DecodingArguments:
    parser = command_parser(__doc__, (*READING, "run.", "data.train", "data.dev", "decoding."))
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="more text for the language model, one sentence per line"
    )
    parser.add_argument("--order", type=int, help="characters of the n-grams (default: 8, or all that fit)")
    return parse_decoding_arguments(parser)


if __name__ == "__main__":  # before torch is imported: --help and a misspelt key answer at once
    ARGUMENTS = run_command(parse_arguments)

import argparse
import logging
import math
from collections import Counter
from collections.abc import Sequence

import torch

from corpora.checks import read_transcript
from corpora.layout import find_partition
from corpora.loading import load_corpus
from decoding.history import add_decoding, describe_checkpoints, make_row
from decoding.language_model import (
    LanguageModel,
    load_language_model,
    max_order,
    save_language_model,
    train_language_model,
)
from decoding.recogniser import Recogniser
from decoding.rescoring import Weights
from decoding.transcribe import DecodingOptions, transcribe
from decoding.tuning import CTC_WEIGHTS, MOST_TRIALS, NBest, Trial, collect, search_weights
from training.resume import check_data_root
from utils.checkpoint import LoadedModels, load_models
from utils.device import choose_device, choose_precision
from utils.errors import BadFile, UserError
from utils.files import atomic_write, is_leftover, make_folders, read_lines, taken_back, to_yaml, write_csv
from utils.locking import sole_writer
from utils.metrics import Score, compare, tidy
from utils.vocabulary import KAGGLE, Vocabulary, list_characters, spellable, unspellable

ORDER = 8  # of the n-grams, unless the vocabulary is too large for it

logger = logging.getLogger(f"las.{__name__}")


def read_texts(config: Config, more: Path | None, vocabulary: Vocabulary = KAGGLE) -> list[str]:
    """The training transcripts, and `more` text without the characters that the vocabulary lacks.

    Args:
        config: names the partitions.
        more: a file with one sentence per line, a folder of transcripts as .npy, such as S25's text-for-LM, or None.
        vocabulary: of the models.

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
            text = vocabulary.form.prepare(read_transcript(path))
            if unknown := vocabulary.unknown(text):
                raise BadFile(f"outside the vocabulary: {list_characters(unknown)}", f"{vocabulary}")
            texts.append(text)
        except BadFile as finding:
            bad.append(f"{path.name}: {finding}")
    if bad:
        logger.warning(f"language model: {len(bad)} unreadable transcripts left out, such as {bad[0]}")
    if more is not None and not more.is_dir():
        try:
            lines = read_lines(more)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--text: {more}: cannot be read as UTF-8 text ({error})") from None
        texts += filter(None, (spellable(line, vocabulary) for line in lines))
        if left_out := Counter("".join(unspellable(line, vocabulary) for line in lines)):
            listed = list_characters(character for character, _ in left_out.most_common())
            logger.info(f"{more}: {left_out.total():,} characters that the model does not write are left out: {listed}")
    if not texts:
        raise UserError(f"data.train: found no transcripts in {', '.join(config.data.train)}, expected text to learn")
    return texts


def main(arguments: DecodingArguments) -> None:
    flags, config, checkpoints, _ = arguments
    folder = config.run.path
    if len(checkpoints) > 1 and not flags.named:
        raise UserError(
            f"--checkpoint: found {len(checkpoints)} models without a name, expected one for their ensemble, under "
            "which its weights are kept: run.name=both, for test.py as well"
        )
    if flags.changes:
        logger.info(f"--config {flags.config} changes what the run was trained with: {flags.changes}")
    device = choose_device(config.training.device)
    precision = choose_precision(config.training.precision, device)
    loaded = load_models(checkpoints)
    most = max_order(len(loaded.vocabulary))
    flags.order = min(ORDER, most) if flags.order is None else flags.order
    if not 1 <= flags.order <= most:
        raise UserError(f"--order: found {flags.order}, expected 1 to {most}, with {len(loaded.vocabulary)} tokens")
    check_data_root(folder, config.data.root)

    made = make_folders(folder)
    with sole_writer(folder, "tune.py"), taken_back(made):
        tune(flags, config, checkpoints, loaded, device, precision)


def tune(
    flags: argparse.Namespace,
    config: Config,
    checkpoints: Sequence[Path],
    loaded: LoadedModels,
    device: torch.device,
    precision: str,
) -> None:
    """Makes the language model and finds the weights, see the module's docstring."""
    folder = config.run.path
    vocabulary = loaded.vocabulary
    texts = read_texts(config, flags.text, vocabulary)
    language_model = train_language_model(texts, flags.order, vocabulary)
    sizes = f"{len(texts):,} texts, {sum(map(len, texts)):,} characters, {len(language_model.log_probs):,} contexts"
    logger.info(f"language model: {sizes}")

    corpus = load_corpus(
        [find_partition(config.data.root, config.data.dev)],
        loaded.features.normalize,
        feature_format=loaded.features,
        vocabulary=vocabulary,
        scored=True,
        report=folder / "findings-dev.txt",
        **config.loading_kwargs,
    )
    if corpus.texts is None:
        raise UserError(f"data.dev: {config.data.dev} has no transcripts; the weights are found by comparing with them")
    models = [model.to(device) for model in loaded.models]
    language_model = language_model.to(device)

    there = folder / "lm.pt"  # one unit with the weights that are in use: replaced together or not at all
    now = Weights(*(getattr(config.decoding, name) for name in Weights._fields))
    in_use = load_language_model(there, vocabulary).to(device) if now.lm_weight and there.exists() else language_model

    def measure(weights: Weights, rank: str, lm: LanguageModel = language_model) -> list[int]:
        """Distance of each dev utterance as test.py would decode it."""
        recogniser = Recogniser(models, weights.ctc_weight, lm, weights.lm_weight, precision)
        options = DecodingOptions("beam", config.decoding.beam_size, rank, weights.length_reward)
        return [one.distance for one in compare(corpus.transcripts, transcribe(recogniser, corpus, options, device))]

    def find(weights: Weights) -> NBest:
        lm = language_model, weights.lm_weight
        searcher = Recogniser(models, weights.ctc_weight, *lm, precision, keep_posteriors=True)
        return collect(searcher, corpus, device, weights.length_reward)

    logger.info(f"searching {config.data.dev} up to {MOST_TRIALS} times as test.py does: {corpus.size}")
    before = Trial(now, config.decoding.rank, measure(now, config.decoding.rank, in_use))
    has_ctc = any(model.ctc is not None for model in models)
    ctc_weights, same = CTC_WEIGHTS if has_ctc else [0.0], in_use is language_model
    trials = search_weights(measure, find, before, ctc_weights, corpus.transcripts, vocabulary, comparable=same)
    best = min(trials, key=lambda trial: trial.distance)
    columns = (*Weights._fields, "rank", "dev_distance")
    write_csv(folder / "tuning.csv", columns, [(*trial.weights, trial.rank, trial.distance) for trial in trials])
    logger.info(f"{folder / 'tuning.csv'}: the {len(trials)} sets of weights that were tried")
    characters = sum(len(tidy(text)) for text in corpus.transcripts)
    result = Score(best.distance, sum(best.distances) / max(1, characters), math.nan)
    search = {**config.decoding.model_dump(), **best.weights._asdict(), "rank": best.rank, "mode": "beam"}
    decoded = describe_checkpoints(checkpoints, folder)
    add_decoding(folder, make_row("tune.py", config.data.dev, len(corpus), decoded, search, result, None))
    if best is before:
        logger.info(f"{config.data.dev}: distance {before.distance:.3f}; nothing better was found: left as it is")
    if best is not before or not there.exists():
        save_language_model(there, language_model.to(torch.device("cpu")), vocabulary)
        logger.info(f"{there}: {sizes}")
    if best is before:
        return
    weights = {name: round(value, 3) for name, value in best.weights._asdict().items()}
    found = {"mode": "beam", "rank": best.rank, **weights}  # found with a beam: a greedy search would not fit them
    shares = f"CTC {best.weights.ctc_weight:g}, language model {best.weights.lm_weight:g}"
    noise = "" if best.surpasses(before) else " (within the noise of so few utterances)"
    tuned = folder / TUNED
    with atomic_write(tuned) as temporary:
        comment = f"# python tune.py: {config.data.dev} distance {best.distance:.3f}\n"
        temporary.write_text(comment + to_yaml({"decoding": found}), encoding="utf-8")
    logger.info(
        f"{config.data.dev}: distance {before.distance:.3f} -> {best.distance:.3f}: {shares}, length "
        f"{best.weights.length_reward:g}, {best.rank}{noise}"
    )
    logger.info(f"{tuned}: test.py will use these")


if __name__ == "__main__":
    run_command(lambda: main(ARGUMENTS), ARGUMENTS.sources)
