"""Flags that several verbs share, and the parsing of their values."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import UseAppendAction, arg

from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars, OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.runtime.progress import in_one_line, progress

if TYPE_CHECKING:
    from audiovq.models.model import Model

LOADING_STEPS = 3
"""PyTorch, the package's own networks, the model's weights."""

Count = Annotated[int, arg(aliases=("-n",), help="Number of sounds.")]
LabelPairs = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(metavar="NAME=VALUE", help="A label, such as digit=7; repeat for several labels."),
]
Sampling = Annotated[SamplingConfig, arg(name="")]
PhaseInversion = Annotated[Inversion, arg(name="")]
Device = Annotated[str, arg(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, arg(help="Random seed.")]
SeedOrRandom = Annotated[
    int | Literal["random"],
    arg(
        help="Random seed: the same one makes the same sounds again, with the same number of them and the same other"
        " flags; random: another one each time, which is printed and recorded."
    ),
]
Output = Annotated[OutputConfig, arg(name="")]
Threads = Annotated[
    int | None,
    arg(
        help="CPU threads per operation; fix it for bit-identical results in every run. By default the"
        " number adapts to the machine's load."
    ),
]
Overwrite = Annotated[bool, arg(help="Overwrite existing output.")]
Verbose = Annotated[
    bool, arg(help="Print the figures of training, as training/metrics.jsonl has them.")
]
Json = Annotated[bool, arg(name="json", help="Print the results as JSON only.")]
Recordings = Annotated[
    Path | None,
    arg(
        help="Folder of the original recordings, for comparison; by default where they were, relative"
        " to the dataset, when it was made."
    ),
]
Preset = Literal[
    "tiny",
    "small",
    "base",
    "rate-1k",
    "rate-2k",
    "rate-4k",
    "lesson-ae",
    "lesson-dae",
    "lesson-vae",
    "lesson-cvae",
    "lesson-vqvae",
    "lesson-vqvae-residual",
    "lesson-pixelcnn",
]
Plot = Literal["reconstructions", "latent-scatter", "latent-grid", "interpolation", "codebook"]


@dataclass(frozen=True)
class SoundOptions:
    """Flags of all verbs that make sounds."""

    label: LabelPairs = ()
    sampling: Sampling = SamplingConfig()
    inversion: PhaseInversion = Inversion()
    seed: SeedOrRandom = 0
    output: Output = OutputConfig()
    device: Device = "auto"
    threads: Threads = None
    overwrite: Overwrite = False

    @property
    def labels(self) -> dict[str, str]:
        """The label pairs as values by name. Raises AudiovqError where one is invalid."""
        return parse_labels(self.label)

    def load(self, model: Path) -> Model:
        """The model on the device, see `load_model`."""
        return load_model(model, self.device, self.threads)


Options = Annotated[SoundOptions, arg(name="")]


def load_model(model: Path, device: str = "auto", threads: int | None = None) -> Model:
    """Load a model onto a device, and fix the number of threads (None: it adapts).

    Raises AudiovqError where the model, the device or the number is invalid.
    """
    from audiovq.models.checkpoint import load
    from audiovq.runtime.device import pick_device
    from audiovq.runtime.threads import fix_threads

    fix_threads(threads)
    return load(model, pick_device(device))


def drawn_seed(seed: int | Literal["random"], more: bool = False) -> int:
    """The seed; for `random` a new one, which is printed. With `more`, sounds depend on how many there are already."""
    if seed != "random":
        return seed
    drawn = secrets.randbelow(1 << 31)
    again = " --more, after as many earlier sounds," if more else " in the same command"
    say(f"seed {drawn}: --seed {drawn}{again} makes the same sounds again")
    return drawn


def parse_bars(
    tempo: float | None, bars: float | None, beats_per_bar: int, labels: Mapping[str, str]
) -> Bars | None:
    """The length in bars that flags ask for; None without --bars. The tempo may be a label's value.

    Raises AudiovqError where they do not fit together.
    """
    if bars is None:
        if tempo is not None:
            raise AudiovqError(f"--bpm {tempo:g}: give the length, too, such as --bars 2")
        if beats_per_bar != Bars.beats_per_bar:
            raise AudiovqError(
                f"--beats-per-bar {beats_per_bar}: give the length, too, such as --bars 2"
            )
        return None
    if tempo is None:
        from audiovq.audio.notes import tempo_of

        tempo = tempo_of(labels)
    if tempo is None:
        raise AudiovqError(f"--bars {bars:g}: give the tempo, too, such as --bpm 120")
    return Bars(tempo, bars, beats_per_bar)


def parse_span(flag: str, text: str | None) -> tuple[float, float] | None:
    """`0.2:0.5` as (0.2, 0.5). Raises AudiovqError where it is not FROM:TO."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError as error:
        raise AudiovqError(f"--{flag} {text}: give FROM:TO, such as 0.2:0.5") from error
    return low, high


def parse_labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs as values by name. Raises AudiovqError for other pairs, and names given twice."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise AudiovqError(f"--label {pair}: give NAME=VALUE, such as digit=7")
        if name in labels:
            raise AudiovqError(f"--label {pair}: {name} is given already; give each label once")
        labels[name] = value
    return labels


def loading(model: Path) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    """Progress of loading a model in LOADING_STEPS, which takes seconds: it starts before anything heavy is imported."""
    return progress(in_one_line(f"load {model}"), LOADING_STEPS, "steps")


def say(line: str) -> None:
    """Print a message to standard error; standard output is for results."""
    print(in_one_line(line), file=sys.stderr)
