"""Texts decoded so far, in files that a killed decoding leaves behind for the next one to go on from."""

import json
from collections.abc import Callable
from pathlib import Path

from utils.distributed import Team


class KeptTexts:
    """By name of the utterance. Each process appends to a file of its own; together they know all texts.

    key: says what they were decoded with; texts of another key are not used.   resume: False starts over.
    """

    def __init__(self, folder: Path, split: str, key: str, resume: bool, team: Team, say: Callable[[str], None]):
        self.texts: dict[str, str] = {}
        self._pattern, self._folder, self._team = f"decoding-{split}-*.jsonl", folder, team
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(self._pattern)) if resume else ():
            self._read(path, key)
        team.gather(None)  # all have read before the first one writes
        if team.leads and not self.texts:
            self._remove()
        team.gather(None)
        self._path = folder / self._pattern.replace("*", str(team.rank))
        if not self._path.exists():
            self._path.write_text(json.dumps(key) + "\n", encoding="utf-8")
        if resume:
            found = f"{len(self.texts)} utterances are decoded already"
            say(found if self.texts else "nothing to resume: starting over")

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
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(texts) + "\n")  # the line before may have been cut off

    def finish(self) -> None:
        """What they were kept for is written: they go."""
        if self._team.leads:
            self._remove()

    def _remove(self) -> None:
        for path in self._folder.glob(self._pattern):
            path.unlink()
