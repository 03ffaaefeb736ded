"""The first judge: a convolutional network that predicts the labels of spectrograms.

It is trained with augmentation, so that it depends on the content rather than on the recording.
`listener.py` has the second judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.batches import batches
from audiovq.dataset.dataset import Split
from audiovq.runtime.device import pick_precision
from audiovq.runtime.progress import progress_range
from audiovq.runtime.threads import tuned

EPOCHS = 12
"""Duration of the training, within limits of steps."""
BATCH = 16
"""Clips per training step."""
FEWEST_BINS = 64
"""Bins below which spectrograms are not averaged."""
FRAME_SECONDS = 0.012
"""Duration up to which neighbouring frames are averaged."""


def pooling(config: SpectrogramConfig) -> tuple[int, int]:
    """Bins and frames that a judge averages: 1 and 1 up to 16 kHz, 2 and more where a spectrogram is finer than labels
    need, as the judge's time grows with the number of cells."""
    if config.images:
        return 1, 1
    frames = int(FRAME_SECONDS * config.sample_rate / config.hop_length)
    return max(1, config.bins // FEWEST_BINS), max(1, frames)


class Classifier(nn.Module):
    """A small convolutional network with one output per label, pooled over time by attention.

    Its accuracy on real clips that it was not trained on shows how reliable its judgement of generated
    sounds is.
    """

    def __init__(
        self, bins: int, label_sizes: Sequence[int], pool: tuple[int, int] = (1, 1)
    ) -> None:
        """`pool`: bins and frames that are averaged first."""
        super().__init__()
        self.pool = pool
        sizes = (1, 24, 48, 96)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(sizes[i + 1]),
                nn.SiLU(),
                nn.MaxPool2d(size),
            )
            for i, (kernel, stride, size) in enumerate(((5, 2, 1), (3, 1, 2), (3, 1, 2)))
        )
        rows = math.ceil(math.ceil(bins / pool[0]) / 8)
        self.features = nn.Sequential(
            nn.Linear(sizes[-1] * rows, 128), nn.BatchNorm1d(128), nn.SiLU()
        )
        self.attend = nn.Conv1d(sizes[-1] * rows, 1, 1)
        self.heads = nn.ModuleList(nn.Linear(128, size) for size in label_sizes)
        self.to(memory_format=torch.channels_last)

    def embed(self, spectrogram: Tensor, num_frames: Tensor) -> Tensor:
        """(batch, 1, bins, frames), (batch,) → features (batch, 128), pooled by attention."""
        bins, frames = spectrogram.shape[2:]
        x = nn.functional.pad(spectrogram, (0, -frames % self.pool[1], 0, -bins % self.pool[0]))
        x = nn.functional.avg_pool2d(x, self.pool)
        x = x.to(memory_format=torch.channels_last)
        x = nn.functional.pad(x, (0, -x.shape[3] % 8, 0, -x.shape[2] % 8))
        lengths = -(-num_frames.to(x.device) // self.pool[1])
        for layer in self.layers:
            x = layer(x)
            lengths = (lengths + 1) // 2
            mask = torch.arange(x.shape[3], device=x.device) < lengths[:, None]
            x = x * mask[:, None, None]
        x = x.flatten(1, 2)
        weights = self.attend(x).float()[:, 0].masked_fill(~mask, -torch.inf).softmax(dim=1)
        features: Tensor = self.features((x * weights[:, None].to(x.dtype)).sum(dim=2))
        return features

    def forward(self, spectrogram: Tensor, num_frames: Tensor) -> list[Tensor]:
        """(batch, 1, bins, frames), (batch,) → logits (batch, values) of each label."""
        features = self.embed(spectrogram, num_frames)
        return [head(nn.functional.dropout(features, 0.3, self.training)) for head in self.heads]


def train_classifier(
    splits: Sequence[Split],
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    pool: tuple[int, int] = (1, 1),
    min_steps: int = 600,
    max_steps: int = 1200,
) -> Classifier:
    """Train a judge for the labels of `splits`, on spectrograms averaged as `pooling` says; seconds to a minute on a
    CPU.

    Training takes EPOCHS epochs, but at least `min_steps` and at most `max_steps` steps. `splits` must not
    contain the clips that the judge is tested on. With a single clip the network stays untrained. Clips
    are shifted, tilted, masked and mixed with noise (`_augment`).
    """
    labels = splits[0].labels
    bins = splits[0].spectrograms(torch.tensor([0])).shape[2]
    num_frames = torch.cat([split.num_frames for split in splits])
    targets = torch.cat([split.label_indices for split in splits])
    clips = [(split, i) for split in splits for i in range(len(split))]
    targets = targets.masked_fill(targets >= torch.tensor([len(v) for v in labels.values()]), -100)
    torch.manual_seed(seed)
    classifier = Classifier(bins, [len(values) for values in labels.values()], pool).to(device)
    per_epoch = -(-len(num_frames) // BATCH)
    steps = min(max(EPOCHS * per_epoch, min_steps), max_steps)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    dtype = pick_precision("auto", torch.device(device))
    generator = torch.Generator().manual_seed(seed)
    on_cpu = torch.device(device).type == "cpu"
    rounds = progress_range("evaluate: training a classifier", steps)
    for step in tuned("judge", rounds, enabled=on_cpu):
        epoch, index = divmod(step, per_epoch)
        if index == 0:
            order = batches(num_frames, BATCH, seed, epoch)
        indices = order[index]
        if len(indices) == 1:  # batch norm needs two
            if len(order) == 1:
                break
            indices = torch.cat([indices, order[index - 1]])
        images, frames = _augment(_gather(clips, indices), num_frames[indices], generator)
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            logits = classifier(images.to(device), frames)
        losses = [
            nn.functional.cross_entropy(
                logit.float(), targets[indices, i].to(device), label_smoothing=0.05
            )
            for i, logit in enumerate(logits)
            if bool((targets[indices, i] >= 0).any())
        ]
        if losses:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


def _gather(clips: Sequence[tuple[Split, int]], indices: Tensor) -> Tensor:
    """Loudness of the clips at `indices`, zero-padded: (batch, 1, bins, longest)."""
    rows = [clips[i][0].spectrograms(torch.tensor([clips[i][1]]))[0, :1] for i in indices.tolist()]
    frames = max(row.shape[2] for row in rows)
    return torch.stack([nn.functional.pad(row, (0, frames - row.shape[2])) for row in rows])


def _augment(
    images: Tensor, num_frames: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment (batch, 1, bins, frames) and its lengths (batch,): shift by up to 8 frames, add an offset, a
    tilt and noise, mask a time span and a band."""
    batch, _, bins, frames = images.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    images = images + uniform(-0.04, 0.04, 1, 1, 1) * (images > 0)
    images = images + uniform(-0.08, 0.08, 1, 1, 1) * torch.linspace(-1, 1, bins)[:, None] * (
        images > 0
    )
    noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.06, 1, 1, 1)
    images = (images + noise).clamp(0, 1)
    begin, width = uniform(0, frames, 1, 1, 1), uniform(0, 6, 1, 1, 1)
    column = torch.arange(frames)
    images = images * ~((column >= begin) & (column < begin + width))
    begin, width = uniform(0, bins, 1, 1, 1), uniform(0, bins / 8, 1, 1, 1)
    row = torch.arange(bins)[:, None]
    images = images * ~((row >= begin) & (row < begin + width))
    shift = int(torch.randint(9, (1,), generator=generator))
    return nn.functional.pad(images, (shift, 0)), num_frames + shift


@dataclass(frozen=True)
class Predictions:
    """Features and label probabilities of clips."""

    features: Tensor
    """(clips, 128)"""
    probabilities: list[Tensor]
    """(clips, values) of each label."""

    def accuracy(self, label_indices: Tensor) -> list[float | None]:
        """Accuracy for each label over the clips (clips, labels) that have it; None if no clip has."""
        shares: list[float | None] = []
        for i, probabilities in enumerate(self.probabilities):
            known = label_indices[:, i] < probabilities.shape[1]
            correct = probabilities.argmax(dim=1)[known] == label_indices[known, i]
            shares.append(float(correct.float().mean()) if len(correct) else None)
        return shares


def judge(classifier: Classifier, images: Sequence[Tensor]) -> Predictions:
    """Classify spectrograms (planes, bins, frames) of any lengths, by their loudness, in batches of similar length."""
    device = next(classifier.parameters()).device
    order = sorted(range(len(images)), key=lambda i: images[i].shape[2])
    features: dict[int, Tensor] = {}
    with torch.inference_mode():
        for begin in range(0, len(order), 64):
            batch_indices = order[begin : begin + 64]
            frames = torch.tensor([images[i].shape[2] for i in batch_indices])
            longest = int(frames.max())
            batch = torch.stack(
                [
                    nn.functional.pad(images[i][:1], (0, longest - images[i].shape[2]))
                    for i in batch_indices
                ]
            )
            features |= zip(batch_indices, classifier.embed(batch.to(device), frames), strict=True)
        stacked = torch.stack([features[i] for i in range(len(images))])
        return Predictions(
            stacked.cpu(), [head(stacked).softmax(dim=1).cpu() for head in classifier.heads]
        )
