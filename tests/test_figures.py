"""The laws of `audiovq.figures`: what stands beside a figure is what it is said to be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import AUTOENCODER, PRIOR, shake, tiny_model

from audiovq import codec, evaluation, figures
from audiovq.bottlenecks import Quantizer
from audiovq.checkpoint import Model, new_model
from audiovq.config import AudiovqError
from audiovq.dataset import Dataset
from audiovq.generation import Sound

NOISE = [
    np.random.default_rng(i).standard_normal(n).astype(np.float32) * 0.1
    for i, n in enumerate((1, 90, 200))
]
MEASURES = ["log_spectral_distance_db", "mel_distance_db", "spectral_convergence"]


@pytest.fixture(autouse=True)
def hasty_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the judge says is not what these tests are about."""
    monkeypatch.setattr(evaluation, "JUDGE_STEPS", (20, 20))


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
    for a, b in zip(figures.through_networks(model, NOISE), by_codes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2 * float(np.abs(b).max()))


def test_past_the_codebook_is_through_one_that_knows_every_latent() -> None:
    model = tiny_model()
    clip = NOISE[1:2]  # 6 latents for 16 codes
    images, _ = model.spectrogram(torch.from_numpy(clip[0])[None])
    with torch.no_grad(), figures.unquantized(model.autoencoder):
        bare = figures.through_networks(model, clip)[0]
    assert isinstance(model.autoencoder.bottleneck, Quantizer), "put back"
    (book,) = model.autoencoder.bottleneck.codebooks()
    quantized = figures.through_networks(model, clip)[0]
    assert np.abs(quantized - bare).max() > 0.05 * np.abs(bare).max(), "the codebook must matter"
    seen: list[torch.Tensor] = []
    hook = model.autoencoder.bottleneck.register_forward_pre_hook(lambda _, x: seen.extend(x))
    model.autoencoder(images, torch.tensor([images.shape[3]]))
    hook.remove()
    with torch.no_grad():
        book.embedding[: len(seen[0])] = seen[0]
    exact = figures.through_networks(model, clip)[0]
    np.testing.assert_allclose(exact, bare, atol=1e-4 * float(np.abs(bare).max()))


def test_the_codebook_comes_back_after_an_error() -> None:
    autoencoder = tiny_model().autoencoder
    bottleneck = autoencoder.bottleneck
    with pytest.raises(AudiovqError), figures.unquantized(autoencoder):
        raise AudiovqError("of any kind")
    assert autoencoder.bottleneck is bottleneck


def test_codebook_figures_are_means_over_quantizers(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = torch.tensor([[4, 4, 0, 0], [8, 0, 0, 0]])  # 1 bit and none
    monkeypatch.setattr(figures, "code_counts", lambda *_: counts)
    book = figures._evaluate_codebook(untrained(dataset), dataset.test, [])
    assert book["usage"] == pytest.approx(3 / 8)
    assert book["perplexity"] == pytest.approx((2 + 1) / 2)
    assert book["entropy_bits"] == pytest.approx(1 / 2)


def test_every_figure_stands_beside_its_ceilings_and_in_the_table(dataset: Dataset) -> None:
    model = untrained(dataset)
    model.prior = model.new_prior(PRIOR).eval()
    shake(model.prior)
    model.header = {"prior": {"summary": {"uniform_bits": 4.0, "unigram_bits": 4.0}}}
    found = figures.evaluate(model, dataset, n=5, best_of=2)
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
    rows = {name: meaning for name, _, meaning in figures.describe_figures(found)}
    for name in ("mel distance", "spectral convergence", "log-spectral distance"):
        assert "past the codebook" in rows[name]
        assert "from the true spectrogram" in rows[name]
    assert {"entropy", "folder inception score", "diversity"} <= rows.keys()


def test_real_clips_passed_off_as_new_score_as_real_clips_do(dataset: Dataset) -> None:
    split = dataset.train
    sounds = [
        Sound(NOISE[0], clip.labels, codec.Encoded(torch.zeros(1, 1, 1), 0, 1))
        for clip in split.clips
    ]
    images = evaluation.split_images(split)
    new = figures._evaluate_labels(untrained(dataset), dataset, split, sounds, images, seed=0)
    assert new["frechet_distance"]["generated"] == pytest.approx(0, abs=1e-3)
    assert new["frechet_distance"]["training_clips"] == pytest.approx(0, abs=1e-3)
    for figure in (*new["accuracy"].values(), *new["inception_score"].values()):
        assert figure["generated"] == figure["real"]
    spread = new["diversity_within_classes"]
    assert spread["classes"] == 2
    assert spread["generated"] == spread["real"] > 0


def test_one_clip_again_and_again_is_not_diverse(dataset: Dataset) -> None:
    split = dataset.train
    image = evaluation.split_images(split)[0]
    sound = Sound(NOISE[0], split.clips[0].labels, codec.Encoded(torch.zeros(1, 1, 1), 0, 1))
    new = figures._evaluate_labels(
        untrained(dataset), dataset, split, [sound] * 3, [image] * 3, seed=0
    )
    assert new["diversity_within_classes"]["classes"] == 1
    assert new["diversity_within_classes"]["generated"] == pytest.approx(0, abs=1e-3)
    assert new["diversity_within_classes"]["real"] > 0.1
    score = new["inception_score"]["folder"]
    assert score["generated"] == pytest.approx(1, abs=1e-6)
    assert score["real"] > 1.01


def test_a_model_without_a_codebook_has_figures_too(dataset: Dataset) -> None:
    found = figures.evaluate(untrained(dataset, "none"), dataset)
    assert found["codebook"] == {}
    assert {"error_db", *MEASURES} <= found["reconstruction"].keys()
    assert not any(name.startswith("unquantized_") for name in found["reconstruction"])
    rows = {name: meaning for name, _, meaning in figures.describe_figures(found)}
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
    rows = {name: (value, words) for name, value, words in figures.describe_figures(earlier)}
    assert set(rows) == {"spectrogram error", "PESQ", "codebook use", "perplexity", "bit rate"}
    assert rows["PESQ"] == ("3.50", "speech quality from 1 to 4.5; 4.30 from the true spectrogram")
