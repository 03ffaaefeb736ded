"""Search by ear: changed copies are found, near-duplicates are grouped, the index is used again, the map plays."""

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_model

from audiovq.audio.reading import read
from audiovq.audio.resampling import resample
from audiovq.audio.waveform import Waveform
from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.library import index as indexing
from audiovq.library.features import LISTENED_SECONDS, compared, features
from audiovq.library.find import kind_of, near_duplicates, nearest, positions
from audiovq.library.index import NAME, Index, listen, open_index
from audiovq.models.model import Model
from audiovq.preprocessing.similar import correlation
from audiovq.report.map import APART, HEIGHT, WIDTH, Point, write_map
from audiovq.runtime.tensors import save_tensors

RATE = 8000


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def sounds(n: int) -> list[Waveform]:
    """Decaying tones and noises, all different."""
    generator = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    made = []
    for i in range(n):
        decay = np.exp(-time * generator.uniform(4, 40))
        tone = np.sin(2 * np.pi * generator.uniform(80, 2000) * time * (1 + (i % 3) * time))
        noise = generator.standard_normal(len(time)) * generator.uniform(0, 0.5)
        made.append((0.4 * decay * (tone + noise)).astype(np.float32))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sounds" / "a").mkdir(parents=True)
    for i, sound in enumerate(sounds(12)):
        soundfile.write(tmp_path / "sounds" / ("a" if i % 2 else ".") / f"{i:02d}.wav", sound, RATE)
    return tmp_path / "sounds"


CHANGES: dict[str, Callable[[Waveform], Waveform]] = {
    "6 dB quieter": lambda sound: np.float32(0.5) * sound,
    "30 ms later": lambda sound: np.concatenate([np.zeros(240, np.float32), sound]),
    "coarser": lambda sound: np.round(sound * 2048).astype(np.float32) / 2048,
    "a semitone higher": lambda sound: resample(sound, 10595, 10000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_find_their_original(model: Model, change: str) -> None:
    known = sounds(60)
    table = np.stack([features(model.spectrogram, sound) for sound in known])
    index = Index([str(i) for i in range(60)], table)
    ranks = [
        [
            match.file
            for match in nearest(index, features(model.spectrogram, CHANGES[change](sound)), 60)
        ].index(str(i))
        for i, sound in enumerate(known)
    ]
    within = 5 if change == "a semitone higher" else 1
    assert np.mean(np.array(ranks) < within) >= 0.95


def test_a_sound_is_as_similar_to_itself_as_can_be(model: Model) -> None:
    table = np.stack([features(model.spectrogram, sound) for sound in sounds(20)])
    unit, queries = compared(table, table)
    assert np.array_equal(unit, queries)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    for i in range(20):
        first, *others = nearest(Index([f"{j}" for j in range(20)], table), table[i], 20)
        assert first.file == str(i)
        assert first.similarity == pytest.approx(1, abs=1e-4)
        assert [m.similarity for m in others] == sorted(
            (m.similarity for m in others), reverse=True
        )


@pytest.mark.parametrize("num_samples", [1, 2, 100])
def test_the_shortest_sounds_and_silence_have_finite_features(
    model: Model, num_samples: int
) -> None:
    for sound in (np.zeros(num_samples, np.float32), sounds(1)[0][:num_samples]):
        assert np.isfinite(features(model.spectrogram, sound)).all()
        assert (
            features(model.spectrogram, sound).shape
            == features(model.spectrogram, sounds(1)[0]).shape
        )


def test_an_only_sound_and_equal_ones_are_like_themselves(model: Model) -> None:
    vector = features(model.spectrogram, sounds(1)[0])
    for count in (1, 3):
        index = Index([str(i) for i in range(count)], np.stack([vector] * count))
        assert [match.similarity for match in nearest(index, vector)] == [1.0] * count


def test_a_sound_that_begins_late_is_listened_to_from_its_onset(
    model: Model, tmp_path: Path
) -> None:
    rate, sound = model.sample_rate, sounds(1)[0]
    for name, seconds in (("now", 0), ("late", 8), ("long", 15)):
        rest = np.zeros(10 * rate if name == "long" else 0, np.float32)
        soundfile.write(
            tmp_path / f"{name}.wav",
            np.concatenate([np.zeros(seconds * rate, np.float32), sound, rest]),
            rate,
        )
    now = listen(model, tmp_path / "now.wav")
    for name in ("late", "long"):
        late = listen(model, tmp_path / f"{name}.wav")
        assert len(late) <= LISTENED_SECONDS * rate
        assert correlation(now, late) > 0.99


def test_near_duplicates_are_grouped(model: Model) -> None:
    known = sounds(40)
    changed = [CHANGES[name] for name in ("6 dB quieter", "30 ms later", "coarser")]
    known += [changed[0](known[3]), changed[1](known[3]), changed[2](known[8])]
    index = Index(
        [str(i) for i in range(43)], np.stack([features(model.spectrogram, s) for s in known])
    )
    assert near_duplicates(index, lambda name: known[int(name)]) == [["3", "40", "41"], ["8", "42"]]
    distinct = Index(index.names[:40], index.vectors[:40])
    assert near_duplicates(distinct, lambda name: known[int(name)]) == []
    alone = Index(index.names[:1], index.vectors[:1])
    assert near_duplicates(alone, lambda name: known[int(name)]) == []


def test_the_correlation_of_waveforms_ignores_level_sign_and_shift() -> None:
    first, second = sounds(2)
    assert correlation(first, -0.1 * first[100:]) > 0.9
    assert correlation(first, CHANGES["30 ms later"](first)) == pytest.approx(1, abs=1e-5)
    assert correlation(first, second) < 0.5
    assert correlation(first, np.zeros(10, np.float32)) == 0


def test_the_index_is_stored_and_only_changed_recordings_are_read_again(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_index(model, folder)
    assert first.names == sorted(first.names, key=lambda name: name.replace("/", "\0"))
    assert len(first) == 12
    opened: list[str] = []

    listen = indexing.listen

    def spy(model: Model, path: Path) -> Waveform:
        opened.append(path.name)
        return listen(model, path)

    monkeypatch.setattr(indexing, "listen", spy)
    again = open_index(model, folder)
    assert opened == []
    assert again.names == first.names
    assert np.array_equal(again.vectors, first.vectors)
    soundfile.write(folder / "00.wav", sounds(13)[12], RATE)
    soundfile.write(folder / "12.wav", sounds(13)[12], RATE)
    (folder / "02.wav").unlink()
    (folder / "broken.wav").write_bytes(b"broken")
    said: list[str] = []
    changed = open_index(model, folder, say=said.append)
    assert sorted(opened) == ["00.wav", "12.wav", "broken.wav"] or sorted(opened) == [
        "00.wav",
        "12.wav",
    ]
    assert "02.wav" not in changed.names
    assert "broken.wav" not in changed.names
    assert len(said) == 1
    groups = near_duplicates(changed, lambda name: read(folder / name)[0])
    assert groups == [["00.wav", "12.wav"]]
    opened.clear()
    (folder / NAME).write_bytes(b"damaged")
    assert len(open_index(model, folder)) == 12
    assert len(opened) == 13


def test_a_folder_without_recordings_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(AudiovqError, match="holds no recordings"):
        open_index(model, tmp_path)


@pytest.mark.parametrize("kind", ["text", "model", "folder"])
def test_a_file_that_is_not_an_index_is_never_replaced(
    model: Model, folder: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_bytes(b"mine")
    else:
        save_tensors(path, {"vectors": torch.zeros(1)}, {})
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(AudiovqError, match="mine: exists and is not an index"):
        open_index(model, folder, path)
    assert path.is_dir() or path.read_bytes() == before
    other = tmp_path / "index"
    assert len(open_index(model, folder, other)) == 12
    soundfile.write(folder / "12.wav", sounds(13)[12], RATE)
    assert len(open_index(model, folder, other)) == 13


def test_a_query_that_cannot_be_read_is_refused_before_the_folder_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.wav").write_bytes(b"broken")
    assert run("find", "digits", folder, tmp_path / "none.wav") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.wav" in line
    assert not (folder / NAME).exists()


def test_places_on_the_map_are_within_it_and_similar_sounds_are_close(model: Model) -> None:
    known = sounds(30)
    known += [np.float32(0.9) * sound for sound in known]
    index = Index(
        [str(i) for i in range(60)], np.stack([features(model.spectrogram, s) for s in known])
    )
    places = positions(index)
    assert places.shape == (60, 2)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    pairs = distance[np.arange(30), np.arange(30, 60)]
    assert np.median(pairs) < 0.2 * np.median(distance)
    for n in (1, 2, 3, 4):
        few = Index(index.names[:n], index.vectors[:n])
        assert np.isfinite(positions(few)).all()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kick/01.wav", "kick"), ("Kick 01.wav", "kick"), ("01_snare.wav", "snare"), ("7.wav", "")],
)
def test_the_kind_of_a_recording_is_its_folder_or_the_word_of_its_name(
    name: str, kind: str
) -> None:
    assert kind_of(name) == kind


def run(*arguments: Any) -> int:
    return main([str(a) for a in arguments])


def test_find_prints_matches_groups_and_writes_the_map(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = tmp_path / "query.wav"
    soundfile.write(query, 0.5 * sounds(12)[4], RATE)
    assert run("find", "digits", folder, query, "-n", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["found"][0]["file"] == "04.wav"
    assert len(found["found"]) == 3
    soundfile.write(folder / "a" / "copy.wav", 0.5 * sounds(12)[4], RATE)
    page = tmp_path / "pages" / "map.html"
    page.parent.mkdir()
    assert run("find", "digits", folder, "--page", page) == 0
    said = capsys.readouterr().out.splitlines()
    duplicates = ["04.wav", "a/copy.wav", "", "13 recordings, 1 group of near-duplicates"]
    assert said == [*duplicates, f"wrote {page}"]
    sources = re.findall(r'data-source="([^"]+)"', page.read_text("utf-8"))
    assert len(sources) == 13
    assert all((page.parent / unquote(source)).is_file() for source in sources)
    assert run("find", "digits", folder, "--page", page) == 2
    assert "exists already" in capsys.readouterr().err
    assert run("find", "digits", folder, tmp_path / "none.wav") == 2
    assert "none.wav" in capsys.readouterr().err


def test_sounds_at_the_same_place_of_the_map_are_points_apart(tmp_path: Path) -> None:
    corner = [(0.0, 0.0), (1.0, 1.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0)]
    write_map(tmp_path / "map.html", "same", [Point("a", "a", at, "") for at in corner])
    found = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', (tmp_path / "map.html").read_text("utf-8"))
    places = [(float(x), float(y)) for x, y in found]
    assert len(places) == len(corner)
    assert min(math.dist(a, b) for a, b in itertools.combinations(places, 2)) > APART / 2
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


def test_a_map_in_the_folder_is_replaced_and_replaces_no_recording_nor_the_index(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "map.html"
    assert run("find", "digits", folder, "--page", page) == 0
    page.write_text("an earlier one")
    assert run("find", "digits", folder, "--page", page, "--overwrite") == 0
    assert page.read_text("utf-8").startswith("<!")
    for name in ("00.wav", "a/01.wav", NAME):
        before = (folder / name).read_bytes()
        assert run("find", "digits", folder, "--page", folder / name, "--overwrite") == 2
        assert "would overwrite the input" in capsys.readouterr().err
        assert (folder / name).read_bytes() == before
