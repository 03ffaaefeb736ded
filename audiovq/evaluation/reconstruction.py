"""How well a model brings recordings back: error of spectrograms, and scores of waveforms beside ceilings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

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
from audiovq.training.autoencoder import validate_autoencoder

BATCH_SECONDS = 30.0
"""Of recordings that are held, and go through the networks, at a time."""


def evaluate_reconstruction(
    model: Model, dataset: Dataset, split: Split
) -> tuple[dict[str, Any], list[Encoded]]:
    """Error in dB of the spectrogram; where the recordings are still there, of waveforms as well. And the
    codes of these recordings: see `originals.beginnings`.

    Names that begin with `ceiling_` are of waveforms from the true spectrograms, which no codec on
    these spectrograms can exceed; those with `unquantized_` of the same networks with the latents
    led past the codebook, which no codebook for them can. `left_out` says why there are no waveforms.
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
                    others["unquantized_"] = through_networks(model, batch)
            else:
                others[""] = through_networks(model, batch)
            for prefix, waveforms in others.items():
                for original, other in zip(batch, waveforms, strict=True):
                    scores[prefix].add(original, other)
    except AudioError as error:
        what = f"scores of waveforms, such as PESQ, and the bit rate as stored ({error})"
        figures["left_out"] = originals.missing(dataset, what)
        return figures, []
    for prefix, found in scores.items():
        figures |= {prefix + name: value for name, value in found.means().items()}
    if quantizes and encoded:
        with unquantized(model.autoencoder):
            metrics = validate_autoencoder(model.autoencoder, split, range_db)
        figures["unquantized_error_db"] = metrics["error_db"]
    return figures, encoded


def _batches(waveforms: Iterator[Waveform], sample_rate: int) -> Iterator[list[Waveform]]:
    """Waveforms, BATCH_SECONDS together."""
    batch: list[Waveform] = []
    for waveform in waveforms:
        batch.append(waveform)
        if sum(map(len, batch)) > BATCH_SECONDS * sample_rate:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def unquantized(autoencoder: Autoencoder) -> Iterator[None]:
    """Inside, `autoencoder(…)` leads the encoder's latents past the codebook to the decoder."""
    bottleneck = autoencoder.bottleneck
    autoencoder.bottleneck = NoBottleneck()
    try:
        yield
    finally:
        autoencoder.bottleneck = bottleneck


def through_networks(model: Model, waveforms: Sequence[Waveform]) -> list[Waveform]:
    """Waveforms (samples,) → encoder → the bottleneck there is → decoder → waveforms as long.

    As `codec` does it, but for models without codes too.
    """
    back = []
    with torch.inference_mode():
        for waveform in waveforms:
            batch = torch.from_numpy(waveform)[None].to(model.device)
            images, level = model.spectrogram(batch)
            output = model.autoencoder(images, torch.tensor([images.shape[3]])).spectrogram
            output = model.autoencoder.heard(output)
            num_samples = torch.tensor([len(waveform)], device=model.device)
            generator = torch.Generator().manual_seed(0)
            inverted = model.spectrogram.inverse(output, level, num_samples, generator=generator)
            back.append(inverted[0].cpu().numpy())
    return back
