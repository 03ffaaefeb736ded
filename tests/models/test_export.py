"""Programs give what the model gives, for any batch and length; the example needs no audiovq."""

import ast
import contextlib
import functools
import importlib
import io
import json
import runpy
import subprocess
import sys
import types
import wave
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Waveform
from tiny_models import PRIOR, shake, tiny_model, untrained
from torch import nn

from audiovq.cli import main
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.numbers import Numbers
from audiovq.models import export
from audiovq.models.checkpoint import save
from audiovq.models.export import write_programs
from audiovq.models.model import Model
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import stft

EXAMPLE = Path(__file__).parents[2] / "docs" / "onnx_example.py"
KINDS: dict[str, dict[str, Any]] = {
    "residual": {"network": "residual", "num_quantizers": 3},
    "conv": {"network": "conv", "filters": (4, 8), "kernels": (3, 5), "strides": (2, 2)},
    "fsq": {"bottleneck": "fsq", "levels": (4, 3), "loss": "cross_entropy", "output": "sigmoid"},
    "cosine": {"cosine": True},
    "conditional": {"bottleneck": "gaussian", "conditional": True},
    "plane": {"bottleneck": "gaussian", "dense": 2},
    "none": {"bottleneck": "none"},
    "row mixing": {"row_mixing": 2},
}


@pytest.fixture(scope="module")
def model() -> Model:
    """Of mel bands, from which a decoder fits magnitudes; the other kinds below have linear bins."""
    made = tiny_model()
    made.autoencoder.config = replace(made.autoencoder.config, sharpness=1.3)
    made.spectrogram = Spectrogram(SpectrogramConfig(8000, n_fft=64, hop_length=8, n_mels=16))
    return made


@pytest.fixture(scope="module")
def written(
    model: Model, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, tuple[Any, list[str]]]]:
    """Programs as pt2, written by the verb, which says so, and does it once; and what was traced for them."""
    folder = tmp_path_factory.mktemp("programs")
    save(folder / "model", model, "autoencoder", {})
    save(folder / "model", model, "prior", {})
    arguments = ["export", str(folder / "model"), str(folder / "out"), "--format", "pt2"]
    traced: dict[str, tuple[Any, list[str]]] = {}
    trace = export._traced
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_traced", lambda of: traced.update(trace(of)) or traced)
        assert main.main(arguments) == 0
        assert main.main(arguments) == 2, "exists already"
    told = f"wrote encoder.pt2, decoder.pt2, prior.pt2 and programs.json to {folder / 'out'}\n"
    assert said.getvalue() == told
    return folder / "out", traced


@pytest.fixture(scope="module")
def pt2_folder(written: tuple[Path, dict[str, tuple[Any, list[str]]]]) -> Path:
    return written[0]


@pytest.fixture(scope="module")
def onnx_folder(
    model: Model,
    written: tuple[Path, dict[str, tuple[Any, list[str]]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="programs as ONNX need the extra [onnx]")
    folder = tmp_path_factory.mktemp("programs") / "onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_traced", lambda _: written[1])
        write_programs(model, folder)
    return folder


@functools.cache
def loaded(path: Path) -> Any:
    """The program of either form, from keywords to a list of outputs."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = importlib.import_module("onnxruntime").InferenceSession(path)

    def run(**given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = session.run(None, {key: value.numpy() for key, value in given.items()})
        return tuple(map(torch.from_numpy, arrays))

    return run


def called(folder: Path, name: str, **given: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What the program `name` makes of its inputs."""
    with torch.no_grad():
        made = loaded(next(folder.glob(f"{name}.*")))(**given)
    return made if isinstance(made, tuple) else (made,)


def check(model: Model, folder: Path, clips: int, columns: int) -> None:
    """Encoder and decoder give what the autoencoder gives."""
    autoencoder = model.autoencoder
    frames = columns * autoencoder.stride[1]
    image = torch.rand(clips, 1, autoencoder.bins, frames)
    ends, all_columns = torch.full((clips,), frames), torch.full((clips,), columns)
    (made,) = called(folder, "encoder", spectrogram=image)
    back, magnitude = called(folder, "decoder", codes=made)
    with torch.no_grad():
        if autoencoder.config.quantizes:
            assert torch.equal(made, autoencoder.encode(image, ends))
            expected = autoencoder.decode(made, all_columns)
        else:
            latents = autoencoder.latents(image, ends)
            torch.testing.assert_close(made, latents, rtol=1e-4, atol=1e-4)
            expected = autoencoder.decode_latents(made, all_columns)
        assert expected.shape == image.shape
        torch.testing.assert_close(back, expected, rtol=1e-4, atol=1e-5)
        own = model.spectrogram.magnitude(expected)
        torch.testing.assert_close(magnitude, own, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "columns"), [(1, 1), (2, 5), (5, 40)])
def test_as_onnx_any_batch_of_any_length_gives_what_the_model_gives(
    model: Model, onnx_folder: Path, clips: int, columns: int
) -> None:
    check(model, onnx_folder, clips, columns)


def test_a_pt2_gives_what_the_model_gives(model: Model, pt2_folder: Path) -> None:
    for clips, columns in ((1, 1), (4, 7)):
        check(model, pt2_folder, clips, columns)
    check_prior(model, pt2_folder)


def test_an_exported_residual_quantizer_takes_any_number_of_latents() -> None:
    quantizer = untrained(num_quantizers=2).autoencoder.quantizer

    class Codes(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return quantizer.encode(latents)

    any_number = {"latents": {0: torch.export.Dim.DYNAMIC}}
    codes, latents = Codes(), torch.randn(50, 4)
    program = torch.export.export(codes, (latents[:18],), dynamic_shapes=any_number).module()
    for number in (1, 18, 50):
        assert torch.equal(program(latents[:number]), codes(latents[:number]))


@pytest.mark.parametrize(
    "rows", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 17))]
)
def test_the_program_of_a_prior_takes_any_number_of_tokens(rows: int) -> None:
    vocabulary = Vocabulary(4, 1, rows, 8, 10)
    prior = Transformer(replace(PRIOR, layers=1), vocabulary, (3,)).eval()
    step, given, shapes = export._step(prior)
    with torch.no_grad():
        program = torch.export.export(step, (), given, dynamic_shapes=shapes).module()
        tokens, labels = torch.full((1, 40), vocabulary.end), torch.tensor([[1]])
        expected = prior(tokens, labels)
        for number in (0, 1, 2, 7, 8, 9, 39):
            made = program(tokens=tokens[:, :number], labels=labels)
            torch.testing.assert_close(made, expected[:, number], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_autoencoder_is_a_program(kind: str, tmp_path: Path) -> None:
    model = untrained(**KINDS[kind])
    write_programs(model, tmp_path / "out", "pt2")
    columns = [model.autoencoder.columns] if model.autoencoder.dense else [1, 7]
    for clips, length in zip((1, 4), columns, strict=False):
        check(model, tmp_path / "out", clips, length)
    assert not (tmp_path / "out" / "prior.pt2").exists()


def check_prior(model: Model, folder: Path) -> None:
    """The logits of every place of a whole sequence, the first included."""
    prior = model.prior
    assert prior is not None
    places = prior.allowed[prior.vocabulary.slot(torch.arange(9))]
    tokens = places.float().multinomial(1, generator=torch.Generator().manual_seed(0)).T
    labels = torch.tensor([[1, 2]])
    with torch.no_grad():
        expected = prior(tokens, labels)
    for place in range(9):
        (logits,) = called(folder, "prior", tokens=tokens[:, :place], labels=labels)
        torch.testing.assert_close(logits, expected[:, place], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_prior_as_onnx_tells_the_next_token(model: Model, onnx_folder: Path) -> None:
    check_prior(model, onnx_folder)


@pytest.mark.slow
def test_of_a_pixelcnn_the_networks_alone_are_programs(tmp_path: Path) -> None:
    model = untrained()
    config = PriorConfig(kind="pixelcnn", dim=16, layers=2, heads=2)
    model.prior = model.new_prior(config).eval()
    paths = write_programs(model, tmp_path / "out", "pt2")
    assert [path.name for path in paths] == ["encoder.pt2", "decoder.pt2"]


def test_a_pt2_as_written_holds_no_pickle(pt2_folder: Path) -> None:
    for path in pt2_folder.glob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                assert not data.startswith(b"PK"), f"{name}: torch.save's"
                assert data[:1] != b"\x80" or "weight" in name, name


def test_the_example_imports_numpy_and_onnxruntime_alone() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


@pytest.mark.slow
def test_the_example_makes_a_sound_from_programs(onnx_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE, onnx_folder, tmp_path / "one.wav", "digit=1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with wave.open(str(tmp_path / "one.wav")) as file:
        assert file.getframerate() == 8000
        assert file.getnframes() > 0
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.abs(samples).max() > 0


def played(
    model: Model, asked: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """The labels that the example gives the prior, which stands in for `model` as its decoder does, for two sounds."""
    pytest.importorskip("onnxruntime", reason="the example needs the extra [onnx]")
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    example = importlib.import_module("onnx_example")
    (folder / "programs.json").write_text(json.dumps(export.facts(model)))
    (folder / "prior.onnx").touch()
    labels: list[list[int]] = []

    class Program:
        """Takes what the prior or the decoder takes, and gives some of what they give."""

        def __init__(self, path: Path) -> None:
            pass

        def run(self, names: Any, given: dict[str, Any]) -> Any:
            assert all(array.dtype == np.int64 for array in given.values())
            if "codes" in given:
                return [np.ones((1, 17, 4 * given["codes"].shape[3]), np.float32)]
            labels[:] = given["labels"].tolist()
            logits = np.full((2, model.vocabulary.size), -np.inf, np.float32)
            first = given["tokens"].shape[1] == 0
            logits[:, model.vocabulary.end + 1 if first else 0] = 0  # a level, then codes
            return [logits]

    patched = types.SimpleNamespace(InferenceSession=Program)
    monkeypatch.setattr(example, "onnxruntime", patched)
    sound, _ = example.generate(folder, asked)
    assert len(sound) > 0
    return labels


def test_the_example_gives_programs_whole_numbers_without_labels_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert played(tiny_model(labels={}), {}, tmp_path, monkeypatch) == [[], []]


@pytest.mark.parametrize("pitch", ["50", "38.5", None])
def test_the_example_gives_the_prior_the_index_of_a_number(
    pitch: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    numbers = Numbers(40.0, 60.0, notes=True)
    model = tiny_model(labels={})
    model.labels = {"digit": ["0", "1"], "pitch": numbers}
    model.prior = model.new_prior(PRIOR)
    one_past = model.prior.open_labels(1).tolist()[0]
    asked = {"digit": "1"} | ({} if pitch is None else {"pitch": pitch})
    expected = [1, one_past[1] if pitch is None else numbers.index(pitch)]
    assert played(model, asked, tmp_path, monkeypatch) == [expected, one_past]
    for wrong, says in (
        ({"pitch": "99"}, "pitch=99: give a number from 38 to 62"),
        ({"pitch": "high"}, "pitch=high: give a number from 38 to 62"),
        ({"digit": "7"}, "digit=7: give 0, 1"),
        ({"word": "7"}, "word: no such label; the model has digit, pitch"),
    ):
        with pytest.raises(SystemExit) as end:
            played(model, wrong, tmp_path, monkeypatch)
        assert (end.value.code, capsys.readouterr().err) == (2, f"{says}\n")


@pytest.mark.parametrize("arguments", [[], ["programs"], ["programs", "seven.wav", "7"]])
def test_the_example_says_how_it_is_called(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="the example needs the extra [onnx]")
    monkeypatch.setattr(sys, "argv", ["example", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: ")
    assert said.endswith(" PROGRAMS OUT.wav [LABEL=VALUE ...]\n")
    assert said.count("\n") == 1


def test_without_the_program_of_a_prior_the_example_and_the_verb_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "model", untrained(), "autoencoder", {})
    traced = dict.fromkeys(["encoder", "decoder"], (0, []))
    monkeypatch.setattr(export, "_traced", lambda _: traced)
    monkeypatch.setattr(torch.export, "save", lambda _, file: file.write(b"program"))
    out = tmp_path / "out"
    assert main.main(["export", str(tmp_path / "model"), str(out), "--format", "pt2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "no program of a prior: the model has no autoregressive transformer"
    pytest.importorskip("onnxruntime", reason="the example needs the extra [onnx]")
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("onnx_example").generate(out, {})
    assert "has no prior.onnx" in capsys.readouterr().err


def test_an_export_over_another_leaves_nothing_of_it_and_spares_what_is_not_its_own(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_nothing(program: Any, file: Any) -> None:
        file.write(b"program")

    monkeypatch.setattr(torch.export, "save", save_nothing)
    for names in (["encoder", "decoder", "prior"], ["encoder", "decoder"]):
        monkeypatch.setattr(export, "_traced", lambda _, names=names: dict.fromkeys(names, (0, [])))
        write_programs(model, tmp_path / "out", "pt2", overwrite=True)
        (tmp_path / "out" / "mine.txt").touch()
    left = {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert left == {"encoder.pt2", "decoder.pt2", "programs.json", "mine.txt"}


@pytest.mark.slow
def test_where_the_prior_would_end_at_once_the_example_draws_a_column(
    model: Model, onnx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    example = importlib.import_module("onnx_example")
    end = model.vocabulary.end

    class Ending:
        """The program, of whose logits END's is far above all others."""

        def __init__(self, path: Path) -> None:
            self.session = onnxruntime.InferenceSession(path)

        def run(self, names: Any, given: dict[str, Any]) -> Any:
            made = self.session.run(names, given)
            if "tokens" in given:
                made[0][:, end] = np.where(made[0][:, end] > -np.inf, 1e4, -np.inf)
            return made

    onnxruntime = importlib.import_module("onnxruntime")
    with monkeypatch.context() as patch:
        patch.setattr(example, "onnxruntime", types.SimpleNamespace(InferenceSession=Ending))
        sound, _ = example.generate(onnx_folder, {})
    config = model.spectrogram.config
    assert len(sound) == (model.autoencoder.stride[1] - 1) * config.hop_length


def test_the_example_brings_codes_to_the_sound_that_they_stand_for(
    voice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the example needs the extra [onnx]")
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    example = importlib.import_module("onnx_example")
    sound: Waveform = voice(0.5)
    magnitude = stft(torch.from_numpy(sound)[None], 256, 64).abs()[0]
    made = example.griffin_lim(magnitude.numpy(), 256, 64)
    assert len(made) == len(sound) // 64 * 64
    again = stft(torch.from_numpy(made.astype(np.float32))[None], 256, 64).abs()[0]
    error = (again - magnitude)[:, 1:-1].norm() / magnitude.norm()
    assert 20 * error.log10() < -20


def test_programs_json_tells_what_goes_in(model: Model, pt2_folder: Path) -> None:
    told = json.loads((pt2_folder / "programs.json").read_text())
    assert told == json.loads(json.dumps(export.facts(model)))
    assert told["vocabulary"]["end"] == model.vocabulary.end
    assert told["labels"] == model.labels


def test_where_the_packages_are_missing_one_line_names_them(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AudiovqError, match=r"\.\[onnx\].*pt2"):
        write_programs(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_vivid_decoder_is_a_program_too(tmp_path: Path) -> None:
    model = untrained()
    model.vivid = model.new_vivid().eval()
    shake(model.vivid, 1)
    folder = tmp_path / "out"
    names = [path.name for path in write_programs(model, folder, "pt2")]
    assert names == ["encoder.pt2", "decoder.pt2", "vivid.pt2"]
    codes = torch.randint(16, (2, 1, 2, 5))
    columns = torch.full((2,), 5)
    found = {name: called(folder, name, codes=codes)[0] for name in ("decoder", "vivid")}
    with torch.no_grad():
        for name, decoder in (("decoder", None), ("vivid", model.vivid)):
            expected = model.autoencoder.decode(codes, columns, decoder)
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found["decoder"], found["vivid"])
