"""The second judge, as different from the first (`classifier.Classifier`) as possible.

It computes mel bands from waveforms with a window twice as long, convolves over time only, has no batch norm,
and is trained on unmodified recordings, without augmentation. So it is sensitive to artifacts of the codec,
which the augmentation of the first one hides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform
from audiovq.evaluation.classifier import Predictions
from audiovq.runtime.progress import progress_range
from audiovq.runtime.threads import tuned
from audiovq.spectral.scale import mel_bands
from audiovq.spectral.stft import stft

WINDOW_SECONDS = 0.064
HOP_SECONDS = 0.010
BANDS = 64
RANGE_DB = 70.0
"""Dynamic range below a sound's loudest cell; lower values are clamped to 0."""
STRIDES = (2, 2, 1)
FEATURES = 64
SMOOTHING = 0.1
"""Label smoothing: keeps features small once all labels are predicted with certainty."""
EPOCHS = 40
"""Maximum number of epochs: a few clips are overfitted quickly."""
BATCH = 32
"""Clips per training step."""


def mel_image(waveform: Waveform, sample_rate: int) -> Tensor:
    """(samples,) → (BANDS, frames) in [0, 1], float16: log mel magnitudes, the loudest cell 1.

    Of (2, samples) the root of the mean power of both sides.
    """
    hop_length = max(1, round(HOP_SECONDS * sample_rate))
    n_fft = max(2 * hop_length, 1 << math.ceil(math.log2(WINDOW_SECONDS * sample_rate)))
    sides = stft(torch.from_numpy(waveform).view(-1, waveform.shape[-1]), n_fft, hop_length).abs()
    magnitudes = sides[0] if len(sides) == 1 else sides.square().mean(dim=0).sqrt()
    mel = _bands(sample_rate, n_fft) @ magnitudes
    decibels = 20 * mel.clamp_min(1e-6 * max(1e-6, float(mel.max()))).log10()
    return (1 + (decibels - decibels.max()) / RANGE_DB).clamp(0, 1).half()


@functools.lru_cache(8)
def _bands(sample_rate: int, n_fft: int) -> Tensor:
    """Mel filters (BANDS, n_fft / 2 + 1); those too narrow to cover a bin are 0."""
    return torch.from_numpy(mel_bands(sample_rate, n_fft, BANDS))


class Listener(nn.Module):
    """A small network of convolutions over time with one output per label."""

    def __init__(self, label_sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, 128, 5, stride, 2)
            for inputs, stride in zip((BANDS, 128, 128), STRIDES, strict=True)
        )
        self.features = nn.Linear(2 * 128, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, size) for size in label_sizes)

    def embed(self, images: Tensor, num_frames: Tensor) -> Tensor:
        """(batch, BANDS, frames), (batch,) → features (batch, FEATURES), from mean and maximum over time."""
        x, lengths = 4 * images - 2, num_frames
        for layer, stride in zip(self.layers, STRIDES, strict=True):
            mask = torch.arange(x.shape[2]) < lengths[:, None]
            x = nn.functional.silu(layer(x * mask[:, None]))
            lengths = -(-lengths // stride)
        mask = (torch.arange(x.shape[2]) < lengths[:, None])[:, None]
        mean = (x * mask).sum(dim=2) / lengths[:, None]
        maximum = x.masked_fill(~mask, -torch.inf).amax(dim=2)
        features: Tensor = self.features(torch.cat([mean, maximum], dim=1))
        return features

    def forward(self, images: Tensor, num_frames: Tensor) -> list[Tensor]:
        """(batch, BANDS, frames), (batch,) → logits (batch, values) of each label."""
        features = nn.functional.silu(self.embed(images, num_frames))
        features = nn.functional.dropout(features, 0.2, self.training)
        return [head(features) for head in self.heads]


def train_listener(
    images: Sequence[Tensor],
    label_indices: Tensor,
    label_sizes: Sequence[int],
    seed: int = 0,
    *,
    max_steps: int = 300,
) -> Listener:
    """Train a judge for labels on images by `mel_image`; about ten seconds on a CPU.

    `label_indices` (clips, labels) is one past the last value where a clip lacks the label. Training takes
    EPOCHS epochs, but at most `max_steps` steps.
    """
    targets = label_indices.masked_fill(label_indices >= torch.tensor(label_sizes), -100)
    torch.manual_seed(seed)
    listener = Listener(label_sizes)
    optimizer = torch.optim.AdamW(listener.parameters(), lr=1e-3, weight_decay=0.05)
    steps = min(max_steps, EPOCHS * -(-len(images) // BATCH))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    rounds = progress_range("evaluate: training a second classifier", steps)
    for _ in tuned("second judge", rounds):
        indices = torch.randint(len(images), (min(BATCH, len(images)),), generator=generator)
        logits = listener(*_padded([images[i] for i in indices.tolist()]))
        losses = [
            nn.functional.cross_entropy(logit, targets[indices, i], label_smoothing=SMOOTHING)
            for i, logit in enumerate(logits)
            if bool((targets[indices, i] >= 0).any())
        ]
        if losses:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return listener.eval()


@torch.inference_mode()
def listen(listener: Listener, images: Sequence[Tensor]) -> Predictions:
    """Classify images by `mel_image`, in batches of similar length."""
    order = sorted(range(len(images)), key=lambda i: images[i].shape[1])
    features = torch.zeros(len(images), FEATURES)
    for begin in range(0, len(order), 64):
        indices = order[begin : begin + 64]
        features[indices] = listener.embed(*_padded([images[i] for i in indices]))
    activated = nn.functional.silu(features)
    return Predictions(features, [head(activated).softmax(dim=1) for head in listener.heads])


def _padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack images: (batch, BANDS, longest) float32, zero-padded, and their (batch,) frames."""
    frames = torch.tensor([image.shape[1] for image in images])
    longest = int(frames.max())
    padded = [nn.functional.pad(image, (0, longest - image.shape[1])) for image in images]
    return torch.stack(padded).float(), frames
