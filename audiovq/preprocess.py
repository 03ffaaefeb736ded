"""A folder of recordings → a dataset.

Headers are scanned and all settings chosen first; then each shard is made on its own, by any
executor, from a list of files to one array and one manifest. A shard is there whole or not at all,
so a run that was stopped goes on where it stood and ends in the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from audiovq import audio
from audiovq.catalog import Recording, Skipped, catalog
from audiovq.config import AudiovqError, PreprocessConfig, SpectrogramConfig, to_json
from audiovq.dataset import FORMAT, SPLITS, VERSION, Clip, Dataset
from audiovq.files import atomic, read_json, require_new, sha256, write_json, write_text
from audiovq.spectrogram import Spectrogram

FILES_PER_SHARD = 256
SHARD_BYTES = 1 << 30
FRAMES_MULTIPLE = 16
"""Clips are whole multiples of so many frames, which every network's stride divides."""


@dataclass(frozen=True)
class ShardJob:
    """All that one shard is made from; small, and can be sent to another machine."""

    name: str
    source: Path
    target: Path
    recordings: tuple[Recording, ...]
    spectrogram: SpectrogramConfig
    clip_frames: int
    trim_db: float | None


@dataclass
class Summary:
    """What a run of `preprocess` did."""

    found: int
    used: int
    skipped: list[Skipped]
    clips: dict[str, int]
    seconds: float
    """Of sound in all clips, padding not counted."""
    warnings: list[str] = field(default_factory=list)


def preprocess(
    source: Path,
    target: Path,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    say: Callable[[str], None] = print,
) -> Summary:
    """Make the dataset `target` from the recordings below `source`.

    Everything that `config` leaves open is chosen from the recordings. Run again, it goes on where
    it stopped. Raises AudiovqError where there is nothing to use or `target` holds something else.
    """
    config = config or PreprocessConfig()
    source, target = Path(source), Path(target)
    torch_threads = torch.get_num_threads()
    with_threads = executor or ThreadPoolExecutor(
        os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        files = catalog(source, target, config, with_threads)
        recordings, skipped = files.recordings, files.skipped
        settings, clip_frames, warnings = choose_settings(config, [r.info for r in recordings])
        Spectrogram(settings)  # refuses what cannot be, before anything is written
        warnings += files.notes
        fingerprint = _fingerprint(config, settings, clip_frames, recordings, skipped)
        if (target / "dataset.json").exists() and not overwrite:
            if Dataset(target).fingerprint == fingerprint:
                say(f"{target}: complete already, made from these recordings with these settings")
                return read_summary(target)
            raise AudiovqError(
                f"{target}: holds another dataset; name another folder, or add --overwrite"
            )
        _prepare(target, fingerprint, overwrite)
        for warning in warnings:
            say(f"note: {warning}")
        jobs = list(_jobs(source, target / "work", recordings, settings, clip_frames, config))
        todo = [job for job in jobs if not (job.target / f"{job.name}.jsonl").exists()]
        if len(todo) < len(jobs):
            say(
                f"{target}: going on where it stopped, {len(jobs) - len(todo)} of {len(jobs)} shards done"
            )
        futures = [with_threads.submit(make_shard, job) for job in todo]
        with tqdm(total=len(recordings), unit=" files", desc="preprocess", disable=None) as bar:
            bar.update(len(recordings) - sum(len(job.recordings) for job in todo))
            for future in as_completed(futures):
                bar.update(future.result())
    finally:
        if executor is None:
            with_threads.shutdown(cancel_futures=True)
            torch.set_num_threads(torch_threads)  # what workers set, a main thread may inherit
    return _assemble(
        target,
        jobs,
        config,
        settings,
        clip_frames,
        fingerprint,
        skipped,
        files.found,
        warnings,
    )


def choose_settings(
    config: PreprocessConfig, headers: list[audio.AudioInfo]
) -> tuple[SpectrogramConfig, int, list[str]]:
    """The spectrogram's settings, frames per clip, and what the user should know of the choice."""
    rates = Counter(header.sample_rate for header in headers)
    rate = config.sample_rate or min(rates, key=lambda r: (-rates[r], r))
    settings = SpectrogramConfig.for_rate(
        rate, config.n_fft, config.hop_length, config.n_mels, config.range_db
    )
    warnings = []
    if lower := sum(n for r, n in rates.items() if r < rate):
        warnings.append(
            f"{lower} of {len(headers)} files have a lower rate than {rate} Hz;"
            " bringing them up adds nothing to their sound (--sample-rate sets another)"
        )
    seconds = config.clip_seconds
    if seconds is None:
        lengths = [h.seconds for h in headers]
        longest = max(lengths)
        seconds = min(2.0, float(np.quantile(lengths, 0.99)))
        if longest <= 2.5:
            seconds = longest + 1 / rate  # a clip of n frames ends one sample before n hops
    frames = math.ceil(seconds * rate / settings.hop_length / FRAMES_MULTIPLE) * FRAMES_MULTIPLE
    if longer := sum(h.seconds * rate >= frames * settings.hop_length for h in headers):
        warnings.append(
            f"{longer} of {len(headers)} files are longer than a clip of"
            f" {frames * settings.hop_length / rate:.2f} s and are cut into several"
        )
    return settings, frames, warnings


def make_shard(job: ShardJob) -> int:
    """Write one shard: NAME.npy, then NAME.jsonl, which marks it done. Returns the files read."""
    clip_samples = job.clip_frames * job.spectrogram.hop_length - 1  # gives just clip_frames
    waveforms: list[audio.Waveform] = []
    rows: list[dict[str, Any]] = []
    for recording in job.recordings:
        path = job.source / recording.path
        try:
            waveform, _ = audio.read(path, job.spectrogram.sample_rate)
            checksum = sha256(path)
            for offset, piece in _clips(waveform, job, clip_samples):
                waveforms.append(piece)
                rows.append(
                    {
                        "path": recording.path,
                        "offset": offset,
                        "num_samples": len(piece),
                        "sample_rate": recording.info.sample_rate,
                        "level": 0,
                        "labels": recording.labels,
                        "sha256": checksum,
                    }
                )
        except audio.AudioError as error:
            rows.append(dataclasses.asdict(Skipped(recording.path, str(error))))
    spectrogram = Spectrogram(job.spectrogram)
    array = np.zeros((len(waveforms), job.spectrogram.bins, job.clip_frames), np.float16)
    levels: list[int] = []
    for begin in range(0, len(waveforms), 64):
        pieces = waveforms[begin : begin + 64]
        batch = torch.zeros(len(pieces), clip_samples)
        for i, piece in enumerate(pieces):
            batch[i, : len(piece)] = torch.from_numpy(piece)
        images, batch_levels = spectrogram(batch, torch.tensor([len(piece) for piece in pieces]))
        array[begin : begin + len(pieces)] = images[:, 0].numpy()
        levels += batch_levels.tolist()
    for row, level in zip((row for row in rows if "level" in row), levels, strict=True):
        row["level"] = level
    with atomic(job.target / f"{job.name}.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
    write_text(job.target / f"{job.name}.jsonl", "".join(_line(row) for row in rows))
    return len(job.recordings)


def _clips(
    waveform: audio.Waveform, job: ShardJob, clip_samples: int
) -> Iterator[tuple[int, audio.Waveform]]:
    """(offset, piece) one after another; a short rest is covered by a piece that ends with it."""
    rate = job.spectrogram.sample_rate
    if float(np.abs(waveform).max(initial=0)) == 0:
        raise audio.AudioError("is silent throughout")
    if job.trim_db is not None:
        start, end = audio.trim(waveform, rate, job.trim_db)
        waveform = waveform[start:end]
    if len(waveform) < job.spectrogram.n_fft:
        raise audio.AudioError(
            f"is shorter than one window ({1000 * len(waveform) / rate:.0f} ms of sound,"
            f" a window is {1000 * job.spectrogram.n_fft / rate:.0f} ms)"
        )
    for offset in range(0, len(waveform), clip_samples):
        if offset > 0 and len(waveform) - offset < clip_samples // 4:
            offset = len(waveform) - clip_samples
        yield offset, waveform[offset : offset + clip_samples]


def _line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _fingerprint(
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    recordings: list[Recording],
    skipped: list[Skipped],
) -> str:
    """SHA-256 over all that the dataset is made from, short of the recordings' samples."""
    text = json.dumps(
        [
            to_json(config),
            to_json(settings),
            clip_frames,
            [dataclasses.asdict(recording) for recording in recordings],
            [dataclasses.asdict(s) for s in skipped],
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _prepare(target: Path, fingerprint: str, overwrite: bool) -> None:
    """Leave `target` empty but for shards of this very dataset."""
    plan = target / "work" / "plan.json"
    if plan.exists() and read_json(plan, "a plan").get("fingerprint") == fingerprint:
        return
    if plan.exists() or (overwrite and (target / "dataset.json").exists()):
        if not overwrite:
            raise AudiovqError(
                f"{target}: holds a started dataset of other recordings or settings;"
                " name another folder, or add --overwrite"
            )
        shutil.rmtree(target)
    if overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AudiovqError(f"{target}: exists and is no dataset; empty it, or name another folder")
    require_new(target, overwrite=False)
    write_json(plan, {"fingerprint": fingerprint})


def _jobs(
    source: Path,
    work: Path,
    recordings: list[Recording],
    settings: SpectrogramConfig,
    clip_frames: int,
    config: PreprocessConfig,
) -> Iterator[ShardJob]:
    """Each split's recordings in order, as many to a shard as its size allows."""
    clip_seconds = clip_frames * settings.hop_length / settings.sample_rate
    clips_limit = max(1, SHARD_BYTES // (settings.bins * clip_frames * 2))
    files_limit = max(FILES_PER_SHARD, len(recordings) // 1024)
    trim_db = config.trim_db if config.trim else None
    for split in SPLITS:
        shards: list[list[Recording]] = []
        clips = 0
        for recording in (r for r in recordings if r.split == split):
            more = math.ceil(recording.info.seconds / clip_seconds) + 1
            if not shards or clips + more > clips_limit or len(shards[-1]) >= files_limit:
                shards.append([])
                clips = 0
            shards[-1].append(recording)
            clips += more
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}"
            yield ShardJob(name, source, work, tuple(shard), settings, clip_frames, trim_db)


def _assemble(
    target: Path,
    jobs: list[ShardJob],
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    fingerprint: str,
    skipped: list[Skipped],
    found: int,
    warnings: list[str],
) -> Summary:
    """Shards' manifests → the dataset's; dataset.json comes last and makes it a dataset."""
    rows: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    skipped = list(skipped)
    for job in jobs:
        split = job.name.rpartition("-")[0]
        with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        clips = [Clip(**line) for line in lines if "reason" not in line]
        skipped += [Skipped(**line) for line in lines if "reason" in line]
        rows[split] += clips
        made, final = job.target / f"{job.name}.npy", target / f"{job.name}.npy"
        if clips:
            if made.exists():
                os.replace(made, final)
            shards[split].append({"file": final.name, "clips": len(clips), "sha256": sha256(final)})
    skipped.sort(key=lambda s: s.path)
    clips_in_all = [clip for split in SPLITS for clip in rows[split]]
    if not rows["train"]:
        worst = skipped[0] if skipped else Skipped(str(target), "nothing is left to learn from")
        shutil.rmtree(target)
        raise AudiovqError(f"no recording can be learnt from: {worst.path} {worst.reason}")
    used = len({clip.path for clip in clips_in_all})
    labels: dict[str, list[str]] = {}
    for name in sorted({name for clip in clips_in_all for name in clip.labels}):
        values = {clip.labels[name] for clip in clips_in_all if name in clip.labels}
        labels[name] = sorted(
            values, key=lambda v: (not v.isdecimal(), int(v) if v.isdecimal() else 0, v)
        )
    for split in SPLITS:
        write_text(
            target / f"{split}.jsonl", "".join(_line(dataclasses.asdict(c)) for c in rows[split])
        )
    write_text(target / "skipped.jsonl", "".join(_line(dataclasses.asdict(s)) for s in skipped))
    seconds = sum(clip.num_samples for clip in clips_in_all) / settings.sample_rate
    write_json(
        target / "dataset.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": fingerprint,
            "source": str(jobs[0].source.resolve()),
            "spectrogram": to_json(settings),
            "clip_frames": clip_frames,
            "labels": labels,
            "files": {"found": found, "used": used, "skipped": len(skipped)},
            "seconds": round(seconds, 3),
            "splits": {s: {"clips": len(rows[s]), "shards": shards[s]} for s in SPLITS},
            "preprocess": to_json(config),
        },
    )
    shutil.rmtree(target / "work")
    return Summary(found, used, skipped, {s: len(rows[s]) for s in SPLITS}, seconds, warnings)


def read_summary(target: Path) -> Summary:
    """What the run that made the dataset `target` did."""
    header = read_json(target / "dataset.json", "a dataset")
    try:
        with open(target / "skipped.jsonl", encoding="utf-8") as file:
            skipped = [Skipped(**json.loads(line)) for line in file]
        clips = {split: int(header["splits"][split]["clips"]) for split in SPLITS}
        files = header["files"]
        return Summary(files["found"], files["used"], skipped, clips, header["seconds"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AudiovqError(f"{target}: damaged ({error!r}); run preprocess again") from error
