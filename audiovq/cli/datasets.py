"""Verbs that read recordings: inspect, preprocess."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from audiovq.cli.arguments import Json, Overwrite
from audiovq.config.checks import require
from audiovq.config.errors import AudiovqError
from audiovq.config.flags import as_argument, flags
from audiovq.config.serialize import from_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig, is_table
from audiovq.models.folder import SEEDS, like_seed
from audiovq.runtime.files import json_text, read_object, require_apart
from audiovq.runtime.progress import in_one_line

OF_IMAGES = ("labels", "test", "test_share", "validation_share")
"""Settings of preprocessing that images have, too."""


def inspect(
    audio_dir: Positional[Path],
    out: Annotated[
        Path | None,
        arg(help="Folder for WAVs of a few clips and of their inverted spectrograms."),
    ] = None,
    config: Annotated[PreprocessConfig, arg(name="")] = PreprocessConfig(),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Describe a folder of recordings: contents, unusable files, suitable settings.

    Args:
        audio_dir: Folder of WAV, FLAC, OGG, MP3, AIFF and other files, in folders of any depth.
    """
    import dataclasses

    from audiovq.inspection.inspect import inspect
    from audiovq.inspection.table import inspection_table

    if out is not None:
        require_apart(out, audio_dir)
    found = inspect(audio_dir, out, config, overwrite=overwrite)
    print(json_text(dataclasses.asdict(found), 2) if as_json else inspection_table(found))


def preprocess(
    audio_dir: Positional[Path],
    dataset: Positional[Path],
    config: Annotated[PreprocessConfig, arg(name="")] = PreprocessConfig(),
    like: Annotated[
        Path | None,
        arg(
            metavar="MODEL",
            help="Make spectrograms like those of this model, a folder, `digits`, `notes` or `sounds`, for `train --from`.",
        ),
    ] = None,
    images: Annotated[
        bool,
        arg(
            help="Read grayscale images instead of recordings: PNGs of one size, MNIST's files, or"
            " `digits`, the handwritten digits of scikit-learn."
        ),
    ] = False,
    describe: Annotated[
        str | None,
        arg(
            metavar="NAME,...",
            help="Labels to measure on each recording, in addition to those of --labels: pitch, tempo, brightness,"
            " loudness, attack, noisiness; file names that state note, tempo or key (kick_120bpm_Cmin) have"
            " precedence, and key is from them alone.",
        ),
    ] = None,
    numbers: Annotated[
        str | None,
        arg(
            metavar="NAME,...",
            help="Labels of --labels whose values are numbers (notes such as A3 for note, root, midi and pitch): what"
            " lies between the values of training clips can be asked for, too. Labels of --describe are numbers.",
        ),
    ] = None,
    transpose: Annotated[
        int | None,
        arg(
            help="Copies of each training recording to learn from, up to 1.5 semitones higher or lower; by default 2"
            " where a note is a number, else 0."
        ),
    ] = None,
    join: Annotated[
        str | None,
        arg(
            metavar="OLD=NEW,...",
            help="Values of labels to replace, so that kinds named differently become one: BD=kick,SD=snare.",
        ),
    ] = None,
    near_copies: Annotated[
        bool,
        arg(
            help="Keep near copies of a recording (another level, rate or format) in its split, as identical ones"
            " always are; reads the beginning of every recording once more."
        ),
    ] = True,
    cluster: Annotated[
        str | None,
        arg(
            help="Address of a Dask scheduler, such as tcp://head:8786; by default this machine is used."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a dataset of spectrograms from a folder of recordings.

    Args:
        audio_dir: Folder of WAV, FLAC, OGG, MP3, AIFF and other files, in folders of any depth.
        dataset: Folder to write.
    """
    if config.labels and is_table(config.labels):
        require_apart(dataset, Path(config.labels), emptied=True)
    if like is not None:
        require(not images, f"--like {like}: makes spectrograms; leave it out with --images")
        config = _like(config, like, dataset)
    for name, listed in (("--describe", describe), ("--numbers", numbers), ("--join", join)):
        require(listed is None or bool(_names(listed)), f"{name} {listed}: names nothing")
    of_recordings = {
        "--join": join is not None,
        "--describe": describe is not None,
        "--numbers": numbers is not None,
        "--transpose": transpose is not None,
        "--no-near-copies": not near_copies,
        "--cluster": cluster is not None,
    }
    given = [name for name, is_given in of_recordings.items() if is_given]
    common = {name: getattr(config, name) for name in OF_IMAGES}
    given += [words.split()[0] for words in flags(config, replace(PreprocessConfig(), **common))]
    if images and given:
        raise AudiovqError(f"{given[0]}: is for recordings; leave it out with --images")
    from audiovq.audio.finding import is_recording

    if images:
        from audiovq.preprocessing.images import preprocess_images

        summary = preprocess_images(audio_dir, dataset, config, overwrite=overwrite)
    else:
        from audiovq.preprocessing.preprocess import preprocess
        from audiovq.runtime import executors as dask

        measured: dict[str, dict[str, str]] | None = None
        if describe is not None:
            from audiovq.inspection.hearing import measured_labels

            # Torch is loaded for it, and its threads do not survive a fork: no processes then.
            names = _names(describe)
            measured = measured_labels(audio_dir, names, print)
        with dask.cluster(cluster) if cluster else contextlib.nullcontext() as executor:
            summary = preprocess(
                audio_dir,
                dataset,
                config,
                overwrite=overwrite,
                executor=executor,
                processes=not measured,
                measured=measured,
                described=_names(describe),
                numbers=_numbers(measured or {}, numbers),
                transpose=transpose,
                join=_pairs(join),
                say=lambda line: print(in_one_line(line), flush=True),
                near=near_copies,
            )
    print(f"files: {summary.found} found, {summary.used} used, {len(summary.skipped)} skipped")
    recordings_first = sorted(summary.skipped, key=lambda file: not is_recording(file.path))
    for skipped in recordings_first[:10]:
        print(in_one_line(f"  skipped {skipped.path}: {skipped.reason}"))
    if len(summary.skipped) > 10:
        print(f"  and {len(summary.skipped) - 10} more, in {dataset}/skipped.jsonl")
    clips = ", ".join(f"{n} {split}" for split, n in summary.clips.items())
    sound = (
        "" if images else f"; {summary.seconds:.{0 if summary.seconds >= 10 else 1}f} s of sound"
    )
    print(f"{'images' if images else 'clips'}: {clips}{sound}")
    few = sum(summary.clips.values())
    if like is None and not images and (found := like_seed(config, few, _settings_of(dataset))):
        seed, _ = found
        print(
            f"note: {few} clip{'s are' if few != 1 else ' is'} few; --like {seed} makes a dataset for `audiovq train"
            f" --from {seed}`, which starts from a model of {SEEDS[seed]}"
        )
    origin = f" --from {as_argument(like)}" if like is not None else ""
    print(f"wrote {dataset}; next: audiovq train {as_argument(dataset)} MODEL{origin}")


def _settings_of(dataset: Path) -> SpectrogramConfig:
    """Settings of the spectrograms of a dataset."""
    path = dataset / "dataset.json"
    return from_json(SpectrogramConfig, read_object(path, "a dataset")["spectrogram"], str(path))


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def _pairs(listed: str | None) -> dict[str, str]:
    """Pairs OLD=NEW by OLD. Raises AudiovqError where one is none, or one OLD has two NEW."""
    pairs: dict[str, str] = {}
    for name in _names(listed):
        old, sign, new = (part.strip() for part in name.partition("="))
        require(
            bool(old and sign), f"--join {listed}: give OLD=NEW for each value, such as BD=kick"
        )
        require(
            pairs.setdefault(old, new) == new,
            f"--join {listed}: {old} is to be both {pairs[old]} and {new}; give one of them",
        )
    return pairs


def _numbers(measured: Mapping[str, Mapping[str, str]], numbers: str | None) -> set[str]:
    """Names of the labels that are numbers: those measured, but the key, and those of --numbers."""
    return {name for row in measured.values() for name in row if name != "key"} | {*_names(numbers)}


def _like(config: PreprocessConfig, model: Path, dataset: Path) -> PreprocessConfig:
    """The settings with the spectrograms of a model. Raises AudiovqError as `PreprocessConfig.like`."""
    from audiovq.models.folder import spectrogram_of

    require_apart(dataset, model, emptied=True)
    return config.like(spectrogram_of(model), str(model))
