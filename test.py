"""Decodes a partition with a trained model: scores it where there are transcripts, writes the submission.

python test.py                                   # data.test with runs/NAME/best.pt -> submission.csv
python test.py --split dev-clean                 # any partition with transcripts: its distance
python test.py --checkpoint a.pt b.pt            # several models as one ensemble
python test.py --audio talk.mp3 --plot pictures  # recordings: texts, the time of each word, and a picture
torchrun --nproc_per_node=8 test.py              # on eight GPUs
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import Levenshtein
import pandas as pd
import torch

from config import TUNED, Config, check_data_root, command_parser, parse_decoding_arguments
from corpora.layout import find_partition
from dataset import load_corpus
from decoding.language_model import load_language_model
from decoding.recogniser import Recogniser
from decoding.recordings import draw_recordings, transcribe_recordings
from decoding.resume import KeptTexts
from decoding.transcribe import DecodingOptions, transcribe
from models.las import LAS
from report.build import write_report
from utils.checkpoint import load_for_recordings, load_models
from utils.cli import run_command
from utils.device import choose_device, choose_precision
from utils.distributed import Team, assemble
from utils.errors import UserError
from utils.files import replacing
from utils.logging import make_logger, silence
from utils.metrics import score

NO_RECIPE = """{}: how features are computed from speech is not known to this checkpoint, so it cannot hear recordings.
Expected one that was trained on a corpus made by python -m corpora.librispeech, corpora.folder or corpora.demo, whose
features.json goes into the checkpoint. The competition's features come without their recipe."""


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Unix line ends on every system; an empty text is an empty field; names are the bytes that they are on disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            table.to_csv(beside, index=False, lineterminator="\n", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def make_recogniser(
    models: list[LAS], config: Config, device: torch.device, say: Callable[[str], None]
) -> tuple[Recogniser, DecodingOptions]:
    """The models with their language model, where it is wanted, and how to search with them."""
    weights = config.decoding
    options = DecodingOptions(weights.mode, weights.beam_size, weights.rank, weights.length_reward)
    shares = f"weights: CTC {weights.ctc_weight:g}, language model {weights.lm_weight:g}"
    say(f"{options}, {shares}, length {weights.length_reward:g}")
    language_model = load_language_model(config.run.path / "lm.pt").to(device) if weights.lm_weight else None
    models = [model.to(device) for model in models]
    precision = choose_precision(config.training.precision, device)
    return Recogniser(models, weights.ctc_weight, language_model, weights.lm_weight, precision), options


def listen(
    args: argparse.Namespace,
    config: Config,
    paths: list[Path],
    device: torch.device,
    team: Team,
    say: Callable[[str], None],
) -> None:
    """--audio: recordings instead of a partition."""
    loaded = load_for_recordings(paths, say)
    if loaded.recipe is None:
        raise UserError(NO_RECIPE.format(", ".join(map(str, paths))))
    start = time.perf_counter()
    recogniser, options = make_recogniser(loaded.models, config, device, say)
    files = [Path(name) for name in args.audio]
    recordings = transcribe_recordings(recogniser, files, loaded, options, device, team)
    elapsed = time.perf_counter() - start
    for recording in recordings:
        say(f"{recording.path}, {recording.seconds:.1f} s: {recording.text or '(no speech was found)'}")
        for word in recording.words:
            say(f"  {word.start:8.2f} {word.end:8.2f}  {word.text}")
    if args.plot and team.leads:
        draw_recordings(recordings, args.plot, loaded.recipe, say)
    seconds = sum(recording.seconds for recording in recordings)
    many = "1 recording" if len(recordings) == 1 else f"{len(recordings)} recordings"
    say(f"{many}, {seconds:.1f} s of sound, {elapsed:.1f} s ({options})")


def decode(args: argparse.Namespace, config: Config, paths: list[Path], device: torch.device, team: Team) -> None:
    """What this process's share of the work is; the leader writes the results."""
    if args.plot and not args.audio:
        raise UserError("--plot: pictures are drawn of recordings: name them with --audio FILE ...")
    folder, say, weights = config.run.path, make_logger().info if team.leads else silence, config.decoding
    if (folder / TUNED).exists():
        say(f"decoding weights: {folder / TUNED}")
    if args.audio:
        listen(args, config, paths, device, team, say)
        return

    models, feature_format = load_models(paths, say)
    check_data_root(config)
    split = args.split or config.data.test
    partition = find_partition(config.data.root, split)
    with team.leader_first():
        corpus = load_corpus(
            [partition],
            feature_format.normalize,
            feature_format=feature_format,
            **config.reading,
            report=folder / f"findings-{split}.txt" if team.leads else None,
            say=say,
        )
    start = time.perf_counter()
    recogniser, options = make_recogniser(models, config, device, say)
    files = [(str(path.resolve()), path.stat().st_mtime_ns) for path in paths]
    kept = KeptTexts(folder, split, repr((weights, recogniser.precision, files, corpus.format)), args.resume, team, say)
    texts = transcribe(recogniser, corpus, options, device, team, kept)
    seconds = time.perf_counter() - start
    if not team.leads:
        return

    if args.split is None:
        by_path = dict(zip(corpus.paths, texts, strict=True))
        rows = [(index, by_path.get(path, "")) for index, path in enumerate(partition.features)]
        blank = sum(not text.strip() for _, text in rows)
        if blank > len(rows) / 2:
            say(f"warning: {blank} of {len(rows)} texts are empty: this model has learned nothing yet")
        submission = Path(config.test.submission)
        write_csv(submission, pd.DataFrame(rows, columns=partition.layout.header.split(",")))
        say(f"{submission}: {len(rows)} rows")
    if corpus.texts is None:
        summary = ""
    else:
        ids = [path.stem for path in corpus.paths]
        distances = list(map(Levenshtein.distance, corpus.texts, texts))
        table = {"id": ids, "reference": corpus.texts, "hypothesis": texts, "distance": distances}
        predictions = folder / f"predictions-{split}.csv"
        write_csv(predictions, pd.DataFrame(table))
        say(f"{predictions}: references and hypotheses")
        if write_report(folder, say):
            say(f"{folder / 'report.html'}: its table has them, with what differs marked")
        result = score(corpus.texts, texts)
        summary = f"distance {result.distance:.3f}, CER {result.cer:.2%}, WER {result.wer:.2%}, ".replace("%", " %")
    kept.finish()
    say(f"{split}: {len(corpus)} utterances, {summary}{seconds:.1f} s ({options})")


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--split", metavar="NAME", help="partition to decode (default: data.test, for the submission)")
    parser.add_argument("--resume", action="store_true", help="go on with a decoding that was killed")
    parser.add_argument("--audio", nargs="+", default=[], metavar="FILE", help="transcribe these recordings instead")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PATH",
        help="draw words, features, attention: a folder, or FILE.png",
    )
    args, config, paths = parse_decoding_arguments(parser)
    device = choose_device(config.training.device)
    with assemble(device) as team:
        decode(args, config, paths, device, team)


if __name__ == "__main__":
    run_command(main)
