"""Accuracy of a peer: SpeechBrain's CTC/attention model of about equal size, trained on the same batches as train.py.

    python -m benchmarks.peer --config configs/librispeech-mini.yaml training.max_minutes=90

Flags and keys are those of train.py, which is run with the same ones for comparison. Corpus, augmentation, batches,
objective, optimiser, schedule and the average of the weights are this project's; model, teacher forcing throughout and
beam search are SpeechBrain's. Guided attention and scheduled sampling it does without. What it trains is not kept.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import cast

import torch

from arguments import parse_training_arguments
from benchmarks.cli import print_table
from benchmarks.reference.speechbrain_las import SpeechBrainLAS, count_parameters, speechbrain_search, why_missing
from config import Config
from corpora.loading import load_labelled
from dataset import Batch, FeatureDataset, is_cepstral, make_loader
from decoding.greedy import ctc_greedy
from decoding.transcribe import fill_batches
from models.las import LAS, character_limit
from training.schedules import Schedules
from training.step import TrainStep
from utils.augment import Augmentation
from utils.cli import run_command
from utils.device import choose_device, choose_precision
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.metrics import Score, score
from utils.sampler import BucketSampler, wrap_seed
from utils.vocabulary import TextForm, make_vocabulary

CTC_WEIGHTS = (0.0, 0.3, 0.5)  # of SpeechBrain's beam search
Tokens = list[list[int]]  # of each utterance of a batch


class Peer:
    """SpeechBrain's model and its training.

    Args:
        config: as of train.py.
        device: to train on.

    Raises:
        UserError: the corpora cannot be used.
    """

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device, training = config, device, config.training
        self.train, self.dev = load_labelled(
            config.data.root,
            {"train": config.data.train, "dev": [config.data.dev]},
            config.data.normalize,
            vocabulary=make_vocabulary(config.data.vocabulary, TextForm(**config.data.text_form)),
            character_limit=character_limit(**config.model_kwargs),
            **config.loading_kwargs,
        )
        sizes = self.train.format.dim, len(self.train.vocabulary)
        torch.manual_seed(training.seed)
        self.ours = LAS(*sizes, **config.model_kwargs).parameter_count
        model = SpeechBrainLAS(*sizes, **config.model_kwargs, parameters=self.ours)
        self.parameters = count_parameters(model)
        self.sampler = BucketSampler(
            self.train.lengths,
            training.batch_size,
            training.seed,
            config.augment.speed,
            concatenate=config.augment.concatenate,
        )
        augmentation = Augmentation(training.seed, is_cepstral(self.train), **config.augment.utterance_kwargs)
        self.loader = make_loader(FeatureDataset(self.train, augmentation), self.sampler, config.data.workers, device)
        by_length = fill_batches(self.dev.lengths, training.batch_size * max(self.dev.lengths))
        self.dev_loader = make_loader(FeatureDataset(self.dev), by_length, 0, device)
        self.schedules = Schedules(**training.model_dump(include=set(Schedules.__annotations__)))
        self.step = TrainStep(
            cast(LAS, model.to(device)),  # it is called as ours is
            SINGLE_PROCESS,
            choose_precision(training.precision, device),
            self.train.paths,
            accumulate=training.accumulate,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            ctc_weight=training.ctc_weight,
            label_smoothing=training.label_smoothing,
            ema_steps=training.average_epochs * len(self.loader),
            ctc_only_warmup=training.ctc_epochs > 0,
        )

    def fit(self) -> None:
        """Trains for as many epochs or minutes as the configuration says, with a line per epoch."""
        history: list[dict[str, float]] = []
        while not self.schedules.finished(history):
            start, losses = time.perf_counter(), torch.zeros(3)
            self.sampler.epoch = epoch = len(history) + 1
            self.step.model.train()
            speak = self.schedules.of_epoch(epoch, history).train_speller
            for index, batch in enumerate(self.loader):
                torch.manual_seed(wrap_seed(self.config.training.seed * 1_000_003 + epoch * len(self.loader) + index))
                position = epoch - 1 + (index + 1) / len(self.loader)
                losses += self.step(
                    batch.to(self.device),
                    characters=batch.characters,
                    learning_rate=self.schedules.learning_rate_at(position, history),
                    teacher_forcing_rate=1.0,
                    guided_attention=0.0,
                    train_speller=speak,
                ).losses
                if self.schedules.time_is_over(history, time.perf_counter() - start):
                    break
            reached = self.measure(self._ctc_greedy)
            seconds = time.perf_counter() - start
            history.append({"seconds": seconds, "dev_distance": reached.distance, "dev_monotonicity": 0.0})
            _, attention, ctc = (losses / (index + 1)).tolist()
            print(
                f"epoch {epoch:3}: train loss {attention:.3f}, CTC {ctc:.3f}; dev by CTC alone: distance "
                f"{reached.distance:.2f}, CER {reached.cer:.1%}; {seconds:.0f} s",
                flush=True,
            )

    @torch.no_grad()
    def measure(self, decode: Callable[[Batch], Tokens]) -> Score:
        """Scores dev as `decode` spells each of its batches."""
        self.step.ema_model.eval()
        texts = dict[int, str]()
        for batch in self.dev_loader:
            spelled = map(self.dev.vocabulary.decode, decode(batch.to(self.device)))
            texts |= dict(zip(batch.indices.tolist(), spelled, strict=True))
        return score(self.dev.transcripts, [texts[index] for index in range(len(self.dev))])

    def _ctc_greedy(self, batch: Batch) -> Tokens:
        _, _, encoded = self.step.ema_model(batch.features, batch.feature_lengths, None)
        return ctc_greedy(encoded.ctc_log_probs, encoded.ctc_lengths)

    def _search(self, batch: Batch, ctc_weight: float) -> Tokens:
        model, beam_size = cast(SpeechBrainLAS, self.step.ema_model), self.config.decoding.beam_size
        return speechbrain_search(model, batch.features, batch.feature_lengths, beam_size, ctc_weight, steps=None)

    def print_scores(self) -> None:
        """Prints how dev is decoded, by the CTC branch alone and by SpeechBrain's beam search."""
        decoders: dict[str, Callable[[Batch], Tokens]] = {"CTC alone, greedy": self._ctc_greedy}
        for weight in CTC_WEIGHTS:
            decoders[f"beam {self.config.decoding.beam_size}, CTC {weight:g}"] = partial(
                self._search, ctc_weight=weight
            )
        rows = []
        for name, decode in decoders.items():
            start, reached = time.perf_counter(), self.measure(decode)
            percent = {"CER %": 100 * reached.cer, "WER %": 100 * reached.wer}
            seconds = time.perf_counter() - start
            rows.append({"decoding": name, "distance": reached.distance, **percent, "seconds": seconds})
        sizes = f"{self.parameters:,} parameters (ours: {self.ours:,})"
        print_table(f"{self.config.data.dev}: {len(self.dev)} utterances, SpeechBrain, {sizes}", rows)


def main() -> None:
    config = parse_training_arguments(__doc__).config
    if missing := why_missing():
        raise UserError(missing)
    peer = Peer(config, choose_device(config.training.device))
    peer.fit()
    peer.print_scores()


if __name__ == "__main__":
    run_command(main)
