"""Diagnosis of a run that is stuck: what an epoch's metrics show, and which keys usually help."""

from collections.abc import Mapping

from training.schedules import ALIGNED

PATIENCE = 8  # epochs that train the Speller between two diagnoses
UNREAD = 0.8  # distance of the CTC branch alone, per character, from which on it reads hardly anything
FLAT = 0.2  # sharpness below which attention counts as flat
MOST, MANY = 0.5, 0.2  # shares of dev hypotheses without an end, and of looping ones, above which a warning is due

ALIGNMENT = """What usually helps, in this order, where it is not set yet: training.ctc_weight=0.3 with at most 4x time
reduction (two strides of 2); training.guided_attention=1; training.teacher_forcing.start=1.0 without stages until
aligned; model.attention.kind=relative, aligned by CTC, or model.attention.kind=location
model.speller.input_feeding=true; a lower or higher training.learning_rate; augment.from_epoch after alignment; more
speech. Small corpora need more epochs."""
READING = """What usually helps: at most 4x time reduction (two strides of 2); transcripts that belong to their
features; augment.from_epoch later; a lower or higher training.learning_rate, a longer training.warmup_epochs; more
speech. Attention of kind relative cannot align before."""
ENDING = """What usually helps: decoding.ctc_weight=0.5 with training.ctc_weight above 0, since the CTC branch knows
where speech ends; more epochs; transcripts that say all that is said."""
LOOPING = """What usually helps: model.attention.kind=relative with training.ctc_weight above 0, or
model.attention.kind=location model.speller.input_feeding=true, which know how far the text has come;
decoding.ctc_weight=0.5 with training.ctc_weight above 0; training.teacher_forcing stages, so that it learns to go on
after its own mistakes; more epochs, or a higher model.speller.dropout where train loss is far below dev loss."""


def diagnose(metrics: Mapping[str, float], epoch: int) -> list[str]:
    """A warning for each way in which a model fails: what was seen, and what usually helps.

    Args:
        metrics: those of `evaluate`; what is missing, as in rows of older runs, is not judged.
        epoch: after which they were measured.
    """
    value, sharp = metrics["dev_monotonicity"], metrics.get("dev_sharpness")
    unended, loops = metrics.get("dev_unended", 0.0), metrics.get("dev_loops", 0.0)
    warnings = []
    if value < ALIGNED:
        seen = f"monotonicity {value:.2f}"
        if sharp is not None:
            manner = "it is nearly flat" if sharp < FLAT else "it picks places, but not in order"
            seen += f", sharpness {sharp:.2f}: {manner}"
        warnings.append(
            f"not aligned after {epoch} epochs: attention does not move along the speech ({seen}).\n{ALIGNMENT}"
        )
    cer, ctc_distance = metrics.get("dev_cer", 0.0), metrics.get("dev_ctc_distance", 0.0)
    characters = metrics["dev_distance"] / cer if cer else 0.0  # of a reference, in the mean
    if ctc_distance > UNREAD * characters > 0:
        warnings.append(
            f"CTC reads nothing after {epoch} epochs: its branch alone has distance {ctc_distance:.1f}, of "
            f"{characters:.1f} characters.\n{READING}"
        )
    if unended > MOST:
        warnings.append(
            f"no <eos> after {epoch} epochs: {unended:.0%} of the dev hypotheses run to their limit of characters"
            f"{_follows(value)}.\n{ENDING}"
        )
    if loops > MANY:
        warnings.append(
            f"loops after {epoch} epochs: {loops:.0%} of the dev hypotheses repeat themselves far more than their "
            f"references{_follows(value)}.\n{LOOPING}"
        )
    return warnings


def _follows(monotonicity: float) -> str:
    return ", as they do before attention aligns" if monotonicity < ALIGNED else ""
