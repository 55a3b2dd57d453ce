"""Makes a corpus in the Kaggle layout from a tree of audio in the layout of LibriSpeech.

    python -m corpora.librispeech AUDIO/LibriSpeech data/librispeech

Each folder of AUDIO that holds `SPEAKER-CHAPTER.trans.txt` files somewhere below becomes a partition of the same name:
`OUT/train-clean-100/{mfcc,transcripts}/*.npy`. Audio is whatever libsndfile reads (flac, wav, mp3, ogg), at any rate.
What is there already is not made again, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from corpora.features import HOP, MEL_BANDS, SAMPLE_RATE, WINDOW, log_mel
from utils.errors import UserError, run_command
from utils.files import replacing

AUDIO = (".flac", ".wav", ".mp3", ".ogg")


class Utterance(NamedTuple):
    id: str
    audio: Path
    text: str


def find_utterances(folder: Path) -> tuple[list[Utterance], list[str]]:
    """Every line of the transcript files below `folder` with its audio, and what is wrong with the others."""
    utterances, findings = [], []
    for transcripts in sorted(folder.rglob("*.trans.txt")):
        audio = {path.stem: path for path in transcripts.parent.iterdir() if path.suffix.lower() in AUDIO}
        for number, line in enumerate(transcripts.read_text(encoding="utf-8").splitlines(), 1):
            name, _, text = line.partition(" ")
            if not text.strip():
                findings.append(f"{transcripts}:{number}: found {line!r}, expected an utterance's id and its text")
            elif name not in audio:
                findings.append(f"{transcripts}:{number}: found no audio for {name}, expected {name}{'|'.join(AUDIO)}")
            else:
                utterances.append(Utterance(name, audio.pop(name), " ".join(text.upper().split())))
        findings += [f"{path}: found no transcript, expected a line in {transcripts}" for path in audio.values()]
    return utterances, findings


def make_partition(audio: Path, out: Path, bands: int, highest: float, jobs: int) -> tuple[int, list[str]]:
    """Features and transcripts of the utterances below `audio`, into `out`. How many there are now; what went wrong."""
    utterances, findings = find_utterances(audio)
    for kind in ("mfcc", "transcripts"):
        (out / kind).mkdir(parents=True, exist_ok=True)

    def make(utterance: Utterance) -> str | None:
        features, transcript = (out / kind / f"{utterance.id}.npy" for kind in ("mfcc", "transcripts"))
        if features.exists() and transcript.exists():
            return None
        try:
            speech, sample_rate = soundfile.read(utterance.audio, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            return f"{utterance.audio}: cannot be read ({error})"
        if len(speech) * SAMPLE_RATE < WINDOW * sample_rate:
            return f"{utterance.audio}: found {len(speech)} samples, expected 25 ms of speech or more"
        _save(features, log_mel(speech.mean(axis=1), sample_rate, bands, highest))
        _save(transcript, np.array(["<sos>", *utterance.text, "<eos>"]))
        return None

    with ThreadPoolExecutor(jobs) as pool:
        made = tqdm(pool.map(make, utterances), f"making {out.name}", len(utterances), unit="utt", disable=None)
        problems = [problem for problem in made if problem]
    return len(utterances) - len(problems), findings + problems


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as beside, beside.open("wb") as file:  # an open file: np.save adds .npy to a name
        np.save(file, array)


def make_corpus(audio: Path, out: Path, bands: int, highest: float, jobs: int, skip_bad: bool) -> None:
    """Raises UserError where nothing is found, `out` holds features of another kind, or files are bad."""
    if not audio.is_dir():
        raise UserError(f"{audio}: found no such folder, expected a tree of audio in LibriSpeech's layout")
    partitions = sorted(path for path in audio.iterdir() if path.is_dir() and next(path.rglob("*.trans.txt"), None))
    if not partitions:
        raise UserError(f"{audio}: found no PARTITION/SPEAKER/CHAPTER/*.trans.txt, expected LibriSpeech's layout")
    recipe = {"kind": "log mel", "bands": bands, "highest": highest, "rate": SAMPLE_RATE, "window": WINDOW, "hop": HOP}
    kept = out / "features.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != recipe:
        raise UserError(f"{kept}: found {kept.read_text()}, expected {json.dumps(recipe)}; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(recipe), encoding="utf-8")

    findings = []
    for partition in partitions:
        count, problems = make_partition(partition, out / partition.name, bands, highest, jobs)
        findings += problems
        print(f"{out / partition.name}: {count:,} utterances")
    if findings:
        report = "\n".join(f"  {finding}" for finding in findings)
        if not skip_bad:
            raise UserError(f"{report}\nMend these files and run this again, or go on without them: --skip-bad")
        print(f"{report}\nwent on without them (--skip-bad)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="folder of partitions, such as train-clean-100")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make the corpus in")
    parser.add_argument("--features", type=int, default=MEL_BANDS, help="mel bands (default: %(default)s)")
    parser.add_argument(
        "--highest", type=float, default=SAMPLE_RATE / 2, help="upper edge of the bands in Hz (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    parser.add_argument("--skip-bad", action="store_true", help="go on without what cannot be used")
    args = parser.parse_args()
    torch.set_num_threads(1)  # each of the jobs has a file of its own to work on
    make_corpus(args.audio, args.out, args.features, args.highest, args.jobs, args.skip_bad)


if __name__ == "__main__":
    run_command(main)
