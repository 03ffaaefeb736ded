"""A second judge of sounds, as unlike the first (`evaluation.Classifier`) as it can be.

It hears mel bands of its own, computed from waveforms with a window twice as long, by convolutions over
time alone, without batch norm; and learns from recordings as they are, without augmentation. So it
notices what tells a recording from a reconstruction, which the first is trained to pass over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform
from audiovq.evaluation.classifier import Judged
from audiovq.runtime.progress import progress_range
from audiovq.spectral.scale import mel_bands
from audiovq.spectral.stft import stft

WINDOW_SECONDS = 0.064
HOP_SECONDS = 0.010
BANDS = 64
RANGE_DB = 70.0
"""Below a sound's loudest cell; what is softer is silence."""
STRIDES = (2, 2, 1)
FEATURES = 64
STEPS = 300
"""At most,"""
SMOOTHING = 0.1
"""Of the labels, so that features stay small where they are known for sure."""
PASSES = 40
"""and over the clips: few are learnt by heart in no time."""
BATCH = 32


def mel_image(waveform: Waveform, sample_rate: int) -> Tensor:
    """(samples,) → (BANDS, frames) in [0, 1], float16: log mel magnitudes, the loudest cell 1."""
    hop_length = max(1, round(HOP_SECONDS * sample_rate))
    n_fft = max(2 * hop_length, 1 << math.ceil(math.log2(WINDOW_SECONDS * sample_rate)))
    magnitudes = stft(torch.from_numpy(waveform)[None], n_fft, hop_length)[0].abs()
    mel = _bands(sample_rate, n_fft) @ magnitudes
    decibels = 20 * mel.clamp_min(1e-6 * max(1e-6, float(mel.max()))).log10()
    return (1 + (decibels - decibels.max()) / RANGE_DB).clamp(0, 1).half()


@functools.lru_cache(8)
def _bands(sample_rate: int, n_fft: int) -> Tensor:
    """(BANDS, n_fft / 2 + 1); bands too narrow to cover a bin are 0."""
    return torch.from_numpy(mel_bands(sample_rate, n_fft, BANDS))


class Listener(nn.Module):
    """A small network of convolutions over time that names every label of a sound."""

    def __init__(self, label_sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, 128, 5, stride, 2)
            for inputs, stride in zip((BANDS, 128, 128), STRIDES, strict=True)
        )
        self.features = nn.Linear(2 * 128, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, size) for size in label_sizes)

    def embed(self, images: Tensor, num_frames: Tensor) -> Tensor:
        """(batch, BANDS, frames), (batch,) → (batch, FEATURES): mean and maximum over time, mixed."""
        x, lengths = 4 * images - 2, num_frames
        for layer, stride in zip(self.layers, STRIDES, strict=True):
            inside = torch.arange(x.shape[2]) < lengths[:, None]
            x = nn.functional.silu(layer(x * inside[:, None]))
            lengths = -(-lengths // stride)
        inside = (torch.arange(x.shape[2]) < lengths[:, None])[:, None]
        mean = (x * inside).sum(dim=2) / lengths[:, None]
        loudest = x.masked_fill(~inside, -torch.inf).amax(dim=2)
        made: Tensor = self.features(torch.cat([mean, loudest], dim=1))
        return made

    def forward(self, images: Tensor, num_frames: Tensor) -> list[Tensor]:
        """(batch, BANDS, frames), (batch,) → logits (batch, values) of each label."""
        features = nn.functional.silu(self.embed(images, num_frames))
        features = nn.functional.dropout(features, 0.2, self.training)
        return [head(features) for head in self.heads]


def train_listener(
    images: Sequence[Tensor], label_indices: Tensor, label_sizes: Sequence[int], seed: int = 0
) -> Listener:
    """A judge for labels, from what `mel_image` makes of recordings; some ten seconds of CPU.

    `label_indices` (clips, labels); one past the last value where a clip has none.
    """
    targets = label_indices.masked_fill(label_indices >= torch.tensor(label_sizes), -100)
    torch.manual_seed(seed)
    listener = Listener(label_sizes)
    optimizer = torch.optim.AdamW(listener.parameters(), lr=1e-3, weight_decay=0.05)
    steps = min(STEPS, PASSES * -(-len(images) // BATCH))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in progress_range("evaluate: training a second judge", steps):
        places = torch.randint(len(images), (min(BATCH, len(images)),), generator=generator)
        logits = listener(*_padded([images[i] for i in places.tolist()]))
        losses = [
            nn.functional.cross_entropy(logit, targets[places, i], label_smoothing=SMOOTHING)
            for i, logit in enumerate(logits)
            if bool((targets[places, i] >= 0).any())
        ]
        if losses:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return listener.eval()


@torch.inference_mode()
def listen(listener: Listener, images: Sequence[Tensor]) -> Judged:
    """What `mel_image` makes of sounds → features and probabilities."""
    order = sorted(range(len(images)), key=lambda i: images[i].shape[1])
    features = torch.zeros(len(images), FEATURES)
    for begin in range(0, len(order), 64):
        places = order[begin : begin + 64]
        features[places] = listener.embed(*_padded([images[i] for i in places]))
    heard = nn.functional.silu(features)
    return Judged(features, [head(heard).softmax(dim=1) for head in listener.heads])


def _padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(batch, BANDS, longest) float32, and (batch,) frames."""
    frames = torch.tensor([image.shape[1] for image in images])
    longest = int(frames.max())
    padded = [nn.functional.pad(image, (0, longest - image.shape[1])) for image in images]
    return torch.stack(padded).float(), frames
