"""Every preset from the command line to its page, and every verb on a model of every bottleneck."""

import json
import re
from pathlib import Path

import pytest
from short_judges import shorten_judges

from audiovq.cli.main import main
from audiovq.config.presets import PRESETS

SHORT = [
    word
    for stage in ("autoencoder", "prior", "masked")
    for word in (f"--{stage}-training.steps", "2", f"--{stage}-training.validate-every", "1")
]
"""Flags that cut every stage of a training short."""
SMALL = ["--prior.dim", "32", "--prior.layers", "2", "--prior.heads", "2"]
KINDS: dict[str, list[str]] = {
    "ema": [],
    "gradient": ["--autoencoder.bottleneck.update", "gradient"],
    "cosine": ["--autoencoder.bottleneck.cosine"],
    "residual": ["--autoencoder.bottleneck.num-quantizers", "2"],
    "fsq": [
        "--autoencoder.bottleneck.kind",
        "fsq",
        "--autoencoder.bottleneck.levels",
        "4",
        "4",
        "3",
    ],
    "none": ["--autoencoder.bottleneck.kind", "none"],
    "gaussian": ["--autoencoder.bottleneck.kind", "gaussian"],
    "plane": ["--autoencoder.bottleneck.kind", "gaussian", "--autoencoder.bottleneck.dense", "2"],
}
"""Flags of each bottleneck and update."""
CODES = {"ema", "gradient", "cosine", "residual", "fsq"}
QUICK = {"gradient", "plane"}


def ran(*words: object) -> int:
    """The exit code of one verb; an error that is not the user's is raised."""
    return main([str(word) for word in words])


def some_slow(names: list[str], quick: set[str]) -> list[object]:
    """`names` as parameters, marked slow but for those in `quick`."""
    return [
        pytest.param(name, marks=[] if name in quick else pytest.mark.slow, id=name)
        for name in names
    ]


@pytest.mark.parametrize("preset", some_slow(list(PRESETS), {"lesson-vae"}))
def test_every_preset_trains_from_the_command_line_to_its_page(
    preset: str, dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert ran("train", dataset_folder, model, "--preset", preset, *SHORT, "--device", "cpu") == 0
    assert f"wrote {model}" in capsys.readouterr().out
    page = (model / "report.html").read_text("utf-8")
    assert f"--preset {preset}" in page


@pytest.mark.parametrize("kind", some_slow(list(KINDS), QUICK))
def test_every_verb_on_a_model_of_every_bottleneck_ends_or_refuses_in_a_line(
    kind: str,
    dataset_folder: Path,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shorten_judges(monkeypatch)
    model, out = tmp_path / "model", tmp_path / "out"
    flags = [
        "--preset",
        "tiny",
        *SHORT,
        *SMALL,
        "--autoencoder.network.channels",
        "16",
        *KINDS[kind],
    ]
    assert ran("train", dataset_folder, model, *flags, "--device", "cpu") == 0
    assert ran("summary", model) == 0
    capsys.readouterr()
    assert ran("evaluate", model, dataset_folder, "-n", "4", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert ("generation" in figures) == (kind != "none")
    assert ran("report", model) == 0
    sound = sorted(recordings.rglob("*.wav"))[0]
    archive = tmp_path / "sounds.avq"
    verbs: dict[str, tuple[list[object], bool]] = {
        "generate": (["-n", 2], kind != "none"),
        "vary": ([sound, "-n", 2], kind in CODES),
        "reconstruct": ([sound], kind in CODES),
        "encode": ([sound], kind in CODES),
        "morph": ([sound, sound, "--steps", 2], kind in CODES),
    }
    for plotted in (
        "reconstructions",
        "latent-scatter",
        "latent-grid",
        "interpolation",
        "codebook",
    ):
        fits = {"codebook": kind in CODES, "latent-grid": kind == "plane"}.get(plotted, True)
        number = [] if plotted in ("latent-scatter", "codebook") else ["-n", 2]
        verbs[f"plot {plotted}"] = (["--kind", plotted, *number], fits)
    for name, (words, fits) in verbs.items():
        verb = name.split()[0]
        target = {"encode": archive, "plot": tmp_path / f"{name.split()[-1]}.png"}.get(
            verb, out / name.replace(" ", "")
        )
        places: list[object] = [model, target, *words]
        if verb in ("encode", "reconstruct", "morph", "vary"):
            given = 2 if verb == "morph" else 1
            places = [model, *words[:given], target, *words[given:]]
        if verb == "reconstruct":
            places[2] = out / "back.wav"
        code = ran(verb, *places)
        said = capsys.readouterr().err
        assert code == (0 if fits else 2), (name, said)
        if not fits:
            assert re.search(r"^audiovq: .+\n\Z", said, re.MULTILINE), (name, said)
    if kind in CODES:
        assert ran("decode", model, archive, tmp_path / "back") == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_bottleneck_is_exported_or_refused(
    kind: str, dataset_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    flags = [
        "--preset",
        "tiny",
        *SHORT,
        *SMALL,
        "--autoencoder.network.channels",
        "16",
        *KINDS[kind],
    ]
    assert ran("train", dataset_folder, model, *flags, "--device", "cpu") == 0
    assert ran("export", model, tmp_path / "programs", "--format", "pt2") == 0
