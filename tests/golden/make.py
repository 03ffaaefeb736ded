"""Makes the golden files: a dataset of version 2, archives of version 1, a model of version 5; in stereo a dataset of
version 3 and a model of version 6; with numbers a dataset of version 4 and a model of version 7. None may ever change: see docs/formats.md.

    PYTHONPATH=.:tests python tests/golden/make.py NEW-FOLDER

A later version gets files of its own; these stay, for as long as the program reads theirs.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from conftest import make_voice
from tiny_models import AUTOENCODER, COUNTS, LABELS, PRIOR, SPECTROGRAM, changed, plain, shake

from audiovq.audio import writing
from audiovq.codec.archive import pack
from audiovq.codec.probabilities import CODERS
from audiovq.codec.windows import Encoded
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.models.checkpoint import load, save
from audiovq.models.entropy.context_model import ContextModel
from audiovq.models.entropy.context_tables import ContextTables, to_integers
from audiovq.models.model import Model, new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.checksums import read_header, write_header


def make_model(folder: Path) -> Model:
    """An untrained model with every part: 2 rows, 2 quantizers of 16 codes, random weights."""
    torch.manual_seed(0)
    config = changed(AUTOENCODER, num_quantizers=2)
    model = new_model(SPECTROGRAM, config, LABELS, COUNTS, clip_frames=30)
    model.prior = model.new_prior(dataclasses.replace(PRIOR, dim=8, layers=1))
    for module in (model.autoencoder, model.prior):
        shake(module)
        module.eval()
    books = torch.stack([book.embedding for book in model.autoencoder.quantizer.codebooks()])
    network = ContextModel(books, model.autoencoder.rows, hidden=12)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    levels = 1 + torch.arange(SPECTROGRAM.num_levels).flip(0) ** 2
    columns = torch.tensor([1, 2, 9, 30, 12, 5, 3, 2, 1])
    model.context = ContextTables(to_integers(network, levels, columns, 1.5, 0.1))
    for stage in ("autoencoder", "context", "prior"):
        save(folder, model, stage, {"step": 1})
    return load(folder)


def make_sounds(columns: dict[str, int]) -> dict[str, Encoded]:
    """Random codes, half of them small, so that not all are alike."""
    generator = torch.Generator().manual_seed(1)
    sounds = {}
    for number, (name, count) in enumerate(columns.items()):
        codes = torch.randint(16, (2, 2, count), generator=generator)
        codes[:, :, ::2] %= 5
        samples = (count - 1) * 32 + 11 * number % 32
        sounds[name] = Encoded(codes, level=5 * number % 64, num_samples=samples)
    return sounds


def write_expected(path: Path, sounds: dict[str, Encoded]) -> None:
    """What an archive must give, as JSON."""
    path.write_text(json.dumps(plain(sounds)) + "\n")


def make_dataset(folder: Path) -> None:
    """Six clips of two speakers, all splits, and one file that is left out."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "recordings"
        for number in range(6):
            name = ("anna", "zoë")[number % 2]
            path = source / name / f"{number}.wav"
            writing.write(path, make_voice(0.05 + 0.005 * number, 150 + 20 * number), 8000)
        (source / "broken.wav").write_bytes(b"no recording")
        config = PreprocessConfig(
            n_fft=32, hop_length=8, n_mels=0, test="5.wav", validation_share=0.3
        )
        preprocess(source, folder, config)
    header = read_header(folder / "dataset.json", "dataset", 2, "")
    write_header(folder / "dataset.json", header | {"source": "../recordings"})
    dataset = Dataset(folder)
    sums = {
        split.name: [
            float(split.spectrograms(torch.tensor([place])).double().sum())
            for place in range(len(split))
        ]
        for split in (dataset.train, dataset.validation, dataset.test)
    }
    (folder.parent / "dataset.expected.json").write_text(json.dumps(sums) + "\n")


def make_stereo_model(folder: Path) -> None:
    """An untrained autoencoder of stereo, random weights."""
    torch.manual_seed(0)
    config = dataclasses.replace(SPECTROGRAM, channels=2)
    model = new_model(config, AUTOENCODER, LABELS, COUNTS, clip_frames=30)
    shake(model.autoencoder)
    save(folder, model, "autoencoder", {"step": 1})


def make_stereo_dataset(folder: Path) -> None:
    """Four clips: hard left, opposite, two voices, and a mono one in the middle; and what is in the cells."""
    left, right = make_voice(0.05, 150), make_voice(0.05, 210)
    sounds = {"left": (left, 0 * left), "opposite": (left, -left), "voices": (left, right)}
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "recordings"
        for name, sides in sounds.items():
            writing.write(source / f"{name}.wav", np.stack(sides), 8000)
        writing.write(source / "mono.wav", left, 8000)
        config = PreprocessConfig(n_fft=64, hop_length=16, n_mels=16, test="mono", trim=False)
        preprocess(source, folder, config)
    header = read_header(folder / "dataset.json", "dataset", 3, "")
    write_header(folder / "dataset.json", header | {"source": "../recordings"})
    dataset = Dataset(folder)
    sums = {
        split.name: [
            split.spectrograms(torch.tensor([place]))[0].double().sum(dim=(1, 2)).tolist()
            for place in range(len(split))
        ]
        for split in dataset.splits
    }
    (folder.parent / "stereo-dataset.expected.json").write_text(json.dumps(sums) + "\n")


def make_numbers_model(folder: Path) -> None:
    """An untrained autoencoder and prior, random weights, with a label that is a number."""
    torch.manual_seed(0)
    labels = {"kind": ["a", "b"], "note": Numbers(40.0, 64.0, notes=True)}
    counts = [((0, labels["note"].index("A2")), 2), ((1, labels["note"].index("60.5")), 1)]
    model = new_model(SPECTROGRAM, AUTOENCODER, labels, counts, clip_frames=30)
    model.prior = model.new_prior(dataclasses.replace(PRIOR, dim=8, layers=1))
    for module in (model.autoencoder, model.prior):
        shake(module)
    for stage in ("autoencoder", "prior"):
        save(folder, model, stage, {"step": 1})
    given = (
        torch.zeros(3, 1, dtype=torch.long),
        torch.tensor([[0, 0], [1, 900], [2, len(labels["note"])]]),
    )
    with torch.inference_mode():
        logits = model.prior.eval()(*given)[:, 0].double().softmax(dim=1)
    (folder.parent / "numbers-model.expected.json").write_text(json.dumps(logits.tolist()) + "\n")


def make_numbers_dataset(folder: Path) -> None:
    """Three clips with a note each, and a transposed copy of each for training."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "recordings"
        for number, note in enumerate(("A2", "46", "47.5", "48", "49")):
            writing.write(source / f"a_{note}.wav", make_voice(0.05, 110 + 6 * number), 8000)
        config = PreprocessConfig(
            n_fft=32, hop_length=8, n_mels=0, labels=r"(?P<kind>a)_(?P<note>\w+)"
        )
        preprocess(source, folder, config, numbers=["note"], transpose=1)
    header = read_header(folder / "dataset.json", "dataset", 4, "")
    write_header(folder / "dataset.json", header | {"source": "../recordings"})


def main(folder: Path) -> None:
    """Write all of them."""
    make_numbers_model(folder / "numbers-model")
    make_numbers_dataset(folder / "numbers-dataset")
    make_stereo_model(folder / "stereo-model")
    make_stereo_dataset(folder / "stereo-dataset")
    model = make_model(folder / "model")
    few = make_sounds({"a/é.wav": 3, "b.wav": 1, "longer.wav": 11, "日本.wav": 8})
    many = make_sounds({f"{n}.wav": 1 + n % 3 for n in range(280)} | {"segments.wav": 141})
    for name, sounds, coders in (("few", few, CODERS), ("many", many, ("context",))):
        write_expected(folder / f"{name}.expected.json", sounds)
        for coder in coders:
            (folder / f"{name}.{coder}.avq").write_bytes(pack(model, sounds, coder))
    make_dataset(folder / "dataset")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
