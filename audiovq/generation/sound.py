"""`Sound`, a generated waveform with its codes, and the choice of the prior that generates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from audiovq.audio.chunks import Tags
from audiovq.audio.ends import ended
from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, SamplingConfig, Settled
from audiovq.generation.copies import Nearest
from audiovq.models.autoencoder.gaussian import Gaussian
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.spectral.stft import num_frames


@dataclass(frozen=True)
class Kept:
    """Which samples of an edited sound are those of the recording."""

    made: Waveform
    """The sound as the model makes it, (samples,), before the recording's samples replace its own."""
    spans: tuple[tuple[int, int], ...]
    """First sample of each new part, and the one after its last."""
    change: Waveform | None = None
    """What `made` adds to the recording as the model reads it, where some frequencies of new parts are the recording's."""


@dataclass(frozen=True)
class Sound:
    """A generated sound and how it was made."""

    waveform: Waveform
    """(samples,) or (2, samples) at the model's rate."""
    labels: dict[str, str]
    encoded: Encoded
    """Its codes; without quantizers where the model has no codes."""
    nearest: Nearest | None = None
    """The nearest training clip; None where it was not compared, or the model lacks the clips' codes."""
    tries: int = 1
    """Number of times it was sampled: near copies of training clips are sampled again."""
    kept: Kept | None = None
    """Samples of a recording that it keeps; None: it keeps none."""
    tags: Tags = Tags()
    """Loop, tempo and beats, for the file."""


def decode_sounds(
    model: Model,
    encoded: Sequence[Encoded],
    labels: Mapping[str, str] | None,
    inversion: Inversion,
    seed: int,
) -> list[Sound]:
    """Codes, decoded to sounds that all have the same `labels`."""
    inversion = of_new_sounds(model, inversion)
    waveforms = codec.decode(model, encoded, inversion=inversion, seed=seed)
    return [
        Sound(waveform, dict(labels or {}), codes)
        for waveform, codes in zip(waveforms, encoded, strict=True)
    ]


def of_new_sounds(model: Model, inversion: Inversion) -> Inversion:
    """`inversion` with decoder `auto` resolved to `vivid` where the model has a vivid decoder."""
    if inversion.decoder == "auto" and model.vivid is not None:
        return replace(inversion, decoder="vivid")
    return inversion


def settled(model: Model, sampling: SamplingConfig) -> Settled:
    """`sampling` with the guidance and the sweeps that are best for the model's sounds, where none is given."""
    masked = model.masked if sampling.order != "time" else None
    sweeps = 0 if masked is None else masked.sweeps
    return sampling.settled(model.spectrogram.config.is_wide, sweeps)


def end_in_silence(model: Model, sound: Sound, trims: bool) -> Sound:
    """A new sound that ends as `ends.ended` makes it, with the columns of codes that its length needs."""
    waveform = ended(sound.waveform, model.sample_rate, trims)
    hop_length = model.spectrogram.config.hop_length
    num_samples = waveform.shape[-1]
    columns = -(-num_frames(num_samples, hop_length) // model.autoencoder.stride[1])
    codes = sound.encoded.codes[:, :, :columns]
    encoded = Encoded(codes, sound.encoded.level, num_samples)
    return replace(sound, waveform=waveform, encoded=encoded)


def prior_or_none(model: Model, sampling: SamplingConfig) -> Prior | MaskedPrior | None:
    """The prior that samples codes; None for a Gaussian bottleneck, whose latents are sampled directly.

    Raises AudiovqError where the model cannot generate.
    """
    if isinstance(model.autoencoder.bottleneck, Gaussian):
        return None
    if not model.autoencoder.config.quantizes:
        raise AudiovqError(
            "the model has no codes (bottleneck none), so it cannot generate; train one with"
            " --autoencoder.bottleneck.kind vq, fsq or gaussian"
        )
    return pick_prior(model, sampling, "masked" if model.spectrogram.config.is_wide else "time")


def pick_prior(
    model: Model, sampling: SamplingConfig, default: Literal["time", "masked"]
) -> Prior | MaskedPrior:
    """The prior that `sampling.order` names; for `auto` the `default` one, or the only one there is.

    Raises AudiovqError where the model does not have it.
    """
    if not model.autoencoder.config.quantizes:
        raise AudiovqError(
            "the model has no codes to sample; train one with a quantizing bottleneck"
        )
    order = default if sampling.order == "auto" else sampling.order
    pair: list[Prior | MaskedPrior | None] = [model.prior, model.masked]
    if order == "masked":
        pair.reverse()
    found = pair[0] or (pair[1] if sampling.order == "auto" else None)
    if found is not None:
        return found
    if model.prior is None:
        raise AudiovqError(
            "the model cannot make new sounds, as it has no prior yet: if its training was stopped, run the same train"
            " command again (presets rate-… train none)"
        )
    raise AudiovqError("the model has no masked prior; train one with --masked-share 0.2")
