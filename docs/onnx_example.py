"""A new sound from a model's exported programs, with onnxruntime and NumPy alone.

audiovq export digits programs
python docs/onnx_example.py programs seven.wav digit=7
"""

import json
import sys
import wave
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime


def generate(folder: Path, asked: dict[str, str], temperature: float = 1.0) -> tuple[Any, int]:
    """A waveform (samples,), or of stereo (2, samples), with the labels asked for, and its rate in Hz."""
    if not (folder / "prior.onnx").exists():
        refuse(
            f"{folder} has no prior.onnx, by which sounds are generated: its model has no such prior"
        )
    facts = json.loads((folder / "programs.json").read_text(encoding="utf-8"))
    words, grid = facts["vocabulary"], facts["spectrogram"]
    prior, decoder = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx")
        for name in ("prior", "vivid" if (folder / "vivid.onnx").exists() else "decoder")
    )
    labels = facts["labels"]
    for name in asked.keys() - labels:
        refuse(f"{name}: no such label; the model has {', '.join(labels) or 'none'}")
    left_open = [v["size"] if isinstance(v, dict) else len(v) for v in labels.values()]
    wanted = [
        index_of(name, labels[name], asked[name]) if name in asked else one_past
        for name, one_past in zip(labels, left_open, strict=True)
    ]
    tokens, random = np.zeros((1, 0), np.int64), np.random.default_rng()
    while tokens.shape[1] <= words["slots"] * words["max_columns"]:
        given = {
            "tokens": tokens.repeat(2, axis=0),
            "labels": np.array([wanted, left_open], dtype=np.int64),
        }
        ours, anything = np.maximum(prior.run(None, given)[0].astype(float), -1e9)
        if tokens.shape[1] == 1:
            ours[words["end"]] = -1e9  # a sound has at least one column
        logits = (2 * ours - anything) / temperature  # guidance 1, as in audiovq up to 24 kHz
        chances = np.exp(logits - logits.max()) * (ours > -1e9)
        token = random.choice(words["size"], p=chances / chances.sum())
        if token == words["end"]:
            break
        tokens = np.append(tokens, [[token]], axis=1)
    columns = tokens[0, 1:].reshape(-1, words["rows"], words["num_quantizers"])
    codes = (columns - words["codebook_size"] * np.arange(words["num_quantizers"])).T
    stereo = ["gains", "turn"] if grid.get("channels", 1) == 2 else []
    made = decoder.run(["magnitude", *stereo], {"codes": codes[None]})
    n_fft, hop_length = grid["n_fft"], grid["hop_length"]
    sound = griffin_lim(made[0][0], n_fft, hop_length)
    level = grid["loudest_db"] - grid["level_step_db"] * (tokens[0, 0] - words["end"] - 1)
    if stereo:  # both channels are the sound, each with its gain, and turned to one side
        turned = made[1][0] * np.exp(1j * np.stack([made[2][0], -made[2][0]]))
        sound = np.stack([filtered(sound, side, n_fft, hop_length) for side in turned])
    return 10 ** (level / 20) * n_fft / 4 * sound, grid["sample_rate"]


def index_of(name: str, values: Any, asked: str) -> int:
    """Index of a label's value: of words (a list) or of numbers, of which notes are MIDI numbers."""
    if isinstance(values, list):
        known = ", ".join(values)
        return values.index(asked) if asked in values else refuse(f"{name}={asked}: give {known}")
    unit = 10.0 ** values["digits"]
    low, high = values["first"], values["first"] + values["size"] - 1
    try:
        return range(low, high + 1).index(round(float(asked) * unit))
    except (ValueError, OverflowError):
        refuse(f"{name}={asked}: give a number from {low / unit:g} to {high / unit:g}")


def refuse(reason: str) -> NoReturn:
    """End with one line and exit code 2, for what the user can mend."""
    print(reason, file=sys.stderr)
    sys.exit(2)


def filtered(sound: Any, gains: Any, n_fft: int, hop_length: int) -> Any:
    """(samples,) with its spectrum multiplied by complex gains (bins, frames)."""
    window, frames = np.hanning(n_fft + 1)[:-1], gains.shape[1]
    indices = hop_length * np.arange(frames)[:, None] + np.arange(n_fft)
    spectrum = np.fft.rfft(np.pad(sound, n_fft // 2)[indices] * window) * gains.T
    added = np.bincount(indices.ravel(), (window * np.fft.irfft(spectrum, n_fft)).ravel())
    weight = np.bincount(indices.ravel(), np.tile(window**2, frames))
    return (added / np.maximum(weight, 1e-3))[n_fft // 2 : -(n_fft // 2)]


def griffin_lim(magnitude: Any, n_fft: int, hop_length: int, n_iter: int = 64) -> Any:
    """(bins, frames) → (samples,): Griffin and Lim 1984, with the momentum of Perraudin et al. 2013."""
    window, frames = np.hanning(n_fft + 1)[:-1], magnitude.shape[1]
    indices = hop_length * np.arange(frames)[:, None] + np.arange(n_fft)
    weight = np.bincount(indices.ravel(), np.tile(window**2, frames))
    unpadded = slice(n_fft // 2, -(n_fft // 2))  # the sound, without the zeros around it
    spectrum = magnitude.T * np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.T.shape))
    before = np.zeros_like(spectrum)
    for _ in range(n_iter + 1):
        added = np.bincount(indices.ravel(), (window * np.fft.irfft(spectrum, n_fft)).ravel())
        sound = np.zeros_like(added)
        sound[unpadded] = added[unpadded] / weight[unpadded]
        now = np.fft.rfft(sound[indices] * window)
        spectrum, before = now + 0.99 * (now - before), now
        spectrum *= magnitude.T / np.maximum(np.abs(spectrum), 1e-12)
    return sound[unpadded]


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in pair for pair in sys.argv[3:]):
        refuse(f"usage: {sys.argv[0]} PROGRAMS OUT.wav [LABEL=VALUE ...]")
    programs, target, *pairs = sys.argv[1:]
    sound, sample_rate = generate(Path(programs), dict(pair.split("=", 1) for pair in pairs))
    with wave.open(target, "wb") as file:
        file.setparams((sound.ndim, 2, sample_rate, 0, "NONE", ""))
        file.writeframes((32767 * sound.T / max(1, np.abs(sound).max())).astype("<i2").tobytes())
