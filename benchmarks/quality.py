"""Reconstruction quality of a model on speech, scored as codecs are.

    python benchmarks/quality.py MODEL RECORDINGS --test '_[0-4]\\.wav$' --group '_([a-z]+)_'

The test files go through the codes and back at their own rate. For each group (speaker) they are
joined in name order with 0.1 s of silence between; PESQ (narrow band at 8 kHz, wide band at 16) and
extended STOI compare the joined originals with the joined reconstructions and are averaged over the
groups. Beside the model stands what inverting the true spectrograms gives.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pesq import pesq
from pystoi import stoi
from tyro.conf import Positional, arg

from audiovq import audio, codec
from audiovq.checkpoint import load


def score(
    originals: Sequence[audio.Waveform],
    others: Sequence[audio.Waveform],
    groups: Sequence[str],
    rate: int,
) -> dict[str, float]:
    """PESQ, STOI and ESTOI over each group's joined clips, averaged over the groups."""
    pause = np.zeros(rate // 10, np.float32)
    scores: dict[str, list[float]] = {"pesq": [], "stoi": [], "estoi": []}
    for group in sorted(set(groups)):
        places = [i for i, g in enumerate(groups) if g == group]
        a, b = (
            np.concatenate([part for i in places for part in (side[i], pause)])
            for side in (originals, others)
        )
        scores["pesq"].append(float(pesq(rate, a, b, "nb" if rate == 8000 else "wb")))
        scores["stoi"].append(float(stoi(a, b, rate)))
        scores["estoi"].append(float(stoi(a, b, rate, extended=True)))
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def main(
    model: Positional[Path],
    recordings: Positional[Path],
    test: Annotated[str, arg(help="Pattern of the test files' names.")] = r"_[0-4]\.wav$",
    group: Annotated[str, arg(help="Pattern whose first group names the group.")] = r"_([a-z]+)_",
    out: Annotated[Path | None, arg(help="Write the result as JSON.")] = None,
) -> None:
    """Score a model's reconstructions.

    Args:
        model: Folder made by `audiovq train`.
        recordings: Folder of recordings.
    """
    loaded = load(model)
    rate = loaded.sample_rate
    paths = [path for path in audio.find(recordings)[0] if re.search(test, path.name)]
    originals = [audio.read(path, rate)[0] for path in paths]
    groups = [found[1] if (found := re.search(group, path.name)) else "" for path in paths]
    seconds = sum(map(len, originals)) / rate
    encoded = codec.encode(loaded, originals)
    bits_per_code = math.log2(loaded.autoencoder.config.codebook_size)
    levels = math.log2(loaded.spectrogram.config.num_levels)
    nominal = sum(sound.codes.numel() * bits_per_code + levels for sound in encoded) / seconds
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}",
        "files": len(paths),
        "seconds": round(seconds, 2),
        "nominal_bits_per_second": round(nominal, 1),
        "model": score(originals, codec.decode(loaded, encoded), groups, rate),
        "inversion_alone": score(
            originals, codec.invert(loaded.spectrogram, originals), groups, rate
        ),
    }
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
