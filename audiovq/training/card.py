"""The model card: a README.md of the model, its training data and what training reached."""

from __future__ import annotations

import math
from typing import Any

from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import clips_and_why, recordings_in_words
from audiovq.dataset.numbers import Numbers
from audiovq.models.checkpoint import KNOWN, PARTS
from audiovq.models.model import Model
from audiovq.training.stages.prior import OVERFITTING, overfits


def model_card(model: Model, dataset: Dataset, heritage: str = "") -> str:
    """The model card as Markdown: sounds, training data, labels, and the results of each stage.

    `heritage`: what it says about the model that training started from, if any.
    """
    spectrogram = model.spectrogram.config
    seconds = model.clip_frames * spectrogram.hop_length / model.sample_rate
    kind = f"Sounds at {model.sample_rate:,} Hz, up to {seconds:.2f} s at a time"
    if spectrogram.images:
        kind = f"Images of up to {model.clip_frames} × {spectrogram.bins} pixels"
    lines = [
        "# A model made with audiovq",
        "",
        f"{kind}; {_codes_in_words(model)}.",
        "",
        f"- trained on {recordings_in_words(dataset)}",
    ]
    for name, values in model.labels.items():
        words = f"{', '.join(values[:40])}{' …' * (len(values) > 40)}"
        if isinstance(values, Numbers):
            words = f"numbers, {values.in_words}"
        lines.append(f"- label `{name}`: {words}")
    reached = {part: model.header.get(part, {}).get("summary") for part in ("autoencoder", *PARTS)}
    lines += [f"- {part}: {summary_in_words(found)}" for part, found in reached.items() if found]
    if KNOWN in model.header:
        name = model.header[KNOWN]["file"]
        lines.append(
            f"- `{name}` holds the training recordings in coded form, for finding copies of them; if the"
            " recordings are private, delete it before you share the model"
        )
    lines += ["", "```", _command(model), "```", ""]
    if heritage:
        lines += ["## Grown from", "", heritage, ""]
    return "\n".join(lines)


def summary_in_words(summary: dict[str, Any]) -> str:
    """A stage's summary in model.json as words: metrics, the clips measured, and how training ended."""
    reached = (
        [f"bits_per_code {summary['bits_per_code']:.3g}"] if "bits_per_code" in summary else []
    )
    reached += [
        f"{key.removeprefix('validation_')} {summary[key]:.3g}"
        for key in sorted(summary)
        if key.startswith("validation_") and key != "validation_score"
    ]
    measured_on = str(summary.get("measured_on", "validation"))
    words = f"on {clips_and_why(measured_on, 'validation')}: {', '.join(reached)}"
    if "step" in summary:
        words = f"step {summary['step']:,}, {words}"
    if summary.get("ended_by") == "time":
        words += f"; stopped by the time limit ({summary['steps_planned']:,} steps were planned)"
    if "unigram_bits" in summary and overfits(summary):
        words += f"; {OVERFITTING}"
    return words


def _command(model: Model) -> str:
    """What to type first with the model."""
    bottleneck = model.autoencoder.config.bottleneck
    if model.generates:
        return "audiovq generate MODEL OUT -n 16"
    if bottleneck.quantizes and not model.spectrogram.config.images:
        return "audiovq reconstruct MODEL RECORDINGS OUT"
    return "audiovq plot MODEL PLOT.png"


def _codes_in_words(model: Model) -> str:
    config = model.autoencoder.config
    if not config.quantizes:
        return f"no codes (bottleneck {config.bottleneck.kind})"
    if model.spectrogram.config.images:
        count = model.vocabulary.slots * model.vocabulary.max_columns
        return f"{count} codes an image, {count * math.log2(config.bottleneck.num_codes):.0f} bits"
    rate = model.codes_per_second
    return f"{rate:.0f} codes a second, {rate * math.log2(config.bottleneck.num_codes):.0f} bit/s"
