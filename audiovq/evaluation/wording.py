"""The figures of `evaluate` in words: rows of name, value and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from audiovq.dataset.measured import HELD_OUT, clips_and_why, clips_of, counted
from audiovq.evaluation.evaluate import FEW

Row = tuple[str, str, str]
"""Name, value, meaning."""
Figures = Mapping[str, Any]
MEASURED_ON = {
    "test": "used neither for training nor to choose the best model",
    "validation": "used to choose the best model",
    "train": "used for training",
}
"""What a split was used for."""
MOST_NAMED = 3
"""Label values that are named, of which the last may be `others`."""


class Figure(NamedTuple):
    """How a figure is shown, if a section has its key.

    `value` and `meaning` are format strings over all figures of the section, and over `clips`, such as
    "test clips", and `spectrograms`, such as "test spectrograms".
    """

    key: str
    name: str
    value: str
    meaning: str


RECONSTRUCTION = (
    Figure(
        "error_db",
        "spectrogram error",
        "{error_db:.2f} dB",
        "error of {spectrograms} after encoding and decoding",
    ),
    Figure("pesq", "PESQ", "{pesq:.2f}", "speech quality, from 1 to 4.5"),
    Figure("stoi", "STOI", "{stoi:.2f}", "speech intelligibility, at most 1"),
    Figure("estoi", "ESTOI", "{estoi:.2f}", "the same, a stricter measure, at most 1"),
    Figure(
        "log_spectral_distance_db",
        "log-spectral distance",
        "{log_spectral_distance_db:.2f} dB",
        "between the spectra of waveforms",
    ),
    Figure(
        "mel_distance_db",
        "mel distance",
        "{mel_distance_db:.2f} dB",
        "the same in mel bands, at seven resolutions",
    ),
    Figure(
        "spectral_convergence",
        "spectral convergence",
        "{spectral_convergence:.2f}",
        "relative error of the magnitudes",
    ),
    Figure(
        "low_distance_db",
        "distance below 1 kHz",
        "{low_distance_db:.2f} dB",
        "log-spectral distance of the bass",
    ),
    Figure(
        "middle_distance_db",
        "distance from 1 to 6 kHz",
        "{middle_distance_db:.2f} dB",
        "log-spectral distance of the middle",
    ),
    Figure(
        "high_distance_db",
        "distance above 6 kHz",
        "{high_distance_db:.2f} dB",
        "log-spectral distance of the treble",
    ),
    Figure(
        "attack_error_ms",
        "attack error",
        "{attack_error_ms:.2f} ms",
        "difference of the time in which sounds rise to half of their peak, at most 50 ms each",
    ),
    Figure(
        "loudness_error_db",
        "loudness error",
        "{loudness_error_db:.2f} dB",
        "difference of the mean levels",
    ),
)
REFERENCES = (
    ("unquantized_", "without quantization"),
    ("ceiling_", "from the true spectrogram"),
)
"""Prefixes of the figures that are shown next to those of reconstruction, and what they are."""
CODEBOOK = (
    Figure("usage", "codebook use", "{percent_used:.0f} %", "share of the codes that {clips} use"),
    Figure("perplexity", "perplexity", "{perplexity:.0f}", "effective number of codes"),
    Figure(
        "entropy_bits",
        "entropy",
        "{entropy_bits:.2f} bits/code",
        "per code with an ideal variable-length code; {bits_per_code:.2f} at fixed length",
    ),
    Figure(
        "nominal_bits_per_second",
        "bit rate",
        "{bit_rate:.0f} bit/s",
        "{stored}{codes_per_second:.0f} codes per second are {nominal_bits_per_second:.0f} bit/s at fixed"
        " length",
    ),
)
PRIOR = (
    Figure(
        "bits_per_code",
        "prior",
        "{bits_per_code:.2f} bits/code",
        "baselines: {uniform_bits:.2f} (uniform), {unigram_bits:.2f} (code frequencies); lower is better",
    ),
)
MASKED = (
    Figure(
        "bits_per_code",
        "masked prior",
        "{bits_per_code:.2f} bits/masked code",
        "given codes before and after it; above 24 kHz new sounds are sampled by this prior; lower is better",
    ),
)


def describe_figures(figures: Figures) -> list[Row]:
    """The result of `evaluate` as rows of name, value and meaning; figures that are missing are omitted."""
    measured_on = str(figures.get("measured_on"))
    clips = clips_of(measured_on)
    words = {"clips": clips, "spectrograms": clips_of(measured_on, "spectrograms")}
    reconstruction = figures.get("reconstruction", {})
    generation = figures.get("generation", {})
    few = few_clips(figures)
    unreliable = f"; unreliable: {few}" if few else ""
    return [
        *_measured_on(figures, measured_on),
        *_reconstruction(reconstruction, words),
        *_rows(CODEBOOK, _codebook(figures.get("codebook", {}), clips), words),
        *_rows(PRIOR, figures.get("prior", {}), words),
        *_rows(MASKED, figures.get("masked", {}), words),
        *_judges(generation, clips, unreliable),
        *_envelopes(generation.get("envelopes", {}), clips),
        *_copies(generation, clips),
        *(
            ("left out", "", section["left_out"])
            for section in (reconstruction, generation)
            if "left_out" in section
        ),
    ]


def few_clips(figures: Figures) -> str:
    """Why the judges' figures are unreliable, such as `only 9 test clips`; empty where real clips are enough."""
    clips = figures.get("clips", FEW)
    compared = figures.get("generation", {}).get("real_clips", clips)
    if compared >= FEW:
        return ""
    of_all = counted(clips, str(figures.get("measured_on")))
    return f"only {of_all}" if compared == clips else f"only {compared} comparable of {of_all}"


def untested_in_words(shares: Figures) -> str:
    """The values of a label that new sounds were asked for and no real clip has: `kick and snare`."""
    names = list(shares.get("untested", ()))
    shown = names if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], "others"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def figure_table(figures: Figures) -> str:
    """`describe_figures` as lines of text."""
    rows = describe_figures(figures)
    names, values = max(len(r[0]) for r in rows), max(len(r[1]) for r in rows)
    return "\n".join(f"{n:<{names}}  {v:>{values}}  {meaning}" for n, v, meaning in rows)


def _rows(shown: tuple[Figure, ...], section: Figures, words: Mapping[str, str]) -> Iterator[Row]:
    """The rows of the figures that `section` has."""
    for key, name, value, meaning in shown:
        if key in section:
            values = {**section, **words}
            yield name, value.format_map(values), meaning.format_map(values)


def _measured_on(figures: Figures, split: str) -> Iterator[Row]:
    if "clips" in figures and split in MEASURED_ON:
        in_training = bool(figures.get("from_training"))
        wanted = ("validation",) if in_training else HELD_OUT
        why = clips_and_why(split, *wanted).removeprefix(clips_of(split)).strip(" ()")
        reason = f" ({why})" if why else ""
        reason += "; run `audiovq evaluate` for more" * in_training
        yield "measured on", counted(figures["clips"], split), MEASURED_ON[split] + reason


def _reconstruction(section: Figures, words: Mapping[str, str]) -> Iterator[Row]:
    """Each figure with those of REFERENCES that the section has."""
    for figure in RECONSTRUCTION:
        references = ", ".join(
            f"{section[prefix + figure.key]:.2f} {what}"
            for prefix, what in REFERENCES
            if prefix + figure.key in section
        )
        for name, value, meaning in _rows((figure,), section, words):
            yield name, value, f"{meaning}; {references}" if references else meaning


def _codebook(section: Figures, clips: str) -> Figures:
    """The section with what CODEBOOK shows besides."""
    if not section:
        return section
    nominal, stored = section["nominal_bits_per_second"], section.get("stored_bits_per_second")
    return {
        **section,
        "percent_used": 100 * section["usage"],
        "bits_per_code": nominal / section["codes_per_second"],
        "bit_rate": nominal if stored is None else stored,
        "stored": "" if stored is None else f"archive of the recordings of {clips}; ",
    }


def _judges(section: Figures, clips: str, unreliable: str) -> Iterator[Row]:
    """Accuracy, Inception Score, diversity and Fréchet distances; `unreliable` ends each meaning."""
    second = section.get("second_judge", {})
    for label, shares in section.get("accuracy", {}).items():
        untested = untested_in_words(shares)
        if shares["generated"] is not None and shares["real"] is not None:
            meaning = (
                f"of {shares.get('sounds', section['sounds'])} new sounds, by a classifier that is"
                f" {100 * shares['real']:.1f} % correct on {clips}"
            )
            other = second.get("accuracy", {}).get(label, {}).get("generated")
            if other is not None:
                meaning += f"; {100 * other:.1f} % by a second classifier"
            meaning += f"; untested: {untested}" if untested else ""
            yield f"{label} recognised", f"{100 * shares['generated']:.1f} %", meaning + unreliable
        elif untested:
            yield f"{label} recognised", "", f"untested: {untested}"
    for label, scores in section.get("inception_score", {}).items():
        yield (
            f"{label} inception score",
            f"{scores['generated']:.2f}",
            f"1 is worst, the number of values is best; {clips}: {scores['real']:.2f}{unreliable}",
        )
    spread = section.get("diversity_within_classes")
    if spread and spread["real"]:
        yield (
            "diversity",
            f"{spread['generated'] / spread['real']:.2f}",
            f"mean distance between new sounds with the same labels; {clips}: 1{unreliable}",
        )
    for name, judge, owner in (
        ("Fréchet distance", section, "first"),
        ("Fréchet distance 2", second, "second"),
    ):
        if distance := judge.get("frechet_distance"):
            references = f"training clips: {distance['training_clips']:.1f}"
            if "reconstructed" in distance:
                references += f", reconstructed clips: {distance['reconstructed']:.1f}"
            if "reconstructed_vivid" in distance:
                references += f" ({distance['reconstructed_vivid']:.1f} by the vivid decoder)"
            yield (
                name,
                f"{distance['generated']:.1f}",
                f"between new sounds and {clips}, in features of the {owner} classifier;"
                f" {references}{unreliable}",
            )


def _envelopes(section: Figures, clips: str) -> Iterator[Row]:
    """Attack, clicks and beat of new sounds, next to those of real clips."""
    rows = {
        name: {
            "attack": None if found["attack_ms"] is None else f"{found['attack_ms'][1]:.1f} ms",
            "clicks": None
            if found["clicks_at_start"] is None
            else f"{100 * found['clicks_at_start']:.0f} / {100 * found['clicks_at_end']:.0f} %",
            "beat": None if found["beat_db"] is None else f"{found['beat_db']:.1f} dB",
        }
        for name, found in section.items()
    }
    for name, meaning in (
        ("attack", "median time in which new sounds rise to half of their peak"),
        ("clicks", "new sounds that begin / end with a click"),
        ("beat", "beat of noise at the rate of the frames, audible as metal"),
    ):
        if value := rows.get("generated", {}).get(name):
            real = rows["real"][name]
            yield name, value, meaning + (f"; {clips}: {real}" if real else "")


def _copies(section: Figures, clips: str) -> Iterator[Row]:
    """Distance to the nearest training clip, and number of copies."""
    near = section.get("nearest_training_clip_db", {})
    if "generated" not in near:
        return
    reference = f"; {clips}: {near['real']['median']:.1f} dB" if "real" in near else ""
    yield (
        "nearest training clip",
        f"{near['generated']['median']:.1f} dB",
        f"median over new sounds{reference}",
    )
    shared = section["codes_shared_with_a_training_clip"]["generated"]
    yield (
        "copies",
        f"{shared['copies']}",
        "new sounds that are near copies of a training clip, by codes or decibels; largest share"
        f" of codes in common with one: {100 * shared['most']:.0f} %",
    )
