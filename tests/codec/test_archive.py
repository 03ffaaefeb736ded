"""Archives: what goes in comes out, by every coder; what is damaged or foreign is refused."""

import dataclasses
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import AUTOENCODER, PRIOR, changed, shake, tiny_model

from audiovq.codec import archive, side_info
from audiovq.codec.archive import pack, size_without_names, unpack
from audiovq.codec.probabilities import CODERS, Coder
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.models import checkpoint
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.entropy.context_model import ContextModel
from audiovq.models.entropy.context_tables import SEGMENT_COLUMNS, ContextTables, to_integers
from audiovq.models.model import Model


def make_model(quantizers: int = 1, seed: int = 0) -> Model:
    """Autoencoder, tables and prior with random weights."""
    model = tiny_model(seed)
    config = changed(AUTOENCODER, num_quantizers=quantizers)
    model.autoencoder = Autoencoder(config, model.spectrogram.config.bins).eval()
    shake(model.autoencoder, seed)
    model.prior = model.new_prior(PRIOR).eval()
    shake(model.prior, seed)
    books = model.autoencoder.quantizer.codebooks()
    torch.manual_seed(seed)
    network = ContextModel(torch.stack([b.embedding for b in books]), model.autoencoder.rows, 16)
    levels = torch.arange(model.spectrogram.config.num_levels) + 1
    model.context = ContextTables(to_integers(network, levels, torch.ones(4), 1.0, 0.1))
    return model


def make_sounds(model: Model, columns: tuple[int, ...] = (1, 3, 2, 7, 300)) -> dict[str, Encoded]:
    generator = torch.Generator().manual_seed(3)
    config = model.autoencoder.config
    per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    return {
        f"a/{i}.wav": Encoded(
            torch.randint(
                config.bottleneck.num_codes,
                (config.bottleneck.num_quantizers, model.autoencoder.rows, count),
                generator=generator,
            ),
            level=7 * i % 64,
            num_samples=(count - 1) * per_column + (1 + 5 * i) % per_column,
        )
        for i, count in enumerate(columns)
    }


def assert_same(sounds: dict[str, Encoded], others: dict[str, Encoded]) -> None:
    assert list(sounds) == list(others)
    for sound, other in zip(sounds.values(), others.values(), strict=True):
        assert torch.equal(sound.codes, other.codes)
        assert (sound.level, sound.num_samples) == (other.level, other.num_samples)


@pytest.mark.parametrize("quantizers", [1, 3])
@pytest.mark.parametrize("coder", CODERS)
def test_unpack_is_the_inverse_of_pack(coder: Coder, quantizers: int) -> None:
    model = make_model(quantizers)
    sounds = make_sounds(model)
    assert_same(sounds, unpack(model, pack(model, sounds, coder)))


@pytest.mark.parametrize("coder", CODERS)
def test_an_archive_may_hold_no_sound_or_one(coder: Coder) -> None:
    model = make_model()
    for sounds in ({}, make_sounds(model, (5,))):
        assert_same(sounds, unpack(model, pack(model, sounds, coder)))


def test_more_segments_than_a_group_and_longer_sounds_than_a_segment_are_unpacked() -> None:
    model = make_model(2)
    sounds = make_sounds(model, (1, 2, 3, 2) * (archive.GROUP // 4) + (2 * SEGMENT_COLUMNS + 5, 7))
    assert_same(sounds, unpack(model, pack(model, sounds)))


def test_a_model_without_tables_packs_bits_at_their_nominal_rate() -> None:
    model = make_model()
    model.context = None
    sounds = make_sounds(model, (40,) * 30)
    data = pack(model, sounds)
    codes = sum(sound.codes.numel() for sound in sounds.values())
    per_sound = 6 + 32 + 5  # level, columns, what is left of the length
    expected = (4 * codes + per_sound * len(sounds)) / 8 + archive.HEADER.size
    assert abs(size_without_names(data) - expected) < 8
    assert_same(sounds, unpack(model, data))


def test_an_archive_has_the_size_that_the_context_tables_predict() -> None:
    model = make_model()
    assert model.context is not None
    sounds = make_sounds(model, (20,) * 40)
    grids = torch.stack([sound.codes for sound in sounds.values()])
    from audiovq.models.entropy.context_model import context_cells

    contexts, targets, rows = context_cells(grids, torch.full((40,), 20), 16)
    bits = 0.0
    for row in range(model.autoencoder.rows):
        chosen = (rows == row).numpy()
        counts = model.context.counts(contexts[chosen].numpy(), row, 0)
        taken = counts[np.arange(len(counts)), targets[chosen, 0].numpy()]
        bits -= float(np.log2(taken / counts.sum(axis=1)).sum())
    sides = 40 * (6 + 32 + 2 + 5)  # about; the columns are not in the table of counts
    size = 8 * size_without_names(pack(model, sounds, "context"))
    assert abs(size - bits - sides - 8 * 29) < 0.03 * size


def test_a_name_may_be_any_text() -> None:
    model = make_model()
    one = next(iter(make_sounds(model).values()))
    sounds = {"ä/ö ü.wav": one, 'quo"te\n.wav': one, "": one}
    data = pack(model, sounds)
    assert_same(sounds, unpack(model, data))
    longer = pack(model, {name + "x" * 50: sound for name, sound in sounds.items()})
    assert len(longer) > len(data)
    assert size_without_names(longer) == size_without_names(data)


def test_every_damaged_byte_is_refused() -> None:
    model = make_model()
    data = pack(model, make_sounds(model, (3, 2)))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(AudiovqError):
            unpack(model, bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(AudiovqError):
            unpack(model, data[:length])


def test_appended_bytes_and_other_versions_are_refused() -> None:
    model = make_model()
    data = pack(model, make_sounds(model, (3, 2)))
    for garbage in (b"\0", b"\0\0\0\0", data):
        with pytest.raises(AudiovqError, match="checksum"):
            unpack(model, data + garbage)
    with pytest.raises(AudiovqError, match="version 2; this program reads 1"):
        unpack(model, b"AVQ\x02" + data[4:])


def test_names_that_inflate_too_far_are_refused_before_memory_is_allocated() -> None:
    model = make_model()
    data = pack(model, make_sounds(model, (3, 2)))
    fields = list(archive.HEADER.unpack_from(data))
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()
    swelling = bytes(archive.HEADER.pack(*fields[:-1], len(bomb))) + bomb
    swelling += data[archive.HEADER.size + fields[-1] :]
    tracemalloc.start()
    with pytest.raises(AudiovqError, match="names"):
        unpack(model, archive.with_checksum(swelling))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_more_sounds_than_the_words_can_hold_are_refused() -> None:
    model = make_model()
    data = bytearray(pack(model, make_sounds(model, (3, 2))))
    struct.pack_into("<I", data, archive.HEADER.size - 8, 2**32 - 1)
    with pytest.raises(AudiovqError, match="do not hold 4294967295 sounds"):
        unpack(model, archive.with_checksum(bytes(data)))


@pytest.mark.parametrize("coder", CODERS)
def test_codes_beyond_the_last_word_are_refused_before_memory_is_allocated(
    coder: Coder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    model.clip_frames = 30
    sounds = make_sounds(model, (3,))
    data = pack(model, sounds, coder)
    real = side_info.SideInfoCoder.read

    def endless(sides: Any, count: int, stream: Any) -> Any:
        levels, columns, lengths = real(sides, count, stream)
        return levels, columns + 2_000_000, lengths

    monkeypatch.setattr(side_info.SideInfoCoder, "read", endless)
    tracemalloc.start()
    with pytest.raises(AudiovqError, match="do not match their checksum"):
        unpack(model, data)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_names_that_cannot_be_stored_are_refused() -> None:
    model = make_model()
    one = make_sounds(model, (1,))["a/0.wav"]
    for name in ("x" * 70_000, "\ud800", "\udcc3\udca9"):
        with pytest.raises(AudiovqError, match="rename"):
            pack(model, {name: one})
    assert list(unpack(model, pack(model, {"caf\udce9": one, "a\0b": one}))) == [
        "caf\udce9",
        "a\0b",
    ]


@st.composite
def any_sounds(draw: st.DrawFn) -> dict[str, Encoded]:
    names = draw(st.lists(st.text(max_size=20), unique=True, max_size=6))
    sounds = {}
    for name in names:
        columns = draw(st.sampled_from([1, 2, 3, 7, 130]))
        top = draw(st.sampled_from([1, 2, 16]))
        seed = draw(st.integers(0, 99))
        codes = torch.randint(top, (2, 2, columns), generator=torch.Generator().manual_seed(seed))
        samples = (columns - 1) * 32 + draw(st.integers(0, 31))
        sounds[name] = Encoded(codes, draw(st.integers(0, 63)), samples)
    return sounds


@settings(max_examples=25)
@given(any_sounds(), st.sampled_from(CODERS), st.booleans())
def test_names_codes_levels_and_lengths_are_unpacked_unchanged(
    sounds: dict[str, Encoded], coder: Coder, tables: bool
) -> None:
    model = make_model(2)
    if not tables and coder != "context":
        model.context = None
    assert_same(sounds, unpack(model, pack(model, sounds, coder)))


def test_another_models_archive_is_refused(tmp_path: Path) -> None:
    model, other = make_model(seed=0), make_model(seed=1)
    for number, each in enumerate((model, other)):
        for stage in ("autoencoder", "context", "prior"):
            checkpoint.save(tmp_path / str(number), each, stage, {})
    data = pack(model, make_sounds(model))
    assert_same(make_sounds(model), unpack(checkpoint.load(tmp_path / "0"), data))
    with pytest.raises(AudiovqError, match="another model"):
        unpack(checkpoint.load(tmp_path / "1"), data)


def test_the_number_of_threads_changes_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    assert model.prior is not None
    used: list[int] = []
    step = model.prior.step

    def spy(*arguments: Any) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return step(*arguments)

    monkeypatch.setattr(model.prior, "step", spy)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        data = pack(model, make_sounds(model), "prior")
        unpack(model, data)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}


def test_a_prior_with_other_floating_point_results_is_refused() -> None:
    model = make_model()
    data = pack(model, make_sounds(model), "prior")
    assert model.prior is not None
    with torch.no_grad():
        model.prior.head.weight += 0.05 * torch.randn(model.prior.head.weight.shape)
    with pytest.raises(AudiovqError, match="--coder context"):
        unpack(model, data)


def test_a_coder_that_the_model_lacks_is_refused() -> None:
    model = make_model()
    sounds = make_sounds(model)
    model.context = model.prior = None
    for coder in ("context", "prior"):
        with pytest.raises(AudiovqError, match="the model has no"):
            pack(model, sounds, coder)


def test_a_sound_longer_than_a_day_is_refused() -> None:
    model = make_model()
    model.context = None
    sound = next(iter(make_sounds(model, (1,)).values()))
    day = archive.LONGEST_SECONDS * model.sample_rate
    with pytest.raises(AudiovqError, match=r"^rain: is longer than a day"):
        pack(model, {"rain": dataclasses.replace(sound, num_samples=day + 1)})
    data = bytearray(pack(model, make_sounds(model, (1,)), "plain"))
    begin = archive.HEADER.size + archive.HEADER.unpack_from(data)[-1]
    data[begin:] = b"\xff" * (len(data) - begin)
    with pytest.raises(AudiovqError, match=r"day|do not match their checksum"):
        unpack(model, archive.with_checksum(bytes(data)))
