"""Decodes a partition with a trained model: scores it where there are transcripts, writes the submission.

python test.py                                   # data.test with runs/NAME/best.pt -> submission.csv
python test.py --split dev-clean                 # any partition with transcripts: its distance
python test.py --checkpoint a.pt b.pt            # several models as one ensemble
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import Levenshtein
import pandas as pd

from config import command_parser, load_config
from dataset import FeatureFormat, load_corpus
from decoding.recogniser import Recogniser
from decoding.transcribe import DecodingOptions, transcribe
from models.las import LAS
from utils.checkpoint import load_checkpoint, model_from
from utils.corpus import find_partition
from utils.device import choose_device
from utils.errors import UserError, run_command
from utils.logs import make_logger
from utils.metrics import score


def load_models(paths: list[Path], say: Callable[[str], None]) -> tuple[list[LAS], FeatureFormat]:
    """The models of the checkpoints, and the feature format that they must share."""
    checkpoints = [load_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        say(f"decoding with {path}, epoch {checkpoint['epoch']}")
    formats = [FeatureFormat(**checkpoint["features"]) for checkpoint in checkpoints]
    for path, found in zip(paths, formats, strict=True):
        if found != formats[0]:
            raise UserError(f"{path}: found a model of {found}, expected {formats[0]}, as {paths[0]} has")
    return [model_from(checkpoint) for checkpoint in checkpoints], formats[0]


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Unix line ends on every system; an empty text is an empty field."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, lineterminator="\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="FILE", help="default: best.pt of the run")
    parser.add_argument("--split", metavar="NAME", help="partition to decode (default: data.test, for the submission)")
    args = parser.parse_intermixed_args()
    # --checkpoint takes all that follows it: what looks like key=value there is an override.
    overrides = [text for text in args.checkpoint if re.match(r"^[a-z_.]+=", text)]
    config = load_config(args.config, [*args.overrides, *overrides])
    folder, say = config.run.path, make_logger().info
    paths = [Path(text) for text in args.checkpoint if text not in overrides] or [folder / "best.pt"]
    options = DecodingOptions(config.decoding.mode, config.decoding.beam_size, config.decoding.length_normalization)

    device = choose_device(config.training.device)
    models, feature_format = load_models(paths, say)
    split = args.split or config.data.test
    partition = find_partition(config.data.root, split)
    corpus = load_corpus(
        [partition],
        feature_format.normalize,
        feature_format=feature_format,
        skip_bad=config.data.skip_bad,
        keep=config.data.cache == "ram",
        report=folder / f"findings-{split}.txt",
        say=say,
    )
    start = time.perf_counter()
    recogniser = Recogniser([model.to(device) for model in models], config.decoding.ctc_weight)
    texts = transcribe(recogniser, corpus, options, config.decoding.batch_size, device)
    seconds = time.perf_counter() - start

    if args.split is None:
        by_path = dict(zip(corpus.paths, texts, strict=True))
        rows = [(index, by_path.get(path, "")) for index, path in enumerate(partition.features)]
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
        result = score(corpus.texts, texts)
        summary = f"distance {result.distance:.3f}, CER {result.cer:.2%}, WER {result.wer:.2%}, ".replace("%", " %")
    say(f"{split}: {len(corpus)} utterances, {summary}{seconds:.1f} s ({options})")


if __name__ == "__main__":
    run_command(main)
