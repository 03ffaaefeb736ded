"""Fidelity of reconstructions: error of spectrograms, and scores of waveforms next to their ceilings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from audiovq.audio.ends import from_silence
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import originals
from audiovq.evaluation.fidelity import WaveformScores
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.autoencoder.gaussian import NoBottleneck
from audiovq.models.model import Model
from audiovq.spectral import inversion
from audiovq.training.stages.autoencoder import validate_autoencoder

BATCH_SECONDS = 30.0
"""Duration of the recordings that are in memory, and coded together, at a time."""


def evaluate_reconstruction(
    model: Model, dataset: Dataset, split: Split
) -> tuple[dict[str, Any], list[Encoded]]:
    """Spectrogram error in dB, and scores of waveforms; and the codes of the recordings.

    The recordings are those of `originals.beginnings`. Figures with the prefix `ceiling_` are of waveforms
    from the true spectrograms, the best that any codec on these spectrograms can reach; those with
    `unquantized_` are of the same networks without quantization, the best that any codebook can reach. If
    recordings are missing, only the spectrogram error, `left_out` with the reason, and no codes.
    """
    quantizes, range_db = model.autoencoder.config.quantizes, dataset.spectrogram.range_db
    figures: dict[str, Any] = {
        "error_db": validate_autoencoder(model.autoencoder, split, range_db)["error_db"]
    }
    encoded: list[Encoded] = []
    if split.images:
        return figures, encoded
    prefixes = ["", "ceiling_", *(["unquantized_"] if quantizes else [])]
    scores = {prefix: WaveformScores(model.spectrogram.config) for prefix in prefixes}
    try:
        for batch in _batches(originals.beginnings(dataset, split), model.sample_rate):
            others = {"ceiling_": inversion.invert(model.spectrogram, batch)}
            if quantizes:
                encoded += codec.encode(model, batch)
                others[""] = codec.decode(model, encoded[-len(batch) :])
                with unquantized(model.autoencoder):
                    others["unquantized_"] = reconstruct(model, batch)
            else:
                others[""] = reconstruct(model, batch)
            for prefix, waveforms in others.items():
                for original, other in zip(batch, waveforms, strict=True):
                    scores[prefix].add(original, other)
    except AudioError as error:
        what = f"scores of waveforms, such as PESQ, and the bit rate of archives ({error})"
        figures["left_out"] = originals.missing_note(dataset, what)
        return figures, []
    for prefix, found in scores.items():
        figures |= {prefix + name: value for name, value in found.means().items()}
    if quantizes and encoded:
        with unquantized(model.autoencoder):
            metrics = validate_autoencoder(model.autoencoder, split, range_db)
        figures["unquantized_error_db"] = metrics["error_db"]
    return figures, encoded


def _batches(
    waveforms: Iterator[Waveform], sample_rate: int, seconds: float = BATCH_SECONDS
) -> Iterator[list[Waveform]]:
    """Batches of waveforms, of slightly more than `seconds` each."""
    batch: list[Waveform] = []
    for waveform in waveforms:
        batch.append(waveform)
        if sum(w.shape[-1] for w in batch) > seconds * sample_rate:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def unquantized(autoencoder: Autoencoder) -> Iterator[None]:
    """Bypass the quantizer of `autoencoder` within the block."""
    bottleneck = autoencoder.bottleneck
    autoencoder.bottleneck = NoBottleneck()
    try:
        yield
    finally:
        autoencoder.bottleneck = bottleneck


def reconstruct(model: Model, waveforms: Sequence[Waveform]) -> list[Waveform]:
    """Encode and decode waveforms (..., samples) by the networks; works for models without codes, too.

    Returns waveforms of the same lengths.
    """
    decoded = []
    with torch.inference_mode():
        for waveform in waveforms:
            batch = torch.from_numpy(waveform)[None].to(model.device)
            images, level = model.spectrogram(batch)
            output = model.autoencoder(images, torch.tensor([images.shape[3]])).spectrogram
            output = model.autoencoder.apply_contrast(output)
            num_samples = torch.tensor([waveform.shape[-1]], device=model.device)
            generator = torch.Generator().manual_seed(0)
            inverted = model.spectrogram.inverse(output, level, num_samples, generator=generator)
            decoded.append(from_silence(inverted[0].cpu().numpy(), model.sample_rate))
    return decoded
