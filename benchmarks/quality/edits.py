"""Quality of generation and edits: new sounds of both priors, inpainting, continuation, long sounds.

    python benchmarks/quality/edits.py MODEL DATASET --out benchmarks/results/NAME.json

A judge trained on the dataset's training clips predicts the labels of the results. Edits are made on
real test clips, without giving the model their labels. *Flux* is the change of a spectrogram from frame
to frame, in dB (root mean square over bins); at a joint, its maximum over the frames whose windows
overlap the joint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from audiovq.audio.reading import read
from audiovq.audio.waveform import Waveform
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation import classifier
from audiovq.evaluation.classifier import Classifier
from audiovq.generation import edit
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound
from audiovq.models.checkpoint import load
from audiovq.models.model import Model, require_match
from audiovq.runtime.files import write_json
from audiovq.spectral import spectrogram
from benchmarks.command import refusing
from benchmarks.provenance import stamp

ORDERS = SamplingConfig(order="time"), SamplingConfig(order="masked")
AROUND = 2
"""Frames on each side of a joint."""


def flux(model: Model, waveform: Waveform) -> Tensor:
    """Flux in dB, (frames - 1,)."""
    (image,) = spectrogram.waveform_images(model.spectrogram, [waveform])
    steps = image[0].diff(dim=1) * model.spectrogram.config.range_db
    return steps.square().mean(dim=0).sqrt()


def at_joint(changes: Tensor, frame: int) -> float:
    """The largest flux near a frame."""
    return float(changes[max(0, frame - AROUND) : frame + AROUND].max())


def accuracy(
    judge: Classifier, model: Model, waveforms: Sequence[Waveform], truth: Tensor
) -> dict[str, float | None]:
    """Share of sounds whose label the judge predicts correctly, for each label."""
    images = spectrogram.waveform_images(model.spectrogram, waveforms)
    shares = classifier.judge(judge, images).accuracy(truth)
    return dict(zip(model.labels, shares, strict=True))


def requested_labels(model: Model, sounds: Sequence[Sound]) -> Tensor:
    """Indices (sounds, labels) of the label values that were asked for; of labels left open, one past the last value."""
    return torch.tensor(
        [
            [
                values.index(sound.labels[name]) if name in sound.labels else len(values)
                for name, values in model.labels.items()
            ]
            for sound in sounds
        ]
    )


def new_sounds(model: Model, judge: Classifier, n: int) -> dict[str, Any]:
    """Seconds for 16 sounds (codes and waveforms, the best of three), and accuracy of `n` sounds."""
    figures: dict[str, Any] = {}
    for sampling in ORDERS:
        seconds = []
        for seed in range(3):
            begin = time.perf_counter()
            generate(model, 16, sampling=sampling, seed=seed, inversion=Inversion("griffin-lim", 0))
            seconds.append(time.perf_counter() - begin)
        sounds = generate(model, n, sampling=sampling, seed=1)
        truth = requested_labels(model, sounds)
        figures[sampling.order] = {
            "seconds_for_16": min(seconds),
            "accuracy": accuracy(judge, model, [s.waveform for s in sounds], truth),
        }
    return figures


def on_real_clips(
    model: Model, judge: Classifier, clips: Sequence[Waveform], truth: Tensor
) -> dict[str, Any]:
    """Accuracy of real clips: unchanged, coded, with the middle third inpainted, and with the second half
    continued; flux at both ends of the inpainted third, before and after."""
    made: dict[str, list[Waveform]] = {"real": list(clips)}
    joints: dict[str, list[float]] = {"coded": []}
    for clip in clips:
        coded = edit.vary(model, clip, 1, strength=0)[0]
        made.setdefault("coded", []).append(coded.waveform)
        seconds = len(clip) / model.sample_rate
        third = seconds / 3, 2 * seconds / 3
        mask = edit.region_mask(model, coded.encoded, third, None)[0].nonzero()[:, 0]
        ends = [int(mask[0]), int(mask[-1]) + 1]
        frames = [column * model.autoencoder.stride[1] for column in ends]
        joints["coded"] += [at_joint(flux(model, coded.waveform), frame) for frame in frames]
        for sampling in ORDERS:
            (sound,) = edit.repaint(model, clip, time=third, sampling=sampling)
            outside = torch.ones(sound.encoded.codes.shape[2], dtype=torch.bool)
            outside[mask] = False
            same = sound.encoded.codes[..., outside] == coded.encoded.codes[..., outside]
            assert bool(same.all()), "a code outside the mask has changed"
            name = f"repainted, {sampling.order}"
            made.setdefault(name, []).append(sound.waveform)
            joints.setdefault(name, []).extend(
                at_joint(flux(model, sound.waveform), frame) for frame in frames
            )
        half = clip[: len(clip) // 2]
        for name, sampling, length in (
            ("continued, time, to its end", ORDERS[0], None),
            ("continued, time, as long", ORDERS[0], seconds),
            ("continued, masked, as long", ORDERS[1], seconds),
        ):
            (sound,) = edit.extend(model, half, length, sampling=sampling)
            made.setdefault(name, []).append(sound.waveform)
    high = float(np.quantile(joints["coded"], 0.95))
    return {
        "accuracy": {name: accuracy(judge, model, waves, truth) for name, waves in made.items()},
        "flux_db_at_joints": {
            name: {
                "median": float(np.median(found)),
                "95_percent": float(np.quantile(found, 0.95)),
                "share_within_real_95_percent": float(np.mean(np.array(found) <= high)),
            }
            for name, found in joints.items()
        },
    }


def long_sounds(model: Model, n: int) -> dict[str, Any]:
    """The largest autocorrelation peak, beyond 0.1 s, of the flux of 5 s sounds; and the flux of loops at
    the joint and elsewhere."""
    figures: dict[str, Any] = {}
    for sampling in ORDERS:
        peaks, at_joints, elsewhere = [], [], []
        for sound in generate(model, n, seconds=5.0, sampling=sampling, seed=2):
            changes = flux(model, sound.waveform)
            centred = changes - changes.mean()
            spectrum = torch.fft.rfft(centred, 2 * len(centred)).abs().square()
            correlation = torch.fft.irfft(spectrum)[: len(centred) // 2]
            first = int(0.1 * model.sample_rate / model.spectrogram.config.hop_length)
            peaks.append(float(correlation[first:].max() / correlation[0]))
        for sound in generate(model, n, seconds=1.0, loop=True, sampling=sampling, seed=3):
            thrice = flux(model, np.tile(sound.waveform, 3))
            frames = len(sound.waveform) // model.spectrogram.config.hop_length
            at_joints.append(at_joint(thrice, frames))
            elsewhere += [at_joint(thrice, frame) for frame in range(frames + 8, 2 * frames - 8)]
        figures[sampling.order] = {
            "flux_autocorrelation_peak": float(np.mean(peaks)),
            "loop_joint_db": float(np.median(at_joints)),
            "loop_elsewhere_db": float(np.median(elsewhere)),
            "loop_elsewhere_95_percent_db": float(np.quantile(elsewhere, 0.95)),
        }
    return figures


def main(
    model: Positional[Path],
    dataset: Positional[Path],
    out: Path | None = None,
    clips: int = 100,
    n: int = 300,
) -> None:
    """Measure, print, and write if asked to.

    Args:
        model: Folder of a model with both priors.
        dataset: Folder of the dataset that it was trained on.
        out: JSON file for the results.
        clips: Test clips to inpaint and continue.
        n: New sounds of each prior.
    """
    loaded, data = load(model), Dataset(dataset)
    require_match(loaded, data)
    judge = classifier.train_classifier([data.train, data.validation])
    by_path = {clip.path: i for i, clip in enumerate(data.test.clips)}
    paths = sorted(by_path)[:: max(1, -(-len(by_path) // clips))]
    source = data.recordings or Path()
    waveforms = [read(source / path, loaded.sample_rate)[0] for path in paths]
    truth = data.test.label_indices[[by_path[path] for path in paths]]
    figures: dict[str, Any] = stamp() | {"new": new_sounds(loaded, judge, n)}
    figures |= {"clips": len(waveforms)} | on_real_clips(loaded, judge, waveforms, truth)
    figures["long"] = long_sounds(loaded, 8)
    for name, value in figures.items():
        print(name, value, sep="\n  ")
    if out is not None:
        write_json(out, figures)


if __name__ == "__main__":
    with refusing("edits"):
        tyro.cli(main)
