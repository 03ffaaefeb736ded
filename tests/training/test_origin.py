"""Training from another model: what is carried over, and what is refused in one line."""

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_voice
from fast_training import CONFIG, stop_after
from tiny_models import AUTOENCODER, SPECTROGRAM, changed, untrained

from audiovq.cli.main import main
from audiovq.codec.tokenize import encode_split
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import Inversion
from audiovq.config.settings import MaskedConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.judges import JudgeLimits
from audiovq.evaluation.wording import figure_table
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import KNOWN, export, load, save
from audiovq.models.model import new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.tensors import read_tensors
from audiovq.training.loop import Stopped
from audiovq.training.origin import KEPT_BELOW, MASKED_SHARE, Origin, sections
from audiovq.training.run import train as train_fully
from audiovq.training.stage import Limits
from audiovq.training.stages.autoencoder import validate_autoencoder
from audiovq.training.stages.prior import validate_prior

RUINOUS = {"learning_rate": 50.0, "warmup": 0, "clip_norm": 1e6, "steps": 2, "validate_every": 2}
"""Steps that make every network worse."""
SHORT = {"steps": 16, "validate_every": 8}
CONTINUED = replace(
    CONFIG,
    autoencoder_training=replace(CONFIG.autoencoder_training, **SHORT),
    prior_training=replace(CONFIG.prior_training, **SHORT),
)
train = functools.partial(train_fully, limits=Limits(sample_every=2.0, context_steps=20))
SOURCES = "## Sources\n\nHits by somebody, CC BY 4.0.\n"


def quiet(_: str) -> None:
    pass


def ruined(**also: Any) -> Any:
    optimizer = replace(CONFIG.autoencoder_training, **RUINOUS)
    return replace(CONFIG, autoencoder_training=optimizer, prior_training=optimizer, **also)


def metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The first row of each stage."""
    lines = (folder / "training" / "metrics.jsonl").read_text().splitlines()
    return {row["stage"]: row for row in reversed([json.loads(line) for line in lines])}


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def seed(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model that names its sources, without its training's state."""
    folder = tmp_path_factory.mktemp("seeds") / "seed"
    shutil.copytree(trained_folder, folder, ignore=shutil.ignore_patterns("training"))
    with open(folder / "README.md", "a") as card:
        card.write(SOURCES)
    return folder


def test_before_the_first_step_a_training_has_the_losses_of_its_origin_and_keeps_its_weights(
    seed: Path, dataset: Dataset, tmp_path: Path
) -> None:
    lines: list[str] = []
    model = train(
        dataset, tmp_path / "model", ruined(), origin=seed, device="cpu", say=lines.append
    )
    origin = load(seed)
    assert origin.prior is not None
    first = metrics(tmp_path / "model")
    assert [row["step"] for row in first.values()] == [0, 0]
    range_db = dataset.spectrogram.range_db
    expected = validate_autoencoder(origin.autoencoder, dataset.validation, range_db)
    assert first["autoencoder"]["validation_score"] == pytest.approx(expected["score"])
    expected = validate_prior(origin.prior, encode_split(origin, dataset.validation))
    assert first["prior"]["validation_score"] == pytest.approx(expected["score"])
    for part in ("autoencoder", "prior"):
        ours, theirs = getattr(model, part).state_dict(), getattr(origin, part).state_dict()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items()), part
    assert lines[0] == "from seed: autoencoder, context tables, prior"
    assert lines[1] == "label folder: jan, sam kept"
    assert model.context is not None
    assert origin.context is not None
    bits = [one.header["context"]["summary"]["bits_per_code"] for one in (model, origin)]
    assert bits[0] <= bits[1] + 0.01


def test_a_stopped_training_from_a_model_ends_in_the_bytes_of_a_straight_one(
    seed: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("straight", "stopped"):
        for stage, step in (("autoencoder", 5), ("prior", 9)) * (name == "stopped"):
            with monkeypatch.context() as patch:
                stop_after(patch, stage, step)
                with pytest.raises(Stopped):
                    train(dataset, tmp_path / name, CONTINUED, origin=seed, device="cpu", say=quiet)
        train(dataset, tmp_path / name, CONTINUED, origin=seed, device="cpu", say=quiet)
    assert weights(tmp_path / "straight") == weights(tmp_path / "stopped")
    model = load(tmp_path / "straight")
    assert model.header["origin"] == Origin.read(seed).record
    card = (tmp_path / "straight" / "README.md").read_text("utf-8")
    assert "## Grown from" in card
    assert f"`seed` ({Origin.read(seed).fingerprint[:12]})" in card
    assert "Hits by somebody, CC BY 4.0." in card
    assert "### Sources" in "\n".join(sections(card, ["Grown from"])), "for the next generation"
    _refuses_another(seed, dataset, tmp_path)


def _refuses_another(seed: Path, dataset: Dataset, tmp_path: Path) -> None:
    """A folder trained from `seed` is refused to a training from another model, or from none."""
    folder, before = tmp_path / "straight", weights(tmp_path / "straight")
    shutil.copytree(seed, tmp_path / "other")
    model = load(tmp_path / "other")
    with torch.no_grad():
        next(model.autoencoder.parameters()).add_(1)
    save(tmp_path / "other", model, "autoencoder", {})
    for origin, says in (
        (tmp_path / "other", "from the model seed, which has changed or is another"),
        (None, "was trained from the model seed; give it by --from"),
    ):
        with pytest.raises(AudiovqError, match=says):
            train(dataset, folder, CONTINUED, origin=origin, device="cpu", say=quiet)
    assert weights(folder) == before


@pytest.mark.parametrize("at", ["the origin", "around it", "the dataset"])
def test_a_training_never_replaces_its_origin_or_its_dataset(
    at: str, dataset: Dataset, seed: Path, tmp_path: Path
) -> None:
    """Nor a folder that contains one."""
    around, data = tmp_path / "around", tmp_path / "data"
    origin = Path(shutil.copytree(seed, around / "seed"))
    shutil.copytree(seed, around, dirs_exist_ok=True)
    shutil.copytree(dataset.folder, data)
    folder = {"the origin": origin, "around it": around, "the dataset": data}[at]
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(AudiovqError, match="would overwrite the input"):
        train(data, folder, CONFIG, origin=origin, overwrite=True, say=quiet)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_training_from_scratch_is_not_resumed_from_a_model(
    seed: Path, folder: Path, dataset: Dataset
) -> None:
    with pytest.raises(AudiovqError, match="was not trained from another model"):
        train(dataset, folder, CONFIG, origin=seed, device="cpu", say=quiet)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            replace(CONFIG, autoencoder=changed(CONFIG.autoencoder, channels=24)),
            "--autoencoder.network.channels 24: the model seed has 16",
        ),
        (
            replace(CONFIG, autoencoder=changed(CONFIG.autoencoder, codebook_size=64)),
            "--autoencoder.bottleneck.codebook-size 64: the model seed has 32",
        ),
        (replace(CONFIG, prior=replace(CONFIG.prior, layers=3)), "--prior.layers 3: the model"),
    ],
)
def test_a_shape_that_contradicts_the_origin_is_refused_by_its_flag(
    config: Any, says: str, seed: Path, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(AudiovqError, match=says):
        train(dataset, tmp_path / "model", config, origin=seed, device="cpu", say=quiet)
    assert not (tmp_path / "model").exists()


def test_a_preset_takes_the_networks_of_the_origin_and_keeps_its_other_settings(seed: Path) -> None:
    origin = Origin.read(seed)
    config = origin.adopt(PRESETS["tiny"])
    assert config.prior == CONFIG.prior
    assert config.autoencoder.bottleneck == CONFIG.autoencoder.bottleneck
    assert config.autoencoder.network == replace(CONFIG.autoencoder.network, patch=(8, 4))
    assert config.autoencoder.contrast is None
    assert config.prior_training == PRESETS["tiny"].prior_training
    assert origin.settle(config) == config
    dropout = replace(config, prior=replace(config.prior, dropout=0.3))
    assert origin.settle(dropout) == dropout, "no shape"
    left_out = changed(config.autoencoder, patch=None, row_mixing=None)
    assert origin.settle(replace(config, autoencoder=left_out)) == config


def test_row_mixing_that_the_origin_lacks_is_refused_by_its_flag() -> None:
    origin = Origin.read("digits")
    config = origin.adopt(PRESETS["tiny"])
    assert config.autoencoder.network.row_mixing is None
    mixing = replace(config, autoencoder=changed(config.autoencoder, row_mixing=8))
    with pytest.raises(AudiovqError, match=r"row-mixing 8: the model digits has None"):
        origin.settle(mixing)


@pytest.fixture(scope="module")
def other_dataset(
    tmp_path_factory: pytest.TempPathFactory, voice: Callable[..., Any]
) -> Callable[..., Dataset]:
    """Makes a dataset of six recordings at 11,025 Hz, one value of its label known to `seed`."""
    import soundfile

    root = tmp_path_factory.mktemp("others")
    for number in range(6):
        path = root / "in" / ("jan" if number % 2 else "eva") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_voice(0.2 + 0.02 * number, sample_rate=11_025), 11_025)

    def make(config: PreprocessConfig) -> Dataset:
        folder = root / str(len(list(root.iterdir())))
        preprocess(root / "in", folder, config, say=quiet)
        return Dataset(folder)

    return make


def test_words_are_new_where_the_origin_has_numbers(seed: Path) -> None:
    origin = Origin.read(seed)
    origin.model.labels = {"tempo": Numbers(60.0, 180.0)}
    for name in ("tempo", "speed"):
        assert [*origin._labels({name: ["60", "120"]})] == [f"label {name}: 60, 120 new"]


def test_what_differs_is_said_before_anything_is_trained(
    seed: Path, other_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    short = ruined(autoencoder_share=0.5)
    lines: list[str] = []
    dataset = other_dataset(PreprocessConfig(n_mels=64, hop_length=60))
    train(dataset, tmp_path / "a", short, origin=seed, device="cpu", say=lines.append)
    begin = next(line for line in lines if line.startswith("autoencoder"))
    said = "\n".join(lines[: lines.index(begin)])
    assert "sample_rate 11025 instead of 8000" in said
    assert "hop_length 60 instead of 64" in said
    assert f"preprocess … --like {seed}" in said
    assert "label folder: jan kept, eva new" in said
    dataset = other_dataset(PreprocessConfig(n_mels=48))
    with pytest.raises(AudiovqError, match=r"--from seed: its spectrograms have 64 bands.*--like"):
        train(dataset, tmp_path / "b", short, origin=seed, device="cpu", say=quiet)
    assert not (tmp_path / "b").exists()


def test_like_is_advised_only_where_spectrograms_differ() -> None:
    dense = {"bottleneck": "gaussian", "dense": 2}
    labels = {"bottleneck": "gaussian", "conditional": True}
    origin = Origin("seed", "seed", untrained(**dense), "")
    for other in (new_model(SPECTROGRAM, changed(AUTOENCODER, **dense), {}, [], 60), untrained()):
        with pytest.raises(AudiovqError, match="its autoencoder has") as refusal:
            origin.require_fit(other)
        assert "--like" not in str(refusal.value)
    origin = Origin("seed", "seed", untrained(**labels), "")
    fewer = {"digit": ["0"], "speaker": ["ada"]}
    with pytest.raises(AudiovqError, match="its autoencoder has") as refusal:
        origin.require_fit(new_model(SPECTROGRAM, changed(AUTOENCODER, **labels), fewer, [], 30))
    assert "--like" not in str(refusal.value)


def test_a_dataset_like_the_origin_differs_in_nothing(
    seed: Path, other_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    spectrogram = load(seed).spectrogram.config
    dataset = other_dataset(PreprocessConfig().like(spectrogram, "seed"))
    assert dataset.spectrogram == spectrogram
    lines: list[str] = []
    train(dataset, tmp_path / "model", ruined(), origin=seed, device="cpu", say=lines.append)
    assert lines[0] == "from seed: autoencoder, context tables, prior"


def test_the_command_line_takes_the_networks_of_the_origin_unless_a_flag_contradicts(
    seed: Path, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--autoencoder-training.steps=2", "--prior-training.steps=2", "--device=cpu"]
    command = ["train", str(dataset_folder), str(tmp_path / "model"), "--preset=tiny", *steps]
    assert main([*command, f"--from={seed}", "--prior.dim", "64"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "audiovq: --prior.dim 64: the model seed has 32; leave the flag out, or --from\n"
    )
    assert main([*command, "--from", str(seed)]) == 0
    assert "from seed: autoencoder" in capsys.readouterr().out
    assert load(tmp_path / "model").header["origin"]["name"] == "seed"
    assert main([*command, "--from", str(tmp_path / "nowhere")]) == 2
    assert "no such model" in capsys.readouterr().err


# --- From a model that has only a masked prior ------------------------------------------------------


@pytest.fixture(scope="module")
def masked_seed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model without its autoregressive prior and training codes, as those that ship."""
    folder = tmp_path_factory.mktemp("masked")
    config = replace(
        CONFIG,
        masked=MaskedConfig(dim=32, cell=16, layers=1, heads=2),
        masked_training=CONFIG.prior_training,
        masked_share=0.3,
    )
    train(dataset, folder / "whole", config, device="cpu", say=quiet)
    export(folder / "whole", folder / "seed", leave_out=("prior", KNOWN))
    return folder / "seed"


def test_from_a_model_with_a_masked_prior_alone_a_training_makes_a_model_with_a_masked_prior_alone(
    masked_seed: Path, dataset: Dataset, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = Origin.read(masked_seed).adopt(CONTINUED)
    assert config.masked_share == MASKED_SHARE
    config = replace(config, masked_training=CONTINUED.prior_training)
    arguments = dataset, tmp_path / "model", config
    model = train(*arguments, origin=masked_seed, device="cpu", say=lines.append)
    assert lines[0] == "from seed: autoencoder, context tables, masked prior"
    assert lines[1] == "prior: none, as seed has none; new sounds come from the masked prior"
    assert lines[2].startswith("label ")
    assert model.prior is None
    assert model.masked is not None
    first = metrics(tmp_path / "model")
    assert set(first) == {"autoencoder", "masked"}
    assert first["masked"]["step"] == 0
    sounds = generate(model, 2, inversion=Inversion(n_iter=1))
    assert all(sound.waveform.any() for sound in sounds)
    before = weights(tmp_path / "model")
    train(*arguments, origin=masked_seed, device="cpu", say=quiet)
    assert weights(tmp_path / "model") == before, "a finished one stays as it is"
    train(*arguments, origin=masked_seed, more=0.05, device="cpu", say=quiet)
    assert load(tmp_path / "model").prior is None


def test_new_sounds_of_a_model_with_a_masked_prior_alone_are_evaluated(
    masked_seed: Path, dataset: Dataset
) -> None:
    limits = JudgeLimits(min_steps=2, max_steps=2, second_max_steps=2)
    figures = evaluate(load(masked_seed), dataset, n=4, judge_limits=limits)
    assert "prior" not in figures
    assert figures["generation"]["sounds"] == 4
    assert "Fréchet" in figure_table(figures)


# --- Codes of few clips -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_kept_codes_are_the_origins_while_the_decoder_learns(
    keep: bool, masked_seed: Path, dataset: Dataset, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = replace(Origin.read(masked_seed).adopt(CONTINUED), keep_codes=keep)
    config = replace(config, masked_training=CONTINUED.prior_training)
    optimizer = replace(config.autoencoder_training, learning_rate=0.05, validate_every=16)
    config = replace(config, autoencoder_training=optimizer)
    arguments = dataset, tmp_path / "model", config
    train(*arguments, origin=masked_seed, device="cpu", say=lines.append)
    said = "codes: those of seed; of the autoencoder, the decoder alone is trained"
    assert (said in lines) == keep
    path = tmp_path / "model" / "training" / "autoencoder.state.safetensors"
    trained, _ = read_tensors(path, sealed=True)
    moved = {
        name.partition(".")[0]
        for name, value in load(masked_seed).autoencoder.state_dict().items()
        if not torch.equal(trained[f"module.{name}"], value)
    }
    assert moved == ({"decoder"} if keep else {"encoder", "bottleneck", "decoder"})


def test_codes_are_kept_by_default_with_few_clips_where_a_prior_depends_on_them(
    masked_seed: Path,
) -> None:
    origin = Origin.read(masked_seed)
    config = origin.adopt(PRESETS["small"])
    assert origin.keeps_codes(config, KEPT_BELOW - 1)
    assert not origin.keeps_codes(config, KEPT_BELOW)
    assert origin.keeps_codes(replace(config, keep_codes=True), 10**6)
    assert not origin.keeps_codes(replace(config, keep_codes=False), 1)
    codec = replace(config, autoencoder_share=1.0, keep_codes=True)
    assert not origin.keeps_codes(codec, 1), "no prior is trained"
