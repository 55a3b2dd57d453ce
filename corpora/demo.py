"""Makes a corpus of synthetic speech in the Kaggle layout, so that everything can be tried without any data.

    python -m corpora.demo data/demo
    python -m corpora.demo data/demo-ko --language ko        # or de, hi

The eSpeak NG synthesiser (inside the `espeakng-loader` wheel, called in-process) reads sentences of a small grammar in
many voices, rates and pitches; features are the competition's (28 log mel bands, 25 ms windows, 10 ms hop). Voices and
sentences of `dev` and `test` are not in `train`. It is for trying the program out: results on it say nothing about
real speech.
"""

from utils.cli import prepare_command, run_command

if __name__ == "__main__":  # before torch is imported
    prepare_command()

import argparse
import ctypes
import functools
import json
import logging
import os
import random
import shlex
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from corpora.audio import features_of, resample
from corpora.grammar import GRAMMARS, make_sentences
from utils.errors import UserError
from utils.features import FeatureConfig, write_feature_config
from utils.locking import sole_writer
from utils.vocabulary import as_it_is

SIZES = {"train": 1600, "dev": 100, "test": 100}
SMALLEST = 16
SEED = 11785
FEATURES = FeatureConfig()  # the competition's

logger = logging.getLogger(f"las.{__name__}")

# fmt: off
VOICES = {  # eSpeak NG's voice variants: each is a speaker
    "train": [
        "adam", "Alex", "Alicia", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david",
        "Denis", "Diogo", "ed", "edward", "f1", "f2", "f4", "Gene", "grandma", "grandpa", "gustave", "Henrique",
        "Hugo", "ian", "iven", "john", "klatt", "klatt2", "klatt4", "Lee", "linda", "m1", "m2", "m4", "m5", "m7",
        "marcelo", "Marco", "max", "Michael", "michel", "miguel", "Mike", "norbert", "pablo", "paul", "pedro",
        "quincy", "rob", "sandro", "steph", "travis", "zac",
    ],
    "dev": [
        "f3", "m3", "robert", "steph2", "victor", "Annie", "Mario", "m8",
    ],
    "test": [
        "f5", "m6", "shelby", "Andrea", "steph3", "Gene2", "Jacky", "iven3",
    ],
}
# fmt: on


@functools.cache  # one to a process: the library keeps its state, and its callback, in globals
class Synthesiser:
    """eSpeak NG through ctypes."""

    SYNCHRONOUS, UTF8 = 1, 1  # constants of speak_lib.h
    RATE, PITCH, RANGE = 1, 3, 4

    def __init__(self):
        try:
            import espeakng_loader

            self.library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = os.fsencode(Path(espeakng_loader.get_data_path()).parent)
        except (ImportError, OSError) as error:
            raise UserError(f"the demo's voice cannot be loaded ({error}): pip install -r requirements.txt") from None
        self.sample_rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, data, 0)
        if self.sample_rate <= 0:
            raise UserError(f"eSpeak NG did not start with its data in {os.fsdecode(data)}; reinstall espeakng-loader")
        self._chunks: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._receive)  # kept: the library holds only its address
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Synthesises a sentence.

        Args:
            text: of the sentence.
            voice: name of an eSpeak NG voice.
            rate: words per minute.
            pitch: 0 to 99.
            pitch_range: 0 to 99.

        Returns:
            Mono samples `(N,)` in -1..1 at `sample_rate`.
        """
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice {voice!r}: the version in requirements.txt has")
        for parameter, value in ((self.RATE, rate), (self.PITCH, pitch), (self.RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        encoded = text.encode()
        self.library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, self.UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self._chunks).astype(np.float32) / 32768


def make_corpus(root: Path, sizes: dict[str, int] = SIZES, seed: int = SEED, language: str = "en") -> None:
    """Writes partitions `train`, `dev` and `test` under `root`, in the layout of F23; nothing if they are there."""
    root.mkdir(parents=True, exist_ok=True)
    with sole_writer(root, "making"):
        _make_corpus(root, sizes, seed, language)
    if language != "en":
        keys = f"data.root={shlex.quote(str(root))} data.vocabulary=auto run.name=demo-{language}"
        logger.info(
            f"texts are as people write them: to train on them, data.vocabulary=auto takes their characters\n"
            f"python train.py --config configs/demo.yaml {keys}"
        )


def _make_corpus(root: Path, sizes: dict[str, int], seed: int, language: str) -> None:
    made, grammar = root / "made.json", GRAMMARS[language]
    recipe = {"seed": seed, "sizes": sizes, **({} if language == "en" else {"language": language})}
    write_feature_config(root, FEATURES)
    if made.exists() and json.loads(made.read_text(encoding="utf-8")) == recipe:
        logger.info(f"{root}: the synthetic corpus is there already")
        return
    generator, synthesiser = random.Random(seed), Synthesiser()
    seen: set[str] = set()
    for name, size in sizes.items():
        folders = root / name / "mfcc", root / name / "transcripts"
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        voices = VOICES[name]
        for number, sentence in enumerate(
            tqdm(make_sentences(size, generator, seen, grammar), f"speaking {name}", leave=False, disable=None)
        ):
            speaker = number % len(voices)
            voice = f"{generator.choice(grammar.voices)}+{voices[speaker]}"
            speech = synthesiser.speak(
                sentence, voice, generator.randint(110, 165), generator.randint(35, 65), generator.randint(30, 70)
            )
            features = features_of(resample(speech, synthesiser.sample_rate, FEATURES.sample_rate), FEATURES)
            tokens = np.array(["<sos>", *(sentence.upper() if language == "en" else as_it_is(sentence)), "<eos>"])
            file = f"{list(VOICES).index(name) * 100 + speaker:03d}-{number:05d}.npy"
            for folder, array in zip(folders, (features, tokens), strict=True):
                np.save(folder / file, array)
    made.write_text(json.dumps(recipe), encoding="utf-8")
    logger.info(
        f"{root}: synthetic speech, {', '.join(f'{size} utterances for {name}' for name, size in sizes.items())}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m corpora.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="OUT", help="folder to make the corpus in: data/demo")
    parser.add_argument(
        "--utterances",
        type=int,
        default=SIZES["train"],
        metavar="N",
        help="for training, 16 at least; dev and test have a sixteenth of it each (default: %(default)s)",
    )
    parser.add_argument("--language", choices=GRAMMARS, default="en", help="of the sentences (default: %(default)s)")
    arguments = parser.parse_args()
    N = arguments.utterances
    if N < SMALLEST:
        raise UserError(f"--utterances: found {N}, expected at least {SMALLEST}")
    make_corpus(arguments.root, {"train": N, "dev": N // 16, "test": N // 16}, language=arguments.language)


if __name__ == "__main__":
    run_command(main)
