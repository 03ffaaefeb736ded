"""Plots show what they claim, and their WAVs are the sounds shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.image import imread
from tiny_models import AUTOENCODER, changed, shake, tiny_model
from torch.nn.functional import normalize

from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import HELD_OUT, measured_split
from audiovq.generation.codes import GAUSSIAN_LEVEL_DB
from audiovq.models.checkpoint import save
from audiovq.models.model import Model, new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.report.plots import Kind, clip_latents, interpolated, plot, project_to_plane
from audiovq.runtime.files import write_json

KINDS: dict[str, dict[str, Any]] = {
    "vq": {"num_quantizers": 2},
    "fsq": {"bottleneck": "fsq", "levels": (4, 3)},
    "gaussian": {"bottleneck": "gaussian"},
    "plane": {"bottleneck": "gaussian", "dense": 2, "output": "sigmoid"},
    "dense": {"bottleneck": "none", "dense": 6},
}
KINDS_OF_VQ: tuple[Kind, ...] = ("interpolation", "reconstructions", "latent-scatter", "codebook")


def untrained(dataset: Dataset, **settings: Any) -> Model:
    """A model for a dataset, with random weights."""
    torch.manual_seed(0)
    config = changed(AUTOENCODER, **settings)
    model = new_model(dataset.spectrogram, config, dataset.labels, [], dataset.clip_frames)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


@pytest.mark.parametrize(
    ("kind", "of", "sounds"),
    [
        ("reconstructions", "vq", 0),
        ("reconstructions", "dense", 0),
        ("latent-scatter", "fsq", 0),
        ("latent-scatter", "plane", 0),
        ("latent-grid", "plane", 9),
        ("interpolation", "vq", 3),
        ("interpolation", "gaussian", 3),
        ("codebook", "vq", 0),
        ("codebook", "fsq", 0),
    ],
)
def test_every_kind_of_plot_writes_a_picture_and_its_sounds(
    kind: Any, of: str, sounds: int, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "a.png"
    paths = plot(untrained(dataset, **KINDS[of]), dataset, path, kind, n=3)
    assert paths == [path, *(path.with_name(f"a-{i:02d}.wav") for i in range(sounds))]
    assert sorted(paths) == sorted(path.parent.iterdir())
    assert imread(path)[..., :3].std() > 0.01
    for sound in paths[1:]:
        waveform, rate = soundfile.read(sound)
        assert rate == 8000
        assert np.abs(waveform).max() > 0


@pytest.mark.parametrize("of", KINDS)
def test_an_interpolation_starts_and_ends_at_the_two_reconstructions(
    of: str, dataset: Dataset
) -> None:
    model, split = untrained(dataset, **KINDS[of]), dataset.train
    indices = torch.stack([split.num_samples.argmin(), split.num_samples.argmax()])
    with torch.no_grad():
        steps = interpolated(model, split, indices, 3)
        for step, index in ((steps[0], indices[:1]), (steps[-1], indices[1:])):
            frames = split.num_frames[index]
            result = model.autoencoder(split.spectrograms(index), frames)
            reconstruction = model.autoencoder.apply_contrast(result.spectrogram)
            torch.testing.assert_close(step.spectrogram, reconstruction, atol=1e-4, rtol=0)
            assert step.num_samples == split.num_samples[index]
            assert step.level == split.levels[index]
    lengths = [step.num_samples for step in steps]
    assert lengths[1] == round(sum(lengths[::2]) / 2) != lengths[0]


def test_the_middle_of_an_interpolation_is_the_mean_of_the_latents(dataset: Dataset) -> None:
    model, split = untrained(dataset, **KINDS["dense"]), dataset.train
    indices = torch.tensor([0, 9])
    autoencoder = model.autoencoder
    with torch.no_grad():
        latents = autoencoder.latents(split.spectrograms(indices), split.num_frames[indices])
        (_, step, _) = interpolated(model, split, indices, 3)
        frames = step.spectrogram.shape[3]
        columns = autoencoder.num_columns(torch.tensor([frames]))
        halfway = autoencoder.decode_latents(latents.mean(dim=0, keepdim=True), columns)
    torch.testing.assert_close(step.spectrogram, halfway[..., :frames])
    assert frames == 1 + step.num_samples // dataset.spectrogram.hop_length


def test_the_grid_has_the_first_dimension_across_and_the_second_upward(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(dataset, **KINDS["plane"])
    pictures: list[Any] = []
    monkeypatch.setattr(Axes, "imshow", lambda _, image, **rest: pictures.append(image))
    paths = plot(model, dataset, tmp_path / "a.png", "latent-grid", n=2)[1:]
    with torch.no_grad():
        low, high = clip_latents(model, dataset.test).aminmax(dim=0)
        corners = torch.stack([low, torch.stack([high[0], low[1]]), high])
        images = model.autoencoder.decode_latents(
            corners, torch.full((3,), model.autoencoder.columns)
        )
        level = model.spectrogram.level(torch.full((3,), GAUSSIAN_LEVEL_DB))
        samples = torch.full((3,), (dataset.clip_frames - 1) * dataset.spectrogram.hop_length)
        seed = torch.Generator().manual_seed(0)
        expected = model.spectrogram.inverse(images, level, samples, generator=seed)
    written = [soundfile.read(paths[i], dtype="float32")[0] for i in (0, 1, 3)]
    similarity = normalize(torch.from_numpy(np.stack(written))) @ normalize(expected).T
    assert (similarity.diag() > 0.999).all()
    assert (similarity - torch.eye(3)).max() < 0.99, "all different"
    bins, frames = dataset.spectrogram.bins, dataset.clip_frames
    (tiles,) = pictures  # from the bottom upward
    for (row, column), image in zip(((0, 0), (0, 1), (1, 1)), images, strict=True):
        tile = tiles.reshape(2, bins, 2, frames)[row, :, column]
        np.testing.assert_allclose(tile, image[0, :, :frames], atol=1e-5)


def test_recordings_of_a_plot_that_is_replaced_are_removed_whatever_its_kind(
    dataset: Dataset, tmp_path: Path
) -> None:
    model, path = untrained(dataset), tmp_path / "a.png"
    apart = tmp_path / "a-05.wav"
    apart.write_bytes(b"mine")
    plot(model, dataset, path, "interpolation", n=4)
    paths = plot(model, dataset, path, "interpolation", n=2, overwrite=True)
    assert {*tmp_path.iterdir()} == {*paths, apart}
    plot(model, dataset, path, "codebook", overwrite=True)
    assert {*tmp_path.iterdir()} == {path, apart}


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("codebook", ["-n", "5"]),
        ("latent-scatter", ["--seed", "1"]),
        ("latent-grid", ["--seed", "1"]),
    ],
)
def test_flags_without_effect_are_refused(
    kind: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    assert main(["plot", "digits", str(out), "--kind", kind, *flags]) == 2
    assert f"audiovq: {flags[0]}: is for reconstructions, " in capsys.readouterr().err
    assert not out.exists()


def test_fewer_clips_than_asked_for_are_named(dataset: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    plot(untrained(dataset), dataset, tmp_path / "a.png", n=32, say=said.append)
    count = len(measured_split(dataset, *HELD_OUT))
    assert [line for line in said if line.startswith(f"note: all {count} ")], said


def test_recordings_that_no_plot_wrote_are_neither_replaced_nor_removed(
    dataset: Dataset, tmp_path: Path
) -> None:
    model, path = untrained(dataset), tmp_path / "kick.png"
    mine = [tmp_path / f"kick-{number:02d}.wav" for number in (2, 3)]
    for one in (path, *mine):
        one.write_bytes(b"mine")
    for kind in KINDS_OF_VQ:
        plot(model, dataset, path, kind, n=2, overwrite=True)
        assert [one.read_bytes() for one in mine] == [b"mine"] * 2
    plot(model, dataset, path, "interpolation", n=2, overwrite=True)
    before, edited = path.read_bytes(), tmp_path / "kick-01.wav"
    edited.write_bytes(b"edited")
    for n in (2, 3):
        with pytest.raises(AudiovqError, match=r"kick-01\.wav: exists already, and is not as"):
            plot(model, dataset, path, "interpolation", n=n, overwrite=True)
    assert path.read_bytes() == before
    plot(model, dataset, path, "codebook", overwrite=True)
    assert [one.read_bytes() for one in (edited, *mine)] == [b"edited", b"mine", b"mine"]
    assert {*tmp_path.iterdir()} == {path, edited, *mine}


def test_the_point_of_a_clip_is_the_mean_of_its_latents_without_padding(dataset: Dataset) -> None:
    model, split = untrained(dataset, **KINDS["gaussian"]), dataset.train
    with torch.no_grad():
        points = clip_latents(model, split)
        assert points.shape == (len(split), 4)
        for index in (0, len(split) - 1):
            frames = split.num_frames[index : index + 1]
            alone = split.spectrograms(torch.tensor([index]))[..., : int(frames)]
            mean = model.autoencoder.latents(alone, frames).mean(dim=(2, 3))
            torch.testing.assert_close(points[index], mean[0], atol=1e-5, rtol=1e-4)


def test_projecting_a_plane_in_space_keeps_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(20, 2, generator=generator)
    assert project_to_plane(flat) is flat
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q[:2]
    torch.testing.assert_close(torch.pdist(project_to_plane(flat @ basis + 3)), torch.pdist(flat))
    line = torch.randn(20, 1, generator=generator)
    torch.testing.assert_close(torch.pdist(project_to_plane(line)), torch.pdist(line))
    assert project_to_plane(flat[:1] @ basis).tolist() == [[0, 0]]


def test_codes_are_plotted_at_their_vectors_with_area_by_frequency(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = untrained(dataset, latent_dim=2), dataset.train
    plotted: list[tuple[Any, Any, Any]] = []
    monkeypatch.setattr(Axes, "scatter", lambda _, x, y, s, **rest: plotted.append((x, y, s)))
    plot(model, dataset, tmp_path / "a.png", "codebook")
    counts = torch.zeros(16)
    with torch.no_grad():
        for index in torch.arange(len(split)).split(1):
            codes = model.autoencoder.encode(split.spectrograms(index), split.num_frames[index])
            counts += torch.bincount(codes.flatten(), minlength=16)
    vectors = model.autoencoder.quantizer.codebooks()[0].vectors
    for (x, y, _), selected in zip(plotted, (counts == 0, counts > 0), strict=True):
        np.testing.assert_allclose(np.stack([x, y], axis=1), vectors[selected])
    areas = plotted[1][2]
    np.testing.assert_allclose(areas / areas.sum(), counts[counts > 0] / counts.sum(), rtol=1e-5)


def test_labels_with_any_characters_can_be_plotted(
    voice: Callable[..., Any], tmp_path: Path
) -> None:
    for i, name in enumerate(("$\\x$", "_", "日本")):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for take, pitch in (("a", 100), ("b", 150)):
            path = tmp_path / "sounds" / name / f"{take}.wav"
            soundfile.write(path, voice(0.2 + 0.01 * i, pitch), 8000)
    config = PreprocessConfig(test=r"a\.wav$")
    preprocess(tmp_path / "sounds", tmp_path / "dataset", config, say=lambda _: None)
    dataset = Dataset(tmp_path / "dataset")
    assert len(dataset.test) == 3
    kinds: tuple[Kind, ...] = ("latent-scatter", "reconstructions")
    for kind in kinds:
        plot(untrained(dataset), dataset, tmp_path / f"{kind}.png", kind)
        assert (tmp_path / f"{kind}.png").is_file()


@pytest.mark.parametrize(
    ("of", "arguments", "says"),
    [
        ("vq", {"kind": "latent-grid"}, r"latent-grid: .*not a plane; train a model with"),
        ("dense", {"kind": "latent-grid"}, r"latent-grid: .*not a plane; train a model with"),
        ("gaussian", {"kind": "codebook"}, r"the model has no quantizer"),
        ("vq", {"path": "a.jpg"}, r"a\.jpg: give a name that ends in \.png"),
        ("vq", {"n": 1}, r"n 1: give 2 to 32"),
        ("vq", {"path": "there.png"}, r"there\.png: exists already"),
        ("vq", {"path": "next.png", "kind": "interpolation"}, r"next-01\.wav: exists already"),
    ],
)
def test_plots_that_are_not_possible_are_rejected_and_write_nothing(
    of: str, arguments: dict[str, Any], says: str, dataset: Dataset, tmp_path: Path
) -> None:
    for name in ("there.png", "next-01.wav"):
        (tmp_path / name).write_text("mine")
    model, options = untrained(dataset, **KINDS[of]), {"path": "a.png", **arguments}
    options["path"] = tmp_path / options["path"]
    with pytest.raises(AudiovqError, match=says) as error:
        plot(model, dataset, **options)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "there.png": "mine",
        "next-01.wav": "mine",
    }


def test_another_dataset_and_a_single_clip_are_rejected(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(AudiovqError, match="use the dataset that the model was trained on"):
        plot(tiny_model(), dataset, tmp_path / "a.png")
    with pytest.raises(AudiovqError, match="needs two clips"):
        interpolated(untrained(dataset), dataset.train, torch.tensor([0]), 3)


def test_the_verb_finds_the_dataset_that_the_model_was_trained_on(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "model", tmp_path / "a.png"
    save(folder, untrained(dataset), "autoencoder", {})
    verb = ["plot", str(folder), str(out), "--kind", "interpolation", "-n", "2", "--device", "cpu"]
    assert main(verb) == 2
    assert "name the dataset" in capsys.readouterr().err
    assert main([*verb, "--dataset", str(dataset.folder)]) == 0
    before = out.read_bytes()
    where = {"dataset_folder": str(dataset.folder.resolve())}
    write_json(folder / "training" / "settings.json", where)
    assert main(verb) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*verb, "--overwrite", "--seed", "1"]) == 0
    assert capsys.readouterr().out == f"wrote {out} and 2 recordings beside it\n"
    assert out.read_bytes() != before, "the seed selects other clips"
