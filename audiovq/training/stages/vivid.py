"""Stage 2: the vivid decoder, a copy of the autoencoder's decoder that is trained on against a discriminator.

Encoder and codebook are frozen, so that codes, archives and priors stay as they are. A decoder of least squared error
returns the mean of all recordings that share their codes: realism costs accuracy (Blau and Michaeli 2018), so the model
holds both decoders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiovq.dataset.measured import clips_and_why, counted
from audiovq.models.autoencoder.autoencoder import RECONSTRUCTION_SCALE
from audiovq.models.autoencoder.discriminator import (
    Discriminator,
    adversarial_loss,
    feature_loss,
    halves,
    hinge_loss,
    share_right,
)
from audiovq.models.carry import carry_vivid
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.device import to_device_async
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
from audiovq.training.stages.autoencoder import shifted_excerpts


class VividStage(Stage):
    """Training of the vivid decoder and its discriminator, both in each step."""

    name = "vivid"

    def __init__(self, run: Run, model: Model) -> None:
        """Creates `model.vivid` and the discriminator.

        The vivid decoder starts as a copy of the autoencoder's, or as that of `run.origin` where it has one.
        """
        torch.manual_seed(run.config.seed)
        self.vivid = model.new_vivid()
        model.vivid = self.vivid
        carried = run.origin is not None and run.origin.model.vivid is not None
        if run.origin is not None and carried:
            carry_vivid(run.origin.model, model)
        self.discriminator = Discriminator(run.config.discriminator, model.autoencoder.planes).to(
            model.device
        )
        both = nn.ModuleDict({"decoder": self.vivid, "discriminator": self.discriminator})
        super().__init__(run, model, both, run.config.vivid_training, carried)
        self.step = 0
        """Number of the latest step."""
        self.split = run.dataset.train
        self.lengths = self.split.num_frames

    def begin(self, resumed: bool) -> Sequence[str]:
        """Clips are read as they are needed; the line names both networks and the clips."""
        if resumed:
            return []
        decoder, discriminator = (
            sum(p.numel() for p in part.parameters()) for part in (self.vivid, self.discriminator)
        )
        clips = counted(len(self.split), "train")
        return [
            f"vivid: a decoder of {decoder:,} parameters against a discriminator of {discriminator:,}, {clips}"
        ]

    def read_ahead(self, indices: Tensor) -> None:
        """Prefetch this rank's clips of the next step from disk."""
        with distributed.global_batch(len(indices)):
            self.split.read_ahead(indices[distributed.local_slice()])

    def prepare(self, step: Step) -> Inputs:
        """This rank's excerpts (batch, planes, bins, frames) and frames (batch,)."""
        self.step = step.number
        images, frames = shifted_excerpts(self.split, step, self.model.autoencoder)
        return to_device_async(images, self.model.device), frames

    def loss(self, *inputs: Tensor) -> Losses:
        """The decoder's loss and the discriminator's, whose gradients reach no common parameter.

        So one backward pass and one optimizer train both, at the same time.
        """
        recorded, cells, decoded, error = self._decode(*inputs)
        config = self.run.config.discriminator
        both = self.discriminator(torch.cat([recorded, decoded.detach()]))
        real, fake = halves(both)
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        seen = torch.func.functional_call(self.discriminator, fixed, (decoded,))
        hinge = hinge_loss(real, fake, cells)
        adversarial = adversarial_loss(seen, cells)
        features = feature_loss(real, seen, cells)
        loss = RECONSTRUCTION_SCALE * error + hinge
        loss = loss + config.weight * adversarial + config.feature_weight * features
        return {
            "loss": loss,
            "weighted_error": error,
            "hinge_loss": hinge,
            "adversarial_loss": adversarial,
            "feature_loss": features,
        }

    def _decode(self, images: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Recorded and decoded spectrograms (batch, planes, bins, frames), cells inside the clips (batch, 1, 1,
        frames), and the weighted squared error."""
        autoencoder = self.model.autoencoder
        with torch.no_grad():
            codes = autoencoder.encode(images, frames)
        columns = autoencoder.num_columns(frames)
        values = autoencoder.decode_values(codes, columns, self.vivid)[..., : images.shape[3]]
        stretched = autoencoder.stretch(values, self.vivid.contrast)
        # `apply_contrast` with the gradient of no clamp, or cells below the floor would stay there.
        cells = torch.arange(images.shape[3], device=images.device)
        cells = (cells < to_device_async(frames, images.device)[:, None])[:, None, None].float()
        decoded = (stretched + (stretched.clamp(0, 1) - stretched).detach()) * cells
        error = autoencoder.weighted_error((stretched - images).square(), images, cells)
        return images, cells, decoded, error

    def validate(self) -> Metrics:
        """error_db of what both decoders make of clips of `held_out`, and how often the discriminator is right.

        The last state is the best one, as no error says how vivid a sound is. Sums over ranks.
        """
        indices = evenly_spaced(len(self.held_out), VALIDATION_CLIPS)
        indices = indices[self.held_out.num_frames[indices].argsort(stable=True)]
        totals = [0.0] * 5
        autoencoder = self.model.autoencoder
        for batch in distributed.shard(indices.split(32)):
            frames = self.held_out.num_frames[batch]
            images = self.held_out.spectrograms(batch).to(self.model.device)
            codes, columns = autoencoder.encode(images, frames), autoencoder.num_columns(frames)
            cells = (torch.arange(images.shape[3]) < frames[:, None])[:, None, None].to(images)
            vivid, faithful = (
                autoencoder.decode(codes, columns, decoder)[..., : images.shape[3]] * cells
                for decoder in (self.vivid, None)
            )
            right = share_right(self.discriminator(images), cells, True)
            right += share_right(self.discriminator(vivid), cells, False)
            totals[0] += float((vivid - images)[:, :1].square().sum())
            totals[1] += float((faithful - images)[:, :1].square().sum())
            totals[2] += float(right) / 2 * len(batch)
            totals[3] += float(cells.sum()) * images.shape[2]
            totals[4] += len(batch)
        squared, squared_of_faithful, recognized, count, clips = distributed.all_reduce_floats(
            *totals
        )
        range_db = self.run.dataset.spectrogram.range_db
        return {
            "score": -float(self.step),
            "error_db": math.sqrt(squared / count) * range_db,
            "faithful_error_db": math.sqrt(squared_of_faithful / count) * range_db,
            "recognized": recognized / clips,
        }

    def describe(self, metrics: Metrics) -> str:
        """The progress line of a validation, or of training alone."""
        if "validation_error_db" not in metrics:
            return loss_line("vivid", metrics)
        return (
            f"{progress_line('vivid', metrics)}: error {metrics['validation_error_db']:.2f} dB"
            f" ({metrics['validation_faithful_error_db']:.2f} of the faithful decoder) on"
            f" {clips_and_why(self.held_out.name, 'validation')}; the discriminator recognizes"
            f" {100 * metrics['validation_recognized']:.0f} % of patches (50 %: none)"
        )
