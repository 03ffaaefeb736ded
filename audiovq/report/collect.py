"""Collects the contents of a report from a model, its dataset and its folder."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.single import held_codes, held_waveform
from audiovq.codec.tokenize import code_counts, encode_split
from audiovq.config.errors import AudiovqError
from audiovq.dataset.batches import evenly_spaced
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import (
    HELD_OUT,
    clips_and_why,
    counted,
    measured_split,
    recordings_in_words,
)
from audiovq.dataset.numbers import Numbers
from audiovq.evaluation.originals import missing_note, original_piece
from audiovq.evaluation.reconstruction import reconstruct
from audiovq.evaluation.verdict import facts_of, verdict
from audiovq.evaluation.wording import describe_figures
from audiovq.generation.generate import generate
from audiovq.generation.labels import learns_labels, learnt_values
from audiovq.generation.sound import Sound
from audiovq.models.model import Model, require_match
from audiovq.report import commands, sections
from audiovq.report.axes import bin_hertz, hertz_ticks
from audiovq.report.plots import project_to_plane
from audiovq.report.sections import Group, Picture, Report
from audiovq.runtime.files import MAX_JSON_BYTES, read_bytes, read_object
from audiovq.runtime.progress import Say, percent
from audiovq.spectral import spectrogram
from audiovq.spectral.numpy_spectrogram import Piece

MAX_COMPARED = 8
"""Maximum number of recordings that are compared with their reconstructions."""
MAX_CODES = 8
"""Maximum number of single codes that are played."""
CANDIDATES = 32
"""Most frequent codes of a row among which the loudest is chosen: the most frequent one is silence."""
NEW_SAMPLES, COMPARED_SAMPLES = 2_500_000, 1_200_000
"""Samples, of all channels, of all new sounds and of all comparisons on a page, which keeps it below 14 MB. Long
sounds are cut where they are more."""
FEWEST_SOUNDS, MOST_SOUNDS = 20, 40
"""New sounds."""
FEWEST_COMPARED = 4


def write_report(
    model: Model,
    dataset: Dataset,
    folder: Path,
    path: Path | None = None,
    *,
    say: Say = lambda line: None,
) -> Path:
    """Write an HTML page about the model in `folder`: sounds, codebook, curves, figures, settings.

    Figures are from `folder`/evaluation.json, or if `evaluate` has not run, from training. Returns the
    path; the default is `folder`/report.html. Raises AudiovqError if the dataset's spectrograms or labels
    differ from the model's, or the model generates images.
    """
    require_match(model, dataset)
    if model.spectrogram.config.images:
        raise AudiovqError(
            f"{folder}: reports show sounds, and this model generates images; use `audiovq plot`"
        )
    path = path or folder / "report.html"
    new = "about twenty new sounds, and " if model.generates else ""
    say(f"writing {path}: {new}recordings beside their reconstructions")
    generated, copies = _generated(model)
    comparisons = _comparisons(model, dataset, say)
    counts = code_counts(model, dataset.train)
    points = torch.zeros(0, 2)
    if len(counts):
        points = project_to_plane(
            model.autoencoder.quantizer.codebooks()[0].vectors.detach().float().cpu()
        )
    figures = _figures(model, dataset, folder)
    found = None if copies is None else (copies, len(generated))
    page = Report(
        title=f"Sounds learned from {counted(len(dataset.train), 'train')}",
        verdict=verdict(facts_of(model), figures, found),
        data=recordings_in_words(dataset),
        sample_rate=model.sample_rate,
        channels=model.channels,
        generated=generated,
        copies=copies,
        comparisons=comparisons,
        same_decoder=bool(generated) and model.vivid is None,
        compared=clips_and_why(measured_split(dataset, *HELD_OUT).name, *HELD_OUT),
        codes=_codes(model, dataset.train) if len(counts) else [],
        metrics=_metrics(model, folder),
        code_counts=counts.numpy(),
        code_points=points.numpy(),
        figures=describe_figures(figures),
        settings={
            k: model.header.get(k)
            for k in ("spectrogram", "autoencoder", "prior", "masked")
            if k in model.header
        },
        commands=commands.made_by(dataset, folder),
        next_steps=commands.in_columns(
            commands.next_steps(model, folder.resolve().name, dataset.folder.resolve().name)
        ),
    )
    sections.write(path, page)
    say(f"in short: {page.verdict}")
    return path


def _generated(model: Model) -> tuple[list[Picture], int | None]:
    """New sounds sorted by label, and the number of near copies of training clips (None: not compared); no sounds if
    the model cannot generate.

    They are asked for as `_asked` says. Where they are more than NEW_SAMPLES, the last are left out, down to
    FEWEST_SOUNDS; where these are more, they are cut, and their captions say so.
    """
    asked = _asked(model)
    try:
        sounds = generate(model, seed=7, **asked)
    except AudiovqError:
        return [], None
    # Each value in turn, so that none is left out where the last sounds are.
    each = asked.get("each", 1)
    sounds = _within([sound for first in range(each) for sound in sounds[first::each]])
    sounds.sort(key=lambda sound: list(sound.labels.values()))
    names = [
        (" · ".join(s.labels.values()) or f"sound {i}")
        + (f" · near copy of {s.nearest.path}" if s.nearest and s.nearest.is_copy else "")
        for i, s in enumerate(sounds, 1)
    ]
    copies = sum(s.nearest is not None and s.nearest.is_copy for s in sounds)
    compared = model.known is not None and any(s.nearest is not None for s in sounds)
    waveforms = [sound.waveform for sound in sounds]
    most = _longest([w.shape[-1] for w in waveforms], NEW_SAMPLES // model.channels)
    pictures = _pictures(model, names, waveforms, most)
    return pictures, copies if compared else None


def _asked(model: Model) -> dict[str, Any]:
    """What `generate` is asked for: each value of one label equally often, in all FEWEST_SOUNDS to MOST_SOUNDS.

    The label is that with the fewest values, but two at least; one that is a number only where no other is. With labels
    as frequent as in training, MOST_SOUNDS are asked for where it has more values than these, and FEWEST_SOUNDS where
    there is no such label, or the model has not learnt labels.
    """
    values = {name: learnt_values(model, name) for name in model.labels if learns_labels(model)}
    sizes = [
        (isinstance(model.labels[name], Numbers), len(listed), name)
        for name, listed in values.items()
        if len(listed) > 1
    ]
    if not sizes:
        return {"n": FEWEST_SOUNDS}
    _, fewest, by = min(sizes)
    if fewest > MOST_SOUNDS:
        return {"n": MOST_SOUNDS}
    each = max(-(-FEWEST_SOUNDS // fewest), min(2, MOST_SOUNDS // fewest))
    return {"each": each, "by": by}


def _within(sounds: list[Sound]) -> list[Sound]:
    """The first sounds that have NEW_SAMPLES together; at least FEWEST_SOUNDS."""
    sizes = [sound.waveform.size for sound in sounds]
    count = sum(total <= NEW_SAMPLES for total in itertools.accumulate(sizes))
    return sounds[: max(FEWEST_SOUNDS, count)]


def _longest(lengths: Sequence[int], total: int) -> int:
    """The length to which sounds are cut so that they have at most `total` samples: short ones leave theirs to long ones."""
    left = total
    for index, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - index)
        if length > share:
            return share
        left -= length
    return max(lengths, default=0)


def _pictures(
    model: Model, titles: Sequence[str], waveforms: Sequence[Waveform], most: int = COMPARED_SAMPLES
) -> list[Picture]:
    """Sounds with their spectrograms, cut to `most` samples."""
    cut = [waveform[..., :most] for waveform in waveforms]
    images = spectrogram.waveform_images(model.spectrogram, cut)
    return [
        Picture(title, part, image[0].numpy(), hertz_ticks(model.spectrogram), whole.shape[-1])
        for title, part, image, whole in zip(titles, cut, images, waveforms, strict=True)
    ]


def _comparisons(model: Model, dataset: Dataset, say: Say) -> list[Group]:
    """Clips of the measured split: the recording, encoded and decoded, and from the true spectrogram (ceiling)."""
    split = measured_split(dataset, *HELD_OUT)
    clip_samples = int(split.num_samples.float().mean()) * model.channels
    n = max(FEWEST_COMPARED, min(MAX_COMPARED, COMPARED_SAMPLES // max(1, 3 * clip_samples)))
    most = 2 * COMPARED_SAMPLES // model.channels // (3 * n)  # few are longer than twice the mean
    indices = evenly_spaced(len(split), n)[:n]
    clips = [split.clips[index] for index in indices.tolist()]
    ceilings = _inverted(model, split, indices)
    originals = [original_piece(dataset, clip) for clip in clips]
    pieces = [piece or Piece(ceiling) for piece, ceiling in zip(originals, ceilings, strict=True)]
    samples = [piece.samples for piece in pieces]
    if model.autoencoder.config.quantizes:
        decoded = codec.decode(model, codec.encode(model, samples))
    else:
        decoded = reconstruct(model, samples)
    if None in originals:
        say("note: " + missing_note(dataset, "original recordings next to their reconstructions"))
    groups = []
    for clip, original, piece, coded, ceiling in zip(
        clips, originals, pieces, decoded, ceilings, strict=True
    ):
        sounds = {"coded": piece.cut_to_clip(coded), "ceiling": ceiling}
        if original is not None:
            sounds = {"recording": piece.cut_to_clip(piece.samples)} | sounds
        pictures = _pictures(model, list(sounds), list(sounds.values()), most)
        groups.append(Group(" · ".join(clip.labels.values()) or clip.path, pictures))
    return groups


def _inverted(model: Model, split: Split, indices: Tensor) -> list[Waveform]:
    """Waveforms of clips from their true spectrograms."""
    num_samples = split.num_samples[indices]
    with torch.inference_mode():
        waveforms = model.spectrogram.inverse(
            split.spectrograms(indices).to(model.device),
            split.levels[indices].to(model.device),
            num_samples.to(model.device),
        )
    return [w[..., :n].cpu().numpy() for w, n in zip(waveforms, num_samples.tolist(), strict=True)]


@torch.inference_mode()
def _codes(model: Model, split: Split) -> list[Group]:
    """One common code for each of several rows, from low to high, and its nearest neighbour.

    Each is held in its row: see `codec.single`.
    """
    autoencoder, vocabulary = model.autoencoder, model.vocabulary
    codes, columns, _ = vocabulary.codes(encode_split(model, split)[0].long())
    mask = torch.arange(codes.shape[3]) < columns[:, None]
    size, rows = vocabulary.codebook_size, vocabulary.rows
    counts = torch.stack(
        [torch.bincount(codes[:, 0, row][mask], minlength=size) for row in range(rows)]
    )
    vectors = autoencoder.quantizer.codebooks()[0].vectors.float()
    groups = []
    unused = (counts.sum(dim=0) == 0).to(vectors.device)
    for row in torch.linspace(0, rows - 1, min(MAX_CODES, rows)).round().int().tolist():
        common = counts[row].topk(min(CANDIDATES, size)).indices
        common = common[counts[row][common] > 0]
        if not len(common):  # of no clip that is so high
            continue
        code = int(common[held_codes(model, common, row)[:, 0].sum(dim=(1, 2)).argmax().cpu()])
        distances = (vectors - vectors[code]).square().sum(dim=1).masked_fill(unused, torch.inf)
        distances[code] = torch.inf
        nearest = int(distances.argmin())
        shown = {f"code {code}": code}
        if distances[nearest] < torch.inf:  # another code is in use
            shown[f"nearest: {nearest}"] = nearest
        held = held_codes(model, torch.tensor([*shown.values()]), row)
        waveforms = [held_waveform(model, image) for image in held]
        share = float(counts[:, code].sum() / counts.sum())
        groups.append(
            Group(
                f"{_band(model, row)} · {percent(share, 2)} of uses",
                _pictures(model, [*shown], waveforms),
            )
        )
    return groups


def _band(model: Model, row: int) -> str:
    """Frequency range of a row of codes, such as `31 to 281 Hz`."""
    tall = model.autoencoder.stride[0]
    in_row = bin_hertz(model.spectrogram)[row * tall : (row + 1) * tall]
    return f"{in_row[0]:,.0f} to {in_row[-1]:,.0f} Hz"


def _figures(model: Model, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The figures in evaluation.json, or without it, or where it is of an earlier state of the model, the last validation
    of the training."""
    if (folder / "evaluation.json").exists():
        evaluated = read_object(folder / "evaluation.json", "figures")
        if evaluated.pop("networks", model.checksums) == model.checksums:
            return evaluated
    stages = "autoencoder", "prior", "masked"
    found, prior, masked = (model.header.get(stage, {}).get("summary", {}) for stage in stages)
    measured_on = str(found.get("measured_on", "validation"))
    figures: dict[str, Any] = {"measured_on": measured_on, "from_training": True}
    sizes = {split.name: len(split) for split in (dataset.train, dataset.validation)}
    if sizes.get(measured_on):
        figures["clips"] = sizes[measured_on]
    if "validation_error_db" in found:
        figures["reconstruction"] = {"error_db": found["validation_error_db"]}
    if "validation_usage" in found:
        bits = model.codes_per_second * torch.tensor(model.vocabulary.codebook_size).log2()
        figures["codebook"] = {
            "usage": found["validation_usage"],
            "perplexity": found["validation_perplexity"],
            "codes_per_second": model.codes_per_second,
            "nominal_bits_per_second": float(bits),
        }
    if "validation_bits_per_code" in prior:
        figures["prior"] = {
            "bits_per_code": prior["validation_bits_per_code"],
            "uniform_bits": prior["uniform_bits"],
            "unigram_bits": prior["unigram_bits"],
        }
    if "validation_bits_per_code" in masked:
        figures["masked"] = {"bits_per_code": masked["validation_bits_per_code"]}
    return figures


def _metrics(model: Model, folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, those of the prior with baselines; empty without the folder training/."""
    path = folder / "training" / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in read_bytes(path, MAX_JSON_BYTES).decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):  # a run that was killed may leave half a line
            rows.append(json.loads(line))
    summary = model.header.get("prior", {}).get("summary", {})
    baselines = {
        name: summary[name] for name in ("uniform_bits", "unigram_bits") if name in summary
    }
    for row in rows:
        measured = model.header.get(row["stage"], {}).get("summary", {})
        row["measured_on"] = str(measured.get("measured_on", "validation"))
    return [row | (baselines if row["stage"] == "prior" else {}) for row in rows]
