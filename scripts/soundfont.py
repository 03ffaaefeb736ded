"""Notes of a General MIDI soundfont, rendered by fluidsynth (Debian's packages fluidsynth and fluid-soundfont-gm)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
RATE = 44_100
PROGRAMS = {
    "piano": (0, 36),
    "brightpiano": (1, 36),
    "electricgrand": (2, 36),
    "honkytonk": (3, 36),
    "rhodes": (4, 36),
    "dx": (5, 36),
    "clavinet": (7, 36),
    "glockenspiel": (9, 48),
    "musicbox": (10, 48),
    "vibraphone": (11, 41),
    "marimba": (12, 36),
    "xylophone": (13, 48),
    "tubularbells": (14, 41),
    "dulcimer": (15, 41),
    "drawbar": (16, 36),
    "percussiveorgan": (17, 36),
    "rockorgan": (18, 36),
    "reedorgan": (20, 36),
    "accordion": (21, 41),
    "harmonica": (22, 48),
    "bandoneon": (23, 41),
    "nylonguitar": (24, 36),
    "jazzguitar": (26, 36),
    "cleanguitar": (27, 36),
    "mutedguitar": (28, 36),
    "overdriven": (29, 36),
    "distortion": (30, 36),
    "harmonics": (31, 48),
    "acousticbass": (32, 28),
    "pickbass": (34, 28),
    "fretless": (35, 28),
    "slapbass": (36, 28),
    "synthbass": (38, 28),
    "violin": (40, 55),
    "viola": (41, 48),
    "contrabass": (43, 28),
    "tremolo": (44, 41),
    "harp": (46, 36),
    "timpani": (47, 36),
    "strings": (48, 36),
    "slowstrings": (49, 36),
    "synthstrings": (50, 36),
    "choir": (52, 41),
    "voice": (53, 41),
    "synthvoice": (54, 41),
    "trumpet": (56, 52),
    "trombone": (57, 36),
    "tuba": (58, 28),
    "mutedtrumpet": (59, 52),
    "horn": (60, 36),
    "brass": (61, 36),
    "synthbrass": (62, 36),
    "soprano": (64, 54),
    "alto": (65, 48),
    "tenor": (66, 42),
    "baritone": (67, 36),
    "englishhorn": (69, 52),
    "bassoon": (70, 34),
    "piccolo": (72, 60),
    "flute": (73, 58),
    "recorder": (74, 58),
    "panflute": (75, 55),
    "bottle": (76, 55),
    "shakuhachi": (77, 55),
    "whistle": (78, 60),
    "ocarina": (79, 58),
    "saw": (81, 36),
    "calliope": (82, 41),
    "chiff": (83, 41),
    "charang": (84, 36),
    "fifths": (86, 36),
    "basslead": (87, 36),
    "newage": (88, 41),
    "warmpad": (89, 36),
    "polysynth": (90, 36),
    "bowedpad": (92, 41),
    "metallic": (93, 41),
    "halo": (94, 41),
    "crystal": (98, 48),
    "atmosphere": (99, 41),
    "brightness": (100, 41),
    "sitar": (104, 41),
    "banjo": (105, 48),
    "shamisen": (106, 48),
    "koto": (107, 48),
    "kalimba": (108, 48),
    "bagpipe": (109, 48),
    "shanai": (111, 55),
    "steeldrum": (114, 48),
}
"""Programs of General MIDI by one-word names, from 0, each with its lowest note."""
RANGE = 40
"""Semitones above the lowest note."""
VELOCITIES = 50, 80, 110
SPACING_SECONDS, HELD_SECONDS, SECONDS = 2.5, 1.0, 1.8
"""From note to note; until each ends; the length of its file."""
TICKS = 480
"""Of MIDI time in a beat of half a second."""
QUIET = 1e-3
"""Peak below which a program has no such note."""


def render(folder: Path, name: str, notes: int, soundfont: Path = SOUNDFONT) -> list[Path]:
    """Write `notes` notes of a program as NAME_NOTE_VELOCITY.wav, in stereo, evenly spaced over its range.

    Programs begin at different notes, so that all notes occur. Those that the program lacks are left out.
    """
    import mido

    program, low = PROGRAMS[name]
    shift = program % max(1, RANGE // notes)
    chosen = [low + shift + RANGE * i // notes for i in range(notes)]
    velocities = [VELOCITIES[(i + program) % len(VELOCITIES)] for i in range(notes)]
    track = mido.MidiTrack([mido.Message("program_change", program=program)])
    held, gap = (round(2 * TICKS * s) for s in (HELD_SECONDS, SPACING_SECONDS - HELD_SECONDS))
    for i, (note, velocity) in enumerate(zip(chosen, velocities, strict=True)):
        wait = gap if i else 0
        track.append(mido.Message("note_on", note=note, velocity=velocity, time=wait))
        track.append(mido.Message("note_off", note=note, velocity=0, time=held))
    with tempfile.TemporaryDirectory() as temporary:
        midi, wav = Path(temporary) / "notes.mid", Path(temporary) / "notes.wav"
        mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(midi)
        plain = ["-ni", "-q", "-g", "0.5", "-R", "0", "-C", "0", "-r", str(RATE), "-T", "wav"]
        command = ["fluidsynth", *plain, "-F", str(wav), str(soundfont), str(midi)]
        subprocess.run(command, check=True, capture_output=True)
        sound, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, (note, velocity) in enumerate(zip(chosen, velocities, strict=True)):
        first = round(i * SPACING_SECONDS * RATE)
        part = sound[first : first + round(SECONDS * RATE)]
        if np.abs(part).max(initial=0) >= QUIET:
            paths.append(folder / f"{name}_{note}_{velocity}.wav")
            soundfile.write(paths[-1], part, RATE, subtype="PCM_16")
    return paths
