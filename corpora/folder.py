"""Makes a partition in the Kaggle layout from a folder of audio and a table of what is said in it.

    python -m corpora.folder AUDIO table.tsv data/mine --name train
    python -m corpora.folder AUDIO table.tsv data/mine --name train --dev-share 0.1      # and dev, from the same table
    python -m corpora.folder AUDIO table.tsv data/mine --name train --speakers folder    # dev has other speakers

The table has one line per utterance: the audio's path inside AUDIO, a tab, its text. A header, commas, columns in
another order, UTF-16 and cp949 are recognised. Audio is whatever libsndfile reads (flac, wav, mp3, ogg), at any rate.
Texts become upper case and lose their punctuation. A text with a letter, digit or symbol that the vocabulary cannot
hold is refused by its line, so write numbers as words; with --vocabulary auto, for other languages, texts stay as they
are. What is there already is not made again.
"""

from utils.cli import prepare_command, run_command

if __name__ == "__main__":  # before torch is imported
    prepare_command()

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from corpora.common import Found, Utterance, make_corpus, maker_parser, parse_maker_arguments
from corpora.tables import read_table
from utils.errors import UserError
from utils.files import NAME_RULE, is_leftover, is_name

DEV = "dev"  # the second partition of a table that is split
RULES = ("folder", "prefix")  # that tell a speaker from the path of a recording

logger = logging.getLogger(f"las.{__name__}")


def find_utterances(audio: Path, table: Path, name: str) -> Found:
    """The utterances of a partition: every line of `table`, with its audio; see `find_partitions`."""
    return find_partitions(audio, table, name)[0]


def find_partitions(
    audio: Path, table: Path, name: str, speakers: str | None = None, dev_share: float | None = None
) -> list[Found]:
    """The utterances of one partition, or of two: every line of `table`, with its audio.

    Args:
        audio: folder of the recordings.
        table: what is said in them.
        name: of the partition.
        speakers: what tells the speaker: a column of the table by name or number, or one of RULES.
        dev_share: of the utterances for a second partition, dev; None: there is none.

    Raises:
        UserError: the table or the folder cannot be read, no line can be used, or there is nothing to split.
    """
    column = None if speakers in RULES else speakers
    if not audio.is_dir():
        raise UserError(f"{audio}: found no such folder, expected one of audio")
    lines, problems = read_table(table, lambda cell: _find(audio, cell) is not None, column)
    utterances, spoken_by, leftovers = [], [], []
    for number, path, text, speaker in lines:
        source, recording = f"{table}:{number}", _find(audio, path)
        path = unicodedata.normalize("NFC", path.replace("\\", "/"))
        if any(map(is_leftover, Path(path).parts[-1:])):
            leftovers.append(source)
        elif recording is None:
            swapped = "; the columns are swapped" if _find(audio, text) else ""
            problems[number] = f"{source}: found no file {audio / path[:200]}, expected the audio of {text!r}{swapped}"
        elif speakers == "folder" and "/" not in path:
            problems[number] = f"{source}: found no folder in {path}, expected that of its speaker (--speakers folder)"
        else:
            inside = Path(path).with_suffix("").parts
            id = re.sub(r"[^\w.+-]", "_", "-".join(part for part in inside if part not in ("..", "/")))
            utterances.append(Utterance(id, recording, text, source))
            spoken_by.append(speaker if column else speaker_of(path, speakers))
    findings = [finding for _, finding in sorted(problems.items())]
    if leftovers:
        logger.info(f"{table}: {len(leftovers)} lines name files that a system left behind, such as {leftovers[0]}")
    if not utterances:
        more = "".join(f"\n  {finding}" for finding in findings[:5])
        raise UserError(f"{table}: found no utterance, expected a line for each: a path, a tab, what is said{more}")
    if dev_share is None:
        return [Found(name, utterances, findings)]
    ids, first = [utterance.id for utterance in utterances], dict[str, str]()
    spoken_by = [first.setdefault(id, speaker) for id, speaker in zip(ids, spoken_by, strict=True)]  # none is in both
    in_dev = choose_dev(ids, spoken_by if speakers else None, dev_share)
    partitions = [list(compress(utterances, map(chosen.__eq__, in_dev))) for chosen in (False, True)]
    dev_speakers = sorted({speaker for speaker, chosen in zip(spoken_by, in_dev, strict=True) if chosen})
    others = len(set(spoken_by)) - len(dev_speakers)
    s = "" if len(dev_speakers) == 1 else "s"
    told = f"of {len(dev_speakers)} speaker{s} ({', '.join(dev_speakers[:10])}), {name} of {others} others"
    told = told if speakers else f"drawn at random, speakers of {name} among them: --speakers keeps them apart"
    logger.info(f"{DEV}: {len(partitions[1])} of {len(utterances)} utterances, {told}")
    return [Found(name, partitions[0], findings), Found(DEV, partitions[1], [])]


def speaker_of(path: str, rule: str | None) -> str:
    """The speaker of a recording by its path: the first folder in it, or its name up to the first - or _."""
    if rule is None:
        return ""
    return Path(path).parts[0] if rule == "folder" else re.split("[-_]", Path(path).stem)[0]


def choose_dev(ids: Sequence[str], speakers: Sequence[str] | None, share: float) -> list[bool]:
    """Which utterances become dev: the same ones every time, and, as a table grows, mostly those of before.

    Args:
        ids: of the utterances.
        speakers: of each of them: one speaker is in dev with all utterances or not at all; None: any utterance may be.
        share: of the utterances that dev has, at least.

    Raises:
        UserError: there are too few to have some in both.
    """
    groups = list(ids) if speakers is None else list(speakers)
    sizes = Counter(groups)
    if len(sizes) < 2:
        what = "utterance" if speakers is None else f"speaker ({', '.join(sizes)})"
        flag = "--dev-share" if speakers is None else "--speakers"
        raise UserError(f"{flag}: found {len(sizes)} {what}, expected two or more, for two partitions")
    chosen: set[str] = set()
    for group in sorted(sizes, key=lambda group: hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()):
        if len(chosen) + 1 < len(sizes) and sum(sizes[one] for one in chosen) < share * len(groups):
            chosen.add(group)
    return [group in chosen for group in groups]


def _find(audio: Path, cell: str) -> Path | None:
    """The recording that a cell names: macOS decomposes names, Windows writes backslashes between folders."""
    names = dict.fromkeys((cell, *(unicodedata.normalize(form, cell.replace("\\", "/")) for form in ("NFC", "NFD"))))
    return next((audio / name for name in names if _is_file(audio / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text in the place of a path: too long, or with a NUL
        return False


def main() -> None:
    parser = maker_parser("corpora.folder", __doc__)
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="folder of audio")
    parser.add_argument("table", type=Path, metavar="TABLE.tsv", help="lines of a path inside AUDIO, a tab, a text")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make the corpus in")
    parser.add_argument("--name", required=True, metavar="PARTITION", help="what to call it: train, dev, test")
    parser.add_argument(
        "--dev-share", type=float, metavar="SHARE", help="make dev as well, of that share of the utterances: 0.1"
    )
    parser.add_argument(
        "--speakers",
        metavar="COLUMN",
        help="dev has other speakers than train: column that tells them (its name, or number from 1), or folder (first "
        "folder of the path), or prefix (file name up to its first - or _)",
    )
    args, feature_config = parse_maker_arguments(parser)
    if not is_name(args.name):
        raise UserError(f"--name: found {args.name[:80]!r}, expected {NAME_RULE}, such as train or dev")
    dev_share = 0.1 if args.speakers and args.dev_share is None else args.dev_share
    if dev_share is not None and not 0 < dev_share < 1:
        raise UserError(f"--dev-share: found {dev_share:g}, expected a share between 0 and 1, such as 0.1")
    if dev_share is not None and args.name.lower() == DEV:
        raise UserError(f"--name: found {args.name}, expected another name, such as train, where {DEV} is made as well")
    found = find_partitions(args.audio, args.table, args.name, args.speakers, dev_share)
    make_corpus(found, args.out, feature_config, args.jobs, args.skip_bad, args.vocabulary)


if __name__ == "__main__":
    run_command(main)
