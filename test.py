"""Decodes a partition with a trained model: scores it where there are transcripts, writes the submission.

python test.py                                   # data.test with runs/NAME/best.pt -> submission.csv
python test.py --split dev-clean                 # any partition with transcripts: its distance
python test.py --checkpoint a.pt b.pt            # several models as one ensemble
python test.py --audio talk.mp3 --plot pictures  # recordings: texts, the time of each word, and a picture
python test.py --audio talk.mp3 --format srt     # subtitles: transcripts/talk.srt
torchrun --nproc_per_node=8 test.py              # on eight GPUs
"""

from pathlib import Path

from arguments import READING, DecodingArguments, command_parser, parse_decoding_arguments
from config import TUNED, Config
from utils.cli import run_command

FORMATS = ("txt", "srt", "vtt", "json", "textgrid")  # of decoding.formats, which --help does not wait for
TRANSCRIPTS = "transcripts"  # the folder of what --format writes


def parse_arguments() -> DecodingArguments:
    parser = command_parser(__doc__, (*READING, "run.", "data.test", "decoding.", "wandb.", "test."))
    parser.add_argument("--split", metavar="NAME", help="partition to decode (default: data.test, for the submission)")
    parser.add_argument("--resume", action="store_true", help="go on with a decoding that was killed")
    parser.add_argument("--audio", nargs="+", default=[], metavar="FILE", help="transcribe these recordings instead")
    parser.add_argument(
        "--format", choices=FORMATS, help="write each recording's words as subtitles, JSON, TextGrid for Praat, or text"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"for what --format writes (default: {TRANSCRIPTS})")
    parser.add_argument(
        "--plot", type=Path, metavar="PATH", help="draw words, features, attention: a folder, or FILE.png, .pdf, .svg"
    )
    return parse_decoding_arguments(parser)


if __name__ == "__main__":  # before torch is imported: --help and a misspelt key answer at once
    ARGUMENTS = run_command(parse_arguments)

import argparse
import logging
import time
from collections.abc import Mapping, Sequence

import torch

from corpora.layout import find_partition
from corpora.loading import Corpus, load_corpus
from corpora.submission import SUBMISSION, SubmissionFormat, copy_submission, find_format, write_submission
from decoding.formats import write_recordings
from decoding.history import (
    add_decoding,
    describe_checkpoints,
    describe_replaced,
    last_of,
    make_row,
    read_decodings,
)
from decoding.resume import PartialResults
from decoding.transcribe import transcribe
from decoding.transcriber import Transcriber, make_recogniser
from report.build import write_report
from report.timeline import draw_recordings
from training.resume import check_data_root
from training.schedules import ALIGNED
from training.wandb_results import log_decodings
from utils.checkpoint import load_models
from utils.device import choose_device, choose_precision
from utils.distributed import DistributedContext, check_ranks_agree, init_distributed
from utils.errors import UserError
from utils.files import NAME_RULE, flatten, is_name, write_csv
from utils.locking import sole_writer
from utils.metrics import Comparison, compare, score, spacing_distance
from utils.vocabulary import KAGGLE

NOT_ALIGNED = """{}: the attention does not read along (monotonicity {:.2f}, aligned models have {} or more): the times
of the words mean nothing, and often the words do not either. Train on, see docs/reading-attention.md"""

logger = logging.getLogger(f"las.{__name__}")


def main(arguments: DecodingArguments) -> None:
    flags, config, checkpoints, _ = arguments
    for name in ("plot", "format"):
        if getattr(flags, name) and not flags.audio:
            raise UserError(f"--{name}: it is made of recordings: name them with --audio FILE ...")
    if flags.out and not flags.format:
        raise UserError(f"--out: it is the folder of what --format writes: add --format {'|'.join(FORMATS)}")
    device = choose_device(config.training.device)
    with init_distributed(device) as context:
        if flags.changes:
            logger.info(f"--config {flags.config} changes what the run was trained with: {flags.changes}")
        if (config.run.path / TUNED).exists():
            logger.info(f"decoding weights: {config.run.path / TUNED}")
        if flags.audio:
            transcribe_audio(flags, config, checkpoints, device, context)
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
    form = find_format(Path(config.data.root), partition, config.test.header) if split is None else None
    with context.main_process_first():
        corpus = load_corpus(
            [partition],
            loaded.features.normalize,
            feature_format=loaded.features,
            vocabulary=loaded.vocabulary,
            scored=True,
            report=folder / f"findings-{name}.txt" if context.is_main else None,
            **config.loading_kwargs,
        )
    start = time.perf_counter()
    weights, lm = config.decoding.model_dump(), folder / "lm.pt"
    precision = choose_precision(config.training.precision, device)
    recogniser, options = make_recogniser(loaded, weights, lm, device, precision, allow_blank=split is not None)
    files = [(str(path.resolve()), path.stat().st_mtime_ns) for path in checkpoints]
    if recogniser.language_model is not None:
        files.append((str(lm.resolve()), lm.stat().st_mtime_ns))
    decoded_with = repr((options, weights, recogniser.precision, files, corpus.format, corpus.digest))
    check_ranks_agree(context, {**flatten({"decoding": weights}), f"--split {name}": corpus.digest})
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, f"test.py-{name}", context):
        partial = PartialResults(folder, name, decoded_with, resume, context)
        texts = transcribe(recogniser, corpus, options, device, context, partial)
        seconds = time.perf_counter() - start
        if not context.is_main:
            return
        result = None if corpus.texts is None else score(corpus.transcripts, texts)
        submission = "" if split is not None else config.test.submission
        models = describe_checkpoints(checkpoints, folder)
        row = make_row("test.py", name, len(corpus), models, weights, result, seconds, submission)
        write_results(folder, row, corpus, texts, form)
        partial.remove()
    log_decodings(folder, config.run.name, read_decodings(folder), **config.wandb.model_dump())
    scored = f"distance {result.distance:.3f}, CER {result.cer:.2%}, WER {result.wer:.2%}, " if result else ""
    scored = scored.replace("%", " %")
    if result and loaded.vocabulary.tokens != KAGGLE.tokens:
        spaces = spacing_distance(corpus.transcripts, texts)
        logger.info(f"word spacing: {spaces:.3f} of the distance of {result.distance:.3f} is spaces alone")
    logger.info(f"{name}: {len(corpus)} utterances, {scored}{seconds:.1f} s ({options})")


def write_results(
    folder: Path, row: Mapping[str, str], corpus: Corpus, texts: Sequence[str], form: SubmissionFormat | None
) -> None:
    """Writes what a decoding gave into the folder of the run, a line of decodings.csv and the report among it.

    All files are of the last decoding: the log says which one they had been of.

    Args:
        folder: of the run.
        row: of decodings.csv.
        corpus: that was decoded.
        texts: of its utterances.
        form: of the submission; None: a split without transcripts gives hypotheses-SPLIT.csv instead.
    """
    split, rows = row["split"], read_decodings(folder)
    names = [path.stem for path in corpus.paths]
    if form is not None:
        path, copy = folder / SUBMISSION, Path(row["submission"])
        before = last_of([one for one in rows if one["submission"]], split)
        replaced = describe_replaced(path, before, row)
        write_submission(path, form, dict(zip(names, texts, strict=True)))
        logger.info(f"{copy}: a copy of it{replaced}" if copy_submission(path, copy) else f"{path}: written{replaced}")
    if row["distance"]:
        path = folder / f"predictions-{split}.csv"
        replaced = describe_replaced(path, last_of(rows, split), row)
        columns, compared = ("id", *Comparison._fields), compare(corpus.transcripts, texts)
        write_csv(path, columns, [(name, *one) for name, one in zip(names, compared, strict=True)])
        logger.info(f"{path}: references and hypotheses{replaced}")
    elif form is None:
        path = folder / f"hypotheses-{split}.csv"
        replaced = describe_replaced(path, last_of(rows, split), row)
        write_csv(path, ("id", "hypothesis"), zip(names, texts, strict=True))
        logger.info(f"{path}: hypotheses, since {split} has no transcripts{replaced}")
    add_decoding(folder, row)
    if write_report(folder) and row["distance"]:
        logger.info(f"{folder / 'report.html'}: its table lists them, errors highlighted")


# ---------------------------------------------------------------------------------------------------------- recordings


def transcribe_audio(
    flags: argparse.Namespace,
    config: Config,
    checkpoints: Sequence[Path],
    device: torch.device,
    context: DistributedContext,
) -> None:
    """--audio: logs what is said in recordings, and when; writes and draws it where --format and --plot ask for it.

    Raises:
        UserError: a recording cannot be read, or the model does not know how its features are computed.
    """
    search, lm = config.decoding.model_dump(), config.run.path / "lm.pt"
    start = time.perf_counter()
    transcriber = Transcriber(checkpoints, search, lm, device, config.training.precision)
    recordings = transcriber.transcribe_all(flags.audio, context)
    elapsed = time.perf_counter() - start
    for recording in recordings:
        logger.info(f"{recording.path}, {recording.seconds:.1f} s: {recording.text or '(no speech was found)'}")
        for word in recording.words if flags.format is None else ():
            logger.info(f"  {word.start:8.2f} {word.end:8.2f}  {word.text}")
        if recording.monotonicity is not None and recording.monotonicity < ALIGNED:
            logger.warning(NOT_ALIGNED.format(recording.path, recording.monotonicity, ALIGNED))
    if flags.format and context.is_main:
        write_recordings(recordings, flags.format, flags.out or Path(TRANSCRIPTS))
    if flags.plot and context.is_main:
        draw_recordings(recordings, flags.plot, transcriber.feature_config)
    seconds = sum(recording.seconds for recording in recordings)
    many = "1 recording" if len(recordings) == 1 else f"{len(recordings)} recordings"
    logger.info(f"{many}, {seconds:.1f} s of sound, {elapsed:.1f} s ({transcriber.options})")


if __name__ == "__main__":
    run_command(lambda: main(ARGUMENTS), ARGUMENTS.sources)
