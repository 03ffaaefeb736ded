"""Stage 1: the autoencoder, on spectrograms."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from audiovq.config.settings import TrainConfig
from audiovq.dataset.batches import random_views
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import clips_and_why, counted, measured_split
from audiovq.models.autoencoder.autoencoder import RECONSTRUCTION_SCALE, Autoencoder
from audiovq.models.autoencoder.gaussian import Gaussian
from audiovq.models.autoencoder.quantizers import Codebook
from audiovq.models.checkpoint import save
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_precision, to_device_async
from audiovq.runtime.progress import Say
from audiovq.training.loop import Inputs, State, Step, Trainer
from audiovq.training.samples import (
    SAMPLE_EVERY,
    SAMPLES,
    ended,
    loss_line,
    naming_clips,
    progress_line,
    write_samples,
    write_strips,
)


def train_autoencoder(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> float:
    """Train and save the autoencoder; returns the seconds it took."""
    autoencoder, device = model.autoencoder, model.device
    trainer = Trainer(
        autoencoder,
        config.autoencoder_training,
        folder / "training",
        stage="autoencoder",
        clips=len(dataset.train),
        seed=config.seed,
        dtype=pick_precision(config.precision, device),
        max_seconds=limit,
    )
    stride = autoencoder.stride[1]
    split, normed = dataset.train, config.autoencoder.network.kind == "conv"

    def width(step: Step, frames: int) -> int:
        # Padding counts in no loss, but in the statistics of a batch norm.
        return frames if normed else stride * step.width(-(-frames // stride))

    def prepare(step: Step) -> Inputs:
        _set_schedule(autoencoder, step.progress)
        part, wide = distributed.local_slice(), functools.partial(width, step)
        images, frames = random_views(
            split, step.indices, step.generator, stride, part=part, width=wide
        )
        return to_device_async(images, device), frames, split.label_indices[step.indices[part]]

    def loss(images: Tensor, frames: Tensor, labels: Tensor) -> dict[str, Tensor]:
        result = autoencoder(images, frames, labels)
        return {
            "loss": result.loss,
            "reconstruction_loss": result.reconstruction_loss,
            "squared_error": result.squared_error,
            "weighted_error": result.weighted_error,
            "bottleneck_loss": result.bottleneck_loss,
        } | ({} if result.kl is None else {"kl": result.kl})

    held_out = measured_split(dataset, "validation")

    def validate() -> dict[str, float]:
        return validate_autoencoder(autoencoder, held_out, dataset.spectrogram.range_db)

    def keep(state: State, metrics: Mapping[str, float]) -> None:
        measured = {"step": state.step, "measured_on": held_out.name}
        save(folder, model, "autoencoder", measured | dict(metrics))

    def ahead(indices: Tensor) -> None:
        with distributed.global_batch(len(indices)):
            split.read_ahead(indices[distributed.local_slice()])

    shown = [trainer.progress]

    def speak(metrics: Mapping[str, float]) -> None:
        size = config.autoencoder.bottleneck.num_codes
        say(describe_autoencoder(metrics, size, split.images, held_out.name))
        validated = "validation_score" in metrics
        if validated and metrics["progress"] >= min(1.0, shown[0] + SAMPLE_EVERY):
            shown[0] = metrics["progress"]
            _sample_reconstructions(model, held_out, folder, int(metrics["step"]))

    if trainer.state.done:
        say("autoencoder: trained already")
    elif not trainer.state.step:
        parameters = sum(p.numel() for p in autoencoder.parameters())
        say(
            f"autoencoder: {parameters:,} parameters, {counted(len(split), 'train')}, on {device} in {trainer.dtype}".replace(
                "torch.", ""
            )
        )
    with naming_clips(split):
        trainer.fit(split.num_frames, prepare, loss, validate, keep, speak, ahead)
    ended(folder, trainer, say)
    return trainer.state.seconds


def _sample_reconstructions(model: Model, split: Split, folder: Path, step: int) -> None:
    """A few clips and what the autoencoder makes of them, to look at and listen to."""
    places = torch.arange(len(split))[:: max(1, len(split) // SAMPLES)][:SAMPLES]
    frames, levels = split.num_frames[places], split.levels[places].to(model.device)
    images = split.spectrograms(places).to(model.device)
    with torch.inference_mode():
        made = model.autoencoder(images, frames).spectrogram
    if model.spectrogram.config.images:
        write_strips(folder, "autoencoder", step, [images, made])
        return
    num_samples = split.num_samples[places].to(model.device)
    both = [model.spectrogram.inverse(x, levels, num_samples).cpu().numpy() for x in (images, made)]
    lengths = split.num_samples[places].tolist()
    waveforms = [w[:n] for *pair, n in zip(*both, lengths, strict=True) for w in pair]
    write_samples(folder, "autoencoder", step, model, waveforms)


def _set_schedule(autoencoder: Autoencoder, progress: float) -> None:
    """What changes as training goes on, 0 to 1: codes are not restarted at the end, and the weight of
    a KL divergence grows from the beginning."""
    config = autoencoder.config.bottleneck
    for part in autoencoder.bottleneck.modules():
        if isinstance(part, Codebook):
            part.restart.fill_(config.restart and progress < 0.9)
        if isinstance(part, Gaussian):
            part.warmth.fill_(min(1.0, progress / config.kl_warmup) if config.kl_warmup else 1.0)


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
    squared, objective, kl, cells = 0.0, 0.0, 0.0, 0.0
    counts = torch.zeros(
        autoencoder.bottleneck.num_quantizers, autoencoder.config.bottleneck.num_codes
    )
    for indices in distributed.shard(places.split(32)):
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
    squared, objective, kl, cells = distributed.all_reduce_floats(squared, objective, kl, cells)
    counts = distributed.all_reduce_sum(counts)
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


def describe_autoencoder(
    metrics: Mapping[str, float],
    codebook_size: int,
    images: bool = False,
    measured_on: str = "validation",
) -> str:
    """A validation's metrics on the split `measured_on`, or the training's alone, in a line of words."""
    if "validation_error_db" not in metrics:
        return loss_line("autoencoder", metrics)
    line = (
        f"{progress_line('autoencoder', metrics)}: error {metrics['validation_error_db']:.2f}"
        f" {'% of white' if images else 'dB'} on"
        f" {clips_and_why(measured_on, 'validation', noun='images' if images else 'clips')}"
    )
    if (usage := metrics.get("validation_usage")) is not None:
        health = "healthy" if usage > 0.7 else "thin" if usage > 0.3 else "mostly unused"
        line += (
            f"; codebook {health}, {usage * codebook_size:.0f} of {codebook_size} codes in use,"
            f" as rich as {metrics['validation_perplexity']:.0f} used evenly"
        )
    if (kl := metrics.get("validation_kl")) is not None:
        line += f"; {kl:.3g} nats a cell between latents and their prior"
    return line
