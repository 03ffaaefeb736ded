"""The figures of a model on a dataset, and what each of them means in words."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq import archive, audio, codec, evaluation, fidelity
from audiovq.autoencoder import Autoencoder
from audiovq.autoencoder_stage import validate_autoencoder
from audiovq.bottlenecks import NoBottleneck
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
from audiovq.prior_stage import validate_prior
from audiovq.progress import progress
from audiovq.views import encode_split

Say = Callable[[str], None]


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

    For the last, `n` sounds are drawn with `sampling` and `best_of` as `generate` takes them. Their
    judge is a classifier trained here on the dataset's training and validation clips; beside each
    figure stands what real test clips score. Raises AudiovqError where the dataset's spectrograms
    or labels are not the model's.
    """
    require_count(n)
    require_seed(seed)
    require_match(model, dataset)
    held_out = next(s for s in (dataset.test, dataset.validation, dataset.train) if len(s))
    figures: dict[str, Any] = {"held_out": held_out.name, "clips": len(held_out)}
    say("evaluate: reconstruction of held-out clips")
    originals = original_waveforms(dataset, held_out, 400)
    encoded = codec.encode(model, originals) if model.autoencoder.config.quantizes else []
    figures["reconstruction"] = _evaluate_reconstruction(
        model, held_out, dataset.spectrogram.range_db, originals, encoded
    )
    figures["codebook"] = _evaluate_codebook(model, held_out, encoded)
    if model.prior is None:
        return figures
    figures["prior"] = {
        name: model.header["prior"]["summary"][name] for name in ("uniform_bits", "unigram_bits")
    } | validate_prior(model.prior, encode_split(model, held_out))
    del figures["prior"]["score"]
    say(f"evaluate: {n} new sounds and a judge for them")
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


def _evaluate_reconstruction(
    model: Model,
    split: Split,
    range_db: float,
    originals: Sequence[audio.Waveform],
    encoded: Sequence[codec.Encoded],
) -> dict[str, float]:
    """Error in dB of the spectrogram; where the recordings are still there, of waveforms as well.

    Names that begin with `ceiling_` are of waveforms from the true spectrograms, which no codec on
    these spectrograms can exceed; those with `unquantized_` of the same networks with the latents
    led past the codebook, which no codebook for them can.
    """
    figures = {"error_db": validate_autoencoder(model.autoencoder, split, range_db)["error_db"]}
    if not originals:
        return figures
    others = {"ceiling_": codec.invert(model.spectrogram, originals)}
    if model.autoencoder.config.quantizes:
        others[""] = codec.decode(model, encoded)
        with unquantized(model.autoencoder):
            metrics = validate_autoencoder(model.autoencoder, split, range_db)
            figures["unquantized_error_db"] = metrics["error_db"]
            others["unquantized_"] = through_networks(model, originals)
    else:
        others[""] = through_networks(model, originals)
    for prefix, waveforms in others.items():
        scores = fidelity.waveform_scores(originals, waveforms, model.spectrogram.config)
        figures |= {prefix + name: value for name, value in scores.items()}
    return figures


@contextlib.contextmanager
def unquantized(autoencoder: Autoencoder) -> Iterator[None]:
    """Inside, `autoencoder(…)` leads the encoder's latents past the codebook to the decoder."""
    bottleneck = autoencoder.bottleneck
    autoencoder.bottleneck = NoBottleneck()
    try:
        yield
    finally:
        autoencoder.bottleneck = bottleneck


def through_networks(model: Model, waveforms: Sequence[audio.Waveform]) -> list[audio.Waveform]:
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


def original_waveforms(dataset: Dataset, split: Split, most: int) -> list[audio.Waveform]:
    """Up to `most` of a split's recordings at the dataset's rate; none where one is gone."""
    paths = sorted({clip.path for clip in split.clips})
    paths = paths[:: max(1, -(-len(paths) // most))]
    source = Path(str(dataset.header.get("source", "")))
    try:
        return [audio.read(source / path, dataset.spectrogram.sample_rate)[0] for path in paths]
    except audio.AudioError:
        return []


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
    images = evaluation.waveform_images(model.spectrogram, [sound.waveform for sound in sounds])
    shuffle = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(split), generator=shuffle)[: len(sounds)]
    figures: dict[str, Any] = {"sounds": len(sounds)}
    if model.labels:
        figures |= _evaluate_labels(model, dataset, split, sounds, images, seed)

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


def _evaluate_labels(
    model: Model,
    dataset: Dataset,
    split: Split,
    sounds: Sequence[Sound],
    images: Sequence[Tensor],
    seed: int,
) -> dict[str, Any]:
    """What a classifier that learns from the training clips hears in new sounds and in real ones."""
    learnt_from = [s for s in (dataset.train, dataset.validation) if len(s)]
    judge = evaluation.train_classifier(learnt_from, seed)
    picked = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))
    training = evaluation.split_images(dataset.train, picked[: len(sounds)])
    of_new, of_real, of_training = (
        evaluation.judge(judge, clips)
        for clips in (images, evaluation.split_images(split), training)
    )
    asked = torch.tensor(
        [
            [
                values.index(sound.labels[name]) if name in sound.labels else len(values)
                for name, values in model.labels.items()
            ]
            for sound in sounds
        ]
    )
    new, old = of_new.accuracy(asked), of_real.accuracy(split.label_indices)
    figures: dict[str, Any] = {"accuracy": {}, "inception_score": {}}
    for i, name in enumerate(model.labels):
        figures["accuracy"][name] = {"generated": new[i], "real": old[i]}
        figures["inception_score"][name] = {
            "generated": evaluation.inception_score(of_new.probabilities[i]),
            "real": evaluation.inception_score(of_real.probabilities[i]),
        }
    if min(len(sounds), len(split), len(training)) > 1:
        figures["frechet_distance"] = {
            "generated": evaluation.frechet_distance(of_new.features, of_real.features),
            "training_clips": evaluation.frechet_distance(of_training.features, of_real.features),
        }
    spreads = evaluation.class_spreads(of_new.features, asked)
    real_spreads = evaluation.class_spreads(of_real.features, split.label_indices)
    if both := spreads.keys() & real_spreads.keys():
        figures["diversity_within_classes"] = {
            "classes": len(both),
            "generated": math.fsum(spreads[values] for values in both) / len(both),
            "real": math.fsum(real_spreads[values] for values in both) / len(both),
        }
    return figures


def code_counts(model: Model, split: Split) -> Tensor:
    """(quantizers, codebook_size) how often each code stands in a split's clips."""
    if not model.autoencoder.config.quantizes:
        return torch.zeros(0, 0, dtype=torch.long)
    vocabulary = model.vocabulary
    tokens = encode_split(model, split)[0]
    counts = torch.bincount(tokens[tokens < vocabulary.end].long(), minlength=vocabulary.end)
    return counts.view(vocabulary.num_quantizers, -1)


def describe_figures(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What `evaluate` returned, as rows of name, value and a sentence that says what it means."""
    rows: list[tuple[str, str, str]] = []

    def add(name: str, value: str, meaning: str) -> None:
        rows.append((name, value, meaning))

    back = figures.get("reconstruction", {})
    for name, title, unit, meaning in (
        ("error_db", "spectrogram error", " dB", "how far off held-out spectrograms come back"),
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
        add("codebook use", f"{100 * book['usage']:.0f} %", "codes that held-out clips use at all")
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
                "as held-out recordings are stored in an archive; "
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
    for label, shares in new.get("accuracy", {}).items():
        if shares["generated"] is not None and shares["real"] is not None:
            add(
                f"{label} named rightly",
                f"{100 * shares['generated']:.1f} %",
                f"of {new['sounds']} new sounds, by a classifier that names"
                f" {100 * shares['real']:.1f} % of real test clips rightly",
            )
    for label, scores in new.get("inception_score", {}).items():
        add(
            f"{label} inception score",
            f"{scores['generated']:.2f}",
            "as if so many values were heard, each surely and equally often;"
            f" real test clips stand at {scores['real']:.2f}",
        )
    spread = new.get("diversity_within_classes")
    if spread and spread["real"]:
        add(
            "diversity",
            f"{spread['generated'] / spread['real']:.2f}",
            "how far new sounds of the same labels lie apart, real test clips being 1",
        )
    if distance := new.get("frechet_distance"):
        add(
            "Fréchet distance",
            f"{distance['generated']:.1f}",
            "of new sounds to real test clips in the classifier's features;"
            f" real training clips stand at {distance['training_clips']:.1f}",
        )
    if new:
        near, shared = new["nearest_training_clip_db"], new["codes_shared_with_a_training_clip"]
    if new and "generated" in near:
        real = (
            f"; real test clips stand at {near['real']['median']:.1f} dB" if "real" in near else ""
        )
        add(
            "nearest training clip",
            f"{near['generated']['median']:.1f} dB",
            f"median over new sounds{real}",
        )
        add(
            "copies",
            f"{shared['generated']['copies']}",
            "new sounds that are near copies of a training clip, by codes or decibels; the most codes"
            f" shared with one is {100 * shared['generated']['most']:.0f} %",
        )
    return rows


def figure_table(figures: Mapping[str, Any]) -> str:
    """`describe_figures` as lines of text."""
    rows = describe_figures(figures)
    names, values = max(len(r[0]) for r in rows), max(len(r[1]) for r in rows)
    return "\n".join(f"{n:<{names}}  {v:>{values}}  {meaning}" for n, v, meaning in rows)
