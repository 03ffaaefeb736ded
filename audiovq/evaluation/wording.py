"""The figures of `evaluate` as rows of name, value and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiovq.dataset.measured import HELD_OUT, clips_and_why, clips_of, counted
from audiovq.evaluation.evaluate import FEW, MEASURED


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
