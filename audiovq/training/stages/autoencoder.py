"""Stage 1: the autoencoder, on spectrograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from audiovq.dataset.batches import excerpts, random_positions, random_views
from audiovq.dataset.dataset import Split
from audiovq.dataset.measured import clips_and_why, counted
from audiovq.models.autoencoder.autoencoder import RECONSTRUCTION_SCALE, Autoencoder
from audiovq.models.autoencoder.gaussian import Gaussian
from audiovq.models.autoencoder.quantizers import Codebook
from audiovq.models.carry import carry_autoencoder
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.device import to_device_async
from audiovq.training.samples import SAMPLES, write_samples, write_strips
from audiovq.training.stage import (
    VALIDATION_CLIPS,
    Inputs,
    Losses,
    Metrics,
    Run,
    Stage,
    Step,
    evenly_spaced,
    loss_line,
    progress_line,
)

EXCERPT_CODES = 256
"""Codes of each quantizer in the longest excerpt of a clip that a step uses: all networks here see a neighbourhood
only, and long clips would leave time for few steps."""
RESTART_UNTIL = 0.9
"""Share of the schedule after which unused codes are no longer restarted."""


class AutoencoderStage(Stage):
    """Training of the autoencoder on shifted excerpts of clips."""

    name = "autoencoder"

    def __init__(self, run: Run, model: Model) -> None:
        """Trains `model.autoencoder` in place, from the weights of `run.origin` where there is one."""
        carried = run.origin is not None
        if run.origin is not None:
            carry_autoencoder(run.origin.model, model)
            if run.origin.keeps_codes(run.config, len(run.dataset.train)):
                model.autoencoder.freeze_codes()
        super().__init__(run, model, model.autoencoder, run.config.autoencoder_training, carried)
        self.autoencoder = model.autoencoder
        self.split = run.dataset.train
        self.lengths = self.split.num_frames

    def begin(self, resumed: bool) -> Sequence[str]:
        """Clips are read as they are needed; the line names network, clips, device and precision."""
        if resumed:
            return []
        clips, dtype = counted(len(self.split), "train"), str(self.run.dtype).removeprefix("torch.")
        return [f"{self.size_line()}, {clips}, on {self.model.device} in {dtype}"]

    def read_ahead(self, indices: Tensor) -> None:
        """Prefetch this rank's clips of the next step from disk."""
        with distributed.global_batch(len(indices)):
            self.split.read_ahead(indices[distributed.local_slice()])

    def prepare(self, step: Step) -> Inputs:
        """This rank's spectrograms (batch, planes, bins, frames), frames (batch,), labels (batch, labels)."""
        set_schedule(self.autoencoder, step.progress)
        images, frames = shifted_excerpts(self.split, step, self.autoencoder)
        labels = self.split.label_indices[step.indices[distributed.local_slice()]]
        return to_device_async(images, self.model.device), frames, labels

    def loss(self, *inputs: Tensor) -> Losses:
        """Total loss and its parts, as `Autoencoder.forward` gives them."""
        images, frames, labels = inputs
        result = self.autoencoder(images, frames, labels)
        return {
            "loss": result.loss,
            "reconstruction_loss": result.reconstruction_loss,
            "squared_error": result.squared_error,
            "weighted_error": result.weighted_error,
            "bottleneck_loss": result.bottleneck_loss,
        } | ({} if result.kl is None else {"kl": result.kl})

    def validate(self) -> Metrics:
        """As `validate_autoencoder`."""
        range_db = self.run.dataset.spectrogram.range_db
        return validate_autoencoder(self.autoencoder, self.held_out, range_db)

    def describe(self, metrics: Metrics) -> str:
        """As `describe_autoencoder`."""
        size = self.run.config.autoencoder.bottleneck.num_codes
        return describe_autoencoder(metrics, size, self.split.images, self.held_out.name)

    def sample(self, step: int) -> None:
        """Write a few clips of `held_out`, each followed by its reconstruction."""
        model, split = self.model, self.held_out
        indices = evenly_spaced(len(split), SAMPLES)[:SAMPLES]
        frames, levels = split.num_frames[indices], split.levels[indices].to(model.device)
        images = split.spectrograms(indices).to(model.device)
        with torch.inference_mode():
            decoded = model.autoencoder(images, frames).spectrogram
        if model.spectrogram.config.images:
            write_strips(self.run.folder, self.name, step, [images, decoded])
            return
        lengths = split.num_samples[indices]
        originals, reconstructions = (
            model.spectrogram.inverse(x, levels, lengths.to(model.device)).cpu().numpy()
            for x in (images, decoded)
        )
        pairs = zip(originals, reconstructions, lengths.tolist(), strict=True)
        waveforms = [waveform[..., :length] for *pair, length in pairs for waveform in pair]
        write_samples(self.run.folder, self.name, step, model, waveforms)


def shifted_excerpts(split: Split, step: Step, autoencoder: Autoencoder) -> tuple[Tensor, Tensor]:
    """This rank's clips of a step, shifted, stereo ones in random positions, and excerpts of those with more than
    EXCERPT_CODES.

    Returns spectrograms (batch, planes, bins, frames) and frames (batch,). Where one vector describes a clip (`dense`),
    clips stay whole.
    """
    stride = autoencoder.stride[1]

    def width(frames: int) -> int:
        if autoencoder.config.network.kind == "conv":
            return frames  # padding counts in no loss, but in the statistics of a batch norm
        return stride * step.width(-(-frames // stride))

    part = distributed.local_slice()
    images, frames = random_views(
        split, step.indices, step.generator, stride, part=part, width=width
    )
    if split.planes > 1:
        chances = torch.rand(len(step.indices), 3, generator=step.generator)
        images = random_positions(images, chances[part], split.spectrogram)
    if autoencoder.config.bottleneck.dense is not None:
        return images, frames
    chance = torch.rand(len(step.indices), generator=step.generator)[part]
    columns = max(1, EXCERPT_CODES // autoencoder.rows)
    return excerpts(images, frames, chance, stride, columns)


def set_schedule(autoencoder: Autoencoder, progress: float) -> None:
    """Set what depends on the progress of training, 0 to 1: restarts of codes, and the weight of a KL
    divergence, which grows from 0 during `kl_warmup`."""
    config = autoencoder.config.bottleneck
    for part in autoencoder.bottleneck.modules():
        if isinstance(part, Codebook):
            part.restart.fill_(config.restart and progress < RESTART_UNTIL)
        if isinstance(part, Gaussian):
            part.kl_scale.fill_(min(1.0, progress / config.kl_warmup) if config.kl_warmup else 1.0)


def validate_autoencoder(
    autoencoder: Autoencoder, split: Split, range_db: float
) -> dict[str, float]:
    """Error and codebook use on clips of `split`: score, error_db, usage, perplexity, kl.

    The score is the reconstruction loss, plus a Gaussian's KL divergence at full weight, in units of the weighted
    error. `range_db`: decibels between 0 and 1 of a spectrogram. Sums over ranks.
    """
    device = next(autoencoder.parameters()).device
    indices = evenly_spaced(len(split), VALIDATION_CLIPS)
    indices = indices[split.num_frames[indices].argsort(stable=True)]
    squared, objective, kl, total = 0.0, 0.0, 0.0, 0.0
    counts = torch.zeros(
        autoencoder.bottleneck.num_quantizers, autoencoder.config.bottleneck.num_codes
    )
    for batch in distributed.shard(indices.split(32)):
        frames = split.num_frames[batch]
        images = split.spectrograms(batch).to(device)
        result = autoencoder(images, frames, split.label_indices[batch])
        weight = int(frames.sum())
        squared += float(result.squared_error) * weight
        objective += float(result.reconstruction_loss) * weight
        total += weight
        if result.kl is not None:
            objective += float(result.bottleneck_loss) * weight
            kl += float(result.kl) * weight
        if len(counts):
            counts += _code_counts(autoencoder, images, frames)
    squared, objective, kl, total = distributed.all_reduce_floats(squared, objective, kl, total)
    counts = distributed.all_reduce_sum(counts)
    metrics = {
        "score": objective / RECONSTRUCTION_SCALE / total,
        "error_db": math.sqrt(squared / total) * range_db,
    }
    if isinstance(autoencoder.bottleneck, Gaussian):
        metrics["kl"] = kl / total
    if len(counts):
        shares = counts / counts.sum(dim=1, keepdim=True)
        metrics["usage"] = float((counts > 0).float().mean())
        metrics["perplexity"] = float(torch.special.entr(shares).sum(dim=1).exp().mean())
    return metrics


def _code_counts(autoencoder: Autoencoder, images: Tensor, frames: Tensor) -> Tensor:
    """(quantizers, num_codes): how often clips have each code, padding left out."""
    codes = autoencoder.encode(images, frames).cpu()
    mask = torch.arange(codes.shape[3]) < autoencoder.num_columns(frames)[:, None, None]
    mask = mask.expand(-1, codes.shape[2], -1)
    size = autoencoder.config.bottleneck.num_codes
    return torch.stack([torch.bincount(x[mask], minlength=size) for x in codes.unbind(dim=1)])


def describe_autoencoder(
    metrics: Metrics, codebook_size: int, images: bool = False, measured_on: str = "validation"
) -> str:
    """The progress line of a validation on the split `measured_on`, or of training alone.

    `codebook_size`: codes of each quantizer; `images`: whether the dataset holds images and no sounds.
    """
    if "validation_error_db" not in metrics:
        return loss_line("autoencoder", metrics)
    line = (
        f"{progress_line('autoencoder', metrics)}: error {metrics['validation_error_db']:.2f}"
        f" {'% of white' if images else 'dB'} on"
        f" {clips_and_why(measured_on, 'validation', noun='images' if images else 'clips')}"
    )
    if (usage := metrics.get("validation_usage")) is not None:
        verdict = "" if usage > 0.7 else ": few" if usage > 0.3 else ": very few"
        advice = "; more or more varied sounds help" if verdict else ""
        line += (
            f"; {usage * codebook_size:.0f} of {codebook_size} codes used"
            f" (effectively {metrics['validation_perplexity']:.0f}{verdict}{advice})"
        )
    if (kl := metrics.get("validation_kl")) is not None:
        line += f"; KL divergence {kl:.3g} nats per cell"
    return line
