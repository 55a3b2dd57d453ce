"""Trains Listen, Attend and Spell; run again with the same run.name, it resumes.

python train.py                                          # with the settings of config.yaml
python train.py --config configs/demo.yaml               # another file's values over config.yaml's
python train.py run.name=small training.epochs=20        # single keys over both
torchrun --nproc_per_node=8 train.py                     # on eight GPUs; training.batch_size is what they share
"""

from arguments import parse_training_arguments
from config import Config
from utils.cli import GracefulShutdown, run_command

if __name__ == "__main__":  # before torch is imported: --help and a misspelt key answer at once
    ARGUMENTS = run_command(lambda: parse_training_arguments(__doc__))

import logging
import shlex
import time
from contextlib import nullcontext
from typing import NoReturn

import torch

from models.las import character_limit
from report.build import RunReport
from training.data import load_training_data
from training.evaluate import Evaluation, evaluate, utterances_to_show
from training.model import make_model
from training.progress import EpochProgress, EtaEstimator, describe_run, run_info
from training.recorder import LOG, Recorder, open_run_folder
from training.resume import (
    Checkpointer,
    check_same_data,
    check_same_run,
    describe_changes,
    load_last,
    vocabulary_to_train,
)
from training.schedules import Schedules
from training.step import TrainStep
from training.wandb_tracker import WandbTracker
from utils.checkpoint import describe_model, feature_config_of, load_checkpoint
from utils.device import choose_device, choose_precision, environment
from utils.distributed import DistributedContext, check_ranks_agree, init_distributed
from utils.errors import Interrupted
from utils.files import flatten, sweep_temporaries, taken_back
from utils.locking import sole_writer
from utils.sampler import wrap_seed
from utils.vocabulary import TextForm, make_vocabulary

OF_A_RANK = {"data.root", "data.workers", "training.device"}  # may differ where ranks are on several machines

logger = logging.getLogger(f"las.{__name__}")


class Trainer:
    """One run on one rank: its data, its model, and where it stands."""

    def __init__(self, config: Config, device: torch.device, context: DistributedContext):
        self.config, self.device, self.context = config, device, context
        self.folder, training, settings = config.run.path, config.training, config.model_dump()
        self.precision = choose_precision(training.precision, device)
        shared = {key: value for key, value in flatten(settings).items() if key not in OF_A_RANK}
        check_ranks_agree(context, {**shared, "commit": environment(device)["commit"]})
        found = load_last(self.folder)
        if found:
            check_same_run(self.folder, flatten(found["config"]), flatten(settings))
        form = TextForm(**config.data.text_form)
        vocabulary = vocabulary_to_train(make_vocabulary(config.data.vocabulary, form), found, self.folder)

        begin_with = None if found else training.start_from
        if begin_with is not None:
            load_checkpoint(begin_with)  # a message on it before all data is read

        self.data = load_training_data(
            root=config.data.root,
            train=config.data.train,
            dev=config.data.dev,
            normalize=config.data.normalize,
            vocabulary=vocabulary,
            loading=config.loading_kwargs,
            character_limit=character_limit(**config.model_kwargs),
            batch_size=training.batch_size,
            workers=config.data.workers,
            seed=training.seed,
            speed=config.augment.speed,
            concatenate=config.augment.concatenate,
            augmentation=config.augment.utterance_kwargs,
            resumed=feature_config_of(found, self.folder) if found else None,
            reports=self.folder,
            device=device,
            context=context,
        )
        train, self.steps = self.data.train, len(self.data.train_loader)  # steps per epoch
        check_ranks_agree(context, {"data.train": train.digest, "data.dev": self.data.dev.digest})
        if found and found["features"] == vars(train.format):  # else the checkpoint cannot be restored at all
            check_same_data(self.folder, found, train.digests, config.data.accept_changes)
            changes = describe_changes(found.get("environment", {}), environment(device))
            if changes:
                logger.info(f"resuming elsewhere: {changes}; results may differ in their last digits")

        together = -(-training.batch_size // (training.accumulate * context.world_size))
        model = make_model(train, config.model_kwargs, training.seed, together, begin_with, device)
        self.step = TrainStep(
            model,
            context,
            self.precision,
            train.paths,
            accumulate=training.accumulate,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            ctc_weight=training.ctc_weight,
            label_smoothing=training.label_smoothing,
            ema_steps=training.average_epochs * self.steps,
            ctc_only_warmup=training.ctc_epochs > 0,
            vocabulary=train.vocabulary,
        )

        described = describe_model(
            config.model_kwargs, train.format, self.data.feature_config, train.p95_frames, train.vocabulary
        )
        constant = {**described, "config": settings, "environment": environment(device)}
        self.checkpointer = Checkpointer(self.folder, constant, training.checkpoint_minutes, train.digests)
        self.state = self.checkpointer.restore(found, self.step)
        schedules = training.model_dump(include=set(Schedules.__annotations__))
        self.schedules = Schedules(**schedules, guide_throughout=model.speller.attention.sees_position)
        left = self.schedules.epochs_left(self.state.history), self.schedules.minutes_left(self.state.history)
        self.eta = EtaEstimator(self.steps, self.steps - self.state.next_batch, *left)
        self.shutdown = GracefulShutdown()

        tracked = {**settings, "parameters": model.parameter_count}
        tracker = WandbTracker(self.folder, config.run.name, tracked, self.state.wandb_run_id, **settings["wandb"])
        self.recorder = Recorder(self.folder, tracker, RunReport(self.folder), training.ctc_epochs, context.is_main)
        info = run_info(constant["environment"], self.precision, context.world_size, model, train, self.data.dev)
        self.recorder.write_settings(settings, info, train.vocabulary)
        corpora = {"+".join(config.data.train): train, config.data.dev: self.data.dev}
        plan = f"{training.epochs} epochs of {self.steps:,} batches of {training.batch_size}"
        describe_run(device, context.world_size, self.precision, corpora, model, plan)

    def fit(self) -> None:
        """Trains from where the run stands to its last epoch.

        Raises:
            Interrupted: a signal asked to stop; all that was computed is saved.
        """
        state, ctc_epochs = self.state, self.config.training.ctc_epochs
        if self.schedules.finished(state.history):
            done = f"{self.folder}: all {len(state.history)} epochs are done"
            logger.info(f"{done}; a larger training.epochs or training.max_minutes continues the run")
            return
        if state.history or state.partial:
            logger.info(f"resuming {self.folder} after {state}")
        state.wandb_run_id = self.recorder.start() or state.wandb_run_id
        try:
            with self.shutdown:
                while not self.schedules.finished(state.history):
                    start = time.perf_counter() - (state.partial["seconds"] if state.partial else 0)
                    metrics = self.train_epoch(state.epoch)
                    self.save()
                    evaluation = self.evaluate(state.epoch)
                    row = {"epoch": state.epoch, **metrics, **evaluation.metrics}
                    # Times differ between ranks, and the schedules may follow them: rank 0's count.
                    row["seconds"] = self.context.all_gather(time.perf_counter() - start)[0]
                    state.finish_epoch(row)
                    is_best = state.best(ctc_epochs) is row
                    self.recorder.record(state.history, state.best(ctc_epochs), evaluation)
                    self.save(is_best)
                    self.recorder.announce(row, is_best)
                    if self.context.any_rank(self.shutdown.signum > 0):
                        self.stop()
        finally:
            self.data.train_loader.end_workers()
            self.recorder.finish(state.best(ctc_epochs) if state.history else None)
        best = state.best(ctc_epochs)
        where = f"look at {self.folder / 'report.html'}"
        logger.info(f"best: epoch {best['epoch']}, dev distance {best['dev_distance']:.2f} (greedy); {where}")

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch, or what is left of it, saving within it when asked to; returns the epoch's means."""
        history, seed = self.state.history, self.config.training.seed
        schedule = self.schedules.of_epoch(epoch, history)
        self.data.sampler.epoch, self.data.sampler.first_batch = epoch, self.state.next_batch
        self.step.model.train()
        title, utterances = f"epoch {epoch}/{self.config.training.epochs}", len(self.data.train)
        progress = EpochProgress(title, utterances, self.state.partial, history, self.eta, self.device, self.context)
        waiting = self.shutdown.waiting if self.context.world_size == 1 else nullcontext  # ranks stop together
        for index, batch in progress.watch(self.data.train_loader, waiting):
            # All randomness of a step is a function of seed, step and rank: a resumed run draws the same.
            step = (epoch - 1) * self.steps + index
            torch.manual_seed(wrap_seed((seed * 1_000_003 + step) * self.context.world_size + self.context.rank))
            learning_rate = self.schedules.learning_rate_at(epoch - 1 + (index + 1) / self.steps, history)
            late = self.context.is_main and self.schedules.time_is_over(history, progress.seconds)
            due = self.context.is_main and self.checkpointer.due
            own = torch.tensor([batch.characters, self.shutdown.signum > 0, due, late])
            characters, stop, save, end = self.context.all_reduce_sum(own).tolist()  # on the CPU: no GPU is waited for
            result = self.step(batch, characters=characters, learning_rate=learning_rate, **schedule._asdict())
            progress.update(result, characters, learning_rate, schedule.teacher_forcing_rate)
            if (stop or save) and index + 1 < self.steps:
                self.state.partial = progress.partial(index + 1)
                self.save()
                if stop:
                    self.stop()
            if end:
                logger.warning(f"training.max_minutes: epoch {epoch} ends after {index + 1} of {self.steps} batches")
                break
        if progress.awaited is not None:
            if progress.awaited:
                self.state.partial = progress.partial(progress.awaited)
                self.save()
            self.stop()
        self.state.partial = progress.partial(self.steps)  # trained, not evaluated yet
        return {
            **progress.means(),
            "learning_rate": self.schedules.learning_rate_at(epoch, history),
            "teacher_forcing_rate": schedule.teacher_forcing_rate,
            "utterances_per_second": progress.utterances_per_second,
        }

    def evaluate(self, epoch: int) -> Evaluation:
        """Evaluates the averaged model on dev."""
        evaluation = evaluate(
            self.step.ema_model,
            self.data.dev_loader,
            utterances_to_show(self.data.dev),
            self.device,
            self.precision,
            self.config.decoding.ctc_weight,
            spell=self.schedules.of_epoch(epoch, self.state.history).train_speller,
            context=self.context,
            stop=lambda: self.shutdown.signum > 0,
        )
        return evaluation if evaluation is not None else self.stop()

    def save(self, is_best: bool = False) -> None:
        """Writes the checkpoints; rank 0 does."""
        self.step.check_finite()
        if self.context.is_main:
            self.checkpointer.save(self.step, self.state, is_best)

    def stop(self) -> NoReturn:
        """Ends the run as a signal asked, on whichever rank it arrived; everything has been saved."""
        where = f"after {self.state} of {self.steps}" if self.state.partial else f"after {self.state}"
        raise Interrupted(self.shutdown.signum, f"{where}; the same command goes on from there")


def main(config: Config) -> None:
    device = choose_device(config.training.device)
    with init_distributed(device) as context:
        made = open_run_folder(config.run.path) if context.is_main else []
        with sole_writer(config.run.path, "train.py", context):
            if context.is_main:
                sweep_temporaries(config.run.path)
            with taken_back(made, LOG):
                trainer = Trainer(config, device, context)
            trainer.fit()
    run = shlex.quote(str(config.run.path))
    logger.info(f"next, decode with a beam (python tune.py {run} finds better weights for it first):")
    logger.info(f"python test.py {run}")


if __name__ == "__main__":
    run_command(lambda: main(ARGUMENTS.config), ARGUMENTS.sources)
