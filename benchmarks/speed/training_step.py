"""A training step of the autoencoder, against the same network in a plain training loop.

Plain: float32, a DataLoader that pads its batches, vector-quantize-pytorch as the quantizer, AdamW
with default settings, and `loss.item()` after each step. Both train on the same clips.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.dataset.batches import batches
from audiovq.models.autoencoder.autoencoder import (
    RECONSTRUCTION_SCALE,
    Autoencoder,
    loudness_weights,
)
from audiovq.runtime.cuda_graphs import WARMUP_CALLS, side_stream
from audiovq.runtime.device import pick_precision, to_device_async
from audiovq.training.loop import Trainer
from audiovq.training.stage import Inputs, Step
from benchmarks.speed.comparison import Peer, Row, Run, compare
from benchmarks.speed.limits import device, matrix_rate

CLIPS = 1024
"""Number of random clips."""
GRIDS = ((8_000, 64, 64), (44_100, 128, 172))
"""Sample rate, mel bands and most frames: of spoken digits, and of hits of up to two seconds. The shortest clip has
a quarter of the frames."""


class Clips:
    """Random spectrograms of unequal lengths, in memory."""

    def __init__(self, bins: int, longest: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.bins = bins
        self.images = torch.rand(CLIPS, 1, bins, longest, generator=generator).half()
        self.frames = torch.randint(longest // 4, longest + 1, (CLIPS,), generator=generator)

    def __len__(self) -> int:
        return CLIPS

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A clip (1, bins, frames) without padding, and its number of frames."""
        frames = int(self.frames[index])
        return self.images[index, :, :, :frames].float(), frames


class Plain(nn.Module):
    """Our encoder and decoder with the quantizer of vector-quantize-pytorch."""

    def __init__(self, config: AutoencoderConfig, bins: int) -> None:
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize

        network = Autoencoder(config, bins)
        self.stride = network.stride
        self.encoder, self.decoder = network.encoder, network.decoder
        self.to(memory_format=torch.contiguous_format)
        self.quantizer: nn.Module = VectorQuantize(
            config.bottleneck.dim,
            codebook_size=config.bottleneck.num_codes,
            decay=config.bottleneck.decay,
            commitment_weight=config.bottleneck.commitment,
            rotation_trick=False,
            threshold_ema_dead_code=2,
        )

    def forward(self, images: Tensor, frames: Tensor) -> Tensor:
        """(batch, 1, bins, frames), (batch,) → the loss."""
        stride = self.stride[1]
        images = nn.functional.pad(images, (0, -images.shape[3] % stride))
        columns = torch.arange(images.shape[3] // stride, device=images.device)
        mask = (columns < -(-frames // stride)[:, None])[:, None, None].float()
        latents = self.encoder(images, mask)
        vectors = latents.permute(0, 2, 3, 1).flatten(1, 2)
        vector_mask = mask[:, 0].expand(-1, latents.shape[2], -1).flatten(1).bool()
        quantized, _, loss = self.quantizer(vectors, mask=vector_mask)
        grid = quantized.view(len(images), *latents.shape[2:], -1).permute(0, 3, 1, 2)
        output = self.decoder(grid, mask)
        cells = torch.arange(images.shape[3], device=images.device) < frames[:, None]
        weights = loudness_weights(images, 1.84) * cells[:, None, None]
        error = ((output - images).square() * weights).sum() / weights.sum()
        total: Tensor = RECONSTRUCTION_SCALE * error + loss.sum()
        return total


def padded(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Collate clips: pad them to the longest of the batch; also returns their frames."""
    longest = max(frames for _, frames in items)
    images = [nn.functional.pad(image, (0, longest - frames)) for image, frames in items]
    return torch.stack(images), torch.tensor([frames for _, frames in items])


def plain(config: TrainConfig, clips: Clips) -> Run:
    """A function that trains `Plain` by one batch of a DataLoader."""
    torch.manual_seed(0)
    model = Plain(config.autoencoder, clips.bins).to(device()).train()
    how = config.autoencoder_training
    optimizer = torch.optim.AdamW(model.parameters(), how.learning_rate)
    dataset: Any = clips
    loader = DataLoader(dataset, how.batch_size, shuffle=True, collate_fn=padded)
    stream = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> float:
        images, frames = next(stream)
        optimizer.zero_grad()
        loss: Tensor = model(images.to(device()), frames.to(device()))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), how.clip_norm)
        optimizer.step()
        return loss.item()

    return step


def ours(
    config: TrainConfig, clips: Clips, folder: Path, records: bool = True
) -> tuple[Trainer, Run]:
    """Our trainer, and a function that runs one of its steps without waiting for the GPU. On a GPU
    steps are CUDA graphs if `records`."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(config.autoencoder, clips.bins).to(device())
    trainer = Trainer(
        autoencoder,
        dataclasses.replace(config.autoencoder_training, validate_every=10**9),
        folder,
        stage="autoencoder",
        clips=len(clips.frames),
        seed=0,
        dtype=pick_precision("auto", device()),
        max_seconds=None,
    )

    trainer.records = trainer.records and records
    stride = autoencoder.stride[1]

    def prepare(step: Step) -> Inputs:
        frames = clips.frames[step.indices]
        width = stride * step.width(-(-int(frames.max()) // stride))
        images = clips.images[step.indices, :, :, :width].float()
        return to_device_async(images, device()), frames

    def loss(images: Tensor, frames: Tensor) -> dict[str, Tensor]:
        return {"loss": autoencoder(images, frames).loss}

    order = itertools.cycle(batches(clips.frames, config.autoencoder_training.batch_size, 0, 0))
    update = trainer._updating(loss)
    return trainer, lambda: trainer._step(prepare, update, next(order))


def operations(run: Run, steps: int = 8) -> float:
    """FLOPs of matrix products and convolutions per step. Call it before graphs are recorded: the
    counter does not see into them."""
    counter: Any = FlopCounterMode(display=False)
    with counter:
        for _ in range(steps):
            run()
    count: int = counter.get_total_flops()
    return count / steps


def computing(run: Run, steps: int = 30) -> float:
    """Seconds of GPU kernels per step, without the gaps between them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
    microseconds: float = sum(event.self_device_time_total for event in profiler.key_averages())
    return microseconds / 1e6 / steps


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """Preset small on a CPU, base on a GPU; clips of 8 kHz, then of 44.1 kHz."""
    preset = "base" if device().type == "cuda" else "small"
    for rate, bins, longest in GRIDS:
        with tempfile.TemporaryDirectory() as folder, side_stream(device()):
            yield from rows_of(preset, rate, Clips(bins, longest), Path(folder))


def rows_of(preset: str, rate: int, clips: Clips, folder: Path) -> Iterator[Row]:
    """Rows of one preset and one size of clips."""
    config, on_gpu = PRESETS[preset], device().type == "cuda"
    batch = config.autoencoder_training.batch_size
    trainer, step = ours(config, clips, folder)
    count = operations(step)
    if on_gpu:  # records all graphs
        for _ in range((WARMUP_CALLS + 1) * CLIPS // batch):
            step()
    wanted = (4.0 if on_gpu else 1.5) if rate == GRIDS[0][0] else None
    peers = [Peer("plain float32, DataLoader", plain(config, clips), wanted)]
    peers.append(matrix_rate(count, trainer.dtype))
    if on_gpu:
        _, single = ours(config, clips, folder / "single", records=False)
        peers.append(Peer("the same without CUDA graphs", single))
        peers.append(Peer("GPU kernel time", computing(step), 0.9))
    name = f"training step, preset {preset}, batch {batch}, {rate:,} Hz"
    yield from compare(name, step, *peers)
