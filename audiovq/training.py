"""Training a model on a dataset: the autoencoder first, then the prior over its codes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiovq import audio
from audiovq.autoencoder import RECONSTRUCTION_SCALE, Autoencoder
from audiovq.bottlenecks import Codebook, Gaussian
from audiovq.checkpoint import Model, load, new_model, save
from audiovq.config import PRESETS, AudiovqError, TrainConfig, from_json, to_json
from audiovq.dataset import Dataset, Split
from audiovq.files import atomic, claimed, clear, is_blank, read_json, sweep, write_json, write_text
from audiovq.fitting import fit_context
from audiovq.generation import generate
from audiovq.prior import Prior
from audiovq.trainer import Diverged, State, Step, Trainer, pick_precision
from audiovq.views import VIEWS, VIEWS_SHARE, encode_split, varied

Say = Callable[[str], None]
SAMPLES = 6
"""Clips shown while training."""
CONTEXT_SHARE = 0.05
"""Of a time limit that fitting the context tables may take,"""
CODEC_CONTEXT_SHARE = 0.2
"""and where archives are all that a model is for (no prior), up to CODEC_CONTEXT_SECONDS."""
CODEC_CONTEXT_SECONDS = 300.0
SAMPLE_EVERY = 0.2
"""Share of the schedule between two such samples."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` → CUDA where there is one, else Apple's MPS, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise AudiovqError(f"--device {name}: no CUDA device here; take cpu, or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise AudiovqError("--device mps: no Apple GPU here; take cpu, or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise AudiovqError(f"--device {name}: take auto, cpu, cuda or mps") from error


def train(
    dataset: Dataset | Path | str,
    folder: Path | str,
    config: TrainConfig | str = "small",
    *,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = print,
) -> Model:
    """Train a model on `dataset` into `folder`: autoencoder, then prior.

    `config` may name a preset. Run again with the same settings it goes on where it stopped; what
    `folder` holds is a usable model from the autoencoder's first validation on. Raises AudiovqError
    where the folder holds something else.
    """
    folder = Path(folder)
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(Path(dataset))
    config = PRESETS[config] if isinstance(config, str) else config
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise AudiovqError(f"training runs in one process so far, not in {processes}; start one")
    place = pick_device(device)
    with claimed(folder):
        _claim(folder, dataset, config, overwrite)
        return _train(dataset, folder, config, place, say)


def _train(
    dataset: Dataset, folder: Path, config: TrainConfig, place: torch.device, say: Say
) -> Model:
    """All stages, each from where it stopped."""
    torch.manual_seed(config.seed)
    model = new_model(
        dataset.spectrogram,
        config.autoencoder,
        dataset.labels,
        count_labels(dataset.train),
        dataset.clip_frames,
    )
    model.to(place)
    limit = 60 * config.max_minutes if config.max_minutes else None
    share = config.autoencoder_share if config.autoencoder.quantizes else 1.0
    context_limit = None
    if limit is not None and config.autoencoder.quantizes:
        context_limit = CONTEXT_SHARE * limit
        if share == 1:
            context_limit = min(CODEC_CONTEXT_SHARE * limit, CODEC_CONTEXT_SECONDS)
        limit -= context_limit
    seconds = _train_autoencoder(dataset, model, folder, config, limit and limit * share, say)
    model = load(folder, place)
    if limit is not None:
        limit = max(limit - seconds, limit * (1 - share) / 2)  # one that was raised has its due
    if config.autoencoder.quantizes:
        if model.context is None:
            _fit_context(dataset, model, folder, config, context_limit, say)
        if share < 1:
            _train_prior(dataset, model, folder, config, limit, say)
        model = load(folder, place)
    write_text(folder / "README.md", model_card(model))
    return model


def model_card(model: Model) -> str:
    """What a model is, in a page of Markdown."""
    spectrogram = model.spectrogram.config
    lines = [
        "# A model made with audiovq",
        "",
        f"Sounds at {model.sample_rate:,} Hz, up to"
        f" {model.clip_frames * spectrogram.hop_length / model.sample_rate:.2f} s at a time;"
        f" {_codes_in_words(model)}.",
        "",
    ]
    for name, values in model.labels.items():
        lines.append(f"- label `{name}`: {', '.join(values[:40])}{' …' * (len(values) > 40)}")
    for stage in ("autoencoder", "prior"):
        summary = model.header.get(stage, {}).get("summary", {})
        reached = ", ".join(
            f"{key.removeprefix('validation_')} {summary[key]:.3g}"
            for key in sorted(summary)
            if key.startswith("validation_") and key != "validation_score"
        )
        if summary:
            lines.append(f"- {stage}: step {summary['step']:,}, on validation clips: {reached}")
    lines += ["", "```", "audiovq generate MODEL OUT -n 16", "```", ""]
    return "\n".join(lines)


def _codes_in_words(model: Model) -> str:
    config = model.autoencoder.config
    if not config.quantizes:
        return f"no codes (bottleneck {config.bottleneck})"
    rate = model.codes_per_second
    return f"{rate:.0f} codes a second, {rate * math.log2(config.codebook_size):.0f} bit/s"


def count_labels(split: Split) -> list[tuple[tuple[int, ...], int]]:
    """Which label values the clips have together, and how often."""
    return sorted(Counter(tuple(row) for row in split.label_indices.tolist()).items())


def _claim(folder: Path, dataset: Dataset, config: TrainConfig, overwrite: bool) -> None:
    """Make `folder` this very training's: new, or one that was stopped."""
    path = folder / "training" / "settings.json"
    settings = {
        "dataset": dataset.fingerprint,
        "dataset_folder": str(dataset.folder.resolve()),
        "config": to_json(config),
    }
    if overwrite and ((folder / "model.json").exists() or path.exists()):
        write_json(path, {})  # a run killed now leaves what can be overwritten
        clear(folder, but=path.parent)
        clear(path.parent, but=path)
    elif path.exists():
        before = read_json(path, "a training folder")
        if before.get("dataset") != settings["dataset"]:
            raise AudiovqError(
                f"{folder}: was trained on another dataset; name another folder, or add --overwrite"
            )
        # The time limit may change between a stop and the next start.
        same = dataclasses.replace(
            from_json(TrainConfig, before.get("config"), str(path)), max_minutes=config.max_minutes
        )
        if to_json(same) != settings["config"]:
            raise AudiovqError(
                f"{folder}: was trained with other settings ({_difference(to_json(same), to_json(config))});"
                " name another folder, or add --overwrite"
            )
        sweep(folder)
        return
    elif not is_blank(folder):
        raise AudiovqError(
            f"{folder}: exists already and is no started training; name another folder"
        )
    sweep(folder)
    write_json(path, settings)


def trained_on(folder: Path) -> Dataset:
    """The dataset that the model in `folder` was trained on. Raises AudiovqError where it is gone."""
    path = folder / "training" / "settings.json"
    where = read_json(path, "a model that knows its dataset").get("dataset_folder", "")
    try:
        return Dataset(Path(where))
    except AudiovqError as error:
        raise AudiovqError(f"{folder}: name the dataset it was trained on ({error})") from error


def _difference(before: dict[str, Any], now: dict[str, Any], path: str = "") -> str:
    """The first setting that differs, in words."""
    for key, value in now.items():
        if isinstance(value, dict):
            if found := _difference(before[key], value, f"{path}{key}."):
                return found
        elif list(value) != list(before[key]) if isinstance(value, tuple) else value != before[key]:
            return f"{path}{key} was {before[key]}, is {value}"
    return ""


def _train_autoencoder(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> float:
    """Train and save the autoencoder; returns the seconds it took."""
    autoencoder, device = model.autoencoder, model.device
    trainer = Trainer(
        autoencoder,
        config.autoencoder_training,
        folder / "training",
        stage="autoencoder",
        seed=config.seed,
        dtype=pick_precision(config.precision, device),
        max_seconds=limit,
    )
    stride = autoencoder.stride[1]
    split = dataset.train

    def loss(step: Step) -> dict[str, Tensor]:
        _set_schedule(autoencoder, step.progress)
        shift = torch.randint(stride, (len(step.indices),), generator=step.generator)
        images, frames = varied(split, step.indices, shift, torch.ones(len(shift)))
        labels = split.label_indices[step.indices]
        result = autoencoder(images.to(device), frames, labels, step.generator)
        return {
            "loss": result.loss,
            "reconstruction_loss": result.reconstruction_loss,
            "squared_error": result.squared_error,
            "weighted_error": result.weighted_error,
            "bottleneck_loss": result.bottleneck_loss,
        } | ({} if result.kl is None else {"kl": result.kl})

    held_out = dataset.validation if len(dataset.validation) else split

    def validate() -> dict[str, float]:
        return validate_autoencoder(autoencoder, held_out, dataset.spectrogram.range_db)

    def keep(state: State, metrics: Mapping[str, float]) -> None:
        save(folder, model, "autoencoder", {"step": state.step, **metrics})

    shown = [trainer.progress]

    def speak(metrics: Mapping[str, float]) -> None:
        say(describe_autoencoder(metrics, config.autoencoder.codebook_size))
        validated = "validation_score" in metrics
        if validated and metrics["progress"] >= min(1.0, shown[0] + SAMPLE_EVERY):
            shown[0] = metrics["progress"]
            _sample_reconstructions(model, held_out, folder, int(metrics["step"]))

    if trainer.state.done:
        say("autoencoder: trained already")
    elif not trainer.state.step:
        parameters = sum(p.numel() for p in autoencoder.parameters())
        say(
            f"autoencoder: {parameters:,} parameters, {len(split):,} clips, on {device} in {trainer.dtype}".replace(
                "torch.", ""
            )
        )
    with _naming(split):
        return trainer.fit(split.num_frames, loss, validate, keep, speak).seconds


@contextlib.contextmanager
def _naming(split: Split) -> Iterator[None]:
    """Where training diverges, say on which recordings."""
    try:
        yield
    except Diverged as error:
        # The prior's clips are views of the split's, one whole round after another.
        paths = sorted({split.clips[place % len(split)].path for place in error.places})
        names = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
        raise AudiovqError(f"{error} (the batch there: {names})") from error


def _sample_reconstructions(model: Model, split: Split, folder: Path, step: int) -> None:
    """A few held-out clips and what the autoencoder makes of them, to look at and listen to."""
    places = torch.arange(len(split))[:: max(1, len(split) // SAMPLES)][:SAMPLES]
    frames, levels = split.num_frames[places], split.levels[places].to(model.device)
    images = split.spectrograms(places).to(model.device)
    with torch.inference_mode():
        made = model.autoencoder(images, frames).spectrogram
    num_samples = split.num_samples[places].to(model.device)
    both = [model.spectrogram.inverse(x, levels, num_samples).cpu().numpy() for x in (images, made)]
    lengths = split.num_samples[places].tolist()
    waveforms = [w[:n] for *pair, n in zip(*both, lengths, strict=True) for w in pair]
    _write_samples(folder, "autoencoder", step, model, waveforms)


def _write_samples(
    folder: Path, stage: str, step: int, model: Model, waveforms: Sequence[audio.Waveform]
) -> None:
    """One WAV with pauses, one PNG with the spectrograms side by side."""
    pause = np.zeros(model.sample_rate // 4, np.float32)
    waveform = np.concatenate([part for w in waveforms for part in (w, pause)])
    path = folder / "training" / "samples" / f"{stage}-{step:06d}.wav"
    audio.write(path, waveform, model.sample_rate)
    image = (
        model.spectrogram(torch.from_numpy(waveform)[None].to(model.device))[0][0, 0].cpu().numpy()
    )
    with atomic(path.with_suffix(".png")) as temporary:
        import matplotlib.image

        matplotlib.image.imsave(temporary, image, cmap="magma", origin="lower", format="png")


def _set_schedule(autoencoder: Autoencoder, progress: float) -> None:
    """What changes as training goes on, 0 to 1: codes are not restarted at the end, and the weight of
    a KL divergence grows from the beginning."""
    config = autoencoder.config
    for part in autoencoder.bottleneck.modules():
        if isinstance(part, Codebook):
            part.restart = config.restart and progress < 0.9
        if isinstance(part, Gaussian):
            part.warmth = min(1.0, progress / config.kl_warmup) if config.kl_warmup else 1.0


def validate_autoencoder(
    autoencoder: Autoencoder, split: Split, range_db: float
) -> dict[str, float]:
    """Error and codebook use over up to 512 clips: score, error_db, usage, perplexity, kl.

    The score is the reconstruction's loss, a Gaussian's KL divergence with its full weight added, in
    units of the weighted error.
    """
    device = next(autoencoder.parameters()).device
    places = torch.arange(len(split))[:: max(1, len(split) // 512)]
    places = places[split.num_frames[places].argsort(stable=True)]
    squared, objective, kl, cells = 0.0, 0.0, 0.0, 0
    counts = torch.zeros(autoencoder.bottleneck.num_quantizers, autoencoder.config.codebook_size)
    for indices in places.split(32):
        frames = split.num_frames[indices]
        images = split.spectrograms(indices).to(device)
        result = autoencoder(images, frames, split.label_indices[indices])
        share = int(frames.sum())
        squared += float(result.squared_error) * share
        objective += float(result.reconstruction_loss) * share
        cells += share
        if result.kl is not None:
            objective += float(result.bottleneck_loss) * share
            kl += float(result.kl) * share
        if len(counts):
            codes = autoencoder.encode(images, frames).cpu()
            columns = autoencoder.num_columns(frames)
            inside = torch.arange(codes.shape[3]) < columns[:, None, None]
            for quantizer, row in enumerate(counts):
                row += torch.bincount(
                    codes[:, quantizer][inside.expand(-1, codes.shape[2], -1)], minlength=len(row)
                )
    metrics = {
        "score": objective / RECONSTRUCTION_SCALE / cells,
        "error_db": math.sqrt(squared / cells) * range_db,
    }
    if isinstance(autoencoder.bottleneck, Gaussian):
        metrics["kl"] = kl / cells
    if len(counts):
        shares = counts / counts.sum(dim=1, keepdim=True)
        metrics["usage"] = float((counts > 0).float().mean())
        metrics["perplexity"] = float(torch.special.entr(shares).sum(dim=1).exp().mean())
    return metrics


def describe_autoencoder(metrics: Mapping[str, float], codebook_size: int) -> str:
    """A validation's metrics, or the training's alone, in a line of plain words."""
    if "validation_error_db" not in metrics:
        return _underway("autoencoder", metrics)
    line = (
        f"autoencoder {100 * metrics['progress']:3.0f} %, step {metrics['step']:,}, {_clock(metrics['seconds'])}:"
        f" spectrograms {metrics['validation_error_db']:.2f} dB off"
    )
    if (usage := metrics.get("validation_usage")) is not None:
        health = (
            "healthy"
            if usage > 0.7
            else "thin"
            if usage > 0.3
            else "COLLAPSING: most codes are dead"
        )
        line += (
            f"; codebook {health}, {usage * codebook_size:.0f} of {codebook_size} codes in use,"
            f" as rich as {metrics['validation_perplexity']:.0f} used evenly"
        )
    if (kl := metrics.get("validation_kl")) is not None:
        line += f"; {kl:.3g} nats a cell between latents and their prior"
    return line


def _underway(stage: str, metrics: Mapping[str, float]) -> str:
    """Between validations: where training stands."""
    return (
        f"{stage} {100 * metrics['progress']:3.0f} %, step {metrics['step']:,},"
        f" {_clock(metrics['seconds'])}: loss {metrics['loss']:.3f}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _fit_context(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> None:
    """Fit and save the tables by which archives are coded."""
    started = time.perf_counter()
    fitted = fit_context(
        model,
        dataset.train,
        dataset.validation if len(dataset.validation) else dataset.train,
        seed=config.seed,
        dtype=pick_precision(config.precision, model.device),
        max_seconds=math.inf if limit is None else limit,
    )
    model.context = fitted.tables
    save(folder, model, "context", {"bits_per_code": fitted.bits_per_code})
    say(
        f"context: {fitted.bits_per_code:.2f} bits a code of an unseen clip from its neighbours, where a"
        f" blind guess needs {math.log2(model.vocabulary.codebook_size):.2f}"
        f" ({time.perf_counter() - started:.0f} s)"
    )


def _train_prior(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> None:
    torch.manual_seed(config.seed)
    prior = model.prior = model.new_prior(config.prior).to(model.device)
    device = model.device
    trainer = Trainer(
        prior,
        config.prior_training,
        folder / "training",
        stage="prior",
        seed=config.seed,
        dtype=pick_precision(config.precision, device),
        max_seconds=None,
    )
    if trainer.state.done:
        say("prior: trained already")
        return
    started = time.perf_counter()
    tokens, lengths, labels = encode_split(
        model, dataset.train, VIEWS, math.inf if limit is None else VIEWS_SHARE * limit
    )
    held_out = (
        encode_split(model, dataset.validation)
        if len(dataset.validation)
        else (tokens, lengths, labels)
    )
    baselines = _baselines(model, tokens, lengths, *held_out[:2])
    parameters = sum(p.numel() for p in prior.parameters())
    say(
        f"prior: {parameters:,} parameters, {int(lengths.sum()):,} tokens ({time.perf_counter() - started:.0f} s);"
        f" a blind guess needs {baselines['uniform_bits']:.2f} bits a code,"
        f" one that knows which codes are common {baselines['unigram_bits']:.2f}"
    )

    if limit is not None:
        trainer.max_seconds = max(1.0, limit - (time.perf_counter() - started))

    def batch(
        indices: Tensor, source: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        cut = int(source[1][indices].max())
        return source[0][indices, :cut].long().to(device), source[1][indices], source[2][indices]

    def loss(step: Step) -> dict[str, Tensor]:
        clips, clip_lengths, clip_labels = batch(step.indices, (tokens, lengths, labels))
        hidden = prior.hide_labels(clip_labels, step.generator).to(device)
        return {"loss": prior.loss(clips, clip_lengths, hidden)[0]}

    def validate() -> dict[str, float]:
        return validate_prior(prior, held_out)

    def keep(state: State, metrics: Mapping[str, float]) -> None:
        save(folder, model, "prior", {"step": state.step, **baselines, **metrics})

    shown = [trainer.progress]

    def speak(metrics: Mapping[str, float]) -> None:
        say(describe_prior(metrics, baselines))
        validated = "validation_score" in metrics
        if validated and metrics["progress"] >= min(1.0, shown[0] + SAMPLE_EVERY):
            shown[0] = metrics["progress"]
            sounds = [sound.waveform for sound in generate(model, SAMPLES)]
            _write_samples(folder, "prior", int(metrics["step"]), model, sounds)

    with _naming(dataset.train):
        trainer.fit(lengths, loss, validate, keep, speak)


def validate_prior(prior: Prior, held_out: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Over up to 512 clips: score and bits per code (END included), bits per level."""
    tokens, lengths, labels = held_out
    device = next(prior.parameters()).device
    places = torch.arange(len(tokens))[:: max(1, len(tokens) // 512)]
    places = places[lengths[places].argsort(stable=True)]
    code_nats, level_nats, codes = 0.0, 0.0, 0
    for indices in places.split(16):
        cut = int(lengths[indices].max())
        clips = tokens[indices, :cut].long().to(device)
        _, code, level = prior.loss(clips, lengths[indices], labels[indices].to(device))
        code_nats, level_nats = code_nats + float(code), level_nats + float(level)
        codes += int(
            ((lengths[indices] - 1) // prior.vocabulary.slots * prior.vocabulary.slots).sum()
        )
    bits = code_nats / codes / math.log(2)
    return {
        "score": bits,
        "bits_per_code": bits,
        "bits_per_level": level_nats / len(places) / math.log(2),
    }


def _baselines(
    model: Model, tokens: Tensor, lengths: Tensor, held_tokens: Tensor, held_lengths: Tensor
) -> dict[str, float]:
    """Bits per code of a blind guess, and of one that knows how common each code is in training."""
    vocabulary = model.vocabulary
    counts = torch.bincount(_codes_inside(tokens, vocabulary.end), minlength=vocabulary.end) + 1.0
    by_book = counts.view(vocabulary.num_quantizers, -1)
    bits = -(by_book / by_book.sum(dim=1, keepdim=True)).log2().flatten()
    return {
        "uniform_bits": math.log2(vocabulary.codebook_size),
        "unigram_bits": float(bits[_codes_inside(held_tokens, vocabulary.end)].mean()),
    }


def _codes_inside(tokens: Tensor, end: int) -> Tensor:
    """The codes among tokens, flat: no levels, no END."""
    return tokens[tokens < end].long()


def describe_prior(metrics: Mapping[str, float], baselines: Mapping[str, float]) -> str:
    """A validation's metrics, or the training's alone, in a line of plain words."""
    if "validation_bits_per_code" not in metrics:
        return _underway("prior", metrics)
    bits, blind = metrics["validation_bits_per_code"], baselines["unigram_bits"]
    train_bits = metrics["loss"] / math.log(2)
    verdict = "is learning" if bits < 0.95 * blind else "has learnt little yet"
    if bits > train_bits + 1.0:
        verdict = "is learning; it knows its training clips better than new ones"
    return (
        f"prior {100 * metrics['progress']:3.0f} %, step {metrics['step']:,}, {_clock(metrics['seconds'])}:"
        f" {bits:.2f} bits a code on unseen clips (blind {baselines['uniform_bits']:.2f},"
        f" by frequency {blind:.2f}), {train_bits:.2f} in training; {verdict}"
    )
