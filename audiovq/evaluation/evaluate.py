"""Figures of a model on a dataset: reconstruction, codebook, priors, generated sounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from audiovq.audio.channels import to_channels
from audiovq.codec import archive
from audiovq.codec.tokenize import code_counts, encode_split
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_seed
from audiovq.config.sampling import SamplingConfig
from audiovq.dataset.dataset import Dataset, Split, random_clips
from audiovq.dataset.measured import HELD_OUT, clips_of, measured_split
from audiovq.evaluation import originals
from audiovq.evaluation.envelopes import envelope_figures
from audiovq.evaluation.fidelity import SPEECH_RATE
from audiovq.evaluation.judges import JudgeLimits, evaluate_with_judges
from audiovq.evaluation.reconstruction import evaluate_reconstruction
from audiovq.generation.copies import compare
from audiovq.generation.generate import generate
from audiovq.generation.known import encode_clips, learn_clips
from audiovq.generation.sound import Sound
from audiovq.models.model import Model, require_match
from audiovq.runtime.progress import Say, progress
from audiovq.training.stages.masked_prior import validate_masked
from audiovq.training.stages.prior import validate_prior

FEW = 20
"""Number of real clips below which a judge's figures are called unreliable, and new sounds not judged."""


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    n: int = 200,
    sampling: SamplingConfig = SamplingConfig(),
    best_of: int = 1,
    seed: int = 0,
    judge_limits: JudgeLimits | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Figures of a model on a dataset: reconstruction, codebook, priors, generation.

    Measured on test clips; without any, on validation clips, or else on training clips: "measured_on" is
    the split. Generation is measured on `n` sounds, made with `sampling` and `best_of` as in `generate`,
    by judges that are trained here within `judge_limits` (`judges`), next to the same figures of real
    clips; of a model without codes, new sounds are not compared with training clips. Raises AudiovqError if the dataset's spectrograms or labels differ from the model's.
    """
    require_count(n)
    require_seed(seed)
    require_match(model, dataset)
    held_out = measured_split(dataset, *HELD_OUT)
    figures: dict[str, Any] = {"measured_on": held_out.name, "clips": len(held_out)}
    say(f"evaluate: reconstruction of {clips_of(held_out.name)}")
    figures["reconstruction"], encoded = evaluate_reconstruction(model, dataset, held_out)
    figures["codebook"] = _evaluate_codebook(model, held_out, encoded)
    figures |= _evaluate_priors(model, held_out)
    if not model.generates:
        return figures
    if held_out.images:
        figures["generation"] = {"left_out": "new images: only new sounds are measured"}
        return figures
    say(f"evaluate: {n} new sounds and judges")
    with progress("evaluate: generating", n, "sounds") as step:
        sounds = generate(
            model,
            n,
            sampling=sampling,
            best_of=best_of,
            seed=derived_seed(seed, 1),
            keep_copies=True,
            progress=step,
        )
    figures["generation"] = _evaluate_generation(
        model, dataset, held_out, sounds, seed, judge_limits
    )
    return figures


def _evaluate_priors(model: Model, split: Split) -> dict[str, Any]:
    """Bits per code of the codes of a split, by each prior that the model has."""
    figures: dict[str, Any] = {}
    if model.prior is None and model.masked is None:
        return figures
    codes = encode_split(model, split)
    if model.prior is not None:
        figures["prior"] = {
            name: model.header["prior"]["summary"][name]
            for name in ("uniform_bits", "unigram_bits")
        } | validate_prior(model.prior, codes)
        del figures["prior"]["score"]
    if model.masked is not None:
        with torch.no_grad():
            figures["masked"] = validate_masked(model.masked, codes)
        del figures["masked"]["score"]
    return figures


def _evaluate_codebook(model: Model, split: Split, encoded: Sequence[Encoded]) -> dict[str, float]:
    """Usage, perplexity and entropy of the codes of a split, means over quantizers; and bits per second,
    also of an archive of `encoded` if not empty."""
    if not model.autoencoder.config.quantizes:
        return {}
    counts = code_counts(model, split).double()
    nats = torch.special.entr(counts / counts.sum(dim=1, keepdim=True)).sum(dim=1)
    bits = math.log2(model.autoencoder.config.bottleneck.num_codes)
    figures = {
        "usage": float((counts > 0).double().mean()),
        "perplexity": float(nats.exp().mean()),
        "entropy_bits": float(nats.mean()) / math.log(2),
        "codes_per_second": model.codes_per_second,
        "nominal_bits_per_second": model.codes_per_second * bits,
    }
    if encoded:
        sounds = {str(number): sound for number, sound in enumerate(encoded)}
        rates = archive.rates(model, sounds, archive.pack(model, sounds))
        figures["stored_bits_per_second"] = rates["stored_bits_per_second"]
    return figures


def _evaluate_generation(
    model: Model,
    dataset: Dataset,
    split: Split,
    sounds: Sequence[Sound],
    seed: int,
    judge_limits: JudgeLimits | None,
) -> dict[str, Any]:
    """Figures of generated sounds, next to those of real clips of `split`."""
    figures: dict[str, Any] = {"sounds": len(sounds)}
    if model.sample_rate > SPEECH_RATE:
        figures["envelopes"] = _envelopes(model, dataset, split, sounds)
    if dataset.of_words().labels:
        figures |= evaluate_with_judges(model, dataset, split, sounds, seed, judge_limits)
    else:
        figures["left_out"] = "judges: the dataset has no labels of words to train them on"
    if model.autoencoder.config.quantizes:
        figures |= _distances_to_training_clips(model, dataset, split, sounds, seed)
    return figures


def _envelopes(
    model: Model, dataset: Dataset, split: Split, sounds: Sequence[Sound]
) -> dict[str, Any]:
    """`envelope_figures` of generated sounds and of whole clips of `split`."""
    config = model.spectrogram.config
    return {
        name: envelope_figures(
            [to_channels(waveform, 1) for waveform in waveforms],
            config.sample_rate,
            config.hop_length / config.sample_rate,
        )
        for name, waveforms in (
            ("generated", [sound.waveform for sound in sounds]),
            ("real", originals.whole_clips(dataset, split, len(sounds))),
        )
    }


def _distances_to_training_clips(
    model: Model, dataset: Dataset, split: Split, sounds: Sequence[Sound], seed: int
) -> dict[str, Any]:
    """Distances in dB, and shared codes, of generated sounds and real clips to their nearest training clips."""
    indices = random_clips(split, len(sounds), seed)
    known = model.known or learn_clips(model, dataset.train, dataset.validation)
    nearest: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    matches = {
        "generated": [sound.nearest for sound in sounds]  # compared when they were made
        if model.known is not None
        else compare(model, [sound.encoded for sound in sounds], known),
        "real": compare(model, encode_clips(model, split, indices), known),
    }
    for name, nearest_clips in matches.items():
        found = [match for match in nearest_clips if match is not None]
        if found:
            distances = torch.tensor([match.db for match in found])
            shares = torch.tensor([match.share for match in found])
            nearest[name] = {
                "fifth_percentile": float(distances.quantile(0.05)),
                "median": float(distances.median()),
            }
            shared[name] = {
                "median": float(shares.median()),
                "most": float(shares.max()),
                "copies": sum(match.is_copy for match in found),
            }
    return {"nearest_training_clip_db": nearest, "codes_shared_with_a_training_clip": shared}
