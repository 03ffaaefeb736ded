"""The laws of `audiovq.figures`: what stands beside a figure is what it is said to be."""

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import Waveform
from tiny_models import AUTOENCODER, PRIOR, shake, tiny_model

from audiovq.cli.main import main
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import PreprocessConfig
from audiovq.dataset import dataset as dataset_dataset
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import Clip
from audiovq.evaluation import (
    classifier,
    evaluate,
    judges,
    listener,
    originals,
    reconstruction,
    wording,
)
from audiovq.evaluation.classifier import Classifier
from audiovq.evaluation.listener import Listener
from audiovq.generation.sound import Sound
from audiovq.models.autoencoder.quantizers import Quantizer
from audiovq.models.model import Model, new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime import files
from audiovq.spectral import spectrogram
from audiovq.spectral.spectrogram import Spectrogram

NOISE = [
    np.random.default_rng(i).standard_normal(n).astype(np.float32) * 0.1
    for i, n in enumerate((1, 90, 200))
]
MEASURES = ["log_spectral_distance_db", "mel_distance_db", "spectral_convergence"]


@pytest.fixture(autouse=True)
def hasty_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the judge says is not what these tests are about."""
    monkeypatch.setattr(classifier, "JUDGE_STEPS", (20, 20))
    monkeypatch.setattr(listener, "STEPS", 20)


def untrained(dataset: Dataset, bottleneck: str = "vq") -> Model:
    """A model for a dataset, with random weights."""
    torch.manual_seed(0)
    config = replace(AUTOENCODER, bottleneck=bottleneck)
    counts = [((i,), 1) for i in range(len(dataset.labels["folder"]))]
    model = new_model(dataset.spectrogram, config, dataset.labels, counts, dataset.clip_frames)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


def test_the_way_through_the_networks_is_that_through_the_codes() -> None:
    model = tiny_model()
    by_codes = codec.decode(model, codec.encode(model, NOISE))
    for a, b in zip(reconstruction.through_networks(model, NOISE), by_codes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2 * float(np.abs(b).max()))


def test_past_the_codebook_is_through_one_that_knows_every_latent() -> None:
    model = tiny_model()
    clip = NOISE[1:2]  # 6 latents for 16 codes
    images, _ = model.spectrogram(torch.from_numpy(clip[0])[None])
    with torch.no_grad(), reconstruction.unquantized(model.autoencoder):
        bare = reconstruction.through_networks(model, clip)[0]
    assert isinstance(model.autoencoder.bottleneck, Quantizer), "put back"
    (book,) = model.autoencoder.bottleneck.codebooks()
    quantized = reconstruction.through_networks(model, clip)[0]
    assert np.abs(quantized - bare).max() > 0.05 * np.abs(bare).max(), "the codebook must matter"
    seen: list[torch.Tensor] = []
    hook = model.autoencoder.bottleneck.register_forward_pre_hook(lambda _, x: seen.extend(x))
    model.autoencoder(images, torch.tensor([images.shape[3]]))
    hook.remove()
    with torch.no_grad():
        book.embedding[: len(seen[0])] = seen[0]
    exact = reconstruction.through_networks(model, clip)[0]
    np.testing.assert_allclose(exact, bare, atol=1e-4 * float(np.abs(bare).max()))


def test_the_codebook_comes_back_after_an_error() -> None:
    autoencoder = tiny_model().autoencoder
    bottleneck = autoencoder.bottleneck
    with pytest.raises(AudiovqError), reconstruction.unquantized(autoencoder):
        raise AudiovqError("of any kind")
    assert autoencoder.bottleneck is bottleneck


def test_codebook_figures_are_means_over_quantizers(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = torch.tensor([[4, 4, 0, 0], [8, 0, 0, 0]])  # 1 bit and none
    monkeypatch.setattr(evaluate, "code_counts", lambda *_: counts)
    book = evaluate._evaluate_codebook(untrained(dataset), dataset.test, [])
    assert book["usage"] == pytest.approx(3 / 8)
    assert book["perplexity"] == pytest.approx((2 + 1) / 2)
    assert book["entropy_bits"] == pytest.approx(1 / 2)


def test_every_figure_stands_beside_its_ceilings_and_in_the_table(dataset: Dataset) -> None:
    model = untrained(dataset)
    model.prior = model.new_prior(PRIOR).eval()
    shake(model.prior)
    model.header = {"prior": {"summary": {"uniform_bits": 4.0, "unigram_bits": 4.0}}}
    found = evaluate.evaluate(model, dataset, n=5, best_of=2)
    json.dumps(found, allow_nan=False)
    back = found["reconstruction"]
    for name in MEASURES:
        assert back["ceiling_" + name] < back["unquantized_" + name], "the network is untrained"
        assert back[name] > 0
    assert back["unquantized_error_db"] != back["error_db"]
    assert 0 < found["codebook"]["entropy_bits"] <= 4
    new = found["generation"]
    assert 1 <= new["inception_score"]["folder"]["generated"] <= 2
    assert 1 <= new["inception_score"]["folder"]["real"] <= 2
    rows = {name: meaning for name, _, meaning in wording.describe_figures(found)}
    for name in ("mel distance", "spectral convergence", "log-spectral distance"):
        assert "past the codebook" in rows[name]
        assert "from the true spectrogram" in rows[name]
    assert {"entropy", "folder inception score", "diversity"} <= rows.keys()


def of_split(dataset: Dataset, split: Split) -> list[Sound]:
    """The clips of a split as if they were new sounds: their true spectrograms, inverted."""
    waveforms = Spectrogram(dataset.spectrogram).inverse(
        split.spectrograms(torch.arange(len(split))), split.levels, split.num_samples
    )
    none = Encoded(torch.zeros(1, 1, 1), 0, 1)
    return [
        Sound(waveform[:length].numpy(), clip.labels, none)
        for waveform, length, clip in zip(
            waveforms, split.num_samples.tolist(), split.clips, strict=True
        )
    ]


def test_clips_of_the_judged_split_passed_off_as_new_score_as_it_does(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = dataset.test
    sounds = of_split(dataset, split)
    monkeypatch.setattr(
        spectrogram, "waveform_images", lambda *_: dataset_dataset.split_images(split)
    )
    new = judges.evaluate_labels(untrained(dataset), dataset, split, sounds, seed=0)
    assert new["frechet_distance"]["generated"] == pytest.approx(0, abs=1e-3)
    assert new["frechet_distance"]["training_clips"] > 0.1
    for figure in (*new["accuracy"].values(), *new["inception_score"].values()):
        assert figure["generated"] == figure["real"]


@pytest.mark.parametrize("measured", ["test", "validation"])
def test_no_judge_learns_from_a_clip_that_it_is_tested_on(
    measured: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the second one from the training clips that stand beside the real ones."""
    split = getattr(dataset, measured)
    learnt: list[str] = []
    train_classifier, clip_waveforms = classifier.train_classifier, judges.clip_waveforms
    heard: list[list[str]] = []

    def first(splits: list[Split], seed: int) -> Classifier:
        learnt.extend(clip.path for some in splits for clip in some.clips)
        return train_classifier(splits, seed)

    def listened(dataset: Dataset, clips: list[Clip]) -> Iterator[Waveform | None]:
        heard.append([clip.path for clip in clips])
        return clip_waveforms(dataset, clips)

    monkeypatch.setattr(classifier, "train_classifier", first)
    monkeypatch.setattr(judges, "clip_waveforms", listened)
    new = judges.evaluate_labels(
        untrained(dataset), dataset, split, of_split(dataset, split), seed=0
    )
    tested = {clip.path for clip in split.clips}
    assert learnt
    assert not tested & set(learnt)
    assert set(heard[0]) == tested
    by_second, beside = heard[1:]  # what it learns from, and what it is then asked about
    assert not tested & {*by_second, *beside}
    assert not set(by_second) & set(beside)
    assert new["second_judge"]["clips"] == len(beside)


def test_without_a_split_to_test_them_on_judges_are_left_out_and_the_table_says_why(
    dataset: Dataset,
) -> None:
    model = untrained(dataset)
    new = judges.evaluate_labels(
        model, dataset, dataset.train, of_split(dataset, dataset.train), seed=0
    )
    assert set(new) == {"left_out"}
    near = {name: {"fifth_percentile": 1.0, "median": 1.0} for name in ("generated", "real")}
    shared = {name: {"median": 0.1, "most": 0.1, "copies": 0} for name in ("generated", "real")}
    found = {
        "generation": {
            "sounds": 2,
            "nearest_training_clip_db": near,
            "codes_shared_with_a_training_clip": shared,
            **new,
        }
    }
    rows = wording.describe_figures(found)
    assert ("left out", "", new["left_out"]) in rows
    assert not any("recognised" in name or "Fréchet" in name for name, _, _ in rows)


def test_sets_that_are_compared_have_the_same_labels_and_no_clip_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    asked, real, training = (torch.randint(3, (n, 2), generator=generator) for n in (200, 150, 600))
    places = judges.matched(asked, real, training, generator)
    assert len(places[0]) > 100
    for some in places:
        assert len(set(some.tolist())) == len(some) == len(places[0])
    assert torch.equal(asked[places[0]], real[places[1]])
    assert torch.equal(asked[places[0]], training[places[2]])
    few = judges.matched(asked[:5], real, training, generator)
    assert [len(some) for some in few] == [5, 5, 5]


def test_one_clip_again_and_again_is_not_diverse(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = dataset.test
    sound = of_split(dataset, split)[0]
    new = judges.evaluate_labels(untrained(dataset), dataset, split, [sound] * 3, seed=0)
    assert new["inception_score"]["folder"]["generated"] == pytest.approx(1, abs=1e-6)
    assert new["inception_score"]["folder"]["real"] > 1
    if spread := new.get("diversity_within_classes"):
        assert spread["classes"] == 1
        assert spread["generated"] == pytest.approx(0, abs=1e-3)


def test_a_model_without_a_codebook_has_figures_too(dataset: Dataset) -> None:
    found = evaluate.evaluate(untrained(dataset, "none"), dataset)
    assert found["codebook"] == {}
    assert {"error_db", *MEASURES} <= found["reconstruction"].keys()
    assert not any(name.startswith("unquantized_") for name in found["reconstruction"])
    rows = {name: meaning for name, _, meaning in wording.describe_figures(found)}
    assert "from the true spectrogram" in rows["mel distance"]
    assert "codebook" not in rows["mel distance"]


def test_figures_of_an_earlier_version_can_still_be_shown() -> None:
    """`report` reads evaluation.json as it finds it."""
    earlier = {
        "reconstruction": {"error_db": 3.0, "pesq": 3.5, "ceiling_pesq": 4.3},
        "codebook": {
            "usage": 1.0,
            "perplexity": 400.0,
            "codes_per_second": 250.0,
            "nominal_bits_per_second": 2250.0,
        },
    }
    rows = {name: (value, words) for name, value, words in wording.describe_figures(earlier)}
    assert set(rows) == {"spectrogram error", "PESQ", "codebook use", "perplexity", "bit rate"}
    assert rows["PESQ"] == ("3.50", "speech quality from 1 to 4.5; 4.30 from the true spectrogram")


def test_the_memory_of_reconstruction_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Ten seconds and six minutes: as many samples are measured, and as many bytes held."""
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    peaks = []
    for seconds in (10, 12, 360):  # the first one warms up
        source, target = (tmp_path / f"{kind}{seconds}" for kind in ("sounds", "dataset"))
        source.mkdir()
        with soundfile.SoundFile(source / "long.wav", "w", 8000, 1) as file:
            for _ in range(seconds):
                file.write(noise)
        whole = PreprocessConfig(clip_seconds=1, validation_share=0, test_share=0)
        preprocess(source, target, whole, say=lambda _: None)
        dataset = Dataset(target)
        torch.manual_seed(0)
        model = new_model(dataset.spectrogram, AUTOENCODER, {}, [((), 1)], dataset.clip_frames)
        model.autoencoder.eval()
        tracemalloc.start()
        found, encoded = reconstruction.evaluate_reconstruction(model, dataset, dataset.train)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [sound.num_samples for sound in encoded] == [round(originals.SECONDS * 8000)]
        assert found["mel_distance_db"] > 0
    assert peaks[2] < 1.05 * peaks[1]


def test_all_recordings_together_are_measured_for_a_bounded_time(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "TOTAL_SECONDS", 1.0)
    monkeypatch.setattr(originals, "SECONDS", 0.25)
    monkeypatch.setattr(reconstruction, "BATCH_SECONDS", 0.5)
    waveforms = list(originals.beginnings(dataset, dataset.train))
    assert {len(waveform) for waveform in waveforms} <= set(range(1600, 2001))
    assert 8000 <= sum(map(len, waveforms)) < 10_000
    batches = list(reconstruction._batches(iter(waveforms), 8000))
    assert [w for batch in batches for w in batch] == waveforms
    assert all(sum(map(len, batch)) <= 4000 + 2000 for batch in batches)


def test_judges_hold_a_fixed_number_of_clips(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in {"REAL_CLIPS": 3, "LEARNT_CLIPS": 5, "BATCH": 2}.items():
        monkeypatch.setattr(judges, name, most)
    asked: list[int] = []
    coded: list[int] = []
    learnt: list[int] = []
    real_clips, encode, train_listener = (
        judges.clip_waveforms,
        codec.encode,
        listener.train_listener,
    )

    def read(dataset: Dataset, clips: list[Clip]) -> Iterator[Waveform | None]:
        asked.append(len(clips))
        return real_clips(dataset, clips)

    def encoded(model: Model, waveforms: list[Waveform]) -> list[Encoded]:
        coded.append(len(waveforms))
        return encode(model, waveforms)

    def trained(images: list[torch.Tensor], *arguments: Any) -> Listener:
        learnt.append(len(images))
        return train_listener(images, *arguments)

    monkeypatch.setattr(judges, "clip_waveforms", read)
    monkeypatch.setattr(codec, "encode", encoded)
    monkeypatch.setattr(listener, "train_listener", trained)
    sounds = of_split(dataset, dataset.train)
    judges.evaluate_labels(untrained(dataset), dataset, dataset.test, sounds, seed=0)
    assert max(asked) <= 5
    assert max(coded) <= 2
    assert learnt == [5]


def test_where_recordings_are_gone_judges_hear_their_spectrograms(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = of_split(dataset, dataset.train)
    monkeypatch.setattr(judges, "clip_waveforms", lambda _, clips: iter([None] * len(clips)))
    new = judges.evaluate_labels(untrained(dataset), dataset, dataset.test, sounds, seed=0)
    assert new["second_judge"]["learnt_from"] == "inverted spectrograms"
    assert new["second_judge"]["frechet_distance"]["reconstructed"] > 0


def test_figures_are_printed_before_a_folder_that_cannot_be_written_is_named(
    dataset_folder: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def closed(path: Path, data: Any) -> None:
        raise AudiovqError(f"{path}: cannot be written (Permission denied)")

    monkeypatch.setattr(files, "write_json", closed)
    assert main(["evaluate", str(folder), str(dataset_folder), "-n", "3", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["measured_on"] == "test"
    assert "evaluation.json: cannot be written" in said.err
