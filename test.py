"""Decodes a partition with a trained model: scores it where there are transcripts, writes the submission.

python test.py                                   # data.test with runs/NAME/best.pt -> submission.csv
python test.py --split dev-clean                 # any partition with transcripts: its distance
python test.py --checkpoint a.pt b.pt            # several models as one ensemble
torchrun --nproc_per_node=8 test.py              # on eight GPUs
"""

import argparse
import time
from pathlib import Path

import Levenshtein
import pandas as pd
import torch

from config import TUNED, Config, command_parser, parse_decoding_arguments
from dataset import load_corpus
from decoding.kept import KeptTexts
from decoding.language_model import load_language_model
from decoding.recogniser import Recogniser
from decoding.transcribe import DecodingOptions, transcribe
from utils.checkpoint import load_models
from utils.corpus import find_partition
from utils.device import choose_device
from utils.distributed import Team, assemble
from utils.errors import UserError, run_command
from utils.files import replacing
from utils.logs import make_logger, silence
from utils.metrics import score


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Unix line ends on every system; an empty text is an empty field; names are the bytes that they are on disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            table.to_csv(beside, index=False, lineterminator="\n", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def decode(args: argparse.Namespace, config: Config, paths: list[Path], device: torch.device, team: Team) -> None:
    """What this process's share of the work is; the leader writes the results."""
    folder, say, weights = config.run.path, make_logger().info if team.leads else silence, config.decoding
    options = DecodingOptions(weights.mode, weights.beam_size, weights.rank, weights.length_reward)
    if (folder / TUNED).exists():
        say(f"decoding weights: {folder / TUNED}")

    models, feature_format = load_models(paths, say)
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
    language_model = load_language_model(folder / "lm.pt").to(device) if weights.lm_weight else None
    models = [model.to(device) for model in models]
    recogniser = Recogniser(models, weights.ctc_weight, language_model, weights.lm_weight)
    files = [(str(path.resolve()), path.stat().st_mtime_ns) for path in paths]
    kept = KeptTexts(folder, split, repr((weights, files, corpus.format)), args.resume, team, say)
    texts = transcribe(recogniser, corpus, options, device, team, kept)
    seconds = time.perf_counter() - start
    if not team.leads:
        return

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
    kept.finish()
    say(f"{split}: {len(corpus)} utterances, {summary}{seconds:.1f} s ({options})")


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--split", metavar="NAME", help="partition to decode (default: data.test, for the submission)")
    parser.add_argument("--resume", action="store_true", help="go on with a decoding that was killed")
    args, config, paths = parse_decoding_arguments(parser)
    device = choose_device(config.training.device)
    with assemble(device) as team:
        decode(args, config, paths, device, team)


if __name__ == "__main__":
    run_command(main)
