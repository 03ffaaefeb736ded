"""The laws of `audiovq.checkpoint`: what is saved comes back exactly, or is refused in one line."""

import copy
import functools
import itertools
import json
import math
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import COUNTS, LABELS, shake, tiny_model

from audiovq.config.errors import AudiovqError
from audiovq.models import checkpoint
from audiovq.models import folder as model_folder
from audiovq.models.autoencoder.quantizers import Codebook
from audiovq.models.checkpoint import export, load, save
from audiovq.models.entropy.context_model import ContextModel
from audiovq.models.entropy.context_tables import ContextTables, to_integers
from audiovq.models.folder import FORMAT, VERSION, VERSIONS, located
from audiovq.models.model import Model
from audiovq.models.priors.masking import MaskedClips
from audiovq.runtime import files
from audiovq.runtime.checksums import header_bytes
from audiovq.runtime.files import sha256
from audiovq.runtime.tensors import read_tensors, save_tensors


def saved(folder: Path, seed: int = 0, **changes: Any) -> Model:
    """A model with all its networks in `folder`, and as it is in memory."""
    model = tiny_model(seed, masked=True, **changes)
    save(folder, model, "autoencoder", {"step": 1, "error_db": 2.5})
    save(folder, model, "prior", {"step": 7})
    save(folder, model, "masked", {"step": 9})
    return model


@pytest.fixture(scope="module")
def saved_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    saved(folder)
    return folder


@pytest.fixture
def folder(saved_folder: Path, tmp_path: Path) -> Path:
    """A saved model that a test may damage."""
    target = tmp_path / "model"
    target.mkdir()
    for path in saved_folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def refusal(folder: Path, names: Path | None = None) -> str:
    """The one line that `load` refuses with; it must name `names`."""
    with pytest.raises(AudiovqError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(names or folder) in message
    return message


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / "model.json"
    header = json.loads(path.read_text())
    change(header)
    header.pop("sha256", None)
    path.write_bytes(header_bytes(header))


def reweigh(folder: Path, stage: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Change a weights file and give model.json its new checksum."""
    path = folder / f"{stage}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    edit(folder, lambda header: header[stage].update(sha256=sha256(path)))
    return path


def test_what_is_loaded_gives_exactly_what_was_saved(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert not loaded.autoencoder.training
    assert loaded.prior is not None
    assert not loaded.prior.training
    assert loaded.labels == LABELS
    assert list(loaded.labels) == list(LABELS), "the order of labels is their meaning"
    assert loaded.label_counts == COUNTS
    assert loaded.clip_frames == model.clip_frames
    assert loaded.vocabulary == model.vocabulary
    assert loaded.spectrogram.config == model.spectrogram.config
    assert loaded.autoencoder.config == model.autoencoder.config
    assert loaded.prior.config == model.prior.config
    assert loaded.header["autoencoder"]["summary"] == {"step": 1, "error_db": 2.5}
    assert loaded.header["prior"]["summary"] == {"step": 7}

    generator = torch.Generator().manual_seed(0)
    images, frames = torch.rand(2, 1, 16, 9, generator=generator), torch.tensor([9, 9])
    labels = torch.tensor([[0, 2], [1, 1]])
    with torch.no_grad():
        codes = model.autoencoder.encode(images, frames)
        columns = model.autoencoder.num_columns(frames)
        assert torch.equal(loaded.autoencoder.encode(images, frames), codes)
        decoded = model.autoencoder.decode(codes, columns)
        assert torch.equal(loaded.autoencoder.decode(codes, columns), decoded)
        holes = torch.ones_like(codes) > 0
        whole = torch.ones(2, 2) > 0
        canvas = MaskedClips(codes, holes, columns, torch.tensor([3, 60]), labels, whole)
        assert loaded.masked is not None
        assert model.masked is not None
        assert torch.equal(loaded.masked(canvas), model.masked(canvas))
        for vectors, codebook in zip(
            loaded.masked.vectors, model.autoencoder.quantizer.codebooks(), strict=True
        ):
            assert torch.equal(vectors, codebook.vectors)
        assert decoded.std() > 0.01, "the test needs outputs that show something"
        tokens, _ = model.vocabulary.tokens(codes, columns, torch.tensor([3, 60]))
        assert torch.equal(loaded.prior(tokens, labels), model.prior(tokens, labels))


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
def test_saving_what_was_loaded_changes_no_file(folder: Path, stage: Any) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = load(folder)
    if stage == "autoencoder":
        save(folder, model, "autoencoder", {"step": 1, "error_db": 2.5})
        for part in ("prior", "masked"):
            model.header[part] = json.loads(before["model.json"])[part]
    save(folder, model, "prior", {"step": 7})
    save(folder, model, "masked", {"step": 9})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_lengths_and_levels_of_training_clips_are_read_with_the_masked_prior(folder: Path) -> None:
    sizes = [[0, 2, 1, 5], [1, 1, 3, 63]]
    edit(folder, lambda header: header["masked"].update(summary={"sizes": sizes}))
    masked = load(folder).masked
    assert masked is not None
    assert masked.sizes.tolist() == sizes
    for column, wrong in ((0, 99), (2, 0), (2, 999), (3, 64), (3, -1), (3, 1.5)):
        damaged: Any = [list(row) for row in sizes]
        damaged[1][column] = wrong
        edit(folder, lambda header, rows=damaged: header["masked"]["summary"].update(sizes=rows))
        assert "damaged" in refusal(folder)
    for rows in ([[1, 2, 3]], [7], 5, [[1, 1, 3, 63, 0]]):
        edit(folder, lambda header, rows=rows: header["masked"]["summary"].update(sizes=rows))
        assert "damaged" in refusal(folder)


def test_a_model_can_be_moved_and_has_no_prior_at_first(tmp_path: Path) -> None:
    model = tiny_model()
    save(tmp_path / "a", model, "autoencoder", {})
    (tmp_path / "a").rename(tmp_path / "b")
    assert load(tmp_path / "b").prior is None
    assert load(str(tmp_path / "b")).sample_rate == 8000


def test_a_new_autoencoder_drops_the_priors(folder: Path) -> None:
    model = load(folder)
    shake(model.autoencoder, seed=5)
    save(folder, model, "autoencoder", {})
    assert load(folder).prior is None
    assert load(folder).masked is None
    assert not {"prior", "masked"} & json.loads((folder / "model.json").read_text()).keys()
    save(folder, model, "prior", {})
    assert load(folder).prior is not None


def test_what_else_model_json_holds_is_kept(folder: Path) -> None:
    edit(folder, lambda header: header.update(dataset={"files": 3}))
    model = load(folder)
    save(folder, model, "autoencoder", {})
    save(folder, model, "prior", {})
    assert load(folder).header["dataset"] == {"files": 3}


def test_a_prior_that_is_not_there_cannot_be_saved(tmp_path: Path) -> None:
    model = tiny_model()
    model.prior = None
    with pytest.raises(ValueError, match="no prior"):
        save(tmp_path, model, "prior", {})


def test_files_hold_numbers_and_text_no_code(saved_folder: Path) -> None:
    names = {path.name for path in saved_folder.iterdir()}
    parts = ("autoencoder", "prior", "masked")
    assert names == {"model.json", *(f"{part}.safetensors" for part in parts)}
    for path in saved_folder.glob("*.safetensors"):
        data = path.read_bytes()
        (length,) = struct.unpack(
            "<Q", data[:8]
        )  # safetensors: length of a JSON header, the header
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
        assert 8 + length + max(ends) == len(data), "and numbers up to the end"


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
def test_a_flipped_bit_anywhere_in_weights_is_found(folder: Path, stage: str) -> None:
    path = folder / f"{stage}.safetensors"
    data = path.read_bytes()
    for place in (0, 7, 8, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert "damaged" in refusal(folder, path)
    path.write_bytes(data)
    load(folder)


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
@pytest.mark.parametrize("keep", [0, 5, 100, -1])
@pytest.mark.parametrize("checksum_fits", [False, True])
def test_a_truncated_weights_file_is_refused(
    folder: Path, stage: str, keep: int, checksum_fits: bool
) -> None:
    path = folder / f"{stage}.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    if checksum_fits:
        edit(folder, lambda header: header[stage].update(sha256=sha256(path)))
    refusal(folder, path)


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
def test_a_missing_weights_file_is_refused(folder: Path, stage: str) -> None:
    path = folder / f"{stage}.safetensors"
    path.unlink()
    assert "missing" in refusal(folder, path)
    path.mkdir()
    refusal(folder, path)


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
def test_tensors_that_do_not_fit_are_named(folder: Path, stage: str) -> None:
    name = {
        "autoencoder": "encoder.out.weight",
        "prior": "head.weight",
        "masked": "begin_embedding.weight",
    }[stage]
    data = (folder / f"{stage}.safetensors").read_bytes()
    for change, words in (
        (lambda tensors: tensors.update({name: tensors[name][:-1].clone()}), f"tensor {name} is ("),
        (
            lambda tensors: tensors.update({name: tensors[name][None].clone()}),
            f"tensor {name} is (",
        ),
        (lambda tensors: tensors.pop(name), f"tensor {name} is missing"),
        (lambda tensors: tensors.update(extra=torch.ones(2)), "tensor 'extra' is unknown"),
    ):
        path = reweigh(folder, stage, change)
        assert words in refusal(folder, path)
        path.write_bytes(data)
    edit(folder, lambda header: header[stage].update(sha256=sha256(path)))
    load(folder)


def test_weights_of_other_settings_are_refused(folder: Path) -> None:
    def widen(header: Any) -> None:
        header["autoencoder"]["config"]["network"]["channels"] = 9

    edit(folder, widen)
    assert "tensor" in refusal(folder, folder / "autoencoder.safetensors")


def test_a_prior_of_another_autoencoder_is_refused(folder: Path, tmp_path: Path) -> None:
    saved(tmp_path / "other", seed=1)
    for name in ("autoencoder.safetensors",):
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    other = json.loads((tmp_path / "other" / "model.json").read_text())
    edit(folder, lambda header: header.update(autoencoder=other["autoencoder"]))
    assert "another autoencoder" in refusal(folder)


def test_weights_outside_the_folder_are_not_read(folder: Path, tmp_path: Path) -> None:
    path = folder / "autoencoder.safetensors"
    path.rename(tmp_path / path.name)
    for name in (f"../{path.name}", str(tmp_path / path.name), "", ".", ".."):
        edit(folder, lambda header, name=name: header["autoencoder"].update(file=name))
        refusal(folder, tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "no such model" in refusal(tmp_path / "nowhere")
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "not a model" in refusal(folder)
    path = folder / "model.json"
    for text in ("", "{", "[]", "null", '"audiovq-model"', "{}", '{"format": "other"}', "\ufeff{}"):
        path.write_text(text, encoding="utf-8")
        refusal(folder)
    path.write_bytes(b"\xff\xfe\x00")
    refusal(folder)


@pytest.mark.parametrize("version", [max(VERSIONS) + 1, 0, None, "1", [1]])
def test_an_unknown_version_is_refused_by_number(folder: Path, version: Any) -> None:
    edit(folder, lambda header: header.update(version=version))
    message = refusal(folder)
    assert str(version) in message
    assert str(VERSION) in message


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in nested dicts and lists there is something."""
    inside = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [path] * bool(path) + [
        found for key, value in inside for found in leaves(value, (*path, key))
    ]


JUNK = [
    None,
    True,
    -1000,
    -1,
    0,
    70,
    0.5,
    -1.5,
    math.nan,
    math.inf,
    "",
    "patch",
    [],
    {},
    [1],
    {"a": 1},
]


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_any_one_wrong_entry_in_model_json_is_refused_in_one_line_or_harmless(
    every: int, folder: Path
) -> None:
    """Of all entries and values each sixth, which are other values for each entry."""
    text = (folder / "model.json").read_text()
    messages = []
    tries = list(itertools.product(leaves(json.loads(text)), ["gone", *JUNK]))
    assert math.gcd(len(JUNK) + 1, every) == 1, "each entry would have the same values"
    for path, value in tries[::every]:
        header = inner = json.loads(text)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        if value == "gone":
            del inner[path[-1]]
        header.pop("sha256", None)
        header = {"format": FORMAT, "version": VERSION} | header
        (folder / "model.json").write_bytes(header_bytes(header))
        try:
            load(folder)
        except AudiovqError as error:
            messages.append(str(error))
        except Exception as error:
            raise AssertionError(f"{path} = {value!r}") from error
    assert len(messages) > 600 / every
    assert all(str(folder) in message and "\n" not in message for message in messages)


def test_a_failed_write_is_told_in_one_line_and_leaves_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = load(folder)
    shake(model.autoencoder, seed=3)

    real_write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        real_write(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        AudiovqError, match=r"autoencoder\.next\.safetensors: cannot be written .*space"
    ):
        save(folder, model, "autoencoder", {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    load(folder)


@pytest.mark.parametrize("stage", ["autoencoder", "prior", "masked"])
def test_a_save_killed_at_any_moment_leaves_the_old_model_or_the_new_one(
    folder: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def weights(model: Model) -> dict[str, torch.Tensor]:
        return getattr(model, stage).state_dict()

    def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a | b)

    straight = {path.name for path in folder.iterdir()}
    left = 0

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        os_replace(source, target)

    os_replace = files.os.replace
    monkeypatch.setattr(files.os, "replace", replace)
    model = load(folder)
    kills = 0
    for moment in [0, 1, 2, 3, 1, 3, 2, 0]:  # files that are written; each leaves another start
        left = moment
        old = weights(load(folder))
        shake(getattr(model, stage), seed=kills)
        try:
            save(folder, model, stage, {})
        except Killed:
            kills += 1
        found = weights(load(folder))
        assert equal(found, old) or equal(found, weights(model))
    assert kills >= 6
    left = 100
    save(folder, model, stage, {})
    assert equal(weights(load(folder)), weights(model))
    assert {path.name for path in folder.iterdir()} == straight


def test_a_models_files_can_be_read_by_whoever_may_read_the_folder(folder: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
    assert len(modes) == 1


def test_tensors_come_back_whatever_their_layout(tmp_path: Path) -> None:
    tensors = {
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.rand(3, 4).T,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "half": torch.rand(3).bfloat16(),
        "flag": torch.tensor(True),
    }
    save_tensors(tmp_path / "x.safetensors", copy.copy(tensors), {"note": "ä\n"})
    read, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"note": "ä\n"}
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
        assert read[name].dtype == value.dtype


def test_format_is_what_model_json_says_first(saved_folder: Path) -> None:
    header = json.loads((saved_folder / "model.json").read_text())
    assert list(header)[:2] == ["format", "version"]
    assert (header["format"], header["version"]) == (FORMAT, VERSION)


def test_derived_numbers_of_a_model() -> None:
    model = tiny_model(clip_frames=30)
    assert model.vocabulary.rows == 2  # 16 bins, 8 a code
    assert model.vocabulary.max_columns == 8  # 30 frames, 4 a code
    assert model.vocabulary.slots == 2
    assert model.codes_per_second == pytest.approx(8000 / 8 / 4 * 2)
    assert model.new_prior(model.prior.config).label_sizes == (2, 3)
    assert model.to("cpu") is model
    assert model.device == torch.device("cpu")


def with_tables(folder: Path) -> Model:
    """A model with context tables too, in `folder` and in memory."""
    model = saved(folder)
    (book,) = model.autoencoder.quantizer.codebooks()
    network = ContextModel(book.embedding[None], model.autoencoder.rows, hidden=8)
    levels = torch.ones(model.spectrogram.config.num_levels)
    model.context = ContextTables(to_integers(network, levels, torch.ones(5), 1.5, 0.2))
    save(folder, model, "context", {"bits_per_code": 3.0})
    return model


def test_context_tables_come_back_and_a_new_autoencoder_drops_them(tmp_path: Path) -> None:
    model = with_tables(tmp_path)
    again = load(tmp_path)
    assert model.context is not None
    assert again.context is not None
    assert again.prior is not None
    assert again.context.integers.keys() == model.context.integers.keys()
    for name, value in model.context.integers.items():
        assert torch.equal(again.context.integers[name], value), name
    save(tmp_path, model, "autoencoder", {})
    dropped = load(tmp_path)
    assert dropped.context is None
    assert dropped.prior is None


@pytest.mark.parametrize("name", ["maps.0", "edges.0", "rows.0", "weights.0", "biases.0", "levels"])
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    model = with_tables(tmp_path)
    assert model.context is not None
    for wrong in (model.context.integers[name][:-1] * 0, None):
        tensors = dict(model.context.integers)
        if wrong is None:
            del tensors[name]
        else:
            tensors[name] = wrong
        save_tensors(tmp_path / "context.safetensors", tensors)
        digest = sha256(tmp_path / "context.safetensors")
        edit(tmp_path, lambda header, digest=digest: header["context"].update(sha256=digest))
        refusal(tmp_path, tmp_path / "model.json")


def test_an_exported_model_is_half_the_size_and_says_nearly_the_same(tmp_path: Path) -> None:
    with_tables(tmp_path / "model")
    (tmp_path / "model" / "training").mkdir()
    export(tmp_path / "model", tmp_path / "small")
    large, small = load(tmp_path / "model"), load(tmp_path / "small")
    assert not (tmp_path / "small" / "training").exists()
    before, after = (
        {k: v for part in (m.autoencoder, m.prior) for k, v in part.state_dict().items()}
        for m in (large, small)
    )
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)
    sizes = [
        sum(p.stat().st_size for p in (tmp_path / folder).glob("[ap]*.safetensors"))
        for folder in ("model", "small")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    assert large.context is not None
    assert small.context is not None
    assert torch.equal(large.context.integers["maps.0"], small.context.integers["maps.0"])


def test_numbers_beyond_float16_are_exported_as_they_are(tmp_path: Path) -> None:
    model = tiny_model()
    (codebook,) = model.autoencoder.quantizer.codebooks()
    assert isinstance(codebook, Codebook)
    codebook.num_updates.fill_(70_000)
    save(tmp_path / "model", model, "autoencoder", {})
    export(tmp_path / "model", tmp_path / "small")
    name = "bottleneck.quantizers.0.num_updates"
    assert load(tmp_path / "small").autoencoder.state_dict()[name] == 70_000


def test_parts_that_are_left_out_of_an_export_are_in_neither_its_header_nor_its_folder(
    tmp_path: Path,
) -> None:
    with_tables(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "small", leave_out=("prior", "training_codes"))
    small = load(tmp_path / "small")
    assert small.prior is None
    assert small.known is None
    assert small.context is not None
    assert {path.name for path in (tmp_path / "small").iterdir()} == {
        "model.json",
        "autoencoder.safetensors",
        "context.safetensors",
        "masked.safetensors",
    }


def test_a_model_that_ships_goes_by_its_name_unless_a_folder_does(
    saved_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", saved_folder.parent)
    monkeypatch.chdir(tmp_path)
    assert located("model") == saved_folder
    assert load("model").header == load(saved_folder).header
    with pytest.raises(AudiovqError, match="no such model"):
        load("modle")
    (tmp_path / "model").mkdir()
    assert located("model") == Path("model")
    assert located(tmp_path / "other") == tmp_path / "other"


def test_the_model_that_ships_is_whole_and_small() -> None:
    model = load("digits")
    assert model.prior is not None
    assert model.context is not None
    assert model.known is not None
    assert list(model.labels) == ["digit", "speaker"]
    folder = located("digits")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 7e6
    assert not any(path.is_dir() for path in folder.iterdir())


def test_a_flipped_bit_or_a_byte_more_or_less_in_any_file_is_refused(tmp_path: Path) -> None:
    with_tables(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        damaged = [
            data[:p] + bytes([data[p] ^ 4]) + data[p + 1 :]
            for p in (0, len(data) // 3, len(data) // 2, len(data) - 1)
        ]
        for bad in (*damaged, data + b"\n", data + b"\0", data[:-1]):
            path.write_bytes(bad)
            refusal(tmp_path)
        path.write_bytes(data)
    load(tmp_path)


def test_a_training_state_that_was_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.state.safetensors"
    save_tensors(path, {"a": torch.rand(3)}, {"state": '{"step": 3}'})
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(AudiovqError, match=re.escape(str(path))):
            read_tensors(path, sealed=True)
    save_tensors(path, {"a": torch.rand(3)})
    with pytest.raises(AudiovqError, match="checksum"):
        read_tensors(path, sealed=True)


def test_sizes_that_the_weights_do_not_have_take_no_memory(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for part, (*parents, name), value in (
        ("autoencoder", ("network", "channels"), 2_048),
        ("autoencoder", ("bottleneck", "codebook_size"), 65_536),
        ("autoencoder", ("bottleneck", "num_quantizers"), 64),
        ("autoencoder", ("network", "encoder_blocks"), 256),
        ("prior", ("dim",), 2_048),
        ("prior", ("layers",), 256),
        ("masked", ("cell",), 2_048),
    ):
        config = json.loads((folder / "model.json").read_text())[part]["config"]
        larger = copy.deepcopy(config)
        functools.reduce(dict.__getitem__, parents, larger)[name] = value
        edit(folder, lambda h, p=part, c=larger: h[p].update(config=c))
        refusal(folder)
        edit(folder, lambda h, p=part, c=config: h[p].update(config=c))
    load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    path = reweigh(folder, "prior", lambda tensors: tensors["head.weight"].fill_(value))
    assert "NaN" in refusal(folder, path)


def test_loading_draws_nothing_at_random(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(4), expected)


def test_loading_imports_no_compiler() -> None:
    """It takes torch a second or two, which somebody waits for each time."""
    code = (
        "import sys, audiovq; audiovq.load('digits');"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_a_model_is_read_while_it_is_being_saved(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that a model.json lists are replaced after one that lists others: so it is read again."""
    model, real_read = tiny_model(), checkpoint.read_model_header
    for stage in ("autoencoder", "prior"):
        save(tmp_path, model, stage, {"step": 0})
    left = [saves]

    def read_then_save(*arguments: Any) -> dict[str, Any]:
        header = real_read(*arguments)
        if left[0]:
            left[0] -= 1
            shake(model.autoencoder, left[0])
            save(tmp_path, model, "autoencoder", {"step": left[0]})
            save(tmp_path, model, "prior", {"step": left[0]})
        return header

    monkeypatch.setattr(checkpoint, "read_model_header", read_then_save)
    found = load(tmp_path)
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(found.autoencoder.state_dict()[name], value), name
    monkeypatch.setattr(checkpoint, "read_model_header", real_read)
    (tmp_path / "prior.safetensors").write_bytes(b"damaged")
    with pytest.raises(AudiovqError, match=r"prior\.safetensors: damaged"):
        load(tmp_path)
