"""What a report shows, gathered from a model, its dataset and its folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.tokenize import code_counts, encode_split
from audiovq.config.errors import AudiovqError
from audiovq.config.flags import flags
from audiovq.config.presets import PRESETS
from audiovq.config.serialize import from_json
from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import (
    HELD_OUT,
    clips_and_why,
    counted,
    measured_split,
    recordings_in_words,
)
from audiovq.evaluation.originals import missing_note, original_piece
from audiovq.evaluation.reconstruction import reconstruct
from audiovq.evaluation.wording import describe_figures
from audiovq.generation.codes import GAUSSIAN_LEVEL_DB
from audiovq.generation.generate import generate
from audiovq.models.model import Model, require_match
from audiovq.report import sections
from audiovq.report.plots import plane
from audiovq.report.sections import Group, Picture, Report
from audiovq.runtime.files import MOST_JSON, read_bytes, read_object
from audiovq.runtime.progress import Say
from audiovq.spectral import spectrogram
from audiovq.spectral.numpy_spectrogram import Piece

COMPARED = 8
"""Recordings that are shown beside what codes keep of them, at most."""
CODES = 8
"""Single codes that are heard, each with its nearest, at most;"""
COMMON = 32
"""So many of a row's commonest are looked at: the commonest of all are silence."""
PAGE_SAMPLES = 1_000_000
"""Of all sounds on a page, which then stays below 5 MB, the pictures included."""


def write_report(
    model: Model,
    dataset: Dataset,
    folder: Path,
    path: Path | None = None,
    *,
    say: Say = lambda line: None,
) -> Path:
    """One HTML page about the model in `folder`: sounds, codebook, curves, figures, settings.

    Figures are those of `folder`/evaluation.json where `evaluate` left them, else those that training
    reached. Returns the path, `folder`/report.html unless `path` names another.
    Raises AudiovqError where the dataset's spectrograms or labels are not the model's, or the model
    makes images.
    """
    require_match(model, dataset)
    if model.spectrogram.config.images:
        raise AudiovqError(
            f"{folder}: makes images, and a report is of sounds; take `audiovq plot`"
        )
    path = path or folder / "report.html"
    longest = model.clip_frames * model.spectrogram.config.hop_length
    room = PAGE_SAMPLES // longest
    compared = max(1, min(COMPARED, room // 6))
    generated, copies = _generated(model, max(1, min(_enough(model), room - 3 * compared)))
    comparisons = _comparisons(model, dataset, compared, say)
    counts = code_counts(model, dataset.train)
    points = torch.zeros(0, 2)
    if len(counts):
        points = plane(model.autoencoder.quantizer.codebooks()[0].vectors.detach().float().cpu())
    page = Report(
        title=f"Sounds learnt from {counted(len(dataset.train), 'train')}",
        data=recordings_in_words(dataset),
        sample_rate=model.sample_rate,
        generated=generated,
        copies=copies,
        comparisons=comparisons,
        compared=clips_and_why(measured_split(dataset, *HELD_OUT).name, *HELD_OUT),
        codes=_codes(model, dataset.train) if len(counts) else [],
        metrics=_metrics(model, folder),
        code_counts=counts.numpy(),
        code_points=points.numpy(),
        figures=describe_figures(_figures(model, dataset, folder)),
        settings={
            k: model.header.get(k)
            for k in ("spectrogram", "autoencoder", "prior", "masked")
            if k in model.header
        },
        commands=_commands(dataset, folder),
    )
    sections.write(path, page)
    return path


def _enough(model: Model) -> int:
    """New sounds that show every value of the label with the fewest values twice."""
    fewest = min((len(values) for values in model.labels.values()), default=0)
    return max(12, min(40, 2 * fewest))


def _generated(model: Model, n: int) -> tuple[list[Picture], int | None]:
    """New sounds, by label, and how many are near copies of training clips (None: not compared); none
    where the model cannot make any."""
    try:
        sounds = generate(model, n, seed=7)
    except AudiovqError:
        return [], None
    sounds.sort(key=lambda sound: list(sound.labels.values()))
    names = [
        (" · ".join(s.labels.values()) or f"sound {i}")
        + (f" · near copy of {s.nearest.path}" if s.nearest and s.nearest.is_copy else "")
        for i, s in enumerate(sounds, 1)
    ]
    copies = sum(s.nearest is not None and s.nearest.is_copy for s in sounds)
    pictures = _pictures(model, names, [sound.waveform for sound in sounds])
    return pictures, None if model.known is None else copies


def _pictures(model: Model, titles: Sequence[str], waveforms: Sequence[Waveform]) -> list[Picture]:
    """Sounds with their spectrograms, each cut to what a page has room for."""
    most = PAGE_SAMPLES // 8
    cut = [waveform[:most] for waveform in waveforms]
    images = spectrogram.waveform_images(model.spectrogram, cut)
    return [
        Picture(title, waveform, image[0].numpy())
        for title, waveform, image in zip(titles, cut, images, strict=True)
    ]


def _comparisons(model: Model, dataset: Dataset, n: int, say: Say) -> list[Group]:
    """Clips, those of the test split if there are any, after encoding and decoding, and at their ceiling."""
    split = measured_split(dataset, *HELD_OUT)
    places = torch.arange(len(split))[:: max(1, len(split) // n)][:n]
    clips = [split.clips[place] for place in places.tolist()]
    ceilings = _inverted(model, split, places)
    originals = [original_piece(dataset, clip) for clip in clips]
    known = [piece or Piece(ceiling) for piece, ceiling in zip(originals, ceilings, strict=True)]
    samples = [piece.samples for piece in known]
    if model.autoencoder.config.quantizes:
        kept = codec.decode(model, codec.encode(model, samples))
    else:
        kept = reconstruct(model, samples)
    if None in originals:
        say("note: " + missing_note(dataset, "the recordings beside what the codes keep of them"))
    groups = []
    for clip, original, piece, through, ceiling in zip(
        clips, originals, known, kept, ceilings, strict=True
    ):
        sounds = {"coded": piece.own(through), "ceiling": ceiling}
        if original is not None:
            sounds = {"recording": piece.own(piece.samples)} | sounds
        pictures = _pictures(model, list(sounds), list(sounds.values()))
        groups.append(Group(" · ".join(clip.labels.values()) or clip.path, pictures))
    return groups


def _inverted(model: Model, split: Split, places: Tensor) -> list[Waveform]:
    """Clips from their true spectrograms."""
    num_samples = split.num_samples[places]
    with torch.inference_mode():
        waveforms = model.spectrogram.inverse(
            split.spectrograms(places).to(model.device),
            split.levels[places].to(model.device),
            num_samples.to(model.device),
        )
    return [w[:n].cpu().numpy() for w, n in zip(waveforms, num_samples.tolist(), strict=True)]


@torch.inference_mode()
def _codes(model: Model, split: Split) -> list[Group]:
    """The loudest of some rows' common codes, from low to high, each with its nearest, held alone."""
    autoencoder, vocabulary = model.autoencoder, model.vocabulary
    codes, columns, _ = vocabulary.codes(encode_split(model, split)[0].long())
    inside = torch.arange(codes.shape[3]) < columns[:, None]
    size, rows = vocabulary.codebook_size, vocabulary.rows
    counts = torch.stack(
        [torch.bincount(codes[:, 0, row][inside], minlength=size) for row in range(rows)]
    )
    vectors = autoencoder.quantizer.codebooks()[0].vectors.float()
    margin, width = (
        2,
        max(1, round(sections.CODE_SECONDS * model.codes_per_second / vocabulary.slots)),
    )
    frames = torch.tensor([(width + 2 * margin) * autoencoder.stride[1]])
    silence = torch.zeros(1, 1, autoencoder.bins, int(frames), device=model.device)
    quiet = autoencoder.encode(silence, frames)
    grid = autoencoder.quantizer.decode(quiet[0].permute(1, 2, 0).flatten(0, 1))
    grid = grid.view(rows, -1, vectors.shape[1]).permute(2, 0, 1)

    def held(some: Tensor, row: int) -> Tensor:
        """(codes,) → (codes, 1, bins, frames)"""
        latents = grid.repeat(len(some), 1, 1, 1)
        latents[:, :, row, margin : margin + width] = vectors[some][:, :, None]
        columns = torch.full((len(some),), latents.shape[3])
        return autoencoder.decode_latents(latents, columns)

    groups = []
    unused = (counts.sum(dim=0) == 0).to(vectors.device)
    for row in torch.linspace(0, rows - 1, min(CODES, rows)).round().int().tolist():
        common = counts[row].topk(min(COMMON, size)).indices
        code = int(common[held(common, row).sum(dim=(1, 2, 3)).argmax().cpu()])
        distances = (vectors - vectors[code]).square().sum(dim=1).masked_fill(unused, torch.inf)
        distances[code] = torch.inf
        near = int(distances.argmin())
        waveforms = [_sounding(model, image) for image in held(torch.tensor([code, near]), row)]
        share = float(counts[:, code].sum() / counts.sum())
        groups.append(
            Group(
                f"{_band(model, row)} · {share:.2%} of uses",
                _pictures(model, [f"code {code}", f"nearest: {near}"], waveforms),
            )
        )
    return groups


def _sounding(model: Model, image: Tensor) -> Waveform:
    """(1, bins, frames) → (samples,), at the level of a drawn sound."""
    num_samples = (image.shape[2] - 1) * model.spectrogram.config.hop_length
    waveform = model.spectrogram.inverse(
        image[None],
        model.spectrogram.level(torch.tensor([GAUSSIAN_LEVEL_DB], device=model.device)),
        torch.tensor([num_samples], device=model.device),
        generator=torch.Generator().manual_seed(0),
    )
    made: Waveform = waveform[0].cpu().numpy()
    return made


def _band(model: Model, row: int) -> str:
    """The frequencies that a row of codes stands for, in words."""
    config, tall = model.spectrogram.config, model.autoencoder.stride[0]
    hertz = torch.arange(config.bins) * config.sample_rate / config.n_fft
    if model.spectrogram.mel is not None:
        hertz = model.spectrogram.mel.argmax(dim=1).cpu() * config.sample_rate / config.n_fft
    own = hertz[row * tall : (row + 1) * tall].tolist()
    return f"{own[0]:,.0f} to {own[-1]:,.0f} Hz"


def _figures(model: Model, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Of evaluation.json; where there is none, what training reached."""
    if (folder / "evaluation.json").exists():
        return read_object(folder / "evaluation.json", "figures")
    found, prior = (model.header.get(s, {}).get("summary", {}) for s in ("autoencoder", "prior"))
    measured_on = str(found.get("measured_on", "validation"))
    figures: dict[str, Any] = {"measured_on": measured_on}
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
    return figures


def _metrics(model: Model, folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, the prior's with the baselines; none where training/ is gone."""
    path = folder / "training" / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in read_bytes(path, MOST_JSON).decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):  # a run killed as it wrote leaves half a line
            rows.append(json.loads(line))
    summary = model.header.get("prior", {}).get("summary", {})
    baselines = {
        name: summary[name] for name in ("uniform_bits", "unigram_bits") if name in summary
    }
    for row in rows:
        measured = model.header.get(row["stage"], {}).get("summary", {})
        row["measured_on"] = str(measured.get("measured_on", "validation"))
    return [row | (baselines if row["stage"] == "prior" else {}) for row in rows]


def _commands(dataset: Dataset, folder: Path) -> list[str]:
    """The command lines that make the dataset and the model again."""
    source, name = dataset.folder.name, folder.name
    train = [f"audiovq train {source} {name}"]
    settings = folder / "training" / "settings.json"
    if settings.exists():
        config = from_json(TrainConfig, read_object(settings, "settings").get("config"), "settings")
        preset = min(PRESETS, key=lambda preset: len(flags(config, PRESETS[preset])))
        train += [f"--preset {preset}", *flags(config, PRESETS[preset])]
    wanted = flags(dataset.preprocess, PreprocessConfig())
    return [
        " ".join(["audiovq preprocess AUDIO_DIR", source, *wanted]),
        " ".join(train),
        f"audiovq generate {name} OUT -n 16",
        f"audiovq evaluate {name} {source}",
    ]
