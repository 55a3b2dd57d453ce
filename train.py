"""Trains Listen, Attend and Spell; run again with the same run.name, it resumes.

python train.py                                          # with the settings of config.yaml
python train.py --config configs/demo.yaml               # another file's values over config.yaml's
python train.py run.name=small training.epochs=20        # single keys over both
torchrun --nproc_per_node=8 train.py                     # on eight GPUs; training.batch_size is what they share
"""

import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from config import Config, command_parser, flatten, load_config, to_yaml
from dataset import Batch, Corpus, FeatureDataset, is_cepstral, load_labelled, make_loader
from models.las import LAS
from models.listener import Listener
from report.attention_maps import draw_epoch, picture_of
from report.build import report_epoch
from training.diagnosis import PATIENCE, diagnose
from training.evaluate import evaluate, utterances_to_show
from training.progress import EpochSums, Pace, describe_device, describe_epoch, introduce
from training.resume import check_same_run, load_last, start_from
from training.schedules import ALIGNED, learning_rate, progress, teacher_forcing_rate, time_is_up
from training.step import Learner
from training.wandb_tracker import Tracker
from utils.augment import Augmentation
from utils.checkpoint import differences, feature_differences, recipe_of, save_checkpoint
from utils.cli import StopRequest, run_command
from utils.device import choose_device, choose_precision, environment
from utils.distributed import Team, assemble
from utils.errors import Stopped, UserError
from utils.features import recipe_to_train_on
from utils.files import replacing
from utils.logging import make_logger, silence
from utils.metrics import best_epoch
from utils.sampler import BucketSampler
from utils.vocabulary import VOCABULARY

BAR = "{desc} {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # 80 columns: no rate
MAX_BAD_STEPS = 3  # losses in a row that are not finite before a run stops
LISTED = 24  # dev utterances in wandb's table of predictions


class Trainer:
    """One run: what it trains, on what, and where it stands."""

    def __init__(self, config: Config, say: Callable[[str], None], device: torch.device, team: Team):
        self.config, self.say, self.device, self.team = config, say, device, team
        self.folder, self.environment = config.run.path, environment(device)
        self.settings = {**config.model.model_dump(), "ctc": config.training.ctc_weight > 0}
        self.precision = choose_precision(config.training.precision, self.device)
        resumed = load_last(self.folder, say)
        if resumed:
            check_same_run(self.folder, flatten(resumed["config"]), flatten(config.model_dump()), say)

        with torch.device("meta"):
            listener = Listener(feature_dim=1, **self.settings["listener"])
        with team.leader_first():
            self.train_corpus, self.dev_corpus = self._load_corpora(listener)

        torch.manual_seed(config.training.seed)
        if resumed:
            differ = feature_differences(vars(self.train_corpus.format), resumed["features"])
            if differ:
                raise UserError(f"data.root: found features of {differ}, as {self.folder} was trained on")
        before = recipe_of(resumed, self.folder) if resumed else None
        self.recipe = recipe_to_train_on(config.data.root, self.train_corpus.format.dim, before)
        model = LAS(self.train_corpus.format.dim, len(VOCABULARY), **self.settings).to(self.device)
        if not resumed and config.training.start_from:
            start_from(config.training.start_from, model, say)
        training = config.training
        seed, batch_size = training.seed, training.batch_size
        if team.size > 1 and batch_size < 2 * team.size:
            raise UserError(
                f"training.batch_size: found {batch_size}, expected at least {2 * team.size}, since {team.size} "
                "processes share it"
            )
        self.sampler = BucketSampler(self.train_corpus.lengths, batch_size, seed, config.augment.speed, *team)
        dataset = FeatureDataset(
            self.train_corpus, Augmentation(seed, is_cepstral(self.train_corpus), **config.augment.of_utterances)
        )
        self.train_loader = make_loader(dataset, self.sampler, config.data.workers, self.device)
        dev_sampler = BucketSampler(self.dev_corpus.lengths, batch_size, None, 0.0, *team)
        self.dev_loader = make_loader(FeatureDataset(self.dev_corpus), dev_sampler, 0, self.device)
        self.shown = utterances_to_show(self.dev_corpus)

        self.learner = Learner(
            model,
            team,
            self.precision,
            accumulate=training.accumulate,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            ctc_weight=training.ctc_weight,
            label_smoothing=training.label_smoothing,
            average_steps=training.average_epochs * len(self.train_loader),
            listens_alone=training.ctc_epochs > 0,
        )
        self.history: list[dict] = []
        self.partial: dict | None = None  # of an epoch that was left in the middle: where, and its sums until there
        self.run_id = None
        self.pace: Pace | None = None
        if resumed:
            differ = differences(resumed["weights"], self.learner.model.state_dict())
            if differ:
                raise UserError(
                    f"{self.folder / 'last.pt'}: its model is another one than these settings make: {differ}"
                )
            self.learner.load(resumed["model"], resumed)
            self.history, self.run_id = resumed["history"], resumed["wandb_run_id"]
            self.partial = resumed.get("partial")

        corpora = {"+".join(config.data.train): self.train_corpus, config.data.dev: self.dev_corpus}
        where = f"{describe_device(device, team.size)}, {self.precision}"
        plan = f"{training.epochs} epochs of {len(self.train_loader):,} batches of {batch_size}"
        for line in introduce(where, corpora, model, plan):
            say(line)

    def _load_corpora(self, listener: Listener) -> list[Corpus]:
        """Training and dev corpus."""
        data = self.config.data

        def character_limit(frames: int) -> int:
            # CTC cannot emit more characters than it has steps. Attention can, but nobody speaks so fast.
            return listener.steps(frames)[1] if self.settings["ctc"] else frames // 2

        return load_labelled(
            data.root,
            {"train": data.train, "dev": [data.dev]},
            data.normalize,
            character_limit=character_limit,
            reports=self.folder if self.team.leads else None,
            say=self.say,
            **self.config.reading,
        )

    # ------------------------------------------------------------------------------------------------------- training

    def fit(self) -> None:
        """Trains from where the run stands to its last epoch; after each epoch measures, draws, saves, logs."""
        config = self.config
        done = len(self.history)
        if not self._goes_on():
            self.say(f"{self.folder}: all {done} epochs are done; more of training.epochs or .max_minutes goes on")
            return
        if done or self.partial:
            batches = f" and {self.partial['batch']} batches" if self.partial else ""
            self.say(f"resuming {self.folder} after epoch {done}{batches}")
        self.saved = time.perf_counter()
        tracker = Tracker(
            config.wandb.mode if self.team.leads else "disabled",
            config.wandb.project,
            config.wandb.group,
            config.run.name,
            self.folder,
            {**config.model_dump(), "parameters": self.learner.model.parameter_count},
            self.run_id,
            self.say,
        )
        self.run_id = tracker.run_id or self.run_id
        try:
            with StopRequest() as self.stop:
                while self._goes_on():
                    epoch = len(self.history) + 1
                    start = time.perf_counter() - (self.partial or {"seconds": 0})["seconds"]
                    train = self._train_epoch(epoch)
                    model = self.learner.best_guess
                    spell = epoch > config.training.ctc_epochs
                    weight = config.decoding.ctc_weight
                    dev, maps, predictions = evaluate(
                        model, self.dev_loader, self.shown, self.device, self.precision, weight, spell, self.team
                    )
                    # Times differ between processes, and the schedule may follow them: the leader's count.
                    row = self.team.gather({"epoch": epoch, **train, **dev, "seconds": time.perf_counter() - start})[0]
                    self.history.append(row)
                    is_best = self._best is row
                    if self.team.leads:
                        draw_epoch(self.folder / "attention", epoch, maps, row, is_best)
                    self._save(is_best)
                    maps_of = partial(picture_of, self.folder / "attention")
                    tracker.log(self.history, self._best, maps_of, predictions[:LISTED])
                    if self.team.leads:
                        report_epoch(self.folder, epoch, maps, predictions, is_best, self.say)
                    self._summarise(row, is_best)
        finally:
            if self.history:
                tracker.log_model(self.folder / "best.pt", self._best)
            tracker.finish()
        best = self._best
        self.say(
            f"best: epoch {best['epoch']}, dev distance {best['dev_distance']:.2f} (greedy); look at "
            f"{self.folder / 'report.html'}"
        )

    @property
    def _best(self) -> dict:
        """The best epoch so far."""
        return best_epoch(self.history, self.config.training.ctc_epochs)

    @property
    def _seconds(self) -> list[float]:
        return [row["seconds"] for row in self.history]

    def _goes_on(self) -> bool:
        training = self.config.training
        return len(self.history) < training.epochs and not time_is_up(self._seconds, training.max_minutes)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        training, device = self.config.training, self.device
        aligned = [row["dev_monotonicity"] for row in self.history]
        guide = 0.0 if any(value >= ALIGNED for value in aligned) else training.guided_attention
        forcing = teacher_forcing_rate(epoch, **training.teacher_forcing.model_dump(), monotonicities=aligned)
        self.learner.model.train()
        self.sampler.epoch = epoch
        steps = len(self.train_loader)
        sums, bad = EpochSums(self.team, device, self.partial), 0
        self.sampler.first_batch = self.partial["batch"] if self.partial else 0
        self.partial = None
        batches = iter(self.train_loader)
        title, hidden = f"epoch {epoch}/{training.epochs}", self.team.hides_progress
        bar = tqdm(
            range(self.sampler.first_batch, steps),
            title,
            steps,
            initial=self.sampler.first_batch,
            unit="batch",
            leave=False,
            bar_format=BAR,
            dynamic_ncols=True,
            disable=hidden,
        )
        if self.pace is None:
            left = None if epoch <= training.ctc_epochs else training.epochs - epoch + 1
            minutes = training.max_minutes and training.max_minutes - sum(self._seconds) / 60
            self.pace = Pace(steps, steps - self.sampler.first_batch, left, minutes)
        for index in bar:
            asked = time.perf_counter()
            batch: Batch = next(batches).to(device)
            sums.waited(time.perf_counter() - asked)

            step = (epoch - 1) * steps + index
            rate = self._learning_rate(epoch - 1 + (index + 1) / steps)
            # All randomness of a step is a function of the seed, the step and the rank: a resumed run draws the same.
            torch.manual_seed((training.seed * 1_000_003 + step) * self.team.size + self.team.rank)
            due = self.team.leads and time.perf_counter() - self.saved > 60 * training.checkpoint_minutes
            wishes = batch.characters.new_tensor([self.stop.signum > 0, due])
            count, stop, save = self.team.total(torch.cat([batch.characters.unsqueeze(0), wishes])).unbind()
            losses, norm = self.learner.step(batch, count, rate, forcing, guide, epoch > training.ctc_epochs)
            if torch.isfinite(norm):
                bad = 0
            else:
                bad += 1
                names = ", ".join(self.train_corpus.paths[i].stem for i in batch.indices.tolist())
                self.say(f"epoch {epoch}: skipped a batch whose gradient is not finite: {names}")
                if bad == MAX_BAD_STEPS:
                    raise UserError(
                        f"{MAX_BAD_STEPS} batches in a row gave no finite gradient; last.pt holds the epoch before. "
                        "A lower training.learning_rate or training.clip_norm usually helps"
                    )
                continue
            pace = self.pace.step(device)
            if pace:
                self.say(f"expected  {pace}")
            sums.add(losses, norm, count)
            if index % 10 == 0 or index == steps - 1:
                speed = (index + 1) / steps * len(self.train_corpus) / sums.seconds
                before = f"distance {self.history[-1]['dev_distance']:.2f}, " if self.history else ""
                bar.set_postfix_str(
                    f"loss {sums.loss:.3f}, {before}"
                    f"lr {rate:.1e}, tf {forcing:.2f}, |g| {float(norm):.2f}, "
                    f"{speed:.1f} utt/s, waiting {sums.waiting:.0%}"
                )
            if (stop or save) and index + 1 < steps:
                self.partial = sums.partial(index + 1)
                self._save(is_best=False)
                if stop:
                    where = f"in epoch {epoch} after {index + 1} of {steps} batches"
                    raise Stopped(self.stop.signum or signal.SIGTERM, f"{where}; the same command goes on from there")
                self.partial = None
        return {
            **sums.means(),
            "learning_rate": rate,
            "teacher_forcing_rate": forcing,
            "utterances_per_second": len(self.train_corpus) / sums.seconds,
        }

    def _learning_rate(self, done: float) -> float:
        """After `done` epochs."""
        training = self.config.training
        return learning_rate(
            done,
            progress(done, training.epochs, self._seconds, training.max_minutes),
            training.learning_rate,
            training.schedule,
            training.warmup_epochs,
            [row["dev_distance"] for row in self.history],
            training.plateau_patience,
        )

    # --------------------------------------------------------------------------------------------------------- keeping

    @property
    def surroundings(self) -> dict[str, str]:
        """What the run's report says of machine, model and data."""
        said = {**self.environment, "precision": self.precision, "processes": str(self.team.size)}
        said["parameters"] = f"{self.learner.model.parameter_count:,}"
        for role, corpus in (("train", self.train_corpus), ("dev", self.dev_corpus)):
            said[role] = corpus.size
        return said

    def _save(self, is_best: bool) -> None:
        if not self.team.leads:
            return
        checkpoint = {
            "model": self.learner.best_guess.state_dict(),
            "model_settings": self.settings,
            "features": vars(self.train_corpus.format),
            "recipe": self.recipe and asdict(self.recipe),
            "usual_frames": self.train_corpus.usual_frames,
            "vocabulary": list(VOCABULARY),
            "epoch": len(self.history),
            "history": self.history,
            "config": self.config.model_dump(),
            "environment": self.environment,
            "wandb_run_id": self.run_id,
        }
        if is_best:
            save_checkpoint(self.folder / "best.pt", checkpoint)
        if self.history:  # before last.pt: whoever is killed in between comes back here
            with replacing(self.folder / "metrics.csv") as beside:
                pd.DataFrame(self.history).to_csv(beside, index=False, float_format="%.6g")
        resumable = {**self.learner.state(), "partial": self.partial}
        save_checkpoint(self.folder / "last.pt", {**checkpoint, **resumable}, keep_previous=True)
        self.saved = time.perf_counter()

    def _summarise(self, row: dict, is_best: bool) -> None:
        self.say(describe_epoch(row, is_best))
        spelling = row["epoch"] - self.config.training.ctc_epochs
        if spelling > 0 and spelling % PATIENCE == 0:
            for warning in diagnose(row, row["epoch"]):
                self.say(warning)


def train(config: Config, device: torch.device, team: Team) -> None:
    """What this process does of it; the leader writes and speaks."""
    folder, say = config.run.path, silence
    if team.leads:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            say = make_logger(folder / "train.log").info
        except OSError as error:
            raise UserError(f"run.dir: cannot write into {folder} ({error})") from None
    trainer = Trainer(config, say, device, team)
    if team.leads:
        with replacing(folder / "config.yaml") as beside:
            beside.write_text(to_yaml(config.model_dump()), encoding="utf-8")
        with replacing(folder / "environment.yaml") as beside:
            beside.write_text(to_yaml(trainer.surroundings), encoding="utf-8")
    trainer.fit()
    say(f"next: {shlex.join(['python', 'test.py', *sys.argv[1:]])}, which searches with a beam")


def main() -> None:
    args = command_parser(__doc__).parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    device = choose_device(config.training.device)
    with assemble(device) as team:
        train(config, device, team)


if __name__ == "__main__":
    run_command(main)
