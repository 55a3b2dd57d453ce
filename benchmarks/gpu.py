"""Everything that only a GPU can say, in one command and a few minutes: make gpu.

python -m benchmarks.gpu --out gpu-results                  # all sections, at most 8 minutes
python -m benchmarks.gpu --device cpu --tiny                # tries the command itself

Needs PyTorch, NumPy, pandas, pydantic, PyYAML, tqdm and Levenshtein alone, and no data. After each section gpu.json and
gpu.md in the folder are whole: a run that is killed, or a section that fails, leaves what was measured before.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.cli import system_info
from benchmarks.measure import Contestant, interleave, now, quartiles
from benchmarks.shapes import SHAPES, Lengths, Shape, draw_lengths, random_batch
from config import Config, load_config
from dataset import Batch
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.recogniser import Recogniser, character_limits
from decoding.transcribe import fill_batches, frame_budget
from models.attention import LocationAttention
from models.blstm import BLSTM
from models.las import LAS, las_loss
from training.step import TrainStep
from utils.cli import run_command
from utils.device import PRECISIONS, autocast, choose_device, choose_precision
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import KAGGLE

HOME = Path(__file__).parents[1]
V = len(KAGGLE)
TINY = ["model.listener.hidden=16", "model.listener.conv=[{channels: 8, kernel: 3, stride: 2}]"]
TINY += ["model.attention.dim=16", "model.speller={embedding: 8, hidden: 16, layers: 2, dropout: 0.1}"]
LOOP = ["model.attention.kind=location", "model.attention.heads=1", "model.speller.input_feeding=true"]
Row = dict[str, Any]


class Bench(NamedTuple):
    """What the sections run on."""

    device: torch.device
    shape: Shape
    tiny: bool
    ends: float  # time.monotonic() at which the command should be over

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def config(self, name: str = "config.yaml", *overrides: str) -> Config:
        return load_config(HOME / name, [*(TINY if self.tiny else ()), *overrides])

    def batch(self, utterances: int | None = None) -> Batch:
        """Noise at the mean lengths of the shape."""
        B = utterances or self.shape.batch_size
        frames, tokens = round(self.shape.train.frames[1]), round(self.shape.train.tokens[0])
        lengths = Lengths(*(torch.full((B,), each).numpy() for each in (frames, tokens)))
        return random_batch(lengths, range(B), self.shape.feature_dim, self.device)

    def model(self, config: Config) -> LAS:
        torch.manual_seed(0)
        return LAS(self.shape.feature_dim, V, **config.model_kwargs).to(self.device)


def precisions(device: torch.device) -> list[str]:
    """Those that the device multiplies; on a GPU also float32 with TF32 products."""
    if device.type != "cuda":
        return ["float32", "bf16"]
    names = ["float32", "tf32"]
    for name in ("bf16", "fp16"):
        try:
            names.append(choose_precision(name, device))
        except UserError:  # only emulated
            continue
    return names


def set_precision(name: str) -> str:
    """Turns TF32 on or off, and returns the precision for autocast."""
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "float32"
    return "float32" if name == "tf32" else name


# ------------------------------------------------------------------------------------------------------------ sections


def environment(bench: Bench) -> list[Row]:
    """Hardware and versions."""
    found: Row = dict(system_info(bench.device))
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {
            "memory GiB": properties.total_memory / 2**30,
            "capability": f"sm_{properties.major}{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
        try:
            found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            found["driver"] = "unknown"
    return [{"what": name, "found": str(value)} for name, value in found.items()]


def agreement(bench: Bench) -> list[Row]:
    """A step and both searches, on the device and on the CPU: what the tests pretend, in earnest."""
    rows = []
    small = bench._replace(tiny=True)
    spellers = {
        "relative, no loop": [],
        "dot, no loop": ["model.attention.kind=dot"],
        "location, loop": LOOP,
        "dot, loop": ["model.attention.kind=dot", LOOP[2]],
    }
    for name, overrides in spellers.items():
        config = small.config("config.yaml", *overrides, "model.listener.dropout=0", "model.speller.dropout=0")
        batch = small._replace(shape=bench.shape._replace(batch_size=4)).batch()
        expected = _look(small.model(config).cpu(), batch.to(torch.device("cpu")), "float32")
        for precision in precisions(bench.device):
            found = _look(small.model(config), batch, set_precision(precision))
            rows.append(
                {
                    "Speller": name,
                    "precision": precision,
                    "loss, relative": abs(found.loss / expected.loss - 1),
                    "gradient, cosine": float(nn.functional.cosine_similarity(found.gradient, expected.gradient, 0)),
                    "greedy texts equal": found.greedy == expected.greedy,
                    "beams equal": found.beams == expected.beams,
                }
            )
    return rows


class _Look(NamedTuple):
    loss: float
    gradient: Tensor  # of all weights, on the CPU
    greedy: list[list[int]]
    beams: list[list[int]]  # the best hypothesis of each utterance


def _look(model: LAS, batch: Batch, precision: str) -> _Look:
    """What a model computes of a batch, without dropout."""
    with autocast(batch.features.device, precision):
        logits, _, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
    loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths, ctc_weight=0.3).total
    loss.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]).cpu()
    recogniser = Recogniser([model], ctc_weight=0.3, precision=precision)
    limits = character_limits(batch.feature_lengths).clamp(max=30)
    with torch.no_grad():
        listened = recogniser.encode(batch.features, batch.feature_lengths)
    beams = beam_search(recogniser, listened, limits, beam_size=4)
    best = [hypotheses[0].tokens if hypotheses else [] for hypotheses in beams]
    return _Look(float(loss.detach()), gradient, greedy_search(recogniser, listened, limits), best)


def steps(bench: Bench) -> list[Row]:
    """Training steps at Kaggle's mean shape."""
    rows: list[Row] = []
    chosen: list[tuple[str, str, list[str]]] = [
        ("config.yaml", "config.yaml", []),
        ("configs/seed.yaml", "configs/seed.yaml", []),
    ]
    chosen.append(("config.yaml with location attention", "config.yaml", LOOP))
    seconds = bench.left / 2 / (len(chosen) * len(precisions(bench.device)))
    for title, name, overrides in chosen:
        for precision in precisions(bench.device):
            rows.append(_step_row(bench, title, bench.config(name, *overrides), precision, seconds))
            torch.cuda.empty_cache() if bench.device.type == "cuda" else None
    return rows


def _step_row(bench: Bench, title: str, config: Config, precision: str, seconds: float) -> Row:
    training, batch = config.training, bench.batch()
    step = TrainStep(
        bench.model(config).train(),
        SINGLE_PROCESS,
        set_precision(precision),
        [Path(str(index)) for index in range(len(batch.indices))],
        accumulate=1,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm,
        ctc_weight=training.ctc_weight,
        label_smoothing=training.label_smoothing,
        ema_steps=100,
        ctc_only_warmup=False,
    )

    def take(_: object) -> None:
        step(
            batch,
            characters=batch.characters,
            learning_rate=1e-4,
            teacher_forcing_rate=0.9,
            guided_attention=training.guided_attention,
            train_speller=True,
        )

    measured = interleave([Contestant("step", lambda _: None, take)], 2 if bench.tiny else 10, seconds, bench.device)
    median, hours = quartiles(measured["step"].seconds).median, int(batch.feature_lengths.sum()) / 360_000
    return {
        "settings": title,
        "precision": precision,
        "step s": median,
        "hours of speech per second": hours / median,
        "100 hours, minutes": 100 / (hours / median) / 60,
        "peak GiB": None if measured["step"].memory is None else measured["step"].memory / 2**30,
    }


def listener_lstms(bench: Bench) -> list[Row]:
    """Our BLSTM, two LSTMs one of which reads each row reversed, against nn.LSTM on a packed sequence."""
    B, T, hidden = (4, 20, 8) if bench.tiny else (bench.shape.batch_size, round(bench.shape.train.frames[1] / 2), 384)
    torch.manual_seed(0)
    ours, packed = BLSTM(hidden, hidden).to(bench.device), nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
    packed.to(bench.device)
    lengths = torch.linspace(T * 0.8, T, B).long().flip(0)
    x = torch.randn(B, T, hidden, device=bench.device)
    on_device = lengths.to(bench.device)

    def run_packed(_: object) -> None:
        sequence = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        nn.utils.rnn.pad_packed_sequence(packed(sequence)[0], batch_first=True)[0].sum().backward()

    rows = []
    for precision in precisions(bench.device):
        name = set_precision(precision)

        def run_ours(_: object, name: str = name) -> None:
            with autocast(bench.device, name):
                ours(x.to(PRECISIONS[name]), on_device)[0].float().sum().backward()  # as in `lstms_step`

        contestants = [Contestant("ours", lambda _: None, run_ours)]
        if name == "float32":
            contestants.append(Contestant("packed", lambda _: None, run_packed))
        for contestant, measured in interleave(
            contestants, 2 if bench.tiny else 10, bench.left / 8, bench.device
        ).items():
            rows.append(
                {
                    "BLSTM": contestant,
                    "precision": precision,
                    "forward and backward s": quartiles(measured.seconds).median,
                }
            )
    return rows


def recomputation(bench: Bench) -> list[Row]:
    """Location attention: its largest intermediates kept for the backward pass, or computed again."""
    model, batch, rows = bench.model(bench.config("config.yaml", *LOOP)), bench.batch(), []
    attention = model.speller.attention
    assert isinstance(attention, LocationAttention)
    for again in (False, True):
        attention.must_recompute = lambda *_, again=again: again  # type: ignore[method-assign]

        def run(_: object) -> None:
            logits, _, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
            las_loss(logits, encoded, batch.tokens, batch.token_lengths, 0.3).total.backward()

        measured = interleave(
            [Contestant("", lambda _: None, run)], 1 if bench.tiny else 3, bench.left / 8, bench.device
        )[""]
        memory = None if measured.memory is None else measured.memory / 2**30
        rows.append(
            {"intermediates": "again" if again else "kept", "s": quartiles(measured.seconds).median, "peak GiB": memory}
        )
    return rows


def decoding(bench: Bench) -> list[Row]:
    """Beam 8 with CTC over as many utterances as test-clean has, each for as many characters as it would have."""
    lengths = draw_lengths(bench.shape.decode, 12 if bench.tiny else None)
    recogniser = Recogniser([bench.model(bench.config())], 0.5, precision=choose_precision("auto", bench.device))
    batches = fill_batches(lengths.frames.tolist(), frame_budget(bench.device, 8, V))
    done, frames, until, start = 0, 0, time.monotonic() + bench.left * 0.7, now(bench.device)
    for items in batches:
        positions = [item.position for item in items]
        batch = random_batch(lengths, positions, bench.shape.feature_dim, bench.device)
        with torch.no_grad():
            beam_search(
                recogniser, recogniser.encode(batch.features, batch.feature_lengths), batch.token_lengths - 2, 8
            )
        done, frames = done + len(positions), frames + int(lengths.frames[positions].sum())
        if time.monotonic() > until:
            break
    seconds = now(bench.device) - start
    whole = int(lengths.frames.sum())
    return [
        {
            "utterances": done,
            "of": len(lengths.frames),
            "s": seconds,
            "all of them s": seconds * whole / frames,
            "hours of speech per second": frames / 360_000 / seconds,
        }
    ]


def demo(bench: Bench) -> list[Row]:
    """make demo, where its speech engine is installed."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError:
        return [{"demo": "left out: espeakng-loader is not installed"}]
    if bench.tiny or bench.left < 150:
        return [{"demo": f"left out: {max(0, bench.left):.0f} s are left"}]
    rows = []
    for command in (["-m", "corpora.demo", "data/demo"], ["train.py"], ["test.py"]):
        own = ["--config", "configs/demo.yaml", "wandb.mode=disabled", "run.name=gpu-demo"] if len(command) == 1 else []
        start = time.monotonic()
        result = subprocess.run([sys.executable, *command, *own], cwd=HOME, capture_output=True, text=True)
        last = (result.stdout + result.stderr).strip().splitlines()[-1:]
        rows.append(
            {"command": " ".join(command), "s": time.monotonic() - start, "exit": result.returncode, "last line": last}
        )
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "Environment": environment,
    "Agreement with the CPU": agreement,
    "Training steps at Kaggle's mean shape": steps,
    "The Listener's LSTMs": listener_lstms,
    "Recomputation in location attention": recomputation,
    "Decoding, beam 8 with CTC": decoding,
    "The demo": demo,
}


# ------------------------------------------------------------------------------------------------------------- results


def write_results(folder: Path, command: Sequence[str], results: Mapping[str, list[Row]]) -> None:
    """gpu.json, and gpu.md for docs/performance.md."""
    (folder / "gpu.json").write_text(json.dumps({"command": list(command), **results}, indent=1), encoding="utf-8")
    parts = [f"`{' '.join(command)}`"]
    for title, rows in results.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    (folder / "gpu.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="that all may take (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the command")
    flags = parser.parse_args()
    if not flags.minutes > 0:
        raise UserError(f"--minutes: found {flags.minutes}, expected a time above 0")
    shape = SHAPES["kaggle"]
    if flags.tiny:
        small = shape.train._replace(frames=(40, 60.0, 80), tokens=(14.0, 20))
        shape = shape._replace(train=small, decode=small, batch_size=2)
    bench = Bench(choose_device(flags.device, "--device"), shape, flags.tiny, time.monotonic() + 60 * flags.minutes)
    try:
        flags.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: found {flags.out}, which cannot be made ({error.strerror}), expected a folder"
        ) from None
    results: dict[str, list[Row]] = {}
    for title, section in SECTIONS.items():
        print(f"{title} ({bench.left:.0f} s left)", flush=True)
        if bench.left <= 0:
            results[title] = [{"left out": "no time left"}]
        else:
            try:
                results[title] = section(bench)
            except Exception as error:  # the sections after it are worth having
                results[title] = [
                    {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
                ]
        write_results(flags.out, ["python", "-m", "benchmarks.gpu", *sys.argv[1:]], results)
        print("\n".join(str(row) for row in results[title]), flush=True)
    print(f"{flags.out / 'gpu.md'} and {flags.out / 'gpu.json'}: the tables")


if __name__ == "__main__":
    run_command(main)
