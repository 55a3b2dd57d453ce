"""Beam search of this project beside other ways to write it.

    python -m benchmarks.decode                              # random weights, lengths as in test-clean, no data needed
    python -m benchmarks.decode --shape an4 --beam 4
    python -m benchmarks.decode --shape an4 --checkpoint runs/an4/best.pt --data data/an4 --split dev

From features to hypotheses, all in float32 (test.py's Listener computes in bf16 where training does); each alone and
jointly with the CTC branch (-ctc):

    project      decoding/beam_search.py: all hypotheses of a batch at once
    textbook     benchmarks/reference/textbook_beam.py: the same search, one hypothesis at a time, the same results
    speechbrain  SpeechBrain's S2SRNNBeamSearcher over a decoder of about the same parameter count

Random weights never choose `<eos>`, so all contestants spell as many characters as the lengths drawn say. SpeechBrain's
rules for endings differ: with a checkpoint, whose texts end by themselves, it is left out. Medians [quartiles].
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from benchmarks.command import (
    Arguments,
    command_parser,
    introduce,
    print_table,
    read_arguments,
    without_missing,
    write_json,
)
from benchmarks.decoders import (
    Decoder,
    Hypotheses,
    Search,
    Task,
    drawn_tasks,
    project_decoder,
    random_model,
    speechbrain_decoder,
    split_tasks,
    textbook_decoder,
)
from benchmarks.measure import Contestant, Record, interleave, ratios, spread
from corpora.loading import FRAMES_PER_SECOND
from models.las import LAS
from utils.checkpoint import load_models
from utils.cli import run_command
from utils.errors import UserError

NAMES = tuple(kind + ctc for kind in ("project", "textbook", "speechbrain") for ctc in ("", "-ctc"))
CTC_WEIGHT = 0.3  # where the configuration has none


def choose(arguments: Arguments) -> tuple[LAS, Callable[[int], Task], list[str]]:
    """The model, what each round decodes, and the contestants that can."""
    given, shape, device = arguments.given, arguments.shape, arguments.device
    if given.checkpoint is None:
        model = random_model(shape.feature_dim, arguments.config.model.model_dump()).to(device)
        return model, drawn_tasks(shape, model, given.utterances or shape.batch_size, device), list(arguments.only)
    (model,), feature_format = load_models([given.checkpoint], print)
    utterances = given.utterances or arguments.shape.batch_size
    tasks = split_tasks(given.data, given.split, feature_format, utterances, device)
    names = [name for name in arguments.only if not name.startswith("speechbrain")]
    if model.ctc is None:
        names = [name for name in names if not name.endswith("-ctc")]
    if not names:
        raise UserError(f"--only: {given.checkpoint}: found nothing that this model can be measured with")
    return model.to(device).eval(), tasks, names


def make_decoder(name: str, model: LAS, arguments: Arguments) -> Decoder:
    kind, _, ctc = name.partition("-")
    decoding, settings = arguments.config.decoding, arguments.config.model.model_dump()
    weight = (decoding.ctc_weight or CTC_WEIGHT) if ctc else 0.0
    search = Search(arguments.given.beam, decoding.length_reward, weight)
    if kind == "speechbrain":
        return speechbrain_decoder(arguments.shape, settings, model, arguments.device, search)
    return {"project": project_decoder, "textbook": textbook_decoder}[kind](model, search)


def table(records: dict[str, Record], tasks: Callable[[int], Task]) -> list[dict]:
    """A row a contestant; ratios are to the project's search of the same kind, with or without CTC."""
    rows = []
    for name, record in records.items():
        kind, dash, ctc = name.partition("-")
        ours = records.get("project" + dash + ctc, Record())
        lengths = [tasks(number).lengths.cpu() for number in range(len(record.seconds))]
        pairs = list(zip(record.seconds, lengths, strict=True))
        row = {
            "contestant": name,
            "rounds": len(record.seconds),
            "ms an utterance": spread([1000 * seconds / len(frames) for seconds, frames in pairs]),
            "times project": ratios(record.seconds, ours.seconds) if ours.seconds else None,
            "times real time": spread([int(T.sum()) / FRAMES_PER_SECOND / seconds for seconds, T in pairs]),
        }
        if kind == "textbook" and ours.seconds:
            same, total, same_best, utterances = compare(record.results, ours.results)
            row |= {"same hypotheses": f"{same} of {total}", "same best": f"{same_best} of {utterances}"}
        rows.append(row)
    return rows


def compare(found: Sequence[Hypotheses], ours: Sequence[Hypotheses]) -> tuple[int, int, int, int]:
    """Hypotheses that both have at the same rank, all of them; and the same of the best one of each utterance."""
    pairs = [pair for a, b in zip(found, ours, strict=False) for pair in zip(a, b, strict=True)]
    same = sum(mine == theirs for a, b in pairs for mine, theirs in zip(a, b, strict=False))
    total = sum(max(len(a), len(b)) for a, b in pairs)
    return same, total, sum(a[0] == b[0] for a, b in pairs), len(pairs)


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--beam", type=int, default=8, metavar="K", help="hypotheses an utterance (default: 8)")
    parser.add_argument("--utterances", type=int, metavar="N", help="decoded together (default: a batch)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained model, with --data and --split")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data.root of the split to decode")
    parser.add_argument("--split", metavar="NAME", help="partition to decode")
    arguments = read_arguments(parser, NAMES)
    given = arguments.given
    for name, value in (("--beam", given.beam), ("--utterances", given.utterances)):
        if value is not None and value < 1:
            raise UserError(f"{name}: found {value}, expected 1 or more")
    together = [given.checkpoint, given.data, given.split]
    if any(value is not None for value in together) and None in together:
        raise UserError("--checkpoint, --data and --split: found some of them, expected all three or none")

    if given.checkpoint is None:
        arguments = without_missing(arguments)
    model, tasks, names = choose(arguments)
    tasks = lru_cache(maxsize=1)(tasks)
    lengths = "random weights" if given.checkpoint is None else f"{given.checkpoint} on {given.split}"
    introduce(arguments, f"{lengths}, {model.parameter_count:,} parameters, beam {given.beam}")
    contestants = [Contestant(name, tasks, make_decoder(name, model, arguments)) for name in names]
    records = interleave(contestants, arguments.rounds, arguments.seconds, arguments.device)
    rows = table(records, tasks)
    print_table("features to hypotheses", rows)
    write_json(arguments, "benchmarks.decode", {"parameters": model.parameter_count, "decoders": rows})


if __name__ == "__main__":
    run_command(main)
