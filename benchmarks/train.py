"""Speed of a training step of this project, compared with other implementations and with what the machine can do.

    python -m benchmarks.train                               # competition lengths, configs/seed.yaml, no data needed
    python -m benchmarks.train --shape an4                   # AN4's lengths, configs/an4.yaml
    python -m benchmarks.train --shape 32,1265,28,187        # every utterance alike
    python -m benchmarks.train --plot listener.png           # how the Listener's cost grows, and nothing else

A step is forward pass, loss, backward pass, clipping and the optimiser's step, with teacher forcing throughout. Ours
takes the precision that train.py would choose; on a CPU the others take float32, as they are usually run, or ours with
`--same-precision`:

    project      this project as configured
    other        the same sizes with the other setting of model.speller.input_feeding (false needs dot attention)
    packed       benchmarks/reference/textbook.py on packed sequences, random batches
    padded       the same without packing
    speechbrain  SpeechBrain's modules at about the same parameter count, bucketed batches as ours
    limit        the multiplications of our model alone, at true lengths and the best rate measured in this run; and
                 at the best rate of products of as many rows as a batch has, as a step of an LSTM is
    listener     our Listener alone, forward and backward
    lstms        its LSTMs alone as plain padded nn.LSTM calls, forward and backward

Since batches differ in length, the time of a step is divided by its frames, padding not counted, and multiplied by the
mean number of frames: ms per utterance of mean length. Utilisation is useful FLOP/s (benchmarks/flops.py) relative to
the best rate. Memory is what a step on the longest batch takes beyond the weights: activations, gradients, optimiser.
Times and ratios are medians [quartiles] over rounds.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cli import (
    Arguments,
    check_writable,
    command_parser,
    parse_arguments,
    parse_sizes,
    print_setup,
    print_table,
    skip_missing_speechbrain,
    write_json,
)
from benchmarks.flops import TRAINING, count_flops
from benchmarks.gemm import gemm_contestant, median_rates
from benchmarks.listener_scaling import measure_scaling, plot_scaling
from benchmarks.measure import Contestant, Measurement, interleave, peak_memory, quartiles, ratios
from benchmarks.reference.speechbrain_las import count_parameters
from benchmarks.shapes import Epoch, Lengths, draw_lengths, random_batch
from benchmarks.training_steps import (
    BATCHING,
    STEP_SETTINGS,
    kwargs_of,
    listener_step,
    lstms_step,
    make_model,
    training_step,
)
from utils.cli import run_command
from utils.device import choose_precision
from utils.vocabulary import KAGGLE

LISTENER_STEPS = {"listener": listener_step, "lstms": lstms_step}
NAMES = (*BATCHING, "limit", *LISTENER_STEPS)
LIMITS = ("limit", "limit of few rows")


class Benchmark:
    """The contestants of one shape, and what their steps cost.

    Args:
        arguments: of the command line.

    Attributes:
        precision: of the project's own step.
    """

    def __init__(self, arguments: Arguments):
        self.arguments, shape, config = arguments, arguments.shape, arguments.config
        self.precision = choose_precision(config.training.precision, arguments.device)
        self.model_kwargs = config.model_kwargs
        self.lengths = draw_lengths(shape.train)
        self.epochs = {
            batching: Epoch(shape, self.lengths, batching, arguments.device) for batching in ("bucketed", "random")
        }
        self.models = {
            name: make_model(name, shape.feature_dim, self.model_kwargs) for name in BATCHING if name in arguments.only
        }
        self.measurements: dict[str, Measurement] = {}
        self.rates: dict[str, dict[str, float]] = {}  # FLOP/s of matrix products, square ones and of few rows

    def run(self) -> None:
        """Measures all contestants, in turns."""
        shape, device, training = self.arguments.shape, self.arguments.device, self.arguments.config.training
        limits = [gemm_contestant(device), gemm_contestant(device, shape.batch_size)]
        contestants = limits if "limit" in self.arguments.only else []
        for name, model in self.models.items():
            settings = training.model_dump(include=STEP_SETTINGS)
            step = training_step(model, device, self._precision(name), **settings)
            contestants.append(Contestant(name, self._epoch(name).batch, step))
        for name, make in LISTENER_STEPS.items():
            if name in self.arguments.only:
                step = make(shape.feature_dim, self.model_kwargs["listener"], device, self.precision)
                contestants.append(Contestant(name, self._epoch(name).batch, step))
        self.measurements = interleave(contestants, self.arguments.rounds, self.arguments.seconds, device)
        self.rates = {name: median_rates(found) for name, found in self.measurements.items() if name in LIMITS}

    def _precision(self, name: str) -> str:
        ours = name in ("project", "other")
        same = ours or self.arguments.flags.same_precision or self.arguments.device.type == "cuda"
        return self.precision if same else "float32"

    def _epoch(self, name: str) -> Epoch:
        return self.epochs[BATCHING.get(name, "bucketed")]

    def _ms_per_utterance(self, name: str) -> list[float]:
        """Of each round; none if the contestant was not measured."""
        measurement = self.measurements.get(name, Measurement())
        return self._epoch(name).ms_per_utterance(measurement.seconds)

    def _flops(self, name: str) -> float:
        """FLOPs of a training step per utterance."""
        model_kwargs = kwargs_of(name, self.model_kwargs)
        flops = count_flops(*self.lengths, self.arguments.shape.feature_dim, len(KAGGLE), **model_kwargs)
        return TRAINING * float(flops.total.mean())

    def _costs(self, name: str, reference: str) -> dict[str, Any]:
        """The columns that every contestant has, with ratios to the contestant `reference`."""
        measurement, own, other = (
            self.measurements[name],
            self._ms_per_utterance(name),
            self._ms_per_utterance(reference),
        )
        return {
            "rounds": len(own),
            "ms per step": quartiles([1000 * seconds for seconds in measurement.seconds]),
            "ms per utterance": quartiles(own),
            f"times {reference}": ratios(own, other) if other else None,
            "memory MB": None if measurement.memory is None else measurement.memory / 1e6,
        }

    def whole_steps(self) -> list[dict[str, Any]]:
        """Training steps of whole models: one row per contestant."""
        rows, limits = [], {name: max(rates.values()) for name, rates in self.rates.items()}
        best = limits.get("limit")
        for name, model in self.models.items():
            row = {"contestant": name, "parameters": count_parameters(model), **self._costs(name, "project")}
            rate = self._flops(name) / row["ms per utterance"].median * 1000
            row |= {
                "precision": self._precision(name),
                "batches": BATCHING[name],
                "padded": self._epoch(name).padded_share,
                "GFLOP/s": rate / 1e9,
            }
            rows.append({**row, "utilisation": None if best is None else rate / best})
        for name, rate in limits.items():
            least, ours = 1000 * self._flops("project") / rate, self._ms_per_utterance("project")
            row = {"contestant": name, "rounds": len(self.measurements[name].results), "ms per utterance": least}
            row |= {"ms per step": least * self.arguments.shape.batch_size, "padded": 0.0}
            row |= {"times project": ratios([least] * len(ours), ours) if ours else None}
            rows.append({**row, "GFLOP/s": rate / 1e9, "utilisation": None if best is None else rate / best})
        return rows

    def listener_steps(self) -> list[dict[str, Any]]:
        """Steps of the Listener and of its LSTMs alone: one row per contestant."""
        return [
            {"contestant": name, **self._costs(name, "lstms")} for name in LISTENER_STEPS if name in self.measurements
        ]

    def products(self) -> list[dict[str, Any]]:
        """The rates of matrix products: one row per kernel."""
        B = self.arguments.shape.batch_size
        kinds = {LIMITS[0]: "GFLOP/s", LIMITS[1]: f"GFLOP/s of {B} rows"}
        columns = {kinds[limit]: rates for limit, rates in self.rates.items()}
        kernels = next(iter(columns.values()), {})
        return [
            {"matrix product": kernel, **{title: rates[kernel] / 1e9 for title, rates in columns.items()}}
            for kernel in kernels
        ]

    def memory_growth(self) -> list[dict[str, Any]]:
        """Peak memory of the project's step where frames, characters or both double: one row per size."""
        rows: list[dict[str, Any]] = []
        B, (T, U) = self.arguments.shape.batch_size, (int(values.mean()) for values in self.lengths)
        model, device = self.models.get("project"), self.arguments.device
        if model is None:
            return rows
        settings = self.arguments.config.training.model_dump(include=STEP_SETTINGS)
        for frames, tokens in ((T, U), (2 * T, U), (T, 2 * U), (2 * T, 2 * U)):
            lengths = Lengths(np.full(B, frames), np.full(B, tokens))
            step = training_step(copy.deepcopy(model), device, self.precision, **settings)
            batch = random_batch(lengths, range(B), self.arguments.shape.feature_dim, device)
            memory = peak_memory(partial(step, batch), device)
            if memory is not None:
                row = {"utterances": B, "frames": frames, "tokens": tokens, "memory MB": memory / 1e6}
                rows.append({**row, "kB per frame": memory / 1e3 / B / frames})
        return rows


def plot(arguments: Arguments) -> None:
    """Measures how the Listener's cost grows with frames and batch size: a plot, a table and JSON."""
    flags, shape, device = arguments.flags, arguments.shape, arguments.device
    frames, batch_sizes = (
        parse_sizes("--plot-frames", flags.plot_frames),
        parse_sizes("--plot-batches", flags.plot_batches),
    )
    precision = choose_precision(arguments.config.training.precision, device)
    print_setup(arguments, f"precision {precision}")
    step = listener_step(shape.feature_dim, arguments.config.model_kwargs["listener"], device, precision)
    rows = measure_scaling(step, shape.feature_dim, frames, batch_sizes, arguments.rounds, arguments.seconds, device)
    print_table("the Listener, forward and backward", rows)
    plot_scaling(flags.plot, rows, f"the Listener, forward and backward, {device.type}, {precision}")
    print(f"\n{flags.plot}: the picture")
    write_json(arguments.json, flags, "benchmarks.train --plot", device, {"precision": precision, "growth": rows})


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--same-precision", action="store_true", help="the precision of this project for all")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how the Listener's cost grows, nothing else")
    parser.add_argument("--plot-frames", default="250,500,1000,2000", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--plot-batches", default="1,8,32", metavar="N,N", help="default: %(default)s")
    arguments = parse_arguments(parser, NAMES)
    check_writable("--plot", arguments.flags.plot)
    if arguments.flags.plot is not None:
        plot(arguments)
        return
    arguments = skip_missing_speechbrain(arguments)
    benchmark = Benchmark(arguments)
    print_setup(arguments, f"precision {benchmark.precision}")
    benchmark.run()
    tables = {
        "steps": benchmark.whole_steps(),
        "listener": benchmark.listener_steps(),
        "products": benchmark.products(),
        "memory": benchmark.memory_growth(),
    }
    alone = "the Listener alone, forward and backward (goal: at most 1.15 times its LSTMs)"
    growth = "memory of a step beyond the weights"
    titles = ("a training step", alone, "matrix products", growth)
    for title, rows in zip(titles, tables.values(), strict=True):
        if rows:
            print_table(title, rows)
    content = {"precision": benchmark.precision, **tables}
    write_json(arguments.json, arguments.flags, "benchmarks.train", arguments.device, content)


if __name__ == "__main__":
    run_command(main)
