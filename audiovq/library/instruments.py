"""Instruments made of sound files: SFZ, and drum kits of Hydrogen."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HYDROGEN = "http://www.hydrogen-music.org/drumkit"
"""Namespace of Hydrogen's drum kits."""
MAX_LAYERS = 16
"""Most samples of one of Hydrogen's instruments."""
REACH = 12
"""Semitones that the lowest note of a pitched instrument is played below, and the highest above."""
DRUM_KEYS = (
    (36, r"kick(?: ?drum)?|bass ?drum|bd"),
    (37, r"rim(?: ?shot)?|(?:side ?)?stick"),
    (38, r"snare(?: ?drum)?|sd"),
    (39, r"(?:hand ?)?clap"),
    (63, r"conga"),
    (81, r"triangle"),
    (46, r"open(?: ?(?:hi ?)?hat)?|ohh?|hho"),
    (44, r"pedal(?: ?(?:hi ?)?hat)?|hhp"),
    (42, r"(?:closed ?)?(?:hi(?:gh)? ?)?hat|closed|hhc?|chh?"),
    (41, r"floor(?: ?tom)?"),
    (45, r"tom(?: ?tom)?"),
    (49, r"crash(?: ?cymbal)?"),
    (51, r"ride(?: ?cymbal)?"),
    (52, r"cymbal|china|cym"),
    (54, r"tamb(?:ourine)?"),
    (56, r"cow(?: ?bell)?"),
    (60, r"bongo"),
    (70, r"shaker|maraca|cabasa"),
    (75, r"clave|wood(?: ?block)?"),
)
"""Keys of General MIDI's percussion, and patterns of names that they fit; the first that fits says what a kind is."""
HATS = {42, 44, 46}
"""Of the kinds of these keys a sound ends the one before it: a closed hat an open one."""
NUM_KEYS = 128
"""Keys of MIDI."""
FREE_KEYS = range(84, NUM_KEYS)
"""Keys of kinds whose name fits none of them, then the keys that are left, from the lowest."""


@dataclass(frozen=True)
class Sample:
    """A sound file of an instrument."""

    file: str
    num_samples: int
    loop: tuple[int, int] | None = None
    """First sample of the loop, and the one after its last."""


def drum_keys(names: Sequence[str]) -> dict[str, int]:
    """A MIDI key for each kind of sound: General MIDI's where its name fits, no key twice.

    Names that are a key's word and nothing else come first, then names that have it among others.
    """
    keys: dict[str, int] = {}
    for name in sorted(names, key=_match_rank):
        free = [k for k in (*_fitting(name), *FREE_KEYS, *range(84)) if k not in keys.values()]
        if free:
            keys[name] = free[0]
    return keys


def _match_rank(name: str) -> int:
    """0: a name fits a key as a whole; 1: by some of its words; 2: it fits none."""
    if any(re.fullmatch(_whole(pattern), _words(name)) for _, pattern in DRUM_KEYS):
        return 0
    return 1 if _fitting(name) else 2


def _fitting(name: str) -> list[int]:
    """Keys of General MIDI that a name fits by whole words, the likeliest first."""
    return [key for key, pattern in DRUM_KEYS if re.search(_whole(pattern), _words(name))]


def _is_hat(name: str) -> bool:
    return bool(HATS.intersection(_fitting(name)[:1]))


def _whole(pattern: str) -> str:
    """The pattern between the ends of words, in singular or plural."""
    return rf"\b(?:{pattern})(?:e?s)?\b"


def _words(name: str) -> str:
    """The words of a name in small letters: `hiHat_open2` is `hi hat open`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.findall(r"[^\W\d_]+", apart)).lower()


def key_ranges(roots: Sequence[int]) -> list[tuple[int, int]]:
    """Lowest and highest key of each of several ascending roots: up to the middle between two."""
    edges = [max(0, roots[0] - REACH)]
    edges += [(a + b) // 2 + 1 for a, b in itertools.pairwise(roots)]
    edges.append(min(127, roots[-1] + REACH) + 1)
    return [(low, high - 1) for low, high in itertools.pairwise(edges)]


def sfz_of_notes(notes: Mapping[int, Sequence[Sample]]) -> str:
    """SFZ of a pitched instrument: the samples of each MIDI note in turn, on the keys nearest to it."""
    roots = sorted(notes)
    lines = ["// made by audiovq", "<global> ampeg_release=0.3"]
    for root, (low, high) in zip(roots, key_ranges(roots), strict=True):
        keys = f"lokey={low} hikey={high} pitch_keycenter={root}"
        lines += _regions(notes[root], keys, "no_loop")
    return "\n".join(lines) + "\n"


def sfz_of_drums(kinds: Mapping[str, Sequence[Sample]]) -> str:
    """SFZ of a drum kit: the samples of each kind in turn, on its key (`drum_keys`), unpitched."""
    lines = ["// made by audiovq"]
    for name, key in sorted(drum_keys(list(kinds)).items(), key=lambda pair: pair[1]):
        lines.append(f"// {_one_line(name)}")
        ends_others = " group=1 off_by=1" if _is_hat(name) else ""
        lines += _regions(kinds[name], f"key={key}{ends_others}", "one_shot")
    return "\n".join(lines) + "\n"


def _regions(samples: Sequence[Sample], keys: str, plain: str) -> list[str]:
    """A region for each sample, played in turn."""
    lines = []
    for number, sample in enumerate(samples, 1):
        turn = f" seq_length={len(samples)} seq_position={number}" if len(samples) > 1 else ""
        mode = plain
        if sample.loop is not None:
            mode = f"loop_continuous loop_start={sample.loop[0]} loop_end={sample.loop[1] - 1}"
        lines.append(f"<region> {keys}{turn} loop_mode={mode} sample={sample.file}")
    return lines


def hydrogen_kit(name: str, kinds: Mapping[str, Sequence[Sample]], words: str) -> str:
    """`drumkit.xml` of a kit for Hydrogen (1.2's schema): an instrument for each kind, its samples in turn.

    At most MAX_LAYERS samples of each kind are used; kinds are in the order of `drum_keys`.
    """
    ET.register_namespace("", HYDROGEN)
    kit = ET.Element(_tag("drumkit_info"))
    texts = {"name": name, "author": "audiovq", "info": words, "license": "", "image": ""}
    for tag, text in {**texts, "imageLicense": ""}.items():
        _add(kit, tag, text)
    component = ET.SubElement(ET.SubElement(kit, _tag("componentList")), _tag("drumkitComponent"))
    for tag, text in {"id": "0", "name": "Main", "volume": "1"}.items():
        _add(component, tag, text)
    instruments = ET.SubElement(kit, _tag("instrumentList"))
    keys = drum_keys(list(kinds))
    for number, kind in enumerate(sorted(keys, key=lambda kind: keys[kind])):
        _instrument(instruments, number, kind, keys[kind], kinds[kind][:MAX_LAYERS])
    ET.indent(kit, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(kit, "unicode") + "\n"


_SETTINGS = {
    "volume": "1",
    "isMuted": "false",
    "isSoloed": "false",
    "pan": "0",
    "pitchOffset": "0",
    "randomPitchFactor": "0",
    "gain": "1",
    "applyVelocity": "true",
    "filterActive": "false",
    "filterCutoff": "1",
    "filterResonance": "0",
    "Attack": "0",
    "Decay": "0",
    "Sustain": "1",
    "Release": "1000",
    "muteGroup": "-1",
    "midiOutChannel": "-1",
}
_AFTER_THE_NOTE = {
    "isStopNote": "false",
    "sampleSelectionAlgo": "ROUND_ROBIN",
    "isHihat": "-1",
    "lower_cc": "0",
    "higher_cc": "127",
    "FX1Level": "0",
    "FX2Level": "0",
    "FX3Level": "0",
    "FX4Level": "0",
}
"""Settings of an instrument, in the order of the schema."""


def _instrument(
    above: ET.Element, number: int, kind: str, key: int, samples: Sequence[Sample]
) -> None:
    instrument = ET.SubElement(above, _tag("instrument"))
    first = {"id": str(number), "name": kind, **_SETTINGS, "midiOutNote": str(key)}
    if _is_hat(kind):
        first["muteGroup"] = "1"
    for tag, text in {**first, **_AFTER_THE_NOTE}.items():
        _add(instrument, tag, text)
    component = ET.SubElement(instrument, _tag("instrumentComponent"))
    _add(component, "component_id", "0")
    _add(component, "gain", "1")
    for sample in samples:
        layer = ET.SubElement(component, _tag("layer"))
        values = {"filename": sample.file, "min": "0", "max": "1", "gain": "1", "pitch": "0"}
        for tag, text in values.items():
            _add(layer, tag, text)


def _add(above: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(above, _tag(tag)).text = "".join(c for c in text if c.isprintable())


def _tag(name: str) -> str:
    return f"{{{HYDROGEN}}}{name}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
