"""Makes a corpus in the Kaggle layout from a tree of audio in the layout of LibriSpeech.

    python -m corpora.librispeech AUDIO/LibriSpeech data/librispeech
    python -m corpora.librispeech AUDIO data/librispeech --download train-clean-100 dev-clean

Each folder of AUDIO that holds `SPEAKER-CHAPTER.trans.txt` files somewhere below becomes a partition of the same name:
`OUT/train-clean-100/{mfcc,transcripts}/*.npy`. Audio is whatever libsndfile reads (flac, wav, mp3, ogg), at any rate.
What is there already is not made again, so an interrupted run goes on where it stopped.
"""

from utils.cli import prepare_command, run_command

if __name__ == "__main__":  # before torch is imported
    prepare_command()

from pathlib import Path

from corpora.audio import AUDIO
from corpora.common import Found, Utterance, make_corpus, maker_parser, parse_maker_arguments
from corpora.download import CHECKSUMS, download
from utils.errors import UserError
from utils.files import is_leftover, read_lines


def find_utterances(folder: Path) -> Found:
    """The utterances of a partition: every line of the transcript files below `folder`, with its audio."""
    utterances, findings = [], []
    for transcripts in _transcripts_below(folder):
        audio: dict[str, Path] = {}
        for path in sorted(transcripts.parent.iterdir()):
            if is_leftover(path.name) or path.suffix.lower() not in AUDIO:
                continue
            if path.stem in audio:
                findings.append(f"{path}: found {audio[path.stem].name} beside it, expected one recording of that name")
            audio.setdefault(path.stem, path)
        try:
            lines = read_lines(transcripts)
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


def _transcripts_below(folder: Path) -> list[Path]:
    """The transcript files below a folder, sorted, without what systems leave behind."""
    found = sorted(folder.rglob("*.trans.txt"))
    return [path for path in found if not any(map(is_leftover, path.relative_to(folder).parts))]


def find_partitions(audio: Path) -> list[Found]:
    """The partitions in a folder of LibriSpeech's layout.

    Raises:
        UserError: there are none, or `audio` is above or below the folder that holds them.
    """
    if not audio.is_dir():
        raise UserError(f"{audio}: found no such folder, expected a tree of audio in LibriSpeech's layout")
    folders = sorted(path for path in audio.iterdir() if path.is_dir() and not is_leftover(path.name))
    transcripts = {folder: below for folder in folders if (below := _transcripts_below(folder))}
    if not transcripts:
        raise UserError(f"{audio}: found no PARTITION/SPEAKER/CHAPTER/*.trans.txt, expected LibriSpeech's layout")
    for path in (path for below in transcripts.values() for path in below):
        fitting = _folder_of_partitions(path.resolve())
        if fitting is not None and fitting != audio.resolve():
            raise UserError(
                f"{audio}: found {path}, expected PARTITION/SPEAKER/CHAPTER/*.trans.txt in it; this folder fits: "
                f"{fitting}"
            )
    return [find_utterances(folder) for folder in transcripts]


def _folder_of_partitions(transcripts: Path) -> Path | None:
    """What holds PARTITION/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt; None where the folders are not named so."""
    chapter, speaker = transcripts.parent, transcripts.parent.parent
    return speaker.parent.parent if transcripts.name == f"{speaker.name}-{chapter.name}.trans.txt" else None


def main() -> None:
    parser = maker_parser("corpora.librispeech", __doc__)
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
    make_corpus(find_partitions(args.audio), args.out, feature_config, args.jobs, args.skip_bad, args.vocabulary)


if __name__ == "__main__":
    run_command(main)
