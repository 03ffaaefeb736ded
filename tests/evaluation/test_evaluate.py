"""Evaluation: figures and their references are what the table says, judges are tested on unseen clips."""

import copy
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
from short_judges import SHORT, shorten_judges
from tiny_models import AUTOENCODER, MASKED, PRIOR, changed, shake, tiny_model

from audiovq.cli.main import main
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
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
from audiovq.generation import copies
from audiovq.generation import generate as generation_generate
from audiovq.generation.known import learn_clips
from audiovq.generation.sound import Sound
from audiovq.models.autoencoder.quantizers import Quantizer
from audiovq.models.known import KnownClips
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


def untrained(dataset: Dataset, bottleneck: str = "vq", **changes: Any) -> Model:
    """A model for a dataset, with random weights."""
    torch.manual_seed(0)
    config = changed(AUTOENCODER, bottleneck=bottleneck, **changes)
    counts = [((i,), 1) for i in range(len(dataset.labels["folder"]))]
    model = new_model(dataset.spectrogram, config, dataset.labels, counts, dataset.clip_frames)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


def test_reconstruction_by_networks_equals_encoding_and_decoding() -> None:
    model = tiny_model()
    decoded = codec.decode(model, codec.encode(model, NOISE))
    for a, b in zip(reconstruction.reconstruct(model, NOISE), decoded, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2 * float(np.abs(b).max()))


def test_without_quantization_equals_a_codebook_that_contains_every_latent() -> None:
    model = tiny_model()
    clip = NOISE[1:2]  # 6 latents for 16 codes
    images, _ = model.spectrogram(torch.from_numpy(clip[0])[None])
    with torch.no_grad(), reconstruction.unquantized(model.autoencoder):
        unquantized = reconstruction.reconstruct(model, clip)[0]
    assert isinstance(model.autoencoder.bottleneck, Quantizer), "restored"
    (book,) = model.autoencoder.bottleneck.codebooks()
    quantized = reconstruction.reconstruct(model, clip)[0]
    assert np.abs(quantized - unquantized).max() > 0.05 * np.abs(unquantized).max(), (
        "the codebook must matter"
    )
    seen: list[torch.Tensor] = []
    hook = model.autoencoder.bottleneck.register_forward_pre_hook(lambda _, x: seen.extend(x))
    model.autoencoder(images, torch.tensor([images.shape[3]]))
    hook.remove()
    with torch.no_grad():
        book.embedding[: len(seen[0])] = seen[0]
    exact = reconstruction.reconstruct(model, clip)[0]
    np.testing.assert_allclose(exact, unquantized, atol=1e-4 * float(np.abs(unquantized).max()))


def test_the_quantizer_is_restored_after_an_error() -> None:
    autoencoder = tiny_model().autoencoder
    bottleneck = autoencoder.bottleneck
    with pytest.raises(AudiovqError), reconstruction.unquantized(autoencoder):
        raise AudiovqError("any error")
    assert autoencoder.bottleneck is bottleneck


def test_codebook_figures_are_means_over_quantizers(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = torch.tensor([[4, 4, 0, 0], [8, 0, 0, 0]])  # 1 bit and 0 bits
    monkeypatch.setattr(evaluate, "code_counts", lambda *_: counts)
    book = evaluate._evaluate_codebook(untrained(dataset), dataset.test, [])
    assert book["usage"] == pytest.approx(3 / 8)
    assert book["perplexity"] == pytest.approx((2 + 1) / 2)
    assert book["entropy_bits"] == pytest.approx(1 / 2)


def test_every_figure_comes_with_its_references_and_is_in_the_table(dataset: Dataset) -> None:
    model = untrained(dataset)
    model.prior = model.new_prior(PRIOR).eval()
    model.masked = model.new_masked(MASKED).eval()
    for prior in (model.prior, model.masked):
        shake(prior)
    model.header = {"prior": {"summary": {"uniform_bits": 4.0, "unigram_bits": 4.0}}}
    found = evaluate.evaluate(model, dataset, n=5, best_of=2, judge_limits=SHORT)
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
        assert "without quantization" in rows[name]
        assert "from the true spectrogram" in rows[name]
    assert found["masked"]["bits_per_code"] != found["prior"]["bits_per_code"]
    priors = {"prior", "masked prior"}
    assert {"entropy", "folder inception score", "diversity", *priors} <= rows.keys()


def test_new_sounds_are_compared_with_training_clips_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(dataset)
    model.prior = model.new_prior(PRIOR).eval()
    shake(model.prior)
    model.header = {"prior": {"summary": {"uniform_bits": 4.0, "unigram_bits": 4.0}}}
    again = evaluate.evaluate(model, dataset, n=4, judge_limits=SHORT)["generation"]
    model.known = learn_clips(model, dataset.train, dataset.validation)
    compared: list[int] = []
    for module in (evaluate, generation_generate):

        def counting(model: Model, sounds: list[Encoded], *more: KnownClips) -> Any:
            compared.append(len(sounds))
            return copies.compare(model, sounds, *more)

        monkeypatch.setattr(module, "compare", counting)
    once = evaluate.evaluate(model, dataset, n=4, judge_limits=SHORT)["generation"]
    assert sum(compared) == 4 + min(4, len(dataset.test))
    for key in ("nearest_training_clip_db", "codes_shared_with_a_training_clip"):
        assert once[key] == again[key]
        assert "generated" in once[key]


def split_as_sounds(dataset: Dataset, split: Split) -> list[Sound]:
    """The clips of a split as if generated: from their true spectrograms."""
    waveforms = Spectrogram(dataset.spectrogram).inverse(
        split.spectrograms(torch.arange(len(split))), split.levels, split.num_samples
    )
    no_codes = Encoded(torch.zeros(1, 1, 1), 0, 1)
    return [
        Sound(waveform[:length].numpy(), clip.labels, no_codes)
        for waveform, length, clip in zip(
            waveforms, split.num_samples.tolist(), split.clips, strict=True
        )
    ]


def test_real_clips_passed_as_generated_score_like_real_clips(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = dataset.test
    sounds = split_as_sounds(dataset, split)
    monkeypatch.setattr(
        spectrogram, "waveform_images", lambda *_: dataset_dataset.split_images(split)
    )
    new = judges.evaluate_with_judges(untrained(dataset), dataset, split, sounds, 0, SHORT)
    assert new["frechet_distance"]["generated"] == pytest.approx(0, abs=1e-3)
    assert new["frechet_distance"]["training_clips"] > 0.1
    for figure in (*new["accuracy"].values(), *new["inception_score"].values()):
        assert figure["generated"] == figure["real"]


def test_accuracy_is_of_the_sounds_whose_label_value_real_clips_have(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that hears one speaker in everything is right on real clips of that speaker, and tested on no other."""
    split, values = dataset.test, dataset.labels["folder"]
    sounds = split_as_sounds(dataset, dataset.train)
    spoken = {clip.labels["folder"] for clip in split.clips}
    assert len(spoken) == 1 < len({sound.labels["folder"] for sound in sounds}) == len(values) == 2
    heard = torch.tensor([float(value in spoken) for value in values])

    def always(_: Classifier, images: list[torch.Tensor]) -> classifier.Predictions:
        features = torch.randn(len(images), 4, generator=torch.Generator().manual_seed(0))
        return classifier.Predictions(features, [heard.expand(len(images), -1)])

    monkeypatch.setattr(classifier, "judge", always)
    monkeypatch.setattr(judges, "_second_judge", lambda *_: {})
    new = judges.evaluate_with_judges(untrained(dataset), dataset, split, sounds, 0, SHORT)
    assert new["real_clips"] == len(split)
    assert new["accuracy"]["folder"] == {
        "generated": 1.0,
        "real": 1.0,
        "sounds": sum(sound.labels["folder"] in spoken for sound in sounds),
        "untested": [value for value in values if value not in spoken],
    }


@pytest.mark.parametrize("measured", ["test", "validation"])
def test_no_judge_is_trained_on_a_clip_that_it_is_tested_on(
    measured: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the second one trained on the training clips that are compared with real ones."""
    split = getattr(dataset, measured)
    trained_on: list[str] = []
    train_classifier, clip_waveforms = classifier.train_classifier, judges.clip_waveforms
    read: list[list[str]] = []

    def train_first(splits: list[Split], seed: int, **limits: int) -> Classifier:
        trained_on.extend(clip.path for one in splits for clip in one.clips)
        return train_classifier(splits, seed, **limits)

    def read_clips(dataset: Dataset, clips: list[Clip]) -> Iterator[Waveform | None]:
        read.append([clip.path for clip in clips])
        return clip_waveforms(dataset, clips)

    monkeypatch.setattr(classifier, "train_classifier", train_first)
    monkeypatch.setattr(judges, "clip_waveforms", read_clips)
    new = judges.evaluate_with_judges(
        untrained(dataset), dataset, split, split_as_sounds(dataset, split), 0, SHORT
    )
    tested = {clip.path for clip in split.clips}
    assert trained_on
    assert not tested & set(trained_on)
    assert set(read[0]) == tested
    for_training, for_comparison = read[1:]  # of the second judge
    assert not tested & {*for_training, *for_comparison}
    assert not set(for_training) & set(for_comparison)
    assert new["second_judge"]["clips"] == len(for_comparison)


def test_new_sounds_are_compared_with_clips_that_begin_as_they_do(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip from within a hit that rings for long is not among the real ones; one of a long texture is, as is every
    clip where none begins."""
    split = dataset.test
    judged: list[int] = []

    def real_clips(task: judges._Task, matching: torch.Tensor) -> judges._RealClips:
        judged.extend(task.real.tolist())
        raise AudiovqError("seen")

    monkeypatch.setattr(judges, "_real_clips", real_clips)
    sounds = split_as_sounds(dataset, split)
    clips, ends = list(range(len(split))), torch.ones(len(split), 2, dtype=torch.bool)
    ends[0, 0] = False
    texture = torch.zeros(len(dataset.train), 2, dtype=torch.bool)
    for of_split, of_training, expected in (
        (ends, ~texture, clips[1:]),
        (ends & False, ~texture, clips),
        (ends, texture, clips),
    ):
        monkeypatch.setattr(split, "complete", of_split)
        monkeypatch.setattr(dataset.train, "complete", of_training)
        judged.clear()
        with pytest.raises(AudiovqError, match="seen"):
            judges.evaluate_with_judges(untrained(dataset), dataset, split, sounds, 0, SHORT)
        assert judged == expected


def test_without_held_out_clips_judges_are_left_out_and_the_table_says_why(
    dataset: Dataset,
) -> None:
    model = untrained(dataset)
    sounds = split_as_sounds(dataset, dataset.train)
    new = judges.evaluate_with_judges(model, dataset, dataset.train, sounds, 0, SHORT)
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


def test_compared_sets_have_the_same_labels_and_no_clip_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    generated, real, training = (
        torch.randint(3, (n, 2), generator=generator) for n in (200, 150, 600)
    )
    indices = judges.match_labels(generated, real, training, generator)
    assert len(indices[0]) > 100
    for one in indices:
        assert len(set(one.tolist())) == len(one) == len(indices[0])
    assert torch.equal(generated[indices[0]], real[indices[1]])
    assert torch.equal(generated[indices[0]], training[indices[2]])
    few = judges.match_labels(generated[:5], real, training, generator)
    assert [len(one) for one in few] == [5, 5, 5]


def test_copies_of_one_clip_are_not_diverse(dataset: Dataset) -> None:
    split = dataset.test
    sound = split_as_sounds(dataset, split)[0]
    new = judges.evaluate_with_judges(untrained(dataset), dataset, split, [sound] * 3, 0, SHORT)
    assert new["inception_score"]["folder"]["generated"] == pytest.approx(1, abs=1e-6)
    assert new["inception_score"]["folder"]["real"] > 1
    if spread := new.get("diversity_within_classes"):
        assert spread["classes"] == 1
        assert spread["generated"] == pytest.approx(0, abs=1e-3)


def test_a_model_that_samples_latents_is_evaluated_but_for_codes_and_copies(
    dataset: Dataset,
) -> None:
    model = untrained(dataset, "gaussian", conditional=True)
    found = evaluate.evaluate(model, dataset, n=5, judge_limits=SHORT)
    assert found["codebook"] == {}
    assert {"error_db", *MEASURES} <= found["reconstruction"].keys()
    assert not any(name.startswith("unquantized_") for name in found["reconstruction"])
    new = found["generation"]
    assert new["sounds"] == 5
    assert 0 <= new["accuracy"]["folder"]["generated"] <= 1
    for judge in (new, new["second_judge"]):
        assert {"generated", "training_clips", "reconstructed"} == judge["frechet_distance"].keys()
    rows = {name: meaning for name, _, meaning in wording.describe_figures(found)}
    assert "from the true spectrogram" in rows["mel distance"]
    assert "codebook" not in rows["mel distance"]
    assert {"folder recognised", "Fréchet distance", "Fréchet distance 2"} <= rows.keys()
    assert not {"codebook use", "prior", "nearest training clip", "copies"} & rows.keys()


def test_above_16_khz_bands_attacks_and_clicks_are_measured_in_place_of_speech(
    recordings: Path, tmp_path: Path
) -> None:
    preprocess(recordings, tmp_path / "d", PreprocessConfig(sample_rate=22_050), say=lambda _: None)
    dataset = Dataset(tmp_path / "d")
    model = untrained(dataset)
    figures, _ = reconstruction.evaluate_reconstruction(model, dataset, dataset.test)
    assert {"high_distance_db", "ceiling_attack_error_ms"} <= figures.keys()
    assert not any("pesq" in name or "stoi" in name for name in figures)
    clips = originals.whole_clips(dataset, dataset.test, 50)
    assert len(clips) == len(dataset.test), "short recordings are not cut"
    sounds = [Sound(clip, {}, codec.encode(model, [clip])[0]) for clip in clips]
    found = evaluate._envelopes(model, dataset, dataset.test, sounds)
    assert found["generated"] == found["real"], "the same sounds have the same figures"
    rows = wording.describe_figures(
        {"measured_on": "test", "reconstruction": figures, "generation": {"envelopes": found}}
    )
    meanings = {name: meaning for name, _, meaning in rows}
    assert "from the true spectrogram" in meanings["attack error"]
    assert "test clips: " in meanings["attack"]
    assert {"clicks", "distance above 6 kHz"} <= meanings.keys()


def test_figures_of_an_earlier_version_are_described() -> None:
    """`report` reads evaluation.json of any version."""
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
    assert rows["PESQ"] == ("3.50", "speech quality, from 1 to 4.5; 4.30 from the true spectrogram")


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path) -> None:
    """Twelve seconds and two minutes: the same number of samples is measured, with the same memory."""
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    peaks = []
    for seconds in (10, 12, 120):  # the first one is a warm-up
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


def test_the_duration_of_originals_is_bounded_each_in_total_and_in_a_batch(
    dataset: Dataset,
) -> None:
    waveforms = list(originals.beginnings(dataset, dataset.train, seconds=0.25, total_seconds=1.0))
    assert {len(waveform) for waveform in waveforms} <= set(range(1600, 2001))
    assert 8000 <= sum(map(len, waveforms)) < 10_000
    batches = list(reconstruction._batches(iter(waveforms), 8000, seconds=0.5))
    assert [w for batch in batches for w in batch] == waveforms
    assert all(sum(map(len, batch)) <= 4000 + 2000 for batch in batches)


def test_the_number_of_judged_clips_is_bounded(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(SHORT, real_clips=3, training_clips=5, batch=2)
    clips_read: list[int] = []
    clips_coded: list[int] = []
    clips_trained_on: list[int] = []
    real_clips, encode, train_listener = (
        judges.clip_waveforms,
        codec.encode,
        listener.train_listener,
    )

    def read(dataset: Dataset, clips: list[Clip]) -> Iterator[Waveform | None]:
        clips_read.append(len(clips))
        return real_clips(dataset, clips)

    def encoded(model: Model, waveforms: list[Waveform]) -> list[Encoded]:
        clips_coded.append(len(waveforms))
        return encode(model, waveforms)

    def trained(images: list[torch.Tensor], *arguments: Any, **limits: int) -> Listener:
        clips_trained_on.append(len(images))
        return train_listener(images, *arguments, **limits)

    monkeypatch.setattr(judges, "clip_waveforms", read)
    monkeypatch.setattr(codec, "encode", encoded)
    monkeypatch.setattr(listener, "train_listener", trained)
    sounds = split_as_sounds(dataset, dataset.train)
    judges.evaluate_with_judges(untrained(dataset), dataset, dataset.test, sounds, 0, limits)
    assert max(clips_read) <= 5
    assert max(clips_coded) <= 2
    assert clips_trained_on == [5]


@pytest.mark.parametrize("clips", [1, 2])
def test_few_training_clips_are_judged_as_far_as_they_go(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, clips: int
) -> None:
    few = copy.copy(dataset.train)
    few.clips = few.clips[:clips]
    for name in ("num_frames", "levels", "num_samples", "complete"):
        setattr(few, name, getattr(few, name)[:clips])
    monkeypatch.setattr(dataset, "train", few)
    sounds = split_as_sounds(dataset, dataset.test)
    found = judges.evaluate_with_judges(untrained(dataset), dataset, dataset.test, sounds, 0, SHORT)
    assert set(found["accuracy"]) == {"folder"}
    assert ("frechet_distance" in found) == (clips > 1)


def test_without_recordings_judges_use_inverted_spectrograms(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = split_as_sounds(dataset, dataset.train)
    monkeypatch.setattr(judges, "clip_waveforms", lambda _, clips: iter([None] * len(clips)))
    new = judges.evaluate_with_judges(untrained(dataset), dataset, dataset.test, sounds, 0, SHORT)
    assert new["second_judge"]["learnt_from"] == "inverted spectrograms"
    assert new["second_judge"]["frechet_distance"]["reconstructed"] > 0


def test_figures_are_printed_even_if_the_folder_is_read_only(
    dataset_folder: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path, data: Any) -> None:
        raise AudiovqError(f"{path}: cannot be written (Permission denied)")

    monkeypatch.setattr(files, "write_json", refuse)
    shorten_judges(monkeypatch)
    assert main(["evaluate", str(folder), str(dataset_folder), "-n", "3", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["measured_on"] == "test"
    assert "evaluation.json: cannot be written" in printed.err
