"""Instruments: every key at most once, SFZ by a small reader, drum kits by Hydrogen's schema where it is installed."""

import itertools
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.library.instruments import (
    HYDROGEN,
    MAX_LAYERS,
    Sample,
    drum_keys,
    hydrogen_kit,
    key_ranges,
    sfz_of_drums,
    sfz_of_notes,
)

SCHEMA = Path("/usr/share/hydrogen/data/xsd/drumkit.xsd")
KINDS = {
    "kick": [Sample("kick_01.wav", 100), Sample("kick_02.wav", 90)],
    'a "loud" <snare> & more': [Sample("snare_01.wav", 100)],
    "hihat open": [Sample("oh_01.wav", 100)],
    "zap\n2": [Sample(f"zap_{i}.wav", 50) for i in range(20)],
}


def regions(sfz: str) -> list[dict[str, str]]:
    """Opcodes of each region."""
    lines = [line for line in sfz.splitlines() if line.startswith("<region> ")]
    return [
        dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line.removeprefix("<region> ")))
        for line in lines
    ]


@given(st.lists(st.integers(0, 127), min_size=1, unique=True).map(sorted))
def test_ranges_of_keys_meet_without_gap_or_overlap_and_hold_their_roots(roots: list[int]) -> None:
    ranges = key_ranges(roots)
    assert all(low <= root <= high for root, (low, high) in zip(roots, ranges, strict=True))
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(ranges))
    assert ranges[0][0] >= 0
    assert ranges[-1][1] <= 127
    for key in range(ranges[0][0], ranges[-1][1] + 1):
        (index,) = (i for i, (low, high) in enumerate(ranges) if low <= key <= high)
        assert abs(roots[index] - key) == min(abs(root - key) for root in roots)


@given(st.lists(st.text(max_size=9) | st.sampled_from(["kick", "Kick 2", "tom"]), unique=True))
def test_no_two_kinds_share_a_key(names: list[str]) -> None:
    keys = drum_keys(names)
    assert len(set(keys.values())) == len(keys) == min(128, len(names))
    assert all(0 <= key <= 127 for key in keys.values())


def test_kinds_have_the_keys_of_general_midi() -> None:
    keys = drum_keys(["snare", "Kick", "hihat_closed", "hihat_open", "clap", "zap"])
    assert keys == {
        "snare": 38,
        "Kick": 36,
        "hihat_closed": 42,
        "hihat_open": 46,
        "clap": 39,
        "zap": 84,
    }


def test_a_key_of_general_midi_goes_to_whole_words_and_first_to_names_that_are_nothing_else() -> (
    None
):
    names = ["chainsaw", "hat", "stomp", "tom", "bride", "ride"]
    keys = drum_keys(names)
    assert [keys[name] for name in names] == [84, 42, 85, 45, 86, 51]
    names = ["kick loop", "Kicks", "808BD", "hiHats", "open conga", "crashes", "open_hats 2"]
    keys = drum_keys(names)
    assert [keys[name] for name in names] == [85, 36, 84, 42, 63, 49, 46]


HATS = {
    name: [Sample(f"{name}.wav", 100)] for name in ("hat", "hat closed 2", "open hat", "HHPedal")
}
OTHERS = {name: [Sample(f"{name}.wav", 100)] for name in ("kick", "open conga", "chat")}


def test_each_hat_of_an_sfz_ends_the_hat_before_it_and_no_other_sound() -> None:
    found = {r["sample"].removesuffix(".wav"): r for r in regions(sfz_of_drums(HATS | OTHERS))}
    assert {(found[name]["group"], found[name]["off_by"]) for name in HATS} == {("1", "1")}
    assert all("group" not in found[name] and "off_by" not in found[name] for name in OTHERS)


def test_each_hat_of_a_drum_kit_ends_the_hat_before_it_and_no_other_sound() -> None:
    kit = ET.fromstring(hydrogen_kit("kit", HATS | OTHERS, "words"))
    groups = {
        i.findtext(f"{{{HYDROGEN}}}name"): i.findtext(f"{{{HYDROGEN}}}muteGroup")
        for i in kit.iter(f"{{{HYDROGEN}}}instrument")
    }
    assert groups == dict.fromkeys(HATS, "1") | dict.fromkeys(OTHERS, "-1")


def test_an_sfz_of_notes_covers_the_keys_and_takes_turns() -> None:
    notes = {
        60: [Sample("60_01.wav", 10), Sample("60_02.wav", 10)],
        57: [Sample("57.wav", 9, (2, 9))],
    }
    found = regions(sfz_of_notes(notes))
    assert found[0] == {
        "lokey": "45",
        "hikey": "58",
        "pitch_keycenter": "57",
        "loop_mode": "loop_continuous",
        "loop_start": "2",
        "loop_end": "8",
        "sample": "57.wav",
    }
    assert [r["seq_position"] for r in found[1:]] == ["1", "2"]
    assert {(r["lokey"], r["hikey"], r["seq_length"]) for r in found[1:]} == {("59", "72", "2")}


def test_an_sfz_of_drums_has_each_sample_once() -> None:
    found = regions(sfz_of_drums(KINDS))
    files = [sample.file for samples in KINDS.values() for sample in samples]
    assert sorted(r["sample"] for r in found) == sorted(files)
    assert {r["key"] for r in found if "kick" in r["sample"]} == {"36"}
    assert {r["loop_mode"] for r in found} == {"one_shot"}


def test_a_drum_kit_has_an_instrument_for_each_kind_with_its_samples() -> None:
    kit = ET.fromstring(hydrogen_kit("my & kit", KINDS, "words"))
    names = {"h": HYDROGEN}
    instruments = kit.findall("h:instrumentList/h:instrument", names)
    found = {
        i.findtext("h:name", "", names): [
            layer.findtext("h:filename", "", names)
            for layer in i.findall("h:instrumentComponent/h:layer", names)
        ]
        for i in instruments
    }
    assert list(found) == ["kick", 'a "loud" <snare> & more', "hihat open", "zap2"]
    assert found["kick"] == ["kick_01.wav", "kick_02.wav"]
    assert len(found["zap2"]) == MAX_LAYERS
    assert kit.findtext("h:name", "", names) == "my & kit"


def test_a_drum_kit_is_valid_by_the_schema_of_hydrogen(tmp_path: Path) -> None:
    if not SCHEMA.exists() or not shutil.which("xmllint"):
        pytest.skip("needs xmllint (libxml2-utils) and the schema of hydrogen-data")
    (tmp_path / "drumkit.xml").write_text(hydrogen_kit("kit", KINDS, "words"), encoding="utf-8")
    words = ["xmllint", "--noout", "--schema", SCHEMA, tmp_path / "drumkit.xml"]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
