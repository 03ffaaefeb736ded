"""The figures of a model on a dataset, and what each of them means in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from audiovq.codec import archive
from audiovq.codec.tokenize import code_counts, encode_split
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_seed
from audiovq.config.sampling import SamplingConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import HELD_OUT, clips_of, measured_split
from audiovq.evaluation.judges import evaluate_labels
from audiovq.evaluation.reconstruction import evaluate_reconstruction
from audiovq.generation.copies import compare
from audiovq.generation.generate import generate
from audiovq.generation.known import encode_clips, learn_clips
from audiovq.generation.sound import Sound
from audiovq.models.model import Model, require_match
from audiovq.runtime.progress import Say, progress
from audiovq.training.prior import validate_prior

FEW = 20
"""Clips below which a judge's figures are called unreliable."""
MEASURED = {
    "test": "which neither training nor the choice of the best model saw",
    "validation": "by which the best model was chosen",
    "train": "which the model has learnt from",
}
"""What there is to know of the split that figures are of."""


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    n: int = 200,
    sampling: SamplingConfig = SamplingConfig(),
    best_of: int = 1,
    seed: int = 0,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Figures of a model on a dataset: reconstruction, codebook, prior, generation.

    They are of test clips, else of validation clips, else of the training clips themselves: "measured_on"
    says which. For generation, `n` sounds are drawn with `sampling` and `best_of` as `generate` takes
    them. Their judges learn here, from clips that they are not tested on (`judges`); beside each figure
    stands what real clips score. Raises AudiovqError where the dataset's spectrograms or labels are not
    the model's.
    """
    require_count(n)
    require_seed(seed)
    require_match(model, dataset)
    held_out = measured_split(dataset, *HELD_OUT)
    figures: dict[str, Any] = {"measured_on": held_out.name, "clips": len(held_out)}
    say(f"evaluate: reconstruction of {clips_of(held_out.name)}")
    figures["reconstruction"], encoded = evaluate_reconstruction(model, dataset, held_out)
    figures["codebook"] = _evaluate_codebook(model, held_out, encoded)
    if model.prior is None:
        return figures
    figures["prior"] = {
        name: model.header["prior"]["summary"][name] for name in ("uniform_bits", "unigram_bits")
    } | validate_prior(model.prior, encode_split(model, held_out))
    del figures["prior"]["score"]
    say(f"evaluate: {n} new sounds and judges for them")
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
    figures["generation"] = _evaluate_generation(model, dataset, held_out, sounds, seed)
    return figures


def _evaluate_codebook(model: Model, split: Split, encoded: Sequence[Encoded]) -> dict[str, float]:
    """Of the codes of a split's clips: usage, perplexity and entropy are means over quantizers; bits
    per second as stored where the recordings are still there, in one archive."""
    if not model.autoencoder.config.quantizes:
        return {}
    counts = code_counts(model, split).double()
    nats = torch.special.entr(counts / counts.sum(dim=1, keepdim=True)).sum(dim=1)
    bits = math.log2(model.autoencoder.config.codebook_size)
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
    model: Model, dataset: Dataset, split: Split, sounds: Sequence[Sound], seed: int
) -> dict[str, Any]:
    """What new sounds are worth, each figure beside that of real clips of `split`."""
    shuffle = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(split), generator=shuffle)[: len(sounds)]
    figures: dict[str, Any] = {"sounds": len(sounds)}
    if model.labels:
        figures |= evaluate_labels(model, dataset, split, sounds, seed)
    else:
        figures["left_out"] = "what judges say: the dataset has no labels, which they learn"

    known = model.known or learn_clips(model, dataset.train, dataset.validation)
    figures["nearest_training_clip_db"] = {}
    figures["codes_shared_with_a_training_clip"] = {}
    for name, clips in (
        ("generated", [sound.encoded for sound in sounds]),
        ("real", encode_clips(model, split, places)),
    ):
        found = [one for one in compare(model, clips, known) if one is not None]
        if found:
            distances = torch.tensor([one.db for one in found])
            shares = torch.tensor([one.share for one in found])
            figures["nearest_training_clip_db"][name] = {
                "fifth_percentile": float(distances.quantile(0.05)),
                "median": float(distances.median()),
            }
            figures["codes_shared_with_a_training_clip"][name] = {
                "median": float(shares.median()),
                "most": float(shares.max()),
                "copies": sum(one.is_copy for one in found),
            }
    return figures
