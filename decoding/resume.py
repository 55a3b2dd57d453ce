"""Texts decoded so far, in files that a killed decoding leaves behind for the next one to go on from."""

import json
import logging
from pathlib import Path

from utils.distributed import DistributedContext

logger = logging.getLogger(f"las.{__name__}")


class PartialResults:
    """Texts by name of the utterance, kept until all of them are there.

    Each rank appends what it decodes to a file of its own; a decoding that resumes reads the files of all ranks.

    Args:
        folder: of the run.
        split: the partition that is decoded.
        key: everything that the texts depend on; texts kept under another key are not used.
        resume: whether to use what a killed decoding left; False starts over.
        context: ranks that share the utterances.

    Attributes:
        texts: those found, by name of the utterance.
    """

    def __init__(self, folder: Path, split: str, key: str, resume: bool, context: DistributedContext):
        self.texts: dict[str, str] = {}
        self._pattern, self._folder, self._context = f"decoding-{split}-*.jsonl", folder, context
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(self._pattern)) if resume else ():
            self._read(path, key)
        context.all_gather(None)  # all have read before the first one writes
        if context.is_main and not self.texts:
            self._remove()
        context.all_gather(None)
        self._path = folder / self._pattern.replace("*", str(context.rank))
        if not self._path.exists():
            self._path.write_text(json.dumps(key) + "\n", encoding="utf-8")
        if resume:
            found = f"{len(self.texts)} utterances are decoded already"
            logger.info(found if self.texts else "nothing to resume: starting over")

    def _read(self, path: Path, key: str) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines or lines[0] != json.dumps(key):
            return
        for line in filter(None, lines[1:]):
            try:
                self.texts |= json.loads(line)
            except ValueError:  # it was being written when the process was killed
                continue

    def add(self, texts: dict[str, str]) -> None:
        """Keeps the texts of a batch, by name of the utterance."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(texts) + "\n")  # the line before may have been cut off

    def remove(self) -> None:
        """Removes the files; to be called once the results are written."""
        if self._context.is_main:
            self._remove()

    def _remove(self) -> None:
        for path in self._folder.glob(self._pattern):
            path.unlink()
