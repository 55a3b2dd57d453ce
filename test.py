"""Decodes a partition with a trained model: scores it where there are transcripts, writes the submission.

python test.py                                   # data.test with runs/NAME/best.pt -> submission.csv
python test.py --split dev-clean                 # any partition with transcripts: its distance
python test.py --checkpoint a.pt b.pt            # several models as one ensemble
python test.py --audio talk.mp3 --plot pictures  # recordings: texts, the time of each word, and a picture
torchrun --nproc_per_node=8 test.py              # on eight GPUs
"""

from pathlib import Path

from arguments import READING, DecodingArguments, command_parser, parse_decoding_arguments
from config import TUNED, Config
from utils.cli import run_command


def parse_arguments() -> DecodingArguments:
    parser = command_parser(__doc__, (*READING, "run.", "data.test", "decoding.", "test."))
    parser.add_argument("--split", metavar="NAME", help="partition to decode (default: data.test, for the submission)")
    parser.add_argument("--resume", action="store_true", help="go on with a decoding that was killed")
    parser.add_argument("--audio", nargs="+", default=[], metavar="FILE", help="transcribe these recordings instead")
    parser.add_argument(
        "--plot", type=Path, metavar="PATH", help="draw words, features, attention: a folder, or FILE.png"
    )
    return parse_decoding_arguments(parser)


if __name__ == "__main__":  # before torch is imported: --help and a misspelt key answer at once
    ARGUMENTS = run_command(parse_arguments)

import logging
import time
from collections.abc import Sequence

import Levenshtein
import torch

from corpora.layout import find_partition
from corpora.loading import Corpus, load_corpus
from corpora.submission import find_format, write_submission
from decoding.language_model import load_language_model
from decoding.recogniser import Recogniser
from decoding.recordings import transcribe_recordings
from decoding.resume import PartialResults
from decoding.transcribe import DecodingOptions, transcribe
from models.las import LAS
from report.build import write_report
from report.timeline import draw_recordings
from training.resume import check_data_root
from utils.checkpoint import load_models
from utils.device import choose_device, choose_precision
from utils.distributed import DistributedContext, check_ranks_agree, init_distributed
from utils.errors import UserError
from utils.files import NAME_RULE, flatten, is_name, write_csv
from utils.locking import sole_writer
from utils.metrics import score

NO_FEATURE_CONFIG = """{}: how features are computed from speech is not known to this checkpoint, so it cannot
transcribe recordings. Expected one that was trained on a corpus made by python -m corpora.librispeech, corpora.folder
or corpora.demo, whose features.json goes into the checkpoint. The competition's features come without one."""

logger = logging.getLogger(f"las.{__name__}")


def main(arguments: DecodingArguments) -> None:
    flags, config, checkpoints, _ = arguments
    if flags.plot and not flags.audio:
        raise UserError("--plot: pictures are drawn of recordings: name them with --audio FILE ...")
    device = choose_device(config.training.device)
    with init_distributed(device) as context:
        if flags.changes:
            logger.info(f"--config {flags.config} changes what the run was trained with: {flags.changes}")
        if (config.run.path / TUNED).exists():
            logger.info(f"decoding weights: {config.run.path / TUNED}")
        if flags.audio:
            transcribe_audio(flags.audio, flags.plot, config, checkpoints, device, context)
        else:
            decode_partition(flags.split, flags.resume, config, checkpoints, device, context)


# ---------------------------------------------------------------------------------------------------------- partitions


def decode_partition(
    split: str | None,
    resume: bool,
    config: Config,
    checkpoints: Sequence[Path],
    device: torch.device,
    context: DistributedContext,
) -> None:
    """Decodes a partition; rank 0 writes the submission, or predictions and their score, or both.

    Args:
        split: the partition; None is data.test, for the submission.
        resume: whether to go on with texts that a killed decoding left.
        config: settings.
        checkpoints: of one model, or of several as an ensemble.
        device: of this rank.
        context: ranks that share the utterances.

    Raises:
        UserError: checkpoints or files cannot be used, or a result cannot be written.
    """
    name, folder = config.data.test if split is None else split, config.run.path
    if not is_name(name):
        raise UserError(f"--split: found {name[:80]!r}, expected {NAME_RULE}")
    loaded = load_models(checkpoints)
    check_data_root(folder, config.data.root)
    partition = find_partition(config.data.root, name)
    form = find_format(Path(config.data.root), partition, config.test.header)
    with context.main_process_first():
        corpus = load_corpus(
            [partition],
            loaded.features.normalize,
            feature_format=loaded.features,
            report=folder / f"findings-{name}.txt" if context.is_main else None,
            **config.loading_kwargs,
        )
    start = time.perf_counter()
    recogniser, options = make_recogniser(loaded.models, config, device, allow_blank=split is not None)
    files = [(str(path.resolve()), path.stat().st_mtime_ns) for path in checkpoints]
    lm = folder / "lm.pt"
    if recogniser.language_model is not None:
        files.append((str(lm.resolve()), lm.stat().st_mtime_ns))
    weights = config.decoding.model_dump()
    decoded_with = repr((options, weights, recogniser.precision, files, corpus.format, corpus.digest))
    check_ranks_agree(context, {**flatten({"decoding": weights}), f"--split {name}": corpus.digest})
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, f"test.py-{name}", context):
        partial = PartialResults(folder, name, decoded_with, resume, context)
        texts = transcribe(recogniser, corpus, options, device, context, partial)
        seconds = time.perf_counter() - start
        if not context.is_main:
            return
        if split is None:
            by_name = {path.stem: text for path, text in zip(corpus.paths, texts, strict=True)}
            write_submission(Path(config.test.submission), form, by_name)
        scored = "" if corpus.texts is None else score_texts(folder, name, corpus, texts) + ", "
        partial.remove()
    logger.info(f"{name}: {len(corpus)} utterances, {scored}{seconds:.1f} s ({options})")


def make_recogniser(
    models: list[LAS], config: Config, device: torch.device, allow_blank: bool = True
) -> tuple[Recogniser, DecodingOptions]:
    """The models with their language model, if one is wanted, and how to search with them."""
    weights = config.decoding
    options = DecodingOptions(weights.mode, weights.beam_size, weights.rank, weights.length_reward, allow_blank)
    shares = f"weights: CTC {weights.ctc_weight:g}, language model {weights.lm_weight:g}"
    logger.info(f"{options}, {shares}, length {weights.length_reward:g}")
    language_model = load_language_model(config.run.path / "lm.pt").to(device) if weights.lm_weight else None
    models = [model.to(device) for model in models]
    precision = choose_precision(config.training.precision, device)
    return Recogniser(models, weights.ctc_weight, language_model, weights.lm_weight, precision), options


def score_texts(folder: Path, split: str, corpus: Corpus, texts: Sequence[str]) -> str:
    """Writes predictions-SPLIT.csv and the report of the run in `folder`; distance, CER and WER in words."""
    names = [path.stem for path in corpus.paths]
    distances = map(Levenshtein.distance, corpus.transcripts, texts)
    predictions = folder / f"predictions-{split}.csv"
    columns = ("id", "reference", "hypothesis", "distance")
    write_csv(predictions, columns, zip(names, corpus.transcripts, texts, distances, strict=True))
    logger.info(f"{predictions}: references and hypotheses")
    if write_report(folder):
        logger.info(f"{folder / 'report.html'}: its table has them, with what differs marked")
    result = score(corpus.transcripts, texts)
    return f"distance {result.distance:.3f}, CER {result.cer:.2%}, WER {result.wer:.2%}".replace("%", " %")


# ---------------------------------------------------------------------------------------------------------- recordings


def transcribe_audio(
    files: Sequence[str],
    plot: Path | None,
    config: Config,
    checkpoints: Sequence[Path],
    device: torch.device,
    context: DistributedContext,
) -> None:
    """--audio: logs what is said in recordings, and when; draws it if a path to `plot` to is given.

    Raises:
        UserError: a recording cannot be read, or the model does not know how its features are computed.
    """
    loaded = load_models(checkpoints)
    if loaded.feature_config is None:
        raise UserError(NO_FEATURE_CONFIG.format(", ".join(map(str, checkpoints))))
    start = time.perf_counter()
    recogniser, options = make_recogniser(loaded.models, config, device)
    recordings = transcribe_recordings(recogniser, list(map(Path, files)), loaded, options, device, context)
    elapsed = time.perf_counter() - start
    for recording in recordings:
        logger.info(f"{recording.path}, {recording.seconds:.1f} s: {recording.text or '(no speech was found)'}")
        for word in recording.words:
            logger.info(f"  {word.start:8.2f} {word.end:8.2f}  {word.text}")
    if plot and context.is_main:
        draw_recordings(recordings, plot, loaded.feature_config)
    seconds = sum(recording.seconds for recording in recordings)
    many = "1 recording" if len(recordings) == 1 else f"{len(recordings)} recordings"
    logger.info(f"{many}, {seconds:.1f} s of sound, {elapsed:.1f} s ({options})")


if __name__ == "__main__":
    run_command(lambda: main(ARGUMENTS), ARGUMENTS.sources)
