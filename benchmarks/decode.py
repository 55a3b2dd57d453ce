"""Decoding speed of this project's beam search, compared with other implementations.

    python -m benchmarks.decode                              # random weights, lengths as in test-clean, no data needed
    python -m benchmarks.decode --shape an4 --beam 4
    python -m benchmarks.decode --shape an4 --checkpoint runs/an4/best.pt --data data/an4 --split dev

From features to hypotheses, all in float32 (test.py's Listener computes in bf16 where training does). Each contestant
decodes by attention alone and, as NAME-ctc, jointly with the CTC branch:

    project      decoding/beam_search.py: all hypotheses of a batch at once
    textbook     benchmarks/reference/textbook_beam.py: the same search, one hypothesis at a time, the same results
    speechbrain  SpeechBrain's S2SRNNBeamSearcher over a decoder of about the same parameter count

Random weights never choose `<eos>`, so every contestant spells as many characters as the drawn lengths ask for.
SpeechBrain has other rules for the end of a hypothesis: with a checkpoint, whose texts end by themselves, it is left
out. Values are medians [quartiles].
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.cli import (
    Arguments,
    command_parser,
    parse_arguments,
    print_setup,
    print_table,
    skip_missing_speechbrain,
    write_json,
)
from benchmarks.decoders import (
    Batches,
    Decoder,
    Hypotheses,
    SearchOptions,
    partition_batches,
    project_decoder,
    random_model,
    speechbrain_decoder,
    synthetic_batches,
    textbook_decoder,
)
from benchmarks.measure import Contestant, Measurement, interleave, quartiles, ratios
from corpora.loading import FRAMES_PER_SECOND
from models.las import LAS
from utils.checkpoint import load_models
from utils.cli import run_command
from utils.errors import UserError

NAMES = tuple(kind + ctc for kind in ("project", "textbook", "speechbrain") for ctc in ("", "-ctc"))
CTC_WEIGHT = 0.3  # if the configuration has none
OURS: dict[str, Callable[[LAS, SearchOptions], Decoder]] = {"project": project_decoder, "textbook": textbook_decoder}


def set_up(arguments: Arguments) -> tuple[LAS, Batches, list[str]]:
    """The model, the batches to decode, and the names of the contestants that can decode them.

    Raises:
        UserError: the checkpoint or the partition cannot be read, or there is no such contestant.
    """
    flags, shape, device = arguments.flags, arguments.shape, arguments.device
    utterances = flags.utterances or shape.batch_size
    if flags.checkpoint is None:
        model = random_model(shape.feature_dim, arguments.config.model_kwargs).to(device)
        return model, synthetic_batches(shape, model, utterances, device), list(arguments.only)
    loaded = load_models([flags.checkpoint])
    model = loaded.models[0]
    batches = partition_batches(flags.data, flags.split, loaded.features, utterances, device)
    able = [name for name in NAMES if not name.startswith("speechbrain") and (model.ctc or not name.endswith("-ctc"))]
    names = [name for name in arguments.only if name in able]
    if not names:
        expected = f"expected some of {', '.join(able)}, which {flags.checkpoint} can be decoded with"
        raise UserError(f"--only: found {', '.join(arguments.only)}, {expected}")
    return model.to(device).eval(), batches, names


def make_decoder(name: str, model: LAS, arguments: Arguments) -> Decoder:
    """The decoder of a contestant; SpeechBrain gets a model of its own, as large as `model`."""
    kind, _, ctc = name.partition("-")
    decoding = arguments.config.decoding
    weight = (decoding.ctc_weight or CTC_WEIGHT) if ctc else 0.0
    search = SearchOptions(arguments.flags.beam, decoding.length_reward, weight)
    if kind in OURS:
        return OURS[kind](model, search)
    feature_dim, model_kwargs = arguments.shape.feature_dim, arguments.config.model_kwargs
    return speechbrain_decoder(feature_dim, model_kwargs, model.parameter_count, arguments.device, search)


def tabulate(measurements: Mapping[str, Measurement], batches: Batches) -> list[dict[str, Any]]:
    """One row per contestant; ratios are to the project's search of the same kind, with or without CTC."""
    rows = []
    for name, measurement in measurements.items():
        kind, dash, ctc = name.partition("-")
        ours = measurements.get("project" + dash + ctc, Measurement())
        lengths = [batches(number).lengths.cpu() for number in range(len(measurement.seconds))]
        pairs = list(zip(measurement.seconds, lengths, strict=True))
        row = {
            "contestant": name,
            "rounds": len(measurement.seconds),
            "ms per utterance": quartiles([1000 * seconds / len(frames) for seconds, frames in pairs]),
            "times project": ratios(measurement.seconds, ours.seconds) if ours.seconds else None,
            "times real time": quartiles([int(T.sum()) / FRAMES_PER_SECOND / seconds for seconds, T in pairs]),
        }
        if kind == "textbook" and ours.seconds:
            same, total, same_best, utterances = count_agreement(measurement.results, ours.results)
            row |= {"same hypotheses": f"{same} of {total}", "same best": f"{same_best} of {utterances}"}
        rows.append(row)
    return rows


def count_agreement(found: Sequence[Hypotheses], expected: Sequence[Hypotheses]) -> tuple[int, int, int, int]:
    """Counts hypotheses that two decoders agree on, in the rounds that both have.

    Returns:
        How many are equal at the same position of the N-best list, and out of how many; for how many utterances the
        best ones are equal, and out of how many.
    """
    pairs = [pair for a, b in zip(found, expected, strict=False) for pair in zip(a, b, strict=True)]
    same = sum(mine == theirs for a, b in pairs for mine, theirs in zip(a, b, strict=False))
    total = sum(max(len(a), len(b)) for a, b in pairs)
    return same, total, sum(a[0] == b[0] for a, b in pairs), len(pairs)


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--beam", type=int, default=8, metavar="K", help="hypotheses per utterance (default: 8)")
    parser.add_argument("--utterances", type=int, metavar="N", help="decoded together (default: a batch)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained model, with --data and --split")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data.root of the split to decode")
    parser.add_argument("--split", metavar="NAME", help="partition to decode")
    arguments = parse_arguments(parser, NAMES)
    flags = arguments.flags
    for name, value in (("--beam", flags.beam), ("--utterances", flags.utterances)):
        if value is not None and value < 1:
            raise UserError(f"{name}: found {value}, expected 1 or more")
    together = [flags.checkpoint, flags.data, flags.split]
    if any(value is not None for value in together) and None in together:
        raise UserError("--checkpoint, --data and --split: found some of them, expected all three or none")

    if flags.checkpoint is None:
        arguments = skip_missing_speechbrain(arguments)
    model, batches, names = set_up(arguments)
    batches = lru_cache(maxsize=1)(batches)
    source = "random weights" if flags.checkpoint is None else f"{flags.checkpoint} on {flags.split}"
    print_setup(arguments, f"{source}, {model.parameter_count:,} parameters, beam {flags.beam}")
    contestants = [Contestant(name, batches, make_decoder(name, model, arguments)) for name in names]
    measurements = interleave(contestants, arguments.rounds, arguments.seconds, arguments.device)
    rows = tabulate(measurements, batches)
    print_table("features to hypotheses", rows)
    tables = {"parameters": model.parameter_count, "decoders": rows}
    write_json(arguments.json, flags, "benchmarks.decode", arguments.device, tables)


if __name__ == "__main__":
    run_command(main)
