"""Notes, keys and tempos in words."""

import pytest

from audiovq.audio.notes import (
    labels_in_name,
    midi_of,
    midi_of_hertz,
    name_of_note,
    root_of,
    tempo_of,
)


def test_names_of_notes_and_numbers_are_inverses() -> None:
    for midi in range(128):
        assert midi_of(name_of_note(midi)) == midi
        assert midi_of(str(midi)) == midi
    assert midi_of_hertz(440) == midi_of("A4") == 69


@pytest.mark.parametrize(
    ("text", "midi"),
    [
        ("A3", 57),
        ("C#4", 61),
        ("Bb2", 46),
        ("c-1", 0),
        ("C-2", -12),
        ("G#9", 128),
        ("Fs3", 54),
        ("60.5", 60.5),
        ("H3", None),
        ("kick", None),
        ("128", None),
        ("nan", None),
        ("", None),
        ("A", None),
    ],
)
def test_a_note_is_parsed_or_refused(text: str, midi: float | None) -> None:
    assert midi_of(text) == midi


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("loops/kick_120bpm_Cmin.wav", {"bpm": "120", "key": "Cmin"}),
        ("a/Pad-A3.wav", {"note": "A3"}),
        ("BPM 93.5 break F#m.aif", {"bpm": "93.5", "key": "F#min"}),
        ("Lead (Bbmaj) [174 BPM].wav", {"bpm": "174", "key": "Bbmaj"}),
        ("snare_01.wav", {}),
        ("amen.wav", {}),
        ("7_jackson_0.wav", {}),
        ("take999bpm.wav", {}),
        ("D2_soft.wav", {"note": "D2"}),
        ("Pad C min.wav", {"key": "Cmin"}),
        ("Loop_120_F# minor.wav", {"key": "F#min"}),
        ("Loop F♯_min_D2.wav", {"key": "F#min", "note": "D2"}),
        ("pad_C-maj.wav", {"key": "Cmaj"}),
        ("pad_DBMIN.wav", {"key": "Dbmin"}),
        ("pad_ebminor.wav", {"key": "Ebmin"}),
        ("loop_120_bpm.wav", {"bpm": "120"}),
        ("loop 120-bpm.wav", {"bpm": "120"}),
        ("break 05 bpm 93.wav", {"bpm": "93"}),
        ("10 cm drum.wav", {}),
        ("a major change.wav", {}),
        ("AM radio.wav", {}),
        ("Cymbal minor.wav", {}),
    ],
)
def test_a_file_name_states_tempo_key_and_note(path: str, labels: dict[str, str]) -> None:
    assert labels_in_name(path) == labels


def test_labels_state_root_and_tempo() -> None:
    assert root_of({"Note": "57", "instrument": "cello"}) == root_of({"pitch": "A3"}) == 57
    assert [root_of({"note": note}) for note in ("C-1", "C-2", "G9", "G#9")] == [0, None, 127, None]
    assert root_of({"note": "loud"}) is root_of({"kind": "60"}) is None
    assert tempo_of({"bpm": "120.5"}) == 120.5
    assert tempo_of({"tempo": "9999"}) is tempo_of({"bpm": "fast"}) is tempo_of({}) is None
