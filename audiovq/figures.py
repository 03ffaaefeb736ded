"""The figures of a model on a dataset, and what each of them means in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from audiovq import archive, codec
from audiovq.checkpoint import Model
from audiovq.config import (
    AudiovqError,
    SamplingConfig,
    derived_seed,
    require_count,
    require_seed,
    to_json,
)
from audiovq.copies import coded, compare, know
from audiovq.dataset import Dataset, Split
from audiovq.generation import Sound, generate
from audiovq.judges import evaluate_labels
from audiovq.measured import HELD_OUT, clips_and_why, clips_of, counted, measured_split
from audiovq.prior_stage import validate_prior
from audiovq.progress import progress
from audiovq.reconstruction import evaluate_reconstruction
from audiovq.views import encode_split

Say = Callable[[str], None]
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
    sampling: SamplingConfig | None = None,
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


def require_match(model: Model, dataset: Dataset) -> None:
    """Raise AudiovqError where a dataset's spectrograms or labels are not those of a model."""
    ours, theirs = to_json(model.spectrogram.config), to_json(dataset.spectrogram)
    for name, value in ours.items():
        if theirs[name] != value:
            raise AudiovqError(
                f"{dataset.folder}: made with {name} {theirs[name]}, the model with {value};"
                " name the dataset that the model was trained on"
            )
    if dataset.labels != model.labels:
        raise AudiovqError(
            f"{dataset.folder}: has other labels than the model;"
            " name the dataset that the model was trained on"
        )


def _evaluate_codebook(
    model: Model, split: Split, encoded: Sequence[codec.Encoded]
) -> dict[str, float]:
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

    known = model.known or know(model, dataset.train, dataset.validation)
    figures["nearest_training_clip_db"] = {}
    figures["codes_shared_with_a_training_clip"] = {}
    for name, clips in (
        ("generated", [sound.encoded for sound in sounds]),
        ("real", coded(model, split, places)),
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


def code_counts(model: Model, split: Split) -> Tensor:
    """(quantizers, codebook_size) how often each code stands in a split's clips."""
    if not model.autoencoder.config.quantizes:
        return torch.zeros(0, 0, dtype=torch.long)
    vocabulary = model.vocabulary
    counts = torch.zeros(vocabulary.end, dtype=torch.long)
    for tokens in encode_split(model, split)[0].split(4096):
        codes = tokens[tokens < vocabulary.end].long()
        counts += torch.bincount(codes, minlength=vocabulary.end)
    return counts.view(vocabulary.num_quantizers, -1)


def describe_figures(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What `evaluate` returned, as rows of name, value and a sentence that says what it means."""
    rows: list[tuple[str, str, str]] = []
    measured_on = str(figures.get("measured_on"))
    real = clips_of(measured_on)
    few = ""
    if figures.get("clips", FEW) < FEW:
        few = f"; unreliable, of only {counted(figures['clips'], measured_on)}"

    def add(name: str, value: str, meaning: str) -> None:
        rows.append((name, value, meaning))

    if "clips" in figures and measured_on in MEASURED:
        missing = clips_and_why(measured_on, *HELD_OUT).removeprefix(real).strip(" ()")
        why = MEASURED[measured_on] + f": {missing}" * bool(missing)
        add("measured on", counted(figures["clips"], measured_on), why)
    back = figures.get("reconstruction", {})
    for name, title, unit, meaning in (
        (
            "error_db",
            "spectrogram error",
            " dB",
            f"of {clips_of(measured_on, 'spectrograms')}, after encoding and decoding",
        ),
        ("pesq", "PESQ", "", "speech quality from 1 to 4.5"),
        ("stoi", "STOI", "", "how well words are understood, at most 1"),
        ("estoi", "ESTOI", "", "the same, stricter, at most 1"),
        ("log_spectral_distance_db", "log-spectral distance", " dB", "between waveforms' spectra"),
        ("mel_distance_db", "mel distance", " dB", "the same in mel bands, at seven resolutions"),
        ("spectral_convergence", "spectral convergence", "", "error as a share of the magnitudes"),
    ):
        if name in back:
            beside = [
                f"{back[prefix + name]:.2f} {words}"
                for prefix, words in (
                    ("unquantized_", "past the codebook"),
                    ("ceiling_", "from the true spectrogram"),
                )
                if prefix + name in back
            ]
            words = "; ".join(filter(None, [meaning, ", ".join(beside)]))
            add(title, f"{back[name]:.2f}{unit}", words)
    book = figures.get("codebook", {})
    if book:
        add("codebook use", f"{100 * book['usage']:.0f} %", f"codes that {real} use at all")
        add("perplexity", f"{book['perplexity']:.0f}", "as rich as so many codes used evenly")
        if "entropy_bits" in book:
            add(
                "entropy",
                f"{book['entropy_bits']:.2f} bits a code",
                "what a code needs if common ones are written shorter;"
                f" {book['nominal_bits_per_second'] / book['codes_per_second']:.2f} at full length",
            )
        add(
            "bit rate",
            f"{book.get('stored_bits_per_second', book['nominal_bits_per_second']):.0f} bit/s",
            (
                f"as the recordings of {real} are stored in an archive; "
                * ("stored_bits_per_second" in book)
            )
            + f"{book['codes_per_second']:.0f} codes a second would take"
            f" {book['nominal_bits_per_second']:.0f} at their full bits",
        )
    prior = figures.get("prior", {})
    if prior:
        add(
            "prior",
            f"{prior['bits_per_code']:.2f} bits a code",
            f"a blind guess needs {prior['uniform_bits']:.2f}, one by frequency {prior['unigram_bits']:.2f}; the lower, the more it has learnt",
        )
    new = figures.get("generation", {})
    second = new.get("second_judge", {})
    for label, shares in new.get("accuracy", {}).items():
        if shares["generated"] is not None and shares["real"] is not None:
            other = second.get("accuracy", {}).get(label, {}).get("generated")
            add(
                f"{label} recognised",
                f"{100 * shares['generated']:.1f} %",
                f"of {new['sounds']} new sounds, by a classifier that is {100 * shares['real']:.1f} %"
                f" correct on {real}"
                + (f"; {100 * other:.1f} % by the second judge" if other is not None else "")
                + few,
            )
    for label, scores in new.get("inception_score", {}).items():
        add(
            f"{label} inception score",
            f"{scores['generated']:.2f}",
            f"from 1 to the number of values; {real} score {scores['real']:.2f}{few}",
        )
    spread = new.get("diversity_within_classes")
    if spread and spread["real"]:
        add(
            "diversity",
            f"{spread['generated'] / spread['real']:.2f}",
            f"how far new sounds of the same labels lie apart; {real}: 1{few}",
        )
    for name, distance, features in (
        ("Fréchet distance", new.get("frechet_distance"), "the classifier's features"),
        ("Fréchet, judge 2", second.get("frechet_distance"), "the features of an unlike judge"),
    ):
        if distance:
            beside = [f"training clips {distance['training_clips']:.1f}"]
            if "reconstructed" in distance:
                beside.append(f"reconstructed clips {distance['reconstructed']:.1f}")
            add(
                name,
                f"{distance['generated']:.1f}",
                f"of new sounds to {real}, in {features}; {', '.join(beside)}{few}",
            )
    if new:
        near, shared = new["nearest_training_clip_db"], new["codes_shared_with_a_training_clip"]
    if new and "generated" in near:
        of_real = f"; {real} stand at {near['real']['median']:.1f} dB" if "real" in near else ""
        add(
            "nearest training clip",
            f"{near['generated']['median']:.1f} dB",
            f"median over new sounds{of_real}",
        )
        add(
            "copies",
            f"{shared['generated']['copies']}",
            "new sounds that are near copies of a training clip, by codes or decibels; the most codes"
            f" shared with one is {100 * shared['generated']['most']:.0f} %",
        )
    for left_out in (back.get("left_out"), new.get("left_out")):
        if left_out:
            add("left out", "", left_out)
    return rows


def figure_table(figures: Mapping[str, Any]) -> str:
    """`describe_figures` as lines of text."""
    rows = describe_figures(figures)
    names, values = max(len(r[0]) for r in rows), max(len(r[1]) for r in rows)
    return "\n".join(f"{n:<{names}}  {v:>{values}}  {meaning}" for n, v, meaning in rows)
