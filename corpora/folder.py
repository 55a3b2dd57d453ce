"""Makes a partition in the Kaggle layout from a folder of audio and a table of what is said in it.

    python -m corpora.folder AUDIO table.tsv data/mine --name train

The table has one line per utterance: the audio's path inside AUDIO, a tab, its text. Audio is whatever libsndfile reads
(flac, wav, mp3, ogg), at any rate. Texts become upper case; accents, and what is neither a letter nor an apostrophe,
are left out, so write numbers as words. What is there already is not made again.
"""

import logging
import re
from pathlib import Path

from corpora.common import Found, Utterance, make_corpus, maker_parser, parse_maker_arguments
from utils.cli import run_command
from utils.errors import UserError
from utils.files import NAME_RULE, is_leftover, is_name, read_lines

logger = logging.getLogger(f"las.{__name__}")


def find_utterances(audio: Path, table: Path, name: str) -> Found:
    """The utterances of a partition: every line of `table`, with its audio.

    Raises:
        UserError: the table or the folder cannot be read, or no line can be used.
    """
    if not audio.is_dir():
        raise UserError(f"{audio}: found no such folder, expected one of audio")
    try:
        lines = read_lines(table)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{table}: cannot be read ({error}), expected text in UTF-8: a path, a tab, what is said"
        ) from None
    utterances, findings, leftovers = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        source = f"{table}:{number}"
        path, _, text = (part.strip() for part in line.partition("\t"))
        if not (path and text) or "\t" in text:
            findings.append(f"{source}: found {line!r}, expected a path, a tab and a text")
        elif any(map(is_leftover, Path(path).parts[-1:])):
            leftovers.append(source)
        elif not _is_file(audio / path):
            swapped = "; the columns are swapped" if _is_file(audio / text) else ""
            findings.append(f"{source}: found no file {audio / path[:200]}, expected the audio of {text!r}{swapped}")
        else:
            inside = Path(path).with_suffix("").parts
            id = re.sub(r"[^\w.+-]", "_", "-".join(part for part in inside if part not in ("..", "/")))
            utterances.append(Utterance(id, audio / path, text, source))
    if leftovers:
        logger.info(f"{table}: {len(leftovers)} lines name files that a system left behind, such as {leftovers[0]}")
    if not utterances:
        more = "".join(f"\n  {finding}" for finding in findings[:5])
        raise UserError(f"{table}: found no utterance, expected a line for each: a path, a tab, what is said{more}")
    return Found(name, utterances, findings)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text in the place of a path: too long, or with a NUL
        return False


def main() -> None:
    parser = maker_parser(__doc__)
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="folder of audio")
    parser.add_argument("table", type=Path, metavar="TABLE.tsv", help="lines of a path inside AUDIO, a tab, a text")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make the corpus in")
    parser.add_argument("--name", required=True, metavar="PARTITION", help="what to call it: train, dev, test")
    args, feature_config = parse_maker_arguments(parser)
    if not is_name(args.name):
        raise UserError(f"--name: found {args.name[:80]!r}, expected {NAME_RULE}, such as train or dev")
    found = find_utterances(args.audio, args.table, args.name)
    make_corpus([found], args.out, feature_config, args.jobs, args.skip_bad)


if __name__ == "__main__":
    run_command(main)
