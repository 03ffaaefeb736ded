"""Packs: new sounds of each label value, named by it, without copies, with instruments and a page to audition them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from audiovq.audio.notes import ROOT_LABELS, root_of
from audiovq.config.checks import derived_seed, require_count
from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation.copies import decode_images, difference_db, is_copy, shared_codes
from audiovq.generation.generate import Batches
from audiovq.generation.labels import (
    Labels,
    label_indices,
    learns_labels,
    learnt_values,
    name_of_label,
    named,
    require_learnt,
)
from audiovq.generation.output.manifest import manifest_record
from audiovq.generation.output.run import Run
from audiovq.generation.sound import Sound
from audiovq.library.instruments import NUM_KEYS, Sample, hydrogen_kit, sfz_of_drums, sfz_of_notes
from audiovq.models.known import KnownClips
from audiovq.models.model import Model
from audiovq.report.sheet import Entry, write_sheet
from audiovq.runtime.files import write_text
from audiovq.runtime.outputs import OutputFolder, writing_into
from audiovq.runtime.progress import Say, progress

ROUNDS = 4
"""How often sounds are sampled again in place of copies."""
SHIFT_FRAMES = 8
"""Largest shift in time at which two sounds of a pack are compared."""
TWIN_DB = 2.0
"""Difference below which they are near copies of each other, where the model has no threshold."""
MAX_WORD = 40
"""Characters of a label's value in a file name."""
MAX_BYTES = 200
"""Bytes of the folder's name in the instrument's; names of files have at most 255."""


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """What a pack holds."""

    each: int = 8
    """Number of sounds of each value."""
    by: str | None = None
    """The label; None: the only one that is open, or none."""
    length: float | None = None
    """Seconds; None: the model decides."""
    loop: bool = False

    def __post_init__(self) -> None:
        require_count(self.each, "each")


def write_pack(
    model: Model,
    folder: Path | str,
    config: PackConfig = PackConfig(),
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
    output: OutputConfig = OutputConfig(),
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write a pack into `folder`: sounds named `kick_03.wav`, manifest.json, NAME.sfz, drumkit.xml, index.html.

    Near copies of training clips and of other sounds of the pack are left out and sampled again, up to ROUNDS
    times. The SFZ has the notes of a pitched label (`note`, `pitch` …, one value a MIDI note), or else a key for
    each kind; drumkit.xml, for Hydrogen, is written for kinds. Returns the sounds' paths. Raises AudiovqError where
    the label is unknown or ambiguous, or the model cannot generate.
    """
    folder, labels = Path(folder), dict(labels or {})
    if model.spectrogram.config.images:
        raise AudiovqError("pack: makes sounds, and this model generates images")
    by = _label(model, config.by, labels)
    settings = {**dataclasses.asdict(config), "by": by, "labels": labels}
    made_with = manifest_record(model, "pack", seed, settings, sampling, inversion, output)
    values = [""] if by is None else learnt_values(model, by, labels)

    def make(value: str, n: int, batch_seed: int) -> list[Sound]:
        chosen = labels if by is None else {**labels, by: value}
        batches = Batches(
            model,
            n,
            chosen,
            sampling=sampling,
            inversion=inversion,
            seconds=config.length,
            loop=config.loop,
            seed=batch_seed,
        )
        return [sound for number in range(len(batches)) for sound in batches.make(number)]

    chosen: dict[str, list[tuple[str, Sound]]] = {}
    with (
        writing_into(folder, overwrite, made_with) as filled,
        progress("pack", config.each * len(values), "sounds") as step,
    ):
        run = Run(model, filled, made_with, output, say)
        for number, (value, word) in enumerate(_words(values).items()):
            sounds = _distinct(
                model, config.each, value, make, derived_seed(seed, 10_000 * number), say
            )
            names = [f"{word}_{i:02d}.{output.format}" for i in range(1, len(sounds) + 1)]
            run.write_sounds(names, sounds)
            chosen[value] = list(zip(names, sounds, strict=True))
            step(config.each)
        if not any(chosen.values()):
            raise AudiovqError("pack: every sound is a near copy of a training clip; train longer")
        paths = run.finish([name for pairs in chosen.values() for name, _ in pairs])
        name = folder.resolve().name  # `.` has none
        _write_instruments(filled, name, by, chosen, say)
        _write_page(model, filled, name, chosen)
    return paths


def _label(model: Model, by: str | None, labels: dict[str, str]) -> str | None:
    """The label that a pack is made by; None: there is none. Raises AudiovqError where it is unknown or ambiguous."""
    if labels or by is not None:
        require_learnt(model)
    if not learns_labels(model):
        return None
    label_indices(model, labels)
    labels = named(model, labels)
    left = [name for name in model.labels if name not in labels and learnt_values(model, name)]
    by = None if by is None else name_of_label(model, by)
    if by is not None and by not in left:
        raise AudiovqError(f"by {by}: give a label that is open: {', '.join(left) or 'none is'}")
    if by is None and len(left) > 1:
        raise AudiovqError(
            f"pack: several labels are open; give --by NAME, one of {', '.join(left)}"
        )
    return by or next(iter(left), None)


def _words(values: Sequence[str]) -> dict[str, str]:
    """For each value a word for file names, all different on every system."""
    words: dict[str, str] = {}
    for value in values:
        word = re.sub(r"[^\w.#-]+", "-", value).strip("-.")[:MAX_WORD] or "sound"
        taken = {other.casefold() for other in words.values()}
        number = 1
        while (plain := word if number == 1 else f"{word}-{number}").casefold() in taken:
            number += 1
        words[value] = plain
    return words


def _distinct(
    model: Model,
    n: int,
    value: str,
    make: Callable[[str, int, int], list[Sound]],
    seed: int,
    say: Say,
) -> list[Sound]:
    """`n` sounds, none a near copy of a training clip or of another; fewer, with a note, if the model makes no
    others."""
    chosen: list[Sound] = []
    images: list[Tensor] = []
    for attempt in range(1 + ROUNDS):
        if len(chosen) == n:
            break
        made = make(value, n - len(chosen), derived_seed(seed, attempt))
        has_codes = bool(made[0].encoded.codes.numel())
        decoded = decode_images(model, [s.encoded.codes for s in made]) if has_codes else []
        for index, sound in enumerate(made):
            if sound.nearest is not None and sound.nearest.is_copy:
                continue
            if not has_codes:
                chosen.append(sound)
            elif not any(
                _are_twins(model, (sound, decoded[index]), pair)
                for pair in zip(chosen, images, strict=True)
            ):
                chosen.append(sound)
                images.append(decoded[index])
    if len(chosen) < n:
        say(
            f"note: {value or 'the model'}: {len(chosen)} of {n} sounds; the others, sampled {1 + ROUNDS} times, are"
            " near copies of training clips or of each other: a higher --temperature gives more variety"
        )
    return chosen


def _are_twins(model: Model, one: tuple[Sound, Tensor], other: tuple[Sound, Tensor]) -> bool:
    """Whether two sounds, each with its decoded spectrogram (bins, frames), are near copies of each other."""
    (first, image), (second, second_image) = one, other
    shifts = range(-SHIFT_FRAMES, SHIFT_FRAMES + 1)
    range_db = model.spectrogram.config.range_db
    db = difference_db(image, second_image, range_db, shifts, (True, True))
    if db is None:
        return False
    known: KnownClips | None = model.known
    if known is None:
        return db <= TWIN_DB
    return is_copy(known, shared_codes(first.encoded.codes, second.encoded.codes, 1), db)


def _write_instruments(
    filled: OutputFolder,
    name: str,
    by: str | None,
    chosen: Mapping[str, Sequence[tuple[str, Sound]]],
    say: Say,
) -> None:
    """Write NAME.sfz, and drumkit.xml for kinds of sounds."""
    file_name = name.encode()[:MAX_BYTES].decode(errors="ignore") + ".sfz"
    samples = {
        value: [Sample(file, sound.waveform.shape[-1], sound.tags.loop) for file, sound in pairs]
        for value, pairs in chosen.items()
        if pairs
    }
    notes = {value: root_of({"note": value}) for value in samples}
    texts: dict[str, str] = {}
    if by is not None and by.lower() in ROOT_LABELS and None not in notes.values():
        by_note: dict[int, list[Sample]] = {}
        for value, midi in notes.items():  # two names may be one note, such as C#4 and Db4
            by_note.setdefault(midi or 0, []).extend(samples[value])
        texts[file_name] = sfz_of_notes(by_note)
    else:
        kinds = {value or "sound": found for value, found in samples.items()}
        texts[file_name] = sfz_of_drums(kinds)
        if len(kinds) > NUM_KEYS:
            say(
                f"note: the kit has {NUM_KEYS} of the {len(kinds)} kinds, one for each key; all are WAVs here"
            )
        texts["drumkit.xml"] = hydrogen_kit(name, kinds, "Sounds made by a model of audiovq.")
    filled.expect(*texts)
    for file, text in texts.items():
        write_text(filled.folder / file, text)


def _write_page(
    model: Model,
    filled: OutputFolder,
    name: str,
    chosen: Mapping[str, Sequence[tuple[str, Sound]]],
) -> None:
    """Write index.html, with a player and a spectrogram of each sound."""
    groups: dict[str, list[Entry]] = {
        value: [Entry(Path(file).stem, file, sound.waveform) for file, sound in pairs]
        for value, pairs in chosen.items()
    }
    filled.expect("index.html")
    total = sum(map(len, groups.values()))
    words = f"{total} new sounds. Click a picture to play it."
    write_sheet(filled.folder / "index.html", model.spectrogram, name, words, groups)
