"""A trained model as a Python object that transcribes recordings; `test.py --audio` uses it.

from decoding.transcriber import load
recording = load("runs/demo").transcribe("talk.wav")
recording.text                                   # THE WHOLE TEXT
recording.words[0]                               # Word(text='THE', start=0.31, end=0.44, ...)
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from config import DEFAULTS, TRAINED, TUNED, load_config
from decoding.language_model import load_language_model
from decoding.recogniser import Recogniser
from decoding.recordings import Recording, transcribe_recordings
from decoding.transcribe import DecodingOptions
from utils.checkpoint import LoadedModels, load_models
from utils.device import choose_device, choose_precision
from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import UserError

NO_FEATURE_CONFIG = """{}: how features are computed from speech is not known to this checkpoint, so it cannot
transcribe recordings. Expected one that was trained on a corpus made by python -m corpora.librispeech, corpora.folder
or corpora.demo, whose features.json goes into the checkpoint. The competition's features come without one."""

logger = logging.getLogger(f"las.{__name__}")


class Transcriber:
    """Transcribes recordings with one model or an ensemble.

    Args:
        checkpoints: of the models.
        search: values of the keys of `decoding`, by name.
        language_model: its file; read where `search` gives it a weight.
        device: to decode on.
        precision: auto, float32, bf16, fp16.

    Raises:
        UserError: a file cannot be used, or the models do not know how their features are computed.
    """

    def __init__(
        self,
        checkpoints: Sequence[Path],
        search: Mapping[str, Any],
        language_model: Path,
        device: torch.device,
        precision: str = "auto",
    ):
        self.loaded = load_models(checkpoints)
        if self.loaded.feature_config is None:
            raise UserError(NO_FEATURE_CONFIG.format(", ".join(map(str, checkpoints))))
        self.feature_config = self.loaded.feature_config
        self.device, precision = device, choose_precision(precision, device)
        self.recogniser, self.options = make_recogniser(self.loaded, search, language_model, device, precision)

    def transcribe(self, path: str | Path) -> Recording:
        """A recording's text and words; see `transcribe_all`."""
        return self.transcribe_all([path])[0]

    def transcribe_all(
        self, paths: Sequence[str | Path], context: DistributedContext = SINGLE_PROCESS
    ) -> list[Recording]:
        """The texts of sound files of any format, rate and length, with the time of each word.

        Args:
            paths: of the files.
            context: ranks that share the work.

        Raises:
            UserError: names all the files that cannot be read.
        """
        files = list(map(Path, paths))
        return transcribe_recordings(self.recogniser, files, self.loaded, self.options, self.device, context)


def load(*sources: str | Path, device: str = "auto", **search: Any) -> Transcriber:
    """The model of a run, ready to transcribe, with the settings that the run was trained and tuned with.

    Args:
        sources: the folder of a run, for its best.pt, or a checkpoint; several make an ensemble, with the settings of
            the first.
        device: auto, cpu, cuda, mps.
        search: keys of `decoding` to be set otherwise: `beam_size=16`, `mode="greedy"`.

    Raises:
        UserError: there is no such run, or it cannot be used.
    """
    if not sources:
        raise UserError("load: found nothing to load, expected the folder of a run or a checkpoint")
    checkpoints = [path / "best.pt" if path.is_dir() else path for path in map(Path, sources)]
    folder = checkpoints[0].absolute().parent
    overrides = [f"decoding.{key}={value}" for key, value in search.items()]
    config = load_config(DEFAULTS, overrides, folder / TUNED, folder / TRAINED)
    return Transcriber(checkpoints, config.decoding.model_dump(), folder / "lm.pt", choose_device(device, "device"))


def make_recogniser(
    loaded: LoadedModels,
    search: Mapping[str, Any],
    language_model: Path,
    device: torch.device,
    precision: str,
    allow_blank: bool = True,
) -> tuple[Recogniser, DecodingOptions]:
    """The models with their language model, if one is wanted, and how to search with them.

    Args:
        loaded: the models.
        search: values of the keys of `decoding`, by name.
        language_model: its file; read where `search` gives it a weight.
        device: to decode on.
        precision: float32, bf16 or fp16.
        allow_blank: see `DecodingOptions`.
    """
    options = DecodingOptions(search["mode"], search["beam_size"], search["rank"], search["length_reward"], allow_blank)
    shares = f"weights: CTC {search['ctc_weight']:g}, language model {search['lm_weight']:g}"
    logger.info(f"{options}, {shares}, length {search['length_reward']:g}")
    lm = load_language_model(language_model, loaded.vocabulary).to(device) if search["lm_weight"] else None
    models = [model.to(device) for model in loaded.models]
    return Recogniser(models, search["ctc_weight"], lm, search["lm_weight"], precision), options
