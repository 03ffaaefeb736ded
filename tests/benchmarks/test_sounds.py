"""Benchmark of real sounds: judges from packages, Opus's payload, the sets, the table."""

import csv
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from short_judges import shorten_judges
from tiny_models import tiny_model

from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation import originals

Waveform = npt.NDArray[np.float32]
RATE = 44_100
pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def tone() -> Waveform:
    """A decaying tone of 220 Hz with overtones."""
    time = np.arange(RATE) / RATE
    partials = [np.sin(2 * np.pi * 220 * n * time) / n for n in range(1, 9)]
    return (0.2 * np.sum(partials, axis=0) * np.exp(-3 * time)).astype(np.float32)


def noise(samples: int, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).normal(0, 0.05, samples).astype(np.float32)


@pytest.mark.slow
def test_visqol_scores_a_copy_best_at_any_length_and_noise_lower(tone: Waveform) -> None:
    pytest.importorskip("visqol")
    from benchmarks.quality.packages import visqol

    for sound in (tone, tone[: RATE // 10]):
        assert visqol(sound, sound, RATE) > 4.7
        assert visqol(sound, sound + noise(len(sound)), RATE) < 4.5


def test_the_pitch_of_a_tone_is_its_frequency_and_noise_has_none(tone: Waveform) -> None:
    pytest.importorskip("swift_f0")
    from benchmarks.quality.packages import pitch
    from benchmarks.quality.sounds import pitch_figures

    found = pitch(tone, RATE)
    assert found is not None
    assert abs(1200 * np.log2(found / 220)) < 10
    assert pitch(np.zeros(RATE, np.float32), RATE) is None
    semitone = 220 * 2 ** (1 / 12)
    figures = pitch_figures([tone, tone, tone], [220.0, semitone, None], RATE)
    assert (figures["pitched"], figures["in_tune"]) == (2, 0.5)
    assert figures["median_cents"] == pytest.approx(50, abs=10)


def ogg(*packets: bytes) -> bytes:
    """Packets in pages of one packet each, without checksums."""
    pages = []
    for number, packet in enumerate(packets):
        laces = [255] * (len(packet) // 255) + [len(packet) % 255]
        head = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, number, 0, len(laces))
        pages.append(head + bytes(laces) + packet)
    return b"".join(pages)


def test_sizes_of_packets_exclude_the_container() -> None:
    from benchmarks.quality.opus import packet_bytes

    sizes = [19, 0, 254, 255, 256, 510, 700]
    assert list(packet_bytes(ogg(*map(bytes, sizes)))) == sizes
    with pytest.raises(AudiovqError, match="not an Ogg file"):
        list(packet_bytes(b"RIFF" + bytes(60)))


def test_a_packet_may_span_pages() -> None:
    from benchmarks.quality.opus import packet_bytes

    first = struct.pack("<4sBBqIIIBB", b"OggS", 0, 0, 0, 1, 0, 0, 1, 255) + bytes(255)
    assert list(packet_bytes(first + ogg(bytes(45)))) == [300]


@pytest.mark.skipif(shutil.which("opusenc") is None, reason="opus-tools is not installed")
def test_opus_keeps_lengths_and_a_higher_rate_takes_more_bits(tone: Waveform) -> None:
    from benchmarks.quality.opus import opus

    sounds = [tone, noise(5_000), tone[:300]]
    bits = []
    for kilobits in (12, 48):
        decoded, size = opus(sounds, RATE, kilobits)
        assert [len(w) for w in decoded] == [len(w) for w in sounds]
        bits.append(size)
    assert bits[1] > 2 * bits[0]
    assert np.corrcoef(decoded[0], tone)[0, 1] > 0.9, "delayed, or of another sound"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("body", "bellycenter_l_vl1_rr1.flac"),
        ("notes", "celesta_60_110.wav"),
        ("fsdd", "7_george_0.wav"),
    ],
)
def test_the_names_of_files_have_labels(name: str, file: str) -> None:
    from benchmarks.quality.sets import SETS

    found = re.search(SETS[name].labels, file)
    assert found is not None
    assert all(found.groupdict().values())


def test_a_set_that_is_missing_is_refused_with_the_reason(tmp_path: Path) -> None:
    from benchmarks.quality.sets import SETS, recordings

    for name, reason in (
        ("body", "no such folder; give"),
        ("foley", "no such folder; give"),
        ("fsdd", "no such folder; give"),
        ("notes", "no such file; give"),
        ("drums", r"hydrogen-drumkits|see --shared"),
    ):
        with pytest.raises(AudiovqError, match=reason):
            recordings(SETS[name], tmp_path / "shared", tmp_path / "work")


def test_only_instruments_with_a_clear_pitch_are_in_tune_or_not() -> None:
    from benchmarks.quality.sets import SETS
    from benchmarks.quality.sounds import _hertz

    notes = SETS["notes"]
    assert _hertz(notes, {"instrument": "oboe", "note": "69"}) == 440
    assert _hertz(notes, {"instrument": "oboe", "note": "81"}) == 880
    assert _hertz(notes, {"instrument": "organ", "note": "69"}) is None
    assert _hertz(notes, {"instrument": "fingerbass", "note": "28"}) is None, "41 Hz"
    assert _hertz(SETS["drums"], {"folder": "kick"}) is None


def test_clicks_at_the_end_are_counted_of_whole_recordings_only(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import sounds
    from benchmarks.quality.sets import SETS

    clicking = np.zeros(800, np.float32)
    clicking[-1] = 1
    paths = [clip.path for clip in dataset.train.clips]
    found = [
        originals.Beginning(paths[0], noise(800), True),
        originals.Beginning(paths[1], clicking, False),
    ]
    monkeypatch.setattr(originals, "described_beginnings", lambda *_, **__: iter(found))
    real = sounds.real_sounds(sounds.Settings("fsdd"), SETS["fsdd"], dataset, dataset.train)
    assert real.whole == [True, False]
    figures = sounds._envelope_figures(real, real.waveforms, tiny_model())
    assert figures["clicks_at_end"] == 0
    assert sounds._envelope_figures(real, [clicking] * 2, tiny_model())["clicks_at_end"] == 1


def test_drums_are_linked_by_kind(tmp_path: Path) -> None:
    from benchmarks.quality.sets import _linked

    (tmp_path / "kits" / "kit").mkdir(parents=True)
    (tmp_path / "kits" / "kit" / "a.wav").write_bytes(b"sound")
    with open(tmp_path / "drums.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "kind", "kit"], ["kit/a.wav", "kick", "kit"]])
    for _ in range(2):
        folder = _linked(tmp_path / "drums.csv", tmp_path / "kits", tmp_path / "linked")
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*.wav")] == ["kick/kit__a.wav"]
    assert (folder / "kick" / "kit__a.wav").read_bytes() == b"sound"


def test_the_table_shows_figures_that_a_row_has_and_leaves_out_columns_that_none_has() -> None:
    from audiovq.evaluation.envelopes import envelope_figures
    from benchmarks.quality.sounds import table

    click = np.zeros(RATE // 2, np.float32)
    click[0] = 1
    row = {"name": "clicks", **envelope_figures([click, click], RATE, 0.01)}
    figures = {
        "set": "drums", "split": "validation", "recordings": 2, "seconds": 1.0,
        "rows": [row, {"name": "coded", "bits_per_second": 1234.4}],
    }  # fmt: skip
    lines = table(figures).splitlines()
    assert "| | bit/s | attack ms | pre-echo dB | clicks at start | at end |" in lines
    assert "| clicks |  | 0 / 0 / 0 | -100.0 | 100% | 0% |" in lines
    assert "| coded | 1,234 |  |  |  |  |" in lines


def test_a_picture_has_a_row_for_each_kind_of_sound(tmp_path: Path, tone: Waveform) -> None:
    from matplotlib.image import imread

    from benchmarks.quality.gallery import plot

    rows = {"real": [tone, noise(RATE)], "new": [tone[:400], tone]}
    plot(rows, ["tone", "noise"], RATE, tmp_path / "two.png")
    plot(dict(list(rows.items())[:1]), ["tone", "noise"], RATE, tmp_path / "one.png")
    two, one = imread(tmp_path / "two.png"), imread(tmp_path / "one.png")
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.5 * one.shape[0]


@pytest.mark.slow
def test_all_figures_of_a_model_are_measured(
    dataset_folder: Path,
    trained_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("visqol")
    from benchmarks.quality.sounds import Settings, main

    shorten_judges(monkeypatch)
    out, picture = tmp_path / "figures.json", tmp_path / "picture.png"
    settings = Settings(
        "fsdd",
        split="test",
        model=trained_folder,
        dataset=dataset_folder,
        n=24,
        opus=shutil.which("opusenc") is not None,
        work=tmp_path,
        out=out,
        picture=picture,
    )
    main(settings)
    figures = json.loads(out.read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert {"recordings", "ceiling", "audiovq", "clips", "new sounds"} <= rows.keys()
    assert rows["ceiling"]["visqol"] > rows["audiovq"]["visqol"]
    assert rows["ceiling"]["bits_per_second"] is None
    assert rows["audiovq"]["bits_per_second"] > 0
    assert rows["new sounds"]["sounds"] == 24
    assert figures["generated"]["second_judge"]["frechet_distance"]["reconstructed"] > 0
    assert "| audiovq |" in capsys.readouterr().out
    assert picture.stat().st_size > 1000
