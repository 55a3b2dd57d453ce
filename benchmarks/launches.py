"""What a training step asks of a GPU, counted without one: kernels, memory traffic, waits of the host.

python -m benchmarks.launches                                          # config.yaml, configs/seed.yaml and an4.yaml
python -m benchmarks.launches model.attention.kind=location ...        # config.yaml with other settings alone
python -m benchmarks.launches --json launches.json

Computed on the CPU (see benchmarks/pretend_cuda.py), at the mean lengths of train-clean-100 in batches of 32. A Speller
with a loop is counted at two short transcripts, of which longer ones are a straight line.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.cli import check_writable, print_table, write_json
from benchmarks.flops import TRAINING, count_flops
from benchmarks.pretend_cuda import CPU, PretendCuda
from benchmarks.shapes import SHAPES
from config import Config, load_config
from dataset import Batch
from models.las import LAS
from models.speller import ParallelSpeller
from training.step import TrainStep
from utils.cli import run_command
from utils.distributed import SINGLE_PROCESS
from utils.vocabulary import KAGGLE, SOS

HOME = Path(__file__).parents[1]
SHORT = (4, 8)  # characters of the transcripts that a loop is counted at
US_PER_KERNEL = 10.0  # that PyTorch's host needs to launch one, backward included; 5 to 15 on servers
GB_PER_S, TFLOPS = 240, 20  # of a T4: three quarters of its 320 GB/s, a third of its 65 TFLOP/s in fp16


class Need(NamedTuple):
    """What a step needs, as counted or extrapolated."""

    kernels: float
    gigabytes: float
    syncs: float
    syncs_inside: float  # in torch's CTC loss, whoever calls it


def count_step(config: Config, rate: float, utterances: int, frames: int, characters: int, features: int) -> Need:
    """Counts the second step of a new model, on a batch of utterances of equal lengths."""
    torch.manual_seed(0)
    training = config.training
    with PretendCuda() as gpu:
        step = TrainStep(
            gpu.move(LAS(features, len(KAGGLE), **config.model_kwargs).train()),
            SINGLE_PROCESS,
            "bf16",  # on this CPU; on a T4 it would be fp16, with two kernels more
            [],
            accumulate=1,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            ctc_weight=training.ctc_weight,
            label_smoothing=training.label_smoothing,
            ema_steps=100,
            ctc_only_warmup=False,
        )
        tokens = torch.randint(3, len(KAGGLE), (utterances, characters + 1))
        tokens[:, 0] = SOS
        lengths = torch.full((utterances,), frames), torch.full((utterances,), characters + 1)
        features_ = torch.randn(utterances, frames, features)
        batch = Batch(torch.arange(utterances), features_, lengths[0], tokens, lengths[1]).to(gpu.device)
        for _ in range(2):
            with gpu.count() as counted:
                step(
                    batch,
                    characters=batch.characters,
                    learning_rate=0.0,
                    teacher_forcing_rate=rate,
                    guided_attention=training.guided_attention,
                    train_speller=True,
                )
    return Need(counted.kernels, counted.bytes / 1e9, len(counted.syncs), counted.waits_inside)


def row_of(name: str, config: Config, rate: float) -> dict[str, str | float]:
    """A row of the table: a configuration at Kaggle's mean shape."""
    shape = SHAPES["kaggle"]
    B, T, U, D = shape.batch_size, round(shape.train.frames[1]), round(shape.train.tokens[0]), shape.feature_dim
    with torch.device("meta"):
        loops = not isinstance(LAS(D, len(KAGGLE), **config.model_kwargs).speller, ParallelSpeller)
    if loops:
        few, more = (count_step(config, rate, B, T, characters, D) for characters in SHORT)
        slope = [(b - a) / (SHORT[1] - SHORT[0]) for a, b in zip(few, more, strict=True)]
        need = Need(*(a + each * (U - SHORT[0]) for a, each in zip(few, slope, strict=True)))
    else:
        need, slope = count_step(config, rate, B, T, U, D), [0.0] * len(Need._fields)
    flops = B * TRAINING * int(count_flops(T, U + 1, D, len(KAGGLE), **config.model_kwargs).total)
    times = {
        "host s": need.kernels * US_PER_KERNEL / 1e6,
        "T4 memory s": need.gigabytes / GB_PER_S,
        "T4 products s": flops / (TFLOPS * 1e12),
    }
    return {
        "configuration": f"{name}, forcing {rate}",
        "kernels": round(need.kernels),
        "per character": slope[0],
        "GB": need.gigabytes,
        "syncs": round(need.syncs),
        "in CTC": round(need.syncs_inside),
        **times,
        "T4 step s": max(times["host s"], times["T4 memory s"] + times["T4 products s"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="count config.yaml with these alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    flags = parser.parse_args()
    check_writable("--json", flags.json)
    if flags.overrides:
        chosen = [("config.yaml, changed", load_config(overrides=flags.overrides), rate) for rate in (1.0, 0.9)]
    else:
        seed, an4 = load_config(HOME / "configs/seed.yaml"), load_config(HOME / "configs/an4.yaml")
        default = load_config()
        chosen = [("config.yaml", default, 1.0), ("config.yaml", default, 0.9), ("configs/seed.yaml", seed, 1.0)]
        chosen += [("configs/seed.yaml", seed, 0.7), ("configs/an4.yaml", an4, 1.0)]
    rows = [row_of(*each) for each in chosen]
    print_table(
        f"a training step at Kaggle's mean shape; estimates: {US_PER_KERNEL:.0f} us per kernel on the host, a T4 of "
        f"{GB_PER_S} GB/s and {TFLOPS} TFLOP/s",
        rows,
    )
    write_json(flags.json, flags, "benchmarks.launches", CPU, {"steps": rows})


if __name__ == "__main__":
    run_command(main)
