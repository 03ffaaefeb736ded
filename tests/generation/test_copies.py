"""Near copies of training clips are found at every shift, and other sounds are not called copies."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import AUTOENCODER, shake, tiny_model
from torch import Tensor

from audiovq.audio.reading import read
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation import copies
from audiovq.generation import generate as generation_generate
from audiovq.generation import known as known_clips
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound
from audiovq.models.checkpoint import load, save, save_known
from audiovq.models.known import KnownClips
from audiovq.models.model import Model, new_model

QUICK: dict[str, Any] = {
    "sampling": SamplingConfig(temperature=1.0, guidance=0.0),
    "inversion": Inversion("griffin-lim", 1),
}


def random_codes(count: int, columns: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(16, (count, 1, 2, columns), generator=generator))


def known_of(model: Model, clips: Sequence[Tensor], threshold: float = 8.0) -> KnownClips:
    names = [(f"{i}.wav", 10 * i) for i in range(len(clips))]
    return known_clips.assemble(model, [clips], names, len(clips), {"threshold_db": threshold})


@pytest.fixture(scope="module")
def model() -> Model:
    """A model that knows 40 clips of 30 columns."""
    model = tiny_model(clip_frames=120)
    model.known = known_of(model, random_codes(40, 30))
    return model


def nearest(model: Model, codes: Tensor) -> Any:
    (found,) = copies.compare(model, [Encoded(codes, 0, 0)])
    return found


def test_a_copy_is_found_at_every_shift_in_columns(model: Model) -> None:
    assert model.known is not None
    for place in (0, 7, 39):
        clip = model.known.clip(place)
        for shift in range(6):
            for codes in (clip[..., shift:], clip[..., : 30 - shift]):
                found = nearest(model, codes)
                assert (found.path, found.offset) == (f"{place}.wav", 10 * place)
                assert found.share == 1
                assert found.is_copy


def test_a_copy_is_found_within_a_longer_sound(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.known is not None
    (others,) = random_codes(1, 90, seed=3)
    for begin in (0, 17, 60):
        codes = others.clone()
        codes[..., begin : begin + 30] = model.known.clip(5)
        whole = nearest(model, codes)
        assert whole.path == "5.wav"
        assert whole.share == 1
        assert whole.is_copy
        with monkeypatch.context() as patched:
            patched.setattr(copies, "WINDOW_FRAMES", 64)  # so it is heard in parts
            assert nearest(model, codes) == replace(whole, db=pytest.approx(whole.db, abs=0.01))


def test_sounds_unlike_all_training_clips_are_no_copies(model: Model) -> None:
    for codes in random_codes(20, 30, seed=9):
        found = nearest(model, codes)
        assert found is None or not found.is_copy


def test_the_number_of_clips_compared_at_a_time_changes_nothing(model: Model) -> None:
    sounds = [Encoded(codes, 0, 0) for codes in random_codes(5, 25, seed=4)]
    whole = copies.compare(model, sounds)
    assert copies.compare(model, sounds, max_values=3000) == whole, "a few clips at a time"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_the_share_of_equal_codes_is_maximal_over_shifts(a: int, b: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randint(3, (2, 2, n), generator=generator) for n in (a, b))
    most = max(
        sum(
            int((one[..., column] == other[..., column - shift]).sum())
            for column in range(a)
            if 0 <= column - shift < b
        )
        for shift in range(-b, a + 1)
    )
    assert copies.shared_codes(one, other, 0) == pytest.approx(most / (4 * min(a, b)))
    assert copies.shared_codes(one, other, 99) == pytest.approx(most / (4 * max(a, b)))


@settings(max_examples=30)
@given(st.integers(0, 6), st.integers(0, 1000))
def test_the_difference_in_db_is_over_cells_loud_in_either_sound(shift: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(8, 20, generator=generator)
    other = image + 0.1
    assert copies.difference_db(image, other, 80.0, [0]) == pytest.approx(0, abs=1e-3), (
        "only louder"
    )
    rough = image + 0.1 * torch.randn(8, 20, generator=generator)
    inner = slice(0, 20)  # too short to be without its ends
    either = ((image > 0.5) | (rough > 0.5))[:, inner]
    apart = (image - rough)[:, inner][either]
    expected = 80 * float(apart.std(correction=0))
    assert copies.difference_db(image, rough, 80.0, [0]) == pytest.approx(expected, rel=1e-3)
    later = torch.nn.functional.pad(image, (shift, 0))
    assert copies.difference_db(later, image, 80.0, range(8)) == 0
    assert copies.difference_db(image, torch.zeros(8, 20), 80.0, [0]) is None
    assert copies.difference_db(image, image, 80.0, [15]) is None, "too little in common"


def test_some_of_the_known_clips_are_those_clips(model: Model) -> None:
    known = model.known
    assert known is not None
    some = torch.arange(len(known)) % 3 == 1
    fewer, indices = known.only(some), some.nonzero()[:, 0].tolist()
    assert len(fewer) == len(indices) == len(fewer.names)
    for number, index in enumerate(indices):
        assert torch.equal(fewer.clip(number), known.clip(index))
        assert fewer.names[number] == known.names[index]
    codes = known.clip(indices[2])
    (found,) = copies.compare(model, [Encoded(codes, 0, 0)], fewer)
    assert found is not None
    assert (found.path, found.is_copy) == (known.names[indices[2]][0], True)
    (other,) = copies.compare(model, [Encoded(codes, 0, 0)], known.only(~some))
    assert other is None or other.db > found.db


# --- In the model's folder ------------------------------------------------------------------------


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save(folder, model, "autoencoder", {})
    save(folder, model, "prior", {})
    save_known(folder, model)
    return folder


def test_training_codes_are_saved_and_loaded_and_may_be_missing(model: Model, saved: Path) -> None:
    known, again = model.known, load(saved).known
    assert known is not None
    assert again is not None
    for name in ("codes", "bands", "columns"):
        assert torch.equal(getattr(known, name), getattr(again, name))
    assert (again.names, again.of, again.calibration) == (known.names, 40, {"threshold_db": 8.0})
    (saved / "training-codes.safetensors").unlink()
    without = load(saved)
    assert without.known is None
    assert copies.compare(without, [Encoded(known.clip(0), 0, 0)]) == [None]


@pytest.mark.parametrize("damage", ["bytes", "codes", "bands", "columns", "strings"])
def test_damaged_training_codes_are_refused(saved: Path, model: Model, damage: str) -> None:
    assert model.known is not None
    path = saved / "training-codes.safetensors"
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        codes = model.known.codes.clone()
        codes[0, 3, 0, 0] = 16
        changed: dict[str, Any] = {
            "codes": {"codes": codes},
            "bands": {"bands": model.known.bands[:-1]},
            "columns": {"columns": model.known.columns + 1},
            "strings": {"names": model.known.names[:-1]},
        }[damage]
        broken = replace(model, known=replace(model.known, **changed))
        save_known(saved, broken)
    with pytest.raises(AudiovqError, match=r"damaged|model\.json"):
        load(saved)


def test_saving_a_new_autoencoder_removes_the_training_codes(model: Model, saved: Path) -> None:
    again = load(saved)
    save(saved, again, "autoencoder", {})
    assert "training_codes" not in json.loads((saved / "model.json").read_text())


# --- In generate --------------------------------------------------------------------------------


def same(a: list[Sound], b: list[Sound]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.waveform, y.waveform) and x.nearest == y.nearest
        for x, y in zip(a, b, strict=True)
    )


def test_near_copies_are_sampled_again_unless_kept_and_remaining_ones_are_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(clip_frames=120)
    plain = generate(model, 8, seed=3, **QUICK)
    assert all(sound.nearest is None for sound in plain)
    learnt = [plain[i].encoded.codes for i in (1, 4)]
    model.known = known_of(model, learnt)
    kept = generate(model, 8, seed=3, keep_copies=True, **QUICK)
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(plain, kept, strict=True))
    marked = [s.nearest is not None and s.nearest.is_copy for s in kept]
    assert marked[1]
    assert marked[4]
    again = generate(model, 8, seed=3, **QUICK)
    assert same(again, generate(model, 8, seed=3, **QUICK)), "the seed decides"
    for before, after, copied in zip(kept, again, marked, strict=True):
        assert torch.equal(before.encoded.codes, after.encoded.codes) is not copied
        assert after.tries == 1 or copied
        assert before.labels == after.labels
    monkeypatch.setattr(copies, "is_copy", lambda *_: True)  # and so there is no end of them
    monkeypatch.setattr(copies, "MIN_SECONDS", 0.0)
    never = [s for s in generate(model, 4, seed=3, **QUICK) if s.nearest is not None]
    assert never
    assert all(
        s.tries == 1 + generation_generate.MAX_TRIES and s.nearest.is_copy
        for s in never
        if s.nearest
    )


def test_the_nearest_clip_of_a_loop_is_that_of_the_codes_it_ends_with(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux = iter(range(100, 1, -1))  # every seam is closed again, and each time better
    monkeypatch.setattr(generation_generate, "seam_flux", lambda *_: next(flux))
    for sound in generate(model, 3, seconds=0.1, loop=True, keep_copies=True):
        assert copies.compare(model, [sound.encoded]) == [sound.nearest]
        assert sound.nearest is not None


# --- On real sounds -----------------------------------------------------------------------------


def test_the_shipped_model_finds_shifted_training_clips_and_few_others(
    digits: Path,
) -> None:
    model = load("digits")
    known = model.known
    assert known is not None
    assert len(known) == known.of == 642
    late, places = [], range(0, len(known), 13)
    for number, place in enumerate(places):
        waveform, _ = read(digits / known.names[place][0], model.sample_rate)
        image, _ = model.spectrogram(torch.from_numpy(waveform)[None])
        image = image[..., 1 + number % 16 :]
        codes = model.autoencoder.encode(image, torch.tensor([image.shape[3]]))
        late.append(Encoded(codes[0], 0, 0))
    found = copies.compare(model, late)
    right = [one is not None and one.is_copy for one in found]
    assert np.mean(right) >= 0.95
    fresh = [read(path, model.sample_rate)[0] for path in sorted(digits.glob("*_7.wav"))[::2]]
    others = copies.compare(model, codec.encode(model, fresh, rate_weight=0))
    assert np.mean([one is not None and one.is_copy for one in others]) <= 0.02


@pytest.mark.parametrize("validation", [0, 3])
def test_a_few_clips_are_enough_to_calibrate_the_threshold(
    dataset: Dataset, validation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_clips, "CALIBRATION_CLIPS", 10)
    model = new_model(dataset.spectrogram, replace(AUTOENCODER), {}, [], dataset.clip_frames)
    shake(model.autoencoder)
    model.autoencoder.eval()
    none = copy.copy(dataset.validation)
    none.clips, none.num_frames = none.clips[:validation], none.num_frames[:validation]
    known = known_clips.learn_clips(model, dataset.train, none)
    assert len(known) == len(dataset.train)
    assert known.calibration["found"] >= 0.5
    sounds = known_clips.encode_clips(model, dataset.train, torch.arange(3))
    for one in copies.compare(model, sounds, known):
        assert one is None or (one.share, one.is_copy) == (1, True)
    assert known.calibration["mistaken"] < 1, (
        "of the training clips, against those of other recordings"
    )
