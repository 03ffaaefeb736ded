"""Drum kits by Hydrogen itself: its schema, the check of `h2cli`, and a song that it plays with a kit.

Skipped where h2cli (Debian's package hydrogen) is missing.
"""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import tiny_model

from audiovq.app import desk as moves
from audiovq.app.desk import Desk
from audiovq.app.pack import zipped
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.library.instruments import Sample, hydrogen_kit
from audiovq.library.pack import PackConfig, write_pack
from audiovq.models.model import Model

DATA = Path("/usr/share/hydrogen/data")
SONG = DATA / "demo_songs/GM_kit_demo1.h2song"
NOBODY = 65534
RATE = 44100
KINDS = ["kick", "snare & <rim>", "Hand clap", "ΔÜ"]

pytestmark = pytest.mark.skipif(
    shutil.which("h2cli") is None or not SONG.exists(),
    reason="needs h2cli and its songs: apt-get install hydrogen hydrogen-data",
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own for h2cli; for root's tests nobody's: as root, h2cli rewrites the kits of the system."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def h2cli(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    root = os.geteuid() == 0
    if root:
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    return subprocess.run(
        ["h2cli", "-d", "alsa", "-VWarning", *words],  # not "auto": JACK is waited for
        env={
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": str(home),
            "QT_QPA_PLATFORM": "offscreen",
        },
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        capture_output=True,
        text=True,
        timeout=120,
    )


def is_valid(home: Path, kit: Path) -> bool:
    ended = h2cli(home, "--check", kit)
    return ended.returncode == 0 and f"Provided drumkit [{kit}] is valid" in ended.stdout


def model() -> Model:
    tiny = tiny_model(labels={"kind": KINDS}, clip_frames=120)
    tiny.label_counts[:] = [((i,), 4) for i in range(len(KINDS))]
    return tiny


def made(folder: Path) -> Path:
    """A pack of a tiny model in `folder`."""
    sampling = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
    quick = Inversion("griffin-lim", 1)
    write_pack(model(), folder, PackConfig(2), sampling=sampling, inversion=quick)
    return folder


def set_text(parent: ET.Element, tag: str, text: str) -> None:
    """Set the text of a child, which must be there."""
    child = parent.find(tag)
    assert child is not None, tag
    child.text = text


def song(path: Path, instruments: list[int]) -> None:
    """Write a song whose one pattern plays an instrument on each of its four beats, at a beat a second."""
    tree = ET.parse(SONG)
    root = tree.getroot()
    for tag, text in {"bpm": "60", "humanize_time": "0", "humanize_velocity": "0"}.items():
        set_text(root, tag, text)
    patterns, sequence = root.find("patternList"), root.find("patternSequence")
    assert patterns is not None
    assert sequence is not None
    first = patterns[0]
    notes = first.find("noteList")
    assert notes is not None
    note = notes[0]
    for other in list(patterns)[1:]:
        patterns.remove(other)
    for other in list(sequence)[1:]:
        sequence.remove(other)
    (group,) = sequence
    for identity in list(group)[1:]:
        group.remove(identity)
    group[0].text = first.findtext("name")
    notes.clear()
    for beat, instrument in enumerate(instruments):
        copy = ET.fromstring(ET.tostring(note))
        values = {"position": 48 * beat, "velocity": 1, "instrument": instrument}
        for tag, value in values.items():
            set_text(copy, tag, str(value))
        notes.append(copy)
    tree.write(path, "utf-8", xml_declaration=True)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Largest correlation of two waveforms over shifts of up to 100 samples."""
    n = min(len(one) - 200, len(other))
    windows = np.lib.stride_tricks.sliding_window_view(one, n)[:200]
    norms = np.linalg.norm(windows, axis=1) * np.linalg.norm(other[:n])
    return float((windows @ other[:n] / np.maximum(norms, 1e-9)).max())


def test_hydrogen_finds_the_folder_and_the_archive_of_a_pack_valid(home: Path) -> None:
    kit = made(home / "My & kit")
    assert is_valid(home, kit)
    gnu = (
        tarfile.GNU_FORMAT
    )  # as tar itself writes; Hydrogen does not unpack PAX's names beyond ASCII
    with tarfile.open(home / "kit.h2drumkit", "w:gz", format=gnu) as archive:
        archive.add(kit, "kit")
    assert is_valid(home, home / "kit.h2drumkit")


def test_hydrogen_finds_a_pack_of_the_app_valid(home: Path) -> None:
    tiny, desk = model(), Desk()
    for kind in KINDS:
        desk = moves.make(tiny, desk, {"kind": kind}, SamplingConfig(temperature=1), 0)
    with zipfile.ZipFile(io.BytesIO(zipped(tiny, "model", desk))) as archive:
        archive.extractall(home)
    assert is_valid(home, home / "model-sounds")


def test_hydrogen_finds_a_kit_with_a_volume_of_words_invalid(home: Path) -> None:
    kit = made(home / "kit")
    path = kit / "drumkit.xml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("<volume>1</volume>", "<volume>loud</volume>"), "utf-8")
    assert not is_valid(home, kit)


def test_hydrogen_plays_the_sounds_of_each_kind_in_turn(home: Path) -> None:
    kit = home / ".hydrogen/data/drumkits/kit"
    kit.mkdir(parents=True)
    kinds = {"kick": ["kick_01", "kick_02"], "snare": ["snare_01"], "hand clap": ["clap_01"]}
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (4, RATE // 10))
    sounds = dict(zip([name for names in kinds.values() for name in names], noise, strict=True))
    for name, sound in sounds.items():
        soundfile.write(kit / f"{name}.wav", sound, RATE)
    samples = {k: [Sample(f"{n}.wav", noise.shape[1]) for n in v] for k, v in kinds.items()}
    (kit / "drumkit.xml").write_text(hydrogen_kit("kit", samples, "words"), "utf-8")
    song(home / "one.h2song", [0, 0, 1, 2])
    ended = h2cli(home, "-s", home / "one.h2song", "-k", "kit", "-o", home / "one.wav")
    assert ended.returncode == 0
    found, rate = soundfile.read(home / "one.wav", dtype="float64")
    assert rate == RATE
    start = np.concatenate([np.zeros(100), found.mean(1)])
    played = []
    for beat in range(4):
        part = start[beat * RATE :][: noise.shape[1] + 200]
        played += [name for name, sound in sounds.items() if likeness(part, sound) > 0.99]
    assert sorted(played[:2]) == ["kick_01", "kick_02"]  # it begins with the second
    assert played[2:] == ["snare_01", "clap_01"]
