"""Laws of the vivid decoder: what it changes, what it must not, and how its training resumes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fast_training import CONFIG, stop_after, train

from audiovq.codec import codec
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.config.settings import DiscriminatorConfig, TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.training.budget import TimeBudget
from audiovq.training.loop import Stopped
from audiovq.training.stage import Run, Step
from audiovq.training.stages.contrast import fitted_contrast
from audiovq.training.stages.vivid import VividStage

VIVID = dataclasses.replace(
    CONFIG,
    discriminator=DiscriminatorConfig(channels=8, scales=2),
    vivid_training=CONFIG.prior_training,
    vivid_share=0.2,
)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder, lines = tmp_path_factory.mktemp("vivid") / "model", list[str]()
    train(dataset, folder, VIVID, device="cpu", say=lines.append)
    return folder, lines


@pytest.fixture(scope="module")
def plain(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training without a vivid decoder."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    train(dataset, folder, CONFIG, device="cpu", say=quiet)
    return folder


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


def test_the_vivid_decoder_changes_no_other_part_of_the_model(
    straight: tuple[Path, list[str]], plain: Path
) -> None:
    with_vivid = weights(straight[0])
    assert with_vivid.keys() - weights(plain).keys() == {"vivid.safetensors"}
    assert with_vivid.items() >= weights(plain).items()


def test_new_sounds_are_decoded_by_the_vivid_decoder_and_recordings_by_the_faithful_one(
    straight: tuple[Path, list[str]], plain: Path
) -> None:
    vivid, faithful = load(straight[0]), load(plain)
    sounds = {
        (name, decoder): generate(model, 2, inversion=Inversion(decoder=decoder), keep_copies=True)[
            0
        ]
        for name, model in (("vivid", vivid), ("faithful", faithful))
        for decoder in ("auto", "faithful")
    }
    same = sounds["vivid", "faithful"].waveform, sounds["faithful", "auto"].waveform
    assert (same[0] == same[1]).all()
    assert (sounds["vivid", "auto"].waveform != same[0]).any()
    encoded = [sounds["vivid", "auto"].encoded]
    (recording,), (wanted,) = codec.decode(vivid, encoded), codec.decode(faithful, encoded)
    assert (recording == wanted).all()
    (asked,) = codec.decode(vivid, encoded, inversion=Inversion(decoder="vivid"))
    assert (asked != recording).any()


def test_a_model_without_a_vivid_decoder_says_how_to_train_one(plain: Path) -> None:
    with pytest.raises(AudiovqError, match="no vivid decoder; train one with --vivid-share"):
        generate(load(plain), 1, inversion=Inversion(decoder="vivid"))


def test_a_stopped_training_of_the_vivid_decoder_ends_in_the_bytes_of_a_straight_one(
    straight: tuple[Path, list[str]],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, "vivid", 13)
        with pytest.raises(Stopped):
            train(dataset, tmp_path / "model", VIVID, device="cpu", say=quiet)
    train(dataset, tmp_path / "model", VIVID, device="cpu", say=quiet)
    assert weights(tmp_path / "model") == weights(straight[0])


def stage_of(dataset: Dataset, folder: Path, model: Model, config: TrainConfig) -> VividStage:
    return VividStage(Run(dataset, folder, config, torch.device("cpu"), quiet), model)


def gradients(stage: VividStage) -> dict[str, torch.Tensor]:
    indices = torch.arange(4)
    step = Step(0, 0.0, indices, torch.Generator().manual_seed(0))
    stage.module.zero_grad()
    stage.loss(*stage.prepare(step))["loss"].backward()
    return {n: p.grad.clone() for n, p in stage.module.named_parameters() if p.grad is not None}


def test_each_network_learns_from_its_own_loss_only(
    dataset: Dataset, plain: Path, tmp_path: Path
) -> None:
    """The discriminator's gradient does not depend on the decoder's weights of losses, and the decoder's with weights
    of 0 is that of the squared error."""
    found = {}
    for weight in (0.0, 0.5):
        config = dataclasses.replace(
            VIVID, discriminator=DiscriminatorConfig(8, 1, weight=weight, feature_weight=weight)
        )
        found[weight] = gradients(stage_of(dataset, tmp_path, load(plain), config))
    of_decoder = 0
    for name, gradient in found[0.0].items():
        same = torch.equal(gradient, found[0.5][name])
        assert same == name.startswith("discriminator."), name
        of_decoder += not same
    assert of_decoder


def test_lines_and_card_name_the_vivid_decoder(straight: tuple[Path, list[str]]) -> None:
    folder, lines = straight
    assert any(
        line.startswith("vivid 100 %") and "discriminator recognizes" in line for line in lines
    )
    assert "vivid: step 20" in (folder / "README.md").read_text("utf-8")


def test_the_vivid_decoder_takes_its_time_from_the_autoencoder() -> None:
    config = dataclasses.replace(CONFIG, max_minutes=10.0, autoencoder_share=0.4)
    without, with_vivid = (
        TimeBudget.of(dataclasses.replace(config, vivid_share=share)) for share in (0.0, 0.1)
    )
    assert without.vivid == 0
    assert with_vivid.vivid is not None
    assert with_vivid.autoencoder is not None
    assert with_vivid.autoencoder + with_vivid.vivid == pytest.approx(without.autoencoder)
    assert with_vivid.prior(100.0) == without.prior(100.0)


def test_both_decoders_get_a_contrast_of_their_own(
    straight: tuple[Path, list[str]], dataset: Dataset
) -> None:
    model = load(straight[0])
    assert model.vivid is not None
    fitted = fitted_contrast(model, dataset.validation, model.vivid)
    assert float(model.vivid.contrast) == pytest.approx(fitted)
    assert model.header["vivid"]["summary"]["contrast"] == pytest.approx(fitted)
    assert model.autoencoder.contrast == fitted_contrast(model, dataset.validation)
