"""Make the models from which trainings at 44.1 kHz start: `sounds`, of hits, notes and textures, and `notes`, of tones.

    python -m scripts.make_seed sounds ../seeds/sounds --sounds ../shared/sounds --max-minutes 60
    python -m scripts.make_seed notes ../seeds/notes --max-minutes 60

`sounds` is trained on recordings under CC0 and CC BY, named in its card, and on sounds that `audiovq/library/synthesis.py`
makes; `notes` on notes of a soundfont under the MIT licence (`soundfont.py`), with windows and bands of tones. Sources that
are missing are left out, which the card then shows. Weights are stored as float16, and the training's state is left out.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

from audiovq.config.presets import PRESETS
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.library.synthesis import KINDS, RATE, write_takes
from audiovq.models.checkpoint import KNOWN, export, load
from audiovq.models.folder import require_model
from audiovq.pipeline import preprocess, train
from audiovq.runtime.files import require_new, write_text
from scripts.soundfont import PROGRAMS, render

_STEREO = PreprocessConfig(sample_rate=RATE, channels="stereo")
SPECTROGRAMS = {
    "sounds": dataclasses.replace(
        _STEREO, n_fft=1_024, hop_length=256, n_mels=128, labels=r"^(?P<kind>[a-z]+)/"
    ),
    "notes": dataclasses.replace(
        _STEREO,
        n_fft=2_048,
        hop_length=512,
        n_mels=256,
        labels=r"^(?P<kind>[a-z]+)/[a-z]+_(?P<note>\d+)_",
    ),
}
"""Settings of `preprocess` by seed: windows of hits, with which tones lose less than hits with those of tones; and those that
`preprocess` chooses for tones."""
BODY = {
    "clap": r"(finger|hand)clap",
    "stomp": r"(half)?stomp|heel",
    "snap": r"(pinky)?snap",
    "thump": r"belly|cheek|chest|head|shoulder",
}
"""Patterns of the files of `body`, by kind."""
FOLEY = {"sea-waves": "sea", "baby-cry": "baby", "clock-tick": "clock", "dog-bark": "dog"} | {
    "fire-crackling": "fire",
    "person-sneeze": "sneeze",
}
"""Kinds of the folders of `foley` that are not named by one word."""
SAMPLES = {
    "kick": r"bd_|drum_heavy_kick|elec_(hollow|soft)_kick",
    "snare": r"sn_|drum_snare|elec_.*snare",
    "hat": r"drum_cymbal_(closed|pedal)",
    "cymbal": r"drum_(cymbal|splash)|elec_cymbal",
    "tom": r"drum_tom|elec_fuzz_tom",
    "hand": r"tabla_",
    "bell": r"perc_bell|elec_(bell|chime|ping|triangle)|drum_cowbell",
    "bass": r"bass_",
    "guitar": r"guit_",
    "texture": r"ambi_|vinyl_|misc_",
    "percussion": r"perc_|elec_|glitch_perc|drum_bass",
}
"""Patterns of the files of `sonic-pi-samples`, by kind; the first that matches counts. Loops match none."""
KITS = {"Audiophob": "CC0", "rumpf_kit_z01_h2": "CC BY 3.0, Emanuel Rumpf"}
"""Kits of `hydrogen-drumkits` whose licences allow a model that ships; the others are under GPL and CC BY-SA."""
HELD_OUT = ("dog-bark",)
"""Folders of `foley` that the seed does not learn from, so that figures can be measured on them. The other kits of
`hydrogen-drumkits` and all notes of `notes.py` are not among its sources either."""
LEFT_OUT = "prior", KNOWN
"""Parts that do not ship: the autoregressive prior, from which the masked one started, and the codes of the training
clips."""
SETTINGS = dataclasses.replace(
    PRESETS["small"],
    prior=PriorConfig(dim=128, cell=96),
    masked=MaskedConfig(dim=128, cell=96),
    vivid_share=0.13,
    masked_share=0.15,
)
"""Preset small with narrower priors, so that the model is small enough to ship."""

NOTES = 18
"""Notes of each program that `notes` learns from."""
WHAT = {"sounds": "Hits, notes and textures", "notes": "Notes of instruments"}
LABEL = {"sounds": "--label kind=kick", "notes": "--label kind=flute --label note=69"}
HINT = {
    "sounds": "",
    "notes": """
It has learnt three velocities, so that its notes differ in loudness: `--loudness -20` evens them. An instrument for samplers:
`audiovq pack notes vibraphone --by note --label kind=vibraphone --each 1 --loudness -20`.
""",
}
LIMITS = {
    "sounds": "Speech, melodies, music: it has learnt single sounds",
    "notes": "Speech, melodies, music, drums: it has learnt single notes",
}
"""What the cards say, by seed."""
CARD = """# {name}, a model to start from

{what} at {rate} Hz, by kind. `audiovq train DATASET MODEL --from {name}` starts from it: a
folder of fifty sounds is then enough. Made by `python -m scripts.make_seed`.

```
audiovq preprocess my-sounds dataset --like {name}
audiovq train dataset model --from {name} --max-minutes 5
audiovq generate {name} OUT {label}
```

{labels}
{hint}
## Sources

| source | files | licence |
|---|---|---|
{sources}

## What it cannot do

- {limits} of up to {longest:.1f} s.
- Sound as good as its sources: it is small, and was trained for minutes.

Its new sounds are not compared with its training clips, whose codes are left out for size. Licence of the model: MIT;
the authors above are named as their licences ask.
"""


@dataclass(frozen=True)
class Source:
    """Recordings of one origin."""

    name: str
    licence: str
    files: dict[Path, str]
    """Kind of each recording."""


def main(
    name: Positional[Literal["sounds", "notes"]],
    out: Positional[Path],
    sounds: Path = Path("../shared/sounds"),
    kits: Path = Path("/usr/share/hydrogen/data/drumkits"),
    samples: Path = Path("/usr/share/sonic-pi/samples"),
    takes: int = 120,
    max_minutes: float = 40.0,
    work: Path | None = None,
) -> None:
    """Gather, synthesize, preprocess, train, store.

    Args:
        name: Which of them.
        out: Folder of the model.
        sounds: Folder with `body`, `foley` and `drums.csv`.
        kits: Folder of Debian's hydrogen-drumkits.
        samples: Folder of the samples of Debian's sonic-pi-samples.
        takes: Synthesized takes of each kind.
        max_minutes: Limit of the training.
        work: Folder for recordings, dataset and training, which is resumed; None: a temporary folder.
    """
    require_new(out, overwrite=False)
    work = work or Path(tempfile.mkdtemp())
    recordings = work / "recordings"
    if name == "notes":
        sources = [rendered(recordings)]
    else:
        sources = [source for source in _sources(sounds, kits, samples) if source.files]
        for source in sources:
            for path, kind in source.files.items():
                link = recordings / kind / f"{source.name}-{path.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    os.symlink(path.resolve(), link)
        sources.append(synthesized(recordings, takes))
    preprocess(recordings, work / "dataset", SPECTROGRAMS[name])
    config = dataclasses.replace(SETTINGS, max_minutes=max_minutes)
    train(work / "dataset", work / "model", config)
    export(work / "model", out, leave_out=LEFT_OUT)
    write_text(out / "README.md", card(name, out, sources))
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"wrote {out}: {size / 1e6:.1f} MB")


def synthesized(recordings: Path, takes: int) -> Source:
    """Write `takes` sounds of each kind of KINDS below `recordings`."""
    files = write_takes(recordings, list(KINDS), range(takes))
    return Source("synthesis", "CC0, made by this project (`audiovq/library/synthesis.py`)", files)


def rendered(recordings: Path) -> Source:
    """Write NOTES notes of each program of PROGRAMS below `recordings`, unless they are there."""
    files: dict[Path, str] = {}
    for kind in PROGRAMS:
        paths = sorted((recordings / kind).glob("*.wav"))
        files |= dict.fromkeys(paths or render(recordings / kind, kind, NOTES), kind)
    return Source("FluidR3 GM", "MIT, Frank Wen and contributors", files)


def card(name: str, out: Path, sources: list[Source]) -> str:
    """The model's card (Mitchell et al. 2019), Markdown."""
    model = load(require_model(out))
    rows = (f"| {one.name} | {len(one.files)} | {one.licence} |" for one in sources)
    return CARD.format(
        name=name,
        what=WHAT[name],
        rate=f"{model.sample_rate:,}",
        label=LABEL[name],
        labels="\n".join(f"- `{label}`: {', '.join(all_)}" for label, all_ in model.labels.items()),
        hint=HINT[name],
        limits=LIMITS[name],
        sources="\n".join(rows),
        longest=model.clip_frames * model.spectrogram.config.hop_length / model.sample_rate,
    )


def _sources(sounds: Path, kits: Path, samples: Path) -> Iterator[Source]:
    """The recordings, each with its licence; those of a folder that is missing are none."""
    body = _by_pattern(sounds / "body", BODY)
    yield Source("body", "CC0, Versilian Studios and sfzinstruments", body)
    foley = [p for p in sorted((sounds / "foley").glob("*/*")) if p.parent.name not in HELD_OUT]
    author = "CC BY 3.0, Karol J. Piczak (ESC-10) and the recordists of freesound.org"
    kinds = {path: FOLEY.get(path.parent.name, path.parent.name) for path in foley}
    yield Source("foley", author, kinds)
    for kit, licence in KITS.items():
        yield Source(kit, licence, _kit(kit, sounds / "drums.csv", kits))
    free = _cc0(Path("/usr/share/doc/sonic-pi-samples/copyright"))
    found = _by_pattern(samples, SAMPLES)
    chosen = {path: kind for path, kind in found.items() if path.name in free}
    yield Source("sonic-pi", "CC0, authors in the package's copyright file", chosen)


def _by_pattern(folder: Path, patterns: dict[str, str]) -> dict[Path, str]:
    """Kinds of the recordings in a folder whose names match a pattern, the first that does."""
    kinds = {}
    for path in sorted(folder.glob("*.flac")):
        matching = (kind for kind, pattern in patterns.items() if re.match(pattern, path.name))
        if kind := next(matching, None):
            kinds[path] = kind
    return kinds


def _kit(kit: str, table: Path, kits: Path) -> dict[Path, str]:
    """Kinds of the recordings of a kit, by the table `drums.csv`."""
    if not table.exists() or not (kits / kit).is_dir():
        return {}
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kit"] == kit]
    return {kits / row["path"]: row["kind"].replace("other", "percussion") for row in rows}


def _cc0(copyright_file: Path) -> set[str]:
    """Names of the samples that a Debian copyright file lists as CC0."""
    if not copyright_file.exists():
        return set()
    paragraphs = copyright_file.read_text(encoding="utf-8").split("\n\n")
    free = [text for text in paragraphs if re.search(r"^License: CC0$", text, re.MULTILINE)]
    return {name for text in free for name in re.findall(r"etc/samples/(\S+)", text)}


if __name__ == "__main__":
    tyro.cli(main)
