"""Makes a corpus in the Kaggle layout from a tree of audio in the layout of LibriSpeech.

    python -m corpora.librispeech AUDIO/LibriSpeech data/librispeech
    python -m corpora.librispeech AUDIO data/librispeech --download train-clean-100 dev-clean

Each folder of AUDIO that holds `SPEAKER-CHAPTER.trans.txt` files somewhere below becomes a partition of the same name:
`OUT/train-clean-100/{mfcc,transcripts}/*.npy`. Audio is whatever libsndfile reads (flac, wav, mp3, ogg), at any rate.
What is there already is not made again, so an interrupted run goes on where it stopped.
"""

from pathlib import Path

from corpora.audio import AUDIO
from corpora.common import Found, Utterance, make_corpus, maker_parser, parse_maker_arguments
from corpora.download import CHECKSUMS, download
from utils.cli import run_command
from utils.errors import UserError


def find_utterances(folder: Path) -> Found:
    """The utterances of a partition: every line of the transcript files below `folder`, with its audio."""
    utterances, findings = [], []
    for transcripts in sorted(folder.rglob("*.trans.txt")):
        audio = {path.stem: path for path in transcripts.parent.iterdir() if path.suffix.lower() in AUDIO}
        try:
            lines = transcripts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            findings.append(f"{transcripts}: cannot be read ({error}), expected text in UTF-8")
            continue
        spoken = set()
        for number, line in enumerate(lines, 1):
            name, _, text = line.partition(" ")
            source = f"{transcripts}:{number}"
            spoken.add(name)
            if not text.strip():
                findings.append(f"{source}: found {line!r}, expected an utterance's id and its text")
            elif name not in audio:
                findings.append(f"{source}: found no audio for {name}, expected {name}{'|'.join(AUDIO)}")
            else:
                utterances.append(Utterance(name, audio[name], text, source))
        findings += [
            f"{path}: found no transcript, expected a line in {transcripts}"
            for name, path in sorted(audio.items())
            if name not in spoken
        ]
    return Found(folder.name, utterances, findings)


def find_partitions(audio: Path) -> list[Found]:
    """The partitions in a folder of LibriSpeech's layout.

    Raises:
        UserError: there are none.
    """
    if not audio.is_dir():
        raise UserError(f"{audio}: found no such folder, expected a tree of audio in LibriSpeech's layout")
    folders = sorted(path for path in audio.iterdir() if path.is_dir() and not path.name.startswith("."))
    folders = [folder for folder in folders if next(folder.rglob("*.trans.txt"), None)]
    if not folders:
        raise UserError(f"{audio}: found no PARTITION/SPEAKER/CHAPTER/*.trans.txt, expected LibriSpeech's layout")
    return [find_utterances(folder) for folder in folders]


def main() -> None:
    parser = maker_parser(__doc__)
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="folder of partitions, such as train-clean-100")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make the corpus in")
    parser.add_argument(
        "--download",
        nargs="+",
        default=[],
        choices=CHECKSUMS,
        metavar="PART",
        help=f"first fetch these parts of LibriSpeech into AUDIO: {', '.join(CHECKSUMS)}",
    )
    args, feature_config = parse_maker_arguments(parser)
    for part in args.download:
        download(part, args.audio)
    make_corpus(find_partitions(args.audio), args.out, feature_config, args.jobs, args.skip_bad)


if __name__ == "__main__":
    run_command(main)
