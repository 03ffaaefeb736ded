"""The dataset folder during preprocessing: which recordings and settings it belongs to, and who may write to it."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import (
    SPLITS,
    VERSION,
    as_dict,
    read_dataset_header,
    read_manifest,
    without_paths,
)
from audiovq.preprocessing.catalog import Catalog
from audiovq.preprocessing.labels import NONE, Numbered
from audiovq.runtime.files import (
    clear,
    is_blank,
    read_object,
    remove_partials,
    require_new,
    require_outside_products,
    write_json,
)


def fingerprint_of(
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    files: Catalog,
    numbers: Numbered = NONE,
) -> str:
    """SHA-256 of the settings and of each file's name, labels and checksum: everything a dataset is made from."""
    encode = json.JSONEncoder(sort_keys=True, default=as_dict).encode
    made_with = [VERSION, to_json(without_paths(config)), to_json(settings), clip_frames]
    if numbers.names or numbers.transpose:
        made_with.append([sorted(numbers.names), numbers.transpose])
    digest = hashlib.sha256(encode(made_with).encode())
    for path, content in files.contents.items():  # a row at a time: there may be many
        digest.update(encode([path, files.labels[path], content.sha256]).encode())
    for row in files.skipped:
        digest.update(encode(row).encode())
    for pair in sorted(files.similar.items()):
        digest.update(encode(pair).encode())
    return digest.hexdigest()


def require_same(target: Path, fingerprint: str, files: Catalog) -> None:
    """Raise AudiovqError if the dataset `target` was made from other recordings or with other settings."""
    header = read_dataset_header(target)
    if header.get("fingerprint") == fingerprint:
        return
    clips = itertools.chain.from_iterable(
        read_manifest(target / f"{split}.jsonl") for split in SPLITS
    )
    before = {clip.path: clip.sha256 for clip in clips}
    now = {path: content.sha256 for path, content in files.contents.items()}
    changed = [path for path in before if path in now and now[path] != before[path]]
    what = "holds another dataset"
    if changed:
        what = f"{changed[0]} has changed since this dataset was made"
        if len(changed) > 1:
            what = f"{len(changed)} recordings ({changed[0]}, …) have changed since this dataset was made"
    raise AudiovqError(f"{target}: {what}; choose another folder, or add --overwrite")


def prepare(target: Path, fingerprint: str, overwrite: bool) -> None:
    """Empty `target`, except for shards of the dataset with this fingerprint, so that a run can resume.

    Raises AudiovqError if it holds something else and may not be overwritten.
    """
    require_outside_products(target)
    plan = target / "work" / "plan.json"
    if plan.exists() and read_object(plan, "a plan").get("fingerprint") == fingerprint:
        remove_partials(target)
        return
    if plan.exists() or (overwrite and (target / "dataset.json").exists()):
        if not overwrite:
            raise AudiovqError(
                f"{target}: contains an unfinished dataset with other recordings or settings;"
                " choose another folder, or add --overwrite"
            )
        write_json(plan, {"fingerprint": None})  # a run killed now leaves a folder to overwrite
        clear(target, but=plan.parent)
        clear(plan.parent, but=plan)
    elif overwrite and not is_blank(target):
        raise AudiovqError(
            f"{target}: exists and is not a dataset; empty it, or choose another folder"
        )
    else:
        require_new(target, overwrite=False)
        remove_partials(target)
    write_json(plan, {"fingerprint": fingerprint})
