"""A training step of this project beside other ways to write Listen, Attend and Spell, and beside what is possible.

    python -m benchmarks.train                               # competition lengths, configs/seed.yaml, no data needed
    python -m benchmarks.train --shape an4                   # AN4's lengths, configs/an4.yaml
    python -m benchmarks.train --shape 32,1265,28,187        # every utterance alike
    python -m benchmarks.train --plot listener.png           # how the Listener's cost grows, and nothing else

A step is forward, loss, backward, clipping and the optimizer's step, every true character read (teacher forcing 1).
Ours takes the precision that train.py would choose; on a CPU the others take float32, as they are usually run, or ours
with `--same-precision`:

    project      this project as configured
    other        the same sizes with the other setting of model.speller.input_feeding (false needs dot attention)
    packed       benchmarks/reference/textbook.py on packed sequences, random batches
    padded       the same without packing
    speechbrain  SpeechBrain's modules at about the same parameter count, bucketed batches as ours
    limit        the multiplications of our model alone, at true lengths and the best rate measured in this run
    listener     our Listener alone, forward and backward
    lstms        its LSTMs alone as plain padded nn.LSTM calls, forward and backward

Batches differ in length, so a step's time is divided by its true frames and multiplied by the mean: ms an utterance of
mean length. Utilisation is useful FLOP/s (benchmarks/flops.py) over the best rate. Memory is what a step on the longest
batch takes beyond the weights: activations, gradients, optimizer. Times and ratios are medians [quartiles] over rounds.
"""

from pathlib import Path

from benchmarks.command import (
    Arguments,
    check_writable,
    command_parser,
    introduce,
    print_table,
    read_arguments,
    without_missing,
    write_json,
)
from benchmarks.flops import TRAINING, count_flops
from benchmarks.gemm import gemm_contestant, median_rates
from benchmarks.growth import draw_growth, measure_growth, parse_sizes
from benchmarks.measure import Contestant, Record, interleave, ratios, spread
from benchmarks.reference.speechbrain_las import count_parameters
from benchmarks.shapes import Epoch, draw_lengths
from benchmarks.trainees import (
    BATCHES,
    listener_step,
    lstms_step,
    make_model,
    settings_of,
    training_step,
)
from utils.cli import run_command
from utils.device import choose_precision
from utils.vocabulary import VOCABULARY

ALONE = {"listener": listener_step, "lstms": lstms_step}
NAMES = (*BATCHES, "limit", *ALONE)


class Benchmark:
    """The contestants of one shape, and what they cost."""

    def __init__(self, arguments: Arguments):
        self.arguments, shape, config = arguments, arguments.shape, arguments.config
        self.precision = choose_precision(config.training.precision, arguments.device)
        self.settings = {**config.model.model_dump(), "ctc": config.training.ctc_weight > 0}
        self.lengths = draw_lengths(shape.train)
        self.epochs = {kind: Epoch(shape, self.lengths, kind, arguments.device) for kind in ("bucketed", "random")}
        self.models = {
            name: make_model(name, shape.feature_dim, self.settings) for name in BATCHES if name in arguments.only
        }
        self.records: dict[str, Record] = {}
        self.rates: dict[str, float] = {}  # FLOP/s of matrix products

    def run(self) -> None:
        shape, device, training = self.arguments.shape, self.arguments.device, self.arguments.config.training
        contestants = [gemm_contestant(device)] if "limit" in self.arguments.only else []
        for name, model in self.models.items():
            step = training_step(model, dict(training), device, self._precision(name))
            contestants.append(Contestant(name, self._epoch(name).batch, step))
        for name, make in ALONE.items():
            if name in self.arguments.only:
                step = make(shape.feature_dim, self.settings["listener"], device, self.precision)
                contestants.append(Contestant(name, self._epoch(name).batch, step))
        self.records = interleave(contestants, self.arguments.rounds, self.arguments.seconds, device)
        if "limit" in self.records:
            self.rates = median_rates(self.records["limit"])

    def _precision(self, name: str) -> str:
        ours = BATCHES.get(name, "bucketed") == "bucketed" and name != "speechbrain"
        same = ours or self.arguments.given.same_precision or self.arguments.device.type == "cuda"
        return self.precision if same else "float32"

    def _epoch(self, name: str) -> Epoch:
        return self.epochs[BATCHES.get(name, "bucketed")]

    def _milliseconds(self, name: str) -> list[float]:
        """An utterance of mean length, round by round."""
        return self._epoch(name).milliseconds(self.records[name].seconds) if name in self.records else []

    def _flops(self, name: str) -> float:
        """Of a training step, an utterance."""
        settings = settings_of(name, self.settings)
        each = count_flops(*self.lengths, self.arguments.shape.feature_dim, len(VOCABULARY), **settings)
        return TRAINING * float(each.total.mean())

    def _costs(self, name: str, reference: str) -> dict:
        """The columns that every contestant has; ratios are to `reference`."""
        record, own, other = self.records[name], self._milliseconds(name), self._milliseconds(reference)
        return {
            "rounds": len(own),
            "ms a step": spread([1000 * seconds for seconds in record.seconds]),
            "ms an utterance": spread(own),
            f"times {reference}": ratios(own, other) if other else None,
            "memory MB": None if record.memory is None else record.memory / 1e6,
        }

    def steps(self) -> list[dict]:
        """Whole training steps, a row a contestant."""
        rows, best = [], max(self.rates.values(), default=None)
        for name, model in self.models.items():
            row = {"contestant": name, "parameters": count_parameters(model), **self._costs(name, "project")}
            rate = self._flops(name) / row["ms an utterance"][1] * 1000
            row |= {
                "precision": self._precision(name),
                "batches": BATCHES[name],
                "padded": self._epoch(name).padded_share,
                "GFLOP/s": rate / 1e9,
            }
            rows.append({**row, "utilisation": None if best is None else rate / best})
        if best is not None:
            least, ours = 1000 * self._flops("project") / best, self._milliseconds("project")
            row = {"contestant": "limit", "rounds": len(self.records["limit"].results), "ms an utterance": least}
            row |= {"ms a step": least * self.arguments.shape.batch_size, "padded": 0.0}
            row |= {"times project": ratios([least] * len(ours), ours) if ours else None}
            rows.append({**row, "GFLOP/s": best / 1e9, "utilisation": 1.0})
        return rows

    def alone(self) -> list[dict]:
        """The Listener and its LSTMs, without the rest of the model."""
        return [{"contestant": name, **self._costs(name, "lstms")} for name in ALONE if name in self.records]

    def products(self) -> list[dict]:
        return [{"matrix product": name, "GFLOP/s": rate / 1e9} for name, rate in self.rates.items()]


def plot(arguments: Arguments) -> None:
    """The Listener's growth alone, as picture, table and JSON."""
    given, shape, device = arguments.given, arguments.shape, arguments.device
    frames, batches = (parse_sizes(f"--plot-{name}", getattr(given, f"plot_{name}")) for name in ("frames", "batches"))
    precision = choose_precision(arguments.config.training.precision, device)
    introduce(arguments, f"precision {precision}")
    step = listener_step(shape.feature_dim, arguments.config.model.model_dump()["listener"], device, precision)
    rows = measure_growth(step, shape.feature_dim, frames, batches, arguments.rounds, arguments.seconds, device)
    print_table("the Listener, forward and backward", rows)
    draw_growth(given.plot, rows, f"the Listener, forward and backward, {device.type}, {precision}")
    print(f"\n{given.plot}: the picture")
    write_json(arguments, "benchmarks.train --plot", {"precision": precision, "growth": rows})


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--same-precision", action="store_true", help="the precision of this project for all")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how the Listener's cost grows, nothing else")
    parser.add_argument("--plot-frames", default="250,500,1000,2000", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--plot-batches", default="1,8,32", metavar="N,N", help="default: %(default)s")
    arguments = read_arguments(parser, NAMES)
    check_writable("--plot", arguments.given.plot)
    if arguments.given.plot is not None:
        plot(arguments)
        return
    arguments = without_missing(arguments)
    benchmark = Benchmark(arguments)
    introduce(arguments, f"precision {benchmark.precision}")
    benchmark.run()
    tables = {"steps": benchmark.steps(), "listener": benchmark.alone(), "products": benchmark.products()}
    alone = "the Listener alone, forward and backward (goal: at most 1.15 times its LSTMs)"
    titles = ("a training step", alone, "matrix products")
    for title, rows in zip(titles, tables.values(), strict=True):
        if rows:
            print_table(title, rows)
    write_json(arguments, "benchmarks.train", {"precision": benchmark.precision, **tables})


if __name__ == "__main__":
    run_command(main)
